//! Who is signed in, and whether a request comes from a page of ours.
//!
//! The session's token lives in a cookie that only this host may set (`__Host-`), that no script reads and that other
//! sites' forms do not carry (`SameSite=Lax`). What a person may do is read with every request, so that a role that
//! was taken away is gone at once. A request that changes something must say that it comes from our own origin.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use muneem_jobs::people::{
    Staff, StaffId, find_active_staff,
    signin::{self, Level, Session},
};
use secrecy::{ExposeSecret, SecretString};

use super::Console;

/// Holds the session's token.
pub const SESSION_COOKIE: &str = "__Host-muneem";
/// Holds the browser's lasting mark.
pub const DEVICE_COOKIE: &str = "__Host-muneem-device";

/// Somebody who is signed in, both factors where two are asked for. As an argument of a handler it refuses everybody
/// else.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// Who it is and what she may do at this moment.
    pub staff: Staff,
}

/// Somebody who is signed in and proved a factor within the last five minutes: for decrypting, exporting, approving,
/// sending, and for changing roles and keys.
#[derive(Clone, Debug)]
pub struct StepUp(pub SignedIn);

/// Why a request goes no further.
#[derive(Debug)]
pub enum Turned {
    /// No session, one that ended, or one whose second factor is still to come.
    NotSignedIn,
    /// A factor must be proved anew first.
    StepUpNeeded,
    /// It does not come from a page of ours.
    NotOurs(&'static str),
    /// There is nothing of hers at this address.
    NotFound,
    /// Something failed inside.
    Broken,
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        match self {
            Self::NotSignedIn => (StatusCode::UNAUTHORIZED, "Sign in first.\n").into_response(),
            Self::StepUpNeeded => {
                (StatusCode::FORBIDDEN, "This needs your second factor once more: prove it and try again.\n")
                    .into_response()
            }
            Self::NotOurs(why) => (StatusCode::FORBIDDEN, format!("Not done: {why}.\n")).into_response(),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is nothing of yours here.\n").into_response(),
            Self::Broken => {
                (StatusCode::SERVICE_UNAVAILABLE, "This did not work. Try again in a moment.\n").into_response()
            }
        }
    }
}

impl From<signin::Error> for Turned {
    fn from(error: signin::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a page of the console failed");
        Self::Broken
    }
}

impl From<sqlx::Error> for Turned {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a page of the console failed");
        Self::Broken
    }
}

impl FromRequestParts<Arc<Console>> for SignedIn {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let token = cookie(&parts.headers, SESSION_COOKIE).ok_or(Turned::NotSignedIn)?;
        let mut db = console.db.acquire().await?;
        let session = signin::find_session(&mut db, token, console.clock.now()).await?;
        let session = session.filter(|session| session.level == Level::Full).ok_or(Turned::NotSignedIn)?;
        let staff = find_active_staff(&mut db, StaffId(session.staff_id)).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the person of a session could not be read");
            Turned::Broken
        })?;
        Ok(Self { session, staff: staff.ok_or(Turned::NotSignedIn)? })
    }
}

impl FromRequestParts<Arc<Console>> for StepUp {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let signed_in = SignedIn::from_request_parts(parts, console).await?;
        if signed_in.session.is_stepped_up(console.clock.now()) {
            Ok(Self(signed_in))
        } else {
            Err(Turned::StepUpNeeded)
        }
    }
}

/// Turns away what changes something and does not come from a page of ours, on top of tower-http's own layer, which
/// lets programs without either header pass: nothing but a browser holds a session's cookie, and those of the last
/// ten years send `Origin` with every POST.
pub(super) async fn from_our_pages(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Result<Response, Turned> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return Ok(next.run(request).await);
    }
    let headers = request.headers();
    let origins: Vec<_> = headers.get_all(header::ORIGIN).iter().collect();
    match origins.as_slice() {
        [origin] if origin.as_bytes() == console.origin.as_bytes() => {}
        [] if headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") => {}
        _ => return Err(Turned::NotOurs("the request does not come from this console")),
    }
    // A form elsewhere can only send these three types; JSON and our own forms are the two that are read.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" | "application/x-www-form-urlencoded" => Ok(next.run(request).await),
        _ => Err(Turned::NotOurs("only JSON and the forms of this console are read")),
    }
}

/// The cookie of this name. Two of one name are none: one of them was planted.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value);
    found.next().filter(|_| found.next().is_none())
}

/// Keeps the session's token in the browser until it is closed; the session's own end is kept by the table.
pub fn session_cookie(token: &SecretString) -> HeaderValue {
    set(&format!("{SESSION_COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax", token.expose_secret()))
}

/// Keeps the browser's mark for a year.
pub fn device_cookie(mark: &SecretString) -> HeaderValue {
    set(&format!("{DEVICE_COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=31536000", mark.expose_secret()))
}

/// Takes the session's token out of the browser.
pub fn no_session_cookie() -> HeaderValue {
    set(&format!("{SESSION_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"))
}

fn set(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
