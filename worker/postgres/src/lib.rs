//! A private Postgres for a program that finds none: found or fetched, started, guarded, stopped.
//!
//! [`Server::start`] looks for binaries (`PG_BIN_DIR`, then the newest of `/usr/lib/postgresql/*/bin`, then `PATH`,
//! then what it fetched earlier), makes a database in the caller's directory and runs `postgres` as a child: on a
//! socket only, in a directory nobody else can enter, with fsync on, never as root. A lock file keeps a second program
//! away. The child stops in order when the program ends, also when it is killed, and the next start clears what a
//! crash left.
//!
//! ```text
//! <dir>/lock           flock, with the holder's process id
//! <dir>/data           the cluster; data.new while it is being made
//! <dir>/sock           the socket (a short directory elsewhere when this path is too long)
//! <dir>/postgres.log   what the server says; no statements, no values
//! <dir>/fetched        binaries, when the machine had none
//! ```
//!
//! [`testing`] gives every test a database of its own on one server per test run.

mod account;
mod cluster;
mod error;
mod fetch;
mod find;
mod leftovers;
mod server;
mod sys;
pub mod testing;

pub use error::Error;
pub use fetch::Fetch;
pub use find::{Binaries, OLDEST_MAJOR, Search};
pub use server::{Options, Say, Server};
