//! The endpoints of numbers and accounts.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Inner, callback,
        door::{Caller, Room},
        refused::{Given, Refused, no_such, refuse},
    },
    health, shown,
};

/// Registrations of a number within 72 hours.
const REGISTRATIONS: (usize, TimeDelta) = (10, TimeDelta::hours(72));
/// People that a number may block.
const BLOCKED: usize = 64_000;
/// The code that a call or message would bring.
const CODE: &str = "123456";

type Answer = Result<Response, Refused>;

fn success() -> Response {
    Json(json!({ "success": true })).into_response()
}

#[derive(Deserialize)]
pub(in super::super) struct Fields {
    fields: Option<String>,
}

/// `GET /{version}/{number}`
pub(in super::super) fn line(inner: &Inner, caller: Caller, id: &str, fields: Option<&str>) -> Answer {
    let mut world = inner.world();
    let index = caller.number(&world, id)?;
    let waba = world.numbers[index].number.waba_id.clone();
    let usage = caller.account(&mut world, &waba, Room::Account, inner.now())?;
    Ok(([usage], Json(shown(&world, &world.numbers[index], fields))).into_response())
}

/// `GET /{version}/{account}`
pub(in super::super) fn show_account(inner: &Inner, caller: Caller, waba: &str) -> Answer {
    let mut world = inner.world();
    let usage = caller.account(&mut world, waba, Room::Account, inner.now())?;
    let line = world.numbers.iter().find(|line| line.number.waba_id == waba).ok_or_else(|| no_such(waba))?;
    let account = world.account(waba);
    let currency = account.and_then(|account| account.currency.as_deref()).unwrap_or("INR");
    let country = account.and_then(|account| account.country.as_deref()).unwrap_or("IN");
    let shown = json!({
        "id": waba,
        "name": line.number.business_name,
        "currency": currency,
        "timezone_id": "71",
        "country": country,
        "primary_business_location": country,
        "message_template_namespace": "5ba0b1a8_0c5b_4a4e_8fd6_6b5d1b3f0001",
        "health_status": health(&world, line),
    });
    Ok(([usage], Json(shown)).into_response())
}

/// `GET /{version}/{account}/phone_numbers`
pub(in super::super) async fn list(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
    Query(query): Query<Fields>,
) -> Answer {
    let mut world = inner.world();
    let usage = caller.account(&mut world, &waba, Room::Account, inner.now())?;
    let lines = world.numbers.iter().filter(|line| line.number.waba_id == waba && !line.state.deleted);
    let data: Vec<_> = lines.map(|line| shown(&world, line, query.fields.as_deref())).collect();
    Ok(([usage], Json(json!({ "data": data }))).into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Registration {
    messaging_product: Option<String>,
    pin: Option<String>,
    data_localization_region: Option<String>,
}

fn is_pin(pin: &str) -> bool {
    pin.len() == 6 && pin.bytes().all(|byte| byte.is_ascii_digit())
}

/// `POST /{version}/{number}/register`
pub(in super::super) async fn register(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Given(asked): Given<Registration>,
) -> Answer {
    let now = inner.now();
    let mut world = inner.world();
    let index = caller.number(&world, &id)?;
    let line = &mut world.numbers[index];
    let (most, within) = REGISTRATIONS;
    while line.state.registrations.front().is_some_and(|at| now - *at >= within) {
        line.state.registrations.pop_front();
    }
    if line.state.registrations.len() >= most {
        return Err(refuse(133_016, "Too many attempts to register this number. Try again later."));
    }
    line.state.registrations.push_back(now);
    if asked.messaging_product.as_deref() != Some("whatsapp") {
        return Err(refuse(100, "The parameter messaging_product is required."));
    }
    let pin = asked.pin.filter(|pin| is_pin(pin)).ok_or_else(|| refuse(100, "Param pin must be 6 digits."))?;
    let region = asked.data_localization_region;
    if region.is_some_and(|region| region.len() != 2 || !region.bytes().all(|byte| byte.is_ascii_uppercase())) {
        return Err(refuse(100, "Param data_localization_region must be a country code."));
    }
    if !line.state.verified {
        return Err(refuse(133_006, "The phone number needs to be verified before it is registered."));
    }
    if line.state.pin.as_ref().is_some_and(|known| *known != pin) {
        return Err(refuse(133_005, "The two-step verification PIN is wrong."));
    }
    line.state.pin = Some(pin);
    line.registered = true;
    Ok(success())
}

/// `POST /{version}/{number}/deregister`
pub(in super::super) async fn deregister(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
) -> Answer {
    let now = inner.now();
    let mut world = inner.world();
    let index = caller.number(&world, &id)?;
    let line = &mut world.numbers[index];
    if !line.registered {
        return Err(refuse(133_010, "The phone number is not registered."));
    }
    line.registered = false;
    line.state.registrations.push_back(now);
    Ok(success())
}

#[derive(Deserialize)]
pub(in super::super) struct CodeAsked {
    code_method: Option<String>,
    language: Option<String>,
}

/// `POST /{version}/{number}/request_code`
pub(in super::super) async fn request_code(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Given(asked): Given<CodeAsked>,
) -> Answer {
    let mut world = inner.world();
    let index = caller.number(&world, &id)?;
    if !matches!(asked.code_method.as_deref(), Some("SMS" | "VOICE")) || asked.language.is_none() {
        return Err(refuse(136_024, "Param code_method must be one of {SMS, VOICE}, and a language is required."));
    }
    world.numbers[index].state.code_requested = true;
    Ok(success())
}

#[derive(Deserialize)]
pub(in super::super) struct CodeGiven {
    code: Option<String>,
}

/// `POST /{version}/{number}/verify_code`
pub(in super::super) async fn verify_code(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Given(given): Given<CodeGiven>,
) -> Answer {
    let mut world = inner.world();
    let index = caller.number(&world, &id)?;
    let state = &mut world.numbers[index].state;
    if !state.code_requested || given.code.as_deref() != Some(CODE) {
        return Err(refuse(136_025, "The verification code is wrong, or none was requested."));
    }
    state.code_requested = false;
    state.verified = true;
    Ok(success())
}

#[derive(Deserialize)]
struct Settings {
    pin: Option<String>,
    webhook_configuration: Option<Override>,
}

#[derive(Deserialize)]
pub(in super::super) struct Override {
    override_callback_uri: Option<String>,
    verify_token: Option<String>,
}

/// `POST /{version}/{number}`: its PIN, or where its webhooks go.
pub(in super::super) async fn set(inner: &Arc<Inner>, caller: Caller, id: &str, body: &[u8]) -> Answer {
    let settings: Settings =
        serde_json::from_slice(body).map_err(|_| refuse(100, "The parameters cannot be read as JSON."))?;
    let index = caller.number(&inner.world(), id)?;
    if let Some(pin) = settings.pin {
        if !is_pin(&pin) {
            return Err(refuse(100, "Param pin must be 6 digits."));
        }
        inner.world().numbers[index].state.pin = Some(pin);
        return Ok(success());
    }
    let asked = settings.webhook_configuration.ok_or_else(|| refuse(100, "There is nothing to change."))?;
    let url = asked.override_callback_uri.filter(|url| !url.is_empty());
    if let Some(url) = &url {
        shake_hands(inner, url, asked.verify_token.as_deref()).await?;
    }
    inner.world().numbers[index].callback_url = url;
    Ok(success())
}

/// The carrier asks an address whether it wants the webhooks.
async fn shake_hands(inner: &Arc<Inner>, url: &str, token: Option<&str>) -> Result<(), Refused> {
    let token = token.ok_or_else(|| refuse(100, "The parameter verify_token is required."))?;
    callback::shake_hands(inner, url, token)
        .await
        .map_err(|why| refuse(2200, format!("Callback verification failed with the following errors: {why}")))
}

/// `POST /{version}/{account}/subscribed_apps`
pub(in super::super) async fn subscribe(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Answer {
    let usage = caller.account(&mut inner.world(), &waba, Room::Account, inner.now())?;
    let asked: Override = match body.is_empty() {
        true => Override { override_callback_uri: None, verify_token: None },
        false => serde_json::from_slice(&body).map_err(|_| refuse(100, "The parameters cannot be read as JSON."))?,
    };
    if let Some(url) = &asked.override_callback_uri {
        shake_hands(&inner, url, asked.verify_token.as_deref()).await?;
    }
    let mut world = inner.world();
    let account = world.account_mut(&waba).ok_or_else(|| no_such(&waba))?;
    account.subscribed = true;
    account.callback_url = asked.override_callback_uri;
    Ok(([usage], success()).into_response())
}

/// `GET /{version}/{account}/subscribed_apps`
pub(in super::super) async fn subscribed(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
) -> Answer {
    let mut world = inner.world();
    let usage = caller.account(&mut world, &waba, Room::Account, inner.now())?;
    let account = world.account(&waba).ok_or_else(|| no_such(&waba))?;
    let app = &world.apps[account.app];
    let mut data: Vec<Value> = Vec::new();
    if account.subscribed {
        let mut one = json!({ "whatsapp_business_api_data": { "id": app.id, "name": "muneem",
            "link": "https://muneem.example/" } });
        if let Some(url) = &account.callback_url {
            one["override_callback_uri"] = json!(url);
        }
        data.push(one);
    }
    Ok(([usage], Json(json!({ "data": data }))).into_response())
}

/// `DELETE /{version}/{account}/subscribed_apps`
pub(in super::super) async fn unsubscribe(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
) -> Answer {
    let mut world = inner.world();
    let usage = caller.account(&mut world, &waba, Room::Account, inner.now())?;
    if let Some(account) = world.account_mut(&waba) {
        account.subscribed = false;
        account.callback_url = None;
    }
    Ok(([usage], success()).into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Blocks {
    messaging_product: Option<String>,
    block_users: Option<Vec<Blocked>>,
}

#[derive(Deserialize)]
pub(in super::super) struct Blocked {
    user: String,
}

async fn change_blocks(inner: &Inner, caller: Caller, id: &str, asked: Blocks, block: bool) -> Answer {
    let now = inner.now();
    let mut world = inner.world();
    let index = caller.number(&world, id)?;
    if asked.messaging_product.as_deref() != Some("whatsapp") {
        return Err(refuse(100, "The parameter messaging_product is required."));
    }
    let users = asked
        .block_users
        .filter(|users| !users.is_empty())
        .ok_or_else(|| refuse(100, "The parameter block_users is required."))?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for Blocked { user } in users {
        let phone: String = user.chars().filter(char::is_ascii_digit).collect();
        // Only who wrote within the last day can be blocked.
        let wrote = world.handsets.window(index, &phone).is_some_and(|until| until > now);
        let list = &mut world.numbers[index].state.blocked;
        if block && list.len() >= BLOCKED {
            return Err(refuse(139_102, "The list of blocked users is full."));
        }
        if block && !wrote {
            failed.push(json!({ "input": user, "wa_id": phone, "errors": [{ "code": 139_101,
                "message": "Not eligible to be blocked",
                "error_data": { "details": "The user has not written within the last 24 hours" } }] }));
            continue;
        }
        if block {
            list.insert(phone.clone());
        } else {
            list.remove(&phone);
        }
        done.push(json!({ "input": user, "wa_id": phone }));
    }
    let key = if block { "added_users" } else { "removed_users" };
    let told = json!({ "messaging_product": "whatsapp", "block_users": { key: done, "failed_users": failed } });
    Ok(Json(told).into_response())
}

/// `POST /{version}/{number}/block_users`
pub(in super::super) async fn block(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Given(asked): Given<Blocks>,
) -> Answer {
    change_blocks(&inner, caller, &id, asked, true).await
}

/// `DELETE /{version}/{number}/block_users`
pub(in super::super) async fn unblock(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Given(asked): Given<Blocks>,
) -> Answer {
    change_blocks(&inner, caller, &id, asked, false).await
}

/// `GET /{version}/{number}/block_users`
pub(in super::super) async fn blocked(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
) -> Answer {
    let world = inner.world();
    let index = caller.number(&world, &id)?;
    let list = world.numbers[index].state.blocked.iter();
    let data: Vec<_> = list.map(|phone| json!({ "messaging_product": "whatsapp", "wa_id": phone })).collect();
    Ok(Json(json!({ "data": data })).into_response())
}
