//! Every address of the description: against every role, with fields that nobody asked for, with another business's ids
//! and cursors. A new address without its row here fails.

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use muneem_jobs::people::{self, Authority, Decision, Enrolment, NewToken, Role, Scope, scopes_of, support};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    gate::TABLE,
    tests::{House, is_problem},
};
use crate::outbound::{chance::OsChance, clock::SystemClock};

/// One address as the description has it.
pub(super) struct Route {
    pub(super) method: Method,
    path: String,
    pub(super) scope: Scope,
    /// The parameters that it cannot do without, `?from=1`.
    query: String,
    /// The smallest body that it takes; none where it takes none.
    body: Option<Value>,
}

impl Route {
    /// The address with `id` in its place.
    fn at(&self, id: &str) -> String {
        format!("{}{}", self.bare(id), self.query)
    }

    /// The same, without the parameters that it needs.
    pub(super) fn bare(&self, id: &str) -> String {
        self.path.replace("{id}", id).replace("{name}", id)
    }
}

pub(super) async fn routes(house: &House) -> Vec<Route> {
    let description = house.get("/openapi.json", "").await.body;
    let mut routes = Vec::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let row = TABLE.iter().find(|(listed, at, _)| listed.as_str().eq_ignore_ascii_case(method) && at == path);
            let (.., scope) = row.unwrap_or_else(|| panic!("{method} {path} has no row in the gate's table"));
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = schema.is_object().then(|| sample(&description, schema));
            let asked = operation["parameters"].as_array().into_iter().flatten();
            let needed = asked.filter(|one| one["in"] == "query" && one["required"] == true);
            let query: Vec<String> = needed
                .map(|one| {
                    format!("{}={}", one["name"].as_str().expect("a name"), sample(&description, &one["schema"]))
                })
                .collect();
            let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
            let method = method.to_uppercase().parse().expect("a method");
            routes.push(Route { method, path: path.clone(), scope: *scope, query, body });
        }
    }
    assert_eq!(routes.len(), TABLE.len(), "a row of the gate's table has no address");
    routes
}

/// The smallest value that a schema of the description takes.
fn sample(description: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return sample(description, &description["components"]["schemas"][name]);
    }
    if let Some(one) = schema["enum"].get(0).or_else(|| schema.get("example")) {
        return one.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let needed = schema["required"].as_array().cloned().unwrap_or_default();
            let fields = needed.iter().filter_map(Value::as_str);
            fields.map(|name| (name.to_owned(), sample(description, &schema["properties"][name]))).collect()
        }
        Some("array") => json!([sample(description, &schema["items"])]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        Some(_) => json!("x"),
        None => Value::Object(Map::new()),
    }
}

pub(super) async fn token(house: &House, business: Option<&str>, scopes: Vec<Scope>) -> String {
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let business_id = match business {
        Some(handle) => Some(people::load_business(&mut owner, handle).await.expect("a shop").business_id),
        None => None,
    };
    let new = NewToken { business_id, scopes, ..NewToken::bootstrap() };
    let (_, bearer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    bearer.expose_secret().to_owned()
}

#[tokio::test]
async fn atk_061_every_role_at_every_address_gets_what_the_table_of_roles_says() {
    let house = House::new().await;
    // What a sample body asks for is planned as a job, so its kind is there.
    let kinds = muneem_jobs::kinds();
    muneem_jobs::queue::sync_kinds(&mut house.db.pool().acquire().await.expect("a connection"), &kinds)
        .await
        .expect("kinds");
    let routes = routes(&house).await;
    for role in Role::ALL {
        let mut scopes = scopes_of(&[role]);
        scopes.retain(|scope| !scope.is_for_people_alone());
        let business = (!matches!(role, Role::Operator)).then_some("sharma-mobiles");
        let bearer = token(&house, business, scopes).await;
        for route in &routes {
            let path = route.at("018f0000-0000-7000-8000-000000000000");
            let body = route.body.as_ref().map_or_else(Body::empty, |body| body.to_string().into());
            let answered = house.send(route.method.clone(), &path, &bearer, None, body).await;
            let what = format!("{role} at {} {}: {}", route.method, route.path, answered.body);
            if role.may(route.scope) {
                assert_ne!(answered.body["type"], "/problems/people.missing_scope", "{what}");
                assert!(answered.status.as_u16() < 500, "{what}");
            } else {
                assert_eq!(answered.status, StatusCode::FORBIDDEN, "{what}");
                assert_eq!(answered.body["type"], "/problems/people.missing_scope", "{what}");
            }
        }
    }
}

#[tokio::test]
async fn atk_066_a_field_that_nobody_asked_for_is_refused_in_every_body() {
    let house = House::new().await;
    let mut tried = 0;
    for route in routes(&house).await {
        let Some(body) = &route.body else { continue };
        let path = route.at("018f0000-0000-7000-8000-000000000000");
        for field in ["role", "business_id", "is_drill", "state", "approved_at", "granted_by"] {
            for place in places(body) {
                let mut bent = body.clone();
                let at = bent.pointer_mut(&place).and_then(Value::as_object_mut).expect("an object");
                if at.contains_key(field) {
                    continue;
                }
                at.insert(field.to_owned(), json!("owner"));
                let answered = house.send(route.method.clone(), &path, &house.all, None, bent.to_string()).await;
                let what = format!("{} {} with {place}/{field}", route.method, route.path);
                assert_eq!(answered.body["type"], "/problems/http.bad_body", "{what}: {}", answered.body);
                assert!(answered.body.to_string().contains(field), "{what} is named: {}", answered.body);
                tried += 1;
            }
        }
    }
    assert!(tried >= 60, "too few bodies were tried: {tried}");
}

/// Where objects stand in a body, but for a job's payload: that is the kind's own, which its schema closes.
fn places(body: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![(String::new(), body)];
    while let Some((at, value)) = open.pop() {
        if at.ends_with("/payload") {
            continue;
        }
        match value {
            Value::Object(fields) => {
                open.extend(fields.iter().map(|(name, value)| (format!("{at}/{name}"), value)));
                all.push(at);
            }
            Value::Array(items) => {
                open.extend(items.iter().enumerate().map(|(place, value)| (format!("{at}/{place}"), value)));
            }
            _ => {}
        }
    }
    all
}

#[tokio::test]
async fn atk_059_people_tokens_and_cursors_of_another_business_do_not_exist() {
    let house = House::new().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let body = json!({ "name": "Asha", "phone": format!("+91980000000{number}"), "roles": ["counter_staff"] });
        let made = house.post("/v1/people/staff", &house.sharma, None, &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        assert_eq!(made.body["phone"], format!("…0{number}"));
        assert!(!made.body.to_string().contains("98000"), "{}", made.body);
        ids.push(made.body["staff_id"].as_str().expect("an id").to_owned());
    }
    let body = json!({ "label": "till", "scopes": ["queue:write"] });
    let made = house.post("/v1/people/tokens", &house.sharma, None, &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    ids.push(made.body["public_id"].as_str().expect("an id").to_owned());
    for route in routes(&house).await.iter().filter(|route| route.path.contains("{id}")) {
        for id in &ids {
            let body = route.body.as_ref().map_or_else(Body::empty, |body| body.to_string().into());
            let answered = house.send(route.method.clone(), &route.at(id), &house.verma, None, body).await;
            let status = answered.status.as_u16();
            assert!(matches!(status, 400 | 404), "{} {}: {}", route.method, route.at(id), answered.body);
            assert!(!answered.body.to_string().contains("980000"), "{}", answered.body);
        }
    }
    // Hers in pages, each token once, and never one of another business.
    let body = json!({ "label": "second till", "scopes": ["queue:write"] });
    assert_eq!(house.post("/v1/people/tokens", &house.sharma, None, &body).await.status, StatusCode::CREATED);
    let whole = house.get("/v1/people/tokens?usable=true", &house.sharma).await.body;
    let (mut seen, mut at) = (Vec::new(), "/v1/people/tokens?usable=true&limit=1".to_owned());
    loop {
        let page = house.get(&at, &house.sharma).await.body;
        seen.extend(page["items"].as_array().expect("items").iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        at = format!("/v1/people/tokens?usable=true&limit=1&cursor={next}");
    }
    assert_eq!(&json!(seen), &whole["items"]);
    assert!(seen.len() >= 2 && seen.iter().any(|one| one["label"] == "second till"), "{whole}");
    assert_eq!(house.get("/v1/people/tokens?usable=false", &house.sharma).await.body["items"], json!([]));
    for list in ["/v1/people/staff", "/v1/people/tokens"] {
        let seen = house.get(list, &house.verma).await.body.to_string();
        assert!(ids.iter().all(|id| !seen.contains(id.as_str())), "{list}: {seen}");
        is_problem(
            &house.get(&format!("{list}?business=sharma-mobiles"), &house.verma).await,
            404,
            "people.no_such_business",
        );
    }
    // What the machine of one business may not, however it asks.
    let twice = json!({ "handle": "mine-too", "legal_name": "Mine" });
    let refused = house.post("/v1/people/business", &house.sharma, None, &twice).await;
    is_problem(&refused, 403, "people.not_for_one_business");
    let plan = house.send(Method::PATCH, "/v1/people/business", &house.sharma, None, r#"{"plan":"premium"}"#).await;
    is_problem(&plan, 403, "people.not_for_one_business");
    let set = json!({ "gstin": "27AAPFU0939F1ZV", "contact_phone": "+919800000009", "language": "hi" }).to_string();
    let set = house.send(Method::PATCH, "/v1/people/business", &house.sharma, None, set).await;
    assert_eq!((set.status, &set.body["gstin"]), (StatusCode::OK, &json!("27…ZV")), "{}", set.body);
    assert_eq!(house.get("/v1/people/business", &house.verma).await.body["gstin"], Value::Null);
    // Whoever is removed behind the wall is removed wholly: what she signs in with stands outside it.
    let gone = house.post(&format!("/v1/people/staff/{}/remove", ids[0]), &house.sharma, None, &json!({})).await;
    assert_eq!((gone.status, &gone.body["name"]), (StatusCode::OK, &Value::Null), "{}", gone.body);
}

#[tokio::test]
async fn atk_067_a_cursor_of_another_list_filter_or_business_leads_nowhere() {
    let house = House::new().await;
    for _ in 0..3 {
        let job = json!({ "kind": "test.count", "payload": { "till": 1 } });
        for token in [&house.sharma, &house.verma] {
            assert_eq!(house.post("/v1/queue/jobs", token, None, &job).await.status, StatusCode::CREATED);
        }
    }
    let page = house.get("/v1/queue/jobs?limit=1&state=ready", &house.sharma).await.body;
    let cursor = page["next"].as_str().expect("a next page").to_owned();
    let on = |list: &str| format!("{list}cursor={cursor}");
    let next = house.get(&on("/v1/queue/jobs?limit=2&state=ready&"), &house.sharma).await;
    assert_eq!((next.status, next.body["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{}", next.body);
    for (path, token) in [
        (on("/v1/queue/jobs?state=ready&"), &house.verma),
        (on("/v1/queue/jobs?state=ready&"), &house.all),
        (on("/v1/queue/jobs?state=dead&"), &house.sharma),
        (on("/v1/queue/jobs?"), &house.sharma),
        (on("/v1/invoice/invoices?"), &house.sharma),
        ("/v1/queue/jobs?state=ready&cursor=OA".to_owned(), &house.sharma),
    ] {
        is_problem(&house.get(&path, token).await, 400, "http.bad_cursor");
    }
}

#[tokio::test]
async fn support_sees_masked_and_only_while_let_in_and_every_request_is_on_record() {
    let house = House::new().await;
    let kinds = muneem_jobs::kinds();
    muneem_jobs::queue::sync_kinds(&mut house.db.pool().acquire().await.expect("a connection"), &kinds)
        .await
        .expect("kinds");
    let mut db = house.db.app_pool().acquire().await.expect("a connection");
    let business = people::load_business(&mut db, "sharma-mobiles").await.expect("a shop").business_id;
    let vault = muneem_jobs::vault::Vault::with_root(
        &house.db.app_pool(),
        &[7; 32].into(),
        std::sync::Arc::new(SystemClock),
        std::sync::Arc::new(OsChance),
    );
    let operator = Authority::operator();
    let now = muneem_jobs::outbound::Clock::now(&SystemClock);
    let decision = Decision { by: &operator, now, chance: &OsChance };
    let person = |business_id, role, email: &str| Enrolment {
        business_id,
        name: "Somebody".to_owned(),
        language: "en".to_owned(),
        phone: None,
        email: Some(email.to_owned()),
        roles: vec![role],
    };
    let owner = person(Some(business), Role::Owner, "asha@example.in");
    let owner = people::enrol_staff(&mut db, &vault, &owner, &decision).await.expect("enrolled");
    let ravi = person(None, Role::Support, "ravi@example.com");
    let ravi = people::enrol_staff(&mut db, &vault, &ravi, &decision).await.expect("enrolled");
    let hers = Authority::of_staff(&owner);
    let hers = Decision { by: &hers, ..decision };
    let wish = support::Wish { reason: "Bills do not go out", lasting: support::USUAL, only: None };
    let grant = support::grant(&mut db, &vault, &wish, &hers).await.expect("let in");
    let (_, bearer) = support::open_token(&mut db, grant.grant_id, ravi.staff_id, &decision).await.expect("a token");
    let bearer = bearer.expose_secret();

    assert_eq!(house.get("/v1/queue/jobs", bearer).await.status, StatusCode::OK);
    is_problem(
        &house
            .post(
                "/v1/vault/open",
                bearer,
                None,
                &json!({ "place": { "table": "a.b", "column": "c" },
        "cells": [] }),
            )
            .await,
        403,
        "people.missing_scope",
    );
    let looks = async || -> i64 {
        sqlx::query_scalar(
            "select count(*) from muneem.evidence_events
             where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'people.support_looked'",
        )
        .fetch_one(&house.db.pool())
        .await
        .expect("counted")
    };
    assert_eq!(looks().await, 2, "what was refused was tried");
    // What cannot be put on record is not shown.
    for grant in ["insert", "insert (event_id, business_id, body)"] {
        let statement = format!("revoke {grant} on muneem.evidence_events from muneem_app, muneem_business");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&house.db.pool()).await.expect("revoked");
    }
    assert_eq!(house.get("/v1/queue/jobs", bearer).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    sqlx::query("grant insert (event_id, business_id, body) on muneem.evidence_events to muneem_app, muneem_business")
        .execute(&house.db.pool())
        .await
        .expect("granted");
    let listed = house.get("/v1/people/support", &house.sharma).await.body;
    assert_eq!(
        (&listed["items"][0]["live"], &listed["items"][0]["granted_by"]),
        (&json!(true), &json!(owner.staff_id))
    );
    assert_eq!(house.get("/v1/people/support", &house.verma).await.body["items"], json!([]));
    let path = format!("/v1/people/support/{}/end", grant.grant_id);
    is_problem(&house.post(&path, &house.verma, None, &json!({})).await, 404, "people.no_such_grant");
    assert_eq!(house.post(&path, &house.sharma, None, &json!({})).await.status, StatusCode::OK);
    is_problem(&house.get("/v1/queue/jobs", bearer).await, 401, "people.token_revoked");
}
