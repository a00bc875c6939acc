use std::time::Duration;

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    compose::{Draft, Identity, compose},
    identity,
};
use crate::{
    messaging::{Error, Language, MailId},
    outbound::MailOutcome,
    people,
    queue::{Done, Job, JobContext, Lane, Settings},
};

/// `messaging.verify_mail_identity`: sends a code to the address that a business wants its mail to come from.
///
/// Each attempt makes a new code, and the one before is void: a second mail does no harm, it only explains the first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyMailIdentity {}

impl Job for VerifyMailIdentity {
    const KIND: &'static str = "messaging.verify_mail_identity";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { timeout: Duration::from_secs(90), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = MailId(ctx.deps.chance.uuid_v7(ctx.now()));
        let mut tx = ctx.begin().await?;
        let with = (&*ctx.deps.vault, &*ctx.deps.chance);
        let Some((to, code, end)) = identity::make_code(&mut tx, with, ctx.business, ctx.now()).await? else {
            return Ok(Done::OK);
        };
        let face = people::open_face(&mut tx, &ctx.deps.vault, ctx.business).await;
        let (business_name, _) = face.map_err(|error| Error::Staff(Box::new(error)))?.unwrap_or_default();
        // From the installation: the address is nobody's yet.
        let house = Identity { name: "muneem".to_owned(), from: None, reply_to: None, dkim: None };
        let until = people::links::instant(end);
        let draft = Draft {
            id: id.0,
            token: None,
            to,
            words: "mail_identity",
            params: &json!({ "business_name": business_name, "code": code.expose_secret(), "until": until }),
            language: Language::En,
            attachments: Vec::new(),
            unsubscribe: None,
        };
        let mail = compose(&house, draft).map_err(|error| Error::MailWords(id, Box::new(error)))?;
        tx.commit().await?;
        ctx.step("messaging.mail_code_made").await;
        match ctx.deps.mailer.send(&mail).await {
            MailOutcome::NotSent(failure) => return Err(Error::MailNotSent(id, failure)),
            MailOutcome::Refused(failure) | MailOutcome::Unknown(failure) => {
                tracing::warn!(business = %ctx.business, why = %failure, "the code for a mail address was not taken");
            }
            MailOutcome::Accepted => {}
        }
        ctx.step("messaging.mail_code_sent").await;
        let mut tx = ctx.begin().await?;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
