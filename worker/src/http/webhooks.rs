//! `/v1/webhooks`: whom a business has told of what happens, how they answer, and telling them again.
//!
//! Of an endpoint's address the origin is shown, since the rest often is a secret; its own secret is shown once, when it
//! is made.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    people,
    webhooks::{self, DeliveryFilter, DeliveryState, Emission, EndpointId, EndpointState, EventId, NewEndpoint, Which},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    body::Nothing,
    cursor::{self, Listing, Page},
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    query::Query,
};

/// For how long a secret that was replaced signs on, unless said otherwise.
const OVERLAP_HOURS: u16 = 24;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, change))
        .routes(routes!(rotate))
        .routes(routes!(remove))
        .routes(routes!(test))
        .routes(routes!(replay))
        .routes(routes!(deliveries))
        .routes(routes!(event))
        .routes(routes!(replay_event))
}

/// A receiver, and how it answers.
#[derive(Serialize, ToSchema)]
struct Endpoint {
    /// Its id.
    id: uuid::Uuid,
    /// Id of the business.
    business_id: uuid::Uuid,
    /// Scheme, host and port of its address; the rest is not shown.
    #[schema(example = "https://hooks.example.in")]
    origin: String,
    /// What it is for.
    description: Option<String>,
    /// What it is told of.
    #[schema(example = json!(["messaging.*"]))]
    event_types: Vec<String>,
    /// enabled, paused or disabled.
    #[schema(value_type = String)]
    state: EndpointState,
    /// Why it is paused or disabled: failing, asked, gone (it answered 410), address (it may not be called any
    /// more), unreadable (what is sealed of it does not open).
    reason: Option<String>,
    /// Attempts that failed since the last good one.
    failures: i32,
    /// When the first of them was.
    failing_since: Option<DateTime<Utc>>,
    /// When it last answered with 2xx.
    last_success_at: Option<DateTime<Utc>>,
    /// When it last did not.
    last_failure_at: Option<DateTime<Utc>>,
    /// Why: status, timed_out, connect, tls, name, address, broken.
    last_cause: Option<String>,
    /// It is left in peace until then.
    wait_until: Option<DateTime<Utc>>,
    /// Deliveries that wait for it, counted up to 10,000.
    waiting: i64,
    /// Until when a secret that was replaced signs beside the newest.
    rotating_until: Option<DateTime<Utc>>,
    /// When it was added.
    created_at: DateTime<Utc>,
    /// When it last changed.
    changed_at: DateTime<Utc>,
}

impl From<webhooks::Endpoint> for Endpoint {
    fn from(endpoint: webhooks::Endpoint) -> Self {
        Self {
            id: endpoint.endpoint_id.0,
            business_id: endpoint.business_id.0,
            origin: endpoint.origin,
            description: endpoint.description,
            event_types: endpoint.event_types,
            state: endpoint.state,
            reason: endpoint.reason,
            failures: endpoint.failures,
            failing_since: endpoint.failing_since,
            last_success_at: endpoint.last_success_at,
            last_failure_at: endpoint.last_failure_at,
            last_cause: endpoint.last_cause,
            wait_until: endpoint.wait_until,
            waiting: endpoint.waiting,
            rotating_until: endpoint.rotating_until,
            created_at: endpoint.created_at,
            changed_at: endpoint.changed_at,
        }
    }
}

/// An event on its way to an endpoint.
#[derive(Serialize, ToSchema)]
struct Delivery {
    /// Id of the event, which is its webhook-id.
    #[schema(value_type = String, example = "evt_019ab0c26f3e7c1d9d532f6b8c1e4a70")]
    event_id: EventId,
    /// Id of the endpoint.
    endpoint_id: uuid::Uuid,
    /// What kind of thing happened.
    #[schema(example = "messaging.message.delivered")]
    event_type: String,
    /// Id of the thing that it happened to.
    object: String,
    /// When it happened.
    occurred_at: DateTime<Utc>,
    /// pending, sending, delivered, failed, expired or dropped.
    #[schema(value_type = String)]
    state: DeliveryState,
    /// Attempts begun.
    attempts: i32,
    /// When the next one is, while it waits.
    next_at: Option<DateTime<Utc>>,
    /// When it came to its end.
    ended_at: Option<DateTime<Utc>>,
    /// HTTP status of the last answer.
    last_status: Option<i16>,
    /// Why the last attempt failed.
    last_cause: Option<String>,
}

impl From<webhooks::Delivery> for Delivery {
    fn from(delivery: webhooks::Delivery) -> Self {
        Self {
            event_id: delivery.event_id,
            endpoint_id: delivery.endpoint_id.0,
            event_type: delivery.event_type,
            object: delivery.object,
            occurred_at: delivery.occurred_at,
            state: delivery.state,
            attempts: delivery.attempts,
            next_at: delivery.next_at,
            ended_at: delivery.ended_at,
            last_status: delivery.last_status,
            last_cause: delivery.last_cause,
        }
    }
}

/// One try at a delivery.
#[derive(Serialize, ToSchema)]
struct Attempt {
    /// Id of the endpoint.
    endpoint_id: uuid::Uuid,
    /// From 1.
    number: i32,
    /// When it began.
    started_at: DateTime<Utc>,
    /// How long the answer took, in milliseconds.
    latency_ms: Option<i32>,
    /// HTTP status of the answer.
    status: Option<i16>,
    /// Why it failed: status, timed_out, connect, tls, name, address, broken, interrupted, unreadable.
    cause: Option<String>,
}

/// An event, without what it says, and its way to each endpoint.
#[derive(Serialize, ToSchema)]
struct Event {
    /// Its id, which is its webhook-id.
    #[schema(value_type = String, example = "evt_019ab0c26f3e7c1d9d532f6b8c1e4a70")]
    id: EventId,
    /// What kind of thing happened.
    event_type: String,
    /// Id of the thing that it happened to.
    object: String,
    /// When it happened.
    occurred_at: DateTime<Utc>,
    /// When it was written down.
    created_at: DateTime<Utc>,
    /// To each endpoint that wanted it.
    deliveries: Vec<Delivery>,
    /// Every try, in order.
    attempts: Vec<Attempt>,
}

impl From<webhooks::Told> for Event {
    fn from(told: webhooks::Told) -> Self {
        let attempts = told.attempts.into_iter().map(|attempt| Attempt {
            endpoint_id: attempt.endpoint_id.0,
            number: attempt.number,
            started_at: attempt.started_at,
            latency_ms: attempt.latency_ms,
            status: attempt.status,
            cause: attempt.cause,
        });
        Self {
            id: told.event.event_id,
            event_type: told.event.event_type,
            object: told.event.object,
            occurred_at: told.event.occurred_at,
            created_at: told.event.created_at,
            deliveries: told.deliveries.into_iter().map(Delivery::from).collect(),
            attempts: attempts.collect(),
        }
    }
}

/// Which endpoints.
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

/// List endpoints, newest first
#[utoipa::path(get, path = "/v1/webhooks/endpoints", tag = "webhooks", params(Filter),
    responses((status = 200, body = Page<Endpoint>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Endpoint>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<EndpointId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let page = (limit + 1, api.clock.now());
    let endpoints = webhooks::list_endpoints(&mut db, &api.vault, business, before, page).await?;
    let endpoints = endpoints.into_iter().map(Endpoint::from).collect();
    Ok(Json(cursors.page(endpoints, limit, |endpoint: &Endpoint| endpoint.id.to_string())))
}

/// A receiver to be told of things.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
    /// Where it is: https, on port 443 or 8443, at a public address.
    #[schema(example = "https://hooks.example.in/muneem")]
    url: String,
    /// What it is told of: exact types, `messaging.*`, or `*`.
    #[schema(example = json!(["messaging.*"]))]
    event_types: Vec<String>,
    /// What it is for, in one line.
    description: Option<String>,
}

/// The endpoint with its secret, this once.
#[derive(Serialize, ToSchema)]
struct Added {
    /// The endpoint.
    #[serde(flatten)]
    endpoint: Endpoint,
    /// What signatures are checked with. It is not shown again.
    #[schema(example = "whsec_…")]
    secret: String,
}

/// Add an endpoint; its secret is shown once
#[utoipa::path(post, path = "/v1/webhooks/endpoints", tag = "webhooks", request_body = Add,
    responses((status = 201, body = Added)))]
async fn add(State(api): State<Arc<Api>>, mut post: Post<Add>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let asked = post.body.business.as_deref();
    let business = match post.caller.business_asked(effect.db(), asked).await? {
        Some(business) => business,
        None => match people::list_handles(effect.db()).await?.as_slice() {
            [only] => people::load_business(effect.db(), only).await?.business_id,
            [] => return Err(ProblemId::NoSuchBusiness.into()),
            _ => return Err(ProblemId::WhichBusiness.into()),
        },
    };
    let Add { url, event_types, description, .. } = post.body;
    let new = NewEndpoint { business, url, event_types, description };
    let by = post.caller.by(&api);
    let (endpoint, secret) = webhooks::add_endpoint(effect.db(), &api.vault, &new, &api.webhooks, &by).await?;
    let added = Added { endpoint: endpoint.into(), secret: secret.expose_secret().to_owned() };
    effect.answer(StatusCode::CREATED, &added).await
}

fn which(caller: &Caller, id: &str) -> Result<Which, Problem> {
    let endpoint = id.parse().map_err(|_| ProblemId::NoSuchEndpoint)?;
    Ok(Which { business: caller.business, endpoint })
}

/// Show one endpoint
#[utoipa::path(get, path = "/v1/webhooks/endpoints/{id}", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Endpoint)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Endpoint>, Problem> {
    let which = which(&caller, &id)?;
    let mut db = caller.enter(&api).await?;
    let found = webhooks::find_endpoint(&mut db, &api.vault, which, api.clock.now()).await?;
    Ok(Json(found.ok_or(ProblemId::NoSuchEndpoint)?.into()))
}

/// What is to be changed; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Where it is.
    url: Option<String>,
    /// What it is told of.
    event_types: Option<Vec<String>>,
    /// What it is for; an empty text takes it away.
    description: Option<String>,
    /// Whether it is told anything.
    enabled: Option<bool>,
}

/// Change, enable or disable an endpoint; what waits for it is tried at once
#[utoipa::path(patch, path = "/v1/webhooks/endpoints/{id}", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    request_body = Change, responses((status = 200, body = Endpoint)))]
async fn change(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Change>,
) -> Result<Response, Problem> {
    let which = which(&post.caller, &id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let Change { url, event_types, description, enabled } = post.body;
    let change = webhooks::Change { url, event_types, description: description.map(Some), enabled };
    let by = post.caller.by(&api);
    let changed = webhooks::change_endpoint(effect.db(), &api.vault, which, &change, (&api.webhooks, &by)).await?;
    effect.answer(StatusCode::OK, &Endpoint::from(changed)).await
}

/// How a secret is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// For how many hours the old secret signs beside the new one, 0 to 168; 24 unless said otherwise.
    overlap_hours: Option<u16>,
}

/// The new secret, this once.
#[derive(Serialize, ToSchema)]
struct Rotated {
    /// What signatures are checked with. It is not shown again.
    #[schema(example = "whsec_…")]
    secret: String,
    /// Until when the one before signs too.
    previous_until: DateTime<Utc>,
}

/// Replace an endpoint's secret; the new one is shown once
#[utoipa::path(post, path = "/v1/webhooks/endpoints/{id}/rotate", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    request_body = Rotate, responses((status = 200, body = Rotated)))]
async fn rotate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Rotate>,
) -> Result<Response, Problem> {
    let which = which(&post.caller, &id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let overlap = TimeDelta::hours(post.body.overlap_hours.unwrap_or(OVERLAP_HOURS).into());
    let by = post.caller.by(&api);
    let (secret, previous_until) = webhooks::rotate_secret(effect.db(), &api.vault, which, overlap, &by).await?;
    let rotated = Rotated { secret: secret.expose_secret().to_owned(), previous_until };
    effect.answer(StatusCode::OK, &rotated).await
}

/// What went with an endpoint.
#[derive(Serialize, ToSchema)]
struct Removed {
    /// Deliveries that waited for it.
    dropped: u64,
}

/// Remove an endpoint for good, with what waits for it
#[utoipa::path(post, path = "/v1/webhooks/endpoints/{id}/remove", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Removed)))]
async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let which = which(&post.caller, &id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let dropped = webhooks::remove_endpoint(effect.db(), which, &post.caller.by(&api)).await?;
    effect.answer(StatusCode::OK, &Removed { dropped }).await
}

/// The event that a test tells of.
#[derive(Serialize, ToSchema)]
struct Tested {
    /// Its id; GET /v1/webhooks/events/{id} shows what came of it.
    #[schema(value_type = String, example = "evt_019ab0c26f3e7c1d9d532f6b8c1e4a70")]
    event_id: EventId,
}

/// Send an endpoint a `webhooks.ping`, at once
#[utoipa::path(post, path = "/v1/webhooks/endpoints/{id}/test", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    responses((status = 202, body = Tested)))]
async fn test(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let which = which(&post.caller, &id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let emission = Emission { vault: &api.vault, now: api.clock.now(), chance: &*api.chance };
    let event_id = webhooks::test_endpoint(effect.db(), emission, which).await?;
    effect.answer(StatusCode::ACCEPTED, &Tested { event_id }).await
}

/// What an endpoint is to be told again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Replay {
    /// What was written down since then (RFC 3339).
    #[schema(example = "2026-11-24T00:00:00Z")]
    since: DateTime<Utc>,
    /// Only what was not delivered.
    failed_only: Option<bool>,
}

/// The replay that was asked for.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// Its id. The same asked again while it is under way is the same replay.
    replay_id: uuid::Uuid,
}

/// Tell an endpoint again of everything since an instant
#[utoipa::path(post, path = "/v1/webhooks/endpoints/{id}/replay", tag = "webhooks", params(("id" = uuid::Uuid, Path)),
    request_body = Replay, responses((status = 202, body = Asked)))]
async fn replay(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Replay>,
) -> Result<Response, Problem> {
    let which = which(&post.caller, &id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let Replay { since, failed_only } = post.body;
    let wanted = webhooks::Replay { since, failed_only: failed_only.unwrap_or(false) };
    let id = webhooks::ask_replay(effect.db(), which, &wanted, &post.caller.by(&api)).await?;
    effect.answer(StatusCode::ACCEPTED, &Asked { replay_id: id.0 }).await
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// Of the business with this handle only.
    business: Option<String>,
    /// To the endpoint with this id only.
    endpoint: Option<String>,
    /// pending, sending, delivered, failed, expired or dropped only.
    state: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List deliveries, newest first
#[utoipa::path(get, path = "/v1/webhooks/deliveries", tag = "webhooks", params(DeliveryQuery),
    responses((status = 200, body = Page<Delivery>)))]
async fn deliveries(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<DeliveryQuery>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let state = asked.state.map(|state| state.parse::<DeliveryState>()).transpose();
    let endpoint = asked.endpoint.map(|id| which(&caller, &id)).transpose()?;
    let mut db = caller.enter(&api).await?;
    let filter = DeliveryFilter {
        business: caller.business_asked(&mut db, asked.business.as_deref()).await?,
        endpoint: endpoint.map(|which| which.endpoint),
        state: state.map_err(|told| Problem::new(ProblemId::BadQuery, told))?,
        before: cursors.position::<i64>(asked.cursor.as_deref())?,
    };
    let mut found = webhooks::list_deliveries(&mut db, &filter, limit + 1).await?;
    let numbers: Vec<i64> = found.iter().map(|delivery| delivery.delivery_id).collect();
    let items = found.drain(..).map(Delivery::from).zip(numbers).collect();
    let Page { items, next } = cursors.page(items, limit, |(_, number): &(Delivery, i64)| number.to_string());
    Ok(Json(Page { items: items.into_iter().map(|(delivery, _)| delivery).collect(), next }))
}

fn event_id(id: &str) -> Result<EventId, Problem> {
    Ok(id.parse().map_err(|_| ProblemId::NoSuchWebhook)?)
}

/// Show an event with its deliveries and every attempt
#[utoipa::path(get, path = "/v1/webhooks/events/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = Event)))]
async fn event(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Event>, Problem> {
    let id = event_id(&id)?;
    let mut db = caller.enter(&api).await?;
    let found = webhooks::find_told(&mut db, caller.business, id).await?;
    Ok(Json(found.ok_or(ProblemId::NoSuchWebhook)?.into()))
}

/// Whom to tell of an event again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayOne {
    /// Id of the endpoint; without it all that it went to.
    endpoint_id: Option<uuid::Uuid>,
}

/// Whom an event goes to again.
#[derive(Serialize, ToSchema)]
struct Replayed {
    /// Ids of endpoints. To others it is still on its way, or they are told nothing.
    endpoint_ids: Vec<uuid::Uuid>,
}

/// Tell of one event again, under the same webhook-id
#[utoipa::path(post, path = "/v1/webhooks/events/{id}/replay", tag = "webhooks", params(("id" = String, Path)),
    request_body = ReplayOne, responses((status = 202, body = Replayed)))]
async fn replay_event(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<ReplayOne>,
) -> Result<Response, Problem> {
    let id = event_id(&id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let (endpoint, by) = (post.body.endpoint_id.map(EndpointId), post.caller.by(&api));
    let restarted = webhooks::replay_event(effect.db(), (post.caller.business, id), endpoint, &by).await?;
    let replayed = Replayed { endpoint_ids: restarted.into_iter().map(|endpoint| endpoint.0).collect() };
    effect.answer(StatusCode::ACCEPTED, &replayed).await
}
