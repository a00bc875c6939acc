//! Every statement of the queue but the worker's own (`work.rs`).

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, postgres::types::PgInterval, types::Json};

use super::{
    Error, Health, JobFilter, JobState, JobView, KeyMemory, Kind, Lane, LaneDepth, NewJob, PayloadState, Slots,
    rule::{field_rules, whole_rule},
    sealed,
};
use crate::{id::JobId, people::BusinessId, vault::Vault};

/// Enqueues in the caller's transaction a job of a kind whose payloads are references.
///
/// # Errors
/// [`Error::Refused`] as `muneem.enqueue` refuses, and where the kind's payloads lie sealed: [`enqueue_sealed`] takes
/// those. The transaction is aborted then.
pub async fn enqueue(conn: &mut PgConnection, job: &NewJob) -> Result<JobId, Error> {
    let id = sqlx::query_scalar!(
        r#"select muneem.queue_enqueue($1, $2, $3, $4, $5, $6, $7) as "id!""#,
        job.kind,
        job.payload,
        job.business.0,
        job.key,
        job.run_at,
        job.lane.map(Lane::as_str),
        job.priority,
    )
    .fetch_one(conn)
    .await?;
    Ok(JobId(id))
}

/// Enqueues in the caller's transaction a job of any kind; where payloads of the kind lie sealed, so does this one from
/// the first.
///
/// # Errors
/// [`Error::Refused`] as `muneem.enqueue` refuses; the transaction is aborted then. [`Error::Vault`].
pub async fn enqueue_sealed(conn: &mut PgConnection, vault: &Vault, job: &NewJob) -> Result<JobId, Error> {
    let whole = Whole {
        kind: &job.kind,
        payload: &job.payload,
        business: job.business,
        key: job.key.as_deref(),
        run_at: job.run_at,
        lane: job.lane.map(Lane::as_str),
        priority: job.priority,
    };
    prepare_and_put(conn, vault, &whole, false).await
}

/// A job with everything that is said of it.
struct Whole<'a> {
    kind: &'a str,
    payload: &'a serde_json::Value,
    business: BusinessId,
    key: Option<&'a str>,
    run_at: Option<DateTime<Utc>>,
    lane: Option<&'a str>,
    priority: Option<i16>,
}

/// Two statements, and the key's work between them: the checks of `muneem.enqueue` on the clear payload, which is
/// written nowhere, then the job as it is to lie.
async fn prepare_and_put(
    conn: &mut PgConnection,
    vault: &Vault,
    job: &Whole<'_>,
    outside: bool,
) -> Result<JobId, Error> {
    let prepared = sqlx::query!(
        r#"select job_id as "job_id!", seals as "seals!", slot_key
        from muneem.queue_prepare($1, $2, $3, $4, $5, $6)"#,
        job.kind,
        job.payload,
        job.business.0,
        outside,
        job.lane,
        job.priority,
    )
    .fetch_one(&mut *conn)
    .await?;
    let id = JobId(prepared.job_id);
    let (clear, sealed) = if prepared.seals {
        (None, Some(sealed::seal(&mut *conn, vault, (job.business, id), &job.payload.to_string()).await?))
    } else {
        (Some(job.payload), None)
    };
    let id = sqlx::query_scalar!(
        r#"select muneem.queue_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) as "id!""#,
        id.0,
        job.kind,
        clear,
        sealed,
        prepared.slot_key,
        job.business.0,
        job.key,
        job.run_at,
        job.lane,
        job.priority,
    )
    .fetch_one(conn)
    .await?;
    Ok(JobId(id))
}

/// An enqueue as it comes from outside: the business by its handle, the payload unparsed.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// The kind, unchecked.
    pub kind: &'a str,
    /// The payload, unchecked.
    pub payload: &'a serde_json::Value,
    /// The business's handle; none is the only business there is.
    pub business: Option<&'a str>,
    /// The unique key.
    pub key: Option<&'a str>,
    /// Not before this instant.
    pub run_at: Option<DateTime<Utc>>,
    /// Another lane than the kind's own, unchecked.
    pub lane: Option<&'a str>,
    /// A minute's head start for each point.
    pub priority: Option<i16>,
}

/// Enqueues as any frontend does: only kinds that are open to them. Where payloads of the kind lie sealed, so does this
/// one from the first.
///
/// # Errors
/// [`Error::Refused`] as `muneem.enqueue` refuses; the transaction is aborted then. [`Error::Vault`].
pub async fn enqueue_for(conn: &mut PgConnection, vault: &Vault, job: &Named<'_>) -> Result<JobId, Error> {
    enqueue_named(conn, vault, job, true).await
}

/// The same for muneem itself and its operator: also the kinds that are not open to frontends.
///
/// # Errors
/// As [`enqueue_for`].
pub async fn enqueue_own(conn: &mut PgConnection, vault: &Vault, job: &Named<'_>) -> Result<JobId, Error> {
    enqueue_named(conn, vault, job, false).await
}

async fn enqueue_named(conn: &mut PgConnection, vault: &Vault, job: &Named<'_>, outside: bool) -> Result<JobId, Error> {
    let business = sqlx::query_scalar!(r#"select muneem.people_resolve_business($1) as "business!""#, job.business)
        .fetch_one(&mut *conn)
        .await?;
    let Named { kind, payload, key, run_at, lane, priority, .. } = *job;
    let whole = Whole { kind, payload, business: BusinessId(business), key, run_at, lane, priority };
    prepare_and_put(conn, vault, &whole, outside).await
}

/// Enqueues a job of a schedule: its payload is a constant of a program, and its kind one without room for a person.
///
/// # Errors
/// [`Error::Refused`] as `muneem.enqueue` refuses, and where the kind's payloads lie sealed.
pub async fn enqueue_scheduled(conn: &mut PgConnection, job: &Named<'_>) -> Result<JobId, Error> {
    let id = sqlx::query_scalar!(
        r#"select muneem.queue_enqueue($1, $2, muneem.people_resolve_business($3), $4, $5, $6, $7) as "id!""#,
        job.kind,
        job.payload,
        job.business,
        job.key,
        job.run_at,
        job.lane,
        job.priority,
    )
    .fetch_one(conn)
    .await?;
    Ok(JobId(id))
}

/// Writes the declared kinds and what enqueue checks of them. Kinds that this program does not know are left: an older
/// or newer program beside it may.
///
/// # Errors
/// [`Error::Database`].
pub async fn sync_kinds(conn: &mut PgConnection, kinds: &[Kind]) -> Result<(), Error> {
    for kind in kinds {
        let schema = kind.schema();
        let rules = field_rules(&schema);
        let whole = whole_rule(&rules);
        let (limit, scope, field) = match kind.settings.slots {
            Slots::Unlimited => (None, None, None),
            Slots::OfKind(limit) => (Some(limit), Some("kind"), None),
            Slots::OfBusiness(limit) => (Some(limit), Some("business"), None),
            Slots::SerialBy(field) => (Some(1), Some("field"), Some(field)),
        };
        let key_memory = match kind.settings.key_memory {
            KeyMemory::Days30 => Some(days(30)),
            KeyMemory::Forever => None,
        };
        sqlx::query_file!(
            "src/queue/sql/sync_kind.sql",
            kind.name,
            kind.lane.as_str(),
            schema,
            whole,
            i16::try_from(kind.settings.max_attempts).unwrap_or(i16::MAX),
            key_memory,
            limit.map(|limit| i16::try_from(limit).unwrap_or(i16::MAX)),
            scope,
            field,
            &rules.iter().map(|rule| rule.path.clone()).collect::<Vec<_>>(),
            &rules.iter().map(|rule| rule.demand.clone()).collect::<Vec<_>>(),
            &rules.iter().map(|rule| rule.predicate.clone()).collect::<Vec<_>>(),
            kind.settings.open,
            kind.seals,
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// A kind as `muneem.queue_kinds` lists it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KindView {
    /// `<word>.<verb_object>`.
    pub kind: String,
    /// The lane that an enqueue without one takes.
    pub lane: Lane,
    /// JSON Schema of the payload.
    pub schema: serde_json::Value,
    /// Attempts before the dead letters.
    pub max_attempts: i16,
    /// Whether frontends may enqueue it.
    pub open: bool,
    /// Whether its payloads may be personal, and so lie sealed.
    pub sealed: bool,
}

/// All kinds, by name.
///
/// # Errors
/// [`Error::Database`].
pub async fn list_kinds(conn: &mut PgConnection) -> Result<Vec<KindView>, Error> {
    Ok(sqlx::query_as!(
        KindView,
        r#"
        select kind, lane as "lane: Lane", schema, max_attempts, open, seals as sealed
        from muneem.queue_kinds
        order by kind
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// One page of jobs, newest first.
///
/// # Errors
/// [`Error::Database`].
pub async fn list_jobs(conn: &mut PgConnection, filter: &JobFilter, limit: u16) -> Result<Vec<JobView>, Error> {
    let rows = sqlx::query_file_as!(
        JobRow,
        "src/queue/sql/list_jobs.sql",
        filter.before.map(|id| id.0),
        filter.business.map(|id| id.0),
        filter.kind,
        filter.lane.map(Lane::as_str),
        filter.state.map(JobState::as_str),
        filter.cause,
        i64::from(limit),
        None::<i64>,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(JobRow::into_view).collect()
}

/// One job, wherever it is in its life.
///
/// # Errors
/// [`Error::Database`].
pub async fn find_job(conn: &mut PgConnection, id: JobId) -> Result<Option<JobView>, Error> {
    let row = sqlx::query_file_as!(
        JobRow,
        "src/queue/sql/list_jobs.sql",
        None::<i64>,
        None::<uuid::Uuid>,
        None::<String>,
        None::<String>,
        None::<String>,
        None::<String>,
        1_i64,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(JobRow::into_view).transpose()
}

struct JobRow {
    job_id: Option<i64>,
    business_id: Option<uuid::Uuid>,
    kind: Option<String>,
    lane: Option<String>,
    state: Option<String>,
    key: Option<String>,
    attempt: Option<i32>,
    enqueued_at: Option<DateTime<Utc>>,
    run_at: Option<DateTime<Utc>>,
    claimed_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    cause: Option<String>,
    error: Option<String>,
    progress: Option<serde_json::Value>,
    result: Option<serde_json::Value>,
    sealed: Option<bool>,
}

impl JobRow {
    fn into_view(self) -> Result<JobView, Error> {
        fn missing(column: &str) -> Error {
            Error::Database(sqlx::Error::ColumnNotFound(column.to_owned()))
        }
        Ok(JobView {
            id: JobId(self.job_id.ok_or_else(|| missing("job_id"))?),
            business: BusinessId(self.business_id.ok_or_else(|| missing("business_id"))?),
            kind: self.kind.ok_or_else(|| missing("kind"))?,
            lane: self.lane.and_then(|lane| lane.parse().ok()).ok_or_else(|| missing("lane"))?,
            state: self.state.and_then(|state| state.parse().ok()).ok_or_else(|| missing("state"))?,
            key: self.key,
            attempt: self.attempt.unwrap_or(0),
            enqueued_at: self.enqueued_at.ok_or_else(|| missing("enqueued_at"))?,
            run_at: self.run_at,
            claimed_at: self.claimed_at,
            finished_at: self.finished_at,
            cause: self.cause,
            error: self.error,
            progress: self.progress,
            result: self.result,
            payload: self.sealed.map(|sealed| if sealed { PayloadState::Sealed } else { PayloadState::Clear }),
        })
    }
}

/// Takes a job out of the queue, or asks its worker to stop. False when it has ended.
pub(super) async fn cancel(conn: &mut PgConnection, id: JobId) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.cancel_job($1) as "cancelled!""#, id.0).fetch_one(conn).await?)
}

/// A job that was given up.
pub(super) struct Dead {
    pub(super) job: JobId,
    pub(super) business: BusinessId,
    pub(super) kind: String,
    pub(super) cause: String,
}

/// Holds up to `limit` dead jobs that match, oldest first; those in somebody else's hand are left out.
pub(super) async fn lock_dead(
    conn: &mut PgConnection,
    filter: &JobFilter,
    id: Option<JobId>,
    limit: u16,
) -> Result<Vec<Dead>, Error> {
    Ok(sqlx::query_as!(
        Dead,
        r#"
        select d.job_id as "job: JobId", d.business_id as "business: BusinessId", d.kind, d.cause
        from muneem.queue_dead d
        where ($1::uuid is null or d.business_id = $1)
            and ($2::text is null or d.kind = $2)
            and ($3::text is null or d.cause = $3)
            and ($4::text is null or d.lane::text = $4)
            and ($6::bigint is null or d.job_id = $6)
        order by d.job_id
        limit $5
        for update skip locked
        "#,
        filter.business.map(|id| id.0),
        filter.kind,
        filter.cause,
        filter.lane.map(Lane::as_str),
        i64::from(limit),
        id.map(|id| id.0),
    )
    .fetch_all(conn)
    .await?)
}

/// Puts dead jobs back in line, their attempts forgotten; answers how many.
pub(super) async fn revive(conn: &mut PgConnection, jobs: &[JobId]) -> Result<u64, Error> {
    let ids: Vec<i64> = jobs.iter().map(|job| job.0).collect();
    let revived = sqlx::query_scalar!(r#"select muneem.queue_revive($1) as "revived!""#, &ids).fetch_one(conn).await?;
    Ok(u64::try_from(revived).unwrap_or(0))
}

/// How full each lane is, most urgent first. Counts what waits, so it costs a scan of the live table: for people and
/// for a metric once a minute, never for workers.
///
/// # Errors
/// [`Error::Database`].
pub async fn stats(conn: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<LaneDepth>, Error> {
    Ok(sqlx::query_file_as!(LaneDepth, "src/queue/sql/stats.sql", business.map(|id| id.0)).fetch_all(conn).await?)
}

/// Whether anybody works, and what was given up.
///
/// # Errors
/// [`Error::Database`].
pub async fn health(conn: &mut PgConnection) -> Result<Health, Error> {
    Ok(sqlx::query_as!(
        Health,
        r#"
        select
            (select count(*) from muneem.queue_workers where lease_until >= clock_timestamp()) as "beating!",
            (select count(*) from muneem.queue_workers where lease_until < clock_timestamp()) as "silent!",
            (select count(*) from muneem.queue_dead) as "dead!"
        "#
    )
    .fetch_one(conn)
    .await?)
}

/// Makes the days of the history that are to come; answers how many.
pub(super) async fn make_history_days(conn: &mut PgConnection, keep_days: u16) -> Result<i32, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.queue_rotate_history($1) as "made!""#, days(keep_days))
        .fetch_one(conn)
        .await?)
}

/// The days of the history that are over, oldest first.
pub(super) async fn list_history_over(conn: &mut PgConnection, keep_days: u16) -> Result<Vec<NaiveDate>, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.queue_history_over($1) as "day!""#, days(keep_days))
        .fetch_all(conn)
        .await?)
}

/// Drops one day of the history; false when somebody else did, or it is not over.
pub(super) async fn drop_history(conn: &mut PgConnection, day: NaiveDate, keep_days: u16) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.queue_drop_history($1, $2) as "dropped!""#, day, days(keep_days))
        .fetch_one(conn)
        .await?)
}

fn days(count: u16) -> PgInterval {
    PgInterval { months: 0, days: i32::from(count), microseconds: 0 }
}

/// Deletes up to `limit` keys whose time is over; answers how many went.
pub(super) async fn forget_keys(conn: &mut PgConnection, limit: i64) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "delete from muneem.queue_keys k
        using (
            select o.business_id, o.kind, o.key
            from muneem.queue_keys o
            where o.forget_at <= muneem.now()
                and not exists (select from muneem.queue_jobs j where j.job_id = o.job_id)
                and not exists (select from muneem.queue_dead d where d.job_id = o.job_id)
            order by o.forget_at
            limit $1
            for update skip locked
        ) old
        where k.business_id = old.business_id and k.kind = old.kind and k.key = old.key",
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// A payload that lies in clear and is to be sealed.
pub(super) struct ToSeal {
    pub(super) job: JobId,
    pub(super) business: BusinessId,
    /// Claims of the job so far; none of a dead letter, which nobody claims.
    pub(super) attempt: Option<i32>,
    pub(super) payload: Box<serde_json::value::RawValue>,
}

/// Payloads to be sealed of jobs that nobody runs, by id after `after`.
pub(super) async fn list_to_seal(conn: &mut PgConnection, after: JobId, limit: i64) -> Result<Vec<ToSeal>, Error> {
    let rows = sqlx::query!(
        r#"
        (select job_id as "job_id!", business_id as "business_id!", attempt, payload as "payload!: AnyJson"
        from muneem.queue_jobs
        where to_seal and claimed_by is null and job_id > $1
        order by job_id
        limit $2)
        union all
        (select job_id, business_id, null, payload
        from muneem.queue_dead
        where to_seal and job_id > $1
        order by job_id
        limit $2)
        order by 1
        limit $2
        "#,
        after.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let to_seal = rows.into_iter().map(|row| ToSeal {
        job: JobId(row.job_id),
        business: BusinessId(row.business_id),
        attempt: row.attempt,
        payload: row.payload.0,
    });
    Ok(to_seal.collect())
}

/// Puts sealed payloads in the place of those that were listed; answers of how many. A job that was claimed meanwhile is
/// left: its worker seals it, and its handler may have replaced it.
pub(super) async fn seal_waiting(conn: &mut PgConnection, sealed: &[(&ToSeal, Vec<u8>)]) -> Result<i64, Error> {
    let ids: Vec<i64> = sealed.iter().map(|(one, _)| one.job.0).collect();
    let attempts: Vec<Option<i32>> = sealed.iter().map(|(one, _)| one.attempt).collect();
    let bytes: Vec<&[u8]> = sealed.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    Ok(sqlx::query_scalar!(
        r#"
        with sealed as (
            select * from unnest($1::bigint[], $2::integer[], $3::bytea[]) s (job_id, attempt, payload_sealed)
        ),
        waiting as (
            update muneem.queue_jobs j
            set payload = null, payload_sealed = s.payload_sealed, to_seal = false
            from sealed s
            where j.job_id = s.job_id and j.attempt = s.attempt and j.to_seal and j.claimed_by is null
            returning j.job_id
        ),
        dead as (
            update muneem.queue_dead d
            set payload = null, payload_sealed = s.payload_sealed, to_seal = false
            from sealed s
            where d.job_id = s.job_id and s.attempt is null and d.to_seal
            returning d.job_id
        )
        select (select count(*) from waiting) + (select count(*) from dead) as "sealed!"
        "#,
        &ids,
        &attempts as &[Option<i32>],
        &bytes as &[&[u8]],
    )
    .fetch_one(conn)
    .await?)
}

/// Keeps a JSON value typed in `query!` calls.
pub(super) type AnyJson = Json<Box<serde_json::value::RawValue>>;
