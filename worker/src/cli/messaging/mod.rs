mod campaigns;
mod send;
mod wishes;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::{
    messaging::{self, MessageId},
    outbound::{Phone, carrier::NumberId},
    people,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    mail,
    output::{Output, word},
    senders, templates,
};
use crate::{app::App, config::Config};

/// Messages, the numbers they are sent from, and who wants to hear what
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List messages, newest first
    #[command(after_help = "Example:\n  muneem messaging list --business sharma-mobiles --limit 10")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those older than this one: the last of the page before
        #[arg(long, value_name = "ID")]
        before: Option<MessageId>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one message with its attempts and what the carrier reported
    #[command(after_help = "Example:\n  muneem messaging show 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Show {
        /// The message's id
        id: MessageId,
        #[command(flatten)]
        output: Output,
    },
    Send(send::Args),
    /// WhatsApp numbers that businesses send from
    Account {
        #[command(subcommand)]
        command: Account,
    },
    /// How those numbers stand with the carrier: quality, limits, what is held, what wants to be seen
    #[command(after_help = "Example:\n  muneem messaging health --business sharma-mobiles")]
    Health {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// The words of messages: what there is, and how it stands with the carrier
    Templates(templates::Args),
    /// Release a hold: what waits behind it goes out
    #[command(after_help = "Example:\n  muneem messaging release 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Release {
        /// The hold's id, from `muneem messaging health`
        id: Uuid,
    },
    /// Put an alert away that somebody has seen to
    #[command(after_help = "Example:\n  muneem messaging seen 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Seen {
        /// The alert's id, from `muneem messaging health`
        id: Uuid,
    },
    /// What people agreed to, and took back
    Consent {
        #[command(subcommand)]
        command: wishes::ConsentCommand,
    },
    /// Reasons not to write to somebody
    Suppress {
        #[command(subcommand)]
        command: wishes::SuppressCommand,
    },
    /// Words by which people stop messages
    Words {
        #[command(subcommand)]
        command: wishes::WordsCommand,
    },
    /// Say whether a message to somebody may go, and why not; that you asked is on record
    #[command(after_help = "Example:\n  muneem messaging check sharma-mobiles --phone +919812345678 \\\n    \
                            --purpose marketing.offers --channel whatsapp")]
    Check(wishes::CheckArgs),
    /// The same thing said to many: what it would cost, how it reads, and how it goes out
    Campaigns {
        #[command(subcommand)]
        command: campaigns::Command,
    },
    /// Mail: whom it comes from, and what came back
    Mail {
        #[command(subcommand)]
        command: mail::Command,
    },
}

#[derive(Debug, Subcommand)]
enum Account {
    /// Add the number that a business sends from, or change what is known of it
    ///
    /// Token, app secret and verify token are settings of the installation: `messaging.whatsapp` in muneem.toml, or the
    /// environment. Invoices that waited for the number go out by themselves.
    #[command(
        after_help = "Example:\n  muneem messaging account set sharma-mobiles --phone-number-id 106540352242922 \
                            --waba-id 102290129340398 --display-phone +919876500142"
    )]
    Set {
        /// Handle of the business
        business: String,
        /// The carrier's id of the number: WhatsApp Manager, API setup
        #[arg(long, value_name = "DIGITS")]
        phone_number_id: String,
        /// Id of the WhatsApp Business Account that the number belongs to
        #[arg(long, value_name = "DIGITS")]
        waba_id: String,
        /// The number as customers see it
        #[arg(long, value_name = "NUMBER")]
        display_phone: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give a number an app of the business's own, whose secrets are read from files, or take it away again
    ///
    /// Its webhooks come to /webhooks/whatsapp/HANDLE: enter that address and the verify token in the app's dashboard.
    #[command(
        after_help = "Example:\n  muneem messaging account app sharma-mobiles --phone-number-id 106540352242922 \
                            --token-file token --secrets-file secrets --verify-token-file verify"
    )]
    App {
        /// Handle of the business
        business: String,
        /// The carrier's id of the number
        #[arg(long, value_name = "DIGITS")]
        phone_number_id: String,
        /// File with the access token of the app's system user
        #[arg(long, value_name = "FILE", required_unless_present = "remove")]
        token_file: Option<PathBuf>,
        /// File with the app secrets that sign its webhooks, one a line: two while one is replaced by the other
        #[arg(long, value_name = "FILE", required_unless_present = "remove")]
        secrets_file: Option<PathBuf>,
        /// File with the word that Meta shows when it verifies the webhook address
        #[arg(long, value_name = "FILE", required_unless_present = "remove")]
        verify_token_file: Option<PathBuf>,
        /// Version of the Cloud API; the installation's if absent
        #[arg(long, value_name = "VERSION")]
        api_version: Option<String>,
        /// Send with the installation's app again
        #[arg(long, conflicts_with_all = ["token_file", "secrets_file", "verify_token_file", "api_version"])]
        remove: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the numbers; a business sends from its first
    #[command(after_help = "Example:\n  muneem messaging account list")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    if let Command::Templates(args) = args.command {
        return Box::pin(templates::run(args, config)).await;
    }
    let (_database, app) = super::open(config).await?;
    let mut db = app.deps.db.acquire().await?;
    match args.command {
        Command::Templates(_) => {}
        Command::List { business, limit, before, output } => {
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let messages = messaging::list_messages(&mut db, business, before, limit).await?;
            output.table(&["id", "purpose", "to", "state", "requested", "error"], &messages, |message| {
                vec![
                    message.message_id.to_string(),
                    message.purpose.clone(),
                    message.recipient.clone(),
                    word(&message.state),
                    instant(message.created_at),
                    message.error_details.clone().unwrap_or_default(),
                ]
            })?;
        }
        Command::Show { id, output } => {
            let found = messaging::find_timeline(&mut db, None, id).await?;
            let timeline =
                found.with_context(|| format!("there is no message {id}: `muneem messaging list` shows the newest"))?;
            show(&timeline, output)?;
        }
        Command::Send(args) => {
            drop(db);
            send::run(&app, args).await?;
        }
        Command::Account { command } => {
            drop(db);
            account(&app, command).await?;
        }
        Command::Health { business, output } => {
            drop(db);
            senders::health(&app, business.as_deref(), output).await?;
        }
        Command::Release { id } => {
            drop(db);
            senders::release(&app, id).await?;
        }
        Command::Seen { id } => {
            drop(db);
            senders::seen(&app, id).await?;
        }
        Command::Consent { command } => {
            drop(db);
            return wishes::consent(&app, command).await;
        }
        Command::Suppress { command } => {
            drop(db);
            wishes::suppress(&app, command).await?;
        }
        Command::Words { command } => {
            drop(db);
            wishes::words(&app, command).await?;
        }
        Command::Check(args) => {
            drop(db);
            wishes::check(&app, args).await?;
        }
        Command::Campaigns { command } => {
            drop(db);
            return campaigns::run(&app, command).await;
        }
        Command::Mail { command } => {
            drop(db);
            mail::run(&app, command).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The message, and below it one line for each step of its way.
fn show(timeline: &messaging::Timeline, output: Output) -> anyhow::Result<()> {
    let message = &timeline.message;
    let mut fields = vec![
        ("id", message.message_id.to_string()),
        ("purpose", message.purpose.clone()),
        ("to", message.recipient.clone()),
        ("way", format!("{} ({} of {})", message.channel.as_str(), message.way, message.ways)),
        ("state", word(&message.state)),
        ("template", format!("{} ({})", message.template, message.language)),
        ("file", message.document_filename.clone().unwrap_or_default()),
        ("requested", instant(message.created_at)),
        ("expires", instant(message.expires_at)),
        ("held", message.held_scope.clone().unwrap_or_default()),
        ("skipped", message.skipped_because.clone().unwrap_or_default()),
        ("error", error(message.error_code, message.error_details.as_deref())),
    ];
    for other in &timeline.others {
        fields.push(("other way", format!("{} {} {}", other.channel.as_str(), word(&other.state), other.message_id)));
    }
    for attempt in &timeline.attempts {
        let error = error(attempt.error_code, attempt.error_details.as_deref());
        let line = format!("{} {} {}", instant(attempt.started_at), word(&attempt.outcome), error);
        fields.push(("attempt", format!("{} {}", attempt.number, line.trim_end())));
    }
    for event in &timeline.events {
        let line = format!("{} {} {}", instant(event.at), event.status, error(event.error_code, None));
        fields.push(("receipt", line.trim_end().to_owned()));
    }
    output.item(timeline, &fields)
}

async fn account(app: &App, command: Account) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    match command {
        Account::Set { business, phone_number_id, waba_id, display_phone, output } => {
            let account = messaging::Account {
                business: people::load_business(&mut db, &business).await?.business_id,
                number: NumberId::parse(&phone_number_id)
                    .map_err(|mend| anyhow::anyhow!("--phone-number-id: {mend}"))?,
                waba_id,
                display_phone: Phone::parse(&display_phone).context("--display-phone")?,
            };
            messaging::set_account(&mut db, &account, &app.operator()).await?;
            let waits = match app.credentials {
                Some(_) => "",
                None => "; messages wait until access token, app secret and verify token are configured",
            };
            output.done(&shown(&account), &format!("{business} sends from number {phone_number_id}{waits}"))
        }
        Account::App {
            business,
            phone_number_id,
            token_file,
            secrets_file,
            verify_token_file,
            api_version,
            remove: _,
            output,
        } => {
            let files = senders::AppFiles { token_file, secrets_file, verify_token_file, api_version };
            drop(db);
            senders::set_app(app, (&business, &phone_number_id), &files, output).await
        }
        Account::List { business, output } => {
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let accounts = messaging::list_accounts(&mut db, business).await?;
            let handles = people::list_businesses(&mut db).await?;
            let accounts: Vec<_> = accounts.iter().map(shown).collect();
            output.table(&["business", "phone number id", "waba id", "number"], &accounts, |account| {
                let of = |field: &str| account[field].as_str().unwrap_or_default().to_owned();
                let handle = handles.iter().find(|known| known.business_id.0.to_string() == of("business_id"));
                let handle = handle.map(|known| known.handle.clone()).unwrap_or_default();
                vec![handle, of("phone_number_id"), of("waba_id"), of("display_phone")]
            })
        }
    }
}

/// The number is the business's own, printed on its shop: nobody's secret.
fn shown(account: &messaging::Account) -> Value {
    json!({
        "business_id": account.business.0,
        "phone_number_id": account.number.as_str(),
        "waba_id": account.waba_id,
        "display_phone": account.display_phone.as_e164(),
    })
}

fn error(code: Option<i64>, details: Option<&str>) -> String {
    let code = code.map(|code| code.to_string());
    [code.as_deref(), details].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

pub(super) fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
