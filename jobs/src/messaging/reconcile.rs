use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AttemptOutcome, Error, MessageId, Send, State,
    ledger::Ledger,
    rules::{self, Silence, Verdict},
    store::{self, AttemptRow},
    trail::Trail,
};
use crate::{
    outbound::carrier::{self, Class, Failure, Via},
    queue::{Done, Job, JobContext, Lane},
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
        let mut trail = Trail::of(ctx, Self::KIND);
        let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
        let message = &ledger.get(id)?.message;
        let mut wait = None;
        if message.state == State::Queued && ctx.now() >= message.expires_at {
            ledger.fail(id, (None, Some(super::EXPIRED)), "expired", &mut trail);
            tracing::warn!(messaging.message_id = %id, "a message expired before it could be sent");
        } else if let Some(number) = self.attempt {
            wait = look(&mut tx, ctx, &mut ledger, (id, number), &mut trail).await?;
        }
        ledger.write(&mut tx, ctx).await?;
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

/// Looks at an attempt that nobody may know the end of: also at one still `posting` when its job can no longer run.
/// Answers when to look again.
pub(super) async fn look(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    ledger: &mut Ledger,
    (id, number): (MessageId, i32),
    trail: &mut Trail<'_>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let entry = ledger.get(id)?;
    let Some(last) = entry.attempts.last().filter(|last| last.number == number) else { return Ok(None) };
    let started_at = last.started_at;
    match (entry.message.state, last.outcome) {
        (State::Posting, AttemptOutcome::Posting) => {
            let gone_at = started_at + rules::delta(Send::LONGEST_RUN);
            if ctx.now() < gone_at {
                return Ok(Some(gone_at));
            }
            ledger.leave_unknown((id, number), &Failure::new("the job that posted is gone"), trail);
        }
        (State::Unknown, AttemptOutcome::Unknown) => {}
        _ => return Ok(None),
    }
    settle(conn, ctx, ledger, (id, number, started_at), trail).await
}

/// Not before then another attempt follows the last one, whose end nobody knows. A carrier that says that it broke while
/// it had the message is left in peace for the waits of that code, the last of them repeating until the message expires;
/// one that said nothing has been waited for already.
fn again_at(attempts: &[AttemptRow]) -> Option<DateTime<Utc>> {
    let last = attempts.last()?;
    let Class::Ambiguous(waits) = carrier::class_of(last.error_code?, Via::Response, 503, false) else { return None };
    let lost = attempts.iter().filter(|one| one.outcome == AttemptOutcome::PresumedLost).count();
    let wait = waits.get(lost.min(waits.len().saturating_sub(1)))?;
    Some(last.ended_at.unwrap_or(last.started_at) + TimeDelta::seconds(i64::from(*wait)))
}

/// Judges an unknown attempt; answers when to look again.
async fn settle(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    ledger: &mut Ledger,
    (id, number, started_at): (MessageId, i32, DateTime<Utc>),
    trail: &mut Trail<'_>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let message = &ledger.get(id)?.message;
    let silence = Silence {
        now: ctx.now(),
        started_at,
        heard_at: match &message.number {
            Some(number) => store::find_heard_at(conn, number).await?,
            // No server tells of a mail that it took: silence is all there will be.
            None => Some(ctx.now()),
        },
        expires_at: message.expires_at,
        policy: message.policy,
    };
    match rules::judge(&silence, &ctx.deps.messaging) {
        Verdict::Wait(until) => return Ok(Some(until)),
        Verdict::Again => {
            let until = again_at(&ledger.get(id)?.attempts);
            if let Some(until) = until.filter(|until| *until > ctx.now()) {
                return Ok(Some(until.min(silence.expires_at)));
            }
            ledger.presume_lost((id, number), trail);
        }
        Verdict::GiveUp => ledger.give_up((id, number), trail),
    }
    Ok(None)
}
