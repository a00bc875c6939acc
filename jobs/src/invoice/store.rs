use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::{
    Error, Problem,
    issue::HandedOver,
    model::{Deliver, Exact, Invoice, InvoiceId, Kind, NewInvoice, Recorded, RefusalId, State},
    sealed,
    tax::Amounts,
};
use crate::{law::FinancialYear, people::BusinessId, vault::Vault};

/// A checked document, about to be recorded.
pub(super) struct NewRow<'a> {
    pub(super) id: InvoiceId,
    pub(super) business: BusinessId,
    pub(super) new: &'a NewInvoice,
    pub(super) amounts: &'a Amounts,
    pub(super) now: DateTime<Utc>,
}

/// Inserts a document unless its number is taken; says whether it did. Waits for a transaction that is inserting the
/// same number.
pub(super) async fn insert_invoice(conn: &mut PgConnection, vault: &Vault, row: &NewRow<'_>) -> Result<bool, Error> {
    let invoice = &row.new.invoice;
    let year = FinancialYear::of(invoice.issued_on);
    let of = (row.business, row.id);
    let document = sealed::seal_document(conn, vault, of, invoice).await?;
    let deliver = match &row.new.deliver {
        Some(deliver) => Some(sealed::seal_deliver(conn, vault, of, deliver).await?),
        None => None,
    };
    sealed::hold_number(conn, vault, row.business, invoice, year.start_year()).await?;
    let marks = sealed::gstin_marks(conn, vault, row.business, &invoice.supplier.gstin).await?;
    // The unique index sees one version of the index key; the others are looked for.
    let inserted = sqlx::query!(
        r#"
        insert into muneem.invoice_invoices (
            invoice_id, business_id, kind, supplier_gstin_mark, number, issued_on, financial_year, state,
            document_sealed, deliver_sealed, taxable, tax, round_off, total, keep_until, received_at
        )
        select $1, $2, $3, ($4::bytea[])[1], $5, $6, $7, 'received', $8, $9, $10, $11, $12, $13, $14, $15
        where not exists (
            select from muneem.invoice_invoices i
            where i.business_id = $2
                and i.supplier_gstin_mark = any (($4::bytea[])[2:])
                and i.financial_year = $7
                and i.kind = $3
                and upper(i.number) = upper($5)
        )
        on conflict do nothing
        "#,
        row.id.0,
        row.business.0,
        invoice.kind.as_str(),
        &marks,
        invoice.number,
        invoice.issued_on,
        year.start_year(),
        document,
        deliver,
        row.amounts.taxable,
        row.amounts.tax.sum(),
        row.amounts.round_off,
        row.amounts.total,
        year.books_keep_until(),
        row.now,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The document that has this number.
pub(super) async fn find_by_number(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    invoice: &Invoice,
) -> Result<Option<(InvoiceId, Invoice)>, Error> {
    let marks = sealed::gstin_marks(conn, vault, business, &invoice.supplier.gstin).await?;
    let row = sqlx::query!(
        r#"
        select i.invoice_id as "invoice_id: InvoiceId", i.document_sealed
        from muneem.invoice_invoices i
        where i.business_id = $1
            and i.supplier_gstin_mark = any ($2)
            and i.financial_year = $3
            and i.kind = $4
            and upper(i.number) = upper($5)
        "#,
        business.0,
        &marks,
        FinancialYear::of(invoice.issued_on).start_year(),
        invoice.kind.as_str(),
        invoice.number,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let document = sealed::open_document(conn, vault, (business, row.invoice_id), &row.document_sealed).await?;
    Ok(Some((row.invoice_id, document)))
}

/// A recorded document with all that its paper needs.
pub(super) struct Draft {
    pub(super) invoice: Invoice,
    pub(super) deliver: Option<Deliver>,
    pub(super) keep_until: NaiveDate,
    pub(super) issued: Option<Issued>,
}

/// What there is once a document is on paper.
pub(super) struct Issued {
    pub(super) pdf_digest: String,
    pub(super) at: DateTime<Utc>,
}

/// Reads a document.
pub(super) async fn load_draft(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    id: InvoiceId,
) -> Result<Draft, Error> {
    let row = sqlx::query!(
        r#"
        select i.document_sealed, i.deliver_sealed, i.keep_until, i.pdf_digest, i.issued_at
        from muneem.invoice_invoices i
        where i.business_id = $1 and i.invoice_id = $2
        "#,
        business.0,
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound(id))?;
    let deliver = match &row.deliver_sealed {
        Some(deliver) => Some(sealed::open_deliver(conn, vault, (business, id), deliver).await?),
        None => None,
    };
    Ok(Draft {
        invoice: sealed::open_document(conn, vault, (business, id), &row.document_sealed).await?,
        deliver,
        keep_until: row.keep_until,
        issued: row.pdf_digest.zip(row.issued_at).map(|(pdf_digest, at)| Issued { pdf_digest, at }),
    })
}

/// Marks a document issued, once; says whether it did. Where it goes is forgotten unless it `waits` to go there.
pub(super) async fn mark_issued(
    conn: &mut PgConnection,
    id: InvoiceId,
    issued: &Issued,
    waits: bool,
) -> Result<bool, Error> {
    let updated = sqlx::query!(
        r#"
        update muneem.invoice_invoices
        set state = 'issued', pdf_digest = $2, issued_at = $3,
            deliver_sealed = case when $4 then deliver_sealed end
        where invoice_id = $1 and state = 'received'
        "#,
        id.0,
        issued.pdf_digest,
        issued.at,
        waits,
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Forgets where a document goes: it is on its way. Once; says whether it did.
pub(super) async fn forget_deliver(conn: &mut PgConnection, id: InvoiceId) -> Result<bool, Error> {
    let updated = sqlx::query!(
        r#"
        update muneem.invoice_invoices
        set deliver_sealed = null
        where invoice_id = $1 and deliver_sealed is not null
        "#,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// A refused document, about to be kept.
pub(super) struct NewRefusal<'a> {
    pub(super) id: RefusalId,
    pub(super) business: BusinessId,
    pub(super) handed_over: &'a HandedOver,
    pub(super) problems: &'a [Problem],
    pub(super) now: DateTime<Utc>,
}

/// Keeps a refused document out of its job.
pub(super) async fn insert_refusal(conn: &mut PgConnection, vault: &Vault, row: &NewRefusal<'_>) -> Result<(), Error> {
    let payload = sealed::seal_refused(conn, vault, (row.id, row.business), row.handed_over.0.get()).await?;
    sqlx::query!(
        r#"
        insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, number, problems, refused_at)
        values ($1, $2, $3, $4, $5, $6)
        "#,
        row.id.0,
        row.business.0,
        payload,
        row.handed_over.number().unwrap_or_default(),
        serde_json::to_value(row.problems).map_err(Error::Unreadable)?,
        row.now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A refused document as it was handed over.
pub(super) async fn find_refused(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    id: RefusalId,
) -> Result<Option<HandedOver>, Error> {
    let payload = sqlx::query_scalar!(
        r#"
        select r.payload_sealed
        from muneem.invoice_refusals r
        where r.business_id = $1 and r.refusal_id = $2
        "#,
        business.0,
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(payload) = payload else { return Ok(None) };
    let payload = sealed::open_refused(conn, vault, (id, business), &payload).await?;
    Ok(Some(HandedOver(serde_json::from_slice(&payload).map_err(Error::Unreadable)?)))
}

/// The number of a refused document with what was wrong; of any business when `business` is absent.
pub(super) async fn find_refusal(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: RefusalId,
) -> Result<Option<(String, Vec<Problem>)>, Error> {
    let row = sqlx::query!(
        r#"
        select r.number, r.problems
        from muneem.invoice_refusals r
        where ($1::uuid is null or r.business_id = $1) and r.refusal_id = $2
        "#,
        business.map(|business| business.0),
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.number, serde_json::from_value(row.problems).map_err(Error::Unreadable)?))).transpose()
}

/// Removes a refusal whose document was taken after all.
pub(super) async fn delete_refusal(conn: &mut PgConnection, id: RefusalId) -> Result<(), Error> {
    sqlx::query!("delete from muneem.invoice_refusals where refusal_id = $1", id.0).execute(conn).await?;
    Ok(())
}

struct Row {
    business_id: BusinessId,
    invoice_id: InvoiceId,
    kind: Kind,
    number: String,
    issued_on: NaiveDate,
    state: State,
    taxable: Decimal,
    tax: Decimal,
    total: Decimal,
    pdf_digest: Option<String>,
    keep_until: NaiveDate,
}

impl From<Row> for Recorded {
    fn from(row: Row) -> Self {
        Self {
            business: row.business_id,
            invoice_id: row.invoice_id,
            kind: row.kind,
            number: row.number,
            financial_year: FinancialYear::of(row.issued_on).to_string(),
            issued_on: row.issued_on,
            state: row.state,
            taxable: Exact(row.taxable),
            tax: Exact(row.tax),
            total: Exact(row.total),
            pdf_digest: row.pdf_digest,
            keep_until: row.keep_until,
        }
    }
}

/// One document; of any business when `business` is absent.
pub(super) async fn find_recorded(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: InvoiceId,
) -> Result<Option<Recorded>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select
            i.business_id as "business_id: BusinessId", i.invoice_id as "invoice_id: InvoiceId", i.kind as "kind: Kind",
            i.number, i.issued_on, i.state as "state: State", i.taxable, i.tax, i.total, i.pdf_digest, i.keep_until
        from muneem.invoice_invoices i
        where ($1::uuid is null or i.business_id = $1) and i.invoice_id = $2
        "#,
        business.map(|business| business.0),
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Recorded::from))
}

/// A page of documents, newest first; of all businesses when `business` is absent.
pub(super) async fn list_recorded(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<InvoiceId>,
    limit: i64,
) -> Result<Vec<Recorded>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select
            i.business_id as "business_id: BusinessId", i.invoice_id as "invoice_id: InvoiceId", i.kind as "kind: Kind",
            i.number, i.issued_on, i.state as "state: State", i.taxable, i.tax, i.total, i.pdf_digest, i.keep_until
        from muneem.invoice_invoices i
        where ($1::uuid is null or i.business_id = $1) and ($2::uuid is null or i.invoice_id < $2)
        order by i.invoice_id desc
        limit $3
        "#,
        business.map(|business| business.0),
        before.map(|id| id.0),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Recorded::from).collect())
}
