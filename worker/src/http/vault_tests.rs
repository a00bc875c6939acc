//! Columns of the frontend's own, over HTTP.

use axum::http::StatusCode;
use muneem_jobs::people::{self, NewToken, Scope};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::tests::{House, is_problem};
use crate::outbound::{chance::OsChance, clock::SystemClock};

fn place() -> Value {
    json!({ "table": "public.customers", "column": "phone" })
}

fn seal(rows: &[(&str, &str)]) -> Value {
    let cells: Vec<_> = rows.iter().map(|(row, value)| json!({ "row": row, "value": value })).collect();
    json!({ "place": place(), "class": "contact", "index": "phone", "cells": cells })
}

async fn events(house: &House, verb: &str) -> Vec<Value> {
    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events order by xid, event_id")
        .fetch_all(&house.db.pool())
        .await
        .expect("events");
    let events = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).expect("JSON"));
    events.filter(|event| event["verb"] == verb).collect()
}

#[tokio::test]
async fn a_frontend_seals_finds_and_opens_its_own_column() {
    let house = House::new().await;
    let sent = seal(&[("7", "98765 43210"), ("8", "+919876543210"), ("9", "+919876543211")]);
    let sealed = house.post("/v1/vault/seal", &house.sharma, None, &sent).await;
    assert_eq!(sealed.status, StatusCode::OK, "{}", sealed.body);
    assert!(!sealed.body.to_string().contains("98765"), "{}", sealed.body);
    let cells = sealed.body["cells"].as_array().expect("cells");
    assert_eq!(cells[0]["index"], cells[1]["index"], "one number, written twice");
    assert_ne!(cells[0]["index"], cells[2]["index"]);
    assert_ne!(cells[0]["sealed"], cells[1]["sealed"]);

    let asked = json!({ "place": place(), "form": "phone", "value": "०९८७६५४३२१०" });
    let found = house.post("/v1/vault/find", &house.sharma, None, &asked).await;
    assert_eq!(found.body["indexes"], json!([cells[0]["index"]]), "{}", found.body);

    let asked = json!({ "place": place(), "cells": [
        { "row": "7", "sealed": cells[0]["sealed"] },
        { "row": "9", "sealed": cells[0]["sealed"] },
        { "row": "9", "sealed": "not base64" },
    ] });
    let opened = house.post("/v1/vault/open", &house.sharma, None, &asked).await;
    assert_eq!(
        opened.body["cells"],
        json!([
            { "row": "7", "value": "98765 43210", "problem": null },
            { "row": "9", "value": null, "problem": "vault.unreadable" },
            { "row": "9", "value": null, "problem": "vault.unreadable" },
        ]),
        "{}",
        opened.body
    );
}

#[tokio::test]
async fn atk_078_openings_and_searches_need_their_scope_and_are_on_record() {
    let house = House::new().await;
    let sealed = house.post("/v1/vault/seal", &house.sharma, None, &seal(&[("+919876543210", "9876543210")])).await;
    let cell = json!({ "row": "+919876543210", "sealed": sealed.body["cells"][0]["sealed"] });
    let open = json!({ "place": place(), "cells": [cell] });
    let find = json!({ "place": place(), "form": "phone", "value": "9876543210" });

    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let new = NewToken { scopes: vec![Scope::VaultSeal], ..NewToken::bootstrap() };
    let (_, writer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    for (path, body) in [("/v1/vault/open", &open), ("/v1/vault/find", &find)] {
        let refused = house.post(path, writer.expose_secret(), None, body).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
    assert!(events(&house, "vault.opened").await.is_empty());

    house.post("/v1/vault/open", &house.sharma, None, &open).await;
    house.post("/v1/vault/find", &house.sharma, None, &find).await;
    let (opened, searched) = (events(&house, "vault.opened").await, events(&house, "vault.searched").await);
    assert_eq!((opened.len(), searched.len()), (1, 1));
    assert_eq!((&opened[0]["details"]["count"], &opened[0]["actor"]["kind"]), (&json!(1), &json!("token")));
    assert_eq!(opened[0]["object"], json!({ "kind": "column", "id": "public.customers.phone" }));
    // A primary key may be a phone number: neither it nor the value is in the log.
    let told = format!("{opened:?} {searched:?}");
    assert!(!told.contains("9876543210"), "{told}");
    // What is not recorded is not answered.
    sqlx::query("revoke insert on muneem.evidence_events from muneem_app, muneem_business")
        .execute(&house.db.pool())
        .await
        .expect("revoked");
    sqlx::query(
        "revoke insert (event_id, business_id, body) on muneem.evidence_events from muneem_app, muneem_business",
    )
    .execute(&house.db.pool())
    .await
    .expect("revoked");
    let refused = house.post("/v1/vault/open", &house.sharma, None, &open).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!refused.body.to_string().contains("9876543210"), "{}", refused.body);
}

#[tokio::test]
async fn atk_069_values_of_another_business_and_tables_of_ours_do_not_open() {
    let house = House::new().await;
    let sealed = house.post("/v1/vault/seal", &house.sharma, None, &seal(&[("7", "9876543210")])).await;
    let cells = json!([{ "row": "7", "sealed": sealed.body["cells"][0]["sealed"] }]);
    let theirs = json!({ "place": place(), "cells": cells });
    let opened = house.post("/v1/vault/open", &house.verma, None, &theirs).await;
    assert_eq!(opened.body["cells"][0]["problem"], "vault.unreadable", "{}", opened.body);
    let mut named = theirs.clone();
    named["place"]["business"] = json!("sharma-mobiles");
    is_problem(&house.post("/v1/vault/open", &house.verma, None, &named).await, 404, "people.no_such_business");
    for table in ["muneem.people_staff", "Muneem.people_staff", "customers", "public.a;b"] {
        let mut ours = theirs.clone();
        ours["place"]["table"] = json!(table);
        is_problem(&house.post("/v1/vault/open", &house.sharma, None, &ours).await, 422, "http.bad_body");
    }
    let card = seal(&[("7", "4111 1111 1111 1111")]);
    is_problem(&house.post("/v1/vault/seal", &house.sharma, None, &card).await, 422, "vault.card_number");
    let many: Vec<_> = (0..1001).map(|_| ("7", "9876543210")).collect();
    is_problem(&house.post("/v1/vault/seal", &house.sharma, None, &seal(&many)).await, 422, "http.bad_body");
}

#[tokio::test]
async fn atk_059_keys_are_shown_to_who_may_and_one_business_sees_none_of_another() {
    let house = House::new().await;
    for token in [&house.sharma, &house.verma] {
        let sealed = house.post("/v1/vault/seal", token, None, &seal(&[("7", "98765 43210")])).await;
        assert_eq!(sealed.status, StatusCode::OK, "{}", sealed.body);
    }
    let hers = house.get("/v1/vault/keys", &house.sharma).await.body;
    let classes: Vec<_> = hers["keys"].as_array().expect("keys").iter().map(|key| key["class"].clone()).collect();
    assert_eq!(classes, [json!("business"), json!("contact"), json!("index")], "{hers}");
    let of: Vec<_> = hers["keys"].as_array().expect("keys").iter().map(|key| key["business"].clone()).collect();
    assert!(of.iter().all(|business| *business == "sharma-mobiles"), "{of:?}");
    assert_eq!(hers["unregistered"][0]["column"], "public.customers.phone");
    let all = house.get("/v1/vault/keys", &house.all).await.body;
    assert_eq!(all["keys"].as_array().map(Vec::len), Some(6), "{all}");
    let asked = house.get("/v1/vault/keys?business=sharma-mobiles", &house.verma).await;
    is_problem(&asked, 404, "people.no_such_business");
    assert!(!all.to_string().contains("wrapped\":\""), "no key, wrapped or not: {all}");

    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let new = NewToken { scopes: vec![Scope::VaultSeal], ..NewToken::bootstrap() };
    let (_, writer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    is_problem(&house.get("/v1/vault/keys", writer.expose_secret()).await, 403, "people.missing_scope");
}

#[tokio::test]
async fn atk_078_a_search_where_nothing_was_indexed_makes_no_key() {
    let house = House::new().await;
    house.post("/v1/vault/seal", &house.sharma, None, &seal(&[("7", "98765 43210")])).await;
    let keys = || async {
        let count = "select count(*) from muneem.vault_keys";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&house.db.pool()).await.expect("counted")
    };
    let before = keys().await;
    for column in ["mobile", "phone_1", "phone_2"] {
        let place = json!({ "table": "public.customers", "column": column });
        let asked = json!({ "place": place, "form": "phone", "value": "9876543210" });
        let found = house.post("/v1/vault/find", &house.sharma, None, &asked).await;
        assert_eq!((found.status, &found.body["indexes"]), (StatusCode::OK, &json!([])), "{}", found.body);
    }
    assert_eq!(keys().await, before);
}
