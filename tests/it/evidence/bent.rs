//! Whoever may do everything to the database, and even has the signing key, cannot make the log agree with a head that
//! lies outside: written anew, restored from a dump, or as a copy of the cluster's files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem::{
    evidence::bundle::{self, Against},
    outbound::{anchor::DirectoryAnchor, chance::OsChance},
};
use muneem_jobs::{
    MIGRATOR,
    evidence::{
        self, Actor, Event, EventId, Leaf, Object, Sealer,
        bundle::Broken,
        note::{Checkpoint, Signer25519},
        tree, words,
    },
    outbound::{Anchor, Chance, Clock},
    people::BusinessId,
};
use muneem_postgres::testing::{TestDb, TestServer};
use muneem_tests::{PATIENCE, outside::TestClock};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

const SEED: [u8; 32] = [5; 32];
const BUSINESS: BusinessId = BusinessId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00aa));

fn event(number: u64) -> Event<'static> {
    Event {
        event_id: EventId::new(&OsChance as &dyn Chance, TestClock::default().now()),
        business_id: number.is_multiple_of(2).then_some(BUSINESS),
        actor: Actor::System,
        verb: words::PROBED,
        object: Object { kind: "test", id: "one" },
        details: json!({ "number": number }),
    }
}

async fn write(db: &PgPool, events: u64) {
    let mut conn = db.acquire().await.unwrap();
    for number in 0..events {
        evidence::record(&mut conn, &event(number)).await.unwrap();
    }
}

fn sealer(folder: &Path) -> Sealer {
    let anchor = DirectoryAnchor::open(folder, Duration::ZERO, true).unwrap();
    let anchors: Vec<Arc<dyn Anchor>> = vec![Arc::new(anchor)];
    Sealer::new(Signer25519::new(&SEED), anchors, "test".to_owned())
}

fn heads(folder: &Path) -> Vec<PathBuf> {
    let laid = fs::read_dir(folder.join(format!("{:014}", 0)));
    let laid = laid.into_iter().flatten().map(|entry| entry.unwrap().path());
    // One that is being written has another ending.
    let mut heads: Vec<_> = laid.filter(|path| path.extension().is_some_and(|ending| ending == "note")).collect();
    heads.sort();
    heads
}

/// Numbers and signs until a head over `size` events lies in `folder`. `at` moves on, so that heads are due.
async fn seal(db: &PgPool, folder: &Path, size: u64, at: &mut DateTime<Utc>) {
    let (mut sealer, begun) = (sealer(folder), Instant::now());
    let mut conn = db.acquire().await.unwrap();
    loop {
        *at += TimeDelta::hours(2);
        sealer.turn(&mut conn, *at).await.unwrap();
        let last = heads(folder).pop();
        if last.is_some_and(|head| head.file_name().unwrap().to_string_lossy().starts_with(&format!("{size:020}"))) {
            return;
        }
        // Other tests of a shared server hold transactions open, for which the line waits.
        assert!(begun.elapsed() < PATIENCE, "nothing is sealed");
        tokio::task::yield_now().await;
    }
}

/// What the sealer says of a log that is not the one it signed.
async fn refusal(db: &PgPool, folder: &Path, at: DateTime<Utc>) -> evidence::Error {
    let (mut sealer, begun) = (sealer(folder), Instant::now());
    let mut conn = db.acquire().await.unwrap();
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(db).await.unwrap();
    loop {
        match sealer.turn(&mut conn, at + TimeDelta::days(1)).await {
            Err(error) => return error,
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "it goes on as if nothing had happened"),
        }
    }
}

async fn verify(db: &PgPool, folder: &Path, heads: &[PathBuf]) -> Result<u64, Broken> {
    let (out, key) = (folder.join(format!("{}.zip", Uuid::from_u128(rand()))), Signer25519::new(&SEED));
    let mut conn = db.acquire().await.unwrap();
    bundle::export(&mut conn, key.verifier(), None, &out, |_, _| {}).await.unwrap();
    match bundle::verify(&out, Against { key: Some(key.verifier()), held: heads, roots: None }) {
        Ok(verdict) => Ok(verdict.verified),
        Err(error) => Err(error.downcast().unwrap()),
    }
}

fn rand() -> u128 {
    let mut bytes = [0; 16];
    OsChance.fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// One event as a forger wants it to have been.
#[derive(Clone)]
struct Forged {
    event_id: Uuid,
    business_id: Option<Uuid>,
    at: DateTime<Utc>,
    body: Vec<u8>,
}

async fn read(db: &PgPool) -> Vec<Forged> {
    let mut conn = db.acquire().await.unwrap();
    let sealed = evidence::list_sealed(&mut conn, None, 0, 1000).await.unwrap();
    let forged = |sealed: evidence::Sealed| Forged {
        event_id: sealed.leaf.event_id,
        business_id: sealed.leaf.business_id,
        at: sealed.leaf.at,
        body: sealed.body.expect("kept"),
    };
    sealed.into_iter().map(forged).collect()
}

/// Writes the log anew as these events: numbers, chains, hashes, and a head signed with the log's own key. Nothing in
/// the database contradicts anything else afterwards.
async fn forge(db: &PgPool, events: &[Forged], at: DateTime<Utc>) {
    let mut tx = db.begin().await.unwrap();
    for table in ["events", "leaves", "counters", "checkpoints", "anchors"] {
        let empty = format!("set local session_replication_role = replica; delete from muneem.evidence_{table}");
        tx.execute(sqlx::AssertSqlSafe(empty)).await.unwrap();
    }
    let mut chains: std::collections::BTreeMap<Option<Uuid>, (u64, tree::Hash)> = Default::default();
    let mut hashes = Vec::new();
    for (seq, forged) in (0_i64..).zip(events) {
        let (number, previous) = chains.get(&forged.business_id).copied().unwrap_or((0, [0; 32]));
        let leaf = Leaf {
            event_id: forged.event_id,
            business_id: forged.business_id,
            business_seq: number + 1,
            previous,
            at: forged.at,
            body_sha256: <sha2::Sha256 as sha2::Digest>::digest(&forged.body).into(),
        };
        let hash = leaf.hash();
        chains.insert(forged.business_id, (number + 1, hash));
        hashes.push(hash);
        let xid = (100 + seq).to_string();
        sqlx::query(
            "insert into muneem.evidence_events (event_id, business_id, xid, at, body) values ($1, $2, $3::xid8, $4, $5)",
        )
        .bind(forged.event_id)
        .bind(forged.business_id)
        .bind(&xid)
        .bind(forged.at)
        .bind(&forged.body)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "insert into muneem.evidence_leaves
                 (seq, event_id, business_id, business_seq, previous, at, body_sha256, leaf, xid)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9::xid8)",
        )
        .bind(seq)
        .bind(forged.event_id)
        .bind(forged.business_id)
        .bind(i64::try_from(leaf.business_seq).unwrap())
        .bind(&previous[..])
        .bind(forged.at)
        .bind(&leaf.body_sha256[..])
        .bind(&hash[..])
        .bind(&xid)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    for (business, (number, hash)) in chains {
        sqlx::query("insert into muneem.evidence_counters (business_id, sealed, leaf) values ($1, $2, $3)")
            .bind(business.unwrap_or_default())
            .bind(i64::try_from(number).unwrap())
            .bind(&hash[..])
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    let size = u64::try_from(hashes.len()).unwrap();
    sqlx::query("update muneem.evidence_head set size = $1, xid = $2::xid8, event_id = $3")
        .bind(i64::try_from(size).unwrap())
        .bind((100 + hashes.len() - 1).to_string())
        .bind(events.last().unwrap().event_id)
        .execute(&mut *tx)
        .await
        .unwrap();
    let root = tree::root(&hashes);
    let note = Signer25519::new(&SEED).sign(&Checkpoint { size, root, at });
    sqlx::query("insert into muneem.evidence_checkpoints (size, root, note, at) values ($1, $2, $3, $4)")
        .bind(i64::try_from(size).unwrap())
        .bind(&root[..])
        .bind(&note)
        .bind(at)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_081_a_log_forged_whole_with_the_key_contradicts_the_heads_outside() {
    type Bend = fn(&mut Vec<Forged>);
    let ways: [(&str, Bend); 7] = [
        ("an event is edited", |log| log[4].body = event(77).body().unwrap()),
        ("one in the middle is deleted", |log| drop(log.remove(5))),
        ("the tail is deleted", |log| log.truncate(9)),
        ("two are reordered", |log| log.swap(2, 7)),
        ("one is inserted with an older date", |log| {
            let between =
                Forged { event_id: Uuid::from_u128(rand()), body: event(5).body().unwrap(), ..log[6].clone() };
            log.insert(6, between);
        }),
        ("one is dated back", |log| log[8].at -= TimeDelta::days(1)),
        ("all are replaced", |log| log.iter_mut().for_each(|one| one.body = event(1).body().unwrap())),
    ];
    for (what, bend) in ways {
        let (test, folder) = (TestDb::new(&MIGRATOR).await, tempfile::tempdir().unwrap());
        let (db, anchors) = (test.pool(), folder.path().join("anchors"));
        let mut at = TestClock::default().now();
        write(&db, 6).await;
        seal(&db, &anchors, 6, &mut at).await;
        write(&db, 6).await;
        seal(&db, &anchors, 12, &mut at).await;
        let outside = heads(&anchors);
        assert_eq!(verify(&db, folder.path(), &outside).await, Ok(12));

        let mut log = read(&db).await;
        bend(&mut log);
        forge(&db, &log, at).await;
        let alone = verify(&db, folder.path(), &[]).await;
        assert_eq!(alone, Ok(u64::try_from(log.len()).unwrap()), "{what}: forged well, or this test proves nothing");
        let broken = verify(&db, folder.path(), &outside).await.expect_err(what);
        assert!(broken.item.ends_with(".note"), "{what}: {broken}");
        let refused = refusal(&db, &anchors, at).await;
        assert!(matches!(refused, evidence::Error::Forked(_)), "{what}: {refused}");
        assert_eq!(heads(&anchors), outside, "{what}: nothing more was signed");
    }
}

/// What a log that went back says, whoever asks: the sealer, an auditor, and the sealer again when the log has
/// outgrown the head outside.
async fn is_found_out(db: &PgPool, folder: &Path, at: DateTime<Utc>) {
    let anchors = folder.join("anchors");
    let outside = heads(&anchors);
    write(db, 1).await;
    let refused = refusal(db, &anchors, at).await;
    assert!(matches!(refused, evidence::Error::Forked(_)), "{refused}");
    write(db, 20).await;
    let refused = refusal(db, &anchors, at).await;
    assert!(matches!(refused, evidence::Error::Forked(_)), "outgrown: {refused}");
    let broken = verify(db, folder, &outside).await.expect_err("an auditor sees it");
    assert!(broken.item.ends_with(".note"), "{broken}");
    assert_eq!(heads(&anchors), outside, "nothing more was signed");
}

/// Lets a server's transactions count up.
async fn burn_transactions(db: &PgPool, count: i32) {
    let mut conn = db.acquire().await.unwrap();
    for _ in 0..count {
        conn.execute("select pg_current_xact_id()").await.unwrap();
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_075_an_older_dump_in_a_new_server_is_found_out() {
    let old = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
    let bin = old.server().bin_dir().to_owned();
    if !bin.join("pg_dump").exists() || !bin.join("pg_restore").exists() {
        assert!(std::env::var_os("MUNEEM_TESTS_COMPLETE").is_none(), "needs pg_dump: apt-get install postgresql");
        println!("SKIPPED: needs pg_dump (apt-get install postgresql)");
        return;
    }
    old.create_database("shop", Some(&MIGRATOR)).await;
    let (db, mut at) = (old.pool("shop"), TestClock::default().now());
    // Once with the new server's transactions behind those of the dump, once ahead.
    for (name, ahead) in [("behind", false), ("ahead", true)] {
        let folder = tempfile::tempdir().unwrap();
        let anchors = folder.path().join("anchors");
        if !ahead {
            burn_transactions(&db, 3000).await;
        }
        write(&db, 6).await;
        let size = size_after_sealing(&db, &anchors, &mut at).await;
        let dump = folder.path().join("yesterday");
        run(Command::new(bin.join("pg_dump")).args(["-Fc", "-d", &old.url("shop"), "-f"]).arg(&dump));
        write(&db, 6).await;
        assert!(size_after_sealing(&db, &anchors, &mut at).await > size);

        let new = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
        // Roles belong to the server, not to the dump.
        new.create_database("roles", Some(&MIGRATOR)).await;
        new.create_database(name, None).await;
        let restored = new.pool(name);
        if ahead {
            burn_transactions(&restored, 6000).await;
        }
        run(Command::new(bin.join("pg_restore")).args(["-d", &new.url(name)]).arg(&dump));
        is_found_out(&restored, folder.path(), at).await;
        // The log it was taken from goes on undisturbed.
        write(&db, 1).await;
        size_after_sealing(&db, &anchors, &mut at).await;
        restored.close().await;
        tokio::task::spawn_blocking(move || drop(new)).await.unwrap();
    }
    db.close().await;
    tokio::task::spawn_blocking(move || drop(old)).await.unwrap();
}

/// Seals and signs all there is, and answers how much.
async fn size_after_sealing(db: &PgPool, anchors: &Path, at: &mut DateTime<Utc>) -> u64 {
    let size: i64 = sqlx::query_scalar("select count(*) from muneem.evidence_events").fetch_one(db).await.unwrap();
    let size = u64::try_from(size).unwrap();
    seal(db, anchors, size, at).await;
    size
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_075_an_older_copy_of_the_clusters_files_is_found_out() {
    let mut server = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
    server.create_database("shop", Some(&MIGRATOR)).await;
    let (folder, mut at) = (tempfile::tempdir().unwrap(), TestClock::default().now());
    let anchors = folder.path().join("anchors");
    let db = server.pool("shop");
    write(&db, 6).await;
    seal(&db, &anchors, 6, &mut at).await;
    db.close().await;
    let data = server.server().dir().join("data");
    let kept = server.server().dir().join("yesterday");
    server = between_stop_and_start(server, {
        let (data, kept) = (data.clone(), kept.clone());
        move || run(Command::new("cp").arg("-a").args([&data, &kept]))
    })
    .await;
    let db = server.pool("shop");
    write(&db, 6).await;
    seal(&db, &anchors, 12, &mut at).await;
    assert_eq!(verify(&db, folder.path(), &heads(&anchors)).await, Ok(12));
    db.close().await;
    server = between_stop_and_start(server, move || {
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&kept, &data).unwrap();
    })
    .await;
    let db = server.pool("shop");
    is_found_out(&db, folder.path(), at).await;
    db.close().await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

async fn between_stop_and_start(mut server: TestServer, act: impl FnOnce() + Send + 'static) -> TestServer {
    tokio::task::spawn_blocking(move || {
        server.stop();
        act();
        server.start();
        server
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_is_no_superuser_leaves_evidence_of_her_migrations() {
    let server = tokio::task::spawn_blocking(TestServer::dedicated).await.unwrap();
    let mut admin = PgConnection::connect_with(&server.server().connect_options("postgres")).await.unwrap();
    admin.execute("create role shopkeeper login createrole createdb").await.unwrap();
    admin.execute("create database shop owner shopkeeper").await.unwrap();
    let url = server.server().url_as("shopkeeper", "shop");
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["migrate"][..], &["migrate"]] {
        run(Command::new(muneem_tests::binary::path())
            .args(arguments)
            .env_clear()
            .env("HOME", home.path())
            .env("DATABASE_URL", &url)
            .current_dir(home.path()));
    }
    let mut owner = PgConnection::connect_with(&server.server().connect_options("shop")).await.unwrap();
    let said: Vec<String> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::json ->> 'verb' from muneem.evidence_events order by xid, event_id",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let wanted = [words::SCHEMA_MIGRATED, words::LAW_CHANGED];
    assert_eq!(said, wanted.map(|word| word.as_str()));
    // Adding is all she may do.
    let her = server.server().connect_options("shop").username("shopkeeper");
    let mut her = PgConnection::connect_with(&her).await.unwrap();
    for sql in [
        "select body from muneem.evidence_events",
        "delete from muneem.evidence_events",
        "insert into muneem.evidence_events (event_id, body, at) values (gen_random_uuid(), '{}', '2020-01-01')",
    ] {
        let refused = her.execute(sql).await.expect_err(sql);
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{sql}");
    }
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
