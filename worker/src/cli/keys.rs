use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use clap::Subcommand;
use muneem_jobs::{
    evidence::Actor,
    outbound::Chance,
    people, schedule,
    vault::{self, Class, Replace, Standing, Walked},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    key_columns::{self, business_of},
    output::Output,
};
use crate::{
    app::{self, App},
    config::{Config, Kms},
    outbound::{chance::OsChance, kms_file},
};

/// The keys that values are sealed with
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the root key file of this installation, once; of a key service, see whether its key can be used
    #[command(after_help = "Example:\n  muneem keys init      then back the file up, apart from the database")]
    Init {
        #[command(flatten)]
        output: Output,
    },
    /// List keys with their states and uses
    #[command(after_help = "Example:\n  muneem keys list --business sharma-mobiles")]
    List {
        /// Handle of the business [default: all]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Say who holds the root key, and whether the vault is open
    #[command(after_help = "Example:\n  muneem keys status      status 1: sealed")]
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Let a new key take over; what the old one sealed still opens, and is sealed anew beside the work
    #[command(
        after_help = "Example:\n  muneem keys rotate --business sharma-mobiles --class contact      `muneem keys status` shows how far\n  muneem keys rotate --business sharma-mobiles --index public.customers.phone"
    )]
    Rotate(Rotate),
    /// Let sealing anew rest
    #[command(after_help = "Example:\n  muneem keys pause      reading and writing go on as ever")]
    Pause {
        #[command(flatten)]
        output: Output,
    },
    /// Hand the keys of all businesses over to the root key in the settings
    #[command(after_help = "Example:\n  muneem keys rewrap      after `vault.kms` and `vault.previous_kms` were set")]
    Rewrap {
        #[command(flatten)]
        output: Output,
    },
    /// Let sealing anew go on where it rested
    #[command(after_help = "Example:\n  muneem keys resume")]
    Resume {
        #[command(flatten)]
        output: Output,
    },
    /// Columns of the frontend's own that are sealed anew when keys change
    Columns(key_columns::Args),
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// Handle of the business [default: the installation itself]
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
    /// contact, tax_id, payment_token, message_body, payload, document or credential [default: all that are used]
    #[arg(long)]
    class: Option<Class>,
    /// The key that indexes this column, schema.table.column, instead
    #[arg(long, value_name = "COLUMN", conflicts_with = "class")]
    index: Option<String>,
    /// The business's own key, which wraps the others, instead
    #[arg(long, conflicts_with_all = ["class", "index"])]
    own: bool,
    /// Do not wait until every process has heard of the new key: the old one is in wrong hands
    #[arg(long, conflicts_with_all = ["index", "own"])]
    at_once: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    match args.command {
        Command::Init { output } => init(&app, output).await?,
        Command::List { business, output } => list(&app, business, output).await?,
        Command::Status { output } => return status(&app, output).await,
        Command::Rotate(args) => rotate(&app, args).await?,
        Command::Pause { output } => pause(&app, true, output).await?,
        Command::Resume { output } => pause(&app, false, output).await?,
        Command::Columns(args) => return key_columns::run(args, &app).await,
        Command::Rewrap { output } => return rewrap(&app, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn init(app: &App, output: Output) -> anyhow::Result<()> {
    if app.config.vault.kms != Kms::File {
        let root = app.deps.vault.describe();
        app.deps.vault.health().await.with_context(|| format!("{root} cannot be used"))?;
        let told = format!("{root} wraps and unwraps: there is nothing to make");
        return output.done(&json!({ "root": root, "made": false }), &told);
    }
    let path = app.config.root_key_file();
    let shown = path.display();
    let chance: Arc<dyn Chance> = Arc::new(OsChance);
    if kms_file::open(&path, Arc::clone(&chance))?.is_some() {
        return output.done(&json!({ "file": path, "made": false }), &format!("{shown} holds a root key already"));
    }
    let mut db = app.deps.db.acquire().await?;
    if vault::holds_keys(&mut db).await? {
        bail!("this database was sealed with another root key: copy that one to {shown}; a new one would open nothing");
    }
    drop(db);
    let now = app.deps.clock.now();
    if app::make_root_key(&path, &app.deps.db, &Actor::Operator, (now, &chance)).await?.is_none() {
        return output.done(&json!({ "file": path, "made": false }), &format!("{shown} holds a root key already"));
    }
    let told = format!("made {shown}\nBack it up, apart from the database: without it nothing that is sealed opens.");
    output.done(&json!({ "file": path, "made": true }), &told)
}

async fn rewrap(app: &App, output: Output) -> anyhow::Result<ExitCode> {
    let vault = &app.deps.vault;
    vault.health().await.with_context(|| format!("{} cannot be used", vault.describe()))?;
    let outcome = vault.rewrap(&Actor::Operator).await.context("not all keys are handed over: run it again")?;
    let mut told = format!("{} wraps {} more keys", outcome.root, outcome.done);
    if !outcome.unopened.is_empty() {
        let count = outcome.unopened.len();
        told += &format!(
            "\n{count} keys open under neither root key: set `vault.previous_kms` to who wrapped them (`muneem keys status`)"
        );
    }
    output.done(&outcome, &told)?;
    Ok(if outcome.unopened.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn list(app: &App, business: Option<String>, output: Output) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let business = match business {
        Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
        None => None,
    };
    let keys = vault::list_keys(&mut db, business).await?;
    let standing = vault::standing(&mut db, None).await?;
    let horizon = app.deps.vault.backup_horizon();
    let shown: Vec<_> =
        keys.into_iter().map(|key| Shown { waits_for: key.waits_for(&standing, horizon), key }).collect();
    let headings = ["key", "business", "class", "column", "state", "uses at most", "since", "because"];
    output.table(&headings, &shown, |Shown { key, waits_for }| {
        vec![
            key.key_id.to_string(),
            key.business.clone().unwrap_or_else(|| "-".to_owned()),
            key.class.clone(),
            key.purpose.clone(),
            key.state.clone(),
            key.uses.to_string(),
            key.changed_at.date_naive().to_string(),
            waits_for.clone().unwrap_or_default(),
        ]
    })
}

/// A key, and what keeps it from its next state.
#[derive(serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    key: vault::KeyInfo,
    waits_for: Option<String>,
}

async fn status(app: &App, output: Output) -> anyhow::Result<ExitCode> {
    let mut db = app.deps.db.acquire().await?;
    let keys = vault::list_keys(&mut db, None).await?;
    let standing = vault::standing(&mut db, None).await?;
    drop(db);
    let in_state = |state: &str| keys.iter().filter(|key| key.state == state).count();
    let (pending, active) = (in_state("pending"), in_state("active"));
    let (opening, retired) = (in_state("decrypt_only"), in_state("retired"));
    let trouble = app.deps.vault.health().await.err().map(|error| error.to_string());
    let root = app.deps.vault.describe();
    let mut lines = vec![
        format!("root key {root}: {}", trouble.as_deref().unwrap_or("answers")),
        format!("{active} keys seal, {opening} only open, {retired} are retired"),
    ];
    if pending > 0 {
        lines.push(format!("{pending} are to take over when every process has heard of them"));
    }
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for other in keys.iter().filter_map(|key| key.root.as_deref()).filter(|other| *other != root) {
        *others.entry(other).or_default() += 1;
    }
    lines.extend(others.iter().map(|(other, count)| {
        format!("{count} keys are still wrapped by {other}: `muneem keys rewrap` hands them over")
    }));
    lines.extend(standing.walk.as_ref().map(walk_in_words));
    lines.extend(trouble_in_words(&standing));
    output.done(
        &json!({
            "root": root, "open": trouble.is_none(), "trouble": trouble, "other_roots": others, "pending": pending, "active": active,
            "decrypt_only": opening, "retired": retired, "standing": standing,
        }),
        &lines.join("\n"),
    )?;
    let sound = trouble.is_none() && standing.closed.is_empty() && standing.quarantined == 0;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn walk_in_words(walk: &Walked) -> String {
    let Walked { state, resealed, pass, visited, rows_expected, .. } = walk;
    let (keys, is) = (walk.keys.len(), if state == "incomplete" { "ended incomplete" } else { state });
    let line = format!("sealing anew for {keys} keys: {is}, {resealed} values in {pass} passes");
    if walk.ended_at.is_some() {
        return line;
    }
    let rate = walk.rate.map(|rate| format!(", {rate:.0} rows/s")).unwrap_or_default();
    let eta = walk.eta_secs.map(|secs| format!(", {secs} s to go")).unwrap_or_default();
    format!("{line}; {visited} of about {rows_expected} rows in this one{rate}{eta}")
}

fn trouble_in_words(standing: &Standing) -> Vec<String> {
    let mut lines = Vec::new();
    let columns = standing.walk.iter().flat_map(|walk| &walk.columns);
    lines.extend(columns.filter_map(|column| Some(format!("{}: {}", column.place, column.trouble.as_ref()?))));
    if standing.quarantined > 0 {
        lines.push(format!("{} values do not open and keep their keys:", standing.quarantined));
        let shown = standing.quarantine.iter().map(|bad| format!("  {} row {}: {}", bad.place, bad.row_key, bad.why));
        lines.extend(shown);
    }
    lines.extend(standing.strays.iter().map(|stray| {
        let business = stray.business.as_deref().map(|business| format!(" --business {business}")).unwrap_or_default();
        let (column, class) = (&stray.column, &stray.class);
        format!(
            "not registered, so its keys are kept: `muneem keys columns add {column}{business} --class {class}`, or \
             `remove` when it is gone"
        )
    }));
    lines.extend(standing.closed.iter().filter_map(|column| Some(format!("closed: {}", column.finding.as_ref()?))));
    lines
}

/// Has the next step of every key taken now, by whoever works on the queue.
async fn tend(app: &App, db: &mut PgConnection) -> anyhow::Result<()> {
    let by = app.operator();
    let request = app.deps.chance.uuid_v7(by.now).to_string();
    schedule::trigger(db, "vault.rotate-keys", &request, &by).await?;
    Ok(())
}

async fn pause(app: &App, paused: bool, output: Output) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let changed = vault::pause_reseal(&mut db, paused, app.deps.clock.now()).await?;
    if changed && !paused {
        tend(app, &mut db).await?;
    }
    let line = match (changed, paused) {
        (true, true) => "sealing anew rests; `muneem keys resume` lets it go on",
        (true, false) => "sealing anew goes on where it rested",
        (false, true) => "nothing is being sealed anew",
        (false, false) => "nothing rests",
    };
    output.done(&json!({ "changed": changed }), line)
}

async fn rotate(app: &App, args: Rotate) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let business = business_of(&mut db, args.business.as_deref()).await?;
    let used: Vec<String> = vault::list_keys(&mut db, Some(business))
        .await?
        .into_iter()
        .filter(|key| key.state == "active")
        .map(|key| key.class)
        .collect();
    let classes: Vec<Class> = match args.class {
        Some(class) => vec![class],
        None => Class::ALL.into_iter().filter(|class| used.iter().any(|used| used == class.as_str())).collect(),
    };
    let mut made = Vec::new();
    if args.at_once {
        for class in classes {
            let key_id = app.deps.vault.rotate(business, class, &Actor::Operator).await?;
            made.push(json!({ "class": class, "key_id": key_id, "state": "active" }));
        }
    } else {
        let replaced: Vec<Replace<'_>> = match &args.index {
            Some(column) => vec![Replace::Index(column)],
            None if args.own => vec![Replace::Business],
            None => classes.into_iter().map(Replace::Class).collect(),
        };
        let mut tx = db.begin().await?;
        for replace in replaced {
            if let Some(key_id) = app.deps.vault.prepare_key(&mut tx, business, replace, Actor::Operator).await? {
                made.push(json!({ "class": replace.class(), "key_id": key_id, "state": "pending" }));
            }
        }
        tx.commit().await?;
    }
    if !made.is_empty() {
        tend(app, &mut db).await?;
    }
    let line = match (made.len(), args.at_once) {
        (0, _) => "nothing was sealed yet: there is no key to replace".to_owned(),
        (1, true) => "1 key replaced; what it sealed is sealed anew from now on".to_owned(),
        (count, true) => format!("{count} keys replaced; what they sealed is sealed anew from now on"),
        (1, false) => "1 key is to be replaced: `muneem keys status` shows how far".to_owned(),
        (count, false) => format!("{count} keys are to be replaced: `muneem keys status` shows how far"),
    };
    args.output.done(&made, &line)
}
