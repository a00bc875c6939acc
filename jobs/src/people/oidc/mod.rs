//! Signing in with an identity provider outside: OpenID Connect Core 1.0, code flow with PKCE (RFC 7636).
//!
//! ```text
//! begin ─▶ row in people_oidc_flows + cookie ─▶ provider ─▶ back: the row is used up ─▶ identity
//!   signing in: the person linked with that identity, or nobody
//!   linking:    the person who began it, while signed in, is linked with that identity from now on
//! ```
//!
//! - A person is known by issuer and subject alone, and only after she linked herself while signed in. A mail address
//!   that a provider tells is not looked at, verified or not.
//! - `state`, nonce and PKCE verifier of a flow come from one secret in a cookie of the browser that began it. The table
//!   has digests; a flow works once, in that browser, within ten minutes.
//! - Whether the provider's word counts as a second factor is the provider's row's to say ([`Provider::proves_second`]).

mod error;
mod store;
#[cfg(test)]
mod tests;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use sha2::Sha256;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    BusinessId, Decision, Scope, Staff, StaffId, find_active_staff,
    signin::{STEP_UP, new_token, token_digest},
};
use crate::{
    evidence::{self, Event, EventId, Object, Word, words},
    outbound::Chance,
    vault::{Cell, Class, INSTALLATION, IndexColumn, Vault},
};

pub use error::Error;

/// How long a way to the provider and back may take.
pub const FLOW_LIFE: TimeDelta = TimeDelta::minutes(10);
/// A provider's clock may be ahead of ours by so much.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);
/// Longest subject (OpenID Connect Core 1.0 section 2: 255 ASCII characters).
const SUBJECT_MAX: usize = 255;

const PROVIDERS: &str = "muneem.people_oidc_providers";
const LINKS: &str = "muneem.people_oidc_links";

crate::id_type! {
    /// One identity provider.
    ProviderId
}

crate::id_type! {
    /// One person's identity at a provider.
    LinkId
}

/// An identity provider, without its client secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provider {
    /// Its id.
    pub provider_id: ProviderId,
    /// Whose people may use it; `None`: everybody's.
    pub business_id: Option<BusinessId>,
    /// Stands in addresses.
    pub handle: String,
    /// "Sign in with …"
    pub label: String,
    /// Exactly as it stands in its tokens.
    pub issuer: String,
    /// What it knows us by.
    pub client_id: String,
    /// Values of `amr` (RFC 8176) that count as a second factor.
    pub trusted_amr: Vec<String>,
    /// Values of `acr` that count as a second factor.
    pub trusted_acr: Vec<String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

impl Provider {
    /// Whether its word is as good as a second factor of ours: it names a method or a class that this row trusts, and
    /// the person proved it lately. A session of hours ago at the provider proves nothing about who sits there now.
    pub fn proves_second(&self, proof: &Proof, now: DateTime<Utc>) -> bool {
        let fresh = proof.proved_at.is_some_and(|at| at <= now + CLOCK_SKEW && now - at <= STEP_UP);
        let named = proof.methods.iter().any(|method| self.trusted_amr.contains(method))
            || proof.class.as_ref().is_some_and(|class| self.trusted_acr.contains(class));
        fresh && named
    }

    /// Whether people of `business` (`None`: of the platform) may use it.
    pub fn is_for(&self, business: Option<BusinessId>) -> bool {
        self.business_id.is_none() || self.business_id == business
    }
}

/// How the provider says that the person proved who she is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// `amr`
    pub methods: Vec<String>,
    /// `acr`
    pub class: Option<String>,
    /// `auth_time`
    pub proved_at: Option<DateTime<Utc>>,
}

/// What a provider is added from.
#[derive(Clone, Debug)]
pub struct NewProvider {
    /// Whose people may use it; `None`: everybody's.
    pub business_id: Option<BusinessId>,
    /// Stands in addresses.
    pub handle: String,
    /// "Sign in with …"
    pub label: String,
    /// Exactly as it stands in its tokens.
    pub issuer: String,
    /// What it knows us by.
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<SecretString>,
    /// Values of `amr` that count as a second factor.
    pub trusted_amr: Vec<String>,
    /// Values of `acr` that count as a second factor.
    pub trusted_acr: Vec<String>,
}

/// Adds a provider.
///
/// # Errors
/// `decision.by` may not, a field is off, or the handle is taken.
pub async fn add_provider(
    db: &mut PgConnection,
    vault: &Vault,
    new: &NewProvider,
    decision: &Decision<'_>,
) -> Result<Provider, Error> {
    decision.by.require(Scope::BusinessWrite)?;
    if !decision.by.sees(new.business_id) {
        return Err(super::Error::NoSuchBusiness("of another".to_owned()).into());
    }
    check(new)?;
    let now = decision.now.trunc_subsecs(6);
    let provider_id = ProviderId(decision.chance.uuid_v7(now));
    let mut tx = db.begin().await?;
    let secret = match &new.client_secret {
        None => None,
        Some(secret) => {
            let row = provider_id.to_string();
            let cell = secret_cell(new.business_id, &row);
            Some(vault.seal(&mut tx, Class::Credential, &cell, secret.expose_secret().as_bytes()).await?)
        }
    };
    let provider = Provider {
        provider_id,
        business_id: new.business_id,
        handle: new.handle.clone(),
        label: new.label.clone(),
        issuer: new.issuer.clone(),
        client_id: new.client_id.clone(),
        trusted_amr: new.trusted_amr.clone(),
        trusted_acr: new.trusted_acr.clone(),
        created_at: now,
    };
    store::insert_provider(&mut tx, &provider, secret.as_deref()).await?;
    let details = json!({ "trusts_amr": provider.trusted_amr.len(), "trusts_acr": provider.trusted_acr.len() });
    record_provider(&mut tx, words::PROVIDER_ADDED, &provider, decision, details).await?;
    tx.commit().await?;
    Ok(provider)
}

/// Ends a provider: nobody signs in with it any more. Who is signed in stays so; links are kept for the day on which
/// somebody asks who was linked.
///
/// # Errors
/// `decision.by` may not; there is no such provider.
pub async fn remove_provider(db: &mut PgConnection, handle: &str, decision: &Decision<'_>) -> Result<Provider, Error> {
    decision.by.require(Scope::BusinessWrite)?;
    let mut tx = db.begin().await?;
    let provider = load_provider(&mut tx, handle).await?;
    if !decision.by.sees(provider.business_id)
        || !store::remove_provider(&mut tx, provider.provider_id, decision.now).await?
    {
        return Err(Error::NoSuchProvider(handle.to_owned()));
    }
    record_provider(&mut tx, words::PROVIDER_REMOVED, &provider, decision, json!({})).await?;
    tx.commit().await?;
    Ok(provider)
}

/// The provider with this handle, if it is in use.
///
/// # Errors
/// [`Error::NoSuchProvider`]
pub async fn load_provider(db: &mut PgConnection, handle: &str) -> Result<Provider, Error> {
    store::find_provider(db, handle).await?.ok_or_else(|| Error::NoSuchProvider(handle.to_owned()))
}

/// Providers in use, by their labels: what a sign-in page offers. Those of one business are offered to everybody who
/// comes by, as nobody is known yet.
///
/// # Errors
/// The database fails.
pub async fn list_providers(db: &mut PgConnection) -> Result<Vec<Provider>, Error> {
    store::list_providers(db).await
}

/// The provider's client secret; `None`: a public client.
///
/// # Errors
/// The vault is sealed, or the value does not open.
pub async fn client_secret(
    db: &mut PgConnection,
    vault: &Vault,
    provider: &Provider,
) -> Result<Option<SecretString>, Error> {
    let Some(sealed) = store::find_secret(db, provider.provider_id).await? else { return Ok(None) };
    let row = provider.provider_id.to_string();
    let plain = vault.open(db, &secret_cell(provider.business_id, &row), &sealed).await?;
    let text = Zeroizing::new(String::from_utf8_lossy(&plain).into_owned());
    Ok(Some(text.as_str().to_owned().into()))
}

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody wants to be signed in.
    SignIn,
    /// A person who is signed in links herself.
    Link {
        /// Who.
        staff_id: StaffId,
        /// In which session: it must still be there when she comes back.
        session_id: Uuid,
    },
}

/// The secrets of one flow, as the browser and the provider need them.
pub struct Secrets {
    /// Goes to the provider and comes back.
    pub state: SecretString,
    /// Stands in the provider's token.
    pub nonce: SecretString,
    /// Shown with the code (RFC 7636); its digest goes to the provider before.
    pub verifier: SecretString,
}

impl Secrets {
    fn of(binding: &SecretString, state: SecretString) -> Self {
        let derived = |label: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(binding.expose_secret().as_bytes())
                .expect("HMAC takes keys of any length");
            for part in [b"muneem.oidc.1 ".as_slice(), label, b" ", state.expose_secret().as_bytes()] {
                mac.update(part);
            }
            SecretString::from(hex::encode(mac.finalize().into_bytes()))
        };
        Self { nonce: derived(b"nonce"), verifier: derived(b"verifier"), state }
    }
}

/// Begins a flow. `binding` is the secret in the browser's cookie, of [`new_token`]'s form; it may serve several flows.
///
/// # Errors
/// The database fails, or `binding` is none of ours ([`Error::Void`]).
pub async fn begin(
    db: &mut PgConnection,
    provider: &Provider,
    purpose: Purpose,
    binding: &SecretString,
    when: (DateTime<Utc>, &dyn Chance),
) -> Result<Secrets, Error> {
    let (now, chance) = when;
    let bound = token_digest(binding.expose_secret()).ok_or(Error::Void)?;
    let secrets = Secrets::of(binding, new_token(chance));
    let state = token_digest(secrets.state.expose_secret()).ok_or(Error::Void)?;
    let now = now.trunc_subsecs(6);
    let mut tx = db.begin().await?;
    store::forget_flows(&mut tx, now).await?;
    let flow = store::NewFlow { state, provider_id: provider.provider_id, binding: bound, purpose, now };
    store::insert_flow(&mut tx, &flow, now + FLOW_LIFE).await?;
    tx.commit().await?;
    Ok(secrets)
}

/// Uses the flow with this `state` up, and answers what it was for. It must be one of `provider`, begun in the browser
/// with this `binding`; whatever is off, it is used up all the same.
///
/// # Errors
/// [`Error::Void`]: it was used, has run out, never was, or began elsewhere.
pub async fn take(
    db: &mut PgConnection,
    provider: &Provider,
    state: &str,
    binding: &SecretString,
    now: DateTime<Utc>,
) -> Result<(Purpose, Secrets), Error> {
    let digest = token_digest(state).ok_or(Error::Void)?;
    let bound = token_digest(binding.expose_secret()).ok_or(Error::Void)?;
    let flow = store::take_flow(db, &digest, now).await?.ok_or(Error::Void)?;
    if flow.provider_id != provider.provider_id || flow.binding != bound {
        return Err(Error::Void);
    }
    Ok((flow.purpose, Secrets::of(binding, state.to_owned().into())))
}

/// The person linked with `subject` at `provider`, if she works here and may use it.
///
/// # Errors
/// [`Error::NotLinked`]; the vault is sealed.
pub async fn find_linked(
    db: &mut PgConnection,
    vault: &Vault,
    provider: &Provider,
    subject: &str,
    now: DateTime<Utc>,
) -> Result<Staff, Error> {
    let canonical = canonical(provider, subject)?;
    for index in vault.indexes(db, &subject_column(), &canonical).await? {
        let version = i32::from(index.version);
        let Some(staff_id) = store::use_link(db, provider.provider_id, &index.digest, version, now).await? else {
            continue;
        };
        let staff = find_active_staff(db, staff_id).await?.filter(|staff| provider.is_for(staff.business_id));
        return staff.ok_or(Error::NotLinked);
    }
    Err(Error::NotLinked)
}

/// Links the person who decides, `decision.by`, with `subject` at `provider`. The same link again is no error.
///
/// # Errors
/// [`Error::LinkTaken`]: somebody is linked with it, or she with another; the provider is not for her.
pub async fn link(
    db: &mut PgConnection,
    vault: &Vault,
    (provider, subject): (&Provider, &str),
    staff: &Staff,
    decision: &Decision<'_>,
) -> Result<LinkId, Error> {
    if !provider.is_for(staff.business_id) || staff.removed_at.is_some() {
        return Err(Error::NoSuchProvider(provider.handle.clone()));
    }
    let canonical = canonical(provider, subject)?;
    let now = decision.now.trunc_subsecs(6);
    let link_id = LinkId(decision.chance.uuid_v7(now));
    let row = link_id.to_string();
    let cell = Cell { business_id: INSTALLATION, table: LINKS, column: "subject_sealed", row: &row };
    let mut tx = db.begin().await?;
    // While an index key is replaced by another, neither may have it.
    for index in vault.indexes(&mut tx, &subject_column(), &canonical).await? {
        let version = i32::from(index.version);
        match store::find_link(&mut tx, provider.provider_id, &index.digest, version).await? {
            Some((known, holder)) if holder == staff.staff_id => return Ok(known),
            Some(_) => return Err(Error::LinkTaken),
            None => {}
        }
    }
    let sealed = vault.seal(&mut tx, Class::Credential, &cell, subject.as_bytes()).await?;
    let index = vault.index(&mut tx, &subject_column(), &canonical).await?;
    let new = store::NewLink {
        link_id,
        provider_id: provider.provider_id,
        staff_id: staff.staff_id,
        sealed: &sealed,
        index: &index.digest,
        index_version: i32::from(index.version),
        now,
    };
    store::insert_link(&mut tx, &new).await?;
    record_link(&mut tx, words::PROVIDER_LINKED, staff, provider, decision).await?;
    tx.commit().await?;
    Ok(link_id)
}

/// Ends the link of `staff` with `provider`. `false`: there was none.
///
/// # Errors
/// The database fails.
pub async fn unlink(
    db: &mut PgConnection,
    provider: &Provider,
    staff: &Staff,
    decision: &Decision<'_>,
) -> Result<bool, Error> {
    let mut tx = db.begin().await?;
    if !store::delete_link(&mut tx, provider.provider_id, staff.staff_id).await? {
        return Ok(false);
    }
    record_link(&mut tx, words::PROVIDER_UNLINKED, staff, provider, decision).await?;
    tx.commit().await?;
    Ok(true)
}

/// Providers that `staff` is linked with.
///
/// # Errors
/// The database fails.
pub async fn list_linked(db: &mut PgConnection, staff: StaffId) -> Result<Vec<ProviderId>, Error> {
    store::list_linked(db, staff).await
}

/// Ends every link of somebody who was removed.
///
/// # Errors
/// The database fails.
pub(super) async fn forget_staff(db: &mut PgConnection, staff: StaffId) -> Result<(), sqlx::Error> {
    store::delete_links(db, staff).await
}

/// Writes down that a provider said who somebody is, in the transaction that opens the session; that she came in is the
/// session's own evidence.
///
/// # Errors
/// The database fails.
pub async fn record_sign_in(
    tx: &mut PgConnection,
    staff: &Staff,
    provider: &Provider,
    second_factor: bool,
    (now, chance): (DateTime<Utc>, &dyn Chance),
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: staff.business_id,
        actor: evidence::Actor::Staff(staff.staff_id.0),
        verb: words::PROVIDER_VOUCHED,
        object: Object { kind: "staff", id: &staff.staff_id.to_string() },
        details: json!({ "provider": provider.provider_id, "second_factor": second_factor }),
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

async fn record_provider(
    tx: &mut PgConnection,
    verb: Word,
    provider: &Provider,
    decision: &Decision<'_>,
    details: serde_json::Value,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(decision.chance, decision.now),
        business_id: provider.business_id,
        actor: decision.by.actor().clone(),
        verb,
        object: Object { kind: "oidc_provider", id: &provider.provider_id.to_string() },
        details,
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

async fn record_link(
    tx: &mut PgConnection,
    verb: Word,
    staff: &Staff,
    provider: &Provider,
    decision: &Decision<'_>,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(decision.chance, decision.now),
        business_id: staff.business_id,
        actor: decision.by.actor().clone(),
        verb,
        object: Object { kind: "staff", id: &staff.staff_id.to_string() },
        details: json!({ "provider": provider.provider_id }),
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

fn secret_cell(business: Option<BusinessId>, row: &str) -> Cell<'_> {
    let business_id = business.unwrap_or(INSTALLATION);
    Cell { business_id, table: PROVIDERS, column: "client_secret_sealed", row }
}

/// Signing in does not know the business yet, so one key serves all.
fn subject_column() -> IndexColumn<'static> {
    IndexColumn { business_id: INSTALLATION, table: LINKS, column: "subject_index" }
}

/// Issuer and subject as one text, in which neither can pass for the other.
fn canonical(provider: &Provider, subject: &str) -> Result<String, Error> {
    let fits = (1..=SUBJECT_MAX).contains(&subject.len()) && subject.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if fits { Ok(format!("{}\n{subject}", provider.issuer)) } else { Err(Error::BadSubject) }
}

fn check(new: &NewProvider) -> Result<(), Error> {
    let is_handle = (1..=40).contains(&new.handle.len())
        && new.handle.split('-').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
    if !is_handle {
        return Err(Error::BadField("handle", "up to 40 small letters, digits and single hyphens, such as google"));
    }
    if new.label.trim().is_empty() || new.label.chars().count() > 60 || new.label.chars().any(char::is_control) {
        return Err(Error::BadField("label", "1 to 60 characters, as they stand on the button"));
    }
    if !is_issuer(&new.issuer) {
        return Err(Error::BadField("issuer", "an https address without query, exactly as in the provider's tokens"));
    }
    if !(1..=300).contains(&new.client_id.len()) || new.client_id.chars().any(char::is_control) {
        return Err(Error::BadField("client_id", "as the provider gave it"));
    }
    let is_value = |value: &String| (1..=200).contains(&value.len()) && !value.chars().any(char::is_control);
    if new.trusted_amr.len() > 20 || new.trusted_acr.len() > 20 {
        return Err(Error::BadField("trusted_amr and trusted_acr", "at most 20 values each"));
    }
    if !new.trusted_amr.iter().chain(&new.trusted_acr).all(is_value) {
        return Err(Error::BadField("trusted_amr and trusted_acr", "values as the provider writes them"));
    }
    Ok(())
}

/// An https address, or plain http to loopback, as a provider on a developer's machine has.
fn is_issuer(issuer: &str) -> bool {
    let (rest, is_plain) = match (issuer.strip_prefix("https://"), issuer.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return false,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let is_local = host == "localhost" || host == "127.0.0.1" || host == "[::1]";
    issuer.len() <= 500
        && !host.is_empty()
        && !authority.contains('@')
        && (!is_plain || is_local)
        && issuer.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}
