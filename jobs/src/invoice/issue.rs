use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{json, value::RawValue};
use serde_path_to_error::Segment;
use sqlx::PgConnection;

use super::{
    Error, Problem, Render,
    model::{InvoiceId, NewInvoice, RefusalId},
    rules,
    store::{self, NewRow},
    tax::Amounts,
};
use crate::{
    evidence::{Act, Object, words},
    law::india_date,
    queue::{self, Done, Job, JobContext, KeyMemory, Lane, NewJob, Settings},
};

/// `invoice.issue`: checks a document, records it, and has it put on paper by [`Render`].
///
/// The same document again is the same invoice. Another document under its number is refused.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Issue {
    /// What a frontend hands over: the published schema is that of [`super::NewInvoice`].
    New(HandedOver),
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
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Left {
            refusal_id: Option<RefusalId>,
            invoice_id: Option<InvoiceId>,
        }

        let payload = Box::<RawValue>::deserialize(deserializer)?;
        Ok(match serde_json::from_str(payload.get()) {
            Ok(Left { refusal_id: Some(refusal_id), invoice_id: None }) => Self::Refused { refusal_id },
            Ok(Left { refusal_id: None, invoice_id: Some(invoice_id) }) => Self::Recorded { invoice_id },
            _ => Self::New(HandedOver(payload)),
        })
    }
}

/// A document as it was handed over, not read yet: one that does not read must leave its job like any other refused one.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct HandedOver(pub(super) Box<RawValue>);

impl std::fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandedOver(redacted)")
    }
}

impl HandedOver {
    /// Its number, where it has one of the form of a number. What has no such form may be anything.
    pub(super) fn number(&self) -> Option<String> {
        let payload: serde_json::Value = serde_json::from_str(self.0.get()).ok()?;
        let number = payload.pointer("/invoice/number")?.as_str()?;
        let plain = number.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-'));
        (plain && (1..=16).contains(&number.len())).then(|| number.to_owned())
    }

    /// Reads it, to the letter of the schema.
    pub(super) fn read(&self) -> Result<NewInvoice, Problem> {
        let json = &mut serde_json::Deserializer::from_str(self.0.get());
        serde_path_to_error::deserialize(json).map_err(|error| Problem {
            field: field_at(error.path()),
            // serde's own text repeats the value.
            wrong: "is unknown, incomplete or not of the form that the schema asks for".to_owned(),
            mend: "write it as the schema of invoice.issue in muneem.queue_kinds says".to_owned(),
        })
    }
}

/// Where a document does not read: below `invoice`, or below the payload. A name that cannot be one of ours is not
/// repeated: it may be personal.
fn field_at(path: &serde_path_to_error::Path) -> String {
    let ours = |name: &str| name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let whole: String = path
        .iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } if ours(key) => format!(".{key}"),
            _ => ".?".to_owned(),
        })
        .collect();
    match whole.trim_start_matches('.') {
        "" => "payload".to_owned(),
        field => field.strip_prefix("invoice.").unwrap_or(field).to_owned(),
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
        let (handed_over, refusal) = match self {
            Self::New(handed_over) => (handed_over, None),
            Self::Refused { refusal_id } => (load_refused(ctx, refusal_id).await?, Some(refusal_id)),
            Self::Recorded { .. } => return Ok(Done::OK),
        };
        let checked = handed_over.read().map_err(|problem| vec![problem]).and_then(|new| {
            let amounts = rules::check(&new, india_date(ctx.now()))?;
            Ok((new, amounts))
        });
        let from = Origin { handed_over: &handed_over, refusal };
        match checked {
            Ok((new, amounts)) => record(ctx, &new, &amounts, &from).await,
            Err(problems) => {
                let refusal = refuse(ctx, &from, &problems).await?;
                Err(Error::Refused { refusal, problems })
            }
        }
    }
}

/// Where a document comes from.
struct Origin<'a> {
    handed_over: &'a HandedOver,
    /// The refusal that it was kept under.
    refusal: Option<RefusalId>,
}

async fn load_refused(ctx: &JobContext, id: RefusalId) -> Result<HandedOver, Error> {
    let mut tx = ctx.begin_to_read().await?;
    store::find_refused(&mut tx, &ctx.deps.vault, ctx.business, id).await?.ok_or(Error::NoRefusal(id))
}

/// Records the document, has it rendered, clears the job and ends it, in one transaction.
async fn record(ctx: &JobContext, new: &NewInvoice, amounts: &Amounts, from: &Origin<'_>) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let now = ctx.now();
    let mut id = InvoiceId(ctx.deps.chance.uuid_v7(now));
    let row = NewRow { id, business: ctx.business, new, amounts, now };
    if store::insert_invoice(&mut tx, &ctx.deps.vault, &row).await? {
        let render = NewJob::of(ctx.business, &Render { invoice_id: id })?.key(id.to_string());
        queue::enqueue(&mut tx, &render).await?;
        let registered = Act {
            word: words::INVOICE_REGISTERED,
            business: Some(ctx.business),
            object: Object { kind: "invoice", id: &id.to_string() },
            details: json!({ "kind": new.invoice.kind.as_str() }),
        };
        ctx.by(Issue::KIND).record(&mut tx, registered).await?;
    } else {
        let other = store::find_by_number(&mut tx, &ctx.deps.vault, ctx.business, &new.invoice).await?;
        let Some((taken_by, other)) = other else {
            // The other transaction rolled back between the two statements: the next attempt inserts.
            return Err(Error::Database(sqlx::Error::RowNotFound));
        };
        if other != new.invoice {
            tx.rollback().await?;
            return Err(refuse_number(ctx, from, taken_by).await?);
        }
        id = taken_by;
    }
    if let Some(refusal) = from.refusal {
        store::delete_refusal(&mut tx, refusal).await?;
    }
    ctx.step("recorded").await;
    ctx.replace_payload(&mut tx, &json!({ "invoice_id": id })).await?;
    ctx.complete(&mut tx, Some(json!({ "invoice_id": id }))).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

async fn refuse_number(ctx: &JobContext, from: &Origin<'_>, taken_by: InvoiceId) -> Result<Error, Error> {
    let problem = Problem {
        field: "number".to_owned(),
        wrong: "is taken by a different document of this kind and financial year".to_owned(),
        mend: "give it the next number".to_owned(),
    };
    let refusal = refuse(ctx, from, &[problem]).await?;
    Ok(Error::NumberTaken { refusal, taken_by })
}

/// Moves a refused document out of the job, which keeps a reference to it.
async fn refuse(ctx: &JobContext, from: &Origin<'_>, problems: &[Problem]) -> Result<RefusalId, Error> {
    let now = ctx.now();
    let id = RefusalId(ctx.deps.chance.uuid_v7(now));
    let mut tx = ctx.begin().await?;
    if let Some(before) = from.refusal {
        store::delete_refusal(&mut tx, before).await?;
    }
    let row = store::NewRefusal { id, business: ctx.business, handed_over: from.handed_over, problems, now };
    store::insert_refusal(&mut tx, &ctx.deps.vault, &row).await?;
    point_to(ctx, &mut tx, id).await?;
    let refused = Act {
        word: words::INVOICE_REFUSED,
        business: Some(ctx.business),
        object: Object { kind: "refusal", id: &id.to_string() },
        details: json!({ "problems": problems.len(), "before": from.refusal }),
    };
    ctx.by(Issue::KIND).record(&mut tx, refused).await?;
    tx.commit().await?;
    Ok(id)
}

async fn point_to(ctx: &JobContext, tx: &mut PgConnection, id: RefusalId) -> Result<(), Error> {
    ctx.step("refused").await;
    ctx.replace_payload(tx, &json!({ "refusal_id": id })).await?;
    Ok(())
}
