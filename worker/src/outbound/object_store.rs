//! Files by digest over the `object_store` crate.

use std::{path::Path as FilePath, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use muneem_jobs::{
    files::digest_of,
    outbound::{ObjectError, ObjectStore},
};
use object_store::{ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, path::Path};

/// Objects named by their SHA-256 in a store of the `object_store` crate: `ab/ab12…`, so that no folder grows too wide.
pub struct Objects {
    store: Arc<dyn object_store::ObjectStore>,
}

impl Objects {
    /// A directory, made if it is not there. Files appear whole or not at all, and are on the disk when `put_if_absent`
    /// answers.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn in_directory(directory: &FilePath) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(std::io::Error::other)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    async fn fetch(&self, digest: &str) -> Result<Option<Bytes>, ObjectError> {
        let failed = |error| ObjectError::Store(digest.to_owned(), Box::new(error));
        match self.store.get(&path_of(digest)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

fn path_of(digest: &str) -> Result<Path, ObjectError> {
    let form_is_right = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if form_is_right { Ok(Path::from(format!("{}/{digest}", &digest[..2]))) } else { Err(ObjectError::BadDigest) }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_if_absent(&self, digest: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let path = path_of(digest)?;
        let failed = |error| ObjectError::Store(digest.to_owned(), Box::new(error));
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, bytes.clone().into(), create).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                // What lies there may have been damaged since: then these bytes, which have the digest, mend it.
                if self.fetch(digest).await?.is_some_and(|lying| digest_of(&lying) == digest) {
                    return Ok(());
                }
                self.store.put(&path, bytes.into()).await.map(drop).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn get(&self, digest: &str) -> Result<Option<Bytes>, ObjectError> {
        match self.fetch(digest).await? {
            Some(bytes) if digest_of(&bytes) != digest => Err(ObjectError::Damaged(digest.to_owned())),
            found => Ok(found),
        }
    }

    async fn exists(&self, digest: &str) -> Result<bool, ObjectError> {
        match self.store.head(&path_of(digest)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ObjectError::Store(digest.to_owned(), Box::new(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Objects, String, Bytes) {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::in_directory(&folder.path().join("data/files")).expect("a store");
        let bytes = Bytes::from_static(b"%PDF-1.7 a bill");
        (folder, objects, digest_of(&bytes), bytes)
    }

    #[tokio::test]
    async fn files_come_back_as_they_were_put() {
        let (folder, objects, digest, bytes) = store();
        assert!(!objects.exists(&digest).await.expect("an answer"));
        assert_eq!(objects.get(&digest).await.expect("an answer"), None);
        for _ in 0..2 {
            objects.put_if_absent(&digest, bytes.clone()).await.expect("put");
        }
        assert!(objects.exists(&digest).await.expect("an answer"));
        assert_eq!(objects.get(&digest).await.expect("an answer"), Some(bytes.clone()));
        let on_disk = folder.path().join("data/files").join(&digest[..2]).join(&digest);
        assert_eq!(std::fs::read(on_disk).expect("a file"), bytes);
    }

    #[tokio::test]
    async fn damage_is_seen_and_mended_by_the_next_put() {
        let (folder, objects, digest, bytes) = store();
        objects.put_if_absent(&digest, bytes.clone()).await.expect("put");
        let on_disk = folder.path().join("data/files").join(&digest[..2]).join(&digest);
        std::fs::write(on_disk, b"%PDF-1.7 a bi").expect("damage");
        assert!(matches!(objects.get(&digest).await, Err(ObjectError::Damaged(_))));
        objects.put_if_absent(&digest, bytes.clone()).await.expect("put");
        assert_eq!(objects.get(&digest).await.expect("an answer"), Some(bytes));
    }

    #[tokio::test]
    async fn names_that_are_no_digests_reach_no_path() {
        let (_folder, objects, digest, bytes) = store();
        for name in ["", "../../etc/passwd", &digest.to_uppercase(), &format!("{digest}0"), &digest[1..]] {
            assert!(matches!(objects.put_if_absent(name, bytes.clone()).await, Err(ObjectError::BadDigest)), "{name}");
            assert!(matches!(objects.get(name).await, Err(ObjectError::BadDigest)), "{name}");
            assert!(matches!(objects.exists(name).await, Err(ObjectError::BadDigest)), "{name}");
        }
    }
}
