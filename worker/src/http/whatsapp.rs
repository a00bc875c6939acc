//! The carrier's webhooks in: `/webhooks/whatsapp` for the installation's app, `/webhooks/whatsapp/{business}` for the
//! app of a business's own.
//!
//! A body is believed by its signature over the exact bytes, kept, and only then answered with 200; a job applies it.
//! Anything but 200 makes the carrier come again, for a week. Bodies that arrive while others are being kept are kept
//! together, so that a thousand small ones a second cost the database a few dozen transactions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muneem_jobs::{
    messaging::{self, Credentials, SignatureError},
    outbound::{Chance, Clock},
    people::{self, BusinessId},
    vault::Vault,
};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Bodies kept in one transaction.
const TOGETHER: usize = 256;
/// Their bytes, about.
const TOGETHER_BYTES: usize = 8 * 1024 * 1024;
/// Transactions that keep bodies at once.
const KEEPERS: usize = 2;
/// Bodies that wait to be kept; more wait at the door.
const WAITING: usize = 1024;
/// How long the secrets of a business are remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How soon they are read again when a signature does not fit: they may have just been changed.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Businesses remembered, those that do not exist among them; then all are forgotten.
const BUSINESSES: usize = 4096;

/// What the receiver needs.
#[derive(Clone)]
pub struct Intake {
    /// Connections of the app role.
    pub db: PgPool,
    /// Time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub chance: Arc<dyn Chance>,
    /// Seals what is kept.
    pub vault: Arc<Vault>,
    /// App secrets and verify token of the installation; none: only apps of businesses are answered.
    pub credentials: Option<Credentials>,
    /// Largest body that is read, in bytes.
    pub body_limit_bytes: usize,
}

/// What the handlers share.
struct Door {
    intake: Intake,
    to_keep: mpsc::Sender<ToKeep>,
    known: Mutex<HashMap<String, Known>>,
}

/// The apps of one business, as they were read.
#[derive(Clone)]
struct Known {
    business: Option<BusinessId>,
    credentials: Arc<Vec<Credentials>>,
    read_at: Instant,
}

/// A body whose signature was checked, and who waits for it to be kept.
struct ToKeep {
    body: Bytes,
    signed_for: Option<BusinessId>,
    kept: oneshot::Sender<bool>,
}

/// `GET` and `POST` of `/webhooks/whatsapp` and `/webhooks/whatsapp/{business}`.
pub fn routes(intake: Intake) -> Router {
    let (to_keep, waiting) = mpsc::channel(WAITING);
    tokio::spawn(keep_all(intake.clone(), waiting));
    let door = Arc::new(Door { intake, to_keep, known: Mutex::default() });
    Router::new()
        .route("/webhooks/whatsapp", get(handshake).post(receive))
        .route("/webhooks/whatsapp/{business}", get(handshake_of).post(receive_of))
        .with_state(door)
}

#[derive(Deserialize)]
struct Handshake {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.verify_token")]
    verify_token: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
}

/// The carrier asks whether this address wants its webhooks. This request alone carries no signature.
async fn handshake(State(door): State<Arc<Door>>, Query(asked): Query<Handshake>) -> Response {
    answer(asked, door.intake.credentials.iter())
}

async fn handshake_of(
    State(door): State<Arc<Door>>,
    Path(handle): Path<String>,
    Query(asked): Query<Handshake>,
) -> Response {
    match door.apps_of(&handle, Duration::ZERO).await {
        Ok(known) => answer(asked, known.credentials.iter()),
        Err(error) => not_kept(&error),
    }
}

fn answer<'a>(asked: Handshake, mut apps: impl Iterator<Item = &'a Credentials>) -> Response {
    let known =
        asked.verify_token.is_some_and(|token| apps.any(|app| messaging::verify_token(&app.verify_token, &token)));
    match asked.challenge {
        Some(challenge) if known && asked.mode.as_deref() == Some("subscribe") && is_word(&challenge) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], challenge).into_response()
        }
        _ => problem(StatusCode::FORBIDDEN, "messaging.wrong_verify_token", "the verify token is not ours"),
    }
}

/// The carrier's are digits. What is echoed must not be able to be a page or a header.
fn is_word(challenge: &str) -> bool {
    (1..=128).contains(&challenge.len())
        && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The whole body. What bears no signature is not read at all, nor what says beforehand that it is too long.
async fn read(request: Request, limit: usize) -> Result<(HeaderMap, Bytes), Response> {
    let too_long = || {
        problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "messaging.webhook_too_long",
            "the body is longer than any of the carrier's",
        )
    };
    let (parts, body) = request.into_parts();
    messaging::signature_of(signature(&parts.headers)).map_err(refuse)?;
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_long());
    }
    match axum::body::to_bytes(body, limit).await {
        Ok(body) => Ok((parts.headers, body)),
        Err(_) => Err(too_long()),
    }
}

async fn receive(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (headers, body) = match read(request, door.intake.body_limit_bytes).await {
        Ok(read) => read,
        Err(refused) => return refused,
    };
    let secrets = door.intake.credentials.as_ref().map_or(&[][..], |app| &app.app_secrets);
    match messaging::verify_signature(secrets, signature(&headers), &body) {
        Ok(()) => door.keep(body, None).await,
        Err(error) => refuse(error),
    }
}

async fn receive_of(State(door): State<Arc<Door>>, Path(handle): Path<String>, request: Request) -> Response {
    let (headers, body) = match read(request, door.intake.body_limit_bytes).await {
        Ok(read) => read,
        Err(refused) => return refused,
    };
    // A signature that does not fit may be of a secret that was set a moment ago.
    for at_most in [REMEMBERED, READ_AGAIN] {
        let known = match door.apps_of(&handle, at_most).await {
            Ok(known) => known,
            Err(error) => return not_kept(&error),
        };
        let secrets: Vec<SecretString> = known.credentials.iter().flat_map(|app| app.app_secrets.clone()).collect();
        match messaging::verify_signature(&secrets, signature(&headers), &body) {
            Ok(()) => return door.keep(body, known.business).await,
            Err(SignatureError::Missing | SignatureError::Wrong) => {}
        }
    }
    refuse(SignatureError::Wrong)
}

fn signature(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("x-hub-signature-256").map(axum::http::HeaderValue::as_bytes)
}

fn refuse(error: SignatureError) -> Response {
    match error {
        SignatureError::Missing => problem(StatusCode::UNAUTHORIZED, "messaging.webhook_unsigned", &error.to_string()),
        SignatureError::Wrong => {
            tracing::warn!("a webhook's signature does not fit: forged, or an app secret is missing here");
            problem(StatusCode::FORBIDDEN, "messaging.webhook_forged", &error.to_string())
        }
    }
}

impl Door {
    /// The apps of a business, read at most so long ago; of nobody where there is no such business.
    async fn apps_of(&self, handle: &str, at_most: Duration) -> Result<Known, messaging::Error> {
        let remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(handle).cloned();
        if let Some(known) = remembered.filter(|known| known.read_at.elapsed() < at_most) {
            return Ok(known);
        }
        let mut db = self.intake.db.acquire().await?;
        let read_at = Instant::now();
        let business = match people::load_business(&mut db, handle).await {
            Ok(business) => Some(business.business_id),
            Err(people::Error::NoSuchBusiness(_)) => None,
            Err(error) => return Err(messaging::Error::Staff(Box::new(error))),
        };
        let credentials = match business {
            Some(business) => messaging::list_credentials(&mut db, &self.intake.vault, business).await?,
            None => Vec::new(),
        };
        let known = Known { business, credentials: Arc::new(credentials), read_at };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= BUSINESSES {
            all.clear();
        }
        all.insert(handle.to_owned(), known.clone());
        Ok(known)
    }

    /// Durable before the answer.
    async fn keep(&self, body: Bytes, signed_for: Option<BusinessId>) -> Response {
        let (kept, answer) = oneshot::channel();
        let sent = self.to_keep.send(ToKeep { body, signed_for, kept }).await;
        if sent.is_ok() && answer.await == Ok(true) {
            StatusCode::OK.into_response()
        } else {
            problem(StatusCode::SERVICE_UNAVAILABLE, "messaging.webhook_not_kept", "send it again later")
        }
    }
}

/// Keeps bodies as they come, those that came meanwhile together, until nobody can bring any more.
async fn keep_all(intake: Intake, mut waiting: mpsc::Receiver<ToKeep>) {
    let keepers = Arc::new(Semaphore::new(KEEPERS));
    loop {
        // First a free keeper, then whatever has gathered.
        let Ok(keeper) = Arc::clone(&keepers).acquire_owned().await else { return };
        let Some(first) = waiting.recv().await else { return };
        let mut bytes = first.body.len();
        let mut together = vec![first];
        while together.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.body.len();
            together.push(next);
        }
        let intake = intake.clone();
        tokio::spawn(async move {
            keep_batch(&intake, together).await;
            drop(keeper);
        });
    }
}

async fn keep_batch(intake: &Intake, together: Vec<ToKeep>) {
    match keep(intake, &together).await {
        Ok(()) => {
            for waits in together {
                // Who gave up waiting comes again with the same bytes.
                let _ = waits.kept.send(true);
            }
        }
        // One of them may be the cause, and must not take the others with it.
        Err(error) if together.len() > 1 => {
            tracing::warn!(error = &error as &dyn std::error::Error, "webhooks could not be kept together");
            for waits in together {
                Box::pin(keep_batch(intake, vec![waits])).await;
            }
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a webhook could not be kept");
            for waits in together {
                let _ = waits.kept.send(false);
            }
        }
    }
}

/// Rows and jobs in one transaction.
async fn keep(intake: &Intake, together: &[ToKeep]) -> Result<(), messaging::Error> {
    let bodies: Vec<_> =
        together.iter().map(|waits| messaging::Body { bytes: &waits.body, signed_for: waits.signed_for }).collect();
    let mut tx = intake.db.begin().await?;
    let (clock, chance) = (intake.clock.as_ref(), intake.chance.as_ref());
    messaging::receive_webhooks(&mut tx, &intake.vault, clock, chance, &bodies).await?;
    tx.commit().await?;
    Ok(())
}

fn not_kept(error: &messaging::Error) -> Response {
    tracing::error!(error = error as &dyn std::error::Error, "the apps of a business could not be read");
    problem(StatusCode::SERVICE_UNAVAILABLE, "messaging.webhook_not_kept", "send it again later")
}

/// RFC 9457, for a caller that is a machine of the carrier.
pub(super) fn problem(status: StatusCode, kind: &'static str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": format!("urn:muneem:problem:{kind}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
