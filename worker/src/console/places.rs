//! Which person, and where she works: one phone or mail address may be several people's, and one person may work in
//! several places.

use axum::response::Response;
use muneem_jobs::people::{
    Staff, StaffId, find_business_by_id, open_contact,
    signin::{SentCode, make_choice, park_proof},
};
use secrecy::ExposeSecret;
use serde::Serialize;
use sqlx::PgConnection;

use super::{
    Console,
    cookies::Crumb,
    enter,
    entered::Proof,
    guard::Turned,
    pages::{Page, draw, draw_again},
    sign_in::Typed,
};

#[derive(Serialize)]
struct Whose<'a> {
    #[serde(flatten)]
    typed: Typed<'a>,
    code: &'a str,
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct Choose<'a> {
    who: &'a str,
    next: &'a str,
    code: &'a str,
    /// The name that told her from others.
    name: &'a str,
    choices: Vec<Choice>,
}

#[derive(Serialize)]
struct Choice {
    staff_id: StaffId,
    name: String,
    roles: String,
}

/// Of people who share a contact, those who are the one person whom `typed` names: her in each place where she works.
/// `None`: there are several people, and it names none of them. Where all bear one name, nothing has to be typed.
pub(super) async fn of_person(
    console: &Console,
    db: &mut PgConnection,
    all: &[Staff],
    typed: &str,
) -> Result<Option<Vec<Staff>>, Turned> {
    let mut named = Vec::with_capacity(all.len());
    for staff in all {
        let contact = open_contact(db, &console.vault, staff.staff_id).await?;
        named.push((contact.map(|contact| spelled(&contact.name)).unwrap_or_default(), staff.clone()));
    }
    let one = named.first().map(|(name, _)| name.clone()).unwrap_or_default();
    if named.iter().any(|(name, _)| *name != one) {
        let typed = spelled(typed);
        named.retain(|(name, _)| *name == typed);
    }
    Ok(Some(named.into_iter().map(|(_, staff)| staff).collect()).filter(|hers: &Vec<Staff>| !hers.is_empty()))
}

/// A name as it is compared: small letters, single spaces.
fn spelled(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Asks who of those who share the contact she is, and shows none of them; once more where she typed a name that is none
/// of theirs. The proof goes along as a code that nobody was sent, bound to this browser too.
pub(super) async fn ask_name(console: &Console, db: &mut PgConnection, proof: &Proof<'_>) -> Result<Response, Turned> {
    let code = park_proof(db, &proof.parked, console.clock.now(), &*console.chance).await?;
    let problem = (!proof.name.trim().is_empty()).then(|| {
        let tries = match proof.parked.tries_left {
            1 => "one try is left".to_owned(),
            tries => format!("{tries} tries are left"),
        };
        format!(
            "Nobody of this name is reached this way: write it as your business does, or have a code sent by the \
             business you work for; {tries}."
        )
    });
    let problem = problem.as_deref();
    let body = Whose { typed: proof.typed, code: code.code.expose_secret(), problem };
    let page = Page { title: "Who are you?", inside: false, script: false, body };
    let response = if problem.is_some() { draw_again("whose", &page) } else { draw("whose", &page) };
    Ok(with_code(console, response, &code))
}

/// Asks which business it is to be, of `several` whose person the code reached.
pub(super) async fn choose_after_code(
    console: &Console,
    db: &mut PgConnection,
    several: &[Staff],
    proof: &mut Proof<'_>,
) -> Result<Response, Turned> {
    // Who she is is known: what is left to say costs no name.
    proof.parked.tries_left = proof.parked.tries_left.max(1);
    let code = park_proof(db, &proof.parked, console.clock.now(), &*console.chance).await?;
    choose(console, db, several, (&code, proof.typed.who, proof.typed.next, proof.name)).await
}

/// Asks which business it is to be, of those that her password opens.
pub(super) async fn choose_after_password(
    console: &Console,
    db: &mut PgConnection,
    several: &[Staff],
    (who, next): (&str, &str),
) -> Result<Response, Turned> {
    let places: Vec<_> = several.iter().map(|staff| staff.staff_id.0).collect();
    let code = make_choice(db, &places, console.clock.now(), &*console.chance).await?;
    choose(console, db, several, (&code, who, next, "")).await
}

async fn choose(
    console: &Console,
    db: &mut PgConnection,
    several: &[Staff],
    (code, who, next, name): (&SentCode, &str, &str, &str),
) -> Result<Response, Turned> {
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
    let body = Choose { who, next, code: code.code.expose_secret(), name, choices };
    let page = draw("choose", &Page { title: "Where to?", inside: false, script: false, body });
    Ok(with_code(console, page, code))
}

fn with_code(console: &Console, mut response: Response, code: &SentCode) -> Response {
    let held = format!("{}.{}", code.code_id, code.binding.expose_secret()).into();
    enter::add(&mut response, console.keep(Crumb::Code, &held));
    response
}
