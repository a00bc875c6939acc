//! Who is in a campaign: each person once, her parameters held against the template before anything is written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use serde::Serialize;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{CampaignId, CampaignState, NewPerson, PEOPLE_AT_ONCE, store};
use crate::{
    evidence::{By, words},
    messaging::{
        Content, Error, FALLS_BACK_AFTER, Language, MessageClass, MessageId, Named, Policy, Recipient, check_mail,
        sealed, store::insert_messages,
    },
    outbound::{Email, Phone, carrier::NumberId},
    people::BusinessId,
    vault::Vault,
};

/// What is wrong with one field of a person. It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadField {
    /// `phone`, `language`, or a parameter's name.
    pub field: Cow<'static, str>,
    /// Whether it is a parameter of the template.
    pub is_parameter: bool,
    /// What is wrong, and the mend.
    pub problem: Cow<'static, str>,
}

/// How many people a call added, and how many it left out because they are in the campaign already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Added {
    /// Added now.
    pub added: u64,
    /// In the campaign already, or twice in the call.
    pub doubles: u64,
}

/// Reads one person as a caller writes her: a number as people write it, where she has a mail address for what does not
/// reach her there, a language by its code (`hi`, `hi-IN`), and the
/// parameters of the campaign's template by name.
///
/// # Errors
/// The first field that is off.
pub fn read_person(
    template: &str,
    (phone, mail): (&str, Option<&str>),
    language: &str,
    parameters: BTreeMap<String, String>,
) -> Result<NewPerson, BadField> {
    let to = Phone::parse(phone).map_err(|error| BadField {
        field: "phone".into(),
        is_parameter: false,
        problem: error.to_string().into(),
    })?;
    let mail = mail.map(str::trim).filter(|mail| !mail.is_empty()).map(Email::parse).transpose();
    let mail = mail.map_err(|error| BadField {
        field: "mail".into(),
        is_parameter: false,
        problem: error.to_string().into(),
    })?;
    let language = read_language(language)?;
    let content = Content::Named(Named { template: template.to_owned(), parameters });
    content.check().map_err(|(field, problem)| BadField { is_parameter: field != "template", field, problem })?;
    if mail.is_some() {
        check_mail(&content, language).map_err(|(field, problem)| BadField {
            is_parameter: field != "mail",
            field,
            problem,
        })?;
    }
    Ok(NewPerson { to, mail, content, language })
}

/// Reads the code of a language that words may be in.
///
/// # Errors
/// It is none.
pub fn read_language(code: &str) -> Result<Language, BadField> {
    Language::find(code.trim()).ok_or_else(|| {
        let codes: Vec<_> = Language::all().map(Language::as_str).collect();
        BadField {
            field: "language".into(),
            is_parameter: false,
            problem: format!("is no language that words may be in: take one of {}", codes.join(", ")).into(),
        }
    })
}

/// Adds people to a draft, at most [`PEOPLE_AT_ONCE`] with one call. A person is in a campaign once: by her number,
/// however it was written, she is added where it is new and left out and counted where it is not, with the parameters of
/// the first time. So whatever was broken off can be done again.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::CampaignBegun`] once it was started; [`Error::BadCampaign`] for too many;
/// [`Error::BadParameter`] of the first person whose parameters do not fit: then nobody is added.
pub async fn add_people(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, CampaignId),
    people: &[NewPerson],
    by: &By<'_>,
) -> Result<Added, Error> {
    if people.len() > PEOPLE_AT_ONCE {
        return Err(Error::BadCampaign("people", "are too many for one call: send at most 1000"));
    }
    let mut tx = conn.begin().await?;
    // Held until the end: whoever else adds people waits, and then sees these.
    let campaign = store::lock(&mut tx, business, id).await?.ok_or(Error::NoSuchCampaign)?;
    if campaign.state != CampaignState::Draft {
        return Err(Error::CampaignBegun);
    }
    let number = NumberId::parse(&campaign.phone_number_id).map_err(|_| Error::NoSuchNumber)?;
    let mut asked = Vec::with_capacity(people.len());
    for person in people {
        if person.content.template() != campaign.template {
            return Err(Error::BadCampaign("template", "is another one than the campaign's"));
        }
        person.content.check().map_err(|(field, mend)| Error::BadParameter { field, mend })?;
        // While index keys change she may stand under the one or the other.
        asked.push(sealed::persons(&mut tx, vault, business, &person.to).await?);
    }
    let known = store::list_marks(&mut tx, id, &asked.concat()).await?;
    let mut seen: HashSet<Vec<u8>> = known.into_iter().collect();
    let mut rows = Vec::with_capacity(people.len());
    let mut done = Added::default();
    for (person, marks) in people.iter().zip(asked) {
        if marks.iter().any(|mark| seen.contains(mark)) {
            done.doubles += 1;
            continue;
        }
        seen.extend(marks);
        let message = MessageId(by.chance.uuid_v7(by.now));
        let mut to = Recipient::from(person.to.clone());
        if let Some(mail) = &person.mail {
            to = to.or(mail.clone());
        }
        let of = (business, message);
        let personal = sealed::seal_message(&mut tx, vault, of, (&to, 0), &person.content).await?;
        rows.push((message, personal, person.language, i16::try_from(to.ways().len()).unwrap_or(1)));
        done.added += 1;
    }
    let policy = if campaign.class == MessageClass::Statutory { Policy::AtLeastOnce } else { Policy::AtMostOnce };
    insert_messages(&mut tx, &campaign, (&number, policy, FALLS_BACK_AFTER), &rows, by.now).await?;
    let added = i64::try_from(done.added).unwrap_or(i64::MAX);
    store::add_counts(&mut tx, business, &[(id, "queued", added)], by.chance).await?;
    if !people.is_empty() {
        super::record(&mut tx, words::CAMPAIGN_FILLED, (business, id), json!(done), by).await?;
    }
    tx.commit().await?;
    Ok(done)
}
