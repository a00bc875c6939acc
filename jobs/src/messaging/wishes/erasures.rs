//! What an erasure leaves, and that somebody asked.

use chrono::SubsecRound;
use serde_json::json;
use sqlx::PgConnection;

use super::{Contact, Error, contact, store};
use crate::{
    evidence::{Act, By, Object, words},
    people::BusinessId,
    vault::Vault,
};

/// Erases what is known of a contact: its address, everything that was said of it, its place among other addresses. What
/// stays is a keyed index that says nothing to whoever has not the address at hand, so that no import brings her back.
/// Her codes go with it. Again is no effect beyond the record.
///
/// Law: DPDP Act 2023 s.8(7), s.12(3).
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn erase(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    contact: &Contact,
) -> Result<(), Error> {
    vault.hold_equal(tx, &contact::column(business), &contact.canonical(), "").await?;
    let marks = contact::marks(tx, vault, business, contact).await?;
    let known = store::find_contact(tx, business, &marks).await?;
    let already = store::find_erasure(tx, business, &marks).await?.is_some();
    if let Some(known) = known {
        store::leave_group(tx, business, known.contact_id).await?;
        store::delete_contact(tx, business, known.contact_id).await?;
    }
    crate::messaging::otp::forget(tx, business, &marks).await?;
    let id = by.chance.uuid_v7(by.now);
    if !already {
        let mark = contact::mark(tx, vault, business, contact).await?;
        store::insert_erasure(tx, (id, business), &mark, by.now.trunc_subsecs(6)).await?;
    }
    let contact = known.map_or_else(|| "unknown".to_owned(), |known| known.contact_id.to_string());
    let object = Object { kind: "contact", id: &contact };
    let details = json!({ "known": known.is_some(), "erased_before": already });
    by.record(tx, Act { word: words::CONTACT_ERASED, business: Some(business), object, details }).await?;
    Ok(())
}

/// Puts on record that somebody asked whether so many contacts may be written to, and how many may not.
///
/// # Errors
/// What cannot be recorded is not answered.
pub async fn note_checked(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    (asked, refused): (usize, usize),
) -> Result<(), Error> {
    let id = business.to_string();
    let object = Object { kind: "business", id: &id };
    let details = json!({ "asked": asked, "refused": refused });
    by.record(tx, Act { word: words::CONTACTS_CHECKED, business: Some(business), object, details }).await?;
    Ok(())
}
