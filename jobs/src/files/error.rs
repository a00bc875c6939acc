use crate::{
    outbound::ObjectError,
    queue::{Disposition, JobError},
    vault,
};

/// A file could not be kept or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row names it, and the object store has nothing there.
    #[error("file {0} is missing from the object store: restore it from a backup")]
    Missing(String),
    /// What lies there does not open with the file's key: one of the two was exchanged.
    #[error("file {0} does not open with the key of its row: restore both from a backup")]
    Unreadable(String),
    /// The file's key could not be sealed or opened.
    #[error("files: vault")]
    Vault(#[from] vault::Error),
    /// The object store failed.
    #[error("files: object store")]
    Store(#[from] ObjectError),
    /// The database failed.
    #[error("files: database")]
    Database(#[from] sqlx::Error),
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Store(ObjectError::BadDigest) => Disposition::Fail,
            Self::Vault(source) => source.disposition(),
            // Restoring the file mends the others: the job waits for that with its backoff.
            Self::Missing(_) | Self::Unreadable(_) | Self::Store(_) | Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Missing(_) => "files.missing",
            Self::Unreadable(_) => "files.unreadable",
            Self::Vault(source) => source.cause(),
            Self::Store(_) => "files.store",
            Self::Database(_) => "files.database",
        }
    }
}
