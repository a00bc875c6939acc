//! Proving a factor: the second one while signing in, and any one anew for what asks for it. Both pages are the same
//! form: an authenticator's code or a recovery code, a passkey, and, for those who have neither, the password or a code
//! that is sent.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use muneem_jobs::{
    evidence::words,
    people::{
        Staff,
        signin::{
            self, Channel, Entered, Standing, Warning, clear_attempts, load_credentials,
            passkey::{ChallengeId, Proof},
            password::Checked,
            settle_stale_phone, totp, use_recovery_code, use_totp_step,
        },
    },
    vault::{Cell, INSTALLATION},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    attempt::{self, account_of},
    cookies::Crumb,
    enter,
    guard::{Enrolling, HalfWay, Turned, own_path},
    pages::{Page, draw, draw_again},
    sign_in::{Next, held_code, send_code_to},
    visitor::Visitor,
};

const WRONG: &str = "That is not right. A code of the app works once, and only for about half a minute.";

#[derive(Serialize)]
struct ProofForm<'a> {
    next: &'a str,
    problem: Option<&'a str>,
    /// Where the form goes.
    action: &'static str,
    totp: bool,
    recovery: bool,
    passkey: bool,
    password: bool,
    sends_codes: bool,
    code_sent: bool,
    /// Whether it is the second factor that is asked for.
    second: bool,
}

/// What somebody proves a factor with: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proving {
    /// Of the app, or a recovery code.
    #[serde(default)]
    code: SecretString,
    #[serde(default)]
    password: SecretString,
    /// A code that was sent.
    #[serde(default)]
    sent: SecretString,
    #[serde(default)]
    challenge: Option<ChallengeId>,
    /// The browser's answer to the challenge, JSON.
    #[serde(default)]
    answer: String,
    #[serde(default)]
    next: String,
}

fn page<'a>(
    console: &Console,
    standing: &Standing,
    (second, code_sent): (bool, bool),
    next: &'a str,
    problem: Option<&'a str>,
) -> Page<ProofForm<'a>> {
    let has_second = standing.has_second_factor();
    let body = ProofForm {
        next,
        problem,
        action: if second { "/console/second-factor" } else { "/console/confirm" },
        totp: standing.totp,
        recovery: standing.recovery_codes_left > 0,
        passkey: standing.passkeys > 0 && console.passkeys.is_some(),
        password: !has_second && standing.password,
        sends_codes: !has_second && console.sends_codes,
        code_sent,
        second,
    };
    let title = if second { "Your second factor" } else { "Is it still you?" };
    Page { title, inside: !second, script: body.passkey, body }
}

/// `GET /console/second-factor`
pub(super) async fn show_second(
    State(console): State<Arc<Console>>,
    Query(Next { next }): Query<Next>,
    who: HalfWay,
) -> Response {
    draw("second_factor", &page(&console, &who.standing, (true, false), own_path(&next), None))
}

/// `GET /console/confirm`
pub(super) async fn show_again(
    State(console): State<Arc<Console>>,
    Query(Next { next }): Query<Next>,
    Enrolling(who): Enrolling,
) -> Response {
    draw("confirm", &page(&console, &who.standing, (false, false), own_path(&next), None))
}

/// `POST /console/second-factor`
pub(super) async fn prove_second(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    who: HalfWay,
    headers: HeaderMap,
    Form(form): Form<Proving>,
) -> Result<Response, Turned> {
    let next = own_path(&form.next);
    match prove(&console, &visitor, (&who.staff, &who.standing), &form).await? {
        Some(factor) => {
            let mut db = console.db.acquire().await?;
            settle_stale_phone(&mut db, who.staff.staff_id.0, &visitor.device, console.clock.now()).await?;
            drop(db);
            complete(&console, &visitor, (&who.staff, &headers), factor, next).await
        }
        None => Ok(draw_again("second_factor", &page(&console, &who.standing, (true, false), next, Some(WRONG)))),
    }
}

/// `POST /console/confirm`
pub(super) async fn prove_again(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Enrolling(who): Enrolling,
    headers: HeaderMap,
    Form(form): Form<Proving>,
) -> Result<Response, Turned> {
    let next = own_path(&form.next);
    match prove(&console, &visitor, (&who.staff, &who.standing), &form).await? {
        Some(factor) => complete(&console, &visitor, (&who.staff, &headers), factor, next).await,
        None => {
            let sent = !form.sent.expose_secret().is_empty();
            Ok(draw_again("confirm", &page(&console, &who.standing, (false, sent), next, Some(WRONG))))
        }
    }
}

async fn complete(
    console: &Console,
    visitor: &Visitor,
    (staff, headers): (&Staff, &HeaderMap),
    factor: &'static str,
    next: &str,
) -> Result<Response, Turned> {
    let token = console.crumb(headers, Crumb::Session).ok_or(Turned::NotSignedIn(None))?;
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let opened = enter::complete(console, &mut tx, visitor, (staff, token), factor).await?;
    tx.commit().await?;
    Ok(enter::led(console, visitor, &opened, next))
}

/// Looks at one proof. The attempt is counted before, and taken back when it was right. Answers which factor it was.
async fn prove(
    console: &Console,
    visitor: &Visitor,
    (staff, standing): (&Staff, &Standing),
    form: &Proving,
) -> Result<Option<&'static str>, Turned> {
    let mut db = console.db.acquire().await?;
    let counted = (account_of(staff.staff_id), attempt::place(console, &mut db, Some(staff.staff_id), visitor).await?);
    attempt::begin(console, &mut db, counted, Some(staff)).await?;
    let has_second = standing.has_second_factor();
    let factor = match form.challenge {
        Some(challenge) => passkey(console, &mut db, staff, (challenge, &form.answer)).await?,
        None if has_second => code(console, &mut db, (staff, standing), form.code.expose_secret()).await?,
        None if !form.sent.expose_secret().is_empty() => sent(console, &mut db, (staff, visitor), &form.sent).await?,
        None => {
            let kept = load_credentials(&mut db, staff.staff_id.0).await?.password_hash;
            let checked = console.passwords.check(&form.password, kept.as_deref()).await;
            let checked = checked.map_err(|error| Turned::of(error.into(), console.clock.now()))?;
            (checked != Checked::Wrong).then_some("password")
        }
    };
    if factor.is_some() {
        clear_attempts(&mut db, counted.0, counted.1).await?;
    }
    Ok(factor)
}

/// An authenticator's code, else a recovery code: nobody has to say which.
async fn code(
    console: &Console,
    db: &mut PgConnection,
    (staff, standing): (&Staff, &Standing),
    typed: &str,
) -> Result<Option<&'static str>, Turned> {
    let now = console.clock.now();
    let digits: String = typed.chars().filter(|character| !character.is_whitespace()).collect();
    if standing.totp
        && let Some(sealed) = load_credentials(db, staff.staff_id.0).await?.totp_sealed
    {
        let secret = console.vault.open(db, &totp_cell(&staff.staff_id.to_string()), &sealed).await?;
        if let Some(step) = totp::check(&secret, &digits, now)?
            && use_totp_step(db, staff.staff_id.0, step).await?
        {
            return Ok(Some("totp"));
        }
    }
    let mut tx = db.begin().await?;
    if !use_recovery_code(&mut tx, staff.staff_id.0, typed, now).await? {
        return Ok(None);
    }
    let left = standing.recovery_codes_left - 1;
    enter::note(console, &mut tx, staff, words::RECOVERY_CODE_USED, json!({ "left": left })).await?;
    enter::tell(console, &mut tx, staff, Warning::RecoveryCodeUsed).await?;
    tx.commit().await?;
    Ok(Some("recovery_code"))
}

/// Where an authenticator's secret stands; while it is set up it is sealed for the same cell.
pub(super) fn totp_cell(staff: &str) -> Cell<'_> {
    Cell { business_id: INSTALLATION, table: "muneem.people_credentials", column: "totp_sealed", row: staff }
}

async fn passkey(
    console: &Console,
    db: &mut PgConnection,
    staff: &Staff,
    (challenge, answer): (ChallengeId, &str),
) -> Result<Option<&'static str>, Turned> {
    let Some(passkeys) = &console.passkeys else { return Ok(None) };
    let Ok(answer) = serde_json::from_str::<Value>(answer) else { return Ok(None) };
    match passkeys.finish_proof(db, staff.staff_id.0, challenge, answer, console.clock.now()).await? {
        Proof::Right => Ok(Some("passkey")),
        Proof::Wrong => Ok(None),
        Proof::Copied(_) => {
            let mut tx = db.begin().await?;
            enter::note(console, &mut tx, staff, words::PASSKEY_COPIED, Value::Null).await?;
            enter::tell(console, &mut tx, staff, Warning::PasskeyCopied).await?;
            tx.commit().await?;
            Ok(None)
        }
    }
}

async fn sent(
    console: &Console,
    db: &mut PgConnection,
    (staff, visitor): (&Staff, &Visitor),
    typed: &SecretString,
) -> Result<Option<&'static str>, Turned> {
    let Some((code_id, binding)) = held_code(visitor) else { return Ok(None) };
    let digits: String = typed.expose_secret().chars().filter(|character| !character.is_whitespace()).collect();
    let entered = signin::enter_code(db, code_id, binding.expose_secret(), &digits, console.clock.now()).await?;
    let right = matches!(entered, Entered::Right { staff: proved, .. } if proved == staff.staff_id.0);
    Ok(right.then_some("code"))
}

/// `POST /console/confirm/code`: sends a code to somebody who has no second factor.
pub(super) async fn send_code_again(
    State(console): State<Arc<Console>>,
    Enrolling(who): Enrolling,
    Form(Next { next }): Form<Next>,
) -> Result<Response, Turned> {
    let next = own_path(&next);
    let mut db = console.db.acquire().await?;
    let sent = if who.standing.has_second_factor() {
        None
    } else {
        send_code_to(&console, &mut db, &who.staff, Channel::Email).await?
    };
    let Some(held) = sent else {
        let problem = "No code can be sent just now: five an hour are the most.";
        return Ok(draw_again("confirm", &page(&console, &who.standing, (false, false), next, Some(problem))));
    };
    let mut response = draw("confirm", &page(&console, &who.standing, (false, true), next, None));
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    Ok(response)
}

/// `POST /console/second-factor/passkey`
pub(super) async fn begin_passkey_second(
    State(console): State<Arc<Console>>,
    who: HalfWay,
) -> Result<Response, Turned> {
    begin_passkey(&console, &who.staff).await
}

/// `POST /console/confirm/passkey`
pub(super) async fn begin_passkey_again(
    State(console): State<Arc<Console>>,
    Enrolling(who): Enrolling,
) -> Result<Response, Turned> {
    begin_passkey(&console, &who.staff).await
}

async fn begin_passkey(console: &Console, staff: &Staff) -> Result<Response, Turned> {
    let passkeys = console.passkeys.as_ref().ok_or(Turned::NotFound)?;
    let mut db = console.db.acquire().await?;
    let begun = passkeys.begin_proof(&mut db, staff.staff_id.0, console.clock.now(), &*console.chance).await?;
    let (challenge, options) = begun.ok_or(Turned::NotFound)?;
    Ok(Json(json!({ "challenge": challenge, "options": options })).into_response())
}
