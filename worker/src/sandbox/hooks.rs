//! `POST /sandbox/webhooks`: any webhook, now, so that a receiver meets what the stand-in itself would seldom send.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Inner, callback::Event, handset, inbound, world::World};

/// Updates that one request makes.
const MOST: usize = 10_000;

/// What is to be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    /// One of the kinds below.
    kind: Option<String>,
    /// Or any field with any value, as it stands.
    field: Option<String>,
    value: Option<Value>,
    /// Or a whole body, posted as it stands, with this or no signature at all.
    body: Option<String>,
    signature: Option<String>,
    /// Or the last body that was taken, once more.
    replay: bool,
    /// Of this number; none: the first.
    number: Option<String>,
    /// About this person.
    phone: Option<String>,
    /// So many of it.
    times: Option<usize>,
    /// Values over those of the kind.
    with: Option<Value>,
}

/// `POST /sandbox/webhooks`
pub(super) async fn tell(State(inner): State<Arc<Inner>>, Json(asked): Json<Asked>) -> Response {
    if asked.replay {
        let last = inner.world().posted.back().cloned();
        let Some(last) = last else { return (StatusCode::CONFLICT, "nothing was posted yet\n").into_response() };
        inner.post_again(last);
        return StatusCode::NO_CONTENT.into_response();
    }
    if let Some(body) = asked.body {
        return post(&inner, body, asked.signature).await;
    }
    let now = inner.now();
    let mut events = Vec::new();
    {
        let mut guard = inner.world();
        let world = &mut *guard;
        let index = asked.number.as_deref().map_or(Some(0), |id| world.number(id));
        let Some(index) = index.filter(|index| *index < world.numbers.len()) else {
            return (StatusCode::NOT_FOUND, "no such number\n").into_response();
        };
        for _ in 0..asked.times.unwrap_or(1).min(MOST) {
            let made = match (&asked.kind, &asked.field, &asked.value) {
                (Some(kind), None, None) => sample(world, index, kind, asked.phone.as_deref(), now),
                (None, Some(field), Some(value)) => Some((field.clone(), value.clone())),
                _ => None,
            };
            let Some((field, mut value)) = made else {
                let why = format!("send one of kind, field with value, body, replay; kinds: {}\n", KINDS.join(", "));
                return (StatusCode::UNPROCESSABLE_ENTITY, why).into_response();
            };
            if let Some(with) = &asked.with {
                overlay(&mut value, with);
            }
            let waba = world.numbers[index].number.waba_id.clone();
            events.push(Event { waba, number: Some(index), field, at: now, value });
        }
    }
    events.into_iter().for_each(|event| inner.tell(event));
    StatusCode::NO_CONTENT.into_response()
}

/// Posts a body as it stands, once; answers with what the receiver said.
async fn post(inner: &Inner, body: String, signature: Option<String>) -> Response {
    let Some(url) = inner.world().callback_url.clone() else {
        return (StatusCode::CONFLICT, "no callback is registered\n").into_response();
    };
    let mut request =
        inner.client.post(url).header("content-type", "application/json").timeout(Duration::from_secs(10));
    if let Some(signature) = signature {
        request = request.header("x-hub-signature-256", signature);
    }
    match request.body(body).send().await {
        Ok(answer) => Json(json!({ "status": answer.status().as_u16() })).into_response(),
        Err(_) => (StatusCode::BAD_GATEWAY, "the receiver does not answer\n").into_response(),
    }
}

/// Puts what is given over what is there.
fn overlay(value: &mut Value, with: &Value) {
    match (value, with) {
        (Value::Object(value), Value::Object(with)) => {
            for (key, with) in with {
                overlay(value.entry(key.clone()).or_insert(Value::Null), with);
            }
        }
        (value, with) => *value = with.clone(),
    }
}

/// What there are samples of.
const KINDS: [&str; 41] = [
    "text",
    "image",
    "document",
    "audio",
    "video",
    "sticker",
    "location",
    "contacts",
    "order",
    "reaction",
    "reaction_removed",
    "button",
    "did_not_request_code",
    "button_reply",
    "list_reply",
    "nfm_reply",
    "referral",
    "number_changed",
    "identity_changed",
    "unsupported",
    "edit",
    "revoke",
    "value_errors",
    "interactive_errors",
    "only_user_id",
    "stop",
    "resume",
    "account_deleted",
    "account_offboarded",
    "account_reconnected",
    "volume_tier",
    "account_review_update",
    "business_capability_update",
    "phone_number_quality_update",
    "phone_number_name_update",
    "payment_configuration_update",
    "calls",
    "smb_message_echoes",
    "history",
    "user_id_update",
    "new_field",
];

static NEXT_CALL: AtomicU32 = AtomicU32::new(1);

/// A sample value of a kind, and the field that it comes in.
fn sample(
    world: &mut World,
    index: usize,
    kind: &str,
    phone: Option<&str>,
    now: DateTime<Utc>,
) -> Option<(String, Value)> {
    let phone: String = phone.unwrap_or_default().chars().filter(char::is_ascii_digit).take(15).collect();
    let phone = if phone.len() < 6 { "919812345678".to_owned() } else { phone };
    if let Some(message) = message(kind, &phone) {
        return Some(("messages".to_owned(), inbound_value(world, index, (&phone, now), kind, message)));
    }
    let line = &world.numbers[index];
    let display = line.number.display_phone.digits();
    let head = json!({ "display_phone_number": display, "phone_number_id": line.number.id });
    let (field, value) = match kind {
        "value_errors" => (
            "messages",
            json!({ "messaging_product": "whatsapp", "metadata": head,
            "errors": [{ "code": 130_429, "title": "Rate limit hit", "message": "Rate limit hit", "error_data": {
                "details": "Too many messages" } }] }),
        ),
        "stop" | "resume" => {
            let contact = inbound::contact(world, &phone);
            world.handsets.prefer(&phone, kind == "stop", now);
            let one = json!({ "wa_id": phone, "user_id": handset::user_id(&phone), "category": "marketing_messages",
                "detail": format!("User requested to {kind} marketing messages"), "value": kind,
                    "timestamp": now.timestamp() });
            (
                "user_preferences",
                json!({ "messaging_product": "whatsapp", "metadata": head, "contacts": [contact],
                    "user_preferences": [one] }),
            )
        }
        "account_deleted" => ("account_update", json!({ "event": "ACCOUNT_DELETED" })),
        "account_offboarded" => ("account_update", json!({ "event": "ACCOUNT_OFFBOARDED" })),
        "account_reconnected" => ("account_update", json!({ "event": "ACCOUNT_RECONNECTED" })),
        "volume_tier" => (
            "account_update",
            json!({ "event": "VOLUME_BASED_PRICING_TIER_UPDATE", "volume_tier_info": {
            "tier": "25000001:50000000", "pricing_category": "UTILITY", "region": "India",
                "effective_month": "2026-11" } }),
        ),
        "account_review_update" => (kind, json!({ "decision": "APPROVED" })),
        "business_capability_update" => {
            (kind, json!({ "max_daily_conversations_per_business": 2000, "max_phone_numbers_per_business": 20 }))
        }
        "phone_number_quality_update" => (kind, json!({ "display_phone_number": display, "event": "UNFLAGGED" })),
        "phone_number_name_update" => (
            kind,
            json!({ "display_phone_number": display, "decision": "APPROVED",
                "requested_verified_name": line.number.business_name, "rejection_reason": null }),
        ),
        "payment_configuration_update" => {
            (kind, json!({ "configuration_name": "upi", "provider_name": "razorpay", "status": "Active" }))
        }
        "calls" => (
            kind,
            json!({ "messaging_product": "whatsapp", "metadata": head, "calls": [{ "id": format!("wacid.{}",
                NEXT_CALL.fetch_add(1, std::sync::atomic::Ordering::Relaxed)), "from": phone, "event": "connect",
                "timestamp": now.timestamp().to_string() }] }),
        ),
        "smb_message_echoes" => (
            kind,
            json!({ "messaging_product": "whatsapp", "metadata": head, "message_echoes": [{ "from": display,
                "to": phone, "id": "wamid.ECHO", "timestamp": now.timestamp().to_string(), "type": "text", "text": {
                "body": "From the app" } }] }),
        ),
        "history" => (
            kind,
            json!({ "messaging_product": "whatsapp", "metadata": head, "history": [{ "metadata": { "phase": 0,
                "chunk_order": 1, "progress": 55 }, "threads": [] }] }),
        ),
        "user_id_update" => (
            kind,
            json!({ "messaging_product": "whatsapp", "metadata": head, "user_id_update": [{ "wa_id": phone,
                "user_id": { "previous": handset::user_id(&phone),
                "current": handset::user_id(&format!("{phone}0")) } }] }),
        ),
        "new_field" => ("gravity_update", json!({ "event": "FLOATING", "list": [1, { "a": null }] })),
        _ => return None,
    };
    Some((field.to_owned(), value))
}

/// The value of one message that somebody wrote; it opens her window.
fn inbound_value(
    world: &mut World,
    index: usize,
    (phone, now): (&str, DateTime<Utc>),
    kind: &str,
    mut message: Value,
) -> Value {
    let (sequence, wamid) = world.wamid(phone);
    message["id"] = json!(wamid);
    message["timestamp"] = json!(now.timestamp().to_string());
    let mut contact = inbound::contact(world, phone);
    if kind == "only_user_id" {
        message["from_user_id"] = json!(handset::user_id(phone));
        contact = json!({ "profile": { "name": "Asha", "username": "asha.v" }, "user_id": handset::user_id(phone) });
    } else {
        message["from"] = json!(phone);
    }
    if kind == "edit" || kind == "revoke" {
        message[kind]["original_message_id"] = json!(wamid);
    }
    if let Some(hash) = message["system"]["identity"]["hash"].as_str() {
        world.handsets.entry(phone).identity = Some(hash.to_owned());
    }
    let text = message["text"]["body"].as_str().unwrap_or(kind).to_owned();
    let written =
        handset::Written { wamid, number: index, from: phone.to_owned(), at: now, text, context: None, seen: false };
    world.handsets.note(sequence, written);
    let number = &world.numbers[index].number;
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": number.display_phone.digits(), "phone_number_id": number.id },
        "contacts": [contact],
        "messages": [message],
    });
    if kind == "interactive_errors" {
        value["errors"] = json!([{ "code": 131_000, "title": "Something went wrong", "error_data": {
            "details": "The answer is empty" } }]);
    }
    value
}

/// What somebody may write, or the app writes for her.
fn message(kind: &str, phone: &str) -> Option<Value> {
    let file =
        |mime: &str| json!({ "id": "1037543291543636", "mime_type": mime, "sha256": "7e5a1c", "caption": "See" });
    Some(match kind {
        "text" | "only_user_id" => json!({ "type": "text", "text": { "body": "Where is my invoice? 🙏" } }),
        "image" => json!({ "type": kind, kind: file("image/jpeg") }),
        "document" => json!({ "type": kind, kind: file("application/pdf") }),
        "audio" => {
            json!({ "type": kind, kind: { "id": "1037", "mime_type": "audio/ogg; codecs=opus", "sha256": "7e",
                "voice": true } })
        }
        "video" => json!({ "type": kind, kind: file("video/mp4") }),
        "sticker" => {
            json!({ "type": kind, kind: { "id": "1037", "mime_type": "image/webp", "sha256": "7e",
                "animated": false } })
        }
        "location" => {
            json!({ "type": kind, kind: { "latitude": 28.61, "longitude": 77.2, "name": "Karol Bagh",
                "address": "Delhi" } })
        }
        "contacts" => {
            json!({ "type": kind, kind: [{ "name": { "formatted_name": "Ravi" }, "phones": [{
                "phone": "+91 98123 00000" }] }] })
        }
        "order" => {
            json!({ "type": kind, kind: { "catalog_id": "1", "text": "", "product_items": [{
                "product_retailer_id": "x", "quantity": 1, "item_price": 1180, "currency": "INR" }] } })
        }
        "reaction" => json!({ "type": kind, kind: { "message_id": "wamid.X", "emoji": "👍" } }),
        "reaction_removed" => json!({ "type": "reaction", "reaction": { "message_id": "wamid.X" } }),
        "button" => {
            json!({ "type": kind, kind: { "payload": "OPTOUT:mk", "text": "Stop" }, "context": { "from": "1",
                "id": "wamid.X" } })
        }
        "did_not_request_code" => {
            json!({ "type": "button", "button": { "payload": "DID_NOT_REQUEST_CODE",
                "text": "I didn't request a code" } })
        }
        "button_reply" => {
            json!({ "type": "interactive", "interactive": { "type": kind, kind: { "id": "resend:INV-1042",
                "title": "Yes" } } })
        }
        "list_reply" => {
            json!({ "type": "interactive", "interactive": { "type": kind, kind: { "id": "INV-1042",
                "title": "INV-1042", "description": "₹1,180" } } })
        }
        "nfm_reply" => {
            json!({ "type": "interactive", "interactive": { "type": kind, kind: { "name": "flow", "body": "Sent",
                "response_json": "{\"a\":1}" } } })
        }
        "interactive_errors" => json!({ "type": "interactive", "interactive": {} }),
        "referral" => {
            json!({ "type": "text", "text": { "body": "Hello" }, "referral": { "source_url": "https://fb.me/x",
                "source_id": "1", "source_type": "ad", "headline": "Diwali", "ctwa_clid": "A" } })
        }
        "number_changed" => {
            json!({ "type": "system", "system": { "type": "user_changed_number", "wa_id": format!("{}9",
                &phone[..phone.len() - 1]), "body": "User changed from one number to another" } })
        }
        "identity_changed" => {
            json!({ "type": "system", "system": { "type": "customer_identity_changed", "body": "The identity changed",
                "identity": { "acknowledged": false, "created_timestamp": "1764000000", "hash": "DF2lS5v2W6x=" } } })
        }
        "unsupported" => {
            json!({ "type": kind, "unsupported": { "type": "poll" }, "errors": [{ "code": 131_051,
                "title": "Message type unknown", "error_data": {
                "details": "Message type is currently not supported" } }] })
        }
        "edit" => json!({ "type": kind, kind: { "message": { "type": "text", "text": { "body": "Corrected" } } } }),
        "revoke" => json!({ "type": kind, kind: {} }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_stands_over_what_is_there() {
        let mut value = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        overlay(&mut value, &json!({ "a": { "c": 3 }, "d": [], "e": "x" }));
        assert_eq!(value, json!({ "a": { "b": 1, "c": 3 }, "d": [], "e": "x" }));
    }
}
