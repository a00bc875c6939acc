//! Messaging: what is said to a person by WhatsApp and by mail, when, once, and what came of it.
//!
//! [`request`] writes a message into the caller's transaction. `messaging.send` uploads its file, commits an *attempt*
//! and only then posts it; `messaging.apply_webhook` writes what the carrier reports into the ledger;
//! `messaging.reconcile` finds out about attempts whose outcome nobody could tell, and ends what has expired. One is
//! planned with each message and with each attempt, in the same transaction: no message depends on the job that sends it.
//!
//! **Ways.** A person may be reached by several ways in an order ([`Recipient`]). Each that is taken has a message of its
//! own in the ledger, with its own states and attempts; together they are one delivery. `messaging.fall_back` takes the
//! next where one is lost, left out, or takes too long ([`FallBack`]).
//!
//! The carrier has no idempotency key. What makes sending *once* nevertheless: every POST has a committed row with a
//! reference of its own, the reference comes back in each webhook, and an attempt that may have been accepted is never
//! repeated before webhooks that do arrive have kept silent about it. Where a person's message is worth being sent
//! twice rather than never, a late sign of the first is recorded as a duplicate. States: [`State`].
//!
//! Mail is written, signed and read back in [`mail`]; to people it goes as a way of the ledger. To staff go codes to sign
//! in with and what happened to their access ([`send_code`], [`WarnStaff`]): `messaging.send_mail` records its attempt in
//! the same way, and one in doubt is not repeated.
//!
//! Carrier terms: Meta's Cloud API; error codes in [`crate::outbound::carrier::CODES`].

mod accounts;
mod answer;
mod apply_webhook;
pub mod campaign;
mod csv_list;
mod error;
mod fall_back;
mod fields;
mod health;
mod holds;
mod inbound;
mod intake;
mod ledger;
mod limits;
pub mod mail;
mod mail_store;
mod masked;
mod model;
pub mod otp;
mod quiet;
mod recipient;
mod reconcile;
mod request;
mod rules;
mod sealed;
mod send;
mod send_by_mail;
mod send_link;
mod send_mail;
mod staff;
#[cfg(test)]
mod staff_tests;
mod store;
pub mod template;
mod trail;
mod warn_staff;
mod webhook;
pub mod wishes;

use secrecy::SecretString;
use sqlx::PgConnection;

pub use accounts::{NewApp, list_accounts, list_credentials, set_account, set_app};
pub use answer::Reply;
pub use apply_webhook::ApplyWebhook;
pub use campaign::{Campaign, CampaignId};
pub use error::Error;
pub use fall_back::{FallBack, FallBackDue};
pub use health::{
    Alert, CheckSenders, ForgetPairs, Hold, SenderHealth, end_alert, list_health, release_hold, schedules,
};
pub use holds::Covers;
pub use intake::{Body, Received, receive_webhook, receive_webhooks};
pub use model::{
    Account, Attempt, AttemptOutcome, Credentials, DEFAULT_LIFE, Document, Event, FALLS_BACK_AFTER, MailId, Message,
    MessageClass, MessageId, NewMessage, Policy, Reference, Settings, State, Status, Timeline, WebhookId,
};
pub use quiet::{BadQuietHours, QuietHours};
pub use recipient::{Address, Recipient};
pub use reconcile::Reconcile;
use request::check_mail;
pub use request::{ask, kind_of, request};
pub use sealed::{INDEXED, SEALED};
pub use send::Send;
pub use send_link::SendLink;
pub use send_mail::SendMail;
pub use staff::{Desk, Way, send_code, way_to};
pub use template::{
    ApprovalLink, Category, Choice, Content, Free, Header, Language, Named, SignInCode, SignInWarning, TaxInvoice,
    Template,
};
pub use warn_staff::WarnStaff;
pub use webhook::{Inbound, Person, Preference, SignatureError, sign, signature_of, verify_signature, verify_token};

use crate::{
    people::{
        self, BusinessId, Decision,
        approval::{self, ApprovalId, Invitation},
        links::{Contact, Link},
    },
    vault::Vault,
};

/// What is said of a message that was still queued at its end.
const EXPIRED: &str = "expired before it could be sent";

/// The business with this handle, which writes on behalf of the installation, if it may carry what `asking` must not read:
/// it is another one, has a number to write from, and shares no WhatsApp Business Account with it.
///
/// # Errors
/// The database fails.
pub async fn find_carrier(
    conn: &mut PgConnection,
    handle: Option<&str>,
    asking: Option<BusinessId>,
) -> Result<Option<BusinessId>, Error> {
    let Some(handle) = handle else { return Ok(None) };
    let business = match people::load_business(conn, handle).await {
        Err(people::Error::NoSuchBusiness(_)) => return Ok(None),
        found => found.map_err(|error| Error::Staff(Box::new(error)))?,
    };
    if asking == Some(business.business_id) {
        return Ok(None);
    }
    let carries = store::list_accounts(conn, Some(business.business_id)).await?;
    let own = if asking.is_some() { store::list_accounts(conn, asking).await? } else { Vec::new() };
    let shared = carries.iter().any(|account| own.iter().any(|own| own.waba_id == account.waba_id));
    Ok(Some(business.business_id).filter(|_| !carries.is_empty() && !shared))
}

/// Invites somebody outside to one decision ([`approval::invite`]); `handle` is of the business that writes on behalf of
/// the installation. A number that the asking business itself sends from is nobody outside.
///
/// # Errors
/// As [`approval::invite`].
pub async fn invite_outside(
    conn: &mut PgConnection,
    vault: &Vault,
    approval_id: ApprovalId,
    (invitation, handle): (Invitation<'_>, Option<&str>),
    decision: &Decision<'_>,
) -> Result<(Link, SecretString), approval::Error> {
    let asking = approval::load(conn, approval_id, decision.by).await?.business_id;
    let unread = |error: Error| approval::Error::Numbers(Box::new(error));
    let own = match asking {
        Some(asking) => store::list_accounts(conn, Some(asking)).await.map_err(unread)?,
        None => Vec::new(),
    };
    if let Contact::Phone(phone) = invitation.contact
        && own.iter().any(|account| account.display_phone == *phone)
    {
        return Err(approval::Error::NotOutside);
    }
    let carrier = find_carrier(conn, handle, asking).await.map_err(unread)?;
    approval::invite(conn, vault, approval_id, &Invitation { carrier, ..invitation }, decision).await
}

/// One message, or nothing: also when it is not of this business. `None` sees those of all.
///
/// # Errors
/// When the database fails.
pub async fn find_message(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Option<Message>, Error> {
    store::find_message(conn, business, id).await
}

/// A page of a business's messages, or of all, newest first: those older than `before`, at most `limit` (1 to 1000).
///
/// # Errors
/// When the database fails.
pub async fn list_messages(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<MessageId>,
    limit: u16,
) -> Result<Vec<Message>, Error> {
    store::list_messages(conn, business, before, i64::from(limit.clamp(1, 1000))).await
}

/// A message with its attempts and statuses, or nothing; `business` as in [`find_message`].
///
/// # Errors
/// When the database fails.
pub async fn find_timeline(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: MessageId,
) -> Result<Option<Timeline>, Error> {
    let Some(message) = store::find_message(conn, business, id).await? else { return Ok(None) };
    let others = store::list_delivery(conn, (message.delivery_id, id)).await?;
    let attempts = store::list_attempts(conn, id).await?;
    let events = store::list_events(conn, business, id).await?;
    Ok(Some(Timeline { message, others, attempts, events }))
}
