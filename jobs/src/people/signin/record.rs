use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    evidence::{self, Actor, Event, EventId, Object, Word},
    outbound::Chance,
    people::{BusinessId, StaffId},
};

/// What somebody did with what she signs in with.
pub struct Deed {
    /// Who.
    pub actor: Actor,
    /// What.
    pub verb: Word,
    /// Whose sign-in it is about.
    pub staff_id: StaffId,
    /// Whom she works for.
    pub business_id: Option<BusinessId>,
    /// Ids, states and counts.
    pub details: Value,
}

/// Writes it into the evidence, in the transaction that does it.
///
/// # Errors
/// What must not stand in the log, or the database.
pub async fn record(
    tx: &mut PgConnection,
    deed: Deed,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<(), evidence::Error> {
    let id = deed.staff_id.to_string();
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: deed.business_id,
        actor: deed.actor,
        verb: deed.verb,
        object: Object { kind: "staff", id: &id },
        details: deed.details,
    };
    evidence::record(tx, &event).await?;
    Ok(())
}
