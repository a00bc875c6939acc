//! Campaigns over HTTP.

use axum::http::StatusCode;
use muneem_jobs::{
    evidence::By,
    messaging::{self, Account},
    outbound::{Clock, Phone, carrier::NumberId},
    people,
};
use serde_json::{Value, json};

use super::{
    route_tests::token,
    tests::{Answered, House, is_problem},
};
use crate::outbound::{chance::OsChance, clock::SystemClock};

const CAMPAIGNS: &str = "/v1/messaging/campaigns";

impl House {
    /// With a number to send from, and the kinds of jobs.
    async fn with_number() -> Self {
        let house = Self::new().await;
        let mut owner = house.db.pool().acquire().await.expect("a connection");
        muneem_jobs::queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
        let account = Account {
            business: people::load_business(&mut owner, "sharma-mobiles").await.expect("a shop").business_id,
            number: NumberId::parse("106540352242922").expect("digits"),
            waba_id: "102290129340398".to_owned(),
            display_phone: Phone::parse("9876500142").expect("a mobile"),
        };
        messaging::set_account(&mut owner, &account, &By::operator(SystemClock.now(), &OsChance)).await.expect("set");
        house
    }

    async fn act(&self, id: &str, what: &str, body: &Value) -> Answered {
        self.post(&format!("{CAMPAIGNS}/{id}/{what}"), &self.sharma, None, body).await
    }

    async fn evidence_of(&self, verb: &str) -> i64 {
        sqlx::query_scalar(
            "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::jsonb ->> 'verb' = $1",
        )
        .bind(verb)
        .fetch_one(&self.db.pool())
        .await
        .expect("counted")
    }
}

fn draft() -> Value {
    json!({ "name": "Ready", "purpose": "service.ready", "template": "order_ready" })
}

fn person(phone: &str, name: &str) -> Value {
    json!({ "phone": phone, "language": "hi", "parameters": { "customer_name": name, "order_number": "ORD-1",
        "business_name": "Sharma Mobiles" } })
}

async fn made(house: &House, body: &Value) -> String {
    let made = house.post(CAMPAIGNS, &house.sharma, None, body).await;
    assert_eq!((made.status, &made.body["state"]), (StatusCode::CREATED, &json!("draft")), "{}", made.body);
    made.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn what_does_not_fit_is_named_by_row_and_field_and_nobody_is_added() {
    let house = House::with_number().await;
    let id = made(&house, &draft()).await;
    let people = json!({ "people": [
        person("+91 98123 45678", "आशा वर्मा"),
        person("98123-call", "Asha"),
        person("9812345679", "www.evil.example"),
        { "phone": "9812345679", "language": "xx" },
        { "phone": "9812345679", "language": "en", "parameters": { "customer_name": "Asha" } },
    ] });
    let refused = house.act(&id, "people", &people).await;
    is_problem(&refused, 422, "http.bad_body");
    let fields: Vec<_> = refused.body["errors"].as_array().expect("errors").iter().map(|one| &one["field"]).collect();
    assert_eq!(
        fields,
        [
            "people.1.phone",
            "people.2.parameters.customer_name",
            "people.3.language",
            "people.4.parameters.order_number"
        ]
    );
    let told = refused.body.to_string();
    assert!(!told.contains("98123") && !told.contains("evil") && !told.contains("आशा"), "{told}");
    let shown = house.get(&format!("{CAMPAIGNS}/{id}"), &house.sharma).await.body;
    assert_eq!(shown["messages"], json!({}));

    // The same person in two spellings is one, in one call and in the next.
    let twice = json!({ "people": [person("+91 98123 45678", "Asha"), person("09812345678", "Asha V."),
        person("9812345679", "Ravi")] });
    let added = house.act(&id, "people", &twice).await;
    assert_eq!((added.status, &added.body), (StatusCode::OK, &json!({ "added": 2, "doubles": 1 })), "{}", added.body);
    assert_eq!(house.act(&id, "people", &twice).await.body, json!({ "added": 0, "doubles": 3 }));
    let many: Vec<_> = (0..1001).map(|n| person(&format!("98123{n:05}"), "Asha")).collect();
    let refused = house.act(&id, "people", &json!({ "people": many })).await;
    assert_eq!(refused.body["errors"][0]["field"], "people", "{}", refused.body);
    assert_eq!(house.evidence_of("messaging.campaign_filled").await, 2);

    // Words that a campaign cannot say, and a consent that would be gone round.
    for (field, value, named) in [
        ("template", json!("tax_invoice"), "template"),
        ("template", json!("sign_in_code"), "template"),
        ("template", json!("no_such_words"), "template"),
        ("class", json!("statutory"), "class"),
        ("purpose", json!("Offers!"), "purpose"),
        ("expires_at", json!("2020-01-01T00:00:00Z"), "expires_at"),
        ("rests_after", json!(0), "rests_after"),
        ("name", json!(" "), "name"),
    ] {
        let mut body = draft();
        body[field] = value;
        let refused = house.post(CAMPAIGNS, &house.sharma, None, &body).await;
        let told = (refused.status.as_u16(), &refused.body["errors"][0]["field"]);
        assert_eq!(told, (422, &json!(named)), "{}", refused.body);
    }
    is_problem(&house.post(CAMPAIGNS, &house.verma, None, &draft()).await, 409, "messaging.no_sender");
}

#[tokio::test]
async fn an_estimate_tells_who_may_be_written_to_what_it_costs_and_how_long_it_takes() {
    let house = House::with_number().await;
    let mut body = draft();
    body["class"] = json!("marketing");
    body["purpose"] = json!("marketing.offers");
    let id = made(&house, &body).await;
    let phones: Vec<_> = (0..6).map(|n| format!("981234567{n}")).collect();
    let mut people: Vec<_> = phones.iter().map(|phone| person(phone, "Asha")).collect();
    people.push(person("+971501234567", "Asha"));
    assert_eq!(house.act(&id, "people", &json!({ "people": people })).await.body["added"], 7);
    let agree = |phone: &str| {
        json!({ "contact": { "phone": phone }, "purpose": "marketing.offers", "state": "given", "source": "web_form",
            "wording_version": "offers-v3", "language": "hi" })
    };
    for phone in phones.iter().take(4).map(String::as_str).chain(["+971501234567"]) {
        assert_eq!(
            house.post("/v1/messaging/consents", &house.sharma, None, &agree(phone)).await.status,
            StatusCode::CREATED
        );
    }
    let stop =
        json!({ "contact": { "phone": phones[0] }, "scope": "all", "cause": "person", "reason": "asked_in_shop" });
    house.post("/v1/messaging/suppressions", &house.sharma, None, &stop).await;
    // The carrier takes these words for marketing by now, lets two people a day be written to, and knows one of them.
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    for statement in [
        "update muneem.messaging_accounts set daily_recipients = 2",
        "insert into muneem.messaging_templates (business_id, waba_id, name, language, status, category)
         select business_id, waba_id, 'order_ready_v1', 'hi', 'APPROVED', 'MARKETING' from muneem.messaging_accounts",
        "insert into muneem.messaging_reached (business_id, portfolio, begins_at, people)
         select business_id, waba_id, now() - interval '1 hour', 1 from muneem.messaging_accounts",
        "insert into muneem.messaging_pairs (phone_number_id, business_id, person_mark, next_at, heard_at)
         select phone_number_id, business_id, to_mark, '-infinity', now() - interval '1 hour'
         from (select * from muneem.messaging_messages where to_phone_ending = '71') as one",
    ] {
        sqlx::query(statement).execute(&mut *owner).await.expect("done");
    }
    let estimate = house.act(&id, "estimate", &json!({})).await;
    assert_eq!(estimate.status, StatusCode::OK, "{}", estimate.body);
    let told = &estimate.body;
    assert_eq!((&told["people"], &told["allowed"], &told["in_window"]), (&json!(7), &json!(4), &json!(1)));
    assert_eq!(told["refused"], json!({ "stopped": 1, "no_consent": 2 }));
    let line = &told["cost"]["lines"][0];
    // 3 × 0.8631 = 2.5893; 18 % of it 0.466074.
    assert_eq!(
        (&line["category"], &line["messages"], &line["per_message"], &line["amount"]),
        (&json!("MARKETING"), &json!(3), &json!("0.8631"), &json!("2.5893")),
        "{told}"
    );
    assert_eq!((&told["cost"]["tax"], &told["cost"]["total"]), (&json!("0.47"), &json!("3.06")), "{told}");
    assert_eq!(told["cost"]["unpriced"], 1);
    // Three are new; one goes today, one tomorrow with the other.
    assert_eq!(
        told["time"],
        json!({ "messages_per_second": 80, "throughput_secs": 1, "daily_recipients": 2, "reached": 1,
            "new_recipients": 3, "further_days": 1, "ends_in_time": true })
    );
    let assumed = told["assumptions"].to_string();
    for part in ["Meta rate card INR, market India", "in force since 2026-01-01", "18 %", "outside India"] {
        assert!(assumed.contains(part), "{part}: {assumed}");
    }
    assert!(!told.to_string().contains("98123"), "{told}");
    assert_eq!(house.evidence_of("messaging.contacts_checked").await, 1);
}

#[tokio::test]
async fn what_a_campaign_says_is_previewed_and_tested_before_it_goes_out() {
    let house = House::with_number().await;
    let id = made(&house, &draft()).await;
    is_problem(&house.act(&id, "preview", &json!({})).await, 422, "http.bad_body");
    is_problem(&house.act(&id, "start", &json!({})).await, 422, "http.bad_body");
    let people = json!({ "people": [person("9812345678", "आशा वर्मा"), person("9812345679", "Ravi")] });
    house.act(&id, "people", &people).await;

    let shown = house.act(&id, "preview", &json!({ "phone": "+91 98123 45678" })).await;
    assert_eq!((shown.status, &shown.body["recipient"]), (StatusCode::OK, &json!("…78")), "{}", shown.body);
    assert_eq!((&shown.body["name"], &shown.body["language"]), (&json!("order_ready_v1"), &json!("hi")));
    let body = shown.body["body"].as_str().expect("words");
    assert!(body.contains("आशा वर्मा") && body.contains("ORD-1") && !body.contains("{{"), "{body}");
    assert!(!shown.body.to_string().contains("98123"), "{}", shown.body);
    let given = json!({ "language": "en", "parameters": { "customer_name": "Asha", "order_number": "ORD-7",
        "business_name": "Sharma Mobiles" } });
    let shown = house.act(&id, "preview", &given).await;
    assert_eq!(shown.body["recipient"], Value::Null);
    let body = shown.body["body"].as_str().expect("words");
    assert!(body.starts_with("Dear Asha, your order ORD-7 is ready at Sharma Mobiles."), "{body}");
    for (bad, field) in [
        (json!({ "phone": "9812345670" }), "phone"),
        (json!({ "language": "xx" }), "language"),
        (json!({ "parameters": { "customer_name": "Asha" } }), "parameters.order_number"),
        (json!({ "phone": "9812345678", "parameters": {} }), "parameters"),
    ] {
        let refused = house.act(&id, "preview", &bad).await;
        assert_eq!(refused.body["errors"][0]["field"], field, "{}", refused.body);
    }
    assert_eq!(house.evidence_of("messaging.campaign_previewed").await, 1, "whose parameters were nobody's needs none");

    // A test is a message of its own, with the examples of the template.
    let asked = house.act(&id, "test", &json!({ "phone": "9812345600" })).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.body);
    let message = asked.body["message_id"].as_str().expect("an id");
    let message = house.get(&format!("/v1/messaging/messages/{message}"), &house.sharma).await.body;
    assert_eq!(
        (&message["purpose"], &message["recipient"], &message["state"]),
        (&json!("campaign.test"), &json!("…00"), &json!("queued")),
        "{message}"
    );
    assert_eq!(house.get(&format!("{CAMPAIGNS}/{id}"), &house.sharma).await.body["messages"], json!({ "queued": 2 }));
    assert_eq!(house.evidence_of("messaging.campaign_tested").await, 1);
}

#[tokio::test]
async fn a_campaign_starts_rests_and_ends_and_who_may_only_end_it_does_no_more() {
    let house = House::with_number().await;
    let id = made(&house, &draft()).await;
    is_problem(&house.act(&id, "pause", &json!({})).await, 409, "messaging.campaign_stands_elsewhere");
    is_problem(&house.act(&id, "resume", &json!({})).await, 409, "messaging.campaign_stands_elsewhere");
    house.act(&id, "people", &json!({ "people": [person("9812345678", "Asha")] })).await;
    let first = house.post(&format!("{CAMPAIGNS}/{id}/start"), &house.sharma, Some("go"), &json!({})).await;
    assert_eq!((first.status, &first.body["state"]), (StatusCode::OK, &json!("running")), "{}", first.body);
    let again = house.post(&format!("{CAMPAIGNS}/{id}/start"), &house.sharma, Some("go"), &json!({})).await;
    assert_eq!(first.body, again.body);
    let late = house.act(&id, "people", &json!({ "people": [person("9812345679", "Ravi")] })).await;
    is_problem(&late, 409, "messaging.campaign_stands_elsewhere");

    let of_operator = token(&house, None, vec![people::Scope::CampaignStop, people::Scope::MessagingRead]).await;
    let path = |what: &str| format!("{CAMPAIGNS}/{id}/{what}");
    for what in ["start", "resume", "people", "estimate", "preview", "test"] {
        let refused = house.post(&path(what), &of_operator, None, &json!({})).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
    let paused = house.post(&path("pause"), &of_operator, None, &json!({})).await;
    assert_eq!(paused.body["state"], "paused", "{}", paused.body);
    let resumed = house.act(&id, "resume", &json!({ "rests_after": 5 })).await;
    assert_eq!((&resumed.body["state"], &resumed.body["rests_after"]), (&json!("running"), &json!(5)));
    let stopped = house.post(&path("stop"), &of_operator, None, &json!({})).await;
    assert_eq!(stopped.body["state"], "stopped", "{}", stopped.body);
    for what in ["start", "pause", "resume", "stop", "estimate"] {
        is_problem(&house.act(&id, what, &json!({})).await, 409, "messaging.campaign_stands_elsewhere");
    }

    // Another business sees none of it, and pages hold each once.
    let other = made(&house, &draft()).await;
    for what in ["people", "estimate", "preview", "test", "start", "pause", "resume", "stop"] {
        let body = match what {
            "people" => json!({ "people": [] }),
            "test" => json!({ "phone": "9812345678" }),
            _ => json!({}),
        };
        let refused = house.post(&format!("{CAMPAIGNS}/{other}/{what}"), &house.verma, None, &body).await;
        is_problem(&refused, 404, "messaging.no_such_campaign");
    }
    is_problem(&house.get(&path("")[..path("").len() - 1], &house.verma).await, 404, "messaging.no_such_campaign");
    let page = house.get(&format!("{CAMPAIGNS}?limit=1"), &house.sharma).await.body;
    assert_eq!(page["items"][0]["id"], other);
    let next = page["next"].as_str().expect("a next page");
    let page = house.get(&format!("{CAMPAIGNS}?limit=1&cursor={next}"), &house.sharma).await.body;
    assert_eq!((page["items"][0]["id"].as_str(), page.get("next")), (Some(id.as_str()), None));
    assert_eq!(house.get(CAMPAIGNS, &house.verma).await.body["items"], json!([]));
}
