//! A whole log, bent by somebody who may do everything to the database and nothing outside it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use muneem_jobs::{
    MIGRATOR,
    evidence::{
        self, Actor, Event, EventId, Object, Sealer,
        bundle::{Broken, Verdict},
        note::{Signer25519, Verifier},
        words,
    },
    outbound::{Anchor, Chance},
    people::BusinessId,
};
use muneem_postgres::testing::TestDb;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

use super::bundle::{self, Against};
use crate::outbound::{anchor::DirectoryAnchor, chance::OsChance};

const SEED: [u8; 32] = [5; 32];
const BUSINESS: BusinessId = BusinessId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00aa));

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_764_000_000, 0).expect("an instant")
}

fn key() -> Verifier {
    Signer25519::new(&SEED).verifier().clone()
}

/// A log of twelve events, sealed, signed and anchored twice: after six and after all.
struct Log {
    test: TestDb,
    dir: tempfile::TempDir,
}

impl Log {
    async fn new() -> Self {
        let log = Self { test: TestDb::new(&MIGRATOR).await, dir: tempfile::tempdir().expect("a directory") };
        log.write(6).await;
        log.seal(6, noon()).await;
        log.write(6).await;
        log.seal(12, noon() + chrono::Duration::minutes(1)).await;
        log
    }

    async fn write(&self, count: usize) {
        let mut db = self.test.app_pool().acquire().await.expect("a connection");
        for number in 0..count {
            let event = Event {
                event_id: EventId::new(&OsChance as &dyn Chance, noon()),
                business_id: (number % 2 == 0).then_some(BUSINESS),
                actor: Actor::System,
                verb: words::PROBED,
                object: Object { kind: "test", id: "one" },
                details: json!({ "number": number }),
            };
            evidence::record(&mut db, &event).await.expect("recorded");
        }
    }

    async fn seal(&self, size: u64, now: DateTime<Utc>) {
        let anchor = DirectoryAnchor::open(&self.anchors(), Duration::ZERO, true).expect("a directory");
        let anchors: Vec<Arc<dyn Anchor>> = vec![Arc::new(anchor)];
        let mut sealer = Sealer::new(Signer25519::new(&SEED), anchors, "test".to_owned());
        let mut db = self.test.app_pool().acquire().await.expect("a connection");
        let begun = Instant::now();
        let mut at = now;
        // Other tests of this server hold transactions open, for which the line waits.
        while sealer.anchor_states()[0].laid_size != Some(size) {
            sealer.turn(&mut db, at).await.expect("sealed");
            at += chrono::Duration::seconds(11);
            assert!(begun.elapsed().as_secs() < 60, "nothing is sealed");
            tokio::task::yield_now().await;
        }
    }

    fn anchors(&self) -> PathBuf {
        self.dir.path().join("anchors")
    }

    fn heads(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.anchors().join("00000000000000"));
        let mut heads: Vec<_> = folder.into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
        // Beside them a draft may lie.
        heads.retain(|head| head.extension().is_some_and(|ending| ending == "note"));
        heads.sort();
        heads
    }

    async fn export(&self, name: &str, business: Option<BusinessId>) -> PathBuf {
        let file = self.dir.path().join(name);
        let mut db = self.test.app_pool().acquire().await.expect("a connection");
        bundle::export(&mut db, &key(), business, &file, |_, _| {}).await.expect("exported");
        file
    }

    /// Does what only a superuser can: no trigger stops it.
    async fn bend(&self, sql: &str) {
        let mut owner = self.test.pool().acquire().await.expect("a connection");
        for statement in ["set session_replication_role = replica", sql, "set session_replication_role = origin"] {
            owner.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    fn verify(&self, file: &Path) -> Result<Verdict, Broken> {
        against(file, &key(), &self.heads()).map_err(|error| error.downcast().expect("a broken item"))
    }
}

fn against(file: &Path, key: &Verifier, held: &[PathBuf]) -> anyhow::Result<Verdict> {
    bundle::verify(file, Against { key: Some(key), held, roots: None })
}

#[tokio::test]
async fn a_bundle_verifies_with_nothing_but_itself() {
    let log = Log::new().await;
    let all = log.verify(&log.export("all.zip", None).await).expect("sound");
    assert_eq!((all.verified, all.retired, all.unsigned, all.size), (12, 0, 0, 12));
    assert!(all.outside_heads >= 2, "{all:?}");
    let own = log.verify(&log.export("own.zip", Some(BUSINESS)).await).expect("sound");
    assert_eq!((own.verified, own.size), (6, 12), "one business alone, under the same heads");
    // What is sealed after the last head is shown as unproven, not as proven.
    log.write(1).await;
    let begun = Instant::now();
    let mut db = log.test.app_pool().acquire().await.expect("a connection");
    let mut sealer = Sealer::new(Signer25519::new(&SEED), Vec::new(), "test".to_owned());
    while evidence::load_standing(&mut db).await.expect("asked").size < 13 {
        // At the instant of the last head: nothing is due to be signed.
        let at = evidence::load_standing(&mut db).await.expect("asked").signed_at.expect("signed");
        sealer.turn(&mut db, at).await.expect("ok");
        assert!(begun.elapsed().as_secs() < 60);
    }
    let later = log.verify(&log.export("later.zip", None).await).expect("sound");
    assert_eq!((later.verified, later.unsigned), (12, 1));
}

#[tokio::test]
async fn a_bundle_of_one_business_carries_nothing_of_others_and_misses_none_of_its_own() {
    let log = Log::new().await;
    let file = log.export("own.zip", Some(BUSINESS)).await;
    let own = log.verify(&file).expect("sound");
    assert_eq!((own.verified, own.size), (6, 12), "{own:?}");
    assert!(own.heads >= 2 && own.outside_heads >= 2, "{own:?}");
    let zip = zip::ZipArchive::new(std::fs::File::open(&file).expect("opened")).expect("a zip");
    let names: Vec<_> = zip.file_names().map(|name| name.expect("a name").into_owned()).collect();
    assert!(!names.contains(&"leaves.bin".to_owned()), "{names:?}");
    type Change = fn(&str, &str) -> Option<String>;
    let bent = log.dir.path().join("bent.zip");
    let changes: &[(Change, &str)] = &[
        (|name, text| (name == "events.jsonl").then(|| drop_line(text, 2)), "event 6"),
        (|name, text| (name == "events.jsonl").then(|| text.replacen("\"seq\":4", "\"seq\":5", 1)), "event 5"),
        (
            |name, text| (name == "events.jsonl").then(|| text.replacen("\"business_seq\":2", "\"business_seq\":1", 1)),
            "event 2",
        ),
        (
            |name, text| (name == "events.jsonl").then(|| text.replacen("\"path\":[", "\"path\":[\"AAAA\",", 1)),
            "event 0 or after",
        ),
        (|name, _| (name == "growth.jsonl").then(String::new), "note"),
        (|name, text| (name == "growth.jsonl").then(|| text.replace("\"size\":6", "\"size\":12")), "note"),
        // The last: where the line waited for other tests there are heads in between, which nothing rests on.
        (|name, text| (name == "notes.jsonl").then(|| drop_line(text, text.lines().count() - 1)), "growth|note"),
    ];
    for (change, item) in changes {
        repack(&file, &bent, *change);
        let broken = bundle::verify(&bent, Against { key: Some(&key()), ..Against::default() }).expect_err(item);
        let broken: Broken = broken.downcast().expect("a broken item");
        assert!(item.split('|').any(|item| broken.item.starts_with(item)), "{item}: {broken}");
    }
    // Another log's head over as many events.
    let anew = Log::new().await;
    let last = anew.heads().pop().expect("a head over all");
    let error = against(&file, &key(), &[last]).expect_err("another log");
    assert!(error.to_string().contains("another root"), "{error:#}");
}

#[tokio::test]
async fn atk_081_whatever_a_superuser_bends_is_found() {
    // Each way to bend it, and the first item that no longer holds.
    let ways: &[(&str, &str)] = &[
        (
            "update muneem.evidence_events set body = '{}' where event_id = (select event_id from muneem.evidence_leaves where seq = 3)",
            "event 3",
        ),
        (
            "delete from muneem.evidence_events where event_id = (select event_id from muneem.evidence_leaves where seq = 4)",
            "event 4",
        ),
        ("update muneem.evidence_leaves set at = at - interval '1 day' where seq = 5", "event 5"),
        ("update muneem.evidence_leaves set business_id = null, business_seq = 99 where seq = 2", "event 2"),
        // The tail cut off: of the database's own heads too.
        (
            "delete from muneem.evidence_leaves where seq >= 9; update muneem.evidence_head set size = 9; delete from muneem.evidence_checkpoints where size > 9; delete from muneem.evidence_anchors",
            "note",
        ),
        // The same with the leaf: then no head is reached any more.
        ("update muneem.evidence_leaves set leaf = sha256(leaf) where seq = 7", "note"),
    ];
    for (sql, item) in ways {
        let log = Log::new().await;
        log.bend(sql).await;
        let broken = log.verify(&log.export("bent.zip", None).await).expect_err(sql);
        assert!(broken.item.contains(item), "{sql}: {broken}");
    }
}

#[tokio::test]
async fn atk_081_a_log_written_anew_contradicts_its_anchors() {
    let log = Log::new().await;
    let before = log.heads();
    // Everything is replaced, hashed and signed anew by somebody who even has the key: only the anchors remember.
    let anew = Log::new().await;
    let file = anew.export("anew.zip", None).await;
    anew.verify(&file).expect("in itself it is sound");
    let error = against(&file, &key(), &before).expect_err("but it is another log");
    assert!(error.downcast_ref::<Broken>().is_some_and(|broken| broken.item.ends_with(".note")), "{error:#}");
    log.verify(&log.export("sound.zip", None).await).expect("the other one is as it was");
}

#[tokio::test]
async fn atk_086_a_bundle_with_one_byte_changed_names_the_item() {
    let log = Log::new().await;
    let file = log.export("all.zip", None).await;
    let sound = std::fs::read(&file).expect("read");
    let mut noticed = 0;
    let bent = log.dir.path().join("bent.zip");
    for place in (0..sound.len()).step_by(97) {
        let mut bytes = sound.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&bent, &bytes).expect("written");
        match against(&bent, &key(), &log.heads()) {
            Err(_) => noticed += 1,
            // Bytes of the zip that say nothing about its content: dates, versions.
            Ok(verdict) => assert_eq!((verdict.verified, verdict.size), (12, 12)),
        }
    }
    assert!(noticed > 20, "{noticed}");
    // Repacked with right checksums: only the content can tell.
    type Change = fn(&str, &str) -> Option<String>;
    let changes: &[(Change, &str)] = &[
        (|name, text| (name == "events.jsonl").then(|| text.replacen("\"seq\":3", "\"seq\":4", 1)), "event 4"),
        (|name, text| (name == "events.jsonl").then(|| drop_line(text, 6)), "event 7"),
        (|name, text| (name == "events.jsonl").then(|| drop_line(text, 11)), "event 11"),
        (|name, text| (name == "events.jsonl").then(|| swap_lines(text, 2, 3)), "event 3"),
        (|name, text| (name == "notes.jsonl").then(|| text.replacen("\\n12\\n", "\\n11\\n", 1)), "note"),
        (|name, text| (name == "notes.jsonl").then(|| drop_line(text, 0) + "\"x\"\n"), "note"),
        (|name, text| (name == "receipts.jsonl").then(|| text.replace("time 20", "time 21")), "receipt 1"),
        (|name, _| (name == "manifest.json").then(|| "{}".to_owned()), "manifest.json"),
    ];
    for (change, item) in changes {
        std::fs::remove_file(&bent).expect("removed");
        repack(&file, &bent, *change);
        let broken = log.verify(&bent).expect_err(item);
        assert!(broken.item.starts_with(item), "{item}: {broken}");
    }
    // A head of another log, and another key.
    let foreign = log.dir.path().join("foreign.note");
    let head = evidence::note::Checkpoint { size: 3, root: [1; 32], at: noon() };
    std::fs::write(&foreign, Signer25519::new(&[6; 32]).sign(&head)).expect("written");
    let error = bundle::verify(&file, Against { held: &[foreign], ..Against::default() }).expect_err("another log");
    assert!(error.to_string().contains("another log"), "{error:#}");
    let error = against(&file, Signer25519::new(&[6; 32]).verifier(), &[]).expect_err("another key");
    assert!(error.to_string().contains("another key"), "{error:#}");
}

fn drop_line(text: &str, line: usize) -> String {
    text.lines().enumerate().filter(|(at, _)| *at != line).map(|(_, line)| format!("{line}\n")).collect()
}

fn swap_lines(text: &str, one: usize, two: usize) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.swap(one, two);
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

fn repack(from: &Path, to: &Path, change: fn(&str, &str) -> Option<String>) {
    let mut source = zip::ZipArchive::new(std::fs::File::open(from).expect("opened")).expect("a zip");
    let mut target = zip::ZipWriter::new(std::fs::File::create(to).expect("made"));
    for place in 0..source.len() {
        let mut file = source.by_index(place).expect("a file");
        let name = file.name().expect("a name").into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
        let changed = std::str::from_utf8(&bytes).ok().and_then(|text| change(&name, text)).map(String::into_bytes);
        target.start_file(name, zip::write::SimpleFileOptions::default()).expect("begun");
        std::io::Write::write_all(&mut target, &changed.unwrap_or(bytes)).expect("written");
    }
    target.finish().expect("finished");
}

#[tokio::test]
async fn bodies_let_go_by_policy_are_told_from_missing_ones() {
    let log = Log::new().await;
    // What the retirement leaves behind: no bodies before an instant, and an event that says so.
    log.bend("delete from muneem.evidence_events where event_id in (select event_id from muneem.evidence_leaves where seq < 6)").await;
    let missing = log.verify(&log.export("missing.zip", None).await).expect_err("nothing says why they are gone");
    assert_eq!(missing.item, "event 0");
    let mut db: sqlx::pool::PoolConnection<_> = log.test.app_pool().acquire().await.expect("a connection");
    retire_event(&mut db).await;
    drop(db);
    log.seal(13, noon() + chrono::Duration::hours(2)).await;
    let verdict = log.verify(&log.export("retired.zip", None).await).expect("sound");
    assert_eq!((verdict.verified, verdict.retired), (7, 6));
}

async fn retire_event(db: &mut PgConnection) {
    let before = evidence::list_sealed(db, None, 6, 1).await.expect("listed").remove(0).leaf.at;
    let event = Event {
        event_id: EventId::new(&OsChance as &dyn Chance, noon()),
        business_id: None,
        actor: Actor::System,
        verb: words::BODIES_RETIRED,
        object: Object { kind: "evidence", id: "bodies" },
        details: json!({ "before": before }),
    };
    evidence::record(db, &event).await.expect("recorded");
}
