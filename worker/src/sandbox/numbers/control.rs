//! `/sandbox/numbers`, `/sandbox/credentials`, `/sandbox/phones`: the carrier, the app's owner and the people change
//! their minds.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Inner, agenda::Due, callback::Event, handset, world::World};

/// How long the upgrade of a throughput takes.
const UPGRADE: TimeDelta = TimeDelta::seconds(60);

/// What happens to a number and its account. Everything that is named happens, each with its webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Script {
    /// `phone_number_id`; none: the first number.
    number: Option<String>,
    quality: Option<String>,
    tier: Option<String>,
    /// From 80 to 1000 messages a second: maintenance for a minute, then it has them.
    upgrade: bool,
    /// At once and untold, for tests.
    messages_per_second: Option<u32>,
    status: Option<String>,
    name_status: Option<String>,
    registered: Option<bool>,
    verified: Option<bool>,
    deleted: Option<bool>,
    /// Every message from this number is refused with this code; 0: not any more.
    refuse: Option<i64>,
    /// Every message of the account is refused with this code; 0: not any more.
    refuse_account: Option<i64>,
    /// In which the account is billed: `USD`. Untold, as the carrier does.
    currency: Option<String>,
    /// Where the business is: `SG`. Untold as well.
    country: Option<String>,
    /// `DISABLE`, `SCHEDULE_FOR_DISABLE`, `REINSTATE`.
    ban: Option<String>,
    /// Any `restriction_type`.
    restriction: Option<String>,
    /// Any `violation_type`.
    violation: Option<String>,
    /// Any `alert_type`.
    alert: Option<String>,
    /// `PIN_CHANGED`, `PIN_RESET_REQUEST`, …
    security: Option<String>,
}

/// `POST /sandbox/numbers`
pub(in super::super) async fn script(State(inner): State<Arc<Inner>>, Json(script): Json<Script>) -> Response {
    let mut guard = inner.world();
    let world = &mut *guard;
    let index = script.number.as_deref().map_or(Some(0), |id| world.number(id)).filter(|at| *at < world.numbers.len());
    let Some(index) = index else { return (StatusCode::NOT_FOUND, "no such number\n").into_response() };
    let mut told = Vec::new();
    change_number(&inner, world, index, &script, &mut told);
    change_account(&inner, world, index, &script, &mut told);
    let waba = world.numbers[index].number.waba_id.clone();
    let at = inner.now();
    drop(guard);
    for (field, value) in told {
        inner.tell(Event { waba: waba.clone(), number: Some(index), field: field.to_owned(), at, value });
    }
    StatusCode::NO_CONTENT.into_response()
}

type Told = Vec<(&'static str, Value)>;

fn change_number(inner: &Inner, world: &mut World, index: usize, script: &Script, told: &mut Told) {
    let line = &mut world.numbers[index];
    let display = line.number.display_phone.digits().to_owned();
    if let Some(rate) = script.messages_per_second {
        line.number.messages_per_second = rate;
    }
    let state = &mut line.state;
    let set = |word: &Option<String>, of: &mut String| {
        if let Some(word) = word {
            word.clone_into(of);
        }
    };
    set(&script.quality, &mut state.quality);
    set(&script.tier, &mut state.tier);
    set(&script.status, &mut state.status);
    set(&script.name_status, &mut state.name_status);
    state.verified = script.verified.unwrap_or(state.verified);
    state.deleted = script.deleted.unwrap_or(state.deleted);
    state.refuses = script.refuse.map_or(state.refuses, |code| Some(code).filter(|code| *code != 0));
    line.registered = script.registered.unwrap_or(line.registered);
    if let Some(quality) = &script.quality {
        let event = if quality == "RED" { "FLAGGED" } else { "UNFLAGGED" };
        told.push(("phone_number_quality_update", json!({ "display_phone_number": display, "event": event })));
    }
    if let Some(tier) = &script.tier {
        let limit = tier.trim_start_matches("TIER_").replace('K', "000");
        let limit = limit.parse::<i64>().unwrap_or(-1);
        told.push((
            "business_capability_update",
            json!({ "max_daily_conversations_per_business": limit, "max_phone_numbers_per_business": 20 }),
        ));
    }
    if let Some(status) = &script.name_status {
        told.push((
            "phone_number_name_update",
            json!({ "display_phone_number": display, "decision": status,
            "requested_verified_name": line.number.business_name }),
        ));
    }
    if let Some(event) = &script.security {
        told.push((
            "security",
            json!({ "display_phone_number": display, "event": event, "requester": "61555822107539" }),
        ));
    }
    if script.upgrade {
        line.state.upgrading = true;
        let at = inner.now() + UPGRADE;
        inner.later(world, at, Due::Upgraded { number: index });
    }
}

fn change_account(inner: &Inner, world: &mut World, index: usize, script: &Script, told: &mut Told) {
    let waba = world.numbers[index].number.waba_id.clone();
    let now = inner.now();
    let Some(account) = world.account_mut(&waba) else { return };
    account.currency = script.currency.clone().or_else(|| account.currency.take());
    account.country = script.country.clone().or_else(|| account.country.take());
    if let Some(code) = script.refuse_account {
        account.blocked = (code != 0).then_some((code, "The account may not send now"));
    }
    if let Some(ban) = &script.ban {
        account.blocked = (ban == "DISABLE").then_some((131_031, "The account has been locked"));
        let date = now.format("%B %-d, %Y").to_string();
        let info = json!({ "waba_ban_state": ban, "waba_ban_date": date });
        told.push(("account_update", json!({ "event": "DISABLED_UPDATE", "ban_info": info })));
    }
    if let Some(kind) = &script.restriction {
        let until = (now + TimeDelta::days(7)).timestamp();
        let info = json!([{ "restriction_type": kind, "expiration": until }]);
        told.push(("account_update", json!({ "event": "ACCOUNT_RESTRICTION", "restriction_info": info })));
    }
    if let Some(kind) = &script.violation {
        told.push((
            "account_update",
            json!({ "event": "ACCOUNT_VIOLATION", "violation_info": { "violation_type": kind } }),
        ));
    }
    if let Some(kind) = &script.alert {
        let info = json!({ "alert_severity": "WARNING", "alert_status": "ACTIVE", "alert_type": kind,
            "alert_description": "Look at the account." });
        told.push(("account_alerts", json!({ "entity_type": "WABA", "entity_id": waba, "alert_info": info })));
    }
}

/// An app's token and secrets change.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Credentials {
    /// The app of this number; none: of the first.
    number: Option<String>,
    access_token: Option<SecretString>,
    /// The first signs from now on; what is under way keeps its signature.
    app_secrets: Option<Vec<SecretString>>,
    expired: Option<bool>,
    proof_needed: Option<bool>,
    messaging: Option<bool>,
    management: Option<bool>,
}

/// `POST /sandbox/credentials`
pub(in super::super) async fn credentials(State(inner): State<Arc<Inner>>, Json(new): Json<Credentials>) -> Response {
    let mut world = inner.world();
    let index = new.number.as_deref().map_or(Some(0), |id| world.number(id));
    let Some(app) = index.and_then(|index| world.numbers.get(index)).map(|line| line.app) else {
        return (StatusCode::NOT_FOUND, "no such number\n").into_response();
    };
    let app = &mut world.apps[app];
    if let Some(token) = new.access_token {
        app.token = token;
    }
    if let Some(secrets) = new.app_secrets {
        app.secrets = secrets;
    }
    app.expired = new.expired.unwrap_or(app.expired);
    app.proof_needed = new.proof_needed.unwrap_or(app.proof_needed);
    app.messaging = new.messaging.unwrap_or(app.messaging);
    app.management = new.management.unwrap_or(app.management);
    app.settle();
    StatusCode::NO_CONTENT.into_response()
}

/// `POST /sandbox/phones`: a person and her phone.
pub(in super::super) async fn phones(State(inner): State<Arc<Inner>>, Json(set): Json<handset::Set>) -> Response {
    let phone: String = set.phone.chars().filter(char::is_ascii_digit).collect();
    if !(6..=15).contains(&phone.len()) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "phone must be its digits\n").into_response();
    }
    let mut guard = inner.world();
    let world = &mut *guard;
    let handset = world.handsets.entry(&phone);
    handset.name = set.name.or_else(|| handset.name.take());
    handset.identity = set.identity.or_else(|| handset.identity.take());
    handset.offline = set.offline.unwrap_or(handset.offline);
    handset.absent = set.absent.unwrap_or(handset.absent);
    handset.receipts_off = set.receipts_off.unwrap_or(handset.receipts_off);
    handset.hidden = set.hidden.unwrap_or(handset.hidden);
    let waiting = if handset.offline { Vec::new() } else { std::mem::take(&mut handset.waiting) };
    for sequence in waiting {
        inner.arrive(world, sequence);
    }
    StatusCode::NO_CONTENT.into_response()
}
