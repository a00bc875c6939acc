use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apalis_core::error::BoxDynError;
use chrono::{DateTime, Utc};
use muneem_jobs::queue::{
    Disposition, Done, Error, JobFailure, Settings, Slots,
    work::{self, Buried, Held, PutBack},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Shared,
    handler::Ended,
    inhand::{InHand, Stop},
};

/// What becomes of one job, by the incarnation that held it.
#[derive(Debug)]
pub(super) enum Outcome {
    Finish {
        worker: i64,
        held: Held,
        result: Option<serde_json::Value>,
        frees_slot: bool,
    },
    /// The handler acknowledged in its own transaction.
    Acked {
        frees_slot: bool,
    },
    PutBack(i64, PutBack),
    Bury(i64, Buried),
    Cancelled(i64, Held),
    /// Nothing of it may be written: somebody else has it.
    Lost,
    /// Nothing comes after this.
    End,
}

/// When a program does not know a kind, a newer one is being rolled out beside it.
const UNKNOWN_KIND_PAUSE: chrono::TimeDelta = chrono::TimeDelta::seconds(15);

impl Outcome {
    /// Back in line at once, unbegun.
    pub(super) fn release(in_hand: &InHand) -> Self {
        Self::back(in_hand, None, false, None, None)
    }

    /// Again at this instant, unbegun: what it needs to begin is not there.
    pub(super) fn wait(in_hand: &InHand, until: DateTime<Utc>, cause: &'static str, error: String) -> Self {
        Self::back(in_hand, Some(until), false, Some(cause), Some(error))
    }

    fn back(
        in_hand: &InHand,
        run_at: Option<DateTime<Utc>>,
        counts: bool,
        cause: Option<&'static str>,
        error: Option<String>,
    ) -> Self {
        Self::PutBack(in_hand.worker, PutBack { held: in_hand.held(), run_at, counts, cause, error })
    }

    pub(super) fn of(shared: &Shared, in_hand: &InHand, ended: Result<Ended, BoxDynError>) -> Self {
        let kind = shared.kinds.get(in_hand.claimed.kind.as_str());
        let failed = |failure| Self::failed(shared, in_hand, failure);
        let frees_slot = kind.is_some_and(|kind| kind.settings.slots != Slots::Unlimited);
        let outcome = match ended {
            Ok(Ended::Done(Done::Ack(result))) => {
                Self::Finish { worker: in_hand.worker, held: in_hand.held(), result, frees_slot }
            }
            Ok(Ended::Done(Done::Acked)) => Self::Acked { frees_slot },
            Ok(Ended::Failed(failure)) => failed(failure),
            Ok(Ended::NotBegun) => Self::release(in_hand),
            Ok(Ended::UnknownKind) => Self::back(
                in_hand,
                Some(shared.deps.clock.now() + UNKNOWN_KIND_PAUSE),
                false,
                Some("queue.unknown_kind"),
                Some("no worker that tried it knows this kind".to_owned()),
            ),
            Ok(Ended::Stopped) => match in_hand.why() {
                Some(Stop::Cancelled) => Self::Cancelled(in_hand.worker, in_hand.held()),
                Some(Stop::LostLease) => Self::Lost,
                Some(Stop::Shutdown) => Self::back(
                    in_hand,
                    None,
                    true,
                    Some("queue.shutdown"),
                    Some("the worker ended before the job did".to_owned()),
                ),
                Some(Stop::TimedOut) | None => failed(JobFailure {
                    disposition: Disposition::Retry,
                    cause: "queue.timeout",
                    error: format!("ran longer than {} s", kind.map_or(0, |kind| kind.settings.timeout.as_secs())),
                }),
            },
            // The spawned handler panicked; the message may hold anything, so it stays out of the table.
            Err(_) => failed(JobFailure {
                disposition: Disposition::Retry,
                cause: "queue.panic",
                error: "the handler panicked; the log has where".to_owned(),
            }),
        };
        outcome.count(shared, in_hand);
        outcome
    }

    /// Shows it in the metrics.
    pub(super) fn count(&self, shared: &Shared, in_hand: &InHand) {
        let name = shared.kinds.get(in_hand.claimed.kind.as_str()).map_or("unknown", |kind| kind.name);
        metrics::counter!("muneem_jobs_ended_total", "kind" => name, "outcome" => self.label()).increment(1);
    }

    pub(super) fn failed(shared: &Shared, in_hand: &InHand, failure: JobFailure) -> Self {
        let JobFailure { disposition, cause, error } = failure;
        let settings = shared.kinds.get(in_hand.claimed.kind.as_str()).map_or(Settings::DEFAULT, |kind| kind.settings);
        let job = in_hand.claimed.job;
        let bury = |error| Self::Bury(in_hand.worker, Buried { held: in_hand.held(), cause, error });
        match disposition {
            Disposition::Snooze(until) => Self::back(in_hand, Some(until), false, Some(cause), Some(error)),
            Disposition::Fail => {
                tracing::error!(%job, kind = in_hand.claimed.kind, cause, error, "job given up");
                bury(error)
            }
            Disposition::Retry if in_hand.counted() >= i32::from(settings.max_attempts) => {
                tracing::error!(%job, kind = in_hand.claimed.kind, cause, error, "job given up: no attempt left");
                bury(error)
            }
            Disposition::Retry => {
                let pause = backoff(&settings, in_hand.counted(), shared.deps.chance.unit());
                tracing::warn!(%job, kind = in_hand.claimed.kind, cause, error, ?pause, "job will be tried again");
                let at =
                    shared.deps.clock.now() + chrono::TimeDelta::from_std(pause).unwrap_or(chrono::TimeDelta::hours(1));
                Self::back(in_hand, Some(at), true, Some(cause), Some(error))
            }
        }
    }

    fn frees_slot(&self) -> bool {
        match self {
            Self::Finish { frees_slot, .. } | Self::Acked { frees_slot } => *frees_slot,
            Self::Bury(..) | Self::Cancelled(..) => true,
            Self::PutBack(..) | Self::Lost | Self::End => false,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Finish { .. } | Self::Acked { .. } => "done",
            Self::PutBack(..) => "put_back",
            Self::Bury(..) => "dead",
            Self::Cancelled(..) => "cancelled",
            Self::Lost | Self::End => "lost",
        }
    }
}

/// The pause before the next attempt: doubles from the kind's first to its longest, with a jitter (`unit` in 0..1) of a
/// quarter either way, so that what failed together does not come back together.
fn backoff(settings: &Settings, attempt: i32, unit: f64) -> Duration {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(30);
    let pause = settings.backoff.saturating_mul(1 << doublings).min(settings.backoff_max);
    pause.mul_f64(0.75 + unit / 2.0)
}

/// Writes outcomes, as many at once as gathered during the last write.
pub(super) struct Acker {
    shared: Arc<Shared>,
    outcomes: UnboundedReceiver<Outcome>,
}

/// More than a statement's arrays should hold.
const MOST_AT_ONCE: usize = 2000;

#[derive(Debug, Default)]
struct Batch {
    finish: Vec<(Held, Option<serde_json::Value>)>,
    back: Vec<PutBack>,
    bury: Vec<Buried>,
    cancelled: Vec<Held>,
}

impl Batch {
    /// Its outcomes, each in a batch of its own.
    fn singly(self) -> Vec<Self> {
        let finish = self.finish.into_iter().map(|one| Self { finish: vec![one], ..Self::default() });
        let back = self.back.into_iter().map(|one| Self { back: vec![one], ..Self::default() });
        let bury = self.bury.into_iter().map(|one| Self { bury: vec![one], ..Self::default() });
        let cancelled = self.cancelled.into_iter().map(|one| Self { cancelled: vec![one], ..Self::default() });
        finish.chain(back).chain(bury).chain(cancelled).collect()
    }

    /// The same without what a handler said: a result that cannot be kept makes a dead letter, an error is left out.
    fn holdable(mut self) -> Self {
        let unsaid = "what it said is not something Postgres can hold";
        for (held, _) in self.finish.drain(..) {
            tracing::error!(job = %held.job, "the job's result cannot be stored; given up");
            self.bury.push(Buried { held, cause: "queue.bad_outcome", error: String::new() });
        }
        for error in self.bury.iter_mut().map(|buried| &mut buried.error) {
            unsaid.clone_into(error);
        }
        for error in self.back.iter_mut().filter_map(|back| back.error.as_mut()) {
            unsaid.clone_into(error);
        }
        self
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Taken,
    /// Something in it can never be written.
    Unholdable,
    /// Nobody answered before the worker had to end.
    LeftToLease,
}

impl Acker {
    pub(super) fn new(shared: Arc<Shared>, outcomes: UnboundedReceiver<Outcome>) -> Self {
        Self { shared, outcomes }
    }

    pub(super) async fn run(mut self) {
        let mut gathered = Vec::with_capacity(MOST_AT_ONCE);
        loop {
            gathered.clear();
            if self.outcomes.recv_many(&mut gathered, MOST_AT_ONCE).await == 0 {
                return;
            }
            let mut last = false;
            // A job that waits for a slot is found by the next tick.
            let slot_freed = gathered.iter().any(Outcome::frees_slot);
            let mut by_worker: BTreeMap<i64, Batch> = BTreeMap::new();
            for outcome in gathered.drain(..) {
                match outcome {
                    Outcome::Finish { worker, held, result, .. } => {
                        by_worker.entry(worker).or_default().finish.push((held, result));
                    }
                    Outcome::PutBack(worker, back) => by_worker.entry(worker).or_default().back.push(back),
                    Outcome::Bury(worker, buried) => by_worker.entry(worker).or_default().bury.push(buried),
                    Outcome::Cancelled(worker, held) => by_worker.entry(worker).or_default().cancelled.push(held),
                    Outcome::Acked { .. } | Outcome::Lost => {}
                    Outcome::End => last = true,
                }
            }
            let any_back = by_worker.values().any(|batch| !batch.back.is_empty());
            for (worker, batch) in by_worker {
                self.write(worker, batch).await;
            }
            if slot_freed || any_back {
                self.shared.want_tick();
            }
            if last {
                return;
            }
        }
    }

    /// One outcome that Postgres cannot hold must not keep back the others, nor its own job.
    async fn write(&self, worker: i64, batch: Batch) {
        if self.write_until_taken(worker, &batch).await == Written::Unholdable {
            for one in batch.singly() {
                if self.write_until_taken(worker, &one).await == Written::Unholdable {
                    let instead = one.holdable();
                    if self.write_until_taken(worker, &instead).await == Written::Unholdable {
                        tracing::error!(worker, outcome = ?instead, "an outcome that cannot be written");
                    }
                }
            }
        }
    }

    /// Until the database takes it: what ran must not run again because nobody wrote it down. If the lease runs out
    /// meanwhile, fencing refuses the write and somebody else's attempt counts.
    async fn write_until_taken(&self, worker: i64, batch: &Batch) -> Written {
        let mut pause = Duration::from_millis(20);
        let mut drained_for = Duration::ZERO;
        loop {
            match self.try_write(worker, batch).await {
                Ok(lost) => {
                    if lost > 0 {
                        tracing::warn!(worker, lost, "outcomes of a lost lease were refused");
                    }
                    return Written::Taken;
                }
                Err(Error::Database(error)) if is_about_data(&error) => return Written::Unholdable,
                Err(error) => {
                    tracing::warn!(worker, %error, "outcomes not written yet");
                    if self.shared.draining.is_cancelled() {
                        drained_for += pause;
                        if drained_for > self.shared.settings.shutdown {
                            tracing::error!(worker, "gave up writing outcomes; the lease will run out");
                            return Written::LeftToLease;
                        }
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    async fn try_write(&self, worker: i64, batch: &Batch) -> Result<usize, Error> {
        // A connection that is gone without a word is given up while the lease still holds.
        tokio::time::timeout(self.shared.settings.lease, self.write_batch(worker, batch))
            .await
            .unwrap_or(Err(Error::Database(sqlx::Error::PoolTimedOut)))
    }

    async fn write_batch(&self, worker: i64, batch: &Batch) -> Result<usize, Error> {
        let mut conn = self.shared.db.acquire().await.map_err(Error::Database)?;
        let mut lost = 0;
        if !batch.finish.is_empty() {
            lost += batch.finish.len() - work::finish(&mut conn, worker, &batch.finish).await?.len();
        }
        if !batch.back.is_empty() {
            lost += batch.back.len() - work::put_back(&mut conn, worker, &batch.back).await?.len();
        }
        if !batch.bury.is_empty() {
            lost += batch.bury.len() - work::bury(&mut conn, worker, &batch.bury).await?.len();
        }
        if !batch.cancelled.is_empty() {
            lost += batch.cancelled.len() - work::finish_cancelled(&mut conn, worker, &batch.cancelled).await?.len();
        }
        Ok(lost)
    }
}

/// SQLSTATE classes 22 (data exception) and 23 (integrity): the same statement will never succeed.
fn is_about_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_with_a_quarter_of_jitter() {
        let settings =
            Settings { backoff: Duration::from_secs(2), backoff_max: Duration::from_secs(60), ..Settings::DEFAULT };
        assert_eq!(backoff(&settings, 1, 0.5), Duration::from_secs(2));
        assert_eq!(backoff(&settings, 3, 0.5), Duration::from_secs(8));
        assert_eq!(backoff(&settings, 3, 0.0), Duration::from_secs(6));
        assert_eq!(backoff(&settings, 3, 1.0), Duration::from_secs(10));
        assert_eq!(backoff(&settings, 40, 0.5), Duration::from_secs(60));
    }
}
