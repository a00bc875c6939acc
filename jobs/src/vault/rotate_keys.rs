//! Keys on their way: `pending → active → decrypt_only → retired`, one step a run, each in a transaction with its
//! evidence.
//!
//! A pending key becomes active when everybody who seals has heard of it: who seals reads the keys anew every five
//! seconds, so twice that after it was made, and once every transaction that was under way then has ended. What the
//! key before it sealed is then sealed anew by [`super::Reseal`], or, of a business's own key, wrapped anew here. A key
//! that nothing refers to is kept for the backup horizon and counted once more; then it is retired: it opens nothing,
//! and lies where it lay.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Acquire, PgConnection};

use super::{
    Class, Error, RECHECK, Reseal, ResealId, USES_MAX, Vault, reseal, reseal_store as walks, ring,
    rotation_store as store, store as keys,
};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, Word, words},
    outbound::{Chance, kms::KeyContext},
    people::BusinessId,
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings, Slots},
};

/// Who seals or indexes has heard of a key by then.
pub(super) const SPREAD: TimeDelta = TimeDelta::seconds(2 * RECHECK.num_seconds());
/// A key is replaced so long before whoever seals would do it himself, so that somebody watches it.
const BEFORE_DUE: TimeDelta = TimeDelta::days(1);
/// After an incomplete walk of the same keys the next one comes this much later.
const WALK_AGAIN: TimeDelta = TimeDelta::days(1);
const BATCH: i64 = 500;

/// Which key is replaced.
#[derive(Clone, Copy, Debug)]
pub enum Replace<'a> {
    /// The one that seals values of a class.
    Class(Class),
    /// The one that indexes a column, `schema.table.column`.
    Index(&'a str),
    /// The business's own, which wraps the others.
    Business,
}

impl Replace<'_> {
    /// The class, `index` or `business`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::Index(_) => "index",
            Self::Business => "business",
        }
    }

    fn purpose(&self) -> &str {
        match self {
            Self::Index(column) => column,
            Self::Class(_) | Self::Business => "",
        }
    }
}

impl Vault {
    /// Makes the key that is to replace the present one, in the caller's transaction; [`RotateKeys`] lets it take over.
    /// Answers its number; none when there is no key to replace.
    ///
    /// # Errors
    /// [`Error::Rotating`] when somebody replaces it already, [`Error::Sealed`].
    pub async fn prepare_key(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        replace: Replace<'_>,
        actor: Actor,
    ) -> Result<Option<u32>, Error> {
        let (class, purpose) = (replace.class(), replace.purpose());
        let rotating = || Error::Rotating { what: if purpose.is_empty() { class } else { purpose }.to_owned() };
        if store::find_active(db, business, class, purpose).await?.is_none() {
            return Ok(None);
        }
        if store::is_rotating(db, business, class, purpose).await? {
            return Err(rotating());
        }
        let now = self.clock.now().trunc_subsecs(6);
        let (key_id, key) = self.fresh_key();
        let version = match replace {
            Replace::Index(column) => keys::last_index_version(db, business, column).await?.saturating_add(1),
            Replace::Class(_) | Replace::Business => 1,
        };
        let (wrapped, wrapped_by, root);
        if matches!(replace, Replace::Business) {
            let context = KeyContext { business_id: business.0, key_id };
            wrapped = self.kms.wrap(&context, &key).await.map_err(|source| self.sealed(business, now, source))?;
            (wrapped_by, root) = (None, Some(self.kms.describe()));
        } else {
            let _gate = self.gate(business).lock().await;
            let ring = self.read_own(business, now).await?;
            let (by, cipher) = ring.wrapper().ok_or(Error::KeysChanging(business))?;
            let aad = ring::key_aad(business, key_id, class, purpose);
            wrapped = cipher.wrap(&*self.chance, &aad, &key).ok_or(Error::KeysChanging(business))?;
            (wrapped_by, root) = (Some(by), None);
        }
        let new = keys::NewKey {
            key_id,
            business,
            class,
            purpose,
            version,
            state: "pending",
            wrapped_by,
            root: root.as_deref(),
            wrapped: &wrapped,
            now,
        };
        if !keys::insert_key(db, &new).await? {
            return Err(rotating());
        }
        let wanted = (class, purpose);
        record(db, (&*self.chance, now), (business, i64::from(key_id), wanted), actor, words::KEY_PREPARED).await?;
        Ok(Some(key_id))
    }

    /// Lets pending keys take over that everybody has heard of. Answers how many, and whether some are still to come.
    async fn activate_ready(&self, ctx: &JobContext) -> Result<(u64, bool), Error> {
        let now = ctx.now().trunc_subsecs(6);
        let mut db = ctx.deps.db.acquire().await?;
        store::fence_pending(&mut db, now - SPREAD).await?;
        let ready = store::list_pending(&mut db, now - SPREAD).await?;
        drop(db);
        let mut activated = 0;
        for key in ready.iter().filter(|key| key.fenced) {
            let mut tx = ctx.begin_for_all().await?;
            if store::activate(&mut tx, key, now).await? {
                let wanted = (key.class.as_str(), key.purpose.as_str());
                let told = (key.business, key.key_id, wanted);
                record(&mut tx, (&*ctx.deps.chance, now), told, actor(ctx), words::KEY_ACTIVATED).await?;
                tx.commit().await?;
                activated += 1;
            }
        }
        Ok((activated, store::has_pending(&mut *ctx.deps.db.acquire().await?).await?))
    }

    /// Wraps anew what a key of the business wraps that is on its way out.
    async fn rewrap_keys(&self, ctx: &JobContext, business: BusinessId) -> Result<u64, Error> {
        let now = ctx.now().trunc_subsecs(6);
        let ring = {
            let _gate = self.gate(business).lock().await;
            self.read_own(business, now).await?
        };
        let (by, to) = ring.wrapper().ok_or(Error::KeysChanging(business))?;
        let (mut rewrapped, mut after) = (0, 0);
        loop {
            let mut db = ctx.deps.db.acquire().await?;
            let page = store::list_wrapped_by_old(&mut db, business, after, BATCH).await?;
            drop(db);
            let Some(last) = page.last() else { break };
            after = last.key_id;
            let mut tx = ctx.begin_for_all().await?;
            for old in &page {
                let id = u32::try_from(old.key_id).unwrap_or_default();
                let aad = match old.subject {
                    Some(subject) => ring::subject_aad(business, id, subject),
                    None => ring::key_aad(business, id, &old.class, &old.purpose),
                };
                let from = u32::try_from(old.wrapped_by).ok().and_then(|by| ring.wrapping.get(&by));
                let wrapped = from
                    .and_then(|from| from.unwrap(&aad, &old.wrapped))
                    .and_then(|key| to.wrap(&*self.chance, &aad, &key));
                match wrapped {
                    Some(wrapped) => rewrapped += u64::from(store::rewrap(&mut tx, old, by, &wrapped).await?),
                    None => tracing::error!(
                        vault.key_id = old.key_id,
                        vault.wrapped_by = old.wrapped_by,
                        "a key of the vault does not unwrap: the one that wraps it is kept"
                    ),
                }
            }
            tx.commit().await?;
        }
        let mut tx = ctx.begin_for_all().await?;
        store::clear_business_keys(&mut tx, business, now).await?;
        tx.commit().await?;
        Ok(rewrapped)
    }

    /// Begins to seal anew what keys on their way out have sealed, or sees to it that it goes on.
    async fn begin_reseal(&self, ctx: &JobContext) -> Result<bool, Error> {
        let now = ctx.now().trunc_subsecs(6);
        let mut db = ctx.deps.db.acquire().await?;
        let keys = store::list_opening(&mut db, now - SPREAD).await?;
        let last = walks::find_run(&mut db).await?;
        drop(db);
        let mut tx = ctx.begin_for_all().await?;
        match last {
            Some(run) if run.state == "paused" => return Ok(false),
            // Its job may be in the dead letters, or was ended by a pause.
            Some(run) if run.state == "running" => {
                if reseal::has_job(&mut tx).await? {
                    return Ok(true);
                }
            }
            _ if keys.is_empty() => return Ok(false),
            Some(run)
                if keys.iter().all(|key| run.keys.contains(key))
                    && run.ended_at.is_some_and(|ended| now - ended < WALK_AGAIN) =>
            {
                return Ok(false);
            }
            _ => {
                let id = ResealId(ctx.deps.chance.uuid_v7(now));
                if !walks::insert_run(&mut tx, id, &keys, now).await? {
                    return Ok(false);
                }
            }
        }
        queue::enqueue(&mut tx, &NewJob::of(ctx.business, &Reseal {})?).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Retires keys that no value, no other key and, by now, no backup refers to.
    async fn retire_due(&self, ctx: &JobContext) -> Result<u64, Error> {
        let now = ctx.now().trunc_subsecs(6);
        let mut db = ctx.deps.db.acquire().await?;
        let due = store::list_retirable(&mut db, now - self.settings.backup_horizon).await?;
        let mut retired = 0;
        for key in due {
            let referred = if key.class == "business" { Some(0) } else { self.count_references(&mut db, &key).await? };
            // Somebody's table does not answer: her keys wait, those of others do not.
            let Some(referred) = referred else { continue };
            let mut tx = ctx.begin_for_all().await?;
            if referred > 0 {
                tracing::warn!(
                    vault.key_id = key.key_id,
                    vault.references = referred,
                    "a key was to be retired and is used again: its values are sealed anew first"
                );
                store::unclear(&mut tx, key.key_id).await?;
            } else if store::retire(&mut tx, key.key_id, now).await? {
                let wanted = (key.class.as_str(), key.purpose.as_str());
                let told = (key.business, key.key_id, wanted);
                record(&mut tx, (&*ctx.deps.chance, now), told, actor(ctx), words::KEY_RETIRED).await?;
                retired += 1;
            }
            tx.commit().await?;
        }
        Ok(retired)
    }
}

fn actor(ctx: &JobContext) -> Actor {
    Actor::Job { kind: RotateKeys::KIND, job_id: ctx.job.0 }
}

async fn record(
    db: &mut PgConnection,
    (chance, now): (&dyn Chance, DateTime<Utc>),
    (business, key, (class, column)): (BusinessId, i64, (&str, &str)),
    actor: Actor,
    verb: Word,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: (business != super::INSTALLATION).then_some(business),
        actor,
        verb,
        object: Object { kind: "key", id: &key.to_string() },
        details: json!({ "class": class, "column": column }),
    };
    evidence::record(db, &event).await?;
    Ok(())
}

/// Takes every key one step further that is ready for it. Runs every hour, after a request, and after a walk.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {}

impl Job for RotateKeys {
    const KIND: &'static str = "vault.rotate_keys";
    const LANE: Lane = Lane::Maintenance;
    const SETTINGS: Settings =
        Settings { timeout: std::time::Duration::from_secs(900), slots: Slots::OfKind(1), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let vault = &ctx.deps.vault;
        let now = ctx.now();
        // What one business's key service refuses keeps nobody else waiting; it is told at the end.
        let mut trouble = None;
        let worn = {
            let mut db = ctx.deps.db.acquire().await?;
            store::list_worn(&mut db, now - (vault.settings.rotate_after - BEFORE_DUE), USES_MAX / 4 * 3).await?
        };
        for (business, class) in worn {
            let Ok(class) = class.parse::<Class>() else { continue };
            let mut tx = ctx.begin_for_all().await?;
            match vault.prepare_key(&mut tx, business, Replace::Class(class), actor(ctx)).await {
                Ok(_) => tx.commit().await?,
                Err(Error::Rotating { .. }) => {}
                Err(error) => trouble = Some(error),
            }
        }
        ctx.step("prepared").await;
        let (activated, waiting) = vault.activate_ready(ctx).await?;
        ctx.step("activated").await;
        let mut rewrapped = 0;
        let businesses = store::list_to_rewrap(&mut *ctx.deps.db.acquire().await?).await?;
        for business in businesses {
            match vault.rewrap_keys(ctx, business).await {
                Ok(count) => rewrapped += count,
                Err(error @ (Error::Sealed { .. } | Error::KeysChanging(_))) => trouble = Some(error),
                Err(error) => return Err(error),
            }
        }
        ctx.step("rewrapped").await;
        let walking = vault.begin_reseal(ctx).await?;
        let retired = vault.retire_due(ctx).await?;
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let mut tx = ctx.begin_for_all().await?;
        // A key that was activated now stops sealing elsewhere within the same span: then its walk may begin.
        if waiting || activated > 0 {
            let again = NewJob::of(ctx.business, &Self {})?.run_at(now + SPREAD);
            queue::enqueue(&mut tx, &again).await?;
        }
        let told = json!({ "activated": activated, "rewrapped": rewrapped, "walking": walking, "retired": retired });
        ctx.complete(&mut tx, Some(told)).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Pauses the walk under way, or lets it go on; false when there is none in the other state.
///
/// # Errors
/// The database fails.
pub async fn pause_reseal(db: &mut PgConnection, paused: bool, now: DateTime<Utc>) -> Result<bool, Error> {
    let mut tx = db.begin().await?;
    let changed = walks::set_paused(&mut tx, paused, now).await?.is_some();
    tx.commit().await?;
    Ok(changed)
}
