//! What the gate turns away: before it reads, counted, and on record.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use muneem_jobs::{
    evidence::By,
    people::{self, Scope},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    route_tests::{routes, token},
    tests::{House, is_problem},
};
use crate::{
    outbound::{chance::OsChance, clock::SystemClock},
    refusals::Known,
};
use muneem_jobs::outbound::Clock;

/// A body that is read by nobody: whoever asks for it has gone too far.
fn untouchable() -> Body {
    Body::from_stream(futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<Result<&[u8], std::io::Error>>> {
        panic!("the body was read")
    }))
}

#[tokio::test]
async fn atk_061_without_the_scope_nothing_of_a_request_is_read() {
    let house = House::new().await;
    for route in routes(&house).await {
        let others = Scope::ALL.iter().copied().filter(|scope| *scope != route.scope && !scope.is_for_people_alone());
        let blind = token(&house, Some("sharma-mobiles"), others.collect()).await;
        for path in ["x", "018f0000-0000-7000-8000-000000000000"].map(|id| route.bare(id)) {
            let garbage = format!("{path}?limit=many&cursor=%21&colour=%00&{}", "x".repeat(2_000));
            let answered = house.send(route.method.clone(), &garbage, "", None, untouchable()).await;
            is_problem(&answered, 401, "people.no_token");
            let answered = house.send(route.method.clone(), &garbage, &blind, Some("not one key"), untouchable()).await;
            is_problem(&answered, 403, "people.missing_scope");
        }
    }
}

#[tokio::test]
async fn whoever_asks_for_the_head_of_an_answer_needs_what_the_answer_needs() {
    let house = House::new().await;
    let ask = async |bearer: &str| {
        let request = Request::head("/v1/queue/jobs").header("authorization", format!("Bearer {bearer}"));
        let request = request.body(Body::empty()).expect("a request");
        house.router.clone().oneshot(request).await.expect("answered").status()
    };
    let blind = token(&house, Some("sharma-mobiles"), vec![Scope::InvoiceRead]).await;
    assert_eq!(ask(&blind).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(&house.sharma).await, StatusCode::OK);
}

async fn refusals(house: &House) -> Vec<Value> {
    let bodies: Vec<Value> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::jsonb from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'people.request_refused' order by xid, event_id",
    )
    .fetch_all(&house.db.pool())
    .await
    .expect("read");
    bodies
}

#[tokio::test]
async fn atk_061_who_is_refused_is_counted_and_on_record_once_a_minute() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Held to the end: this test has one thread, and its counts are its own.
    let _own = metrics::set_default_local_recorder(&recorder);
    let house = House::new().await;
    let blind = token(&house, Some("sharma-mobiles"), vec![Scope::QueueRead]).await;
    let public_id = blind.split('_').nth(1).expect("a public id").to_owned();
    for _ in 0..5 {
        let refused = house.post("/v1/queue/jobs", &blind, None, &json!({})).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
    is_problem(&house.get("/v1/invoice/invoices/1", &blind).await, 403, "people.missing_scope");
    // Further in than the gate: the things of another business.
    let other = house.get("/v1/people/staff?business=sharma-mobiles", &house.verma).await;
    is_problem(&other, 404, "people.no_such_business");
    // Nobody knows who that was.
    is_problem(&house.get("/v1/queue/jobs", "").await, 401, "people.no_token");

    let told = refusals(&house).await;
    let of = |address: &str| told.iter().filter(|event| event["object"]["id"] == address).collect::<Vec<_>>();
    assert_eq!(told.len(), 3, "{told:?}");
    let [first] = of("POST:/v1/queue/jobs")[..] else { panic!("one event: {told:?}") };
    assert_eq!(first["actor"], json!({ "kind": "token", "id": public_id }));
    assert_eq!(first["details"]["reason"], "people.missing_scope");
    assert_eq!(first["details"]["count"], 1, "the first is written at once");
    assert_eq!(first["business"], of("GET:/v1/invoice/invoices/:id")[0]["business"]);
    assert_eq!(of("GET:/v1/people/staff")[0]["details"]["reason"], "people.no_such_business");

    house.refusals.settle(true).await;
    let told = refusals(&house).await;
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!((&told[3]["details"]["count"], &told[3]["object"]["id"]), (&json!(4), &json!("POST:/v1/queue/jobs")));

    let counted = counted.render();
    for line in [
        "muneem_refusals_total{reason=\"people.missing_scope\"} 6",
        "muneem_refusals_total{reason=\"people.no_such_business\"} 1",
        "muneem_refusals_total{reason=\"people.no_token\"} 1",
    ] {
        assert!(counted.contains(line), "{line}: {counted}");
    }
    assert!(!counted.contains(&public_id), "no measure names anybody: {counted}");
}

#[tokio::test]
async fn atk_061_a_token_that_was_ended_and_is_tried_again_is_on_record() {
    let house = House::new().await;
    let ended = token(&house, Some("sharma-mobiles"), vec![Scope::QueueRead]).await;
    let public_id = ended.split('_').nth(1).expect("a public id").to_owned();
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    people::revoke_token(&mut owner, &public_id, &By::operator(SystemClock.now(), &OsChance)).await.expect("ended");
    is_problem(&house.get("/v1/queue/jobs", &ended).await, 401, "people.token_revoked");
    let told = refusals(&house).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["actor"]["id"], public_id.as_str());
    assert_eq!(told[0]["details"]["reason"], "people.token_revoked");
    assert!(told[0]["business"].is_string(), "her business sees it: {told:?}");
}

#[tokio::test]
async fn atk_085_a_refusal_that_cannot_be_recorded_stands_and_its_count_is_kept() {
    let house = House::new().await;
    let blind = token(&house, Some("sharma-mobiles"), vec![Scope::QueueRead]).await;
    let columns = "insert (event_id, business_id, body) on muneem.evidence_events";
    for what in ["insert on muneem.evidence_events", columns] {
        let statement = format!("revoke {what} from muneem_app, muneem_business");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&house.db.pool()).await.expect("revoked");
    }
    for _ in 0..3 {
        let refused = house.send(Method::POST, "/v1/queue/jobs", &blind, None, untouchable()).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
    house.refusals.settle(true).await;
    assert_eq!(refusals(&house).await, [] as [Value; 0]);
    let statement = format!("grant {columns} to muneem_app, muneem_business");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&house.db.pool()).await.expect("granted");
    house.refusals.settle(true).await;
    let told = refusals(&house).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["details"]["count"], 3);
}

#[tokio::test]
async fn atk_085_methods_that_somebody_makes_up_are_one_record_and_none_waits_for_ever() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _own = metrics::set_default_local_recorder(&recorder);
    let house = House::new().await;
    let ended = token(&house, Some("sharma-mobiles"), vec![Scope::QueueRead]).await;
    let public_id = ended.split('_').nth(1).expect("a public id").to_owned();
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    people::revoke_token(&mut owner, &public_id, &By::operator(SystemClock.now(), &OsChance)).await.expect("ended");
    let mut made_up: Vec<String> = (0..40).map(|number| format!("AAA{number}")).collect();
    made_up.extend(["G!T".to_owned(), "A".repeat(200)]);
    for method in &made_up {
        let method: Method = method.parse().expect("a method");
        is_problem(
            &house.send(method, "/v1/queue/jobs", &ended, None, untouchable()).await,
            401,
            "people.token_revoked",
        );
    }
    house.refusals.settle(true).await;
    let told = refusals(&house).await;
    let counts: Vec<_> = told.iter().map(|event| (&event["object"]["id"], &event["details"]["count"])).collect();
    assert_eq!(counts, [(&json!("OTHER:/v1/queue/jobs"), &json!(1)), (&json!("OTHER:/v1/queue/jobs"), &json!(41))]);
    house.refusals.settle(true).await;
    assert_eq!(refusals(&house).await.len(), 2, "nothing is left");
    let counted = counted.render();
    assert!(!counted.contains("AAA") && !counted.contains("G!T"), "{counted}");
    assert!(counted.contains("method=\"OTHER\""), "{counted}");
    assert!(!counted.contains("muneem_refusals_lost_total") && !counted.contains("unrecorded"), "{counted}");
}

#[tokio::test]
async fn atk_085_a_record_that_no_repetition_makes_good_is_told_and_not_tried_again() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _own = metrics::set_default_local_recorder(&recorder);
    let house = House::new().await;
    let known = Known::token("0123456789abcdef", None);
    for _ in 0..3 {
        house.refusals.note(Some(&known), "G!T:/v1/queue/jobs", "people.token_revoked").await;
    }
    for _ in 0..2 {
        house.refusals.settle(true).await;
    }
    assert_eq!(refusals(&house).await, [] as [Value; 0]);
    let counted = counted.render();
    assert!(!counted.contains("muneem_refusals_unrecorded_total"), "{counted}");
    assert!(counted.contains("muneem_refusals_total{reason=\"people.token_revoked\"} 3"), "{counted}");
}

#[tokio::test]
async fn atk_085_a_database_that_does_not_answer_keeps_nobody_waiting_and_no_count_is_lost() {
    let house = House::new().await;
    let blind = token(&house, Some("sharma-mobiles"), vec![Scope::QueueRead]).await;
    for _ in 0..3 {
        let refused = house.send(Method::POST, "/v1/queue/jobs", &blind, None, untouchable()).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
    let pool = house.db.pool();
    let mut holder = pool.begin().await.expect("begun");
    sqlx::query("lock table muneem.evidence_events in access exclusive mode")
        .execute(&mut *holder)
        .await
        .expect("held");
    let settled = house.refusals.settle_within(true, Duration::from_millis(300));
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("it ends by itself");
    holder.rollback().await.expect("let go");
    house.refusals.settle(true).await;
    let told = refusals(&house).await;
    let counts: Vec<_> = told.iter().map(|event| event["details"]["count"].clone()).collect();
    assert_eq!(counts, [1, 2], "what was given up in the middle was not written as well");
}

fn for_machines() -> Vec<Scope> {
    Scope::ALL.iter().copied().filter(|scope| !scope.is_for_people_alone()).collect()
}

/// A body that arrives after `token` was ended, which came in while it opened everything.
fn after_the_end_of(house: &House, token: &str, body: Value) -> Body {
    let (pool, public_id) = (house.db.pool(), token.split('_').nth(1).expect("a public id").to_owned());
    Body::from_stream(futures_util::stream::once(async move {
        let mut owner = pool.acquire().await.expect("a connection");
        people::revoke_token(&mut owner, &public_id, &By::system(SystemClock.now(), &OsChance)).await.expect("ended");
        Ok::<_, std::io::Error>(body.to_string())
    }))
}

#[tokio::test]
async fn atk_054_a_token_that_is_ended_while_its_request_arrives_does_nothing_more() {
    let house = House::new().await;
    let count = async |table: &str| -> i64 {
        let statement = format!("select count(*) from muneem.{table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&house.db.pool()).await.expect("counted")
    };
    let cell = json!({ "row": "1", "sealed": "AQ==" });
    for (path, body, table) in [
        ("/v1/queue/jobs", json!({ "kind": "test.count", "payload": { "till": 1 } }), "queue_jobs"),
        ("/v1/people/staff", json!({ "name": "Asha", "phone": "+919800000001", "roles": [] }), "people_staff"),
        ("/v1/people/business", json!({ "handle": "late", "legal_name": "Late" }), "people_businesses"),
    ] {
        let late = token(&house, None, for_machines()).await;
        let before = count(table).await;
        let body = after_the_end_of(&house, &late, body);
        is_problem(&house.send(Method::POST, path, &late, None, body).await, 401, "people.token_revoked");
        assert_eq!(count(table).await, before, "{path}");
    }
    let late = token(&house, None, for_machines()).await;
    let tokens = count("people_tokens").await;
    let body = after_the_end_of(&house, &late, json!({ "label": "heir", "scopes": ["queue:read"] }));
    is_problem(&house.send(Method::POST, "/v1/people/tokens", &late, None, body).await, 401, "people.token_revoked");
    assert_eq!(count("people_tokens").await, tokens, "it leaves no heir");
    let late = token(&house, Some("sharma-mobiles"), for_machines()).await;
    let body = json!({ "place": { "table": "public.customers", "column": "phone" }, "cells": [cell] });
    let body = after_the_end_of(&house, &late, body);
    is_problem(&house.send(Method::POST, "/v1/vault/open", &late, None, body).await, 401, "people.token_revoked");
}
