//! The words of a mail: `templates/messaging/<name>/<language>/{subject.txt,body.txt,body.html}.hbs`, inside one layout.
//!
//! Rendered strictly: a parameter that the words name and nobody gave is an error, before anything leaves. In HTML every
//! value is escaped; in a subject it is one line.

use std::sync::LazyLock;

use handlebars::{Handlebars, RenderErrorReason};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{messaging::Language, outbound::breaks_a_header};

/// Longest subject that is written, in characters; what is longer ends in an ellipsis.
const LONGEST_SUBJECT: usize = 180;

#[derive(rust_embed::RustEmbed)]
#[folder = "../templates/messaging"]
struct Files;

/// Words that could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// No folder of that name speaks English.
    #[error("there are no mail words `{0}`")]
    Unknown(String),
    /// The words name what nobody gave.
    #[error("mail words `{words}` want the parameter `{parameter}`")]
    Missing {
        /// Their folder.
        words: String,
        /// The parameter.
        parameter: String,
    },
    /// A link that leads elsewhere than to a page.
    #[error("mail words `{words}`: the parameter `{parameter}` is no https:// address")]
    BadLink {
        /// Their folder.
        words: String,
        /// The parameter.
        parameter: String,
    },
    /// The parameters are no object, or the templates are at fault.
    #[error("mail words `{0}` do not render")]
    Broken(String),
}

/// A filled mail.
pub(super) struct Filled {
    pub(super) language: Language,
    pub(super) subject: String,
    pub(super) text: String,
    /// The whole page; `None`: these words have no HTML.
    pub(super) html: Option<String>,
}

/// What stands around the words.
#[derive(Serialize)]
pub(super) struct Frame<'a> {
    /// Whom the mail is from.
    pub(super) sender: &'a str,
    /// Where answers go.
    pub(super) reply_to: Option<String>,
    /// The page to leave by.
    pub(super) unsubscribe: Option<&'a str>,
}

struct Books {
    text: Handlebars<'static>,
    html: Handlebars<'static>,
}

static BOOKS: LazyLock<Result<Books, String>> = LazyLock::new(|| {
    let mut books = Books { text: Handlebars::new(), html: Handlebars::new() };
    books.text.register_escape_fn(handlebars::no_escape);
    books.text.set_strict_mode(true);
    books.html.set_strict_mode(true);
    for path in Files::iter().filter(|path| path.ends_with(".hbs")) {
        let file = Files::get(&path).ok_or_else(|| path.to_string())?;
        let words = std::str::from_utf8(&file.data).map_err(|error| format!("{path}: {error}"))?;
        let book = if path.ends_with(".html.hbs") { &mut books.html } else { &mut books.text };
        book.register_template_string(&path, words).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(books)
});

/// Whether these words can be filled with this, for somebody of `language`.
///
/// # Errors
/// [`WordsError`]: what [`fill`] would say.
pub(in crate::messaging) fn check(name: &str, language: Language, params: &impl Serialize) -> Result<(), WordsError> {
    fill(name, language, params, &Frame { sender: "", reply_to: None, unsubscribe: None }).map(|_| ())
}

/// Fills the words `name` in `language`, or in English where they do not speak it.
///
/// # Errors
/// [`WordsError`]: nothing may be sent.
pub(super) fn fill(
    name: &str,
    language: Language,
    params: &impl Serialize,
    frame: &Frame<'_>,
) -> Result<Filled, WordsError> {
    let books = BOOKS.as_ref().map_err(|why| WordsError::Broken(why.clone()))?;
    let speaks = |language: Language| books.text.has_template(&path(name, language, "subject.txt"));
    let language = [language, Language::En].into_iter().find(|language| speaks(*language));
    let language = language.ok_or_else(|| WordsError::Unknown(name.to_owned()))?;
    let params = match serde_json::to_value(params) {
        Ok(Value::Object(params)) => params,
        _ => return Err(WordsError::Broken(name.to_owned())),
    };
    check_links(name, &params)?;
    let in_text = cleaned(&params, false);
    let one_line = |character: char| if character.is_whitespace() { ' ' } else { character };
    let page = Page { name, language };
    let subject = page.render(&books.text, &path(name, language, "subject.txt"), &cleaned(&params, true))?;
    let subject = shortened(subject.trim().chars().map(one_line).collect());
    let frame_text = json!(frame);
    let body = page.render(&books.text, &path(name, language, "body.txt"), &in_text)?;
    let footer = page.render(&books.text, &path("layout", language, "footer.txt"), &frame_text)?;
    // Two dashes and a space: readers know what follows for a signature (RFC 3676 section 4.3).
    let text = format!("{}\n\n-- \n{}\n", body.trim(), footer.trim());
    let at = path(name, language, "body.html");
    let html = if books.html.has_template(&at) {
        let body = page.render(&books.html, &at, &in_text)?;
        let footer = page.render(&books.html, &path("layout", language, "footer.html"), &frame_text)?;
        let whole = json!({ "language": language.as_str(), "subject": subject, "sender": frame.sender,
            "body": body.trim(), "footer": footer.trim() });
        Some(page.render(&books.html, "layout.html.hbs", &whole)?)
    } else {
        None
    };
    Ok(Filled { language, subject, text, html })
}

fn path(name: &str, language: Language, part: &str) -> String {
    format!("{name}/{}/{part}.hbs", language.as_str())
}

struct Page<'a> {
    name: &'a str,
    language: Language,
}

impl Page<'_> {
    fn render(&self, book: &Handlebars<'_>, path: &str, with: &Value) -> Result<String, WordsError> {
        book.render(path, with).map_err(|error| match error.reason() {
            RenderErrorReason::MissingVariable(Some(parameter)) => {
                WordsError::Missing { words: self.name.to_owned(), parameter: parameter.clone() }
            }
            _ => WordsError::Broken(format!("{} ({})", self.name, self.language.as_str())),
        })
    }
}

/// What is called a link leads to a page: no script, no other program.
fn check_links(name: &str, params: &Map<String, Value>) -> Result<(), WordsError> {
    for (parameter, value) in params.iter().filter(|(name, _)| *name == "url" || name.ends_with("_url")) {
        let here = ["http://localhost:", "http://127.0.0.1:", "http://[::1]:"];
        let leads = value.as_str().is_some_and(|url| {
            url.bytes().all(|byte| byte.is_ascii_graphic())
                && (url.starts_with("https://") || here.iter().any(|here| url.starts_with(here)))
        });
        if !leads {
            return Err(WordsError::BadLink { words: name.to_owned(), parameter: parameter.clone() });
        }
    }
    Ok(())
}

/// The values without what breaks a line or turns the direction of writing; line breaks stay where there may be several.
fn cleaned(params: &Map<String, Value>, one_line: bool) -> Value {
    fn clean(value: &Value, one_line: bool) -> Value {
        match value {
            Value::String(text) => {
                let text = text.replace("\r\n", "\n").replace('\r', "\n");
                let keep = |character: char| match character {
                    '\n' if !one_line => Some('\n'),
                    '\t' | '\n' => Some(' '),
                    other if breaks_a_header(other) => None,
                    other => Some(other),
                };
                Value::String(text.chars().filter_map(keep).collect())
            }
            Value::Array(values) => values.iter().map(|value| clean(value, one_line)).collect(),
            Value::Object(params) => cleaned(params, one_line),
            other => other.clone(),
        }
    }
    Value::Object(params.iter().map(|(name, value)| (name.clone(), clean(value, one_line))).collect())
}

fn shortened(subject: String) -> String {
    if subject.chars().count() <= LONGEST_SUBJECT {
        return subject;
    }
    let mut short: String = subject.chars().take(LONGEST_SUBJECT - 1).collect();
    short.push('…');
    short
}

/// Every set of words with its languages, for the tests.
#[cfg(test)]
pub(super) fn all() -> std::collections::BTreeMap<String, Vec<Language>> {
    let mut all = std::collections::BTreeMap::<String, Vec<Language>>::new();
    for path in Files::iter() {
        let parts: Vec<_> = path.split('/').collect();
        if let [name, language, "subject.txt.hbs"] = parts.as_slice() {
            all.entry((*name).to_owned()).or_default().push(language.parse().expect("a language of ours"));
        }
    }
    all
}
