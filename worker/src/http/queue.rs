//! `/v1/queue`: jobs in, jobs seen, jobs taken out. Payloads are never shown: they may be personal.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    id::JobId,
    people,
    queue::{self, JobFilter, JobView, KindView, LaneDepth, Named},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

const RETRY_BATCH: u16 = 1000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, enqueue))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(retry_many))
        .routes(routes!(kinds))
        .routes(routes!(stats))
}

/// A job to be enqueued.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Enqueue {
    /// One of `GET /v1/queue/kinds`.
    #[schema(example = "invoice.issue")]
    kind: String,
    /// What the kind's schema says.
    payload: Value,
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
    /// The same business, kind and key again is the same job.
    key: Option<String>,
    /// Not before this instant (RFC 3339).
    run_at: Option<DateTime<Utc>>,
    /// Another lane than the kind's own.
    lane: Option<String>,
    /// A minute's head start for each point, -1000 to 1000.
    priority: Option<i16>,
}

/// The job that was made, or that was there.
#[derive(Serialize, ToSchema)]
struct Enqueued {
    /// Its number.
    id: i64,
}

/// A job without its payload.
#[derive(Serialize, ToSchema)]
struct Job {
    /// Its number.
    id: i64,
    /// Id of the business it is for.
    business_id: uuid::Uuid,
    /// Its kind.
    kind: String,
    /// Its lane.
    lane: String,
    /// scheduled, ready, running, retrying, done, dead or cancelled.
    state: String,
    /// The key it was enqueued with.
    key: Option<String>,
    /// Attempts begun.
    attempts: i32,
    /// When it was enqueued.
    enqueued_at: DateTime<Utc>,
    /// When it is due, while it waits.
    run_at: Option<DateTime<Utc>>,
    /// When its last attempt began.
    claimed_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// Why its last attempt failed: stable, for machines.
    cause: Option<String>,
    /// Why its last attempt failed, in words.
    error: Option<String>,
    /// What its handler last said of its advance.
    progress: Option<Value>,
    /// What it left behind.
    result: Option<Value>,
    /// How its payload lies: `sealed`, or `clear` where it is references, or came by SQL and no worker has claimed it
    /// yet. Absent once the job has ended well: then it is gone.
    payload: Option<&'static str>,
}

impl From<JobView> for Job {
    fn from(job: JobView) -> Self {
        Self {
            id: job.id.0,
            business_id: job.business.0,
            kind: job.kind,
            lane: job.lane.to_string(),
            state: job.state.to_string(),
            key: job.key,
            attempts: job.attempt,
            enqueued_at: job.enqueued_at,
            run_at: job.run_at,
            claimed_at: job.claimed_at,
            finished_at: job.finished_at,
            cause: job.cause,
            error: job.error,
            progress: job.progress,
            result: job.result,
            payload: job.payload.map(queue::PayloadState::as_str),
        }
    }
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// In this state only.
    state: Option<String>,
    /// Of this kind only.
    kind: Option<String>,
    /// In this lane only.
    lane: Option<String>,
    /// That failed with this cause.
    cause: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Enqueue a job
#[utoipa::path(post, path = "/v1/queue/jobs", tag = "queue", request_body = Enqueue,
    responses((status = 201, body = Enqueued)))]
async fn enqueue(State(api): State<Arc<Api>>, mut post: Post<Enqueue>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = business_named(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let job = Named {
        kind: &post.body.kind,
        payload: &post.body.payload,
        business: business.as_deref(),
        key: post.body.key.as_deref(),
        run_at: post.body.run_at,
        lane: post.body.lane.as_deref(),
        priority: post.body.priority,
    };
    let id = queue::enqueue_for(effect.db(), &api.vault, &job).await?;
    effect.answer(StatusCode::CREATED, &Enqueued { id: id.0 }).await
}

/// The handle to enqueue for. A token of one business names no other: for it there is none.
async fn business_named(
    db: &mut PgConnection,
    caller: &Caller,
    asked: Option<&str>,
) -> Result<Option<String>, Problem> {
    let Some(own) = caller.business else { return Ok(asked.map(str::to_owned)) };
    let own = people::find_business_by_id(db, own).await?.ok_or(ProblemId::NoSuchBusiness)?;
    match asked {
        Some(asked) if asked != own.handle => Err(ProblemId::NoSuchBusiness.into()),
        _ => Ok(Some(own.handle)),
    }
}

/// List jobs, newest first
#[utoipa::path(get, path = "/v1/queue/jobs", tag = "queue", params(Filter),
    responses((status = 200, body = Page<Job>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Job>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let bad = |field: &str, text: String| Problem::field(ProblemId::BadQuery, field, text, "take one of the list");
    let filter = JobFilter {
        business: caller.business,
        state: asked.state.map(|state| state.parse()).transpose().map_err(|text| bad("state", text))?,
        kind: asked.kind,
        lane: asked.lane.map(|lane| lane.parse()).transpose().map_err(|text| bad("lane", text))?,
        cause: asked.cause,
        before: cursors.position::<i64>(asked.cursor.as_deref())?.map(JobId),
    };
    let mut db = caller.enter(&api).await?;
    let jobs = queue::list_jobs(&mut db, &filter, limit + 1).await?;
    Ok(Json(cursors.page(jobs.into_iter().map(Job::from).collect(), limit, |job| job.id.to_string())))
}

/// Show one job
#[utoipa::path(get, path = "/v1/queue/jobs/{id}", tag = "queue", params(("id" = i64, Path)),
    responses((status = 200, body = Job)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let mut db = caller.enter(&api).await?;
    Ok(Json(visible(&mut db, &caller, &id).await?.into()))
}

/// The job, if it exists for this caller.
async fn visible(db: &mut PgConnection, caller: &Caller, id: &str) -> Result<JobView, Problem> {
    let id = id.parse().map(JobId).map_err(|_| ProblemId::NoSuchJob)?;
    let job = queue::find_job(db, id).await?.filter(|job| caller.sees(job.business));
    job.ok_or_else(|| ProblemId::NoSuchJob.into())
}

/// Take a job out, or ask its worker to stop
#[utoipa::path(post, path = "/v1/queue/jobs/{id}/cancel", tag = "queue", params(("id" = i64, Path)),
    responses((status = 202, body = Enqueued)))]
async fn cancel(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let job = visible(effect.db(), &post.caller, &id).await?;
    if !queue::cancel(effect.db(), job.id, &post.caller.by(&api)).await? {
        return Err(ProblemId::JobEnded.into());
    }
    effect.answer(StatusCode::ACCEPTED, &Enqueued { id: job.id.0 }).await
}

/// Put a dead job back in line
#[utoipa::path(post, path = "/v1/queue/jobs/{id}/retry", tag = "queue", params(("id" = i64, Path)),
    responses((status = 202, body = Enqueued)))]
async fn retry(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let job = visible(effect.db(), &post.caller, &id).await?;
    if !queue::retry(effect.db(), job.id, &post.caller.by(&api)).await? {
        return Err(ProblemId::JobNotDead.into());
    }
    effect.answer(StatusCode::ACCEPTED, &Enqueued { id: job.id.0 }).await
}

/// Which dead jobs to put back in line.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RetryMany {
    /// Of this kind.
    kind: Option<String>,
    /// Given up for this cause.
    cause: Option<String>,
}

/// How many went back in line.
#[derive(Serialize, ToSchema)]
struct Retried {
    /// Jobs put back by this request.
    retried: u64,
    /// Whether there may be more: ask again, with another Idempotency-Key.
    more: bool,
}

/// Put dead jobs back in line, up to 1000 at a time, by kind or cause
#[utoipa::path(post, path = "/v1/queue/jobs/retry", tag = "queue", request_body = RetryMany,
    responses((status = 202, body = Retried)))]
async fn retry_many(State(api): State<Arc<Api>>, mut post: Post<RetryMany>) -> Result<Response, Problem> {
    if post.body.kind.is_none() && post.body.cause.is_none() {
        let mend = "say which by `kind`, `cause` or both";
        return Err(Problem::field(ProblemId::BadBody, "kind", "neither a kind nor a cause is given", mend));
    }
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let filter = JobFilter {
        business: post.caller.business,
        kind: post.body.kind.clone(),
        cause: post.body.cause.clone(),
        ..JobFilter::default()
    };
    let retried = queue::retry_many(effect.db(), &filter, RETRY_BATCH, &post.caller.by(&api)).await?;
    effect.answer(StatusCode::ACCEPTED, &Retried { retried, more: retried == u64::from(RETRY_BATCH) }).await
}

/// A kind of job.
#[derive(Serialize, ToSchema)]
struct Kind {
    /// `<word>.<verb_object>`
    kind: String,
    /// The lane of an enqueue without one.
    lane: String,
    /// JSON Schema 2020-12 of the payload.
    schema: Value,
    /// Attempts before the dead letters.
    max_attempts: i16,
    /// Whether frontends may enqueue it; the others are muneem's own.
    open: bool,
    /// Whether its payloads may be personal, and so lie sealed.
    sealed: bool,
}

impl From<KindView> for Kind {
    fn from(kind: KindView) -> Self {
        let KindView { kind, lane, schema, max_attempts, open, sealed } = kind;
        Self { kind, lane: lane.to_string(), schema, max_attempts, open, sealed }
    }
}

/// List the kinds of jobs, with the schemas of their payloads
#[utoipa::path(get, path = "/v1/queue/kinds", tag = "queue", responses((status = 200, body = Page<Kind>)))]
async fn kinds(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Page<Kind>>, Problem> {
    let mut db = caller.enter(&api).await?;
    let items = queue::list_kinds(&mut db).await?.into_iter().map(Kind::from).collect();
    Ok(Json(Page::whole(items)))
}

/// How full a lane is.
#[derive(Serialize, ToSchema)]
struct Lane {
    /// Its name.
    lane: String,
    /// In line.
    ready: i64,
    /// With a worker.
    running: i64,
    /// Waiting for an instant.
    scheduled: i64,
    /// Failed, and waiting to be tried again.
    retrying: i64,
    /// Given up.
    dead: i64,
    /// How long the oldest has been in line, in seconds.
    oldest_secs: f64,
}

impl From<LaneDepth> for Lane {
    fn from(depth: LaneDepth) -> Self {
        let LaneDepth { lane, ready, running, scheduled, retrying, dead, oldest_secs } = depth;
        Self { lane: lane.to_string(), ready, running, scheduled, retrying, dead, oldest_secs }
    }
}

/// Show how full each lane is, most urgent first
#[utoipa::path(get, path = "/v1/queue/stats", tag = "queue", responses((status = 200, body = Page<Lane>)))]
async fn stats(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Page<Lane>>, Problem> {
    let mut db = caller.enter(&api).await?;
    let items = queue::stats(&mut db, caller.business).await?.into_iter().map(Lane::from).collect();
    Ok(Json(Page::whole(items)))
}
