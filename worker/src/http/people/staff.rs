use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    outbound::Phone,
    people::{self, Authority, Enrolment, Known, Role, Staff, StaffId},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api,
        auth::Caller,
        body::Nothing,
        cursor::Page,
        post::{Begun, Post},
        problem::{Problem, ProblemId},
        query::Query,
    },
    decision,
};

/// Somebody who works here; personal values are hints.
#[derive(Serialize, ToSchema)]
pub(super) struct Person {
    /// Her id.
    staff_id: uuid::Uuid,
    /// Id of the business she works for; none: the platform.
    business_id: Option<uuid::Uuid>,
    /// Her initials.
    name: Option<String>,
    /// Last two digits of her phone.
    #[schema(example = "…10")]
    phone: Option<String>,
    /// Her mail address, shortened.
    email: Option<String>,
    /// Her language, BCP 47.
    language: String,
    /// What she is: `muneem people roles` says what each may do.
    #[schema(value_type = Vec<String>, example = json!(["counter_staff"]))]
    roles: Vec<Role>,
    /// When she proved to hold her phone.
    phone_verified_at: Option<DateTime<Utc>>,
    /// Set where the number may be somebody else's by now: nobody proved to hold it for ninety days or more, since then. A
    /// code to it alone signs nobody in.
    phone_stale_since: Option<DateTime<Utc>>,
    /// When she proved to hold her mail address.
    email_verified_at: Option<DateTime<Utc>>,
    /// When she was added.
    created_at: DateTime<Utc>,
    /// When she was removed.
    removed_at: Option<DateTime<Utc>>,
}

impl Person {
    fn of(known: Known, now: DateTime<Utc>) -> Self {
        let phone_stale_since = known.phone_stale_since(now);
        let Known { staff, name, phone, email } = known;
        Self {
            staff_id: staff.staff_id.0,
            business_id: staff.business_id.map(|business| business.0),
            name,
            phone,
            email,
            language: staff.language,
            roles: staff.roles,
            phone_verified_at: staff.phone_verified_at,
            phone_stale_since,
            email_verified_at: staff.email_verified_at,
            created_at: staff.created_at,
            removed_at: staff.removed_at,
        }
    }
}

async fn shown(api: &Api, db: &mut PgConnection, staff: Staff) -> Result<Person, Problem> {
    Ok(Person::of(people::describe_staff(db, &api.vault, staff).await?, api.clock.now()))
}

/// Whose staff.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Handle of the business. Without it: that of the token, and for a token of all businesses the platform's own.
    business: Option<String>,
}

/// List who works for a business, by when they came; with those who have left
#[utoipa::path(get, path = "/v1/people/staff", tag = "people", params(Whose),
    responses((status = 200, body = Page<Person>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(asked): Query<Whose>,
) -> Result<Json<Page<Person>>, Problem> {
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let mut items = Vec::new();
    for staff in people::list_staff(&mut db, business, &Authority::of_caller(&caller)).await? {
        items.push(shown(&api, &mut db, staff).await?);
    }
    Ok(Json(Page::whole(items)))
}

/// Somebody to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPerson {
    /// Handle of the business she will work for. Without it: that of the token, and for a token of all businesses the
    /// platform.
    business: Option<String>,
    /// Her name.
    name: String,
    /// Her phone; it or a mail address is needed.
    phone: Option<String>,
    /// Her mail address.
    email: Option<String>,
    /// Her language, BCP 47 [default: en].
    language: Option<String>,
    /// What she is from the start.
    roles: Vec<String>,
}

/// Add somebody who works here
#[utoipa::path(post, path = "/v1/people/staff", tag = "people", request_body = NewPerson,
    responses((status = 201, body = Person)))]
pub(super) async fn add(State(api): State<Arc<Api>>, mut post: Post<NewPerson>) -> Result<Response, Problem> {
    let roles = post.body.roles.iter().map(|role| role.parse()).collect::<Result<Vec<Role>, _>>()?;
    let phone = post.body.phone.as_deref().map(Phone::parse).transpose().map_err(|error| {
        Problem::field(ProblemId::BadBody, "phone", error.to_string(), "write it with +91, digits only")
    })?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business_id = post.caller.business_asked(effect.db(), post.body.business.as_deref()).await?;
    let person = Enrolment {
        business_id,
        name: post.body.name,
        language: post.body.language.unwrap_or_else(|| "en".to_owned()),
        phone,
        email: post.body.email,
        roles,
    };
    let by = Authority::of_caller(&post.caller);
    let staff = people::enrol_staff(effect.db(), &api.vault, &person, &decision(&api, &by)).await?;
    let answer = shown(&api, effect.db(), staff).await?;
    effect.answer(StatusCode::CREATED, &answer).await
}

fn id_of(text: &str) -> Result<StaffId, Problem> {
    text.parse().map_err(|_| ProblemId::NoSuchStaff.into())
}

/// Show one person
#[utoipa::path(get, path = "/v1/people/staff/{id}", tag = "people", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Person)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Person>, Problem> {
    let mut db = caller.enter(&api).await?;
    let staff = people::load_staff(&mut db, id_of(&id)?, &Authority::of_caller(&caller)).await?;
    Ok(Json(shown(&api, &mut db, staff).await?))
}

/// Remove somebody: her roles, tokens, sessions and her part in open decisions end at once
#[utoipa::path(post, path = "/v1/people/staff/{id}/remove", tag = "people", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Person)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let id = id_of(&id)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = Authority::of_caller(&post.caller);
    let staff = people::remove_staff(effect.db(), id, &decision(&api, &by)).await?;
    let answer = shown(&api, effect.db(), staff).await?;
    effect.answer(StatusCode::OK, &answer).await
}

/// A role to give or to take.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRole {
    /// One of `muneem people roles`.
    #[schema(example = "counter_staff")]
    role: String,
}

/// Give somebody a role
#[utoipa::path(post, path = "/v1/people/staff/{id}/grant", tag = "people", params(("id" = uuid::Uuid, Path)),
    request_body = OfRole, responses((status = 200, body = Person)))]
pub(super) async fn grant(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    post: Post<OfRole>,
) -> Result<Response, Problem> {
    change(&api, &id, post, true).await
}

/// Take a role away; it ends at once
#[utoipa::path(post, path = "/v1/people/staff/{id}/revoke", tag = "people", params(("id" = uuid::Uuid, Path)),
    request_body = OfRole, responses((status = 200, body = Person)))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    post: Post<OfRole>,
) -> Result<Response, Problem> {
    change(&api, &id, post, false).await
}

async fn change(api: &Api, id: &str, mut post: Post<OfRole>, gives: bool) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let role: Role = post.body.role.parse()?;
    let mut effect = match post.begin(api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = Authority::of_caller(&post.caller);
    let decision = decision(api, &by);
    let staff = if gives {
        people::grant_role(effect.db(), id, role, &decision).await?
    } else {
        people::withdraw_role(effect.db(), id, role, &decision).await?
    };
    let answer = shown(api, effect.db(), staff).await?;
    effect.answer(StatusCode::OK, &answer).await
}
