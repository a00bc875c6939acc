//! The carrier's webhooks: whether they are genuine, and what they hold.
//!
//! One POST may carry a thousand updates of several numbers, nested in `entry[] × changes[] × statuses[] / messages[]`.
//! Each is read by itself, so that one that nobody understands costs only itself; the stored body keeps it.

use chrono::{DateTime, Datelike, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::outbound::{
    Phone, Wamid,
    carrier::{NumberId, without_numbers},
};

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No `X-Hub-Signature-256`, or not `sha256=` and 64 hexadecimal digits.
    #[error("the X-Hub-Signature-256 header is missing or malformed")]
    Missing,
    /// Not made with one of our app secrets over these bytes.
    #[error("the X-Hub-Signature-256 header does not fit the body")]
    Wrong,
}

/// Checks `X-Hub-Signature-256` over the bytes as received, against each app secret in force, in constant time.
///
/// The carrier writes non-ASCII as `\u0906` and slashes as `\/`; parsing and printing again would give other bytes.
///
/// # Errors
/// [`SignatureError`]; it never holds the expected value.
pub fn verify_signature(secrets: &[SecretString], header: Option<&[u8]>, body: &[u8]) -> Result<(), SignatureError> {
    let given = signature_of(header)?;
    let mut genuine = subtle::Choice::from(0);
    // With an empty secret everybody could sign.
    for secret in secrets.iter().filter(|secret| !secret.expose_secret().is_empty()) {
        genuine |= sign(secret, body).as_slice().ct_eq(&given);
    }
    if bool::from(genuine) { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// The signature that a header states, before anything is known of the body.
///
/// # Errors
/// [`SignatureError::Missing`]
pub fn signature_of(header: Option<&[u8]>) -> Result<Vec<u8>, SignatureError> {
    header
        .and_then(|header| header.strip_prefix(b"sha256="))
        .filter(|hex| hex.len() == 64)
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or(SignatureError::Missing)
}

/// HMAC-SHA256 over the bytes, keyed by an app secret.
pub fn sign(secret: &SecretString, body: &[u8]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// Whether `given` is the verify token, in constant time for equal lengths.
pub fn verify_token(expected: &SecretString, given: &str) -> bool {
    let expected = expected.expose_secret();
    !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(given.as_bytes()))
}

/// One update.
#[derive(Clone, Debug)]
pub(super) struct Update {
    /// The account it is about (`entry[].id`); empty where it is none.
    pub(super) waba: String,
    /// The number it is about (`phone_number_id`), where it is about one.
    pub(super) number: Option<String>,
    /// Its place among all updates of the body.
    pub(super) position: i32,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Status {
        wamid: Wamid,
        status: String,
        reference: Option<String>,
        failure: Option<(i64, String)>,
        at: Option<DateTime<Utc>>,
    },
    Inbound(Inbound),
    /// What somebody set in her own WhatsApp (field `user_preferences`).
    Preference(Preference),
    /// Anything else: about the account, a number, a template.
    Field {
        field: String,
        value: serde_json::Value,
        at: Option<DateTime<Utc>>,
    },
    /// None of these; the body keeps it.
    Unreadable,
}

/// Who wrote. The number may be hidden (usernames), then there is an id of the carrier's alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// Her number.
    pub phone: Option<Phone>,
    /// Business-scoped user id: `IN.1349…`.
    pub user_id: Option<String>,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person")
            .field("phone", &self.phone.is_some())
            .field("user_id", &self.user_id.is_some())
            .finish()
    }
}

/// What somebody wrote, tapped or changed.
#[derive(Clone)]
pub struct Inbound {
    /// The carrier's id of it.
    pub wamid: Wamid,
    /// `text`, `button`, `interactive`, `system` …
    pub kind: String,
    /// The carrier's time.
    pub at: Option<DateTime<Utc>>,
    /// From whom.
    pub from: Person,
    /// Her words: a text, or what stands on what she tapped.
    pub text: Option<String>,
    /// What a button or a list row carries.
    pub payload: Option<String>,
    /// The message that she answers.
    pub answers: Option<Wamid>,
    /// For `system`: what changed (`user_changed_number`, `customer_identity_changed`), and the new number.
    pub change: Option<(String, Option<Phone>)>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("kind", &self.kind).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Marketing stopped or resumed in WhatsApp itself.
#[derive(Clone, Debug)]
pub struct Preference {
    /// Whose.
    pub from: Person,
    /// `marketing_messages`
    pub category: String,
    /// `stop`, `resume`
    pub value: String,
    /// The carrier's time.
    pub at: Option<DateTime<Utc>>,
}

/// The updates of a body, or nothing when it is not of the carrier's shape at all.
pub(super) fn read(body: &[u8]) -> Option<Vec<Update>> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    let mut updates = Vec::new();
    for entry in &envelope.entry {
        let waba = entry.id.clone().filter(|id| NumberId::parse(id).is_ok()).unwrap_or_default();
        let told_at = instant(entry.time);
        for change in &entry.changes {
            let Some(raw) = change.value else { continue };
            let field = change.field.as_deref().unwrap_or("messages");
            let number = number_of(raw);
            let whats = match field {
                "messages" => {
                    if number.is_none() {
                        continue;
                    }
                    read_messages(raw)
                }
                "user_preferences" => read_preferences(raw),
                _ => name(field)
                    .and_then(|field| {
                        let value = serde_json::from_str(raw.get()).ok()?;
                        Some(vec![What::Field { field, value, at: told_at }])
                    })
                    .unwrap_or_else(|| vec![What::Unreadable]),
            };
            for what in whats {
                let position = i32::try_from(updates.len()).ok()?;
                updates.push(Update { waba: waba.clone(), number: number.clone(), position, what });
            }
        }
    }
    Some(updates)
}

fn number_of(raw: &RawValue) -> Option<String> {
    let value: Value<'_> = serde_json::from_str(raw.get()).ok()?;
    value.metadata.and_then(|metadata| metadata.phone_number_id).filter(|number| NumberId::parse(number).is_ok())
}

fn read_messages(raw: &RawValue) -> Vec<What> {
    let Ok(value) = serde_json::from_str::<Value<'_>>(raw.get()) else { return Vec::new() };
    let statuses = value.statuses.iter().flatten().map(|raw| read_status(raw).unwrap_or(What::Unreadable));
    let messages = value.messages.iter().flatten().map(|raw| read_inbound(raw).unwrap_or(What::Unreadable));
    statuses.chain(messages).collect()
}

fn read_preferences(raw: &RawValue) -> Vec<What> {
    let Ok(value) = serde_json::from_str::<Preferences<'_>>(raw.get()) else { return vec![What::Unreadable] };
    let read = |raw: &&RawValue| -> Option<What> {
        let item: PreferenceItem<'_> = serde_json::from_str(raw.get()).ok()?;
        Some(What::Preference(Preference {
            from: person(item.wa_id.as_deref(), item.user_id),
            category: name(&item.category)?,
            value: name(&item.value)?,
            at: instant(item.timestamp),
        }))
    };
    value.user_preferences.iter().map(|raw| read(raw).unwrap_or(What::Unreadable)).collect()
}

/// Ids of the carrier come without a plus.
fn person(wa_id: Option<&str>, user_id: Option<String>) -> Person {
    let digits = wa_id.map(|id| id.trim_start_matches('+')).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
    Person {
        phone: digits.and_then(|digits| Phone::parse(&format!("+{digits}")).ok()),
        user_id: user_id.filter(|id| (4..=160).contains(&id.len()) && id.is_ascii() && id.contains('.')),
    }
}

fn read_status(raw: &RawValue) -> Option<What> {
    let item: StatusItem<'_> = serde_json::from_str(raw.get()).ok()?;
    let failure = item.errors.iter().flatten().find_map(|error| {
        let error: ErrorItem = serde_json::from_str(error.get()).ok()?;
        let details = match error.error_data {
            Some(ErrorData::Object { details: Some(details) }) | Some(ErrorData::Text(details)) => details,
            _ => error.message.or(error.title).unwrap_or_default(),
        };
        Some((error.code, without_numbers(&details).chars().take(500).collect()))
    });
    Some(What::Status {
        wamid: Wamid::new(&item.id)?,
        status: name(&item.status)?,
        reference: item.biz_opaque_callback_data.filter(|text| text.len() <= 512 && !text.contains('\0')),
        failure,
        at: instant(item.timestamp),
    })
}

fn read_inbound(raw: &RawValue) -> Option<What> {
    let item: InboundItem<'_> = serde_json::from_str(raw.get()).ok()?;
    let part = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<Said>(raw.get()).ok());
    let interactive = item.interactive.and_then(|raw| serde_json::from_str::<Interactive>(raw.get()).ok());
    let tapped = interactive.and_then(|tapped| tapped.button_reply.or(tapped.list_reply));
    let said = part(item.text).or_else(|| part(item.button)).or(tapped);
    let system = item.system.and_then(|raw| serde_json::from_str::<System>(raw.get()).ok());
    let context = item.context.and_then(|raw| serde_json::from_str::<Context>(raw.get()).ok());
    let text = said.as_ref().and_then(|said| said.body.clone().or(said.text.clone()).or(said.title.clone()));
    Some(What::Inbound(Inbound {
        wamid: Wamid::new(&item.id)?,
        kind: name(item.kind.as_deref().unwrap_or("unknown"))?,
        at: instant(item.timestamp),
        from: person(item.from.as_deref(), item.from_user_id),
        // The carrier's own limit of a text (Cloud API, text object) is 4096 characters.
        text: text.map(|text| text.chars().take(4096).collect()),
        payload: said.and_then(|said| said.payload.or(said.id)).map(|payload| payload.chars().take(512).collect()),
        answers: context.and_then(|context| Wamid::new(&context.id?)),
        change: system.and_then(|system| {
            let phone = person(system.wa_id.as_deref().or(system.new_wa_id.as_deref()), None).phone;
            Some((name(&system.kind?)?, phone))
        }),
    }))
}

/// A status or type: a word, known to us or not.
fn name(text: &str) -> Option<String> {
    ((1..=64).contains(&text.len()) && !text.contains('\0')).then(|| text.to_owned())
}

/// Unix seconds, as a string or as a number. Nothing outside the years in which there can be a carrier: Postgres would
/// refuse some of them, and the whole body with them.
fn instant(raw: Option<&RawValue>) -> Option<DateTime<Utc>> {
    let at = DateTime::from_timestamp(raw?.get().trim_matches('"').parse().ok()?, 0)?;
    (2009..2100).contains(&at.year()).then_some(at)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: Option<String>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    field: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Value<'a> {
    metadata: Option<Metadata>,
    #[serde(borrow)]
    statuses: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Metadata {
    phone_number_id: Option<String>,
}

#[derive(Deserialize)]
struct StatusItem<'a> {
    id: String,
    status: String,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    biz_opaque_callback_data: Option<String>,
    #[serde(borrow)]
    errors: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct InboundItem<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    from: Option<String>,
    from_user_id: Option<String>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    button: Option<&'a RawValue>,
    #[serde(borrow)]
    interactive: Option<&'a RawValue>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

/// A text, a template's button, or what was tapped in an interactive message.
#[derive(Deserialize)]
struct Said {
    body: Option<String>,
    text: Option<String>,
    title: Option<String>,
    payload: Option<String>,
    id: Option<String>,
}

#[derive(Deserialize)]
struct Interactive {
    button_reply: Option<Said>,
    list_reply: Option<Said>,
}

#[derive(Deserialize)]
struct System {
    #[serde(rename = "type")]
    kind: Option<String>,
    wa_id: Option<String>,
    new_wa_id: Option<String>,
}

#[derive(Deserialize)]
struct Context {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Preferences<'a> {
    #[serde(borrow, default)]
    user_preferences: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct PreferenceItem<'a> {
    wa_id: Option<String>,
    user_id: Option<String>,
    category: String,
    value: String,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorItem {
    code: i64,
    title: Option<String>,
    message: Option<String>,
    error_data: Option<ErrorData>,
}

/// An object as documented, or a bare string as also seen.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorData {
    Text(String),
    Object { details: Option<String> },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    fn header(secret_text: &str, body: &[u8]) -> Vec<u8> {
        format!("sha256={}", hex::encode(sign(&secret(secret_text), body))).into_bytes()
    }

    #[test]
    fn atk_003_the_signature_is_over_the_bytes_as_received() {
        let escaped = br#"{"name":"\u0906\u0936\u093e","url":"https:\/\/shop.example\/b"}"#;
        let secrets = [secret("new"), secret("old")];
        assert_eq!(verify_signature(&secrets, Some(&header("new", escaped)), escaped), Ok(()));
        // The secret before, during rotation.
        assert_eq!(verify_signature(&secrets, Some(&header("old", escaped)), escaped), Ok(()));
        let printed = serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(escaped).expect("JSON"));
        let reprinted = printed.expect("JSON");
        assert_ne!(reprinted, escaped);
        assert_eq!(verify_signature(&secrets, Some(&header("new", &reprinted)), escaped), Err(SignatureError::Wrong));
    }

    #[test]
    fn atk_001_what_is_not_signed_is_not_believed() {
        let body = b"{}";
        let good = header("s", body);
        let secrets = [secret("s")];
        for (given, expected) in [
            (None, SignatureError::Missing),
            (Some(&b""[..]), SignatureError::Missing),
            (Some(&b"sha256="[..]), SignatureError::Missing),
            (Some(&b"sha1=00"[..]), SignatureError::Missing),
            (Some(&good[..70]), SignatureError::Missing),
            (Some(&[b"sha256=".as_slice(), [b'z'; 64].as_slice()].concat()[..]), SignatureError::Missing),
            (Some(&header("t", body)[..]), SignatureError::Wrong),
            (Some(&header("s", b"{ }")[..]), SignatureError::Wrong),
        ] {
            assert_eq!(verify_signature(&secrets, given, body), Err(expected));
        }
        assert_eq!(verify_signature(&[], Some(&good), body), Err(SignatureError::Wrong));
        assert_eq!(verify_signature(&[secret("")], Some(&header("", body)), body), Err(SignatureError::Wrong));
    }

    #[test]
    fn an_empty_verify_token_lets_nobody_in() {
        assert!(verify_token(&secret("abc"), "abc"));
        assert!(!verify_token(&secret("abc"), "abd"));
        assert!(!verify_token(&secret("abc"), ""));
        assert!(!verify_token(&secret(""), ""));
    }

    #[test]
    fn every_update_of_a_batch_is_read_and_a_bad_one_costs_only_itself() {
        let body = br#"{"object":"whatsapp_business_account","entry":[
            {"id":"1","changes":[
              {"field":"messages","value":{"metadata":{"phone_number_id":"77","display_phone_number":"9198"},
                "contacts":[{"profile":{"name":"\ud800"}}],
                "statuses":[
                  {"id":"wamid.A","status":"sent","timestamp":"1764000000","biz_opaque_callback_data":"w1.x","pricing":{"new":1}},
                  {"status":"no id"},
                  {"id":"wamid.B","status":"warped","timestamp":1764000001},
                  {"id":"wamid.C","status":"failed","timestamp":"soon","errors":[{"code":131026,"error_data":"to 919812345678"}]}]}},
              {"field":"account_update","value":{"event":"DISABLED_UPDATE"}}]},
            {"id":"2","changes":[
              {"field":"messages","value":{"metadata":{"phone_number_id":"88"},
                "messages":[{"id":"wamid.D","from":"9198","timestamp":"1764000002","type":"text","text":{"body":"\u0000"}},
                            {"id":"wamid.E","type":"hologram"}]}},
              {"field":"messages","value":{"metadata":{}}},
              {"field":"messages","value":[]}]},
            {"id":"3"}]}"#;
        let updates = read(body).expect("of the carrier's shape");
        let told: Vec<_> = updates
            .iter()
            .map(|update| match &update.what {
                What::Status { wamid, status, reference, failure, at } => {
                    format!("{} {status} {reference:?} {failure:?} {}", wamid.as_str(), at.is_some())
                }
                What::Inbound(inbound) => format!("{} {}", inbound.wamid.as_str(), inbound.kind),
                What::Preference(preference) => format!("{} {}", preference.category, preference.value),
                What::Field { field, value, .. } => format!("{field} {}", value["event"]),
                What::Unreadable => "unreadable".to_owned(),
            })
            .collect();
        assert_eq!(
            told,
            [
                "wamid.A sent Some(\"w1.x\") None true",
                "unreadable",
                "wamid.B warped None None true",
                "wamid.C failed None Some((131026, \"to …\")) false",
                "account_update \"DISABLED_UPDATE\"",
                "wamid.D text",
                "wamid.E hologram",
            ]
        );
        assert_eq!(updates[3].position, 3);
        assert_eq!(updates[5].number.as_deref(), Some("88"));
        assert_eq!((updates[4].waba.as_str(), &updates[4].number), ("1", &None));
    }

    #[test]
    fn an_instant_that_no_database_holds_is_unknown() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
        for impossible in ["-210866803201", "9224318016000", "\"9224318016000\"", "1230767999", "4102444800", "1e9"] {
            assert_eq!(instant(Some(&raw(impossible))), None, "{impossible}");
        }
        assert!(instant(Some(&raw("1230768000"))).is_some());
        assert!(instant(Some(&raw("\"4102444799\""))).is_some());
    }

    #[test]
    fn a_number_that_is_none_is_nobodys() {
        for number in ["", "7\\u0000", "७७", "+77"] {
            let body = format!(
                r#"{{"entry":[{{"changes":[{{"value":{{"metadata":{{"phone_number_id":"{number}"}},
                "messages":[{{"id":"wamid.A","type":"text"}}]}}}}]}}]}}"#
            );
            assert_eq!(read(body.as_bytes()).map(|updates| updates.len()), Some(0), "{number}");
        }
    }

    #[test]
    fn atk_011_json_made_to_break_readers_costs_only_itself() {
        let inside = |status: &str| {
            format!(
                r#"{{"entry":[{{"changes":[{{"value":{{"metadata":{{"phone_number_id":"77"}},"statuses":[{status},
                {{"id":"wamid.GOOD","status":"sent","timestamp":"1764000000"}}]}}}}]}}]}}"#
            )
        };
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for (bad, survives) in [
            // The whole body does not parse.
            (format!(r#"{{"id":"wamid.X","deep":{deep}}}"#), false),
            ("NaN".to_owned(), false),
            (r#"{"id":"wamid.X","status":"sent","timestamp":1e400}"#.to_owned(), true),
            (r#"{"id":"wamid.X","status":"\ud800"}"#.to_owned(), true),
            (r#"{"id":"wamid\u0000X","status":"sent"}"#.to_owned(), true),
            (r#"{"id":"wamid.X","status":"sent","id":"wamid.Y"}"#.to_owned(), true),
            (format!(r#"{{"{}":1,"id":"wamid.X","status":"sent"}}"#, "k".repeat(1 << 20)), true),
        ] {
            let body = inside(&bad);
            let read = read(body.as_bytes());
            let shown = &bad[..bad.len().min(60)];
            let Some(updates) = read else {
                assert!(!survives, "{shown}");
                continue;
            };
            assert_eq!(updates.len(), 2, "{shown}");
            let What::Status { wamid, .. } = &updates[1].what else { panic!("{shown}") };
            assert_eq!(wamid.as_str(), "wamid.GOOD", "{shown}");
            // Of two ids neither is believed, and no other text gets through.
            if let What::Status { wamid, status, .. } = &updates[0].what {
                assert!(wamid.as_str() == "wamid.X" && status == "sent", "{shown}: {wamid:?} {status}");
                assert!(!bad.contains("wamid.Y"), "{shown}");
            }
        }
    }

    #[test]
    fn what_is_no_webhook_is_nothing() {
        for body in [&b""[..], b"null", b"[]", b"{}", b"\"x\"", b"{\"entry\":1}", b"{\"entry\":[", b"\xff"] {
            assert!(read(body).is_none(), "{body:?}");
        }
        assert_eq!(read(b"{\"entry\":[]}").map(|updates| updates.len()), Some(0));
    }
}
