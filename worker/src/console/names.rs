//! How people and instants are written on the pages.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::{
    evidence::{Actor, By},
    people::{People, StaffId, note_names, open_contact},
};
use sqlx::PgConnection;

use super::{
    Console,
    guard::{SignedIn, Turned},
};

/// Names of people that one page shows: each is opened once, and which were is on record before the page goes out
/// ([`Names::told`]).
#[must_use = "names that are shown are put on record with `told`"]
pub(super) struct Names<'a> {
    pub(super) console: &'a Console,
    pub(super) who: &'a SignedIn,
    known: BTreeMap<StaffId, String>,
    of_others: People,
}

impl<'a> Names<'a> {
    /// For a page that `who` is shown.
    pub(super) fn new(console: &'a Console, who: &'a SignedIn) -> Self {
        Self { console, who, known: BTreeMap::new(), of_others: People::new() }
    }

    /// The name of `staff`, for whoever may know it.
    pub(super) async fn of(&mut self, db: &mut PgConnection, staff: StaffId) -> Result<String, Turned> {
        if let Some(name) = self.known.get(&staff) {
            return Ok(name.clone());
        }
        let name = match open_contact(db, &self.console.vault, staff).await? {
            Some(contact) => {
                if staff != self.who.staff.staff_id {
                    self.of_others.entry(contact.business_id).or_default().insert(staff);
                }
                contact.name.to_string()
            }
            None => "Somebody who has left".to_owned(),
        };
        self.known.insert(staff, name.clone());
        Ok(name)
    }

    /// Puts on record whose names the page shows; her own is no news to her.
    pub(super) async fn told(self, db: &mut PgConnection) -> Result<(), Turned> {
        if self.of_others.is_empty() {
            return Ok(());
        }
        let (now, chance) = (self.console.clock.now(), &*self.console.chance);
        let by = By { actor: Actor::Staff(self.who.staff.staff_id.0), now, chance };
        Ok(note_names(db, &self.of_others, &by).await?)
    }
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
