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
        ContactKind, Staff, StaffId, find_active_staff, mark_verified, open_contact,
        signin::{
            self, Channel, CodeId, Entered, clear_attempts, find_session, find_standing, load_credentials, make_code,
            new_token, note_stale_phone, password::Checked, settle_stale_phone,
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
use crate::refusals::Reason;

const WRONG: &str = "The mail address or phone, or the password, is not right.";
/// Passwords that are checked for each attempt, whether or not there are so many: how long it takes tells nothing.
const CHECKED: usize = 2;
const STALE: &str = "Nobody has confirmed this number for 90 days or more, and numbers that are given up go to other people: a code to it \
                     alone opens nothing. Sign in with your mail address, a password or an identity provider, or ask \
                     whoever added you for a new link.";
const STALE_MAIL: &str = "Nobody has confirmed this number for 90 days or more, and numbers that are given up go to other people. Another \
                          code is on its way to your mail address: enter that one.";
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
    // Somebody who works for several businesses may have a password for each.
    let mut candidates = Vec::new();
    for staff in who.find(console, &mut db).await? {
        if let Some(hash) = load_credentials(&mut db, staff.staff_id.0).await?.password_hash {
            candidates.push((staff, hash));
        }
    }
    let staff = candidates.first().map(|(staff, _)| staff);
    let counted = (
        who.account(console, &mut db).await?,
        attempt::place(console, &mut db, staff.map(|staff| staff.staff_id), visitor).await?,
    );
    attempt::begin(console, &mut db, counted, staff).await?;
    // Nobody's connection is held while a password is hashed.
    drop(db);
    let mut right = Vec::new();
    for at in 0..CHECKED {
        let candidate = candidates.get(at);
        let checked = console.passwords.check(&form.password, candidate.map(|(_, hash)| hash.as_str())).await;
        let checked = checked.map_err(|error| Turned::of(error.into(), console.clock.now()))?;
        right.extend(candidate.filter(|_| checked != Checked::Wrong).map(|(staff, hash)| (staff, hash, checked)));
    }
    if right.is_empty() {
        return drawn(console, &form.who, next, Some(WRONG)).await;
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
            enter::enter(console, visitor, staff, First::of("password"), next).await
        }
        // Where the same password opens both, and no other place: a row elsewhere with her address may be somebody's
        // invention, and its password is not hers.
        several => places::choose_after_password(console, &mut db, several, (&form.who, next)).await,
    }
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
    send_code_by(console, db, staff, (wanted, false)).await
}

/// As [`send_code_to`]; with `only`, in no other way than the one that is wanted.
async fn send_code_by(
    console: &Console,
    db: &mut PgConnection,
    staff: &Staff,
    (wanted, only): (Channel, bool),
) -> Result<Option<SecretString>, Turned> {
    let mut tx = db.begin().await?;
    let Some(contact) = open_contact(&mut tx, &console.vault, staff.staff_id).await? else { return Ok(None) };
    let ways = messaging::way_to(&mut tx, &contact, console.mails, wanted).await?;
    let Some(way) = ways.first().filter(|way| !only || way.channel() == wanted) else {
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
    /// Who shares the phone or the address with others said who she is.
    #[serde(default)]
    name: String,
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
    let (proved, channel) = match entered {
        Entered::Right { staff, channel } => (staff, channel),
        Entered::Choice { places } => {
            let chosen = form.staff.filter(|chosen| places.contains(&chosen.0));
            let Some(chosen) = chosen else { return Ok(again()) };
            let Some(staff) = find_active_staff(&mut db, chosen).await? else { return Ok(again()) };
            drop(db);
            return enter::enter(&console, &visitor, &staff, First::of("password"), next).await;
        }
        Entered::Wrong { .. } | Entered::Void => return Ok(again()),
    };
    let found = who.find(&console, &mut db).await?;
    let Some(first) = found.iter().find(|staff| staff.staff_id.0 == proved) else { return Ok(again()) };
    let place = attempt::place(&console, &mut db, Some(first.staff_id), &visitor).await?;
    let account = who.account(&console, &mut db).await?;
    clear_attempts(&mut db, account, place).await?;

    // The code proves the phone or the address that it went to, and so whoever of hers has the same.
    let proof = Proof { staff: proved, channel, who: &form.who, next };
    let mut hers = if channel == who.channel() { found.clone() } else { vec![first.clone()] };
    if hers.len() > 1 {
        match places::of_person(&console, &mut db, hers, &form.name).await? {
            Some(of_hers) => hers = of_hers,
            None if form.name.trim().is_empty() => return places::ask_name(&console, &mut db, &proof).await,
            None => return Ok(again()),
        }
    }
    let now = console.clock.now();
    // Of one person the place counts where she proved it last.
    let is_stale = channel == Channel::Phone && hers.iter().all(|staff| staff.phone_stale_since(now).is_some());
    if let Some(chosen) = form.staff {
        hers.retain(|staff| staff.staff_id == chosen);
    }
    match hers.as_slice() {
        [] => Ok(again()),
        // Which business somebody works for is not shown either to whoever has her number now.
        [staff, ..] if is_stale => half_proved(&console, &visitor, &mut db, staff, &proof).await,
        [staff] => {
            let kind = if channel == Channel::Phone { ContactKind::Phone } else { ContactKind::Email };
            mark_verified(&mut db, staff.staff_id, kind, now).await?;
            if channel == Channel::Email {
                settle_stale_phone(&mut db, staff.staff_id.0, &visitor.device, now).await?;
            }
            drop(db);
            enter::enter(&console, &visitor, staff, First::of("code"), next).await
        }
        several => places::choose_after_code(&console, &mut db, several, &proof, &form.name).await,
    }
}

/// What a code proved.
pub(super) struct Proof<'a> {
    /// To whom it was sent.
    pub(super) staff: uuid::Uuid,
    pub(super) channel: Channel,
    /// What she typed to say who she is.
    pub(super) who: &'a str,
    pub(super) next: &'a str,
}

/// A code to a phone that may be somebody else's by now was right: on by way of the second factor, or of a code to her
/// mail address, and no further where there is neither.
async fn half_proved(
    console: &Console,
    visitor: &Visitor,
    db: &mut PgConnection,
    staff: &Staff,
    proof: &Proof<'_>,
) -> Result<Response, Turned> {
    note_stale_phone(db, staff.staff_id.0, &visitor.device, console.clock.now()).await?;
    let standing = find_standing(db, staff.staff_id.0).await?;
    if standing.is_some_and(|standing| standing.has_second_factor()) {
        return enter::enter(console, visitor, staff, First::of("code"), proof.next).await;
    }
    let Some(held) = send_code_by(console, db, staff, (Channel::Email, true)).await? else {
        let mut refused = draw_again("code", &code_page(proof.who, proof.next, Some(STALE), proof.channel));
        refused.extensions_mut().insert(Reason("console.stale_phone"));
        return Ok(refused);
    };
    let mut response = draw("code", &code_page(proof.who, proof.next, Some(STALE_MAIL), Channel::Email));
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    Ok(response)
}
