//! One's own sessions: seen, ended singly and all but this one; and signing out.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::{Html, IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use handlebars::Handlebars;
use muneem_jobs::people::signin::{self, Session};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Console,
    guard::{SignedIn, Turned, no_session_cookie},
};

const PAGE: &str = include_str!("../../../templates/console/sessions.html.hbs");

#[derive(Serialize)]
struct Page {
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
    let page = Page { here: row(&who.session), others };
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    let html = engine.render_template(PAGE, &page).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the list of sessions cannot be drawn");
        Turned::Broken
    })?;
    Ok(Html(html).into_response())
}

/// `POST /console/sessions/{id}/end`
pub(super) async fn end(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Redirect, Turned> {
    let id: Uuid = id.parse().map_err(|_| Turned::NotFound)?;
    let mut db = console.db.acquire().await?;
    if signin::end_session(&mut db, who.session.staff_id, id, console.clock.now()).await? {
        Ok(Redirect::to("/console/sessions"))
    } else {
        Err(Turned::NotFound)
    }
}

/// `POST /console/sessions/end-others`
pub(super) async fn end_others(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Redirect, Turned> {
    let mut db = console.db.acquire().await?;
    let keep = Some(who.session.session_id);
    signin::end_all_sessions(&mut db, who.session.staff_id, keep, console.clock.now()).await?;
    Ok(Redirect::to("/console/sessions"))
}

/// `POST /console/sign-out`
pub(super) async fn sign_out(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    signin::end_session(&mut db, who.session.staff_id, who.session.session_id, console.clock.now()).await?;
    Ok(([(header::SET_COOKIE, no_session_cookie())], "You are signed out.\n").into_response())
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
