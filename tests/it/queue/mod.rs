//! The queue's guarantees, each with somebody who tries to break it.

mod enqueue;
mod faults;
mod flow;
mod locks;
mod memory;
mod plans;
mod sealed;
mod supervision;
mod wall;
