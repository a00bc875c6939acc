//! Coming in for the first time, by a link. GET shows a form and changes nothing, since mail scanners and chat programs
//! open links; the POST uses it up.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use muneem_jobs::{
    evidence::words,
    outbound::{Email, Phone},
    people::{
        self, Authority, Business, BusinessId, Decision, Enrolment, Role, Staff, add_business, enrol_staff,
        find_active_staff, find_business_by_id, list_handles, open_contact,
        signin::{Invitation, Invitee, find_invitation, set_password, use_invitation},
    },
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    attempt::Who,
    enter::{self, First},
    guard::Turned,
    pages::{Page, draw, draw_again, refuse},
    password,
    visitor::Visitor,
};

#[derive(Default, Serialize)]
struct InvitationPage {
    token: String,
    problem: Option<String>,
    /// A new person, who says who she is.
    new_person: bool,
    /// Who is here already.
    known_as: Option<String>,
    /// The business it is for; none: she names it, or it is the platform.
    business: Option<String>,
    names_business: bool,
    operator: bool,
    name: String,
    who: String,
    business_name: String,
    handle: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    #[serde(default)]
    name: String,
    #[serde(default)]
    who: String,
    #[serde(default)]
    business_name: String,
    #[serde(default)]
    handle: String,
    password: SecretString,
}

/// `GET /console/invitation/{token}`
pub(super) async fn show(State(console): State<Arc<Console>>, Path(token): Path<String>) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    match find_invitation(&mut db, &token, console.clock.now()).await? {
        Some(invitation) => Ok(draw("invitation", &framed(page(&console, &mut db, &invitation, &token).await?))),
        None => Ok(over()),
    }
}

fn over() -> Response {
    let words = "This link was used, or is older than a day. Ask whoever gave it to you \
                 for another: muneem people invite.";
    refuse(StatusCode::NOT_FOUND, "This link does not work any more", words, false)
}

fn framed(body: InvitationPage) -> Page<InvitationPage> {
    Page { title: "Welcome", inside: false, script: false, body }
}

async fn page(
    console: &Console,
    db: &mut PgConnection,
    invitation: &Invitation,
    token: &str,
) -> Result<InvitationPage, Turned> {
    let mut page = InvitationPage { token: token.to_owned(), ..InvitationPage::default() };
    match invitation.invitee {
        Invitee::Owner(business) => {
            page.new_person = true;
            page.names_business = business.is_none();
            if let Some(id) = business {
                page.business = find_business_by_id(db, id).await?.map(|business| business.legal_name);
            }
        }
        Invitee::Operator => {
            page.new_person = true;
            page.operator = true;
        }
        Invitee::Staff(staff_id) => {
            let contact = open_contact(db, &console.vault, staff_id).await?.ok_or(Turned::NotFound)?;
            page.known_as = Some(contact.name.to_string());
            page.business = contact.business_name;
        }
    }
    Ok(page)
}

/// `POST /console/invitation/{token}`
pub(super) async fn accept(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(token): Path<String>,
    Form(form): Form<Accept>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let Some(invitation) = find_invitation(&mut db, &token, console.clock.now()).await? else { return Ok(over()) };
    let again = async |db: &mut PgConnection, problem: &str| -> Result<Response, Turned> {
        let mut page = page(&console, db, &invitation, &token).await?;
        page.problem = Some(problem.to_owned());
        (page.name, page.who) = (form.name.clone(), form.who.clone());
        (page.business_name, page.handle) = (form.business_name.clone(), form.handle.clone());
        Ok(draw_again("invitation", &framed(page)))
    };
    let newcomer = match newcomer(&invitation, &form) {
        Ok(newcomer) => newcomer,
        Err(problem) => return again(&mut db, problem).await,
    };
    let hash = match password::keep(&console, &form.password).await? {
        Ok(hash) => hash,
        Err(weak) => return again(&mut db, &weak).await,
    };
    let mut tx = db.begin().await?;
    if !use_invitation(&mut tx, invitation.invitation_id, console.clock.now()).await? {
        return Ok(over());
    }
    let staff = match join(&console, &mut tx, &invitation, newcomer, &form).await? {
        Ok(staff) => staff,
        Err(refused) => {
            tx.rollback().await?;
            return again(&mut db, &refused).await;
        }
    };
    set_password(&mut tx, staff.staff_id.0, &hash, None, console.clock.now()).await?;
    let details = json!({ "invitation": invitation.invitation_id });
    enter::note(&console, &mut tx, &staff, words::INVITATION_USED, details).await?;
    let opened = enter::open(&console, &mut tx, &visitor, &staff, First::of("invitation")).await?;
    tx.commit().await?;
    let to = match opened.session.level {
        people::signin::Level::First => "/console/second-factor?next=/console/security",
        people::signin::Level::Full => "/console/security",
    };
    Ok(enter::led(&console, &visitor, &opened, to))
}

/// A phone, a mail address, or both.
type Reach = (Option<Phone>, Option<Email>);

/// What a new person says of herself, checked. `None`: she is here already.
fn newcomer(invitation: &Invitation, form: &Accept) -> Result<Option<Reach>, &'static str> {
    let names_business = match invitation.invitee {
        Invitee::Staff(_) => return Ok(None),
        Invitee::Owner(business) => business.is_none(),
        Invitee::Operator => false,
    };
    if form.name.trim().is_empty() || form.name.chars().count() > 100 {
        return Err("Write your name, in at most a hundred letters.");
    }
    if names_business && (form.business_name.trim().is_empty() || form.business_name.chars().count() > 200) {
        return Err("Write the name of the business as it is registered.");
    }
    match Who::parse(&form.who)? {
        Who::Phone(phone) => Ok(Some((Some(phone), None))),
        Who::Email(email) => Ok(Some((None, Some(email)))),
    }
}

/// Whoever the invitation is for, made where she is new. `Err`: what the form has to say otherwise.
async fn join(
    console: &Console,
    tx: &mut PgConnection,
    invitation: &Invitation,
    newcomer: Option<Reach>,
    form: &Accept,
) -> Result<Result<Staff, String>, Turned> {
    let (business_id, role) = match invitation.invitee {
        Invitee::Staff(staff_id) => return Ok(Ok(find_active_staff(tx, staff_id).await?.ok_or(Turned::NotFound)?)),
        Invitee::Operator => (None, Role::Operator),
        Invitee::Owner(Some(business)) => (Some(business), Role::Owner),
        Invitee::Owner(None) => match found(console, tx, form).await? {
            Ok(business) => (Some(business), Role::Owner),
            Err(problem) => return Ok(Err(problem)),
        },
    };
    let (phone, email) = newcomer.unwrap_or_default();
    let person = Enrolment {
        business_id,
        name: form.name.trim().to_owned(),
        language: "en".to_owned(),
        phone,
        email: email.map(|email| email.expose()),
        roles: vec![role],
    };
    let operator = Authority::operator();
    let decision = Decision { by: &operator, now: console.clock.now(), chance: &*console.chance };
    match enrol_staff(tx, &console.vault, &person, &decision).await {
        Err(people::Error::ContactTaken | people::Error::BadEmail) => {
            Ok(Err("Somebody here has this phone or mail address already: take another.".to_owned()))
        }
        staff => Ok(Ok(staff?)),
    }
}

/// The business that the new owner names.
async fn found(console: &Console, tx: &mut PgConnection, form: &Accept) -> Result<Result<BusinessId, String>, Turned> {
    let taken = list_handles(tx).await?;
    let handle = match form.handle.trim() {
        "" => free_handle(&form.business_name, &taken),
        typed if taken.iter().any(|handle| handle == typed) => {
            return Ok(Err("Another business has this short name: take another.".to_owned()));
        }
        typed => typed.to_owned(),
    };
    match add_business(tx, &handle, &form.business_name, &*console.clock, &*console.chance).await {
        Ok(Business { business_id, .. }) => Ok(Ok(business_id)),
        Err(people::Error::BadHandle(_)) => {
            Ok(Err("The short name takes small letters, digits and single hyphens, like sharma-mobiles.".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// `Sharma Mobiles Pvt. Ltd.` becomes `sharma-mobiles-pvt-ltd`; a name without Latin letters becomes `shop`. A number
/// behind it where that is taken.
fn free_handle(name: &str, taken: &[String]) -> String {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut base: String = words.join("-").chars().take(40).collect();
    base.truncate(base.trim_end_matches('-').len());
    if base.len() < 2 {
        "shop".clone_into(&mut base);
    }
    let is_free = |handle: &String| !taken.contains(handle);
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    std::iter::once(base.clone()).chain(numbered).find(is_free).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_comes_from_the_name() {
        let taken = ["shop".to_owned(), "verma".to_owned(), "verma-2".to_owned()];
        for (name, handle) in [
            ("Sharma Mobiles Pvt. Ltd.", "sharma-mobiles-pvt-ltd"),
            ("शर्मा मोबाइल्स", "shop-2"),
            ("X", "shop-2"),
            (" Verma ", "verma-3"),
            ("The Very Long Name Of A Shop In The Market And More", "the-very-long-name-of-a-shop-in-the-mark"),
        ] {
            assert_eq!(free_handle(name, &taken), handle, "{name}");
        }
    }
}
