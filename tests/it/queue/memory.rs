//! What the queue remembers, and for how long.

use muneem_jobs::queue::{self, Done, ForgetFinished, Job, NewJob, work};
use muneem_tests::{
    probe::{Act, Patient, Probe},
    workers::{QueueUnderTest, SHARMA},
};
use sqlx::AssertSqlSafe;

fn keyed(probe: i64) -> NewJob {
    NewJob::of(SHARMA, &Patient { probe, n: 1, act: Act::Succeed, group: None }).unwrap().key("SM/26-27/00042")
}

/// Runs `queue.forget_finished`; answers its result.
async fn forget(system: &QueueUnderTest) -> serde_json::Value {
    match (ForgetFinished { keep_days: 30 }).run(&system.context()).await.unwrap() {
        Done::Ack(Some(result)) => result,
        other => panic!("it says what it did, not {other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_remembered_from_the_day_its_job_is_due() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let in_forty_days = muneem_jobs::outbound::Clock::now(&*system.clock) + chrono::TimeDelta::days(40);
    let first = system.enqueue_as(keyed(number).run_at(in_forty_days)).await;
    // It ends, so that nothing but the key's own time keeps the key.
    assert!(queue::cancel(&mut system.owner.acquire().await.unwrap(), first, &system.by()).await.unwrap());
    system.move_clock(69).await;
    assert_eq!(forget(&system).await["keys"], 0);
    assert_eq!(system.enqueue_as(keyed(number)).await, first, "a day before its time");
    system.move_clock(71).await;
    assert_eq!(forget(&system).await["keys"], 1);
    assert_ne!(system.enqueue_as(keyed(number)).await, first, "a day past it");
}

#[tokio::test]
async fn keys_of_live_and_dead_jobs_outlive_their_time() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let id = system.enqueue_as(keyed(number)).await;
    system.move_clock(100).await;
    assert_eq!(forget(&system).await["keys"], 0);
    assert_eq!(system.enqueue_as(keyed(number)).await, id, "it is still in line");

    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "gravedigger", std::time::Duration::from_secs(60), 1).await.unwrap();
    let want = work::Want { lane: queue::Lane::Transactional, jobs: 1, after: uuid::Uuid::nil() };
    let claimed = work::claim(&mut conn, worker, &[want]).await.unwrap();
    let held = work::Held { job: id, attempt: claimed[0].attempt };
    work::bury(&mut conn, worker, &[work::Buried { held, cause: "x", error: String::new() }]).await.unwrap();
    system.move_clock(200).await;
    assert_eq!(forget(&system).await["keys"], 0);
    assert_eq!(system.enqueue_as(keyed(number)).await, id, "somebody may still revive it");
    sqlx::query("delete from muneem.queue_dead").execute(&mut *conn).await.unwrap();
    assert_eq!(forget(&system).await["keys"], 1, "nobody can any more");
}

#[tokio::test]
async fn days_of_the_history_go_one_by_one_and_what_is_read_goes_the_next_time() {
    let system = QueueUnderTest::new().await;
    for day in ["2025-01-01", "2025-01-02", "2025-01-03"] {
        let name = day.replace('-', "");
        sqlx::query(AssertSqlSafe(format!(
            "create table muneem.queue_history_{name} partition of muneem.queue_history
            for values from ('{day} 00:00Z') to ('{day} 24:00Z')"
        )))
        .execute(&system.owner)
        .await
        .unwrap();
    }
    let days = || async {
        sqlx::query_scalar::<_, String>(
            "select relname::text from pg_class where relname like 'queue\\_history\\_2025____' and relkind = 'r'
            order by 1",
        )
        .fetch_all(&system.owner)
        .await
        .unwrap()
    };
    assert_eq!(days().await.len(), 3);

    let mut reader = system.owner.begin().await.unwrap();
    sqlx::query("select from muneem.queue_history").execute(&mut *reader).await.unwrap();
    let nothing = forget(&system).await;
    assert_eq!((&nothing["days"], &nothing["keys"]), (&0.into(), &0.into()), "behind a reader of all of it");
    assert_eq!(days().await.len(), 3);
    reader.rollback().await.unwrap();

    let mut reader = system.owner.begin().await.unwrap();
    sqlx::query("select from muneem.queue_history_20250102").execute(&mut *reader).await.unwrap();
    let some = forget(&system).await;
    assert_eq!((&some["days"], &some["left"]), (&2.into(), &1.into()), "behind a reader of one day");
    assert_eq!(days().await, ["queue_history_20250102"]);
    reader.rollback().await.unwrap();

    let rest = forget(&system).await;
    assert_eq!((&rest["days"], &rest["left"]), (&1.into(), &0.into()));
    assert_eq!(days().await, Vec::<String>::new());
    let coming: i64 = sqlx::query_scalar(
        "select count(*) from generate_series(0, 3) ahead
        where to_regclass('muneem.queue_history_'
            || to_char((now() at time zone 'UTC')::date + ahead, 'YYYYMMDD')) is not null",
    )
    .fetch_one(&system.owner)
    .await
    .unwrap();
    assert_eq!(coming, 4, "today and the coming days");
}
