mod attempts;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Account, Attempt, AttemptOutcome, Error, Event, Message, MessageId, NewMessage, Policy, State, WebhookId,
    sealed::Personal,
};
use crate::{
    outbound::{
        Phone,
        carrier::{MediaId, NumberId},
    },
    people::BusinessId,
};

pub(super) use attempts::{
    Ending, LastAttempt, OwnAttempt, end_attempt, find_attempts, find_last_attempt, find_outcome, insert_attempt,
};

/// Adds a number, or changes what is known of it. A number never changes hands.
pub(super) async fn upsert_account(
    conn: &mut PgConnection,
    account: &Account,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let changed = sqlx::query!(
        r#"
        insert into muneem.messaging_accounts as known (phone_number_id, business_id, waba_id, display_phone, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (phone_number_id) do update
        set waba_id = excluded.waba_id, display_phone = excluded.display_phone
        where known.business_id = excluded.business_id
        "#,
        account.number.as_str(),
        account.business.0,
        account.waba_id,
        account.display_phone.as_e164(),
        now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(Error::NumberTaken) }
}

/// The numbers of a business, or all when `business` is absent; the first of each is the one it sends from.
pub(super) async fn list_accounts(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<Account>, Error> {
    let accounts = sqlx::query_as!(
        Account,
        r#"
        select business_id as "business: BusinessId", phone_number_id as "number: NumberId", waba_id,
            display_phone as "display_phone: Phone"
        from muneem.messaging_accounts
        where $1::uuid is null or business_id = $1
        order by business_id, created_at, phone_number_id
        "#,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(accounts)
}

/// The number that a business sends from: its first.
pub(super) async fn find_number(conn: &mut PgConnection, business: BusinessId) -> Result<Option<NumberId>, Error> {
    let number = sqlx::query_scalar!(
        r#"
        select phone_number_id as "number: NumberId"
        from muneem.messaging_accounts
        where business_id = $1
        order by created_at, phone_number_id
        limit 1
        "#,
        business.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(number)
}

/// Which of these numbers belong to whom.
pub(super) async fn owners_of(conn: &mut PgConnection, numbers: &[String]) -> Result<Vec<(String, BusinessId)>, Error> {
    let rows = sqlx::query!(
        r#"
        select phone_number_id, business_id as "business_id: BusinessId"
        from muneem.messaging_accounts
        where phone_number_id = any($1)
        "#,
        numbers,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.phone_number_id, row.business_id)).collect())
}

/// A row about to be written.
pub(super) struct NewRow<'a> {
    pub(super) id: MessageId,
    pub(super) number: &'a NumberId,
    pub(super) personal: Personal,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) now: DateTime<Utc>,
}

/// Inserts a message as queued.
pub(super) async fn insert_message(conn: &mut PgConnection, new: &NewMessage, row: &NewRow<'_>) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_messages (
            message_id, business_id, phone_number_id, to_phone_sealed, to_phone_ending, template, language,
            params_sealed, document_digest, document_filename, purpose, policy, state, expires_at, created_at,
            updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'queued', $13, $14, $14)
        "#,
        row.id.0,
        new.business.0,
        row.number.as_str(),
        row.personal.to,
        row.personal.ending,
        new.content.template(),
        new.language.as_str(),
        row.personal.params,
        new.document.as_ref().map(|document| &document.digest),
        new.document.as_ref().map(|document| &document.filename),
        new.purpose,
        new.policy as Policy,
        row.expires_at,
        row.now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What sending and reconciling need of a message.
pub(super) struct Envelope {
    pub(super) state: State,
    pub(super) number: NumberId,
    pub(super) to_sealed: Vec<u8>,
    pub(super) language: String,
    pub(super) params_sealed: Vec<u8>,
    pub(super) document_digest: Option<String>,
    pub(super) document_filename: Option<String>,
    pub(super) policy: Policy,
    pub(super) expires_at: DateTime<Utc>,
}

/// Reads a message of this business.
pub(super) async fn load_envelope(
    conn: &mut PgConnection,
    business: BusinessId,
    id: MessageId,
) -> Result<Envelope, Error> {
    sqlx::query_as!(
        Envelope,
        r#"
        select state as "state: State", phone_number_id as "number: NumberId", to_phone_sealed as to_sealed,
            language, params_sealed, document_digest, document_filename, policy as "policy: Policy", expires_at
        from muneem.messaging_messages
        where message_id = $1 and business_id = $2
        "#,
        id.0,
        business.0,
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NoMessage(id))
}

/// Locks a message and returns its state. Whoever changes an attempt holds this lock: message first, then attempts.
pub(super) async fn lock_message(conn: &mut PgConnection, business: BusinessId, id: MessageId) -> Result<State, Error> {
    sqlx::query_scalar!(
        r#"
        select state as "state: State"
        from muneem.messaging_messages
        where message_id = $1 and business_id = $2
        for update
        "#,
        id.0,
        business.0,
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NoMessage(id))
}

/// Why a message stands where it stands.
#[derive(Default)]
pub(super) struct Reason<'a> {
    pub(super) held_scope: Option<&'a str>,
    pub(super) error_code: Option<i64>,
    pub(super) error_details: Option<&'a str>,
}

/// Moves a locked message.
pub(super) async fn set_state(
    conn: &mut PgConnection,
    id: MessageId,
    state: State,
    reason: &Reason<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_messages
        set state = $2, held_scope = $3, error_code = $4, error_details = $5, updated_at = $6
        where message_id = $1
        "#,
        id.0,
        state as State,
        reason.held_scope,
        reason.error_code,
        reason.error_details,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the recipient has it twice, once two attempts are known to have been accepted.
pub(super) async fn note_duplicate(conn: &mut PgConnection, id: MessageId, now: DateTime<Utc>) -> Result<bool, Error> {
    let noted = sqlx::query!(
        r#"
        update muneem.messaging_messages
        set duplicate_delivered_at = $2, updated_at = $2
        where message_id = $1 and duplicate_delivered_at is null and (
            select count(*) > 1
            from muneem.messaging_attempts a
            where a.message_id = $1 and a.outcome = 'accepted')
        "#,
        id.0,
        now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(noted == 1)
}

/// One update out of a webhook.
pub(super) struct NewEvent<'a> {
    pub(super) id: Uuid,
    pub(super) business: BusinessId,
    pub(super) number: &'a str,
    pub(super) kind: &'static str,
    /// The mark of the carrier's id.
    pub(super) wamid: &'a [u8],
    /// All marks that may be stored for it while index keys change.
    pub(super) wamid_everywhere: &'a [Vec<u8>],
    pub(super) reference: Option<&'a str>,
    pub(super) status: &'a str,
    pub(super) error_code: Option<i64>,
    pub(super) error_details: Option<&'a str>,
    pub(super) at: DateTime<Utc>,
    pub(super) received_at: DateTime<Utc>,
    pub(super) webhook: WebhookId,
    pub(super) position: i32,
}

/// Keeps an event; a second one of the same wamid, status and code is the same event. Says whether it is new.
pub(super) async fn insert_event(conn: &mut PgConnection, event: &NewEvent<'_>) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        r#"
        insert into muneem.messaging_events (
            event_id, business_id, phone_number_id, kind, wamid_mark, ref, status, error_code, error_details, at,
            received_at, webhook_id, position)
        select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
        -- The unique constraint sees one version of the index key; the others are looked for.
        where not exists (
            select from muneem.messaging_events e
            where e.kind = $4
                and e.wamid_mark = any ($14)
                and e.status = $7
                and e.error_code is not distinct from $8
        )
        on conflict on constraint messaging_events_once do nothing
        "#,
        event.id,
        event.business.0,
        event.number,
        event.kind,
        event.wamid,
        event.reference,
        event.status,
        event.error_code,
        event.error_details,
        event.at,
        event.received_at,
        event.webhook.0,
        event.position,
        event.wamid_everywhere,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// Statuses that arrived for an attempt before its wamid was known, in order of arrival.
pub(super) async fn list_statuses_of(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<Vec<(String, Option<i64>, Option<String>)>, Error> {
    let rows = sqlx::query!(
        r#"
        select status, error_code, error_details
        from muneem.messaging_events
        where kind = 'status' and business_id = $1 and wamid_mark = any ($2)
        order by received_at, position
        "#,
        business.0,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.status, row.error_code, row.error_details)).collect())
}

/// When a webhook last told of a number.
pub(super) async fn find_heard_at(conn: &mut PgConnection, number: &NumberId) -> Result<Option<DateTime<Utc>>, Error> {
    let heard = sqlx::query_scalar!(
        "select max(received_at) from muneem.messaging_events where phone_number_id = $1",
        number.as_str(),
    )
    .fetch_one(conn)
    .await?;
    Ok(heard)
}

/// One webhook body to keep.
pub(super) struct NewWebhook<'a> {
    pub(super) id: WebhookId,
    pub(super) sha256: &'a [u8],
    /// Sealed.
    pub(super) body: &'a [u8],
    pub(super) state: &'static str,
    pub(super) received_at: DateTime<Utc>,
}

/// Keeps a webhook body; the same bytes again are the same webhook. Says whether it is new.
pub(super) async fn insert_webhook(conn: &mut PgConnection, webhook: &NewWebhook<'_>) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        r#"
        insert into muneem.messaging_webhooks (webhook_id, sha256, body_sealed, state, received_at)
        values ($1, $2, $3, $4, $5)
        on conflict (sha256) do nothing
        "#,
        webhook.id.0,
        webhook.sha256,
        webhook.body,
        webhook.state,
        webhook.received_at,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// Reads a webhook body, sealed, and when it came.
pub(super) async fn load_webhook(conn: &mut PgConnection, id: WebhookId) -> Result<(Vec<u8>, DateTime<Utc>), Error> {
    let row =
        sqlx::query!("select body_sealed, received_at from muneem.messaging_webhooks where webhook_id = $1", id.0)
            .fetch_optional(conn)
            .await?
            .ok_or(Error::NoWebhook(id))?;
    Ok((row.body_sealed, row.received_at))
}

/// The carrier's id of a file for a number, while it lives.
pub(super) async fn find_media(
    conn: &mut PgConnection,
    number: &NumberId,
    digest: &str,
    now: DateTime<Utc>,
) -> Result<Option<MediaId>, Error> {
    let media = sqlx::query_scalar!(
        r#"
        select media_id as "media: MediaId"
        from muneem.messaging_media
        where digest = $1 and phone_number_id = $2 and expires_at > $3
        "#,
        digest,
        number.as_str(),
        now,
    )
    .fetch_optional(conn)
    .await?;
    Ok(media)
}

/// Remembers the carrier's id of a file; the later upload wins.
pub(super) async fn upsert_media(
    conn: &mut PgConnection,
    number: &NumberId,
    digest: &str,
    media: &MediaId,
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_media (digest, phone_number_id, media_id, expires_at)
        values ($1, $2, $3, $4)
        on conflict (digest, phone_number_id) do update
        set media_id = excluded.media_id, expires_at = excluded.expires_at
        "#,
        digest,
        number.as_str(),
        media.0,
        expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the carrier's id of a file, so that the next attempt uploads it again.
pub(super) async fn delete_media(conn: &mut PgConnection, number: &NumberId, digest: &str) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_media where digest = $1 and phone_number_id = $2",
        digest,
        number.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One message as people see it; of any business when `business` is absent.
pub(super) async fn find_message(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Option<Message>, Error> {
    let message = sqlx::query_as!(
        Message,
        r#"
        select message_id as "message_id: MessageId", state as "state: State",
            '…' || to_phone_ending as "recipient!", purpose, template, language,
            document_filename, held_scope, error_code, error_details, duplicate_delivered_at, expires_at, created_at,
            updated_at
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
pub(super) async fn list_messages(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<MessageId>,
    limit: i64,
) -> Result<Vec<Message>, Error> {
    let messages = sqlx::query_as!(
        Message,
        r#"
        select message_id as "message_id: MessageId", state as "state: State",
            '…' || to_phone_ending as "recipient!", purpose, template, language,
            document_filename, held_scope, error_code, error_details, duplicate_delivered_at, expires_at, created_at,
            updated_at
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

/// The attempts of a message, first to last.
pub(super) async fn list_attempts(conn: &mut PgConnection, id: MessageId) -> Result<Vec<Attempt>, Error> {
    let attempts = sqlx::query_as!(
        Attempt,
        r#"
        select number, outcome as "outcome: AttemptOutcome", http_status, error_code, error_details, trace, started_at,
            ended_at, adopted_at
        from muneem.messaging_attempts
        where message_id = $1
        order by number
        "#,
        id.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(attempts)
}

/// The statuses of a message, by arrival.
pub(super) async fn list_events(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Vec<Event>, Error> {
    let events = sqlx::query_as!(
        Event,
        r#"
        select a.number as "attempt?", e.status, e.error_code, e.at, e.received_at
        from muneem.messaging_attempts a
        join muneem.messaging_events e on e.ref = a.ref or e.wamid_mark = a.wamid_mark
        where a.message_id = $1 and ($2::uuid is null or e.business_id = $2) and e.kind = 'status'
        order by e.received_at, e.at, e.position
        "#,
        id.0,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(events)
}
