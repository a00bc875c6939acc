use chrono::{DateTime, Utc};

use super::password;
use crate::{
    evidence, people,
    queue::{self, Disposition, JobError, LostLease},
};

/// What can go wrong with signing in. None of it says whether an account exists.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many wrong attempts: none is looked at before.
    #[error("too many attempts: try again after {until}")]
    TooSoon {
        /// When the next one is looked at.
        until: DateTime<Utc>,
    },
    /// Passwords cannot be checked now.
    #[error("the password could not be checked")]
    Password(#[from] password::Error),
    /// Too many codes were asked for.
    #[error("too many codes were sent: try again after {until}")]
    TooManyCodes {
        /// When the next one may be asked for.
        until: DateTime<Utc>,
    },
    /// No authenticator was set up, or its code was wrong.
    #[error("the code does not fit the authenticator that is being set up")]
    NotConfirmed,
    /// The kept secret is none.
    #[error("the secret of an authenticator cannot be used")]
    BadSecret,
    /// The session has ended, or another request renewed it.
    #[error("the session has ended: sign in again")]
    SessionEnded,
    /// Not an origin that browsers know passkeys on.
    #[error("passkeys need an address that begins with https:// and a host name, or http://localhost")]
    BadOrigin,
    /// She has as many as anybody may.
    #[error("there are too many passkeys: take one away first")]
    TooManyPasskeys,
    /// The authenticator's answer is not taken.
    #[error("the passkey is not taken: {0}")]
    PasskeyRefused(String),
    /// Somebody asked already.
    #[error("a reset of this second factor is under way already")]
    ResetUnderWay,
    /// No such reset is open.
    #[error("there is no such reset of a second factor, or it has ended")]
    NoSuchReset,
    /// Whoever asked, or whom it is about, does not decide.
    #[error("a second person approves the reset: neither who asked for it nor whose factor it is")]
    SecondPersonNeeded,
    /// The day in which its owner may say no is not over.
    #[error("the second factor stays until {due_at}")]
    ResetNotDue {
        /// When it may go.
        due_at: DateTime<Utc>,
    },
    /// What was done could not be put on record, so it was not done.
    #[error("could not record what was done to a sign-in")]
    Evidence(#[from] evidence::Error),
    /// A follow-up job was not taken.
    #[error("could not plan what follows")]
    Enqueue(#[from] queue::Error),
    /// Another worker has the job.
    #[error("sign-in: lease")]
    Lease(#[from] LostLease),
    /// Whose sign-in it is could not be read.
    #[error("could not read whose sign-in it is")]
    People(#[source] Box<people::Error>),
    /// The database failed.
    #[error("could not read or write what people sign in with")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// A failure of the rooms around.
    pub(super) fn people(error: people::Error) -> Self {
        Self::People(Box::new(error))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::ResetNotDue { due_at } => Disposition::Snooze(*due_at),
            Self::Lease(_) | Self::Database(_) | Self::People(_) | Self::Evidence(_) => Disposition::Retry,
            Self::Enqueue(source) => source.disposition(),
            Self::TooSoon { .. }
            | Self::Password(_)
            | Self::TooManyCodes { .. }
            | Self::NotConfirmed
            | Self::BadSecret
            | Self::SessionEnded
            | Self::BadOrigin
            | Self::TooManyPasskeys
            | Self::PasskeyRefused(_)
            | Self::ResetUnderWay
            | Self::NoSuchReset
            | Self::SecondPersonNeeded => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::ResetNotDue { .. } => "people.reset_not_due",
            Self::Lease(_) => "people.lost_lease",
            Self::Database(_) => "people.database",
            Self::People(_) => "people.unreadable",
            Self::Evidence(_) => "people.evidence",
            Self::Enqueue(source) => source.cause(),
            _ => "people.refused",
        }
    }
}
