//! Where a report changes what is known of a mail. The one place: a report reaches it once, believed and checked.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{apply_report::ApplyMailReport, bounce::Kind, token::MailRef};
use crate::{
    evidence::{Act, Object, words},
    messaging::{Error, MailId, mail_store},
    outbound::mailer::Fault,
    queue::{Job, JobContext},
};

/// What a believed report says of one mail.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The report.
    pub report_id: Uuid,
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

/// A mail to a person is a row of the ledger, which knows more channels than this one: the ledger's own function goes
/// here. The report stands in `messaging_mail_reports` under the message's id, and on record, in any case.
#[expect(clippy::unused_async, reason = "the ledger's function asks the database")]
async fn fold_message(
    _tx: &mut PgConnection,
    _ctx: &JobContext,
    folded: &Folded,
    (message, attempt): (crate::messaging::MessageId, i32),
) -> Result<(), Error> {
    tracing::info!(
        messaging.message_id = %message,
        attempt,
        kind = folded.kind.as_str(),
        status = folded.status,
        "a mail was reported on"
    );
    Ok(())
}
