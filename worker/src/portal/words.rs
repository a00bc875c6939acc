//! What the pages say, by language.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

/// Every string of the pages in one language.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Words {
    /// Who read them over.
    reviewed_by: String,
    /// When, as `2026-11-23`.
    reviewed_on: toml::value::Datetime,
    pub(super) title: String,
    start_lead: String,
    start_button: String,
    code_lead: String,
    code_label: String,
    code_button: String,
    code_again: String,
    pub(super) code_wrong: String,
    pub(super) code_void: String,
    pub(super) codes_over: String,
    show_lead: String,
    pub(super) show_changed: String,
    show_until: String,
    show_short: String,
    approve: String,
    deny: String,
    pub(super) approved: String,
    pub(super) denied: String,
    pub(super) refused: String,
    pub(super) gone_title: String,
    pub(super) gone: String,
    pub(super) broken: String,
    pub(super) too_often: String,
    pub(super) leave_title: String,
    leave_lead: String,
    leave_this: String,
    leave_all: String,
    leave_rest: String,
    pub(super) left: String,
    pub(super) left_all: String,
    /// What each kind of decision is about.
    pub(super) kinds: BTreeMap<String, String>,
}

static ENGLISH: LazyLock<Words> =
    LazyLock::new(|| read(include_str!("../../../templates/people/page/strings.en.toml")));
static HINDI: LazyLock<Words> = LazyLock::new(|| read(include_str!("../../../templates/people/page/strings.hi.toml")));

fn read(text: &str) -> Words {
    toml::from_str(text).expect("a test reads every file")
}

/// The words in this language and its code; English where there are none in it.
pub(super) fn of(language: &str) -> (&'static str, &'static Words) {
    if language == "hi" || language.starts_with("hi-") { ("hi", &HINDI) } else { ("en", &ENGLISH) }
}

#[cfg(test)]
mod tests {
    use muneem_jobs::people::approval::Kind;

    use super::*;

    #[test]
    fn every_language_says_everything() {
        for language in ["en", "hi", "hi-IN", "ta"] {
            let (_, words) = of(language);
            assert!(!words.reviewed_by.is_empty() && words.reviewed_on.date.is_some(), "{language}");
            for kind in Kind::ALL {
                assert!(words.kinds.contains_key(kind.as_str()), "{language} {kind}");
            }
            assert_eq!(words.kinds.len(), Kind::ALL.len(), "{language}");
        }
    }
}
