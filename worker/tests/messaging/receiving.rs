//! Webhooks: forged, replayed, backwards, in batches; and that the stand-in is as strict as the carrier.

use super::*;

#[tokio::test]
async fn a_webhook_with_values_that_postgres_refuses_costs_only_those() {
    let shop = Shop::open().await;
    let update = |number: &str, wamid: &str, at: &str| {
        json!({ "entry": [{ "changes": [{ "field": "messages", "value": { "metadata": { "phone_number_id": number },
            "messages": [{ "id": wamid, "type": "text", "timestamp": at }] } }] }] })
        .to_string()
    };
    for body in [update(Options::NUMBER, "wamid.OLD", "-210866803201"), update("1\0", "wamid.NUL", "1764000000")] {
        assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
        shop.run_due_jobs(None).await;
    }
    assert_eq!((shop.count("webhooks").await, shop.count("events").await), (2, 1));
}

#[tokio::test]
async fn webhooks_twice_backwards_and_in_batches_end_alike() {
    for callbacks in [
        json!({ "copies": 3 }),
        json!({ "batch": 10, "gather_millis": 200 }),
        json!({ "batch": 10, "gather_millis": 200, "backwards": true, "copies": 2 }),
        json!({ "batch": 1, "gather_millis": 200, "backwards": true }),
    ] {
        let shop = Shop::open().await;
        shop.control("faults", &json!({ "callbacks": callbacks })).await;
        let id = shop.request(ASHA, Policy::AtLeastOnce).await;
        for _ in 0..400 {
            shop.run_due_jobs(None).await;
            if shop.timeline(id).await.events.len() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.message.state, timeline.events.len()), (State::Read, 3), "{callbacks}");
        assert_eq!(shop.count("events").await, 3, "{callbacks}");
    }
}

#[tokio::test]
async fn atk_001_forged_webhooks_change_nothing_and_replayed_ones_nothing_more() {
    let shop = Shop::open().await;
    let body = format!(
        r#"{{"entry":[{{"changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"{}"}},
        "statuses":[{{"id":"wamid.X","status":"sent","timestamp":"1764000000","note":"\u0906\/"}}]}}}}]}}]}}"#,
        Options::NUMBER
    );
    assert_eq!(shop.post_webhook(&body, None).await, 401);
    assert_eq!(shop.post_webhook(&body, Some("sha256=zz".to_owned())).await, 401);
    assert_eq!(shop.post_webhook(&body, Some(format!("sha256={}", "0".repeat(64)))).await, 403);
    // The signature of what the body means is not the signature of its bytes.
    let reprinted = body.replace("\\/", "/");
    assert_eq!(shop.post_webhook(&body, shop.sign(&reprinted)).await, 403);
    assert_eq!((shop.count("webhooks").await, shop.count("jobs").await), (0, 0));

    let mut posts = tokio::task::JoinSet::new();
    let shop = Arc::new(shop);
    for _ in 0..8 {
        let (shop, body) = (Arc::clone(&shop), body.clone());
        posts.spawn(async move { shop.post_webhook(&body, shop.sign(&body)).await });
    }
    assert_eq!(posts.join_all().await, [200; 8]);
    assert_eq!((shop.count("webhooks").await, shop.count("jobs").await), (1, 1));
    shop.run_due_jobs(None).await;
    assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
    shop.run_due_jobs(None).await;
    assert_eq!((shop.count("webhooks").await, shop.count("events").await), (1, 1));

    // What is signed but no webhook is kept for a person to look at, and not asked for again.
    for odd in [
        "",
        "null",
        "[1,2",
        r#"{"entry":[{"changes":[{"value":{"metadata":{"phone_number_id":"1"},"statuses":[{}]}}]}]}"#,
    ] {
        assert_eq!(shop.post_webhook(odd, shop.sign(odd)).await, 200, "{odd}");
    }
    assert_eq!((shop.count("webhooks").await, shop.count("jobs").await), (5, 0));
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(shop.post_webhook(&huge, shop.sign(&huge)).await, 413);
}

#[tokio::test]
async fn atk_008_the_handshake_answers_only_to_the_verify_token() {
    let shop = Shop::open().await;
    let ask = async |query: &str| {
        let url = format!("http://{}/webhooks/whatsapp?{query}", shop.receiver);
        let answer = shop.http.get(url).send().await.expect("the receiver answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let good = "hub.mode=subscribe&hub.verify_token=sandbox-verify-token&hub.challenge=1158201444";
    assert_eq!(ask(good).await, (200, "1158201444".to_owned()));
    for bad in [
        "hub.mode=subscribe&hub.verify_token=other&hub.challenge=1",
        "hub.mode=unsubscribe&hub.verify_token=sandbox-verify-token&hub.challenge=1",
        "hub.verify_token=sandbox-verify-token&hub.challenge=1",
        "",
    ] {
        assert_eq!(ask(bad).await.0, 403, "{bad}");
    }
    // What is echoed is a plain word, whoever asks.
    let long = "1".repeat(60_000);
    for challenge in ["%3Cscript%3E", "a%0D%0Ab", "", "%C3%A9", &"1".repeat(129), &long] {
        let query = format!("hub.mode=subscribe&hub.verify_token=sandbox-verify-token&hub.challenge={challenge}");
        // The last is longer than an address may be.
        assert!(matches!(ask(&query).await.0, 403 | 414 | 431), "{}", &challenge[..challenge.len().min(20)]);
    }
}

#[tokio::test]
async fn the_stand_in_refuses_what_the_carrier_refuses() {
    let shop = Shop::open().await;
    let base = format!("http://{}/v25.0/{}", shop.sandbox, Options::NUMBER);
    let post = async |url: &str, token: &str, body: Value| {
        let answer = shop.http.post(url).bearer_auth(token).json(&body).send().await.expect("the stand-in answers");
        let answer: Value = answer.json().await.expect("JSON");
        answer["error"]["code"].as_i64()
    };
    let values = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "type": "text", "parameter_name": name, "text": "x" })).collect()
    };
    let all = ["customer_name", "business_name", "invoice_number", "amount"];
    let message = |to: &str, name: &str, body: Vec<Value>| {
        json!({ "messaging_product": "whatsapp", "to": to, "type": "template", "template": { "name": name,
            "language": { "code": "en" }, "components": [
                { "type": "header", "parameters": [{ "type": "document", "document": { "id": "1" } }] },
                { "type": "body", "parameters": body }] } })
    };
    let messages = format!("{base}/messages");
    let token = "sandbox-access-token";
    let good = message("+919812345678", "tax_invoice_v1", values(&all));
    assert_eq!(post(&messages, "stolen", good.clone()).await, Some(190));
    assert_eq!(post(&messages.replace(Options::NUMBER, "1"), token, good.clone()).await, Some(100));
    assert_eq!(post(&messages.replace("v25.0", "v19.0"), token, good.clone()).await, Some(2635));
    assert_eq!(post(&messages, token, good.clone()).await, Some(100), "the file was never uploaded");
    assert_eq!(post(&messages, token, json!({ "messaging_product": "whatsapp" })).await, Some(131_008));
    assert_eq!(post(&messages, token, message("Asha", "tax_invoice_v1", values(&all))).await, Some(131_009));
    assert_eq!(post(&messages, token, message("+919800000001", "tax_invoice_v1", values(&all))).await, Some(131_021));
    assert_eq!(post(&messages, token, message("+919812345678", "tax_invoice_v0", values(&all))).await, Some(132_001));
    let mut long = good.clone();
    long["biz_opaque_callback_data"] = json!("x".repeat(513));
    assert_eq!(post(&messages, token, long).await, Some(100));
    let mut plain = good.clone();
    plain["template"]["components"][0] = json!({ "type": "footer" });
    assert_eq!(post(&messages, token, plain).await, Some(132_012));

    let file = |mime: &str| reqwest::multipart::Part::bytes(PDF).file_name("a.pdf").mime_str(mime).expect("a type");
    let upload = async |mime: &str| -> Value {
        let form = reqwest::multipart::Form::new().text("messaging_product", "whatsapp").part("file", file(mime));
        let answer = shop.http.post(format!("{base}/media")).bearer_auth(token).multipart(form).send().await;
        answer.expect("the stand-in answers").json().await.expect("JSON")
    };
    assert_eq!(upload("application/octet-stream").await["error"]["code"], 100);
    let media = upload("application/pdf").await["id"].clone();
    let with_media = |mut message: Value| {
        message["template"]["components"][0]["parameters"][0]["document"]["id"] = media.clone();
        message
    };
    let few = with_media(message("+919812345678", "tax_invoice_v1", values(&all[..3])));
    assert_eq!(post(&messages, token, few).await, Some(132_000));
    let misnamed = with_media(message("+919812345678", "tax_invoice_v1", values(&["a", "b", "c", "d"])));
    assert_eq!(post(&messages, token, misnamed).await, Some(132_012));
    // Without its plus a number gets the sender's country code in front, and a stranger gets the message.
    assert_eq!(post(&messages, token, with_media(message("9812345678", "tax_invoice_v1", values(&all)))).await, None);
    assert_eq!(post(&messages, token, with_media(message("919812345678", "tax_invoice_v1", values(&all)))).await, None);
    let oracle = shop.oracle().await;
    let mut phones: Vec<_> = oracle["recipients"].as_object().expect("a map").keys().cloned().collect();
    phones.sort();
    assert_eq!(phones, ["91919812345678", ASHA]);
    // Forty-five at once to one person, then the pair limit.
    let mut codes = Vec::new();
    for _ in 0..46 {
        codes.push(post(&messages, token, with_media(message("+919812300000", "tax_invoice_v1", values(&all)))).await);
    }
    assert!(codes.iter().any(|code| matches!(code, Some(131_056 | 130_429))), "{codes:?}");
}
