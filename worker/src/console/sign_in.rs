//! The first factor: a password, or a code sent to the phone or the mail address.
//!
//! Whether an account exists shows nowhere: the same is counted, looked up and hashed, the pages read alike, and a
//! request for a code is answered after a fixed time.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    messaging,
    people::{
        ContactKind, Staff, StaffId, find_business_by_id, mark_verified, open_contact,
        signin::{
            self, Channel, CodeId, Entered, clear_attempts, find_session, load_credentials, make_code, new_token,
            password::Checked,
        },
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::{
    Console,
    attempt::{self, Who},
    cookies::Crumb,
    enter::{self, First},
    guard::{Turned, own_path},
    oidc,
    pages::{Page, draw, draw_again},
    visitor::Visitor,
};

const WRONG: &str = "The mail address or phone, or the password, is not right.";
const WRONG_CODE: &str = "This code is not right, or does not work any more. A new code ends the one before.";

/// Where to go afterwards.
#[derive(Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    pub(super) next: String,
}

#[derive(Serialize)]
struct SignIn<'a> {
    who: &'a str,
    next: &'a str,
    problem: Option<&'a str>,
    sends_codes: bool,
    /// Identity providers to sign in with instead.
    providers: Vec<oidc::Button>,
}

#[derive(Serialize)]
struct Code<'a> {
    who: &'a str,
    next: &'a str,
    problem: Option<&'a str>,
    by_phone: bool,
}

#[derive(Serialize)]
struct Choose<'a> {
    who: &'a str,
    next: &'a str,
    code: &'a str,
    choices: Vec<Choice>,
}

#[derive(Serialize)]
struct Choice {
    staff_id: StaffId,
    name: String,
    roles: String,
}

/// `GET /console/sign-in`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Query(Next { next }): Query<Next>,
    headers: HeaderMap,
) -> Result<Response, Turned> {
    let next = own_path(&next);
    if let Some(token) = console.crumb(&headers, Crumb::Session) {
        let mut db = console.db.acquire().await?;
        let session = find_session(&mut db, token, console.clock.now()).await?;
        if session.is_some_and(|session| session.level == signin::Level::Full) {
            return Ok(Redirect::to(next).into_response());
        }
    }
    drawn(&console, "", next, None).await
}

async fn drawn(console: &Console, who: &str, next: &str, problem: Option<&str>) -> Result<Response, Turned> {
    let providers = oidc::buttons(&mut *console.db.acquire().await?).await?;
    let body = SignIn { who, next, problem, sends_codes: console.sends_codes, providers };
    let page = Page { title: "Sign in", inside: false, script: false, body };
    Ok(if problem.is_some() { draw_again("sign_in", &page) } else { draw("sign_in", &page) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identify {
    who: String,
    #[serde(default)]
    password: SecretString,
    /// `password` or `code`.
    way: String,
    #[serde(default)]
    next: String,
}

/// `POST /console/sign-in`
pub(super) async fn identify(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Form(form): Form<Identify>,
) -> Result<Response, Turned> {
    let begun = Instant::now();
    let next = own_path(&form.next);
    let who = match Who::parse(&form.who) {
        Ok(who) => who,
        Err(mend) => return drawn(&console, &form.who, next, Some(mend)).await,
    };
    if form.way == "code" {
        let answer = send_code(&console, &visitor, &who, &form.who, next).await;
        tokio::time::sleep_until(begun + console.answer_after).await;
        return answer;
    }
    check_password(&console, &visitor, &who, &form, next).await
}

async fn check_password(
    console: &Console,
    visitor: &Visitor,
    who: &Who,
    form: &Identify,
    next: &str,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    // Somebody who works for several businesses may have a password for each; one is checked, that of the oldest.
    let found = who.find(console, &mut db).await?;
    let mut candidate = None;
    for staff in found {
        if let Some(hash) = load_credentials(&mut db, staff.staff_id.0).await?.password_hash {
            candidate = Some((staff, hash));
            break;
        }
    }
    let staff = candidate.as_ref().map(|(staff, _)| staff);
    let counted = (
        who.account(console, &mut db).await?,
        attempt::place(console, &mut db, staff.map(|staff| staff.staff_id), visitor).await?,
    );
    attempt::begin(console, &mut db, counted, staff).await?;
    // Nobody's connection is held while a password is hashed.
    drop(db);
    let hash = candidate.as_ref().map(|(_, hash)| hash.as_str());
    let checked = console.passwords.check(&form.password, hash).await;
    let checked = checked.map_err(|error| Turned::of(error.into(), console.clock.now()))?;
    let (Some((staff, hash)), Checked::Right | Checked::RightButOld(_)) = (&candidate, &checked) else {
        return drawn(console, &form.who, next, Some(WRONG)).await;
    };
    let mut db = console.db.acquire().await?;
    clear_attempts(&mut db, counted.0, counted.1).await?;
    if let Checked::RightButOld(new) = &checked {
        signin::refresh_hash(&mut db, staff.staff_id.0, hash, new).await?;
    }
    drop(db);
    enter::enter(console, visitor, staff, First::of("password"), next).await
}

/// Sends a code if there is somebody to send it to. The answer is the same in any case, and so is its cookie.
async fn send_code(
    console: &Console,
    visitor: &Visitor,
    who: &Who,
    typed: &str,
    next: &str,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let staff = who.find(console, &mut db).await?.into_iter().next();
    let counted = (
        who.account(console, &mut db).await?,
        attempt::place(console, &mut db, staff.as_ref().map(|staff| staff.staff_id), visitor).await?,
    );
    attempt::begin(console, &mut db, counted, staff.as_ref()).await?;
    let sent = match &staff {
        Some(staff) => send_code_to(console, &mut db, staff, who.channel()).await?,
        None => None,
    };
    let held = sent.unwrap_or_else(|| code_crumb(CodeId(console.chance.uuid_v7(console.clock.now())), console));
    let mut response = draw("code", &code_page(typed, next, None, who.channel()));
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    enter::add(&mut response, console.keep(Crumb::Device, &visitor.device));
    Ok(response)
}

fn code_page<'a>(who: &'a str, next: &'a str, problem: Option<&'a str>, channel: Channel) -> Page<Code<'a>> {
    let body = Code { who, next, problem, by_phone: channel == Channel::Phone };
    Page { title: "Enter your code", inside: false, script: false, body }
}

/// Makes and sends a code; what the browser keeps of it. `None`: there is no way to reach her, or enough were sent.
pub(super) async fn send_code_to(
    console: &Console,
    db: &mut PgConnection,
    staff: &Staff,
    wanted: Channel,
) -> Result<Option<SecretString>, Turned> {
    let mut tx = db.begin().await?;
    let Some(contact) = open_contact(&mut tx, &console.vault, staff.staff_id).await? else { return Ok(None) };
    let ways = messaging::way_to(&mut tx, &contact, console.mails, wanted).await?;
    let Some(way) = ways.first() else {
        tracing::warn!(people.staff_id = %staff.staff_id, "no way to send somebody a code");
        return Ok(None);
    };
    let made = make_code(&mut tx, staff.staff_id.0, way.channel(), console.clock.now(), &*console.chance).await;
    let code = match made {
        Err(signin::Error::TooManyCodes { .. }) => return Ok(None),
        made => made?,
    };
    messaging::send_code(&mut tx, &console.desk(), (staff.staff_id, &contact), way, &code).await?;
    tx.commit().await?;
    Ok(Some(format!("{}.{}", code.code_id, code.binding.expose_secret()).into()))
}

/// What a browser keeps of a code that was never made.
fn code_crumb(id: CodeId, console: &Console) -> SecretString {
    format!("{id}.{}", new_token(&*console.chance).expose_secret()).into()
}

/// Reads what the browser kept of a code.
pub(super) fn held_code(visitor: &Visitor) -> Option<(CodeId, SecretString)> {
    let (id, binding) = visitor.code.as_ref()?.expose_secret().split_once('.')?;
    Some((id.parse().ok()?, binding.to_owned().into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnterCode {
    who: String,
    code: SecretString,
    #[serde(default)]
    next: String,
    /// Who works for several businesses chose one.
    #[serde(default)]
    staff: Option<StaffId>,
}

/// `POST /console/sign-in/code`
pub(super) async fn enter_code(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Form(form): Form<EnterCode>,
) -> Result<Response, Turned> {
    let next = own_path(&form.next);
    let who = match Who::parse(&form.who) {
        Ok(who) => who,
        Err(mend) => return drawn(&console, &form.who, next, Some(mend)).await,
    };
    let again = || draw_again("code", &code_page(&form.who, next, Some(WRONG_CODE), who.channel()));
    let Some((code_id, binding)) = held_code(&visitor) else { return Ok(again()) };
    let mut db = console.db.acquire().await?;
    let digits: String = form.code.expose_secret().chars().filter(|character| !character.is_whitespace()).collect();
    let entered = signin::enter_code(&mut db, code_id, binding.expose_secret(), &digits, console.clock.now()).await?;
    let Entered::Right { staff: proved, channel } = entered else { return Ok(again()) };
    let found = who.find(&console, &mut db).await?;
    let Some(first) = found.iter().find(|staff| staff.staff_id.0 == proved) else { return Ok(again()) };
    let place = attempt::place(&console, &mut db, Some(first.staff_id), &visitor).await?;
    let account = who.account(&console, &mut db).await?;
    clear_attempts(&mut db, account, place).await?;

    // The code proves the phone or the address that it went to, and so whoever of hers has the same.
    let mut hers = if channel == who.channel() { found.clone() } else { vec![first.clone()] };
    if let Some(chosen) = form.staff {
        hers.retain(|staff| staff.staff_id == chosen);
    }
    match hers.as_slice() {
        [] => Ok(again()),
        [staff] => {
            let kind = if channel == Channel::Phone { ContactKind::Phone } else { ContactKind::Email };
            mark_verified(&mut db, staff.staff_id, kind, console.clock.now()).await?;
            drop(db);
            enter::enter(&console, &visitor, staff, First::of("code"), next).await
        }
        several => choose(&console, &mut db, (proved, channel), several, (&form.who, next)).await,
    }
}

/// Asks which business it is to be. The proof goes along as a code that nobody was sent, bound to this browser too.
async fn choose(
    console: &Console,
    db: &mut PgConnection,
    (proved, channel): (uuid::Uuid, Channel),
    several: &[Staff],
    (who, next): (&str, &str),
) -> Result<Response, Turned> {
    let now = console.clock.now();
    let code = make_code(db, proved, channel, now, &*console.chance).await.map_err(|error| Turned::of(error, now))?;
    let mut choices = Vec::new();
    for staff in several {
        let business = match staff.business_id {
            Some(id) => find_business_by_id(db, id).await?.map(|business| business.legal_name),
            None => Some("The platform itself".to_owned()),
        };
        let roles: Vec<_> = staff.roles.iter().map(|role| role.as_str().replace('_', " ")).collect();
        let name = business.unwrap_or_else(|| "A business".to_owned());
        choices.push(Choice { staff_id: staff.staff_id, name, roles: roles.join(", ") });
    }
    let body = Choose { who, next, code: code.code.expose_secret(), choices };
    let mut response = draw("choose", &Page { title: "Where to?", inside: false, script: false, body });
    let held = format!("{}.{}", code.code_id, code.binding.expose_secret()).into();
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    Ok(response)
}
