use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Error,
    model::{Deliver, Invoice, InvoiceId, Kind, WhatsAppDelivery},
    store, tax,
    words::grouped,
};
use crate::{
    messaging,
    outbound::Phone,
    queue::{self, Disposition, Done, Job, JobContext, JobError, KeyMemory, Lane, NewJob, Settings},
};

/// How long an issued document waits for the business's WhatsApp account.
const WAIT: TimeDelta = TimeDelta::hours(24);
const PAUSE_MIN: TimeDelta = TimeDelta::seconds(15);
const PAUSE_MAX: TimeDelta = TimeDelta::minutes(15);

/// `invoice.hand_over`: hands an issued document to messaging that did not take it when it was issued.
///
/// Without a WhatsApp account it looks again for a day, then it is a dead letter with the cause
/// `messaging.no_account`. A retry after the account was set up sends the document however old it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// The document.
    pub invoice_id: InvoiceId,
}

impl Job for HandOver {
    const KIND: &'static str = "invoice.hand_over";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { key_memory: KeyMemory::Forever, ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.invoice_id;
        let mut tx = ctx.begin().await?;
        let draft = store::load_draft(&mut tx, &ctx.deps.vault, ctx.business, id).await?;
        let Some(issued) = draft.issued else { return Err(Error::NotIssued(id)) };
        if let Some(Deliver { whatsapp: Some(whatsapp) }) = &draft.deliver {
            let outgoing = Outgoing { id, invoice: &draft.invoice, whatsapp, pdf_digest: &issued.pdf_digest };
            match request_message(&mut tx, ctx, &outgoing).await {
                Err(Error::Messaging(error)) if matches!(*error, messaging::Error::NoAccount) => {
                    return Err(Error::NoAccount { invoice: id, until: look_again_at(issued.at, ctx.now()) });
                }
                outcome => outcome?,
            }
            if !store::forget_deliver(&mut tx, id).await? {
                // Somebody else handed it over between our two statements: our message goes with the transaction.
                tx.rollback().await?;
                return Ok(Done::OK);
            }
        }
        ctx.step("handed_over").await;
        ctx.complete(&mut tx, Some(json!({ "invoice_id": id }))).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Pauses grow with the age, so that a new account is noticed soon and a long wait costs little. Nothing once the wait
/// is over.
fn look_again_at(issued_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let age = now - issued_at;
    (age < WAIT).then(|| (now + (age / 4).clamp(PAUSE_MIN, PAUSE_MAX)).min(issued_at + WAIT))
}

/// A document on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) id: InvoiceId,
    pub(super) invoice: &'a Invoice,
    pub(super) whatsapp: &'a WhatsAppDelivery,
    pub(super) pdf_digest: &'a str,
}

/// Hands a document to messaging, or to [`HandOver`] when messaging does not take it; says whether it waits there.
pub(super) async fn now_or_later(
    tx: &mut PgConnection,
    ctx: &JobContext,
    outgoing: &Outgoing<'_>,
) -> Result<bool, Error> {
    match request_message(tx, ctx, outgoing).await {
        Ok(()) => Ok(false),
        // Refused before anything was written, so the transaction is whole: the paper must not wait for the post.
        Err(error) if error.disposition() == Disposition::Fail => {
            let invoice_id = outgoing.id;
            tracing::warn!(invoice.invoice_id = %invoice_id, cause = error.cause(), "an invoice is issued and not sent");
            let later = NewJob::of(ctx.business, &HandOver { invoice_id })?.key(invoice_id.to_string());
            queue::enqueue(tx, &later).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

async fn request_message(tx: &mut PgConnection, ctx: &JobContext, outgoing: &Outgoing<'_>) -> Result<(), Error> {
    let Outgoing { invoice, whatsapp, pdf_digest, .. } = outgoing;
    let language = messaging::Language::of(whatsapp.language.as_deref().unwrap_or("en"));
    let supplier = &invoice.supplier;
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // In the language that the words around it will be in.
    let hindi = language.chain().find(|one| matches!(one, messaging::Language::En | messaging::Language::Hi));
    let nobody = if hindi == Some(messaging::Language::Hi) { "ग्राहक" } else { "Customer" };
    // Some tills write a dot or a dash where there is no name.
    let says = |name: &&str| name.chars().any(char::is_alphanumeric);
    let customer_name = invoice.buyer.as_ref().and_then(|buyer| buyer.name.as_deref()).filter(says).unwrap_or(nobody);
    let total = tax::work_out(invoice).total;
    let content = messaging::Content::TaxInvoice(messaging::TaxInvoice {
        customer_name: one_line(customer_name),
        business_name: one_line(supplier.trade_name.as_ref().unwrap_or(&supplier.legal_name)),
        invoice_number: invoice.number.clone(),
        amount: format!("₹{}", grouped(total)),
    });
    let purpose = match invoice.kind {
        Kind::CreditNote => "invoice.credited",
        Kind::TaxInvoice | Kind::BillOfSupply => "invoice.issued",
    };
    let to = Phone::parse(&whatsapp.to).map_err(|_| Error::BadPhone)?;
    let why = (messaging::Policy::AtLeastOnce, purpose);
    let message = messaging::NewMessage {
        document: Some(messaging::Document {
            digest: (*pdf_digest).to_owned(),
            filename: super::file_name(&invoice.number),
        }),
        ..messaging::NewMessage::new(ctx.business, to, (content, language), why)
    };
    let deps = &ctx.deps;
    messaging::request(tx, &deps.vault, deps.clock.as_ref(), deps.chance.as_ref(), &message).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_grow_apart_and_end_after_a_day() {
        let issued_at: DateTime<Utc> = "2026-11-23T06:30:00Z".parse().expect("an instant");
        let after = |age: TimeDelta| look_again_at(issued_at, issued_at + age).map(|at| at - issued_at - age);
        for (age, pause) in [
            (TimeDelta::zero(), Some(PAUSE_MIN)),
            (TimeDelta::minutes(4), Some(TimeDelta::minutes(1))),
            (TimeDelta::hours(5), Some(PAUSE_MAX)),
            (WAIT - TimeDelta::seconds(5), Some(TimeDelta::seconds(5))),
            (WAIT, None),
            (TimeDelta::days(90), None),
        ] {
            assert_eq!(after(age), pause, "{age}");
        }
    }
}
