//! Decisions as they lie on one person's desk: what waits for her, what she asked for, what others decide on, what is
//! over; and one of them with what its plan says.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    Approval, ApprovalId, Authority, Decision, Error, Filter, Line, Scope, Staff, State, Verdict, Vote, list, load,
    record, store, summary_of,
};
use crate::{evidence::words, outbound::Chance, vault::Vault};

/// Most open decisions that lie on a desk, and most that are looked through for those that ended.
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
    let voted = store::list_voted(db, staff.staff_id).await?;
    let open = Filter { open: true, ..Filter::default() };
    for approval in list(db, &open, LISTED_MAX, &by).await? {
        if !approval.state_at(now).is_open() {
            // Its job has not come yet: it is found below.
            continue;
        }
        let waits = waits_for(&approval, staff, &voted, now);
        let standing = standing(db, approval).await?;
        match standing.approval.requested_staff {
            _ if waits => desk.waiting.push(standing),
            Some(asker) if asker == staff.staff_id => desk.asked.push(standing),
            _ => desk.others.push(standing),
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

/// How many decisions wait for `staff`; none where she may not see them.
///
/// # Errors
/// The database fails.
pub async fn count_waiting(db: &mut PgConnection, staff: &Staff, now: DateTime<Utc>) -> Result<usize, Error> {
    let by = Authority::of_staff(staff);
    if by.require(Scope::ApprovalRead).is_err() {
        return Ok(0);
    }
    let voted = store::list_voted(db, staff.staff_id).await?;
    let open = Filter { open: true, ..Filter::default() };
    let open = list(db, &open, LISTED_MAX, &by).await?;
    Ok(open.iter().filter(|approval| waits_for(approval, staff, &voted, now)).count())
}

/// Whether her word is asked for. That she is not the asker under another account, the database sees when she votes.
fn waits_for(approval: &Approval, staff: &Staff, voted: &[ApprovalId], now: DateTime<Utc>) -> bool {
    approval.state_at(now) == State::Pending
        && approval.business_id == staff.business_id
        && approval.requested_staff != Some(staff.staff_id)
        && staff.scopes().contains(&approval.kind.scope())
        && !voted.contains(&approval.approval_id)
}

/// One decision as one person sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The decision.
    pub standing: Standing,
    /// What its plan says, for whoever may decide on it or asked for it; nothing for whoever only looks on.
    pub summary: Option<Vec<Line>>,
    /// Who decided, the earliest first.
    pub votes: Vec<Vote>,
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
    let mut summary = None;
    if decides || approval.requested_staff == Some(staff.staff_id) {
        summary = Some(summary_of(&mut tx, vault, &approval).await?);
        let decision = Decision { by: &by, now, chance };
        record(&mut tx, &decision, words::APPROVAL_SHOWN, &approval, json!({ "channel": "console" })).await?;
    }
    let votes = store::list_votes(&mut tx, approval_id).await?;
    let own = |vote: &&Vote| {
        vote.staff_id == Some(staff.staff_id) && vote.version == approval.version && vote.withdrawn_at.is_none()
    };
    let own = votes.iter().find(own).map(|vote| vote.verdict);
    let voted: &[ApprovalId] = if own.is_some() { &[approval_id] } else { &[] };
    let waits = waits_for(&approval, staff, voted, now);
    let said_yes = approval.state_at(now).is_open() && own == Some(Verdict::Approve);
    let standing = standing(&mut tx, approval).await?;
    tx.commit().await?;
    Ok(Seen { standing, summary, votes, waits, said_yes })
}
