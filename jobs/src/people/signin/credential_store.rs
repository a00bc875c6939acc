use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Credentials, Error, passkey_store::delete_passkeys};

pub(super) async fn load_credentials(db: &mut PgConnection, staff: Uuid) -> Result<Credentials, Error> {
    let row = sqlx::query_as!(
        Credentials,
        r#"select password_hash, totp_sealed, totp_pending_sealed,
                  (select count(*) from muneem.people_recovery_codes r
                   where r.staff_id = c.staff_id and r.used_at is null) as "recovery_codes_left!"
           from muneem.people_credentials c
           where staff_id = $1"#,
        staff,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.unwrap_or_default())
}

pub(super) async fn set_password(
    tx: &mut PgConnection,
    staff: Uuid,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_credentials (staff_id, password_hash, password_set_at, updated_at)
         values ($1, $2, $3, $3)
         on conflict (staff_id) do update set password_hash = $2, password_set_at = $3, updated_at = $3",
        staff,
        hash,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn refresh_hash(db: &mut PgConnection, staff: Uuid, old: &str, new: &str) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_credentials set password_hash = $3 where staff_id = $1 and password_hash = $2",
        staff,
        old,
        new,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn begin_totp(
    db: &mut PgConnection,
    staff: Uuid,
    sealed: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_credentials (staff_id, totp_pending_sealed, updated_at)
         values ($1, $2, $3)
         on conflict (staff_id) do update set totp_pending_sealed = $2, updated_at = $3",
        staff,
        sealed,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn confirm_totp(
    tx: &mut PgConnection,
    staff: Uuid,
    sealed: &[u8],
    step: i64,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_credentials
         set totp_sealed = totp_pending_sealed, totp_pending_sealed = null,
             totp_last_step = greatest(totp_last_step, $3), updated_at = $4
         where staff_id = $1 and totp_pending_sealed = $2",
        staff,
        sealed,
        step,
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Compare and set: the row's lock lets one through, and the others see its step.
pub(super) async fn use_totp_step(db: &mut PgConnection, staff: Uuid, step: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_credentials
         set totp_last_step = $2
         where staff_id = $1 and totp_last_step < $2 and totp_sealed is not null",
        staff,
        step,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn replace_recovery_codes(
    tx: &mut PgConnection,
    staff: Uuid,
    digests: &[Vec<u8>],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // Who has passkeys alone has no row yet.
    sqlx::query!(
        "insert into muneem.people_credentials (staff_id, updated_at)
         values ($1, $2)
         on conflict do nothing",
        staff,
        now,
    )
    .execute(&mut *tx)
    .await?;
    // Two sets at once would both stay: the parent's row is the lock.
    sqlx::query!("select staff_id from muneem.people_credentials where staff_id = $1 for update", staff)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query!("delete from muneem.people_recovery_codes where staff_id = $1", staff).execute(&mut *tx).await?;
    sqlx::query!(
        "insert into muneem.people_recovery_codes (staff_id, code_sha256, made_at)
         select $1, digest, $3 from unnest($2::bytea[]) digest",
        staff,
        digests,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn use_recovery_code(
    tx: &mut PgConnection,
    staff: Uuid,
    digest: &[u8],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_recovery_codes
         set used_at = $3
         where staff_id = $1 and code_sha256 = $2 and used_at is null",
        staff,
        digest,
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn clear_second_factor(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    // The last step stays: an old code does not come back to life with an old secret.
    sqlx::query!(
        "update muneem.people_credentials
         set totp_sealed = null, totp_pending_sealed = null, updated_at = $2
         where staff_id = $1",
        staff,
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from muneem.people_recovery_codes where staff_id = $1", staff).execute(&mut *tx).await?;
    delete_passkeys(tx, staff).await
}

pub(super) async fn clear_credentials(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    clear_second_factor(tx, staff, now).await?;
    sqlx::query!(
        "update muneem.people_credentials
         set password_hash = null, password_set_at = null, updated_at = $2
         where staff_id = $1",
        staff,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}
