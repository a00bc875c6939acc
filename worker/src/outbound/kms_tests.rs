//! The key services' drivers against stand-ins on loopback that refuse what the services refuse: the shapes are those
//! of the public API references. AWS KMS is also run against moto, transit against OpenBao: `tests/kms.rs`.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::*};
use muneem_jobs::outbound::{
    KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, RootKey},
};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    chance::OsChance,
    kms_azure::{self, Algorithm, AzureKms, Identity},
    kms_call::{Fused, Succession},
    kms_gcp::{self, GcpKms, crc32c},
    kms_transit::{self, Token, Transit},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn context(key_id: u32) -> KeyContext {
    KeyContext { business_id: Uuid::from_u128(7), key_id }
}

fn key() -> KeyBytes {
    Zeroizing::new([0x5a; 32])
}

/// What a driver sent.
#[derive(Clone)]
struct Asked {
    path: String,
    query: String,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// An answer that is given once instead of the service's own.
enum Scripted {
    Says(u16, &'static str),
    Silence,
    Flood,
}

type Service = dyn Fn(&Asked) -> (u16, Value) + Send + Sync;

/// A stand-in on loopback.
struct StandIn {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<VecDeque<Scripted>>>,
}

impl StandIn {
    async fn new(service: Arc<Service>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let script: Arc<Mutex<VecDeque<Scripted>>> = Arc::default();
        let (log, scripted) = (Arc::clone(&asked), Arc::clone(&script));
        let answer = move |request: Request| {
            let (service, log, scripted) = (Arc::clone(&service), Arc::clone(&log), Arc::clone(&scripted));
            async move { answer(request, &*service, &log, &scripted).await }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { at, asked, script }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    fn next(&self, scripted: impl IntoIterator<Item = Scripted>) {
        self.script.lock().expect("not poisoned").extend(scripted);
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("not poisoned").len()
    }

    fn last(&self) -> Asked {
        self.asked.lock().expect("not poisoned").last().expect("was asked").clone()
    }
}

async fn answer(
    request: Request,
    service: &Service,
    log: &Mutex<Vec<Asked>>,
    scripted: &Mutex<VecDeque<Scripted>>,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    let asked = Asked {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    };
    log.lock().expect("not poisoned").push(asked.clone());
    let next = scripted.lock().expect("not poisoned").pop_front();
    let (status, text) = match next {
        None => {
            let (status, body) = service(&asked);
            (status, body.to_string())
        }
        Some(Scripted::Says(status, text)) => (status, text.to_owned()),
        Some(Scripted::Flood) => (200, "x".repeat(1 << 20)),
        Some(Scripted::Silence) => std::future::pending().await,
    };
    (StatusCode::from_u16(status).expect("a status"), Body::from(text)).into_response()
}

/// What a service remembers of what it wrapped: the ciphertext is a ticket.
#[derive(Default)]
struct Safe {
    tickets: Mutex<HashMap<String, (String, String)>>,
    count: AtomicU32,
}

impl Safe {
    fn put(&self, plain: &str, bound: &str) -> String {
        let ticket = format!("ticket {}", self.count.fetch_add(1, Ordering::SeqCst));
        self.tickets.lock().expect("not poisoned").insert(ticket.clone(), (plain.to_owned(), bound.to_owned()));
        ticket
    }

    fn get(&self, ticket: &str, bound: &str) -> Option<String> {
        let tickets = self.tickets.lock().expect("not poisoned");
        tickets.get(ticket).filter(|(_, known)| known == bound).map(|(plain, _)| plain.clone())
    }
}

/// What every driver must do, whoever it speaks to.
async fn check_driver(driver: &dyn KeyManager, stand_in: &StandIn, gone: Scripted, forbidden: Scripted) {
    let wrapped = driver.wrap(&context(1), &key()).await.expect("wrapped");
    assert_eq!(driver.unwrap(&context(1), &wrapped).await.expect("unwrapped"), key());
    driver.health().await.expect("it wraps and unwraps");

    assert_eq!(driver.unwrap(&context(2), &wrapped).await, Err(KmsError::NotOurs), "another key's context");
    let other = KeyContext { business_id: Uuid::from_u128(8), key_id: 1 };
    assert_eq!(driver.unwrap(&other, &wrapped).await, Err(KmsError::NotOurs), "another business");
    for foreign in [&b"\xff\xfe no text"[..], b"", b"{}", &[7; 60]] {
        assert_eq!(driver.unwrap(&context(1), foreign).await, Err(KmsError::NotOurs), "{foreign:?}");
    }

    // Busy: it is asked again, and the third answer counts.
    let before = stand_in.asked();
    stand_in.next([Scripted::Says(429, "{}"), Scripted::Says(503, "later")]);
    driver.wrap(&context(1), &key()).await.expect("wrapped at last");
    assert_eq!(stand_in.asked() - before, 3);
    stand_in.next([Scripted::Says(429, "{}"), Scripted::Says(429, "{}"), Scripted::Says(429, "{}")]);
    let throttled = driver.wrap(&context(1), &key()).await.expect_err("throttled");
    assert!(matches!(throttled, KmsError::Throttled(_)), "{throttled:?}");

    // A no is final: nothing is asked twice.
    let before = stand_in.asked();
    stand_in.next([forbidden]);
    let refused = driver.unwrap(&context(1), &wrapped).await.expect_err("refused");
    assert!(matches!(refused, KmsError::Refused(_)), "{refused:?}");
    stand_in.next([gone]);
    let gone = driver.unwrap(&context(1), &wrapped).await.expect_err("gone");
    assert!(matches!(gone, KmsError::KeyGone(_)), "{gone:?}");
    assert_eq!(stand_in.asked() - before, 2);

    // What is no answer of the service is none: a sign-in page of a network, half a JSON, a flood.
    for nonsense in ["<html>Sign in to the network</html>", "{\"data\":", "{}", "[]"] {
        stand_in.next([Scripted::Says(200, nonsense), Scripted::Says(200, nonsense), Scripted::Says(200, nonsense)]);
        let error = driver.unwrap(&context(1), &wrapped).await.expect_err(nonsense);
        assert!(matches!(error, KmsError::Unavailable(_)), "{nonsense}: {error:?}");
        assert!(!error.to_string().contains("Sign in"), "{error}");
    }
    stand_in.next([Scripted::Flood, Scripted::Flood, Scripted::Flood]);
    assert!(matches!(driver.unwrap(&context(1), &wrapped).await, Err(KmsError::Unavailable(_))));
    driver.unwrap(&context(1), &wrapped).await.expect("as before");
}

fn gcp_service() -> Arc<Service> {
    const KEY: &str = "/v1/projects/p/locations/asia-south1/keyRings/r/cryptoKeys/k";
    let safe = Safe::default();
    let refuse =
        |code: u16, status: &str| (code, json!({ "error": { "code": code, "status": status, "message": "no" } }));
    Arc::new(move |asked| {
        let body = asked.json();
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let bytes = |name: &str| BASE64_STANDARD.decode(field(name)).unwrap_or_default();
        let fits = |name: &str, sum: &str| field(sum) == crc32c(&bytes(name)).to_string();
        if !fits("additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c") {
            return refuse(400, "INVALID_ARGUMENT");
        }
        let bound = field("additionalAuthenticatedData");
        match asked.path.strip_prefix(KEY) {
            Some(":encrypt") if fits("plaintext", "plaintextCrc32c") && !bytes("plaintext").is_empty() => {
                let ticket = safe.put(&field("plaintext"), &bound);
                let answer = json!({
                    "name": format!("{}/cryptoKeyVersions/1", &KEY[4..]),
                    "ciphertext": BASE64_STANDARD.encode(&ticket),
                    "ciphertextCrc32c": crc32c(ticket.as_bytes()).to_string(),
                    "verifiedPlaintextCrc32c": true,
                    "protectionLevel": "HSM",
                });
                (200, answer)
            }
            Some(":decrypt") if fits("ciphertext", "ciphertextCrc32c") => {
                let ticket = String::from_utf8(bytes("ciphertext")).unwrap_or_default();
                match safe.get(&ticket, &bound) {
                    None => refuse(400, "INVALID_ARGUMENT"),
                    Some(plain) => {
                        let sum = crc32c(&BASE64_STANDARD.decode(&plain).unwrap_or_default()).to_string();
                        (200, json!({ "plaintext": plain, "plaintextCrc32c": sum, "usedPrimary": true }))
                    }
                }
            }
            Some(_) => refuse(400, "INVALID_ARGUMENT"),
            None => refuse(404, "NOT_FOUND"),
        }
    })
}

#[tokio::test]
async fn google_cloud_kms_is_asked_as_its_reference_says() {
    let stand_in = StandIn::new(gcp_service()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("account.json");
    // An account of an emulator: it has a key and asks for no token.
    let account = json!({
        "private_key": "none", "private_key_id": "none", "client_email": "none", "disable_oauth": true, "gcs_base_url": stand_in.url(),
    });
    std::fs::write(&file, account.to_string()).expect("a file");
    let settings = kms_gcp::Settings {
        key: "projects/p/locations/asia-south1/keyRings/r/cryptoKeys/k".to_owned(),
        endpoint: stand_in.url(),
        credentials_file: Some(file),
        patience: PATIENCE,
    };
    let driver = GcpKms::new(&settings, Arc::new(OsChance)).expect("a driver");
    let gone =
        Scripted::Says(400, r#"{"error":{"code":400,"status":"FAILED_PRECONDITION","message":"is not enabled"}}"#);
    let forbidden = Scripted::Says(403, r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"denied"}}"#);
    check_driver(&driver, &stand_in, gone, forbidden).await;
    assert_eq!(driver.describe(), "gcp:projects/p/locations/asia-south1/keyRings/r/cryptoKeys/k");

    let other = kms_gcp::Settings { key: "projects/p/locations/x/keyRings/r/cryptoKeys/other".to_owned(), ..settings };
    let other = GcpKms::new(&other, Arc::new(OsChance)).expect("a driver");
    assert!(matches!(other.wrap(&context(1), &key()).await, Err(KmsError::KeyGone(_))));
}

#[tokio::test]
async fn a_checksum_that_does_not_fit_is_no_key() {
    let stand_in = StandIn::new(Arc::new(|asked: &Asked| {
        let plain = BASE64_STANDARD.encode([1; 32]);
        match asked.path.ends_with(":encrypt") {
            true => (200, json!({ "ciphertext": "AAAA", "ciphertextCrc32c": "1", "verifiedPlaintextCrc32c": true })),
            false => (200, json!({ "plaintext": plain, "plaintextCrc32c": "1" })),
        }
    }))
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("account.json");
    let account = json!({
        "private_key": "none", "private_key_id": "none", "client_email": "none", "disable_oauth": true, "gcs_base_url": stand_in.url(),
    });
    std::fs::write(&file, account.to_string()).expect("a file");
    let settings = kms_gcp::Settings {
        key: "projects/p/locations/l/keyRings/r/cryptoKeys/k".to_owned(),
        endpoint: stand_in.url(),
        credentials_file: Some(file),
        patience: PATIENCE,
    };
    let driver = GcpKms::new(&settings, Arc::new(OsChance)).expect("a driver");
    assert!(matches!(driver.wrap(&context(1), &key()).await, Err(KmsError::Unavailable(_))));
    assert!(matches!(driver.unwrap(&context(1), b"x").await, Err(KmsError::Unavailable(_))));
}

/// Key Vault with one key, whose newest version the test turns.
fn azure_service(version: Arc<AtomicU32>) -> Arc<Service> {
    let safe = Safe::default();
    let refuse = |status: u16, code: &str| (status, json!({ "error": { "code": code, "message": "no" } }));
    Arc::new(move |asked| {
        if asked.path == "/directory/oauth2/v2.0/token" {
            let fields: HashMap<String, String> = reqwest::Url::parse(&format!("form:x?{}", asked.body))
                .map(|url| url.query_pairs().into_owned().collect())
                .unwrap_or_default();
            let right = asked.header("content-type") == "application/x-www-form-urlencoded"
                && fields.get("grant_type").is_some_and(|kind| kind == "client_credentials")
                && fields.get("client_secret").is_some_and(|secret| secret == "hunter2 & more")
                && fields.get("scope").is_some_and(|scope| scope == "https://vault.azure.net/.default");
            return if right {
                (200, json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": "door" }))
            } else {
                (401, json!({ "error": "invalid_client" }))
            };
        }
        if asked.header("authorization") != "Bearer door" {
            return refuse(401, "Unauthorized");
        }
        if asked.query != "api-version=7.4" {
            return refuse(400, "BadParameter");
        }
        let newest = version.load(Ordering::SeqCst);
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        let (used, verb) = match path.as_slice() {
            ["keys", "muneem", verb] => (newest.to_string(), *verb),
            ["keys", "muneem", used, verb] => ((*used).to_owned(), *verb),
            _ => return refuse(404, "KeyNotFound"),
        };
        let body = asked.json();
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let kid = format!("http://{}/keys/muneem/{used}", asked.header("host"));
        let value = BASE64_URL_SAFE_NO_PAD.decode(field("value")).unwrap_or_default();
        match (verb, field("alg").as_str()) {
            // RSA with 2048 bits takes 190 bytes at most.
            ("wrapkey", "RSA-OAEP-256") if (1..=190).contains(&value.len()) => {
                let ticket = safe.put(&field("value"), &used);
                (200, json!({ "kid": kid, "value": BASE64_URL_SAFE_NO_PAD.encode(ticket) }))
            }
            ("unwrapkey", "RSA-OAEP-256") => match safe.get(&String::from_utf8(value).unwrap_or_default(), &used) {
                Some(plain) => (200, json!({ "kid": kid, "value": plain })),
                None => refuse(400, "BadParameter"),
            },
            ("encrypt", "A256GCM") if !field("aad").is_empty() && !value.is_empty() => {
                let ticket = safe.put(&field("value"), &format!("{used} {}", field("aad")));
                let answer = json!({
                    "kid": kid, "value": BASE64_URL_SAFE_NO_PAD.encode(ticket), "iv": "aXY", "tag": "dGFn", "aad": field("aad"),
                });
                (200, answer)
            }
            ("decrypt", "A256GCM") if field("iv") == "aXY" && field("tag") == "dGFn" => {
                let bound = format!("{used} {}", field("aad"));
                match safe.get(&String::from_utf8(value).unwrap_or_default(), &bound) {
                    Some(plain) => (200, json!({ "kid": kid, "value": plain })),
                    None => refuse(400, "BadParameter"),
                }
            }
            _ => refuse(400, "BadParameter"),
        }
    })
}

fn azure(stand_in: &StandIn, algorithm: Algorithm) -> kms_azure::Settings {
    kms_azure::Settings {
        key_url: format!("{}/keys/muneem", stand_in.url()),
        algorithm,
        identity: Identity::App {
            tenant_id: "directory".to_owned(),
            client_id: "app".to_owned(),
            client_secret: "hunter2 & more".to_owned().into(),
        },
        login_endpoint: stand_in.url(),
        metadata_endpoint: stand_in.url(),
        resource: "https://vault.azure.net".to_owned(),
        patience: PATIENCE,
    }
}

#[tokio::test]
async fn azure_key_vault_is_asked_as_its_reference_says() {
    for algorithm in [Algorithm::RsaOaep256, Algorithm::A256Gcm] {
        let version = Arc::new(AtomicU32::new(1));
        let stand_in = StandIn::new(azure_service(Arc::clone(&version))).await;
        let driver = AzureKms::new(azure(&stand_in, algorithm), Arc::new(OsChance)).expect("a driver");
        let gone = Scripted::Says(
            403,
            r#"{"error":{"code":"Forbidden","message":"disabled","innererror":{"code":"KeyDisabled"}}}"#,
        );
        let forbidden = Scripted::Says(
            403,
            r#"{"error":{"code":"Forbidden","message":"no","innererror":{"code":"ForbiddenByPolicy"}}}"#,
        );
        driver.wrap(&context(1), &key()).await.expect("a token is fetched first");
        check_driver(&driver, &stand_in, gone, forbidden).await;
        let tokens = stand_in.asked.lock().expect("not poisoned").iter().filter(|a| a.path.ends_with("/token")).count();
        assert_eq!(tokens, 1, "one token serves for its life");

        // The key is rotated at the service: the old version still unwraps what it wrapped.
        let old = driver.wrap(&context(1), &key()).await.expect("wrapped");
        version.store(2, Ordering::SeqCst);
        assert_eq!(driver.unwrap(&context(1), &old).await.expect("by the old version"), key());
        assert!(stand_in.last().path.contains("/muneem/1/"));

        // A row cannot send us, and our token, elsewhere.
        let before = stand_in.asked();
        for elsewhere in ["https://evil.example/keys/muneem/1", "http://169.254.169.254/keys/muneem/1"] {
            let row = json!({ "kid": elsewhere, "value": "AAAA", "iv": "aXY", "tag": "dGFn" }).to_string();
            assert_eq!(driver.unwrap(&context(1), row.as_bytes()).await, Err(KmsError::NotOurs));
        }
        let sideways = format!("{}/keys/muneem/1/../../other/1", stand_in.url());
        let row = json!({ "kid": sideways, "value": "AAAA", "iv": "aXY", "tag": "dGFn" }).to_string();
        assert_eq!(driver.unwrap(&context(1), row.as_bytes()).await, Err(KmsError::NotOurs));
        assert_eq!(stand_in.asked(), before, "nobody was asked");
    }
}

#[tokio::test]
async fn a_token_that_azure_withdraws_is_replaced_and_a_wrong_secret_is_told_without_it() {
    let stand_in = StandIn::new(azure_service(Arc::new(AtomicU32::new(1)))).await;
    let driver = AzureKms::new(azure(&stand_in, Algorithm::RsaOaep256), Arc::new(OsChance)).expect("a driver");
    driver.wrap(&context(1), &key()).await.expect("wrapped");
    stand_in.next([Scripted::Says(401, "{}")]);
    driver.wrap(&context(1), &key()).await.expect_err("withdrawn");
    driver.wrap(&context(1), &key()).await.expect("with another one");

    let mut wrong = azure(&stand_in, Algorithm::RsaOaep256);
    wrong.identity = Identity::App {
        tenant_id: "directory".to_owned(),
        client_id: "app".to_owned(),
        client_secret: "wrong-one".to_owned().into(),
    };
    let driver = AzureKms::new(wrong, Arc::new(OsChance)).expect("a driver");
    let error = driver.wrap(&context(1), &key()).await.expect_err("refused");
    assert!(matches!(error, KmsError::Refused(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-one"), "{error:?}");
}

#[tokio::test]
async fn a_machine_of_azure_asks_its_metadata_service() {
    let safe = azure_service(Arc::new(AtomicU32::new(1)));
    let stand_in = StandIn::new(Arc::new(move |asked: &Asked| {
        if asked.path != "/metadata/identity/oauth2/token" {
            return safe(asked);
        }
        let wanted = "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
        match asked.header("metadata") == "true" && asked.query == wanted {
            true => (200, json!({ "access_token": "door", "expires_in": "86399", "token_type": "Bearer" })),
            false => (400, json!({ "error": "invalid_request" })),
        }
    }))
    .await;
    let settings = kms_azure::Settings { identity: Identity::Managed, ..azure(&stand_in, Algorithm::RsaOaep256) };
    AzureKms::new(settings, Arc::new(OsChance)).expect("a driver").health().await.expect("it answers");
}

fn transit_service(token: Arc<Mutex<String>>) -> Arc<Service> {
    let safe = Safe::default();
    let refuse = |status: u16, why: &str| (status, json!({ "errors": [why] }));
    Arc::new(move |asked| {
        if asked.header("x-vault-token") != *token.lock().expect("not poisoned") {
            return refuse(403, "permission denied");
        }
        if asked.header("x-vault-namespace") != "shops" {
            return refuse(404, "no handler for route");
        }
        let body = asked.json();
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        match asked.path.as_str() {
            "/v1/keys/transit/encrypt/muneem" if BASE64_STANDARD.decode(field("plaintext")).is_ok() => {
                let ticket = safe.put(&field("plaintext"), &field("associated_data"));
                (200, json!({ "data": { "ciphertext": format!("vault:v1:{ticket}"), "key_version": 1 } }))
            }
            "/v1/keys/transit/decrypt/muneem" => {
                let ticket = field("ciphertext");
                let plain = ticket.strip_prefix("vault:v1:").and_then(|t| safe.get(t, &field("associated_data")));
                match plain {
                    Some(plain) => (200, json!({ "data": { "plaintext": plain } })),
                    None => refuse(400, "cipher: message authentication failed"),
                }
            }
            _ => refuse(400, "encryption key not found"),
        }
    })
}

#[tokio::test]
async fn transit_is_asked_as_its_reference_says_with_the_token_of_the_moment() {
    let token = Arc::new(Mutex::new("first".to_owned()));
    let stand_in = StandIn::new(transit_service(Arc::clone(&token))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").expect("a file");
    let settings = kms_transit::Settings {
        address: format!("{}/", stand_in.url()),
        mount: "keys/transit/".to_owned(),
        key: "muneem".to_owned(),
        namespace: Some("shops".to_owned()),
        token: Token::File(file.clone()),
        patience: PATIENCE,
    };
    let driver = Transit::new(settings, Arc::new(OsChance)).expect("a driver");
    let gone = Scripted::Says(400, r#"{"errors":["encryption key not found"]}"#);
    let forbidden = Scripted::Says(403, r#"{"errors":["permission denied"]}"#);
    check_driver(&driver, &stand_in, gone, forbidden).await;

    *token.lock().expect("not poisoned") = "second".to_owned();
    let error = driver.health().await.expect_err("the old token");
    assert!(matches!(error, KmsError::Refused(_)) && !error.to_string().contains("first"), "{error}");
    std::fs::write(&file, "second\n").expect("the agent wrote it");
    driver.health().await.expect("the new token, without a restart");
    std::fs::remove_file(&file).expect("removed");
    assert!(driver.health().await.expect_err("no token").to_string().contains("token_file"));
    assert!(driver.describe().starts_with("transit:http://127.0.0.1"));
}

#[tokio::test]
async fn a_service_that_is_silent_is_left_in_peace_and_holds_nobody_up() {
    let token = Arc::new(Mutex::new("t".to_owned()));
    let stand_in = StandIn::new(transit_service(token)).await;
    let settings = kms_transit::Settings {
        address: stand_in.url(),
        mount: "keys/transit".to_owned(),
        key: "muneem".to_owned(),
        namespace: Some("shops".to_owned()),
        token: Token::Fixed("t".to_owned().into()),
        patience: Duration::from_millis(300),
    };
    let driver = Fused::new(Arc::new(Transit::new(settings, Arc::new(OsChance)).expect("a driver")));
    stand_in.next([Scripted::Silence, Scripted::Silence, Scripted::Silence]);
    let begun = Instant::now();
    let error = driver.wrap(&context(1), &key()).await.expect_err("silence");
    assert!(matches!(error, KmsError::Unavailable(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it gave up in time");
    let asked = stand_in.asked();
    for _ in 0..100 {
        assert_eq!(driver.unwrap(&context(1), b"x").await.expect_err("at once"), error);
    }
    assert_eq!(stand_in.asked(), asked, "while it rests nobody asks");
    // An operator's question goes through, and what it learns counts for all.
    stand_in.script.lock().expect("not poisoned").clear();
    driver.health().await.expect("it is back");
    driver.wrap(&context(1), &key()).await.expect("wrapped");
    // A no is an answer: it puts nobody to rest.
    assert_eq!(driver.unwrap(&context(1), b"vault:v1:x").await, Err(KmsError::NotOurs));
    driver.wrap(&context(1), &key()).await.expect("wrapped");
}

#[tokio::test]
async fn while_one_root_key_follows_another_both_open_and_one_wraps() {
    let root = |byte: u8| -> Arc<dyn KeyManager> { Arc::new(RootKey::new(&[byte; 32].into(), Arc::new(OsChance))) };
    let (old, new, stranger) = (root(1), root(2), root(3));
    let both = Succession::new(Arc::clone(&new), Arc::clone(&old));
    let earlier = old.wrap(&context(1), &key()).await.expect("wrapped");
    assert_eq!(both.unwrap(&context(1), &earlier).await.expect("by the old one"), key());
    let later = both.wrap(&context(1), &key()).await.expect("wrapped");
    assert_eq!(new.unwrap(&context(1), &later).await.expect("by the new one"), key());
    assert_eq!(old.unwrap(&context(1), &later).await, Err(KmsError::NotOurs));
    assert_eq!(both.describe(), new.describe());
    let foreign = stranger.wrap(&context(1), &key()).await.expect("wrapped");
    assert_eq!(both.unwrap(&context(1), &foreign).await, Err(KmsError::NotOurs));
}
