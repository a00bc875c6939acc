//! Who works here: seen, added with a link to come in by, given roles and relieved of them, removed.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use chrono_tz::Asia::Kolkata;
use muneem_jobs::{
    evidence::Actor,
    people::{
        self, Authority, BusinessId, Decision, Enrolment, Role, Scope, Staff, StaffId, enrol_staff, grant_role,
        list_staff, remove_staff,
        signin::{Invitee, find_standing, invite},
        withdraw_role,
    },
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    attempt::Who,
    guard::{SignedIn, StepUp, Turned, may_not},
    names::Names,
    pages::{Page, draw, draw_again},
};

const HERE: &str = "/console/staff";

#[derive(Serialize)]
struct StaffPage {
    problem: Option<String>,
    /// Whether she may add, change and remove.
    decides: bool,
    people: Vec<Person>,
    /// What she may make somebody new.
    roles: Vec<Choice>,
    name: String,
    who: String,
}

#[derive(Serialize)]
struct Person {
    id: StaffId,
    name: String,
    is_you: bool,
    has_second_factor: bool,
    /// Since which day her phone may be somebody else's.
    phone_stale_since: Option<String>,
    /// Somebody who may do more than she who looks is not hers to change.
    is_hers_to_change: bool,
    roles: Vec<Choice>,
    /// Roles that she who looks may add.
    others: Vec<Choice>,
}

#[derive(Serialize)]
struct Choice {
    role: Role,
    words: String,
}

impl Choice {
    fn of(role: Role) -> Self {
        Self { role, words: role.as_str().replace('_', " ") }
    }
}

#[derive(Serialize)]
struct Added {
    name: String,
    link: String,
    until: String,
}

/// `GET /console/staff`
pub(super) async fn show(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let page = page(&console, &mut db, &who, None, &Newcomer::default()).await?;
    Ok(draw("staff", &framed(page)))
}

fn framed(body: StaffPage) -> Page<StaffPage> {
    Page { title: "Who works here", inside: true, script: false, body }
}

/// Roles that `by` may give to staff of `business`.
fn gives(by: &Authority, business: Option<BusinessId>) -> impl Iterator<Item = Role> {
    Role::ALL.into_iter().filter(move |role| role.fits(business) && by.covers(&role.scopes()).is_ok())
}

async fn page(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    problem: Option<String>,
    typed: &Newcomer,
) -> Result<StaffPage, Turned> {
    let (by, business) = (Authority::of_staff(&who.staff), who.staff.business_id);
    let decides = by.require(Scope::StaffWrite).is_ok();
    let (mut names, mut people) = (Names::new(console, who), Vec::new());
    let listed = list_staff(db, business, &by).await.map_err(may_not)?;
    for staff in listed.into_iter().filter(|staff| staff.removed_at.is_none()) {
        people.push(person(&mut names, db, &by, &staff, decides).await?);
    }
    names.told(db).await?;
    let roles = gives(&by, business).filter(|_| decides).map(Choice::of).collect();
    Ok(StaffPage { problem, decides, people, roles, name: typed.name.clone(), who: typed.who.clone() })
}

async fn person(
    names: &mut Names<'_>,
    db: &mut PgConnection,
    by: &Authority,
    staff: &Staff,
    decides: bool,
) -> Result<Person, Turned> {
    let console = names.console;
    let is_you = staff.staff_id == names.who.staff.staff_id;
    // Whoever looks on for proof reads no names.
    let name = match decides || is_you {
        true => names.of(db, staff.staff_id).await?,
        false => format!("Staff {}", staff.staff_id),
    };
    let standing = find_standing(db, staff.staff_id.0).await?;
    let known = people::describe_staff(db, &console.vault, staff.clone()).await?;
    let stale = known.phone_stale_since(console.clock.now());
    let others = gives(by, staff.business_id).filter(|role| decides && !staff.roles.contains(role));
    Ok(Person {
        id: staff.staff_id,
        name,
        is_you,
        has_second_factor: standing.is_some_and(|standing| standing.has_second_factor()),
        phone_stale_since: stale.map(|at| at.with_timezone(&Kolkata).format("%-d %B %Y").to_string()),
        is_hers_to_change: decides && by.covers(&staff.scopes()).is_ok(),
        roles: staff.roles.iter().copied().map(Choice::of).collect(),
        others: others.map(Choice::of).collect(),
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newcomer {
    name: String,
    who: String,
    role: String,
}

/// `POST /console/staff`: adds somebody and shows, once, the link with which she comes in.
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Form(form): Form<Newcomer>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let problem = match checked(&form, who.staff.business_id) {
        Err(problem) => problem,
        Ok(person) => match enrolled(&console, &mut db, &who, &person).await {
            Ok(added) => return Ok(draw("staff_added", &added)),
            Err(people::Error::ContactTaken) => "Somebody here has this phone or mail address already.".to_owned(),
            Err(error) => return Err(may_not(error)),
        },
    };
    let page = page(&console, &mut db, &who, Some(problem), &form).await?;
    Ok(draw_again("staff", &framed(page)))
}

fn checked(form: &Newcomer, business_id: Option<BusinessId>) -> Result<Enrolment, String> {
    if form.name.trim().is_empty() || form.name.chars().count() > 100 {
        return Err("Write the name, in at most a hundred letters.".to_owned());
    }
    let (phone, email) = match Who::parse(&form.who)? {
        Who::Phone(phone) => (Some(phone), None),
        Who::Email(email) => (None, Some(email.expose())),
    };
    let role = form.role.parse().map_err(|_| "Choose what the person does here.".to_owned())?;
    let name = form.name.trim().to_owned();
    Ok(Enrolment { business_id, name, language: "en".to_owned(), phone, email, roles: vec![role] })
}

async fn enrolled(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    person: &Enrolment,
) -> Result<Page<Added>, people::Error> {
    let (now, by) = (console.clock.now(), Authority::of_staff(&who.staff));
    let decision = Decision { by: &by, now, chance: &*console.chance };
    let mut tx = db.begin().await?;
    let staff = enrol_staff(&mut tx, &console.vault, person, &decision).await?;
    let actor = Actor::Staff(who.staff.staff_id.0);
    let (invitation, token) = invite(&mut tx, Invitee::Staff(staff.staff_id), &actor, now, &*console.chance).await?;
    tx.commit().await?;
    let body = Added {
        name: person.name.clone(),
        link: format!("{}/console/invitation/{}", console.origin, token.expose_secret()),
        until: invitation.expires_at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M").to_string(),
    };
    Ok(Page { title: "Hand over this link", inside: true, script: false, body })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneRole {
    role: String,
}

/// `POST /console/staff/{id}/grant`
pub(super) async fn grant(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
    Form(form): Form<OneRole>,
) -> Result<Response, Turned> {
    decide(&console, &who, &id, Change::Grant(role(&form)?)).await
}

/// `POST /console/staff/{id}/withdraw`
pub(super) async fn withdraw(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
    Form(form): Form<OneRole>,
) -> Result<Response, Turned> {
    decide(&console, &who, &id, Change::Withdraw(role(&form)?)).await
}

/// `POST /console/staff/{id}/remove`
pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    decide(&console, &who, &id, Change::Remove).await
}

fn role(form: &OneRole) -> Result<Role, Turned> {
    form.role.parse().map_err(|_| Turned::NotFound)
}

enum Change {
    Grant(Role),
    Withdraw(Role),
    Remove,
}

async fn decide(console: &Console, who: &SignedIn, id: &str, change: Change) -> Result<Response, Turned> {
    let staff_id: StaffId = id.parse().map_err(|_| Turned::NotFound)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    let done = match change {
        Change::Grant(role) => grant_role(&mut db, staff_id, role, &decision).await,
        Change::Withdraw(role) => withdraw_role(&mut db, staff_id, role, &decision).await,
        Change::Remove => remove_staff(&mut db, staff_id, &decision).await,
    };
    done.map_err(may_not)?;
    Ok(Redirect::to(HERE).into_response())
}
