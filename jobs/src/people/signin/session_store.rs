use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Level, Session};

/// A row of `muneem.people_sessions`.
struct SessionRow {
    session_id: Uuid,
    staff_id: Uuid,
    level: String,
    device_name: String,
    opened_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    stepped_up_at: Option<DateTime<Utc>>,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            session_id: row.session_id,
            staff_id: row.staff_id,
            // A level that this version does not know opens as little as can be.
            level: if row.level == "full" { Level::Full } else { Level::First },
            device_name: row.device_name,
            opened_at: row.opened_at,
            seen_at: row.seen_at,
            expires_at: row.expires_at,
            stepped_up_at: row.stepped_up_at,
        }
    }
}

pub(super) async fn insert_session(
    tx: &mut PgConnection,
    session: &Session,
    token_sha256: &[u8],
    device_sha256: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_sessions
             (session_id, token_sha256, staff_id, level, device_sha256, device_name, opened_at, seen_at, expires_at,
              stepped_up_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        session.session_id,
        token_sha256,
        session.staff_id,
        session.level.as_str(),
        device_sha256,
        session.device_name,
        session.opened_at,
        session.seen_at,
        session.expires_at,
        session.stepped_up_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn find_live(
    db: &mut PgConnection,
    token_sha256: &[u8],
    now: DateTime<Utc>,
    idle: TimeDelta,
) -> Result<Option<Session>, Error> {
    let row = sqlx::query_as!(
        SessionRow,
        "select session_id, staff_id, level, device_name, opened_at, seen_at, expires_at, stepped_up_at
         from muneem.people_sessions
         where token_sha256 = $1 and ended_at is null and expires_at > $2 and seen_at > $3",
        token_sha256,
        now,
        now - idle,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Session::from))
}

/// Ends a live session and answers what it was, with its browser's mark.
pub(super) async fn end_live(
    tx: &mut PgConnection,
    token_sha256: &[u8],
    now: DateTime<Utc>,
    idle: TimeDelta,
) -> Result<Option<(Session, Vec<u8>)>, Error> {
    let row = sqlx::query!(
        "update muneem.people_sessions
         set ended_at = $2
         where token_sha256 = $1 and ended_at is null and expires_at > $2 and seen_at > $3
         returning session_id, staff_id, level, device_name, opened_at, seen_at, expires_at, stepped_up_at,
                   device_sha256",
        token_sha256,
        now,
        now - idle,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let session = SessionRow {
            session_id: row.session_id,
            staff_id: row.staff_id,
            level: row.level,
            device_name: row.device_name,
            opened_at: row.opened_at,
            seen_at: row.seen_at,
            expires_at: row.expires_at,
            stepped_up_at: row.stepped_up_at,
        };
        (session.into(), row.device_sha256)
    }))
}

pub(super) async fn touch_session(db: &mut PgConnection, session_id: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sessions set seen_at = $2 where session_id = $1 and seen_at < $2",
        session_id,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn list_live(
    db: &mut PgConnection,
    staff: Uuid,
    now: DateTime<Utc>,
    idle: TimeDelta,
) -> Result<Vec<Session>, Error> {
    let rows = sqlx::query_as!(
        SessionRow,
        "select session_id, staff_id, level, device_name, opened_at, seen_at, expires_at, stepped_up_at
         from muneem.people_sessions
         where staff_id = $1 and ended_at is null and expires_at > $2 and seen_at > $3
         order by opened_at desc, session_id desc
         limit 200",
        staff,
        now,
        now - idle,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Session::from).collect())
}

pub(super) async fn end_session(
    db: &mut PgConnection,
    staff: Uuid,
    session_id: Uuid,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_sessions set ended_at = $3
         where session_id = $2 and staff_id = $1 and ended_at is null",
        staff,
        session_id,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn end_sessions(
    db: &mut PgConnection,
    staff: Uuid,
    keep: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_sessions set ended_at = $3
         where staff_id = $1 and ended_at is null and session_id is distinct from $2",
        staff,
        keep,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that this browser was signed in with. Says whether it is a new one for somebody who had others.
pub(super) async fn see_device(
    tx: &mut PgConnection,
    staff: Uuid,
    device_sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let others = sqlx::query_scalar!(
        r#"select exists (select from muneem.people_devices where staff_id = $1) as "others!""#,
        staff,
    )
    .fetch_one(&mut *tx)
    .await?;
    let known = sqlx::query!(
        "update muneem.people_devices set last_seen_at = $3 where staff_id = $1 and device_sha256 = $2",
        staff,
        device_sha256,
        now,
    )
    .execute(&mut *tx)
    .await?;
    if known.rows_affected() > 0 {
        return Ok(false);
    }
    sqlx::query!(
        "insert into muneem.people_devices (staff_id, device_sha256, first_seen_at, last_seen_at)
         values ($1, $2, $3, $3)
         on conflict do nothing",
        staff,
        device_sha256,
        now,
    )
    .execute(tx)
    .await?;
    Ok(others)
}

pub(super) async fn is_known_device(db: &mut PgConnection, staff: Uuid, device_sha256: &[u8]) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.people_devices where staff_id = $1 and device_sha256 = $2
           ) as "known!""#,
        staff,
        device_sha256,
    )
    .fetch_one(db)
    .await?)
}

pub(super) async fn forget(
    db: &mut PgConnection,
    sessions_before: DateTime<Utc>,
    attempts_before: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_sessions where expires_at < $1", sessions_before).execute(&mut *db).await?;
    sqlx::query!("delete from muneem.people_passkey_challenges where expires_at < $1", attempts_before)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from muneem.people_sign_in_codes where expires_at < $1", attempts_before)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from muneem.people_invitations where expires_at < $1", sessions_before)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from muneem.people_sign_in_failures where last_at < $1", attempts_before).execute(db).await?;
    Ok(())
}

/// Notes the country that a browser is in. Says whether she was in others before and never in this one.
pub(super) async fn see_country(
    tx: &mut PgConnection,
    staff: Uuid,
    device_sha256: &[u8],
    country: &str,
) -> Result<bool, Error> {
    let before = sqlx::query!(
        r#"select coalesce(bool_or(country is not null), false) as "some!",
                  coalesce(bool_or(country = $2), false) as "this!"
           from muneem.people_devices
           where staff_id = $1"#,
        staff,
        country,
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!(
        "update muneem.people_devices set country = $3 where staff_id = $1 and device_sha256 = $2",
        staff,
        device_sha256,
        country,
    )
    .execute(tx)
    .await?;
    Ok(before.some && !before.this)
}
