//! The one server of a test run: found or started under a lock, held by every test process, ended by its keeper.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::account::Account;
use crate::cluster::{Cluster, OWNER, short_hash};
use crate::error::{Error, io_at, tail};
use crate::leftovers::{read_pid, serves};
use crate::server::{Options, connect_options, is_ready};

/// Ends the server when no test process has held the lock for a while. A script, because a test binary cannot be run
/// as anything else; it holds its own lock, by which others see that it lives.
const KEEPER: &str = include_str!("keeper.sh");

/// A data directory that was never started: copying it is ten times cheaper than making one.
const PRISTINE: &str = "pristine";

/// How long starting may take on a loaded machine.
const START_WITHIN: Duration = Duration::from_secs(120);

/// The server of this test run, as this process sees it.
#[derive(Debug)]
pub(super) struct Shared {
    base: PathBuf,
    socket_dir: PathBuf,
    /// Locked (shared) until this process ends.
    _holder: File,
}

impl Shared {
    /// Finds or starts the server; the first call of a process decides.
    pub(super) fn get() -> &'static Self {
        static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            Self::find_or_start().map_err(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })
        });
        shared.as_ref().unwrap_or_else(|error| panic!("no Postgres for tests: {error}"))
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The folder that goes when the last test process ends.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Puts a fresh data directory into `dir`.
    pub(super) fn seed(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(io_at("make", dir))?;
        copy_tree(&self.base.join(PRISTINE), &dir.join("data"))
    }

    pub(super) fn admin_options(&self) -> PgConnectOptions {
        connect_options(&self.socket_dir, OWNER, "postgres")
    }

    pub(super) async fn admin(&self) -> PgConnection {
        PgConnection::connect_with(&self.admin_options())
            .await
            .unwrap_or_else(|error| panic!("cannot connect to the tests' Postgres: {error}"))
    }

    fn find_or_start() -> Result<Self, Error> {
        let account = Account::choose(Path::new("/nonexistent"))?;
        let base = base_dir(account);
        let holder = loop {
            own_dir(&base, account)?;
            if let Some(holder) = hold(&base)? {
                break holder;
            }
        };
        let start = open_lock(&base.join("start"))?;
        start.lock().map_err(io_at("lock", base.join("start")))?;
        let server_dir = base.join("server");
        let found = fs::read_to_string(base.join("socket")).ok().map(PathBuf::from);
        if let Some(socket_dir) = found
            && keeper_lives(&base)
            && let Some(pid) = read_pid(&server_dir.join("data/postmaster.pid"))
            && serves(pid, &server_dir.join("data"))
        {
            return Ok(Self { base, socket_dir, _holder: holder });
        }
        let socket_dir = start_server(&base, &server_dir)?;
        Ok(Self { base, socket_dir, _holder: holder })
    }
}

/// Copies a directory with owners and modes, under a draft name first.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let draft = to.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(io_at("remove", &draft))?;
    }
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(&draft).output();
    let copied = copied.map_err(io_at("copy", from))?;
    if !copied.status.success() {
        return Err(Error::Tool { tool: "cp".into(), output: tail(&String::from_utf8_lossy(&copied.stderr)) });
    }
    fs::rename(&draft, to).map_err(io_at("move into place", to))
}

/// Settings for speed: what these servers hold is worth nothing.
pub(super) fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.durable = false;
    options.start_within = START_WITHIN;
    options.fetch.dir = binaries_dir(&options);
    let settings = [
        ("shared_buffers", "64MB"),
        ("max_connections", "400"),
        ("autovacuum", "off"),
        ("wal_level", "minimal"),
        ("max_wal_size", "1GB"),
        ("max_wal_senders", "0"),
        ("log_min_messages", "error"),
    ];
    options.extra_settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    options
}

/// Prepares the cluster and leaves it to a keeper, which outlives this process.
fn start_server(base: &Path, dir: &Path) -> Result<PathBuf, Error> {
    let cluster = Cluster::prepare(&options(dir))?;
    // The keeper removes the folder as the server's user.
    cluster.account.own(&cluster.dir)?;
    let pristine = base.join(PRISTINE);
    if !pristine.exists() {
        // Before the first start, so that it is whole and holds nothing.
        copy_tree(&cluster.data, &pristine)?;
    }
    let mark = cluster.log_mark();
    let postgres = cluster.postgres()?;
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "muneem-test-keeper"]).arg(base).arg(postgres.get_program()).args(postgres.get_args());
    for (name, value) in postgres.get_envs() {
        match value {
            Some(value) => keeper.env(name, value),
            None => keeper.env_remove(name),
        };
    }
    let log = File::options().append(true).open(&cluster.log).map_err(io_at("write", &cluster.log))?;
    let errors = log.try_clone().map_err(io_at("write", &cluster.log))?;
    // Not our standard output: whoever runs the tests waits until that is closed.
    keeper.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/").process_group(0);
    cluster.account.apply(&mut keeper);
    let mut keeper = keeper.spawn().map_err(io_at("run", "/bin/sh"))?;
    let deadline = Instant::now() + START_WITHIN;
    let pid_file = cluster.data.join("postmaster.pid");
    loop {
        if read_pid(&pid_file).is_some_and(|pid| is_ready(&pid_file, pid)) {
            let note = base.join("socket");
            fs::write(&note, cluster.socket_dir.as_os_str().as_encoded_bytes()).map_err(io_at("write", &note))?;
            return Ok(cluster.socket_dir);
        }
        let ended = keeper.try_wait().ok().flatten().is_some();
        if ended || Instant::now() > deadline {
            let reason = tail(&cluster.log_since(mark));
            return Err(Error::NotStarted { reason, log: cluster.log });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes the shared lock; none when the keeper removed the folder in between.
fn hold(base: &Path) -> Result<Option<File>, Error> {
    let path = base.join("holders");
    let holder = match open_lock(&path) {
        Ok(holder) => holder,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    holder.lock_shared().map_err(io_at("lock", &path))?;
    let held = holder.metadata().map_err(io_at("look at", &path))?;
    let there = fs::metadata(&path);
    Ok(there.is_ok_and(|there| there.ino() == held.ino() && there.dev() == held.dev()).then_some(holder))
}

fn open_lock(path: &Path) -> Result<File, Error> {
    File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io_at("open", path))
}

fn keeper_lives(base: &Path) -> bool {
    let Ok(file) = File::open(base.join("keeper")) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Where fetched binaries stay from one run to the next: the user's cache, or as root, whose home is closed to the
/// server's user, beside what root's own servers keep.
fn binaries_dir(options: &Options) -> Option<PathBuf> {
    if is_root() {
        return Some(options.root_dir.join("postgres-binaries"));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("muneem/postgres"))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0)
}

/// One folder per target directory, so that two checkouts do not share their roles.
fn base_dir(account: Account) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(Path::new("/"));
    let temporary = Some(std::env::temp_dir()).filter(|dir| account.can_enter(dir)).unwrap_or_else(|| "/tmp".into());
    temporary.join(format!("muneem-tests-{}-{}", account.uid, short_hash(target)))
}

/// The folder belongs to the server's user, since the keeper, which runs as that user, removes it.
fn own_dir(base: &Path, account: Account) -> Result<(), Error> {
    if let Err(error) = DirBuilder::new().mode(0o755).create(base)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(io_at("make", base)(error));
    }
    let meta = fs::symlink_metadata(base).map_err(io_at("look at", base))?;
    let us = fs::metadata("/proc/self").map_err(io_at("read", "/proc/self"))?.uid();
    if !meta.is_dir() || (meta.uid() != account.uid && meta.uid() != us) {
        return Err(Error::ForeignData { data: base.to_owned(), owner: meta.uid(), us });
    }
    if meta.permissions().mode() & 0o022 != 0 {
        fs::set_permissions(base, fs::Permissions::from_mode(0o755)).map_err(io_at("close", base))?;
    }
    account.own(base)
}
