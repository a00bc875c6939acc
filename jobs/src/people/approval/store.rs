use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Approval, ApprovalId, Error, Filter, PlanHash, Reason, State, Verdict, Vote, VoteId};
use crate::people::{BusinessId, StaffId, links::LinkId};

pub(super) async fn insert_approval(
    tx: &mut PgConnection,
    approval: &Approval,
    summary_sealed: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_approvals
             (approval_id, business_id, kind, subject_id, plan_sha256, version, summary_sealed, approvers_needed,
              requested_by, requested_staff, requested_at, expires_at, state)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        approval.approval_id.0,
        approval.business_id as Option<BusinessId>,
        approval.kind.as_str(),
        approval.subject_id,
        approval.plan_sha256.as_bytes(),
        approval.version,
        summary_sealed,
        approval.approvers_needed,
        approval.requested_by,
        approval.requested_staff as Option<StaffId>,
        approval.requested_at,
        approval.expires_at,
        approval.state.as_str(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Row {
    approval_id: ApprovalId,
    business_id: Option<BusinessId>,
    kind: String,
    subject_id: String,
    plan_sha256: Vec<u8>,
    version: i32,
    approvers_needed: i16,
    requested_by: String,
    requested_staff: Option<StaffId>,
    requested_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    state: String,
    approved_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

impl Row {
    /// A kind or state that this version does not know is nothing it can decide on.
    fn read(self) -> Option<Approval> {
        Some(Approval {
            kind: self.kind.parse().ok()?,
            state: State::ALL.into_iter().find(|state| state.as_str() == self.state)?,
            plan_sha256: PlanHash(self.plan_sha256.try_into().ok()?),
            approval_id: self.approval_id,
            business_id: self.business_id,
            subject_id: self.subject_id,
            version: self.version,
            approvers_needed: self.approvers_needed,
            requested_by: self.requested_by,
            requested_staff: self.requested_staff,
            requested_at: self.requested_at,
            expires_at: self.expires_at,
            approved_at: self.approved_at,
            ended_at: self.ended_at,
        })
    }
}

pub(super) async fn find_approval(db: &mut PgConnection, id: ApprovalId) -> Result<Option<Approval>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select approval_id as "approval_id: ApprovalId", business_id as "business_id: BusinessId", kind, subject_id,
                  plan_sha256, version, approvers_needed, requested_by, requested_staff as "requested_staff: StaffId",
                  requested_at, expires_at, state, approved_at, ended_at
           from muneem.people_approvals
           where approval_id = $1"#,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.and_then(Row::read))
}

pub(super) async fn lock_approval(tx: &mut PgConnection, id: ApprovalId) -> Result<Option<Approval>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select approval_id as "approval_id: ApprovalId", business_id as "business_id: BusinessId", kind, subject_id,
                  plan_sha256, version, approvers_needed, requested_by, requested_staff as "requested_staff: StaffId",
                  requested_at, expires_at, state, approved_at, ended_at
           from muneem.people_approvals
           where approval_id = $1
           for update"#,
        id.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.and_then(Row::read))
}

pub(super) async fn list_approvals(db: &mut PgConnection, filter: &Filter, limit: u16) -> Result<Vec<Approval>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select approval_id as "approval_id: ApprovalId", business_id as "business_id: BusinessId", kind, subject_id,
                  plan_sha256, version, approvers_needed, requested_by, requested_staff as "requested_staff: StaffId",
                  requested_at, expires_at, state, approved_at, ended_at
           from muneem.people_approvals
           where ($1::uuid is null or business_id = $1)
               and (not $2 or ended_at is null)
               and ($3::uuid is null or approval_id < $3)
           order by approval_id desc
           limit $4"#,
        filter.business_id as Option<BusinessId>,
        filter.open,
        filter.before as Option<ApprovalId>,
        i64::from(limit),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// What asks for the word of one person.
pub(super) struct Wanted {
    pub(super) staff: StaffId,
    pub(super) business: Option<BusinessId>,
    /// Kinds that she may decide on.
    pub(super) kinds: Vec<String>,
    pub(super) now: DateTime<Utc>,
}

/// Decisions that wait for her, the newest first. That she is not the asker under another account, the database sees
/// when she votes.
pub(super) async fn list_waiting(db: &mut PgConnection, wanted: &Wanted, limit: u16) -> Result<Vec<Approval>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select a.approval_id as "approval_id: ApprovalId", a.business_id as "business_id: BusinessId", a.kind,
                  a.subject_id, a.plan_sha256, a.version, a.approvers_needed, a.requested_by,
                  a.requested_staff as "requested_staff: StaffId", a.requested_at, a.expires_at, a.state, a.approved_at,
                  a.ended_at
           from muneem.people_approvals a
           where a.ended_at is null
               and a.state = 'pending'
               and a.business_id is not distinct from $1
               and a.kind = any($2)
               and a.expires_at > $3
               and a.requested_staff is distinct from $4
               and not exists (
                   select from muneem.people_approval_votes v
                   where v.approval_id = a.approval_id
                       and v.version = a.version
                       and v.staff_id = $4
                       and v.withdrawn_at is null)
           order by a.approval_id desc
           limit $5"#,
        wanted.business as Option<BusinessId>,
        &wanted.kinds,
        wanted.now,
        wanted.staff.0,
        i64::from(limit),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Open decisions whose plan in force `staff` asked for, the newest first.
pub(super) async fn list_asked(
    db: &mut PgConnection,
    staff: StaffId,
    now: DateTime<Utc>,
    limit: u16,
) -> Result<Vec<Approval>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select approval_id as "approval_id: ApprovalId", business_id as "business_id: BusinessId", kind, subject_id,
                  plan_sha256, version, approvers_needed, requested_by, requested_staff as "requested_staff: StaffId",
                  requested_at, expires_at, state, approved_at, ended_at
           from muneem.people_approvals
           where requested_staff = $1
               and ended_at is null
               and expires_at > $2
           order by approval_id desc
           limit $3"#,
        staff.0,
        now,
        i64::from(limit),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Open decisions that `staff` said yes to, held, in one order for everybody.
pub(super) async fn lock_open_with_vote_of(tx: &mut PgConnection, staff: StaffId) -> Result<Vec<Approval>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select a.approval_id as "approval_id: ApprovalId", a.business_id as "business_id: BusinessId", a.kind,
                  a.subject_id, a.plan_sha256, a.version, a.approvers_needed, a.requested_by,
                  a.requested_staff as "requested_staff: StaffId", a.requested_at, a.expires_at, a.state, a.approved_at,
                  a.ended_at
           from muneem.people_approvals a
           where a.ended_at is null
               and exists (
                   select from muneem.people_approval_votes v
                   where v.approval_id = a.approval_id and v.staff_id = $1 and v.withdrawn_at is null)
           order by a.approval_id
           for update"#,
        staff.0,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Open decisions whose plan in force `staff` asked for, held, in one order for everybody.
pub(super) async fn lock_open_asked_by(tx: &mut PgConnection, staff: StaffId) -> Result<Vec<Approval>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select approval_id as "approval_id: ApprovalId", business_id as "business_id: BusinessId", kind, subject_id,
                  plan_sha256, version, approvers_needed, requested_by, requested_staff as "requested_staff: StaffId",
                  requested_at, expires_at, state, approved_at, ended_at
           from muneem.people_approvals
           where requested_staff = $1
               and ended_at is null
           order by approval_id
           for update"#,
        staff.0,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

pub(super) async fn update_plan(
    tx: &mut PgConnection,
    approval: &Approval,
    summary_sealed: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_approvals
         set plan_sha256 = $2, version = $3, summary_sealed = $4, requested_by = $5, requested_staff = $6,
             state = 'pending', approved_at = null
         where approval_id = $1",
        approval.approval_id.0,
        approval.plan_sha256.as_bytes(),
        approval.version,
        summary_sealed,
        approval.requested_by,
        approval.requested_staff as Option<StaffId>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn update_state(tx: &mut PgConnection, approval: &Approval) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_approvals set state = $2, approved_at = $3, ended_at = $4 where approval_id = $1",
        approval.approval_id.0,
        approval.state.as_str(),
        approval.approved_at,
        approval.ended_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn find_summary(db: &mut PgConnection, id: ApprovalId) -> Result<Vec<u8>, Error> {
    let sealed = sqlx::query_scalar!("select summary_sealed from muneem.people_approvals where approval_id = $1", id.0)
        .fetch_optional(db)
        .await?;
    sealed.ok_or(Error::NoSuchApproval(id))
}

/// A vote about to be cast.
pub(super) struct NewVote<'a> {
    pub(super) vote_id: VoteId,
    pub(super) staff_id: Option<StaffId>,
    pub(super) link_id: Option<LinkId>,
    pub(super) seen: &'a PlanHash,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
}

pub(super) async fn insert_vote(
    tx: &mut PgConnection,
    approval: &Approval,
    vote: &NewVote<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_approval_votes
             (vote_id, approval_id, business_id, version, plan_sha256, staff_id, link_id, verdict, reason, voted_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        vote.vote_id.0,
        approval.approval_id.0,
        approval.business_id as Option<BusinessId>,
        approval.version,
        vote.seen.as_bytes(),
        vote.staff_id as Option<StaffId>,
        vote.link_id as Option<LinkId>,
        vote.verdict.as_str(),
        vote.reason.map(Reason::as_str),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether this person said yes to the plan in force, and it counts.
pub(super) async fn has_voted(tx: &mut PgConnection, approval: &Approval, vote: &NewVote<'_>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.people_approval_votes
               where approval_id = $1 and version = $2 and party = coalesce($3::uuid, $4) and withdrawn_at is null
           ) as "voted!""#,
        approval.approval_id.0,
        approval.version,
        vote.staff_id as Option<StaffId>,
        vote.link_id as Option<LinkId>,
    )
    .fetch_one(tx)
    .await?)
}

/// People who say yes to the plan in force.
pub(super) async fn count_yes(tx: &mut PgConnection, id: ApprovalId) -> Result<i32, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.people_approval_count($1) as "count!""#, id.0).fetch_one(tx).await?)
}

/// Number of votes that counted until now.
pub(super) async fn withdraw_votes(
    tx: &mut PgConnection,
    id: ApprovalId,
    staff: StaffId,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_approval_votes
         set withdrawn_at = $3
         where approval_id = $1
             and staff_id = $2
             and withdrawn_at is null",
        id.0,
        staff.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(outcome.rows_affected())
}

pub(super) async fn list_votes(db: &mut PgConnection, id: ApprovalId) -> Result<Vec<Vote>, Error> {
    let rows = sqlx::query!(
        r#"select vote_id as "vote_id: VoteId", version, staff_id as "staff_id: StaffId", link_id as "link_id: LinkId",
                  verdict, reason, voted_at, withdrawn_at
           from muneem.people_approval_votes
           where approval_id = $1
           order by voted_at, vote_id"#,
        id.0,
    )
    .fetch_all(db)
    .await?;
    let votes = rows.into_iter().map(|row| Vote {
        vote_id: row.vote_id,
        version: row.version,
        staff_id: row.staff_id,
        link_id: row.link_id,
        reason: row.reason.and_then(|reason| reason.parse().ok()),
        verdict: if row.verdict == "approve" { Verdict::Approve } else { Verdict::Deny },
        voted_at: row.voted_at,
        withdrawn_at: row.withdrawn_at,
    });
    Ok(votes.collect())
}

/// Whether one of these contacts had a hand in the decision, or is of somebody who works for its business.
pub(super) async fn is_known_contact(
    db: &mut PgConnection,
    approval: &Approval,
    channel: &str,
    indexes: &[Vec<u8>],
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.people_approval_contacts
               where approval_id = $1 and channel = $2 and contact_index = any($3)
           ) or exists (
               select from muneem.people_staff
               where business_id = $4
                   and removed_at is null
                   and case when $2 = 'phone' then phone_index else email_index end = any($3)
           ) as "known!""#,
        approval.approval_id.0,
        channel,
        indexes,
        approval.business_id as Option<BusinessId>,
    )
    .fetch_one(db)
    .await?)
}

/// Whether somebody who asked works for `carrier` too, under whatever account.
pub(super) async fn works_for(db: &mut PgConnection, approval: &Approval, carrier: BusinessId) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.people_approval_contacts c
               join muneem.people_staff s
                   on case when c.channel = 'phone' then s.phone_index else s.email_index end = c.contact_index
               where c.approval_id = $1
                   and c.asked
                   and s.business_id = $2
                   and s.removed_at is null
           ) as "works!""#,
        approval.approval_id.0,
        carrier.0,
    )
    .fetch_one(db)
    .await?)
}

/// Verified people of the business who had no hand in asking, with their roles.
pub(super) async fn list_candidates(db: &mut PgConnection, approval: &Approval) -> Result<Vec<Vec<String>>, Error> {
    let rows = sqlx::query_scalar!(
        r#"select array(select r.role from muneem.people_staff_roles r where r.staff_id = s.staff_id) as "roles!"
           from muneem.people_staff s
           where s.business_id = $1
               and s.removed_at is null
               and (s.phone_verified_at is not null or s.email_verified_at is not null)
               and not exists (
                   select from muneem.people_approval_contacts c
                   where c.approval_id = $2 and c.asked
                       and (c.party = s.staff_id
                           or (c.channel = 'phone' and c.contact_index = s.phone_index)
                           or (c.channel = 'email' and c.contact_index = s.email_index)))"#,
        approval.business_id as Option<BusinessId>,
        approval.approval_id.0,
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}
