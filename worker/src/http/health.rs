//! Whether this process lives, and whether it can do its work.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    evidence::{self, AnchorState},
    vault::Openness,
    webhooks,
};
use serde::Serialize;

use super::Api;

const PATIENCE: Duration = Duration::from_secs(3);

/// How long an anchor is shown after the sealer last spoke of it.
const SPOKEN_OF: TimeDelta = TimeDelta::minutes(5);

/// One thing that must hold.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
}

/// How one anchor of the evidence log stands. One that fails stops nothing, so it does not make the process unready.
#[derive(Serialize)]
struct Anchor {
    name: String,
    kind: String,
    laid_size: Option<u64>,
    laid_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<DateTime<Utc>>,
}

impl From<AnchorState> for Anchor {
    fn from(state: AnchorState) -> Self {
        let AnchorState { name, kind, laid_size, laid_at, failing_since, .. } = state;
        Self { name, kind, laid_size, laid_at, failing_since }
    }
}

/// Whether values can be sealed and opened. A sealed vault makes the process unready: next to nothing personal can be
/// taken in or shown. While keys in memory serve, it stays ready.
#[derive(Serialize)]
struct Vault {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
}

impl From<Openness> for Vault {
    fn from(openness: Openness) -> Self {
        match openness {
            Openness::Open => Self { state: "open", why: None, until: None },
            Openness::FromMemory { until, why } => Self { state: "from_memory", why: Some(why), until: Some(until) },
            Openness::Sealed { why } => Self { state: "sealed", why: Some(why), until: None },
        }
    }
}

/// Asks how the vault stands, and keeps it for `/metrics`.
async fn vault(api: &Api) -> Openness {
    let openness = api.vault.openness().await;
    let sealed = matches!(openness, Openness::Sealed { .. });
    metrics::gauge!("muneem_vault_sealed").set(f64::from(u8::from(sealed)));
    openness
}

pub(super) async fn live() -> Response {
    Json(serde_json::json!({ "live": true })).into_response()
}

pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let pending = tokio::time::timeout(PATIENCE, async {
        let mut db = api.db.acquire().await?;
        muneem_jobs::pending_migrations(&mut db).await
    })
    .await;
    let pending = pending.ok().and_then(Result::ok);
    let mut checks = vec![
        Check { name: "database", ok: pending.is_some() },
        Check { name: "migrations", ok: pending.is_some_and(|pending| pending.is_empty()) },
    ];
    let mut anchors = Vec::new();
    if checks.iter().all(|check| check.ok) {
        let standing = tokio::time::timeout(PATIENCE, async {
            let mut db = api.db.acquire().await.map_err(evidence::Error::from)?;
            let standing = evidence::load_standing(&mut db).await?;
            Ok::<_, evidence::Error>((standing, evidence::list_anchor_states(&mut db).await?))
        });
        let standing = standing.await.ok().and_then(Result::ok);
        // A log that went back in time: red until somebody has looked.
        let sound = standing.as_ref().is_some_and(|(standing, _)| standing.forked.is_none());
        let since = api.clock.now() - SPOKEN_OF;
        let spoken_of = standing.into_iter().flat_map(|(_, states)| states).filter(|state| since <= state.seen_at);
        anchors.extend(spoken_of.map(Anchor::from));
        checks.push(Check { name: "evidence", ok: sound });
    }
    let vault = vault(&api).await;
    checks.push(Check { name: "vault", ok: !matches!(vault, Openness::Sealed { .. }) });
    checks.extend(api.workers_beat.as_ref().map(|beat| Check { name: "workers", ok: beat() }));
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let vault = Vault::from(vault);
    let body = serde_json::json!({ "ready": ready, "checks": checks, "vault": vault, "anchors": anchors });
    (status, Json(body)).into_response()
}

/// Asks how receivers of webhooks answer, and keeps it for `/metrics`. A database that does not answer leaves the last
/// word; readiness tells of it.
async fn receivers(api: &Api) {
    let health = tokio::time::timeout(PATIENCE, async {
        let mut db = api.db.acquire().await.map_err(webhooks::Error::from)?;
        webhooks::health(&mut db).await
    });
    let Ok(Ok(health)) = health.await else { return };
    for (state, count) in [
        ("all", health.endpoints),
        ("failing", health.failing),
        ("paused", health.paused),
        ("given_up", health.given_up),
    ] {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        metrics::gauge!("muneem_webhooks_endpoints", "state" => state).set(count);
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    tokio::join!(vault(&api), receivers(&api));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render()).into_response()
}
