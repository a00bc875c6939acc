use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::{
    model::{InvoiceId, RefusalId},
    rules::Problem,
};
use crate::{
    files, messaging,
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

/// What can go wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not hold what the law asks for. Every problem is named with its field and mend, and repeats no value.
    #[error("refused the document (refusal {refusal}): {}", list(.problems))]
    Refused {
        /// Where the document is kept until somebody has looked at it.
        refusal: RefusalId,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// Another document has this number.
    #[error(
        "refused the document (refusal {refusal}): number is taken by a different document of this kind and financial \
         year ({taken_by}): give it the next number, or cancel the other by a credit note"
    )]
    NumberTaken {
        /// Where the document is kept until somebody has looked at it.
        refusal: RefusalId,
        /// Who has the number.
        taken_by: InvoiceId,
    },
    /// No such document, or it is another business's.
    #[error("no invoice {0}")]
    NotFound(InvoiceId),
    /// No such refusal.
    #[error("no refused document {0}")]
    NoRefusal(RefusalId),
    /// The PDF could not be made. The same document fails the same way.
    #[error("invoice {0}: could not be put on paper")]
    Paper(InvoiceId, #[source] muneem_document::Error),
    /// A QR code could not be made.
    #[error("invoice {0}: could not make its QR code")]
    Qr(InvoiceId, #[source] muneem_document::QrError),
    /// The thread that makes the PDF died.
    #[error("invoice {0}: the thread that makes the PDF ended early")]
    Thread(InvoiceId, #[source] tokio::task::JoinError),
    /// What we recorded cannot be read back.
    #[error("could not read a document back")]
    Unreadable(#[source] serde_json::Error),
    /// The number that the document goes to does not read.
    #[error("invoice: `deliver.whatsapp.to` is no phone number: write +91 and ten digits")]
    BadPhone,
    /// Its PDF is not made yet; `invoice.render` makes it.
    #[error("invoice {0} is not issued yet")]
    NotIssued(InvoiceId),
    /// It is issued and cannot be sent: the business has no WhatsApp number here.
    #[error(
        "invoice {invoice} is issued and waits for a WhatsApp account of its business: add one with `muneem messaging \
         account set`, then it goes out, or once dead by `muneem jobs retry --cause messaging.no_account`"
    )]
    NoAccount {
        /// Which.
        invoice: InvoiceId,
        /// When to look again; absent when it waited long enough.
        until: Option<DateTime<Utc>>,
    },
    /// Messaging did not take the document.
    #[error("invoice: hand over to messaging")]
    Messaging(#[source] Box<messaging::Error>),
    /// The job that makes the PDF was not taken.
    #[error("invoice: enqueue")]
    Enqueue(#[from] queue::Error),
    /// The PDF could not be kept or fetched.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// Another attempt owns the job.
    #[error(transparent)]
    LostLease(#[from] LostLease),
    /// What is personal could not be sealed or opened.
    #[error("invoice: vault")]
    Vault(#[from] vault::Error),
    /// What was done could not be put on record, so it was not done.
    #[error("invoice: evidence")]
    Evidence(#[from] crate::evidence::Error),
    /// The database did not answer as hoped.
    #[error("invoice: database")]
    Database(#[from] sqlx::Error),
}

impl From<messaging::Error> for Error {
    fn from(error: messaging::Error) -> Self {
        Self::Messaging(Box::new(error))
    }
}

fn list(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (index, problem) in problems.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{problem}");
    }
    text
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Refused { .. }
            | Self::NumberTaken { .. }
            | Self::NotFound(_)
            | Self::NoRefusal(_)
            | Self::Paper(..)
            | Self::Qr(..)
            | Self::BadPhone
            | Self::NoAccount { until: None, .. }
            | Self::Unreadable(_) => Disposition::Fail,
            Self::NoAccount { until: Some(until), .. } => Disposition::Snooze(*until),
            Self::LostLease(LostLease::Vault(_, error)) => error.disposition(),
            Self::NotIssued(_) | Self::Thread(..) | Self::LostLease(_) | Self::Enqueue(_) | Self::Database(_) => {
                Disposition::Retry
            }
            Self::Files(error) => error.disposition(),
            Self::Vault(error) => error.disposition(),
            Self::Evidence(error) => error.disposition(),
            Self::Messaging(error) => error.disposition(),
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "invoice.refused",
            Self::NumberTaken { .. } => "invoice.number_taken",
            Self::NotFound(_) => "invoice.not_found",
            Self::NoRefusal(_) => "invoice.no_refusal",
            Self::Paper(..) => "invoice.paper",
            Self::Qr(..) => "invoice.qr",
            Self::Thread(..) => "invoice.thread",
            Self::Unreadable(_) => "invoice.unreadable",
            Self::LostLease(LostLease::Vault(_, error)) => error.cause(),
            Self::LostLease(_) => "invoice.lost_lease",
            Self::Database(_) => "invoice.database",
            Self::Files(error) => error.cause(),
            Self::Vault(error) => error.cause(),
            Self::Evidence(error) => error.cause(),
            Self::Messaging(error) => error.cause(),
            Self::Enqueue(_) => "invoice.enqueue",
            Self::BadPhone => "invoice.bad_phone",
            Self::NotIssued(_) => "invoice.not_issued",
            Self::NoAccount { .. } => "messaging.no_account",
        }
    }
}
