//! The machine's clock, and in sandbox mode its offset.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::outbound::Clock;

/// The machine's time, in UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one home of now")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// The machine's time, moved by what `muneem.law_clock` says. Only sandbox mode uses it.
#[derive(Clone, Debug, Default)]
pub struct MovedClock {
    micros: Arc<AtomicI64>,
}

impl MovedClock {
    /// Takes over the offset that the database holds.
    pub fn set_offset(&self, moved_by: TimeDelta) {
        self.micros.store(moved_by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::microseconds(self.micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moved_clock_runs_ahead_by_its_offset() {
        let clock = MovedClock::default();
        clock.set_offset(TimeDelta::hours(72));
        let ahead = clock.now() - SystemClock.now();
        assert!(ahead > TimeDelta::hours(71) && ahead <= TimeDelta::hours(72));
    }
}
