use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    AttemptOutcome, Error, MessageId, Send, State, ledger,
    rules::{self, Silence, Verdict},
    store::{self, Ending, Envelope, LastAttempt, Reason},
    trail::Trail,
};
use crate::{
    evidence::words,
    outbound::carrier::Failure,
    queue::{self, Done, Job, JobContext, Lane, NewJob},
};

/// Sees to it that a message comes to an end whatever became of the job that sends it.
///
/// Planned with each attempt: finds out what became of one that nobody can tell of, also of one still `posting` when
/// its job can no longer run. A webhook that names the attempt settles it (`messaging.apply_webhook` adopts it, then
/// there is nothing to do here). Silence settles it only once the window is over and webhooks of the number do arrive;
/// then the message's policy says whether to post again.
///
/// Planned with each message, for its expiry: fails it when it is still queued.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// The message.
    pub message_id: MessageId,
    /// The attempt's number; absent for the look at the message's expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
}

impl Job for Reconcile {
    const KIND: &'static str = "messaging.reconcile";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.message_id;
        let mut tx = ctx.begin().await?;
        let state = store::lock_message(&mut tx, ctx.business, id).await?;
        let envelope = store::load_envelope(&mut tx, ctx.business, id).await?;
        let last = store::find_last_attempt(&mut tx, id).await?;
        let own = last.filter(|last| Some(last.number) == self.attempt);
        let mut trail = Trail::of(ctx, Self::KIND);
        let wait = match (state, own) {
            (State::Queued, _) if ctx.now() >= envelope.expires_at => {
                let reason = Reason { error_details: Some(super::EXPIRED), ..Reason::default() };
                store::set_state(&mut tx, id, State::Failed, &reason, ctx.now()).await?;
                trail.note(words::MESSAGE_FAILED, id, json!({ "why": "expired" }));
                tracing::warn!(messaging.message_id = %id, "a message expired before it could be sent");
                None
            }
            (State::Posting, Some(attempt)) if attempt.outcome == AttemptOutcome::Posting => {
                let gone_at = attempt.started_at + rules::delta(Send::LONGEST_RUN);
                if ctx.now() < gone_at {
                    Some(gone_at)
                } else {
                    let failure = Failure::new("the job that posted is gone");
                    ledger::leave_unknown(&mut tx, ctx, (id, attempt.number), &failure, &mut trail).await?;
                    settle(&mut tx, ctx, (id, &envelope), &attempt, &mut trail).await?
                }
            }
            (State::Unknown, Some(attempt)) if attempt.outcome == AttemptOutcome::Unknown => {
                settle(&mut tx, ctx, (id, &envelope), &attempt, &mut trail).await?
            }
            _ => None,
        };
        trail.write(&mut tx).await?;
        ctx.step("messaging.reconciled").await;
        if let Some(until) = wait {
            tx.commit().await?;
            return Err(Error::Waiting { message: id, until, why: "for a webhook to tell what became of it" });
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Judges an unknown attempt; answers when to look again.
async fn settle(
    conn: &mut PgConnection,
    ctx: &JobContext,
    (id, envelope): (MessageId, &Envelope),
    attempt: &LastAttempt,
    trail: &mut Trail<'_>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let silence = Silence {
        now: ctx.now(),
        started_at: attempt.started_at,
        heard_at: store::find_heard_at(conn, &envelope.number).await?,
        expires_at: envelope.expires_at,
        policy: envelope.policy,
    };
    match rules::judge(&silence, &ctx.deps.messaging) {
        Verdict::Wait(until) => return Ok(Some(until)),
        Verdict::Again => {
            let ending = Ending::default();
            store::end_attempt(conn, (id, attempt.number), AttemptOutcome::PresumedLost, &ending, ctx.now()).await?;
            store::set_state(conn, id, State::Queued, &Reason::default(), ctx.now()).await?;
            trail.note(words::OUTCOME_RECONCILED, id, verdict(attempt, "presumed_lost"));
            queue::enqueue(conn, &NewJob::of(ctx.business, &Send { message_id: id })?).await?;
        }
        Verdict::GiveUp => {
            let reason = Reason { error_details: Some("nobody can tell whether it was sent"), ..Reason::default() };
            store::set_state(conn, id, State::UnknownFinal, &reason, ctx.now()).await?;
            trail.note(words::OUTCOME_RECONCILED, id, verdict(attempt, "unknown_final"));
            tracing::warn!(messaging.message_id = %id, "a message's fate stays unknown");
        }
    }
    Ok(None)
}

fn verdict(attempt: &LastAttempt, verdict: &'static str) -> Value {
    json!({ "attempt": attempt.number, "verdict": verdict })
}
