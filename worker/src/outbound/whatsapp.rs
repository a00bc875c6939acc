//! Meta's Cloud API over HTTP.

mod templates;

use std::{fmt::Write, time::Duration};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use muneem_jobs::{
    messaging::Credentials,
    outbound::{
        Carrier, Wamid,
        carrier::{
            Accepted, AccountFacts, AppAccess, Class, Failure, FilledButton, FilledHeader, FilledTemplate,
            InteractiveAction, LookUpError, Media, MediaId, NumberFacts, OutgoingBody, OutgoingMessage, Refusal,
            RemoteTemplate, SampleHandle, SendOutcome, Sender, Submitted, TemplateForm, UploadError, Via, class_of,
            without_numbers,
        },
    },
};
use reqwest::{Method, Response, header::HeaderMap, multipart};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use sha2::Sha256;

pub(crate) use templates::{components_of, format_of};

use super::http::{self, Timeouts};

/// An answer is a few hundred bytes; what is longer is no answer.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Where and as whom to call.
#[derive(Clone)]
pub struct Settings {
    /// `https://graph.facebook.com`, or a stand-in.
    pub base_url: String,
    /// `v25.0`; a business's own app may name another.
    pub api_version: String,
    /// The installation's token and app secrets; none: only businesses with apps of their own send.
    pub credentials: Option<Credentials>,
    /// Send `appsecret_proof`: needed when the app requires it.
    pub prove_secret: bool,
    /// Waits.
    pub timeouts: Timeouts,
}

/// The Cloud API.
pub struct CloudApi {
    client: reqwest::Client,
    base_url: String,
    api_version: String,
    prove_secret: bool,
    /// The installation's.
    app: Option<AppAccess>,
    /// Its id, where sample files are uploaded to.
    app_id: Option<String>,
}

impl CloudApi {
    /// A client for all apps.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: &Settings) -> reqwest::Result<Self> {
        let app = settings.credentials.as_ref().map(|credentials| AppAccess {
            api_version: None,
            access_token: credentials.access_token.clone(),
            app_secret: credentials.app_secrets.first().cloned(),
        });
        Ok(Self {
            client: http::client(settings.timeouts)?,
            base_url: settings.base_url.trim_end_matches('/').to_owned(),
            api_version: settings.api_version.clone(),
            prove_secret: settings.prove_secret,
            app,
            app_id: None,
        })
    }

    /// With the id of the installation's app, to which sample files of templates are uploaded; without, the carrier
    /// finds the app by its token.
    #[must_use]
    pub fn of_app(mut self, app_id: Option<String>) -> Self {
        self.app_id = app_id;
        self
    }

    /// The app that may act for this number.
    fn app_of<'a>(&'a self, from: &'a Sender) -> Option<&'a AppAccess> {
        from.app.as_deref().or(self.app.as_ref())
    }

    /// A request of the app that may send from this number; nothing when there is no such app.
    fn request(&self, from: &Sender, method: Method, path: &str) -> Option<reqwest::RequestBuilder> {
        let app = self.app_of(from)?;
        let version = app.api_version.as_deref().unwrap_or(&self.api_version);
        let request = self
            .client
            .request(method, format!("{}/{version}/{path}", self.base_url))
            .bearer_auth(app.access_token.expose_secret());
        Some(match app.app_secret.as_ref().filter(|_| self.prove_secret) {
            Some(secret) => request.query(&[("appsecret_proof", proof(secret, &app.access_token).expose_secret())]),
            None => request,
        })
    }

    fn post(&self, from: &Sender, what: &str) -> Option<reqwest::RequestBuilder> {
        self.request(from, Method::POST, &format!("{}/{what}", from.number.as_str()))
    }

    /// Asks about something; nothing that it can be does harm when repeated.
    async fn ask<T: DeserializeOwned>(&self, of: &Sender, path: &str, fields: &str) -> Result<T, LookUpError> {
        let failed = |what: String| LookUpError::Failed(Failure::new(what));
        let request = self.request(of, Method::GET, path).ok_or_else(|| failed(NO_APP.to_owned()))?;
        let response = request.query(&[("fields", fields)]).send().await.map_err(|error| failed(describe(&error)))?;
        let answer = Answer::read(response).await.map_err(LookUpError::Failed)?;
        if let Some(error) = answer.error() {
            let class = class_of(error.code, Via::Response, answer.status, error.is_transient.unwrap_or(false));
            return Err(LookUpError::Refused(answer.refusal(&error, class)));
        }
        let read = serde_json::from_slice(&answer.body).ok().filter(|_| (200..300).contains(&answer.status));
        read.ok_or_else(|| LookUpError::Failed(answer.failure("an answer that does not read", None)))
    }
}

/// Why nothing is sent from a number that no app is configured for.
const NO_APP: &str = "no access token: configure messaging.whatsapp, or give the number an app of its own";

/// A word of the carrier that may stand in our tables.
fn word(text: Option<String>) -> Option<String> {
    text.filter(|text| (1..=64).contains(&text.len()) && !text.chars().any(char::is_control))
}

/// Lower-case hexadecimal HMAC-SHA256 of the token, keyed by the app secret.
fn proof(secret: &SecretString, token: &SecretString) -> SecretString {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(token.expose_secret().as_bytes());
    hex::encode(mac.finalize().into_bytes()).into()
}

#[async_trait]
impl Carrier for CloudApi {
    async fn upload_media(&self, from: &Sender, media: &Media) -> Result<MediaId, UploadError> {
        let unreached = |what: &str| UploadError::Failed(Failure::new(what));
        let request = self.post(from, "media").ok_or_else(|| unreached(NO_APP))?;
        let size = u64::try_from(media.content.len()).unwrap_or(u64::MAX);
        let file = multipart::Part::stream_with_length(media.content.clone(), size)
            .file_name(media.filename.clone())
            .mime_str(media.mime_type)
            .map_err(|_| unreached("the file has no valid MIME type"))?;
        let form = multipart::Form::new()
            .text("messaging_product", "whatsapp")
            .text("type", media.mime_type)
            .part("file", file);
        match request.multipart(form).send().await {
            Ok(response) => match Answer::read(response).await {
                Ok(answer) => answer.uploaded(),
                Err(failure) => Err(UploadError::Failed(failure)),
            },
            Err(error) => Err(UploadError::Failed(Failure::new(describe(&error)))),
        }
    }

    async fn send(&self, from: &Sender, message: &OutgoingMessage) -> SendOutcome {
        let Some(request) = self.post(from, "messages") else { return SendOutcome::NotSent(Failure::new(NO_APP)) };
        match request.json(&body_of(message)).send().await {
            Ok(response) => match Answer::read(response).await {
                Ok(answer) => answer.sent(),
                Err(failure) => SendOutcome::Unknown(failure),
            },
            // Both end before the request is written.
            Err(error) if error.is_connect() || error.is_builder() => {
                SendOutcome::NotSent(Failure::new(describe(&error)))
            }
            Err(error) => SendOutcome::Unknown(Failure::new(describe(&error))),
        }
    }

    async fn look_up_number(&self, of: &Sender) -> Result<NumberFacts, LookUpError> {
        let fields = "quality_rating,status,verified_name,throughput,whatsapp_business_manager_messaging_limit";
        let told: NumberAnswer = self.ask(of, of.number.as_str(), fields).await?;
        Ok(NumberFacts {
            quality: word(told.quality_rating),
            status: word(told.status),
            verified_name: word(told.verified_name),
            throughput: word(told.throughput.and_then(|throughput| throughput.level)),
            messaging_limit: told.whatsapp_business_manager_messaging_limit,
        })
    }

    async fn look_up_account(&self, of: &Sender, waba_id: &str) -> Result<AccountFacts, LookUpError> {
        let told: AccountAnswer = self.ask(of, waba_id, "currency,primary_business_location").await?;
        Ok(AccountFacts { currency: word(told.currency), country: word(told.primary_business_location) })
    }

    async fn list_templates(&self, of: &Sender, waba_id: &str) -> Result<Vec<RemoteTemplate>, LookUpError> {
        self.templates(of, waba_id).await
    }

    async fn upload_sample(&self, of: &Sender, sample: &Media) -> Result<SampleHandle, LookUpError> {
        self.sample(of, sample).await
    }

    async fn create_template(
        &self,
        of: &Sender,
        waba_id: &str,
        form: &TemplateForm,
        sample: Option<&SampleHandle>,
    ) -> Result<Submitted, LookUpError> {
        self.submit(of, waba_id, form, sample).await
    }

    async fn edit_template(
        &self,
        of: &Sender,
        known: &RemoteTemplate,
        form: &TemplateForm,
        sample: Option<&SampleHandle>,
    ) -> Result<(), LookUpError> {
        self.edit(of, known, form, sample).await
    }
}

/// The message in the carrier's JSON.
fn body_of(message: &OutgoingMessage) -> serde_json::Value {
    let with_caption = |mut file: serde_json::Value, caption: &Option<String>| {
        if let Some(caption) = caption {
            file["caption"] = json!(caption);
        }
        file
    };
    let (kind, content) = match &message.body {
        OutgoingBody::Template(template) => ("template", template_of(template)),
        // A preview would have the carrier fetch a page that may be hers alone.
        OutgoingBody::Text(body) => ("text", json!({ "body": body, "preview_url": false })),
        OutgoingBody::Document { file, caption } => {
            ("document", with_caption(json!({ "id": file.media.0, "filename": file.filename }), caption))
        }
        OutgoingBody::Image { media, caption } => ("image", with_caption(json!({ "id": media.0 }), caption)),
        OutgoingBody::Interactive { body, footer, action } => {
            ("interactive", interactive_of(body, footer.as_deref(), action))
        }
    };
    let mut posted = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": message.to.as_e164(),
        "type": kind,
        "biz_opaque_callback_data": message.reference,
    });
    posted[kind] = content;
    posted
}

fn interactive_of(body: &str, footer: Option<&str>, action: &InteractiveAction) -> serde_json::Value {
    let (kind, action) = match action {
        InteractiveAction::Buttons(buttons) => {
            let reply =
                |(id, title): &(String, String)| json!({ "type": "reply", "reply": { "id": id, "title": title } });
            ("button", json!({ "buttons": buttons.iter().map(reply).collect::<Vec<_>>() }))
        }
        InteractiveAction::List { label, rows } => {
            let row = |(id, title, description): &(String, String, Option<String>)| match description {
                Some(description) => json!({ "id": id, "title": title, "description": description }),
                None => json!({ "id": id, "title": title }),
            };
            let rows: Vec<_> = rows.iter().map(row).collect();
            ("list", json!({ "button": label, "sections": [{ "rows": rows }] }))
        }
        InteractiveAction::Link { label, url } => {
            ("cta_url", json!({ "name": "cta_url", "parameters": { "display_text": label, "url": url } }))
        }
    };
    let mut interactive = json!({ "type": kind, "body": { "text": body }, "action": action });
    if let Some(footer) = footer {
        interactive["footer"] = json!({ "text": footer });
    }
    interactive
}

fn template_of(template: &FilledTemplate) -> serde_json::Value {
    let mut components = Vec::with_capacity(2);
    if let Some(header) = &template.header {
        let parameter = match header {
            FilledHeader::Document(file) => {
                json!({ "type": "document", "document": { "id": file.media.0, "filename": file.filename } })
            }
            FilledHeader::Image(media) => json!({ "type": "image", "image": { "id": media.0 } }),
            FilledHeader::Text { name, text } => json!({ "type": "text", "parameter_name": name, "text": text }),
        };
        components.push(json!({ "type": "header", "parameters": [parameter] }));
    }
    let parameters: Vec<_> = template
        .body
        .iter()
        .map(|(name, text)| json!({ "type": "text", "parameter_name": name, "text": text }))
        .collect();
    if !parameters.is_empty() {
        components.push(json!({ "type": "body", "parameters": parameters }));
    }
    if let Some(code) = &template.code {
        // Cloud API, authentication templates: the code stands in the body and behind the button, both unnamed.
        let parameters = json!([{ "type": "text", "text": code }]);
        components.push(json!({ "type": "body", "parameters": parameters }));
        components.push(json!({ "type": "button", "sub_type": "url", "index": "0", "parameters": parameters }));
    }
    components.extend(template.buttons.iter().map(|button| {
        let (index, sub_type, parameter) = match button {
            FilledButton::QuickReply { index, payload } => {
                (index, "quick_reply", json!({ "type": "payload", "payload": payload }))
            }
            FilledButton::Url { index, suffix } => (index, "url", json!({ "type": "text", "text": suffix })),
            FilledButton::CopyCode { index, code } => {
                (index, "copy_code", json!({ "type": "coupon_code", "coupon_code": code }))
            }
        };
        json!({ "type": "button", "sub_type": sub_type, "index": index.to_string(), "parameters": [parameter] })
    }));
    json!({
        "name": template.name,
        "language": { "code": template.language },
        "components": components,
    })
}

/// What went wrong, without the address: it may carry a proof, and errors are logged.
fn describe(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        if error.is_timeout() { "no connection in time" } else { "no connection" }
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_builder() {
        "the request could not be built"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the connection broke while waiting for the answer"
    };
    let mut text = what.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Only the innermost cause: it is the operating system's or TLS's word.
        if cause.source().is_none() {
            let _ = write!(text, ": {}", without_numbers(&cause.to_string()));
        }
        source = cause.source();
    }
    text
}

/// A whole answer.
struct Answer {
    status: u16,
    body: Vec<u8>,
    trace: Option<String>,
    retry_after: Option<Duration>,
}

impl Answer {
    async fn read(mut response: Response) -> Result<Self, Failure> {
        let status = response.status().as_u16();
        let headers = response.headers();
        let trace = ["x-fb-trace-id", "x-fb-request-id"]
            .iter()
            .find_map(|name| headers.get(*name)?.to_str().ok())
            .and_then(clean_trace);
        let retry_after = retry_after(headers);
        let mut body = Vec::new();
        loop {
            let failure = |what| Failure { what, http_status: Some(status), code: None, trace: trace.clone() };
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(failure("the answer is too long".to_owned())),
                Ok(None) => break,
                Err(error) => return Err(failure(describe(&error))),
            }
        }
        Ok(Self { status, body, trace, retry_after })
    }

    fn failure(&self, what: &str, error: Option<&ErrorBody>) -> Failure {
        Failure {
            what: what.to_owned(),
            http_status: Some(self.status),
            code: error.map(|error| error.code),
            trace: self.trace_of(error),
        }
    }

    fn trace_of(&self, error: Option<&ErrorBody>) -> Option<String> {
        error.and_then(|error| error.fbtrace_id.as_deref()).and_then(clean_trace).or_else(|| self.trace.clone())
    }

    fn error(&self) -> Option<ErrorBody> {
        serde_json::from_slice::<ErrorEnvelope>(&self.body).ok().map(|envelope| envelope.error)
    }

    fn refusal(&self, error: &ErrorBody, class: Class) -> Refusal {
        Refusal {
            code: error.code,
            subcode: error.error_subcode,
            details: error.details(),
            http_status: self.status,
            trace: self.trace_of(Some(error)),
            class,
            retry_after: self.retry_after,
        }
    }

    /// Reads the answer to a message. Codes decide; the HTTP status only where there is none.
    fn sent(&self) -> SendOutcome {
        if let Some(error) = self.error() {
            let class = class_of(error.code, Via::Response, self.status, error.is_transient.unwrap_or(false));
            return match class {
                Class::Ambiguous(_) => {
                    SendOutcome::Unknown(self.failure("the carrier failed while it had the message", Some(&error)))
                }
                _ => SendOutcome::Refused(self.refusal(&error, class)),
            };
        }
        if !(200..300).contains(&self.status) {
            return SendOutcome::Unknown(self.failure("an answer without an error code", None));
        }
        let receipt = serde_json::from_slice::<Receipt>(&self.body).ok();
        match receipt.and_then(|receipt| receipt.messages.into_iter().next()) {
            Some(message) => match Wamid::new(&message.id) {
                Some(wamid) => {
                    let held =
                        matches!(message.message_status.as_deref(), Some("held_for_quality_assessment" | "paused"));
                    SendOutcome::Accepted(Accepted { wamid, held, trace: self.trace.clone() })
                }
                None => SendOutcome::Unknown(self.failure("a receipt with an empty id", None)),
            },
            None => SendOutcome::Unknown(self.failure("an answer that is no receipt", None)),
        }
    }

    /// Reads the answer to an upload: nothing that it can be does harm when repeated.
    fn uploaded(&self) -> Result<MediaId, UploadError> {
        if let Some(error) = self.error() {
            let class = class_of(error.code, Via::Response, self.status, error.is_transient.unwrap_or(false));
            return Err(UploadError::Refused(self.refusal(&error, class)));
        }
        serde_json::from_slice::<Uploaded>(&self.body)
            .ok()
            .filter(|uploaded| (200..300).contains(&self.status) && (1..=128).contains(&uploaded.id.len()))
            .map(|uploaded| MediaId(uploaded.id))
            .ok_or_else(|| UploadError::Failed(self.failure("an answer that names no media id", None)))
    }
}

/// A trace id is a short word; anything else is not kept.
fn clean_trace(text: &str) -> Option<String> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'+' | b'='));
    (plain && (1..=128).contains(&text.len())).then(|| text.to_owned())
}

/// How long the carrier wants to be left alone: `Retry-After` in seconds, or its usage header in minutes.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds = text("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
    let minutes = text("x-business-use-case-usage").and_then(|value| {
        let usage: std::collections::HashMap<String, Vec<Usage>> = serde_json::from_str(value).ok()?;
        usage.into_values().flatten().filter_map(|usage| usage.estimated_time_to_regain_access).max()
    });
    let longest = seconds.into_iter().chain(minutes.map(|minutes| minutes.saturating_mul(60))).max()?;
    // A day is longer than anything the carrier has been seen to ask for.
    (longest > 0).then(|| Duration::from_secs(longest.min(24 * 3600)))
}

#[derive(Deserialize)]
struct NumberAnswer {
    quality_rating: Option<String>,
    status: Option<String>,
    verified_name: Option<String>,
    throughput: Option<Throughput>,
    whatsapp_business_manager_messaging_limit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Throughput {
    level: Option<String>,
}

#[derive(Deserialize)]
struct AccountAnswer {
    currency: Option<String>,
    primary_business_location: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    estimated_time_to_regain_access: Option<u64>,
}

#[derive(Deserialize)]
struct Receipt {
    messages: Vec<ReceiptMessage>,
}

#[derive(Deserialize)]
struct ReceiptMessage {
    id: String,
    message_status: Option<String>,
}

#[derive(Deserialize)]
struct Uploaded {
    id: String,
}

#[derive(Deserialize)]
struct ErrorEnvelope {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: i64,
    message: Option<String>,
    error_subcode: Option<i64>,
    is_transient: Option<bool>,
    error_data: Option<ErrorData>,
    error_user_title: Option<String>,
    error_user_msg: Option<String>,
    fbtrace_id: Option<String>,
}

/// An object as documented, or a bare string as also seen.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorData {
    Text(String),
    Object { details: Option<String> },
    Other(serde::de::IgnoredAny),
}

impl ErrorBody {
    fn details(&self) -> String {
        let details = match &self.error_data {
            Some(ErrorData::Text(details) | ErrorData::Object { details: Some(details) }) => Some(details),
            _ => None,
        };
        let told = match (&self.error_user_title, &self.error_user_msg) {
            // Both say the same in some errors, and only the second says what to do.
            (Some(title), Some(message)) if !message.starts_with(title.as_str()) => Some(format!("{title}: {message}")),
            (title, message) => message.as_ref().or(title.as_ref()).cloned(),
        };
        let text = details.or(told.as_ref()).or(self.message.as_ref()).map_or("", String::as_str);
        without_numbers(text).chars().take(500).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), trace: None, retry_after: None }
    }

    fn kind(outcome: &SendOutcome) -> &'static str {
        match outcome {
            SendOutcome::Accepted(_) => "accepted",
            SendOutcome::Refused(_) => "refused",
            SendOutcome::NotSent(_) => "not sent",
            SendOutcome::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn atk_095_only_a_receipt_with_an_id_is_acceptance_and_only_a_definite_code_is_refusal() {
        for (status, body, expected) in [
            (200, r#"{"messages":[{"id":"wamid.A","message_status":"accepted"}],"new":1}"#, "accepted"),
            (200, r#"{"messages":[{"id":"wamid.A","message_status":"paused"}]}"#, "accepted"),
            (200, r#"{"messages":[{"id":""}]}"#, "unknown"),
            (200, r#"{"messages":[]}"#, "unknown"),
            (200, r#"{"success":true}"#, "unknown"),
            (200, "", "unknown"),
            (200, r#"{"messages":[{"id":"wam"#, "unknown"),
            (301, "", "unknown"),
            (404, "<html>not found</html>", "unknown"),
            (500, r#"{"error":{"code":131000}}"#, "unknown"),
            (400, r#"{"error":{"code":1}}"#, "unknown"),
            (503, r#"{"error":{"code":2}}"#, "unknown"),
            (502, "<html>bad gateway</html>", "unknown"),
            (500, r#"{"error":{"code":139999}}"#, "unknown"),
            (400, r#"{"error":{"code":139999}}"#, "refused"),
            (500, r#"{"error":{"code":3}}"#, "refused"),
            (400, r#"{"error":{"code":131056,"error_data":"as a string"}}"#, "refused"),
            (400, r#"{"error":{"code":100,"error_data":[1]}}"#, "refused"),
            (401, r#"{"error":{"code":190,"error_subcode":463,"fbtrace_id":"AbC"}}"#, "refused"),
        ] {
            assert_eq!(kind(&answer(status, body).sent()), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_trace_and_hides_numbers() {
        let body =
            r#"{"error":{"code":131026,"message":"m","error_data":{"details":"to 919812345678"},"fbtrace_id":"A1b"}}"#;
        let SendOutcome::Refused(refusal) = answer(400, body).sent() else { panic!("a definite code") };
        assert_eq!((refusal.details.as_str(), refusal.trace.as_deref()), ("to …", Some("A1b")));
    }

    #[test]
    fn the_carriers_own_wait_is_taken_over() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert("retry-after", "7".parse().expect("a header"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        let usage = r#"{"2001":[{"call_count":100,"estimated_time_to_regain_access":19}]}"#;
        headers.insert("x-business-use-case-usage", usage.parse().expect("a header"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(19 * 60)));
    }
}
