use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Reset};
use crate::people::BusinessId;

pub(super) async fn insert_reset(db: &mut PgConnection, reset: &Reset) -> Result<(), Error> {
    let done = sqlx::query!(
        "insert into muneem.people_factor_resets (reset_id, staff_id, asked_by, asked_at)
         values ($1, $2, $3, $4)
         on conflict (staff_id) where done_at is null and cancelled_at is null do nothing",
        reset.reset_id,
        reset.staff_id,
        reset.asked_by,
        reset.asked_at,
    )
    .execute(db)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::ResetUnderWay) }
}

pub(super) async fn find_open_reset(db: &mut PgConnection, staff: Uuid) -> Result<Option<Reset>, Error> {
    Ok(sqlx::query_as!(
        Reset,
        "select reset_id, staff_id, asked_by, asked_at, approved_by, due_at
         from muneem.people_factor_resets
         where staff_id = $1 and done_at is null and cancelled_at is null",
        staff,
    )
    .fetch_optional(db)
    .await?)
}

pub(super) async fn lock_reset(tx: &mut PgConnection, reset: Uuid) -> Result<Option<Reset>, Error> {
    Ok(sqlx::query_as!(
        Reset,
        "select reset_id, staff_id, asked_by, asked_at, approved_by, due_at
         from muneem.people_factor_resets
         where reset_id = $1 and done_at is null and cancelled_at is null
         for update",
        reset,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn approve_reset(
    tx: &mut PgConnection,
    reset: Uuid,
    by: Uuid,
    due_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_factor_resets set approved_by = $2, due_at = $3 where reset_id = $1",
        reset,
        by,
        due_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn cancel_reset(db: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_factor_resets set cancelled_at = $2
         where reset_id = $1 and done_at is null and cancelled_at is null",
        reset,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn finish_reset(tx: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("update muneem.people_factor_resets set done_at = $2 where reset_id = $1", reset, now)
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn list_open_resets(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<Reset>, Error> {
    Ok(sqlx::query_as!(
        Reset,
        "select r.reset_id, r.staff_id, r.asked_by, r.asked_at, r.approved_by, r.due_at
         from muneem.people_factor_resets r
         join muneem.people_staff s using (staff_id)
         where ($1::uuid is null or s.business_id = $1) and r.done_at is null and r.cancelled_at is null
         order by r.asked_at, r.reset_id",
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?)
}
