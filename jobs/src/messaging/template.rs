//! The approved templates, as they lie in `templates/messaging/<template>/<language>/whatsapp.toml`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::MessageClass;
use crate::outbound::carrier::{DocumentHeader, FilledTemplate};

#[derive(rust_embed::RustEmbed)]
#[folder = "../templates/messaging"]
struct Words;

/// A language that we have words in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    En,
    /// Hindi.
    Hi,
}

impl Language {
    /// BCP 47, which is also the carrier's code for these two.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Hi => "hi",
        }
    }

    /// The one to write in to somebody whose language is this (BCP 47: `hi-IN` is Hindi); English where we have no words.
    pub fn of(bcp47: &str) -> Self {
        if bcp47.split('-').next() == Some("hi") { Self::Hi } else { Self::En }
    }
}

impl std::str::FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "en" => Ok(Self::En),
            "hi" => Ok(Self::Hi),
            other => Err(format!("no words in language `{other}`: take en or hi")),
        }
    }
}

/// Which message, with its typed parameters.
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

impl Content {
    /// The folder of its words.
    pub const fn template(&self) -> &'static str {
        match self {
            Self::TaxInvoice(_) => "tax_invoice",
            Self::SignInCode(_) => "sign_in_code",
            Self::SignInWarning(_) => "sign_in_warning",
            Self::ApprovalLink(_) => "approval_link",
        }
    }

    /// What kind of thing it is to say.
    pub const fn class(&self) -> MessageClass {
        match self {
            // Somebody waits at a screen.
            Self::SignInCode(_) => MessageClass::Otp,
            Self::TaxInvoice(_) | Self::SignInWarning(_) | Self::ApprovalLink(_) => MessageClass::Transactional,
        }
    }

    fn parameters(&self) -> Vec<(&'static str, &str)> {
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
        }
    }

    /// The template's words in `language`, or in English where it has none.
    pub fn words(&self, language: Language) -> &'static Template {
        let find = |language: Language| TEMPLATES.get(&(self.template().to_owned(), language.as_str().to_owned()));
        find(language).or_else(|| find(Language::En)).expect("every template has English words: a test loads them all")
    }

    /// Says which parameter the carrier would refuse, and why.
    ///
    /// # Errors
    /// The parameter's name and the mend.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        for (name, value) in self.parameters() {
            // Cloud API error 132018, found before the carrier does.
            let mend = if value.trim().is_empty() {
                "must not be empty"
            } else if value.chars().any(char::is_control) {
                "must be one line: no line breaks, tabs or control characters"
            } else if value.contains("     ") {
                "must not hold more than four spaces in a row"
            } else if value.chars().count() > 200 {
                "must not be longer than 200 characters"
            } else {
                continue;
            };
            return Err((name, mend));
        }
        Ok(())
    }

    /// The template filled for the wire.
    pub fn fill(&self, language: Language, header: Option<DocumentHeader>) -> FilledTemplate {
        let words = self.words(language);
        let (body, code) = match self {
            Self::SignInCode(code) => (Vec::new(), Some(code.code.clone())),
            _ => {
                let named = self.parameters().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                (named.collect(), None)
            }
        };
        FilledTemplate { name: words.name.clone(), language: words.language.clone(), header, body, code }
    }
}

/// One template in one language, as submitted to the carrier.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The name it is approved under; it changes when the words do.
    pub name: String,
    /// The carrier's language code.
    pub language: String,
    /// What the carrier charges and judges it as.
    pub category: Category,
    /// What stands at its head.
    pub header: Header,
    /// Named parameters of the body.
    pub parameters: Vec<String>,
    /// The words, each parameter as `{{name}}`.
    pub body: String,
    /// Who read the words as a native speaker, and when.
    pub reviewed_by: String,
    /// See `reviewed_by`.
    pub reviewed_on: toml::value::Datetime,
}

/// The carrier's category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Category {
    /// About something the recipient did.
    Utility,
    /// One-time passwords.
    Authentication,
    /// Everything that sells.
    Marketing,
}

/// What stands at the head of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// Nothing.
    None,
    /// A PDF.
    Document,
}

impl Template {
    /// The body as the recipient reads it. What is inside a value is never taken for a parameter.
    pub fn render(&self, values: &[(String, String)]) -> String {
        fill(self.body.trim(), values)
    }
}

/// Puts values in the place of `{{name}}`. What is inside a value is never taken for a parameter.
pub(super) fn fill(body: &str, values: &[(String, String)]) -> String {
    let mut text = String::with_capacity(body.len() + 64);
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((name, after)) = after.split_once("}}") else { break };
        if let Some((_, value)) = values.iter().find(|(known, _)| known == name) {
            text.push_str(value);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Every template by folder and language.
pub static TEMPLATES: LazyLock<BTreeMap<(String, String), Template>> = LazyLock::new(|| {
    Words::iter()
        .filter(|path| path.ends_with("/whatsapp.toml"))
        .map(|path| {
            let file = Words::get(&path).expect("listed a line above");
            let text =
                std::str::from_utf8(&file.data).unwrap_or_else(|_| panic!("templates/messaging/{path}: not UTF-8"));
            let template: Template =
                toml::from_str(text).unwrap_or_else(|error| panic!("templates/messaging/{path}: {error}"));
            let mut parts = path.split('/').map(str::to_owned);
            let key = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            (key, template)
        })
        .collect()
});

/// The name and language under which the carrier knows the words of a folder.
pub(super) fn names_of(folder: &str, language: &str) -> Option<(&'static str, &'static str)> {
    let find = |language: &str| TEMPLATES.get(&(folder.to_owned(), language.to_owned()));
    find(language).or_else(|| find("en")).map(|words| (words.name.as_str(), words.language.as_str()))
}

/// `subject` or `body` of a mail in plain text, as it lies in `templates/messaging/<folder>/<language>/`.
pub(super) fn mail_part(folder: &str, language: Language, part: &str) -> Option<String> {
    let file = Words::get(&format!("{folder}/{}/{part}.txt.hbs", language.as_str()))?;
    String::from_utf8(file.data.into_owned()).ok()
}

/// One sentence for each thing that staff is warned of.
pub(super) fn events(language: Language) -> &'static BTreeMap<String, String> {
    &EVENTS[usize::from(language == Language::Hi)]
}

static EVENTS: LazyLock<[BTreeMap<String, String>; 2]> = LazyLock::new(|| {
    [Language::En, Language::Hi].map(|language| {
        let path = format!("sign_in_warning/{}/events.toml", language.as_str());
        let file = Words::get(&path).unwrap_or_else(|| panic!("templates/messaging/{path} is missing"));
        let text = std::str::from_utf8(&file.data).unwrap_or_else(|_| panic!("templates/messaging/{path}: not UTF-8"));
        toml::from_str(text).unwrap_or_else(|error| panic!("templates/messaging/{path}: {error}"))
    })
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Lane;

    fn sample() -> Content {
        Content::TaxInvoice(TaxInvoice {
            customer_name: "आशा वर्मा".into(),
            business_name: "Sharma Mobiles".into(),
            invoice_number: "INV-1042".into(),
            amount: "₹1,180.00".into(),
        })
    }

    #[test]
    fn every_template_is_well_formed_and_speaks_english() {
        assert!(!TEMPLATES.is_empty());
        for ((folder, language), template) in TEMPLATES.iter() {
            assert!(TEMPLATES.contains_key(&(folder.clone(), "en".to_owned())), "{folder}");
            assert_eq!(&template.language, language, "{folder}");
            assert!(template.body.chars().count() <= 1024, "{folder}/{language}");
            for parameter in &template.parameters {
                assert_eq!(template.body.matches(&format!("{{{{{parameter}}}}}")).count(), 1, "{folder}/{language}");
            }
            assert_eq!(template.body.matches("{{").count(), template.parameters.len(), "{folder}/{language}");
            // Cloud API error 2388299: no variable first or last. The words of an authentication template are the
            // carrier's own.
            if template.category == Category::Authentication {
                assert_eq!((template.parameters.len(), template.header), (1, Header::None), "{folder}");
                continue;
            }
            assert!(!template.body.trim().starts_with("{{") && !template.body.trim().ends_with("}}"), "{folder}");
        }
    }

    /// One of each.
    fn samples() -> [Content; 4] {
        let warning = SignInWarning {
            name: "Asha".into(),
            business_name: "Sharma Mobiles".into(),
            event: "your password was changed".into(),
            at: "23 November 2026, 14:05".into(),
        };
        let link = ApprovalLink {
            business_name: "Sharma Mobiles".into(),
            url: format!("https://muneem.example.in/r/{}", "0".repeat(64)),
            until: "26-11-2026 18:30 IST".into(),
        };
        let code = SignInCode { code: "012345".into() };
        [sample(), Content::SignInCode(code), Content::SignInWarning(warning), Content::ApprovalLink(link)]
    }

    #[test]
    fn typed_parameters_are_those_of_the_template() {
        for (sample, language) in samples().iter().flat_map(|sample| [(sample, Language::En), (sample, Language::Hi)]) {
            let names: Vec<_> = sample.parameters().iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(sample.words(language).parameters, names);
            assert_eq!(sample.words(language).language, language.as_str());
            assert_eq!(sample.check(), Ok(()));
        }
    }

    #[test]
    fn a_code_stands_where_the_carrier_wants_it_and_overtakes_everything() {
        let [bill, code, warning, _] = samples();
        let filled = code.fill(Language::Hi, None);
        assert_eq!(
            (filled.code.as_deref(), filled.body.len(), filled.name.as_str()),
            (Some("012345"), 0, "sign_in_code_v1")
        );
        let lanes = [&bill, &code, &warning].map(|content| content.class().lane());
        assert_eq!(lanes, [Lane::Transactional, Lane::Otp, Lane::Transactional]);
        assert_eq!(bill.fill(Language::En, None).code, None);
    }

    #[test]
    fn the_bill_reads_well_in_both_languages() {
        for language in [Language::En, Language::Hi] {
            let filled = sample().fill(language, None);
            insta::assert_snapshot!(
                format!("tax_invoice.{}", language.as_str()),
                sample().words(language).render(&filled.body)
            );
        }
    }

    #[test]
    fn values_the_carrier_would_refuse_are_named() {
        for (value, part) in [
            ("", "empty"),
            ("  ", "empty"),
            ("A\nB", "line"),
            ("A\tB", "line"),
            ("A     B", "spaces"),
            (&"x".repeat(201), "longer"),
        ] {
            let mut content = sample();
            let Content::TaxInvoice(invoice) = &mut content else { panic!("the sample is a bill") };
            value.clone_into(&mut invoice.customer_name);
            let (name, mend) = content.check().expect_err(value);
            assert_eq!(name, "customer_name");
            assert!(mend.contains(part), "{mend}");
        }
        assert_eq!(sample().check(), Ok(()));
    }
}
