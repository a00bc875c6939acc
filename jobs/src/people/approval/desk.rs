//! Decisions as they lie on one person's desk: what waits for her, what she asked for, what others decide on, what is
//! over; and one of them with what its plan says.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Approval, ApprovalId, Authority, Decision, Error, Filter, Kind, Line, Scope, Staff, State, Verdict, Vote, list,
    load, outside::has_approvers, record, store, summary_of,
};
use crate::{
    evidence::words,
    outbound::Chance,
    people::links::{self, Link, Purpose},
    vault::Vault,
};

/// Most decisions in one part of a desk, and most that are looked through for those of others and those that ended.
const LISTED_MAX: u16 = 200;
/// How long what has ended stays on it.
const LATELY: TimeDelta = TimeDelta::days(30);

/// A decision and how many people say yes to its plan in force.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The decision.
    pub approval: Approval,
    /// People who say yes.
    pub yes: i32,
}

/// What lies on one person's desk, each part the newest first.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// She may decide, and has not.
    pub waiting: Vec<Standing>,
    /// She asked for the plan in force, and something can still come of it.
    pub asked: Vec<Standing>,
    /// Others decide, or it was approved and waits to be carried out.
    pub others: Vec<Standing>,
    /// Ended within the last thirty days.
    pub ended: Vec<Standing>,
}

/// Lays out the desk of `staff`.
///
/// # Errors
/// She may not see decisions.
pub async fn find_desk(db: &mut PgConnection, staff: &Staff, now: DateTime<Utc>) -> Result<Desk, Error> {
    let by = Authority::of_staff(staff);
    let mut desk = Desk::default();
    by.require(Scope::ApprovalRead)?;
    // Hers are asked for by themselves: those of everybody else, however many, are not in front of them.
    for approval in store::list_waiting(db, &wanted(staff, now), LISTED_MAX).await? {
        desk.waiting.push(standing(db, approval).await?);
    }
    for approval in store::list_asked(db, staff.staff_id, now, LISTED_MAX).await? {
        desk.asked.push(standing(db, approval).await?);
    }
    let hers: HashSet<Uuid> = desk.waiting.iter().chain(&desk.asked).map(|one| one.approval.approval_id.0).collect();
    let open = Filter { open: true, ..Filter::default() };
    for approval in list(db, &open, LISTED_MAX, &by).await? {
        // One whose job has not come yet is found below.
        if approval.state_at(now).is_open() && !hers.contains(&approval.approval_id.0) {
            desk.others.push(standing(db, approval).await?);
        }
    }
    for approval in list(db, &Filter::default(), LISTED_MAX, &by).await? {
        let ended_at = approval.ended_at.unwrap_or(approval.expires_at);
        if !approval.state_at(now).is_open() && ended_at > now - LATELY {
            desk.ended.push(standing(db, approval).await?);
        }
    }
    Ok(desk)
}

async fn standing(db: &mut PgConnection, approval: Approval) -> Result<Standing, Error> {
    let yes = store::count_yes(db, approval.approval_id).await?;
    Ok(Standing { approval, yes })
}

/// How many decisions wait for `staff`, two hundred at most; none where she may not see them.
///
/// # Errors
/// The database fails.
pub async fn count_waiting(db: &mut PgConnection, staff: &Staff, now: DateTime<Utc>) -> Result<usize, Error> {
    let by = Authority::of_staff(staff);
    if by.require(Scope::ApprovalRead).is_err() {
        return Ok(0);
    }
    Ok(store::list_waiting(db, &wanted(staff, now), LISTED_MAX).await?.len())
}

/// What asks for her word: as [`waits_for`] says of one decision.
fn wanted(staff: &Staff, now: DateTime<Utc>) -> store::Wanted {
    let scopes = staff.scopes();
    let kinds = Kind::ALL.iter().filter(|kind| scopes.contains(&kind.scope()));
    let kinds = kinds.map(|kind| kind.as_str().to_owned()).collect();
    store::Wanted { staff: staff.staff_id, business: staff.business_id, kinds, now }
}

/// Whether her word is asked for. That she is not the asker under another account, the database sees when she votes.
fn waits_for(approval: &Approval, staff: &Staff, has_voted: bool, now: DateTime<Utc>) -> bool {
    approval.state_at(now) == State::Pending
        && approval.business_id == staff.business_id
        && approval.requested_staff != Some(staff.staff_id)
        && staff.scopes().contains(&approval.kind.scope())
        && !has_voted
}

/// One decision as one person sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The decision.
    pub standing: Standing,
    /// What its plan says, for whoever may decide on it or asked for it; nothing for whoever only looks on.
    pub summary: Option<Vec<Line>>,
    /// What its plan says is not what was asked for: it is shown to nobody, and can be denied and withdrawn alone.
    pub is_swapped: bool,
    /// Who decided, the earliest first.
    pub votes: Vec<Vote>,
    /// Who was invited from outside, the latest first, for whoever may invite.
    pub invited: Vec<Link>,
    /// Whether she may invite somebody: nobody of the business may say yes.
    pub invites: bool,
    /// Whether her word is asked for.
    pub waits: bool,
    /// Whether she said yes to the plan in force, and may take it back.
    pub said_yes: bool,
}

/// Shows `staff` one decision. That she was shown what its plan says is on record before it is answered.
///
/// # Errors
/// As [`load`]; the vault is sealed; the evidence cannot be written.
pub async fn show(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    staff: &Staff,
    (now, chance): (DateTime<Utc>, &dyn Chance),
) -> Result<Seen, Error> {
    let by = Authority::of_staff(staff);
    let mut tx = db.begin().await?;
    let approval = load(&mut tx, approval_id, &by).await?;
    let decides = approval.business_id == staff.business_id && staff.scopes().contains(&approval.kind.scope());
    let (mut summary, mut is_swapped) = (None, false);
    if decides || approval.requested_staff == Some(staff.staff_id) {
        match summary_of(&mut tx, vault, &approval).await {
            Err(Error::Swapped(_)) => is_swapped = true,
            lines => {
                summary = Some(lines?);
                let decision = Decision { by: &by, now, chance };
                record(&mut tx, &decision, words::APPROVAL_SHOWN, &approval, json!({ "channel": "console" })).await?;
            }
        }
    }
    let votes = store::list_votes(&mut tx, approval_id).await?;
    let own = |vote: &&Vote| {
        vote.staff_id == Some(staff.staff_id) && vote.version == approval.version && vote.withdrawn_at.is_none()
    };
    let own = votes.iter().find(own).map(|vote| vote.verdict);
    let waits = waits_for(&approval, staff, own.is_some(), now);
    let said_yes = approval.state_at(now).is_open() && own == Some(Verdict::Approve);
    let (mut invited, mut invites) = (Vec::new(), false);
    if let (Some(business), true) = (approval.business_id, by.require(Scope::ApprovalInvite).is_ok()) {
        invited = links::list(&mut tx, business, Purpose::Approval, approval_id.0).await?;
        invites = approval.state_at(now) == State::Pending && !has_approvers(&mut tx, &approval).await?;
    }
    let standing = standing(&mut tx, approval).await?;
    tx.commit().await?;
    Ok(Seen { invited, invites, standing, summary, is_swapped, votes, waits, said_yes })
}
