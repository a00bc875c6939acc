use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::Error;

/// What is held against an account at a place.
pub(super) struct Failures {
    pub(super) failures: i32,
    pub(super) not_before: DateTime<Utc>,
}

/// Locks the count, making it first. One that has been quiet for `forgotten_after` begins anew.
pub(super) async fn lock_failures(
    tx: &mut PgConnection,
    account: &[u8],
    place: &[u8],
    now: DateTime<Utc>,
    forgotten_after: TimeDelta,
) -> Result<Failures, Error> {
    sqlx::query!(
        "insert into muneem.people_sign_in_failures (account, place, failures, not_before, last_at)
         values ($1, $2, 0, $3, $3)
         on conflict do nothing",
        account,
        place,
        now,
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!(
        "select failures, not_before, last_at
         from muneem.people_sign_in_failures
         where account = $1 and place = $2
         for update",
        account,
        place,
    )
    .fetch_one(tx)
    .await?;
    if row.last_at + forgotten_after < now {
        return Ok(Failures { failures: 0, not_before: now });
    }
    Ok(Failures { failures: row.failures, not_before: row.not_before })
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn set_failures(
    tx: &mut PgConnection,
    account: &[u8],
    place: &[u8],
    failures: i32,
    not_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_failures
         set failures = $3, not_before = $4, last_at = $5
         where account = $1 and place = $2",
        account,
        place,
        failures,
        not_before,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn take_back_failure(tx: &mut PgConnection, account: &[u8]) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_failures
         set failures = greatest(failures - 1, 0)
         where account = $1 and place = ''",
        account,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_failures(tx: &mut PgConnection, account: &[u8], place: &[u8]) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_sign_in_failures where account = $1 and place = $2", account, place)
        .execute(tx)
        .await?;
    Ok(())
}
