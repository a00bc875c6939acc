//! Setting and changing a password.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    evidence::words,
    people::signin::{Warning, set_password},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Connection;

use super::{
    Console, enter,
    guard::{EnrollingStepUp, SignedIn, Turned},
    pages::{Page, draw, draw_again},
};

#[derive(Serialize)]
struct PasswordPage<'a> {
    problem: Option<&'a str>,
    has_one: bool,
}

fn page<'a>(who: &SignedIn, problem: Option<&'a str>) -> Page<PasswordPage<'a>> {
    let body = PasswordPage { problem, has_one: who.standing.password };
    Page { title: "A new password", inside: true, script: false, body }
}

/// `GET /console/security/password`
pub(super) async fn show(EnrollingStepUp(who): EnrollingStepUp) -> Response {
    draw("password", &page(&who, None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    password: SecretString,
    again: SecretString,
}

/// `POST /console/security/password`
pub(super) async fn set(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
    Form(form): Form<NewPassword>,
) -> Result<Response, Turned> {
    if form.password.expose_secret() != form.again.expose_secret() {
        return Ok(draw_again("password", &page(&who, Some("The two are not the same: type the new password twice."))));
    }
    let hash = match keep(&console, &form.password).await? {
        Ok(hash) => hash,
        Err(weak) => return Ok(draw_again("password", &page(&who, Some(&weak)))),
    };
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let (staff, here) = (who.staff.staff_id.0, who.session.session_id);
    set_password(&mut tx, staff, &hash, Some(here), console.clock.now()).await?;
    enter::note(&console, &mut tx, &who.staff, words::PASSWORD_SET, Value::Null).await?;
    enter::tell(&console, &mut tx, &who.staff, Warning::PasswordChanged).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console/security").into_response())
}

/// The hash to keep, or why it may not be a password, as a sentence.
pub(super) async fn keep(console: &Console, password: &SecretString) -> Result<Result<String, String>, Turned> {
    let kept = console.passwords.keep(password).await;
    let kept = kept.map_err(|error| Turned::of(error.into(), console.clock.now()))?;
    Ok(kept.map_err(|weak| {
        let mut words = weak.to_string();
        words[..1].make_ascii_uppercase();
        words.push('.');
        words
    }))
}
