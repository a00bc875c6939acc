//! Adding and removing passkeys.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    evidence::words,
    people::{
        open_contact,
        signin::{
            self, Warning,
            passkey::{ChallengeId, remove_passkey},
            replace_recovery_codes,
        },
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::Connection;

use super::{
    Console, enter,
    guard::{EnrollingStepUp, Turned},
    security,
};

/// `POST /console/security/passkeys/begin`
pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
) -> Result<Response, Turned> {
    let passkeys = console.passkeys.as_ref().ok_or(Turned::NotFound)?;
    let mut db = console.db.acquire().await?;
    let contact = open_contact(&mut db, &console.vault, who.staff.staff_id).await?.ok_or(Turned::NotFound)?;
    let (staff, now) = (who.staff.staff_id.0, console.clock.now());
    match passkeys.begin_registration(&mut db, staff, &contact.name, now, &*console.chance).await {
        Err(error @ signin::Error::TooManyPasskeys) => Err(Turned::MayNot(error.to_string())),
        begun => {
            let (challenge, options) = begun?;
            Ok(Json(json!({ "challenge": challenge, "options": options })).into_response())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Made {
    challenge: ChallengeId,
    /// What the browser made, JSON.
    answer: String,
    #[serde(default)]
    label: String,
}

/// `POST /console/security/passkeys`
pub(super) async fn finish(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
    Form(form): Form<Made>,
) -> Result<Response, Turned> {
    let passkeys = console.passkeys.as_ref().ok_or(Turned::NotFound)?;
    let not_taken = async |why: &str| {
        let problem = format!("The passkey was not taken: {why}.");
        security::refused(&console, &who, &problem).await
    };
    let Ok(answer) = serde_json::from_str::<Value>(&form.answer) else {
        return not_taken("it cannot be read").await;
    };
    let (staff, now) = (who.staff.staff_id.0, console.clock.now());
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    match passkeys.finish_registration(&mut tx, staff, form.challenge, answer, &form.label, now).await {
        Err(signin::Error::PasskeyRefused(why)) => {
            // The challenge is spent, also by a wrong answer.
            tx.commit().await?;
            drop(db);
            return not_taken(&why).await;
        }
        made => made?,
    }
    let codes = match who.standing.recovery_codes_left {
        0 => Some(replace_recovery_codes(&mut tx, staff, now, &*console.chance).await?),
        _ => None,
    };
    enter::note(&console, &mut tx, &who.staff, words::PASSKEY_ADDED, Value::Null).await?;
    enter::tell(&console, &mut tx, &who.staff, Warning::FactorChanged).await?;
    tx.commit().await?;
    Ok(match codes {
        Some(codes) => security::shown_once(&codes),
        None => Redirect::to("/console/security").into_response(),
    })
}

/// `POST /console/security/passkeys/{id}/remove`
pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    if who.standing.is_last_demanded() {
        let why = "This is your only second factor, and one is demanded: set up another before you take it away.";
        return security::refused(&console, &who, why).await;
    }
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    if !remove_passkey(&mut tx, who.staff.staff_id.0, &id).await? {
        return Err(Turned::NotFound);
    }
    enter::note(&console, &mut tx, &who.staff, words::PASSKEY_REMOVED, Value::Null).await?;
    enter::tell(&console, &mut tx, &who.staff, Warning::FactorChanged).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console/security").into_response())
}
