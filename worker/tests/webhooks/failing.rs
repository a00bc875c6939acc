use super::{
    receiver::{BROKEN, OK, Reply},
    *,
};

#[tokio::test]
async fn only_2xx_is_a_success_and_the_rest_is_tried_again_on_schedule() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    // Somebody else keeps the endpoint well in between, so that only this one event fails.
    for status in [500, 404, 199, 304, 400, 401, 502, 505, 418, 599] {
        receiver.reply([Reply::Status(if status == 199 { 300 } else { status }, "")]);
    }
    shop.emit([1]).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        shop.run_due_jobs(None).await;
        let delivery = shop.deliveries(Some(endpoint)).await.remove(0);
        let Some(next) = delivery.next_at else { break };
        waits.push((next - shop.now()).num_seconds());
        // A ping that is answered.
        let before = receiver.count();
        sqlx::query("update muneem.webhooks_endpoints set failures = 0, failing_since = null, wait_until = null")
            .execute(&shop.db.pool())
            .await
            .expect("well again");
        assert_eq!(receiver.count(), before);
        shop.advance(next - shop.now() + TimeDelta::seconds(1)).await;
    }
    let delivery = shop.deliveries(Some(endpoint)).await.remove(0);
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Failed, 10), "{delivery:?}");
    let planned = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
    assert_eq!(waits.len(), planned.len(), "{waits:?}");
    for (wait, planned) in waits.iter().zip(planned) {
        let (least, most) = (planned * 9 / 10 - 2, planned * 11 / 10 + 31);
        assert!((least..=most).contains(wait), "{wait} is not about {planned}: {waits:?}");
    }
    let told = shop.told(&delivery).await;
    assert_eq!(told.attempts.len(), 10);
    assert!(told.attempts.iter().all(|attempt| attempt.cause.as_deref() == Some("status") && attempt.status.is_some()));
    let ids: std::collections::BTreeSet<_> = receiver.received().iter().map(|one| one.id().to_owned()).collect();
    let times: std::collections::BTreeSet<_> =
        receiver.received().iter().map(|one| one.header("webhook-timestamp").expect("a time").to_owned()).collect();
    assert_eq!((ids.len(), times.len()), (1, 10), "one id, and each attempt its own time");
}

#[tokio::test]
async fn atk_018_a_redirect_is_a_failure_and_leads_nowhere() {
    let (shop, receiver, inner) = (Shop::open().await, Receiver::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    let to: &'static str = Box::leak(format!("location: http://{}/steal\r\n", inner.at).into_boxed_str());
    for status in [301, 302, 303, 307, 308] {
        receiver.always(Reply::Status(status, to));
        shop.emit([u32::from(status)]).await;
        shop.advance(TimeDelta::seconds(2)).await;
        shop.run_due_jobs(None).await;
    }
    assert!(receiver.count() >= 5, "each was tried");
    assert_eq!(inner.connections(), 0);
    assert_eq!(shop.states(endpoint).await, [("pending", 5)].into());
    let told = shop.told(&shop.deliveries(None).await[0]).await;
    assert_eq!((told.attempts[0].status, told.attempts[0].cause.as_deref()), (Some(301), Some("status")));
}

#[tokio::test]
async fn atk_020_endless_dripping_hanging_cut_and_senseless_answers_cost_little() {
    let shop = Shop::open().await;
    for (reply, state, cause) in [
        (Reply::Endless, DeliveryState::Delivered, None),
        (Reply::Drip, DeliveryState::Delivered, None),
        (Reply::Hang, DeliveryState::Pending, Some("timed_out")),
        (Reply::Cut, DeliveryState::Pending, Some("broken")),
        (Reply::Nonsense, DeliveryState::Pending, Some("broken")),
        // A bomb would be opened by whoever reads bodies: nobody does.
        (Reply::Status(200, "content-encoding: gzip\r\n"), DeliveryState::Delivered, None),
    ] {
        let receiver = Receiver::open().await;
        let (endpoint, _) = shop.receiver(&receiver).await;
        receiver.always(reply);
        let begun = std::time::Instant::now();
        shop.emit([1]).await;
        shop.run_due_jobs(None).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{reply:?}: {:?}", begun.elapsed());
        let delivery = shop.deliveries(Some(endpoint)).await.remove(0);
        assert_eq!((delivery.state, delivery.last_cause.as_deref()), (state, cause), "{reply:?}");
        let mut tx = shop.deps.db.begin().await.expect("a transaction");
        let which = Which { business: None, endpoint };
        webhooks::remove_endpoint(&mut tx, which, &shop.by()).await.expect("removed");
        tx.commit().await.expect("committed");
    }
}

#[tokio::test]
async fn atk_021_one_that_wants_peace_gets_it_and_everything_waits() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    receiver.reply([Reply::Status(429, "retry-after: 600\r\n")]);
    shop.emit([1]).await;
    shop.run_due_jobs(None).await;
    shop.emit([2, 3]).await;
    shop.run_due_jobs(None).await;
    assert_eq!(receiver.count(), 1, "what comes later waits too");
    shop.advance(TimeDelta::seconds(590)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(receiver.count(), 1);
    shop.pass_until(TimeDelta::seconds(5), 4, async || shop.all_delivered(endpoint).await).await;
    assert_eq!(receiver.count(), 4);

    receiver.reply([Reply::Status(503, "retry-after: 99999999999999999999\r\n")]);
    shop.emit([4]).await;
    shop.pass_until(TimeDelta::seconds(1), 3, async || receiver.count() == 5).await;
    let wait = shop.endpoint(endpoint).await.wait_until.expect("it rests") - shop.now();
    assert!((TimeDelta::hours(23)..=TimeDelta::hours(24)).contains(&wait), "a day at most: {wait}");
    // A ping asks at once all the same.
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let which = Which { business: Some(shop.business), endpoint };
    let ping = webhooks::test_endpoint(&mut tx, shop.emission(), which).await.expect("sent");
    tx.commit().await.expect("committed");
    shop.run_due_jobs(None).await;
    assert_eq!(receiver.received()[5].id(), ping.to_string());
    assert_eq!(receiver.received()[5].json()["type"], webhooks::PING);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    receiver.always(Reply::Status(410, ""));
    shop.emit([1]).await;
    shop.run_due_jobs(None).await;
    let shown = shop.endpoint(endpoint).await;
    assert_eq!((shown.state.as_str(), shown.reason.as_deref()), ("disabled", Some("gone")));
    assert_eq!(shop.states(endpoint).await, [("failed", 1)].into());
    shop.emit([2]).await;
    shop.advance(TimeDelta::days(1)).await;
    shop.run_now(&webhooks::Sweep {}).await;
    assert_eq!((receiver.count(), shop.count("events").await), (1, 1));
    let verbs = shop.verbs(endpoint).await;
    assert_eq!(verbs, ["webhooks.endpoint_added", "webhooks.endpoint_disabled"]);
    assert_eq!(shop.events(endpoint).await[1]["details"], json!({ "reason": "gone" }));
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let health = webhooks::health(&mut conn).await.expect("readable");
    assert_eq!((health.endpoints, health.given_up, health.failing), (1, 1, 0));
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let which = Which { business: None, endpoint };
    let error = webhooks::test_endpoint(&mut tx, shop.emission(), which).await.expect_err("refused");
    assert!(matches!(error, webhooks::Error::Disabled(_)));
    drop(tx);

    // Somebody mends it, and has what failed told again.
    receiver.always(OK);
    shop.change(endpoint, &webhooks::Change { enabled: Some(true), ..webhooks::Change::default() }).await;
    let failed = shop.deliveries(None).await.remove(0);
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let again = webhooks::replay_event(&mut tx, (Some(shop.business), failed.event_id), None, &shop.by()).await;
    assert_eq!(again.expect("asked"), [endpoint]);
    tx.commit().await.expect("committed");
    shop.run_due_jobs(None).await;
    assert!(shop.all_delivered(endpoint).await);
}

#[tokio::test]
async fn a_receiver_that_fails_for_long_is_paused_loses_nothing_and_comes_back() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, secret) = shop.receiver(&receiver).await;
    receiver.always(BROKEN);
    shop.emit(1..=50).await;
    let paused = async || shop.endpoint(endpoint).await.state.as_str() == "paused";
    shop.pass_until(TimeDelta::minutes(20), 40, paused).await;
    let asked = receiver.count();
    assert!(asked < 80, "a dead endpoint is asked now and then: {asked}");
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let health = webhooks::health(&mut conn).await.expect("readable");
    assert_eq!((health.paused, health.failing, health.failing_since.is_some()), (1, 0, true));
    drop(conn);

    // Days later: asked once an hour, everything is there, and nothing has used up its attempts.
    shop.emit(51..=60).await;
    shop.advance(TimeDelta::days(4)).await;
    shop.pass_until(TimeDelta::hours(1), 30, async || receiver.count() >= asked + 12).await;
    assert!(receiver.count() < asked + 14);
    assert_eq!(shop.states(endpoint).await, [("pending", 60)].into());

    receiver.always(OK);
    shop.pass_until(TimeDelta::minutes(30), 10, async || shop.all_delivered(endpoint).await).await;
    let shown = shop.endpoint(endpoint).await;
    assert_eq!((shown.state.as_str(), shown.failures, shown.reason), ("enabled", 0, None));
    let good: Vec<_> = receiver.received().split_off(asked);
    assert!(good.iter().all(|one| is_signed_by(one, &secret)));
    let verbs = shop.verbs(endpoint).await;
    assert_eq!(verbs, ["webhooks.endpoint_added", "webhooks.endpoint_paused", "webhooks.endpoint_resumed"]);
}

#[tokio::test]
async fn one_event_that_is_never_taken_holds_up_no_other() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    receiver.always(BROKEN);
    shop.emit([1]).await;
    let paused = async || shop.endpoint(endpoint).await.state.as_str() == "paused";
    shop.pass_until(TimeDelta::minutes(30), 60, paused).await;
    shop.emit([2]).await;
    // Whoever comes next is the question whether it lives, and it takes this one.
    receiver.always(OK);
    receiver.reply([BROKEN]);
    shop.pass_until(TimeDelta::minutes(30), 10, async || shop.all_delivered(endpoint).await).await;
}

#[tokio::test]
async fn what_does_not_open_any_more_holds_up_nothing_that_does() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    shop.emit(1..=5).await;
    sqlx::query(
        "update muneem.webhooks_events set body_sealed = set_byte(body_sealed, 40, 255 - get_byte(body_sealed, 40))
         where object_id = 'message-3'",
    )
    .execute(&shop.db.pool())
    .await
    .expect("bent");
    shop.run_due_jobs(None).await;
    let numbers: Vec<_> = receiver.received().iter().map(receiver::Received::number).collect();
    assert_eq!((numbers.len(), numbers.contains(&3)), (4, false), "{numbers:?}");
    assert_eq!(shop.states(endpoint).await, [("delivered", 4), ("failed", 1)].into());
    let lost = shop.deliveries(None).await.remove(2);
    assert_eq!(lost.last_cause.as_deref(), Some("unreadable"));

    sqlx::query("update muneem.webhooks_secrets set secret_sealed = set_byte(secret_sealed, 40, 255 - get_byte(secret_sealed, 40))")
        .execute(&shop.db.pool())
        .await
        .expect("bent");
    shop.emit([6]).await;
    shop.pass_until(TimeDelta::seconds(1), 3, async || shop.endpoint(endpoint).await.state.as_str() == "disabled")
        .await;
    let shown = shop.endpoint(endpoint).await;
    assert_eq!((shown.reason.as_deref(), shown.waiting, receiver.count()), (Some("unreadable"), 1, 4));
}
