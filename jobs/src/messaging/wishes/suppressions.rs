//! Reasons not to write: who sets them, who ends them.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Cause, Channel, ConsentId, ConsentState, Contact, ContactId, Error, NewConsent, NewSuppression, Scope, Source,
    consents,
    contact::{self, Known},
    model::{checked_instant, checked_reason, recorder},
    store::{self, Row},
    words,
};
use crate::{
    evidence::{Act, By, Object, words as acts},
    people::BusinessId,
    vault::Vault,
};

/// Two failures to deliver (Cloud API error 131026) so far apart mean that she is not on WhatsApp: one is often a phone
/// that is off, or terms that she has yet to accept.
const UNDELIVERABLE_APART: TimeDelta = TimeDelta::days(7);
/// For so long nothing is sent there then: people do come back.
const UNDELIVERABLE_FOR: TimeDelta = TimeDelta::days(30);

/// Sets a reason not to write, in the caller's transaction and with evidence. A no of the person herself also takes her
/// consents back. Answers whether it changed what is in force.
///
/// Law: DPDP Act 2023 s.6(4); WhatsApp Business Messaging Policy, "Respect people's choices": every request counts, on or
/// off WhatsApp.
///
/// # Errors
/// [`Error::BadField`]; [`Error::Erased`].
pub async fn suppress(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, new): (&Contact, &NewSuppression<'_>),
) -> Result<(ContactId, bool), Error> {
    checked_reason(new.reason)?;
    checked_instant(new.at, by.now)?;
    if new.scope == Scope::Channel && new.channel.is_none() {
        let mend = "name whatsapp or mail, or take the scope `all`";
        return Err(Error::BadField { field: "channel", problem: "is missing", mend });
    }
    if new.until.is_some_and(|until| until <= new.at) {
        return Err(Error::BadField { field: "until", problem: "is over already", mend: "name a later instant" });
    }
    if new.until.is_some() && new.cause == Cause::Person {
        let mend = "leave it out: she takes it back herself";
        return Err(Error::BadField { field: "until", problem: "ends what a person said", mend });
    }
    let marks = contact::marks(tx, vault, business, contact).await?;
    if store::find_erasure(tx, business, &marks).await?.is_some() {
        return Err(Error::Erased);
    }
    let known = contact::hold(tx, vault, by, business, contact).await?;
    let at = new.at.trunc_subsecs(6);
    let changed = match (new.cause, new.scope) {
        (Cause::Person, scope @ (Scope::All | Scope::Marketing)) => {
            let no = NewSuppression { at, scope, ..*new };
            let changed = set(tx, by, business, (known.contact_id, &no)).await?;
            take_back_all(tx, vault, by, business, (known, Source::InStore, at)).await?;
            changed
        }
        _ => set(tx, by, business, (known.contact_id, &NewSuppression { at, ..*new })).await?,
    };
    Ok((known.contact_id, changed))
}

/// Ends what the business or the carrier set. What a person said, and what an erasure left, it cannot end.
///
/// # Errors
/// [`Error::NotYoursToLift`] for [`Cause::Person`] and [`Cause::Preference`]; [`Error::BadField`].
pub async fn lift(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, scope, cause, reason): (&Contact, Scope, Cause, &str),
) -> Result<bool, Error> {
    checked_reason(reason)?;
    if matches!(cause, Cause::Person | Cause::Preference) {
        return Err(Error::NotYoursToLift);
    }
    let Some(known) = contact::find(tx, vault, business, contact).await? else { return Ok(false) };
    store::lock_contact(tx, known.contact_id).await?;
    let end = End { scope, cause, reason, at: by.now.trunc_subsecs(6) };
    end_in_force(tx, by, business, (known.contact_id, end)).await
}

/// Writes a reason down; whether it is in force now and was not before.
pub(super) async fn set(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (contact, new): (ContactId, &NewSuppression<'_>),
) -> Result<bool, Error> {
    let stands = |all: &[super::Suppression]| {
        all.iter().any(|one| (one.scope, one.channel, one.cause) == (new.scope, new.channel, new.cause))
    };
    let before = stands(&store::list_in_force(tx, contact, by.now).await?);
    if !insert(tx, by, business, (contact, new, true)).await? {
        return Ok(false);
    }
    Ok(!before && stands(&store::list_in_force(tx, contact, by.now).await?))
}

/// What ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) scope: Scope,
    pub(super) cause: Cause,
    pub(super) reason: &'a str,
    pub(super) at: DateTime<Utc>,
}

/// Ends what is in force of a scope and cause, on every channel; writes nothing where nothing is.
pub(super) async fn end_in_force(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (contact, end): (ContactId, End<'_>),
) -> Result<bool, Error> {
    let mut ended = false;
    for one in store::list_in_force(tx, contact, by.now).await? {
        if (one.scope, one.cause) == (end.scope, end.cause) && one.at <= end.at {
            ended |= insert(tx, by, business, (contact, &ending(&end, one.channel), false)).await?;
        }
    }
    Ok(ended)
}

/// Ends a scope and cause on every channel, also where nothing is in force: a no that was said before and arrives later
/// finds that it is over. Whether anything that was in force ended.
pub(super) async fn end(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (contact, end): (ContactId, End<'_>),
) -> Result<bool, Error> {
    let in_force = store::list_in_force(tx, contact, by.now).await?;
    let mut ended = false;
    for channel in [None, Some(Channel::Whatsapp), Some(Channel::Mail)] {
        let stood = in_force
            .iter()
            .any(|one| (one.scope, one.cause, one.channel) == (end.scope, end.cause, channel) && one.at <= end.at);
        let new = insert(tx, by, business, (contact, &ending(&end, channel), false)).await?;
        ended |= stood && new;
    }
    Ok(ended)
}

const fn ending<'a>(end: &End<'a>, channel: Option<Channel>) -> NewSuppression<'a> {
    NewSuppression { scope: end.scope, channel, cause: end.cause, reason: end.reason, at: end.at, until: None }
}

/// Writes one event, with evidence.
async fn insert(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (contact, new, set): (ContactId, &NewSuppression<'_>, bool),
) -> Result<bool, Error> {
    let recorder = recorder(&by.actor);
    let id = by.chance.uuid_v7(by.now);
    let row = Row { id, business, contact, now: by.now.trunc_subsecs(6), recorder: &recorder };
    if !store::insert_suppression(tx, &row, new, set).await? {
        return Ok(false);
    }
    let details = json!({ "scope": new.scope, "channel": new.channel, "cause": new.cause, "reason": new.reason,
        "at": new.at, "until": new.until });
    let word = if set { acts::SUPPRESSION_SET } else { acts::SUPPRESSION_LIFTED };
    let id = contact.to_string();
    by.record(tx, Act { word, business: Some(business), object: Object { kind: "contact", id: &id }, details }).await?;
    Ok(true)
}

/// A person's own no: the reason is set and what she had agreed to is taken back, unless she has said since that she wants
/// messages after all. Whether it is in force now and was not before.
#[expect(clippy::too_many_arguments, reason = "whose, what, how and when")]
pub(super) async fn say_no(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (known, scope, channel): (Known, Scope, Option<Channel>),
    (source, at): (Source, DateTime<Utc>),
) -> Result<bool, Error> {
    let new = NewSuppression { scope, channel, cause: Cause::Person, reason: source.as_str(), at, until: None };
    let changed = set(tx, by, business, (known.contact_id, &new)).await?;
    if !store::is_lifted_since(tx, known.contact_id, (scope, channel), at).await? {
        take_back_all(tx, vault, by, business, (known, source, at)).await?;
    }
    Ok(changed)
}

/// Takes every purpose back that stood as given at `at`.
async fn take_back_all(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (known, source, at): (Known, Source, DateTime<Utc>),
) -> Result<(), Error> {
    for current in store::list_current(tx, known.contact_id, at).await? {
        if current.state == ConsentState::Given {
            let id = ConsentId(by.chance.uuid_v7(by.now));
            let new = consents::taken_back(&current.purpose, source, at);
            consents::write(tx, vault, by, business, (known, id, &new)).await?;
        }
    }
    Ok(())
}

/// A person's own yes after a no: ends what she said, and gives back exactly what that word had taken, under the words she
/// had agreed to. Whether anything that was in force ended.
#[expect(clippy::too_many_arguments, reason = "whose, how and when")]
pub(super) async fn say_yes(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    known: Known,
    (source, at): (Source, DateTime<Utc>),
) -> Result<bool, Error> {
    let mut ended = false;
    for scope in [Scope::All, Scope::Marketing] {
        let what = End { scope, cause: Cause::Person, reason: source.as_str(), at };
        ended |= end(tx, by, business, (known.contact_id, what)).await?;
    }
    for current in store::list_current(tx, known.contact_id, at).await? {
        let by_word =
            [Source::WhatsappKeyword, Source::WhatsappButton].iter().any(|one| one.as_str() == current.source);
        if current.state != ConsentState::Withdrawn || !by_word {
            continue;
        }
        let Some((version, language)) = store::find_wording(tx, known.contact_id, &current.purpose, at).await? else {
            continue;
        };
        let id = ConsentId(by.chance.uuid_v7(by.now));
        let new = NewConsent {
            purpose: &current.purpose,
            state: ConsentState::Given,
            source,
            wording_version: Some(&version),
            language: Some(&language),
            proof: None,
            at,
        };
        consents::write(tx, vault, by, business, (known, id, &new)).await?;
    }
    Ok(ended)
}

/// What the carrier said of a message that it did not deliver.
#[derive(Clone, Copy, Debug)]
pub struct CarrierTold {
    /// Its code ([`crate::outbound::carrier::CODES`]).
    pub code: i64,
    /// When, by its clock.
    pub at: DateTime<Utc>,
}

/// Applies what a failure says about the recipient, in the caller's transaction: call it for every refusal and every
/// `failed` status. Codes that say nothing about her are no effect. Answers what was set, if anything is new.
///
/// | Cloud API error | says | set |
/// |---|---|---|
/// | 131026 | cannot be delivered | no WhatsApp for 30 days, once it came twice, seven days apart |
/// | 131050 | she stopped marketing in her settings | marketing, until her settings say otherwise |
/// | 137000 | another key: perhaps another person | identity, until [`super::verified`] |
/// | 130403 | the business blocked her | WhatsApp, until she writes or it is lifted |
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn carrier_said(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, told): (&Contact, CarrierTold),
) -> Result<Option<Scope>, Error> {
    let at = told.at.min(by.now).trunc_subsecs(6);
    let channel = Some(Channel::Whatsapp);
    let (scope, cause, reason) = match told.code {
        131_026 => (Scope::Channel, Cause::Carrier, "carrier_131026"),
        131_050 => (Scope::Marketing, Cause::Preference, "carrier_131050"),
        137_000 => (Scope::Identity, Cause::Carrier, "carrier_137000"),
        130_403 => (Scope::Channel, Cause::Carrier, "carrier_130403"),
        _ => return Ok(None),
    };
    let known = contact::hold(tx, vault, by, business, contact).await?;
    let (heard_at, first_at) = store::load_reach(tx, known.contact_id).await?;
    // She has written since: it was true then.
    if scope == Scope::Channel && heard_at.is_some_and(|heard| heard >= at) {
        return Ok(None);
    }
    let mut until = None;
    if told.code == 131_026 {
        let first = first_at.unwrap_or(at);
        if (at - first).abs() < UNDELIVERABLE_APART {
            // A late report of an earlier one moves the beginning back.
            store::set_undeliverable(tx, known.contact_id, Some(first.min(at))).await?;
            return Ok(None);
        }
        store::set_undeliverable(tx, known.contact_id, None).await?;
        until = Some(first.max(at) + UNDELIVERABLE_FOR);
    }
    let new = NewSuppression { scope, channel, cause, reason, at, until };
    Ok(set(tx, by, business, (known.contact_id, &new)).await?.then_some(scope))
}

/// Takes a list of opt-out words at its word though no native speaker has read it, or no more. Until then a word of it
/// makes us ask.
///
/// # Errors
/// [`Error::NoSuchWords`]
pub async fn set_words(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (language, on): (&str, bool),
) -> Result<(), Error> {
    if words::find(language).is_none() {
        return Err(Error::NoSuchWords);
    }
    let recorder = recorder(&by.actor);
    store::upsert_words(tx, business, (language, on), (by.now.trunc_subsecs(6), &recorder)).await?;
    let object = Object { kind: "opt_words", id: language };
    let details = json!({ "on": on });
    by.record(tx, Act { word: acts::OPT_WORDS_SET, business: Some(business), object, details }).await?;
    Ok(())
}

/// The unreviewed lists that a business takes at their word.
///
/// # Errors
/// The database fails.
pub async fn words_of(conn: &mut PgConnection, business: BusinessId) -> Result<Vec<String>, Error> {
    store::list_words_on(conn, business).await
}
