//! Dead workers, late holders, poison, a restarted Postgres.

use std::{collections::BTreeSet, time::Duration};

use muneem_jobs::{
    MIGRATOR,
    queue::{
        self, JobContext, JobState, Lane, LostLease,
        work::{self, Held, Want},
    },
};
use muneem_postgres::testing::TestServer;
use muneem_tests::{
    probe::{Act, Patient, Probe, Quick, Serial},
    until,
    workers::QueueUnderTest,
};
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

const WANT: Want = Want { lane: Lane::Transactional, jobs: 10, after: Uuid::nil() };

fn patient(probe: i64, n: i64, act: Act) -> Patient {
    Patient { probe, n, act, group: None }
}

/// Joins as a worker with `places` and takes up to ten jobs.
async fn claim_as(system: &QueueUnderTest, places: usize) -> (i64, Vec<work::Claimed>) {
    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "doomed", Duration::from_secs(60), places).await.unwrap();
    let claimed = work::claim(&mut conn, worker, &[WANT]).await.unwrap();
    (worker, claimed)
}

/// Lets a worker's lease run out.
async fn let_run_out(system: &QueueUnderTest, worker: i64) {
    sqlx::query(
        "update muneem.queue_workers set lease_until = clock_timestamp() - interval '1 ms' where worker_id = $1",
    )
    .bind(worker)
    .execute(&system.owner)
    .await
    .unwrap();
}

/// Claims as a worker that then dies.
async fn die_with_jobs_in_hand(system: &QueueUnderTest) -> (i64, Vec<work::Claimed>) {
    let (dead, claimed) = claim_as(system, 16).await;
    let_run_out(system, dead).await;
    (dead, claimed)
}

fn held(claimed: &work::Claimed) -> Held {
    Held { job: claimed.job, attempt: claimed.attempt }
}

#[tokio::test]
async fn a_dead_workers_jobs_run_elsewhere_and_its_late_writes_change_nothing() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let (dead, claimed) = die_with_jobs_in_hand(&system).await;
    assert_eq!(claimed.len(), 1);
    let worker = system.work();
    let done = system.until_state(id, JobState::Done).await;
    assert_eq!((done.attempt, probe.count()), (2, 1));

    let mut conn = system.pool.acquire().await.unwrap();
    let held = Held { job: id, attempt: claimed[0].attempt };
    assert_eq!(work::finish(&mut conn, dead, &[(held, None)]).await.unwrap(), []);
    let back = work::PutBack { held, run_at: None, counts: true, cause: None, error: None };
    assert_eq!(work::put_back(&mut conn, dead, &[back]).await.unwrap(), []);
    let buried = work::Buried { held, cause: "late", error: String::new() };
    assert_eq!(work::bury(&mut conn, dead, &[buried]).await.unwrap(), []);
    let late = JobContext { job: id, attempt: held.attempt, worker: dead, ..system.context() };
    assert!(matches!(late.begin().await, Err(LostLease::Lost(..))), "a late handler gets no transaction");
    assert!(!work::beat(&mut conn, dead, Duration::from_secs(1)).await.unwrap(), "nor its lease back");
    drop(conn);
    worker.stop().await;
    assert_eq!(system.rows("queue_history").await, 1);
    assert_eq!(system.rows("queue_dead").await, 0);
}

#[tokio::test]
async fn a_late_holders_acknowledgement_does_not_end_the_next_attempt() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = system.enqueue(&patient(number, 1, Act::Wait)).await;
    let (dead, claimed) = die_with_jobs_in_hand(&system).await;
    let worker = system.work();
    until("the second attempt runs", || async { probe.count() == 1 }).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let held = Held { job: id, attempt: claimed[0].attempt };
    assert_eq!(work::finish(&mut conn, dead, &[(held, None)]).await.unwrap(), []);
    assert_eq!(system.job(id).await.state, JobState::Running);
    drop(conn);
    until("it ends", || async {
        probe.open.notify_waiters();
        system.job(id).await.state == JobState::Done
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_set_aside_and_the_innocent_run() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let poison = system.enqueue(&patient(number, 666, Act::Succeed)).await;
    let mut innocent = Vec::new();
    for n in 0..4 {
        innocent.push(system.enqueue(&patient(number, n, Act::Succeed)).await);
    }
    let mut conn = system.pool.acquire().await.unwrap();
    // Two workers die with all five in hand: all are suspects, and from now on suspects run alone.
    for _ in 0..2 {
        let (_, claimed) = die_with_jobs_in_hand(&system).await;
        assert_eq!(claimed.len(), 5);
        work::tick(&mut conn).await.unwrap();
    }
    // A third dies with the one it was given.
    let (_, claimed) = die_with_jobs_in_hand(&system).await;
    assert_eq!(claimed.iter().map(|one| one.job).collect::<Vec<_>>(), [poison]);
    work::tick(&mut conn).await.unwrap();
    drop(conn);
    let dead = system.job(poison).await;
    assert_eq!((dead.state, dead.cause.as_deref()), (JobState::Dead, Some("queue.poison")));
    let worker = system.work();
    for id in innocent {
        system.until_state(id, JobState::Done).await;
    }
    worker.stop().await;
    assert_eq!(probe.runs().iter().map(|run| run.n).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(system.rows("queue_slots").await, 0);
}

#[tokio::test]
async fn a_suspect_whose_handler_fails_makes_room_for_the_next_of_its_key() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let serial = |n| Serial { probe: number, n, act: Act::Succeed, group: Some("asha".into()) };
    let suspect = system.enqueue(&serial(1)).await;
    let next = system.enqueue(&serial(2)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    for _ in 0..2 {
        work::tick(&mut conn).await.unwrap();
        let (_, claimed) = die_with_jobs_in_hand(&system).await;
        assert_eq!(claimed.iter().map(|one| one.job).collect::<Vec<_>>(), [suspect]);
    }
    work::tick(&mut conn).await.unwrap();
    assert_eq!(system.rows("queue_slots").await, 2, "its key's and the quarantine's");
    let (worker, claimed) = claim_as(&system, 16).await;
    assert_eq!(claimed.iter().map(|one| one.job).collect::<Vec<_>>(), [suspect], "alone");
    let later = muneem_jobs::outbound::Clock::now(&*system.clock) + chrono::TimeDelta::hours(1);
    let back = work::PutBack {
        held: held(&claimed[0]),
        run_at: Some(later),
        counts: true,
        cause: Some("probe.again"),
        error: None,
    };
    assert_eq!(work::put_back(&mut conn, worker, &[back]).await.unwrap(), [suspect]);
    assert_eq!(system.rows("queue_slots").await, 0, "both are free");
    work::tick(&mut conn).await.unwrap();
    let got = work::claim(&mut conn, worker, &[WANT]).await.unwrap();
    assert_eq!(got.iter().map(|one| one.job).collect::<Vec<_>>(), [next]);
}

#[tokio::test]
async fn a_worker_whose_lease_is_taken_stops_its_jobs_and_begins_anew() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = system.enqueue(&patient(number, 1, Act::Wait)).await;
    let worker = system.work();
    until("it runs", || async { probe.count() == 1 }).await;
    // As if it had been silent for longer than its lease: somebody reaps it, before it breathes again or reaps itself.
    let mut tx = system.owner.begin().await.unwrap();
    sqlx::query("update muneem.queue_workers set lease_until = now() - interval '1 second'")
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(work::tick(&mut tx).await.unwrap().reaped, 1);
    tx.commit().await.unwrap();
    until("the same process runs it again, as a new incarnation", || async { probe.count() == 2 }).await;
    until("it ends", || async {
        probe.open.notify_waiters();
        system.job(id).await.state == JobState::Done
    })
    .await;
    assert_eq!(system.job(id).await.attempt, 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_postgres_restart_in_the_middle_loses_and_doubles_nothing() {
    let mut server = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
    let url = server.create_database("drain", Some(&MIGRATOR)).await;
    let options: PgConnectOptions = url.parse().unwrap();
    let system = QueueUnderTest::on(server.pool("drain"), server.pool("drain"), options, None).await;
    let (number, probe) = Probe::new();
    let payloads: Vec<serde_json::Value> =
        (0..600).map(|n| serde_json::json!({ "probe": number, "n": n, "act": "take_a_while" })).collect();
    sqlx::query("select muneem.enqueue_many('test.patient', $1, 'sharma-mobiles')")
        .bind(&payloads)
        .execute(&system.owner)
        .await
        .unwrap();
    let worker = system.work();
    until("some ran", || async { probe.count() > 60 }).await;
    server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.start();
        server
    })
    .await
    .unwrap();
    until("all are done", || async {
        sqlx::query_scalar::<_, i64>("select count(*) from muneem.queue_history")
            .fetch_one(&system.owner)
            .await
            .is_ok_and(|done| done == 600)
    })
    .await;
    worker.stop().await;
    assert_eq!(system.rows("queue_jobs").await, 0);
    let mut ran: Vec<i64> = probe.runs().iter().map(|run| run.n).collect();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran, (0..600).collect::<Vec<_>>());
    drop(server);
}

#[tokio::test]
async fn a_clock_set_back_neither_loses_nor_repeats() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    sqlx::query("update muneem.law_clock set moved_by = interval '3 days'").execute(&system.owner).await.unwrap();
    let before = system.enqueue(&Quick { probe: number, n: 1, act: Act::Succeed, group: None }).await;
    system.until_state(before, JobState::Done).await;
    sqlx::query("update muneem.law_clock set moved_by = interval '-2 days'").execute(&system.owner).await.unwrap();
    system.clock.advance(chrono::TimeDelta::days(-2));
    let after = system.enqueue(&Quick { probe: number, n: 2, act: Act::Succeed, group: None }).await;
    system.until_state(after, JobState::Done).await;
    let retried = system.enqueue(&Quick { probe: number, n: 3, act: Act::FailTwice, group: None }).await;
    assert_eq!(system.until_state(retried, JobState::Done).await.attempt, 3);
    worker.stop().await;
    assert_eq!(probe.count(), 5);
    let mut conn = system.pool.acquire().await.unwrap();
    assert!(queue::list_jobs(&mut conn, &queue::JobFilter::default(), 10).await.unwrap().len() == 3);
}

#[tokio::test]
async fn a_lease_that_ran_out_claims_nothing_and_stays_out() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let (worker, _) = claim_as(&system, 16).await;
    let_run_out(&system, worker).await;
    system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    assert_eq!(work::claim(&mut conn, worker, &[WANT]).await.unwrap().len(), 0);
    assert!(!work::beat(&mut conn, worker, Duration::from_secs(60)).await.unwrap());
    assert_eq!(work::claim(&mut conn, worker, &[WANT]).await.unwrap().len(), 0, "the beat did not bring it back");
}

#[tokio::test]
async fn who_leaves_hands_back_what_it_holds_and_a_lost_claim_goes_back_too() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let first = system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let (worker, claimed) = claim_as(&system, 16).await;
    let second = system.enqueue(&patient(number, 2, Act::Succeed)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let lost = work::claim(&mut conn, worker, &[WANT]).await.unwrap();
    assert_eq!(lost.len(), 1, "its answer never arrives");
    assert_eq!(work::release(&mut conn, worker, Some(claimed[0].claimed_at)).await.unwrap(), 1);
    assert_eq!(system.job(second).await.state, JobState::Ready);
    assert_eq!(system.job(first).await.state, JobState::Running, "what it knows of stays in its hand");
    work::leave(&mut conn, worker).await.unwrap();
    let back = system.job(first).await;
    assert_eq!((back.state, back.attempt), (JobState::Ready, 0), "and costs no attempt");
}

#[tokio::test]
async fn a_forgiven_attempt_does_not_bring_its_fencing_token_back() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let id = system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let (worker, claimed) = claim_as(&system, 16).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let back = work::PutBack { held: held(&claimed[0]), run_at: None, counts: false, cause: None, error: None };
    assert_eq!(work::put_back(&mut conn, worker, std::slice::from_ref(&back)).await.unwrap(), [id]);
    let again = work::claim(&mut conn, worker, &[WANT]).await.unwrap();
    assert_eq!(work::put_back(&mut conn, worker, &[back]).await.unwrap(), [], "the repeated write is the old hold's");
    assert_eq!(work::finish(&mut conn, worker, &[(held(&again[0]), None)]).await.unwrap(), [id]);
    assert_eq!(system.job(id).await.attempt, 1);
}

#[tokio::test]
async fn a_cancelled_job_that_fails_or_loses_its_worker_does_not_run_again() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let failing = system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let (worker, claimed) = claim_as(&system, 16).await;
    let orphan = system.enqueue(&patient(number, 2, Act::Succeed)).await;
    let (dead, _) = die_with_jobs_in_hand(&system).await;
    assert_ne!(worker, dead);
    let mut conn = system.owner.acquire().await.unwrap();
    for id in [failing, orphan] {
        assert!(queue::cancel(&mut conn, id, &system.by()).await.unwrap());
    }
    let back = work::PutBack { held: held(&claimed[0]), run_at: None, counts: true, cause: Some("x"), error: None };
    work::put_back(&mut conn, worker, &[back]).await.unwrap();
    work::tick(&mut conn).await.unwrap();
    for id in [failing, orphan] {
        assert_eq!(system.job(id).await.state, JobState::Cancelled);
    }
}

#[tokio::test]
async fn blame_falls_on_what_can_have_begun_and_ends_when_a_handler_ends_by_itself() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    for n in 0..5 {
        system.enqueue(&patient(number, n, Act::Succeed)).await;
    }
    let (dead, claimed) = claim_as(&system, 2).await;
    assert_eq!(claimed.len(), 5);
    let_run_out(&system, dead).await;
    let mut conn = system.pool.acquire().await.unwrap();
    assert_eq!(work::tick(&mut conn).await.unwrap().reaped, 5);
    let blamed = "select count(*) from muneem.queue_jobs where crashes > 0";
    assert_eq!(sqlx::query_scalar::<_, i64>(blamed).fetch_one(&system.owner).await.unwrap(), 2);
    let (worker, claimed) = claim_as(&system, 16).await;
    let back: Vec<work::PutBack> = claimed
        .iter()
        .map(|one| work::PutBack { held: held(one), run_at: None, counts: true, cause: Some("x"), error: None })
        .collect();
    work::put_back(&mut conn, worker, &back).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(blamed).fetch_one(&system.owner).await.unwrap(), 0);
}

#[tokio::test]
async fn a_business_whose_jobs_all_run_does_not_stand_in_the_way() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    system.enqueue(&patient(number, 1, Act::Succeed)).await;
    let (worker, claimed) = claim_as(&system, 16).await;
    assert_eq!(claimed.len(), 1);
    let waiting = queue::NewJob::of(muneem_tests::workers::VERMA, &patient(number, 2, Act::Succeed)).unwrap();
    let waiting = system.enqueue_as(waiting).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let one = Want { jobs: 1, after: Uuid::nil(), ..WANT };
    let got = work::claim(&mut conn, worker, &[one]).await.unwrap();
    assert_eq!(got.iter().map(|one| one.job).collect::<Vec<_>>(), [waiting]);
}
