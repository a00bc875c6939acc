use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use muneem_jobs::people::{self, Authority, NewToken, Scope, StaffId, Tokens};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api,
        auth::Caller,
        body::Nothing,
        cursor::{self, Listing, Page},
        post::{Begun, Post},
        problem::{Problem, ProblemId},
        query::Query,
    },
    decision,
};

/// A bearer token without its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct Token {
    /// Second part of the token.
    public_id: String,
    /// Who or what holds it.
    label: String,
    /// Id of the one business it may see; none: all.
    business_id: Option<uuid::Uuid>,
    /// Id of the person it was made for; none: a machine.
    staff_id: Option<uuid::Uuid>,
    /// Id of the grant to support that it stands on.
    support_grant_id: Option<uuid::Uuid>,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    /// Where it may be used from; empty: anywhere.
    networks: Vec<String>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: Option<DateTime<Utc>>,
    /// When it last opened something, to the minute.
    last_used_at: Option<DateTime<Utc>>,
    /// When it was ended.
    revoked_at: Option<DateTime<Utc>>,
    /// When it was first seen in a URL, where logs keep it: replace it.
    exposed_at: Option<DateTime<Utc>>,
}

impl From<people::Token> for Token {
    fn from(token: people::Token) -> Self {
        Self {
            public_id: token.public_id,
            label: token.label,
            business_id: token.business_id.map(|business| business.0),
            staff_id: token.staff_id.map(|staff| staff.0),
            support_grant_id: token.support_grant_id.map(|grant| grant.0),
            scopes: token.scopes,
            networks: token.networks.iter().map(ToString::to_string).collect(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
            exposed_at: token.exposed_at,
        }
    }
}

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// Those that open something now, or those that do not any more.
    usable: Option<bool>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List tokens, newest first; with those that were revoked
#[utoipa::path(get, path = "/v1/people/tokens", tag = "people", params(Filter),
    responses((status = 200, body = Page<Token>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Token>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<String>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let wanted = Tokens { business, usable: asked.usable, now: api.clock.now(), before: before.as_deref() };
    let found = people::list_tokens_by(&mut db, &wanted, limit + 1, &Authority::of_caller(&caller)).await?;
    let found = found.into_iter().map(Token::from).collect();
    Ok(Json(cursors.page(found, limit, |one: &Token| one.public_id.clone())))
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    /// Handle of the one business it may see. Without it: that of the token that makes it.
    business: Option<String>,
    /// Id of the person it is for, with whom it ends; none: a machine.
    staff_id: Option<uuid::Uuid>,
    /// Who or what will hold it.
    #[schema(example = "checkout page")]
    label: String,
    /// What it may do; no more than the token that makes it.
    #[schema(example = json!(["queue:write"]))]
    scopes: Vec<String>,
    /// Where it may be used from: addresses or blocks such as 203.0.113.0/24; empty: anywhere.
    networks: Option<Vec<String>>,
    /// When it ends by itself (RFC 3339).
    expires_at: Option<DateTime<Utc>>,
}

/// The token, this once.
#[derive(Serialize, ToSchema)]
pub(super) struct Created {
    /// Second part of the token.
    public_id: String,
    /// The whole token. It is not stored and not shown again.
    token: String,
}

/// Make a token; it is shown once
///
/// The answer is kept under no Idempotency-Key, since it holds the secret: a repeat makes another token.
#[utoipa::path(post, path = "/v1/people/tokens", tag = "people", request_body = Create,
    responses((status = 201, body = Created)))]
pub(super) async fn create(State(api): State<Arc<Api>>, post: Post<Create>) -> Result<Response, Problem> {
    let Create { business, staff_id, label, scopes, networks, expires_at } = post.body;
    let scopes = scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>()?;
    let networks = networks.unwrap_or_default();
    let networks = networks.iter().map(|text| people::read_network(text)).collect::<Result<Vec<_>, _>>()?;
    let mut tx = post.caller.enter_to_act(&api).await?;
    let business_id = post.caller.business_asked(&mut tx, business.as_deref()).await?;
    let new = NewToken { label, business_id, staff_id: staff_id.map(StaffId), scopes, networks, expires_at };
    let by = Authority::of_caller(&post.caller);
    let (token, bearer) = people::create_token_by(&mut tx, new, &by, &*api.clock, &*api.chance).await?;
    tx.commit().await?;
    let created = Created { public_id: token.public_id, token: bearer.expose_secret().to_owned() };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// The token that was ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Revoked {
    /// Second part of the token.
    public_id: String,
}

/// End a token for good
#[utoipa::path(post, path = "/v1/people/tokens/{id}/revoke", tag = "people", params(("id" = String, Path)),
    responses((status = 200, body = Revoked)))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    if id.len() > 64 {
        return Err(ProblemId::NoSuchToken.into());
    }
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = Authority::of_caller(&post.caller);
    people::revoke_token_by(effect.db(), &id, &decision(&api, &by)).await?;
    effect.answer(StatusCode::OK, &Revoked { public_id: id }).await
}
