//! Businesses (one business is one fiduciary whose data we handle), the tokens that speak for them, and which of
//! their requests were answered already.
//!
//! A token is `mnm_<public id>_<secret>_<checksum>`: the public id finds its row, the checksum spares the database
//! what was mistyped, and of the secret only a digest is kept. It belongs to one business or, for whoever runs the
//! installation, to all; it can do what its [`Scope`]s say.

pub mod approval;
mod business;
mod business_store;
mod contact;
mod contact_store;
mod enrol;
mod error;
#[cfg(test)]
mod heir_tests;
mod hints;
pub mod links;
mod model;
pub mod oidc;
#[cfg(test)]
mod record_tests;
mod roles;
mod sealed;
pub mod signin;
mod staff;
mod staff_store;
mod store;
pub mod support;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
mod wall;
#[cfg(test)]
mod wall_tests;

use std::net::IpAddr;

use chrono::{DateTime, Duration, SubsecRound, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    evidence::{Act, By, Object, words},
    outbound::{Chance, Clock},
    vault::{Cell, Class, Vault},
};

pub use business::{Changes, Plan, Profile, change_business, find_businesses_by_gstin, load_profile, open_face};
pub use contact::{Contact, People, note_names, open_contact};
pub use enrol::{Enrolment, Known, describe_staff, enrol_staff, find_staff_by_email, find_staff_by_phone};
pub use error::Error;
pub use model::{Answer, Business, Caller, Claim, NewToken, Refusal, Request, Scope, Token, read_network};
pub use roles::{Role, scopes_of};
pub use sealed::{INDEXED, SEALED};
pub use staff::{
    Authority, ContactKind, Decision, NewStaff, PHONE_TRUSTED, SealedContact, Staff, StaffId, add_staff,
    find_active_staff, find_staff_by_contact, grant_role, list_staff, load_staff, mark_verified, new_staff_id,
    remove_staff, withdraw_role,
};

pub use store::list_handles;
pub use token::TOKEN_PATTERN;

crate::id_type! {
    /// One business: a Data Fiduciary whose records we keep.
    BusinessId
}

/// How long the answer to an idempotency key is remembered.
pub const ANSWER_KEPT: Duration = Duration::hours(24);

/// Adds a business under `handle`, the short name that frontends and commands use (`sharma-mobiles`), in the name of
/// whoever has the machine.
///
/// # Errors
/// The handle is malformed or taken, or the legal name is empty; the evidence cannot be written.
pub async fn add_business(
    db: &mut PgConnection,
    handle: &str,
    legal_name: &str,
    clock: &dyn Clock,
    chance: &dyn Chance,
) -> Result<Business, Error> {
    let operator = Authority::operator();
    add_business_by(db, handle, legal_name, &Decision { by: &operator, now: clock.now(), chance }).await
}

/// As [`add_business`], in the name of somebody of the platform.
///
/// # Errors
/// [`Error::PlanNotYours`]: `decision.by` belongs to one business; and those of [`add_business`].
pub async fn add_business_by(
    db: &mut PgConnection,
    handle: &str,
    legal_name: &str,
    decision: &Decision<'_>,
) -> Result<Business, Error> {
    let by = decision.by;
    by.require(Scope::BusinessWrite)?;
    if by.business().is_some() {
        return Err(Error::PlanNotYours);
    }
    let now = decision.now.trunc_subsecs(6);
    let business = Business {
        business_id: BusinessId(decision.chance.uuid_v7(now)),
        handle: model::checked_handle(handle)?,
        legal_name: model::checked_legal_name(legal_name)?,
        created_at: now,
    };
    let mut tx = db.begin().await?;
    store::insert_business(&mut tx, &business).await?;
    let object = Object { kind: "business", id: &business.business_id.to_string() };
    let added = Act { word: words::BUSINESS_ADDED, business: Some(business.business_id), object, details: Value::Null };
    by.at(decision.now, decision.chance).record(&mut tx, added).await?;
    tx.commit().await?;
    Ok(business)
}

/// All businesses, by handle.
///
/// # Errors
/// The database fails.
pub async fn list_businesses(db: &mut PgConnection) -> Result<Vec<Business>, Error> {
    store::list_businesses(db).await
}

/// The business with this handle.
///
/// # Errors
/// [`Error::NoSuchBusiness`]
pub async fn load_business(db: &mut PgConnection, handle: &str) -> Result<Business, Error> {
    store::find_business(db, handle).await?.ok_or_else(|| Error::NoSuchBusiness(handle.to_owned()))
}

/// The business with this id.
///
/// # Errors
/// The database fails.
pub async fn find_business_by_id(db: &mut PgConnection, id: BusinessId) -> Result<Option<Business>, Error> {
    store::find_business_by_id(db, id).await
}

/// Narrows the transaction to one business, as the second wall behind the filters of the program: row-level security
/// shows it the rows of `business` and no other. It ends with the transaction.
///
/// # Errors
/// The database fails.
pub async fn enter_business(tx: &mut PgConnection, business: BusinessId) -> Result<(), Error> {
    store::enter_business(tx, business).await
}

/// Whether this connection is nobody's: no business at hand, no role but its own. Asked when it goes back to its pool.
///
/// # Errors
/// The database fails.
pub async fn is_nobodys(conn: &mut PgConnection) -> sqlx::Result<bool> {
    store::is_nobodys(conn).await
}

/// Builds the second wall for every table there is, those of later steps too. For the owner of the schema.
///
/// # Errors
/// The database refuses it.
pub async fn build_wall(conn: &mut PgConnection) -> Result<(), Error> {
    store::build_wall(conn).await
}

/// Makes a token, in the name of whoever has the machine. The second value is the token itself: it is not stored and
/// cannot be shown again.
///
/// # Errors
/// No scopes, a label that is empty or too long, an expiry in the past; the evidence cannot be written.
pub async fn create_token(
    db: &mut PgConnection,
    new: NewToken,
    clock: &dyn Clock,
    chance: &dyn Chance,
) -> Result<(Token, SecretString), Error> {
    make_token(db, new, &By::operator(clock.now(), chance)).await
}

async fn make_token(db: &mut PgConnection, new: NewToken, by: &By<'_>) -> Result<(Token, SecretString), Error> {
    let (token, minted) = new.checked(by.now.trunc_subsecs(6), token::Minted::new(by.chance))?;
    let mut tx = db.begin().await?;
    store::insert_token(&mut tx, &token, &minted.digest).await?;
    let made = Act {
        word: words::TOKEN_MADE,
        business: token.business_id,
        object: Object { kind: "token", id: &token.public_id },
        details: json!({ "scopes": token.scopes, "staff": token.staff_id, "expires_at": token.expires_at }),
    };
    by.record(&mut tx, made).await?;
    tx.commit().await?;
    Ok((token, minted.bearer))
}

/// As [`create_token`], in the name of somebody who gives no more than she has. A token that is for a person may do no
/// more than she, and ends with her.
///
/// # Errors
/// `by` may not make tokens, gives more than it has, or names what it may not see; and those of [`create_token`].
pub async fn create_token_by(
    db: &mut PgConnection,
    new: NewToken,
    by: &Authority,
    clock: &dyn Clock,
    chance: &dyn Chance,
) -> Result<(Token, SecretString), Error> {
    by.require(Scope::TokenWrite)?;
    by.covers(&new.scopes)?;
    if !by.sees(new.business_id) {
        return Err(Error::NoSuchBusiness("of another".to_owned()));
    }
    let mut tx = db.begin().await?;
    // Whoever is put out while she makes it leaves no heir.
    staff::still_may(&mut tx, by).await?;
    if let Some(staff_id) = new.staff_id {
        // Held as she is: what is made for her while she is put out, or loses a role, is refused or ends with the rest.
        staff_store::share_staff(&mut tx, staff_id).await?;
        let holder = find_active_staff(&mut tx, staff_id).await?.filter(|staff| staff.business_id == new.business_id);
        let allowed = holder.ok_or(Error::NoSuchStaff(staff_id))?.scopes();
        if let Some(scope) = new.scopes.iter().find(|scope| !allowed.contains(scope)) {
            return Err(Error::BeyondHolder(*scope));
        }
    }
    let made = make_token(&mut tx, new, &by.at(clock.now(), chance)).await?;
    tx.commit().await?;
    Ok(made)
}

/// Makes a token for everything, unless any token was ever made: whoever revoked the last one did not ask for another.
/// Of two processes that start at once, one makes it.
///
/// # Errors
/// The database fails.
pub async fn create_first_token(
    db: &mut PgConnection,
    clock: &dyn Clock,
    chance: &dyn Chance,
) -> Result<Option<(Token, SecretString)>, Error> {
    let mut tx = db.begin().await?;
    store::lock_first_token(&mut tx).await?;
    if store::has_tokens(&mut tx).await? {
        return Ok(None);
    }
    let made = make_token(&mut tx, NewToken::bootstrap(), &By::system(clock.now(), chance)).await?;
    tx.commit().await?;
    Ok(Some(made))
}

/// All tokens, newest first, the revoked ones included.
///
/// # Errors
/// The database fails.
pub async fn list_tokens(db: &mut PgConnection) -> Result<Vec<Token>, Error> {
    store::list_tokens(db, &Tokens::default(), None).await
}

/// Ends a token for good; again is no error and no change.
///
/// # Errors
/// [`Error::NoSuchToken`]; the evidence cannot be written.
pub async fn revoke_token(db: &mut PgConnection, public_id: &str, by: &By<'_>) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let (token, _) =
        store::find_token(&mut tx, public_id).await?.ok_or_else(|| Error::NoSuchToken(public_id.to_owned()))?;
    // Of two who end it at once one is on record.
    if store::revoke_token(&mut tx, public_id, by.now).await? == 1 {
        let object = Object { kind: "token", id: public_id };
        let revoked = Act { word: words::TOKEN_REVOKED, business: token.business_id, object, details: Value::Null };
        by.record(&mut tx, revoked).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Which tokens, for [`list_tokens_by`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens<'a> {
    /// Of this business only.
    pub business: Option<BusinessId>,
    /// That open something at `now`, or that do not; none: both.
    pub usable: Option<bool>,
    /// The moment that `usable` is about.
    pub now: DateTime<Utc>,
    /// Made before the token with this public id.
    pub before: Option<&'a str>,
}

/// At most `limit` tokens that exist for `by`, the newest first, the revoked ones included.
///
/// # Errors
/// `by` may not see them.
pub async fn list_tokens_by(
    db: &mut PgConnection,
    asked: &Tokens<'_>,
    limit: u16,
    by: &Authority,
) -> Result<Vec<Token>, Error> {
    by.require(Scope::TokenRead)?;
    let business = match (by.business(), asked.business) {
        (None, asked) => asked,
        (own, None) => own,
        (own, asked) if own == asked => own,
        _ => return Err(Error::NoSuchBusiness("of another".to_owned())),
    };
    store::list_tokens(db, &Tokens { business, ..*asked }, Some(limit)).await
}

/// The token with this public id, if it exists for `by`.
///
/// # Errors
/// [`Error::NoSuchToken`]; `by` may not see tokens.
pub async fn load_token_by(db: &mut PgConnection, public_id: &str, by: &Authority) -> Result<Token, Error> {
    by.require(Scope::TokenRead)?;
    let found = store::find_token(db, public_id).await?.filter(|(token, _)| by.sees(token.business_id));
    found.map(|(token, _)| token).ok_or_else(|| Error::NoSuchToken(public_id.to_owned()))
}

/// As [`revoke_token`], for tokens that exist for `by`; nobody ends one that may do more than she.
///
/// # Errors
/// [`Error::NoSuchToken`]; `by` may not.
pub async fn revoke_token_by(db: &mut PgConnection, public_id: &str, decision: &Decision<'_>) -> Result<(), Error> {
    let by = decision.by;
    by.require(Scope::TokenWrite)?;
    let found = store::find_token(db, public_id).await?.filter(|(token, _)| by.sees(token.business_id));
    let (token, _) = found.ok_or_else(|| Error::NoSuchToken(public_id.to_owned()))?;
    by.covers(&token.scopes)?;
    revoke_token(db, &token.public_id, &by.at(decision.now, decision.chance)).await
}

/// A bearer token whose form and checksum are right; whether it opens anything, [`authenticate`] says.
pub struct Presented(token::Presented);

impl Presented {
    /// Reads what stands behind `Authorization: Bearer`. `None`: it cannot be one of ours, no need to look it up.
    pub fn parse(bearer: &str) -> Option<Self> {
        token::Presented::parse(bearer).map(Self)
    }
}

/// Notes that this token stood in a URL, where logs and histories keep it, if it is one of ours; its owner sees it in
/// the list of tokens and replaces it. Whether this is the first time.
///
/// # Errors
/// The database fails; the evidence cannot be written.
pub async fn note_exposed(db: &mut PgConnection, presented: &Presented, by: &By<'_>) -> Result<bool, Error> {
    let found = store::find_token(db, &presented.0.public_id).await?;
    let Some((token, _)) = found.filter(|(_, digest)| presented.0.matches(digest)) else { return Ok(false) };
    let mut tx = db.begin().await?;
    let first = store::note_exposed(&mut tx, &token.public_id, by.now).await?;
    if first {
        let object = Object { kind: "token", id: &token.public_id };
        let exposed = Act { word: words::TOKEN_EXPOSED, business: token.business_id, object, details: Value::Null };
        by.record(&mut tx, exposed).await?;
    }
    tx.commit().await?;
    Ok(first)
}

/// Who presents this token, if it opens anything at `now` from the address `from`. Nothing is remembered between two
/// requests: what was revoked opens nothing from that moment on.
///
/// # Errors
/// [`Refusal`] says why not.
pub async fn authenticate(
    db: &mut PgConnection,
    presented: &Presented,
    from: Option<IpAddr>,
    now: DateTime<Utc>,
) -> Result<Caller, Refusal> {
    let Some((token, digest)) = store::find_token(db, &presented.0.public_id).await? else {
        return Err(Refusal::Unknown);
    };
    if !presented.0.matches(&digest) {
        return Err(Refusal::Unknown);
    }
    token.refusal(now).map_or(Ok(()), Err)?;
    if !token.opens_from(from) {
        return Err(Refusal::Elsewhere);
    }
    if let Some(grant) = token.support_grant_id
        && !support::is_live(db, grant, now).await?
    {
        return Err(Refusal::Revoked);
    }
    if token.last_used_at.is_none_or(|at| at + Duration::minutes(1) < now) {
        store::touch_token(db, &token.public_id, now).await?;
    }
    Ok(Caller {
        token_id: token.public_id,
        business: token.business_id,
        staff_id: token.staff_id,
        support: token.support_grant_id,
        scopes: token.scopes,
    })
}

/// Holds the token of `caller` until her transaction ends: what was ended since [`authenticate`] does nothing more, and
/// what is about to be ended waits for what is being done. The first thing of a transaction that does something.
///
/// # Errors
/// [`Refusal::Revoked`]: it ended meanwhile.
pub async fn hold_token(tx: &mut PgConnection, caller: &Caller, now: DateTime<Utc>) -> Result<(), Refusal> {
    if store::hold_token(tx, &caller.token_id, now).await? { Ok(()) } else { Err(Refusal::Revoked) }
}

/// The public id of a presented token and whose it is, where its secret is right, whether or not it opens anything: for
/// the record of who was refused.
///
/// # Errors
/// The database fails.
pub async fn find_holder(
    db: &mut PgConnection,
    presented: &Presented,
) -> Result<Option<(String, Option<BusinessId>)>, Error> {
    let found = store::find_token(db, &presented.0.public_id).await?;
    let held = found.filter(|(_, digest)| presented.0.matches(digest));
    Ok(held.map(|(token, _)| (token.public_id, token.business_id)))
}

/// Takes an idempotency key until the end of the caller's transaction, or says what became of it before.
///
/// The effect, [`keep_answer`] and the end of the transaction belong together: whoever dies in between leaves the key
/// as free as the effect undone.
///
/// # Errors
/// The database fails, or the vault is sealed.
pub async fn claim_key(
    tx: &mut PgConnection,
    vault: &Vault,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Claim, Error> {
    if !store::try_lock_key(tx, request).await? {
        return Ok(Claim::InFlight);
    }
    // Whoever asks clears up after everybody: a business that never comes again has answers too.
    let inside = wall::step_out(tx).await?;
    store::forget_answers(tx, now - ANSWER_KEPT).await?;
    wall::step_in(tx, inside).await?;
    match store::find_answer(&mut *tx, request, now - ANSWER_KEPT).await? {
        None => Ok(Claim::Ours),
        Some(kept) if kept.request_sha256 != request.request_sha256 => Ok(Claim::OtherRequest),
        Some(kept) => {
            let row = answer_row(request);
            let plain = vault.open(tx, &answer_cell(kept.sealed_for, &row), &kept.answer_sealed).await?;
            let body = String::from_utf8_lossy(&plain).into_owned();
            Ok(Claim::Answered(Answer { status: kept.status, body }))
        }
    }
}

/// Remembers the answer to a key that [`claim_key`] gave, in the same transaction.
///
/// # Errors
/// The database fails, or the vault is sealed.
pub async fn keep_answer(
    tx: &mut PgConnection,
    vault: &Vault,
    request: &Request,
    answer: &Answer,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let row = answer_row(request);
    let cell = answer_cell(request.sealed_for, &row);
    let sealed = vault.seal(&mut *tx, Class::Payload, &cell, answer.body.as_bytes()).await?;
    store::insert_answer(tx, request, (answer.status, &sealed), now).await
}

/// The primary key of a remembered answer, as text.
fn answer_row(request: &Request) -> String {
    format!("{}:{}", request.token_id, hex::encode(&request.key_sha256))
}

fn answer_cell(business_id: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id, table: "muneem.people_idempotency_keys", column: "answer_sealed", row }
}
