use crate::{
    outbound::ObjectError,
    queue::{Disposition, JobError},
};

/// A file could not be kept or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row names it, and the object store has nothing there.
    #[error("file {0} is missing from the object store: restore it from a backup")]
    Missing(String),
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
            // Restoring the file mends the other two: the job waits for that with its backoff.
            Self::Missing(_) | Self::Store(_) | Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Missing(_) => "files.missing",
            Self::Store(_) => "files.store",
            Self::Database(_) => "files.database",
        }
    }
}
