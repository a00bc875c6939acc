use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use subtle::ConstantTimeEq;

use super::{
    VerifyMailIdentity,
    compose::Identity,
    identity_store::{self as store, IdentityRow},
};
use crate::{
    evidence::{Act, By, Object, Word, words},
    messaging::Error,
    outbound::{BadDkimKey, Chance, DkimKey, Email, breaks_a_header},
    people::{self, BusinessId},
    queue::{self, NewJob},
    vault::{Cell, Class, Key, SealedColumn, Vault},
};

const TABLE: &str = "muneem.messaging_mail_identities";
/// How long a code proves something.
const CODE_LIFE: TimeDelta = TimeDelta::hours(24);
/// Guesses at one code.
const TRIES: i32 = 10;
/// Letters of a code: sixty bits, ten guesses.
const CODE_LETTERS: usize = 12;
/// Without those that look alike.
const CODE_ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// What identities hold sealed.
pub(in crate::messaging) const SEALED_IDENTITIES: [SealedColumn; 3] = [
    SealedColumn::of_row(TABLE, "from_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(TABLE, "reply_to_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(TABLE, "dkim_key_sealed", Key::uuid("business_id")),
];

/// What cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentity {
    /// No such business.
    #[error("there is no such business")]
    NoBusiness,
    /// The business has no address of its own.
    #[error("the business has no mail address of its own: set one first")]
    None,
    /// The name could not stand beside an address.
    #[error("the name is empty, longer than 80 characters, or holds a control character or an @")]
    Name,
    /// The signature would not speak for the address.
    #[error("the signing domain must be the domain of the address, or lie above it: DMARC asks for it")]
    Unaligned,
    /// The key will not do.
    #[error("the signing key cannot be used")]
    Key(#[from] BadDkimKey),
    /// Not the code that went there, or no longer.
    #[error("this is not the code that went to the address, or it ran out: set the address again for a new one")]
    Code,
}

/// A key to sign the mail of a business with.
#[derive(Debug)]
pub struct SigningKey {
    /// The domain that answers for the mail.
    pub domain: String,
    /// Which of its keys.
    pub selector: String,
    /// The private key, as [`DkimKey::read`] takes it.
    pub pem: SecretString,
}

/// Whom the mail of a business is to come from.
#[derive(Debug)]
pub struct NewIdentity {
    /// Its address.
    pub from: Email,
    /// The name beside it; `None`: the business's own.
    pub name: Option<String>,
    /// Where answers go; `None`: to the address itself.
    pub reply_to: Option<Email>,
    /// What its mail is signed with; `None`: the key that is there, if it fits the address.
    pub dkim: Option<SigningKey>,
    /// The operator answers for the address herself: no code is sent.
    pub is_vouched_for: bool,
}

/// Whom the mail of a business comes from, with hints in the place of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityInfo {
    /// Whose.
    pub business_id: BusinessId,
    /// Hint of the address.
    pub from: String,
    /// The name beside it.
    pub name: String,
    /// Hint of where answers go.
    pub reply_to: Option<String>,
    /// Name of the TXT record to publish, if its mail is signed.
    pub dkim_dns_name: Option<String>,
    /// Its text.
    pub dkim_dns_record: Option<String>,
    /// When the address was proved; `None`: nothing is sent from it yet.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was set.
    pub updated_at: DateTime<Utc>,
}

fn cell<'a>(business_id: BusinessId, column: &'a str, row: &'a str) -> Cell<'a> {
    Cell { business_id, table: TABLE, column, row }
}

/// Sets or changes whom the mail of a business comes from. A new address is used once its code was shown
/// ([`verify_identity`]); a job sends it.
///
/// # Errors
/// [`Error::MailIdentity`] says what cannot be set up; the vault is sealed, or the database fails.
pub async fn set_identity(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    new: &NewIdentity,
    by: &By<'_>,
) -> Result<IdentityInfo, Error> {
    let mut tx = conn.begin().await?;
    let known = people::find_business_by_id(&mut tx, business).await.map_err(|error| Error::Staff(Box::new(error)))?;
    let known = known.ok_or(BadIdentity::NoBusiness)?;
    let name = checked_name(new.name.as_deref().unwrap_or(&known.legal_name))?;
    let before = store::lock_identity(&mut tx, business).await?;
    let row = business.to_string();
    let mut same_address = false;
    if let Some(before) = &before {
        same_address = open_email(&mut tx, vault, &cell(business, "from_sealed", &row), &before.from_sealed).await?
            == Some(new.from.clone());
    }
    let from_sealed = seal(&mut tx, vault, &cell(business, "from_sealed", &row), &new.from).await?;
    let reply_to_sealed = match &new.reply_to {
        Some(reply_to) => Some(seal(&mut tx, vault, &cell(business, "reply_to_sealed", &row), reply_to).await?),
        None => None,
    };
    let kept_key = before.as_ref().filter(|_| new.dkim.is_none()).and_then(store::Dkim::of);
    let dkim = match &new.dkim {
        Some(given) => {
            let key = DkimKey::read(&given.domain, &given.selector, &given.pem).map_err(BadIdentity::from)?;
            if !key.is_aligned_with(new.from.domain()) {
                return Err(BadIdentity::Unaligned.into());
            }
            let pem = given.pem.expose_secret().as_bytes();
            let sealed = vault.seal(&mut tx, Class::Credential, &cell(business, "dkim_key_sealed", &row), pem).await?;
            let (domain, selector) = (key.domain().to_owned(), key.selector().to_owned());
            Some(store::Dkim { domain, selector, record: key.dns_record(), key_sealed: sealed })
        }
        None => kept_key.filter(|kept| is_below(new.from.domain(), &kept.domain)),
    };
    let verified_at = match &before {
        _ if new.is_vouched_for => Some(by.now),
        Some(before) if same_address => before.verified_at,
        _ => None,
    };
    let identity = IdentityRow {
        business_id: business,
        from_sealed,
        from_domain: new.from.domain().to_owned(),
        from_name: name,
        reply_to_sealed,
        dkim_domain: dkim.as_ref().map(|dkim| dkim.domain.clone()),
        dkim_selector: dkim.as_ref().map(|dkim| dkim.selector.clone()),
        dkim_record: dkim.as_ref().map(|dkim| dkim.record.clone()),
        dkim_key_sealed: dkim.map(|dkim| dkim.key_sealed),
        verified_at,
        updated_at: by.now,
    };
    store::upsert_identity(&mut tx, &identity).await?;
    if verified_at.is_none() {
        queue::enqueue(&mut tx, &NewJob::of(business, &VerifyMailIdentity {})?).await?;
    }
    let details = json!({ "domain": identity.from_domain, "signed": identity.dkim_domain.is_some(),
        "vouched_for": new.is_vouched_for, "verified": verified_at.is_some() });
    record(&mut tx, words::MAIL_IDENTITY_SET, business, details, by).await?;
    let info = info(&mut tx, vault, &identity).await?;
    tx.commit().await?;
    Ok(info)
}

/// Confirms the address with the code that went there; from then on mail comes from it.
///
/// # Errors
/// [`BadIdentity::Code`] after a wrong guess, ten of them, or a day; [`BadIdentity::None`].
pub async fn verify_identity(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    code: &str,
    by: &By<'_>,
) -> Result<IdentityInfo, Error> {
    let mut tx = conn.begin().await?;
    let waiting = store::lock_code(&mut tx, business).await?.ok_or(BadIdentity::None)?;
    let right = waiting.sha256.is_some_and(|sha256| bool::from(sha256.as_slice().ct_eq(&code_digest(business, code))));
    let in_time = waiting.expires_at.is_some_and(|end| by.now < end) && waiting.tries < TRIES;
    if !(right && in_time) {
        store::count_try(&mut tx, business).await?;
        // The guess counts although it was wrong.
        tx.commit().await?;
        return Err(BadIdentity::Code.into());
    }
    store::set_verified(&mut tx, business, by.now).await?;
    record(&mut tx, words::MAIL_IDENTITY_VERIFIED, business, json!({}), by).await?;
    let row = store::lock_identity(&mut tx, business).await?.ok_or(BadIdentity::None)?;
    let info = info(&mut tx, vault, &row).await?;
    tx.commit().await?;
    Ok(info)
}

/// Counts a wrong guess at a business's code, for a caller whose own transaction was given up with it.
///
/// # Errors
/// The database fails.
pub async fn count_guess(conn: &mut PgConnection, business: BusinessId) -> Result<(), Error> {
    store::count_try(conn, business).await
}

/// Takes the address and its key away; mail then comes from the installation's address. Whether there was one.
///
/// # Errors
/// The database fails.
pub async fn remove_identity(conn: &mut PgConnection, business: BusinessId, by: &By<'_>) -> Result<bool, Error> {
    let mut tx = conn.begin().await?;
    let removed = store::delete_identity(&mut tx, business).await?;
    if removed {
        record(&mut tx, words::MAIL_IDENTITY_REMOVED, business, json!({}), by).await?;
    }
    tx.commit().await?;
    Ok(removed)
}

/// Whom the mail of this business comes from, or of all, oldest first, with hints in the place of addresses.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn list_identities(
    conn: &mut PgConnection,
    vault: &Vault,
    business: Option<BusinessId>,
) -> Result<Vec<IdentityInfo>, Error> {
    let mut all = Vec::new();
    for row in store::list_identities(conn, business).await? {
        all.push(info(conn, vault, &row).await?);
    }
    Ok(all)
}

/// As [`list_identities`], for one business.
///
/// # Errors
/// As [`list_identities`].
pub async fn find_identity(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
) -> Result<Option<IdentityInfo>, Error> {
    Ok(list_identities(conn, vault, Some(business)).await?.pop())
}

/// Whom a mail of this business comes from now, for [`super::compose`]: its own proved address with its key, or else
/// the installation's address under its name, with answers to its contact.
///
/// # Errors
/// The vault is sealed, a stored key does not read, or the database fails.
pub async fn identity_of(conn: &mut PgConnection, vault: &Vault, business: BusinessId) -> Result<Identity, Error> {
    let row = business.to_string();
    let own = store::find_identity(conn, business).await?.filter(|own| own.verified_at.is_some());
    if let Some(own) = own
        && let Some(from) = open_email(conn, vault, &cell(business, "from_sealed", &row), &own.from_sealed).await?
    {
        let reply_to = match &own.reply_to_sealed {
            Some(sealed) => open_email(conn, vault, &cell(business, "reply_to_sealed", &row), sealed).await?,
            None => None,
        };
        let dkim = match store::Dkim::of(&own) {
            Some(dkim) => {
                let pem = vault.open(conn, &cell(business, "dkim_key_sealed", &row), &dkim.key_sealed).await?;
                let pem = SecretString::from(String::from_utf8_lossy(&pem).into_owned());
                Some(Arc::new(DkimKey::read(&dkim.domain, &dkim.selector, &pem).map_err(BadIdentity::from)?))
            }
            None => None,
        };
        let reply_to = Some(reply_to.unwrap_or_else(|| from.clone()));
        return Ok(Identity { name: own.from_name, from: Some(from), reply_to, dkim });
    }
    let face = people::open_face(conn, vault, business).await.map_err(|error| Error::Staff(Box::new(error)))?;
    let (name, reply_to) = face.ok_or(BadIdentity::NoBusiness)?;
    Ok(Identity { name, from: None, reply_to, dkim: None })
}

/// Makes the code for an address that waits for one, and answers it with the address and the end of the code's life.
/// `None`: nothing waits. The one before is void.
pub(super) async fn make_code(
    tx: &mut PgConnection,
    (vault, chance): (&Vault, &dyn Chance),
    business: BusinessId,
    now: DateTime<Utc>,
) -> Result<Option<(Email, SecretString, DateTime<Utc>)>, Error> {
    let waiting = store::lock_identity(tx, business).await?.filter(|row| row.verified_at.is_none());
    let Some(waiting) = waiting else { return Ok(None) };
    let row = business.to_string();
    let from = open_email(tx, vault, &cell(business, "from_sealed", &row), &waiting.from_sealed).await?;
    let Some(from) = from else { return Ok(None) };
    let mut random = [0; CODE_LETTERS];
    chance.fill(&mut random);
    let letters: Vec<char> = random.iter().map(|byte| char::from(CODE_ALPHABET[usize::from(byte & 31)])).collect();
    let code = letters.chunks(4).map(|four| four.iter().collect::<String>()).collect::<Vec<_>>().join("-");
    let end = now + CODE_LIFE;
    store::set_code(tx, business, &code_digest(business, &code), end).await?;
    Ok(Some((from, code.into(), end)))
}

/// However it is typed: capitals, spaces and dashes make no difference.
fn code_digest(business: BusinessId, code: &str) -> [u8; 32] {
    let letters: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|one| one.to_ascii_lowercase()).collect();
    Sha256::digest([business.0.as_bytes().as_slice(), letters.as_bytes()].concat()).into()
}

fn checked_name(name: &str) -> Result<String, BadIdentity> {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let bad =
        name.is_empty() || name.chars().count() > 80 || name.chars().any(|one| breaks_a_header(one) || one == '@');
    if bad { Err(BadIdentity::Name) } else { Ok(name) }
}

fn is_below(domain: &str, above: &str) -> bool {
    domain == above || domain.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'))
}

async fn seal(conn: &mut PgConnection, vault: &Vault, cell: &Cell<'_>, email: &Email) -> Result<Vec<u8>, Error> {
    Ok(vault.seal(conn, Class::Contact, cell, email.expose().as_bytes()).await?)
}

async fn open_email(
    conn: &mut PgConnection,
    vault: &Vault,
    cell: &Cell<'_>,
    sealed: &[u8],
) -> Result<Option<Email>, Error> {
    let plain = vault.open(conn, cell, sealed).await?;
    Ok(std::str::from_utf8(&plain).ok().and_then(|text| Email::parse(text).ok()))
}

async fn info(conn: &mut PgConnection, vault: &Vault, row: &IdentityRow) -> Result<IdentityInfo, Error> {
    let (business, id) = (row.business_id, row.business_id.to_string());
    let from = open_email(conn, vault, &cell(business, "from_sealed", &id), &row.from_sealed).await?;
    let reply_to = match &row.reply_to_sealed {
        Some(sealed) => open_email(conn, vault, &cell(business, "reply_to_sealed", &id), sealed).await?,
        None => None,
    };
    let names = row.dkim_selector.as_ref().zip(row.dkim_domain.as_ref());
    Ok(IdentityInfo {
        business_id: business,
        from: from.map(|from| from.hint()).unwrap_or_default(),
        name: row.from_name.clone(),
        reply_to: reply_to.map(|reply_to| reply_to.hint()),
        dkim_dns_name: names.map(|(selector, domain)| format!("{selector}._domainkey.{domain}")),
        dkim_dns_record: row.dkim_record.clone(),
        verified_at: row.verified_at,
        updated_at: row.updated_at,
    })
}

async fn record(
    tx: &mut PgConnection,
    word: Word,
    business: BusinessId,
    details: serde_json::Value,
    by: &By<'_>,
) -> Result<(), Error> {
    let object = Object { kind: "mail_identity", id: &business.to_string() };
    by.record(tx, Act { word, business: Some(business), object, details }).await?;
    Ok(())
}
