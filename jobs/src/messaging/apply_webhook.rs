use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Error, WebhookId, fields, holds, inbound,
    intake::Owners,
    ledger::{self, Ledger, Told},
    sealed, send,
    store::{self, NewEvent, OwnAttempt, StoredWebhook},
    trail::Trail,
    webhook::{self, Update, What},
};
use crate::queue::{Done, Job, JobContext, Lane};

/// Writes the updates of stored webhooks that concern this business into the ledger: those of one batch, which came
/// together.
///
/// Twice, late and out of order are all the same: an event is kept once, and statuses fold. A thousand statuses cost as
/// many statements as one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyWebhook {
    /// One stored body; how an older program says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<WebhookId>,
    /// Bodies that came together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<Uuid>,
}

impl Job for ApplyWebhook {
    const KIND: &'static str = "messaging.apply_webhook";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await?;
        let bodies = store::list_webhooks(&mut conn, ctx.business, self.webhook_id, self.batch_id).await?;
        if let (true, Some(webhook)) = (bodies.is_empty(), self.webhook_id) {
            return Err(Error::NoWebhook(webhook));
        }
        let mut told = Vec::new();
        for (place, body) in bodies.iter().enumerate() {
            let opened = sealed::open_webhook(&mut conn, &ctx.deps.vault, body.webhook_id, &body.body_sealed).await?;
            told.extend(webhook::read(&opened).unwrap_or_default().into_iter().map(|update| (place, update)));
        }
        drop(conn);
        // Bodies are of whoever the carrier had something to say to; what they are about is read as this business alone.
        let mut conn = ctx.begin_to_read().await?;
        let owners = Owners::find(&mut conn, told.iter().map(|(_, update)| update)).await?;
        told.retain(|(place, update)| owners.of(update, bodies[*place].signed_for).contains(&ctx.business));
        let told: Vec<_> = told.iter().map(|(place, update)| (&bodies[*place], update)).collect();
        let unreadable = told.iter().filter(|(_, update)| matches!(update.what, What::Unreadable)).count();
        if unreadable > 0 {
            let batch = self.batch_id.or(self.webhook_id.map(|webhook| webhook.0));
            tracing::warn!(messaging.batch_id = ?batch, unreadable, "webhooks hold updates that do not read");
        }
        let attempts = attempts_of(&mut conn, ctx, &told).await?;
        drop(conn);

        let mut tx = ctx.begin().await?;
        keep_events(&mut tx, ctx, &told).await?;
        apply_statuses(&mut tx, ctx, &told, &attempts).await?;
        inbound::hear_all(&mut tx, ctx, &told, &ctx.by(Self::KIND)).await?;
        for (body, update) in &told {
            if let What::Field { field, value, at } = &update.what {
                let at = at.unwrap_or(body.received_at);
                let said = fields::Told { field, value, at, update, owners: &owners };
                fields::apply(&mut tx, ctx, &said, &ctx.by(Self::KIND)).await?;
            }
        }
        ctx.step("messaging.applied").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

type From<'a> = (&'a StoredWebhook, &'a Update);

/// Which attempt of ours each update is about.
async fn attempts_of(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    told: &[From<'_>],
) -> Result<Vec<Option<OwnAttempt>>, Error> {
    let mut refs = Vec::with_capacity(told.len());
    let (mut places, mut marks) = (Vec::with_capacity(told.len()), Vec::with_capacity(told.len()));
    for ((_, update), place) in told.iter().zip(1_i64..) {
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
    if places.is_empty() {
        return Ok(refs.iter().map(|_| None).collect());
    }
    store::find_attempts(conn, ctx.business, &refs, (&places, &marks)).await
}

/// Keeps statuses and what people wrote as events.
async fn keep_events(conn: &mut sqlx::PgConnection, ctx: &JobContext, told: &[From<'_>]) -> Result<(), Error> {
    let vault = &ctx.deps.vault;
    let mut events = Vec::with_capacity(told.len());
    for (body, update) in told {
        let (kind, wamid, reference, status, failure, at) = match &update.what {
            What::Status { wamid, status, reference, failure, at } => {
                ("status", wamid, reference.as_deref(), status, failure.as_ref(), at)
            }
            What::Inbound(inbound) => ("inbound", &inbound.wamid, None, &inbound.kind, None, &inbound.at),
            What::Preference(_) | What::Field { .. } | What::Unreadable => continue,
        };
        let Some(number) = &update.number else { continue };
        sealed::hold_wamid(conn, vault, ctx.business, wamid).await?;
        events.push(NewEvent {
            id: ctx.deps.chance.uuid_v7(ctx.now()),
            number,
            kind,
            wamid: sealed::mark(conn, vault, ctx.business, wamid).await?,
            wamid_everywhere: sealed::marks(conn, vault, ctx.business, wamid).await?,
            reference,
            status,
            error_code: failure.map(|(code, _)| *code),
            error_details: failure.map(|(_, details)| details.as_str()),
            at: at.unwrap_or(body.received_at),
            received_at: body.received_at,
            webhook: body.webhook_id,
            position: update.position,
        });
    }
    store::insert_events(conn, ctx.business, &events).await.map(drop)
}

/// Folds statuses into their messages, each message's in the order of arrival.
async fn apply_statuses(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    told: &[From<'_>],
    attempts: &[Option<OwnAttempt>],
) -> Result<(), Error> {
    let by = ctx.by(ApplyWebhook::KIND);
    let mut trail = Trail::of(ctx, ApplyWebhook::KIND);
    let ids = attempts.iter().flatten().map(|attempt| attempt.message);
    let mut ledger = Ledger::lock(conn, ctx.business, ids, ctx.now()).await?;
    for ((body, update), attempt) in told.iter().zip(attempts) {
        let (What::Status { wamid, status, failure, .. }, Some(attempt)) = (&update.what, attempt) else { continue };
        let told = Told {
            mark: Some(&sealed::mark(conn, &ctx.deps.vault, ctx.business, wamid).await?),
            status: &ledger::parse(status),
            code: failure.as_ref().map(|(code, _)| *code),
            details: failure.as_ref().map(|(_, details)| details.as_str()),
            receipt: Some(&hex::encode(&body.sha256)),
        };
        ledger.told((attempt.message, attempt.number), &told, &mut trail);
    }
    let signs: Vec<_> = ledger
        .signs()
        .iter()
        .map(|sign| Ok((sign, &ledger.get(sign.message)?.message)))
        .collect::<Result<_, Error>>()?;
    holds::react(conn, ctx.business, &signs, &by).await?;
    send::react_to_limits(conn, ctx, &signs).await?;
    inbound::note_recipients(conn, ctx, &signs, &by).await?;
    ledger.write(conn, ctx).await?;
    trail.write(conn).await
}
