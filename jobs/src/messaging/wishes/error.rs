use crate::{
    evidence,
    queue::{Disposition, JobError},
    vault,
};

/// What somebody wants to hear could not be read or written. No variant repeats what was sent in.
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
    /// She was erased, and this is not a consent that she gave herself since then, with proof.
    #[error("this person was erased: only a consent that she gave herself since then, with proof, brings her back")]
    Erased,
    /// Whose no it is decides who can take it back.
    #[error("this was not set by the business: only the person herself, or her carrier, can end it")]
    NotYoursToLift,
    /// There is no such list of words.
    #[error("there is no list of opt-out words in this language")]
    NoSuchWords,
    /// The file cannot be read as a list of consents.
    #[error("the list {0}")]
    BadList(String),
    /// What was done could not be put on record, so it was not done.
    #[error("wishes: evidence")]
    Evidence(#[from] evidence::Error),
    /// What is personal could not be sealed or opened.
    #[error("wishes: vault")]
    Vault(#[from] vault::Error),
    /// The database failed.
    #[error("wishes: database")]
    Database(#[from] sqlx::Error),
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::BadField { .. } | Self::Erased | Self::NotYoursToLift | Self::NoSuchWords | Self::BadList(_) => {
                Disposition::Fail
            }
            Self::Evidence(source) => source.disposition(),
            Self::Vault(source) => source.disposition(),
            Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::BadField { .. } => "messaging.wish_bad_field",
            Self::Erased => "messaging.wish_erased",
            Self::NotYoursToLift => "messaging.wish_not_yours",
            Self::NoSuchWords => "messaging.wish_no_words",
            Self::BadList(_) => "messaging.wish_bad_list",
            Self::Evidence(source) => source.cause(),
            Self::Vault(source) => source.cause(),
            Self::Database(_) => "messaging.database",
        }
    }
}
