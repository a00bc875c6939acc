//! What people write or set on WhatsApp, applied once, with evidence.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Cause, Channel, ConsentId, ConsentState, Contact, ContactId, Error, NewConsent, NewSuppression, Scope, Source,
    UserId, consents,
    contact::{self, Known},
    store,
    suppressions::{self, End},
    words::{self, Extent, Route},
};
use crate::{
    evidence::{Act, By, Object, words as acts},
    messaging::otp,
    outbound::Phone,
    people::BusinessId,
    vault::{BlindIndex, IndexColumn, Vault},
};

/// Whoever says what is half a no is asked once in so long.
const ASK_EVERY: TimeDelta = TimeDelta::hours(24);
/// The carrier repeats a webhook for seven days.
const REMEMBERED: TimeDelta = TimeDelta::days(30);

/// What somebody said.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// Typed: a text, or the caption of a picture.
    Text(&'a str),
    /// A button that was put under a message, by its payload or id.
    Payload(&'a str),
    /// A picture, a place, a reaction: no words.
    Nothing,
}

/// One message that came in.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// The carrier's id of it: the same again is no effect.
    pub key: &'a str,
    /// From which number; none where she shows a user name alone.
    pub phone: Option<&'a Phone>,
    /// From which user id.
    pub user_id: Option<&'a UserId>,
    /// What she said.
    pub said: Said<'a>,
    /// When, by the carrier's clock.
    pub at: DateTime<Utc>,
}

/// What to answer her. The caller writes the words, in the lane for what a person waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// That no more messages come, and how to have them again.
    OptedOut,
    /// That messages come again.
    OptedIn,
    /// Whether she wants no more messages, with a button whose payload is `OPTOUT:all`.
    Ask,
    /// That the code is void and nobody got in.
    CodeVoided,
}

impl Answer {
    /// As it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OptedOut => "opted_out",
            Self::OptedIn => "opted_in",
            Self::Ask => "ask",
            Self::CodeVoided => "code_voided",
        }
    }
}

/// What a message meant and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What she means.
    pub route: Route,
    /// Who she is, where that had an effect or she was known.
    pub contact: Option<ContactId>,
    /// What to answer, once.
    pub answer: Option<Answer>,
    /// In the words of which list; none: nothing of a list.
    pub language: Option<&'static str>,
    /// Whether what is queued for her must be judged anew: something stands against it that did not.
    pub stops: bool,
    /// It was heard before: nothing happened now.
    pub repeated: bool,
}

/// Applies a message that came in, in the caller's transaction: a no is set and consents are taken back, a yes ends it, a
/// code that she did not ask for is void, and whoever writes can be reached again.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn hear(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    inbound: &Inbound<'_>,
) -> Result<Heard, Error> {
    let at = inbound.at.min(by.now).trunc_subsecs(6);
    let (route, language, source) = match inbound.said {
        Said::Text(text) => {
            let on = store::list_words_on(tx, business).await?;
            let (route, language) = words::classify(text, &on);
            (route, language, Source::WhatsappKeyword)
        }
        Said::Payload(payload) => (words::classify_payload(payload), None, Source::WhatsappButton),
        Said::Nothing => (Route::Other, None, Source::WhatsappKeyword),
    };
    let acts_on = matches!(route, Route::OptOut(_) | Route::OptIn(_) | Route::Ask | Route::NotMyCode);
    let contacts: Vec<Contact> = inbound
        .phone
        .map(|phone| Contact::Phone(phone.clone()))
        .into_iter()
        .chain(inbound.user_id.map(|id| Contact::UserId(id.clone())))
        .collect();
    let known = reached(tx, vault, by, business, (&contacts, acts_on, at)).await?;
    let mut heard = Heard {
        route,
        contact: known.first().map(|known| known.contact_id),
        answer: None,
        language,
        stops: false,
        repeated: false,
    };
    // Everybody writes STOP; other words tell her language.
    if let Some(language) = language.filter(|language| *language != "en") {
        for known in &known {
            store::set_language(tx, known.contact_id, language).await?;
        }
    }
    let Some(first) = known.first().filter(|_| acts_on) else { return Ok(heard) };
    if is_repeated(tx, vault, business, inbound.key).await? {
        heard.repeated = true;
        return Ok(heard);
    }
    heard.answer = match &heard.route {
        Route::OptOut(extent) => {
            let mut changed = false;
            for known in &known {
                changed |= opt_out(tx, vault, by, business, (*known, extent), (source, at)).await?;
            }
            heard.stops = changed;
            changed.then_some(Answer::OptedOut)
        }
        Route::OptIn(extent) => {
            let mut changed = false;
            for known in &known {
                changed |= opt_in(tx, vault, by, business, (*known, extent), (source, at)).await?;
            }
            // A yes of the same second as a no does not outweigh it; then she is not told that it does.
            (changed && !is_silent(tx, first.contact_id, by.now).await?).then_some(Answer::OptedIn)
        }
        Route::Ask => {
            let since = by.now - ASK_EVERY;
            let asked = store::is_answered(tx, first.contact_id, Answer::Ask.as_str(), since).await?;
            // Who gets nothing any more need not be asked whether she wants nothing.
            (!asked && !is_silent(tx, first.contact_id, by.now).await?).then_some(Answer::Ask)
        }
        Route::NotMyCode => {
            let mut marks = Vec::new();
            for contact in &contacts {
                marks.extend(contact::marks(tx, vault, business, contact).await?);
            }
            let voided = otp::disown(tx, by, business, &marks).await?;
            (voided > 0).then_some(Answer::CodeVoided)
        }
        Route::WhereIsMyInvoice | Route::Other => None,
    };
    keep(tx, vault, by, business, (&heard, inbound.key, at)).await?;
    Ok(heard)
}

/// Who wrote: her contacts are one person, and she can be reached. They are made where something is to be written of them,
/// or one of the two is known.
async fn reached(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contacts, make, at): (&[Contact], bool, DateTime<Utc>),
) -> Result<Vec<Known>, Error> {
    let mut any = make;
    for contact in contacts {
        any |= contact::find(tx, vault, business, contact).await?.is_some();
    }
    let mut known: Vec<Known> = Vec::with_capacity(contacts.len());
    for contact in contacts.iter().filter(|_| any) {
        known.push(contact::hold(tx, vault, by, business, contact).await?);
    }
    if let [one, other] = known.as_slice()
        && one.group_id != other.group_id
    {
        store::join_groups(tx, business, one.group_id, other.group_id).await?;
    }
    for one in &known {
        store::note_heard(tx, one.contact_id, at).await?;
        let end = End { scope: Scope::Channel, cause: Cause::Carrier, reason: "wrote_to_us", at };
        suppressions::end_in_force(tx, by, business, (one.contact_id, end)).await?;
    }
    Ok(known)
}

#[expect(clippy::too_many_arguments, reason = "whose, what, how and when")]
async fn opt_out(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (known, extent): (Known, &Extent),
    (source, at): (Source, DateTime<Utc>),
) -> Result<bool, Error> {
    let scope = match extent {
        Extent::All => Scope::All,
        Extent::Marketing => Scope::Marketing,
        Extent::Purpose(purpose) => {
            let current = store::list_current(tx, known.contact_id, by.now).await?;
            let stood = current.iter().any(|one| one.purpose == *purpose && one.state == ConsentState::Given);
            let id = ConsentId(by.chance.uuid_v7(by.now));
            let new = consents::taken_back(purpose, source, at);
            let recorded = consents::write(tx, vault, by, business, (known, id, &new)).await?;
            return Ok(stood && recorded.stands == ConsentState::Withdrawn);
        }
    };
    // A no to what sells holds on every way; a no to everything is told apart by where it was said, for what a law demands.
    let channel = (scope == Scope::All).then_some(Channel::Whatsapp);
    suppressions::say_no(tx, vault, by, business, (known, scope, channel), (source, at)).await
}

#[expect(clippy::too_many_arguments, reason = "whose, what, how and when")]
async fn opt_in(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (known, extent): (Known, &Extent),
    (source, at): (Source, DateTime<Utc>),
) -> Result<bool, Error> {
    match extent {
        Extent::All | Extent::Marketing => suppressions::say_yes(tx, vault, by, business, known, (source, at)).await,
        // A button under a message that says what for: its words must have been agreed to before, or nobody can prove what
        // she agreed to now.
        Extent::Purpose(purpose) => {
            let Some((version, language)) = store::find_wording(tx, known.contact_id, purpose, at).await? else {
                return Ok(false);
            };
            let id = ConsentId(by.chance.uuid_v7(by.now));
            let new = NewConsent {
                purpose,
                state: ConsentState::Given,
                source,
                wording_version: Some(&version),
                language: Some(&language),
                proof: None,
                at,
            };
            let recorded = consents::write(tx, vault, by, business, (known, id, &new)).await?;
            Ok(recorded.new && recorded.stands == ConsentState::Given)
        }
    }
}

const fn heard_column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: "muneem.messaging_heard", column: "mark" }
}

/// Whether somebody gets nothing any more.
async fn is_silent(tx: &mut PgConnection, contact: ContactId, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(store::list_in_force(tx, contact, now).await?.iter().any(|one| one.scope == Scope::All))
}

async fn is_repeated(tx: &mut PgConnection, vault: &Vault, business: BusinessId, key: &str) -> Result<bool, Error> {
    vault.hold_equal(tx, &heard_column(business), key, "").await?;
    let indexes = vault.indexes(tx, &heard_column(business), key).await?;
    let marks: Vec<_> = indexes.iter().map(BlindIndex::to_bytes).collect();
    store::is_heard(tx, business, &marks).await
}

/// Remembers what was heard, so that the same again is no effect. Its contacts are held, so nobody does the same beside us;
/// should the carrier tell one message of two people, the unique key says so and this transaction ends.
async fn keep(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (heard, key, at): (&Heard, &str, DateTime<Utc>),
) -> Result<(), Error> {
    let Some(contact) = heard.contact else { return Ok(()) };
    let now = by.now.trunc_subsecs(6);
    store::forget_heard(tx, now - REMEMBERED).await?;
    let mark = vault.index(tx, &heard_column(business), key).await?.to_bytes();
    let new = store::NewHeard {
        id: by.chance.uuid_v7(by.now),
        mark: &mark,
        marks: std::slice::from_ref(&mark),
        contact,
        route: heard.route.as_str(),
        answer: heard.answer.map(Answer::as_str),
        at,
        now,
    };
    store::insert_heard(tx, business, &new).await?;
    let id = contact.to_string();
    let object = Object { kind: "contact", id: &id };
    let details = json!({ "route": heard.route.as_str(), "answer": heard.answer.map(Answer::as_str),
        "words": heard.language, "at": at });
    by.record(tx, Act { word: acts::WISH_HEARD, business: Some(business), object, details }).await?;
    Ok(())
}

/// What somebody set on WhatsApp (webhook `user_preferences`, category `marketing_messages`).
#[derive(Clone, Copy, Debug)]
pub struct Preference<'a> {
    /// Of which number.
    pub phone: Option<&'a Phone>,
    /// Of which user id.
    pub user_id: Option<&'a UserId>,
    /// `stop`; else `resume` or `signup`.
    pub stop: bool,
    /// When, by the carrier's clock.
    pub at: DateTime<Utc>,
}

/// Applies a setting, in the caller's transaction. Twice, late and out of order are all the same: the latest counts. Whether
/// what is queued for her must be judged anew.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn hear_preference(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    told: &Preference<'_>,
) -> Result<bool, Error> {
    let at = told.at.min(by.now).trunc_subsecs(6);
    let phone = told.phone.map(|phone| Contact::Phone(phone.clone()));
    let contacts: Vec<_> = phone.into_iter().chain(told.user_id.map(|id| Contact::UserId(id.clone()))).collect();
    let mut stops = false;
    for contact in &contacts {
        let known = contact::hold(tx, vault, by, business, contact).await?;
        if told.stop {
            let new = NewSuppression {
                scope: Scope::Marketing,
                channel: Some(Channel::Whatsapp),
                cause: Cause::Preference,
                reason: "user_preferences",
                at,
                until: None,
            };
            stops |= suppressions::set(tx, by, business, (known.contact_id, &new)).await?;
        } else {
            let end = End { scope: Scope::Marketing, cause: Cause::Preference, reason: "user_preferences", at };
            suppressions::end(tx, by, business, (known.contact_id, end)).await?;
        }
    }
    Ok(stops)
}

/// What a change of number came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The number that she left: nothing goes there.
    pub old: ContactId,
    /// Her number now.
    pub new: ContactId,
    /// Reasons not to write that came with her.
    pub carried: u32,
    /// Purposes that she is to be asked about anew.
    pub to_ask: u32,
}

/// Applies that somebody has another number (webhook message of type `system`, `user_changed_number`), in the caller's
/// transaction. The old one may be a stranger's tomorrow, so nothing goes there any more. What she said against messages
/// holds under the new one; what she agreed to is not carried over but asked for anew. Again is no effect.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn changed_number(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (old, new, at): (&Contact, &Contact, DateTime<Utc>),
) -> Result<Changed, Error> {
    let at = at.min(by.now).trunc_subsecs(6);
    let old_known = contact::hold(tx, vault, by, business, old).await?;
    let new_known = contact::hold(tx, vault, by, business, new).await?;
    let mut changed = Changed { old: old_known.contact_id, new: new_known.contact_id, carried: 0, to_ask: 0 };
    let in_force = store::list_in_force(tx, changed.old, by.now).await?;
    let left = NewSuppression {
        scope: Scope::Identity,
        channel: Some(Channel::Whatsapp),
        cause: Cause::Carrier,
        reason: "number_changed",
        at,
        until: None,
    };
    suppressions::set(tx, by, business, (changed.old, &left)).await?;
    store::leave_group(tx, business, changed.old).await?;
    for one in in_force.iter().filter(|one| matches!(one.scope, Scope::All | Scope::Marketing)) {
        let carried = NewSuppression {
            scope: one.scope,
            channel: one.channel,
            cause: one.cause,
            reason: "number_changed",
            // As old as it is, so that a yes she said since under the new number outlasts it.
            at: one.at,
            until: one.until,
        };
        changed.carried += u32::from(suppressions::set(tx, by, business, (changed.new, &carried)).await?);
    }
    for current in store::list_current(tx, changed.old, at).await? {
        if current.state != ConsentState::Given {
            continue;
        }
        let id = ConsentId(by.chance.uuid_v7(by.now));
        let ask = NewConsent {
            purpose: &current.purpose,
            state: ConsentState::AskAgain,
            source: Source::NumberChange,
            wording_version: current.wording_version.as_deref(),
            language: current.language.as_deref(),
            proof: None,
            at,
        };
        changed.to_ask += u32::from(consents::write(tx, vault, by, business, (new_known, id, &ask)).await?.new);
    }
    let id = changed.new.to_string();
    let details = json!({ "old": changed.old, "carried": changed.carried, "to_ask": changed.to_ask, "at": at });
    let object = Object { kind: "contact", id: &id };
    by.record(tx, Act { word: acts::NUMBER_CHANGED, business: Some(business), object, details }).await?;
    Ok(changed)
}

/// Applies that the key behind a number is another one (webhook message of type `system`, `customer_identity_changed`):
/// another phone, or another person. Nothing goes there until she is known again ([`verified`]). Whether that is new.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn identity_changed(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, at): (&Contact, DateTime<Utc>),
) -> Result<bool, Error> {
    let known = contact::hold(tx, vault, by, business, contact).await?;
    let new = NewSuppression {
        scope: Scope::Identity,
        channel: Some(Channel::Whatsapp),
        cause: Cause::Carrier,
        reason: "identity_changed",
        at: at.min(by.now).trunc_subsecs(6),
        until: None,
    };
    suppressions::set(tx, by, business, (known.contact_id, &new)).await
}

/// Somebody made sure, by another way than this number, that it is hers: a code to her mail, her face at the counter.
/// `how` is one word for the evidence. Whether anything stood against it.
///
/// # Errors
/// [`Error::BadField`] for a `how` that is no word.
pub async fn verified(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, how): (&Contact, &str),
) -> Result<bool, Error> {
    suppressions::lift(tx, vault, by, business, (contact, Scope::Identity, Cause::Carrier, how)).await
}
