//! Pages for people outside, under `/r`: whoever was invited to one decision, and whoever would have no more mail.
//!
//! ```text
//! GET  /r/{secret}          a button, and nothing else: scanners of mails follow every link
//! POST /r/{secret}/code     sends a code to the address that the link was made for
//! POST /r/{secret}/open     right code: what she decides on, masked, with a proof for a quarter of an hour
//! POST /r/{secret}/decide   her yes or no to the plan that she saw
//! GET  /r/leave/{token}     a button: no more of what a mail was about
//! POST /r/leave/{token}     takes her at her word, also when her mail program asks in her name (RFC 8058)
//! ```
//!
//! No cookie: the address holds the secret and the form the proof, so no page elsewhere can act in her name. Drawn here,
//! without a script; nothing comes from elsewhere, and no other page learns the address.

mod decision;
mod leave;
#[cfg(test)]
mod tests;
mod words;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muneem_jobs::{
    outbound::{Chance, Clock},
    vault::Vault,
};
use sqlx::PgPool;

use crate::http::{client, rate::Guesses};

const STYLE: &str = concat!(
    include_str!("../../../templates/console/console.css"),
    include_str!("../../../templates/people/page/page.css")
);
/// Nothing from elsewhere, no script, no frame.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the pages need.
pub struct Portal {
    /// Connections of the app role.
    pub db: PgPool,
    /// The one source of "now".
    pub clock: Arc<dyn Clock>,
    /// The one source of chance.
    pub chance: Arc<dyn Chance>,
    /// Opens what is shown.
    pub vault: Arc<Vault>,
    /// What addresses may try of links that they were perhaps never given.
    pub guesses: Guesses,
    /// Proxies whose word about the client's address counts.
    pub trusted_proxies: Vec<IpAddr>,
}

/// All addresses of the pages.
pub fn routes(portal: Arc<Portal>) -> Router {
    Router::new()
        .route("/r/{secret}", get(decision::start))
        .route("/r/{secret}/code", post(decision::code))
        .route("/r/{secret}/open", post(decision::open))
        .route("/r/{secret}/decide", post(decision::decide))
        .route("/r/leave/{token}", get(leave::show).post(leave::leave))
        .layer(middleware::from_fn_with_state(Arc::clone(&portal), slowed))
        .layer(middleware::from_fn(closed))
        .route("/r/page.css", get(style))
        .with_state(portal)
}

/// An address pays for links that it guesses; a link that opened something a moment ago is not turned away for what
/// others behind the same address try.
async fn slowed(State(portal): State<Arc<Portal>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches("/r/");
    let leaves = path.strip_prefix("leave/");
    let secret = leaves.unwrap_or(path).split('/').next().unwrap_or_default().to_owned();
    let from = client::address_through(&portal.trusted_proxies, &parts);
    // A mailbox provider leaves for many people from a few addresses: who brings a token of ours pays nothing.
    if leaves.is_some() {
        let response = next.run(Request::from_parts(parts, body)).await;
        return match response.status() {
            StatusCode::NOT_FOUND => {
                portal.guesses.admit(from, &secret).map_or_else(decision::too_often, |()| response)
            }
            _ => response,
        };
    }
    if let Err(wait) = portal.guesses.admit(from, &secret) {
        return decision::too_often(wait);
    }
    let response = next.run(Request::from_parts(parts, body)).await;
    match response.status() {
        StatusCode::NOT_FOUND => portal.guesses.forget(&secret),
        status if !status.is_server_error() => portal.guesses.opened(&secret),
        _ => {}
    }
    response
}

/// What holds for every answer: kept by nobody, framed by nobody, found by no search, its address told to nobody.
async fn closed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex, nofollow"));
    response
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], STYLE)
}
