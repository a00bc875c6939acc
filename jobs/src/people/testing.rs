//! A house for the tests of people: two shops, whoever works there, a clock whose hands they move, and mail that stays.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use muneem_postgres::testing::TestDb;
use serde_json::Value;
use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Authority, BusinessId, Decision, NewStaff, Role, SealedContact, Staff, add_business, add_staff, mark_verified,
    new_staff_id, staff::ContactKind,
};
use crate::{
    Deps, messaging,
    outbound::{
        Carrier, Chance, Clock, Mail, MailOutcome, Mailer,
        carrier::{Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
        object_store::MemoryObjects,
    },
    queue::{
        self, Done, Job, JobContext, JobFailure, Kind, Lane, NewJob, Steps,
        work::{self, Held, Want},
    },
    vault::Vault,
};

/// Noon, until a test moves the hands.
#[derive(Default)]
pub(super) struct Hands(AtomicI64);

impl Hands {
    pub(super) fn forward(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        let noon: DateTime<Utc> = "2026-11-24T12:00:00Z".parse().expect("an instant");
        noon + TimeDelta::milliseconds(self.0.load(Ordering::SeqCst))
    }
}

/// Counts, so that ids and secrets differ.
#[derive(Default)]
pub(super) struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (index, byte) in bytes.iter_mut().rev().enumerate() {
            *byte = count.iter().rev().nth(index).copied().unwrap_or(0);
        }
    }
}

struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        panic!("people upload nothing")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        panic!("people send no WhatsApp messages")
    }
}

/// Keeps what it is given.
#[derive(Default)]
pub(super) struct Mails(Mutex<Vec<Mail>>);

impl Mails {
    pub(super) fn taken(&self) -> Vec<Mail> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

#[async_trait]
impl Mailer for Mails {
    async fn send(&self, mail: &Mail) -> MailOutcome {
        self.0.lock().expect("not poisoned").push(mail.clone());
        MailOutcome::Accepted
    }
}

struct Unheard;

impl Steps for Unheard {
    fn reached<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) pool: PgPool,
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Arc<Hands>,
    pub(super) chance: Arc<Counting>,
    pub(super) mails: Arc<Mails>,
    pub(super) shop: BusinessId,
    pub(super) other: BusinessId,
    deps: Arc<Deps>,
}

impl House {
    pub(super) async fn new() -> Self {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let pool = db.app_pool();
        let (clock, chance, mails) =
            (Arc::new(Hands::default()), Arc::new(Counting::default()), Arc::new(Mails::default()));
        let vault = Arc::new(crate::vault::tests::vault(&db));
        let mut owner = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &crate::kinds()).await.expect("kinds");
        let mut shops = Vec::new();
        for (handle, name) in [("sharma-mobiles", "Sharma Mobiles"), ("verma-phones", "Verma Phones")] {
            shops.push(add_business(&mut owner, handle, name, &*clock, &*chance).await.expect("made").business_id);
        }
        let deps = Arc::new(Deps {
            db: pool.clone(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            chance: Arc::clone(&chance) as Arc<dyn Chance>,
            objects: Arc::new(MemoryObjects::default()),
            carrier: Arc::new(NoCarrier),
            mailer: Arc::clone(&mails) as Arc<dyn Mailer>,
            vault: Arc::clone(&vault),
            messaging: messaging::Settings::DEFAULT,
            webhooks: crate::webhooks::Sending::nowhere(),
        });
        Self { pool, vault, clock, chance, mails, shop: shops[0], other: shops[1], deps, db }
    }

    pub(super) async fn conn(&self) -> PoolConnection<Postgres> {
        self.pool.acquire().await.expect("a connection")
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(super) fn by<'a>(&'a self, by: &'a Authority) -> Decision<'a> {
        Decision { by, now: self.now(), chance: &*self.chance }
    }

    /// Somebody with the phone of this number, which she has not proved to hold.
    pub(super) async fn stranger(&self, number: u8, business_id: Option<BusinessId>, roles: &[Role]) -> Staff {
        let operator = Authority::operator();
        let new = NewStaff {
            staff_id: new_staff_id(&self.by(&operator)),
            business_id,
            name: vec![1, number],
            language: "hi".to_owned(),
            phone: Some(SealedContact { sealed: vec![2, number], index: vec![number; 16], index_version: 1 }),
            email: None,
            roles: roles.to_vec(),
        };
        add_staff(&mut *self.conn().await, &new, &self.by(&operator)).await.expect("added")
    }

    /// Somebody of the shop with the phone of this number, verified.
    pub(super) async fn staff(&self, number: u8, roles: &[Role]) -> Staff {
        let staff = self.stranger(number, Some(self.shop), roles).await;
        let mut db = self.conn().await;
        mark_verified(&mut db, staff.staff_id, ContactKind::Phone, self.now()).await.expect("noted");
        staff
    }

    /// Verbs in the evidence about the thing with this id, in order.
    pub(super) async fn told_of(&self, id: impl std::fmt::Display) -> Vec<String> {
        let all = self.evidence().await;
        let id = id.to_string();
        let of = all.iter().filter(|event| event["object"]["id"] == id.as_str());
        of.map(|event| event["verb"].as_str().expect("a verb").to_owned()).collect()
    }

    pub(super) async fn evidence(&self) -> Vec<Value> {
        let bodies: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events order by xid, event_id")
            .fetch_all(&self.db.pool())
            .await
            .expect("the evidence");
        bodies.iter().map(|body| serde_json::from_slice(body).expect("JSON")).collect()
    }

    /// What a handler of this business is given, for a job that nobody holds.
    pub(super) fn context(&self, business: BusinessId) -> JobContext {
        JobContext {
            deps: Arc::clone(&self.deps),
            job: crate::id::JobId(0),
            attempt: 1,
            worker: 0,
            business,
            cancelled: CancellationToken::new(),
            steps: Arc::new(Unheard),
        }
    }

    /// Runs one job of this kind, now, whenever its forerunner is due.
    pub(super) async fn run<J: Job>(&self, payload: &J) -> Result<(), JobFailure> {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        let job = NewJob::of(self.shop, payload).expect("a payload").lane(Lane::Otp).priority(1000);
        let job = queue::enqueue(&mut conn, &job).await.expect("enqueued");
        let claimed = loop {
            let want = Want { lane: Lane::Otp, jobs: 1, after: Uuid::nil() };
            let claimed = work::claim(&mut conn, worker, &[want]).await.expect("a claim").pop().expect("it is ready");
            if claimed.job == job {
                break claimed;
            }
        };
        let context =
            JobContext { job: claimed.job, attempt: claimed.attempt, worker, ..self.context(claimed.business) };
        let payload = claimed.open(&mut conn, &self.vault).await.expect("it opens");
        match Kind::of::<J>().run(&payload, &context).await? {
            Done::Acked => {}
            Done::Ack(result) => {
                let held = Held { job: claimed.job, attempt: claimed.attempt };
                work::finish(&mut conn, worker, &[(held, result)]).await.expect("an end");
            }
        }
        Ok(())
    }

    /// The server process behind a connection, for [`Self::until_waiting`].
    pub(super) async fn process_of(&self, conn: &mut sqlx::PgConnection) -> i32 {
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(conn).await.expect("a process")
    }

    /// Comes back once this process waits for a lock that somebody else holds.
    pub(super) async fn until_waiting(&self, process: i32) {
        let pool = self.db.pool();
        let waits = async {
            loop {
                let waits: bool = sqlx::query_scalar(
                    "select exists (select from pg_stat_activity where pid = $1 and wait_event_type = 'Lock')",
                )
                .bind(process)
                .fetch_one(&pool)
                .await
                .expect("asked");
                if waits {
                    return;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waits).await.expect("it does not wait");
    }

    /// Payloads of the jobs of this kind that wait.
    pub(super) async fn waiting(&self, kind: &str) -> Vec<Value> {
        sqlx::query_scalar(
            "select payload from muneem.queue_jobs where kind = $1 and claimed_by is null order by job_id",
        )
        .bind(kind)
        .fetch_all(&self.db.pool())
        .await
        .expect("listed")
    }
}
