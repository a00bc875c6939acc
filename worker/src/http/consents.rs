//! `/v1/messaging/consents`, `…/suppressions`, `…/check`: what people want to hear. Addresses come in bodies and never in
//! URLs, which logs keep; none is answered.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging::wishes::{
        self, Cause, Channel, Class, ConsentState, Contact, Error, Item, NewConsent, NewSuppression, Question, Scope,
        Source, UserId, Verdict,
    },
    outbound::{Email, Phone},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    post::{Begun, Post},
    problem::{Problem, ProblemId},
    vault::business_of,
};

/// Most contacts of one check.
const ITEMS_MAX: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(record))
        .routes(routes!(find))
        .routes(routes!(suppress))
        .routes(routes!(lift))
        .routes(routes!(check))
}

/// One address of somebody: exactly one of the three.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
    /// A mobile number.
    #[schema(example = "+919812345678")]
    phone: Option<String>,
    /// A mail address.
    email: Option<String>,
    /// A WhatsApp user id.
    user_id: Option<String>,
}

impl Address {
    /// What it names; `field` is where it stands in the body.
    pub(super) fn read(&self, field: &str) -> Result<Contact, Problem> {
        let off = |part: &str, problem: String| {
            Problem::field(
                ProblemId::BadBody,
                &format!("{field}.{part}"),
                problem,
                "send it as its owner writes it, whole",
            )
        };
        match (&self.phone, &self.email, &self.user_id) {
            (Some(text), None, None) => {
                Phone::parse(text).map(Contact::Phone).map_err(|error| off("phone", error.to_string()))
            }
            (None, Some(text), None) => {
                Email::parse(text.trim()).map(Contact::Email).map_err(|error| off("email", error.to_string()))
            }
            (None, None, Some(text)) => {
                UserId::parse(text).map(Contact::UserId).map_err(|_| off("user_id", "is no user id".to_owned()))
            }
            _ => {
                let mend = "give one of phone, email, user_id";
                Err(Problem::field(ProblemId::BadBody, field, "names nobody, or several", mend))
            }
        }
    }
}

/// What somebody said of one purpose.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWord {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// Who said it.
    contact: Address,
    /// Your own word for what it is about: small letters, digits and `_`, with dots between parts.
    #[schema(example = "marketing.offers")]
    purpose: String,
    /// given or withdrawn.
    #[schema(example = "given")]
    state: String,
    /// How you know: web_form, app, paper, in_store or phone_call.
    #[schema(example = "web_form")]
    source: String,
    /// Which words she agreed to; needed for what is given.
    #[schema(example = "offers-v3")]
    wording_version: Option<String>,
    /// In which language she was asked, BCP 47; needed for what is given.
    #[schema(example = "hi")]
    language: Option<String>,
    /// What proves it, or where that lies: kept sealed.
    proof: Option<String>,
    /// When she said it; now if left out.
    at: Option<DateTime<Utc>>,
}

/// Where the purpose stands now.
#[derive(Serialize, ToSchema)]
struct Stands {
    /// The contact, by the id that stands in the evidence.
    contact_id: uuid::Uuid,
    /// The row that proves it.
    consent_id: uuid::Uuid,
    /// Whether it was new: the same word again is none.
    new: bool,
    /// given, withdrawn or ask_again: what she said last, by her clock. An older word changes nothing.
    state: &'static str,
}

/// Record what somebody said of one purpose
#[utoipa::path(post, path = "/v1/messaging/consents", tag = "messaging", request_body = NewWord,
    responses((status = 201, body = Stands)))]
async fn record(State(api): State<Arc<Api>>, mut post: Post<NewWord>) -> Result<Response, Problem> {
    let contact = post.body.contact.read("contact")?;
    let state: ConsentState = post.body.state.parse()?;
    let source: Source = post.body.source.parse()?;
    if state == ConsentState::AskAgain || !source.is_for_callers() {
        let (field, known) = match state {
            ConsentState::AskAgain => ("state", "take given or withdrawn"),
            _ => ("source", "take web_form, app, paper, in_store or phone_call"),
        };
        return Err(Problem::field(ProblemId::BadBody, field, "is not yours to say", known));
    }
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let new = NewConsent {
        purpose: &post.body.purpose,
        state,
        source,
        wording_version: post.body.wording_version.as_deref(),
        language: post.body.language.as_deref(),
        proof: post.body.proof.as_deref(),
        at: post.body.at.unwrap_or(by.now),
    };
    let recorded = wishes::record(effect.db(), &api.vault, &by, business, (&contact, &new)).await?;
    let stands = Stands {
        contact_id: recorded.contact_id.0,
        consent_id: recorded.consent_id.0,
        new: recorded.new,
        state: recorded.stands.as_str(),
    };
    effect.answer(StatusCode::CREATED, &stands).await
}

/// Whose history.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// Whose.
    contact: Address,
}

/// One thing that somebody said.
#[derive(Serialize, ToSchema)]
struct Said {
    consent_id: uuid::Uuid,
    purpose: String,
    /// given, withdrawn or ask_again.
    state: &'static str,
    source: String,
    wording_version: Option<String>,
    language: Option<String>,
    /// Whether a proof is kept.
    proved: bool,
    /// When she said it.
    at: DateTime<Utc>,
    /// When it was written down.
    recorded_at: DateTime<Utc>,
    /// By whom.
    recorded_by: String,
}

/// One reason not to write, or its end.
#[derive(Serialize, ToSchema)]
struct Suppressed {
    /// all, marketing, channel or identity.
    scope: &'static str,
    /// whatsapp or mail; none: everywhere.
    channel: Option<&'static str>,
    /// person, preference, carrier or operator: whose it is, and so who can end it.
    cause: &'static str,
    /// Whether it was set, or lifted.
    set: bool,
    reason: String,
    at: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    recorded_at: DateTime<Utc>,
    recorded_by: String,
}

/// What is known of a contact, newest first.
#[derive(Serialize, ToSchema)]
struct History {
    consents: Vec<Said>,
    suppressions: Vec<Suppressed>,
    /// Since when an erasure keeps her out.
    erased_at: Option<DateTime<Utc>>,
}

/// Show what a contact said; that somebody looked is on record
#[utoipa::path(post, path = "/v1/messaging/consents/find", tag = "messaging", request_body = Whose,
    responses((status = 200, body = History)))]
async fn find(State(api): State<Arc<Api>>, post: Post<Whose>) -> Result<Json<History>, Problem> {
    let contact = post.body.contact.read("contact")?;
    let mut tx = post.caller.enter_to_act(&api).await?;
    let by = post.caller.by(&api);
    let business = business_of(&mut tx, &post.caller, post.body.business.as_deref()).await?;
    let known = wishes::history(&mut tx, &api.vault, &by, business, &contact).await?;
    tx.commit().await?;
    let consents = known.consents.into_iter().map(|one| Said {
        consent_id: one.consent_id.0,
        purpose: one.purpose,
        state: one.state.as_str(),
        source: one.source,
        wording_version: one.wording_version,
        language: one.language,
        proved: one.proved,
        at: one.at,
        recorded_at: one.recorded_at,
        recorded_by: one.recorded_by,
    });
    let suppressions = known.suppressions.into_iter().map(|one| Suppressed {
        scope: one.scope.as_str(),
        channel: one.channel.map(Channel::as_str),
        cause: one.cause.as_str(),
        set: one.set,
        reason: one.reason,
        at: one.at,
        until: one.until,
        recorded_at: one.recorded_at,
        recorded_by: one.recorded_by,
    });
    Ok(Json(History { consents: consents.collect(), suppressions: suppressions.collect(), erased_at: known.erased_at }))
}

/// A reason not to write.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Stop {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// Whom not to write to.
    contact: Address,
    /// all, marketing, channel or identity.
    #[schema(example = "all")]
    scope: String,
    /// whatsapp or mail, where it was said or holds; everywhere if left out.
    channel: Option<String>,
    /// person: she said so, and only she takes it back. operator: you decided it.
    #[schema(example = "person")]
    cause: String,
    /// Why, in one word.
    #[schema(example = "asked_in_shop")]
    reason: String,
    /// Since when; now if left out.
    at: Option<DateTime<Utc>>,
    /// Until when, for what you decided.
    until: Option<DateTime<Utc>>,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
struct Stopped {
    /// Whether it changed what is in force.
    changed: bool,
}

/// Stop messages to a contact, at once
#[utoipa::path(post, path = "/v1/messaging/suppressions", tag = "messaging", request_body = Stop,
    responses((status = 201, body = Stopped)))]
async fn suppress(State(api): State<Arc<Api>>, mut post: Post<Stop>) -> Result<Response, Problem> {
    let contact = post.body.contact.read("contact")?;
    let scope: Scope = post.body.scope.parse()?;
    let channel = post.body.channel.as_deref().map(str::parse::<Channel>).transpose()?;
    let cause = cause(&post.body.cause)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let at = post.body.at.unwrap_or(by.now);
    let new = NewSuppression { scope, channel, cause, reason: &post.body.reason, at, until: post.body.until };
    let (_, changed) = wishes::suppress(effect.db(), &api.vault, &by, business, (&contact, &new)).await?;
    effect.answer(StatusCode::CREATED, &Stopped { changed }).await
}

fn cause(text: &str) -> Result<Cause, Problem> {
    match text.parse()? {
        cause @ (Cause::Person | Cause::Operator) => Ok(cause),
        Cause::Preference | Cause::Carrier => {
            Err(Problem::field(ProblemId::BadBody, "cause", "is told by the carrier alone", "take person or operator"))
        }
    }
}

/// A reason that ends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Lift {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// Whose.
    contact: Address,
    /// all, marketing, channel or identity.
    #[schema(example = "channel")]
    scope: String,
    /// operator or carrier: what a person said, she takes back herself.
    #[schema(example = "operator")]
    cause: String,
    /// Why, in one word: how you know that the number is hers again, for example.
    #[schema(example = "seen_at_counter")]
    reason: String,
}

/// End what you or the carrier set
#[utoipa::path(post, path = "/v1/messaging/suppressions/lift", tag = "messaging", request_body = Lift,
    responses((status = 200, body = Stopped)))]
async fn lift(State(api): State<Arc<Api>>, mut post: Post<Lift>) -> Result<Response, Problem> {
    let contact = post.body.contact.read("contact")?;
    let (scope, cause): (Scope, Cause) = (post.body.scope.parse()?, post.body.cause.parse()?);
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let what = (&contact, scope, cause, post.body.reason.as_str());
    let changed = wishes::lift(effect.db(), &api.vault, &by, business, what).await?;
    effect.answer(StatusCode::OK, &Stopped { changed }).await
}

/// Contacts to be asked about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// At most 1000.
    items: Vec<Asked>,
}

/// One message that would be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// To whom.
    contact: Address,
    /// What for.
    #[schema(example = "marketing.offers")]
    purpose: String,
    /// whatsapp or mail.
    #[schema(example = "whatsapp")]
    channel: String,
    /// marketing, transactional, statutory or otp; marketing if left out.
    class: Option<String>,
}

/// One answer for each item, in their order. Addresses are not repeated.
#[derive(Serialize, ToSchema)]
struct Checked {
    items: Vec<Answered>,
    /// How many may not be written to.
    refused: usize,
}

/// Whether one message may go.
#[derive(Serialize, ToSchema)]
struct Answered {
    allowed: bool,
    /// erased, stopped, identity_changed, channel_closed, marketing_stopped, withdrawn, ask_again or no_consent.
    reason: Option<&'static str>,
}

/// Ask whether contacts may be written to; how many were asked about is on record
///
/// Ask before an import or a campaign: an erased person is `erased` for good. Answers are about your business alone, and
/// true now: what is sent later is judged again.
#[utoipa::path(post, path = "/v1/messaging/check", tag = "messaging", request_body = Check,
    responses((status = 200, body = Checked)))]
async fn check(State(api): State<Arc<Api>>, post: Post<Check>) -> Result<Json<Checked>, Problem> {
    let asked = &post.body.items;
    if asked.len() > ITEMS_MAX {
        let problem = format!("has {} entries", asked.len());
        return Err(Problem::field(ProblemId::BadBody, "items", problem, "send at most 1000 at a time"));
    }
    let mut read = Vec::with_capacity(asked.len());
    for (at, item) in asked.iter().enumerate() {
        let within = |error: Error| Problem::from(error).within(&format!("items.{at}"));
        let contact = item.contact.read(&format!("items.{at}.contact"))?;
        let channel: Channel = item.channel.parse().map_err(within)?;
        let class: Class = item.class.as_deref().unwrap_or("marketing").parse().map_err(within)?;
        let purpose = wishes::checked_purpose(&item.purpose).map_err(within)?;
        read.push((contact, Question { class, purpose, channel, last_way: false }));
    }
    let items: Vec<_> = read.iter().map(|(to, question)| Item { to, others: &[], question: *question }).collect();
    let mut tx = post.caller.enter_to_act(&api).await?;
    let by = post.caller.by(&api);
    let business = business_of(&mut tx, &post.caller, post.body.business.as_deref()).await?;
    let verdicts = wishes::judge_each(&mut tx, &api.vault, business, &items, by.now).await?;
    let refused = verdicts.iter().filter(|verdict| **verdict != Verdict::Allowed).count();
    wishes::note_checked(&mut tx, &by, business, (items.len(), refused)).await?;
    tx.commit().await?;
    let items = verdicts.into_iter().map(|verdict| match verdict {
        Verdict::Allowed => Answered { allowed: true, reason: None },
        Verdict::Skipped(reason) => Answered { allowed: false, reason: Some(reason.as_str()) },
    });
    Ok(Json(Checked { items: items.collect(), refused }))
}
