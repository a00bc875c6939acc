//! Statements on walks through what is sealed, and on what they found that does not open.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, ResealId};
use crate::people::BusinessId;

/// A walk.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) reseal_id: ResealId,
    pub(super) state: String,
    pub(super) keys: Vec<i64>,
    pub(super) pass: i32,
    pub(super) conclusive: bool,
    pub(super) started_at: DateTime<Utc>,
    pub(super) changed_at: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
}

/// The walk that is under way or paused, else the last one.
pub(super) async fn find_run(db: &mut PgConnection) -> Result<Option<Run>, Error> {
    Ok(sqlx::query_as!(
        Run,
        r#"select reseal_id as "reseal_id: ResealId", state, keys, pass, conclusive, started_at, changed_at, ended_at
        from muneem.vault_reseals
        order by ended_at desc nulls first, started_at desc
        limit 1"#
    )
    .fetch_optional(db)
    .await?)
}

/// Begins a walk unless one is under way.
pub(super) async fn insert_run(
    db: &mut PgConnection,
    id: ResealId,
    keys: &[i64],
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "insert into muneem.vault_reseals (reseal_id, state, keys, fence, conclusive, started_at, changed_at)
        select $1, 'running', $2, pg_snapshot_xmax(pg_current_snapshot())::text::bigint, false, $3, $3
        on conflict do nothing",
        id.0,
        keys,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Pauses or resumes the open walk; none when there is none in the other state.
pub(super) async fn set_paused(
    db: &mut PgConnection,
    paused: bool,
    now: DateTime<Utc>,
) -> Result<Option<ResealId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"update muneem.vault_reseals
        set state = case when $1 then 'paused' else 'running' end, changed_at = $2
        where state = case when $1 then 'running' else 'paused' end
        returning reseal_id as "id: ResealId""#,
        paused,
        now,
    )
    .fetch_optional(db)
    .await?)
}

/// Whether the walk still runs in this pass; it then does until the transaction ends.
pub(super) async fn hold_run(db: &mut PgConnection, run: &Run) -> Result<bool, Error> {
    let held = sqlx::query_scalar!(
        "select reseal_id
        from muneem.vault_reseals
        where reseal_id = $1
            and state = 'running'
            and pass = $2
        for share",
        run.reseal_id.0,
        run.pass,
    )
    .fetch_optional(db)
    .await?;
    Ok(held.is_some())
}

/// Begins the next pass; it is conclusive when all transactions that were under way at the walk's start have ended.
pub(super) async fn next_pass(db: &mut PgConnection, run: &Run, now: DateTime<Utc>) -> Result<Option<Run>, Error> {
    let next = sqlx::query_as!(
        Run,
        r#"update muneem.vault_reseals
        set pass = pass + 1, changed_at = $3,
            conclusive = muneem.vault_fence_passed(fence)
        where reseal_id = $1
            and state = 'running'
            and pass = $2
        returning reseal_id as "reseal_id: ResealId", state, keys, pass, conclusive, started_at, changed_at, ended_at"#,
        run.reseal_id.0,
        run.pass,
        now,
    )
    .fetch_optional(&mut *db)
    .await?;
    if next.is_some() {
        sqlx::query!(
            "update muneem.vault_reseal_columns
            set after_key = null, finished = false, visited = 0, found = 0, bad = 0, trouble = null
            where reseal_id = $1",
            run.reseal_id.0,
        )
        .execute(db)
        .await?;
    }
    Ok(next)
}

/// Ends a walk.
pub(super) async fn end_run(
    db: &mut PgConnection,
    run: &Run,
    state: &'static str,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_reseals
        set state = $3, changed_at = $4, ended_at = $4
        where reseal_id = $1
            and state = 'running'
            and pass = $2",
        run.reseal_id.0,
        run.pass,
        state,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// How far a walk is in one column.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ResealColumn {
    /// `schema.table.column`; of a frontend's column with the business's id.
    pub place: String,
    /// Rows when the walk began, as the planner estimates them.
    pub rows_expected: i64,
    #[serde(skip)]
    pub(super) after_key: Option<String>,
    /// Whether this pass is through.
    pub finished: bool,
    /// Rows looked at in this pass.
    pub visited: i64,
    /// Values sealed anew, in all passes.
    pub resealed: i64,
    /// Rows that changed meanwhile and were left for the next pass.
    pub missed: i64,
    /// Values of this pass that were still under a key that is to go.
    pub found: i64,
    /// Of these, what did not open.
    pub bad: i64,
    /// Milliseconds its batches took.
    pub busy_ms: i64,
    /// Why it could not be walked.
    pub trouble: Option<String>,
}

/// All columns of a walk.
pub(super) async fn list_columns(db: &mut PgConnection, id: ResealId) -> Result<Vec<ResealColumn>, Error> {
    Ok(sqlx::query_as!(
        ResealColumn,
        "select place, rows_expected, after_key, finished, visited, resealed, missed, found, bad, busy_ms, trouble
        from muneem.vault_reseal_columns
        where reseal_id = $1
        order by place",
        id.0,
    )
    .fetch_all(db)
    .await?)
}

/// How far the walk is in a column; begins it there.
pub(super) async fn enter_column(
    db: &mut PgConnection,
    id: ResealId,
    place: &str,
    rows_expected: i64,
) -> Result<ResealColumn, Error> {
    sqlx::query!(
        "insert into muneem.vault_reseal_columns (reseal_id, place, rows_expected)
        values ($1, $2, $3)
        on conflict do nothing",
        id.0,
        place,
        rows_expected,
    )
    .execute(&mut *db)
    .await?;
    Ok(sqlx::query_as!(
        ResealColumn,
        "select place, rows_expected, after_key, finished, visited, resealed, missed, found, bad, busy_ms, trouble
        from muneem.vault_reseal_columns
        where reseal_id = $1
            and place = $2",
        id.0,
        place,
    )
    .fetch_one(db)
    .await?)
}

/// What a batch came to.
#[derive(Default)]
pub(super) struct Step {
    /// The last key it looked at; none: there was none left.
    pub(super) after: Option<String>,
    pub(super) visited: i64,
    pub(super) resealed: i64,
    pub(super) missed: i64,
    pub(super) found: i64,
    pub(super) bad: i64,
    pub(super) busy_ms: i64,
    pub(super) trouble: Option<String>,
}

/// Writes down what a batch came to.
pub(super) async fn advance(db: &mut PgConnection, id: ResealId, place: &str, step: &Step) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.vault_reseal_columns
        set after_key = coalesce($3, after_key), finished = $3::text is null, visited = visited + $4,
            resealed = resealed + $5, missed = missed + $6, found = found + $7, bad = bad + $8, busy_ms = busy_ms + $9,
            trouble = coalesce($10, trouble)
        where reseal_id = $1
            and place = $2",
        id.0,
        place,
        step.after,
        step.visited,
        step.resealed,
        step.missed,
        step.found,
        step.bad,
        step.busy_ms,
        step.trouble,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A value that does not open.
pub(super) struct Bad<'a> {
    pub(super) place: &'a str,
    pub(super) row_key: &'a str,
    pub(super) business: Uuid,
    pub(super) key_id: Option<i64>,
    pub(super) why: &'static str,
}

/// Writes down a value that does not open, or that it still does not.
pub(super) async fn quarantine(db: &mut PgConnection, bad: &Bad<'_>, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.vault_quarantine (place, row_key, business_id, key_id, why, found_at, seen_at)
        values ($1, $2, $3, $4, $5, $6, $6)
        on conflict (place, row_key) do update
        set business_id = excluded.business_id, key_id = excluded.key_id, why = excluded.why, seen_at = excluded.seen_at",
        bad.place,
        bad.row_key,
        bad.business,
        bad.key_id,
        bad.why,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets values of these places that a pass since `since` has not met again: they open, or are gone.
pub(super) async fn release_quarantine(
    db: &mut PgConnection,
    places: &[String],
    since: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.vault_quarantine
        where place = any ($1)
            and seen_at < $2",
        places,
        since,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One sealed value that does not open: where it is, and never what.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Quarantined {
    /// `schema.table.column`; of a frontend's column with the business's id.
    pub place: String,
    /// Its primary key.
    pub row_key: String,
    /// Handle of the business; none: the installation's own.
    pub business: Option<String>,
    /// The key it names.
    pub key_id: Option<i64>,
    /// `cut`, `version`, `algorithm`, `key`, `tag`, `shredded`, `form` or `taken`.
    pub why: String,
    /// When it was first found.
    pub found_at: DateTime<Utc>,
}

/// Values that do not open, of one business or of all, oldest first.
pub(super) async fn list_quarantine(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    limit: i64,
) -> Result<Vec<Quarantined>, Error> {
    Ok(sqlx::query_as!(
        Quarantined,
        r#"select q.place, q.row_key, b.handle as "business?", q.key_id, q.why, q.found_at
        from muneem.vault_quarantine q
        left join muneem.people_businesses b on b.business_id = q.business_id
        where $2::uuid is null or q.business_id = $2
        order by q.found_at, q.place, q.row_key
        limit $1"#,
        limit,
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?)
}

/// Values that do not open, of one business or of all: of each key how many, and of none. A value names a key of its
/// own business or none: nobody keeps another's key by writing its number somewhere.
pub(super) async fn count_quarantine(
    db: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<(Option<i64>, i64)>, Error> {
    let rows = sqlx::query!(
        r#"select k.key_id as "key_id?", count(*) as "count!"
        from muneem.vault_quarantine q
        left join muneem.vault_keys k on k.key_id = q.key_id and k.business_id = q.business_id
        where $1::uuid is null or q.business_id = $1
        group by k.key_id"#,
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key_id, row.count)).collect())
}
