use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Error, Expression};
use crate::{
    id::JobId,
    queue::{Job, Lane},
};

/// What becomes of slots nobody was there for (see [`super::rules::ON_TIME_SECS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One job for all of them, at the newest slot; none if a slot on time makes one anyway.
    RunOnce,
    /// A job for each, newest first up to the entry's limit; older ones are let go.
    RunAll,
    /// No job.
    Skip,
}

impl Missed {
    /// The name used in SQL, HTTP and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunOnce => "run_once",
            Self::RunAll => "run_all",
            Self::Skip => "skip",
        }
    }
}

impl std::str::FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::RunOnce, Self::RunAll, Self::Skip]
            .into_iter()
            .find(|missed| missed.as_str() == text)
            .ok_or_else(|| format!("no missed-slot policy `{text}`: take run_once, run_all or skip"))
    }
}

/// Whom the jobs of a schedule are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The only business there is; a fault when there are several.
    Only,
    /// One business, by its handle.
    Named(String),
    /// Every business: one job for each, at each slot.
    Each,
    /// Nobody in particular: work of the house itself, filed under the oldest business. None while there is none.
    House,
}

impl Scope {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Named(_) => "named",
            Self::Each => "each",
            Self::House => "house",
        }
    }

    pub(super) fn handle(&self) -> Option<&str> {
        match self {
            Self::Named(handle) => Some(handle),
            Self::Only | Self::Each | Self::House => None,
        }
    }
}

/// Who wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A duty, in code: only pause, resume and trigger are the operator's.
    Code,
    /// An operator.
    Table,
}

/// A schedule as it is declared: by a duty in code, or by an operator.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its name, for example `queue.sweep_history`: lower case, digits, dots and dashes, 63 at most.
    pub name: String,
    /// Kind of the job.
    pub kind: String,
    /// Payload of the job, an object.
    pub payload: serde_json::Value,
    /// Whom it is for.
    pub scope: Scope,
    /// Another lane than the kind's own.
    pub lane: Option<Lane>,
    /// When.
    pub expression: Expression,
    /// What becomes of slots nobody was there for.
    pub missed: Missed,
    /// Most jobs one tick makes up for, 1 to 1000.
    pub catch_up_max: u16,
}

impl Declaration {
    /// A schedule of the typed job `payload`, as work of the house: missed slots become one job, in the kind's own
    /// lane.
    ///
    /// # Errors
    /// The expression means nothing, or the payload does not become JSON.
    pub fn of<J: Job>(name: &str, expression: &str, payload: &J) -> Result<Self, Error> {
        let payload =
            serde_json::to_value(payload).map_err(|source| Error::Payload { name: name.to_owned(), source })?;
        Ok(Self {
            name: name.to_owned(),
            kind: J::KIND.to_owned(),
            // A job without fields is `null` to serde and `{}` to the queue.
            payload: if payload.is_null() { serde_json::json!({}) } else { payload },
            scope: Scope::House,
            lane: None,
            expression: expression.parse()?,
            missed: Missed::RunOnce,
            catch_up_max: 100,
        })
    }

    /// The same for every business.
    #[must_use]
    pub fn for_each_business(mut self) -> Self {
        self.scope = Scope::Each;
        self
    }

    /// The same with another policy for missed slots.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Who wrote it.
    pub source: Source,
    /// Kind of the job.
    pub kind: String,
    /// Payload of the job.
    pub payload: serde_json::Value,
    /// Whom it is for.
    pub scope: Scope,
    /// Another lane than the kind's own.
    pub lane: Option<Lane>,
    /// When, as typed; Asia/Kolkata.
    pub expression: String,
    /// What becomes of slots nobody was there for.
    pub missed: Missed,
    /// Most jobs one tick makes up for.
    pub catch_up_max: i32,
    /// An operator stopped it.
    pub paused: bool,
    /// Newest slot that is settled.
    pub last_slot: Option<DateTime<Utc>>,
    /// First slot that is not settled; unset until a scheduler has seen the entry.
    pub next_slot: Option<DateTime<Utc>>,
    /// Why the last tick could not make the job.
    pub fault: Option<String>,
}

/// An entry with its next five slots.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Listed {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// Its next slots, soonest first; empty while paused, or when the expression means nothing.
    pub upcoming: Vec<DateTime<Utc>>,
}

/// What one tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Jobs of the slots that fell due; a job another scheduler had made already counts too.
    pub jobs: Vec<JobId>,
    /// Entries whose jobs could not be made; they keep their slots.
    pub faults: Vec<String>,
    /// First slot still to come, over all entries that run.
    pub next_at: Option<DateTime<Utc>>,
}
