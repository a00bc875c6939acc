use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    EndpointId, EndpointState, Error, EventId, ReplayId,
    manage::{self, Which},
    rules,
    store::{
        self,
        replays::{self, Looked},
    },
};
use crate::{
    evidence::{By, words},
    people::BusinessId,
    queue::{self, Done, Job, JobContext, Lane, NewJob},
};

/// Events that one transaction of a replay looks at.
const BATCH: i64 = 500;

/// What an endpoint is to be told again.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// What happened since then, by when it was written down here.
    pub since: DateTime<Utc>,
    /// Only what was not delivered: failed, or expired.
    pub failed_only: bool,
}

/// Tells of one event again, to one endpoint or to all that it went to and that are told things. What is still on its way
/// is left alone. Answers to whom it goes.
///
/// # Errors
/// [`Error::NoSuchEvent`]: it is another business's, or events of its time are not kept any more.
pub async fn replay_event(
    tx: &mut PgConnection,
    (business, event): (Option<BusinessId>, EventId),
    endpoint: Option<EndpointId>,
    by: &By<'_>,
) -> Result<Vec<EndpointId>, Error> {
    let told = store::find_told(&mut *tx, business, event).await?.ok_or(Error::NoSuchEvent(event))?;
    let business = told.event.business_id;
    if let Some(endpoint) = endpoint {
        let row = manage::lock(&mut *tx, Which { business: Some(business), endpoint }).await?;
        if row.state == EndpointState::Disabled {
            return Err(Error::Disabled(endpoint));
        }
    }
    let restarted = replays::restart_event(&mut *tx, event, endpoint, by.now).await?;
    for endpoint in &restarted {
        let details = json!({ "event": event.to_string() });
        manage::note(&mut *tx, (business, *endpoint), words::WEBHOOK_REPLAY_ASKED, details, by).await?;
        manage::look(&mut *tx, (business, *endpoint)).await?;
    }
    Ok(restarted)
}

/// Has an endpoint told again of everything since an instant, by a job. The same asked again while that is under way is
/// that one. Answers its id.
///
/// # Errors
/// [`Error::NoSuchEndpoint`]; [`Error::Disabled`]; [`Error::BadField`] for an instant still to come.
pub async fn ask_replay(tx: &mut PgConnection, which: Which, replay: &Replay, by: &By<'_>) -> Result<ReplayId, Error> {
    let row = manage::lock(&mut *tx, which).await?;
    if row.state == EndpointState::Disabled {
        return Err(Error::Disabled(row.endpoint_id));
    }
    if replay.since > by.now {
        return Err(Error::BadField { field: "since", problem: "is still to come", mend: "name an earlier instant" });
    }
    let wanted = (replay.since, replay.failed_only);
    if let Some(open) = replays::find_open(&mut *tx, row.endpoint_id, wanted).await? {
        return Ok(open);
    }
    let id = ReplayId(by.chance.uuid_v7(by.now));
    replays::insert(&mut *tx, (row.business_id, row.endpoint_id, id), wanted, by.now).await?;
    let details = json!({ "replay": id, "since": replay.since, "failed_only": replay.failed_only });
    manage::note(&mut *tx, (row.business_id, row.endpoint_id), words::WEBHOOK_REPLAY_ASKED, details, by).await?;
    queue::enqueue(tx, &NewJob::of(row.business_id, &ReplayEvents { replay_id: id })?).await?;
    Ok(id)
}

/// Walks a business's events and begins their deliveries to one endpoint anew, a batch a transaction. Killed in between
/// it goes on behind its cursor; a batch that was committed begins nothing twice.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayEvents {
    /// The replay.
    pub replay_id: ReplayId,
}

impl Job for ReplayEvents {
    const KIND: &'static str = "webhooks.replay_events";
    const LANE: Lane = Lane::Bulk;
    const SETTINGS: queue::Settings =
        queue::Settings { timeout: std::time::Duration::from_secs(600), ..queue::Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.replay_id;
        loop {
            let now = ctx.now();
            let mut tx = ctx.begin().await?;
            let mut replay = replays::lock(&mut tx, ctx.business, id).await?.ok_or(Error::NoSuchReplay(id))?;
            let which = Which { business: Some(ctx.business), endpoint: replay.endpoint_id };
            let endpoint = store::endpoints::lock(&mut tx, which).await?;
            let endpoint = endpoint.filter(|row| row.state != EndpointState::Disabled && replay.ended_at.is_none());
            let events = match &endpoint {
                Some(_) => replays::list_events(&mut tx, ctx.business, &replay, BATCH).await?,
                None => Vec::new(),
            };
            let Some((endpoint, Looked { event_id, created_at, .. })) = endpoint.as_ref().zip(events.last()) else {
                // At its end, or there is nobody to tell any more.
                replay.ended_at = replay.ended_at.or(Some(now));
                replays::advance(&mut tx, id, &replay).await?;
                ctx.complete(&mut tx, Some(json!({ "replayed": replay.replayed }))).await?;
                tx.commit().await?;
                return Ok(Done::Acked);
            };
            let wanted = events.iter().filter(|event| rules::wants(&endpoint.event_types, &event.event_type));
            let wanted: Vec<Uuid> = wanted.map(|event| event.event_id.0).collect();
            let restarted = replays::restart(&mut tx, ctx.business, &replay, &wanted, now).await?;
            replay.cursor_at = Some(*created_at);
            replay.cursor_event = Some(event_id.0);
            replay.replayed += i64::try_from(restarted).unwrap_or(0);
            replays::advance(&mut tx, id, &replay).await?;
            if restarted > 0 {
                manage::look(&mut tx, (ctx.business, replay.endpoint_id)).await?;
            }
            tx.commit().await?;
            ctx.step("webhooks.replayed").await;
        }
    }
}
