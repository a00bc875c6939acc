//! `/v1/messaging/senders`: how the numbers of a business stand with the carrier, what is held, what wants to be seen.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging::{self, SenderHealth},
    people::BusinessId,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Api,
    auth::Caller,
    body::Nothing,
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    query::Query,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(release)).routes(routes!(end))
}

/// A number that a business sends from.
#[derive(Serialize, ToSchema)]
struct Sender {
    /// The carrier's id of it.
    #[schema(example = "106540352242922")]
    phone_number_id: String,
    /// The account it belongs to.
    waba_id: String,
    /// As customers see it.
    #[schema(example = "+919876500142")]
    display_phone: String,
    /// The name that customers see.
    verified_name: Option<String>,
    /// Whether the business brought an app of its own.
    own_app: bool,
    /// `v25.0`; absent: the installation's.
    api_version: Option<String>,
    /// GREEN, YELLOW or RED, as the carrier says it.
    quality: Option<String>,
    /// CONNECTED, FLAGGED, BANNED …, as the carrier says it.
    status: Option<String>,
    /// Messages that the carrier takes in a second.
    messages_per_second: i32,
    /// People that may be written to first in any 24 hours; absent: no limit, or none known.
    daily_recipients: Option<i32>,
    /// People who count against that now.
    reached: i64,
    /// Messages that wait.
    queued: i64,
    /// When the carrier last told of the number.
    told_at: Option<DateTime<Utc>>,
    /// When a webhook last told of one of its messages.
    heard_at: Option<DateTime<Utc>>,
}

impl From<SenderHealth> for Sender {
    fn from(sender: SenderHealth) -> Self {
        Self {
            phone_number_id: sender.phone_number_id,
            waba_id: sender.waba_id,
            display_phone: sender.display_phone,
            verified_name: sender.verified_name,
            own_app: sender.own_app,
            api_version: sender.api_version,
            quality: sender.quality,
            status: sender.status,
            messages_per_second: sender.messages_per_second,
            daily_recipients: sender.daily_recipients,
            reached: sender.reached,
            queued: sender.queued,
            told_at: sender.told_at,
            heard_at: sender.heard_at,
        }
    }
}

/// Where nothing is sent now.
#[derive(Serialize, ToSchema)]
struct Hold {
    /// Its id.
    id: Uuid,
    /// app, credential, account, number or template.
    scope: String,
    /// Which one.
    key: String,
    /// all, begun (what the business begins) or marketing.
    covers: String,
    /// The carrier's code.
    code: Option<i64>,
    /// What the code means.
    meaning: Option<&'static str>,
    /// The carrier's word, where it told by webhook.
    told: Option<String>,
    /// How often in a row.
    strikes: i32,
    /// Since when.
    since: DateTime<Utc>,
    /// When a message finds out whether it is over.
    until: DateTime<Utc>,
}

impl From<messaging::Hold> for Hold {
    fn from(hold: messaging::Hold) -> Self {
        Self {
            id: hold.hold_id,
            scope: hold.scope,
            key: hold.key,
            covers: hold.covers,
            code: hold.code,
            meaning: hold.meaning,
            told: hold.told,
            strikes: hold.strikes,
            since: hold.since,
            until: hold.until,
        }
    }
}

/// What a person should see.
#[derive(Serialize, ToSchema)]
struct Alert {
    /// Its id.
    id: Uuid,
    /// The carrier's webhook field, or what was asked for: billing, number_quality …
    field: String,
    /// What it is about: an account, a number, a template and its language.
    about: String,
    /// The carrier's word.
    event: String,
    /// warning or critical.
    severity: String,
    /// Its explanation.
    details: String,
    /// When the carrier told.
    at: DateTime<Utc>,
}

impl From<messaging::Alert> for Alert {
    fn from(alert: messaging::Alert) -> Self {
        let messaging::Alert { alert_id, field, about, event, severity, details, at, .. } = alert;
        Self { id: alert_id, field, about, event, severity, details, at }
    }
}

/// How the senders of a business stand.
#[derive(Serialize, ToSchema)]
struct Senders {
    /// Its numbers; it sends from the first.
    senders: Vec<Sender>,
    /// What is held.
    holds: Vec<Hold>,
    /// What wants to be seen, newest first.
    alerts: Vec<Alert>,
}

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Of the business with this handle only.
    business: Option<String>,
}

/// Show numbers, holds and alerts
#[utoipa::path(get, path = "/v1/messaging/senders", tag = "messaging", params(Asked),
    responses((status = 200, body = Senders)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Senders>, Problem> {
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let (senders, holds, alerts) = messaging::list_health(&mut db, business, api.clock.now()).await?;
    Ok(Json(Senders {
        senders: senders.into_iter().map(Sender::from).collect(),
        holds: holds.into_iter().map(Hold::from).collect(),
        alerts: alerts.into_iter().map(Alert::from).collect(),
    }))
}

/// What was touched.
#[derive(Serialize, ToSchema)]
struct Touched {
    /// Its id.
    id: Uuid,
}

/// Whose a hold or an alert is; nobody's where the caller sees none of this id.
async fn owner_of(db: &mut PgConnection, api: &Api, caller: &Caller, id: Uuid) -> Result<BusinessId, Problem> {
    let (_, holds, alerts) = messaging::list_health(db, caller.business, api.clock.now()).await?;
    let held = holds.iter().find(|hold| hold.hold_id == id).map(|hold| hold.business_id);
    let alert = alerts.iter().find(|alert| alert.alert_id == id).map(|alert| alert.business_id);
    held.or(alert).ok_or_else(|| ProblemId::NoSuchHold.into())
}

/// Release a hold, so that what waits goes out
#[utoipa::path(post, path = "/v1/messaging/holds/{id}/release", tag = "messaging", params(("id" = Uuid, Path)),
    responses((status = 200, body = Touched)))]
async fn release(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let id: Uuid = id.parse().map_err(|_| ProblemId::NoSuchHold)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = owner_of(effect.db(), &api, &post.caller, id).await?;
    if !messaging::release_hold(effect.db(), business, id, &post.caller.by(&api)).await? {
        return Err(ProblemId::NoSuchHold.into());
    }
    effect.answer(StatusCode::OK, &Touched { id }).await
}

/// Put an alert away that somebody has seen to
#[utoipa::path(post, path = "/v1/messaging/alerts/{id}/end", tag = "messaging", params(("id" = Uuid, Path)),
    responses((status = 200, body = Touched)))]
async fn end(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let id: Uuid = id.parse().map_err(|_| ProblemId::NoSuchHold)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = owner_of(effect.db(), &api, &post.caller, id).await?;
    if !messaging::end_alert(effect.db(), business, id, &post.caller.by(&api)).await? {
        return Err(ProblemId::NoSuchHold.into());
    }
    effect.answer(StatusCode::OK, &Touched { id }).await
}
