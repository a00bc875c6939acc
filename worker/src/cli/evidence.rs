use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use muneem_jobs::{
    evidence::{self, Actor, Event, EventId, Object, Sealed, bundle::Stamped, note::Verifier, words},
    people::{self, BusinessId},
};
use serde_json::json;

use super::output::{self, Output};
use crate::{
    config::{Config, Problems},
    evidence::{
        anchors::read_roots,
        bundle::{self, Against},
        read_key,
    },
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
        after_help = "Example:\n  muneem evidence verify evidence.zip --key-file log.vkey --head anchors mail.eml --tsa-roots tsa.pem"
    )]
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// File with the log's public key, as you keep it [default: the one in the bundle]
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// What you hold from outside: signed heads, mails, time stamps, or folders of them
        #[arg(long = "head", value_name = "FILE", num_args = 1..)]
        heads: Vec<PathBuf>,
        /// Root certificates, PEM, by which time stamps are believed
        #[arg(long, value_name = "FILE")]
        tsa_roots: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Show the public key that heads of the log are checked with
    #[command(after_help = "Example:\n  muneem evidence key > log.vkey")]
    Key {
        #[command(flatten)]
        output: Output,
    },
    /// List sealed events, newest first, without what they say
    #[command(after_help = "Example:\n  muneem evidence list --business sharma-mobiles --limit 20")]
    List {
        /// Of the one business [default: all]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those with a smaller number: the business's own where one is named
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one event with what it says and its proof; that you looked is on record
    #[command(after_help = "Example:\n  muneem evidence show 0192f3c1-7000-7000-8000-000000000001 --json")]
    Show {
        /// The event's id
        #[arg(value_name = "ID")]
        event: EventId,
        #[command(flatten)]
        output: Output,
    },
    /// Show how far the log is sealed and signed, and how each anchor stands
    #[command(after_help = "Example:\n  muneem evidence status --json")]
    Status {
        #[command(flatten)]
        output: Output,
    },
}

/// `config` is asked for by commands that need it: to verify needs nothing but the bundle.
pub(super) async fn run(args: Args, config: impl FnOnce() -> Result<Config, Problems>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Verify { bundle, key_file, heads, tsa_roots, output } => {
            let key = key_file.map(|file| read_public_key(&file)).transpose()?;
            let roots = tsa_roots.map(|file| read_roots(&file)).transpose()?;
            let verdict = bundle::verify(&bundle, Against { key: key.as_ref(), held: &heads, roots })?;
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
            if let Some(Stamped { at, size, by, rooted }) = &verdict.stamped {
                let count = verdict.stamps + verdict.unrooted_stamps;
                line.push_str(&format!(
                    "\n{count} time stamps hold, the last: {size} events by {}, says {by}",
                    at.to_rfc3339()
                ));
                if !rooted {
                    line.push_str(
                        "\nno root was given for them: anybody could have made that authority, give --tsa-roots",
                    );
                }
            }
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
            let anchors = evidence::list_anchor_states(&mut db).await?;
            if output.is_json() {
                output.done(&json!({ "log": standing, "anchors": anchors }), "")?;
                return Ok(code_of(&standing));
            }
            let fields = [
                ("sealed", format!("{} events", standing.size)),
                ("waiting since", since(standing.unsealed_since)),
                ("signed", since(standing.signed_at)),
                ("forked", standing.forked.clone().unwrap_or_default()),
            ];
            output.item(&standing, &fields)?;
            if !anchors.is_empty() {
                output::text("\n")?;
                output.table(
                    &["anchor", "kind", "outside", "laid", "at", "fails since", "why"],
                    &anchors,
                    |state| {
                        vec![
                            state.name.clone(),
                            state.kind.clone(),
                            if state.outside { "yes" } else { "no" }.to_owned(),
                            state.laid_size.map_or_else(String::new, |size| size.to_string()),
                            since(state.laid_at),
                            since(state.failing_since),
                            state.problem.clone().unwrap_or_default(),
                        ]
                    },
                )?;
            }
            return Ok(code_of(&standing));
        }
        Command::List { business, limit, before, output } => {
            let (_database, app) = super::open(config()?).await?;
            let mut db = app.deps.db.acquire().await?;
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let found = evidence::list_newest(&mut db, business, before, limit).await?;
            let rows: Vec<_> = found.iter().map(summary).collect();
            output.table(&["number", "id", "business", "its number", "at"], &rows, |row| {
                ["seq", "id", "business_id", "business_seq", "at"].iter().map(|name| shown(&row[*name])).collect()
            })?;
        }
        Command::Show { event, output } => {
            let (_database, app) = super::open(config()?).await?;
            let mut db = app.deps.db.acquire().await?;
            let sealed = evidence::find_sealed(&mut db, None, event).await?;
            let sealed =
                sealed.with_context(|| format!("there is no event {event}: `muneem evidence list` shows all"))?;
            let look = Event {
                event_id: EventId::new(&*app.deps.chance, app.deps.clock.now()),
                business_id: sealed.leaf.business_id.map(BusinessId),
                actor: Actor::Operator,
                verb: words::READ,
                object: Object { kind: "event", id: &event.to_string() },
                details: json!({ "count": 1 }),
            };
            evidence::record(&mut db, &look).await?;
            let proof = evidence::prove_inclusion(&mut db, &sealed).await?;
            let body = sealed.body.as_deref().map(String::from_utf8_lossy);
            let proven = proof.as_ref().map_or_else(
                || "not under a signed head yet".to_owned(),
                |proof| format!("{} hashes lead to the head over {} events", proof.path.len(), proof.head.size),
            );
            let mut item = summary(&sealed);
            item["body"] =
                sealed.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
            item["proof"] = proof.as_ref().map_or(serde_json::Value::Null, |proof| {
                let path: Vec<_> = proof.path.iter().map(hex::encode).collect();
                json!({ "index": sealed.seq, "path": path, "head": proof.head.note })
            });
            let fields = [
                ("number", sealed.seq.to_string()),
                ("business", sealed.leaf.business_id.map_or_else(String::new, |id| id.to_string())),
                ("its number", sealed.leaf.business_seq.to_string()),
                ("at", sealed.leaf.at.to_rfc3339()),
                ("body", body.map_or_else(|| "let go: the law's time is over".to_owned(), |body| body.into_owned())),
                ("proof", proven),
            ];
            output.item(&item, &fields)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn code_of(standing: &evidence::Standing) -> ExitCode {
    if standing.forked.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An event without its body.
fn summary(sealed: &Sealed) -> serde_json::Value {
    json!({
        "seq": sealed.seq,
        "id": sealed.leaf.event_id,
        "business_id": sealed.leaf.business_id,
        "business_seq": sealed.leaf.business_seq,
        "at": sealed.leaf.at,
        "body_sha256": hex::encode(sealed.leaf.body_sha256),
        "previous": hex::encode(sealed.leaf.previous),
        "leaf": hex::encode(sealed.hash),
    })
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn key(config: &Config) -> anyhow::Result<Verifier> {
    let file = config.evidence.key_file.clone().unwrap_or_else(|| config.data.dir.join("evidence.key"));
    Ok(read_key(&file).context("`muneem serve` makes the key on its first start")?.verifier().clone())
}

fn read_public_key(file: &std::path::Path) -> anyhow::Result<Verifier> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Verifier::parse(&text).with_context(|| format!("{} holds no public key of a log", file.display()))
}
