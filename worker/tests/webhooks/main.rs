//! Webhooks over the real sender, against receivers that answer, fail, hang, cut and lie, with a real database. Time is
//! moved by hand; jobs run when the test says so.

mod delivering;
mod failing;
mod managing;
mod reaching;
mod receiver;
mod replaying;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use muneem::outbound::{
    chance::OsChance,
    clock::MovedClock,
    webhook::{Receivers, Settings as SenderSettings},
};
use muneem_jobs::{
    Deps,
    evidence::By,
    messaging,
    outbound::{
        Carrier, Clock, ObjectError, ObjectStore,
        carrier::{Failure, Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
    },
    people::BusinessId,
    queue::{self, Disposition, Done, Job, JobContext, Kind, Lane, NewJob, Steps, work},
    vault::Vault,
    webhooks::{
        self, Delivery, DeliveryFilter, DeliveryState, Emission, Endpoint, EndpointId, Event, NewEndpoint, Sending,
        Settings, Told, Which,
    },
};
use muneem_postgres::testing::TestDb;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use receiver::Receiver;

struct Nothing;

#[async_trait]
impl ObjectStore for Nothing {
    async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<(), ObjectError> {
        panic!("webhooks store no files")
    }

    async fn get(&self, _: &str) -> Result<Option<Bytes>, ObjectError> {
        panic!("webhooks read no files")
    }

    async fn exists(&self, _: &str) -> Result<bool, ObjectError> {
        panic!("webhooks read no files")
    }
}

#[async_trait]
impl Carrier for Nothing {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        panic!("webhooks upload nothing")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        SendOutcome::NotSent(Failure::new("webhooks send no messages"))
    }
}

/// Stops a job for ever when it reaches a step for the given time, as `kill -9` does.
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

struct Shop {
    db: TestDb,
    deps: Arc<Deps>,
    clock: MovedClock,
    moved: Mutex<TimeDelta>,
    business: BusinessId,
    other: BusinessId,
    worker: i64,
}

impl Shop {
    async fn open() -> Self {
        let sender = SenderSettings { total: Duration::from_millis(400), ..SenderSettings::new(true) };
        Self::open_with(sender, Settings { loopback: true, ..Settings::DEFAULT }).await
    }

    async fn open_with(sender: SenderSettings, settings: Settings) -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let clock = MovedClock::default();
        let vault = Vault::with_root(&db.app_pool(), &[7; 32].into(), Arc::new(clock.clone()), Arc::new(OsChance));
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            objects: Arc::new(Nothing),
            carrier: Arc::new(Nothing),
            mailer: Arc::new(muneem::outbound::mail::NotConfigured),
            vault: Arc::new(vault),
            messaging: messaging::Settings::DEFAULT,
            webhooks: Sending::new(Arc::new(Receivers::new(sender).expect("a client")), settings),
        });
        let mut owner = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
        let mut businesses = Vec::new();
        for handle in ["sharma-mobiles", "verma-phones"] {
            let made = muneem_jobs::people::add_business(&mut owner, handle, handle, &clock, &OsChance).await;
            businesses.push(made.expect("a business").business_id);
        }
        let worker = work::join(&mut owner, "test", Duration::from_secs(3600), 64).await.expect("a worker");
        drop(owner);
        let (business, other) = (businesses[0], businesses[1]);
        Self { db, deps, clock, moved: Mutex::default(), business, other, worker }
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn by(&self) -> By<'_> {
        By::operator(self.now(), &OsChance)
    }

    fn emission(&self) -> Emission<'_> {
        Emission { vault: &self.deps.vault, now: self.now(), chance: &OsChance }
    }

    fn settings(&self) -> &Settings {
        &self.deps.webhooks.settings
    }

    async fn add(&self, business: BusinessId, url: &str, event_types: &[&str]) -> (EndpointId, SecretString) {
        let new = NewEndpoint {
            business,
            url: url.to_owned(),
            event_types: event_types.iter().map(|&one| one.to_owned()).collect(),
            description: Some("the shop's own".to_owned()),
        };
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let added = webhooks::add_endpoint(&mut tx, &self.deps.vault, &new, self.settings(), &self.by()).await;
        let (endpoint, secret) = added.expect("added");
        tx.commit().await.expect("committed");
        (endpoint.endpoint_id, secret)
    }

    async fn receiver(&self, receiver: &Receiver) -> (EndpointId, SecretString) {
        self.add(self.business, &receiver.url(), &["messaging.*"]).await
    }

    /// Messages of these numbers are delivered, one after the other, in one transaction.
    async fn emit(&self, numbers: impl IntoIterator<Item = u32>) {
        self.emit_as(self.business, "messaging.message.delivered", numbers).await;
    }

    async fn emit_as(&self, business: BusinessId, event_type: &str, numbers: impl IntoIterator<Item = u32>) {
        let events = numbers.into_iter().map(|number| Event {
            event_type: event_type.to_owned(),
            object: format!("message-{number}"),
            occurred_at: self.now(),
            data: json!({ "message_id": format!("message-{number}"), "state": "delivered", "number": number }),
        });
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        webhooks::emit_all(&mut tx, self.emission(), business, events.collect()).await.expect("emitted");
        tx.commit().await.expect("committed");
    }

    async fn advance(&self, by: TimeDelta) {
        let moved = {
            let mut moved = self.moved.lock().expect("not poisoned");
            *moved += by;
            *moved
        };
        self.clock.set_offset(moved);
        sqlx::query("update muneem.law_clock set moved_by = $1::bigint * interval '1 millisecond'")
            .bind(moved.num_milliseconds())
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

    async fn claim(&self) -> Vec<work::Claimed> {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        work::tick(&mut conn).await.expect("a tick");
        let want = |lane: &Lane| work::Want { lane: *lane, jobs: 8, after: Uuid::nil() };
        let wants: Vec<_> = Lane::ALL.iter().map(want).collect();
        work::claim(&mut conn, self.worker, &wants).await.expect("a claim")
    }

    /// Runs one job, killed at the step; whether it was.
    async fn run(&self, job: &work::Claimed, kill: Option<&'static str>) -> bool {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let steps = Arc::new(KillAt { step: kill, died: Notify::new() });
        let ctx = self.context(job, Arc::clone(&steps) as Arc<dyn Steps>);
        let kind = muneem_jobs::kinds().into_iter().find(|kind| kind.name == job.kind).expect("a kind of ours");
        let held = work::Held { job: job.job, attempt: job.attempt };
        let back = |run_at, counts| work::PutBack { held, run_at, counts, cause: None, error: None };
        let payload = job.open(&mut conn, &self.deps.vault).await.expect("it opens");
        let ended = tokio::select! {
            ended = kind.run(&payload, &ctx) => Some(ended),
            () = steps.died.notified() => None,
        };
        match ended {
            None => {
                work::put_back(&mut conn, self.worker, &[back(None, true)]).await.expect("back");
                return true;
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
        false
    }

    /// Runs what is due until nothing is. The first job that reaches the step `kill` dies there.
    async fn run_due_jobs(&self, kill: Option<&'static str>) -> bool {
        let mut killed = false;
        loop {
            let claimed = self.claim().await;
            if claimed.is_empty() {
                return killed;
            }
            for job in claimed {
                killed |= self.run(&job, kill.filter(|_| !killed)).await;
            }
        }
    }

    /// Lets time pass in steps, running what comes due, until a condition holds.
    async fn pass_until(&self, step: TimeDelta, most: u32, holds: impl AsyncFn() -> bool) -> u32 {
        for taken in 0..=most {
            self.run_due_jobs(None).await;
            if holds().await {
                return taken;
            }
            self.advance(step).await;
        }
        let jobs: Vec<String> = sqlx::query_scalar(
            "select j.kind || ' ' || coalesce(j.parked::text, '-') || ' ' || j.run_at || coalesce(' ' || j.last_error, '')
             from muneem.queue_jobs j union all select 'dead ' || d.kind || ' ' || d.cause from muneem.queue_dead d",
        )
        .fetch_all(&self.db.pool())
        .await
        .expect("jobs");
        panic!("at {} it has not come about: {:#?}, jobs: {jobs:#?}", self.now(), self.deliveries(None).await);
    }

    /// Runs a job of the house now.
    async fn run_now<J: Job>(&self, payload: &J) {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let job = NewJob::of(self.business, payload).expect("a payload");
        queue::enqueue(&mut conn, &job).await.expect("enqueued");
        drop(conn);
        self.run_due_jobs(None).await;
    }

    async fn deliveries(&self, endpoint: Option<EndpointId>) -> Vec<Delivery> {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let filter = DeliveryFilter { endpoint, ..DeliveryFilter::default() };
        let mut found = webhooks::list_deliveries(&mut conn, &filter, 5000).await.expect("listed");
        found.reverse();
        found
    }

    async fn states(&self, endpoint: EndpointId) -> BTreeMap<&'static str, usize> {
        self.deliveries(Some(endpoint)).await.iter().fold(BTreeMap::new(), |mut states, delivery| {
            *states.entry(delivery.state.as_str()).or_default() += 1;
            states
        })
    }

    async fn all_delivered(&self, endpoint: EndpointId) -> bool {
        let deliveries = self.deliveries(Some(endpoint)).await;
        deliveries.iter().all(|delivery| delivery.state == DeliveryState::Delivered)
    }

    async fn told(&self, delivery: &Delivery) -> Told {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        webhooks::find_told(&mut conn, None, delivery.event_id).await.expect("readable").expect("there")
    }

    async fn endpoint(&self, endpoint: EndpointId) -> Endpoint {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let which = Which { business: None, endpoint };
        let found = webhooks::find_endpoint(&mut conn, &self.deps.vault, which, self.now()).await;
        found.expect("readable").expect("there")
    }

    async fn change(&self, endpoint: EndpointId, change: &webhooks::Change) -> Endpoint {
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let which = Which { business: Some(self.business), endpoint };
        let with = (self.settings(), &self.by());
        let changed = webhooks::change_endpoint(&mut tx, &self.deps.vault, which, change, with).await.expect("changed");
        tx.commit().await.expect("committed");
        changed
    }

    /// What the evidence says was done to an endpoint.
    async fn verbs(&self, endpoint: EndpointId) -> Vec<String> {
        self.events(endpoint).await.iter().map(|event| event["verb"].as_str().expect("a verb").to_owned()).collect()
    }

    async fn events(&self, endpoint: EndpointId) -> Vec<Value> {
        let bodies: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events order by xid, event_id")
            .fetch_all(&self.db.pool())
            .await
            .expect("the evidence");
        let all = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).expect("JSON"));
        all.filter(|event| event["object"]["id"] == endpoint.to_string().as_str()).collect()
    }

    async fn count(&self, what: &'static str) -> i64 {
        let statement = match what {
            "events" => "select count(*) from muneem.webhooks_events",
            "deliveries" => "select count(*) from muneem.webhooks_deliveries",
            "attempts" => "select count(*) from muneem.webhooks_attempts",
            "secrets" => "select count(*) from muneem.webhooks_secrets",
            "replays" => "select count(*) from muneem.webhooks_replays where ended_at is not null",
            "jobs" => "select count(*) from muneem.queue_jobs where kind = 'webhooks.deliver'",
            other => panic!("what are {other}?"),
        };
        sqlx::query_scalar(statement).fetch_one(&self.db.pool()).await.expect("a count")
    }
}

/// The signature as the specification describes it, without the code that is tried: HMAC (RFC 2104) by hand.
fn expected(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    use base64::prelude::*;
    use sha2::{Digest, Sha256};
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
    assert!((24..=64).contains(&key.len()), "24 to 64 bytes");
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let inner = Sha256::digest([pad(0x36), content].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    format!("v1,{}", BASE64_STANDARD.encode(outer))
}

#[test]
fn the_test_itself_signs_as_the_published_vector() {
    let signed = expected(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        br#"{"test": 2432232314}"#,
    );
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

/// The signatures of a request that fit its secret.
fn is_signed_by(request: &receiver::Received, secret: &SecretString) -> bool {
    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let wanted = expected(secret.expose_secret(), &header("webhook-id"), &header("webhook-timestamp"), &request.body);
    header("webhook-signature").split(' ').any(|one| one == wanted)
}
