//! The gate before every address of the API: who calls, and whether she may, before anything of the request is read.
//!
//! What an address asks for stands in one table. A request at an address without a row is let to no handler that
//! wants a caller, and none goes without one: deny by default.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use muneem_jobs::people::Scope;

use super::{
    Api,
    auth::Caller,
    method,
    problem::{Problem, ProblemId},
};
use crate::refusals::Known;

/// What each address asks for.
pub(super) const TABLE: &[(Method, &str, Scope)] = &[
    (Method::GET, "/v1/queue/jobs", Scope::QueueRead),
    (Method::POST, "/v1/queue/jobs", Scope::QueueWrite),
    (Method::GET, "/v1/queue/jobs/{id}", Scope::QueueRead),
    (Method::POST, "/v1/queue/jobs/{id}/cancel", Scope::QueueWrite),
    (Method::POST, "/v1/queue/jobs/{id}/retry", Scope::QueueWrite),
    (Method::POST, "/v1/queue/jobs/retry", Scope::QueueWrite),
    (Method::GET, "/v1/queue/kinds", Scope::QueueRead),
    (Method::GET, "/v1/queue/stats", Scope::QueueRead),
    (Method::GET, "/v1/schedule/entries", Scope::ScheduleRead),
    (Method::POST, "/v1/schedule/entries/{name}/pause", Scope::ScheduleWrite),
    (Method::POST, "/v1/schedule/entries/{name}/resume", Scope::ScheduleWrite),
    (Method::POST, "/v1/schedule/entries/{name}/trigger", Scope::ScheduleWrite),
    (Method::GET, "/v1/invoice/invoices", Scope::InvoiceRead),
    (Method::GET, "/v1/invoice/invoices/{id}", Scope::InvoiceRead),
    (Method::GET, "/v1/invoice/invoices/{id}/pdf", Scope::InvoiceOpen),
    (Method::GET, "/v1/invoice/refusals/{id}", Scope::InvoiceRead),
    (Method::GET, "/v1/messaging/messages", Scope::MessagingRead),
    (Method::POST, "/v1/messaging/messages", Scope::MessagingSend),
    (Method::GET, "/v1/messaging/messages/{id}", Scope::MessagingRead),
    (Method::GET, "/v1/messaging/senders", Scope::SendersRead),
    (Method::POST, "/v1/messaging/holds/{id}/release", Scope::SendersWrite),
    (Method::POST, "/v1/messaging/alerts/{id}/end", Scope::SendersWrite),
    (Method::POST, "/v1/messaging/consents", Scope::ConsentWrite),
    (Method::POST, "/v1/messaging/consents/find", Scope::ConsentRead),
    (Method::POST, "/v1/messaging/suppressions", Scope::ConsentWrite),
    (Method::POST, "/v1/messaging/suppressions/lift", Scope::ConsentWrite),
    (Method::POST, "/v1/messaging/check", Scope::ConsentCheck),
    (Method::GET, "/v1/messaging/campaigns", Scope::MessagingRead),
    (Method::POST, "/v1/messaging/campaigns", Scope::CampaignWrite),
    (Method::GET, "/v1/messaging/campaigns/{id}", Scope::MessagingRead),
    (Method::POST, "/v1/messaging/campaigns/{id}/people", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/estimate", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/preview", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/test", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/start", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/pause", Scope::CampaignStop),
    (Method::POST, "/v1/messaging/campaigns/{id}/resume", Scope::CampaignWrite),
    (Method::POST, "/v1/messaging/campaigns/{id}/stop", Scope::CampaignStop),
    (Method::POST, "/v1/messaging/otp", Scope::OtpUse),
    (Method::POST, "/v1/messaging/otp/verify", Scope::OtpUse),
    (Method::GET, "/v1/messaging/mail/identity", Scope::BusinessRead),
    (Method::POST, "/v1/messaging/mail/identity", Scope::BusinessWrite),
    (Method::POST, "/v1/messaging/mail/identity/verify", Scope::BusinessWrite),
    (Method::POST, "/v1/messaging/mail/identity/remove", Scope::BusinessWrite),
    (Method::POST, "/v1/vault/seal", Scope::VaultSeal),
    (Method::POST, "/v1/vault/open", Scope::VaultOpen),
    (Method::POST, "/v1/vault/find", Scope::VaultFind),
    (Method::GET, "/v1/vault/keys", Scope::KeysRead),
    (Method::GET, "/v1/evidence/events", Scope::EvidenceRead),
    (Method::GET, "/v1/evidence/events/{id}", Scope::EvidenceRead),
    (Method::GET, "/v1/evidence/heads", Scope::EvidenceRead),
    (Method::GET, "/v1/evidence/growth", Scope::EvidenceRead),
    (Method::GET, "/v1/people/business", Scope::BusinessRead),
    (Method::POST, "/v1/people/business", Scope::BusinessWrite),
    (Method::PATCH, "/v1/people/business", Scope::BusinessWrite),
    (Method::GET, "/v1/people/businesses", Scope::BusinessRead),
    (Method::GET, "/v1/people/staff", Scope::StaffRead),
    (Method::POST, "/v1/people/staff", Scope::StaffWrite),
    (Method::GET, "/v1/people/staff/{id}", Scope::StaffRead),
    (Method::POST, "/v1/people/staff/{id}/remove", Scope::StaffWrite),
    (Method::POST, "/v1/people/staff/{id}/grant", Scope::StaffWrite),
    (Method::POST, "/v1/people/staff/{id}/revoke", Scope::StaffWrite),
    (Method::GET, "/v1/people/tokens", Scope::TokenRead),
    (Method::POST, "/v1/people/tokens", Scope::TokenWrite),
    (Method::POST, "/v1/people/tokens/{id}/revoke", Scope::TokenWrite),
    (Method::GET, "/v1/people/approvals", Scope::ApprovalRead),
    (Method::GET, "/v1/people/approvals/{id}", Scope::ApprovalRead),
    (Method::POST, "/v1/people/approvals/{id}/withdraw", Scope::ApprovalRead),
    (Method::GET, "/v1/people/support", Scope::BusinessRead),
    (Method::POST, "/v1/people/support/{id}/end", Scope::BusinessWrite),
    (Method::GET, "/v1/webhooks/endpoints", Scope::WebhooksRead),
    (Method::POST, "/v1/webhooks/endpoints", Scope::WebhooksWrite),
    (Method::GET, "/v1/webhooks/endpoints/{id}", Scope::WebhooksRead),
    (Method::PATCH, "/v1/webhooks/endpoints/{id}", Scope::WebhooksWrite),
    (Method::POST, "/v1/webhooks/endpoints/{id}/rotate", Scope::WebhooksWrite),
    (Method::POST, "/v1/webhooks/endpoints/{id}/remove", Scope::WebhooksWrite),
    (Method::POST, "/v1/webhooks/endpoints/{id}/test", Scope::WebhooksWrite),
    (Method::POST, "/v1/webhooks/endpoints/{id}/replay", Scope::WebhooksWrite),
    (Method::GET, "/v1/webhooks/deliveries", Scope::WebhooksRead),
    (Method::GET, "/v1/webhooks/events/{id}", Scope::WebhooksRead),
    (Method::POST, "/v1/webhooks/events/{id}/replay", Scope::WebhooksWrite),
];

/// The scope that a request needs; `None`: the address has no row.
pub(super) fn scope_of(method: &Method, route: &str) -> Option<Scope> {
    // Whoever asks for the head of an answer asks for the answer.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    TABLE.iter().find(|(listed, at, _)| listed == method && *at == route).map(|(.., scope)| *scope)
}

/// Lets nobody past without a token that opens something and has the scope of the address; counts and records who was
/// turned away, here or further in.
pub(super) async fn gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let address = format!("{}:{route}", method::name_of(&parts.method));
    let mut known = None;
    let answer = match admit(&api, &parts, &mut known).await {
        Ok(admitted) => {
            admitted.map(|caller| parts.extensions.insert(caller));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    };
    if let Some(reason) = refusal(&answer, known.as_ref()) {
        api.refusals.note(known.as_ref(), &address, reason.as_str()).await;
    }
    answer
}

/// The caller, if she may; nobody where the address has no row, so that what has no handler answers for itself.
async fn admit(api: &Api, parts: &Parts, known: &mut Option<Known>) -> Result<Option<Caller>, Problem> {
    let caller = Caller::of(api, parts, known).await?;
    let route = parts.extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let Some(scope) = scope_of(&parts.method, route) else { return Ok(None) };
    caller.require(scope)?;
    Ok(Some(caller))
}

fn refusal(answer: &Response, known: Option<&Known>) -> Option<ProblemId> {
    let id = answer.extensions().get::<Arc<Problem>>()?.id();
    // To a token that sees all businesses, one that does not exist is a word mistyped.
    let of_another = id == ProblemId::NoSuchBusiness && known.is_some_and(Known::is_of_one_business);
    (of_another || id == ProblemId::TokenInQuery || matches!(id.status(), 401 | 403)).then_some(id)
}
