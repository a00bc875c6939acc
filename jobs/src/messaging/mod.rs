//! Messaging: what is said to a person on WhatsApp, when, once, and what came of it.
//!
//! [`request`] writes a message into the caller's transaction. `messaging.send` uploads its file, commits an *attempt*
//! and only then posts it; `messaging.apply_webhook` writes what the carrier reports into the ledger;
//! `messaging.reconcile` finds out about attempts whose outcome nobody could tell, and ends what has expired. One is
//! planned with each message and with each attempt, in the same transaction: no message depends on the job that sends it.
//!
//! The carrier has no idempotency key. What makes sending *once* nevertheless: every POST has a committed row with a
//! reference of its own, the reference comes back in each webhook, and an attempt that may have been accepted is never
//! repeated before webhooks that do arrive have kept silent about it. Where a person's message is worth being sent
//! twice rather than never, a late sign of the first is recorded as a duplicate. States: [`State`].
//!
//! Mail is written, signed and read back in [`mail`]. To staff go codes to sign in with and what happened to their
//! access ([`send_code`], [`WarnStaff`]): `messaging.send_mail` records its attempt in the same way, and one in doubt is
//! not repeated.
//!
//! Carrier terms: Meta's Cloud API; error codes in [`crate::outbound::carrier::CODES`].

mod accounts;
mod apply_webhook;
pub mod campaign;
mod csv_list;
mod error;
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
mod reconcile;
mod rules;
mod sealed;
mod send;
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
pub use apply_webhook::ApplyWebhook;
pub use campaign::{Campaign, CampaignId};
pub use error::Error;
pub use health::{
    Alert, CheckSenders, ForgetPairs, Hold, SenderHealth, end_alert, list_health, release_hold, schedules,
};
pub use holds::Covers;
pub use intake::{Body, Received, receive_webhook, receive_webhooks};
pub use model::{
    Account, Attempt, AttemptOutcome, Credentials, DEFAULT_LIFE, Document, Event, MailId, Message, MessageClass,
    MessageId, NewMessage, Policy, Reference, Settings, State, Status, Timeline, WebhookId,
};
pub use reconcile::Reconcile;
pub use sealed::{INDEXED, SEALED};
pub use send::Send;
pub use send_link::SendLink;
pub use send_mail::SendMail;
pub use staff::{Desk, Way, send_code, way_to};
pub use template::{
    ApprovalLink, Category, Content, Header, Language, Named, SignInCode, SignInWarning, TaxInvoice, Template,
};
pub use warn_staff::WarnStaff;
pub use webhook::{Inbound, Person, Preference, SignatureError, sign, verify_signature, verify_token};

use crate::{
    outbound::{Chance, Clock},
    people::{
        self, BusinessId, Decision,
        approval::{self, ApprovalId, Invitation},
        links::{Contact, Link},
    },
    queue::{self, NewJob},
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

/// Asks for a message, in the caller's transaction: the row and the job that sends it appear on commit or not at all.
///
/// # Errors
/// [`Error::NoAccount`], [`Error::BadParameter`], [`Error::BadDocument`], [`Error::Vault`]: nothing was written.
pub async fn request(
    conn: &mut PgConnection,
    vault: &Vault,
    clock: &dyn Clock,
    chance: &dyn Chance,
    new: &NewMessage,
) -> Result<MessageId, Error> {
    new.content.check().map_err(|(field, mend)| Error::BadParameter { field, mend })?;
    check_document(new)?;
    let number = store::find_number(conn, new.business).await?.ok_or(Error::NoAccount)?;
    let now = clock.now();
    let id = MessageId(chance.uuid_v7(now));
    let personal = sealed::seal_message(conn, vault, (new.business, id), &new.to, &new.content).await?;
    let row =
        store::NewRow { id, number: &number, personal, expires_at: new.expires_at.unwrap_or(now + DEFAULT_LIFE), now };
    store::insert_message(conn, new, &row).await?;
    let send = NewJob::of(new.business, &Send { message_id: id })?.lane(new.content.class().lane());
    queue::enqueue(conn, &send).await?;
    // Ends a message whose job is gone: cancelled, or given up by the queue.
    let expire = Reconcile { message_id: id, attempt: None };
    queue::enqueue(conn, &NewJob::of(new.business, &expire)?.run_at(row.expires_at)).await?;
    Ok(id)
}

/// The template says whether there is a file; its name must look like a file's on the recipient's phone.
fn check_document(new: &NewMessage) -> Result<(), Error> {
    let words = new.content.words(new.language);
    let endings: &[&str] = match words.map(|words| &words.header) {
        Some(Header::Document) => &[".pdf"],
        Some(Header::Image) => &[".png", ".jpg", ".jpeg"],
        Some(Header::None | Header::Text(_)) | None => &[],
    };
    let mend = match (endings, &new.document) {
        ([], None) => return Ok(()),
        ([], Some(_)) => "takes no document",
        (_, None) => "needs a document",
        (endings, Some(document)) => {
            let name = &document.filename;
            let plain = name.chars().all(|character| !character.is_control() && !matches!(character, '/' | '\\' | '"'));
            let fits = endings.iter().any(|ending| name.ends_with(ending));
            if plain && (5..=200).contains(&name.len()) && fits {
                return Ok(());
            }
            if endings == [".pdf"] {
                "needs a document named like INV-1042.pdf"
            } else {
                "needs a picture named like a.png or a.jpg"
            }
        }
    };
    Err(Error::BadDocument { template: new.content.template().to_owned(), mend })
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
    let attempts = store::list_attempts(conn, id).await?;
    let events = store::list_events(conn, business, id).await?;
    Ok(Some(Timeline { message, attempts, events }))
}
