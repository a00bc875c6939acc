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

mod context;
mod job;

pub use context::{JobContext, LostLease, Steps};
pub use job::{Disposition, Done, Job, JobError, KeyMemory, Lane, Settings, Slots};
