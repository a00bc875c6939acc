//! How templates stand with the carrier, account by account: what it said when it was asked, and what it told since.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::{Language, Library, Verdict, names_of};
use crate::{
    evidence::{Act, By, Object, words},
    messaging::{Error, MessageClass, accounts, store},
    outbound::{
        Sender,
        carrier::{LookUpError, RemoteTemplate, Submitted, without_numbers},
    },
    people::BusinessId,
    vault::Vault,
};

/// Longest reason of a rejection that is kept, in characters.
const LONGEST_REASON: usize = 500;

/// An account of a business whose templates are managed, and who may.
#[derive(Clone, Debug)]
pub struct Line {
    /// Whose.
    pub business: BusinessId,
    /// The WhatsApp Business Account.
    pub waba_id: String,
    /// One of its numbers, with the app that may ask.
    pub sender: Sender,
}

/// The accounts of a business, or of all, each once.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn list_lines(
    conn: &mut PgConnection,
    vault: &Vault,
    business: Option<BusinessId>,
) -> Result<Vec<Line>, Error> {
    let mut lines: Vec<Line> = Vec::new();
    for account in store::list_accounts(conn, business).await? {
        if lines.iter().any(|line| (line.business, &line.waba_id) == (account.business, &account.waba_id)) {
            continue;
        }
        let sender = accounts::sender_of(conn, vault, account.business, &account.number).await?;
        lines.push(Line { business: account.business, waba_id: account.waba_id, sender });
    }
    Ok(lines)
}

/// A template as the carrier has it, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The account.
    pub waba_id: String,
    /// The name that the carrier knows.
    pub name: String,
    /// The carrier's code.
    pub language: String,
    /// As the carrier writes it.
    pub status: Option<String>,
    /// As the carrier writes it.
    pub category: Option<String>,
    /// The one that it finds right.
    pub correct_category: Option<String>,
    /// As the carrier writes it.
    pub quality: Option<String>,
    /// Why it was rejected.
    pub rejected_reason: Option<String>,
    /// When it was last asked for.
    pub pulled_at: Option<DateTime<Utc>>,
}

/// What is known of a business's templates, by account, name and language.
///
/// # Errors
/// The database fails.
pub async fn list_known(conn: &mut PgConnection, business: BusinessId) -> Result<Vec<Known>, Error> {
    store::list_templates(conn, business).await
}

/// How the templates of a library stand with one account, as far as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose account.
    pub business: BusinessId,
    /// The account.
    pub waba_id: String,
    /// When it was last asked for; `None`: never.
    pub pulled_at: Option<DateTime<Utc>>,
    /// How many may be used.
    pub approved: usize,
    /// Those that may not, with the carrier's word; what a law asks for first.
    pub not_approved: Vec<(String, Language, String)>,
    /// Those of which nothing is known; what a law asks for first.
    pub unknown: Vec<(String, Language)>,
}

/// How the templates stand with every account there is. Looks at what was kept ([`keep_pulled`], [`note_status`]); nobody
/// is asked.
///
/// # Errors
/// The database fails.
pub async fn standings(conn: &mut PgConnection, library: &Library) -> Result<Vec<Standing>, Error> {
    let mut standings: Vec<Standing> = Vec::new();
    for account in store::list_accounts(conn, None).await? {
        if standings.iter().any(|known| (known.business, &known.waba_id) == (account.business, &account.waba_id)) {
            continue;
        }
        let mut known = list_known(conn, account.business).await?;
        known.retain(|row| row.waba_id == account.waba_id);
        standings.push(standing(library, (account.business, account.waba_id), &known));
    }
    Ok(standings)
}

fn standing(library: &Library, (business, waba_id): (BusinessId, String), known: &[Known]) -> Standing {
    let pulled_at = known.iter().filter_map(|row| row.pulled_at).max();
    let mut standing =
        Standing { business, waba_id, pulled_at, approved: 0, not_approved: Vec::new(), unknown: Vec::new() };
    let mut entries: Vec<_> = library.iter().collect();
    entries.sort_by_key(|(_, _, entry)| entry.template.class() != MessageClass::Statutory);
    for (folder, language, entry) in entries {
        let words = &entry.template;
        let row = known.iter().find(|row| row.name == words.name && row.language == words.language);
        // What the carrier takes for marketing and we do not is as good as refused.
        match row.map(|row| (judge(row.status.clone(), row.category.clone(), words.class()), row.status.is_some())) {
            Some((May::Send, true)) => standing.approved += 1,
            Some((May::NotNow { status }, _)) => standing.not_approved.push((folder.to_owned(), language, status)),
            Some((May::Never { category }, _)) => standing.not_approved.push((folder.to_owned(), language, category)),
            Some((May::Send, false)) | None => standing.unknown.push((folder.to_owned(), language)),
        }
    }
    standing
}

/// Keeps what an account has: all of it, in the caller's transaction. What the carrier no longer has is forgotten.
///
/// # Errors
/// The database fails.
pub async fn keep_pulled(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    remote: &[RemoteTemplate],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut kept = Vec::with_capacity(remote.len());
    let mut seen = BTreeSet::new();
    for there in remote {
        // What our columns would not hold is no name that anything could be sent by.
        let language = plain_language(&there.form.language);
        if there.form.name.is_empty() || there.form.name.len() > 512 || !(2..=12).contains(&language.len()) {
            continue;
        }
        // Two spellings of one language are one template to us.
        if seen.insert((&there.form.name, language.clone())) {
            kept.push((there, language));
        }
    }
    let rows: Vec<_> = kept
        .into_iter()
        .map(|(there, language)| store::PulledTemplate {
            name: &there.form.name,
            language,
            id: digits(&there.id),
            status: word(&there.status),
            category: word(&there.form.category),
            correct_category: there.correct_category.as_deref().and_then(word),
            quality: there.quality.as_deref().and_then(word),
            rejected_reason: there.rejected_reason.as_deref().and_then(reason),
        })
        .collect();
    store::upsert_templates(conn, (business, waba_id), &rows, now).await?;
    store::forget_templates(conn, (business, waba_id), now).await
}

/// What the carrier told of a template by itself; parts that it did not mention are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted<'a> {
    /// `message_template_status_update`: the event.
    pub status: Option<&'a str>,
    /// `template_category_update`: the new category.
    pub category: Option<&'a str>,
    /// `template_category_update`: the one that the carrier finds right, where it announces a change.
    pub correct_category: Option<&'a str>,
    /// `message_template_quality_update`: the new score.
    pub quality: Option<&'a str>,
}

/// Notes what a webhook told of a template, unless something newer is known of that part. `name` and `language` are the
/// carrier's; `en-US` is taken for `en_US`. What is no word of the carrier's changes nothing.
///
/// # Errors
/// The database fails.
pub async fn note_status(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    (name, language): (&str, &str),
    noted: &Noted<'_>,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let language = plain_language(language);
    let digits_only = (1..=32).contains(&waba_id.len()) && waba_id.bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || name.len() > 512 || !(2..=12).contains(&language.len()) || !digits_only {
        return Ok(());
    }
    // The carrier's events of a template are its states, but for these, which say that it may be used again.
    let status = noted.status.and_then(word).and_then(|word| match word.as_str() {
        "REINSTATED" | "UNARCHIVED" | "UNPAUSED" => Some("APPROVED".to_owned()),
        // Its quality is being watched: it is where it was.
        "FLAGGED" => None,
        _ => Some(word),
    });
    if status.as_deref() == Some("DELETED") {
        return store::note_template_gone(conn, (business, waba_id), (name, &language), at).await;
    }
    let told = store::ToldTemplate {
        status,
        category: noted.category.and_then(word),
        correct_category: noted.correct_category.and_then(word),
        quality: noted.quality.and_then(word),
    };
    store::note_template(conn, (business, waba_id), (name, &language), &told, at).await
}

/// Whether a template may be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    /// It may, as far as anybody knows.
    Send,
    /// Not now: it stands so with the carrier, which would refuse it.
    NotNow {
        /// `PENDING`, `REJECTED`, `PAUSED` …
        status: String,
    },
    /// Not at all: the carrier takes it for marketing and we do not. Who agreed to bills has not agreed to that.
    Never {
        /// The carrier's category.
        category: String,
    },
}

/// Whether the words of a folder, for a message in `language` (its code as in [`super::Language`]) and of `class`, may go
/// out through an account now. What was never asked for may.
///
/// # Errors
/// The database fails.
pub async fn may_send(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    (folder, language): (&str, &str),
    class: MessageClass,
) -> Result<May, Error> {
    let Some((name, language)) = names_of(folder, language) else { return Ok(May::Send) };
    let row = store::find_template(conn, (business, waba_id), (name, language)).await?;
    Ok(row.map_or(May::Send, |(status, category)| judge(status, category, class)))
}

fn judge(status: Option<String>, category: Option<String>, class: MessageClass) -> May {
    if let Some(category) = category.filter(|category| category == "MARKETING" && class != MessageClass::Marketing) {
        return May::Never { category };
    }
    match status {
        Some(status) if status != "APPROVED" => May::NotNow { status },
        _ => May::Send,
    }
}

/// A submission about to be made: a new template, or other words for one that the carrier has.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Whose account.
    pub business: BusinessId,
    /// The account.
    pub waba_id: &'a str,
    /// The name.
    pub name: &'a str,
    /// The carrier's code.
    pub language: &'a str,
    /// What was found: missing, or differing.
    pub verdict: Verdict,
}

impl Submission<'_> {
    fn object(&self) -> String {
        format!("{}/{}/{}", self.waba_id, self.name, self.language)
    }
}

/// Puts on record that a template is about to be submitted, before anything leaves.
///
/// # Errors
/// The evidence cannot be written: then nothing must be submitted.
pub async fn record_submission(conn: &mut PgConnection, submission: &Submission<'_>, by: &By<'_>) -> Result<(), Error> {
    let id = submission.object();
    let act = Act {
        word: words::TEMPLATE_SUBMITTED,
        business: Some(submission.business),
        object: Object { kind: "whatsapp_template", id: &id },
        details: json!({ "found": submission.verdict }),
    };
    Ok(by.record(conn, act).await?)
}

/// Keeps what the carrier answered to a submission, and puts it on record, in the caller's transaction. `Ok(None)` is an
/// edit that was taken: the template is in review again.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub async fn keep_answer(
    conn: &mut PgConnection,
    submission: &Submission<'_>,
    answer: &Result<Option<Submitted>, LookUpError>,
    by: &By<'_>,
) -> Result<(), Error> {
    let id = submission.object();
    let details = match answer {
        Ok(Some(made)) => json!({ "taken": true, "status": made.status, "category": made.category }),
        Ok(None) => json!({ "taken": true }),
        Err(LookUpError::Refused(refusal)) => {
            json!({ "taken": false, "code": refusal.code, "subcode": refusal.subcode })
        }
        Err(LookUpError::Failed(_)) => json!({ "taken": null }),
    };
    let act = Act {
        word: words::TEMPLATE_ANSWERED,
        business: Some(submission.business),
        object: Object { kind: "whatsapp_template", id: &id },
        details,
    };
    by.record(conn, act).await?;
    let Ok(made) = answer else { return Ok(()) };
    let noted = Noted {
        status: Some(made.as_ref().map_or("PENDING", |made| made.status.as_str())),
        category: made.as_ref().map(|made| made.category.as_str()),
        ..Noted::default()
    };
    let place = (submission.business, submission.waba_id);
    note_status(conn, place, (submission.name, submission.language), &noted, by.now).await
}

/// A word of the carrier, as it may stand in our tables.
fn word(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_uppercase();
    let plain = text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
    (plain && (1..=64).contains(&text.len())).then_some(text)
}

fn digits(text: &str) -> Option<String> {
    let plain = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.to_owned())
}

fn reason(text: &str) -> Option<String> {
    let plain: String = without_numbers(text).chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
    Some(plain.trim().to_owned()).filter(|text| !text.is_empty() && text != "NONE")
}

fn plain_language(text: &str) -> String {
    text.replace('-', "_").chars().filter(|c| c.is_ascii_alphabetic() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_approved_template_goes_out_and_none_that_sells_without_saying_so() {
        let judged = |status: &str, category: &str, class| {
            judge(
                Some(status).filter(|s| !s.is_empty()).map(str::to_owned),
                Some(category).filter(|c| !c.is_empty()).map(str::to_owned),
                class,
            )
        };
        let never = May::Never { category: "MARKETING".to_owned() };
        for (status, category, class, expected) in [
            ("APPROVED", "UTILITY", MessageClass::Transactional, May::Send),
            ("", "", MessageClass::Transactional, May::Send),
            ("PENDING", "UTILITY", MessageClass::Statutory, May::NotNow { status: "PENDING".to_owned() }),
            ("PAUSED", "", MessageClass::Otp, May::NotNow { status: "PAUSED".to_owned() }),
            ("SOMETHING_NEW", "", MessageClass::Otp, May::NotNow { status: "SOMETHING_NEW".to_owned() }),
            ("APPROVED", "MARKETING", MessageClass::Transactional, never.clone()),
            ("PENDING", "MARKETING", MessageClass::Statutory, never.clone()),
            ("", "MARKETING", MessageClass::Otp, never.clone()),
            ("APPROVED", "MARKETING", MessageClass::Marketing, May::Send),
        ] {
            assert_eq!(judged(status, category, class), expected, "{status} {category} {class:?}");
        }
    }

    #[test]
    fn an_account_is_told_of_what_it_could_not_send() {
        let library = Library::load(None).expect("shipped");
        let row = |name: &str, language: &str, status: Option<&str>, category: &str| Known {
            waba_id: "1".to_owned(),
            name: name.to_owned(),
            language: language.to_owned(),
            status: status.map(str::to_owned),
            category: Some(category.to_owned()),
            correct_category: None,
            quality: None,
            rejected_reason: None,
            pulled_at: DateTime::from_timestamp(1_795_500_000, 0),
        };
        let known = [
            row("breach_notice_v1", "en", Some("REJECTED"), "UTILITY"),
            row("tax_invoice_v1", "en", Some("APPROVED"), "UTILITY"),
            row("tax_invoice_v1", "hi", Some("APPROVED"), "MARKETING"),
            row("order_ready_v1", "en", None, "UTILITY"),
            row("somebody_elses", "en", Some("APPROVED"), "UTILITY"),
        ];
        let told = standing(&library, (BusinessId(uuid::Uuid::nil()), "1".to_owned()), &known);
        assert_eq!((told.approved, told.pulled_at), (1, known[0].pulled_at));
        let of = |folder: &str, language, why: &str| (folder.to_owned(), language, why.to_owned());
        let expected = [of("breach_notice", Language::En, "REJECTED"), of("tax_invoice", Language::Hi, "MARKETING")];
        assert_eq!(told.not_approved, expected);
        assert_eq!(told.unknown.len(), library.iter().count() - 3);
        assert_eq!(told.unknown[0], ("breach_notice".to_owned(), Language::Hi), "what a law asks for stands first");
        assert!(
            told.unknown.contains(&("order_ready".to_owned(), Language::En)),
            "a row without a status says nothing"
        );
    }

    #[test]
    fn words_of_the_carrier_are_words() {
        assert_eq!(word("approved").as_deref(), Some("APPROVED"));
        assert_eq!((word(""), word("a b"), word("आ"), word(&"A".repeat(65))), (None, None, None, None));
        assert_eq!(plain_language("en-US"), "en_US");
        assert_eq!(reason("NONE"), None);
        assert_eq!(reason("call 919812345678").as_deref(), Some("call …"));
    }
}
