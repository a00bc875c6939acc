//! One-time codes: a business's own customer proves that a number or mail address is hers.
//!
//! ```text
//! ask ─▶ open ─┬─ right code ─▶ verified        at most 10 minutes, 5 tries over all its codes
//!              ├─ fifth wrong one ─▶ locked
//!              ├─ another code for the same address and purpose ─▶ superseded
//!              └─ "I did not ask for this" ─▶ disowned
//! ```
//!
//! - Whoever asks learns nothing: the answer and the work before it are the same whatever is true of the address. What
//!   stands against sending ([`super::wishes::TABLE`]) is judged by the job that sends.
//! - A code exists in the message that carries it and nowhere else: the job makes it, keeps a keyed hash that binds it to
//!   business, request, addresses and purpose, and hands it over. One that died with its worker is never found again;
//!   the next run makes another.
//! - Where the first channel shows no sign within [`FALL_BACK_AFTER`], or says that it cannot, a *fresh* code goes by the
//!   next one (`messaging.fall_back_otp`). The earlier code stays good: it is perhaps on its way, and she types the one
//!   she sees. All codes of a request share its tries, its end and its one success, so that two are no more guessable than
//!   one by a factor that matters. A code that its channel surely did not bring is void at once.
//! - How many may be asked for: [`limits`].

mod error;
mod fall_back_otp;
mod limits;
mod send_otp;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::wishes::{self, Channel, Contact};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::{Chance, Email, Phone},
    people::BusinessId,
    queue::{self, NewJob},
    vault::{
        BlindIndex, Cell, Class, IndexColumn, IndexedColumn, Key, Owner, SealedColumn, Source, Vault, Version,
        screen::decimal,
    },
};

pub use error::Error;
pub use fall_back_otp::{FallBackOtp, message_failed};
pub use send_otp::SendOtp;

crate::id_type! {
    /// One request for a code.
    OtpId
}

const TABLE: &str = "muneem.messaging_otps";

/// A code is good for so long at most.
pub const LONGEST_LIFE: TimeDelta = TimeDelta::minutes(10);
/// Entries that a request bears.
const TRIES: i16 = 5;
/// After so long without a sign from one channel the next one is taken.
pub const FALL_BACK_AFTER: TimeDelta = TimeDelta::seconds(20);
/// Requests are kept so long for whoever asks what became of one.
const KEPT: TimeDelta = TimeDelta::days(30);

/// What is sealed here.
pub(super) const SEALED: [SealedColumn; 1] = [SealedColumn::of_row(TABLE, "to_sealed", Key::uuid("otp_id"))];

/// What is looked up or compared here; rows live for a month, and their keys as long.
pub(super) const INDEXED: [IndexedColumn; 3] = [
    short_lived(TABLE, "phone_mark", "muneem.messaging_contacts.mark", "otp_id"),
    short_lived(TABLE, "email_mark", "muneem.messaging_contacts.mark", "otp_id"),
    short_lived("muneem.messaging_otp_codes", "code_mark", "muneem.messaging_otp_codes.code_mark", "code_id"),
];

const fn short_lived(
    table: &'static str,
    column: &'static str,
    purpose: &'static str,
    key: &'static str,
) -> IndexedColumn {
    IndexedColumn {
        table,
        column,
        version: Version::Within,
        purpose,
        key: Key::uuid(key),
        owner: Owner::Row,
        source: Source::Gone,
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(super) enum OtpState {
    /// A right code would be taken.
    Open,
    /// It was.
    Verified,
    /// Too many were wrong.
    Locked,
    /// A later request took its place.
    Superseded,
    /// She says that she did not ask.
    Disowned,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewOtp<'a> {
    /// The number, for WhatsApp.
    pub phone: Option<Phone>,
    /// The mail address.
    pub email: Option<Email>,
    /// What for, the business's own word: `sign_in`.
    pub purpose: &'a str,
    /// Her language, BCP 47.
    pub language: &'a str,
    /// The ways, first to last; empty: WhatsApp, then mail, as far as there is an address.
    pub channels: &'a [Channel],
    /// Digits of the code, 4 to 8.
    pub digits: u8,
    /// How long it is good, [`LONGEST_LIFE`] at most.
    pub life: TimeDelta,
    /// Who asks, by a word of the business's: a session, an address. One asker is not given many codes.
    pub asker: Option<&'a str>,
}

/// What was made of it. The same whatever is true of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// To enter the code for.
    pub otp_id: OtpId,
    /// From then on no code is right.
    pub expires_at: DateTime<Utc>,
}

/// Where a code goes, as it is sealed.
#[derive(Serialize, Deserialize)]
struct To {
    phone: Option<String>,
    email: Option<String>,
}

/// Asks for a code, in the caller's transaction: request and sending job appear on commit or not at all. Earlier codes for
/// the same address and purpose are void.
///
/// # Errors
/// [`Error::BadField`]; [`Error::TooOften`], which is counted by what was asked and says nothing about the address. Roll
/// back then.
pub async fn ask(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    new: &NewOtp<'_>,
) -> Result<Issued, Error> {
    let channels = new.check()?;
    let now = by.now.trunc_subsecs(6);
    let (phone, email) = (new.phone.clone().map(Contact::Phone), new.email.clone().map(Contact::Email));
    let contacts: Vec<_> = phone.iter().chain(&email).cloned().collect();
    let asked_by = wishes::recorder(&by.actor);
    let counted = limits::Counted { business, contacts: &contacts, asker: new.asker, caller: &asked_by };
    limits::take(tx, vault, &counted, now).await?;

    let mut marks = Vec::new();
    for contact in &contacts {
        marks.extend(wishes::marks(tx, vault, business, contact).await?);
    }
    store::end_open(tx, business, (&marks, Some(new.purpose)), (OtpState::Superseded, now)).await?;
    let otp_id = OtpId(by.chance.uuid_v7(now));
    let row = otp_id.to_string();
    let to = To {
        phone: new.phone.as_ref().map(|phone| phone.as_e164().to_owned()),
        email: new.email.as_ref().map(Email::expose),
    };
    let to = Zeroizing::new(serde_json::to_vec(&to).expect("two texts are JSON"));
    let to_sealed = vault.seal(tx, Class::Contact, &to_cell(business, &row), &to).await?;
    let mut own = [None, None];
    for (place, contact) in [&phone, &email].into_iter().enumerate() {
        if let Some(contact) = contact {
            own[place] = Some(wishes::mark(tx, vault, business, contact).await?);
        }
    }
    let expires_at = (now + new.life).trunc_subsecs(6);
    let row = store::NewRow {
        id: otp_id,
        business,
        purpose: new.purpose,
        language: new.language,
        phone_mark: own[0].as_deref(),
        email_mark: own[1].as_deref(),
        to_sealed: &to_sealed,
        channels: channels.iter().map(|channel| channel.as_str().to_owned()).collect(),
        digits: i16::from(new.digits),
        tries: TRIES,
        asked_by: &asked_by,
        now,
        expires_at,
    };
    store::insert_otp(tx, &row).await?;
    let details =
        json!({ "purpose": new.purpose, "channels": channels, "digits": new.digits, "expires_at": expires_at });
    record(tx, by, business, otp_id, (words::OTP_ISSUED, details)).await?;
    queue::enqueue(tx, &NewJob::of(business, &SendOtp { otp_id })?.key(otp_id.to_string())).await?;
    Ok(Issued { otp_id, expires_at })
}

impl NewOtp<'_> {
    /// Refuses what cannot be, and answers the ways in their order.
    fn check(&self) -> Result<Vec<Channel>, Error> {
        let off = |field, problem, mend| Err(Error::BadField { field, problem, mend });
        wishes::checked_purpose(self.purpose)?;
        if !wishes::is_language(self.language) {
            return off("language", "is not a language", "write it as BCP 47: hi, en-IN");
        }
        if !(4..=8).contains(&self.digits) {
            return off("length", "is not between 4 and 8", "leave it out for 6");
        }
        if !(TimeDelta::seconds(30)..=LONGEST_LIFE).contains(&self.life) {
            return off("ttl_secs", "is not between 30 and 600", "leave it out for 600");
        }
        if self.asker.is_some_and(|asker| asker.is_empty() || asker.len() > 256) {
            return off(
                "asker",
                "is empty or longer than 256 bytes",
                "send a session's id or an address, or leave it out",
            );
        }
        let reaches = |channel: Channel| match channel {
            Channel::Whatsapp => self.phone.is_some(),
            Channel::Mail => self.email.is_some(),
        };
        let channels: Vec<_> = if self.channels.is_empty() {
            Channel::ALL.iter().copied().filter(|channel| reaches(*channel)).collect()
        } else {
            self.channels.to_vec()
        };
        if channels.is_empty() {
            return off("to", "names nobody", "give a phone or an email");
        }
        if !channels.iter().all(|channel| reaches(*channel)) {
            return off("channels", "name one without an address", "WhatsApp needs `to.phone`, mail `to.email`");
        }
        if channels.len() == 2 && channels[0] == channels[1] || channels.len() > 2 {
            return off("channels", "name one twice", "name each once, first to last");
        }
        Ok(channels)
    }
}

/// An entry of a code.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// For which request.
    pub otp_id: OtpId,
    /// As she typed it.
    pub code: &'a str,
    /// Whom the caller means: a code that was sent to somebody else is wrong.
    pub to: Option<&'a Contact>,
    /// What the caller means it for: a code for something else is wrong.
    pub purpose: Option<&'a str>,
}

/// What came of an entry: the same for a wrong code as for a request that never was, is over, locked, or another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The right code, for the first time.
    pub verified: bool,
    /// By which way it had gone, and so what is proved; none where nothing is.
    pub channel: Option<Channel>,
}

/// Enters a code, in the caller's transaction: commit it also when the code was wrong, or the try was not taken. Of two
/// right entries at once one wins.
///
/// # Errors
/// The vault is sealed, or the database fails; then nothing was proved and no try was taken.
pub async fn enter(
    tx: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    business: BusinessId,
    entry: &Entry<'_>,
) -> Result<Entered, Error> {
    let now = by.now.trunc_subsecs(6);
    let nothing = Entered { verified: false, channel: None };
    let means = match entry.to {
        Some(contact) => Some(wishes::marks(tx, vault, business, contact).await?),
        None => None,
    };
    let open = store::take_try(tx, business, entry.otp_id, now).await?;
    let row = if open { store::lock_otp(tx, business, entry.otp_id).await? } else { None };
    let typed = typed(entry.code);
    // Without a request the same work is done for nothing.
    let bound = Bound {
        business,
        otp_id: entry.otp_id,
        phone: row.as_ref().and_then(|row| row.phone_mark.as_deref()),
        email: row.as_ref().and_then(|row| row.email_mark.as_deref()),
        purpose: row.as_ref().map_or("", |row| row.purpose.as_str()),
    };
    let entered: Vec<_> = vault
        .indexes(tx, &code_column(business), &bound.canonical(&typed))
        .await?
        .iter()
        .map(BlindIndex::to_bytes)
        .collect();
    let codes = store::list_codes(tx, entry.otp_id).await?;
    let Some(row) = row else { return Ok(nothing) };
    let mut right = Choice::from(0);
    let mut channel = None;
    for code in &codes {
        let Some(mark) = code.code_mark.as_deref().filter(|_| !code.voided) else { continue };
        for entered in &entered {
            let same = entered.as_slice().ct_eq(mark);
            if bool::from(same) {
                channel = Some(code.channel);
            }
            right |= same;
        }
    }
    let meant = means.is_none_or(|means| {
        means.iter().any(|mark| row.phone_mark.as_ref() == Some(mark) || row.email_mark.as_ref() == Some(mark))
    }) && entry.purpose.is_none_or(|purpose| purpose == row.purpose);
    if bool::from(right) && meant {
        store::end_otp(tx, entry.otp_id, OtpState::Verified, now).await?;
        limits::give_back(tx, business).await?;
        let details = json!({ "purpose": row.purpose, "channel": channel, "tries_left": row.tries_left });
        record(tx, by, business, entry.otp_id, (words::OTP_VERIFIED, details)).await?;
        return Ok(Entered { verified: true, channel });
    }
    let details = json!({ "purpose": row.purpose, "tries_left": row.tries_left });
    record(tx, by, business, entry.otp_id, (words::OTP_FAILED, details)).await?;
    if row.tries_left == 0 {
        store::end_otp(tx, entry.otp_id, OtpState::Locked, now).await?;
        record(tx, by, business, entry.otp_id, (words::OTP_LOCKED, json!({ "purpose": row.purpose }))).await?;
    }
    Ok(nothing)
}

/// Somebody says that she did not ask for the code she was sent: every open one to her is void, and on record as a sign of
/// fraud. How many.
pub(super) async fn disown(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<usize, wishes::Error> {
    let now = by.now.trunc_subsecs(6);
    let ended = store::end_open(tx, business, (marks, None), (OtpState::Disowned, now)).await?;
    for otp_id in &ended {
        let id = otp_id.to_string();
        let object = Object { kind: "otp", id: &id };
        by.record(tx, Act { word: words::OTP_DISOWNED, business: Some(business), object, details: json!({}) }).await?;
    }
    if !ended.is_empty() {
        tracing::warn!(count = ended.len(), "somebody was sent a code that she did not ask for: it is void");
    }
    Ok(ended.len())
}

/// Deletes every request to an erased address.
pub(super) async fn forget(
    tx: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<u64, wishes::Error> {
    Ok(store::delete_of(tx, business, marks).await?)
}

async fn record(
    tx: &mut PgConnection,
    by: &By<'_>,
    business: BusinessId,
    otp_id: OtpId,
    (word, details): (crate::evidence::Word, serde_json::Value),
) -> Result<(), Error> {
    let id = otp_id.to_string();
    by.record(tx, Act { word, business: Some(business), object: Object { kind: "otp", id: &id }, details }).await?;
    Ok(())
}

fn to_cell(business_id: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id, table: TABLE, column: "to_sealed", row }
}

const fn code_column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: "muneem.messaging_otp_codes", column: "code_mark" }
}

/// What a code is bound to.
struct Bound<'a> {
    business: BusinessId,
    otp_id: OtpId,
    phone: Option<&'a [u8]>,
    email: Option<&'a [u8]>,
    purpose: &'a str,
}

impl Bound<'_> {
    /// What its keyed hash is made of. Neither ids, hexadecimal, purposes nor digits hold the sign between them.
    fn canonical(&self, code: &str) -> Zeroizing<String> {
        let hex = |mark: Option<&[u8]>| mark.map(hex::encode).unwrap_or_default();
        let (phone, email) = (hex(self.phone), hex(self.email));
        Zeroizing::new(format!("{}|{}|{phone}|{email}|{}|{code}", self.business, self.otp_id, self.purpose))
    }
}

/// The digits of an entry, in ASCII: people type blanks between them, and digits of their own script.
fn typed(code: &str) -> Zeroizing<String> {
    let digits = code.chars().take(64).filter(|character| !character.is_whitespace() && *character != '-');
    Zeroizing::new(
        digits
            .map(|character| decimal(character).map_or(character, |digit| char::from(b'0' + digit)))
            .filter(|c| *c != '|')
            .collect(),
    )
}

/// So many digits, each number as likely as any other.
fn new_code(chance: &dyn Chance, digits: i16) -> SecretString {
    let digits = usize::try_from(digits).unwrap_or(6).clamp(4, 8);
    let count = 10_u64.pow(u32::try_from(digits).unwrap_or(6));
    loop {
        let mut bytes = [0; 8];
        chance.fill(&mut bytes);
        let number = u64::from_be_bytes(bytes);
        // The rest above the last whole round would make small numbers more likely.
        if number < u64::MAX - u64::MAX % count {
            return format!("{:0digits$}", number % count).into();
        }
    }
}

/// The keyed hash of a fresh code.
async fn mark_of(
    tx: &mut PgConnection,
    vault: &Vault,
    bound: &Bound<'_>,
    code: &SecretString,
) -> Result<Vec<u8>, Error> {
    let canonical = bound.canonical(code.expose_secret());
    Ok(vault.index(tx, &code_column(bound.business), &canonical).await?.to_bytes())
}
