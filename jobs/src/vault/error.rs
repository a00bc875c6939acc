use chrono::{DateTime, Utc};

use crate::{
    evidence,
    outbound::KmsError,
    people::BusinessId,
    queue::{Disposition, JobError},
};

/// A value could not be sealed, opened or indexed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root key is out of reach and what was cached is too old: nothing is written in clear instead, and nothing
    /// sealed is handed out as a value.
    #[error("the vault is sealed for business {business_id}: its key service gave no key")]
    Sealed {
        /// Whose values.
        business_id: BusinessId,
        /// When to ask again.
        until: DateTime<Utc>,
        #[source]
        /// What the service said.
        source: KmsError,
    },
    /// What is stored does not open as this cell: changed, moved from another cell, cut, or sealed by a key that is
    /// gone. One text for all, so that nobody learns from it which.
    #[error("a value of {column} does not open: it was changed, moved, or its key is gone")]
    Unreadable {
        /// `schema.table.column`
        column: String,
        /// For counting and the log of an operator.
        why: Unreadable,
    },
    /// The value is longer than one ciphertext may hold.
    #[error("a value of {0} is too long to be sealed: store it as a file")]
    TooLong(String),
    /// Two processes changed a key at the same moment and neither saw the other's.
    #[error("the keys of business {0} are being changed: try again")]
    KeysChanging(BusinessId),
    /// What was done cannot be told in the evidence, so it was not done.
    #[error("vault: evidence")]
    Evidence(#[from] evidence::Error),
    /// The database failed.
    #[error("vault: database")]
    Database(#[from] sqlx::Error),
}

/// Why a value did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Shorter than the shortest ciphertext.
    Cut,
    /// A version this program does not know.
    Version,
    /// An algorithm this program does not know.
    Algorithm,
    /// No key of this business has that number, or it is retired.
    Key,
    /// The tag does not fit: changed, or another row, column or business.
    Tag,
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Sealed { until, .. } => Disposition::Snooze(*until),
            // A restore of keys or rows may mend it; the attempts end some day and the dead letter says why.
            Self::Unreadable { .. } | Self::KeysChanging(_) | Self::Evidence(_) | Self::Database(_) => {
                Disposition::Retry
            }
            Self::TooLong(_) => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "vault.sealed",
            Self::Unreadable { .. } => "vault.unreadable",
            Self::TooLong(_) => "vault.too_long",
            Self::KeysChanging(_) => "vault.keys_changing",
            Self::Evidence(_) => "vault.evidence",
            Self::Database(_) => "vault.database",
        }
    }
}
