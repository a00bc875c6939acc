//! Signing in with an identity provider, and linking oneself with one.
//!
//! | address | who | what |
//! |---|---|---|
//! | `GET /console/oidc/{provider}/begin` | anybody | to the provider, to be signed in |
//! | `GET /console/oidc/{provider}/callback` | from the provider | a session, or a link |
//! | `GET /console/oidc` | who is signed in | her providers |
//! | `POST /console/oidc/{provider}/link`, `…/unlink` | who just proved a factor | links, ends a link |
//!
//! Each provider has a redirect address of its own, so that one cannot have its answer taken for another's.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use muneem_jobs::{
    outbound::{Chance, Clock},
    people::{
        Authority, Decision, StaffId, find_active_staff,
        oidc::{self, Provider, Purpose},
        signin::{self, Level, password::Passwords},
    },
    vault::{self, Vault},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgPool};

use super::{
    Console,
    cookies::Crumb,
    departures::Departures,
    enter::{self, First},
    guard::{SignedIn, StepUp, Turned},
    pages::{self, Page, draw},
    visitor::Visitor,
};
use crate::outbound::{
    clock::SystemClock,
    oidc::{Error as Outside, Providers, Registration},
};

/// Where somebody lands who is signed in.
const INSIDE: &str = "/console";

/// What these pages need beside the console's own.
pub struct Room {
    /// Speaks to the providers.
    pub providers: Providers,
    /// Opens client secrets and seals subjects.
    pub vault: Arc<Vault>,
}

impl Room {
    /// # Errors
    /// When the machine has no usable certificate store.
    pub fn new(vault: Arc<Vault>) -> reqwest::Result<Self> {
        // Tokens carry the world's time, also where the sandbox's clock was moved.
        Ok(Self { providers: Providers::new(Arc::new(SystemClock))?, vault })
    }
}

impl Console {
    /// A console with nothing but what these pages need: for their tests.
    ///
    /// # Panics
    /// When no password can be hashed on this machine.
    pub fn for_providers(db: PgPool, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>, origin: &str) -> Self {
        let vault = Vault::with_root(&db, &[7; 32].into(), Arc::clone(&clock), Arc::clone(&chance));
        Self {
            refusals: crate::refusals::Refusals::new(db.clone(), Arc::clone(&clock), Arc::clone(&chance)),
            db,
            clock,
            passwords: Passwords::new(1, None, Arc::clone(&chance)).expect("there is no list to open"),
            chance,
            origin: origin.to_owned(),
            vault: Arc::new(vault),
            passkeys: None,
            mails: false,
            sends_codes: false,
            installation_business: None,
            trusted_proxies: Vec::new(),
            country_header: None,
            answer_after: std::time::Duration::ZERO,
            departures: Departures::new(std::num::NonZeroU32::MAX),
        }
    }
}

/// The addresses of this page, to be put behind the console's guard.
pub(super) fn pages(room: Arc<Room>) -> Router<Arc<Console>> {
    Router::new()
        .route("/console/oidc", get(list))
        .route("/console/oidc/{provider}/begin", get(begin))
        .route("/console/oidc/{provider}/callback", get(callback))
        .route("/console/oidc/{provider}/link", post(link))
        .route("/console/oidc/{provider}/unlink", post(unlink))
        .layer(Extension(room))
}

/// One provider for a sign-in page: its label and where its button leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Button {
    /// "Sign in with …"
    pub label: String,
    /// A plain link.
    pub href: String,
}

/// What a sign-in page offers.
///
/// # Errors
/// The database fails.
pub async fn buttons(db: &mut sqlx::PgConnection) -> Result<Vec<Button>, oidc::Error> {
    let providers = oidc::list_providers(db).await?;
    Ok(providers
        .into_iter()
        .map(|Provider { label, handle, .. }| Button { label, href: format!("/console/oidc/{handle}/begin") })
        .collect())
}

/// Why it went no further, as the person is told.
enum Told {
    NoSuchProvider,
    BeginAgain,
    NotAccepted,
    Cancelled,
    NotLinked,
    LinkTaken,
    Down,
    Sealed,
    Turned(Turned),
}

impl Told {
    fn words(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchProvider => (StatusCode::NOT_FOUND, "There is no such provider here."),
            Self::BeginAgain => (
                StatusCode::FORBIDDEN,
                "This sign-in was used already, took longer than ten minutes, or began in another browser. Begin again.",
            ),
            Self::NotAccepted => (
                StatusCode::FORBIDDEN,
                "What the provider sent was not accepted. Begin again; if it stays so, tell whoever runs this console.",
            ),
            Self::Cancelled => {
                (StatusCode::FORBIDDEN, "The provider did not sign you in. Try again or sign in another way.")
            }
            Self::NotLinked => (
                StatusCode::FORBIDDEN,
                "Nobody here is linked with that account. Sign in another way first, then link it under “Other ways to sign in”.",
            ),
            Self::LinkTaken => (
                StatusCode::CONFLICT,
                "That account is linked with somebody already, or you are linked with another one.",
            ),
            Self::Down => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The provider does not answer. Try again in a moment or sign in another way.",
            ),
            Self::Sealed | Self::Turned(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "This did not work. Try again in a moment.")
            }
        }
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        if let Self::Turned(turned) = self {
            return turned.into_response();
        }
        let (status, words) = self.words();
        pages::refuse(status, "That did not work", words, false)
    }
}

impl From<Turned> for Told {
    fn from(turned: Turned) -> Self {
        Self::Turned(turned)
    }
}

impl From<oidc::Error> for Told {
    fn from(error: oidc::Error) -> Self {
        match error {
            oidc::Error::NoSuchProvider(_) => Self::NoSuchProvider,
            oidc::Error::Void => Self::BeginAgain,
            oidc::Error::NotLinked => Self::NotLinked,
            oidc::Error::LinkTaken => Self::LinkTaken,
            oidc::Error::BadSubject => Self::NotAccepted,
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "a sign-in with a provider failed");
                if matches!(error, oidc::Error::Vault(vault::Error::Sealed { .. })) {
                    Self::Sealed
                } else {
                    Self::Turned(Turned::Broken)
                }
            }
        }
    }
}

impl From<Outside> for Told {
    fn from(error: Outside) -> Self {
        let (outcome, told) = match &error {
            Outside::Down { .. } => ("down", Self::Down),
            Outside::CodeRefused { .. } => ("code_refused", Self::NotAccepted),
            Outside::Forged { .. } => ("forged", Self::NotAccepted),
        };
        metrics::counter!("muneem_people_oidc_failures_total", "outcome" => outcome).increment(1);
        tracing::warn!(%error, "a sign-in with a provider came to nothing");
        told
    }
}

impl From<sqlx::Error> for Told {
    fn from(error: sqlx::Error) -> Self {
        Self::Turned(error.into())
    }
}

impl From<signin::Error> for Told {
    fn from(error: signin::Error) -> Self {
        Self::Turned(error.into())
    }
}

async fn registration(
    console: &Console,
    room: &Room,
    db: &mut sqlx::PgConnection,
    provider: &Provider,
) -> Result<Registration, Told> {
    Ok(Registration {
        issuer: provider.issuer.clone(),
        client_id: provider.client_id.clone(),
        client_secret: oidc::client_secret(db, &room.vault, provider).await?,
        redirect_uri: format!("{}/console/oidc/{}/callback", console.origin, provider.handle),
    })
}

/// The address at the provider, and what the browser keeps meanwhile.
async fn depart(
    console: &Console,
    room: &Room,
    headers: &HeaderMap,
    provider: &Provider,
    purpose: Purpose,
) -> Result<(String, HeaderValue), Told> {
    // One secret serves every tab; a cookie that is none of ours is replaced.
    let held = console.crumb(headers, Crumb::Provider).filter(|held| signin::token_digest(held).is_some());
    let binding = held.map_or_else(|| signin::new_token(&*console.chance), |held| held.to_owned().into());
    let mut db = console.db.acquire().await?;
    let registration = registration(console, room, &mut db, provider).await?;
    let when = (console.clock.now(), &*console.chance);
    let secrets = oidc::begin(&mut db, provider, purpose, &binding, when).await?;
    drop(db);
    let address = room.providers.authorize_url(&registration, &secrets).await?;
    Ok((address, console.keep(Crumb::Provider, &binding)))
}

/// `GET /console/oidc/{provider}/begin`
async fn begin(
    State(console): State<Arc<Console>>,
    Extension(room): Extension<Arc<Room>>,
    Path(handle): Path<String>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Told> {
    // Each way begun is a row here and perhaps a question there.
    console.departures.take(visitor.address)?;
    let provider = oidc::load_provider(&mut *console.db.acquire().await?, &handle).await?;
    let (address, kept) = depart(&console, &room, &headers, &provider, Purpose::SignIn).await?;
    Ok(([(header::SET_COOKIE, kept)], Redirect::to(&address)).into_response())
}

/// What comes back (RFC 6749 section 4.1.2, RFC 9207). Other parameters are the provider's own.
#[derive(Deserialize)]
struct Back {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
}

/// `GET /console/oidc/{provider}/callback`
async fn callback(
    State(console): State<Arc<Console>>,
    Extension(room): Extension<Arc<Room>>,
    (Path(handle), Query(back)): (Path<String>, Query<Back>),
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let now = console.clock.now();
    let binding: SecretString = console.crumb(&headers, Crumb::Provider).ok_or(Told::BeginAgain)?.to_owned().into();
    let state = back.state.ok_or(Told::BeginAgain)?;
    let mut db = console.db.acquire().await?;
    let provider = oidc::load_provider(&mut db, &handle).await?;
    let (purpose, secrets) = oidc::take(&mut db, &provider, &state, &binding, now).await?;
    let registration = registration(&console, &room, &mut db, &provider).await?;
    // No connection is held while somebody else is waited for.
    drop(db);
    room.providers.check_sender(&provider.issuer, back.iss.as_deref()).await?;
    let code = back.code.filter(|code| !code.is_empty()).ok_or(Told::Cancelled)?;
    let identity = room.providers.identify(&registration, &code, &secrets).await?;
    match purpose {
        Purpose::SignIn => sign_in(&console, &room, &visitor, &provider, &identity).await,
        Purpose::Link { staff_id, session_id } => {
            let who = (staff_id, session_id);
            finish_link(&console, &room, &headers, (&provider, &identity.subject), who).await
        }
    }
}

async fn sign_in(
    console: &Console,
    room: &Room,
    visitor: &Visitor,
    provider: &Provider,
    identity: &crate::outbound::oidc::Identity,
) -> Result<Response, Told> {
    let now = console.clock.now();
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let staff = oidc::find_linked(&mut tx, &room.vault, provider, &identity.subject, now).await?;
    let proved = provider.proves_second(&identity.proof, now);
    oidc::record_sign_in(&mut tx, &staff, provider, proved, (now, &*console.chance)).await?;
    // Whoever has a second factor here gives it, unless the provider saw one just now and is trusted with it.
    let factor = if proved { First::both("provider") } else { First::of("provider") };
    let opened = enter::open(console, &mut tx, visitor, &staff, factor).await?;
    tx.commit().await?;
    Ok(enter::lead_on(console, visitor, &opened, INSIDE))
}

async fn finish_link(
    console: &Console,
    room: &Room,
    headers: &HeaderMap,
    (provider, subject): (&Provider, &str),
    (staff_id, session_id): (StaffId, uuid::Uuid),
) -> Result<Response, Told> {
    let now = console.clock.now();
    let mut db = console.db.acquire().await?;
    // The session that asked must still be the browser's own: whoever signed out meanwhile, or handed the browser on,
    // links nobody.
    let token = console.crumb(headers, Crumb::Session).ok_or(Told::BeginAgain)?;
    let session = signin::find_session(&mut db, token, now).await?;
    let same =
        session.is_some_and(|s| s.level == Level::Full && s.session_id == session_id && s.staff_id == staff_id.0);
    if !same {
        return Err(Told::BeginAgain);
    }
    let staff = find_active_staff(&mut db, staff_id).await.map_err(oidc::Error::from)?.ok_or(Told::BeginAgain)?;
    let by = Authority::of_staff(&staff);
    let decision = Decision { by: &by, now, chance: &*console.chance };
    oidc::link(&mut db, &room.vault, (provider, subject), &staff, &decision).await?;
    Ok(Redirect::to("/console/oidc").into_response())
}

#[derive(Serialize)]
struct ListPage {
    providers: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    handle: String,
    label: String,
    linked: bool,
}

/// `GET /console/oidc`
async fn list(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Told> {
    let mut db = console.db.acquire().await?;
    let linked = oidc::list_linked(&mut db, who.staff.staff_id).await?;
    let providers = oidc::list_providers(&mut db)
        .await?
        .into_iter()
        .filter(|provider| provider.is_for(who.staff.business_id))
        .map(|provider| Listed {
            linked: linked.contains(&provider.provider_id),
            handle: provider.handle,
            label: provider.label,
        })
        .collect();
    let page = Page { title: "Other ways to sign in", inside: true, script: false, body: ListPage { providers } };
    Ok(draw("oidc", &page))
}

#[derive(Serialize)]
struct GoPage<'a> {
    label: &'a str,
    address: &'a str,
}

/// `POST /console/oidc/{provider}/link`. Answers a page that leads on: a form of ours may not be redirected to another
/// site, so the policy of our pages stays as narrow as it is.
async fn link(
    State(console): State<Arc<Console>>,
    Extension(room): Extension<Arc<Room>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
    StepUp(who): StepUp,
) -> Result<Response, Told> {
    let provider = oidc::load_provider(&mut *console.db.acquire().await?, &handle).await?;
    if !provider.is_for(who.staff.business_id) {
        return Err(Told::NoSuchProvider);
    }
    let purpose = Purpose::Link { staff_id: who.staff.staff_id, session_id: who.session.session_id };
    let (address, kept) = depart(&console, &room, &headers, &provider, purpose).await?;
    let page = draw("oidc-go", &GoPage { label: &provider.label, address: &address });
    Ok(([(header::SET_COOKIE, kept)], page).into_response())
}

/// `POST /console/oidc/{provider}/unlink`
async fn unlink(
    State(console): State<Arc<Console>>,
    Path(handle): Path<String>,
    StepUp(who): StepUp,
) -> Result<Redirect, Told> {
    let mut db = console.db.acquire().await?;
    let provider = oidc::load_provider(&mut db, &handle).await?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    oidc::unlink(&mut db, &provider, &who.staff, &decision).await?;
    Ok(Redirect::to("/console/oidc"))
}
