//! What a worker asks of the queue: claim, finish, put back, bury, beat. The statements themselves are functions of the
//! schema (`migrations/…_queue_work.sql`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, postgres::types::PgInterval};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Lane, sealed, store::AnyJson};
use crate::{
    id::JobId,
    people::BusinessId,
    vault::{self, Vault},
};

/// A job in a worker's hand.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job.
    pub job: JobId,
    /// Its lane.
    pub lane: Lane,
    /// The business it is for.
    pub business: BusinessId,
    /// Which claim this is, from 1: half of the fencing token.
    pub attempt: i32,
    /// Those of the claims that do not count against the kind's attempts.
    pub uncounted: i32,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When it was claimed, by the database's time.
    pub claimed_at: DateTime<Utc>,
    /// Its kind, perhaps unknown to this program.
    pub kind: String,
    /// Its payload, as it lay in the table.
    pub payload: Lain,
}

/// A payload as it lay in the table, unparsed.
#[derive(Clone)]
pub enum Lain {
    /// References, or what a frontend enqueued by SQL and nobody has sealed yet.
    Clear(Box<serde_json::value::RawValue>),
    /// Sealed for its job.
    Sealed(Vec<u8>),
}

impl std::fmt::Debug for Lain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear(_) => "Clear(…)",
            Self::Sealed(_) => "Sealed(…)",
        })
    }
}

impl Claimed {
    /// The payload's JSON text, opened where it lay sealed.
    ///
    /// # Errors
    /// [`vault::Error::Sealed`] while there is no key, [`vault::Error::Unreadable`] when it is gone for ever.
    pub async fn open(&self, conn: &mut PgConnection, vault: &Vault) -> Result<Zeroizing<String>, vault::Error> {
        match &self.payload {
            Lain::Clear(payload) => Ok(Zeroizing::new(payload.get().to_owned())),
            Lain::Sealed(bytes) => sealed::open(conn, vault, (self.business, self.job), bytes).await,
        }
    }

    /// The payload as it is to lie, where it lies in clear.
    ///
    /// # Errors
    /// [`vault::Error::Sealed`] while there is no key.
    pub async fn seal(&self, conn: &mut PgConnection, vault: &Vault) -> Result<Option<Vec<u8>>, vault::Error> {
        match &self.payload {
            Lain::Clear(payload) => sealed::seal(conn, vault, (self.business, self.job), payload.get()).await.map(Some),
            Lain::Sealed(_) => Ok(None),
        }
    }
}

/// How much of one lane a worker wants, and after which business it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// The lane.
    pub lane: Lane,
    /// At most this many jobs.
    pub jobs: u32,
    /// The business served last, so that the next one is first this time.
    pub after: Uuid,
}

/// One job and attempt that a worker lets go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// The attempt it was claimed with.
    pub attempt: i32,
}

/// What `tick` did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tick {
    /// Timed jobs that went in line.
    pub promoted: i64,
    /// Jobs taken back from dead workers.
    pub reaped: i64,
    /// When the next timed job is due.
    pub next_due: Option<DateTime<Utc>>,
}

/// A job that goes back in line.
#[derive(Clone, Debug)]
pub struct PutBack {
    /// The job and its attempt.
    pub held: Held,
    /// When to try again; none is at once.
    pub run_at: Option<DateTime<Utc>>,
    /// Whether the attempt counts.
    pub counts: bool,
    /// Stable cause.
    pub cause: Option<&'static str>,
    /// The cause in words.
    pub error: Option<String>,
}

/// A job that is given up.
#[derive(Clone, Debug)]
pub struct Buried {
    /// The job and its attempt.
    pub held: Held,
    /// Stable cause.
    pub cause: &'static str,
    /// The cause in words.
    pub error: String,
}

fn interval(span: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(span.as_micros()).unwrap_or(i64::MAX) }
}

/// Takes jobs for `worker`.
///
/// # Errors
/// [`Error::Database`].
pub async fn claim(conn: &mut PgConnection, worker: i64, wants: &[Want]) -> Result<Vec<Claimed>, Error> {
    let lanes: Vec<String> = wants.iter().map(|want| want.lane.as_str().to_owned()).collect();
    let jobs: Vec<i32> = wants.iter().map(|want| i32::try_from(want.jobs).unwrap_or(i32::MAX)).collect();
    let after: Vec<Uuid> = wants.iter().map(|want| want.after).collect();
    let rows = sqlx::query!(
        r#"
        select job_id as "job_id!", lane as "lane!: Lane", business_id as "business_id!", attempt as "attempt!",
            uncounted as "uncounted!", enqueued_at as "enqueued_at!", claimed_at as "claimed_at!", kind as "kind!", payload as "payload: AnyJson", payload_sealed
        from muneem.queue_claim($1, $2::text[]::muneem.queue_lane[], $3, $4)
        "#,
        worker,
        &lanes,
        &jobs,
        &after,
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| {
        let payload = match (row.payload, row.payload_sealed) {
            (_, Some(sealed)) => Lain::Sealed(sealed),
            (Some(clear), None) => Lain::Clear(clear.0),
            // The table's check forbids it.
            (None, None) => return Err(Error::Database(sqlx::Error::ColumnNotFound("payload".to_owned()))),
        };
        Ok(Claimed {
            job: JobId(row.job_id),
            lane: row.lane,
            business: BusinessId(row.business_id),
            attempt: row.attempt,
            uncounted: row.uncounted,
            enqueued_at: row.enqueued_at,
            claimed_at: row.claimed_at,
            kind: row.kind,
            payload,
        })
    });
    claimed.collect()
}

/// Puts sealed payloads in the place of the clear ones of running jobs; answers those that were still this worker's.
///
/// # Errors
/// [`Error::Database`].
pub async fn seal(conn: &mut PgConnection, worker: i64, payloads: &[(Held, Vec<u8>)]) -> Result<Vec<JobId>, Error> {
    let (ids, attempts) = columns(payloads.iter().map(|(held, _)| held));
    let sealed: Vec<&[u8]> = payloads.iter().map(|(_, sealed)| sealed.as_slice()).collect();
    let done = sqlx::query_scalar!(
        r#"select muneem.queue_seal($1, $2, $3, $4) as "job_id!""#,
        worker,
        &ids,
        &attempts,
        &sealed as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;
    Ok(done.into_iter().map(JobId).collect())
}

/// Ends jobs well; answers those that were still this worker's.
///
/// # Errors
/// [`Error::Database`].
pub async fn finish(
    conn: &mut PgConnection,
    worker: i64,
    ended: &[(Held, Option<serde_json::Value>)],
) -> Result<Vec<JobId>, Error> {
    let (ids, attempts) = columns(ended.iter().map(|(held, _)| held));
    let results: Vec<Option<serde_json::Value>> = ended.iter().map(|(_, result)| result.clone()).collect();
    let finished = sqlx::query_scalar!(
        r#"select muneem.queue_finish($1, $2, $3, $4) as "job_id!""#,
        worker,
        &ids,
        &attempts,
        &results as &[Option<serde_json::Value>],
    )
    .fetch_all(conn)
    .await?;
    Ok(finished.into_iter().map(JobId).collect())
}

/// Puts jobs back; answers those that were still this worker's.
///
/// # Errors
/// [`Error::Database`].
pub async fn put_back(conn: &mut PgConnection, worker: i64, back: &[PutBack]) -> Result<Vec<JobId>, Error> {
    let (ids, attempts) = columns(back.iter().map(|one| &one.held));
    let run_ats: Vec<Option<DateTime<Utc>>> = back.iter().map(|one| one.run_at).collect();
    let counts: Vec<bool> = back.iter().map(|one| one.counts).collect();
    let causes: Vec<Option<String>> = back.iter().map(|one| one.cause.map(str::to_owned)).collect();
    let errors: Vec<Option<String>> = back.iter().map(|one| one.error.clone()).collect();
    let done = sqlx::query_scalar!(
        r#"select muneem.queue_put_back($1, $2, $3, $4, $5, $6, $7) as "job_id!""#,
        worker,
        &ids,
        &attempts,
        &run_ats as &[Option<DateTime<Utc>>],
        &counts,
        &causes as &[Option<String>],
        &errors as &[Option<String>],
    )
    .fetch_all(conn)
    .await?;
    Ok(done.into_iter().map(JobId).collect())
}

/// Gives jobs up; answers those that were still this worker's.
///
/// # Errors
/// [`Error::Database`].
pub async fn bury(conn: &mut PgConnection, worker: i64, given_up: &[Buried]) -> Result<Vec<JobId>, Error> {
    let (ids, attempts) = columns(given_up.iter().map(|one| &one.held));
    let causes: Vec<String> = given_up.iter().map(|one| one.cause.to_owned()).collect();
    let errors: Vec<String> = given_up.iter().map(|one| one.error.clone()).collect();
    let done = sqlx::query_scalar!(
        r#"select muneem.queue_bury($1, $2, $3, $4, $5) as "job_id!""#,
        worker,
        &ids,
        &attempts,
        &causes,
        &errors,
    )
    .fetch_all(conn)
    .await?;
    Ok(done.into_iter().map(JobId).collect())
}

/// Ends running jobs as cancelled; answers those that were still this worker's.
///
/// # Errors
/// [`Error::Database`].
pub async fn finish_cancelled(conn: &mut PgConnection, worker: i64, held: &[Held]) -> Result<Vec<JobId>, Error> {
    let (ids, attempts) = columns(held.iter());
    let done = sqlx::query_scalar!(
        r#"select muneem.queue_finish_cancelled($1, $2, $3) as "job_id!""#,
        worker,
        &ids,
        &attempts
    )
    .fetch_all(conn)
    .await?;
    Ok(done.into_iter().map(JobId).collect())
}

fn columns<'a>(held: impl Iterator<Item = &'a Held>) -> (Vec<i64>, Vec<i32>) {
    held.map(|one| (one.job.0, one.attempt)).unzip()
}

/// Registers a worker incarnation that runs at most `places` jobs of a lane at once; its id is half of every fencing
/// token.
///
/// # Errors
/// [`Error::Database`].
pub async fn join(conn: &mut PgConnection, name: &str, lease: Duration, places: usize) -> Result<i64, Error> {
    let places = i32::try_from(places).unwrap_or(i32::MAX);
    Ok(sqlx::query_scalar!(r#"select muneem.queue_join($1, $2, $3) as "id!""#, name, interval(lease), places)
        .fetch_one(conn)
        .await?)
}

/// Renews the lease; false when it was lost.
///
/// # Errors
/// [`Error::Database`].
pub async fn beat(conn: &mut PgConnection, worker: i64, lease: Duration) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.queue_beat($1, $2) as "alive!""#, worker, interval(lease))
        .fetch_one(conn)
        .await?)
}

/// Says for how long, and for which lanes, this worker looks by itself and needs no NOTIFY.
///
/// # Errors
/// [`Error::Database`].
pub async fn stay_awake(conn: &mut PgConnection, worker: i64, span: Duration, lanes: &[Lane]) -> Result<(), Error> {
    let bits = lanes.iter().fold(0_i32, |bits, lane| bits | (1 << *lane as i32));
    sqlx::query!("select muneem.queue_stay_awake($1, $2, $3)", worker, interval(span), bits).execute(conn).await?;
    Ok(())
}

/// The jobs among these that somebody wants cancelled.
///
/// # Errors
/// [`Error::Database`].
pub async fn cancel_requests(conn: &mut PgConnection, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
    let ids: Vec<i64> = jobs.iter().map(|job| job.0).collect();
    let wanted =
        sqlx::query_scalar!(r#"select muneem.queue_cancel_requests($1) as "id!""#, &ids).fetch_all(conn).await?;
    Ok(wanted.into_iter().map(JobId).collect())
}

/// Puts in line what this worker claimed after an instant (none: ever): claims whose answer was lost on the way.
///
/// # Errors
/// [`Error::Database`].
pub async fn release(conn: &mut PgConnection, worker: i64, claimed_after: Option<DateTime<Utc>>) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"select muneem.queue_release($1, coalesce($2::timestamptz, '-infinity')) as "released!""#,
        worker,
        claimed_after
    )
    .fetch_one(conn)
    .await?)
}

/// Leaves; what is still in hand goes in line.
///
/// # Errors
/// [`Error::Database`].
pub async fn leave(conn: &mut PgConnection, worker: i64) -> Result<(), Error> {
    sqlx::query!("select muneem.queue_leave($1)", worker).execute(conn).await?;
    Ok(())
}

/// Puts what is due in line, gives out free slots, takes jobs back from the dead.
///
/// # Errors
/// [`Error::Database`].
pub async fn tick(conn: &mut PgConnection) -> Result<Tick, Error> {
    Ok(sqlx::query_as!(
        Tick,
        r#"select promoted as "promoted!", reaped as "reaped!", next_due from muneem.queue_tick()"#
    )
    .fetch_one(conn)
    .await?)
}

/// Says how far a running job is.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn set_progress(
    conn: &mut PgConnection,
    worker: i64,
    held: Held,
    progress: &serde_json::Value,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select muneem.queue_set_progress($1, $2, $3, $4) as "held!""#,
        held.job.0,
        held.attempt,
        worker,
        progress
    )
    .fetch_one(conn)
    .await?)
}
