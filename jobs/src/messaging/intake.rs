//! Webhooks at the door: kept first, answered then, applied by a job.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{ApplyWebhook, Error, WebhookId, masked, sealed, store, webhook};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::{Chance, Clock},
    people::BusinessId,
    queue::{self, NewJob},
    vault::Vault,
};

/// A body whose signature was checked.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// The exact bytes.
    pub bytes: &'a [u8],
    /// Whose app signed it; none: the installation's. A business is believed about its own numbers alone.
    pub signed_for: Option<BusinessId>,
}

/// What became of a webhook body at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Kept, and to be applied for as many businesses as it concerns.
    New(usize),
    /// These bytes are here already.
    Replayed,
}

/// Keeps one body; see [`receive_webhooks`].
///
/// # Errors
/// As [`receive_webhooks`].
pub async fn receive_webhook(
    conn: &mut PgConnection,
    vault: &Vault,
    clock: &dyn Clock,
    chance: &dyn Chance,
    body: &[u8],
) -> Result<Received, Error> {
    let received = receive_webhooks(conn, vault, clock, chance, &[Body { bytes: body, signed_for: None }]).await?;
    Ok(received.first().copied().unwrap_or(Received::Replayed))
}

/// Keeps webhook bodies whose signatures were checked, and enqueues their application, in the caller's transaction;
/// answers what became of each, in their order. Commit before answering the carrier: it keeps no history.
///
/// A body that nobody can read or that concerns no number of ours is kept as well and is no error: the carrier would
/// only bring it again for a week. Card and Aadhaar numbers that people wrote are kept masked, which is noted by class
/// and count.
///
/// # Errors
/// When the database or the vault fails; answer the carrier with a 5xx then, and it comes back.
pub async fn receive_webhooks(
    conn: &mut PgConnection,
    vault: &Vault,
    clock: &dyn Clock,
    chance: &dyn Chance,
    bodies: &[Body<'_>],
) -> Result<Vec<Received>, Error> {
    let now = clock.now();
    let batch = chance.uuid_v7(now);
    let read: Vec<_> = bodies.iter().map(|body| webhook::read(body.bytes)).collect();
    let owners = Owners::find(conn, read.iter().flatten().flatten()).await?;
    let mut rows = Vec::with_capacity(bodies.len());
    let mut notes = BTreeMap::new();
    for (body, updates) in bodies.iter().zip(&read) {
        let concerns: BTreeSet<_> =
            updates.iter().flatten().flat_map(|update| owners.of(update, body.signed_for)).collect();
        let state = match updates {
            None => "unreadable",
            Some(_) if concerns.is_empty() => "unmatched",
            Some(_) => "received",
        };
        let id = WebhookId(chance.uuid_v7(now));
        let sha256 = Sha256::digest(body.bytes).to_vec();
        let masked = masked::mask(body.bytes);
        let sealed = sealed::seal_webhook(conn, vault, id, &masked.body).await?;
        notes.insert(id, (masked.cards, masked.aadhaar));
        let concerns = concerns.into_iter().collect();
        rows.push(store::NewWebhook { id, sha256, body: sealed, state, signed_for: body.signed_for, concerns });
    }
    let new: BTreeSet<_> = store::insert_webhooks(conn, (batch, now), &rows).await?.into_iter().collect();
    let kept: Vec<_> = rows.iter().filter(|row| new.contains(&row.id)).collect();
    let ids: Vec<_> = kept.iter().map(|row| row.id.to_string()).collect();
    let acts = kept.iter().zip(&ids).map(|(row, id)| {
        let (cards, aadhaar) = notes.get(&row.id).copied().unwrap_or_default();
        Act {
            word: words::WEBHOOK_KEPT,
            business: row.concerns.first().copied().filter(|_| row.concerns.len() == 1),
            object: Object { kind: "webhook", id },
            details: json!({ "sha256": hex::encode(&row.sha256), "state": row.state, "businesses": row.concerns.len(),
                "masked_cards": cards, "masked_aadhaar": aadhaar }),
        }
    });
    By::system(now, chance).record_all(conn, acts.collect()).await?;
    for row in &kept {
        let (cards, aadhaar) = notes.get(&row.id).copied().unwrap_or_default();
        if cards + aadhaar > 0 {
            tracing::warn!(messaging.webhook_id = %row.id, cards, aadhaar, "numbers that nobody may keep were masked in a webhook");
        }
        if row.state != "received" {
            tracing::info!(messaging.webhook_id = %row.id, state = row.state, "a webhook concerns no message of ours");
        }
    }
    let concerned: BTreeSet<_> = kept.iter().flat_map(|row| row.concerns.iter().copied()).collect();
    for business in concerned {
        let apply = ApplyWebhook { webhook_id: None, batch_id: Some(batch) };
        queue::enqueue(conn, &NewJob::of(business, &apply)?).await?;
    }
    let told = |row: &store::NewWebhook| {
        if new.contains(&row.id) { Received::New(row.concerns.len()) } else { Received::Replayed }
    };
    Ok(rows.iter().map(told).collect())
}

/// Whose the numbers and accounts of some updates are.
pub(super) struct Owners(Vec<store::Owned>);

impl Owners {
    /// Of these updates.
    ///
    /// # Errors
    /// The database fails.
    pub(super) async fn find(
        conn: &mut PgConnection,
        updates: impl Iterator<Item = &webhook::Update>,
    ) -> Result<Self, Error> {
        let (mut numbers, mut wabas) = (BTreeSet::new(), BTreeSet::new());
        for update in updates {
            match &update.number {
                Some(number) => drop(numbers.insert(number.clone())),
                None if !update.waba.is_empty() => drop(wabas.insert(update.waba.clone())),
                None => {}
            }
        }
        if numbers.is_empty() && wabas.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let (numbers, wabas): (Vec<_>, Vec<_>) = (numbers.into_iter().collect(), wabas.into_iter().collect());
        Ok(Self(store::owners_of(conn, &numbers, &wabas).await?))
    }

    /// Whom an update tells something, if whoever signed it may tell it.
    pub(super) fn of(&self, update: &webhook::Update, signed_for: Option<BusinessId>) -> BTreeSet<BusinessId> {
        let about = |owned: &&store::Owned| match &update.number {
            Some(number) => owned.number == *number,
            None => !update.waba.is_empty() && owned.waba_id == update.waba,
        };
        let told = |owned: &store::Owned| signed_for.is_none_or(|signer| signer == owned.business);
        self.0.iter().filter(about).filter(|owned| told(owned)).map(|owned| owned.business).collect()
    }

    /// The numbers of a business that an update about an account concerns.
    pub(super) fn numbers_of<'a>(
        &'a self,
        update: &'a webhook::Update,
        business: BusinessId,
    ) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |owned| owned.business == business && owned.waba_id == update.waba)
            .map(|owned| owned.number.as_str())
    }
}
