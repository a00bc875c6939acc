//! The first factor: a password, or a code sent to the phone or the mail address ([`super::entered`]).
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
        self, Staff, load_business, open_contact,
        signin::{
            self, Channel, CodeId, clear_attempts, find_session, load_credentials, make_code, new_token,
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
    places,
    visitor::Visitor,
};

const WRONG: &str = "The mail address or phone, or the password, is not right.";
/// Passwords that are checked for each attempt, whether or not there are so many: how long it takes tells nothing.
const CHECKED: usize = 2;

/// Where to go afterwards.
#[derive(Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    pub(super) next: String,
}

/// What she typed, carried from page to page.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Typed<'a> {
    pub(super) who: &'a str,
    /// Short name of the business.
    pub(super) place: &'a str,
    pub(super) next: &'a str,
}

#[derive(Serialize)]
struct SignIn<'a> {
    #[serde(flatten)]
    typed: Typed<'a>,
    problem: Option<&'a str>,
    sends_codes: bool,
    /// Identity providers to sign in with instead.
    providers: Vec<oidc::Button>,
}

#[derive(Serialize)]
pub(super) struct Code<'a> {
    #[serde(flatten)]
    typed: Typed<'a>,
    problem: Option<&'a str>,
    by_phone: bool,
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
    drawn(&console, Typed { next, ..Typed::default() }, None).await
}

pub(super) async fn drawn(console: &Console, typed: Typed<'_>, problem: Option<&str>) -> Result<Response, Turned> {
    let providers = oidc::buttons(&mut *console.db.acquire().await?).await?;
    let body = SignIn { typed, problem, sends_codes: console.sends_codes, providers };
    let page = Page { title: "Sign in", inside: false, script: false, body };
    Ok(if problem.is_some() { draw_again("sign_in", &page) } else { draw("sign_in", &page) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identify {
    who: String,
    #[serde(default)]
    password: SecretString,
    /// Short name of the business, for whoever works in several.
    #[serde(default)]
    place: String,
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
    let typed = Typed { who: &form.who, place: &form.place, next: own_path(&form.next) };
    let who = match Who::parse(&form.who) {
        Ok(who) => who,
        Err(mend) => return drawn(&console, typed, Some(mend)).await,
    };
    if form.way == "code" {
        let answer = send_code(&console, &visitor, &who, typed).await;
        tokio::time::sleep_until(begun + console.answer_after).await;
        return answer;
    }
    check_password(&console, &visitor, &who, (typed, &form.password)).await
}

/// What staff of the platform write in the place of a business's short name.
const PLATFORM: &str = "platform";

/// Those of `found` who work in the business with this short name; all, where none was typed.
async fn narrowed(db: &mut PgConnection, mut found: Vec<Staff>, place: &str) -> Result<Vec<Staff>, Turned> {
    let handle = place.trim().to_lowercase();
    if handle.is_empty() {
        return Ok(found);
    }
    // What no business can be called is not looked up.
    let is_name = handle.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let business = match if is_name { Some(load_business(db, &handle).await) } else { None } {
        None | Some(Err(people::Error::NoSuchBusiness(_))) => None,
        Some(found) => Some(found?.business_id),
    };
    found.retain(|staff| match staff.business_id {
        None => handle == PLATFORM,
        own => own == business,
    });
    Ok(found)
}

async fn check_password(
    console: &Console,
    visitor: &Visitor,
    who: &Who,
    (typed, password): (Typed<'_>, &SecretString),
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    // Somebody who works for several businesses may have a password for each.
    let mut candidates = Vec::new();
    let found = who.find(console, &mut db).await?;
    // Whoever has the address is warned, wherever somebody says that she works.
    let warned = found.first().cloned();
    for staff in narrowed(&mut db, found, typed.place).await? {
        if let Some(hash) = load_credentials(&mut db, staff.staff_id.0).await?.password_hash {
            candidates.push((staff, hash));
        }
    }
    let staff = candidates.first().map(|(staff, _)| staff);
    let counted = (
        who.account(console, &mut db).await?,
        attempt::place(console, &mut db, staff.map(|staff| staff.staff_id), visitor).await?,
    );
    attempt::begin(console, &mut db, counted, staff.or(warned.as_ref())).await?;
    // Nobody's connection is held while a password is hashed.
    drop(db);
    let mut right = Vec::new();
    for at in 0..CHECKED {
        let candidate = candidates.get(at);
        let checked = console.passwords.check(password, candidate.map(|(_, hash)| hash.as_str())).await;
        let checked = checked.map_err(|error| Turned::of(error.into(), console.clock.now()))?;
        right.extend(candidate.filter(|_| checked != Checked::Wrong).map(|(staff, hash)| (staff, hash, checked)));
    }
    if right.is_empty() {
        return drawn(console, typed, Some(WRONG)).await;
    }
    let mut db = console.db.acquire().await?;
    clear_attempts(&mut db, counted.0, counted.1).await?;
    for (staff, hash, checked) in &right {
        if let Checked::RightButOld(new) = checked {
            signin::refresh_hash(&mut db, staff.staff_id.0, hash, new).await?;
        }
    }
    let right: Vec<Staff> = right.into_iter().map(|(staff, ..)| staff.clone()).collect();
    match right.as_slice() {
        [staff] => {
            drop(db);
            enter::enter(console, visitor, staff, First::of("password"), typed.next).await
        }
        // Where the same password opens both, and no other place: a row elsewhere with her address may be somebody's
        // invention, and its password is not hers.
        several => places::choose_after_password(console, &mut db, several, (typed.who, typed.next)).await,
    }
}

/// Sends a code if there is somebody to send it to. The answer is the same in any case, and so is its cookie.
async fn send_code(console: &Console, visitor: &Visitor, who: &Who, typed: Typed<'_>) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let found = who.find(console, &mut db).await?;
    let warned = found.first().cloned();
    let found = narrowed(&mut db, found, typed.place).await?;
    let counted = (
        who.account(console, &mut db).await?,
        attempt::place(console, &mut db, found.first().map(|staff| staff.staff_id), visitor).await?,
    );
    attempt::begin(console, &mut db, counted, found.first().or(warned.as_ref())).await?;
    let mut sent = None;
    // One code, by way of the oldest of her places of work that can send any.
    for staff in &found {
        match send_code_by(console, &mut db, staff, (who.channel(), false)).await? {
            Sending::Sent(held) => sent = Some(held),
            Sending::NoWay => continue,
            Sending::Enough => {}
        }
        break;
    }
    let held = sent.unwrap_or_else(|| code_crumb(CodeId(console.chance.uuid_v7(console.clock.now())), console));
    let mut response = draw("code", &code_page(typed, None, who.channel()));
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    enter::add(&mut response, console.keep(Crumb::Device, &visitor.device));
    Ok(response)
}

pub(super) fn code_page<'a>(typed: Typed<'a>, problem: Option<&'a str>, channel: Channel) -> Page<Code<'a>> {
    let body = Code { typed, problem, by_phone: channel == Channel::Phone };
    Page { title: "Enter your code", inside: false, script: false, body }
}

/// What came of sending a code.
pub(super) enum Sending {
    /// It is on its way; what the browser keeps of it.
    Sent(SecretString),
    /// Nothing reaches her.
    NoWay,
    /// As many as somebody gets in an hour were sent.
    Enough,
}

/// Makes and sends a code; what the browser keeps of it. `None`: there is no way to reach her, or enough were sent.
pub(super) async fn send_code_to(
    console: &Console,
    db: &mut PgConnection,
    staff: &Staff,
    wanted: Channel,
) -> Result<Option<SecretString>, Turned> {
    match send_code_by(console, db, staff, (wanted, false)).await? {
        Sending::Sent(held) => Ok(Some(held)),
        Sending::NoWay | Sending::Enough => Ok(None),
    }
}

/// As [`send_code_to`]; with `only`, in no other way than the one that is wanted.
pub(super) async fn send_code_by(
    console: &Console,
    db: &mut PgConnection,
    staff: &Staff,
    (wanted, only): (Channel, bool),
) -> Result<Sending, Turned> {
    let mut tx = db.begin().await?;
    let Some(contact) = open_contact(&mut tx, &console.vault, staff.staff_id).await? else {
        return Ok(Sending::NoWay);
    };
    let ways = messaging::way_to(&mut tx, &contact, console.mails, wanted).await?;
    let Some(way) = ways.first().filter(|way| !only || way.channel() == wanted) else {
        tracing::warn!(people.staff_id = %staff.staff_id, "no way to send somebody a code");
        return Ok(Sending::NoWay);
    };
    let made = make_code(&mut tx, staff.staff_id.0, way.channel(), console.clock.now(), &*console.chance).await;
    let code = match made {
        Err(signin::Error::TooManyCodes { .. }) => return Ok(Sending::Enough),
        made => made?,
    };
    messaging::send_code(&mut tx, &console.desk(), (staff.staff_id, &contact), way, &code).await?;
    tx.commit().await?;
    Ok(Sending::Sent(format!("{}.{}", code.code_id, code.binding.expose_secret()).into()))
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
