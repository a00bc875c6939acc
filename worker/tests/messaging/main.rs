//! Messages over the real client, against the stand-in carrier, with the real receiver and a real database. Time is
//! moved by hand; jobs run when the test says so.

mod attacks;
mod campaigns;
mod codes;
mod receiving;
mod senders;
mod sending;
mod standing;
mod templates;
mod ways;

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
        mail::{self, Smtp},
        whatsapp::{CloudApi, Settings as CloudSettings},
    },
    sandbox::{Number, Options, Pace, Sandbox},
};
use muneem_jobs::{
    Deps,
    evidence::By,
    files,
    messaging::{self, Content, Credentials, Document, Language, MessageId, NewMessage, Policy, State, TaxInvoice},
    outbound::{Clock, Email, ObjectError, ObjectStore, Phone, carrier::NumberId},
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
        Self::open_beside(carrier_at, Vec::new()).await
    }

    /// The same, where the stand-in knows more numbers.
    async fn open_beside(carrier_at: Option<String>, others: Vec<Number>) -> Self {
        let end = CancellationToken::new();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = Options { pace: Pace::INSTANT, ..Options::local(loopback, 7) };
        options.numbers.extend(others);
        let credentials = options.credentials.clone();
        let sandbox = Sandbox::bind(options).await.expect("a free port");
        let (sandbox_at, mail_at) = (sandbox.address(), sandbox.mail_address().expect("a mail sink"));
        tokio::spawn(sandbox.run(end.clone()));

        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let clock = MovedClock::default();
        let timeouts = Timeouts { connect: Duration::from_secs(2), total: Duration::from_millis(700) };
        let cloud = CloudApi::new(&CloudSettings {
            base_url: carrier_at.unwrap_or_else(|| format!("http://{sandbox_at}")),
            api_version: "v25.0".to_owned(),
            credentials: Some(credentials.clone()),
            prove_secret: true,
            timeouts,
        });
        let house = Email::parse("muneem@shops.example").expect("an address");
        let line =
            mail::Settings { port: mail_at.port(), tls: mail::Tls::None, ..mail::Settings::to("127.0.0.1", house) };
        let mailer = Smtp::new(line, Arc::new(clock.clone())).expect("a mail server");
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            objects: Arc::new(Shelf::default()),
            carrier: Arc::new(cloud.expect("a client")),
            mailer: Arc::new(mailer),
            vault: Arc::new(Vault::with_root(
                &db.app_pool(),
                &[7; 32].into(),
                Arc::new(clock.clone()),
                Arc::new(OsChance),
            )),
            messaging: messaging::Settings::DEFAULT,
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
        });
        let intake = Intake {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            vault: Arc::clone(&deps.vault),
            credentials: Some(credentials.clone()),
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
        let content = Content::TaxInvoice(TaxInvoice {
            customer_name: "आशा वर्मा".into(),
            business_name: "Sharma Mobiles".into(),
            invoice_number: "INV-1042".into(),
            amount: "₹1,180.00".into(),
        });
        let (to, why) = (Phone::parse(to).expect("a mobile"), (policy, "invoice.issued"));
        let new = NewMessage {
            document: Some(Document { digest: stored.digest, filename: "INV-1042.pdf".into() }),
            ..NewMessage::new(self.business, to, (content, Language::Hi), why)
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
    muneem_jobs::kinds()
}
