//! One's own sessions: seen, ended singly and all but this one; and signing out.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::{
    evidence::words,
    people::signin::{self, Session},
};
use serde::Serialize;
use serde_json::json;
use sqlx::Connection;
use uuid::Uuid;

use super::{
    Console,
    cookies::Crumb,
    enter,
    guard::{Leaving, SignedIn, Turned},
    pages::{Page, draw},
};

#[derive(Serialize)]
struct Sessions {
    here: Row,
    others: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    name: String,
    opened: String,
    seen: String,
}

/// `GET /console/sessions`
pub(super) async fn list(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let all = signin::list_sessions(&mut db, who.session.staff_id, console.clock.now()).await?;
    let others = all.iter().filter(|session| session.session_id != who.session.session_id).map(row).collect();
    let body = Sessions { here: row(&who.session), others };
    Ok(draw("sessions", &Page { title: "Where you are signed in", inside: true, script: false, body }))
}

/// `POST /console/sessions/{id}/end`
pub(super) async fn end(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Redirect, Turned> {
    let id: Uuid = id.parse().map_err(|_| Turned::NotFound)?;
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    if !signin::end_session(&mut tx, who.session.staff_id, id, console.clock.now()).await? {
        return Err(Turned::NotFound);
    }
    enter::note(&console, &mut tx, &who.staff, words::SESSIONS_ENDED, json!({ "session": id })).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console/sessions"))
}

/// `POST /console/sessions/end-others`
pub(super) async fn end_others(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Redirect, Turned> {
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let keep = Some(who.session.session_id);
    let ended = signin::end_all_sessions(&mut tx, who.session.staff_id, keep, console.clock.now()).await?;
    enter::note(&console, &mut tx, &who.staff, words::SESSIONS_ENDED, json!({ "count": ended })).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console/sessions"))
}

/// `POST /console/sign-out`: also before the second factor.
pub(super) async fn sign_out(State(console): State<Arc<Console>>, who: Leaving) -> Result<Response, Turned> {
    let (staff, session) = (who.session.staff_id, who.session.session_id);
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    if signin::end_session(&mut tx, staff, session, console.clock.now()).await? {
        enter::note(&console, &mut tx, &who.staff, words::SIGNED_OUT, json!({ "session": session })).await?;
    }
    tx.commit().await?;
    let mut response = Redirect::to("/console/sign-in").into_response();
    enter::add(&mut response, console.forget(Crumb::Session));
    Ok(response)
}

fn row(session: &Session) -> Row {
    let name = Some(session.device_name.trim()).filter(|name| !name.is_empty()).unwrap_or("A browser");
    Row {
        id: session.session_id,
        name: name.to_owned(),
        opened: shown(session.opened_at),
        seen: shown(session.seen_at),
    }
}

fn shown(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M").to_string()
}
