use chrono::TimeDelta;

use super::OtpId;
use crate::{
    evidence, messaging,
    messaging::wishes,
    outbound::mailer::MailFailure,
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

/// A one-time code could not be asked for, sent or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field that is off.
    #[error("{field} {problem}: {mend}")]
    BadField {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// So many were asked for that the next one waits; for how long.
    #[error("too many codes were asked for")]
    TooOften(TimeDelta),
    /// What is stored of a request no longer reads.
    #[error("code {0}: what is stored of it does not read")]
    Unreadable(OtpId),
    /// The mail server did not take it; another code may be sent.
    #[error("code {0} was not mailed: {1}")]
    NotMailed(OtpId, MailFailure),
    /// It could not be handed over as a message.
    #[error("otp: message")]
    Message(#[source] Box<messaging::Error>),
    /// What she wants to hear could not be read.
    #[error("otp: wishes")]
    Wishes(#[from] wishes::Error),
    /// Another worker has the job.
    #[error("otp: lease")]
    Lease(#[from] LostLease),
    /// A follow-up job was not taken.
    #[error("otp: enqueue")]
    Enqueue(#[from] queue::Error),
    /// What was done could not be put on record, so it was not done.
    #[error("otp: evidence")]
    Evidence(#[from] evidence::Error),
    /// What is personal could not be sealed or opened.
    #[error("otp: vault")]
    Vault(#[from] vault::Error),
    /// The database failed.
    #[error("otp: database")]
    Database(#[from] sqlx::Error),
}

impl From<messaging::Error> for Error {
    fn from(error: messaging::Error) -> Self {
        Self::Message(Box::new(error))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::BadField { .. } | Self::TooOften(_) | Self::Unreadable(_) => Disposition::Fail,
            Self::Message(source) => source.disposition(),
            Self::Wishes(source) => source.disposition(),
            Self::Vault(source) => source.disposition(),
            Self::Evidence(source) => source.disposition(),
            Self::NotMailed(..) | Self::Lease(_) | Self::Enqueue(_) | Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::BadField { .. } => "messaging.otp_bad_field",
            Self::TooOften(_) => "messaging.otp_too_often",
            Self::Unreadable(_) => "messaging.otp_unreadable",
            Self::NotMailed(..) => "messaging.otp_not_mailed",
            Self::Message(source) => source.cause(),
            Self::Wishes(source) => source.cause(),
            Self::Lease(_) => "messaging.lost_lease",
            Self::Enqueue(_) => "messaging.enqueue",
            Self::Evidence(source) => source.cause(),
            Self::Vault(source) => source.cause(),
            Self::Database(_) => "messaging.database",
        }
    }
}
