use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Error,
    store::{deliveries, replays},
};
use crate::queue::{Done, Job, JobContext, Lane};

/// Events of one transaction.
const BATCH: i64 = 1000;
/// Most batches of one run: the next one goes on.
const BATCHES: u64 = 200;

/// Ends what has waited for longer than events are kept, and lets go of events that ended before that: what they said,
/// their deliveries and attempts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retire {}

impl Job for Retire {
    const KIND: &'static str = "webhooks.retire";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let now = ctx.now();
        let before = now - ctx.deps.webhooks.settings.keep;
        let (mut expired, mut forgotten) = (0, 0);
        for _ in 0..BATCHES {
            let mut tx = ctx.begin_for_all().await?;
            let ended = deliveries::expire(&mut tx, before, BATCH, now).await?;
            let gone = deliveries::forget(&mut tx, before, BATCH).await?;
            tx.commit().await?;
            ctx.step("webhooks.retired").await;
            (expired, forgotten) = (expired + ended, forgotten + gone);
            if (ended == 0 && gone == 0) || ctx.cancelled.is_cancelled() {
                break;
            }
        }
        let mut tx = ctx.begin_for_all().await?;
        replays::forget(&mut tx, before).await?;
        ctx.complete(&mut tx, Some(json!({ "expired": expired, "forgotten": forgotten }))).await?;
        tx.commit().await?;
        if expired > 0 {
            tracing::warn!(expired, "webhook events waited longer than they are kept, and were given up");
        }
        Ok(Done::Acked)
    }
}
