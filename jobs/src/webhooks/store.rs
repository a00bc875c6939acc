//! What is kept of events, and how it is shown.

pub(super) mod deliveries;
pub(super) mod endpoints;
pub(super) mod replays;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    AttemptView, Delivery, DeliveryFilter, DeliveryState, EndpointId, Error, Event, EventId, EventView, Health, Told,
};
use crate::people::BusinessId;

/// An endpoint that new events are kept for.
pub(super) struct Listener {
    pub(super) endpoint_id: EndpointId,
    pub(super) event_types: Vec<String>,
    pub(super) next_look_at: Option<DateTime<Utc>>,
    pub(super) wait_until: Option<DateTime<Utc>>,
}

/// The endpoints of a business that are told of things.
pub(super) async fn list_listeners(conn: &mut PgConnection, business: BusinessId) -> Result<Vec<Listener>, Error> {
    Ok(sqlx::query_as!(
        Listener,
        r#"select endpoint_id as "endpoint_id: EndpointId", event_types, next_look_at, wait_until
        from muneem.webhooks_endpoints
        where business_id = $1 and state <> 'removed' and state <> 'disabled'"#,
        business.0,
    )
    .fetch_all(conn)
    .await?)
}

/// An event with whom to tell.
pub(super) struct NewEvent<'a> {
    pub(super) id: EventId,
    pub(super) event: &'a Event,
    pub(super) to: &'a [EndpointId],
    pub(super) body_sealed: Vec<u8>,
}

/// Writes events and their deliveries with one statement; deliveries are numbered in the order given.
pub(super) async fn insert_events(
    conn: &mut PgConnection,
    business: BusinessId,
    rows: &[NewEvent<'_>],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let ids: Vec<_> = rows.iter().map(|row| row.id.0).collect();
    let types: Vec<_> = rows.iter().map(|row| row.event.event_type.clone()).collect();
    let objects: Vec<_> = rows.iter().map(|row| row.event.object.clone()).collect();
    let occurred: Vec<_> = rows.iter().map(|row| row.event.occurred_at).collect();
    let bodies: Vec<_> = rows.iter().map(|row| row.body_sealed.clone()).collect();
    let (told, to): (Vec<_>, Vec<_>) =
        rows.iter().flat_map(|row| row.to.iter().map(|endpoint| (row.id.0, endpoint.0))).unzip();
    sqlx::query!(
        "with made as (
            insert into muneem.webhooks_events
                (event_id, business_id, event_type, object_id, occurred_at, created_at, body_sealed)
            select e.event_id, $1, e.event_type, e.object_id, e.occurred_at, $2, e.body
            from unnest($3::uuid[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[])
                e (event_id, event_type, object_id, occurred_at, body)
        )
        insert into muneem.webhooks_deliveries (business_id, event_id, endpoint_id, state, next_at)
        select $1, d.event_id, d.endpoint_id, 'pending', $2
        from unnest($8::uuid[], $9::uuid[]) with ordinality d (event_id, endpoint_id, place)
        order by d.place",
        business.0,
        now,
        &ids,
        &types,
        &objects,
        &occurred,
        &bodies,
        &told,
        &to,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lists deliveries, newest first.
///
/// # Errors
/// The database fails.
pub async fn list_deliveries(
    conn: &mut PgConnection,
    filter: &DeliveryFilter,
    limit: u16,
) -> Result<Vec<Delivery>, Error> {
    Ok(sqlx::query_as!(
        Delivery,
        r#"select d.delivery_id, d.event_id as "event_id: EventId", d.endpoint_id as "endpoint_id: EndpointId",
            e.event_type, e.object_id as object, e.occurred_at, d.state as "state: DeliveryState", d.attempts,
            case when d.state = 'pending' then d.next_at end as next_at, d.ended_at, a.status as "last_status?",
            a.cause as "last_cause?"
        from muneem.webhooks_deliveries d
        join muneem.webhooks_events e on e.event_id = d.event_id
        left join muneem.webhooks_attempts a on a.delivery_id = d.delivery_id and a.number = d.attempts
        where ($1::uuid is null or d.business_id = $1)
            and ($2::uuid is null or d.endpoint_id = $2)
            and ($3::text is null or d.state = $3)
            and ($4::bigint is null or d.delivery_id < $4)
        order by d.delivery_id desc
        limit $5"#,
        filter.business.map(|business| business.0),
        filter.endpoint.map(|endpoint| endpoint.0),
        filter.state.map(DeliveryState::as_str),
        filter.before,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// An event with its deliveries and every attempt; nothing where it is another business's, or its time is over.
///
/// # Errors
/// The database fails.
pub async fn find_told(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: EventId,
) -> Result<Option<Told>, Error> {
    let event = sqlx::query_as!(
        EventView,
        r#"select event_id as "event_id: EventId", business_id as "business_id: BusinessId", event_type,
            object_id as object, occurred_at, created_at
        from muneem.webhooks_events
        where event_id = $1 and ($2::uuid is null or business_id = $2)"#,
        id.0,
        business.map(|business| business.0),
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(event) = event else { return Ok(None) };
    let deliveries = sqlx::query_as!(
        Delivery,
        r#"select d.delivery_id, d.event_id as "event_id: EventId", d.endpoint_id as "endpoint_id: EndpointId",
            e.event_type, e.object_id as object, e.occurred_at, d.state as "state: DeliveryState", d.attempts,
            case when d.state = 'pending' then d.next_at end as next_at, d.ended_at, a.status as "last_status?",
            a.cause as "last_cause?"
        from muneem.webhooks_deliveries d
        join muneem.webhooks_events e on e.event_id = d.event_id
        left join muneem.webhooks_attempts a on a.delivery_id = d.delivery_id and a.number = d.attempts
        where d.event_id = $1
        order by d.delivery_id"#,
        id.0,
    )
    .fetch_all(&mut *conn)
    .await?;
    let attempts = sqlx::query_as!(
        AttemptView,
        r#"select d.endpoint_id as "endpoint_id: EndpointId", a.number, a.started_at, a.latency_ms, a.status, a.cause
        from muneem.webhooks_attempts a
        join muneem.webhooks_deliveries d on d.delivery_id = a.delivery_id
        where d.event_id = $1
        order by a.started_at, a.delivery_id, a.number
        limit 500"#,
        id.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(Some(Told { event, deliveries, attempts }))
}

/// How endpoints stand, over all businesses.
///
/// # Errors
/// The database fails.
pub async fn health(conn: &mut PgConnection) -> Result<Health, Error> {
    Ok(sqlx::query_as!(
        Health,
        r#"select count(*) as "endpoints!",
            count(*) filter (where state = 'enabled' and failures > 0) as "failing!",
            count(*) filter (where state = 'paused') as "paused!",
            count(*) filter (where state = 'disabled' and reason <> 'asked') as "given_up!",
            min(failing_since) filter (where state in ('enabled', 'paused')) as failing_since
        from muneem.webhooks_endpoints
        where state <> 'removed'"#
    )
    .fetch_one(conn)
    .await?)
}
