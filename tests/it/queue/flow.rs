//! What becomes of a job: retried, snoozed, given up, cancelled, one at a time, fairly.

use muneem::queue::Settings;
use muneem_jobs::queue::{self, JobFilter, JobState, Lane, NewJob};
use muneem_tests::{
    probe::{Act, Bulk, Limited, Otp, Patient, Probe, Quick, Serial},
    until,
    workers::{QueueUnderTest, SHARMA, VERMA},
};

fn quick(probe: i64, act: Act) -> Quick {
    Quick { probe, n: 1, act, group: None }
}

#[tokio::test]
async fn failures_are_retried_with_a_pause_kept_in_the_table() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    let id = system.enqueue(&quick(number, Act::FailTwice)).await;
    let done = system.until_state(id, JobState::Done).await;
    worker.stop().await;
    assert_eq!(done.attempt, 3);
    let runs = probe.runs();
    assert_eq!(runs.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(runs[1].begun.duration_since(runs[0].begun).as_millis() >= 15, "at least three quarters of 20 ms");
    assert!(runs[2].begun.duration_since(runs[1].begun).as_millis() >= 30, "at least three quarters of 40 ms");
}

#[tokio::test]
async fn who_never_succeeds_is_dead_with_a_cause_and_can_be_revived() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    for (act, cause, attempts) in [
        (Act::AlwaysRetry, "probe.again", 3),
        (Act::Fail, "probe.for_good", 1),
        (Act::Panic, "queue.panic", 3),
        (Act::Hang, "queue.timeout", 3),
    ] {
        let id = system.enqueue(&quick(number, act)).await;
        let dead = system.until_state(id, JobState::Dead).await;
        assert_eq!((dead.cause.as_deref(), dead.attempt), (Some(cause), attempts), "{act:?}");
    }
    assert_eq!(probe.count(), 10);
    let mut conn = system.pool.acquire().await.unwrap();
    let dead = JobFilter { state: Some(JobState::Dead), cause: Some("probe.for_good".into()), ..JobFilter::default() };
    assert_eq!(queue::list_jobs(&mut conn, &dead, 10).await.unwrap().len(), 1);
    assert_eq!(queue::retry_many(&mut conn, &dead, 10, &system.by()).await.unwrap(), 1);
    drop(conn);
    until("it ran and failed again", || async { probe.count() == 11 && system.rows("queue_dead").await == 4 }).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_is_tried_again_without_it() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    let id = system.enqueue(&quick(number, Act::BlockOnce)).await;
    let done = system.until_state(id, JobState::Done).await;
    assert_eq!((done.attempt, probe.count()), (2, 2));
    let runs = probe.runs();
    let after = runs[1].begun.duration_since(runs[0].begun);
    assert!(after < std::time::Duration::from_secs(2), "it waited for the blocked thread: {after:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_snooze_costs_no_attempt() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let worker = system.work();
    let id = system.enqueue(&quick(number, Act::SnoozeOnce)).await;
    let done = system.until_state(id, JobState::Done).await;
    worker.stop().await;
    assert_eq!((done.attempt, probe.count()), (1, 2));
}

#[tokio::test]
async fn a_payload_that_only_the_handler_can_refuse_is_dead_at_once_and_its_values_stay_out_of_the_error() {
    let system = QueueUnderTest::new().await;
    let id = system
        .enqueue_as(NewJob::named("test.quick", SHARMA, serde_json::json!({ "probe": 1, "n": 1, "act": "Asha Verma" })))
        .await;
    let worker = system.work();
    let dead = system.until_state(id, JobState::Dead).await;
    worker.stop().await;
    assert_eq!(dead.cause.as_deref(), Some("queue.bad_payload"));
    assert_eq!(dead.error.as_deref(), Some("payload of test.quick: `act` is not what its schema says"));
}

#[tokio::test]
async fn waiting_and_running_jobs_can_be_cancelled_and_ended_ones_cannot() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let waiting = system
        .enqueue_as(
            NewJob::of(SHARMA, &quick(number, Act::Succeed))
                .unwrap()
                .run_at(muneem_jobs::outbound::Clock::now(&*system.clock) + chrono::TimeDelta::hours(1)),
        )
        .await;
    let running = system.enqueue(&Patient { probe: number, n: 2, act: Act::Report, group: None }).await;
    let worker = system.work();
    until("it says how far it is", || async { system.job(running).await.progress.is_some() }).await;
    assert_eq!(
        system.job(running).await.progress,
        Some(serde_json::json!({ "done": 3, "total": 10, "note": "a third" }))
    );
    let mut conn = system.owner.acquire().await.unwrap();
    assert!(queue::cancel(&mut conn, waiting, &system.by()).await.unwrap());
    assert!(queue::cancel(&mut conn, running, &system.by()).await.unwrap());
    system.until_state(running, JobState::Cancelled).await;
    assert_eq!(system.job(waiting).await.state, JobState::Cancelled);
    assert!(!queue::cancel(&mut conn, running, &system.by()).await.unwrap());
    worker.stop().await;
    assert_eq!(probe.count(), 1);
}

#[tokio::test]
async fn equal_groups_run_one_at_a_time_in_order_and_others_beside_them() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let (other_number, other) = Probe::new();
    for n in 0..8 {
        system.enqueue(&Serial { probe: number, n, act: Act::TakeAWhile, group: Some("asha".into()) }).await;
        system.enqueue(&Serial { probe: other_number, n, act: Act::TakeAWhile, group: Some(format!("g{n}")) }).await;
    }
    let (first, second) = (system.work(), system.work());
    until("all ran", || async { probe.count() == 8 && other.count() == 8 }).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(probe.runs().iter().map(|run| run.n).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert!(probe.runs().iter().all(|run| run.together == 1));
    assert!(other.runs().iter().any(|run| run.together > 1), "different groups do not wait for each other");
    assert_eq!(system.rows("queue_slots").await, 0);
}

#[tokio::test]
async fn a_limited_kind_never_runs_more_at_once_over_all_workers() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    for n in 0..18 {
        system.enqueue(&Limited { probe: number, n, act: Act::TakeAWhile, group: None }).await;
    }
    let (first, second) = (system.work(), system.work());
    until("all ran", || async { probe.count() == 18 && system.rows("queue_jobs").await == 0 }).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(probe.runs().iter().map(|run| run.together).max(), Some(3));
}

#[tokio::test]
async fn a_small_business_does_not_wait_behind_a_big_one() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    let payloads: Vec<serde_json::Value> = (0..2000).map(|n| serde_json::json!({ "probe": number, "n": n })).collect();
    sqlx::query("select muneem.enqueue_many('test.bulk', $1, 'sharma-mobiles')")
        .bind(&payloads)
        .execute(&system.owner)
        .await
        .unwrap();
    for n in 0..5 {
        let job = NewJob::of(VERMA, &Bulk { probe: number, n: -1 - n, act: Act::Succeed, group: None }).unwrap();
        system.enqueue_as(job).await;
    }
    let worker = system.work();
    until("all ran", || async { probe.count() == 2005 }).await;
    worker.stop().await;
    let last = probe.runs().iter().rposition(|run| run.n < 0).expect("the small business was served");
    assert!(last < 200, "its last job was number {last} of 2005");
}

#[tokio::test]
async fn an_otp_overtakes_a_campaign_that_has_taken_every_shared_place() {
    let system = QueueUnderTest::new().await;
    let (number, campaign) = Probe::new();
    let (otp_number, otp) = Probe::new();
    for n in 0..60 {
        system.enqueue(&Bulk { probe: number, n, act: Act::Wait, group: None }).await;
    }
    let worker = system.work();
    until("the campaign has all places that are not reserved", || async { campaign.count() == 8 }).await;
    let id = system.enqueue(&Otp { probe: otp_number, n: 1, act: Act::Succeed, group: None }).await;
    system.until_state(id, JobState::Done).await;
    assert_eq!((campaign.count(), otp.count()), (8, 1), "2 of its own and the 6 shared places, and no more");
    until("the campaign ends", || async {
        campaign.open.notify_waiters();
        campaign.count() == 60 && system.rows("queue_jobs").await == 0
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn an_ending_worker_hands_back_what_it_did_not_begin() {
    let system = QueueUnderTest::new().await;
    let (number, probe) = Probe::new();
    for n in 0..40 {
        system.enqueue(&Patient { probe: number, n, act: Act::Wait, group: None }).await;
    }
    let settings = Settings { concurrency: 10, ..system.settings() };
    let worker = system.work_with(settings);
    until("some have begun", || async { probe.count() >= 2 }).await;
    let stopping = tokio::spawn(worker.stop());
    until("the rest is back in line and the running ones end", || async {
        probe.open.notify_waiters();
        stopping.is_finished()
    })
    .await;
    let mut conn = system.pool.acquire().await.unwrap();
    let stats = queue::stats(&mut conn, None).await.unwrap();
    let lane = stats.iter().find(|depth| depth.lane == Lane::Transactional).unwrap();
    assert_eq!(lane.running, 0);
    assert_eq!(lane.ready + system.rows("queue_history").await, 40);
    let burnt: i64 = sqlx::query_scalar("select count(*) from muneem.queue_jobs where attempt <> uncounted")
        .fetch_one(&system.owner)
        .await
        .unwrap();
    assert_eq!(burnt, 0, "what never began costs no attempt");
    assert_eq!(system.rows("queue_workers").await, 0);
}
