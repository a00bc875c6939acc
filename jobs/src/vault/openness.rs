//! Whether values can be sealed and opened, for those who watch.

use std::{sync::PoisonError, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{ASK_AGAIN, Vault};
use crate::outbound::KmsError;

/// Who watches waits no longer for the key service.
const PATIENCE: Duration = Duration::from_secs(3);

/// How the vault of this process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// The key service answers.
    Open,
    /// It does not; businesses whose keys this process has in memory are served until then, others are not.
    FromMemory {
        /// When the last of these keys goes.
        until: DateTime<Utc>,
        /// What is wrong with the key service.
        why: &'static str,
    },
    /// It does not, and no key is in memory: nothing is sealed or opened.
    Sealed {
        /// What is wrong with the key service.
        why: &'static str,
    },
}

impl Vault {
    /// How it stands. The key service is asked at most every thirty seconds, however many watch, and given three seconds
    /// to answer.
    pub async fn openness(&self) -> Openness {
        let mut heard = self.heard.lock().await;
        let now = self.clock.now();
        let trouble = match *heard {
            Some((at, trouble)) if (TimeDelta::zero()..ASK_AGAIN).contains(&(now - at)) => trouble,
            _ => {
                let answer = tokio::time::timeout(PATIENCE, self.kms.health()).await;
                let answer = answer.unwrap_or_else(|_| Err(KmsError::Unavailable("it took too long".to_owned())));
                let trouble = answer.err().map(|error| {
                    tracing::warn!(kms = self.kms.describe(), %error, "the key service gives no keys");
                    told(&error)
                });
                *heard = Some((now, trouble));
                trouble
            }
        };
        drop(heard);
        let Some(why) = trouble else { return Openness::Open };
        let rings = self.rings.read().unwrap_or_else(PoisonError::into_inner);
        match rings.values().map(|ring| ring.proved_at + self.settings.outage_max).max() {
            Some(until) if until > now => Openness::FromMemory { until, why },
            _ => Openness::Sealed { why },
        }
    }
}

/// For whoever may not read what the service said.
fn told(error: &KmsError) -> &'static str {
    match error {
        KmsError::Unavailable(_) => "the key service does not answer",
        KmsError::Throttled(_) => "the key service is asked too often",
        KmsError::Refused(_) => "the key service refuses",
        KmsError::KeyGone(_) => "the key service has no such key in use",
        KmsError::NotOurs => "the root key is another one",
    }
}
