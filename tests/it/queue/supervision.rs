//! A worker whose parts end or whose database answers badly: it ends loudly or waits, and never spins.

use std::time::Duration;

use muneem_jobs::queue::{JobState, NewJob};
use muneem_tests::{
    PATIENCE,
    probe::{Act, Patient, Probe},
    until,
    workers::{QueueUnderTest, SHARMA},
};
use sqlx::{AssertSqlSafe, PgPool};

fn patient(probe: i64, act: Act) -> Patient {
    Patient { probe, n: 1, act, group: None }
}

#[tokio::test]
async fn a_worker_that_loses_a_part_ends_loudly_and_another_runs_what_it_held() {
    let system = QueueUnderTest::new().await;
    let worker = system.join().await;
    let names: Vec<&str> = worker.parts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["claimer", "opener", "acker", "beat", "cancellations", "listener"]);
    worker.parts().iter().for_each(|(_, part)| part.abort());
    assert!(tokio::time::timeout(PATIENCE, worker.until_end()).await.expect("it ends").is_err(), "all at once");

    for lost in names {
        let (number, probe) = Probe::new();
        let id = system.enqueue(&patient(number, Act::Wait)).await;
        let worker = system.join().await;
        let (_, part) = worker.parts().into_iter().find(|(name, _)| *name == lost).expect("it has this part");
        let working = tokio::spawn(worker.until_end());
        until("it runs", || async { probe.count() == 1 }).await;
        part.abort();
        let ended = tokio::time::timeout(PATIENCE, working).await.expect("it ends").expect("it does not panic");
        assert!(ended.is_err(), "{lost} ended, and the worker says it ended in peace");
        assert_eq!(system.rows("queue_workers").await, 0, "without {lost} it left");
        assert_eq!(system.job(id).await.state, JobState::Ready, "without {lost} the job went in line at once");

        let another = system.work();
        until("another runs it", || async { probe.count() == 2 }).await;
        until("it ends", || async {
            probe.open.notify_waiters();
            system.job(id).await.state == JobState::Done
        })
        .await;
        another.stop().await;
    }
}

/// Puts a counter in front of a function of the queue; `then` is what the counted call does.
async fn count_calls(owner: &PgPool, function: &str, declaration: &str, then: &str) {
    let statements = [
        "create sequence muneem.test_calls".to_owned(),
        "grant usage on sequence muneem.test_calls to muneem_app".to_owned(),
        format!("alter function muneem.{function} rename to {function}_real"),
        format!(
            "create function muneem.{declaration} language plpgsql as $$
            begin
                perform nextval('muneem.test_calls');
                {then};
            end
            $$"
        ),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(owner).await.unwrap();
    }
}

/// Calls in one second, from the first on.
async fn calls_in_a_second(owner: &PgPool) -> i64 {
    let calls = || async {
        sqlx::query_scalar::<_, i64>("select last_value - (not is_called)::integer from muneem.test_calls")
            .fetch_one(owner)
            .await
            .unwrap()
    };
    until("the first call", || async { calls().await > 0 }).await;
    let before = calls().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    calls().await - before
}

const TICK: &str = "queue_tick() returns table (promoted bigint, reaped bigint, next_due timestamptz)";
const CLAIM: &str =
    "queue_claim(worker bigint, lanes muneem.queue_lane[], wanted integer[], after uuid[]) returns table (
    job_id bigint, lane muneem.queue_lane, business_id uuid, attempt integer, uncounted integer,
    enqueued_at timestamptz, claimed_at timestamptz, kind text, payload jsonb, payload_sealed bytea)";

#[tokio::test]
async fn errors_at_once_are_not_asked_for_in_a_busy_loop() {
    for (function, declaration) in [("queue_tick", TICK), ("queue_claim", CLAIM)] {
        let system = QueueUnderTest::new().await;
        let (number, _) = Probe::new();
        system.enqueue(&patient(number, Act::Succeed)).await;
        count_calls(&system.owner, function, declaration, "raise exception 'told to fail'").await;
        let worker = system.work();
        let calls = calls_in_a_second(&system.owner).await;
        worker.stop().await;
        // Pauses of 50, 100, 200, 400 and 800 ms.
        assert!(calls <= 8, "{function} was called {calls} times in a second");
    }
}

#[tokio::test]
async fn due_jobs_that_somebody_else_holds_are_not_asked_for_in_a_busy_loop() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let soon = muneem_jobs::outbound::Clock::now(&*system.clock) + chrono::TimeDelta::milliseconds(1);
    let id = system.enqueue_as(NewJob::of(SHARMA, &patient(number, Act::Succeed)).unwrap().run_at(soon)).await;
    sqlx::query("update muneem.queue_jobs set parked = 't', run_at = now()").execute(&system.owner).await.unwrap();
    let mut holder = system.owner.begin().await.unwrap();
    sqlx::query("select from muneem.queue_jobs for update").execute(&mut *holder).await.unwrap();
    count_calls(&system.owner, "queue_tick", TICK, "return query select * from muneem.queue_tick_real()").await;
    let worker = system.work();
    let calls = calls_in_a_second(&system.owner).await;
    // Every 5 ms at the most.
    assert!(calls <= 220, "queue_tick was called {calls} times in a second");
    holder.rollback().await.unwrap();
    system.until_state(id, JobState::Done).await;
    worker.stop().await;
    assert_eq!(probe.count(), 1);
}
