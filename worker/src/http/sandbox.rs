//! `POST /sandbox/clock`: moves the clock of every process on this database, so that a story of 72 hours can be walked
//! in a minute. The address exists in sandbox mode alone; nothing is real there, so no token is asked for.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    routing::post,
};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{law, outbound::Clock};
use serde::{Deserialize, Serialize};

use super::{
    Api, body,
    problem::{Problem, ProblemId},
};
use crate::outbound::clock::MovedClock;

/// A hundred years either way: past that, dates of law and of Postgres mean nothing to anybody.
const FURTHEST: TimeDelta = TimeDelta::days(36_525);

/// What the address needs.
#[derive(Clone)]
pub struct ClockRoom {
    /// The API's own things.
    pub api: Arc<Api>,
    /// This process's clock; those of other processes follow the row.
    pub clock: MovedClock,
}

/// `POST /sandbox/clock`.
pub fn routes(room: ClockRoom) -> Router {
    Router::new().route("/sandbox/clock", post(move_clock)).with_state(room)
}

/// One of both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    /// Seconds from where the clock stands; negative is back.
    advance_secs: Option<i64>,
    /// Seconds from the machine's time; 0 puts it right.
    moved_by_secs: Option<i64>,
}

#[derive(Serialize)]
struct Moved {
    now: DateTime<Utc>,
    moved_by_secs: i64,
}

async fn move_clock(State(room): State<ClockRoom>, request: Request<Body>) -> Result<Json<Moved>, Problem> {
    let api = &room.api;
    let (parts, stream) = request.into_parts();
    let asked: Move = body::parse(&body::read(&parts.headers, stream, api.settings.body_limit_bytes).await?)?;
    let (field, secs) = match asked {
        Move { advance_secs: Some(secs), moved_by_secs: None } => ("advance_secs", secs),
        Move { advance_secs: None, moved_by_secs: Some(secs) } => ("moved_by_secs", secs),
        _ => {
            return Err(Problem::field(
                ProblemId::BadBody,
                "",
                "exactly one of `advance_secs` and `moved_by_secs` is needed",
                "send {\"advance_secs\": 3600} to go an hour on, {\"moved_by_secs\": 0} to come back",
            ));
        }
    };
    let mut tx = api.db.begin().await?;
    let base = if field == "advance_secs" { law::hold_clock(&mut tx).await? } else { TimeDelta::zero() };
    let moved_by = TimeDelta::try_seconds(secs)
        .and_then(|by| base.checked_add(&by))
        .filter(|moved_by| moved_by.abs() <= FURTHEST)
        .ok_or_else(|| {
            let mend = "stay within 100 years of the machine's time: 3155760000 seconds";
            Problem::field(ProblemId::BadBody, field, "moves the clock too far", mend)
        })?;
    law::move_clock(&mut tx, moved_by).await?;
    tx.commit().await?;
    room.clock.set_offset(moved_by);
    Ok(Json(Moved { now: room.clock.now(), moved_by_secs: moved_by.num_seconds() }))
}
