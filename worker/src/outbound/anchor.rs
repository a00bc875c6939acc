//! Heads of the evidence log as files of a directory, best one that another machine keeps.

use std::{path::Path as FilePath, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use muneem_jobs::{
    evidence::bundle::object_name,
    outbound::{Anchor, AnchorError, AnchorKind},
};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, path::Path};

/// Notes as files `<leaves, 20 digits>-<digest>.note`, each put once and never again: the last by name is the largest. A
/// million leaves to a folder.
pub struct DirectoryAnchor {
    store: LocalFileSystem,
    every: Duration,
    outside: bool,
}

impl DirectoryAnchor {
    /// A directory, made if it is not there; `outside`: an operator chose it.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: &FilePath, every: Duration, outside: bool) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(std::io::Error::other)?.with_fsync(true);
        Ok(Self { store, every, outside })
    }
}

#[async_trait]
impl Anchor for DirectoryAnchor {
    fn name(&self) -> &str {
        "directory"
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Directory
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn remembers(&self) -> bool {
        true
    }

    fn is_outside(&self) -> bool {
        self.outside
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        let name = object_name(size, note);
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(name.as_str()), note.as_bytes().to_vec().into(), create).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(name.into_bytes()),
            Err(error) => Err(AnchorError::because("the checkpoint could not be laid down", error)),
        }
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        let failed = |error| AnchorError::because("the last checkpoint could not be read", error);
        let folders = self.store.list_with_delimiter(None).await.map_err(failed)?;
        let Some(newest) = folders.common_prefixes.into_iter().max() else { return Ok(None) };
        let notes: Vec<_> = self.store.list(Some(&newest)).try_collect().await.map_err(failed)?;
        let names = notes.into_iter().map(|note| note.location);
        let Some(last) = names.filter(|name| name.extension() == Some("note")).max() else { return Ok(None) };
        let bytes = self.store.get(&last).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let note = String::from_utf8(bytes.to_vec());
        note.map(Some).map_err(|error| AnchorError::because("the last checkpoint is no text", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_largest_note_is_found_again_and_none_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let anchor = DirectoryAnchor::open(dir.path(), Duration::ZERO, true).expect("usable");
        assert_eq!(anchor.latest().await.expect("read"), None);
        for (size, note) in [(9, "nine"), (10, "ten"), (2_000_001, "two million"), (1_999_999, "less")] {
            anchor.lay(size, note).await.expect("laid");
            anchor.lay(size, note).await.expect("again is no error");
        }
        assert_eq!(anchor.latest().await.expect("read").as_deref(), Some("two million"));
        let again = DirectoryAnchor::open(dir.path(), Duration::ZERO, true).expect("usable");
        assert_eq!(again.latest().await.expect("read").as_deref(), Some("two million"), "another process");
    }
}
