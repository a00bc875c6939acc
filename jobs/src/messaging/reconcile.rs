use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AttemptOutcome, Error, MessageId, Send, State,
    rules::{self, Silence, Verdict},
    store::{self, Ending, Reason},
};
use crate::queue::{self, Done, Job, JobContext, Lane, NewJob};

/// Finds out what became of an attempt that nobody could tell of.
///
/// A webhook that names the attempt settles it (`messaging.apply_webhook` adopts it, then there is nothing to do
/// here). Silence settles it only once the window is over and webhooks of the number do arrive; then the message's
/// policy says whether to post again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// The message.
    pub message_id: MessageId,
    /// The unknown attempt's number.
    pub attempt: i32,
}

impl Job for Reconcile {
    const KIND: &'static str = "messaging.reconcile";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.message_id;
        let mut tx = ctx.begin().await?;
        let state = store::lock_message(&mut tx, ctx.business, id).await?;
        let last = store::find_last_attempt(&mut tx, id).await?;
        let open = last.filter(|last| {
            state == State::Unknown && last.number == self.attempt && last.outcome == AttemptOutcome::Unknown
        });
        if let Some(attempt) = open {
            let envelope = store::load_envelope(&mut tx, ctx.business, id).await?;
            let silence = Silence {
                now: ctx.now(),
                started_at: attempt.started_at,
                heard_at: store::find_heard_at(&mut tx, &envelope.number).await?,
                expires_at: envelope.expires_at,
                policy: envelope.policy,
            };
            match rules::judge(&silence, &ctx.deps.messaging) {
                Verdict::Wait(until) => {
                    return Err(Error::Waiting { message: id, until, why: "for a webhook to tell what became of it" });
                }
                Verdict::Again => {
                    let ending = Ending::default();
                    store::end_attempt(&mut tx, (id, self.attempt), AttemptOutcome::PresumedLost, &ending, ctx.now())
                        .await?;
                    store::set_state(&mut tx, id, State::Queued, &Reason::default(), ctx.now()).await?;
                    queue::enqueue(&mut tx, &NewJob::of(ctx.business, &Send { message_id: id })?).await?;
                }
                Verdict::GiveUp => {
                    let reason =
                        Reason { error_details: Some("nobody can tell whether it was sent"), ..Reason::default() };
                    store::set_state(&mut tx, id, State::UnknownFinal, &reason, ctx.now()).await?;
                    tracing::warn!(messaging.message_id = %id, "a message's fate stays unknown");
                }
            }
        }
        ctx.step("messaging.reconciled").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
