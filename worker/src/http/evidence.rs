//! `/v1/evidence`: what was decided and done, each event with the proof that it lies under a signed head.
//!
//! Bodies hold no personal values, yet that somebody read them is on record before she does: the log also says who looked
//! into it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use muneem_jobs::{
    evidence::{self, Actor, Event as NewEvent, EventId, Inclusion, Object, Sealed, SignedHead, words},
    people::BusinessId,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    cursor::{self, Listing, Page},
    problem::{Problem, ProblemId},
    query::Query,
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(heads)).routes(routes!(growth))
}

/// A sealed event. What is hashed: `SHA-256(0x00 || "muneem.evidence.v1" || id || business_id or nil || business_seq ||
/// previous || at in microseconds || body_sha256)`, ids as 16 bytes and numbers as 8, big-endian.
#[derive(Serialize, ToSchema)]
struct Event {
    /// Its id.
    id: uuid::Uuid,
    /// Its number in the log, from 0.
    seq: u64,
    /// Whose it is; none: the installation's.
    business_id: Option<uuid::Uuid>,
    /// Its number among those of the business, from 1.
    business_seq: u64,
    /// When it was written.
    at: DateTime<Utc>,
    /// The same in microseconds since 1970, as it is hashed.
    at_micros: i64,
    /// Leaf hash of the business's event before, in hexadecimal.
    previous: String,
    /// SHA-256 of the body, in hexadecimal.
    body_sha256: String,
    /// Its leaf hash, in hexadecimal.
    leaf: String,
    /// What was done, by whom, to what: the canonical JSON whose digest is `body_sha256` (RFC 8785). Absent where it was
    /// not asked for, or was let go when the law's time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
}

impl Event {
    fn of(sealed: &Sealed, with_body: bool) -> Self {
        let leaf = &sealed.leaf;
        let body = sealed.body.as_deref().filter(|_| with_body);
        Self {
            id: leaf.event_id,
            seq: sealed.seq,
            business_id: leaf.business_id,
            business_seq: leaf.business_seq,
            at: leaf.at,
            at_micros: leaf.at.timestamp_micros(),
            previous: hex::encode(leaf.previous),
            body_sha256: hex::encode(leaf.body_sha256),
            leaf: hex::encode(sealed.hash),
            body: body.and_then(|body| serde_json::from_slice(body).ok()),
        }
    }
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
    /// With their bodies; that they were read is then on record.
    #[serde(default)]
    bodies: bool,
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before, with the same `business`.
    cursor: Option<String>,
}

/// List sealed events, newest first
///
/// Only events that have their number are shown: it takes a second or two.
#[utoipa::path(get, path = "/v1/evidence/events", tag = "evidence", params(Filter),
    responses((status = 200, body = Page<Event>)))]
async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<Filter>,
) -> Result<Json<Page<Event>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<u64>(asked.cursor.as_deref())?;
    let mut db = api.db.acquire().await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let found = evidence::list_newest(&mut db, business, before, limit + 1).await?;
    if asked.bodies {
        let shown = &found[..found.len().min(limit.into())];
        let details = json!({
            "count": shown.len(),
            "from": shown.last().map(|sealed| sealed.seq),
            "to": shown.first().map(|sealed| sealed.seq),
        });
        record(&mut db, (&api, &caller, business), Object { kind: "evidence", id: "events" }, details).await?;
    }
    let position = |event: &Event| if business.is_some() { event.business_seq } else { event.seq }.to_string();
    let events = found.iter().map(|sealed| Event::of(sealed, asked.bodies)).collect();
    Ok(Json(cursors.page(events, limit, position)))
}

/// Writes down who read, before she does.
async fn record(
    db: &mut PgConnection,
    (api, caller, business): (&Api, &Caller, Option<BusinessId>),
    object: Object<'_>,
    details: Value,
) -> Result<(), Problem> {
    let event = NewEvent {
        event_id: EventId::new(&*api.chance, api.clock.now()),
        business_id: business,
        actor: Actor::Token(caller.token_id.clone()),
        verb: words::READ,
        object,
        details,
    };
    evidence::record(db, &event).await?;
    Ok(())
}

/// A signed head of the log.
#[derive(Serialize, ToSchema)]
struct Head {
    /// Events under it.
    size: u64,
    /// Root of the tree over them (RFC 6962), in hexadecimal.
    root: String,
    /// When it was signed.
    at: DateTime<Utc>,
    /// The signed note (C2SP tlog-checkpoint): check it with the log's public key.
    note: String,
}

impl Head {
    fn of(head: SignedHead) -> Self {
        Self { size: head.size, root: hex::encode(head.root), at: head.at, note: head.note }
    }
}

/// What leads from an event to a signed head.
#[derive(Serialize, ToSchema)]
struct Proof {
    /// The event's place: `seq`.
    index: u64,
    /// Hashes from the leaf up to the root, base64 (RFC 6962 section 2.1.1).
    path: Vec<String>,
    /// The head.
    head: Head,
}

/// An event with its proof.
#[derive(Serialize, ToSchema)]
struct Proven {
    /// The event, with its body where it is kept.
    event: Event,
    /// `kept`, or `retired`: the law's time is over, and the rest is proven all the same.
    body_state: &'static str,
    /// Absent for the seconds until a head covers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
}

/// Show one event with its inclusion proof and a signed head; that it was read is on record
///
/// The proof was checked before it is answered. Check it again, with the public key that you hold.
#[utoipa::path(get, path = "/v1/evidence/events/{id}", tag = "evidence", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Proven)))]
async fn show(State(api): State<Arc<Api>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Proven>, Problem> {
    let event_id: EventId = id.parse().map_err(|_| ProblemId::NoSuchEvent)?;
    let mut db = api.db.acquire().await?;
    let sealed = evidence::find_sealed(&mut db, caller.business, event_id).await?.ok_or(ProblemId::NoSuchEvent)?;
    let owner = sealed.leaf.business_id.map(BusinessId);
    record(&mut db, (&api, &caller, owner), Object { kind: "event", id: &event_id.to_string() }, json!({ "count": 1 }))
        .await?;
    let proof = evidence::prove_inclusion(&mut db, &sealed).await?.map(|Inclusion { head, path }| Proof {
        index: sealed.seq,
        path: path.iter().map(|hash| BASE64.encode(hash)).collect(),
        head: Head::of(head),
    });
    let body_state = if sealed.body.is_some() { "kept" } else { "retired" };
    Ok(Json(Proven { event: Event::of(&sealed, true), body_state, proof }))
}

/// Which heads.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HeadFilter {
    /// How many, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List signed heads, newest first
///
/// One every ten seconds while the log grows, one an hour while it does not.
#[utoipa::path(get, path = "/v1/evidence/heads", tag = "evidence", params(HeadFilter),
    responses((status = 200, body = Page<Head>)))]
async fn heads(
    State(api): State<Arc<Api>>,
    caller: Caller,
    listing: Listing,
    Query(asked): Query<HeadFilter>,
) -> Result<Json<Page<Head>>, Problem> {
    let limit = cursor::limit(asked.limit)?;
    let cursors = listing.of(&api, &caller).await?;
    let before = cursors.position::<i64>(asked.cursor.as_deref())?;
    let mut db = api.db.acquire().await?;
    let found = evidence::list_heads(&mut db, before, limit + 1).await?;
    let Page { items, next } = cursors.page(found, limit, |head| head.checkpoint_id.to_string());
    Ok(Json(Page { items: items.into_iter().map(Head::of).collect(), next }))
}

/// Which two heads.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Sizes {
    /// Size of the older head, as you hold it.
    from: u64,
    /// Size of the newer one.
    to: u64,
}

/// That the log of one head grew out of that of another.
#[derive(Serialize, ToSchema)]
struct Growth {
    /// Size of the older head.
    from: u64,
    /// Size of the newer one.
    to: u64,
    /// Consistency proof, base64 (RFC 6962 section 2.1.2).
    path: Vec<String>,
}

/// Prove that nothing under an older head was changed or removed since
#[utoipa::path(get, path = "/v1/evidence/growth", tag = "evidence", params(Sizes),
    responses((status = 200, body = Growth)))]
async fn growth(
    State(api): State<Arc<Api>>,
    _: Caller,
    Query(Sizes { from, to }): Query<Sizes>,
) -> Result<Json<Growth>, Problem> {
    let mut db = api.db.acquire().await?;
    let path = evidence::prove_growth(&mut db, from, to).await?.ok_or(ProblemId::NoSuchHead)?;
    Ok(Json(Growth { from, to, path: path.iter().map(|hash| BASE64.encode(hash)).collect() }))
}
