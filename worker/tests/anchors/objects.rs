use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use chrono::TimeDelta;
use http::{Method, StatusCode};
use muneem::outbound::{
    anchor_objects::{Lock, ObjectsAnchor, Settings},
    clock::SystemClock,
    http::{Timeouts, client},
};
use muneem_jobs::outbound::{Anchor, Clock};

use super::skipped;

/// An S3 store of the test's own.
pub(crate) struct Store {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Store {
    /// Starts moto on a free port; none where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            skipped("moto_server (pip install 'moto[server]')");
            return None;
        };
        let told = child.stderr.take().expect("piped");
        let (heard, url) = mpsc::channel();
        // Reads to the end, so that the store never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("Running on ") {
                    let _ = heard.send(url.trim().to_owned());
                }
            }
        });
        let url = url.recv_timeout(Duration::from_secs(60)).expect("moto says where it listens");
        Some(Self { child, url })
    }

    async fn send(&self, method: Method, path: &str, header: Option<(&str, &str)>) -> reqwest::Response {
        let http = client(Timeouts::DEFAULT).expect("a client");
        // Moto asks for the form of a signature, and does not check it.
        let signed =
            "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let mut call = http.request(method, format!("{}/{path}", self.url)).header("authorization", signed);
        if let Some((name, value)) = header {
            call = call.header(name, value);
        }
        call.send().await.expect("an answer")
    }

    async fn call(&self, method: Method, path: &str, header: Option<(&str, &str)>) -> (StatusCode, String) {
        let answer = self.send(method, path, header).await;
        (answer.status(), answer.text().await.expect("text"))
    }

    pub(crate) async fn make_bucket(&self, name: &str, with_lock: bool) {
        let header = with_lock.then_some(("x-amz-bucket-object-lock-enabled", "true"));
        assert_eq!(self.call(Method::PUT, name, header).await.0, StatusCode::OK);
    }

    pub(crate) fn settings(&self, bucket: &str, lock: Lock) -> Settings {
        Settings {
            endpoint: Some(self.url.clone()),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            prefix: "muneem".to_owned(),
            access_key_id: "AKIATEST".to_owned(),
            secret_access_key: "hunter2".to_owned().into(),
            lock,
            retain: TimeDelta::days(400),
            every: Duration::ZERO,
            timeouts: Timeouts::DEFAULT,
        }
    }

    pub(crate) fn anchor(&self, bucket: &str, lock: Lock) -> ObjectsAnchor {
        ObjectsAnchor::new(self.settings(bucket, lock), Arc::new(SystemClock)).expect("usable")
    }
}

#[tokio::test]
async fn heads_are_put_once_held_and_found_again() {
    let Some(store) = Store::start() else { return };
    store.make_bucket("heads", true).await;
    let anchor = store.anchor("heads", Lock::Compliance);
    assert_eq!(anchor.latest().await.expect("asked"), None);
    let mut names = Vec::new();
    for (size, note) in [(9, "nine"), (10, "ten"), (2_000_001, "two million"), (1_999_999, "less")] {
        names.push(anchor.lay(size, note).await.unwrap_or_else(|error| panic!("{error} {:?}", error.source)));
        anchor.lay(size, note).await.expect("again is no error");
    }
    assert_eq!(anchor.latest().await.expect("asked").as_deref(), Some("two million"));
    for size in [2_000_003, 2_000_004, 2_000_900, 2_999_999] {
        anchor.lay(size, &size.to_string()).await.expect("laid");
        assert_eq!(anchor.latest().await.expect("asked"), Some(size.to_string()), "found from where it was last");
        let again = store.anchor("heads", Lock::Compliance);
        assert_eq!(again.latest().await.expect("asked"), Some(size.to_string()), "another process");
    }
    // What the store says of one of them: it is held, and cannot be deleted.
    let name = format!("heads/muneem/{}", String::from_utf8(names.remove(1)).expect("a name"));
    let held = store.send(Method::GET, &name, None).await;
    let header =
        |name: &str| held.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(header("x-amz-object-lock-mode"), "COMPLIANCE");
    let until =
        chrono::DateTime::parse_from_rfc3339(&header("x-amz-object-lock-retain-until-date")).expect("an instant");
    assert_eq!((until.to_utc() - SystemClock.now()).num_days(), 399, "400 days less a moment");
    let (_, versions) = store.call(Method::GET, "heads?versions", None).await;
    assert_eq!(versions.matches("<Version>").count(), 8, "put once each: {versions}");
    let mine = versions.split("<Version>").find(|version| version.contains("00000000000000000010-")).expect("listed");
    let version = mine.split_once("<VersionId>").and_then(|(_, rest)| rest.split_once('<')).expect("an id").0;
    let (status, _) = store.call(Method::DELETE, &format!("{name}?versionId={version}"), None).await;
    assert!(!status.is_success(), "a held head was deleted: {status}");
}

#[tokio::test]
async fn a_bucket_without_a_lock_is_refused_unless_the_operator_says_so() {
    let Some(store) = Store::start() else { return };
    store.make_bucket("open", false).await;
    for lock in [Lock::Compliance, Lock::Governance, Lock::Bucket] {
        let error = store.anchor("open", lock).lay(1, "note").await.expect_err("refused");
        assert!(error.to_string().contains("no object lock"), "{lock:?}: {error}");
    }
    assert_eq!(store.anchor("open", Lock::None).latest().await.expect("asked"), None, "nothing was laid there");
    store.anchor("open", Lock::None).lay(1, "note").await.expect("as the operator said");
    store.make_bucket("bare", true).await;
    let error = store.anchor("bare", Lock::Bucket).lay(1, "note").await.expect_err("refused");
    assert!(error.to_string().contains("default retention"), "{error}");
    let error = store.anchor("nowhere", Lock::Compliance).lay(1, "note").await.expect_err("no such bucket");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_said_without_its_key() {
    let free = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let settings = Settings {
        endpoint: Some(url),
        region: "ap-south-1".to_owned(),
        bucket: "heads".to_owned(),
        prefix: String::new(),
        access_key_id: "AKIATEST".to_owned(),
        secret_access_key: "hunter2".to_owned().into(),
        lock: Lock::Compliance,
        retain: TimeDelta::days(1),
        every: Duration::ZERO,
        timeouts: Timeouts { connect: Duration::from_secs(1), total: Duration::from_secs(2) },
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let anchor = ObjectsAnchor::new(settings, Arc::new(SystemClock)).expect("usable");
    let error = anchor.lay(1, "note").await.expect_err("nobody there");
    assert!(error.to_string().contains("could not be asked"), "{error}");
    assert!(anchor.latest().await.is_err());
}
