//! A server for one test that stops, kills or restarts it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use super::shared::{self, Shared};
use crate::server::Server;

/// A private server whose data stays when it is stopped, killed and started again. Removed with the value.
#[derive(Debug)]
pub struct TestServer {
    server: Option<Server>,
    dir: PathBuf,
}

impl TestServer {
    /// Starts a server of its own, in the test run's folder: what a killed test leaves goes with that.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn dedicated() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = Shared::get().base().join(format!("own-{}-{number}", std::process::id()));
        seed(&dir);
        let mut options = shared::options(&dir);
        // Killed servers must come back with their data: the operating system keeps what was written, so fsync may
        // stay off, but commits have to be written.
        options.extra_settings.push(("synchronous_commit".into(), "on".into()));
        options.extra_settings.push(("full_page_writes".into(), "on".into()));
        let server = Server::start(&options).unwrap_or_else(|error| panic!("no Postgres for this test: {error}"));
        server.own_dir().unwrap_or_else(|error| panic!("{error}"));
        Self { server: Some(server), dir }
    }

    /// Creates a database, with migrations if some are given; returns the owner's URL.
    ///
    /// # Panics
    /// When the server is stopped or refuses.
    pub async fn create_database(&self, name: &str, migrator: Option<&Migrator>) -> String {
        let create = async {
            let mut admin = PgConnection::connect_with(&self.server().connect_options("postgres")).await?;
            admin.execute(AssertSqlSafe(format!("create database \"{name}\""))).await?;
            admin.close().await
        };
        create.await.unwrap_or_else(|error| panic!("cannot create {name}: {error}"));
        if let Some(migrator) = migrator {
            let migrate = async {
                let mut owner = PgConnection::connect_with(&self.server().connect_options(name)).await?;
                migrator.run(&mut owner).await?;
                owner.close().await?;
                Ok::<(), sqlx::migrate::MigrateError>(())
            };
            migrate.await.unwrap_or_else(|error| panic!("migrations of {name}: {error}"));
        }
        self.server().url(name)
    }

    /// Connections of the owner, at most five; they are made anew after a restart.
    pub fn pool(&self, name: &str) -> PgPool {
        PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy_with(self.server().connect_options(name))
    }

    /// The owner's URL of a database.
    pub fn url(&self, name: &str) -> String {
        self.server().url(name)
    }

    /// The running server.
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap_or_else(|| unreachable!("the server is there until the value is dropped"))
    }

    /// Where the server's files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.server_mut().stop();
    }

    /// Kills it with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        self.server_mut().kill();
    }

    /// Starts it again, on the same socket with the same data.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn start(&mut self) {
        let within = Duration::from_secs(120);
        self.server_mut().restart(within).unwrap_or_else(|error| panic!("Postgres did not come back: {error}"));
    }

    fn server_mut(&mut self) -> &mut Server {
        self.server.as_mut().unwrap_or_else(|| unreachable!("the server is there until the value is dropped"))
    }
}

/// Gives a server directory data that was made once for the test run, which spares the server's first start initdb.
///
/// # Panics
/// When it cannot be copied.
pub fn seed(dir: &Path) {
    Shared::get().seed(dir).unwrap_or_else(|error| panic!("no data for this test: {error}"));
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.server = None;
        // The keeper removes what could not be removed now.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
