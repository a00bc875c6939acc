use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApprovalId, Authority, Decision, Error, State, end, record, store};
use crate::{
    evidence::words,
    queue::{Done, Job, JobContext, Lane},
};

/// Writes down that a decision's time ran out. Nobody waits for it: what has run out can neither be approved nor carried
/// out, whether or not this has run.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndApproval {
    /// Which.
    pub approval_id: ApprovalId,
}

impl Job for EndApproval {
    const KIND: &'static str = "people.end_approval";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let by = Authority::of_job(Self::KIND, ctx.job);
        let decision = Decision { by: &by, now: ctx.now(), chance: &*ctx.deps.chance };
        let mut tx = ctx.begin().await?;
        if let Some(mut approval) = store::lock_approval(&mut tx, self.approval_id).await?
            && approval.state.is_open()
            && approval.expires_at <= ctx.now()
        {
            end(&mut tx, &mut approval, State::Expired, ctx.now()).await?;
            record(&mut tx, &decision, words::APPROVAL_EXPIRED, &approval, Value::Null).await?;
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
