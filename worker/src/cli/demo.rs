use std::{path::PathBuf, process::ExitCode, sync::Arc};

use super::output;
use crate::{
    config::Config,
    demo::{self, Options},
};

/// A sample shop sells a phone; the buyer holds the invoice on WhatsApp. Nothing leaves this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muneem demo --exit      tells the story and ends; status 0: all of it happened")]
pub(super) struct Args {
    /// End after the story instead of serving until Ctrl-C
    #[arg(long)]
    exit: bool,
    /// The demo's own directory [default: demo below the data directory]
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let options = Options { dir: args.dir.unwrap_or_else(|| config.data.dir.join("demo")), exit: args.exit };
    let say = |line: &str| {
        // Nobody is left to tell when standard output is closed.
        let _ = output::text(&format!("{line}\n"));
    };
    let all_of_it = demo::run(&options, Arc::new(say)).await?;
    Ok(if all_of_it { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
