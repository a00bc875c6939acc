use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Error, WebhookId,
    ledger::{self, Locked, Told},
    sealed,
    store::{self, NewEvent},
    trail::Trail,
    webhook::{self, Update, What},
};
use crate::{
    outbound::Wamid,
    queue::{Done, Job, JobContext, Lane},
};

/// Writes the updates of one stored webhook that concern this business into the ledger.
///
/// Twice, late and out of order are all the same: an event is kept once, and statuses fold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyWebhook {
    /// The stored body.
    pub webhook_id: WebhookId,
}

impl Job for ApplyWebhook {
    const KIND: &'static str = "messaging.apply_webhook";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await?;
        let (body, received_at) = store::load_webhook(&mut conn, self.webhook_id).await?;
        let body = sealed::open_webhook(&mut conn, &ctx.deps.vault, self.webhook_id, &body).await?;
        drop(conn);
        // The body is of whoever the carrier had something to say to; what it is about is read as this business alone.
        let mut conn = ctx.begin_to_read().await?;
        let mut updates = webhook::read(&body).unwrap_or_default();
        let numbers: Vec<_> = updates.iter().map(|update| update.number.clone()).collect();
        let owners = store::owners_of(&mut conn, &numbers).await?;
        updates
            .retain(|update| owners.iter().any(|(number, owner)| *number == update.number && *owner == ctx.business));
        let unreadable = updates.iter().filter(|update| matches!(update.what, What::Unreadable)).count();
        if unreadable > 0 {
            tracing::warn!(messaging.webhook_id = %self.webhook_id, unreadable, "a webhook holds updates that do not read");
        }
        let attempts = attempts_of(&mut conn, ctx, &updates).await?;
        drop(conn);

        let mut tx = ctx.begin().await?;
        let mut trail = Trail::of(ctx, Self::KIND);
        for (update, attempt) in in_lock_order(&updates, attempts) {
            let event = Noted { ctx, webhook: self.webhook_id, received_at, update };
            event.keep(&mut tx).await?;
            let (What::Status { wamid, status, failure, .. }, Some(attempt)) = (&update.what, attempt) else {
                continue;
            };
            let state = store::lock_message(&mut tx, ctx.business, attempt.message).await?;
            let mut locked =
                Locked { business: ctx.business, message: attempt.message, attempt: attempt.number, state };
            let told = Told {
                wamid,
                status: &ledger::parse(status),
                code: failure.as_ref().map(|(code, _)| *code),
                details: failure.as_ref().map(|(_, details)| details.as_str()),
            };
            ledger::apply(&mut tx, ctx, &mut locked, &told, &mut trail).await?;
        }
        trail.write(&mut tx).await?;
        ctx.step("messaging.applied").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Which attempt of ours each update is about.
async fn attempts_of(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    updates: &[Update],
) -> Result<Vec<Option<store::OwnAttempt>>, Error> {
    let mut refs = Vec::with_capacity(updates.len());
    let (mut places, mut marks) = (Vec::with_capacity(updates.len()), Vec::with_capacity(updates.len()));
    for (update, place) in updates.iter().zip(1_i64..) {
        let What::Status { reference, wamid, .. } = &update.what else {
            refs.push(None);
            continue;
        };
        refs.push(reference.clone());
        for mark in sealed::marks(conn, &ctx.deps.vault, ctx.business, wamid).await? {
            places.push(place);
            marks.push(mark);
        }
    }
    store::find_attempts(conn, ctx.business, &refs, (&places, &marks)).await
}

/// Two batches about the same messages must lock them in the same order; within a message the order of arrival stays.
fn in_lock_order(
    updates: &[Update],
    attempts: Vec<Option<store::OwnAttempt>>,
) -> Vec<(&Update, Option<store::OwnAttempt>)> {
    let mut pairs: Vec<_> = updates.iter().zip(attempts).collect();
    pairs.sort_by_key(|(update, attempt)| {
        (attempt.as_ref().map(|attempt| attempt.message), event_key(&update.what), update.position)
    });
    pairs
}

/// Events are inserted under a unique key, which is a lock as well.
fn event_key(what: &What) -> &str {
    match what {
        What::Status { wamid, .. } | What::Inbound { wamid, .. } => wamid.as_str(),
        What::Unreadable => "",
    }
}

struct Noted<'a> {
    ctx: &'a JobContext,
    webhook: WebhookId,
    received_at: chrono::DateTime<chrono::Utc>,
    update: &'a Update,
}

impl Noted<'_> {
    async fn keep(&self, conn: &mut sqlx::PgConnection) -> Result<(), Error> {
        let (kind, wamid, reference, status, failure, at): (_, &Wamid, _, _, _, _) = match &self.update.what {
            What::Status { wamid, status, reference, failure, at } => {
                ("status", wamid, reference.as_deref(), status, failure.as_ref(), at)
            }
            What::Inbound { wamid, kind, at } => ("inbound", wamid, None, kind, None, at),
            What::Unreadable => return Ok(()),
        };
        let vault = &self.ctx.deps.vault;
        sealed::hold_wamid(conn, vault, self.ctx.business, wamid).await?;
        let mark = sealed::mark(conn, vault, self.ctx.business, wamid).await?;
        let marks = sealed::marks(conn, vault, self.ctx.business, wamid).await?;
        let event = NewEvent {
            id: self.ctx.deps.chance.uuid_v7(self.ctx.now()),
            business: self.ctx.business,
            number: &self.update.number,
            kind,
            wamid: &mark,
            wamid_everywhere: &marks,
            reference,
            status,
            error_code: failure.map(|(code, _)| *code),
            error_details: failure.map(|(_, details)| details.as_str()),
            at: at.unwrap_or(self.received_at),
            received_at: self.received_at,
            webhook: self.webhook,
            position: self.update.position,
        };
        store::insert_event(conn, &event).await.map(drop)
    }
}
