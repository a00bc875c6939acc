//! Somebody else's locks on the queue, and outcomes that Postgres cannot hold.

use std::time::Duration;

use muneem::queue::Settings;
use muneem_jobs::queue::{
    JobState, Lane,
    work::{self, Buried, Held, PutBack, Want},
};
use muneem_tests::{
    probe::{Act, Patient, Probe, Quick},
    until,
    workers::QueueUnderTest,
};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

fn patient(probe: i64, n: i64, act: Act) -> Patient {
    Patient { probe, n, act, group: None }
}

/// Another session of the owner that locks and stays.
async fn lock(system: &QueueUnderTest, sql: &'static str) -> Transaction<'static, Postgres> {
    let mut holder = system.owner.begin().await.unwrap();
    sqlx::query(sql).execute(&mut *holder).await.unwrap();
    holder
}

const TABLE: &str = "lock table muneem.queue_jobs in access exclusive mode";
const ROWS: &str = "select from muneem.queue_jobs for update";

#[tokio::test]
async fn one_outcome_that_postgres_cannot_hold_keeps_back_no_other() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let first = system.enqueue(&patient(number, 0, Act::Succeed)).await;
    // Acknowledgements wait here, so that what comes after the first is written in one batch.
    let holder = lock(&system, "lock table muneem.queue_history in share mode").await;
    let worker = system.work_with(Settings { lease: Duration::from_secs(60), ..system.settings() });
    until("the first has run", || async { probe.count() == 1 }).await;
    let quick = |n, act| Quick { probe: number, n, act, group: None };
    let good: Vec<_> =
        [system.enqueue(&quick(1, Act::Succeed)).await, system.enqueue(&quick(2, Act::Succeed)).await].into();
    let result = system.enqueue(&quick(3, Act::UnholdableResult)).await;
    let failure = system.enqueue(&quick(4, Act::UnholdableFailure)).await;
    let retried = system.enqueue(&quick(5, Act::UnholdableRetry)).await;
    let failed = system.enqueue(&quick(6, Act::Fail)).await;
    until("all have run", || async { probe.count() == 7 }).await;
    holder.rollback().await.unwrap();

    for id in [first].into_iter().chain(good) {
        assert_eq!(system.until_state(id, JobState::Done).await.attempt, 1);
    }
    let unsaid = Some("what it said is not something Postgres can hold");
    for (id, cause, error, attempts) in [
        (result, "queue.bad_outcome", unsaid, 1),
        (failure, "probe.unholdable", unsaid, 1),
        (retried, "probe.unholdable", unsaid, 3),
        (failed, "probe.for_good", Some("told to fail for good"), 1),
    ] {
        let dead = system.until_state(id, JobState::Dead).await;
        assert_eq!((dead.cause.as_deref(), dead.error.as_deref(), dead.attempt), (Some(cause), error, attempts));
    }
    worker.stop().await;
    assert_eq!(probe.count(), 9, "only the one that asked for it ran again");
}

#[tokio::test]
async fn every_call_gives_up_behind_a_foreign_lock() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let id = system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "waiting", Duration::from_secs(60), 4).await.unwrap();
    let want = Want { lane: Lane::Transactional, jobs: 10, after: Uuid::nil() };
    let claimed = work::claim(&mut conn, worker, &[want]).await.unwrap();
    let held = Held { job: id, attempt: claimed[0].attempt };
    let back = PutBack { held, run_at: None, counts: true, cause: None, error: None };
    let buried = Buried { held, cause: "x", error: String::new() };
    drop(conn);

    for sql in [TABLE, ROWS] {
        let holder = lock(&system, sql).await;
        // Side by side: each waits for the lock on its own.
        let mut calls = tokio::task::JoinSet::new();
        for call in ["claim", "finish", "put back", "bury", "cancel", "release", "leave", "tick"] {
            if sql == ROWS && ["claim", "tick"].contains(&call) {
                continue; // They pass by what is held.
            }
            let (pool, back, buried) = (system.pool.clone(), [back.clone()], [buried.clone()]);
            calls.spawn(async move {
                let mut conn = pool.acquire().await.unwrap();
                let conn = &mut conn;
                let answer = match call {
                    "claim" => work::claim(conn, worker, &[want]).await.map(|_| ()),
                    "finish" => work::finish(conn, worker, &[(held, None)]).await.map(|_| ()),
                    "put back" => work::put_back(conn, worker, &back).await.map(|_| ()),
                    "bury" => work::bury(conn, worker, &buried).await.map(|_| ()),
                    "cancel" => work::finish_cancelled(conn, worker, &[held]).await.map(|_| ()),
                    "release" => work::release(conn, worker, None).await.map(|_| ()),
                    "leave" => work::leave(conn, worker).await,
                    _ => work::tick(conn).await.map(|_| ()),
                };
                (call, answer)
            });
        }
        let ended = tokio::time::timeout(Duration::from_secs(12), calls.join_all()).await.expect("all give up");
        for (call, answer) in ended {
            assert!(answer.is_err(), "{call} passed the lock: {sql}");
        }
        holder.rollback().await.unwrap();
        assert_eq!(system.job(id).await.state, JobState::Running, "and nothing came of it");
    }
}

#[tokio::test]
async fn a_worker_behind_a_foreign_lock_goes_on_once_it_is_gone_and_repeats_nothing() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(system.enqueue(&patient(number, n, Act::Wait)).await);
    }
    let worker = system.work_with(Settings { lease: Duration::from_secs(20), ..system.settings() });
    until("all run", || async { probe.count() == 4 }).await;
    for n in 4..8 {
        ids.push(system.enqueue(&patient(number, n, Act::Succeed)).await);
    }
    for (sql, more) in [(TABLE, 8), (ROWS, 9)] {
        ids.push(system.enqueue(&patient(number, more, Act::Wait)).await);
        until("it runs", || async { probe.runs().iter().any(|run| run.n == more) }).await;
        let holder = lock(&system, sql).await;
        probe.open.notify_waiters();
        let waiting = || async {
            sqlx::query_scalar::<_, String>(
                "select pid || ' ' || query_start from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock' and query like '%queue_finish%'",
            )
            .fetch_optional(&system.owner)
            .await
            .unwrap()
        };
        until("an acknowledgement waits", || async { waiting().await.is_some() }).await;
        let first = waiting().await;
        until("it gives up and comes again", || async {
            let again = waiting().await;
            again.is_some() && again != first
        })
        .await;
        holder.rollback().await.unwrap();
        until("all are done", || async { system.rows("queue_jobs").await == 0 }).await;
    }
    worker.stop().await;
    let mut ran: Vec<i64> = probe.runs().iter().map(|run| run.n).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..10).collect::<Vec<_>>(), "each once");
    assert_eq!(system.rows("queue_history").await, 10);
}
