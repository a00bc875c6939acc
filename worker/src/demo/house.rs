//! The processes of the demo: `muneem` itself, several times, as an operator would start it.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::Error;

/// How long an orderly end may take before the process is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// One running process.
pub(super) struct Process {
    child: Child,
    command: String,
    log: PathBuf,
}

/// Starts `muneem` with these arguments and this environment. It dies with us, and reads none of the settings that this
/// machine may have for a real house: an empty file of its own, no variable of ours.
pub(super) fn start(
    name: &str,
    arguments: &[&str],
    environment: &[(&str, String)],
    logs: &Path,
) -> Result<Process, Error> {
    let log = logs.join(format!("{name}.log"));
    let command = arguments.join(" ");
    let fail = |source: io::Error| Error::Process {
        command: command.clone(),
        trouble: format!("does not start: {source}"),
        log: log.clone(),
        tail: String::new(),
    };
    let words = File::create(&log).map_err(fail)?;
    let settings = logs.join("muneem.toml");
    std::fs::write(&settings, "# The demo says everything in the environment.\n").map_err(fail)?;
    let mut process = Command::new(std::env::current_exe().map_err(fail)?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MUNEEM__") || ["DATABASE_URL", "RUST_LOG"].contains(&&*text) {
            process.env_remove(&name);
        }
    }
    process
        .arg("--config")
        .arg(&settings)
        .args(arguments)
        .envs(environment.iter().map(|(key, value)| (*key, value.as_str())))
        .stdin(Stdio::null())
        .stdout(words.try_clone().map_err(fail)?)
        .stderr(words)
        // Ctrl-C at the terminal is ours to pass on: a worker hands back its jobs first.
        .process_group(0)
        .kill_on_drop(true);
    die_with_us(&mut process);
    Ok(Process { child: process.spawn().map_err(fail)?, command, log })
}

/// Makes the kernel kill the child when the thread that started it ends: the main thread, so the program.
fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    #[expect(unsafe_code, reason = "pre_exec is the only place where a child can ask for a parent-death signal")]
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl and getppid.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died before the request was in place.
            if u32::try_from(libc::getppid()).ok() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// An error when the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.ended(&match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with status {code}"),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            })),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The error that it ended, or is not ready, with the end of its log.
    pub(super) fn ended(&self, trouble: &str) -> Error {
        let words = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = words.lines().rev().take(3).collect::<Vec<_>>();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
        Error::Process { command: self.command.clone(), trouble: trouble.to_owned(), log: self.log.clone(), tail }
    }

    /// `kill -9`: no goodbye, no handing back.
    pub(super) async fn kill(&mut self) {
        // It may have ended just before: then it is as dead as asked for.
        let _ = self.child.kill().await;
    }

    /// Asks it to end, and insists after a while.
    pub(super) async fn end(mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            #[expect(unsafe_code, reason = "std can only send SIGKILL")]
            // SAFETY: kill takes two numbers and touches no memory of ours; the child is not reaped yet.
            unsafe {
                libc::kill(id, libc::SIGTERM);
            }
        }
        if tokio::time::timeout(END_WITHIN, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}

/// A port on loopback that is free now: the wanted one if it can be had.
pub(super) fn free_port(wanted: u16) -> Result<SocketAddr, Error> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    at(wanted).or_else(|_| at(0)).map_err(Error::Page)
}
