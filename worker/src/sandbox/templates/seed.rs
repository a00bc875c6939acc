//! The templates that the stand-in has from the beginning: ours, as if they had been approved.

use chrono::{DateTime, Utc};
use muneem_jobs::messaging::{Category, Header, TEMPLATES, Template};
use serde_json::{Value, json};

use super::{New, Store};

impl Store {
    /// Takes our own templates in for an account, as approved.
    pub(in super::super) fn seed(&mut self, waba: &str, now: DateTime<Utc>) {
        for template in TEMPLATES.values() {
            let new = New {
                waba: waba.to_owned(),
                name: template.name.clone(),
                language: template.language.clone(),
                category: category(template).to_owned(),
                named: template.category != Category::Authentication,
                components: components(template),
                ttl: None,
            };
            // Two that say the same name and language are one.
            if let Ok(id) = self.make(new, now)
                && let Some(made) = self.get_mut(id)
            {
                "APPROVED".clone_into(&mut made.status);
                "GREEN".clone_into(&mut made.quality);
            }
        }
    }
}

fn category(template: &Template) -> &'static str {
    match template.category {
        Category::Authentication => "AUTHENTICATION",
        Category::Marketing => "MARKETING",
        Category::Utility => "UTILITY",
    }
}

fn components(template: &Template) -> Vec<Value> {
    if template.category == Category::Authentication {
        return vec![
            json!({ "type": "BODY", "add_security_recommendation": true }),
            json!({ "type": "BUTTONS", "buttons": [{ "type": "OTP", "otp_type": "COPY_CODE", "text": "Copy code" }] }),
        ];
    }
    let header = match template.header {
        Header::Document => {
            Some(json!({ "type": "HEADER", "format": "DOCUMENT", "example": { "header_handle": ["4::sample"] } }))
        }
        Header::None => None,
    };
    let examples: Vec<_> =
        template.parameters.iter().map(|name| json!({ "param_name": name, "example": name })).collect();
    let mut body = json!({ "type": "BODY", "text": template.body.trim() });
    if !examples.is_empty() {
        body["example"] = json!({ "body_text_named_params": examples });
    }
    header.into_iter().chain([body]).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn our_own_templates_would_be_taken_as_they_are() {
        for template in TEMPLATES.values() {
            let components = components(template);
            let named = template.category != Category::Authentication;
            let pdf = |_: &str| Some("application/pdf".to_owned());
            if let Err(refused) = check::components(&components, category(template), named, &pdf) {
                panic!("{} {}: {} {}", template.name, template.language, refused.code, refused.details);
            }
        }
    }
}
