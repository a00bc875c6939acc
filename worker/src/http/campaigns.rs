//! `/v1/messaging/campaigns`: the same thing said to many, looked at before it goes out and halted in an instant.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    messaging::{
        self, CampaignId, MessageClass,
        campaign::{self, BadField, CampaignState, NewCampaign, PEOPLE_AT_ONCE, Test, Whose},
    },
    outbound::Phone,
    people::BusinessId,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    body::Nothing,
    cursor::{self, Listing, Page},
    post::{Begun, Post},
    problem::{FieldProblem, Problem, ProblemId},
    query::Query,
    vault::business_of,
};

/// How long a campaign may go out where nobody says.
const LIFE: TimeDelta = TimeDelta::days(3);
/// Most fields that one answer complains of.
const COMPLAINTS: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show))
        .routes(routes!(add))
        .routes(routes!(estimate))
        .routes(routes!(preview))
        .routes(routes!(test))
        .routes(routes!(start))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
}

/// A campaign.
#[derive(Serialize, ToSchema)]
struct Campaign {
    /// Its id.
    id: uuid::Uuid,
    /// For people of the business alone.
    name: String,
    /// The word under which consent is kept.
    #[schema(example = "marketing.offers")]
    purpose: String,
    /// statutory, transactional or marketing.
    #[schema(value_type = String)]
    class: MessageClass,
    /// The carrier's id of the number that it comes from.
    phone_number_id: String,
    /// Which words.
    #[schema(example = "order_ready")]
    template: String,
    /// draft, running, paused, stopped or done.
    #[schema(value_type = String)]
    state: CampaignState,
    /// Why it rests by itself: wave, template_is_marketing.
    paused_because: Option<String>,
    /// Once so many messages were begun it rests.
    rests_after: Option<i64>,
    /// After this instant nothing more begins.
    expires_at: DateTime<Utc>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it first went out.
    started_at: Option<DateTime<Utc>>,
    /// When it was stopped, or done.
    ended_at: Option<DateTime<Utc>>,
}

impl From<messaging::Campaign> for Campaign {
    fn from(campaign: messaging::Campaign) -> Self {
        Self {
            id: campaign.campaign_id.0,
            name: campaign.name,
            purpose: campaign.purpose,
            class: campaign.class,
            phone_number_id: campaign.phone_number_id,
            template: campaign.template,
            state: campaign.state,
            paused_because: campaign.paused_because,
            rests_after: campaign.rests_after,
            expires_at: campaign.expires_at,
            created_at: campaign.created_at,
            started_at: campaign.started_at,
            ended_at: campaign.ended_at,
        }
    }
}

/// A campaign and its messages by state.
#[derive(Serialize, ToSchema)]
struct Standing {
    /// The campaign.
    #[serde(flatten)]
    campaign: Campaign,
    /// How many of its messages are in which state (those of a message); a state that none is in is left out.
    #[schema(value_type = BTreeMap<String, i64>)]
    messages: serde_json::Value,
}

/// The campaign that a path names, if it exists for this caller, and whose it is.
async fn find(db: &mut PgConnection, caller: &Caller, id: &str) -> Result<(BusinessId, CampaignId), Problem> {
    let id: CampaignId = id.parse().map_err(|_| ProblemId::NoSuchCampaign)?;
    let (found, _) = campaign::find(db, caller.business, id).await?.ok_or(ProblemId::NoSuchCampaign)?;
    Ok((found.business_id, id))
}

async fn standing(db: &mut PgConnection, (business, id): (BusinessId, CampaignId)) -> Result<Standing, Problem> {
    let (found, messages) = campaign::find(db, Some(business), id).await?.ok_or(ProblemId::NoSuchCampaign)?;
    Ok(Standing { campaign: found.into(), messages })
}

/// Which campaigns.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List campaigns, newest first
#[utoipa::path(get, path = "/v1/messaging/campaigns", tag = "messaging", params(Filter),
    responses((status = 200, body = Page<Campaign>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Campaign>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<CampaignId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let campaigns = campaign::list(&mut db, business, before, limit + 1).await?;
    let campaigns = campaigns.into_iter().map(Campaign::from).collect();
    Ok(Json(cursors.page(campaigns, limit, |one: &Campaign| one.id.to_string())))
}

/// Show one campaign and how many of its messages are in which state
#[utoipa::path(get, path = "/v1/messaging/campaigns/{id}", tag = "messaging", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Standing)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Standing>, Problem> {
    let mut db = caller.enter(&api).await?;
    let of = find(&mut db, &caller, &id).await?;
    Ok(Json(standing(&mut db, of).await?))
}

/// A campaign to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct New {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// For people of the business alone.
    #[schema(example = "Diwali offers")]
    name: String,
    /// The word under which consent is kept: two parts with a dot between.
    #[schema(example = "marketing.offers")]
    purpose: String,
    /// The folder of its words: `muneem messaging templates list`. One without a file at its head.
    #[schema(example = "order_ready")]
    template: String,
    /// marketing, for words that sell although their template does not say so; else what the template is.
    class: Option<String>,
    /// Once so many messages were begun it rests until somebody lets it go on.
    rests_after: Option<i64>,
    /// After this instant nothing more begins; in three days if left out.
    expires_at: Option<DateTime<Utc>>,
}

/// Make an empty campaign
#[utoipa::path(post, path = "/v1/messaging/campaigns", tag = "messaging", request_body = New,
    responses((status = 201, body = Standing)))]
async fn create(State(api): State<Arc<Api>>, mut post: Post<New>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = post.caller.by(&api);
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let class = match post.body.class.as_deref() {
        Some("marketing") => MessageClass::Marketing,
        Some(_) => {
            let mend = "take marketing, or leave it out for what the template is";
            return Err(Problem::field(ProblemId::BadBody, "class", "is none to choose", mend));
        }
        None => campaign::class_of(&post.body.template)?,
    };
    let New { name, purpose, template, rests_after, expires_at, .. } = post.body;
    let expires_at = expires_at.unwrap_or(by.now + LIFE);
    let new = NewCampaign { business, name, purpose, class, template, rests_after, expires_at };
    let id = campaign::create(effect.db(), &new, &by).await?;
    let made = standing(effect.db(), (business, id)).await?;
    effect.answer(StatusCode::CREATED, &made).await
}

/// People to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct People {
    /// At most 1000.
    people: Vec<Person>,
}

/// One person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Person {
    /// Her mobile number.
    #[schema(example = "+919812345678")]
    phone: String,
    /// Her mail address: the way that is taken where WhatsApp does not reach her.
    mail: Option<String>,
    /// Her language, BCP 47.
    #[schema(example = "hi")]
    language: String,
    /// The template's parameters by name, each as its type says.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// How many came in.
#[derive(Serialize, ToSchema)]
struct Added {
    /// Added now.
    added: u64,
    /// Left out: in the campaign already, or twice in the call. She keeps the parameters of the first time.
    doubles: u64,
}

fn off(place: &str, bad: BadField) -> FieldProblem {
    let part: Cow<'_, str> = if bad.is_parameter { format!("parameters.{}", bad.field).into() } else { bad.field };
    let field = if place.is_empty() { part.into_owned() } else { format!("{place}.{part}") };
    let mend = "mend it and send it again: nothing was done".to_owned();
    FieldProblem { field, problem: bad.problem.into_owned(), mend }
}

/// Add people to a draft; where one of them does not fit, nobody is added
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/people", tag = "messaging", params(("id" = uuid::Uuid, Path)),
    request_body = People, responses((status = 200, body = Added)))]
async fn add(State(api): State<Arc<Api>>, Path(id): Path<String>, mut post: Post<People>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let of = find(effect.db(), &post.caller, &id).await?;
    let asked = std::mem::take(&mut post.body.people);
    if asked.len() > PEOPLE_AT_ONCE {
        let problem = format!("has {} entries", asked.len());
        return Err(Problem::field(ProblemId::BadBody, "people", problem, "send at most 1000 at a time"));
    }
    let template = standing(effect.db(), of).await?.campaign.template;
    let (mut people, mut bad) = (Vec::with_capacity(asked.len()), Vec::new());
    for (at, person) in asked.into_iter().enumerate() {
        match campaign::read_person(
            &template,
            (&person.phone, person.mail.as_deref()),
            &person.language,
            person.parameters,
        ) {
            Ok(person) => people.push(person),
            Err(field) if bad.len() < COMPLAINTS => bad.push(off(&format!("people.{at}"), field)),
            Err(_) => break,
        }
    }
    if !bad.is_empty() {
        return Err(Problem::fields(ProblemId::BadBody, bad));
    }
    let by = post.caller.by(&api);
    let done = campaign::add_people(effect.db(), &api.vault, of, &people, &by).await?;
    effect.answer(StatusCode::OK, &Added { added: done.added, doubles: done.doubles }).await
}

/// What is left of a campaign would cost so much and take so long.
#[derive(Serialize, ToSchema)]
struct Estimate {
    /// When this was estimated.
    at: DateTime<Utc>,
    /// Messages that wait.
    people: u64,
    /// Those that may go now.
    allowed: u64,
    /// Those that may not, by reason: erased, stopped, identity_changed, channel_closed, marketing_stopped, withdrawn,
    /// ask_again or no_consent.
    #[schema(value_type = BTreeMap<String, u64>)]
    refused: BTreeMap<&'static str, u64>,
    /// Of the allowed: who wrote within the last 24 hours.
    in_window: u64,
    /// What the allowed cost.
    cost: Cost,
    /// How long they take.
    time: Time,
    /// What this takes for granted.
    assumptions: Vec<String>,
}

/// Exact decimals, as text.
#[derive(Serialize, ToSchema)]
struct Cost {
    /// INR.
    currency: String,
    /// One line for each rate.
    lines: Vec<CostLine>,
    /// Messages to countries whose rates are not known here; not counted.
    unpriced: u64,
    /// Sum of the lines.
    #[schema(value_type = String, example = "215.7750")]
    net: Decimal,
    /// Tax in percent.
    #[schema(value_type = String, example = "18")]
    tax_percent: Decimal,
    /// The tax, rounded to paise.
    #[schema(value_type = String, example = "38.84")]
    tax: Decimal,
    /// Both, rounded to paise.
    #[schema(value_type = String, example = "254.61")]
    total: Decimal,
}

/// What is charged at one rate.
#[derive(Serialize, ToSchema)]
struct CostLine {
    /// MARKETING or UTILITY: the carrier's category.
    #[schema(value_type = String)]
    category: &'static str,
    /// Whether the recipients wrote within the last 24 hours, where the rate card tells that apart.
    in_window: bool,
    /// How many.
    messages: u64,
    /// For each.
    #[schema(value_type = String, example = "0.8631")]
    per_message: Decimal,
    /// For all.
    #[schema(value_type = String, example = "215.7750")]
    amount: Decimal,
}

/// By each of the carrier's limits.
#[derive(Serialize, ToSchema)]
struct Time {
    /// What the number sends in a second.
    messages_per_second: i32,
    /// How long the number is busy, in seconds.
    throughput_secs: u64,
    /// People who may be written to first in any 24 hours; none: no limit, or none known.
    daily_recipients: Option<i32>,
    /// People who count against that now.
    reached: u64,
    /// People of the campaign who would count.
    new_recipients: u64,
    /// Days to wait beyond today because of that limit.
    further_days: u64,
    /// Whether it ends before it expires.
    ends_in_time: bool,
}

impl From<campaign::Estimate> for Estimate {
    fn from(estimate: campaign::Estimate) -> Self {
        let campaign::Estimate { at, people, allowed, refused, in_window, cost, time, assumptions, .. } = estimate;
        let lines = cost.lines.into_iter().map(|line| CostLine {
            category: line.category,
            in_window: line.in_window,
            messages: line.messages,
            per_message: line.per_message,
            amount: line.amount,
        });
        let cost = Cost {
            lines: lines.collect(),
            currency: cost.currency,
            unpriced: cost.unpriced,
            net: cost.net,
            tax_percent: cost.tax_percent,
            tax: cost.tax,
            total: cost.total,
        };
        let time = Time {
            messages_per_second: time.messages_per_second,
            throughput_secs: time.throughput_secs,
            daily_recipients: time.daily_recipients,
            reached: time.reached,
            new_recipients: time.new_recipients,
            further_days: time.further_days,
            ends_in_time: time.ends_in_time,
        };
        Self { at, people, allowed, refused, in_window, cost, time, assumptions }
    }
}

/// Estimate cost and time of what waits; how many were asked about is on record
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/estimate", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Estimate)))]
async fn estimate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    post: Post<Nothing>,
) -> Result<Json<Estimate>, Problem> {
    let mut tx = post.caller.enter_to_act(&api).await?;
    let of = find(&mut tx, &post.caller, &id).await?;
    let estimate = campaign::estimate(&mut tx, &api.vault, of, &post.caller.by(&api)).await?;
    tx.commit().await?;
    Ok(Json(estimate.into()))
}

/// What is to be shown: nothing named, the first one's message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Look {
    /// The person of the campaign whose message it is.
    phone: Option<String>,
    /// Or parameters, of nobody.
    parameters: Option<BTreeMap<String, String>>,
    /// In this language, BCP 47, rather than in hers.
    language: Option<String>,
}

/// A message as its recipient would read it.
#[derive(Serialize, ToSchema)]
struct Preview {
    /// The last two digits of her number.
    #[schema(example = "…78")]
    recipient: Option<String>,
    /// The carrier's name of the template.
    name: String,
    /// The language of the words.
    language: String,
    /// The line at its head.
    header: Option<String>,
    /// The words.
    body: String,
    /// The small line below.
    footer: Option<String>,
    /// What can be tapped.
    buttons: Vec<Button>,
}

/// Something that can be tapped.
#[derive(Serialize, ToSchema)]
struct Button {
    /// quick_reply, url, copy_code or phone.
    #[schema(value_type = String)]
    kind: &'static str,
    /// The words on it.
    text: Option<String>,
    /// The page that it opens, the code that it copies, the number that it calls.
    leads_to: Option<String>,
}

fn phone(text: &str) -> Result<Phone, Problem> {
    let mend = "send it as its owner writes it, whole";
    Phone::parse(text).map_err(|error| Problem::field(ProblemId::BadBody, "phone", error.to_string(), mend))
}

fn language(code: Option<&str>) -> Result<Option<messaging::Language>, Problem> {
    let read = code.map(campaign::read_language).transpose();
    read.map_err(|bad| Problem::fields(ProblemId::BadBody, vec![off("", bad)]))
}

/// Show a message as its recipient would read it; that somebody read a person's is on record
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/preview", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), request_body = Look, responses((status = 200, body = Preview)))]
async fn preview(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    post: Post<Look>,
) -> Result<Json<Preview>, Problem> {
    let mut tx = post.caller.enter_to_act(&api).await?;
    let of = find(&mut tx, &post.caller, &id).await?;
    let by = post.caller.by(&api);
    let Look { phone: named, parameters, language: code } = post.body;
    let language = language(code.as_deref())?;
    let person = named.as_deref().map(phone).transpose()?;
    let whose = match (&person, parameters) {
        (None, None) => Whose::First,
        (Some(person), None) => Whose::Person(person),
        (None, Some(parameters)) => Whose::Given(parameters),
        (Some(_), Some(_)) => {
            let mend = "name a person of the campaign, or parameters of nobody";
            return Err(Problem::field(ProblemId::BadBody, "parameters", "stand beside a phone", mend));
        }
    };
    let shown = campaign::preview(&mut tx, &api.vault, of, (whose, language), &by).await?;
    tx.commit().await?;
    let buttons = shown.buttons.into_iter().map(|button| Button {
        kind: button.kind,
        text: button.text,
        leads_to: button.leads_to,
    });
    Ok(Json(Preview {
        recipient: shown.recipient,
        name: shown.name,
        language: shown.language,
        header: shown.header,
        body: shown.body,
        footer: shown.footer,
        buttons: buttons.collect(),
    }))
}

/// A test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Try {
    /// To whom: somebody who waits for it.
    #[schema(example = "+919812345678")]
    phone: String,
    /// In which language, BCP 47; English if left out.
    language: Option<String>,
    /// The template's parameters; its own examples if left out, never those of a person of the campaign.
    parameters: Option<BTreeMap<String, String>>,
    /// Whether who holds the number agreed to get it; needed for words that sell, and kept as a consent to tests.
    #[serde(default)]
    agreed: bool,
}

/// A message that was asked for.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// Its id: GET /v1/messaging/messages/{id} shows what came of it.
    message_id: uuid::Uuid,
}

/// Send the campaign's words to one number, which the campaign does not count
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/test", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), request_body = Try, responses((status = 202, body = Asked)))]
async fn test(State(api): State<Arc<Api>>, Path(id): Path<String>, mut post: Post<Try>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let of = find(effect.db(), &post.caller, &id).await?;
    let by = post.caller.by(&api);
    let test = Test {
        to: phone(&post.body.phone)?,
        language: language(post.body.language.as_deref())?,
        parameters: post.body.parameters.take(),
        agreed: post.body.agreed,
    };
    let message = campaign::send_test(effect.db(), (&api.vault, &*api.clock), of, test, &by).await?;
    effect.answer(StatusCode::ACCEPTED, &Asked { message_id: message.0 }).await
}

/// Let a draft go out
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/start", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Standing)))]
async fn start(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let of = find(effect.db(), &post.caller, &id).await?;
    campaign::start(effect.db(), of, &post.caller.by(&api)).await?;
    let stands = standing(effect.db(), of).await?;
    effect.answer(StatusCode::OK, &stands).await
}

async fn halt(api: Arc<Api>, id: &str, mut post: Post<Nothing>, for_good: bool) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let of = find(effect.db(), &post.caller, id).await?;
    campaign::halt(effect.db(), of, for_good, &post.caller.by(&api)).await?;
    let stands = standing(effect.db(), of).await?;
    effect.answer(StatusCode::OK, &stands).await
}

/// Hold a campaign: two seconds after the answer no POST of it begins
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/pause", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Standing)))]
async fn pause(State(api): State<Arc<Api>>, Path(id): Path<String>, post: Post<Nothing>) -> Result<Response, Problem> {
    halt(api, &id, post, false).await
}

/// End a campaign for good: two seconds after the answer no POST of it begins
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/stop", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = Standing)))]
async fn stop(State(api): State<Arc<Api>>, Path(id): Path<String>, post: Post<Nothing>) -> Result<Response, Problem> {
    halt(api, &id, post, true).await
}

/// How it goes on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// It rests again after so many messages more.
    rests_after: Option<i64>,
}

/// Let a campaign that rests go on
#[utoipa::path(post, path = "/v1/messaging/campaigns/{id}/resume", tag = "messaging",
    params(("id" = uuid::Uuid, Path)), request_body = Resume, responses((status = 200, body = Standing)))]
async fn resume(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Resume>,
) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let of = find(effect.db(), &post.caller, &id).await?;
    campaign::resume(effect.db(), of, post.body.rests_after, &post.caller.by(&api)).await?;
    let stands = standing(effect.db(), of).await?;
    effect.answer(StatusCode::OK, &stands).await
}
