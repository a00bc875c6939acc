use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use muneem_jobs::people::{
    Authority,
    support::{self, GrantId},
};
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

/// One time for which support was let in.
#[derive(Serialize, ToSchema)]
pub(super) struct Grant {
    /// Its id.
    grant_id: uuid::Uuid,
    /// Id of the business.
    business_id: uuid::Uuid,
    /// Id of the person who let it in.
    granted_by: uuid::Uuid,
    /// Id of the one person of support who is let in; none: whoever takes it up.
    only_staff_id: Option<uuid::Uuid>,
    /// When.
    granted_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: DateTime<Utc>,
    /// Whether support may look now.
    live: bool,
    /// When it ended, once that is written down.
    ended_at: Option<DateTime<Utc>>,
    /// Who ended it.
    ended_by: Option<String>,
}

impl Grant {
    fn of(grant: support::Grant, now: DateTime<Utc>) -> Self {
        Self {
            live: grant.is_live(now),
            grant_id: grant.grant_id.0,
            business_id: grant.business_id.0,
            granted_by: grant.granted_by.0,
            only_staff_id: grant.only.map(|staff| staff.0),
            granted_at: grant.granted_at,
            expires_at: grant.expires_at,
            ended_at: grant.ended_at,
            ended_by: grant.ended_by,
        }
    }
}

/// Which grants.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List when support was let in, newest first; each of its looks is in the evidence
#[utoipa::path(get, path = "/v1/people/support", tag = "people", params(Filter),
    responses((status = 200, body = Page<Grant>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Grant>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<GrantId>(asked.cursor.as_deref())?;
    let mut db = caller.enter(&api).await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let found = support::list(
        &mut db,
        support::Asked { business, before, past_at: None },
        limit + 1,
        &Authority::of_caller(&caller),
    )
    .await?;
    let now = api.clock.now();
    let found = found.into_iter().map(|one| Grant::of(one, now)).collect();
    Ok(Json(cursors.page(found, limit, |one: &Grant| one.grant_id.to_string())))
}

/// Send support away; its tokens open nothing from this moment on
#[utoipa::path(post, path = "/v1/people/support/{id}/end", tag = "people", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Grant)))]
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut post: Post<Nothing>,
) -> Result<Response, Problem> {
    let id: GrantId = id.parse().map_err(|_| ProblemId::NoSuchGrant)?;
    let mut effect = match post.begin(&api).await? {
        Begun::Effect(effect) => effect,
        Begun::Answered(response) => return Ok(response),
    };
    let by = Authority::of_caller(&post.caller);
    let grant = support::end(effect.db(), id, &decision(&api, &by)).await?;
    effect.answer(StatusCode::OK, &Grant::of(grant, api.clock.now())).await
}
