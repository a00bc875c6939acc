//! `/v1/messaging/mail/identity`: whom the mail of a business comes from. Addresses are shown as hints, keys never.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging::{
        self,
        mail::{self, BadIdentity, IdentityInfo, NewIdentity, SigningKey},
    },
    outbound::{Algorithm, DkimKey, Email},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    people::business_of,
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    query::Query,
};
use crate::outbound::chance::OsChance;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show, set)).routes(routes!(verify)).routes(routes!(remove))
}

/// Whom the mail of a business comes from.
#[derive(Serialize, ToSchema)]
struct MailIdentity {
    /// Whose.
    business_id: uuid::Uuid,
    /// The address, shortened.
    #[schema(example = "b…@sharma-mobiles.example")]
    from: String,
    /// The name beside it.
    name: String,
    /// Where answers go, shortened; the address itself where there is none.
    reply_to: Option<String>,
    /// Name of the TXT record to publish, if its mail is signed.
    dkim_dns_name: Option<String>,
    /// Its text.
    dkim_dns_record: Option<String>,
    /// When the address was proved. Nothing is sent from it before.
    verified_at: Option<DateTime<Utc>>,
    /// When it was set.
    updated_at: DateTime<Utc>,
}

impl From<IdentityInfo> for MailIdentity {
    fn from(info: IdentityInfo) -> Self {
        Self {
            business_id: info.business_id.0,
            from: info.from,
            name: info.name,
            reply_to: info.reply_to,
            dkim_dns_name: info.dkim_dns_name,
            dkim_dns_record: info.dkim_dns_record,
            verified_at: info.verified_at,
            updated_at: info.updated_at,
        }
    }
}

/// Which business.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// The handle; not needed where the token, or the installation, has only one.
    business: Option<String>,
}

/// Show whom the mail of a business comes from
#[utoipa::path(get, path = "/v1/messaging/mail/identity", tag = "messaging", params(Which),
    responses((status = 200, body = MailIdentity)))]
async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(asked): Query<Which>,
) -> Result<Json<MailIdentity>, Problem> {
    let mut db = caller.enter(&api).await?;
    let business = business_of(&mut db, &caller, asked.business.as_deref()).await?;
    let found = mail::find_identity(&mut db, &api.vault, business).await?;
    Ok(Json(found.ok_or(ProblemId::NoSuchMailIdentity)?.into()))
}

/// An address to send mail from.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetMailIdentity {
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
    /// The address. A code is sent to it.
    #[schema(example = "bills@sharma-mobiles.example")]
    from: String,
    /// The name beside it; that of the registration if it is left out.
    name: Option<String>,
    /// Where answers go; to the address itself if it is left out.
    reply_to: Option<String>,
    /// Makes a key that its mail is signed with. The one that is there stays if this is left out.
    dkim: Option<MakeDkim>,
}

/// A signing key to be made here; its private half never leaves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MakeDkim {
    /// The domain of the address, or one above it.
    domain: String,
    /// A name for the key in DNS.
    #[schema(example = "mnm2026")]
    selector: String,
    /// rsa, which every receiver checks, or ed25519.
    #[schema(value_type = String)]
    algorithm: Algorithm,
}

/// Set the address that the mail of a business comes from
#[utoipa::path(post, path = "/v1/messaging/mail/identity", tag = "messaging", request_body = SetMailIdentity,
    responses((status = 200, body = MailIdentity)))]
async fn set(State(api): State<Arc<Api>>, mut post: Post<SetMailIdentity>) -> Result<Response, Problem> {
    let email = |text: &str| {
        Email::parse(text.trim()).map_err(|error| Problem::new(ProblemId::BadMailIdentity, error.to_string()))
    };
    let from = email(&post.body.from)?;
    let reply_to = post.body.reply_to.as_deref().map(email).transpose()?;
    let dkim = match &post.body.dkim {
        Some(MakeDkim { domain, selector, algorithm }) => {
            let algorithm = *algorithm;
            // Seconds of arithmetic, off the threads that answer others.
            let made = tokio::task::spawn_blocking(move || DkimKey::generate(algorithm, &OsChance)).await;
            let pem = made.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
            Some(SigningKey { domain: domain.clone(), selector: selector.clone(), pem })
        }
        None => None,
    };
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let new = NewIdentity { from, name: post.body.name.clone(), reply_to, dkim, is_vouched_for: false };
    let by = post.caller.by(&api);
    let info = mail::set_identity(effect.db(), &api.vault, business, &new, &by).await?;
    effect.answer(StatusCode::OK, &MailIdentity::from(info)).await
}

/// The code that went to the address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyMailIdentity {
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
    /// The code.
    #[schema(example = "abcd-efgh-jkmn")]
    code: String,
}

/// Confirm the address with the code that went to it
#[utoipa::path(post, path = "/v1/messaging/mail/identity/verify", tag = "messaging",
    request_body = VerifyMailIdentity, responses((status = 200, body = MailIdentity)))]
async fn verify(State(api): State<Arc<Api>>, mut post: Post<VerifyMailIdentity>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let by = post.caller.by(&api);
    let (vault, code) = (&api.vault, post.body.code.as_str());
    match mail::verify_identity(effect.db(), vault, business, code, &by).await {
        Ok(info) => effect.answer(StatusCode::OK, &MailIdentity::from(info)).await,
        Err(wrong @ messaging::Error::MailIdentity(BadIdentity::Code)) => {
            // A refused effect is undone; the guess is counted in a transaction of its own.
            drop(effect);
            let mut tx = post.caller.enter_to_act(&api).await?;
            mail::count_guess(&mut tx, business).await?;
            tx.commit().await?;
            Err(wrong.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Which business's address goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RemoveMailIdentity {
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
struct Removed {
    /// Whether there was an address.
    removed: bool,
}

/// Take the address and its key away
#[utoipa::path(post, path = "/v1/messaging/mail/identity/remove", tag = "messaging",
    request_body = RemoveMailIdentity, responses((status = 200, body = Removed)))]
async fn remove(State(api): State<Arc<Api>>, mut post: Post<RemoveMailIdentity>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let by = post.caller.by(&api);
    let removed = mail::remove_identity(effect.db(), business, &by).await?;
    effect.answer(StatusCode::OK, &Removed { removed }).await
}
