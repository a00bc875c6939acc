//! Which Postgres is on this machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// The oldest major version whose SQL we use.
pub const OLDEST_MAJOR: u32 = 15;

/// A directory with `postgres` and `initdb` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The directory of the executables.
    pub bin: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
    /// Extra directories for the dynamic linker, where the libraries came along.
    pub libraries: Vec<PathBuf>,
}

/// Where to look, in this order.
#[derive(Debug, Clone)]
pub struct Search {
    /// The user's own word, from `PG_BIN_DIR`. It alone is used when it is set.
    pub bin_dir: Option<PathBuf>,
    /// The directory of Debian's versions: `<installed>/<major>/bin`.
    pub installed: PathBuf,
    /// The search path of the shell.
    pub path: Option<OsString>,
}

impl Search {
    /// What the environment of this process says.
    pub fn from_env() -> Self {
        Self {
            bin_dir: std::env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()).map(PathBuf::from),
            installed: PathBuf::from("/usr/lib/postgresql"),
            path: std::env::var_os("PATH"),
        }
    }

    /// Looks nowhere, so that only what was fetched is used.
    pub fn nowhere() -> Self {
        Self { bin_dir: None, installed: PathBuf::from("/nonexistent"), path: None }
    }

    /// Every usable Postgres, best first.
    ///
    /// # Errors
    /// [`Error::BadBinDir`] when the user named a directory that holds none.
    pub fn all(&self) -> Result<Vec<Binaries>, Error> {
        if let Some(dir) = &self.bin_dir {
            return match usable(dir, &[]) {
                Some(found) => Ok(vec![found]),
                None => Err(Error::BadBinDir { dir: dir.clone() }),
            };
        }
        let mut found: Vec<Binaries> = Vec::new();
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(&self.installed)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort();
        for (_, bin) in versions.into_iter().rev() {
            push_new(&mut found, usable(&bin, &[]));
        }
        for dir in self.path.iter().flat_map(std::env::split_paths) {
            // A link such as /usr/local/bin/postgres leads to the directory where initdb and the libraries are.
            let Ok(real) = fs::canonicalize(dir.join("postgres")) else { continue };
            push_new(&mut found, real.parent().and_then(|bin| usable(bin, &[])));
        }
        Ok(found)
    }
}

fn push_new(found: &mut Vec<Binaries>, candidate: Option<Binaries>) {
    if let Some(candidate) = candidate
        && !found.iter().any(|known| known.bin == candidate.bin)
    {
        found.push(candidate);
    }
}

/// The binaries in `bin`, if they run and are new enough.
pub(crate) fn usable(bin: &Path, libraries: &[PathBuf]) -> Option<Binaries> {
    let major = version(&bin.join("postgres"), libraries)?;
    // Both are asked: each has libraries of its own that may be missing.
    version(&bin.join("initdb"), libraries)?;
    (major >= OLDEST_MAJOR).then(|| Binaries { bin: bin.to_owned(), major, libraries: libraries.to_vec() })
}

/// The major version a tool says it has, if it runs.
fn version(tool: &Path, libraries: &[PathBuf]) -> Option<u32> {
    let mut command = Command::new(tool);
    command.arg("--version").stdin(Stdio::null());
    set_libraries(&mut command, libraries);
    let output = command.output().ok().filter(|output| output.status.success())?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` is 15.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Points the dynamic linker at libraries that came with fetched binaries.
pub(crate) fn set_libraries(command: &mut Command, libraries: &[PathBuf]) {
    if libraries.is_empty() {
        return;
    }
    if let Ok(joined) = std::env::join_paths(libraries) {
        command.env("LD_LIBRARY_PATH", joined);
    }
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn major_is_read_from_every_way_of_saying_it() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("something else"), None);
    }
}
