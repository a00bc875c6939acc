//! Processes that write and seal, killed at any moment, with Postgres among them: what was committed is in the log,
//! once; what was not is not; the log has one course, and nobody cries wolf.
//!
//! A short round runs with every `cargo test`. The long one, 8 processes of 32 writers for a minute:
//! `MUNEEM_LONG=1 cargo test --test it -- chaos --nocapture`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem::{
    evidence::bundle::{self, Against},
    outbound::{anchor::DirectoryAnchor, chance::OsChance},
};
use muneem_jobs::{
    MIGRATOR,
    evidence::{self, Actor, Event, EventId, Object, Sealer, note::Signer25519, words},
    outbound::{Anchor, Chance, Clock},
    people::BusinessId,
};
use muneem_postgres::testing::TestServer;
use muneem_tests::outside::TestClock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

const SEED: [u8; 32] = [3; 32];
/// Names the order of a child process.
const ORDER: &str = "MUNEEM_CHAOS";

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    url: String,
    folder: PathBuf,
    journal: PathBuf,
    writers: usize,
}

/// How much fire.
struct Round {
    processes: usize,
    writers: usize,
    lasts: Duration,
}

impl Round {
    fn chosen() -> Self {
        if std::env::var_os("MUNEEM_LONG").is_some() {
            return Self { processes: 8, writers: 32, lasts: Duration::from_secs(60) };
        }
        Self { processes: 4, writers: 8, lasts: Duration::from_secs(12) }
    }
}

fn below(bound: u32) -> u32 {
    let mut bytes = [0; 4];
    OsChance.fill(&mut bytes);
    u32::from_le_bytes(bytes) % bound
}

/// What one process notes outside the database, each line with one write: `t` tried, `c` committed, `r` to be rolled
/// back, `!` an alarm. A line that is written survives the process.
struct Journal(Mutex<File>);

impl Journal {
    fn note(&self, what: &str, said: &str) {
        self.0.lock().unwrap().write_all(format!("{what} {said}\n").as_bytes()).unwrap();
    }
}

/// The body of a child process; by itself it is no test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one process of the round, which the round starts"]
async fn one_process_of_the_round() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order: Order = serde_json::from_str(&order).unwrap();
    let file = File::options().append(true).create(true).open(&order.journal).unwrap();
    let journal = Arc::new(Journal(Mutex::new(file)));
    let connections = u32::try_from(order.writers).unwrap() + 2;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(3))
        .connect_lazy_with(order.url.parse().unwrap());
    for _ in 0..order.writers {
        tokio::spawn(write(pool.clone(), Arc::clone(&journal)));
    }
    seal(&pool, &order, &journal).await;
}

/// Writes until it is killed: transactions of some events, some rolled back. Whatever the database says, it goes on.
async fn write(pool: PgPool, journal: Arc<Journal>) {
    loop {
        tokio::time::sleep(Duration::from_millis(u64::from(below(20)))).await;
        let business = [None, Some(BusinessId(Uuid::from_u128(u128::from(1 + below(5)))))][usize::from(below(4) > 0)];
        let events: Vec<_> = (0..=below(3)).map(|number| event(business, number)).collect();
        let ids: Vec<_> = events.iter().map(|event| event.event_id.to_string()).collect();
        let ids = ids.join(" ");
        let attempt = async {
            journal.note("t", &ids);
            let mut tx = pool.begin().await?;
            evidence::record_many(&mut tx, &events).await?;
            if below(10) == 0 {
                journal.note("r", &ids);
                tx.rollback().await?;
            } else {
                tx.commit().await?;
                journal.note("c", &ids);
            }
            Ok::<_, evidence::Error>(())
        };
        if let Err(error) = attempt.await
            && !matches!(error, evidence::Error::Database(_))
        {
            journal.note("!", &error.to_string());
        }
    }
}

fn event(business_id: Option<BusinessId>, number: u32) -> Event<'static> {
    Event {
        event_id: EventId::new(&OsChance as &dyn Chance, TestClock::default().now()),
        business_id,
        actor: Actor::System,
        verb: words::PROBED,
        object: Object { kind: "round", id: "chaos" },
        details: json!({ "number": number }),
    }
}

fn sealer(folder: &Path, name: &str) -> Sealer {
    let anchor = DirectoryAnchor::open(&folder.join("anchors"), Duration::ZERO, true).unwrap();
    let anchors: Vec<Arc<dyn Anchor>> = vec![Arc::new(anchor)];
    Sealer::new(Signer25519::new(&SEED), anchors, name.to_owned())
}

/// Seals until it is killed. Its clock runs thirty times as fast, so that heads are due all the time, and each
/// process's is another: order has nothing to do with time.
async fn seal(pool: &PgPool, order: &Order, journal: &Journal) {
    let name = format!("{}-{}", std::process::id(), below(u32::MAX));
    let (mut sealer, begun) = (sealer(&order.folder, &name), Instant::now());
    let skew = TimeDelta::seconds(i64::from(below(600)));
    loop {
        let at = TestClock::default().now() + skew + TimeDelta::from_std(begun.elapsed() * 30).unwrap();
        let turn = async { sealer.turn(&mut *pool.acquire().await?, at).await };
        match turn.await {
            // The database is away, or another leads by now.
            Ok(_) | Err(evidence::Error::Database(_) | evidence::Error::LostLead) => {}
            Err(error) => journal.note("!", &error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(20 + u64::from(below(60)))).await;
    }
}

/// The processes of a round.
struct Processes {
    order: Order,
    running: Vec<Child>,
    started: usize,
}

impl Processes {
    fn start(&mut self) {
        self.started += 1;
        let order =
            Order { journal: self.order.folder.join(format!("journal-{}", self.started)), ..self.order.clone() };
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "evidence::chaos::one_process_of_the_round", "--ignored", "--nocapture"])
            .env(ORDER, serde_json::to_string(&order).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running.push(child);
    }

    /// With SIGKILL; answers its process id.
    fn kill(&mut self, which: usize) -> u32 {
        let mut child = self.running.swap_remove(which);
        child.kill().unwrap();
        child.wait().unwrap();
        child.id()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        while !self.running.is_empty() {
            self.kill(0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_082_killed_writers_sealers_and_postgres_lose_double_and_fork_nothing() {
    let round = Round::chosen();
    let mut server = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
    server.create_database("chaos", Some(&MIGRATOR)).await;
    let owner = server.pool("chaos");
    sqlx::raw_sql("create role chaos login in role muneem_app").execute(&owner).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let order = Order {
        url: server.server().url_as("chaos", "chaos"),
        folder: folder.path().to_owned(),
        journal: PathBuf::new(),
        writers: round.writers,
    };
    let mut processes = Processes { order, running: Vec::new(), started: 0 };
    for _ in 0..round.processes {
        processes.start();
    }

    let (begun, mut restarted, mut cut) = (Instant::now(), false, 0);
    while begun.elapsed() < round.lasts {
        tokio::time::sleep(Duration::from_millis(100 + u64::from(below(300)))).await;
        if !restarted && begun.elapsed() > round.lasts / 2 {
            restarted = true;
            server = tokio::task::spawn_blocking(move || {
                server.kill();
                server.start();
                server
            })
            .await
            .unwrap();
            continue;
        }
        match below(4) {
            // One connection dies in the middle of whatever it does.
            0 => cut += cut_connection(&owner).await,
            // The lead is taken from whoever has it, while it believes to have it.
            1 => expire_lead(&owner, "").await,
            _ => {
                let which = usize::try_from(below(u32::try_from(processes.running.len()).unwrap())).unwrap();
                let dead = processes.kill(which);
                expire_lead(&owner, &format!("{dead}-")).await;
                processes.start();
            }
        }
    }
    let started = processes.started;
    drop(processes);
    assert!(restarted && started > round.processes + 5, "{started} processes");

    let size = seal_the_rest(&owner, folder.path()).await;
    let fence: i64 = sqlx::query_scalar("select fence from muneem.evidence_head").fetch_one(&owner).await.unwrap();
    println!("{size} events, {started} processes, {cut} connections cut, {fence} leads, {:?}", begun.elapsed());
    assert!(fence > 3, "the lead changed hands {fence} times");
    check(&owner, folder.path(), size).await;
    drop(owner);
    drop(server);
}

async fn cut_connection(owner: &PgPool) -> i32 {
    sqlx::query_scalar::<_, bool>(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'chaos' order by random() limit 1",
    )
    .fetch_optional(owner)
    .await
    .map_or(0, |cut| i32::from(cut == Some(true)))
}

async fn expire_lead(owner: &PgPool, holder: &str) {
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity' where starts_with(holder, $1)")
        .bind(holder)
        .execute(owner)
        .await
        .unwrap();
}

/// Numbers what is left, once the last transaction is over, and lays a head down over all.
async fn seal_the_rest(owner: &PgPool, folder: &Path) -> u64 {
    expire_lead(owner, "").await;
    let (mut sealer, begun) = (sealer(folder, "last"), Instant::now());
    let mut at: DateTime<Utc> = TestClock::default().now() + TimeDelta::days(1);
    let mut db = owner.acquire().await.unwrap();
    loop {
        at += TimeDelta::hours(2);
        sealer.turn(&mut db, at).await.expect("no false alarm");
        let standing = evidence::load_standing(&mut db).await.unwrap();
        if standing.unsealed_since.is_none() && largest_head(folder) == standing.size {
            return standing.size;
        }
        assert!(begun.elapsed() < muneem_tests::PATIENCE, "something stays unsealed: {standing:?}");
        tokio::task::yield_now().await;
    }
}

/// Heads that lie outside.
fn heads(folder: &Path) -> Vec<PathBuf> {
    let laid = fs::read_dir(folder.join("anchors").join(format!("{:014}", 0)));
    let mut heads: Vec<_> = laid
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "note"))
        .collect();
    heads.sort();
    heads
}

fn largest_head(folder: &Path) -> u64 {
    let last = heads(folder).pop().map(|head| head.file_name().unwrap().to_string_lossy()[..20].parse().unwrap());
    last.unwrap_or(0)
}

async fn check(owner: &PgPool, folder: &Path, size: u64) {
    // What the processes remember of what they did.
    let mut remembered: BTreeMap<char, BTreeSet<Uuid>> = BTreeMap::new();
    for journal in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        for line in fs::read_to_string(&journal).unwrap().lines() {
            let (what, said) = line.split_once(' ').unwrap();
            assert_ne!(what, "!", "{said}");
            let ids = said.split(' ').map(|id| id.parse::<Uuid>().unwrap());
            remembered.entry(what.chars().next().unwrap()).or_default().extend(ids);
        }
    }
    let [tried, committed, undone] =
        ['t', 'c', 'r'].map(|what| remembered.remove(&what).unwrap_or_else(|| panic!("no line `{what}`")));

    // What the log holds.
    let mut db = owner.acquire().await.unwrap();
    let (mut sealed, mut from) = (Vec::new(), 0);
    while from < size {
        let page = evidence::list_sealed(&mut db, None, from, 10_000).await.unwrap();
        from += u64::try_from(page.len()).unwrap();
        assert!(!page.is_empty(), "event {from} is missing");
        sealed.extend(page.into_iter().map(|sealed| sealed.leaf.event_id));
    }
    let once: BTreeSet<_> = sealed.iter().copied().collect();
    assert_eq!(once.len(), sealed.len(), "something is in the log twice");
    assert_eq!(committed.difference(&once).next(), None, "a committed event is lost");
    assert_eq!(undone.intersection(&once).next(), None, "an event that was rolled back is in the log");
    assert_eq!(once.difference(&tried).next(), None, "an event that nobody wrote is in the log");
    assert!(committed.len() > 500, "{} events are no fire", committed.len());
    let standing = evidence::load_standing(&mut db).await.unwrap();
    assert_eq!(standing.forked, None, "a false alarm");

    // And what a stranger can tell of it: every head that anybody laid down is of this one log.
    let file = folder.join("all.zip");
    let key = Signer25519::new(&SEED).verifier().clone();
    bundle::export(&mut db, &key, None, &file, |_, _| {}).await.unwrap();
    let heads = heads(folder);
    let verdict = bundle::verify(&file, Against { key: Some(&key), held: &heads, roots: None }).unwrap();
    assert_eq!((verdict.verified, verdict.unsigned, verdict.size), (size, 0, size));
    assert_eq!(verdict.outside_heads, u64::try_from(heads.len()).unwrap());
    assert!(heads.len() > 5, "{} heads", heads.len());
}
