//! Counting attempts before they are looked at.

use muneem_jobs::{
    evidence::{Actor, Word, words},
    outbound::{Email, Phone},
    people::{
        Staff, StaffId, find_staff_by_email, find_staff_by_phone,
        signin::{self, AccountKey, Channel, Deed, Place, Warning, desk_of, known_place, record, warn},
    },
    vault::{INSTALLATION, IndexColumn},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Console,
    guard::Turned,
    visitor::{Visitor, network},
};

/// What somebody typed to say who she is.
pub(super) enum Who {
    Phone(Phone),
    Email(Email),
}

impl Who {
    /// A mail address if there is an `@` in it, else a phone number.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const MEND: &str = "Write a mail address like asha@example.in, or a mobile number like 98765 43210.";
        if text.contains('@') {
            Email::parse(&text.trim().to_lowercase()).map(Self::Email).map_err(|_| MEND)
        } else {
            Phone::parse(text).map(Self::Phone).map_err(|_| MEND)
        }
    }

    pub(super) const fn channel(&self) -> Channel {
        match self {
            Self::Phone(_) => Channel::Phone,
            Self::Email(_) => Channel::Email,
        }
    }

    /// Everybody who is here and has it.
    pub(super) async fn find(&self, console: &Console, db: &mut PgConnection) -> Result<Vec<Staff>, Turned> {
        let mut found = match self {
            Self::Phone(phone) => find_staff_by_phone(db, &console.vault, phone).await?,
            Self::Email(email) => find_staff_by_email(db, &console.vault, &email.expose()).await?,
        };
        found.retain(|staff| staff.removed_at.is_none());
        Ok(found)
    }

    /// What attempts on this account are counted by, whether or not there is one.
    pub(super) async fn account(&self, console: &Console, db: &mut PgConnection) -> Result<AccountKey, Turned> {
        let (column, value) = match self {
            Self::Phone(phone) => ("phone_index", phone.as_e164().to_owned()),
            Self::Email(email) => ("email_index", email.expose()),
        };
        let column = IndexColumn { business_id: INSTALLATION, table: "muneem.people_staff", column };
        Ok(AccountKey(console.vault.index(db, &column, &value).await?.digest))
    }
}

/// Attempts on a second factor are counted by whose it is.
pub(super) fn account_of(staff: StaffId) -> AccountKey {
    AccountKey(*staff.0.as_bytes())
}

/// Where an attempt on the account of `staff` comes from. For an account that does not exist the same is looked up.
pub(super) async fn place(
    console: &Console,
    db: &mut PgConnection,
    staff: Option<StaffId>,
    visitor: &Visitor,
) -> Result<Place, Turned> {
    let column = IndexColumn { business_id: INSTALLATION, table: "muneem.people_sign_in_failures", column: "place" };
    let network = console.vault.index(db, &column, &network(visitor.address)).await?.digest;
    let known = known_place(db, staff.map_or(Uuid::nil(), |staff| staff.0), &visitor.device).await?;
    Ok(known.unwrap_or(Place::Network(network)))
}

/// Counts an attempt; warns the account's owner when it is the one that begins to make her wait.
pub(super) async fn begin(
    console: &Console,
    db: &mut PgConnection,
    (account, place): (AccountKey, Place),
    staff: Option<&Staff>,
) -> Result<(), Turned> {
    let now = console.clock.now();
    let begun = signin::begin_attempt(db, account, place, now).await;
    let alarming = begun.map_err(|error| Turned::of(error, now))?;
    let Some(staff) = staff.filter(|_| alarming) else { return Ok(()) };
    let mut tx = db.begin().await?;
    note_unproved(console, &mut tx, staff, words::SIGN_IN_SLOWED, Warning::WrongAttempts).await?;
    tx.commit().await?;
    Ok(())
}

/// Records what happened to somebody's sign-in by the hand of whoever has not proved to be her, and has her told.
pub(super) async fn note_unproved(
    console: &Console,
    tx: &mut PgConnection,
    staff: &Staff,
    verb: Word,
    warning: Warning,
) -> Result<(), Turned> {
    let now = console.clock.now();
    let deed = Deed {
        actor: Actor::System,
        verb,
        staff_id: staff.staff_id,
        business_id: staff.business_id,
        details: Value::Null,
    };
    record(tx, deed, now, &*console.chance).await?;
    if let Some(desk) = desk_of(tx, staff.business_id).await? {
        warn(tx, desk, staff.staff_id, warning, now).await?;
    }
    Ok(())
}
