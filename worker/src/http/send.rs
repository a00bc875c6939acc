//! `POST /v1/messaging/messages`: one thing said to one person, by the ways that lead to her.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    files,
    messaging::{
        self, Choice, Content, Document, Free, Language, MessageClass, MessageId, Named, NewMessage, Policy, Recipient,
        wishes::{Channel, Contact, language_of},
    },
    outbound::{Email, Phone, carrier::NumberId},
    people::BusinessId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    vault::business_of,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(send))
}

/// How somebody is reached.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct To {
    /// A mobile number, for WhatsApp.
    #[schema(example = "+919812345678")]
    phone: Option<String>,
    /// A mail address.
    email: Option<String>,
}

/// A message that is wanted: a `template` with its `parameters`, or one of `text`, `file`, `buttons`, `list` and `link`
/// to somebody who has written within 24 hours.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWords {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// The phone number id it goes out from; the business's first if left out.
    #[schema(example = "106540352242922")]
    from: Option<String>,
    /// Whom it is for.
    to: To,
    /// whatsapp, mail: the ways in their order, the next where the one before did not reach her. All that there is an
    /// address for if left out, WhatsApp first; for words of your own WhatsApp alone.
    channels: Option<Vec<String>>,
    /// Folder of the words.
    #[schema(example = "order_ready")]
    template: Option<String>,
    /// What they are filled with, by name.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// Words of your own, at most 4,096 characters.
    text: Option<String>,
    /// The document as a file of its own.
    file: Option<Captioned>,
    /// Words with up to three buttons.
    buttons: Option<Buttons>,
    /// Words with a list of up to ten choices behind one button.
    list: Option<List>,
    /// Words with a button that opens a page.
    link: Option<Link>,
    /// BCP 47; hers if left out and known, else English.
    #[schema(example = "hi")]
    language: Option<String>,
    /// Why it is said: two words of small letters. For what sells, the word under which consent is kept.
    #[schema(example = "shop.order_ready")]
    purpose: String,
    /// at_least_once or at_most_once: what is better where nobody can tell whether it went out. at_least_once if left
    /// out, and at_most_once for what sells.
    policy: Option<String>,
    /// The file that goes with it, where the words have one.
    document: Option<Given>,
    /// No attempt starts before this instant.
    not_before: Option<DateTime<Utc>>,
    /// After this instant no attempt starts, by any way; a day after the first if left out.
    expires_at: Option<DateTime<Utc>>,
    /// How long a way may take before the next one is taken, in seconds; 1800 if left out.
    fall_back_after_secs: Option<u32>,
}

/// What stands beneath a file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Captioned {
    /// At most 1,024 characters.
    caption: Option<String>,
}

/// Words with buttons.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Buttons {
    /// At most 1,024 characters.
    body: String,
    /// At most 60.
    footer: Option<String>,
    /// One to three.
    buttons: Vec<Tapped>,
}

/// Words with a list.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// At most 1,024 characters.
    body: String,
    /// At most 60.
    footer: Option<String>,
    /// On the button that opens it, at most 20.
    label: String,
    /// One to ten.
    rows: Vec<Tapped>,
}

/// Words with a page.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    /// At most 1,024 characters.
    body: String,
    /// At most 60.
    footer: Option<String>,
    /// On the button, at most 20.
    label: String,
    /// Begins with https://
    url: String,
}

/// Something to tap. What she taps comes back as the webhook `messaging.inbound.received`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Tapped {
    /// At most 200 characters.
    id: String,
    /// At most 20 on a button, 24 in a list.
    title: String,
    /// In a list, at most 72.
    description: Option<String>,
}

impl From<Tapped> for Choice {
    fn from(tapped: Tapped) -> Self {
        Self { id: tapped.id, title: tapped.title, description: tapped.description }
    }
}

/// A file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Given {
    /// As she saves it: INV-1042.pdf. PDF, PNG or JPEG.
    #[schema(example = "INV-1042.pdf")]
    filename: String,
    /// Its bytes in Base64.
    content_base64: String,
}

/// A message that is on its way.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// Its id: `GET /v1/messaging/messages/{id}` tells what became of it, and of the ways after it.
    id: uuid::Uuid,
    /// whatsapp or mail: the way it takes first.
    channel: &'static str,
    /// otp, statutory, transactional or marketing, as its words say.
    #[schema(value_type = String)]
    class: MessageClass,
    /// In which language it is written.
    language: String,
}

fn off(field: &str, problem: impl Into<String>, mend: &str) -> Problem {
    Problem::field(ProblemId::BadBody, field, problem, mend)
}

/// Who it is, by which ways; and whether mail is one because nobody said otherwise.
fn recipient(body: &NewWords) -> Result<(Recipient, bool), Problem> {
    let mend = "send it as its owner writes it, whole";
    let phone = body.to.phone.as_deref().map(Phone::parse).transpose();
    let phone = phone.map_err(|error| off("to.phone", error.to_string(), mend))?;
    let email = body.to.email.as_deref().map(str::trim).map(Email::parse).transpose();
    let email = email.map_err(|error| off("to.email", error.to_string(), mend))?;
    let named = match &body.channels {
        Some(named) => named.iter().map(|text| text.parse::<Channel>()).collect::<Result<Vec<_>, _>>()?,
        None => vec![Channel::Whatsapp, Channel::Mail],
    };
    let mut to: Option<Recipient> = None;
    for channel in &named {
        let way: Option<Recipient> = match channel {
            Channel::Whatsapp => phone.clone().map(Recipient::from),
            Channel::Mail => email.clone().map(Recipient::from),
        };
        to = match (to, way) {
            (Some(before), Some(way)) => Some(before.or(way)),
            (before, way) => before.or(way),
        };
        if body.channels.is_some() {
            let missing = match channel {
                Channel::Whatsapp if phone.is_none() => Some("to.phone"),
                Channel::Mail if email.is_none() => Some("to.email"),
                _ => None,
            };
            if let Some(field) = missing {
                return Err(off(field, "is missing", "give it, or leave its channel out"));
            }
        }
    }
    let to = to.ok_or_else(|| off("to", "names nobody", "give to.phone, to.email or both"))?;
    Ok((to, body.channels.is_none()))
}

/// What it says.
fn content(body: &mut NewWords) -> Result<Content, Problem> {
    let all = |given: Vec<Tapped>| given.into_iter().map(Choice::from).collect();
    let mut said = Vec::new();
    if let Some(template) = body.template.take() {
        said.push(Content::Named(Named { template, parameters: std::mem::take(&mut body.parameters) }));
    } else if !body.parameters.is_empty() {
        return Err(off("parameters", "belong to no template", "name the template, or leave them out"));
    }
    let free = [
        body.text.take().map(|body| Free::Text { body }),
        body.file.take().map(|file| Free::File { caption: file.caption }),
        body.buttons.take().map(|b| Free::Buttons { body: b.body, footer: b.footer, buttons: all(b.buttons) }),
        body.list.take().map(|l| Free::List { body: l.body, footer: l.footer, label: l.label, rows: all(l.rows) }),
        body.link.take().map(|l| Free::Link { body: l.body, footer: l.footer, label: l.label, url: l.url }),
    ];
    said.extend(free.into_iter().flatten().map(Content::Free));
    match (said.pop(), said.is_empty()) {
        (Some(content), true) => Ok(content),
        (None, _) => Err(off("template", "is missing", "name it; or give text, file, buttons, list or link")),
        (Some(_), false) => {
            Err(off("template", "is not alone", "give one of template, text, file, buttons, list and link"))
        }
    }
}

/// Send one message to one person
///
/// It is on its way when this is answered, and goes out once: as its policy says where nobody can tell. Words of your own
/// are for somebody who has written within 24 hours; before that, a template.
#[utoipa::path(post, path = "/v1/messaging/messages", tag = "messaging", request_body = NewWords,
    responses((status = 202, body = Asked)))]
async fn send(State(api): State<Arc<Api>>, mut post: Post<NewWords>) -> Result<Response, Problem> {
    let (mut to, by_default) = recipient(&post.body)?;
    let content = content(&mut post.body)?;
    if matches!(content, Content::Free(_)) {
        content.check().map_err(|(field, problem)| off(&field, problem, "mend it and send it again"))?;
    }
    if by_default && matches!(content, Content::Free(_)) {
        let first = to.ways().first().cloned();
        to = first.map(Recipient::from).ok_or_else(|| off("to", "names nobody", "give to.phone"))?;
    }
    let body = &post.body;
    let from = body.from.as_deref().map(NumberId::parse).transpose();
    let from = from.map_err(|problem| off("from", "is no phone number id", problem))?;
    let policy = match body.policy.as_deref() {
        None if content.class() == MessageClass::Marketing => Policy::AtMostOnce,
        None | Some("at_least_once") => Policy::AtLeastOnce,
        Some("at_most_once") => Policy::AtMostOnce,
        Some(_) => return Err(off("policy", "is none that is known", "take at_least_once or at_most_once")),
    };
    if content.class() == MessageClass::Otp {
        return Err(off("template", "is for one-time codes", "POST /v1/messaging/otp makes and sends them"));
    }
    let given = match post.body.document.take() {
        None => None,
        Some(given) => {
            let bytes = STANDARD.decode(given.content_base64.as_bytes());
            let bytes = bytes.map_err(|_| off("document.content_base64", "is no Base64", "encode the file's bytes"))?;
            let kind = messaging::kind_of(&given.filename, &bytes);
            let kind = kind.map_err(|problem| off("document", problem, "send PDF, PNG or JPEG under its own name"))?;
            Some((given.filename, kind, Bytes::from(bytes)))
        }
    };
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let document = match given {
        None => None,
        Some((filename, kind, bytes)) => {
            // Before the row is committed: bytes without a row open to nobody.
            let sealed = files::seal(effect.db(), &api.vault, business, kind, bytes).await;
            let (stored, sealed) = sealed.map_err(|error| Problem::internal(&error))?;
            let put = api.objects.put_if_absent(&stored.digest, sealed).await;
            put.map_err(|error| Problem::internal(&error))?;
            files::record_at(effect.db(), &stored, None, by.now).await.map_err(|error| Problem::internal(&error))?;
            Some(Document { digest: stored.digest, filename })
        }
    };
    let language = match post.body.language.as_deref() {
        Some(text) => Language::of(text),
        None => hers(effect.db(), &api, business, &to).await?.unwrap_or(Language::En),
    };
    let new = NewMessage {
        from,
        document,
        not_before: post.body.not_before,
        expires_at: post.body.expires_at,
        falls_back_after: post.body.fall_back_after_secs.map(|secs| TimeDelta::seconds(i64::from(secs))),
        ..NewMessage::new(business, to, (content, language), (policy, post.body.purpose.clone()))
    };
    let id: MessageId = messaging::ask(effect.db(), &api.vault, &new, &by).await?;
    let message = messaging::find_message(effect.db(), Some(business), id).await?.ok_or(ProblemId::NoSuchMessage)?;
    let asked = Asked { id: id.0, channel: message.channel.as_str(), class: message.class, language: message.language };
    effect.answer(StatusCode::ACCEPTED, &asked).await
}

/// The language that is known of somebody, by the first of her addresses that tells one.
async fn hers(
    db: &mut sqlx::PgConnection,
    api: &Api,
    business: BusinessId,
    to: &Recipient,
) -> Result<Option<Language>, Problem> {
    for way in to.ways() {
        let contact = match way {
            messaging::Address::Phone(phone) => Contact::Phone(phone.clone()),
            messaging::Address::Email(email) => Contact::Email(email.clone()),
        };
        if let Some(language) = language_of(db, &api.vault, business, &contact).await? {
            return Ok(Some(language));
        }
    }
    Ok(None)
}
