//! People of staff as somebody types them in: checked, sealed for their cells, and indexed for sign-in.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use super::{
    BusinessId, Error, Role,
    business::checked_language,
    hints,
    staff::{self, ContactKind, Decision, NewStaff, SealedContact, Staff},
    staff_store,
};
use crate::{
    outbound::Phone,
    vault::{BlindIndex, Cell, Class, INSTALLATION, IndexColumn, Vault},
};

pub(super) const TABLE: &str = "muneem.people_staff";

/// A person as she is enrolled.
pub struct Enrolment {
    /// Whom she works for; `None`: the platform.
    pub business_id: Option<BusinessId>,
    /// Her name.
    pub name: String,
    /// Her language, BCP 47.
    pub language: String,
    /// Her phone.
    pub phone: Option<Phone>,
    /// Her mail address.
    pub email: Option<String>,
    /// What she is from the start.
    pub roles: Vec<Role>,
}

/// Adds somebody; what is personal is sealed before it is written.
///
/// # Errors
/// As [`staff::add_staff`]; the mail address is malformed; the vault is sealed.
pub async fn enrol_staff(
    db: &mut PgConnection,
    vault: &Vault,
    person: &Enrolment,
    decision: &Decision<'_>,
) -> Result<Staff, Error> {
    let name = person.name.trim();
    if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
        let problem = "is empty, longer than 200 characters or holds a control character".to_owned();
        return Err(Error::BadField { field: "name", problem, mend: "write the name of one person" });
    }
    checked_language(&person.language)?;
    let mut tx = db.begin().await?;
    let staff_id = staff::new_staff_id(decision);
    let row = staff_id.to_string();
    let business_id = person.business_id.unwrap_or(INSTALLATION);
    let cell = |column| Cell { business_id, table: TABLE, column, row: &row };
    let email = person.email.as_deref().map(canonical_email).transpose()?;
    let name = vault.seal(&mut tx, Class::Contact, &cell("name_sealed"), name.as_bytes()).await?;
    let mut contacts = [None, None];
    let phone = person.phone.as_ref().map(Phone::as_e164);
    for (at, (value, kind, sealed, index)) in [
        (phone, ContactKind::Phone, "phone_sealed", "phone_index"),
        (email.as_deref(), ContactKind::Email, "email_sealed", "email_index"),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(value) = value else { continue };
        let sealed = vault.seal(&mut tx, Class::Contact, &cell(sealed), value.as_bytes()).await?;
        vault.hold_equal(&mut tx, &column(index), value, &business_id.to_string()).await?;
        let BlindIndex { digest, version } = vault.index(&mut tx, &column(index), value).await?;
        // The unique index sees one version of the index key; the others are looked for.
        let others = vault.indexes(&mut tx, &column(index), value).await?;
        for other in others.iter().filter(|other| other.version != version) {
            let found = staff::find_staff_by_contact(&mut tx, kind, &other.digest).await?;
            if found.iter().any(|staff| staff.business_id == person.business_id) {
                return Err(Error::ContactTaken);
            }
        }
        contacts[at] = Some(SealedContact { sealed, index: digest.to_vec(), index_version: version.into() });
    }
    let [phone, email] = contacts;
    let new = NewStaff {
        staff_id,
        business_id: person.business_id,
        name,
        language: person.language.clone(),
        phone,
        email,
        roles: person.roles.clone(),
    };
    let added = staff::add_staff(&mut tx, &new, decision).await?;
    tx.commit().await?;
    Ok(added)
}

/// A person with hints of what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Her roles and instants.
    #[serde(flatten)]
    pub staff: Staff,
    /// Her initials; none once she was removed.
    pub name: Option<String>,
    /// The last two digits of her phone.
    pub phone: Option<String>,
    /// Her mail address, shortened.
    pub email: Option<String>,
}

impl Known {
    /// As [`Staff::phone_stale_since`], of somebody who works here and has a phone.
    pub fn phone_stale_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.phone.as_ref().filter(|_| self.staff.removed_at.is_none())?;
        self.staff.phone_stale_since(now)
    }
}

/// Hints of who `staff` is. Whoever calls has checked that she may be seen.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn describe_staff(db: &mut PgConnection, vault: &Vault, staff: Staff) -> Result<Known, Error> {
    let row = staff.staff_id.to_string();
    let business_id = staff.business_id.unwrap_or(INSTALLATION);
    let sealed = staff_store::find_sealed(db, staff.staff_id).await?;
    let mut shown = [None, None, None];
    for (hint, (column, sealed, show)) in shown.iter_mut().zip([
        ("name_sealed", &sealed.name, hints::of_name as fn(&str) -> String),
        ("phone_sealed", &sealed.phone, hints::of_phone),
        ("email_sealed", &sealed.email, hints::of_email),
    ]) {
        let Some(sealed) = sealed else { continue };
        let plain = vault.open(db, &Cell { business_id, table: TABLE, column, row: &row }, sealed).await?;
        *hint = Some(std::str::from_utf8(&plain).map_or_else(|_| "…".to_owned(), show));
    }
    let [name, phone, email] = shown;
    Ok(Known { staff, name, phone, email })
}

/// Everybody who has this phone: one person may work for several businesses.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn find_staff_by_phone(db: &mut PgConnection, vault: &Vault, phone: &Phone) -> Result<Vec<Staff>, Error> {
    find(db, vault, ContactKind::Phone, phone.as_e164()).await
}

/// Everybody who has this mail address; what is no address is nobody's.
///
/// # Errors
/// As [`find_staff_by_phone`].
pub async fn find_staff_by_email(db: &mut PgConnection, vault: &Vault, email: &str) -> Result<Vec<Staff>, Error> {
    match canonical_email(email) {
        Ok(email) => find(db, vault, ContactKind::Email, &email).await,
        Err(_) => Ok(Vec::new()),
    }
}

/// Looks under every index key that a value may still be stored under.
async fn find(db: &mut PgConnection, vault: &Vault, kind: ContactKind, value: &str) -> Result<Vec<Staff>, Error> {
    let mut found = Vec::new();
    for BlindIndex { digest, .. } in vault.indexes(db, &index_of(kind), value).await? {
        for staff in staff::find_staff_by_contact(db, kind, &digest).await? {
            if !found.contains(&staff) {
                found.push(staff);
            }
        }
    }
    Ok(found)
}

/// Where contacts of this kind are indexed: those of staff, and of whoever stands in for one of them.
pub(super) fn index_of(kind: ContactKind) -> IndexColumn<'static> {
    match kind {
        ContactKind::Phone => column("phone_index"),
        ContactKind::Email => column("email_index"),
    }
}

/// One index for all staff: sign-in does not know the business yet.
fn column(column: &str) -> IndexColumn<'_> {
    IndexColumn { business_id: INSTALLATION, table: TABLE, column }
}

/// Trimmed and in small letters. Local parts may differ by case on paper (RFC 5321 section 2.4), nowhere in practice;
/// two people told apart by case alone would be an invitation to mistake one for the other.
pub(super) fn canonical_email(text: &str) -> Result<String, Error> {
    let email = text.trim().to_lowercase();
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"@,;<>\"".contains(c))
    };
    match email.split_once('@') {
        Some((local, domain)) if email.len() <= 254 && plain(local) && plain(domain) && domain.contains('.') => {
            Ok(email)
        }
        _ => Err(Error::BadEmail),
    }
}
