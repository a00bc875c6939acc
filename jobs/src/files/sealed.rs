//! The form in which a file lies: `mnmfile1`, then chunks of 64 KiB, each with its tag; the last may be shorter.
//!
//! AES-256-GCM under a key that seals one content alone, so that nonces can be counted (NIST SP 800-38D, 8.2.1). A nonce
//! says which chunk it is and whether it is the last: chunks that were cut off, moved, or taken from another file do
//! not open. A chunk at a time is all that anybody must hold.

use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{AeadInOut, KeyInit},
};

use crate::outbound::kms::KeyBytes;

const MAGIC: &[u8; 8] = b"mnmfile1";
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// It does not open: another key, or not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DoesNotOpen;

struct Chunks {
    cipher: Aes256Gcm,
    /// Chunks gone by.
    count: u64,
    pending: Vec<u8>,
}

impl Chunks {
    fn new(key: &KeyBytes) -> Self {
        Self { cipher: Aes256Gcm::new((&**key).into()), count: 0, pending: Vec::new() }
    }

    fn nonce(&mut self, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3] = u8::from(last);
        nonce[4..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        nonce
    }
}

/// Seals what is pushed, chunk by chunk.
pub(super) struct Sealing(Chunks);

impl Sealing {
    /// Under a key that seals nothing else; begins `out`.
    pub(super) fn new(key: &KeyBytes, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(MAGIC);
        Self(Chunks::new(key))
    }

    /// Takes the next bytes; whole chunks go to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.0.pending.extend_from_slice(bytes);
        // One is held back: it may be the last.
        while self.0.pending.len() > CHUNK {
            let rest = self.0.pending.split_off(CHUNK);
            self.seal(false, out);
            self.0.pending = rest;
        }
    }

    /// The last chunk.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.seal(true, out);
    }

    fn seal(&mut self, last: bool, out: &mut Vec<u8>) {
        let nonce = self.0.nonce(last);
        let at = out.len();
        out.append(&mut self.0.pending);
        let tag = self
            .0
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), MAGIC.as_slice(), (&mut out[at..]).into())
            .expect("AES-GCM takes 64 GiB at once, a chunk is 64 KiB");
        out.extend_from_slice(&tag);
    }
}

/// Opens what is pushed, chunk by chunk. What it has put out is true so far; the file is whole once [`Self::finish`]
/// says so.
pub(super) struct Opening {
    chunks: Chunks,
    begun: bool,
}

impl Opening {
    pub(super) fn new(key: &KeyBytes) -> Self {
        Self { chunks: Chunks::new(key), begun: false }
    }

    /// Takes the next bytes; opened chunks go to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DoesNotOpen> {
        self.chunks.pending.extend_from_slice(bytes);
        if !self.begun {
            if self.chunks.pending.len() < MAGIC.len() {
                return Ok(());
            }
            if !self.chunks.pending.starts_with(MAGIC) {
                return Err(DoesNotOpen);
            }
            self.chunks.pending.drain(..MAGIC.len());
            self.begun = true;
        }
        while self.chunks.pending.len() > CHUNK + TAG {
            let rest = self.chunks.pending.split_off(CHUNK + TAG);
            self.open(false, out)?;
            self.chunks.pending = rest;
        }
        Ok(())
    }

    /// The last chunk: nothing was cut off.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> Result<(), DoesNotOpen> {
        if self.begun { self.open(true, out) } else { Err(DoesNotOpen) }
    }

    fn open(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), DoesNotOpen> {
        let nonce = self.chunks.nonce(last);
        let sealed = &mut self.chunks.pending;
        let text = sealed.len().checked_sub(TAG).ok_or(DoesNotOpen)?;
        let tag = sealed.split_off(text);
        let tag = <[u8; TAG]>::try_from(tag.as_slice()).map_err(|_| DoesNotOpen)?;
        let at = out.len();
        out.append(sealed);
        let opened = self.chunks.cipher.decrypt_inout_detached(
            &Nonce::from(nonce),
            MAGIC.as_slice(),
            (&mut out[at..]).into(),
            &Tag::from(tag),
        );
        opened.map_err(|_| {
            out.truncate(at);
            DoesNotOpen
        })
    }
}

/// Seals a whole file.
pub(super) fn seal(key: &KeyBytes, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + content.len() + TAG * (content.len() / CHUNK + 1));
    let mut sealing = Sealing::new(key, &mut out);
    for part in content.chunks(CHUNK) {
        sealing.push(part, &mut out);
    }
    sealing.finish(&mut out);
    out
}

/// Opens a whole file.
pub(super) fn open(key: &KeyBytes, sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
    let mut out = Vec::with_capacity(sealed.len());
    let mut opening = Opening::new(key);
    for part in sealed.chunks(CHUNK + TAG) {
        opening.push(part, &mut out)?;
    }
    opening.finish(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn key(of: u8) -> KeyBytes {
        Zeroizing::new([of; 32])
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect()
    }

    #[test]
    fn files_of_every_length_open_and_lie_as_nobody_can_read_them() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let plain = content(length);
            let sealed = seal(&key(1), &plain);
            let chunks = length.div_ceil(CHUNK).max(1);
            assert_eq!(sealed.len(), MAGIC.len() + length + chunks * TAG, "{length}");
            assert_eq!(open(&key(1), &sealed), Ok(plain), "{length}");
            assert_eq!(open(&key(2), &sealed), Err(DoesNotOpen), "{length}");
        }
        let card = b"%PDF asha@example.in ".repeat(100);
        let sealed = seal(&key(1), &card);
        assert!(!sealed.windows(4).any(|window| window == b"asha"));
    }

    #[test]
    fn atk_070_a_file_that_was_cut_lengthened_moved_or_changed_does_not_open() {
        let sealed = seal(&key(1), &content(3 * CHUNK));
        let chunk = CHUNK + TAG;
        let at = |place: usize| MAGIC.len() + place * chunk;
        let cut_after_two = sealed[..at(2)].to_vec();
        let swapped = [&sealed[..at(0)], &sealed[at(1)..at(2)], &sealed[at(0)..at(1)], &sealed[at(2)..]].concat();
        let twice = [&sealed[..], &sealed[at(2)..]].concat();
        let longer = [&sealed[..], b"x"].concat();
        for changed in [cut_after_two, swapped, twice, longer, Vec::new(), sealed[..7].to_vec(), sealed[..9].to_vec()] {
            assert_eq!(open(&key(1), &changed), Err(DoesNotOpen));
        }
        for place in [0, 7, 8, at(1) - 1, at(1), sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(open(&key(1), &changed), Err(DoesNotOpen), "byte {place}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn however_it_is_cut_on_the_way_it_is_one_file(
            length in 0..200_000_usize,
            cuts in prop::collection::vec(1..70_000_usize, 1..20),
        ) {
            let plain = content(length);
            let (mut sealed, mut rest, mut cut) = (Vec::new(), &plain[..], cuts.iter().cycle());
            let mut sealing = Sealing::new(&key(1), &mut sealed);
            while !rest.is_empty() {
                let (part, after) = rest.split_at((*cut.next().expect("endless")).min(rest.len()));
                sealing.push(part, &mut sealed);
                rest = after;
            }
            sealing.finish(&mut sealed);
            prop_assert_eq!(&sealed, &seal(&key(1), &plain));

            let (mut opened, mut rest) = (Vec::new(), &sealed[..]);
            let mut opening = Opening::new(&key(1));
            while !rest.is_empty() {
                let (part, after) = rest.split_at((*cut.next().expect("endless")).min(rest.len()));
                opening.push(part, &mut opened).expect("it opens");
                rest = after;
            }
            opening.finish(&mut opened).expect("it is whole");
            prop_assert_eq!(opened, plain);
        }
    }
}
