use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{BusinessId, Error, token::Minted};

/// A Data Fiduciary whose records are kept here.
#[derive(Clone, Debug, Serialize)]
pub struct Business {
    /// Its id.
    pub business_id: BusinessId,
    /// The short name that frontends and commands use.
    pub handle: String,
    /// The name of the registration.
    pub legal_name: String,
    /// When it came here.
    pub created_at: DateTime<Utc>,
}

/// The form that the database demands too: `sharma-mobiles`.
pub(super) fn checked_handle(handle: &str) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let hyphens_single = handle.split('-').all(|part| !part.is_empty() && part.chars().all(plain));
    let letters = handle.chars().filter(|&c| c != '-').count();
    if hyphens_single && (2..=63).contains(&letters) && handle.len() <= 63 {
        Ok(handle.to_owned())
    } else {
        Err(Error::BadHandle(handle.chars().take(80).collect()))
    }
}

pub(super) fn checked_legal_name(name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() { Err(Error::EmptyLegalName) } else { Ok(name.to_owned()) }
}

/// One thing a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See jobs, their states and causes.
    QueueRead,
    /// Enqueue, cancel and retry jobs.
    QueueWrite,
    /// See schedules.
    ScheduleRead,
    /// Pause, resume and trigger schedules.
    ScheduleWrite,
    /// See invoices and their PDFs.
    InvoiceRead,
    /// See messages and what came of them.
    MessagingRead,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::QueueRead,
        Self::QueueWrite,
        Self::ScheduleRead,
        Self::ScheduleWrite,
        Self::InvoiceRead,
        Self::MessagingRead,
    ];

    /// As it stands in rows, flags and problems.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueRead => "queue:read",
            Self::QueueWrite => "queue:write",
            Self::ScheduleRead => "schedule:read",
            Self::ScheduleWrite => "schedule:write",
            Self::InvoiceRead => "invoice:read",
            Self::MessagingRead => "messaging:read",
        }
    }

    /// All names, for people.
    pub(super) fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| Error::NoSuchScope(text.to_owned()))
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A bearer token without its secret.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// Stands in the token in clear.
    pub public_id: String,
    /// Who or what holds it.
    pub label: String,
    /// The one business it may see; `None`: all.
    pub business_id: Option<BusinessId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it last opened something, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was ended.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Whether it opens anything at `now`.
    pub fn is_usable(&self, now: DateTime<Utc>) -> bool {
        self.refusal(now).is_none()
    }

    pub(super) fn refusal(&self, now: DateTime<Utc>) -> Option<Refusal> {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => Some(Refusal::Revoked),
            (None, Some(expires_at)) if expires_at <= now => Some(Refusal::Expired),
            _ => None,
        }
    }
}

/// What a token is made from.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who or what will hold it.
    pub label: String,
    /// The one business it may see; `None`: all.
    pub business_id: Option<BusinessId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl NewToken {
    /// For whoever runs this installation: everything, for all businesses.
    pub fn bootstrap() -> Self {
        Self { label: "bootstrap".to_owned(), business_id: None, scopes: Scope::ALL.to_vec(), expires_at: None }
    }

    pub(super) fn checked(self, now: DateTime<Utc>, minted: Minted) -> Result<(Token, Minted), Error> {
        let label = self.label.trim().to_owned();
        if label.is_empty() || label.chars().count() > 100 {
            return Err(Error::BadLabel);
        }
        if self.scopes.is_empty() {
            return Err(Error::NoScopes);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(Error::ExpiresInPast);
        }
        let mut scopes = self.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let token = Token {
            public_id: minted.public_id.clone(),
            label,
            business_id: self.business_id,
            scopes,
            created_at: now,
            expires_at: self.expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        Ok((token, minted))
    }
}

/// Who speaks, after [`super::authenticate`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// The public id of the token.
    pub token_id: String,
    /// The one business it may see; `None`: all.
    pub business: Option<BusinessId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// Why a token opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such token, or another secret.
    #[error("no such token")]
    Unknown,
    /// It has ended by itself.
    #[error("the token has expired")]
    Expired,
    /// It was ended.
    #[error("the token was revoked")]
    Revoked,
    /// The database could not say.
    #[error("could not look up the token")]
    Database(#[from] Error),
}

/// One POST under an idempotency key. Only digests: neither keys nor bodies are kept.
#[derive(Clone, Debug)]
pub struct Request {
    /// The token that sent it.
    pub token_id: String,
    pub(super) key_sha256: Vec<u8>,
    pub(super) request_sha256: Vec<u8>,
}

impl Request {
    /// A request to `target` (method, path and query) with `body`, under `key`.
    pub fn new(token_id: &str, key: &str, target: &str, body: &[u8]) -> Self {
        let request = Sha256::new().chain_update(target).chain_update([0]).chain_update(body).finalize();
        Self {
            token_id: token_id.to_owned(),
            key_sha256: Sha256::digest(key).to_vec(),
            request_sha256: request.to_vec(),
        }
    }
}

/// What was answered to a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: String,
}

/// Where an idempotency key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it: it is ours until the transaction ends.
    Ours,
    /// A request under the same key is under way.
    InFlight,
    /// It was answered.
    Answered(Answer),
    /// It was answered, but to another request.
    OtherRequest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_small_letters_digits_and_single_hyphens() {
        for good in ["ab", "sharma-mobiles", "a-1", "9x", &"a".repeat(63)] {
            assert!(checked_handle(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "a-", "a--b", "Sharma", "शर्मा", "a b", "a_b", &"a".repeat(64), &"a-".repeat(40)]
        {
            assert!(checked_handle(bad).is_err(), "{bad}");
        }
    }
}
