//! What the messages with a link or its code say.

use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use handlebars::Handlebars;
use serde::Serialize;

use super::Error;

macro_rules! words {
    ($message:literal, $language:literal) => {
        Words {
            subject: include_str!(concat!(
                "../../../../templates/people/",
                $message,
                "/",
                $language,
                "/subject.txt.hbs"
            )),
            body: include_str!(concat!("../../../../templates/people/", $message, "/", $language, "/body.txt.hbs")),
        }
    };
}

struct Words {
    subject: &'static str,
    body: &'static str,
}

/// The invitation of somebody outside to one decision.
#[derive(Serialize)]
pub(super) struct ApprovalLink<'a> {
    /// Legal name.
    pub(super) business: &'a str,
    pub(super) url: &'a str,
    /// Last instant of the link, as people read it in India.
    pub(super) until: String,
}

/// The code for a page that somebody has opened.
#[derive(Serialize)]
pub(super) struct LinkCode<'a> {
    /// Legal name.
    pub(super) business: &'a str,
    pub(super) code: &'a str,
}

/// Subject and body.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) subject: String,
    pub(super) body: String,
}

impl ApprovalLink<'_> {
    /// In the language of the link; English where there are no words in it.
    pub(super) fn say(&self, language: &str) -> Result<Said, Error> {
        let words = if is_hindi(language) { words!("approval_link", "hi") } else { words!("approval_link", "en") };
        render(&words, self)
    }
}

impl LinkCode<'_> {
    /// As [`ApprovalLink::say`].
    pub(super) fn say(&self, language: &str) -> Result<Said, Error> {
        let words = if is_hindi(language) { words!("link_code", "hi") } else { words!("link_code", "en") };
        render(&words, self)
    }
}

fn is_hindi(language: &str) -> bool {
    language == "hi" || language.starts_with("hi-")
}

/// `26-11-2026 18:30 IST`, in figures that every language reads.
pub fn instant(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%d-%m-%Y %H:%M IST").to_string()
}

fn render(words: &Words, context: &impl Serialize) -> Result<Said, Error> {
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    // Plain text: a name is written as it is.
    engine.register_escape_fn(handlebars::no_escape);
    let told = |text: &str| engine.render_template(text, context).map_err(|error| Error::Words(Box::new(error)));
    Ok(Said { subject: told(words.subject)?.trim().to_owned(), body: told(words.body)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_reads_well_in_every_language() {
        let until = instant("2026-11-26T13:00:00Z".parse().expect("an instant"));
        let mut told = String::new();
        for language in ["en", "hi", "ta"] {
            let link = ApprovalLink {
                business: "Sharma & Sons",
                url: "https://muneem.example.in/r/0a1b",
                until: until.clone(),
            };
            let code = LinkCode { business: "Sharma & Sons", code: "042042" };
            for said in [link.say(language).expect("words"), code.say(language).expect("words")] {
                told += &format!("[{language}] {}\n\n{}\n", said.subject, said.body);
            }
        }
        insta::assert_snapshot!("messages", told);
    }
}
