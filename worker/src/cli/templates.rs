//! `muneem messaging templates`: the words there are, and how they stand with the carrier.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::Subcommand;
use muneem_jobs::{
    messaging::template::{self, Compared, Entry, Language, Library, Line, Problems, Submission, Verdict},
    outbound::carrier::{LookUpError, RemoteTemplate, SampleHandle, TemplateForm},
    people::{self, BusinessId},
};
use serde_json::{Value, json};

use super::output::{Output, json_line, text, word};
use crate::{app::App, config::Config};

/// The words of messages
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the templates by folder and language, the installation's own among them
    #[command(after_help = "Example:\n  muneem messaging templates list")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Say what is wrong with templates, by file and line; ends with 1 when something is
    ///
    /// Looks at those that muneem ships and at those in `messaging.templates_dir`, against what the carrier takes: lengths,
    /// places of parameters, names, examples. Asks nobody and needs no database.
    #[command(after_help = "Example:\n  muneem messaging templates check --dir ./templates")]
    Check {
        /// Look at this directory rather than at messaging.templates_dir
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Compare the templates with those of the WhatsApp Business Account; ends with 1 when one of ours differs
    ///
    /// A template that the carrier alone has is shown and is no difference.
    #[command(after_help = "Example:\n  muneem messaging templates diff --business sharma-mobiles")]
    Diff {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        output: Output,
    },
    /// Submit templates that the carrier has not, and changed words of those that it has; nothing is ever deleted
    ///
    /// The carrier reviews what is submitted: usually within minutes, at most a day. It lets an approved template be
    /// changed once in a day and ten times in thirty; a template that it put in another category is left alone. Ends with 1
    /// when the carrier refused something.
    #[command(after_help = "Example:\n  muneem messaging templates push --business sharma-mobiles --dry-run")]
    Push {
        #[command(flatten)]
        whose: Whose,
        /// Only this folder's templates
        #[arg(long, value_name = "TEMPLATE")]
        only: Option<String>,
        /// Say what would be submitted, and submit nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Ask how the templates stand with the carrier, and keep it: what is not approved is then not sent
    #[command(after_help = "Example:\n  muneem messaging templates pull")]
    Pull {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Whose {
    /// Of this business only; else of every business that has a number
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { output } => {
            let library = Library::load(config.messaging.templates_dir.as_deref()).context("the templates")?;
            list(&library, output)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { dir, output } => check(dir.or(config.messaging.templates_dir).as_deref(), output),
        Command::Diff { whose, output } => {
            let (_database, app) = super::open(config).await?;
            diff(&app, &whose, output).await
        }
        Command::Push { whose, only, dry_run, output } => {
            let (_database, app) = super::open(config).await?;
            push(&app, &whose, only.as_deref(), dry_run, output).await
        }
        Command::Pull { whose, output } => {
            let (_database, app) = super::open(config).await?;
            pull(&app, &whose, output).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(library: &Library, output: Output) -> anyhow::Result<()> {
    let rows: Vec<_> = library.iter().map(|(folder, language, entry)| shown(folder, language, entry)).collect();
    output.table(
        &["template", "language", "name", "category", "class", "header", "parameters", "words"],
        &rows,
        |row| {
            let of = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            let parameters = row["parameters"].as_array().into_iter().flatten();
            let parameters: Vec<_> = parameters
                .map(|one| {
                    let of = |field: &str| one[field].as_str().unwrap_or_default();
                    format!("{}:{}", of("name"), of("type"))
                })
                .collect();
            let own = if row["own"] == true { "your own" } else { "shipped" };
            vec![
                of("template"),
                of("language"),
                of("name"),
                of("category"),
                of("class"),
                of("header"),
                parameters.join(" "),
                own.to_owned(),
            ]
        },
    )
}

fn shown(folder: &str, language: Language, entry: &Entry) -> Value {
    let words = &entry.template;
    json!({
        "template": folder,
        "language": language.as_str(),
        "name": words.name,
        "carrier_language": words.language,
        "category": words.category,
        "class": words.class(),
        "header": words.header.as_str(),
        "parameters": words.parameters,
        "own": entry.own,
        "reviewed_by": words.reviewed_by,
        "reviewed_on": words.reviewed_on.to_string(),
    })
}

fn check(dir: Option<&std::path::Path>, output: Output) -> anyhow::Result<ExitCode> {
    match Library::load(dir) {
        Ok(library) => {
            let (all, own) = (library.iter().count(), library.iter().filter(|(.., entry)| entry.own).count());
            let line = format!("{all} templates are well formed, {own} of them your own");
            output.done(&json!({ "templates": all, "own": own, "problems": [] }), &line)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Problems(problems)) => {
            if output.is_json() {
                problems.iter().try_for_each(json_line)?;
            } else {
                let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
                text(&lines)?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// An account, its business, and what the carrier has there.
struct Asked {
    line: Line,
    handle: String,
    remote: Vec<RemoteTemplate>,
}

/// Asks for every account of these businesses.
async fn ask(app: &App, whose: &Whose) -> anyhow::Result<Vec<Asked>> {
    let mut db = app.deps.db.acquire().await?;
    let business: Option<BusinessId> = match &whose.business {
        Some(handle) => Some(people::load_business(&mut db, handle).await?.business_id),
        None => None,
    };
    let lines = template::list_lines(&mut db, &app.deps.vault, business).await?;
    let handles = people::list_businesses(&mut db).await?;
    drop(db);
    ensure!(!lines.is_empty(), "there is no WhatsApp number yet: add one with `muneem messaging account set`");
    let mut asked = Vec::with_capacity(lines.len());
    for line in lines {
        let known = handles.iter().find(|known| known.business_id == line.business);
        let handle = known.map(|known| known.handle.clone()).unwrap_or_default();
        let remote = app.deps.carrier.list_templates(&line.sender, &line.waba_id).await;
        let remote = remote.with_context(|| format!("the templates of account {} ({handle})", line.waba_id))?;
        asked.push(Asked { line, handle, remote });
    }
    Ok(asked)
}

/// A row with the account it is of, for machines.
fn of_account(asked: &Asked, row: &Compared) -> Value {
    let mut shown = json!(row);
    shown["business"] = json!(asked.handle);
    shown["waba_id"] = json!(asked.line.waba_id);
    shown
}

/// What differs, in words.
fn in_words(row: &Compared) -> String {
    let parts = || row.differs.iter().map(|part| part.as_str()).collect::<Vec<_>>().join(", ");
    match row.verdict {
        Verdict::Missing => "missing there".to_owned(),
        Verdict::Same => "same".to_owned(),
        Verdict::Differs => format!("differs: {}", parts()),
        Verdict::CategoryChanged => {
            let category = row.carrier_category.as_deref().unwrap_or_default();
            // It announces a change a day before it makes it.
            let is = row.theirs.as_ref().is_some_and(|theirs| theirs.form.category == category);
            let takes = if is { "takes" } else { "will take" };
            let others: Vec<_> = row
                .differs
                .iter()
                .filter(|part| **part != template::Part::Category)
                .map(|part| part.as_str())
                .collect();
            let also = if others.is_empty() { String::new() } else { format!("; differs: {}", others.join(", ")) };
            format!("the carrier {takes} it for {category}{also}")
        }
        Verdict::OnlyThere => "only there".to_owned(),
    }
}

async fn diff(app: &App, whose: &Whose, output: Output) -> anyhow::Result<ExitCode> {
    let mut differs = false;
    let asked = ask(app, whose).await?;
    for (place, account) in asked.iter().enumerate() {
        let rows = template::compare(template::library(), &account.remote);
        differs |= rows.iter().any(|row| !matches!(row.verdict, Verdict::Same | Verdict::OnlyThere));
        if output.is_json() {
            rows.iter().map(|row| of_account(account, row)).try_for_each(|row| json_line(&row))?;
            continue;
        }
        if asked.len() > 1 {
            let gap = if place == 0 { "" } else { "\n" };
            text(&format!("{gap}{}, account {}\n", account.handle, account.line.waba_id))?;
        }
        output.table(&["template", "name", "language", "status", "compared"], &rows, |row| {
            vec![
                row.template.clone().unwrap_or_default(),
                row.name.clone(),
                row.language.clone(),
                row.status.clone().unwrap_or_default(),
                in_words(row),
            ]
        })?;
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is to be done about one template, and what came of it.
#[derive(serde::Serialize)]
struct Outcome {
    business: String,
    waba_id: String,
    template: String,
    name: String,
    language: String,
    #[serde(flatten)]
    done: Done,
}

#[derive(serde::Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Done {
    WouldCreate,
    WouldEdit { parts: Vec<template::Part> },
    Created { status: String, category: String },
    Edited { parts: Vec<template::Part> },
    Refused { code: Option<i64>, subcode: Option<i64>, says: String },
    Left { why: String },
}

impl Done {
    fn in_words(&self) -> String {
        let list = |parts: &[template::Part]| parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Self::WouldCreate => "would be created".to_owned(),
            Self::WouldEdit { parts } => format!("would be changed: {}", list(parts)),
            Self::Created { status, category } => format!("created: {status}, {category}"),
            Self::Edited { parts } => format!("changed: {}; in review", list(parts)),
            Self::Refused { code, subcode, says } => {
                let codes: Vec<_> = [code, subcode].into_iter().flatten().map(i64::to_string).collect();
                let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join("/")) };
                format!("refused{codes}: {says}")
            }
            Self::Left { why } => format!("left alone: {why}"),
        }
    }
}

async fn push(app: &App, whose: &Whose, only: Option<&str>, dry_run: bool, output: Output) -> anyhow::Result<ExitCode> {
    if let Some(only) = only {
        ensure!(
            template::library().of_folder(only).next().is_some(),
            "there is no template `{only}`: `muneem messaging templates list` shows them"
        );
    }
    let mut outcomes = Vec::new();
    for account in ask(app, whose).await? {
        for row in template::compare(template::library(), &account.remote) {
            let (Some(folder), Some(form)) = (&row.template, &row.ours) else { continue };
            if only.is_some_and(|only| only != folder) || row.verdict == Verdict::Same {
                continue;
            }
            let done = match planned(&row) {
                Err(why) => Done::Left { why },
                Ok(()) if dry_run && row.theirs.is_none() => Done::WouldCreate,
                Ok(()) if dry_run => Done::WouldEdit { parts: row.differs.clone() },
                Ok(()) => submit(app, &account.line, &row, form).await?,
            };
            let outcome = Outcome {
                business: account.handle.clone(),
                waba_id: account.line.waba_id.clone(),
                template: folder.clone(),
                name: row.name.clone(),
                language: row.language.clone(),
                done,
            };
            // One line each as it happens: the carrier takes its time.
            if output.is_json() {
                json_line(&outcome)?;
            }
            outcomes.push(outcome);
        }
    }
    if !output.is_json() {
        if outcomes.is_empty() {
            text("the carrier has every template as it stands here\n")?;
        } else {
            output.table(&["template", "name", "language", "came of it"], &outcomes, |one| {
                vec![one.template.clone(), one.name.clone(), one.language.clone(), one.done.in_words()]
            })?;
        }
    }
    let refused = outcomes.iter().any(|one| matches!(one.done, Done::Refused { .. }));
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether something may be submitted, or why not.
fn planned(row: &Compared) -> Result<(), String> {
    let Some(theirs) = &row.theirs else { return Ok(()) };
    let editable = ["APPROVED", "REJECTED", "PAUSED"].contains(&theirs.status.as_str());
    if row.verdict == Verdict::CategoryChanged && theirs.status == "APPROVED" {
        let category = row.carrier_category.as_deref().unwrap_or_default();
        return Err(format!(
            "the carrier takes it for {category}; ask for a review in WhatsApp Manager, or change words and name"
        ));
    }
    if editable { Ok(()) } else { Err(format!("it is {}, and cannot be changed now", theirs.status)) }
}

async fn submit(app: &App, line: &Line, row: &Compared, form: &TemplateForm) -> anyhow::Result<Done> {
    let carrier = &app.deps.carrier;
    let handle: Option<SampleHandle> = match template::sample_of(form) {
        Some(sample) => match carrier.upload_sample(&line.sender, &sample).await {
            Ok(handle) => Some(handle),
            Err(error) => return Ok(refused(&error)),
        },
        None => None,
    };
    let submission = Submission {
        business: line.business,
        waba_id: &line.waba_id,
        name: &row.name,
        language: &row.language,
        verdict: row.verdict,
    };
    let mut db = app.deps.db.acquire().await?;
    template::record_submission(&mut db, &submission, &app.operator()).await?;
    drop(db);
    let answer = match &row.theirs {
        Some(theirs) => carrier.edit_template(&line.sender, theirs, form, handle.as_ref()).await.map(|()| None),
        None => carrier.create_template(&line.sender, &line.waba_id, form, handle.as_ref()).await.map(Some),
    };
    let mut tx = app.deps.db.begin().await?;
    template::keep_answer(&mut tx, &submission, &answer, &app.operator()).await?;
    tx.commit().await?;
    Ok(match answer {
        Ok(Some(made)) => Done::Created { status: made.status, category: made.category },
        Ok(None) => Done::Edited { parts: row.differs.clone() },
        Err(error) => refused(&error),
    })
}

/// The carrier's own words.
fn refused(error: &LookUpError) -> Done {
    match error {
        LookUpError::Refused(refusal) => {
            Done::Refused { code: Some(refusal.code), subcode: refusal.subcode, says: refusal.details.clone() }
        }
        LookUpError::Failed(failure) => Done::Refused { code: failure.code, subcode: None, says: failure.what.clone() },
    }
}

async fn pull(app: &App, whose: &Whose, output: Output) -> anyhow::Result<()> {
    for account in ask(app, whose).await? {
        let place = (account.line.business, account.line.waba_id.as_str());
        let mut tx = app.deps.db.begin().await?;
        template::keep_pulled(&mut tx, place, &account.remote, app.deps.clock.now()).await?;
        tx.commit().await?;
    }
    let mut db = app.deps.db.acquire().await?;
    let mut rows = Vec::new();
    for business in people::list_businesses(&mut db).await? {
        if whose.business.as_ref().is_some_and(|handle| *handle != business.handle) {
            continue;
        }
        for known in template::list_known(&mut db, business.business_id).await? {
            let mut row = json!(known);
            row["business"] = json!(business.handle);
            rows.push(row);
        }
    }
    output.table(
        &["business", "account", "name", "language", "status", "category", "quality", "rejected because"],
        &rows,
        |row| {
            let of = |field: &str| word(&row[field]);
            let category = match row["correct_category"].as_str() {
                Some(correct) => format!("{}, will be {correct}", of("category")),
                None => of("category"),
            };
            vec![
                of("business"),
                of("waba_id"),
                of("name"),
                of("language"),
                of("status"),
                category,
                of("quality"),
                of("rejected_reason"),
            ]
        },
    )
}
