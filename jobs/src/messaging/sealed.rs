//! What messaging seals, and the marks that stand for carrier ids.

use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{Content, Error, MessageId, WebhookId, store::Envelope};
use crate::{
    outbound::{Phone, Wamid},
    people::BusinessId,
    vault::{BlindIndex, Cell, Class, INSTALLATION, IndexColumn, Vault},
};

const MESSAGES: &str = "muneem.messaging_messages";
const WEBHOOKS: &str = "muneem.messaging_webhooks";

/// The personal columns of a message, as they are stored.
pub(super) struct Personal {
    pub(super) to: Vec<u8>,
    /// The last two digits, in clear.
    pub(super) ending: String,
    pub(super) params: Vec<u8>,
}

fn message_cell<'a>(business: BusinessId, column: &'a str, row: &'a str) -> Cell<'a> {
    Cell { business_id: business, table: MESSAGES, column, row }
}

/// Seals whom a message goes to and what it says.
pub(super) async fn seal_message(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    to: &Phone,
    content: &Content,
) -> Result<Personal, Error> {
    let row = id.to_string();
    let params = Zeroizing::new(serde_json::to_vec(content).expect("typed parameters are plain strings"));
    let cell = message_cell(business, "to_phone_sealed", &row);
    let sealed = vault.seal(&mut *conn, Class::Contact, &cell, to.as_e164().as_bytes()).await?;
    let cell = message_cell(business, "params_sealed", &row);
    let params = vault.seal(&mut *conn, Class::MessageBody, &cell, &params).await?;
    let ending = to.digits();
    Ok(Personal { to: sealed, ending: ending[ending.len().saturating_sub(2)..].to_owned(), params })
}

/// Opens whom a message goes to and what it says.
pub(super) async fn open_message(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    envelope: &Envelope,
) -> Result<(Phone, Content), Error> {
    let row = id.to_string();
    let to = vault.open(&mut *conn, &message_cell(business, "to_phone_sealed", &row), &envelope.to_sealed).await?;
    let to = std::str::from_utf8(&to).ok().and_then(|to| Phone::parse(to).ok());
    let cell = message_cell(business, "params_sealed", &row);
    let params = vault.open(&mut *conn, &cell, &envelope.params_sealed).await?;
    let content = serde_json::from_slice(&params).map_err(|_| Error::Unreadable(id, "parameters"))?;
    Ok((to.ok_or(Error::Unreadable(id, "recipient"))?, content))
}

fn webhook_cell(row: &str) -> Cell<'_> {
    Cell { business_id: INSTALLATION, table: WEBHOOKS, column: "body_sealed", row }
}

/// Seals a webhook body.
pub(super) async fn seal_webhook(
    conn: &mut PgConnection,
    vault: &Vault,
    id: WebhookId,
    body: &[u8],
) -> Result<Vec<u8>, Error> {
    Ok(vault.seal(conn, Class::MessageBody, &webhook_cell(&id.to_string()), body).await?)
}

/// Opens a webhook body.
pub(super) async fn open_webhook(
    conn: &mut PgConnection,
    vault: &Vault,
    id: WebhookId,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    Ok(vault.open(conn, &webhook_cell(&id.to_string()), sealed).await?)
}

/// Attempts and events share the index, so that one finds the other.
fn wamid_column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: "muneem.messaging_attempts", column: "wamid_mark" }
}

/// What is stored for a carrier's id.
pub(super) async fn mark(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    wamid: &Wamid,
) -> Result<Vec<u8>, Error> {
    Ok(bytes_of(&vault.index(conn, &wamid_column(business), wamid.as_str()).await?))
}

/// All that may be stored for a carrier's id while index keys change.
pub(super) async fn marks(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    wamid: &Wamid,
) -> Result<Vec<Vec<u8>>, Error> {
    let indexes = vault.indexes(conn, &wamid_column(business), wamid.as_str()).await?;
    Ok(indexes.iter().map(bytes_of).collect())
}

fn bytes_of(index: &BlindIndex) -> Vec<u8> {
    [&index.version.to_be_bytes()[..], &index.digest].concat()
}
