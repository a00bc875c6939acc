use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::people::{
    Authority,
    approval::{self, ApprovalId, Reason, Verdict},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api,
        auth::Caller,
        body::Nothing,
        cursor::{self, Listing, Page},
        post::{Begun, Post},
        problem::{Problem, ProblemId},
        query::Query,
    },
    decision,
};

/// A decision that takes a second person, without what its plan says.
#[derive(Serialize, ToSchema)]
pub(super) struct Approval {
    /// Its id.
    approval_id: uuid::Uuid,
    /// Id of the business; none: the installation.
    business_id: Option<uuid::Uuid>,
    /// What kind of thing is decided on.
    #[schema(example = "rights.plan")]
    kind: &'static str,
    /// The thing, by its id in its own duty.
    subject_id: String,
    /// SHA-256 of the plan: what an approval is bound to.
    plan_sha256: String,
    /// Eight letters of it, to compare on the telephone.
    #[schema(example = "3f2a-91bc")]
    plan_short: String,
    /// Counts the plans; each change asks everybody anew.
    version: i32,
    /// How many people must say yes.
    approvers_needed: i16,
    /// Who asked for the plan in force.
    requested_by: String,
    /// When it was first asked.
    requested_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: DateTime<Utc>,
    /// pending, approved, carried_out, denied, withdrawn or expired.
    state: &'static str,
    /// When it was approved last.
    approved_at: Option<DateTime<Utc>>,
    /// When it ended.
    ended_at: Option<DateTime<Utc>>,
}

impl Approval {
    fn of(approval: approval::Approval, now: DateTime<Utc>) -> Self {
        Self {
            state: approval.state_at(now).as_str(),
            approval_id: approval.approval_id.0,
            business_id: approval.business_id.map(|business| business.0),
            kind: approval.kind.as_str(),
            subject_id: approval.subject_id,
            plan_sha256: approval.plan_sha256.to_string(),
            plan_short: approval.plan_sha256.short(),
            version: approval.version,
            approvers_needed: approval.approvers_needed,
            requested_by: approval.requested_by,
            requested_at: approval.requested_at,
            expires_at: approval.expires_at,
            approved_at: approval.approved_at,
            ended_at: approval.ended_at,
        }
    }
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// Only those of which something can still come.
    open: Option<bool>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List decisions that take a second person, newest first
#[utoipa::path(get, path = "/v1/people/approvals", tag = "people", params(Filter),
    responses((status = 200, body = Page<Approval>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Approval>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<ApprovalId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business_id = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let filter = approval::Filter { business_id, open: asked.open.unwrap_or(false), before };
    let found = approval::list(&mut db, &filter, limit + 1, &Authority::of_caller(&caller)).await?;
    let now = api.clock.now();
    let found = found.into_iter().map(|one| Approval::of(one, now)).collect();
    Ok(Json(cursors.page(found, limit, |one: &Approval| one.approval_id.to_string())))
}

/// One yes or no of one person.
#[derive(Serialize, ToSchema)]
pub(super) struct Vote {
    /// The plan that it is about.
    version: i32,
    /// Id of the person of staff.
    staff_id: Option<uuid::Uuid>,
    /// Id of the invitation of somebody outside.
    link_id: Option<uuid::Uuid>,
    /// approve or deny.
    #[schema(value_type = String)]
    verdict: Verdict,
    /// Why not: too_much, wrong, unclear, not_now or not_expected.
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    /// When.
    voted_at: DateTime<Utc>,
    /// When it ceased to count.
    withdrawn_at: Option<DateTime<Utc>>,
}

/// Somebody outside who was invited to decide.
#[derive(Serialize, ToSchema)]
pub(super) struct Invited {
    /// Id of the invitation.
    link_id: uuid::Uuid,
    /// phone or email.
    channel: String,
    /// Who invited her.
    made_by: String,
    /// When.
    made_at: DateTime<Utc>,
    /// When she first entered her code.
    verified_at: Option<DateTime<Utc>>,
    /// When she decided.
    used_at: Option<DateTime<Utc>>,
    /// When the invitation was taken back.
    revoked_at: Option<DateTime<Utc>>,
}

/// A decision with who decided and who was invited.
#[derive(Serialize, ToSchema)]
pub(super) struct Whole {
    /// The decision.
    #[serde(flatten)]
    approval: Approval,
    /// Who decided, the earliest first.
    votes: Vec<Vote>,
    /// Who was invited from outside, the latest first.
    invited: Vec<Invited>,
}

fn id_of(text: &str) -> Result<ApprovalId, Problem> {
    text.parse().map_err(|_| ProblemId::NoSuchApproval.into())
}

/// Show one decision
#[utoipa::path(get, path = "/v1/people/approvals/{id}", tag = "people", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Whole)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Whole>, Problem> {
    let (id, by) = (id_of(&id)?, Authority::of_caller(&caller));
    let mut db = caller.enter(&api).await?;
    let approval = approval::load(&mut db, id, &by).await?;
    let votes = approval::list_votes(&mut db, id, &by).await?.into_iter().map(|vote| Vote {
        version: vote.version,
        staff_id: vote.staff_id.map(|staff| staff.0),
        link_id: vote.link_id.map(|link| link.0),
        verdict: vote.verdict,
        reason: vote.reason,
        voted_at: vote.voted_at,
        withdrawn_at: vote.withdrawn_at,
    });
    let votes = votes.collect();
    let invited = approval::list_invited(&mut db, id, &by).await?.into_iter().map(|link| Invited {
        link_id: link.link_id.0,
        channel: link.channel,
        made_by: link.made_by,
        made_at: link.made_at,
        verified_at: link.verified_at,
        used_at: link.used_at,
        revoked_at: link.revoked_at,
    });
    let invited = invited.collect();
    Ok(Json(Whole { approval: Approval::of(approval, api.clock.now()), votes, invited }))
}

/// Withdraw what this token asked for
#[utoipa::path(post, path = "/v1/people/approvals/{id}/withdraw", tag = "people", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Approval)))]
pub(super) async fn withdraw(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let id = id_of(&id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = Authority::of_caller(&post.caller);
    let ended = approval::withdraw(effect.db(), id, &decision(&api, &by)).await?;
    effect.answer(StatusCode::OK, &Approval::of(ended, api.clock.now())).await
}
