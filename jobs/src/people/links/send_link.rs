use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Link, LinkId, Purpose, TABLE, store, words};
use crate::{
    outbound::{Email, Mail, MailOutcome},
    people,
    queue::{Done, Job, JobContext, Lane},
    vault::{Cell, Vault},
};

/// `people.send_link`: mails a link, or a code for it, to whom it is for.
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

/// What a message with a link or a code is made of, in clear.
pub struct Outgoing {
    /// Of which link.
    pub link: Link,
    /// A phone in E.164, or a mail address.
    pub to: Zeroizing<String>,
    /// The address of the page, or the code.
    pub secret: SecretString,
    /// Legal name of the business that asks.
    pub business: String,
    /// When it is no use any more: the code's end, or the link's.
    pub expires_at: DateTime<Utc>,
}

/// What is to be sent of a link, or of its code with this number. Nothing where there is nothing to say any more: it was
/// sent before, revoked, used up, ran out or was replaced by another code.
///
/// # Errors
/// The vault is sealed; what is sealed does not read.
pub async fn find_outgoing(
    db: &mut PgConnection,
    vault: &Vault,
    (link_id, code): (LinkId, Option<i16>),
    now: DateTime<Utc>,
) -> Result<Option<Outgoing>, Error> {
    let Some(sealed) = store::find_outgoing(db, link_id).await? else { return Ok(None) };
    let link = sealed.link;
    let secret = match code {
        None => sealed.url.as_ref().map(|sealed| ("url_sealed", sealed)),
        // An older code is void: only the last one goes out.
        Some(number) => sealed
            .code
            .as_ref()
            .filter(|_| sealed.codes_made == number && sealed.code_expires_at.is_some_and(|until| now < until))
            .map(|sealed| ("code_sealed", sealed)),
    };
    let (Some((column, secret)), Some(contact), true) = (secret, &sealed.contact, link.is_open(now)) else {
        return Ok(None);
    };
    let row = link_id.to_string();
    let cell = |column| Cell { business_id: link.business_id, table: TABLE, column, row: &row };
    let unreadable = || Error::Unreadable(link_id);
    let to = vault.open(db, &cell("contact_sealed"), contact).await?;
    let to = Zeroizing::new(std::str::from_utf8(&to).map_err(|_| unreadable())?.to_owned());
    let secret = vault.open(db, &cell(column), secret).await?;
    let secret = SecretString::from(std::str::from_utf8(&secret).map_err(|_| unreadable())?);
    let business = people::find_business_by_id(db, link.business_id).await?.ok_or_else(unreadable)?.legal_name;
    let expires_at = sealed.code_expires_at.filter(|_| code.is_some()).unwrap_or(link.expires_at);
    Ok(Some(Outgoing { link, to, secret, business, expires_at }))
}

/// It goes out: what was kept for the message alone is emptied. A later code stays.
///
/// # Errors
/// The database fails.
pub async fn empty(tx: &mut PgConnection, link_id: LinkId, code: Option<i16>) -> Result<(), Error> {
    match code {
        None => store::empty_url(tx, link_id).await,
        Some(number) => store::empty_code(tx, link_id, number).await,
    }
}

impl Job for SendLink {
    const KIND: &'static str = "people.send_link";
    const LANE: Lane = Lane::Otp;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let deps = &ctx.deps;
        let mut db = deps.db.acquire().await?;
        let found = find_outgoing(&mut db, &deps.vault, (self.link_id, self.code), ctx.now()).await?;
        let Some(Outgoing { link, to, secret, business, .. }) = found else { return Ok(Done::OK) };
        let to = Email::parse(&to).map_err(|_| Error::Unreadable(self.link_id))?;
        let said = match (self.code, link.purpose) {
            (Some(_), _) => {
                words::LinkCode { business: &business, code: secret.expose_secret() }.say(&link.language)?
            }
            (None, Purpose::Approval) => {
                let until = words::instant(link.expires_at);
                words::ApprovalLink { business: &business, url: secret.expose_secret(), until }.say(&link.language)?
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
        empty(&mut tx, self.link_id, self.code).await?;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
