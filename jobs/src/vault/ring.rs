//! The keys of one business in clear, for a while.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::{BlindIndex, Class, cipher::Cipher, store::KeyRow};
use crate::{outbound::kms::KeyBytes, people::BusinessId};

/// Uses taken at first; each block is twice the last, so that a command that seals one value wastes little.
const FIRST_BLOCK: i64 = 1 << 10;
/// Largest block of uses.
const LARGEST_BLOCK: i64 = 1 << 20;

/// A key that seals values of one class.
#[derive(Debug)]
pub(super) struct DataKey {
    pub(super) id: u32,
    pub(super) class: Class,
    pub(super) cipher: Cipher,
    pub(super) created_at: DateTime<Utc>,
    /// Uses taken from the table and not yet used; below zero when it ran out.
    left: AtomicI64,
    next_block: AtomicI64,
}

impl DataKey {
    /// Uses it once, if one was taken beforehand.
    pub(super) fn use_once(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// How many uses to take next.
    pub(super) fn block(&self) -> i64 {
        self.next_block.load(Ordering::Relaxed)
    }

    /// Adds a block that was taken, and uses one of it.
    pub(super) fn add(&self, block: i64) {
        self.left.store(block - 1, Ordering::Relaxed);
        self.next_block.store((block * 2).min(LARGEST_BLOCK), Ordering::Relaxed);
    }
}

/// A key that makes blind indexes of one column.
pub(super) struct IndexKey {
    pub(super) version: i16,
    active: bool,
    mac: Hmac<Sha256>,
}

impl IndexKey {
    pub(super) fn digest(&self, canonical: &str) -> BlindIndex {
        let mut mac = self.mac.clone();
        mac.update(canonical.as_bytes());
        let full = mac.finalize().into_bytes();
        let mut digest = [0; 16];
        digest.copy_from_slice(&full[..16]);
        BlindIndex { digest, version: self.version }
    }
}

/// The business's own keys in clear, by number.
pub(super) struct Unwrapped {
    pub(super) wrapping: HashMap<u32, Arc<Cipher>>,
    /// When the key service last unwrapped them.
    pub(super) proved_at: DateTime<Utc>,
}

/// What a process holds of one business.
pub(super) struct Ring {
    /// When the key service last unwrapped the business's keys.
    pub(super) proved_at: DateTime<Utc>,
    /// When the rows were last read.
    pub(super) read_at: DateTime<Utc>,
    /// The business's own keys, by number.
    pub(super) wrapping: HashMap<u32, Arc<Cipher>>,
    /// The one of them that wraps new keys.
    pub(super) wraps: Option<u32>,
    keys: HashMap<u32, Arc<DataKey>>,
    active: [Option<Arc<DataKey>>; Class::ALL.len()],
    index: HashMap<String, Vec<IndexKey>>,
}

impl Ring {
    /// The keys of `rows` that the keys in `unwrapped` unwrap. Counts of `old` go on.
    pub(super) fn of(
        business: BusinessId,
        rows: &[KeyRow],
        unwrapped: Unwrapped,
        read_at: DateTime<Utc>,
        old: Option<&Self>,
    ) -> Self {
        let Unwrapped { wrapping, proved_at } = unwrapped;
        let mut ring = Self {
            proved_at,
            read_at,
            wraps: None,
            keys: HashMap::new(),
            active: std::array::from_fn(|_| None),
            index: HashMap::new(),
            wrapping,
        };
        for row in rows {
            let Ok(id) = u32::try_from(row.key_id) else { continue };
            let active = row.state == "active";
            if row.class == "business" {
                if active {
                    ring.wraps = Some(id);
                }
                continue;
            }
            let kept = old.and_then(|old| old.keys.get(&id));
            if row.class == "index" {
                ring.add_index(business, row, id, active);
            } else if let Ok(class) = row.class.parse::<Class>()
                && let Some(key) =
                    kept.cloned().or_else(|| ring.unwrap(business, row, id).map(data_key(id, class, row)))
            {
                if active {
                    ring.active[class as usize] = Some(Arc::clone(&key));
                }
                ring.keys.insert(id, key);
            }
        }
        ring
    }

    fn add_index(&mut self, business: BusinessId, row: &KeyRow, id: u32, active: bool) {
        let Some(key) = self.unwrap(business, row, id) else { return };
        let mac = Hmac::<Sha256>::new_from_slice(&key[..]).expect("HMAC takes keys of any length");
        let versions = self.index.entry(row.purpose.clone()).or_default();
        versions.push(IndexKey { version: row.version, active, mac });
        // The one that is written first, then the newest.
        versions.sort_by_key(|key| (!key.active, -key.version));
    }

    fn unwrap(&self, business: BusinessId, row: &KeyRow, id: u32) -> Option<KeyBytes> {
        let by = row.wrapped_by.and_then(|by| u32::try_from(by).ok())?;
        let key = self.wrapping.get(&by)?.unwrap(&key_aad(business, id, &row.class, &row.purpose), &row.wrapped);
        if key.is_none() {
            // Its values will be unreadable, each with an error; the others go on.
            tracing::error!(vault.key_id = id, vault.wrapped_by = by, "a key of the vault does not unwrap");
        }
        key
    }

    /// The business's own key that wraps new ones, and its number.
    pub(super) fn wrapper(&self) -> Option<(u32, &Arc<Cipher>)> {
        self.wraps.and_then(|id| Some((id, self.wrapping.get(&id)?)))
    }

    /// The key that seals values of `class`.
    pub(super) fn active(&self, class: Class) -> Option<&Arc<DataKey>> {
        self.active[class as usize].as_ref()
    }

    /// The key with this number.
    pub(super) fn key(&self, id: u32) -> Option<&Arc<DataKey>> {
        self.keys.get(&id)
    }

    /// Index keys of a column, the one that is written first.
    pub(super) fn index(&self, column: &str) -> &[IndexKey] {
        self.index.get(column).map_or(&[], Vec::as_slice)
    }

    /// How many columns have index keys.
    pub(super) fn indexed_columns(&self) -> usize {
        self.index.len()
    }

    /// The index key of a column that is written.
    pub(super) fn active_index(&self, column: &str) -> Option<&IndexKey> {
        self.index(column).first().filter(|key| key.active)
    }

    /// Whether the key service was heard less than `span` ago. A clock that went back proves nothing.
    pub(super) fn proved_within(&self, span: TimeDelta, now: DateTime<Utc>) -> bool {
        within(self.proved_at, span, now)
    }

    /// Whether the rows were read less than `span` ago.
    pub(super) fn read_within(&self, span: TimeDelta, now: DateTime<Utc>) -> bool {
        within(self.read_at, span, now)
    }
}

fn within(at: DateTime<Utc>, span: TimeDelta, now: DateTime<Utc>) -> bool {
    let age = now - at;
    age >= TimeDelta::zero() && age < span
}

fn data_key(id: u32, class: Class, row: &KeyRow) -> impl FnOnce(KeyBytes) -> Arc<DataKey> {
    let created_at = row.created_at;
    move |key| {
        Arc::new(DataKey {
            id,
            class,
            cipher: Cipher::new(&key),
            created_at,
            left: AtomicI64::new(0),
            next_block: AtomicI64::new(FIRST_BLOCK),
        })
    }
}

/// Binds a wrapped key to its row, so that no row can pass for another.
pub(super) fn key_aad(business: BusinessId, id: u32, class: &str, purpose: &str) -> Vec<u8> {
    [b"muneem.key.1".as_slice(), business.0.as_bytes(), &id.to_be_bytes(), class.as_bytes(), b"\0", purpose.as_bytes()]
        .concat()
}

/// The same for the key of a Data Principal.
pub(super) fn subject_aad(business: BusinessId, id: u32, subject: Uuid) -> Vec<u8> {
    [b"muneem.subject.1".as_slice(), business.0.as_bytes(), &id.to_be_bytes(), subject.as_bytes()].concat()
}
