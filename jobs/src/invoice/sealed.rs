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
    vault::{BlindIndex, Cell, Class, IndexColumn, IndexedColumn, Key, Owner, SealedColumn, Source, Vault, Version},
};

const INVOICES: &str = "muneem.invoice_invoices";
const REFUSALS: &str = "muneem.invoice_refusals";

/// What this duty seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(INVOICES, "document_sealed", Key::uuid("invoice_id")),
    SealedColumn::of_row(INVOICES, "deliver_sealed", Key::uuid("invoice_id")),
    SealedColumn::of_row(REFUSALS, "payload_sealed", Key::uuid("refusal_id")),
];

/// What this duty looks up.
pub const INDEXED: &[IndexedColumn] = &[IndexedColumn {
    table: INVOICES,
    column: "supplier_gstin_mark",
    version: Version::Within,
    purpose: "muneem.invoice_invoices.supplier_gstin_mark",
    key: Key::uuid("invoice_id"),
    owner: Owner::Row,
    source: Source::Sealed { column: "document_sealed", value: supplier_gstin },
}];

/// The GSTIN that a document was issued under.
fn supplier_gstin(document: &[u8]) -> Option<Zeroizing<String>> {
    #[derive(serde::Deserialize)]
    struct Document {
        supplier: Supplier,
    }
    #[derive(serde::Deserialize)]
    struct Supplier {
        gstin: String,
    }
    serde_json::from_slice::<Document>(document).ok().map(|document| Zeroizing::new(document.supplier.gstin))
}

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

/// Lets nobody else record the same number of the same GSTIN until the transaction ends, while index keys change.
pub(super) async fn hold_number(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    invoice: &Invoice,
    financial_year: i32,
) -> Result<(), Error> {
    let beside = format!("{financial_year} {} {}", invoice.kind.as_str(), invoice.number.to_uppercase());
    Ok(vault.hold_equal(conn, &gstin_column(business), &invoice.supplier.gstin, &beside).await?)
}

/// All marks that may be stored for a GSTIN while index keys change; the first is the one to store.
pub(super) async fn gstin_marks(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    gstin: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let column = gstin_column(business);
    let mut marks = vec![vault.index(&mut *conn, &column, gstin).await?.to_bytes()];
    let all = vault.indexes(conn, &column, gstin).await?;
    marks.extend(all.iter().map(BlindIndex::to_bytes).filter(|mark| *mark != marks[0]).collect::<Vec<_>>());
    Ok(marks)
}
