//! muneem from outside.

mod migrations;
mod queue;
