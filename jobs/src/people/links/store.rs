use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Link, LinkId, Purpose};
use crate::{
    people::{BusinessId, ContactKind},
    vault::BlindIndex,
};

/// As it stands in the table.
pub(super) const fn channel(kind: ContactKind) -> &'static str {
    match kind {
        ContactKind::Phone => "phone",
        ContactKind::Email => "email",
    }
}

/// What of a link is sealed or a digest.
pub(super) struct SealedLink<'a> {
    pub(super) secret_sha256: &'a [u8; 32],
    pub(super) contact: &'a [u8],
    pub(super) index: &'a BlindIndex,
    pub(super) url: &'a [u8],
}

pub(super) async fn insert_link(db: &mut PgConnection, link: &Link, sealed: &SealedLink<'_>) -> Result<(), Error> {
    let index = Some((sealed.index.digest.as_slice(), i32::from(sealed.index.version)));
    let (phone, email) = if link.channel == channel(ContactKind::Phone) { (index, None) } else { (None, index) };
    sqlx::query!(
        "insert into muneem.people_links
             (link_id, secret_sha256, business_id, purpose, subject_id, language, channel, contact_sealed,
              phone_index, phone_index_version, email_index, email_index_version, url_sealed, made_by, made_at,
              expires_at, uses_left, carried_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        link.link_id.0,
        sealed.secret_sha256.as_slice(),
        link.business_id.0,
        link.purpose.as_str(),
        link.subject_id,
        link.language,
        link.channel,
        sealed.contact,
        phone.map(|(digest, _)| digest),
        phone.map(|(_, version)| version),
        email.map(|(digest, _)| digest),
        email.map(|(_, version)| version),
        sealed.url,
        link.made_by,
        link.made_at,
        link.expires_at,
        link.uses_left,
        link.carried_by as Option<BusinessId>,
    )
    .execute(db)
    .await?;
    Ok(())
}

struct LinkRow {
    link_id: LinkId,
    business_id: BusinessId,
    purpose: String,
    subject_id: Uuid,
    language: String,
    channel: String,
    carried_by: Option<BusinessId>,
    made_by: String,
    made_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    uses_left: i16,
    verified_at: Option<DateTime<Utc>>,
    used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl LinkRow {
    /// A purpose that this version does not know opens nothing.
    fn read(self) -> Option<Link> {
        Some(Link {
            purpose: Purpose::of(&self.purpose)?,
            link_id: self.link_id,
            business_id: self.business_id,
            subject_id: self.subject_id,
            language: self.language,
            channel: self.channel,
            carried_by: self.carried_by,
            made_by: self.made_by,
            made_at: self.made_at,
            expires_at: self.expires_at,
            uses_left: self.uses_left,
            verified_at: self.verified_at,
            used_at: self.used_at,
            revoked_at: self.revoked_at,
        })
    }
}

/// Links without their secrets: the rest of the query, and its parameters.
macro_rules! links {
    ($rest:literal, $($parameter:expr),+ $(,)?) => {
        sqlx::query_as!(
            LinkRow,
            r#"select link_id as "link_id: LinkId", business_id as "business_id: BusinessId", purpose, subject_id,
                      language, channel, carried_by as "carried_by: BusinessId", made_by, made_at, expires_at,
                      uses_left, verified_at, used_at, revoked_at
               from muneem.people_links
               "# + $rest,
            $($parameter),+
        )
    };
}

pub(super) async fn find_by_secret(db: &mut PgConnection, sha256: &[u8; 32]) -> Result<Option<Link>, Error> {
    let row = links!("where secret_sha256 = $1", sha256.as_slice(),).fetch_optional(db).await?;
    Ok(row.and_then(LinkRow::read))
}

pub(super) async fn lock_by_secret(tx: &mut PgConnection, sha256: &[u8; 32]) -> Result<Option<Link>, Error> {
    let row = links!("where secret_sha256 = $1 for update", sha256.as_slice(),).fetch_optional(tx).await?;
    Ok(row.and_then(LinkRow::read))
}

pub(super) async fn find_by_id(db: &mut PgConnection, link_id: LinkId) -> Result<Option<Link>, Error> {
    let row = links!("where link_id = $1", link_id.0,).fetch_optional(db).await?;
    Ok(row.and_then(LinkRow::read))
}

pub(super) async fn list(
    db: &mut PgConnection,
    business: BusinessId,
    purpose: Purpose,
    subject: Uuid,
) -> Result<Vec<Link>, Error> {
    let rows = links!(
        "where business_id = $1
               and purpose = $2
               and subject_id = $3
           order by link_id desc",
        business.0,
        purpose.as_str(),
        subject,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(LinkRow::read).collect())
}

/// A code as it is stored.
pub(super) struct FreshCode<'a> {
    pub(super) sha256: &'a [u8; 32],
    pub(super) sealed: &'a [u8],
    pub(super) expires_at: DateTime<Utc>,
    pub(super) tries: i16,
    pub(super) most: i16,
}

/// The code's number in the life of the link; none when it has had them all.
pub(super) async fn set_code(
    tx: &mut PgConnection,
    link_id: LinkId,
    code: &FreshCode<'_>,
) -> Result<Option<i16>, Error> {
    Ok(sqlx::query_scalar!(
        "update muneem.people_links
         set code_sha256 = $2, code_sealed = $3, code_expires_at = $4, code_tries_left = $5,
             codes_made = codes_made + 1
         where link_id = $1
             and codes_made < $6
         returning codes_made",
        link_id.0,
        code.sha256.as_slice(),
        code.sealed,
        code.expires_at,
        code.tries,
        code.most,
    )
    .fetch_optional(tx)
    .await?)
}

/// Takes one try off the code in force: its digest, and the tries that are left after this one.
pub(super) async fn spend_try(
    tx: &mut PgConnection,
    link_id: LinkId,
    now: DateTime<Utc>,
) -> Result<Option<(Vec<u8>, i16)>, Error> {
    let row = sqlx::query!(
        r#"update muneem.people_links
           set code_tries_left = code_tries_left - 1
           where link_id = $1
               and code_tries_left > 0
               and code_expires_at > $2
           returning code_sha256 as "sha256!", code_tries_left as "tries_left!""#,
        link_id.0,
        now,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.sha256, row.tries_left)))
}

/// The code has done its work; from here on the proof acts.
pub(super) async fn set_proof(
    tx: &mut PgConnection,
    link_id: LinkId,
    sha256: &[u8; 32],
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_links
         set proof_sha256 = $2, proof_expires_at = $3, verified_at = coalesce(verified_at, $4),
             code_sha256 = null, code_sealed = null, code_expires_at = null, code_tries_left = null
         where link_id = $1",
        link_id.0,
        sha256.as_slice(),
        expires_at,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn has_proof(
    tx: &mut PgConnection,
    link_id: LinkId,
    sha256: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let kept = sqlx::query_scalar!(
        "select proof_sha256 from muneem.people_links where link_id = $1 and proof_expires_at > $2",
        link_id.0,
        now,
    )
    .fetch_optional(tx)
    .await?;
    Ok(kept.flatten().is_some_and(|kept| subtle::ConstantTimeEq::ct_eq(&kept[..], &sha256[..]).into()))
}

pub(super) async fn use_up(tx: &mut PgConnection, link_id: LinkId, now: DateTime<Utc>) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_links
         set uses_left = uses_left - 1, used_at = $2,
             proof_sha256 = case when uses_left > 1 then proof_sha256 end,
             proof_expires_at = case when uses_left > 1 then proof_expires_at end
         where link_id = $1
             and uses_left > 0
             and revoked_at is null
             and expires_at > $2",
        link_id.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(outcome.rows_affected())
}

/// Number of links that were open and unused: none or one.
pub(super) async fn revoke(tx: &mut PgConnection, link_id: LinkId, now: DateTime<Utc>) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_links
         set revoked_at = $2, contact_sealed = null, url_sealed = null,
             phone_index = null, phone_index_version = null, email_index = null, email_index_version = null,
             code_sha256 = null, code_sealed = null, code_expires_at = null, code_tries_left = null,
             proof_sha256 = null, proof_expires_at = null
         where link_id = $1
             and revoked_at is null
             and used_at is null",
        link_id.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(outcome.rows_affected())
}

pub(super) async fn revoke_all(
    tx: &mut PgConnection,
    purpose: Purpose,
    subject: Uuid,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_links
         set revoked_at = $3, contact_sealed = null, url_sealed = null,
             phone_index = null, phone_index_version = null, email_index = null, email_index_version = null,
             code_sha256 = null, code_sealed = null, code_expires_at = null, code_tries_left = null,
             proof_sha256 = null, proof_expires_at = null
         where purpose = $1
             and subject_id = $2
             and revoked_at is null
             and used_at is null",
        purpose.as_str(),
        subject,
        now,
    )
    .execute(tx)
    .await?;
    Ok(outcome.rows_affected())
}

/// What a message is made of, sealed.
pub(super) struct Outgoing {
    pub(super) link: Link,
    pub(super) contact: Option<Vec<u8>>,
    pub(super) url: Option<Vec<u8>>,
    pub(super) code: Option<Vec<u8>>,
    pub(super) code_expires_at: Option<DateTime<Utc>>,
    pub(super) codes_made: i16,
}

pub(super) async fn find_outgoing(db: &mut PgConnection, link_id: LinkId) -> Result<Option<Outgoing>, Error> {
    let Some(link) = find_by_id(&mut *db, link_id).await? else { return Ok(None) };
    let row = sqlx::query!(
        "select contact_sealed, url_sealed, code_sealed, code_expires_at, codes_made
         from muneem.people_links
         where link_id = $1",
        link_id.0,
    )
    .fetch_one(db)
    .await?;
    Ok(Some(Outgoing {
        link,
        contact: row.contact_sealed,
        url: row.url_sealed,
        code: row.code_sealed,
        code_expires_at: row.code_expires_at,
        codes_made: row.codes_made,
    }))
}

/// It has gone out: what was kept for the message alone is emptied.
pub(super) async fn empty_url(tx: &mut PgConnection, link_id: LinkId) -> Result<(), Error> {
    sqlx::query!("update muneem.people_links set url_sealed = null where link_id = $1", link_id.0).execute(tx).await?;
    Ok(())
}

/// As [`empty_url`], for the code with this number; a later one stays.
pub(super) async fn empty_code(tx: &mut PgConnection, link_id: LinkId, number: i16) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_links set code_sealed = null where link_id = $1 and codes_made = $2",
        link_id.0,
        number,
    )
    .execute(tx)
    .await?;
    Ok(())
}
