use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use muneem_jobs::{
    messaging::template::{self, Library},
    outbound::Phone,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    sandbox::{self, Number, Options, Pace},
};

/// Stand-in for the Cloud API and a mail server, with a phone and an inbox to look at
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muneem sandbox --seed 7      then open http://127.0.0.1:8788/sandbox and …/sandbox/mail"
)]
pub(super) struct Args {
    /// Address on loopback to listen on
    #[arg(long, default_value = "127.0.0.1:8788", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address on loopback on which it takes mail (SMTP)
    #[arg(long, default_value = "127.0.0.1:8725", value_name = "ADDRESS")]
    mail: SocketAddr,
    /// Start of its chances: the same seed and requests, the same ids and faults
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Where webhooks go
    #[arg(long, default_value = "http://127.0.0.1:8787/webhooks/whatsapp", value_name = "URL")]
    callback: String,
    /// One more business's number, as often as needed: ids of number and account, the number itself, the name
    #[arg(long = "number", value_name = "ID,ACCOUNT,+91…,NAME", value_parser = number)]
    numbers: Vec<Number>,
    /// Messages that every number may send in a second: 80, or 1000 after the carrier's upgrade
    #[arg(long, default_value_t = 80, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Begin without the templates that muneem ships and those of messaging.templates_dir, so that they have to be submitted
    #[arg(long)]
    no_templates: bool,
    /// Seconds that the review of a submitted template takes
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    review: u64,
    /// Deliver and read at once, with no pause for whoever watches
    #[arg(long)]
    instant: bool,
}

/// Reads one more number.
fn number(text: &str) -> Result<Number, String> {
    let parts: Vec<_> = text.splitn(4, ',').map(str::trim).collect();
    let [id, account, phone, name] = parts[..] else {
        return Err("give four things with commas between: id of the number, id of the account, +91…, name".to_owned());
    };
    let digits = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(id) || !digits(account) || name.is_empty() {
        return Err("both ids are digits, and the name is not empty".to_owned());
    }
    let phone = Phone::parse(phone).map_err(|error| error.to_string())?;
    Ok(Number::new(id, account, name, phone))
}

/// Serves until Ctrl-C. Of the settings it reads where the installation's own templates lie.
pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let words = Library::load(config.messaging.templates_dir.as_deref()).context("the templates")?;
    template::install(&words)?;
    let mut options = Options {
        callback_url: Some(args.callback),
        mail: Some(args.mail),
        seed_templates: !args.no_templates,
        review: Some(Duration::from_secs(args.review)),
        ..Options::local(args.listen, args.seed)
    };
    options.numbers.extend(args.numbers);
    for number in &mut options.numbers {
        number.messages_per_second = args.rate;
    }
    if args.instant {
        options.pace = Pace::INSTANT;
    }
    let end = CancellationToken::new();
    let serving = sandbox::serve(options, end.clone());
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        asked = tokio::signal::ctrl_c() => {
            asked?;
            end.cancel();
            serving.await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
