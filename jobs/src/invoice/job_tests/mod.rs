//! The jobs of the duty on a real database: what stays in it after each end, crash and repetition.

mod flow;
mod numbers;
mod refusals;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use muneem_postgres::testing::TestDb;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{HandOver, Issue, Render, find_invoice, list_invoices, samples};
use crate::{
    Deps, MIGRATOR,
    evidence::By,
    files,
    id::JobId,
    messaging,
    outbound::{
        Carrier, Chance, Clock, ObjectStore, Phone,
        carrier::{Media, MediaId, NumberId, OutgoingMessage, SendOutcome, Sender, UploadError},
        object_store::MemoryObjects,
    },
    people::BusinessId,
    queue::{
        self, Done, JobContext, JobFailure, Kind, Lane, NewJob, Steps,
        work::{self, Buried, Claimed, Held, PutBack, Want},
    },
    vault::{Cell, Class},
};

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        "2026-11-23T06:30:00Z".parse().expect("an instant")
    }
}

/// Counts, so that ids differ and tests repeat.
#[derive(Default)]
struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (index, byte) in bytes.iter_mut().rev().enumerate() {
            *byte = count.iter().rev().nth(index).copied().unwrap_or(0);
        }
    }
}

/// Nothing is sent in these tests.
struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        panic!("invoice jobs upload nothing")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        panic!("invoice jobs send nothing")
    }
}

/// Stops for ever at the step of this number and says so.
struct StopAt {
    step: usize,
    seen: AtomicUsize,
    stopped: Notify,
}

impl StopAt {
    fn step(step: usize) -> Arc<Self> {
        Arc::new(Self { step, seen: AtomicUsize::new(0), stopped: Notify::new() })
    }

    fn never() -> Arc<Self> {
        Self::step(usize::MAX)
    }
}

impl Steps for StopAt {
    fn reached<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.seen.fetch_add(1, Ordering::SeqCst) == self.step {
                self.stopped.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}

struct Shop {
    db: TestDb,
    deps: Arc<Deps>,
    objects: Arc<MemoryObjects>,
    business: BusinessId,
    worker: i64,
}

impl Shop {
    fn by(&self) -> By<'_> {
        By::operator(FixedClock.now(), &*self.deps.chance)
    }

    async fn open() -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let business = BusinessId(Uuid::from_u128(1));
        let objects = Arc::new(MemoryObjects::default());
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(FixedClock),
            chance: Arc::new(Counting::default()),
            objects: Arc::clone(&objects) as Arc<dyn ObjectStore>,
            carrier: Arc::new(NoCarrier),
            mailer: Arc::new(crate::outbound::mailer::KeptMail::default()),
            vault: Arc::new(crate::vault::tests::vault(&db)),
            messaging: messaging::Settings::DEFAULT,
            webhooks: crate::webhooks::Sending::nowhere(),
        });
        let mut conn = db.pool().acquire().await.expect("a connection");
        for (id, handle) in [(business.0, "sharma-mobiles"), (Uuid::from_u128(2), "kaveri-retail")] {
            sqlx::query("insert into muneem.people_businesses values ($1, $2, $2, now())")
                .bind(id)
                .bind(handle)
                .execute(&mut *conn)
                .await
                .expect("a business");
        }
        queue::sync_kinds(&mut conn, &crate::kinds()).await.expect("kinds");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        let shop = Self { db, deps, objects, business, worker };
        shop.add_account().await;
        shop
    }

    async fn add_account(&self) {
        let account = messaging::Account {
            business: self.business,
            number: NumberId::parse("100200300").expect("a number id"),
            waba_id: "500600".to_owned(),
            display_phone: Phone::parse("+912055500142").or_else(|_| Phone::parse("+919876500142")).expect("a phone"),
        };
        messaging::set_account(&mut *self.conn().await, &account, &self.by()).await.expect("an account");
    }

    /// Changes the JSON that is sealed in the only row of a table, as somebody with the keys would.
    async fn change_sealed(
        &self,
        table: &str,
        (key, column): (&str, &str),
        class: Class,
        change: impl FnOnce(&mut Value),
    ) {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let read = format!("select {key}::text, {column} from muneem.{table}");
        let (row, sealed): (String, Vec<u8>) =
            sqlx::query_as(sqlx::AssertSqlSafe(read)).fetch_one(&mut *conn).await.expect("one row");
        let table = format!("muneem.{table}");
        let cell = Cell { business_id: self.business, table: &table, column, row: &row };
        let plain = self.deps.vault.open(&mut conn, &cell, &sealed).await.expect("it opens");
        let mut value: Value = serde_json::from_slice(&plain).expect("JSON");
        change(&mut value);
        let sealed = self.deps.vault.seal(&mut conn, class, &cell, value.to_string().as_bytes()).await;
        let write = format!("update {table} set {column} = $1");
        sqlx::query(sqlx::AssertSqlSafe(write))
            .bind(sealed.expect("it seals"))
            .execute(&mut *conn)
            .await
            .expect("one row");
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&mut *self.conn().await).await.expect("a change");
    }

    async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.db.pool().acquire().await.expect("a connection")
    }

    async fn enqueue(&self, payload: Value) -> JobId {
        let job = NewJob::named("invoice.issue", self.business, payload);
        queue::enqueue_sealed(&mut *self.conn().await, &self.deps.vault, &job).await.expect("a job")
    }

    /// As a frontend does, which has no key: in clear.
    async fn enqueue_by_sql(&self, payload: Value) {
        sqlx::query("select muneem.enqueue('invoice.issue', $1, 'sharma-mobiles')")
            .bind(payload)
            .execute(&mut *self.conn().await)
            .await
            .expect("a job");
    }

    async fn claim(&self) -> Option<Claimed> {
        let want = Want { lane: Lane::Transactional, jobs: 1, after: Uuid::nil() };
        work::claim(&mut *self.conn().await, self.worker, &[want]).await.expect("a claim").pop()
    }

    fn context(&self, claimed: &Claimed, steps: Arc<StopAt>) -> JobContext {
        JobContext {
            deps: Arc::clone(&self.deps),
            job: claimed.job,
            attempt: claimed.attempt,
            worker: self.worker,
            business: claimed.business,
            cancelled: CancellationToken::new(),
            steps,
        }
    }

    /// Seals the payload in the table, where it lies in clear, and runs the handler, as the runtime does.
    async fn handle(&self, claimed: &Claimed, steps: Arc<StopAt>) -> Result<Done, JobFailure> {
        let kind = match claimed.kind.as_str() {
            "invoice.issue" => Kind::of::<Issue>(),
            "invoice.render" => Kind::of::<Render>(),
            "invoice.hand_over" => Kind::of::<HandOver>(),
            "messaging.apply_webhook" => Kind::of::<messaging::ApplyWebhook>(),
            other => panic!("no handler here for {other}"),
        };
        if kind.seals
            && let Some(sealed) = claimed.seal(&mut *self.conn().await, &self.deps.vault).await.expect("it seals")
        {
            let held = Held { job: claimed.job, attempt: claimed.attempt };
            let ours = work::seal(&mut *self.conn().await, self.worker, &[(held, sealed)]).await.expect("an update");
            assert_eq!(ours, [claimed.job]);
        }
        let payload = claimed.open(&mut *self.conn().await, &self.deps.vault).await.expect("it opens");
        kind.run(&payload, &self.context(claimed, steps)).await
    }

    /// Runs the next job to its end, as the runtime does.
    async fn run_next(&self) -> Result<Done, JobFailure> {
        let claimed = self.claim().await.expect("a job is ready");
        let held = Held { job: claimed.job, attempt: claimed.attempt };
        let outcome = self.handle(&claimed, StopAt::never()).await;
        match &outcome {
            Ok(Done::Acked) => {}
            Ok(Done::Ack(result)) => {
                let ended = [(held, result.clone())];
                work::finish(&mut *self.conn().await, self.worker, &ended).await.expect("an end");
            }
            Err(failure) => {
                let buried = [Buried { held, cause: failure.cause, error: failure.error.clone() }];
                work::bury(&mut *self.conn().await, self.worker, &buried).await.expect("a burial");
            }
        }
        outcome
    }

    /// Nothing while the document is not issued.
    async fn pdf(&self, recorded: &super::Recorded) -> Option<super::Pdf> {
        let located = super::locate_pdf(&mut *self.conn().await, &self.deps.vault, recorded).await.expect("located")?;
        Some(super::load_pdf(self.objects.as_ref(), recorded, &located).await.expect("files"))
    }

    async fn count(&self, table: &'static str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("select count(*) from muneem.{table}"));
        sqlx::query_scalar(query).fetch_one(&mut *self.conn().await).await.expect("a count")
    }

    /// Every row of every table of ours, as an owner with a SQL prompt reads them.
    async fn all_text(&self) -> String {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let tables: Vec<String> = sqlx::query_scalar(
            "select c.relname::text from pg_class c where c.relnamespace = 'muneem'::regnamespace and c.relkind = 'r'",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("tables");
        let mut text = String::new();
        for table in tables {
            let query = format!("select coalesce(string_agg(t::text, ' '), '') from muneem.{table} t");
            text +=
                &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query)).fetch_one(&mut *conn).await.expect("rows");
        }
        text
    }

    /// Everything the queue holds, as text: no clear text may be in it.
    async fn queue_text(&self) -> String {
        let mut text = String::new();
        for table in ["queue_jobs", "queue_history", "queue_dead"] {
            let query =
                sqlx::AssertSqlSafe(format!("select coalesce(string_agg(t::text, ' '), '') from muneem.{table} t"));
            text += &sqlx::query_scalar::<_, String>(query).fetch_one(&mut *self.conn().await).await.expect("rows");
        }
        text
    }
}

fn payload(document: &Value) -> Value {
    json!({ "invoice": document, "deliver": { "whatsapp": { "to": "+919876543210", "language": "hi" } } })
}
