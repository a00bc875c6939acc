//! A log with every kind of anchor at once, and the bundle that somebody verifies with what she holds.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use muneem::{
    config::Config,
    evidence::{
        anchors::{self, Outside},
        bundle::{self, Against},
    },
    outbound::{
        anchor::DirectoryAnchor,
        anchor_timestamp::TimestampAnchor,
        chance::OsChance,
        clock::SystemClock,
        http::{Timeouts, client},
    },
};
use muneem_jobs::{
    MIGRATOR,
    evidence::{
        self, Actor, Event, EventId, Object, Sealer,
        bundle::{Broken, Verdict},
        note::Signer25519,
        timestamp::Roots,
        words,
    },
    outbound::{Anchor, Chance},
};
use muneem_postgres::testing::TestDb;
use serde_json::json;

use super::{
    authority::{Authority, Holder, Keys, broken, has_openssl},
    mails::Post,
    objects::Store,
};

const SEED: [u8; 32] = [5; 32];

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_764_000_000, 0).expect("an instant")
}

fn stamping(name: &str, url: String, authority: &Authority) -> Arc<dyn Anchor> {
    let roots = Roots::from_pem(&authority.root()).expect("a root");
    let with = (client(Timeouts::DEFAULT).expect("a client"), Arc::new(OsChance) as Arc<dyn Chance>);
    Arc::new(TimestampAnchor::new(name.to_owned(), url, roots, Duration::ZERO, with))
}

/// A log of five events under a head that every anchor took that can.
struct Log {
    test: TestDb,
    dir: tempfile::TempDir,
}

impl Log {
    async fn new(mut anchors: Vec<Arc<dyn Anchor>>, failing: &[&str]) -> Self {
        let log = Self { test: TestDb::new(&MIGRATOR).await, dir: tempfile::tempdir().expect("a directory") };
        if anchors.iter().all(|anchor| anchor.name() != "directory") {
            let directory = DirectoryAnchor::open(&log.dir.path().join("anchors"), Duration::ZERO, true);
            anchors.push(Arc::new(directory.expect("usable")));
        }
        let mut db = log.test.app_pool().acquire().await.expect("a connection");
        for number in 0..5 {
            let event = Event {
                event_id: EventId::new(&OsChance as &dyn Chance, noon()),
                business_id: None,
                actor: Actor::System,
                verb: words::PROBED,
                object: Object { kind: "test", id: "one" },
                details: json!({ "number": number }),
            };
            evidence::record(&mut db, &event).await.expect("recorded");
        }
        let mut sealer = Sealer::new(Signer25519::new(&SEED), anchors, "test".to_owned());
        let (begun, mut at) = (Instant::now(), noon());
        loop {
            sealer.turn(&mut db, at).await.expect("a failing anchor stops nothing");
            at += chrono::Duration::milliseconds(250);
            let states = sealer.anchor_states();
            let done = |state: &evidence::AnchorState| {
                if failing.contains(&state.name.as_str()) { state.failures > 0 } else { state.laid_size == Some(5) }
            };
            if states.iter().all(done) {
                break;
            }
            assert!(begun.elapsed().as_secs() < 120, "{states:#?}");
            tokio::task::yield_now().await;
        }
        // What is known of them is written down.
        sealer.turn(&mut db, at).await.expect("written");
        let written = evidence::list_anchor_states(&mut db).await.expect("listed");
        assert_eq!(written.len(), sealer.anchor_states().len());
        for state in &written {
            let fails = failing.contains(&state.name.as_str());
            assert_eq!((state.failing_since.is_some(), state.laid_at.is_none()), (fails, fails), "{state:?}");
        }
        log
    }

    async fn export(&self) -> PathBuf {
        let file = self.dir.path().join("bundle.zip");
        let mut db = self.test.app_pool().acquire().await.expect("a connection");
        let key = Signer25519::new(&SEED);
        bundle::export(&mut db, key.verifier(), None, &file, |_, _| {}).await.expect("exported");
        file
    }
}

fn verify(file: &Path, held: &[PathBuf], roots: Option<&Authority>) -> Result<Verdict, Broken> {
    let key = Signer25519::new(&SEED);
    let roots = roots.map(|authority| Roots::from_pem(&authority.root()).expect("a root"));
    bundle::verify(file, Against { key: Some(key.verifier()), held, roots })
        .map_err(|error| error.downcast().expect("a broken item"))
}

#[tokio::test]
async fn every_kind_of_anchor_takes_the_head_and_a_dead_one_stops_nothing() {
    if !has_openssl() {
        return;
    }
    let Some(store) = Store::start() else { return };
    store.make_bucket("heads", true).await;
    let post = Post::open().await;
    let authority = Arc::new(Authority::new(Keys::Ecdsa, Holder::Sound));
    let dead = broken(axum::http::StatusCode::SERVICE_UNAVAILABLE, Vec::new()).await;
    // As an operator sets them up.
    let dir = tempfile::tempdir().expect("a directory");
    let (kept, roots) = (dir.path().join("kept"), dir.path().join("roots.pem"));
    std::fs::write(&roots, authority.root()).expect("written");
    let settings = format!(
        "[data]\ndir = \"{data}\"\n[messaging.mail]\nhost = \"127.0.0.1\"\ntls = \"none\"\nfrom = \"log@sharma.example\"\n\
         [evidence]\nanchor_dir = \"{kept}\"\nanchor_every_secs = 1\n\
         [evidence.timestamp]\nurls = [\"{live}\", \"{dead}\"]\nroots_file = \"{roots}\"\nevery_secs = 1\n\
         [evidence.objects]\nbucket = \"heads\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\naccess_key_id = \
         \"AKIATEST\"\nevery_secs = 1\n[evidence.mail]\nto = [\"asha@example.in\"]\nevery_secs = 1\n",
        data = dir.path().join("data").display(),
        kept = kept.display(),
        live = authority.listen().await,
        roots = roots.display(),
        endpoint = store.url,
    );
    let file = dir.path().join("muneem.toml");
    std::fs::write(&file, settings).expect("written");
    let secret = ("MUNEEM__EVIDENCE__OBJECTS__SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned());
    let config = Config::read(Some(file), &[secret].into_iter().collect()).expect("sound settings");
    let outside = Outside { mailer: Arc::new(post.smtp()), clock: Arc::new(SystemClock), chance: Arc::new(OsChance) };
    let anchors = anchors::build(&config, &outside).expect("all of them");
    assert_eq!(anchors::outside_kinds(&config).len(), 4);
    let log = Log::new(anchors, &["timestamp_2"]).await;
    let file = log.export().await;
    // Held outside: the folder, the mail, the token.
    let mail = log.dir.path().join("kept.eml");
    let mails = post.mails().await;
    std::fs::write(&mail, mails[0]["raw"].as_str().expect("raw")).expect("written");
    let held = [kept, mail];
    let verdict = verify(&file, &held, Some(&authority)).expect("sound");
    assert_eq!((verdict.verified, verdict.unrooted_stamps), (5, 0));
    assert!(verdict.outside_heads >= 2 && verdict.stamps >= 1, "{verdict:?}");
    let stamped = verdict.stamped.expect("stamped");
    assert_eq!((stamped.size, stamped.by.as_str(), stamped.rooted), (5, "CN=Test-tsa", true));
    let unrooted = verify(&file, &held, None).expect("sound in itself");
    assert_eq!((unrooted.stamps, unrooted.unrooted_stamps), (0, verdict.stamps));
}

#[tokio::test]
async fn atk_086_time_stamps_of_another_log_or_authority_are_named() {
    if !has_openssl() {
        return;
    }
    let authority = Arc::new(Authority::new(Keys::Ecdsa, Holder::Sound));
    let url = authority.listen().await;
    let one = Log::new(vec![stamping("timestamp", url.clone(), &authority)], &[]).await;
    let two = Log::new(vec![stamping("timestamp", url, &authority)], &[]).await;
    let (mine, theirs) = (one.export().await, two.export().await);
    let stamps = verify(&mine, &[], Some(&authority)).expect("sound").stamps;
    assert!(stamps >= 1);
    // Of another authority.
    let other = Authority::new(Keys::Ecdsa, Holder::Sound);
    let broken = verify(&mine, &[], Some(&other)).expect_err("another root");
    assert!(broken.item.contains("(timestamp)") && broken.problem.contains("trusted root"), "{broken}");
    // The other log's token in this log's receipt.
    let token = proof_of(&theirs);
    let bent = one.dir.path().join("bent.zip");
    replace_proof(&mine, &bent, &token);
    let broken = verify(&bent, &[], Some(&authority)).expect_err("another log's token");
    assert!(broken.item.contains("(timestamp)") && broken.problem.contains("another head"), "{broken}");
    // The same held as a file, and this log's own beside it.
    let (own, foreign) = (one.dir.path().join("own.tst"), one.dir.path().join("foreign.tst"));
    std::fs::write(&own, proof_of(&mine)).expect("written");
    std::fs::write(&foreign, &token).expect("written");
    assert_eq!(verify(&mine, std::slice::from_ref(&own), Some(&authority)).expect("sound").stamps, stamps + 1);
    let broken = verify(&mine, &[foreign], Some(&authority)).expect_err("of no head of this log");
    assert!(broken.item.ends_with("foreign.tst"), "{broken}");
}

fn receipts(file: &Path) -> Vec<serde_json::Value> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(file).expect("opened")).expect("a zip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("receipts.jsonl").expect("receipts"), &mut text).expect("read");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn proof_of(file: &Path) -> Vec<u8> {
    let receipts = receipts(file);
    // The last: it is over all events.
    let stamped = receipts.iter().rfind(|receipt| receipt["kind"] == "timestamp").expect("a time stamp");
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, stamped["proof"].as_str().expect("base64"))
        .expect("base64")
}

fn replace_proof(from: &Path, to: &Path, token: &[u8]) {
    let mut source = zip::ZipArchive::new(std::fs::File::open(from).expect("opened")).expect("a zip");
    let mut target = zip::ZipWriter::new(std::fs::File::create(to).expect("made"));
    for place in 0..source.len() {
        let mut file = source.by_index(place).expect("a file");
        let name = file.name().expect("a name").into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
        if name == "receipts.jsonl" {
            let mut lines = receipts(from);
            let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, token);
            for line in lines.iter_mut().filter(|line| line["kind"] == "timestamp") {
                line["proof"] = encoded.clone().into();
            }
            bytes = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        }
        target.start_file(name, zip::write::SimpleFileOptions::default()).expect("begun");
        std::io::Write::write_all(&mut target, &bytes).expect("written");
    }
    target.finish().expect("finished");
}
