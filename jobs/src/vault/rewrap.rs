//! Handing the keys of businesses over from one root key to another: from a file to a key service, or between two.
//!
//! The key service that the vault works with wraps with the new root key and unwraps with both. Each key is unwrapped,
//! wrapped anew, opened once more from what is about to be stored, and only then put in the place of the old one, with
//! its event, in one transaction. What it wraps in turn does not change, so nothing is sealed anew and processes that
//! hold keys go on. Stopped at any point, it goes on where it was: a key is wrapped by the one root or by the other.

use chrono::SubsecRound;
use sqlx::Connection;
use subtle::ConstantTimeEq;

use super::{
    Error, Vault, store,
    trail::{self, HandedOver},
};
use crate::{
    evidence::Actor,
    outbound::{KmsError, kms::KeyContext},
    people::BusinessId,
};

/// Keys read at a time.
const PAGE: i64 = 100;

/// What came of handing keys over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rewrapped {
    /// The root key that wraps them now.
    pub root: String,
    /// Keys that were handed over.
    pub done: u64,
    /// Keys that neither root key opens: what they sealed is unreadable until the root key that wrapped them is back.
    pub unopened: Vec<i64>,
}

impl Vault {
    /// Wraps every business's key anew that another root key than the present one wraps. Can be repeated.
    ///
    /// # Errors
    /// [`Error::Sealed`] when a key service does not answer or refuses: what was handed over so far stays so, and
    /// another call goes on.
    pub async fn rewrap(&self, by: &Actor) -> Result<Rewrapped, Error> {
        let root = self.kms.describe();
        let mut outcome = Rewrapped { root: root.clone(), done: 0, unopened: Vec::new() };
        let mut after = 0;
        loop {
            let page = store::list_under_other_root(&mut *self.db.acquire().await?, &root, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(outcome) };
            after = last.key_id;
            for row in &page {
                match self.hand_over(row, &root, by).await {
                    Ok(handed) => outcome.done += u64::from(handed),
                    Err(Error::Sealed { source: KmsError::NotOurs, .. }) => outcome.unopened.push(row.key_id),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// False when somebody else handed it over meanwhile.
    async fn hand_over(&self, row: &store::RootRow, root: &str, by: &Actor) -> Result<bool, Error> {
        let now = self.clock.now().trunc_subsecs(6);
        let business = BusinessId(row.business_id);
        let sealed = |source| Error::Sealed { business_id: business, until: now + super::ASK_AGAIN, source };
        let key_id = u32::try_from(row.key_id).map_err(|_| sealed(KmsError::NotOurs))?;
        let context = KeyContext { business_id: row.business_id, key_id };
        let key = self.kms.unwrap(&context, &row.wrapped).await.map_err(sealed)?;
        let wrapped = self.kms.wrap(&context, &key).await.map_err(sealed)?;
        // The old wrapping is the only one there is: it goes when the new one has been seen to open.
        let back = self.kms.unwrap(&context, &wrapped).await.map_err(sealed)?;
        if !bool::from(back[..].ct_eq(&key[..])) {
            let why = "what it wrapped comes back as another key".to_owned();
            return Err(sealed(KmsError::Refused(why)));
        }
        let mut own = self.db.acquire().await?;
        let mut tx = own.begin().await?;
        if !store::replace_wrapping(&mut tx, row, root, &wrapped).await? {
            return Ok(false);
        }
        let handed = HandedOver { business, key_id: row.key_id, from: &row.root, to: root };
        trail::handed_over(&mut tx, &handed, by, now, &*self.chance).await?;
        tx.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
#[path = "rewrap_tests.rs"]
mod tests;
