//! What causes each word of the log: acts that can be done again and again until one succeeds.

use std::{future::Future, pin::Pin, process::Stdio, sync::Arc, time::Instant};

use muneem::outbound::chance::OsChance;
use muneem_jobs::{
    evidence::{Act as Done, Object, Word, words},
    law::india_date,
    messaging::{self, MessageId},
    outbound::{Clock, Phone, carrier::NumberId},
    people::BusinessId,
    queue::{
        self, NewJob,
        work::{self, Buried, Claimed, Held},
    },
    schedule::{self, Declaration, Missed},
};
use muneem_tests::{PATIENCE, binary};
use serde_json::{Value, json};

use super::house::{Failure, House, NUMBER};

type Doing = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
type Group = Pin<Box<dyn Future<Output = Vec<Case>>>>;

/// One act, and what the log says of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) says: Vec<Word>,
    pub(super) act: Box<dyn Fn() -> Doing + Send + Sync>,
    /// Done by the owner of the schema, who is superuser here.
    pub(super) as_superuser: bool,
}

/// In the order in which they are done: later ones may stand on earlier ones. The last ones move the clock.
pub(super) const GROUPS: &[fn(Arc<House>) -> Group] = &[
    |house| Box::pin(accounts(house)),
    |house| Box::pin(invoices(house)),
    |house| Box::pin(papers(house)),
    |house| Box::pin(jobs_and_schedules(house)),
    |house| Box::pin(sending(house)),
    |house| Box::pin(receipts(house)),
    |house| Box::pin(doubts(house)),
    |house| Box::pin(machine(house)),
];

/// `case!(house, "name", [WORDS], |db| what is done)`: `db` is a connection of the app role; what is captured is `Copy`.
macro_rules! case {
    ($house:ident, $name:literal, [$($word:ident),+], || $done:expr) => {{
        let kept = Arc::clone(&$house);
        Case {
            name: $name,
            says: vec![$(words::$word),+],
            as_superuser: false,
            act: Box::new(move || {
                let $house = Arc::clone(&kept);
                Box::pin(async move {
                    $done;
                    Ok(())
                })
            }),
        }
    }};
    ($house:ident, $name:literal, [$($word:ident),+], |$db:ident| $done:expr) => {{
        let kept = Arc::clone(&$house);
        Case {
            name: $name,
            says: vec![$(words::$word),+],
            as_superuser: false,
            act: Box::new(move || {
                let $house = Arc::clone(&kept);
                Box::pin(async move {
                    let mut $db = $house.app.acquire().await?;
                    $done;
                    Ok(())
                })
            }),
        }
    }};
}

fn demand(holds: bool) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err("it was not done".into()) }
}

async fn accounts(house: Arc<House>) -> Vec<Case> {
    vec![
        case!(house, "a number to send from is set", [ACCOUNT_SET], |db| {
            messaging::set_account(&mut db, &account(house.business), &house.by()).await?;
        }),
        case!(house, "the log is probed", [PROBED], |db| {
            let object = Object { kind: "log", id: "one" };
            let probe = Done { word: words::PROBED, business: None, object, details: json!({}) };
            house.by().record(&mut db, probe).await?;
        }),
    ]
}

fn account(business: BusinessId) -> messaging::Account {
    messaging::Account {
        business,
        number: NumberId::parse(NUMBER).expect("digits"),
        waba_id: "500600".to_owned(),
        display_phone: Phone::parse("+919876500142").expect("a mobile"),
    }
}

pub(super) async fn set_account(house: &House) {
    let mut db = house.app.acquire().await.unwrap();
    messaging::set_account(&mut db, &account(house.business), &house.by()).await.unwrap();
}

/// A phone sold over the counter; `total` in rupees.
fn invoice(house: &House, number: &str, total: &str) -> Value {
    json!({ "invoice": {
        "kind": "tax_invoice",
        "number": number,
        "issued_on": india_date(house.clock.now()).to_string(),
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
        }],
        "total": total
    } })
}

async fn invoices(house: Arc<House>) -> Vec<Case> {
    let issue = |number, total| NewJob::named("invoice.issue", house.business, invoice(&house, number, total));
    let good: &'static Claimed = Box::leak(Box::new(house.hold(&issue("SM/1", "14999.00")).await));
    let bad: &'static Claimed = Box::leak(Box::new(house.hold(&issue("SM/2", "1.00")).await));
    vec![
        case!(house, "an invoice is registered", [INVOICE_REGISTERED], || { house.run(good, None).await? }),
        case!(house, "an invoice is refused", [INVOICE_REFUSED], || { house.run(bad, Some("invoice.refused")).await? }),
    ]
}

/// After [`invoices`], whose invoice this puts on paper.
async fn papers(house: Arc<House>) -> Vec<Case> {
    let render: &'static Claimed = Box::leak(Box::new(house.hold_kind("invoice.render").await));
    vec![case!(house, "an invoice is issued", [INVOICE_ISSUED], || { house.run(render, None).await? })]
}

async fn jobs_and_schedules(house: Arc<House>) -> Vec<Case> {
    let mut db = house.app.acquire().await.unwrap();
    let job = |number: &str| NewJob::named("invoice.issue", house.business, invoice(&house, number, "1.00"));
    let cancelled = queue::enqueue_sealed(&mut db, &house.deps.vault, &job("SM/3")).await.unwrap();
    let mut dead = Vec::new();
    for number in ["SM/4", "SM/5"] {
        let claimed = house.hold(&job(number)).await;
        let held = Held { job: claimed.job, attempt: claimed.attempt };
        let buried = Buried { held, cause: "invoice.refused", error: String::new() };
        work::bury(&mut db, house.worker, &[buried]).await.unwrap();
        dead.push(claimed.job);
    }
    let (one, cause) = (dead[0], "invoice.refused");
    vec![
        case!(house, "a job is cancelled", [JOB_CANCELLED], |db| {
            demand(queue::cancel(&mut db, cancelled, &house.by()).await?)?;
        }),
        case!(house, "a dead job goes back in line", [JOB_RETRIED], |db| {
            demand(queue::retry(&mut db, one, &house.by()).await?)?;
        }),
        case!(house, "all dead jobs of a cause go back in line", [JOB_RETRIED], |db| {
            let filter = queue::JobFilter { cause: Some(cause.to_owned()), ..queue::JobFilter::default() };
            demand(queue::retry_many(&mut db, &filter, 100, &house.by()).await? == 1)?;
        }),
        case!(house, "a schedule is put", [SCHEDULE_PUT], |db| {
            schedule::put(&mut db, &nightly(), &house.by()).await?;
        }),
        case!(house, "a schedule rests", [SCHEDULE_PAUSED], |db| {
            schedule::pause(&mut db, "house.sweep", &house.by()).await?;
        }),
        case!(house, "a schedule runs again", [SCHEDULE_RESUMED], |db| {
            schedule::resume(&mut db, "house.sweep", &house.by()).await?;
        }),
        case!(house, "a schedule's job is made out of turn", [SCHEDULE_TRIGGERED], |db| {
            schedule::trigger(&mut db, "house.sweep", "once", &house.by()).await?
        }),
        case!(house, "a schedule is removed", [SCHEDULE_REMOVED], |db| {
            schedule::remove(&mut db, "house.sweep", &house.by()).await?;
        }),
    ]
}

fn nightly() -> Declaration {
    Declaration {
        name: "house.sweep".to_owned(),
        kind: "queue.forget_finished".to_owned(),
        payload: json!({ "keep_days": 30 }),
        scope: schedule::Scope::Named("sharma-mobiles".to_owned()),
        lane: None,
        expression: "@daily".parse().unwrap(),
        missed: Missed::RunOnce,
        catch_up_max: 100,
    }
}

async fn hold_send(house: &House) -> (MessageId, &'static Claimed) {
    let id = house.message().await;
    let job = NewJob::of(house.business, &messaging::Send { message_id: id }).unwrap();
    (id, Box::leak(Box::new(house.hold(&job).await)))
}

async fn sending(house: Arc<House>) -> Vec<Case> {
    let (_, send) = hold_send(&house).await;
    let hello = status("wamid.stranger", "read", json!({}));
    vec![case!(house, "a message is posted", [MESSAGE_ATTEMPTED, MESSAGE_SENT], || { house.run(send, None).await? }), {
        let kept = Arc::clone(&house);
        Case {
            name: "a webhook is kept",
            says: vec![words::WEBHOOK_KEPT],
            as_superuser: false,
            act: Box::new(move || {
                let (house, hello) = (Arc::clone(&kept), hello.clone());
                Box::pin(async move { receive(&house, &hello).await })
            }),
        }
    }]
}

/// A webhook about one message.
fn status(wamid: &str, status: &str, more: Value) -> String {
    let mut told = json!({ "id": wamid, "status": status, "timestamp": "1795500000" });
    let Value::Object(more) = more else { panic!("{more} is no object") };
    told.as_object_mut().unwrap().extend(more);
    json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": NUMBER }, "statuses": [told]
    } }] }] })
    .to_string()
}

async fn receive(house: &House, body: &str) -> Result<(), Failure> {
    let mut tx = house.app.begin().await?;
    messaging::receive_webhook(&mut tx, &house.deps.vault, &*house.clock, &OsChance, body.as_bytes()).await?;
    tx.commit().await?;
    Ok(())
}

/// A message that was posted, and the job that applies a webhook about it.
async fn told(house: &House, what: &str, more: Value) -> &'static Claimed {
    let before = house.carrier.posts();
    let (_, send) = hold_send(house).await;
    house.run(send, None).await.unwrap();
    let posts = house.carrier.posts();
    let reference = posts.keys().find(|post| !before.contains_key(*post)).expect("it was posted");
    receive(house, &status(&format!("wamid.{reference}"), what, more)).await.unwrap();
    Box::leak(Box::new(house.hold_kind("messaging.apply_webhook").await))
}

async fn receipts(house: Arc<House>) -> Vec<Case> {
    let delivered = told(&house, "delivered", json!({})).await;
    let failed = told(&house, "failed", json!({ "errors": [{ "code": 131_026, "title": "undeliverable" }] })).await;
    vec![
        case!(house, "a message is delivered", [MESSAGE_DELIVERED], || { house.run(delivered, None).await? }),
        case!(house, "a message fails for good", [ATTEMPT_FAILED, MESSAGE_FAILED], || {
            house.run(failed, None).await?;
        }),
    ]
}

/// Moves the clock: first past the longest run of a job, then past the life of the messages.
async fn doubts(house: Arc<House>) -> Vec<Case> {
    let (dead, send) = hold_send(&house).await;
    house.run_until(send, "messaging.posting").await;
    let (lost, send) = hold_send(&house).await;
    *house.carrier.answers_lost.lock().unwrap() = true;
    house.run(send, None).await.unwrap();
    *house.carrier.answers_lost.lock().unwrap() = false;
    house.clock.advance(chrono::TimeDelta::minutes(10));
    let look = |message_id| {
        NewJob::of(house.business, &messaging::Reconcile { message_id, attempt: Some(1) }).expect("it serialises")
    };
    let doubted: &'static Claimed = Box::leak(Box::new(house.hold(&look(dead)).await));
    let settled: &'static Claimed = Box::leak(Box::new(house.hold(&look(lost)).await));
    let now = house.clock.now();
    vec![
        case!(house, "nobody can tell what became of an attempt", [OUTCOME_UNKNOWN], || {
            house.run(doubted, Some("messaging.waiting")).await?;
        }),
        case!(house, "an attempt in doubt is settled", [OUTCOME_RECONCILED], || {
            let behind = now + chrono::TimeDelta::hours(25) - house.clock.now();
            house.clock.advance(behind.max(chrono::TimeDelta::zero()));
            house.run(settled, None).await?;
        }),
    ]
}

async fn machine(house: Arc<House>) -> Vec<Case> {
    let mut owner = house.owner.acquire().await.unwrap();
    muneem_jobs::schema::record_versions(&mut owner, &house.by()).await.unwrap();
    sqlx::query("update muneem.schema_recorded set version = 'before'").execute(&mut *owner).await.unwrap();
    let migrated = Arc::clone(&house);
    let migrate = Case {
        name: "a version is reached",
        says: vec![words::SCHEMA_MIGRATED, words::LAW_CHANGED],
        as_superuser: true,
        act: Box::new(move || {
            let house = Arc::clone(&migrated);
            Box::pin(async move {
                let mut owner = house.owner.acquire().await?;
                Ok(muneem_jobs::schema::record_versions(&mut owner, &house.by()).await?)
            })
        }),
    };
    vec![migrate, case!(house, "a process serves", [SERVE_STARTED], || { serve(&house).await? })]
}

/// Starts `muneem serve` and waits until it says that it serves, or ends.
async fn serve(house: &House) -> Result<(), Failure> {
    let started = async || house.said().await.get(words::SERVE_STARTED.as_str()).copied().unwrap_or(0);
    let (before, home, begun) = (started().await, tempfile::tempdir()?, Instant::now());
    let mut serving = tokio::process::Command::new(binary::path())
        .args(["serve", "--only", "scheduler"])
        .env_clear()
        .env("HOME", home.path())
        .env("DATABASE_URL", &house.app_url)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    loop {
        if let Some(status) = serving.try_wait()? {
            return Err(format!("it ended: {status}").into());
        }
        if started().await > before {
            serving.kill().await?;
            return Ok(());
        }
        assert!(begun.elapsed() < PATIENCE, "it neither serves nor ends");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
