//! Around every request: an id in and out, one log line, measures, limits, and the bodies of problems.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{
    Api, method,
    problem::{Problem, ProblemId},
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Turns away what is too much, and gives up what takes too long.
pub(super) async fn limits(
    State((api, places)): State<(Arc<Api>, Arc<Semaphore>)>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = places.try_acquire() else { return Problem::from(ProblemId::Overloaded).into_response() };
    match tokio::time::timeout(api.settings.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::from(ProblemId::TooSlow).into_response(),
    }
}

/// Gives the request its id, writes problem bodies, logs and measures. Paths are logged as patterns and queries not at
/// all: they may be personal.
pub(super) async fn envelope(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let id = request_id(&api, &request);
    let method = method::name_of(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let is_docs = request.uri().path().starts_with("/docs");
    let span = tracing::info_span!("http", request.id = %id, http.method = method, http.route = %route);
    let began = Instant::now();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answered.unwrap_or_else(|_| Problem::from(ProblemId::Internal).into_response());
    let _inside = span.enter();
    if let Some(problem) = response.extensions().get::<Arc<Problem>>().cloned() {
        response = with_headers(problem.answer(&id), response.headers());
    } else if is_bare_refusal(&response) {
        response = with_headers(Problem::of_status(response.status()).answer(&id), response.headers());
    }
    let (status, taken) = (response.status().as_u16(), began.elapsed());
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("muneem_http_requests_total", &labels).increment(1);
    metrics::histogram!("muneem_http_request_seconds", &labels[..2]).record(taken);
    tracing::debug!(http.status = status, millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX), "answered");
    secure(response.headers_mut(), is_docs);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

/// The id that a proxy of ours gave, else a new one.
fn request_id(api: &Api, request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let trusted = peer.is_some_and(|peer| api.settings.trusted_proxies.contains(&peer));
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let well_formed = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match given.filter(well_formed) {
        Some(id) if trusted => id.to_owned(),
        _ => api.chance.uuid_v7(api.clock.now()).to_string(),
    }
}

/// A refusal of the framework, without a body of ours.
fn is_bare_refusal(response: &Response) -> bool {
    let declared = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    refused && declared.is_none_or(|kind| kind.starts_with("text/plain"))
}

/// `allow` of a 405 says what the address takes.
fn with_headers(mut response: Response, from: &HeaderMap) -> Response {
    if let Some(allow) = from.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

fn secure(headers: &mut HeaderMap, is_docs: bool) {
    let policy = if is_docs {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
