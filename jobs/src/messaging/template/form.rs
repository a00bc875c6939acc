//! A template as the carrier is asked to take it.

use bytes::Bytes;

use super::{Button, Category, Header, Template, file::variables};
use crate::outbound::carrier::{ButtonForm, CodeForm, HeaderForm, Media, TemplateForm};

/// What the carrier's reviewers see at the head of a template with a document: a page that says that it is one.
const SAMPLE_PDF: &[u8] = include_bytes!("sample.pdf");
/// And with a picture: a plain square.
const SAMPLE_PNG: &[u8] = include_bytes!("sample.png");

/// The template as it is submitted.
pub fn form_of(template: &Template) -> TemplateForm {
    let authentication = template.category == Category::Authentication;
    TemplateForm {
        name: template.name.clone(),
        language: template.language.clone(),
        category: template.category.as_str().to_owned(),
        named: !authentication,
        header: match &template.header {
            Header::None => HeaderForm::None,
            Header::Text(text) => HeaderForm::Text(text.trim().to_owned()),
            Header::Document => HeaderForm::Document,
            Header::Image => HeaderForm::Image,
        },
        body: if authentication { String::new() } else { template.body.trim().to_owned() },
        examples: template.parameters.iter().map(|one| (one.name.clone(), one.example.clone())).collect(),
        footer: template.footer.as_ref().map(|footer| footer.trim().to_owned()),
        buttons: template.buttons.iter().map(|button| button_of(template, button)).collect(),
        code: authentication.then_some(CodeForm { warns: Some(true), minutes: template.code_minutes }),
        ttl_secs: template.ttl_secs.map(i64::from),
    }
}

fn button_of(template: &Template, button: &Button) -> ButtonForm {
    let example = |name: &str| template.parameter(name).map_or_else(String::new, |one| one.example.clone());
    match button {
        Button::QuickReply { text, .. } => ButtonForm::QuickReply { text: text.clone() },
        Button::Url { text, url } => {
            let name = variables(url).first().copied();
            // The carrier numbers the one variable of an address, also where the others have names.
            let (address, whole) = match name {
                Some(name) => {
                    let place = format!("{{{{{name}}}}}");
                    (url.replace(&place, "{{1}}"), Some(url.replace(&place, &example(name))))
                }
                None => (url.clone(), None),
            };
            ButtonForm::Url { text: text.clone(), url: address, example: whole }
        }
        Button::CopyCode { parameter } => ButtonForm::CopyCode { example: example(parameter) },
        Button::Phone { text, phone } => ButtonForm::Phone { text: text.clone(), number: phone.clone() },
    }
}

/// The file to show to the carrier's reviewers, where a template has one at its head.
pub fn sample_of(form: &TemplateForm) -> Option<Media> {
    let (content, mime_type, filename) = match form.header {
        HeaderForm::Document => (SAMPLE_PDF, "application/pdf", "sample.pdf"),
        HeaderForm::Image => (SAMPLE_PNG, "image/png", "sample.png"),
        HeaderForm::None | HeaderForm::Text(_) | HeaderForm::Other(_) => return None,
    };
    Some(Media { content: Bytes::from_static(content), mime_type, filename: filename.to_owned() })
}
