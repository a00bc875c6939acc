use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, postgres::types::PgInterval};
use uuid::Uuid;

use super::{Error, OtpId, OtpState};
use crate::{
    messaging::{MessageId, wishes::Channel},
    people::BusinessId,
};

/// One count as it stands.
pub(super) struct Held {
    pub(super) bucket: String,
    pub(super) key: Vec<u8>,
    pub(super) arrives_at: DateTime<Utc>,
}

/// Holds counts until the transaction ends, in the order they are given; one that is not there begins now.
pub(super) async fn hold_limits(
    tx: &mut PgConnection,
    business: BusinessId,
    (buckets, keys): (&[String], &[Vec<u8>]),
    now: DateTime<Utc>,
) -> Result<Vec<Held>, Error> {
    Ok(sqlx::query_as!(
        Held,
        "insert into muneem.messaging_otp_limits as known (business_id, bucket, key, arrives_at)
         select $1, w.bucket, w.key, $4
         from unnest($2::text[], $3::bytea[]) with ordinality as w (bucket, key, place)
         order by w.place
         on conflict (business_id, bucket, key) do update
         set arrives_at = greatest(known.arrives_at, excluded.arrives_at)
         returning bucket, key, arrives_at",
        business.0,
        buckets,
        keys,
        now,
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn set_limits(
    tx: &mut PgConnection,
    business: BusinessId,
    (buckets, keys, next): (&[String], &[Vec<u8>], &[DateTime<Utc>]),
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_otp_limits known
         set arrives_at = w.arrives_at
         from unnest($2::text[], $3::bytea[], $4::timestamptz[]) as w (bucket, key, arrives_at)
         where known.business_id = $1 and known.bucket = w.bucket and known.key = w.key",
        business.0,
        buckets,
        keys,
        next,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn lower_limit(
    tx: &mut PgConnection,
    business: BusinessId,
    bucket: &str,
    by: TimeDelta,
) -> Result<(), Error> {
    let by = PgInterval { months: 0, days: 0, microseconds: by.num_microseconds().unwrap_or(0) };
    sqlx::query!(
        "update muneem.messaging_otp_limits
         set arrives_at = arrives_at - $3::interval
         where business_id = $1 and bucket = $2 and key = ''",
        business.0,
        bucket,
        by,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes counts that say nothing any more, and requests that ended long ago.
pub(super) async fn tidy(tx: &mut PgConnection, now: DateTime<Utc>, before: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_otp_limits
         where (business_id, bucket, key) in (
             select business_id, bucket, key from muneem.messaging_otp_limits
             where arrives_at < $1
             order by arrives_at
             limit 32
             for update skip locked)",
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from muneem.messaging_otps
         where otp_id in (
             select otp_id from muneem.messaging_otps
             where expires_at < $1
             order by expires_at
             limit 16
             for update skip locked)",
        before,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A request about to be written.
pub(super) struct NewRow<'a> {
    pub(super) id: OtpId,
    pub(super) business: BusinessId,
    pub(super) purpose: &'a str,
    pub(super) language: &'a str,
    pub(super) phone_mark: Option<&'a [u8]>,
    pub(super) email_mark: Option<&'a [u8]>,
    pub(super) to_sealed: &'a [u8],
    pub(super) channels: Vec<String>,
    pub(super) digits: i16,
    pub(super) tries: i16,
    pub(super) asked_by: &'a str,
    pub(super) now: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
}

pub(super) async fn insert_otp(tx: &mut PgConnection, row: &NewRow<'_>) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_otps
             (otp_id, business_id, purpose, language, phone_mark, email_mark, to_sealed, channels, digits, state,
              tries_left, asked_by, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', $10, $11, $12, $13)",
        row.id.0,
        row.business.0,
        row.purpose,
        row.language,
        row.phone_mark,
        row.email_mark,
        row.to_sealed,
        &row.channels,
        row.digits,
        row.tries,
        row.asked_by,
        row.now,
        row.expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends open requests to any of these addresses; all purposes where none is named. How many.
pub(super) async fn end_open(
    tx: &mut PgConnection,
    business: BusinessId,
    (marks, purpose): (&[Vec<u8>], Option<&str>),
    (state, now): (OtpState, DateTime<Utc>),
) -> sqlx::Result<Vec<OtpId>> {
    sqlx::query_scalar!(
        r#"update muneem.messaging_otps
           set state = $4, ended_at = $5, to_sealed = null
           where business_id = $1 and (phone_mark = any($2) or email_mark = any($2)) and state = 'open'
               and ($3::text is null or purpose = $3) and expires_at > $5
           returning otp_id as "otp_id: OtpId""#,
        business.0,
        marks,
        purpose,
        state as OtpState,
        now,
    )
    .fetch_all(tx)
    .await
}

/// Deletes every request to these addresses.
pub(super) async fn delete_of(tx: &mut PgConnection, business: BusinessId, marks: &[Vec<u8>]) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from muneem.messaging_otps
         where business_id = $1 and (phone_mark = any($2) or email_mark = any($2))",
        business.0,
        marks,
    )
    .execute(tx)
    .await?;
    Ok(gone.rows_affected())
}

/// A request of a business.
pub(super) struct OtpRow {
    pub(super) purpose: String,
    pub(super) language: String,
    pub(super) phone_mark: Option<Vec<u8>>,
    pub(super) email_mark: Option<Vec<u8>>,
    pub(super) to_sealed: Option<Vec<u8>>,
    pub(super) channels: Vec<Channel>,
    pub(super) digits: i16,
    pub(super) state: OtpState,
    pub(super) tries_left: i16,
    pub(super) expires_at: DateTime<Utc>,
}

/// The request, held until the transaction ends.
pub(super) async fn lock_otp(tx: &mut PgConnection, business: BusinessId, id: OtpId) -> Result<Option<OtpRow>, Error> {
    let row = sqlx::query!(
        r#"select purpose, language, phone_mark, email_mark, to_sealed, channels, digits, state as "state: OtpState",
               tries_left, expires_at
           from muneem.messaging_otps
           where otp_id = $1 and business_id = $2
           for update"#,
        id.0,
        business.0,
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let channels = row.channels.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Ok(Some(OtpRow {
        purpose: row.purpose,
        language: row.language,
        phone_mark: row.phone_mark,
        email_mark: row.email_mark,
        to_sealed: row.to_sealed,
        channels,
        digits: row.digits,
        state: row.state,
        tries_left: row.tries_left,
        expires_at: row.expires_at,
    }))
}

/// Where one code of a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(super) enum CodeState {
    /// A message carries it.
    Planned,
    /// Handed to the mail server; no answer is recorded.
    Sending,
    /// The mail server has it, or nobody can tell.
    Sent,
    /// It will not arrive.
    Failed,
    /// There was no way on this channel.
    Skipped,
}

/// One code of a request.
pub(super) struct CodeRow {
    pub(super) hop: i16,
    pub(super) channel: Channel,
    pub(super) code_mark: Option<Vec<u8>>,
    pub(super) message_id: Option<MessageId>,
    pub(super) state: CodeState,
    pub(super) voided: bool,
}

/// The codes of a request, in the order they were tried.
pub(super) async fn list_codes(tx: &mut PgConnection, id: OtpId) -> Result<Vec<CodeRow>, Error> {
    Ok(sqlx::query_as!(
        CodeRow,
        r#"select hop, channel as "channel: Channel", code_mark, message_id as "message_id: MessageId",
               state as "state: CodeState", voided_at is not null as "voided!"
           from muneem.messaging_otp_codes
           where otp_id = $1
           order by hop"#,
        id.0,
    )
    .fetch_all(tx)
    .await?)
}

/// A code about to be written.
pub(super) struct NewCode<'a> {
    pub(super) code_id: Uuid,
    pub(super) hop: i16,
    pub(super) channel: Channel,
    pub(super) mark: Option<&'a [u8]>,
    pub(super) message: Option<MessageId>,
    pub(super) state: CodeState,
    pub(super) reason: Option<&'a str>,
}

/// Writes the code of one hop; another takes the place of one that died with its worker.
pub(super) async fn upsert_code(
    tx: &mut PgConnection,
    (business, id): (BusinessId, OtpId),
    new: &NewCode<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_otp_codes
             (code_id, business_id, otp_id, hop, channel, code_mark, message_id, state, reason, issued_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict on constraint messaging_otp_codes_once do update
         set code_mark = excluded.code_mark, message_id = excluded.message_id, state = excluded.state,
             reason = excluded.reason, issued_at = excluded.issued_at, voided_at = null",
        new.code_id,
        business.0,
        id.0,
        new.hop,
        new.channel as Channel,
        new.mark,
        new.message.map(|message| message.0),
        new.state as CodeState,
        new.reason,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Says what became of the code of one hop; `void`: it is good for nothing.
pub(super) async fn set_code_state(
    tx: &mut PgConnection,
    (id, hop): (OtpId, i16),
    (state, reason, void): (CodeState, Option<&str>, bool),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_otp_codes
         set state = $3, reason = $4, voided_at = case when $5 then coalesce(voided_at, $6) else voided_at end
         where otp_id = $1 and hop = $2",
        id.0,
        hop,
        state as CodeState,
        reason,
        void,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets where a request goes: nothing more is sent.
pub(super) async fn forget_address(tx: &mut PgConnection, id: OtpId) -> Result<(), Error> {
    sqlx::query!("update muneem.messaging_otps set to_sealed = null where otp_id = $1", id.0).execute(tx).await?;
    Ok(())
}

/// Takes one try of a request that is open, and holds it until the transaction ends. Nothing where there is none.
pub(super) async fn take_try(
    tx: &mut PgConnection,
    business: BusinessId,
    id: OtpId,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let taken = sqlx::query!(
        "update muneem.messaging_otps
         set tries_left = tries_left - 1
         where otp_id = $1 and business_id = $2 and state = 'open' and tries_left > 0 and expires_at > $3",
        id.0,
        business.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Ends a request.
pub(super) async fn end_otp(
    tx: &mut PgConnection,
    id: OtpId,
    state: OtpState,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_otps set state = $2, ended_at = $3, to_sealed = null where otp_id = $1",
        id.0,
        state as OtpState,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The request whose code a message carries.
pub(super) async fn find_by_message(
    tx: &mut PgConnection,
    business: BusinessId,
    message: MessageId,
) -> Result<Option<(OtpId, i16)>, Error> {
    let row = sqlx::query!(
        r#"select otp_id as "otp_id: OtpId", hop
           from muneem.messaging_otp_codes
           where business_id = $1 and message_id = $2"#,
        business.0,
        message.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.otp_id, row.hop)))
}
