//! What the duties show over HTTP: invoices with their papers and refusals, messages with their way.

use std::{future::Future, pin::Pin};

use async_trait::async_trait;
use axum::http::StatusCode;
use chrono::{NaiveDate, TimeDelta};
use muneem_jobs::{
    Deps,
    evidence::By,
    kinds, law, messaging,
    outbound::{
        Carrier, Clock, Phone, Wamid,
        carrier::{Accepted, Media, MediaId, NumberId, OutgoingMessage, SendOutcome, Sender, UploadError},
    },
    people::{self, NewToken, Scope},
    queue::{
        self, Done, JobContext, Lane, Steps,
        work::{self, Buried, Held, Want},
    },
    vault::Vault,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Arc,
    tests::{House, is_problem},
};
use crate::outbound::{chance::OsChance, clock::SystemClock};

const PHONE: &str = "+919876543210";

/// Accepts everything, under ids that spell the recipient, as the real ones do.
struct Accepting;

#[async_trait]
impl Carrier for Accepting {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        Ok(MediaId("77".to_owned()))
    }

    async fn send(&self, _: &Sender, message: &OutgoingMessage) -> SendOutcome {
        SendOutcome::Accepted(Accepted {
            wamid: Wamid::new(&format!("wamid.{}", message.to.digits())).expect("an id"),
            held: false,
            trace: None,
        })
    }
}

/// Nobody listens to the steps.
struct Unheard;

impl Steps for Unheard {
    fn reached<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

fn today() -> NaiveDate {
    law::india_date(SystemClock.now())
}

fn document(number: &str) -> Value {
    json!({
        "invoice": {
            "kind": "tax_invoice",
            "number": number,
            "issued_on": today(),
            "supplier": {
                "legal_name": "Sharma Mobiles Private Limited",
                "gstin": "27ZZZPZ0000Z1ZA",
                "address": { "lines": ["14 Laxmi Road"], "city": "Pune", "pin": "411030", "state": "27" }
            },
            "buyer": {
                "name": "आशा वर्मा",
                "address": { "lines": ["Flat 3"], "city": "Pune", "pin": "411038", "state": "27" }
            },
            "lines": [{
                "description": "Nokia G42 5G", "hsn": "8517", "quantity": "1", "unit": "NOS",
                "unit_price": "12711.016949", "gst_rate": "18"
            }]
        },
        "deliver": { "whatsapp": { "to": PHONE } }
    })
}

impl House {
    /// Publishes all kinds and gives the first shop a WhatsApp number.
    async fn furnished() -> Self {
        let house = Self::new().await;
        let mut owner = house.db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &kinds()).await.expect("kinds");
        let business = people::load_business(&mut owner, "sharma-mobiles").await.expect("a shop").business_id;
        let account = messaging::Account {
            business,
            number: NumberId::parse("100200300").expect("a number id"),
            waba_id: "500600".to_owned(),
            display_phone: Phone::parse("+919876500142").expect("a phone"),
        };
        messaging::set_account(&mut owner, &account, &By::operator(SystemClock.now(), &OsChance))
            .await
            .expect("an account");
        house
    }

    async fn issue(&self, payload: &Value) {
        let body = json!({ "kind": "invoice.issue", "payload": payload });
        let made = self.post("/v1/queue/jobs", &self.sharma, None, &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    }

    /// Runs what is ready, one after the other, at most `most` jobs.
    async fn run(&self, most: usize) {
        let deps = Arc::new(Deps {
            db: self.db.app_pool(),
            clock: Arc::new(SystemClock),
            chance: Arc::new(OsChance),
            objects: self.objects.clone(),
            carrier: Arc::new(Accepting),
            mailer: Arc::new(crate::outbound::mail::NotConfigured),
            vault: Arc::new(self.vault()),
            messaging: messaging::Settings::DEFAULT,
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
        });
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        for _ in 0..most {
            let want = Want { lane: Lane::Transactional, jobs: 1, after: Uuid::nil() };
            let Some(job) = work::claim(&mut conn, worker, &[want]).await.expect("a claim").pop() else { return };
            let kind = kinds().into_iter().find(|kind| kind.name == job.kind).expect("one of ours");
            let context = JobContext {
                deps: Arc::clone(&deps),
                job: job.job,
                attempt: job.attempt,
                worker,
                business: job.business,
                cancelled: CancellationToken::new(),
                steps: Arc::new(Unheard),
            };
            let held = Held { job: job.job, attempt: job.attempt };
            let payload = job.open(&mut conn, &deps.vault).await.expect("it opens");
            match kind.run(&payload, &context).await {
                Ok(Done::Acked) => {}
                Ok(Done::Ack(result)) => {
                    work::finish(&mut conn, worker, &[(held, result)]).await.expect("an end");
                }
                Err(failure) => {
                    let buried = [Buried { held, cause: failure.cause, error: failure.error }];
                    work::bury(&mut conn, worker, &buried).await.expect("a burial");
                }
            }
        }
    }

    /// A token with these scopes and no other.
    fn vault(&self) -> Vault {
        Vault::with_root(&self.db.app_pool(), &[7; 32].into(), Arc::new(SystemClock), Arc::new(OsChance))
    }

    async fn token(&self, scopes: Vec<Scope>) -> String {
        let mut owner = self.db.pool().acquire().await.expect("a connection");
        let new = NewToken { scopes, ..NewToken::bootstrap() };
        let (_, bearer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
        bearer.expose_secret().to_owned()
    }
}

/// The ids of all items, page by page.
async fn walk(house: &House, list: &str, token: &str) -> Vec<String> {
    let (mut path, mut seen) = (format!("{list}?limit=2"), Vec::new());
    loop {
        let page = house.get(&path, token).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let items = page.body["items"].as_array().expect("items");
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page.body["next"].as_str() else { return seen };
        path = format!("{list}?limit=2&cursor={next}");
    }
}

#[tokio::test]
async fn an_invoice_is_seen_and_its_paper_fetched_by_its_business_alone() {
    let house = House::furnished().await;
    house.issue(&document("SM/26-27/00042")).await;
    house.run(1).await;
    let list = house.get("/v1/invoice/invoices", &house.sharma).await;
    let listed = &list.body["items"][0];
    assert_eq!((&listed["number"], &listed["state"]), (&json!("SM/26-27/00042"), &json!("received")), "{}", list.body);
    let path = format!("/v1/invoice/invoices/{}", listed["id"].as_str().expect("an id"));
    let early = house.get(&format!("{path}/pdf"), &house.sharma).await;
    is_problem(&early, 409, "invoice.not_issued");
    assert_eq!(early.headers["retry-after"], "1");

    house.run(1).await;
    let shown = house.get(&path, &house.sharma).await;
    assert_eq!(shown.status, StatusCode::OK);
    let mut body = shown.body;
    for personal in ["आशा", "9876543210", "27ZZZPZ0000Z1ZA"] {
        assert!(!body.to_string().contains(personal), "{body}");
    }
    for field in ["id", "business_id", "issued_on", "financial_year", "pdf_digest", "keep_until"] {
        assert!(body[field].is_string(), "{field}");
        body[field] = format!("[{field}]").into();
    }
    insta::assert_snapshot!("invoice", serde_json::to_string_pretty(&body).expect("JSON"));

    let pdf = house.get(&format!("{path}/pdf"), &house.sharma).await;
    assert_eq!(pdf.status, StatusCode::OK, "{}", pdf.body);
    assert!(pdf.body.as_str().expect("no JSON").starts_with("%PDF-"));
    assert_eq!(pdf.headers["content-type"], "application/pdf");
    assert_eq!(pdf.headers["content-disposition"], "attachment; filename=\"SM-26-27-00042.pdf\"");
    assert_eq!(pdf.headers["x-content-type-options"], "nosniff");
    assert_eq!(pdf.headers["cache-control"], "no-store");

    for path in [path.clone(), format!("{path}/pdf")] {
        is_problem(&house.get(&path, &house.verma).await, 404, "invoice.no_such_invoice");
        is_problem(&house.get(&path, "").await, 401, "people.no_token");
        assert_eq!(house.get(&path, &house.all).await.status, StatusCode::OK);
        let blind = house.token(vec![Scope::QueueRead, Scope::MessagingRead]).await;
        is_problem(&house.get(&path, &blind).await, 403, "people.missing_scope");
    }
    assert_eq!(house.get("/v1/invoice/invoices", &house.verma).await.body["items"], json!([]));
}

#[tokio::test]
async fn lists_have_pages_and_are_narrowed_to_a_business() {
    let house = House::furnished().await;
    for number in 1..=5 {
        house.issue(&document(&format!("SM/{number}"))).await;
    }
    house.run(15).await;
    for list in ["/v1/invoice/invoices", "/v1/messaging/messages"] {
        let seen = walk(&house, list, &house.sharma).await;
        assert_eq!(seen.len(), 5, "{list}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
        assert_eq!(walk(&house, list, &house.all).await, seen);
        assert!(walk(&house, list, &house.verma).await.is_empty());
        let of = |handle: &str| format!("{list}?business={handle}");
        let items = async |path: &str, token: &str| house.get(path, token).await.body["items"].as_array().map(Vec::len);
        assert_eq!(items(&of("sharma-mobiles"), &house.all).await, Some(5));
        assert_eq!(items(&of("verma-phones"), &house.all).await, Some(0));
        assert_eq!(items(&of("sharma-mobiles"), &house.sharma).await, Some(5));
        is_problem(&house.get(&of("sharma-mobiles"), &house.verma).await, 404, "people.no_such_business");
        is_problem(&house.get(&of("nobody"), &house.all).await, 404, "people.no_such_business");
        is_problem(&house.get(&format!("{list}?colour=red"), &house.all).await, 400, "http.bad_query");
        is_problem(&house.get(&format!("{list}?cursor=AAAA"), &house.all).await, 400, "http.bad_cursor");
        is_problem(&house.get(&format!("{list}?limit=201"), &house.all).await, 400, "http.bad_query");
        assert_eq!(items(&format!("{list}?limit=200"), &house.all).await, Some(5));
        let blind = house.token(vec![Scope::QueueRead]).await;
        is_problem(&house.get(list, &blind).await, 403, "people.missing_scope");
    }
}

#[tokio::test]
async fn a_refused_document_says_what_to_mend() {
    let house = House::furnished().await;
    let mut wrong = document("SM/26-27/00042");
    wrong["invoice"]["supplier"]["gstin"] = json!("27ZZZPZ0000Z1ZB");
    wrong["invoice"]["issued_on"] = json!(today() + TimeDelta::days(1));
    house.issue(&wrong).await;
    house.run(1).await;
    let dead = house.get("/v1/queue/jobs?state=dead&kind=invoice.issue", &house.sharma).await;
    let error = dead.body["items"][0]["error"].as_str().expect("an error").to_owned();
    let (_, rest) = error.split_once("(refusal ").expect("it names the refusal");
    let id = rest.split_once(')').expect("an id").0;
    let path = format!("/v1/invoice/refusals/{id}");
    let mut shown = house.get(&path, &house.sharma).await.body;
    assert_eq!(shown["id"], *id);
    assert!(!shown.to_string().contains("आशा"), "{shown}");
    shown["id"] = "[id]".into();
    insta::assert_snapshot!("refusal", serde_json::to_string_pretty(&shown).expect("JSON"));
    is_problem(&house.get(&path, &house.verma).await, 404, "invoice.no_such_refusal");
    is_problem(&house.get("/v1/invoice/refusals/x", &house.sharma).await, 404, "invoice.no_such_refusal");
    let blind = house.token(vec![Scope::QueueRead]).await;
    is_problem(&house.get(&path, &blind).await, 403, "people.missing_scope");
}

#[tokio::test]
async fn a_message_shows_its_way_and_two_digits_of_its_recipient() {
    let house = House::furnished().await;
    house.issue(&document("SM/26-27/00042")).await;
    house.run(3).await;
    let list = house.get("/v1/messaging/messages", &house.sharma).await.body;
    assert_eq!((&list["items"][0]["state"], &list["items"][0]["recipient"]), (&json!("accepted"), &json!("…10")));
    let path = format!("/v1/messaging/messages/{}", list["items"][0]["id"].as_str().expect("an id"));
    let body = json!({ "entry": [{ "id": "500600", "changes": [{ "field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": { "phone_number_id": "100200300", "display_phone_number": "1" },
        "statuses": [{ "id": "wamid.919876543210", "status": "delivered", "recipient_id": "919876543210",
            "timestamp": SystemClock.now().timestamp().to_string() }]
    } }] }] });
    let mut conn = house.db.app_pool().acquire().await.expect("a connection");
    let (vault, body) = (house.vault(), body.to_string());
    let kept = messaging::receive_webhook(&mut conn, &vault, &SystemClock, &OsChance, body.as_bytes()).await;
    assert_eq!(kept.expect("kept"), messaging::Received::New(1));
    house.run(1).await;

    let shown = house.get(&path, &house.sharma).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    let mut body = shown.body;
    for personal in ["9876543210", "wamid", "आशा"] {
        assert!(!body.to_string().contains(personal), "{body}");
    }
    for field in ["id", "delivery_id", "expires_at", "created_at", "updated_at"] {
        body[field] = format!("[{field}]").into();
    }
    for (place, field) in
        [("attempts", "started_at"), ("attempts", "ended_at"), ("receipts", "at"), ("receipts", "received_at")]
    {
        assert!(body[place][0][field].is_string(), "{place} {field}");
        body[place][0][field] = format!("[{field}]").into();
    }
    insta::assert_snapshot!("message", serde_json::to_string_pretty(&body).expect("JSON"));

    is_problem(&house.get(&path, &house.verma).await, 404, "messaging.no_such_message");
    is_problem(&house.get("/v1/messaging/messages/x", &house.sharma).await, 404, "messaging.no_such_message");
    assert_eq!(house.get(&path, &house.all).await.status, StatusCode::OK);
    let blind = house.token(vec![Scope::InvoiceRead]).await;
    is_problem(&house.get(&path, &blind).await, 403, "people.missing_scope");
}

#[tokio::test]
async fn a_frontend_sends_words_by_the_ways_it_names() {
    let house = House::furnished().await;
    let send = Scope::MessagingSend;
    let sharma = house.token(vec![send, Scope::MessagingRead]).await;
    let path = "/v1/messaging/messages";
    let order = json!({
        "business": "sharma-mobiles",
        "to": { "phone": PHONE, "email": "asha@example.in" },
        "template": "order_ready",
        "parameters": messaging::template::library().find("order_ready", messaging::Language::En).expect("shipped").examples(),
        "language": "hi",
        "purpose": "shop.order_ready",
    });
    let made = house.post(path, &sharma, Some("order-1"), &order).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.body);
    assert_eq!((&made.body["channel"], &made.body["class"]), (&json!("whatsapp"), &json!("transactional")));
    let again = house.post(path, &sharma, Some("order-1"), &order).await;
    assert_eq!((again.status, &again.body), (StatusCode::ACCEPTED, &made.body), "once, however often it is asked for");
    let one = format!("{path}/{}", made.body["id"].as_str().expect("an id"));
    let shown = house.get(&one, &sharma).await.body;
    assert_eq!((&shown["ways"], &shown["way"], &shown["language"]), (&json!(2), &json!(1), &json!("hi")));
    for personal in ["9876543210", "asha", "आशा"] {
        assert!(!shown.to_string().contains(personal), "{shown}");
    }
    let rows = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from muneem.messaging_messages");
        count.fetch_one(&house.db.pool()).await.expect("a count")
    };
    let recorded: i64 = sqlx::query_scalar(
        "select count(*) from muneem.evidence_events where position('messaging.message_asked' in convert_from(body, 'UTF8')) > 0",
    )
    .fetch_one(&house.db.pool())
    .await
    .expect("a count");
    assert_eq!((rows().await, recorded), (1, 1));

    // By mail alone, with a file.
    let with = |changes: Value| {
        let mut body = order.clone();
        for (field, value) in changes.as_object().expect("fields") {
            body[field] = value.clone();
        }
        body
    };
    let pdf = json!({ "filename": "a.pdf", "content_base64": "JVBERi0xLjc=" });
    let mail = with(json!({ "channels": ["mail"] }));
    assert_eq!(house.post(path, &sharma, None, &mail).await.body["channel"], "mail");
    assert_eq!(rows().await, 2);
    let bill = with(json!({ "template": "tax_invoice", "document": pdf, "purpose": "invoice.issued",
        "parameters": messaging::template::library().find("tax_invoice", messaging::Language::En).expect("shipped").examples() }));
    assert_eq!(house.post(path, &sharma, None, &bill).await.status, StatusCode::ACCEPTED);
    assert_eq!(rows().await, 3);

    // What does not fit names its field, and nothing is written.
    for (changes, field) in [
        (json!({ "to": {} }), "to"),
        (json!({ "to": { "phone": "12" } }), "to.phone"),
        (json!({ "to": { "email": "nobody" } }), "to.email"),
        (json!({ "channels": ["pigeon"] }), "channel"),
        (json!({ "to": { "phone": PHONE }, "channels": ["mail"] }), "to.email"),
        (json!({ "template": "no_such" }), "parameters.template"),
        (json!({ "template": null }), "parameters"),
        (json!({ "template": null, "parameters": {} }), "template"),
        (json!({ "text": "and words of my own" }), "template"),
        (json!({ "parameters": {} }), "parameters.customer_name"),
        (json!({ "purpose": "Orders!" }), "purpose"),
        (json!({ "policy": "sometimes" }), "policy"),
        (json!({ "from": "x" }), "from"),
        (json!({ "from": "999" }), "from"),
        (json!({ "document": pdf }), "document"),
        (json!({ "document": { "filename": "a.pdf", "content_base64": "TVo=" } }), "document"),
        (json!({ "document": { "filename": "a.exe", "content_base64": "TVo=" } }), "document"),
        (json!({ "document": { "filename": "a.pdf", "content_base64": "?" } }), "document.content_base64"),
        (json!({ "expires_at": "2020-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "fall_back_after_secs": 0 }), "fall_back_after_secs"),
        (json!({ "not_before": "2099-01-01T00:00:00Z", "expires_at": "2099-01-02T00:00:00Z" }), "not_before"),
        (json!({ "template": "sign_in_code", "parameters": { "code": "012345" } }), "template"),
    ] {
        let refused = house.post(path, &sharma, None, &with(changes.clone())).await;
        is_problem(&refused, 422, "http.bad_body");
        assert_eq!(refused.body["errors"][0]["field"], field, "{changes}: {}", refused.body);
    }
    // Words of one's own, to somebody who did not write.
    let text =
        json!({ "business": "sharma-mobiles", "to": { "phone": PHONE }, "text": "Yes.", "purpose": "shop.answer" });
    is_problem(&house.post(path, &sharma, None, &text).await, 409, "messaging.window_closed");
    // A shop without a number sends by mail, and says so where there is no mail.
    let other = json!({ "business": "verma-phones" });
    let both = house.post(path, &sharma, None, &with(other.clone())).await;
    assert_eq!(both.body["channel"], "mail", "{}", both.body);
    let mut phone_alone = with(other);
    phone_alone["to"] = json!({ "phone": PHONE });
    is_problem(&house.post(path, &sharma, None, &phone_alone).await, 409, "messaging.no_sender");
    assert_eq!(rows().await, 4);
    let blind = house.token(vec![Scope::MessagingRead]).await;
    is_problem(&house.post(path, &blind, None, &order).await, 403, "people.missing_scope");
}

#[tokio::test]
async fn the_description_lists_the_duties() {
    let house = House::new().await;
    let description = house.get("/openapi.json", "").await.body;
    for path in [
        "/v1/invoice/invoices",
        "/v1/invoice/invoices/{id}",
        "/v1/invoice/invoices/{id}/pdf",
        "/v1/invoice/refusals/{id}",
        "/v1/messaging/messages",
        "/v1/messaging/messages/{id}",
    ] {
        let get = &description["paths"][path]["get"];
        assert!(get["responses"]["200"]["content"].is_object(), "{path}: {get}");
        assert!(get["security"].is_array() && get["responses"]["default"].is_object(), "{path}");
    }
    let list = description["paths"]["/v1/invoice/invoices"]["get"]["description"].as_str().expect("a description");
    assert!(list.contains("POST /v1/queue/jobs"), "{list}");
}

#[tokio::test]
async fn atk_047_a_card_number_is_refused_at_the_edge_and_its_field_named() {
    let house = House::furnished().await;
    let mut payload = document("SM/26-27/00047");
    payload["invoice"]["note"] = json!("paid with 4111 1111 1111 1111");
    let body = json!({ "kind": "invoice.issue", "payload": payload });
    let refused = house.post("/v1/queue/jobs", &house.sharma, None, &body).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    let told = refused.body.to_string();
    assert!(told.contains("vault.card_number") && told.contains("payload.invoice.note"), "{told}");
    assert!(!told.contains("1111"), "{told}");
    let jobs: i64 = sqlx::query_scalar("select count(*) from muneem.queue_jobs")
        .fetch_one(&house.db.pool())
        .await
        .expect("a count");
    assert_eq!(jobs, 0);
}

#[tokio::test]
async fn atk_044_a_number_that_nobody_confirmed_for_long_is_shown_with_its_day() {
    let house = House::new().await;
    let body = json!({ "name": "Asha", "phone": "+919800000001", "roles": ["counter_staff"] });
    let made = house.post("/v1/people/staff", &house.sharma, None, &body).await.body;
    assert_eq!(made["phone_stale_since"], Value::Null);
    let path = format!("/v1/people/staff/{}", made["staff_id"].as_str().expect("an id"));
    let since: chrono::DateTime<chrono::Utc> = sqlx::query_scalar(
        "update muneem.people_staff set phone_verified_at = now() - interval '90 days' returning phone_verified_at",
    )
    .fetch_one(&house.db.pool())
    .await
    .expect("long ago");
    let shown = house.get(&path, &house.sharma).await.body;
    assert_eq!(shown["phone_stale_since"], json!(since), "{shown}");
}
