//! The figures: each measured here and now, beside plain code that does the same work in the same run.
//!
//! A bench works in a database that it makes and drops, so it may run on any server. Ratios are what counts: machines
//! differ, and so do their neighbours.

mod evidence;
mod messaging;
mod processor;
mod queue;
mod vault;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::signal::unix::SignalKind;

use crate::app::Database;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// `queue.drain`
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The same work by plain code, in the same unit; none where the figure is absolute.
    pub baseline: Option<f64>,
    /// Value over baseline.
    pub ratio: Option<f64>,
    /// What is to be reached.
    pub target: String,
    /// Whether it is.
    pub holds: bool,
}

impl Figure {
    /// A rate that must be at least `share` of its baseline.
    fn at_least(name: &'static str, unit: &'static str, value: f64, baseline: f64, share: f64) -> Self {
        let ratio = value / baseline;
        let target = format!("ratio >= {share}");
        Self { name, value, unit, baseline: Some(baseline), ratio: Some(ratio), target, holds: ratio >= share }
    }

    /// A rate that must be `least` on any machine.
    fn least(name: &'static str, unit: &'static str, value: f64, least: f64) -> Self {
        let target = format!("value >= {least}");
        Self { name, value, unit, baseline: None, ratio: None, target, holds: value >= least }
    }

    /// A rate that must be at least `least`, shown beside its baseline.
    fn rate_beside(name: &'static str, unit: &'static str, value: f64, baseline: f64, least: f64) -> Self {
        let target = format!("value >= {least}");
        let ratio = Some(value / baseline);
        Self { name, value, unit, baseline: Some(baseline), ratio, target, holds: value >= least }
    }

    /// A cost that must not exceed `most`.
    fn at_most(name: &'static str, unit: &'static str, value: f64, most: f64) -> Self {
        let target = format!("value <= {most}");
        Self { name, value, unit, baseline: None, ratio: None, target, holds: value <= most }
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// The queue.
    Queue,
    /// The evidence log.
    Evidence,
    /// A number's rate, codes that overtake, webhooks.
    Messaging,
    /// Sealing, opening, and sealing anew.
    Vault {
        /// How many values are sealed anew.
        rows: usize,
    },
}

/// Measures, telling each figure as it is known. Its database goes with it, also when it is interrupted.
///
/// # Errors
/// The database cannot be reached, or its login may not make databases; Ctrl-C or SIGTERM.
pub async fn run(bench: Bench, database: &Database, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let scratch = Scratch::create(database).await?;
    let measured = async {
        match bench {
            Bench::Queue => queue::measure(&scratch, tell).await,
            Bench::Vault { rows } => vault::measure(&scratch, rows, tell).await,
            Bench::Evidence => evidence::measure(&scratch, tell).await,
            Bench::Messaging => messaging::measure(&scratch, tell).await,
        }
    };
    let measured = tokio::select! {
        measured = Box::pin(measured) => measured,
        _ = interrupt.recv() => Err(anyhow!("interrupted; its database is dropped")),
        _ = terminate.recv() => Err(anyhow!("terminated; its database is dropped")),
    };
    scratch.drop_database().await?;
    measured
}

/// Plain code (true) and ours, each first in every other round: who comes second finds a busier disk.
const fn in_turn(round: usize) -> [bool; 2] {
    [round.is_multiple_of(2), !round.is_multiple_of(2)]
}

/// A migrated database of its own.
struct Scratch {
    server: PgConnectOptions,
    name: String,
    options: PgConnectOptions,
    db: PgPool,
}

impl Scratch {
    async fn create(database: &Database) -> anyhow::Result<Self> {
        let server = database.owner.clone();
        let name = format!("muneem_bench_{}", std::process::id());
        let mut conn = connect(&server).await?;
        let may: bool = sqlx::query_scalar("select rolcreatedb or rolsuper from pg_roles where rolname = current_user")
            .fetch_one(&mut conn)
            .await?;
        if !may {
            bail!("this login may not make databases: give `muneem bench` one that may (alter role … createdb)");
        }
        // Until this one is connected to its own: nobody takes it for one that was left behind.
        sqlx::query("select pg_advisory_lock(hashtext('muneem_bench'))").execute(&mut conn).await?;
        drop_left_behind(&mut conn).await?;
        sqlx::query(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).execute(&mut conn).await?;
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut conn).await?;
        let options = server.clone().database(&name);
        let db = crate::app::pool(options.clone(), 24, std::time::Duration::from_secs(30)).await?;
        conn.close().await?;
        muneem_jobs::schema::migrate(&mut *db.acquire().await?).await?;
        Ok(Self { server, name, options, db })
    }

    /// By force and without waiting for tasks that still measure: whoever interrupts has waited long enough.
    async fn drop_database(self) -> anyhow::Result<()> {
        let mut conn = connect(&self.server).await?;
        let drop = format!("drop database if exists {} with (force)", self.name);
        sqlx::query(AssertSqlSafe(drop)).execute(&mut conn).await?;
        Ok(())
    }
}

/// Databases of benches that were killed: nobody is connected to them.
async fn drop_left_behind(conn: &mut PgConnection) -> anyhow::Result<()> {
    let left: Vec<String> = sqlx::query_scalar(
        "select d.datname::text
         from pg_database d
         where d.datname ~ '^muneem_bench_[0-9]+$'
             and pg_has_role(d.datdba, 'usage')
             and not exists (select from pg_stat_activity a where a.datid = d.oid)",
    )
    .fetch_all(&mut *conn)
    .await?;
    for name in left {
        sqlx::query(AssertSqlSafe(format!("drop database if exists {name}"))).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let server = options.clone();
    match PgConnection::connect_with(&server).await {
        Ok(conn) => Ok(conn),
        // A private server that was never migrated has no database of ours yet.
        Err(_) => PgConnection::connect_with(&server.database("postgres")).await.context("the database did not answer"),
    }
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which `share` of the measurements lie.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(place).copied().unwrap_or(f64::NAN)
}
