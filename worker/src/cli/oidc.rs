use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Subcommand;
use muneem_jobs::people::{
    self, Authority, Decision,
    oidc::{self, NewProvider},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::output::Output;
use crate::{
    app::App,
    outbound::{clock::SystemClock, oidc::Providers},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let staff sign in with a provider, once they have linked themselves
    #[command(
        after_help = "Example:\n  muneem people oidc add google --label Google --issuer https://accounts.google.com \
                            --client-id 12-ab.apps.example --client-secret-file /etc/muneem/google.secret\n\n\
                            Register this redirect address with the provider: <console origin>/console/oidc/google/callback"
    )]
    Add(Box<Add>),
    /// List the providers in use
    #[command(after_help = "Example:\n  muneem people oidc list --json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Ask a provider what it publishes about itself, and say what is off
    #[command(after_help = "Example:\n  muneem people oidc check google")]
    Check {
        /// Its short name
        handle: String,
        #[command(flatten)]
        output: Output,
    },
    /// End a provider: nobody signs in with it any more
    #[command(after_help = "Example:\n  muneem people oidc remove google")]
    Remove {
        /// Its short name
        handle: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Short name, which stands in addresses
    handle: String,
    /// What stands on the button after "Sign in with"
    #[arg(long)]
    label: String,
    /// Its address, exactly as it stands in its tokens
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// What it knows us by
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// File with the secret that goes with it [default: a public client, which has none]
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Handle of the business whose staff may use it [default: all staff]
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
    /// Method (`amr`, RFC 8176) that counts as a second factor, such as mfa [default: none]
    #[arg(long = "trust-amr", value_name = "VALUE", value_delimiter = ',')]
    trusted_amr: Vec<String>,
    /// Class (`acr`) that counts as a second factor [default: none]
    #[arg(long = "trust-acr", value_name = "VALUE", value_delimiter = ',')]
    trusted_acr: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    let deps = &app.deps;
    let mut db = deps.db.acquire().await?;
    let operator = Authority::operator();
    let decision = Decision { by: &operator, now: deps.clock.now(), chance: &*deps.chance };
    match command {
        Command::Add(add) => {
            let Add {
                handle,
                label,
                issuer,
                client_id,
                client_secret_file,
                business,
                trusted_amr,
                trusted_acr,
                output,
            } = *add;
            let business_id = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let client_secret = match client_secret_file {
                None => None,
                Some(file) => {
                    let text =
                        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                    Some(Zeroizing::new(text).trim().to_owned().into())
                }
            };
            let new =
                NewProvider { business_id, handle, label, issuer, client_id, client_secret, trusted_amr, trusted_acr };
            let provider = oidc::add_provider(&mut db, &deps.vault, &new, &decision).await?;
            let callback = format!("/console/oidc/{}/callback", provider.handle);
            let told = format!(
                "added {}: register the redirect address <console origin>{callback} with it\n\
                 Staff link themselves at /console/oidc, signed in.",
                provider.handle
            );
            output.done(&json!({ "provider": provider, "callback": callback }), &told)
        }
        Command::List { output } => {
            let providers = oidc::list_providers(&mut db).await?;
            output.table(&["handle", "label", "issuer", "for", "second factor"], &providers, |provider| {
                let trusted = [provider.trusted_amr.as_slice(), provider.trusted_acr.as_slice()].concat();
                vec![
                    provider.handle.clone(),
                    provider.label.clone(),
                    provider.issuer.clone(),
                    provider.business_id.map_or_else(|| "all".to_owned(), |business| business.to_string()),
                    if trusted.is_empty() { "ours".to_owned() } else { trusted.join(" ") },
                ]
            })
        }
        Command::Check { handle, output } => {
            let provider = oidc::load_provider(&mut db, &handle).await?;
            oidc::client_secret(&mut db, &deps.vault, &provider).await.context("its client secret does not open")?;
            Providers::new(Arc::new(SystemClock))?.probe(&provider.issuer).await?;
            let told = format!("{} answers as a provider, and its keys can be used", provider.issuer);
            output.done(&json!({ "handle": handle, "issuer": provider.issuer, "answers": true }), &told)
        }
        Command::Remove { handle, output } => {
            let provider = oidc::remove_provider(&mut db, &handle, &decision).await?;
            output.done(&provider, &format!("removed {handle}: nobody signs in with it any more"))
        }
    }
}
