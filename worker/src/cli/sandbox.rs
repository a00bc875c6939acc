use std::{net::SocketAddr, process::ExitCode};

use tokio_util::sync::CancellationToken;

use crate::sandbox::{self, Options};

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
    /// Where status webhooks go
    #[arg(long, default_value = "http://127.0.0.1:8787/webhooks/whatsapp", value_name = "URL")]
    callback: String,
}

/// Serves until Ctrl-C.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options =
        Options { callback_url: Some(args.callback), mail: Some(args.mail), ..Options::local(args.listen, args.seed) };
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
