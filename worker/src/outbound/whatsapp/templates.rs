//! Templates of an account: `message_templates`, and the sample files that go with them (Resumable Upload API).

use muneem_jobs::outbound::carrier::{
    ButtonForm, Class, CodeForm, Failure, HeaderForm, LookUpError, Media, RemoteTemplate, SampleHandle, Sender,
    Submitted, TemplateForm, Via, class_of,
};
use reqwest::{Method, RequestBuilder, header};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Answer, CloudApi, NO_APP, describe};

/// Templates asked for at once: so many, each with the longest words written in escapes, stay within one answer's limit.
const PAGE: usize = 20;
/// Pages asked for in all: more than an account may have.
const MOST_PAGES: usize = 500;
const FIELDS: &str = "id,name,language,status,category,correct_category,quality_score,rejected_reason,parameter_format,\
                      components,message_send_ttl_seconds";
/// The app whose token is shown, where its id is not configured.
const OWN_APP: &str = "app";

impl CloudApi {
    /// Every template of an account.
    pub(super) async fn templates(&self, of: &Sender, waba_id: &str) -> Result<Vec<RemoteTemplate>, LookUpError> {
        let path = format!("{waba_id}/message_templates");
        let mut templates = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = vec![("fields", FIELDS.to_owned()), ("limit", PAGE.to_string())];
            query.extend(after.clone().map(|after| ("after", after)));
            let request = self.manage(of, Method::GET, &path)?.query(&query);
            let page: Page = self.told(request).await?;
            for shown in &page.data {
                templates.push(remote_of(shown).ok_or_else(|| failed("a template that does not read"))?);
            }
            let paging = page.paging.unwrap_or_default();
            let next = paging.cursors.and_then(|cursors| cursors.after).filter(|_| paging.next.is_some());
            match next {
                None => return Ok(templates),
                // A page that leads to itself never ends.
                Some(next) if after.as_ref() == Some(&next) => return Err(failed("pages that lead nowhere")),
                Some(next) => after = Some(next),
            }
        }
        Err(failed("more pages than an account can have"))
    }

    /// Hands over a sample file: opens an upload, and fills it.
    pub(super) async fn sample(&self, of: &Sender, sample: &Media) -> Result<SampleHandle, LookUpError> {
        // A business's own app is known by its token alone.
        let app = self.app_id.as_deref().filter(|_| of.app.is_none()).unwrap_or(OWN_APP);
        let query = [
            ("file_name", sample.filename.clone()),
            ("file_length", sample.content.len().to_string()),
            ("file_type", sample.mime_type.to_owned()),
        ];
        let opened: Opened = self.told(self.manage(of, Method::POST, &format!("{app}/uploads"))?.query(&query)).await?;
        // It becomes part of a path, with a query of its own behind it.
        let plain = opened.id.starts_with("upload:")
            && opened.id.len() <= 2000
            && opened.id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'#' | b'\\'));
        if !plain {
            return Err(failed("an upload that does not read"));
        }
        // The session's address takes its token in another way than everything else.
        let token = self.app_of(of).ok_or_else(|| failed(NO_APP))?.access_token.expose_secret();
        let mut secret =
            header::HeaderValue::from_str(&format!("OAuth {token}")).map_err(|_| failed("a token that is none"))?;
        secret.set_sensitive(true);
        let request = self.manage(of, Method::POST, &opened.id)?;
        let (client, request) = request.build_split();
        let mut request = request.map_err(|error| failed(describe(&error)))?;
        request.headers_mut().insert(header::AUTHORIZATION, secret);
        request.headers_mut().insert("file_offset", header::HeaderValue::from_static("0"));
        *request.body_mut() = Some(sample.content.clone().into());
        let filled: Filled = self.told(RequestBuilder::from_parts(client, request)).await?;
        let good = (1..=4096).contains(&filled.h.len());
        good.then_some(SampleHandle(filled.h)).ok_or_else(|| failed("a sample without a handle"))
    }

    /// Submits a new template.
    pub(super) async fn submit(
        &self,
        of: &Sender,
        waba_id: &str,
        form: &TemplateForm,
        sample: Option<&SampleHandle>,
    ) -> Result<Submitted, LookUpError> {
        let mut body = json!({
            "name": form.name,
            "language": form.language,
            "category": form.category,
            "components": components_of(form, sample.map(|handle| handle.0.as_str())),
        });
        if let Some(format) = format_of(form) {
            body["parameter_format"] = json!(format);
        }
        if let Some(secs) = form.ttl_secs {
            body["message_send_ttl_seconds"] = json!(secs);
        }
        let request = self.manage(of, Method::POST, &format!("{waba_id}/message_templates"))?.json(&body);
        let made: Made = self.told(request).await?;
        let status = made.status.unwrap_or_else(|| "PENDING".to_owned());
        Ok(Submitted { id: made.id, status, category: made.category.unwrap_or_else(|| form.category.clone()) })
    }

    /// Changes a template.
    pub(super) async fn edit(
        &self,
        of: &Sender,
        known: &RemoteTemplate,
        form: &TemplateForm,
        sample: Option<&SampleHandle>,
    ) -> Result<(), LookUpError> {
        let mut body = json!({ "components": components_of(form, sample.map(|handle| handle.0.as_str())) });
        if known.status != "APPROVED" && known.form.category != form.category {
            body["category"] = json!(form.category);
        }
        if let Some(format) = format_of(form) {
            body["parameter_format"] = json!(format);
        }
        if let Some(secs) = form.ttl_secs {
            body["message_send_ttl_seconds"] = json!(secs);
        }
        let edited: Edited = self.told(self.manage(of, Method::POST, &known.id)?.json(&body)).await?;
        if edited.success { Ok(()) } else { Err(failed("the carrier did not say that it was changed")) }
    }

    fn manage(&self, of: &Sender, method: Method, path: &str) -> Result<RequestBuilder, LookUpError> {
        self.request(of, method, path).ok_or_else(|| failed(NO_APP))
    }

    /// What the carrier tells, or its refusal.
    async fn told<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, LookUpError> {
        let response = request.send().await.map_err(|error| failed(describe(&error)))?;
        let answer = Answer::read(response).await.map_err(LookUpError::Failed)?;
        if let Some(error) = answer.error() {
            let class = class_of(error.code, Via::Response, answer.status, error.is_transient.unwrap_or(false));
            return Err(match class {
                Class::Ambiguous(_) => {
                    LookUpError::Failed(answer.failure("the carrier failed while it looked", Some(&error)))
                }
                _ => LookUpError::Refused(answer.refusal(&error, class)),
            });
        }
        let read = serde_json::from_slice(&answer.body).ok().filter(|_| (200..300).contains(&answer.status));
        read.ok_or_else(|| LookUpError::Failed(answer.failure("an answer that does not read", None)))
    }
}

fn failed(what: impl Into<String>) -> LookUpError {
    LookUpError::Failed(Failure::new(what))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    data: Vec<Value>,
    paging: Option<Paging>,
}

#[derive(Default, Deserialize)]
struct Paging {
    cursors: Option<Cursors>,
    next: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Cursors {
    after: Option<String>,
}

#[derive(Deserialize)]
struct Opened {
    id: String,
}

#[derive(Deserialize)]
struct Filled {
    h: String,
}

#[derive(Deserialize)]
struct Made {
    id: String,
    status: Option<String>,
    category: Option<String>,
}

#[derive(Deserialize)]
struct Edited {
    success: bool,
}

/// `parameter_format`; nothing for the carrier's own words around a code.
pub(crate) fn format_of(form: &TemplateForm) -> Option<&'static str> {
    form.named.then_some("named")
}

/// The components of a submission. `sample` is the handle of the file at the head, where the template has one.
pub(crate) fn components_of(form: &TemplateForm, sample: Option<&str>) -> Vec<Value> {
    if let Some(code) = form.code {
        let mut components = vec![json!({ "type": "BODY", "add_security_recommendation": code.warns.unwrap_or(true) })];
        components.extend(code.minutes.map(|minutes| json!({ "type": "FOOTER", "code_expiration_minutes": minutes })));
        // Its words are the carrier's own, in the template's language.
        components.push(json!({ "type": "BUTTONS", "buttons": [{ "type": "OTP", "otp_type": "COPY_CODE" }] }));
        return components;
    }
    let mut components = Vec::with_capacity(4);
    let named = |text: &str| {
        let known = form.examples.iter().filter(|(name, _)| text.contains(&format!("{{{{{name}}}}}")));
        known.map(|(name, example)| json!({ "param_name": name, "example": example })).collect::<Vec<_>>()
    };
    let file = |format: &str| json!({ "type": "HEADER", "format": format, "example": { "header_handle": [sample] } });
    match &form.header {
        HeaderForm::None | HeaderForm::Other(_) => {}
        HeaderForm::Document => components.push(file("DOCUMENT")),
        HeaderForm::Image => components.push(file("IMAGE")),
        HeaderForm::Text(text) => {
            let mut header = json!({ "type": "HEADER", "format": "TEXT", "text": text });
            let examples = named(text);
            if !examples.is_empty() {
                header["example"] = json!({ "header_text_named_params": examples });
            }
            components.push(header);
        }
    }
    let mut body = json!({ "type": "BODY", "text": form.body });
    let examples = named(&form.body);
    if !examples.is_empty() {
        body["example"] = json!({ "body_text_named_params": examples });
    }
    components.push(body);
    components.extend(form.footer.as_ref().map(|footer| json!({ "type": "FOOTER", "text": footer })));
    let buttons: Vec<_> = form.buttons.iter().filter_map(button).collect();
    if !buttons.is_empty() {
        components.push(json!({ "type": "BUTTONS", "buttons": buttons }));
    }
    components
}

fn button(button: &ButtonForm) -> Option<Value> {
    Some(match button {
        ButtonForm::QuickReply { text } => json!({ "type": "QUICK_REPLY", "text": text }),
        ButtonForm::Url { text, url, example: None } => json!({ "type": "URL", "text": text, "url": url }),
        ButtonForm::Url { text, url, example: Some(example) } => {
            json!({ "type": "URL", "text": text, "url": url, "example": [example] })
        }
        ButtonForm::CopyCode { example } => json!({ "type": "COPY_CODE", "example": example }),
        ButtonForm::Phone { text, number } => json!({ "type": "PHONE_NUMBER", "text": text, "phone_number": number }),
        ButtonForm::Other { .. } => return None,
    })
}

fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn owned(value: &Value, key: &str) -> Option<String> {
    word(value, key).map(str::to_owned)
}

/// A template as it is listed; nothing where it has no id, name or language.
fn remote_of(shown: &Value) -> Option<RemoteTemplate> {
    // An id becomes part of an address.
    let id =
        word(shown, "id").filter(|id| (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit()))?;
    let category = owned(shown, "category").unwrap_or_default();
    let empty = Vec::new();
    let components = shown.get("components").and_then(Value::as_array).unwrap_or(&empty);
    let part = |kind: &str| {
        components.iter().find(|one| word(one, "type").is_some_and(|given| given.eq_ignore_ascii_case(kind)))
    };
    let code = (category == "AUTHENTICATION").then(|| CodeForm {
        warns: part("BODY").and_then(|body| body.get("add_security_recommendation")).and_then(Value::as_bool),
        minutes: part("FOOTER")
            .and_then(|footer| footer.get("code_expiration_minutes"))
            .and_then(Value::as_u64)
            .and_then(|minutes| u8::try_from(minutes).ok()),
    });
    let words = code.is_none();
    let header = part("HEADER").map_or(HeaderForm::None, |header| match word(header, "format") {
        Some("TEXT") => HeaderForm::Text(owned(header, "text").unwrap_or_default()),
        Some("DOCUMENT") => HeaderForm::Document,
        Some("IMAGE") => HeaderForm::Image,
        other => HeaderForm::Other(other.unwrap_or_default().to_owned()),
    });
    let buttons = part("BUTTONS").and_then(|buttons| buttons.get("buttons")?.as_array()).filter(|_| words);
    let score = shown.get("quality_score").and_then(|score| owned(score, "score"));
    Some(RemoteTemplate {
        id: id.to_owned(),
        status: owned(shown, "status").unwrap_or_default(),
        quality: score,
        correct_category: owned(shown, "correct_category"),
        rejected_reason: owned(shown, "rejected_reason").filter(|reason| reason != "NONE"),
        form: TemplateForm {
            name: owned(shown, "name")?,
            language: owned(shown, "language")?,
            named: words && word(shown, "parameter_format").is_some_and(|format| format.eq_ignore_ascii_case("named")),
            category,
            header,
            body: part("BODY").filter(|_| words).and_then(|body| owned(body, "text")).unwrap_or_default(),
            examples: Vec::new(),
            footer: part("FOOTER").filter(|_| words).and_then(|footer| owned(footer, "text")),
            buttons: buttons.into_iter().flatten().map(listed).collect(),
            code,
            ttl_secs: shown.get("message_send_ttl_seconds").and_then(Value::as_i64),
        },
    })
}

fn listed(button: &Value) -> ButtonForm {
    let text = owned(button, "text").unwrap_or_default();
    match word(button, "type").unwrap_or_default() {
        "QUICK_REPLY" => ButtonForm::QuickReply { text },
        "URL" => ButtonForm::Url { text, url: owned(button, "url").unwrap_or_default(), example: None },
        "COPY_CODE" => ButtonForm::CopyCode { example: String::new() },
        "PHONE_NUMBER" => ButtonForm::Phone { text, number: owned(button, "phone_number").unwrap_or_default() },
        kind => ButtonForm::Other { kind: kind.to_owned(), text },
    }
}

#[cfg(test)]
mod tests {
    use muneem_jobs::messaging::template::{Verdict, compare, form_of, library};

    use super::*;

    #[test]
    fn what_is_submitted_comes_back_as_the_same() {
        let listed: Vec<_> = library()
            .iter()
            .enumerate()
            .map(|(place, (_, _, entry))| {
                let form = form_of(&entry.template);
                let mut shown = json!({ "id": place.to_string(), "name": form.name, "language": form.language,
                    "status": "APPROVED", "category": form.category, "components": components_of(&form, Some("4::x")),
                    "parameter_format": if form.named { "NAMED" } else { "POSITIONAL" } });
                if let Some(secs) = form.ttl_secs {
                    shown["message_send_ttl_seconds"] = json!(secs);
                }
                remote_of(&shown).expect("it reads")
            })
            .collect();
        for row in compare(library(), &listed) {
            assert_eq!((row.verdict, row.differs), (Verdict::Same, Vec::new()), "{} {}", row.name, row.language);
        }
    }

    #[test]
    fn every_kind_of_header_and_button_is_submitted_with_its_example() {
        let form = TemplateForm {
            name: "all_v1".into(),
            language: "en".into(),
            category: "MARKETING".into(),
            named: true,
            header: HeaderForm::Text("Bill {{number}}".into()),
            body: "Dear {{name}}, here is everything that there is to say.".into(),
            examples: vec![("number".into(), "1".into()), ("name".into(), "Asha".into()), ("end".into(), "x".into())],
            footer: Some("Reply STOP".into()),
            buttons: vec![
                ButtonForm::Url {
                    text: "Open".into(),
                    url: "https://a.example/{{1}}".into(),
                    example: Some("https://a.example/x".into()),
                },
                ButtonForm::Phone { text: "Call".into(), number: "+919876500142".into() },
                ButtonForm::CopyCode { example: "DIWALI25".into() },
                ButtonForm::QuickReply { text: "Stop".into() },
            ],
            code: None,
            ttl_secs: None,
        };
        insta::assert_json_snapshot!("components", components_of(&form, None));
    }

    #[test]
    fn what_could_lead_astray_in_a_list_is_not_read() {
        for id in ["", "../1", "1/2", "1?x", "x"] {
            assert!(remote_of(&json!({ "id": id, "name": "a", "language": "en" })).is_none(), "{id}");
        }
        assert!(remote_of(&json!({ "id": "1", "language": "en" })).is_none());
        let bare = remote_of(&json!({ "id": "1", "name": "a", "language": "en" })).expect("it reads");
        assert_eq!((bare.status.as_str(), bare.form.body.as_str(), bare.form.header), ("", "", HeaderForm::None));
    }
}
