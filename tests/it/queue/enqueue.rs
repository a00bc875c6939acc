//! The way in: what `muneem.enqueue` takes and what it refuses.

use muneem_jobs::{
    id::JobId,
    queue::{self, JobState, Lane, NewJob},
};
use muneem_tests::{
    probe::{Act, Patient, Probe, Quick},
    until,
    workers::{QueueUnderTest, SHARMA, VERMA},
};
use serde_json::json;
use sqlx::AssertSqlSafe;

fn quick(probe: i64, n: i64) -> Quick {
    Quick { probe, n, act: Act::Succeed, group: None }
}

/// SQLSTATE, message and hint of a statement that must fail.
async fn refusal(system: &QueueUnderTest, sql: &str) -> String {
    let error =
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&system.owner).await.expect_err("it must be refused");
    let database = error.as_database_error().expect("the database refuses it");
    let hint = database
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(|error| error.hint())
        .unwrap_or("no hint");
    format!("{} {}\n  {}", database.code().unwrap_or_default(), database.message(), hint)
}

#[tokio::test]
async fn what_is_off_is_refused_with_a_reason_and_a_mend() {
    let system = QueueUnderTest::new().await;
    muneem_jobs::schema::migrate(&mut system.owner.acquire().await.unwrap()).await.unwrap();
    let mut said = Vec::new();
    for call in [
        r#"muneem.enqueue('test.unknown', '{}', 'sharma-mobiles')"#,
        r#"muneem.enqueue(null, '{}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '[]', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', null, 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": "one", "n": 1.5}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1, "group": [1]}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'nobody')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'sharma-mobiles', '')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'sharma-mobiles', repeat('k', 201))"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'sharma-mobiles', lane => 'fast')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'sharma-mobiles', priority => 5000::smallint)"#,
        r#"muneem.enqueue('test.quick', jsonb_build_object('probe', 1, 'n', 1, 'group',
            (select string_agg(md5(i::text), '') from generate_series(1, 330000) i)), 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1, "group": "a\u0000b"}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1, "group": "\ud800"}', 'sharma-mobiles')"#,
        r#"muneem.enqueue('test.quick', '{"probe": 1, "n": 1}', 'sharma-mobiles', run_at => 'infinity')"#,
        r#"muneem.enqueue('queue.forget_finished', '{"keep_days": 1}', 'sharma-mobiles')"#,
        r#"muneem.enqueue_many('test.quick', array['{"probe": 1, "n": 1}', '{"probe": 1}']::jsonb[], 'sharma-mobiles')"#,
    ] {
        said.push(refusal(&system, &format!("select {call}")).await);
    }
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(system.rows("queue_jobs").await, 0, "a refused enqueue changes nothing");
    assert_eq!(system.rows("queue_keys").await, 0);
}

#[tokio::test]
async fn a_committed_job_runs_and_a_rolled_back_one_never_does() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let mut tx = system.pool.begin().await.unwrap();
    let gone = queue::enqueue(&mut tx, &NewJob::of(SHARMA, &quick(number, 1)).unwrap().key("order-1")).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = system.pool.begin().await.unwrap();
    let kept = queue::enqueue(&mut tx, &NewJob::of(SHARMA, &quick(number, 2)).unwrap().key("order-1")).await.unwrap();
    tx.commit().await.unwrap();
    let worker = system.work();
    let done = system.until_state(kept, JobState::Done).await;
    worker.stop().await;
    assert_eq!(done.result, Some(json!({ "n": 2 })));
    assert_eq!(probe.runs().iter().map(|run| run.n).collect::<Vec<_>>(), [2]);
    assert_ne!(gone, kept);
}

#[tokio::test]
async fn one_key_is_one_job_however_many_ask_at_once() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..12 {
        let pool = system.owner.clone();
        asking.spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let job = NewJob::of(SHARMA, &quick(number, n)).unwrap().key("SM/26-27/00042");
            let id = queue::enqueue(&mut tx, &job).await.unwrap();
            tx.commit().await.unwrap();
            id
        });
    }
    let mut ids: Vec<JobId> = asking.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(system.rows("queue_jobs").await, 1);
    let other = NewJob::of(VERMA, &quick(number, 99)).unwrap().key("SM/26-27/00042");
    assert_ne!(system.enqueue_as(other).await, ids[0], "another business's key is another key");
}

#[tokio::test]
async fn a_key_outlives_its_job_and_is_forgotten_after_thirty_days() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let job = NewJob::of(SHARMA, &quick(number, 1)).unwrap().key("once");
    let first = system.enqueue_as(job.clone()).await;
    let worker = system.work();
    system.until_state(first, JobState::Done).await;
    assert_eq!(system.enqueue_as(job.clone()).await, first, "done, and still the first job");
    sqlx::query("update muneem.queue_keys set forget_at = now()").execute(&system.owner).await.unwrap();
    let second = system.enqueue_as(job).await;
    assert_ne!(second, first);
    system.until_state(second, JobState::Done).await;
    worker.stop().await;
    assert_eq!(probe.count(), 2);
}

#[tokio::test]
async fn run_at_is_kept_to_the_millisecond() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    let begun = std::time::Instant::now();
    let at = muneem_jobs::outbound::Clock::now(&*system.clock) + chrono::TimeDelta::milliseconds(637);
    let id = system.enqueue_as(NewJob::of(SHARMA, &quick(number, 1)).unwrap().run_at(at)).await;
    assert_eq!(system.job(id).await.state, JobState::Scheduled);
    system.until_state(id, JobState::Done).await;
    worker.stop().await;
    let waited = probe.runs()[0].begun.duration_since(begun).as_millis();
    assert!(waited >= 636, "it began {waited} ms after the enqueue");
    let stored: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select claimed_at from muneem.queue_history where job_id = $1")
            .bind(id.0)
            .fetch_one(&system.owner)
            .await
            .unwrap();
    assert!(stored >= at, "claimed before it was due");
}

#[tokio::test]
async fn many_at_once_come_in_order_and_run() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let payloads: Vec<serde_json::Value> = (0..500).map(|n| json!({ "probe": number, "n": n })).collect();
    let ids: Vec<i64> = sqlx::query_scalar("select muneem.enqueue_many('test.quick', $1, 'sharma-mobiles')")
        .bind(&payloads)
        .fetch_all(&system.owner)
        .await
        .unwrap();
    assert!(ids.is_sorted() && ids.len() == 500);
    let keys: Vec<String> = (0..3).map(|n| format!("k{}", n % 2)).collect();
    let keyed: Vec<i64> = sqlx::query_scalar("select muneem.enqueue_many('test.quick', $1, 'sharma-mobiles', $2)")
        .bind(&payloads[..3])
        .bind(&keys)
        .fetch_all(&system.owner)
        .await
        .unwrap();
    assert_eq!(keyed[0], keyed[2], "the same key is the same job");
    let worker = system.work();
    until("all ran", || async { probe.count() == 502 }).await;
    worker.stop().await;
    let mut ran: Vec<i64> = probe.runs().iter().map(|run| run.n).collect();
    ran.sort_unstable();
    let mut wanted: Vec<i64> = (0..500).chain([0, 1]).collect();
    wanted.sort_unstable();
    assert_eq!(ran, wanted, "each once, the two keyed ones beside");
    assert_eq!(system.rows("queue_history").await, 502);
    assert_eq!(system.rows("queue_jobs").await, 0);
}

#[tokio::test]
async fn a_frontend_needs_only_execute_and_a_bound_login_names_no_other_business() {
    let system = QueueUnderTest::new().await;
    let login = format!("shop_{}", std::process::id());
    let mut conn = system.owner.acquire().await.unwrap();
    for sql in [
        format!("create role {login} login in role muneem_enqueuer"),
        format!(
            "insert into muneem.people_logins select '{login}', business_id from muneem.people_businesses where handle = 'verma-phones'"
        ),
        format!("set session authorization {login}"),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    }
    let enqueue = "select muneem.enqueue('test.quick', '{\"probe\": 0, \"n\": 0}', $1)";
    let own: i64 = sqlx::query_scalar(enqueue).bind(None::<&str>).fetch_one(&mut *conn).await.unwrap();
    let own = JobId(own);
    let other = sqlx::query_scalar::<_, i64>(enqueue).bind(Some("sharma-mobiles")).fetch_one(&mut *conn).await;
    let other = other.map_err(queue::Error::from);
    assert!(matches!(other, Err(queue::Error::Refused { refusal: queue::Refusal::NoSuchBusiness, .. })), "{other:?}");
    let read = sqlx::query("select * from muneem.queue_jobs").execute(&mut *conn).await;
    assert!(read.is_err(), "no rights on the table");
    let foreign = system.enqueue(&quick(0, 1)).await;
    for (id, cancelled) in [(foreign, false), (own, true)] {
        let asked = sqlx::query_scalar("select muneem.cancel_job($1)").bind(id.0).fetch_one(&mut *conn).await;
        assert_eq!(asked.ok(), Some(cancelled), "another business's job cannot be cancelled");
    }
    sqlx::query("reset session authorization").execute(&mut *conn).await.unwrap();
    assert_eq!(system.job(own).await.business, VERMA);
    for sql in
        [format!("drop owned by {login}"), "delete from muneem.people_logins".to_owned(), format!("drop role {login}")]
    {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    }
}

#[tokio::test]
async fn lanes_and_priorities_make_the_order() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let patient = |n| NewJob::of(SHARMA, &Patient { probe: number, n, act: Act::Succeed, group: None }).unwrap();
    for n in 0..4 {
        system.enqueue_as(patient(n)).await;
    }
    system.enqueue_as(patient(10).priority(5)).await;
    system.enqueue_as(patient(11).priority(-5)).await;
    let settings = muneem::queue::Settings {
        concurrency: 1,
        reserved: [(Lane::Transactional, 1)].into(),
        lanes: vec![Lane::Transactional],
        ..system.settings()
    };
    let worker = system.work_with(settings);
    until("all ran", || async { probe.count() == 6 }).await;
    worker.stop().await;
    assert_eq!(probe.runs().iter().map(|run| run.n).collect::<Vec<_>>(), [10, 0, 1, 2, 3, 11]);
}
