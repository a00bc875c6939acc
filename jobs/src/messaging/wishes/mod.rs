//! What people want to hear: whom a business may write to about what, who has said no, and who must not come back.
//!
//! - A [`Contact`] is an address of one business: a number, a mail address, a WhatsApp user id. It lies sealed and is
//!   looked up by its blind index; contacts that the carrier named together are one person.
//! - Consent is kept for each contact and purpose, as a history that nobody changes ([`record`]). Where it stands is what
//!   was said last by *its* clock: an older word that arrives late changes nothing. Law: DPDP Act 2023 s.6.
//! - A suppression is a reason not to write ([`suppress`]), and each has somebody who can end it ([`Cause`]): what the
//!   person said, only she takes back. An erased person leaves a keyed index alone, and is brought back by nothing but a
//!   consent that she gives herself afterwards ([`erase`], [`record`]).
//! - [`judge`] says whether a message may go: one table, [`TABLE`], for every class of message and every reason.
//! - [`hear`] applies what people write or set on WhatsApp; words to stop are data ([`words`]).
//!
//! Everything here is one business's own: no function finds what is another's.

mod consents;
mod contact;
mod erasures;
mod error;
mod hear;
#[cfg(test)]
mod hear_tests;
mod import;
mod judge;
mod model;
mod store;
mod suppressions;
#[cfg(test)]
pub(in crate::messaging) mod tests;
pub mod words;

use crate::vault::{IndexedColumn, Key, Owner, SealedColumn, Source as MadeFrom, Version};

pub use consents::{Recorded, Wishes, history, language_of, one_click, record};
pub use contact::{Contact, UserId};
pub use erasures::{erase, note_checked};
pub use error::Error;
pub use hear::{
    Answer, Changed, Heard, Inbound, Preference, Said, changed_number, hear, hear_preference, identity_changed,
    verified,
};
pub use import::{Import, Imported, RefusedRow, import};
pub use judge::{Bearing, Item, Obstacle, Question, Reason, TABLE, Verdict, judge, judge_all, judge_each};
pub use model::{
    Cause, Channel, Class, Consent, ConsentId, ConsentState, ContactId, NewConsent, NewSuppression, Scope, Source,
    Suppression, checked_purpose,
};
pub use suppressions::{CarrierTold, carrier_said, lift, set_words, suppress, words_of};

pub(in crate::messaging) use contact::{mark, marks};
pub(in crate::messaging) use model::{is_language, recorder};

const CONSENTS: &str = "muneem.messaging_consents";

/// What is sealed here.
pub(super) const SEALED: [SealedColumn; 2] = [
    SealedColumn::of_row(contact::TABLE, "address_sealed", Key::uuid("contact_id")),
    SealedColumn::of_row(CONSENTS, "proof_sealed", Key::uuid("consent_id")),
];

/// What is looked up here. Of the erased and of what was heard nothing is kept to make an index anew from: their keys
/// stay as long as they do.
pub(super) const INDEXED: [IndexedColumn; 3] = [
    IndexedColumn {
        table: contact::TABLE,
        column: "mark",
        version: Version::Within,
        purpose: "muneem.messaging_contacts.mark",
        key: Key::uuid("contact_id"),
        owner: Owner::Row,
        source: MadeFrom::Sealed { column: "address_sealed", value: contact::canonical_of },
    },
    IndexedColumn {
        table: "muneem.messaging_erasures",
        column: "mark",
        version: Version::Within,
        purpose: "muneem.messaging_contacts.mark",
        key: Key::uuid("erasure_id"),
        owner: Owner::Row,
        source: MadeFrom::Gone,
    },
    IndexedColumn {
        table: "muneem.messaging_heard",
        column: "mark",
        version: Version::Within,
        purpose: "muneem.messaging_heard.mark",
        key: Key::uuid("heard_id"),
        owner: Owner::Row,
        source: MadeFrom::Gone,
    },
];
