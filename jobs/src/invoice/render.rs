use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Error,
    model::{Deliver, Invoice, InvoiceId, Kind, State, WhatsAppDelivery},
    paper,
    store::{self, Draft},
    tax,
    words::grouped,
};
use crate::{
    files, messaging,
    outbound::Phone,
    queue::{Done, Job, JobContext, KeyMemory, Lane, Settings},
};

/// `invoice.render`: puts a recorded document on paper, marks it issued and hands it to messaging.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Render {
    /// The document.
    pub invoice_id: InvoiceId,
}

impl Job for Render {
    const KIND: &'static str = "invoice.render";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { key_memory: KeyMemory::Forever, ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.invoice_id;
        let draft = {
            let mut conn = ctx.deps.db.acquire().await?;
            store::load_draft(&mut conn, ctx.business, id).await?
        };
        if draft.state == State::Issued {
            return Ok(Done::Ack(Some(json!({ "invoice_id": id }))));
        }
        let Draft { invoice, deliver, keep_until, .. } = draft;
        let invoice = Arc::new(invoice);
        let pdf = make_pdf_aside(id, Arc::clone(&invoice)).await?;
        ctx.step("rendered").await;
        // Equal input gives equal bytes: a second attempt finds its file there already.
        let stored = files::put(&ctx.deps, "application/pdf", pdf.into()).await?;
        ctx.step("stored").await;

        let mut tx = ctx.begin().await?;
        files::record(&mut tx, &ctx.deps, &stored, Some(keep_until)).await?;
        if store::mark_issued(&mut tx, id, &stored.digest, ctx.now()).await?
            && let Some(Deliver { whatsapp: Some(whatsapp) }) = &deliver
        {
            request_message(&mut tx, ctx, &invoice, whatsapp, &stored).await?;
        }
        ctx.step("issued").await;
        ctx.complete(&mut tx, Some(json!({ "invoice_id": id, "pdf": stored.digest }))).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Makes the PDF on a thread that may block.
async fn make_pdf_aside(id: InvoiceId, invoice: Arc<Invoice>) -> Result<Vec<u8>, Error> {
    tokio::task::spawn_blocking(move || paper::make_pdf(id, &invoice, &tax::work_out(&invoice)))
        .await
        .map_err(|error| Error::Thread(id, error))?
}

async fn request_message(
    tx: &mut PgConnection,
    ctx: &JobContext,
    invoice: &Invoice,
    whatsapp: &WhatsAppDelivery,
    stored: &files::Stored,
) -> Result<(), Error> {
    let language = match whatsapp.language.as_deref() {
        Some("hi") => messaging::Language::Hi,
        _ => messaging::Language::En,
    };
    let supplier = &invoice.supplier;
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let nobody = match language {
        messaging::Language::En => "Customer",
        messaging::Language::Hi => "ग्राहक",
    };
    let customer_name = invoice.buyer.as_ref().and_then(|buyer| buyer.name.as_deref()).unwrap_or(nobody);
    let total = tax::work_out(invoice).total;
    let message = messaging::NewMessage {
        business: ctx.business,
        to: Phone::parse(&whatsapp.to).map_err(|_| Error::BadPhone)?,
        content: messaging::Content::TaxInvoice(messaging::TaxInvoice {
            customer_name: one_line(customer_name),
            business_name: one_line(supplier.trade_name.as_ref().unwrap_or(&supplier.legal_name)),
            invoice_number: invoice.number.clone(),
            amount: format!("₹{}", grouped(total)),
        }),
        language,
        document: Some(messaging::Document {
            digest: stored.digest.clone(),
            filename: super::file_name(&invoice.number),
        }),
        policy: messaging::Policy::AtLeastOnce,
        purpose: match invoice.kind {
            Kind::CreditNote => "invoice.credited",
            Kind::TaxInvoice | Kind::BillOfSupply => "invoice.issued",
        },
        expires_at: None,
    };
    messaging::request(tx, ctx.deps.clock.as_ref(), ctx.deps.chance.as_ref(), &message).await?;
    Ok(())
}
