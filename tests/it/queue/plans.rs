//! What the hot statements cost at a million rows: pages touched, not time.

use muneem_jobs::queue::{self, NewJob, work};
use muneem_tests::{
    probe::{Act, Bulk},
    workers::{QueueUnderTest, SHARMA},
};
use sqlx::{AssertSqlSafe, PgConnection};

/// Pages that a statement read or found in the cache, those of the functions it calls included.
async fn pages(conn: &mut PgConnection, sql: &str) -> i64 {
    let plan: serde_json::Value =
        sqlx::query_scalar(AssertSqlSafe(format!("explain (analyze, buffers, format json) {sql}")))
            .fetch_one(conn)
            .await
            .unwrap();
    let root = &plan[0]["Plan"];
    root["Shared Hit Blocks"].as_i64().unwrap() + root["Shared Read Blocks"].as_i64().unwrap()
}

async fn sequential_scans(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select pg_stat_force_next_flush()::text")
        .fetch_one(&mut *conn)
        .await
        .map(|_: String| ())
        .unwrap();
    sqlx::query("select pg_stat_clear_snapshot()").execute(&mut *conn).await.unwrap();
    sqlx::query_scalar(
        "select seq_scan from pg_stat_user_tables where schemaname = 'muneem' and relname = 'queue_jobs'",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_million_waiting_jobs_cost_the_hot_statements_nothing() {
    let system = QueueUnderTest::new().await;
    let mut conn = system.owner.acquire().await.unwrap();
    // Half of it in line and half for later, over two businesses; statistics as stale as they get.
    sqlx::query(
        "insert into muneem.queue_jobs (
            business_id, rank_at, run_at, enqueued_at, lane, priority, parked, kind, payload)
        select ('00000000-0000-0000-0000-00000000000' || 1 + i % 2)::uuid, now(), now() + i * interval '1 second', now(),
            'bulk', 0, case when i > 500000 then 't' end, 'test.bulk', '{\"probe\": 0, \"n\": 0}'
        from generate_series(1, 1000000) i",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
    let worker = work::join(&mut conn, "planner", std::time::Duration::from_secs(600), 100).await.unwrap();
    let scans = sequential_scans(&mut conn).await;

    let nil = "00000000-0000-0000-0000-000000000000";
    let claim = format!(
        "select * from muneem.queue_claim({worker}, '{{otp,statutory,transactional,bulk,maintenance}}', '{{10,10,10,100,10}}', array_fill('{nil}'::uuid, array[5]))"
    );
    let claimed = pages(&mut conn, &claim).await;
    assert!(claimed < 2500, "a claim of 100 touched {claimed} pages");

    let ids: Vec<i64> = sqlx::query_scalar("select job_id from muneem.queue_jobs where claimed_by = $1 order by 1")
        .bind(worker)
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    assert_eq!(ids.len(), 100);
    let scans_of_the_test = sequential_scans(&mut conn).await - scans;
    let list = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let finish = format!(
        "select * from muneem.queue_finish({worker}, '{{{list}}}', array_fill(1, array[100]), array_fill(null::jsonb, array[100]))"
    );
    let finished = pages(&mut conn, &finish).await;
    assert!(finished < 2500, "an acknowledgement of 100 touched {finished} pages");

    let enqueue = "select muneem.enqueue('test.bulk', '{\"probe\": 0, \"n\": 0}', 'sharma-mobiles', 'one')";
    // The first call in a session reads the catalogue.
    pages(&mut conn, &enqueue.replace("one", "nought")).await;
    let enqueued = pages(&mut conn, enqueue).await;
    assert!(enqueued < 100, "an enqueue touched {enqueued} pages");
    let again = pages(&mut conn, enqueue).await;
    assert!(again < 100, "a known key touched {again} pages");

    let tick = "select * from muneem.queue_tick()";
    pages(&mut conn, tick).await;
    let ticked = pages(&mut conn, tick).await;
    assert!(ticked < 100, "a tick with nothing due touched {ticked} pages");
    assert_eq!(sequential_scans(&mut conn).await - scans, scans_of_the_test, "somebody read the whole table");

    let last = queue::enqueue(
        &mut conn,
        &NewJob::of(SHARMA, &Bulk { probe: 0, n: 0, act: Act::Succeed, group: None }).unwrap().key("two"),
    )
    .await
    .unwrap();
    assert!(queue::cancel(&mut conn, last, &system.by()).await.unwrap());
}

/// A plan that must do without an index looks endlessly dear where sequential scans are off, and Postgres compiles what
/// looks dear: a second per call for a statement of a millisecond.
#[tokio::test]
async fn who_forbids_sequential_scans_forbids_compiling() {
    let system = QueueUnderTest::new().await;
    let forbids: Vec<(String, bool)> = sqlx::query_as(
        "select proname::text, 'jit=off' = any (proconfig) from pg_proc
        where pronamespace = 'muneem'::regnamespace and 'enable_seqscan=off' = any (proconfig)",
    )
    .fetch_all(&system.owner)
    .await
    .unwrap();
    assert!(forbids.iter().any(|(name, _)| name == "queue_claim"), "{forbids:?}");
    assert!(forbids.iter().all(|(_, compiles_never)| *compiles_never), "{forbids:?}");

    // The clock is read inside them, under their settings and a plan of its own.
    let mut conn = system.owner.acquire().await.unwrap();
    sqlx::query("set enable_seqscan = off").execute(&mut *conn).await.unwrap();
    let source: String = sqlx::query_scalar("select prosrc from pg_proc where oid = 'muneem.now'::regproc")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    let expression = source.split("return").nth(1).unwrap().split(';').next().unwrap();
    let plan: serde_json::Value =
        sqlx::query_scalar(AssertSqlSafe(format!("explain (format json) select {expression}")))
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    let cost = plan[0]["Plan"]["Total Cost"].as_f64().unwrap();
    assert!(cost < 100.0, "asking for the present looks as dear as {cost}");
}
