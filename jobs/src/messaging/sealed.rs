//! What messaging seals, and the marks that stand for carrier ids.

use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{
    Content, Error, MessageId, WebhookId, mail, otp,
    recipient::{Address, Recipient},
    store::{Envelope, Letter},
    wishes,
};
use crate::{
    outbound::{Email, Phone, Wamid, carrier::NumberId},
    people::BusinessId,
    vault::{
        BlindIndex, Cell, Class, INSTALLATION, IndexColumn, IndexedColumn, Key, Owner, SealedColumn, Source, Vault,
        Version, as_it_stands,
    },
};

const MESSAGES: &str = "muneem.messaging_messages";
const WEBHOOKS: &str = "muneem.messaging_webhooks";
const ACCOUNTS: &str = "muneem.messaging_accounts";
const ACCOUNT_KEY: Key = Key { column: "phone_number_id", kind: "text" };
/// Messages and pairs share it, so that one finds the other.
const PERSON_INDEX: &str = "muneem.messaging_messages.to_mark";
/// Attempts and events share it, so that one finds the other.
const WAMID_INDEX: &str = "muneem.messaging_attempts.wamid_mark";

/// What this duty seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(MESSAGES, "to_phone_sealed", Key::uuid("message_id")),
    SealedColumn::of_row(MESSAGES, "to_email_sealed", Key::uuid("message_id")),
    SealedColumn::of_row(MESSAGES, "ways_sealed", Key::uuid("message_id")),
    SealedColumn::of_row(MESSAGES, "params_sealed", Key::uuid("message_id")),
    SealedColumn::of_row(WEBHOOKS, "body_sealed", Key::uuid("webhook_id")).of_installation(),
    SealedColumn::of_row(ACCOUNTS, "access_token_sealed", ACCOUNT_KEY),
    SealedColumn::of_row(ACCOUNTS, "app_secrets_sealed", ACCOUNT_KEY),
    SealedColumn::of_row(ACCOUNTS, "verify_token_sealed", ACCOUNT_KEY),
    SealedColumn::of_row("muneem.messaging_mails", "params_sealed", Key::uuid("mail_id")),
    wishes::SEALED[0],
    wishes::SEALED[1],
    otp::SEALED[0],
    mail::SEALED_IDENTITIES[0],
    mail::SEALED_IDENTITIES[1],
    mail::SEALED_IDENTITIES[2],
    mail::SEALED_REPORTS,
];

/// What this duty looks up. A carrier's id is kept nowhere, so its marks are not made anew.
pub const INDEXED: &[IndexedColumn] = &[
    IndexedColumn {
        table: MESSAGES,
        column: "to_mark",
        version: Version::Within,
        purpose: PERSON_INDEX,
        key: Key::uuid("message_id"),
        owner: Owner::Row,
        source: Source::Sealed { column: "to_phone_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: "muneem.messaging_pairs",
        column: "person_mark",
        version: Version::Within,
        purpose: PERSON_INDEX,
        key: Key { column: "phone_number_id", kind: "text" },
        owner: Owner::Row,
        source: Source::Gone,
    },
    IndexedColumn {
        table: "muneem.messaging_attempts",
        column: "wamid_mark",
        version: Version::Within,
        purpose: WAMID_INDEX,
        key: Key::uuid("message_id"),
        owner: Owner::Unsaid,
        source: Source::Gone,
    },
    IndexedColumn {
        table: "muneem.messaging_events",
        column: "wamid_mark",
        version: Version::Within,
        purpose: WAMID_INDEX,
        key: Key::uuid("event_id"),
        owner: Owner::Row,
        source: Source::Gone,
    },
    wishes::INDEXED[0],
    wishes::INDEXED[1],
    wishes::INDEXED[2],
    otp::INDEXED[0],
    otp::INDEXED[1],
    otp::INDEXED[2],
];

/// The personal columns of a message, as they are stored.
pub(super) struct Personal {
    pub(super) phone: Option<Vec<u8>>,
    /// The number's last two digits, in clear.
    pub(super) ending: Option<String>,
    /// Blind index of the number.
    pub(super) mark: Option<Vec<u8>>,
    pub(super) email: Option<Vec<u8>>,
    pub(super) params: Vec<u8>,
    /// All ways to her, where there are several.
    pub(super) ways: Option<Vec<u8>>,
}

fn message_cell<'a>(business: BusinessId, column: &'a str, row: &'a str) -> Cell<'a> {
    Cell { business_id: business, table: MESSAGES, column, row }
}

/// Seals whom a message goes to by the way of this place, and what it says.
pub(super) async fn seal_message(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    (to, way): (&Recipient, usize),
    content: &Content,
) -> Result<Personal, Error> {
    let row = id.to_string();
    let params = Zeroizing::new(serde_json::to_vec(content).expect("typed parameters are plain strings"));
    let cell = message_cell(business, "params_sealed", &row);
    let params = vault.seal(&mut *conn, Class::MessageBody, &cell, &params).await?;
    let mut personal = Personal { phone: None, ending: None, mark: None, email: None, params, ways: None };
    match to.ways().get(way).ok_or(Error::Unreadable(id, "way"))? {
        Address::Phone(phone) => {
            let cell = message_cell(business, "to_phone_sealed", &row);
            let sealed = vault.seal(&mut *conn, Class::Contact, &cell, phone.as_e164().as_bytes()).await?;
            let digits = phone.digits();
            personal.phone = Some(sealed);
            personal.ending = Some(digits[digits.len().saturating_sub(2)..].to_owned());
            personal.mark = Some(person(&mut *conn, vault, business, phone).await?);
        }
        Address::Email(email) => {
            let cell = message_cell(business, "to_email_sealed", &row);
            let sealed = vault.seal(&mut *conn, Class::Contact, &cell, email.expose().as_bytes()).await?;
            personal.email = Some(sealed);
        }
    }
    if to.ways().len() > 1 {
        let kept = Zeroizing::new(to.kept());
        let cell = message_cell(business, "ways_sealed", &row);
        personal.ways = Some(vault.seal(conn, Class::Contact, &cell, &kept).await?);
    }
    Ok(personal)
}

/// Opens all ways to whom a message goes; nothing where it is the only one.
pub(super) async fn open_ways(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    sealed: Option<&[u8]>,
) -> Result<Option<Recipient>, Error> {
    let Some(sealed) = sealed else { return Ok(None) };
    let row = id.to_string();
    let kept = vault.open(conn, &message_cell(business, "ways_sealed", &row), sealed).await?;
    Recipient::read(id, &kept).map(Some)
}

/// Opens what a message says.
pub(super) async fn open_content(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    sealed: &[u8],
) -> Result<Content, Error> {
    let row = id.to_string();
    let params = vault.open(conn, &message_cell(business, "params_sealed", &row), sealed).await?;
    serde_json::from_slice(&params).map_err(|_| Error::Unreadable(id, "parameters"))
}

/// Opens whom a mail goes to.
pub(super) async fn open_letter(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    letter: &Letter,
) -> Result<Email, Error> {
    let row = id.to_string();
    let to = vault.open(conn, &message_cell(business, "to_email_sealed", &row), &letter.to_sealed).await?;
    let to = std::str::from_utf8(&to).ok().and_then(|to| Email::parse(to).ok());
    to.ok_or(Error::Unreadable(id, "recipient"))
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
    let content = open_content(conn, vault, (business, id), &envelope.params_sealed).await?;
    Ok((to.ok_or(Error::Unreadable(id, "recipient"))?, content))
}

/// Opens whom a message goes to, and no more of it.
pub(super) async fn open_phone(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, MessageId),
    sealed: &[u8],
) -> Result<Phone, Error> {
    let row = id.to_string();
    let to = vault.open(conn, &message_cell(business, "to_phone_sealed", &row), sealed).await?;
    let to = std::str::from_utf8(&to).ok().and_then(|to| Phone::parse(to).ok());
    to.ok_or(Error::Unreadable(id, "recipient"))
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

fn person_column(business: BusinessId) -> IndexColumn<'static> {
    IndexColumn { business_id: business, table: MESSAGES, column: "to_mark" }
}

/// What is stored for a person's number.
pub(super) async fn person(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    phone: &Phone,
) -> Result<Vec<u8>, Error> {
    Ok(vault.index(conn, &person_column(business), phone.as_e164()).await?.to_bytes())
}

/// All that may be stored for a person's number while index keys change.
pub(super) async fn persons(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    phone: &Phone,
) -> Result<Vec<Vec<u8>>, Error> {
    let indexes = vault.indexes(conn, &person_column(business), phone.as_e164()).await?;
    Ok(indexes.iter().map(BlindIndex::to_bytes).collect())
}

/// A secret of the app behind a number: `column` is one of the sealed ones of its row.
pub(super) async fn seal_secret(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, number, column): (BusinessId, &NumberId, &str),
    secret: &[u8],
) -> Result<Vec<u8>, Error> {
    let cell = Cell { business_id: business, table: ACCOUNTS, column, row: number.as_str() };
    Ok(vault.seal(conn, Class::Credential, &cell, secret).await?)
}

/// Opens such a secret.
pub(super) async fn open_secret(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, number, column): (BusinessId, &NumberId, &str),
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let cell = Cell { business_id: business, table: ACCOUNTS, column, row: number.as_str() };
    Ok(vault.open(conn, &cell, sealed).await?)
}

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
    Ok(vault.index(conn, &wamid_column(business), wamid.as_str()).await?.to_bytes())
}

/// Lets nobody else keep an event of the same carrier's id until the transaction ends, while index keys change.
pub(super) async fn hold_wamid(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    wamid: &Wamid,
) -> Result<(), Error> {
    Ok(vault.hold_equal(conn, &wamid_column(business), wamid.as_str(), "").await?)
}

/// All that may be stored for a carrier's id while index keys change.
pub(super) async fn marks(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    wamid: &Wamid,
) -> Result<Vec<Vec<u8>>, Error> {
    let indexes = vault.indexes(conn, &wamid_column(business), wamid.as_str()).await?;
    Ok(indexes.iter().map(BlindIndex::to_bytes).collect())
}
