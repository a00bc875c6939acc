//! Heads of the evidence log in an append-only store of objects: a directory, best one that another machine keeps.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use muneem_jobs::outbound::{Anchor, AnchorError};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, path::Path};
use sha2::{Digest, Sha256};

const KIND: &str = "objects";

/// Notes as objects `<leaves, 20 digits>-<digest>.note`, each put once and never again: the last by name is the largest.
/// A thousand of them to a folder, so that the newest is found without listing all.
pub struct ObjectAnchor {
    store: Arc<dyn ObjectStore>,
    every: Duration,
}

impl ObjectAnchor {
    /// A directory, made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn in_directory(directory: &FilePath, every: Duration) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(std::io::Error::other)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), every })
    }
}

fn failed(what: &'static str) -> impl Fn(object_store::Error) -> AnchorError {
    move |source| AnchorError { kind: KIND, what, source: Some(Box::new(source)) }
}

/// Folder of the notes over so many leaves: twelve digits of millions, so that names sort as numbers.
fn folder(size: u64) -> String {
    format!("{:014}", size / 1_000_000)
}

#[async_trait]
impl Anchor for ObjectAnchor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn every(&self) -> Duration {
        self.every
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        let digest = hex::encode(&Sha256::digest(note)[..8]);
        let name = format!("{}/{size:020}-{digest}.note", folder(size));
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(name.as_str()), note.as_bytes().to_vec().into(), create).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(name.into_bytes()),
            Err(error) => Err(failed("the checkpoint could not be laid down")(error)),
        }
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        let read = failed("the last checkpoint could not be read");
        let folders = self.store.list_with_delimiter(None).await.map_err(&read)?;
        let Some(newest) = folders.common_prefixes.into_iter().max() else { return Ok(None) };
        let notes: Vec<_> = self.store.list(Some(&newest)).try_collect().await.map_err(&read)?;
        let Some(last) = notes.into_iter().map(|note| note.location).max() else { return Ok(None) };
        let bytes = self.store.get(&last).await.map_err(&read)?.bytes().await.map_err(&read)?;
        let note = String::from_utf8(bytes.to_vec()).map_err(|error| AnchorError {
            kind: KIND,
            what: "the last checkpoint is no text",
            source: Some(Box::new(error)),
        })?;
        Ok(Some(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_largest_note_is_found_again_and_none_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let anchor = ObjectAnchor::in_directory(dir.path(), Duration::ZERO).expect("usable");
        assert_eq!(anchor.latest().await.expect("read"), None);
        for (size, note) in [(9, "nine"), (10, "ten"), (2_000_001, "two million"), (1_999_999, "less")] {
            anchor.lay(size, note).await.expect("laid");
            anchor.lay(size, note).await.expect("again is no error");
        }
        assert_eq!(anchor.latest().await.expect("read").as_deref(), Some("two million"));
        let again = ObjectAnchor::in_directory(dir.path(), Duration::ZERO).expect("usable");
        assert_eq!(again.latest().await.expect("read").as_deref(), Some("two million"), "another process");
    }
}
