//! The commands, one file each. They read the settings, call the library and print through [`output`].

mod bench;
mod config;
mod demo;
mod doctor;
mod enqueue;
mod evidence;
mod invite;
mod invoice;
mod jobs;
mod key_columns;
mod keys;
mod mail;
mod messaging;
mod migrate;
mod oidc;
mod output;
mod people;
mod sandbox;
mod schedule;
mod senders;
mod serve;
mod templates;
mod webhooks;

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ContextKind, error::ErrorKind};

use muneem_jobs::queue;

use crate::{
    app::{App, Database},
    config::{Config, Problems},
};

/// The duties of an Indian business, beside any frontend, on its Postgres.
#[derive(Debug, Parser)]
#[command(name = "muneem", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Example:\n  muneem demo            sells a phone in a sample shop and sends the invoice\n  \
                        muneem serve           works on the queue and answers HTTP, beside your frontend")]
struct Cli {
    /// Settings file [default: ./muneem.toml, else $XDG_CONFIG_HOME/muneem/muneem.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Migrate(migrate::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Enqueue(enqueue::Args),
    Jobs(jobs::Args),
    Schedule(schedule::Args),
    Invoice(invoice::Args),
    Messaging(messaging::Args),
    Webhooks(webhooks::Args),
    People(people::Args),
    Keys(keys::Args),
    Evidence(evidence::Args),
    Sandbox(sandbox::Args),
    Bench(bench::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    // Blocking on the main thread: what starts child processes there ties their life to the process, not to a thread
    // of the pool.
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            for line in lines_of(&error) {
                complain(&line);
            }
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Bench(args) => bench::run(&args, &Config::load(self.config.as_deref())?).await,
            Command::Demo(args) => demo::run(args, &Config::load(self.config.as_deref())?).await,
            Command::Config(args) => config::run(&args, || Config::load(self.config.as_deref())),
            Command::Doctor(args) => doctor::run(&args, Config::load(self.config.as_deref())).await,
            Command::Migrate(args) => migrate::run(&args, &Config::load(self.config.as_deref())?).await,
            Command::Sandbox(args) => sandbox::run(args, &Config::load(self.config.as_deref())?).await,
            Command::Serve(args) => serve::run(&args, Config::load(self.config.as_deref())?).await,
            Command::Enqueue(args) => Box::pin(enqueue::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Jobs(args) => Box::pin(jobs::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Invoice(args) => Box::pin(invoice::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Messaging(args) => Box::pin(messaging::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Webhooks(args) => Box::pin(webhooks::run(args, Config::load(self.config.as_deref())?)).await,
            Command::People(args) => Box::pin(people::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Keys(args) => Box::pin(keys::run(args, Config::load(self.config.as_deref())?)).await,
            Command::Evidence(args) => Box::pin(evidence::run(args, || Config::load(self.config.as_deref()))).await,
            Command::Schedule(args) => Box::pin(schedule::run(args, Config::load(self.config.as_deref())?)).await,
        }
    }
}

/// One line for a mistake in the arguments; help and version as they are asked for.
fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(std::io::stdout(), "{}", error.render());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(std::io::stdout(), "{}", error.render());
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
            let missing = error.get(ContextKind::InvalidArg).filter(|_| what.ends_with("not provided"));
            let nearest = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
                .into_iter()
                .find_map(|kind| error.get(kind));
            let mend = match (missing, nearest) {
                (Some(missing), _) => format!(": give {missing}"),
                (None, Some(nearest)) => format!(": did you mean `{nearest}`?"),
                // Our own types say in their refusal what they take.
                (None, None) if what.contains(": take ") => String::new(),
                (None, None) => ": see `muneem --help`".to_owned(),
            };
            complain(&format!("{what}{mend}"));
            ExitCode::from(2)
        }
    }
}

/// The chain of causes on one line; the problems of the settings on one line each.
fn lines_of(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<Problems>() {
        Some(Problems(problems)) => problems.iter().map(|problem| format!("config: {problem}")).collect(),
        None => vec![chain(error)],
    }
}

/// What was attempted and its causes, on one line. Libraries repeat a cause in the text of what it caused: once is
/// enough.
fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for text in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
    }
    line.replace('\n', " ")
}

/// The database and what works on it. A private Postgres is brought up to date first: nobody else would.
async fn open(config: Config) -> anyhow::Result<(Database, App)> {
    let database = Database::open(&config, None)?;
    if database.is_private() {
        database.migrate().await?;
    }
    let app = App::build(config, &database, 2).await?;
    Ok((database, app))
}

/// A refusal of the queue with what to do instead.
fn told(error: queue::Error) -> anyhow::Error {
    match error {
        queue::Error::Refused { problem, mend, .. } if !mend.is_empty() => anyhow::anyhow!("{problem}: {mend}"),
        error => error.into(),
    }
}

fn complain(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "muneem: {line}");
}
