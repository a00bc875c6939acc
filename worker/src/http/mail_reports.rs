//! Reports of mail in: `POST /webhooks/mail/<secret>`.
//!
//! For a mail service or a mail server's pipe. The body is a whole mail (`message/rfc822`), or JSON:
//!
//! ```json
//! {"message_id": "<…@example.in>", "recipient": "asha@example.in", "event": "failed", "status": "5.1.1"}
//! ```
//!
//! with an event of `delivered`, `delayed`, `failed` and `complaint`, and the status optional. It is kept before it is
//! answered with 200; a job applies it.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use muneem_jobs::{
    messaging::{
        self,
        mail::{Format, Kept, Source, receive_report},
    },
    outbound::{Chance, Clock},
    vault::Vault,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;

use super::whatsapp::problem;

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
    /// The end of the address.
    pub token: SecretString,
    /// Largest body that is read, in bytes.
    pub body_limit_bytes: usize,
}

/// `POST /webhooks/mail/{token}`.
pub fn routes(intake: Intake) -> Router {
    Router::new()
        .route("/webhooks/mail/{token}", post(receive))
        .layer(DefaultBodyLimit::max(intake.body_limit_bytes))
        .with_state(intake)
}

async fn receive(State(intake): State<Intake>, Path(token): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    if !bool::from(digest(&token).ct_eq(&digest(intake.token.expose_secret()))) {
        // As where there is no such address: who guesses learns nothing.
        return problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address");
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let format = match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "message/rfc822" => Format::Rfc822,
        "application/json" => Format::Json,
        _ => {
            let mend = "send a whole mail as message/rfc822, or application/json";
            return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "messaging.report_format", mend);
        }
    };
    match keep(&intake, format, &body).await {
        Ok(Kept::Unreadable) => {
            let mend = "send message_id, recipient, event (delivered, delayed, failed, complaint), and perhaps status";
            problem(StatusCode::UNPROCESSABLE_ENTITY, "messaging.report_unreadable", mend)
        }
        Ok(Kept::New | Kept::Replayed | Kept::Unmatched) => StatusCode::OK.into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a report could not be kept");
            problem(StatusCode::SERVICE_UNAVAILABLE, "messaging.report_not_kept", "send it again later")
        }
    }
}

/// Row and job in one transaction, durable before the answer.
async fn keep(intake: &Intake, format: Format, body: &[u8]) -> Result<Kept, messaging::Error> {
    let mut tx = intake.db.begin().await?;
    let with = (&*intake.clock, &*intake.chance);
    let kept = receive_report(&mut tx, &intake.vault, with, (Source::Webhook, format), body).await?;
    tx.commit().await?;
    Ok(kept)
}
