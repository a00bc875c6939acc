//! One template in one language, as it lies in `<template>/<language>/whatsapp.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, fill};
use crate::messaging::MessageClass;

/// One template in one language, as submitted to the carrier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The name it is approved under; it changes when the words do.
    pub name: String,
    /// The carrier's language code.
    pub language: String,
    /// What the carrier charges and judges it as.
    pub category: Category,
    /// What it is for us, where the category leaves that open.
    #[serde(default)]
    pub class: Option<Duty>,
    /// What stands at its head.
    #[serde(default)]
    pub header: Header,
    /// What its words leave open, in the order in which people read it.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// The words, each parameter as `{{name}}`. Those of an authentication template are the carrier's own and stand here
    /// as it shows them.
    pub body: String,
    /// A small line below, without parameters.
    #[serde(default)]
    pub footer: Option<String>,
    /// What can be tapped.
    #[serde(default)]
    pub buttons: Vec<Button>,
    /// How long the carrier goes on trying to deliver, in seconds (`message_send_ttl_seconds`); absent: its own default.
    #[serde(default)]
    pub ttl_secs: Option<u32>,
    /// For how many minutes an authentication template says that its code works.
    #[serde(default)]
    pub code_minutes: Option<u8>,
    /// The name of the shipped template in whose place this one stands: only so may one of the installation's own have
    /// the folder and language of a shipped one.
    #[serde(default)]
    pub replaces: Option<String>,
    /// Who read the words.
    pub reviewed_by: String,
    /// When.
    pub reviewed_on: toml::value::Datetime,
}

/// The carrier's category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Category {
    /// About something the recipient did.
    Utility,
    /// One-time passwords.
    Authentication,
    /// Everything that sells.
    Marketing,
}

impl Category {
    /// The carrier's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Utility => "UTILITY",
            Self::Authentication => "AUTHENTICATION",
            Self::Marketing => "MARKETING",
        }
    }
}

/// What a utility template is for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// About something that the recipient did: the default.
    Transactional,
    /// A law wants it said.
    Statutory,
}

/// What stands at the head of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// Nothing.
    #[default]
    None,
    /// A line with at most one parameter: `header = { text = "Bill {{invoice_number}}" }`.
    Text(String),
    /// A PDF.
    Document,
    /// A picture.
    Image,
}

impl Header {
    /// The word for people.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Text(_) => "text",
            Self::Document => "document",
            Self::Image => "image",
        }
    }
}

/// What words leave open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// As it stands in the words.
    pub name: String,
    /// What a value must be.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// One that could be; the carrier's reviewers read it.
    pub example: String,
    /// The longest value, in characters, where the kind's own limit does not fit.
    #[serde(default)]
    pub longest: Option<usize>,
}

impl Parameter {
    /// The longest value, in characters.
    pub fn longest(&self) -> usize {
        self.longest.unwrap_or_else(|| self.kind.longest())
    }
}

/// What can be tapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Button {
    /// Answers; we hear the payload.
    QuickReply {
        /// The words on it.
        text: String,
        /// What comes back when it is tapped.
        payload: String,
    },
    /// Opens a page.
    Url {
        /// The words on it.
        text: String,
        /// https, with at most one parameter, at its end.
        url: String,
    },
    /// Copies a code.
    CopyCode {
        /// The parameter that holds it.
        parameter: String,
    },
    /// Calls a number.
    Phone {
        /// The words on it.
        text: String,
        /// In E.164.
        phone: String,
    },
}

impl Button {
    /// The words on it; those of a copied code are the carrier's.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::QuickReply { text, .. } | Self::Url { text, .. } | Self::Phone { text, .. } => Some(text),
            Self::CopyCode { .. } => None,
        }
    }

    /// Which of the four.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::QuickReply { .. } => "quick_reply",
            Self::Url { .. } => "url",
            Self::CopyCode { .. } => "copy_code",
            Self::Phone { .. } => "phone",
        }
    }

    /// The parameter that it is filled with, if it has one.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Url { url, .. } => variables(url).first().copied(),
            Self::CopyCode { parameter } => Some(parameter),
            Self::QuickReply { .. } | Self::Phone { .. } => None,
        }
    }
}

/// The names between `{{` and `}}`, in order, repeated ones as often.
pub(super) fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        names.push(name);
        rest = after;
    }
    names
}

impl Template {
    /// What kind of thing it is to say.
    pub const fn class(&self) -> MessageClass {
        match (self.category, self.class) {
            (Category::Authentication, _) => MessageClass::Otp,
            (Category::Marketing, _) => MessageClass::Marketing,
            (Category::Utility, Some(Duty::Statutory)) => MessageClass::Statutory,
            (Category::Utility, _) => MessageClass::Transactional,
        }
    }

    /// The body as the recipient reads it. What is inside a value is never taken for a parameter.
    pub fn render(&self, values: &[(String, String)]) -> String {
        fill(self.body.trim(), values)
    }

    /// The line at the head, filled, if there is one.
    pub fn render_header(&self, values: &[(String, String)]) -> Option<String> {
        match &self.header {
            Header::Text(text) => Some(fill(text.trim(), values)),
            Header::None | Header::Document | Header::Image => None,
        }
    }

    /// A parameter by its name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Everything as somebody sees it on her phone, with these values: for previews.
    pub fn preview(&self, values: &BTreeMap<String, String>) -> String {
        let values: Vec<_> = values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut text = String::new();
        match &self.header {
            Header::None => {}
            Header::Document => text.push_str("[PDF]\n\n"),
            Header::Image => text.push_str("[picture]\n\n"),
            Header::Text(line) => {
                text.push_str(&fill(line.trim(), &values));
                text.push_str("\n\n");
            }
        }
        text.push_str(&self.render(&values));
        if let Some(footer) = &self.footer {
            text.push_str("\n\n");
            text.push_str(footer.trim());
        }
        for button in &self.buttons {
            let more = match button {
                Button::QuickReply { .. } => String::new(),
                Button::Url { url, .. } => format!(" → {}", fill(url, &values)),
                Button::CopyCode { parameter } => {
                    format!(" {}", values.iter().find(|(name, _)| name == parameter).map_or("", |(_, value)| value))
                }
                Button::Phone { phone, .. } => format!(" → {phone}"),
            };
            text.push_str(&format!("\n[{}{more}]", button.text().unwrap_or("Copy code")));
        }
        text
    }

    /// The examples by name.
    pub fn examples(&self) -> BTreeMap<String, String> {
        self.parameters.iter().map(|one| (one.name.clone(), one.example.clone())).collect()
    }
}
