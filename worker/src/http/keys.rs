//! `/v1/vault/keys`: keys, how far they are on their way, and what keeps them from going on. No key itself.

use std::sync::Arc;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use muneem_jobs::vault::{self, HostColumn, KeyInfo, Quarantined, ResealColumn, Stray, Walked};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, auth::Caller, problem::Problem, query::Query};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Whose keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the business with this handle only.
    business: Option<String>,
}

/// A key, without what it is.
#[derive(Serialize, ToSchema)]
struct Key {
    /// As it stands in every value it sealed.
    key_id: i64,
    /// Handle of the business; none: the installation's own.
    business: Option<String>,
    /// business, index, or the class of values it seals.
    class: String,
    /// The column of an index key, else empty.
    column: String,
    /// Of an index key.
    version: i16,
    /// pending, active, decrypt_only or retired.
    state: String,
    /// Which root key wraps it; none: a business's key does.
    root: Option<String>,
    /// Values it may have sealed, counted in blocks.
    uses_at_most: i64,
    created_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    /// Since when no value and no other key refers to it.
    cleared_at: Option<DateTime<Utc>>,
    /// What keeps it from its next state; none where all is as it should be.
    waits_for: Option<String>,
}

/// The walk under way through all that is sealed, or the last one.
#[derive(Serialize, ToSchema)]
struct Walk {
    /// running, paused, done or incomplete.
    state: String,
    /// Whether it is about a key that is listed here.
    concerns_these: bool,
    /// From 1; the last one finds nothing.
    pass: i32,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// Of this pass, 0 to 1.
    share: f64,
    /// Seconds until this pass is through.
    eta_secs: Option<i64>,
    /// Rows, rate and columns; for a token of the whole installation alone.
    rows: Option<Rows>,
}

#[derive(Serialize, ToSchema)]
struct Rows {
    /// Values sealed anew, in all passes.
    resealed: i64,
    /// Looked at in this pass.
    visited: i64,
    /// Of all columns, as the planner estimates them.
    expected: i64,
    /// Looked at a second.
    rate: Option<f64>,
    columns: Vec<Column>,
}

#[derive(Serialize, ToSchema)]
struct Column {
    /// schema.table.column; of a frontend's column with the business's id.
    place: String,
    finished: bool,
    visited: i64,
    resealed: i64,
    /// Changed by somebody else meanwhile, and found again in the next pass.
    missed: i64,
    /// What does not open.
    bad: i64,
    /// Why it could not be walked.
    trouble: Option<String>,
}

/// A value that does not open: where it is, and never what.
#[derive(Serialize, ToSchema)]
struct Bad {
    place: String,
    /// The row's primary key.
    row: String,
    key_id: Option<i64>,
    /// cut, version, algorithm, key, tag, shredded, form or taken.
    why: String,
    found_at: DateTime<Utc>,
}

/// A registered column that is closed.
#[derive(Serialize, ToSchema)]
struct Closed {
    column: String,
    /// What is off, and what to do.
    finding: String,
    checked_at: DateTime<Utc>,
}

/// A column that values were sealed for and that nobody registered: its keys are kept.
#[derive(Serialize, ToSchema)]
struct Unregistered {
    column: String,
    class: String,
    first_at: DateTime<Utc>,
}

/// Keys, and how they stand.
#[derive(Serialize, ToSchema)]
struct Keys {
    keys: Vec<Key>,
    walk: Option<Walk>,
    /// How many values do not open.
    unreadable: i64,
    /// The first hundred of them.
    quarantine: Vec<Bad>,
    closed: Vec<Closed>,
    unregistered: Vec<Unregistered>,
}

impl Key {
    fn of(key: KeyInfo, waits_for: Option<String>) -> Self {
        Self {
            key_id: key.key_id,
            business: key.business,
            class: key.class,
            column: key.purpose,
            version: key.version,
            state: key.state,
            root: key.root,
            uses_at_most: key.uses,
            created_at: key.created_at,
            changed_at: key.changed_at,
            cleared_at: key.cleared_at,
            waits_for,
        }
    }
}

impl Walk {
    fn of(walk: Walked, keys: &[Key], is_whole: bool) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = match walk.rows_expected {
            _ if walk.ended_at.is_some() => 1.0,
            0 => 0.0,
            expected => (walk.visited as f64 / expected as f64).min(1.0),
        };
        Self {
            concerns_these: keys.iter().any(|key| walk.keys.contains(&key.key_id)),
            share,
            rows: is_whole.then(|| Rows {
                resealed: walk.resealed,
                visited: walk.visited,
                expected: walk.rows_expected,
                rate: walk.rate,
                columns: walk.columns.into_iter().map(Column::from).collect(),
            }),
            state: walk.state,
            pass: walk.pass,
            started_at: walk.started_at,
            ended_at: walk.ended_at,
            eta_secs: walk.eta_secs,
        }
    }
}

impl From<ResealColumn> for Column {
    fn from(column: ResealColumn) -> Self {
        let ResealColumn { place, finished, visited, resealed, missed, bad, trouble, .. } = column;
        Self { place, finished, visited, resealed, missed, bad, trouble }
    }
}

impl From<Quarantined> for Bad {
    fn from(bad: Quarantined) -> Self {
        let Quarantined { place, row_key, key_id, why, found_at, .. } = bad;
        Self { place, row: row_key, key_id, why, found_at }
    }
}

impl From<HostColumn> for Closed {
    fn from(column: HostColumn) -> Self {
        Self { column: column.name(), finding: column.finding.unwrap_or_default(), checked_at: column.checked_at }
    }
}

impl From<Stray> for Unregistered {
    fn from(stray: Stray) -> Self {
        let Stray { column, class, first_at, .. } = stray;
        Self { column, class, first_at }
    }
}

/// List keys with their states, the progress of sealing anew, and what waits for what
#[utoipa::path(get, path = "/v1/vault/keys", tag = "vault", params(Filter), responses((status = 200, body = Keys)))]
async fn list(State(api): State<Arc<Api>>, caller: Caller, Query(asked): Query<Filter>) -> Result<Json<Keys>, Problem> {
    let mut db = api.db.acquire().await?;
    let business = caller.business_asked(&mut db, asked.business.as_deref()).await?;
    let standing = vault::standing(&mut db, business).await?;
    let horizon = api.vault.backup_horizon();
    let keys: Vec<Key> = vault::list_keys(&mut db, business)
        .await?
        .into_iter()
        .map(|key| {
            let waits_for = key.waits_for(&standing, horizon);
            Key::of(key, waits_for)
        })
        .collect();
    let walk = standing.walk.map(|walk| Walk::of(walk, &keys, caller.business.is_none()));
    Ok(Json(Keys {
        keys,
        walk,
        unreadable: standing.quarantined,
        quarantine: standing.quarantine.into_iter().map(Bad::from).collect(),
        closed: standing.closed.into_iter().map(Closed::from).collect(),
        unregistered: standing.strays.into_iter().map(Unregistered::from).collect(),
    }))
}
