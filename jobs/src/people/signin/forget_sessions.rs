use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, forget_old_sessions};
use crate::queue::{Done, Job, JobContext, Lane};

/// `people.forget_sessions`: deletes sessions and invitations that ended long ago, and codes, challenges and counts of
/// attempts that mean nothing any more.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetSessions {}

impl Job for ForgetSessions {
    const KIND: &'static str = "people.forget_sessions";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut db = ctx.deps.db.acquire().await?;
        forget_old_sessions(&mut db, ctx.now()).await?;
        Ok(Done::OK)
    }
}
