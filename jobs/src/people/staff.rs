//! People who work here: added, given roles, removed. Every change asks an [`Authority`] what it may itself: nobody
//! gives away more than she has, nobody takes away from somebody who has more, and the last owner stays.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    BusinessId, Caller, Error, Role, Scope, approval, links::LinkId, oidc, scopes_of, signin, staff_store as store,
    wall,
};
use crate::{
    evidence::{self, Actor, By, Event, EventId, Object, Word, words},
    id::JobId,
    outbound::Chance,
};

crate::id_type! {
    /// One person who works here.
    StaffId
}

/// A value that the vault sealed, and the blind index of its canonical form.
#[derive(Clone, Debug)]
pub struct SealedContact {
    /// The ciphertext.
    pub sealed: Vec<u8>,
    /// To find the row by: 16 bytes.
    pub index: Vec<u8>,
    /// Of the index key.
    pub index_version: i32,
}

/// How to reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactKind {
    /// A telephone number.
    Phone,
    /// A mail address.
    Email,
}

/// What a person of staff is added from. Personal values come sealed.
#[derive(Clone, Debug)]
pub struct NewStaff {
    /// Her id, which the sealed values are bound to.
    pub staff_id: StaffId,
    /// Whom she works for; `None`: the platform.
    pub business_id: Option<BusinessId>,
    /// Her name, sealed.
    pub name: Vec<u8>,
    /// Her language, BCP 47.
    pub language: String,
    /// Her phone.
    pub phone: Option<SealedContact>,
    /// Her mail address.
    pub email: Option<SealedContact>,
    /// What she is from the start.
    pub roles: Vec<Role>,
}

/// A person who works here, without what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Staff {
    /// Her id.
    pub staff_id: StaffId,
    /// Whom she works for; `None`: the platform.
    pub business_id: Option<BusinessId>,
    /// Her language, BCP 47.
    pub language: String,
    /// What she is, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// When she proved to hold her phone.
    pub phone_verified_at: Option<DateTime<Utc>>,
    /// When she proved to hold her mail address.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// When she was added.
    pub created_at: DateTime<Utc>,
    /// When she was removed.
    pub removed_at: Option<DateTime<Utc>>,
}

/// How long a phone lets its owner in by itself after she last proved to hold it. A number that is given up lies idle for
/// some ninety days in India and is then somebody else's (numbering practice of the telecom operators under TRAI and the
/// Department of Telecommunications): from then on whoever reads a code may be another person. A policy of ours, no
/// statute's number.
pub const PHONE_TRUSTED: TimeDelta = TimeDelta::days(90);

impl Staff {
    /// Since when nobody has proved to hold her phone, or since when it stands here unproved, if that is
    /// [`PHONE_TRUSTED`] ago or more at `now`: the number may be somebody else's by now. Of somebody who has no phone it
    /// means nothing.
    pub fn phone_stale_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let since = self.phone_verified_at.unwrap_or(self.created_at);
        (now - since >= PHONE_TRUSTED).then_some(since)
    }

    /// Everything she may do by herself; nothing, once she was removed. Support may look at nothing by itself, only where
    /// and while a business lets it in ([`super::support`]).
    pub fn scopes(&self) -> Vec<Scope> {
        if self.removed_at.is_some() {
            return Vec::new();
        }
        let own: Vec<Role> = self.roles.iter().copied().filter(|role| *role != Role::Support).collect();
        scopes_of(&own)
    }
}

/// Who decides about people and tokens, and what it may itself.
#[derive(Clone, Debug)]
pub struct Authority {
    name: String,
    actor: Actor,
    business: Option<BusinessId>,
    scopes: Vec<Scope>,
    asker: Option<StaffId>,
}

impl Authority {
    /// Whoever has the machine: a command, which the database's own rights let in.
    pub fn operator() -> Self {
        Self {
            name: "operator".to_owned(),
            actor: Actor::Operator,
            business: None,
            scopes: Scope::ALL.to_vec(),
            asker: None,
        }
    }

    /// A person, with what her roles allow at this moment.
    pub fn of_staff(staff: &Staff) -> Self {
        Self {
            name: format!("staff:{}", staff.staff_id),
            actor: Actor::Staff(staff.staff_id.0),
            business: staff.business_id,
            scopes: staff.scopes(),
            asker: Some(staff.staff_id),
        }
    }

    /// A token.
    pub fn of_caller(caller: &Caller) -> Self {
        Self {
            name: format!("token:{}", caller.token_id),
            actor: Actor::Token(caller.token_id.clone()),
            business: caller.business,
            scopes: caller.scopes.clone(),
            asker: caller.staff_id,
        }
    }

    /// A job of the installation's own, which may nothing but what it was made for.
    pub(super) fn of_job(kind: &'static str, job: JobId) -> Self {
        Self {
            name: format!("job:{job}"),
            actor: Actor::Job { kind, job_id: job.0 },
            business: None,
            scopes: Vec::new(),
            asker: None,
        }
    }

    /// Somebody outside, who was invited for one decision.
    pub(super) fn of_outside(link: LinkId) -> Self {
        Self {
            name: format!("link:{link}"),
            actor: Actor::Outside(link.0),
            business: None,
            scopes: Vec::new(),
            asker: None,
        }
    }

    /// The person who speaks here herself; `None`: a machine, whoever holds it.
    pub fn person(&self) -> Option<StaffId> {
        match self.actor {
            Actor::Staff(staff) => Some(StaffId(staff)),
            _ => None,
        }
    }

    /// The person behind what is asked for: she herself, or whom the token was made for.
    pub(super) fn asker(&self) -> Option<StaffId> {
        self.asker
    }

    /// The one business it belongs to; `None`: the platform.
    pub fn business(&self) -> Option<BusinessId> {
        self.business
    }

    /// As it stands in the evidence.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// As the evidence names it, at this instant.
    pub fn at<'a>(&self, now: DateTime<Utc>, chance: &'a dyn Chance) -> By<'a> {
        By { actor: self.actor.clone(), now, chance }
    }

    /// By what it is named in rows: an id, never a person's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether things of `business` (`None`: of the platform) exist for it.
    pub fn sees(&self, business: Option<BusinessId>) -> bool {
        self.business.is_none() || self.business == business
    }

    /// Refuses whoever lacks `scope`.
    ///
    /// # Errors
    /// [`Error::MissingScope`]
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Error::MissingScope(scope)) }
    }

    /// Refuses to give, or to take, what goes beyond its own.
    ///
    /// # Errors
    /// [`Error::BeyondOwn`] names the first scope it lacks.
    pub fn covers(&self, scopes: &[Scope]) -> Result<(), Error> {
        match scopes.iter().find(|scope| !self.scopes.contains(scope)) {
            None => Ok(()),
            Some(scope) => Err(Error::BeyondOwn(*scope)),
        }
    }
}

/// Who decides, when, and the chance that names the evidence of it.
#[derive(Clone, Copy)]
pub struct Decision<'a> {
    /// Who decides.
    pub by: &'a Authority,
    /// When.
    pub now: DateTime<Utc>,
    /// For ids.
    pub chance: &'a dyn Chance,
}

impl Decision<'_> {
    /// Writes into the evidence what was decided about `staff`, in the transaction that does it.
    async fn record(&self, tx: &mut PgConnection, verb: Word, staff: &Staff, details: Value) -> Result<(), Error> {
        let event = Event {
            event_id: EventId::new(self.chance, self.now),
            business_id: staff.business_id,
            actor: self.by.actor.clone(),
            verb,
            object: Object { kind: "staff", id: &staff.staff_id.to_string() },
            details,
        };
        evidence::record(tx, &event).await?;
        Ok(())
    }
}

/// Adds somebody with her first roles.
///
/// # Errors
/// `by` may not, gives more than it has, or a role that is not for such staff; the person cannot be reached; somebody
/// of the same business has her phone or mail address.
pub async fn add_staff(db: &mut PgConnection, new: &NewStaff, decision: &Decision<'_>) -> Result<Staff, Error> {
    let by = decision.by;
    by.require(Scope::StaffWrite)?;
    if !by.sees(new.business_id) {
        return Err(Error::NoSuchBusiness("of another".to_owned()));
    }
    if new.phone.is_none() && new.email.is_none() {
        return Err(Error::Unreachable);
    }
    for role in &new.roles {
        check_grant(*role, new.business_id, by)?;
    }
    let now = decision.now.trunc_subsecs(6);
    let mut tx = db.begin().await?;
    still_may(&mut tx, by).await?;
    store::insert_staff(&mut tx, new, now).await?;
    for role in &new.roles {
        store::insert_role(&mut tx, new.staff_id, *role, by.name(), now).await?;
    }
    let staff = load(&mut tx, new.staff_id).await?;
    decision.record(&mut tx, words::STAFF_ADDED, &staff, json!({ "roles": staff.roles })).await?;
    tx.commit().await?;
    Ok(staff)
}

/// A fresh id for [`NewStaff`].
pub fn new_staff_id(decision: &Decision<'_>) -> StaffId {
    StaffId(decision.chance.uuid_v7(decision.now))
}

/// The person with this id, if she exists for `by`; those who were removed too.
///
/// # Errors
/// [`Error::NoSuchStaff`]
pub async fn load_staff(db: &mut PgConnection, staff_id: StaffId, by: &Authority) -> Result<Staff, Error> {
    by.require(Scope::StaffRead)?;
    visible(db, staff_id, by).await
}

/// The person behind a session: her roles as they are now, whoever asks. `None`: there is none, or she was removed.
///
/// # Errors
/// The database fails.
pub async fn find_active_staff(db: &mut PgConnection, staff_id: StaffId) -> Result<Option<Staff>, Error> {
    Ok(store::find_staff(db, staff_id).await?.filter(|staff| staff.removed_at.is_none()))
}

/// Everybody with this phone or mail address, by its blind index: one person may work for several businesses.
///
/// # Errors
/// The database fails.
pub async fn find_staff_by_contact(
    db: &mut PgConnection,
    kind: ContactKind,
    index: &[u8],
) -> Result<Vec<Staff>, Error> {
    store::find_by_contact(db, kind, index).await
}

/// Staff of `business` (`None`: of the platform), by when they came; those who were removed too.
///
/// # Errors
/// `by` may not see them.
pub async fn list_staff(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    by: &Authority,
) -> Result<Vec<Staff>, Error> {
    by.require(Scope::StaffRead)?;
    if !by.sees(business) {
        return Err(Error::NoSuchBusiness("of another".to_owned()));
    }
    store::list_staff(db, business).await
}

/// Notes that she proved to hold her phone or mail address.
///
/// # Errors
/// [`Error::NoSuchStaff`]: she is gone, or has no such contact.
pub async fn mark_verified(
    db: &mut PgConnection,
    staff_id: StaffId,
    kind: ContactKind,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    match store::mark_verified(db, staff_id, kind, now).await? {
        0 => Err(Error::NoSuchStaff(staff_id)),
        _ => Ok(()),
    }
}

/// Gives somebody a role; again is no error.
///
/// # Errors
/// `by` may not, or gives more than it has; the role is not for such staff.
pub async fn grant_role(
    db: &mut PgConnection,
    staff_id: StaffId,
    role: Role,
    decision: &Decision<'_>,
) -> Result<Staff, Error> {
    let Decision { by, now, .. } = *decision;
    by.require(Scope::StaffWrite)?;
    let mut tx = db.begin().await?;
    let staff = locked(&mut tx, staff_id, by).await?;
    check_grant(role, staff.business_id, by)?;
    store::insert_role(&mut tx, staff_id, role, by.name(), now).await?;
    let staff = load(&mut tx, staff_id).await?;
    decision.record(&mut tx, words::ROLE_GRANTED, &staff, json!({ "role": role })).await?;
    tx.commit().await?;
    Ok(staff)
}

/// Takes a role away; a role she has not is no error. It ends at once: roles are read at each request.
///
/// # Errors
/// `by` may not, or has less than it takes away; she is the last owner.
pub async fn withdraw_role(
    db: &mut PgConnection,
    staff_id: StaffId,
    role: Role,
    decision: &Decision<'_>,
) -> Result<Staff, Error> {
    let Decision { by, now, .. } = *decision;
    by.require(Scope::StaffWrite)?;
    let mut tx = db.begin().await?;
    store::hold_tokens_of(&mut tx, staff_id).await?;
    let staff = locked(&mut tx, staff_id, by).await?;
    by.covers(&role.scopes())?;
    if role == Role::Owner && staff.roles.contains(&role) {
        keep_an_owner(&mut tx, &staff).await?;
    }
    store::delete_role(&mut tx, staff_id, role).await?;
    let staff = load(&mut tx, staff_id).await?;
    // A token made for her may hold what she may no longer do.
    store::revoke_tokens_beyond(&mut tx, staff_id, &scopes_of(&staff.roles), now).await?;
    approval::forget_person(&mut tx, &staff, false, decision).await?;
    decision.record(&mut tx, words::ROLE_WITHDRAWN, &staff, json!({ "role": role })).await?;
    tx.commit().await?;
    Ok(staff)
}

/// Removes somebody: her roles, tokens, sessions, codes and credentials, her part in open decisions, her name and her
/// numbers end in one transaction. What stays is an id that evidence and grants name. Again is no error.
///
/// # Errors
/// `by` may not, or has less than she; she is the last owner.
pub async fn remove_staff(db: &mut PgConnection, staff_id: StaffId, decision: &Decision<'_>) -> Result<Staff, Error> {
    let Decision { by, now, .. } = *decision;
    by.require(Scope::StaffWrite)?;
    let mut tx = db.begin().await?;
    store::hold_tokens_of(&mut tx, staff_id).await?;
    let staff = match locked(&mut tx, staff_id, by).await {
        Err(Error::NoSuchStaff(_)) => {
            let gone = visible(&mut tx, staff_id, by).await?;
            tx.rollback().await?;
            return Ok(gone);
        }
        staff => staff?,
    };
    by.covers(&staff.scopes())?;
    if staff.roles.contains(&Role::Owner) {
        keep_an_owner(&mut tx, &staff).await?;
    }
    store::delete_roles(&mut tx, staff_id).await?;
    store::revoke_tokens_beyond(&mut tx, staff_id, &[], now).await?;
    approval::forget_person(&mut tx, &staff, true, decision).await?;
    store::empty_staff(&mut tx, staff_id, now).await?;
    // What she signs in with stands on the other side of the wall.
    let inside = wall::step_out(&mut tx).await?;
    signin::forget_staff(&mut tx, staff_id.0, now).await?;
    oidc::forget_staff(&mut tx, staff_id).await?;
    wall::step_in(&mut tx, inside).await?;
    let staff = load(&mut tx, staff_id).await?;
    decision.record(&mut tx, words::STAFF_REMOVED, &staff, Value::Null).await?;
    tx.commit().await?;
    Ok(staff)
}

fn check_grant(role: Role, business: Option<BusinessId>, by: &Authority) -> Result<(), Error> {
    if !role.fits(business) {
        return Err(Error::RoleNotHere(role, business));
    }
    by.covers(&role.scopes())
}

async fn load(db: &mut PgConnection, staff_id: StaffId) -> Result<Staff, Error> {
    store::find_staff(db, staff_id).await?.ok_or(Error::NoSuchStaff(staff_id))
}

async fn visible(db: &mut PgConnection, staff_id: StaffId, by: &Authority) -> Result<Staff, Error> {
    let staff = store::find_staff(db, staff_id).await?.filter(|staff| by.sees(staff.business_id));
    staff.ok_or(Error::NoSuchStaff(staff_id))
}

/// The person as she is, held until the transaction ends, so that two decisions about her follow each other. Whoever
/// decides is held too, in one order for everybody: two who put each other out do not wait in a circle.
async fn locked(tx: &mut PgConnection, staff_id: StaffId, by: &Authority) -> Result<Staff, Error> {
    let before = by.person().is_some_and(|decider| decider.0 < staff_id.0);
    if before {
        still_may(tx, by).await?;
    }
    if !store::lock_staff(tx, staff_id).await? {
        return Err(Error::NoSuchStaff(staff_id));
    }
    if !before {
        still_may(tx, by).await?;
    }
    visible(tx, staff_id, by).await
}

/// Holds the person who decides and refuses her where she has lost what she had when she came: a role that is taken
/// away is worth nothing to whoever decides at the same moment.
pub(super) async fn still_may(tx: &mut PgConnection, by: &Authority) -> Result<(), Error> {
    let Some(decider) = by.person() else { return Ok(()) };
    // Staff of the platform stand outside the wall of any business.
    let inside = wall::step_out(tx).await?;
    let here = store::share_staff(tx, decider).await?;
    let staff = store::find_staff(tx, decider).await?.filter(|_| here);
    wall::step_in(tx, inside).await?;
    let scopes = staff.map(|staff| staff.scopes()).unwrap_or_default();
    match by.scopes.iter().find(|scope| !scopes.contains(scope)) {
        None => Ok(()),
        Some(scope) => Err(Error::MissingScope(*scope)),
    }
}

/// Refuses when `staff` is the only owner. Holds the business, so that of two owners who remove each other one stays.
async fn keep_an_owner(tx: &mut PgConnection, staff: &Staff) -> Result<(), Error> {
    let Some(business) = staff.business_id else { return Ok(()) };
    if store::count_other_owners(tx, business, staff.staff_id).await? == 0 {
        return Err(Error::LastOwner);
    }
    Ok(())
}

#[cfg(test)]
#[path = "staff_tests.rs"]
mod tests;
