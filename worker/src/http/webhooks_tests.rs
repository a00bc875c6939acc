//! Endpoints of webhooks over HTTP: added, changed, tried, told again, and another business's are not there.

use axum::http::{Method, StatusCode};
use muneem_jobs::{
    queue,
    webhooks::{self, Emission, Event},
};
use serde_json::{Value, json};

use super::{
    Arc, Clock,
    tests::{House, is_problem},
};
use crate::outbound::{chance::OsChance, clock::SystemClock};

async fn furnished() -> House {
    let house = House::new().await;
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
    house
}

fn hooks() -> Value {
    json!({ "url": "https://hooks.example.in/services/s3cret?key=s3cret", "event_types": ["messaging.*"],
        "description": "The order page" })
}

#[tokio::test]
async fn an_endpoint_lives_by_http_and_its_secret_is_shown_once() {
    let house = furnished().await;
    let made = house.post("/v1/webhooks/endpoints", &house.sharma, Some("k-1"), &hooks()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let secret = made.body["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(made.body["origin"], "https://hooks.example.in");
    let again = house.post("/v1/webhooks/endpoints", &house.sharma, Some("k-1"), &hooks()).await;
    assert_eq!(again.body, made.body, "a repeat makes no second endpoint");
    let path = format!("/v1/webhooks/endpoints/{}", made.body["id"].as_str().expect("an id"));
    let list = house.get("/v1/webhooks/endpoints", &house.sharma).await;
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(1), "{}", list.body);
    let shown = house.get(&path, &house.sharma).await;
    assert_eq!((&shown.body["state"], &shown.body["description"]), (&json!("enabled"), &json!("The order page")));
    for body in [&list.body, &shown.body] {
        assert!(!body.to_string().contains("s3cret") && !body.to_string().contains(&secret), "{body}");
    }

    let rotated = house.post(&format!("{path}/rotate"), &house.sharma, None, &json!({ "overlap_hours": 2 })).await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.body);
    assert_ne!(rotated.body["secret"], json!(secret));
    assert_eq!(house.get(&path, &house.sharma).await.body["rotating_until"], rotated.body["previous_until"]);
    let long = house.post(&format!("{path}/rotate"), &house.sharma, None, &json!({ "overlap_hours": 999 })).await;
    is_problem(&long, 422, "http.bad_body");

    let patch = async |body: Value| house.send(Method::PATCH, &path, &house.sharma, None, body.to_string()).await;
    let changed = patch(json!({ "event_types": ["*"], "description": "" })).await;
    assert_eq!((&changed.body["event_types"], &changed.body["description"]), (&json!(["*"]), &Value::Null));
    assert_eq!(patch(json!({ "enabled": false })).await.body["reason"], "asked");
    for (what, body) in [("test", json!({})), ("replay", json!({ "since": "2026-01-01T00:00:00Z" }))] {
        let refused = house.post(&format!("{path}/{what}"), &house.sharma, None, &body).await;
        is_problem(&refused, 409, "webhooks.endpoint_disabled");
    }
    assert_eq!(patch(json!({ "enabled": true })).await.body["state"], "enabled");
    let removed = house.post(&format!("{path}/remove"), &house.sharma, None, &json!({})).await;
    assert_eq!((removed.status, &removed.body["dropped"]), (StatusCode::OK, &json!(0)));
    is_problem(&house.get(&path, &house.sharma).await, 404, "webhooks.no_such_endpoint");
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_refused_by_its_field() {
    let house = furnished().await;
    for url in ["http://127.0.0.1:8787/", "https://169.254.169.254/", "https://2130706433/", "https://[::1]/", "x"] {
        let mut body = hooks();
        body["url"] = json!(url);
        let refused = house.post("/v1/webhooks/endpoints", &house.sharma, None, &body).await;
        is_problem(&refused, 422, "http.bad_body");
        assert_eq!(refused.body["errors"][0]["field"], "url", "{}", refused.body);
    }
    let which = house.post("/v1/webhooks/endpoints", &house.all, None, &hooks()).await;
    is_problem(&which, 422, "people.which_business");
    let mut other = hooks();
    other["business"] = "sharma-mobiles".into();
    is_problem(&house.post("/v1/webhooks/endpoints", &house.verma, None, &other).await, 404, "people.no_such_business");
}

#[tokio::test]
async fn deliveries_are_listed_page_by_page_and_told_again() {
    let house = furnished().await;
    let made = house.post("/v1/webhooks/endpoints", &house.sharma, None, &hooks()).await;
    let endpoint = made.body["id"].as_str().expect("an id").to_owned();
    let mut tx = house.db.app_pool().begin().await.expect("a transaction");
    let business = muneem_jobs::people::load_business(&mut tx, "sharma-mobiles").await.expect("a shop").business_id;
    let vault = muneem_jobs::vault::Vault::with_root(
        &house.db.app_pool(),
        &[7; 32].into(),
        Arc::new(SystemClock),
        Arc::new(OsChance),
    );
    let emission = Emission { vault: &vault, now: SystemClock.now(), chance: &OsChance };
    let events = (0..3).map(|number| Event {
        event_type: "messaging.message.sent".to_owned(),
        object: format!("message-{number}"),
        occurred_at: SystemClock.now(),
        data: json!({ "number": number }),
    });
    webhooks::emit_all(&mut tx, emission, business, events.collect()).await.expect("emitted");
    tx.commit().await.expect("committed");

    let (mut at, mut seen) = ("/v1/webhooks/deliveries?limit=2".to_owned(), Vec::new());
    loop {
        let page = house.get(&at, &house.sharma).await.body;
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["object"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        at = format!("/v1/webhooks/deliveries?limit=2&cursor={next}");
    }
    assert_eq!(json!(seen), json!(["message-2", "message-1", "message-0"]));
    let of = format!("/v1/webhooks/deliveries?endpoint={endpoint}&state=pending");
    let first = house.get(&of, &house.sharma).await.body["items"][0].clone();
    is_problem(&house.get("/v1/webhooks/deliveries?state=lost", &house.sharma).await, 400, "http.bad_query");
    let path = format!("/v1/webhooks/events/{}", first["event_id"].as_str().expect("an id"));
    let shown = house.get(&path, &house.sharma).await;
    assert_eq!(shown.body["deliveries"][0]["endpoint_id"], json!(endpoint), "{}", shown.body);
    assert!(!shown.body.to_string().contains("number"), "what it says is not shown: {}", shown.body);
    // What is still on its way is not begun again.
    let again = house.post(&format!("{path}/replay"), &house.sharma, None, &json!({})).await;
    assert_eq!((again.status, &again.body["endpoint_ids"]), (StatusCode::ACCEPTED, &json!([])), "{}", again.body);
    let tested = house.post(&format!("/v1/webhooks/endpoints/{endpoint}/test"), &house.sharma, None, &json!({})).await;
    assert_eq!(tested.status, StatusCode::ACCEPTED, "{}", tested.body);
    let replay = json!({ "since": SystemClock.now() - chrono::TimeDelta::hours(1), "failed_only": true });
    let asked = house.post(&format!("/v1/webhooks/endpoints/{endpoint}/replay"), &house.sharma, None, &replay).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.body);

    // Of all this nothing is there for another business.
    is_problem(&house.get(&path, &house.verma).await, 404, "webhooks.no_such_event");
    is_problem(
        &house.post(&format!("{path}/replay"), &house.verma, None, &json!({})).await,
        404,
        "webhooks.no_such_event",
    );
    assert_eq!(house.get("/v1/webhooks/deliveries", &house.verma).await.body["items"], json!([]));
    assert_eq!(house.get("/v1/webhooks/endpoints", &house.verma).await.body["items"], json!([]));
    for what in ["rotate", "remove", "test"] {
        let path = format!("/v1/webhooks/endpoints/{endpoint}/{what}");
        is_problem(&house.post(&path, &house.verma, None, &json!({})).await, 404, "webhooks.no_such_endpoint");
    }
    let path = format!("/v1/webhooks/endpoints/{endpoint}");
    let patched = house.send(Method::PATCH, &path, &house.verma, None, r#"{"enabled":false}"#).await;
    is_problem(&patched, 404, "webhooks.no_such_endpoint");
}
