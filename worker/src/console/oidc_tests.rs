//! A provider of our own that tells lies, before the console in process.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Form, Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::*};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use muneem_jobs::{
    outbound::{Chance, Clock},
    people::{
        Authority, Decision,
        oidc::{self, NewProvider},
        signin::{self, Level, NewSession, Session},
    },
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use openidconnect::{
    JsonWebKeyId, PrivateSigningKey,
    core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm},
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use tower::ServiceExt;
use uuid::Uuid;

use super::{
    Console,
    guard::{DEVICE_COOKIE, SESSION_COOKIE},
    oidc::{FLOW_COOKIE, Room, buttons},
    oidc_routes,
};
use crate::outbound::{
    chance::OsChance,
    clock::{MovedClock, SystemClock},
    oidc::Providers,
};

const ORIGIN: &str = "https://console.example.in";
const ASHA: Uuid = Uuid::from_u128(1);
const RAVI: Uuid = Uuid::from_u128(2);
const CLIENT_SECRET: &str = "our & secret";
/// A public key of somebody else's, as text: what HS256 forgers use as a secret.
const RSA_MODULUS: &str = "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw";

/// A key that signs tokens.
struct Key {
    kid: String,
    private: CoreEdDsaPrivateSigningKey,
}

impl Key {
    fn new(kid: &str) -> Self {
        let mut seed = [0; 32];
        OsChance.fill(&mut seed);
        // PKCS #8 of an Ed25519 key (RFC 8410 section 7).
        let der = [hex::decode("302e020100300506032b657004220420").expect("hex"), seed.to_vec()].concat();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der));
        let id = Some(JsonWebKeyId::new(kid.to_owned()));
        let private = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, id).expect("a key");
        Self { kid: kid.to_owned(), private }
    }

    fn public(&self) -> Value {
        serde_json::to_value(self.private.as_verification_key()).expect("JSON")
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" }), claims)
    }

    fn token_with(&self, head: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = self.private.sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn shared_secret_token(kid: &str, secret: &[u8], claims: &Value) -> String {
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "kid": kid })), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// What the provider does next.
#[derive(Default)]
struct Stage {
    keys: Vec<Value>,
    /// Over what it truly publishes.
    metadata: Value,
    token: Value,
    token_status: u16,
    is_down: bool,
    keys_read: usize,
    /// What the token endpoint was sent.
    redeemed: Vec<(HashMap<String, String>, String)>,
}

struct Hostile {
    issuer: String,
    stage: Arc<Mutex<Stage>>,
}

impl Hostile {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("an address");
        let stage: Arc<Mutex<Stage>> = Arc::new(Mutex::new(Stage { token_status: 200, ..Stage::default() }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move |stage| metadata(at, stage)))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&stage));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { issuer: format!("http://{at}"), stage }
    }

    fn set(&self, change: impl FnOnce(&mut Stage)) {
        change(&mut self.stage.lock().expect("not poisoned"));
    }
}

async fn metadata(at: SocketAddr, State(stage): State<Arc<Mutex<Stage>>>) -> Response {
    let stage = stage.lock().expect("not poisoned");
    if stage.is_down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let mut published = json!({
        "issuer": format!("http://{at}"),
        "authorization_endpoint": format!("http://{at}/authorize?tenant=1"),
        "token_endpoint": format!("http://{at}/token"),
        "jwks_uri": format!("http://{at}/keys"),
        "id_token_signing_alg_values_supported": ["EdDSA", "RS256", "HS256", "none"],
    });
    for (name, value) in stage.metadata.as_object().into_iter().flatten() {
        published[name] = value.clone();
    }
    Json(published).into_response()
}

async fn keys(State(stage): State<Arc<Mutex<Stage>>>) -> Json<Value> {
    let mut stage = stage.lock().expect("not poisoned");
    stage.keys_read += 1;
    Json(json!({ "keys": stage.keys }))
}

async fn token(
    State(stage): State<Arc<Mutex<Stage>>>,
    headers: HeaderMap,
    Form(fields): Form<HashMap<String, String>>,
) -> Response {
    let mut stage = stage.lock().expect("not poisoned");
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    stage.redeemed.push((fields, authorization.to_owned()));
    let status = StatusCode::from_u16(stage.token_status).expect("a status");
    (status, Json(stage.token.clone())).into_response()
}

struct House {
    db: TestDb,
    console: Arc<Console>,
    clock: MovedClock,
    room: Arc<Room>,
    router: Router,
    hostile: Hostile,
    key: Key,
}

/// What a browser was sent to the provider with.
struct Departure {
    state: String,
    nonce: String,
    address: Url,
    cookie: String,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answered {
    fn cookie(&self, name: &str) -> Option<String> {
        self.headers.get_all(header::SET_COOKIE).iter().find_map(|value| {
            let (known, rest) = value.to_str().ok()?.split_once('=')?;
            (known == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }
}

impl House {
    async fn new() -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        sqlx::query(
            "insert into muneem.people_staff
                 (staff_id, name_sealed, phone_sealed, phone_index, phone_index_version, created_at)
             select id, '\\x00', '\\x00', decode(replace(id::text, '-', ''), 'hex'), 1, now() from unnest($1::uuid[]) id",
        )
        .bind(vec![ASHA, RAVI])
        .execute(&db.pool())
        .await
        .expect("staff");
        let clock = MovedClock::default();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let console = Arc::new(Console {
            db: db.app_pool(),
            clock: Arc::clone(&shared),
            chance: Arc::new(OsChance),
            origin: ORIGIN.to_owned(),
        });
        let vault = Arc::new(Vault::with_root(&db.app_pool(), &[7; 32].into(), shared, Arc::new(OsChance)));
        let providers = Providers::new(Arc::new(SystemClock)).expect("a client").with_keys_pause(Duration::ZERO);
        let room = Arc::new(Room { providers, vault });
        let router = oidc_routes(Arc::clone(&console), Arc::clone(&room));
        let (hostile, key) = (Hostile::new().await, Key::new("one"));
        hostile.set(|stage| stage.keys = vec![key.public()]);
        let house = Self { db, console, clock, room, router, hostile, key };
        house.add_provider("example").await;
        house
    }

    async fn add_provider(&self, handle: &str) {
        let new = NewProvider {
            business_id: None,
            handle: handle.to_owned(),
            label: "Example".to_owned(),
            issuer: self.hostile.issuer.clone(),
            client_id: "muneem".to_owned(),
            client_secret: Some(CLIENT_SECRET.to_owned().into()),
            trusted_amr: vec!["mfa".to_owned()],
            trusted_acr: Vec::new(),
        };
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: self.console.clock.now(), chance: &OsChance };
        let mut db = self.console.db.acquire().await.expect("a connection");
        oidc::add_provider(&mut db, &self.room.vault, &new, &decision).await.expect("added");
    }

    async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.expect("answered");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        assert!(parts.headers.contains_key(header::CONTENT_SECURITY_POLICY), "{} has no policy", parts.status);
        Answered { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, cookies: &str) -> Answered {
        self.send(Request::get(path).header("cookie", cookies).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, cookies: &str) -> Answered {
        let request = Request::post(path)
            .header("cookie", cookies)
            .header("host", "console.example.in")
            .header("origin", ORIGIN)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    async fn begin(&self, handle: &str) -> Departure {
        let answered = self.get(&format!("/console/oidc/{handle}/begin"), "").await;
        assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
        let address = answered.headers[header::LOCATION].to_str().expect("text").to_owned();
        departure(&address, answered.cookie(FLOW_COOKIE).expect("bound to this browser"))
    }

    async fn come_back(&self, departure: &Departure) -> Answered {
        let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
        self.get(&path, &format!("{FLOW_COOKIE}={}", departure.cookie)).await
    }

    /// The whole way with this token.
    async fn sign_in_with(&self, token: impl FnOnce(&Departure) -> String) -> Answered {
        let departure = self.begin("example").await;
        let token = token(&departure);
        self.hostile
            .set(|stage| stage.token = json!({ "id_token": token, "access_token": "a", "token_type": "Bearer" }));
        self.come_back(&departure).await
    }

    fn claims(&self, departure: &Departure) -> Value {
        let now = SystemClock.now().timestamp();
        json!({
            "iss": self.hostile.issuer, "sub": "asha-at-example", "aud": "muneem", "nonce": departure.nonce,
            "iat": now, "exp": now + 300, "auth_time": now, "email": "asha@example.in", "email_verified": true,
        })
    }

    async fn link(&self, staff: Uuid, subject: &str) {
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: self.console.clock.now(), chance: &OsChance };
        let mut db = self.console.db.acquire().await.expect("a connection");
        let provider = oidc::load_provider(&mut db, "example").await.expect("there");
        let staff = muneem_jobs::people::find_active_staff(&mut db, muneem_jobs::people::StaffId(staff)).await;
        let staff = staff.expect("asked").expect("there");
        oidc::link(&mut db, &self.room.vault, (&provider, subject), &staff, &decision).await.expect("linked");
    }

    async fn session(&self, answered: &Answered) -> Option<Session> {
        let token = answered.cookie(SESSION_COOKIE)?;
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::find_session(&mut db, &token, self.console.clock.now()).await.expect("asked")
    }

    async fn sessions(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.people_sessions")
            .fetch_one(&self.db.pool())
            .await
            .expect("counted")
    }

    async fn signed_in(&self, staff_id: Uuid) -> SecretString {
        let device = signin::new_token(&OsChance);
        let new = NewSession { staff_id, level: Level::Full, device: &device, device_name: "Firefox" };
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::open_session(&mut db, &new, self.now(), &OsChance).await.expect("opened").token
    }

    fn now(&self) -> DateTime<Utc> {
        self.console.clock.now()
    }
}

fn departure(address: &str, cookie: String) -> Departure {
    let address = Url::parse(address).expect("an address");
    let value = |name: &str| {
        let found = address.query_pairs().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name} in {address}")).1.into_owned()
    };
    Departure { state: value("state"), nonce: value("nonce"), cookie, address: address.clone() }
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
        value => claims[name] = value,
    }
    claims
}

#[tokio::test]
async fn the_provider_is_asked_as_the_protocol_says_and_the_person_is_signed_in() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let departure = house.begin("example").await;
    let asked: HashMap<String, String> = departure.address.query_pairs().into_owned().collect();
    let expected = [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "muneem"),
        ("redirect_uri", "https://console.example.in/console/oidc/example/callback"),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
        ("max_age", "300"),
    ];
    for (name, value) in expected {
        assert_eq!(asked.get(name).map(String::as_str), Some(value), "{name}");
    }
    let token = house.key.token(&house.claims(&departure));
    house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
    let answered = house.come_back(&departure).await;
    assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
    let session = house.session(&answered).await.expect("a session");
    assert_eq!((session.staff_id, session.level), (ASHA, Level::Full));
    assert!(answered.cookie(DEVICE_COOKIE).is_some());

    let (fields, authorization) = house.hostile.stage.lock().expect("not poisoned").redeemed.remove(0);
    assert_eq!(fields["grant_type"], "authorization_code");
    assert_eq!(fields["redirect_uri"], expected[3].1);
    let verifier =
        sha2::Digest::finalize(sha2::Digest::chain_update(<Sha256 as sha2::Digest>::new(), &fields["code_verifier"]));
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(verifier), asked["code_challenge"], "PKCE");
    let basic = BASE64_STANDARD.encode("muneem:our+%26+secret");
    assert_eq!(authorization, format!("Basic {basic}"), "form-encoded before it is base64");
    assert!(!fields.contains_key("client_secret"));

    let mut db = house.console.db.acquire().await.expect("a connection");
    let offered = buttons(&mut db).await.expect("listed");
    assert_eq!((offered[0].label.as_str(), offered[0].href.as_str()), ("Example", "/console/oidc/example/begin"));
    let told: i64 = sqlx::query_scalar(
        "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'people.signed_in'",
    )
    .fetch_one(&house.db.pool())
    .await
    .expect("counted");
    assert_eq!(told, 1);
}

#[tokio::test]
async fn atk_057_forged_tokens_sign_nobody_in() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let thief = Key::new("one");
    let rsa = json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": RSA_MODULUS, "e": "AQAB" });
    house.hostile.set(|stage| stage.keys.push(rsa.clone()));
    let now = SystemClock.now().timestamp();
    let with = |name: &'static str, value: Value| {
        let house = &house;
        move |departure: &Departure| house.key.token(&changed(&house.claims(departure), name, value))
    };
    let head = |head: Value| {
        let house = &house;
        move |departure: &Departure| house.key.token_with(&head, &house.claims(departure))
    };
    let public_pem = BASE64_URL_SAFE_NO_PAD.decode(RSA_MODULUS).expect("base64url");
    type Lie<'a> = Box<dyn FnOnce(&Departure) -> String + 'a>;
    let lies: Vec<(&str, Lie<'_>)> = vec![
        ("alg none", Box::new(|d| format!("{}.{}.", part(&json!({ "alg": "none" })), part(&house.claims(d))))),
        ("alg NONE with a signature", Box::new(head(json!({ "alg": "NONE", "kid": "one" })))),
        (
            "HS256 with our own secret",
            Box::new(|d| shared_secret_token("one", CLIENT_SECRET.as_bytes(), &house.claims(d))),
        ),
        ("HS256 with an RSA key", Box::new(|d| shared_secret_token("rsa", &public_pem, &house.claims(d)))),
        (
            "HS256 with an RSA key's text",
            Box::new(|d| shared_secret_token("rsa", rsa.to_string().as_bytes(), &house.claims(d))),
        ),
        ("HS256 with nothing", Box::new(|d| shared_secret_token("one", b"", &house.claims(d)))),
        ("RS256 that no RSA key made", Box::new(head(json!({ "alg": "RS256", "kid": "rsa" })))),
        ("another's key of the same name", Box::new(|d| thief.token(&house.claims(d)))),
        (
            "a key in the token itself",
            Box::new(|d| {
                thief.token_with(&json!({ "alg": "EdDSA", "kid": "two", "jwk": thief.public() }), &house.claims(d))
            }),
        ),
        (
            "a header that must be understood",
            Box::new(head(json!({ "alg": "EdDSA", "kid": "one", "crit": ["x"], "x": 1 }))),
        ),
        ("another type of token", Box::new(head(json!({ "alg": "EdDSA", "kid": "one", "typ": "at+jwt" })))),
        ("for another client", Box::new(with("aud", json!("shop")))),
        ("for another client too", Box::new(with("aud", json!(["muneem", "shop"])))),
        ("for nobody", Box::new(with("aud", Value::Null))),
        ("asked for by another client", Box::new(with("azp", json!("shop")))),
        ("from another issuer", Box::new(with("iss", json!("https://id.example.in")))),
        ("from nearly this issuer", Box::new(with("iss", json!(format!("{}/", house.hostile.issuer))))),
        ("from nobody", Box::new(with("iss", Value::Null))),
        ("with another nonce", Box::new(with("nonce", json!("n-1")))),
        ("without a nonce", Box::new(with("nonce", Value::Null))),
        ("expired", Box::new(with("exp", json!(now - 1)))),
        ("without an end", Box::new(with("exp", Value::Null))),
        ("of yesterday", Box::new(with("iat", json!(now - 86_400)))),
        ("of tomorrow", Box::new(with("iat", json!(now + 86_400)))),
        ("without a subject", Box::new(with("sub", Value::Null))),
        ("with an empty subject", Box::new(with("sub", json!("")))),
        ("with a subject of a megabyte", Box::new(with("sub", json!("x".repeat(100_000))))),
        (
            "changed after it was signed",
            Box::new(|d| {
                let token = house.key.token(&changed(&house.claims(d), "sub", json!("ravi-at-example")));
                let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
                parts[1] = part(&house.claims(d));
                parts.join(".")
            }),
        ),
        ("half a token", Box::new(|d| part(&house.claims(d)))),
        ("no token", Box::new(|_| String::new())),
    ];
    let count = lies.len();
    for (what, lie) in lies {
        let answered = house.sign_in_with(lie).await;
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{what}: {}", answered.body);
        assert!(answered.cookie(SESSION_COOKIE).is_none(), "{what}");
        for told in ["nonce", "audience", "signature", "asha"] {
            assert!(!answered.body.contains(told), "{what}: the page helps whoever forges");
        }
    }
    assert_eq!(house.sessions().await, 0, "after {count} lies");
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(house.session(&answered).await.expect("the truth signs in").staff_id, ASHA);
    let answered = house.sign_in_with(with("aud", json!(["muneem"]))).await;
    assert!(house.session(&answered).await.is_some(), "a list of one is fine");
}

#[tokio::test]
async fn atk_057_what_comes_back_counts_once_and_in_its_own_browser() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    house.add_provider("other").await;
    let prepare = async |house: &House| {
        let departure = house.begin("example").await;
        let token = house.key.token(&house.claims(&departure));
        house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
        departure
    };
    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
    let stranger = signin::new_token(&OsChance);
    for cookies in [String::new(), format!("{FLOW_COOKIE}=x")] {
        assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "{cookies}");
    }
    assert_eq!(house.come_back(&departure).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "replayed");

    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
    let other_browser = format!("{FLOW_COOKIE}={}", stranger.expose_secret());
    assert_eq!(house.get(&path, &other_browser).await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "shown elsewhere, it is used up");

    let departure = prepare(&house).await;
    let path = format!("/console/oidc/other/callback?state={}&code=c-1", departure.state);
    let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
    assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "another provider's address");
    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1&iss=https://evil.example", departure.state);
    let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
    assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "sent by another provider (RFC 9207)");
    for query in ["", "?state=", "?code=c-1", "?error=access_denied", "?state=x&error=access_denied"] {
        let departure = prepare(&house).await;
        let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
        let answered = house.get(&format!("/console/oidc/example/callback{query}"), &cookies).await;
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{query}");
    }

    let departure = prepare(&house).await;
    house.clock.set_offset(TimeDelta::minutes(11));
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "eleven minutes later");
    house.clock.set_offset(TimeDelta::zero());

    let before = house.sessions().await;
    let departure = prepare(&house).await;
    let backs = (0..20).map(|_| house.come_back(&departure));
    let done = futures_util::future::join_all(backs).await;
    assert_eq!(done.iter().filter(|answered| answered.status == StatusCode::SEE_OTHER).count(), 1);
    assert_eq!(house.sessions().await, before + 1, "twenty at once are one");
}

#[tokio::test]
async fn atk_057_a_mail_address_links_nobody_and_only_a_person_signed_in_links_herself() {
    let house = House::new().await;
    for verified in [json!(true), json!(false), json!("true"), Value::Null] {
        let answered = house
            .sign_in_with(|d| house.key.token(&changed(&house.claims(d), "email_verified", verified.clone())))
            .await;
        assert!([StatusCode::FORBIDDEN].contains(&answered.status), "{verified}: {}", answered.status);
    }
    assert_eq!(house.sessions().await, 0);

    // Nobody who is not signed in, and nobody whose proof is old, begins to link.
    assert_eq!(house.post("/console/oidc/example/link", "").await.status, StatusCode::UNAUTHORIZED);
    let asha = house.signed_in(ASHA).await;
    let cookies = format!("{SESSION_COOKIE}={}", asha.expose_secret());
    house.clock.set_offset(TimeDelta::minutes(6));
    assert_eq!(house.post("/console/oidc/example/link", &cookies).await.status, StatusCode::FORBIDDEN);
    house.clock.set_offset(TimeDelta::zero());
    let from_elsewhere = Request::post("/console/oidc/example/link")
        .header("cookie", &cookies)
        .header("origin", "https://evil.example")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::empty())
        .expect("a request");
    assert_eq!(house.send(from_elsewhere).await.status, StatusCode::FORBIDDEN);

    let go = async |cookies: &str| {
        let page = house.post("/console/oidc/example/link", cookies).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(!page.body.contains("<script"), "{}", page.body);
        let (_, rest) = page.body.split_once("<a href=\"").expect("a way on");
        let address = rest.split('"').next().expect("an address").replace("&amp;", "&").replace("&#x3D;", "=");
        let departure = departure(&address, page.cookie(FLOW_COOKIE).expect("bound"));
        let token = house.key.token(&house.claims(&departure));
        house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
        departure
    };
    let back = async |departure: &Departure, session: &str| {
        let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
        house.get(&path, &format!("{FLOW_COOKIE}={}; {session}", departure.cookie)).await
    };
    // The session that began it is gone, or is another person's: nobody is linked.
    let departure = go(&cookies).await;
    assert_eq!(back(&departure, "").await.status, StatusCode::FORBIDDEN);
    let ravi = house.signed_in(RAVI).await;
    let ravis = format!("{SESSION_COOKIE}={}", ravi.expose_secret());
    let departure = go(&cookies).await;
    assert_eq!(back(&departure, &ravis).await.status, StatusCode::FORBIDDEN);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN, "still linked with nobody");

    let departure = go(&cookies).await;
    assert_eq!(back(&departure, &cookies).await.status, StatusCode::SEE_OTHER);
    let page = house.get("/console/oidc", &cookies).await;
    assert!(page.body.contains("End the link"), "{}", page.body);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(house.session(&answered).await.expect("signed in").staff_id, ASHA);
    let departure = go(&ravis).await;
    assert_eq!(back(&departure, &ravis).await.status, StatusCode::CONFLICT, "it is Asha's");

    assert_eq!(house.post("/console/oidc/example/unlink", &cookies).await.status, StatusCode::SEE_OTHER);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN, "unlinked");
}

#[tokio::test]
async fn the_second_factor_is_ours_unless_the_provider_is_trusted_and_saw_one_just_now() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let mut db = house.console.db.acquire().await.expect("a connection");
    signin::begin_totp(&mut db, ASHA, b"sealed", house.now()).await.expect("begun");
    signin::confirm_totp(&mut db, ASHA, b"sealed", 1, house.now(), &OsChance).await.expect("confirmed");
    let now = SystemClock.now().timestamp();
    for (amr, auth_time, level) in [
        (json!(["pwd"]), json!(now), Level::First),
        (json!(["pwd", "mfa"]), json!(now), Level::Full),
        (json!(["mfa"]), json!(now - 3600), Level::First),
        (json!(["mfa"]), Value::Null, Level::First),
        (Value::Null, json!(now), Level::First),
    ] {
        let answered = house
            .sign_in_with(|d| {
                let claims = changed(&house.claims(d), "amr", amr.clone());
                house.key.token(&changed(&claims, "auth_time", auth_time.clone()))
            })
            .await;
        assert_eq!(house.session(&answered).await.expect("a session").level, level, "{amr} {auth_time}");
        let to = answered.headers[header::LOCATION].to_str().expect("text").to_owned();
        assert_eq!(to == "/console/second-factor", level == Level::First, "{to}");
    }
}

#[tokio::test]
async fn a_provider_that_changes_its_keys_goes_on_and_one_that_is_down_is_told_of() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let signed_in = async |house: &House| {
        let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
        house.session(&answered).await.is_some()
    };
    assert!(signed_in(&house).await);
    let mut house = house;
    house.key = Key::new("two");
    assert!(!signed_in(&house).await, "a key that it does not publish");
    house.hostile.set(|stage| stage.keys.push(house.key.public()));
    assert!(signed_in(&house).await, "read anew");
    // The same name for another key.
    house.key = Key::new("two");
    house.hostile.set(|stage| stage.keys = vec![house.key.public()]);
    assert!(signed_in(&house).await, "replaced under its name");
    let read = house.hostile.stage.lock().expect("not poisoned").keys_read;
    for _ in 0..5 {
        assert!(signed_in(&house).await);
    }
    assert_eq!(house.hostile.stage.lock().expect("not poisoned").keys_read, read, "keys that fit are not read again");

    house.hostile.set(|stage| stage.token_status = 503);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE);
    house.hostile.set(|stage| stage.token_status = 400);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN);
    house.hostile.set(|stage| stage.token_status = 302);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "nobody is followed");
    house.hostile.set(|stage| stage.token_status = 200);
    assert!(signed_in(&house).await, "it is back");
}

#[tokio::test]
async fn what_a_provider_publishes_about_itself_must_be_its_own() {
    let house = House::new().await;
    for (what, published) in [
        ("another's name", json!({ "issuer": "https://id.example.in" })),
        ("plain http elsewhere", json!({ "token_endpoint": "http://10.0.0.9/token" })),
        ("keys elsewhere in clear", json!({ "jwks_uri": "http://192.168.1.1/keys" })),
        ("no address", json!({ "authorization_endpoint": "javascript:alert(1)" })),
        ("nonsense", json!({ "token_endpoint": 7 })),
    ] {
        house.hostile.set(|stage| stage.metadata = published);
        let answered = house.get("/console/oidc/example/begin", "").await;
        assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
        assert!(house.room.providers.probe(&house.hostile.issuer).await.is_err(), "{what}");
    }
    house.hostile.set(|stage| (stage.metadata, stage.is_down) = (Value::Null, true));
    assert_eq!(house.get("/console/oidc/example/begin", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    house.hostile.set(|stage| stage.is_down = false);
    assert_eq!(house.get("/console/oidc/example/begin", "").await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.get("/console/oidc/nobody/begin", "").await.status, StatusCode::NOT_FOUND);
    // Whoever says that it names itself in its answers must do so.
    let house = House::new().await;
    house.hostile.set(|stage| stage.metadata = json!({ "authorization_response_iss_parameter_supported": true }));
    house.link(ASHA, "asha-at-example").await;
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN);
}
