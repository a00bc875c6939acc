//! What people want to hear, and one-time codes, over HTTP.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::tests::{House, is_problem};

async fn told(house: &House, verb: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::jsonb ->> 'verb' = $1",
    )
    .bind(verb)
    .fetch_one(&house.db.pool())
    .await
    .expect("counted")
}

fn asha() -> Value {
    json!({ "phone": "+91 98123 45678" })
}

fn agreed() -> Value {
    json!({ "contact": asha(), "purpose": "marketing.offers", "state": "given", "source": "web_form",
        "wording_version": "offers-v3", "language": "hi", "proof": "form 12" })
}

async fn reason(house: &House, token: &str, contact: &Value, class: &str) -> Value {
    let item = json!({ "contact": contact, "purpose": "marketing.offers", "channel": "whatsapp", "class": class });
    let checked = house.post("/v1/messaging/check", token, None, &json!({ "items": [item] })).await;
    assert_eq!(checked.status, StatusCode::OK, "{}", checked.body);
    checked.body["items"][0]["reason"].clone()
}

#[tokio::test]
async fn atk_078_a_check_of_contacts_is_on_record_and_stays_within_the_business() {
    let house = House::new().await;
    let made = house.post("/v1/messaging/consents", &house.sharma, None, &agreed()).await;
    assert_eq!((made.status, &made.body["state"]), (StatusCode::CREATED, &json!("given")), "{}", made.body);
    assert_eq!(reason(&house, &house.sharma, &asha(), "marketing").await, Value::Null);
    // To another business she is nobody, whatever was said here.
    assert_eq!(reason(&house, &house.verma, &asha(), "marketing").await, "no_consent");
    let stop = json!({ "contact": asha(), "scope": "all", "cause": "person", "reason": "asked_in_shop" });
    let stopped = house.post("/v1/messaging/suppressions", &house.sharma, None, &stop).await;
    assert_eq!((stopped.status, &stopped.body["changed"]), (StatusCode::CREATED, &json!(true)), "{}", stopped.body);
    for class in ["marketing", "transactional", "statutory"] {
        assert_eq!(reason(&house, &house.sharma, &asha(), class).await, "stopped", "{class}");
    }
    assert_eq!(reason(&house, &house.verma, &asha(), "transactional").await, Value::Null);
    let lift = json!({ "contact": asha(), "scope": "all", "cause": "person", "reason": "we_want_to" });
    let refused = house.post("/v1/messaging/suppressions/lift", &house.sharma, None, &lift).await;
    is_problem(&refused, 409, "messaging.not_yours_to_lift");
    assert_eq!(told(&house, "messaging.contacts_checked").await, 6);

    // A thousand at a time and no more; what is off is named by its place, and never repeated.
    let item =
        |phone: String| json!({ "contact": { "phone": phone }, "purpose": "marketing.offers", "channel": "whatsapp" });
    let many: Vec<_> = (0..1_000).map(|n| item(format!("+91981230{n:04}"))).collect();
    let checked = house.post("/v1/messaging/check", &house.sharma, None, &json!({ "items": many })).await;
    assert_eq!((checked.status, &checked.body["refused"]), (StatusCode::OK, &json!(1000)), "{}", checked.body);
    assert!(!checked.body.to_string().contains("98123"));
    let more: Vec<_> = (0..1_001).map(|n| item(format!("+91981230{n:04}"))).collect();
    let refused = house.post("/v1/messaging/check", &house.sharma, None, &json!({ "items": more })).await;
    is_problem(&refused, 422, "http.bad_body");
    let bad = json!({ "items": [item("+919812300001".into()), item("98123-call-me".into())] });
    let refused = house.post("/v1/messaging/check", &house.sharma, None, &bad).await;
    assert_eq!(refused.body["errors"][0]["field"], "items.1.contact.phone", "{}", refused.body);
    assert!(!refused.body.to_string().contains("call-me"), "{}", refused.body);
    let several = json!({ "contact": { "phone": "+919812345678", "email": "a@example.in" } });
    is_problem(&house.post("/v1/messaging/consents/find", &house.sharma, None, &several).await, 422, "http.bad_body");

    let seen = house.post("/v1/messaging/consents/find", &house.sharma, None, &json!({ "contact": asha() })).await;
    assert_eq!(
        (seen.body["consents"][0]["state"].as_str(), seen.body["consents"][1]["proved"].as_bool()),
        (Some("withdrawn"), Some(true)),
        "{}",
        seen.body
    );
    assert_eq!(seen.body["suppressions"][0]["cause"], "person");
    let nobody = house.post("/v1/messaging/consents/find", &house.verma, None, &json!({ "contact": asha() })).await;
    assert_eq!(nobody.body, json!({ "consents": [], "suppressions": [], "erased_at": null }));
    let own = json!({ "business": "sharma-mobiles", "contact": asha() });
    is_problem(
        &house.post("/v1/messaging/consents/find", &house.verma, None, &own).await,
        404,
        "people.no_such_business",
    );
}

#[tokio::test]
async fn a_consent_is_written_once_under_its_key_and_says_what_it_lacks() {
    let house = House::new().await;
    let first = house.post("/v1/messaging/consents", &house.sharma, Some("one"), &agreed()).await;
    let again = house.post("/v1/messaging/consents", &house.sharma, Some("one"), &agreed()).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(told(&house, "messaging.consent_given").await, 1);
    for (field, value, named) in [
        ("wording_version", Value::Null, "wording_version"),
        ("language", json!("Hindi"), "language"),
        ("purpose", json!("Offers!"), "purpose"),
        ("state", json!("ask_again"), "state"),
        ("source", json!("import"), "source"),
        ("at", json!("2090-01-01T00:00:00Z"), "at"),
    ] {
        let mut body = agreed();
        body[field] = value;
        let refused = house.post("/v1/messaging/consents", &house.sharma, None, &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body["errors"][0]["field"]),
            (422, &json!(named)),
            "{}",
            refused.body
        );
    }
    let carrier = json!({ "contact": asha(), "scope": "all", "cause": "carrier", "reason": "asked" });
    let refused = house.post("/v1/messaging/suppressions", &house.sharma, None, &carrier).await;
    assert_eq!(refused.body["errors"][0]["field"], "cause", "{}", refused.body);
}

#[tokio::test]
async fn atk_052_whoever_asks_for_a_code_learns_nothing_of_the_address() {
    let house = House::new().await;
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    muneem_jobs::queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
    let stop = json!({ "contact": asha(), "scope": "identity", "cause": "operator", "reason": "doubtful" });
    house.post("/v1/messaging/suppressions", &house.sharma, None, &stop).await;
    let mut shapes = Vec::new();
    for to in [asha(), json!({ "phone": "+919812345679" }), json!({ "email": "nobody@example.in" })] {
        let body = json!({ "to": to, "purpose": "sign_in" });
        let asked = house.post("/v1/messaging/otp", &house.sharma, None, &body).await;
        let mut names: Vec<_> = asked.body.as_object().expect("an object").keys().cloned().collect();
        names.sort();
        shapes.push((asked.status, names));
        let again = house.post("/v1/messaging/otp", &house.sharma, None, &body).await;
        is_problem(&again, 429, "http.too_often");
        assert!(again.headers.contains_key("retry-after"));
    }
    assert_eq!(shapes[0], (StatusCode::ACCEPTED, vec!["expires_at".to_owned(), "id".to_owned()]));
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    // The same rows and the same job for each: what stands against sending is nobody's business who asks.
    let jobs: i64 = sqlx::query_scalar("select count(*) from muneem.queue_jobs where kind = 'messaging.send_otp'")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(jobs, 3);

    // Repeated under its key it is the same request.
    let body = json!({ "to": { "phone": "+919812345670" }, "purpose": "sign_in", "length": 4, "ttl_secs": 60 });
    let first = house.post("/v1/messaging/otp", &house.sharma, Some("k"), &body).await;
    let again = house.post("/v1/messaging/otp", &house.sharma, Some("k"), &body).await;
    assert_eq!(first.body, again.body, "{}", first.body);
    let id = first.body["id"].as_str().expect("an id");
    // Wrong, unknown, another's: one answer.
    let wrong = json!({ "verified": false, "channel": null });
    for (id, token) in [
        (id, &house.sharma),
        (id, &house.verma),
        ("018f0000-0000-7000-8000-000000000000", &house.sharma),
        ("x", &house.sharma),
    ] {
        let body = json!({ "id": id, "code": "0000" });
        let entered = house.post("/v1/messaging/otp/verify", token, None, &body).await;
        assert_eq!((entered.status, &entered.body), (StatusCode::OK, &wrong), "{id}");
    }
    for (field, value) in
        [("length", json!(9)), ("ttl_secs", json!(601)), ("channels", json!(["mail"])), ("language", json!("English"))]
    {
        let mut body = json!({ "to": { "phone": "+919812345671" }, "purpose": "sign_in" });
        body[field] = value;
        let refused = house.post("/v1/messaging/otp", &house.sharma, None, &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            refused.body
        );
    }
}
