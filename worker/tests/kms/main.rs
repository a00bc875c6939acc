//! The drivers of key services against programs that are not ours: moto's AWS KMS and IAM, and a real OpenBao; and the
//! vault, the commands and `doctor` on top of them.

mod outside;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use muneem::outbound::{
    chance::OsChance,
    clock::MovedClock,
    kms_aws::{AwsKms, Settings},
    kms_call::{Fused, Succession},
    kms_file,
    kms_transit::{self, Token, Transit},
};
use muneem_jobs::{
    outbound::{
        Chance, Clock, KeyManager, KmsError,
        kms::{KeyBytes, KeyContext},
    },
    people::BusinessId,
    queue::{Disposition, JobError},
    vault::{self, Cell, Class, Vault},
};
use muneem_postgres::testing::TestDb;
use outside::{Bao, Moto};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(20);
const SHARMA: BusinessId = BusinessId(Uuid::from_u128(1));
const PHONE: &[u8] = b"+919876543210";

fn context(key_id: u32) -> KeyContext {
    KeyContext { business_id: SHARMA.0, key_id }
}

fn key() -> KeyBytes {
    Zeroizing::new([0x5a; 32])
}

fn settings(url: &str, key_id: &str, access_key: (&str, &str)) -> Settings {
    Settings {
        key_id: key_id.to_owned(),
        region: "ap-south-1".to_owned(),
        endpoint: Some(url.to_owned()),
        access_key: Some((access_key.0.to_owned(), access_key.1.to_owned().into())),
        patience: PATIENCE,
    }
}

fn aws(settings: &Settings) -> Arc<dyn KeyManager> {
    Arc::new(AwsKms::new(settings, Arc::new(OsChance)).expect("a driver"))
}

#[tokio::test]
async fn aws_kms_wraps_for_one_context_by_one_key() {
    let Some(moto) = Moto::start() else { return };
    let (ours, theirs) = (moto.key().await, moto.key().await);
    let driver = aws(&settings(&moto.url, &ours, ("anybody", "anything")));
    let wrapped = driver.wrap(&context(1), &key()).await.expect("wrapped");
    assert!(!wrapped.windows(8).any(|window| window == &key()[..8]), "in clear");
    assert_eq!(driver.unwrap(&context(1), &wrapped).await.expect("unwrapped"), key());
    driver.health().await.expect("it wraps and unwraps");
    assert_eq!(driver.describe(), format!("aws:{ours}"));

    assert_eq!(driver.unwrap(&context(2), &wrapped).await, Err(KmsError::NotOurs), "another key's context");
    let mut bent = wrapped.clone();
    *bent.last_mut().expect("bytes") ^= 1;
    assert_eq!(driver.unwrap(&context(1), &bent).await, Err(KmsError::NotOurs), "a bit flipped");
    let other = aws(&settings(&moto.url, &theirs, ("anybody", "anything")));
    // AWS says IncorrectKeyException, moto AccessDeniedException; neither gives the key.
    let refused = other.unwrap(&context(1), &wrapped).await.expect_err("another root key");
    assert!(matches!(refused, KmsError::NotOurs | KmsError::Refused(_)), "{refused:?}");

    // By an alias, too.
    moto.kms("CreateAlias", json!({ "AliasName": "alias/muneem", "TargetKeyId": ours })).await;
    let by_alias = aws(&settings(&moto.url, "alias/muneem", ("anybody", "anything")));
    by_alias.health().await.expect("an alias is as good");

    let nowhere = aws(&settings(&moto.url, &ours.replace("key/", "key/0"), ("anybody", "anything")));
    let gone = nowhere.wrap(&context(1), &key()).await.expect_err("no such key");
    assert!(matches!(gone, KmsError::KeyGone(_)), "{gone:?}");
}

#[tokio::test]
async fn aws_kms_takes_our_signature_and_its_policies_count() {
    let Some(moto) = Moto::start() else { return };
    let root = moto.key().await;
    let worker = moto.user("worker", &["kms:Encrypt", "kms:Decrypt"]).await;
    let writer = moto.user("writer", &["kms:Encrypt"]).await;
    moto.guard().await;
    let driver = |id: &str, secret: &str| aws(&settings(&moto.url, &root, (id, secret)));

    let right = driver(&worker.0, &worker.1);
    let wrapped = right.wrap(&context(1), &key()).await.expect("the signature is right");
    assert_eq!(right.unwrap(&context(1), &wrapped).await.expect("unwrapped"), key());

    for (what, wrong) in [
        ("a secret that is wrong", driver(&worker.0, &writer.1)),
        ("an id that is not there", driver("AKIANOBODY", &worker.1)),
        ("a policy without Decrypt", driver(&writer.0, &writer.1)),
    ] {
        let refused = wrong.unwrap(&context(1), &wrapped).await.expect_err(what);
        assert!(matches!(refused, KmsError::Refused(_)), "{what}: {refused:?}");
        let shown = format!("{refused:?}");
        assert!(!shown.contains(&worker.1) && !shown.contains(&writer.1), "{shown}");
        assert!(wrong.health().await.is_err(), "{what}");
    }
    driver(&writer.0, &writer.1).wrap(&context(1), &key()).await.expect("Encrypt alone is allowed");
}

/// How the front before the service behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Passes,
    Throttles(u32),
    Silent,
    Says(u16, &'static str),
}

/// A front before moto that makes trouble.
struct Front {
    url: String,
    mood: Arc<Mutex<Mood>>,
}

impl Front {
    async fn before(service: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mood = Arc::new(Mutex::new(Mood::Passes));
        let http = muneem::outbound::http::client(muneem::outbound::http::Timeouts::DEFAULT).expect("a client");
        let (held, service) = (Arc::clone(&mood), service.to_owned());
        let pass = move |request: Request| {
            let (mood, http, service) = (Arc::clone(&held), http.clone(), service.clone());
            async move { forward(request, &mood, &http, &service).await }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass)).await });
        Self { url, mood }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("not poisoned") = mood;
    }
}

async fn forward(request: Request, mood: &Mutex<Mood>, http: &reqwest::Client, service: &str) -> Response {
    let now = {
        let mut mood = mood.lock().expect("not poisoned");
        let now = *mood;
        if let Mood::Throttles(times) = now {
            *mood = if times > 1 { Mood::Throttles(times - 1) } else { Mood::Passes };
        }
        now
    };
    match now {
        Mood::Throttles(_) => {
            let body =
                r#"{"__type":"ThrottlingException","message":"You have exceeded the rate at which you may call KMS."}"#;
            (StatusCode::BAD_REQUEST, body).into_response()
        }
        Mood::Silent => std::future::pending().await,
        Mood::Says(status, body) => (StatusCode::from_u16(status).expect("a status"), body).into_response(),
        Mood::Passes => {
            let (parts, body) = request.into_parts();
            let mut headers = parts.headers;
            headers.remove("host");
            let body = to_bytes(body, 1 << 20).await.expect("a body");
            let answer = http.post(service).headers(headers).body(body).send().await.expect("moto answers");
            let status = answer.status();
            (status, Body::from(answer.bytes().await.expect("a body"))).into_response()
        }
    }
}

struct House {
    db: TestDb,
    clock: MovedClock,
    root: Settings,
}

impl House {
    /// A process of its own, which remembers nothing.
    fn process(&self) -> Vault {
        let service = Fused::new(aws(&self.root));
        self.over(Arc::new(service))
    }

    fn over(&self, service: Arc<dyn KeyManager>) -> Vault {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        Vault::new(self.db.app_pool(), service, clock, Arc::new(OsChance), vault::Settings::DEFAULT)
    }

    async fn seal(&self, vault: &Vault, row: &str) -> Result<Vec<u8>, vault::Error> {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        vault.seal(&mut db, Class::Contact, &cell(row), PHONE).await
    }

    async fn open(&self, vault: &Vault, sealed: &[u8]) -> Result<Vec<u8>, vault::Error> {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        vault.open(&mut db, &cell("7"), sealed).await.map(|plain| plain.to_vec())
    }
}

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "muneem.people_staff", column: "phone_sealed", row }
}

#[tokio::test]
async fn atk_074_aws_kms_throttled_slow_denied_and_down_at_boot() {
    let Some(moto) = Moto::start() else { return };
    let front = Front::before(&moto.url).await;
    let root = Settings { patience: Duration::from_secs(2), ..settings(&front.url, &moto.key().await, ("a", "b")) };
    let house = House { db: TestDb::new(&muneem_jobs::MIGRATOR).await, clock: MovedClock::default(), root };

    front.set(Mood::Throttles(2));
    let vault = house.process();
    let sealed = house.seal(&vault, "7").await.expect("sealed on the third attempt");
    assert!(!sealed.windows(PHONE.len()).any(|window| window == PHONE));

    let denied = Mood::Says(
        400,
        r#"{"__type":"AccessDeniedException","message":"User is not authorized to perform: kms:Decrypt"}"#,
    );
    let disabled = Mood::Says(400, r#"{"__type":"com.amazonaws.kms#DisabledException","message":"is disabled."}"#);
    let troubles = [
        ("slow", Mood::Silent),
        ("throttled", Mood::Throttles(u32::MAX)),
        ("denied", denied),
        ("disabled", disabled),
        ("broken", Mood::Says(500, "<html>oops</html>")),
    ];
    for (at, (what, trouble)) in (0_i32..).zip(troubles) {
        let start = TimeDelta::days(1) * at;
        house.clock.set_offset(start);
        front.set(Mood::Passes);
        let process = house.process();
        assert_eq!(house.open(&process, &sealed).await.expect("opened"), PHONE);
        front.set(trouble);

        // At boot there is no memory to live on: sealed, and nothing in clear instead.
        let fresh = house.process();
        let begun = Instant::now();
        for outcome in [house.open(&fresh, &sealed).await.map(drop), house.seal(&fresh, "8").await.map(drop)] {
            let error = outcome.expect_err(what);
            assert!(matches!(error, vault::Error::Sealed { .. }), "{what}: {error:?}");
            assert!(matches!(error.disposition(), Disposition::Snooze(_)), "{what}: a job waits");
            assert!(!format!("{error:?}").contains("9876543210"));
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}: {:?}", begun.elapsed());

        // Who was running goes on with what it holds: for hours, and quickly.
        house.clock.set_offset(start + TimeDelta::hours(3) + TimeDelta::minutes(59));
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(house.open(&process, &sealed).await.expect(what), PHONE);
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}: {:?}", begun.elapsed());
        house.clock.set_offset(start + TimeDelta::hours(4) + TimeDelta::minutes(1));
        let error = house.open(&process, &sealed).await.expect_err(what);
        assert!(matches!(error, vault::Error::Sealed { .. }), "{what}: {error:?}");

        front.set(Mood::Passes);
        process.health().await.expect("it is back");
        assert_eq!(house.open(&process, &sealed).await.expect("opened"), PHONE, "{what}");
        let process = house.process();
        assert_eq!(house.open(&process, &sealed).await.expect("a new process too"), PHONE, "{what}");
    }
}

#[tokio::test]
async fn keys_go_from_a_file_to_aws_and_every_command_says_so() {
    let Some(moto) = Moto::start() else { return };
    let arn = moto.key().await;
    let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
    muneem_jobs::schema::migrate(&mut db.pool().acquire().await.expect("a connection")).await.expect("kinds are known");
    let (home, moto_url) = (tempfile::tempdir().expect("a folder"), moto.url.clone());
    let file = home.path().join("root.key");
    let url = db.app_url();
    let base = [("DATABASE_URL", url.as_str()), ("MUNEEM__VAULT__KEY_FILE", file.to_str().expect("a path"))];
    let in_aws = [
        ("MUNEEM__VAULT__KMS", "aws"),
        ("MUNEEM__VAULT__AWS__KEY_ID", arn.as_str()),
        ("MUNEEM__VAULT__AWS__ENDPOINT", moto_url.as_str()),
        ("AWS_ACCESS_KEY_ID", "anybody"),
        ("AWS_SECRET_ACCESS_KEY", "anything"),
    ];
    let moving = [base.as_slice(), &in_aws, &[("MUNEEM__VAULT__PREVIOUS_KMS", "file")]].concat();
    let moved = [base.as_slice(), &in_aws].concat();

    let made = muneem(home.path(), &base, &["keys", "init", "--json"]);
    assert!(made.ok && file.exists(), "{}", made.said);
    let chance: Arc<dyn Chance> = Arc::new(OsChance);
    let root = kms_file::open(&file, Arc::clone(&chance)).expect("readable").expect("there");
    let house = House { db, clock: MovedClock::default(), root: settings(&moto.url, &arn, ("a", "b")) };
    let old: Arc<dyn KeyManager> = Arc::new(root);
    let sealed = house.seal(&house.over(Arc::clone(&old)), "7").await.expect("sealed under the file");

    let told = muneem(home.path(), &moved, &["keys", "status"]);
    assert!(told.said.contains("1 keys are still wrapped by file:"), "{}", told.said);
    let told = muneem(home.path(), &moved, &["keys", "rewrap"]);
    assert!(!told.ok && told.said.contains("open under neither root key"), "{}", told.said);

    let told = muneem(home.path(), &moving, &["keys", "rewrap", "--json"]);
    let outcome: Value = serde_json::from_str(&told.said).unwrap_or_else(|_| panic!("{}", told.said));
    assert_eq!((told.ok, &outcome["done"], &outcome["unopened"]), (true, &json!(1), &json!([])), "{outcome}");
    let told = muneem(home.path(), &moving, &["keys", "rewrap", "--json"]);
    assert!(told.ok && told.said.contains("\"done\": 0") || told.said.contains("\"done\":0"), "{}", told.said);
    let told = muneem(home.path(), &moved, &["keys", "status"]);
    assert!(told.ok && !told.said.contains("still wrapped"), "{}", told.said);

    let now = house.process();
    assert_eq!(house.open(&now, &sealed).await.expect("by AWS alone"), PHONE);
    let error = house.open(&house.over(Arc::clone(&old)), &sealed).await.expect_err("by the file alone");
    assert!(matches!(error, vault::Error::Sealed { source: KmsError::NotOurs, .. }), "{error:?}");
    let both: Arc<dyn KeyManager> = Arc::new(Succession::new(old, aws(&house.root)));
    assert_eq!(house.open(&house.over(both), &sealed).await.expect("and back, if need be"), PHONE);

    let verbs: Vec<(String, String)> = sqlx::query_as(
        "select convert_from(body, 'UTF8')::jsonb ->> 'verb', convert_from(body, 'UTF8')::jsonb #>> '{actor,kind}'
         from muneem.evidence_events
         order by xid, event_id",
    )
    .fetch_all(&house.db.pool())
    .await
    .expect("the owner reads");
    let expected = [
        ("vault.root_made", "operator"),
        ("vault.key_made", "system"),
        ("vault.key_made", "system"),
        ("vault.key_rewrapped", "operator"),
    ];
    let seen: Vec<_> = verbs.iter().map(|(verb, actor)| (verb.as_str(), actor.as_str())).collect();
    assert_eq!(seen, expected);

    let told = muneem(home.path(), &moved, &["doctor"]);
    assert!(told.said.contains(&format!("root key aws:{arn} wraps and unwraps")), "{}", told.said);
    let told = muneem(home.path(), &moved, &["keys", "init"]);
    assert!(told.ok && told.said.contains("there is nothing to make"), "{}", told.said);
    drop(moto);
    let told = muneem(home.path(), &moved, &["doctor"]);
    assert!(!told.ok && told.said.contains("the key service does not answer"), "{}", told.said);
    let told = muneem(home.path(), &moved, &["keys", "init"]);
    assert!(!told.ok, "{}", told.said);
    let told = muneem(home.path(), &moved, &["config", "check"]);
    assert!(told.ok && !told.said.contains("anything"), "{}", told.said);
}

/// `muneem serve`, whose log is read all along; ends with the test.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(home: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = command(home, environment, &["serve"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    let _ = send.send(address.trim().to_owned());
                }
            }
        });
        let address = receive.recv_timeout(Duration::from_secs(60)).expect("it says where it listens");
        Self { child, address }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn atk_074_a_process_starts_without_its_key_service_and_the_queue_drains_when_it_is_back() {
    let Some(moto) = Moto::start() else { return };
    let arn = moto.key().await;
    let front = Front::before(&moto.url).await;
    front.set(Mood::Says(503, "<html>maintenance</html>"));
    let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
    let mut owner = db.pool().acquire().await.expect("a connection");
    muneem_jobs::schema::migrate(&mut owner).await.expect("kinds are known");
    assert!(muneem_jobs::law::set_sandbox(&mut owner, true).await.expect("made a sandbox's"));
    let home = tempfile::tempdir().expect("a folder");
    let url = db.app_url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("MUNEEM__SERVER__LISTEN", "127.0.0.1:0"),
        ("MUNEEM__SANDBOX__ENABLED", "true"),
        ("MUNEEM__VAULT__KMS", "aws"),
        ("MUNEEM__VAULT__KMS_TIMEOUT_SECS", "2"),
        ("MUNEEM__VAULT__AWS__KEY_ID", arn.as_str()),
        ("MUNEEM__VAULT__AWS__ENDPOINT", front.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "anybody"),
        ("AWS_SECRET_ACCESS_KEY", "anything"),
    ];
    let told = muneem(home.path(), &environment, &["people", "business", "add", "sharma", "Sharma Mobiles"]);
    assert!(told.ok, "{}", told.said);
    let serving = Serving::start(home.path(), &environment);

    let job: i64 = sqlx::query_scalar("select muneem.enqueue('invoice.issue', $1, 'sharma')")
        .bind(json!({ "invoice": invoice() }))
        .fetch_one(&db.pool())
        .await
        .expect("enqueued");
    let cause = async || -> Option<String> {
        sqlx::query_scalar("select last_cause from muneem.queue_jobs where job_id = $1")
            .bind(job)
            .fetch_optional(&db.pool())
            .await
            .expect("asked")
            .flatten()
    };
    until("the job waits for the vault", async || cause().await.as_deref() == Some("vault.sealed")).await;
    let http = muneem::outbound::http::client(muneem::outbound::http::Timeouts::DEFAULT).expect("a client");
    let live = http.get(format!("{}/health/live", serving.address)).send().await.expect("answered");
    assert_eq!(live.status(), 200, "the process lives on");
    let stored: i64 = sqlx::query_scalar(
        "select (select count(*) from muneem.queue_dead) + (select count(*) from muneem.invoice_invoices)
             + (select count(*) from muneem.vault_keys)",
    )
    .fetch_one(&db.pool())
    .await
    .expect("counted");
    assert_eq!(stored, 0, "nothing is given up, and nothing is kept without a key");

    front.set(Mood::Passes);
    let moved = http.post(format!("{}/sandbox/clock", serving.address)).json(&json!({ "advance_secs": 600 }));
    assert!(moved.send().await.expect("answered").status().is_success());
    until("the invoice is there", async || {
        let there: i64 = sqlx::query_scalar("select count(*) from muneem.invoice_invoices")
            .fetch_one(&db.pool())
            .await
            .expect("counted");
        there == 1
    })
    .await;
}

fn invoice() -> Value {
    json!({
        "kind": "tax_invoice",
        "number": "SM/26-27/00042",
        "issued_on": "2026-04-02",
        "supplier": {
            "legal_name": "Sharma Mobiles Private Limited",
            "gstin": "27ZZZPZ0000Z1ZA",
            "address": { "lines": ["14 Laxmi Road"], "city": "Pune", "pin": "411030", "state": "27" }
        },
        "buyer": {
            "name": "Asha Verma",
            "address": { "lines": ["Flat 3"], "city": "Pune", "pin": "411038", "state": "27" }
        },
        "lines": [{
            "description": "Nokia G42 5G, purple", "hsn": "8517", "quantity": "1", "unit": "NOS",
            "unit_price": "12711.016949", "gst_rate": "18"
        }],
        "total": "14999.00"
    })
}

struct Told {
    ok: bool,
    said: String,
}

fn muneem(home: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Told {
    let output = command(home, environment, arguments).output().expect("the binary starts");
    let said = [output.stdout, output.stderr].concat();
    Told { ok: output.status.success(), said: String::from_utf8(said).expect("UTF-8") }
}

fn command(home: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muneem"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .envs(environment.iter().copied())
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

#[tokio::test]
async fn openbao_wraps_for_one_context_and_its_policies_count() {
    let Some(bao) = Bao::start().await else { return };
    bao.call("sys/mounts/keys", json!({ "type": "transit" })).await;
    bao.call("keys/keys/muneem", json!({ "type": "aes256-gcm96" })).await;
    let policy = r#"
        path "keys/encrypt/muneem" { capabilities = ["update"] }
        path "keys/decrypt/muneem" { capabilities = ["update"] }"#;
    let worker = bao.token("worker", policy).await;
    let writer = bao.token("writer", r#"path "keys/encrypt/muneem" { capabilities = ["update"] }"#).await;
    let driver = |token: &str, name: &str| {
        let settings = kms_transit::Settings {
            address: bao.url.clone(),
            mount: "keys".to_owned(),
            key: name.to_owned(),
            namespace: None,
            token: Token::Fixed(token.to_owned().into()),
            patience: PATIENCE,
        };
        Transit::new(settings, Arc::new(OsChance)).expect("a driver")
    };
    let right = driver(&worker, "muneem");
    let wrapped = right.wrap(&context(1), &key()).await.expect("wrapped");
    assert!(wrapped.starts_with(b"vault:v1:"));
    assert_eq!(right.unwrap(&context(1), &wrapped).await.expect("unwrapped"), key());
    right.health().await.expect("it wraps and unwraps");
    assert_eq!(right.unwrap(&context(2), &wrapped).await, Err(KmsError::NotOurs), "another key's context");
    let other = KeyContext { business_id: Uuid::from_u128(9), key_id: 1 };
    assert_eq!(right.unwrap(&other, &wrapped).await, Err(KmsError::NotOurs), "another business");
    for foreign in [&b"vault:v1:AAAA"[..], b"vault:v9:AAAA", b"no ciphertext", b""] {
        assert_eq!(right.unwrap(&context(1), foreign).await, Err(KmsError::NotOurs), "{foreign:?}");
    }

    bao.call("keys/keys/muneem/rotate", json!({})).await;
    assert_eq!(right.unwrap(&context(1), &wrapped).await.expect("by the old version"), key());
    assert!(right.wrap(&context(1), &key()).await.expect("wrapped").starts_with(b"vault:v2:"));

    let denied = driver(&writer, "muneem").unwrap(&context(1), &wrapped).await.expect_err("no right to decrypt");
    assert!(matches!(denied, KmsError::Refused(_)), "{denied:?}");
    let denied = driver("none", "muneem").health().await.expect_err("no token");
    assert!(matches!(denied, KmsError::Refused(_)), "{denied:?}");
    let gone = driver("root", "nothing").unwrap(&context(1), &wrapped).await.expect_err("no such key");
    assert!(matches!(gone, KmsError::KeyGone(_)), "{gone:?}");

    bao.call("sys/seal", json!({})).await;
    let sealed = right.unwrap(&context(1), &wrapped).await.expect_err("sealed");
    assert!(matches!(sealed, KmsError::Unavailable(_)), "{sealed:?}");
}
