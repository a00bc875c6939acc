use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use muneem_jobs::{
    id::JobId,
    queue::{
        Lane,
        work::{Claimed, Held, Lain},
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Why a job in hand must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody cancelled it.
    Cancelled,
    /// It ran longer than its kind may.
    TimedOut,
    /// The lease is lost: somebody else has it by now.
    LostLease,
    /// The process ends and its time of grace is over.
    Shutdown,
}

/// A claimed job, from claim to outcome.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) claimed: Claimed,
    /// The incarnation that claimed it.
    pub(super) worker: i64,
    /// Raised when it must stop; [`Self::why`] says why.
    pub(super) stop: CancellationToken,
    why: OnceLock<Stop>,
    /// Told when the handler begins.
    pub(super) begun: Notify,
    /// The payload in clear, where it lay sealed: for the handler alone.
    opened: Opened,
}

/// Silent about what is in it.
#[derive(Default)]
struct Opened(OnceLock<Zeroizing<String>>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "Opened(…)" } else { "Unopened" })
    }
}

impl InHand {
    pub(super) fn held(&self) -> Held {
        Held { job: self.claimed.job, attempt: self.claimed.attempt }
    }

    /// Attempts that count, this one included.
    pub(super) fn counted(&self) -> i32 {
        self.claimed.attempt - self.claimed.uncounted
    }

    /// The payload's JSON text; none while it is sealed.
    pub(super) fn payload(&self) -> Option<&str> {
        match &self.claimed.payload {
            Lain::Clear(payload) => Some(payload.get()),
            Lain::Sealed(_) => self.opened.0.get().map(|opened| opened.as_str()),
        }
    }

    /// Keeps the payload in clear until the job has its outcome.
    pub(super) fn set_opened(&self, payload: Zeroizing<String>) {
        // It is opened once; a second opening would be of the same bytes.
        let _ = self.opened.0.set(payload);
    }

    pub(super) fn stop(&self, why: Stop) {
        // The first reason stands.
        let _ = self.why.set(why);
        self.stop.cancel();
    }

    pub(super) fn why(&self) -> Option<Stop> {
        self.why.get().copied()
    }
}

/// All jobs in this process's hand.
#[derive(Debug)]
pub(super) struct Hands {
    worker: AtomicI64,
    jobs: Mutex<HashMap<JobId, Arc<InHand>>>,
    counts: [LaneCounts; Lane::ALL.len()],
    emptied: Notify,
}

#[derive(Debug, Default)]
struct LaneCounts {
    in_hand: AtomicUsize,
    settled: AtomicUsize,
}

impl Hands {
    pub(super) fn new(worker: i64) -> Self {
        Self {
            worker: AtomicI64::new(worker),
            jobs: Mutex::default(),
            counts: Default::default(),
            emptied: Notify::new(),
        }
    }

    /// The incarnation that new claims carry.
    pub(super) fn worker(&self) -> i64 {
        self.worker.load(Ordering::Acquire)
    }

    pub(super) fn set_worker(&self, worker: i64) {
        self.worker.store(worker, Ordering::Release);
    }

    pub(super) fn take(&self, claimed: Claimed, worker: i64) -> Arc<InHand> {
        let lane = claimed.lane;
        let job = claimed.job;
        let in_hand = Arc::new(InHand {
            claimed,
            worker,
            stop: CancellationToken::new(),
            why: OnceLock::new(),
            begun: Notify::new(),
            opened: Opened::default(),
        });
        self.lock().insert(job, Arc::clone(&in_hand));
        self.counts[lane as usize].in_hand.fetch_add(1, Ordering::AcqRel);
        in_hand
    }

    /// The job's outcome is known.
    pub(super) fn settle(&self, in_hand: &Arc<InHand>) {
        let mut jobs = self.lock();
        // After a lost lease the same job may have been claimed again by this very process.
        if jobs.get(&in_hand.claimed.job).is_some_and(|present| Arc::ptr_eq(present, in_hand)) {
            jobs.remove(&in_hand.claimed.job);
        }
        drop(jobs);
        let counts = &self.counts[in_hand.claimed.lane as usize];
        counts.settled.fetch_add(1, Ordering::AcqRel);
        counts.in_hand.fetch_sub(1, Ordering::AcqRel);
        if self.total() == 0 {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn in_hand(&self, lane: Lane) -> usize {
        self.counts[lane as usize].in_hand.load(Ordering::Acquire)
    }

    /// Jobs settled since the start.
    pub(super) fn settled(&self, lane: Lane) -> usize {
        self.counts[lane as usize].settled.load(Ordering::Acquire)
    }

    pub(super) fn total(&self) -> usize {
        self.counts.iter().map(|counts| counts.in_hand.load(Ordering::Acquire)).sum()
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.lock().keys().copied().collect()
    }

    pub(super) fn find(&self, job: JobId) -> Option<Arc<InHand>> {
        self.lock().get(&job).cloned()
    }

    pub(super) fn stop_all(&self, why: Stop) {
        for in_hand in self.lock().values() {
            in_hand.stop(why);
        }
    }

    /// Stops the jobs of an incarnation whose lease is lost.
    pub(super) fn stop_of(&self, worker: i64) {
        for in_hand in self.lock().values().filter(|in_hand| in_hand.worker == worker) {
            in_hand.stop(Stop::LostLease);
        }
    }

    pub(super) async fn wait_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.total() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<InHand>>> {
        self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
