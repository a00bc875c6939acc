use super::{receiver::BROKEN, *};

impl Shop {
    async fn ask(&self, endpoint: EndpointId, since: DateTime<Utc>, failed_only: bool) -> webhooks::ReplayId {
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let which = Which { business: Some(self.business), endpoint };
        let replay = webhooks::Replay { since, failed_only };
        let id = webhooks::ask_replay(&mut tx, which, &replay, &self.by()).await.expect("asked");
        tx.commit().await.expect("committed");
        id
    }

    async fn settle(&self, endpoint: EndpointId) {
        self.pass_until(TimeDelta::seconds(2), 5, async || {
            self.all_delivered(endpoint).await && self.count("jobs").await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn everything_since_an_instant_is_told_again_once_however_often_it_is_asked() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    shop.emit(1..=5).await;
    shop.settle(endpoint).await;
    shop.advance(TimeDelta::minutes(10)).await;
    let since = shop.now() - TimeDelta::seconds(1);
    shop.emit(6..=9).await;
    shop.emit_as(shop.business, "messaging.message.read", [6]).await;
    shop.settle(endpoint).await;
    assert_eq!(receiver.count(), 10);
    shop.advance(TimeDelta::minutes(1)).await;

    let first = shop.ask(endpoint, since, false).await;
    assert_eq!(shop.ask(endpoint, since, false).await, first, "the same again is the same replay");
    shop.settle(endpoint).await;
    let again: Vec<_> = receiver.received().split_off(10);
    assert_eq!(again.len(), 5, "what was before stays as it is");
    let firsts = receiver.received();
    for one in &again {
        assert!(firsts[..10].iter().any(|first| first.id() == one.id() && first.body == one.body), "under its own id");
    }
    let of_six: Vec<_> = again.iter().filter(|one| one.number() == 6).map(|one| one.json()["type"].clone()).collect();
    assert_eq!(of_six, ["messaging.message.delivered", "messaging.message.read"], "in its order");
    assert_eq!(shop.count("replays").await, 1);
    let verbs = shop.verbs(endpoint).await;
    assert_eq!(verbs, ["webhooks.endpoint_added", "webhooks.replay_asked"]);

    // A replay whose deliveries are still under way begins none of them twice.
    shop.advance(TimeDelta::minutes(1)).await;
    receiver.always(BROKEN);
    shop.ask(endpoint, since, false).await;
    shop.run_due_jobs(None).await;
    let (asked, waiting) = (receiver.count(), shop.endpoint(endpoint).await.waiting);
    assert_eq!(waiting, 5);
    shop.ask(endpoint, since - TimeDelta::seconds(1), false).await;
    shop.run_due_jobs(None).await;
    assert_eq!(receiver.count(), asked, "it is left in peace as before");
    receiver.always(receiver::OK);
    shop.pass_until(TimeDelta::minutes(5), 5, async || shop.all_delivered(endpoint).await).await;
    assert_eq!(receiver.count(), asked + 5);
}

#[tokio::test]
async fn only_what_failed_is_told_again_where_that_is_asked_and_a_new_receiver_gets_what_it_missed() {
    let (shop, receiver, newer) = (Shop::open().await, Receiver::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    let since = shop.now() - TimeDelta::minutes(1);
    shop.emit(1..=4).await;
    shop.settle(endpoint).await;
    sqlx::query(
        "update muneem.webhooks_deliveries set state = 'failed'
         where delivery_id in (select delivery_id from muneem.webhooks_deliveries order by delivery_id limit 2)",
    )
    .execute(&shop.db.pool())
    .await
    .expect("failed");
    shop.advance(TimeDelta::minutes(1)).await;
    shop.ask(endpoint, since, true).await;
    shop.settle(endpoint).await;
    let numbers: Vec<_> = receiver.received().split_off(4).iter().map(receiver::Received::number).collect();
    assert_eq!(numbers.len(), 2);
    assert!(numbers.contains(&1) && numbers.contains(&2));

    let (second, _) = shop.receiver(&newer).await;
    shop.ask(second, since, true).await;
    shop.settle(second).await;
    assert_eq!(newer.count(), 0, "nothing of it failed there");
    shop.advance(TimeDelta::minutes(1)).await;
    shop.ask(second, since, false).await;
    shop.settle(second).await;
    assert_eq!((newer.count(), receiver.count()), (4, 6));
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let which = Which { business: Some(shop.business), endpoint };
    let later = webhooks::Replay { since: shop.now() + TimeDelta::hours(1), failed_only: false };
    let error = webhooks::ask_replay(&mut tx, which, &later, &shop.by()).await.expect_err("refused");
    assert!(matches!(error, webhooks::Error::BadField { field: "since", .. }));
}

#[tokio::test]
async fn crash_in_a_replay_tells_of_nothing_a_third_time() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    let since = shop.now() - TimeDelta::minutes(1);
    for begin in [0, 600] {
        shop.emit(begin + 1..=begin + 600).await;
    }
    shop.pass_until(TimeDelta::seconds(2), 20, async || shop.all_delivered(endpoint).await).await;
    assert_eq!(receiver.count(), 1200);
    shop.advance(TimeDelta::minutes(1)).await;
    shop.ask(endpoint, since, false).await;
    assert!(shop.run_due_jobs(Some("webhooks.replayed")).await);
    shop.pass_until(TimeDelta::seconds(2), 20, async || {
        shop.all_delivered(endpoint).await && shop.count("replays").await == 1
    })
    .await;
    assert_eq!(receiver.count(), 2400);
    let replayed: i64 = sqlx::query_scalar("select replayed from muneem.webhooks_replays")
        .fetch_one(&shop.db.pool())
        .await
        .expect("one");
    assert_eq!(replayed, 1200);
}
