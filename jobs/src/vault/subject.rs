//! A key for each Data Principal, for what must not outlive her erasure in any copy: destroyed, it takes every value
//! that it sealed with it, in old rows and in backups that do not hold the key itself.
//!
//! Such keys are not kept in memory: they are read for each value, so that a destroyed one opens nothing anywhere from
//! the moment its transaction commits.

use chrono::SubsecRound;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    ATTEMPTS, Cell, Error, INSTALLATION, Unreadable, Vault,
    cipher::{Cipher, KeyOf, Sealed},
    ring, unreadable,
};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, words},
    outbound::kms::KeyBytes,
    people::BusinessId,
};

/// A destroyed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shredded {
    /// Its number, as it stands in the values that open no more.
    pub key_id: u32,
    /// Whether the key was looked for afterwards and not found.
    pub proved: bool,
}

struct SubjectKey {
    key_id: i64,
    subject_id: Uuid,
    wrapped_by: i64,
    wrapped: Vec<u8>,
}

impl Vault {
    /// Seals `plain` for one cell under the key of one Data Principal, which is made on first use; [`Self::open`] opens
    /// it. Where the person's key was destroyed, a new one is made: what the old one sealed stays closed.
    ///
    /// # Errors
    /// [`Error::Sealed`]
    pub async fn seal_for(
        &self,
        db: &mut PgConnection,
        principal: Uuid,
        cell: &Cell<'_>,
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(row) = find_of(&mut *db, cell.business_id, principal).await? {
                let key_id = u32::try_from(row.key_id).unwrap_or_default();
                let cipher = self.unwrap_subject(&mut *db, cell, &row).await?;
                return cipher.seal((KeyOf::Subject, key_id), &*self.chance, cell, plain);
            }
            self.make_subject_key(cell.business_id, principal).await?;
        }
        Err(Error::KeysChanging(cell.business_id))
    }

    pub(super) async fn open_subject(
        &self,
        db: &mut PgConnection,
        cell: &Cell<'_>,
        parts: &Sealed<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        match find(&mut *db, cell.business_id, parts.key_id).await? {
            Ok(row) => self.unwrap_subject(db, cell, &row).await?.open(parts, cell),
            Err(why) => Err(unreadable(cell, why)),
        }
    }

    async fn unwrap_subject(&self, db: &mut PgConnection, cell: &Cell<'_>, row: &SubjectKey) -> Result<Cipher, Error> {
        let gone = || unreadable(cell, Unreadable::Key);
        let by = u32::try_from(row.wrapped_by).map_err(|_| gone())?;
        let ring = Box::pin(self.ring(db, cell.business_id, |ring| ring.wrapping.contains_key(&by))).await?;
        let key_id = u32::try_from(row.key_id).map_err(|_| gone())?;
        let aad = ring::subject_aad(cell.business_id, key_id, row.subject_id);
        let key = ring.wrapping.get(&by).and_then(|by| by.unwrap(&aad, &row.wrapped)).ok_or_else(gone)?;
        Ok(Cipher::new(&key))
    }

    /// Makes a key in a transaction of its own; one that somebody else made first is as good.
    async fn make_subject_key(&self, business: BusinessId, principal: Uuid) -> Result<(), Error> {
        let _gate = self.gate(business).lock().await;
        let now = self.clock.now().trunc_subsecs(6);
        let ring = self.read_own(business, now).await?;
        let Some((by, cipher)) = ring.wrapper() else {
            // The next round finds the business's key.
            return self.make_business_key(business).await;
        };
        let (key_id, key): (u32, KeyBytes) = self.fresh_key();
        let aad = ring::subject_aad(business, key_id, principal);
        let wrapped = cipher.wrap(&*self.chance, &aad, &key).ok_or(Error::KeysChanging(business))?;
        sqlx::query!(
            "insert into muneem.vault_subject_keys (key_id, business_id, subject_id, wrapped_by, wrapped, created_at)
            select $1, $2, $3, $4, $5, $6
            -- The number of a destroyed key is not given again.
            where not exists (select from muneem.vault_shreds s where s.key_id = $1)
            on conflict do nothing",
            i64::from(key_id),
            business.0,
            principal,
            i64::from(by),
            wrapped,
            now,
        )
        .execute(&mut *self.db.acquire().await?)
        .await?;
        Ok(())
    }

    /// Destroys the key of a Data Principal, in the caller's transaction and with evidence: nothing that it sealed opens
    /// again, wherever a copy lies, once no copy of the key itself is left. Answers none when she has no key.
    ///
    /// The key is gone from this table on commit, from its files with the next vacuum, and from backups and write-ahead
    /// logs that hold the table when those are: keep `muneem.vault_subject_keys` out of long-lived backups.
    ///
    /// Law: DPDP Act 2023 s.8(7), s.12(3).
    ///
    /// # Errors
    /// The database fails.
    pub async fn shred_subject(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        principal: Uuid,
        actor: Actor,
    ) -> Result<Option<Shredded>, Error> {
        let now = self.clock.now().trunc_subsecs(6);
        let gone = sqlx::query_scalar!(
            "with gone as (
                delete from muneem.vault_subject_keys
                where business_id = $1
                    and subject_id = $2
                returning key_id, business_id, subject_id
            )
            insert into muneem.vault_shreds (key_id, business_id, subject_id, shredded_at)
            select key_id, business_id, subject_id, $3
            from gone
            returning key_id",
            business.0,
            principal,
            now,
        )
        .fetch_optional(&mut *db)
        .await?;
        let Some(key_id) = gone.and_then(|key_id| u32::try_from(key_id).ok()) else { return Ok(None) };
        let proved = matches!(find(&mut *db, business, key_id).await?, Err(Unreadable::Shredded));
        let event = Event {
            event_id: EventId::new(&*self.chance, now),
            business_id: (business != INSTALLATION).then_some(business),
            actor,
            verb: words::SUBJECT_SHREDDED,
            object: Object { kind: "principal", id: &principal.to_string() },
            details: json!({ "key": key_id, "proved": proved }),
        };
        evidence::record(db, &event).await?;
        Ok(Some(Shredded { key_id, proved }))
    }
}

async fn find_of(db: &mut PgConnection, business: BusinessId, principal: Uuid) -> Result<Option<SubjectKey>, Error> {
    Ok(sqlx::query_as!(
        SubjectKey,
        "select k.key_id, k.subject_id, k.wrapped_by, k.wrapped
        from muneem.vault_subject_keys k
        where k.business_id = $1
            and k.subject_id = $2
            and not exists (select from muneem.vault_shreds s where s.key_id = k.key_id)",
        business.0,
        principal,
    )
    .fetch_optional(db)
    .await?)
}

/// The key of this number, or why there is none. A tombstone outweighs a row that somebody restored.
async fn find(
    db: &mut PgConnection,
    business: BusinessId,
    key_id: u32,
) -> Result<Result<SubjectKey, Unreadable>, Error> {
    let shredded = sqlx::query_scalar!(
        r#"select exists (
            select from muneem.vault_shreds where key_id = $1 and business_id = $2) as "so!""#,
        i64::from(key_id),
        business.0,
    )
    .fetch_one(&mut *db)
    .await?;
    if shredded {
        return Ok(Err(Unreadable::Shredded));
    }
    let row = sqlx::query_as!(
        SubjectKey,
        "select key_id, subject_id, wrapped_by, wrapped
        from muneem.vault_subject_keys
        where key_id = $1
            and business_id = $2",
        i64::from(key_id),
        business.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.ok_or(Unreadable::Key))
}
