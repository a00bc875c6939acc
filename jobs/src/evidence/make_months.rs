use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, store};
use crate::queue::{Done, Job, JobContext, Lane};

/// Makes room for the events of the coming months. What finds none lies beside them and is kept all the same, so one
/// night more or less does no harm.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeMonths {}

impl Job for MakeMonths {
    const KIND: &'static str = "evidence.make_months";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut db = ctx.deps.db.acquire().await?;
        let made = store::make_months(&mut db).await?;
        Ok(Done::Ack(Some(serde_json::json!({ "months": made }))))
    }
}
