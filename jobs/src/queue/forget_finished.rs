use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Done, Error, Job, JobContext, Lane, store};

/// Forgets what is over: days of the history past their time are dropped whole, used keys past theirs deleted in
/// batches; partitions for the coming days are made.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetFinished {
    /// How long finished jobs are kept, in days.
    pub keep_days: u16,
}

const BATCH: i64 = 5000;

impl Job for ForgetFinished {
    const KIND: &'static str = "queue.forget_finished";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await.map_err(Error::Database)?;
        let days = store::rotate_history(&mut conn, self.keep_days).await?;
        let mut keys = 0;
        while !ctx.cancelled.is_cancelled() {
            let gone = store::forget_keys(&mut conn, BATCH).await?;
            keys += gone;
            if gone < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(Done::Ack(Some(serde_json::json!({ "days": days, "keys": keys }))))
    }
}
