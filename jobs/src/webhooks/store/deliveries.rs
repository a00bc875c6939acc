//! Deliveries on their way.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    people::BusinessId,
    webhooks::{DeliveryState, EndpointId, Error, EventId},
};

/// What a worker that died had in its hand goes back, with a record of attempts that nobody knows more of.
pub(in crate::webhooks) async fn take_back(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let taken = sqlx::query!(
        "with held as (
            select delivery_id, claimed_at
            from muneem.webhooks_deliveries
            where endpoint_id = $1 and state = 'sending'
            for no key update
        ),
        back as (
            update muneem.webhooks_deliveries d
            set state = 'pending', claimed_at = null, next_at = least(d.next_at, $2)
            from held
            where d.delivery_id = held.delivery_id
            returning d.delivery_id, d.attempts, d.business_id, held.claimed_at
        )
        insert into muneem.webhooks_attempts (delivery_id, number, business_id, started_at, cause)
        select delivery_id, attempts, business_id, claimed_at, 'interrupted' from back",
        endpoint.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected())
}

/// A delivery in a worker's hand.
pub(in crate::webhooks) struct Held {
    pub(in crate::webhooks) delivery_id: i64,
    pub(in crate::webhooks) event_id: EventId,
    pub(in crate::webhooks) object_id: String,
    /// Of this attempt.
    pub(in crate::webhooks) number: i32,
    /// Attempts before it that count.
    pub(in crate::webhooks) tries: i32,
    pub(in crate::webhooks) next_at: DateTime<Utc>,
    pub(in crate::webhooks) body_sealed: Vec<u8>,
}

/// Takes what is due, first things first.
pub(in crate::webhooks) async fn claim(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    most: usize,
    now: DateTime<Utc>,
) -> Result<Vec<Held>, Error> {
    let mut held = sqlx::query_as!(
        Held,
        r#"with due as (
            select delivery_id
            from muneem.webhooks_deliveries
            where endpoint_id = $1 and state = 'pending' and next_at <= $2
            order by next_at, delivery_id
            limit $3
            for no key update skip locked
        )
        update muneem.webhooks_deliveries d
        set state = 'sending', claimed_at = $2, attempts = d.attempts + 1
        from due, muneem.webhooks_events e
        where d.delivery_id = due.delivery_id and e.event_id = d.event_id
        returning d.delivery_id, d.event_id as "event_id: EventId", e.object_id, d.attempts as number, d.tries, d.next_at,
            e.body_sealed"#,
        endpoint.0,
        now,
        i64::try_from(most).unwrap_or(1),
    )
    .fetch_all(conn)
    .await?;
    held.sort_by_key(|one| (one.next_at, one.delivery_id));
    Ok(held)
}

/// Gives back what was not begun: it was no attempt.
pub(in crate::webhooks) async fn release(conn: &mut PgConnection, ids: &[i64]) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_deliveries
        set state = 'pending', claimed_at = null, attempts = attempts - 1
        where delivery_id = any ($1) and state = 'sending'",
        ids,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What came of one attempt.
pub(in crate::webhooks) struct Ended {
    pub(in crate::webhooks) delivery_id: i64,
    pub(in crate::webhooks) number: i32,
    pub(in crate::webhooks) started_at: DateTime<Utc>,
    pub(in crate::webhooks) latency_ms: i32,
    pub(in crate::webhooks) status: Option<i16>,
    pub(in crate::webhooks) cause: Option<&'static str>,
    /// Where the delivery is now.
    pub(in crate::webhooks) state: DeliveryState,
    pub(in crate::webhooks) tries: i32,
    pub(in crate::webhooks) next_at: DateTime<Utc>,
}

impl Ended {
    /// What was to be told does not open any more.
    pub(in crate::webhooks) const fn unreadable(
        (delivery_id, number, tries): (i64, i32, i32),
        now: DateTime<Utc>,
    ) -> Self {
        let (status, cause, state) = (None, Some("unreadable"), DeliveryState::Failed);
        Self { delivery_id, number, started_at: now, latency_ms: 0, status, cause, state, tries, next_at: now }
    }
}

/// Records attempts and moves their deliveries on, with one statement. What is not in hand any more, since its endpoint
/// was removed, keeps its state and gets the attempt.
pub(in crate::webhooks) async fn settle(
    conn: &mut PgConnection,
    business: BusinessId,
    ended: &[Ended],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let ids: Vec<_> = ended.iter().map(|one| one.delivery_id).collect();
    let numbers: Vec<_> = ended.iter().map(|one| one.number).collect();
    let started: Vec<_> = ended.iter().map(|one| one.started_at).collect();
    let latencies: Vec<_> = ended.iter().map(|one| one.latency_ms).collect();
    let statuses: Vec<_> = ended.iter().map(|one| one.status).collect();
    let causes: Vec<_> = ended.iter().map(|one| one.cause.map(str::to_owned)).collect();
    let states: Vec<_> = ended.iter().map(|one| one.state.as_str().to_owned()).collect();
    let tries: Vec<_> = ended.iter().map(|one| one.tries).collect();
    let next: Vec<_> = ended.iter().map(|one| one.next_at).collect();
    sqlx::query!(
        "with ended as (
            select *
            from unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::integer[], $5::smallint[], $6::text[],
                $7::text[], $8::integer[], $9::timestamptz[])
                e (delivery_id, number, started_at, latency_ms, status, cause, state, tries, next_at)
        ),
        moved as (
            update muneem.webhooks_deliveries d
            set state = e.state, claimed_at = null, tries = e.tries, next_at = e.next_at,
                ended_at = case when e.state = 'pending' then null else $11::timestamptz end
            from ended e
            where d.delivery_id = e.delivery_id and d.state = 'sending' and d.attempts = e.number
        )
        insert into muneem.webhooks_attempts (delivery_id, number, business_id, started_at, latency_ms, status, cause)
        select e.delivery_id, e.number, $10, e.started_at, e.latency_ms, e.status, e.cause from ended e",
        &ids,
        &numbers,
        &started,
        &latencies,
        &statuses as &[Option<i16>],
        &causes as &[Option<String>],
        &states,
        &tries,
        &next,
        business.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When the first of what waits for an endpoint is due.
pub(in crate::webhooks) async fn next_due(
    conn: &mut PgConnection,
    endpoint: EndpointId,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar!(
        "select min(next_at) from muneem.webhooks_deliveries where endpoint_id = $1 and state = 'pending'",
        endpoint.0,
    )
    .fetch_one(conn)
    .await?)
}

/// Ends what has waited since before `before`, whoever it is for: up to `most`.
pub(in crate::webhooks) async fn expire(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    most: i64,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let expired = sqlx::query!(
        "update muneem.webhooks_deliveries d
        set state = 'expired', claimed_at = null, ended_at = $3
        where d.delivery_id in (
            select w.delivery_id
            from muneem.webhooks_events e
            join muneem.webhooks_deliveries w on w.event_id = e.event_id
            where e.created_at < $1 and w.state = 'pending'
            order by e.created_at
            limit $2
            for no key update of w skip locked
        )",
        before,
        most,
        now,
    )
    .execute(conn)
    .await?;
    Ok(expired.rows_affected())
}

/// Deletes events of before `before` whose deliveries have all ended before it: up to `most`. Deliveries and attempts go
/// with them.
pub(in crate::webhooks) async fn forget(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    most: i64,
) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "delete from muneem.webhooks_events
        where event_id in (
            select e.event_id
            from muneem.webhooks_events e
            where e.created_at < $1
                and not exists (
                    select from muneem.webhooks_deliveries d
                    where d.event_id = e.event_id and (d.ended_at is null or d.ended_at >= $1)
                )
            order by e.created_at
            limit $2
            for update skip locked
        )",
        before,
        most,
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}
