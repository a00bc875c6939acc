//! Webhooks: their bytes and signatures, their order and number, who gets them, and what they may hold.

use super::*;

fn signed(hook: &Hook, secret: &str) -> bool {
    let signature = messaging::sign(&secret.to_owned().into(), &hook.body);
    hook.signature.as_deref() == Some(format!("sha256={}", hex::encode(signature)).as_str())
}

async fn script(stand: &Stand, callbacks: Value) {
    assert_eq!(stand.control("faults", &json!({ "callbacks": callbacks })).await, 204);
}

#[tokio::test]
async fn bodies_are_escaped_and_signed_over_their_bytes_also_while_the_secret_is_rotated() {
    let stand = Stand::open().await;
    *stand.ears.deaf.lock().expect("not poisoned") = 1;
    stand.hear_from(ASHA, "बिल/bill 😀").await;
    for _ in 0..500 {
        if *stand.ears.deaf.lock().expect("not poisoned") == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It was not taken: it comes again with the signature that it had.
    stand.control("credentials", &json!({ "app_secrets": ["new-secret", "sandbox-app-secret"] })).await;
    stand.advance(60).await;
    let hook = stand.ears.until("the retry", |ears| ears.heard().first().cloned()).await;
    let text = String::from_utf8(hook.body.to_vec()).expect("ASCII");
    assert!(text.is_ascii() && text.contains(r"\u092c\u093f\u0932\/bill \ud83d\ude00"), "{text}");
    assert!(signed(&hook, "sandbox-app-secret"));
    stand.hear_from(ASHA, "again").await;
    let hook = stand.ears.until("the next", |ears| ears.heard().get(1).cloned()).await;
    assert!(signed(&hook, "new-secret"));
    script(&stand, json!({ "unsigned": true })).await;
    stand.hear_from(ASHA, "unsigned").await;
    assert!(stand.ears.until("the bare one", |ears| ears.heard().get(2).cloned()).await.signature.is_none());
    script(&stand, json!({ "forged": true })).await;
    stand.hear_from(ASHA, "forged").await;
    let hook = stand.ears.until("the forged one", |ears| ears.heard().get(3).cloned()).await;
    assert!(!signed(&hook, "new-secret") && !signed(&hook, "sandbox-app-secret") && hook.signature.is_some());
    script(&stand, json!({})).await;
    stand.control("webhooks", &json!({ "replay": true })).await;
    let again = stand.ears.until("the replay", |ears| ears.heard().get(4).cloned()).await;
    assert_eq!(again.body, hook.body);
}

#[tokio::test]
async fn a_thousand_updates_of_two_accounts_come_in_one_body_and_never_more_than_three_megabytes() {
    let stand = Stand::with(|options| {
        let phone = muneem_jobs::outbound::Phone::parse("+919800000002").expect("a mobile");
        options.numbers.push(muneem::sandbox::Number::new("2001", "2000", "Verma Textiles", phone));
        options.pace = Pace { read: None, ..Pace::INSTANT };
    })
    .await;
    script(&stand, json!({ "stopped": true, "batch": 1000, "gather_millis": 50 })).await;
    stand.control("webhooks", &json!({ "kind": "text", "times": 600, "phone": "919812345678" })).await;
    stand.control("webhooks", &json!({ "kind": "text", "times": 399, "number": "2001" })).await;
    stand.control("numbers", &json!({ "number": "2001", "quality": "YELLOW" })).await;
    // A day without webhooks, and then all of them.
    stand.advance(24 * 3600).await;
    assert!(stand.ears.heard().is_empty());
    script(&stand, json!({ "batch": 1000, "gather_millis": 50 })).await;
    let hook = stand.ears.until("the flood", |ears| ears.heard().first().cloned()).await;
    let body = hook.json();
    let entries = body["entry"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (
            entries[0]["changes"][0]["value"]["messages"].as_array().map(Vec::len),
            entries[1]["changes"].as_array().map(Vec::len)
        ),
        (Some(600), Some(2))
    );
    assert_eq!(stand.ears.heard().len(), 1);
    // Long words: split, and nothing lost.
    script(&stand, json!({ "stopped": true, "batch": 1000, "gather_millis": 50 })).await;
    let long = json!({ "messages": [{ "type": "text", "text": { "body": "आ".repeat(4000) } }] });
    stand.control("webhooks", &json!({ "field": "messages", "value": long, "times": 300 })).await;
    script(&stand, json!({ "batch": 1000, "gather_millis": 50 })).await;
    stand.ears.until("all three hundred", |ears| (ears.inbound() == 1299).then_some(())).await;
    let hooks = stand.ears.heard();
    assert!(hooks.len() >= 3 && hooks.iter().all(|hook| hook.body.len() <= 3 << 20));
}

#[tokio::test]
async fn events_come_twice_in_other_bodies_shuffled_apart_and_with_their_prices_moved() {
    let stand = Stand::open().await;
    script(
        &stand,
        json!({ "shuffled": true, "repeated": 1.0, "apart": true, "batch": 100, "gather_millis": 150, "copies": 2 }),
    )
    .await;
    stand.control("behaviour", &json!({ "pricing_on": ["read"], "conversation": true, "user_ids": true })).await;
    for index in 0..5 {
        assert_eq!(stand.send(&link(&format!("+91981234567{index}"))).await.0, 200);
    }
    // Told again, and what is told again too: at least four times each, in whichever order.
    let statuses =
        stand.ears.until("everything four times", |ears| Some(ears.statuses()).filter(|told| told.len() >= 60)).await;
    let order: Vec<_> = statuses.iter().map(|(status, _)| status.as_str()).take(15).collect();
    let plain: Vec<_> = ["sent", "delivered", "read"].into_iter().cycle().take(15).collect();
    assert_ne!(order, plain);
    for (status, told) in &statuses {
        assert_eq!(told.get("pricing").is_some(), status == "read", "{told}");
        assert_eq!(told.get("conversation").is_some(), status == "sent", "{told}");
        assert!(told["recipient_user_id"].is_string());
    }
    let first = stand.ears.heard()[0].json();
    assert!(
        first["entry"]
            .as_array()
            .expect("entries")
            .iter()
            .all(|entry| entry["changes"].as_array().is_some_and(|changes| changes.len() == 1))
    );
}

#[tokio::test]
async fn every_field_is_told_on_demand_as_it_stands_or_changed() {
    let stand = Stand::open().await;
    let kinds = async |body: Value| {
        let answer = stand
            .http
            .post(format!("http://{}/sandbox/webhooks", stand.at))
            .json(&body)
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, told) = kinds(json!({ "kind": "nonsense" })).await;
    assert_eq!(status, 422);
    let list = told.trim().rsplit_once("kinds: ").expect("a list").1.split(", ").map(str::to_owned).collect::<Vec<_>>();
    assert!(list.len() > 40);
    for kind in &list {
        assert_eq!(kinds(json!({ "kind": kind })).await.0, 204, "{kind}");
    }
    let changes = stand
        .ears
        .until("all of them", |ears| Some(ears.changes()).filter(|changes| changes.len() == list.len()))
        .await;
    let fields: std::collections::BTreeSet<_> = changes.iter().map(|(_, field, _)| field.as_str()).collect();
    for field in [
        "messages",
        "user_preferences",
        "account_update",
        "account_review_update",
        "business_capability_update",
        "phone_number_quality_update",
        "user_id_update",
        "gravity_update",
        "calls",
        "history",
    ] {
        assert!(fields.contains(field), "{field}");
    }
    let with = json!({ "kind": "text", "with": { "messages": [{ "type": "text", "text": { "body": "बंद" } }] } });
    assert_eq!(kinds(with).await.0, 204);
    stand
        .ears
        .until("the changed one", |ears| {
            ears.of("messages").into_iter().find(|value| value["messages"][0]["text"]["body"] == "बंद")
        })
        .await;
    assert_eq!(kinds(json!({ "field": "account_update", "value": { "event": "EXPLODED" } })).await.0, 204);
    stand
        .ears
        .until("a raw value", |ears| ears.of("account_update").into_iter().find(|value| value["event"] == "EXPLODED"))
        .await;
    let (status, answer) = kinds(json!({ "body": "{\"entry\":[]}", "signature": "sha256=00" })).await;
    assert_eq!((status, answer.as_str()), (200, "{\"status\":200}"));
    let last = stand.ears.heard().pop().expect("a body");
    assert_eq!((last.body.as_ref(), last.signature.as_deref()), (&b"{\"entry\":[]}"[..], Some("sha256=00")));
}

#[tokio::test]
async fn what_is_not_taken_comes_again_with_growing_gaps_for_seven_days() {
    let stand = Stand::open().await;
    *stand.ears.deaf.lock().expect("not poisoned") = u32::MAX;
    stand.hear_from(ASHA, "Hello").await;
    let refused = async || stand.oracle().await["webhooks"]["refused"].as_u64().expect("a count");
    let mut tries = 0;
    // Each hour brings a try at most, once the gaps have grown.
    for _ in 0..20 {
        stand.advance(3600).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        tries = refused().await;
    }
    assert!((4..=22).contains(&tries), "{tries}");
    stand.advance(8 * 24 * 3600).await;
    for _ in 0..200 {
        if stand.oracle().await["webhooks"]["given_up"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        (&stand.oracle().await["webhooks"]["given_up"], &stand.oracle().await["agenda"]),
        (&json!(1), &json!(0))
    );
    *stand.ears.deaf.lock().expect("not poisoned") = 0;
    stand.advance(24 * 3600).await;
    assert!(stand.ears.heard().is_empty());
}

#[tokio::test]
async fn a_callback_is_asked_before_it_gets_anything_and_only_subscribed_apps_get_something() {
    let stand = Stand::open().await;
    let account = format!("{}/subscribed_apps", Options::ACCOUNT);
    assert_eq!(stand.get(&account).await.1["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(stand.delete(&account).await.0, 200);
    assert_eq!(stand.get(&account).await.1["data"], json!([]));
    stand.hear_from(ASHA, "Nobody hears this").await;
    for _ in 0..500 {
        if stand.oracle().await["webhooks"]["unsubscribed"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stand.oracle().await["webhooks"]["unsubscribed"], 1);
    let with = |token: &str, url: &str| json!({ "override_callback_uri": url, "verify_token": token });
    assert_eq!(code(&stand.post(&account, &with("wrong", &stand.hook)).await), (2200, None));
    assert_eq!(code(&stand.post(&account, &json!({ "override_callback_uri": stand.hook })).await), (100, None));
    assert_eq!(
        code(&stand.post(&account, &with("sandbox-verify-token", "http://127.0.0.1:1/hook")).await),
        (2200, None)
    );
    assert_eq!(stand.get(&account).await.1["data"], json!([]), "nothing changed");
    let (other, url) = ears(&stand.end).await;
    assert_eq!(stand.post(&account, &with("sandbox-verify-token", &url)).await.0, 200);
    assert_eq!(stand.get(&account).await.1["data"][0]["override_callback_uri"], json!(url));
    stand.hear_from(ASHA, "To the account's own").await;
    other.until("her words", |ears| ears.of("messages").pop()).await;
    // The number's own comes before the account's.
    let (third, url) = ears(&stand.end).await;
    let set = |token: &str| json!({ "webhook_configuration": with(token, &url) });
    assert_eq!(code(&stand.post(Options::NUMBER, &set("wrong")).await), (2200, None));
    assert_eq!(stand.post(Options::NUMBER, &set("sandbox-verify-token")).await.0, 200);
    stand.hear_from(ASHA, "To the number's own").await;
    third.until("her words", |ears| ears.of("messages").pop()).await;
    assert_eq!((stand.ears.heard().len(), other.heard().len()), (0, 1));
    // By hand, with the handshake and without.
    assert_eq!(stand.control("callback", &json!({ "url": stand.hook, "handshake": true })).await, 204);
    assert_eq!(
        stand.control("callback", &json!({ "url": stand.hook, "handshake": true, "verify_token": "wrong" })).await,
        409
    );
    assert_eq!(stand.control("callback", &json!({ "url": "https://shop.example/hook" })).await, 422);
    assert_eq!(stand.control("callback", &json!({ "url": stand.hook, "number": "1" })).await, 404);
}

#[tokio::test]
async fn two_businesses_have_their_own_tokens_secrets_and_callbacks() {
    let end = CancellationToken::new();
    let (mine, url) = ears(&end).await;
    let stand = Stand::with(|options| {
        let phone = muneem_jobs::outbound::Phone::parse("+919800000002").expect("a mobile");
        let mut number = muneem::sandbox::Number::new("2001", "2000", "Verma Textiles", phone);
        number.credentials = Some(messaging::Credentials {
            access_token: "verma-token".to_owned().into(),
            app_secrets: vec!["verma-secret".to_owned().into()],
            verify_token: "verma-verify".to_owned().into(),
        });
        number.callback_url = Some(url);
        options.numbers.push(number);
    })
    .await;
    let send = async |number: &str, token: &str| {
        let request = stand.http.post(stand.url(&format!("{number}/messages"))).bearer_auth(token).json(&link(ASHA));
        Stand::answer(request).await
    };
    assert_eq!(code(&send("2001", TOKEN).await), (100, Some(33)));
    assert_eq!(code(&send(Options::NUMBER, "verma-token").await), (100, Some(33)));
    assert_eq!(send("2001", "verma-token").await.0, 200);
    let hook = mine.until("a status", |ears| ears.heard().pop()).await;
    assert!(signed(&hook, "verma-secret"));
    assert_eq!(send(Options::NUMBER, TOKEN).await.0, 200);
    let hook = stand.ears.until("a status", |ears| ears.heard().pop()).await;
    assert!(signed(&hook, "sandbox-app-secret"));
    assert!(mine.changes().iter().all(|(waba, ..)| waba == "2000"));
    assert!(stand.ears.changes().iter().all(|(waba, ..)| waba == Options::ACCOUNT));
    // One's templates are not the other's to see.
    assert_eq!(code(&stand.get("2000/message_templates").await), (100, Some(33)));
    end.cancel();
}
