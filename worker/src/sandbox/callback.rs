//! Webhooks: gathered into bodies, signed over their exact bytes, repeated with growing gaps until they are answered
//! with 200.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::messaging;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::{
    Inner,
    agenda::Due,
    fault::Callbacks,
    handset, inbound,
    world::{Fate, Message, Progress, World},
};

/// Bodies under way at once.
const IN_FLIGHT: usize = 64;
/// Events that wait to be told; beyond, the oldest are lost, and counted.
const WAITING: usize = 200_000;
/// Longest body, in bytes.
const LONGEST: usize = 3 * 1024 * 1024;
/// Updates in a body.
const UPDATES: usize = 1_000;
/// First gap between two tries, and the longest.
const GAPS: [TimeDelta; 2] = [TimeDelta::milliseconds(100), TimeDelta::hours(1)];
/// After so long a webhook is given up.
const GIVEN_UP: TimeDelta = TimeDelta::days(7);

/// One change of one account.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) waba: String,
    /// Of the number that it is about: an index.
    pub(super) number: Option<usize>,
    pub(super) field: String,
    pub(super) at: DateTime<Utc>,
    pub(super) value: Value,
}

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    queue: Mutex<VecDeque<Event>>,
    ring: Notify,
    lost: AtomicU32,
}

impl Hooks {
    /// Looks again whether something is to be told.
    pub(super) fn ring(&self) {
        self.ring.notify_one();
    }

    /// Events that wait, and those lost because too many did.
    pub(super) fn counts(&self) -> (usize, u32) {
        (self.queue().len(), self.lost.load(Ordering::Relaxed))
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One body on its way.
#[derive(Debug)]
pub(super) struct Body {
    text: String,
    /// Signed when it was made: a rotated secret does not change what is under way.
    signature: String,
    waba: String,
    number: Option<usize>,
    born: DateTime<Utc>,
    tries: AtomicU32,
}

impl Inner {
    /// Tells of an event, sooner or later.
    pub(super) fn tell(&self, event: Event) {
        let mut queue = self.hooks.queue();
        if queue.len() >= WAITING {
            queue.pop_front();
            self.hooks.lost.fetch_add(1, Ordering::Relaxed);
        }
        queue.push_back(event);
        drop(queue);
        self.hooks.ring();
    }

    /// Posts a body another time.
    pub(super) fn post_again(&self, body: Arc<Body>) {
        // Only the stand-in's end closes the line.
        let _ = self.again.send(body);
    }
}

/// Tells of every event that arrives, until the stand-in ends.
pub(super) async fn tell(inner: Arc<Inner>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let mode = inner.world().callbacks.clone();
        let waiting = inner.hooks.queue().len();
        if waiting == 0 || mode.stopped {
            tokio::select! {
                () = inner.ended.cancelled() => return,
                () = inner.hooks.ring.notified() => {}
            }
            continue;
        }
        let batch = mode.batch.clamp(1, UPDATES);
        gather(&inner, &mode, batch).await;
        let mut events: Vec<_> = {
            let mut queue = inner.hooks.queue();
            let most = if mode.backwards || mode.shuffled { queue.len() } else { queue.len().min(batch.max(512)) };
            queue.drain(..most).collect()
        };
        if mode.backwards {
            events.reverse();
        }
        let bodies = {
            let mut world = inner.world();
            if mode.shuffled {
                for index in (1..events.len()).rev() {
                    let other = usize::try_from(world.random() % (index as u64 + 1)).unwrap_or(0);
                    events.swap(index, other);
                }
            }
            let told_twice: Vec<_> = if mode.repeated > 0.0 {
                events.iter().filter(|_| world.unit() < mode.repeated).cloned().collect()
            } else {
                Vec::new()
            };
            if !told_twice.is_empty() {
                let at = inner.now() + TimeDelta::milliseconds(50);
                inner.later(&mut world, at, Due::Tell(told_twice));
            }
            bodies(&mut world, &events, batch, mode.apart)
        };
        for body in bodies {
            for _ in 0..mode.copies.clamp(1, 100) {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (inner, body) = (Arc::clone(&inner), Arc::clone(&body));
                tokio::spawn(async move {
                    post(&inner, body).await;
                    drop(place);
                });
            }
        }
    }
}

/// Waits for more events, as long as the mode says.
async fn gather(inner: &Inner, mode: &Callbacks, batch: usize) {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(mode.gather_millis);
    while mode.gather_millis > 0 && (mode.backwards || mode.shuffled || inner.hooks.queue().len() < batch) {
        tokio::select! {
            () = inner.ended.cancelled() => return,
            () = tokio::time::sleep_until(deadline) => return,
            () = inner.hooks.ring.notified() => {}
        }
    }
}

/// Posts what was not taken before, when its time has come.
pub(super) async fn repeat(inner: Arc<Inner>, mut again: tokio::sync::mpsc::UnboundedReceiver<Arc<Body>>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(body) = again.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            post(&inner, body).await;
            drop(place);
        });
    }
}

async fn post(inner: &Arc<Inner>, body: Arc<Body>) {
    let (url, mode) = {
        let world = inner.world();
        (world.callback(&body.waba, body.number).map(str::to_owned), world.callbacks.clone())
    };
    if let Some(url) = url.filter(|_| !mode.stopped) {
        let mut request = inner.client.post(url).header("content-type", "application/json");
        if mode.forged {
            let signature = messaging::sign(&SecretString::from("not the secret"), body.text.as_bytes());
            request = request.header("x-hub-signature-256", format!("sha256={}", hex::encode(signature)));
        } else if !mode.unsigned {
            request = request.header("x-hub-signature-256", &body.signature);
        }
        let sending = request.body(body.text.clone()).send();
        let taken = tokio::select! {
            () = inner.ended.cancelled() => return,
            answer = sending => answer.is_ok_and(|answer| answer.status() == 200),
        };
        let mut world = inner.world();
        if taken {
            world.webhooks_taken += 1;
            world.remember(body);
            return;
        }
        world.webhooks_refused += 1;
    }
    let now = inner.now();
    let mut world = inner.world();
    if now - body.born > GIVEN_UP {
        world.webhooks_given_up += 1;
        return;
    }
    let tries = body.tries.fetch_add(1, Ordering::Relaxed).min(20);
    let gap = (GAPS[0] * (1 << tries)).min(GAPS[1]);
    inner.later(&mut world, now + gap, Due::Post(body));
}

/// Whose secret signs, and where it goes.
type Destination = (usize, Option<String>);

/// Events as bodies: of one app and callback each, at most `batch` updates and not too long.
fn bodies(world: &mut World, events: &[Event], batch: usize, apart: bool) -> Vec<Arc<Body>> {
    let mut made = Vec::new();
    let mut groups: Vec<(Destination, Vec<&Event>)> = Vec::new();
    for event in events {
        let Some(account) = world.account(&event.waba) else { continue };
        if !account.subscribed {
            world.webhooks_unsubscribed += 1;
            continue;
        }
        let key = (account.app, world.callback(&event.waba, event.number).map(str::to_owned));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(event),
            None => groups.push((key, vec![event])),
        }
    }
    for ((app, _), group) in groups {
        let secret = world.apps.get(app).and_then(|app| app.secrets.first());
        let unknown = SecretString::from("no secret");
        for chunk in group.chunks(batch) {
            pack(chunk, apart, secret.unwrap_or(&unknown), &mut made);
        }
    }
    made
}

fn pack(events: &[&Event], apart: bool, secret: &SecretString, made: &mut Vec<Arc<Body>>) {
    let Some(first) = events.first() else { return };
    let text = escape(&envelope(events, apart).to_string());
    if text.len() > LONGEST && events.len() > 1 {
        let (left, right) = events.split_at(events.len() / 2);
        pack(left, apart, secret, made);
        pack(right, apart, secret, made);
        return;
    }
    made.push(Arc::new(Body {
        signature: format!("sha256={}", hex::encode(messaging::sign(secret, text.as_bytes()))),
        text,
        waba: first.waba.clone(),
        number: first.number,
        born: first.at,
        tries: AtomicU32::new(0),
    }));
}

/// Changes of one account stand in one entry, updates of one number in one change, unless they are told apart.
fn envelope(events: &[&Event], apart: bool) -> Value {
    let mut entries: Vec<(&str, Vec<(&Event, Value)>)> = Vec::new();
    for event in events {
        let entry = entries.iter_mut().find(|(waba, _)| *waba == event.waba).filter(|_| !apart);
        let Some((_, changes)) = entry else {
            entries.push((&event.waba, vec![(event, event.value.clone())]));
            continue;
        };
        let same = changes.last_mut().filter(|(last, _)| {
            event.number.is_some()
                && last.number == event.number
                && last.field == "messages"
                && event.field == "messages"
        });
        match same {
            Some((_, value)) => merge(value, &event.value),
            None => changes.push((event, event.value.clone())),
        }
    }
    let entry: Vec<_> = entries
        .into_iter()
        .map(|(waba, changes)| {
            let at = changes.first().map(|(event, _)| event.at.timestamp());
            let changes: Vec<_> =
                changes.into_iter().map(|(event, value)| json!({ "value": value, "field": event.field })).collect();
            json!({ "id": waba, "time": at, "changes": changes })
        })
        .collect();
    json!({ "object": "whatsapp_business_account", "entry": entry })
}

fn merge(into: &mut Value, from: &Value) {
    for list in ["contacts", "statuses", "messages", "errors"] {
        let Some(more) = from.get(list).and_then(Value::as_array) else { continue };
        match into.get_mut(list).and_then(Value::as_array_mut) {
            Some(known) => {
                for one in more {
                    // Of one person one contact is enough where her updates stand together.
                    if list != "contacts" || known.last() != Some(one) {
                        known.push(one.clone());
                    }
                }
            }
            None => into[list] = json!(more),
        }
    }
}

/// As the carrier writes JSON: ASCII only, slashes escaped. Both stand only inside strings.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            '/' => escaped.push_str("\\/"),
            character if character.is_ascii() => escaped.push(character),
            character => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
            }
        }
    }
    escaped
}

/// The event that tells of one status.
pub(super) fn status(world: &World, message: &Message, progress: Progress, now: DateTime<Utc>) -> Event {
    let line = &world.numbers[message.number];
    let status = match progress {
        Progress::Accepted | Progress::Sent => "sent",
        Progress::Delivered => "delivered",
        Progress::Read => "read",
        Progress::Failed => "failed",
    };
    let hidden = world.handsets.get(&message.to).is_some_and(|handset| handset.hidden) || message.to.contains('.');
    let mut told = json!({
        "id": message.wamid,
        "status": if message.odd { "teleported" } else { status },
        "timestamp": now.timestamp().to_string(),
        "recipient_type": "individual",
    });
    if !hidden {
        told["recipient_id"] = json!(message.to);
    }
    if hidden || world.behaviour.user_ids {
        told["recipient_user_id"] = json!(handset::user_id(&message.to));
    }
    if let Some(reference) = &message.reference {
        told["biz_opaque_callback_data"] = json!(reference);
    }
    let category = message.content.category.as_deref().unwrap_or("SERVICE").to_lowercase();
    if world.behaviour.pricing_on.iter().any(|one| one == status) {
        let kind = if message.odd { "free_on_tuesdays" } else { "regular" };
        told["pricing"] = json!({ "billable": true, "pricing_model": "PMP", "type": kind, "category": category });
    }
    if world.behaviour.conversation && progress == Progress::Sent {
        let until = (now + TimeDelta::hours(24)).timestamp().to_string();
        told["conversation"] = json!({ "id": format!("{:032x}", message.sequence), "expiration_timestamp": until,
            "origin": { "type": category } });
    }
    if message.odd {
        told["gravity"] = json!({ "unit": "g", "value": [1.0, null] });
    }
    if let Fate::Fails { code, why, .. } = message.fate
        && progress == Progress::Failed
    {
        told["errors"] = json!([{
            "code": code,
            "title": "Message undeliverable",
            "message": "Message undeliverable",
            "error_data": { "details": why },
            "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
        }]);
    }
    Event {
        waba: line.number.waba_id.clone(),
        number: Some(message.number),
        field: "messages".to_owned(),
        at: now,
        value: json!({
            "messaging_product": "whatsapp",
            "metadata": {
                "display_phone_number": line.number.display_phone.digits(),
                "phone_number_id": line.number.id,
            },
            "contacts": [inbound::contact(world, &message.to)],
            "statuses": [told],
        }),
    }
}

/// Asks an address whether it wants webhooks, as the carrier does when it is registered.
pub(super) async fn shake_hands(inner: &Inner, url: &str, token: &str) -> Result<(), String> {
    let url = loopback(url).ok_or("the stand-in calls loopback only")?;
    let challenge = (1_000_000_000 + inner.world().random() % 1_000_000_000).to_string();
    let query = [("hub.mode", "subscribe"), ("hub.verify_token", token), ("hub.challenge", &challenge)];
    let answer = inner.client.get(url).query(&query).send().await.map_err(|_| "no answer".to_owned())?;
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    match (status, text == challenge) {
        (200, true) => Ok(()),
        (200, false) => Err("the challenge did not come back".to_owned()),
        (status, _) => Err(format!("HTTP Status Code = {status}")),
    }
}

/// An address on this machine: the stand-in posts to no other.
pub(super) fn loopback(url: &str) -> Option<reqwest::Url> {
    let url = reqwest::Url::parse(url).ok()?;
    matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_escaped_like_the_carriers() {
        assert_eq!(escape(r#"{"a":"आ/😀"}"#), r#"{"a":"\u0906\/\ud83d\ude00"}"#);
    }

    #[test]
    fn updates_of_a_number_stand_in_one_change_and_accounts_in_entries_of_their_own() {
        let event = |waba: &str, number, field: &str, value| Event {
            waba: waba.to_owned(),
            number,
            field: field.to_owned(),
            at: DateTime::UNIX_EPOCH,
            value,
        };
        let events = [
            event("1", Some(0), "messages", json!({ "contacts": [{ "wa_id": "9" }], "statuses": [1] })),
            event("2", Some(1), "messages", json!({ "messages": [2] })),
            event("1", Some(0), "messages", json!({ "contacts": [{ "wa_id": "9" }], "messages": [3] })),
            event("1", None, "account_update", json!({ "event": "ACCOUNT_DELETED" })),
        ];
        let events: Vec<_> = events.iter().collect();
        let whole = envelope(&events, false);
        assert_eq!(whole["entry"].as_array().map(Vec::len), Some(2));
        let merged = &whole["entry"][0]["changes"][0]["value"];
        assert_eq!(*merged, json!({ "contacts": [{ "wa_id": "9" }], "statuses": [1], "messages": [3] }));
        assert_eq!(whole["entry"][0]["changes"][1]["field"], "account_update");
        assert_eq!(envelope(&events, true)["entry"].as_array().map(Vec::len), Some(4));
    }
}
