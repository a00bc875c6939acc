use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::tree::{Hash, leaf_hash};

/// What begins the data of every leaf, so that it stands for nothing else.
const DOMAIN: &[u8] = b"muneem.evidence.v1";

/// What a leaf is made of: everything about an event but its body, of which it holds the digest. So the body may go
/// when the law's time is over, and number, instant, business and order stay proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The event.
    pub event_id: Uuid,
    /// Whose it is; none: the installation's.
    pub business_id: Option<Uuid>,
    /// Its number among those of the business, from 1.
    pub business_seq: u64,
    /// Hash of the business's leaf before; zeros for its first.
    pub previous: Hash,
    /// When it was written, to the microsecond.
    pub at: DateTime<Utc>,
    /// SHA-256 of its body.
    pub body_sha256: Hash,
}

impl Leaf {
    /// The RFC 6962 leaf hash; `muneem.evidence_seal` computes the same in the database.
    pub fn hash(&self) -> Hash {
        let mut data = Vec::with_capacity(130);
        data.extend_from_slice(DOMAIN);
        data.extend_from_slice(self.event_id.as_bytes());
        data.extend_from_slice(self.business_id.unwrap_or(Uuid::nil()).as_bytes());
        data.extend_from_slice(&self.business_seq.to_be_bytes());
        data.extend_from_slice(&self.previous);
        data.extend_from_slice(&self.at.timestamp_micros().to_be_bytes());
        data.extend_from_slice(&self.body_sha256);
        leaf_hash(&data)
    }
}
