use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Asked, Error, Grant, GrantId};
use crate::people::{BusinessId, StaffId};

/// Grants without their reasons: the rest of the query, and its parameters.
macro_rules! grants {
    ($rest:literal, $($parameter:expr),+ $(,)?) => {
        sqlx::query_as!(
            Grant,
            r#"select grant_id as "grant_id: GrantId", business_id as "business_id: BusinessId",
                      granted_by as "granted_by: StaffId", only_staff as "only: StaffId", granted_at, expires_at,
                      ended_at, ended_by
               from muneem.people_support_grants
               "# + $rest,
            $($parameter),+
        )
    };
}

pub(super) async fn insert_grant(tx: &mut PgConnection, grant: &Grant, reason_sealed: &[u8]) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_support_grants
             (grant_id, business_id, reason_sealed, granted_by, granted_at, expires_at, only_staff)
         values ($1, $2, $3, $4, $5, $6, $7)",
        grant.grant_id.0,
        grant.business_id.0,
        reason_sealed,
        grant.granted_by.0,
        grant.granted_at,
        grant.expires_at,
        grant.only as Option<StaffId>,
    )
    .execute(tx)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("people_support_grants_by_its_own_staff") => Error::NotOfBusiness,
        Some("people_support_grants_a_day_at_most") => Error::BadDuration,
        _ => Error::Database(error),
    })?;
    Ok(())
}

pub(super) async fn find_grant(db: &mut PgConnection, grant_id: GrantId) -> Result<Option<Grant>, Error> {
    Ok(grants!("where grant_id = $1", grant_id.0,).fetch_optional(db).await?)
}

/// Held until the transaction ends, so that it is ended once.
pub(super) async fn lock_grant(tx: &mut PgConnection, grant_id: GrantId) -> Result<Option<Grant>, Error> {
    Ok(grants!("where grant_id = $1 for update", grant_id.0,).fetch_optional(tx).await?)
}

/// Stays as it is until the transaction ends; others may look at the same time.
pub(super) async fn share_grant(tx: &mut PgConnection, grant_id: GrantId) -> Result<Option<Grant>, Error> {
    Ok(grants!("where grant_id = $1 for share", grant_id.0,).fetch_optional(tx).await?)
}

pub(super) async fn find_reason(db: &mut PgConnection, grant_id: GrantId) -> Result<Vec<u8>, Error> {
    let sealed =
        sqlx::query_scalar!("select reason_sealed from muneem.people_support_grants where grant_id = $1", grant_id.0)
            .fetch_optional(db)
            .await?;
    sealed.ok_or(Error::NoSuchGrant(grant_id))
}

pub(super) async fn list_grants(db: &mut PgConnection, asked: Asked, limit: u16) -> Result<Vec<Grant>, Error> {
    Ok(grants!(
        "where ($1::uuid is null or business_id = $1)
               and ($2::uuid is null or grant_id < $2)
               and ($3::timestamptz is null or ended_at is not null or expires_at <= $3)
           order by grant_id desc
           limit $4",
        asked.business as Option<BusinessId>,
        asked.before as Option<GrantId>,
        asked.past_at,
        i64::from(limit),
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn list_live(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    now: DateTime<Utc>,
) -> Result<Vec<Grant>, Error> {
    Ok(grants!(
        "where ($1::uuid is null or business_id = $1)
               and ended_at is null
               and expires_at > $2
           order by grant_id desc",
        business as Option<BusinessId>,
        now,
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn list_support(db: &mut PgConnection) -> Result<Vec<StaffId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select s.staff_id as "staff_id: StaffId"
           from muneem.people_staff s
           join muneem.people_staff_roles r using (staff_id)
           where s.business_id is null
               and s.removed_at is null
               and r.role = 'support'
           order by s.staff_id"#,
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn end_grant(tx: &mut PgConnection, grant: &Grant) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_support_grants set ended_at = $2, ended_by = $3 where grant_id = $1",
        grant.grant_id.0,
        grant.ended_at,
        grant.ended_by,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Number of tokens that opened something until now.
pub(super) async fn revoke_tokens(tx: &mut PgConnection, grant_id: GrantId, now: DateTime<Utc>) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_tokens set revoked_at = $2 where support_grant_id = $1 and revoked_at is null",
        grant_id.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(outcome.rows_affected())
}
