use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Done, Error, Job, JobContext, Lane, work};

/// Takes jobs back from dead workers, puts due ones in line, gives out free slots. Workers do the same between two
/// claims; the schedule does it too where they are all busy or gone.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReapLeases {}

impl Job for ReapLeases {
    const KIND: &'static str = "queue.reap_leases";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await.map_err(Error::Database)?;
        let tick = work::tick(&mut conn).await?;
        Ok(Done::Ack(Some(serde_json::json!({ "reaped": tick.reaped, "promoted": tick.promoted }))))
    }
}
