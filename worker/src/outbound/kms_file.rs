//! The root key in a file of one machine: for embedded installations and for those whose disk is their key store. Who
//! reads the file and the database reads everything; back the two up apart.

use std::{
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, RootKey},
};
use zeroize::Zeroizing;

/// The file cannot be used as a root key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others can read it.
    #[error("others can read the root key {0}: run `chmod 600` on it, and replace it if they may have")]
    Open(PathBuf),
    /// Not 64 hexadecimal digits.
    #[error("{0} holds no root key: 64 hexadecimal digits on one line; restore it from its backup")]
    Malformed(PathBuf),
    /// It cannot be read or written.
    #[error("root key {0}")]
    File(PathBuf, #[source] std::io::Error),
}

/// The root key in `path`; nothing when there is no such file.
///
/// # Errors
/// Others can read it, or it holds something else.
pub fn open(path: &Path, chance: Arc<dyn Chance>) -> Result<Option<RootKey>, Error> {
    let file = |error| Error::File(path.to_owned(), error);
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(error)),
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::Open(path.to_owned()));
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(file)?);
    let mut key: KeyBytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), &mut key[..]).map_err(|_| Error::Malformed(path.to_owned()))?;
    Ok(Some(RootKey::new(&key, chance)))
}

/// A root key that was made and is not yet in its place: nobody uses it. Dropped, it is gone, and nobody else makes one
/// meanwhile.
pub struct Draft {
    key: RootKey,
    path: PathBuf,
    draft: PathBuf,
    /// Locked.
    folder: std::fs::File,
}

impl Draft {
    /// Makes a root key for `path`; nothing when there is one already. Waits while somebody else makes one.
    ///
    /// # Errors
    /// The file cannot be written, or what is there cannot be used.
    pub fn of(path: &Path, chance: &Arc<dyn Chance>) -> Result<Option<Self>, Error> {
        let file = |error| Error::File(path.to_owned(), error);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder).map_err(file)?;
        let locked = std::fs::File::open(folder).map_err(file)?;
        locked.lock().map_err(file)?;
        if open(path, Arc::clone(chance))?.is_some() {
            return Ok(None);
        }
        let mut key: KeyBytes = Zeroizing::new([0; 32]);
        chance.fill(&mut key[..]);
        let mut name = [0; 8];
        chance.fill(&mut name);
        let draft = folder.join(format!(".root-key-{}", hex::encode(name)));
        let made = Self { key: RootKey::new(&key, Arc::clone(chance)), path: path.to_owned(), draft, folder: locked };
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&made.draft)
            .and_then(|mut open| {
                open.write_all(Zeroizing::new(hex::encode(&key[..])).as_bytes())?;
                open.write_all(b"\n")?;
                open.sync_all()
            })
            .map_err(file)?;
        Ok(Some(made))
    }

    /// As [`KeyManager::describe`] says.
    pub fn describe(&self) -> String {
        self.key.describe()
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(self) -> Result<(), Error> {
        // A link appears whole or not at all, and never in place of another.
        std::fs::hard_link(&self.draft, &self.path)
            .and_then(|()| self.folder.sync_all())
            .map_err(|error| Error::File(self.path.clone(), error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What is left of it would be a key that nothing was sealed with.
        let _ = std::fs::remove_file(&self.draft);
    }
}

/// Stands where there is no root key: the vault is sealed, and says why.
pub struct NoKey {
    /// What is missing, and the mend.
    why: String,
}

impl NoKey {
    /// No file at `path`.
    pub fn at(path: &Path, holds_keys: bool) -> Self {
        let path = path.display();
        Self {
            why: if holds_keys {
                format!(
                    "there is no root key at {path}, and this database was sealed with one: copy it from its backup"
                )
            } else {
                format!("there is no root key at {path}: make one with `muneem keys init`, and back it up")
            },
        }
    }
}

#[async_trait]
impl KeyManager for NoKey {
    async fn wrap(&self, _: &KeyContext, _: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        Err(KmsError::Refused(self.why.clone()))
    }

    async fn unwrap(&self, _: &KeyContext, _: &[u8]) -> Result<KeyBytes, KmsError> {
        Err(KmsError::Refused(self.why.clone()))
    }

    fn describe(&self) -> String {
        "file:none".to_owned()
    }

    async fn health(&self) -> Result<(), KmsError> {
        Err(KmsError::Refused(self.why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::chance::OsChance;

    /// What was made; nothing when there was one.
    fn make(path: &Path, chance: &Arc<dyn Chance>) -> Option<String> {
        let draft = Draft::of(path, chance).expect("made")?;
        let root = draft.describe();
        draft.keep().expect("kept");
        Some(root)
    }

    #[test]
    fn a_root_key_is_made_once_and_is_ours_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/root.key");
        let chance: Arc<dyn Chance> = Arc::new(OsChance);
        assert!(open(&path, Arc::clone(&chance)).expect("no error").is_none());
        let made: Vec<String> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| make(&path, &chance))).collect();
            makers.into_iter().filter_map(|maker| maker.join().expect("no panic")).collect()
        });
        let kept = open(&path, Arc::clone(&chance)).expect("no error").expect("it is there").describe();
        assert_eq!(made, [kept], "one made it, the others found it");
        let unused = Draft::of(&folder.path().join("data/other.key"), &chance).expect("made").expect("there is none");
        drop(unused);
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("data")).expect("a folder").count(), 1, "drafts are left");
    }

    #[test]
    fn a_root_key_that_others_read_or_that_is_cut_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.key");
        let chance: Arc<dyn Chance> = Arc::new(OsChance);
        make(&path, &chance).expect("there was none");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(open(&path, Arc::clone(&chance)), Err(Error::Open(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
        std::fs::write(&path, "0123\n").expect("written");
        let error = open(&path, chance).expect_err("refused");
        assert!(matches!(error, Error::Malformed(_)));
        assert!(!error.to_string().contains("0123"), "{error}");
    }
}
