use std::collections::BTreeSet;

use super::{receiver::OK, *};

#[tokio::test]
async fn what_happens_is_told_signed_and_in_the_order_of_its_object() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, secret) = shop.receiver(&receiver).await;
    shop.emit_as(shop.business, "messaging.message.sent", [1, 2]).await;
    shop.emit_as(shop.business, "invoice.document.issued", [9]).await;
    shop.emit_as(shop.business, "messaging.message.delivered", [1]).await;
    shop.emit_as(shop.business, "messaging.message.read", [1]).await;
    assert_eq!(shop.count("events").await, 4, "nobody wants to hear of invoices");
    shop.run_due_jobs(None).await;

    let received = receiver.received();
    assert_eq!(received.len(), 4);
    let of_one: Vec<_> =
        received.iter().filter(|one| one.number() == 1).map(|one| one.json()["type"].clone()).collect();
    assert_eq!(of_one, ["messaging.message.sent", "messaging.message.delivered", "messaging.message.read"]);
    let ids: BTreeSet<_> = received.iter().map(|one| one.id().to_owned()).collect();
    assert_eq!(ids.len(), 4, "each event has an id of its own");
    for one in &received {
        assert!(is_signed_by(one, &secret), "{one:?}");
        assert!(one.id().starts_with("evt_") && !one.id().contains('.'));
        assert_eq!(one.line, "POST /hooks/s3cret?key=s3cret HTTP/1.1");
        assert_eq!(one.header("content-type"), Some("application/json"));
        assert_eq!(one.header("authorization"), None);
        let body = one.json();
        let keys: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["data", "timestamp", "type"]);
        let at: DateTime<Utc> = body["timestamp"].as_str().expect("an instant").parse().expect("RFC 3339");
        assert!((shop.now() - at).abs() < TimeDelta::minutes(1));
    }
    assert_eq!(shop.states(endpoint).await, [("delivered", 4)].into());
    let told = shop.told(&shop.deliveries(None).await[0]).await;
    assert_eq!((told.attempts.len(), told.attempts[0].status, told.attempts[0].cause.clone()), (1, Some(204), None));
    assert!(told.attempts[0].latency_ms.is_some_and(|millis| millis < 400));
    let shown = shop.endpoint(endpoint).await;
    assert_eq!((shown.failures, shown.waiting, shown.last_success_at.is_some()), (0, 0, true));
    let jobs: Vec<String> = sqlx::query_scalar("select payload::text from muneem.queue_jobs where payload is not null")
        .fetch_all(&shop.db.pool())
        .await
        .expect("jobs");
    assert!(jobs.iter().all(|payload| !payload.contains("s3cret") && !payload.contains("message-1")));
}

#[tokio::test]
async fn what_is_rolled_back_or_wanted_by_nobody_leaves_nothing() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    shop.emit([1, 2, 3]).await;
    assert_eq!((shop.count("events").await, shop.count("jobs").await), (0, 0), "there is no endpoint");
    let (endpoint, _) = shop.receiver(&receiver).await;
    let event = Event {
        event_type: "messaging.message.sent".to_owned(),
        object: "message-1".to_owned(),
        occurred_at: shop.now(),
        data: json!({}),
    };
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    webhooks::emit(&mut tx, shop.emission(), shop.business, event.clone()).await.expect("emitted");
    tx.rollback().await.expect("rolled back");
    assert_eq!((shop.count("events").await, shop.count("jobs").await), (0, 0));

    let enabled = Some(false);
    shop.change(endpoint, &webhooks::Change { enabled, ..webhooks::Change::default() }).await;
    shop.emit([4]).await;
    assert_eq!(shop.count("events").await, 0, "nothing is kept for one that is told nothing");
    shop.change(endpoint, &webhooks::Change { enabled: Some(true), ..webhooks::Change::default() }).await;
    for bad in [
        Event { event_type: "Message sent".to_owned(), ..event.clone() },
        Event { object: String::new(), ..event.clone() },
        Event { object: "x".repeat(201), ..event.clone() },
        Event { data: json!([]), ..event.clone() },
        Event { data: json!({ "text": "x".repeat(20 * 1024) }), ..event.clone() },
    ] {
        let mut tx = shop.deps.db.begin().await.expect("a transaction");
        let error = webhooks::emit(&mut tx, shop.emission(), shop.business, bad).await.expect_err("refused");
        assert!(matches!(error, webhooks::Error::BadEvent { .. }), "{error}");
    }
}

#[tokio::test]
async fn crash_at_every_step_tells_of_everything_under_the_same_id() {
    for step in ["webhooks.claimed", "webhooks.posted", "webhooks.recorded"] {
        let (shop, receiver) = (Shop::open().await, Receiver::open().await);
        let (endpoint, secret) = shop.receiver(&receiver).await;
        shop.emit(1..=40).await;
        assert!(shop.run_due_jobs(Some(step)).await, "{step} was not reached");
        shop.pass_until(TimeDelta::seconds(1), 10, async || shop.all_delivered(endpoint).await).await;

        let received = receiver.received();
        let wanted: BTreeSet<_> = shop.deliveries(None).await.iter().map(|one| one.event_id.to_string()).collect();
        assert_eq!(wanted.len(), 40);
        let told: BTreeSet<_> = received.iter().map(|one| one.id().to_owned()).collect();
        assert_eq!(told, wanted, "{step}: everything, and nothing under another id");
        assert!(received.iter().all(|one| is_signed_by(one, &secret)));
        // At least once: what was in hand when the worker died may come again, the rest not.
        assert!(received.len() <= 40 + 32, "{step}: {}", received.len());
        let interrupted: i64 =
            sqlx::query_scalar("select count(*) from muneem.webhooks_attempts where cause = 'interrupted'")
                .fetch_one(&shop.db.pool())
                .await
                .expect("counted");
        assert!((1..=32).contains(&interrupted), "{step}: {interrupted}");
        assert_eq!(shop.count("attempts").await, 40 + interrupted, "{step}: an attempt is on record once");
    }
}

#[tokio::test]
async fn a_late_holder_records_nothing() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    shop.emit([1]).await;
    let job = shop.claim().await.pop().expect("a job");
    let late = work::Claimed { attempt: job.attempt - 1, ..job.clone() };
    let kind = Kind::of::<webhooks::Deliver>();
    let ctx = shop.context(&late, Arc::new(KillAt { step: None, died: Notify::new() }));
    let payload = json!({ "endpoint_id": endpoint }).to_string();
    let failure = kind.run(&payload, &ctx).await.expect_err("fenced");
    assert_eq!((failure.cause, receiver.count()), ("webhooks.lost_lease", 0));
    shop.run(&job, None).await;
    assert!(shop.all_delivered(endpoint).await);
}

#[tokio::test]
async fn under_load_one_look_serves_many_that_emit() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    shop.emit([0]).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.count("jobs").await, 1, "after a delivery a look is planned");
    for number in 1..=20 {
        shop.emit([number]).await;
    }
    assert_eq!(shop.count("jobs").await, 1, "and whoever emits relies on it");
    shop.pass_until(TimeDelta::milliseconds(500), 6, async || shop.all_delivered(endpoint).await).await;
    assert_eq!(receiver.count(), 21);
    shop.pass_until(TimeDelta::seconds(2), 3, async || shop.count("jobs").await == 0).await;
}

#[tokio::test]
async fn what_a_slow_transaction_left_is_found_by_the_sweep() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    shop.emit([0]).await;
    shop.run_due_jobs(None).await;
    // It relies on the look that is planned, and commits after it.
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let event = Event {
        event_type: "messaging.message.sent".to_owned(),
        object: "message-1".to_owned(),
        occurred_at: shop.now(),
        data: json!({ "number": 1 }),
    };
    webhooks::emit(&mut tx, shop.emission(), shop.business, event).await.expect("emitted");
    shop.pass_until(TimeDelta::seconds(2), 3, async || shop.count("jobs").await == 0).await;
    tx.commit().await.expect("committed");
    shop.run_due_jobs(None).await;
    assert_eq!(shop.states(endpoint).await, [("delivered", 1), ("pending", 1)].into());
    shop.advance(TimeDelta::minutes(1)).await;
    shop.run_now(&webhooks::Sweep {}).await;
    assert!(shop.all_delivered(endpoint).await);
    let jobs = shop.count("jobs").await;
    shop.run_now(&webhooks::Sweep {}).await;
    assert_eq!(shop.count("jobs").await, jobs, "there is nothing more to look for");
}

#[tokio::test]
async fn what_is_told_lies_sealed_and_goes_after_its_time() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, secret) = shop.receiver(&receiver).await;
    shop.emit([1]).await;
    shop.run_due_jobs(None).await;
    receiver.always(receiver::BROKEN);
    shop.emit([2]).await;
    let dump: Vec<String> = sqlx::query_scalar(
        "select e::text from muneem.webhooks_endpoints e union all select s::text from muneem.webhooks_secrets s
         union all select v::text from muneem.webhooks_events v union all select d::text from muneem.webhooks_deliveries d",
    )
    .fetch_all(&shop.db.pool())
    .await
    .expect("rows");
    for planted in ["s3cret", "\"number\"", "the shop's own", secret.expose_secret()] {
        let hex = hex::encode(planted);
        assert!(dump.iter().all(|row| !row.contains(planted) && !row.contains(&hex)), "{planted}");
    }

    shop.advance(TimeDelta::days(29)).await;
    shop.run_now(&webhooks::Retire {}).await;
    assert_eq!(shop.count("events").await, 2);
    shop.advance(TimeDelta::days(2)).await;
    shop.run_now(&webhooks::Retire {}).await;
    assert_eq!(shop.states(endpoint).await, [("expired", 1)].into(), "what was delivered is gone, what waited is over");
    assert_eq!(shop.endpoint(endpoint).await.waiting, 0);
    shop.advance(TimeDelta::days(31)).await;
    shop.run_now(&webhooks::Retire {}).await;
    for what in ["events", "deliveries", "attempts"] {
        assert_eq!(shop.count(what).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let (shop, dead, well) = (Shop::open().await, Receiver::open().await, Receiver::open().await);
    dead.always(receiver::Reply::Hang);
    well.always(OK);
    let (hanging, _) = shop.receiver(&dead).await;
    let (good, _) = shop.receiver(&well).await;
    let (theirs, _) = shop.add(shop.other, &well.url(), &["*"]).await;
    shop.emit(1..=60).await;
    shop.emit_as(shop.other, "messaging.message.sent", 1..=10).await;
    let jobs = shop.claim().await;
    assert_eq!(jobs.len(), 3);
    let begun = std::time::Instant::now();
    let mut running: Vec<_> = jobs.iter().map(|job| Box::pin(shop.run(job, None))).collect();
    // The two that are well end while the third waits for its first answers.
    for _ in 0..2 {
        let (_, at, rest) = futures_util::future::select_all(running).await;
        running = rest;
        assert!(at < 3);
    }
    assert!(shop.all_delivered(good).await && shop.all_delivered(theirs).await);
    futures_util::future::join_all(running).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(dead.most_under_way() <= shop.settings().concurrency, "{}", dead.most_under_way());
    assert!(dead.count() < 20, "it is left in peace after a few failures: {}", dead.count());
    let shown = shop.endpoint(hanging).await;
    assert!(shown.wait_until.is_some_and(|until| until > shop.now()), "{shown:?}");
    assert_eq!((shown.last_cause.as_deref(), shown.waiting), (Some("timed_out"), 60));
}
