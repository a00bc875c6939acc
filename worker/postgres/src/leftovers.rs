//! What a crash leaves behind: a `postmaster.pid`, socket files, now and then a server that is still stopping.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, io_at};
use crate::sys;

/// How long a server whose program died may take for its own orderly stop, before it is asked, and then until given up.
const ASK_AFTER: Duration = Duration::from_secs(3);
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Removes stale files. Called with the directory's lock held: a server that is alive has lost its program.
pub(crate) fn clear(data: &Path, socket_dir: &Path) -> Result<(), Error> {
    let pid_file = data.join("postmaster.pid");
    let started = Instant::now();
    let mut asked = false;
    while let Some(pid) = read_pid(&pid_file)
        && serves(pid, data)
    {
        if started.elapsed() > GIVE_UP_AFTER {
            return Err(Error::StillRunning { pid, data: data.to_owned() });
        }
        if !asked && started.elapsed() > ASK_AFTER {
            sys::signal(pid, libc::SIGINT);
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    remove(&pid_file)?;
    for entry in fs::read_dir(socket_dir).map_err(io_at("read", socket_dir))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).map_err(io_at("remove", path)),
        _ => Ok(()),
    }
}

/// The first line of `postmaster.pid`.
pub(crate) fn read_pid(pid_file: &Path) -> Option<i32> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Whether process `pid` is a server of `data`, and not a zombie or a stranger who was given the number later.
pub(crate) fn serves(pid: i32, data: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in brackets and may hold anything.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    if matches!(state, None | Some('Z' | 'X')) {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => fs::canonicalize(data).is_ok_and(|data| data == cwd),
        // In a container root may not read it; the command line, which names the directory, is open to all.
        Err(_) => fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|argument| argument == data.as_os_str().as_encoded_bytes())
        }),
    }
}
