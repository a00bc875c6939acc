//! What is sealed of a document, and the marks that stand for a GSTIN.

use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{
    Error,
    model::{Deliver, Invoice, InvoiceId, RefusalId},
};
use crate::{
    people::BusinessId,
    vault::{BlindIndex, Cell, Class, IndexColumn, Vault},
};

const INVOICES: &str = "muneem.invoice_invoices";
const REFUSALS: &str = "muneem.invoice_refusals";

fn cell<'a>(business: BusinessId, column: &'a str, row: &'a str) -> Cell<'a> {
    Cell { business_id: business, table: INVOICES, column, row }
}

/// Seals a document.
pub(super) async fn seal_document(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, InvoiceId),
    invoice: &Invoice,
) -> Result<Vec<u8>, Error> {
    let plain = Zeroizing::new(serde_json::to_vec(invoice).map_err(Error::Unreadable)?);
    let row = id.to_string();
    Ok(vault.seal(conn, Class::Document, &cell(business, "document_sealed", &row), &plain).await?)
}

/// Opens a document.
pub(super) async fn open_document(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, InvoiceId),
    sealed: &[u8],
) -> Result<Invoice, Error> {
    open(conn, vault, &cell(business, "document_sealed", &id.to_string()), sealed).await
}

/// Seals where a document goes.
pub(super) async fn seal_deliver(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, InvoiceId),
    deliver: &Deliver,
) -> Result<Vec<u8>, Error> {
    let plain = Zeroizing::new(serde_json::to_vec(deliver).map_err(Error::Unreadable)?);
    let row = id.to_string();
    Ok(vault.seal(conn, Class::Contact, &cell(business, "deliver_sealed", &row), &plain).await?)
}

/// Opens where a document goes.
pub(super) async fn open_deliver(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, InvoiceId),
    sealed: &[u8],
) -> Result<Deliver, Error> {
    open(conn, vault, &cell(business, "deliver_sealed", &id.to_string()), sealed).await
}

async fn open<T: DeserializeOwned>(
    conn: &mut PgConnection,
    vault: &Vault,
    cell: &Cell<'_>,
    sealed: &[u8],
) -> Result<T, Error> {
    let plain = vault.open(conn, cell, sealed).await?;
    serde_json::from_slice(&plain).map_err(Error::Unreadable)
}

fn refusal_cell(business: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id: business, table: REFUSALS, column: "payload_sealed", row }
}

/// Seals a refused payload.
pub(super) async fn seal_refused(
    conn: &mut PgConnection,
    vault: &Vault,
    (id, business): (RefusalId, BusinessId),
    payload: &str,
) -> Result<Vec<u8>, Error> {
    Ok(vault.seal(conn, Class::Payload, &refusal_cell(business, &id.to_string()), payload.as_bytes()).await?)
}

/// Opens a refused payload.
pub(super) async fn open_refused(
    conn: &mut PgConnection,
    vault: &Vault,
    (id, business): (RefusalId, BusinessId),
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    Ok(vault.open(conn, &refusal_cell(business, &id.to_string()), sealed).await?)
}

fn gstin_column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: INVOICES, column: "supplier_gstin_mark" }
}

/// All marks that may be stored for a GSTIN while index keys change; the first is the one to store.
pub(super) async fn gstin_marks(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    gstin: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let column = gstin_column(business);
    let mut marks = vec![bytes_of(&vault.index(&mut *conn, &column, gstin).await?)];
    let all = vault.indexes(conn, &column, gstin).await?;
    marks.extend(all.iter().map(bytes_of).filter(|mark| *mark != marks[0]).collect::<Vec<_>>());
    Ok(marks)
}

fn bytes_of(index: &BlindIndex) -> Vec<u8> {
    [&index.version.to_be_bytes()[..], &index.digest].concat()
}
