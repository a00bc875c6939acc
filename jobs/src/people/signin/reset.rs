//! Taking a lost second factor away: somebody asks, a second person approves, a day passes in which its owner is told
//! and may say no.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Error, credential_store, reset_store, session_store};
use crate::{outbound::Chance, people::BusinessId};

/// Time between approval and effect.
const DELAY: TimeDelta = TimeDelta::hours(24);

/// One wish to take a second factor away.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reset {
    /// Its id.
    pub reset_id: Uuid,
    /// Whose factor.
    pub staff_id: Uuid,
    /// Who asked; she herself may.
    pub asked_by: Uuid,
    /// When.
    pub asked_at: DateTime<Utc>,
    /// The second person.
    pub approved_by: Option<Uuid>,
    /// When it may be carried out.
    pub due_at: Option<DateTime<Utc>>,
}

/// Asks for it. Whoever calls tells its owner on every channel there is, and has checked that the asker may.
///
/// # Errors
/// [`Error::ResetUnderWay`]
pub async fn ask_reset(
    db: &mut PgConnection,
    staff: Uuid,
    asked_by: Uuid,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Reset, Error> {
    let now = now.trunc_subsecs(6);
    let reset = Reset {
        reset_id: chance.uuid_v7(now),
        staff_id: staff,
        asked_by,
        asked_at: now,
        approved_by: None,
        due_at: None,
    };
    reset_store::insert_reset(db, &reset).await?;
    Ok(reset)
}

/// The open wish about `staff`, if there is one.
///
/// # Errors
/// The database fails.
pub async fn find_open_reset(db: &mut PgConnection, staff: Uuid) -> Result<Option<Reset>, Error> {
    reset_store::find_open_reset(db, staff).await
}

/// The open wish with this id, held until the transaction ends.
///
/// # Errors
/// The database fails.
pub async fn find_reset(tx: &mut PgConnection, reset: Uuid) -> Result<Option<Reset>, Error> {
    reset_store::lock_reset(tx, reset).await
}

/// Open wishes about staff of `business` (`None`: about anybody), oldest first.
///
/// # Errors
/// The database fails.
pub async fn list_open_resets(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<Reset>, Error> {
    reset_store::list_open_resets(db, business).await
}

/// Approves it: a day from now it may be carried out.
///
/// # Errors
/// [`Error::SecondPersonNeeded`] (the database refuses it too), [`Error::NoSuchReset`]
pub async fn approve_reset(db: &mut PgConnection, reset: Uuid, by: Uuid, now: DateTime<Utc>) -> Result<Reset, Error> {
    let now = now.trunc_subsecs(6);
    let mut tx = db.begin().await?;
    let open = reset_store::lock_reset(&mut tx, reset).await?.ok_or(Error::NoSuchReset)?;
    if by == open.asked_by || by == open.staff_id {
        return Err(Error::SecondPersonNeeded);
    }
    if open.approved_by.is_some() {
        return Ok(open);
    }
    let due_at = now + DELAY;
    reset_store::approve_reset(&mut tx, reset, by, due_at).await?;
    tx.commit().await?;
    Ok(Reset { approved_by: Some(by), due_at: Some(due_at), ..open })
}

/// Calls it off; its owner may, at any time before its end.
///
/// # Errors
/// [`Error::NoSuchReset`]
pub async fn cancel_reset(db: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    match reset_store::cancel_reset(db, reset, now).await? {
        0 => Err(Error::NoSuchReset),
        _ => Ok(()),
    }
}

/// Takes the second factor away: authenticator and recovery codes are gone, every session ends.
///
/// # Errors
/// [`Error::NoSuchReset`], [`Error::SecondPersonNeeded`] when nobody approved, [`Error::ResetNotDue`]
pub async fn carry_out_reset(db: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let open = reset_store::lock_reset(&mut tx, reset).await?.ok_or(Error::NoSuchReset)?;
    let due_at = open.due_at.ok_or(Error::SecondPersonNeeded)?;
    if now < due_at {
        return Err(Error::ResetNotDue { due_at });
    }
    reset_store::finish_reset(&mut tx, reset, now).await?;
    credential_store::clear_second_factor(&mut tx, open.staff_id, now).await?;
    session_store::end_sessions(&mut tx, open.staff_id, None, now).await?;
    tx.commit().await?;
    Ok(())
}
