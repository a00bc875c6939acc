use chrono::{DateTime, Utc};

use crate::{
    evidence,
    outbound::KmsError,
    people::BusinessId,
    queue::{self, Disposition, JobError, LostLease},
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
    /// Somebody is replacing this key already.
    #[error("the key of {what} is being replaced already: `muneem keys status` shows how far, or use --at-once")]
    Rotating {
        /// The class, or the column of an index key.
        what: String,
    },
    /// A registered column of the frontend's is not what it was. Nothing is sealed, opened or found in it.
    #[error("{finding}")]
    Drifted {
        /// What is off, and the mend.
        finding: String,
    },
    /// A column cannot be registered.
    #[error("{problem}: {mend}")]
    BadColumn {
        /// What is wrong.
        problem: String,
        /// What to do instead.
        mend: &'static str,
    },
    /// The column is registered for this business.
    #[error("{column} is registered for this business already: `muneem keys columns list` shows it")]
    Registered {
        /// `schema.table.column`
        column: String,
    },
    /// The column is not registered for this business.
    #[error("{column} is not registered for this business: `muneem keys columns list` shows those that are")]
    NotRegistered {
        /// `schema.table.column`
        column: String,
    },
    /// A walk through sealed values goes on later.
    #[error("sealing anew goes on later")]
    Interrupted {
        /// When.
        until: DateTime<Utc>,
    },
    /// The job is somebody else's by now.
    #[error("vault: lease")]
    Lease(#[from] LostLease),
    /// A job could not be enqueued.
    #[error("vault: queue")]
    Queue(#[from] queue::Error),
    /// What was done could not be recorded, so it was not done.
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
    /// The Data Principal's key was destroyed. It never opens again.
    Shredded,
    /// It opens, and is not what stands in such a column.
    Form,
}

impl Unreadable {
    /// As it stands in the quarantine.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Version => "version",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Tag => "tag",
            Self::Shredded => "shredded",
            Self::Form => "form",
        }
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Sealed { until, .. } | Self::Interrupted { until } => Disposition::Snooze(*until),
            // What was erased is erased: another attempt finds nothing either.
            Self::Unreadable { why: Unreadable::Shredded, .. } => Disposition::Fail,
            // A restore of keys or rows may mend it; the attempts end some day and the dead letter says why.
            Self::Unreadable { .. }
            | Self::KeysChanging(_)
            | Self::Rotating { .. }
            | Self::Drifted { .. }
            | Self::Evidence(_)
            | Self::Lease(_)
            | Self::Database(_) => Disposition::Retry,
            Self::Queue(error) => error.disposition(),
            Self::TooLong(_) | Self::BadColumn { .. } | Self::Registered { .. } | Self::NotRegistered { .. } => {
                Disposition::Fail
            }
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "vault.sealed",
            Self::Unreadable { why: Unreadable::Shredded, .. } => "vault.shredded",
            Self::Unreadable { .. } => "vault.unreadable",
            Self::TooLong(_) => "vault.too_long",
            Self::KeysChanging(_) => "vault.keys_changing",
            Self::Rotating { .. } => "vault.rotating",
            Self::Drifted { .. } => "vault.column_drifted",
            Self::BadColumn { .. } => "vault.bad_column",
            Self::Registered { .. } => "vault.column_registered",
            Self::NotRegistered { .. } => "vault.column_not_registered",
            Self::Interrupted { .. } => "vault.interrupted",
            Self::Lease(_) => "queue.lost_lease",
            Self::Queue(_) => "vault.queue",
            Self::Evidence(_) => "vault.evidence",
            Self::Database(_) => "vault.database",
        }
    }
}
