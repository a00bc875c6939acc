use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use chrono::TimeDelta;
use muneem_jobs::{
    messaging::{
        template::{self, Library, Problem, Problems, Standing},
        wishes,
    },
    outbound::{Chance, Clock, KmsError},
    people, queue, schema,
    vault::{Look, look_at_columns},
    webhooks,
};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use tokio::net::TcpListener;

use super::output;
use crate::{
    app::{self, Database},
    config::{self, Config, Kms},
    evidence::anchors::outside_kinds,
    outbound::{chance::OsChance, clock::SystemClock, http::probe},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// Leases and due times stay right up to here.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(2);
const FREE_MIN_BYTES: u64 = 2 << 30;
/// Templates that a line names.
const NAMED: usize = 4;

/// Looks at settings, database, disk, address, carrier and queue, and says what to mend
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muneem doctor      status 0: nothing failed; warnings are for you to weigh")]
pub(super) struct Args {
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    outcome: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check { check, outcome: Outcome::Ok, found: found.into(), mend: None }
}

fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
    Check { check, outcome: Outcome::Warn, found: found.into(), mend: Some(mend.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
    Check { outcome: Outcome::Fail, ..warn(check, found, mend) }
}

/// A failure whose text says the mend after its first colon, as errors of ours do.
fn failed(check: &'static str, error: impl std::fmt::Display) -> Check {
    let text = error.to_string().replace('\n', " ");
    match text.split_once(": ") {
        Some((found, mend)) => fail(check, found, mend),
        None => Check { mend: None, ..fail(check, text, "") },
    }
}

/// Prints each check as it is done.
struct Report {
    json: bool,
    failed: bool,
}

impl Report {
    fn tell(&mut self, checks: impl IntoIterator<Item = Check>) -> anyhow::Result<()> {
        for check in checks {
            self.failed |= check.outcome == Outcome::Fail;
            if self.json {
                output::json_line(&check)?;
            } else {
                output::text(&in_words(&check))?;
            }
        }
        Ok(())
    }

    fn code(&self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn in_words(check: &Check) -> String {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
    };
    let mend = check.mend.as_ref().map(|mend| format!(": {mend}")).unwrap_or_default();
    format!("{outcome:<4}  {:<14}  {}{mend}\n", check.check, check.found)
}

pub(super) async fn run(args: &Args, config: Result<Config, config::Problems>) -> anyhow::Result<ExitCode> {
    let mut report = Report { json: args.json, failed: false };
    let config = match config {
        Ok(config) => config,
        Err(config::Problems(problems)) => {
            report.tell(problems.iter().map(|problem| failed("settings", problem)))?;
            return Ok(report.code());
        }
    };
    report.tell(settings(&config))?;
    report.tell(disk(&config.data.dir))?;
    report.tell(templates(config.messaging.templates_dir.as_deref()))?;
    // The private Postgres runs as long as this value lives.
    let (_database, checks) = database(&config).await;
    report.tell(checks)?;
    report.tell([address(config.server.listen).await, cloud_api(&config).await])?;
    Ok(report.code())
}

fn settings(config: &Config) -> Vec<Check> {
    let (mut files, mut open) = (0, Vec::new());
    for setting in config.settings().iter().filter(|setting| setting.key.ends_with("_file")) {
        let path = setting.value.trim_matches(['"', '\'']);
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        files += 1;
        if metadata.mode() & 0o077 != 0 {
            open.push((format!("`{}`", setting.key), path.to_owned()));
        }
    }
    let source = config.file.as_ref().map_or_else(
        || "the defaults and the environment".to_owned(),
        |file| format!("{} and the environment", file.display()),
    );
    let mut checks = vec![ok("settings", source)];
    // Of the secret files the next check tells.
    let others = config.warnings.iter().filter(|warning| !open.iter().any(|(key, _)| warning.starts_with(key)));
    checks.extend(others.map(|warning| Check { outcome: Outcome::Warn, ..failed("settings", warning) }));
    checks.extend(open.iter().map(|(key, path)| {
        warn("secret files", format!("others can read {path} ({key})"), format!("chmod 600 {path}"))
    }));
    if open.is_empty() {
        let found = match files {
            0 => "none".to_owned(),
            files => format!("{files}, closed to others"),
        };
        checks.push(ok("secret files", found));
    }
    checks
}

fn disk(dir: &Path) -> Vec<Check> {
    let shown = dir.display();
    let writable = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir));
    if let Err(error) = writable {
        let mend = "make it writable for this user, or set `data.dir` to another";
        return vec![fail("data directory", format!("{shown} cannot be written to ({})", error.kind()), mend)];
    }
    let free = match rustix::fs::statvfs(dir) {
        Ok(room) => room.f_bavail.saturating_mul(room.f_frsize),
        Err(error) => return vec![ok("data directory", shown.to_string()), failed("free disk", error)],
    };
    #[expect(clippy::cast_precision_loss, reason = "a tenth of a GiB is enough to know")]
    let found = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    let room = if free < FREE_MIN_BYTES {
        warn("free disk", found, "make room: Postgres stops when none is left")
    } else {
        ok("free disk", found)
    };
    vec![ok("data directory", shown.to_string()), room]
}

/// The words of messages: those that muneem ships, the installation's own, and the words to stop.
fn templates(own: Option<&Path>) -> Vec<Check> {
    let library = match Library::load(own) {
        Ok(library) => library,
        // Each says its file, its line and the mend.
        Err(Problems(problems)) => {
            return problems
                .iter()
                .map(|problem| Check { mend: None, ..fail("templates", one_line(problem), "") })
                .collect();
        }
    };
    if let Err(Problems(problems)) = wishes::words::check() {
        return problems
            .iter()
            .map(|problem| Check { mend: None, ..fail("templates", one_line(problem), "") })
            .collect();
    }
    let (all, yours) = (library.iter().count(), library.iter().filter(|(.., entry)| entry.own).count());
    let from = own.map(|dir| format!(", {yours} of them from {}", dir.display())).unwrap_or_default();
    vec![ok("templates", format!("{all} are well formed{from}"))]
}

fn one_line(problem: &Problem) -> String {
    problem.to_string().replace('\n', " ")
}

/// How the templates stand with each account, as it was last heard; nothing where no business has an account.
async fn approvals(config: &Config, db: &PgPool) -> anyhow::Result<Vec<Check>> {
    // A fault in them was told above.
    let Ok(library) = Library::load(config.messaging.templates_dir.as_deref()) else { return Ok(Vec::new()) };
    let mut conn = db.acquire().await?;
    let standings = template::standings(&mut conn, &library).await?;
    let handles = people::list_businesses(&mut conn).await?;
    Ok(standings
        .iter()
        .map(|standing| {
            let known = handles.iter().find(|known| known.business_id == standing.business);
            let whose = known.map_or("a business", |known| known.handle.as_str());
            approval(&format!("account {} of {whose}", standing.waba_id), standing)
        })
        .collect())
}

fn approval(account: &str, standing: &Standing) -> Check {
    let (refused, unknown) = (standing.not_approved.len(), standing.unknown.len());
    if refused + unknown == 0 {
        return ok("templates", format!("{account}: all {} approved", standing.approved));
    }
    let refused_are = standing
        .not_approved
        .iter()
        .map(|(folder, language, status)| format!("{folder} {} {status}", language.as_str()));
    let unknown_are = standing.unknown.iter().map(|(folder, language)| format!("{folder} {}", language.as_str()));
    let mut parts = Vec::new();
    if refused > 0 {
        parts.push(format!("{refused} not approved ({})", first_of(refused_are)));
    }
    if unknown > 0 {
        let word = if standing.pulled_at.is_some() { "unknown there" } else { "never asked for" };
        parts.push(format!("{unknown} {word} ({})", first_of(unknown_are)));
    }
    let found = format!("{account}: {} approved, {}", standing.approved, parts.join(", "));
    warn("templates", found, "`muneem messaging templates pull` asks the carrier, `push` submits what it has not")
}

/// The first few, and that there are more.
fn first_of(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    names.take(NAMED).collect::<Vec<_>>().join(", ") + more
}

/// The database and what can be asked of it, as far as it answers.
async fn database(config: &Config) -> (Option<Database>, Vec<Check>) {
    let opened = match Database::open(config, None) {
        Ok(database) => database,
        Err(error) => return (None, vec![failed("database", super::chain(&error))]),
    };
    let mut checks = Vec::new();
    if let Err(error) = ask(config, &opened, &mut checks).await {
        checks.push(failed("database", super::chain(&error)));
    }
    (Some(opened), checks)
}

async fn ask(config: &Config, database: &Database, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    if database.is_private() {
        // As every command does: nobody else would bring it up to date.
        database.migrate().await?;
    }
    let db = match app::pool(database.app.clone(), 3, config.database.acquire_timeout.min(PATIENCE)).await {
        Ok(db) => db,
        Err(error) => {
            let found = format!("does not answer ({})", error.root_cause());
            checks.push(fail("database", found, "check DATABASE_URL and that Postgres runs"));
            return Ok(());
        }
    };
    let mut conn = db.acquire().await.context("no connection became free")?;
    checks.extend(server(&mut conn, database.is_private()).await?);
    let standing = schema::check(&db, config.sandbox.enabled).await;
    let can_ask = matches!(standing, Ok(()) | Err(schema::Error::TooPowerful { .. }));
    checks.push(match standing {
        Ok(()) => ok("schema", "up to date, and the login may serve and no more"),
        Err(error) => failed("schema", super::chain(&error.into())),
    });
    if can_ask {
        let makes_key = database.is_private() || config.sandbox.enabled;
        checks.push(vault(config, &db, makes_key).await?);
        checks.extend(columns(config, &db).await?);
        checks.extend(evidence(config, &db).await?);
        checks.extend(work(&db).await?);
        checks.extend(approvals(config, &db).await?);
        checks.extend(receivers(&db).await?);
    }
    Ok(())
}

/// Whether the evidence holds, and whether what proves it lies elsewhere.
async fn evidence(config: &Config, db: &PgPool) -> anyhow::Result<Vec<Check>> {
    let mut conn = db.acquire().await?;
    let standing = muneem_jobs::evidence::load_standing(&mut conn).await?;
    let mut checks = vec![match standing.forked {
        Some(found) => {
            fail("evidence", found, "see docs/security.md, Forked log; nothing is signed until somebody looks")
        }
        None => ok("evidence", format!("{} events sealed", standing.size)),
    }];
    let kinds = outside_kinds(config);
    let named = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    checks.push(match kinds.len() {
        0 | 1 => warn(
            "anchors",
            if named.is_empty() { "none outside".to_owned() } else { format!("{named} alone") },
            "set two of `evidence.anchor_dir`, [evidence.objects], [evidence.timestamp] and [evidence.mail]: what lies \
             beside the database proves nothing to others",
        ),
        _ => ok("anchors", named),
    });
    let silent = SystemClock.now() - TimeDelta::minutes(5);
    for state in muneem_jobs::evidence::list_anchor_states(&mut conn).await? {
        if let (Some(since), Some(problem)) = (state.failing_since, state.problem.filter(|_| silent <= state.seen_at)) {
            let found = format!("{} fails since {}", state.name, since.to_rfc3339());
            checks.push(warn("anchors", found, problem.replace('\n', " ")));
        }
    }
    Ok(checks)
}

async fn server(conn: &mut PgConnection, is_private: bool) -> anyhow::Result<Vec<Check>> {
    let before = SystemClock.now();
    let server = match schema::ask_server(conn).await {
        Ok(server) => server,
        Err(error @ schema::Error::TooOld(_)) => return Ok(vec![failed("database", error)]),
        Err(error) => return Err(error.into()),
    };
    let after = SystemClock.now();
    // Packagers add words of their own behind the number.
    let version = server.version.split(' ').next().unwrap_or_default();
    let found = if is_private { format!("Postgres {version}, private") } else { format!("Postgres {version}") };
    // Somewhere between question and answer.
    let skew = (server.now - after).max(TimeDelta::zero()) + (before - server.now).max(TimeDelta::zero());
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let secs = skew.num_milliseconds() as f64 / 1000.0;
    let clock = if skew > SKEW_MAX {
        warn("clock", format!("{secs:.1} s off the database's"), "set the clocks of both machines by NTP")
    } else {
        ok("clock", "agrees with the database's")
    };
    Ok(vec![ok("database", found), clock])
}

/// Who holds the root key, and whether he answers. `makes_key`: `serve` makes it here at its first start.
async fn vault(config: &Config, db: &PgPool, makes_key: bool) -> anyhow::Result<Check> {
    let chance: Arc<dyn Chance> = Arc::new(OsChance);
    let kms = app::key_manager(config, None, db, &chance).await?;
    let is_new = makes_key && !muneem_jobs::vault::holds_keys(&mut *db.acquire().await?).await?;
    Ok(match kms.health().await {
        Ok(()) => {
            let note = if config.vault.kms.is_experimental() { " (experimental)" } else { "" };
            ok("vault", format!("root key {} wraps and unwraps{note}", kms.describe()))
        }
        Err(KmsError::Refused(_)) if is_new => {
            warn("vault", "no root key yet", "start `muneem serve`, which makes one, and back it up")
        }
        // A file that is not there says so itself.
        Err(KmsError::Refused(why)) if config.vault.kms == Kms::File => failed("vault", why),
        Err(error) => fail("vault", error.to_string(), mend_of(&error)),
    })
}

/// Columns that frontends registered, as they are now; nothing where there are none.
async fn columns(config: &Config, db: &PgPool) -> anyhow::Result<Vec<Check>> {
    let host = app::host_pool(config)?;
    let mut conn = db.acquire().await?;
    let now = SystemClock.now();
    let seen = look_at_columns(&mut conn, host.as_ref().unwrap_or(db), Look::Shape, now).await?;
    let mut checks: Vec<Check> = seen
        .iter()
        .filter_map(|column| column.finding.as_ref())
        // The finding says the mend itself.
        .map(|finding| Check { mend: None, ..fail("columns", finding, "") })
        .collect();
    if checks.is_empty() && !seen.is_empty() {
        checks.push(ok("columns", format!("{} registered, as they were", seen.len())));
    }
    Ok(checks)
}

/// What an operator does about it.
fn mend_of(error: &KmsError) -> &'static str {
    match error {
        KmsError::Unavailable(_) => "check `[vault]` in the settings, and the way from this machine to the service",
        KmsError::Throttled(_) => "try again; if it stays so, ask the provider for a higher quota",
        KmsError::Refused(_) => "let these credentials encrypt and decrypt with this key, in the key's policy",
        KmsError::KeyGone(_) => "enable the key, or take back its deletion; check its name in `[vault]`",
        KmsError::NotOurs => "what it wraps does not unwrap: take a symmetric key that is for encryption",
    }
}

async fn work(db: &PgPool) -> anyhow::Result<Vec<Check>> {
    let mut conn = db.acquire().await?;
    let health = queue::health(&mut conn).await?;
    let schedules = super::schedule::all(&mut conn, SystemClock.now()).await?;
    let silent = match health.silent {
        0 => String::new(),
        silent => format!(", {silent} gone silent whose jobs are taken over"),
    };
    let mut checks = vec![
        match health.beating {
            0 => warn("workers", format!("none is at work{silent}"), "start `muneem serve`"),
            beating => ok("workers", format!("{beating} at work{silent}")),
        },
        match health.dead {
            0 => ok("dead jobs", "none"),
            dead => warn(
                "dead jobs",
                format!("{dead} given up"),
                "see `muneem jobs list --state dead`, mend the cause, then `muneem jobs retry`",
            ),
        },
    ];
    let faults = schedules.iter().filter_map(|listed| Some((&listed.entry.name, listed.entry.fault.as_ref()?)));
    let faulty: Vec<Check> = faults
        .map(|(name, fault)| warn("schedules", format!("{name} makes no job"), fault.replace('\n', " ")))
        .collect();
    if faulty.is_empty() {
        checks.push(ok("schedules", format!("{}, none with a fault", schedules.len())));
    }
    checks.extend(faulty);
    Ok(checks)
}

/// How receivers of webhooks answer; nothing where there are none.
async fn receivers(db: &PgPool) -> anyhow::Result<Option<Check>> {
    let health = webhooks::health(&mut *db.acquire().await?).await?;
    if health.endpoints == 0 {
        return Ok(None);
    }
    let bad = health.failing + health.paused + health.given_up;
    if bad == 0 {
        return Ok(Some(ok("webhooks", format!("{} endpoints, none failing", health.endpoints))));
    }
    let since =
        health.failing_since.map(|since| format!(", the first since {}", since.to_rfc3339())).unwrap_or_default();
    let found = format!(
        "of {} endpoints {} fail, {} are paused and {} disabled themselves{since}",
        health.endpoints, health.failing, health.paused, health.given_up
    );
    Ok(Some(warn("webhooks", found, "see `muneem webhooks list`, mend the receiver, then `muneem webhooks test ID`")))
}

async fn address(listen: SocketAddr) -> Check {
    match TcpListener::bind(listen).await {
        Ok(_) => return ok("address", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => {
            let found = format!("cannot listen on {listen} ({})", error.kind());
            return fail("address", found, "set `server.listen` to an address of this machine");
        }
    }
    let near = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let url = format!("http://{}/health/live", SocketAddr::new(near, listen.port()));
    match probe(&url, PATIENCE).await {
        Ok((200, text)) if text == r#"{"live":true}"# => ok("address", format!("a muneem answers on {listen}")),
        _ => fail("address", format!("{listen} is taken by another program"), "set `server.listen` to a free one"),
    }
}

async fn cloud_api(config: &Config) -> Check {
    let settings = &config.messaging.whatsapp;
    if settings.access_token.is_none() || settings.app_secrets.is_empty() || settings.verify_token.is_none() {
        return warn(
            "cloud api",
            "not configured, messages wait",
            "set access_token_file, app_secrets_file and verify_token_file in [messaging.whatsapp]",
        );
    }
    let base_url = &settings.base_url;
    match probe(base_url, settings.connect_timeout.min(PATIENCE)).await {
        Ok(_) => ok("cloud api", format!("{base_url} answers")),
        Err(_) => {
            let mend = "check the way out of this machine, and `messaging.whatsapp.base_url`";
            warn("cloud api", format!("{base_url} does not answer"), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use muneem_jobs::{messaging::Language, people::BusinessId};

    use super::*;

    #[test]
    fn what_could_not_be_sent_is_named_and_no_more_than_a_few() {
        let mut standing = Standing {
            business: BusinessId(uuid::Uuid::nil()),
            waba_id: "102".to_owned(),
            pulled_at: None,
            approved: 20,
            not_approved: Vec::new(),
            unknown: Vec::new(),
        };
        let told = |standing: &Standing| in_words(&approval("account 102 of sharma-mobiles", standing));
        assert_eq!(told(&standing), "ok    templates       account 102 of sharma-mobiles: all 20 approved\n");
        standing.not_approved = vec![("breach_notice".to_owned(), Language::En, "REJECTED".to_owned())];
        standing.unknown = (0..=NAMED).map(|n| (format!("words_{n}"), Language::Hi)).collect();
        assert_eq!(
            told(&standing),
            "warn  templates       account 102 of sharma-mobiles: 20 approved, 1 not approved (breach_notice en REJECTED), \
             5 never asked for (words_0 hi, words_1 hi, words_2 hi, words_3 hi, …): `muneem messaging templates pull` asks \
             the carrier, `push` submits what it has not\n"
        );
        standing.pulled_at = DateTime::from_timestamp(1_795_500_000, 0);
        assert!(told(&standing).contains("5 unknown there ("));
    }

    #[test]
    fn a_line_says_outcome_check_and_mend() {
        let line = in_words(&warn("free disk", "1.2 GiB", "make room"));
        assert_eq!(line, "warn  free disk       1.2 GiB: make room\n");
        assert_eq!(in_words(&failed("schema", "not there: run it")), "fail  schema          not there: run it\n");
    }
}
