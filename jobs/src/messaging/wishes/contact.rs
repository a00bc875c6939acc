//! Whom a business writes to: an address, kept sealed and looked up by its blind index.

use std::fmt;

use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{ContactId, Error, store};
use crate::{
    evidence::By,
    outbound::{Email, Phone},
    people::BusinessId,
    vault::{BlindIndex, Cell, Class, IndexColumn, Vault},
};

pub(super) const TABLE: &str = "muneem.messaging_contacts";

/// An address at which a business reaches somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Contact {
    /// A mobile number.
    Phone(Phone),
    /// A mail address.
    Email(Email),
    /// How WhatsApp names somebody to one business, with or without a number.
    UserId(UserId),
}

/// WhatsApp's business-scoped user id: `IN.` and up to 128 letters and digits, or `IN.ENT.` before them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId(String);

impl UserId {
    /// Reads one as the carrier writes it.
    ///
    /// # Errors
    /// [`Error::BadField`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        let read = || {
            let (country, rest) = text.split_once('.')?;
            let own = rest.strip_prefix("ENT.").unwrap_or(rest);
            let fits = country.len() == 2
                && country.bytes().all(|byte| byte.is_ascii_uppercase())
                && (1..=128).contains(&own.len())
                && own.bytes().all(|byte| byte.is_ascii_alphanumeric());
            fits.then(|| Self(text.to_owned()))
        };
        read().ok_or(Error::BadField {
            field: "user_id",
            problem: "is not a WhatsApp user id",
            mend: "send it as the carrier wrote it: IN.13491208655302741918",
        })
    }

    /// As the carrier writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(…)")
    }
}

impl Contact {
    /// Which of the three, as it stands in the table.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Phone(_) => "phone",
            Self::Email(_) => "email",
            Self::UserId(_) => "user_id",
        }
    }

    /// As it is sealed and sent.
    pub(super) fn exposed(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Phone(phone) => phone.as_e164().to_owned(),
            Self::Email(email) => email.expose(),
            Self::UserId(id) => id.0.clone(),
        })
    }

    /// As it is looked up. Whoever said no as `Asha@` is not written to as `asha@`: what a mail server could tell apart
    /// is one address here.
    pub(in crate::messaging) fn canonical(&self) -> Zeroizing<String> {
        canonical(&self.exposed())
    }
}

fn canonical(exposed: &str) -> Zeroizing<String> {
    // A user id keeps its case: the carrier tells them apart by it. It has no @.
    Zeroizing::new(if exposed.contains('@') { exposed.to_lowercase() } else { exposed.to_owned() })
}

/// From what is sealed to what is indexed, for whoever turns keys.
pub(super) fn canonical_of(plain: &[u8]) -> Option<Zeroizing<String>> {
    std::str::from_utf8(plain).ok().map(canonical)
}

/// Under the keys of this column stands every index of a contact.
pub(in crate::messaging) fn column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: TABLE, column: "mark" }
}

/// What is stored for a contact that is written now.
pub(in crate::messaging) async fn mark(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact: &Contact,
) -> Result<Vec<u8>, Error> {
    Ok(vault.index(conn, &column(business), &contact.canonical()).await?.to_bytes())
}

/// All that may be stored for a contact while index keys change.
pub(in crate::messaging) async fn marks(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact: &Contact,
) -> Result<Vec<Vec<u8>>, Error> {
    let indexes = vault.indexes(conn, &column(business), &contact.canonical()).await?;
    Ok(indexes.iter().map(BlindIndex::to_bytes).collect())
}

/// A contact that is known here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) contact_id: ContactId,
    pub(super) group_id: ContactId,
}

/// The row of a contact, if there is one.
pub(super) async fn find(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact: &Contact,
) -> Result<Option<Known>, Error> {
    let marks = marks(conn, vault, business, contact).await?;
    store::find_contact(conn, business, &marks).await
}

/// The row of a contact, made where there is none, and held until the transaction ends: what is said of one contact is
/// written one after the other.
pub(super) async fn hold(
    conn: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    contact: &Contact,
) -> Result<Known, Error> {
    vault.hold_equal(conn, &column(business), &contact.canonical(), "").await?;
    let marks = marks(conn, vault, business, contact).await?;
    if let Some(known) = store::find_contact(conn, business, &marks).await? {
        store::lock_contact(conn, known.contact_id).await?;
        return Ok(known);
    }
    let contact_id = ContactId(by.chance.uuid_v7(by.now));
    let sealed = seal(conn, vault, business, contact_id, contact).await?;
    let mark = mark(conn, vault, business, contact).await?;
    let row = store::NewContact { contact_id, kind: contact.kind(), mark: &mark, sealed: &sealed };
    // Somebody else may have made it since we looked; ours then waited for hers and is none.
    store::insert_contact(conn, business, &row, by.now).await?;
    let known = store::find_contact(conn, business, &[marks, vec![mark]].concat()).await?;
    let known = known.ok_or(sqlx::Error::RowNotFound)?;
    store::lock_contact(conn, known.contact_id).await?;
    Ok(known)
}

/// Seals an address for its row.
pub(super) async fn seal(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact_id: ContactId,
    contact: &Contact,
) -> Result<Vec<u8>, Error> {
    let row = contact_id.to_string();
    let cell = Cell { business_id: business, table: TABLE, column: "address_sealed", row: &row };
    Ok(vault.seal(conn, Class::Contact, &cell, contact.exposed().as_bytes()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_is_read_as_the_carrier_writes_it_and_shown_to_nobody() {
        for good in ["IN.1349120865", "IN.ENT.aB3", &format!("US.{}", "9".repeat(128))] {
            assert_eq!(UserId::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "IN.", "IN", "in.1", "IN.a b", "+919812345678", "IN.ENT.", &format!("IN.{}", "9".repeat(129))] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", UserId::parse("IN.7").expect("one")), "UserId(…)");
    }

    #[test]
    fn a_mail_address_in_other_capitals_is_the_same_contact() {
        let email = |text| Contact::Email(Email::parse(text).expect("an address")).canonical();
        assert_eq!(email("Asha@Example.in"), email("asha@example.in"));
        let id = |text| Contact::UserId(UserId::parse(text).expect("an id")).canonical();
        assert_ne!(id("IN.aB"), id("IN.ab"));
    }
}
