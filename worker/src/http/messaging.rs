//! `/v1/messaging`: messages and what came of them. Of the recipient two digits are shown, of the words nothing.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use muneem_jobs::messaging::{self, AttemptOutcome, MessageId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    cursor::{self, Listing, Page},
    problem::{Problem, ProblemId},
    query::Query,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// One thing said to one person by one way.
#[derive(Serialize, ToSchema)]
struct Message {
    /// Its id.
    id: uuid::Uuid,
    /// queued, posting, unknown, accepted, held, sent, delivered, read, failed, unknown_final or skipped.
    #[schema(value_type = String)]
    state: messaging::State,
    /// whatsapp or mail.
    channel: &'static str,
    /// What it belongs to with the messages by other ways to the same person: the id of the first of them.
    delivery_id: uuid::Uuid,
    /// Which of the ways it takes, from 1.
    way: i32,
    /// How many there are.
    ways: i32,
    /// When it is looked at whether the next way is to be taken.
    fall_back_at: Option<DateTime<Utc>>,
    /// The last two digits of the recipient's number; of a mail address nothing.
    #[schema(example = "…10")]
    recipient: String,
    /// Why it was said.
    #[schema(example = "invoice.issued")]
    purpose: String,
    /// otp, statutory, transactional or marketing.
    #[schema(value_type = String)]
    class: messaging::MessageClass,
    /// Which words.
    #[schema(example = "tax_invoice")]
    template: String,
    /// Language of the words.
    #[schema(example = "en")]
    language: String,
    /// Name of the file in its header.
    document_filename: Option<String>,
    /// While queued: what it waits for (app, credential, account, number, template, portfolio, pair, campaign,
    /// quiet_hours).
    held_scope: Option<String>,
    /// Why it was never to be sent.
    skipped_because: Option<String>,
    /// The carrier's code of the last refusal or failure.
    error_code: Option<i64>,
    /// Its words.
    error_details: Option<String>,
    /// When a second accepted attempt came to light: the recipient has it twice.
    duplicate_delivered_at: Option<DateTime<Utc>>,
    /// No attempt starts before.
    not_before: Option<DateTime<Utc>>,
    /// When no further attempt starts.
    expires_at: DateTime<Utc>,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When its state last changed.
    updated_at: DateTime<Utc>,
}

impl From<messaging::Message> for Message {
    fn from(message: messaging::Message) -> Self {
        Self {
            id: message.message_id.0,
            state: message.state,
            channel: message.channel.as_str(),
            delivery_id: message.delivery_id.0,
            way: message.way,
            ways: message.ways,
            fall_back_at: message.fall_back_at,
            recipient: message.recipient,
            purpose: message.purpose,
            class: message.class,
            template: message.template,
            language: message.language,
            document_filename: message.document_filename,
            held_scope: message.held_scope,
            skipped_because: message.skipped_because,
            error_code: message.error_code,
            error_details: message.error_details,
            duplicate_delivered_at: message.duplicate_delivered_at,
            not_before: message.not_before,
            expires_at: message.expires_at,
            created_at: message.created_at,
            updated_at: message.updated_at,
        }
    }
}

/// One POST to the carrier.
#[derive(Serialize, ToSchema)]
struct Attempt {
    /// From 1.
    number: i32,
    /// posting, accepted, refused, not_sent, unknown, presumed_lost or failed.
    #[schema(value_type = String)]
    outcome: AttemptOutcome,
    /// HTTP status of the answer.
    http_status: Option<i16>,
    /// The carrier's code.
    error_code: Option<i64>,
    /// What went wrong.
    error_details: Option<String>,
    /// The carrier's trace id; its support asks for it.
    trace: Option<String>,
    /// When its row was committed, just before the POST.
    started_at: DateTime<Utc>,
    /// When its outcome was known.
    ended_at: Option<DateTime<Utc>>,
    /// When a webhook told what the answer had not.
    adopted_at: Option<DateTime<Utc>>,
}

impl From<messaging::Attempt> for Attempt {
    fn from(attempt: messaging::Attempt) -> Self {
        Self {
            number: attempt.number,
            outcome: attempt.outcome,
            http_status: attempt.http_status,
            error_code: attempt.error_code,
            error_details: attempt.error_details,
            trace: attempt.trace,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            adopted_at: attempt.adopted_at,
        }
    }
}

/// What the carrier reported.
#[derive(Serialize, ToSchema)]
struct Receipt {
    /// Which attempt it is about, if its reference says so.
    attempt: Option<i32>,
    /// As the carrier wrote it: sent, delivered, read, failed.
    status: String,
    /// The carrier's code of a failure.
    error_code: Option<i64>,
    /// The carrier's time.
    at: DateTime<Utc>,
    /// Ours.
    received_at: DateTime<Utc>,
}

impl From<messaging::Event> for Receipt {
    fn from(event: messaging::Event) -> Self {
        let messaging::Event { attempt, status, error_code, at, received_at } = event;
        Self { attempt, status, error_code, at, received_at }
    }
}

/// A message with everything that is known of its way.
#[derive(Serialize, ToSchema)]
struct Timeline {
    /// The message.
    #[serde(flatten)]
    message: Message,
    /// The messages by the other ways to the same person, in their order.
    others: Vec<Message>,
    /// Its attempts, first to last.
    attempts: Vec<Attempt>,
    /// What the carrier reported, by arrival.
    receipts: Vec<Receipt>,
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List messages, newest first
#[utoipa::path(get, path = "/v1/messaging/messages", tag = "messaging", params(Filter),
    responses((status = 200, body = Page<Message>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Message>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<MessageId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let messages = messaging::list_messages(&mut db, business, before, limit + 1).await?;
    Ok(Json(cursors.page(messages.into_iter().map(Message::from).collect(), limit, |message| message.id.to_string())))
}

/// Show one message with its attempts and what the carrier reported
#[utoipa::path(get, path = "/v1/messaging/messages/{id}", tag = "messaging", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Timeline)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Timeline>, Problem> {
    let id: MessageId = id.parse().map_err(|_| ProblemId::NoSuchMessage)?;
    let mut db = caller.enter(&api).await?;
    let found = messaging::find_timeline(&mut db, caller.business, id).await?;
    let messaging::Timeline { message, others, attempts, events } = found.ok_or(ProblemId::NoSuchMessage)?;
    Ok(Json(Timeline {
        message: message.into(),
        others: others.into_iter().map(Message::from).collect(),
        attempts: attempts.into_iter().map(Attempt::from).collect(),
        receipts: events.into_iter().map(Receipt::from).collect(),
    }))
}
