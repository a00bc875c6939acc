//! Tax invoices, bills of supply and credit notes: checked, worked out, recorded, put on paper, handed to messaging.
//!
//! ```text
//! frontend ──enqueue──▶ invoice.issue ──row, state received──▶ invoice.render ──PDF, state issued──▶ messaging.send
//!                            │ refused: row of invoice_refusals, dead letter   │ not taken yet          ▲
//!                                                                              └──▶ invoice.hand_over ──┘
//! ```
//!
//! The payload of [`Issue`] is the whole document, so no frontend has to teach us its tables. Its first step moves the
//! document into our tables, sealed, and leaves an id in the job: a finished or dead job holds no clear text.
//!
//! The paper never waits for the post. What messaging does not take, for want of a WhatsApp account above all, is left
//! to [`HandOver`], which waits a day for the account and is then a dead letter that a retry sends.
//!
//! # Law
//!
//! * Particulars: CGST Act s.31 and CGST Rules r.46 (tax invoice), r.49 (bill of supply), s.34 and r.53(1A) (credit
//!   note), r.48(4) (e-invoice). HSN digits: Notification 78/2020-Central Tax.
//! * Place of supply: IGST Act s.10 and s.12; for goods to an unregistered buyer the State recorded in the document
//!   (s.10(1)(ca)). Tax: CGST with SGST or UTGST in one State, IGST between two.
//! * Rounding: each head of tax of each line half up to the paisa, the total to the rupee (CGST Act s.170).
//! * Serial numbers: at most 16 characters, unique for GSTIN, financial year and kind of document without regard to
//!   case, never reused. The frontend gives them; `muneem.invoice_next_number` offers a series without gaps.
//! * Kept eight years from the end of the financial year: CGST Act s.36 and what else asks for books.
//!
//! What it does not do: it judges the form of a document, not the choice of rate or HSN.

mod error;
mod hand_over;
mod issue;
mod model;
mod numbers;
mod paper;
mod render;
mod rules;
mod sealed;
mod store;
mod tax;
mod words;

use bytes::Bytes;
use sqlx::PgConnection;

use crate::{files, outbound::ObjectStore, people::BusinessId, vault::Vault};

pub use error::Error;
pub use hand_over::HandOver;
pub use issue::{HandedOver, Issue};
pub use model::{
    Address, Buyer, Deliver, EInvoice, EInvoicing, Exact, Invoice, InvoiceId, Kind, Line, NewInvoice, OriginalInvoice,
    Recorded, RefusalId, State, Supplier, Turnover, WhatsAppDelivery, ZeroRated,
};
pub(crate) use numbers::check_gstin;
pub use render::Render;
pub use rules::{Problem, check};
pub use sealed::{INDEXED, SEALED};
pub use tax::{Amounts, Heads, LineAmounts, Tax};
pub use words::{amount_in_words, grouped};

/// One document, or nothing: also when it is not of this business. `None` sees those of all.
///
/// # Errors
/// When the database fails.
pub async fn find_invoice(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: InvoiceId,
) -> Result<Option<Recorded>, Error> {
    store::find_recorded(conn, business, id).await
}

/// A page of a business's documents, or of all, newest first: those older than `before`, at most `limit` (1 to 1000).
///
/// # Errors
/// When the database fails.
pub async fn list_invoices(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<InvoiceId>,
    limit: u16,
) -> Result<Vec<Recorded>, Error> {
    store::list_recorded(conn, business, before, i64::from(limit.clamp(1, 1000))).await
}

/// The number of a refused document as it was handed over, with what was wrong, or nothing; `business` as in
/// [`find_invoice`].
///
/// # Errors
/// When the database fails.
pub async fn find_refusal(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: RefusalId,
) -> Result<Option<(String, Vec<Problem>)>, Error> {
    store::find_refusal(conn, business, id).await
}

/// A PDF with the name it is offered under.
#[derive(Clone, Debug)]
pub struct Pdf {
    /// `SM-26-27-00042.pdf`.
    pub file_name: String,
    /// The file.
    pub bytes: Bytes,
}

/// Where the PDF of a document lies, or nothing while it is not issued.
///
/// # Errors
/// When the file's row is gone, its key does not open, or the database fails.
pub async fn locate_pdf(
    conn: &mut PgConnection,
    vault: &Vault,
    recorded: &Recorded,
) -> Result<Option<files::Located>, Error> {
    let Some(digest) = &recorded.pdf_digest else { return Ok(None) };
    Ok(Some(files::locate(conn, vault, digest).await?))
}

/// The PDF that [`locate_pdf`] found. Hold no connection meanwhile: the store may be far away.
///
/// # Errors
/// When the object store fails, or the file is damaged or gone.
pub async fn load_pdf(objects: &dyn ObjectStore, recorded: &Recorded, at: &files::Located) -> Result<Pdf, Error> {
    Ok(Pdf { file_name: file_name(&recorded.number), bytes: at.fetch(objects).await? })
}

/// Makes the PDF of a checked document. Takes tens of milliseconds of CPU: call it where blocking is allowed.
///
/// # Errors
/// [`Error::Paper`] or [`Error::Qr`]; the same document fails the same way every time.
pub fn make_pdf(id: InvoiceId, invoice: &Invoice, amounts: &Amounts) -> Result<Vec<u8>, Error> {
    paper::make_pdf(id, invoice, amounts)
}

/// The number as a file name that any phone takes.
fn file_name(number: &str) -> String {
    format!("{}.pdf", number.replace('/', "-"))
}

#[cfg(test)]
mod job_tests;
#[cfg(test)]
mod paper_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod samples;
