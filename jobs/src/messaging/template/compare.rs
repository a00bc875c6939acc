//! What differs between our words and the carrier's.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Language, Library, form_of};
use crate::outbound::carrier::{ButtonForm, RemoteTemplate, TemplateForm};

/// A part in which two templates can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `UTILITY` here, `MARKETING` there.
    Category,
    /// Named or numbered parameters.
    Format,
    /// What stands at the head.
    Header,
    /// The words.
    Body,
    /// The small line.
    Footer,
    /// What can be tapped.
    Buttons,
    /// The switches of an authentication template.
    Code,
    /// How long the carrier goes on trying.
    Ttl,
}

impl Part {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Format => "format",
            Self::Header => "header",
            Self::Body => "body",
            Self::Footer => "footer",
            Self::Buttons => "buttons",
            Self::Code => "code",
            Self::Ttl => "ttl",
        }
    }
}

/// How a template of ours stands beside the carrier's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The carrier has none of this name and language.
    Missing,
    /// It has the same.
    Same,
    /// It has other words or parts.
    Differs,
    /// The carrier put it in another category, or will.
    CategoryChanged,
    /// We have none of this name and language.
    OnlyThere,
}

/// One template, here, there, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Our folder; none: the carrier alone has it.
    pub template: Option<String>,
    /// The name that the carrier knows.
    pub name: String,
    /// The carrier's code.
    pub language: String,
    /// How they stand to each other.
    pub verdict: Verdict,
    /// In what they differ.
    pub differs: Vec<Part>,
    /// Where it stands with the carrier.
    pub status: Option<String>,
    /// Our category.
    pub category: Option<String>,
    /// The carrier's, or the one that it finds right.
    pub carrier_category: Option<String>,
    /// Ours, as it would be submitted.
    #[serde(skip)]
    pub ours: Option<TemplateForm>,
    /// The carrier's.
    #[serde(skip)]
    pub theirs: Option<RemoteTemplate>,
}

/// Holds our words against all that an account has; ours in order, then those that the carrier alone has.
pub fn compare(library: &Library, remote: &[RemoteTemplate]) -> Vec<Compared> {
    let key = |form: &TemplateForm| (form.name.clone(), form.language.replace('-', "_"));
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    let ours = library
        .iter()
        .map(|(folder, language, entry): (&str, Language, _)| (folder, language, form_of(&entry.template)));
    for (folder, _, form) in ours {
        let found = remote.iter().find(|there| key(&there.form) == key(&form));
        seen.insert(key(&form));
        let differs = found.map_or_else(Vec::new, |there| parts(&form, &there.form));
        let carrier = found.map(|there| there.correct_category.clone().unwrap_or_else(|| there.form.category.clone()));
        let verdict = match &carrier {
            None => Verdict::Missing,
            Some(category) if *category != form.category => Verdict::CategoryChanged,
            Some(_) if differs.is_empty() => Verdict::Same,
            Some(_) => Verdict::Differs,
        };
        rows.push(Compared {
            template: Some(folder.to_owned()),
            name: form.name.clone(),
            language: form.language.clone(),
            verdict,
            differs,
            status: found.map(|there| there.status.clone()),
            category: Some(form.category.clone()),
            carrier_category: carrier,
            ours: Some(form),
            theirs: found.cloned(),
        });
    }
    let only_there = remote.iter().filter(|there| !seen.contains(&key(&there.form)));
    rows.extend(only_there.map(|there| Compared {
        template: None,
        name: there.form.name.clone(),
        language: there.form.language.clone(),
        verdict: Verdict::OnlyThere,
        differs: Vec::new(),
        status: Some(there.status.clone()),
        category: None,
        carrier_category: Some(there.form.category.clone()),
        ours: None,
        theirs: Some(there.clone()),
    }));
    rows
}

/// In what two forms differ. Examples are for reviewers and do not come back; a time to live that we leave to the carrier
/// is whatever it takes.
fn parts(ours: &TemplateForm, theirs: &TemplateForm) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut note = |differs: bool, part: Part| {
        if differs {
            parts.push(part);
        }
    };
    let same = |one: &str, other: &str| one.trim().replace("\r\n", "\n") == other.trim().replace("\r\n", "\n");
    note(ours.category != theirs.category, Part::Category);
    note(ours.named != theirs.named, Part::Format);
    note(ours.header != theirs.header, Part::Header);
    note(!same(&ours.body, &theirs.body), Part::Body);
    note(ours.footer != theirs.footer, Part::Footer);
    let bare = |form: &TemplateForm| form.buttons.iter().map(without_example).collect::<Vec<_>>();
    note(bare(ours) != bare(theirs), Part::Buttons);
    let code = match (&ours.code, &theirs.code) {
        (Some(ours), Some(theirs)) => {
            ours.minutes != theirs.minutes || theirs.warns.is_some_and(|warns| Some(warns) != ours.warns)
        }
        (ours, theirs) => ours.is_some() != theirs.is_some(),
    };
    note(code, Part::Code);
    note(ours.ttl_secs.is_some() && ours.ttl_secs != theirs.ttl_secs, Part::Ttl);
    parts
}

fn without_example(button: &ButtonForm) -> ButtonForm {
    match button {
        ButtonForm::Url { text, url, .. } => ButtonForm::Url { text: text.clone(), url: url.clone(), example: None },
        ButtonForm::CopyCode { .. } => ButtonForm::CopyCode { example: String::new() },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::carrier::{CodeForm, HeaderForm};

    fn remote(library: &Library) -> Vec<RemoteTemplate> {
        let forms = library.iter().map(|(_, _, entry)| form_of(&entry.template));
        forms
            .enumerate()
            .map(|(place, form)| RemoteTemplate {
                id: place.to_string(),
                status: "APPROVED".to_owned(),
                quality: None,
                correct_category: None,
                rejected_reason: None,
                form,
            })
            .collect()
    }

    #[test]
    fn what_was_submitted_as_it_stands_is_the_same() {
        let library = Library::load(None).expect("shipped");
        let rows = compare(&library, &remote(&library));
        assert!(rows.iter().all(|row| row.verdict == Verdict::Same), "{rows:?}");
        let none = compare(&library, &[]);
        assert!(none.iter().all(|row| row.verdict == Verdict::Missing) && none.len() == rows.len());
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let library = Library::load(None).expect("shipped");
        type Change = fn(&mut TemplateForm);
        let changes: [(Part, Change); 7] = [
            (Part::Category, |form| form.category = "MARKETING".to_owned()),
            (Part::Format, |form| form.named = false),
            (Part::Header, |form| form.header = HeaderForm::Image),
            (Part::Body, |form| form.body.push_str(" More.")),
            (Part::Footer, |form| form.footer = Some("Reply".to_owned())),
            (Part::Buttons, |form| form.buttons.push(ButtonForm::QuickReply { text: "Stop".to_owned() })),
            (Part::Code, |form| form.code = Some(CodeForm { warns: None, minutes: None })),
        ];
        for (part, change) in changes {
            let mut there = remote(&library);
            let invoice = there.iter_mut().find(|one| one.form.name == "tax_invoice_v1").expect("shipped");
            let language = invoice.form.language.clone();
            change(&mut invoice.form);
            let rows = compare(&library, &there);
            let row = rows.iter().find(|row| row.name == "tax_invoice_v1" && row.language == language).expect("a row");
            assert_eq!(row.differs, [part]);
            let expected = if part == Part::Category { Verdict::CategoryChanged } else { Verdict::Differs };
            assert_eq!(row.verdict, expected);
            assert_eq!(rows.iter().filter(|row| row.verdict != Verdict::Same).count(), 1, "{part:?}");
        }
    }

    #[test]
    fn what_does_not_come_back_is_no_difference() {
        let library = Library::load(None).expect("shipped");
        let mut there = remote(&library);
        for one in &mut there {
            one.form.examples.clear();
            one.form.body = format!("{}\r\n", one.form.body.replace('\n', "\r\n"));
            if let Some(code) = &mut one.form.code {
                code.warns = None;
            }
        }
        assert!(compare(&library, &there).iter().all(|row| row.verdict == Verdict::Same));
    }

    #[test]
    fn a_category_that_will_change_is_told_before_it_does() {
        let library = Library::load(None).expect("shipped");
        let mut there = remote(&library);
        there[0].correct_category = Some("MARKETING".to_owned());
        let mut stranger = there[0].clone();
        stranger.form.name = "hello_world".to_owned();
        there.push(stranger);
        let rows = compare(&library, &there);
        assert_eq!(
            (rows[0].verdict, rows[0].carrier_category.as_deref()),
            (Verdict::CategoryChanged, Some("MARKETING"))
        );
        let last = rows.last().expect("a row");
        assert_eq!(
            (last.verdict, last.template.as_deref(), last.name.as_str()),
            (Verdict::OnlyThere, None, "hello_world")
        );
    }
}
