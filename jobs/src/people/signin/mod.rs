//! Signing in to the console.
//!
//! ```text
//! attempt ─▶ first factor: password, or a code sent to a verified phone or mail
//!        ─▶ session of level `first` ─▶ second factor: authenticator app, passkey or recovery code
//!        ─▶ session of level `full` (another one) ─▶ step-up, for what asks for it (another one again)
//! ```
//!
//! - Every attempt is counted before it is looked at ([`begin_attempt`]); a right one clears the count
//!   ([`clear_attempts`]).
//! - A code of an authenticator works once, whoever races ([`use_totp_step`]).
//! - A session is found by the digest of its token, is idle for half an hour at most and lives twelve; what its owner
//!   may do is asked anew with each request and does not stand in it.
//! - A code to a phone that nobody proved to hold for ninety days needs another factor beside it ([`note_stale_phone`]).
//! - Somebody who has nothing to sign in with gets a link, used once ([`invite`]).
//! - A second factor that is demanded of somebody is set up before anything else ([`Standing::must_enrol`]).
//! - What happens to somebody's access is told her ([`warn`]) by a job of messaging.
//! - A second factor is taken away only by a second person and after a day ([`ask_reset`]).
//!
//! Whoever calls seals secrets in the vault and records evidence; everything here runs in the caller's transaction.

mod attempt_store;
mod attempts;
#[cfg(test)]
mod authenticator;
mod code_store;
mod credential_store;
mod end_factor;
mod error;
mod forget_sessions;
mod invitation;
mod invitation_store;
mod parked;
pub mod passkey;
mod passkey_store;
pub mod password;
mod record;
mod reset;
mod reset_store;
mod schedules;
mod secret;
mod session;
mod session_store;
mod stale_phone;
mod standing;
mod standing_store;
#[cfg(test)]
mod tests;
pub mod totp;
mod warning;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::outbound::Chance;

pub use attempts::{AccountKey, Place};
pub use end_factor::EndFactor;
pub use error::Error;
pub use forget_sessions::ForgetSessions;
pub use invitation::{
    INVITATION_LIFE, Invitation, InvitationId, Invitee, find_invitation, invite, invite_first, use_invitation,
};
pub use parked::{Parked, park_proof};
pub use record::{Deed, record};
pub use reset::{
    Reset, approve_reset, ask_reset, cancel_reset, carry_out_reset, find_open_reset, find_reset, list_open_resets,
};
pub use schedules::schedules;
pub(super) use secret::{code_digest, new_code};
pub use secret::{new_token, token_digest};
pub use session::{
    IDLE, LIFE, Level, NewSession, Opened, STEP_UP, Session, end_all_sessions, end_session, find_session,
    forget_old_sessions, known_place, list_sessions, open_session, renew_session, see_country,
};
pub use stale_phone::{note_stale_phone, settle_stale_phone};
pub use standing::{Standing, demand_second_factor, find_standing};
pub use warning::{Warning, desk_of, warn, warn_about};

/// Life of a sent code.
const CODE_LIFE: TimeDelta = TimeDelta::minutes(10);
/// Wrong entries that a sent code bears.
const CODE_TRIES: i16 = 5;
/// Codes sent to one person in [`CODES_WITHIN`].
const CODES_MAX: i64 = 5;
/// See [`CODES_MAX`].
const CODES_WITHIN: TimeDelta = TimeDelta::hours(1);

/// What somebody signs in with, as far as it is set up.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Argon2id in PHC form.
    pub password_hash: Option<String>,
    /// The authenticator's secret, sealed.
    pub totp_sealed: Option<Vec<u8>>,
    /// The secret of one that is being set up, sealed.
    pub totp_pending_sealed: Option<Vec<u8>>,
    /// Recovery codes that still work.
    pub recovery_codes_left: i64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("password", &self.password_hash.is_some())
            .field("totp", &self.totp_sealed.is_some())
            .field("recovery_codes_left", &self.recovery_codes_left)
            .finish_non_exhaustive()
    }
}

/// Counts an attempt to sign in, before it is looked at, and answers whether it is the one to tell the account's owner
/// of. Commit before looking: what is rolled back was not counted.
///
/// # Errors
/// [`Error::TooSoon`]: it is not looked at, right or wrong, and nothing is counted.
pub async fn begin_attempt(
    db: &mut PgConnection,
    account: AccountKey,
    place: Place,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut tx = db.begin().await?;
    let mut alarming = false;
    // Always in this order, so that two attempts wait for each other and not in a circle.
    let all = matches!(place, Place::Network(_)).then_some(&[][..]);
    for at in all.into_iter().chain([&place.bytes()[..]]) {
        let so_far = attempt_store::lock_failures(&mut tx, &account.0, at, now, attempts::FORGOTTEN_AFTER).await?;
        // Who came in the same moment may have read the clock later, and holds up nobody by that.
        let waits = attempts::not_before(so_far.failures, at.is_empty(), now) > now;
        if waits && so_far.not_before > now {
            return Err(Error::TooSoon { until: so_far.not_before });
        }
        let failures = so_far.failures.saturating_add(1);
        let not_before = attempts::not_before(failures, at.is_empty(), now);
        attempt_store::set_failures(&mut tx, &account.0, at, failures, not_before, now).await?;
        alarming |= at.is_empty() && attempts::is_alarming(failures);
    }
    tx.commit().await?;
    Ok(alarming)
}

/// The attempt was right: nothing is held against this place any more. What strangers did elsewhere still is.
///
/// # Errors
/// The database fails.
pub async fn clear_attempts(db: &mut PgConnection, account: AccountKey, place: Place) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    if matches!(place, Place::Network(_)) {
        // This one was counted over all places too, and was not wrong.
        attempt_store::take_back_failure(&mut tx, &account.0).await?;
    }
    attempt_store::delete_failures(&mut tx, &account.0, place.bytes()).await?;
    tx.commit().await?;
    Ok(())
}

/// What `staff` signs in with; nothing, where nothing was ever set up.
///
/// # Errors
/// The database fails.
pub async fn load_credentials(db: &mut PgConnection, staff: Uuid) -> Result<Credentials, Error> {
    credential_store::load_credentials(db, staff).await
}

/// Keeps a new password's hash and ends every session but `keep`, and whatever waited to let somebody in as her.
///
/// # Errors
/// The database fails.
pub async fn set_password(
    db: &mut PgConnection,
    staff: Uuid,
    hash: &str,
    keep: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    credential_store::set_password(&mut tx, staff, hash, now).await?;
    session_store::end_sessions(&mut tx, staff, keep, now).await?;
    code_store::void_codes(&mut tx, staff, now).await?;
    code_store::void_choices(&mut tx, staff, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Puts a hash under newer settings in the place of `old`, unless the password changed meanwhile.
///
/// # Errors
/// The database fails.
pub async fn refresh_hash(db: &mut PgConnection, staff: Uuid, old: &str, new: &str) -> Result<(), Error> {
    credential_store::refresh_hash(db, staff, old, new).await
}

/// Keeps the sealed secret of an authenticator that is being set up; it counts after [`confirm_totp`].
///
/// # Errors
/// The database fails.
pub async fn begin_totp(db: &mut PgConnection, staff: Uuid, sealed: &[u8], now: DateTime<Utc>) -> Result<(), Error> {
    credential_store::begin_totp(db, staff, sealed, now).await
}

/// The first code fitted, at `step`: from now on the authenticator counts, and that code is spent. Answers a fresh set
/// of recovery codes, which replaces any older one and is shown this once.
///
/// `sealed` is what the code was checked with: were it replaced meanwhile, nothing is confirmed.
///
/// # Errors
/// [`Error::NotConfirmed`]: no such authenticator is being set up.
#[expect(clippy::too_many_arguments, reason = "the proof, the instant and the chance belong to one step")]
pub async fn confirm_totp(
    db: &mut PgConnection,
    staff: Uuid,
    sealed: &[u8],
    step: i64,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Vec<SecretString>, Error> {
    let mut tx = db.begin().await?;
    if credential_store::confirm_totp(&mut tx, staff, sealed, step, now).await? != 1 {
        return Err(Error::NotConfirmed);
    }
    let codes = replace_recovery_codes(&mut tx, staff, now, chance).await?;
    tx.commit().await?;
    Ok(codes)
}

/// Uses the code of this step up. `false`: it, or a later one, was used before; of many at once one gets `true`.
///
/// # Errors
/// The database fails.
pub async fn use_totp_step(db: &mut PgConnection, staff: Uuid, step: i64) -> Result<bool, Error> {
    Ok(credential_store::use_totp_step(db, staff, step).await? == 1)
}

/// Makes a set of recovery codes in the place of any older one. They are shown this once.
///
/// # Errors
/// The database fails, or there is nothing to recover.
pub async fn replace_recovery_codes(
    db: &mut PgConnection,
    staff: Uuid,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Vec<SecretString>, Error> {
    let codes = secret::new_recovery_codes(chance);
    let digests: Vec<Vec<u8>> = codes
        .iter()
        .filter_map(|code| secret::recovery_digest(code.expose_secret()))
        .map(|code| code.to_vec())
        .collect();
    let mut tx = db.begin().await?;
    credential_store::replace_recovery_codes(&mut tx, staff, &digests, now).await?;
    tx.commit().await?;
    Ok(codes)
}

/// Uses a recovery code up, and with it the authenticator's codes of this step and the next: whoever looked over the
/// shoulder has neither. `false`: it is none of hers, or was used.
///
/// # Errors
/// The database fails.
pub async fn use_recovery_code(
    db: &mut PgConnection,
    staff: Uuid,
    typed: &str,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let Some(digest) = secret::recovery_digest(typed) else { return Ok(false) };
    let mut tx = db.begin().await?;
    if credential_store::use_recovery_code(&mut tx, staff, &digest, now).await? != 1 {
        return Ok(false);
    }
    credential_store::use_totp_step(&mut tx, staff, totp::step_at(now) + 1).await?;
    tx.commit().await?;
    Ok(true)
}

/// The way that a code is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// To the verified telephone number.
    Phone,
    /// To the verified mail address.
    Email,
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Email => "email",
        }
    }

    /// What a row says; the table knows no third.
    fn read(text: &str) -> Self {
        if text == "phone" { Self::Phone } else { Self::Email }
    }
}

crate::id_type! {
    /// One sent code.
    CodeId
}

/// A code to send.
pub struct SentCode {
    /// The code's row.
    pub code_id: CodeId,
    /// What the asking browser alone keeps; without it the code opens nothing.
    pub binding: SecretString,
    /// The six digits, for the message.
    pub code: SecretString,
    /// Its last instant.
    pub expires_at: DateTime<Utc>,
}

/// Makes a code for `staff`. Older ones stop working: the last message is the one that counts.
///
/// # Errors
/// [`Error::TooManyCodes`]
pub async fn make_code(
    db: &mut PgConnection,
    staff: Uuid,
    channel: Channel,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<SentCode, Error> {
    let now = now.trunc_subsecs(6);
    let mut tx = db.begin().await?;
    code_store::lock_codes(&mut tx, staff).await?;
    let (count, oldest) = code_store::count_codes(&mut tx, staff, now - CODES_WITHIN).await?;
    if count >= CODES_MAX {
        return Err(Error::TooManyCodes { until: oldest.unwrap_or(now) + CODES_WITHIN });
    }
    let sent = SentCode {
        code_id: CodeId(chance.uuid_v7(now)),
        binding: new_token(chance),
        code: secret::new_code(chance),
        expires_at: now + CODE_LIFE,
    };
    let digest = secret::code_digest(sent.binding.expose_secret(), sent.code.expose_secret());
    code_store::void_codes(&mut tx, staff, now).await?;
    let opens = code_store::Opens::Sent(channel.as_str());
    code_store::insert_code(&mut tx, &sent, staff, &opens, &digest, now).await?;
    tx.commit().await?;
    Ok(sent)
}

/// Makes a code that is sent to nobody: with it whoever's password was right in each of `places` (people of staff) says
/// which it is to be. It is bound to the browser as a sent one is, works once, and proves nothing else.
///
/// # Errors
/// The database fails.
pub async fn make_choice(
    db: &mut PgConnection,
    places: &[Uuid],
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<SentCode, Error> {
    let now = now.trunc_subsecs(6);
    let code = SentCode {
        code_id: CodeId(chance.uuid_v7(now)),
        binding: new_token(chance),
        code: secret::new_code(chance),
        expires_at: now + CODE_LIFE,
    };
    let digest = secret::code_digest(code.binding.expose_secret(), code.code.expose_secret());
    let first = places.first().copied().unwrap_or_default();
    code_store::insert_code(db, &code, first, &code_store::Opens::Choice(places), &digest, now).await?;
    Ok(code)
}

/// What came of entering a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The one that was sent, now used up.
    Right {
        /// To whom.
        staff: Uuid,
        /// The way it was sent: she holds that phone, or reads that mail.
        channel: Channel,
    },
    /// The one that stands for a right one, now used up. It proves no more than that one did.
    Parked(Parked),
    /// The one behind a choice between places of work, now used up.
    Choice {
        /// People of staff whose password was right.
        places: Vec<Uuid>,
    },
    /// Another; this many tries are left.
    Wrong {
        /// At zero it is void.
        tries_left: i16,
    },
    /// It was used, replaced, tried too often, ran out or never was.
    Void,
}

/// Enters a code. Right or wrong it costs a try, in the caller's transaction: commit also what was wrong.
///
/// # Errors
/// The database fails.
pub async fn enter_code(
    db: &mut PgConnection,
    code_id: CodeId,
    binding: &str,
    code: &str,
    now: DateTime<Utc>,
) -> Result<Entered, Error> {
    let mut tx = db.begin().await?;
    let Some(row) = code_store::take_try(&mut tx, code_id, now).await? else { return Ok(Entered::Void) };
    let outcome = if bool::from(secret::code_digest(binding, code.trim()).ct_eq(row.code_sha256.as_slice())) {
        code_store::use_code(&mut tx, code_id, now).await?;
        let (staff, channel) = (row.staff_id, Channel::read(row.channel.as_deref().unwrap_or_default()));
        match (row.chooses, row.leads_to) {
            (Some(places), _) => Entered::Choice { places },
            (None, Some(leads_to)) => {
                let (tries_left, expires_at) = (row.tries_left, row.expires_at);
                Entered::Parked(Parked { staff, channel, leads_to, tries_left, expires_at })
            }
            (None, None) => Entered::Right { staff, channel },
        }
    } else {
        Entered::Wrong { tries_left: row.tries_left }
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Ends every session, code and credential of somebody who was removed.
///
/// # Errors
/// The database fails.
pub async fn forget_staff(db: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    session_store::end_sessions(&mut tx, staff, None, now).await?;
    code_store::void_codes(&mut tx, staff, now).await?;
    code_store::void_choices(&mut tx, staff, now).await?;
    credential_store::clear_credentials(&mut tx, staff, now).await?;
    tx.commit().await?;
    Ok(())
}
