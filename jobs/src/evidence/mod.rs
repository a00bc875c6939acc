//! Proof of what was decided and done: one append-only log for the installation.
//!
//! An event is written with [`record`] in the transaction that does what it tells of: both happen or neither. A plain
//! insert, no chain and no lock: writers never wait for each other. The sealer comes after them, gives each event its
//! number in the log and within its business, and hashes it into an RFC 6962 tree; heads of the tree are signed with a
//! key that the database never sees and laid down outside it. Whoever holds such a head can tell, without us, whether
//! anything before it was changed, left out, reordered or slipped in, be it by the owner of the database.
//!
//! The app role may insert three columns and nothing else: transaction id, instant, number and hash are not its to say.

mod error;
mod model;
mod screen;
mod store;

use sqlx::PgConnection;

pub use error::Error;
pub use model::{Actor, Event, EventId, MOST_BYTES, Object};

/// Writes one event in the caller's transaction: call it in the one that does what the event tells of, and let its
/// error end that transaction, so that nothing succeeds unrecorded.
///
/// # Errors
/// What must not stand in the log ([`Error::Personal`], [`Error::BadWord`], [`Error::TooLarge`]), or the database.
pub async fn record(db: &mut PgConnection, event: &Event<'_>) -> Result<EventId, Error> {
    let body = event.body()?;
    store::insert_event(db, event, &body).await?;
    Ok(event.event_id)
}

/// Writes many events with one statement; all or none.
///
/// # Errors
/// As [`record`].
pub async fn record_many(db: &mut PgConnection, events: &[Event<'_>]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let bodies = events.iter().map(Event::body).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = events.iter().map(|event| event.event_id.0).collect();
    let businesses: Vec<_> = events.iter().map(|event| event.business_id.map(|business| business.0)).collect();
    store::insert_events(db, &ids, &businesses, &bodies).await
}

#[cfg(test)]
mod tests;
