//! Support looks into a business only while its owner lets it.
//!
//! A grant lasts two hours unless she says otherwise, and a day at most. A person of support gets a token that stands on
//! the grant: masked reading of this one business, and every request with it is in the evidence before it is answered
//! ([`note_look`]). The grant ends by its owner, or by its time; a job writes that down, and whoever comes after the
//! instant is refused whether or not it has run.

mod end_support;
mod looks;
#[cfg(test)]
mod race_tests;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    Authority, BusinessId, Caller, Decision, Error, NewToken, Role, Scope, StaffId, Token, staff::still_may,
    staff_store, store as people_store,
};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, Word, words},
    outbound::Chance,
    queue::{self, NewJob},
    vault::{Cell, Class, Vault},
};

pub use end_support::EndSupport;
pub use looks::{Deed, Look, Looks, read_looks};

crate::id_type! {
    /// One time for which support is let in.
    GrantId
}

/// How long support stays unless somebody says otherwise.
pub const USUAL: TimeDelta = TimeDelta::hours(2);
/// Shortest time that it is let in for.
pub const SHORTEST: TimeDelta = TimeDelta::minutes(15);
/// The day that the database holds too.
pub const LONGEST: TimeDelta = TimeDelta::hours(24);
/// Most characters of a reason.
pub const REASON_MAX: usize = 500;

/// One time for which support is let in, without the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Its id.
    pub grant_id: GrantId,
    /// Into which business.
    pub business_id: BusinessId,
    /// Who let it in.
    pub granted_by: StaffId,
    /// The one person of support whom she lets in; `None`: whoever takes it up.
    pub only: Option<StaffId>,
    /// When.
    pub granted_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When it was ended, or its end was written down.
    pub ended_at: Option<DateTime<Utc>>,
    /// Who ended it.
    pub ended_by: Option<String>,
}

impl Grant {
    /// Whether support may look at `now`.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

/// How support is to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Why, in the owner's words: at most [`REASON_MAX`] characters.
    pub reason: &'a str,
    /// For how long, [`SHORTEST`] to [`LONGEST`].
    pub lasting: TimeDelta,
    /// One person of support; `None`: whoever takes it up.
    pub only: Option<StaffId>,
}

/// Lets support into the business of `decision.by`.
///
/// # Errors
/// `decision.by` is no person of the business, or may not; the reason or the time is off; the person is not of support.
pub async fn grant(
    db: &mut PgConnection,
    vault: &Vault,
    wish: &Wish<'_>,
    decision: &Decision<'_>,
) -> Result<Grant, Error> {
    let (by, now) = (decision.by, decision.now.trunc_subsecs(6));
    by.require(Scope::SupportGrant)?;
    let (Some(granted_by), Some(business_id)) = (by.person(), by.business()) else {
        return Err(Error::NotOfBusiness);
    };
    let reason = wish.reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MAX {
        return Err(Error::BadReason);
    }
    if !(SHORTEST..=LONGEST).contains(&wish.lasting) {
        return Err(Error::BadDuration);
    }
    let grant = Grant {
        grant_id: GrantId(decision.chance.uuid_v7(now)),
        business_id,
        granted_by,
        only: wish.only,
        granted_at: now,
        expires_at: now + wish.lasting,
        ended_at: None,
        ended_by: None,
    };
    let mut tx = db.begin().await?;
    still_may(&mut tx, by).await?;
    if let Some(only) = wish.only {
        check_support(&mut tx, only).await?;
    }
    let row = grant.grant_id.to_string();
    let sealed = vault.seal(&mut tx, Class::MessageBody, &cell(business_id, &row), reason.as_bytes()).await?;
    store::insert_grant(&mut tx, &grant, &sealed).await?;
    queue::enqueue(
        &mut tx,
        &NewJob::of(business_id, &EndSupport { grant_id: grant.grant_id })?.run_at(grant.expires_at),
    )
    .await?;
    record(
        &mut tx,
        decision,
        words::SUPPORT_GRANTED,
        &grant,
        json!({ "expires_at": grant.expires_at, "only": grant.only }),
    )
    .await?;
    tx.commit().await?;
    Ok(grant)
}

/// Sends support away: its tokens open nothing from this moment on. Again is no error.
///
/// # Errors
/// [`Error::NoSuchGrant`]; `decision.by` may neither let support in nor change the business.
pub async fn end(db: &mut PgConnection, grant_id: GrantId, decision: &Decision<'_>) -> Result<Grant, Error> {
    let by = decision.by;
    // Sending away is never wrong: a machine of the business may, and the platform leaves by itself.
    by.require(Scope::SupportGrant).or_else(|_| by.require(Scope::BusinessWrite))?;
    let mut tx = db.begin().await?;
    let grant = store::lock_grant(&mut tx, grant_id).await?.filter(|grant| by.sees(Some(grant.business_id)));
    let mut grant = grant.ok_or(Error::NoSuchGrant(grant_id))?;
    if grant.ended_at.is_none() {
        finish(&mut tx, &mut grant, decision).await?;
    }
    tx.commit().await?;
    Ok(grant)
}

/// Ends it and every token that stands on it. The caller holds it.
async fn finish(tx: &mut PgConnection, grant: &mut Grant, decision: &Decision<'_>) -> Result<(), Error> {
    let now = decision.now.trunc_subsecs(6);
    grant.ended_at = Some(now);
    grant.ended_by = Some(decision.by.name().to_owned());
    store::end_grant(tx, grant).await?;
    let tokens = store::revoke_tokens(tx, grant.grant_id, now).await?;
    record(tx, decision, words::SUPPORT_ENDED, grant, json!({ "tokens": tokens })).await
}

/// Which grants, for [`list`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Into this business only.
    pub business: Option<BusinessId>,
    /// Those alone that were over at this moment.
    pub past_at: Option<DateTime<Utc>>,
    /// Older than this one.
    pub before: Option<GrantId>,
}

/// Grants that exist for `by`, the newest first.
///
/// # Errors
/// `by` may not see them.
pub async fn list(db: &mut PgConnection, asked: Asked, limit: u16, by: &Authority) -> Result<Vec<Grant>, Error> {
    by.require(Scope::BusinessRead)?;
    let business = match (by.business(), asked.business) {
        (None, asked) => asked,
        (own, None) => own,
        (own, asked) if own == asked => own,
        _ => return Err(Error::NoSuchBusiness("of another".to_owned())),
    };
    store::list_grants(db, Asked { business, ..asked }, limit).await
}

/// The grant with this id and why it was given, for whoever may let support in herself. That she was shown it is on
/// record before it is answered.
///
/// # Errors
/// [`Error::NoSuchGrant`]; the vault is sealed; the evidence cannot be written.
pub async fn open_reason(
    db: &mut PgConnection,
    vault: &Vault,
    grant_id: GrantId,
    decision: &Decision<'_>,
) -> Result<(Grant, String), Error> {
    decision.by.require(Scope::SupportGrant)?;
    let mut tx = db.begin().await?;
    let found = store::find_grant(&mut tx, grant_id).await?.filter(|grant| decision.by.sees(Some(grant.business_id)));
    let grant = found.ok_or(Error::NoSuchGrant(grant_id))?;
    let sealed = store::find_reason(&mut tx, grant_id).await?;
    let reason = vault.open(&mut tx, &cell(grant.business_id, &grant_id.to_string()), &sealed).await?;
    record(&mut tx, decision, words::SUPPORT_REASON_SHOWN, &grant, Value::Null).await?;
    tx.commit().await?;
    Ok((grant, String::from_utf8_lossy(&reason).into_owned()))
}

/// A token for one person of support to look with, until the grant ends. Shown once.
///
/// # Errors
/// The grant has ended; the person is not of support; `decision.by` may not make tokens for all businesses.
pub async fn open_token(
    db: &mut PgConnection,
    grant_id: GrantId,
    staff_id: StaffId,
    decision: &Decision<'_>,
) -> Result<(Token, SecretString), Error> {
    let by = decision.by;
    by.require(Scope::TokenWrite)?;
    let mut tx = db.begin().await?;
    still_may(&mut tx, by).await?;
    let found = store::lock_grant(&mut tx, grant_id).await?;
    let grant = found.filter(|_| by.business().is_none()).ok_or(Error::NoSuchGrant(grant_id))?;
    if !grant.is_live(decision.now) {
        return Err(Error::GrantEnded);
    }
    if grant.only.is_some_and(|only| only != staff_id) {
        return Err(Error::GrantForAnother);
    }
    check_support(&mut tx, staff_id).await?;
    let new = NewToken {
        label: "support".to_owned(),
        business_id: Some(grant.business_id),
        staff_id: Some(staff_id),
        scopes: Role::Support.scopes(),
        networks: Vec::new(),
        expires_at: Some(grant.expires_at),
    };
    let (mut token, minted) = new.checked(decision.now.trunc_subsecs(6), super::token::Minted::new(decision.chance))?;
    token.support_grant_id = Some(grant_id);
    people_store::insert_token(&mut tx, &token, &minted.digest).await?;
    let details = json!({ "support": staff_id, "token": token.public_id });
    record(&mut tx, decision, words::SUPPORT_ENTERED, &grant, details).await?;
    tx.commit().await?;
    Ok((token, minted.bearer))
}

/// Refuses whoever is not of the platform's support, and holds her as she is until the transaction ends: who is put out
/// of support at this moment is refused, or her token ends with the rest.
async fn check_support(tx: &mut PgConnection, staff_id: StaffId) -> Result<(), Error> {
    staff_store::share_staff(tx, staff_id).await?;
    let staff = super::find_active_staff(tx, staff_id).await?.ok_or(Error::NoSuchStaff(staff_id))?;
    if staff.business_id.is_some() || !staff.roles.contains(&Role::Support) {
        return Err(Error::NotSupport);
    }
    Ok(())
}

/// Who is of the platform's support, for whoever may let them in.
///
/// # Errors
/// `by` may not let support in.
pub async fn list_people(db: &mut PgConnection, by: &Authority) -> Result<Vec<StaffId>, Error> {
    by.require(Scope::SupportGrant)?;
    store::list_support(db).await
}

/// The grant with this id, if it exists for `by`; without its reason.
///
/// # Errors
/// [`Error::NoSuchGrant`]; `by` may not see grants.
pub async fn load(db: &mut PgConnection, grant_id: GrantId, by: &Authority) -> Result<Grant, Error> {
    by.require(Scope::BusinessRead)?;
    let found = store::find_grant(db, grant_id).await?.filter(|grant| by.sees(Some(grant.business_id)));
    found.ok_or(Error::NoSuchGrant(grant_id))
}

/// The grants of a business (`None`: of all) by which support may look at `now`, the newest first.
///
/// # Errors
/// The database fails.
pub async fn list_live(
    db: &mut PgConnection,
    business: Option<BusinessId>,
    now: DateTime<Utc>,
) -> Result<Vec<Grant>, Error> {
    store::list_live(db, business, now).await
}

/// Whether a token that stands on this grant opens anything at `now`.
pub(super) async fn is_live(db: &mut PgConnection, grant_id: GrantId, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(store::find_grant(db, grant_id).await?.is_some_and(|grant| grant.is_live(now)))
}

/// Puts on record that support looks at `route`, before it is answered: what is not on record is not shown.
///
/// The grant is held for the moment, so that nothing is shown after its owner has ended it.
///
/// # Errors
/// [`Error::GrantEnded`]; the evidence cannot be written.
pub async fn note_look(
    db: &mut PgConnection,
    (caller, grant_id): (&Caller, GrantId),
    (method, route): (&str, &str),
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let grant = store::share_grant(&mut tx, grant_id).await?.filter(|grant| grant.is_live(now));
    let Some(grant) = grant else {
        // Ended here, not when the connection is next used: until then nobody could end the grant.
        tx.rollback().await?;
        return Err(Error::GrantEnded);
    };
    // A pattern of ours, `/v1/invoice/invoices/{id}`, without what stood in its place.
    let route: String = route.chars().filter(|character| !"{}".contains(*character)).collect();
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: Some(grant.business_id),
        actor: caller.staff_id.map_or_else(|| Actor::Token(caller.token_id.clone()), |staff| Actor::Staff(staff.0)),
        verb: words::SUPPORT_LOOKED,
        object: Object { kind: "support_grant", id: &grant_id.to_string() },
        details: json!({ "token": caller.token_id, "method": method, "route": route }),
    };
    evidence::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(())
}

fn cell(business_id: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id, table: "muneem.people_support_grants", column: "reason_sealed", row }
}

async fn record(
    tx: &mut PgConnection,
    decision: &Decision<'_>,
    verb: Word,
    grant: &Grant,
    details: Value,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(decision.chance, decision.now),
        business_id: Some(grant.business_id),
        actor: decision.by.actor().clone(),
        verb,
        object: Object { kind: "support_grant", id: &grant.grant_id.to_string() },
        details,
    };
    evidence::record(tx, &event).await?;
    Ok(())
}
