//! Links that somebody outside holds: a person who approves one decision, a Data Principal who sees what is hers.
//!
//! ```text
//! make ─▶ message with the address ─▶ GET: a page with a button, nothing happens
//!      ─▶ POST: a code goes to the phone or mail address that the link was made for
//!      ─▶ right code: a proof, for a quarter of an hour ─▶ POST with the proof: what the link is for
//! ```
//!
//! - The address holds 256 bits of chance and the table a digest of them: it is not guessed, and not read off a backup.
//! - A link is good for one [`Purpose`] about one thing, until it expires, is revoked or used up. All these, and a link
//!   that never was, have one answer.
//! - Scanners of mails and messengers follow every link they see: nothing happens before somebody presses a button, and
//!   nothing is shown before she has entered the code. Whoever the link was forwarded to does not get the code.
//! - A code has five tries and a link ten codes: with the address in hand, fifty guesses at a million.

mod error;
mod send_link;
mod store;
#[cfg(test)]
mod tests;
mod words;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{BusinessId, ContactKind, enrol, signin};
use crate::{
    outbound::{Chance, Email, Phone},
    queue::{self, NewJob},
    vault::{Cell, Class, Vault},
};

pub use error::Error;
pub use send_link::{Outgoing, SendLink, empty, find_outgoing};
pub use words::instant;

crate::id_type! {
    /// One link.
    LinkId
}

const TABLE: &str = "muneem.people_links";
/// The job of messaging that sends a link to a phone; links lie below messaging and know it by name only.
const TEXT_KIND: &str = "messaging.send_link";
/// Life of a code.
const CODE_LIFE: TimeDelta = TimeDelta::minutes(10);
/// Wrong entries that a code bears.
const CODE_TRIES: i16 = 5;
/// Codes in the life of a link.
const CODES_MAX: i16 = 10;
/// How long a right code is good for.
const PROOF_LIFE: TimeDelta = TimeDelta::minutes(15);

/// What a link is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// One decision of somebody outside ([`super::approval`]).
    Approval,
    /// The pages of one Data Principal.
    Portal,
}

impl Purpose {
    /// As it stands in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Portal => "portal",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Approval, Self::Portal].into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// Where a link goes.
#[derive(Clone, Debug)]
pub enum Contact {
    /// To a phone.
    Phone(Phone),
    /// To a mail address.
    Email(Email),
}

impl Contact {
    /// Which of the two.
    pub fn kind(&self) -> ContactKind {
        match self {
            Self::Phone(_) => ContactKind::Phone,
            Self::Email(_) => ContactKind::Email,
        }
    }

    /// Enough for its owner to recognise it: `…10`, `a…@example.in`.
    pub fn hint(&self) -> String {
        match self {
            Self::Phone(phone) => {
                let digits = phone.digits();
                format!("…{}", &digits[digits.len().saturating_sub(2)..])
            }
            Self::Email(email) => email.hint(),
        }
    }

    pub(super) fn canonical(&self) -> Result<String, super::Error> {
        match self {
            Self::Phone(phone) => Ok(phone.as_e164().to_owned()),
            Self::Email(email) => enrol::canonical_email(&email.expose()),
        }
    }
}

/// What a link is made from.
#[derive(Clone, Debug)]
pub struct NewLink<'a> {
    /// Whose.
    pub business_id: BusinessId,
    /// What it is good for.
    pub purpose: Purpose,
    /// The thing it is about.
    pub subject_id: Uuid,
    /// Where it goes, and with it the codes.
    pub contact: &'a Contact,
    /// Business whose WhatsApp account carries them; `None`: its own. Mail is carried by the installation's server.
    pub carried_by: Option<BusinessId>,
    /// BCP 47, of message and page.
    pub language: &'a str,
    /// Its last instant; ninety days away at most.
    pub expires_at: DateTime<Utc>,
    /// How often it may be used.
    pub uses: i16,
    /// Who makes it, as [`super::Authority::name`] says.
    pub made_by: &'a str,
    /// What stands before its path: `https://muneem.example.in`.
    pub origin: &'a str,
}

/// A link without its secret and without whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Link {
    /// Its id.
    pub link_id: LinkId,
    /// Whose.
    pub business_id: BusinessId,
    /// What it is good for.
    pub purpose: Purpose,
    /// The thing it is about.
    pub subject_id: Uuid,
    /// BCP 47.
    pub language: String,
    /// `phone` or `email`.
    pub channel: String,
    /// Business whose WhatsApp account carries it; `None`: its own, or a mail server.
    pub carried_by: Option<BusinessId>,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub made_at: DateTime<Utc>,
    /// Its last instant.
    pub expires_at: DateTime<Utc>,
    /// How often it may still be used.
    pub uses_left: i16,
    /// When its holder first proved to hold the phone or mail address.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was last used.
    pub used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Link {
    /// Whether it opens anything at `now`.
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.uses_left > 0 && now < self.expires_at
    }
}

/// A link whose holder has entered the code within the last quarter of an hour.
#[derive(Clone, Debug)]
pub struct Proved(Link);

impl Proved {
    /// The link.
    pub fn link(&self) -> &Link {
        &self.0
    }
}

/// What came of entering a code.
#[derive(Debug)]
pub enum Entered {
    /// The one that was sent. It is used up; what acts from here on is this proof.
    Right(SecretString),
    /// Another; this many tries are left, and at zero a new code is needed.
    Wrong {
        /// Tries.
        tries_left: i16,
    },
    /// There is no code to enter: none was asked for, or it ran out.
    Void,
}

/// Makes a link and the job that sends it. Answers it with its address, for whoever hands it over herself: it is not
/// shown again.
///
/// # Errors
/// Something cannot be sealed, or the database fails.
pub async fn make(
    tx: &mut PgConnection,
    vault: &Vault,
    new: &NewLink<'_>,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<(Link, SecretString), Error> {
    let now = now.trunc_subsecs(6);
    let link_id = LinkId(chance.uuid_v7(now));
    let secret = signin::new_token(chance);
    let url = SecretString::from(format!("{}/r/{}", new.origin, secret.expose_secret()));
    let digest = signin::token_digest(secret.expose_secret()).ok_or(Error::NoSuchLink)?;
    let row = link_id.to_string();
    let cell = |column| Cell { business_id: new.business_id, table: TABLE, column, row: &row };
    let canonical = new.contact.canonical()?;
    let sealed = match new.contact {
        Contact::Phone(phone) => phone.as_e164().to_owned(),
        Contact::Email(email) => email.expose(),
    };
    let contact = vault.seal(tx, Class::Contact, &cell("contact_sealed"), sealed.as_bytes()).await?;
    let index = vault.index(tx, &enrol::index_of(new.contact.kind()), &canonical).await?;
    let url_sealed = vault.seal(tx, Class::Credential, &cell("url_sealed"), url.expose_secret().as_bytes()).await?;
    let link = Link {
        link_id,
        business_id: new.business_id,
        purpose: new.purpose,
        subject_id: new.subject_id,
        language: new.language.to_owned(),
        channel: store::channel(new.contact.kind()).to_owned(),
        carried_by: new.carried_by.filter(|_| new.contact.kind() == ContactKind::Phone),
        made_by: new.made_by.to_owned(),
        made_at: now,
        expires_at: new.expires_at.trunc_subsecs(6),
        uses_left: new.uses,
        verified_at: None,
        used_at: None,
        revoked_at: None,
    };
    let sealed = store::SealedLink { secret_sha256: &digest, contact: &contact, index: &index, url: &url_sealed };
    store::insert_link(tx, &link, &sealed).await?;
    queue::enqueue(tx, &sending(&link, None)?).await?;
    Ok((link, url))
}

/// The open link with this secret and purpose.
///
/// # Errors
/// [`Error::NoSuchLink`]: unknown, of another purpose, expired, revoked or used up; nobody is told which.
pub async fn find(db: &mut PgConnection, secret: &str, purpose: Purpose, now: DateTime<Utc>) -> Result<Link, Error> {
    let digest = signin::token_digest(secret).ok_or(Error::NoSuchLink)?;
    let link = store::find_by_secret(db, &digest).await?;
    link.filter(|link| link.purpose == purpose && link.is_open(now)).ok_or(Error::NoSuchLink)
}

/// The link with this id, whatever became of it.
///
/// # Errors
/// [`Error::NoSuchLink`]
pub async fn load(db: &mut PgConnection, link_id: LinkId) -> Result<Link, Error> {
    store::find_by_id(db, link_id).await?.ok_or(Error::NoSuchLink)
}

/// All links about one thing, the newest first.
///
/// # Errors
/// The database fails.
pub async fn list(
    db: &mut PgConnection,
    business: BusinessId,
    purpose: Purpose,
    subject: Uuid,
) -> Result<Vec<Link>, Error> {
    store::list(db, business, purpose, subject).await
}

/// Makes a code for the link's holder and the job that sends it. Older codes stop working.
///
/// # Errors
/// [`Error::NoSuchLink`]; [`Error::TooManyCodes`].
pub async fn make_code(
    db: &mut PgConnection,
    vault: &Vault,
    (secret, purpose): (&str, Purpose),
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Link, Error> {
    let mut tx = db.begin().await?;
    let link = locked(&mut tx, secret, purpose, now).await?;
    let code = signin::new_code(chance);
    let digest = signin::code_digest(secret, code.expose_secret());
    let row = link.link_id.to_string();
    let cell = Cell { business_id: link.business_id, table: TABLE, column: "code_sealed", row: &row };
    let sealed = vault.seal(&mut tx, Class::Credential, &cell, code.expose_secret().as_bytes()).await?;
    let expires_at = (now + CODE_LIFE).trunc_subsecs(6);
    let fresh = store::FreshCode { sha256: &digest, sealed: &sealed, expires_at, tries: CODE_TRIES, most: CODES_MAX };
    let number = store::set_code(&mut tx, link.link_id, &fresh).await?.ok_or(Error::TooManyCodes)?;
    queue::enqueue(&mut tx, &sending(&link, Some(number))?).await?;
    tx.commit().await?;
    Ok(link)
}

/// Enters a code. Right or wrong, it costs a try, which is committed here.
///
/// # Errors
/// [`Error::NoSuchLink`]
pub async fn enter_code(
    db: &mut PgConnection,
    (secret, purpose): (&str, Purpose),
    typed: &str,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Entered, Error> {
    let mut tx = db.begin().await?;
    let link = locked(&mut tx, secret, purpose, now).await?;
    let Some((sha256, tries_left)) = store::spend_try(&mut tx, link.link_id, now).await? else {
        // Ended here, not when the connection is next used: until then the link would be held.
        tx.rollback().await?;
        return Ok(Entered::Void);
    };
    let typed: String = typed.chars().filter(|character| !character.is_whitespace()).collect();
    let entered = signin::code_digest(secret, &typed);
    if !bool::from(subtle::ConstantTimeEq::ct_eq(&entered[..], &sha256[..])) {
        tx.commit().await?;
        return Ok(Entered::Wrong { tries_left });
    }
    let proof = signin::new_token(chance);
    let digest = proof_digest(proof.expose_secret());
    store::set_proof(&mut tx, link.link_id, &digest, (now + PROOF_LIFE).trunc_subsecs(6), now.trunc_subsecs(6)).await?;
    tx.commit().await?;
    Ok(Entered::Right(proof))
}

/// The link, if `proof` is what its right code gave within the last quarter of an hour. It is held until the
/// transaction ends.
///
/// # Errors
/// [`Error::NoSuchLink`]; [`Error::NotProved`]: a code must be entered first, or once more.
pub async fn prove(
    tx: &mut PgConnection,
    (secret, purpose): (&str, Purpose),
    proof: &str,
    now: DateTime<Utc>,
) -> Result<Proved, Error> {
    let link = locked(tx, secret, purpose, now).await?;
    if store::has_proof(tx, link.link_id, &proof_digest(proof), now).await? {
        Ok(Proved(link))
    } else {
        Err(Error::NotProved)
    }
}

/// Uses the link once, in the transaction that does what it is for; its last use ends the proof too.
///
/// # Errors
/// [`Error::NoSuchLink`]: somebody else used it up.
pub async fn use_up(tx: &mut PgConnection, proved: &Proved, now: DateTime<Utc>) -> Result<(), Error> {
    match store::use_up(tx, proved.0.link_id, now.trunc_subsecs(6)).await? {
        0 => Err(Error::NoSuchLink),
        _ => Ok(()),
    }
}

/// Revokes a link; whom it was for is forgotten. Again, or after its use, is no error and no change. Whether it was
/// open.
///
/// # Errors
/// The database fails.
pub async fn revoke(tx: &mut PgConnection, link_id: LinkId, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(store::revoke(tx, link_id, now.trunc_subsecs(6)).await? == 1)
}

/// Revokes every link about one thing that was not used.
///
/// # Errors
/// The database fails.
pub async fn revoke_all(
    tx: &mut PgConnection,
    purpose: Purpose,
    subject: Uuid,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    store::revoke_all(tx, purpose, subject, now.trunc_subsecs(6)).await
}

/// The blind indexes that this contact may be stored under, to recognise a person of staff behind it.
pub(super) async fn indexes_of(db: &mut PgConnection, vault: &Vault, contact: &Contact) -> Result<Vec<Vec<u8>>, Error> {
    let canonical = contact.canonical()?;
    let indexes = vault.indexes(db, &enrol::index_of(contact.kind()), &canonical).await?;
    Ok(indexes.iter().map(|index| index.digest.to_vec()).collect())
}

/// The job that sends a link, or its code with this number.
fn sending(link: &Link, code: Option<i16>) -> Result<NewJob, Error> {
    let job = SendLink { link_id: link.link_id, code };
    if link.channel == store::channel(ContactKind::Email) {
        return Ok(NewJob::of(link.business_id, &job)?);
    }
    let payload = serde_json::json!({ "link_id": job.link_id, "code": job.code });
    Ok(NewJob::named(TEXT_KIND, link.business_id, payload))
}

async fn locked(tx: &mut PgConnection, secret: &str, purpose: Purpose, now: DateTime<Utc>) -> Result<Link, Error> {
    let digest = signin::token_digest(secret).ok_or(Error::NoSuchLink)?;
    let link = store::lock_by_secret(tx, &digest).await?;
    link.filter(|link| link.purpose == purpose && link.is_open(now)).ok_or(Error::NoSuchLink)
}

fn proof_digest(proof: &str) -> [u8; 32] {
    Sha256::digest(proof).into()
}
