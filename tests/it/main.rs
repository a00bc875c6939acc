//! muneem from outside.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod access_pages;
mod attacks;
mod bench;
mod canary;
mod columns;
mod console;
mod demo;
mod evidence;
mod messaging;
mod migrations;
mod queue;
mod root_key;
mod rotation;
mod serve;
