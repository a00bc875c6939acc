//! Writing to staff about their own access: by WhatsApp from the business's number, or by mail.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Asia::Kolkata;
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{
    Content, Error, Language, MailId, NewMessage, Policy, SendMail, SignInCode, SignInWarning, mail_store, store,
    template,
};
use crate::{
    outbound::{Chance, Clock, Email, Phone},
    people::{
        BusinessId, Contact, StaffId,
        signin::{Channel, SentCode, Warning, desk_of},
    },
    queue::{self, Lane, NewJob},
    vault::{Cell, Class, Vault},
};

/// How long a warning is worth sending.
const WARNING_LIFE: TimeDelta = TimeDelta::hours(24);
/// Letters of a name in a subject or a template.
const LONGEST_NAME: usize = 60;

/// What whoever writes needs.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Seals what is written until it was sent.
    pub vault: &'a Vault,
    /// The one source of "now".
    pub clock: &'a dyn Clock,
    /// For ids.
    pub chance: &'a dyn Chance,
    /// Whether there is a mail server.
    pub mails: bool,
}

/// How somebody can be reached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By WhatsApp, from the number of this business.
    WhatsApp(BusinessId, Phone),
    /// By mail; the job runs under this business.
    Mail(BusinessId, Email),
}

impl Way {
    /// What a code sent this way proves.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::WhatsApp(..) => Channel::Phone,
            Self::Mail(..) => Channel::Email,
        }
    }
}

/// Every way to reach somebody, the `wanted` one first.
///
/// # Errors
/// The database fails.
pub async fn way_to(
    conn: &mut PgConnection,
    contact: &Contact,
    mails: bool,
    wanted: Channel,
) -> Result<Vec<Way>, Error> {
    let mut ways = Vec::new();
    if let (Some(business), Some(phone)) = (contact.business_id, &contact.phone)
        && store::find_number(conn, business).await?.is_some()
    {
        ways.push(Way::WhatsApp(business, phone.clone()));
    }
    if let Some(email) = contact.email.as_ref().filter(|_| mails)
        && let Some(desk) = desk_of(conn, contact.business_id).await.map_err(of_people)?
    {
        ways.push(Way::Mail(desk, email.clone()));
    }
    ways.sort_by_key(|way| way.channel() != wanted);
    Ok(ways)
}

/// Sends a code, in the caller's transaction; by mail as a job of the lane for one-time passwords.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn send_code(
    tx: &mut PgConnection,
    desk: &Desk<'_>,
    (staff_id, contact): (StaffId, &Contact),
    way: &Way,
    code: &SentCode,
) -> Result<(), Error> {
    let digits = code.code.expose_secret();
    match way {
        Way::WhatsApp(business, phone) => {
            let content = Content::SignInCode(SignInCode { code: digits.to_owned() });
            let message = said(*business, phone, content, contact, "people.sign_in_code", code.expires_at);
            super::request(tx, desk.vault, desk.clock, desk.chance, &message).await?;
        }
        Way::Mail(business, _) => {
            let params = [
                ("name", first_line(&contact.name)),
                ("business_name", house_of(contact)),
                ("code", digits.to_owned()),
            ];
            let mail = NewMail { staff_id, business: *business, template: "sign_in_code", lane: Lane::Otp };
            plan_mail(tx, desk, &mail, &params, code.expires_at).await?;
        }
    }
    Ok(())
}

/// Warns somebody of what happened to her access, one way.
pub(super) async fn send_warning(
    tx: &mut PgConnection,
    desk: &Desk<'_>,
    (staff_id, contact): (StaffId, &Contact),
    way: &Way,
    (warning, at): (Warning, DateTime<Utc>),
) -> Result<(), Error> {
    let expires_at = desk.clock.now() + WARNING_LIFE;
    let words = SignInWarning {
        name: first_line(&contact.name),
        business_name: house_of(contact),
        event: event(warning, language_of(contact)),
        at: at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M").to_string(),
    };
    match way {
        Way::WhatsApp(business, phone) => {
            let content = Content::SignInWarning(words);
            let message = said(*business, phone, content, contact, "people.sign_in_warning", expires_at);
            super::request(tx, desk.vault, desk.clock, desk.chance, &message).await?;
        }
        Way::Mail(business, _) => {
            let SignInWarning { name, business_name, event, at } = words;
            let params = [("name", name), ("business_name", business_name), ("event", event), ("at", at)];
            let mail =
                NewMail { staff_id, business: *business, template: "sign_in_warning", lane: Lane::Transactional };
            plan_mail(tx, desk, &mail, &params, expires_at).await?;
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a message has that many parts")]
fn said(
    business: BusinessId,
    to: &Phone,
    content: Content,
    contact: &Contact,
    purpose: &'static str,
    expires_at: DateTime<Utc>,
) -> NewMessage {
    // A code or a warning that may have arrived is not worth a second one.
    let why = (Policy::AtMostOnce, purpose);
    NewMessage {
        expires_at: Some(expires_at),
        ..NewMessage::new(business, to.clone(), (content, language_of(contact)), why)
    }
}

/// A mail about to be planned.
pub(super) struct NewMail {
    pub(super) staff_id: StaffId,
    pub(super) business: BusinessId,
    pub(super) template: &'static str,
    pub(super) lane: Lane,
}

async fn plan_mail(
    tx: &mut PgConnection,
    desk: &Desk<'_>,
    mail: &NewMail,
    params: &[(&str, String)],
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    let now = desk.clock.now();
    let mail_id = MailId(desk.chance.uuid_v7(now));
    let params: BTreeMap<_, _> = params.iter().map(|(name, value)| (*name, value)).collect();
    let plain = Zeroizing::new(serde_json::to_vec(&params).expect("texts by name are JSON"));
    let row = mail_id.to_string();
    let sealed = desk.vault.seal(tx, Class::MessageBody, &params_cell(mail.business, &row), &plain).await?;
    mail_store::insert_mail(tx, (mail_id, mail), &sealed, expires_at, now).await?;
    let job = NewJob::of(mail.business, &SendMail { mail_id })?.key(mail_id.to_string()).lane(mail.lane);
    queue::enqueue(tx, &job).await?;
    Ok(())
}

/// Where what a mail is filled with stands.
pub(super) fn params_cell(business_id: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id, table: "muneem.messaging_mails", column: "params_sealed", row }
}

pub(super) fn language_of(contact: &Contact) -> Language {
    Language::of(&contact.language)
}

/// Where her access is to.
pub(super) fn house_of(contact: &Contact) -> String {
    contact.business_name.as_deref().map_or_else(|| "muneem".to_owned(), first_line)
}

/// What stands in a subject or a template of the carrier is one line and not endless.
pub(super) fn first_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|character| !character.is_control()).take(LONGEST_NAME).collect()
}

fn event(warning: Warning, language: Language) -> String {
    let events = |language| template::events(language).get(warning.as_str()).cloned();
    events(language).or_else(|| events(Language::En)).expect("every warning has English words: a test reads them all")
}

fn of_people(error: crate::people::signin::Error) -> Error {
    Error::Staff(Box::new(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_has_its_words_in_both_languages() {
        for language in [Language::En, Language::Hi] {
            let events = template::events(language);
            for warning in Warning::ALL {
                let words = events.get(warning.as_str()).unwrap_or_else(|| panic!("{warning:?} in {language:?}"));
                let fits = !words.ends_with(['.', '।']) && !words.contains('\n') && words.chars().count() <= 100;
                assert!(fits, "{words}");
            }
            assert_eq!(events.len(), Warning::ALL.len(), "{language:?}");
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_line() {
        assert_eq!(first_line(" Asha\r\nBcc: x\u{7} Verma "), "Asha Bcc: x Verma");
        assert_eq!(first_line(&"आ".repeat(200)).chars().count(), LONGEST_NAME);
    }
}
