use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Error,
    hand_over::{self, Outgoing},
    model::{Deliver, Invoice, InvoiceId},
    paper,
    store::{self, Draft, Issued},
    tax,
};
use crate::{
    evidence::{Act, Object, words},
    files,
    queue::{Done, Job, JobContext, KeyMemory, Lane, Settings},
};

/// `invoice.render`: puts a recorded document on paper, marks it issued and hands it to messaging, or has that done
/// later by [`super::HandOver`].
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
            let mut tx = ctx.begin_to_read().await?;
            store::load_draft(&mut tx, &ctx.deps.vault, ctx.business, id).await?
        };
        if draft.issued.is_some() {
            return Ok(Done::Ack(Some(json!({ "invoice_id": id }))));
        }
        let Draft { invoice, deliver, keep_until, .. } = draft;
        let invoice = Arc::new(invoice);
        let pdf = make_pdf_aside(id, Arc::clone(&invoice)).await?;
        ctx.step("rendered").await;
        // Equal input gives equal bytes: a second attempt finds its file there already.
        let stored = files::put(&ctx.deps, ctx.business, "application/pdf", pdf.into()).await?;
        ctx.step("stored").await;

        let mut tx = ctx.begin().await?;
        files::record(&mut tx, &ctx.deps, &stored, Some(keep_until)).await?;
        let issued = Issued { pdf_digest: stored.digest, at: ctx.now() };
        let waits = match &deliver {
            Some(Deliver { whatsapp: Some(whatsapp) }) => {
                let outgoing = Outgoing { id, invoice: &invoice, whatsapp, pdf_digest: &issued.pdf_digest };
                hand_over::now_or_later(&mut tx, ctx, &outgoing).await?
            }
            _ => false,
        };
        if !store::mark_issued(&mut tx, id, &issued, waits).await? {
            // Somebody else issued it meanwhile, and handed it over: our message goes with the transaction.
            tx.rollback().await?;
            return Ok(Done::Ack(Some(json!({ "invoice_id": id }))));
        }
        let issued_now = Act {
            word: words::INVOICE_ISSUED,
            business: Some(ctx.business),
            object: Object { kind: "invoice", id: &id.to_string() },
            details: json!({ "pdf": issued.pdf_digest, "waits": waits }),
        };
        ctx.by(Self::KIND).record(&mut tx, issued_now).await?;
        ctx.step("issued").await;
        ctx.complete(&mut tx, Some(json!({ "invoice_id": id, "pdf": issued.pdf_digest }))).await?;
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
