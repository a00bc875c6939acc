//! How senders stand: what the carrier says of numbers, what is held, what a person should see.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Error, FallBackDue, accounts, fields, holds, store};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::carrier::{AccountFacts, LookUpError, NumberFacts, NumberId},
    people::BusinessId,
    queue::{Done, Job, JobContext, Lane},
    schedule::{self, Declaration, Missed},
};

/// A number as its business and the operator see it.
#[derive(Clone, Debug, Serialize)]
pub struct SenderHealth {
    /// Whose.
    pub business_id: BusinessId,
    /// The carrier's id of it.
    pub phone_number_id: String,
    /// Its account.
    pub waba_id: String,
    /// As customers see it.
    pub display_phone: String,
    /// The business brought an app of its own.
    pub own_app: bool,
    /// `v25.0`; none: the installation's.
    pub api_version: Option<String>,
    /// `GREEN`, `YELLOW`, `RED`, as the carrier says it.
    pub quality: Option<String>,
    /// `CONNECTED` …, as the carrier says it.
    pub status: Option<String>,
    /// The name that customers see.
    pub verified_name: Option<String>,
    /// What the carrier takes in a second.
    pub messages_per_second: i32,
    /// People that may be written to first in 24 hours; none: no limit, or none known.
    pub daily_recipients: Option<i32>,
    /// People who count against that now.
    pub reached: i64,
    /// When the carrier last told of the number.
    pub told_at: Option<DateTime<Utc>>,
    /// When a webhook last told of a message of the number.
    pub heard_at: Option<DateTime<Utc>>,
    /// Messages that wait to be sent.
    pub queued: i64,
}

/// Where nothing is sent now, and until when.
#[derive(Clone, Debug, Serialize)]
pub struct Hold {
    /// Its id.
    pub hold_id: Uuid,
    /// Whose.
    pub business_id: BusinessId,
    /// `app`, `credential`, `account`, `number`, `template`.
    pub scope: String,
    /// Which one.
    pub key: String,
    /// `all`, `begun`, `marketing`.
    pub covers: String,
    /// The carrier's code.
    pub code: Option<i64>,
    /// What the code means.
    pub meaning: Option<&'static str>,
    /// The carrier's word, where it told by webhook.
    pub told: Option<String>,
    /// How often in a row.
    pub strikes: i32,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When a message finds out whether it is over.
    pub until: DateTime<Utc>,
}

/// What the carrier told, or we found, that a person should see.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Alert {
    /// Its id.
    pub alert_id: Uuid,
    /// Whose.
    pub business_id: BusinessId,
    /// The webhook field, or `billing`, `number` for what was asked for.
    pub field: String,
    /// What it is about.
    pub about: String,
    /// The carrier's word.
    pub event: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// Its explanation.
    pub details: String,
    /// The carrier's time.
    pub at: DateTime<Utc>,
    /// Ours.
    pub received_at: DateTime<Utc>,
}

/// Numbers, holds and open alerts of a business, or of all.
///
/// # Errors
/// The database fails.
pub async fn list_health(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    now: DateTime<Utc>,
) -> Result<(Vec<SenderHealth>, Vec<Hold>, Vec<Alert>), Error> {
    let senders = store::list_senders(conn, business, now - TimeDelta::hours(24)).await?;
    let holds = store::list_holds(conn, business).await?.into_iter().map(|(business_id, row)| Hold {
        hold_id: row.hold_id,
        business_id,
        scope: row.scope,
        key: row.key,
        covers: row.covers,
        meaning: row.code.and_then(crate::outbound::carrier::meaning_of),
        code: row.code,
        told: row.told,
        strikes: row.strikes,
        since: row.since,
        until: row.until,
    });
    let holds = holds.collect();
    let alerts = store::list_alerts(conn, business).await?;
    Ok((senders, holds, alerts))
}

/// Releases a hold by hand; what waited behind it goes out. False: there is no such hold in force.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub async fn release_hold(
    conn: &mut PgConnection,
    business: BusinessId,
    hold: Uuid,
    by: &By<'_>,
) -> Result<bool, Error> {
    let mut tx = conn.begin().await?;
    let own = store::list_holds(&mut tx, Some(business)).await?.iter().any(|(_, row)| row.hold_id == hold);
    let released = own && holds::release(&mut tx, business, &[hold], "operator", by).await? == 1;
    tx.commit().await?;
    Ok(released)
}

/// Puts an alert away: somebody has seen to it. False: there is none open.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub async fn end_alert(conn: &mut PgConnection, business: BusinessId, alert: Uuid, by: &By<'_>) -> Result<bool, Error> {
    let mut tx = conn.begin().await?;
    let ended = store::end_alert(&mut tx, business, alert, by.now).await?;
    if ended {
        let act = Act {
            word: words::ALERT_ENDED,
            business: Some(business),
            object: Object { kind: "alert", id: &alert.to_string() },
            details: json!({}),
        };
        by.record(&mut tx, act).await?;
    }
    tx.commit().await?;
    Ok(ended)
}

/// Something that was told.
pub(super) struct NewAlert<'a> {
    pub(super) field: &'a str,
    pub(super) about: &'a str,
    pub(super) event: &'a str,
    /// `info` is kept and asks for nobody.
    pub(super) severity: &'static str,
    pub(super) details: &'a str,
    pub(super) at: DateTime<Utc>,
}

/// Keeps what was told; of one thing the last word counts. Told again it is no news.
pub(super) async fn note_alert(
    conn: &mut PgConnection,
    business: BusinessId,
    new: &NewAlert<'_>,
    by: &By<'_>,
) -> Result<(), Error> {
    let id = by.chance.uuid_v7(by.now);
    if !store::insert_alert(conn, (business, id), new, by.now).await? {
        return Ok(());
    }
    let act = Act {
        word: words::ALERT_NOTED,
        business: Some(business),
        object: Object { kind: "alert", id: &id.to_string() },
        details: json!({ "field": new.field, "event": new.event, "severity": new.severity }),
    };
    by.record(conn, act).await?;
    match new.severity {
        "critical" => tracing::error!(
            field = new.field,
            event = new.event,
            "the carrier has something to say: `muneem messaging health`"
        ),
        "warning" => tracing::warn!(
            field = new.field,
            event = new.event,
            "the carrier has something to say: `muneem messaging health`"
        ),
        _ => {}
    }
    Ok(())
}

/// Asks the carrier how the numbers of this business stand, and keeps what it says.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSenders {}

/// From this day the carrier does not deliver for accounts of Indian businesses that are not billed in rupees (WhatsApp
/// Business Platform pricing, INR billing: move every account by 31 December 2026).
const RUPEES_FROM: &str = "2027-01-01T00:00:00+05:30";

impl Job for CheckSenders {
    const KIND: &'static str = "messaging.check_senders";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await?;
        let accounts = store::list_accounts(&mut conn, None).await?;
        let (mut asked, mut failed) = (0, 0);
        for account in &accounts {
            if ctx.cancelled.is_cancelled() {
                break;
            }
            let sender = accounts::sender_of(&mut conn, &ctx.deps.vault, account.business, &account.number).await?;
            asked += 1;
            match ctx.deps.carrier.look_up_number(&sender).await {
                Ok(facts) => note_number(ctx, account.business, &account.number, &facts).await?,
                Err(error) => {
                    failed += 1;
                    note_unanswered(ctx, account.business, &account.number, &error).await?;
                    continue;
                }
            }
            // Not every app may read its account; what it may not is no fault of the number.
            if let Ok(facts) = ctx.deps.carrier.look_up_account(&sender, &account.waba_id).await {
                note_account(ctx, account.business, &account.waba_id, &facts).await?;
            }
        }
        Ok(Done::Ack(Some(json!({ "asked": asked, "failed": failed }))))
    }
}

async fn note_number(
    ctx: &JobContext,
    business: BusinessId,
    number: &NumberId,
    facts: &NumberFacts,
) -> Result<(), Error> {
    let by = ctx.by(CheckSenders::KIND);
    let mut tx = ctx.begin_for_all().await?;
    let rate = facts.throughput.as_deref().and_then(|level| match level {
        "HIGH" => Some(1000),
        "STANDARD" => Some(80),
        _ => None,
    });
    let people = facts.messaging_limit.as_ref().and_then(fields::people_of);
    let said = store::Said {
        quality: facts.quality.as_deref(),
        status: facts.status.as_deref(),
        verified_name: facts.verified_name.as_deref(),
        messages_per_second: rate,
        daily_recipients: people,
    };
    let before = store::note_said_and_tell(&mut tx, number.as_str(), &said, by.now).await?;
    let mut told = Vec::new();
    if let Some(quality) = facts.quality.as_deref().filter(|quality| before.quality.as_deref() != Some(*quality)) {
        let severity = match quality {
            "RED" => "critical",
            "YELLOW" => "warning",
            _ => "info",
        };
        told.push((format!("QUALITY_{quality}"), severity, "people block or report this number"));
    }
    if let Some(status) = facts.status.as_deref().filter(|status| before.status.as_deref() != Some(*status)) {
        let severity = match status {
            "CONNECTED" => "info",
            "FLAGGED" | "PENDING" => "warning",
            _ => "critical",
        };
        told.push((format!("STATUS_{status}"), severity, "the carrier does not let this number send as usual"));
    }
    let refused = store::find_open_alert(&mut tx, business, ("number_access", number.as_str())).await?;
    if refused.is_some() {
        told.push(("ANSWERED".to_owned(), "info", ""));
    }
    for (event, severity, details) in &told {
        let field = match event.as_bytes() {
            [b'Q', ..] => "number_quality",
            [b'S', ..] => "number_status",
            _ => "number_access",
        };
        let details = if *severity == "info" { "" } else { details };
        let alert = NewAlert { field, about: number.as_str(), event, severity, details, at: by.now };
        note_alert(&mut tx, business, &alert, &by).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn note_unanswered(
    ctx: &JobContext,
    business: BusinessId,
    number: &NumberId,
    error: &LookUpError,
) -> Result<(), Error> {
    let LookUpError::Refused(refusal) = error else {
        tracing::warn!(error = error as &dyn std::error::Error, "the carrier could not be asked about a number");
        return Ok(());
    };
    let by = ctx.by(CheckSenders::KIND);
    let mut tx = ctx.begin_for_all().await?;
    let event = format!("REFUSED_{}", refusal.code);
    let open = store::find_open_alert(&mut tx, business, ("number_access", number.as_str())).await?;
    if open.as_ref() != Some(&event) {
        let details = refusal.details.as_str();
        let alert = NewAlert {
            field: "number_access",
            about: number.as_str(),
            event: &event,
            severity: "critical",
            details,
            at: by.now,
        };
        note_alert(&mut tx, business, &alert, &by).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn note_account(
    ctx: &JobContext,
    business: BusinessId,
    waba_id: &str,
    facts: &AccountFacts,
) -> Result<(), Error> {
    let Some(currency) = facts.currency.as_deref() else { return Ok(()) };
    let by = ctx.by(CheckSenders::KIND);
    let indian = facts.country.as_deref().is_none_or(|country| country == "IN");
    let from: DateTime<Utc> = RUPEES_FROM.parse().map_err(|_| Error::AppUnreadable)?;
    let (event, severity) = match (currency == "INR" || !indian, by.now >= from) {
        (true, _) => ("BILLED_AS_IT_SHOULD", "info"),
        (false, false) => ("NOT_BILLED_IN_RUPEES", "warning"),
        (false, true) => ("NOT_BILLED_IN_RUPEES_NOT_DELIVERED", "critical"),
    };
    let mut tx = ctx.begin_for_all().await?;
    let open = store::find_open_alert(&mut tx, business, ("billing", waba_id)).await?;
    let news = match &open {
        Some(known) => known != event,
        None => severity != "info",
    };
    if news {
        let details = if severity == "info" {
            ""
        } else {
            "move this account to INR in Meta Business Suite, billing: from 1 January 2027 nothing is delivered otherwise"
        };
        let alert = NewAlert { field: "billing", about: waba_id, event, severity, details, at: by.now };
        note_alert(&mut tx, business, &alert, &by).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Forgets pairs that mean nothing any more: no turn taken lately, no window open, counted by nobody. Their marks would
/// otherwise keep old index keys alive for ever.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetPairs {}

impl Job for ForgetPairs {
    const KIND: &'static str = "messaging.forget_pairs";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let before = ctx.now() - TimeDelta::hours(48);
        let mut forgotten = 0;
        while !ctx.cancelled.is_cancelled() {
            let mut tx = ctx.begin_for_all().await?;
            let gone = store::forget_pairs(&mut tx, before, 5000).await?;
            tx.commit().await?;
            forgotten += gone;
            if gone < 5000 {
                break;
            }
        }
        Ok(Done::Ack(Some(json!({ "forgotten": forgotten }))))
    }
}

/// The schedules of messaging.
///
/// # Errors
/// None: a test reads them.
pub fn schedules() -> Result<Vec<Declaration>, schedule::Error> {
    Ok(vec![
        Declaration::of("messaging.check-senders", "23 * * * *", &CheckSenders {})?.missed(Missed::Skip),
        Declaration::of("messaging.fall-back-due", "* * * * *", &FallBackDue {})?.missed(Missed::Skip),
        Declaration::of("messaging.forget-pairs", "41 2 * * *", &ForgetPairs {})?.missed(Missed::Skip),
    ])
}
