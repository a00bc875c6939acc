//! What was tried to bring a message to its recipient, and what came of it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    id::JobId,
    messaging::{AttemptOutcome, Error, MessageId, Reference},
    people::BusinessId,
    queue::JobContext,
};

/// The last attempt of a message, and how many there were of each ill fate.
pub(in crate::messaging) struct LastAttempt {
    pub(in crate::messaging) number: i32,
    pub(in crate::messaging) job: JobId,
    pub(in crate::messaging) outcome: AttemptOutcome,
    pub(in crate::messaging) started_at: DateTime<Utc>,
    pub(in crate::messaging) refused: i64,
    pub(in crate::messaging) not_sent: i64,
}

/// Reads the last attempt; none before the first.
pub(in crate::messaging) async fn find_last_attempt(
    conn: &mut PgConnection,
    id: MessageId,
) -> Result<Option<LastAttempt>, Error> {
    let last = sqlx::query_as!(
        LastAttempt,
        r#"
        select number, job_id as "job: JobId", outcome as "outcome: AttemptOutcome", started_at,
            (select count(*) from muneem.messaging_attempts o
             where o.message_id = $1 and o.outcome in ('refused', 'failed')) as "refused!",
            (select count(*) from muneem.messaging_attempts o
             where o.message_id = $1 and o.outcome = 'not_sent') as "not_sent!"
        from muneem.messaging_attempts
        where message_id = $1
        order by number desc
        limit 1
        "#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(last)
}

/// Inserts an attempt that is about to be posted.
pub(in crate::messaging) async fn insert_attempt(
    conn: &mut PgConnection,
    ctx: &JobContext,
    (id, number): (MessageId, i32),
    reference: &Reference,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_attempts (message_id, number, ref, job_id, job_attempt, outcome, started_at)
        values ($1, $2, $3, $4, $5, 'posting', $6)
        "#,
        id.0,
        number,
        reference.0,
        ctx.job.0,
        ctx.attempt,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is written down at the end of an attempt.
#[derive(Default)]
pub(in crate::messaging) struct Ending<'a> {
    /// The mark of the carrier's id.
    pub(in crate::messaging) wamid: Option<&'a [u8]>,
    pub(in crate::messaging) adopted: bool,
    pub(in crate::messaging) http_status: Option<u16>,
    pub(in crate::messaging) error_code: Option<i64>,
    pub(in crate::messaging) error_details: Option<&'a str>,
    pub(in crate::messaging) trace: Option<&'a str>,
}

/// Ends an attempt of a locked message.
pub(in crate::messaging) async fn end_attempt(
    conn: &mut PgConnection,
    attempt: (MessageId, i32),
    outcome: AttemptOutcome,
    ending: &Ending<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_attempts
        set outcome = $3,
            wamid_mark = coalesce(wamid_mark, $4),
            adopted_at = case when $5 then coalesce(adopted_at, $10) else adopted_at end,
            http_status = coalesce($6, http_status),
            error_code = coalesce($7, error_code),
            error_details = coalesce($8, error_details),
            trace = coalesce($9, trace),
            ended_at = coalesce(ended_at, $10)
        where message_id = $1 and number = $2
        "#,
        attempt.0.0,
        attempt.1,
        outcome as AttemptOutcome,
        ending.wamid,
        ending.adopted,
        ending.http_status.and_then(|status| i16::try_from(status).ok()),
        ending.error_code,
        ending.error_details,
        ending.trace,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The outcome of one attempt.
pub(in crate::messaging) async fn find_outcome(
    conn: &mut PgConnection,
    id: MessageId,
    number: i32,
) -> Result<Option<AttemptOutcome>, Error> {
    let outcome = sqlx::query_scalar!(
        r#"
        select outcome as "outcome: AttemptOutcome"
        from muneem.messaging_attempts
        where message_id = $1 and number = $2
        "#,
        id.0,
        number,
    )
    .fetch_optional(conn)
    .await?;
    Ok(outcome)
}

/// An attempt found by what the carrier echoed.
pub(in crate::messaging) struct OwnAttempt {
    pub(in crate::messaging) message: MessageId,
    pub(in crate::messaging) number: i32,
}

/// Which attempts of this business a batch of statuses is about, by reference or by the marks of its wamid (each with
/// the place of its status, from 1); one answer per status, in its order.
pub(in crate::messaging) async fn find_attempts(
    conn: &mut PgConnection,
    business: BusinessId,
    refs: &[Option<String>],
    (places, marks): (&[i64], &[Vec<u8>]),
) -> Result<Vec<Option<OwnAttempt>>, Error> {
    let rows = sqlx::query!(
        r#"
        select distinct on (told.place)
            coalesce(by_ref.message_id, by_wamid.message_id) as "message: MessageId",
            coalesce(by_ref.number, by_wamid.number) as number
        from unnest($2::text[]) with ordinality as told (ref, place)
        left join muneem.messaging_attempts by_ref
            join muneem.messaging_messages ref_message
                on ref_message.message_id = by_ref.message_id and ref_message.business_id = $1
            on by_ref.ref = told.ref
        left join unnest($3::bigint[], $4::bytea[]) as marked (place, mark)
            join muneem.messaging_attempts by_wamid on by_wamid.wamid_mark = marked.mark
            join muneem.messaging_messages wamid_message
                on wamid_message.message_id = by_wamid.message_id and wamid_message.business_id = $1
            on marked.place = told.place
        order by told.place, by_wamid.message_id, by_wamid.number
        "#,
        business.0,
        refs as &[Option<String>],
        places,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| row.message.zip(row.number).map(|(message, number)| OwnAttempt { message, number }))
        .collect())
}
