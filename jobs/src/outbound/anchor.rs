use std::time::Duration;

use async_trait::async_trait;

/// A place outside the database where heads of the evidence log are laid down, and cannot be changed from here.
#[async_trait]
pub trait Anchor: Send + Sync + 'static {
    /// Its name in settings, receipts and measures, one of a kind in the installation: `timestamp`, `timestamp_2`.
    fn name(&self) -> &str;

    /// What it is.
    fn kind(&self) -> AnchorKind;

    /// How often at most; the first head after that goes out.
    fn every(&self) -> Duration;

    /// Whether notes can be read back from there: then no head is signed before one such place has said what was
    /// signed last.
    fn remembers(&self) -> bool;

    /// Whether it lies where whoever administers the database does not rule: an operator chose the place.
    fn is_outside(&self) -> bool;

    /// Lays down one signed note (C2SP tlog-checkpoint) over a log of `size` leaves; the receipt. Doing it again with
    /// the same note is no error.
    ///
    /// # Errors
    /// The other side did not take it.
    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError>;

    /// The note with the largest size that lies there; `None` where there is none, or where notes cannot be read back.
    ///
    /// # Errors
    /// The other side cannot be asked.
    async fn latest(&self) -> Result<Option<String>, AnchorError>;
}

/// What an anchor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorKind {
    /// A directory. Its receipt: the file's name.
    Directory,
    /// An S3-compatible store with object lock. Its receipt: the object's name.
    Objects,
    /// An authority that signs the time of a head (RFC 3161). Its receipt: the DER time-stamp token.
    Timestamp,
    /// A mail to people who keep it. Its receipt: the Message-IDs, one a line.
    Mail,
}

impl AnchorKind {
    /// As it stands in receipts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Objects => "objects",
            Self::Timestamp => "timestamp",
            Self::Mail => "mail",
        }
    }
}

impl std::fmt::Display for AnchorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong on the other side, of any type.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The other side did not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct AnchorError {
    /// What was attempted and did not come about, with the mend where there is one. Free of personal data and secrets.
    pub what: String,
    /// What it said.
    #[source]
    pub source: Option<Cause>,
}

impl AnchorError {
    /// A failure that nothing lies below.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// A failure and its cause.
    pub fn because(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }
}

/// An anchor in memory, which remembers what it was given and fails when it is told to.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct MemoryAnchor {
    notes: std::sync::Mutex<Vec<(u64, String)>>,
    failing: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl MemoryAnchor {
    pub(crate) fn notes(&self) -> Vec<(u64, String)> {
        self.notes.lock().expect("not poisoned").clone()
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing, std::sync::atomic::Ordering::SeqCst);
    }

    fn answer(&self) -> Result<(), AnchorError> {
        if self.failing.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(AnchorError::because("the memory is closed", "by the test"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[async_trait]
impl Anchor for MemoryAnchor {
    fn name(&self) -> &str {
        "memory"
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Objects
    }

    fn every(&self) -> Duration {
        Duration::ZERO
    }

    fn remembers(&self) -> bool {
        true
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        self.answer()?;
        self.notes.lock().expect("not poisoned").push((size, note.to_owned()));
        Ok(size.to_string().into_bytes())
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        self.answer()?;
        Ok(self.notes().into_iter().max_by_key(|(size, _)| *size).map(|(_, note)| note))
    }
}
