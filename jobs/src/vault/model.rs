use uuid::Uuid;

use crate::people::BusinessId;

/// The installation itself, for what belongs to no business: secrets of the platform's own staff.
pub const INSTALLATION: BusinessId = BusinessId(Uuid::nil());

/// What kind of value is sealed: each class of a business has a key of its own, so that one may be rotated, or refused
/// to a service, without the others.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Phone, e-mail, name, address.
    Contact,
    /// GSTIN, PAN.
    TaxId,
    /// Token of a card or account at a payment service; never a card number.
    PaymentToken,
    /// What was written to or by somebody.
    MessageBody,
    /// Payload of a job.
    Payload,
    /// A document or file.
    Document,
    /// A secret somebody signs in with.
    Credential,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 7] = [
        Self::Contact,
        Self::TaxId,
        Self::PaymentToken,
        Self::MessageBody,
        Self::Payload,
        Self::Document,
        Self::Credential,
    ];

    /// As it stands in the table, in HTTP and in commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::TaxId => "tax_id",
            Self::PaymentToken => "payment_token",
            Self::MessageBody => "message_body",
            Self::Payload => "payload",
            Self::Document => "document",
            Self::Credential => "credential",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|class| class.as_str()).collect();
            format!("no class `{text}`: take {}", known.join(", "))
        })
    }
}

/// A key as people see it: all but the key.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KeyInfo {
    /// As it stands in every value it sealed.
    pub key_id: i64,
    /// Handle of the business; none: the installation's own.
    pub business: Option<String>,
    /// `business`, `index`, or a [`Class`].
    pub class: String,
    /// The column of an index key, else empty.
    pub purpose: String,
    /// Of an index key.
    pub version: i16,
    /// `pending`, `active`, `decrypt_only` or `retired`.
    pub state: String,
    /// Which root key wraps it; none: a business key does.
    pub root: Option<String>,
    /// Values it may have sealed, counted in blocks.
    pub uses: i64,
    /// When it was made.
    pub created_at: chrono::DateTime<chrono::Utc>,
    /// When its state last changed.
    pub changed_at: chrono::DateTime<chrono::Utc>,
    /// Since when no value and no other key refers to it.
    pub cleared_at: Option<chrono::DateTime<chrono::Utc>>,
}

/// Where a sealed value stands. It opens there and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// Whose it is; [`INSTALLATION`] for what is nobody's.
    pub business_id: BusinessId,
    /// `schema.table`
    pub table: &'a str,
    /// The column's name.
    pub column: &'a str,
    /// The row's primary key as text.
    pub row: &'a str,
}

impl Cell<'_> {
    /// `schema.table.column`
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

/// A column that is looked up by the whole value.
#[derive(Clone, Copy, Debug)]
pub struct IndexColumn<'a> {
    /// Whose values.
    pub business_id: BusinessId,
    /// `schema.table`
    pub table: &'a str,
    /// The column's name.
    pub column: &'a str,
}

impl IndexColumn<'_> {
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

/// A value's fingerprint under an index key: equal values of one column and business have equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindIndex {
    /// HMAC-SHA-256, its first half.
    pub digest: [u8; 16],
    /// Of the index key; stored beside the digest.
    pub version: i16,
}

impl BlindIndex {
    /// Both in one column: two bytes of the version, then the digest.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.version.to_be_bytes()[..], &self.digest].concat()
    }
}
