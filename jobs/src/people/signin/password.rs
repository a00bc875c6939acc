//! Passwords: what may be one, how it is kept, how it is checked.
//!
//! Kept is an Argon2id hash (RFC 9106) of 19 MiB in two passes. Length is asked for and nothing else, and what stands
//! in a list of breached passwords is refused (NIST SP 800-63B section 5.1.1.2). A machine hashes as many at once as it
//! has cores; a short line waits, whoever comes after it is turned away, so that guessing cannot fill the memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use secrecy::{ExposeSecret, SecretString};
use sha1::{Digest, Sha1};
use tokio::sync::Semaphore;

use crate::outbound::Chance;

/// Fewest characters.
pub const SHORTEST: usize = 12;
/// Most bytes: hashing more would be somebody else's idea.
const LONGEST_BYTES: usize = 1024;
/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19_456;
/// Passes over it.
const PASSES: u32 = 2;
/// Who may wait for a place.
const WAITING: usize = 50;

/// Long passwords that people take all the same, one a line, in small letters.
const COMMON: &str = include_str!("common_passwords.txt");

/// Why something cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Guessed in no time.
    #[error("the password is shorter than {SHORTEST} characters: four words in a row are easy to keep")]
    Short,
    /// Not a password any more.
    #[error("the password is longer than {LONGEST_BYTES} bytes")]
    Long,
    /// Among the first that anybody tries.
    #[error("the password stands in a list of breached or common passwords: take another")]
    Known,
}

/// Why no answer can be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many are being checked: try again in a moment.
    #[error("too many passwords are being checked at once")]
    Busy,
    /// What is kept is no hash, or cannot be computed.
    #[error("the password hash cannot be computed or read")]
    Hash,
    /// The list of breached passwords cannot be read.
    #[error("the list of breached passwords cannot be read")]
    Breached(#[source] io::Error),
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Not the password, or nobody has one.
    Wrong,
    /// The password.
    Right,
    /// The password, kept under older settings: keep this hash instead.
    RightButOld(String),
}

/// Hashes and checks passwords.
pub struct Passwords {
    places: Arc<Semaphore>,
    line: Arc<Semaphore>,
    breached: Option<PathBuf>,
    chance: Arc<dyn Chance>,
    /// Checked against where there is no account, so that its absence takes as long.
    nobody: String,
}

impl Passwords {
    /// Hashes as many at once as there are `cores`. `breached` is a list as Have I Been Pwned gives it out: upper-case
    /// SHA-1 digests in order, one a line, each with `:count` behind it.
    ///
    /// # Errors
    /// The list cannot be opened.
    pub fn new(cores: usize, breached: Option<PathBuf>, chance: Arc<dyn Chance>) -> Result<Self, Error> {
        if let Some(list) = &breached {
            File::open(list).map_err(Error::Breached)?;
        }
        let cores = cores.max(1);
        let nobody = hash(b"nobody has this password", &salt(&*chance))?;
        let (places, line) = (Arc::new(Semaphore::new(cores)), Arc::new(Semaphore::new(cores + WAITING)));
        Ok(Self { places, line, breached, chance, nobody })
    }

    /// The hash to keep of a new password.
    ///
    /// # Errors
    /// [`Weak`] when it may not be one; [`Error`] when it cannot be told now.
    pub async fn keep(&self, password: &SecretString) -> Result<Result<String, Weak>, Error> {
        let (password, breached, salt) = (password.clone(), self.breached.clone(), salt(&*self.chance));
        self.in_a_place(move || {
            let text = password.expose_secret();
            if let Err(weak) = check_length(text) {
                return Ok(Err(weak));
            }
            if is_common(text) {
                return Ok(Err(Weak::Known));
            }
            if let Some(list) = &breached
                && is_listed(list, text).map_err(Error::Breached)?
            {
                return Ok(Err(Weak::Known));
            }
            hash(text.as_bytes(), &salt).map(Ok)
        })
        .await
    }

    /// Checks `password` against what is kept. Without an account (`None`) the same work is done and it is wrong.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Hash`]
    pub async fn check(&self, password: &SecretString, kept: Option<&str>) -> Result<Checked, Error> {
        let known = kept.is_some();
        let kept = kept.unwrap_or(&self.nobody).to_owned();
        let (password, salt) = (password.clone(), salt(&*self.chance));
        self.in_a_place(move || {
            let text = password.expose_secret();
            // What is too long is cut for the work and is wrong all the same.
            let fits = text.len() <= LONGEST_BYTES;
            let bytes = &text.as_bytes()[..text.len().min(LONGEST_BYTES)];
            let parsed = PasswordHash::new(&kept).map_err(|_| Error::Hash)?;
            let right = hasher()?.verify_password(bytes, &parsed).is_ok();
            if !(right && known && fits) {
                return Ok(Checked::Wrong);
            }
            if is_current(&parsed) { Ok(Checked::Right) } else { hash(bytes, &salt).map(Checked::RightButOld) }
        })
        .await
    }

    async fn in_a_place<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let stands = Arc::clone(&self.line).try_acquire_owned().map_err(|_| Error::Busy)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Busy)?;
        // The places go with the work: a caller who hangs up does not free one that is still in use.
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop((place, stands));
            outcome
        });
        done.await.map_err(|_| Error::Hash)?
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("free", &self.places.available_permits()).finish_non_exhaustive()
    }
}

fn salt(chance: &dyn Chance) -> [u8; 16] {
    let mut salt = [0; 16];
    chance.fill(&mut salt);
    salt
}

fn hasher() -> Result<Argon2<'static>, Error> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| Error::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8], salt: &[u8]) -> Result<String, Error> {
    let hash = hasher()?.hash_password_with_salt(password, salt).map_err(|_| Error::Hash)?;
    Ok(hash.to_string())
}

fn is_current(hash: &PasswordHash) -> bool {
    let params = Params::try_from(hash);
    hash.algorithm.as_str() == "argon2id"
        && params.is_ok_and(|params| params.m_cost() >= MEMORY_KIB && params.t_cost() >= PASSES)
}

fn check_length(password: &str) -> Result<(), Weak> {
    match password.chars().count() {
        _ if password.len() > LONGEST_BYTES => Err(Weak::Long),
        length if length < SHORTEST => Err(Weak::Short),
        _ => Ok(()),
    }
}

/// In the shipped list, one short piece over and over, or a run of neighbours (`abcdefghijkl`, `123456789012`).
fn is_common(password: &str) -> bool {
    let lower = password.to_lowercase();
    let characters: Vec<char> = lower.chars().collect();
    let repeats = (1..=4).any(|piece| characters.iter().zip(&characters[piece..]).all(|(one, next)| one == next));
    let step = |by: i64| {
        characters.windows(2).all(|pair| {
            let (one, next) = (i64::from(u32::from(pair[0])), i64::from(u32::from(pair[1])));
            next - one == by || (pair == ['9', '0'] && by == 1) || (pair == ['0', '9'] && by == -1)
        })
    };
    repeats || step(1) || step(-1) || COMMON.lines().any(|known| known == lower)
}

/// Looks a password up in a file of ordered SHA-1 digests by halving, so that a file of 40 GB costs some 36 reads.
fn is_listed(list: &Path, password: &str) -> io::Result<bool> {
    let wanted = hex::encode_upper(Sha1::digest(password));
    let mut file = BufReader::with_capacity(256, File::open(list)?);
    let (mut low, mut high) = (0, file.get_ref().metadata()?.len());
    // Lines that begin in low..high are still possible.
    while low < high {
        let middle = low + (high - low) / 2;
        file.seek(SeekFrom::Start(middle.saturating_sub(1)))?;
        let mut at = middle;
        if middle > 0 {
            // To the beginning of the next line, which is `middle` itself if the byte before it ends one.
            let mut rest = Vec::new();
            at = middle - 1 + file.read_until(b'\n', &mut rest)? as u64;
        }
        if at >= high {
            high = middle;
            continue;
        }
        let mut line = String::new();
        let length = file.read_line(&mut line)? as u64;
        let digest = line.get(..40).unwrap_or_default().to_ascii_uppercase();
        match digest.as_str().cmp(&wanted) {
            std::cmp::Ordering::Equal => return Ok(true),
            std::cmp::Ordering::Less => low = at + length.max(1),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Seven;

    impl Chance for Seven {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn passwords(cores: usize) -> Passwords {
        Passwords::new(cores, None, Arc::new(Seven)).expect("no list")
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_kept_as_argon2id_and_known_again() {
        let passwords = passwords(2);
        let kept = passwords.keep(&secret("नमस्ते चाय और बिस्कुट")).await.expect("told").expect("good");
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_eq!(passwords.check(&secret("नमस्ते चाय और बिस्कुट"), Some(&kept)).await.expect("told"), Checked::Right);
        assert_eq!(passwords.check(&secret("नमस्ते चाय"), Some(&kept)).await.expect("told"), Checked::Wrong);
        assert!(matches!(passwords.check(&secret("x"), Some("no hash")).await, Err(Error::Hash)));
    }

    #[tokio::test]
    async fn an_old_hash_is_replaced_when_it_is_used() {
        let old = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8_192, 1, 1, None).expect("params"));
        let old = old.hash_password_with_salt(b"correct horse battery", &[1; 16]).expect("a hash").to_string();
        let passwords = passwords(2);
        let checked = passwords.check(&secret("correct horse battery"), Some(&old)).await.expect("told");
        let Checked::RightButOld(new) = checked else { panic!("{checked:?}") };
        assert_eq!(passwords.check(&secret("correct horse battery"), Some(&new)).await.expect("told"), Checked::Right);
        assert_eq!(passwords.check(&secret("wrong"), Some(&old)).await.expect("told"), Checked::Wrong);
    }

    #[tokio::test]
    async fn what_many_take_is_refused_and_length_is_all_else_that_is_asked() {
        let passwords = passwords(1);
        for (weak, why) in [
            ("tooshort", Weak::Short),
            ("ग्यारह", Weak::Short),
            ("Password1234", Weak::Known),
            ("aaaaaaaaaaaaaa", Weak::Known),
            ("abcabcabcabcabc", Weak::Known),
            ("1234567890123", Weak::Known),
            ("zyxwvutsrqpon", Weak::Known),
        ] {
            assert_eq!(passwords.keep(&secret(weak)).await.expect("told"), Err(why), "{weak}");
        }
        assert_eq!(passwords.keep(&secret(&"ab1 ".repeat(300))).await.expect("told"), Err(Weak::Long));
        assert!(passwords.keep(&secret("all small letters")).await.expect("told").is_ok());
    }

    #[tokio::test]
    async fn a_line_that_is_full_turns_away() {
        let passwords = Arc::new(passwords(1));
        let held = Arc::clone(&passwords.places).acquire_owned().await.expect("the only place");
        let waiting: Vec<_> = (0..=WAITING)
            .map(|_| {
                let passwords = Arc::clone(&passwords);
                tokio::spawn(async move { passwords.check(&secret("wrong"), None).await.map(drop) })
            })
            .collect();
        while passwords.line.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.check(&secret("one too many"), None).await, Err(Error::Busy)));
        for waits in waiting {
            waits.abort();
        }
        drop(held);
    }

    #[test]
    fn a_breached_password_is_found_in_the_file_and_its_neighbours_are_not() {
        let mut digests: Vec<String> =
            (0..1000).map(|number| hex::encode_upper(Sha1::digest(format!("breached {number}")))).collect();
        digests.sort();
        for (end, break_at) in [("\n", "\r\n"), ("", "\n")] {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            let lines: Vec<_> =
                digests.iter().enumerate().map(|(at, digest)| format!("{digest}:{}", at * 37)).collect();
            write!(file, "{}{end}", lines.join(break_at)).expect("written");
            for number in 0..1000 {
                assert!(is_listed(file.path(), &format!("breached {number}")).expect("read"), "{number}");
                assert!(!is_listed(file.path(), &format!("safe {number}")).expect("read"), "{number}");
            }
        }
        let empty = tempfile::NamedTempFile::new().expect("a file");
        assert!(!is_listed(empty.path(), "breached 1").expect("read"));
    }

    /// Row 52 of the list of attacks: whether an account exists does not show in the work that is done.
    #[tokio::test]
    async fn atk_052_an_unknown_account_costs_the_same_hash() {
        let passwords = passwords(1);
        let nobody = PasswordHash::new(&passwords.nobody).expect("a hash");
        let kept = passwords.keep(&secret("correct horse battery")).await.expect("told").expect("good");
        let kept = PasswordHash::new(&kept).expect("a hash");
        let work = |hash: &PasswordHash| {
            let params = Params::try_from(hash).expect("params");
            (hash.algorithm, hash.version, params.m_cost(), params.t_cost(), params.p_cost(), params.output_len())
        };
        assert_eq!(work(&nobody), work(&kept));
        // Even the one password that would fit opens nothing.
        let guess = secret("nobody has this password");
        assert_eq!(passwords.check(&guess, None).await.expect("told"), Checked::Wrong);
    }
}
