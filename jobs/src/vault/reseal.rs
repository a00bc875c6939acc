//! Sealing anew what keys on their way out have sealed, beside whoever reads and writes.

use std::time::{Duration, Instant};

use chrono::{SubsecRound, TimeDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Cell, Error, IndexColumn, RotateKeys, Unreadable, Vault,
    cipher::key_of,
    host,
    reseal_store::{self as store, Bad, ResealColumn, Run, Step},
    rotation_store::{Use, clear, list_uses},
    walk::{Canonical, Changes, Found, From, Place, Wanted, Work},
};
use crate::{
    people::BusinessId,
    queue::{self, Done, Job, JobContext, JobFilter, JobState, Lane, NewJob, Settings, Slots},
};

crate::id_type! {
    /// One walk through everything sealed.
    ResealId
}

/// Rows of the first batch in a column.
const FIRST_BATCH: i64 = 500;
const LEAST_BATCH: i64 = 20;
const MOST_BATCH: i64 = 4000;
/// A batch that read more is followed by a smaller one.
const BATCH_BYTES: usize = 8 << 20;
/// After a batch it rests for this share of the time that it took, so that it has at most four fifths of a connection.
const REST: u32 = 4;
/// Between two passes, when somebody else changed rows under it or a transaction older than the walk is still open.
const BETWEEN_PASSES: TimeDelta = TimeDelta::seconds(5);

/// Walks every sealed column of ours and every one registered by frontends, and seals anew what the walk's keys have
/// sealed; blind indexes likewise. Each batch is one transaction with its place in the table, so that a killed walk goes
/// on where it was. A row is written only if it still is what was read; others are found again in the next pass. The
/// walk ends when a pass that began after all older transactions finds nothing but what does not open.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reseal {}

impl Job for Reseal {
    const KIND: &'static str = "vault.reseal";
    const LANE: Lane = Lane::Maintenance;
    const SETTINGS: Settings = Settings {
        max_attempts: 20,
        timeout: Duration::from_secs(6 * 3600),
        backoff_max: Duration::from_secs(300),
        slots: Slots::OfKind(1),
        ..Settings::DEFAULT
    };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let run = store::find_run(&mut *ctx.deps.db.acquire().await?).await?;
        let Some(mut run) = run.filter(|run| run.state == "running") else { return Ok(Done::OK) };
        let mut walk = Walk::new(ctx, &run).await?;
        loop {
            for at in 0..walk.places.len() {
                if !walk.column(&run, at).await? {
                    return Ok(Done::OK);
                }
            }
            ctx.step("passed").await;
            match walk.end_pass(&run).await? {
                Some(next) => run = next,
                None => return Ok(Done::Acked),
            }
        }
    }
}

struct Walk<'a> {
    ctx: &'a JobContext,
    places: Vec<Place>,
    uses: Vec<Use>,
    keys: Vec<Vec<u8>>,
    told_at: Instant,
}

/// What was done to the rows of a batch.
#[derive(Default)]
struct Anew {
    changes: Changes,
    /// Row, business, key it names, why.
    bad: Vec<(String, Uuid, Option<i64>, &'static str)>,
    bytes: usize,
}

impl<'a> Walk<'a> {
    async fn new(ctx: &'a JobContext, run: &Run) -> Result<Self, Error> {
        let mut db = ctx.deps.db.acquire().await?;
        let uses = list_uses(&mut db, &run.keys).await?;
        let places = places(&mut db).await?;
        let keys = uses
            .iter()
            .filter(|key| key.class != "index")
            .filter_map(|key| Some(u32::try_from(key.key_id).ok()?.to_be_bytes().to_vec()))
            .collect();
        Ok(Self { ctx, places, uses, keys, told_at: Instant::now() })
    }

    /// Index keys that are to go from a column: whose, and which version.
    fn versions(&self, place: &Place) -> (Vec<Uuid>, Vec<i32>) {
        let Some(purpose) = place.purpose() else { return (Vec::new(), Vec::new()) };
        self.uses
            .iter()
            .filter(|key| key.class == "index" && key.purpose == purpose)
            .map(|key| (key.business.0, i32::from(key.version)))
            .unzip()
    }

    /// Walks a column to its end; false when the walk was paused or ended meanwhile.
    async fn column(&mut self, run: &Run, at: usize) -> Result<bool, Error> {
        let ctx = self.ctx;
        let place = &self.places[at];
        let (businesses, versions) = self.versions(place);
        let idle = match place.work {
            Work::Reseal { .. } => self.keys.is_empty(),
            Work::Reindex { .. } => versions.is_empty(),
            Work::Count { .. } => true,
        };
        if idle {
            return Ok(true);
        }
        let mut standing = {
            let mut db = ctx.deps.db.acquire().await?;
            let expected = match ctx.deps.vault.reach(place.host).await {
                Ok(mut there) => place.estimate(&mut there).await.unwrap_or_default(),
                Err(_) => 0,
            };
            store::enter_column(&mut db, run.reseal_id, &place.name, expected).await?
        };
        let mut limit = FIRST_BATCH;
        while !standing.finished {
            if ctx.cancelled.is_cancelled() {
                return Err(Error::Interrupted { until: ctx.now() });
            }
            let started = Instant::now();
            let wanted = Wanted { keys: &self.keys, businesses: &businesses, versions: &versions };
            let (mut step, anew) = match self.look(place, &standing, limit, wanted).await {
                Ok(looked) => looked,
                // The frontend's table may be gone or closed to us; ours is not, and the job tries again.
                Err(Error::Database(error)) if place.host => {
                    let trouble = format!("it could not be read: {}", host::in_words(&error));
                    (Step { trouble: Some(trouble), ..Step::default() }, Anew::default())
                }
                Err(error) => return Err(error),
            };
            ctx.step("sealed").await;
            if !self.write(run, place, (&mut step, &anew), started).await? {
                return Ok(false);
            }
            standing.finished = step.after.is_none();
            standing.visited += step.visited;
            standing.after_key = step.after;
            limit = if anew.bytes > BATCH_BYTES { limit / 2 } else { limit * 2 }.clamp(LEAST_BATCH, MOST_BATCH);
            if self.told_at.elapsed() > Duration::from_secs(1) {
                self.told_at = Instant::now();
                let (done, all) = (unsigned(standing.visited), unsigned(standing.rows_expected.max(standing.visited)));
                ctx.progress(done, all, &place.name).await?;
            }
            ctx.step("written").await;
            tokio::time::sleep(started.elapsed() / REST).await;
        }
        Ok(true)
    }

    /// Reads the next batch and makes its values anew.
    async fn look(
        &self,
        place: &Place,
        standing: &ResealColumn,
        limit: i64,
        wanted: Wanted<'_>,
    ) -> Result<(Step, Anew), Error> {
        let after = standing.after_key.as_deref();
        let mut there = self.ctx.deps.vault.reach(place.host).await?;
        let Some((last, visited)) = place.bound(&mut there, after, limit).await? else {
            return Ok((Step::default(), Anew::default()));
        };
        let found = place.page(&mut there, (after, &last), wanted).await?;
        drop(there);
        let mut db = self.ctx.deps.db.acquire().await?;
        let step = Step { after: Some(last), visited, found: count(found.len()), ..Step::default() };
        let anew = anew(&mut db, &self.ctx.deps.vault, place, found).await?;
        Ok((Step { bad: count(anew.bad.len()), ..step }, anew))
    }

    /// Writes a batch and where the walk is; false when it is not to go on.
    async fn write(
        &self,
        run: &Run,
        place: &Place,
        (step, anew): (&mut Step, &Anew),
        started: Instant,
    ) -> Result<bool, Error> {
        let ctx = self.ctx;
        let vault = &ctx.deps.vault;
        let mut tx = ctx.begin_for_all().await?;
        if !store::hold_run(&mut tx, run).await? {
            return Ok(false);
        }
        let mut taken = Vec::new();
        if !anew.changes.keys.is_empty() {
            let written = if place.host {
                // Another database perhaps: what is written there and not noted here is found done.
                let mut there = vault.reach(true).await?;
                change(place, &mut there, &anew.changes).await
            } else {
                change(place, &mut tx, &anew.changes).await
            };
            match written {
                Ok((written, refused)) => {
                    step.resealed = written;
                    taken = refused;
                    step.bad += count(taken.len());
                    step.missed = count(anew.changes.keys.len()) - written - count(taken.len());
                }
                Err(error) if place.host => {
                    step.trouble = Some(format!("it could not be written: {}", host::in_words(&error)));
                    step.after = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let now = ctx.now().trunc_subsecs(6);
        for (row, business, key_id, why) in &anew.bad {
            let bad = Bad { place: &place.name, row_key: row, business: *business, key_id: *key_id, why };
            store::quarantine(&mut tx, &bad, now).await?;
        }
        for at in taken {
            let business = place.business.unwrap_or_default();
            let row_key = &anew.changes.keys[at];
            let bad = Bad { place: &place.name, row_key, business, key_id: None, why: "taken" };
            store::quarantine(&mut tx, &bad, now).await?;
        }
        step.busy_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        store::advance(&mut tx, run.reseal_id, &place.name, step).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The next pass, or none when the walk has ended.
    async fn end_pass(&self, run: &Run) -> Result<Option<Run>, Error> {
        let ctx = self.ctx;
        let now = ctx.now().trunc_subsecs(6);
        let mut db = ctx.deps.db.acquire().await?;
        let columns = store::list_columns(&mut db, run.reseal_id).await?;
        let clean = columns.iter().all(|column| column.found == column.bad);
        if !(clean && run.conclusive) {
            drop(db);
            let mut tx = ctx.begin_for_all().await?;
            let next = store::next_pass(&mut tx, run, now).await?;
            tx.commit().await?;
            return match next {
                // Nothing was left to do, and yet a transaction is open that began before the walk.
                Some(next) if clean && !next.conclusive => Err(Error::Interrupted { until: now + BETWEEN_PASSES }),
                Some(next) => Ok(Some(next)),
                None => Err(Error::Interrupted { until: now + BETWEEN_PASSES }),
            };
        }
        let mut kept = Vec::new();
        for key in self.uses.iter().filter(|key| key.class == "index") {
            if ctx.deps.vault.count_references(&mut db, key).await? != Some(0) {
                kept.push(key.key_id);
            }
        }
        drop(db);
        let mut tx = ctx.begin_for_all().await?;
        let walked: Vec<String> = columns.iter().filter(|c| c.trouble.is_none()).map(|c| c.place.clone()).collect();
        store::release_quarantine(&mut tx, &walked, run.changed_at).await?;
        let quarantined = store::count_quarantine(&mut tx, None).await?;
        let troubled: Vec<Option<Uuid>> = self
            .places
            .iter()
            .filter(|place| columns.iter().any(|c| c.place == place.name && c.trouble.is_some()))
            .map(|place| place.business)
            .collect();
        let mut complete = troubled.is_empty() && columns.iter().all(|column| column.bad == 0);
        for key in &self.uses {
            let stays = kept.contains(&key.key_id)
                || quarantined.iter().any(|(bad, _)| *bad == Some(key.key_id))
                || troubled.contains(&Some(key.business.0));
            if stays {
                complete = false;
            } else if !clear(&mut tx, key.key_id, now).await? {
                tracing::warn!(
                    vault.key_id = key.key_id,
                    "values may stand under a key in a column that nobody registered"
                );
            }
        }
        if !store::end_run(&mut tx, run, if complete { "done" } else { "incomplete" }, now).await? {
            return Err(Error::Interrupted { until: now });
        }
        // Keys that stopped sealing meanwhile have a walk of their own.
        queue::enqueue(&mut tx, &NewJob::of(ctx.business, &RotateKeys {})?).await?;
        let resealed: i64 = columns.iter().map(|column| column.resealed).sum();
        let told = json!({ "resealed": resealed, "passes": run.pass, "complete": complete });
        ctx.complete(&mut tx, Some(told)).await?;
        tx.commit().await?;
        tracing::info!(vault.resealed = resealed, vault.passes = run.pass, vault.complete = complete, "sealed anew");
        Ok(None)
    }
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn unsigned(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

/// Everything there is to walk.
async fn places(db: &mut PgConnection) -> Result<Vec<Place>, Error> {
    let sealed = crate::sealed_columns();
    let mut places: Vec<Place> = sealed.iter().map(Place::of_sealed).collect();
    places.extend(crate::indexed_columns().iter().map(|indexed| Place::of_indexed(indexed, &sealed)));
    for host in host::list(db, None).await? {
        places.extend(Place::of_host(&host));
    }
    Ok(places)
}

/// Makes the values of a batch anew.
async fn anew(db: &mut PgConnection, vault: &Vault, place: &Place, found: Vec<Found>) -> Result<Anew, Error> {
    let mut anew = Anew::default();
    for row in found {
        anew.bytes += row.sealed.as_ref().map_or(0, Vec::len);
        let key_id = row.sealed.as_deref().and_then(key_of).map(i64::from);
        let (outcome, old) = match (&place.work, row.sealed) {
            (Work::Reseal { cell_table, cell_column, .. }, Some(sealed)) => {
                let business_id = BusinessId(row.business);
                let cell = Cell { business_id, table: cell_table, column: cell_column, row: &row.key };
                (vault.reseal(db, &cell, &sealed).await, sealed)
            }
            (Work::Reindex { purpose, from, .. }, Some(sealed)) => {
                let Some((owner, mark)) = row.mark else { continue };
                let of = (BusinessId(row.business), row.key.as_str());
                (index(db, vault, from, of, (&sealed, purpose, BusinessId(owner))).await, mark)
            }
            _ => {
                anew.bad.push((row.key, row.business, key_id, "form"));
                continue;
            }
        };
        match outcome {
            Ok(new) => {
                anew.changes.keys.push(row.key);
                anew.changes.old.push(old);
                anew.changes.new.push(new);
            }
            Err(Error::Unreadable { why, .. }) => anew.bad.push((row.key, row.business, key_id, why.as_str())),
            Err(error) => return Err(error),
        }
    }
    Ok(anew)
}

/// The blind index of what is sealed, under the key that is written now.
async fn index(
    db: &mut PgConnection,
    vault: &Vault,
    from: &From,
    (business_id, row): (BusinessId, &str),
    (sealed, purpose, owner): (&[u8], &str, BusinessId),
) -> Result<Vec<u8>, Error> {
    let cell = Cell { business_id, table: &from.cell_table, column: &from.cell_column, row };
    let plain = vault.open(db, &cell, sealed).await?;
    let canonical = match from.value {
        Canonical::Function(value) => value(&plain),
        Canonical::Form(form) => form.canonical_bytes(&plain),
    };
    let canonical = canonical.ok_or_else(|| super::unreadable(&cell, Unreadable::Form))?;
    let Some((table, column)) = purpose.rsplit_once('.') else {
        return Err(super::unreadable(&cell, Unreadable::Form));
    };
    let column = IndexColumn { business_id: owner, table, column };
    Ok(vault.index(db, &column, &canonical).await?.to_bytes())
}

/// Writes a batch; where equal values would meet under a unique index, row by row, and answers which could not be.
async fn change(place: &Place, db: &mut PgConnection, changes: &Changes) -> sqlx::Result<(i64, Vec<usize>)> {
    use sqlx::Acquire;
    let mut savepoint = db.begin().await?;
    match place.change(&mut savepoint, changes).await {
        Ok(written) => {
            savepoint.commit().await?;
            return Ok((i64::try_from(written).unwrap_or(i64::MAX), Vec::new()));
        }
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => savepoint.rollback().await?,
        Err(error) => return Err(error),
    }
    let (mut written, mut taken) = (0, Vec::new());
    for at in 0..changes.keys.len() {
        let one = Changes {
            keys: vec![changes.keys[at].clone()],
            old: vec![changes.old[at].clone()],
            new: vec![changes.new[at].clone()],
        };
        let mut savepoint = db.begin().await?;
        match place.change(&mut savepoint, &one).await {
            Ok(rows) => {
                savepoint.commit().await?;
                written += i64::try_from(rows).unwrap_or(i64::MAX);
            }
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                savepoint.rollback().await?;
                taken.push(at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((written, taken))
}

/// Whether a job is there to do the walk.
pub(super) async fn has_job(db: &mut PgConnection) -> Result<bool, Error> {
    for state in [JobState::Running, JobState::Ready, JobState::Retrying, JobState::Scheduled] {
        let filter = JobFilter { kind: Some(Reseal::KIND.to_owned()), state: Some(state), ..JobFilter::default() };
        if !queue::list_jobs(db, &filter, 1).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Vault {
    /// Values that a key sealed or indexed, wherever they are; none when a frontend's table could not be asked.
    pub(super) async fn count_references(&self, db: &mut PgConnection, key: &Use) -> Result<Option<i64>, Error> {
        let mut left = 0;
        for place in places(db).await? {
            let concerned = match place.purpose() {
                None => key.class != "index",
                Some(purpose) => key.class == "index" && purpose == key.purpose,
            };
            if !concerned || place.business.is_some_and(|business| business != key.business.0) {
                continue;
            }
            let number = if key.class == "index" {
                key.version.to_be_bytes().to_vec()
            } else {
                u32::try_from(key.key_id).unwrap_or_default().to_be_bytes().to_vec()
            };
            let counted = match self.reach(place.host).await {
                Ok(mut there) => place.count(&mut there, key.business.0, &number).await.map_err(Error::from),
                Err(error) => Err(error),
            };
            match counted {
                Ok(count) => left += count,
                Err(Error::Database(error)) if place.host => {
                    let column = &place.name;
                    tracing::warn!(
                        vault.column = column,
                        "it could not be asked for a key: {}",
                        host::in_words(&error)
                    );
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(left))
    }
}
