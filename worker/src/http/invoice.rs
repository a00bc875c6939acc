//! `/v1/invoice`: documents seen and fetched, and why one was refused. They come in by the queue, as the job
//! `invoice.issue`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
};
use chrono::NaiveDate;
use muneem_jobs::invoice::{self, Exact, InvoiceId, Kind, Recorded, RefusalId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    cursor::{self, Listing, Page},
    problem::{FieldProblem, Problem, ProblemId},
    query::Query,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(pdf)).routes(routes!(refusal))
}

/// A tax invoice, bill of supply or credit note, without anybody's particulars.
#[derive(Serialize, ToSchema)]
struct Invoice {
    /// Its id.
    id: uuid::Uuid,
    /// Id of the business it is of.
    business_id: uuid::Uuid,
    /// tax_invoice, bill_of_supply or credit_note.
    #[schema(value_type = String)]
    kind: Kind,
    /// Its serial number as printed.
    #[schema(example = "SM/26-27/00042")]
    number: String,
    /// Financial year of its date.
    #[schema(example = "2026-27")]
    financial_year: String,
    /// Its date.
    issued_on: NaiveDate,
    /// received (the PDF is being made) or issued.
    #[schema(value_type = String)]
    state: invoice::State,
    /// Value before tax, in rupees.
    #[schema(value_type = String, example = "12711.02")]
    taxable: Exact,
    /// All taxes, in rupees.
    #[schema(value_type = String, example = "2287.98")]
    tax: Exact,
    /// What is to be paid or credited, in rupees.
    #[schema(value_type = String, example = "14999")]
    total: Exact,
    /// SHA-256 of the PDF, in hexadecimal, once it exists.
    pdf_digest: Option<String>,
    /// The law keeps it at least until this day.
    keep_until: NaiveDate,
}

impl From<Recorded> for Invoice {
    fn from(recorded: Recorded) -> Self {
        Self {
            id: recorded.invoice_id.0,
            business_id: recorded.business.0,
            kind: recorded.kind,
            number: recorded.number,
            financial_year: recorded.financial_year,
            issued_on: recorded.issued_on,
            state: recorded.state,
            taxable: recorded.taxable,
            tax: recorded.tax,
            total: recorded.total,
            pdf_digest: recorded.pdf_digest,
            keep_until: recorded.keep_until,
        }
    }
}

/// Which invoices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List invoices, newest first
///
/// None is made here: enqueue a job of the kind `invoice.issue` with the document as its payload, by
/// `POST /v1/queue/jobs` or by `muneem.enqueue` in your own transaction. The job's result names the invoice.
#[utoipa::path(get, path = "/v1/invoice/invoices", tag = "invoice", params(Filter),
    responses((status = 200, body = Page<Invoice>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Invoice>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<InvoiceId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let invoices = invoice::list_invoices(&mut db, business, before, limit + 1).await?;
    Ok(Json(cursors.page(invoices.into_iter().map(Invoice::from).collect(), limit, |invoice| invoice.id.to_string())))
}

/// Show one invoice
#[utoipa::path(get, path = "/v1/invoice/invoices/{id}", tag = "invoice", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Invoice)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Invoice>, Problem> {
    let mut db = caller.enter(&api).await?;
    Ok(Json(visible(&mut db, &caller, &id).await?.into()))
}

/// The invoice, if it exists for this caller.
async fn visible(db: &mut PgConnection, caller: &Caller, id: &str) -> Result<Recorded, Problem> {
    let id = id.parse().map_err(|_| ProblemId::NoSuchInvoice)?;
    invoice::find_invoice(db, caller.business, id).await?.ok_or_else(|| ProblemId::NoSuchInvoice.into())
}

/// Fetch the PDF of an invoice
#[utoipa::path(get, path = "/v1/invoice/invoices/{id}/pdf", tag = "invoice", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "The PDF", content_type = "application/pdf")))]
async fn pdf(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let mut db = caller.enter(&api).await?;
    let recorded = visible(&mut db, &caller, &id).await?;
    let located = invoice::locate_pdf(&mut db, &api.vault, &recorded).await?.ok_or(ProblemId::NotIssued)?;
    drop(db);
    let pdf = invoice::load_pdf(api.objects.as_ref(), &recorded, &located).await?;
    let mut response = Response::new(Body::from(pdf.bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/pdf"));
    headers.insert(header::CONTENT_DISPOSITION, attachment(&pdf.file_name));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// `attachment` under a name of letters, digits, dots and hyphens: nothing in it can end the quotes or name a folder.
fn attachment(file_name: &str) -> HeaderValue {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '.';
    let name: String = file_name.chars().map(|character| if plain(character) { character } else { '-' }).collect();
    HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).expect("letters, digits, dots and hyphens")
}

/// A document that was refused.
#[derive(Serialize, ToSchema)]
struct Refusal {
    /// Its id.
    id: uuid::Uuid,
    /// Its serial number as it was handed over.
    number: String,
    /// Everything that is wrong with it, by field below `invoice`, or below the payload for `deliver`.
    problems: Vec<FieldProblem>,
}

/// Show why a document was refused
///
/// The error of the dead `invoice.issue` job names the refusal. Issue the mended document with a new job. What was
/// refused is kept for whoever looks into it.
#[utoipa::path(get, path = "/v1/invoice/refusals/{id}", tag = "invoice", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Refusal)))]
async fn refusal(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Refusal>, Problem> {
    let id: RefusalId = id.parse().map_err(|_| ProblemId::NoSuchRefusal)?;
    let mut db = caller.enter(&api).await?;
    let found = invoice::find_refusal(&mut db, caller.business, id).await?;
    let (number, problems) = found.ok_or(ProblemId::NoSuchRefusal)?;
    let problems = problems
        .into_iter()
        .map(|invoice::Problem { field, wrong, mend }| FieldProblem { field, problem: wrong, mend })
        .collect();
    Ok(Json(Refusal { id: id.0, number, problems }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_stays_inside_its_quotes() {
        for (name, expected) in [
            ("SM-26-27-00042.pdf", "attachment; filename=\"SM-26-27-00042.pdf\""),
            ("../a\"; b\r\nआ.pdf", "attachment; filename=\"..-a---b---.pdf\""),
        ] {
            assert_eq!(attachment(name).to_str().expect("ASCII"), expected);
        }
    }
}
