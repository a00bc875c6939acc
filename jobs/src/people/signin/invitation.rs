//! Links with which somebody sets up what she signs in with: the first owner on a fresh installation, an operator, or a
//! person who is here and has nothing to sign in with. One is used once and ends after a day.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Error, invitation_store as store, new_token, token_digest};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, words},
    outbound::Chance,
    people::{BusinessId, Role, StaffId, find_active_staff},
};

/// Life of a link.
pub const INVITATION_LIFE: TimeDelta = TimeDelta::hours(24);
crate::id_type! {
    /// One link.
    InvitationId
}

/// Who is invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invitee {
    /// Somebody who becomes an owner: of this business, or of one that she names herself.
    Owner(Option<BusinessId>),
    /// Somebody who becomes an operator of the platform.
    Operator,
    /// Somebody who is here already.
    Staff(StaffId),
}

impl Invitee {
    pub(super) const fn role(self) -> Option<Role> {
        match self {
            Self::Owner(_) => Some(Role::Owner),
            Self::Operator => Some(Role::Operator),
            Self::Staff(_) => None,
        }
    }
}

/// One link that still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub invitation_id: InvitationId,
    /// Whom it is for.
    pub invitee: Invitee,
    /// Its last instant.
    pub expires_at: DateTime<Utc>,
}

/// Makes a link, and its evidence; the second value goes into it and is not stored.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub async fn invite(
    db: &mut PgConnection,
    invitee: Invitee,
    by: &Actor,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<(Invitation, SecretString), Error> {
    let now = now.trunc_subsecs(6);
    let invitation =
        Invitation { invitation_id: InvitationId(chance.uuid_v7(now)), invitee, expires_at: now + INVITATION_LIFE };
    let token = new_token(chance);
    let digest = token_digest(token.expose_secret()).ok_or(Error::SessionEnded)?;
    let mut tx = db.begin().await?;
    store::insert_invitation(&mut tx, &invitation, &digest, &name_of(by), now).await?;
    let (business_id, staff) = match invitee {
        Invitee::Owner(business) => (business, None),
        Invitee::Operator => (None, None),
        Invitee::Staff(staff) => (
            find_active_staff(&mut tx, staff).await.map_err(Error::people)?.and_then(|its| its.business_id),
            Some(staff),
        ),
    };
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id,
        actor: by.clone(),
        verb: words::INVITED,
        object: Object { kind: "invitation", id: &invitation.invitation_id.to_string() },
        details: json!({ "role": invitee.role().map(Role::as_str), "staff": staff }),
    };
    evidence::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok((invitation, token))
}

/// As it stands in the table.
fn name_of(by: &Actor) -> String {
    match by {
        Actor::Staff(staff) => format!("staff:{staff}"),
        Actor::Token(public_id) => format!("token:{public_id}"),
        Actor::Operator => "operator".to_owned(),
        Actor::System | Actor::Job { .. } | Actor::Principal(_) | Actor::Outside(_) => "muneem".to_owned(),
    }
}

/// The link with which the first owner of a fresh installation comes in; nothing once anybody works here, and
/// nothing while one that was made so still works: it is shown once.
///
/// # Errors
/// The database fails.
pub async fn invite_first(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<Option<(Invitation, SecretString)>, Error> {
    let mut tx = db.begin().await?;
    store::lock_first(&mut tx).await?;
    if store::anybody_here(&mut tx).await? || store::is_open_of(&mut tx, &name_of(&Actor::System), now).await? {
        return Ok(None);
    }
    let made = invite(&mut tx, Invitee::Owner(business), &Actor::System, now, chance).await?;
    tx.commit().await?;
    Ok(Some(made))
}

/// The link with this token, if it still works.
///
/// # Errors
/// The database fails.
pub async fn find_invitation(
    db: &mut PgConnection,
    token: &str,
    now: DateTime<Utc>,
) -> Result<Option<Invitation>, Error> {
    let Some(digest) = token_digest(token) else { return Ok(None) };
    store::find_invitation(db, &digest, now).await
}

/// Uses a link up, in the transaction that does what it is for. `false`: it was used or ran out meanwhile; of
/// many at once one gets `true`.
///
/// # Errors
/// The database fails.
pub async fn use_invitation(tx: &mut PgConnection, id: InvitationId, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(store::use_invitation(tx, id, now).await? == 1)
}

/// What a row says of whom it is for.
pub(super) fn invitee(business: Option<Uuid>, staff: Option<Uuid>, role: Option<&str>) -> Option<Invitee> {
    match (staff, role) {
        (Some(staff), _) => Some(Invitee::Staff(StaffId(staff))),
        (None, Some("owner")) => Some(Invitee::Owner(business.map(BusinessId))),
        (None, Some("operator")) => Some(Invitee::Operator),
        (None, _) => None,
    }
}
