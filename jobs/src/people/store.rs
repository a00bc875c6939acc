use std::net::{IpAddr, Ipv4Addr};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use sqlx::PgConnection;

use super::{Business, BusinessId, Error, Request, StaffId, Token, Tokens, support::GrantId};

pub(super) async fn insert_business(db: &mut PgConnection, business: &Business) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
         values ($1, $2, $3, $4)",
        business.business_id.0,
        business.handle,
        business.legal_name,
        business.created_at,
    )
    .execute(db)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("people_businesses_handle_key") => Error::HandleTaken(business.handle.clone()),
        _ => Error::Database(error),
    })?;
    Ok(())
}

pub(super) async fn list_businesses(db: &mut PgConnection) -> Result<Vec<Business>, Error> {
    Ok(sqlx::query_as!(
        Business,
        r#"select business_id as "business_id: BusinessId", handle, legal_name, created_at
           from muneem.people_businesses
           order by handle"#,
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn find_business(db: &mut PgConnection, handle: &str) -> Result<Option<Business>, Error> {
    Ok(sqlx::query_as!(
        Business,
        r#"select business_id as "business_id: BusinessId", handle, legal_name, created_at
           from muneem.people_businesses
           where handle = $1"#,
        handle,
    )
    .fetch_optional(db)
    .await?)
}

pub(super) async fn find_business_by_id(db: &mut PgConnection, id: BusinessId) -> Result<Option<Business>, Error> {
    Ok(sqlx::query_as!(
        Business,
        r#"select business_id as "business_id: BusinessId", handle, legal_name, created_at
           from muneem.people_businesses
           where business_id = $1"#,
        id.0,
    )
    .fetch_optional(db)
    .await?)
}

/// A row of `muneem.people_tokens`. Scopes that this version does not know open nothing and are left out.
struct TokenRow {
    public_id: String,
    secret_sha256: Vec<u8>,
    label: String,
    business_id: Option<BusinessId>,
    staff_id: Option<StaffId>,
    scopes: Vec<String>,
    networks: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    exposed_at: Option<DateTime<Utc>>,
    support_grant_id: Option<GrantId>,
}

impl From<TokenRow> for Token {
    fn from(row: TokenRow) -> Self {
        Self {
            public_id: row.public_id,
            label: row.label,
            business_id: row.business_id,
            staff_id: row.staff_id,
            scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
            networks: row.networks.as_deref().map(networks).unwrap_or_default(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            exposed_at: row.exposed_at,
            support_grant_id: row.support_grant_id,
        }
    }
}

/// Tokens with the digests of their secrets: the rest of the query, and its parameters.
macro_rules! tokens {
    ($rest:literal, $($parameter:expr),+ $(,)?) => {
        sqlx::query_as!(
            TokenRow,
            r#"select public_id, secret_sha256, label, business_id as "business_id: BusinessId",
                      staff_id as "staff_id: StaffId", scopes, networks, created_at, expires_at, last_used_at,
                      revoked_at, exposed_at, support_grant_id as "support_grant_id: GrantId"
               from muneem.people_tokens
               "# + $rest,
            $($parameter),+
        )
    };
}

/// What does not read becomes the one network that nobody comes from: a list must never turn into none.
fn networks(list: &[String]) -> Vec<IpNet> {
    let nobody = IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    list.iter().map(|network| network.parse().unwrap_or(nobody)).collect()
}

pub(super) async fn insert_token(db: &mut PgConnection, token: &Token, digest: &[u8; 32]) -> Result<(), Error> {
    let scopes: Vec<String> = token.scopes.iter().map(ToString::to_string).collect();
    let networks: Vec<String> = token.networks.iter().map(ToString::to_string).collect();
    let networks = Some(networks).filter(|networks| !networks.is_empty());
    sqlx::query!(
        "insert into muneem.people_tokens
             (public_id, secret_sha256, label, business_id, scopes, created_at, expires_at, staff_id, networks,
              support_grant_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        token.public_id,
        digest.as_slice(),
        token.label,
        token.business_id as Option<BusinessId>,
        &scopes,
        token.created_at,
        token.expires_at,
        token.staff_id as Option<StaffId>,
        networks.as_deref(),
        token.support_grant_id as Option<GrantId>,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// `None`: no limit.
pub(super) async fn list_tokens(
    db: &mut PgConnection,
    asked: &Tokens<'_>,
    limit: Option<u16>,
) -> Result<Vec<Token>, Error> {
    let rows = tokens!(
        "where ($1::uuid is null or business_id = $1)
               and ($2::text is null
                    or (created_at, public_id) < (
                        select before.created_at, before.public_id
                        from muneem.people_tokens before
                        where before.public_id = $2
                            and ($1::uuid is null or before.business_id = $1)))
               and ($3::bool is null
                    or $3 = (revoked_at is null and (expires_at is null or expires_at > $4)))
           order by created_at desc, public_id desc
           limit $5",
        asked.business as Option<BusinessId>,
        asked.before,
        asked.usable,
        asked.now,
        limit.map(i64::from),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Token::from).collect())
}

/// Whether there is any token, or ever was.
pub(super) async fn has_tokens(db: &mut PgConnection) -> Result<bool, Error> {
    let any =
        sqlx::query_scalar!(r#"select exists (select from muneem.people_tokens) as "any!""#).fetch_one(db).await?;
    Ok(any)
}

/// Waits for whoever else is about to make the first token; held until the transaction ends.
pub(super) async fn lock_first_token(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('muneem.people_first_token', 8787))")
        .execute(tx)
        .await?;
    Ok(())
}

/// The token and the digest of its secret.
pub(super) async fn find_token(db: &mut PgConnection, public_id: &str) -> Result<Option<(Token, Vec<u8>)>, Error> {
    let row = tokens!("where public_id = $1", public_id).fetch_optional(db).await?;
    Ok(row.map(|mut row| {
        let digest = std::mem::take(&mut row.secret_sha256);
        (row.into(), digest)
    }))
}

pub(super) async fn touch_token(db: &mut PgConnection, public_id: &str, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("update muneem.people_tokens set last_used_at = $2 where public_id = $1", public_id, now)
        .execute(db)
        .await?;
    Ok(())
}

/// Whether it was seen in a URL for the first time. The first instant stays.
pub(super) async fn note_exposed(db: &mut PgConnection, public_id: &str, now: DateTime<Utc>) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_tokens set exposed_at = $2 where public_id = $1 and exposed_at is null",
        public_id,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Whether it opens anything; if so, it is not ended before the transaction is over.
pub(super) async fn hold_token(tx: &mut PgConnection, public_id: &str, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.people_hold_token($1, $2) as "held!""#, public_id, now)
        .fetch_one(tx)
        .await?)
}

/// Number of tokens with this id that were not revoked before: none or one.
pub(super) async fn revoke_token(db: &mut PgConnection, public_id: &str, now: DateTime<Utc>) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_tokens set revoked_at = $2 where public_id = $1 and revoked_at is null",
        public_id,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected())
}

/// Holds the key until the transaction ends, without waiting. An advisory lock and not a row: what dies with the
/// transaction needs no lease, and nothing is left to clear up.
pub(super) async fn try_lock_key(tx: &mut PgConnection, request: &Request) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1 || encode($2, 'hex'), 8787)) as "held!""#,
        request.token_id,
        request.key_sha256,
    )
    .fetch_one(tx)
    .await?)
}

/// A remembered answer as it lies.
pub(super) struct Kept {
    pub(super) request_sha256: Vec<u8>,
    pub(super) status: u16,
    pub(super) sealed_for: BusinessId,
    pub(super) answer_sealed: Vec<u8>,
}

/// The remembered answer to a key.
pub(super) async fn find_answer(
    tx: &mut PgConnection,
    request: &Request,
    not_before: DateTime<Utc>,
) -> Result<Option<Kept>, Error> {
    let row = sqlx::query!(
        r#"select request_sha256, status, coalesce(sealed_for, '00000000-0000-0000-0000-000000000000') as "sealed_for!",
             coalesce(answer_sealed, '') as "answer_sealed!"
         from muneem.people_idempotency_keys
         where token_id = $1
             and key_sha256 = $2
             and created_at >= $3"#,
        request.token_id,
        request.key_sha256,
        not_before,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Kept {
        request_sha256: row.request_sha256,
        status: u16::try_from(row.status).unwrap_or(200),
        sealed_for: BusinessId(row.sealed_for),
        answer_sealed: row.answer_sealed,
    }))
}

pub(super) async fn insert_answer(
    tx: &mut PgConnection,
    request: &Request,
    (status, sealed): (u16, &[u8]),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // An answer older than a day may still lie there when the sweep below has not reached it.
    sqlx::query!(
        "delete from muneem.people_idempotency_keys where token_id = $1 and key_sha256 = $2",
        request.token_id,
        request.key_sha256,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into muneem.people_idempotency_keys
             (token_id, key_sha256, request_sha256, status, sealed_for, answer_sealed, created_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        request.token_id,
        request.key_sha256,
        request.request_sha256,
        i16::try_from(status).unwrap_or(i16::MAX),
        request.sealed_for.0,
        sealed,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Each new key sweeps a few old ones away, so that the table holds a day's worth and needs no schedule.
pub(super) async fn forget_answers(tx: &mut PgConnection, before: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.people_idempotency_keys
         where (token_id, key_sha256) in (
             select token_id, key_sha256
             from muneem.people_idempotency_keys
             where created_at < $1
             order by created_at
             limit 16
             for update skip locked
         )",
        before,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Handles of all businesses, the oldest first.
pub async fn list_handles(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("select handle from muneem.people_businesses order by created_at, business_id")
        .fetch_all(conn)
        .await
}

pub(super) async fn enter_business(tx: &mut PgConnection, business: BusinessId) -> Result<(), Error> {
    sqlx::query!(
        "select set_config('muneem.business', $1, true) as business, set_config('role', 'muneem_business', true) as role",
        business.to_string(),
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

pub(super) async fn is_nobodys(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select coalesce(current_setting('muneem.business', true), '') = ''
               and current_user = session_user as "nobodys!""#
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn build_wall(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select muneem.people_build_wall()").execute(conn).await?;
    Ok(())
}

/// The business that the transaction is narrowed to.
pub(super) async fn business_at_hand(tx: &mut PgConnection) -> Result<Option<BusinessId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select nullif(current_setting('muneem.business', true), '')::uuid as "business: BusinessId""#
    )
    .fetch_one(tx)
    .await?)
}

/// For the rest of the transaction, the login's own rights again.
pub(super) async fn leave_business(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!(
        "select set_config('muneem.business', '', true) as business, set_config('role', 'none', true) as role"
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}
