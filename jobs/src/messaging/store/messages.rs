//! Rows of messages: as they are asked for, as they are sent, as they are judged.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    messaging::{
        Campaign, CampaignId, Document, Error, Language, Message, MessageClass, MessageId, Policy, State,
        sealed::Personal, wishes::Channel,
    },
    outbound::carrier::NumberId,
    people::BusinessId,
};

/// A row about to be written as queued.
pub(in crate::messaging) struct NewRow<'a> {
    pub(in crate::messaging) business: BusinessId,
    pub(in crate::messaging) id: MessageId,
    /// Of a message by WhatsApp.
    pub(in crate::messaging) number: Option<&'a NumberId>,
    pub(in crate::messaging) personal: Personal,
    pub(in crate::messaging) template: &'a str,
    pub(in crate::messaging) language: &'a str,
    pub(in crate::messaging) document: Option<&'a Document>,
    pub(in crate::messaging) purpose: &'a str,
    pub(in crate::messaging) class: MessageClass,
    pub(in crate::messaging) policy: Policy,
    pub(in crate::messaging) campaign: Option<CampaignId>,
    pub(in crate::messaging) place: Place,
    pub(in crate::messaging) not_before: Option<DateTime<Utc>>,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
    pub(in crate::messaging) now: DateTime<Utc>,
}

/// Where a message stands among the ways to one person.
#[derive(Clone, Copy)]
pub(in crate::messaging) struct Place {
    /// The first message of those that follow each other; itself, of the first.
    pub(in crate::messaging) delivery: MessageId,
    /// From 0.
    pub(in crate::messaging) way: i16,
    /// How many there are.
    pub(in crate::messaging) ways: i16,
    /// How long this one may take, where one follows.
    pub(in crate::messaging) falls_back_after: TimeDelta,
    /// When somebody looks whether the next one is to be taken.
    pub(in crate::messaging) fall_back_at: Option<DateTime<Utc>>,
}

/// Inserts a message as queued, or as left out where `skipped` says why; false where this way was taken already.
pub(in crate::messaging) async fn insert_message(
    conn: &mut PgConnection,
    row: &NewRow<'_>,
    skipped: Option<&str>,
) -> Result<bool, Error> {
    let Personal { phone, ending, mark, email, params, ways } = &row.personal;
    let several = row.place.ways > 1;
    let inserted = sqlx::query!(
        r#"
        insert into muneem.messaging_messages (
            message_id, business_id, phone_number_id, to_phone_sealed, to_phone_ending, to_mark, to_email_sealed, channel,
            template, language, params_sealed, document_digest, document_filename, purpose, class, policy, state,
            skipped_because, campaign_id, delivery_id, way, ways, ways_sealed, fall_back_secs, fall_back_at, not_before,
            expires_at, created_at, updated_at)
        values (
            $1, $2, $3, $4, $5, $6, $7, case when $7::bytea is null then 'whatsapp' else 'mail' end,
            $8, $9, $10, $11, $12, $13, $14, $15, case when $16::text is null then 'queued' else 'skipped' end,
            $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $26)
        on conflict (delivery_id, way) where delivery_id is not null do nothing
        "#,
        row.id.0,
        row.business.0,
        row.number.map(NumberId::as_str),
        phone.as_deref(),
        ending.as_deref(),
        mark.as_deref(),
        email.as_deref(),
        row.template,
        row.language,
        params,
        row.document.map(|document| &document.digest),
        row.document.map(|document| &document.filename),
        row.purpose,
        row.class as MessageClass,
        row.policy as Policy,
        skipped,
        row.campaign.map(|campaign| campaign.0),
        several.then_some(row.place.delivery.0),
        row.place.way,
        row.place.ways,
        ways.as_deref(),
        several.then(|| i32::try_from(row.place.falls_back_after.num_seconds().max(1)).unwrap_or(i32::MAX)),
        row.place.fall_back_at,
        row.not_before,
        row.expires_at,
        row.now,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// Inserts messages of a campaign as queued. Where one has several ways, it takes the first.
pub(in crate::messaging) async fn insert_messages(
    conn: &mut PgConnection,
    campaign: &Campaign,
    (number, policy, falls_back_after): (&NumberId, Policy, TimeDelta),
    rows: &[(MessageId, Personal, Language, i16)],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let ids: Vec<_> = rows.iter().map(|(id, ..)| id.0).collect();
    let to: Vec<_> = rows.iter().map(|(_, personal, ..)| personal.phone.clone()).collect();
    let endings: Vec<_> = rows.iter().map(|(_, personal, ..)| personal.ending.clone()).collect();
    let marks: Vec<_> = rows.iter().map(|(_, personal, ..)| personal.mark.clone()).collect();
    let params: Vec<_> = rows.iter().map(|(_, personal, ..)| personal.params.clone()).collect();
    let languages: Vec<_> = rows.iter().map(|(_, _, language, _)| language.as_str().to_owned()).collect();
    let sealed: Vec<_> = rows.iter().map(|(_, personal, ..)| personal.ways.clone()).collect();
    let ways: Vec<_> = rows.iter().map(|(.., ways)| *ways).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_messages (
            message_id, business_id, phone_number_id, to_phone_sealed, to_phone_ending, to_mark, template, language,
            params_sealed, purpose, class, policy, state, expires_at, created_at, updated_at, campaign_id, delivery_id,
            ways, ways_sealed, fall_back_secs)
        select new.message_id, $1, $2, new.to_sealed, new.ending, new.mark, $3, new.language, new.params, $4, $5, $6,
            'queued', $7, $8, $8, $9, case when new.ways > 1 then new.message_id end, new.ways, new.ways_sealed,
            case when new.ways > 1 then $18::integer end
        from unnest($10::uuid[], $11::bytea[], $12::text[], $13::bytea[], $14::text[], $15::bytea[], $16::smallint[],
            $17::bytea[]) as new (message_id, to_sealed, ending, mark, language, params, ways, ways_sealed)
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
        &to as &[Option<Vec<u8>>],
        &endings as &[Option<String>],
        &marks as &[Option<Vec<u8>>],
        &languages,
        &params,
        &ways,
        &sealed as &[Option<Vec<u8>>],
        i32::try_from(falls_back_after.num_seconds().max(1)).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What sending a mail needs of a message.
pub(in crate::messaging) struct Letter {
    pub(in crate::messaging) state: State,
    pub(in crate::messaging) class: MessageClass,
    pub(in crate::messaging) purpose: String,
    pub(in crate::messaging) campaign: Option<CampaignId>,
    pub(in crate::messaging) to_sealed: Vec<u8>,
    pub(in crate::messaging) ways_sealed: Option<Vec<u8>>,
    pub(in crate::messaging) has_more: bool,
    pub(in crate::messaging) template: String,
    pub(in crate::messaging) language: String,
    pub(in crate::messaging) params_sealed: Vec<u8>,
    pub(in crate::messaging) document_digest: Option<String>,
    pub(in crate::messaging) document_filename: Option<String>,
    pub(in crate::messaging) not_before: Option<DateTime<Utc>>,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
}

/// Reads a message of this business that goes by mail.
pub(in crate::messaging) async fn load_letter(
    conn: &mut PgConnection,
    business: BusinessId,
    id: MessageId,
) -> Result<Option<Letter>, Error> {
    let letter = sqlx::query_as!(
        Letter,
        r#"
        select state as "state: State", class as "class: MessageClass", purpose,
            campaign_id as "campaign: CampaignId", to_email_sealed as "to_sealed!", ways_sealed,
            way + 1 < ways as "has_more!", template, language, params_sealed, document_digest, document_filename,
            not_before, expires_at
        from muneem.messaging_messages
        where message_id = $1 and business_id = $2 and channel = 'mail'
        "#,
        id.0,
        business.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(letter)
}

/// What taking the next way needs of a message.
pub(in crate::messaging) struct Spent {
    pub(in crate::messaging) ways_sealed: Option<Vec<u8>>,
    pub(in crate::messaging) params_sealed: Vec<u8>,
    pub(in crate::messaging) purpose: String,
    pub(in crate::messaging) document_digest: Option<String>,
    pub(in crate::messaging) document_filename: Option<String>,
}

/// Reads what the next way takes over.
pub(in crate::messaging) async fn load_spent(conn: &mut PgConnection, id: MessageId) -> Result<Option<Spent>, Error> {
    let spent = sqlx::query_as!(
        Spent,
        "select ways_sealed, params_sealed, purpose, document_digest, document_filename
         from muneem.messaging_messages
         where message_id = $1",
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(spent)
}

/// Where the other messages of the same deliveries stand: of which message it is another, which way it takes, its state.
pub(in crate::messaging) async fn list_siblings(
    conn: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<(MessageId, i16, State)>, Error> {
    let rows = sqlx::query!(
        r#"
        select own.message_id as "of: MessageId", other.way, other.state as "state: State"
        from muneem.messaging_messages own
        join muneem.messaging_messages other on other.delivery_id = own.delivery_id and other.way <> own.way
        where own.message_id = any ($1)
        order by own.message_id, other.way
        "#,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.of, row.way, row.state)).collect())
}

/// Messages whose next way is to be looked at, the longest due first; of whatever business.
pub(in crate::messaging) async fn list_falling_back(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(BusinessId, MessageId)>, Error> {
    let rows = sqlx::query!(
        r#"
        select business_id as "business: BusinessId", message_id as "message_id: MessageId"
        from muneem.messaging_messages
        where fall_back_at <= $1
        order by fall_back_at
        limit $2
        "#,
        now,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.business, row.message_id)).collect())
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
    pub(in crate::messaging) ways_sealed: Option<Vec<u8>>,
    /// Another way follows.
    pub(in crate::messaging) has_more: bool,
    pub(in crate::messaging) template: String,
    pub(in crate::messaging) language: String,
    pub(in crate::messaging) params_sealed: Vec<u8>,
    pub(in crate::messaging) document_digest: Option<String>,
    pub(in crate::messaging) document_filename: Option<String>,
    pub(in crate::messaging) not_before: Option<DateTime<Utc>>,
    pub(in crate::messaging) expires_at: DateTime<Utc>,
}

/// Reads messages of this business that go by WhatsApp, in the order of their ids.
pub(in crate::messaging) async fn load_envelopes(
    conn: &mut PgConnection,
    business: BusinessId,
    ids: &[Uuid],
) -> Result<Vec<Envelope>, Error> {
    let envelopes = sqlx::query_as!(
        Envelope,
        r#"
        select m.state as "state: State", m.class as "class: MessageClass", m.purpose,
            m.phone_number_id as "number!: NumberId", a.waba_id, coalesce(a.portfolio_id, a.waba_id) as "portfolio!",
            a.daily_recipients, a.access_token_sealed is not null as "own_app!", m.to_phone_sealed as "to_sealed!",
            m.ways_sealed, m.way + 1 < m.ways as "has_more!", m.template, m.language, m.params_sealed,
            m.document_digest, m.document_filename, m.not_before, m.expires_at
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
    pub(in crate::messaging) channel: Channel,
    /// The number it goes out from, and the account that is; none by mail.
    pub(in crate::messaging) number: Option<NumberId>,
    pub(in crate::messaging) waba_id: Option<String>,
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
    pub(in crate::messaging) delivery: Option<MessageId>,
    pub(in crate::messaging) way: i16,
    pub(in crate::messaging) ways: i16,
    pub(in crate::messaging) fall_back_secs: Option<i32>,
    pub(in crate::messaging) fall_back_at: Option<DateTime<Utc>>,
}

impl MessageRow {
    /// Whether another way follows.
    pub(in crate::messaging) const fn has_more(&self) -> bool {
        self.way + 1 < self.ways
    }
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
            m.policy as "policy: Policy", m.channel as "channel: Channel", m.phone_number_id as "number: NumberId",
            a.waba_id as "waba_id?", a.access_token_sealed is not null as "own_app!", m.to_mark, m.template, m.language,
            m.expires_at, m.held_scope, m.skipped_because, m.error_code, m.error_details, m.duplicate_delivered_at,
            m.campaign_id as "campaign: CampaignId", m.not_before, m.delivery_id as "delivery: MessageId", m.way, m.ways,
            m.fall_back_secs, m.fall_back_at
        from muneem.messaging_messages m
        left join muneem.messaging_accounts a on a.phone_number_id = m.phone_number_id
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
    let fall_back: Vec<_> = moved.iter().map(|row| row.fall_back_at).collect();
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
            fall_back_at = told.fall_back_at,
            updated_at = $10
        from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[],
            $8::timestamptz[], $9::timestamptz[])
            as told (
                message_id, state, held_scope, skipped_because, error_code, error_details, twice, not_before,
                fall_back_at)
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
        &fall_back as &[Option<DateTime<Utc>>],
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
) -> Result<Vec<(MessageId, MessageClass, String, bool)>, Error> {
    let rows = sqlx::query!(
        r#"
        select message_id as "message_id: MessageId", class as "class: MessageClass", purpose,
            way + 1 < ways as "has_more!"
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
    Ok(rows.into_iter().map(|row| (row.message_id, row.class, row.purpose, row.has_more)).collect())
}

macro_rules! messages {
    ($rest:literal, $($value:expr),* $(,)?) => {
        sqlx::query_as!(
            Message,
            r#"select message_id as "message_id: MessageId", state as "state: State", channel as "channel: Channel",
                coalesce(delivery_id, message_id) as "delivery_id!: MessageId", way + 1 as "way!",
                ways::integer as "ways!", fall_back_at, '…' || coalesce(to_phone_ending, '@') as "recipient!", purpose,
                class as "class: MessageClass", template, language, document_filename, held_scope, skipped_because,
                error_code, error_details, duplicate_delivered_at, not_before, expires_at, created_at, updated_at
            from muneem.messaging_messages "# + $rest,
            $($value),*
        )
    };
}

/// One message as people see it; of any business when `business` is absent.
pub(in crate::messaging) async fn find_message(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Option<Message>, Error> {
    let business = business.map(|business| business.0);
    let found = messages!("where message_id = $1 and ($2::uuid is null or business_id = $2)", id.0, business);
    Ok(found.fetch_optional(conn).await?)
}

/// The messages by the other ways of the same delivery, in their order.
pub(in crate::messaging) async fn list_delivery(
    conn: &mut PgConnection,
    (delivery, but): (MessageId, MessageId),
) -> Result<Vec<Message>, Error> {
    Ok(messages!("where delivery_id = $1 and message_id <> $2 order by way", delivery.0, but.0).fetch_all(conn).await?)
}

/// A page of messages, newest first, older than `before`; of all businesses when `business` is absent.
pub(in crate::messaging) async fn list_messages(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<MessageId>,
    limit: i64,
) -> Result<Vec<Message>, Error> {
    let (business, before) = (business.map(|business| business.0), before.map(|before| before.0));
    let listed = messages!(
        "where ($1::uuid is null or business_id = $1) and ($2::uuid is null or message_id < $2)
        order by message_id desc
        limit $3",
        business,
        before,
        limit,
    );
    Ok(listed.fetch_all(conn).await?)
}
