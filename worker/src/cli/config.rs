use std::process::ExitCode;

use clap::Subcommand;
use muneem_jobs::messaging::template::{self, Library};

use super::output::{self, Output};
use crate::config::{Config, DEFAULTS, Problems};

/// Settings: what is in force, and what exists
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every setting in force, secrets masked, and every problem at once
    #[command(after_help = "Example:\n  muneem config check --config /etc/muneem/muneem.toml")]
    Check {
        #[command(flatten)]
        output: Output,
    },
    /// Print the commented list of all settings with their defaults
    #[command(after_help = "Example:\n  muneem config default > muneem.toml")]
    Default,
}

pub(crate) fn run(args: &Args, load: impl FnOnce() -> Result<Config, Problems>) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Default => output::text(DEFAULTS)?,
        Command::Check { output } => {
            let config = load()?;
            output.table(&["setting", "value", "from"], config.settings(), |setting| {
                let from = format!("{:?}", setting.from).to_lowercase();
                vec![setting.key.clone(), setting.value.clone(), from]
            })?;
            for warning in &config.warnings {
                super::complain(&format!("config: {warning}"));
            }
            if let Err(template::Problems(problems)) = Library::load(config.messaging.templates_dir.as_deref()) {
                for problem in problems {
                    super::complain(&format!("templates: {problem}"));
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
