//! People of staff as somebody types them in: checked, sealed for their cells, and indexed for sign-in.

use sqlx::{Connection, PgConnection};

use super::{
    BusinessId, Error, Role,
    staff::{self, ContactKind, Decision, NewStaff, SealedContact, Staff},
};
use crate::{
    outbound::Phone,
    vault::{
        BlindIndex, Cell, Class, INSTALLATION, IndexColumn, IndexedColumn, Key, Owner, SealedColumn, Source, Vault,
        Version, as_it_stands,
    },
};

const TABLE: &str = "muneem.people_staff";
const BUSINESSES: &str = "muneem.people_businesses";
const CREDENTIALS: &str = "muneem.people_credentials";
const PROVIDERS: &str = "muneem.people_oidc_providers";
const LINKS: &str = "muneem.people_oidc_links";

/// What this duty seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(TABLE, "name_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(TABLE, "phone_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(TABLE, "email_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(BUSINESSES, "gstin_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_name_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_phone_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_email_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "mail_from_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(PROVIDERS, "client_secret_sealed", Key::uuid("provider_id")),
    SealedColumn::of_row(LINKS, "subject_sealed", Key::uuid("link_id")).of_installation(),
    SealedColumn::of_row(CREDENTIALS, "totp_sealed", Key::uuid("staff_id")).of_installation(),
    // It becomes the one above once it has been proved with a code.
    SealedColumn {
        cell_column: "totp_sealed",
        ..SealedColumn::of_row(CREDENTIALS, "totp_pending_sealed", Key::uuid("staff_id")).of_installation()
    },
];

/// What this duty looks up.
pub const INDEXED: &[IndexedColumn] = &[
    IndexedColumn {
        table: TABLE,
        column: "phone_index",
        version: Version::Beside("phone_index_version"),
        purpose: "muneem.people_staff.phone_index",
        key: Key::uuid("staff_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "phone_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: TABLE,
        column: "email_index",
        version: Version::Beside("email_index_version"),
        purpose: "muneem.people_staff.email_index",
        key: Key::uuid("staff_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "email_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: BUSINESSES,
        column: "gstin_index",
        version: Version::Beside("gstin_index_version"),
        purpose: "muneem.people_businesses.gstin_index",
        key: Key::uuid("business_id"),
        owner: Owner::Row,
        source: Source::Sealed { column: "gstin_sealed", value: as_it_stands },
    },
    // Its canonical form names the provider too, which the row's sealed value does not.
    IndexedColumn {
        table: LINKS,
        column: "subject_index",
        version: Version::Beside("subject_index_version"),
        purpose: "muneem.people_oidc_links.subject_index",
        key: Key::uuid("link_id"),
        owner: Owner::Installation,
        source: Source::Gone,
    },
];

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
    let mut tx = db.begin().await?;
    let staff_id = staff::new_staff_id(decision);
    let row = staff_id.to_string();
    let business_id = person.business_id.unwrap_or(INSTALLATION);
    let cell = |column| Cell { business_id, table: TABLE, column, row: &row };
    let email = person.email.as_deref().map(canonical_email).transpose()?;
    let name = vault.seal(&mut tx, Class::Contact, &cell("name_sealed"), person.name.trim().as_bytes()).await?;
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
    let name = match kind {
        ContactKind::Phone => "phone_index",
        ContactKind::Email => "email_index",
    };
    let mut found = Vec::new();
    for BlindIndex { digest, .. } in vault.indexes(db, &column(name), value).await? {
        for staff in staff::find_staff_by_contact(db, kind, &digest).await? {
            if !found.contains(&staff) {
                found.push(staff);
            }
        }
    }
    Ok(found)
}

/// One index for all staff: sign-in does not know the business yet.
fn column(column: &str) -> IndexColumn<'_> {
    IndexColumn { business_id: INSTALLATION, table: TABLE, column }
}

/// Trimmed and in small letters. Local parts may differ by case on paper (RFC 5321 section 2.4), nowhere in practice;
/// two people told apart by case alone would be an invitation to mistake one for the other.
fn canonical_email(text: &str) -> Result<String, Error> {
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
