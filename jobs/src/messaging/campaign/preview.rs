//! What a campaign says, read before it goes out: as one of its people would get it, and as a test on a phone.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::{Campaign, CampaignId, store};
use crate::{
    evidence::{By, words},
    messaging::{
        Content, Error, Header, Language, MessageClass, MessageId, Named, NewMessage, Policy, request, sealed,
        store::load_envelopes,
        template::{self, Button, Template, fill},
        wishes::{self, ConsentState, Contact, NewConsent, Source},
    },
    outbound::{Clock, Phone},
    people::BusinessId,
    vault::Vault,
};

/// Under this word stand tests and the consents to them, whatever the campaign's own purpose is.
pub const TEST_PURPOSE: &str = "campaign.test";
/// Which words somebody agreed to who agreed to a test.
const TEST_WORDING: &str = "campaign-test-1";
/// A test that did not go out in this time is of no use any more.
const TEST_LIFE: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Whose message is shown.
pub enum Whose<'a> {
    /// The first one's of the campaign.
    First,
    /// This person's.
    Person(&'a Phone),
    /// Nobody's: these parameters.
    Given(BTreeMap<String, String>),
}

/// A message as its recipient would read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The last two digits of her number, where she is one of the campaign.
    pub recipient: Option<String>,
    /// The carrier's name of the template.
    pub name: String,
    /// The language of the words, which may not be the one asked for.
    pub language: String,
    /// The line at its head.
    pub header: Option<String>,
    /// The words.
    pub body: String,
    /// The small line below.
    pub footer: Option<String>,
    /// What can be tapped.
    pub buttons: Vec<PreviewButton>,
}

/// Something that can be tapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewButton {
    /// `quick_reply`, `url`, `copy_code` or `phone`.
    pub kind: &'static str,
    /// The words on it; those of a copied code are the carrier's.
    pub text: Option<String>,
    /// The page that it opens, the code that it copies, the number that it calls.
    pub leads_to: Option<String>,
}

/// The words of a campaign as they would be read, in `language` or else in hers. That somebody read what a person of the
/// campaign would get is on record.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::BadCampaign`] where she is not in it, or nobody is; [`Error::BadParameter`].
pub async fn preview(
    tx: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, CampaignId),
    (whose, language): (Whose<'_>, Option<Language>),
    by: &By<'_>,
) -> Result<Preview, Error> {
    let campaign = store::find(tx, Some(business), id).await?.ok_or(Error::NoSuchCampaign)?;
    let (content, hers, recipient) = match whose {
        Whose::Given(parameters) => (named(&campaign, parameters)?, Language::En, None),
        Whose::First => person(tx, vault, &campaign, None, by).await?,
        Whose::Person(phone) => person(tx, vault, &campaign, Some(phone), by).await?,
    };
    let words = content.words(language.unwrap_or(hers));
    let words = words.ok_or(Error::BadCampaign("template", "is none that is known here any more"))?;
    Ok(as_read(words, &content, recipient))
}

fn named(campaign: &Campaign, parameters: BTreeMap<String, String>) -> Result<Content, Error> {
    let content = Content::Named(Named { template: campaign.template.clone(), parameters });
    content.check().map_err(|(field, mend)| Error::BadParameter { field, mend })?;
    Ok(content)
}

/// What is said to one person of the campaign, in which language, and the end of her number.
async fn person(
    tx: &mut PgConnection,
    vault: &Vault,
    campaign: &Campaign,
    phone: Option<&Phone>,
    by: &By<'_>,
) -> Result<(Content, Language, Option<String>), Error> {
    let of = (campaign.business_id, campaign.campaign_id);
    let marks = match phone {
        Some(phone) => Some(sealed::persons(tx, vault, campaign.business_id, phone).await?),
        None => None,
    };
    let found = store::find_person(tx, campaign.campaign_id, marks.as_deref()).await?;
    let nobody = if phone.is_some() { "is nobody of this campaign" } else { "is needed: the campaign has nobody yet" };
    let (message, ending) = found.ok_or(Error::BadCampaign("phone", nobody))?;
    let envelopes = load_envelopes(tx, campaign.business_id, &[message.0]).await?;
    let envelope = envelopes.first().ok_or(Error::NoMessage(message))?;
    let (_, content) = sealed::open_message(tx, vault, (campaign.business_id, message), envelope).await?;
    super::record(tx, words::CAMPAIGN_PREVIEWED, of, json!({ "message": message }), by).await?;
    Ok((content, Language::of(&envelope.language), Some(format!("…{ending}"))))
}

fn as_read(words: &Template, content: &Content, recipient: Option<String>) -> Preview {
    let values = content.values();
    let value_of = |wanted: &str| values.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let buttons = words.buttons.iter().map(|button| PreviewButton {
        kind: button.kind(),
        text: button.text().map(str::to_owned),
        leads_to: match button {
            Button::QuickReply { .. } => None,
            Button::Url { url, .. } => Some(fill(url, &values)),
            Button::CopyCode { parameter } => value_of(parameter),
            Button::Phone { phone, .. } => Some(phone.clone()),
        },
    });
    Preview {
        recipient,
        name: words.name.clone(),
        language: words.language.clone(),
        header: match &words.header {
            Header::None => None,
            Header::Text(_) => words.render_header(&values),
            Header::Document | Header::Image => Some(format!("({})", words.header.as_str())),
        },
        body: words.render(&values),
        footer: words.footer.as_ref().map(|footer| footer.trim().to_owned()),
        buttons: buttons.collect(),
    }
}

/// A test of a campaign's words.
pub struct Test {
    /// To whom: somebody who holds the phone in her hand.
    pub to: Phone,
    /// In which language; English if absent.
    pub language: Option<Language>,
    /// What is filled in; the examples that the template declares if absent. Never a person's of the campaign: they are
    /// nobody else's to read.
    pub parameters: Option<BTreeMap<String, String>>,
    /// Whether who holds the number agreed to get it; needed where the words sell.
    pub agreed: bool,
}

/// Sends a campaign's words to one number, as a message of its own that the campaign does not count: [`request`], under
/// [`TEST_PURPOSE`], judged like every other. Words that sell go to somebody who agreed to that (DPDP Act 2023 s.6(1)): that
/// she did is recorded as a consent to tests alone, and does not undo a no of hers.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::BadCampaign`] where nobody agreed; [`Error::BadParameter`]; as [`wishes::record`]
/// and [`request`].
pub async fn send_test(
    tx: &mut PgConnection,
    (vault, clock): (&Vault, &dyn Clock),
    (business, id): (BusinessId, CampaignId),
    test: Test,
    by: &By<'_>,
) -> Result<MessageId, Error> {
    let campaign = store::find(tx, Some(business), id).await?.ok_or(Error::NoSuchCampaign)?;
    let language = test.language.unwrap_or(Language::En);
    let words = template::library().find(&campaign.template, language);
    let words = words.ok_or(Error::BadCampaign("template", "is none that is known here any more"))?;
    let examples = || words.parameters.iter().map(|one| (one.name.clone(), one.example.clone())).collect();
    let content = named(&campaign, test.parameters.unwrap_or_else(examples))?;
    if content.class() == MessageClass::Marketing {
        if !test.agreed {
            let mend = "must be said: words that sell go to somebody who agreed to get this test";
            return Err(Error::BadCampaign("agreed", mend));
        }
        let consent = NewConsent {
            purpose: TEST_PURPOSE,
            state: ConsentState::Given,
            // Said by whoever tests, not by herself: it ends no stop.
            source: Source::InStore,
            wording_version: Some(TEST_WORDING),
            language: Some(language.as_str()),
            proof: None,
            at: by.now,
        };
        wishes::record(tx, vault, by, business, (&Contact::Phone(test.to.clone()), &consent)).await?;
    }
    let new = NewMessage {
        expires_at: Some(by.now + TEST_LIFE),
        ..NewMessage::new(business, test.to, (content, language), (Policy::AtMostOnce, TEST_PURPOSE))
    };
    let message = request(tx, vault, clock, by.chance, &new).await?;
    super::record(tx, words::CAMPAIGN_TESTED, (business, id), json!({ "message": message }), by).await?;
    Ok(message)
}
