use std::process::ExitCode;

use clap::Subcommand;
use muneem_jobs::{
    evidence::Actor,
    people::{self, BusinessId},
    vault::{self, Class, Form, HostColumn, HostIndex, INSTALLATION, Look, NewColumn},
};
use serde_json::json;
use sqlx::PgConnection;

use super::output::Output;
use crate::app::App;

/// Columns of the frontend's own that are sealed anew when keys change
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register a column whose values /v1/vault seals
    #[command(
        after_help = "Example:\n  muneem keys columns add public.customers.phone --business sharma-mobiles --class contact \\\n    --key id --index phone_index --version phone_index_version --form phone"
    )]
    Add(Add),
    /// List registered columns, and what is off with them
    #[command(after_help = "Example:\n  muneem keys columns list --json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Take a column out of the register; its values stay as they are
    #[command(after_help = "Example:\n  muneem keys columns remove public.customers.phone --business sharma-mobiles")]
    Remove {
        /// schema.table.column
        column: String,
        /// Handle of the business [default: the installation itself]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Look at every registered column now; close what is not as it was, open what is again
    #[command(after_help = "Example:\n  muneem keys columns check      status 1: something is closed")]
    Check {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// schema.table.column, of type bytea
    column: String,
    /// Handle of the business whose values they are [default: the installation itself]
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
    /// contact, tax_id, payment_token, message_body, payload, document or credential
    #[arg(long)]
    class: Class,
    /// The column that is the `row` of each value: unique, uuid or a whole number
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    key: String,
    /// The column with the blind index, bytea of 16 bytes
    #[arg(long, value_name = "COLUMN", requires = "version", requires = "form")]
    index: Option<String>,
    /// The column with the index's version, a whole number
    #[arg(long, value_name = "COLUMN", requires = "index")]
    version: Option<String>,
    /// How values are written before they are indexed: phone, email, gstin or exact
    #[arg(long, requires = "index")]
    form: Option<Form>,
    #[command(flatten)]
    output: Output,
}

/// The business with this handle, or the installation itself.
pub(super) async fn business_of(db: &mut PgConnection, handle: Option<&str>) -> anyhow::Result<BusinessId> {
    Ok(match handle {
        Some(handle) => people::load_business(db, handle).await?.business_id,
        None => INSTALLATION,
    })
}

pub(super) async fn run(args: Args, app: &App) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Add(args) => add(args, app).await?,
        Command::List { output } => {
            let columns = vault::list_columns(&mut *app.deps.db.acquire().await?, None).await?;
            show(&columns, output)?;
        }
        Command::Remove { column, business, output } => {
            let mut db = app.deps.db.acquire().await?;
            let business = business_of(&mut db, business.as_deref()).await?;
            app.deps.vault.remove_column(&mut db, business, &column, Actor::Operator).await?;
            output.done(&json!({ "column": column }), &format!("{column} is not registered any more"))?;
        }
        Command::Check { output } => {
            let mut db = app.deps.db.acquire().await?;
            let closed = app.deps.vault.check_columns(&mut db, Look::Values, &Actor::Operator).await?;
            if closed.is_empty() {
                output.done(&json!({ "closed": 0 }), "every registered column is as it was")?;
            } else {
                show(&closed, output)?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: Add, app: &App) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let business = business_of(&mut db, args.business.as_deref()).await?;
    let Some((table, column)) = args.column.rsplit_once('.') else {
        anyhow::bail!("`{}` has no table: write schema.table.column", args.column);
    };
    let index = match (args.index, args.version, args.form) {
        (Some(column), Some(version_column), Some(form)) => Some(HostIndex { column, version_column, form }),
        _ => None,
    };
    let new = NewColumn {
        business,
        table: table.to_owned(),
        column: column.to_owned(),
        class: args.class,
        key: args.key,
        index,
    };
    let added = app.deps.vault.add_column(&mut db, &new, Actor::Operator).await?;
    args.output.done(&added, &format!("registered {}", added.name()))
}

fn show(columns: &[HostColumn], output: Output) -> anyhow::Result<()> {
    output.table(&["column", "class", "key", "state", "looked at", "finding"], columns, |column| {
        vec![
            column.name(),
            column.class.clone(),
            column.key_column.clone(),
            if column.sound { "sound" } else { "closed" }.to_owned(),
            column.checked_at.date_naive().to_string(),
            column.finding.clone().unwrap_or_default(),
        ]
    })
}
