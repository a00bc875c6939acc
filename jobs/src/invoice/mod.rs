//! Tax invoices, bills of supply and credit notes: checked, worked out, recorded, put on paper, handed to messaging.
//!
//! ```text
//! frontend ──enqueue──▶ invoice.issue ──row, state received──▶ invoice.render ──PDF, state issued──▶ messaging.send
//!                            │ refused: row of invoice_refusals, dead letter
//! ```
//!
//! The payload of [`Issue`] is the whole document, so no frontend has to teach us its tables. Its first step moves the
//! document into our tables and leaves an id in the job: a finished or dead job holds no clear text.
//!
//! # Law
//!
//! * Particulars: CGST Act s.31 and CGST Rules r.46 (tax invoice), r.49 (bill of supply), s.34 and r.53(1A) (credit
//!   note), r.48(4) (e-invoice). HSN digits: Notification 78/2020-Central Tax.
//! * Place of supply: IGST Act s.10 and s.12; for goods to an unregistered buyer the State recorded in the document
//!   (s.10(1)(ca)). Tax: CGST with SGST or UTGST in one State, IGST between two.
//! * Rounding: each head of tax of each line half up to the paisa, the total to the rupee (CGST Act s.170).
//! * Serial numbers: at most 16 characters, unique for supplier, financial year and kind of document without regard to
//!   case, never reused. The frontend gives them; `muneem.invoice_next_number` offers a series without gaps.
//! * Kept eight years from the end of the financial year: CGST Act s.36 and what else asks for books.
//!
//! What it does not do: it judges the form of a document, not the choice of rate or HSN.

mod error;
mod issue;
mod model;
mod numbers;
mod paper;
mod rules;
mod tax;
mod words;

#[cfg(test)]
mod paper_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod samples;

pub use error::Error;
pub use issue::Issue;
pub use model::{
    Address, Buyer, Deliver, EInvoice, EInvoicing, Exact, Invoice, InvoiceId, Kind, Line, NewInvoice, OriginalInvoice,
    Recorded, RefusalId, State, Supplier, Turnover, WhatsAppDelivery, ZeroRated,
};
pub use rules::{Problem, check};
pub use tax::{Amounts, Heads, LineAmounts, Tax};
pub use words::{amount_in_words, grouped};
