mod approval;
mod business;
mod staff;
mod support;

use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::{
    evidence::By,
    people::{self, NewToken, Role, Scope},
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    oidc,
    output::{Output, json_line},
};
use crate::{app::App, config::Config};

/// Businesses, who works for them, and the tokens that speak for them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Businesses: whose records are kept here
    Business {
        #[command(subcommand)]
        command: business::Business,
    },
    /// Who works here, and in which roles
    Staff {
        #[command(subcommand)]
        command: staff::Staff,
    },
    /// Decisions that take a second person
    Approval {
        #[command(subcommand)]
        command: approval::Approval,
    },
    /// Support, where a business has let it in
    Support {
        #[command(subcommand)]
        command: support::Support,
    },
    /// Identity providers that staff may sign in to the console with
    Oidc {
        #[command(subcommand)]
        command: oidc::Command,
    },
    Invite(super::invite::Args),
    /// Show who may do what
    #[command(after_help = "Example:\n  muneem people roles")]
    Roles {
        #[command(flatten)]
        output: Output,
    },
    /// Bearer tokens of the HTTP API
    Token {
        #[command(subcommand)]
        command: Token,
    },
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Make a token; it is shown once
    #[command(
        after_help = "Example:\n  muneem people token create --bootstrap\n  muneem people token create --business \
                            sharma-mobiles --scope queue:write --label \"checkout page\""
    )]
    Create {
        /// For whoever runs this installation: everything, for all businesses
        #[arg(long, conflicts_with_all = ["business", "scopes", "label"])]
        bootstrap: bool,
        /// The one business it may see [default: all]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// What it may do, such as queue:write: `muneem people roles` lists all
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required_unless_present = "bootstrap")]
        scopes: Vec<Scope>,
        /// Who or what will hold it
        #[arg(long, required_unless_present = "bootstrap")]
        label: Option<String>,
        /// Where it may be used from: an address or a block such as 203.0.113.0/24 [default: anywhere]
        #[arg(long = "from", value_name = "NETWORK", value_delimiter = ',')]
        networks: Vec<String>,
        /// When it ends by itself (RFC 3339) [default: never]
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<DateTime<Utc>>,
        #[command(flatten)]
        output: Output,
    },
    /// List all tokens, without their secrets
    #[command(after_help = "Example:\n  muneem people token list --json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// End a token for good
    #[command(after_help = "Example:\n  muneem people token revoke 0123456789abcdef")]
    Revoke {
        /// The public id, second part of the token
        public_id: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    // The table is the program's own: it needs no database.
    if let Command::Roles { output } = args.command {
        roles(output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (_database, app) = super::open(config).await?;
    match args.command {
        Command::Roles { .. } => {}
        Command::Invite(args) => super::invite::run(&app, args).await?,
        Command::Business { command } => business::run(&app, command).await?,
        Command::Staff { command } => staff::run(&app, command).await?,
        Command::Approval { command } => approval::run(&app, command).await?,
        Command::Support { command } => support::run(&app, command).await?,
        Command::Oidc { command } => oidc::run(&app, command).await?,
        Command::Token { command } => token(&app, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each scope, with the roles that have it.
fn roles(output: Output) -> anyhow::Result<()> {
    let may = |scope: Scope| Role::ALL.into_iter().filter(move |role| role.may(scope)).map(Role::as_str);
    let rows: Vec<serde_json::Value> = Scope::ALL
        .iter()
        .map(|scope| json!({ "scope": scope.as_str(), "roles": may(*scope).collect::<Vec<_>>() }))
        .collect();
    if output.is_json() {
        return rows.iter().try_for_each(json_line);
    }
    let headings: Vec<&str> = std::iter::once("scope").chain(Role::ALL.map(Role::as_str)).collect();
    output.table(&headings, Scope::ALL, |scope| {
        let cells = Role::ALL.map(|role| if role.may(*scope) { "x" } else { "." }.to_owned());
        std::iter::once(scope.to_string()).chain(cells).collect()
    })
}

async fn token(app: &App, command: Token) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    match command {
        Token::Create { bootstrap, business, scopes, label, networks, expires_at, output } => {
            let business_id = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let new = match (bootstrap, label) {
                (false, label) => {
                    let networks = networks.iter().map(|text| people::read_network(text)).collect::<Result<_, _>>()?;
                    let label = label.unwrap_or_default();
                    NewToken { label, business_id, staff_id: None, scopes, networks, expires_at }
                }
                (true, _) => NewToken { expires_at, ..NewToken::bootstrap() },
            };
            let (token, bearer) = people::create_token(&mut db, new, &*app.deps.clock, &*app.deps.chance).await?;
            let bearer = bearer.expose_secret();
            output.done(
                &json!({ "public_id": token.public_id, "token": bearer }),
                &format!("{bearer}\nKeep it now: it is not stored and cannot be shown again."),
            )
        }
        Token::List { output } => {
            let tokens = people::list_tokens(&mut db).await?;
            let now = app.deps.clock.now();
            output.table(&["public id", "label", "scopes", "created", "last used", "usable"], &tokens, |token| {
                let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
                let used = token.last_used_at.map_or_else(|| "never".to_owned(), |at| at.date_naive().to_string());
                let usable = if token.is_usable(now) { "yes" } else { "no" };
                let created = token.created_at.date_naive().to_string();
                vec![token.public_id.clone(), token.label.clone(), scopes.join(","), created, used, usable.to_owned()]
            })
        }
        Token::Revoke { public_id, output } => {
            let by = By::operator(app.deps.clock.now(), &*app.deps.chance);
            people::revoke_token(&mut db, &public_id, &by).await.context("nothing was revoked")?;
            output.done(&json!({ "public_id": public_id, "revoked": true }), &format!("revoked {public_id}"))
        }
    }
}
