//! A database of its own for every test, on one Postgres per test run.
//!
//! The first test that asks starts a server (without fsync) in the temporary folder; threads, the test binaries of
//! `cargo test --workspace` one after another, and nextest's processes all share it. Each process holds a shared lock;
//! a small keeper process stops the server and removes its folder a few seconds after the last one let go, however the
//! tests ended. A set of migrations is applied once, to a template that the tests' databases are copied from.
//! `DATABASE_URL` is not read: tests never touch a database they did not make.
//!
//! ```no_run
//! # use muneem_postgres::testing::TestDb;
//! # static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate::Migrator::DEFAULT;
//! # async fn example() -> Result<(), sqlx::Error> {
//! let db = TestDb::new(&MIGRATOR).await;
//! sqlx::query("select 1").execute(&db.app_pool()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything here panics when it fails, with the reason: a test without its database has nothing to test.

mod dedicated;
mod shared;
mod template;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

pub use dedicated::{TestServer, seed};
use shared::Shared;

use crate::cluster::OWNER;
use crate::server::{connect_options, url};

/// A login that is a member of `muneem_app` and of nothing else.
pub(crate) const APP_LOGIN: &str = "muneem_test_app";

/// One test's database. Dropped with the value, also when the test panics.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    shared: &'static Shared,
    pool: PgPool,
    app_pool: PgPool,
}

impl TestDb {
    /// A database with these migrations applied.
    ///
    /// # Panics
    /// When no server can be started or a migration fails.
    pub async fn new(migrator: &Migrator) -> Self {
        let shared = Shared::get();
        let mut admin = shared.admin().await;
        let template = template::prepared(shared, &mut admin, migrator).await;
        Self::copy_of(shared, admin, &template).await
    }

    /// A database without anything in it.
    ///
    /// # Panics
    /// When no server can be started.
    pub async fn empty() -> Self {
        let shared = Shared::get();
        let admin = shared.admin().await;
        Self::copy_of(shared, admin, "template0").await
    }

    async fn copy_of(shared: &'static Shared, mut admin: PgConnection, template: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = loop {
            let name = format!("test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let create = format!("create database {name} template {template}");
            match admin.execute(AssertSqlSafe(create)).await {
                Ok(_) => break name,
                // A killed process with this number left it behind.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => {}
                Err(error) => panic!("cannot copy {template} for a test: {error}"),
            }
        };
        // Closed in order, so that the server's log stays readable; a failure changes nothing for the test.
        let _ = admin.close().await;
        let pool = |login: &str| {
            PgPoolOptions::new()
                .max_connections(5)
                .acquire_timeout(Duration::from_secs(20))
                .test_before_acquire(false)
                .connect_lazy_with(connect_options(shared.socket_dir(), login, &name))
        };
        Self { pool: pool(OWNER), app_pool: pool(APP_LOGIN), name, shared }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections of the owner, who may do everything: at most five.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// Connections of a login that is a member of `muneem_app` only: at most five.
    pub fn app_pool(&self) -> PgPool {
        self.app_pool.clone()
    }

    /// For a child process that works as the owner.
    pub fn url(&self) -> String {
        url(self.shared.socket_dir(), OWNER, &self.name)
    }

    /// For a child process that works as a member of `muneem_app` only.
    pub fn app_url(&self) -> String {
        url(self.shared.socket_dir(), APP_LOGIN, &self.name)
    }

    /// The owner's URL of the server's own database `postgres`, from which others can be created and dropped.
    pub fn server_url(&self) -> String {
        url(self.shared.socket_dir(), OWNER, "postgres")
    }

    /// How sqlx reaches it as the owner.
    pub fn connect_options(&self) -> PgConnectOptions {
        connect_options(self.shared.socket_dir(), OWNER, &self.name)
    }
}

impl Drop for TestDb {
    /// Needs nothing of the test's runtime, which may be stopping or blocked: a thread with a runtime of its own.
    fn drop(&mut self) {
        let admin = self.shared.admin_options();
        let statement = format!("drop database if exists {} with (force)", self.name);
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect_with(&admin).await.map_err(std::io::Error::other)?;
                admin.execute(AssertSqlSafe(statement)).await.map_err(std::io::Error::other)?;
                admin.close().await.map_err(std::io::Error::other)
            })
        });
        // What could not be dropped goes with the server; a panic here would hide the test's own.
        let _ = dropper.join();
    }
}
