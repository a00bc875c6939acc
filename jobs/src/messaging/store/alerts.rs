//! What the carrier told that a person should see, and how its numbers stand.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::accounts::Said;
use crate::{
    messaging::{Alert, Error, SenderHealth, health::NewAlert},
    people::BusinessId,
};

/// Keeps an alert and ends the ones before it about the same thing. False: it is here already.
pub(in crate::messaging) async fn insert_alert(
    conn: &mut PgConnection,
    (business, id): (BusinessId, Uuid),
    new: &NewAlert<'_>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        r#"
        insert into muneem.messaging_alerts (
            alert_id, business_id, field, about, event, severity, details, at, received_at, ended_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, case when $6::text = 'info' then $9::timestamptz end)
        on conflict on constraint messaging_alerts_once do nothing
        "#,
        id,
        business.0,
        new.field,
        new.about,
        new.event,
        new.severity,
        new.details,
        new.at,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    sqlx::query!(
        r#"
        update muneem.messaging_alerts
        set ended_at = $5
        where business_id = $1 and field = $2 and about = $3 and alert_id <> $4 and ended_at is null and at <= $6
        "#,
        business.0,
        new.field,
        new.about,
        id,
        now,
        new.at,
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// The open alerts of a business, or of all, newest first, at most a thousand.
pub(in crate::messaging) async fn list_alerts(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<Alert>, Error> {
    let alerts = sqlx::query_as!(
        Alert,
        r#"
        select alert_id, business_id as "business_id: BusinessId", field, about, event, severity, details, at,
            received_at
        from muneem.messaging_alerts
        where ended_at is null and ($1::uuid is null or business_id = $1)
        order by received_at desc, alert_id desc
        limit 1000
        "#,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(alerts)
}

/// Ends an open alert.
pub(in crate::messaging) async fn end_alert(
    conn: &mut PgConnection,
    business: BusinessId,
    alert: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        r#"
        update muneem.messaging_alerts
        set ended_at = $3
        where alert_id = $1 and business_id = $2 and ended_at is null
        "#,
        alert,
        business.0,
        now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(ended == 1)
}

/// The word of the open alert about one thing.
pub(in crate::messaging) async fn find_open_alert(
    conn: &mut PgConnection,
    business: BusinessId,
    (field, about): (&str, &str),
) -> Result<Option<String>, Error> {
    let event = sqlx::query_scalar!(
        r#"
        select event
        from muneem.messaging_alerts
        where business_id = $1 and field = $2 and about = $3 and ended_at is null
        order by at desc
        limit 1
        "#,
        business.0,
        field,
        about,
    )
    .fetch_optional(conn)
    .await?;
    Ok(event)
}

/// What was known of a number before.
pub(in crate::messaging) struct Before {
    pub(in crate::messaging) quality: Option<String>,
    pub(in crate::messaging) status: Option<String>,
}

/// Keeps what the carrier said of a number; answers what it had said before.
pub(in crate::messaging) async fn note_said_and_tell(
    conn: &mut PgConnection,
    number: &str,
    said: &Said<'_>,
    now: DateTime<Utc>,
) -> Result<Before, Error> {
    let before = sqlx::query_as!(
        Before,
        r#"
        select quality, number_status as status
        from muneem.messaging_accounts
        where phone_number_id = $1
        for update
        "#,
        number,
    )
    .fetch_optional(&mut *conn)
    .await?;
    super::note_said(conn, number, said, now).await?;
    Ok(before.unwrap_or(Before { quality: None, status: None }))
}

/// The numbers of a business, or of all, with how they stand; people are counted since `since`.
pub(in crate::messaging) async fn list_senders(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    since: DateTime<Utc>,
) -> Result<Vec<SenderHealth>, Error> {
    let senders = sqlx::query_as!(
        SenderHealth,
        r#"
        select a.business_id as "business_id: BusinessId", a.phone_number_id, a.waba_id, a.display_phone,
            a.access_token_sealed is not null as "own_app!", a.api_version, a.quality, a.number_status as status,
            a.verified_name, a.messages_per_second, a.daily_recipients, a.told_at,
            (select coalesce(sum(r.people), 0)
             from muneem.messaging_reached r
             where r.business_id = a.business_id and r.portfolio = coalesce(a.portfolio_id, a.waba_id)
                and r.begins_at > $2)::bigint as "reached!",
            (select max(e.received_at) from muneem.messaging_events e where e.phone_number_id = a.phone_number_id)
                as heard_at,
            (select count(*) from muneem.messaging_messages m
             where m.phone_number_id = a.phone_number_id and m.state = 'queued') as "queued!"
        from muneem.messaging_accounts a
        where $1::uuid is null or a.business_id = $1
        order by a.business_id, a.created_at, a.phone_number_id
        "#,
        business.map(|business| business.0),
        since,
    )
    .fetch_all(conn)
    .await?;
    Ok(senders)
}

/// Forgets pairs about which nothing happened since `before`, at most `limit`.
pub(in crate::messaging) async fn forget_pairs(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, Error> {
    let gone = sqlx::query!(
        r#"
        delete from muneem.messaging_pairs p
        using (
            select phone_number_id, person_mark
            from muneem.messaging_pairs
            -- Turns count real time: an hour of it is more than any turn lasts.
            where next_at < clock_timestamp() - interval '1 hour'
                and (heard_at is null or heard_at < $1)
                and (counted_at is null or counted_at < $1)
            limit $2
            for update skip locked
        ) as old
        where p.phone_number_id = old.phone_number_id and p.person_mark = old.person_mark
        "#,
        before,
        limit,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(gone)
}
