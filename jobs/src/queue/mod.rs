//! The queue of record: kinds, payload schemas, the way in, and what a handler is given.
//!
//! ```text
//! scheduled ──due──▶ ready ──claim──▶ running ──▶ done
//!                      ▲                 │  ├────▶ cancelled
//!                      └──due── retrying ◀─┘└────▶ dead ──retry──▶ ready
//! ```
//!
//! A job is a row of `muneem.queue_jobs` from enqueue to its end; then it moves to `muneem.queue_history`, or to
//! `muneem.queue_dead` with its cause. Claiming is the runtime's work (`worker/src/queue`); this module declares what
//! a job *is*.
//!
//! Payloads that may be personal lie sealed ([`Payload`]): sealed before they are written by whatever enqueues over HTTP,
//! by command or from Rust; what a frontend enqueues by SQL, where there is no key, by the worker that claims it, before
//! the job begins, and within a minute where nobody claims it ([`SealWaiting`]). Dead letters keep them sealed.

mod context;
mod decide;
mod error;
mod forget_finished;
mod housekeeping;
mod job;
mod kinds;
mod model;
mod reap_leases;
mod rule;
mod seal_waiting;
mod sealed;
mod store;
pub mod work;

pub use context::{JobContext, LostLease, Steps};
pub use decide::{cancel, retry, retry_many};
pub use error::{Error, Refusal};
pub use forget_finished::ForgetFinished;
pub use housekeeping::schedules;
pub use job::{Disposition, Done, Job, JobError, KeyMemory, Lane, Payload, Settings, Slots};
pub use kinds::{JobFailure, Kind};
pub use model::{Health, JobFilter, JobState, JobView, LaneDepth, NewJob, PayloadState};
pub use reap_leases::ReapLeases;
pub use seal_waiting::SealWaiting;
pub use sealed::SEALED;
pub use store::{
    KindView, Named, enqueue, enqueue_for, enqueue_own, enqueue_scheduled, enqueue_sealed, find_job, health, list_jobs,
    list_kinds, stats, sync_kinds,
};
