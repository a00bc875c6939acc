//! What the evidence says about keys. Every event goes into the transaction that does what it tells of.

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Error, INSTALLATION, store::NewKey};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, words},
    outbound::Chance,
    people::BusinessId,
};

/// A root key that was made or first named.
pub struct RootMade<'a> {
    /// As [`crate::outbound::KeyManager::describe`] says.
    pub root: &'a str,
    /// Who did it.
    pub by: &'a Actor,
    /// When.
    pub now: DateTime<Utc>,
}

/// Writes down that a root key was made, in the caller's transaction: commit it once the key is there.
///
/// # Errors
/// The database fails.
pub async fn record_root(tx: &mut PgConnection, made: &RootMade<'_>, chance: &dyn Chance) -> Result<(), Error> {
    let root = root_word(made.root);
    let event = Event {
        event_id: EventId::new(chance, made.now),
        business_id: None,
        actor: made.by.clone(),
        verb: words::ROOT_MADE,
        object: Object { kind: "root", id: &root },
        details: json!({}),
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

/// Writes down that a key was made, and which one it replaces.
pub(super) async fn made(
    tx: &mut PgConnection,
    key: &NewKey<'_>,
    instead_of: Option<u32>,
    by: &Actor,
    chance: &dyn Chance,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(chance, key.now),
        business_id: owner(key.business),
        actor: by.clone(),
        verb: if instead_of.is_some() { words::KEY_REPLACED } else { words::KEY_MADE },
        object: Object { kind: "key", id: &key.key_id.to_string() },
        details: json!({
            "class": key.class,
            "column": key.purpose,
            "instead_of": instead_of,
            "wrapped_by": key.wrapped_by,
            "root": key.root.map(root_word),
        }),
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

/// A key that was handed from one root key to another.
pub(super) struct HandedOver<'a> {
    pub(super) business: BusinessId,
    pub(super) key_id: i64,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

/// Writes down that a business's key is wrapped by another root key from now on.
pub(super) async fn handed_over(
    tx: &mut PgConnection,
    key: &HandedOver<'_>,
    by: &Actor,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: owner(key.business),
        actor: by.clone(),
        verb: words::KEY_REWRAPPED,
        object: Object { kind: "key", id: &key.key_id.to_string() },
        details: json!({ "from": root_word(key.from), "to": root_word(key.to) }),
    };
    evidence::record(tx, &event).await?;
    Ok(())
}

fn owner(business: BusinessId) -> Option<BusinessId> {
    Some(business).filter(|business| *business != INSTALLATION)
}

/// A root key as one word of the log: as it is named, or the digest of a name that is no word.
fn root_word(root: &str) -> String {
    let is_word = (1..=100).contains(&root.len())
        && root.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte));
    if is_word { root.to_owned() } else { format!("sha256:{}", hex::encode(Sha256::digest(root.as_bytes()))) }
}

#[cfg(test)]
mod tests {
    use super::root_word;

    #[test]
    fn a_root_key_is_one_word_of_the_log() {
        let arn = "aws:arn:aws:kms:ap-south-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(root_word(arn), arn);
        assert!(root_word("azure:https://a b").starts_with("sha256:"));
        assert_eq!(root_word(&"x".repeat(400)).len(), 71);
    }
}
