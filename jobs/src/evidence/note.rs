//! Signed heads of the log: C2SP `tlog-checkpoint` in a C2SP `signed-note`, with Ed25519.
//!
//! ```text
//! muneem-evidence-5f3a9c01d2e4b687        the log, named by its key
//! 20852163                                leaves
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! time 2026-11-23T07:30:00Z               extension line: an hourly head over an unchanged log says that it lives
//!
//! — muneem-evidence-5f3a9c01d2e4b687 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::tree::Hash;

/// The signature type of Ed25519 in a signed note.
const ED25519: u8 = 1;

/// What a head of the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many leaves the log has.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
    /// When it was signed.
    pub at: DateTime<Utc>,
}

/// Signs heads. The key lies outside the database.
pub struct Signer25519 {
    key: SigningKey,
    verifier: Verifier,
}

impl std::fmt::Debug for Signer25519 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer25519").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl Signer25519 {
    /// Signs with this seed (RFC 8032).
    pub fn new(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        Self { verifier: Verifier::of(key.verifying_key()), key }
    }

    /// Who can check what this signs.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signed note.
    pub fn sign(&self, head: &Checkpoint) -> String {
        let text = format!(
            "{}\n{}\n{}\ntime {}\n",
            self.verifier.name,
            head.size,
            STANDARD.encode(head.root),
            head.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        );
        let mut signed = self.verifier.id.to_vec();
        signed.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.verifier.name, STANDARD.encode(signed))
    }
}

/// Checks signed heads of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// Why a note is no head of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// Not a checkpoint in a signed note.
    #[error("is no signed checkpoint")]
    Form,
    /// It bears no signature of this log's key.
    #[error("is of another log, or signed with another key")]
    OtherKey,
    /// The signature does not fit the text.
    #[error("has a signature that does not fit its text")]
    Signature,
}

impl Verifier {
    fn of(key: VerifyingKey) -> Self {
        let name = format!("muneem-evidence-{}", hex::encode(&Sha256::digest(key.as_bytes())[..8]));
        let id =
            Sha256::new().chain_update(&name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
        Self { id: [id[0], id[1], id[2], id[3]], name, key }
    }

    /// The log's name: origin line and key name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key as C2SP signed-note writes it: `name+id+key`.
    pub fn to_vkey(&self) -> String {
        let key = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        format!("{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(key))
    }

    /// Reads `name+id+key`; `None` if it is no Ed25519 key of a log of ours.
    pub fn parse(vkey: &str) -> Option<Self> {
        let key = STANDARD.decode(vkey.trim().splitn(3, '+').nth(2)?).ok()?;
        let (&ED25519, key) = key.split_first()? else { return None };
        let this = Self::of(VerifyingKey::from_bytes(key.try_into().ok()?).ok()?);
        (this.to_vkey() == vkey.trim()).then_some(this)
    }

    /// What a note says, once its signature holds.
    ///
    /// # Errors
    /// [`BadNote`].
    pub fn open(&self, note: &str) -> Result<Checkpoint, BadNote> {
        let at = note.rfind("\n\n").ok_or(BadNote::Form)?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        let mine = signatures
            .lines()
            .filter_map(|line| line.strip_prefix("\u{2014} ")?.split_once(' '))
            .filter(|(name, _)| *name == self.name)
            .filter_map(|(_, signature)| STANDARD.decode(signature).ok())
            .find(|signature| signature.len() == 68 && signature[..4] == self.id)
            .ok_or(BadNote::OtherKey)?;
        let signature = Signature::from_slice(&mine[4..]).map_err(|_| BadNote::Signature)?;
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| BadNote::Signature)?;
        let mut lines = text.lines();
        let (origin, size, root, time) = (lines.next(), lines.next(), lines.next(), lines.next());
        if origin != Some(self.name.as_str()) {
            return Err(BadNote::OtherKey);
        }
        let read = || {
            let size = size?;
            let number: u64 = size.parse().ok()?;
            let at = DateTime::parse_from_rfc3339(time?.strip_prefix("time ")?).ok()?.with_timezone(&Utc);
            let root = STANDARD.decode(root?).ok()?.try_into().ok()?;
            (number.to_string() == size).then_some(Checkpoint { size: number, root, at })
        };
        read().ok_or(BadNote::Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Checkpoint {
        let at = DateTime::from_timestamp(1_764_000_000, 0).expect("an instant");
        Checkpoint { size: 7, root: [3; 32], at }
    }

    #[test]
    fn a_note_opens_with_its_key_and_no_other() {
        let signer = Signer25519::new(&[1; 32]);
        let note = signer.sign(&head());
        assert_eq!(signer.verifier().open(&note), Ok(head()));
        let parsed = Verifier::parse(&signer.verifier().to_vkey()).expect("a key");
        assert_eq!(parsed.open(&note), Ok(head()));
        assert_eq!(Signer25519::new(&[2; 32]).verifier().open(&note), Err(BadNote::OtherKey));
        assert_eq!(Verifier::parse(&signer.verifier().to_vkey().replace("muneem", "mumeen")), None);
    }

    #[test]
    fn a_note_with_any_byte_changed_does_not_open() {
        let signer = Signer25519::new(&[1; 32]);
        let note = signer.sign(&head());
        for place in 0..note.len() {
            let mut bent = note.clone().into_bytes();
            bent[place] ^= 1;
            let Ok(bent) = String::from_utf8(bent) else { continue };
            // The line end after the signature is the one byte that says nothing.
            if place + 1 < note.len() {
                assert!(signer.verifier().open(&bent).is_err(), "byte {place}");
            }
        }
        assert_eq!(signer.verifier().open(""), Err(BadNote::Form));
    }
}
