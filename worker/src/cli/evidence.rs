use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use muneem_jobs::{
    evidence::{self, note::Verifier},
    people,
};
use serde_json::json;

use super::output::Output;
use crate::{
    config::{Config, Problems},
    evidence::{bundle, read_key},
};

/// Proof of what was decided and done: take it home, and check it anywhere
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a bundle that proves itself
    #[command(after_help = "Example:\n  muneem evidence export --out evidence.zip --business sharma-mobiles")]
    Export {
        /// Where to; must not be there yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The one business it is about [default: all]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Check a bundle, without network and database; fails on the first item that does not hold
    #[command(
        after_help = "Example:\n  muneem evidence verify evidence.zip --key-file log.vkey --head anchors/00000000000000/*.note"
    )]
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// File with the log's public key, as you keep it [default: the one in the bundle]
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Signed heads of the log that you hold from outside: anchors, mails
        #[arg(long = "head", value_name = "FILE", num_args = 1..)]
        heads: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Show the public key that heads of the log are checked with
    #[command(after_help = "Example:\n  muneem evidence key > log.vkey")]
    Key {
        #[command(flatten)]
        output: Output,
    },
    /// Show how far the log is sealed and signed
    #[command(after_help = "Example:\n  muneem evidence status --json")]
    Status {
        #[command(flatten)]
        output: Output,
    },
}

/// `config` is asked for by commands that need it: to verify needs nothing but the bundle.
pub(super) async fn run(args: Args, config: impl FnOnce() -> Result<Config, Problems>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify { bundle, key_file, heads, output } => {
            let key = key_file.map(|file| read_public_key(&file)).transpose()?;
            let verdict = bundle::verify(&bundle, key.as_ref(), &heads)?;
            let mut line = format!(
                "{} events verified, {} retired by policy, {} not under a signed head yet\n{} heads hold, the last over {} \
                 events",
                verdict.verified, verdict.retired, verdict.unsigned, verdict.heads, verdict.size
            );
            if let Some(at) = verdict.signed_at {
                line.push_str(&format!(", signed {}", at.to_rfc3339()));
            }
            line.push_str(&match verdict.outside_heads {
                0 => "\nno head from outside was given: whoever holds the signing key could have written all this anew"
                    .to_owned(),
                heads => format!("\nagrees with {heads} heads from outside"),
            });
            if key.is_none() {
                line.push_str("\nthe public key was the bundle's own: compare it with yours, or give --key-file");
            }
            output.done(&verdict, &line)?;
        }
        Command::Export { out, business, output } => {
            let config = config()?;
            let key = key(&config)?;
            let (_database, app) = super::open(config).await?;
            let mut db = app.deps.db.acquire().await?;
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let mut told = 0;
            let events = bundle::export(&mut db, &key, business, &out, |done, of| {
                if done - told >= 100_000 {
                    told = done;
                    super::complain(&format!("{done} of {of} events"));
                }
            })
            .await?;
            let line = format!("wrote {events} events to {}; check it: muneem evidence verify", out.display());
            output.done(&json!({ "file": out, "events": events }), &line)?;
        }
        Command::Key { output } => {
            let key = key(&config()?)?.to_vkey();
            output.done(&json!({ "key": key }), &key)?;
        }
        Command::Status { output } => {
            let (_database, app) = super::open(config()?).await?;
            let mut db = app.deps.db.acquire().await?;
            let standing = evidence::load_standing(&mut db).await?;
            let since = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or_else(String::new, |at| at.to_rfc3339());
            let fields = [
                ("sealed", format!("{} events", standing.size)),
                ("waiting since", since(standing.unsealed_since)),
                ("signed", since(standing.signed_at)),
                ("forked", standing.forked.clone().unwrap_or_default()),
            ];
            output.item(&standing, &fields)?;
            if standing.forked.is_some() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn key(config: &Config) -> anyhow::Result<Verifier> {
    let file = config.evidence.key_file.clone().unwrap_or_else(|| config.data.dir.join("evidence.key"));
    Ok(read_key(&file).context("`muneem serve` makes the key on its first start")?.verifier().clone())
}

fn read_public_key(file: &std::path::Path) -> anyhow::Result<Verifier> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Verifier::parse(&text).with_context(|| format!("{} holds no public key of a log", file.display()))
}
