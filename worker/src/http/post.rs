//! A POST: who sends it, what it says, and that it happens once.
//!
//! The effect, the answer and the Idempotency-Key commit in one transaction ([`Effect`]). Whoever is killed in the
//! middle has done nothing, and the repeat does it; whoever is killed after the commit has the answer stored. There is
//! no lease to wait for. Calls to the outside are jobs, never part of a request, so one transaction always suffices.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muneem_jobs::{
    people::{self, Answer, Claim},
    vault::Vault,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    Api,
    auth::Caller,
    body,
    problem::{Problem, ProblemId},
};

/// A key in another request's hand is looked at again so often: a refused effect gives it back a moment after its
/// answer is out, and most others end soon enough for the repeat to get their answer at once.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// A POST with body `T`, from a caller whose token opens something.
pub(super) struct Post<T> {
    pub(super) caller: Caller,
    pub(super) body: T,
    request: Option<people::Request>,
}

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Post<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut parts, stream) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, api).await?;
        let key = idempotency_key(&parts.headers)?;
        let bytes = body::read(&parts.headers, stream, api.settings.body_limit_bytes).await?;
        let target = format!("{} {}", parts.method, parts.uri);
        let request = key.map(|key| people::Request::new(&caller, key, &target, &bytes));
        Ok(Self { caller, body: body::parse(&bytes)?, request })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().unwrap_or_default().trim();
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(key));
    }
    Err(ProblemId::BadKey.into())
}

/// What a POST is about to do.
pub(super) enum Begun {
    /// Do it, in this transaction.
    Effect(Effect),
    /// It was done before: this was the answer.
    Answered(Response),
}

/// The transaction of a POST's effect. Dropped without an answer, nothing of it happened.
pub(super) struct Effect {
    tx: Transaction<'static, Postgres>,
    request: Option<people::Request>,
    now: chrono::DateTime<chrono::Utc>,
    vault: Arc<Vault>,
}

impl<T> Post<T> {
    /// Opens the transaction, unless the key has its answer.
    pub(super) async fn begin(&mut self, api: &Api) -> Result<Begun, Problem> {
        let (mut tx, now) = (self.caller.enter_to_act(api).await?, api.clock.now());
        let request = self.request.take();
        if let Some(request) = &request {
            let mut claim = people::claim_key(&mut tx, &api.vault, request, now).await?;
            for _ in 0..LOOKS {
                if !matches!(claim, Claim::InFlight) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
                claim = people::claim_key(&mut tx, &api.vault, request, now).await?;
            }
            let refused = match claim {
                Claim::Ours => None,
                Claim::InFlight => Some(Err(ProblemId::KeyInFlight.into())),
                Claim::OtherRequest => Some(Err(ProblemId::KeyReused.into())),
                Claim::Answered(answer) => Some(Ok(Begun::Answered(replayed(answer)))),
            };
            if let Some(refused) = refused {
                // Ended here, not when the connection is next used: until then the key would look under way.
                tx.rollback().await?;
                return refused;
            }
        }
        Ok(Begun::Effect(Effect { tx, request, now, vault: Arc::clone(&api.vault) }))
    }
}

impl Effect {
    /// The transaction to work in.
    pub(super) fn db(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Commits the effect together with the answer to it.
    pub(super) async fn answer<A: Serialize>(mut self, status: StatusCode, body: &A) -> Result<Response, Problem> {
        let body = serde_json::to_string(body).map_err(|error| Problem::internal(&error))?;
        let answer = Answer { status: status.as_u16(), body };
        if let Some(request) = &self.request {
            people::keep_answer(&mut self.tx, &self.vault, request, &answer, self.now).await?;
        }
        self.tx.commit().await?;
        Ok(response(answer))
    }
}

fn replayed(answer: Answer) -> Response {
    let mut response = response(answer);
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
}
