//! A provider that says what a test wants, and the console before it.

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
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use muneem_jobs::{
    outbound::{Chance, Clock},
    people::{
        Authority, Decision,
        oidc::{self, NewProvider},
        signin::{self, Level, NewSession, Session},
    },
    queue,
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use openidconnect::{
    JsonWebKeyId, PrivateSigningKey,
    core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm},
};
use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;
use tower::ServiceExt;
use uuid::Uuid;

use super::super::{Console, oidc::Room, oidc_routes};
use crate::outbound::{
    chance::OsChance,
    clock::{MovedClock, SystemClock},
    oidc::Providers,
};

pub(super) const ORIGIN: &str = "https://console.example.in";
/// Cookies, as they are named over https.
pub(super) const SESSION_COOKIE: &str = "__Host-muneem";
pub(super) const DEVICE_COOKIE: &str = "__Host-muneem-device";
pub(super) const FLOW_COOKIE: &str = "__Host-muneem-oidc";
pub(super) const ASHA: Uuid = Uuid::from_u128(1);
pub(super) const RAVI: Uuid = Uuid::from_u128(2);
pub(super) const CLIENT_SECRET: &str = "our & secret";
/// A public key of somebody else's, as text: what HS256 forgers use as a secret.
pub(super) const RSA_MODULUS: &str = "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw";

/// A key that signs tokens.
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) private: CoreEdDsaPrivateSigningKey,
}

impl Key {
    pub(super) fn new(kid: &str) -> Self {
        let mut seed = [0; 32];
        OsChance.fill(&mut seed);
        // PKCS #8 of an Ed25519 key (RFC 8410 section 7).
        let der = [hex::decode("302e020100300506032b657004220420").expect("hex"), seed.to_vec()].concat();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der));
        let id = Some(JsonWebKeyId::new(kid.to_owned()));
        let private = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, id).expect("a key");
        Self { kid: kid.to_owned(), private }
    }

    pub(super) fn public(&self) -> Value {
        serde_json::to_value(self.private.as_verification_key()).expect("JSON")
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" }), claims)
    }

    pub(super) fn token_with(&self, head: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = self.private.sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(super) fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(super) fn shared_secret_token(kid: &str, secret: &[u8], claims: &Value) -> String {
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "kid": kid })), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// What the provider does next.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) keys: Vec<Value>,
    /// Over what it truly publishes.
    pub(super) metadata: Value,
    pub(super) token: Value,
    pub(super) token_status: u16,
    pub(super) is_down: bool,
    pub(super) keys_read: usize,
    /// What the token endpoint was sent.
    pub(super) redeemed: Vec<(HashMap<String, String>, String)>,
}

pub(super) struct Hostile {
    pub(super) issuer: String,
    pub(super) stage: Arc<Mutex<Stage>>,
}

impl Hostile {
    pub(super) async fn new() -> Self {
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

    pub(super) fn set(&self, change: impl FnOnce(&mut Stage)) {
        change(&mut self.stage.lock().expect("not poisoned"));
    }
}

pub(super) async fn metadata(at: SocketAddr, State(stage): State<Arc<Mutex<Stage>>>) -> Response {
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

pub(super) async fn keys(State(stage): State<Arc<Mutex<Stage>>>) -> Json<Value> {
    let mut stage = stage.lock().expect("not poisoned");
    stage.keys_read += 1;
    Json(json!({ "keys": stage.keys }))
}

pub(super) async fn token(
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

pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) console: Arc<Console>,
    pub(super) clock: MovedClock,
    pub(super) room: Arc<Room>,
    pub(super) router: Router,
    pub(super) hostile: Hostile,
    pub(super) key: Key,
}

/// What a browser was sent to the provider with.
pub(super) struct Departure {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) address: Url,
    pub(super) cookie: String,
}

pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answered {
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        self.headers.get_all(header::SET_COOKIE).iter().find_map(|value| {
            let (known, rest) = value.to_str().ok()?.split_once('=')?;
            (known == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }
}

impl House {
    pub(super) async fn new() -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        sqlx::query(
            "with shop as (
                 insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
                 values (gen_random_uuid(), 'sharma-mobiles', 'Sharma', now())
                 returning business_id
             )
             insert into muneem.people_staff
                 (staff_id, business_id, name_sealed, phone_sealed, phone_index, phone_index_version, created_at)
             select id, business_id, '\\x00', '\\x00', decode(replace(id::text, '-', ''), 'hex'), 1, now()
             from shop, unnest($1::uuid[]) id",
        )
        .bind(vec![ASHA, RAVI])
        .execute(&db.pool())
        .await
        .expect("staff");
        let mut owner = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
        drop(owner);
        let clock = MovedClock::default();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let console = Arc::new(Console::for_providers(db.app_pool(), Arc::clone(&shared), Arc::new(OsChance), ORIGIN));
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

    pub(super) async fn add_provider(&self, handle: &str) {
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

    pub(super) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.expect("answered");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        assert!(parts.headers.contains_key(header::CONTENT_SECURITY_POLICY), "{} has no policy", parts.status);
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn get(&self, path: &str, cookies: &str) -> Answered {
        self.send(Request::get(path).header("cookie", cookies).body(Body::empty()).expect("a request")).await
    }

    pub(super) async fn post(&self, path: &str, cookies: &str) -> Answered {
        let request = Request::post(path)
            .header("cookie", cookies)
            .header("host", "console.example.in")
            .header("origin", ORIGIN)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    pub(super) async fn begin(&self, handle: &str) -> Departure {
        let answered = self.get(&format!("/console/oidc/{handle}/begin"), "").await;
        assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
        let address = answered.headers[header::LOCATION].to_str().expect("text").to_owned();
        departure(&address, answered.cookie(FLOW_COOKIE).expect("bound to this browser"))
    }

    pub(super) async fn come_back(&self, departure: &Departure) -> Answered {
        let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
        self.get(&path, &format!("{FLOW_COOKIE}={}", departure.cookie)).await
    }

    /// The whole way with this token.
    pub(super) async fn sign_in_with(&self, token: impl FnOnce(&Departure) -> String) -> Answered {
        let departure = self.begin("example").await;
        let token = token(&departure);
        self.hostile
            .set(|stage| stage.token = json!({ "id_token": token, "access_token": "a", "token_type": "Bearer" }));
        self.come_back(&departure).await
    }

    pub(super) fn claims(&self, departure: &Departure) -> Value {
        let now = SystemClock.now().timestamp();
        json!({
            "iss": self.hostile.issuer, "sub": "asha-at-example", "aud": "muneem", "nonce": departure.nonce,
            "iat": now, "exp": now + 300, "auth_time": now, "email": "asha@example.in", "email_verified": true,
        })
    }

    pub(super) async fn link(&self, staff: Uuid, subject: &str) {
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: self.console.clock.now(), chance: &OsChance };
        let mut db = self.console.db.acquire().await.expect("a connection");
        let provider = oidc::load_provider(&mut db, "example").await.expect("there");
        let staff = muneem_jobs::people::find_active_staff(&mut db, muneem_jobs::people::StaffId(staff)).await;
        let staff = staff.expect("asked").expect("there");
        oidc::link(&mut db, &self.room.vault, (&provider, subject), &staff, &decision).await.expect("linked");
    }

    pub(super) async fn session(&self, answered: &Answered) -> Option<Session> {
        let token = answered.cookie(SESSION_COOKIE)?;
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::find_session(&mut db, &token, self.console.clock.now()).await.expect("asked")
    }

    pub(super) async fn sessions(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.people_sessions")
            .fetch_one(&self.db.pool())
            .await
            .expect("counted")
    }

    pub(super) async fn signed_in(&self, staff_id: Uuid) -> SecretString {
        let device = signin::new_token(&OsChance);
        let new = NewSession { staff_id, level: Level::Full, device: &device, device_name: "Firefox" };
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::open_session(&mut db, &new, self.now(), &OsChance).await.expect("opened").token
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.console.clock.now()
    }
}

pub(super) fn departure(address: &str, cookie: String) -> Departure {
    let address = Url::parse(address).expect("an address");
    let value = |name: &str| {
        let found = address.query_pairs().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name} in {address}")).1.into_owned()
    };
    Departure { state: value("state"), nonce: value("nonce"), cookie, address: address.clone() }
}

pub(super) fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
        value => claims[name] = value,
    }
    claims
}
