//! Where a report changes what is known of a mail. The one place: a report reaches it once, believed and checked.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{apply_report::ApplyMailReport, bounce::Kind, token::MailRef};
use crate::{
    evidence::{Act, By, Object, words},
    messaging::{
        Error, MailId, MessageId, Status,
        ledger::{Ledger, Told},
        mail_store, sealed, store,
        trail::Trail,
        wishes::{self, Cause, Channel, Contact, NewSuppression, Scope},
    },
    outbound::mailer::Fault,
    queue::{Job, JobContext},
};

/// What a believed report says of one mail.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The report.
    pub report_id: Uuid,
    /// SHA-256 of its raw bytes, in hexadecimal.
    pub receipt: String,
    /// Which mail.
    pub of: MailRef,
    /// What became of it.
    pub kind: Kind,
    /// Enhanced status code.
    pub status: Option<String>,
    /// Whose fault it is. [`Fault::Address`] with `permanent` closes an address; nothing else does.
    pub fault: Fault,
    /// Whether it will never arrive. Always false where the report does not name the recipient.
    pub permanent: bool,
}

/// Folds a report into the mail it is about, in the transaction of `messaging.apply_mail_report`, which runs behind the
/// wall of the mail's business. A mail to staff is `bounced` when it failed after it had been taken; a complaint and a
/// delay change no state. Every one is on record.
///
/// # Errors
/// The database fails, or the act cannot be put on record; nothing is changed then.
pub async fn fold(tx: &mut PgConnection, ctx: &JobContext, folded: &Folded) -> Result<(), Error> {
    let (kind, id) = match folded.of {
        MailRef::Staff(id) => {
            fold_staff(tx, ctx, folded, id).await?;
            ("mail", id.to_string())
        }
        MailRef::Message(id, attempt) => {
            fold_message(tx, ctx, folded, (id, attempt)).await?;
            ("message", id.to_string())
        }
    };
    let reported = Act {
        word: words::MAIL_REPORTED,
        business: Some(ctx.business),
        object: Object { kind, id: &id },
        details: json!({ "report_id": folded.report_id, "kind": folded.kind, "status": folded.status,
            "permanent": folded.permanent }),
    };
    ctx.by(ApplyMailReport::KIND).record(tx, reported).await?;
    Ok(())
}

async fn fold_staff(tx: &mut PgConnection, ctx: &JobContext, folded: &Folded, id: MailId) -> Result<(), Error> {
    match folded.kind {
        Kind::Failed => mail_store::set_bounced(tx, id, folded.status.as_deref(), ctx.now()).await,
        Kind::Delivered => mail_store::set_arrived(tx, id, ctx.now()).await,
        Kind::Delayed | Kind::Relayed | Kind::Complaint => Ok(()),
    }
}

/// A mail to a person is a message of the ledger: a failure ends it, and the next way to her is taken. What failed for
/// good at her address closes it, and a complaint stops what sells.
async fn fold_message(
    tx: &mut PgConnection,
    ctx: &JobContext,
    folded: &Folded,
    attempt: (MessageId, i32),
) -> Result<(), Error> {
    let by = ctx.by(ApplyMailReport::KIND);
    let status = match folded.kind {
        Kind::Failed => Some(Status::Failed),
        Kind::Delivered => Some(Status::Delivered),
        Kind::Complaint => {
            suppress(tx, ctx, attempt.0, (Scope::Marketing, "mail_complaint"), &by).await?;
            None
        }
        Kind::Delayed | Kind::Relayed => None,
    };
    if let Some(status) = &status {
        let mut trail = Trail::of(ctx, ApplyMailReport::KIND);
        let mut ledger = Ledger::lock(tx, ctx.business, [attempt.0], ctx.now()).await?;
        let receipt = folded.receipt.as_str();
        let details = folded.status.as_deref();
        let told = Told { mark: None, status, code: None, details, receipt: Some(receipt) };
        ledger.told(attempt, &told, &mut trail);
        ledger.write(tx, ctx).await?;
        trail.write(tx).await?;
    }
    if folded.permanent && folded.kind == Kind::Failed && folded.fault == Fault::Address {
        close_address(tx, ctx, attempt.0, &by).await?;
    }
    Ok(())
}

/// Nothing ever arrives at the address that this message went to: nothing more is sent there until somebody says
/// otherwise.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(in crate::messaging) async fn close_address(
    tx: &mut PgConnection,
    ctx: &JobContext,
    id: MessageId,
    by: &By<'_>,
) -> Result<(), Error> {
    suppress(tx, ctx, id, (Scope::Channel, "mail_bounced"), by).await
}

async fn suppress(
    tx: &mut PgConnection,
    ctx: &JobContext,
    id: MessageId,
    (scope, reason): (Scope, &str),
    by: &By<'_>,
) -> Result<(), Error> {
    let Some(letter) = store::load_letter(tx, ctx.business, id).await? else { return Ok(()) };
    let to = sealed::open_letter(tx, &ctx.deps.vault, (ctx.business, id), &letter).await?;
    let (cause, channel) = match scope {
        Scope::Channel => (Cause::Carrier, Some(Channel::Mail)),
        _ => (Cause::Preference, None),
    };
    let new = NewSuppression { scope, channel, cause, reason, at: by.now, until: None };
    match wishes::suppress(tx, &ctx.deps.vault, by, ctx.business, (&Contact::Email(to), &new)).await {
        // She was erased meanwhile, which stops more than this.
        Ok(_) | Err(wishes::Error::Erased) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
