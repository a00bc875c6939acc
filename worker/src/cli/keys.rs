use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use clap::Subcommand;
use muneem_jobs::{
    evidence::Actor,
    outbound::{Chance, KeyManager},
    people,
    vault::{self, Class, INSTALLATION, RootMade},
};
use serde_json::json;
use sqlx::Connection;

use super::output::Output;
use crate::{
    app::App,
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
    /// Let a new key seal from now on; what the old one sealed still opens
    #[command(after_help = "Example:\n  muneem keys rotate --business sharma-mobiles --class contact")]
    Rotate {
        /// Handle of the business [default: the installation itself]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// contact, tax_id, payment_token, message_body, payload, document or credential [default: all that are used]
        #[arg(long)]
        class: Option<Class>,
        #[command(flatten)]
        output: Output,
    },
    /// Hand the keys of all businesses over to the root key in the settings
    #[command(after_help = "Example:\n  muneem keys rewrap      after `vault.kms` and `vault.previous_kms` were set")]
    Rewrap {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    match args.command {
        Command::Init { output } => init(&app, output).await?,
        Command::List { business, output } => list(&app, business, output).await?,
        Command::Status { output } => return status(&app, output).await,
        Command::Rotate { business, class, output } => rotate(&app, business, class, output).await?,
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
    let mut tx = db.begin().await?;
    let root = kms_file::open_or_make(&path, &chance)?.describe();
    let made = RootMade { root: &root, by: &Actor::Operator, now: app.deps.clock.now() };
    let recorded = async {
        vault::record_root(&mut tx, &made, &*chance).await?;
        anyhow::Ok(tx.commit().await?)
    };
    recorded
        .await
        .with_context(|| format!("{shown} was made and could not be put on record: delete it and try again"))?;
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
    output.table(&["key", "business", "class", "column", "state", "uses at most", "since"], &keys, |key| {
        vec![
            key.key_id.to_string(),
            key.business.clone().unwrap_or_else(|| "-".to_owned()),
            key.class.clone(),
            key.purpose.clone(),
            key.state.clone(),
            key.uses.to_string(),
            key.changed_at.date_naive().to_string(),
        ]
    })
}

async fn status(app: &App, output: Output) -> anyhow::Result<ExitCode> {
    let keys = vault::list_keys(&mut *app.deps.db.acquire().await?, None).await?;
    let in_state = |state: &str| keys.iter().filter(|key| key.state == state).count();
    let (active, opening, retired) = (in_state("active"), in_state("decrypt_only"), in_state("retired"));
    let trouble = app.deps.vault.health().await.err().map(|error| error.to_string());
    let root = app.deps.vault.describe();
    let mut line = format!(
        "root key {root}: {}\n{active} keys seal, {opening} only open, {retired} are retired",
        trouble.as_deref().unwrap_or("answers")
    );
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for other in keys.iter().filter_map(|key| key.root.as_deref()).filter(|other| *other != root) {
        *others.entry(other).or_default() += 1;
    }
    for (other, count) in &others {
        line += &format!("\n{count} keys are still wrapped by {other}: `muneem keys rewrap` hands them over");
    }
    output.done(
        &json!({
            "root": root, "open": trouble.is_none(), "trouble": trouble, "other_roots": others,
            "active": active, "decrypt_only": opening, "retired": retired,
        }),
        &line,
    )?;
    Ok(if trouble.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rotate(app: &App, business: Option<String>, class: Option<Class>, output: Output) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let business = match business {
        Some(handle) => people::load_business(&mut db, &handle).await?.business_id,
        None => INSTALLATION,
    };
    let used: Vec<String> = vault::list_keys(&mut db, Some(business))
        .await?
        .into_iter()
        .filter(|key| key.state == "active")
        .map(|key| key.class)
        .collect();
    let classes: Vec<Class> = match class {
        Some(class) => vec![class],
        None => Class::ALL.into_iter().filter(|class| used.iter().any(|used| used == class.as_str())).collect(),
    };
    let mut made = Vec::new();
    for class in classes {
        made.push(json!({ "class": class, "key_id": app.deps.vault.rotate(business, class, &Actor::Operator).await? }));
    }
    let line = match made.len() {
        0 => "nothing was sealed yet: there is no key to replace".to_owned(),
        1 => "1 key replaced".to_owned(),
        count => format!("{count} keys replaced"),
    };
    output.done(&made, &line)
}
