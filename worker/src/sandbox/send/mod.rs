//! `POST /{version}/{number}/messages`: checked as the carrier checks it, in its order, and answered as it answers, or
//! as the script says.

mod part;
mod template;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Inner,
    door::Caller,
    fault::{self, Garbage, What},
    refused::{Refused, refuse},
    wire::Scissors,
    world::{Fate, Line, Message, Progress},
};

/// A message is small; files come by upload.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// Longest silence of a carrier that never answers.
const SILENCE: Duration = Duration::from_secs(120);

/// `POST /{version}/{number}/messages`
pub(super) async fn send(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path((_, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (request_number, early) = {
        let mut world = inner.world();
        world.posts += 1;
        let (number, chance) = (world.posts, world.unit());
        (number, fault::take(&mut world.faults, number, None, || chance))
    };
    if early.is_some() {
        return cut(&scissors);
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MESSAGE_LIMIT).await else {
        return refuse(100, "The request body cannot be read or is too long").into_response();
    };
    let message = match prepare(&inner, &parts.uri, &id, &parts.headers, &body) {
        Ok(message) => message,
        Err(refused) => return refused.into_response(),
    };
    let what = {
        let mut world = inner.world();
        world.count(message.reference.as_deref());
        let chance = world.unit();
        fault::take(&mut world.faults, request_number, Some(&message.to), || chance)
    };
    answer(&inner, &scissors, message, what).await
}

/// What the carrier does with a well-formed message, or what is scripted instead.
async fn answer(inner: &Arc<Inner>, scissors: &Scissors, mut message: Message, what: Option<What>) -> Response {
    match what {
        Some(What::Refuse { code, subcode }) => {
            return Refused { subcode, ..refuse(code, "The stand-in was told to refuse this message") }.into_response();
        }
        Some(What::Silence) => return silence(inner, scissors).await,
        Some(What::Delay { millis }) => tokio::time::sleep(Duration::from_millis(millis.min(120_000))).await,
        Some(What::FailLater { code }) => message.fate = Fate::Fails { code },
        Some(What::Vanish) => message.fate = Fate::Vanishes,
        Some(What::ReadOnly) => message.fate = Fate::ReadOnly,
        _ => {}
    }
    let now = inner.now();
    let accepted = {
        let mut world = inner.world();
        let number = &world.numbers[message.number].number;
        let (id, rate) = (number.id.clone(), number.messages_per_second);
        if let Err(code) = world.limits.admit(&id, &message.to, rate, now) {
            return refuse(code, "Rate limit hit").into_response();
        }
        let template = message.template;
        let mut accepted = world.accept(message);
        let kept = template.and_then(|id| world.templates.get_mut(id));
        if let Some(kept) = kept {
            kept.used_at = now;
            if kept.holds(accepted.sequence) && accepted.fate == Fate::Usual {
                accepted.fate = Fate::Held;
                if let Some(message) = world.messages.get_mut(&accepted.sequence) {
                    message.fate = Fate::Held;
                }
            }
        }
        if matches!(what, Some(What::ReportFirst)) {
            inner.advance(&mut world, accepted.sequence, Progress::Sent);
            inner.advance(&mut world, accepted.sequence, Progress::Delivered);
        } else {
            inner.deliver_later(&mut world, &accepted);
        }
        accepted
    };
    let status = if accepted.fate == Fate::Held { "held_for_quality_assessment" } else { "accepted" };
    let receipt = json!({
        "messaging_product": "whatsapp",
        "contacts": [{ "input": format!("+{}", accepted.to), "wa_id": accepted.to }],
        "messages": [{ "id": accepted.wamid, "message_status": status }],
    });
    match what {
        Some(What::ReportFirst) => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Json(receipt).into_response()
        }
        Some(What::AcceptThenSilence) => silence(inner, scissors).await,
        Some(What::AcceptThenCut) => cut(scissors),
        Some(What::AcceptThenAnswer { status, body }) => garbage(status, body, &receipt),
        _ => Json(receipt).into_response(),
    }
}

fn garbage(status: u16, body: Garbage, receipt: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    match body {
        Garbage::Html => (status, Html("<html><body><h1>Bad Gateway</h1></body></html>")).into_response(),
        Garbage::HalfJson => {
            let whole = receipt.to_string();
            let half = whole.chars().take(whole.len() / 2).collect::<String>();
            (status, [(header::CONTENT_TYPE, "application/json")], half).into_response()
        }
        Garbage::Empty => status.into_response(),
    }
}

/// Keeps the caller waiting until it gives up, or the stand-in ends.
async fn silence(inner: &Inner, scissors: &Scissors) -> Response {
    tokio::select! {
        () = inner.ended.cancelled() => {}
        () = tokio::time::sleep(SILENCE) => {}
    }
    cut(scissors)
}

fn cut(scissors: &Scissors) -> Response {
    scissors.cut();
    StatusCode::NO_CONTENT.into_response()
}

/// A word of the envelope that must be there.
fn word<'a>(posted: &'a Value, name: &str) -> Result<&'a str, Refused> {
    match &posted[name] {
        Value::Null => Err(refuse(131_008, format!("The parameter {name} is required."))),
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(refuse(131_009, format!("The parameter {name} is not valid."))),
    }
}

/// Checks a message as the carrier does, in its order: caller, envelope, content.
fn prepare(inner: &Inner, uri: &Uri, id: &str, headers: &HeaderMap, body: &Bytes) -> Result<Message, Refused> {
    let caller = Caller::of(inner, uri, headers)?;
    let world = inner.world();
    let number = caller.number(&world, id)?;
    let posted: Value = serde_json::from_slice(body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| refuse(100, "The parameters cannot be read as JSON of a message"))?;
    if word(&posted, "messaging_product")? != "whatsapp" {
        return Err(refuse(100, "messaging_product must be whatsapp"));
    }
    let to = recipient(word(&posted, "to")?, &world.numbers[number])?;
    let reference = match &posted["biz_opaque_callback_data"] {
        Value::Null => None,
        Value::String(text) if text.chars().count() <= 512 => Some(text.clone()),
        _ => return Err(refuse(100, "Param biz_opaque_callback_data must be at most 512 characters long.")),
    };
    if word(&posted, "type")? != "template" {
        return Err(refuse(131_047, "More than 24 hours have passed since the customer last replied to this number."));
    }
    let posted = Some(&posted["template"]).filter(|template| template.is_object());
    let posted = posted.ok_or_else(|| refuse(131_008, "The parameter template is required."))?;
    let now = inner.now();
    let filled = template::judge(&world, number, posted, now)?;
    Ok(Message {
        sequence: 0,
        wamid: String::new(),
        number,
        to,
        reference,
        template: filled.template,
        document: filled
            .file
            .as_ref()
            .and_then(|file| Some((file.id.clone()?, file.filename.clone().unwrap_or_else(|| "Untitled".to_owned())))),
        text: filled.text,
        progress: Progress::Accepted,
        fate: Fate::Usual,
        accepted_at: now,
        displayed_at: None,
        events: Vec::new(),
    })
}

/// Digits of the recipient. Without a plus the sender's country code is put in front: the message then really goes to
/// that number.
fn recipient(to: &str, line: &Line) -> Result<String, Refused> {
    let number = &line.number;
    let digits: String = to.chars().filter(char::is_ascii_digit).collect();
    let plain = to.chars().all(|character| character.is_ascii_digit() || " +-()".contains(character));
    if !plain || !(6..=15).contains(&digits.len()) {
        return Err(refuse(131_009, "The parameter to is not a valid phone number."));
    }
    let digits = if to.starts_with('+') { digits } else { format!("{}{digits}", number.country_code) };
    if digits == number.display_phone.digits() {
        return Err(refuse(131_021, "The recipient phone number is the sender's own."));
    }
    Ok(digits)
}
