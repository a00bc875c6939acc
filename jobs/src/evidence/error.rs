use crate::{
    people,
    queue::{Disposition, JobError, LostLease},
};

/// What can go wrong with evidence. Texts name fields, never values.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A verb, an object or an actor that is not of the form that log lines and searches take.
    #[error("event: `{0}` is empty, too long or has characters other than letters, digits and ._:/-")]
    BadWord(&'static str),
    /// Something in the details that looks like, or may hide, personal data.
    #[error("event `{verb}`: details field `{field}` {problem}")]
    Personal {
        /// What was to be recorded.
        verb: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than a log entry should say.
    #[error("event `{verb}` is {size_bytes} bytes, more than {limit_bytes}: record a reference or a digest instead")]
    TooLarge {
        /// What was to be recorded.
        verb: String,
        /// Its size.
        size_bytes: usize,
        /// The most there may be.
        limit_bytes: usize,
    },
    /// It cannot be written as canonical JSON (RFC 8785).
    #[error("event `{verb}` has no canonical JSON")]
    Canonical {
        /// What was to be recorded.
        verb: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another process seals by now.
    #[error("another process seals the log by now")]
    LostLead,
    /// The database went back in time, or is a copy: what is sealed here contradicts what was anchored outside.
    #[error("the evidence log has forked: {0}; nothing is signed until somebody looks (docs/security.md, Forked log)")]
    Forked(String),
    /// The key of this process is not the one that signed what lies there.
    #[error(
        "the last checkpoint in `{0}` is of another log or was signed with another key: give this process that key"
    )]
    OtherKey(String),
    /// What is stored does not lead to the head that was signed over it.
    #[error("{0} cannot be proven: what is stored does not lead to the signed head (docs/security.md, Forked log)")]
    Unproven(String),
    /// The businesses could not be listed.
    #[error("evidence: businesses")]
    People(#[from] Box<people::Error>),
    /// Another attempt owns the job.
    #[error(transparent)]
    Lease(#[from] LostLease),
    /// The database failed.
    #[error("evidence could not be written or read")]
    Database(#[from] sqlx::Error),
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::LostLead | Self::People(_) | Self::Lease(_) | Self::Database(_) => Disposition::Retry,
            Self::BadWord(_)
            | Self::Personal { .. }
            | Self::TooLarge { .. }
            | Self::Canonical { .. }
            | Self::Forked(_)
            | Self::OtherKey(_)
            | Self::Unproven(_) => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::BadWord(_) | Self::Personal { .. } | Self::TooLarge { .. } | Self::Canonical { .. } => {
                "evidence.bad_event"
            }
            Self::LostLead => "evidence.lost_lead",
            Self::Forked(_) => "evidence.forked",
            Self::OtherKey(_) => "evidence.other_key",
            Self::Unproven(_) => "evidence.unproven",
            Self::People(_) => "evidence.people",
            Self::Lease(_) => "evidence.lost_lease",
            Self::Database(_) => "evidence.database",
        }
    }
}
