//! What webhooks seal: addresses, which often hold secrets, what somebody wrote about a receiver, the secrets that sign,
//! and what receivers are told.

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{EndpointId, Error, EventId, SecretId};
use crate::{
    people::BusinessId,
    vault::{Cell, Class, Key, SealedColumn, Vault},
};

const ENDPOINTS: &str = "muneem.webhooks_endpoints";
const SECRETS: &str = "muneem.webhooks_secrets";
const EVENTS: &str = "muneem.webhooks_events";

/// What this duty seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(ENDPOINTS, "url_sealed", Key::uuid("endpoint_id")),
    SealedColumn::of_row(ENDPOINTS, "description_sealed", Key::uuid("endpoint_id")),
    SealedColumn::of_row(SECRETS, "secret_sealed", Key::uuid("secret_id")),
    SealedColumn::of_row(EVENTS, "body_sealed", Key::uuid("event_id")),
];

/// A text of an endpoint's row.
#[derive(Clone, Copy)]
pub(super) enum Text {
    Url,
    Description,
}

impl Text {
    const fn place(self) -> (Class, &'static str) {
        match self {
            Self::Url => (Class::Credential, "url_sealed"),
            Self::Description => (Class::MessageBody, "description_sealed"),
        }
    }
}

pub(super) async fn seal_text(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id): (BusinessId, EndpointId),
    text: Text,
    plain: &str,
) -> Result<Vec<u8>, Error> {
    let (class, column) = text.place();
    let row = id.to_string();
    let cell = Cell { business_id, table: ENDPOINTS, column, row: &row };
    Ok(vault.seal(conn, class, &cell, plain.as_bytes()).await?)
}

pub(super) async fn open_text(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id): (BusinessId, EndpointId),
    text: Text,
    sealed: &[u8],
) -> Result<Zeroizing<String>, Error> {
    let (_, column) = text.place();
    let row = id.to_string();
    let cell = Cell { business_id, table: ENDPOINTS, column, row: &row };
    let plain = vault.open(conn, &cell, sealed).await?;
    let plain = std::str::from_utf8(&plain).map_err(|_| Error::Unreadable(id, column))?;
    Ok(Zeroizing::new(plain.to_owned()))
}

pub(super) async fn seal_secret(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id): (BusinessId, SecretId),
    secret: &SecretString,
) -> Result<Vec<u8>, Error> {
    let row = id.to_string();
    let cell = Cell { business_id, table: SECRETS, column: "secret_sealed", row: &row };
    Ok(vault.seal(conn, Class::Credential, &cell, secret.expose_secret().as_bytes()).await?)
}

pub(super) async fn open_secret(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id, endpoint): (BusinessId, SecretId, EndpointId),
    sealed: &[u8],
) -> Result<SecretString, Error> {
    let row = id.to_string();
    let cell = Cell { business_id, table: SECRETS, column: "secret_sealed", row: &row };
    let plain = vault.open(conn, &cell, sealed).await?;
    let plain = std::str::from_utf8(&plain).map_err(|_| Error::Unreadable(endpoint, "secret"))?;
    Ok(SecretString::from(plain))
}

pub(super) async fn seal_body(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id): (BusinessId, EventId),
    body: &[u8],
) -> Result<Vec<u8>, Error> {
    let row = id.0.to_string();
    let cell = Cell { business_id, table: EVENTS, column: "body_sealed", row: &row };
    Ok(vault.seal(conn, Class::MessageBody, &cell, body).await?)
}

pub(super) async fn open_body(
    conn: &mut PgConnection,
    vault: &Vault,
    (business_id, id): (BusinessId, EventId),
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let row = id.0.to_string();
    let cell = Cell { business_id, table: EVENTS, column: "body_sealed", row: &row };
    Ok(vault.open(conn, &cell, sealed).await?)
}
