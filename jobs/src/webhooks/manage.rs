//! Endpoints: added, changed, removed, tried; their secrets made and replaced.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    Deliver, Endpoint, EndpointId, EndpointState, Error, EventId, SecretId, Settings,
    emit::{self, Emission, Event, PING},
    rules,
    sealed::{self, Text},
    sign,
    store::endpoints::{self as store, NewRow, Row},
};
use crate::{
    evidence::{Act, By, Object, Word, words},
    outbound::webhook::WebhookUrl,
    people::BusinessId,
    queue::{self, NewJob},
    vault::Vault,
};

/// Most endpoints of a business: each event is told to every one of them.
const ENDPOINTS_MAX: i64 = 16;
/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 200;
/// Longest time for which a secret that was replaced signs on.
const OVERLAP_MAX: TimeDelta = TimeDelta::days(7);

/// An endpoint, as somebody names it.
#[derive(Clone, Copy, Debug)]
pub struct Which {
    /// Of this business; none: of any, for whoever runs the installation.
    pub business: Option<BusinessId>,
    /// Its id.
    pub endpoint: EndpointId,
}

/// An endpoint to be added.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Whose it will be.
    pub business: BusinessId,
    /// Where it is.
    pub url: String,
    /// What it is told of: exact types, `messaging.*`, or `*`.
    pub event_types: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// What is to be changed of an endpoint; what is not said stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Where it is.
    pub url: Option<String>,
    /// What it is told of.
    pub event_types: Option<Vec<String>>,
    /// What it is for; the inner none empties it.
    pub description: Option<Option<String>>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

/// Adds an endpoint. Answers it with its secret, which is shown this once.
///
/// # Errors
/// [`Error::BadField`]: the address, the types or the description is off. [`Error::TooMany`].
pub async fn add_endpoint(
    tx: &mut PgConnection,
    vault: &Vault,
    new: &NewEndpoint,
    settings: &Settings,
    by: &By<'_>,
) -> Result<(Endpoint, SecretString), Error> {
    let url = checked_url(&new.url, settings)?;
    let event_types = rules::checked_patterns(&new.event_types)?;
    let description = checked_description(new.description.as_deref())?;
    if store::count_of(&mut *tx, new.business).await? >= ENDPOINTS_MAX {
        return Err(Error::TooMany(ENDPOINTS_MAX));
    }
    let id = EndpointId(by.chance.uuid_v7(by.now));
    let whose = (new.business, id);
    let url_sealed = sealed::seal_text(&mut *tx, vault, whose, Text::Url, url.expose()).await?;
    let description_sealed = seal_description(&mut *tx, vault, whose, description.as_deref()).await?;
    let row = NewRow {
        id,
        business: new.business,
        origin: &url.origin(),
        url_sealed: &url_sealed,
        description_sealed: description_sealed.as_deref(),
        event_types: &event_types,
    };
    store::insert(&mut *tx, &row, by.now).await?;
    let secret = add_secret(&mut *tx, vault, whose, by).await?;
    note(&mut *tx, whose, words::WEBHOOK_ENDPOINT_ADDED, json!({ "event_types": event_types.len() }), by).await?;
    let added = load(tx, vault, Which { business: Some(new.business), endpoint: id }, by.now).await?;
    Ok((added, secret))
}

/// Changes an endpoint. Whatever is changed, it counts as well from then on, and what waits for it is tried at once.
///
/// # Errors
/// [`Error::NoSuchEndpoint`], [`Error::BadField`].
pub async fn change_endpoint(
    tx: &mut PgConnection,
    vault: &Vault,
    which: Which,
    change: &Change,
    (settings, by): (&Settings, &By<'_>),
) -> Result<Endpoint, Error> {
    let mut row = lock(&mut *tx, which).await?;
    let whose = (row.business_id, row.endpoint_id);
    let was = row.state;
    let mut changed = Vec::new();
    if let Some(url) = &change.url {
        let url = checked_url(url, settings)?;
        row.origin = url.origin();
        row.url_sealed = Some(sealed::seal_text(&mut *tx, vault, whose, Text::Url, url.expose()).await?);
        changed.push("url");
    }
    if let Some(event_types) = &change.event_types {
        row.event_types = rules::checked_patterns(event_types)?;
        changed.push("event_types");
    }
    if let Some(description) = &change.description {
        let description = checked_description(description.as_deref())?;
        row.description_sealed = seal_description(&mut *tx, vault, whose, description.as_deref()).await?;
        changed.push("description");
    }
    match change.enabled {
        Some(true) => {
            (row.state, row.reason) = (EndpointState::Enabled, None);
            changed.push("enabled");
        }
        Some(false) => {
            (row.state, row.reason) = (EndpointState::Disabled, Some("asked".to_owned()));
            changed.push("disabled");
        }
        // Another address deserves another try.
        None if row.state == EndpointState::Paused => (row.state, row.reason) = (EndpointState::Enabled, None),
        None => {}
    }
    if !changed.is_empty() {
        store::update(&mut *tx, &row, by.now).await?;
        let disables = row.state == EndpointState::Disabled && was != EndpointState::Disabled;
        let word = if disables { words::WEBHOOK_ENDPOINT_DISABLED } else { words::WEBHOOK_ENDPOINT_CHANGED };
        note(&mut *tx, whose, word, json!({ "changed": changed, "reason": row.reason }), by).await?;
        if row.state == EndpointState::Enabled {
            look(&mut *tx, whose).await?;
        }
    }
    load(tx, vault, which, by.now).await
}

/// Makes another secret, shown this once. The one before signs beside it for `overlap`, up to seven days.
///
/// # Errors
/// [`Error::NoSuchEndpoint`], [`Error::BadField`].
pub async fn rotate_secret(
    tx: &mut PgConnection,
    vault: &Vault,
    which: Which,
    overlap: TimeDelta,
    by: &By<'_>,
) -> Result<(SecretString, DateTime<Utc>), Error> {
    let row = lock(&mut *tx, which).await?;
    if !(TimeDelta::zero()..=OVERLAP_MAX).contains(&overlap) {
        return Err(Error::BadField {
            field: "overlap_hours",
            problem: "is too long or negative",
            mend: "0 ends the old secret at once; 168 is the most",
        });
    }
    let whose = (row.business_id, row.endpoint_id);
    // As the database keeps it and whoever looks later sees it.
    let ends_at = (by.now + overlap).trunc_subsecs(6);
    store::end_secrets(&mut *tx, row.endpoint_id, ends_at, by.now).await?;
    let secret = add_secret(&mut *tx, vault, whose, by).await?;
    let details = json!({ "overlap_secs": overlap.num_seconds() });
    note(tx, whose, words::WEBHOOK_SECRET_ROTATED, details, by).await?;
    Ok((secret, ends_at))
}

/// Removes an endpoint for good. Its address and secrets go at once, and what waits for it is dropped.
///
/// # Errors
/// [`Error::NoSuchEndpoint`].
pub async fn remove_endpoint(tx: &mut PgConnection, which: Which, by: &By<'_>) -> Result<u64, Error> {
    let row = lock(&mut *tx, which).await?;
    let dropped = store::remove(&mut *tx, row.endpoint_id, by.now).await?;
    let whose = (row.business_id, row.endpoint_id);
    note(tx, whose, words::WEBHOOK_ENDPOINT_REMOVED, json!({ "dropped": dropped }), by).await?;
    Ok(dropped)
}

/// Tells an endpoint of [`PING`], on the way that everything goes, and at once, also where it is paused. Answers the
/// event, whose deliveries show what came of it.
///
/// # Errors
/// [`Error::NoSuchEndpoint`], [`Error::Disabled`].
pub async fn test_endpoint(tx: &mut PgConnection, emission: Emission<'_>, which: Which) -> Result<EventId, Error> {
    let row = lock(&mut *tx, which).await?;
    if row.state == EndpointState::Disabled {
        return Err(Error::Disabled(row.endpoint_id));
    }
    let event = Event {
        event_type: PING.to_owned(),
        object: row.endpoint_id.to_string(),
        occurred_at: emission.now,
        data: json!({ "endpoint_id": row.endpoint_id }),
    };
    let ids = emit::keep(&mut *tx, emission, row.business_id, &[(event, vec![row.endpoint_id])]).await?;
    store::wake(&mut *tx, row.endpoint_id).await?;
    look(tx, (row.business_id, row.endpoint_id)).await?;
    ids.into_iter().next().ok_or(Error::NoSuchEndpoint(which.endpoint))
}

/// Lists endpoints, newest first.
///
/// # Errors
/// The database fails.
pub async fn list_endpoints(
    conn: &mut PgConnection,
    vault: &Vault,
    business: Option<BusinessId>,
    before: Option<EndpointId>,
    (limit, now): (u16, DateTime<Utc>),
) -> Result<Vec<Endpoint>, Error> {
    let mut shown = Vec::new();
    for row in store::list(&mut *conn, business, None, before, limit).await? {
        shown.push(show(&mut *conn, vault, row, now).await?);
    }
    Ok(shown)
}

/// One endpoint; nothing where it is another business's or was removed.
///
/// # Errors
/// The database fails.
pub async fn find_endpoint(
    conn: &mut PgConnection,
    vault: &Vault,
    which: Which,
    now: DateTime<Utc>,
) -> Result<Option<Endpoint>, Error> {
    match store::list(&mut *conn, which.business, Some(which.endpoint), None, 1).await?.pop() {
        Some(row) => Ok(Some(show(conn, vault, row, now).await?)),
        None => Ok(None),
    }
}

async fn load(conn: &mut PgConnection, vault: &Vault, which: Which, now: DateTime<Utc>) -> Result<Endpoint, Error> {
    find_endpoint(conn, vault, which, now).await?.ok_or(Error::NoSuchEndpoint(which.endpoint))
}

async fn show(conn: &mut PgConnection, vault: &Vault, row: Row, now: DateTime<Utc>) -> Result<Endpoint, Error> {
    let whose = (row.business_id, row.endpoint_id);
    let description = match &row.description_sealed {
        Some(sealed) => {
            let plain = sealed::open_text(&mut *conn, vault, whose, Text::Description, sealed).await?;
            Some(plain.as_str().to_owned())
        }
        None => None,
    };
    let waiting = store::count_waiting(&mut *conn, row.endpoint_id).await?;
    let rotating_until = store::rotating_until(conn, row.endpoint_id, now).await?;
    Ok(Endpoint {
        endpoint_id: row.endpoint_id,
        business_id: row.business_id,
        origin: row.origin,
        description,
        event_types: row.event_types,
        state: row.state,
        reason: row.reason,
        created_at: row.created_at,
        changed_at: row.changed_at,
        failures: row.failures,
        failing_since: row.failing_since,
        last_success_at: row.last_success_at,
        last_failure_at: row.last_failure_at,
        last_cause: row.last_cause,
        wait_until: row.wait_until,
        waiting,
        rotating_until,
    })
}

pub(super) async fn lock(tx: &mut PgConnection, which: Which) -> Result<Row, Error> {
    store::lock(tx, which).await?.ok_or(Error::NoSuchEndpoint(which.endpoint))
}

/// A job looks at what waits, as soon as the transaction commits.
pub(super) async fn look(tx: &mut PgConnection, (business, endpoint): (BusinessId, EndpointId)) -> Result<(), Error> {
    queue::enqueue(tx, &NewJob::of(business, &Deliver { endpoint_id: endpoint })?).await?;
    Ok(())
}

async fn add_secret(
    tx: &mut PgConnection,
    vault: &Vault,
    (business, endpoint): (BusinessId, EndpointId),
    by: &By<'_>,
) -> Result<SecretString, Error> {
    let secret = sign::mint(by.chance);
    let id = SecretId(by.chance.uuid_v7(by.now));
    let sealed = sealed::seal_secret(&mut *tx, vault, (business, id), &secret).await?;
    store::insert_secret(tx, (business, endpoint, id), &sealed, by.now).await?;
    Ok(secret)
}

fn checked_url(text: &str, settings: &Settings) -> Result<WebhookUrl, Error> {
    WebhookUrl::parse(text.trim(), settings.loopback).map_err(|bad| Error::BadField {
        field: "url",
        problem: bad.problem,
        mend: bad.mend,
    })
}

fn checked_description(text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > DESCRIPTION_MAX || text.chars().any(char::is_control) {
        return Err(Error::BadField {
            field: "description",
            problem: "is too long or holds a line break",
            mend: "say in one line of at most 200 characters what the endpoint is for",
        });
    }
    Ok(Some(text.to_owned()))
}

async fn seal_description(
    tx: &mut PgConnection,
    vault: &Vault,
    whose: (BusinessId, EndpointId),
    description: Option<&str>,
) -> Result<Option<Vec<u8>>, Error> {
    match description {
        Some(text) => Ok(Some(sealed::seal_text(tx, vault, whose, Text::Description, text).await?)),
        None => Ok(None),
    }
}

/// Puts on record what was done to an endpoint.
pub(super) async fn note(
    tx: &mut PgConnection,
    (business, endpoint): (BusinessId, EndpointId),
    word: Word,
    details: Value,
    by: &By<'_>,
) -> Result<(), Error> {
    let id = endpoint.to_string();
    let object = Object { kind: "webhook_endpoint", id: &id };
    Ok(by.record(tx, Act { word, business: Some(business), object, details }).await?)
}
