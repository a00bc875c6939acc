use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, Utc};
use muneem_jobs::{
    queue::{self, Named},
    vault::screen,
};
use serde_json::{Value, json};

use super::output::Output;
use crate::config::Config;

/// Put a job into the queue
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muneem enqueue invoice.issue \"$(cat invoice.json)\" --business sharma-mobiles --key \
                        order-1042"
)]
pub(super) struct Args {
    /// Kind of job: `muneem.queue_kinds` and GET /v1/queue/kinds list all
    kind: String,
    /// Payload, as the kind's schema says
    payload: String,
    /// Handle of the business [default: the only one there is]
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
    /// The same business, kind and key again is the same job
    #[arg(long)]
    key: Option<String>,
    /// Not before this instant (RFC 3339)
    #[arg(long, value_name = "INSTANT")]
    at: Option<DateTime<Utc>>,
    /// Another lane than the kind's own
    #[arg(long)]
    lane: Option<String>,
    /// A minute's head start for each point, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i16>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let payload: Value = serde_json::from_str(&args.payload)
        .map_err(|error| anyhow::anyhow!("line {} column {}", error.line(), error.column()))
        .context("the payload is not JSON: quote it for the shell")?;
    screen::check(&payload).map_err(|refused| anyhow::anyhow!("payload: {refused}: {}", refused.found.mend()))?;
    let (_database, app) = super::open(config).await?;
    let mut db = app.deps.db.acquire().await?;
    let job = Named {
        kind: &args.kind,
        payload: &payload,
        business: args.business.as_deref(),
        key: args.key.as_deref(),
        run_at: args.at,
        lane: args.lane.as_deref(),
        priority: args.priority,
    };
    let id = queue::enqueue_own(&mut db, &app.deps.vault, &job).await.map_err(super::told)?;
    args.output.done(&json!({ "id": id }), &format!("job {id}"))?;
    Ok(ExitCode::SUCCESS)
}
