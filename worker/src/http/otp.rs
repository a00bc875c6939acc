//! `/v1/messaging/otp`: a business's own customer proves that a number or mail address is hers.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    messaging::{
        otp::{self, Entry, LONGEST_LIFE, NewOtp, OtpId},
        wishes::Channel,
    },
    outbound::{Email, Phone},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    consents::Address,
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    vault::business_of,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(ask)).routes(routes!(verify))
}

/// Where a code may go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct To {
    /// A mobile number, for WhatsApp.
    #[schema(example = "+919812345678")]
    phone: Option<String>,
    /// A mail address: the way that is taken where WhatsApp shows no sign.
    email: Option<String>,
}

/// A code that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// To whom.
    to: To,
    /// What for, your own word.
    #[schema(example = "sign_in")]
    purpose: String,
    /// Her language, BCP 47; English if left out.
    language: Option<String>,
    /// whatsapp, mail: the ways in their order; all that there is an address for, if left out.
    channels: Option<Vec<String>>,
    /// Digits, 4 to 8; 6 if left out.
    length: Option<u8>,
    /// How long it is good, 30 to 600 seconds; 600 if left out.
    ttl_secs: Option<u16>,
    /// Who asks, as you tell askers apart: a session's id, an address. One asker does not get many codes.
    asker: Option<String>,
}

/// The same whatever is true of the address.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// To enter the code for.
    id: uuid::Uuid,
    /// From then on no code is right.
    expires_at: DateTime<Utc>,
}

/// Send a one-time code
///
/// The answer says nothing about the address: not whether it exists, not whether anything was sent.
#[utoipa::path(post, path = "/v1/messaging/otp", tag = "messaging", request_body = Ask,
    responses((status = 202, body = Asked)))]
async fn ask(State(api): State<Arc<Api>>, mut post: Post<Ask>) -> Result<Response, Problem> {
    let mend = "send it as its owner writes it, whole";
    let off = |field: &str, problem: String| Problem::field(ProblemId::BadBody, field, problem, mend);
    let to = &post.body.to;
    let phone =
        to.phone.as_deref().map(Phone::parse).transpose().map_err(|error| off("to.phone", error.to_string()))?;
    let email = to.email.as_deref().map(str::trim).map(Email::parse).transpose();
    let email = email.map_err(|error| off("to.email", error.to_string()))?;
    let named = post.body.channels.as_deref().unwrap_or_default().iter().map(|text| text.parse::<Channel>());
    let channels = named.collect::<Result<Vec<_>, _>>()?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let new = NewOtp {
        phone,
        email,
        purpose: &post.body.purpose,
        language: post.body.language.as_deref().unwrap_or("en"),
        channels: &channels,
        digits: post.body.length.unwrap_or(6),
        life: post.body.ttl_secs.map_or(LONGEST_LIFE, |secs| TimeDelta::seconds(i64::from(secs))),
        asker: post.body.asker.as_deref(),
    };
    let issued = otp::ask(effect.db(), &api.vault, &by, business, &new).await?;
    effect.answer(StatusCode::ACCEPTED, &Asked { id: issued.otp_id.0, expires_at: issued.expires_at }).await
}

/// A code as she typed it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Typed {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// What the code is for: the answer to the request named it.
    #[schema(example = "018f0000-0000-7000-8000-000000000000")]
    id: String,
    /// The code.
    #[schema(example = "012345")]
    code: String,
    /// Whom you mean. Send it: without it, whoever has the id of her own request proves an address that you did not mean.
    to: Option<Address>,
    /// What you mean it for; as above.
    purpose: Option<String>,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
struct Verified {
    /// The right code, for the first time. Wrong, expired, locked, used and unknown look alike.
    verified: bool,
    /// whatsapp or mail: by which way it had gone, and so which address is proved.
    channel: Option<&'static str>,
}

/// Enter a one-time code
#[utoipa::path(post, path = "/v1/messaging/otp/verify", tag = "messaging", request_body = Typed,
    responses((status = 200, body = Verified)))]
async fn verify(State(api): State<Arc<Api>>, mut post: Post<Typed>) -> Result<Response, Problem> {
    let to = post.body.to.as_ref().map(|to| to.read("to")).transpose()?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    // An id that is none is as wrong as one of another business.
    let otp_id: OtpId = post.body.id.parse().unwrap_or(OtpId(uuid::Uuid::nil()));
    let entry = Entry { otp_id, code: &post.body.code, to: to.as_ref(), purpose: post.body.purpose.as_deref() };
    let entered = otp::enter(effect.db(), &api.vault, &by, business, &entry).await?;
    let answer = Verified { verified: entered.verified, channel: entered.channel.map(Channel::as_str) };
    effect.answer(StatusCode::OK, &answer).await
}
