//! The timeline: when, in India, and what happened, in plain words.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::outbound::Clock;

use crate::outbound::clock::SystemClock;

/// Hears each line.
pub type Say = dyn Fn(&str) + Send + Sync;

pub(super) struct Story<'a> {
    say: &'a Say,
}

impl<'a> Story<'a> {
    pub(super) fn new(say: &'a Say) -> Self {
        Self { say }
    }

    /// Something that happens now.
    pub(super) fn now(&self, what: &str) {
        self.at(SystemClock.now(), what);
    }

    /// Something that happened then.
    pub(super) fn at(&self, when: DateTime<Utc>, what: &str) {
        (self.say)(&format!("{}  {what}", when.with_timezone(&Kolkata).format("%H:%M:%S%.3f")));
    }

    /// A line without a time.
    pub(super) fn line(&self, text: &str) {
        (self.say)(text);
    }
}

/// Asks again every 25 ms until the answer is there, at most `within`.
pub(super) async fn until<T, E>(
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(Some(answer));
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
