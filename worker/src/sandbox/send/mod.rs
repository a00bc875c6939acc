//! `POST /{version}/{number}/messages`: checked as the carrier checks it, in its order, and answered as it answers, or
//! as the script says.

mod fetch;
mod free;
mod interactive;
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
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{
    Inner,
    agenda::Due,
    door::Caller,
    fault::{self, ErrorData, Garbage, Met, What, WindowRule},
    inbound,
    refused::{DataAs, Refused, refuse},
    wire::Scissors,
    world::{Fate, Line, Message, Progress, World},
};

pub(super) use part::{FileRef, Filled, Row, Tap};

/// A message is small; files come by upload.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// How long the carrier goes on trying to deliver.
const LONGEST_LIFE: TimeDelta = TimeDelta::days(30);
/// Longest silence of a carrier that never answers.
const SILENCE: Duration = Duration::from_secs(120);

/// What a good request asks for.
enum Asked {
    /// A message goes out.
    Message(Box<Prepared>),
    /// Something that a person wrote was read, and perhaps an answer is being typed.
    Read,
}

/// A message that was found good.
struct Prepared {
    message: Message,
    /// The recipient as she was named.
    input: String,
    /// It is no template, and the window is closed.
    outside: bool,
}

/// `POST /{version}/{number}/messages`
pub(super) async fn send(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path((_, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    let arrived = inner.micros();
    let (request_number, early) = {
        let mut world = inner.world();
        world.posts += 1;
        let met = Met { request: world.posts, from: &id, to: None, chance: world.unit() };
        (met.request, fault::take(&mut world.faults, met))
    };
    if early.is_some() {
        return cut(&scissors);
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MESSAGE_LIMIT).await else {
        return refuse(100, "The request body cannot be read or is too long").into_response();
    };
    let prepared = match prepare(&inner, &parts.uri, &id, &parts.headers, &body) {
        Ok(Asked::Message(prepared)) => *prepared,
        Ok(Asked::Read) => return Json(json!({ "success": true })).into_response(),
        Err(refused) => return refused.into_response(),
    };
    let what = {
        let mut world = inner.world();
        let message = &prepared.message;
        world.count(message.reference.as_deref());
        let met = Met { request: request_number, from: &id, to: Some(&message.to), chance: world.unit() };
        fault::take(&mut world.faults, met)
    };
    answer(&inner, &scissors, prepared, what, arrived).await
}

/// What the carrier does with a well-formed message, or what is scripted instead.
async fn answer(
    inner: &Arc<Inner>,
    scissors: &Scissors,
    mut prepared: Prepared,
    what: Option<What>,
    mut arrived: i64,
) -> Response {
    let message = &mut prepared.message;
    let told = "The stand-in was told to fail this message";
    match what {
        Some(What::Refuse { code, subcode, transient, data, status, regain_minutes }) => {
            let usage = regain_minutes.map(|minutes| {
                json!({ "0": [{ "type": "messages", "call_count": 100,
                    "estimated_time_to_regain_access": minutes }] })
                .to_string()
            });
            let data = match data {
                None => DataAs::Object,
                Some(ErrorData::Text) => DataAs::Text,
                Some(ErrorData::Absent) => DataAs::Nothing,
            };
            let refused = refuse(code, "The stand-in was told to refuse this message");
            return Refused { subcode, transient, data, status, usage, ..refused }.into_response();
        }
        Some(What::Silence) => return silence(inner, scissors).await,
        Some(What::Delay { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis.min(120_000))).await;
            arrived = inner.micros();
        }
        Some(What::FailLater { code, after_sent }) => message.fate = Fate::Fails { code, why: told, after_sent },
        Some(What::Vanish) => message.fate = Fate::Vanishes,
        Some(What::ReadOnly) => message.fate = Fate::ReadOnly,
        Some(What::Hold { .. }) => message.fate = Fate::Held,
        Some(What::Odd) => message.odd = true,
        Some(What::TellLate { secs }) => message.late_secs = secs,
        _ => {}
    }
    let odd = message.odd;
    let receipt = match accept(inner, prepared, what.as_ref(), arrived) {
        Ok(receipt) => receipt,
        Err(refused) => return refused.into_response(),
    };
    match what {
        Some(What::ReportFirst) => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Json(receipt).into_response()
        }
        Some(What::AnswerLate { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis.min(120_000))).await;
            Json(receipt).into_response()
        }
        Some(What::AcceptThenSilence) => silence(inner, scissors).await,
        Some(What::AcceptThenCut) => cut(scissors),
        Some(What::AcceptThenAnswer { status, body }) => garbage(status, body, &receipt),
        _ if odd => {
            let mut receipt = receipt;
            receipt["messages"][0]["message_status"] = json!("teleported");
            receipt["messages"][0]["message_class"] = json!({ "new": [1, null] });
            receipt["meta"] = json!("a field that nobody knows");
            Json(receipt).into_response()
        }
        _ => Json(receipt).into_response(),
    }
}

/// Takes a message in, if the limits let it, and sends it on its way.
fn accept(inner: &Arc<Inner>, prepared: Prepared, what: Option<&What>, arrived: i64) -> Result<Value, Refused> {
    let Prepared { mut message, input, outside } = prepared;
    let now = inner.now();
    let mut guard = inner.world();
    let world = &mut *guard;
    let line = &world.numbers[message.number];
    if line.state.upgrading {
        return Err(refuse(131_057, "The account is in maintenance mode: its throughput is being upgraded"));
    }
    let rate = line.number.messages_per_second;
    world.limits.admit(message.number, &message.to, rate, (arrived, now)).map_err(|code| {
        refuse(
            code,
            if code == 130_429 { "Rate limit hit" } else { "Pair rate limit hit: too many messages to this person" },
        )
    })?;
    if message.fate == Fate::Usual {
        message.fate = fate(world, &message, outside, now);
    }
    (message.sequence, message.wamid) = world.wamid(&message.to);
    let sequence = message.sequence;
    if let Some(kept) = message.content.template.and_then(|id| world.templates.get_mut(id)) {
        kept.used_at = now;
        if message.fate == Fate::Usual && kept.holds(sequence) {
            message.fate = Fate::Held;
        }
    }
    let link = message.content.file.as_ref().filter(|_| message.fate == Fate::Usual);
    let link = link.and_then(|file| Some((file.kind.clone(), file.link.clone()?)));
    if link.is_some() {
        message.fate = Fate::Fetching;
    }
    let category = message.content.category.as_deref().unwrap_or("SERVICE");
    world.handsets.note_accepted(&message.to, category, &message.wamid, now);
    let held = message.fate == Fate::Held;
    let contact = match message.by_user_id {
        true => json!({ "input": input, "user_id": input }),
        false => json!({ "input": input, "wa_id": message.to }),
    };
    let receipt = json!({
        "messaging_product": "whatsapp",
        "contacts": [contact],
        "messages": [{ "id": message.wamid, "message_status": if held { "held_for_quality_assessment" } else {
            "accepted" } }],
    });
    let number = message.number;
    world.accept(message);
    match what {
        Some(What::ReportFirst) => {
            inner.advance(world, sequence, Progress::Sent);
            inner.advance(world, sequence, Progress::Delivered);
        }
        Some(What::Hold { secs }) => {
            inner.later(world, now + TimeDelta::seconds(i64::from(*secs)), Due::Release { sequence });
        }
        _ => inner.deliver_later(world, sequence),
    }
    drop(guard);
    if let Some((kind, link)) = link {
        fetch::start(inner, sequence, number, kind, link);
    }
    Ok(receipt)
}

/// What the carrier finds out after it has answered.
fn fate(world: &mut World, message: &Message, outside: bool, now: DateTime<Utc>) -> Fate {
    let fails = |code: i64, why: &'static str| Fate::Fails { code, why, after_sent: false };
    if outside {
        return fails(131_047, "More than 24 hours have passed since the recipient last replied");
    }
    let gone = world.handsets.get(&message.to).is_some_and(|handset| handset.absent);
    if gone || (message.by_user_id && message.to.contains('.')) {
        return fails(131_026, "Message undeliverable");
    }
    let open = world.handsets.window(message.number, &message.to).is_some_and(|until| until > now);
    let category = message.content.category.as_deref();
    if category == Some("MARKETING") {
        let (cap, lock) = (world.behaviour.marketing_cap, world.behaviour.marketing_lock_after);
        let spared = "This message was not delivered to maintain healthy ecosystem engagement";
        if message.to.starts_with('1') && message.to.len() == 11 {
            return fails(131_049, spared);
        }
        if let Some(cap) = cap.filter(|_| !open)
            && !world.limits.market(&message.to, cap, lock, now)
        {
            return fails(131_049, spared);
        }
    }
    if category.is_some() && !open {
        let line = &world.numbers[message.number];
        let (app, most) = (line.app, line.state.people_a_day());
        if let Some(most) = most
            && !world.limits.begin(app, &message.to, most, now)
        {
            return fails(world.behaviour.portfolio_code, "The messaging limit of the business portfolio is reached");
        }
    }
    if !free::is_of_its_kind(world, &message.content) {
        return fails(131_053, "The media is of another type than the message");
    }
    Fate::Usual
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

/// Checks a message as the carrier does, in its order: caller, number, envelope, content, window, person.
fn prepare(inner: &Inner, uri: &Uri, id: &str, headers: &HeaderMap, body: &Bytes) -> Result<Asked, Refused> {
    let caller = Caller::of(inner, uri, headers)?;
    let posted = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let now = inner.now();
    let mut guard = inner.world();
    let world = &mut *guard;
    let number = caller.number(world, id)?;
    world.may_send(number)?;
    let posted = posted.ok_or_else(|| refuse(100, "The parameters cannot be read as JSON of a message"))?;
    if word(&posted, "messaging_product")? != "whatsapp" {
        return Err(refuse(100, "messaging_product must be whatsapp"));
    }
    if !posted["status"].is_null() {
        world.posts -= 1;
        return inbound::seen(world, number, &posted, now).map(|()| Asked::Read);
    }
    let (to, input, by_user_id) = recipient(world, number, &posted)?;
    if !matches!(posted["recipient_type"].as_str(), None | Some("individual")) {
        return Err(refuse(131_009, "The parameter recipient_type must be individual."));
    }
    let reference = match &posted["biz_opaque_callback_data"] {
        Value::Null => None,
        Value::String(text) if text.chars().count() <= 512 => Some(text.clone()),
        _ => return Err(refuse(100, "Param biz_opaque_callback_data must be at most 512 characters long.")),
    };
    let kind = word(&posted, "type")?;
    let mut dies_at = now + LONGEST_LIFE;
    let mut content = if kind == "template" {
        let template = Some(&posted["template"]).filter(|template| template.is_object());
        let template = template.ok_or_else(|| refuse(131_008, "The parameter template is required."))?;
        let filled = template::judge(world, number, template, now)?;
        if let Some(kept) = filled.template.and_then(|id| world.templates.get(id)) {
            dies_at = now + kept.life();
        }
        filled
    } else {
        free::read(world, number, kind, &posted, now)?
    };
    if let Some(quoted) = posted["context"]["message_id"].as_str() {
        if !quoted.starts_with("wamid.") {
            return Err(refuse(131_009, "The parameter context['message_id'] is not the id of a message."));
        }
        content.context = Some(quoted.to_owned());
    }
    let open = world.handsets.window(number, &to).is_some_and(|until| until > now);
    let outside = kind != "template" && !open && world.behaviour.window != WindowRule::Open;
    if outside && world.behaviour.window == WindowRule::Refused {
        let details = "More than 24 hours have passed since the customer last replied to this number.";
        return Err(refuse(131_047, details));
    }
    let person = Person { number, to: &to, by_user_id };
    may_reach(world, person, &posted, content.category.as_deref())?;
    let message = Message {
        sequence: 0,
        wamid: String::new(),
        number,
        to,
        by_user_id,
        reference,
        content,
        progress: Progress::Accepted,
        fate: Fate::Usual,
        odd: false,
        late_secs: 0,
        accepted_at: now,
        dies_at,
        displayed_at: None,
        events: Vec::new(),
    };
    Ok(Asked::Message(Box::new(Prepared { message, input, outside })))
}

/// Who is to get a message.
#[derive(Clone, Copy)]
struct Person<'a> {
    /// From this number: an index.
    number: usize,
    /// Digits, or the scoped id of somebody nobody knows.
    to: &'a str,
    by_user_id: bool,
}

/// Whether this person may be reached like this, as far as it is known at once.
fn may_reach(world: &World, person: Person<'_>, posted: &Value, category: Option<&str>) -> Result<(), Refused> {
    let Person { number, to, by_user_id } = person;
    if by_user_id && category == Some("AUTHENTICATION") {
        return Err(refuse(131_062, "Business-scoped user ids are not allowed for this message."));
    }
    if world.numbers[number].state.blocks(to) {
        return Err(refuse(130_403, "The business has blocked this user."));
    }
    let handset = world.handsets.get(to);
    if category == Some("MARKETING") && handset.is_some_and(|handset| handset.marketing_stopped) {
        return Err(refuse(131_050, "The user has stopped marketing messages from this business."));
    }
    let known = handset.and_then(|handset| handset.identity.as_deref());
    match (posted["recipient_identity_key_hash"].as_str(), known) {
        (Some(given), Some(known)) if given != known => {
            Err(refuse(137_000, "The user's identity key has changed since."))
        }
        _ => Ok(()),
    }
}

/// Who gets it: digits, or a business-scoped id of somebody nobody knows; and how she was named.
fn recipient(world: &World, number: usize, posted: &Value) -> Result<(String, String, bool), Refused> {
    if posted["to"].is_null() && !posted["recipient"].is_null() {
        let id = word(posted, "recipient")?;
        let scoped = id.split_once('.').is_some_and(|(country, rest)| {
            let rest = rest.strip_prefix("ENT.").unwrap_or(rest);
            country.len() == 2
                && country.bytes().all(|byte| byte.is_ascii_uppercase())
                && (1..=128).contains(&rest.len())
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if !scoped {
            return Err(refuse(131_009, "The parameter recipient is not a business-scoped user id."));
        }
        let to = world.handsets.of_user_id(id).unwrap_or(id).to_owned();
        return Ok((to, id.to_owned(), true));
    }
    let input = word(posted, "to")?;
    Ok((phone(input, &world.numbers[number])?, input.to_owned(), false))
}

/// Digits of a number. Without a plus the sender's country code is put in front: the message then really goes to that
/// number.
fn phone(to: &str, line: &Line) -> Result<String, Refused> {
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
