//! Everything the API can complain about: one closed list, told as `application/problem+json` (RFC 9457).
//!
//! A handler answers a [`Problem`]; the envelope ([`super::envelope`]) writes the body, because it knows the id that
//! the caller may quote. What failed inside is logged under that id and never shown.

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use muneem_jobs::{
    evidence, files, invoice,
    messaging::{self, mail::BadIdentity, otp, wishes},
    people::{self, approval},
    queue, schedule, vault, webhooks,
};
use serde::Serialize;
use utoipa::ToSchema;

macro_rules! problems {
    ($($name:ident $id:literal $status:literal $title:literal $mend:literal;)*) => {
        /// One kind of problem. Ids are stable: programs may compare them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemId {
            $(#[doc = $title] $name,)*
        }

        impl ProblemId {
            /// The whole list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Stable name, `<duty>.<what>`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it is, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do about it.
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$name => $mend,)* }
            }
        }
    };
}

problems! {
    BadJson "http.bad_json" 400 "The body is not JSON" "Send one JSON value (RFC 8259) in UTF-8.";
    BadBody "http.bad_body" 422 "The body is not what this address takes" "Mend the fields that `errors` names; /docs shows the shape.";
    BadQuery "http.bad_query" 400 "A query parameter is off" "Take the parameters that /docs lists.";
    BadCursor "http.bad_cursor" 400 "The cursor is not one of ours" "Pass on `next` of the page before, unchanged, with the same filters.";
    BadId "http.bad_id" 404 "Nothing has such an id" "Take the id from the answer that made the thing, or from a list.";
    TooLarge "http.too_large" 413 "The body is too large" "Send less at a time; `server.body_limit_bytes` sets the limit.";
    NotJson "http.not_json" 415 "The body is declared as something else than JSON" "Send `content-type: application/json`.";
    NoSuchAddress "http.no_such_address" 404 "There is nothing at this address" "See /docs for all addresses.";
    NoSuchMethod "http.no_such_method" 405 "This address does not take that method" "The header `allow` lists those it takes.";
    Overloaded "http.overloaded" 503 "Too much is under way" "Try again after the seconds that `retry-after` says.";
    TooOften "http.too_often" 429 "You ask too often" "Try again after the seconds that `retry-after` says, or ask for many things in one request.";
    TooSlow "http.too_slow" 503 "The request took too long and was given up" "Try again; with an Idempotency-Key nothing happens twice.";
    Unavailable "http.unavailable" 503 "The database does not answer" "Try again after the seconds that `retry-after` says.";
    Internal "http.internal" 500 "Something failed inside" "Quote `id` to whoever runs this installation; the log knows more.";
    BadKey "http.bad_idempotency_key" 400 "The Idempotency-Key is malformed" "Send 1 to 255 visible ASCII characters: a fresh UUID for each effect.";
    KeyReused "http.idempotency_key_reused" 422 "The Idempotency-Key belongs to another request" "Take a fresh key for a new request; repeat an old one unchanged.";
    KeyInFlight "http.idempotency_key_in_flight" 409 "A request with this Idempotency-Key is under way" "Repeat it after the seconds that `retry-after` says: you get its answer.";
    NoToken "people.no_token" 401 "No token" "Send `authorization: Bearer mnm_…`; `muneem people token create` makes one.";
    BadToken "people.bad_token" 401 "The token opens nothing" "Send the whole token as it was shown, or have a new one made.";
    TokenExpired "people.token_expired" 401 "The token has expired" "Have a new one made.";
    TokenRevoked "people.token_revoked" 401 "The token was revoked" "Have a new one made.";
    TokenElsewhere "people.token_elsewhere" 401 "The token may not be used from this address" "Send the request from an address on the token's list, or have a new one made.";
    TokenInQuery "people.token_in_query" 400 "The token stands in the URL" "Send it as `authorization: Bearer mnm_…` and have it replaced: URLs are kept in logs.";
    MissingScope "people.missing_scope" 403 "The token may not do this" "Have a token made with the scope that `detail` names.";
    NoSuchBusiness "people.no_such_business" 404 "There is no such business" "Name the handle of a business that the token may see.";
    WhichBusiness "people.which_business" 422 "There are several businesses" "Say which by its handle in `business`.";
    NotForOneBusiness "people.not_for_one_business" 403 "A token of one business may not do this" "Ask whoever runs the installation.";
    HandleTaken "people.handle_taken" 409 "The handle is taken" "Choose another handle.";
    NoSuchStaff "people.no_such_staff" 404 "There is no such member of staff" "GET /v1/people/staff lists those of your business.";
    ContactTaken "people.contact_taken" 409 "Somebody of the business has this phone or mail address" "Each has her own: give another, or grant the role to whom it belongs.";
    BeyondOwn "people.beyond_own" 403 "This gives or takes more than the token has" "Have it done by somebody who has the scope that `detail` names.";
    LastOwner "people.last_owner" 409 "This is the last owner of the business" "Make somebody else an owner first.";
    ForPeopleAlone "people.for_people_alone" 403 "Only a person may do this" "Sign in to the console.";
    NoSuchToken "people.no_such_token" 404 "There is no such token" "GET /v1/people/tokens lists those of your business.";
    NoSuchApproval "people.no_such_approval" 404 "There is no such decision" "GET /v1/people/approvals lists those of your business.";
    ApprovalStands "people.approval_stands_elsewhere" 409 "The decision has changed or ended" "GET the decision and look again.";
    NoSuchGrant "people.no_such_grant" 404 "There is no such grant to support" "GET /v1/people/support lists those of your business.";
    UnknownKind "queue.unknown_kind" 422 "There is no such kind of job" "GET /v1/queue/kinds lists all.";
    PayloadOffSchema "queue.payload_off_schema" 422 "The payload is not what the kind takes" "GET /v1/queue/kinds shows the schema.";
    PayloadTooLarge "queue.payload_too_large" 413 "The payload is too large" "Keep large things in files and name them.";
    BadJobKey "queue.bad_key" 422 "The job's key is malformed" "Mend the field `key`.";
    BadLane "queue.bad_lane_or_priority" 422 "The lane or the priority is off" "Lanes: otp, statutory, transactional, bulk, maintenance. Priority: -1000 to 1000.";
    NoSuchJob "queue.no_such_job" 404 "There is no such job" "Take the id from the enqueue, or from GET /v1/queue/jobs.";
    JobEnded "queue.job_ended" 409 "The job has ended" "GET the job to see how; a dead one can be retried.";
    JobNotDead "queue.job_not_dead" 409 "The job is not dead" "Only dead jobs are retried by hand; GET the job to see its state.";
    NoSuchSchedule "schedule.no_such_entry" 404 "There is no such schedule" "GET /v1/schedule/entries lists all.";
    NotEnqueued "schedule.not_enqueued" 422 "The schedule's job was refused" "Mend the entry as `detail` says.";
    Sealed "vault.sealed" 503 "The vault is sealed: its key service gives no key" "Try again after the seconds that `retry-after` says; `muneem keys status` says why.";
    ColumnDrifted "vault.column_drifted" 409 "The column is not what it was when it was registered" "Do what `detail` says; `muneem keys columns check` opens it again.";
    ValueTooLong "vault.too_long" 422 "The value is too long to be sealed" "Keep large things in files.";
    CardNumber "vault.card_number" 422 "A card number may not be kept" "Send the last four digits and the issuer, or the token of your payment service.";
    PaymentSecret "vault.payment_secret" 422 "A secret of a card or account may not be kept" "Leave the field out.";
    Aadhaar "vault.aadhaar" 422 "An Aadhaar number may not be kept" "Send the last four digits and the result of the check.";
    NoSuchEvent "evidence.no_such_event" 404 "There is no such event" "GET /v1/evidence/events lists those of your business; a new one has its number after a second or two.";
    NoSuchHead "evidence.no_such_head" 404 "No head was signed over that many events" "GET /v1/evidence/heads lists all; `from` is the smaller one.";
    NoSuchMessage "messaging.no_such_message" 404 "There is no such message" "GET /v1/messaging/messages lists those of your business.";
    WindowClosed "messaging.window_closed" 409 "She has not written within 24 hours" "Send a template; words of your own are for answers.";
    NoSuchHold "messaging.no_such_hold" 404 "There is no such hold or alert" "GET /v1/messaging/senders lists those in force for your business.";
    NoSuchCampaign "messaging.no_such_campaign" 404 "There is no such campaign" "GET /v1/messaging/campaigns lists those of your business.";
    CampaignStands "messaging.campaign_stands_elsewhere" 409 "The campaign is not where this could be done" "GET the campaign to see its state.";
    NoSender "messaging.no_sender" 409 "The business has no WhatsApp number to send from" "Have one added: `muneem messaging account set`; or send by mail.";
    NoSuchEndpoint "webhooks.no_such_endpoint" 404 "There is no such endpoint" "GET /v1/webhooks/endpoints lists those of your business.";
    NoSuchWebhook "webhooks.no_such_event" 404 "There is no such event" "GET /v1/webhooks/deliveries lists those of your business; events are kept for some weeks after they were delivered.";
    EndpointDisabled "webhooks.endpoint_disabled" 409 "The endpoint is disabled" "PATCH it with `enabled: true` first.";
    TooManyEndpoints "webhooks.too_many_endpoints" 409 "The business has as many endpoints as it may have" "Remove one that is not needed.";
    PersonErased "messaging.person_erased" 409 "This person was erased" "Leave her out; only a consent that she gives herself, with proof, brings her back.";
    NotYoursToLift "messaging.not_yours_to_lift" 409 "This was not set by the business" "Only the person herself, or her settings at the carrier, end it.";
    NoSuchMailIdentity "messaging.no_such_mail_identity" 404 "The business has no mail address of its own" "POST /v1/messaging/mail/identity sets one; until then its mail comes from the installation's address.";
    BadMailIdentity "messaging.bad_mail_identity" 422 "Mail cannot come from there" "The detail says what is off: the address, the name, or the signing domain, which must be the address's or one above it.";
    WrongMailCode "messaging.wrong_mail_code" 422 "This is not the code that went to the address" "Take the newest mail; after ten guesses or a day, set the address again for a new code.";
    NoSuchInvoice "invoice.no_such_invoice" 404 "There is no such invoice" "GET /v1/invoice/invoices lists those of your business.";
    NotIssued "invoice.not_issued" 409 "The invoice's PDF is not made yet" "Try again after the seconds that `retry-after` says.";
    NoSuchRefusal "invoice.no_such_refusal" 404 "There is no such refused document" "Take the id from the error of the dead `invoice.issue` job; a document that was issued after all has none.";
}

impl ProblemId {
    fn type_uri(self) -> String {
        format!("/problems/{}", self.as_str())
    }
}

/// A field, what is wrong with it, and what to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    /// Path of the field: `payload.buyer.name`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

/// A problem that a handler answers.
#[derive(Debug)]
pub struct Problem {
    id: ProblemId,
    detail: Option<String>,
    errors: Vec<FieldProblem>,
    cause: Option<String>,
    /// Seconds after which to try again, where that is known.
    wait: Option<u64>,
}

/// The body of a problem, RFC 9457.
#[derive(Serialize, ToSchema)]
pub struct ProblemBody {
    /// Stable URI of the kind of problem; a page stands there.
    #[serde(rename = "type")]
    #[schema(example = "/problems/queue.unknown_kind")]
    type_uri: String,
    /// What it is, in a few words.
    title: String,
    /// HTTP status.
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// What to do.
    mend: String,
    /// The fields that are off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// To quote: the log knows the request by it.
    id: String,
}

impl From<ProblemId> for Problem {
    fn from(id: ProblemId) -> Self {
        Self { id, detail: None, errors: Vec::new(), cause: None, wait: None }
    }
}

impl Problem {
    /// Which problem it is.
    pub(super) fn id(&self) -> ProblemId {
        self.id
    }

    /// `id`, and what is wrong this time.
    pub(crate) fn new(id: ProblemId, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::from(id) }
    }

    /// The same, to be tried again after `wait`.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self { wait: Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)), ..self }
    }

    /// One field of the body is off.
    pub(crate) fn field(id: ProblemId, field: &str, problem: impl Into<String>, mend: impl Into<String>) -> Self {
        let error = FieldProblem { field: field.to_owned(), problem: problem.into(), mend: mend.into() };
        let detail = if field.is_empty() { error.problem.clone() } else { format!("`{field}`: {}", error.problem) };
        Self { errors: vec![error], ..Self::new(id, detail) }
    }

    /// Several fields of the body are off; there is at least one.
    pub(crate) fn fields(id: ProblemId, errors: Vec<FieldProblem>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("`{}`: {}", only.field, only.problem),
            all => format!("{} fields are off, the first is `{}`", all.len(), all.first().map_or("", |one| &one.field)),
        };
        Self { errors, ..Self::new(id, detail) }
    }

    /// The same, its fields being inside `place`.
    pub(crate) fn within(mut self, place: &str) -> Self {
        for error in &mut self.errors {
            error.field = format!("{place}.{}", error.field);
            self.detail = Some(format!("`{}`: {}", error.field, error.problem));
        }
        self
    }

    /// Something failed inside; `cause` goes to the log alone.
    pub(crate) fn internal(cause: &dyn std::error::Error) -> Self {
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            let _ = write!(chain, ": {error}");
            source = error.source();
        }
        Self { cause: Some(chain), ..Self::from(ProblemId::Internal) }
    }

    /// The answer under the id that can be quoted.
    pub(super) fn answer(&self, id: &str) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(request.id = id, problem = self.id.as_str(), %cause, "a request failed");
        }
        let body = ProblemBody {
            type_uri: self.id.type_uri(),
            title: self.id.title().to_owned(),
            status: self.id.status(),
            detail: self.detail.clone().unwrap_or_else(|| self.id.title().to_owned()),
            mend: self.id.mend().to_owned(),
            errors: self.errors.clone(),
            id: id.to_owned(),
        };
        let mut answer = (self.status(), Json(body)).into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.id.status() {
            401 => _ = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"muneem\"")),
            429 | 503 | 409 => _ = headers.insert(header::RETRY_AFTER, self.wait.unwrap_or(1).into()),
            _ => {}
        }
        answer
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.id.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The problem that a bare status of the framework means.
    pub(super) fn of_status(status: StatusCode) -> Self {
        Self::from(match status.as_u16() {
            404 => ProblemId::NoSuchAddress,
            405 => ProblemId::NoSuchMethod,
            413 => ProblemId::TooLarge,
            415 => ProblemId::NotJson,
            422 => ProblemId::BadBody,
            400..=499 => ProblemId::BadQuery,
            _ => ProblemId::Internal,
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let id = match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => ProblemId::Unavailable,
            // Shutting down, starting up, out of connections, two that waited for each other, a lock held for too long.
            sqlx::Error::Database(database)
                if database.code().is_some_and(|code| {
                    code.starts_with("57P") || code.starts_with("53") || code == "40P01" || code == "55P03"
                }) =>
            {
                ProblemId::Unavailable
            }
            _ => ProblemId::Internal,
        };
        Self { id, ..Self::internal(&error) }
    }
}

impl From<people::Error> for Problem {
    fn from(error: people::Error) -> Self {
        use people::Error as E;
        let told = error.to_string();
        let field = |field: &str, mend: &str| Self::field(ProblemId::BadBody, field, told.clone(), mend);
        match error {
            E::NoSuchBusiness(_) => ProblemId::NoSuchBusiness.into(),
            E::NoSuchStaff(_) => ProblemId::NoSuchStaff.into(),
            E::NoSuchToken(_) => ProblemId::NoSuchToken.into(),
            E::NoSuchGrant(_) => ProblemId::NoSuchGrant.into(),
            E::GrantEnded => ProblemId::TokenRevoked.into(),
            E::MissingScope(_) => Self::new(ProblemId::MissingScope, told),
            E::BeyondOwn(_) => Self::new(ProblemId::BeyondOwn, told),
            E::PlanNotYours => Self::new(ProblemId::NotForOneBusiness, told),
            E::ForPeopleAlone(_) | E::NotOfBusiness => Self::new(ProblemId::ForPeopleAlone, told),
            E::LastOwner => ProblemId::LastOwner.into(),
            E::HandleTaken(_) => ProblemId::HandleTaken.into(),
            E::ContactTaken => ProblemId::ContactTaken.into(),
            E::BadField { field, problem, mend } => Self::field(ProblemId::BadBody, field, problem, mend),
            E::BadHandle(_) => field("handle", "2 to 63 small letters, digits and single hyphens"),
            E::EmptyLegalName => field("legal_name", "give the name of the registration"),
            E::BadEmail => field("email", "write name@domain"),
            E::Unreachable => field("phone", "give a phone or a mail address"),
            E::NoSuchRole(_) | E::RoleNotHere(..) => field("roles", "`muneem people roles` shows who may have which"),
            E::NoScopes | E::NoSuchScope(_) | E::BeyondHolder(_) => {
                field("scopes", "`muneem people roles` lists all; a token may do no more than whom it is for")
            }
            E::BadLabel => field("label", "say in a few words who holds the token"),
            E::ExpiresInPast => field("expires_at", "name a later instant"),
            E::BadNetwork(_) | E::TooManyNetworks => {
                field("networks", "write at most 64 blocks such as 203.0.113.0/24")
            }
            E::Vault(error) => error.into(),
            E::Database(error) => error.into(),
            E::Evidence(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<approval::Error> for Problem {
    fn from(error: approval::Error) -> Self {
        use approval::Error as E;
        let told = error.to_string();
        match error {
            E::NoSuchApproval(_) => ProblemId::NoSuchApproval.into(),
            E::NotOpen(_) | E::PlanChanged | E::NotApproved | E::Swapped(_) => {
                Self::new(ProblemId::ApprovalStands, told)
            }
            E::ForPeopleAlone(_) => Self::new(ProblemId::ForPeopleAlone, told),
            E::People(error) => error.into(),
            E::Vault(error) => error.into(),
            E::Database(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<people::Refusal> for Problem {
    fn from(refusal: people::Refusal) -> Self {
        match refusal {
            people::Refusal::Unknown => ProblemId::BadToken.into(),
            people::Refusal::Expired => ProblemId::TokenExpired.into(),
            people::Refusal::Revoked => ProblemId::TokenRevoked.into(),
            people::Refusal::Elsewhere => ProblemId::TokenElsewhere.into(),
            people::Refusal::Database(error) => error.into(),
        }
    }
}

impl From<queue::Error> for Problem {
    fn from(error: queue::Error) -> Self {
        let (refusal, problem, mend) = match error {
            queue::Error::Refused { refusal, problem, mend } => (refusal, problem, mend),
            queue::Error::Database(error) => return error.into(),
            queue::Error::Evidence(error) => return error.into(),
            queue::Error::Vault(error) => return (*error).into(),
            error @ queue::Error::Payload { .. } => return Self::internal(&error),
        };
        let (id, field) = match refusal {
            queue::Refusal::UnknownKind => (ProblemId::UnknownKind, "kind"),
            queue::Refusal::PayloadOffSchema => (ProblemId::PayloadOffSchema, "payload"),
            queue::Refusal::NoSuchBusiness => (ProblemId::NoSuchBusiness, "business"),
            queue::Refusal::SeveralBusinesses => (ProblemId::WhichBusiness, "business"),
            queue::Refusal::PayloadTooLarge => (ProblemId::PayloadTooLarge, "payload"),
            queue::Refusal::BadKey => (ProblemId::BadJobKey, "key"),
            queue::Refusal::BadLaneOrPriority => (ProblemId::BadLane, "lane"),
            // The kind changed between two statements: a migration runs.
            queue::Refusal::NotSealed => (ProblemId::Unavailable, "payload"),
        };
        Self::field(id, field, problem, mend)
    }
}

impl From<vault::Error> for Problem {
    fn from(error: vault::Error) -> Self {
        match error {
            vault::Error::Sealed { .. } => Self { id: ProblemId::Sealed, ..Self::internal(&error) },
            vault::Error::TooLong(_) => ProblemId::ValueTooLong.into(),
            vault::Error::Drifted { finding } => Self::new(ProblemId::ColumnDrifted, finding),
            vault::Error::BadColumn { problem, mend } => Self::field(ProblemId::BadBody, "place.column", problem, mend),
            vault::Error::Database(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<evidence::Error> for Problem {
    fn from(error: evidence::Error) -> Self {
        match error {
            evidence::Error::Database(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<schedule::Error> for Problem {
    fn from(error: schedule::Error) -> Self {
        match error {
            schedule::Error::NotFound(_) => ProblemId::NoSuchSchedule.into(),
            schedule::Error::Database { source, .. } => source.into(),
            schedule::Error::Evidence(error) => error.into(),
            error @ schedule::Error::NotEnqueued { .. } => Self::new(ProblemId::NotEnqueued, error.to_string()),
            error => Self::internal(&error),
        }
    }
}

impl From<invoice::Error> for Problem {
    fn from(error: invoice::Error) -> Self {
        match error {
            invoice::Error::Database(error) => error.into(),
            invoice::Error::Vault(error) | invoice::Error::Files(files::Error::Vault(error)) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<messaging::Error> for Problem {
    fn from(error: messaging::Error) -> Self {
        use messaging::Error as E;
        let told = error.to_string();
        match error {
            E::NoSuchCampaign => ProblemId::NoSuchCampaign.into(),
            E::CampaignBegun | E::CampaignNotBegun | E::CampaignOver => Self::new(ProblemId::CampaignStands, told),
            E::NoAccount => ProblemId::NoSender.into(),
            E::BadCampaign(field, problem) => {
                Self::field(ProblemId::BadBody, field, problem, "mend it and send it again")
            }
            E::BadParameter { field, mend } => {
                let field = format!("parameters.{field}");
                Self::field(ProblemId::BadBody, &field, mend, "mend it and send it again")
            }
            E::Wishes(error) => (*error).into(),
            E::Vault(error) => error.into(),
            E::Evidence(error) => error.into(),
            E::Enqueue(error) => error.into(),
            E::Database(error) => error.into(),
            E::MailIdentity(bad) => match bad {
                BadIdentity::NoBusiness => ProblemId::NoSuchBusiness.into(),
                BadIdentity::None => ProblemId::NoSuchMailIdentity.into(),
                BadIdentity::Code => ProblemId::WrongMailCode.into(),
                BadIdentity::Name | BadIdentity::Unaligned | BadIdentity::Key(_) => {
                    Self::new(ProblemId::BadMailIdentity, bad.to_string())
                }
            },
            E::NoSuchNumber => {
                let mend = "`muneem messaging account list` shows the business's numbers";
                Self::field(ProblemId::BadBody, "from", "is no number of this business", mend)
            }
            E::WindowClosed => ProblemId::WindowClosed.into(),
            E::BadDocument { mend, .. } => {
                Self::field(ProblemId::BadBody, "document", mend, "the words say whether they have one")
            }
            E::BadMessage { field, mend } => Self::field(ProblemId::BadBody, field, mend, "mend it and send it again"),
            error => Self::internal(&error),
        }
    }
}

impl From<webhooks::Error> for Problem {
    fn from(error: webhooks::Error) -> Self {
        use webhooks::Error as E;
        match error {
            E::NoSuchEndpoint(_) => ProblemId::NoSuchEndpoint.into(),
            E::NoSuchEvent(_) => ProblemId::NoSuchWebhook.into(),
            E::Disabled(_) => ProblemId::EndpointDisabled.into(),
            E::TooMany(_) => Self::new(ProblemId::TooManyEndpoints, error.to_string()),
            E::BadField { field, problem, mend } => Self::field(ProblemId::BadBody, field, problem, mend),
            E::Vault(error) => error.into(),
            E::Enqueue(error) => error.into(),
            E::Evidence(error) => error.into(),
            E::Database(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<wishes::Error> for Problem {
    fn from(error: wishes::Error) -> Self {
        match error {
            wishes::Error::BadField { field, problem, mend } => Self::field(ProblemId::BadBody, field, problem, mend),
            wishes::Error::Erased => ProblemId::PersonErased.into(),
            wishes::Error::NotYoursToLift => ProblemId::NotYoursToLift.into(),
            wishes::Error::Vault(error) => error.into(),
            wishes::Error::Evidence(error) => error.into(),
            wishes::Error::Database(error) => error.into(),
            error @ (wishes::Error::NoSuchWords | wishes::Error::BadList(_)) => Self::internal(&error),
        }
    }
}

impl From<otp::Error> for Problem {
    fn from(error: otp::Error) -> Self {
        match error {
            otp::Error::BadField { field, problem, mend } => Self::field(ProblemId::BadBody, field, problem, mend),
            otp::Error::TooOften(wait) => {
                Self::from(ProblemId::TooOften).after(wait.to_std().unwrap_or(Duration::from_secs(1)))
            }
            otp::Error::Wishes(error) => error.into(),
            otp::Error::Enqueue(error) => error.into(),
            otp::Error::Vault(error) => error.into(),
            otp::Error::Evidence(error) => error.into(),
            otp::Error::Database(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

/// The page that stands at a problem's `type`.
pub(super) async fn page(Path(id): Path<String>) -> Result<Html<String>, Problem> {
    let problem = ProblemId::ALL.iter().find(|problem| problem.as_str() == id).ok_or(ProblemId::NoSuchAddress)?;
    Ok(Html(html(problem.as_str(), &row(*problem))))
}

/// All problems on one page.
pub(super) async fn pages() -> Html<String> {
    Html(html("Problems", &ProblemId::ALL.iter().copied().map(row).collect::<String>()))
}

fn row(problem: ProblemId) -> String {
    let (id, status) = (problem.as_str(), problem.status());
    format!(
        "<h2><a href=\"/problems/{id}\">{id}</a> ({status})</h2><p>{}.</p><p>{}</p>",
        problem.title(),
        problem.mend()
    )
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><body>{body}</body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_problems_is_stable() {
        let list: String = ProblemId::ALL
            .iter()
            .map(|problem| format!("{} {}: {}\n", problem.status(), problem.as_str(), problem.title()))
            .collect();
        insta::assert_snapshot!("problems", list);
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = ProblemId::ALL.iter().map(|problem| problem.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ProblemId::ALL.len());
    }
}
