//! What one signs in with, on one page; and recovery codes, which are shown once.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::{
    evidence::words,
    people::{
        oidc::list_providers,
        signin::{Warning, passkey::list_passkeys, replace_recovery_codes},
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use sqlx::Connection;

use super::{
    Console, enter,
    guard::{Enrolling, EnrollingStepUp, SignedIn, Turned},
    pages::{Page, draw},
};

#[derive(Serialize)]
struct Security<'a> {
    problem: Option<&'a str>,
    must_enrol: bool,
    demanded: bool,
    password: bool,
    totp: bool,
    has_second_factor: bool,
    recovery_codes_left: i64,
    passkeys: Vec<Row>,
    passkeys_possible: bool,
    /// Whether there is an identity provider that she may link.
    elsewhere: bool,
}

#[derive(Serialize)]
struct Row {
    id: String,
    label: String,
    made: String,
    used: Option<String>,
    copied: bool,
}

#[derive(Serialize)]
struct Codes<'a> {
    codes: Vec<&'a str>,
}

/// `GET /console/security`
pub(super) async fn show(State(console): State<Arc<Console>>, Enrolling(who): Enrolling) -> Result<Response, Turned> {
    drawn(&console, &who, None).await
}

/// The page again, with what was wrong.
pub(super) async fn refused(console: &Console, who: &SignedIn, problem: &str) -> Result<Response, Turned> {
    let mut response = drawn(console, who, Some(problem)).await?;
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(response)
}

async fn drawn(console: &Console, who: &SignedIn, problem: Option<&str>) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let passkeys = list_passkeys(&mut db, who.staff.staff_id.0).await?.into_iter().map(|passkey| Row {
        id: passkey.credential_id,
        label: passkey.label,
        made: day(passkey.made_at),
        used: passkey.used_at.map(day),
        copied: passkey.suspect_at.is_some(),
    });
    let elsewhere = list_providers(&mut db).await?.iter().any(|provider| provider.is_for(who.staff.business_id));
    let standing = &who.standing;
    let body = Security {
        problem,
        must_enrol: standing.must_enrol(),
        demanded: standing.second_factor_demanded,
        password: standing.password,
        totp: standing.totp,
        has_second_factor: standing.has_second_factor(),
        recovery_codes_left: standing.recovery_codes_left,
        passkeys: passkeys.collect(),
        passkeys_possible: console.passkeys.is_some(),
        elsewhere,
    };
    let script = body.passkeys_possible;
    Ok(draw("security", &Page { title: "What you sign in with", inside: true, script, body }))
}

/// `POST /console/security/recovery`
pub(super) async fn renew_codes(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
) -> Result<Response, Turned> {
    if !who.standing.has_second_factor() {
        let why = "Recovery codes stand in for a second factor: set one up first.";
        return refused(&console, &who, why).await;
    }
    let now = console.clock.now();
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let codes = replace_recovery_codes(&mut tx, who.staff.staff_id.0, now, &*console.chance).await?;
    enter::note(&console, &mut tx, &who.staff, words::RECOVERY_CODES_MADE, Value::Null).await?;
    enter::tell(&console, &mut tx, &who.staff, Warning::FactorChanged).await?;
    tx.commit().await?;
    Ok(shown_once(&codes))
}

/// The page with fresh recovery codes.
pub(super) fn shown_once(codes: &[SecretString]) -> Response {
    let body = Codes { codes: codes.iter().map(ExposeSecret::expose_secret).collect() };
    draw("recovery", &Page { title: "Your recovery codes", inside: true, script: false, body })
}

fn day(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%-d %B %Y").to_string()
}
