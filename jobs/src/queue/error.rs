use sqlx::postgres::PgDatabaseError;

use super::{Disposition, JobError};

/// Why something could not be put in, found in or taken out of the queue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused an enqueue, and says why and what to do instead.
    #[error("{problem}")]
    Refused {
        /// Which rule refused it.
        refusal: Refusal,
        /// What is wrong, naming the field. Free of the payload's values.
        problem: String,
        /// What to do instead.
        mend: String,
    },
    /// A payload that cannot be written as JSON.
    #[error("payload of {kind} does not serialise")]
    Payload {
        /// The kind.
        kind: String,
        #[source]
        /// What serde said.
        source: serde_json::Error,
    },
    /// The decision could not be put on record, so it was not taken.
    #[error("could not record the decision")]
    Evidence(#[from] crate::evidence::Error),
    /// The payload could not be sealed.
    #[error("the payload could not be sealed")]
    Vault(#[source] Box<crate::vault::Error>),
    /// The database could not be asked.
    #[error("the queue's database did not answer")]
    Database(#[source] sqlx::Error),
}

/// The rules of `muneem.enqueue`, one for each SQLSTATE of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `MN001`
    UnknownKind,
    /// `MN002`
    PayloadOffSchema,
    /// `MN003`
    NoSuchBusiness,
    /// `MN004`
    SeveralBusinesses,
    /// `MN006`
    PayloadTooLarge,
    /// `MN007`
    BadKey,
    /// `MN008`
    BadLaneOrPriority,
    /// `MN010`
    NotSealed,
}

impl From<crate::vault::Error> for Error {
    fn from(error: crate::vault::Error) -> Self {
        Self::Vault(Box::new(error))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Database(_) => Disposition::Retry,
            Self::Evidence(error) => error.disposition(),
            Self::Vault(source) => source.disposition(),
            Self::Refused { .. } | Self::Payload { .. } => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Database(_) => "queue.database",
            Self::Evidence(error) => error.cause(),
            Self::Vault(source) => source.cause(),
            Self::Refused { .. } | Self::Payload { .. } => "queue.refused",
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let refused = error.as_database_error().and_then(|database| {
            let refusal = match database.code()?.as_ref() {
                "MN001" => Refusal::UnknownKind,
                "MN002" => Refusal::PayloadOffSchema,
                "MN003" => Refusal::NoSuchBusiness,
                "MN004" => Refusal::SeveralBusinesses,
                "MN006" => Refusal::PayloadTooLarge,
                "MN007" => Refusal::BadKey,
                "MN008" => Refusal::BadLaneOrPriority,
                "MN010" => Refusal::NotSealed,
                _ => return None,
            };
            let mend = database.try_downcast_ref::<PgDatabaseError>().and_then(|e| e.hint()).unwrap_or_default();
            Some(Self::Refused { refusal, problem: database.message().to_owned(), mend: mend.to_owned() })
        });
        refused.unwrap_or(Self::Database(error))
    }
}
