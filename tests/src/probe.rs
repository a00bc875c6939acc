//! Jobs that do as their payload tells them, and a record of what ran.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use muneem_jobs::queue::{Disposition, Done, Job, JobContext, JobError, Lane, LostLease, Payload, Settings, Slots};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What a probe does when it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Ends well.
    #[default]
    Succeed,
    /// Fails twice, then ends well.
    FailTwice,
    /// Fails for good.
    Fail,
    /// Fails, to be tried again, every time.
    AlwaysRetry,
    /// Asks once to be run 50 ms later.
    SnoozeOnce,
    /// Panics.
    Panic,
    /// Never ends, but yields.
    Hang,
    /// Blocks its thread for two seconds in the first attempt.
    BlockOnce,
    /// Waits until the probe is opened.
    Wait,
    /// Takes 20 ms.
    TakeAWhile,
    /// Says how far it is, then waits until the probe is opened.
    Report,
    /// Ends well with a result that Postgres cannot hold: a string with U+0000.
    UnholdableResult,
    /// Fails, to be tried again, with an error text that Postgres cannot hold.
    UnholdableRetry,
    /// Fails for good with an error text that Postgres cannot hold.
    UnholdableFailure,
}

/// One run of one probe.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The number in its payload.
    pub n: i64,
    /// The attempt.
    pub attempt: i32,
    /// When it began.
    pub begun: Instant,
    /// Runs of the same probe that were running with it, itself included.
    pub together: usize,
}

/// What ran, for one test.
#[derive(Debug, Default)]
pub struct Probe {
    runs: Mutex<Vec<Run>>,
    running: Mutex<usize>,
    /// Lets `Wait` and `Report` end.
    pub open: Notify,
}

static PROBES: Mutex<Option<HashMap<i64, Arc<Probe>>>> = Mutex::new(None);

impl Probe {
    /// A new one, and the number that payloads name it by.
    pub fn new() -> (i64, Arc<Self>) {
        let mut probes = PROBES.lock().unwrap_or_else(PoisonError::into_inner);
        let all = probes.get_or_insert_default();
        let number = i64::try_from(all.len()).expect("few tests") + 1;
        let probe = Arc::new(Self::default());
        all.insert(number, Arc::clone(&probe));
        (number, probe)
    }

    fn of(number: i64) -> Arc<Self> {
        let probes = PROBES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(probes.as_ref().and_then(|all| all.get(&number)).expect("a probe that was made"))
    }

    /// What ran, in order of beginning.
    pub fn runs(&self) -> Vec<Run> {
        self.lock().clone()
    }

    /// How many runs there were.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running(Arc<Probe>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Told to, and to be tried again.
    #[error("told to fail")]
    Again,
    /// Told to, for good.
    #[error("told to fail for good")]
    ForGood,
    /// Told to wait.
    #[error("told to wait")]
    Later(chrono::DateTime<chrono::Utc>),
    /// Told to fail with a text that has U+0000 in it.
    #[error("told to say \0")]
    Unholdable(Disposition),
    /// No longer ours.
    #[error(transparent)]
    Lost(#[from] LostLease),
}

impl JobError for ProbeError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Again | Self::Lost(_) => Disposition::Retry,
            Self::ForGood => Disposition::Fail,
            Self::Later(at) => Disposition::Snooze(*at),
            Self::Unholdable(disposition) => *disposition,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Again => "probe.again",
            Self::ForGood => "probe.for_good",
            Self::Later(_) => "probe.later",
            Self::Unholdable(_) => "probe.unholdable",
            Self::Lost(_) => "queue.lost_lease",
        }
    }
}

async fn act(probe: i64, n: i64, act: Act, ctx: &JobContext) -> Result<Done, ProbeError> {
    let probe = Probe::of(probe);
    let together = {
        let mut running = probe.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        *running
    };
    let _running = Running(Arc::clone(&probe));
    probe.lock().push(Run { n, attempt: ctx.attempt, begun: Instant::now(), together });
    match act {
        Act::Succeed => {}
        Act::FailTwice if ctx.attempt <= 2 => return Err(ProbeError::Again),
        Act::FailTwice => {}
        Act::Fail => return Err(ProbeError::ForGood),
        Act::AlwaysRetry => return Err(ProbeError::Again),
        Act::SnoozeOnce if probe.count() == 1 => {
            return Err(ProbeError::Later(ctx.now() + chrono::TimeDelta::milliseconds(50)));
        }
        Act::SnoozeOnce => {}
        Act::Panic => panic!("told to panic"),
        Act::Hang => std::future::pending().await,
        Act::BlockOnce if ctx.attempt == 1 => std::thread::sleep(Duration::from_secs(2)),
        Act::BlockOnce => {}
        Act::Wait => probe.open.notified().await,
        Act::TakeAWhile => tokio::time::sleep(Duration::from_millis(20)).await,
        Act::Report => {
            ctx.progress(3, 10, "a third").await?;
            probe.open.notified().await;
        }
        Act::UnholdableResult => return Ok(Done::Ack(Some(serde_json::json!("\0")))),
        Act::UnholdableRetry => return Err(ProbeError::Unholdable(Disposition::Retry)),
        Act::UnholdableFailure => return Err(ProbeError::Unholdable(Disposition::Fail)),
    }
    Ok(Done::Ack(Some(serde_json::json!({ "n": n }))))
}

macro_rules! probe_kind {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $lane:expr, $settings:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Which test's probe.
            pub probe: i64,
            /// Which job of it.
            pub n: i64,
            /// What to do.
            #[serde(default)]
            pub act: Act,
            /// What makes jobs serial.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub group: Option<String>,
        }

        impl Job for $name {
            const KIND: &'static str = $kind;
            const LANE: Lane = $lane;
            const SETTINGS: Settings = $settings;
            type Error = ProbeError;

            async fn run(self, ctx: &JobContext) -> Result<Done, ProbeError> {
                act(self.probe, self.n, self.act, ctx).await
            }
        }
    };
}

const QUICK: Settings = Settings {
    max_attempts: 3,
    timeout: Duration::from_millis(300),
    backoff: Duration::from_millis(20),
    backoff_max: Duration::from_millis(80),
    open: true,
    payload: Payload::References,
    ..Settings::DEFAULT
};

const PATIENT: Settings = Settings { timeout: Duration::from_secs(60), ..QUICK };

probe_kind!(
    /// A job with short time-outs and pauses.
    Quick, "test.quick", Lane::Transactional, QUICK
);
probe_kind!(
    /// A job that may wait.
    Patient, "test.patient", Lane::Transactional, PATIENT
);
probe_kind!(
    /// A campaign's job.
    Bulk, "test.bulk", Lane::Bulk, PATIENT
);
probe_kind!(
    /// Somebody waits at a screen.
    Otp, "test.otp", Lane::Otp, PATIENT
);
probe_kind!(
    /// One at a time for equal groups.
    Serial, "test.serial", Lane::Transactional, Settings { slots: Slots::SerialBy("group"), ..PATIENT }
);
probe_kind!(
    /// Three at a time.
    Limited, "test.limited", Lane::Transactional, Settings { slots: Slots::OfKind(3), ..PATIENT }
);
probe_kind!(
    /// Its payload may be personal.
    Private, "test.private", Lane::Transactional, Settings { payload: Payload::Sealed, ..QUICK }
);
probe_kind!(
    /// The same, and it may wait.
    PrivatePatient, "test.private_patient", Lane::Transactional, Settings { payload: Payload::Sealed, ..PATIENT }
);

/// All of them.
pub fn kinds() -> Vec<muneem_jobs::queue::Kind> {
    use muneem_jobs::queue::Kind;
    vec![
        Kind::of::<Quick>(),
        Kind::of::<Patient>(),
        Kind::of::<Bulk>(),
        Kind::of::<Otp>(),
        Kind::of::<Serial>(),
        Kind::of::<Limited>(),
        Kind::of::<Private>(),
        Kind::of::<PrivatePatient>(),
    ]
}
