//! A phone that nobody has proved to hold for so long that the number may be another person's
//! ([`crate::people::Staff::phone_stale_since`]): a code to it is half a proof, and the other half is another factor, in
//! the same browser and soon.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, token_digest};

/// How soon the other factor follows: a code that was sent for it lives ten minutes.
const SOON: TimeDelta = TimeDelta::minutes(15);

/// Notes that a code to her stale phone was right in the browser with this mark. By itself it opens nothing.
///
/// # Errors
/// The database fails.
pub async fn note_stale_phone(
    db: &mut PgConnection,
    staff: Uuid,
    device: &SecretString,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(digest) = token_digest(device.expose_secret()) else { return Ok(()) };
    sqlx::query!(
        "update muneem.people_staff
         set phone_proved_at = $2, phone_proved_on = $3
         where staff_id = $1 and removed_at is null and phone_index is not null",
        staff,
        now,
        digest.as_slice(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Another factor of hers was right in the browser with this mark: a phone that she proved there a moment ago is hers.
/// `true`: there was one, and it is verified from now on.
///
/// # Errors
/// The database fails.
pub async fn settle_stale_phone(
    db: &mut PgConnection,
    staff: Uuid,
    device: &SecretString,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let Some(digest) = token_digest(device.expose_secret()) else { return Ok(false) };
    let settled = sqlx::query!(
        "update muneem.people_staff
         set phone_verified_at = phone_proved_at, phone_proved_at = null, phone_proved_on = null
         where staff_id = $1 and phone_proved_on = $2 and phone_proved_at > $3 and phone_index is not null",
        staff,
        digest.as_slice(),
        now - SOON,
    )
    .execute(db)
    .await?;
    Ok(settled.rows_affected() == 1)
}
