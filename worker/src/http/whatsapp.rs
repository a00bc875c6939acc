//! The carrier's webhooks in: `/webhooks/whatsapp`.
//!
//! A body is believed by its signature over the exact bytes, kept, and only then answered with 200; a job applies it.
//! Anything but 200 makes the carrier come again, for a week.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muneem_jobs::{
    messaging::{self, Credentials, SignatureError},
    outbound::{Chance, Clock},
    vault::Vault,
};
use serde::Deserialize;
use sqlx::PgPool;

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
    /// App secrets and verify token.
    pub credentials: Credentials,
    /// Largest body that is read, in bytes.
    pub body_limit_bytes: usize,
}

/// `GET` and `POST /webhooks/whatsapp`.
pub fn routes(intake: Intake) -> Router {
    Router::new()
        .route("/webhooks/whatsapp", get(handshake).post(receive))
        .layer(DefaultBodyLimit::max(intake.body_limit_bytes))
        .with_state(intake)
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
async fn handshake(State(intake): State<Intake>, Query(asked): Query<Handshake>) -> Response {
    let known =
        asked.verify_token.is_some_and(|token| messaging::verify_token(&intake.credentials.verify_token, &token));
    match asked.challenge {
        Some(challenge) if known && asked.mode.as_deref() == Some("subscribe") && challenge.len() <= 1024 => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], challenge).into_response()
        }
        _ => problem(StatusCode::FORBIDDEN, "messaging.wrong_verify_token", "the verify token is not ours"),
    }
}

async fn receive(State(intake): State<Intake>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get("x-hub-signature-256").map(axum::http::HeaderValue::as_bytes);
    match messaging::verify_signature(&intake.credentials.app_secrets, signature, &body) {
        Ok(()) => {}
        Err(error @ SignatureError::Missing) => {
            return problem(StatusCode::UNAUTHORIZED, "messaging.webhook_unsigned", &error.to_string());
        }
        Err(error @ SignatureError::Wrong) => {
            tracing::warn!("a webhook's signature does not fit: forged, or an app secret is missing here");
            return problem(StatusCode::FORBIDDEN, "messaging.webhook_forged", &error.to_string());
        }
    }
    match keep(&intake, &body).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a webhook could not be kept");
            problem(StatusCode::SERVICE_UNAVAILABLE, "messaging.webhook_not_kept", "send it again later")
        }
    }
}

/// Row and jobs in one transaction, durable before the answer.
async fn keep(intake: &Intake, body: &[u8]) -> Result<messaging::Received, messaging::Error> {
    let mut tx = intake.db.begin().await?;
    let received =
        messaging::receive_webhook(&mut tx, &intake.vault, intake.clock.as_ref(), intake.chance.as_ref(), body).await?;
    tx.commit().await?;
    Ok(received)
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
