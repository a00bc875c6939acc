use std::time::Duration;

use async_trait::async_trait;

/// A place outside the database where heads of the evidence log are laid down, and cannot be changed from here.
#[async_trait]
pub trait Anchor: Send + Sync + 'static {
    /// One word for the table of receipts: `objects`, `timestamp`, `mail`.
    fn kind(&self) -> &'static str;

    /// How often at most; the first head after that goes out.
    fn every(&self) -> Duration;

    /// Lays down one signed note (C2SP tlog-checkpoint) over a log of `size` leaves; the receipt. Doing it again with
    /// the same note is no error.
    ///
    /// # Errors
    /// The other side did not take it.
    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError>;

    /// The note with the largest size that lies there; `None` where there is none, or where notes cannot be read back.
    ///
    /// # Errors
    /// The other side cannot be asked. Then nothing is signed: who cannot remember must not vouch.
    async fn latest(&self) -> Result<Option<String>, AnchorError>;
}

/// The other side did not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("anchor `{kind}`: {what}")]
pub struct AnchorError {
    /// Which anchor.
    pub kind: &'static str,
    /// What was attempted.
    pub what: &'static str,
    /// What it said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// An anchor in memory, which remembers what it was given.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct MemoryAnchor(std::sync::Mutex<Vec<(u64, String)>>);

#[cfg(test)]
impl MemoryAnchor {
    pub(crate) fn notes(&self) -> Vec<(u64, String)> {
        self.0.lock().expect("not poisoned").clone()
    }
}

#[cfg(test)]
#[async_trait]
impl Anchor for MemoryAnchor {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn every(&self) -> Duration {
        Duration::ZERO
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        self.0.lock().expect("not poisoned").push((size, note.to_owned()));
        Ok(size.to_string().into_bytes())
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        Ok(self.notes().into_iter().max_by_key(|(size, _)| *size).map(|(_, note)| note))
    }
}
