//! The carrier's limits, as state that all workers share.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{messaging::Error, outbound::carrier::NumberId, people::BusinessId};

/// Places in a number's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::messaging) struct Places {
    /// How many.
    pub(in crate::messaging) given: usize,
    /// How long after the answer the first begins.
    pub(in crate::messaging) first_in: Duration,
    /// How far apart they are.
    pub(in crate::messaging) apart: Duration,
    /// Where none is given: when to look again.
    pub(in crate::messaging) look_again_in: Duration,
}

/// Takes up to `wanted` places. The transaction is to be short: it holds the number's row.
pub(in crate::messaging) async fn take_places(
    conn: &mut PgConnection,
    number: &NumberId,
    wanted: usize,
    urgent: bool,
) -> Result<Places, Error> {
    let row = sqlx::query!(
        r#"
        select given as "given!", extract(epoch from starts_at - seen_at)::float8 as "first!",
            extract(epoch from apart)::float8 as "apart!", extract(epoch from look_again - seen_at)::float8 as "again!"
        -- What a crash of the database forgets is over before it is up again: nobody waits for the disk here, and the
        -- number's row is free the sooner.
        from muneem.messaging_take_places($1, $2, $3),
            (select set_config('synchronous_commit', 'off', true)) as unsynced
        "#,
        number.as_str(),
        i32::try_from(wanted).unwrap_or(i32::MAX),
        urgent,
    )
    .fetch_one(conn)
    .await?;
    let span = |secs: f64| Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default();
    Ok(Places {
        given: usize::try_from(row.given).unwrap_or(0),
        first_in: span(row.first),
        apart: span(row.apart),
        look_again_in: span(row.again),
    })
}

/// The carrier said that it was too much: half the rate, growing back by a fifth a minute, and silence for `wait`.
pub(in crate::messaging) async fn slow_down(
    conn: &mut PgConnection,
    number: &NumberId,
    wait: Duration,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_paces p
        set share = greatest(0.05, least(1, p.share + 0.2 * extract(epoch from
                clock_timestamp() - greatest(p.slowed_at, clock_timestamp() - interval '1 hour')) / 60) / 2)::real,
            slowed_at = clock_timestamp(),
            next_at = greatest(p.next_at, clock_timestamp() + make_interval(secs => $2::float8))
        -- Those under way at the same moment say it too: once a second is enough.
        where p.phone_number_id = $1 and p.slowed_at < clock_timestamp() - interval '1 second'
        "#,
        number.as_str(),
        wait.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a turn with each of these people; answers whom it got one with. The carrier allows 45 at once and one in six
/// seconds (Cloud API, pair rate limit; error 131056): forty here, for those that it counts and we do not.
pub(in crate::messaging) async fn take_pairs(
    conn: &mut PgConnection,
    (business, number): (BusinessId, &NumberId),
    marks: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, Error> {
    let taken = sqlx::query_scalar!(
        r#"
        insert into muneem.messaging_pairs as known (phone_number_id, business_id, person_mark, next_at)
        select $1, $2, asked.mark, clock_timestamp() + interval '6 seconds'
        from unnest($3::bytea[]) as asked (mark)
        order by asked.mark
        on conflict (phone_number_id, person_mark) do update
        set next_at = greatest(known.next_at, clock_timestamp()) + interval '6 seconds'
        where known.next_at <= clock_timestamp() + interval '234 seconds'
        returning person_mark
        "#,
        number.as_str(),
        business.0,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(taken)
}

/// Lets the transaction end before its words are on the disk: for what is worth nothing after a crash of the database.
pub(in crate::messaging) async fn leave_unsynced(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query_scalar!(r#"select set_config('synchronous_commit', 'off', true) as "off!""#).fetch_one(conn).await?;
    Ok(())
}

/// How long somebody must be left alone.
pub(in crate::messaging) struct PairWait {
    pub(in crate::messaging) mark: Vec<u8>,
    pub(in crate::messaging) wait: Duration,
}

/// For how long no turn can be taken with these people.
pub(in crate::messaging) async fn pair_waits(
    conn: &mut PgConnection,
    number: &NumberId,
    marks: &[Vec<u8>],
) -> Result<Vec<PairWait>, Error> {
    let rows = sqlx::query!(
        r#"
        select person_mark, extract(epoch from next_at - interval '234 seconds' - clock_timestamp())::float8 as "wait!"
        from muneem.messaging_pairs
        where phone_number_id = $1 and person_mark = any ($2)
        "#,
        number.as_str(),
        marks,
    )
    .fetch_all(conn)
    .await?;
    let span = |secs: f64| Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default();
    Ok(rows.into_iter().map(|row| PairWait { mark: row.person_mark, wait: span(row.wait) }).collect())
}

/// The carrier said that it was too much for this person: nothing more to her for `wait`.
pub(in crate::messaging) async fn push_pair(
    conn: &mut PgConnection,
    (business, number): (BusinessId, &NumberId),
    mark: &[u8],
    wait: Duration,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_pairs as known (phone_number_id, business_id, person_mark, next_at)
        values ($1, $2, $3, clock_timestamp() + make_interval(secs => 234 + $4::float8))
        on conflict (phone_number_id, person_mark) do update
        set next_at = greatest(known.next_at, excluded.next_at)
        "#,
        number.as_str(),
        business.0,
        mark,
        wait.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Somebody wrote: for 24 hours from then she may be written to freely (Cloud API, customer service window).
pub(in crate::messaging) async fn hear_from(
    conn: &mut PgConnection,
    business: BusinessId,
    heard: &[(String, Vec<u8>, DateTime<Utc>)],
) -> Result<(), Error> {
    let numbers: Vec<_> = heard.iter().map(|(number, ..)| number.clone()).collect();
    let marks: Vec<_> = heard.iter().map(|(_, mark, _)| mark.clone()).collect();
    let times: Vec<_> = heard.iter().map(|(.., at)| *at).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_pairs as known (phone_number_id, business_id, person_mark, next_at, heard_at)
        select told.number, $1, told.mark, '-infinity', max(told.at)
        from unnest($2::text[], $3::bytea[], $4::timestamptz[]) as told (number, mark, at)
        group by told.number, told.mark
        order by told.number, told.mark
        on conflict (phone_number_id, person_mark) do update
        set heard_at = greatest(known.heard_at, excluded.heard_at)
        "#,
        business.0,
        &numbers,
        &marks,
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether somebody wrote to this number within the last 24 hours, under any of these marks (Cloud API, customer service
/// window).
pub(in crate::messaging) async fn is_window_open(
    conn: &mut PgConnection,
    number: &NumberId,
    marks: &[Vec<u8>],
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let open = sqlx::query_scalar!(
        r#"
        select exists (
            select from muneem.messaging_pairs
            where phone_number_id = $1 and person_mark = any ($2) and heard_at > $3) as "open!"
        "#,
        number.as_str(),
        marks,
        now - chrono::TimeDelta::hours(24),
    )
    .fetch_one(conn)
    .await?;
    Ok(open)
}

/// How many people a portfolio began to write to since `since`, and when the oldest of them leave the count. Locks the
/// count until the transaction ends: two that count at once would both find room.
pub(in crate::messaging) async fn count_reached(
    conn: &mut PgConnection,
    business: BusinessId,
    portfolio: &str,
    since: DateTime<Utc>,
) -> Result<(i64, Option<DateTime<Utc>>), Error> {
    // Who is second waits here, so that the statement after this one sees what the first counted.
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1, 0))",
        format!("muneem.messaging_reached/{business}/{portfolio}"),
    )
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query!(
        r#"
        select coalesce(sum(r.people), 0)::bigint as "people!", min(r.begins_at) filter (where r.people > 0) as oldest
        from muneem.messaging_reached r
        where r.business_id = $1 and r.portfolio = $2 and r.begins_at > $3
        "#,
        business.0,
        portfolio,
        since,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.people, row.oldest))
}

/// Counts those of these people who are not counted since `since`, at most `room`; answers who was counted now or before.
pub(in crate::messaging) async fn note_reached(
    conn: &mut PgConnection,
    (business, number, portfolio): (BusinessId, &NumberId, &str),
    marks: &[Vec<u8>],
    (now, since): (DateTime<Utc>, DateTime<Utc>),
    room: i64,
) -> Result<Vec<Vec<u8>>, Error> {
    let bucket = now - chrono::TimeDelta::seconds(now.timestamp().rem_euclid(300));
    let counted = sqlx::query_scalar!(
        r#"
        with already as (
            select p.person_mark
            from muneem.messaging_pairs p
            where p.phone_number_id = $1 and p.person_mark = any ($4)
                and (p.counted_at > $6 or p.heard_at > $6)
        ), fresh as (
            update muneem.messaging_pairs p
            set counted_at = $5
            from (
                select asked.mark
                from unnest($4::bytea[]) with ordinality as asked (mark, place)
                where not exists (select from already a where a.person_mark = asked.mark)
                order by asked.place
                limit greatest($7::bigint, 0)
            ) as chosen
            where p.phone_number_id = $1 and p.person_mark = chosen.mark
            returning p.person_mark
        ), noted as (
            insert into muneem.messaging_reached as known (business_id, portfolio, begins_at, people)
            select $2, $3, $8, count(*)
            from fresh
            having count(*) > 0
            on conflict (business_id, portfolio, begins_at) do update set people = known.people + excluded.people
        )
        select person_mark as "mark!" from already union all select person_mark from fresh
        "#,
        number.as_str(),
        business.0,
        portfolio,
        marks,
        now,
        since,
        room,
        bucket,
    )
    .fetch_all(conn)
    .await?;
    Ok(counted)
}
