use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Error, LinkId, Purpose, TABLE, store, words};
use crate::{
    outbound::{Email, Mail, MailOutcome},
    people,
    queue::{Done, Job, JobContext, Lane},
    vault::Cell,
};

/// Sends a link, or a code for it, to whom it is for.
///
/// Mail goes out at least once: whoever dies between the mail server's answer and the end of the job sends it again,
/// under the same Message-ID. Nothing is lost by it: both mails say the same.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendLink {
    /// Which.
    pub link_id: LinkId,
    /// The number of the code; none: the link itself.
    pub code: Option<i16>,
}

impl SendLink {
    pub(super) fn address(link_id: LinkId) -> Self {
        Self { link_id, code: None }
    }

    pub(super) fn code(link_id: LinkId, number: i16) -> Self {
        Self { link_id, code: Some(number) }
    }

    /// The same message, the same id.
    fn mail_id(&self) -> Uuid {
        let digest = Sha256::new()
            .chain_update(self.link_id.0.as_bytes())
            .chain_update(self.code.unwrap_or_default().to_be_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl Job for SendLink {
    const KIND: &'static str = "people.send_link";
    const LANE: Lane = Lane::Otp;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let deps = &ctx.deps;
        let mut db = deps.db.acquire().await?;
        let Some(outgoing) = store::find_outgoing(&mut db, self.link_id).await? else { return Ok(Done::OK) };
        let link = &outgoing.link;
        let secret = match self.code {
            None => outgoing.url.as_ref().map(|sealed| ("url_sealed", sealed)),
            // An older code is void: only the last one goes out.
            Some(number) => outgoing
                .code
                .as_ref()
                .filter(|_| {
                    outgoing.codes_made == number && outgoing.code_expires_at.is_some_and(|until| ctx.now() < until)
                })
                .map(|sealed| ("code_sealed", sealed)),
        };
        // Sent before, revoked, run out or replaced: there is nothing to say any more.
        let (Some((column, secret)), Some(contact), true) = (secret, &outgoing.contact, link.is_open(ctx.now())) else {
            return Ok(Done::OK);
        };
        let row = self.link_id.to_string();
        let cell = |column| Cell { business_id: link.business_id, table: TABLE, column, row: &row };
        let unreadable = || Error::Unreadable(self.link_id);
        let to = deps.vault.open(&mut db, &cell("contact_sealed"), contact).await?;
        let to = std::str::from_utf8(&to).map_err(|_| unreadable())?;
        let secret = deps.vault.open(&mut db, &cell(column), secret).await?;
        let secret = SecretString::from(std::str::from_utf8(&secret).map_err(|_| unreadable())?);
        if link.channel != "email" {
            return Err(Error::NoWayToPhone);
        }
        let to = Email::parse(to).map_err(|_| unreadable())?;
        let business = people::find_business_by_id(&mut db, link.business_id).await?.ok_or_else(unreadable)?;
        let said = match (self.code, link.purpose) {
            (Some(_), _) => {
                words::LinkCode { business: &business.legal_name, code: secret.expose_secret() }.say(&link.language)?
            }
            (None, Purpose::Approval) => {
                let until = words::instant(link.expires_at);
                words::ApprovalLink { business: &business.legal_name, url: secret.expose_secret(), until }
                    .say(&link.language)?
            }
            // Its own duty has its own words and sends them itself.
            (None, Purpose::Portal) => return Ok(Done::OK),
        };
        drop(db);
        let mail = Mail::new(self.mail_id(), to, &said.subject, &said.body)?;
        match deps.mailer.send(&mail).await {
            // Where the mail server may have it, it is not sent blindly again: who waits asks for another code.
            MailOutcome::Accepted | MailOutcome::Unknown(_) => {}
            MailOutcome::Refused(failure) => return Err(Error::Refused(self.link_id, failure.to_string())),
            MailOutcome::NotSent(failure) => return Err(Error::NotSent(self.link_id, failure.to_string())),
        }
        ctx.step("sent").await;
        let mut tx = ctx.begin().await?;
        match self.code {
            None => store::empty_url(&mut tx, self.link_id).await?,
            Some(number) => store::empty_code(&mut tx, self.link_id, number).await?,
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
