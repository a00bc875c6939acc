use std::sync::Arc;

use chrono::TimeDelta;
use muneem_jobs::{
    queue::{
        Disposition, Error, JobError, JobFailure,
        work::{self, Lain},
    },
    vault,
};
use sqlx::PgConnection;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    LaneEnds, Shared,
    acker::Outcome,
    inhand::{InHand, Stop},
};

/// Between claim and lane: payloads that may be personal are sealed in the table before anything else is done with
/// their jobs, and opened for the handler alone. A task of its own, since a key service may take its time: jobs whose
/// payloads are references go past it.
pub(super) struct Opener {
    shared: Arc<Shared>,
    lanes: LaneEnds,
    claimed: UnboundedReceiver<Arc<InHand>>,
    /// In hand and neither passed on nor settled.
    batch: Vec<Arc<InHand>>,
}

/// Sealed in one statement.
const MOST_AT_ONCE: usize = 256;
/// The next look when the database did not take a seal, or keys were being changed.
const AGAIN: TimeDelta = TimeDelta::seconds(2);

impl Opener {
    pub(super) fn new(shared: Arc<Shared>, lanes: LaneEnds, claimed: UnboundedReceiver<Arc<InHand>>) -> Self {
        Self { shared, lanes, claimed, batch: Vec::new() }
    }

    /// Works until the claimer has dropped its end and all it claimed is passed on or back in line.
    pub(super) async fn run(mut self) {
        let draining = self.shared.draining.clone();
        while self.claimed.recv_many(&mut self.batch, MOST_AT_ONCE).await > 0 {
            let passed = tokio::select! {
                biased;
                () = draining.cancelled() => false,
                () = self.pass_on() => true,
            };
            if !passed {
                self.release();
            }
        }
    }

    /// Seals what lies in clear, opens what lies sealed, and hands over what can begin.
    async fn pass_on(&mut self) {
        let worker = |one: &Arc<InHand>| one.worker;
        // After a lost lease a batch may hold jobs of two incarnations; each writes as itself.
        self.batch.sort_by_key(worker);
        let mut conn = match tokio::time::timeout(self.shared.settings.lease, self.shared.db.acquire()).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => return self.put_off(&Error::Database(error)),
            Err(_) => return self.put_off(&Error::Database(sqlx::Error::PoolTimedOut)),
        };
        let mut at = 0;
        while at < self.batch.len() {
            let one = Arc::clone(&self.batch[at]);
            let outcome = match one.claimed.payload {
                Lain::Sealed(_) => self.open(&mut conn, &one).await,
                Lain::Clear(_) => None,
            };
            match outcome {
                Some(outcome) => self.settle(at, outcome),
                None => at += 1,
            }
        }
        if self.batch.iter().any(|one| matches!(one.claimed.payload, Lain::Clear(_)))
            && let Err(error) = self.seal(&mut conn).await
        {
            return self.put_off(&error);
        }
        drop(conn);
        for one in self.batch.drain(..) {
            let unsent = match self.lanes.get(&one.claimed.lane) {
                Some(lane) => lane.send(one).err().map(|unsent| unsent.0),
                None => Some(one),
            };
            if let Some(unsent) = unsent {
                self.shared.settle(&unsent, Outcome::release(&unsent));
            }
        }
    }

    /// Nothing when it was opened, else what becomes of the job.
    async fn open(&self, conn: &mut PgConnection, one: &InHand) -> Option<Outcome> {
        match one.claimed.open(conn, &self.shared.deps.vault).await {
            Ok(payload) => {
                one.set_opened(payload);
                None
            }
            // It will not open tomorrow either: a person must look, who has the keys of a backup or knows that they
            // are gone for good.
            Err(error @ vault::Error::Unreadable { .. }) => {
                let failure =
                    JobFailure { disposition: Disposition::Fail, cause: error.cause(), error: error.to_string() };
                Some(Outcome::failed(&self.shared, one, failure))
            }
            Err(error) => Some(self.wait(one, &error)),
        }
    }

    /// Seals the clear ones of the batch, in the table and by one statement for each incarnation; what cannot be sealed
    /// now, or is no longer ours, leaves the batch.
    async fn seal(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
        let mut sealed = Vec::with_capacity(self.batch.len());
        let mut at = 0;
        while at < self.batch.len() {
            let one = Arc::clone(&self.batch[at]);
            match one.claimed.seal(&mut *conn, &self.shared.deps.vault).await {
                Ok(Some(bytes)) => sealed.push((one.worker, one.held(), bytes)),
                Ok(None) => {}
                Err(error) => {
                    let outcome = self.wait(&one, &error);
                    self.settle(at, outcome);
                    continue;
                }
            }
            at += 1;
        }
        for of_one_worker in sealed.chunk_by(|one, next| one.0 == next.0) {
            let Some((worker, ..)) = of_one_worker.first() else { continue };
            let payloads: Vec<_> = of_one_worker.iter().map(|(_, held, bytes)| (*held, bytes.clone())).collect();
            let ours = tokio::time::timeout(self.shared.settings.lease, work::seal(conn, *worker, &payloads))
                .await
                .unwrap_or(Err(Error::Database(sqlx::Error::PoolTimedOut)))?;
            for (held, _) in payloads.iter().filter(|(held, _)| !ours.contains(&held.job)) {
                if let Some(at) = self.batch.iter().position(|one| one.held() == *held && one.worker == *worker) {
                    self.batch[at].stop(Stop::LostLease);
                    self.settle(at, Outcome::Lost);
                }
            }
        }
        Ok(())
    }

    /// The job waits for its key; the attempt does not count, for it has not begun.
    fn wait(&self, one: &InHand, error: &vault::Error) -> Outcome {
        let until = match error.disposition() {
            Disposition::Snooze(until) => until,
            Disposition::Retry | Disposition::Fail => self.shared.deps.clock.now() + AGAIN,
        };
        tracing::warn!(job = %one.claimed.job, cause = error.cause(), "a job waits for the key of its payload");
        Outcome::wait(one, until, error.cause(), error.to_string())
    }

    /// The database is away: what is in the batch and can begin waits, the rest was settled.
    fn put_off(&mut self, error: &Error) {
        tracing::warn!(%error, jobs = self.batch.len(), "payloads could not be sealed yet");
        let until = self.shared.deps.clock.now() + AGAIN;
        for one in self.batch.drain(..) {
            let outcome = Outcome::wait(&one, until, "queue.database", error.to_string());
            self.shared.settle(&one, outcome);
        }
    }

    fn settle(&mut self, at: usize, outcome: Outcome) {
        let one = self.batch.remove(at);
        outcome.count(&self.shared, &one);
        self.shared.settle(&one, outcome);
    }

    /// Back in line at once.
    fn release(&mut self) {
        for one in self.batch.drain(..) {
            let outcome = Outcome::release(&one);
            self.shared.settle(&one, outcome);
        }
    }
}

/// However it ends, nothing stays in hand that nobody will settle.
impl Drop for Opener {
    fn drop(&mut self) {
        self.claimed.close();
        while let Ok(one) = self.claimed.try_recv() {
            self.batch.push(one);
        }
        self.release();
    }
}
