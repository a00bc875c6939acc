//! How many codes may be asked for. The counts stand in Postgres, so that they hold over all machines.
//!
//! | what is counted | at once | then one every |
//! |---|---|---|
//! | one address | 1 | 30 s |
//! | one address | 5 | 12 min |
//! | one address | 10 | 2 h 24 min |
//! | a block of 100,000 Indian numbers | 30 | 20 s |
//! | who asks, as the business names her | 5 | 2 min |
//! | one token | 120 | 500 ms |
//! | codes of a business that nobody has proved | 300 | 1 s |
//!
//! The last two catch a flood over many numbers (traffic that is made for the fee of each message): a code that was
//! entered rightly is given back, so that a shop full of customers is not slowed and a machine that asks for numbers which
//! nobody holds is. All are the generic cell rate algorithm (ITU-T I.371).

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Error, store};
use crate::{
    messaging::wishes::{self, Contact},
    people::BusinessId,
    vault::{IndexColumn, Vault},
};

/// One sort of count.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bucket: &'static str,
    at_once: i32,
    then_every: TimeDelta,
}

const ADDRESS: [Limit; 3] = [
    Limit { bucket: "address_gap", at_once: 1, then_every: TimeDelta::seconds(30) },
    Limit { bucket: "address_hour", at_once: 5, then_every: TimeDelta::minutes(12) },
    Limit { bucket: "address_day", at_once: 10, then_every: TimeDelta::minutes(144) },
];
const BLOCK: Limit = Limit { bucket: "block", at_once: 30, then_every: TimeDelta::seconds(20) };
const ASKER: Limit = Limit { bucket: "asker", at_once: 5, then_every: TimeDelta::minutes(2) };
const TOKEN: Limit = Limit { bucket: "token", at_once: 120, then_every: TimeDelta::milliseconds(500) };
const UNPROVED: Limit = Limit { bucket: "unproved", at_once: 300, then_every: TimeDelta::seconds(1) };

/// Digits of a number that are not counted by themselves: +91 and ten digits make blocks of a hundred thousand.
const BLOCK_DIGITS: usize = 5;

/// Whose counts a request falls under.
pub(super) struct Counted<'a> {
    pub(super) business: BusinessId,
    pub(super) contacts: &'a [Contact],
    pub(super) asker: Option<&'a str>,
    /// Who calls, as she stands in the evidence.
    pub(super) caller: &'a str,
}

/// Takes one from every count, or nothing: [`Error::TooOften`] says when to come back; roll back then.
pub(super) async fn take(
    tx: &mut PgConnection,
    vault: &Vault,
    counted: &Counted<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut wanted: Vec<(Limit, Vec<u8>)> = Vec::new();
    for contact in counted.contacts {
        let mark = wishes::mark(tx, vault, counted.business, contact).await?;
        wanted.extend(ADDRESS.map(|limit| (limit, mark.clone())));
        if let Contact::Phone(phone) = contact {
            let number = phone.as_e164();
            let block = &number[..number.len().saturating_sub(BLOCK_DIGITS)];
            let column =
                IndexColumn { business_id: counted.business, table: "muneem.messaging_otp_limits", column: "key" };
            wanted.push((BLOCK, vault.index(tx, &column, block).await?.to_bytes()));
        }
    }
    if let Some(asker) = counted.asker {
        wanted.push((ASKER, Sha256::digest(asker).to_vec()));
    }
    wanted.push((TOKEN, Sha256::digest(counted.caller).to_vec()));
    wanted.push((UNPROVED, Vec::new()));
    // Everybody takes them in one order.
    wanted.sort_by(|(one, key), (other, beside)| (one.bucket, key).cmp(&(other.bucket, beside)));
    wanted.dedup_by(|(one, key), (other, beside)| one.bucket == other.bucket && key == beside);
    let buckets: Vec<_> = wanted.iter().map(|(limit, _)| limit.bucket.to_owned()).collect();
    let keys: Vec<_> = wanted.iter().map(|(_, key)| key.clone()).collect();
    let held = store::hold_limits(tx, counted.business, (&buckets, &keys), now).await?;
    let mut next = Vec::with_capacity(wanted.len());
    let mut wait = TimeDelta::zero();
    for (limit, key) in &wanted {
        let stands = held.iter().find(|one| one.bucket == limit.bucket && one.key == *key);
        let arrives_at = stands.map_or(now, |one| one.arrives_at.max(now)) + limit.then_every;
        wait = wait.max(arrives_at - now - limit.then_every * limit.at_once);
        next.push(arrives_at);
    }
    if wait > TimeDelta::zero() {
        return Err(Error::TooOften(wait));
    }
    store::set_limits(tx, counted.business, (&buckets, &keys, &next)).await
}

/// Gives back what a code took that was entered rightly.
pub(super) async fn give_back(tx: &mut PgConnection, business: BusinessId) -> Result<(), Error> {
    store::lower_limit(tx, business, UNPROVED.bucket, UNPROVED.then_every).await
}
