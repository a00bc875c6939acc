//! Where everything is built and handed down: the database, what lies outside, the kinds, and what runs on them.

use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    Deps,
    evidence::{Actor, By},
    law,
    messaging::{self, Credentials, template},
    outbound::{Carrier, Chance, Clock, KeyManager, Mailer},
    people::{
        self,
        signin::{passkey::Passkeys, password::Passwords},
    },
    queue::{Kind, Lane},
    schema,
    vault::{self, RootMade, Vault},
    webhooks,
};
use muneem_postgres::{Error as PostgresError, Options, Say, Server};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Kms},
    console::{Console, Departures},
    evidence::anchors::Outside,
    outbound::{
        chance::OsChance,
        clock::{MovedClock, SystemClock},
        http::Timeouts,
        kms,
        kms_call::Succession,
        kms_file::{self, NoKey},
        mail::{self, Smtp},
        mailbox,
        object_store::Objects,
        webhook::{self, Receivers},
        whatsapp::{self, CloudApi},
    },
    queue as workers,
    refusals::Refusals,
};

/// Database of the private Postgres.
const PRIVATE_DATABASE: &str = "muneem";
/// Login of the private Postgres that is a member of the app role only.
const PRIVATE_LOGIN: &str = "muneem";
/// Most deliveries to one endpoint of webhooks that may be under way at once, whatever the settings say.
const MOST_DELIVERIES: usize = 64;
/// Longest wait for the private Postgres, which may have a crash to recover from.
const PRIVATE_PATIENCE: Duration = Duration::from_secs(30);
/// In the data directory: how other commands reach the private Postgres while a process of ours runs it.
const PRIVATE_SOCKET: &str = "postgres.socket";

/// The frontend's Postgres, or our own.
pub struct Database {
    /// As the app role.
    pub app: PgConnectOptions,
    /// As the owner of the schema; with a Postgres of the frontend's the same login, which `migrate` needs to be one.
    pub owner: PgConnectOptions,
    /// For LISTEN.
    pub listen: PgConnectOptions,
    private: bool,
    /// What settling makes of it.
    sandbox: bool,
    acquire: Duration,
    socket_note: Option<PathBuf>,
    _server: Option<Server>,
}

impl Database {
    /// Finds or starts the database. Blocks while a private Postgres starts; call it on the main thread.
    ///
    /// # Errors
    /// The URL cannot be read, or the private Postgres cannot be started: each says the mend.
    pub fn open(config: &Config, say: Option<Say>) -> anyhow::Result<Self> {
        if let Some(url) = &config.database.url {
            let app = parse(url).context("DATABASE_URL cannot be read: write postgres://login@host/database")?;
            let listen = match &config.database.listen_url {
                Some(url) => {
                    parse(url).context("`database.listen_url` cannot be read: write postgres://login@host/database")?
                }
                None => app.clone(),
            };
            let owner = app.clone();
            return Ok(Self {
                app,
                owner,
                listen,
                private: false,
                sandbox: config.sandbox.enabled,
                acquire: config.database.acquire_timeout,
                socket_note: None,
                _server: None,
            });
        }
        let dir = &config.data.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the data directory {}", dir.display()))?;
        let note = dir.join(PRIVATE_SOCKET);
        let mut options = Options::new(dir.join("postgres"));
        options.say = say;
        options.extra_settings.push(("max_connections".into(), config.database.max_connections.to_string()));
        match Server::start(&options) {
            Ok(server) => {
                let socket = server.socket_dir().to_owned();
                std::fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&note)
                    .and_then(|mut file| std::io::Write::write_all(&mut file, socket.as_os_str().as_encoded_bytes()))
                    .with_context(|| format!("cannot write {}", note.display()))?;
                Ok(Self::private(&socket, config, Some(note), Some(server)))
            }
            Err(PostgresError::InUse { dir, holder }) => {
                // A process of ours runs it: this command joins in.
                let socket = std::fs::read_to_string(&note).map(PathBuf::from);
                match socket {
                    Ok(socket) if socket.is_dir() => Ok(Self::private(&socket, config, None, None)),
                    _ => Err(PostgresError::InUse { dir, holder }.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn private(socket: &Path, config: &Config, note: Option<PathBuf>, server: Option<Server>) -> Self {
        let as_login = |login: &str| {
            PgConnectOptions::new_without_pgpass().socket(socket).username(login).database(PRIVATE_DATABASE)
        };
        let app = as_login(PRIVATE_LOGIN);
        Self {
            listen: app.clone(),
            app,
            owner: as_login("postgres"),
            private: true,
            sandbox: config.sandbox.enabled,
            acquire: PRIVATE_PATIENCE,
            socket_note: note,
            _server: server,
        }
    }

    /// Whether it is the private one.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// A URL for child processes; it holds no password when the database is private.
    pub fn app_url(&self) -> SecretString {
        SecretString::from(self.app.to_url_lossy().to_string())
    }

    /// As [`Self::migrate`], and makes it a sandbox's or a real one, as the configuration says.
    ///
    /// # Errors
    /// As [`Self::migrate`].
    pub async fn settle(&self) -> anyhow::Result<()> {
        self.migrate().await?;
        let pool = pool(self.owner.clone(), 1, self.acquire).await?;
        let settled = law::set_sandbox(&mut *pool.acquire().await?, self.sandbox).await?;
        pool.close().await;
        ensure!(
            settled,
            "a business works with this database, so that its clock is not moved: take another database for a sandbox, \
             or set `sandbox.enabled = false`"
        );
        Ok(())
    }

    /// Brings the schema up to date and publishes kinds and schedules. Needs to be the owner.
    ///
    /// # Errors
    /// The database is older than 15 or refuses a step.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        if self.private {
            self.create_private_database().await?;
        }
        let pool = pool(self.owner.clone(), 1, self.acquire).await?;
        let mut conn = pool.acquire().await?;
        schema::migrate(&mut conn).await?;
        schema::record_versions(&mut conn, &By::operator(SystemClock.now(), &OsChance)).await?;
        if self.private {
            schema::create_private_login(&mut conn).await?;
        }
        drop(conn);
        pool.close().await;
        Ok(())
    }

    async fn create_private_database(&self) -> anyhow::Result<()> {
        let pool = pool(self.owner.clone().database("postgres"), 1, self.acquire).await?;
        schema::create_private_database(&mut *pool.acquire().await?).await?;
        pool.close().await;
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(note) = &self.socket_note {
            // Left over, it names a socket that is gone: harmless.
            let _ = std::fs::remove_file(note);
        }
    }
}

fn parse(url: &SecretString) -> Result<PgConnectOptions, sqlx::Error> {
    url.expose_secret().parse()
}

fn settled(options: PgConnectOptions) -> PgConnectOptions {
    options.statement_cache_capacity(STATEMENTS).application_name("muneem").disable_statement_logging()
}

/// Statements that a session keeps prepared; the one longest unused is closed for the next. None at all would be worse
/// than many: the driver names each statement all the same and then never closes it, until the server's memory is gone.
const STATEMENTS: usize = 256;

/// A pool for `options`: a bounded number of statements stays prepared in a session, and no statement or value is logged.
/// A pooler in transaction mode in between must know prepared statements (`PgBouncer` 1.21 or later with
/// `max_prepared_statements`).
///
/// # Errors
/// The database does not answer.
pub async fn pool(options: PgConnectOptions, size: u32, acquire: Duration) -> anyhow::Result<PgPool> {
    connect(PgPoolOptions::new(), options, size, acquire).await
}

/// As [`pool`], for whatever serves several businesses in turn: a connection that still stands for one when it comes
/// back would show its rows to whoever takes it next, and is closed instead.
///
/// # Errors
/// The database does not answer.
pub async fn guarded_pool(options: PgConnectOptions, size: u32, acquire: Duration) -> anyhow::Result<PgPool> {
    let guarded = PgPoolOptions::new().after_release(|conn, _| Box::pin(people::is_nobodys(conn)));
    connect(guarded, options, size, acquire).await
}

async fn connect(
    pool: PgPoolOptions,
    options: PgConnectOptions,
    size: u32,
    acquire: Duration,
) -> anyhow::Result<PgPool> {
    let options = settled(options);
    let pool = pool
        .max_connections(size)
        .acquire_timeout(acquire)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await;
    let cause = match pool {
        Ok(pool) => return Ok(pool),
        // The pool waited for a server that may have been starting, and knows only that it waited.
        Err(sqlx::Error::PoolTimedOut) => match tokio::time::timeout(acquire, options.connect()).await {
            Ok(Err(cause)) => cause,
            _ => sqlx::Error::PoolTimedOut,
        },
        Err(cause) => cause,
    };
    Err(cause).context("the database did not answer; check DATABASE_URL and that Postgres runs")
}

/// Everything a process of muneem works with.
pub struct App {
    /// What is in force.
    pub config: Config,
    /// What handlers, routes and commands use.
    pub deps: Arc<Deps>,
    /// Every kind of job.
    pub kinds: Vec<Kind>,
    /// Token, secrets and verify word of the Cloud API; none: webhooks are refused and nothing is sent.
    pub credentials: Option<Credentials>,
    /// For LISTEN.
    pub listen: PgConnectOptions,
    /// The clock of sandbox mode.
    pub moved_clock: Option<MovedClock>,
    /// Of the workers of this process, if it has any.
    pub pulse: workers::Pulse,
    /// Counts and records who was refused.
    pub refusals: Arc<Refusals>,
}

impl App {
    /// Connects and wires. `size` is how many connections handlers, routes and commands may hold.
    ///
    /// # Errors
    /// The database does not answer, or a directory cannot be made.
    pub async fn build(config: Config, database: &Database, size: u32) -> anyhow::Result<Self> {
        let db = guarded_pool(database.app.clone(), size, config.database.acquire_timeout).await?;
        let moved_clock = config.sandbox.enabled.then(MovedClock::default);
        if let Some(clock) = &moved_clock {
            clock.set_offset(law::clock_offset(&db).await.context("the sandbox clock's offset could not be read")?);
        }
        let clock: Arc<dyn Clock> = match &moved_clock {
            Some(clock) => Arc::new(clock.clone()),
            None => Arc::new(SystemClock),
        };
        let objects = Objects::in_directory(&config.data.dir.join("files"))
            .with_context(|| format!("cannot use {} for files", config.data.dir.display()))?;
        let settings = &config.messaging.whatsapp;
        let credentials = match (&settings.access_token, settings.app_secrets.is_empty(), &settings.verify_token) {
            (Some(access_token), false, Some(verify_token)) => Some(Credentials {
                access_token: access_token.clone(),
                app_secrets: settings.app_secrets.clone(),
                verify_token: verify_token.clone(),
            }),
            _ => None,
        };
        // Before anything is asked for or sent: a fault in the words names its file.
        let words = template::Library::load(config.messaging.templates_dir.as_deref()).context("the templates")?;
        template::install(&words)?;
        messaging::wishes::words::check().context("the words to stop")?;
        let cloud = CloudApi::new(&whatsapp::Settings {
            base_url: settings.base_url.clone(),
            api_version: settings.api_version.clone(),
            credentials: credentials.clone(),
            prove_secret: true,
            timeouts: Timeouts { connect: settings.connect_timeout, total: settings.request_timeout },
        })?;
        let carrier: Arc<dyn Carrier> = Arc::new(cloud.of_app(settings.app_id.clone()));
        let mailer: Arc<dyn Mailer> = match config.messaging.mail.settings()? {
            Some(settings) => Arc::new(Smtp::new(settings, Arc::clone(&clock))?),
            None => Arc::new(mail::NotConfigured),
        };
        let chance: Arc<dyn Chance> = Arc::new(OsChance);
        let vault = vault(&config, database, &db, &clock, &chance).await?;
        let sending = webhooks::Settings {
            pause_after: TimeDelta::from_std(config.webhooks.pause_after).unwrap_or(TimeDelta::MAX),
            keep: TimeDelta::days(config.webhooks.keep_days.into()),
            concurrency: config.webhooks.concurrency.min(MOST_DELIVERIES),
            loopback: config.sandbox.enabled,
        };
        let receivers = Receivers::new(webhook::Settings::new(config.sandbox.enabled))?;
        let deps = Arc::new(Deps {
            db,
            clock,
            chance,
            objects: Arc::new(objects),
            carrier,
            mailer,
            vault: Arc::new(vault),
            messaging: messaging::Settings {
                unknown_window: settings.reconcile_window,
                quiet_hours: config.messaging.quiet_hours.clone(),
                public_url: config.console.origin.clone().filter(|origin| origin.starts_with("https://")),
                ..messaging::Settings::DEFAULT
            },
            webhooks: webhooks::Sending::new(Arc::new(receivers), sending),
        });
        let refusals = Refusals::new(deps.db.clone(), Arc::clone(&deps.clock), Arc::clone(&deps.chance));
        Ok(Self {
            config,
            refusals,
            deps,
            kinds: muneem_jobs::kinds(),
            credentials,
            listen: database.listen.clone(),
            moved_clock,
            pulse: workers::Pulse::default(),
        })
    }

    /// Whoever has a shell on this machine, as the evidence names her, now.
    pub fn operator(&self) -> By<'_> {
        By::operator(self.deps.clock.now(), &*self.deps.chance)
    }

    /// The pages for staff, at `origin`.
    ///
    /// # Errors
    /// The list of breached passwords cannot be opened.
    pub fn console(&self, origin: String) -> anyhow::Result<Arc<Console>> {
        let (config, deps) = (&self.config, &self.deps);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let breached = config.people.breached_passwords_file.clone();
        let passwords = Passwords::new(cores, breached, Arc::clone(&deps.chance))
            .context("`people.breached_passwords_file` cannot be used")?;
        let country_header = config.console.country_header.as_ref();
        Ok(Arc::new(Console {
            db: deps.db.clone(),
            clock: Arc::clone(&deps.clock),
            chance: Arc::clone(&deps.chance),
            vault: Arc::clone(&deps.vault),
            passwords,
            // Not where the origin is an address: browsers know passkeys by host names alone.
            passkeys: Passkeys::new(&origin).ok(),
            origin,
            mails: deps.mailer.is_configured(),
            sends_codes: deps.mailer.is_configured() || self.credentials.is_some(),
            installation_business: config.messaging.whatsapp.installation_business.clone(),
            trusted_proxies: config.server.trusted_proxies.clone(),
            country_header: country_header.and_then(|name| name.parse().ok()),
            answer_after: Console::ANSWER_AFTER,
            departures: Departures::new(Departures::A_MINUTE),
            refusals: Arc::clone(&self.refusals),
        }))
    }

    /// Runs workers for `lanes` until `shutdown`.
    ///
    /// # Errors
    /// The database does not answer at the start.
    pub async fn work(&self, database: &Database, lanes: Vec<Lane>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let settings = &self.config.queue;
        let db = pool(database.app.clone(), 5, self.config.database.acquire_timeout).await?;
        let settings = workers::Settings {
            name: format!("{}-{}", host_name(), std::process::id()),
            lanes,
            lease: settings.lease,
            concurrency: settings.concurrency,
            reserved: settings.reserved.iter().map(|(lane, places)| (*lane, *places)).collect(),
            poll: settings.poll,
            ageing: Duration::from_secs(10),
            shutdown: settings.shutdown,
            pulse: self.pulse.clone(),
        };
        let connections = workers::Connections { db, listen: self.listen.clone() };
        workers::run(Arc::clone(&self.deps), connections, &self.kinds, settings, shutdown).await?;
        Ok(())
    }

    /// Ticks the schedules until `shutdown`.
    pub async fn tick(&self, shutdown: CancellationToken) {
        let longest = if self.moved_clock.is_some() { Duration::from_millis(500) } else { self.config.schedule.poll };
        crate::schedule::run(Arc::clone(&self.deps), longest, shutdown).await;
    }

    /// Seals the evidence log until `shutdown`.
    ///
    /// # Errors
    /// The signing key or an anchor cannot be used.
    pub async fn seal(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Deps { db, clock, chance, mailer, .. } = &*self.deps;
        let outside = Outside { mailer: Arc::clone(mailer), clock: Arc::clone(clock), chance: Arc::clone(chance) };
        crate::evidence::run(&self.config, db.clone(), outside, shutdown).await
    }

    /// Reads back what came of mail; `None`: nothing is configured to be read.
    ///
    /// # Errors
    /// The certificates or the name of the mailbox's server cannot be used.
    pub fn mail_reader(&self) -> anyhow::Result<Option<mailbox::Reader>> {
        let (settings, deps) = (&self.config.messaging.mail, &self.deps);
        let imap = settings.imap.settings()?.map(mailbox::Imap::new).transpose()?;
        if imap.is_none() && settings.maildir.is_none() {
            return Ok(None);
        }
        let keeper = mailbox::Keeper {
            db: deps.db.clone(),
            vault: Arc::clone(&deps.vault),
            clock: Arc::clone(&deps.clock),
            chance: Arc::clone(&deps.chance),
        };
        Ok(Some(mailbox::Reader { keeper, maildir: settings.maildir.clone(), imap, every: settings.poll }))
    }

    /// In sandbox mode, follows the offset that somebody may move at any time.
    pub async fn follow_clock(&self, shutdown: CancellationToken) {
        let Some(clock) = &self.moved_clock else { return };
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                () = shutdown.cancelled() => return,
            }
            match law::clock_offset(&self.deps.db).await {
                Ok(moved_by) => clock.set_offset(moved_by),
                Err(error) => tracing::debug!(%error, "the sandbox clock's offset could not be read"),
            }
        }
    }
}

/// The vault, on connections of its own: whoever seals holds one already, and would wait for herself.
async fn vault(
    config: &Config,
    database: &Database,
    db: &PgPool,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> anyhow::Result<Vault> {
    let makes = (database.is_private() || config.sandbox.enabled).then(|| clock.now());
    let kms = key_manager(config, makes, db, chance).await?;
    let own = PgPoolOptions::new()
        .max_connections(2)
        .idle_timeout(Duration::from_secs(60))
        .acquire_timeout(config.database.acquire_timeout)
        .connect_lazy_with(settled(database.app.clone()));
    let span = |span: Duration| TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
    let settings = vault::Settings {
        cached_for: span(config.vault.cache),
        outage_max: span(config.vault.outage_max),
        // A backup begun on the last day takes its time, and so does a look at the calendar.
        backup_horizon: TimeDelta::days(i64::from(config.vault.backup_horizon_days) + 3),
        ..vault::Settings::DEFAULT
    };
    let vault = Vault::new(own, kms, Arc::clone(clock), Arc::clone(chance), settings);
    Ok(match host_pool(config)? {
        Some(host) => vault.reaching(host),
        None => vault,
    })
}

/// Connections to registered columns of the frontend's own, where those are in another database or behind another login.
pub(crate) fn host_pool(config: &Config) -> anyhow::Result<Option<PgPool>> {
    let Some(url) = &config.vault.host_url else { return Ok(None) };
    let host = parse(url).context("`vault.host_url` cannot be read: write postgres://login@host/database")?;
    Ok(Some(
        PgPoolOptions::new()
            .max_connections(2)
            .idle_timeout(Duration::from_secs(60))
            .acquire_timeout(config.database.acquire_timeout)
            .connect_lazy_with(settled(host)),
    ))
}

/// Who holds the root key. `makes`: this installation is one machine's own, and makes it at its first start, now.
pub(crate) async fn key_manager(
    config: &Config,
    makes: Option<DateTime<Utc>>,
    db: &PgPool,
    chance: &Arc<dyn Chance>,
) -> anyhow::Result<Arc<dyn KeyManager>> {
    let present = root_key(config, config.vault.kms, makes, db, chance).await?;
    match config.vault.previous_kms {
        None => Ok(present),
        Some(previous) => {
            let previous = root_key(config, previous, None, db, chance).await?;
            Ok(Arc::new(Succession::new(present, previous)))
        }
    }
}

async fn root_key(
    config: &Config,
    kms: Kms,
    makes: Option<DateTime<Utc>>,
    db: &PgPool,
    chance: &Arc<dyn Chance>,
) -> anyhow::Result<Arc<dyn KeyManager>> {
    if let Some(service) = kms::open(kms, &config.vault, chance)? {
        return Ok(service);
    }
    let path = config.root_key_file();
    if let Some(key) = kms_file::open(&path, Arc::clone(chance))? {
        return Ok(Arc::new(key));
    }
    let asked = match db.acquire().await {
        Ok(mut conn) => vault::holds_keys(&mut conn).await.ok(),
        Err(_) => None,
    };
    // A database that does not answer or is not migrated is told of elsewhere; no key is made for it.
    if let (Some(now), Some(false)) = (makes, asked) {
        make_root_key(&path, db, &Actor::System, (now, chance)).await?;
        if let Some(key) = kms_file::open(&path, Arc::clone(chance))? {
            return Ok(Arc::new(key));
        }
    }
    Ok(Arc::new(NoKey::at(&path, asked.unwrap_or(false))))
}

/// Makes the root key in `path` and answers its name; nothing when there is one already. It is on record before it is in
/// its place, so that no key is in use that is not; a process that dies in between has recorded one that never was.
///
/// # Errors
/// It cannot be written, or not be recorded; then there is none.
pub(crate) async fn make_root_key(
    path: &Path,
    db: &PgPool,
    by: &Actor,
    (now, chance): (DateTime<Utc>, &Arc<dyn Chance>),
) -> anyhow::Result<Option<String>> {
    let drafted = {
        let (path, chance) = (path.to_owned(), Arc::clone(chance));
        // It may wait for another process that makes one.
        tokio::task::spawn_blocking(move || kms_file::Draft::of(&path, &chance)).await??
    };
    let Some(draft) = drafted else { return Ok(None) };
    let root = draft.describe();
    let recorded = async {
        let mut tx = db.begin().await?;
        vault::record_root(&mut tx, &RootMade { root: &root, by, now }, &**chance).await?;
        anyhow::Ok(tx.commit().await?)
    };
    recorded.await.context("the root key could not be put on record, so none was made")?;
    draft.keep()?;
    Ok(Some(root))
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned())
}
