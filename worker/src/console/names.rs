//! How people and instants are written on the pages.

use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::people::{StaffId, open_contact};
use sqlx::PgConnection;

use super::{Console, guard::Turned};

/// Her name, for whoever may know it.
pub(super) async fn name_of(console: &Console, db: &mut PgConnection, staff: StaffId) -> Result<String, Turned> {
    let contact = open_contact(db, &console.vault, staff).await?;
    Ok(contact.map_or_else(|| "Somebody who has left".to_owned(), |contact| contact.name.to_string()))
}

/// `23 November 2026, 17:40`, in India.
pub(super) fn shown(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M").to_string()
}

/// `17:40` where it is today, in India; else as [`shown`].
pub(super) fn shown_from(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    let (now, there) = (now.with_timezone(&Kolkata), at.with_timezone(&Kolkata));
    if now.date_naive() == there.date_naive() { there.format("%H:%M").to_string() } else { shown(at) }
}
