//! A second factor that is lost: its owner asks, a second person approves, and after a day it goes. Whoever has it still
//! signs in with it and stops that.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{Redirect, Response},
};
use muneem_jobs::{
    evidence::words,
    people::{
        Authority, Scope, StaffId, find_active_staff,
        signin::{
            self, EndFactor, Warning, approve_reset, ask_reset, cancel_reset, desk_of, find_open_reset, find_reset,
        },
    },
    queue::{self, NewJob},
};
use serde::Serialize;
use serde_json::json;
use sqlx::Connection;
use uuid::Uuid;

use super::{
    Console, enter,
    guard::{HalfWay, SignedIn, StepUp, Turned},
    pages::{Page, draw},
};

#[derive(Serialize)]
struct Lost {
    asked: bool,
    approved: bool,
}

/// `GET /console/second-factor/lost`
pub(super) async fn show(State(console): State<Arc<Console>>, who: HalfWay) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let open = find_open_reset(&mut db, who.session.staff_id).await?;
    let approved = open.as_ref().is_some_and(|reset| reset.approved_by.is_some());
    let body = Lost { asked: open.is_some(), approved };
    Ok(draw("lost", &Page { title: "Your second factor is gone?", inside: false, script: false, body }))
}

/// `POST /console/second-factor/lost`
pub(super) async fn ask(State(console): State<Arc<Console>>, who: HalfWay) -> Result<Redirect, Turned> {
    let (staff, now) = (who.session.staff_id, console.clock.now());
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    match ask_reset(&mut tx, staff, staff, now, &*console.chance).await {
        Err(signin::Error::ResetUnderWay) => {}
        asked => {
            let details = json!({ "reset": asked?.reset_id });
            enter::note(&console, &mut tx, &who.staff, words::RESET_ASKED, details).await?;
            enter::tell(&console, &mut tx, &who.staff, Warning::FactorResetAsked).await?;
            tx.commit().await?;
        }
    }
    Ok(Redirect::to("/console/second-factor/lost"))
}

/// `POST /console/resets/{id}/approve`
pub(super) async fn approve(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<Uuid>,
) -> Result<Redirect, Turned> {
    let now = console.clock.now();
    let by = Authority::of_staff(&who.staff);
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let reset = find_reset(&mut tx, id).await?.ok_or(Turned::NotFound)?;
    let hers = find_active_staff(&mut tx, StaffId(reset.staff_id)).await?;
    let hers = hers.filter(|staff| by.sees(staff.business_id)).ok_or(Turned::NotFound)?;
    // Nobody helps into the account of somebody who may do more than she. Staff of the platform may, since a business
    // of one person has no second one: they sign in nowhere by it.
    let reach = if who.staff.business_id.is_some() { hers.scopes() } else { Vec::new() };
    let may = by.require(Scope::StaffWrite).and_then(|()| by.covers(&reach));
    may.map_err(|error| Turned::MayNot(format!("You cannot approve this: {error}.")))?;
    if reset.approved_by.is_some() {
        return Ok(Redirect::to("/console"));
    }
    let approved = approve_reset(&mut tx, id, who.session.staff_id, now).await;
    let approved = approved.map_err(|error| Turned::of(error, now))?;
    let desk = desk_of(&mut tx, hers.business_id).await?.ok_or(Turned::NotFound)?;
    let job = NewJob::of(desk, &EndFactor { reset_id: id }).map_err(signin::Error::from)?;
    let job = job.key(id.to_string()).run_at(approved.due_at.unwrap_or(now));
    queue::enqueue(&mut tx, &job).await.map_err(signin::Error::from)?;
    let details = json!({ "reset": id, "of": hers.staff_id });
    enter::note(&console, &mut tx, &who.staff, words::RESET_APPROVED, details).await?;
    enter::tell(&console, &mut tx, &hers, Warning::FactorResetApproved).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console"))
}

/// `POST /console/resets/{id}/cancel`: by its owner, or by whoever might approve it.
pub(super) async fn cancel(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<Redirect, Turned> {
    let now = console.clock.now();
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    let reset = find_reset(&mut tx, id).await?.ok_or(Turned::NotFound)?;
    if reset.staff_id != who.session.staff_id {
        let by = Authority::of_staff(&who.staff);
        let hers = find_active_staff(&mut tx, StaffId(reset.staff_id)).await?;
        hers.filter(|staff| by.sees(staff.business_id)).ok_or(Turned::NotFound)?;
        by.require(Scope::StaffWrite).map_err(|error| Turned::MayNot(format!("You cannot stop this: {error}.")))?;
    }
    cancel_reset(&mut tx, id, now).await.map_err(|error| Turned::of(error, now))?;
    let details = json!({ "reset": id, "of": reset.staff_id });
    enter::note(&console, &mut tx, &who.staff, words::RESET_CANCELLED, details).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console"))
}
