//! Rows of messages: as they are asked for, as they are sent, as they are judged.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    messaging::{
        Campaign, CampaignId, Error, Language, Message, MessageClass, MessageId, NewMessage, Policy, State,
        sealed::Personal,
    },
    outbound::carrier::NumberId,
    people::BusinessId,
};

/// A row about to be written.
pub(in crate::messaging) struct NewRow<'a> {
    pub(in crate::messaging) id: MessageId,
    pub(in crate::messaging) number: &'a NumberId,
    pub(in crate::messaging) personal: Personal,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
    pub(in crate::messaging) now: DateTime<Utc>,
}

/// Inserts a message as queued.
pub(in crate::messaging) async fn insert_message(
    conn: &mut PgConnection,
    new: &NewMessage,
    row: &NewRow<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_messages (
            message_id, business_id, phone_number_id, to_phone_sealed, to_phone_ending, to_mark, template, language,
            params_sealed, document_digest, document_filename, purpose, class, policy, state, expires_at, created_at,
            updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'queued', $15, $16, $16)
        "#,
        row.id.0,
        new.business.0,
        row.number.as_str(),
        row.personal.to,
        row.personal.ending,
        row.personal.mark,
        new.content.template(),
        new.language.as_str(),
        row.personal.params,
        new.document.as_ref().map(|document| &document.digest),
        new.document.as_ref().map(|document| &document.filename),
        new.purpose,
        new.content.class() as MessageClass,
        new.policy as Policy,
        row.expires_at,
        row.now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts messages of a campaign as queued.
pub(in crate::messaging) async fn insert_messages(
    conn: &mut PgConnection,
    campaign: &Campaign,
    (number, policy): (&NumberId, Policy),
    rows: &[(MessageId, Personal, Language)],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let ids: Vec<_> = rows.iter().map(|(id, ..)| id.0).collect();
    let to: Vec<_> = rows.iter().map(|(_, personal, _)| personal.to.clone()).collect();
    let endings: Vec<_> = rows.iter().map(|(_, personal, _)| personal.ending.clone()).collect();
    let marks: Vec<_> = rows.iter().map(|(_, personal, _)| personal.mark.clone()).collect();
    let params: Vec<_> = rows.iter().map(|(_, personal, _)| personal.params.clone()).collect();
    let languages: Vec<_> = rows.iter().map(|(.., language)| language.as_str().to_owned()).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_messages (
            message_id, business_id, phone_number_id, to_phone_sealed, to_phone_ending, to_mark, template, language,
            params_sealed, purpose, class, policy, state, expires_at, created_at, updated_at, campaign_id)
        select new.message_id, $1, $2, new.to_sealed, new.ending, new.mark, $3, new.language, new.params, $4, $5, $6,
            'queued', $7, $8, $8, $9
        from unnest($10::uuid[], $11::bytea[], $12::text[], $13::bytea[], $14::text[], $15::bytea[])
            as new (message_id, to_sealed, ending, mark, language, params)
        "#,
        campaign.business_id.0,
        number.as_str(),
        campaign.template,
        campaign.purpose,
        campaign.class as MessageClass,
        policy as Policy,
        campaign.expires_at,
        now,
        campaign.campaign_id.0,
        &ids,
        &to,
        &endings,
        &marks,
        &languages,
        &params,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What sending needs of a message.
pub(in crate::messaging) struct Envelope {
    pub(in crate::messaging) state: State,
    pub(in crate::messaging) class: MessageClass,
    pub(in crate::messaging) purpose: String,
    pub(in crate::messaging) number: NumberId,
    pub(in crate::messaging) waba_id: String,
    pub(in crate::messaging) portfolio: String,
    pub(in crate::messaging) daily_recipients: Option<i32>,
    pub(in crate::messaging) own_app: bool,
    pub(in crate::messaging) to_sealed: Vec<u8>,
    pub(in crate::messaging) template: String,
    pub(in crate::messaging) language: String,
    pub(in crate::messaging) params_sealed: Vec<u8>,
    pub(in crate::messaging) document_digest: Option<String>,
    pub(in crate::messaging) document_filename: Option<String>,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
}

/// Reads messages of this business, in the order of their ids.
pub(in crate::messaging) async fn load_envelopes(
    conn: &mut PgConnection,
    business: BusinessId,
    ids: &[Uuid],
) -> Result<Vec<Envelope>, Error> {
    let envelopes = sqlx::query_as!(
        Envelope,
        r#"
        select m.state as "state: State", m.class as "class: MessageClass", m.purpose,
            m.phone_number_id as "number: NumberId", a.waba_id, coalesce(a.portfolio_id, a.waba_id) as "portfolio!",
            a.daily_recipients, a.access_token_sealed is not null as "own_app!", m.to_phone_sealed as to_sealed,
            m.template, m.language, m.params_sealed, m.document_digest, m.document_filename, m.expires_at
        from muneem.messaging_messages m
        join muneem.messaging_accounts a on a.phone_number_id = m.phone_number_id
        where m.message_id = any ($1) and m.business_id = $2
        order by m.message_id
        "#,
        ids,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(envelopes)
}

/// What judging needs of a message.
pub(in crate::messaging) struct MessageRow {
    pub(in crate::messaging) message_id: MessageId,
    pub(in crate::messaging) state: State,
    pub(in crate::messaging) class: MessageClass,
    pub(in crate::messaging) policy: Policy,
    pub(in crate::messaging) number: NumberId,
    pub(in crate::messaging) waba_id: String,
    pub(in crate::messaging) own_app: bool,
    pub(in crate::messaging) to_mark: Option<Vec<u8>>,
    pub(in crate::messaging) template: String,
    pub(in crate::messaging) language: String,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
    pub(in crate::messaging) held_scope: Option<String>,
    pub(in crate::messaging) skipped_because: Option<String>,
    pub(in crate::messaging) error_code: Option<i64>,
    pub(in crate::messaging) error_details: Option<String>,
    pub(in crate::messaging) duplicate_delivered_at: Option<DateTime<Utc>>,
    pub(in crate::messaging) campaign: Option<CampaignId>,
    /// No attempt begins before.
    pub(in crate::messaging) not_before: Option<DateTime<Utc>>,
}

/// Locks messages of this business, in the order of their ids.
pub(in crate::messaging) async fn lock_messages(
    conn: &mut PgConnection,
    business: BusinessId,
    ids: &[Uuid],
) -> Result<Vec<MessageRow>, Error> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
        select m.message_id as "message_id: MessageId", m.state as "state: State", m.class as "class: MessageClass",
            m.policy as "policy: Policy", m.phone_number_id as "number: NumberId", a.waba_id,
            a.access_token_sealed is not null as "own_app!", m.to_mark, m.template, m.language, m.expires_at,
            m.held_scope, m.skipped_because, m.error_code, m.error_details, m.duplicate_delivered_at,
            m.campaign_id as "campaign: CampaignId", m.not_before
        from muneem.messaging_messages m
        join muneem.messaging_accounts a on a.phone_number_id = m.phone_number_id
        where m.message_id = any ($1) and m.business_id = $2
        order by m.message_id
        for update of m
        "#,
        ids,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// Writes locked messages that moved.
pub(in crate::messaging) async fn update_messages(
    conn: &mut PgConnection,
    moved: &[&MessageRow],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = moved.iter().map(|row| row.message_id.0).collect();
    let states: Vec<_> = moved.iter().map(|row| row.state).collect();
    let held: Vec<_> = moved.iter().map(|row| row.held_scope.clone()).collect();
    let skipped: Vec<_> = moved.iter().map(|row| row.skipped_because.clone()).collect();
    let codes: Vec<_> = moved.iter().map(|row| row.error_code).collect();
    let details: Vec<_> = moved.iter().map(|row| row.error_details.clone()).collect();
    let twice: Vec<_> = moved.iter().map(|row| row.duplicate_delivered_at).collect();
    let not_before: Vec<_> = moved.iter().map(|row| row.not_before).collect();
    sqlx::query!(
        r#"
        update muneem.messaging_messages m
        set state = told.state,
            held_scope = told.held_scope,
            skipped_because = told.skipped_because,
            error_code = told.error_code,
            error_details = told.error_details,
            duplicate_delivered_at = told.twice,
            not_before = told.not_before,
            updated_at = $9
        from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[],
            $8::timestamptz[])
            as told (message_id, state, held_scope, skipped_because, error_code, error_details, twice, not_before)
        where m.message_id = told.message_id
        "#,
        &ids,
        &states as &[State],
        &held as &[Option<String>],
        &skipped as &[Option<String>],
        &codes as &[Option<i64>],
        &details as &[Option<String>],
        &twice as &[Option<DateTime<Utc>>],
        &not_before as &[Option<DateTime<Utc>>],
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Messages that wait behind a hold of this scope and number, or of any number, oldest first.
pub(in crate::messaging) async fn list_held(
    conn: &mut PgConnection,
    business: BusinessId,
    scope: &str,
    limit: i64,
) -> Result<Vec<(MessageId, MessageClass)>, Error> {
    let rows = sqlx::query!(
        r#"
        select message_id as "message_id: MessageId", class as "class: MessageClass"
        from muneem.messaging_messages
        where business_id = $1 and state = 'queued' and held_scope = $2 and campaign_id is null
        order by message_id
        limit $3
        "#,
        business.0,
        scope,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.class)).collect())
}

/// What is queued for a person, oldest first.
pub(in crate::messaging) async fn list_queued_for(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
    limit: i64,
) -> Result<Vec<(MessageId, MessageClass, String)>, Error> {
    let rows = sqlx::query!(
        r#"
        select message_id as "message_id: MessageId", class as "class: MessageClass", purpose
        from muneem.messaging_messages
        where business_id = $1 and to_mark = any ($2) and state = 'queued'
        order by message_id
        limit $3
        "#,
        business.0,
        marks,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.class, row.purpose)).collect())
}

/// One message as people see it; of any business when `business` is absent.
pub(in crate::messaging) async fn find_message(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Option<Message>, Error> {
    let message = sqlx::query_as!(
        Message,
        r#"
        select message_id as "message_id: MessageId", state as "state: State",
            '…' || to_phone_ending as "recipient!", purpose, class as "class: MessageClass", template, language,
            document_filename, held_scope, skipped_because, error_code, error_details, duplicate_delivered_at,
            expires_at, created_at, updated_at
        from muneem.messaging_messages
        where message_id = $1 and ($2::uuid is null or business_id = $2)
        "#,
        id.0,
        business.map(|business| business.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(message)
}

/// A page of messages, newest first, older than `before`; of all businesses when `business` is absent.
pub(in crate::messaging) async fn list_messages(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<MessageId>,
    limit: i64,
) -> Result<Vec<Message>, Error> {
    let messages = sqlx::query_as!(
        Message,
        r#"
        select message_id as "message_id: MessageId", state as "state: State",
            '…' || to_phone_ending as "recipient!", purpose, class as "class: MessageClass", template, language,
            document_filename, held_scope, skipped_because, error_code, error_details, duplicate_delivered_at,
            expires_at, created_at, updated_at
        from muneem.messaging_messages
        where ($1::uuid is null or business_id = $1) and ($2::uuid is null or message_id < $2)
        order by message_id desc
        limit $3
        "#,
        business.map(|business| business.0),
        before.map(|before| before.0),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(messages)
}
