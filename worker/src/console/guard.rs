//! Who is signed in, and whether a request comes from a page of ours.
//!
//! What a person may do is read with every request, so that a role that was taken away is gone at once. A request that
//! changes something must say that it comes from our own origin.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging, people,
    people::{
        Staff, StaffId, find_active_staff,
        signin::{self, Level, Session, Standing, find_standing, password},
    },
    vault,
};

use super::{Console, cookies::Crumb, frame, pages, visitor::wants_page};
use crate::{
    http::method,
    refusals::{Asker, Known, Reason},
};

/// Somebody who is signed in, both factors where two are asked for, and has set up what is demanded of her. As an
/// argument of a handler it refuses everybody else.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// Who it is and what she may do at this moment.
    pub staff: Staff,
    /// What she signs in with.
    pub standing: Standing,
}

/// As [`SignedIn`], and also somebody whose second factor is demanded and not set up yet: for the pages that set it up.
#[derive(Clone, Debug)]
pub struct Enrolling(pub SignedIn);

/// Somebody who is signed in and proved a factor within the last five minutes: for decrypting, exporting, approving,
/// sending, and for changing roles and keys.
#[derive(Clone, Debug)]
pub struct StepUp(pub SignedIn);

/// As [`StepUp`], for the pages that set up what somebody signs in with.
#[derive(Clone, Debug)]
pub(super) struct EnrollingStepUp(pub(super) SignedIn);

/// Somebody whose second factor is still to come.
#[derive(Clone, Debug)]
pub(super) struct HalfWay {
    pub(super) session: Session,
    pub(super) staff: Staff,
    pub(super) standing: Standing,
}

/// Why a request goes no further.
#[derive(Debug)]
pub enum Turned {
    /// No session, or one that ended. Afterwards to `next`, where a page was asked for.
    NotSignedIn(Option<String>),
    /// The second factor is still to come.
    SecondFactorNeeded(Option<String>),
    /// A second factor is demanded and none is set up.
    EnrolmentNeeded(Option<String>),
    /// A factor must be proved anew first.
    StepUpNeeded(Option<String>),
    /// It does not come from a page of ours.
    NotOurs(&'static str),
    /// She may not.
    MayNot(String),
    /// There is nothing of hers at this address.
    NotFound,
    /// Wrong too often.
    TooSoon {
        /// Seconds to wait.
        seconds: i64,
    },
    /// As many codes were sent as somebody gets in an hour.
    TooManyCodes {
        /// Seconds until the next one.
        seconds: i64,
    },
    /// Too many passwords are being checked.
    Busy,
    /// Something failed inside.
    Broken,
}

impl Turned {
    /// Why, for whoever counts; none where she is only led by another page first.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::NotSignedIn(None) | Self::SecondFactorNeeded(None) => Some(Reason("console.not_signed_in")),
            Self::EnrolmentNeeded(None) => Some(Reason("console.no_second_factor")),
            Self::StepUpNeeded(None) => Some(Reason("console.no_fresh_proof")),
            Self::NotOurs(_) => Some(Reason("console.not_ours")),
            Self::MayNot(_) => Some(Reason("console.may_not")),
            Self::TooSoon { .. } => Some(Reason("console.too_soon")),
            Self::TooManyCodes { .. } => Some(Reason("console.too_many_codes")),
            _ => None,
        }
    }
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        let reason = self.reason();
        let mut response = self.page();
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        response
    }
}

impl Turned {
    fn page(self) -> Response {
        let to = |address: &str, next: &str| Redirect::to(&format!("{address}?next={}", escape(next))).into_response();
        match self {
            Self::NotSignedIn(Some(next)) => to("/console/sign-in", &next),
            Self::SecondFactorNeeded(Some(next)) => to("/console/second-factor", &next),
            Self::StepUpNeeded(Some(next)) => to("/console/confirm", &next),
            Self::EnrolmentNeeded(Some(_)) => Redirect::to("/console/security").into_response(),
            Self::NotSignedIn(None) | Self::SecondFactorNeeded(None) => {
                pages::refuse(StatusCode::UNAUTHORIZED, "Not signed in", "Sign in first.", false)
            }
            Self::EnrolmentNeeded(None) => pages::refuse(
                StatusCode::FORBIDDEN,
                "A second factor is needed",
                "Your account has to have a second factor: set one up under Security first.",
                true,
            ),
            Self::StepUpNeeded(None) => pages::refuse(
                StatusCode::FORBIDDEN,
                "Prove that it is you",
                "This needs your second factor once more: prove it and try again.",
                true,
            ),
            Self::NotOurs(why) => {
                pages::refuse(StatusCode::FORBIDDEN, "Not done", &format!("Nothing was changed: {why}."), true)
            }
            Self::MayNot(why) => pages::refuse(StatusCode::FORBIDDEN, "Not for you", &why, true),
            Self::NotFound => {
                pages::refuse(StatusCode::NOT_FOUND, "Not here", "There is nothing of yours at this address.", true)
            }
            Self::TooSoon { seconds } => pages::refuse_until(
                StatusCode::TOO_MANY_REQUESTS,
                "A moment, please",
                &format!(
                    "There were too many wrong attempts. The next one is looked at in {}. Where you have signed in \
                     before you need not wait for others.",
                    words_for(seconds)
                ),
                seconds,
            ),
            Self::TooManyCodes { seconds } => pages::refuse_until(
                StatusCode::TOO_MANY_REQUESTS,
                "Enough codes for now",
                &format!(
                    "Five codes an hour are the most. The next one can be sent in {}; a password, or an identity \
                     provider, lets you in before.",
                    words_for(seconds)
                ),
                seconds,
            ),
            Self::Busy => pages::refuse_until(
                StatusCode::SERVICE_UNAVAILABLE,
                "A moment, please",
                "Many people are signing in just now. Try again in a few seconds.",
                5,
            ),
            Self::Broken => pages::refuse_until(
                StatusCode::SERVICE_UNAVAILABLE,
                "This did not work",
                "Something failed on our side, and nothing was changed. Try again in a moment.",
                10,
            ),
        }
    }
}

fn words_for(seconds: i64) -> String {
    match seconds {
        ..=1 => "a second".to_owned(),
        2..=90 => format!("{seconds} seconds"),
        _ => format!("{} minutes", (seconds + 59) / 60),
    }
}

impl Turned {
    /// A refusal of sign-in that its page does not speak of itself.
    pub(super) fn of(error: signin::Error, now: DateTime<Utc>) -> Self {
        match error {
            signin::Error::TooSoon { until } => Self::TooSoon { seconds: (until - now).num_seconds() + 1 },
            signin::Error::TooManyCodes { until } => Self::TooManyCodes { seconds: (until - now).num_seconds() + 1 },
            signin::Error::Password(password::Error::Busy) => Self::Busy,
            signin::Error::SessionEnded => Self::NotSignedIn(Some("/console".to_owned())),
            signin::Error::NoSuchReset => Self::NotFound,
            signin::Error::SecondPersonNeeded => Self::MayNot(error.to_string()),
            error => broken(&error),
        }
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Turned {
    tracing::error!(error, "a page of the console failed");
    Turned::Broken
}

/// A refusal of the rules about people, as a page; anything else failed inside.
pub(super) fn may_not(error: people::Error) -> Turned {
    match error {
        people::Error::NoSuchStaff(_)
        | people::Error::NoSuchBusiness(_)
        | people::Error::NoSuchToken(_)
        | people::Error::NoSuchGrant(_) => Turned::NotFound,
        people::Error::BeyondOwn(_)
        | people::Error::MissingScope(_)
        | people::Error::ForPeopleAlone(_)
        | people::Error::LastOwner
        | people::Error::NotOfBusiness
        | people::Error::RoleNotHere(..) => Turned::MayNot(sentence(&error)),
        error => error.into(),
    }
}

/// What an error says, as a sentence of a page.
pub(super) fn sentence(error: &impl std::error::Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

macro_rules! breaks {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Turned {
            fn from(error: $error) -> Self {
                broken(&error)
            }
        }
    )*};
}

breaks![
    signin::Error,
    sqlx::Error,
    people::Error,
    people::oidc::Error,
    people::approval::Error,
    vault::Error,
    messaging::Error,
    muneem_jobs::evidence::Error
];

/// The session of this browser, whatever its level, and whose it is. `Err`: where to go instead.
async fn session(parts: &Parts, console: &Console, next: Option<String>) -> Result<HalfWay, Turned> {
    let not_signed_in = || Turned::NotSignedIn(next.clone());
    let token = console.crumb(&parts.headers, Crumb::Session).ok_or_else(not_signed_in)?;
    let mut db = console.db.acquire().await?;
    let session = signin::find_session(&mut db, token, console.clock.now()).await?.ok_or_else(not_signed_in)?;
    let staff = find_active_staff(&mut db, StaffId(session.staff_id)).await?.ok_or_else(not_signed_in)?;
    let standing = find_standing(&mut db, session.staff_id).await?.ok_or_else(not_signed_in)?;
    if let Some(asker) = parts.extensions.get::<Asker>() {
        asker.is(Known::staff(session.staff_id, staff.business_id));
    }
    Ok(HalfWay { session, staff, standing })
}

/// Where to go on after whatever is needed first: the page that was asked for, or the one whose form was sent.
fn next_of(parts: &Parts, console: &Console) -> Option<String> {
    if !wants_page(&parts.headers) {
        return None;
    }
    if parts.method == Method::GET {
        return Some(parts.uri.path_and_query().map_or("/console", |path| path.as_str()).to_owned());
    }
    let referer = parts.headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
    let path = referer.and_then(|referer| referer.strip_prefix(&console.origin)).unwrap_or("/console");
    Some(own_path(path).to_owned())
}

/// The path if it leads to a page of the console, and the way home if it does not: nobody is led elsewhere by a link.
pub(super) fn own_path(path: &str) -> &str {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>".contains(&byte));
    let inside = path == "/console" || path.starts_with("/console/") || path.starts_with("/console?");
    if plain && inside && !path.contains("//") && !path.contains("/..") && path.len() <= 512 {
        path
    } else {
        "/console"
    }
}

/// Percent-encodes what would end a value in a query.
pub(super) fn escape(path: &str) -> String {
    path.replace('%', "%25").replace('&', "%26").replace('+', "%2B").replace('#', "%23")
}

impl FromRequestParts<Arc<Console>> for HalfWay {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let found = session(parts, console, next_of(parts, console)).await?;
        match found.session.level {
            Level::First => Ok(found),
            // She is through: the page is not for her any more.
            Level::Full => Err(Turned::NotSignedIn(wants_page(&parts.headers).then(|| "/console".to_owned()))),
        }
    }
}

/// Somebody with a session of whatever level: for leaving.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    pub(super) session: Session,
    pub(super) staff: Staff,
}

impl FromRequestParts<Arc<Console>> for Leaving {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let HalfWay { session, staff, .. } = session(parts, console, next_of(parts, console)).await?;
        Ok(Self { session, staff })
    }
}

impl FromRequestParts<Arc<Console>> for Enrolling {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let next = next_of(parts, console);
        let HalfWay { session, staff, standing } = session(parts, console, next.clone()).await?;
        match session.level {
            Level::Full => {
                frame::note_support(console, &staff).await?;
                Ok(Self(SignedIn { session, staff, standing }))
            }
            Level::First => Err(Turned::SecondFactorNeeded(next)),
        }
    }
}

impl FromRequestParts<Arc<Console>> for SignedIn {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let Enrolling(who) = Enrolling::from_request_parts(parts, console).await?;
        if who.standing.must_enrol() { Err(Turned::EnrolmentNeeded(next_of(parts, console))) } else { Ok(who) }
    }
}

impl FromRequestParts<Arc<Console>> for EnrollingStepUp {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let Enrolling(who) = Enrolling::from_request_parts(parts, console).await?;
        if who.session.is_stepped_up(console.clock.now()) {
            Ok(Self(who))
        } else {
            Err(Turned::StepUpNeeded(next_of(parts, console)))
        }
    }
}

impl FromRequestParts<Arc<Console>> for StepUp {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Turned> {
        let who = SignedIn::from_request_parts(parts, console).await?;
        if who.session.is_stepped_up(console.clock.now()) {
            Ok(Self(who))
        } else {
            Err(Turned::StepUpNeeded(next_of(parts, console)))
        }
    }
}

/// Counts and records who was refused on the way to a page.
pub(super) async fn note_refusals(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    let asker = Asker::default();
    request.extensions_mut().insert(asker.clone());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let address = format!("{}:{route}", method::name_of(request.method()));
    let answer = next.run(request).await;
    if let Some(Reason(reason)) = answer.extensions().get::<Reason>() {
        console.refusals.note(asker.known(), &address, reason).await;
    }
    answer
}

/// Turns away what changes something and does not come from a page of ours, on top of tower-http's own layer, which
/// lets programs without either header pass: nothing but a browser holds a session's cookie, and those of the last
/// ten years send `Origin` with every POST.
pub(super) async fn from_our_pages(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Result<Response, Turned> {
    let headers = request.headers();
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return match elsewhere(&console, headers, request.uri().path()) {
            Some(there) => Ok(there),
            None => Ok(next.run(request).await),
        };
    }
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

/// On this machine alone: who typed `127.0.0.1` is sent to `localhost`, which passkeys and the origin are bound to.
fn elsewhere(console: &Console, headers: &HeaderMap, path: &str) -> Option<Response> {
    let port = console.origin.strip_prefix("http://localhost:")?;
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let typed = ["127.0.0.1", "[::1]"].iter().any(|name| host.strip_prefix(name) == Some(&format!(":{port}")));
    (typed && wants_page(headers)).then(|| Redirect::to(&format!("{}{path}", console.origin)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn enough_codes_are_not_told_as_wrong_attempts() {
        let now = DateTime::UNIX_EPOCH;
        let turned = Turned::of(signin::Error::TooManyCodes { until: now + chrono::TimeDelta::minutes(30) }, now);
        let page = turned.into_response();
        assert_eq!(page.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(page.extensions().get::<Reason>().map(|reason| reason.0), Some("console.too_many_codes"));
        let page = axum::body::to_bytes(page.into_body(), 100_000).await.expect("a page");
        let page = String::from_utf8_lossy(&page);
        assert!(page.contains("Five codes an hour are the most") && !page.contains("wrong attempts"), "{page}");
    }

    #[test]
    fn a_link_leads_to_our_own_pages_or_home() {
        for own in ["/console", "/console/sessions", "/console?x=1", "/console/a?b=%2Fc"] {
            assert_eq!(own_path(own), own);
        }
        let far = format!("/console/{}", "a".repeat(600));
        for foreign in [
            "",
            "https://evil.example/console",
            "//evil.example/console",
            "/console//evil.example",
            "/console/../docs",
            "/consolely",
            "/docs",
            "console",
            "/\\evil.example",
            "/console\\@evil.example",
            "/console/\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
            &far,
        ] {
            assert_eq!(own_path(foreign), "/console", "{foreign:?}");
        }
    }
}
