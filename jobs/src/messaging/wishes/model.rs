use chrono::{DateTime, Utc};

use super::Error;
use crate::evidence::Actor;

crate::id_type! {
    /// One address at which a business reaches somebody.
    ContactId
}

crate::id_type! {
    /// One thing that somebody said about one purpose.
    ConsentId
}

macro_rules! closed {
    ($(#[doc = $doc:literal])+ $name:ident $field:literal $($(#[doc = $each:literal])+ $variant:ident $text:literal,)+) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
            schemars::JsonSchema, sqlx::Type,
        )]
        #[serde(rename_all = "snake_case")]
        #[sqlx(type_name = "text", rename_all = "snake_case")]
        pub enum $name {
            $($(#[doc = $each])+ $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it stands in tables, in HTTP and in commands.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or(Error::BadField {
                    field: $field,
                    problem: "is none that is known",
                    mend: concat!("take one of:" $(, " ", $text)+),
                })
            }
        }
    };
}

closed! {
    /// The way a message goes.
    Channel "channel"
    /// To a number or a user id.
    Whatsapp "whatsapp",
    /// To a mail address.
    Mail "mail",
}

closed! {
    /// What kind of message it is, which decides what may stop it ([`super::TABLE`]).
    Class "class"
    /// What sells: needs consent for its purpose.
    Marketing "marketing",
    /// Belongs to something she did: a bill, a delivery.
    Transactional "transactional",
    /// A law demands it: a breach notice.
    Statutory "statutory",
    /// A code that she asks for herself, now.
    Otp "otp",
}

closed! {
    /// Where consent for one purpose stands.
    ConsentState "state"
    /// She agreed.
    Given "given",
    /// She took it back, or never agreed and said so.
    Withdrawn "withdrawn",
    /// Given under a number that she has left: it is asked for anew.
    AskAgain "ask_again",
}

closed! {
    /// How it came to be known.
    Source "source"
    /// A form on a page, filled in by her.
    WebForm "web_form",
    /// An app, by her.
    App "app",
    /// Signed paper.
    Paper "paper",
    /// Said in the shop, written down by staff.
    InStore "in_store",
    /// Said on the telephone, written down by staff.
    PhoneCall "phone_call",
    /// A word on WhatsApp.
    WhatsappKeyword "whatsapp_keyword",
    /// A button on WhatsApp.
    WhatsappButton "whatsapp_button",
    /// Her settings on WhatsApp.
    UserPreferences "user_preferences",
    /// The link of a mail that unsubscribes (RFC 8058).
    MailOneClick "mail_one_click",
    /// A list.
    Import "import",
    /// Her new number.
    NumberChange "number_change",
}

impl Source {
    /// Whether the person acted herself, so that it can undo what she said before.
    pub const fn is_her_own(self) -> bool {
        matches!(
            self,
            Self::WebForm
                | Self::App
                | Self::Paper
                | Self::WhatsappKeyword
                | Self::WhatsappButton
                | Self::UserPreferences
        )
    }

    /// Whether whoever calls the API may say so: the rest is written by what it names alone.
    pub const fn is_for_callers(self) -> bool {
        matches!(self, Self::WebForm | Self::App | Self::Paper | Self::InStore | Self::PhoneCall)
    }
}

closed! {
    /// How far a no goes. An erasure is the widest and has a table of its own.
    Scope "scope"
    /// Everything that is not owed by law.
    All "all",
    /// What sells.
    Marketing "marketing",
    /// One channel on which she cannot be reached.
    Channel "channel",
    /// Nobody knows whether the number is still hers.
    Identity "identity",
}

closed! {
    /// Whose no it is, and so who can end it.
    Cause "cause"
    /// The person said it: only she takes it back.
    Person "person",
    /// Her settings at the carrier: only they take it back.
    Preference "preference",
    /// What the carrier reported: a sign of life or the business ends it.
    Carrier "carrier",
    /// The business set it.
    Operator "operator",
}

/// One reason not to write, as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct NewSuppression<'a> {
    /// How far it goes.
    pub scope: Scope,
    /// Where it was said or holds; none: everywhere. [`Scope::Channel`] names one.
    pub channel: Option<Channel>,
    /// Whose it is.
    pub cause: Cause,
    /// Why, in one word: `asked_in_shop`.
    pub reason: &'a str,
    /// Since when.
    pub at: DateTime<Utc>,
    /// Until when; none: until it is lifted.
    pub until: Option<DateTime<Utc>>,
}

/// One consent or its end, as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct NewConsent<'a> {
    /// A business's own word: `marketing.offers`.
    pub purpose: &'a str,
    /// What she said.
    pub state: ConsentState,
    /// How it came to be known.
    pub source: Source,
    /// Which words she agreed to; needed for what is given.
    pub wording_version: Option<&'a str>,
    /// In which language (BCP 47); needed for what is given.
    pub language: Option<&'a str>,
    /// What proves it, or where that lies. It is sealed.
    pub proof: Option<&'a str>,
    /// When she said it.
    pub at: DateTime<Utc>,
}

/// One event of somebody's history.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Consent {
    /// Its id.
    pub consent_id: ConsentId,
    /// For what.
    pub purpose: String,
    /// What she said.
    pub state: ConsentState,
    /// How it came to be known.
    pub source: String,
    /// Which words she agreed to.
    pub wording_version: Option<String>,
    /// In which language.
    pub language: Option<String>,
    /// Whether a proof is kept.
    pub proved: bool,
    /// When she said it.
    pub at: DateTime<Utc>,
    /// When it was written down.
    pub recorded_at: DateTime<Utc>,
    /// By whom.
    pub recorded_by: String,
}

/// One reason not to write, or its end.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Suppression {
    /// How far it goes.
    pub scope: Scope,
    /// Where.
    pub channel: Option<Channel>,
    /// Whose it is.
    pub cause: Cause,
    /// Whether it was set, or lifted.
    pub set: bool,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// When it was written down.
    pub recorded_at: DateTime<Utc>,
    /// By whom.
    pub recorded_by: String,
}

/// Who wrote something down, as it stands in a row.
pub(in crate::messaging) fn recorder(actor: &Actor) -> String {
    match actor {
        Actor::Staff(id) => format!("staff:{id}"),
        Actor::Token(public_id) => format!("token:{public_id}"),
        Actor::Operator => "operator".to_owned(),
        Actor::Job { kind, .. } => format!("job:{kind}"),
        Actor::Principal(id) => format!("principal:{id}"),
        Actor::Outside(id) => format!("outside:{id}"),
        Actor::System => "system".to_owned(),
    }
}

/// A purpose is a business's own word: small letters, digits and `_`, in up to four parts with dots between.
///
/// # Errors
/// [`Error::BadField`]
pub fn checked_purpose(purpose: &str) -> Result<&str, Error> {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if purpose.len() <= 64 && purpose.split('.').count() <= 4 && purpose.split('.').all(part) {
        return Ok(purpose);
    }
    Err(Error::BadField {
        field: "purpose",
        problem: "is not the name of a purpose",
        mend: "write small letters, digits and _, with dots between parts: marketing.offers",
    })
}

/// A reason is one word: it stands in the evidence.
pub(super) fn checked_reason(reason: &str) -> Result<&str, Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let first = reason.starts_with(|first: char| first.is_ascii_lowercase());
    if first && (2..=64).contains(&reason.len()) && reason.bytes().all(plain) {
        return Ok(reason);
    }
    Err(Error::BadField {
        field: "reason",
        problem: "is not one word",
        mend: "write small letters, digits and _: asked_in_shop",
    })
}

impl NewConsent<'_> {
    /// Refuses what cannot be kept or would prove nothing.
    pub(super) fn check(&self, now: DateTime<Utc>) -> Result<(), Error> {
        checked_purpose(self.purpose)?;
        let off = |field, problem, mend| Err(Error::BadField { field, problem, mend });
        checked_instant(self.at, now)?;
        match self.wording_version {
            None if self.state == ConsentState::Given => {
                return off(
                    "wording_version",
                    "is missing",
                    "say which words she agreed to: who must prove consent needs it",
                );
            }
            Some(version) if !is_version(version) => {
                return off(
                    "wording_version",
                    "is not a version",
                    "write a letter, then letters, digits and ._:-, 64 at most",
                );
            }
            _ => {}
        }
        match self.language {
            None if self.state == ConsentState::Given => {
                return off("language", "is missing", "say in which language she was asked, as BCP 47: hi");
            }
            Some(language) if !is_language(language) => {
                return off("language", "is not a language", "write it as BCP 47: hi, en-IN");
            }
            _ => {}
        }
        match self.proof {
            Some(proof) if proof.trim().is_empty() => off("proof", "is empty", "leave it out"),
            Some(proof) if proof.len() > PROOF_MAX => {
                off("proof", "is too long", "name where it lies; a file's digest is enough")
            }
            _ => Ok(()),
        }
    }
}

/// Longest proof, in bytes; what is longer is a file, and its place is named.
const PROOF_MAX: usize = 4096;
/// A clock beside ours may be ahead by so much.
const AHEAD: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// What will be is not history: the latest event counts, so that one in the future would outlast every later one.
pub(super) fn checked_instant(at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Error> {
    let past = "2010-01-01T00:00:00Z".parse::<DateTime<Utc>>().is_ok_and(|past| at >= past);
    if past && at <= now + AHEAD {
        return Ok(());
    }
    Err(Error::BadField {
        field: "at",
        problem: "lies in the future or before there were such messages",
        mend: "say when it happened, as RFC 3339",
    })
}

fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// BCP 47, as far as people use it.
pub(in crate::messaging) fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    (2..=3).contains(&first.len())
        && first.bytes().all(|byte| byte.is_ascii_lowercase())
        && text.split('-').count() <= 4
        && parts.all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_reasons_and_languages_are_words_that_the_log_takes() {
        for purpose in ["a", "marketing", "marketing.offers", "a.b.c.d_1"] {
            assert!(checked_purpose(purpose).is_ok(), "{purpose}");
        }
        for purpose in ["", ".", "a.", "A", "a.b.c.d.e", "1a", "9876543210", "a b", "ऑफ़र", &"a".repeat(65)] {
            assert!(checked_purpose(purpose).is_err(), "{purpose}");
        }
        assert!(checked_reason("asked_in_shop").is_ok());
        for reason in ["", "a", "9876543210", "Asha asked", &"a".repeat(65)] {
            assert!(checked_reason(reason).is_err(), "{reason}");
        }
        for language in ["hi", "en-IN", "pa-Guru-IN"] {
            assert!(is_language(language), "{language}");
        }
        for language in ["", "h", "EN", "hindi", "hi-", "hi_IN", "a-b-c-d-e"] {
            assert!(!is_language(language), "{language}");
        }
    }

    #[test]
    fn what_is_given_says_which_words_in_which_language_and_not_tomorrow() {
        let now: DateTime<Utc> = "2026-11-23T06:30:00Z".parse().expect("an instant");
        let good = NewConsent {
            purpose: "marketing.offers",
            state: ConsentState::Given,
            source: Source::WebForm,
            wording_version: Some("v3"),
            language: Some("hi"),
            proof: Some("form 12"),
            at: now,
        };
        assert!(good.check(now).is_ok());
        let long = "x".repeat(PROOF_MAX + 1);
        for bad in [
            NewConsent { wording_version: None, ..good },
            NewConsent { wording_version: Some("9876543210"), ..good },
            NewConsent { language: None, ..good },
            NewConsent { language: Some("Hindi"), ..good },
            NewConsent { proof: Some(" "), ..good },
            NewConsent { proof: Some(&long), ..good },
            NewConsent { at: now + chrono::TimeDelta::minutes(6), ..good },
            NewConsent { at: DateTime::UNIX_EPOCH, ..good },
            NewConsent { purpose: "Offers", ..good },
        ] {
            assert!(matches!(bad.check(now), Err(Error::BadField { .. })), "{bad:?}");
        }
        let withdrawn = NewConsent { state: ConsentState::Withdrawn, wording_version: None, language: None, ..good };
        assert!(withdrawn.check(now).is_ok(), "taking back is as easy as can be");
    }

    #[test]
    fn every_word_reads_back() {
        for channel in Channel::ALL {
            assert_eq!(channel.as_str().parse::<Channel>().expect("known"), *channel);
        }
        for source in Source::ALL {
            assert_eq!(serde_json::to_value(source).expect("a word"), source.as_str());
        }
        assert!("sms".parse::<Channel>().expect_err("unknown").to_string().contains("whatsapp mail"));
    }
}
