use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{messaging::Error, people::BusinessId};

/// A row of `muneem.messaging_mail_identities`, less its code.
pub(super) struct IdentityRow {
    pub(super) business_id: BusinessId,
    pub(super) from_sealed: Vec<u8>,
    pub(super) from_domain: String,
    pub(super) from_name: String,
    pub(super) reply_to_sealed: Option<Vec<u8>>,
    pub(super) dkim_domain: Option<String>,
    pub(super) dkim_selector: Option<String>,
    pub(super) dkim_record: Option<String>,
    pub(super) dkim_key_sealed: Option<Vec<u8>>,
    pub(super) verified_at: Option<DateTime<Utc>>,
    pub(super) updated_at: DateTime<Utc>,
}

/// Its signing key.
pub(super) struct Dkim {
    pub(super) domain: String,
    pub(super) selector: String,
    pub(super) record: String,
    pub(super) key_sealed: Vec<u8>,
}

impl Dkim {
    pub(super) fn of(row: &IdentityRow) -> Option<Self> {
        Some(Self {
            domain: row.dkim_domain.clone()?,
            selector: row.dkim_selector.clone()?,
            record: row.dkim_record.clone()?,
            key_sealed: row.dkim_key_sealed.clone()?,
        })
    }
}

/// The code that an address waits for.
pub(super) struct CodeRow {
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) tries: i32,
}

pub(super) async fn list_identities(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<IdentityRow>, Error> {
    Ok(sqlx::query_as!(
        IdentityRow,
        r#"select business_id as "business_id: BusinessId", from_sealed, from_domain, from_name, reply_to_sealed,
                  dkim_domain, dkim_selector, dkim_record, dkim_key_sealed, verified_at, updated_at
           from muneem.messaging_mail_identities
           where $1::uuid is null or business_id = $1
           order by created_at, business_id"#,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?)
}

pub(super) async fn find_identity(conn: &mut PgConnection, business: BusinessId) -> Result<Option<IdentityRow>, Error> {
    Ok(list_identities(conn, Some(business)).await?.pop())
}

/// Held until the transaction ends.
pub(super) async fn lock_identity(conn: &mut PgConnection, business: BusinessId) -> Result<Option<IdentityRow>, Error> {
    Ok(sqlx::query_as!(
        IdentityRow,
        r#"select business_id as "business_id: BusinessId", from_sealed, from_domain, from_name, reply_to_sealed,
                  dkim_domain, dkim_selector, dkim_record, dkim_key_sealed, verified_at, updated_at
           from muneem.messaging_mail_identities
           where business_id = $1
           for update"#,
        business.0,
    )
    .fetch_optional(conn)
    .await?)
}

/// Sets everything; a code that waited is void.
pub(super) async fn upsert_identity(conn: &mut PgConnection, row: &IdentityRow) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_mail_identities
             (business_id, from_sealed, from_domain, from_name, reply_to_sealed, dkim_domain, dkim_selector, dkim_record,
              dkim_key_sealed, verified_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
         on conflict (business_id) do update
         set from_sealed = excluded.from_sealed,
             from_domain = excluded.from_domain,
             from_name = excluded.from_name,
             reply_to_sealed = excluded.reply_to_sealed,
             dkim_domain = excluded.dkim_domain,
             dkim_selector = excluded.dkim_selector,
             dkim_record = excluded.dkim_record,
             dkim_key_sealed = excluded.dkim_key_sealed,
             verified_at = excluded.verified_at,
             code_sha256 = null,
             code_expires_at = null,
             code_tries = 0,
             updated_at = excluded.updated_at",
        row.business_id.0,
        row.from_sealed,
        row.from_domain,
        row.from_name,
        row.reply_to_sealed,
        row.dkim_domain,
        row.dkim_selector,
        row.dkim_record,
        row.dkim_key_sealed,
        row.verified_at,
        row.updated_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn lock_code(conn: &mut PgConnection, business: BusinessId) -> Result<Option<CodeRow>, Error> {
    Ok(sqlx::query_as!(
        CodeRow,
        "select code_sha256 as sha256, code_expires_at as expires_at, code_tries as tries
         from muneem.messaging_mail_identities
         where business_id = $1
         for update",
        business.0,
    )
    .fetch_optional(conn)
    .await?)
}

pub(super) async fn set_code(
    conn: &mut PgConnection,
    business: BusinessId,
    sha256: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_mail_identities
         set code_sha256 = $2, code_expires_at = $3, code_tries = 0
         where business_id = $1",
        business.0,
        sha256,
        expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn count_try(conn: &mut PgConnection, business: BusinessId) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_mail_identities set code_tries = code_tries + 1 where business_id = $1",
        business.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The address is proved; its code is used up.
pub(super) async fn set_verified(
    conn: &mut PgConnection,
    business: BusinessId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_mail_identities
         set verified_at = $2, updated_at = $2, code_sha256 = null, code_expires_at = null, code_tries = 0
         where business_id = $1",
        business.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete_identity(conn: &mut PgConnection, business: BusinessId) -> Result<bool, Error> {
    let done = sqlx::query!("delete from muneem.messaging_mail_identities where business_id = $1", business.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
