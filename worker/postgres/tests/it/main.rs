//! The private server, tried as root or as whoever runs the tests.

mod fetch;
mod programs;
mod server;
mod testdb;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use muneem_postgres::testing::seed;
use muneem_postgres::{Fetch, Options, Server};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// A directory that root's unprivileged user can enter too.
fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("muneem-pg")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory")
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("postgres"));
    options.start_within = Duration::from_secs(100);
    options.durable = false;
    options.fetch = Fetch::nothing();
    options
}

/// The same, with data that was made already.
fn seeded(dir: &Path) -> Options {
    let options = options(dir);
    seed(&options.dir);
    options
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("proc is mounted").uid() == 0
}

/// Says that a test needs something this machine lacks; a complete run has everything.
fn skip(needs: &str) {
    assert!(std::env::var_os("MUNEEM_TESTS_COMPLETE").is_none(), "needs {needs}");
    #[expect(clippy::print_stdout, reason = "a skipped test says what it needs")]
    {
        println!("SKIPPED: needs {needs}");
    }
}

/// Waits for something another process does.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs statements on database `postgres` and returns the value of the last as text.
fn sql(server: &Server, statements: &[&'static str], value: &'static str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut owner = PgConnection::connect(&server.url("postgres")).await.expect("the server answers");
        for statement in statements {
            sqlx::raw_sql(*statement).execute(&mut owner).await.expect(statement);
        }
        sqlx::query_scalar(value).fetch_one(&mut owner).await.expect(value)
    })
}
