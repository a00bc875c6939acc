//! Somebody outside who is to decide once, for a business that has nobody else: invited, and the invitation taken back.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::{
    messaging,
    people::{
        Authority, Decision, Scope,
        approval::{self, ApprovalId, Error, Invitation, revoke_invitation},
        links::{self, Contact, Link},
    },
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Console,
    approvals::{id_of, refused},
    attempt::Who,
    guard::{SignedIn, StepUp, Turned, may_not, sentence},
    names::shown,
    pages::{Page, draw, draw_again},
};

/// An invitation, without whom it is for: that is sealed.
#[derive(Serialize)]
pub(super) struct Invited {
    link: String,
    /// `By WhatsApp`, `By mail`.
    way: &'static str,
    at: String,
    /// `waits`, `opened it`, `decided`, `taken back`, `ran out`.
    state: &'static str,
    is_open: bool,
}

impl Invited {
    pub(super) fn of(console: &Console, link: &Link) -> Self {
        let is_open = link.is_open(console.clock.now());
        let state = match (link.revoked_at, link.used_at, link.verified_at) {
            (Some(_), ..) => "taken back",
            (None, Some(_), _) => "decided",
            (None, None, _) if !is_open => "ran out",
            (None, None, Some(_)) => "has opened it",
            (None, None, None) => "waits",
        };
        Self {
            link: link.link_id.to_string(),
            way: if link.channel == "phone" { "By WhatsApp" } else { "By mail" },
            at: shown(link.made_at),
            state,
            is_open,
        }
    }
}

#[derive(Serialize)]
struct InvitePage {
    id: ApprovalId,
    problem: Option<String>,
    who: String,
    languages: Vec<Choice>,
    /// A number writes on behalf of this installation, and it is another business's.
    by_phone: bool,
}

#[derive(Serialize)]
struct Choice {
    value: &'static str,
    words: &'static str,
    chosen: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newcomer {
    who: String,
    language: String,
}

/// `GET /console/approvals/{id}/invite`
pub(super) async fn ask(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let id = id_of(&id)?;
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::ApprovalInvite).map_err(may_not)?;
    approval::load(&mut db, id, &by).await.map_err(refused)?;
    Ok(draw("approval_invite", &form(&console, &mut db, &who, id, (&Newcomer::default(), None)).await?))
}

async fn form(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    id: ApprovalId,
    (typed, problem): (&Newcomer, Option<String>),
) -> Result<Page<InvitePage>, Turned> {
    let handle = console.installation_business.as_deref();
    let carrier = messaging::find_carrier(db, handle, who.staff.business_id).await?;
    let languages = [("en", "English"), ("hi", "हिन्दी")].map(|(value, words)| {
        let chosen = typed.language == value;
        Choice { value, words, chosen }
    });
    let body =
        InvitePage { id, problem, who: typed.who.clone(), languages: languages.into(), by_phone: carrier.is_some() };
    Ok(Page { title: "Ask somebody outside", inside: true, script: false, body })
}

/// `POST /console/approvals/{id}/invite`
pub(super) async fn make(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
    Form(typed): Form<Newcomer>,
) -> Result<Response, Turned> {
    let id = id_of(&id)?;
    let mut db = console.db.acquire().await?;
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::ApprovalInvite).map_err(may_not)?;
    let problem = match Who::parse(&typed.who) {
        Err(mend) => mend.to_owned(),
        Ok(newcomer) => {
            let contact = match newcomer {
                Who::Phone(phone) => Contact::Phone(phone),
                Who::Email(email) => Contact::Email(email),
            };
            // What is not on the form is English.
            let language = if typed.language == "hi" { "hi" } else { "en" };
            let invitation = Invitation { contact: &contact, carrier: None, language, origin: &console.origin };
            let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
            let asked = (invitation, console.installation_business.as_deref());
            match messaging::invite_outside(&mut db, &console.vault, id, asked, &decision).await {
                Ok(_) => return Ok(Redirect::to(&format!("/console/approvals/{id}")).into_response()),
                Err(
                    error @ (Error::HasApprovers
                    | Error::NotOutside
                    | Error::TooManyInvited
                    | Error::NotOpen(_)
                    | Error::Link(links::Error::NoWayToPhone | links::Error::OwnNumber)),
                ) => sentence(&error),
                Err(error) => return Err(refused(error)),
            }
        }
    };
    Ok(draw_again("approval_invite", &form(&console, &mut db, &who, id, (&typed, Some(problem))).await?))
}

/// `POST /console/approvals/{id}/invitations/{link}/revoke`: taking it back is never wrong, and asks for no fresh proof.
pub(super) async fn revoke(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path((id, link)): Path<(String, String)>,
) -> Result<Response, Turned> {
    let id = id_of(&id)?;
    let link = link.parse().map_err(|_| Turned::NotFound)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    match revoke_invitation(&mut db, id, link, &decision).await {
        Ok(_) => Ok(Redirect::to(&format!("/console/approvals/{id}")).into_response()),
        Err(Error::Link(links::Error::NoSuchLink)) => Err(Turned::NotFound),
        Err(error) => Err(refused(error)),
    }
}
