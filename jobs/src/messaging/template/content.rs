//! Which words, and what is filled in.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{
    Button, Category, Header, Kind, Language, Template,
    file::variables,
    library,
    limits::{LONGEST_BODY, LONGEST_LINE},
};
use crate::{
    messaging::{MessageClass, Reply},
    outbound::carrier::{DocumentHeader, FilledButton, FilledHeader, FilledTemplate, InteractiveAction, OutgoingBody},
};

/// Which message, with its parameters.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A bill with its PDF.
    TaxInvoice(TaxInvoice),
    /// A code to sign in with.
    SignInCode(SignInCode),
    /// What happened to somebody's access.
    SignInWarning(SignInWarning),
    /// The invitation of somebody outside to one decision.
    ApprovalLink(ApprovalLink),
    /// Any template by its folder, its parameters by name.
    Named(Named),
    /// Words of one's own, to somebody who has written within 24 hours.
    Free(Free),
    /// What somebody who wrote is answered.
    Reply(Reply),
}

/// Words of one's own: what the Cloud API takes within the customer service window, which her own message opens for
/// 24 hours.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Free {
    /// Words, at most 4,096 characters.
    Text {
        /// The words.
        body: String,
    },
    /// The message's file, a PDF or a picture by its name.
    File {
        /// What stands beneath it, at most 1,024 characters.
        caption: Option<String>,
    },
    /// Words with up to three buttons; what she taps comes back as an inbound message with the button's id.
    Buttons {
        /// The words, at most 1,024 characters.
        body: String,
        /// The small line beneath, at most 60.
        footer: Option<String>,
        /// The buttons, without descriptions.
        buttons: Vec<Choice>,
    },
    /// Words with a list behind one button.
    List {
        /// The words, at most 1,024 characters.
        body: String,
        /// The small line beneath, at most 60.
        footer: Option<String>,
        /// On the button, at most 20.
        label: String,
        /// Up to ten.
        rows: Vec<Choice>,
    },
    /// Words with a button that opens a page.
    Link {
        /// The words, at most 1,024 characters.
        body: String,
        /// The small line beneath, at most 60.
        footer: Option<String>,
        /// On the button, at most 20.
        label: String,
        /// `https://…`
        url: String,
    },
}

/// Something to tap.
#[derive(Clone, Serialize, Deserialize)]
pub struct Choice {
    /// What comes back, at most 200 characters.
    pub id: String,
    /// What she reads: at most 20 characters on a button, 24 in a list.
    pub title: String,
    /// The line beneath, in a list alone: at most 72.
    pub description: Option<String>,
}

impl Free {
    /// As it stands in a message's row in the place of a template.
    const fn name(&self) -> &'static str {
        match self {
            Self::Text { .. } => "free_text",
            Self::File { .. } => "free_file",
            Self::Buttons { .. } => "free_buttons",
            Self::List { .. } => "free_list",
            Self::Link { .. } => "free_link",
        }
    }

    /// What the carrier would refuse (Cloud API error 131009), by field.
    fn check(&self) -> Result<(), BadParameter> {
        let line = |field: &'static str, text: &str, most: usize| {
            let length = text.chars().count();
            if text.trim().is_empty() || length > most || text.contains('\0') {
                let mend = format!("must be 1 to {most} characters");
                return Err((Cow::Borrowed(field), Cow::Owned(mend)));
            }
            Ok(())
        };
        let foot = |footer: &Option<String>| footer.as_ref().map_or(Ok(()), |text| line("footer", text, 60));
        let choices = |field: &'static str, given: &[Choice], (most, title): (usize, usize)| {
            if given.is_empty() || given.len() > most {
                return Err((Cow::Borrowed(field), Cow::Owned(format!("must be 1 to {most} of them"))));
            }
            for (place, choice) in given.iter().enumerate() {
                line(field, &choice.id, 200)?;
                line(field, &choice.title, title)?;
                choice.description.as_ref().map_or(Ok(()), |text| line(field, text, 72))?;
                if given[..place].iter().any(|before| before.id == choice.id || before.title == choice.title) {
                    return Err((field.into(), "must differ in id and title".into()));
                }
            }
            Ok(())
        };
        match self {
            Self::Text { body } => line("text", body, 4096),
            Self::File { caption } => caption.as_ref().map_or(Ok(()), |text| line("caption", text, 1024)),
            Self::Buttons { body, footer, buttons } => {
                line("body", body, 1024)?;
                foot(footer)?;
                if buttons.iter().any(|button| button.description.is_some()) {
                    return Err(("buttons".into(), "have no descriptions: take a list".into()));
                }
                choices("buttons", buttons, (3, 20))
            }
            Self::List { body, footer, label, rows } => {
                line("body", body, 1024)?;
                foot(footer)?;
                line("label", label, 20)?;
                choices("rows", rows, (10, 24))
            }
            Self::Link { body, footer, label, url } => {
                line("body", body, 1024)?;
                foot(footer)?;
                line("label", label, 20)?;
                line("url", url, 2000)?;
                if url.starts_with("https://") && !url.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    Ok(())
                } else {
                    Err(("url".into(), "must begin with https://".into()))
                }
            }
        }
    }

    fn body(&self, file: Option<DocumentHeader>) -> OutgoingBody {
        let interactive = |body: &String, footer: &Option<String>, action| OutgoingBody::Interactive {
            body: body.clone(),
            footer: footer.clone(),
            action,
        };
        match (self, file) {
            (Self::Text { body }, _) => OutgoingBody::Text(body.clone()),
            (Self::File { caption }, Some(file)) if file.filename.ends_with(".pdf") => {
                OutgoingBody::Document { file, caption: caption.clone() }
            }
            (Self::File { caption }, Some(file)) => OutgoingBody::Image { media: file.media, caption: caption.clone() },
            // Asked for without a file it was refused; the carrier refuses it too.
            (Self::File { caption }, None) => OutgoingBody::Text(caption.clone().unwrap_or_default()),
            (Self::Buttons { body, footer, buttons }, _) => {
                let buttons = buttons.iter().map(|button| (button.id.clone(), button.title.clone())).collect();
                interactive(body, footer, InteractiveAction::Buttons(buttons))
            }
            (Self::List { body, footer, label, rows }, _) => {
                let row = |row: &Choice| (row.id.clone(), row.title.clone(), row.description.clone());
                let rows = rows.iter().map(row).collect();
                interactive(body, footer, InteractiveAction::List { label: label.clone(), rows })
            }
            (Self::Link { body, footer, label, url }, _) => {
                interactive(body, footer, InteractiveAction::Link { label: label.clone(), url: url.clone() })
            }
        }
    }
}

/// The words around a bill.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaxInvoice {
    /// How the buyer is addressed.
    pub customer_name: String,
    /// The shop.
    pub business_name: String,
    /// The bill's serial number.
    pub invoice_number: String,
    /// The total as printed: `₹1,180.00`.
    pub amount: String,
}

/// The words around a code. The carrier writes them itself (Cloud API, authentication templates).
#[derive(Clone, Serialize, Deserialize)]
pub struct SignInCode {
    /// Six digits.
    pub code: String,
}

/// The words around a warning.
#[derive(Clone, Serialize, Deserialize)]
pub struct SignInWarning {
    /// How she is addressed.
    pub name: String,
    /// Where her access is to.
    pub business_name: String,
    /// What happened, a sentence without its full stop.
    pub event: String,
    /// When, in India: `23 November 2026, 14:05`.
    pub at: String,
}

/// The words around an invitation to decide.
#[derive(Clone, Serialize, Deserialize)]
pub struct ApprovalLink {
    /// Who asks.
    pub business_name: String,
    /// The page behind which she decides.
    pub url: String,
    /// Until when, in India: `26-11-2026 18:30 IST`.
    pub until: String,
}

/// Any template with its parameters. The file says which there are and what each must be; nothing is written before
/// [`Content::check`] has held them against it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Named {
    /// The folder of its words.
    pub template: String,
    /// Values by name: all that the template declares, and no others.
    pub parameters: BTreeMap<String, String>,
}

/// A parameter that must not go out so: its name, and the mend.
pub type BadParameter = (Cow<'static, str>, Cow<'static, str>);

impl Content {
    /// The folder of its words.
    pub fn template(&self) -> &str {
        match self {
            Self::TaxInvoice(_) => "tax_invoice",
            Self::SignInCode(_) => "sign_in_code",
            Self::SignInWarning(_) => "sign_in_warning",
            Self::ApprovalLink(_) => "approval_link",
            Self::Named(named) => &named.template,
            Self::Free(free) => free.name(),
            Self::Reply(_) => "free_reply",
        }
    }

    /// What kind of thing it is to say, as its file says. Words that nobody has are refused by [`Self::check`].
    pub fn class(&self) -> MessageClass {
        // That a no was heard is owed to her.
        if matches!(self, Self::Reply(_)) {
            return MessageClass::Statutory;
        }
        self.words(Language::En).map_or(MessageClass::Transactional, Template::class)
    }

    /// Whether it needs the customer service window, being no template.
    pub(in crate::messaging) const fn is_free(&self) -> bool {
        matches!(self, Self::Free(_) | Self::Reply(_))
    }

    /// Values by name.
    pub(in crate::messaging) fn parameters(&self) -> Vec<(&str, &str)> {
        match self {
            Self::TaxInvoice(invoice) => vec![
                ("customer_name", &invoice.customer_name),
                ("business_name", &invoice.business_name),
                ("invoice_number", &invoice.invoice_number),
                ("amount", &invoice.amount),
            ],
            Self::SignInCode(code) => vec![("code", &code.code)],
            Self::SignInWarning(warning) => vec![
                ("name", &warning.name),
                ("business_name", &warning.business_name),
                ("event", &warning.event),
                ("at", &warning.at),
            ],
            Self::ApprovalLink(link) => {
                vec![("business_name", &link.business_name), ("url", &link.url), ("until", &link.until)]
            }
            Self::Named(named) => {
                named.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
            }
            Self::Free(_) | Self::Reply(_) => Vec::new(),
        }
    }

    pub(in crate::messaging) fn values(&self) -> Vec<(String, String)> {
        self.parameters().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The template's words for somebody of `language`; nothing where nobody has such a template.
    pub fn words(&self, language: Language) -> Option<&'static Template> {
        if self.is_free() {
            return None;
        }
        library().find(self.template(), language)
    }

    /// Says which parameter is missing, unknown or ill-typed, or would be refused by the carrier.
    ///
    /// # Errors
    /// The parameter's name and the mend.
    pub fn check(&self) -> Result<(), BadParameter> {
        if let Self::Free(free) = self {
            return free.check();
        }
        if let Self::Reply(reply) = self {
            return reply.free(Language::En).check();
        }
        let Some(template) = self.words(Language::En) else {
            let mend = "is no template that is known here: `muneem messaging templates list` shows them";
            return Err(("template".into(), mend.into()));
        };
        let given: BTreeMap<_, _> = self.parameters().into_iter().collect();
        for parameter in &template.parameters {
            let Some(value) = given.get(parameter.name.as_str()) else {
                let mend = format!("is missing: give {}, such as {}", parameter.kind.as_str(), parameter.example);
                return Err((parameter.name.clone().into(), mend.into()));
            };
            if let Err(mend) = parameter.kind.check(value, parameter.longest()) {
                return Err((parameter.name.clone().into(), mend));
            }
        }
        if let Some(stranger) = given.keys().find(|name| template.parameter(name).is_none()) {
            let known: Vec<_> = template.parameters.iter().map(|one| one.name.as_str()).collect();
            let mend = format!("is unknown to the template: it takes {}", known.join(", "));
            return Err((name_of(stranger).into(), mend.into()));
        }
        self.check_length()
    }

    /// Filled, in whatever language it will be (Cloud API error 132005).
    fn check_length(&self) -> Result<(), BadParameter> {
        let values = self.values();
        let longest = |names: Vec<&str>| {
            let fitting = values.iter().filter(|(name, _)| names.contains(&name.as_str()));
            let found = fitting.max_by_key(|(_, value)| value.chars().count());
            found.map_or_else(String::new, |(name, _)| name.clone())
        };
        for template in library().of_folder(self.template()) {
            if template.category != Category::Authentication && template.render(&values).chars().count() > LONGEST_BODY
            {
                let mend = format!("makes the message longer than {LONGEST_BODY} characters: shorten it");
                return Err((longest(variables(&template.body)).into(), mend.into()));
            }
            if let (Some(line), Header::Text(text)) = (template.render_header(&values), &template.header)
                && line.chars().count() > LONGEST_LINE
            {
                let mend = format!("makes the header longer than {LONGEST_LINE} characters: shorten it");
                return Err((longest(variables(text)).into(), mend.into()));
            }
        }
        Ok(())
    }

    /// What goes over the wire, for somebody of `language`.
    pub fn body(&self, language: Language, file: Option<DocumentHeader>) -> OutgoingBody {
        match self {
            Self::Free(free) => free.body(file),
            Self::Reply(reply) => reply.free(language).body(None),
            _ => OutgoingBody::Template(self.fill(language, file)),
        }
    }

    /// The template filled for the wire, for somebody of `language`.
    ///
    /// Where its words have gone since it was asked for, it is named by its folder, and the carrier refuses it as a
    /// template that does not exist (Cloud API error 132001): it is held, and not sent in other words.
    pub fn fill(&self, language: Language, file: Option<DocumentHeader>) -> FilledTemplate {
        let values = self.values();
        let Some(words) = self.words(language) else {
            return FilledTemplate {
                name: self.template().to_owned(),
                language: language.carrier_code().unwrap_or(Language::En.as_str()).to_owned(),
                header: file.map(FilledHeader::Document),
                body: values,
                code: None,
                buttons: Vec::new(),
            };
        };
        let (name, language) = (words.name.clone(), words.language.clone());
        if words.category == Category::Authentication {
            let code = values
                .into_iter()
                .find(|(name, _)| words.parameter(name).is_some_and(|parameter| parameter.kind == Kind::Code));
            let code = code.map(|(_, code)| code);
            return FilledTemplate { name, language, header: None, body: Vec::new(), code, buttons: Vec::new() };
        }
        let value_of = |wanted: &str| values.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let header = match &words.header {
            Header::None => None,
            Header::Document => file.map(FilledHeader::Document),
            Header::Image => file.map(|file| FilledHeader::Image(file.media)),
            Header::Text(text) => variables(text)
                .first()
                .and_then(|name| Some(FilledHeader::Text { name: (*name).to_owned(), text: value_of(name)? })),
        };
        let buttons = words.buttons.iter().enumerate().filter_map(|(index, button)| match button {
            Button::QuickReply { payload, .. } => Some(FilledButton::QuickReply { index, payload: payload.clone() }),
            Button::Url { .. } => Some(FilledButton::Url { index, suffix: value_of(button.parameter()?)? }),
            Button::CopyCode { parameter } => Some(FilledButton::CopyCode { index, code: value_of(parameter)? }),
            Button::Phone { .. } => None,
        });
        let in_body = variables(&words.body);
        let body = in_body.into_iter().filter_map(|name| Some((name.to_owned(), value_of(name)?))).collect();
        FilledTemplate { name, language, header, body, code: None, buttons: buttons.collect() }
    }
}

/// A name that somebody made up, as it may stand in an error.
fn name_of(text: &str) -> String {
    let plain: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
    // What is no name may be anything, a phone number even.
    if plain.is_empty() || plain.bytes().filter(u8::is_ascii_digit).count() > 6 {
        "parameters".to_owned()
    } else {
        plain
    }
}
