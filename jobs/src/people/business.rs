//! What is known of a business beyond its names: who stands for it, how it is reached, what it pays for.
//!
//! Personal values are sealed; the GSTIN is one of them, since that of a proprietor spells her PAN. Shown are hints, of
//! which only its owner recognises the whole.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use zeroize::Zeroizing;

use super::{
    Authority, BusinessId, Decision, Error, Scope, business_store as store, enrol, hints, links::Contact, model,
};
use crate::{
    evidence::{self, Event, EventId, Object, words},
    outbound::{Email, Phone},
    vault::{BlindIndex, Cell, Class, INSTALLATION, IndexColumn, Vault, canonical},
};

const TABLE: &str = "muneem.people_businesses";

/// What a business pays for. A business may be stricter than its plan, never laxer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// A shop that begins.
    Basic,
    /// With a second factor for everybody.
    Standard,
    /// With a replica beside the database, too.
    Premium,
}

impl Plan {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Standard, Self::Premium];

    /// As it stands in rows and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Standard => "standard",
            Self::Premium => "premium",
        }
    }

    /// Whether everybody who signs in needs a second factor.
    pub const fn demands_second_factor(self) -> bool {
        matches!(self, Self::Standard | Self::Premium)
    }

    /// Recovery point that is promised: how much of the latest work a disaster may cost at most.
    pub const fn recovery_point(self) -> TimeDelta {
        match self {
            Self::Basic | Self::Standard => TimeDelta::hours(24),
            Self::Premium => TimeDelta::hours(1),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|plan| plan.as_str() == text)
            .ok_or_else(|| format!("no plan `{text}`: take basic, standard or premium"))
    }
}

/// What is to be changed: outer `None` leaves a field as it is, inner `None` empties it.
#[derive(Default)]
pub struct Changes {
    /// The name of the registration.
    pub legal_name: Option<String>,
    /// Its GSTIN.
    pub gstin: Option<Option<String>>,
    /// What it reads, BCP 47.
    pub language: Option<String>,
    /// Who stands for it.
    pub contact_name: Option<Option<String>>,
    /// Her phone.
    pub contact_phone: Option<Option<String>>,
    /// Her mail address.
    pub contact_email: Option<Option<String>>,
    /// Its WhatsApp Business Account, as the Cloud API numbers it.
    pub whatsapp_account_id: Option<Option<String>>,
    /// The address that its mail is sent from.
    pub mail_from: Option<Option<String>>,
    /// What it pays for.
    pub plan: Option<Plan>,
    /// Its own wish for a second factor.
    pub second_factor_wanted: Option<bool>,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Changes").field(&self.fields()).finish()
    }
}

impl Changes {
    /// Names of the fields that change.
    pub fn fields(&self) -> Vec<&'static str> {
        let said = [
            ("legal_name", self.legal_name.is_some()),
            ("gstin", self.gstin.is_some()),
            ("language", self.language.is_some()),
            ("contact_name", self.contact_name.is_some()),
            ("contact_phone", self.contact_phone.is_some()),
            ("contact_email", self.contact_email.is_some()),
            ("whatsapp_account_id", self.whatsapp_account_id.is_some()),
            ("mail_from", self.mail_from.is_some()),
            ("plan", self.plan.is_some()),
            ("second_factor_wanted", self.second_factor_wanted.is_some()),
        ];
        said.into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
    }
}

/// What is known of a business, with hints in the place of personal values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Its id.
    pub business_id: BusinessId,
    /// The short name that frontends and commands use.
    pub handle: String,
    /// The name of the registration.
    pub legal_name: String,
    /// Hint of its GSTIN: State and last two characters.
    pub gstin: Option<String>,
    /// What it reads, BCP 47.
    pub language: String,
    /// Hint of who stands for it: her initials.
    pub contact_name: Option<String>,
    /// Hint of her phone: its last two digits.
    pub contact_phone: Option<String>,
    /// Hint of her mail address.
    pub contact_email: Option<String>,
    /// Its WhatsApp Business Account.
    pub whatsapp_account_id: Option<String>,
    /// Hint of the address that its mail is sent from.
    pub mail_from: Option<String>,
    /// What it pays for.
    pub plan: Plan,
    /// Its own wish for a second factor.
    pub second_factor_wanted: bool,
    /// Whether everybody who signs in needs one: by its plan or its wish.
    pub second_factor_required: bool,
    /// Promised recovery point, in minutes.
    pub recovery_point_minutes: i64,
    /// When it came here.
    pub created_at: DateTime<Utc>,
}

/// What is known of a business.
///
/// # Errors
/// `by` may not see it; the vault is sealed.
pub async fn load_profile(
    db: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    by: &Authority,
) -> Result<Profile, Error> {
    by.require(Scope::BusinessRead)?;
    check_sees(by, business)?;
    profile(db, vault, business).await
}

/// How a business shows itself in mail: its name, and the address of whoever stands for it. `None`: no such business.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn open_face(
    db: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
) -> Result<Option<(String, Option<Email>)>, Error> {
    let Some(row) = store::find_profile(db, business).await? else { return Ok(None) };
    let mut contact = None;
    if let Some(sealed) = &row.contact_email_sealed {
        let id = business.to_string();
        let cell = Cell { business_id: business, table: TABLE, column: "contact_email_sealed", row: &id };
        let plain = vault.open(db, &cell, sealed).await?;
        contact = std::str::from_utf8(&plain).ok().and_then(|text| Email::parse(text).ok());
    }
    Ok(Some((row.legal_name, contact)))
}

/// Changes what is known of a business; fields that are not named stay as they are.
///
/// # Errors
/// `by` may not; a field is off, which its error names; only the platform changes the plan.
pub async fn change_business(
    db: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    changes: &Changes,
    decision: &Decision<'_>,
) -> Result<Profile, Error> {
    let by = decision.by;
    by.require(Scope::BusinessWrite)?;
    check_sees(by, business)?;
    if changes.plan.is_some() && by.business().is_some() {
        return Err(Error::PlanNotYours);
    }
    let checked = Checked::of(changes)?;
    let mut tx = db.begin().await?;
    let mut row = store::lock_profile(&mut tx, business).await?.ok_or_else(|| unknown(business))?;
    checked.apply(&mut tx, vault, business, &mut row).await?;
    store::update_profile(&mut tx, business, &row).await?;
    let event = Event {
        event_id: EventId::new(decision.chance, decision.now),
        business_id: Some(business),
        actor: by.actor().clone(),
        verb: words::BUSINESS_CHANGED,
        object: Object { kind: "business", id: &business.to_string() },
        details: json!({ "fields": changes.fields(), "plan": changes.plan }),
    };
    evidence::record(&mut tx, &event).await?;
    let profile = profile(&mut tx, vault, business).await?;
    tx.commit().await?;
    Ok(profile)
}

/// Every business that is registered under this GSTIN; what is none belongs to nobody.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn find_businesses_by_gstin(
    db: &mut PgConnection,
    vault: &Vault,
    gstin: &str,
) -> Result<Vec<BusinessId>, Error> {
    let Ok(gstin) = canonical::gstin(gstin) else { return Ok(Vec::new()) };
    let indexes = vault.indexes(db, &column("gstin_index"), &gstin).await?;
    let digests: Vec<Vec<u8>> = indexes.iter().map(|index| index.digest.to_vec()).collect();
    store::find_by_gstin(db, &digests).await
}

fn check_sees(by: &Authority, business: BusinessId) -> Result<(), Error> {
    if by.sees(Some(business)) { Ok(()) } else { Err(unknown(business)) }
}

fn unknown(business: BusinessId) -> Error {
    Error::NoSuchBusiness(business.to_string())
}

/// One index for all businesses: whoever looks does not know which it is.
fn column(column: &str) -> IndexColumn<'_> {
    IndexColumn { business_id: INSTALLATION, table: TABLE, column }
}

/// The fields as they will stand, each in its one form.
struct Checked<'a> {
    legal_name: Option<String>,
    gstin: Option<Option<Zeroizing<String>>>,
    language: Option<&'a str>,
    contact_name: Option<Option<&'a str>>,
    contact_phone: Option<Option<Phone>>,
    contact_email: Option<Option<Email>>,
    whatsapp_account_id: Option<Option<&'a str>>,
    mail_from: Option<Option<Email>>,
    plan: Option<Plan>,
    second_factor_wanted: Option<bool>,
}

impl<'a> Checked<'a> {
    fn of(changes: &'a Changes) -> Result<Self, Error> {
        let bad = |field, problem: String, mend| Error::BadField { field, problem, mend };
        let email = |field, text: &str| {
            Email::parse(text.trim()).map_err(|_| bad(field, "is no mail address".to_owned(), "write name@domain"))
        };
        Ok(Self {
            legal_name: changes.legal_name.as_deref().map(model::checked_legal_name).transpose()?,
            gstin: each(&changes.gstin, |text| {
                canonical::gstin(text)
                    .map(Zeroizing::new)
                    .map_err(|error| bad("gstin", error.to_string(), "copy it from the registration certificate"))
            })?,
            language: changes.language.as_deref().map(checked_language).transpose()?,
            contact_name: each(&changes.contact_name, |text| {
                let name = text.trim();
                if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
                    let problem = "is empty, longer than 200 characters or holds a control character";
                    return Err(bad("contact_name", problem.to_owned(), "write the name of one person"));
                }
                Ok(name)
            })?,
            contact_phone: each(&changes.contact_phone, |text| {
                Phone::parse(text)
                    .map_err(|error| bad("contact_phone", error.to_string(), "write it with +91, digits only"))
            })?,
            contact_email: each(&changes.contact_email, |text| email("contact_email", text))?,
            whatsapp_account_id: each(&changes.whatsapp_account_id, |text| {
                let text = text.trim();
                if (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Ok(text);
                }
                let mend = "copy the number of the account from WhatsApp Manager";
                Err(bad("whatsapp_account_id", "is not 1 to 32 digits".to_owned(), mend))
            })?,
            mail_from: each(&changes.mail_from, |text| email("mail_from", text))?,
            plan: changes.plan,
            second_factor_wanted: changes.second_factor_wanted,
        })
    }

    async fn apply(
        self,
        tx: &mut PgConnection,
        vault: &Vault,
        business: BusinessId,
        row: &mut store::ProfileRow,
    ) -> Result<(), Error> {
        let id = business.to_string();
        let cell = |column| Cell { business_id: business, table: TABLE, column, row: &id };
        if let Some(name) = self.legal_name {
            row.legal_name = name;
        }
        if let Some(language) = self.language {
            language.clone_into(&mut row.language);
        }
        if let Some(account) = self.whatsapp_account_id {
            row.whatsapp_account_id = account.map(str::to_owned);
        }
        if let Some(plan) = self.plan {
            plan.as_str().clone_into(&mut row.plan);
        }
        if let Some(wanted) = self.second_factor_wanted {
            row.second_factor_wanted = wanted;
        }
        if let Some(name) = self.contact_name {
            row.contact_name_sealed = match name {
                Some(name) => {
                    Some(vault.seal(tx, Class::Contact, &cell("contact_name_sealed"), name.as_bytes()).await?)
                }
                None => None,
            };
        }
        if let Some(email) = self.mail_from {
            row.mail_from_sealed = match email {
                Some(email) => {
                    let plain = Zeroizing::new(email.expose());
                    Some(vault.seal(tx, Class::Contact, &cell("mail_from_sealed"), plain.as_bytes()).await?)
                }
                None => None,
            };
        }
        if let Some(gstin) = self.gstin {
            (row.gstin_sealed, row.gstin_index, row.gstin_index_version) = match gstin {
                Some(gstin) => {
                    let sealed = vault.seal(tx, Class::TaxId, &cell("gstin_sealed"), gstin.as_bytes()).await?;
                    let index = vault.index(tx, &column("gstin_index"), &gstin).await?;
                    indexed(sealed, &index)
                }
                None => (None, None, None),
            };
        }
        if let Some(phone) = self.contact_phone {
            (row.contact_phone_sealed, row.contact_phone_index, row.contact_phone_index_version) = match phone {
                Some(phone) => {
                    let plain = phone.as_e164();
                    let sealed =
                        vault.seal(tx, Class::Contact, &cell("contact_phone_sealed"), plain.as_bytes()).await?;
                    let index = vault.index(tx, &column("contact_phone_index"), plain).await?;
                    indexed(sealed, &index)
                }
                None => (None, None, None),
            };
        }
        if let Some(email) = self.contact_email {
            (row.contact_email_sealed, row.contact_email_index, row.contact_email_index_version) = match email {
                Some(email) => {
                    let plain = Zeroizing::new(email.expose());
                    let sealed =
                        vault.seal(tx, Class::Contact, &cell("contact_email_sealed"), plain.as_bytes()).await?;
                    let canonical = Zeroizing::new(enrol::canonical_email(&plain)?);
                    let index = vault.index(tx, &column("contact_email_index"), &canonical).await?;
                    indexed(sealed, &index)
                }
                None => (None, None, None),
            };
        }
        Ok(())
    }
}

fn each<'a, T>(
    change: &'a Option<Option<String>>,
    read: impl Fn(&'a str) -> Result<T, Error>,
) -> Result<Option<Option<T>>, Error> {
    match change {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(text)) => Ok(Some(Some(read(text)?))),
    }
}

/// Whether it is the phone or mail address of the business itself.
pub(super) async fn is_its_contact(
    db: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    contact: &Contact,
) -> Result<bool, Error> {
    let Some(row) = store::find_profile(db, business).await? else { return Ok(false) };
    let canonical = contact.canonical()?;
    let (name, own) = match contact {
        Contact::Phone(_) => ("contact_phone_index", row.contact_phone_index),
        Contact::Email(_) => ("contact_email_index", row.contact_email_index),
    };
    let Some(own) = own else { return Ok(false) };
    let indexes = vault.indexes(db, &column(name), &canonical).await?;
    Ok(indexes.iter().any(|index| index.digest[..] == own[..]))
}

type Indexed = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i32>);

fn indexed(sealed: Vec<u8>, index: &BlindIndex) -> Indexed {
    (Some(sealed), Some(index.digest.to_vec()), Some(index.version.into()))
}

/// BCP 47 as far as the database checks it: `hi`, `en-IN`.
pub(super) fn checked_language(text: &str) -> Result<&str, Error> {
    let mut parts = text.split('-');
    let first =
        parts.next().is_some_and(|part| (2..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_lowercase()));
    let rest = parts.all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if first && rest && text.len() <= 35 {
        return Ok(text);
    }
    let problem = "is no language".to_owned();
    Err(Error::BadField { field: "language", problem, mend: "write its code of BCP 47, such as hi or en" })
}

async fn profile(db: &mut PgConnection, vault: &Vault, business: BusinessId) -> Result<Profile, Error> {
    let row = store::find_profile(db, business).await?.ok_or_else(|| unknown(business))?;
    let id = business.to_string();
    let mut shown = [None, None, None, None, None];
    for (hint, (column, sealed, show)) in shown.iter_mut().zip([
        ("gstin_sealed", &row.gstin_sealed, hints::of_gstin as fn(&str) -> String),
        ("contact_name_sealed", &row.contact_name_sealed, hints::of_name),
        ("contact_phone_sealed", &row.contact_phone_sealed, hints::of_phone),
        ("contact_email_sealed", &row.contact_email_sealed, hints::of_email),
        ("mail_from_sealed", &row.mail_from_sealed, hints::of_email),
    ]) {
        let Some(sealed) = sealed else { continue };
        let cell = Cell { business_id: business, table: TABLE, column, row: &id };
        let plain = vault.open(db, &cell, sealed).await?;
        *hint = Some(std::str::from_utf8(&plain).map_or_else(|_| "…".to_owned(), show));
    }
    let [gstin, contact_name, contact_phone, contact_email, mail_from] = shown;
    // A plan that this version does not know promises most and demands most.
    let plan: Plan = row.plan.parse().unwrap_or(Plan::Premium);
    Ok(Profile {
        business_id: business,
        handle: row.handle,
        legal_name: row.legal_name,
        gstin,
        language: row.language,
        contact_name,
        contact_phone,
        contact_email,
        whatsapp_account_id: row.whatsapp_account_id,
        mail_from,
        plan,
        second_factor_wanted: row.second_factor_wanted,
        second_factor_required: row.second_factor_wanted || plan.demands_second_factor(),
        recovery_point_minutes: plan.recovery_point().num_minutes(),
        created_at: row.created_at,
    })
}

#[cfg(test)]
#[path = "business_tests.rs"]
mod tests;
