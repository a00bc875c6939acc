//! What somebody who wrote is answered: that she is heard, at once and in her words' language.
//!
//! Her message opened the customer service window, so the answer needs no template and costs nothing (Cloud API, service
//! messages). That a no was heard is owed to her whatever she said no to (DPDP Act 2023 s.6(4): as easy as giving it;
//! WhatsApp Business Messaging Policy: requests to stop are honoured), so it goes as what a law demands does.

use std::sync::LazyLock;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Choice, Content, Error, Free, Language, NewMessage, Policy,
    staff::first_line,
    template,
    wishes::{
        self, Contact,
        words::{Extent, Route},
    },
};
use crate::{
    outbound::{Phone, carrier::NumberId},
    people,
    queue::JobContext,
};

/// Who has not got an answer by then has put the phone away.
const LIFE: TimeDelta = TimeDelta::hours(1);

/// Which answer, to whom it speaks for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reply {
    kind: Kind,
    business_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    OptedOutAll,
    OptedOutSome,
    OptedIn,
    Ask,
    CodeVoided,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    opted_out_all: String,
    opted_out_some: String,
    opted_in: String,
    ask: String,
    ask_yes: String,
    ask_no: String,
    code_voided: String,
    #[expect(dead_code, reason = "for whoever reads the file")]
    reviewed_by: String,
    #[expect(dead_code, reason = "for whoever reads the file")]
    reviewed_on: toml::value::Datetime,
}

static WORDS: LazyLock<Vec<(Language, Words)>> = LazyLock::new(|| {
    let files = [
        (Language::En, include_str!("../../../templates/messaging/answers/en.toml")),
        (Language::Hi, include_str!("../../../templates/messaging/answers/hi.toml")),
    ];
    files.into_iter().filter_map(|(language, text)| Some((language, toml::from_str(text).ok()?))).collect()
});

impl Reply {
    /// In somebody's language, or the nearest that these words speak.
    pub(super) fn free(&self, language: Language) -> Free {
        let words = language.chain().find_map(|one| WORDS.iter().find(|(known, _)| *known == one));
        let Some((_, words)) = words.or_else(|| WORDS.first()) else { return Free::Text { body: String::new() } };
        let named = [("business_name".to_owned(), self.business_name.clone())];
        let text = |words: &str| template::fill(words, &named);
        match self.kind {
            Kind::OptedOutAll => Free::Text { body: text(&words.opted_out_all) },
            Kind::OptedOutSome => Free::Text { body: text(&words.opted_out_some) },
            Kind::OptedIn => Free::Text { body: text(&words.opted_in) },
            Kind::CodeVoided => Free::Text { body: text(&words.code_voided) },
            Kind::Ask => {
                let choice =
                    |id: &str, title: &str| Choice { id: id.to_owned(), title: title.to_owned(), description: None };
                Free::Buttons {
                    body: text(&words.ask),
                    footer: None,
                    buttons: vec![choice("OPTOUT:all", &words.ask_yes), choice("OPTOUT_NOT", &words.ask_no)],
                }
            }
        }
    }
}

/// Answers somebody who wrote to this number, if there is something to answer.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(super) async fn answer(
    tx: &mut PgConnection,
    ctx: &JobContext,
    (to, from): (&Phone, Option<&NumberId>),
    heard: &wishes::Heard,
) -> Result<(), Error> {
    let kind = match (heard.answer, &heard.route) {
        (Some(wishes::Answer::OptedOut), Route::OptOut(Extent::All)) => Kind::OptedOutAll,
        (Some(wishes::Answer::OptedOut), _) => Kind::OptedOutSome,
        (Some(wishes::Answer::OptedIn), _) => Kind::OptedIn,
        (Some(wishes::Answer::Ask), _) => Kind::Ask,
        (Some(wishes::Answer::CodeVoided), _) => Kind::CodeVoided,
        (None, _) => return Ok(()),
    };
    let deps = &ctx.deps;
    let face = people::open_face(tx, &deps.vault, ctx.business).await.map_err(|error| Error::Staff(Box::new(error)))?;
    let business_name = face.map(|(name, _)| first_line(&name)).unwrap_or_default();
    let contact = Contact::Phone(to.clone());
    let hers = match heard.language.and_then(|words| words.split('-').next()) {
        // Everybody writes STOP.
        Some("en") | None => wishes::language_of(tx, &deps.vault, ctx.business, &contact).await?,
        Some(words) => Some(Language::of(words)),
    };
    let content = Content::Reply(Reply { kind, business_name });
    let words = (content, hers.unwrap_or(Language::En));
    let message = NewMessage {
        from: from.cloned(),
        expires_at: Some(ctx.now() + LIFE),
        ..NewMessage::new(ctx.business, to.clone(), words, (Policy::AtMostOnce, "messaging.answer"))
    };
    match super::request(tx, &deps.vault, &*deps.clock, &*deps.chance, &message).await {
        // It took us a day to hear her, or the number is gone: an answer would come out of nowhere.
        Ok(_) | Err(Error::WindowClosed | Error::NoAccount | Error::NoSuchNumber) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_one_that_the_carrier_takes() {
        assert_eq!(WORDS.len(), 2, "each file reads");
        for kind in [Kind::OptedOutAll, Kind::OptedOutSome, Kind::OptedIn, Kind::Ask, Kind::CodeVoided] {
            for language in [Language::En, Language::Hi, Language::Mr] {
                let reply = Reply { kind, business_name: "Sharma Mobiles".to_owned() };
                let content = Content::Free(reply.free(language));
                assert!(content.check().is_ok(), "{kind:?} {language:?}");
                let (Free::Text { body } | Free::Buttons { body, .. }) = reply.free(language) else {
                    panic!("{kind:?} is neither text nor buttons")
                };
                assert!(!body.contains("{{"), "{body}");
                assert_eq!(body.contains("Sharma Mobiles"), kind != Kind::CodeVoided, "{body}");
            }
        }
    }
}
