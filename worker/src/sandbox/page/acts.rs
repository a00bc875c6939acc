//! What the person with the phone does: she writes, taps, chooses, reads, switches it off.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::super::{
    Inner,
    callback::Event,
    inbound::{self, Writing},
    send::Tap,
    world::Progress,
};

/// Digits only: they become part of a header.
fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).take(20).collect()
}

fn back(frame: &str, number: &str, phone: &str) -> Response {
    Redirect::to(&format!("/sandbox{frame}?number={}&phone={}", digits(number), digits(phone))).into_response()
}

#[derive(Deserialize)]
pub(super) struct Reply {
    number: String,
    phone: String,
    #[serde(default)]
    text: String,
    /// One of the sentences that lie ready.
    #[serde(default)]
    quick: Option<String>,
}

/// `POST /sandbox/reply`
pub(super) async fn reply(State(inner): State<Arc<Inner>>, Form(reply): Form<Reply>) -> Response {
    let text = reply.quick.unwrap_or(reply.text);
    if !text.trim().is_empty() {
        let writing = Writing {
            from: reply.phone.clone(),
            number: Some(reply.number.clone()),
            text: Some(text.trim().chars().take(4096).collect()),
            ..Writing::default()
        };
        if inbound::note(&inner, writing).is_err() {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
    }
    back("/reply", &reply.number, &reply.phone)
}

#[derive(Deserialize)]
pub(super) struct Tapped {
    wamid: String,
    /// Which button, from 0.
    #[serde(default)]
    button: Option<usize>,
    /// Or which row of the list, by its id.
    #[serde(default)]
    row: Option<String>,
}

/// `POST /sandbox/tap`: a button or a choice answers with a message of its own kind.
pub(super) async fn tap(State(inner): State<Arc<Inner>>, Form(tapped): Form<Tapped>) -> Response {
    let found = {
        let world = inner.world();
        world.message(&tapped.wamid).map(|message| {
            let number = world.numbers[message.number].number.id.clone();
            (number, message.to.clone(), message.content.clone())
        })
    };
    let Some((number, phone, content)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let button = tapped.button.and_then(|index| content.taps.get(index));
    let rows = content.list.iter().flat_map(|(_, sections)| sections).flat_map(|section| &section.rows);
    let row = tapped.row.as_ref().and_then(|id| rows.into_iter().find(|row| row.id == *id));
    let message = match (button, row) {
        (Some(Tap::Reply { text, payload }), _) => {
            json!({ "type": "button", "button": { "payload": payload, "text": text } })
        }
        (Some(Tap::Choice { id, title }), _) => {
            let reply = json!({ "id": id, "title": title });
            json!({ "type": "interactive", "interactive": { "type": "button_reply", "button_reply": reply } })
        }
        (None, Some(row)) => {
            let reply = json!({ "id": row.id, "title": row.title, "description": row.description });
            json!({ "type": "interactive", "interactive": { "type": "list_reply", "list_reply": reply } })
        }
        _ => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    };
    let writing = Writing {
        from: phone.clone(),
        number: Some(number.clone()),
        message: Some(message),
        context: Some(tapped.wamid),
        ..Writing::default()
    };
    if inbound::note(&inner, writing).is_err() {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    back(if row.is_some() { "" } else { "/talk" }, &number, &phone)
}

#[derive(Deserialize)]
pub(super) struct Set {
    number: String,
    phone: String,
    /// `off`, `on`, `stop`, `resume`.
    what: String,
}

/// `POST /sandbox/set`: she switches the phone off or on, or stops offers in the app's own settings.
pub(super) async fn set(State(inner): State<Arc<Inner>>, Form(set): Form<Set>) -> Response {
    let phone = digits(&set.phone);
    let now = inner.now();
    {
        let mut guard = inner.world();
        let world = &mut *guard;
        let Some(index) = world.number(&set.number).filter(|_| phone.len() >= 6) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        match set.what.as_str() {
            "off" => world.handsets.entry(&phone).offline = true,
            "on" => {
                let handset = world.handsets.entry(&phone);
                handset.offline = false;
                for sequence in std::mem::take(&mut handset.waiting) {
                    inner.arrive(world, sequence);
                }
            }
            what @ ("stop" | "resume") => {
                world.handsets.prefer(&phone, what == "stop", now);
                let line = &world.numbers[index].number;
                let one = json!({ "wa_id": phone, "category": "marketing_messages", "value": what,
                    "detail": format!("User requested to {what} marketing messages"), "timestamp": now.timestamp() });
                let value = json!({ "messaging_product": "whatsapp",
                    "metadata": { "display_phone_number": line.display_phone.digits(), "phone_number_id": line.id },
                    "contacts": [inbound::contact(world, &phone)], "user_preferences": [one] });
                let (waba, field) = (line.waba_id.clone(), "user_preferences".to_owned());
                inner.tell(Event { waba, number: Some(index), field, at: now, value });
            }
            _ => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        }
    }
    back("/reply", &set.number, &phone)
}

#[derive(Deserialize)]
pub(super) struct Seen {
    phone: String,
    #[serde(default)]
    number: Option<String>,
}

/// `POST /sandbox/read`: the person looks at the chat.
pub(super) async fn mark_read(State(inner): State<Arc<Inner>>, Form(seen): Form<Seen>) -> Response {
    let mut world = inner.world();
    let index = seen.number.as_deref().and_then(|id| world.number(id));
    let unread: Vec<_> = world
        .messages
        .values()
        .filter(|message| message.to == seen.phone && message.progress == Progress::Delivered)
        .filter(|message| index.is_none_or(|index| message.number == index))
        .map(|message| message.sequence)
        .collect();
    for sequence in unread {
        inner.advance(&mut world, sequence, Progress::Read);
    }
    drop(world);
    match &seen.number {
        Some(number) => back("/talk", number, &seen.phone),
        None => Redirect::to(&format!("/sandbox?phone={}", digits(&seen.phone))).into_response(),
    }
}
