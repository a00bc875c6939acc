//! muneem from outside.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod demo;
mod migrations;
mod queue;
mod serve;
