//! Blind indexes: equal values have equal ones, and nobody reads the value out of them.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{ATTEMPTS, BlindIndex, Error, IndexColumn, RECHECK, Vault, Wanted, ring::Ring, store};
use crate::{evidence::Actor, people::BusinessId};

/// Columns of one business that are indexed: every process holds their keys, and reads them every few seconds.
pub(super) const INDEXED_MAX: usize = 200;

impl Vault {
    /// The blind index of a value in its canonical form, to be stored beside it. Makes the index key on first use.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub async fn index(
        &self,
        db: &mut PgConnection,
        column: &IndexColumn<'_>,
        canonical: &str,
    ) -> Result<BlindIndex, Error> {
        let name = column.name();
        let now = self.clock.now();
        if let Some(ring) = self.held(column.business_id, now).filter(|ring| ring.read_within(RECHECK, now))
            && let Some(key) = ring.active_index(&name)
        {
            return Ok(key.digest(canonical));
        }
        let ring = Box::pin(self.indexing_ring(db, column.business_id, &name)).await?;
        let key = ring.active_index(&name).ok_or(Error::KeysChanging(column.business_id))?;
        Ok(key.digest(canonical))
    }

    /// Every blind index under which a value may be stored while index keys change: the one that is written first.
    /// Look-ups compare with all of them.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub async fn indexes(
        &self,
        db: &mut PgConnection,
        column: &IndexColumn<'_>,
        canonical: &str,
    ) -> Result<Vec<BlindIndex>, Error> {
        let name = column.name();
        let ring = Box::pin(self.indexing_ring(db, column.business_id, &name)).await?;
        Ok(ring.index(&name).iter().map(|key| key.digest(canonical)).collect())
    }

    /// As [`Self::indexes`], for a column that may never have been indexed: then there are none. A search makes no key.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub async fn known_indexes(
        &self,
        db: &mut PgConnection,
        column: &IndexColumn<'_>,
        canonical: &str,
    ) -> Result<Vec<BlindIndex>, Error> {
        let name = column.name();
        if store::last_index_version(&mut *db, column.business_id, &name).await? == 0 {
            return Ok(Vec::new());
        }
        self.indexes(db, column, canonical).await
    }

    /// Lets nobody else write an equal value until the caller's transaction ends, where index keys are changing: it may
    /// then stand under two versions, and no unique index sees both. Call it before looking whether the value is there;
    /// `beside` is what else makes it unique. Costs nothing while there is one key.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub async fn hold_equal(
        &self,
        db: &mut PgConnection,
        column: &IndexColumn<'_>,
        canonical: &str,
        beside: &str,
    ) -> Result<(), Error> {
        let ring = Box::pin(self.indexing_ring(&mut *db, column.business_id, &column.name())).await?;
        let keys = ring.index(&column.name());
        if keys.len() < 2 {
            return Ok(());
        }
        // Everybody who may write beside us knows the oldest one.
        let Some(oldest) = keys.iter().min_by_key(|key| key.version) else { return Ok(()) };
        let digest = Sha256::new().chain_update(oldest.digest(canonical).digest).chain_update(beside).finalize();
        let (lock, _) = digest.split_first_chunk::<8>().expect("SHA-256 has 32 bytes");
        store::lock_until_end(db, i64::from_be_bytes(*lock)).await
    }

    /// A ring with an index key for the column.
    async fn indexing_ring(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        column: &str,
    ) -> Result<Arc<Ring>, Error> {
        let now = self.clock.now();
        let fresh = |ring: &Arc<Ring>| ring.read_within(RECHECK, now);
        if let Some(ring) = self.held(business, now).filter(fresh).filter(|ring| ring.active_index(column).is_some()) {
            return Ok(ring);
        }
        let _gate = self.gate(business).lock().await;
        let mut ring = match self.held(business, now).filter(fresh) {
            Some(ring) => ring,
            None => self.read(db, business, now).await?,
        };
        for _ in 0..ATTEMPTS {
            if ring.active_index(column).is_some() {
                return Ok(ring);
            }
            let last = store::last_index_version(&mut *self.db.acquire().await?, business, column).await?;
            if last == 0 && ring.indexed_columns() >= INDEXED_MAX {
                return Err(Error::BadColumn {
                    problem: format!("{column} would be indexed column {} of this business", INDEXED_MAX + 1),
                    mend: "index fewer columns; a column's name is no place for a value",
                });
            }
            let wanted =
                Wanted { class: "index", purpose: column, version: last.saturating_add(1), by: &Actor::System };
            self.make_key(&ring, business, wanted, None).await?;
            ring = self.read_own(business, now).await?;
        }
        Err(Error::KeysChanging(business))
    }
}
