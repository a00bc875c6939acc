//! What was tried to bring a message to its recipient, and what came of it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    id::JobId,
    messaging::{AttemptOutcome, Error, MessageId, Reference},
    outbound::carrier::Failure,
    people::BusinessId,
};

/// One attempt, as it is stored.
pub(in crate::messaging) struct AttemptRow {
    pub(in crate::messaging) number: i32,
    pub(in crate::messaging) reference: String,
    pub(in crate::messaging) job: JobId,
    /// Which lease of the job.
    pub(in crate::messaging) lease: i32,
    pub(in crate::messaging) outcome: AttemptOutcome,
    /// Of the carrier's id.
    pub(in crate::messaging) mark: Option<Vec<u8>>,
    pub(in crate::messaging) adopted_at: Option<DateTime<Utc>>,
    pub(in crate::messaging) http_status: Option<i16>,
    pub(in crate::messaging) error_code: Option<i64>,
    pub(in crate::messaging) error_details: Option<String>,
    pub(in crate::messaging) trace: Option<String>,
    pub(in crate::messaging) started_at: DateTime<Utc>,
    pub(in crate::messaging) ended_at: Option<DateTime<Utc>>,
    /// Not yet written.
    pub(in crate::messaging) changed: bool,
}

impl AttemptRow {
    /// One that is about to be posted.
    pub(in crate::messaging) fn new(
        number: i32,
        reference: &Reference,
        (job, lease): (JobId, i32),
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            number,
            reference: reference.0.clone(),
            job,
            lease,
            outcome: AttemptOutcome::Posting,
            mark: None,
            adopted_at: None,
            http_status: None,
            error_code: None,
            error_details: None,
            trace: None,
            started_at: now,
            ended_at: None,
            changed: true,
        }
    }

    /// What it came to.
    pub(in crate::messaging) fn end(&mut self, outcome: AttemptOutcome, now: DateTime<Utc>) {
        self.outcome = outcome;
        self.ended_at = self.ended_at.or(Some(now));
        self.changed = true;
    }

    /// What an answer or a webhook says of it; what is absent stays as it is.
    pub(in crate::messaging) fn note_trace(
        &mut self,
        http_status: Option<u16>,
        code: Option<i64>,
        details: Option<&str>,
        trace: Option<&str>,
    ) {
        self.http_status = http_status.and_then(|status| i16::try_from(status).ok()).or(self.http_status);
        self.error_code = code.or(self.error_code);
        self.error_details = details.map(str::to_owned).or(self.error_details.take());
        self.trace = trace.map(str::to_owned).or(self.trace.take());
        self.changed = true;
    }

    /// The same of an attempt that got no answer to go by.
    pub(in crate::messaging) fn note_failure(&mut self, failure: &Failure) {
        self.note_trace(failure.http_status, failure.code, Some(&failure.what), failure.trace.as_deref());
    }
}

/// Every attempt of these messages, by number.
pub(in crate::messaging) async fn list_attempt_rows(
    conn: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<(MessageId, AttemptRow)>, Error> {
    let rows = sqlx::query!(
        r#"
        select message_id as "message_id: MessageId", number, ref, job_id as "job_id: JobId", job_attempt,
            outcome as "outcome: AttemptOutcome", wamid_mark, adopted_at, http_status, error_code, error_details, trace,
            started_at, ended_at
        from muneem.messaging_attempts
        where message_id = any ($1)
        order by message_id, number
        "#,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let attempt = AttemptRow {
                number: row.number,
                reference: row.r#ref,
                job: row.job_id,
                lease: row.job_attempt,
                outcome: row.outcome,
                mark: row.wamid_mark,
                adopted_at: row.adopted_at,
                http_status: row.http_status,
                error_code: row.error_code,
                error_details: row.error_details,
                trace: row.trace,
                started_at: row.started_at,
                ended_at: row.ended_at,
                changed: false,
            };
            (row.message_id, attempt)
        })
        .collect())
}

/// Writes attempts of locked messages, new ones and changed ones.
pub(in crate::messaging) async fn upsert_attempts(
    conn: &mut PgConnection,
    attempts: &[(MessageId, &AttemptRow)],
) -> Result<(), Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&AttemptRow) -> Option<String>| attempts.iter().map(|(_, row)| of(row)).collect::<Vec<_>>();
    let ids: Vec<_> = attempts.iter().map(|(id, _)| id.0).collect();
    let numbers: Vec<_> = attempts.iter().map(|(_, row)| row.number).collect();
    let refs: Vec<_> = attempts.iter().map(|(_, row)| row.reference.clone()).collect();
    let jobs: Vec<_> = attempts.iter().map(|(_, row)| row.job.0).collect();
    let leases: Vec<_> = attempts.iter().map(|(_, row)| row.lease).collect();
    let outcomes: Vec<_> = attempts.iter().map(|(_, row)| row.outcome).collect();
    let marks: Vec<_> = attempts.iter().map(|(_, row)| row.mark.clone()).collect();
    let adopted: Vec<_> = attempts.iter().map(|(_, row)| row.adopted_at).collect();
    let statuses: Vec<_> = attempts.iter().map(|(_, row)| row.http_status).collect();
    let codes: Vec<_> = attempts.iter().map(|(_, row)| row.error_code).collect();
    let details = column(|row| row.error_details.clone());
    let traces = column(|row| row.trace.clone());
    let started: Vec<_> = attempts.iter().map(|(_, row)| row.started_at).collect();
    let ended: Vec<_> = attempts.iter().map(|(_, row)| row.ended_at).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_attempts as known (
            message_id, number, ref, job_id, job_attempt, outcome, wamid_mark, adopted_at, http_status, error_code,
            error_details, trace, started_at, ended_at)
        select *
        from unnest(
            $1::uuid[], $2::integer[], $3::text[], $4::bigint[], $5::integer[], $6::text[], $7::bytea[],
            $8::timestamptz[], $9::smallint[], $10::bigint[], $11::text[], $12::text[], $13::timestamptz[],
            $14::timestamptz[])
        on conflict (message_id, number) do update
        set outcome = excluded.outcome,
            wamid_mark = excluded.wamid_mark,
            adopted_at = excluded.adopted_at,
            http_status = excluded.http_status,
            error_code = excluded.error_code,
            error_details = excluded.error_details,
            trace = excluded.trace,
            ended_at = excluded.ended_at
        "#,
        &ids,
        &numbers,
        &refs,
        &jobs,
        &leases,
        &outcomes as &[AttemptOutcome],
        &marks as &[Option<Vec<u8>>],
        &adopted as &[Option<DateTime<Utc>>],
        &statuses as &[Option<i16>],
        &codes as &[Option<i64>],
        &details as &[Option<String>],
        &traces as &[Option<String>],
        &started,
        &ended as &[Option<DateTime<Utc>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An attempt found by what the carrier echoed.
#[derive(Clone, Copy)]
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
