//! `/v1/people`: businesses, their staff, tokens, decisions that take a second person, and who of support looks in.
//!
//! Personal values are shown as hints. What only a person may do (approve, invite somebody outside, let support in) has
//! no address here: a token is nobody.

mod approvals;
mod business;
mod staff;
mod support;
mod tokens;

use std::sync::Arc;

use muneem_jobs::people::{self, Authority, BusinessId, Decision};
use serde::{Deserialize, Deserializer};
use sqlx::PgConnection;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    problem::{Problem, ProblemId},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(business::show, business::add, business::change))
        .routes(routes!(business::list))
        .routes(routes!(staff::list, staff::add))
        .routes(routes!(staff::show))
        .routes(routes!(staff::remove))
        .routes(routes!(staff::grant))
        .routes(routes!(staff::revoke))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::withdraw))
        .routes(routes!(support::list))
        .routes(routes!(support::end))
}

/// `null` empties a field, and one that is not there leaves it as it is.
#[expect(clippy::option_option, reason = "the two are two things to say")]
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The one business that the caller means: the token's own, the one asked for, or the only one there is.
pub(super) async fn business_of(
    db: &mut PgConnection,
    caller: &Caller,
    asked: Option<&str>,
) -> Result<BusinessId, Problem> {
    if let Some(business) = caller.business_asked(db, asked).await? {
        return Ok(business);
    }
    match people::list_handles(db).await?.as_slice() {
        [only] => Ok(people::load_business(db, only).await?.business_id),
        [] => Err(ProblemId::NoSuchBusiness.into()),
        _ => Err(ProblemId::WhichBusiness.into()),
    }
}

fn decision<'a>(api: &'a Api, by: &'a Authority) -> Decision<'a> {
    Decision { by, now: api.clock.now(), chance: &*api.chance }
}
