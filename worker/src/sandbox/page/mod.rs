//! The phone: what a customer sees, and writes, in a browser. Three frames, so that it is alive without a script: the
//! chats and the open chat draw themselves anew every few seconds, the box to write in does not.

mod acts;
mod view;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use handlebars::Handlebars;
use serde::{Deserialize, Serialize};

use super::Inner;

const PAGES: [(&str, &str); 5] = [
    ("phone", include_str!("../../../../templates/sandbox/phone.html.hbs")),
    ("chats", include_str!("../../../../templates/sandbox/chats.html.hbs")),
    ("talk", include_str!("../../../../templates/sandbox/talk.html.hbs")),
    ("reply", include_str!("../../../../templates/sandbox/reply.html.hbs")),
    ("list", include_str!("../../../../templates/sandbox/list.html.hbs")),
];
const STYLE: &str = include_str!("../../../../templates/sandbox/phone.css");
/// Nothing from elsewhere, no script, framed by nobody else.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; media-src 'self'; frame-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'self'";

/// The phone's paths.
pub(super) fn routes() -> Router<Arc<Inner>> {
    Router::new()
        .route("/sandbox", get(phone))
        .route("/sandbox/chats", get(chats))
        .route("/sandbox/talk", get(talk))
        .route("/sandbox/reply", get(reply).post(acts::reply))
        .route("/sandbox/list", get(list))
        .route("/sandbox/tap", post(acts::tap))
        .route("/sandbox/set", post(acts::set))
        .route("/sandbox/read", post(acts::mark_read))
        .route("/sandbox/phone.css", get(style))
        .route("/sandbox/media/{id}", get(media))
}

/// Which chat: a number's id, and a phone's digits.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Which {
    number: Option<String>,
    phone: Option<String>,
    wamid: Option<String>,
}

fn draw(name: &str, page: &impl Serialize) -> Response {
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    let Some((_, template)) = PAGES.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match engine.render_template(template, page) {
        Ok(html) => ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")], Html(html))
            .into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the phone cannot be drawn");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `GET /sandbox?phone=919812345678`
async fn phone(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    draw("phone", &view::phone(&inner, &which))
}

/// `GET /sandbox/chats`
async fn chats(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    draw("chats", &view::chats(&inner, &which))
}

/// `GET /sandbox/talk`
async fn talk(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    draw("talk", &view::talk(&inner, &which))
}

/// `GET /sandbox/reply`
async fn reply(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    draw("reply", &view::reply(&inner, &which))
}

/// `GET /sandbox/list?wamid=…`: the choices of a list.
async fn list(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    match view::list(&inner, which.wamid.as_deref().unwrap_or_default()) {
        Some(page) => draw("list", &page),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `GET /sandbox/phone.css`
async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// `GET /sandbox/media/{id}`: the file, opened by a tap.
async fn media(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    let media = inner.world().media.get(&id).cloned();
    match media {
        Some(media) => (
            [
                (header::CONTENT_TYPE, media.mime_type.as_str()),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_DISPOSITION, "inline"),
            ],
            media.content,
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
