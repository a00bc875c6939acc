//! Whether this process lives, and whether it can do its work.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use muneem_jobs::evidence;
use serde::Serialize;

use super::Api;

const PATIENCE: Duration = Duration::from_secs(3);

/// One thing that must hold.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
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
    if checks.iter().all(|check| check.ok) {
        let standing = tokio::time::timeout(PATIENCE, async {
            let mut db = api.db.acquire().await.map_err(evidence::Error::from)?;
            evidence::load_standing(&mut db).await
        });
        // A log that went back in time: red until somebody has looked.
        let sound = standing.await.is_ok_and(|standing| standing.is_ok_and(|standing| standing.forked.is_none()));
        checks.push(Check { name: "evidence", ok: sound });
    }
    checks.extend(api.workers_beat.as_ref().map(|beat| Check { name: "workers", ok: beat() }));
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": ready, "checks": checks }))).into_response()
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render()).into_response()
}
