use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use muneem_jobs::{
    invoice::{self, InvoiceId, Recorded, RefusalId},
    people,
};
use serde_json::json;
use sqlx::PgConnection;

use super::output::{self, Output, word};
use crate::config::Config;

/// Invoices: see them, take their PDFs, see why one was refused
///
/// None is made here: `muneem enqueue invoice.issue` takes the document.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List invoices, newest first
    #[command(after_help = "Example:\n  muneem invoice list --business sharma-mobiles --limit 10")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those older than this one: the last of the page before
        #[arg(long, value_name = "ID")]
        before: Option<InvoiceId>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one invoice
    #[command(after_help = "Example:\n  muneem invoice show 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Show {
        /// The invoice's id
        id: InvoiceId,
        #[command(flatten)]
        output: Output,
    },
    /// Write an invoice's PDF into a file
    #[command(after_help = "Example:\n  muneem invoice pdf 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70\n  \
                            muneem invoice pdf 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 - | lp")]
    Pdf {
        /// The invoice's id
        id: InvoiceId,
        /// Where to; - writes to standard output [default: named by the invoice's number]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what is wrong with a refused document
    #[command(after_help = "Example:\n  muneem jobs list --state dead --kind invoice.issue\n  \
                            muneem invoice refusal 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Refusal {
        /// The refusal's id, from the error of the dead job
        id: RefusalId,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    let mut db = app.deps.db.acquire().await?;
    match args.command {
        Command::List { business, limit, before, output } => {
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let invoices = invoice::list_invoices(&mut db, business, before, limit).await?;
            output.table(&["id", "number", "kind", "date", "state", "total"], &invoices, |invoice| {
                vec![
                    invoice.invoice_id.to_string(),
                    invoice.number.clone(),
                    word(&invoice.kind),
                    invoice.issued_on.to_string(),
                    word(&invoice.state),
                    word(&invoice.total),
                ]
            })?;
        }
        Command::Show { id, output } => {
            let invoice = load(&mut db, id).await?;
            output.item(
                &invoice,
                &[
                    ("id", invoice.invoice_id.to_string()),
                    ("number", invoice.number.clone()),
                    ("kind", word(&invoice.kind)),
                    ("date", invoice.issued_on.to_string()),
                    ("financial year", invoice.financial_year.clone()),
                    ("state", word(&invoice.state)),
                    ("taxable", word(&invoice.taxable)),
                    ("tax", word(&invoice.tax)),
                    ("total", word(&invoice.total)),
                    ("pdf", invoice.pdf_digest.clone().unwrap_or_default()),
                    ("keep until", invoice.keep_until.to_string()),
                ],
            )?;
        }
        Command::Pdf { id, file, output } => {
            let invoice = load(&mut db, id).await?;
            let located = invoice::locate_pdf(&mut db, &app.deps.vault, &invoice).await?;
            let located = located.with_context(|| {
                format!("the PDF of invoice {id} is not made yet: `muneem jobs list --kind invoice.render` shows why")
            })?;
            drop(db);
            let pdf = invoice::load_pdf(app.deps.objects.as_ref(), &invoice, &located).await?;
            if file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
                output::bytes(&pdf.bytes)?;
            } else {
                let file = file.unwrap_or_else(|| PathBuf::from(&pdf.file_name));
                std::fs::write(&file, &pdf.bytes).with_context(|| format!("cannot write {}", file.display()))?;
                let done = json!({ "invoice_id": id, "file": file, "size_bytes": pdf.bytes.len() });
                output.done(&done, &format!("wrote {}", file.display()))?;
            }
        }
        Command::Refusal { id, output } => {
            let found = invoice::find_refusal(&mut db, None, id).await?;
            let (_, problems) = found.with_context(|| {
                format!("there is no refused document {id}: the error of its dead `invoice.issue` job names it")
            })?;
            output.table(&["field", "problem", "mend"], &problems, |problem| {
                vec![problem.field.clone(), problem.wrong.clone(), problem.mend.clone()]
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(db: &mut PgConnection, id: InvoiceId) -> anyhow::Result<Recorded> {
    let found = invoice::find_invoice(db, None, id).await?;
    found.with_context(|| format!("there is no invoice {id}: `muneem invoice list` shows the newest"))
}
