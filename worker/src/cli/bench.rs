use std::process::ExitCode;

use super::output;
use crate::{
    app::Database,
    bench::{self, Bench, Figure},
    config::Config,
};

/// Measures this Postgres and this machine, in a database that it makes and drops
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cargo run --release -- bench queue      prints each figure beside its baseline, within ten minutes"
)]
pub(super) struct Args {
    /// What to measure
    #[arg(value_enum)]
    bench: What,
    /// Of `vault`: values that are sealed anew; fewer for a first look
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    rows: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Drain, enqueue, latency, and what a million waiting and ten million finished jobs cost
    Queue,
    /// Audited appends beside plain inserts, sealing, and a million events verified offline
    Evidence,
    /// Sealing and opening a field, and sealing a million rows anew beside readers and writers
    Vault,
    /// A number's rate held by four workers, codes that overtake a million messages, and webhooks kept and applied
    Messaging,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let database = Database::open(config, None)?;
    let bench = match args.bench {
        What::Queue => Bench::Queue,
        What::Evidence => Bench::Evidence,
        What::Messaging => Bench::Messaging,
        What::Vault => Bench::Vault { rows: usize::try_from(args.rows)? },
    };
    let json = args.json;
    let mut all_hold = true;
    let mut printed = Ok(());
    let mut tell = |figure: &Figure| {
        all_hold &= figure.holds;
        let told = if json { output::json_line(figure) } else { output::text(&(in_words(figure) + "\n")) };
        printed = std::mem::replace(&mut printed, Ok(())).and(told);
    };
    bench::run(bench, &database, &mut tell).await?;
    printed?;
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_words(figure: &Figure) -> String {
    let beside = match (figure.baseline, figure.ratio) {
        (Some(baseline), Some(ratio)) => format!("baseline {baseline:>10.1}   ratio {ratio:.2}"),
        _ => String::new(),
    };
    format!(
        "{:<30} {:>10.3} {:<9} {beside:<34} {}  {}",
        figure.name,
        figure.value,
        figure.unit,
        figure.target,
        if figure.holds { "holds" } else { "DOES NOT HOLD" }
    )
}
