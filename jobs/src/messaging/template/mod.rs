//! The approved templates: what they say, what they take, and how they stand with the carrier.
//!
//! Words lie in `templates/messaging/<template>/<language>/whatsapp.toml`, and the installation's own in
//! `messaging.templates_dir`, folder by folder in the same way. They are read once, at the start, and held against what
//! the carrier takes: a fault names its file and line. [`Content`] is a message's choice of words with its values, held
//! against what the file declares before anything is written.
//!
//! What the carrier has of them is [`compare`]d and kept in `muneem.messaging_templates`, account by account:
//! [`may_send`] says from that whether a template may be used now.

mod compare;
mod content;
mod file;
mod form;
mod kind;
mod language;
mod library;
mod limits;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compare::{Compared, Part, Verdict, compare};
pub use content::{ApprovalLink, BadParameter, Choice, Content, Free, Named, SignInCode, SignInWarning, TaxInvoice};
pub use file::{Button, Category, Duty, Header, Parameter, Template};
pub use form::{form_of, sample_of};
pub use kind::{Kind, Mend};
pub use language::Language;
#[cfg(test)]
use library::mail_part;
pub use library::{Entry, InUse, Library, Problem, Problems, install, library};
pub use state::{
    Known, Line, May, Noted, Standing, Submission, keep_answer, keep_pulled, list_known, list_lines, may_send,
    note_status, record_submission, standings,
};

/// Puts values in the place of `{{name}}`. What is inside a value is never taken for a parameter.
pub(super) fn fill(body: &str, values: &[(String, String)]) -> String {
    let mut text = String::with_capacity(body.len() + 64);
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            rest = "";
            break;
        };
        if let Some((_, value)) = values.iter().find(|(known, _)| known == name) {
            text.push_str(value);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The name and language under which the carrier knows the words of a folder.
pub(super) fn names_of(folder: &str, language: &str) -> Option<(&'static str, &'static str)> {
    let words = library().find(folder, Language::of(language))?;
    Some((words.name.as_str(), words.language.as_str()))
}

/// One sentence for each thing that staff is warned of; none where nobody wrote them in this language.
pub(super) fn events(language: Language) -> &'static BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    library().events(language).unwrap_or(&NONE)
}
