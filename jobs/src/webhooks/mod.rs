//! Webhooks going out: a business's own frontend is told of what happens here, signed, at least once, in Standard Webhooks.
//!
//! ```text
//! emit ─▶ event ─▶ delivery (one an endpoint) ─▶ pending ◀──────────────┐ not answered 2xx: the retry schedule
//!                                                  │ webhooks.deliver   │
//!                                                  ▼                    │
//!                                               sending ────────────────┤
//!                                                  ├──▶ delivered ──────┤ replayed
//!                                                  └──▶ failed, expired ┘
//! endpoint: enabled ─failing for long─▶ paused (asked once an hour, everything waits) ─answers─▶ enabled
//!           ─410, or somebody─▶ disabled ─somebody─▶ enabled         ─somebody─▶ removed
//! ```
//!
//! Whoever changes something calls [`emit_all`] in the transaction of the change: what is rolled back was never told. One
//! job works for one endpoint at a time, over all machines, and has a few deliveries under way at once: a receiver that
//! hangs holds up itself. What came of an attempt is recorded as it comes; a worker that dies leaves deliveries `sending`,
//! and the endpoint's next job begins them anew under the same `webhook-id`, by which a receiver knows that it has them.
//!
//! Events of one object are begun in their order, each after the attempt at the one before. A failed one is tried again
//! later and may come after its followers: `timestamp` says when things happened.
//!
//! What is told is references and states, no personal values; it lies sealed all the same, and goes after
//! [`Settings::keep`]. So do addresses and secrets of receivers, which lie sealed as long as they are used.

mod deliver;
mod emit;
mod error;
mod housekeeping;
mod manage;
mod model;
mod replay;
mod retire;
mod rules;
mod sealed;
mod sign;
mod store;
mod sweep;
mod tracks;

pub use deliver::Deliver;
pub use emit::{Emission, Event, PING, emit, emit_all};
pub use error::Error;
pub use housekeeping::schedules;
pub use manage::{
    Change, NewEndpoint, Which, add_endpoint, change_endpoint, remove_endpoint, rotate_secret, test_endpoint,
};
pub use model::{
    AttemptView, Delivery, DeliveryFilter, DeliveryState, Endpoint, EndpointId, EndpointState, EventId, EventView,
    Health, ReplayId, SecretId, Sending, Settings, Told,
};
pub use replay::{Replay, ReplayEvents, ask_replay, replay_event};
pub use retire::Retire;
pub use sealed::SEALED;
pub use sign::{sign, signatures};
pub use store::{find_told, health, list_deliveries};
pub use sweep::Sweep;

pub use manage::{find_endpoint, list_endpoints};
