//! What a template asks of those who send it: its head, its words with their variables, its buttons.

use serde_json::Value;

/// The kind of file at a template's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum HeadFile {
    Image,
    Video,
    Document,
}

impl HeadFile {
    /// The word in a submission; in a message it is written small.
    pub(in super::super) const fn word(self) -> &'static str {
        match self {
            Self::Image => "IMAGE",
            Self::Video => "VIDEO",
            Self::Document => "DOCUMENT",
        }
    }
}

/// What stands at the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Head {
    #[default]
    None,
    Text {
        text: String,
        variable: Option<String>,
    },
    File(HeadFile),
    Location,
}

/// What stands below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Button {
    QuickReply { text: String },
    Url { text: String, url: String, variable: bool },
    Phone { text: String, number: String },
    CopyCode,
    Otp { text: String },
    Other { kind: String, text: String },
}

impl Button {
    /// The word on it.
    pub(in super::super) fn text(&self) -> &str {
        match self {
            Self::QuickReply { text } | Self::Url { text, .. } | Self::Phone { text, .. } => text,
            Self::Otp { text } | Self::Other { text, .. } => text,
            Self::CopyCode => "Copy offer code",
        }
    }
}

/// A template as a sender has to fill it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Shape {
    pub(in super::super) head: Head,
    /// With its variables as `{{name}}` or `{{1}}`.
    pub(in super::super) body: String,
    /// Of the body, in the order in which they stand.
    pub(in super::super) variables: Vec<String>,
    pub(in super::super) footer: Option<String>,
    pub(in super::super) buttons: Vec<Button>,
}

/// The names between `{{` and `}}`, in order, repeated ones once.
pub(in super::super) fn variables(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        let name = name.trim().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
        rest = after;
    }
    names
}

/// Puts values in the place of variables. What is inside a value is never taken for a variable.
pub(in super::super) fn fill(text: &str, values: &[(String, String)]) -> String {
    let mut filled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once("}}") else { break };
        if let Some((_, value)) = values.iter().find(|(known, _)| known == name.trim()) {
            filled.push_str(value);
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// The component of a kind, and a text in it.
pub(super) fn component<'a>(components: &'a [Value], kind: &str) -> Option<&'a Value> {
    components.iter().find(|one| word(one, "type").is_some_and(|given| given.eq_ignore_ascii_case(kind)))
}

pub(super) fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The carrier's own words around a code.
pub(super) fn code_words(language: &str, security: bool) -> String {
    let (code, keep) = match language.split('_').next() {
        Some("hi") => ("{{1}} आपका सत्यापन कोड है।", "अपनी सुरक्षा के लिए, इस कोड को किसी के साथ साझा न करें।"),
        _ => ("{{1}} is your verification code.", "For your security, do not share this code."),
    };
    if security { format!("{code} {keep}") } else { code.to_owned() }
}

impl Shape {
    /// Reads components that were found good, or are ours.
    pub(in super::super) fn of(components: &[Value], language: &str) -> Self {
        let head = component(components, "HEADER").map_or(Head::None, |header| match word(header, "format") {
            Some("IMAGE") => Head::File(HeadFile::Image),
            Some("VIDEO") => Head::File(HeadFile::Video),
            Some("DOCUMENT") => Head::File(HeadFile::Document),
            Some("LOCATION") => Head::Location,
            _ => {
                let text = word(header, "text").unwrap_or_default().to_owned();
                Head::Text { variable: variables(&text).into_iter().next(), text }
            }
        });
        let body = component(components, "BODY");
        let body = body.and_then(|body| word(body, "text")).map_or_else(
            || {
                let security = body.and_then(|body| body.get("add_security_recommendation"));
                code_words(language, security.and_then(Value::as_bool).unwrap_or(false))
            },
            str::to_owned,
        );
        let footer = component(components, "FOOTER").and_then(|footer| match footer.get("code_expiration_minutes") {
            Some(minutes) => Some(format!("This code expires in {minutes} minutes.")),
            None => word(footer, "text").map(str::to_owned),
        });
        let buttons = component(components, "BUTTONS").and_then(|buttons| buttons.get("buttons")?.as_array());
        let buttons = buttons.into_iter().flatten().map(button).collect();
        Self { head, variables: variables(&body), body, footer, buttons }
    }

    /// Whether it is sent with a code behind its button.
    pub(in super::super) fn has_code(&self) -> bool {
        self.buttons.iter().any(|button| matches!(button, Button::Otp { .. }))
    }
}

fn button(given: &Value) -> Button {
    let text = || word(given, "text").unwrap_or_default().to_owned();
    match word(given, "type").unwrap_or_default().to_ascii_uppercase().as_str() {
        "QUICK_REPLY" => Button::QuickReply { text: text() },
        "URL" => {
            let url = word(given, "url").unwrap_or_default().to_owned();
            Button::Url { text: text(), variable: url.contains("{{"), url }
        }
        "PHONE_NUMBER" => {
            Button::Phone { text: text(), number: word(given, "phone_number").unwrap_or_default().to_owned() }
        }
        "COPY_CODE" => Button::CopyCode,
        "OTP" => Button::Otp { text: word(given, "text").unwrap_or("Copy code").to_owned() },
        kind => Button::Other { kind: kind.to_owned(), text: text() },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_found_in_order_and_filled_once() {
        assert_eq!(variables("a {{x}} b {{ y }} {{x}} {{"), ["x", "y"]);
        let values = [("x".to_owned(), "{{y}}".to_owned()), ("y".to_owned(), "2".to_owned())];
        assert_eq!(fill("a {{x}} b {{y}}", &values), "a {{y}} b 2");
    }

    #[test]
    fn the_words_around_a_code_are_the_carriers() {
        let components = [
            json!({ "type": "BODY", "add_security_recommendation": true }),
            json!({ "type": "BUTTONS", "buttons": [{ "type": "OTP", "otp_type": "COPY_CODE" }] }),
        ];
        let shape = Shape::of(&components, "en_IN");
        assert!(shape.body.ends_with("do not share this code.") && shape.has_code(), "{}", shape.body);
        assert_eq!(shape.variables, ["1"]);
    }
}
