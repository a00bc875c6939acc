//! Settings: the compiled-in defaults, then `muneem.toml`, then the environment.
//!
//! `worker/config.default.toml` is the list of what exists: a key that is not there is refused, naming the nearest one
//! that is. Secrets come from the environment or from files named by `…_file`; one in the file itself is refused.
//! Every problem is found before the first is told.

mod evidence;
mod mail;
mod reader;
mod vault;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use muneem_jobs::{messaging::QuietHours, outbound::Email, queue::Lane};
use secrecy::SecretString;
use serde::Deserialize;

use reader::{Reader, is_loopback};

pub use evidence::{AnchorMail, AnchorObjects, Evidence, Timestamp};
pub use mail::{Imap, Mail};
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
    "messaging.mail.dkim_key",
    "messaging.mail.webhook_token",
    "messaging.mail.imap.password",
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
    /// `[webhooks]`
    pub webhooks: Webhooks,
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
    /// Templates of the installation's own; `None`: the shipped ones alone.
    #[serde(deserialize_with = "path_unless_empty")]
    pub templates_dir: Option<PathBuf>,
    /// When nothing is sent.
    #[serde(deserialize_with = "quiet_hours")]
    pub quiet_hours: QuietHours,
    /// The Cloud API.
    pub whatsapp: Whatsapp,
    /// The mail server.
    pub mail: Mail,
}

/// The Cloud API.
#[derive(Clone, Debug, Deserialize)]
pub struct Whatsapp {
    /// Where it answers, without a slash at the end.
    pub base_url: String,
    /// `v25.0`
    pub api_version: String,
    /// The app that the token belongs to, where it is named.
    #[serde(deserialize_with = "unless_empty")]
    pub app_id: Option<String>,
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
    /// Handle of the business whose number writes on behalf of the installation itself.
    #[serde(deserialize_with = "unless_empty")]
    pub installation_business: Option<String>,
}

/// Webhooks going out.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Webhooks {
    /// An endpoint that has failed for so long is paused.
    #[serde(rename = "pause_after_secs", deserialize_with = "secs")]
    pub pause_after: Duration,
    /// How long events are kept.
    pub keep_days: u16,
    /// Deliveries to one endpoint under way at once.
    pub concurrency: usize,
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
        self.console_origin_at(self.server.listen.port())
    }

    /// As [`Self::console_origin`], for a process that listens on `port`: where `server.listen` names none, the system
    /// chose it.
    pub fn console_origin_at(&self, port: u16) -> String {
        let here = || format!("http://localhost:{port}");
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

fn secs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

fn millis<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn quiet_hours<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<QuietHours, D::Error> {
    let lines = Vec::<String>::deserialize(deserializer)?;
    QuietHours::parse(lines.iter().map(String::as_str)).map_err(serde::de::Error::custom)
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
mod tests;
