use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::schedule;
use serde_json::json;
use sqlx::PgConnection;

use super::output::Output;
use crate::config::Config;

const PAGE: u16 = 200;

/// What runs by the clock
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List schedules with their next slot
    #[command(after_help = "Example:\n  muneem schedule list")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Let a schedule rest
    #[command(after_help = "Example:\n  muneem schedule pause queue.forget-finished")]
    Pause(One),
    /// Let a schedule run again, from now
    #[command(after_help = "Example:\n  muneem schedule resume queue.forget-finished")]
    Resume(One),
    /// Make a schedule's job now
    #[command(after_help = "Example:\n  muneem schedule trigger queue.forget-finished")]
    Trigger(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// Its name
    name: String,
    #[command(flatten)]
    output: Output,
}

/// Every schedule, by name.
pub(super) async fn all(db: &mut PgConnection, now: DateTime<Utc>) -> anyhow::Result<Vec<schedule::Listed>> {
    let mut entries = Vec::new();
    loop {
        let after = entries.last().map(|listed: &schedule::Listed| listed.entry.name.clone());
        let page = schedule::list(db, None, &after.unwrap_or_default(), PAGE, now).await?;
        let is_last = page.len() < usize::from(PAGE);
        entries.extend(page);
        if is_last {
            return Ok(entries);
        }
    }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    let mut db = app.deps.db.acquire().await?;
    let now = app.deps.clock.now();
    match args.command {
        Command::List { output } => {
            let entries = all(&mut db, now).await?;
            output.table(&["name", "kind", "when", "missed", "paused", "next"], &entries, |listed| {
                let entry = &listed.entry;
                let next = listed.upcoming.first().map(|at| at.format("%Y-%m-%d %H:%M UTC").to_string());
                vec![
                    entry.name.clone(),
                    entry.kind.clone(),
                    entry.expression.clone(),
                    entry.missed.as_str().to_owned(),
                    if entry.paused { "yes" } else { "no" }.to_owned(),
                    next.unwrap_or_default(),
                ]
            })?;
        }
        Command::Pause(One { name, output }) => {
            schedule::pause(&mut db, &name, &app.operator()).await?;
            output.done(&json!({ "name": name, "paused": true }), &format!("{name} rests"))?;
        }
        Command::Resume(One { name, output }) => {
            schedule::resume(&mut db, &name, &app.operator()).await?;
            output.done(&json!({ "name": name, "paused": false }), &format!("{name} runs again"))?;
        }
        Command::Trigger(One { name, output }) => {
            let request = app.deps.chance.uuid_v7(now).to_string();
            let jobs = schedule::trigger(&mut db, &name, &request, &app.operator()).await?;
            let numbers: Vec<_> = jobs.iter().map(ToString::to_string).collect();
            output.done(&json!({ "name": name, "jobs": jobs }), &format!("made job {}", numbers.join(", ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
