//! `muneem messaging consent|suppress|words|check`: what people want to hear.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::{
    messaging::wishes::{
        self, Cause, Channel, Class, Consent, ConsentState, Contact, Import, Item, NewConsent, NewSuppression,
        Question, RefusedRow, Scope, Source, Suppression, UserId, Verdict, words,
    },
    outbound::{Email, Phone},
    people::{self, BusinessId},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::super::output::{self, Output};
use crate::app::App;

/// Whom it is about: one of the three. A shell keeps what is typed: name a file with `@FILE`, or `@-` for standard input.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// A mobile number
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    /// A mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// A WhatsApp user id
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
}

impl Whom {
    fn read(&self) -> anyhow::Result<Contact> {
        if let Some(text) = &self.phone {
            return Ok(Contact::Phone(Phone::parse(&given(text)?).context("--phone")?));
        }
        if let Some(text) = &self.email {
            return Ok(Contact::Email(Email::parse(given(text)?.trim()).context("--email")?));
        }
        let text = self.user_id.as_deref().context("name --phone, --email or --user-id")?;
        Ok(Contact::UserId(UserId::parse(given(text)?.trim())?))
    }
}

/// The text itself, or what stands in the file that it names.
pub(super) fn given(text: &str) -> anyhow::Result<String> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let mut content = String::new();
    if path == "-" {
        io::stdin().read_to_string(&mut content)?;
    } else {
        File::open(path).with_context(|| path.to_owned())?.read_to_string(&mut content)?;
    }
    Ok(content.trim().to_owned())
}

#[derive(Debug, Subcommand)]
pub(super) enum ConsentCommand {
    /// Record that somebody agreed to one purpose, or took it back
    #[command(after_help = "Example:\n  muneem messaging consent record sharma-mobiles --phone +919812345678 \\\n    \
                            --purpose marketing.offers --state given --source paper --wording offers-v3 --language hi\n  \
                            muneem messaging consent record sharma-mobiles --phone @- --purpose marketing.offers \\\n    \
                            --state withdrawn --source phone_call")]
    Record {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        whom: Whom,
        /// Your own word for what it is about
        #[arg(long, value_name = "PURPOSE")]
        purpose: String,
        /// given or withdrawn
        #[arg(long)]
        state: ConsentState,
        /// How you know: web_form, app, paper, in_store or phone_call
        #[arg(long)]
        source: Source,
        /// Which words she agreed to; needed for what is given
        #[arg(long, value_name = "VERSION")]
        wording: Option<String>,
        /// In which language she was asked; needed for what is given
        #[arg(long)]
        language: Option<String>,
        /// File with what proves it, or with where that lies
        #[arg(long, value_name = "FILE")]
        proof_file: Option<PathBuf>,
        /// When she said it, as RFC 3339 [default: now]
        #[arg(long, value_name = "INSTANT")]
        at: Option<DateTime<Utc>>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a contact said, newest first; that you looked is on record
    #[command(after_help = "Example:\n  muneem messaging consent show sharma-mobiles --phone +919812345678")]
    Show {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        output: Output,
    },
    /// Take consents out of a list that was kept elsewhere
    ///
    /// CSV in UTF-8. Columns: phone, email or user_id (one in each row), purpose, state, at, and for what is given language
    /// and wording_version; proof if there is one. Every row that is off is told by its line, and then nothing is written,
    /// unless you say --partial. Who was erased, or said that she wants no messages, is refused.
    #[command(after_help = "Example:\n  muneem messaging consent import sharma-mobiles consents.csv\n  \
                            muneem messaging consent import sharma-mobiles - --partial < consents.csv")]
    Import {
        /// Handle of the business
        business: String,
        /// The list; - reads standard input
        file: PathBuf,
        /// Write the rows that are in order although others are not
        #[arg(long)]
        partial: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SuppressCommand {
    /// Stop messages to a contact, at once
    #[command(
        after_help = "Example:\n  muneem messaging suppress set sharma-mobiles --phone +919812345678 --scope all \\\n    \
                            --cause person --reason asked_in_shop"
    )]
    Set {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        whom: Whom,
        /// all, marketing, channel or identity
        #[arg(long)]
        scope: Scope,
        /// whatsapp or mail [default: everywhere]
        #[arg(long)]
        channel: Option<Channel>,
        /// person: she said so, and only she takes it back; operator: you decided it
        #[arg(long)]
        cause: Cause,
        /// Why, in one word
        #[arg(long)]
        reason: String,
        /// Until when, as RFC 3339, for what you decided
        #[arg(long, value_name = "INSTANT")]
        until: Option<DateTime<Utc>>,
        #[command(flatten)]
        output: Output,
    },
    /// End what you or the carrier set; what a person said, she takes back herself
    #[command(after_help = "Example:\n  muneem messaging suppress lift sharma-mobiles --phone +919812345678 \\\n    \
                            --scope identity --cause carrier --reason seen_at_counter")]
    Lift {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        whom: Whom,
        /// all, marketing, channel or identity
        #[arg(long)]
        scope: Scope,
        /// operator or carrier
        #[arg(long)]
        cause: Cause,
        /// Why, in one word
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum WordsCommand {
    /// List the languages whose words to stop are known, who has read them, and what a business makes of them
    #[command(after_help = "Example:\n  muneem messaging words list sharma-mobiles")]
    List {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take a list at its word that no native speaker has read for us
    #[command(after_help = "Example:\n  muneem messaging words on sharma-mobiles hi")]
    On {
        /// Handle of the business
        business: String,
        /// Its language, as `words list` shows it
        language: String,
    },
    /// Ask again where a word of such a list is used
    #[command(after_help = "Example:\n  muneem messaging words off sharma-mobiles hi")]
    Off {
        /// Handle of the business
        business: String,
        /// Its language
        language: String,
    },
    /// Say what a text would be taken for
    #[command(after_help = "Example:\n  muneem messaging words try sharma-mobiles 'stop by the shop'")]
    Try {
        /// Handle of the business
        business: String,
        /// The text
        text: String,
        #[command(flatten)]
        output: Output,
    },
}

/// What would be sent.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Handle of the business
    business: String,
    #[command(flatten)]
    whom: Whom,
    /// What for
    #[arg(long, value_name = "PURPOSE")]
    purpose: String,
    /// whatsapp or mail
    #[arg(long)]
    channel: Channel,
    /// marketing, transactional, statutory or otp
    #[arg(long, default_value = "marketing")]
    class: Class,
    #[command(flatten)]
    output: Output,
}

async fn business_of(db: &mut PgConnection, handle: &str) -> anyhow::Result<BusinessId> {
    Ok(people::load_business(db, handle).await?.business_id)
}

pub(super) async fn consent(app: &App, command: ConsentCommand) -> anyhow::Result<ExitCode> {
    let mut db = app.deps.db.acquire().await?;
    let (vault, by) = (&app.deps.vault, app.operator());
    match command {
        ConsentCommand::Record {
            business,
            whom,
            purpose,
            state,
            source,
            wording,
            language,
            proof_file,
            at,
            output,
        } => {
            anyhow::ensure!(state != ConsentState::AskAgain, "--state: take given or withdrawn");
            anyhow::ensure!(
                source.is_for_callers(),
                "--source: take web_form, app, paper, in_store or phone_call; `consent import` takes lists"
            );
            let business = business_of(&mut db, &business).await?;
            let proof =
                proof_file.map(|path| std::fs::read_to_string(&path).with_context(|| path.display().to_string()));
            let proof = proof.transpose()?;
            let new = NewConsent {
                purpose: &purpose,
                state,
                source,
                wording_version: wording.as_deref(),
                language: language.as_deref(),
                proof: proof.as_deref().map(str::trim),
                at: at.unwrap_or(by.now),
            };
            let mut tx = db.begin().await?;
            let recorded = wishes::record(&mut tx, vault, &by, business, (&whom.read()?, &new)).await?;
            tx.commit().await?;
            let shown = json!({ "contact_id": recorded.contact_id, "consent_id": recorded.consent_id,
                "new": recorded.new, "state": recorded.stands });
            output.done(&shown, &format!("{purpose} stands as {}", recorded.stands.as_str()))?;
        }
        ConsentCommand::Show { business, whom, output } => {
            let business = business_of(&mut db, &business).await?;
            let mut tx = db.begin().await?;
            let known = wishes::history(&mut tx, vault, &by, business, &whom.read()?).await?;
            tx.commit().await?;
            show(&known, output)?;
        }
        ConsentCommand::Import { business, file, partial, output } => {
            let business = business_of(&mut db, &business).await?;
            let source: Box<dyn Read + Send> = if file.as_os_str() == "-" {
                Box::new(io::stdin())
            } else {
                Box::new(File::open(&file).with_context(|| file.display().to_string())?)
            };
            let mut tell = |row: &RefusedRow| {
                let column = row.column.map(|column| format!("{column} ")).unwrap_or_default();
                super::super::complain(&format!("line {}: {column}{}", row.line, row.problem));
            };
            let done = wishes::import(&mut db, vault, &by, (business, Import { partial }), source, &mut tell).await?;
            let refused = done.refused > 0;
            let line = if refused && !partial {
                format!(
                    "nothing was written: {} of {} rows were refused, {} of them of erased people and {} of people who want \
                     no messages",
                    done.refused, done.rows, done.erased, done.stopped
                )
            } else {
                format!(
                    "{} of {} rows written, {} known before, {} refused ({} erased, {} want no messages)",
                    done.written, done.rows, done.known, done.refused, done.erased, done.stopped
                )
            };
            output.done(&done, &line)?;
            return Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(known: &wishes::Wishes, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output::json_line(known);
    }
    if let Some(at) = known.erased_at {
        output::text(&format!("erased {}\n\n", super::instant(at)))?;
    }
    let said = |one: &Consent| {
        vec![
            super::instant(one.at),
            one.purpose.clone(),
            one.state.as_str().to_owned(),
            one.source.clone(),
            one.wording_version.clone().unwrap_or_default(),
            if one.proved { "yes".to_owned() } else { String::new() },
            one.recorded_by.clone(),
        ]
    };
    output.table(&["said", "purpose", "state", "source", "wording", "proof", "recorded by"], &known.consents, said)?;
    output::text("\n")?;
    let suppressed = |one: &Suppression| {
        vec![
            super::instant(one.at),
            one.scope.as_str().to_owned(),
            one.channel.map(|channel| channel.as_str().to_owned()).unwrap_or_default(),
            one.cause.as_str().to_owned(),
            if one.set { "set" } else { "lifted" }.to_owned(),
            one.reason.clone(),
            one.until.map(super::instant).unwrap_or_default(),
        ]
    };
    output.table(&["since", "scope", "channel", "cause", "state", "reason", "until"], &known.suppressions, suppressed)
}

pub(super) async fn suppress(app: &App, command: SuppressCommand) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let (vault, by) = (&app.deps.vault, app.operator());
    let mut tx = db.begin().await?;
    let (changed, output) = match command {
        SuppressCommand::Set { business, whom, scope, channel, cause, reason, until, output } => {
            anyhow::ensure!(
                matches!(cause, Cause::Person | Cause::Operator),
                "--cause: take person or operator; the rest is told by the carrier alone"
            );
            let business = business_of(&mut tx, &business).await?;
            let new = NewSuppression { scope, channel, cause, reason: &reason, at: by.now, until };
            (wishes::suppress(&mut tx, vault, &by, business, (&whom.read()?, &new)).await?.1, output)
        }
        SuppressCommand::Lift { business, whom, scope, cause, reason, output } => {
            let business = business_of(&mut tx, &business).await?;
            let what = (&whom.read()?, scope, cause, reason.as_str());
            (wishes::lift(&mut tx, vault, &by, business, what).await?, output)
        }
    };
    tx.commit().await?;
    output.done(&json!({ "changed": changed }), if changed { "done" } else { "it was so before" })
}

pub(super) async fn words(app: &App, command: WordsCommand) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    match command {
        WordsCommand::List { business, output } => {
            let business = business_of(&mut db, &business).await?;
            let on = wishes::words_of(&mut db, business).await?;
            let rows: Vec<_> = words::lists()
                .map(|(language, list)| {
                    let taken = list.is_reviewed() || on.iter().any(|one| one == language);
                    json!({ "language": language, "reviewed_by": list.reviewed_by, "reviewed_on": list.reviewed_on,
                        "effect": if taken { "stops" } else { "asks" }, "stop": list.opt_out, "start": list.opt_in })
                })
                .collect();
            output.table(&["language", "read by", "on", "a word of it", "words"], &rows, |row| {
                let of = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
                let words = row["stop"].as_array().into_iter().flatten().filter_map(|word| word.as_str());
                let words = words.take(4).collect::<Vec<_>>().join(", ");
                vec![of("language"), of("reviewed_by"), of("reviewed_on"), of("effect"), words]
            })
        }
        WordsCommand::On { business, language } => set_words(app, &mut db, &business, (&language, true)).await,
        WordsCommand::Off { business, language } => set_words(app, &mut db, &business, (&language, false)).await,
        WordsCommand::Try { business, text, output } => {
            let business = business_of(&mut db, &business).await?;
            let on = wishes::words_of(&mut db, business).await?;
            let (route, language) = words::classify(&text, &on);
            let line =
                language.map_or_else(|| route.as_str().to_owned(), |list| format!("{} ({list})", route.as_str()));
            output.done(&json!({ "route": route.as_str(), "language": language }), &line)
        }
    }
}

async fn set_words(
    app: &App,
    db: &mut PgConnection,
    business: &str,
    (language, on): (&str, bool),
) -> anyhow::Result<()> {
    let business = business_of(db, business).await?;
    let mut tx = db.begin().await?;
    wishes::set_words(&mut tx, &app.operator(), business, (language, on)).await?;
    tx.commit().await?;
    let effect = if on { "stops messages" } else { "makes us ask" };
    output::text(&format!("a word of the list `{language}` {effect}\n"))
}

pub(super) async fn check(app: &App, args: CheckArgs) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let by = app.operator();
    let business = business_of(&mut db, &args.business).await?;
    let to = args.whom.read()?;
    let purpose = wishes::checked_purpose(&args.purpose)?;
    let question = Question { class: args.class, purpose, channel: args.channel, last_way: false };
    let mut tx = db.begin().await?;
    let item = Item { to: &to, others: &[], question };
    let verdict = wishes::judge(&mut tx, &app.deps.vault, business, &item, by.now).await?;
    wishes::note_checked(&mut tx, &by, business, (1, usize::from(verdict != Verdict::Allowed))).await?;
    tx.commit().await?;
    let reason = match verdict {
        Verdict::Allowed => None,
        Verdict::Skipped(reason) => Some(reason.as_str()),
    };
    args.output.done(&json!({ "allowed": reason.is_none(), "reason": reason }), reason.unwrap_or("allowed"))
}
