//! How somebody of staff is addressed and reached, opened for whoever writes to her.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::{Connection, PgConnection};
use zeroize::Zeroizing;

use super::{BusinessId, Error, StaffId, contact_store as store};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::{Email, Phone},
    vault::{Cell, INSTALLATION, Vault},
};

/// Names that one event tells of: it stays well below what an event may hold.
const NAMES_AT_ONCE: usize = 200;

/// A person's name and numbers, in clear.
pub struct Contact {
    /// Whom she works for; `None`: the platform.
    pub business_id: Option<BusinessId>,
    /// The business's registered name, if she works for one.
    pub business_name: Option<String>,
    /// Her language, BCP 47.
    pub language: String,
    /// Her name.
    pub name: Zeroizing<String>,
    /// Her phone.
    pub phone: Option<Phone>,
    /// Her mail address.
    pub email: Option<Email>,
}

/// Opens the contact of somebody who works here; nothing of somebody who has left.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn open_contact(db: &mut PgConnection, vault: &Vault, staff_id: StaffId) -> Result<Option<Contact>, Error> {
    let Some(row) = store::find_contact(db, staff_id).await? else { return Ok(None) };
    let id = staff_id.to_string();
    let business_id = row.business_id.unwrap_or(INSTALLATION);
    let cell = |column| Cell { business_id, table: "muneem.people_staff", column, row: &id };
    let name = open(db, vault, &cell("name_sealed"), &row.name_sealed).await?;
    let mut phone = None;
    if let Some(sealed) = &row.phone_sealed {
        phone = Phone::parse(&open(db, vault, &cell("phone_sealed"), sealed).await?).ok();
    }
    let mut email = None;
    if let Some(sealed) = &row.email_sealed {
        email = Email::parse(&open(db, vault, &cell("email_sealed"), sealed).await?).ok();
    }
    let (language, business_name) = (row.language, row.business_name);
    Ok(Some(Contact { business_id: row.business_id, business_name, language, name, phone, email }))
}

/// People by where they work; `None`: the platform.
pub type People = BTreeMap<Option<BusinessId>, BTreeSet<StaffId>>;

/// Puts on record that somebody is shown the names of `people`, before she is.
///
/// # Errors
/// The evidence cannot be written.
pub async fn note_names(db: &mut PgConnection, people: &People, by: &By<'_>) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    for (business, staff) in people {
        let id = business.map_or_else(|| "installation".to_owned(), |business| business.to_string());
        let staff: Vec<StaffId> = staff.iter().copied().collect();
        for staff in staff.chunks(NAMES_AT_ONCE) {
            let object = Object { kind: "business", id: &id };
            let details = json!({ "staff": staff });
            by.record(&mut tx, Act { word: words::NAMES_SHOWN, business: *business, object, details }).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn open(
    db: &mut PgConnection,
    vault: &Vault,
    cell: &Cell<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<String>, Error> {
    let plain = vault.open(db, cell, sealed).await?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&plain).into_owned()))
}
