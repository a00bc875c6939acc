//! Decisions that take a second person: what waits for her, what she asked for, and one of them with its yes and no.
//!
//! The form of a decision carries the hash of the plan that its page showed. Where the plan has changed since, nothing is
//! decided, and she is led back to look again.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use muneem_jobs::people::{
    Authority, Decision, Scope,
    approval::{
        self, Approval, ApprovalId, Desk, Line, PlanHash, Reason, Seen, Standing, State as Stands, Verdict, Vote,
        find_desk,
    },
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Console,
    guard::{SignedIn, StepUp, Turned, may_not, sentence},
    names::{Names, shown},
    outside::Invited,
    pages::{Page, draw, draw_again, refuse_to},
};

const HERE: &str = "/console/approvals";
/// What somebody types who means yes.
const WORD: &str = "approve";

#[derive(Serialize)]
struct ApprovalsPage {
    waiting: Vec<Card>,
    asked: Vec<Card>,
    others: Vec<Card>,
    ended: Vec<Card>,
    nothing: bool,
}

/// A decision in a list.
#[derive(Serialize)]
struct Card {
    id: ApprovalId,
    /// What is to be done: `Carry out a request of a Data Principal`.
    what: String,
    subject: String,
    asked_by: String,
    asked: String,
    until: String,
    /// `1 of 2 say yes`
    counted: String,
    /// `waits`, `approved`, `denied`.
    state: &'static str,
    /// When it ended.
    ended: Option<String>,
    is_open: bool,
}

/// `GET /console/approvals`
pub(super) async fn list(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let desk = find_desk(&mut db, &who.staff, console.clock.now()).await.map_err(refused)?;
    let Desk { waiting, asked, others, ended } = desk;
    let nothing = [&waiting, &asked, &others, &ended].iter().all(|part| part.is_empty());
    let mut names = Names::new(&console, &who);
    let body = ApprovalsPage {
        nothing,
        waiting: cards(&mut names, &mut db, &waiting).await?,
        asked: cards(&mut names, &mut db, &asked).await?,
        others: cards(&mut names, &mut db, &others).await?,
        ended: cards(&mut names, &mut db, &ended).await?,
    };
    names.told(&mut db).await?;
    Ok(draw("approvals", &Page { title: "Approvals", inside: true, script: false, body }))
}

async fn cards(names: &mut Names<'_>, db: &mut PgConnection, standings: &[Standing]) -> Result<Vec<Card>, Turned> {
    let mut cards = Vec::new();
    for standing in standings {
        cards.push(card(names, db, standing).await?);
    }
    Ok(cards)
}

async fn card(
    names: &mut Names<'_>,
    db: &mut PgConnection,
    Standing { approval, yes }: &Standing,
) -> Result<Card, Turned> {
    let state = approval.state_at(names.console.clock.now());
    let mut words = approval.kind.words().chars();
    let what = words.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), words.as_str()));
    let ended_at = approval.ended_at.unwrap_or(approval.expires_at);
    Ok(Card {
        id: approval.approval_id,
        what,
        subject: approval.subject_id.clone(),
        asked_by: asker(names, db, approval).await?,
        asked: shown(approval.requested_at),
        until: shown(approval.expires_at),
        counted: format!("{yes} of {} {}", approval.approvers_needed, if *yes == 1 { "says yes" } else { "say yes" }),
        state: words_of(state),
        ended: (!state.is_open()).then(|| shown(ended_at)),
        is_open: state.is_open(),
    })
}

const fn words_of(state: Stands) -> &'static str {
    match state {
        Stands::Pending => "waits",
        Stands::Approved => "approved",
        Stands::CarriedOut => "carried out",
        Stands::Denied => "denied",
        Stands::Withdrawn => "withdrawn",
        Stands::Expired => "ran out",
    }
}

/// Who asked for the plan in force: by name for whoever decides with her, by id for whoever only looks on.
async fn asker(names: &mut Names<'_>, db: &mut PgConnection, approval: &Approval) -> Result<String, Turned> {
    let person = match approval.requested_staff {
        Some(staff) if staff == names.who.staff.staff_id => Some("you".to_owned()),
        Some(staff) if decides(names.who, approval) => Some(names.of(db, staff).await?),
        Some(staff) => Some(format!("staff {staff}")),
        None => None,
    };
    Ok(match (approval.requested_by.strip_prefix("token:"), person) {
        (Some(token), Some(person)) => format!("{person}, by token {token}"),
        (Some(token), None) => format!("a program, by token {token}"),
        (None, Some(person)) => person,
        (None, None) => "whoever runs this installation".to_owned(),
    })
}

fn decides(who: &SignedIn, approval: &Approval) -> bool {
    approval.business_id == who.staff.business_id && who.staff.scopes().contains(&approval.kind.scope())
}

#[derive(Serialize)]
struct ApprovalPage {
    problem: Option<&'static str>,
    card: Card,
    summary: Option<Vec<Line>>,
    /// What was asked here was changed in the database: it is shown to nobody, and nobody says yes to it.
    is_swapped: bool,
    votes: Vec<Row>,
    invited: Vec<Invited>,
    /// Nobody of the business may say yes, and she may ask somebody outside.
    invites: bool,
    /// Eight letters of the plan's hash, to compare on the telephone.
    short: String,
    /// The hash that her decision is bound to.
    seen: PlanHash,
    version: i32,
    waits: bool,
    said_yes: bool,
    /// Whether her proof is fresh enough to decide.
    is_fresh: bool,
    withdraws: bool,
    word: &'static str,
    reasons: Vec<Choice>,
}

#[derive(Serialize)]
struct Row {
    who: String,
    says: &'static str,
    reason: Option<&'static str>,
    at: String,
    /// It does not count: it was taken back, or is about an older plan.
    past: Option<&'static str>,
}

#[derive(Serialize)]
struct Choice {
    value: &'static str,
    words: String,
}

pub(super) fn id_of(text: &str) -> Result<ApprovalId, Turned> {
    text.parse().map_err(|_| Turned::NotFound)
}

/// `GET /console/approvals/{id}`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    Ok(draw("approval", &page(&console, &mut db, &who, id_of(&id)?, None).await?))
}

async fn page(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    id: ApprovalId,
    problem: Option<&'static str>,
) -> Result<Page<ApprovalPage>, Turned> {
    let now = console.clock.now();
    let seen = approval::show(db, &console.vault, id, &who.staff, (now, &*console.chance)).await.map_err(refused)?;
    let Seen { standing, summary, is_swapped, votes, invited, invites, waits, said_yes } = seen;
    let approval = &standing.approval;
    if is_swapped {
        tracing::error!(approval_id = %approval.approval_id, "what was asked was changed in the database");
    }
    let (mut names, mut rows) = (Names::new(console, who), Vec::new());
    for vote in &votes {
        rows.push(row(&mut names, db, approval, vote).await?);
    }
    let by = Authority::of_staff(&who.staff);
    let asked = approval.requested_by == by.name() || by.require(Scope::ApprovalInvite).is_ok();
    let body = ApprovalPage {
        problem,
        card: card(&mut names, db, &standing).await?,
        summary,
        is_swapped,
        votes: rows,
        invited: invited.iter().map(|link| Invited::of(console, link)).collect(),
        invites,
        short: approval.plan_sha256.short(),
        seen: approval.plan_sha256,
        version: approval.version,
        waits,
        said_yes,
        is_fresh: who.session.is_stepped_up(now),
        withdraws: asked && approval.state_at(now).is_open(),
        word: WORD,
        reasons: Reason::ALL
            .iter()
            .map(|reason| Choice { value: reason.as_str(), words: upper(reason.words()) })
            .collect(),
    };
    names.told(db).await?;
    Ok(Page { title: "A decision", inside: true, script: false, body })
}

fn upper(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
}

async fn row(names: &mut Names<'_>, db: &mut PgConnection, approval: &Approval, vote: &Vote) -> Result<Row, Turned> {
    let who = names.who;
    let voter = match vote.staff_id {
        None => "Somebody outside, who was invited".to_owned(),
        Some(staff) if staff == who.staff.staff_id => "You".to_owned(),
        Some(staff) if decides(who, approval) || approval.requested_staff == Some(who.staff.staff_id) => {
            names.of(db, staff).await?
        }
        Some(staff) => format!("Staff {staff}"),
    };
    let past = match (vote.withdrawn_at, vote.version == approval.version) {
        (Some(_), _) => Some("taken back"),
        (None, false) => Some("about an older plan"),
        (None, true) => None,
    };
    Ok(Row {
        who: voter,
        says: if vote.verdict == Verdict::Approve { "yes" } else { "no" },
        reason: vote.reason.map(Reason::words),
        at: shown(vote.voted_at),
        past,
    })
}

/// A refusal of the rules, as a page; anything else failed inside.
pub(super) fn refused(error: approval::Error) -> Turned {
    use approval::Error as E;
    match error {
        E::NoSuchApproval(_) => Turned::NotFound,
        E::SecondPersonNeeded
        | E::SamePerson
        | E::NotVerified
        | E::AlreadyVoted
        | E::ForPeopleAlone(_)
        | E::Swapped(_) => Turned::MayNot(sentence(&error)),
        E::People(error) => may_not(error),
        error => error.into(),
    }
}

/// What a yes or no came to: back to the decision, or a page that says why not.
fn answered(id: ApprovalId, outcome: Result<Approval, approval::Error>) -> Result<Response, Turned> {
    let there = format!("{HERE}/{id}");
    match outcome {
        Ok(_) => Ok(Redirect::to(&there).into_response()),
        Err(approval::Error::PlanChanged) => Ok(refuse_to(
            StatusCode::CONFLICT,
            "The plan has changed",
            "Nothing was decided: since you looked, the plan was changed. Look at what is asked now, then decide.",
            &there,
        )),
        Err(approval::Error::NotOpen(state)) => Ok(refuse_to(
            StatusCode::CONFLICT,
            "It is decided already",
            &format!("Nothing was changed: the decision is {}.", words_for(state)),
            &there,
        )),
        Err(error) => Err(refused(error)),
    }
}

const fn words_for(state: Stands) -> &'static str {
    match state {
        Stands::Pending => "open",
        Stands::Expired => "over, for its time ran out",
        state => words_of(state),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Yes {
    seen: String,
    word: String,
}

/// `POST /console/approvals/{id}/approve`
pub(super) async fn approve(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
    Form(form): Form<Yes>,
) -> Result<Response, Turned> {
    let (id, seen) = (id_of(&id)?, seen_in(&form.seen)?);
    let mut db = console.db.acquire().await?;
    if form.word.trim().to_lowercase() != WORD {
        let problem = "Nothing was decided. To say yes, write the word approve.";
        return Ok(draw_again("approval", &page(&console, &mut db, &who, id, Some(problem)).await?));
    }
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    answered(id, approval::decide(&mut db, &console.vault, id, &seen, Verdict::Approve, &decision).await)
}

fn seen_in(text: &str) -> Result<PlanHash, Turned> {
    text.parse().map_err(|_| Turned::NotOurs("the form does not say which plan it is about"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct No {
    seen: String,
    #[serde(default)]
    reason: String,
}

/// `POST /console/approvals/{id}/deny`
pub(super) async fn deny(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
    Form(form): Form<No>,
) -> Result<Response, Turned> {
    let (id, seen) = (id_of(&id)?, seen_in(&form.seen)?);
    let mut db = console.db.acquire().await?;
    let Ok(reason) = form.reason.parse::<Reason>() else {
        let problem = "Nothing was decided. To say no, choose why.";
        return Ok(draw_again("approval", &page(&console, &mut db, &who, id, Some(problem)).await?));
    };
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    answered(id, approval::deny(&mut db, &console.vault, id, &seen, reason, &decision).await)
}

/// `POST /console/approvals/{id}/take-back`: her own yes, before it is carried out.
pub(super) async fn take_back(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let id = id_of(&id)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    answered(id, approval::take_back(&mut db, id, &decision).await)
}

/// `POST /console/approvals/{id}/withdraw`: what she asked for, or, for an owner, whatever was.
pub(super) async fn withdraw(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let id = id_of(&id)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    answered(id, approval::withdraw(&mut db, id, &decision).await)
}
