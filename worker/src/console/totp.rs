//! Setting up an authenticator app: the secret as a picture and in letters, then the first code as proof.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    evidence::words,
    people::{
        open_contact,
        signin::{self, Warning, begin_totp, confirm_totp, end_all_sessions, load_credentials, totp},
    },
    vault::Class,
};
use qrcode::{Color, EcLevel, QrCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use zeroize::Zeroizing;

use super::{
    Console,
    confirm::totp_cell,
    enter,
    guard::{EnrollingStepUp, SignedIn, Turned},
    pages::{Page, draw, draw_again},
    security,
};

#[derive(Serialize)]
struct Totp<'a> {
    /// Modules of the picture's side, with its quiet zone.
    size: usize,
    /// Dark modules, as the path of an SVG.
    dark: &'a str,
    secret: &'a str,
    problem: Option<&'a str>,
}

/// `POST /console/security/totp/begin`
pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
) -> Result<Redirect, Turned> {
    let mut db = console.db.acquire().await?;
    let secret = totp::new_secret(&*console.chance);
    let row = who.staff.staff_id.to_string();
    let sealed = console.vault.seal(&mut db, Class::Credential, &totp_cell(&row), &secret).await?;
    begin_totp(&mut db, who.staff.staff_id.0, &sealed, console.clock.now()).await?;
    Ok(Redirect::to("/console/security/totp"))
}

/// `GET /console/security/totp`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    match pending(&console, &mut db, &who).await? {
        Some((_, secret)) => drawn(&console, &mut db, &who, &secret, None).await,
        None => Ok(Redirect::to("/console/security").into_response()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct First {
    code: SecretString,
}

/// `POST /console/security/totp`
pub(super) async fn confirm(
    State(console): State<Arc<Console>>,
    EnrollingStepUp(who): EnrollingStepUp,
    Form(form): Form<First>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let Some((sealed, secret)) = pending(&console, &mut db, &who).await? else {
        return Ok(Redirect::to("/console/security").into_response());
    };
    let now = console.clock.now();
    let digits: String = form.code.expose_secret().chars().filter(|character| !character.is_whitespace()).collect();
    let Some(step) = totp::check(&secret, &digits, now)? else {
        let problem =
            "This code does not fit. Look whether the clock of your phone is right, and type the newest code.";
        return drawn(&console, &mut db, &who, &secret, Some(problem)).await;
    };
    let staff = who.staff.staff_id.0;
    let mut tx = db.begin().await?;
    let codes = match confirm_totp(&mut tx, staff, &sealed, step, now, &*console.chance).await {
        // Another window began anew.
        Err(signin::Error::NotConfirmed) => return Ok(Redirect::to("/console/security/totp").into_response()),
        codes => codes?,
    };
    end_all_sessions(&mut tx, staff, Some(who.session.session_id), now).await?;
    enter::note(&console, &mut tx, &who.staff, words::TOTP_SET, Value::Null).await?;
    enter::tell(&console, &mut tx, &who.staff, Warning::FactorChanged).await?;
    tx.commit().await?;
    Ok(security::shown_once(&codes))
}

/// The secret that is being set up, as it is kept and in clear.
async fn pending(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
) -> Result<Option<(Vec<u8>, Zeroizing<Vec<u8>>)>, Turned> {
    let credentials = load_credentials(db, who.staff.staff_id.0).await?;
    let Some(sealed) = credentials.totp_pending_sealed else { return Ok(None) };
    let secret = console.vault.open(db, &totp_cell(&who.staff.staff_id.to_string()), &sealed).await?;
    Ok(Some((sealed, secret)))
}

async fn drawn(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    secret: &[u8],
    problem: Option<&str>,
) -> Result<Response, Turned> {
    let contact = open_contact(db, &console.vault, who.staff.staff_id).await?.ok_or(Turned::NotFound)?;
    let account = contact.email.map(|email| email.expose()).or(contact.phone.map(|phone| phone.as_e164().to_owned()));
    let issuer = contact.business_name.as_deref().unwrap_or("muneem");
    let (url, typed) = totp::enrolment(secret, issuer, account.as_deref().unwrap_or("console"));
    let code = QrCode::with_error_correction_level(url.as_bytes(), EcLevel::M).map_err(|_| Turned::Broken)?;
    let (size, dark) = path_of(&code);
    let groups: Vec<_> = typed.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group)).collect();
    let body = Totp { size, dark: &dark, secret: &groups.join(" "), problem };
    let page = Page { title: "Set up an authenticator app", inside: true, script: false, body };
    Ok(if problem.is_some() { draw_again("totp", &page) } else { draw("totp", &page) })
}

/// Modules of a side with four quiet ones around (ISO/IEC 18004), and each dark run as a piece of a path.
fn path_of(code: &QrCode) -> (usize, String) {
    const QUIET: usize = 4;
    let width = code.width();
    let colors = code.to_colors();
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        while x < width {
            let run = row[x..].iter().take_while(|color| **color == Color::Dark).count();
            if run > 0 {
                path.push_str(&format!("M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET));
            }
            x += run.max(1);
        }
    }
    (width + 2 * QUIET, path)
}
