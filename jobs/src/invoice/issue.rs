use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Error, Problem, Render,
    model::{Deliver, Invoice, InvoiceId, NewInvoice, RefusalId},
    rules,
    store::{self, NewRow},
    tax::Amounts,
};
use crate::{
    law::india_date,
    queue::{self, Done, Job, JobContext, KeyMemory, Lane, NewJob, Settings},
};

/// `invoice.issue`: checks a document, records it, and has it put on paper by [`Render`].
///
/// The same document again is the same invoice. Another document under its number is refused.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Issue {
    /// What a frontend hands over: the published schema is that of [`NewInvoice`].
    New(Box<NewInvoice>),
    /// What is left in a job whose document was refused: a retry reads it from our table and checks it again.
    Refused {
        /// Row of `muneem.invoice_refusals`.
        refusal_id: RefusalId,
    },
    /// What is left in a job that did its work.
    Recorded {
        /// Row of `muneem.invoice_invoices`.
        invoice_id: InvoiceId,
    },
}

impl<'de> Deserialize<'de> for Issue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // One struct rather than serde's `untagged`: the error must name the field of the document.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire {
            invoice: Option<Box<Invoice>>,
            deliver: Option<Deliver>,
            refusal_id: Option<RefusalId>,
            invoice_id: Option<InvoiceId>,
        }

        let wire = Wire::deserialize(deserializer)?;
        match (wire.invoice, wire.deliver, wire.refusal_id, wire.invoice_id) {
            (Some(invoice), deliver, None, None) => Ok(Self::New(Box::new(NewInvoice { invoice: *invoice, deliver }))),
            (None, None, Some(refusal_id), None) => Ok(Self::Refused { refusal_id }),
            (None, None, None, Some(invoice_id)) => Ok(Self::Recorded { invoice_id }),
            _ => Err(de::Error::missing_field("invoice")),
        }
    }
}

impl JsonSchema for Issue {
    fn schema_name() -> Cow<'static, str> {
        NewInvoice::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        NewInvoice::json_schema(generator)
    }
}

impl Job for Issue {
    const KIND: &'static str = "invoice.issue";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { key_memory: KeyMemory::Forever, open: true, ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let (new, refusal) = match self {
            Self::New(new) => (*new, None),
            Self::Refused { refusal_id } => (load_refused(ctx, refusal_id).await?, Some(refusal_id)),
            Self::Recorded { .. } => return Ok(Done::OK),
        };
        match rules::check(&new, india_date(ctx.now())) {
            Ok(amounts) => record(ctx, &new, &amounts, refusal).await,
            Err(problems) => {
                let refusal = refuse(ctx, &new, &problems, refusal).await?;
                Err(Error::Refused { refusal, problems })
            }
        }
    }
}

async fn load_refused(ctx: &JobContext, id: RefusalId) -> Result<NewInvoice, Error> {
    let mut conn = ctx.deps.db.acquire().await?;
    let found = store::find_refusal(&mut conn, Some(ctx.business), id).await?;
    found.map(|(new, _)| new).ok_or(Error::NoRefusal(id))
}

/// Records the document, has it rendered, clears the job and ends it, in one transaction.
async fn record(
    ctx: &JobContext,
    new: &NewInvoice,
    amounts: &Amounts,
    refusal: Option<RefusalId>,
) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let now = ctx.now();
    let mut id = InvoiceId(ctx.deps.chance.uuid_v7(now));
    let row = NewRow { id, business: ctx.business, new, amounts, now };
    if store::insert_invoice(&mut tx, &row).await? {
        let render = NewJob::of(ctx.business, &Render { invoice_id: id })?.key(id.to_string());
        queue::enqueue(&mut tx, &render).await?;
    } else {
        let Some((taken_by, other)) = store::find_by_number(&mut tx, ctx.business, &new.invoice).await? else {
            // The other transaction rolled back between the two statements: the next attempt inserts.
            return Err(Error::Database(sqlx::Error::RowNotFound));
        };
        if other != new.invoice {
            tx.rollback().await?;
            return Err(refuse_number(ctx, new, taken_by, refusal).await?);
        }
        id = taken_by;
    }
    if let Some(refusal) = refusal {
        store::delete_refusal(&mut tx, refusal).await?;
    }
    ctx.step("recorded").await;
    ctx.replace_payload(&mut tx, &json!({ "invoice_id": id })).await?;
    ctx.complete(&mut tx, Some(json!({ "invoice_id": id }))).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

async fn refuse_number(
    ctx: &JobContext,
    new: &NewInvoice,
    taken_by: InvoiceId,
    refusal: Option<RefusalId>,
) -> Result<Error, Error> {
    let problem = Problem {
        field: "number".to_owned(),
        wrong: "is taken by a different document of this kind and financial year".to_owned(),
        mend: "give it the next number".to_owned(),
    };
    let refusal = refuse(ctx, new, &[problem], refusal).await?;
    Ok(Error::NumberTaken { refusal, taken_by })
}

/// Moves a refused document out of the job, which keeps a reference to it.
async fn refuse(
    ctx: &JobContext,
    new: &NewInvoice,
    problems: &[Problem],
    before: Option<RefusalId>,
) -> Result<RefusalId, Error> {
    let now = ctx.now();
    let id = RefusalId(ctx.deps.chance.uuid_v7(now));
    let mut tx = ctx.begin().await?;
    if let Some(before) = before {
        store::delete_refusal(&mut tx, before).await?;
    }
    store::insert_refusal(&mut tx, (id, ctx.business), new, problems, now).await?;
    point_to(ctx, &mut tx, id).await?;
    tx.commit().await?;
    Ok(id)
}

async fn point_to(ctx: &JobContext, tx: &mut PgConnection, id: RefusalId) -> Result<(), Error> {
    ctx.step("refused").await;
    ctx.replace_payload(tx, &json!({ "refusal_id": id })).await?;
    Ok(())
}
