//! Reads the layers of the settings one over the other, and finds everything that is wrong with them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use toml::{Table, Value};

use super::{
    Aws, Azure, Config, Console, DEFAULTS, Data, Database, ENVIRONMENT_PREFIX, Evidence, Messaging, Origin, People,
    Problems, Queue, SECRETS, Sandbox, Schedule, Server, Setting, Telemetry, Transit, Vault, Webhooks, Whatsapp,
    base_dir, mail::MailSecrets,
};

/// Collects the three layers and everything that is wrong with them.
pub(super) struct Reader {
    known: Table,
    merged: Table,
    origins: BTreeMap<String, Origin>,
    secrets: BTreeMap<String, SecretString>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    pub(super) fn new() -> Self {
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

    pub(super) fn overlay_file(&mut self, file: &Path) {
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

    pub(super) fn overlay_environment(&mut self, environment: &BTreeMap<String, String>) {
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

    pub(super) fn finish(
        mut self,
        file: Option<PathBuf>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Config, Problems> {
        self.default_data_dir(environment);
        let url = self.secret("database.url");
        let listen_url = self.secret("database.listen_url");
        let host_url = self.secret("vault.host_url");
        let access_token = self.secret("messaging.whatsapp.access_token");
        let app_secrets = self.secret("messaging.whatsapp.app_secrets");
        let verify_token = self.secret("messaging.whatsapp.verify_token");
        let mail_secrets = MailSecrets {
            password: self.secret("messaging.mail.password"),
            dkim_key: self.secret("messaging.mail.dkim_key"),
            webhook_token: self.secret("messaging.mail.webhook_token"),
            imap_password: self.secret("messaging.mail.imap.password"),
        };
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
        let messaging: Option<Messaging> = self
            .section("messaging")
            .map(|messaging: Messaging| Messaging { mail: messaging.mail.with_secrets(mail_secrets), ..messaging });
        let evidence: Option<Evidence> =
            self.section("evidence").map(|evidence: Evidence| evidence.with_secret(objects_key));
        let console: Option<Console> = self.section("console");
        let people: Option<People> = self.section("people");
        let webhooks: Option<Webhooks> = self.section("webhooks");
        let telemetry: Option<Telemetry> = self.section("telemetry");
        let sandbox: Option<Sandbox> = self.section("sandbox");
        self.check_ranges();
        self.problems.extend(messaging.iter().flat_map(|messaging| messaging.mail.problems()));
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
            (messaging, console, people, webhooks),
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
                (Some(messaging), Some(console), Some(people), Some(webhooks)),
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
                    templates_dir: messaging.templates_dir,
                    whatsapp: Whatsapp {
                        base_url: messaging.whatsapp.base_url.trim_end_matches('/').to_owned(),
                        access_token,
                        app_secrets: app_secrets.as_ref().map(split_secrets).unwrap_or_default(),
                        verify_token,
                        ..messaging.whatsapp
                    },
                    ..messaging
                },
                webhooks,
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
            "webhooks.pause_after_secs",
            "webhooks.keep_days",
            "webhooks.concurrency",
            "messaging.mail.command_timeout_secs",
            "messaging.mail.connections",
            "messaging.mail.poll_secs",
            "messaging.mail.imap.port",
            "messaging.mail.imap.timeout_secs",
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
        let app_id = lookup(&self.merged, "messaging.whatsapp.app_id").and_then(Value::as_str).unwrap_or_default();
        if app_id.len() > 32 || !app_id.bytes().all(|byte| byte.is_ascii_digit()) {
            problems.push(
                "`messaging.whatsapp.app_id` must be the digits of an app's id: copy it from the app's dashboard"
                    .to_owned(),
            );
        }
        self.problems.append(&mut problems);
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

pub(super) fn is_loopback(url: &str) -> bool {
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
