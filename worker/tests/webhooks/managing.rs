use super::*;

#[tokio::test]
async fn endpoints_are_managed_on_record_and_their_secrets_shown_once() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, first) = shop.receiver(&receiver).await;
    assert!(first.expose_secret().starts_with("whsec_"));
    shop.emit([1]).await;
    shop.run_due_jobs(None).await;

    let rotate = async |overlap| {
        let mut tx = shop.deps.db.begin().await.expect("a transaction");
        let which = Which { business: Some(shop.business), endpoint };
        let rotated = webhooks::rotate_secret(&mut tx, &shop.deps.vault, which, overlap, &shop.by()).await;
        tx.commit().await.expect("committed");
        rotated.expect("rotated")
    };
    let (second, until) = rotate(TimeDelta::hours(24)).await;
    assert_ne!(first.expose_secret(), second.expose_secret());
    assert_eq!(shop.endpoint(endpoint).await.rotating_until.map(|at| at.timestamp()), Some(until.timestamp()));
    shop.emit([2]).await;
    shop.pass_until(TimeDelta::seconds(1), 3, async || receiver.count() == 2).await;
    let both = receiver.received().remove(1);
    assert!(is_signed_by(&both, &first) && is_signed_by(&both, &second));
    assert_eq!(both.header("webhook-signature").expect("signed").split(' ').count(), 2);

    shop.advance(TimeDelta::hours(25)).await;
    shop.emit([3]).await;
    shop.run_due_jobs(None).await;
    let one = receiver.received().remove(2);
    assert!(!is_signed_by(&one, &first) && is_signed_by(&one, &second), "the old one has ended");
    let (third, _) = rotate(TimeDelta::zero()).await;
    shop.emit([4]).await;
    shop.pass_until(TimeDelta::seconds(1), 3, async || receiver.count() == 4).await;
    let one = receiver.received().remove(3);
    assert!(!is_signed_by(&one, &second) && is_signed_by(&one, &third));
    assert_eq!(shop.count("secrets").await, 1, "what signs no more is gone");

    let shown = serde_json::to_string(&shop.endpoint(endpoint).await).expect("JSON");
    for secret in [first.expose_secret(), third.expose_secret(), "s3cret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let elsewhere = Receiver::open().await;
    let change = webhooks::Change {
        url: Some(elsewhere.url()),
        event_types: Some(vec!["webhooks.*".to_owned(), "invoice.*".to_owned()]),
        description: Some(None),
        enabled: None,
    };
    let changed = shop.change(endpoint, &change).await;
    assert_eq!((changed.origin, changed.description), (format!("http://{}", elsewhere.at), None));
    shop.emit([5]).await;
    shop.emit_as(shop.business, "invoice.document.issued", [6]).await;
    shop.pass_until(TimeDelta::seconds(1), 3, async || elsewhere.count() == 1).await;
    assert_eq!(receiver.count(), 4);

    shop.emit_as(shop.business, "invoice.document.issued", [7]).await;
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let which = Which { business: Some(shop.business), endpoint };
    assert_eq!(webhooks::remove_endpoint(&mut tx, which, &shop.by()).await.expect("removed"), 1);
    tx.commit().await.expect("committed");
    shop.advance(TimeDelta::minutes(5)).await;
    shop.run_now(&webhooks::Sweep {}).await;
    assert_eq!((elsewhere.count(), shop.count("secrets").await), (1, 0));
    assert_eq!(shop.deliveries(Some(endpoint)).await.pop().map(|one| one.state), Some(DeliveryState::Dropped));
    let left: Option<Vec<u8>> = sqlx::query_scalar("select url_sealed from muneem.webhooks_endpoints")
        .fetch_one(&shop.db.pool())
        .await
        .expect("the row stays");
    assert_eq!(left, None);

    let verbs = shop.verbs(endpoint).await;
    let told: Vec<_> = verbs.iter().map(|verb| verb.trim_start_matches("webhooks.")).collect();
    assert_eq!(told, ["endpoint_added", "secret_rotated", "secret_rotated", "endpoint_changed", "endpoint_removed"]);
}

#[tokio::test]
async fn what_is_wrong_with_an_endpoint_is_told_by_field_and_there_are_only_so_many() {
    let shop = Shop::open().await;
    let good = NewEndpoint {
        business: shop.business,
        url: "https://hooks.example.in/a".to_owned(),
        event_types: vec!["*".to_owned()],
        description: None,
    };
    let add = async |new: NewEndpoint| {
        let mut tx = shop.deps.db.begin().await.expect("a transaction");
        let added = webhooks::add_endpoint(&mut tx, &shop.deps.vault, &new, &Settings::DEFAULT, &shop.by()).await;
        if added.is_ok() {
            tx.commit().await.expect("committed");
        }
        added
    };
    for (new, wrong) in [
        (NewEndpoint { url: "http://127.0.0.1/".to_owned(), ..good.clone() }, "url"),
        (NewEndpoint { url: "https://10.0.0.1/".to_owned(), ..good.clone() }, "url"),
        (NewEndpoint { event_types: vec![], ..good.clone() }, "event_types"),
        (NewEndpoint { event_types: vec!["messaging".to_owned()], ..good.clone() }, "event_types"),
        (NewEndpoint { description: Some("x".repeat(201)), ..good.clone() }, "description"),
        (NewEndpoint { description: Some("a\nb".to_owned()), ..good.clone() }, "description"),
    ] {
        match add(new).await {
            Err(webhooks::Error::BadField { field, .. }) => assert_eq!(field, wrong),
            other => panic!("{wrong}: {:?}", other.map(|(endpoint, _)| endpoint)),
        }
    }
    for _ in 0..16 {
        add(good.clone()).await.expect("added");
    }
    assert!(matches!(add(good.clone()).await, Err(webhooks::Error::TooMany(16))));
    add(NewEndpoint { business: shop.other, ..good }).await.expect("another business has room of its own");
}

#[tokio::test]
async fn nothing_of_one_business_is_seen_told_or_touched_by_another() {
    let (shop, receiver, theirs) = (Shop::open().await, Receiver::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    let (other, _) = shop.add(shop.other, &theirs.url(), &["*"]).await;
    shop.emit([1]).await;
    shop.emit_as(shop.other, "messaging.message.sent", [2]).await;
    shop.run_due_jobs(None).await;
    assert_eq!((receiver.count(), theirs.count()), (1, 1));
    assert_eq!((receiver.received()[0].number(), theirs.received()[0].number()), (1, 2));

    // By its functions.
    let event = shop.deliveries(Some(endpoint)).await.remove(0).event_id;
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let foreign = Which { business: Some(shop.other), endpoint };
    let by = shop.by();
    let refused = |error: webhooks::Error| {
        assert!(matches!(error, webhooks::Error::NoSuchEndpoint(_) | webhooks::Error::NoSuchEvent(_)), "{error}");
    };
    refused(webhooks::remove_endpoint(&mut tx, foreign, &by).await.expect_err("another's"));
    refused(webhooks::test_endpoint(&mut tx, shop.emission(), foreign).await.expect_err("another's"));
    let vault = &shop.deps.vault;
    refused(webhooks::rotate_secret(&mut tx, vault, foreign, TimeDelta::zero(), &by).await.expect_err("another's"));
    refused(webhooks::replay_event(&mut tx, (Some(shop.other), event), None, &by).await.expect_err("another's"));
    refused(
        webhooks::replay_event(&mut tx, (Some(shop.business), event), Some(other), &by).await.expect_err("another's"),
    );
    assert!(webhooks::find_endpoint(&mut tx, vault, foreign, shop.now()).await.expect("asked").is_none());
    assert!(webhooks::find_told(&mut tx, Some(shop.other), event).await.expect("asked").is_none());
    drop(tx);

    // By row-level security alone.
    for (whose, not) in [(shop.business, shop.other), (shop.other, shop.business)] {
        let mut tx = shop.deps.db.begin().await.expect("a transaction");
        muneem_jobs::people::enter_business(&mut tx, whose).await.expect("entered");
        for (table, rows) in [
            ("webhooks_endpoints", 1_i64),
            ("webhooks_secrets", 1),
            ("webhooks_events", 1),
            ("webhooks_deliveries", 1),
            ("webhooks_attempts", 1),
        ] {
            let statement = format!("select count(*), count(*) filter (where business_id = $1) from muneem.{table}");
            let seen: (i64, i64) =
                sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(not.0).fetch_one(&mut *tx).await.expect("readable");
            assert_eq!(seen, (rows, 0), "{table}");
        }
        let foreign = sqlx::query(
            "insert into muneem.webhooks_replays (replay_id, business_id, endpoint_id, since, failed_only, asked_at)
             values (gen_random_uuid(), $1, $2, now(), false, now())",
        )
        .bind(not.0)
        .bind(endpoint.0)
        .execute(&mut *tx)
        .await;
        assert!(foreign.is_err(), "it writes nothing of another's");
    }
}
