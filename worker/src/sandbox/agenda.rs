//! What happens later, on the stand-in's own clock: moved forward, it makes everything happen that has come due.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{
    Inner,
    callback::Body,
    templates::Step,
    world::{Progress, World},
};

/// The clock may be somebody else's too; a look at it now and then notices when that one moves it.
const LOOK: Duration = Duration::from_millis(250);
/// Things done under one lock.
const AT_ONCE: usize = 256;
/// Furthest that the clock goes from the machine's.
const FURTHEST: TimeDelta = TimeDelta::days(36_525);

/// One thing that happens later.
#[derive(Debug)]
pub(super) enum Due {
    /// A message gets on.
    Move { sequence: u64, to: Progress },
    /// A template gets on.
    Template { id: u64, step: Step },
    /// A webhook that was not taken is posted again.
    Post(Arc<Body>),
    /// Events are told that the stand-in was told to keep back.
    Tell(Vec<super::callback::Event>),
    /// A message that was held back for a while goes out.
    Release { sequence: u64 },
    /// A maintenance ends: the number has its new throughput.
    Upgraded { number: usize },
}

/// Things to come, in order.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    things: BTreeMap<(i64, u64), Due>,
    next: u64,
}

impl Agenda {
    /// Notes a thing. Says whether it is now the next one.
    fn note(&mut self, at: DateTime<Utc>, due: Due) -> bool {
        self.next += 1;
        let key = (at.timestamp_micros(), self.next);
        let first = self.things.first_key_value().is_none_or(|(next, _)| key < *next);
        self.things.insert(key, due);
        first
    }

    fn take(&mut self, now: DateTime<Utc>) -> Option<Due> {
        let entry = self.things.first_entry()?;
        (entry.key().0 <= now.timestamp_micros()).then(|| entry.remove())
    }

    fn next_at(&self) -> Option<i64> {
        self.things.first_key_value().map(|((at, _), _)| *at)
    }

    /// Things noted.
    pub(super) fn len(&self) -> usize {
        self.things.len()
    }

    /// Makes every webhook that waits for another try due now.
    pub(super) fn post_now(&mut self, now: DateTime<Utc>) {
        let waiting: Vec<_> = self.things.extract_if(.., |_, due| matches!(due, Due::Post(_))).collect();
        for (_, due) in waiting {
            self.note(now, due);
        }
    }
}

impl Inner {
    /// Notes what happens at an instant.
    pub(super) fn later(&self, world: &mut World, at: DateTime<Utc>, due: Due) {
        if world.agenda.note(at, due) {
            self.alarm.notify_one();
        }
    }
}

/// Lets things happen when their time comes, until the stand-in ends.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut seen = inner.now();
    loop {
        let now = inner.now();
        // A leap of the clock ages what nobody wrote on the agenda.
        if now - seen > TimeDelta::minutes(5) {
            let told = inner.world().templates.age(now);
            inner.tell_all(told);
        }
        seen = now;
        let (due, next) = {
            let mut world = inner.world();
            let due: Vec<_> = std::iter::from_fn(|| world.agenda.take(now)).take(AT_ONCE).collect();
            (due, world.agenda.next_at())
        };
        let some = !due.is_empty();
        inner.happen(due);
        if some {
            // Others may want the world as well.
            tokio::task::yield_now().await;
            continue;
        }
        let wait = next.map(|at| {
            let micros = u64::try_from(at - inner.now().timestamp_micros()).unwrap_or(0);
            Duration::from_micros(micros).min(LOOK)
        });
        tokio::select! {
            () = inner.ended.cancelled() => return,
            () = inner.alarm.notified() => {}
            () = async { match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    /// Seconds from where the clock stands; negative is back.
    advance_secs: Option<i64>,
    /// Seconds from the machine's time; 0 puts it right.
    moved_by_secs: Option<i64>,
}

/// `POST /sandbox/clock`: moves the stand-in's clock, as muneem's own endpoint of this name moves muneem's.
pub(super) async fn move_clock(State(inner): State<Arc<Inner>>, Json(asked): Json<Move>) -> Response {
    let before = TimeDelta::microseconds(inner.moved.load(Ordering::Relaxed));
    let moved = match asked {
        Move { advance_secs: Some(secs), moved_by_secs: None } => {
            TimeDelta::try_seconds(secs).and_then(|by| before.checked_add(&by))
        }
        Move { advance_secs: None, moved_by_secs: Some(secs) } => TimeDelta::try_seconds(secs),
        _ => None,
    };
    let Some(moved) = moved.filter(|moved| moved.abs() <= FURTHEST) else {
        let why = "send exactly one of advance_secs and moved_by_secs, within 100 years\n";
        return (StatusCode::UNPROCESSABLE_ENTITY, why).into_response();
    };
    inner.moved.store(moved.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    inner.options.clock.set_offset(moved);
    inner.alarm.notify_one();
    Json(json!({ "now": inner.now(), "moved_by_secs": moved.num_seconds() })).into_response()
}
