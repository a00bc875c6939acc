//! The token itself: `mnm_<16 hex: public id>_<64 hex: secret>_<8 hex: checksum>`.
//!
//! Scanners find it by [`super::TOKEN_PATTERN`]; the checksum, the first four bytes of the SHA-256 of all before its
//! underscore, tells them a token from a line that looks like one.

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::outbound::Chance;

/// Regular expression of a token, for scanners of repositories and logs.
pub const TOKEN_PATTERN: &str = "mnm_[0-9a-f]{16}_[0-9a-f]{64}_[0-9a-f]{8}";

const PREFIX: &str = "mnm";
const PUBLIC_ID_LENGTH: usize = 16;
const SECRET_LENGTH: usize = 64;
const CHECKSUM_LENGTH: usize = 8;

/// A new token: the only moment at which its secret exists here.
pub(super) struct Minted {
    pub(super) public_id: String,
    pub(super) digest: [u8; 32],
    pub(super) bearer: SecretString,
}

impl Minted {
    pub(super) fn new(chance: &dyn Chance) -> Self {
        let (mut public_id, mut secret) = ([0; PUBLIC_ID_LENGTH / 2], [0; SECRET_LENGTH / 2]);
        chance.fill(&mut public_id);
        chance.fill(&mut secret);
        let (public_id, secret) = (hex::encode(public_id), hex::encode(secret));
        let checked = format!("{PREFIX}_{public_id}_{secret}");
        let bearer = format!("{checked}_{}", checksum(&checked)).into();
        Self { public_id, digest: digest(&secret), bearer }
    }
}

/// A token that somebody showed, of the right form.
pub(super) struct Presented {
    pub(super) public_id: String,
    digest: [u8; 32],
}

impl Presented {
    /// `None`: the form or the checksum is wrong, so it was never made here.
    pub(super) fn parse(bearer: &str) -> Option<Self> {
        let (checked, sum) = bearer.rsplit_once('_')?;
        let mut parts = checked.split('_');
        let (prefix, public_id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let form = parts.next().is_none()
            && prefix == PREFIX
            && is_hex(public_id, PUBLIC_ID_LENGTH)
            && is_hex(secret, SECRET_LENGTH)
            && is_hex(sum, CHECKSUM_LENGTH);
        if !form || !bool::from(checksum(checked).as_bytes().ct_eq(sum.as_bytes())) {
            return None;
        }
        Some(Self { public_id: public_id.to_owned(), digest: digest(secret) })
    }

    /// Whether the stored digest is of this secret, in constant time.
    pub(super) fn matches(&self, stored: &[u8]) -> bool {
        self.digest.as_slice().ct_eq(stored).into()
    }
}

/// The secret has 256 bits of chance, so one round of a fast digest is enough.
fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn checksum(checked: &str) -> String {
    hex::encode(&Sha256::digest(checked)[..CHECKSUM_LENGTH / 2])
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    struct Counting;

    impl Chance for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::try_from(at).expect("short");
            }
        }
    }

    #[test]
    fn a_token_reads_back_as_itself() {
        let minted = Minted::new(&Counting);
        let bearer = minted.bearer.expose_secret();
        assert!(bearer.starts_with("mnm_0001020304050607_0001"));
        let presented = Presented::parse(bearer).expect("well formed");
        assert_eq!(presented.public_id, minted.public_id);
        assert!(presented.matches(&minted.digest));
        assert!(!presented.matches(&[0; 32]));
        assert!(!presented.matches(&[]));
    }

    #[test]
    fn one_changed_letter_anywhere_is_noticed() {
        let bearer = Minted::new(&Counting).bearer.expose_secret().to_owned();
        for at in 0..bearer.len() {
            let mut changed = bearer.clone().into_bytes();
            changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
            let changed = String::from_utf8(changed).expect("ascii");
            assert!(Presented::parse(&changed).is_none(), "{changed}");
        }
    }

    #[test]
    fn what_is_not_a_token_is_not_read() {
        for text in ["", "mnm", "mnm___", "Bearer x", "mnm_\u{0}_a_b", &"_".repeat(10_000), "mnm_०_क_ख"] {
            assert!(Presented::parse(text).is_none(), "{text:.20}");
        }
    }
}
