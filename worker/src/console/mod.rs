//! Pages for staff, under `/console`: signing in, what one signs in with, one's sessions, and the way home.
//!
//! ```text
//! sign-in ─▶ password ─────────▶ second-factor ─▶ console          invitation ─▶ security ─▶ console
//!        └─▶ code ─▶ (choose) ──┘      └─▶ lost                     console ─▶ confirm ─▶ what asks for a fresh proof
//! ```
//!
//! Every page is drawn here; the one script speaks to the browser's authenticator, and everything but passkeys works
//! without it. Nothing comes from elsewhere. What changes something is a POST that a page of ours made: [`guard`] says
//! how that is known.

mod approvals;
mod attempt;
mod confirm;
pub mod cookies;
mod departures;
mod enter;
mod entered;
mod frame;
pub mod guard;
mod home;
mod invitation;
mod lost;
mod names;
pub mod oidc;
#[cfg(test)]
mod oidc_tests;
mod outside;
mod pages;
mod passkeys;
mod password;
mod places;
mod security;
mod sessions;
mod sign_in;
mod staff;
mod support;
#[cfg(test)]
mod tests;
mod tokens;
mod totp;
mod visitor;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muneem_jobs::{
    messaging::Desk,
    outbound::{Chance, Clock},
    people::signin::{passkey::Passkeys, password::Passwords},
    vault::Vault,
};
use sqlx::PgPool;
use tower_http::csrf::CsrfLayer;

pub use departures::Departures;

use crate::refusals::Refusals;

const STYLE: &str = include_str!("../../../templates/console/console.css");
const SCRIPT: &str = include_str!("../../../templates/console/passkey.js");
/// Nothing from elsewhere, no script but the file of ours, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Largest form: a passkey's answer is some kilobytes.
const FORM_LIMIT: usize = 64 * 1024;

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
    /// Seals secrets, and opens how somebody is called and reached.
    pub vault: Arc<Vault>,
    /// Hashes and checks.
    pub passwords: Passwords,
    /// `None`: browsers know no passkeys at this origin.
    pub passkeys: Option<Passkeys>,
    /// Whether there is a mail server.
    pub mails: bool,
    /// Whether a code can be sent at all, by mail or by WhatsApp.
    pub sends_codes: bool,
    /// Handle of the business whose number writes on behalf of the installation.
    pub installation_business: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Header in which they name the client's country.
    pub country_header: Option<HeaderName>,
    /// A request for a code is answered after this time whether or not there is such an account.
    pub answer_after: Duration,
    /// How often one network may set out to an identity provider.
    pub departures: Departures,
    /// Counts and records who was refused.
    pub refusals: Arc<Refusals>,
}

impl Console {
    /// Longer than making and planning a code takes, short enough not to be felt.
    pub const ANSWER_AFTER: Duration = Duration::from_millis(400);

    fn desk(&self) -> Desk<'_> {
        Desk { vault: &self.vault, clock: &*self.clock, chance: &*self.chance, mails: self.mails }
    }
}

/// All addresses of the console.
pub fn routes(console: Arc<Console>) -> Router {
    let pages = Router::new()
        .route("/console", get(home::show))
        .route("/console/second-factor-for-all", post(home::demand))
        .route("/console/resets/{id}/approve", post(lost::approve))
        .route("/console/resets/{id}/cancel", post(lost::cancel))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::identify))
        .route("/console/sign-in/code", post(entered::enter_code))
        .route("/console/sign-out", post(sessions::sign_out))
        .route("/console/second-factor", get(confirm::show_second).post(confirm::prove_second))
        .route("/console/second-factor/passkey", post(confirm::begin_passkey_second))
        .route("/console/second-factor/lost", get(lost::show).post(lost::ask))
        .route("/console/confirm", get(confirm::show_again).post(confirm::prove_again))
        .route("/console/confirm/passkey", post(confirm::begin_passkey_again))
        .route("/console/confirm/code", post(confirm::send_code_again))
        .route("/console/invitation/{token}", get(invitation::show).post(invitation::accept))
        .route("/console/security", get(security::show))
        .route("/console/security/password", get(password::show).post(password::set))
        .route("/console/security/totp", get(totp::show).post(totp::confirm))
        .route("/console/security/totp/begin", post(totp::begin))
        .route("/console/security/recovery", post(security::renew_codes))
        .route("/console/security/passkeys", post(passkeys::finish))
        .route("/console/security/passkeys/begin", post(passkeys::begin))
        .route("/console/security/passkeys/{id}/remove", post(passkeys::remove))
        .route("/console/staff", get(staff::show).post(staff::add))
        .route("/console/staff/{id}/grant", post(staff::grant))
        .route("/console/staff/{id}/withdraw", post(staff::withdraw))
        .route("/console/staff/{id}/remove", post(staff::remove))
        .route("/console/tokens", get(tokens::show).post(tokens::make))
        .route("/console/tokens/new", get(tokens::ask))
        .route("/console/tokens/made", get(tokens::made))
        .route("/console/tokens/{id}/revoke", get(tokens::ask_revoke).post(tokens::revoke))
        .route("/console/approvals", get(approvals::list))
        .route("/console/approvals/{id}", get(approvals::show))
        .route("/console/approvals/{id}/approve", post(approvals::approve))
        .route("/console/approvals/{id}/deny", post(approvals::deny))
        .route("/console/approvals/{id}/take-back", post(approvals::take_back))
        .route("/console/approvals/{id}/withdraw", post(approvals::withdraw))
        .route("/console/approvals/{id}/invite", get(outside::ask).post(outside::make))
        .route("/console/approvals/{id}/invitations/{link}/revoke", post(outside::revoke))
        .route("/console/support", get(support::list).post(support::let_in))
        .route("/console/support/new", get(support::ask))
        .route("/console/support/{id}", get(support::show))
        .route("/console/support/{id}/end", post(support::end))
        .route("/console/sessions", get(sessions::list))
        .route("/console/sessions/{id}/end", post(sessions::end))
        .route("/console/sessions/end-others", post(sessions::end_others));
    guarded(pages, &console)
        .route("/console/console.css", get(style))
        .route("/console/passkey.js", get(script))
        .with_state(console)
}

/// The addresses of signing in with an identity provider, to stand beside [`routes`].
pub fn oidc_routes(console: Arc<Console>, room: Arc<oidc::Room>) -> Router {
    guarded(oidc::pages(room), &console).with_state(console)
}

/// `pages` behind the guard that every page of the console stands behind.
pub(crate) fn guarded(pages: Router<Arc<Console>>, console: &Arc<Console>) -> Router<Arc<Console>> {
    pages
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(console), guard::from_our_pages))
        .layer(CsrfLayer::new())
        .layer(middleware::from_fn_with_state(Arc::clone(console), guard::note_refusals))
        .layer(middleware::from_fn(frame::scoped))
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

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], SCRIPT)
}
