use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Error, Job, Lane};
use crate::{id::JobId, people::BusinessId};

/// A job to be enqueued.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub(super) kind: String,
    pub(super) payload: serde_json::Value,
    pub(super) business: BusinessId,
    pub(super) key: Option<String>,
    pub(super) run_at: Option<DateTime<Utc>>,
    pub(super) lane: Option<Lane>,
    pub(super) priority: Option<i16>,
}

impl NewJob {
    /// A job of a kind this program declares.
    ///
    /// # Errors
    /// [`Error::Payload`] when the payload does not serialise.
    pub fn of<J: Job>(business: BusinessId, payload: &J) -> Result<Self, Error> {
        let payload =
            serde_json::to_value(payload).map_err(|source| Error::Payload { kind: J::KIND.to_owned(), source })?;
        Ok(Self::named(J::KIND, business, payload))
    }

    /// A job of any kind that `muneem.queue_kinds` lists.
    pub fn named(kind: &str, business: BusinessId, payload: serde_json::Value) -> Self {
        Self { kind: kind.to_owned(), payload, business, key: None, run_at: None, lane: None, priority: None }
    }

    /// The same business, kind and key again is this job.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Not before this instant.
    #[must_use]
    pub fn run_at(mut self, at: DateTime<Utc>) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Another lane than the kind's own.
    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// A minute's head start for each point; -1000 to 1000.
    #[must_use]
    pub fn priority(mut self, points: i16) -> Self {
        self.priority = Some(points);
        self
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its instant.
    Scheduled,
    /// In line, or waiting for a slot of its key.
    Ready,
    /// A worker has it.
    Running,
    /// Failed, and waits to be tried again.
    Retrying,
    /// Ended well.
    Done,
    /// Given up, with a cause.
    Dead,
    /// Taken out.
    Cancelled,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Ready, Self::Running, Self::Retrying, Self::Done, Self::Dead, Self::Cancelled];

    /// The name used everywhere outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("no job state `{text}`: take scheduled, ready, running, retrying, done, dead or cancelled")
        })
    }
}

/// A job as it is shown: everything but its payload, which may be personal.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// The business it is for.
    pub business: BusinessId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub lane: Lane,
    /// Where it is in its life.
    pub state: JobState,
    /// The unique key it was enqueued with.
    pub key: Option<String>,
    /// Attempts begun.
    pub attempt: i32,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When it is due, while it waits.
    pub run_at: Option<DateTime<Utc>>,
    /// When its last attempt began.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why its last attempt failed: stable, for machines.
    pub cause: Option<String>,
    /// Why its last attempt failed, in words.
    pub error: Option<String>,
    /// What its handler last said of its own advance.
    pub progress: Option<serde_json::Value>,
    /// What it left behind.
    pub result: Option<serde_json::Value>,
    /// How its payload lies in the table; nothing once it has ended well or was cancelled: then it is gone.
    pub payload: Option<PayloadState>,
}

/// How a payload lies in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadState {
    /// Sealed.
    Sealed,
    /// Readable: references, or what was enqueued by SQL and no worker has claimed yet.
    Clear,
}

impl PayloadState {
    /// The name used everywhere outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Clear => "clear",
        }
    }
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Of this business only.
    pub business: Option<BusinessId>,
    /// In this state only.
    pub state: Option<JobState>,
    /// Of this kind only.
    pub kind: Option<String>,
    /// In this lane only.
    pub lane: Option<Lane>,
    /// That failed with this cause.
    pub cause: Option<String>,
    /// With a smaller id than this one: the last of the page before.
    pub before: Option<JobId>,
}

/// How many jobs of one lane are in one state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneDepth {
    /// The lane.
    pub lane: Lane,
    /// In line.
    pub ready: i64,
    /// With a worker.
    pub running: i64,
    /// Waiting for an instant.
    pub scheduled: i64,
    /// Failed and waiting.
    pub retrying: i64,
    /// Given up.
    pub dead: i64,
    /// How long the oldest has been in line, in seconds.
    pub oldest_secs: f64,
}

/// Whether the queue is worked on.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Health {
    /// Workers whose lease runs.
    pub beating: i64,
    /// Workers that died; whoever looks next takes their jobs back.
    pub silent: i64,
    /// Jobs that were given up and wait for a person.
    pub dead: i64,
}
