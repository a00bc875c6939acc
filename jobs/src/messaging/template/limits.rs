//! What the carrier takes as a template (Cloud API, message templates: components, character limits, and the error codes
//! 2388040, 2388047, 2388072, 2388073, 2388293 and 2388299), checked before it is asked.

use super::{Button, Category, Header, Kind, Language, Parameter, Template, file::variables};

/// Longest name.
const LONGEST_NAME: usize = 512;
/// Longest body, filled or not.
pub(super) const LONGEST_BODY: usize = 1024;
/// Longest header and longest footer.
pub(super) const LONGEST_LINE: usize = 60;
/// Longest words on a button.
const LONGEST_LABEL: usize = 25;
/// Longest address behind a button.
const LONGEST_URL: usize = 2000;
/// Longest payload of a quick reply.
const LONGEST_PAYLOAD: usize = 256;
/// Most buttons, and most of a kind.
const MOST_BUTTONS: usize = 10;
const MOST_OF_A_KIND: [(&str, usize); 3] = [("url", 2), ("copy_code", 1), ("phone", 1)];
/// Variants of English that the carrier knows besides `en`.
const ENGLISHES: [&str; 3] = ["en_GB", "en_IN", "en_US"];

/// What is wrong, and the word of the file that it is about.
pub(super) type Fault = (&'static str, String);

struct Faults<'a> {
    template: &'a Template,
    found: Vec<Fault>,
}

impl Faults<'_> {
    fn add(&mut self, at: &'static str, what: impl Into<String>) {
        self.found.push((at, what.into()));
    }
}

/// Everything that is wrong with a template that lies in the folder of `language`.
pub(super) fn faults_of(template: &Template, language: Language) -> Vec<Fault> {
    let mut faults = Faults { template, found: Vec::new() };
    faults.head(language);
    faults.parameters();
    faults.life();
    if template.category == Category::Authentication {
        faults.authentication();
        return faults.found;
    }
    if template.code_minutes.is_some() {
        faults.add("code_minutes", "belongs to category AUTHENTICATION alone");
    }
    faults.header();
    faults.body();
    faults.footer();
    faults.buttons();
    faults.found
}

impl Faults<'_> {
    fn head(&mut self, language: Language) {
        let template = self.template;
        let name = &template.name;
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
            self.add("name", "must be lower-case letters, digits and underscores");
        }
        if name.len() > LONGEST_NAME {
            self.add("name", format!("must not be longer than {LONGEST_NAME} characters"));
        }
        match language.carrier_code() {
            None => {
                let named = language.english_name();
                self.add("language", format!("the carrier takes no templates in {named}: write mail words alone"));
            }
            Some(code) => {
                let english = language == Language::En && ENGLISHES.contains(&template.language.as_str());
                if template.language != code && !english {
                    self.add("language", format!("must be \"{code}\", as the folder says"));
                }
            }
        }
        if template.class.is_some() && template.category != Category::Utility {
            self.add("class", "belongs to category UTILITY alone: the other two say it themselves");
        }
        if template.reviewed_by.trim().is_empty() {
            self.add("reviewed_by", "must name who read the words");
        }
    }

    fn parameters(&mut self) {
        let template = self.template;
        let mut used: Vec<&str> = variables(&template.body);
        if let Header::Text(text) = &template.header {
            used.extend(variables(text));
        }
        used.extend(template.buttons.iter().filter_map(Button::parameter));
        for (place, parameter) in template.parameters.iter().enumerate() {
            let Parameter { name, kind, example, .. } = parameter;
            let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            if !letters || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
                self.add(
                    "parameters",
                    format!("`{name}` must be lower-case letters, digits and underscores, a letter first"),
                );
            }
            if template.parameters[..place].iter().any(|before| before.name == *name) {
                self.add("parameters", format!("`{name}` stands twice"));
            }
            if !used.contains(&name.as_str()) {
                self.add("parameters", format!("`{name}` stands nowhere in the words: take it out"));
            }
            if let Err(mend) = kind.check(example, parameter.longest()) {
                self.add("parameters", format!("the example of `{name}` {mend}"));
            }
            if parameter.longest.is_some_and(|longest| longest == 0 || longest > LONGEST_BODY) {
                self.add("parameters", format!("`longest` of `{name}` must be 1 to {LONGEST_BODY}"));
            }
        }
        for name in used {
            if template.parameter(name).is_none() {
                self.add("parameters", format!("`{name}` stands in the words and is not declared"));
            }
        }
    }

    /// `message_send_ttl_seconds` by category.
    fn life(&mut self) {
        let range = match self.template.category {
            Category::Authentication => 30..=900,
            Category::Utility => 30..=43_200,
            Category::Marketing => 43_200..=2_592_000,
        };
        if self.template.ttl_secs.is_some_and(|secs| !range.contains(&secs)) {
            let (first, last) = (range.start(), range.end());
            self.add("ttl_secs", format!("must be {first} to {last} seconds for this category"));
        }
    }

    /// The words around a code are the carrier's.
    fn authentication(&mut self) {
        let template = self.template;
        if !matches!(template.parameters.as_slice(), [only] if only.kind == Kind::Code) {
            self.add("parameters", "an authentication template has one parameter, of type code");
        }
        if template.header != Header::None || template.footer.is_some() || !template.buttons.is_empty() {
            self.add("category", "an authentication template has no header, footer or buttons of its own");
        }
        if template.code_minutes.is_some_and(|minutes| !(1..=90).contains(&minutes)) {
            self.add("code_minutes", "must be 1 to 90");
        }
        if variables(&template.body).len() != 1 {
            self.add("body", "shows the carrier's words, with the code once");
        }
    }

    fn header(&mut self) {
        let Header::Text(text) = &self.template.header else { return };
        let (text, names) = (text.trim(), variables(text));
        if text.is_empty() {
            self.add("header", "must not be empty");
        }
        if text.chars().count() > LONGEST_LINE {
            self.add("header", format!("must not be longer than {LONGEST_LINE} characters"));
        }
        if text.contains(['\n', '*', '~', '`']) || text.chars().any(is_emoji) {
            self.add("header", "must be one line without emojis, asterisks or other formatting");
        }
        if names.len() > 1 {
            self.add("header", "may hold one parameter only");
        }
        let braces = text.matches("{{").count();
        if braces != text.matches("}}").count() || braces != names.len() {
            self.add("header", "has a parameter that is not closed");
        }
    }

    fn body(&mut self) {
        let (text, names) = (self.template.body.trim(), variables(&self.template.body));
        if text.is_empty() {
            self.add("body", "must not be empty");
        }
        if text.chars().count() > LONGEST_BODY {
            self.add("body", format!("must not be longer than {LONGEST_BODY} characters"));
        }
        if text.contains("\n\n\n") || text.contains('\t') || text.contains("     ") {
            self.add("body", "must not hold tabs, more than two line breaks or more than four spaces in a row");
        }
        let braces = text.matches("{{").count();
        if braces != text.matches("}}").count() || braces != names.len() {
            self.add("body", "has a parameter that is not closed");
        }
        // Punctuation alone before or behind it is nothing to the carrier.
        let mark =
            |character: char| character == '।' || (character.is_ascii_punctuation() && !"{}".contains(character));
        let bare = text.trim_matches(mark);
        if bare.starts_with("{{") || bare.ends_with("}}") {
            self.add("body", "must neither begin nor end with a parameter");
        }
        if text.split_whitespace().collect::<String>().contains("}}{{") {
            self.add("body", "has two parameters without a word between them");
        }
        for (place, name) in names.iter().enumerate() {
            if names[..place].contains(name) {
                self.add("body", format!("holds `{name}` twice: give the second a name of its own"));
            }
        }
        let words = text.split_whitespace().filter(|word| !word.contains("{{")).count();
        // The carrier publishes no figure; this is on the safe side of what it has been seen to take.
        if !names.is_empty() && words <= 2 * names.len() {
            self.add("body", "has too few words for its parameters: more than two for each");
        }
        let filled = self.template.render(&pairs(self.template)).chars().count();
        if filled > LONGEST_BODY {
            self.add("body", format!("is longer than {LONGEST_BODY} characters with its examples"));
        }
    }

    fn footer(&mut self) {
        let Some(footer) = &self.template.footer else { return };
        if footer.trim().is_empty() || footer.contains(['\n', '\t']) || footer.contains("{{") {
            self.add("footer", "must be one line without parameters");
        }
        if footer.chars().count() > LONGEST_LINE {
            self.add("footer", format!("must not be longer than {LONGEST_LINE} characters"));
        }
    }

    fn buttons(&mut self) {
        let buttons = &self.template.buttons;
        if buttons.len() > MOST_BUTTONS {
            self.add("buttons", format!("there may be {MOST_BUTTONS} at most"));
        }
        for (kind, most) in MOST_OF_A_KIND {
            if buttons.iter().filter(|button| button.kind() == kind).count() > most {
                self.add("buttons", format!("there may be {most} of type {kind} at most"));
            }
        }
        let replies: Vec<_> = buttons.iter().map(|button| button.kind() == "quick_reply").collect();
        if replies.windows(2).filter(|pair| pair[0] != pair[1]).count() > 1 {
            self.add("buttons", "quick replies must stand together, before all others or behind them");
        }
        for button in buttons {
            if let Some(text) = button.text() {
                let plain = !text.contains(['\n', '*']) && !text.contains("{{") && !text.chars().any(is_emoji);
                if text.trim().is_empty() || !plain {
                    self.add("buttons", "the text must be one line without parameters, emojis or asterisks");
                }
                if text.chars().count() > LONGEST_LABEL {
                    self.add("buttons", format!("`{text}` must not be longer than {LONGEST_LABEL} characters"));
                }
            }
            match button {
                Button::QuickReply { payload, .. } => {
                    let length = payload.chars().count();
                    if length == 0 || length > LONGEST_PAYLOAD || payload.chars().any(char::is_control) {
                        self.add(
                            "buttons",
                            format!("a payload must have 1 to {LONGEST_PAYLOAD} characters, on one line"),
                        );
                    }
                }
                Button::Url { url, .. } => self.url(url),
                Button::CopyCode { parameter } => {
                    if self.template.parameter(parameter).is_some_and(|one| one.kind != Kind::Code) {
                        self.add("buttons", format!("`{parameter}` must be of type code to be copied"));
                    }
                }
                Button::Phone { phone, .. } => {
                    let digits = phone.strip_prefix('+').unwrap_or_default();
                    let good = (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
                    if !good {
                        self.add("buttons", "a phone must be written as +919876500142");
                    }
                }
            }
        }
    }

    fn url(&mut self, url: &str) {
        let names = variables(url);
        let fixed = match names.as_slice() {
            [] => url,
            [name] => match url.strip_suffix(&format!("{{{{{name}}}}}")) {
                Some(fixed) => {
                    if self
                        .template
                        .parameter(name)
                        .is_some_and(|one| !matches!(one.kind, Kind::Path | Kind::Reference | Kind::Code))
                    {
                        self.add(
                            "buttons",
                            format!("`{name}` must be of type path, reference or code to end an address"),
                        );
                    }
                    fixed
                }
                None => return self.add("buttons", "the parameter of an address must stand at its end"),
            },
            _ => return self.add("buttons", "an address may hold one parameter only"),
        };
        // Where a parameter ends the address, its host must be fixed.
        let whole = fixed.strip_prefix("https://").is_some_and(|rest| names.is_empty() || rest.contains('/'));
        if !whole || Kind::Link.check(fixed, LONGEST_URL).is_err() {
            self.add("buttons", "an address must be whole and begin with https://");
        }
    }
}

/// The examples as values.
pub(super) fn pairs(template: &Template) -> Vec<(String, String)> {
    template.parameters.iter().map(|one| (one.name.clone(), one.example.clone())).collect()
}

fn is_emoji(character: char) -> bool {
    matches!(u32::from(character), 0x1_F000..=0x1_FAFF | 0x2600..=0x27BF | 0x2B50 | 0x2B55 | 0xFE0F)
}
