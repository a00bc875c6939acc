use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Authority, Decision, Error, GrantId, finish, store};
use crate::queue::{Done, Job, JobContext, Lane};

/// Writes down that the time of support is over, and ends its tokens. Nobody waits for it: after its instant a grant
/// opens nothing.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndSupport {
    /// Which.
    pub grant_id: GrantId,
}

impl Job for EndSupport {
    const KIND: &'static str = "people.end_support";
    const LANE: Lane = Lane::Statutory;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let by = Authority::of_job(Self::KIND, ctx.job);
        let decision = Decision { by: &by, now: ctx.now(), chance: &*ctx.deps.chance };
        let mut tx = ctx.begin().await?;
        if let Some(mut grant) = store::lock_grant(&mut tx, self.grant_id).await?
            && grant.ended_at.is_none()
            && grant.expires_at <= ctx.now()
        {
            finish(&mut tx, &mut grant, &decision).await?;
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
