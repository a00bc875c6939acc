//! `muneem messaging campaigns`: the same thing said to many.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use muneem_jobs::{
    messaging::{
        Language, MessageClass,
        campaign::{
            self, BadRow, Campaign, CampaignId, Estimate, Loaded, NewCampaign, Preview, Test, Whose, check_list,
            load_list,
        },
    },
    outbound::Phone,
    people::{self, BusinessId},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    super::output::{self, Output, word},
    instant,
    wishes::given,
};
use crate::app::App;

/// How often a long load says how far it is, in people.
const SAID_EVERY: u64 = 20_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an empty campaign
    #[command(
        after_help = "Example:\n  muneem messaging campaigns create sharma-mobiles --name 'Orders of Diwali' \\\n    \
                            --template order_ready --purpose service.ready --rest-after 100"
    )]
    Create {
        /// Handle of the business
        business: String,
        /// For people of the business alone
        #[arg(long)]
        name: String,
        /// Folder of its words, from `muneem messaging templates list`
        #[arg(long, value_name = "TEMPLATE")]
        template: String,
        /// The word under which consent is kept, such as marketing.offers
        #[arg(long, value_name = "PURPOSE")]
        purpose: String,
        /// It sells, although its template does not say so: only who agreed to the purpose gets it
        #[arg(long)]
        marketing: bool,
        /// Once so many messages were begun it rests until somebody lets it go on
        #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(i64).range(1..))]
        rest_after: Option<i64>,
        /// After this instant nothing more begins, as RFC 3339 [default: in three days]
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<DateTime<Utc>>,
        #[command(flatten)]
        output: Output,
    },
    /// Add the people of a list to a draft
    ///
    /// CSV in UTF-8. Columns, in any order: phone, language, and each parameter of the template by its name. Every row that
    /// does not fit is told by its line, and then nobody is added, unless you say --skip-bad. Who is in the campaign already
    /// is left out and counted: a load that was broken off can simply be run again.
    #[command(
        after_help = "Example:\n  muneem messaging campaigns add 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 people.csv\n  \
                            muneem messaging campaigns add 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 - --skip-bad < people.csv"
    )]
    Add {
        /// The campaign's id
        id: CampaignId,
        /// The list. It is read twice, so that - for standard input needs --skip-bad
        file: PathBuf,
        /// Leave out the rows that do not fit, and add the others
        #[arg(long)]
        skip_bad: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Say whom it may go to, what it costs and how long it takes; that you asked is on record
    #[command(after_help = "Example:\n  muneem messaging campaigns estimate 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Estimate {
        /// The campaign's id
        id: CampaignId,
        #[command(flatten)]
        output: Output,
    },
    /// Show a message as its recipient would read it: the first one's, somebody's, or nobody's
    #[command(after_help = "Example:\n  muneem messaging campaigns preview 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70\n  \
                            muneem messaging campaigns preview 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 \\\n    \
                            --language hi --parameters '{\"customer_name\": \"Asha\", \"order_number\": \"ORD-1\",\n    \
                            \"business_name\": \"Sharma Mobiles\"}'")]
    Preview {
        /// The campaign's id
        id: CampaignId,
        /// The person of the campaign whose message it is; @FILE or @- keeps her number out of the shell's history
        #[arg(long, value_name = "NUMBER", conflicts_with = "parameters")]
        phone: Option<String>,
        /// A JSON object of parameters, of nobody
        #[arg(long, value_name = "JSON")]
        parameters: Option<String>,
        /// In this language rather than in hers
        #[arg(long, value_name = "CODE")]
        language: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Send the words to one number, as a message that the campaign does not count
    #[command(after_help = "Example:\n  muneem messaging campaigns test 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 \\\n    \
                            --phone +919812345678 --language hi --agreed")]
    Test {
        /// The campaign's id
        id: CampaignId,
        /// To whom: somebody who waits for it; @FILE or @- keeps her number out of the shell's history
        #[arg(long, value_name = "NUMBER")]
        phone: String,
        /// In which language [default: en]
        #[arg(long, value_name = "CODE")]
        language: Option<String>,
        /// A JSON object of parameters [default: the examples of the template]
        #[arg(long, value_name = "JSON")]
        parameters: Option<String>,
        /// Who holds the number agreed to get it: needed for words that sell, and kept as a consent to tests
        #[arg(long)]
        agreed: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Let a draft go out
    #[command(after_help = "Example:\n  muneem messaging campaigns start 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Start {
        /// The campaign's id
        id: CampaignId,
        #[command(flatten)]
        output: Output,
    },
    /// Hold it: two seconds later none of its messages goes out any more
    #[command(after_help = "Example:\n  muneem messaging campaigns pause 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Pause {
        /// The campaign's id
        id: CampaignId,
        #[command(flatten)]
        output: Output,
    },
    /// Let one that rests go on
    #[command(
        after_help = "Example:\n  muneem messaging campaigns resume 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 --rest-after 1000"
    )]
    Resume {
        /// The campaign's id
        id: CampaignId,
        /// It rests again after so many messages more
        #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(i64).range(1..))]
        rest_after: Option<i64>,
        #[command(flatten)]
        output: Output,
    },
    /// End it for good: two seconds later none of its messages goes out any more
    #[command(after_help = "Example:\n  muneem messaging campaigns stop 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Stop {
        /// The campaign's id
        id: CampaignId,
        #[command(flatten)]
        output: Output,
    },
    /// List campaigns, newest first
    #[command(after_help = "Example:\n  muneem messaging campaigns list --business sharma-mobiles")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those older than this one: the last of the page before
        #[arg(long, value_name = "ID")]
        before: Option<CampaignId>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one campaign and how many of its messages are in which state
    #[command(after_help = "Example:\n  muneem messaging campaigns show 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Show {
        /// The campaign's id
        id: CampaignId,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(app: &App, command: Command) -> anyhow::Result<ExitCode> {
    let mut db = app.deps.db.acquire().await?;
    let (vault, by) = (&app.deps.vault, app.operator());
    match command {
        Command::Create { business, name, template, purpose, marketing, rest_after, expires_at, output } => {
            let business = people::load_business(&mut db, &business).await?.business_id;
            let class = campaign::class_of(&template)?;
            let new = NewCampaign {
                business,
                name,
                purpose,
                class: if marketing { MessageClass::Marketing } else { class },
                template,
                rests_after: rest_after,
                expires_at: expires_at.unwrap_or(by.now + TimeDelta::days(3)),
            };
            let id = campaign::create(&mut db, &new, &by).await?;
            let (made, _) = find(&mut db, id).await?;
            output.done(&made, &format!("{id} is a draft: add people next"))?;
        }
        Command::Add { id, file, skip_bad, output } => return add(app, id, (&file, skip_bad), output).await,
        Command::Estimate { id, output } => {
            let of = owner(&mut db, id).await?;
            let mut tx = db.begin().await?;
            let estimate = campaign::estimate(&mut tx, vault, of, &by).await?;
            tx.commit().await?;
            show_estimate(&estimate, output)?;
        }
        Command::Preview { id, phone, parameters, language, output } => {
            let of = owner(&mut db, id).await?;
            let phone = phone.as_deref().map(number).transpose()?;
            let whose = match (&phone, parameters.as_deref().map(object).transpose()?) {
                (Some(phone), _) => Whose::Person(phone),
                (None, Some(parameters)) => Whose::Given(parameters),
                (None, None) => Whose::First,
            };
            let mut tx = db.begin().await?;
            let shown = campaign::preview(&mut tx, vault, of, (whose, code(language.as_deref())?), &by).await?;
            tx.commit().await?;
            show_preview(&shown, output)?;
        }
        Command::Test { id, phone, language, parameters, agreed, output } => {
            let of = owner(&mut db, id).await?;
            let test = Test {
                to: number(&phone)?,
                language: code(language.as_deref())?,
                parameters: parameters.as_deref().map(object).transpose()?,
                agreed,
            };
            let mut tx = db.begin().await?;
            let message = campaign::send_test(&mut tx, (vault, &*app.deps.clock), of, test, &by).await?;
            tx.commit().await?;
            let line =
                format!("message {message} is under way: `muneem messaging show {message}` says what comes of it");
            output.done(&json!({ "message_id": message }), &line)?;
        }
        Command::Start { id, output } => {
            let of = owner(&mut db, id).await?;
            campaign::start(&mut db, of, &by).await?;
            stands(&mut db, id, output).await?;
        }
        Command::Pause { id, output } => {
            let of = owner(&mut db, id).await?;
            campaign::halt(&mut db, of, false, &by).await?;
            stands(&mut db, id, output).await?;
        }
        Command::Resume { id, rest_after, output } => {
            let of = owner(&mut db, id).await?;
            campaign::resume(&mut db, of, rest_after, &by).await?;
            stands(&mut db, id, output).await?;
        }
        Command::Stop { id, output } => {
            let of = owner(&mut db, id).await?;
            campaign::halt(&mut db, of, true, &by).await?;
            stands(&mut db, id, output).await?;
        }
        Command::List { business, limit, before, output } => list(&mut db, business, (before, limit), output).await?,
        Command::Show { id, output } => {
            let (campaign, messages) = find(&mut db, id).await?;
            show(&campaign, &messages, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(db: &mut PgConnection, id: CampaignId) -> anyhow::Result<(Campaign, Value)> {
    let found = campaign::find(db, None, id).await?;
    found.with_context(|| format!("there is no campaign {id}: `muneem messaging campaigns list` shows the newest"))
}

/// The campaign with its owner.
async fn owner(db: &mut PgConnection, id: CampaignId) -> anyhow::Result<(BusinessId, CampaignId)> {
    Ok((find(db, id).await?.0.business_id, id))
}

fn number(text: &str) -> anyhow::Result<Phone> {
    Phone::parse(&given(text)?).context("--phone")
}

fn code(text: Option<&str>) -> anyhow::Result<Option<Language>> {
    let read = text.map(campaign::read_language).transpose();
    read.map_err(|bad| anyhow::anyhow!("--language: {}", bad.problem))
}

fn object(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    serde_json::from_str(text).ok().context("--parameters is no JSON object of texts: {\"customer_name\": \"Asha\"}")
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).with_context(|| path.display().to_string())?))
}

/// Reads the list to its end, and only where all of it fits, or what does not is to be left out, reads it again and adds.
async fn add(app: &App, id: CampaignId, (path, skip_bad): (&Path, bool), output: Output) -> anyhow::Result<ExitCode> {
    let by = app.operator();
    let mut db = app.deps.db.acquire().await?;
    let (campaign, _) = find(&mut db, id).await?;
    ensure!(campaign.state == campaign::CampaignState::Draft, "the campaign was started already: make another one");
    let mut tell = |bad: &BadRow| {
        let column = bad.column.as_ref().map(|column| format!("{column}: ")).unwrap_or_default();
        super::super::complain(&format!("line {}: {column}{}", bad.line, bad.problem));
    };
    if !skip_bad {
        let regular = path.metadata().is_ok_and(|about| about.is_file());
        ensure!(
            path.as_os_str() != "-" && (regular || !path.exists()),
            "a list that is no file is read once: say --skip-bad, or save it"
        );
        let checked = check_list(&campaign.template, open(path)?, &mut tell)?;
        if checked.bad > 0 {
            let line = format!("nobody was added: {} of {} rows do not fit", checked.bad, checked.rows);
            output.done(&checked, &line)?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let (watched, mut said) = (io::stderr().is_terminal(), 0);
    let mut progress = |done: &Loaded| {
        if watched && done.rows >= said + SAID_EVERY {
            said = done.rows;
            super::super::complain(&format!("{} rows read, {} people added", done.rows, done.added));
        }
    };
    let of = (campaign.business_id, id);
    let done = load_list(&mut db, &app.deps.vault, of, (open(path)?, skip_bad), &by, &mut tell, &mut progress).await?;
    let line = format!(
        "{} of {} rows added, {} of people in the campaign already, {} left out because they do not fit",
        done.added, done.rows, done.doubles, done.bad
    );
    output.done(&done, &line)?;
    Ok(if done.bad > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn stands(db: &mut PgConnection, id: CampaignId, output: Output) -> anyhow::Result<()> {
    let (campaign, messages) = find(db, id).await?;
    let line = format!("{id} is {}: {}", word(&campaign.state), counts(&messages));
    output.done(&whole(&campaign, &messages), &line)
}

/// `queued 240, read 10`
fn counts(messages: &Value) -> String {
    let counted = messages.as_object().into_iter().flatten().map(|(state, many)| format!("{state} {many}"));
    let counted: Vec<_> = counted.collect();
    if counted.is_empty() { "nobody is in it".to_owned() } else { counted.join(", ") }
}

fn whole(campaign: &Campaign, messages: &Value) -> Value {
    let mut whole = json!(campaign);
    whole["messages"] = messages.clone();
    whole
}

fn show(campaign: &Campaign, messages: &Value, output: Output) -> anyhow::Result<()> {
    let at = |at: Option<DateTime<Utc>>| at.map(instant).unwrap_or_default();
    output.item(
        &whole(campaign, messages),
        &[
            ("id", campaign.campaign_id.to_string()),
            ("name", campaign.name.clone()),
            ("state", word(&campaign.state)),
            ("rests because", campaign.paused_because.clone().unwrap_or_default()),
            ("purpose", campaign.purpose.clone()),
            ("class", word(&campaign.class)),
            ("template", campaign.template.clone()),
            ("number", campaign.phone_number_id.clone()),
            ("rests after", campaign.rests_after.map(|after| after.to_string()).unwrap_or_default()),
            ("messages", counts(messages)),
            ("created", instant(campaign.created_at)),
            ("started", at(campaign.started_at)),
            ("ended", at(campaign.ended_at)),
            ("expires", instant(campaign.expires_at)),
        ],
    )
}

async fn list(
    db: &mut PgConnection,
    business: Option<String>,
    (before, limit): (Option<CampaignId>, u16),
    output: Output,
) -> anyhow::Result<()> {
    let business = match business {
        Some(handle) => Some(people::load_business(db, &handle).await?.business_id),
        None => None,
    };
    let campaigns = campaign::list(db, business, before, limit).await?;
    output.table(&["id", "name", "state", "purpose", "template", "created"], &campaigns, |one| {
        vec![
            one.campaign_id.to_string(),
            one.name.clone(),
            word(&one.state),
            one.purpose.clone(),
            one.template.clone(),
            instant(one.created_at),
        ]
    })
}

fn show_estimate(estimate: &Estimate, output: Output) -> anyhow::Result<()> {
    let (cost, time) = (&estimate.cost, &estimate.time);
    let refused: Vec<_> = estimate.refused.iter().map(|(reason, many)| format!("{reason} {many}")).collect();
    let limit = match time.daily_recipients {
        Some(limit) => format!("{} of {limit} people used today, {} new", time.reached, time.new_recipients),
        None => String::new(),
    };
    let net: Vec<_> =
        cost.lines.iter().map(|line| format!("{} × {} {}", line.messages, line.per_message, line.category)).collect();
    output.item(
        estimate,
        &[
            ("people", estimate.people.to_string()),
            ("may be written to", estimate.allowed.to_string()),
            ("may not", refused.join(", ")),
            ("wrote within 24 hours", estimate.in_window.to_string()),
            ("cost", format!("{} {} ({})", cost.currency, cost.net, net.join(" + "))),
            ("tax", format!("{} {} ({} %)", cost.currency, cost.tax, cost.tax_percent)),
            ("in all", format!("{} {}", cost.currency, cost.total)),
            ("at rates not known", if cost.unpriced > 0 { cost.unpriced.to_string() } else { String::new() }),
            ("the number is busy", span(time.throughput_secs)),
            ("limit of the day", limit),
            ("further days", time.further_days.to_string()),
            ("ends in time", if time.ends_in_time { "yes" } else { "no: it expires before" }.to_owned()),
        ],
    )?;
    if output.is_json() {
        return Ok(());
    }
    let assumed: String = estimate.assumptions.iter().map(|one| format!("- {one}\n")).collect();
    output::text(&format!("\n{assumed}"))
}

/// `2 h 05 min`, `3 min 20 s`
fn span(secs: u64) -> String {
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, secs) => format!("{secs} s"),
        (0, minutes, secs) => format!("{minutes} min {secs:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

fn show_preview(shown: &Preview, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output::json_line(shown);
    }
    let whose = shown.recipient.as_ref().map(|ending| format!(", to {ending}")).unwrap_or_default();
    let mut text = format!("{} ({}){whose}\n\n", shown.name, shown.language);
    if let Some(header) = &shown.header {
        text += &format!("{header}\n\n");
    }
    text += &format!("{}\n", shown.body);
    if let Some(footer) = &shown.footer {
        text += &format!("\n{footer}\n");
    }
    for button in &shown.buttons {
        let leads = button.leads_to.as_ref().map(|to| format!(" → {to}")).unwrap_or_default();
        text += &format!("\n[{}]{leads}\n", button.text.as_deref().unwrap_or("copy code"));
    }
    output::text(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_as_people_say_it() {
        for (secs, said) in [(0, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7_500, "2 h 05 min")] {
            assert_eq!(span(secs), said);
        }
    }
}
