use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::{
    id::JobId,
    people,
    queue::{self, JobFilter, JobState, Lane},
};
use serde_json::json;
use sqlx::PgConnection;

use super::output::Output;
use crate::config::Config;

const RETRY_BATCH: u16 = 1000;

/// Jobs: see them, cancel them, try dead ones again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List jobs, newest first
    #[command(after_help = "Example:\n  muneem jobs list --state dead --kind invoice.issue")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only jobs with a smaller number: the last of the page before
        #[arg(long, value_name = "ID")]
        before: Option<i64>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one job, without its payload
    #[command(after_help = "Example:\n  muneem jobs show 1042")]
    Show {
        /// The job's number
        id: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Put a dead job back in line, or all that match
    #[command(after_help = "Example:\n  muneem jobs retry 1042\n  muneem jobs retry --cause messaging.no_account")]
    Retry {
        /// The job's number
        #[arg(conflicts_with_all = ["kind", "cause", "business", "lane"])]
        id: Option<i64>,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        output: Output,
    },
    /// Take a job out, or ask its worker to stop
    #[command(after_help = "Example:\n  muneem jobs cancel 1042")]
    Cancel {
        /// The job's number
        id: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Show how full each lane is
    #[command(after_help = "Example:\n  muneem jobs stats --json")]
    Stats {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// In this state only
    #[arg(long)]
    state: Option<JobState>,
    /// Of this kind only
    #[arg(long)]
    kind: Option<String>,
    /// In this lane only
    #[arg(long)]
    lane: Option<Lane>,
    /// That failed with this cause
    #[arg(long)]
    cause: Option<String>,
    /// Of this business only
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
}

impl Filter {
    async fn resolved(self, db: &mut PgConnection) -> anyhow::Result<JobFilter> {
        let business = match self.business {
            Some(handle) => Some(people::load_business(db, &handle).await?.business_id),
            None => None,
        };
        let Self { state, kind, lane, cause, .. } = self;
        Ok(JobFilter { business, state, kind, lane, cause, before: None })
    }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    let mut db = app.deps.db.acquire().await?;
    let by = app.operator();
    match args.command {
        Command::List { filter, limit, before, output } => {
            let filter = JobFilter { before: before.map(JobId), ..filter.resolved(&mut db).await? };
            let jobs = queue::list_jobs(&mut db, &filter, limit).await?;
            output.table(&["id", "kind", "lane", "state", "attempts", "enqueued", "cause"], &jobs, |job| {
                vec![
                    job.id.to_string(),
                    job.kind.clone(),
                    job.lane.to_string(),
                    job.state.to_string(),
                    job.attempt.to_string(),
                    instant(Some(job.enqueued_at)),
                    job.cause.clone().unwrap_or_default(),
                ]
            })?;
        }
        Command::Show { id, output } => {
            let job = queue::find_job(&mut db, JobId(id)).await?;
            let job = job.with_context(|| format!("there is no job {id}: `muneem jobs list` shows the newest"))?;
            let json = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            output.item(
                &job,
                &[
                    ("id", job.id.to_string()),
                    ("kind", job.kind.clone()),
                    ("lane", job.lane.to_string()),
                    ("state", job.state.to_string()),
                    ("key", job.key.clone().unwrap_or_default()),
                    ("attempts", job.attempt.to_string()),
                    ("enqueued", instant(Some(job.enqueued_at))),
                    ("due", instant(job.run_at)),
                    ("last attempt", instant(job.claimed_at)),
                    ("ended", instant(job.finished_at)),
                    ("cause", job.cause.clone().unwrap_or_default()),
                    ("error", job.error.clone().unwrap_or_default()),
                    ("progress", json(&job.progress)),
                    ("result", json(&job.result)),
                    ("payload", job.payload.map_or("gone", |payload| payload.as_str()).to_owned()),
                ],
            )?;
        }
        Command::Retry { id: Some(id), output, .. } => {
            if !queue::retry(&mut db, JobId(id), &by).await? {
                bail!("job {id} is not dead: `muneem jobs show {id}` shows its state");
            }
            output.done(&json!({ "retried": 1 }), &format!("job {id} is back in line"))?;
        }
        Command::Retry { id: None, filter, output } => {
            if filter.kind.is_none() && filter.cause.is_none() {
                bail!("nothing says which jobs: give a number, --kind or --cause");
            }
            let filter = filter.resolved(&mut db).await?;
            let mut retried = 0;
            loop {
                let some = queue::retry_many(&mut db, &filter, RETRY_BATCH, &by).await?;
                retried += some;
                if some < u64::from(RETRY_BATCH) {
                    break;
                }
            }
            output.done(&json!({ "retried": retried }), &format!("{retried} jobs are back in line"))?;
        }
        Command::Cancel { id, output } => {
            if !queue::cancel(&mut db, JobId(id), &by).await? {
                bail!("job {id} has ended or never was: `muneem jobs show {id}` tells");
            }
            output.done(&json!({ "cancelled": id }), &format!("job {id} is cancelled"))?;
        }
        Command::Stats { output } => {
            let lanes = queue::stats(&mut db, None).await?;
            let headings = ["lane", "ready", "running", "scheduled", "retrying", "dead", "oldest"];
            output.table(&headings, &lanes, |lane| {
                let counts = [lane.ready, lane.running, lane.scheduled, lane.retrying, lane.dead];
                let mut cells = vec![lane.lane.to_string()];
                cells.extend(counts.iter().map(ToString::to_string));
                cells.push(format!("{:.1} s", lane.oldest_secs));
                cells
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn instant(at: Option<DateTime<Utc>>) -> String {
    at.map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}
