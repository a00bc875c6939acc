use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CODE_TRIES, CodeId, Error, SentCode, parked::Parked};

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
           where staff_id = $1 and made_at > $2 and channel is not null and leads_to is null"#,
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

/// Ends choices and proofs that lead to her among others, whoever's password or phone they began with.
pub(super) async fn void_choices(tx: &mut PgConnection, staff: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_sign_in_codes
         set used_at = $2
         where used_at is null and expires_at > $2 and ($1 = any(chooses) or $1 = any(leads_to))",
        staff,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What a code is for.
pub(super) enum Opens<'a> {
    /// It was sent this way.
    Sent(&'a str),
    /// It chooses between these people of staff.
    Choice(&'a [Uuid]),
    /// It stands for one that was right.
    Proof(&'a Parked),
}

#[expect(clippy::too_many_arguments, reason = "a row has that many columns")]
pub(super) async fn insert_code(
    tx: &mut PgConnection,
    sent: &SentCode,
    staff: Uuid,
    opens: &Opens<'_>,
    digest: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let (channel, chooses, leads_to, tries) = match opens {
        Opens::Sent(channel) => (Some(*channel), None, None, CODE_TRIES),
        Opens::Choice(places) => (None, Some(*places), None, CODE_TRIES),
        Opens::Proof(proof) => (Some(proof.channel.as_str()), None, Some(proof.leads_to.as_slice()), proof.tries_left),
    };
    sqlx::query!(
        "insert into muneem.people_sign_in_codes
             (code_id, staff_id, channel, chooses, leads_to, code_sha256, tries_left, made_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        sent.code_id.0,
        staff,
        channel,
        chooses,
        leads_to,
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
    pub(super) channel: Option<String>,
    pub(super) chooses: Option<Vec<Uuid>>,
    pub(super) leads_to: Option<Vec<Uuid>>,
    pub(super) code_sha256: Vec<u8>,
    pub(super) tries_left: i16,
    pub(super) expires_at: DateTime<Utc>,
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
         returning staff_id, channel, chooses, leads_to, code_sha256, tries_left, expires_at",
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
