//! Rows of campaigns.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Campaign, CampaignId, CampaignState, NewCampaign};
use crate::{
    messaging::{Error, MessageClass, MessageId},
    outbound::{Chance, carrier::NumberId},
    people::BusinessId,
};

/// Rows that the counts of a campaign are spread over.
const SHARDS: u8 = 8;

macro_rules! campaigns {
    ($rest:literal, $($value:expr),* $(,)?) => {
        sqlx::query_as!(
            Campaign,
            r#"select campaign_id as "campaign_id: CampaignId", business_id as "business_id: BusinessId", name, purpose,
                class as "class: MessageClass", phone_number_id, template, state as "state: CampaignState",
                paused_because, rests_after, expires_at, created_at, started_at, ended_at
            from muneem.messaging_campaigns "# + $rest,
            $($value),*
        )
    };
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    id: CampaignId,
    new: &NewCampaign,
    number: &NumberId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_campaigns (
            campaign_id, business_id, name, purpose, class, phone_number_id, template, state, rests_after, expires_at,
            created_at)
        values ($1, $2, $3, $4, $5, $6, $7, 'draft', $8, $9, $10)
        "#,
        id.0,
        new.business.0,
        new.name,
        new.purpose,
        new.class as MessageClass,
        number.as_str(),
        new.template,
        new.rests_after,
        new.expires_at,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn lock(
    conn: &mut PgConnection,
    business: BusinessId,
    id: CampaignId,
) -> Result<Option<Campaign>, Error> {
    Ok(campaigns!("where campaign_id = $1 and business_id = $2 for no key update", id.0, business.0)
        .fetch_optional(conn)
        .await?)
}

pub(super) async fn find(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: CampaignId,
) -> Result<Option<Campaign>, Error> {
    let business = business.map(|business| business.0);
    let found = campaigns!("where campaign_id = $1 and ($2::uuid is null or business_id = $2)", id.0, business);
    Ok(found.fetch_optional(conn).await?)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<CampaignId>,
    limit: i64,
) -> Result<Vec<Campaign>, Error> {
    let (business, before) = (business.map(|business| business.0), before.map(|before| before.0));
    let listed = campaigns!(
        "where ($1::uuid is null or business_id = $1) and ($2::uuid is null or campaign_id < $2)
        order by campaign_id desc
        limit $3",
        business,
        before,
        limit,
    );
    Ok(listed.fetch_all(conn).await?)
}

pub(super) async fn set_state(
    conn: &mut PgConnection,
    id: CampaignId,
    state: CampaignState,
    because: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_campaigns
        set state = $2,
            paused_because = $3,
            started_at = case when $2 = 'running' then coalesce(started_at, $4) else started_at end,
            ended_at = case when $2 in ('stopped', 'done') then $4::timestamptz end,
            -- Whoever lets it go on after its wave has seen what the wave did.
            rests_after = case when $2 = 'running' and paused_because = 'wave' then null else rests_after end
        where campaign_id = $1
        "#,
        id.0,
        state as CampaignState,
        because,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes up to `wanted` messages that may begin, locked; none where the campaign does not run.
pub(super) async fn take(
    conn: &mut PgConnection,
    id: CampaignId,
    wanted: i64,
    now: DateTime<Utc>,
) -> Result<Vec<MessageId>, Error> {
    let taken = sqlx::query_scalar!(
        r#"
        select m.message_id as "message_id: MessageId"
        from muneem.messaging_messages m
        where m.campaign_id = $1 and m.state = 'queued' and m.channel = 'whatsapp' and (m.not_before is null or m.not_before <= $3)
            and exists (
                select from muneem.messaging_campaigns c where c.campaign_id = $1 and c.state in ('running', 'done'))
        order by m.message_id
        limit $2
        for update of m skip locked
        "#,
        id.0,
        wanted,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(taken)
}

/// The campaigns of a business that go out.
pub(super) async fn list_running(
    conn: &mut PgConnection,
    business: BusinessId,
) -> Result<Vec<(CampaignId, MessageClass)>, Error> {
    let rows = sqlx::query!(
        r#"
        select campaign_id as "id: CampaignId", class as "class: MessageClass"
        from muneem.messaging_campaigns
        where business_id = $1 and state = 'running'
        "#,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.class)).collect())
}

/// Whether anything of a campaign may still go: by its own way, or by another.
pub(super) async fn has_more(conn: &mut PgConnection, id: CampaignId) -> Result<bool, Error> {
    let more = sqlx::query_scalar!(
        r#"
        select exists (
            select from muneem.messaging_messages where campaign_id = $1 and state = 'queued') or exists (
            select from muneem.messaging_messages where campaign_id = $1 and fall_back_at is not null) as "more!"
        "#,
        id.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(more)
}

/// Sets when the other way of those who wait is looked at: something holds the way that they wait for. A part at a time.
pub(super) async fn aim_waiting(conn: &mut PgConnection, id: CampaignId, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_messages m
        set fall_back_at = $2::timestamptz + make_interval(secs => m.fall_back_secs)
        where m.message_id = any (array(
            select w.message_id
            from muneem.messaging_messages w
            where w.campaign_id = $1 and w.state = 'queued' and w.way + 1 < w.ways and w.fall_back_at is null
            order by w.message_id
            limit 5000
            for update skip locked))
        "#,
        id.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether messages wait, and when the first of those put off may begin.
pub(super) async fn find_waiting(
    conn: &mut PgConnection,
    id: CampaignId,
) -> Result<Option<Option<DateTime<Utc>>>, Error> {
    let row = sqlx::query!(
        r#"
        select not_before
        from muneem.messaging_messages
        where campaign_id = $1 and state = 'queued' and channel = 'whatsapp'
        order by not_before nulls first
        limit 1
        "#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.not_before))
}

/// Attempts of a campaign that nobody knows the end of.
pub(super) async fn list_open(
    conn: &mut PgConnection,
    id: CampaignId,
    limit: i64,
) -> Result<Vec<(MessageId, i32, DateTime<Utc>)>, Error> {
    let rows = sqlx::query!(
        r#"
        select a.message_id as "message_id: MessageId", a.number, a.started_at
        from muneem.messaging_attempts a
        join muneem.messaging_messages m on m.message_id = a.message_id
        where a.outcome in ('posting', 'unknown') and m.campaign_id = $1 and m.channel = 'whatsapp'
            and m.state in ('posting', 'unknown')
        order by a.started_at
        limit $2
        "#,
        id.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.number, row.started_at)).collect())
}

/// Adds to the counts of campaigns: how many messages more (or less) are in a state.
pub(in crate::messaging) async fn add_counts(
    conn: &mut PgConnection,
    business: BusinessId,
    moved: &[(CampaignId, &str, i64)],
    chance: &dyn Chance,
) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let mut shard = [0];
    chance.fill(&mut shard);
    let ids: Vec<_> = moved.iter().map(|(id, ..)| id.0).collect();
    let states: Vec<_> = moved.iter().map(|(_, state, _)| (*state).to_owned()).collect();
    let messages: Vec<_> = moved.iter().map(|(.., messages)| *messages).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_campaign_counts as known (campaign_id, business_id, shard, state, messages)
        select moved.campaign_id, $1, $2, moved.state, sum(moved.messages)
        from unnest($3::uuid[], $4::text[], $5::bigint[]) as moved (campaign_id, state, messages)
        group by moved.campaign_id, moved.state
        order by moved.campaign_id, moved.state
        on conflict (campaign_id, shard, state) do update set messages = known.messages + excluded.messages
        "#,
        business.0,
        i16::from(shard[0] % SHARDS),
        &ids,
        &states,
        &messages,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many messages of a campaign are in which state, as an object of counts.
pub(super) async fn count(conn: &mut PgConnection, id: CampaignId) -> Result<Value, Error> {
    let counts = sqlx::query_scalar!(
        r#"
        select coalesce(jsonb_object_agg(state, messages), '{}'::jsonb) as "counts!"
        from (
            select state, sum(messages) as messages
            from muneem.messaging_campaign_counts
            where campaign_id = $1
            group by state
            having sum(messages) <> 0
        ) as summed
        "#,
        id.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(counts)
}

/// Lets a campaign rest once so many messages of it were begun.
pub(super) async fn set_rest(conn: &mut PgConnection, id: CampaignId, after: i64) -> Result<(), Error> {
    sqlx::query!("update muneem.messaging_campaigns set rests_after = $2 where campaign_id = $1", id.0, after)
        .execute(conn)
        .await?;
    Ok(())
}

/// Which of these people are in a campaign.
pub(super) async fn list_marks(
    conn: &mut PgConnection,
    id: CampaignId,
    marks: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, Error> {
    let known = sqlx::query_scalar!(
        r#"
        select to_mark as "mark!"
        from muneem.messaging_messages
        where campaign_id = $1 and to_mark = any ($2)
        "#,
        id.0,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(known)
}

/// The message to a person of a campaign, or to its first, and the end of her number.
pub(super) async fn find_person(
    conn: &mut PgConnection,
    id: CampaignId,
    marks: Option<&[Vec<u8>]>,
) -> Result<Option<(MessageId, String)>, Error> {
    let row = sqlx::query!(
        r#"
        select message_id as "message_id: MessageId", to_phone_ending as "to_phone_ending!"
        from muneem.messaging_messages
        where campaign_id = $1 and state = 'queued' and channel = 'whatsapp'
            and ($2::bytea[] is null or to_mark = any ($2))
        order by message_id
        limit 1
        "#,
        id.0,
        marks,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.message_id, row.to_phone_ending)))
}

/// A person who waits.
pub(super) struct Waiting {
    pub(super) message_id: MessageId,
    pub(super) to_sealed: Vec<u8>,
    pub(super) to_mark: Option<Vec<u8>>,
    pub(super) language: String,
}

/// People who wait in a campaign, by their messages behind `after`.
pub(super) async fn list_queued(
    conn: &mut PgConnection,
    id: CampaignId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Waiting>, Error> {
    let people = sqlx::query_as!(
        Waiting,
        r#"
        select message_id as "message_id: MessageId", to_phone_sealed as "to_sealed!", to_mark, language
        from muneem.messaging_messages
        where campaign_id = $1 and state = 'queued' and channel = 'whatsapp' and message_id > $2
        order by message_id
        limit $3
        "#,
        id.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(people)
}

/// Somebody who was written to or heard from lately.
pub(super) struct Touched {
    pub(super) mark: Vec<u8>,
    /// Whether she wrote.
    pub(super) heard: bool,
}

/// Which of these people do not count against the portfolio's limit: they wrote, or were counted, since `since`.
pub(super) async fn list_touched(
    conn: &mut PgConnection,
    number: &str,
    marks: &[Vec<u8>],
    since: DateTime<Utc>,
) -> Result<Vec<Touched>, Error> {
    let touched = sqlx::query_as!(
        Touched,
        r#"
        select person_mark as mark, heard_at is not null and heard_at > $3 as "heard!"
        from muneem.messaging_pairs
        where phone_number_id = $1 and person_mark = any ($2) and (heard_at > $3 or counted_at > $3)
        "#,
        number,
        marks,
        since,
    )
    .fetch_all(conn)
    .await?;
    Ok(touched)
}

/// What the carrier allows the number of a campaign.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) waba_id: String,
    pub(super) messages_per_second: i32,
    pub(super) daily_recipients: Option<i32>,
    /// People whom the portfolio wrote to first since the day began that is counted.
    pub(super) reached: i64,
}

/// Reads it, without holding up those who count.
pub(super) async fn load_line(
    conn: &mut PgConnection,
    (business, number): (BusinessId, &str),
    since: DateTime<Utc>,
) -> Result<Line, Error> {
    let line = sqlx::query_as!(
        Line,
        r#"
        select a.waba_id, a.messages_per_second, a.daily_recipients,
            (
                select coalesce(sum(r.people), 0)
                from muneem.messaging_reached r
                where r.business_id = a.business_id and r.portfolio = coalesce(a.portfolio_id, a.waba_id)
                    and r.begins_at > $3::timestamptz - interval '5 minutes'
            )::bigint as "reached!"
        from muneem.messaging_accounts a
        where a.business_id = $1 and a.phone_number_id = $2
        "#,
        business.0,
        number,
        since,
    )
    .fetch_optional(conn)
    .await?;
    line.ok_or(Error::NoSuchNumber)
}
