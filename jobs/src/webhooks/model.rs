use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    outbound::webhook::{WebhookCall, WebhookFailure, WebhookOutcome, WebhookSender},
    people::BusinessId,
};

crate::id_type! {
    /// A receiver of a business.
    EndpointId
}

crate::id_type! {
    /// A secret of an endpoint.
    SecretId
}

crate::id_type! {
    /// Something that an endpoint is told again.
    ReplayId
}

/// Something that happened. It is shown, and sent as `webhook-id`, as `evt_` and 32 hexadecimal digits: such an id holds
/// no dot, which parts what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct EventId(pub uuid::Uuid);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0.simple())
    }
}

impl FromStr for EventId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("evt_").unwrap_or(text).parse().map(Self)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether an endpoint is told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum EndpointState {
    /// It is.
    Enabled,
    /// It has failed for so long that it is asked once an hour. Everything waits for it.
    Paused,
    /// Nothing goes there, and nothing new is kept for it.
    Disabled,
    /// It is no more.
    Removed,
}

impl EndpointState {
    /// The name used everywhere outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
        }
    }
}

/// Where an event is on its way to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its next attempt.
    Pending,
    /// A worker has it.
    Sending,
    /// It was answered with 2xx.
    Delivered,
    /// No attempt is left, or the receiver answered 410.
    Failed,
    /// It waited longer than events are kept.
    Expired,
    /// Its endpoint was removed.
    Dropped,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Sending, Self::Delivered, Self::Failed, Self::Expired, Self::Dropped];

    /// The name used everywhere outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("no delivery state `{text}`: take pending, sending, delivered, failed, expired or dropped")
        })
    }
}

/// An endpoint as it is shown: of its address the origin, of its secrets nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    /// Its id.
    pub endpoint_id: EndpointId,
    /// Whose it is.
    pub business_id: BusinessId,
    /// Scheme, host and port of its address.
    pub origin: String,
    /// What it is for, in the words of whoever added it.
    pub description: Option<String>,
    /// What it is told of: exact types, `messaging.*`, or `*`.
    pub event_types: Vec<String>,
    /// Whether it is told.
    pub state: EndpointState,
    /// Why it is paused or disabled: `failing`, `asked`, `gone`, `address`.
    pub reason: Option<String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, by somebody or by how it answered.
    pub changed_at: DateTime<Utc>,
    /// Attempts that failed since the last good one.
    pub failures: i32,
    /// When the first of them was.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it last answered with 2xx.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When it last did not.
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Why, in a word.
    pub last_cause: Option<String>,
    /// It is left in peace until then.
    pub wait_until: Option<DateTime<Utc>>,
    /// Deliveries that wait for it.
    pub waiting: i64,
    /// Since when a secret that was replaced signs no more; none: only one signs.
    pub rotating_until: Option<DateTime<Utc>>,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// Its number, in the order of events.
    pub delivery_id: i64,
    /// What happened.
    pub event_id: EventId,
    /// Who is told.
    pub endpoint_id: EndpointId,
    /// What kind of thing happened.
    pub event_type: String,
    /// To what.
    pub object: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// Where it is on its way.
    pub state: DeliveryState,
    /// Attempts begun.
    pub attempts: i32,
    /// When the next one is, while it waits.
    pub next_at: Option<DateTime<Utc>>,
    /// When it came to its end.
    pub ended_at: Option<DateTime<Utc>>,
    /// HTTP status of the last answer.
    pub last_status: Option<i16>,
    /// Why the last attempt failed.
    pub last_cause: Option<String>,
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Of this business only.
    pub business: Option<BusinessId>,
    /// To this endpoint only.
    pub endpoint: Option<EndpointId>,
    /// In this state only.
    pub state: Option<DeliveryState>,
    /// Older than this one: the last of the page before.
    pub before: Option<i64>,
}

/// One try at a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptView {
    /// Whom it was to.
    pub endpoint_id: EndpointId,
    /// From 1.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: Option<i32>,
    /// HTTP status of the answer.
    pub status: Option<i16>,
    /// Why it failed, in a word.
    pub cause: Option<String>,
}

/// An event, without what it says.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// Its id, which is its `webhook-id`.
    pub event_id: EventId,
    /// Whose it is.
    pub business_id: BusinessId,
    /// What kind of thing happened.
    pub event_type: String,
    /// To what.
    pub object: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// When it was written down here.
    pub created_at: DateTime<Utc>,
}

/// An event with everything that is known of its ways.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// The event.
    #[serde(flatten)]
    pub event: EventView,
    /// To each endpoint that wanted it.
    pub deliveries: Vec<Delivery>,
    /// Every try, in order.
    pub attempts: Vec<AttemptView>,
}

/// How endpoints stand, over all businesses.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Endpoints that are not removed.
    pub endpoints: i64,
    /// Enabled ones whose last attempt failed.
    pub failing: i64,
    /// Paused ones.
    pub paused: i64,
    /// Those that disabled themselves: they answered 410, or may not be called any more.
    pub given_up: i64,
    /// Since when the longest failing one, paused or not, has been failing.
    pub failing_since: Option<DateTime<Utc>>,
}

/// How webhooks are sent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// An endpoint that has failed for so long is paused.
    pub pause_after: TimeDelta,
    /// Events are kept so long; what waits longer expires.
    pub keep: TimeDelta,
    /// Deliveries to one endpoint under way at once.
    pub concurrency: usize,
    /// Receivers on this machine, and plain http to them, are taken: in sandbox mode alone.
    pub loopback: bool,
}

impl Settings {
    /// Six hours, thirty days, eight at once, no loopback.
    pub const DEFAULT: Self =
        Self { pause_after: TimeDelta::hours(6), keep: TimeDelta::days(30), concurrency: 8, loopback: false };
}

/// Endpoints that are well and are worked for at once by one process.
const PLACES_WELL: usize = 6;
/// The same of those whose last attempt failed. They have places of their own, so that however many hang, those that are
/// well go on.
const PLACES_FAILING: usize = 2;

/// Who sends webhooks, and how.
pub struct Sending {
    /// Posts.
    pub sender: Arc<dyn WebhookSender>,
    /// How.
    pub settings: Settings,
    well: Semaphore,
    failing: Semaphore,
}

impl Sending {
    /// Sends through `sender`.
    pub fn new(sender: Arc<dyn WebhookSender>, settings: Settings) -> Self {
        let (well, failing) = (Semaphore::new(PLACES_WELL), Semaphore::new(PLACES_FAILING));
        Self { sender, settings, well, failing }
    }

    /// To nobody: every attempt fails before a byte leaves. For processes and tests that run no such job.
    pub fn nowhere() -> Self {
        Self::new(Arc::new(Nowhere), Settings::DEFAULT)
    }

    /// A place to work in, if one is free: these jobs never fill a lane with waiting for receivers.
    pub(super) fn place(&self, is_failing: bool) -> Option<SemaphorePermit<'_>> {
        if is_failing { &self.failing } else { &self.well }.try_acquire().ok()
    }
}

struct Nowhere;

#[async_trait]
impl WebhookSender for Nowhere {
    async fn post(&self, _: &WebhookCall) -> WebhookOutcome {
        WebhookOutcome { answer: Err(WebhookFailure::Connect), took: std::time::Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_id_has_no_dot_and_reads_back() {
        let id = EventId(uuid::Uuid::from_u128(0x019a_b0c2_6f3e_7c1d_9d53_2f6b_8c1e_4a70));
        assert_eq!(id.to_string(), "evt_019ab0c26f3e7c1d9d532f6b8c1e4a70");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70".parse(), Ok(id));
        assert!("evt_evt_".parse::<EventId>().is_err());
    }

    #[test]
    fn failing_endpoints_take_no_place_of_those_that_are_well() {
        let sending = Sending::nowhere();
        let held: Vec<_> = std::iter::from_fn(|| sending.place(true)).collect();
        assert_eq!(held.len(), PLACES_FAILING);
        assert!(sending.place(false).is_some());
        drop(held);
        assert!(sending.place(true).is_some());
    }
}
