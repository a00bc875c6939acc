//! Opening sessions, and what follows from one that was opened: its cookie, its evidence, its warning.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    evidence::{Actor, Word, words},
    people::{
        Staff,
        signin::{
            self, Deed, Level, NewSession, Opened, Warning, desk_of, find_standing, open_session, record,
            renew_session, see_country, warn_about,
        },
    },
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    cookies::Crumb,
    guard::{Turned, escape, own_path},
    visitor::Visitor,
};

/// A first factor that was proved.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    /// As the evidence names it.
    name: &'static str,
    /// Whether a second one was proved with it, by somebody who is trusted with that.
    with_second: bool,
}

impl First {
    /// This factor alone.
    pub(super) const fn of(name: &'static str) -> Self {
        Self { name, with_second: false }
    }

    /// This one, and a second one with it.
    pub(super) const fn both(name: &'static str) -> Self {
        Self { name, with_second: true }
    }
}

/// The first factor was proved: opens a session, whole where no second factor is to come, and leads on.
pub(super) async fn enter(
    console: &Console,
    visitor: &Visitor,
    staff: &Staff,
    factor: First,
    next: &str,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let opened = open(console, &mut tx, visitor, staff, factor).await?;
    tx.commit().await?;
    Ok(lead_on(console, visitor, &opened, next))
}

/// On to `next`, by way of the second factor where it is still to come.
pub(super) fn lead_on(console: &Console, visitor: &Visitor, opened: &Opened, next: &str) -> Response {
    let next = own_path(next);
    let to = match opened.session.level {
        Level::First => format!("/console/second-factor?next={}", escape(next)),
        Level::Full => next.to_owned(),
    };
    led(console, visitor, opened, &to)
}

/// As [`enter`], in the caller's transaction.
pub(super) async fn open(
    console: &Console,
    tx: &mut PgConnection,
    visitor: &Visitor,
    staff: &Staff,
    factor: First,
) -> Result<Opened, Turned> {
    let standing = find_standing(tx, staff.staff_id.0).await?.ok_or(Turned::NotFound)?;
    let is_whole = factor.with_second || !standing.has_second_factor();
    let level = if is_whole { Level::Full } else { Level::First };
    let new = NewSession { staff_id: staff.staff_id.0, level, device: &visitor.device, device_name: &visitor.browser };
    let opened = open_session(tx, &new, console.clock.now(), &*console.chance).await?;
    if level == Level::Full {
        signed_in(console, tx, visitor, (staff, &opened), factor.name).await?;
    }
    Ok(opened)
}

/// The second factor was proved: a whole session takes the place of the half one.
pub(super) async fn complete(
    console: &Console,
    tx: &mut PgConnection,
    visitor: &Visitor,
    (staff, token): (&Staff, &str),
    factor: &'static str,
) -> Result<Opened, Turned> {
    let now = console.clock.now();
    let opened = renew_session(tx, token, now, &*console.chance).await.map_err(|error| Turned::of(error, now))?;
    signed_in(console, tx, visitor, (staff, &opened), factor).await?;
    Ok(opened)
}

async fn signed_in(
    console: &Console,
    tx: &mut PgConnection,
    visitor: &Visitor,
    (staff, opened): (&Staff, &Opened),
    factor: &'static str,
) -> Result<(), Turned> {
    let session_id = opened.session.session_id;
    let details = json!({ "session": session_id, "factor": factor, "new_device": opened.new_device });
    note(console, tx, staff, words::SIGNED_IN, details).await?;
    let abroad = match &visitor.country {
        Some(country) => see_country(tx, staff.staff_id.0, &visitor.device, country).await?,
        None => false,
    };
    let warning = match (abroad, opened.new_device) {
        (true, _) => Warning::NewCountry,
        (false, true) => Warning::NewDevice,
        (false, false) => return Ok(()),
    };
    if let Some(desk) = desk_of(tx, staff.business_id).await? {
        warn_about(tx, desk, staff.staff_id, warning, (console.clock.now(), Some(session_id))).await?;
    }
    Ok(())
}

/// The answer that leads on with the session's cookie. A code that was waited for is over.
pub(super) fn led(console: &Console, visitor: &Visitor, opened: &Opened, to: &str) -> Response {
    with_session(console, visitor, opened, Redirect::to(to).into_response())
}

/// `response` with the cookies of a session that was opened.
pub(super) fn with_session(console: &Console, visitor: &Visitor, opened: &Opened, mut response: Response) -> Response {
    add(&mut response, console.keep(Crumb::Session, &opened.token));
    add(&mut response, console.keep(Crumb::Device, &visitor.device));
    add(&mut response, console.forget(Crumb::Code));
    response
}

pub(super) fn add(response: &mut Response, cookie: HeaderValue) {
    response.headers_mut().append(header::SET_COOKIE, cookie);
}

/// Writes what somebody did with what she signs in with into the evidence.
pub(super) async fn note(
    console: &Console,
    tx: &mut PgConnection,
    staff: &Staff,
    verb: Word,
    details: Value,
) -> Result<(), Turned> {
    let deed = Deed {
        actor: Actor::Staff(staff.staff_id.0),
        verb,
        staff_id: staff.staff_id,
        business_id: staff.business_id,
        details,
    };
    Ok(record(tx, deed, console.clock.now(), &*console.chance).await?)
}

/// Has her told what happened to her access.
pub(super) async fn tell(
    console: &Console,
    tx: &mut PgConnection,
    staff: &Staff,
    warning: Warning,
) -> Result<(), Turned> {
    if let Some(desk) = desk_of(tx, staff.business_id).await? {
        signin::warn(tx, desk, staff.staff_id, warning, console.clock.now()).await?;
    }
    Ok(())
}
