//! `/v1/schedule`: what runs by the clock.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    people::{self},
    schedule::{self, Listed},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
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

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(pause)).routes(routes!(resume)).routes(routes!(trigger))
}

/// A schedule.
#[derive(Serialize, ToSchema)]
struct Entry {
    /// Its name.
    name: String,
    /// The kind of job it makes.
    kind: String,
    /// When, as a crontab line in Asia/Kolkata.
    expression: String,
    /// What becomes of missed slots: run_once, run_all or skip.
    missed: String,
    /// Whether it rests.
    paused: bool,
    /// The last slot that became a job.
    last_slot: Option<DateTime<Utc>>,
    /// The next slots.
    upcoming: Vec<DateTime<Utc>>,
    /// Why its last slot made no job.
    fault: Option<String>,
}

impl From<Listed> for Entry {
    fn from(listed: Listed) -> Self {
        let Listed { entry, upcoming } = listed;
        Self {
            name: entry.name,
            kind: entry.kind,
            expression: entry.expression,
            missed: entry.missed.as_str().to_owned(),
            paused: entry.paused,
            last_slot: entry.last_slot,
            upcoming,
            fault: entry.fault,
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The handle that a token of one business is confined to.
async fn confined_to(db: &mut PgConnection, caller: &Caller) -> Result<Option<String>, Problem> {
    let Some(own) = caller.business else { return Ok(None) };
    let own = people::find_business_by_id(db, own).await?.ok_or(ProblemId::NoSuchBusiness)?;
    Ok(Some(own.handle))
}

/// Refuses an entry that is not of the caller's business.
async fn check_visible(db: &mut PgConnection, caller: &Caller, api: &Api, name: &str) -> Result<(), Problem> {
    let Some(own) = confined_to(db, caller).await? else { return Ok(()) };
    match schedule::show(db, name, api.clock.now()).await?.entry.scope {
        schedule::Scope::Named(handle) if handle == own => Ok(()),
        _ => Err(ProblemId::NoSuchSchedule.into()),
    }
}

/// List schedules by name, with their next slots
#[utoipa::path(get, path = "/v1/schedule/entries", tag = "schedule", params(Asked),
    responses((status = 200, body = Page<Entry>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<Entry>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let after: String = cursors.position(asked.cursor.as_deref())?.unwrap_or_default();
    let mut db = caller.enter(&api).await?;
    let own = confined_to(&mut db, &caller).await?;
    let entries = schedule::list(&mut db, own.as_deref(), &after, limit + 1, api.clock.now()).await?;
    Ok(Json(cursors.page(entries.into_iter().map(Entry::from).collect(), limit, |entry| entry.name.clone())))
}

/// The schedule that was touched.
#[derive(Serialize, ToSchema)]
struct Touched {
    /// Its name.
    name: String,
    /// Jobs made by this request.
    jobs: Vec<i64>,
}

enum Act {
    Pause,
    Resume,
    Trigger,
}

async fn act(api: &Api, name: String, mut post: Post<Nothing>, act: Act) -> Result<Response, Problem> {
    let mut effect = match post.begin(api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(api);
    check_visible(effect.db(), &post.caller, api, &name).await?;
    let jobs = match act {
        Act::Pause => schedule::pause(effect.db(), &name, &by).await.map(|()| Vec::new())?,
        Act::Resume => schedule::resume(effect.db(), &name, &by).await.map(|()| Vec::new())?,
        // The Idempotency-Key is kept here, so each request that comes so far is a new one.
        Act::Trigger => schedule::trigger(effect.db(), &name, &api.chance.uuid_v7(by.now).to_string(), &by).await?,
    };
    let jobs = jobs.into_iter().map(|job| job.0).collect();
    effect.answer(StatusCode::OK, &Touched { name, jobs }).await
}

/// Let a schedule rest
#[utoipa::path(post, path = "/v1/schedule/entries/{name}/pause", tag = "schedule",
    params(("name" = String, Path)), responses((status = 200, body = Touched)))]
async fn pause(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    post: Post<Nothing>,
) -> Result<Response, Problem> {
    act(&api, name, post, Act::Pause).await
}

/// Let a schedule run again, from now
#[utoipa::path(post, path = "/v1/schedule/entries/{name}/resume", tag = "schedule",
    params(("name" = String, Path)), responses((status = 200, body = Touched)))]
async fn resume(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    post: Post<Nothing>,
) -> Result<Response, Problem> {
    act(&api, name, post, Act::Resume).await
}

/// Make a schedule's job now
#[utoipa::path(post, path = "/v1/schedule/entries/{name}/trigger", tag = "schedule",
    params(("name" = String, Path)), responses((status = 200, body = Touched)))]
async fn trigger(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    post: Post<Nothing>,
) -> Result<Response, Problem> {
    act(&api, name, post, Act::Trigger).await
}
