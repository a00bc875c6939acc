//! What was refused to whom: counted by reason, and on record where it is known who asked.
//!
//! A refusal undoes nothing, so it stands whether or not it can be recorded: what could not be written is told in the log
//! and in `muneem_refusals_unrecorded_total`, and waits with its count for the next minute. What no repetition can record,
//! and what there is no room or time to keep, is told there too and counted in `muneem_refusals_lost_total`. Somebody who
//! asks again and again fills no log: of one person or token at one address for one reason there is one event a minute,
//! with how often it was since the last. Each process counts for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    evidence::{self, Act, By, Object, words},
    outbound::{Chance, Clock},
    people::BusinessId,
    queue::{Disposition, JobError},
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Between two events of the same sort.
const APART: TimeDelta = TimeDelta::minutes(1);
/// Sorts remembered at once; past these the oldest is written before its time.
const REMEMBERED: usize = 8_192;
/// Longest that what waits is written at a time: the end of the process waits for no database that does not answer.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Somebody who is known and was refused something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    who: Who,
    business: Option<BusinessId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Token(String),
    Staff(Uuid),
}

impl Known {
    /// A token, by its public id, and whose it is.
    pub(crate) fn token(public_id: &str, business: Option<BusinessId>) -> Self {
        Self { who: Who::Token(public_id.to_owned()), business }
    }

    /// A person of the staff.
    pub(crate) fn staff(staff: Uuid, business: Option<BusinessId>) -> Self {
        Self { who: Who::Staff(staff), business }
    }

    /// Whether there are businesses that do not exist for her.
    pub(crate) fn is_of_one_business(&self) -> bool {
        self.business.is_some()
    }
}

/// Where the guard of a page writes down who asks, for whoever records what becomes of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker(Arc<OnceLock<Known>>);

impl Asker {
    pub(crate) fn is(&self, known: Known) {
        // The first guard knows as much as the next.
        let _ = self.0.set(known);
    }

    pub(crate) fn known(&self) -> Option<&Known> {
        self.0.get()
    }
}

/// In the extensions of an answer that refuses: why, a word of a closed list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason(pub(crate) &'static str);

/// Counts refusals and records them.
pub struct Refusals {
    db: PgPool,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    windows: Mutex<Windows>,
}

impl Refusals {
    /// Counts from nothing.
    pub fn new(db: PgPool, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Arc<Self> {
        Arc::new(Self { db, clock, chance, windows: Mutex::default() })
    }

    /// Counts a refusal at `address` (`POST:/v1/queue/jobs`), and records it if it is time. A client that hangs up
    /// before the answer stops neither.
    pub(crate) async fn note(self: &Arc<Self>, known: Option<&Known>, address: &str, reason: &'static str) {
        metrics::counter!("muneem_refusals_total", "reason" => reason).increment(1);
        let Some(known) = known else { return };
        let sort = Sort { known: known.clone(), address: address.to_owned(), reason };
        let due = self.windows().count(sort, self.clock.now());
        if !due.is_empty() {
            let this = Arc::clone(self);
            let written = tokio::spawn(async move {
                for one in due {
                    this.write(one, None).await;
                }
            });
            let written = written.await;
            if let Err(error) = written {
                tracing::error!(%error, "a refusal could not be put on record");
            }
        }
    }

    /// Records, until `shutdown`, refusals whose minute is over and that nobody repeated.
    pub async fn settle_until(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(30)) => self.settle(false).await,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Records what has waited for its minute, for some seconds at most; with `all`, what has not as well: for the end
    /// of the process, which then says how many it takes with it.
    pub async fn settle(&self, all: bool) {
        self.settle_within(all, SETTLED_WITHIN).await;
    }

    pub(crate) async fn settle_within(&self, all: bool, within: Duration) {
        let until = Instant::now() + within;
        let sorts = self.windows().over(self.clock.now(), all);
        for sort in sorts {
            // One at a time: whatever stops this leaves the rest where it waits.
            let due = self.windows().take(&sort, self.clock.now());
            if let Some(due) = due
                && !self.write(due, Some(until)).await
            {
                break;
            }
        }
        let waiting = self.windows().waiting();
        if all && waiting > 0 {
            lost(waiting, "refusals could not be put on record before the end; they stand");
        }
    }

    /// Whether there was time for it.
    async fn write(&self, due: Due, until: Option<Instant>) -> bool {
        let recorded = match until {
            Some(until) => timeout_at(until, self.record(&due)).await.map_err(drop),
            None => Ok(self.record(&due).await),
        };
        match &recorded {
            Ok(Ok(())) => return true,
            Ok(Err(error)) if error.disposition() == Disposition::Fail => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, reason = due.sort.reason, "a refusal has a form that no record takes");
                lost(due.count, "refusals cannot be put on record; they stand");
                return true;
            }
            Ok(Err(error)) => tracing::error!(
                error = error as &dyn std::error::Error,
                reason = due.sort.reason,
                "a refusal could not be put on record; it stands, and its record is tried again"
            ),
            Err(()) => tracing::error!(
                reason = due.sort.reason,
                "a refusal could not be put on record in time; it stands, and its record is tried again"
            ),
        }
        metrics::counter!("muneem_refusals_unrecorded_total").increment(1);
        let too_many = self.windows().put_back(due);
        if too_many > 0 {
            lost(too_many, "too many refusals wait for their record; they stand");
        }
        recorded.is_ok()
    }

    async fn record(&self, due: &Due) -> Result<(), evidence::Error> {
        let Sort { known, address, reason } = &due.sort;
        let (now, chance) = (self.clock.now(), &*self.chance);
        let by = match &known.who {
            Who::Token(public_id) => By::token(public_id, now, chance),
            Who::Staff(staff) => By::staff(*staff, now, chance),
        };
        // The log's words have no braces: `/v1/queue/jobs/{id}` stands there as `/v1/queue/jobs/:id`.
        let address = address.replace('{', ":").replace('}', "");
        let refused = Act {
            word: words::REQUEST_REFUSED,
            business: known.business,
            object: Object { kind: "address", id: &address },
            details: json!({ "reason": reason, "count": due.count, "since": due.since }),
        };
        // Given up in the middle, it is not written.
        let mut tx = self.db.begin().await?;
        by.record(&mut tx, refused).await?;
        tx.commit().await?;
        Ok(())
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of refusals that come into no record.
fn lost(count: u64, why: &'static str) {
    metrics::counter!("muneem_refusals_lost_total").increment(count);
    tracing::error!(count, "{why}");
}

/// Refusals of which there is one event a minute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sort {
    known: Known,
    address: String,
    reason: &'static str,
}

/// Refusals of a sort that wait for their event.
#[derive(Debug)]
struct Window {
    /// When the last event of the sort was written, or tried.
    written_at: DateTime<Utc>,
    /// The oldest that waits.
    since: DateTime<Utc>,
    count: u64,
}

/// An event to be written.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    sort: Sort,
    since: DateTime<Utc>,
    count: u64,
}

#[derive(Debug, Default)]
struct Windows(HashMap<Sort, Window>);

impl Windows {
    /// One more of this sort. What is to be written now: the first of its sort at once, others when their minute is over.
    fn count(&mut self, sort: Sort, now: DateTime<Utc>) -> Vec<Due> {
        let mut due = Vec::new();
        match self.0.get_mut(&sort) {
            Some(window) => {
                window.since = if window.count == 0 { now } else { window.since };
                window.count += 1;
                if window.is_over(now) {
                    due.extend(window.take(&sort, now));
                }
            }
            None => {
                due.extend(self.make_room());
                self.0.insert(sort.clone(), Window { written_at: now, since: now, count: 0 });
                due.push(Due { sort, since: now, count: 1 });
            }
        }
        due
    }

    /// Sorts of which something waits and whose minute is over, or `all`.
    fn over(&mut self, now: DateTime<Utc>, all: bool) -> Vec<Sort> {
        self.0.retain(|_, window| window.count > 0 || !window.is_over(now));
        let over = self.0.iter().filter(|(_, window)| window.count > 0 && (all || window.is_over(now)));
        over.map(|(sort, _)| sort.clone()).collect()
    }

    fn take(&mut self, sort: &Sort, now: DateTime<Utc>) -> Option<Due> {
        self.0.get_mut(sort)?.take(sort, now)
    }

    /// How many refusals wait.
    fn waiting(&self) -> u64 {
        self.0.values().map(|window| window.count).sum()
    }

    /// Not written: it waits for the next minute. How many refusals there is no room for.
    fn put_back(&mut self, due: Due) -> u64 {
        let Due { sort, since, count } = due;
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&sort) {
            // A sort of which nothing waits loses only its minute.
            let idle = self.0.iter().find(|(_, window)| window.count == 0).map(|(sort, _)| sort.clone());
            let Some(idle) = idle else { return count };
            self.0.remove(&idle);
        }
        let window = self.0.entry(sort).or_insert(Window { written_at: since, since, count: 0 });
        (window.since, window.count) = (since, window.count + count);
        0
    }

    /// Takes out the sort that was written longest ago, if there are too many; what waited of it is written now.
    fn make_room(&mut self) -> Option<Due> {
        if self.0.len() < REMEMBERED {
            return None;
        }
        let oldest = self.0.iter().min_by_key(|(_, window)| window.written_at).map(|(sort, _)| sort.clone())?;
        let mut window = self.0.remove(&oldest)?;
        let at = window.written_at;
        window.take(&oldest, at)
    }
}

impl Window {
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        // Also where the clock went back: it would be silent until it has caught up.
        (now - self.written_at).abs() >= APART
    }

    fn take(&mut self, sort: &Sort, now: DateTime<Utc>) -> Option<Due> {
        let count = std::mem::take(&mut self.count);
        self.written_at = now;
        (count > 0).then(|| Due { sort: sort.clone(), since: self.since, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(number: usize) -> Sort {
        let known = Known::token(&format!("{number:016x}"), None);
        Sort { known, address: "GET:/v1/queue/jobs".to_owned(), reason: "people.missing_scope" }
    }

    impl Windows {
        fn due(&mut self, now: DateTime<Utc>, all: bool) -> Vec<Due> {
            let over = self.over(now, all);
            over.iter().filter_map(|sort| self.take(sort, now)).collect()
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_764_000_000 + seconds, 0).expect("an instant")
    }

    #[test]
    fn of_a_sort_the_first_is_written_at_once_and_the_rest_once_a_minute() {
        let mut windows = Windows::default();
        assert_eq!(windows.count(sort(1), at(0)), [Due { sort: sort(1), since: at(0), count: 1 }]);
        for second in 1..60 {
            assert_eq!(windows.count(sort(1), at(second)), []);
        }
        assert_eq!(windows.count(sort(2), at(59)).len(), 1, "another sort is another minute");
        assert_eq!(windows.count(sort(1), at(60)), [Due { sort: sort(1), since: at(1), count: 60 }]);
        assert_eq!(windows.due(at(119), false), [], "none of them waits");
        windows.count(sort(1), at(61));
        assert_eq!(windows.due(at(119), false), []);
        assert_eq!(windows.due(at(120), false), [Due { sort: sort(1), since: at(61), count: 1 }]);
        assert_eq!(windows.due(at(180), false), []);
        assert!(windows.0.is_empty(), "who does not come again is forgotten");
    }

    #[test]
    fn what_could_not_be_written_waits_a_minute_with_its_count() {
        let mut windows = Windows::default();
        let due = windows.count(sort(1), at(0)).remove(0);
        assert_eq!(windows.put_back(due), 0);
        assert_eq!(windows.count(sort(1), at(1)), [], "a database that fails is not asked with every refusal");
        assert_eq!(windows.due(at(60), false), [Due { sort: sort(1), since: at(0), count: 2 }]);
    }

    #[test]
    fn ever_new_callers_take_no_more_room_and_lose_no_count() {
        let mut windows = Windows::default();
        let mut written = 0;
        for number in 0..REMEMBERED + 100 {
            for second in 0..2 {
                let due = windows.count(sort(number), at(second));
                written += due.iter().map(|one| one.count).sum::<u64>();
            }
        }
        assert_eq!(windows.0.len(), REMEMBERED);
        written += windows.due(at(2), true).iter().map(|one| one.count).sum::<u64>();
        assert_eq!(written, 2 * (u64::try_from(REMEMBERED).expect("small") + 100));
    }

    #[test]
    fn while_nothing_can_be_written_there_is_room_for_so_many_and_the_rest_is_told() {
        let (mut windows, mut lost) = (Windows::default(), 0);
        for number in 0..REMEMBERED + 100 {
            for due in windows.count(sort(number), at(0)) {
                lost += windows.put_back(due);
            }
            assert!(windows.0.len() <= REMEMBERED);
        }
        assert_eq!(lost, 100, "of each no more than its own");
        assert_eq!(windows.waiting(), u64::try_from(REMEMBERED).expect("small"));
        // A sort of which nothing waits makes room.
        let taken = windows.take(&sort(0), at(1)).expect("it waited");
        let late = Due { sort: sort(REMEMBERED + 200), since: at(1), count: 7 };
        assert_eq!((windows.put_back(late), windows.0.len()), (0, REMEMBERED));
        assert_eq!(windows.put_back(taken), 1);
    }
}
