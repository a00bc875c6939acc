//! Keys that change under fire: processes of `muneem serve` are killed while they seal anew, and whoever reads and
//! writes beside them notices nothing.
//!
//! Ten kills with every `cargo test`. Fifty, over ten times the rows:
//! `MUNEEM_LONG=1 cargo test --test it -- rotation --nocapture`.

use std::{
    collections::{BTreeMap, HashMap},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use muneem::outbound::{chance::OsChance, clock::MovedClock};
use muneem_jobs::{
    MIGRATOR, law,
    outbound::Chance,
    people::BusinessId,
    vault::{Cell, Class, Vault, key_of},
};
use muneem_postgres::testing::TestDb;
use muneem_tests::binary::{self, Running};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;

const SHARMA: BusinessId = BusinessId(Uuid::from_u128(1));
/// Between two looks at how far it is; the moved clock goes [`PACE`] times as fast as this.
const LOOK: Duration = Duration::from_millis(100);
const PACE: u32 = 10;

/// How much fire.
struct Round {
    rows: usize,
    kills: usize,
    at_most: Duration,
}

impl Round {
    fn chosen() -> Self {
        if std::env::var_os("MUNEEM_LONG").is_some() {
            return Self { rows: 60_000, kills: 50, at_most: Duration::from_secs(900) };
        }
        Self { rows: 6000, kills: 10, at_most: Duration::from_secs(400) }
    }
}

fn below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    OsChance.fill(&mut bytes);
    u64::from_le_bytes(bytes) % bound
}

fn text(id: Uuid, edition: u64) -> String {
    format!("{id} edition {edition}")
}

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "muneem.invoice_refusals", column: "payload_sealed", row }
}

async fn seal(vault: &Vault, db: &mut PgConnection, id: Uuid, edition: u64) -> Vec<u8> {
    let row = id.to_string();
    vault.seal(db, Class::Payload, &cell(&row), text(id, edition).as_bytes()).await.unwrap()
}

/// The number of the key that sealed a row's value, and the value; or why it could not be read.
async fn read(vault: &Vault, db: &mut PgConnection, id: Uuid) -> Result<(u32, String), String> {
    let sealed: Vec<u8> =
        sqlx::query_scalar("select payload_sealed from muneem.invoice_refusals where refusal_id = $1")
            .bind(id)
            .fetch_one(&mut *db)
            .await
            .map_err(|error| error.to_string())?;
    let row = id.to_string();
    let plain = vault.open(db, &cell(&row), &sealed).await.map_err(|error| format!("{error:?}"))?;
    Ok((key_of(&sealed).unwrap(), String::from_utf8(plain.to_vec()).unwrap()))
}

/// A database with rows of sealed values, whose clock is moved.
struct House {
    pool: PgPool,
    owner: PgPool,
    clock: MovedClock,
    ids: Arc<[Uuid]>,
    environment: Vec<(&'static str, String)>,
    home: tempfile::TempDir,
    /// Dropped last.
    _db: TestDb,
}

impl House {
    async fn of(rows: usize) -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let (pool, owner) = (db.app_pool(), db.pool());
        let mut conn = owner.acquire().await.unwrap();
        muneem_jobs::schema::migrate(&mut conn).await.unwrap();
        assert!(muneem_jobs::law::set_sandbox(&mut conn, true).await.unwrap());
        sqlx::query(
            "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
            values ($1, 'sharma-mobiles', 'Sharma Mobiles', now())",
        )
        .bind(SHARMA.0)
        .execute(&mut *conn)
        .await
        .unwrap();
        drop(conn);
        let environment = vec![
            ("DATABASE_URL", db.app_url()),
            ("MUNEEM__SANDBOX__ENABLED", "true".to_owned()),
            ("MUNEEM__SCHEDULE__POLL_SECS", "1".to_owned()),
        ];
        let ids = (1..=rows as u128).map(Uuid::from_u128).collect();
        let home = tempfile::tempdir().unwrap();
        let house = Self { pool, owner, clock: MovedClock::default(), ids, environment, home, _db: db };
        let vault = house.vault();
        let mut conn = house.pool.acquire().await.unwrap();
        for ids in house.ids.chunks(2000) {
            let mut sealed = Vec::with_capacity(ids.len());
            for id in ids {
                sealed.push(seal(&vault, &mut conn, *id, 0).await);
            }
            sqlx::query(
                "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
                select n.id, $3, n.sealed, '[]', now()
                from unnest($1::uuid[], $2::bytea[]) n (id, sealed)",
            )
            .bind(ids)
            .bind(&sealed)
            .bind(SHARMA.0)
            .execute(&mut *conn)
            .await
            .unwrap();
        }
        drop(conn);
        house
    }

    /// A process's own, with the root key that [`Running`] writes.
    fn vault(&self) -> Vault {
        Vault::with_root(&self.pool, &[7; 32].into(), Arc::new(self.clock.clone()), Arc::new(OsChance))
    }

    fn serve(&self) -> Running {
        Running::start(&["serve", "--only", "workers,scheduler"], self.home.path(), &self.environment)
    }

    /// Asks for a new key as an operator does; answers its number.
    fn rotate(&self) -> u32 {
        let asked = Command::new(binary::path())
            .args(["keys", "rotate", "--business", "sharma-mobiles", "--class", "payload", "--json"])
            .env_clear()
            .env("HOME", self.home.path())
            .env("MUNEEM__VAULT__KEY_FILE", self.home.path().join("root.key"))
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .current_dir(self.home.path())
            .output()
            .unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        let made: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        u32::try_from(made[0]["key_id"].as_u64().unwrap()).unwrap()
    }

    /// Moves the clock; ours first, so that nobody who takes a step believes that we know less than we do.
    async fn forward(&self, by: TimeDelta) {
        let moved_by = law::clock_offset(&self.pool).await.unwrap() + by;
        self.clock.set_offset(moved_by);
        law::move_clock(&mut self.pool.acquire().await.unwrap(), moved_by).await.unwrap();
    }

    /// Lets the lease of a dead worker run out, which the queue measures by the database's own time.
    async fn end_lease(&self, worker: &str) {
        sqlx::query("update muneem.queue_workers set lease_until = clock_timestamp() where name = $1")
            .bind(worker)
            .execute(&self.owner)
            .await
            .unwrap();
    }

    /// Keys of payloads and their states, the newest first.
    async fn keys(&self) -> Vec<(i64, String)> {
        sqlx::query_as("select key_id, state from muneem.vault_keys where class = 'payload' order by created_at desc")
            .fetch_all(&self.owner)
            .await
            .unwrap()
    }

    async fn walk(&self) -> Walk {
        let (open, visited): (bool, i64) = sqlx::query_as(
            "select coalesce(bool_or(r.state = 'running'), false), coalesce(sum(c.visited), 0)::bigint
            from muneem.vault_reseals r
            left join muneem.vault_reseal_columns c using (reseal_id)
            where r.state = 'running'",
        )
        .fetch_one(&self.owner)
        .await
        .unwrap();
        let job: Option<Option<String>> = sqlx::query_scalar(
            "select w.name
            from muneem.queue_jobs j
            left join muneem.queue_workers w on w.worker_id = j.claimed_by and w.lease_until > clock_timestamp()
            where j.kind = 'vault.reseal'
            limit 1",
        )
        .fetch_optional(&self.owner)
        .await
        .unwrap();
        Walk { open, visited, has_job: job.is_some(), holder: job.flatten() }
    }
}

/// How far sealing anew is, and in whose hands.
struct Walk {
    open: bool,
    visited: i64,
    has_job: bool,
    holder: Option<String>,
}

/// Two that read and one that writes, all the while.
struct Traffic {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
    /// What was written last, of each row.
    written: Arc<Mutex<HashMap<Uuid, u64>>>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Traffic {
    fn begin(house: &House) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let written: Arc<Mutex<HashMap<Uuid, u64>>> = Arc::default();
        let failed: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut tasks = Vec::new();
        for person in 0..3_usize {
            let (ids, stop, reads) = (Arc::clone(&house.ids), Arc::clone(&stop), Arc::clone(&reads));
            let (written, failed) = (Arc::clone(&written), Arc::clone(&failed));
            let (vault, pool) = (house.vault(), house.pool.clone());
            tasks.push(tokio::spawn(async move {
                let mut edition = 0;
                while !stop.load(Ordering::SeqCst) {
                    let id = ids[usize::try_from(below(ids.len() as u64)).unwrap()];
                    let mut db = pool.acquire().await.unwrap();
                    if person > 0 {
                        match read(&vault, &mut db, id).await {
                            Ok((_, text)) if text.starts_with(&id.to_string()) => {}
                            other => failed.lock().unwrap().push(format!("{other:?}")),
                        }
                        reads.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    edition += 1;
                    let sealed = seal(&vault, &mut db, id, edition).await;
                    // Noted by the only one who writes, so it is what must stand there.
                    let rows =
                        sqlx::query("update muneem.invoice_refusals set payload_sealed = $2 where refusal_id = $1")
                            .bind(id)
                            .bind(sealed)
                            .execute(&mut *db)
                            .await
                            .unwrap()
                            .rows_affected();
                    assert_eq!(rows, 1);
                    written.lock().unwrap().insert(id, edition);
                    drop(db);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        Self { stop, reads, tasks, written, failed }
    }

    /// Reads done, and what stands in each row that was written.
    async fn end(self) -> (u64, HashMap<Uuid, u64>) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("no write failed");
        }
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} reads failed: {:?}", failed.len(), &failed[..failed.len().min(3)]);
        let written = self.written.lock().unwrap().clone();
        (self.reads.load(Ordering::SeqCst), written)
    }
}

/// The processes that serve, by their ids.
struct Processes<'a> {
    house: &'a House,
    running: BTreeMap<u32, Running>,
}

impl<'a> Processes<'a> {
    fn begin(house: &'a House) -> Self {
        let mut processes = Self { house, running: BTreeMap::new() };
        processes.another();
        processes.another();
        processes
    }

    fn another(&mut self) {
        let process = self.house.serve();
        self.running.insert(process.id(), process);
    }

    /// Kills whoever has this name in the queue; false when it is dead already.
    fn kill(&mut self, worker: &str) -> bool {
        let Some(id) = worker.rsplit('-').next().and_then(|id| id.parse().ok()) else { return false };
        // Dropped, it is sent SIGKILL.
        self.running.remove(&id).is_some()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_073_a_rotation_killed_at_random_is_seen_by_no_reader_and_counts_exactly() {
    let round = Round::chosen();
    let house = House::of(round.rows).await;
    let traffic = Traffic::begin(&house);
    let mut processes = Processes::begin(&house);
    let begun = Instant::now();
    let (mut kills, mut turns) = (0, 0);
    let mut newest = 0;
    let mut seen = 0;
    // As many rotations as it takes until that many processes have died with the walk in hand.
    while kills < round.kills {
        newest = house.rotate();
        turns += 1;
        loop {
            assert!(begun.elapsed() < round.at_most, "{kills} kills, {turns} turns: {:?}", house.keys().await);
            let keys = house.keys().await;
            let active = keys.iter().any(|(key, state)| *key == i64::from(newest) && state == "active");
            let walk = house.walk().await;
            let cleared: bool = sqlx::query_scalar(
                "select not exists (
                    select from muneem.vault_keys
                    where class = 'payload' and state = 'decrypt_only' and cleared_at is null)",
            )
            .fetch_one(&house.owner)
            .await
            .unwrap();
            if active && cleared && !walk.open {
                break;
            }
            if let Some(holder) = walk.holder.filter(|_| kills < round.kills && walk.visited != seen) {
                tokio::time::sleep(Duration::from_millis(below(150))).await;
                if processes.kill(&holder) {
                    kills += 1;
                    seen = walk.visited;
                    processes.another();
                    house.end_lease(&holder).await;
                }
            }
            // Three workers died with it: it is given up, and the next hour takes it up again.
            let given_up = walk.open && !walk.has_job;
            house.forward(if given_up { TimeDelta::hours(1) } else { TimeDelta::from_std(LOOK * PACE).unwrap() }).await;
            tokio::time::sleep(LOOK).await;
        }
    }
    let took = begun.elapsed();
    let (reads, written) = traffic.end().await;
    assert!(reads > 0 && !written.is_empty(), "{reads} reads, {} rows written", written.len());

    let mut db = house.pool.acquire().await.unwrap();
    let vault = house.vault();
    for id in house.ids.iter() {
        let edition = written.get(id).copied().unwrap_or(0);
        assert_eq!(read(&vault, &mut db, *id).await, Ok((newest, text(*id, edition))));
    }
    drop(db);
    // Every value was sealed anew exactly once a turn, by the walk or by whoever wrote it meanwhile.
    let walks: Vec<(String, i64)> = sqlx::query_as(
        "select r.state, sum(c.resealed)::bigint
        from muneem.vault_reseals r
        join muneem.vault_reseal_columns c using (reseal_id)
        group by r.reseal_id, r.state",
    )
    .fetch_all(&house.owner)
    .await
    .unwrap();
    for (state, resealed) in &walks {
        let resealed = usize::try_from(*resealed).unwrap();
        assert_eq!(state, "done");
        assert!(resealed <= round.rows && resealed + written.len() >= round.rows, "{walks:?} of {}", round.rows);
    }
    println!("{turns} turns, {kills} kills, {reads} reads, {} rows written in {took:.1?}", written.len());

    // When no backup needs them any more, the old keys go; everything still opens.
    while house.keys().await.iter().any(|(_, state)| state == "decrypt_only") {
        assert!(begun.elapsed() < round.at_most, "not retired: {:?}", house.keys().await);
        house.forward(TimeDelta::days(1)).await;
        tokio::time::sleep(LOOK).await;
    }
    let keys = house.keys().await;
    let (retired, left): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(_, state)| state == "retired");
    assert_eq!((retired.len(), left), (turns, vec![(i64::from(newest), "active".to_owned())]));
    let mut db = house.pool.acquire().await.unwrap();
    let vault = house.vault();
    for id in house.ids.iter().step_by(17) {
        assert!(read(&vault, &mut db, *id).await.is_ok(), "row {id} needs a key that was retired");
    }
}
