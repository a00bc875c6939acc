//! A stand-in for the Cloud API, on loopback: the endpoints that are used, its refusals with their codes, signed
//! status webhooks, scripted faults, an oracle of what each phone has shown, and a phone to look at. Beside it a mail
//! sink: a mail server that takes everything and passes nothing on.
//!
//! It is a process of its own (`muneem sandbox`) or runs inside a test. Everything is in memory and bounded. Like the
//! carrier it takes the same message twice when it is posted twice: what it counts is what a test can trust.

mod agenda;
mod callback;
mod delivery;
mod door;
mod fault;
mod handset;
mod hooks;
mod inbound;
mod limits;
mod mail;
mod media;
mod numbers;
mod objects;
mod options;
mod oracle;
mod page;
mod refused;
mod send;
mod templates;
mod wire;
mod world;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicI64},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use muneem_jobs::outbound::Clock;
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

pub use fault::{Behaviour, Callbacks, ErrorData, Fault, Garbage, Pace, What, WindowRule};
pub use options::{Number, Options};

use crate::outbound::http::{self, Timeouts};
use world::World;

/// What the handlers share.
struct Inner {
    options: Options,
    address: SocketAddr,
    world: Mutex<World>,
    mail: Mutex<mail::Room>,
    hooks: callback::Hooks,
    again: mpsc::UnboundedSender<Arc<callback::Body>>,
    /// Rings when something earlier stands on the agenda, or the clock was moved.
    alarm: Notify,
    /// How far its own endpoint has moved the clock, in microseconds.
    moved: AtomicI64,
    began: Instant,
    door: wire::Door,
    client: reqwest::Client,
    ended: CancellationToken,
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        // A handler that panicked left at worst one half-told message.
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn mail(&self) -> MutexGuard<'_, mail::Room> {
        self.mail.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Microseconds since the stand-in began: never moved, never set back.
    fn micros(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn now(&self) -> DateTime<Utc> {
        self.options.clock.now()
    }
}

/// A stand-in that listens and does not answer yet.
pub struct Sandbox {
    inner: Arc<Inner>,
    listener: TcpListener,
    mail: Option<TcpListener>,
    again: mpsc::UnboundedReceiver<Arc<callback::Body>>,
}

impl Sandbox {
    /// Takes its address.
    ///
    /// # Errors
    /// When the address is not on loopback or is taken.
    pub async fn bind(options: Options) -> io::Result<Self> {
        if ![Some(options.listen), options.mail].iter().flatten().all(|at| at.ip().is_loopback()) {
            let why = "the sandbox listens on loopback only: take 127.0.0.1";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let listener = TcpListener::bind(options.listen).await?;
        let mail = match options.mail {
            Some(at) => Some(TcpListener::bind(at).await?),
            None => None,
        };
        let address = listener.local_addr()?;
        let timeouts = Timeouts { connect: Duration::from_secs(2), total: Duration::from_secs(10) };
        let (sender, again) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            address,
            world: Mutex::new(World::new(&options, options.clock.now())),
            mail: Mutex::default(),
            hooks: callback::Hooks::default(),
            again: sender,
            alarm: Notify::new(),
            moved: AtomicI64::new(0),
            began: Instant::now(),
            door: wire::Door::default(),
            client: http::client(timeouts).map_err(io::Error::other)?,
            ended: CancellationToken::new(),
            options,
        });
        Ok(Self { inner, listener, mail, again })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Where its mail server listens.
    pub fn mail_address(&self) -> Option<SocketAddr> {
        self.mail.as_ref().and_then(|mail| mail.local_addr().ok())
    }

    /// Answers until `end`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, end: CancellationToken) -> io::Result<()> {
        let Self { inner, listener, mail, again } = self;
        let telling = tokio::spawn(callback::tell(Arc::clone(&inner)));
        let repeating = tokio::spawn(callback::repeat(Arc::clone(&inner), again));
        tokio::spawn(agenda::keep(Arc::clone(&inner)));
        let service = router(Arc::clone(&inner)).into_make_service_with_connect_info::<wire::Scissors>();
        let ended = inner.ended.clone();
        if let Some(listener) = mail {
            tokio::spawn(mail::serve(Arc::clone(&inner), listener, ended.clone()));
        }
        let serving = axum::serve(wire::Wire::new(listener, inner.address, inner.door.clone()), service)
            .with_graceful_shutdown(async move {
                end.cancelled().await;
                ended.cancel();
            });
        let served = serving.await;
        telling.abort();
        repeating.abort();
        served
    }
}

/// Runs the stand-in until `end`.
///
/// # Errors
/// When the address is not on loopback or is taken.
pub async fn serve(options: Options, end: CancellationToken) -> io::Result<()> {
    Sandbox::bind(options).await?.run(end).await
}

/// Largest body with a file, in bytes: the largest file and its envelope.
const FILE_LIMIT: usize = 101 * 1024 * 1024;

fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/{version}/{id}/messages", post(send::send))
        .route("/{version}/{id}/media", post(media::upload).layer(DefaultBodyLimit::max(FILE_LIMIT)))
        .route("/{version}/{id}/message_history", get(objects::history))
        .route(
            "/{version}/{id}/message_templates",
            get(templates::list).post(templates::create).delete(templates::remove),
        )
        .route("/{version}/{id}/upsert_message_templates", post(templates::upsert))
        .route("/{version}/{id}/unpause", post(templates::unpause))
        .route("/{version}/{id}/uploads", post(templates::begin_upload))
        .route(
            "/{version}/{id}",
            get(objects::show).post(objects::change).delete(media::delete).layer(DefaultBodyLimit::max(FILE_LIMIT)),
        )
        .route("/sandbox/templates", get(templates::listed).post(templates::script))
        .route("/sandbox/clock", post(agenda::move_clock))
        .route("/{version}/{id}/phone_numbers", get(numbers::list))
        .route("/{version}/{id}/register", post(numbers::register))
        .route("/{version}/{id}/deregister", post(numbers::deregister))
        .route("/{version}/{id}/request_code", post(numbers::request_code))
        .route("/{version}/{id}/verify_code", post(numbers::verify_code))
        .route(
            "/{version}/{id}/subscribed_apps",
            get(numbers::subscribed).post(numbers::subscribe).delete(numbers::unsubscribe),
        )
        .route("/{version}/{id}/block_users", get(numbers::blocked).post(numbers::block).delete(numbers::unblock))
        .route("/attachments/{id}", get(media::download))
        .route("/sandbox/faults", post(script))
        .route("/sandbox/behaviour", get(behaviour).post(behave))
        .route("/sandbox/callback", post(set_callback))
        .route("/sandbox/webhooks", post(hooks::tell))
        .route("/sandbox/inbound", post(inbound::write))
        .route("/sandbox/numbers", post(numbers::script))
        .route("/sandbox/credentials", post(numbers::credentials))
        .route("/sandbox/phones", post(numbers::phones))
        .route("/sandbox/oracle", get(oracle::oracle))
        .merge(page::routes())
        .merge(mail::routes())
        .layer(middleware::from_fn(trace))
        .layer(middleware::from_fn(only_from_here))
        .with_state(inner)
}

/// Every answer of the carrier has a trace that its support asks for.
async fn trace(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let trace = response.headers().get(refused::TRACE).cloned();
    if let Some(trace) = trace.or_else(|| HeaderValue::from_str(&refused::trace()).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-fb-request-id"), trace.clone());
        response.headers_mut().insert(refused::TRACE, trace);
    }
    response
}

/// A page elsewhere must not reach this by a name that it points at loopback.
async fn only_from_here(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]") {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "the sandbox answers to 127.0.0.1 and localhost only\n").into_response()
    }
}

/// `POST /sandbox/faults`
async fn script(State(inner): State<Arc<Inner>>, Json(script): Json<fault::Script>) -> StatusCode {
    let mut world = inner.world();
    if script.reset {
        world.faults.clear();
        world.callbacks = Callbacks::default();
    }
    world.faults.extend(script.faults);
    if let Some(callbacks) = script.callbacks {
        world.callbacks = callbacks;
    }
    let now = inner.now();
    world.agenda.post_now(now);
    drop(world);
    if let Some(millis) = script.closed_millis {
        inner.door.close(Duration::from_millis(millis.min(60_000)));
    }
    inner.alarm.notify_one();
    inner.hooks.ring();
    StatusCode::NO_CONTENT
}

/// `GET /sandbox/behaviour`
async fn behaviour(State(inner): State<Arc<Inner>>) -> Json<Behaviour> {
    Json(inner.world().behaviour.clone())
}

/// `POST /sandbox/behaviour`: what is left out is as it is at the beginning.
async fn behave(State(inner): State<Arc<Inner>>, Json(behaviour): Json<Behaviour>) -> StatusCode {
    inner.world().behaviour = behaviour;
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackUrl {
    url: Option<String>,
    /// Only for this number: its `phone_number_id`.
    #[serde(default)]
    number: Option<String>,
    /// First ask the address whether it wants webhooks, as the carrier does; true: with the app's verify token, or with
    /// this one.
    #[serde(default)]
    handshake: bool,
    #[serde(default)]
    verify_token: Option<String>,
}

/// `POST /sandbox/callback`
async fn set_callback(State(inner): State<Arc<Inner>>, Json(callback): Json<CallbackUrl>) -> Response {
    if callback.url.as_ref().is_some_and(|url| callback::loopback(url).is_none()) {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    let index = callback.number.as_deref().map(|id| inner.world().number(id));
    if index == Some(None) {
        return (StatusCode::NOT_FOUND, "no such number\n").into_response();
    }
    let index = index.flatten();
    if let Some(url) = callback.url.as_deref().filter(|_| callback.handshake) {
        let token = callback.verify_token.unwrap_or_else(|| {
            let world = inner.world();
            let app = index.and_then(|index| world.numbers.get(index)).map_or(0, |line| line.app);
            world.apps[app].verify_token.expose_secret().to_owned()
        });
        if let Err(why) = callback::shake_hands(&inner, url, &token).await {
            return (StatusCode::CONFLICT, format!("{why}\n")).into_response();
        }
    }
    let now = inner.now();
    let mut world = inner.world();
    match index {
        Some(index) => world.numbers[index].callback_url = callback.url,
        None => world.callback_url = callback.url,
    }
    world.agenda.post_now(now);
    drop(world);
    inner.alarm.notify_one();
    StatusCode::NO_CONTENT.into_response()
}
