//! `muneem bench`, interrupted and killed.

use std::process::{Child, Command, Stdio};

use muneem_postgres::testing::TestDb;
use muneem_tests::{binary, until};
use sqlx::PgPool;

fn start(db: &TestDb) -> Child {
    Command::new(binary::path())
        .args(["bench", "evidence", "--json"])
        .env_clear()
        .env("DATABASE_URL", db.server_url())
        .env("HOME", std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn connections(db: &PgPool, bench: u32) -> Option<i64> {
    sqlx::query_scalar(
        "select count(a.pid) from pg_database d left join pg_stat_activity a on a.datid = d.oid
         where d.datname = $1 group by d.oid",
    )
    .bind(format!("muneem_bench_{bench}"))
    .fetch_optional(db)
    .await
    .unwrap()
}

fn end(bench: Child, signal: &str) -> String {
    let sent = Command::new("kill").args([signal, &bench.id().to_string()]).status().unwrap();
    assert!(sent.success(), "it has ended already");
    let ended = bench.wait_with_output().unwrap();
    assert!(!ended.status.success());
    String::from_utf8(ended.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_bench_drops_its_database_and_the_next_one_that_of_a_killed_one() {
    let db = TestDb::empty().await;
    let pool = db.pool();
    for (signal, told) in [("-INT", "interrupted"), ("-TERM", "terminated")] {
        let bench = start(&db);
        let id = bench.id();
        until("it measures", || async { connections(&pool, id).await > Some(8) }).await;
        let said = tokio::task::spawn_blocking(move || end(bench, signal)).await.unwrap();
        assert!(said.contains(told) && said.contains("its database is dropped"), "{said}");
        assert_eq!(connections(&pool, id).await, None);
    }

    let killed = start(&db);
    let left = killed.id();
    until("it measures", || async { connections(&pool, left).await > Some(8) }).await;
    tokio::task::spawn_blocking(move || end(killed, "-KILL")).await.unwrap();
    until("its connections are gone, and its database is not", || async { connections(&pool, left).await == Some(0) })
        .await;
    let next = start(&db);
    until("the next one drops it", || async { connections(&pool, left).await.is_none() }).await;
    tokio::task::spawn_blocking(move || end(next, "-TERM")).await.unwrap();
}
