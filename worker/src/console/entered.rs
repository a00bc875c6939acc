//! A code was entered: who that proves somebody to be, and where it lets her in.
//!
//! It proves that she reads the mail that it was sent to; and, towards the business whose account carried it, that she
//! holds the phone. A phone that nobody confirmed for ninety days may be a stranger's by now: each place of work is judged
//! by its own row, since a row elsewhere with her number may be somebody's invention.

use std::sync::Arc;

use axum::{Extension, Form, extract::State, response::Response};
use muneem_jobs::{
    evidence::words,
    people::{
        ContactKind, Staff, StaffId, find_active_staff, mark_verified,
        signin::{
            self, Channel, Entered, Parked, Warning, clear_attempts, find_standing, note_stale_phone,
            settle_stale_phone,
        },
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    attempt::{self, Who},
    cookies::Crumb,
    enter::{self, First},
    guard::{Turned, own_path},
    pages::{draw, draw_again},
    places,
    sign_in::{Sending, Typed, code_page, drawn, held_code, send_code_by},
    visitor::Visitor,
};
use crate::refusals::{Asker, Known, Reason};

const STALE: &str = "Nobody has confirmed this number for 90 days or more, and numbers that are given up go to other people: a code to it \
                     alone opens nothing. Sign in with your mail address, a password or an identity provider, or ask \
                     whoever added you for a new link.";
const STALE_MAIL: &str = "Nobody has confirmed this number for 90 days or more, and numbers that are given up go to other people. Another \
                          code is on its way to your mail address: enter that one.";
const WRONG_CODE: &str = "This code is not right, or does not work any more. A new code ends the one before.";
const NO_SUCH_NAME: &str = "None of the names was that of somebody who is reached here. Ask whoever added you how your \
                            name is written, and have a new code sent.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnterCode {
    who: String,
    code: SecretString,
    /// Short name of the business whose account is to carry another code.
    #[serde(default)]
    place: String,
    #[serde(default)]
    next: String,
    /// Who works for several businesses chose one.
    #[serde(default)]
    staff: Option<StaffId>,
    /// Who shares the phone or the address with others said who she is.
    #[serde(default)]
    name: String,
}

/// What a code proved, and what she typed beside it.
pub(super) struct Proof<'a> {
    pub(super) parked: Parked,
    pub(super) typed: Typed<'a>,
    /// What she typed to say which of several people she is.
    pub(super) name: &'a str,
}

/// `POST /console/sign-in/code`
pub(super) async fn enter_code(
    State(console): State<Arc<Console>>,
    Extension(asker): Extension<Asker>,
    visitor: Visitor,
    Form(form): Form<EnterCode>,
) -> Result<Response, Turned> {
    let next = own_path(&form.next);
    let typed = Typed { who: &form.who, place: &form.place, next };
    let who = match Who::parse(&form.who) {
        Ok(who) => who,
        Err(mend) => return drawn(&console, typed, Some(mend)).await,
    };
    let again = || draw_again("code", &code_page(typed, Some(WRONG_CODE), who.channel()));
    let Some((code_id, binding)) = held_code(&visitor) else { return Ok(again()) };
    let mut db = console.db.acquire().await?;
    let now = console.clock.now();
    let digits: String = form.code.expose_secret().chars().filter(|character| !character.is_whitespace()).collect();
    let (parked, is_new) = match signin::enter_code(&mut db, code_id, binding.expose_secret(), &digits, now).await? {
        Entered::Right { staff, channel } => (Parked::at(staff, channel, now), true),
        Entered::Parked(parked) => (parked, false),
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
    let Some(at) = found.iter().position(|staff| staff.staff_id.0 == parked.staff) else { return Ok(again()) };
    if is_new {
        let place = attempt::place(&console, &mut db, Some(found[at].staff_id), &visitor).await?;
        let account = who.account(&console, &mut db).await?;
        clear_attempts(&mut db, account, place).await?;
    }
    let mut hers = reached(&found, at, (&who, &form.place), &parked);
    let mut proof = Proof { parked, typed, name: &form.name };
    // A number may have gone from one to another: who shares it with others says who she is, also where it opens one
    // place alone.
    let sharing = if proof.parked.channel == Channel::Phone { &found } else { &hers };
    if sharing.len() > 1 {
        let named = places::of_person(&console, &mut db, sharing, &form.name).await?.unwrap_or_default();
        let among = |staff: &Staff| named.iter().any(|one| one.staff_id == staff.staff_id);
        if !hers.iter().any(among) {
            if proof.parked.tries_left == 0 {
                return drawn(&console, typed, Some(NO_SUCH_NAME)).await;
            }
            proof.parked.leads_to = ids(&hers);
            return places::ask_name(&console, &mut db, &proof).await;
        }
        hers.retain(among);
    }
    proof.parked.leads_to = ids(&hers);
    if let Some(chosen) = form.staff {
        hers.retain(|staff| staff.staff_id == chosen);
    }
    match hers.as_slice() {
        [] => Ok(again()),
        // Which business she works for is not shown either to whoever has her number now.
        [staff] if proof.parked.channel == Channel::Phone && staff.phone_stale_since(now).is_some() => {
            half_proved(&console, &visitor, &mut db, (staff, &asker), &proof).await
        }
        [staff] => let_in(&console, &visitor, &mut db, staff, &proof).await,
        several => places::choose_after_code(&console, &mut db, several, &mut proof).await,
    }
}

/// Whom a code may prove: those who have the mail address that it was sent to, for our own mail server carried it. A
/// business's account carries a code to a phone, and its owner may read there: it opens that business's place alone.
fn reached(found: &[Staff], at: usize, (who, place): (&Who, &str), parked: &Parked) -> Vec<Staff> {
    if !parked.leads_to.is_empty() {
        return found.iter().filter(|staff| parked.leads_to.contains(&staff.staff_id.0)).cloned().collect();
    }
    match (parked.channel, who.channel()) {
        (Channel::Email, Channel::Email) if place.trim().is_empty() => found.to_vec(),
        _ => vec![found[at].clone()],
    }
}

fn ids(staff: &[Staff]) -> Vec<uuid::Uuid> {
    staff.iter().map(|staff| staff.staff_id.0).collect()
}

/// Opens a session for `staff`, whose phone or mail address is confirmed by it.
async fn let_in(
    console: &Console,
    visitor: &Visitor,
    db: &mut PgConnection,
    staff: &Staff,
    proof: &Proof<'_>,
) -> Result<Response, Turned> {
    let now = console.clock.now();
    let mut tx = db.begin().await?;
    if proof.parked.channel == Channel::Phone {
        mark_verified(&mut tx, staff.staff_id, ContactKind::Phone, now).await?;
    } else {
        mark_verified(&mut tx, staff.staff_id, ContactKind::Email, now).await?;
        settle_stale_phone(&mut tx, staff.staff_id.0, &visitor.device, now).await?;
    }
    let opened = enter::open(console, &mut tx, visitor, staff, First::of("code")).await?;
    tx.commit().await?;
    Ok(enter::lead_on(console, visitor, &opened, proof.typed.next))
}

/// A code to a phone that may be somebody else's by now was right: on by way of the second factor, or of a code to her
/// mail address, and no further where there is neither. It is on record, and she is told where the phone's holder does not
/// read.
async fn half_proved(
    console: &Console,
    visitor: &Visitor,
    db: &mut PgConnection,
    (staff, asker): (&Staff, &Asker),
    proof: &Proof<'_>,
) -> Result<Response, Turned> {
    let now = console.clock.now();
    let mut tx = db.begin().await?;
    note_stale_phone(&mut tx, staff.staff_id.0, &visitor.device, now).await?;
    attempt::note_unproved(console, &mut tx, staff, words::STALE_PHONE_PROVED, Warning::StalePhone).await?;
    tx.commit().await?;
    let standing = find_standing(db, staff.staff_id.0).await?;
    if standing.is_some_and(|standing| standing.has_second_factor()) {
        return enter::enter(console, visitor, staff, First::of("code"), proof.typed.next).await;
    }
    if let Sending::Sent(held) = send_code_by(console, db, staff, (Channel::Email, true)).await? {
        let page = code_page(proof.typed, Some(STALE_MAIL), Channel::Email);
        let mut response = draw("code", &page);
        enter::add(&mut response, console.keep(Crumb::Code, &held));
        return Ok(response);
    }
    asker.is(Known::staff(staff.staff_id.0, staff.business_id));
    let page = code_page(proof.typed, Some(STALE), proof.parked.channel);
    let mut refused = draw_again("code", &page);
    refused.extensions_mut().insert(Reason("console.stale_phone"));
    Ok(refused)
}
