//! Query parameters; one that nobody asked for is refused.

use axum::{
    extract::{FromRequestParts, Query as Parsed},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::problem::{Problem, ProblemId};

/// Parameters as `T`, which refuses unknown ones.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Problem::new(ProblemId::BadQuery, "a parameter holds a NUL character"));
        }
        match Parsed::<T>::try_from_uri(&parts.uri) {
            Ok(Parsed(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::new(ProblemId::BadQuery, rejection.body_text())),
        }
    }
}
