//! The muneem runtime: queue, schedule, HTTP, adapters and commands around the duties of `muneem-jobs`.

pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod demo;
pub mod evidence;
pub mod http;
mod mime;
pub mod outbound;
pub mod portal;
pub mod queue;
pub mod refusals;
pub mod sandbox;
pub mod schedule;
pub mod telemetry;
