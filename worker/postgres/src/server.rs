//! The running server and its life.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

use crate::cluster::{Cluster, OWNER, PORT};
use crate::error::{Error, io_at, tail};
use crate::fetch::Fetch;
use crate::find::Search;
use crate::{leftovers, sys};

/// How often a start looks whether the server is ready.
const POLL: Duration = Duration::from_millis(5);
/// How long an orderly stop may take before the server is told to leave at once (it recovers at the next start).
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Hears, in one line each, what the server is about to do.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// How to run a server.
#[derive(Clone)]
pub struct Options {
    /// The directory that holds everything: data, socket, lock, log, fetched binaries.
    pub dir: PathBuf,
    /// Used in place of `dir` when we are root and the unprivileged user cannot enter `dir`; a hash of `dir` is added.
    pub root_dir: PathBuf,
    /// Server settings that come after (and so replace) the built-in ones.
    pub extra_settings: Vec<(String, String)>,
    /// Where to look for binaries.
    pub search: Search,
    /// What may be fetched when there are none.
    pub fetch: Fetch,
    /// Whether the data must survive a loss of power. Off for tests alone.
    pub durable: bool,
    /// How long the server may take until it is ready; recovery after a crash counts.
    pub start_within: Duration,
    /// Hears what happens.
    pub say: Option<Say>,
}

impl Options {
    /// The usual way: found on this machine or fetched, durable, silent.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            root_dir: PathBuf::from("/var/lib/muneem"),
            extra_settings: Vec::new(),
            search: Search::from_env(),
            fetch: Fetch::default(),
            durable: true,
            start_within: Duration::from_secs(300),
            say: None,
        }
    }

    pub(crate) fn say(&self, line: &str) {
        if let Some(say) = &self.say {
            say(line);
        }
    }

    /// For a shop's machine: an eighth of its memory, no network, and no statement or value in the log.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let safe = if self.durable { "on" } else { "off" };
        // Throw-away servers of tests stay small: several run at once.
        let buffers =
            if self.durable { buffers_mb(&fs::read_to_string("/proc/meminfo").unwrap_or_default()) } else { 128 };
        let buffers = format!("{buffers}MB");
        let built_in = [
            ("listen_addresses", ""),
            ("unix_socket_permissions", "0700"),
            ("fsync", safe),
            ("synchronous_commit", safe),
            ("full_page_writes", safe),
            ("shared_buffers", &buffers),
            ("max_connections", "100"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_destination", "stderr"),
            ("logging_collector", "off"),
            // Errors quote values of rows, and those are personal data: they go to the client alone.
            ("log_min_messages", "log"),
            ("log_min_error_statement", "panic"),
            ("log_error_verbosity", "terse"),
        ];
        let built_in = built_in.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        built_in.chain(self.extra_settings.iter().cloned()).collect()
    }
}

/// What Postgres may hold of the tables, of a machine whose `/proc/meminfo` this is: an eighth of the memory, from 64 to
/// 512 MB. A queue that fills faster than it drains is then not written out page by page.
fn buffers_mb(meminfo: &str) -> u64 {
    let total_kb = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    total_kb.map_or(128, |total| (total / 1024 / 8).clamp(64, 512))
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("dir", &self.dir).field("durable", &self.durable).finish_non_exhaustive()
    }
}

/// A private Postgres. It stops, in order, when this is dropped or when the program ends in whatever way.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    running: Option<Running>,
}

/// The child and the thread that spawned it.
///
/// The kernel sends the parent-death signal when that *thread* ends, not the process. A thread of a runtime's pool
/// may end at any time, so the child gets a thread of its own, which waits for it.
#[derive(Debug)]
struct Running {
    child: Arc<Mutex<Child>>,
    pid: i32,
    guard: JoinHandle<()>,
}

impl Server {
    /// Starts the server and returns when it accepts connections.
    ///
    /// # Errors
    /// Each says its mend: in use by another program, no binaries, wrong version, no user, not started.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let cluster = Cluster::prepare(options)?;
        let mut server = Self { cluster, running: None };
        server.run(options.start_within)?;
        Ok(server)
    }

    /// Starts it again after [`Server::stop`] or [`Server::kill`]; nothing happens while it runs.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self, within: Duration) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        self.running = None;
        leftovers::clear(&self.cluster.data, &self.cluster.socket_dir)?;
        self.run(within)
    }

    fn run(&mut self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        loop {
            let mark = self.cluster.log_mark();
            let running = self.spawn()?;
            match self.wait_ready(&running, deadline) {
                Ok(()) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Err(ended) => {
                    running.end(libc::SIGQUIT);
                    let said = self.cluster.log_since(mark);
                    // After a hard kill the old back ends need a moment to notice and to let go of the memory.
                    if ended && said.contains("pre-existing shared memory block") && Instant::now() < deadline {
                        thread::sleep(POLL * 20);
                        continue;
                    }
                    let reason = if ended { tail(&said) } else { format!("not ready in {} s", within.as_secs()) };
                    return Err(Error::NotStarted { reason, log: self.cluster.log.clone() });
                }
            }
        }
    }

    fn spawn(&self) -> Result<Running, Error> {
        let mut command = self.cluster.postgres()?;
        // A group of its own: Ctrl-C in the terminal is for the program, which stops the server when it is done.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        sys::stop_with_parent(&mut command);
        let (tell, told) = mpsc::sync_channel(1);
        let guard = thread::Builder::new().name("postgres-guard".into()).spawn(move || {
            let spawned = command.spawn().map(|child| Arc::new(Mutex::new(child)));
            let child = spawned.as_ref().ok().cloned();
            if tell.send(spawned).is_err() {
                return;
            }
            if let Some(child) = child {
                let pid = lock(&child).id();
                sys::wait_ended(pid);
                // Reaped under the lock, so that nobody signals a number that is free again.
                let _ = lock(&child).wait();
            }
        });
        let executable = self.cluster.binaries.bin.join("postgres");
        let guard = guard.map_err(io_at("start a thread for", &executable))?;
        let spawned = told.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into()));
        let child = spawned.map_err(io_at("run", &executable))?;
        let pid = i32::try_from(lock(&child).id()).unwrap_or(i32::MAX);
        Ok(Running { child, pid, guard })
    }

    /// `postmaster.pid` says "ready" in its eighth line. The error says whether the server has ended.
    fn wait_ready(&self, running: &Running, deadline: Instant) -> Result<(), bool> {
        let pid_file = self.cluster.data.join("postmaster.pid");
        loop {
            if running.exit_status().is_some() {
                return Err(true);
            }
            if is_ready(&pid_file, running.pid) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(false);
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the server process lives.
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.exit_status().is_none())
    }

    /// Ends it in order: open transactions are rolled back, everything is written, nothing needs recovery.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end(libc::SIGINT);
        }
    }

    /// Ends it as a crash would, with SIGKILL. For tests of recovery.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.end(libc::SIGKILL);
        }
    }

    /// The process id of the server, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// The directory that holds everything; another one than asked for when root's user cannot enter that.
    pub fn dir(&self) -> &Path {
        &self.cluster.dir
    }

    /// Lets the server's user remove the directory, which is otherwise ours: root must not trust what that user writes.
    pub(crate) fn own_dir(&self) -> Result<(), Error> {
        self.cluster.account.own(&self.cluster.dir)
    }

    /// The directory of the tools (`pg_dump`, `psql`), where the package has them.
    pub fn bin_dir(&self) -> &Path {
        &self.cluster.binaries.bin
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.cluster.binaries.major
    }

    /// The directory of the socket: `PGHOST` for tools.
    pub fn socket_dir(&self) -> &Path {
        &self.cluster.socket_dir
    }

    /// A URL of database `db` for its owner, for any client that knows sockets.
    pub fn url(&self, db: &str) -> String {
        url(&self.cluster.socket_dir, OWNER, db)
    }

    /// The same URL for another login.
    pub fn url_as(&self, login: &str, db: &str) -> String {
        url(&self.cluster.socket_dir, login, db)
    }

    /// How sqlx reaches database `db` as its owner, whatever `PG…` variables say.
    pub fn connect_options(&self, db: &str) -> PgConnectOptions {
        connect_options(&self.cluster.socket_dir, OWNER, db)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        // A socket directory elsewhere is made anew by the next start; one that is not empty stays.
        if !self.cluster.socket_dir.starts_with(&self.cluster.dir) {
            let _ = std::fs::remove_dir(&self.cluster.socket_dir);
        }
    }
}

impl Running {
    fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    fn end(self, signal: i32) {
        self.signal(signal);
        let started = Instant::now();
        let mut pressed = false;
        while !self.guard.is_finished() {
            if !pressed && started.elapsed() > STOP_WITHIN {
                self.signal(libc::SIGQUIT);
                pressed = true;
            }
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: i32) {
        let mut child = lock(&self.child);
        if child.try_wait().ok().flatten().is_none() {
            sys::signal(self.pid, signal);
        }
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the server with this process id says in `postmaster.pid` that it accepts connections.
pub(crate) fn is_ready(pid_file: &Path, pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(pid_file) else { return false };
    let mut lines = text.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

/// `postgres://login@localhost/db?host=<directory>`, with the directory percent-encoded.
pub(crate) fn url(socket_dir: &Path, login: &str, db: &str) -> String {
    let mut host = String::new();
    for byte in socket_dir.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => host.push(char::from(*byte)),
            other => host.push_str(&format!("%{other:02X}")),
        }
    }
    format!("postgres://{login}@localhost/{db}?host={host}")
}

pub(crate) fn connect_options(socket_dir: &Path, login: &str, db: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&socket_dir.to_string_lossy())
        .port(PORT)
        .username(login)
        .database(db)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_the_machine_within_bounds() {
        let of = |kb: u64| buffers_mb(&format!("MemFree: 1 kB\nMemTotal:       {kb} kB\n"));
        assert_eq!(of(512 * 1024), 64);
        assert_eq!(of(2 * 1024 * 1024), 256);
        assert_eq!(of(64 * 1024 * 1024), 512);
        assert_eq!(buffers_mb(""), 128, "a system that does not say");
    }
}
