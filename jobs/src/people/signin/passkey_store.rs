use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, passkey::ChallengeId};

/// A row of `muneem.people_passkeys`.
pub(super) struct PasskeyRow {
    pub(super) credential_id: Vec<u8>,
    pub(super) label: String,
    pub(super) credential: Value,
    pub(super) counter: i64,
    pub(super) made_at: DateTime<Utc>,
    pub(super) used_at: Option<DateTime<Utc>>,
    pub(super) suspect_at: Option<DateTime<Utc>>,
}

pub(super) async fn list_passkeys(db: &mut PgConnection, staff: Uuid) -> Result<Vec<PasskeyRow>, Error> {
    Ok(sqlx::query_as!(
        PasskeyRow,
        "select credential_id, label, credential, counter, made_at, used_at, suspect_at
         from muneem.people_passkeys
         where staff_id = $1
         order by made_at, credential_id",
        staff,
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn lock_passkey(tx: &mut PgConnection, staff: Uuid, id: &[u8]) -> Result<Option<PasskeyRow>, Error> {
    Ok(sqlx::query_as!(
        PasskeyRow,
        "select credential_id, label, credential, counter, made_at, used_at, suspect_at
         from muneem.people_passkeys
         where staff_id = $1 and credential_id = $2
         for update",
        staff,
        id,
    )
    .fetch_optional(tx)
    .await?)
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_passkey(
    db: &mut PgConnection,
    staff: Uuid,
    id: &[u8],
    label: &str,
    credential: &Value,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "insert into muneem.people_passkeys (credential_id, staff_id, label, credential, counter, made_at)
         values ($1, $2, $3, $4, coalesce(($4::jsonb -> 'cred' ->> 'counter')::bigint, 0), $5)
         on conflict do nothing",
        id,
        staff,
        label,
        credential,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn use_passkey(
    tx: &mut PgConnection,
    id: &[u8],
    credential: &Value,
    counter: i64,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_passkeys
         set credential = $2, counter = $3, used_at = $4
         where credential_id = $1",
        id,
        credential,
        counter,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Puts a passkey out of use and answers its label, if it is hers.
pub(super) async fn suspect_passkey(
    tx: &mut PgConnection,
    staff: Uuid,
    id: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "update muneem.people_passkeys
         set suspect_at = coalesce(suspect_at, $3)
         where staff_id = $1 and credential_id = $2
         returning label",
        staff,
        id,
        now,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn delete_passkey(db: &mut PgConnection, staff: Uuid, id: &[u8]) -> Result<u64, Error> {
    let done = sqlx::query!("delete from muneem.people_passkeys where staff_id = $1 and credential_id = $2", staff, id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub(super) async fn delete_passkeys(tx: &mut PgConnection, staff: Uuid) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_passkeys where staff_id = $1", staff).execute(tx).await?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_challenge(
    db: &mut PgConnection,
    challenge: ChallengeId,
    staff: Uuid,
    purpose: &str,
    state: &Value,
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_passkey_challenges (challenge_id, staff_id, purpose, state, expires_at)
         values ($1, $2, $3, $4, $5)",
        challenge.0,
        staff,
        purpose,
        state,
        expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn take_challenge(
    db: &mut PgConnection,
    challenge: ChallengeId,
    staff: Uuid,
    purpose: &str,
    now: DateTime<Utc>,
) -> Result<Option<Value>, Error> {
    Ok(sqlx::query_scalar!(
        "delete from muneem.people_passkey_challenges
         where challenge_id = $1 and staff_id = $2 and purpose = $3 and expires_at > $4
         returning state",
        challenge.0,
        staff,
        purpose,
        now,
    )
    .fetch_optional(db)
    .await?)
}
