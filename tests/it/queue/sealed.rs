//! Payloads that may be personal lie sealed, whoever enqueued them and whatever becomes of their jobs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use muneem_jobs::{
    id::JobId,
    queue::{
        self, Done, JobContext, JobFilter, JobState, Kind, Lane, NewJob, PayloadState,
        work::{self, Claimed, Held, Lain, Want},
    },
    vault::Vault,
};
use muneem_tests::{
    outside::KeyService,
    probe::{Act, Private, PrivatePatient, Probe, Quick},
    until,
    workers::{QueueUnderTest, SHARMA},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// In every private payload.
const PHONE: &str = "+919876543210";

fn private(probe: i64, n: i64, act: Act) -> Private {
    Private { probe, n, act, group: Some(PHONE.to_owned()) }
}

fn patient(probe: i64, n: i64, act: Act) -> PrivatePatient {
    PrivatePatient { probe, n, act, group: Some(PHONE.to_owned()) }
}

/// As a frontend does, in clear.
async fn by_sql<J: queue::Job>(system: &QueueUnderTest, job: &J) -> JobId {
    let id: i64 = sqlx::query_scalar("select muneem.enqueue($1, $2, 'sharma-mobiles')")
        .bind(J::KIND)
        .bind(json!(job))
        .fetch_one(&system.owner)
        .await
        .expect("a good job is taken");
    JobId(id)
}

#[track_caller]
fn assert_silent(text: &str) {
    assert!(!text.contains(PHONE), "in clear: {text}");
    let hexadecimal: String = PHONE.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains(&hexadecimal), "in bytes: {text}");
}

/// A worker that claims all and does nothing more.
async fn claim_and_die(system: &QueueUnderTest) -> (i64, Vec<Claimed>) {
    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "doomed", Duration::from_secs(60), 16).await.unwrap();
    let want = Want { lane: Lane::Transactional, jobs: 100, after: Uuid::nil() };
    let claimed = work::claim(&mut conn, worker, &[want]).await.unwrap();
    sqlx::query("update muneem.queue_workers set lease_until = now() - interval '1 second' where worker_id = $1")
        .bind(worker)
        .execute(&system.owner)
        .await
        .unwrap();
    work::tick(&mut conn).await.unwrap();
    (worker, claimed)
}

#[tokio::test]
async fn a_payload_from_rust_lies_sealed_from_the_first() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let mut conn = system.pool.acquire().await.unwrap();
    let job = NewJob::of(SHARMA, &private(number, 1, Act::Succeed)).unwrap();
    let refused = queue::enqueue(&mut conn, &job).await;
    assert!(matches!(refused, Err(queue::Error::Refused { refusal: queue::Refusal::NotSealed, .. })), "{refused:?}");

    let id = queue::enqueue_sealed(&mut conn, &system.vault, &job.key("order-1")).await.unwrap();
    assert_eq!(system.job(id).await.payload, Some(PayloadState::Sealed));
    assert_silent(&system.everything().await);
    let again = NewJob::of(SHARMA, &private(number, 2, Act::Succeed)).unwrap().key("order-1");
    assert_eq!(queue::enqueue_sealed(&mut conn, &system.vault, &again).await.unwrap(), id, "its key is its key");

    let worker = system.work();
    let done = system.until_state(id, JobState::Done).await;
    worker.stop().await;
    assert_eq!((done.payload, probe.runs().iter().map(|run| run.n).collect::<Vec<_>>()), (None, vec![1]));
    assert_silent(&system.everything().await);
}

#[tokio::test]
async fn a_payload_off_its_schema_is_refused_before_it_is_sealed_with_the_same_words() {
    let system = QueueUnderTest::new().await;
    let mut conn = system.pool.acquire().await.unwrap();
    for payload in [json!({ "probe": 1 }), json!([]), json!({ "probe": 1, "n": "one", "group": PHONE })] {
        let by_sql = sqlx::query("select muneem.enqueue('test.private', $1, 'sharma-mobiles')")
            .bind(&payload)
            .execute(&system.owner)
            .await
            .map_err(queue::Error::from);
        let from_rust =
            queue::enqueue_sealed(&mut conn, &system.vault, &NewJob::named("test.private", SHARMA, payload)).await;
        let (by_sql, from_rust) = (by_sql.expect_err("refused"), from_rust.expect_err("refused"));
        assert_eq!(format!("{by_sql:?}"), format!("{from_rust:?}"));
        assert_silent(&format!("{from_rust:?}"));
    }
    assert_eq!(system.rows("queue_jobs").await, 0);
}

#[tokio::test]
async fn a_payload_by_sql_is_sealed_before_its_job_begins() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = by_sql(&system, &patient(number, 1, Act::Wait)).await;
    assert_eq!(system.job(id).await.payload, Some(PayloadState::Clear));
    let worker = system.work();
    until("it runs", || async { probe.count() == 1 }).await;
    let running = system.job(id).await;
    assert_eq!((running.state, running.payload), (JobState::Running, Some(PayloadState::Sealed)));
    assert_silent(&system.everything().await);
    probe.open.notify_one();
    system.until_state(id, JobState::Done).await;

    let payloads: Vec<_> = (0..500).map(|n| json!(private(number, n, Act::Succeed))).collect();
    sqlx::query("select muneem.enqueue_many('test.private', $1, 'sharma-mobiles')")
        .bind(&payloads)
        .execute(&system.owner)
        .await
        .unwrap();
    until("all ran", || async { system.rows("queue_jobs").await == 0 }).await;
    worker.stop().await;
    assert_eq!(probe.count(), 501);
    assert_silent(&system.everything().await);
}

#[tokio::test]
async fn atk_101_a_dead_letter_keeps_its_payload_sealed_and_is_tried_again() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    let mut dead = Vec::new();
    for act in [Act::Fail, Act::AlwaysRetry, Act::Panic, Act::UnholdableFailure, Act::UnholdableResult] {
        dead.push(by_sql(&system, &private(number, 1, act)).await);
        dead.push(system.enqueue(&private(number, 1, act)).await);
    }
    for id in &dead {
        let letter = system.until_state(*id, JobState::Dead).await;
        assert_eq!(letter.payload, Some(PayloadState::Sealed));
        assert_silent(&serde_json::to_string(&letter).unwrap());
    }
    assert_silent(&system.everything().await);

    let ran = probe.count();
    let mut conn = system.pool.acquire().await.unwrap();
    assert!(queue::retry(&mut conn, dead[0], &system.by()).await.unwrap());
    until("it ran again", || async { probe.count() == ran + 1 }).await;
    system.until_state(dead[0], JobState::Dead).await;
    let filter = JobFilter { cause: Some("probe.for_good".to_owned()), ..JobFilter::default() };
    assert_eq!(queue::retry_many(&mut conn, &filter, 100, &system.by()).await.unwrap(), 2);
    until("both ran again", || async { probe.count() == ran + 3 && system.rows("queue_dead").await == 10 }).await;
    worker.stop().await;
    assert_silent(&system.everything().await);
}

#[tokio::test]
async fn atk_074_without_keys_private_jobs_wait_and_others_run() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let waiting = [
        by_sql(&system, &private(number, 1, Act::Succeed)).await,
        system.enqueue(&private(number, 2, Act::Succeed)).await,
    ];
    let service = Arc::new(KeyService::new());
    service.down.store(true, Ordering::SeqCst);
    let worker = system.work_by(system.vault_over(service.clone()));
    let other = system.enqueue(&Quick { probe: number, n: 3, act: Act::Succeed, group: None }).await;
    system.until_state(other, JobState::Done).await;
    for id in waiting {
        let job = system.until_state(id, JobState::Retrying).await;
        assert_eq!((job.cause.as_deref(), job.attempt), (Some("vault.sealed"), 0), "it waits, and no attempt is used");
    }
    assert_eq!(probe.count(), 1);
    service.down.store(false, Ordering::SeqCst);
    system.move_clock(1).await;
    for id in waiting {
        system.until_state(id, JobState::Done).await;
    }
    worker.stop().await;
    assert_eq!(probe.count(), 3);
    assert_silent(&system.everything().await);
}

#[tokio::test]
async fn while_the_key_service_does_not_answer_others_run_and_the_worker_ends_in_peace() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let stuck = [
        by_sql(&system, &private(number, 1, Act::Succeed)).await,
        system.enqueue(&private(number, 2, Act::Succeed)).await,
    ];
    let service = Arc::new(KeyService::new());
    service.hangs.store(true, Ordering::SeqCst);
    let worker = system.work_by(system.vault_over(service));
    for id in stuck {
        system.until_state(id, JobState::Running).await;
    }
    let other = system.enqueue(&Quick { probe: number, n: 3, act: Act::Succeed, group: None }).await;
    system.until_state(other, JobState::Done).await;
    worker.stop().await;
    for id in stuck {
        let job = system.job(id).await;
        assert_eq!((job.state, job.attempt), (JobState::Ready, 0), "back in line, unbegun");
    }
    let worker = system.work();
    for id in stuck {
        system.until_state(id, JobState::Done).await;
    }
    worker.stop().await;
    assert_eq!(probe.count(), 3);
}

#[tokio::test]
async fn a_payload_whose_key_is_gone_dies_and_says_so() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = system.enqueue(&private(number, 1, Act::Succeed)).await;
    sqlx::query("update muneem.vault_keys set state = 'retired' where class = 'payload'")
        .execute(&system.owner)
        .await
        .unwrap();
    let worker = system.work_by(system.vault_over(Arc::new(KeyService::new())));
    let mut conn = system.pool.acquire().await.unwrap();
    for _ in 0..2 {
        let letter = system.until_state(id, JobState::Dead).await;
        assert_eq!(letter.cause.as_deref(), Some("vault.unreadable"));
        assert!(letter.error.as_deref().is_some_and(|error| error.contains("its key is gone")), "{letter:?}");
        queue::retry(&mut conn, id, &system.by()).await.unwrap();
    }
    // A restore of the key mends it.
    sqlx::query("update muneem.vault_keys set state = 'decrypt_only' where class = 'payload'")
        .execute(&system.owner)
        .await
        .unwrap();
    until("it ran", || async {
        queue::retry(&mut system.pool.acquire().await.unwrap(), id, &system.by()).await.unwrap();
        system.job(id).await.state == JobState::Done
    })
    .await;
    worker.stop().await;
    assert_eq!(probe.count(), 1);
}

#[tokio::test]
async fn a_crash_between_claim_and_seal_leaves_it_in_line_and_no_clear_dead_letter() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let id = by_sql(&system, &private(number, 1, Act::Succeed)).await;
    let mut last = 0;
    for _ in 0..4 {
        let (worker, claimed) = claim_and_die(&system).await;
        assert_eq!(claimed.iter().map(|one| one.job).collect::<Vec<_>>(), [id]);
        assert!(matches!(claimed[0].payload, Lain::Clear(_)));
        // It was told to die and did not: what it seals now is nobody's.
        let held = Held { job: id, attempt: claimed[0].attempt };
        let mut conn = system.pool.acquire().await.unwrap();
        let sealed = claimed[0].seal(&mut conn, &system.vault).await.unwrap().expect("it lay in clear");
        assert_eq!(work::seal(&mut conn, worker, &[(held, sealed)]).await.unwrap(), []);
        last = claimed[0].attempt;
    }
    let (state, crashes): (JobState, i16) = (
        system.job(id).await.state,
        sqlx::query_scalar("select crashes from muneem.queue_jobs").fetch_one(&system.owner).await.unwrap(),
    );
    assert_eq!((state, crashes, last), (JobState::Ready, 0, 4), "who has not begun is not blamed");
    let worker = system.work();
    system.until_state(id, JobState::Done).await;
    worker.stop().await;
    assert_eq!(probe.count(), 1);
    assert_silent(&system.everything().await);
}

/// Runs `queue.seal_waiting` once; what it says it did.
async fn sweep(system: &QueueUnderTest, vault: Arc<Vault>) -> Value {
    let context = JobContext { deps: system.deps_with(vault), ..system.context() };
    let kind = Kind::of::<queue::SealWaiting>();
    match kind.run("{}", &context).await.unwrap() {
        Done::Ack(Some(said)) => said,
        other => panic!("it says what it did: {other:?}"),
    }
}

#[tokio::test]
async fn atk_101_what_waits_for_its_time_does_not_lie_in_clear_until_then() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let payloads: Vec<_> = (0..300).map(|n| json!(private(number, n, Act::Succeed))).collect();
    sqlx::query("select muneem.enqueue_many('test.private', $1, 'sharma-mobiles', run_at => now() + interval '1 day')")
        .bind(&payloads)
        .execute(&system.owner)
        .await
        .unwrap();
    // A dead letter of a version that did not seal, and a job that somebody claims while it is being sealed.
    let dead = by_sql(&system, &private(number, 300, Act::Succeed)).await;
    sqlx::query(
        "with gone as (delete from muneem.queue_jobs where job_id = $1 returning *)
         insert into muneem.queue_dead (job_id, business_id, enqueued_at, died_at, attempt, crashes, lane, priority, kind,
             cause, payload, to_seal)
         select job_id, business_id, enqueued_at, now(), 1, 0, lane, priority, kind, 'probe.failed', payload, true
         from gone",
    )
    .bind(dead.0)
    .execute(&system.owner)
    .await
    .unwrap();
    let running = by_sql(&system, &patient(number, 301, Act::Succeed)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "slow", Duration::from_secs(60), 16).await.unwrap();
    let want = Want { lane: Lane::Transactional, jobs: 100, after: Uuid::nil() };
    let claimed = work::claim(&mut conn, worker, &[want]).await.unwrap();
    assert_eq!(claimed.iter().map(|one| one.job).collect::<Vec<_>>(), [running]);
    assert!(system.everything().await.contains(PHONE), "the look sees what lies in clear");

    let service = Arc::new(KeyService::new());
    service.down.store(true, Ordering::SeqCst);
    assert_eq!(sweep(&system, system.vault_over(service)).await, json!({ "sealed": 0, "left": 301 }));
    assert_eq!(sweep(&system, Arc::clone(&system.vault)).await, json!({ "sealed": 301, "left": 0 }));
    assert_eq!(sweep(&system, Arc::clone(&system.vault)).await, json!({ "sealed": 0, "left": 0 }));
    assert_eq!(system.job(running).await.payload, Some(PayloadState::Clear), "its worker seals it");
    work::leave(&mut conn, worker).await.unwrap();
    assert_eq!(sweep(&system, Arc::clone(&system.vault)).await, json!({ "sealed": 1, "left": 0 }));
    assert_silent(&system.everything().await);

    assert!(queue::retry(&mut conn, dead, &system.by()).await.unwrap());
    system.move_clock(2).await;
    let worker = system.work();
    until("all ran", || async { probe.count() == 302 && system.rows("queue_jobs").await == 0 }).await;
    worker.stop().await;
}

/// A payload that was replaced by its handler is not brought back by a sweep that read it before.
#[tokio::test]
async fn a_sweep_that_read_a_payload_before_its_handler_replaced_it_writes_nothing() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let id = by_sql(&system, &private(number, 1, Act::Succeed)).await;
    let mut sweeper = system.owner.begin().await.unwrap();
    // The sweep waits for this lock, having read.
    sqlx::query("select from muneem.queue_jobs for update").execute(&mut *sweeper).await.unwrap();
    let sweeping = {
        let context = system.context();
        tokio::spawn(async move { Kind::of::<queue::SealWaiting>().run("{}", &context).await })
    };
    until("it waits for the lock", || async {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%seal%'",
        )
        .fetch_one(&system.owner)
        .await
        .unwrap();
        waiting == 1
    })
    .await;
    sqlx::query("update muneem.queue_jobs set payload = '{}', to_seal = false, attempt = attempt + 1")
        .execute(&mut *sweeper)
        .await
        .unwrap();
    sweeper.commit().await.unwrap();
    let Done::Ack(Some(said)) = sweeping.await.unwrap().unwrap() else { panic!("it says what it did") };
    assert_eq!(said, json!({ "sealed": 0, "left": 0 }));
    assert_eq!(system.job(id).await.payload, Some(PayloadState::Clear));
    assert_silent(&system.everything().await);
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_set_aside_sealed() {
    let system = QueueUnderTest::new().await;
    let (number, _) = Probe::new();
    let id = system.enqueue(&private(number, 1, Act::Succeed)).await;
    let mut conn = system.pool.acquire().await.unwrap();
    for _ in 0..3 {
        claim_and_die(&system).await;
        work::tick(&mut conn).await.unwrap();
    }
    let letter = system.job(id).await;
    assert_eq!((letter.state, letter.cause.as_deref()), (JobState::Dead, Some("queue.poison")));
    assert_eq!(letter.payload, Some(PayloadState::Sealed));
    assert!(queue::retry(&mut conn, id, &system.by()).await.unwrap());
    let worker = system.work();
    system.until_state(id, JobState::Done).await;
    worker.stop().await;
}
