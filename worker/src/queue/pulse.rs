use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use std::time::Duration;

/// Whether a worker of this process holds its lease, for whoever asks about the health of the process.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Whether the lease that was last renewed still runs.
    pub fn beats(&self) -> bool {
        self.beats_at(Instant::now())
    }

    fn beats_at(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// The lease was renewed by a question put at `asked`.
    pub(super) fn renewed(&self, asked: Instant, lease: Duration) {
        *self.until() = Some(asked + lease);
    }

    /// The worker has left.
    pub(super) fn ended(&self) {
        *self.until() = None;
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_lasts_as_long_as_the_lease() {
        let (pulse, start, lease) = (Pulse::default(), Instant::now(), Duration::from_secs(30));
        assert!(!pulse.beats_at(start), "nobody has joined yet");
        pulse.renewed(start, lease);
        assert!(pulse.beats_at(start) && pulse.beats_at(start + lease - Duration::from_millis(1)));
        assert!(!pulse.beats_at(start + lease), "not renewed for a whole lease");
        pulse.renewed(start + lease, lease);
        assert!(pulse.clone().beats_at(start + lease), "the database is back");
        pulse.ended();
        assert!(!pulse.beats_at(start + lease));
    }
}
