//! Endpoints, their secrets, and how they answer.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::{
    people::BusinessId,
    webhooks::{EndpointId, EndpointState, Error, SecretId, manage::Which, rules::Answering},
};

/// A row of `muneem.webhooks_endpoints`.
pub(in crate::webhooks) struct Row {
    pub(in crate::webhooks) endpoint_id: EndpointId,
    pub(in crate::webhooks) business_id: BusinessId,
    pub(in crate::webhooks) origin: String,
    pub(in crate::webhooks) url_sealed: Option<Vec<u8>>,
    pub(in crate::webhooks) description_sealed: Option<Vec<u8>>,
    pub(in crate::webhooks) event_types: Vec<String>,
    pub(in crate::webhooks) state: EndpointState,
    pub(in crate::webhooks) reason: Option<String>,
    pub(in crate::webhooks) created_at: DateTime<Utc>,
    pub(in crate::webhooks) changed_at: DateTime<Utc>,
    pub(in crate::webhooks) failures: i32,
    pub(in crate::webhooks) failing_since: Option<DateTime<Utc>>,
    pub(in crate::webhooks) last_success_at: Option<DateTime<Utc>>,
    pub(in crate::webhooks) last_failure_at: Option<DateTime<Utc>>,
    pub(in crate::webhooks) last_cause: Option<String>,
    pub(in crate::webhooks) wait_until: Option<DateTime<Utc>>,
    pub(in crate::webhooks) next_look_at: Option<DateTime<Utc>>,
}

impl Row {
    pub(in crate::webhooks) fn answering(&self) -> Answering {
        Answering {
            is_paused: self.state == EndpointState::Paused,
            failures: self.failures,
            failing_since: self.failing_since,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            last_cause: self.last_cause.clone(),
            wait_until: self.wait_until,
        }
    }
}

/// An endpoint to be added.
pub(in crate::webhooks) struct NewRow<'a> {
    pub(in crate::webhooks) id: EndpointId,
    pub(in crate::webhooks) business: BusinessId,
    pub(in crate::webhooks) origin: &'a str,
    pub(in crate::webhooks) url_sealed: &'a [u8],
    pub(in crate::webhooks) description_sealed: Option<&'a [u8]>,
    pub(in crate::webhooks) event_types: &'a [String],
}

pub(in crate::webhooks) async fn insert(
    conn: &mut PgConnection,
    new: &NewRow<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.webhooks_endpoints
            (endpoint_id, business_id, origin, url_sealed, description_sealed, event_types, state, created_at, changed_at)
        values ($1, $2, $3, $4, $5, $6, 'enabled', $7, $7)",
        new.id.0,
        new.business.0,
        new.origin,
        new.url_sealed,
        new.description_sealed,
        new.event_types,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many endpoints a business has. Two who add one to it wait for each other until their transactions end.
pub(in crate::webhooks) async fn count_of(conn: &mut PgConnection, business: BusinessId) -> Result<i64, Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('muneem.webhooks ' || $1, 0))", business.0.to_string())
        .execute(&mut *conn)
        .await?;
    Ok(sqlx::query_scalar!(
        r#"select count(*) as "count!" from muneem.webhooks_endpoints where business_id = $1 and state <> 'removed'"#,
        business.0,
    )
    .fetch_one(conn)
    .await?)
}

/// The endpoint, held until the transaction ends; deliveries may be added to it meanwhile.
pub(in crate::webhooks) async fn lock(conn: &mut PgConnection, which: Which) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"select endpoint_id as "endpoint_id: EndpointId", business_id as "business_id: BusinessId", origin, url_sealed,
            description_sealed, event_types, state as "state: EndpointState", reason, created_at, changed_at, failures,
            failing_since, last_success_at, last_failure_at, last_cause, wait_until, next_look_at
        from muneem.webhooks_endpoints
        where endpoint_id = $1 and ($2::uuid is null or business_id = $2) and state <> 'removed'
        for no key update"#,
        which.endpoint.0,
        which.business.map(|business| business.0),
    )
    .fetch_optional(conn)
    .await?)
}

/// Endpoints that are not removed, newest first.
pub(in crate::webhooks) async fn list(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    one: Option<EndpointId>,
    before: Option<EndpointId>,
    limit: u16,
) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"select endpoint_id as "endpoint_id: EndpointId", business_id as "business_id: BusinessId", origin, url_sealed,
            description_sealed, event_types, state as "state: EndpointState", reason, created_at, changed_at, failures,
            failing_since, last_success_at, last_failure_at, last_cause, wait_until, next_look_at
        from muneem.webhooks_endpoints
        where state <> 'removed'
            and ($1::uuid is null or business_id = $1)
            and ($2::uuid is null or endpoint_id = $2)
            and ($3::uuid is null or endpoint_id < $3)
        order by endpoint_id desc
        limit $4"#,
        business.map(|business| business.0),
        one.map(|one| one.0),
        before.map(|before| before.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// How many deliveries wait for an endpoint, counted up to ten thousand.
pub(in crate::webhooks) async fn count_waiting(conn: &mut PgConnection, id: EndpointId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from (
            select 1 as one
            from muneem.webhooks_deliveries
            where endpoint_id = $1 and state = 'pending'
            limit 10000
        ) w"#,
        id.0,
    )
    .fetch_one(conn)
    .await?)
}

/// What somebody may change of an endpoint. Whatever it is, it begins anew as one that is well.
pub(in crate::webhooks) async fn update(conn: &mut PgConnection, row: &Row, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_endpoints
        set origin = $2, url_sealed = $3, description_sealed = $4, event_types = $5, state = $6, reason = $7,
            changed_at = $8, failures = 0, failing_since = null, wait_until = null
        where endpoint_id = $1",
        row.endpoint_id.0,
        row.origin,
        row.url_sealed,
        row.description_sealed,
        &row.event_types,
        row.state as EndpointState,
        row.reason,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How it answers, after a few attempts.
pub(in crate::webhooks) async fn save_answering(
    conn: &mut PgConnection,
    id: EndpointId,
    answering: &Answering,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_endpoints
        set state = case when $2 then 'paused' else 'enabled' end,
            reason = case when $2 then 'failing' end,
            changed_at = case when (state = 'paused') is distinct from $2 then $9 else changed_at end,
            failures = $3, failing_since = $4, last_success_at = $5, last_failure_at = $6, last_cause = $7, wait_until = $8
        where endpoint_id = $1 and state in ('enabled', 'paused')",
        id.0,
        answering.is_paused,
        answering.failures,
        answering.failing_since,
        answering.last_success_at,
        answering.last_failure_at,
        answering.last_cause,
        answering.wait_until,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nothing goes there any more.
pub(in crate::webhooks) async fn disable(
    conn: &mut PgConnection,
    id: EndpointId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_endpoints
        set state = 'disabled', reason = $2, changed_at = $3, wait_until = null
        where endpoint_id = $1 and state in ('enabled', 'paused')",
        id.0,
        reason,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It goes, with its address and its secrets; what waits for it is dropped.
pub(in crate::webhooks) async fn remove(
    conn: &mut PgConnection,
    id: EndpointId,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    sqlx::query!("delete from muneem.webhooks_secrets where endpoint_id = $1", id.0).execute(&mut *conn).await?;
    sqlx::query!(
        "update muneem.webhooks_endpoints
        set state = 'removed', reason = null, url_sealed = null, description_sealed = null, changed_at = $2, failures = 0,
            failing_since = null, wait_until = null, next_look_at = null
        where endpoint_id = $1",
        id.0,
        now,
    )
    .execute(&mut *conn)
    .await?;
    let dropped = sqlx::query!(
        "update muneem.webhooks_deliveries
        set state = 'dropped', claimed_at = null, ended_at = $2
        where endpoint_id = $1 and state in ('pending', 'sending')",
        id.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(dropped.rows_affected())
}

/// An answer may be waited for no longer: somebody wants it tried now.
pub(in crate::webhooks) async fn wake(conn: &mut PgConnection, id: EndpointId) -> Result<(), Error> {
    sqlx::query!("update muneem.webhooks_endpoints set wait_until = null where endpoint_id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// A job looks at it then.
pub(in crate::webhooks) async fn set_next_look(
    conn: &mut PgConnection,
    id: EndpointId,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!("update muneem.webhooks_endpoints set next_look_at = $2 where endpoint_id = $1", id.0, at)
        .execute(conn)
        .await?;
    Ok(())
}

pub(in crate::webhooks) async fn insert_secret(
    conn: &mut PgConnection,
    (business, endpoint, id): (BusinessId, EndpointId, SecretId),
    secret_sealed: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.webhooks_secrets (secret_id, business_id, endpoint_id, secret_sealed, created_at)
        values ($1, $2, $3, $4, $5)",
        id.0,
        business.0,
        endpoint.0,
        secret_sealed,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those that were replaced sign on until `ends_at`, or until they were to end before; what has ended goes.
pub(in crate::webhooks) async fn end_secrets(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    ends_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_secrets
        set ends_at = least(coalesce(ends_at, $2), $2)
        where endpoint_id = $1",
        endpoint.0,
        ends_at,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("delete from muneem.webhooks_secrets where endpoint_id = $1 and ends_at <= $2", endpoint.0, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// A sealed secret in force.
pub(in crate::webhooks) struct SecretRow {
    pub(in crate::webhooks) secret_id: SecretId,
    pub(in crate::webhooks) secret_sealed: Vec<u8>,
}

/// The secrets that sign now, newest first.
pub(in crate::webhooks) async fn list_secrets(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    now: DateTime<Utc>,
) -> Result<Vec<SecretRow>, Error> {
    Ok(sqlx::query_as!(
        SecretRow,
        r#"select secret_id as "secret_id: SecretId", secret_sealed
        from muneem.webhooks_secrets
        where endpoint_id = $1 and (ends_at is null or ends_at > $2)
        order by created_at desc, secret_id desc"#,
        endpoint.0,
        now,
    )
    .fetch_all(conn)
    .await?)
}

/// Until when a secret that was replaced still signs.
pub(in crate::webhooks) async fn rotating_until(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar!(
        "select max(ends_at) from muneem.webhooks_secrets where endpoint_id = $1 and ends_at > $2",
        endpoint.0,
        now,
    )
    .fetch_one(conn)
    .await?)
}

/// Endpoints with something due, or left in a dead worker's hand, that no job is going to look at.
pub(in crate::webhooks) async fn list_forgotten(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    longest_run: TimeDelta,
) -> Result<Vec<(EndpointId, BusinessId)>, Error> {
    let rows = sqlx::query!(
        r#"select e.endpoint_id as "endpoint_id: EndpointId", e.business_id as "business_id: BusinessId"
        from muneem.webhooks_endpoints e
        where e.state in ('enabled', 'paused')
            and (e.wait_until is null or e.wait_until <= $1)
            and (e.next_look_at is null or e.next_look_at < $1 - interval '30 seconds')
            and (
                exists (
                    select from muneem.webhooks_deliveries d
                    where d.endpoint_id = e.endpoint_id and d.state = 'pending' and d.next_at <= $1
                )
                or exists (
                    select from muneem.webhooks_deliveries d
                    where d.endpoint_id = e.endpoint_id and d.state = 'sending' and d.claimed_at < $2
                )
            )
        order by e.endpoint_id
        limit 1000"#,
        now,
        now - longest_run,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.endpoint_id, row.business_id)).collect())
}
