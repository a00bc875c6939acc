//! What the carrier tells of accounts, numbers and templates by itself (Cloud API, webhook fields other than `messages`).
//!
//! Each word either holds something, releases it, changes a limit, or is for a person to see; most do two of these. What
//! nobody knows yet is kept in the body and shown as an alert of its field.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{
    Error, health,
    holds::{self, Covers, Strike},
    intake::Owners,
    store::{self, Said},
    template::{self, Noted},
    webhook::Update,
};
use crate::{
    evidence::By,
    outbound::carrier::{Scope, without_numbers},
    queue::JobContext,
};

/// A field's value, and where it came from.
pub(super) struct Told<'a> {
    pub(super) field: &'a str,
    pub(super) value: &'a Value,
    pub(super) at: DateTime<Utc>,
    pub(super) update: &'a Update,
    pub(super) owners: &'a Owners,
}

/// How much a person should mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What is to be done about one word of the carrier.
#[derive(Debug, PartialEq, Eq)]
enum Do {
    /// Nothing from this scope, until then or until the carrier says otherwise.
    Hold(Scope, Covers, Option<DateTime<Utc>>),
    /// The scope may be used again.
    Release(Scope),
    /// So many people in 24 hours, on all numbers of the account; none: no limit.
    People(Option<i32>),
    /// So many messages a second, on the number named.
    Rate(i32),
    /// The number's quality or state.
    Quality(String),
}

/// Until the carrier releases it; looked at again by a message of its own once a day.
const UNTIL_TOLD: &[u32] = &[24 * 3600];
/// A template that is gone comes back under no circumstances but the carrier's word.
const GONE: TimeDelta = TimeDelta::days(28);

struct Meaning {
    /// The template's name and language, the number as it is displayed, or nothing for the account.
    about: About,
    event: String,
    severity: Severity,
    details: String,
    acts: Vec<Do>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Account,
    Number(String),
    Template(String, String),
}

/// Draws the consequences of one word, for this business.
pub(super) async fn apply(
    conn: &mut PgConnection,
    ctx: &JobContext,
    told: &Told<'_>,
    by: &By<'_>,
) -> Result<(), Error> {
    let meaning = meaning_of(told);
    let waba = told.update.waba.as_str();
    let numbers: Vec<_> = told.owners.numbers_of(told.update, ctx.business).map(str::to_owned).collect();
    let number = match &meaning.about {
        About::Number(display) => number_displayed(conn, ctx, &numbers, display).await?,
        _ => None,
    };
    let key = |scope: Scope| match (scope, &meaning.about) {
        (Scope::Template, About::Template(name, language)) => Some(holds::template_key(waba, name, language)),
        (Scope::Account, _) => Some(waba.to_owned()),
        (Scope::Number, _) => number.clone(),
        _ => None,
    };
    note_template(conn, ctx, told, &meaning.about).await?;
    for act in &meaning.acts {
        match act {
            Do::Hold(scope, covers, until) => {
                let Some(key) = key(*scope) else { continue };
                let strike = Strike {
                    scope: *scope,
                    key: &key,
                    covers: *covers,
                    code: None,
                    told: Some(&meaning.event),
                    waits: if until.is_some() { &[] } else { UNTIL_TOLD },
                    until: *until,
                };
                holds::strike(conn, ctx.business, &strike, by).await?;
            }
            Do::Release(scope) => {
                let Some(key) = key(*scope) else { continue };
                // Messages may also wait for a template that nothing holds: one that was not approved yet.
                if holds::release_key(conn, ctx.business, (*scope, &key), "carrier", by).await? == 0 {
                    holds::wake(conn, ctx.business, scope.as_str(), by.now).await?;
                }
            }
            Do::People(limit) => {
                for number in &numbers {
                    let said = Said { daily_recipients: Some(*limit), ..Said::default() };
                    store::note_said(conn, number, &said, by.now).await?;
                }
            }
            Do::Rate(rate) => {
                let said = Said { messages_per_second: Some(*rate), ..Said::default() };
                for number in number.iter().chain(numbers.iter().filter(|_| number.is_none() && numbers.len() == 1)) {
                    store::note_said(conn, number, &said, by.now).await?;
                }
            }
            Do::Quality(word) => {
                let said = Said { quality: Some(word), ..Said::default() };
                for number in number.iter().chain(numbers.iter().filter(|_| number.is_none() && numbers.len() == 1)) {
                    store::note_said(conn, number, &said, by.now).await?;
                }
            }
        }
    }
    let about = match &meaning.about {
        About::Account => waba.to_owned(),
        About::Number(_) => number.unwrap_or_else(|| waba.to_owned()),
        About::Template(name, language) => format!("{name}/{language}"),
    };
    let new = health::NewAlert {
        field: told.field,
        about: &about,
        event: &meaning.event,
        severity: meaning.severity.as_str(),
        details: &meaning.details,
        at: told.at,
    };
    health::note_alert(conn, ctx.business, &new, by).await
}

/// Keeps what is told of a template where each send looks.
async fn note_template(conn: &mut PgConnection, ctx: &JobContext, told: &Told<'_>, about: &About) -> Result<(), Error> {
    let About::Template(name, language) = about else { return Ok(()) };
    let said =
        |field: &str, part: &str| Some(text(told.value, part)).filter(|word| told.field == field && !word.is_empty());
    let noted = Noted {
        status: said("message_template_status_update", "event"),
        category: said("template_category_update", "new_category"),
        correct_category: said("template_category_update", "correct_category"),
        quality: said("message_template_quality_update", "new_quality_score"),
    };
    let account = (ctx.business, told.update.waba.as_str());
    template::note_status(conn, account, (name, language), &noted, told.at).await
}

/// Which of a business's numbers is displayed so; the carrier writes it with and without plus and spaces.
async fn number_displayed(
    conn: &mut PgConnection,
    ctx: &JobContext,
    numbers: &[String],
    display: &str,
) -> Result<Option<String>, Error> {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let wanted = digits(display);
    let accounts = store::list_accounts(conn, Some(ctx.business)).await?;
    Ok(accounts
        .iter()
        .filter(|account| numbers.iter().any(|number| number == account.number.as_str()))
        .find(|account| account.display_phone.digits() == wanted)
        .map(|account| account.number.as_str().to_owned()))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A word of the carrier, as it may stand in our tables.
fn word(text: &str) -> String {
    let plain: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect();
    if plain.is_empty() { "UNNAMED".to_owned() } else { plain }
}

fn prose(parts: &[&str]) -> String {
    let joined = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("; ");
    without_numbers(&joined).chars().filter(|c| !c.is_control()).take(900).collect()
}

fn meaning_of(told: &Told<'_>) -> Meaning {
    let value = told.value;
    let event = word(text(value, "event"));
    match told.field {
        "message_template_status_update" => template_status(value, event, told.at),
        "message_template_quality_update" => template_quality(value),
        "template_category_update" => template_category(value),
        "message_template_components_update" => Meaning {
            about: template_of(value),
            event: "COMPONENTS_CHANGED".to_owned(),
            severity: Severity::Warning,
            details: "the words were changed at the carrier: compare them with `muneem messaging templates diff`"
                .to_owned(),
            acts: Vec::new(),
        },
        "phone_number_quality_update" => number_quality(value, event),
        "business_capability_update" => {
            let limit = value
                .get("max_daily_conversations_per_business")
                .or_else(|| value.get("max_daily_conversation_per_phone"))
                .and_then(people_of);
            Meaning {
                about: About::Account,
                event: "CAPABILITY".to_owned(),
                severity: Severity::Info,
                details: limit.map_or_else(String::new, |limit| match limit {
                    Some(limit) => format!("{limit} people in 24 hours"),
                    None => "no limit of people in 24 hours".to_owned(),
                }),
                acts: limit.map(Do::People).into_iter().collect(),
            }
        }
        "account_update" => account_update(value, event, told.at),
        "account_alerts" => {
            let alert = value.get("alert_info").unwrap_or(&Value::Null);
            let severity = match text(alert, "alert_severity").to_ascii_uppercase().as_str() {
                "CRITICAL" => Severity::Critical,
                "WARNING" => Severity::Warning,
                _ => Severity::Info,
            };
            Meaning {
                about: About::Account,
                event: word(text(alert, "alert_type")),
                severity,
                details: prose(&[text(alert, "alert_status"), text(alert, "alert_description")]),
                acts: Vec::new(),
            }
        }
        // Somebody asks to change the number's PIN: perhaps a take-over.
        "security" => Meaning {
            about: About::Number(text(value, "display_phone_number").to_owned()),
            event,
            severity: Severity::Critical,
            details: "the two-step PIN was asked for or changed: make sure that it was one of you".to_owned(),
            acts: Vec::new(),
        },
        "account_review_update" => {
            let decision = word(text(value, "decision"));
            let good = decision == "APPROVED";
            Meaning {
                about: About::Account,
                severity: if good { Severity::Info } else { Severity::Warning },
                event: decision,
                details: String::new(),
                acts: Vec::new(),
            }
        }
        "phone_number_name_update" => Meaning {
            about: About::Number(text(value, "display_phone_number").to_owned()),
            event: word(text(value, "decision")),
            severity: Severity::Info,
            details: prose(&[text(value, "rejection_reason")]),
            acts: Vec::new(),
        },
        _ => Meaning {
            about: About::Account,
            event: if text(value, "event").is_empty() { "TOLD".to_owned() } else { event },
            severity: Severity::Info,
            details: String::new(),
            acts: Vec::new(),
        },
    }
}

/// Webhooks write `en-US` where the API has `en_US`.
fn template_of(value: &Value) -> About {
    let language = text(value, "message_template_language").replace('-', "_");
    let plain =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(512).collect::<String>();
    About::Template(plain(text(value, "message_template_name")), plain(&language).chars().take(12).collect())
}

fn template_status(value: &Value, event: String, at: DateTime<Utc>) -> Meaning {
    let other = value.get("other_info").unwrap_or(&Value::Null);
    let rejection = value.get("rejection_info").unwrap_or(&Value::Null);
    let held = |until| Do::Hold(Scope::Template, Covers::All, until);
    let (severity, acts) = match event.as_str() {
        "APPROVED" | "REINSTATED" | "UNARCHIVED" => (Severity::Info, vec![Do::Release(Scope::Template)]),
        // Cloud API, template pausing: three hours, then six; it resumes by itself and says so.
        "PAUSED" => {
            let hours = if text(other, "title") == "SECOND_PAUSE" { 6 } else { 3 };
            (Severity::Warning, vec![held(Some(at + TimeDelta::hours(hours)))])
        }
        "DISABLED" | "REJECTED" | "DELETED" | "PENDING_DELETION" | "ARCHIVED" | "LOCKED" | "LIMIT_EXCEEDED" => {
            (Severity::Critical, vec![held(Some(at + GONE))])
        }
        "FLAGGED" => (Severity::Warning, Vec::new()),
        _ => (Severity::Info, Vec::new()),
    };
    let reason = text(value, "reason");
    let details = prose(&[
        if reason == "NONE" { "" } else { reason },
        text(other, "title"),
        text(other, "description"),
        text(rejection, "reason"),
        text(rejection, "recommendation"),
    ]);
    Meaning { about: template_of(value), event, severity, details, acts }
}

fn template_quality(value: &Value) -> Meaning {
    let new = word(text(value, "new_quality_score"));
    let (severity, acts) = match new.as_str() {
        "RED" => (Severity::Critical, vec![Do::Hold(Scope::Template, Covers::Marketing, None)]),
        "YELLOW" => (Severity::Warning, Vec::new()),
        // Back from red: what sells may go on.
        "GREEN" => (Severity::Info, vec![Do::Release(Scope::Template)]),
        _ => (Severity::Info, Vec::new()),
    };
    let details = format!("quality was {}", word(text(value, "previous_quality_score")));
    Meaning { about: template_of(value), event: new, severity, details, acts }
}

fn template_category(value: &Value) -> Meaning {
    let (now, correct) = (text(value, "new_category"), text(value, "correct_category"));
    let (event, details) = if correct.is_empty() {
        (format!("CATEGORY_{}", word(now)), format!("was {}", word(text(value, "previous_category"))))
    } else {
        (format!("CATEGORY_WILL_BE_{}", word(correct)), "the carrier will change it within 24 hours".to_owned())
    };
    // What sells needs consent, and nobody who agreed to bills alone has given it: such messages are left out from now on
    // ([`template::may_send`]), and somebody has to find other words.
    let severity = if now.eq_ignore_ascii_case("MARKETING") { Severity::Critical } else { Severity::Warning };
    Meaning { about: template_of(value), event, severity, details, acts: Vec::new() }
}

fn number_quality(value: &Value, event: String) -> Meaning {
    let mut acts = Vec::new();
    if event == "THROUGHPUT_UPGRADE" {
        acts.push(Do::Rate(1000));
    }
    let limit = value.get("max_daily_conversations_per_business").or_else(|| value.get("current_limit"));
    acts.extend(limit.and_then(people_of).map(Do::People));
    let quality = match event.as_str() {
        "FLAGGED" => Some("RED"),
        "UNFLAGGED" => Some("GREEN"),
        _ => None,
    };
    acts.extend(quality.map(|word| Do::Quality(word.to_owned())));
    let severity = match event.as_str() {
        "FLAGGED" => Severity::Critical,
        "DOWNGRADE" => Severity::Warning,
        _ => Severity::Info,
    };
    Meaning {
        about: About::Number(text(value, "display_phone_number").to_owned()),
        event,
        severity,
        details: prose(&[text(value, "current_limit")]),
        acts,
    }
}

/// A messaging limit, as a number or by its name: `TIER_10K`. `Some(None)` is no limit.
pub(super) fn people_of(value: &Value) -> Option<Option<i32>> {
    if let Some(number) = value.as_i64() {
        return Some(i32::try_from(number).ok().filter(|number| *number > 0));
    }
    let name = value.as_str()?.trim();
    let name = name.strip_prefix("TIER_").unwrap_or(name);
    if name == "UNLIMITED" {
        return Some(None);
    }
    let (digits, thousands) = name.strip_suffix('K').map_or((name, 1), |digits| (digits, 1000));
    let number: i32 = digits.parse().ok()?;
    Some(number.checked_mul(thousands).filter(|number| *number > 0))
}

fn account_update(value: &Value, event: String, at: DateTime<Utc>) -> Meaning {
    let held = |covers, until| Do::Hold(Scope::Account, covers, until);
    let mut details = String::new();
    let (severity, acts) = match event.as_str() {
        "ACCOUNT_VIOLATION" => {
            let info = value.get("violation_info").unwrap_or(&Value::Null);
            details = prose(&[text(info, "violation_type"), text(info, "remediation")]);
            (Severity::Critical, Vec::new())
        }
        "ACCOUNT_RESTRICTION" => {
            let all = value.get("restriction_info").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut acts = Vec::new();
            for restriction in &all {
                let kind = text(restriction, "restriction_type");
                let until = restriction.get("expiration").and_then(|told| instant_of(told, at));
                match kind {
                    "RESTRICTED_BIZ_INITIATED_MESSAGING" => acts.push(held(Covers::Begun, until)),
                    "RESTRICTED_CUSTOMER_INITIATED_MESSAGING" => acts.push(held(Covers::All, until)),
                    // Without utility templates nothing but codes and what sells goes out; the codes are spared by
                    // their own refusals.
                    "RESTRICTED_UTILITY_TEMPLATES" => acts.push(held(Covers::Begun, until)),
                    _ => {}
                }
            }
            details = prose(&all.iter().map(|restriction| text(restriction, "restriction_type")).collect::<Vec<_>>());
            (Severity::Critical, acts)
        }
        "DISABLED_UPDATE" => {
            let ban = value.get("ban_info").unwrap_or(&Value::Null);
            let state = text(ban, "waba_ban_state");
            details = prose(&[state, text(ban, "waba_ban_date")]);
            match state {
                "DISABLE" => (Severity::Critical, vec![held(Covers::All, Some(at + GONE))]),
                "REINSTATE" => (Severity::Info, vec![Do::Release(Scope::Account)]),
                _ => (Severity::Critical, Vec::new()),
            }
        }
        "ACCOUNT_DELETED" | "ACCOUNT_OFFBOARDED" | "PARTNER_REMOVED" => {
            (Severity::Critical, vec![held(Covers::All, Some(at + GONE))])
        }
        "ACCOUNT_RECONNECTED" => (Severity::Info, vec![Do::Release(Scope::Account)]),
        _ => (Severity::Info, Vec::new()),
    };
    Meaning { about: About::Account, event, severity, details, acts }
}

/// Unix seconds, or a date in words.
fn instant_of(value: &Value, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let told = value.as_i64().and_then(|secs| DateTime::from_timestamp(secs, 0));
    let told = told.or_else(|| {
        let date = NaiveDate::parse_from_str(value.as_str()?, "%B %d, %Y").ok()?;
        Some(date.and_hms_opt(0, 0, 0)?.and_utc())
    });
    // Further off than any restriction: a clock that lies.
    told.filter(|until| *until < now + TimeDelta::days(3660))
}
