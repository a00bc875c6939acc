//! Canaries: values that are personal or secret go in by every way in, and come out nowhere: no table, file, log line,
//! metric, trace, error, or what commands and the API show of jobs.

use std::{path::Path, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use muneem::outbound::{
    chance::OsChance,
    http::{Timeouts, client},
};
use muneem_jobs::{
    MIGRATOR,
    evidence::By,
    law::india_date,
    messaging,
    outbound::{Clock, Phone, carrier::NumberId},
    people::{self, BusinessId, NewToken},
};
use muneem_postgres::testing::TestDb;
use muneem_tests::{
    binary::{self, Running},
    outside::{TestChance, TestClock},
    until,
    workers::everything,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::serve::{collector, free_address};

const PHONE: &str = "+919876501234";
const EMAIL: &str = "asha.canary@example.in";
const GSTIN: &str = "29ABCDE1234F1ZW";
const NAME: &str = "Ashalata Kanariya";
const CARD: &str = "4111 1111 1111 1111";
const PAYMENT_TOKEN: &str = "tok_canary_5f2a9c";
/// Looks like a bearer token and opens nothing.
const TOKEN: &str = "mnm_00000000000000aa_cafecafecafecafecafecafecafecafecafecafecafecafecafecafecafecafe_00000000";
const APP_SECRET: &str = "canary-app-secret-2b7e";

/// What must be found nowhere, however it is written.
fn needles(bearer: &str) -> Vec<String> {
    let secret = bearer.split('_').nth(2).expect("a token has a secret").to_owned();
    let plain =
        ["9876501234", "98765 01234", "asha.canary", GSTIN, "Kanariya", CARD, "4111111111111111", PAYMENT_TOKEN];
    let mut needles: Vec<String> = plain.iter().map(|plain| (*plain).to_owned()).collect();
    needles.extend([TOKEN[21..].to_owned(), APP_SECRET.to_owned(), secret]);
    needles
}

/// What a needle looks like as text, in hexadecimal, and in base64 wherever it begins in it.
fn forms(needle: &str) -> Vec<String> {
    let mut forms = vec![needle.to_lowercase(), hex::encode(needle)];
    for shift in 0..3 {
        let shifted = [&[0; 2][..shift], needle.as_bytes()].concat();
        // Characters at either end share their bits with what stands beside.
        let own = [0, 2, 3][shift]..shifted.len() * 8 / 6;
        forms
            .extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|engine| engine.encode(&shifted)[own.clone()].to_owned()));
    }
    forms
}

/// Where in `text` a canary sings.
fn singing(needles: &[String], what: &str, text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut found = Vec::new();
    for needle in needles {
        for (form, text) in forms(needle).iter().zip([lower.as_str(); 2].into_iter().chain(std::iter::repeat(text))) {
            if let Some(at) = text.find(form) {
                let from = text[..at].char_indices().rev().nth(120).map_or(0, |(place, _)| place);
                let to = text[at..].char_indices().nth(200).map_or(text.len(), |(place, _)| at + place);
                found.push(format!("{what}: `{needle}` in …{}…", &text[from..to]));
            }
        }
    }
    found
}

#[test]
fn a_canary_is_heard_as_text_as_bytes_and_in_base64() {
    let needles = [EMAIL.to_owned()];
    for before in ["", "a", "ab", "abc"] {
        let said = format!("{before}<{EMAIL}>");
        for text in
            [said.to_uppercase(), hex::encode(&said), STANDARD_NO_PAD.encode(&said), URL_SAFE_NO_PAD.encode(&said)]
        {
            assert!(!singing(&needles, "text", &text).is_empty(), "{text}");
        }
    }
    assert!(singing(&needles, "text", "asha@example.in").is_empty());
}

fn invoice(number: &str, note: &str, today: &str) -> Value {
    json!({
        "invoice": {
            "kind": "tax_invoice",
            "number": number,
            "issued_on": today,
            "supplier": {
                "legal_name": NAME,
                "gstin": "27ZZZPZ0000Z1ZA",
                "address": { "lines": ["14 Laxmi Road"], "city": "Pune", "pin": "411030", "state": "27" },
                "phone": PHONE,
                "email": EMAIL
            },
            "buyer": {
                "name": NAME,
                "gstin": GSTIN,
                "address": { "lines": ["Flat 3"], "city": "Bengaluru", "pin": "560001", "state": "29" }
            },
            "note": note,
            "lines": [{
                "description": "Nokia G42 5G", "hsn": "8517", "quantity": "1", "unit": "NOS",
                "unit_price": "12711.016949", "gst_rate": "18"
            }]
        },
        "deliver": { "whatsapp": { "to": PHONE } }
    })
}

/// A house with a business, its number and a token, and a process that serves it.
struct House {
    db: TestDb,
    owner: PgPool,
    home: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
    at: std::net::SocketAddr,
    bearer: String,
    today: String,
    /// All that was answered, printed or shown.
    said: String,
}

impl House {
    async fn set(collector: std::net::SocketAddr) -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let owner = db.pool();
        let mut conn = owner.acquire().await.unwrap();
        muneem_jobs::schema::migrate(&mut conn).await.unwrap();
        let (clock, chance) = (TestClock::default(), TestChance::new(101));
        let business = people::add_business(&mut conn, "sharma-mobiles", "Sharma", &clock, &chance).await.unwrap();
        set_number(&mut conn, business.business_id, &clock).await;
        let new = NewToken { business_id: Some(business.business_id), ..NewToken::bootstrap() };
        let (_, bearer) = people::create_token(&mut conn, new, &clock, &chance).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let (at, nobody) = (free_address(), free_address());
        let environment = vec![
            ("DATABASE_URL", db.app_url()),
            ("MUNEEM__SERVER__LISTEN", at.to_string()),
            ("MUNEEM__DATA__DIR", home.path().join("data").display().to_string()),
            ("MUNEEM__TELEMETRY__OTLP_ENDPOINT", format!("http://{collector}/v1/traces")),
            ("MUNEEM__TELEMETRY__FORMAT", "json".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", format!("http://{nobody}")),
            ("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", PAYMENT_TOKEN.to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS", APP_SECRET.to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__VERIFY_TOKEN", APP_SECRET.to_owned()),
            ("RUST_LOG", "trace,h2=info,hyper=debug,tower=debug".to_owned()),
        ];
        let bearer = secrecy_of(&bearer);
        drop(conn);
        let today = india_date(clock.now()).to_string();
        Self { db, owner, home, environment, at, bearer, today, said: String::new() }
    }

    fn log(&self) -> std::path::PathBuf {
        self.home.path().join("log")
    }

    /// Sends a request; what is answered is kept, unless it is what the caller may read.
    async fn send(&mut self, request: http::Request<String>, may_read: bool) -> u16 {
        let (parts, body) = request.into_parts();
        let url = format!("http://{}{}", self.at, parts.uri);
        let client = client(Timeouts::DEFAULT).unwrap();
        let answer = client.request(parts.method, url).headers(parts.headers).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = format!("{:?}", answer.headers());
        let text = answer.text().await.unwrap();
        if !may_read {
            self.said += &format!("{status} {headers} {text}\n");
        }
        status
    }

    async fn post(&mut self, path: &str, body: String, may_read: bool) -> u16 {
        let request = http::Request::post(path)
            .header("authorization", format!("Bearer {}", self.bearer))
            .header("user-agent", format!("{NAME} {PHONE}"))
            .header("referer", format!("https://shop.example/?mail={EMAIL}"))
            .header("x-forwarded-for", format!("203.0.113.7, {PHONE}"))
            .header("x-request-id", "9876501234")
            .header("cookie", format!("session={PAYMENT_TOKEN}"))
            .header("idempotency-key", format!("{EMAIL}-{}-{}", path.len(), body.len()))
            .body(body)
            .unwrap();
        self.send(request, may_read).await
    }

    fn cli(&mut self, arguments: &[&str]) -> bool {
        let mut environment = self.environment.clone();
        environment.retain(|(name, _)| *name != "MUNEEM__TELEMETRY__OTLP_ENDPOINT");
        let done = binary::command(arguments, self.home.path(), &environment).output().unwrap();
        self.said += &String::from_utf8_lossy(&done.stdout);
        self.said += &String::from_utf8_lossy(&done.stderr);
        done.status.success()
    }

    async fn by_sql(&mut self, payload: &Value) {
        let enqueued = sqlx::query("select muneem.enqueue('invoice.issue', $1, 'sharma-mobiles')")
            .bind(payload)
            .execute(&self.owner)
            .await;
        if let Err(error) = enqueued {
            self.said += &format!("{error} {error:?}\n");
        }
    }

    async fn count(&self, what: &'static str) -> i64 {
        sqlx::query_scalar(what).fetch_one(&self.owner).await.unwrap()
    }
}

fn secrecy_of(bearer: &impl secrecy::ExposeSecret<str>) -> String {
    bearer.expose_secret().to_owned()
}

async fn set_number(conn: &mut sqlx::PgConnection, business: BusinessId, clock: &TestClock) {
    let account = messaging::Account {
        business,
        number: NumberId::parse("100200300").unwrap(),
        waba_id: "500600".to_owned(),
        display_phone: Phone::parse("+919800000001").unwrap(),
    };
    messaging::set_account(conn, &account, &By::operator(clock.now(), &OsChance)).await.unwrap();
}

/// By HTTP: jobs that are taken, refused for what they hold, and not even JSON.
async fn by_http(house: &mut House) {
    let job = |payload: Value| json!({ "kind": "invoice.issue", "payload": payload }).to_string();
    let today = house.today.clone();
    let good = job(invoice("SM/26-27/00001", "thank you", &today));
    assert_eq!(house.post("/v1/queue/jobs", good.clone(), false).await, 201);
    assert_eq!(house.post("/v1/queue/jobs", good, false).await, 201, "the same answer");
    let mut wrong = invoice("SM/26-27/00002", "no such rate", &today);
    wrong["invoice"]["lines"][0]["gst_rate"] = json!(PHONE);
    assert_eq!(house.post("/v1/queue/jobs", job(wrong), false).await, 201, "it dies later");
    let mut off = invoice("SM/26-27/00003", "off its schema", &today);
    off["invoice"]["lines"] = json!({ "mail": EMAIL, "name": [NAME] });
    let refused = [
        job(off),
        job(json!({ PHONE: EMAIL })),
        job(json!(format!("{NAME} {PHONE}"))),
        job(invoice("SM/26-27/00004", &format!("card {CARD}"), &today)),
        json!({ "kind": "invoice.issue", "payload": {}, "priority": format!("{PHONE} {NAME}") }).to_string(),
        json!({ "kind": "invoice.issue", "payload": {}, "run_at": EMAIL }).to_string(),
        format!("{{\"kind\": \"invoice.issue\", \"payload\": {{\"name\": \"{NAME}\", {PHONE}"),
        format!("{PHONE} {EMAIL}"),
        format!("{{\"kind\": \"{NAME}\u{0}{PHONE}\"}}"),
    ];
    for body in refused {
        let status = house.post("/v1/queue/jobs", body, false).await;
        assert!((400..500).contains(&status), "{status}");
    }
    for path in [
        format!("/v1/queue/jobs?phone={}&mail={EMAIL}", PHONE.replace('+', "%2B")),
        format!("/v1/queue/jobs?access_token={TOKEN}"),
        format!("/v1/queue/jobs/{PHONE}"),
        format!("/v1/invoice/invoices/{EMAIL}"),
        format!("/v1/{EMAIL}/{PHONE}"),
        format!("/health/ready?mail={EMAIL}"),
        format!("/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token={PAYMENT_TOKEN}&hub.challenge=1"),
    ] {
        let asked = |bearer: &str| {
            http::Request::get(&path).header("authorization", format!("Bearer {bearer}")).body(String::new()).unwrap()
        };
        let (with, without) = (asked(&house.bearer), asked(TOKEN));
        house.send(with, false).await;
        house.send(without, false).await;
    }
}

async fn by_webhook(house: &mut House) {
    let said = format!("I am {NAME}, {PHONE}, {EMAIL}, {GSTIN}, my card is {CARD} 12/27");
    let body = json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [{ "field": "messages",
        "value": { "metadata": { "phone_number_id": "100200300", "display_phone_number": PHONE },
            "contacts": [{ "profile": { "name": NAME }, "wa_id": "919876501234" }],
            "messages": [{ "id": "wamid.HBgMOTE5ODc2NTAxMjM0FQIA", "from": "919876501234", "timestamp": "1764000000",
                "type": "text", "text": { "body": said } }],
            "statuses": [{ "id": "wamid.HBgMOTE5ODc2NTAxMjM0FQIB", "status": "failed", "timestamp": "1764000000",
                "recipient_id": "919876501234",
                "errors": [{ "code": 131026, "title": format!("cannot reach {PHONE}") }] }] } }] }] })
    .to_string();
    let broken = format!("{{\"entry\": \"{said}");
    for (body, secret) in [(&body, APP_SECRET), (&broken, APP_SECRET), (&body, PAYMENT_TOKEN)] {
        let signature: String = messaging::sign(&secret.to_owned().into(), body.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let request = http::Request::post("/webhooks/whatsapp")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .header("content-type", "application/json")
            .body(body.clone())
            .unwrap();
        let status = house.send(request, false).await;
        assert_eq!(status == 200, secret == APP_SECRET, "{status}");
    }
}

async fn by_vault(house: &mut House) {
    let place = json!({ "table": "public.customers", "column": "phone" });
    let values = [PHONE, EMAIL, GSTIN, NAME, PAYMENT_TOKEN];
    let cells: Vec<_> = values.iter().map(|value| json!({ "row": "7", "value": value })).collect();
    let seal = json!({ "place": place, "class": "contact", "cells": cells }).to_string();
    assert_eq!(house.post("/v1/vault/seal", seal, false).await, 200);
    let find = json!({ "place": place, "form": "phone", "value": PHONE }).to_string();
    assert_eq!(house.post("/v1/vault/find", find, false).await, 200);
    for (form, value) in [("phone", format!("{PHONE}x")), ("email", format!("{NAME} {PHONE}")), ("gstin", PHONE.into())]
    {
        let find = json!({ "place": place, "form": form, "value": value }).to_string();
        assert_eq!(house.post("/v1/vault/find", find, false).await, 422);
    }
    let card = json!({ "place": place, "class": "contact", "cells": [{ "row": "8", "value": CARD }] }).to_string();
    assert_eq!(house.post("/v1/vault/seal", card, false).await, 422);

    // What is opened is answered in clear to who asked, and kept nowhere.
    let cells: Vec<_> = values.iter().map(|value| json!({ "row": "7", "value": value })).collect();
    let url = format!("http://{}/v1/vault/seal", house.at);
    let sealed: Value = client(Timeouts::DEFAULT)
        .unwrap()
        .post(url)
        .bearer_auth(&house.bearer)
        .body(json!({ "place": place, "class": "contact", "cells": cells }).to_string())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let open = json!({ "place": place, "cells": [{ "row": "7", "sealed": sealed["cells"][0]["sealed"] }] }).to_string();
    for _ in 0..2 {
        assert_eq!(house.post("/v1/vault/open", open.clone(), true).await, 200);
    }
}

async fn by_sql(house: &mut House) {
    let today = house.today.clone();
    house.by_sql(&invoice("SM/26-27/00011", "by SQL", &today)).await;
    let mut wrong = invoice("SM/26-27/00012", "by SQL, and wrong", &today);
    wrong["invoice"]["supplier"]["gstin"] = json!(EMAIL);
    wrong["invoice"]["lines"][0]["hsn"] = json!(PHONE);
    house.by_sql(&wrong).await;
    house.by_sql(&invoice("SM/26-27/00013", &format!("paid with {CARD}"), &today)).await;
    house.by_sql(&json!({ "invoice": PHONE, "mail": EMAIL })).await;
    let mut unknown = invoice("SM/26-27/00014", "a field too many", &today);
    unknown["invoice"][PHONE] = json!(NAME);
    house.by_sql(&unknown).await;

    // Nobody claims it before tomorrow.
    sqlx::query("select muneem.enqueue('invoice.issue', $1, 'sharma-mobiles', run_at => now() + interval '1 day')")
        .bind(invoice("SM/26-27/00015", "for tomorrow", &today))
        .execute(&house.owner)
        .await
        .unwrap();
    assert!(!singing(&[NAME.to_owned()], "tables", &everything(&house.owner).await).is_empty(), "it lies in clear");
    assert!(house.cli(&["schedule", "trigger", "queue.seal-waiting"]));
    until("it lies sealed", || async {
        house.count("select count(*) from muneem.queue_jobs where to_seal").await == 0
    })
    .await;
}

fn by_cli(house: &mut House) {
    let today = house.today.clone();
    let good = invoice("SM/26-27/00021", "by command", &today).to_string();
    assert!(house.cli(&["enqueue", "invoice.issue", &good, "--business", "sharma-mobiles"]));
    let mut off = invoice("SM/26-27/00022", "off", &today);
    off["invoice"]["lines"] = json!(PHONE);
    for wrong in [
        off.to_string(),
        invoice("SM/26-27/00023", &format!("card {CARD}"), &today).to_string(),
        format!("{{\"name\": \"{NAME}\", {PHONE}"),
    ] {
        assert!(!house.cli(&["enqueue", "invoice.issue", &wrong]));
    }
}

fn files_below(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(std::fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_101_canaries_planted_in_every_way_in_sing_nowhere() {
    let (collector, traces) = collector();
    let mut house = House::set(collector).await;
    let running = Running::start_writing(&["serve"], house.home.path(), &house.environment, &house.log());
    let ready = format!("http://{}/health/ready", house.at);
    let asking = client(Timeouts::DEFAULT).unwrap();
    until("it is ready", || async { asking.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) }).await;

    by_http(&mut house).await;
    by_webhook(&mut house).await;
    by_vault(&mut house).await;
    by_sql(&mut house).await;
    by_cli(&mut house);
    until("all is handled", || async {
        house.count("select count(*) from muneem.queue_jobs where kind <> 'messaging.send' and parked is null").await
            == 0
            && house.count("select count(*) from muneem.queue_dead").await == 4
            && house.count("select count(*) from muneem.files_objects").await == 3
    })
    .await;

    // Premises: the canaries are in the house, sealed.
    let needles = needles(&house.bearer);
    assert_eq!(house.count("select count(*) from muneem.invoice_refusals").await, 3);
    assert_eq!(house.count("select count(*) from muneem.messaging_webhooks").await, 2);
    let answers = house.count("select count(*) from muneem.people_idempotency_keys").await;
    assert_eq!(answers, 2, "of the jobs that were taken by HTTP");
    let mut files = Vec::new();
    files_below(&house.home.path().join("data/files"), &mut files);
    assert_eq!(files.len(), 3);

    let mut found = singing(&needles, "tables", &everything(&house.owner).await);
    let running_now =
        "select coalesce(string_agg(query, ' '), '') from pg_stat_activity where datname = current_database()";
    let statements: String = sqlx::query_scalar(running_now).fetch_one(&house.owner).await.unwrap();
    found.extend(singing(&needles, "statements", &statements));
    for file in &files {
        assert!(!file.starts_with(b"%PDF"), "a file lies in clear");
        found.extend(singing(&needles, "files", &String::from_utf8_lossy(file)));
    }
    for arguments in [
        &["jobs", "list", "--json"][..],
        &["jobs", "list", "--state", "dead"],
        &["invoice", "list", "--json"],
        &["doctor"],
    ] {
        house.cli(arguments);
    }
    let dead: Vec<i64> =
        sqlx::query_scalar("select job_id from muneem.queue_dead").fetch_all(&house.owner).await.unwrap();
    for id in dead {
        assert!(house.cli(&["jobs", "show", &id.to_string()]));
        let shown = http::Request::get(format!("/v1/queue/jobs/{id}"))
            .header("authorization", format!("Bearer {}", house.bearer))
            .body(String::new())
            .unwrap();
        assert_eq!(house.send(shown, false).await, 200);
    }
    assert!(house.said.contains("sealed"), "`jobs show` says how a payload lies");
    found.extend(singing(&needles, "answers and commands", &house.said));
    let metrics = asking.get(format!("http://{}/metrics", house.at)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("muneem_jobs_ended_total"), "{metrics}");
    found.extend(singing(&needles, "metrics", &metrics));

    let (in_peace, _) = running.terminate();
    assert!(in_peace);
    let log = std::fs::read_to_string(house.log()).unwrap();
    assert!(log.contains("\"level\":\"DEBUG\"") && log.contains("invoice.refused"), "the log is there");
    found.extend(singing(&needles, "log", &log));
    let (mut spans, mut said) = (0, String::new());
    while let Ok((head, body)) = traces.recv_timeout(Duration::from_secs(1)) {
        spans += 1;
        said += &head;
        said += &String::from_utf8_lossy(&body);
    }
    assert!(spans > 0 && said.contains("invoice.issue"), "traces were exported, and are readable");
    found.extend(singing(&needles, "traces", &said));
    assert!(found.is_empty(), "{} canaries sing:\n{}", found.len(), found.join("\n"));
    drop(house.db);
}
