use std::{process::ExitCode, sync::Arc};

use super::output;
use crate::{app::Database, config::Config};

/// Brings the schema up to date and publishes job kinds and schedules; run it as the database's owner
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  DATABASE_URL=postgres://owner@localhost/shop muneem migrate")]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let say = |line: &str| {
        // Progress on the way; the outcome is what counts.
        let _ = output::text(&format!("{line}\n"));
    };
    let database = Database::open(config, Some(Arc::new(say)))?;
    database.settle().await?;
    output::text("the schema is up to date\n")?;
    Ok(ExitCode::SUCCESS)
}
