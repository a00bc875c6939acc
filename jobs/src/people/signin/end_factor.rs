use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Deed, Error, carry_out_reset, find_reset, record, warn};
use crate::{
    evidence::{Actor, words},
    people::{StaffId, find_active_staff},
    queue::{Done, Job, JobContext, Lane},
};

/// `people.end_factor`: carries an approved reset out when its day is over. One that was called off is no error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndFactor {
    /// The reset.
    pub reset_id: Uuid,
}

impl Job for EndFactor {
    const KIND: &'static str = "people.end_factor";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut tx = ctx.begin_for_all().await?;
        let Some(reset) = find_reset(&mut tx, self.reset_id).await? else { return Ok(Done::OK) };
        match carry_out_reset(&mut tx, reset.reset_id, ctx.now()).await {
            // Somebody was quicker, or said no.
            Err(Error::NoSuchReset) => return Ok(Done::OK),
            outcome => outcome?,
        }
        let staff_id = StaffId(reset.staff_id);
        let business_id =
            find_active_staff(&mut tx, staff_id).await.map_err(Error::people)?.and_then(|staff| staff.business_id);
        let deed = Deed {
            actor: Actor::Job { kind: Self::KIND, job_id: ctx.job.0 },
            verb: words::RESET_DONE,
            staff_id,
            business_id,
            details: json!({ "reset": reset.reset_id, "asked_by": reset.asked_by, "approved_by": reset.approved_by }),
        };
        record(&mut tx, deed, ctx.now(), &*ctx.deps.chance).await?;
        warn(&mut tx, ctx.business, staff_id, super::Warning::FactorRemoved, ctx.now()).await?;
        ctx.step("people.factor_ended").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
