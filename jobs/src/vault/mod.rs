//! Sealed columns and the keys that seal them.
//!
//! A root key, held by a key service ([`KeyManager`]), wraps one key for each business; that one wraps a data key for
//! each [`Class`] of value, and on a branch of its own an index key for each column that is looked up. Wrapped keys lie
//! in `muneem.vault_keys`; in clear they are in memory only, for a quarter of an hour, and for four hours when the key
//! service does not answer. After that the vault is *sealed*: [`Error::Sealed`], and jobs wait.
//!
//! A value is sealed with AES-256-GCM for one [`Cell`]: business, table, column and row are bound to it, so that it
//! opens nowhere else. An older value of the same cell does open there: who must notice that binds a row version into
//! the row's key.
//!
//! States of a key: `pending → active → decrypt_only → retired`. Nonces are 96 random bits, so a key seals at most
//! 2³¹ values or for ninety days; uses are taken from the table in blocks before they are used. A restored database has
//! forgotten some of them: when the rows turn out to live elsewhere than before (another system, timeline or database),
//! every key that seals is replaced.
//!
//! What a blind index tells whoever reads the table: which rows hold equal values. Whoever holds the index key too can
//! try all phone numbers. So there is no index of parts of a value, nor of one with few values.

pub mod canonical;
mod cipher;
mod columns;
mod error;
#[cfg(test)]
mod floor;
mod host;
mod host_store;
#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod hostile_tests;
mod indexing;
mod model;
mod openness;
mod reseal;
mod reseal_store;
mod rewrap;
mod ring;
mod rotate_keys;
mod rotation_store;
#[cfg(test)]
mod rotation_tests;
pub mod screen;
mod standing;
mod store;
mod strays;
mod subject;
#[cfg(test)]
mod subject_tests;
#[cfg(test)]
pub(crate) mod tests;
mod trail;
mod walk;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::{
    evidence::Actor,
    outbound::{
        Chance, Clock, KeyManager, KmsError,
        kms::{KeyBytes, KeyContext, RootKey},
    },
    people::BusinessId,
};

use cipher::{Cipher, KeyOf, Sealed, unreadable};
use ring::{DataKey, Ring, Unwrapped};

pub use cipher::{OVERHEAD, key_of};
pub use columns::{IndexedColumn, Key, Owner, SealedColumn, Source, Version, as_it_stands};
pub use error::{Error, Unreadable};
pub use host::{
    CheckColumns, ColumnId, Form, HostColumn, HostIndex, Look, NewColumn, list as list_columns, look_at_columns,
    require_sound,
};
pub use model::{BlindIndex, Cell, Class, INSTALLATION, IndexColumn, KeyInfo};
pub use openness::Openness;
pub use reseal::{Reseal, ResealId};
pub use reseal_store::{Quarantined, ResealColumn};
pub use rewrap::Rewrapped;
pub use rotate_keys::{Replace, RotateKeys, pause_reseal};
pub use standing::{Standing, Walked, schedules, standing};
pub use strays::Stray;
pub use subject::Shredded;
pub use trail::{RootMade, record_root};

/// A key seals at most so many values: far below the 2³² of NIST SP 800-38D section 8.3 for random nonces.
const USES_MAX: i64 = 1 << 31;
/// Who seals looks this often whether her key still may.
const RECHECK: TimeDelta = TimeDelta::seconds(5);
/// A sealed vault asks its key service again after so long.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(30);
/// Businesses whose keys a process holds before it lets go of those it heard least of.
const RINGS_MAX: usize = 4096;
/// Attempts when others change the same keys.
const ATTEMPTS: usize = 4;

/// How long keys may stay in memory.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Without asking the key service again.
    pub cached_for: TimeDelta,
    /// When the key service does not answer; then the vault is sealed.
    pub outage_max: TimeDelta,
    /// A key that has sealed for so long is replaced.
    pub rotate_after: TimeDelta,
    /// Backups that are kept are younger; a key is retired so long after the last reference to it was gone.
    pub backup_horizon: TimeDelta,
}

impl Settings {
    /// 15 minutes, 4 hours, 90 days, 33 days.
    pub const DEFAULT: Self = Self {
        cached_for: TimeDelta::minutes(15),
        outage_max: TimeDelta::hours(4),
        rotate_after: TimeDelta::days(90),
        backup_horizon: TimeDelta::days(33),
    };
}

/// Which key to make.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    class: &'a str,
    purpose: &'a str,
    version: i16,
    /// Who wants it: for the evidence.
    by: &'a Actor,
}

/// Seals, opens and indexes values.
pub struct Vault {
    db: PgPool,
    /// To the tables of frontends; none: they are in the same database.
    host: Option<PgPool>,
    kms: Arc<dyn KeyManager>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    settings: Settings,
    rings: RwLock<HashMap<BusinessId, Arc<Ring>>>,
    /// One reads, makes or counts keys of a business at a time; a few businesses share a gate.
    gates: [Mutex<()>; 64],
    /// When the key service was last asked how it is, and what was wrong with it.
    heard: Mutex<Option<(DateTime<Utc>, Option<&'static str>)>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("kms", &self.kms.describe()).finish_non_exhaustive()
    }
}

impl Vault {
    /// Keys are made and counted on connections of `db`, in short transactions of their own: a caller who rolls back
    /// must take neither a key nor a count back. Give it connections that callers of the vault do not hold.
    pub fn new(
        db: PgPool,
        kms: Arc<dyn KeyManager>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        settings: Settings,
    ) -> Self {
        let gates = std::array::from_fn(|_| Mutex::new(()));
        Self { db, host: None, kms, clock, chance, settings, rings: RwLock::default(), gates, heard: Mutex::default() }
    }

    /// The same, with registered columns of frontends reached by connections of their own.
    #[must_use]
    pub fn reaching(mut self, host: PgPool) -> Self {
        self.host = Some(host);
        self
    }

    /// A vault whose root key this process holds, with two connections of its own to where `db` leads: for benches and
    /// tests.
    pub fn with_root(db: &PgPool, root: &KeyBytes, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        let own = PgPoolOptions::new().max_connections(2).connect_lazy_with((*db.connect_options()).clone());
        let kms = Arc::new(RootKey::new(root, Arc::clone(&chance)));
        Self::new(own, kms, clock, chance, Settings::DEFAULT)
    }

    /// Seals `plain` for one cell. Makes the keys it needs on first use.
    ///
    /// # Errors
    /// [`Error::Sealed`] when the key service is out of reach for too long.
    pub async fn seal(
        &self,
        db: &mut PgConnection,
        class: Class,
        cell: &Cell<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let now = self.clock.now();
        if let Some(ring) = self.held(cell.business_id, now).filter(|ring| ring.read_within(RECHECK, now))
            && let Some(key) = ring.active(class).filter(|key| !self.is_due(key, now))
            && key.use_once()
        {
            return key.cipher.seal((KeyOf::Class, key.id), &*self.chance, cell, plain);
        }
        let key = Box::pin(self.sealing_key(db, cell.business_id, class)).await?;
        key.cipher.seal((KeyOf::Class, key.id), &*self.chance, cell, plain)
    }

    /// Seals many values of one class.
    ///
    /// # Errors
    /// As [`Self::seal`]; then none is answered.
    pub async fn seal_many(
        &self,
        db: &mut PgConnection,
        class: Class,
        cells: &[(Cell<'_>, &[u8])],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut sealed = Vec::with_capacity(cells.len());
        for (cell, plain) in cells {
            sealed.push(self.seal(db, class, cell, plain).await?);
        }
        Ok(sealed)
    }

    /// Opens what was sealed for this cell. The key is the one whose number the value carries, and no other is tried.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when it does not open as this cell, [`Error::Sealed`].
    pub async fn open(
        &self,
        db: &mut PgConnection,
        cell: &Cell<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let parts = Sealed::parse(sealed, cell)?;
        if parts.of == KeyOf::Subject {
            return Box::pin(self.open_subject(db, cell, &parts)).await;
        }
        if let Some(ring) = self.held(cell.business_id, self.clock.now()) {
            if let Some(key) = ring.key(parts.key_id) {
                return key.cipher.open(&parts, cell);
            }
            // Made a moment ago by another process, or invented by whoever wrote the value: then nobody waits at the
            // gate for it, and no key is unwrapped.
            if !store::knows_key(&mut *db, cell.business_id, parts.key_id).await? {
                return Err(unreadable(cell, Unreadable::Key));
            }
        }
        let ring = Box::pin(self.ring(db, cell.business_id, |ring| ring.key(parts.key_id).is_some())).await?;
        let key = ring.key(parts.key_id).ok_or_else(|| unreadable(cell, Unreadable::Key))?;
        key.cipher.open(&parts, cell)
    }

    /// Opens many values, each with an outcome of its own.
    ///
    /// # Errors
    /// [`Error::Sealed`] and failures of the database, which concern all; then none is answered.
    pub async fn open_many(
        &self,
        db: &mut PgConnection,
        cells: &[(Cell<'_>, &[u8])],
    ) -> Result<Vec<Result<Zeroizing<Vec<u8>>, Error>>, Error> {
        let mut opened = Vec::with_capacity(cells.len());
        for (cell, sealed) in cells {
            match self.open(db, cell, sealed).await {
                Err(error @ (Error::Sealed { .. } | Error::Database(_))) => return Err(error),
                outcome => opened.push(outcome),
            }
        }
        Ok(opened)
    }

    /// What is sealed for this cell, sealed anew under the key that seals its class now.
    async fn reseal(&self, db: &mut PgConnection, cell: &Cell<'_>, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let parts = Sealed::parse(sealed, cell)?;
        let plain = self.open(&mut *db, cell, sealed).await?;
        if parts.of == KeyOf::Subject {
            return Ok(sealed.to_vec());
        }
        let held = self.held(cell.business_id, self.clock.now());
        let key = held.as_ref().and_then(|ring| ring.key(parts.key_id)).ok_or(Error::KeysChanging(cell.business_id))?;
        self.seal(db, key.class, cell, &plain).await
    }

    /// Replaces the key that seals a class of a business's values; what the old one sealed still opens. Answers the
    /// number of the one that seals from now on. Processes notice within seconds; one that does not know a key reads it.
    /// The evidence says that `by` did it.
    ///
    /// # Errors
    /// [`Error::Sealed`]; [`Error::KeysChanging`] when somebody else replaces it too.
    pub async fn rotate(&self, business: BusinessId, class: Class, by: &Actor) -> Result<u32, Error> {
        let _gate = self.gate(business).lock().await;
        let now = self.clock.now();
        let wanted = Wanted { class: class.as_str(), purpose: "", version: 1, by };
        let mut ring = self.read_own(business, now).await?;
        let before = ring.active(class).map(|key| key.id);
        for _ in 0..ATTEMPTS {
            self.make_key(&ring, business, wanted, before).await?;
            ring = self.read_own(business, now).await?;
            if let Some(key) = ring.active(class).filter(|key| Some(key.id) != before) {
                return Ok(key.id);
            }
        }
        Err(Error::KeysChanging(business))
    }

    /// How long a key is kept after the last reference to it was gone.
    pub fn backup_horizon(&self) -> TimeDelta {
        self.settings.backup_horizon
    }

    /// Driver and root key, for people.
    pub fn describe(&self) -> String {
        self.kms.describe()
    }

    /// Whether the key service answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn health(&self) -> Result<(), KmsError> {
        self.kms.health().await
    }

    /// The ring in memory, if the key service was heard lately enough.
    fn held(&self, business: BusinessId, now: DateTime<Utc>) -> Option<Arc<Ring>> {
        let rings = self.rings.read().unwrap_or_else(PoisonError::into_inner);
        rings.get(&business).filter(|ring| ring.proved_within(self.settings.cached_for, now)).cloned()
    }

    fn sealed(&self, business_id: BusinessId, now: DateTime<Utc>, source: KmsError) -> Error {
        Error::Sealed { business_id, until: now + ASK_AGAIN, source }
    }

    fn is_due(&self, key: &DataKey, now: DateTime<Utc>) -> bool {
        now - key.created_at >= self.settings.rotate_after
    }

    fn gate(&self, business: BusinessId) -> &Mutex<()> {
        &self.gates[usize::from(business.0.as_bytes()[15]) % self.gates.len()]
    }

    /// The ring, read anew unless the one in memory is fresh and `enough`.
    async fn ring(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        enough: impl Fn(&Ring) -> bool,
    ) -> Result<Arc<Ring>, Error> {
        let _gate = self.gate(business).lock().await;
        let now = self.clock.now();
        // Whoever held the gate before may have done it.
        if let Some(ring) = self.held(business, now).filter(|ring| enough(ring)) {
            return Ok(ring);
        }
        self.read(db, business, now).await
    }

    /// Reads the rows, and asks the key service when its last word is too old. The caller holds the gate.
    async fn read(&self, db: &mut PgConnection, business: BusinessId, now: DateTime<Utc>) -> Result<Arc<Ring>, Error> {
        let mut rows = store::list_usable(&mut *db, business).await?;
        if !store::stands_as_before(&mut *db).await? {
            let mut own = self.db.acquire().await?;
            let mut tx = own.begin().await?;
            let replaced = store::settle(&mut tx, now).await?;
            tx.commit().await?;
            if replaced > 0 {
                tracing::warn!(
                    vault.keys = replaced,
                    "the database was restored, promoted or copied: every key that seals is replaced"
                );
            }
            rows = store::list_usable(&mut own, business).await?;
        }
        let old = self.rings.read().unwrap_or_else(PoisonError::into_inner).get(&business).cloned();
        let fresh = old.as_ref().filter(|old| old.proved_within(self.settings.cached_for, now));
        let unwrapped = match self.wrapping_keys(business, &rows, fresh.map(|ring| &**ring), now).await {
            Ok(unwrapped) => unwrapped,
            Err(source) => match &old {
                Some(old) if old.proved_within(self.settings.outage_max, now) => {
                    tracing::warn!(kms = self.kms.describe(), error = %source, "keys from memory: the key service gives none");
                    Unwrapped { wrapping: old.wrapping.clone(), proved_at: old.proved_at }
                }
                _ => {
                    self.rings.write().unwrap_or_else(PoisonError::into_inner).remove(&business);
                    return Err(self.sealed(business, now, source));
                }
            },
        };
        let ring = Arc::new(Ring::of(business, &rows, unwrapped, now, old.as_deref()));
        self.keep(business, &ring);
        Ok(ring)
    }

    /// The business's own keys in clear: those of a fresh ring, the others from the key service.
    async fn wrapping_keys(
        &self,
        business: BusinessId,
        rows: &[store::KeyRow],
        fresh: Option<&Ring>,
        now: DateTime<Utc>,
    ) -> Result<Unwrapped, KmsError> {
        let mut wrapping = HashMap::new();
        for row in rows.iter().filter(|row| row.class == "business") {
            let Ok(key_id) = u32::try_from(row.key_id) else { continue };
            let cipher = match fresh.and_then(|ring| ring.wrapping.get(&key_id)) {
                Some(cipher) => Arc::clone(cipher),
                None => {
                    let context = KeyContext { business_id: business.0, key_id };
                    Arc::new(Cipher::new(&self.kms.unwrap(&context, &row.wrapped).await?))
                }
            };
            wrapping.insert(key_id, cipher);
        }
        Ok(Unwrapped { wrapping, proved_at: fresh.map_or(now, |ring| ring.proved_at) })
    }

    fn keep(&self, business: BusinessId, ring: &Arc<Ring>) {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        if rings.len() >= RINGS_MAX && !rings.contains_key(&business) {
            let mut ages: Vec<_> = rings.iter().map(|(business, ring)| (ring.read_at, *business)).collect();
            ages.sort_unstable();
            for (_, oldest) in &ages[..RINGS_MAX / 4] {
                rings.remove(oldest);
            }
        }
        rings.insert(business, Arc::clone(ring));
    }

    /// A key that may seal, with one use taken.
    async fn sealing_key(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        class: Class,
    ) -> Result<Arc<DataKey>, Error> {
        let _gate = self.gate(business).lock().await;
        let now = self.clock.now();
        let mut ring = match self.held(business, now).filter(|ring| ring.read_within(RECHECK, now)) {
            Some(ring) => ring,
            None => self.read(db, business, now).await?,
        };
        let wanted = Wanted { class: class.as_str(), purpose: "", version: 1, by: &Actor::System };
        for _ in 0..ATTEMPTS {
            match ring.active(class) {
                None => self.make_key(&ring, business, wanted, None).await?,
                Some(key) if self.is_due(key, now) => {
                    self.make_key(&ring, business, wanted, Some(key.id)).await?;
                }
                Some(key) if key.use_once() => return Ok(Arc::clone(key)),
                Some(key) => {
                    let block = key.block();
                    if store::take_uses(&mut *self.db.acquire().await?, key.id, block, USES_MAX).await? {
                        key.add(block);
                        return Ok(Arc::clone(key));
                    }
                    // It has sealed as much as it may, or somebody replaced it: the second finds nothing to stop.
                    self.make_key(&ring, business, wanted, Some(key.id)).await?;
                }
            }
            ring = self.read_own(business, now).await?;
        }
        Err(Error::KeysChanging(business))
    }

    async fn read_own(&self, business: BusinessId, now: DateTime<Utc>) -> Result<Arc<Ring>, Error> {
        let mut own = self.db.acquire().await?;
        self.read(&mut own, business, now).await
    }

    /// Makes a key, in a transaction of its own; one that is there already, made by another process, is as good. With
    /// `instead_of`, that one stops sealing in the same transaction.
    async fn make_key(
        &self,
        ring: &Ring,
        business: BusinessId,
        wanted: Wanted<'_>,
        instead_of: Option<u32>,
    ) -> Result<(), Error> {
        let Wanted { class, purpose, version, by } = wanted;
        let Some((wrapped_by, cipher)) = ring.wrapper() else {
            // The next round finds the business's key, then this one.
            return self.make_business_key(business).await;
        };
        let (key_id, key) = self.fresh_key();
        let aad = ring::key_aad(business, key_id, class, purpose);
        let wrapped = cipher.wrap(&*self.chance, &aad, &key).ok_or(Error::KeysChanging(business))?;
        let new = store::NewKey {
            key_id,
            business,
            class,
            purpose,
            version,
            state: "active",
            wrapped_by: Some(wrapped_by),
            root: None,
            wrapped: &wrapped,
            now: self.clock.now().trunc_subsecs(6),
        };
        let mut own = self.db.acquire().await?;
        let mut tx = own.begin().await?;
        if let Some(old) = instead_of
            && !store::stop_sealing(&mut tx, old, new.now).await?
        {
            return Ok(());
        }
        if store::insert_key(&mut tx, &new).await? {
            trail::made(&mut tx, &new, instead_of, by, &*self.chance).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn make_business_key(&self, business: BusinessId) -> Result<(), Error> {
        let (key_id, key) = self.fresh_key();
        let now = self.clock.now().trunc_subsecs(6);
        let context = KeyContext { business_id: business.0, key_id };
        let wrapped = self.kms.wrap(&context, &key).await.map_err(|source| self.sealed(business, now, source))?;
        let new = store::NewKey {
            key_id,
            business,
            class: "business",
            purpose: "",
            version: 1,
            state: "active",
            wrapped_by: None,
            root: Some(&self.kms.describe()),
            wrapped: &wrapped,
            now,
        };
        let mut own = self.db.acquire().await?;
        let mut tx = own.begin().await?;
        if store::insert_key(&mut tx, &new).await? {
            trail::made(&mut tx, &new, None, &Actor::System, &*self.chance).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// A number and a key, by chance.
    fn fresh_key(&self) -> (u32, KeyBytes) {
        let mut id = [0; 4];
        self.chance.fill(&mut id);
        let mut key = Zeroizing::new([0; 32]);
        self.chance.fill(&mut key[..]);
        (u32::from_be_bytes(id).max(1), key)
    }
}

/// All keys, or those of one business, without what they are.
///
/// # Errors
/// The database fails.
pub async fn list_keys(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<KeyInfo>, Error> {
    store::list_keys(db, business).await
}

/// Whether any key was ever made in this database: then its root key is somewhere, and a new one would open nothing.
///
/// # Errors
/// The database fails.
pub async fn holds_keys(db: &mut PgConnection) -> Result<bool, Error> {
    store::holds_keys(db).await
}
