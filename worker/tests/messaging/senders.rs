//! Senders: apps of a business's own, what stops them, what lets them go on, and the limits that are kept.

use muneem_jobs::messaging::NewApp;
use secrecy::SecretString;

use super::*;

/// What the carrier tells of the shop's account in one field, now.
fn field(field: &str, value: &Value) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": Options::ACCOUNT,
        "time": MovedClock::default().now().timestamp(), "changes": [{ "field": field, "value": value }] }] })
    .to_string()
}

impl Shop {
    async fn told(&self, body: &str) {
        assert_eq!(self.post_webhook(body, self.sign(body)).await, 200);
        self.run_due_jobs(None).await;
    }

    pub(super) async fn posts(&self) -> u64 {
        self.oracle().await["posts"]["messages"].as_u64().expect("a number")
    }

    async fn health(&self) -> (Vec<messaging::SenderHealth>, Vec<messaging::Hold>, Vec<messaging::Alert>) {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        messaging::list_health(&mut conn, Some(self.business), self.clock.now()).await.expect("readable")
    }

    pub(super) async fn evidence(&self, word: &str) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.evidence_events where position($1::bytea in body) > 0")
            .bind(format!("\"{word}\"").into_bytes())
            .fetch_one(&self.db.pool())
            .await
            .expect("a count")
    }

    async fn set_app(&self, business: BusinessId, app: Option<&NewApp>) -> Result<(), messaging::Error> {
        let number = NumberId::parse(Options::NUMBER).expect("digits");
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let by = By::operator(self.clock.now(), &OsChance);
        messaging::set_app(&mut conn, &self.deps.vault, (business, &number), app, &by).await
    }
}

fn app(token: &str, secret: &str) -> NewApp {
    let secret_of = |text: &str| SecretString::from(text.to_owned());
    NewApp {
        credentials: Credentials {
            access_token: secret_of(token),
            app_secrets: vec![secret_of(secret)],
            verify_token: secret_of("a-verify-token-of-ours"),
        },
        api_version: Some("v24.0".to_owned()),
    }
}

#[tokio::test]
async fn senders_are_held_and_released_as_the_carrier_says() {
    let shop = Shop::open().await;
    // A dead token: the first message finds out, the second does not even try.
    shop.fault(json!({ "refuse": { "code": 190, "subcode": 463 } })).await;
    let first = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let second = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.posts().await, 1);
    for id in [first, second] {
        let message = shop.timeline(id).await.message;
        assert_eq!((message.state, message.held_scope.as_deref()), (State::Queued, Some("credential")));
    }
    let (_, holds, _) = shop.health().await;
    assert_eq!(holds.len(), 1);
    assert_eq!((holds[0].scope.as_str(), holds[0].key.as_str(), holds[0].strikes), ("credential", "installation", 1));
    assert!(holds[0].meaning.is_some_and(|meaning| meaning.contains("token")));

    // Over, one message finds out that it still holds: one POST, one more strike, a longer wait.
    shop.fault(json!({ "refuse": { "code": 190, "subcode": 463 } })).await;
    shop.advance(TimeDelta::minutes(6)).await;
    shop.run_due_jobs(None).await;
    let (_, holds, _) = shop.health().await;
    assert_eq!((shop.posts().await, holds[0].strikes), (2, 2));
    assert!(holds[0].until - shop.clock.now() > TimeDelta::minutes(14), "{:?}", holds[0]);

    // The next one is carried; then the other goes too, without waiting for its turn.
    shop.advance(TimeDelta::minutes(16)).await;
    for id in [first, second] {
        shop.until(id, State::Read).await;
    }
    assert!(shop.health().await.1.is_empty());
    assert_eq!(shop.posts().await, 4);
    shop.assert_no_reference_twice().await;

    // By hand: what waits goes at once.
    shop.fault(json!({ "refuse": { "code": 131_042 } })).await;
    let unpaid = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(unpaid, State::Queued).await;
    shop.run_due_jobs(None).await;
    let hold = shop.health().await.1.pop().expect("a hold");
    assert_eq!((hold.scope.as_str(), hold.key.as_str()), ("account", Options::ACCOUNT));
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let by = By::operator(shop.clock.now(), &OsChance);
    let other = BusinessId(uuid::Uuid::nil());
    assert!(!messaging::release_hold(&mut conn, other, hold.hold_id, &by).await.expect("asked"));
    assert!(messaging::release_hold(&mut conn, shop.business, hold.hold_id, &by).await.expect("released"));
    assert!(!messaging::release_hold(&mut conn, shop.business, hold.hold_id, &by).await.expect("asked"));
    shop.until(unpaid, State::Read).await;

    // What a person should see is there until she has seen it, and told twice it is told once.
    let value = json!({ "event": "ACCOUNT_VIOLATION", "violation_info": { "violation_type": "SCAM" } });
    shop.told(&field("account_update", &value)).await;
    shop.told(&field(
        "account_update",
        &json!({ "violation_info": { "violation_type": "SCAM" }, "event": "ACCOUNT_VIOLATION" }),
    ))
    .await;
    let (_, _, alerts) = shop.health().await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].severity.as_str(), alerts[0].details.as_str()), ("critical", "SCAM"));
    assert!(messaging::end_alert(&mut conn, shop.business, alerts[0].alert_id, &by).await.expect("ended"));
    assert!(shop.health().await.2.is_empty());

    shop.set_app(shop.business, Some(&app("sandbox-access-token", "sandbox-app-secret"))).await.expect("an app");
    for (word, times) in [
        ("messaging.app_set", 1),
        ("messaging.sender_held", 2),
        ("messaging.sender_released", 2),
        ("messaging.alert_noted", 1),
        ("messaging.alert_ended", 1),
    ] {
        assert_eq!(shop.evidence(word).await, times, "{word}");
    }
}

#[tokio::test]
async fn a_paused_template_waits_for_the_carriers_word_and_no_other_does() {
    let shop = Shop::open().await;
    let told = |event: &str, language: &str, title: &str| {
        field(
            "message_template_status_update",
            &json!({ "event": event, "message_template_id": 12345, "message_template_name": "tax_invoice_v1",
                "message_template_language": language, "reason": "NONE", "other_info": { "title": title } }),
        )
    };
    // Another language of the same name is another template.
    shop.told(&told("PAUSED", "en-US", "FIRST_PAUSE")).await;
    let free = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(free, State::Read).await;

    shop.told(&told("DISABLED", "hi", "DISABLED")).await;
    let held = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let message = shop.timeline(held).await.message;
    assert_eq!((message.state, message.held_scope.as_deref()), (State::Queued, Some("template")));
    assert_eq!(shop.posts().await, 1);
    shop.told(&told("APPROVED", "hi", "")).await;
    shop.until(held, State::Read).await;
}

#[tokio::test]
async fn what_the_carrier_tells_of_limits_is_kept_to() {
    let shop = Shop::open().await;
    let upgrade = json!({ "display_phone_number": "+91 98000 00001", "event": "THROUGHPUT_UPGRADE",
        "max_daily_conversations_per_business": "TIER_UNLIMITED" });
    shop.told(&field("phone_number_quality_update", &upgrade)).await;
    let sender = shop.health().await.0.remove(0);
    assert_eq!((sender.messages_per_second, sender.daily_recipients), (1000, None));

    // Two people in 24 hours: the third waits, the first may be written to again.
    shop.told(&field("business_capability_update", &json!({ "max_daily_conversations_per_business": 2 }))).await;
    let mut sent = Vec::new();
    for to in [ASHA, RAVI] {
        sent.push(shop.request(to, Policy::AtLeastOnce).await);
        shop.until(sent[sent.len() - 1], State::Read).await;
    }
    let third = shop.request("919812311111", Policy::AtLeastOnce).await;
    let again = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(again, State::Read).await;
    let message = shop.timeline(third).await.message;
    assert_eq!((message.state, message.held_scope.as_deref()), (State::Queued, Some("portfolio")));
    let sender = shop.health().await.0.remove(0);
    assert_eq!((sender.daily_recipients, sender.reached, sender.queued), (Some(2), 2, 1));
    // Who writes first does not count.
    let body = json!({ "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": Options::NUMBER }, "messages": [{ "id": "wamid.HELLO", "from": "919812322222",
            "type": "text", "timestamp": shop.clock.now().timestamp().to_string(), "text": { "body": "hello" } }] } }] }] });
    shop.told(&body.to_string()).await;
    let answered = shop.request("919812322222", Policy::AtLeastOnce).await;
    shop.until(answered, State::Read).await;
    assert_eq!(shop.posts().await, 4);
}

#[tokio::test]
async fn a_businesss_own_app_sends_and_is_believed_about_its_own_numbers_alone() {
    let shop = Shop::open().await;
    let other = BusinessId(shop.deps.chance.uuid_v7(shop.clock.now()));
    sqlx::query("insert into muneem.people_businesses values ($1, 'kaveri-retail', 'Kaveri Retail', now())")
        .bind(other.0)
        .execute(&shop.db.pool())
        .await
        .expect("a business");
    let bad = app("short", "sandbox-app-secret");
    assert!(
        matches!(shop.set_app(shop.business, Some(&bad)).await, Err(messaging::Error::BadApp(what)) if what.contains("token"))
    );
    let own = app("a-token-that-is-dead", "a-secret-of-its-own");
    assert!(matches!(shop.set_app(other, Some(&own)).await, Err(messaging::Error::NoSuchNumber)));
    shop.set_app(shop.business, Some(&own)).await.expect("an app");

    // Its dead token stops its own number, and says so under the number, not under the installation.
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let hold = shop.health().await.1.pop().expect("a hold");
    assert_eq!((hold.scope.as_str(), hold.key.as_str(), hold.code), ("credential", Options::NUMBER, Some(190)));
    shop.set_app(shop.business, Some(&app("sandbox-access-token", "sandbox-app-secret"))).await.expect("an app");
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until(id, State::Read).await;

    // Its webhooks come to an address of its own, signed with its own secret.
    let hello = |wamid: &str| {
        json!({ "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages", "value": {
            "metadata": { "phone_number_id": Options::NUMBER },
            "messages": [{ "id": wamid, "type": "text", "timestamp": "1764000000" }] } }] }] })
        .to_string()
    };
    let post = async |handle: &str, body: &str, secret: &str| {
        let signature = messaging::sign(&SecretString::from(secret.to_owned()), body.as_bytes());
        let url = format!("http://{}/webhooks/whatsapp/{handle}", shop.receiver);
        let request = shop.http.post(url).body(body.to_owned());
        let request = request.header("x-hub-signature-256", format!("sha256={}", hex::encode(signature)));
        request.send().await.expect("the receiver answers").status().as_u16()
    };
    let events = shop.count("events").await;
    assert_eq!(post("sharma-mobiles", &hello("wamid.1"), "sandbox-app-secret").await, 200);
    assert_eq!(post("sharma-mobiles", &hello("wamid.2"), "a-secret-of-its-own").await, 403, "replaced a moment ago");
    assert_eq!(post("nobody", &hello("wamid.4"), "sandbox-app-secret").await, 403);
    shop.run_due_jobs(None).await;
    assert_eq!(shop.count("events").await, events + 1);

    // Another business that signs well still tells nothing of a number that is not its own.
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let account = messaging::Account {
        business: other,
        number: NumberId::parse("777").expect("digits"),
        waba_id: Options::ACCOUNT.to_owned(),
        display_phone: Phone::parse("9800000002").expect("a mobile"),
    };
    let by = By::operator(shop.clock.now(), &OsChance);
    messaging::set_account(&mut conn, &account, &by).await.expect("an account");
    let theirs = app("another-token", "a-secret-of-kaveri");
    messaging::set_app(&mut conn, &shop.deps.vault, (other, &account.number), Some(&theirs), &by)
        .await
        .expect("an app");
    drop(conn);
    assert_eq!(post("kaveri-retail", &hello("wamid.3"), "sandbox-app-secret").await, 403);
    assert_eq!(post("kaveri-retail", &hello("wamid.5"), "a-secret-of-kaveri").await, 200);
    let ban = field("account_update", &json!({ "event": "ACCOUNT_DELETED" }));
    assert_eq!(post("kaveri-retail", &ban, "a-secret-of-kaveri").await, 200);
    shop.run_due_jobs(None).await;
    assert_eq!(shop.count("events").await, events + 1);
    assert!(shop.health().await.2.is_empty(), "one business must not stop another");

    // The handshake knows each app's own word.
    let ask = async |handle: &str| {
        let query = "hub.mode=subscribe&hub.verify_token=a-verify-token-of-ours&hub.challenge=42";
        let url = format!("http://{}/webhooks/whatsapp{handle}?{query}", shop.receiver);
        shop.http.get(url).send().await.expect("the receiver answers").status().as_u16()
    };
    assert_eq!([ask("/sharma-mobiles").await, ask("").await, ask("/nobody").await], [200, 403, 403]);
}

#[tokio::test]
async fn bodies_that_come_together_are_each_kept_once() {
    let shop = Arc::new(Shop::open().await);
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..300 {
        let shop = Arc::clone(&shop);
        posts.spawn(async move {
            // Every third body comes twice.
            let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
                "metadata": { "phone_number_id": Options::NUMBER },
                "messages": [{ "id": format!("wamid.{}", number / 3 * 3 + (number % 3).min(1)), "type": "text",
                    "timestamp": "1764000000" }] } }] }] })
            .to_string();
            shop.post_webhook(&body, shop.sign(&body)).await
        });
    }
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(shop.count("webhooks").await, 200);
    assert!(shop.count("jobs").await < 200, "many are applied together");
    shop.run_due_jobs(None).await;
    assert_eq!((shop.count("webhooks").await, shop.count("events").await), (200, 200));
}
