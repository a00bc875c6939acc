//! The four system calls std has no safe word for.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the kernel send SIGINT (the server's orderly stop) to the child when the *thread* that spawned it ends.
pub(crate) fn stop_with_parent(command: &mut Command) {
    let parent = std::process::id();
    #[expect(unsafe_code, reason = "pre_exec is the only place where a child can ask for a parent-death signal")]
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid and _exit's errno.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the request was in place.
            if u32::try_from(libc::getppid()).ok() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends a signal; a process that is gone is not an error.
pub(crate) fn signal(pid: i32, signal: i32) {
    #[expect(unsafe_code, reason = "std can only send SIGKILL")]
    // SAFETY: kill takes two numbers and touches no memory of ours.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Waits until a child has ended, and leaves it unreaped, so that its number cannot be given to another process.
pub(crate) fn wait_ended(pid: u32) {
    loop {
        #[expect(unsafe_code, reason = "std cannot wait without reaping")]
        // SAFETY: `info` is a plain C struct that waitid fills; zero is a valid value of it.
        let answer = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if answer == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Writes everything of the file system that `handle` lies on to disk.
pub(crate) fn syncfs(handle: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std has no syncfs")]
    // SAFETY: the descriptor is open as long as `handle` is borrowed.
    let answer = unsafe { libc::syncfs(handle.as_raw_fd()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
