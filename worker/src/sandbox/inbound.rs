//! What people write to a business: from the phone's page, or from a script.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Inner,
    callback::Event,
    handset::{self, Written},
    refused::{Refused, refuse},
    world::World,
};

/// How long "typing" is shown.
const TYPING: TimeDelta = TimeDelta::seconds(25);

/// What somebody writes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Writing {
    /// Digits of her phone.
    pub(super) from: String,
    /// To this number: its `phone_number_id`. None: the first.
    pub(super) number: Option<String>,
    /// Plain words.
    pub(super) text: Option<String>,
    /// Any other message: `type` and the object of that name.
    pub(super) message: Option<Value>,
    /// The message that it answers.
    pub(super) context: Option<String>,
}

/// `POST /sandbox/inbound`
pub(super) async fn write(State(inner): State<Arc<Inner>>, Json(writing): Json<Writing>) -> Response {
    match note(&inner, writing) {
        Ok(wamid) => Json(json!({ "wamid": wamid })).into_response(),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
    }
}

/// Notes what somebody writes, and tells its business. Says the id of the message.
pub(super) fn note(inner: &Inner, writing: Writing) -> Result<String, &'static str> {
    let from: String = writing.from.chars().filter(char::is_ascii_digit).collect();
    if !(6..=15).contains(&from.len()) {
        return Err("from must be the digits of a phone\n");
    }
    let arrived = inner.micros();
    let now = inner.now();
    let mut guard = inner.world();
    let world = &mut *guard;
    let number = match &writing.number {
        Some(id) => world.number(id),
        None => (!world.numbers.is_empty()).then_some(0),
    };
    let number = number.ok_or("no such number\n")?;
    let mut message = match (writing.text, writing.message) {
        (Some(text), None) if !text.trim().is_empty() => json!({ "type": "text", "text": { "body": text } }),
        (None, Some(message)) if message["type"].is_string() => message,
        _ => return Err("send exactly one of text and message, which has a type\n"),
    };
    let (sequence, wamid) = world.wamid(&from);
    let hidden = world.handsets.entry(&from).hidden;
    message["id"] = json!(wamid);
    message["timestamp"] = json!(now.timestamp().to_string());
    if hidden {
        message["from_user_id"] = json!(handset::user_id(&from));
    } else {
        message["from"] = json!(from);
    }
    if let Some(context) = &writing.context {
        let display = world.numbers[number].number.display_phone.digits();
        message["context"] = json!({ "from": display, "id": context });
    }
    let shown = shown(&message);
    let written = Written {
        wamid: wamid.clone(),
        number,
        from: from.clone(),
        at: now,
        text: shown,
        context: writing.context,
        seen: false,
    };
    world.limits.inbound(number, arrived);
    world.handsets.note(sequence, written);
    let event = tell(world, number, &from, &message, now);
    inner.tell(event);
    Ok(wamid)
}

/// The event of one message that somebody wrote.
fn tell(world: &World, number: usize, from: &str, message: &Value, now: DateTime<Utc>) -> Event {
    let line = &world.numbers[number];
    Event {
        waba: line.number.waba_id.clone(),
        number: Some(number),
        field: "messages".to_owned(),
        at: now,
        value: json!({
            "messaging_product": "whatsapp",
            "metadata": {
                "display_phone_number": line.number.display_phone.digits(),
                "phone_number_id": line.number.id,
            },
            "contacts": [contact(world, from)],
            "messages": [message],
        }),
    }
}

/// A person as webhooks name her.
pub(super) fn contact(world: &World, phone: &str) -> Value {
    let handset = world.handsets.get(phone);
    let name = handset.and_then(|handset| handset.name.as_deref()).unwrap_or("ग्राहक");
    let hidden = handset.is_some_and(|handset| handset.hidden);
    let mut contact = json!({ "profile": { "name": name } });
    if !hidden {
        contact["wa_id"] = json!(phone);
    }
    if hidden || world.behaviour.user_ids {
        contact["user_id"] = json!(handset::user_id(phone));
    }
    contact
}

/// As the phone shows it.
fn shown(message: &Value) -> String {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let kind = text("/type").unwrap_or_default();
    let known = match kind {
        "text" => text("/text/body"),
        "button" => text("/button/text"),
        "interactive" => text("/interactive/button_reply/title").or_else(|| text("/interactive/list_reply/title")),
        "reaction" => text("/reaction/emoji"),
        "system" => text("/system/body"),
        _ => None,
    };
    known.map_or_else(|| format!("[{kind}]"), str::to_owned)
}

/// A business has read what somebody wrote, and perhaps types an answer.
pub(super) fn seen(world: &mut World, number: usize, posted: &Value, now: DateTime<Utc>) -> Result<(), Refused> {
    if posted["status"] != "read" {
        return Err(refuse(131_009, "The parameter status must be read."));
    }
    let wamid =
        posted["message_id"].as_str().ok_or_else(|| refuse(131_008, "The parameter message_id is required."))?;
    let typing = &posted["typing_indicator"];
    if !typing.is_null() && typing["type"] != "text" {
        return Err(refuse(131_009, "The parameter typing_indicator['type'] must be text."));
    }
    let found = world.handsets.written.values().rev().find(|one| one.number == number && one.wamid == wamid);
    let (from, at) = found
        .map(|one| (one.from.clone(), one.at))
        .ok_or_else(|| refuse(131_009, "The parameter message_id is not the id of a message to this number."))?;
    for one in world.handsets.written.values_mut() {
        // What came before it is read with it.
        if one.number == number && one.from == from && one.at <= at {
            one.seen = true;
        }
    }
    if !typing.is_null() {
        world.handsets.type_until(number, &from, now + TYPING);
    }
    Ok(())
}
