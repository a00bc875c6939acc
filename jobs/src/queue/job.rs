use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::JobContext;

/// A kind of job, declared once: its payload is the type, its handler is [`Job::run`].
///
/// Payloads carry ids, never personal values, except where a frontend hands the values over: then they lie sealed
/// ([`Payload`]) until the first step moves them into their tables. Derive `JsonSchema` and put `#[serde(deny_unknown_fields)]` on the payload: the schema is
/// published in `muneem.queue_kinds` and enforced by `muneem.enqueue`.
pub trait Job: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// `<word>.<verb_object>`, for example `invoice.issue`.
    const KIND: &'static str;
    /// The lane that an enqueue without one takes.
    const LANE: Lane;
    /// Attempts, timeout, backoff, key memory, concurrency.
    const SETTINGS: Settings = Settings::DEFAULT;
    /// The duty's own error: it decides what becomes of the job.
    type Error: JobError;

    /// Does the work. It may be called again after any crash, so each step is idempotent or recorded before it acts;
    /// writes go through [`JobContext::begin`], which refuses them once the lease is lost.
    fn run(self, ctx: &JobContext) -> impl Future<Output = Result<Done, Self::Error>> + Send;
}

/// What a handler leaves behind when it succeeds.
#[derive(Debug)]
pub enum Done {
    /// The runtime acknowledges, with the rest of its batch; the result is kept with the finished job for a while.
    Ack(Option<serde_json::Value>),
    /// The handler acknowledged inside its own last transaction ([`JobContext::complete`]).
    Acked,
}

impl Done {
    /// Success without a result.
    pub const OK: Self = Self::Ack(None);
}

/// What becomes of a job whose handler failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again after the kind's backoff; the attempt counts.
    Retry,
    /// Try again at this instant; the attempt does not count.
    Snooze(DateTime<Utc>),
    /// Never again: to the dead letters.
    Fail,
}

/// An error of a duty that knows what becomes of its job.
pub trait JobError: std::error::Error + Send + Sync + 'static {
    /// Retry, snooze or fail, in one `match`.
    fn disposition(&self) -> Disposition;

    /// Stable cause for dead letters and metrics, for example `invoice.bad_gstin`. Free of personal data.
    fn cause(&self) -> &'static str;
}

/// Urgency class, highest first. Each has capacity of its own; what is free goes to the highest that waits.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    JsonSchema,
    sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "muneem.queue_lane", rename_all = "snake_case")]
pub enum Lane {
    /// One-time passwords: somebody waits at a screen.
    Otp,
    /// A law's clock runs.
    Statutory,
    /// Belongs to something a person just did: an invoice.
    Transactional,
    /// Campaigns and imports.
    Bulk,
    /// Housekeeping.
    Maintenance,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 5] = [Self::Otp, Self::Statutory, Self::Transactional, Self::Bulk, Self::Maintenance];

    /// The name used in SQL, HTTP, configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Otp => "otp",
            Self::Statutory => "statutory",
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
            Self::Maintenance => "maintenance",
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or_else(|| format!("no lane `{text}`: take otp, statutory, transactional, bulk or maintenance"))
    }
}

/// How long the key of a finished job is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMemory {
    /// Thirty days after enqueue.
    Days30,
    /// For ever: statutory kinds and invoices.
    Forever,
}

/// How many jobs of one kind may run at once, over all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// As many as there is capacity for.
    Unlimited,
    /// At most this many of the kind.
    OfKind(u16),
    /// At most this many of the kind for one business.
    OfBusiness(u16),
    /// One at a time, in order, for equal values of this top-level payload field within a business.
    SerialBy(&'static str),
}

/// Whether payloads of a kind lie sealed in the tables of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Unless the kind is muneem's own and its schema has room for references alone: ids that are UUIDs, numbers of at
    /// most 32 bits (a phone number has more), truth values, instants, and words of a closed list. What comes from
    /// outside may hold anything in any field until its handler reads it.
    AsItsSchemaSays,
    /// Always.
    Sealed,
    /// Never: its numbers and texts are references too, which no schema tells.
    References,
}

/// The constants of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Attempts before the dead letters; snoozes do not count.
    pub max_attempts: u16,
    /// A handler that runs longer is dropped and retried.
    pub timeout: Duration,
    /// Pause after the first failed attempt; doubles with each, with a jitter of a quarter either way.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// How long a used key refuses a second job.
    pub key_memory: KeyMemory,
    /// Concurrency over all machines.
    pub slots: Slots,
    /// Whether frontends may enqueue it; the others are muneem's own steps and housekeeping.
    pub open: bool,
    /// Whether its payloads lie sealed.
    pub payload: Payload,
}

impl Settings {
    /// Ten attempts from 2 s to 1 h apart, a minute each, no limit on concurrency, keys for thirty days, muneem's
    /// own, sealed as [`Payload::AsItsSchemaSays`].
    pub const DEFAULT: Self = Self {
        max_attempts: 10,
        timeout: Duration::from_secs(60),
        backoff: Duration::from_secs(2),
        backoff_max: Duration::from_secs(3600),
        key_memory: KeyMemory::Days30,
        slots: Slots::Unlimited,
        open: false,
        payload: Payload::AsItsSchemaSays,
    };
}
