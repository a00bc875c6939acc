use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Error,
    staff::{self, Desk},
};
use crate::{
    people::{
        self, StaffId,
        signin::{Channel, Warning},
    },
    queue::{Done, Job, JobContext, Lane},
};

/// `messaging.warn_staff`: tells somebody of staff what happened to her access, by mail where there is a mail server and
/// else by WhatsApp; on both where the matter is grave; by mail alone where the phone may be a stranger's. Messages and
/// end of the job are one transaction, so she is told once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarnStaff {
    /// Whom.
    pub staff_id: StaffId,
    /// Of what.
    pub warning: Warning,
    /// When it happened.
    pub at: DateTime<Utc>,
}

impl Job for WarnStaff {
    const KIND: &'static str = "messaging.warn_staff";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let deps = &ctx.deps;
        let mut tx = ctx.begin_for_all().await?;
        let contact = people::open_contact(&mut tx, &deps.vault, self.staff_id).await;
        let Some(contact) = contact.map_err(|error| Error::Staff(Box::new(error)))? else { return Ok(Done::OK) };
        let desk =
            Desk { vault: &deps.vault, clock: &*deps.clock, chance: &*deps.chance, mails: deps.mailer.is_configured() };
        let mut ways = staff::way_to(&mut tx, &contact, desk.mails, Channel::Email).await?;
        ways.retain(|way| way.channel() != Channel::Phone || !self.warning.is_kept_from_phone());
        if ways.is_empty() {
            tracing::warn!(people.staff_id = %self.staff_id, warning = self.warning.as_str(), "no way to warn somebody");
        }
        let all = if self.warning.is_for_every_channel() { ways.len() } else { 1 };
        for way in ways.iter().take(all) {
            staff::send_warning(&mut tx, &desk, (self.staff_id, &contact), way, (self.warning, self.at)).await?;
        }
        ctx.step("messaging.warned").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
