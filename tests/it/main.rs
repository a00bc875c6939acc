//! muneem from outside.

mod demo;
mod migrations;
mod queue;
mod serve;
