//! Decisions that take a second person.
//!
//! ```text
//! pending ──enough yes──▶ approved ──▶ carried out
//!    ▲  └──one no──▶ denied    │
//!    └────plan changed, or a yes withdrawn────┘       either one ──▶ withdrawn, expired
//! ```
//!
//! A duty asks ([`ask`]) with its [`Plan`]; what is approved is the SHA-256 of it, and whoever approves says which hash
//! she saw. [`carry_out`] gives the plan free once, in the transaction that carries it out, to whoever brings the very
//! plan that was approved. Another plan ([`change_plan`]) asks everybody anew.
//!
//! - Whoever asks, or changes the plan, does not approve it, under no account of hers: every phone and mail address
//!   that had a hand in a decision stands beside it.
//! - One person decides once. Machines do not: an approval is of a person of staff, or of somebody outside who was
//!   invited for this one decision because the business has nobody else ([`invite`]).
//! - A yes ends with its giver: when she leaves, loses the role or takes it back, what was approved is pending again.
//! - All this the database refuses by itself; the program says it in better words.

mod desk;
#[cfg(test)]
mod desk_tests;
mod end_approval;
mod error;
mod model;
#[cfg(test)]
mod order_tests;
mod outside;
#[cfg(test)]
mod outside_tests;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    Authority, BusinessId, Decision, Scope, Staff,
    links::{self, Purpose},
    staff_store,
};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, Word, words},
    queue::{self, NewJob},
    vault::{self, Cell, Class, INSTALLATION, Vault},
};

pub use desk::{Desk, Seen, Standing, count_waiting, find_desk, show};
pub use end_approval::EndApproval;
pub use error::Error;
pub use model::{Approval, ApprovalId, Kind, Line, Plan, PlanHash, Reason, State, Subject, Verdict, Vote, VoteId};
pub use outside::{Followed, Invitation, Shown, decide_outside, invite, list_invited, revoke_invitation, show_outside};

const TABLE: &str = "muneem.people_approvals";
/// Longest life of a decision.
const LIFE_MAX: TimeDelta = TimeDelta::days(90);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is decided on.
    pub subject: Subject<'a>,
    /// What is to be done.
    pub plan: &'a Plan,
    /// How many people must say yes, 1 to 5.
    pub approvers_needed: i16,
    /// When it ends by itself, ninety days away at most.
    pub expires_at: DateTime<Utc>,
}

/// Asks for a decision. Whoever calls has checked that `decision.by` may ask for such a thing.
///
/// # Errors
/// One is open about the same thing; the number, the expiry or the summary is off; the subject is not of a business
/// that exists for `decision.by`.
pub async fn ask(
    db: &mut PgConnection,
    vault: &Vault,
    ask: &Ask<'_>,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let (by, now) = (decision.by, decision.now.trunc_subsecs(6));
    let subject = &ask.subject;
    check_sees(by, subject.business_id)?;
    if !is_word(subject.id) {
        return Err(Error::BadSubject);
    }
    if !(1..=5).contains(&ask.approvers_needed) {
        return Err(Error::BadNumber);
    }
    if ask.expires_at <= now || ask.expires_at > now + LIFE_MAX {
        return Err(Error::BadExpiry);
    }
    let plan_sha256 = ask.plan.digest(subject)?;
    let approval = Approval {
        approval_id: ApprovalId(decision.chance.uuid_v7(now)),
        business_id: subject.business_id,
        kind: subject.kind,
        subject_id: subject.id.to_owned(),
        plan_sha256,
        version: 1,
        approvers_needed: ask.approvers_needed,
        requested_by: by.name().to_owned(),
        requested_staff: by.asker(),
        requested_at: now,
        expires_at: ask.expires_at.trunc_subsecs(6),
        state: State::Pending,
        approved_at: None,
        ended_at: None,
    };
    let mut tx = db.begin().await?;
    hold_asker(&mut tx, by).await?;
    let summary = seal_summary(&mut tx, vault, &approval, ask.plan).await?;
    store::insert_approval(&mut tx, &approval, &summary).await?;
    record(&mut tx, decision, words::APPROVAL_ASKED, &approval, Value::Null).await?;
    // A decision about the installation has no business to run a job for; it expires all the same.
    if let Some(business) = approval.business_id {
        let end = NewJob::of(business, &EndApproval { approval_id: approval.approval_id })?;
        queue::enqueue(&mut tx, &end.run_at(approval.expires_at)).await?;
    }
    tx.commit().await?;
    Ok(approval)
}

/// Puts another plan in the place of the one that was asked for: everybody is asked anew. Whoever changes it does not
/// approve it from then on.
///
/// # Errors
/// It has ended; the plan is the same; the summary is off.
pub async fn change_plan(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    plan: &Plan,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let by = decision.by;
    let mut tx = db.begin().await?;
    hold_asker(&mut tx, by).await?;
    let mut approval = locked(&mut tx, approval_id, by).await?;
    check_open(&approval, decision.now)?;
    let plan_sha256 = plan.digest(&approval.subject())?;
    if plan_sha256 == approval.plan_sha256 {
        return Err(Error::SamePlan);
    }
    approval.plan_sha256 = plan_sha256;
    approval.version += 1;
    approval.requested_by = by.name().to_owned();
    approval.requested_staff = by.asker();
    approval.state = State::Pending;
    approval.approved_at = None;
    let summary = seal_summary(&mut tx, vault, &approval, plan).await?;
    store::update_plan(&mut tx, &approval, &summary).await?;
    record(&mut tx, decision, words::APPROVAL_PLAN_CHANGED, &approval, Value::Null).await?;
    tx.commit().await?;
    Ok(approval)
}

/// Says yes or no to the plan with the hash `seen`. With the last yes that is needed it is approved; with one no it is
/// denied and has ended.
///
/// # Errors
/// `decision.by` is no person, may not approve this kind, asked for it, has decided already or under another account,
/// or is not verified; the plan has changed since; the decision has ended. Of all that race, one wins.
/// [`Error::Swapped`]: the summary that approvers are shown is not the one that was asked for; a no counts all the same.
#[expect(
    clippy::too_many_arguments,
    reason = "what was seen, what she says to it and what checks both belong to one step"
)]
pub async fn decide(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    seen: &PlanHash,
    verdict: Verdict,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    vote(db, vault, approval_id, (seen, verdict, None), decision).await
}

/// Says no, as [`decide`] does, and why.
///
/// # Errors
/// As [`decide`].
#[expect(
    clippy::too_many_arguments,
    reason = "what was seen, what she says to it and what checks both belong to one step"
)]
pub async fn deny(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    seen: &PlanHash,
    reason: Reason,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    vote(db, vault, approval_id, (seen, Verdict::Deny, Some(reason)), decision).await
}

async fn vote(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    (seen, verdict, reason): (&PlanHash, Verdict, Option<Reason>),
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let mut tx = db.begin().await?;
    let found = visible(&mut tx, approval_id, decision.by).await?;
    let person = decision.by.person().ok_or(Error::ForPeopleAlone(found.kind.scope()))?;
    // Her own row first, here as when she is removed: whoever waits, waits in one order.
    if !staff_store::share_staff(&mut tx, person).await? {
        return Err(super::Error::NoSuchStaff(person).into());
    }
    let approval = locked(&mut tx, approval_id, decision.by).await?;
    let staff = super::find_active_staff(&mut tx, person).await?.ok_or(super::Error::NoSuchStaff(person))?;
    check_may(&staff, approval.kind.scope())?;
    check_open(&approval, decision.now)?;
    check_shown(&mut tx, vault, &approval, verdict).await?;
    let vote = store::NewVote {
        vote_id: VoteId(decision.chance.uuid_v7(decision.now)),
        staff_id: Some(person),
        link_id: None,
        seen,
        verdict,
        reason,
    };
    let approval = cast(&mut tx, approval, &vote, decision).await?;
    tx.commit().await?;
    Ok(approval)
}

/// Writes the vote and what comes of it. The caller holds the decision.
async fn cast(
    tx: &mut PgConnection,
    mut approval: Approval,
    vote: &store::NewVote<'_>,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let now = decision.now.trunc_subsecs(6);
    if *vote.seen != approval.plan_sha256 {
        return Err(Error::PlanChanged);
    }
    if approval.state != State::Pending {
        return Err(match vote.verdict {
            // Somebody else was the last that was needed: to her own yes she is told that it counted before.
            Verdict::Approve if store::has_voted(tx, &approval, vote).await? => Error::AlreadyVoted,
            _ => Error::NotOpen(approval.state),
        });
    }
    store::insert_vote(tx, &approval, vote, now).await?;
    let verb = match vote.verdict {
        Verdict::Approve => words::APPROVAL_GIVEN,
        Verdict::Deny => words::APPROVAL_DENIED,
    };
    match vote.verdict {
        Verdict::Deny => end(tx, &mut approval, State::Denied, now).await?,
        Verdict::Approve
            if store::count_yes(tx, approval.approval_id).await? >= i32::from(approval.approvers_needed) =>
        {
            approval.state = State::Approved;
            approval.approved_at = Some(now);
            store::update_state(tx, &approval).await?;
        }
        Verdict::Approve => {}
    }
    let mut details = json!({ "state": approval.state, "vote_id": vote.vote_id });
    if let Some(reason) = vote.reason {
        details["reason"] = json!(reason);
    }
    record(tx, decision, verb, &approval, details).await?;
    Ok(approval)
}

/// Takes back her own yes before it is carried out; what was approved is pending again. Without a yes it is no error.
///
/// # Errors
/// `decision.by` is no person; the decision has ended.
pub async fn take_back(
    db: &mut PgConnection,
    approval_id: ApprovalId,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let mut tx = db.begin().await?;
    let mut approval = locked(&mut tx, approval_id, decision.by).await?;
    let person = decision.by.person().ok_or(Error::ForPeopleAlone(approval.kind.scope()))?;
    check_open(&approval, decision.now)?;
    if store::withdraw_votes(&mut tx, approval_id, person, decision.now.trunc_subsecs(6)).await? > 0 {
        reopen_if_short(&mut tx, &mut approval).await?;
        let details = json!({ "state": approval.state });
        record(&mut tx, decision, words::APPROVAL_TAKEN_BACK, &approval, details).await?;
    }
    tx.commit().await?;
    Ok(approval)
}

/// Withdraws what was asked for: by whoever asked, or by the owner.
///
/// # Errors
/// `decision.by` is neither; it has ended.
pub async fn withdraw(
    db: &mut PgConnection,
    approval_id: ApprovalId,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let by = decision.by;
    let mut tx = db.begin().await?;
    let mut approval = locked(&mut tx, approval_id, by).await?;
    if by.name() != approval.requested_by {
        by.require(Scope::ApprovalInvite)?;
    }
    check_open(&approval, decision.now)?;
    end(&mut tx, &mut approval, State::Withdrawn, decision.now.trunc_subsecs(6)).await?;
    record(&mut tx, decision, words::APPROVAL_WITHDRAWN, &approval, Value::Null).await?;
    tx.commit().await?;
    Ok(approval)
}

/// Gives an approved plan free, once, to whoever brings that very plan: called in the transaction that carries it out.
///
/// # Errors
/// [`Error::PlanChanged`]: another plan was approved; [`Error::NotApproved`]; it has ended.
pub async fn carry_out(
    tx: &mut PgConnection,
    approval_id: ApprovalId,
    plan_sha256: &PlanHash,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let mut approval = locked(tx, approval_id, decision.by).await?;
    check_open(&approval, decision.now)?;
    if approval.plan_sha256 != *plan_sha256 {
        return Err(Error::PlanChanged);
    }
    if approval.state != State::Approved {
        return Err(Error::NotApproved);
    }
    end(tx, &mut approval, State::CarriedOut, decision.now.trunc_subsecs(6)).await?;
    record(tx, decision, words::APPROVAL_CARRIED_OUT, &approval, Value::Null).await?;
    Ok(approval)
}

/// The decision with this id, if it exists for `by`.
///
/// # Errors
/// [`Error::NoSuchApproval`]; `by` may not see decisions.
pub async fn load(db: &mut PgConnection, approval_id: ApprovalId, by: &Authority) -> Result<Approval, Error> {
    by.require(Scope::ApprovalRead)?;
    visible(db, approval_id, by).await
}

/// Who decided on it and how, the earliest first; with what was taken back and what was about older plans.
///
/// # Errors
/// As [`load`].
pub async fn list_votes(db: &mut PgConnection, approval_id: ApprovalId, by: &Authority) -> Result<Vec<Vote>, Error> {
    load(db, approval_id, by).await?;
    store::list_votes(db, approval_id).await
}

/// What approvers are shown.
///
/// # Errors
/// As [`load`]; [`Error::Swapped`]: it is not what was asked for; the vault is sealed.
pub async fn open_summary(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    by: &Authority,
) -> Result<Vec<Line>, Error> {
    let approval = load(db, approval_id, by).await?;
    summary_of(db, vault, &approval).await
}

/// Which decisions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Of this business only.
    pub business_id: Option<BusinessId>,
    /// Open ones only.
    pub open: bool,
    /// Older than this one.
    pub before: Option<ApprovalId>,
}

/// Decisions, the newest first.
///
/// # Errors
/// `by` may not see them.
pub async fn list(db: &mut PgConnection, filter: &Filter, limit: u16, by: &Authority) -> Result<Vec<Approval>, Error> {
    by.require(Scope::ApprovalRead)?;
    let business_id = match (by.business(), filter.business_id) {
        (None, asked) => asked,
        (own, None) => own,
        (Some(own), Some(asked)) if own == asked => Some(own),
        _ => return Err(super::Error::NoSuchBusiness("of another".to_owned()).into()),
    };
    store::list_approvals(db, &Filter { business_id, ..*filter }, limit).await
}

/// Ends what somebody has a hand in who leaves, or may not approve any more: her yes counts no longer, and with her
/// goes what she asked for.
///
/// # Errors
/// The database fails.
pub(super) async fn forget_person(
    tx: &mut PgConnection,
    staff: &Staff,
    leaves: bool,
    decision: &Decision<'_>,
) -> Result<(), Error> {
    let now = decision.now.trunc_subsecs(6);
    let may = staff.scopes();
    for mut approval in store::lock_open_with_vote_of(tx, staff.staff_id).await? {
        if !leaves && may.contains(&approval.kind.scope()) {
            continue;
        }
        store::withdraw_votes(tx, approval.approval_id, staff.staff_id, now).await?;
        reopen_if_short(tx, &mut approval).await?;
        let details = json!({ "state": approval.state, "approver": staff.staff_id });
        record(tx, decision, words::APPROVAL_TAKEN_BACK, &approval, details).await?;
    }
    if leaves {
        for mut approval in store::lock_open_asked_by(tx, staff.staff_id).await? {
            end(tx, &mut approval, State::Withdrawn, now).await?;
            record(tx, decision, words::APPROVAL_WITHDRAWN, &approval, Value::Null).await?;
        }
    }
    Ok(())
}

/// What was approved and is no longer, for want of a yes, waits again.
async fn reopen_if_short(tx: &mut PgConnection, approval: &mut Approval) -> Result<(), Error> {
    if approval.state == State::Approved
        && store::count_yes(tx, approval.approval_id).await? < i32::from(approval.approvers_needed)
    {
        approval.state = State::Pending;
        approval.approved_at = None;
        store::update_state(tx, approval).await?;
    }
    Ok(())
}

/// Ends a decision, and with it the invitations that were not used.
async fn end(tx: &mut PgConnection, approval: &mut Approval, state: State, now: DateTime<Utc>) -> Result<(), Error> {
    approval.state = state;
    approval.ended_at = Some(now);
    store::update_state(tx, approval).await?;
    links::revoke_all(tx, Purpose::Approval, approval.approval_id.0, now).await?;
    Ok(())
}

/// Holds whoever asks as she is, before anything of the decision: what somebody asks for while she is put out ends with
/// the rest of hers, or is refused.
async fn hold_asker(tx: &mut PgConnection, by: &Authority) -> Result<(), Error> {
    match by.asker() {
        Some(staff) if !staff_store::share_staff(tx, staff).await? => Err(super::Error::NoSuchStaff(staff).into()),
        _ => Ok(()),
    }
}

async fn visible(db: &mut PgConnection, approval_id: ApprovalId, by: &Authority) -> Result<Approval, Error> {
    let found = store::find_approval(db, approval_id).await?.filter(|approval| by.sees(approval.business_id));
    found.ok_or(Error::NoSuchApproval(approval_id))
}

/// The decision as it is, held until the transaction ends.
async fn locked(tx: &mut PgConnection, approval_id: ApprovalId, by: &Authority) -> Result<Approval, Error> {
    let found = store::lock_approval(tx, approval_id).await?.filter(|approval| by.sees(approval.business_id));
    found.ok_or(Error::NoSuchApproval(approval_id))
}

fn check_open(approval: &Approval, now: DateTime<Utc>) -> Result<(), Error> {
    let state = approval.state_at(now);
    if state.is_open() { Ok(()) } else { Err(Error::NotOpen(state)) }
}

fn check_sees(by: &Authority, business: Option<BusinessId>) -> Result<(), Error> {
    if by.sees(business) { Ok(()) } else { Err(super::Error::NoSuchBusiness("of another".to_owned()).into()) }
}

fn check_may(staff: &Staff, scope: Scope) -> Result<(), Error> {
    if staff.scopes().contains(&scope) { Ok(()) } else { Err(super::Error::MissingScope(scope).into()) }
}

fn is_word(text: &str) -> bool {
    (1..=160).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte))
}

fn cell<'a>(approval: &Approval, row: &'a str) -> Cell<'a> {
    Cell { business_id: approval.business_id.unwrap_or(INSTALLATION), table: TABLE, column: "summary_sealed", row }
}

async fn seal_summary(
    tx: &mut PgConnection,
    vault: &Vault,
    approval: &Approval,
    plan: &Plan,
) -> Result<Vec<u8>, Error> {
    let bound =
        Bound { version: approval.version, plan_sha256: approval.plan_sha256.to_string(), lines: &plan.summary };
    let plain = serde_json::to_vec(&bound).map_err(Error::NotCanonical)?;
    let row = approval.approval_id.to_string();
    Ok(vault.seal(tx, Class::Document, &cell(approval, &row), &plain).await?)
}

async fn summary_of(db: &mut PgConnection, vault: &Vault, approval: &Approval) -> Result<Vec<Line>, Error> {
    let sealed = store::find_summary(db, approval.approval_id).await?;
    let row = approval.approval_id.to_string();
    let plain = match vault.open(db, &cell(approval, &row), &sealed).await {
        Err(vault::Error::Unreadable { .. }) => return Err(Error::Swapped(approval.approval_id)),
        plain => plain?,
    };
    let bound: Bound<Vec<Line>> = serde_json::from_slice(&plain).map_err(|_| Error::Swapped(approval.approval_id))?;
    let is_in_force = bound.version == approval.version && bound.plan_sha256 == approval.plan_sha256.to_string();
    if is_in_force { Ok(bound.lines) } else { Err(Error::Swapped(approval.approval_id)) }
}

/// Nobody says yes to a decision whose summary is not the one that was asked for; to say no is never wrong.
async fn check_shown(tx: &mut PgConnection, vault: &Vault, approval: &Approval, verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Approve => summary_of(tx, vault, approval).await.map(drop),
        Verdict::Deny => Ok(()),
    }
}

/// What is sealed of a summary. The cell binds it to its decision, and these to the plan in force: an older summary of
/// the same decision opens, and is known for what it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound<L> {
    version: i32,
    plan_sha256: String,
    lines: L,
}

/// Writes into the evidence what was decided, in the transaction that does it.
async fn record(
    tx: &mut PgConnection,
    decision: &Decision<'_>,
    verb: Word,
    approval: &Approval,
    more: Value,
) -> Result<(), Error> {
    record_as(tx, decision, decision.by.actor().clone(), verb, approval, more).await
}

#[expect(clippy::too_many_arguments, reason = "an event has that many parts")]
async fn record_as(
    tx: &mut PgConnection,
    decision: &Decision<'_>,
    actor: Actor,
    verb: Word,
    approval: &Approval,
    more: Value,
) -> Result<(), Error> {
    let mut details = json!({
        "kind": approval.kind,
        "subject": approval.subject_id,
        "version": approval.version,
        "plan_sha256": approval.plan_sha256,
    });
    if let (Some(details), Value::Object(more)) = (details.as_object_mut(), more) {
        details.extend(more);
    }
    let event = Event {
        event_id: EventId::new(decision.chance, decision.now),
        business_id: approval.business_id,
        actor,
        verb,
        object: Object { kind: "approval", id: &approval.approval_id.to_string() },
        details,
    };
    evidence::record(tx, &event).await?;
    Ok(())
}
