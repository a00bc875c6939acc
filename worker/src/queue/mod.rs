//! Workers: apalis lives here and only here. The queue of record is `muneem_jobs::queue`; this is what runs its jobs.
//!
//! ```text
//! listener ─NOTIFY─▶ claimer ─Claimed─▶ LaneQueue (apalis Backend) ─Task─▶ OutcomeLayer ▶ parallelize ▶ Handler
//!                       ▲  └─▶ opener ──▶┘                                      │              (place, kind, time)
//!                       └────────── room again ◀── acker ◀──── Outcome ─────────┘
//! opener: seals payloads that SQL enqueued in clear, opens sealed ones; the rest passes it by
//! beat: renews the lease, hears of cancellations, gives up what a lost lease took away
//! ```
//!
//! One apalis `Worker` a lane, all under one `Monitor`. Nothing of ours waits inside a poll method, a backend never
//! errs, and a job's outcome is what its own future answered: the store never learns it from apalis' task status.

mod acker;
mod backend;
mod beat;
mod capacity;
mod claimer;
mod handler;
mod inhand;
mod opener;
mod pulse;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apalis_core::{
    monitor::Monitor,
    worker::{builder::WorkerBuilder, ext::parallelize::ParallelizeExt},
};
use muneem_jobs::{
    Deps,
    queue::{Kind, Lane, Steps, work},
};
use sqlx::PgPool;
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use self::{
    acker::Acker, backend::LaneQueue, capacity::Capacity, claimer::Claimer, handler::Handler, inhand::Hands,
    opener::Opener,
};

pub use self::pulse::Pulse;

/// How this process works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this worker is called in `muneem.queue_workers`: host and process.
    pub name: String,
    /// Which lanes it serves.
    pub lanes: Vec<Lane>,
    /// A worker silent for so long is taken for dead.
    pub lease: Duration,
    /// Jobs run at once, over all lanes.
    pub concurrency: usize,
    /// Places only one lane may take.
    pub reserved: HashMap<Lane, usize>,
    /// Longest pause between two looks for work.
    pub poll: Duration,
    /// A job that has waited so long for a place is one lane more urgent.
    pub ageing: Duration,
    /// Time running jobs are given at shutdown.
    pub shutdown: Duration,
    /// Told of each renewed lease.
    pub pulse: Pulse,
}

/// How a worker reaches the database.
#[derive(Clone, Debug)]
pub struct Connections {
    /// For claims, payloads, acknowledgements and beats; wants five, and no handler takes them away.
    pub db: PgPool,
    /// For LISTEN; never through a pooler in transaction mode.
    pub listen: sqlx::postgres::PgConnectOptions,
}

/// What all parts of one worker process share.
struct Shared {
    deps: Arc<Deps>,
    /// Connections for claims, acknowledgements and beats alone, so that handlers never starve them.
    db: PgPool,
    kinds: HashMap<&'static str, Kind>,
    settings: Settings,
    capacity: Arc<Capacity>,
    hands: Hands,
    outcomes: mpsc::UnboundedSender<acker::Outcome>,
    /// Something may be claimable, or there is room again.
    wake: Notify,
    /// Slots were freed or something new may be due: tick before the next claim.
    tick_wanted: AtomicBool,
    /// Somebody wants a running job cancelled.
    cancel_wanted: Notify,
    /// Nothing new is begun.
    draining: CancellationToken,
    steps: Arc<dyn Steps>,
}

impl Shared {
    fn want_tick(&self) {
        self.tick_wanted.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// The runtime's own listener of steps: a trace event for each.
struct TracedSteps;

impl Steps for TracedSteps {
    fn reached<'a>(&'a self, step: &'static str) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        tracing::debug!(step, "step");
        Box::pin(std::future::ready(()))
    }
}

/// Parts without which a worker would live on and do nothing: when one ends before its time, the process ends, loudly,
/// and whoever watches it starts it anew.
struct Vital {
    draining: CancellationToken,
    failed: Arc<AtomicBool>,
}

/// A part of a worker, in a task of its own.
struct Part {
    name: &'static str,
    itself: AbortHandle,
    watched: JoinHandle<()>,
}

impl Vital {
    fn watch(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) -> Part {
        let (draining, failed) = (self.draining.clone(), Arc::clone(&self.failed));
        let part = tokio::spawn(part);
        let itself = part.abort_handle();
        let watched = tokio::spawn(async move {
            let ended = part.await;
            if ended.is_err() || !draining.is_cancelled() {
                tracing::error!(part = name, "a vital part of the worker ended before its time; ending the worker");
                failed.store(true, Ordering::Release);
                draining.cancel();
            }
        });
        Part { name, itself, watched }
    }
}

/// Runs jobs until `shutdown`, then lets the running ones end (as long as the settings give), hands back what it did
/// not begin and leaves.
///
/// # Errors
/// When the database cannot be reached at the start; later it only waits and tries again. When a part of the worker
/// ended before its time: then what ran is handed back too, and the process should be started anew.
pub async fn run(
    deps: Arc<Deps>,
    connections: Connections,
    kinds: &[Kind],
    settings: Settings,
    shutdown: CancellationToken,
) -> Result<(), muneem_jobs::queue::Error> {
    Worker::start(deps, connections, kinds, settings, shutdown).await?.until_end().await
}

/// A worker that has joined and whose parts run; [`Worker::until_end`] lets it take jobs.
pub struct Worker {
    shared: Arc<Shared>,
    monitor: Monitor,
    claimer: Part,
    opener: Part,
    acker: Part,
    /// End last, when nothing is in hand.
    helpers: [Part; 3],
    stop_helpers: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Worker {
    /// Joins, and starts the worker's parts.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn start(
        deps: Arc<Deps>,
        connections: Connections,
        kinds: &[Kind],
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Result<Self, muneem_jobs::queue::Error> {
        let (outcomes, outcomes_in) = mpsc::unbounded_channel();
        let Connections { db, listen } = connections;
        let worker = join(&db, &settings).await?;
        let capacity = Arc::new(Capacity::new(settings.concurrency, &settings.reserved, settings.ageing));
        let shared = Arc::new(Shared {
            deps,
            db,
            kinds: kinds.iter().map(|kind| (kind.name, *kind)).collect(),
            settings,
            capacity,
            hands: Hands::new(worker),
            outcomes,
            wake: Notify::new(),
            tick_wanted: AtomicBool::new(true),
            cancel_wanted: Notify::new(),
            draining: shutdown,
            steps: Arc::new(TracedSteps),
        });

        let (queues, monitor) = lanes(&shared);
        let stop_helpers = CancellationToken::new();
        let failed = Arc::new(AtomicBool::new(false));
        let vital = Vital { draining: shared.draining.clone(), failed: Arc::clone(&failed) };
        let (to_open, from_claimer) = mpsc::unbounded_channel();
        let opener = vital.watch("opener", Opener::new(Arc::clone(&shared), queues.clone(), from_claimer).run());
        let claimer = vital.watch("claimer", Claimer::new(Arc::clone(&shared), queues, to_open).run());
        let acker = vital.watch("acker", Acker::new(Arc::clone(&shared), outcomes_in).run());
        let helpers = [
            vital.watch("beat", beat::beat(Arc::clone(&shared), stop_helpers.clone())),
            vital.watch("cancellations", beat::hear_cancellations(Arc::clone(&shared), stop_helpers.clone())),
            vital.watch("listener", beat::listen(Arc::clone(&shared), listen, stop_helpers.clone())),
        ];
        Ok(Self { shared, monitor, claimer, opener, acker, helpers, stop_helpers, failed })
    }

    /// The tasks it cannot live without, by name: for tests that end one.
    pub fn parts(&self) -> Vec<(&'static str, AbortHandle)> {
        let parts = [&self.claimer, &self.opener, &self.acker].into_iter().chain(&self.helpers);
        parts.map(|part| (part.name, part.itself.clone())).collect()
    }

    /// Works until it is asked to end or a part of it fails, then leaves.
    ///
    /// # Errors
    /// When a part of it ended before its time.
    pub async fn until_end(self) -> Result<(), muneem_jobs::queue::Error> {
        let Self { shared, monitor, claimer, opener, acker, helpers, stop_helpers, failed } = self;
        let give_up = {
            let (shared, failed) = (Arc::clone(&shared), Arc::clone(&failed));
            tokio::spawn(async move {
                shared.draining.cancelled().await;
                // Without its beat a worker may hold what is somebody else's, without its acker it cannot say what
                // came of it: no time of grace then.
                if !failed.load(Ordering::Acquire) {
                    tokio::time::sleep(shared.settings.shutdown).await;
                }
                shared.hands.stop_all(inhand::Stop::Shutdown);
            })
        };
        let draining = shared.draining.clone();
        let signal = async move {
            draining.cancelled().await;
            Ok(())
        };
        if let Err(error) = monitor.run_with_signal(signal).await {
            tracing::error!(%error, "a lane's worker ended badly");
        }
        let _ = claimer.watched.await;
        let _ = opener.watched.await;
        // Whatever was claimed while the lanes closed goes back too; then the acker ends with its last sender.
        shared.hands.wait_empty().await;
        give_up.abort();
        let _ = shared.outcomes.send(acker::Outcome::End);
        let _ = acker.watched.await;
        stop_helpers.cancel();
        for helper in helpers {
            let _ = helper.watched.await;
        }
        leave(&shared).await;
        if failed.load(Ordering::Acquire) {
            return Err(muneem_jobs::queue::Error::Database(sqlx::Error::WorkerCrashed));
        }
        Ok(())
    }
}

/// Registers this incarnation; answers its id.
async fn join(db: &PgPool, settings: &Settings) -> Result<i64, muneem_jobs::queue::Error> {
    let mut conn = db.acquire().await.map_err(muneem_jobs::queue::Error::Database)?;
    let asked = tokio::time::Instant::now();
    let worker = work::join(&mut conn, &settings.name, settings.lease, settings.concurrency).await?;
    settings.pulse.renewed(asked, settings.lease);
    tracing::info!(worker, name = settings.name, "worker joined");
    Ok(worker)
}

type LaneEnds = HashMap<Lane, mpsc::UnboundedSender<Arc<inhand::InHand>>>;

/// One apalis worker a lane, and the ends that the claimer hands jobs over by.
fn lanes(shared: &Arc<Shared>) -> (LaneEnds, Monitor) {
    let mut queues = HashMap::new();
    let mut monitor = Monitor::new();
    for lane in shared.settings.lanes.clone() {
        let (to_lane, from_claimer) = mpsc::unbounded_channel();
        queues.insert(lane, to_lane);
        let source = Arc::new(std::sync::Mutex::new(from_claimer));
        let shared = Arc::clone(shared);
        monitor = monitor.register(move |_| {
            WorkerBuilder::new(format!("{}-{lane}", shared.settings.name))
                .backend(LaneQueue::new(Arc::clone(&source), Arc::clone(&shared)))
                .parallelize(tokio::spawn)
                .build(Handler::new(Arc::clone(&shared)))
        });
    }
    (queues, monitor)
}

/// What is still in hand goes in line at once.
async fn leave(shared: &Shared) {
    shared.settings.pulse.ended();
    let worker = shared.hands.worker();
    let left = async {
        let mut conn = shared.db.acquire().await.map_err(muneem_jobs::queue::Error::Database)?;
        work::leave(&mut conn, worker).await
    };
    match left.await {
        Ok(()) => tracing::info!(worker, "worker left"),
        Err(error) => tracing::warn!(%error, "could not leave; the lease will run out"),
    }
}
