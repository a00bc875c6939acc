//! Whom the server runs as. Postgres refuses to be root, so root lends it an unprivileged user.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, io_at, tail};

/// The user made when the machine has no user `postgres`.
const OWN_USER: &str = "muneem";

/// The user and group of the server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether it is another user than ours, which only root can arrange.
    pub(crate) lent: bool,
}

impl Account {
    /// Who serves `data`: its owner when it exists, else we ourselves, or as root the user `postgres`, or as a last
    /// way a new system user.
    pub(crate) fn choose(data: &Path) -> Result<Self, Error> {
        let us = fs::metadata("/proc/self").map_err(io_at("read", "/proc/self"))?;
        let owner = fs::metadata(data.join("PG_VERSION")).ok();
        match owner {
            Some(owner) if owner.uid() == us.uid() && us.uid() != 0 => {}
            Some(owner) if us.uid() == 0 && owner.uid() != 0 => {
                return Ok(Self { uid: owner.uid(), gid: owner.gid(), lent: true });
            }
            Some(owner) if us.uid() != 0 => {
                return Err(Error::ForeignData { data: data.to_owned(), owner: owner.uid(), us: us.uid() });
            }
            _ => {}
        }
        if us.uid() != 0 {
            return Ok(Self { uid: us.uid(), gid: us.gid(), lent: false });
        }
        if let Some(account) = named("postgres").or_else(|| named(OWN_USER)) {
            return Ok(account);
        }
        let made = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
            .args(["--shell", "/usr/sbin/nologin", OWN_USER])
            .stdin(Stdio::null())
            .output();
        let reason = match made {
            Ok(output) => tail(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => format!("useradd: {error}"),
        };
        // Asked again whatever useradd said: two programs may have tried at once.
        named(OWN_USER).ok_or(Error::NoUser { reason })
    }

    /// Makes a command run as this user.
    pub(crate) fn apply(&self, command: &mut Command) {
        if self.lent {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Hands a file or directory of ours to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.lent {
            chown(path, Some(self.uid), Some(self.gid)).map_err(io_at("hand over", path))?;
        }
        Ok(())
    }

    /// Whether this user can enter `dir`: tried, because modes alone do not tell (access lists, mounts).
    pub(crate) fn can_enter(&self, dir: &Path) -> bool {
        if !self.lent {
            return true;
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", ":"]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut shell);
        shell.status().is_ok_and(|status| status.success())
    }
}

/// A user of the system by name, by way of `id`, which also knows directories such as LDAP.
fn named(user: &str) -> Option<Account> {
    let number = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, user]).stdin(Stdio::null()).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    let (uid, gid) = (number("-u")?, number("-g")?);
    (uid != 0).then_some(Account { uid, gid, lent: true })
}
