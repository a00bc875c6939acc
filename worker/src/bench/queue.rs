//! The queue against the practical limit: a hand-written loop that claims a batch and moves it to a history, without
//! any framework, on the same server in the same run.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use muneem_jobs::{
    Deps, messaging,
    outbound::{
        Carrier, ObjectError, ObjectStore,
        carrier::{Failure, Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
    },
    queue::{self, Done, Job, JobContext, Kind, Lane, Payload, Settings},
    vault::Vault,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Figure, Scratch, in_turn, median, percentile, processor::ServerCpu};
use crate::{
    outbound::{chance::OsChance, clock::SystemClock},
    queue as workers,
};

/// Jobs drained in one round.
const DRAIN: i64 = 60_000;
const ROUNDS: usize = 5;
/// Seconds that producers produce.
const PRODUCE: Duration = Duration::from_secs(2);
const PRODUCERS: usize = 8;
const BATCH: i32 = 1000;
const LATENCY_JOBS: usize = 300;

const WAITING: i64 = 1_000_000;
const FINISHED: i64 = 10_000_000;

static RAN: AtomicUsize = AtomicUsize::new(0);
static BEGUN: Mutex<Option<tokio::sync::mpsc::UnboundedSender<Instant>>> = Mutex::new(None);

/// Does nothing, as fast as it can.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {
    /// Which one.
    n: i64,
}

impl Job for Nothing {
    const KIND: &'static str = "bench.nothing";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { open: true, payload: Payload::References, ..Settings::DEFAULT };
    type Error = queue::Error;

    async fn run(self, _: &JobContext) -> Result<Done, queue::Error> {
        RAN.fetch_add(1, Ordering::Relaxed);
        Ok(Done::OK)
    }
}

/// Says when it began.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tell {
    /// Which one.
    n: i64,
}

impl Job for Tell {
    const KIND: &'static str = "bench.tell";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { open: true, payload: Payload::References, ..Settings::DEFAULT };
    type Error = queue::Error;

    async fn run(self, _: &JobContext) -> Result<Done, queue::Error> {
        let begun = Instant::now();
        if let Some(teller) = BEGUN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            let _ = teller.send(begun);
        }
        Ok(Done::OK)
    }
}

fn kinds() -> Vec<Kind> {
    vec![Kind::of::<Nothing>(), Kind::of::<Tell>()]
}

pub(super) async fn measure(scratch: &Scratch, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    let db = &scratch.db;
    prepare(db).await?;
    let cpu = ServerCpu::find(db).await;

    let (mut ours, mut limits, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_ms, mut wal_bytes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(drain_by_hand(db, DRAIN).await?);
        peers.push(drain_one_by_one(db, DRAIN / 12).await?);
        fill(db, DRAIN).await?;
        let before = (cpu.as_ref().map(ServerCpu::seconds), wal_position(db).await?);
        ours.push(work_off(scratch, DRAIN).await?);
        if let (Some(cpu), Some(before)) = (&cpu, before.0) {
            cpu_ms.push((cpu.seconds() - before) * 1000.0 / DRAIN as f64);
        }
        wal_bytes.push((wal_position(db).await? - before.1) / DRAIN as f64);
    }
    let drained = median(ours);
    tell(&Figure::at_least("queue.drain", "jobs/s", drained, median(limits), 0.8));
    tell(&Figure::at_least("queue.drain_vs_one_by_one", "jobs/s", drained, median(peers), 2.0));
    if !cpu_ms.is_empty() {
        tell(&Figure::at_most("queue.postgres_cpu", "ms/job", median(cpu_ms), 0.035));
    }
    tell(&Figure::at_most("queue.wal", "bytes/job", median(wal_bytes), 550.0));

    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for by_hand in in_turn(round) {
            level(db).await?;
            let rate = produce(db, if by_hand { INSERT } else { ENQUEUE }).await?;
            if by_hand { plain.push(rate) } else { ours.push(rate) }
        }
    }
    tell(&Figure::at_least("queue.enqueue_single", "jobs/s", median(ours), median(plain), 0.5));

    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for by_hand in in_turn(round) {
            level(db).await?;
            let rate = produce_batches(db, if by_hand { INSERT_MANY } else { ENQUEUE_MANY }).await?;
            if by_hand { plain.push(rate) } else { ours.push(rate) }
        }
    }
    level(db).await?;
    tell(&Figure::at_least("queue.enqueue_batch", "jobs/s", median(ours), median(plain), 0.8));

    let mut waits = latencies(scratch).await?;
    tell(&Figure::at_most("queue.idle_p50", "ms", percentile(&mut waits, 0.5), 5.0));
    tell(&Figure::at_most("queue.idle_p99", "ms", percentile(&mut waits, 0.99), 20.0));

    // What stands in the tables costs whoever drains nothing: the same drain without and with it, in turn.
    let mut alone = drains(scratch, 4).await?;
    sqlx::query(
        "insert into muneem.queue_jobs (business_id, rank_at, run_at, enqueued_at, lane, priority, kind, payload)
        select '00000000-0000-0000-0000-000000000001', now(), now(), now(), 'bulk', 0, 'bench.nothing', '{\"n\": 1}'
        from generate_series(1, $1)",
    )
    .bind(WAITING)
    .execute(db)
    .await?;
    settle(db).await?;
    let crowded = drains(scratch, 7).await?;
    empty(db).await?;
    settle(db).await?;
    alone.extend(drains(scratch, 3).await?);
    tell(&Figure::at_least("queue.drain_with_1m_waiting", "jobs/s", median(crowded), median(alone), 0.9));

    let mut alone = drains(scratch, 4).await?;
    sqlx::query(
        "insert into muneem.queue_history (
            job_id, business_id, enqueued_at, claimed_at, finished_at, attempt, lane, cancelled, kind)
        select -i, '00000000-0000-0000-0000-000000000001', now(), now(), now(), 1, 'transactional', false, 'bench.nothing'
        from generate_series(1, $1) i",
    )
    .bind(FINISHED)
    .execute(db)
    .await?;
    settle(db).await?;
    let crowded = drains(scratch, 7).await?;
    sqlx::query("truncate muneem.queue_history").execute(db).await?;
    settle(db).await?;
    alone.extend(drains(scratch, 3).await?);
    tell(&Figure::at_least("queue.drain_with_10m_finished", "jobs/s", median(crowded), median(alone), 0.9));
    Ok(())
}

const ENQUEUE: &str = "select muneem.enqueue('bench.nothing', '{\"n\": 1}', 'bench')";
const ENQUEUE_MANY: &str = "select muneem.enqueue_many('bench.nothing', $1, 'bench')";
const INSERT_MANY: &str = "insert into muneem_bench.jobs (business_id, kind, payload) select '00000000-0000-0000-0000-000000000001', 'bench.nothing', p from unnest($1::jsonb[]) p returning id";
const INSERT: &str = "insert into muneem_bench.jobs (business_id, kind, payload) values ('00000000-0000-0000-0000-000000000001', 'bench.nothing', '{\"n\": 1}') returning id";

/// The hand-written queue: what a careful engineer writes in an afternoon.
async fn prepare(db: &PgPool) -> anyhow::Result<()> {
    let mut conn = db.acquire().await?;
    queue::sync_kinds(&mut conn, &kinds()).await?;
    for sql in [
        "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
        values ('00000000-0000-0000-0000-000000000001', 'bench', 'Bench', now())",
        "create schema muneem_bench",
        "create table muneem_bench.jobs (
            id bigint generated always as identity primary key, business_id uuid not null, kind text not null,
            state text not null default 'ready', priority smallint not null default 0, attempt integer not null default 0,
            run_at timestamptz not null default now(), enqueued_at timestamptz not null default now(),
            claimed_at timestamptz, claimed_by bigint, payload jsonb not null)",
        "create index on muneem_bench.jobs (priority, id) where state = 'ready'",
        "create table muneem_bench.history (
            id bigint not null, business_id uuid not null, kind text not null, attempt integer not null,
            enqueued_at timestamptz not null, claimed_at timestamptz, finished_at timestamptz not null)",
        "create index on muneem_bench.history (id)",
    ] {
        sqlx::query(sql).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn empty(db: &PgPool) -> anyhow::Result<()> {
    for table in [
        "truncate muneem.queue_jobs",
        "truncate muneem.queue_history",
        "truncate muneem_bench.jobs",
        "truncate muneem_bench.history",
    ] {
        sqlx::query(table).execute(db).await?;
    }
    Ok(())
}

/// Empty tables, and nothing left to write of what was in them.
async fn level(db: &PgPool) -> anyhow::Result<()> {
    empty(db).await?;
    sqlx::query("checkpoint").execute(db).await?;
    Ok(())
}

/// Lets the last round's writes reach the disk, so that the next one does not pay for them.
async fn settle(db: &PgPool) -> anyhow::Result<()> {
    sqlx::query("vacuum (analyze) muneem.queue_jobs").execute(db).await?;
    sqlx::query("vacuum (analyze) muneem.queue_history").execute(db).await?;
    sqlx::query("checkpoint").execute(db).await?;
    Ok(())
}

async fn wal_position(db: &PgPool) -> anyhow::Result<f64> {
    Ok(sqlx::query_scalar("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::double precision")
        .fetch_one(db)
        .await?)
}

async fn drains(scratch: &Scratch, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        fill(&scratch.db, DRAIN).await?;
        rates.push(work_off(scratch, DRAIN).await?);
    }
    Ok(rates)
}

/// The pages it fills are new, so that the drain writes no page images for a checkpoint before it; the same holds for
/// the limit's table.
async fn fill(db: &PgPool, jobs: i64) -> anyhow::Result<()> {
    settle(db).await?;
    sqlx::query(
        "insert into muneem.queue_jobs (business_id, rank_at, run_at, enqueued_at, lane, priority, kind, payload)
        select '00000000-0000-0000-0000-000000000001', now(), now(), now(), 'transactional', 0, 'bench.nothing',
            jsonb_build_object('n', i)
        from generate_series(1, $1) i",
    )
    .bind(jobs)
    .execute(db)
    .await?;
    Ok(())
}

/// Two workers, from their first claim to the last acknowledgement; jobs per second.
async fn work_off(scratch: &Scratch, jobs: i64) -> anyhow::Result<f64> {
    let db = &scratch.db;
    let target = RAN.load(Ordering::Relaxed) + usize::try_from(jobs).unwrap_or(usize::MAX);
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let running: Vec<_> = (0..2).map(|_| work(scratch, vec![Lane::Transactional], stop.clone())).collect();
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if RAN.load(Ordering::Relaxed) >= target {
            let left: bool = sqlx::query_scalar(
                "select exists (select from muneem.queue_jobs j where j.lane = 'transactional' and j.parked is null)",
            )
            .fetch_one(db)
            .await?;
            if !left {
                break;
            }
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    stop.cancel();
    for worker in running {
        worker.await??;
    }
    Ok(jobs as f64 / elapsed)
}

fn work(
    scratch: &Scratch,
    lanes: Vec<Lane>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<Result<(), queue::Error>> {
    let vault = Arc::new(Vault::with_root(&scratch.db, &[7; 32].into(), Arc::new(SystemClock), Arc::new(OsChance)));
    begin(scratch, vault, (lanes, kinds()), stop)
}

/// A worker in this process.
pub(super) fn begin(
    scratch: &Scratch,
    vault: Arc<Vault>,
    (lanes, kinds): (Vec<Lane>, Vec<Kind>),
    stop: CancellationToken,
) -> tokio::task::JoinHandle<Result<(), queue::Error>> {
    let settings = workers::Settings {
        name: "bench".to_owned(),
        lanes,
        lease: Duration::from_secs(30),
        concurrency: 16,
        reserved: HashMap::new(),
        poll: Duration::from_millis(250),
        ageing: Duration::from_secs(10),
        shutdown: Duration::from_secs(5),
        pulse: workers::Pulse::default(),
    };
    let deps = Arc::new(Deps {
        db: scratch.db.clone(),
        clock: Arc::new(SystemClock),
        chance: Arc::new(OsChance),
        objects: Arc::new(Nowhere),
        carrier: Arc::new(Nowhere),
        mailer: Arc::new(crate::outbound::mail::NotConfigured),
        vault,
        messaging: messaging::Settings::DEFAULT,
        webhooks: muneem_jobs::webhooks::Sending::nowhere(),
    });
    let connections = workers::Connections { db: scratch.db.clone(), listen: scratch.options.clone() };
    tokio::spawn(async move { workers::run(deps, connections, &kinds, settings, stop).await })
}

/// The limit: two connections, each claims a batch and moves it to the history in one statement.
async fn drain_by_hand(db: &PgPool, jobs: i64) -> anyhow::Result<f64> {
    fill_by_hand(db, jobs).await?;
    let begun = Instant::now();
    let hands: Vec<_> = (0..2)
        .map(|hand| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut conn = db.acquire().await?;
                loop {
                    let ids: Vec<(i64, serde_json::Value)> = sqlx::query_as(
                        "update muneem_bench.jobs set state = 'running', attempt = attempt + 1, claimed_at = now(), claimed_by = $1
                        where id in (
                            select id from muneem_bench.jobs where state = 'ready'
                            order by priority, id limit 1000 for update skip locked)
                        returning id, payload",
                    )
                    .persistent(true)
                    .bind(i64::from(hand))
                    .fetch_all(&mut *conn)
                    .await?;
                    if ids.is_empty() {
                        return Ok::<_, sqlx::Error>(());
                    }
                    let ids: Vec<i64> = ids.into_iter().map(|(id, _)| id).collect();
                    sqlx::query(
                        "with gone as (
                            delete from muneem_bench.jobs where id = any ($1)
                            returning id, business_id, kind, attempt, enqueued_at, claimed_at)
                        insert into muneem_bench.history (id, business_id, kind, attempt, enqueued_at, claimed_at, finished_at)
                        select id, business_id, kind, attempt, enqueued_at, claimed_at, now() from gone",
                    )
                    .bind(&ids)
                    .execute(&mut *conn)
                    .await?;
                }
            })
        })
        .collect();
    for hand in hands {
        hand.await??;
    }
    Ok(jobs as f64 / begun.elapsed().as_secs_f64())
}

/// The peers' way (graphile_worker and most others): one statement takes one job, another ends it; four connections.
async fn drain_one_by_one(db: &PgPool, jobs: i64) -> anyhow::Result<f64> {
    fill_by_hand(db, jobs).await?;
    let begun = Instant::now();
    let hands: Vec<_> = (0..4)
        .map(|hand| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut conn = db.acquire().await?;
                loop {
                    let taken: Option<i64> = sqlx::query_scalar(
                        "update muneem_bench.jobs set state = 'running', attempt = attempt + 1, claimed_at = now(), claimed_by = $1
                        where id = (
                            select id from muneem_bench.jobs where state = 'ready'
                            order by priority, id limit 1 for update skip locked)
                        returning id",
                    )
                    .bind(i64::from(hand))
                    .fetch_optional(&mut *conn)
                    .await?;
                    let Some(id) = taken else { return Ok::<_, sqlx::Error>(()) };
                    sqlx::query("delete from muneem_bench.jobs where id = $1").bind(id).execute(&mut *conn).await?;
                }
            })
        })
        .collect();
    for hand in hands {
        hand.await??;
    }
    Ok(jobs as f64 / begun.elapsed().as_secs_f64())
}

async fn fill_by_hand(db: &PgPool, jobs: i64) -> anyhow::Result<()> {
    sqlx::query("vacuum (analyze) muneem_bench.jobs").execute(db).await?;
    sqlx::query("checkpoint").execute(db).await?;
    sqlx::query(
        "insert into muneem_bench.jobs (business_id, kind, payload)
        select '00000000-0000-0000-0000-000000000001', 'bench.nothing', jsonb_build_object('n', i)
        from generate_series(1, $1) i",
    )
    .bind(jobs)
    .execute(db)
    .await?;
    Ok(())
}

/// Eight producers, a commit a job; jobs per second.
async fn produce(db: &PgPool, statement: &'static str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut conn = db.acquire().await?;
                let mut made = 0_u32;
                while begun.elapsed() < PRODUCE {
                    let _: i64 = sqlx::query_scalar(statement).fetch_one(&mut *conn).await?;
                    made += 1;
                }
                Ok::<_, sqlx::Error>(made)
            })
        })
        .collect();
    let mut made = 0;
    for producer in producers {
        made += producer.await??;
    }
    Ok(f64::from(made) / begun.elapsed().as_secs_f64())
}

/// One producer, a thousand at a time; jobs per second.
async fn produce_batches(db: &PgPool, statement: &'static str) -> anyhow::Result<f64> {
    let payloads: Vec<serde_json::Value> = (0..BATCH).map(|n| serde_json::json!({ "n": n })).collect();
    let mut conn = db.acquire().await?;
    let begun = Instant::now();
    let mut made = 0;
    while begun.elapsed() < PRODUCE {
        let ids: Vec<i64> = sqlx::query_scalar(statement).bind(&payloads).fetch_all(&mut *conn).await?;
        made += ids.len();
    }
    Ok(made as f64 / begun.elapsed().as_secs_f64())
}

/// From the sending of an enqueue's commit to the handler's first line, on an idle queue, in milliseconds: the commit's
/// own flush included.
async fn latencies(scratch: &Scratch) -> anyhow::Result<Vec<f64>> {
    let (teller, mut told) = tokio::sync::mpsc::unbounded_channel();
    *BEGUN.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(teller);
    let stop = CancellationToken::new();
    let worker = work(scratch, Lane::ALL.to_vec(), stop.clone());
    let mut waits = Vec::with_capacity(LATENCY_JOBS);
    let mut conn = scratch.db.acquire().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..LATENCY_JOBS + 20 {
        let mut tx = sqlx::Connection::begin(&mut *conn).await?;
        sqlx::query("select muneem.enqueue('bench.tell', jsonb_build_object('n', $1::bigint), 'bench')")
            .bind(i64::try_from(n).unwrap_or(0))
            .execute(&mut *tx)
            .await?;
        let begun = Instant::now();
        tx.commit().await?;
        let started = told.recv().await.unwrap_or(begun);
        if n >= 20 {
            waits.push(started.duration_since(begun).as_secs_f64() * 1000.0);
        }
        // Idle in between, never in step with a poll.
        tokio::time::sleep(Duration::from_millis(11 + (n as u64 * 7) % 23)).await;
    }
    *BEGUN.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    stop.cancel();
    worker.await??;
    empty(&scratch.db).await?;
    Ok(waits)
}

/// These jobs go nowhere.
pub(super) struct Nowhere;

#[async_trait]
impl ObjectStore for Nowhere {
    async fn put_if_absent(&self, digest: &str, _: bytes::Bytes) -> Result<(), ObjectError> {
        Err(ObjectError::Damaged(digest.to_owned()))
    }

    async fn get(&self, _: &str) -> Result<Option<bytes::Bytes>, ObjectError> {
        Ok(None)
    }

    async fn exists(&self, _: &str) -> Result<bool, ObjectError> {
        Ok(false)
    }
}

#[async_trait]
impl Carrier for Nowhere {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        Err(UploadError::Failed(Failure::new("a bench sends nothing")))
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        SendOutcome::NotSent(Failure::new("a bench sends nothing"))
    }
}
