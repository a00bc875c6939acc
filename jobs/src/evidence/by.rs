use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Actor, Error, Event, EventId, Object, record_many, words::Word};
use crate::{outbound::Chance, people::BusinessId};

/// Who does something, when, and the chance that names the evidence of it: what every act that leaves evidence is
/// given.
#[derive(Clone)]
pub struct By<'a> {
    /// Who.
    pub actor: Actor,
    /// When.
    pub now: DateTime<Utc>,
    /// For ids.
    pub chance: &'a dyn Chance,
}

/// What was done, for [`By::record`].
#[derive(Clone, Debug)]
pub struct Act<'a> {
    /// What, one of [`super::words`].
    pub word: Word,
    /// Whose; none: the installation's.
    pub business: Option<BusinessId>,
    /// To what.
    pub object: Object<'a>,
    /// Ids, states, digests, counts: see [`Event::details`].
    pub details: Value,
}

impl<'a> By<'a> {
    /// Whoever has a shell on the machine.
    pub fn operator(now: DateTime<Utc>, chance: &'a dyn Chance) -> Self {
        Self { actor: Actor::Operator, now, chance }
    }

    /// The runtime itself, on nobody's behalf.
    pub fn system(now: DateTime<Utc>, chance: &'a dyn Chance) -> Self {
        Self { actor: Actor::System, now, chance }
    }

    /// A person of the staff.
    pub fn staff(staff: Uuid, now: DateTime<Utc>, chance: &'a dyn Chance) -> Self {
        Self { actor: Actor::Staff(staff), now, chance }
    }

    /// An API token, by its public id.
    pub fn token(public_id: &str, now: DateTime<Utc>, chance: &'a dyn Chance) -> Self {
        Self { actor: Actor::Token(public_id.to_owned()), now, chance }
    }

    /// Writes it into the log, in the caller's transaction: call it in the one that does what it tells of, and let its
    /// error end that transaction.
    ///
    /// # Errors
    /// As [`super::record`].
    pub async fn record(&self, tx: &mut PgConnection, act: Act<'_>) -> Result<(), Error> {
        super::record(tx, &self.event(act)).await?;
        Ok(())
    }

    /// Writes many with one statement; all or none.
    ///
    /// # Errors
    /// As [`super::record`].
    pub async fn record_all(&self, tx: &mut PgConnection, acts: Vec<Act<'_>>) -> Result<(), Error> {
        let events: Vec<_> = acts.into_iter().map(|act| self.event(act)).collect();
        record_many(tx, &events).await
    }

    fn event<'e>(&self, act: Act<'e>) -> Event<'e> {
        Event {
            event_id: EventId::new(self.chance, self.now),
            business_id: act.business,
            actor: self.actor.clone(),
            verb: act.word,
            object: act.object,
            details: act.details,
        }
    }
}

impl std::fmt::Debug for By<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("By").field("actor", &self.actor).field("now", &self.now).finish_non_exhaustive()
    }
}
