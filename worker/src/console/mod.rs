//! Pages for staff, under `/console`: who is signed in, what a browser may ask for, and the list of one's sessions.
//!
//! Every page is drawn here, without a script; nothing comes from elsewhere. What changes something is a POST that a
//! page of ours made: [`guard`] says how that is known.

pub mod guard;
pub mod oidc;
#[cfg(test)]
mod oidc_tests;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muneem_jobs::outbound::{Chance, Clock};
use sqlx::PgPool;
use tower_http::csrf::CsrfLayer;

const STYLE: &str = include_str!("../../../templates/console/console.css");
/// Nothing from elsewhere, no script, no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// What pages need.
pub struct Console {
    /// Connections of the app role.
    pub db: PgPool,
    /// The one source of "now".
    pub clock: Arc<dyn Clock>,
    /// The one source of chance.
    pub chance: Arc<dyn Chance>,
    /// What stands in the browser's address bar before the path: `https://console.example.in`.
    pub origin: String,
}

/// All addresses of the console.
pub fn routes(console: Arc<Console>) -> Router {
    let pages = Router::new()
        .route("/console/sessions", get(sessions::list))
        .route("/console/sessions/{id}/end", post(sessions::end))
        .route("/console/sessions/end-others", post(sessions::end_others))
        .route("/console/sign-out", post(sessions::sign_out));
    guarded(pages, &console).route("/console/console.css", get(style)).with_state(console)
}

/// The addresses of signing in with an identity provider, to stand beside [`routes`].
pub fn oidc_routes(console: Arc<Console>, room: Arc<oidc::Room>) -> Router {
    guarded(oidc::pages(room), &console).with_state(console)
}

/// `pages` behind the guard that every page of the console stands behind.
fn guarded(pages: Router<Arc<Console>>, console: &Arc<Console>) -> Router<Arc<Console>> {
    pages
        .layer(middleware::from_fn_with_state(Arc::clone(console), guard::from_our_pages))
        .layer(CsrfLayer::new())
        .layer(middleware::from_fn(closed))
}

/// What holds for every answer: kept by nobody, framed by nobody.
async fn closed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], STYLE)
}
