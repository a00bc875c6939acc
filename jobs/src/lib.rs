//! The duties of muneem: rules, SQL and job handlers.
//!
//! This crate opens no socket, parses no flag and names no queue library. What it needs from outside it says as
//! traits in [`outbound`]; the `muneem` binary implements them for real. Every job is a type that implements
//! [`queue::Job`]; [`kinds`] is the one list of them.

pub mod evidence;
pub mod files;
pub mod id;
pub mod invoice;
pub mod law;
pub mod messaging;
pub mod outbound;
pub mod people;
pub mod queue;
pub mod schedule;
pub mod schema;
pub mod vault;
pub mod webhooks;

mod deps;
mod kinds;
mod schedules;
mod sealed_columns;

pub use deps::Deps;
pub use kinds::kinds;
pub use schedules::schedules;
pub use sealed_columns::{indexed_columns, sealed_columns};

/// The steps of the schema `muneem`, forward only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Migrations that this program brings and the database has not, by version.
///
/// # Errors
/// The database fails, or was never migrated.
pub async fn pending_migrations(conn: &mut sqlx::PgConnection) -> sqlx::Result<Vec<i64>> {
    // Not a checked query: the table is sqlx's own and not among our migrations.
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from muneem._sqlx_migrations where success").fetch_all(conn).await?;
    Ok(MIGRATOR.iter().map(|migration| migration.version).filter(|version| !applied.contains(version)).collect())
}
