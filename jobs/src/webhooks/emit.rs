use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    Deliver, EndpointId, Error, EventId, rules, sealed,
    store::{self, NewEvent},
};
use crate::{
    outbound::Chance,
    people::BusinessId,
    queue::{self, JobContext, NewJob},
    vault::Vault,
};

/// Largest body: Standard Webhooks recommends to stay below.
const BODY_MAX: usize = 20 * 1024;
const OBJECT_MAX: usize = 200;
/// Type of the event that a test sends. Endpoints are told of it whatever they want to hear of.
pub const PING: &str = "webhooks.ping";

/// A look that is planned for so soon will see what is emitted now: nobody needs another. Emitting transactions are
/// expected to commit within the lower bound; a minute's [`super::Sweep`] finds what a slower one left.
const SOON: (TimeDelta, TimeDelta) = (TimeDelta::milliseconds(300), TimeDelta::milliseconds(1500));

/// Something that happened, for receivers.
#[derive(Clone, Debug)]
pub struct Event {
    /// `messaging.message.delivered`: duty, thing, what became of it.
    pub event_type: String,
    /// Id of the thing; events of one are told in order.
    pub object: String,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// An object of ids, states, codes and the frontend's own references; no personal values.
    pub data: Value,
}

/// What emitting needs beside the caller's transaction.
#[derive(Clone, Copy)]
pub struct Emission<'a> {
    /// Seals what is kept.
    pub vault: &'a Vault,
    /// When it is written down.
    pub now: DateTime<Utc>,
    /// For ids.
    pub chance: &'a dyn Chance,
}

impl<'a> Emission<'a> {
    /// Of a job.
    pub fn of(ctx: &'a JobContext) -> Self {
        Self { vault: &ctx.deps.vault, now: ctx.now(), chance: &*ctx.deps.chance }
    }
}

/// Tells the receivers of `business` of one thing, when the caller's transaction commits.
///
/// # Errors
/// As [`emit_all`].
pub async fn emit(
    tx: &mut PgConnection,
    emission: Emission<'_>,
    business: BusinessId,
    event: Event,
) -> Result<(), Error> {
    emit_all(tx, emission, business, vec![event]).await
}

/// Tells the receivers of `business` of what happened, in this order, when the caller's transaction commits. Where no
/// endpoint wants any of it, this costs one look into an index; else one statement more for all events, and a job for
/// each endpoint that nobody is about to look at anyway. Call it late in the transaction.
///
/// # Errors
/// [`Error::BadEvent`] for a type or body that no receiver is told of; [`Error::Vault`]; the database fails. Let it end
/// the transaction.
pub async fn emit_all(
    tx: &mut PgConnection,
    emission: Emission<'_>,
    business: BusinessId,
    events: Vec<Event>,
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let listeners = store::list_listeners(&mut *tx, business).await?;
    let mut wanted: Vec<(Event, Vec<EndpointId>)> = Vec::new();
    for event in events {
        check(&event)?;
        let to = listeners.iter().filter(|one| rules::wants(&one.event_types, &event.event_type));
        let to: Vec<_> = to.map(|one| one.endpoint_id).collect();
        if !to.is_empty() {
            wanted.push((event, to));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    keep(&mut *tx, emission, business, &wanted).await?;
    let (at_least, at_most) = SOON;
    for one in listeners.iter().filter(|one| wanted.iter().any(|(_, to)| to.contains(&one.endpoint_id))) {
        // While it rests nothing could be begun sooner anyway.
        let latest = (emission.now + at_most).max(one.wait_until.unwrap_or(emission.now) + TimeDelta::seconds(1));
        let looks = |at: DateTime<Utc>| (emission.now + at_least..=latest).contains(&at);
        if !one.next_look_at.is_some_and(looks) {
            let job = NewJob::of(business, &Deliver { endpoint_id: one.endpoint_id })?;
            queue::enqueue(&mut *tx, &job).await?;
        }
    }
    Ok(())
}

/// Writes events down with their deliveries. Answers the ids.
pub(super) async fn keep(
    tx: &mut PgConnection,
    emission: Emission<'_>,
    business: BusinessId,
    wanted: &[(Event, Vec<EndpointId>)],
) -> Result<Vec<EventId>, Error> {
    let mut rows = Vec::with_capacity(wanted.len());
    for (event, to) in wanted {
        let id = EventId(emission.chance.uuid_v7(emission.now));
        let body = body_of(event)?;
        let body_sealed = sealed::seal_body(&mut *tx, emission.vault, (business, id), &body).await?;
        rows.push(NewEvent { id, event, to, body_sealed });
    }
    store::insert_events(tx, business, &rows, emission.now).await?;
    Ok(rows.iter().map(|row| row.id).collect())
}

/// The bytes that are posted: the payload that Standard Webhooks recommends.
fn body_of(event: &Event) -> Result<Vec<u8>, Error> {
    let Event { event_type, occurred_at, data, .. } = event;
    let timestamp = occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let body = json!({ "type": event_type, "timestamp": timestamp, "data": data }).to_string().into_bytes();
    if body.len() > BODY_MAX {
        return Err(bad(event, "is larger than 20 KiB: tell of ids, and let the receiver ask for the rest"));
    }
    Ok(body)
}

fn check(event: &Event) -> Result<(), Error> {
    if !rules::is_event_type(&event.event_type) {
        return Err(bad(event, "is not named <duty>.<thing>.<what became of it>"));
    }
    if !(1..=OBJECT_MAX).contains(&event.object.chars().count()) || event.object.contains('\0') {
        return Err(bad(event, "names no object"));
    }
    if !event.data.is_object() {
        return Err(bad(event, "has data that is no object"));
    }
    Ok(())
}

fn bad(event: &Event, problem: &'static str) -> Error {
    Error::BadEvent { event_type: event.event_type.chars().take(100).collect(), problem }
}
