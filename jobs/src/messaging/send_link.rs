use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{ApprovalLink, Content, Error, Language, NewMessage, Policy, SignInCode, staff::first_line};
use crate::{
    outbound::Phone,
    people::links::{self, LinkId, Outgoing, Purpose, instant},
    queue::{Done, Job, JobContext, Lane},
};

/// `messaging.send_link`: a link, or a code for it, to a phone, from the number that the link was made for. Message and
/// end of the job are one transaction, so it is written once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendLink {
    /// Which.
    pub link_id: LinkId,
    /// The number of the code; none: the link itself.
    pub code: Option<i16>,
}

impl Job for SendLink {
    const KIND: &'static str = "messaging.send_link";
    const LANE: Lane = Lane::Otp;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let deps = &ctx.deps;
        // Who carries it is another business than the one whose link it is.
        let mut tx = ctx.begin_for_all().await?;
        let found = links::find_outgoing(&mut tx, &deps.vault, (self.link_id, self.code), ctx.now()).await?;
        let Some(Outgoing { link, to, secret, business, expires_at }) = found else { return Ok(Done::OK) };
        let to = Phone::parse(&to).map_err(|_| links::Error::Unreadable(self.link_id))?;
        let (content, purpose) = match (self.code, link.purpose) {
            (Some(_), _) => {
                (Content::SignInCode(SignInCode { code: secret.expose_secret().to_owned() }), "people.link_code")
            }
            (None, Purpose::Approval) => {
                let words = ApprovalLink {
                    business_name: first_line(&business),
                    url: secret.expose_secret().to_owned(),
                    until: instant(link.expires_at),
                };
                (Content::ApprovalLink(words), "people.approval_link")
            }
            // Its own duty has its own words and sends them itself.
            (None, Purpose::Portal) => return Ok(Done::OK),
        };
        let carrier = link.carried_by.unwrap_or(link.business_id);
        let words = (content, Language::of(&link.language));
        let message = NewMessage {
            expires_at: Some(expires_at),
            ..NewMessage::new(carrier, to, words, (Policy::AtMostOnce, purpose))
        };
        super::request(&mut tx, &deps.vault, &*deps.clock, &*deps.chance, &message).await?;
        links::empty(&mut tx, self.link_id, self.code).await?;
        ctx.step("messaging.link_written").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
