//! `/v1/vault`: columns of the frontend's own, sealed and looked up by the same keys as ours.
//!
//! A value is sealed for one business, table, column and row, and opens there alone. What is answered is never kept
//! under an Idempotency-Key: an opened value would lie in that table in clear.

use std::sync::Arc;

use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use muneem_jobs::{
    evidence::{self, Actor, Event, EventId, Object, Word, words},
    people::{self, BusinessId},
    queue::JobError,
    vault::{self, Cell, Class, Error, IndexColumn},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    auth::Caller,
    post::Post,
    problem::{Problem, ProblemId},
};

/// Most cells of one request.
const CELLS_MAX: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(seal)).routes(routes!(open)).routes(routes!(find))
}

/// A column of the frontend's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Column {
    /// Handle of the business; without it the token's own, or the only one there is.
    business: Option<String>,
    /// `schema.table`, as the values are stored. Not one of muneem's.
    table: String,
    /// The column's name.
    column: String,
}

/// How values are written before they are indexed: equal people then have equal indexes.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// A phone number, in E.164.
    Phone,
    /// An e-mail address, its domain in lower case.
    Email,
    /// A GSTIN, in capitals, its check character right.
    Gstin,
    /// As it stands.
    Exact,
}

impl Form {
    fn of(self, field: &str, value: &str) -> Result<String, Problem> {
        let form = match self {
            Self::Phone => vault::Form::Phone,
            Self::Email => vault::Form::Email,
            Self::Gstin => vault::Form::Gstin,
            Self::Exact => vault::Form::Exact,
        };
        let mend = "send it as its owner writes it, whole";
        form.canonical(value).map_err(|error| Problem::field(ProblemId::BadBody, field, error.to_string(), mend))
    }
}

/// Values to seal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Seal {
    /// Where they will stand.
    place: Column,
    /// contact, tax_id, payment_token, message_body, payload, document or credential.
    class: String,
    /// Also answer the blind index of each value, written in this form.
    index: Option<Form>,
    /// At most 1000.
    cells: Vec<Plain>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Plain {
    /// The row's primary key, as text.
    row: String,
    /// What to seal.
    value: String,
}

/// Sealed values, in the order they were sent.
#[derive(Serialize, ToSchema)]
struct SealedCells {
    cells: Vec<SealedCell>,
}

#[derive(Serialize, ToSchema)]
struct SealedCell {
    /// The row's primary key.
    row: String,
    /// To be stored, base64.
    sealed: String,
    /// To be stored beside it, if an index was asked for.
    index: Option<Index>,
}

/// A blind index.
#[derive(Serialize, ToSchema)]
struct Index {
    /// 16 bytes, base64.
    digest: String,
    /// Of the index key: stored beside the digest.
    version: i16,
}

/// Values to open.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Open {
    /// Where they stand.
    place: Column,
    /// At most 1000.
    cells: Vec<Stored>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The row's primary key, as text.
    row: String,
    /// As it was answered when it was sealed.
    sealed: String,
}

/// Opened values, in the order they were sent.
#[derive(Serialize, ToSchema)]
struct OpenedCells {
    cells: Vec<OpenedCell>,
}

#[derive(Serialize, ToSchema)]
struct OpenedCell {
    /// The row's primary key.
    row: String,
    /// What was sealed; none when it does not open.
    value: Option<String>,
    /// Why it does not open, for machines.
    problem: Option<&'static str>,
}

/// A value to look for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Find {
    /// Where it may stand.
    place: Column,
    /// How values of this column are written.
    form: Form,
    /// The whole value.
    value: String,
}

/// What to compare the stored index with: any of these. None where nothing of the column was ever indexed.
#[derive(Serialize, ToSchema)]
struct Indexes {
    indexes: Vec<Index>,
}

/// The business that the caller means and may mean.
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

/// Refuses names that are none, and our own tables: what is in them is opened by the duty it belongs to.
fn check_place(place: &Column) -> Result<(), Problem> {
    let plain = |name: &str| {
        (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let Some((schema, table)) = place.table.split_once('.') else {
        let mend = "write schema.table, for example public.customers";
        return Err(Problem::field(ProblemId::BadBody, "place.table", "has no schema", mend));
    };
    if schema.eq_ignore_ascii_case("muneem") {
        let mend = "name a table of your own";
        return Err(Problem::field(ProblemId::BadBody, "place.table", "is one of muneem's", mend));
    }
    for (field, name) in [("place.table", schema), ("place.table", table), ("place.column", &place.column)] {
        if !plain(name) {
            let problem = "is not a name of letters, digits and _";
            return Err(Problem::field(ProblemId::BadBody, field, problem, "name it as the database does"));
        }
    }
    Ok(())
}

fn check_count(count: usize) -> Result<(), Problem> {
    if count <= CELLS_MAX {
        return Ok(());
    }
    let problem = format!("has {count} entries");
    Err(Problem::field(ProblemId::BadBody, "cells", problem, "send at most 1000 at a time"))
}

fn index(found: &muneem_jobs::vault::BlindIndex) -> Index {
    Index { digest: BASE64.encode(found.digest), version: found.version }
}

/// Writes down who looked at what, before she sees it. Rows go in as a digest: a primary key may be a phone number.
async fn record(
    db: &mut PgConnection,
    (api, caller, business): (&Api, &Caller, BusinessId),
    verb: Word,
    place: &Column,
    rows: impl Iterator<Item = &str>,
) -> Result<(), Problem> {
    let (mut digest, mut count) = (Sha256::new(), 0_u64);
    for row in rows {
        digest.update(u64::try_from(row.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(row);
        count += 1;
    }
    let event = Event {
        event_id: EventId::new(&*api.chance, api.clock.now()),
        business_id: Some(business),
        actor: Actor::Token(caller.token_id.clone()),
        verb,
        object: Object { kind: "column", id: &format!("{}.{}", place.table, place.column) },
        details: json!({ "count": count, "rows_sha256": hex::encode(digest.finalize()) }),
    };
    evidence::record(db, &event).await.map_err(|error| Problem::internal(&error))?;
    Ok(())
}

/// Seal values
#[utoipa::path(post, path = "/v1/vault/seal", tag = "vault", request_body = Seal,
    responses((status = 200, body = SealedCells)))]
async fn seal(State(api): State<Arc<Api>>, post: Post<Seal>) -> Result<Json<SealedCells>, Problem> {
    let Seal { place, class, index: form, cells } = post.body;
    check_place(&place)?;
    check_count(cells.len())?;
    let class: Class = class
        .parse()
        .map_err(|problem: String| Problem::field(ProblemId::BadBody, "class", problem, "see /docs for the classes"))?;
    let mut db = api.db.acquire().await?;
    let business_id = business_of(&mut db, &post.caller, place.business.as_deref()).await?;
    vault::require_sound(&mut db, business_id, &place.table, &place.column).await?;
    let column = IndexColumn { business_id, table: &place.table, column: &place.column };
    api.vault.note_stray(&mut db, &column, class).await?;
    let mut sealed = Vec::with_capacity(cells.len());
    for (at, cell) in cells.into_iter().enumerate() {
        let index = match form {
            None => None,
            Some(form) => {
                let canonical = form.of(&format!("cells.{at}.value"), &cell.value)?;
                Some(index(&api.vault.index(&mut db, &column, &canonical).await?))
            }
        };
        let stands = Cell { business_id, table: &place.table, column: &place.column, row: &cell.row };
        let bytes = api.vault.seal(&mut db, class, &stands, cell.value.as_bytes()).await?;
        sealed.push(SealedCell { sealed: BASE64.encode(bytes), index, row: cell.row });
    }
    Ok(Json(SealedCells { cells: sealed }))
}

/// Open values; that they were opened is on record before they are answered
#[utoipa::path(post, path = "/v1/vault/open", tag = "vault", request_body = Open,
    responses((status = 200, body = OpenedCells)))]
async fn open(State(api): State<Arc<Api>>, post: Post<Open>) -> Result<Json<OpenedCells>, Problem> {
    let Open { place, cells } = post.body;
    check_place(&place)?;
    check_count(cells.len())?;
    let mut db = api.db.acquire().await?;
    let business_id = business_of(&mut db, &post.caller, place.business.as_deref()).await?;
    vault::require_sound(&mut db, business_id, &place.table, &place.column).await?;
    let mut tx = db.begin().await?;
    people::hold_token(&mut tx, &post.caller, api.clock.now()).await?;
    let rows = cells.iter().map(|cell| cell.row.as_str());
    record(&mut tx, (&api, &post.caller, business_id), words::OPENED, &place, rows).await?;
    tx.commit().await?;
    let mut opened = Vec::with_capacity(cells.len());
    for cell in cells {
        let stands = Cell { business_id, table: &place.table, column: &place.column, row: &cell.row };
        // What is no base64 is no sealed value either: one refusal for both.
        let bytes = BASE64.decode(&cell.sealed).unwrap_or_default();
        let (value, problem) = match api.vault.open(&mut db, &stands, &bytes).await {
            // What this address sealed was text; other bytes were sealed by something else.
            Ok(plain) => match std::str::from_utf8(&plain) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some("vault.not_text")),
            },
            Err(error @ Error::Unreadable { .. }) => (None, Some(error.cause())),
            Err(error) => return Err(error.into()),
        };
        opened.push(OpenedCell { row: cell.row, value, problem });
    }
    // Ended while they were opened, it is told nothing.
    let mut tx = db.begin().await?;
    people::hold_token(&mut tx, &post.caller, api.clock.now()).await?;
    Ok(Json(OpenedCells { cells: opened }))
}

/// Answer the indexes to look a value up by; that somebody looked is on record
#[utoipa::path(post, path = "/v1/vault/find", tag = "vault", request_body = Find,
    responses((status = 200, body = Indexes)))]
async fn find(State(api): State<Arc<Api>>, post: Post<Find>) -> Result<Json<Indexes>, Problem> {
    let Find { place, form, value } = post.body;
    check_place(&place)?;
    let canonical = form.of("value", &value)?;
    let mut db = api.db.acquire().await?;
    let business_id = business_of(&mut db, &post.caller, place.business.as_deref()).await?;
    vault::require_sound(&mut db, business_id, &place.table, &place.column).await?;
    let mut tx = db.begin().await?;
    people::hold_token(&mut tx, &post.caller, api.clock.now()).await?;
    record(&mut tx, (&api, &post.caller, business_id), words::SEARCHED, &place, std::iter::empty()).await?;
    tx.commit().await?;
    let column = IndexColumn { business_id, table: &place.table, column: &place.column };
    let found = api.vault.known_indexes(&mut db, &column, &canonical).await?;
    Ok(Json(Indexes { indexes: found.iter().map(index).collect() }))
}
