//! Proof of what was decided and done: one append-only log for the installation.
//!
//! An event is written with [`record`] in the transaction that does what it tells of: both happen or neither. A plain
//! insert, no chain and no lock: writers never wait for each other. The sealer comes after them, gives each event its
//! number in the log and within its business, and hashes it into an RFC 6962 tree; heads of the tree are signed with a
//! key that the database never sees and laid down outside it. Whoever holds such a head can tell, without us, whether
//! anything before it was changed, left out, reordered or slipped in, be it by the owner of the database.
//!
//! The app role may insert three columns and nothing else: transaction id, instant, number and hash are not its to say.

mod anchoring;
pub mod bundle;
mod by;
mod check_log;
mod error;
mod housekeeping;
mod leaf;
mod make_months;
mod model;
pub mod note;
mod prove;
mod retire_bodies;
mod screen;
mod sealer;
mod store;
pub mod tiles;
pub mod timestamp;
pub mod tree;
pub mod words;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::people::BusinessId;

pub use anchoring::AnchorState;
pub use by::{Act, By};
pub use check_log::CheckLog;
pub use error::Error;
pub use housekeeping::schedules;
pub use leaf::Leaf;
pub use make_months::MakeMonths;
pub use model::{Actor, Event, EventId, MOST_BYTES, Object};
pub use prove::{Inclusion, Prover, prove_growth, prove_inclusion};
pub use retire_bodies::RetireBodies;
pub use sealer::{BATCH, Sealer, Turn};
pub use words::Word;

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

/// How the log stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    /// How many events have their number.
    pub size: u64,
    /// Since when the oldest event waits for its number; `None`: nothing waits.
    pub unsealed_since: Option<DateTime<Utc>>,
    /// When the last head was signed.
    pub signed_at: Option<DateTime<Utc>>,
    /// What was found, if the log went back in time. It does not heal by itself.
    pub forked: Option<String>,
}

/// An event with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number in the log, from 0.
    pub seq: u64,
    /// What its leaf is made of.
    pub leaf: Leaf,
    /// The leaf's hash as the database has it.
    pub hash: tree::Hash,
    /// Its body; `None`: retired, or gone.
    pub body: Option<Vec<u8>>,
}

/// What an anchor answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The note that was laid down.
    pub note: String,
    /// What the anchor is: `directory`, `objects`, `timestamp`, `mail`.
    pub kind: String,
    /// Its name; empty in receipts from before there could be several of a kind.
    pub anchor: String,
    /// Its answer.
    pub proof: Vec<u8>,
}

/// A head as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// Its number among heads.
    pub checkpoint_id: i64,
    /// Leaves under it.
    pub size: u64,
    /// The tree's root over them.
    pub root: tree::Hash,
    /// The signed note itself (C2SP tlog-checkpoint).
    pub note: String,
    /// When it was kept.
    pub at: DateTime<Utc>,
}

/// How the log stands.
///
/// # Errors
/// The database fails.
pub async fn load_standing(db: &mut PgConnection) -> Result<Standing, Error> {
    store::load_standing(db).await
}

/// Makes room for the coming months. Call it now and then.
///
/// # Errors
/// The database fails.
pub async fn make_months(db: &mut PgConnection) -> Result<(), Error> {
    store::make_months(db).await.map(drop)
}

/// Sealed events from `from_seq` on, at most `most` (10,000), of one business or of all.
///
/// # Errors
/// The database fails.
pub async fn list_sealed(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    from_seq: u64,
    most: i32,
) -> Result<Vec<Sealed>, Error> {
    store::list_sealed(db, business.map(|business| business.0), from_seq, most).await
}

/// Sealed events, the newest first, at most `most` (1,000): of one business those below its own number `before`, of all
/// those below the log's.
///
/// # Errors
/// The database fails.
pub async fn list_newest(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<u64>,
    most: u16,
) -> Result<Vec<Sealed>, Error> {
    store::list_newest(db, business.map(|business| business.0), before, i32::from(most)).await
}

/// Number, among those of `business`, of its first event that was made in the millisecond of `at`, if it has one by now.
///
/// # Errors
/// The database fails.
pub async fn find_first_at(
    db: &mut PgConnection,
    business: BusinessId,
    at: DateTime<Utc>,
) -> Result<Option<u64>, Error> {
    // The first 48 bits of a UUIDv7 are the milliseconds since 1970 (RFC 9562 section 5.7).
    let millis = at.timestamp_millis().unsigned_abs() << 16;
    let within = |rest: u64| Uuid::from_u64_pair(millis | (rest & 0xffff), rest);
    store::find_first_between(db, business.0, (within(u64::MIN), within(u64::MAX))).await
}

/// One sealed event, if it exists for this business (`None`: for all).
///
/// # Errors
/// The database fails.
pub async fn find_sealed(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    event: EventId,
) -> Result<Option<Sealed>, Error> {
    match store::find_seq(db, business.map(|business| business.0), event.0).await? {
        Some(seq) => Ok(store::list_sealed(db, None, seq, 1).await?.pop().filter(|sealed| sealed.seq == seq)),
        None => Ok(None),
    }
}

/// Signed heads below the number `before`, the newest first.
///
/// # Errors
/// The database fails.
pub async fn list_heads(db: &mut PgConnection, before: Option<i64>, most: u16) -> Result<Vec<SignedHead>, Error> {
    store::list_heads(db, before, i64::from(most)).await
}

/// Signed heads that an anchor took, and the last one, the oldest first.
///
/// # Errors
/// The database fails.
pub async fn list_anchored_heads(db: &mut PgConnection) -> Result<Vec<SignedHead>, Error> {
    store::list_anchored_heads(db).await
}

/// How each anchor stands that heads were ever laid down at, by name.
///
/// # Errors
/// The database fails.
pub async fn list_anchor_states(db: &mut PgConnection) -> Result<Vec<AnchorState>, Error> {
    store::list_anchor_states(db).await
}

/// Leaf hashes of the log from `from` to before `to`, fewer where it ends.
///
/// # Errors
/// The database fails.
pub async fn list_hashes(db: &mut PgConnection, from: u64, to: u64) -> Result<Vec<tree::Hash>, Error> {
    store::list_hashes(db, from, to).await
}

/// Every signed head, the oldest first.
///
/// # Errors
/// The database fails.
pub async fn list_notes(db: &mut PgConnection) -> Result<Vec<String>, Error> {
    store::list_notes(db).await
}

/// What anchors answered, the oldest first.
///
/// # Errors
/// The database fails.
pub async fn list_receipts(db: &mut PgConnection) -> Result<Vec<Receipt>, Error> {
    store::list_receipts(db).await
}

#[cfg(test)]
mod proof_tests;
#[cfg(test)]
mod sealer_tests;
#[cfg(test)]
mod tests;
