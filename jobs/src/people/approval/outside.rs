//! Somebody outside the business who decides once: the second person of a business that has only one.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    Approval, ApprovalId, Decision, Error, Kind, Line, PlanHash, State, Verdict, VoteId, cast, check_open, check_shown,
    locked, record, record_as, store, summary_of, visible,
};
use crate::{
    evidence::{Actor, words},
    people::{
        self, Authority, BusinessId, Role, Scope, business,
        links::{self, Contact, Link, LinkId, NewLink, Proved, Purpose},
        scopes_of,
    },
    vault::Vault,
};

/// Open invitations to one decision.
const INVITED_MAX: usize = 3;
/// Invitations in the life of one decision, those that were taken back among them: each writes to a stranger.
const INVITED_EVER: usize = 10;

/// Whom to invite, and how.
#[derive(Clone, Debug)]
pub struct Invitation<'a> {
    /// Her phone or mail address.
    pub contact: &'a Contact,
    /// Business whose WhatsApp account writes on behalf of the installation. That of the business that asks carries no
    /// invitation: its owner could read the code there, and decide for her.
    pub carrier: Option<BusinessId>,
    /// Her language, BCP 47.
    pub language: &'a str,
    /// What stands before the link's path: `https://muneem.example.in`.
    pub origin: &'a str,
}

/// Invites somebody outside to one decision. The link goes to her; its address is also answered, once.
///
/// # Errors
/// `decision.by` may not invite; somebody of the business may approve herself; the contact is of somebody who has a hand
/// in it or works there; three were invited already; it is not pending.
pub async fn invite(
    db: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    invitation: &Invitation<'_>,
    decision: &Decision<'_>,
) -> Result<(Link, SecretString), Error> {
    let by = decision.by;
    by.require(Scope::ApprovalInvite)?;
    let mut tx = db.begin().await?;
    let approval = locked(&mut tx, approval_id, by).await?;
    check_open(&approval, decision.now)?;
    if approval.state != State::Pending {
        return Err(Error::NotOpen(approval.state));
    }
    let business_id = approval.business_id.ok_or(Error::HasApprovers)?;
    if matches!(invitation.contact, Contact::Phone(_)) {
        match invitation.carrier {
            None => return Err(links::Error::NoWayToPhone.into()),
            Some(carrier) if carrier == business_id => return Err(links::Error::OwnNumber.into()),
            Some(carrier) if store::works_for(&mut tx, &approval, carrier).await? => {
                return Err(links::Error::OwnNumber.into());
            }
            Some(_) => {}
        }
    }
    if has_approvers(&mut tx, &approval).await? {
        return Err(Error::HasApprovers);
    }
    let indexes = links::indexes_of(&mut tx, vault, invitation.contact).await?;
    let channel = match invitation.contact {
        Contact::Phone(_) => "phone",
        Contact::Email(_) => "email",
    };
    if store::is_known_contact(&mut tx, &approval, channel, &indexes).await?
        || business::is_its_contact(&mut tx, vault, business_id, invitation.contact).await?
    {
        return Err(Error::NotOutside);
    }
    let invited = links::list(&mut tx, business_id, Purpose::Approval, approval_id.0).await?;
    let open = invited.iter().filter(|link| link.is_open(decision.now)).count();
    if open >= INVITED_MAX || invited.len() >= INVITED_EVER {
        return Err(Error::TooManyInvited);
    }
    let new = NewLink {
        business_id,
        purpose: Purpose::Approval,
        subject_id: approval_id.0,
        contact: invitation.contact,
        carried_by: invitation.carrier,
        language: invitation.language,
        expires_at: approval.expires_at,
        uses: 1,
        made_by: by.name(),
        origin: invitation.origin,
    };
    let (link, url) = links::make(&mut tx, vault, &new, decision.now, decision.chance).await?;
    let details = json!({ "link_id": link.link_id, "channel": link.channel });
    record(&mut tx, decision, words::APPROVER_INVITED, &approval, details).await?;
    tx.commit().await?;
    Ok((link, url))
}

/// Whether somebody of the business itself may say yes to it.
pub(super) async fn has_approvers(db: &mut PgConnection, approval: &Approval) -> Result<bool, Error> {
    for roles in store::list_candidates(db, approval).await? {
        let roles: Vec<Role> = roles.iter().filter_map(|role| role.parse().ok()).collect();
        if scopes_of(&roles).contains(&approval.kind.scope()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who was invited to a decision, the latest first.
///
/// # Errors
/// As [`super::load`].
pub async fn list_invited(db: &mut PgConnection, approval_id: ApprovalId, by: &Authority) -> Result<Vec<Link>, Error> {
    let approval = super::load(db, approval_id, by).await?;
    match approval.business_id {
        Some(business_id) => Ok(links::list(db, business_id, Purpose::Approval, approval_id.0).await?),
        None => Ok(Vec::new()),
    }
}

/// Takes an invitation back before it was used; again is no error.
///
/// # Errors
/// `decision.by` may not invite; the invitation is not one to this decision.
pub async fn revoke_invitation(
    db: &mut PgConnection,
    approval_id: ApprovalId,
    link_id: LinkId,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    decision.by.require(Scope::ApprovalInvite)?;
    let mut tx = db.begin().await?;
    let approval = visible(&mut tx, approval_id, decision.by).await?;
    let link = links::load(&mut tx, link_id).await?;
    if link.purpose != Purpose::Approval || link.subject_id != approval_id.0 {
        return Err(links::Error::NoSuchLink.into());
    }
    if links::revoke(&mut tx, link_id, decision.now).await? {
        let details = json!({ "link_id": link_id });
        record(&mut tx, decision, words::APPROVER_UNINVITED, &approval, details).await?;
    }
    tx.commit().await?;
    Ok(approval)
}

/// What somebody outside sees of the one decision she was invited to, after her code.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Legal name of the business that asks.
    pub business: String,
    /// What kind of thing is decided on.
    pub kind: Kind,
    /// What was asked, masked.
    pub summary: Vec<Line>,
    /// The hash she decides on.
    pub plan_sha256: PlanHash,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

/// Shows her what she decides on; that she looked is on record before it is answered.
///
/// # Errors
/// The decision is not pending any more; the vault is sealed.
pub async fn show_outside(
    tx: &mut PgConnection,
    vault: &Vault,
    followed: Followed<'_>,
    decision: &Decision<'_>,
) -> Result<Shown, Error> {
    let (approval, proved) = asked_of(tx, followed, decision).await?;
    let business_id = approval.business_id.ok_or(Error::NoSuchApproval(approval.approval_id))?;
    let business = people::find_business_by_id(tx, business_id).await?;
    let business = business.ok_or(Error::NoSuchApproval(approval.approval_id))?.legal_name;
    let summary = summary_of(tx, vault, &approval).await?;
    let actor = Actor::Outside(proved.link().link_id.0);
    record_as(tx, decision, actor, words::APPROVAL_SHOWN, &approval, json!({ "channel": proved.link().channel }))
        .await?;
    Ok(Shown {
        business,
        kind: approval.kind,
        summary,
        plan_sha256: approval.plan_sha256,
        expires_at: approval.expires_at,
    })
}

/// Decides for somebody outside; her link is used up by it.
///
/// # Errors
/// As [`super::decide`]; [`links::Error::NoSuchLink`] where her link was used up meanwhile.
#[expect(
    clippy::too_many_arguments,
    reason = "what was seen, what she says to it and what checks both belong to one step"
)]
pub async fn decide_outside(
    tx: &mut PgConnection,
    vault: &Vault,
    followed: Followed<'_>,
    seen: &PlanHash,
    verdict: Verdict,
    decision: &Decision<'_>,
) -> Result<Approval, Error> {
    let (approval, proved) = asked_of(tx, followed, decision).await?;
    check_shown(tx, vault, &approval, verdict).await?;
    let link_id = proved.link().link_id;
    let vote = store::NewVote {
        vote_id: VoteId(decision.chance.uuid_v7(decision.now)),
        staff_id: None,
        link_id: Some(link_id),
        seen,
        verdict,
        reason: None,
    };
    let by = Authority::of_outside(link_id);
    let decision = Decision { by: &by, ..*decision };
    links::use_up(tx, &proved, decision.now).await?;
    cast(tx, approval, &vote, &decision).await
}

/// A link that somebody follows, and what she got for the right code.
#[derive(Clone, Copy)]
pub struct Followed<'a> {
    /// The link's secret.
    pub secret: &'a str,
    /// See [`links::Entered::Right`].
    pub proof: &'a str,
}

/// The decision behind an invitation, then the invitation, both held: in the order in which every decision is taken.
async fn asked_of(
    tx: &mut PgConnection,
    followed: Followed<'_>,
    decision: &Decision<'_>,
) -> Result<(Approval, Proved), Error> {
    let link = links::find(tx, followed.secret, Purpose::Approval, decision.now).await?;
    let id = ApprovalId(link.subject_id);
    let found = store::lock_approval(tx, id).await?;
    let approval = found.filter(|approval| approval.business_id == Some(link.business_id));
    let approval = approval.ok_or(Error::NoSuchApproval(id))?;
    let proved = links::prove(tx, (followed.secret, Purpose::Approval), followed.proof, decision.now).await?;
    check_open(&approval, decision.now)?;
    Ok((approval, proved))
}
