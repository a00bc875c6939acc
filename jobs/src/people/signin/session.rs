use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Error, new_token, session_store, token_digest};
use crate::outbound::Chance;

/// Longest pause between two requests.
pub const IDLE: TimeDelta = TimeDelta::minutes(30);
/// Longest life, however busy.
pub const LIFE: TimeDelta = TimeDelta::hours(12);
/// Time in which a factor proved anew counts.
pub const STEP_UP: TimeDelta = TimeDelta::minutes(5);
/// Time in which the second factor must follow the first.
const HALF_WAY: TimeDelta = TimeDelta::minutes(10);
/// Ended sessions are kept for the list so long.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Letters of a browser's name.
const NAME_LENGTH: usize = 60;

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The second factor is still to come; it opens nothing else.
    First,
    /// Signed in.
    Full,
}

impl Level {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Full => "full",
        }
    }
}

/// One browser that somebody is signed in with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Session {
    /// To name it by; the token is elsewhere.
    pub session_id: Uuid,
    /// Whose it is. What she may do is asked anew with each request.
    pub staff_id: Uuid,
    /// How far she has come.
    pub level: Level,
    /// What the browser calls itself.
    pub device_name: String,
    /// When it began.
    pub opened_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub seen_at: DateTime<Utc>,
    /// Its last instant.
    pub expires_at: DateTime<Utc>,
    /// When a factor was last proved anew.
    pub stepped_up_at: Option<DateTime<Utc>>,
}

impl Session {
    /// Whether a factor was proved lately enough for what asks for it: decrypting, exporting, approving, sending,
    /// changing roles or keys.
    pub fn is_stepped_up(&self, now: DateTime<Utc>) -> bool {
        self.level == Level::Full && self.stepped_up_at.is_some_and(|at| at <= now && now - at <= STEP_UP)
    }
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    /// Whose.
    pub staff_id: Uuid,
    /// Whether the second factor is still to come.
    pub level: Level,
    /// The browser's lasting mark, as its cookie holds it.
    pub device: &'a SecretString,
    /// What the browser calls itself.
    pub device_name: &'a str,
}

/// A session that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub session: Session,
    /// For the cookie; it is not stored.
    pub token: SecretString,
    /// Nobody signed in here before, although she did elsewhere: to be told of.
    pub new_device: bool,
}

/// Opens a session.
///
/// # Errors
/// The database fails, or the browser's mark is none of ours ([`Error::SessionEnded`]).
pub async fn open_session(
    db: &mut PgConnection,
    new: &NewSession<'_>,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Opened, Error> {
    let now = now.trunc_subsecs(6);
    let device = token_digest(new.device.expose_secret()).ok_or(Error::SessionEnded)?;
    let life = if new.level == Level::First { HALF_WAY } else { LIFE };
    let session = Session {
        session_id: chance.uuid_v7(now),
        staff_id: new.staff_id,
        level: new.level,
        device_name: name(new.device_name),
        opened_at: now,
        seen_at: now,
        expires_at: now + life,
        // To sign in is to prove a factor.
        stepped_up_at: (new.level == Level::Full).then_some(now),
    };
    let mut tx = db.begin().await?;
    let token = insert(&mut tx, &session, &device, chance).await?;
    let new_device = new.level == Level::Full && session_store::see_device(&mut tx, new.staff_id, &device, now).await?;
    tx.commit().await?;
    Ok(Opened { session, token, new_device })
}

/// Puts a fresh session in the place of the one with this token: after the second factor, and at each step-up. The old
/// token opens nothing any more; of two that renew at once one fails. The absolute end stays where it was, except that
/// a half-way session becomes a whole one.
///
/// # Errors
/// [`Error::SessionEnded`]
pub async fn renew_session(
    db: &mut PgConnection,
    token: &str,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Opened, Error> {
    let now = now.trunc_subsecs(6);
    let digest = token_digest(token).ok_or(Error::SessionEnded)?;
    let mut tx = db.begin().await?;
    let (old, device) = session_store::end_live(&mut tx, &digest, now, IDLE).await?.ok_or(Error::SessionEnded)?;
    let was_half_way = old.level == Level::First;
    let session = Session {
        session_id: chance.uuid_v7(now),
        level: Level::Full,
        opened_at: if was_half_way { now } else { old.opened_at },
        seen_at: now,
        expires_at: if was_half_way { now + LIFE } else { old.expires_at },
        stepped_up_at: Some(now),
        ..old
    };
    let token = insert(&mut tx, &session, &device, chance).await?;
    let new_device = was_half_way && session_store::see_device(&mut tx, session.staff_id, &device, now).await?;
    tx.commit().await?;
    Ok(Opened { session, token, new_device })
}

/// The session with this token, if it is alive at `now`; looking at it is using it.
///
/// # Errors
/// The database fails.
pub async fn find_session(db: &mut PgConnection, token: &str, now: DateTime<Utc>) -> Result<Option<Session>, Error> {
    let Some(digest) = token_digest(token) else { return Ok(None) };
    let Some(session) = session_store::find_live(db, &digest, now, IDLE).await? else { return Ok(None) };
    if now - session.seen_at >= TimeDelta::minutes(1) {
        session_store::touch_session(db, session.session_id, now).await?;
    }
    Ok(Some(session))
}

/// Sessions of `staff` that are alive, newest first.
///
/// # Errors
/// The database fails.
pub async fn list_sessions(db: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<Vec<Session>, Error> {
    session_store::list_live(db, staff, now, IDLE).await
}

/// Ends one of her sessions at once. `false`: it is not hers, or had ended.
///
/// # Errors
/// The database fails.
pub async fn end_session(
    db: &mut PgConnection,
    staff: Uuid,
    session_id: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(session_store::end_session(db, staff, session_id, now).await? == 1)
}

/// Ends all her sessions but `keep`, at once; says how many.
///
/// # Errors
/// The database fails.
pub async fn end_all_sessions(
    db: &mut PgConnection,
    staff: Uuid,
    keep: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    session_store::end_sessions(db, staff, keep, now).await
}

/// Notes the country that a trusted proxy named for this browser (ISO 3166-1 alpha-2). `true`: she has signed in from
/// others before and never from this one, which she is to be told of. What is no country is not looked at.
///
/// # Errors
/// The database fails.
pub async fn see_country(
    db: &mut PgConnection,
    staff: Uuid,
    device: &SecretString,
    country: &str,
) -> Result<bool, Error> {
    let is_country = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
    let Some(digest) = token_digest(device.expose_secret()).filter(|_| is_country) else { return Ok(false) };
    session_store::see_country(db, staff, &digest, country).await
}

/// Deletes what ended long ago, and counts of attempts that are held against nobody any more.
///
/// # Errors
/// The database fails.
pub async fn forget_old_sessions(db: &mut PgConnection, now: DateTime<Utc>) -> Result<(), Error> {
    session_store::forget(db, now - KEPT, now - super::attempts::FORGOTTEN_AFTER).await
}

async fn insert(
    tx: &mut PgConnection,
    session: &Session,
    device: &[u8],
    chance: &dyn Chance,
) -> Result<SecretString, Error> {
    let token = new_token(chance);
    let digest = token_digest(token.expose_secret()).ok_or(Error::SessionEnded)?;
    session_store::insert_session(tx, session, &digest, device).await?;
    Ok(token)
}

/// Printable and short: it is shown in a list, and browsers say what they like.
fn name(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(NAME_LENGTH).collect()
}

/// The place of an attempt from a browser with which `staff` has signed in before; `None` for any other browser.
///
/// # Errors
/// The database fails.
pub async fn known_place(
    db: &mut PgConnection,
    staff: Uuid,
    device: &SecretString,
) -> Result<Option<super::Place>, Error> {
    let Some(digest) = token_digest(device.expose_secret()) else { return Ok(None) };
    if !session_store::is_known_device(db, staff, &digest).await? {
        return Ok(None);
    }
    Ok(digest.first_chunk().map(|half| super::Place::Known(*half)))
}
