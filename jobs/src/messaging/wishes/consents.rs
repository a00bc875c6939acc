//! Consent for one purpose: given, taken back, proved.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    CONSENTS, Cause, Consent, ConsentId, ConsentState, Contact, ContactId, Error, NewConsent, Scope, Source,
    Suppression,
    contact::{self, Known},
    model::recorder,
    store::{self, Row},
    suppressions::{self, End},
};
use crate::{
    evidence::{Act, By, Object, words},
    messaging::Language,
    people::BusinessId,
    vault::{Cell, Class, Vault},
};

/// Most events of one history that are shown.
const SHOWN: i64 = 500;

/// What became of a consent that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whose.
    pub contact_id: ContactId,
    /// Its row.
    pub consent_id: ConsentId,
    /// Whether it says anything new: the same event again is none.
    pub new: bool,
    /// Where the purpose stands now, whatever this event said: an older one changes nothing.
    pub stands: ConsentState,
}

/// What is known of one contact.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Wishes {
    /// What she said of purposes, newest first, 500 at most.
    pub consents: Vec<Consent>,
    /// Reasons not to write and their ends, newest first, 500 at most.
    pub suppressions: Vec<Suppression>,
    /// Since when an erasure keeps her out.
    pub erased_at: Option<DateTime<Utc>>,
}

/// Records what somebody said of one purpose, in the caller's transaction and with evidence. A consent that she gives
/// herself ends what she had said against messages before; with proof, and after an erasure, it ends that too.
///
/// Law: DPDP Act 2023 s.6(1), (4), (10).
///
/// # Errors
/// [`Error::BadField`]; [`Error::Erased`].
pub async fn record(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, new): (&Contact, &NewConsent<'_>),
) -> Result<Recorded, Error> {
    new.check(by.now)?;
    let new = NewConsent { at: new.at.trunc_subsecs(6), ..*new };
    let consent_id = ConsentId(by.chance.uuid_v7(by.now));
    let marks = contact::marks(tx, vault, business, contact).await?;
    if let Some(erased_at) = store::find_erasure(tx, business, &marks).await? {
        let returns =
            new.state == ConsentState::Given && new.source.is_her_own() && new.proof.is_some() && new.at > erased_at;
        match new.state {
            ConsentState::Given if !returns => return Err(Error::Erased),
            // Nothing to take back: an erased person is written to by nobody.
            ConsentState::Withdrawn | ConsentState::AskAgain => return Err(Error::Erased),
            ConsentState::Given => {
                store::lift_erasures(tx, business, &marks, (consent_id, by.now.trunc_subsecs(6))).await?;
            }
        }
    }
    let known = contact::hold(tx, vault, by, business, contact).await?;
    write(tx, vault, by, business, (known, consent_id, &new)).await
}

/// Writes one event of a held contact and what follows from it.
pub(super) async fn write(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (known, consent_id, new): (Known, ConsentId, &NewConsent<'_>),
) -> Result<Recorded, Error> {
    let (sealed, digest) = match new.proof {
        None => (None, None),
        Some(proof) => {
            let (sealed, digest) = seal_proof(tx, vault, business, consent_id, proof).await?;
            (Some(sealed), Some(digest))
        }
    };
    let recorder = recorder(&by.actor);
    let row = Row {
        id: consent_id.0,
        business,
        contact: known.contact_id,
        now: by.now.trunc_subsecs(6),
        recorder: &recorder,
    };
    let event = store::NewRow {
        purpose: new.purpose,
        state: new.state,
        source: new.source.as_str(),
        wording_version: new.wording_version,
        language: new.language,
        proof_sealed: sealed.as_deref(),
        proof_sha256: digest.as_ref().map(<[u8; 32]>::as_slice),
        at: new.at,
    };
    let is_new = store::insert_consent(tx, &row, &event).await?;
    if is_new {
        let word = match new.state {
            ConsentState::Given => words::CONSENT_GIVEN,
            ConsentState::Withdrawn => words::CONSENT_WITHDRAWN,
            ConsentState::AskAgain => words::CONSENT_TO_BE_ASKED,
        };
        let details = json!({
            "consent": consent_id, "purpose": new.purpose, "source": new.source, "at": new.at,
            "wording": new.wording_version, "language": new.language, "proof_sha256": digest.map(hex::encode),
        });
        let id = known.contact_id.to_string();
        let object = Object { kind: "contact", id: &id };
        by.record(tx, Act { word, business: Some(business), object, details }).await?;
    }
    if let Some(language) = new.language.filter(|_| is_new) {
        store::set_language(tx, known.contact_id, language).await?;
    }
    if is_new && new.state == ConsentState::Given && new.source.is_her_own() {
        for scope in [Scope::All, Scope::Marketing] {
            let end = End { scope, cause: Cause::Person, reason: "consent_given", at: new.at };
            suppressions::end(tx, by, business, (known.contact_id, end)).await?;
        }
    }
    let current = store::list_current(tx, known.contact_id, DateTime::<Utc>::MAX_UTC.min(far())).await?;
    let stands =
        current.iter().find(|current| current.purpose == new.purpose).map_or(new.state, |current| current.state);
    Ok(Recorded { contact_id: known.contact_id, consent_id, new: is_new, stands })
}

/// Later than anything that was said, and an instant that Postgres knows.
fn far() -> DateTime<Utc> {
    DateTime::from_timestamp(253_402_300_799, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Seals a proof for its row and makes the digest by which the evidence names it: of the row's id, a line feed and the
/// proof, so that two people's equal proofs do not look equal.
pub(super) async fn seal_proof(
    tx: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    consent_id: ConsentId,
    proof: &str,
) -> Result<(Vec<u8>, [u8; 32]), Error> {
    let row = consent_id.to_string();
    let cell = Cell { business_id: business, table: CONSENTS, column: "proof_sealed", row: &row };
    let sealed = vault.seal(tx, Class::Document, &cell, proof.as_bytes()).await?;
    let digest = Sha256::new().chain_update(&row).chain_update("\n").chain_update(proof).finalize();
    Ok((sealed, digest.into()))
}

/// What is known of one contact; nothing of who never said anything. That somebody looked is on record.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn history(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    contact: &Contact,
) -> Result<Wishes, Error> {
    let marks = contact::marks(tx, vault, business, contact).await?;
    let erased_at = store::find_erasure(tx, business, &marks).await?;
    let found = store::find_contact(tx, business, &marks).await?;
    let mut wishes = Wishes { erased_at, ..Wishes::default() };
    let id = found.map_or_else(|| "unknown".to_owned(), |known| known.contact_id.to_string());
    let details = json!({ "known": found.is_some(), "erased": erased_at.is_some() });
    let object = Object { kind: "contact", id: &id };
    by.record(tx, Act { word: words::WISHES_SHOWN, business: Some(business), object, details }).await?;
    if let Some(known) = found {
        wishes.consents = store::list_consents(tx, known.contact_id, SHOWN).await?;
        wishes.suppressions = store::list_suppressions(tx, known.contact_id, SHOWN).await?;
    }
    Ok(wishes)
}

/// Unsubscribes a mail address, as the one click of a mail asks for (RFC 8058): from one purpose, or from everything that
/// sells. No proof and no sign-in is asked of her. Again is no effect.
///
/// # Errors
/// [`Error::BadField`] for a purpose that is none.
pub async fn one_click(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    (contact, purpose): (&Contact, Option<&str>),
) -> Result<ContactId, Error> {
    let known = contact::hold(tx, vault, by, business, contact).await?;
    let at = by.now.trunc_subsecs(6);
    match purpose {
        Some(purpose) => {
            super::checked_purpose(purpose)?;
            let current = store::list_current(tx, known.contact_id, at).await?;
            let gone = |one: &store::Current| one.purpose == purpose && one.state == ConsentState::Withdrawn;
            if !current.iter().any(gone) {
                let id = ConsentId(by.chance.uuid_v7(by.now));
                let new = taken_back(purpose, Source::MailOneClick, at);
                write(tx, vault, by, business, (known, id, &new)).await?;
            }
        }
        None => {
            suppressions::say_no(tx, vault, by, business, (known, Scope::Marketing, None), (Source::MailOneClick, at))
                .await?;
        }
    }
    Ok(known.contact_id)
}

/// In which language somebody is written to where nobody says: the one she was asked in for consent, or whose words she
/// wrote.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn language_of(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact: &Contact,
) -> Result<Option<Language>, Error> {
    let marks = contact::marks(conn, vault, business, contact).await?;
    let language = store::find_language(conn, business, &marks).await?;
    Ok(language.map(|language| Language::of(&language)))
}

/// A purpose that is taken back.
pub(super) const fn taken_back(purpose: &str, source: Source, at: DateTime<Utc>) -> NewConsent<'_> {
    NewConsent {
        purpose,
        state: ConsentState::Withdrawn,
        source,
        wording_version: None,
        language: None,
        proof: None,
        at,
    }
}
