//! Settings: the compiled-in defaults, then `muneem.toml`, then the environment.
//!
//! `worker/config.default.toml` is the list of what exists: a key that is not there is refused, naming the nearest one
//! that is. Secrets come from the environment or from files named by `…_file`; one in the file itself is refused.
//! Every problem is found before the first is told.

mod evidence;
mod vault;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use muneem_jobs::{outbound::Email, queue::Lane};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use toml::{Table, Value};

use crate::outbound::mail::Tls;

pub use evidence::{AnchorMail, AnchorObjects, Evidence, Timestamp};
pub use vault::{Aws, Azure, Gcp, Kms, Transit, Vault};

/// The commented list of all settings.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

const ENVIRONMENT_PREFIX: &str = "MUNEEM__";

/// Settings that hold a secret: never in the file. Each may come from a file that the setting `<name>_file` names, or
/// from the environment.
const SECRETS: &[&str] = &[
    "database.url",
    "database.listen_url",
    "vault.host_url",
    "messaging.whatsapp.access_token",
    "messaging.whatsapp.app_secrets",
    "messaging.whatsapp.verify_token",
    "messaging.mail.password",
    "vault.aws.secret_access_key",
    "vault.azure.client_secret",
    "vault.transit.token",
    "evidence.objects.secret_access_key",
];

/// What is in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[data]`
    pub data: Data,
    /// `[queue]`
    pub queue: Queue,
    /// `[vault]`; apart, for it is long and configs are handed on by value.
    pub vault: Box<Vault>,
    /// `[schedule]`
    pub schedule: Schedule,
    /// `[messaging]`
    pub messaging: Messaging,
    /// `[console]`
    pub console: Console,
    /// `[people]`
    pub people: People,
    /// `[evidence]`
    pub evidence: Evidence,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[sandbox]`
    pub sandbox: Sandbox,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// What the operator should look at although it stops nothing.
    pub warnings: Vec<String>,
    settings: Vec<Setting>,
}

/// One setting as `config check` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Setting {
    /// `queue.lease_secs`
    pub key: String,
    /// The value as TOML; a secret is masked.
    pub value: String,
    /// Where it comes from.
    pub from: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The compiled-in list.
    Default,
    /// `muneem.toml`
    File,
    /// `MUNEEM__SECTION__KEY` or `DATABASE_URL`.
    Environment,
}

/// The API and what stands before it.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    /// Address and port.
    pub listen: SocketAddr,
    /// Largest body of a request to the API.
    pub body_limit_bytes: usize,
    /// Largest body of a webhook.
    pub webhook_body_limit_bytes: usize,
    /// Longest a request may take.
    #[serde(rename = "request_timeout_secs", deserialize_with = "secs")]
    pub request_timeout: Duration,
    /// Requests worked on at once.
    pub max_in_flight: usize,
    /// Requests a second that one token may make; twice as many at once.
    pub requests_per_second_per_token: NonZeroU32,
    /// The same for all tokens of one business together.
    pub requests_per_second_per_business: NonZeroU32,
    /// Tokens a minute, and links, that are tried from one address before they are known to open something.
    pub token_guesses_per_minute: NonZeroU32,
    /// Proxies whose request ids, and whose word about the client's address, are believed.
    pub trusted_proxies: Vec<IpAddr>,
}

/// Where the rows are.
#[derive(Clone, Debug, Deserialize)]
pub struct Database {
    /// The frontend's Postgres; `None`: a private one under the data directory.
    #[serde(skip)]
    pub url: Option<SecretString>,
    /// For LISTEN, where it differs from `url`.
    #[serde(skip)]
    pub listen_url: Option<SecretString>,
    /// Most connections this process holds.
    pub pool_size: u32,
    /// Longest wait for a free connection.
    #[serde(rename = "acquire_timeout_secs", deserialize_with = "secs")]
    pub acquire_timeout: Duration,
    /// Most connections the private Postgres allows.
    pub max_connections: u32,
}

/// Where the files are.
#[derive(Clone, Debug, Deserialize)]
pub struct Data {
    /// The data directory, absolute.
    pub dir: PathBuf,
}

/// Workers of this process.
#[derive(Clone, Debug, Deserialize)]
pub struct Queue {
    /// A worker silent for so long is taken for dead.
    #[serde(rename = "lease_secs", deserialize_with = "secs")]
    pub lease: Duration,
    /// Jobs run at once.
    pub concurrency: usize,
    /// Longest pause between two looks.
    #[serde(rename = "poll_millis", deserialize_with = "millis")]
    pub poll: Duration,
    /// Time running jobs are given at shutdown.
    #[serde(rename = "shutdown_secs", deserialize_with = "secs")]
    pub shutdown: Duration,
    /// Places only one lane may take.
    pub reserved: BTreeMap<Lane, usize>,
}

/// Cron ticks of this process.
#[derive(Clone, Debug, Deserialize)]
pub struct Schedule {
    /// Longest pause between two looks.
    #[serde(rename = "poll_secs", deserialize_with = "secs")]
    pub poll: Duration,
}

/// Channels to people.
#[derive(Clone, Debug, Deserialize)]
pub struct Messaging {
    /// The Cloud API.
    pub whatsapp: Whatsapp,
    /// The mail server.
    pub mail: Mail,
}

/// The mail server.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    /// Its name; `None`: no mail is sent.
    #[serde(deserialize_with = "unless_empty")]
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// How the line is protected.
    pub tls: Tls,
    /// Whom to sign in as.
    #[serde(deserialize_with = "unless_empty")]
    pub user: Option<String>,
    /// The password that goes with it.
    #[serde(skip)]
    pub password: Option<SecretString>,
    /// Whom mail comes from.
    #[serde(deserialize_with = "email_unless_empty")]
    pub from: Option<Email>,
    /// The name beside it.
    pub from_name: String,
    /// Longest a conversation may take.
    #[serde(rename = "timeout_secs", deserialize_with = "secs")]
    pub timeout: Duration,
}

/// The Cloud API.
#[derive(Clone, Debug, Deserialize)]
pub struct Whatsapp {
    /// Where it answers, without a slash at the end.
    pub base_url: String,
    /// `v25.0`
    pub api_version: String,
    /// Of the system user.
    #[serde(skip)]
    pub access_token: Option<SecretString>,
    /// They sign webhooks; two while one replaces the other.
    #[serde(skip)]
    pub app_secrets: Vec<SecretString>,
    /// Shown by Meta when it verifies the webhook address.
    #[serde(skip)]
    pub verify_token: Option<SecretString>,
    /// Longest wait for a connection.
    #[serde(rename = "connect_timeout_secs", deserialize_with = "secs")]
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    #[serde(rename = "request_timeout_secs", deserialize_with = "secs")]
    pub request_timeout: Duration,
    /// How long a webhook may clear up an unknown outcome.
    #[serde(rename = "reconcile_window_secs", deserialize_with = "secs")]
    pub reconcile_window: Duration,
}

/// Pages for staff.
#[derive(Clone, Debug, Deserialize)]
pub struct Console {
    /// What stands in the address bar before the path; `None`: this machine's own.
    #[serde(deserialize_with = "unless_empty")]
    pub origin: Option<String>,
    /// Header in which a trusted proxy names the client's country; `None`: not looked at.
    #[serde(deserialize_with = "unless_empty")]
    pub country_header: Option<String>,
}

/// Who works here.
#[derive(Clone, Debug, Deserialize)]
pub struct People {
    /// List of breached passwords; `None`: the short one that is compiled in.
    #[serde(deserialize_with = "path_unless_empty")]
    pub breached_passwords_file: Option<PathBuf>,
}

/// Logs, metrics, traces.
#[derive(Clone, Debug, Deserialize)]
pub struct Telemetry {
    /// Shape of log lines.
    pub format: LogFormat,
    /// Directives of what is logged.
    pub filter: String,
    /// Collector for traces; `None`: off.
    #[serde(deserialize_with = "unless_empty")]
    pub otlp_endpoint: Option<String>,
    /// Where a process without the API shows health and metrics; `None`: nowhere.
    #[serde(deserialize_with = "address_unless_empty")]
    pub listen: Option<SocketAddr>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines, one object a line.
    Json,
}

/// Whether anything is real.
#[derive(Clone, Debug, Deserialize)]
pub struct Sandbox {
    /// The clock may be moved from outside.
    pub enabled: bool,
}

/// Everything that is wrong with the settings, found in one go.
#[derive(Debug)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// Reads the file and the environment of this process.
    ///
    /// # Errors
    /// All problems: unknown keys, wrong types, values out of range, secrets where they do not belong.
    pub fn load(file: Option<&Path>) -> Result<Self, Problems> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let file = match file {
            Some(file) => Some(file.to_owned()),
            None => usual_files(&environment).into_iter().find(|file| file.exists()),
        };
        Self::read(file, &environment)
    }

    /// The settings that `file` and `environment` make.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(file: Option<PathBuf>, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut reader = Reader::new();
        if let Some(file) = &file {
            reader.overlay_file(file);
        }
        reader.overlay_environment(environment);
        reader.finish(file, environment)
    }

    /// Where the root key of `kms = "file"` lies.
    pub fn root_key_file(&self) -> PathBuf {
        self.vault.key_file.clone().unwrap_or_else(|| self.data.dir.join("root.key"))
    }

    /// What stands in the address bar of a browser that shows the console, before the path.
    pub fn console_origin(&self) -> String {
        let here = || format!("http://localhost:{}", self.server.listen.port());
        self.console.origin.clone().map_or_else(here, |origin| origin.trim_end_matches('/').to_ascii_lowercase())
    }

    /// Every setting in force, secrets masked, in the order of their names.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

fn usual_files(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let home = |name: &str, below_home: &str| base_dir(environment, name, below_home);
    let mut files = vec![PathBuf::from("muneem.toml")];
    files.extend(home("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("muneem/muneem.toml")));
    files
}

/// A directory of the XDG base directory specification: the variable if it is an absolute path, else below `$HOME`.
fn base_dir(environment: &BTreeMap<String, String>, name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    absolute(name).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

/// Collects the three layers and everything that is wrong with them.
struct Reader {
    known: Table,
    merged: Table,
    origins: BTreeMap<String, Origin>,
    secrets: BTreeMap<String, SecretString>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    fn new() -> Self {
        let known: Table = DEFAULTS.parse().expect("the compiled-in defaults are valid TOML, a test says so");
        Self {
            merged: known.clone(),
            known,
            origins: BTreeMap::new(),
            secrets: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn overlay_file(&mut self, file: &Path) {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                return self.problems.push(format!("{}: {error}: name a file that can be read", file.display()));
            }
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            // The message alone: the excerpt that goes with it could show a secret.
            Err(error) => {
                let error: toml::de::Error = error;
                let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
                return self.problems.push(format!("{} line {line}: {}", file.display(), error.message()));
            }
        };
        self.overlay_table("", &table);
    }

    fn overlay_table(&mut self, prefix: &str, table: &Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (lookup(&self.known, &key), value) {
                (_, Value::String(text)) if self.is_secret_in_clear(&key, text) => self.refuse_secret(&key),
                (_, Value::Array(_)) if is_secret(&key) => self.refuse_secret(&key),
                (Some(Value::Table(_)), Value::Table(inner)) => self.overlay_table(&key, inner),
                (Some(Value::Table(_)), _) => {
                    self.problems.push(format!("`{key}` is a section: write [{key}] above its settings"));
                }
                (Some(known), value) if known.same_type(value) => self.set(&key, value.clone(), Origin::File),
                (Some(known), value) => self.problems.push(format!(
                    "`{key}` must be {}, not {}",
                    type_for_people(known),
                    type_for_people(value)
                )),
                (None, _) => self.unknown(&key, &key),
            }
        }
    }

    fn is_secret_in_clear(&self, key: &str, text: &str) -> bool {
        match key {
            "database.url" | "database.listen_url" | "vault.host_url" => has_password(text),
            _ => is_secret(key),
        }
    }

    fn refuse_secret(&mut self, key: &str) {
        let variable = variable_of(key);
        self.problems.push(format!(
            "`{key}` is a secret and does not belong into a file of settings: set `{key}_file` to a file that only \
             muneem can read, or {variable} in the environment"
        ));
    }

    fn overlay_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, text) in environment {
            let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            if is_secret(&key) {
                self.origins.insert(key.clone(), Origin::Environment);
                self.secrets.insert(key, text.clone().into());
                continue;
            }
            match lookup(&self.known, &key).cloned() {
                None => self.unknown(&key, variable),
                Some(Value::Table(_)) => {
                    self.problems.push(format!("{variable} names a section: add __ and one of its settings"));
                }
                Some(known) => match parse_like(&known, text) {
                    Some(value) => self.set(&key, value, Origin::Environment),
                    None => self.problems.push(format!("{variable} must be {}", type_for_people(&known))),
                },
            }
        }
        if let Some(url) = environment.get("DATABASE_URL").filter(|url| !url.is_empty()) {
            self.origins.insert("database.url".to_owned(), Origin::Environment);
            self.secrets.insert("database.url".to_owned(), url.clone().into());
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.merged;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            table = table[part].as_table_mut().expect("the key was looked up in the same shape");
        }
        table.insert(name.to_owned(), value);
        self.origins.insert(key.to_owned(), origin);
    }

    fn unknown(&mut self, key: &str, shown: &str) {
        let nearest = all_keys(&self.known)
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(&known, key), known))
            .min()
            .filter(|(distance, _)| *distance <= 2 + key.len() / 3);
        self.problems.push(match nearest {
            Some((_, known)) => format!("there is no setting `{shown}`: the nearest is `{known}`"),
            None => format!("there is no setting `{shown}`: see `muneem config default` for all of them"),
        });
    }

    /// The secret itself, from the environment, else from the file that `<key>_file` names, else in the open where
    /// that is allowed (a URL without a password).
    fn secret(&mut self, key: &str) -> Option<SecretString> {
        if let Some(secret) = self.secrets.get(key) {
            return Some(secret.clone()).filter(|secret| !secret.expose_secret().trim().is_empty());
        }
        let text = |key: &str| lookup(&self.merged, key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (open, file) = (text(key), text(&format!("{key}_file")));
        if !file.is_empty() {
            return self.secret_from(key, Path::new(&file));
        }
        (!open.is_empty()).then(|| open.into())
    }

    fn secret_from(&mut self, key: &str, file: &Path) -> Option<SecretString> {
        let shown = file.display();
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.mode() & 0o077 != 0 => {
                self.warnings.push(format!("`{key}_file`: others can read {shown}: run `chmod 600 {shown}`"));
            }
            _ => {}
        }
        match std::fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned().into()),
            Ok(_) => {
                self.problems.push(format!("`{key}_file`: {shown} is empty: put the secret into it"));
                None
            }
            Err(error) => {
                self.problems.push(format!("`{key}_file`: {shown}: {error}: name a file that can be read"));
                None
            }
        }
    }

    fn finish(mut self, file: Option<PathBuf>, environment: &BTreeMap<String, String>) -> Result<Config, Problems> {
        self.default_data_dir(environment);
        let url = self.secret("database.url");
        let listen_url = self.secret("database.listen_url");
        let host_url = self.secret("vault.host_url");
        let access_token = self.secret("messaging.whatsapp.access_token");
        let app_secrets = self.secret("messaging.whatsapp.app_secrets");
        let verify_token = self.secret("messaging.whatsapp.verify_token");
        let mail_password = self.secret("messaging.mail.password");
        let aws_secret = self.secret("vault.aws.secret_access_key");
        let azure_secret = self.secret("vault.azure.client_secret");
        // From a file it is read at each question, which an agent may have written anew.
        let transit_token = self.secrets.get("vault.transit.token").cloned();
        let objects_key = self.secret("evidence.objects.secret_access_key");

        let server: Option<Server> = self.section("server");
        let database: Option<Database> = self.section("database");
        let data: Option<Data> = self.section("data");
        let queue: Option<Queue> = self.section("queue");
        let vault: Option<Vault> = self.section("vault").map(|vault: Vault| Vault {
            aws: Aws { secret_access_key: aws_secret, ..vault.aws },
            azure: Azure { client_secret: azure_secret, ..vault.azure },
            transit: Transit { token: transit_token, ..vault.transit },
            ..vault
        });
        let schedule: Option<Schedule> = self.section("schedule");
        let messaging: Option<Messaging> = self.section("messaging");
        let evidence: Option<Evidence> =
            self.section("evidence").map(|evidence: Evidence| evidence.with_secret(objects_key));
        let console: Option<Console> = self.section("console");
        let people: Option<People> = self.section("people");
        let telemetry: Option<Telemetry> = self.section("telemetry");
        let sandbox: Option<Sandbox> = self.section("sandbox");
        self.check_ranges();
        if let Some(messaging) = &messaging {
            self.check_mail(&messaging.mail, mail_password.is_some());
        }
        if let Some(queue) = &queue {
            self.check_lanes(queue);
        }
        self.problems.extend(vault.iter().flat_map(Vault::problems));
        if let (Some(evidence), Some(messaging)) = (&evidence, &messaging) {
            self.problems.extend(evidence.problems(messaging.mail.host.is_some()));
        }
        if let (Some(console), Some(server)) = (&console, &server) {
            self.check_console(console, server);
        }
        for (key, url) in [("database.url", &url), ("database.listen_url", &listen_url), ("vault.host_url", &host_url)]
        {
            if url.as_ref().is_some_and(|url| !url.expose_secret().starts_with("postgres")) {
                self.problems.push(format!("`{key}` must look like postgres://user@host/database"));
            }
        }
        let settings = self.settings();

        match (
            server,
            database,
            data,
            queue,
            vault,
            schedule,
            (messaging, console, people),
            evidence,
            telemetry,
            sandbox,
        ) {
            (
                Some(server),
                Some(database),
                Some(data),
                Some(queue),
                Some(vault),
                Some(schedule),
                (Some(messaging), Some(console), Some(people)),
                Some(evidence),
                Some(telemetry),
                Some(sandbox),
            ) if self.problems.is_empty() => Ok(Config {
                server,
                database: Database { url, listen_url, ..database },
                data,
                queue,
                vault: Box::new(Vault { host_url, ..vault }),
                schedule,
                messaging: Messaging {
                    whatsapp: Whatsapp {
                        base_url: messaging.whatsapp.base_url.trim_end_matches('/').to_owned(),
                        access_token,
                        app_secrets: app_secrets.as_ref().map(split_secrets).unwrap_or_default(),
                        verify_token,
                        ..messaging.whatsapp
                    },
                    mail: Mail { password: mail_password, ..messaging.mail },
                },
                console,
                people,
                evidence,
                telemetry,
                sandbox,
                file,
                warnings: self.warnings,
                settings,
            }),
            _ => Err(Problems(self.problems)),
        }
    }

    fn default_data_dir(&mut self, environment: &BTreeMap<String, String>) {
        let dir = lookup(&self.merged, "data.dir").and_then(Value::as_str).unwrap_or_default().to_owned();
        let dir = if dir.is_empty() {
            base_dir(environment, "XDG_DATA_HOME", ".local/share").map(|base| base.join("muneem"))
        } else {
            std::path::absolute(&dir).ok()
        };
        match dir {
            Some(dir) => {
                let origin = self.origins.get("data.dir").copied().unwrap_or(Origin::Default);
                self.set("data.dir", Value::String(dir.to_string_lossy().into_owned()), origin);
            }
            None => self.problems.push("`data.dir` is not set and there is no HOME: set it to a directory".to_owned()),
        }
    }

    fn section<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.merged.get(name).cloned().unwrap_or_else(|| Value::Table(Table::new()));
        match serde_path_to_error::deserialize(value) {
            Ok(section) => Some(section),
            Err(error) => {
                let key = format!("{name}.{}", error.path());
                self.problems.push(format!("`{key}`: {}", error.inner().message()));
                None
            }
        }
    }

    fn check_ranges(&mut self) {
        const AT_LEAST_ONE: &[&str] = &[
            "server.body_limit_bytes",
            "server.webhook_body_limit_bytes",
            "server.request_timeout_secs",
            "server.max_in_flight",
            "database.acquire_timeout_secs",
            "queue.lease_secs",
            "queue.concurrency",
            "queue.poll_millis",
            "schedule.poll_secs",
            "vault.cache_secs",
            "vault.outage_max_secs",
            "vault.kms_timeout_secs",
            "vault.backup_horizon_days",
            "messaging.whatsapp.connect_timeout_secs",
            "messaging.whatsapp.request_timeout_secs",
            "messaging.mail.port",
            "messaging.mail.timeout_secs",
            "evidence.anchor_every_secs",
            "evidence.timestamp.every_secs",
            "evidence.timestamp.timeout_secs",
            "evidence.objects.every_secs",
            "evidence.objects.timeout_secs",
            "evidence.objects.retain_days",
            "evidence.mail.every_secs",
        ];
        let number = |key: &str| lookup(&self.merged, key).and_then(Value::as_integer).unwrap_or(1);
        let mut problems: Vec<String> = AT_LEAST_ONE
            .iter()
            .filter(|key| number(key) < 1)
            .map(|key| format!("`{key}` must be at least 1"))
            .collect();
        if number("database.pool_size") < 4 {
            problems
                .push("`database.pool_size` must be at least 4: workers, heartbeat and the API each hold one".into());
        }
        if number("database.max_connections") < 20 {
            problems.push("`database.max_connections` must be at least 20".to_owned());
        }
        let base_url = lookup(&self.merged, "messaging.whatsapp.base_url").and_then(Value::as_str).unwrap_or_default();
        if !(base_url.starts_with("https://") || is_loopback(base_url)) {
            problems.push(
                "`messaging.whatsapp.base_url` must begin with https:// (plain http is for loopback alone)".to_owned(),
            );
        }
        self.problems.append(&mut problems);
    }

    fn check_mail(&mut self, mail: &Mail, has_password: bool) {
        let Some(host) = &mail.host else { return };
        if mail.from.is_none() {
            self.problems.push("`messaging.mail.from` is not set: name the address that mail comes from".to_owned());
        }
        if mail.tls == Tls::None && !is_loopback(&format!("http://{host}:{}", mail.port)) {
            self.problems.push(
                "`messaging.mail.tls` may be \"none\" for a server on loopback alone: take \"starttls\" or \"implicit\""
                    .to_owned(),
            );
        }
        if mail.user.is_some() != has_password {
            self.problems.push("`messaging.mail.user` and `messaging.mail.password_file` go together".to_owned());
        }
        if mail.from_name.chars().any(char::is_control) {
            self.problems.push("`messaging.mail.from_name` holds a line break or another control character".to_owned());
        }
    }

    fn check_console(&mut self, console: &Console, server: &Server) {
        match &console.origin {
            Some(origin) if !is_origin(origin) => self.problems.push(
                "`console.origin` must look like https://console.example.in, without a path (plain http is for loopback \
                 alone)"
                    .to_owned(),
            ),
            None if !server.listen.ip().is_loopback() => self.warnings.push(
                "`console.origin` is not set: the console can be used on this machine alone; set it to the address that \
                 people type, such as https://console.example.in"
                    .to_owned(),
            ),
            _ => {}
        }
        let is_name = |name: &String| http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !console.country_header.as_ref().is_none_or(is_name) {
            self.problems
                .push("`console.country_header` must be the name of a header, such as CF-IPCountry".to_owned());
        }
    }

    fn check_lanes(&mut self, queue: &Queue) {
        let reserved: usize = queue.reserved.values().sum();
        if reserved > queue.concurrency {
            self.problems.push(format!(
                "`queue.reserved` takes {reserved} places of {}: raise `queue.concurrency` or reserve fewer",
                queue.concurrency
            ));
        }
    }

    fn settings(&self) -> Vec<Setting> {
        let mut keys = all_keys(&self.known);
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .map(|key| {
                let from = self.origins.get(&key).copied().unwrap_or(Origin::Default);
                let value = match lookup(&self.merged, &key) {
                    _ if self.secrets.contains_key(&key) => "********".to_owned(),
                    Some(value) => value.to_string(),
                    None => "\"\"".to_owned(),
                };
                Setting { key, value, from }
            })
            .collect()
    }
}

fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

fn variable_of(key: &str) -> String {
    if key == "database.url" {
        return "DATABASE_URL".to_owned();
    }
    format!("{ENVIRONMENT_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Whether a URL carries a password, in the authority or as a parameter.
fn has_password(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || after_scheme.contains("password=")
}

fn is_loopback(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A scheme, a host and perhaps a port, as browsers write it into `Origin` (RFC 6454).
fn is_origin(text: &str) -> bool {
    let text = text.trim_end_matches('/');
    let Some(authority) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let plain = !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    plain && (text.starts_with("https://") || is_loopback(text))
}

fn split_secrets(text: &SecretString) -> Vec<SecretString> {
    let parts = text.expose_secret().split(['\n', ',']).map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.to_owned().into()).collect()
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

/// Every setting's full name, the secrets that are not in the list included.
fn all_keys(known: &Table) -> Vec<String> {
    fn walk(prefix: &str, table: &Table, keys: &mut Vec<String>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) => walk(&key, inner, keys),
                _ => keys.push(key),
            }
        }
    }
    let mut keys: Vec<String> = SECRETS.iter().map(|&key| key.to_owned()).collect();
    walk("", known, &mut keys);
    keys
}

fn parse_like(known: &Value, text: &str) -> Option<Value> {
    Some(match known {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => Value::Integer(text.trim().replace('_', "").parse().ok()?),
        Value::Float(_) => Value::Float(text.trim().parse().ok()?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().ok()?),
        Value::Array(_) => {
            Value::Array(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect())
        }
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

fn type_for_people(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

fn secs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

fn millis<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn email_unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Email>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { Email::parse(&text).map(Some).map_err(serde::de::Error::custom) }
}

fn path_unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    unless_empty(deserializer).map(|path| path.map(PathBuf::from))
}

fn address_unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("muneem.toml");
        std::fs::write(&path, file).expect("a file");
        let mut variables: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables.insert("HOME".to_owned(), "/home/asha".to_owned());
        Config::read(Some(path), &variables)
    }

    fn problems(file: &str, environment: &[(&str, &str)]) -> String {
        read(file, environment).expect_err("problems").to_string()
    }

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = read("", &[]).expect("the defaults hold");
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8787");
        assert_eq!(config.queue.lease, Duration::from_secs(30));
        assert_eq!(config.data.dir, Path::new("/home/asha/.local/share/muneem"));
        assert_eq!(config.queue.reserved.len(), Lane::ALL.len());
        assert!(config.database.url.is_none());
        assert!(config.telemetry.otlp_endpoint.is_none());
    }

    #[test]
    fn the_consoles_origin_is_an_origin_and_not_in_clear_off_this_machine() {
        let here = read("", &[]).expect("the defaults hold");
        assert_eq!(here.console_origin(), "http://localhost:8787");
        for (origin, written) in [
            ("https://console.example.in", "https://console.example.in"),
            ("https://Console.example.in:8443/", "https://console.example.in:8443"),
            ("http://localhost:9000", "http://localhost:9000"),
        ] {
            let config = read(&format!("[console]\norigin = {origin:?}"), &[]).expect(origin);
            assert_eq!(config.console_origin(), written);
        }
        for origin in
            ["http://console.example.in", "console.example.in", "https://a.example/console", "https://", "https://a b"]
        {
            let told = problems(&format!("[console]\norigin = {origin:?}"), &[]);
            assert!(told.contains("`console.origin` must look like https://"), "{origin}: {told}");
        }
        let told = problems("[console]\ncountry_header = \"CF IPCountry\"", &[]);
        assert!(told.contains("`console.country_header` must be the name of a header"), "{told}");
    }

    #[test]
    fn every_default_has_a_comment_above_it() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            if line.contains(" = ") && !line.starts_with('#') && !Lane::ALL.iter().any(|l| line.starts_with(l.as_str()))
            {
                assert!(commented, "no comment above `{line}`");
            }
            commented = line.starts_with('#');
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[queue]\nlease_secs = 5\npoll_millis = 200\n";
        let config = read(file, &[("MUNEEM__QUEUE__LEASE_SECS", "2")]).expect("valid");
        assert_eq!(config.queue.lease, Duration::from_secs(2));
        assert_eq!(config.queue.poll, Duration::from_millis(200));
        assert_eq!(config.queue.concurrency, 16);
        let from = |key: &str| config.settings().iter().find(|s| s.key == key).expect("listed").from;
        assert_eq!(from("queue.lease_secs"), Origin::Environment);
        assert_eq!(from("queue.poll_millis"), Origin::File);
        assert_eq!(from("queue.concurrency"), Origin::Default);
    }

    #[test]
    fn every_problem_is_told_at_once_with_the_nearest_key() {
        let file = "[server]\nlisten = 8787\n[queue]\nleese_secs = 5\nconcurrency = 0\n[colour]\nwall = \"red\"\n";
        insta::assert_snapshot!(problems(file, &[("MUNEEM__TELEMETRY__FORMAT", "xml"), ("MUNEEM__QUEU__POLL_MILLIS", "1")]), @r"
        there is no setting `colour`: see `muneem config default` for all of them
        there is no setting `queue.leese_secs`: the nearest is `queue.lease_secs`
        `server.listen` must be a text, not a whole number
        there is no setting `MUNEEM__QUEU__POLL_MILLIS`: the nearest is `queue.poll_millis`
        `telemetry.format`: unknown variant `xml`, expected `pretty` or `json`
        `queue.concurrency` must be at least 1
        `queue.reserved` takes 8 places of 0: raise `queue.concurrency` or reserve fewer
        ");
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_repeated() {
        let file = "[database]\nurl = \"postgres://asha:hunter2@db/shop\"\n[messaging.whatsapp]\naccess_token = \"EAAG\"\napp_secrets = [\"s3\"]\n";
        let text = problems(file, &[]);
        insta::assert_snapshot!(text, @r"
        `database.url` is a secret and does not belong into a file of settings: set `database.url_file` to a file that only muneem can read, or DATABASE_URL in the environment
        `messaging.whatsapp.access_token` is a secret and does not belong into a file of settings: set `messaging.whatsapp.access_token_file` to a file that only muneem can read, or MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN in the environment
        `messaging.whatsapp.app_secrets` is a secret and does not belong into a file of settings: set `messaging.whatsapp.app_secrets_file` to a file that only muneem can read, or MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS in the environment
        ");
        for secret in ["hunter2", "EAAG", "s3"] {
            assert!(!text.contains(secret), "{secret} is shown");
        }
    }

    #[test]
    fn secrets_come_from_files_and_the_environment_and_are_masked() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("app-secrets");
        std::fs::write(&path, "first\ncanary-two\n").expect("a file");
        let file = format!("[messaging.whatsapp]\napp_secrets_file = \"{}\"\n", path.display());
        let config = read(
            &file,
            &[
                ("DATABASE_URL", "postgres://asha:hunter2@db/shop"),
                ("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "EAAG"),
            ],
        )
        .expect("valid");
        assert_eq!(config.messaging.whatsapp.app_secrets.len(), 2);
        assert_eq!(config.messaging.whatsapp.access_token.as_ref().expect("set").expose_secret(), "EAAG");
        assert!(config.database.url.is_some());
        assert_eq!(config.warnings.len(), 1, "others can read the file");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("EAAG") && !shown.contains("canary-two"), "{shown}");
        let token = config.settings().iter().find(|s| s.key == "messaging.whatsapp.access_token").expect("listed");
        assert_eq!((token.value.as_str(), token.from), ("********", Origin::Environment));
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_without_its_text() {
        let text = problems("[database]\nurl = \"postgres://asha:hunter2@db\n", &[]);
        assert!(text.contains("muneem.toml line 2"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn mail_is_set_up_whole_and_in_clear_to_loopback_alone() {
        let with = |settings: &[(&str, &str)]| {
            let variables: Vec<(String, &str)> =
                settings.iter().map(|(name, value)| (format!("MUNEEM__MESSAGING__MAIL__{name}"), *value)).collect();
            let borrowed: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            read("", &borrowed).map(|config| config.messaging.mail).map_err(|problems| problems.to_string())
        };
        let mail = with(&[("HOST", "127.0.0.1"), ("TLS", "none"), ("FROM", "till@example.in")]).expect("valid");
        assert_eq!((mail.tls, mail.port), (Tls::None, 587));
        let off = with(&[("HOST", "mx.example.in"), ("TLS", "none"), ("USER", "till")]).expect_err("three problems");
        for key in ["messaging.mail.from", "messaging.mail.tls", "messaging.mail.password_file"] {
            assert!(off.contains(key), "{key}: {off}");
        }
        assert!(with(&[("FROM", "till")]).expect_err("no address").contains("messaging.mail.from"));
        assert!(with(&[("HOST", "mx.example.in"), ("FROM", "till@example.in")]).is_ok());
    }

    #[test]
    fn a_key_service_is_set_up_whole_and_its_secrets_stay_out_of_the_file() {
        let with = |settings: &[(&str, &str)]| {
            let variables: Vec<(String, &str)> =
                settings.iter().map(|(name, value)| (format!("MUNEEM__VAULT__{name}"), *value)).collect();
            let borrowed: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            read("", &borrowed).map(|config| config.vault).map_err(|problems| problems.to_string())
        };
        let arn = "arn:aws:kms:ap-south-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let vault = with(&[("KMS", "aws"), ("AWS__KEY_ID", arn), ("PREVIOUS_KMS", "file")]).expect("valid");
        assert_eq!((vault.kms, vault.previous_kms), (Kms::Aws, Some(Kms::File)));
        assert_eq!(vault.aws.service(vault.kms_timeout).expect("whole").region, "ap-south-1", "from the ARN");
        for (settings, named) in [
            (&[("KMS", "aws")][..], "vault.aws.key_id"),
            (&[("KMS", "aws"), ("AWS__KEY_ID", "alias/muneem")], "vault.aws.region"),
            (
                &[("KMS", "aws"), ("AWS__KEY_ID", arn), ("AWS__ACCESS_KEY_ID", "AKIA")],
                "vault.aws.secret_access_key_file",
            ),
            (&[("KMS", "aws"), ("AWS__KEY_ID", arn), ("AWS__ENDPOINT", "http://kms.example.in")], "vault.aws.endpoint"),
            (&[("KMS", "gcp")], "vault.gcp.key"),
            (&[("KMS", "azure")], "vault.azure.key_url"),
            (&[("KMS", "azure"), ("AZURE__TENANT_ID", "t")], "vault.azure.client_secret_file"),
            (&[("KMS", "azure"), ("AZURE__ALGORITHM", "RSA1_5")], "vault.azure.algorithm"),
            (&[("KMS", "transit"), ("TRANSIT__KEY", "muneem")], "vault.transit.address"),
            (&[("KMS", "transit"), ("TRANSIT__ADDRESS", "http://10.0.0.9:8200")], "vault.transit.token_file"),
            (&[("PREVIOUS_KMS", "file")], "vault.previous_kms"),
            (&[("PREVIOUS_KMS", "gcp")], "vault.gcp.key"),
            (&[("PREVIOUS_KMS", "safe")], "vault.previous_kms"),
        ] {
            let told = with(settings).expect_err(named);
            assert!(told.contains(named), "{named}: {told}");
        }
        let told = problems("[vault.transit]\ntoken = \"s.abc\"\n[vault.aws]\nsecret_access_key = \"wJalr\"\n", &[]);
        assert!(
            told.contains("vault.transit.token_file") && told.contains("vault.aws.secret_access_key_file"),
            "{told}"
        );
        assert!(!told.contains("s.abc") && !told.contains("wJalr"), "{told}");
    }

    #[test]
    fn anchors_are_set_up_whole() {
        use crate::outbound::anchor_objects::Lock;

        let off = problems(
            "[evidence.timestamp]\nurls = [\"ftp://a\"]\n[evidence.objects]\nbucket = \"a/b\"\nendpoint = \
             \"http://s3.example.in\"\n[evidence.mail]\nto = [\"asha@example.in\"]\n",
            &[],
        );
        for key in ["timestamp.urls", "timestamp.roots_file", "mail.to", "access_key_id", "objects.endpoint", "bucket"]
        {
            assert!(off.contains(key), "{key}: {off}");
        }
        assert!(problems("[evidence.mail]\nto = [\"asha\"]\n", &[]).contains("evidence.mail.to"));
        let file =
            "[evidence.objects]\nbucket = \"heads\"\naccess_key_id = \"AK\"\nendpoint = \"http://127.0.0.1:9/\"\n";
        let config = read(file, &[("MUNEEM__EVIDENCE__OBJECTS__SECRET_ACCESS_KEY", "hunter2")]).expect("valid");
        let objects = &config.evidence.objects;
        assert_eq!((objects.endpoint.as_deref(), objects.lock), (Some("http://127.0.0.1:9"), Lock::Compliance));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn plain_http_to_the_carrier_is_for_loopback_alone() {
        let with = |url: &str| problems("", &[("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", url)]);
        assert!(with("http://graph.facebook.com").contains("https"));
        assert!(read("", &[("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", "http://127.0.0.1:9000/")]).is_ok());
    }
}
