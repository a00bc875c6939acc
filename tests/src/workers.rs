//! A queue with the probes' kinds, and workers in process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muneem::{
    outbound::chance::OsChance,
    queue::{Connections, Pulse, Settings, Worker},
};
use muneem_jobs::{
    Deps, MIGRATOR,
    evidence::By,
    id::JobId,
    outbound::{Clock, KeyManager},
    people::BusinessId,
    queue::{self, Job, JobContext, JobView, Lane, NewJob, Steps},
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    outside::{MemoryObjects, NoCarrier, TestChance, TestClock},
    probe, until,
};

/// The first test business.
pub const SHARMA: BusinessId = BusinessId(Uuid::from_u128(1));
/// The second.
pub const VERMA: BusinessId = BusinessId(Uuid::from_u128(2));

/// A migrated database with the probes' kinds and two businesses.
pub struct QueueUnderTest {
    /// The app role's connections.
    pub pool: PgPool,
    /// The owner's.
    pub owner: PgPool,
    /// The clock that jobs see.
    pub clock: Arc<TestClock>,
    /// Seals and opens payloads.
    pub vault: Arc<Vault>,
    options: PgConnectOptions,
    /// Dropped last.
    _db: Option<TestDb>,
}

impl QueueUnderTest {
    /// On the shared server.
    pub async fn new() -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let (pool, owner) = (db.app_pool(), db.pool());
        let options = db.connect_options();
        Self::on(pool, owner, options, Some(db)).await
    }

    /// On any server.
    pub async fn on(pool: PgPool, owner: PgPool, options: PgConnectOptions, db: Option<TestDb>) -> Self {
        let mut conn = owner.acquire().await.expect("the test database answers");
        queue::sync_kinds(&mut conn, &probe::kinds()).await.expect("the probes' schemas compile");
        for (business, handle) in [(SHARMA, "sharma-mobiles"), (VERMA, "verma-phones")] {
            sqlx::query(
                "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
                values ($1, $2, $2, now())",
            )
            .bind(business.0)
            .bind(handle)
            .execute(&mut *conn)
            .await
            .expect("a fresh database has no businesses");
        }
        drop(conn);
        let clock = Arc::<TestClock>::default();
        let vault = Vault::with_root(&pool, &[7; 32].into(), clock.clone(), Arc::new(TestChance::new(11)));
        Self { pool, owner, clock, vault: Arc::new(vault), options, _db: db }
    }

    /// Whoever has the machine, as the evidence names her.
    pub fn by(&self) -> By<'static> {
        By::operator(self.clock.now(), &OsChance)
    }

    /// What jobs are given.
    pub fn deps(&self) -> Arc<Deps> {
        self.deps_with(Arc::clone(&self.vault))
    }

    /// A vault that holds no key yet, over a key service.
    pub fn vault_over(&self, service: Arc<dyn KeyManager>) -> Arc<Vault> {
        let own = PgPoolOptions::new().max_connections(2).connect_lazy_with((*self.pool.connect_options()).clone());
        let chance = Arc::new(TestChance::new(17));
        Arc::new(Vault::new(own, service, self.clock.clone(), chance, muneem_jobs::vault::Settings::DEFAULT))
    }

    /// The same over another vault.
    pub fn deps_with(&self, vault: Arc<Vault>) -> Arc<Deps> {
        Arc::new(Deps {
            db: self.pool.clone(),
            clock: self.clock.clone(),
            chance: Arc::new(TestChance::new(7)),
            objects: Arc::new(MemoryObjects::default()),
            carrier: Arc::new(NoCarrier),
            mailer: Arc::new(muneem::outbound::mail::NotConfigured),
            vault,
            messaging: muneem_jobs::messaging::Settings::DEFAULT,
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
        })
    }

    /// Enqueues and commits.
    pub async fn enqueue<J: Job>(&self, job: &J) -> JobId {
        self.enqueue_as(NewJob::of(SHARMA, job).expect("probes serialise")).await
    }

    /// Enqueues and commits.
    pub async fn enqueue_as(&self, job: NewJob) -> JobId {
        let mut conn = self.pool.acquire().await.expect("the test database answers");
        queue::enqueue_sealed(&mut conn, &self.vault, &job).await.expect("a good job is taken")
    }

    /// The job as it is now.
    pub async fn job(&self, id: JobId) -> JobView {
        let mut conn = self.pool.acquire().await.expect("the test database answers");
        queue::find_job(&mut conn, id).await.expect("the test database answers").expect("the job exists")
    }

    /// Waits until the job is in this state.
    pub async fn until_state(&self, id: JobId, state: queue::JobState) -> JobView {
        until(&format!("job {id} is {state}"), || async { self.job(id).await.state == state }).await;
        self.job(id).await
    }

    /// Every row of every table of ours, as whoever has a SQL prompt reads them; bytes in hexadecimal.
    pub async fn everything(&self) -> String {
        everything(&self.owner).await
    }

    /// How many rows a table of ours has.
    pub async fn rows(&self, table: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from muneem.{table}")))
            .fetch_one(&self.owner)
            .await
            .expect("the table exists")
    }

    /// A worker with a short lease.
    pub fn settings(&self) -> Settings {
        Settings {
            name: "test".to_owned(),
            lanes: Lane::ALL.to_vec(),
            lease: Duration::from_millis(900),
            concurrency: 16,
            reserved: HashMap::from_iter(Lane::ALL.map(|lane| (lane, 2))),
            poll: Duration::from_millis(100),
            ageing: Duration::from_secs(10),
            shutdown: Duration::from_secs(5),
            pulse: Pulse::default(),
        }
    }

    /// Starts a worker.
    pub fn work(&self) -> Working {
        self.work_with(self.settings())
    }

    /// Starts a worker.
    pub fn work_with(&self, settings: Settings) -> Working {
        self.work_on(self.deps(), settings)
    }

    /// Starts a worker with another vault.
    pub fn work_by(&self, vault: Arc<Vault>) -> Working {
        self.work_on(self.deps_with(vault), self.settings())
    }

    fn work_on(&self, deps: Arc<Deps>, settings: Settings) -> Working {
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let connections = self.connections();
            let stop = stop.clone();
            async move { muneem::queue::run(deps, connections, &probe::kinds(), settings, stop).await }
        });
        Working { stop, running }
    }

    /// A worker whose parts run, and that takes jobs once it is let.
    pub async fn join(&self) -> Worker {
        let connections = self.connections();
        Worker::start(self.deps(), connections, &probe::kinds(), self.settings(), CancellationToken::new())
            .await
            .expect("the test database answers")
    }

    fn connections(&self) -> Connections {
        Connections { db: self.pool.clone(), listen: self.options.clone() }
    }

    /// What a handler is given, for an attempt that nobody holds.
    pub fn context(&self) -> JobContext {
        JobContext {
            deps: self.deps(),
            job: JobId(0),
            attempt: 1,
            worker: 0,
            business: SHARMA,
            cancelled: CancellationToken::new(),
            steps: Arc::new(NoSteps),
        }
    }

    /// Moves the database's clock to so many days from the real one.
    pub async fn move_clock(&self, days: i32) {
        sqlx::query("update muneem.law_clock set moved_by = make_interval(days => $1)")
            .bind(days)
            .execute(&self.owner)
            .await
            .expect("the clock has its row");
    }
}

/// Every row of every table of ours, as whoever has a SQL prompt reads them; bytes in hexadecimal.
///
/// # Panics
/// When the database does not answer.
pub async fn everything(owner: &PgPool) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text
        from pg_class c
        where c.relnamespace = 'muneem'::regnamespace
            and c.relkind in ('r', 'm')
        order by 1",
    )
    .fetch_all(owner)
    .await
    .expect("the catalogue is readable");
    let mut text = String::new();
    for table in tables {
        let query = format!("select coalesce(string_agg(t::text, ' '), '') from muneem.{table} t");
        text += &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query))
            .fetch_one(owner)
            .await
            .expect("the owner reads every table");
        text.push('\n');
    }
    text
}

/// Hears of steps and does nothing.
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached<'a>(&'a self, _: &'static str) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

/// A worker in process.
pub struct Working {
    stop: CancellationToken,
    running: JoinHandle<Result<(), queue::Error>>,
}

impl Working {
    /// Ends it in peace.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("the worker does not panic").expect("the worker ends in peace");
    }
}
