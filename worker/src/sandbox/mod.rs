//! A stand-in for the Cloud API, on loopback: the endpoints that are used, its refusals with their codes, signed
//! status webhooks, scripted faults, an oracle of what each phone has shown, and a phone to look at. Beside it a mail
//! sink: a mail server that takes everything and passes nothing on.
//!
//! It is a process of its own (`muneem sandbox`) or runs inside a test. Everything is in memory and bounded. Like the
//! carrier it takes the same message twice when it is posted twice: what it counts is what a test can trust.

mod api;
mod callback;
mod fault;
mod mail;
mod page;
mod wire;
mod world;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging::Credentials,
    outbound::{Clock, Phone},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

pub use fault::{Callbacks, Fault, Garbage, Pace, What};

use crate::outbound::{
    clock::SystemClock,
    http::{self, Timeouts},
};
use world::{Progress, World};

/// How the stand-in is set up.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; loopback only.
    pub listen: SocketAddr,
    /// Where its mail server listens; loopback only. None: it has none.
    pub mail: Option<SocketAddr>,
    /// Start of its chances: the same seed and requests, the same ids and faults.
    pub seed: u64,
    /// Where status webhooks go; `POST /sandbox/callback` changes it.
    pub callback_url: Option<String>,
    /// What callers must show, and what webhooks are signed with.
    pub credentials: Credentials,
    /// The numbers it knows.
    pub numbers: Vec<Number>,
    /// How quickly messages get on.
    pub pace: Pace,
}

/// A business's number.
#[derive(Clone)]
pub struct Number {
    /// `phone_number_id`.
    pub id: String,
    /// The account it belongs to.
    pub waba_id: String,
    /// The name in the chat's head.
    pub business_name: String,
    /// The number in the chat's head.
    pub display_phone: Phone,
    /// Put before recipients without a plus.
    pub country_code: &'static str,
    /// Its throughput: 80, or 1000 after the upgrade.
    pub messages_per_second: u32,
}

impl Options {
    /// `phone_number_id` of the number that [`Self::local`] knows.
    pub const NUMBER: &'static str = "106540352242922";
    /// Its account.
    pub const ACCOUNT: &'static str = "102290129340398";

    /// A stand-in for one shop, with secrets that are none: they open nothing but this.
    pub fn local(listen: SocketAddr, seed: u64) -> Self {
        Self {
            listen,
            mail: Some(SocketAddr::new(listen.ip(), 0)),
            seed,
            callback_url: None,
            credentials: Credentials {
                access_token: "sandbox-access-token".to_owned().into(),
                app_secrets: vec!["sandbox-app-secret".to_owned().into()],
                verify_token: "sandbox-verify-token".to_owned().into(),
            },
            numbers: vec![Number {
                id: Self::NUMBER.to_owned(),
                waba_id: Self::ACCOUNT.to_owned(),
                business_name: "Sharma Mobiles".to_owned(),
                display_phone: Phone::parse("+919800000001").expect("an Indian mobile"),
                country_code: "91",
                messages_per_second: 80,
            }],
            pace: Pace::LIVELY,
        }
    }
}

/// What the handlers share.
struct Inner {
    options: Options,
    address: SocketAddr,
    world: Mutex<World>,
    mail: Mutex<mail::Room>,
    events: mpsc::UnboundedSender<serde_json::Value>,
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

    fn now(&self) -> DateTime<Utc> {
        SystemClock.now()
    }

    /// Moves a message on, and tells of it if `tell`.
    fn advance(&self, wamid: &str, progress: Progress, failure: Option<i64>, tell: bool) {
        let moved = self.world().advance(wamid, progress, self.now());
        if let Some(message) = moved.filter(|_| tell) {
            // The receiver only goes when the sandbox ends.
            let _ = self.events.send(callback::status_entry(self, &message, progress, failure));
        }
    }

    /// Sends a message on its way to the phone, at its own pace.
    fn deliver_later(self: &Arc<Self>, wamid: &str, what: Option<&What>) {
        let (inner, wamid, what) = (Arc::clone(self), wamid.to_owned(), what.cloned());
        let way = async move {
            let pace = inner.options.pace;
            match what {
                Some(What::Vanish) => return,
                Some(What::FailLater { code }) => {
                    tokio::time::sleep(pace.sent).await;
                    inner.advance(&wamid, Progress::Failed, Some(code), true);
                    return;
                }
                _ => {}
            }
            tokio::time::sleep(pace.sent).await;
            inner.advance(&wamid, Progress::Sent, None, true);
            tokio::time::sleep(pace.delivered).await;
            inner.advance(&wamid, Progress::Delivered, None, !matches!(what, Some(What::ReadOnly)));
            if let Some(read) = pace.read {
                tokio::time::sleep(read).await;
                inner.advance(&wamid, Progress::Read, None, true);
            }
        };
        let ended = self.ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(way).await });
    }
}

/// A stand-in that listens and does not answer yet.
pub struct Sandbox {
    inner: Arc<Inner>,
    listener: TcpListener,
    mail: Option<TcpListener>,
    events: mpsc::UnboundedReceiver<serde_json::Value>,
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
        let (sender, events) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            address,
            world: Mutex::new(World::new(options.seed, options.callback_url.clone())),
            mail: Mutex::default(),
            events: sender,
            client: http::client(timeouts).map_err(io::Error::other)?,
            ended: CancellationToken::new(),
            options,
        });
        Ok(Self { inner, listener, mail, events })
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
        let Self { inner, listener, mail, events } = self;
        let telling = tokio::spawn(callback::tell(Arc::clone(&inner), events));
        let service = router(Arc::clone(&inner)).into_make_service_with_connect_info::<wire::Scissors>();
        let ended = inner.ended.clone();
        if let Some(listener) = mail {
            tokio::spawn(mail::serve(Arc::clone(&inner), listener, ended.clone()));
        }
        let serving = axum::serve(wire::Wire(listener), service).with_graceful_shutdown(async move {
            end.cancelled().await;
            ended.cancel();
        });
        let served = serving.await;
        telling.abort();
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

fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/{version}/{id}/messages", post(api::send))
        .route("/{version}/{id}/media", post(api::upload).layer(DefaultBodyLimit::max(101 * 1024 * 1024)))
        .route("/{version}/{id}/message_history", get(api::history))
        .route("/{version}/{id}/message_templates", get(api::templates))
        .route("/{version}/{id}", get(api::look_up).delete(api::delete_media))
        .route("/sandbox", get(page::phone))
        .route("/sandbox/phone.css", get(page::style))
        .route("/sandbox/media/{id}", get(page::media))
        .route("/sandbox/read", post(page::mark_read))
        .route("/sandbox/faults", post(script))
        .route("/sandbox/callback", post(set_callback))
        .route("/sandbox/oracle", get(oracle))
        .merge(mail::routes())
        .layer(middleware::from_fn(only_from_here))
        .with_state(inner)
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
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackUrl {
    url: Option<String>,
}

/// `POST /sandbox/callback`
async fn set_callback(State(inner): State<Arc<Inner>>, Json(callback): Json<CallbackUrl>) -> StatusCode {
    let loopback = callback.url.as_ref().is_none_or(|url| {
        reqwest::Url::parse(url).is_ok_and(|url| matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")))
    });
    if loopback {
        inner.world().callback_url = callback.url;
        StatusCode::NO_CONTENT
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    }
}

/// `GET /sandbox/oracle`: what each phone has shown, in order, and how often each reference was posted.
async fn oracle(State(inner): State<Arc<Inner>>) -> Json<serde_json::Value> {
    let world = inner.world();
    let mut recipients = serde_json::Map::new();
    for message in world.messages.values() {
        let shown = json!({
            "wamid": message.wamid,
            "ref": message.reference,
            "text": message.text,
            "filename": message.document.as_ref().map(|(_, filename)| filename),
            "media_id": message.document.as_ref().map(|(id, _)| id),
            "progress": message.progress,
            "accepted_at": message.accepted_at,
            "displayed_at": message.displayed_at,
        });
        let chat = recipients.entry(message.to.clone()).or_insert_with(|| json!([]));
        if let Some(chat) = chat.as_array_mut() {
            chat.push(shown);
        }
    }
    Json(json!({
        "recipients": recipients,
        "posts": { "messages": world.posts, "media": world.uploads, "by_ref": world.posts_by_reference },
        "webhooks": { "taken": world.webhooks_taken, "refused": world.webhooks_refused },
    }))
}
