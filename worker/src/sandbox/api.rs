//! The endpoints of the Cloud API that are used, with its refusals.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, Multipart, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use muneem_jobs::messaging::{Category, Header, TEMPLATES, Template};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Inner, Number,
    fault::{self, Garbage, What},
    wire::Scissors,
    world::{Media, Message, Progress},
};

/// A message is small; files come by upload.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// Largest document, in bytes.
const DOCUMENT_LIMIT: usize = 100 * 1024 * 1024;
/// Versions that are alive.
const VERSIONS: [&str; 6] = ["v21.0", "v22.0", "v23.0", "v24.0", "v25.0", "v26.0"];
const MIME_TYPES: [&str; 6] = ["application/pdf", "text/plain", "image/jpeg", "image/png", "audio/mpeg", "video/mp4"];

/// A refusal in the carrier's words.
pub(super) struct Refused {
    code: i64,
    subcode: Option<i64>,
    details: String,
}

fn refuse(code: i64, details: impl Into<String>) -> Refused {
    Refused { code, subcode: None, details: details.into() }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.code {
            0 | 190 => 401,
            10 | 200 | 368 | 131_005 | 131_031 => 403,
            132_001 => 404,
            4 => 429,
            3 | 131_000 | 131_016 | 131_057 => 500,
            2 => 503,
            _ => 400,
        };
        let mut error = json!({
            "message": format!("(#{}) {}", self.code, self.details),
            "type": "OAuthException",
            "code": self.code,
            "error_data": { "messaging_product": "whatsapp", "details": self.details },
            "fbtrace_id": format!("A{:x}", self.code.unsigned_abs()),
        });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(json!({ "error": error }))).into_response()
    }
}

/// Version, token, number: what every call is checked for.
fn admit<'a>(inner: &'a Inner, version: &str, id: &str, headers: &HeaderMap) -> Result<&'a Number, Refused> {
    authorize(inner, version, headers)?;
    inner.options.numbers.iter().find(|number| number.id == id).ok_or_else(|| Refused {
        subcode: Some(33),
        ..refuse(100, format!("Unsupported request. Object with ID '{id}' does not exist or cannot be loaded"))
    })
}

fn authorize(inner: &Inner, version: &str, headers: &HeaderMap) -> Result<(), Refused> {
    if !VERSIONS.contains(&version) {
        return Err(refuse(2635, "You are calling a version of the Cloud API that is not alive"));
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match token {
        None => Err(refuse(200, "Provide valid app ID")),
        Some(token) if token == inner.options.credentials.access_token.expose_secret() => Ok(()),
        Some(_) => Err(refuse(190, "Invalid OAuth access token - Cannot parse access token")),
    }
}

/// `POST /{version}/{number}/messages`
pub(super) async fn send(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path((version, id)): Path<(String, String)>,
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
    let headers = request.headers().clone();
    let Ok(body) = axum::body::to_bytes(request.into_body(), MESSAGE_LIMIT).await else {
        return refuse(100, "The request body cannot be read or is too long").into_response();
    };
    let message = match prepare(&inner, &version, &id, &headers, &body) {
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
async fn answer(inner: &Arc<Inner>, scissors: &Scissors, message: Message, what: Option<What>) -> Response {
    match what {
        Some(What::Refuse { code, subcode }) => {
            return Refused { subcode, ..refuse(code, "The stand-in was told to refuse this message") }.into_response();
        }
        Some(What::Silence) => return silence(inner, scissors).await,
        Some(What::Delay { millis }) => tokio::time::sleep(std::time::Duration::from_millis(millis.min(120_000))).await,
        _ => {}
    }
    let number = inner.options.numbers.iter().find(|number| number.id == message.number);
    let limit = number.map_or(80, |number| number.messages_per_second);
    let accepted = {
        let mut world = inner.world();
        match world.admit(&message.number, &message.to, limit, inner.now()) {
            Ok(()) => world.accept(message),
            Err(code) => return refuse(code, "Rate limit hit").into_response(),
        }
    };
    let receipt = json!({
        "messaging_product": "whatsapp",
        "contacts": [{ "input": format!("+{}", accepted.to), "wa_id": accepted.to }],
        "messages": [{ "id": accepted.wamid, "message_status": "accepted" }],
    });
    if matches!(what, Some(What::ReportFirst)) {
        inner.advance(&accepted.wamid, Progress::Sent, None, true);
        inner.advance(&accepted.wamid, Progress::Delivered, None, true);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    } else {
        inner.deliver_later(&accepted.wamid, what.as_ref());
    }
    match what {
        Some(What::AcceptThenSilence) => silence(inner, scissors).await,
        Some(What::AcceptThenCut) => cut(scissors),
        Some(What::AcceptThenAnswer { status, body }) => {
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
        _ => Json(receipt).into_response(),
    }
}

/// Keeps the caller waiting until it gives up, or the stand-in ends.
async fn silence(inner: &Inner, scissors: &Scissors) -> Response {
    tokio::select! {
        () = inner.ended.cancelled() => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(120)) => {}
    }
    cut(scissors)
}

fn cut(scissors: &Scissors) -> Response {
    scissors.cut();
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Deserialize)]
struct Posted {
    messaging_product: Option<Value>,
    to: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    template: Option<PostedTemplate>,
    biz_opaque_callback_data: Option<Value>,
}

#[derive(Deserialize)]
struct PostedTemplate {
    name: Option<String>,
    language: Option<PostedLanguage>,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct PostedLanguage {
    code: Option<String>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(rename = "type")]
    kind: String,
    sub_type: Option<String>,
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    #[serde(rename = "type")]
    kind: Option<String>,
    parameter_name: Option<String>,
    text: Option<String>,
    document: Option<PostedDocument>,
}

#[derive(Deserialize)]
struct PostedDocument {
    id: Option<String>,
    filename: Option<String>,
}

/// Checks a message as the carrier does, in its order: caller, envelope, template, values, file.
fn prepare(inner: &Inner, version: &str, id: &str, headers: &HeaderMap, body: &Bytes) -> Result<Message, Refused> {
    let number = admit(inner, version, id, headers)?;
    let posted: Posted =
        serde_json::from_slice(body).map_err(|_| refuse(100, "The parameters cannot be read as JSON of a message"))?;
    let text = |value: Option<Value>, name: &str| match value {
        None | Some(Value::Null) => Err(refuse(131_008, format!("The parameter {name} is required."))),
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(refuse(131_009, format!("The parameter {name} is not valid."))),
    };
    if text(posted.messaging_product, "messaging_product")? != "whatsapp" {
        return Err(refuse(100, "messaging_product must be whatsapp"));
    }
    let to = recipient(&text(posted.to, "to")?, number)?;
    let reference = match posted.biz_opaque_callback_data {
        None => None,
        Some(Value::String(text)) if text.chars().count() <= 512 => Some(text),
        Some(_) => return Err(refuse(100, "Param biz_opaque_callback_data must be at most 512 characters long.")),
    };
    if text(posted.kind, "type")? != "template" {
        return Err(refuse(131_047, "More than 24 hours have passed since the customer last replied to this number."));
    }
    let template = posted.template.ok_or_else(|| refuse(131_008, "The parameter template is required."))?;
    let (words, document) = fill(inner, number, template)?;
    Ok(Message {
        wamid: String::new(),
        number: number.id.clone(),
        to,
        reference,
        text: words,
        document,
        progress: Progress::Accepted,
        accepted_at: inner.now(),
        displayed_at: None,
        events: Vec::new(),
    })
}

/// Digits of the recipient. Without a plus the sender's country code is put in front: the message then really goes to
/// that number.
fn recipient(to: &str, number: &Number) -> Result<String, Refused> {
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

type Document = (String, String);

fn fill(inner: &Inner, number: &Number, posted: PostedTemplate) -> Result<(String, Option<Document>), Refused> {
    let missing = |name: &str| refuse(131_008, format!("The parameter template['{name}'] is required."));
    let name = posted.name.ok_or_else(|| missing("name"))?;
    let language = posted.language.and_then(|language| language.code).ok_or_else(|| missing("language"))?;
    let template = TEMPLATES
        .values()
        .find(|template| template.name == name && template.language == language)
        .ok_or_else(|| refuse(132_001, format!("template name ({name}) does not exist in {language}")))?;
    let component = |kind: &str| posted.components.iter().find(|component| component.kind == kind);
    let document = head(inner, number, template, component("header"))?;
    let values = if template.category == Category::Authentication {
        code_values(template, component("body"), component("button"))?
    } else {
        body_values(template, component("body"))?
    };
    let text = template.render(&values);
    if text.chars().count() > 1024 {
        return Err(refuse(132_005, "Translated text is too long"));
    }
    Ok((text, document))
}

fn head(
    inner: &Inner,
    number: &Number,
    template: &Template,
    posted: Option<&Component>,
) -> Result<Option<Document>, Refused> {
    let given = posted.map(|component| component.parameters.as_slice());
    match (template.header, given) {
        (Header::None, None | Some([])) => Ok(None),
        (Header::Document, Some([parameter])) if parameter.kind.as_deref() == Some("document") => {
            let document =
                parameter.document.as_ref().ok_or_else(|| refuse(131_008, "The parameter document is required."))?;
            let id =
                document.id.as_deref().ok_or_else(|| refuse(131_008, "The parameter document['id'] is required."))?;
            let known = inner.world().media_of(id, &number.id, inner.now()).is_some();
            if !known {
                return Err(refuse(100, "The document's id is not a media id of this number, or has expired"));
            }
            Ok(Some((id.to_owned(), document.filename.clone().unwrap_or_else(|| "Untitled".to_owned()))))
        }
        (Header::Document, None | Some([])) => {
            Err(refuse(132_012, "header: Format mismatch, expected DOCUMENT, received UNKNOWN"))
        }
        _ => Err(refuse(132_012, "header: Format mismatch")),
    }
}

fn body_values(template: &Template, posted: Option<&Component>) -> Result<Vec<(String, String)>, Refused> {
    let given = posted.map_or(&[][..], |component| component.parameters.as_slice());
    if given.len() != template.parameters.len() {
        return Err(refuse(
            132_000,
            format!(
                "body: number of localizable_params ({}) does not match the expected number of params ({})",
                given.len(),
                template.parameters.len()
            ),
        ));
    }
    given
        .iter()
        .map(|parameter| {
            let name = parameter.parameter_name.clone().filter(|name| template.parameters.contains(name));
            let name = name.ok_or_else(|| refuse(132_012, "body: Parameter name is missing or invalid"))?;
            let text = parameter.text.clone().filter(|_| parameter.kind.as_deref() == Some("text"));
            let text = text.ok_or_else(|| refuse(132_012, "body: Parameter format does not match"))?;
            if text.trim().is_empty() || text.contains(['\n', '\t']) || text.contains("     ") {
                return Err(refuse(
                    132_018,
                    "body: Param text cannot be empty or have new-line/tab/more than 4 spaces",
                ));
            }
            Ok((name, text))
        })
        .collect()
}

/// An authentication template has one unnamed parameter, and a button that copies the same code.
fn code_values(
    template: &Template,
    body: Option<&Component>,
    button: Option<&Component>,
) -> Result<Vec<(String, String)>, Refused> {
    let only = |posted: Option<&Component>| match posted.map(|component| component.parameters.as_slice()) {
        Some([Parameter { kind: Some(kind), parameter_name: None, text: Some(text), .. }]) if kind == "text" => {
            Some(text.clone())
        }
        _ => None,
    };
    let code = only(body).ok_or_else(|| refuse(132_000, "body: one unnamed parameter is expected"))?;
    let copied = button.filter(|button| button.sub_type.as_deref() == Some("url"));
    if only(copied).as_ref() != Some(&code) {
        return Err(refuse(131_008, "Required parameter is missing: buttons: Button at index 0 of type Url"));
    }
    if code.chars().count() > 15 {
        return Err(refuse(132_005, "The code is longer than 15 characters"));
    }
    let name = template.parameters.first().cloned().unwrap_or_default();
    Ok(vec![(name, code)])
}

/// `POST /{version}/{number}/media`
pub(super) async fn upload(
    State(inner): State<Arc<Inner>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
    mut form: Multipart,
) -> Response {
    let number = match admit(&inner, &version, &id, &headers) {
        Ok(number) => number.id.clone(),
        Err(refused) => return refused.into_response(),
    };
    let (mut product, mut file) = (None, None);
    while let Ok(Some(field)) = form.next_field().await {
        match field.name() {
            Some("messaging_product") => product = field.text().await.ok(),
            Some("file") => {
                let mime_type = field.content_type().unwrap_or("application/octet-stream").to_owned();
                file = field.bytes().await.ok().map(|content| (mime_type, content));
            }
            _ => {}
        }
    }
    if product.as_deref() != Some("whatsapp") {
        return refuse(100, "The parameter messaging_product is required.").into_response();
    }
    let Some((mime_type, content)) = file else {
        return refuse(100, "The parameter file is required.").into_response();
    };
    if !MIME_TYPES.contains(&mime_type.as_str()) {
        return refuse(100, format!("Param file must be a file with one of the following types: {MIME_TYPES:?}. Received file of type '{mime_type}'.")).into_response();
    }
    if content.is_empty() || content.len() > DOCUMENT_LIMIT {
        return refuse(100, "The file is empty or larger than 100 MB").into_response();
    }
    let uploaded_at = inner.now();
    let id = inner.world().keep_media(Media { number, mime_type, content, uploaded_at });
    Json(json!({ "id": id })).into_response()
}

/// `GET /{version}/{id}`: a file or a number.
pub(super) async fn look_up(
    State(inner): State<Arc<Inner>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&inner, &version, &headers) {
        return refused.into_response();
    }
    let media = inner.world().media.get(&id).cloned();
    if let Some(media) = media {
        return Json(json!({
            "messaging_product": "whatsapp",
            "url": format!("http://{}/sandbox/media/{id}", inner.address),
            "mime_type": media.mime_type,
            "sha256": hex::encode(Sha256::digest(&media.content)),
            "file_size": media.content.len().to_string(),
            "id": id,
        }))
        .into_response();
    }
    match admit(&inner, &version, &id, &headers) {
        Ok(number) => Json(json!({
            "id": number.id,
            "display_phone_number": number.display_phone.as_e164(),
            "verified_name": number.business_name,
            "quality_rating": "GREEN",
            "status": "CONNECTED",
            "throughput": { "level": "STANDARD" },
        }))
        .into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// `DELETE /{version}/{id}`
pub(super) async fn delete_media(
    State(inner): State<Arc<Inner>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&inner, &version, &headers) {
        return refused.into_response();
    }
    if inner.world().forget_media(&id) {
        Json(json!({ "success": true })).into_response()
    } else {
        Refused { subcode: Some(33), ..refuse(100, "No such media") }.into_response()
    }
}

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    limit: Option<usize>,
}

/// `GET /{version}/{number}/message_history`: wamids and events; neither recipients nor references, like the carrier.
pub(super) async fn history(
    State(inner): State<Arc<Inner>>,
    Path((version, id)): Path<(String, String)>,
    Query(query): Query<HistoryQuery>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admit(&inner, &version, &id, &headers) {
        return refused.into_response();
    }
    let limit = query.limit.unwrap_or(25).min(100);
    let data: Vec<_> = inner
        .world()
        .messages
        .values()
        .rev()
        .filter(|message| message.number == id)
        .take(limit)
        .map(|message| {
            let events: Vec<_> = message
                .events
                .iter()
                .map(|(progress, at)| {
                    let status = json!(progress).as_str().unwrap_or_default().to_uppercase();
                    json!({ "delivery_status": status, "timestamp": at.timestamp() })
                })
                .collect();
            json!({ "message_id": message.wamid, "events": events })
        })
        .collect();
    Json(json!({ "data": data })).into_response()
}

/// `GET /{version}/{account}/message_templates`
pub(super) async fn templates(
    State(inner): State<Arc<Inner>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&inner, &version, &headers) {
        return refused.into_response();
    }
    if !inner.options.numbers.iter().any(|number| number.waba_id == id) {
        return Refused { subcode: Some(33), ..refuse(100, "No such account") }.into_response();
    }
    let data: Vec<_> = TEMPLATES
        .values()
        .map(|template| {
            let (category, format) = match template.category {
                Category::Authentication => ("AUTHENTICATION", "POSITIONAL"),
                Category::Marketing => ("MARKETING", "NAMED"),
                Category::Utility => ("UTILITY", "NAMED"),
            };
            json!({ "name": template.name, "language": template.language, "status": "APPROVED", "category": category,
                "parameter_format": format, "components": [{ "type": "BODY", "text": template.body.trim() }] })
        })
        .collect();
    Json(json!({ "data": data })).into_response()
}
