//! The HTTP side: API, health, metrics and their descriptions.
//!
//! ```text
//! request ─▶ envelope (id, span, limits, time, problem bodies) ─▶ gate (token, scope) ─▶ query, body ─▶ one function of
//!            a duty
//! ```

mod auth;
mod body;
mod campaigns;
#[cfg(test)]
mod campaigns_tests;
pub(crate) mod client;
mod consents;
mod cursor;
#[cfg(test)]
mod duty_tests;
mod envelope;
mod evidence;
#[cfg(test)]
mod evidence_tests;
mod gate;
#[cfg(test)]
mod gate_tests;
mod health;
mod invoice;
mod keys;
mod mail_identity;
#[cfg(test)]
mod mail_identity_tests;
pub mod mail_reports;
mod messaging;
pub(crate) mod method;
mod otp;
mod people;
mod post;
pub mod problem;
mod query;
mod queue;
pub mod rate;
#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod route_tests;
pub mod sandbox;
mod schedule;
mod send;
mod senders;
#[cfg(test)]
mod tests;
mod vault;
#[cfg(test)]
mod vault_tests;
mod webhooks;
#[cfg(test)]
mod webhooks_tests;
pub mod whatsapp;
#[cfg(test)]
mod wishes_tests;

use std::sync::Arc;

use axum::{Router, http::Method, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use muneem_jobs::{
    outbound::{Chance, Clock, ObjectStore},
    vault::Vault,
};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use utoipa::{
    OpenApi,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder,
        path::{ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::{config, refusals::Refusals};

pub use cursor::CursorKey;

/// What handlers use.
pub struct Api {
    /// Connections of the app role.
    pub db: PgPool,
    /// The one source of "now".
    pub clock: Arc<dyn Clock>,
    /// The one source of chance.
    pub chance: Arc<dyn Chance>,
    /// Where files lie.
    pub objects: Arc<dyn ObjectStore>,
    /// Seals and opens values.
    pub vault: Arc<Vault>,
    /// How webhooks are sent: which addresses are taken.
    pub webhooks: muneem_jobs::webhooks::Settings,
    /// Makes and reads cursors.
    pub cursors: CursorKey,
    /// `[server]`
    pub settings: config::Server,
    /// How often callers may ask.
    pub rates: rate::Rates,
    /// Counts and records who was refused.
    pub refusals: Arc<Refusals>,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// Whether the workers of this process beat; `None` where it has none.
    pub workers_beat: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "muneem",
        description = "The duties of an Indian business, beside any frontend. Problems are application/problem+json \
                       (RFC 9457); each POST takes an Idempotency-Key."
    ),
    components(schemas(problem::ProblemBody))
)]
struct Description;

/// All addresses of the API over `api`, with limits, ids and problem bodies around them.
pub fn router(api: Arc<Api>) -> Router {
    router_with(api, Router::new())
}

/// As [`router`], with addresses of others (`webhooks`, sandbox) inside the same envelope.
pub fn router_with(api: Arc<Api>, others: Router) -> Router {
    let (routes, description) = described();
    let places = Arc::new(Semaphore::new(api.settings.max_in_flight));
    let limited = routes
        .route_layer(middleware::from_fn_with_state(api.clone(), gate::gate))
        .with_state(api.clone())
        .merge(others)
        .layer(middleware::from_fn_with_state((api.clone(), places), envelope::limits));
    let open = Router::new()
        .route("/problems", get(problem::pages))
        .route("/problems/{id}", get(problem::page))
        .merge(watched())
        .with_state(api.clone());
    Router::new()
        .merge(limited)
        .merge(open)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", description))
        .layer(middleware::from_fn_with_state(api, envelope::envelope))
}

/// Health and metrics alone: for a process without the API.
pub fn router_for_watchers(api: Arc<Api>) -> Router {
    watched().with_state(api.clone()).layer(middleware::from_fn_with_state(api, envelope::envelope))
}

fn watched() -> Router<Arc<Api>> {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
}

fn described() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    let (routes, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(queue::routes())
        .merge(schedule::routes())
        .merge(invoice::routes())
        .merge(messaging::routes())
        .merge(senders::routes())
        .merge(consents::routes())
        .merge(campaigns::routes())
        .merge(otp::routes())
        .merge(send::routes())
        .merge(mail_identity::routes())
        .merge(vault::routes())
        .merge(keys::routes())
        .merge(evidence::routes())
        .merge(people::routes())
        .merge(webhooks::routes())
        .split_for_parts();
    complete(&mut description);
    (routes, description)
}

/// What holds for every address is written once, here: the token and its scope, the problems, the Idempotency-Key.
fn complete(description: &mut utoipa::openapi::OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("mnm_…").build();
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    for (path, item) in &mut description.paths.paths {
        for (operation, method) in
            [(&mut item.get, Method::GET), (&mut item.post, Method::POST), (&mut item.patch, Method::PATCH)]
        {
            let Some(operation) = operation else { continue };
            let is_post = method != Method::GET;
            let scope = gate::scope_of(&method, path).map(|scope| scope.as_str());
            operation.security = Some(vec![SecurityRequirement::new("token", scope)]);
            let problem = ResponseBuilder::new()
                .description("A problem: see /problems")
                .content(
                    "application/problem+json",
                    Content::new(Some(RefOr::Ref(Ref::from_schema_name("ProblemBody")))),
                )
                .build();
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem));
            if is_post {
                let key = ParameterBuilder::new()
                    .name("Idempotency-Key")
                    .parameter_in(ParameterIn::Header)
                    .description(Some("A fresh UUID for each effect; the same again gets the same answer, for a day"))
                    .build();
                operation.parameters.get_or_insert_default().push(RefOr::T(key));
            }
        }
    }
}
