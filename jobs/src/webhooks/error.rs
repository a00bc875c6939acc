use chrono::{DateTime, Utc};

use super::{EndpointId, EventId, ReplayId};
use crate::{
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

/// A receiver could not be set up, or not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this id, or it is another business's, or it was removed.
    #[error("there is no webhook endpoint {0}")]
    NoSuchEndpoint(EndpointId),
    /// There is none of this id, or it is another business's, or its time is over.
    #[error("there is no webhook event {0}")]
    NoSuchEvent(EventId),
    /// The row that a job names is not there.
    #[error("there is no replay {0}")]
    NoSuchReplay(ReplayId),
    /// Nothing goes to it.
    #[error("the webhook endpoint {0} is disabled: enable it first")]
    Disabled(EndpointId),
    /// A business has as many as it may have.
    #[error("a business has at most {0} webhook endpoints: remove one that is not needed")]
    TooMany(i64),
    /// What was asked for is off.
    #[error("{field} {problem}: {mend}")]
    BadField {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// An event that no receiver would be told of as it is: a duty's mistake.
    #[error("an event of type {event_type} {problem}")]
    BadEvent {
        /// Its type.
        event_type: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What is stored of an endpoint no longer reads.
    #[error("webhook endpoint {0}: its stored {1} does not read")]
    Unreadable(EndpointId, &'static str),
    /// As many endpoints as this process works for at once are at work.
    #[error("webhook endpoint {endpoint}: others are at work until {until}")]
    Busy {
        /// Which.
        endpoint: EndpointId,
        /// When to look again.
        until: DateTime<Utc>,
    },
    /// Another worker has the job.
    #[error("webhooks: lease")]
    Lease(#[from] LostLease),
    /// A follow-up job was not taken.
    #[error("webhooks: enqueue")]
    Enqueue(#[from] queue::Error),
    /// What lies sealed could not be sealed or opened.
    #[error("webhooks: vault")]
    Vault(#[from] vault::Error),
    /// What was done could not be put on record, so it was not done.
    #[error("webhooks: evidence")]
    Evidence(#[from] crate::evidence::Error),
    /// The database failed.
    #[error("webhooks: database")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// What lies sealed does not open, as long as nobody restores it or its key: others need not wait for that.
    pub(super) const fn is_for_ever(&self) -> bool {
        matches!(self, Self::Unreadable(..) | Self::Vault(vault::Error::Unreadable { .. }))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::NoSuchEndpoint(_)
            | Self::NoSuchEvent(_)
            | Self::NoSuchReplay(_)
            | Self::Disabled(_)
            | Self::TooMany(_)
            | Self::BadField { .. }
            | Self::BadEvent { .. }
            | Self::Unreadable(..) => Disposition::Fail,
            Self::Busy { until, .. } => Disposition::Snooze(*until),
            Self::Vault(source) => source.disposition(),
            Self::Evidence(source) => source.disposition(),
            Self::Lease(_) | Self::Enqueue(_) | Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::NoSuchEndpoint(_) => "webhooks.no_such_endpoint",
            Self::NoSuchEvent(_) => "webhooks.no_such_event",
            Self::NoSuchReplay(_) => "webhooks.no_such_replay",
            Self::Disabled(_) => "webhooks.disabled",
            Self::TooMany(_) => "webhooks.too_many",
            Self::BadField { .. } => "webhooks.bad_field",
            Self::BadEvent { .. } => "webhooks.bad_event",
            Self::Unreadable(..) => "webhooks.unreadable",
            Self::Busy { .. } => "webhooks.busy",
            Self::Lease(_) => "webhooks.lost_lease",
            Self::Enqueue(_) => "webhooks.enqueue",
            Self::Vault(source) => source.cause(),
            Self::Evidence(source) => source.cause(),
            Self::Database(_) => "webhooks.database",
        }
    }
}
