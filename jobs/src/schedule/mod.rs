//! Schedules: crontab expressions in Asia/Kolkata whose slots become jobs.
//!
//! ```text
//! declared in code ─┐                              ┌─ job `schedule:<name>:<slot>`
//!                   ├─▶ muneem.schedule_entries ──tick──▶ next slot
//! put by operator ──┘     │      ▲                 └─ fault: the slot waits
//!                       pause  resume
//! ```
//!
//! A *slot* is an instant at which an expression falls due. One transaction ([`tick`]) holds the entry, enqueues the
//! job of each due slot under the slot's own key and moves the entry on: a slot is one job, however many schedulers
//! run and wherever one is killed. Slots nobody was there for follow the entry's [`Missed`] policy. A new entry, a
//! changed expression and a resumed entry start from now; a clock set back repeats nothing.

mod error;
mod expression;
mod model;
pub mod rules;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, PgPool};

pub use error::Error;
pub use expression::{Expression, ExpressionError};
pub use model::{Declaration, Entry, Listed, Missed, Scope, Source, Ticked};

use crate::{
    evidence::{Act, By, Object, Word, words},
    id::JobId,
    people, queue,
};

/// How many slots are shown before somebody saves, and in lists.
pub const SHOWN: usize = 5;
/// How many jobs of a triggered schedule the evidence names; the rest it counts.
const LISTED: usize = 100;

/// Makes the entries of source `code` what the code declares. What an operator paused stays paused; what is no longer
/// declared goes. For the start of a process; several may do it at once.
///
/// # Errors
/// [`Error::NameTaken`] when an operator's entry has a declared name.
pub async fn sync(conn: &mut PgConnection, mut declared: Vec<Declaration>) -> Result<(), Error> {
    // One order for everybody: processes that start together wait for each other instead of deadlocking.
    declared.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tx = conn.begin().await.map_err(Error::database("begin to declare the schedules"))?;
    for wanted in &declared {
        if !store::put(&mut tx, wanted, Source::Code).await? {
            return Err(Error::NameTaken(wanted.name.clone()));
        }
    }
    let names = declared.into_iter().map(|wanted| wanted.name).collect::<Vec<_>>();
    store::delete_undeclared(&mut tx, &names).await?;
    tx.commit().await.map_err(Error::database("declare the schedules"))
}

/// Adds or changes an operator's entry. It starts from now, at the next tick.
///
/// # Errors
/// [`Error::DeclaredInCode`] when the name is the code's; [`Error::Field`] for what the table refuses.
pub async fn put(conn: &mut PgConnection, wanted: &Declaration, by: &By<'_>) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(Error::database("begin to write a schedule"))?;
    if !store::put(&mut tx, wanted, Source::Table).await? {
        return Err(Error::DeclaredInCode(wanted.name.clone()));
    }
    let details = json!({ "kind": wanted.kind, "expression_sha256": digest(wanted.expression.as_str()) });
    record(&mut tx, by, (words::SCHEDULE_PUT, &wanted.name), details).await?;
    tx.commit().await.map_err(Error::database("write a schedule"))
}

/// Removes an operator's entry. Jobs it made stay.
///
/// # Errors
/// [`Error::DeclaredInCode`] or [`Error::NotFound`].
pub async fn remove(conn: &mut PgConnection, name: &str, by: &By<'_>) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(Error::database("begin to remove a schedule"))?;
    load(&mut tx, name).await?;
    record(&mut tx, by, (words::SCHEDULE_REMOVED, name), json!({})).await?;
    if !store::delete(&mut tx, name).await? {
        return Err(Error::DeclaredInCode(name.to_owned()));
    }
    tx.commit().await.map_err(Error::database("remove a schedule"))
}

/// Puts it on record, as of the business that the entry names, else of the installation. Names are checked by the
/// table, so they are words that the log takes.
async fn record(
    tx: &mut PgConnection,
    by: &By<'_>,
    (word, name): (Word, &str),
    details: serde_json::Value,
) -> Result<(), Error> {
    let business = store::find_owner(tx, name).await?;
    let object = Object { kind: "schedule", id: name };
    Ok(by.record(tx, Act { word, business, object, details }).await?)
}

/// An expression has spaces and stars, which the log does not take; whoever looks has it in the table.
fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Entries by name, after the name `after` (empty for the first page), each with its next slots. With a business, only
/// those that name it.
pub async fn list(
    conn: &mut PgConnection,
    business: Option<&str>,
    after: &str,
    limit: u16,
    now: DateTime<Utc>,
) -> Result<Vec<Listed>, Error> {
    let entries = store::list(conn, business, after, i64::from(limit)).await?;
    Ok(entries.into_iter().map(|entry| shown(entry, now)).collect())
}

/// One entry with its next slots.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn show(conn: &mut PgConnection, name: &str, now: DateTime<Utc>) -> Result<Listed, Error> {
    Ok(shown(load(conn, name).await?, now))
}

fn shown(entry: Entry, now: DateTime<Utc>) -> Listed {
    let upcoming = match entry.expression.parse::<Expression>() {
        Ok(expression) if !entry.paused => {
            let after = entry.last_slot.map_or(now, |slot| slot.max(now));
            expression.upcoming(after, SHOWN)
        }
        _ => Vec::new(),
    };
    Listed { entry, upcoming }
}

async fn load(conn: &mut PgConnection, name: &str) -> Result<Entry, Error> {
    store::find(conn, name).await?.ok_or_else(|| Error::NotFound(name.to_owned()))
}

/// Stops an entry until [`resume`]. Pausing twice is no error.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn pause(conn: &mut PgConnection, name: &str, by: &By<'_>) -> Result<(), Error> {
    set_paused(conn, name, true, by).await
}

/// Lets a paused entry run again, from now: what fell into the pause is not made up.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn resume(conn: &mut PgConnection, name: &str, by: &By<'_>) -> Result<(), Error> {
    set_paused(conn, name, false, by).await
}

async fn set_paused(conn: &mut PgConnection, name: &str, paused: bool, by: &By<'_>) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(Error::database("begin to pause or resume a schedule"))?;
    if !store::set_paused(&mut tx, name, paused).await? {
        return Err(Error::NotFound(name.to_owned()));
    }
    let word = if paused { words::SCHEDULE_PAUSED } else { words::SCHEDULE_RESUMED };
    record(&mut tx, by, (word, name), json!({})).await?;
    tx.commit().await.map_err(Error::database("pause or resume a schedule"))
}

/// Makes the entry's job now, beside its slots, also while it is paused. The same `request` again is the same job: pass
/// the caller's idempotency key, or a fresh id.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::NotEnqueued`] in the queue's words.
pub async fn trigger(conn: &mut PgConnection, name: &str, request: &str, by: &By<'_>) -> Result<Vec<JobId>, Error> {
    let mut tx = conn.begin().await.map_err(Error::database("begin to trigger a schedule"))?;
    let entry = load(&mut tx, name).await?;
    let jobs = enqueue(&mut tx, &entry, &format!("schedule:{name}:trigger:{request}"), by.now).await?;
    let numbers: Vec<i64> = jobs.iter().take(LISTED).map(|job| job.0).collect();
    let details = json!({ "count": jobs.len(), "jobs": numbers });
    record(&mut tx, by, (words::SCHEDULE_TRIGGERED, name), details).await?;
    tx.commit().await.map_err(Error::database("trigger a schedule"))?;
    Ok(jobs)
}

/// Makes the jobs of all slots that are due at `now`, each entry in a transaction of its own. Other schedulers may do
/// the same at the same time; entries they hold are theirs.
///
/// # Errors
/// Only when the database cannot be asked: an entry whose job cannot be made is noted, keeps its slots, and hinders
/// no other.
pub async fn tick(db: &PgPool, now: DateTime<Utc>) -> Result<Ticked, Error> {
    let mut conn = db.acquire().await.map_err(Error::database("connect"))?;
    let mut ticked = Ticked::default();
    for name in store::list_due(&mut conn, now).await? {
        tick_entry(&mut conn, &name, now, &mut ticked).await?;
    }
    ticked.next_at = store::next_at(&mut conn, now).await?;
    Ok(ticked)
}

async fn tick_entry(conn: &mut PgConnection, name: &str, now: DateTime<Utc>, ticked: &mut Ticked) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(Error::database("begin a tick"))?;
    let Some(entry) = store::lock_due(&mut tx, name, now).await? else {
        return Ok(());
    };
    match settle(&mut tx, &entry, now).await {
        Ok(jobs) => ticked.jobs.extend(jobs),
        Err(error @ Error::Database { .. }) => return Err(error),
        Err(error) => {
            let fault = error.to_string();
            if entry.fault.as_ref() != Some(&fault) {
                tracing::warn!(schedule.name = name, fault, "schedule makes no job");
                store::record_fault(&mut tx, name, &fault).await?;
            }
            ticked.faults.push(entry.name);
        }
    }
    tx.commit().await.map_err(Error::database("commit a tick"))
}

/// Jobs for the due slots of an entry that is held, and the entry moved past them.
async fn settle(conn: &mut PgConnection, entry: &Entry, now: DateTime<Utc>) -> Result<Vec<JobId>, Error> {
    let expression: Expression = entry.expression.parse()?;
    let Some(open) = entry.next_slot else {
        let from = entry.last_slot.map_or(now, |slot| slot.max(now));
        store::settle(conn, &entry.name, None, expression.next_after(from)).await?;
        return Ok(Vec::new());
    };
    let limit = usize::try_from(entry.catch_up_max).unwrap_or(1);
    let due = rules::due(&expression, entry.missed, limit, open, now);
    // All slots or none: a savepoint, so that a refusal can still be noted on the entry in this transaction.
    let mut jobs = Vec::new();
    let mut all = conn.begin().await.map_err(Error::database("begin to enqueue"))?;
    for slot in due.slots {
        jobs.extend(enqueue(&mut all, entry, &rules::slot_key(&entry.name, slot), now).await?);
    }
    store::settle(&mut all, &entry.name, due.settled, due.next).await?;
    all.commit().await.map_err(Error::database("enqueue the slots"))?;
    Ok(jobs)
}

/// The entry's job under `key`, for everybody it is for.
async fn enqueue(conn: &mut PgConnection, entry: &Entry, key: &str, now: DateTime<Utc>) -> Result<Vec<JobId>, Error> {
    let handles = match &entry.scope {
        Scope::Only => vec![None],
        Scope::Named(handle) => vec![Some(handle.clone())],
        Scope::Each | Scope::House => {
            let mut all = people::list_handles(conn).await.map_err(Error::database("list the businesses"))?;
            if entry.scope == Scope::House {
                all.truncate(1);
            }
            all.into_iter().map(Some).collect()
        }
    };
    let mut jobs = Vec::with_capacity(handles.len());
    for handle in handles {
        let job = queue::Named {
            kind: &entry.kind,
            payload: &entry.payload,
            business: handle.as_deref(),
            key: Some(key),
            run_at: Some(now),
            lane: entry.lane.map(|lane| lane.as_str()),
            priority: None,
        };
        jobs.push(queue::enqueue_scheduled(conn, &job).await.map_err(|error| Error::enqueue(&entry.name, error))?);
    }
    Ok(jobs)
}
