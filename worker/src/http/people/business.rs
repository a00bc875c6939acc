use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use muneem_jobs::people::{self, Authority, Changes, Plan};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api,
        auth::Caller,
        cursor::Page,
        post::{Begun, Post},
        problem::{Problem, ProblemId},
        query::Query,
    },
    business_of, decision, said,
};

/// What is known of a business; personal values are hints.
#[derive(Serialize, ToSchema)]
pub(super) struct Business {
    /// Its id.
    business_id: uuid::Uuid,
    /// The short name that frontends and commands use.
    handle: String,
    /// The name of the registration.
    legal_name: String,
    /// State and last two characters of its GSTIN.
    #[schema(example = "27…ZV")]
    gstin: Option<String>,
    /// What it reads, BCP 47.
    language: String,
    /// Initials of who stands for it.
    contact_name: Option<String>,
    /// Last two digits of her phone.
    contact_phone: Option<String>,
    /// Her mail address, shortened.
    contact_email: Option<String>,
    /// Its WhatsApp Business Account, as the Cloud API numbers it.
    whatsapp_account_id: Option<String>,
    /// The address that its mail is sent from, shortened.
    mail_from: Option<String>,
    /// basic, standard or premium.
    #[schema(value_type = String)]
    plan: Plan,
    /// Its own wish for a second factor.
    second_factor_wanted: bool,
    /// Whether everybody who signs in needs one: by its plan or its wish.
    second_factor_required: bool,
    /// Promised recovery point, in minutes.
    recovery_point_minutes: i64,
    /// When it came here.
    created_at: DateTime<Utc>,
}

impl From<people::Profile> for Business {
    fn from(profile: people::Profile) -> Self {
        Self {
            business_id: profile.business_id.0,
            handle: profile.handle,
            legal_name: profile.legal_name,
            gstin: profile.gstin,
            language: profile.language,
            contact_name: profile.contact_name,
            contact_phone: profile.contact_phone,
            contact_email: profile.contact_email,
            whatsapp_account_id: profile.whatsapp_account_id,
            mail_from: profile.mail_from,
            plan: profile.plan,
            second_factor_wanted: profile.second_factor_wanted,
            second_factor_required: profile.second_factor_required,
            recovery_point_minutes: profile.recovery_point_minutes,
            created_at: profile.created_at,
        }
    }
}

/// Which business.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The handle; not needed where the token, or the installation, has only one.
    business: Option<String>,
}

/// Show what is known of a business
#[utoipa::path(get, path = "/v1/people/business", tag = "people", params(Which),
    responses((status = 200, body = Business)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(asked): Query<Which>,
) -> Result<Json<Business>, Problem> {
    let mut db = caller.enter(&api).await?;
    let business = business_of(&mut db, &caller, asked.business.as_deref()).await?;
    let by = Authority::of_caller(&caller);
    Ok(Json(people::load_profile(&mut db, &api.vault, business, &by).await?.into()))
}

/// A business to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBusiness {
    /// The short name that frontends and commands use.
    #[schema(example = "sharma-mobiles")]
    handle: String,
    /// The name of the registration.
    legal_name: String,
}

/// The business that was added.
#[derive(Serialize, ToSchema)]
pub(super) struct Added {
    /// Its id.
    business_id: uuid::Uuid,
    /// Its handle.
    handle: String,
}

/// Add a business
#[utoipa::path(post, path = "/v1/people/business", tag = "people", request_body = NewBusiness,
    responses((status = 201, body = Added)))]
pub(super) async fn add(State(api): State<Arc<Api>>, mut post: Post<NewBusiness>) -> Result<Response, Problem> {
    if post.caller.business.is_some() {
        let detail = "a token of one business adds no other";
        return Err(Problem::new(ProblemId::NotForOneBusiness, detail));
    }
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let NewBusiness { handle, legal_name } = &post.body;
    let by = Authority::of_caller(&post.caller);
    let made = people::add_business_by(effect.db(), handle, legal_name, &decision(&api, &by)).await?;
    effect.answer(StatusCode::CREATED, &Added { business_id: made.business_id.0, handle: made.handle }).await
}

/// What is to be changed: `null` empties a field, what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "to empty a field and to leave it are two things to say")]
pub(super) struct Change {
    /// Handle of the business; not needed where the token, or the installation, has only one.
    business: Option<String>,
    /// The name of the registration.
    legal_name: Option<String>,
    /// Its GSTIN.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    gstin: Option<Option<String>>,
    /// What it reads, BCP 47.
    language: Option<String>,
    /// Who stands for it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    contact_name: Option<Option<String>>,
    /// Her phone.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    contact_phone: Option<Option<String>>,
    /// Her mail address.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    contact_email: Option<Option<String>>,
    /// Its WhatsApp Business Account, as the Cloud API numbers it.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    whatsapp_account_id: Option<Option<String>>,
    /// The address that its mail is sent from.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    mail_from: Option<Option<String>>,
    /// basic, standard or premium; for whoever runs the installation.
    #[schema(value_type = Option<String>)]
    plan: Option<Plan>,
    /// Its own wish for a second factor. Its plan may demand one anyway.
    second_factor_wanted: Option<bool>,
}

/// Change what is known of a business
#[utoipa::path(patch, path = "/v1/people/business", tag = "people", request_body = Change,
    responses((status = 200, body = Business)))]
pub(super) async fn change(State(api): State<Arc<Api>>, mut post: Post<Change>) -> Result<Response, Problem> {
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let business = business_of(effect.db(), &post.caller, post.body.business.as_deref()).await?;
    let by = Authority::of_caller(&post.caller);
    let Change { plan, second_factor_wanted, .. } = post.body;
    let changes = Changes {
        legal_name: post.body.legal_name,
        gstin: post.body.gstin,
        language: post.body.language,
        contact_name: post.body.contact_name,
        contact_phone: post.body.contact_phone,
        contact_email: post.body.contact_email,
        whatsapp_account_id: post.body.whatsapp_account_id,
        mail_from: post.body.mail_from,
        plan,
        second_factor_wanted,
    };
    let profile = people::change_business(effect.db(), &api.vault, business, &changes, &decision(&api, &by)).await?;
    effect.answer(StatusCode::OK, &Business::from(profile)).await
}

/// A business in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Listed {
    /// Its id.
    business_id: uuid::Uuid,
    /// The short name that frontends and commands use.
    handle: String,
    /// The name of the registration.
    legal_name: String,
    /// When it came here.
    created_at: DateTime<Utc>,
}

/// List the businesses that exist for the token, by handle
#[utoipa::path(get, path = "/v1/people/businesses", tag = "people", responses((status = 200, body = Page<Listed>)))]
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Page<Listed>>, Problem> {
    let mut db = caller.enter(&api).await?;
    let all = people::list_businesses(&mut db).await?.into_iter().filter(|one| caller.sees(one.business_id));
    let listed = all.map(|one| Listed {
        business_id: one.business_id.0,
        handle: one.handle,
        legal_name: one.legal_name,
        created_at: one.created_at,
    });
    Ok(Json(Page::whole(listed.collect())))
}
