//! What support looked at, as the evidence has it: read from the log itself, so that what is shown is what is proven.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Decision, Error, Grant, GrantId, Scope, StaffId, load, record};
use crate::evidence::{self, EventId, Sealed, words};

/// Events that are asked for at once.
const WINDOW: u16 = 1000;
/// Windows that one reading goes through: in a business where more happens, the reader goes on from where it stopped.
const WINDOWS_MAX: usize = 10;
/// How far the clocks of two machines may lie apart before a look by one falls out of the grant by the other.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// One thing that support did under a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The event that proves it.
    pub event_id: EventId,
    /// When it was written, before it was answered.
    pub at: DateTime<Utc>,
    /// Who of support.
    pub staff: Option<StaffId>,
    /// What.
    pub deed: Deed,
}

/// What somebody of support did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Got a token to look with.
    Entered,
    /// Looked.
    Looked {
        /// `GET`
        method: String,
        /// The address without what stood in its places: `/v1/invoice/invoices/id`.
        route: String,
    },
}

/// A part of what support did under a grant, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// What it did.
    pub looks: Vec<Look>,
    /// Where to read on: a number of the business's events. `None`: this is all that has its number by now.
    pub next: Option<u64>,
    /// Events of the time whose bodies were let go, since the law's time is over: what they said is not known any more.
    pub retired: u64,
}

/// Reads what support did under a grant, from the business's event `from` on, or from the grant on. That it was read is
/// on record before it is answered.
///
/// # Errors
/// [`Error::NoSuchGrant`]; `decision.by` may see no evidence; the evidence cannot be read or written.
pub async fn read_looks(
    db: &mut PgConnection,
    grant_id: GrantId,
    from: Option<u64>,
    decision: &Decision<'_>,
) -> Result<Looks, Error> {
    decision.by.require(Scope::EvidenceRead)?;
    let mut tx = db.begin().await?;
    let grant = load(&mut tx, grant_id, decision.by).await?;
    let looks = read_windows(&mut tx, &grant, from, WINDOWS_MAX).await?;
    let details = json!({ "count": looks.looks.len() });
    record(&mut tx, decision, words::READ, &grant, details).await?;
    tx.commit().await?;
    Ok(looks)
}

pub(super) async fn read_windows(
    db: &mut PgConnection,
    grant: &Grant,
    from: Option<u64>,
    windows: usize,
) -> Result<Looks, Error> {
    let business = grant.business_id;
    let first = evidence::find_first_at(db, business, grant.granted_at).await?;
    // Before its grant there is nothing of it, whatever number is asked for.
    let next = first.map(|first| first.max(from.unwrap_or(first)));
    let mut looks = Looks { next, ..Looks::default() };
    for _ in 0..windows {
        let Some(from) = looks.next else { break };
        let before = from.saturating_add(WINDOW.into());
        let mut window = evidence::list_newest(db, Some(business), Some(before), WINDOW).await?;
        window.retain(|sealed| sealed.leaf.business_seq >= from);
        window.reverse();
        let is_last = window.len() < WINDOW.into() || window.iter().any(|sealed| is_after(grant, sealed));
        for sealed in &window {
            looks.take(grant, sealed);
        }
        looks.next = (!is_last).then_some(before);
    }
    Ok(looks)
}

/// Whether an event was made after the grant was over, by the clock that the grant lives by.
fn is_after(grant: &Grant, sealed: &Sealed) -> bool {
    let made_at = sealed.leaf.event_id.get_timestamp().and_then(|at| {
        let (seconds, nanos) = at.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    made_at.is_some_and(|made_at| made_at > grant.ended_at.unwrap_or(grant.expires_at) + SKEW)
}

impl Looks {
    fn take(&mut self, grant: &Grant, sealed: &Sealed) {
        let Some(body) = &sealed.body else {
            self.retired += u64::from(!is_after(grant, sealed));
            return;
        };
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
        if body["object"]["id"] != grant.grant_id.to_string() {
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = &body["details"];
        let (staff, deed) = match body["verb"].as_str() {
            Some(word) if word == words::SUPPORT_ENTERED.as_str() => (&details["support"], Deed::Entered),
            Some(word) if word == words::SUPPORT_LOOKED.as_str() => (
                &body["actor"]["id"],
                Deed::Looked { method: text(&details["method"]), route: text(&details["route"]) },
            ),
            _ => return,
        };
        let staff = staff.as_str().and_then(|id| id.parse::<Uuid>().ok()).map(StaffId);
        self.looks.push(Look { event_id: EventId(sealed.leaf.event_id), at: sealed.leaf.at, staff, deed });
    }
}
