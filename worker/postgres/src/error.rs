//! What can go wrong, each with its mend.

use std::io;
use std::path::PathBuf;

/// Why the private Postgres is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is in use by another program.
    #[error("{} is in use by process {holder}; stop that program, or give this one another data directory", dir.display())]
    InUse {
        /// The directory both want.
        dir: PathBuf,
        /// Process id of the holder, or a word when it is not known.
        holder: String,
    },
    /// No usable Postgres on this machine and none could be fetched.
    #[error(
        "no Postgres 15 or newer found ({tried}); run `apt-get install postgresql`, or set PG_BIN_DIR to a directory with postgres and initdb"
    )]
    NotFound {
        /// Where it was looked for and why fetching failed.
        tried: String,
    },
    /// `PG_BIN_DIR` points to something that is no Postgres.
    #[error("PG_BIN_DIR {} holds no working postgres and initdb of version 15 or newer", dir.display())]
    BadBinDir {
        /// Its value.
        dir: PathBuf,
    },
    /// The data was written by another major version.
    #[error("{} was made by Postgres {wanted}, but only Postgres {found} is here; run `apt-get install postgresql-{wanted}`, or set PG_BIN_DIR to the binaries of version {wanted}", data.display())]
    WrongMajor {
        /// The data directory.
        data: PathBuf,
        /// The major version in its `PG_VERSION`.
        wanted: u32,
        /// The major versions found.
        found: String,
    },
    /// The data belongs to another user.
    #[error("{} belongs to user id {owner}, this program runs as user id {us}; run it as the owner, or give it another data directory", data.display())]
    ForeignData {
        /// The data directory.
        data: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this program.
        us: u32,
    },
    /// Root, and no unprivileged user to run the database as.
    #[error(
        "Postgres does not run as root, and no system user could be made for it ({reason}); run `useradd --system postgres`"
    )]
    NoUser {
        /// What `useradd` said.
        reason: String,
    },
    /// Data that exists cannot be reached by the user who has to serve it.
    #[error("user id {uid}, who owns the database, cannot enter {}; run `chmod o+x` on the directories above it", dir.display())]
    Unreachable {
        /// The directory.
        dir: PathBuf,
        /// The user the server runs as.
        uid: u32,
    },
    /// A tool ended badly.
    #[error("{tool} failed: {output}")]
    Tool {
        /// Which tool.
        tool: String,
        /// The last lines of what it said.
        output: String,
    },
    /// The server ended, or was not ready in time.
    #[error("Postgres did not start: {reason}; its log is {}", log.display())]
    NotStarted {
        /// The last lines of its log.
        reason: String,
        /// Where the whole log is.
        log: PathBuf,
    },
    /// A postmaster of an earlier run does not stop.
    #[error("process {pid} still serves {} and does not stop; end it, then start again", data.display())]
    StillRunning {
        /// Its process id.
        pid: i32,
        /// What it serves.
        data: PathBuf,
    },
    /// What was downloaded is not what was pinned.
    #[error("{} has SHA-256 {found}, expected {expected}; it was not used", file.display())]
    Checksum {
        /// The downloaded file.
        file: PathBuf,
        /// The pinned digest.
        expected: String,
        /// The digest it has.
        found: String,
    },
    /// A downloaded archive is broken.
    #[error("cannot unpack {}", file.display())]
    Unpack {
        /// The archive.
        file: PathBuf,
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// A file or directory could not be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A statement on the started server failed.
    #[error("the private Postgres refused a statement")]
    Sql(#[from] sqlx::Error),
    /// The migrations did not apply.
    #[error("the migrations did not apply")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Adds verb and path to an I/O error.
pub(crate) fn io_at(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { what, path, source }
}

/// The last lines of a text, on one line: enough to see the cause, short enough for one error.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}
