//! The directory of one server: who may use it, its data, its socket, and what a crash left in it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::account::Account;
use crate::error::{Error, io_at, tail};
use crate::find::{Binaries, set_libraries};
use crate::server::Options;
use crate::{fetch, leftovers};

/// The superuser of the cluster.
pub(crate) const OWNER: &str = "postgres";
/// The number in the socket's name; no TCP port is opened.
pub(crate) const PORT: u16 = 5432;
/// `sun_path` holds 107 bytes, and the server adds its file name and `.lock`.
const LONGEST_SOCKET: usize = 100;

/// A directory that is ours, ready to be served.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) account: Account,
    pub(crate) binaries: Binaries,
    pub(crate) settings: Vec<(String, String)>,
    /// Held as long as the cluster is ours.
    _lock: File,
}

impl Cluster {
    /// Takes the directory, finds binaries, makes the data if there is none and clears what a crash left.
    pub(crate) fn prepare(options: &Options) -> Result<Self, Error> {
        let dir = reachable_dir(options)?;
        let data = dir.join("data");
        let lock = take_lock(&dir)?;
        let account = Account::choose(&data)?;
        let binaries = choose_binaries(options, &dir, &data)?;
        if account.lent {
            options.say(&format!("Postgres does not run as root: it runs as user id {}", account.uid));
        }
        let socket_dir = socket_dir(&dir, account)?;
        let log = dir.join("postgres.log");
        let cluster = Self { dir, data, socket_dir, log, account, binaries, settings: options.settings(), _lock: lock };
        if !cluster.data.join("PG_VERSION").exists() {
            cluster.initdb(options)?;
        }
        leftovers::clear(&cluster.data, &cluster.socket_dir)?;
        Ok(cluster)
    }

    /// Makes the data beside its final place and moves it there whole, so that an interrupted attempt is no data.
    fn initdb(&self, options: &Options) -> Result<(), Error> {
        let fresh = self.dir.join("data.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(io_at("remove", &fresh))?;
        }
        private_dir(&fresh, self.account)?;
        options.say(&format!("making a new Postgres {} database in {}", self.binaries.major, self.data.display()));
        let mut initdb = self.command("initdb", &self.dir);
        initdb.arg("-D").arg(&fresh).args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        if !options.durable {
            // Sixteen megabytes less to write and to copy.
            initdb.arg("--wal-segsize=1");
        }
        let output = initdb.output().map_err(io_at("run", self.binaries.bin.join("initdb")))?;
        if !output.status.success() {
            return Err(Error::Tool { tool: "initdb".into(), output: tail(&String::from_utf8_lossy(&output.stderr)) });
        }
        if options.durable {
            sync_filesystem(&fresh)?;
        }
        fs::rename(&fresh, &self.data).map_err(io_at("move into place", &self.data))?;
        if options.durable {
            File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_at("sync", &self.dir))?;
        }
        Ok(())
    }

    /// One of the tools, as the server's user, in a directory that user can read.
    fn command(&self, tool: &str, current_dir: &Path) -> Command {
        let mut command = Command::new(self.binaries.bin.join(tool));
        command.current_dir(current_dir).stdin(Stdio::null());
        set_libraries(&mut command, &self.binaries.libraries);
        self.account.apply(&mut command);
        for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGSERVICE"] {
            command.env_remove(name);
        }
        command
    }

    /// The server itself, in the foreground.
    pub(crate) fn postgres(&self) -> Result<Command, Error> {
        let log =
            File::options().create(true).append(true).mode(0o600).open(&self.log).map_err(io_at("write", &self.log))?;
        let errors = log.try_clone().map_err(io_at("write", &self.log))?;
        let mut postgres = self.command("postgres", &self.data);
        postgres.arg("-D").arg(&self.data).arg("-k").arg(&self.socket_dir).args(["-p", &PORT.to_string()]);
        for (name, value) in &self.settings {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.stdout(log).stderr(errors);
        Ok(postgres)
    }

    /// What the log says since `from`, cut to its end.
    pub(crate) fn log_since(&self, from: u64) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(&self.log)
            && log.seek(std::io::SeekFrom::Start(from)).is_ok()
        {
            // A log that is not text leaves the reason empty; the path is in the error anyway.
            let _ = log.read_to_string(&mut text);
        }
        text
    }

    /// Where the log ends now. A log that grew large in earlier runs is set aside first.
    pub(crate) fn log_mark(&self) -> u64 {
        const LARGE: u64 = 4 << 20;
        let size = fs::metadata(&self.log).map_or(0, |meta| meta.len());
        if size < LARGE {
            return size;
        }
        match fs::rename(&self.log, self.log.with_extension("log.old")) {
            Ok(()) => 0,
            Err(_) => size,
        }
    }
}

/// The directory to use: the caller's, or, when the server's user cannot reach it (root's home), one that it can.
fn reachable_dir(options: &Options) -> Result<PathBuf, Error> {
    let wanted = std::path::absolute(&options.dir).map_err(io_at("find", &options.dir))?;
    let account = Account::choose(&wanted.join("data"))?;
    let has_data = |dir: &Path| dir.join("data/PG_VERSION").exists();
    let existing = wanted.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let instead = options.root_dir.join(format!("postgres-{}", short_hash(&wanted)));
    if account.lent {
        let reachable = account.can_enter(existing);
        if has_data(&wanted) && !reachable {
            return Err(Error::Unreachable { dir: wanted, uid: account.uid });
        }
        if !reachable || (has_data(&instead) && !has_data(&wanted)) {
            make_dir(&instead)?;
            options.say(&format!(
                "{} is closed to the user Postgres runs as: its files are in {}",
                wanted.display(),
                instead.display()
            ));
            return Ok(instead);
        }
    }
    make_dir(&wanted)?;
    if account.can_enter(&wanted) { Ok(wanted) } else { Err(Error::Unreachable { dir: wanted, uid: account.uid }) }
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(io_at("make", dir))
}

/// A directory that only the server's user (and root) may enter.
fn private_dir(dir: &Path, account: Account) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => account.own(dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // Under a shared temporary directory somebody else may have been first.
            let meta = fs::symlink_metadata(dir).map_err(io_at("look at", dir))?;
            let safe = meta.is_dir() && meta.uid() == account.uid && meta.mode() & 0o077 == 0;
            if safe { Ok(()) } else { Err(error).map_err(io_at("use, it is not private:", dir)) }
        }
        Err(error) => Err(error).map_err(io_at("make", dir)),
    }
}

/// Beside the data, or, where that path is too long for a socket, under a hash of it in a short one.
fn socket_dir(dir: &Path, account: Account) -> Result<PathBuf, Error> {
    let name_len = format!("/.s.PGSQL.{PORT}.lock").len();
    let fits = |candidate: &Path| candidate.as_os_str().len() + name_len <= LONGEST_SOCKET;
    let beside = dir.join("sock");
    let chosen = if fits(&beside) {
        beside
    } else {
        let short = format!("muneem-{}", short_hash(dir));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| !account.lent);
        let temporary = Some(std::env::temp_dir()).filter(|dir| account.can_enter(dir));
        [runtime, temporary, Some(PathBuf::from("/tmp"))]
            .into_iter()
            .flatten()
            .filter(|base| base.is_dir())
            .map(|base| base.join(&short))
            .find(|candidate| fits(candidate))
            .unwrap_or(beside)
    };
    private_dir(&chosen, account)?;
    Ok(chosen)
}

/// Eight bytes of the path's SHA-256: a name that stays the same over restarts.
pub(crate) fn short_hash(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..8])
}

/// The lock ends with the process, however it ends.
fn take_lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(io_at("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "(unknown)".to_owned() } else { holder.trim().to_owned() };
            return Err(Error::InUse { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io_at("lock", &path)(source)),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(io_at("write", &path))?;
    Ok(file)
}

/// Binaries that fit the data, fetched when none do.
fn choose_binaries(options: &Options, dir: &Path, data: &Path) -> Result<Binaries, Error> {
    let wanted: Option<u32> =
        fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
    let fits = |binaries: &Binaries| wanted.is_none_or(|major| major == binaries.major);
    let folder = options.fetch.folder(dir);
    let mut found = options.search.all()?;
    found.extend(fetch::fetched(&folder));
    if let Some(position) = found.iter().position(fits) {
        return Ok(found.swap_remove(position));
    }
    let failed = if options.search.bin_dir.is_some() {
        None
    } else {
        make_dir(&folder)?;
        match fetch::fetch(&options.fetch, &folder, wanted, &|line| options.say(line)) {
            Ok(binaries) => return Ok(binaries),
            Err(error) => Some(error),
        }
    };
    let names = found.iter().map(|binaries| binaries.major.to_string()).collect::<Vec<_>>().join(", ");
    match (failed, wanted) {
        (Some(error), _) if found.is_empty() => Err(error),
        (_, wanted) => {
            Err(Error::WrongMajor { data: data.to_owned(), wanted: wanted.unwrap_or_default(), found: names })
        }
    }
}

/// Writes the new data to disk in one call: file by file takes initdb seconds.
fn sync_filesystem(dir: &Path) -> Result<(), Error> {
    let handle = File::open(dir).map_err(io_at("open", dir))?;
    crate::sys::syncfs(&handle).map_err(io_at("sync", dir))
}
