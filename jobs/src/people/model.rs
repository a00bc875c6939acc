use std::{fmt, net::IpAddr, str::FromStr};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{BusinessId, Error, StaffId, support::GrantId, token::Minted};
use crate::vault::INSTALLATION;

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

/// Most networks on a token's list.
const NETWORKS_MAX: usize = 64;

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

/// Declares every scope once: its name in the program, its name in rows and flags, what it lets somebody do.
macro_rules! scopes {
    ($(#[doc = $doc:literal] $name:ident $text:literal;)*) => {
        /// One thing a token or a role may do: a verb on a resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Scope {
            $(#[doc = $doc] $name,)*
        }

        impl Scope {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it stands in rows, flags and problems: `<resource>:<verb>`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it lets somebody do, for people: "See jobs, their states and causes".
            pub fn words(self) -> &'static str {
                let words = match self { $(Self::$name => $doc,)* };
                words.trim().trim_end_matches('.')
            }
        }
    };
}

scopes! {
    /// See jobs, their states and causes.
    QueueRead "queue:read";
    /// Enqueue, cancel and retry jobs.
    QueueWrite "queue:write";
    /// See schedules.
    ScheduleRead "schedule:read";
    /// Pause, resume and trigger schedules.
    ScheduleWrite "schedule:write";
    /// See which invoices there are, their amounts and states.
    InvoiceRead "invoice:read";
    /// Fetch the document itself, with the buyer's name and address.
    InvoiceOpen "invoice:open";
    /// See messages and what came of them.
    MessagingRead "messaging:read";
    /// Send messages to people.
    MessagingSend "messaging:send";
    /// See how the numbers that messages come from stand with the carrier.
    SendersRead "senders:read";
    /// Release what is held, and put alerts away.
    SendersWrite "senders:write";
    /// See whom webhooks go to and what came of them, without addresses and contents.
    WebhooksRead "webhooks:read";
    /// Add, change and remove endpoints of webhooks, replace their secrets, tell them again.
    WebhooksWrite "webhooks:write";
    /// See what one person said about messages.
    ConsentRead "consent:read";
    /// Record consents, their withdrawal and reasons not to write.
    ConsentWrite "consent:write";
    /// Ask whether contacts may be written to.
    ConsentCheck "consent:check";
    /// Fill campaigns, estimate, preview and test them, let them go out.
    CampaignWrite "campaign:write";
    /// Hold campaigns and end them.
    CampaignStop "campaign:stop";
    /// Send one-time codes and enter them.
    OtpUse "otp:use";
    /// See the profile of a business.
    BusinessRead "business:read";
    /// Change the profile of a business.
    BusinessWrite "business:write";
    /// See who works for a business and in which roles.
    StaffRead "staff:read";
    /// Add and remove people, grant and withdraw roles.
    StaffWrite "staff:write";
    /// See tokens, without their secrets.
    TokenRead "token:read";
    /// Make and revoke tokens.
    TokenWrite "token:write";
    /// Let support in for a time, and send it away.
    SupportGrant "support:grant";
    /// See decisions that take a second person, without what their plans say.
    ApprovalRead "approval:read";
    /// Invite somebody outside to one decision, and withdraw decisions.
    ApprovalInvite "approval:invite";
    /// Seal values.
    VaultSeal "vault:seal";
    /// Find rows by the blind index of a value.
    VaultFind "vault:find";
    /// Open sealed values: plaintext.
    VaultOpen "vault:open";
    /// See keys, their states and the progress of a rotation.
    KeysRead "keys:read";
    /// Rotate and retire keys.
    KeysWrite "keys:write";
    /// Say yes to a change of keys.
    KeysApprove "keys:approve";
    /// See the evidence.
    EvidenceRead "evidence:read";
    /// Take the evidence away as a bundle.
    EvidenceExport "evidence:export";
    /// See requests of Data Principals.
    RightsRead "rights:read";
    /// Work on requests of Data Principals.
    RightsWrite "rights:write";
    /// Say yes to a plan of erasure.
    RightsApprove "rights:approve";
    /// Say yes to a disposal of records.
    RetentionApprove "retention:approve";
    /// See incidents.
    BreachRead "breach:read";
    /// Work on incidents.
    BreachWrite "breach:write";
    /// Say yes to an intimation.
    BreachApprove "breach:approve";
    /// Send an intimation that was approved.
    BreachSend "breach:send";
}

impl Scope {
    /// What it lets somebody do to the resource: `read`, `write`, `open`.
    pub fn verb(self) -> &'static str {
        self.as_str().split_once(':').map_or("", |(_, verb)| verb)
    }

    /// What it is about: `invoice`.
    pub fn resource(self) -> &'static str {
        self.as_str().split_once(':').map_or("", |(resource, _)| resource)
    }

    /// Whether only a person may have it, never a token: who approves, asks
    /// somebody outside, or lets support in, must be somebody.
    pub fn is_for_people_alone(self) -> bool {
        self.verb() == "approve" || matches!(self, Self::SupportGrant | Self::ApprovalInvite)
    }

    /// All names, for people.
    pub(super) fn list() -> String {
        Self::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ")
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
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| Error::NoSuchScope(text.to_owned()))
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
    /// The person it was made for, with whom it ends; `None`: a machine.
    pub staff_id: Option<StaffId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty: anywhere.
    #[serde(serialize_with = "as_text")]
    pub networks: Vec<IpNet>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it last opened something, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was ended.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was first seen in the query of a URL, where logs keep it: replace it.
    pub exposed_at: Option<DateTime<Utc>>,
    /// The grant to support that it stands on, and ends with.
    pub support_grant_id: Option<GrantId>,
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

    /// Whether it may be used from this address; one with a list may not be used from nowhere.
    pub(super) fn opens_from(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| {
                let address = address.to_canonical();
                self.networks.iter().any(|network| network.contains(&address))
            })
    }
}

fn as_text<S: serde::Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}

/// One network of a token's list: `203.0.113.0/24`, or a single address.
///
/// # Errors
/// [`Error::BadNetwork`]
pub fn read_network(text: &str) -> Result<IpNet, Error> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| Error::BadNetwork(text.chars().take(80).collect()))
}

/// What a token is made from.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who or what will hold it.
    pub label: String,
    /// The one business it may see; `None`: all.
    pub business_id: Option<BusinessId>,
    /// The person it is for; `None`: a machine.
    pub staff_id: Option<StaffId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl NewToken {
    /// For whoever runs this installation: everything that a token may do, for all businesses.
    pub fn bootstrap() -> Self {
        let scopes = Scope::ALL.iter().copied().filter(|scope| !scope.is_for_people_alone()).collect();
        Self {
            label: "bootstrap".to_owned(),
            business_id: None,
            staff_id: None,
            scopes,
            networks: Vec::new(),
            expires_at: None,
        }
    }

    pub(super) fn checked(self, now: DateTime<Utc>, minted: Minted) -> Result<(Token, Minted), Error> {
        let label = self.label.trim().to_owned();
        if label.is_empty() || label.chars().count() > 100 {
            return Err(Error::BadLabel);
        }
        if self.scopes.is_empty() {
            return Err(Error::NoScopes);
        }
        if let Some(scope) = self.scopes.iter().find(|scope| scope.is_for_people_alone()) {
            return Err(Error::ForPeopleAlone(*scope));
        }
        if self.networks.len() > NETWORKS_MAX {
            return Err(Error::TooManyNetworks);
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
            staff_id: self.staff_id,
            scopes,
            networks: self.networks,
            created_at: now,
            expires_at: self.expires_at,
            last_used_at: None,
            revoked_at: None,
            exposed_at: None,
            support_grant_id: None,
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
    /// The person it was made for; `None`: a machine.
    pub staff_id: Option<StaffId>,
    /// The grant that support looks in by: each of its requests goes on record first ([`super::support::note_look`]).
    pub support: Option<GrantId>,
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
    /// It may not be used from where it was.
    #[error("the token may not be used from this address")]
    Elsewhere,
    /// The database could not say.
    #[error("could not look up the token")]
    Database(#[from] Error),
}

/// One POST under an idempotency key. Only digests: neither keys nor bodies are kept.
#[derive(Clone, Debug)]
pub struct Request {
    /// The token that sent it.
    pub token_id: String,
    /// Whose keys seal the answer: the business of the token, or the installation.
    pub(super) sealed_for: BusinessId,
    pub(super) key_sha256: Vec<u8>,
    pub(super) request_sha256: Vec<u8>,
}

impl Request {
    /// A request of `caller` to `target` (method, path and query) with `body`, under `key`.
    pub fn new(caller: &Caller, key: &str, target: &str, body: &[u8]) -> Self {
        // The key, of which only a digest is kept, goes in too: a body may have little in it that cannot be guessed.
        let request = Sha256::new_with_prefix(key).chain_update([0]).chain_update(target).chain_update([0]);
        let request = request.chain_update(body).finalize();
        Self {
            token_id: caller.token_id.clone(),
            sealed_for: caller.business.unwrap_or(INSTALLATION),
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
    fn a_network_is_an_address_or_a_block() {
        for (text, read) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(read_network(text).expect("a network").to_string(), read);
        }
        for text in ["", "203.0.113", "203.0.113.7/33", "any"] {
            assert!(matches!(read_network(text), Err(Error::BadNetwork(_))), "{text}");
        }
    }

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
