//! Updates out of webhooks: statuses of messages, and what people wrote.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    messaging::{Error, Event, MessageId, WebhookId},
    outbound::carrier::NumberId,
    people::BusinessId,
};

/// One update out of a webhook.
pub(in crate::messaging) struct NewEvent<'a> {
    pub(in crate::messaging) id: Uuid,
    pub(in crate::messaging) number: &'a str,
    pub(in crate::messaging) kind: &'static str,
    /// The mark of the carrier's id.
    pub(in crate::messaging) wamid: Vec<u8>,
    /// All marks that may be stored for it while index keys change.
    pub(in crate::messaging) wamid_everywhere: Vec<Vec<u8>>,
    pub(in crate::messaging) reference: Option<&'a str>,
    pub(in crate::messaging) status: &'a str,
    pub(in crate::messaging) error_code: Option<i64>,
    pub(in crate::messaging) error_details: Option<&'a str>,
    pub(in crate::messaging) at: DateTime<Utc>,
    pub(in crate::messaging) received_at: DateTime<Utc>,
    pub(in crate::messaging) webhook: WebhookId,
    pub(in crate::messaging) position: i32,
}

/// Keeps events; a second one of the same wamid, status and code is the same event. Answers the ids of those that are
/// new.
pub(in crate::messaging) async fn insert_events(
    conn: &mut PgConnection,
    business: BusinessId,
    events: &[NewEvent<'_>],
) -> Result<Vec<Uuid>, Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let text = |of: fn(&NewEvent<'_>) -> Option<String>| events.iter().map(of).collect::<Vec<_>>();
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let numbers: Vec<_> = events.iter().map(|event| event.number.to_owned()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.to_owned()).collect();
    let marks: Vec<_> = events.iter().map(|event| event.wamid.clone()).collect();
    let refs = text(|event| event.reference.map(str::to_owned));
    let statuses: Vec<_> = events.iter().map(|event| event.status.to_owned()).collect();
    let codes: Vec<_> = events.iter().map(|event| event.error_code).collect();
    let details = text(|event| event.error_details.map(str::to_owned));
    let told: Vec<_> = events.iter().map(|event| event.at).collect();
    let received: Vec<_> = events.iter().map(|event| event.received_at).collect();
    let webhooks: Vec<_> = events.iter().map(|event| event.webhook.0).collect();
    let positions: Vec<_> = events.iter().map(|event| event.position).collect();
    // The unique constraint sees one version of the index key; the others are looked for.
    let (mut other_of, mut others) = (Vec::new(), Vec::new());
    for event in events {
        for mark in event.wamid_everywhere.iter().filter(|mark| **mark != event.wamid) {
            other_of.push(event.id);
            others.push(mark.clone());
        }
    }
    let inserted = sqlx::query_scalar!(
        r#"
        insert into muneem.messaging_events (
            event_id, business_id, phone_number_id, kind, wamid_mark, ref, status, error_code, error_details, at,
            received_at, webhook_id, position)
        select new.event_id, $1, new.number, new.kind, new.mark, new.ref, new.status, new.code, new.details, new.at,
            new.received_at, new.webhook_id, new.position
        from unnest(
            $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::bigint[], $9::text[],
            $10::timestamptz[], $11::timestamptz[], $12::uuid[], $13::integer[])
            as new (event_id, number, kind, mark, ref, status, code, details, at, received_at, webhook_id, position)
        where not exists (
            select
            from unnest($14::uuid[], $15::bytea[]) as other (event_id, mark)
            join muneem.messaging_events e on e.wamid_mark = other.mark
            where other.event_id = new.event_id
                and e.kind = new.kind
                and e.status = new.status
                and e.error_code is not distinct from new.code
        )
        -- Two transactions with the same events must meet in the same order.
        order by new.kind, new.mark, new.status, new.code
        on conflict on constraint messaging_events_once do nothing
        returning event_id
        "#,
        business.0,
        &ids,
        &numbers,
        &kinds,
        &marks,
        &refs as &[Option<String>],
        &statuses,
        &codes as &[Option<i64>],
        &details as &[Option<String>],
        &told,
        &received,
        &webhooks,
        &positions,
        &other_of,
        &others,
    )
    .fetch_all(conn)
    .await?;
    Ok(inserted)
}

/// A status that arrived before its attempt's id was known.
pub(in crate::messaging) struct EarlyStatus {
    pub(in crate::messaging) mark: Vec<u8>,
    pub(in crate::messaging) status: String,
    pub(in crate::messaging) error_code: Option<i64>,
    pub(in crate::messaging) error_details: Option<String>,
}

/// Statuses of these ids that are here already, in order of arrival.
pub(in crate::messaging) async fn list_statuses_of(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<Vec<EarlyStatus>, Error> {
    let early = sqlx::query_as!(
        EarlyStatus,
        r#"
        select wamid_mark as mark, status, error_code, error_details
        from muneem.messaging_events
        where kind = 'status' and business_id = $1 and wamid_mark = any ($2)
        order by received_at, position
        "#,
        business.0,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(early)
}

/// When a webhook last told of a number.
pub(in crate::messaging) async fn find_heard_at(
    conn: &mut PgConnection,
    number: &NumberId,
) -> Result<Option<DateTime<Utc>>, Error> {
    let heard = sqlx::query_scalar!(
        "select max(received_at) from muneem.messaging_events where phone_number_id = $1",
        number.as_str(),
    )
    .fetch_one(conn)
    .await?;
    Ok(heard)
}

/// The statuses of a message, by arrival.
pub(in crate::messaging) async fn list_events(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Vec<Event>, Error> {
    let events = sqlx::query_as!(
        Event,
        r#"
        select a.number as "attempt?", e.status, e.error_code, e.at, e.received_at
        from muneem.messaging_attempts a
        join muneem.messaging_events e on e.ref = a.ref or e.wamid_mark = a.wamid_mark
        where a.message_id = $1 and ($2::uuid is null or e.business_id = $2) and e.kind = 'status'
        order by e.received_at, e.at, e.position
        "#,
        id.0,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(events)
}
