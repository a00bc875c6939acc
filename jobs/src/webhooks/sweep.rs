use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Deliver, Error, manage, store::endpoints};
use crate::queue::{Done, Job, JobContext, Lane};

/// Has a look made at endpoints with something due that nobody is going to look at: its job was given up or cancelled, or
/// a transaction that emitted was so slow that the look it relied on came before its commit.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {}

impl Job for Sweep {
    const KIND: &'static str = "webhooks.sweep";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut tx = ctx.begin_for_all().await?;
        let forgotten = endpoints::list_forgotten(&mut tx, ctx.now(), Deliver::LONGEST_RUN).await?;
        for (endpoint, business) in &forgotten {
            manage::look(&mut tx, (*business, *endpoint)).await?;
            endpoints::set_next_look(&mut tx, *endpoint, ctx.now()).await?;
        }
        ctx.step("webhooks.swept").await;
        ctx.complete(&mut tx, Some(json!({ "looks": forgotten.len() }))).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
