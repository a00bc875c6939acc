use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CodeId, Credentials, Error, Level, Reset, SentCode, Session, passkey::ChallengeId};

/// What is held against an account at a place.
pub(super) struct Failures {
    pub(super) failures: i32,
    pub(super) not_before: DateTime<Utc>,
}

/// Locks the count, making it first. One that has been quiet for `forgotten_after` begins anew.
pub(super) async fn lock_failures(
    tx: &mut PgConnection,
    account: &[u8],
    place: &[u8],
    now: DateTime<Utc>,
    forgotten_after: TimeDelta,
) -> Result<Failures, Error> {
    sqlx::query!(
        "insert into muneem.people_sign_in_failures (account, place, failures, not_before, last_at)
         values ($1, $2, 0, $3, $3)
         on conflict do nothing",
        account,
        place,
        now,
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!(
        "select failures, not_before, last_at
         from muneem.people_sign_in_failures
         where account = $1 and place = $2
         for update",
        account,
        place,
    )
    .fetch_one(tx)
    .await?;
    if row.last_at + forgotten_after < now {
        return Ok(Failures { failures: 0, not_before: now });
    }
    Ok(Failures { failures: row.failures, not_before: row.not_before })
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn set_failures(
    tx: &mut PgConnection,
    account: &[u8],
    place: &[u8],
    failures: i32,
    not_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_failures
         set failures = $3, not_before = $4, last_at = $5
         where account = $1 and place = $2",
        account,
        place,
        failures,
        not_before,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn take_back_failure(tx: &mut PgConnection, account: &[u8]) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_failures
         set failures = greatest(failures - 1, 0)
         where account = $1 and place = ''",
        account,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_failures(tx: &mut PgConnection, account: &[u8], place: &[u8]) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_sign_in_failures where account = $1 and place = $2", account, place)
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn load_credentials(db: &mut PgConnection, staff: Uuid) -> Result<Credentials, Error> {
    let row = sqlx::query_as!(
        Credentials,
        r#"select password_hash, totp_sealed, totp_pending_sealed,
                  (select count(*) from muneem.people_recovery_codes r
                   where r.staff_id = c.staff_id and r.used_at is null) as "recovery_codes_left!"
           from muneem.people_credentials c
           where staff_id = $1"#,
        staff,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.unwrap_or_default())
}

pub(super) async fn set_password(
    tx: &mut PgConnection,
    staff: Uuid,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_credentials (staff_id, password_hash, password_set_at, updated_at)
         values ($1, $2, $3, $3)
         on conflict (staff_id) do update set password_hash = $2, password_set_at = $3, updated_at = $3",
        staff,
        hash,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn refresh_hash(db: &mut PgConnection, staff: Uuid, old: &str, new: &str) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_credentials set password_hash = $3 where staff_id = $1 and password_hash = $2",
        staff,
        old,
        new,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn begin_totp(
    db: &mut PgConnection,
    staff: Uuid,
    sealed: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_credentials (staff_id, totp_pending_sealed, updated_at)
         values ($1, $2, $3)
         on conflict (staff_id) do update set totp_pending_sealed = $2, updated_at = $3",
        staff,
        sealed,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn confirm_totp(
    tx: &mut PgConnection,
    staff: Uuid,
    sealed: &[u8],
    step: i64,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_credentials
         set totp_sealed = totp_pending_sealed, totp_pending_sealed = null,
             totp_last_step = greatest(totp_last_step, $3), updated_at = $4
         where staff_id = $1 and totp_pending_sealed = $2",
        staff,
        sealed,
        step,
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Compare and set: the row's lock lets one through, and the others see its step.
pub(super) async fn use_totp_step(db: &mut PgConnection, staff: Uuid, step: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_credentials
         set totp_last_step = $2
         where staff_id = $1 and totp_last_step < $2 and totp_sealed is not null",
        staff,
        step,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn replace_recovery_codes(
    tx: &mut PgConnection,
    staff: Uuid,
    digests: &[Vec<u8>],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // Two sets at once would both stay: the parent's row is the lock.
    sqlx::query!("select staff_id from muneem.people_credentials where staff_id = $1 for update", staff)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query!("delete from muneem.people_recovery_codes where staff_id = $1", staff).execute(&mut *tx).await?;
    sqlx::query!(
        "insert into muneem.people_recovery_codes (staff_id, code_sha256, made_at)
         select $1, digest, $3 from unnest($2::bytea[]) digest",
        staff,
        digests,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn use_recovery_code(
    tx: &mut PgConnection,
    staff: Uuid,
    digest: &[u8],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_recovery_codes
         set used_at = $3
         where staff_id = $1 and code_sha256 = $2 and used_at is null",
        staff,
        digest,
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn clear_second_factor(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    // The last step stays: an old code does not come back to life with an old secret.
    sqlx::query!(
        "update muneem.people_credentials
         set totp_sealed = null, totp_pending_sealed = null, updated_at = $2
         where staff_id = $1",
        staff,
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from muneem.people_recovery_codes where staff_id = $1", staff).execute(&mut *tx).await?;
    delete_passkeys(tx, staff).await
}

pub(super) async fn clear_credentials(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    clear_second_factor(tx, staff, now).await?;
    sqlx::query!(
        "update muneem.people_credentials
         set password_hash = null, password_set_at = null, updated_at = $2
         where staff_id = $1",
        staff,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// One at a time makes a code for one person, so that the count holds.
pub(super) async fn lock_codes(tx: &mut PgConnection, staff: Uuid) -> Result<(), Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('people.sign_in_codes ' || $1::text, 0))",
        staff.to_string()
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn count_codes(
    tx: &mut PgConnection,
    staff: Uuid,
    since: DateTime<Utc>,
) -> Result<(i64, Option<DateTime<Utc>>), Error> {
    let row = sqlx::query!(
        r#"select count(*) as "count!", min(made_at) as oldest
           from muneem.people_sign_in_codes
           where staff_id = $1 and made_at > $2"#,
        staff,
        since,
    )
    .fetch_one(tx)
    .await?;
    Ok((row.count, row.oldest))
}

pub(super) async fn void_codes(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_codes set used_at = $2 where staff_id = $1 and used_at is null",
        staff,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_code(
    tx: &mut PgConnection,
    sent: &SentCode,
    staff: Uuid,
    channel: &str,
    digest: &[u8],
    tries: i16,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_sign_in_codes
             (code_id, staff_id, channel, code_sha256, tries_left, made_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        sent.code_id.0,
        staff,
        channel,
        digest,
        tries,
        now,
        sent.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) struct CodeRow {
    pub(super) staff_id: Uuid,
    pub(super) code_sha256: Vec<u8>,
    pub(super) tries_left: i16,
}

/// Takes one try of a code that still works.
pub(super) async fn take_try(
    tx: &mut PgConnection,
    code_id: CodeId,
    now: DateTime<Utc>,
) -> Result<Option<CodeRow>, Error> {
    Ok(sqlx::query_as!(
        CodeRow,
        "update muneem.people_sign_in_codes
         set tries_left = tries_left - 1
         where code_id = $1 and used_at is null and tries_left > 0 and expires_at > $2
         returning staff_id, code_sha256, tries_left",
        code_id.0,
        now,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn use_code(tx: &mut PgConnection, code_id: CodeId, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("update muneem.people_sign_in_codes set used_at = $2 where code_id = $1", code_id.0, now)
        .execute(tx)
        .await?;
    Ok(())
}

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
    sqlx::query!("delete from muneem.people_sign_in_failures where last_at < $1", attempts_before).execute(db).await?;
    Ok(())
}

pub(super) async fn insert_reset(db: &mut PgConnection, reset: &Reset) -> Result<(), Error> {
    let done = sqlx::query!(
        "insert into muneem.people_factor_resets (reset_id, staff_id, asked_by, asked_at)
         values ($1, $2, $3, $4)
         on conflict (staff_id) where done_at is null and cancelled_at is null do nothing",
        reset.reset_id,
        reset.staff_id,
        reset.asked_by,
        reset.asked_at,
    )
    .execute(db)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::ResetUnderWay) }
}

pub(super) async fn find_open_reset(db: &mut PgConnection, staff: Uuid) -> Result<Option<Reset>, Error> {
    Ok(sqlx::query_as!(
        Reset,
        "select reset_id, staff_id, asked_by, asked_at, approved_by, due_at
         from muneem.people_factor_resets
         where staff_id = $1 and done_at is null and cancelled_at is null",
        staff,
    )
    .fetch_optional(db)
    .await?)
}

pub(super) async fn lock_reset(tx: &mut PgConnection, reset: Uuid) -> Result<Option<Reset>, Error> {
    Ok(sqlx::query_as!(
        Reset,
        "select reset_id, staff_id, asked_by, asked_at, approved_by, due_at
         from muneem.people_factor_resets
         where reset_id = $1 and done_at is null and cancelled_at is null
         for update",
        reset,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn approve_reset(
    tx: &mut PgConnection,
    reset: Uuid,
    by: Uuid,
    due_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_factor_resets set approved_by = $2, due_at = $3 where reset_id = $1",
        reset,
        by,
        due_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn cancel_reset(db: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_factor_resets set cancelled_at = $2
         where reset_id = $1 and done_at is null and cancelled_at is null",
        reset,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn finish_reset(tx: &mut PgConnection, reset: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("update muneem.people_factor_resets set done_at = $2 where reset_id = $1", reset, now)
        .execute(tx)
        .await?;
    Ok(())
}

/// A row of `muneem.people_passkeys`.
pub(super) struct PasskeyRow {
    pub(super) credential_id: Vec<u8>,
    pub(super) label: String,
    pub(super) credential: Value,
    pub(super) counter: i64,
    pub(super) made_at: DateTime<Utc>,
    pub(super) used_at: Option<DateTime<Utc>>,
    pub(super) suspect_at: Option<DateTime<Utc>>,
}

pub(super) async fn list_passkeys(db: &mut PgConnection, staff: Uuid) -> Result<Vec<PasskeyRow>, Error> {
    Ok(sqlx::query_as!(
        PasskeyRow,
        "select credential_id, label, credential, counter, made_at, used_at, suspect_at
         from muneem.people_passkeys
         where staff_id = $1
         order by made_at, credential_id",
        staff,
    )
    .fetch_all(db)
    .await?)
}

pub(super) async fn lock_passkey(tx: &mut PgConnection, staff: Uuid, id: &[u8]) -> Result<Option<PasskeyRow>, Error> {
    Ok(sqlx::query_as!(
        PasskeyRow,
        "select credential_id, label, credential, counter, made_at, used_at, suspect_at
         from muneem.people_passkeys
         where staff_id = $1 and credential_id = $2
         for update",
        staff,
        id,
    )
    .fetch_optional(tx)
    .await?)
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_passkey(
    db: &mut PgConnection,
    staff: Uuid,
    id: &[u8],
    label: &str,
    credential: &Value,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "insert into muneem.people_passkeys (credential_id, staff_id, label, credential, counter, made_at)
         values ($1, $2, $3, $4, coalesce(($4::jsonb -> 'cred' ->> 'counter')::bigint, 0), $5)
         on conflict do nothing",
        id,
        staff,
        label,
        credential,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn use_passkey(
    tx: &mut PgConnection,
    id: &[u8],
    credential: &Value,
    counter: i64,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_passkeys
         set credential = $2, counter = $3, used_at = $4
         where credential_id = $1",
        id,
        credential,
        counter,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Puts a passkey out of use and answers its label, if it is hers.
pub(super) async fn suspect_passkey(
    tx: &mut PgConnection,
    staff: Uuid,
    id: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "update muneem.people_passkeys
         set suspect_at = coalesce(suspect_at, $3)
         where staff_id = $1 and credential_id = $2
         returning label",
        staff,
        id,
        now,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn delete_passkey(db: &mut PgConnection, staff: Uuid, id: &[u8]) -> Result<u64, Error> {
    let done = sqlx::query!("delete from muneem.people_passkeys where staff_id = $1 and credential_id = $2", staff, id)
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

pub(super) async fn delete_passkeys(tx: &mut PgConnection, staff: Uuid) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_passkeys where staff_id = $1", staff).execute(tx).await?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_challenge(
    db: &mut PgConnection,
    challenge: ChallengeId,
    staff: Uuid,
    purpose: &str,
    state: &Value,
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_passkey_challenges (challenge_id, staff_id, purpose, state, expires_at)
         values ($1, $2, $3, $4, $5)",
        challenge.0,
        staff,
        purpose,
        state,
        expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn take_challenge(
    db: &mut PgConnection,
    challenge: ChallengeId,
    staff: Uuid,
    purpose: &str,
    now: DateTime<Utc>,
) -> Result<Option<Value>, Error> {
    Ok(sqlx::query_scalar!(
        "delete from muneem.people_passkey_challenges
         where challenge_id = $1 and staff_id = $2 and purpose = $3 and expires_at > $4
         returning state",
        challenge.0,
        staff,
        purpose,
        now,
    )
    .fetch_optional(db)
    .await?)
}
