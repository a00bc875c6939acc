use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Done, Error, Job, JobContext, JobError, Lane, sealed, store};
use crate::id::JobId;

/// Seals what a frontend enqueued by SQL, in clear, and no worker has claimed: jobs that wait for their time, for a
/// slot, or behind many others. With them the dead letters of versions that did not seal.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SealWaiting {}

const BATCH: i64 = 256;

impl Job for SealWaiting {
    const KIND: &'static str = "queue.seal_waiting";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let (mut sealed, mut left, mut after) = (0, 0, JobId(0));
        let mut without_key = BTreeSet::new();
        let mut conn = ctx.deps.db.acquire().await.map_err(Error::Database)?;
        while !ctx.cancelled.is_cancelled() {
            let batch = store::list_to_seal(&mut conn, after, BATCH).await?;
            let Some(last) = batch.last() else { break };
            after = last.job;
            let mut ready = Vec::with_capacity(batch.len());
            for one in &batch {
                if without_key.contains(&one.business) {
                    left += 1;
                    continue;
                }
                // Between two transactions: a key service may have to be asked.
                match sealed::seal(&mut conn, &ctx.deps.vault, (one.business, one.job), one.payload.get()).await {
                    Ok(bytes) => ready.push((one, bytes)),
                    Err(error) => {
                        tracing::warn!(business = %one.business, cause = error.cause(), "payloads wait in clear for a key");
                        without_key.insert(one.business);
                        left += 1;
                    }
                }
            }
            sealed += store::seal_waiting(&mut conn, &ready).await?;
        }
        Ok(Done::Ack(Some(serde_json::json!({ "sealed": sealed, "left": left }))))
    }
}
