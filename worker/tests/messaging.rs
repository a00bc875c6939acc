//! Messages over the real client, against the stand-in carrier, with the real receiver and a real database. Time is
//! moved by hand; jobs run when the test says so.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use muneem::{
    http::whatsapp::{Intake, routes},
    outbound::{
        chance::OsChance,
        clock::MovedClock,
        http::{Timeouts, client},
        whatsapp::{CloudApi, Settings as CloudSettings},
    },
    sandbox::{Options, Pace, Sandbox},
};
use muneem_jobs::{
    Deps,
    evidence::By,
    files,
    messaging::{self, Content, Credentials, Document, Language, MessageId, NewMessage, Policy, State, TaxInvoice},
    outbound::{Clock, ObjectError, ObjectStore, Phone, carrier::NumberId},
    people::BusinessId,
    queue::{self, Disposition, Done, JobContext, JobFailure, Kind, Lane, NewJob, Steps, work},
    vault::{Cell, INSTALLATION, Vault},
};
use muneem_postgres::testing::TestDb;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ASHA: &str = "919812345678";
const RAVI: &str = "919812300000";
const PDF: &[u8] = b"%PDF-1.7 one /Type /Page only";

/// Files in memory.
#[derive(Default)]
struct Shelf(Mutex<HashMap<String, Bytes>>);

#[async_trait]
impl ObjectStore for Shelf {
    async fn put_if_absent(&self, digest: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.lock().expect("not poisoned").entry(digest.to_owned()).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, digest: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.0.lock().expect("not poisoned").get(digest).cloned())
    }

    async fn exists(&self, digest: &str) -> Result<bool, ObjectError> {
        Ok(self.0.lock().expect("not poisoned").contains_key(digest))
    }
}

/// Stops a job for ever at one step, as `kill -9` does.
struct KillAt {
    step: Option<&'static str>,
    died: Notify,
}

impl Steps for KillAt {
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.step == Some(step) {
                self.died.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}

/// Holds a job up at one step until it may go on.
struct HoldAt {
    step: &'static str,
    reached: Notify,
    go_on: Notify,
}

impl Steps for HoldAt {
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.step == step {
                self.reached.notify_one();
                self.go_on.notified().await;
            }
        })
    }
}

/// What the queue does with a job whose worker was killed.
#[derive(Clone, Copy)]
enum AfterKill {
    /// Back in line.
    Again,
    /// Given up: killed too often, or cancelled meanwhile.
    Buried,
}

struct Shop {
    db: TestDb,
    deps: Arc<Deps>,
    clock: MovedClock,
    moved: Mutex<TimeDelta>,
    business: BusinessId,
    worker: i64,
    sandbox: SocketAddr,
    receiver: SocketAddr,
    http: reqwest::Client,
    credentials: Credentials,
    end: CancellationToken,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Shop {
    async fn open() -> Self {
        Self::open_with(None).await
    }

    /// With the carrier at another address than the stand-in's.
    async fn open_with(carrier_at: Option<String>) -> Self {
        let end = CancellationToken::new();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options { pace: Pace::INSTANT, ..Options::local(loopback, 7) };
        let credentials = options.credentials.clone();
        let sandbox = Sandbox::bind(options).await.expect("a free port");
        let sandbox_at = sandbox.address();
        tokio::spawn(sandbox.run(end.clone()));

        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let clock = MovedClock::default();
        let timeouts = Timeouts { connect: Duration::from_secs(2), total: Duration::from_millis(700) };
        let cloud = CloudApi::new(&CloudSettings {
            base_url: carrier_at.unwrap_or_else(|| format!("http://{sandbox_at}")),
            api_version: "v25.0".to_owned(),
            credentials: credentials.clone(),
            prove_secret: true,
            timeouts,
        });
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            objects: Arc::new(Shelf::default()),
            carrier: Arc::new(cloud.expect("a client")),
            mailer: Arc::new(muneem::outbound::mail::NotConfigured),
            vault: Arc::new(Vault::with_root(
                &db.app_pool(),
                &[7; 32].into(),
                Arc::new(clock.clone()),
                Arc::new(OsChance),
            )),
            messaging: messaging::Settings::DEFAULT,
        });
        let intake = Intake {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            vault: Arc::clone(&deps.vault),
            credentials: credentials.clone(),
            body_limit_bytes: 4 << 20,
        };
        let listener = TcpListener::bind(loopback).await.expect("a free port");
        let receiver = listener.local_addr().expect("bound");
        let until = end.clone();
        tokio::spawn(async move {
            axum::serve(listener, routes(intake)).with_graceful_shutdown(until.cancelled_owned()).await
        });
        let mut owner = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &kinds()).await.expect("kinds");
        let business = BusinessId(deps.chance.uuid_v7(clock.now()));
        sqlx::query("insert into muneem.people_businesses values ($1, 'sharma-mobiles', 'Sharma Mobiles', now())")
            .bind(business.0)
            .execute(&mut *owner)
            .await
            .expect("a business");
        let worker = work::join(&mut owner, "test", Duration::from_secs(3600), 16).await.expect("a worker");
        drop(owner);
        let shop = Self {
            db,
            deps,
            clock,
            moved: Mutex::default(),
            business,
            worker,
            sandbox: sandbox_at,
            receiver,
            http: client(Timeouts::DEFAULT).expect("a client"),
            credentials,
            end,
        };
        let account = messaging::Account {
            business,
            number: NumberId::parse(Options::NUMBER).expect("digits"),
            waba_id: Options::ACCOUNT.to_owned(),
            display_phone: Phone::parse("9800000001").expect("a mobile"),
        };
        let mut conn = shop.deps.db.acquire().await.expect("a connection");
        messaging::set_account(&mut conn, &account, &By::operator(shop.clock.now(), &OsChance))
            .await
            .expect("an account");
        let url = format!("http://{receiver}/webhooks/whatsapp");
        shop.control("callback", &json!({ "url": url })).await;
        shop
    }

    async fn control(&self, what: &str, body: &Value) {
        let answer = self.http.post(format!("http://{}/sandbox/{what}", self.sandbox)).json(body).send().await;
        assert_eq!(answer.expect("the stand-in answers").status(), 204, "{what}");
    }

    async fn fault(&self, what: Value) {
        self.control("faults", &json!({ "faults": [{ "what": what }] })).await;
    }

    async fn put_pdf(&self) -> files::Stored {
        let pdf = Bytes::from_static(PDF);
        let stored = files::put(&self.deps, self.business, "application/pdf", pdf).await.expect("stored");
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        files::record(&mut conn, &self.deps, &stored, None).await.expect("recorded");
        stored
    }

    async fn request(&self, to: &str, policy: Policy) -> MessageId {
        let stored = self.put_pdf().await;
        let new = NewMessage {
            business: self.business,
            to: Phone::parse(to).expect("a mobile"),
            content: Content::TaxInvoice(TaxInvoice {
                customer_name: "आशा वर्मा".into(),
                business_name: "Sharma Mobiles".into(),
                invoice_number: "INV-1042".into(),
                amount: "₹1,180.00".into(),
            }),
            language: Language::Hi,
            document: Some(Document { digest: stored.digest, filename: "INV-1042.pdf".into() }),
            policy,
            purpose: "invoice.issued",
            expires_at: None,
        };
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let id = messaging::request(&mut tx, &self.deps.vault, &self.clock, &OsChance, &new).await.expect("a message");
        tx.commit().await.expect("committed");
        id
    }

    /// The carrier's id in the last status that came. Nothing but the sealed body keeps it.
    async fn told_wamid(&self) -> String {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let (id, sealed): (String, Vec<u8>) = sqlx::query_as(
            "select webhook_id::text, body_sealed from muneem.messaging_webhooks order by received_at desc limit 1",
        )
        .fetch_one(&mut *conn)
        .await
        .expect("a webhook");
        let cell =
            Cell { business_id: INSTALLATION, table: "muneem.messaging_webhooks", column: "body_sealed", row: &id };
        let body = self.deps.vault.open(&mut conn, &cell, &sealed).await.expect("it opens");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let status = &body["entry"][0]["changes"][0]["value"]["statuses"][0];
        status["id"].as_str().expect("a status").to_owned()
    }

    async fn advance(&self, by: TimeDelta) {
        let moved = {
            let mut moved = self.moved.lock().expect("not poisoned");
            *moved += by;
            *moved
        };
        self.clock.set_offset(moved);
        sqlx::query("update muneem.law_clock set moved_by = make_interval(secs => $1)")
            .bind(moved.num_seconds() as f64)
            .execute(&self.db.pool())
            .await
            .expect("the clock moves");
    }

    fn context(&self, job: &work::Claimed, steps: Arc<dyn Steps>) -> JobContext {
        JobContext {
            deps: Arc::clone(&self.deps),
            job: job.job,
            attempt: job.attempt,
            worker: self.worker,
            business: job.business,
            cancelled: CancellationToken::new(),
            steps,
        }
    }

    /// Runs the job that sends until `step`, lets `meanwhile` happen, and then to its end.
    async fn send_held_at(&self, step: &'static str, meanwhile: impl Future<Output = ()>) -> Result<Done, JobFailure> {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        work::tick(&mut conn).await.expect("a tick");
        let want = work::Want { lane: Lane::Transactional, jobs: 1, after: Uuid::nil() };
        let claimed = work::claim(&mut conn, self.worker, &[want]).await.expect("a claim").pop().expect("a job");
        assert_eq!(claimed.kind, "messaging.send");
        let steps = Arc::new(HoldAt { step, reached: Notify::new(), go_on: Notify::new() });
        let ctx = self.context(&claimed, Arc::clone(&steps) as Arc<dyn Steps>);
        let kind = Kind::of::<messaging::Send>();
        let payload = claimed.open(&mut conn, &self.deps.vault).await.expect("it opens");
        let mut running = std::pin::pin!(kind.run(&payload, &ctx));
        tokio::select! {
            ended = &mut running => panic!("{step} was never reached: {ended:?}"),
            () = steps.reached.notified() => {}
        }
        meanwhile.await;
        steps.go_on.notify_one();
        let ended = running.await;
        if let Err(JobFailure { disposition: Disposition::Snooze(at), .. }) = &ended {
            let held = work::Held { job: claimed.job, attempt: claimed.attempt };
            let back = work::PutBack { held, run_at: Some(*at), counts: false, cause: None, error: None };
            work::put_back(&mut conn, self.worker, &[back]).await.expect("back");
        }
        ended
    }

    /// Runs what is due until nothing is. A job killed at `kill` goes back in line as a dead worker's does.
    async fn run_due_jobs(&self, kill: Option<&'static str>) -> bool {
        self.run_due_jobs_killing(kill, AfterKill::Again).await
    }

    async fn run_due_jobs_killing(&self, kill: Option<&'static str>, after: AfterKill) -> bool {
        let mut killed = false;
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        loop {
            work::tick(&mut conn).await.expect("a tick");
            let wants: Vec<_> =
                Lane::ALL.iter().map(|lane| work::Want { lane: *lane, jobs: 8, after: Uuid::nil() }).collect();
            let claimed = work::claim(&mut conn, self.worker, &wants).await.expect("a claim");
            if claimed.is_empty() {
                return killed;
            }
            for job in claimed {
                let steps = Arc::new(KillAt { step: kill.filter(|_| !killed), died: Notify::new() });
                let ctx = self.context(&job, Arc::clone(&steps) as Arc<dyn Steps>);
                let kind = kinds().into_iter().find(|kind| kind.name == job.kind).expect("a kind of ours");
                let held = work::Held { job: job.job, attempt: job.attempt };
                let back = |run_at, counts| work::PutBack { held, run_at, counts, cause: None, error: None };
                let payload = job.open(&mut conn, &self.deps.vault).await.expect("it opens");
                let ended = tokio::select! {
                    ended = kind.run(&payload, &ctx) => Some(ended),
                    () = steps.died.notified() => None,
                };
                match ended {
                    None => {
                        killed = true;
                        match after {
                            AfterKill::Again => {
                                work::put_back(&mut conn, self.worker, &[back(None, true)]).await.expect("back");
                            }
                            AfterKill::Buried => {
                                let buried = work::Buried { held, cause: "queue.poison", error: String::new() };
                                work::bury(&mut conn, self.worker, &[buried]).await.expect("buried");
                            }
                        }
                    }
                    Some(Ok(Done::Acked)) => {}
                    Some(Ok(Done::Ack(result))) => {
                        work::finish(&mut conn, self.worker, &[(held, result)]).await.expect("finished");
                    }
                    Some(Err(failure)) => match failure.disposition {
                        Disposition::Snooze(at) => {
                            work::put_back(&mut conn, self.worker, &[back(Some(at), false)]).await.expect("back");
                        }
                        other => panic!("{}: {other:?}: {}", job.kind, failure.error),
                    },
                }
            }
        }
    }

    async fn timeline(&self, id: MessageId) -> messaging::Timeline {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        messaging::find_timeline(&mut conn, Some(self.business), id).await.expect("readable").expect("there")
    }

    /// Runs jobs as webhooks bring them, until the message is where it should be.
    async fn until(&self, id: MessageId, state: State) -> messaging::Timeline {
        for _ in 0..400 {
            self.run_due_jobs(None).await;
            let timeline = self.timeline(id).await;
            if timeline.message.state == state {
                return timeline;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{state:?} was not reached: {:#?}", self.timeline(id).await);
    }

    async fn oracle(&self) -> Value {
        let answer = self.http.get(format!("http://{}/sandbox/oracle", self.sandbox)).send().await;
        answer.expect("the stand-in answers").json().await.expect("JSON")
    }

    /// How often each phone showed something.
    async fn shown(&self) -> BTreeMap<String, usize> {
        let oracle = self.oracle().await;
        let recipients = oracle["recipients"].as_object().expect("a map").iter();
        recipients
            .map(|(phone, chat)| {
                let shown =
                    chat.as_array().expect("a list").iter().filter(|one| !one["displayed_at"].is_null()).count();
                (phone.clone(), shown)
            })
            .collect()
    }

    /// Every reference was posted at most once.
    async fn assert_no_reference_twice(&self) {
        let oracle = self.oracle().await;
        for (reference, posts) in oracle["posts"]["by_ref"].as_object().expect("a map") {
            assert_eq!(posts, 1, "{reference}");
        }
    }

    async fn post_webhook(&self, body: &str, signature: Option<String>) -> u16 {
        let url = format!("http://{}/webhooks/whatsapp", self.receiver);
        let mut request = self.http.post(url).body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header("x-hub-signature-256", signature);
        }
        request.send().await.expect("the receiver answers").status().as_u16()
    }

    fn sign(&self, body: &str) -> Option<String> {
        let signature = messaging::sign(&self.credentials.app_secrets[0], body.as_bytes());
        Some(format!("sha256={}", hex::encode(signature)))
    }

    async fn count(&self, what: &'static str) -> i64 {
        let statement = match what {
            "webhooks" => "select count(*) from muneem.messaging_webhooks",
            "jobs" => "select count(*) from muneem.queue_jobs where kind = 'messaging.apply_webhook'",
            "sends" => "select count(*) from muneem.queue_jobs where kind = 'messaging.send'",
            "events" => "select count(*) from muneem.messaging_events",
            other => panic!("what are {other}?"),
        };
        sqlx::query_scalar(statement).fetch_one(&self.db.pool()).await.expect("a count")
    }

    /// Somebody writes to the number: webhooks are seen to arrive.
    async fn hear_something(&self, wamid: &str) {
        let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
            "metadata": { "phone_number_id": Options::NUMBER },
            "messages": [{ "id": wamid, "type": "text", "timestamp": "1764000000", "text": { "body": "hello" } }] } }] }] })
        .to_string();
        assert_eq!(self.post_webhook(&body, self.sign(&body)).await, 200);
    }
}

fn kinds() -> Vec<Kind> {
    vec![Kind::of::<messaging::Send>(), Kind::of::<messaging::Reconcile>(), Kind::of::<messaging::ApplyWebhook>()]
}

#[tokio::test]
async fn a_bill_is_posted_once_and_read() {
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let timeline = shop.until(id, State::Read).await;
    assert_eq!(timeline.attempts.len(), 1);
    let statuses: std::collections::BTreeSet<_> = timeline.events.iter().map(|event| event.status.as_str()).collect();
    assert!(statuses.contains("read"), "{statuses:?}");
    let oracle = shop.oracle().await;
    assert_eq!(oracle["posts"]["messages"], 1);
    let shown = &oracle["recipients"][ASHA][0];
    assert_eq!(shown["filename"], "INV-1042.pdf");
    assert!(shown["text"].as_str().expect("words").contains("आशा वर्मा"));
    // The file is with the carrier: a second message does not upload it again.
    let second = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(second, State::Read).await;
    assert_eq!(shop.oracle().await["posts"]["media"], 1);
}

#[tokio::test]
async fn what_was_taken_but_not_answered_is_settled_by_its_webhook() {
    for fault in [
        json!("accept_then_silence"),
        json!("accept_then_cut"),
        json!({ "accept_then_answer": { "status": 500, "body": "html" } }),
        json!({ "accept_then_answer": { "status": 502, "body": "empty" } }),
        json!({ "accept_then_answer": { "status": 200, "body": "half_json" } }),
        json!("report_first"),
    ] {
        let shop = Shop::open().await;
        shop.fault(fault.clone()).await;
        let id = shop.request(ASHA, Policy::AtLeastOnce).await;
        let end = if fault == "report_first" { State::Delivered } else { State::Read };
        shop.until(id, end).await;
        // Long after the window nothing is posted again.
        shop.advance(TimeDelta::minutes(10)).await;
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.attempts.len(), timeline.message.state), (1, end), "{fault}");
        assert_eq!(shop.oracle().await["posts"]["messages"], 1, "{fault}");
    }
}

#[tokio::test]
async fn silence_is_answered_by_another_post_only_when_webhooks_arrive() {
    let shop = Shop::open().await;
    shop.fault(json!("silence")).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Unknown).await;
    // The window is over, but nothing at all was heard: silence proves nothing.
    shop.advance(TimeDelta::seconds(121)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(61)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::PresumedLost, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);
    shop.assert_no_reference_twice().await;
}

#[tokio::test]
async fn better_never_than_twice_is_left_alone() {
    let shop = Shop::open().await;
    shop.fault(json!("silence")).await;
    let id = shop.request(ASHA, Policy::AtMostOnce).await;
    shop.until(id, State::Unknown).await;
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(121)).await;
    shop.until(id, State::UnknownFinal).await;
    assert_eq!(shop.oracle().await["posts"]["messages"], 1);
}

#[tokio::test]
async fn a_late_sign_of_a_lost_attempt_is_recorded_as_a_duplicate() {
    let shop = Shop::open().await;
    shop.control("faults", &json!({ "callbacks": { "stopped": true }, "faults": [{ "what": "accept_then_silence" }] }))
        .await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Unknown).await;
    shop.advance(TimeDelta::seconds(121)).await;
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(61)).await;
    shop.until(id, State::Accepted).await;
    assert!(shop.timeline(id).await.message.duplicate_delivered_at.is_none());
    shop.control("faults", &json!({ "reset": true })).await;
    for _ in 0..200 {
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        if timeline.message.duplicate_delivered_at.is_some() {
            assert_eq!(shop.shown().await[ASHA], 2);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the duplicate went unnoticed: {:#?}", shop.timeline(id).await);
}

#[tokio::test]
async fn a_refusal_waits_or_ends_as_its_code_says() {
    let shop = Shop::open().await;
    // The pair limit: once more after a second.
    shop.fault(json!({ "refuse": { "code": 131_056 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Queued).await;
    assert_eq!(shop.timeline(id).await.message.error_code, Some(131_056));
    shop.advance(TimeDelta::seconds(2)).await;
    let timeline = shop.until(id, State::Read).await;
    assert_eq!(timeline.attempts.len(), 2);
    assert_eq!(shop.shown().await[ASHA], 1);

    // A dead token holds the message; nothing is lost.
    shop.fault(json!({ "refuse": { "code": 190, "subcode": 463 } })).await;
    let held = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(held, State::Queued).await;
    assert_eq!(shop.timeline(held).await.message.held_scope.as_deref(), Some("credential"));
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until(held, State::Read).await;

    // Not on WhatsApp: never again.
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let gone = shop.request(RAVI, Policy::AtLeastOnce).await;
    let timeline = shop.until(gone, State::Failed).await;
    assert_eq!((timeline.message.error_code, timeline.attempts.len()), (Some(131_026), 1));

    // Reported as failed afterwards: final for the attempt, so another one is safe.
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let later = shop.request(RAVI, Policy::AtLeastOnce).await;
    let refused = async {
        loop {
            shop.run_due_jobs(None).await;
            let timeline = shop.timeline(later).await;
            if timeline.message.state == State::Queued && timeline.message.error_code == Some(131_000) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("queued again");
    shop.advance(TimeDelta::minutes(6)).await;
    let timeline = shop.until(later, State::Read).await;
    assert_eq!(timeline.attempts.len(), 2);
    assert!(timeline.message.duplicate_delivered_at.is_none());
    shop.assert_no_reference_twice().await;
}

#[tokio::test]
async fn a_carrier_out_of_reach_is_tried_again() {
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let shop = Shop::open_with(Some(format!("http://{closed}"))).await;
    let stored = shop.put_pdf().await;
    // The file is already with the carrier, so that the POST itself is what fails.
    sqlx::query("insert into muneem.messaging_media values ($1, $2, '1', now() + interval '1 day')")
        .bind(&stored.digest)
        .bind(Options::NUMBER)
        .execute(&shop.db.pool())
        .await
        .expect("a file");
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(5)).await;
    shop.run_due_jobs(None).await;
    let timeline = shop.timeline(id).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::NotSent, messaging::AttemptOutcome::NotSent]);
    assert_eq!(timeline.message.state, State::Queued);
    // Nothing ever worked: after its deadline it fails, and says so.
    shop.advance(TimeDelta::hours(25)).await;
    shop.until(id, State::Failed).await;
}

#[tokio::test]
async fn a_worker_killed_at_any_step_loses_and_doubles_nothing() {
    for step in ["messaging.uploaded", "messaging.posting", "messaging.posted", "messaging.applied"] {
        let shop = Shop::open().await;
        let id = shop.request(ASHA, Policy::AtLeastOnce).await;
        let mut killed = false;
        for _ in 0..200 {
            killed = killed || shop.run_due_jobs(Some(step)).await;
            if killed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(killed, "{step} was never reached");
        shop.run_due_jobs(None).await;
        if step == "messaging.posting" {
            // Nobody knows that nothing left: the next run must not post by itself.
            assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
            assert_eq!(shop.oracle().await["posts"]["messages"], 0);
            shop.hear_something("wamid.IN").await;
            shop.run_due_jobs(None).await;
            shop.advance(TimeDelta::seconds(121)).await;
        }
        shop.until(id, State::Read).await;
        assert_eq!(shop.oracle().await["posts"]["messages"], 1, "{step}");
        assert_eq!(shop.shown().await[ASHA], 1, "{step}");
        assert_eq!(shop.oracle().await["posts"]["media"], 1, "{step}");
        let left: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_attempts where outcome = 'posting'")
            .fetch_one(&shop.db.pool())
            .await
            .expect("a count");
        assert_eq!(left, 0, "{step}");
    }
}

#[tokio::test]
async fn a_message_comes_to_an_end_though_its_job_is_gone() {
    // With its attempt under way: what became of it is found out all the same.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.posting"), AfterKill::Buried).await);
    assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Posting, 0));
    shop.hear_something("wamid.IN").await;
    shop.advance(TimeDelta::seconds(119)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Posting);
    shop.advance(TimeDelta::seconds(2)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::PresumedLost, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);

    // Nothing is heard of it ever: unknown first, and at its expiry for good.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.posting"), AfterKill::Buried).await);
    shop.advance(TimeDelta::seconds(121)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
    shop.advance(TimeDelta::hours(24)).await;
    shop.until(id, State::UnknownFinal).await;

    // Before any attempt: it expires.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.uploaded"), AfterKill::Buried).await);
    shop.advance(TimeDelta::hours(23)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Queued);
    shop.advance(TimeDelta::hours(1)).await;
    let timeline = shop.until(id, State::Failed).await;
    assert_eq!(timeline.message.error_details.as_deref(), Some("expired before it could be sent"));
}

#[tokio::test]
async fn a_failure_told_again_in_another_batch_plans_no_second_attempt() {
    let shop = Shop::open().await;
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    for _ in 0..400 {
        shop.run_due_jobs(None).await;
        if shop.timeline(id).await.message.error_code == Some(131_000) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shop.count("sends").await, 1);
    let reference: String = sqlx::query_scalar("select ref from muneem.messaging_attempts where message_id = $1")
        .bind(id.0)
        .fetch_one(&shop.db.pool())
        .await
        .expect("an attempt");
    let wamid = shop.told_wamid().await;
    for (status, errors) in [("failed", json!([{ "code": 131_000 }])), ("failed", json!([])), ("sent", json!([]))] {
        let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
            "metadata": { "phone_number_id": Options::NUMBER },
            "statuses": [{ "id": wamid, "status": status, "timestamp": "1764000009", "errors": errors,
                "biz_opaque_callback_data": reference }] } }] }] })
        .to_string();
        assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
        shop.run_due_jobs(None).await;
        assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Queued, 1), "{status}");
    }
    shop.advance(TimeDelta::minutes(6)).await;
    assert_eq!(shop.until(id, State::Read).await.attempts.len(), 2);
}

#[tokio::test]
async fn a_failure_told_before_the_answer_stands() {
    let shop = Shop::open().await;
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let told = async {
        for _ in 0..400 {
            shop.run_due_jobs(None).await;
            if shop.timeline(id).await.message.state == State::Queued {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the failure was not told: {:#?}", shop.timeline(id).await);
    };
    assert!(matches!(shop.send_held_at("messaging.posted", told).await, Ok(Done::Acked)));
    assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Queued, 1));
    shop.advance(TimeDelta::minutes(6)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::Failed, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);
}

#[tokio::test]
async fn another_jobs_attempt_is_left_to_it() {
    let shop = Shop::open().await;
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let second = async {
        let mut conn = shop.deps.db.acquire().await.expect("a connection");
        let job = NewJob::of(shop.business, &messaging::Send { message_id: id }).expect("a payload");
        queue::enqueue(&mut conn, &job).await.expect("a job");
        drop(conn);
        shop.run_due_jobs(None).await;
        assert_eq!(shop.timeline(id).await.message.state, State::Posting);
    };
    assert!(matches!(shop.send_held_at("messaging.posting", second).await, Ok(Done::Acked)));
    shop.advance(TimeDelta::minutes(10)).await;
    shop.run_due_jobs(None).await;
    let timeline = shop.timeline(id).await;
    assert_eq!((timeline.message.state, timeline.attempts.len()), (State::Failed, 1));
    assert_eq!(timeline.attempts[0].outcome, messaging::AttemptOutcome::Refused);
}

#[tokio::test]
async fn a_machine_that_slept_before_the_post_does_not_post() {
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let slept = shop.send_held_at("messaging.posting", shop.advance(TimeDelta::seconds(11))).await;
    assert!(matches!(slept, Err(JobFailure { disposition: Disposition::Snooze(_), .. })), "{slept:?}");
    assert_eq!(shop.oracle().await["posts"]["messages"], 0);
    shop.advance(TimeDelta::seconds(3)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::NotSent, messaging::AttemptOutcome::Accepted]);
    // The look that was planned with each attempt finds nothing to do.
    shop.advance(TimeDelta::hours(25)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Read);
    assert_eq!(shop.oracle().await["posts"]["messages"], 1);
}

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
async fn forged_webhooks_change_nothing_and_replayed_ones_nothing_more() {
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
async fn the_handshake_answers_only_to_the_verify_token() {
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
