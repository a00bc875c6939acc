//! The ticking task: slots of `muneem.schedule_entries` become jobs.
//!
//! Any number of processes may run it at once; [`muneem_jobs::schedule::tick`] makes one job of a slot whoever comes
//! first. It sleeps until the next slot, but never long, so that a changed table and a moved sandbox clock are seen.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use muneem_jobs::{
    Deps,
    schedule::{self, Ticked},
};
use tokio_util::sync::CancellationToken;

/// Longest sleep. Half of [`schedule::rules::ON_TIME_SECS`], so that a slot written into the table by hand is on time.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// First pause after the database could not be asked; doubles up to [`LONGEST_SLEEP`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Ticks until `shutdown`; a tick that has begun is finished. `longest_sleep` is [`LONGEST_SLEEP`], less where the
/// clock may be moved by hand.
pub async fn run(deps: Arc<Deps>, longest_sleep: Duration, shutdown: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let sleep = match schedule::tick(&deps.db, deps.clock.now()).await {
            Ok(ticked) => {
                pause = FIRST_PAUSE;
                report(&ticked);
                // The clock again: a tick with many slots takes its time.
                sleep_until(ticked.next_at, deps.clock.now(), longest_sleep)
            }
            Err(error) => {
                metrics::counter!("muneem_schedule_ticks_failed_total").increment(1);
                tracing::warn!(error = &error as &dyn std::error::Error, retry_in = ?pause, "schedule tick failed");
                let this = pause;
                pause = (pause * 2).min(longest_sleep);
                this
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

fn report(ticked: &Ticked) {
    if !ticked.jobs.is_empty() {
        metrics::counter!("muneem_schedule_jobs_total").increment(ticked.jobs.len() as u64);
        tracing::debug!(jobs = ticked.jobs.len(), "schedule slots became jobs");
    }
    metrics::gauge!("muneem_schedule_faulty_entries").set(u32::try_from(ticked.faults.len()).unwrap_or(u32::MAX));
}

fn sleep_until(next_at: Option<DateTime<Utc>>, now: DateTime<Utc>, longest: Duration) -> Duration {
    next_at.map_or(longest, |slot| (slot - now).to_std().unwrap_or(Duration::ZERO).min(longest))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn sleeps_until_the_slot_and_never_longer_than_told() {
        let now = DateTime::UNIX_EPOCH;
        let sleep = |next_at| sleep_until(next_at, now, LONGEST_SLEEP);
        assert_eq!(sleep(None), LONGEST_SLEEP);
        assert_eq!(sleep(Some(now + TimeDelta::milliseconds(250))), Duration::from_millis(250));
        assert_eq!(sleep(Some(now + TimeDelta::days(365))), LONGEST_SLEEP);
        assert_eq!(sleep(Some(now - TimeDelta::seconds(1))), Duration::ZERO);
    }
}
