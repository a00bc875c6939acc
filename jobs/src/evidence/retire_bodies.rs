use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Actor, Error, Event, EventId, Object, record_many, store, words};
use crate::{
    law, people,
    queue::{Done, Job, JobContext, Lane},
};

/// Lets go of the bodies of whole months for which the time of every law is over ([`law::logs_kept`]), and records in the
/// same transaction that it did. Numbers, instants, businesses and digests stay for ever: what is left still proves
/// itself, and a verifier tells what was let go from what is missing.
///
/// Nothing goes while the log is forked, or from a month that no signed head covers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireBodies {}

impl Job for RetireBodies {
    const KIND: &'static str = "evidence.retire_bodies";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let kept = law::logs_kept();
        let mut tx = ctx.begin_for_all().await?;
        let before = store::retire_months(&mut tx, kept.for_database()).await?;
        if let Some(before) = before {
            // Once for the installation and once for each business: a bundle about one of them proves itself too.
            let businesses = people::list_businesses(&mut tx).await.map_err(Box::new)?;
            let whose = businesses.into_iter().map(|business| Some(business.business_id));
            let events: Vec<_> = std::iter::once(None)
                .chain(whose)
                .map(|business_id| Event {
                    event_id: EventId::new(&*ctx.deps.chance, ctx.now()),
                    business_id,
                    actor: Actor::Job { kind: Self::KIND, job_id: ctx.job.0 },
                    verb: words::BODIES_RETIRED,
                    object: Object { kind: "evidence", id: "bodies" },
                    details: json!({ "before": before, "law": kept.code }),
                })
                .collect();
            record_many(&mut tx, &events).await?;
        }
        ctx.step("retired").await;
        ctx.complete(&mut tx, Some(json!({ "before": before }))).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
