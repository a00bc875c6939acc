//! The ciphertext: `version | alg | key id, 4 bytes | nonce, 12 bytes | text | tag, 16 bytes`. Version 1 names a key of
//! a class, version 2 the key of one Data Principal.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{AeadInOut, KeyInit},
};
use zeroize::Zeroizing;

use super::{Cell, Error, Unreadable};
use crate::outbound::{Chance, kms::KeyBytes};

/// Whose key a value names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOf {
    /// A class of values of a business.
    Class,
    /// One Data Principal.
    Subject,
}

impl KeyOf {
    const fn version(self) -> u8 {
        match self {
            Self::Class => 1,
            Self::Subject => 2,
        }
    }

    const fn of_version(version: u8) -> Option<Self> {
        match version {
            1 => Some(Self::Class),
            2 => Some(Self::Subject),
            _ => None,
        }
    }
}

/// AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits.
const ALGORITHM: u8 = 1;
const HEADER: usize = 2 + 4 + 12;
const TAG: usize = 16;
/// What a sealed value is longer than its text.
pub const OVERHEAD: usize = HEADER + TAG;
/// Longest text; what is longer is a file.
const LONGEST: usize = 64 << 20;

/// An AES-256-GCM key with its schedule; wiped when dropped, and silent about itself.
pub(super) struct Cipher(Aes256Gcm);

impl Cipher {
    pub(super) fn new(key: &KeyBytes) -> Self {
        Self(Aes256Gcm::new((&**key).into()))
    }

    pub(super) fn wrap(&self, chance: &dyn Chance, aad: &[u8], key: &KeyBytes) -> Option<Vec<u8>> {
        crate::outbound::kms::wrap_with(&self.0, chance, aad, key)
    }

    pub(super) fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Option<KeyBytes> {
        crate::outbound::kms::unwrap_with(&self.0, aad, wrapped)
    }

    /// Seals `plain` as `cell` under the key number `key_id`, which is this one.
    pub(super) fn seal(
        &self,
        (of, key_id): (KeyOf, u32),
        chance: &dyn Chance,
        cell: &Cell<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if plain.len() > LONGEST {
            return Err(Error::TooLong(cell.name()));
        }
        let mut nonce = [0; 12];
        chance.fill(&mut nonce);
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        out.extend_from_slice(&[of.version(), ALGORITHM]);
        out.extend_from_slice(&key_id.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = bound(of, key_id, cell, |aad| {
            self.0.encrypt_inout_detached(&Nonce::from(nonce), aad, (&mut out[HEADER..]).into())
        })
        .map_err(|_| Error::TooLong(cell.name()))?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens what [`Self::seal`] made for the same cell.
    pub(super) fn open(&self, sealed: &Sealed<'_>, cell: &Cell<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut plain = Zeroizing::new(sealed.body.to_vec());
        let (nonce, tag) = (Nonce::from(*sealed.nonce), Tag::from(*sealed.tag));
        bound(sealed.of, sealed.key_id, cell, |aad| {
            self.0.decrypt_inout_detached(&nonce, aad, plain.as_mut_slice().into(), &tag)
        })
        .map_err(|_| unreadable(cell, Unreadable::Tag))?;
        Ok(plain)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

/// A ciphertext's parts.
pub(super) struct Sealed<'a> {
    pub(super) of: KeyOf,
    pub(super) key_id: u32,
    nonce: &'a [u8; 12],
    body: &'a [u8],
    tag: &'a [u8; 16],
}

impl<'a> Sealed<'a> {
    /// Reads the parts; nothing is tried that version, algorithm and key number do not say.
    pub(super) fn parse(sealed: &'a [u8], cell: &Cell<'_>) -> Result<Self, Error> {
        let cut = || unreadable(cell, Unreadable::Cut);
        let (&version, rest) = sealed.split_first().ok_or_else(cut)?;
        let of = KeyOf::of_version(version).ok_or_else(|| unreadable(cell, Unreadable::Version))?;
        let (&algorithm, rest) = rest.split_first().ok_or_else(cut)?;
        if algorithm != ALGORITHM {
            return Err(unreadable(cell, Unreadable::Algorithm));
        }
        let (key_id, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (nonce, rest) = rest.split_first_chunk::<12>().ok_or_else(cut)?;
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or_else(cut)?;
        Ok(Self { of, key_id: u32::from_be_bytes(*key_id), nonce, body, tag })
    }
}

pub(super) fn unreadable(cell: &Cell<'_>, why: Unreadable) -> Error {
    Error::Unreadable { column: cell.name(), why }
}

/// The number of the key that sealed this value; nothing when it is no sealed value of a version known here.
pub fn key_of(sealed: &[u8]) -> Option<u32> {
    match sealed {
        [1 | 2, ALGORITHM, a, b, c, d, rest @ ..] if rest.len() >= 12 + TAG => {
            Some(u32::from_be_bytes([*a, *b, *c, *d]))
        }
        _ => None,
    }
}

/// Additional data up to here is put together without asking for memory: names and keys as tables have them.
const SHORT: usize = 256;

/// Binds a ciphertext to its cell: calls `with` with the additional data. Each part carries its length, so that no two
/// cells make the same bytes.
fn bound<T>(of: KeyOf, key_id: u32, cell: &Cell<'_>, with: impl FnOnce(&[u8]) -> T) -> T {
    let parts: [&[u8]; 4] =
        [cell.business_id.0.as_bytes(), cell.table.as_bytes(), cell.column.as_bytes(), cell.row.as_bytes()];
    let length = 6 + parts.iter().map(|part| 4 + part.len()).sum::<usize>();
    let (mut short, mut long) = ([0; SHORT], Vec::new());
    let bytes = match short.get_mut(..length) {
        Some(bytes) => bytes,
        None => {
            long.resize(length, 0);
            &mut long[..]
        }
    };
    bytes[..2].copy_from_slice(&[of.version(), ALGORITHM]);
    bytes[2..6].copy_from_slice(&key_id.to_be_bytes());
    let mut at = 6;
    for part in parts {
        // No name or key comes near 4 GiB; a longer one would still be bound by its last 32 bits and its bytes.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let prefix = (part.len() as u32).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&prefix);
        bytes[at + 4..at + 4 + part.len()].copy_from_slice(part);
        at += 4 + part.len();
    }
    with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::BusinessId;
    use uuid::Uuid;

    fn bytes_of(of: KeyOf, key_id: u32, (table, column, row): (&str, &str, &str)) -> Vec<u8> {
        let cell = Cell { business_id: BusinessId(Uuid::from_u128(1)), table, column, row };
        bound(of, key_id, &cell, <[u8]>::to_vec)
    }

    #[test]
    fn atk_069_no_two_cells_are_bound_alike_and_the_bytes_are_those_of_version_one() {
        let plain = bytes_of(KeyOf::Class, 0x0102_0304, ("a.b", "c", "d"));
        let written = "0101010203040000001000000000000000000000000000000001\
                       00000003612e620000000163\
                       0000000164";
        assert_eq!(hex::encode(&plain), written, "what was sealed by an older program would not open");
        let mut seen = std::collections::BTreeSet::new();
        for cell in [("a.b", "c", "d"), ("a.b", "cd", ""), ("a.bc", "", "d"), ("a", ".bc", "d"), ("a.b", "", "cd")] {
            assert!(seen.insert(bytes_of(KeyOf::Class, 1, cell)), "{cell:?}");
            assert!(seen.insert(bytes_of(KeyOf::Subject, 1, cell)), "{cell:?} of a person");
            assert!(seen.insert(bytes_of(KeyOf::Class, 2, cell)), "{cell:?} under another key");
        }
        // Around the length up to which no memory is asked for.
        let rest = plain.len() - 1;
        for length in [SHORT - rest - 1, SHORT - rest, SHORT - rest + 1, 5000] {
            let row = "r".repeat(length);
            let long = bytes_of(KeyOf::Class, 0x0102_0304, ("a.b", "c", &row));
            assert_eq!(long.len(), rest + length);
            assert!(long.ends_with(row.as_bytes()));
        }
    }
}
