//! Telling again.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    people::BusinessId,
    webhooks::{EndpointId, Error, EventId, ReplayId},
};

/// Begins deliveries of one event anew, those that have ended; to one endpoint or to all that are told things. Answers to
/// whom.
pub(in crate::webhooks) async fn restart_event(
    conn: &mut PgConnection,
    event: EventId,
    endpoint: Option<EndpointId>,
    now: DateTime<Utc>,
) -> Result<Vec<EndpointId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"update muneem.webhooks_deliveries d
        set state = 'pending', tries = 0, next_at = $3, ended_at = null
        from muneem.webhooks_endpoints e
        where d.event_id = $1
            and ($2::uuid is null or d.endpoint_id = $2)
            and d.state in ('delivered', 'failed', 'expired')
            and e.endpoint_id = d.endpoint_id and e.state in ('enabled', 'paused')
        returning d.endpoint_id as "endpoint_id: EndpointId""#,
        event.0,
        endpoint.map(|endpoint| endpoint.0),
        now,
    )
    .fetch_all(conn)
    .await?)
}

pub(in crate::webhooks) async fn insert(
    conn: &mut PgConnection,
    (business, endpoint, id): (BusinessId, EndpointId, ReplayId),
    (since, failed_only): (DateTime<Utc>, bool),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.webhooks_replays (replay_id, business_id, endpoint_id, since, failed_only, asked_at)
        values ($1, $2, $3, $4, $5, $6)",
        id.0,
        business.0,
        endpoint.0,
        since,
        failed_only,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A replay of the same that is still under way, if there is one.
pub(in crate::webhooks) async fn find_open(
    conn: &mut PgConnection,
    endpoint: EndpointId,
    (since, failed_only): (DateTime<Utc>, bool),
) -> Result<Option<ReplayId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select replay_id as "replay_id: ReplayId"
        from muneem.webhooks_replays
        where endpoint_id = $1 and since = $2 and failed_only = $3 and ended_at is null
        order by asked_at desc
        limit 1"#,
        endpoint.0,
        since,
        failed_only,
    )
    .fetch_optional(conn)
    .await?)
}

/// A row of `muneem.webhooks_replays`.
pub(in crate::webhooks) struct Row {
    pub(in crate::webhooks) endpoint_id: EndpointId,
    pub(in crate::webhooks) since: DateTime<Utc>,
    pub(in crate::webhooks) failed_only: bool,
    pub(in crate::webhooks) asked_at: DateTime<Utc>,
    pub(in crate::webhooks) cursor_at: Option<DateTime<Utc>>,
    pub(in crate::webhooks) cursor_event: Option<Uuid>,
    pub(in crate::webhooks) replayed: i64,
    pub(in crate::webhooks) ended_at: Option<DateTime<Utc>>,
}

/// The replay, held until the transaction ends.
pub(in crate::webhooks) async fn lock(
    conn: &mut PgConnection,
    business: BusinessId,
    id: ReplayId,
) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"select endpoint_id as "endpoint_id: EndpointId", since, failed_only, asked_at, cursor_at, cursor_event, replayed,
            ended_at
        from muneem.webhooks_replays
        where replay_id = $1 and business_id = $2
        for no key update"#,
        id.0,
        business.0,
    )
    .fetch_optional(conn)
    .await?)
}

/// An event that a replay looks at.
pub(in crate::webhooks) struct Looked {
    pub(in crate::webhooks) event_id: EventId,
    pub(in crate::webhooks) event_type: String,
    pub(in crate::webhooks) created_at: DateTime<Utc>,
}

/// The next events of a business, from `since` or from behind the cursor, up to when the replay was asked for.
pub(in crate::webhooks) async fn list_events(
    conn: &mut PgConnection,
    business: BusinessId,
    replay: &Row,
    most: i64,
) -> Result<Vec<Looked>, Error> {
    Ok(sqlx::query_as!(
        Looked,
        r#"select event_id as "event_id: EventId", event_type, created_at
        from muneem.webhooks_events
        where business_id = $1
            and (created_at, event_id)
                > (coalesce($2::timestamptz, $3::timestamptz), coalesce($4::uuid, '00000000-0000-0000-0000-000000000000'::uuid))
            and created_at <= $5
        order by created_at, event_id
        limit $6"#,
        business.0,
        replay.cursor_at,
        replay.since,
        replay.cursor_event,
        replay.asked_at,
        most,
    )
    .fetch_all(conn)
    .await?)
}

/// Begins deliveries of these events to one endpoint anew, in their order, and makes those that there never were, unless
/// only failed ones are wanted. What ended after the replay was asked for has been told since, and is passed by. Answers
/// how many.
pub(in crate::webhooks) async fn restart(
    conn: &mut PgConnection,
    business: BusinessId,
    replay: &Row,
    events: &[Uuid],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let restarted = sqlx::query!(
        "insert into muneem.webhooks_deliveries as d (business_id, event_id, endpoint_id, state, next_at)
        select $1, e.event_id, $2, 'pending', $3
        from unnest($4::uuid[]) with ordinality e (event_id, place)
        where not $6::boolean
            or exists (
                select from muneem.webhooks_deliveries o
                where o.endpoint_id = $2 and o.event_id = e.event_id
            )
        order by e.place
        on conflict on constraint webhooks_deliveries_once do update
        set state = 'pending', tries = 0, next_at = excluded.next_at, ended_at = null
        where d.ended_at <= $5
            and (d.state in ('failed', 'expired') or (d.state = 'delivered' and not $6::boolean))",
        business.0,
        replay.endpoint_id.0,
        now,
        events,
        replay.asked_at,
        replay.failed_only,
    )
    .execute(conn)
    .await?;
    Ok(restarted.rows_affected())
}

/// How far a replay is.
pub(in crate::webhooks) async fn advance(conn: &mut PgConnection, id: ReplayId, replay: &Row) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.webhooks_replays
        set cursor_at = $2, cursor_event = $3, replayed = $4, ended_at = $5
        where replay_id = $1",
        id.0,
        replay.cursor_at,
        replay.cursor_event,
        replay.replayed,
        replay.ended_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes replays that ended before `before`.
pub(in crate::webhooks) async fn forget(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<u64, Error> {
    let gone = sqlx::query!("delete from muneem.webhooks_replays where ended_at < $1", before).execute(conn).await?;
    Ok(gone.rows_affected())
}
