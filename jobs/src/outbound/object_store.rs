use async_trait::async_trait;
use bytes::Bytes;

/// Where files lie, named by digest: a directory or an S3-compatible store.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Stores `bytes` under `digest` (SHA-256 in lower-case hexadecimal) unless that name is there already; durable
    /// when it answers.
    ///
    /// # Errors
    /// When the store cannot be reached or is full.
    async fn put_if_absent(&self, digest: &str, bytes: Bytes) -> Result<(), ObjectError>;

    /// The bytes under `digest`, or nothing.
    ///
    /// # Errors
    /// [`ObjectError::Damaged`] when they no longer have that digest.
    async fn get(&self, digest: &str) -> Result<Option<Bytes>, ObjectError>;

    /// Whether there is something under `digest`.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn exists(&self, digest: &str) -> Result<bool, ObjectError>;
}

/// The store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not a SHA-256 in lower-case hexadecimal.
    #[error("no digest: a file is named by 64 lower-case hexadecimal digits")]
    BadDigest,
    /// What lies there is not what was put there.
    #[error("file {0} is damaged: its content has another digest; restore it from a backup")]
    Damaged(String),
    /// The store failed.
    #[error("file {0}: the object store failed")]
    Store(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Objects in memory, which remember what they were given.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct MemoryObjects(std::sync::Mutex<std::collections::BTreeMap<String, Bytes>>);

#[cfg(test)]
impl MemoryObjects {
    /// Digests of all that lies here.
    pub(crate) fn digests(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").keys().cloned().collect()
    }
}

#[cfg(test)]
#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn put_if_absent(&self, digest: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.lock().expect("not poisoned").entry(digest.to_owned()).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, digest: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.0.lock().expect("not poisoned").get(digest).cloned())
    }

    async fn exists(&self, digest: &str) -> Result<bool, ObjectError> {
        Ok(self.0.lock().expect("not poisoned").contains_key(digest))
    }
}
