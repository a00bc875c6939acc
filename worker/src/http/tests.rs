//! The router in process, over a real database.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use muneem_jobs::{
    evidence::By,
    outbound::{
        KeyManager, KmsError,
        kms::{KeyBytes, KeyContext},
    },
    people::{self, NewToken, Scope},
    queue::{Done, Job, JobContext, JobError, Kind, Lane, Settings},
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    config::Config,
    outbound::{
        chance::OsChance,
        clock::{MovedClock, SystemClock},
        object_store::Objects,
    },
};

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    till: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot count")]
struct CannotCount;

impl JobError for CannotCount {
    fn disposition(&self) -> muneem_jobs::queue::Disposition {
        muneem_jobs::queue::Disposition::Fail
    }

    fn cause(&self) -> &'static str {
        "test.cannot_count"
    }
}

impl Job for Count {
    const KIND: &'static str = "test.count";
    const LANE: Lane = Lane::Bulk;
    const SETTINGS: Settings = Settings { open: true, ..Settings::DEFAULT };
    type Error = CannotCount;

    async fn run(self, _: &JobContext) -> Result<Done, CannotCount> {
        Ok(Done::OK)
    }
}

/// Two shops, a token for each and one for both.
pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) objects: Arc<Objects>,
    _files: tempfile::TempDir,
    pub(super) router: Router,
    pub(super) refusals: Arc<Refusals>,
    pub(super) all: String,
    pub(super) sharma: String,
    pub(super) verma: String,
}

pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) body: Value,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(|api| router(Arc::new(api))).await
    }

    pub(super) async fn with(built: impl FnOnce(Api) -> Router) -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let mut owner = db.pool().acquire().await.expect("a connection");
        muneem_jobs::queue::sync_kinds(&mut owner, &[Kind::of::<Count>()]).await.expect("kinds");
        let (clock, chance) = (SystemClock, OsChance);
        let mut tokens = Vec::new();
        for handle in ["sharma-mobiles", "verma-phones"] {
            let business = people::add_business(&mut owner, handle, handle, &clock, &chance).await.expect("a business");
            let new = NewToken { business_id: Some(business.business_id), ..NewToken::bootstrap() };
            let (_, bearer) = people::create_token(&mut owner, new, &clock, &chance).await.expect("a token");
            tokens.push(bearer.expose_secret().to_owned());
        }
        let (_, all) = people::create_token(&mut owner, NewToken::bootstrap(), &clock, &chance).await.expect("a token");
        let environment = [("HOME".to_owned(), "/tmp".to_owned())].into_iter().collect();
        let config = Config::read(None, &environment).expect("the defaults");
        let files = tempfile::tempdir().expect("a directory");
        let objects = Arc::new(Objects::in_directory(files.path()).expect("a store"));
        let refusals = Refusals::new(db.app_pool(), Arc::new(SystemClock), Arc::new(OsChance));
        let api = Api {
            db: db.app_pool(),
            clock: Arc::new(clock),
            chance: Arc::new(chance),
            objects: Arc::clone(&objects) as Arc<dyn ObjectStore>,
            vault: Arc::new(Vault::with_root(
                &db.app_pool(),
                &[7; 32].into(),
                Arc::new(SystemClock),
                Arc::new(OsChance),
            )),
            webhooks: muneem_jobs::webhooks::Settings::DEFAULT,
            rates: rate::Rates::new(&config.server),
            cursors: CursorKey::default(),
            settings: config.server,
            metrics: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
            refusals: Arc::clone(&refusals),
            workers_beat: None,
        };
        let verma = tokens.pop().expect("two");
        let sharma = tokens.pop().expect("two");
        let all = all.expose_secret().to_owned();
        Self { router: built(api), refusals, db, objects, _files: files, all, sharma, verma }
    }

    #[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        key: Option<&str>,
        body: impl Into<Body>,
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response =
            self.router.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("answered");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()),
        }
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Answered {
        self.send(Method::GET, path, token, None, Body::empty()).await
    }

    pub(super) async fn post(&self, path: &str, token: &str, key: Option<&str>, body: &Value) -> Answered {
        self.send(Method::POST, path, token, key, body.to_string()).await
    }

    async fn jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.queue_jobs").fetch_one(&self.db.pool()).await.expect("counted")
    }
}

fn count_to(till: u32) -> Value {
    json!({ "kind": "test.count", "payload": { "till": till } })
}

#[track_caller]
pub(super) fn is_problem(answered: &Answered, status: u16, id: &str) {
    assert_eq!(
        (answered.status.as_u16(), answered.body["type"].as_str()),
        (status, Some(format!("/problems/{id}").as_str())),
        "{}",
        answered.body
    );
    assert_eq!(answered.headers["content-type"], "application/problem+json");
    assert_eq!(answered.headers["x-request-id"], answered.body["id"].as_str().expect("an id"));
}

#[tokio::test]
async fn a_job_goes_in_and_is_seen_without_its_payload() {
    let house = House::new().await;
    let made = house.post("/v1/queue/jobs", &house.sharma, None, &count_to(3)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let path = format!("/v1/queue/jobs/{}", made.body["id"]);
    let shown = house.get(&path, &house.sharma).await;
    assert_eq!((shown.body["state"].as_str(), shown.body["kind"].as_str()), (Some("ready"), Some("test.count")));
    assert_eq!(shown.body["payload"], "sealed", "how it lies, and nothing of it");
    assert_eq!(house.get("/v1/queue/kinds", &house.all).await.body["items"][0]["kind"], "test.count");
    assert_eq!(house.get("/v1/queue/stats", &house.all).await.status, StatusCode::OK);
    let cancelled = house.post(&format!("{path}/cancel"), &house.sharma, None, &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.body);
    is_problem(&house.post(&format!("{path}/cancel"), &house.sharma, None, &json!({})).await, 409, "queue.job_ended");
    is_problem(&house.post(&format!("{path}/retry"), &house.sharma, None, &json!({})).await, 409, "queue.job_not_dead");
}

#[tokio::test]
async fn the_things_of_another_business_do_not_exist() {
    let house = House::new().await;
    let made = house.post("/v1/queue/jobs", &house.sharma, None, &count_to(3)).await;
    let path = format!("/v1/queue/jobs/{}", made.body["id"]);
    is_problem(&house.get(&path, &house.verma).await, 404, "queue.no_such_job");
    is_problem(&house.post(&format!("{path}/cancel"), &house.verma, None, &json!({})).await, 404, "queue.no_such_job");
    assert_eq!(house.get("/v1/queue/jobs", &house.verma).await.body["items"], json!([]));
    let mut other = count_to(3);
    other["business"] = "sharma-mobiles".into();
    is_problem(&house.post("/v1/queue/jobs", &house.verma, None, &other).await, 404, "people.no_such_business");
    is_problem(&house.post("/v1/queue/jobs", &house.all, None, &count_to(3)).await, 422, "people.which_business");
    assert_eq!(house.post("/v1/queue/jobs", &house.all, None, &other).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn nobody_enters_without_a_token_that_opens() {
    let house = House::new().await;
    is_problem(&house.get("/v1/queue/jobs", "").await, 401, "people.no_token");
    is_problem(&house.get("/v1/queue/jobs", "mnm_x").await, 401, "people.bad_token");
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let new = NewToken { scopes: vec![Scope::QueueRead], ..NewToken::bootstrap() };
    let (token, bearer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    let bearer = bearer.expose_secret();
    assert_eq!(house.get("/v1/queue/jobs", bearer).await.status, StatusCode::OK);
    is_problem(&house.post("/v1/queue/jobs", bearer, None, &count_to(1)).await, 403, "people.missing_scope");
    people::revoke_token(&mut owner, &token.public_id, &By::operator(SystemClock.now(), &OsChance))
        .await
        .expect("revoked");
    is_problem(&house.get("/v1/queue/jobs", bearer).await, 401, "people.token_revoked");
}

#[tokio::test]
async fn one_key_is_one_effect() {
    let house = House::new().await;
    let first = house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &count_to(1)).await;
    let again = house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &count_to(1)).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    is_problem(
        &house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &count_to(2)).await,
        422,
        "http.idempotency_key_reused",
    );
    is_problem(
        &house.post("/v1/queue/jobs", &house.sharma, Some("k 1"), &count_to(2)).await,
        400,
        "http.bad_idempotency_key",
    );
    // The same key of another token is another key.
    assert_eq!(house.post("/v1/queue/jobs", &house.verma, Some("k-1"), &count_to(1)).await.status, StatusCode::CREATED);
    assert_eq!(house.jobs().await, 2);
}

#[tokio::test]
async fn many_at_once_under_one_key_are_one_effect() {
    let house = House::new().await;
    let body = count_to(1);
    let sent = (0..12).map(|_| house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &body));
    let answers = futures_util::future::join_all(sent).await;
    assert!(answers.iter().any(|answer| answer.status == StatusCode::CREATED));
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
        is_problem(answer, 409, "http.idempotency_key_in_flight");
    }
    assert_eq!(house.jobs().await, 1);
}

#[tokio::test]
async fn a_refused_effect_leaves_the_key_free() {
    let house = House::new().await;
    let unknown = json!({ "kind": "no.such_kind", "payload": {} });
    is_problem(&house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &unknown).await, 422, "queue.unknown_kind");
    assert_eq!(
        house.post("/v1/queue/jobs", &house.sharma, Some("k-1"), &count_to(1)).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn atk_011_bad_bodies_are_told_by_field_and_never_fail_inside() {
    let house = House::new().await;
    for (body, status, id) in [
        ("{", 400, "http.bad_json"),
        ("{\"kind\":\"test.count\"}", 422, "http.bad_body"),
        ("{\"kind\":\"test.count\",\"payload\":{},\"colour\":1}", 422, "http.bad_body"),
        ("{\"kind\":\"test.count\",\"kind\":\"x\",\"payload\":{}}", 422, "http.bad_body"),
        ("{\"kind\":\"a\\u0000\",\"payload\":{}}", 422, "http.bad_body"),
        ("{\"kind\":\"\\ud800\",\"payload\":{}}", 422, "http.bad_body"),
        ("{\"kind\":\"test.count\",\"payload\":{\"till\":\"three\"}}", 422, "queue.payload_off_schema"),
        ("{\"kind\":\"test.count\",\"payload\":{\"till\":1},\"run_at\":\"soon\"}", 422, "http.bad_body"),
        ("{\"kind\":\"test.count\",\"payload\":{\"till\":1},\"lane\":\"fast\"}", 422, "queue.bad_lane_or_priority"),
    ] {
        let answered = house.send(Method::POST, "/v1/queue/jobs", &house.sharma, None, body).await;
        is_problem(&answered, status, id);
    }
    let huge = "x".repeat(10 << 20);
    is_problem(&house.send(Method::POST, "/v1/queue/jobs", &house.sharma, None, huge).await, 413, "http.too_large");
    assert_eq!(house.jobs().await, 0);
    let answered = house.send(Method::POST, "/v1/queue/jobs", &house.sharma, None, "{\"kind\":1,\"payload\":{}}").await;
    let mut body = answered.body;
    body["id"] = "(a request id)".into();
    insta::assert_snapshot!("problem_body", serde_json::to_string_pretty(&body).expect("JSON"));
}

#[tokio::test]
async fn atk_012_a_body_that_a_page_of_another_site_could_post_is_refused() {
    let house = House::new().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""]
    {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/queue/jobs")
            .header("authorization", format!("Bearer {}", house.sharma))
            .header("content-type", kind)
            .body(Body::from(count_to(1).to_string()))
            .expect("a request");
        let response = house.router.clone().oneshot(request).await.expect("answered");
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert_eq!(house.jobs().await, 0);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let house = House::new().await;
    is_problem(&house.get("/v2", &house.all).await, 404, "http.no_such_address");
    is_problem(&house.get("/v1/queue/jobs/x", &house.all).await, 404, "queue.no_such_job");
    is_problem(&house.get("/v1/queue/jobs?colour=red", &house.all).await, 400, "http.bad_query");
    is_problem(&house.get("/v1/queue/jobs?cursor=%21", &house.all).await, 400, "http.bad_cursor");
    is_problem(&house.get("/v1/queue/jobs?limit=0", &house.all).await, 400, "http.bad_query");
    is_problem(&house.get("/v1/queue/jobs?kind=%00", &house.all).await, 400, "http.bad_query");
    is_problem(&house.get("/v1/queue/jobs?state=lost", &house.all).await, 400, "http.bad_query");
    is_problem(&house.get("/v1/invoice/invoices/not-a-uuid", &house.all).await, 404, "invoice.no_such_invoice");
    let wrong = house.send(Method::DELETE, "/v1/queue/jobs", &house.all, None, "").await;
    is_problem(&wrong, 405, "http.no_such_method");
    assert!(wrong.headers.contains_key("allow"));
    is_problem(
        &house.post("/v1/schedule/entries/none/pause", &house.all, None, &json!({})).await,
        404,
        "schedule.no_such_entry",
    );
}

#[tokio::test]
async fn pages_lead_to_the_end() {
    let house = House::new().await;
    for till in 0..5 {
        house.post("/v1/queue/jobs", &house.sharma, None, &count_to(till)).await;
    }
    let (mut path, mut seen) = ("/v1/queue/jobs?limit=2".to_owned(), Vec::new());
    loop {
        let page = house.get(&path, &house.sharma).await;
        seen.extend(page.body["items"].as_array().expect("items").iter().map(|job| job["id"].as_i64().expect("an id")));
        let Some(next) = page.body["next"].as_str() else { break };
        path = format!("/v1/queue/jobs?limit=2&cursor={next}");
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
}

#[tokio::test]
async fn health_metrics_and_descriptions_are_open() {
    let house = House::new().await;
    assert_eq!(house.get("/health/live", "").await.status, StatusCode::OK);
    let ready = house.get("/health/ready", "").await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.body);
    assert_eq!(house.get("/metrics", "").await.status, StatusCode::OK);
    let description = house.get("/openapi.json", "").await.body;
    assert_eq!(description["openapi"], "3.1.0");
    let post = &description["paths"]["/v1/queue/jobs"]["post"];
    assert_eq!(post["parameters"][0]["name"], "Idempotency-Key");
    assert!(post["responses"]["default"].is_object());
    let docs = house.get("/docs/", "").await;
    assert_eq!(docs.status, StatusCode::OK);
    assert!(docs.body.as_str().expect("a page").contains("swagger"));
    assert_eq!(house.get("/problems/queue.unknown_kind", "").await.status, StatusCode::OK);
    assert_eq!(docs.headers["x-content-type-options"], "nosniff");
    assert!(!docs.headers.contains_key("server") && !docs.headers.contains_key("access-control-allow-origin"));
}

/// A house whose clock can be moved, and that clock.
async fn sandbox_house() -> (House, MovedClock) {
    let clock = MovedClock::default();
    let house = House::with(|api| {
        let api = Arc::new(Api { clock: Arc::new(clock.clone()), ..api });
        router_with(api.clone(), sandbox::routes(sandbox::ClockRoom { api, clock: clock.clone() }))
    });
    let house = house.await;
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    sqlx::query("update muneem.law_clock set sandbox = true").execute(&mut *owner).await.expect("made a sandbox's");
    (house, clock)
}

async fn offset_secs(house: &House) -> i64 {
    muneem_jobs::law::clock_offset(&house.db.pool()).await.expect("an offset").num_seconds()
}

#[tokio::test]
async fn the_sandbox_clock_is_moved_from_outside() {
    let (house, clock) = sandbox_house().await;
    let moved = house.post("/sandbox/clock", "", None, &json!({ "advance_secs": 259_200 })).await;
    assert_eq!((moved.status, &moved.body["moved_by_secs"]), (StatusCode::OK, &json!(259_200)), "{}", moved.body);
    let now: chrono::DateTime<chrono::Utc> = serde_json::from_value(moved.body["now"].clone()).expect("an instant");
    assert!((now - SystemClock.now() - chrono::TimeDelta::hours(72)).abs() < chrono::TimeDelta::minutes(1), "{now}");
    assert!(clock.now() >= now, "this process follows at once");

    house.post("/sandbox/clock", "", None, &json!({ "advance_secs": -3600 })).await;
    assert_eq!(offset_secs(&house).await, 255_600);
    house.post("/sandbox/clock", "", None, &json!({ "moved_by_secs": 60 })).await;
    assert_eq!(offset_secs(&house).await, 60);
}

#[tokio::test]
async fn two_who_advance_at_once_both_do() {
    let (house, _) = sandbox_house().await;
    let hour = json!({ "advance_secs": 3600 });
    futures_util::future::join_all((0..5).map(|_| house.post("/sandbox/clock", "", None, &hour))).await;
    assert_eq!(offset_secs(&house).await, 5 * 3600);
}

#[tokio::test]
async fn the_clock_stays_where_the_move_is_refused() {
    let (house, _) = sandbox_house().await;
    for body in [
        json!({}),
        json!({ "advance_secs": 1, "moved_by_secs": 1 }),
        json!({ "advance_secs": 1, "minutes": 1 }),
        json!({ "advance_secs": "1" }),
        json!({ "moved_by_secs": 3_155_760_001_i64 }),
        json!({ "advance_secs": i64::MIN }),
    ] {
        is_problem(&house.post("/sandbox/clock", "", None, &body).await, 422, "http.bad_body");
    }
    assert_eq!(offset_secs(&house).await, 0);
    let real = House::new().await;
    let refused = real.post("/sandbox/clock", &real.all, None, &json!({ "advance_secs": 1 })).await;
    is_problem(&refused, 404, "http.no_such_address");
}

#[tokio::test]
async fn a_process_whose_workers_do_not_beat_is_not_ready() {
    let beats = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let house = House::with(|api| {
        let beats = beats.clone();
        let workers_beat: Arc<dyn Fn() -> bool + Send + Sync> =
            Arc::new(move || beats.load(std::sync::atomic::Ordering::Relaxed));
        router(Arc::new(Api { workers_beat: Some(workers_beat), ..api }))
    })
    .await;
    let ready = house.get("/health/ready", "").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.body);
    let checks = ready.body["checks"].as_array().expect("a list of checks");
    assert!(checks.contains(&json!({ "name": "workers", "ok": false })), "{checks:?}");
    assert_eq!(house.get("/health/live", "").await.status, StatusCode::OK);
    beats.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(house.get("/health/ready", "").await.status, StatusCode::OK);
}

/// A key service that nobody reaches.
struct Silent;

#[async_trait::async_trait]
impl KeyManager for Silent {
    async fn wrap(&self, _: &KeyContext, _: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.health().await.map(|()| Vec::new())
    }

    async fn unwrap(&self, _: &KeyContext, _: &[u8]) -> Result<KeyBytes, KmsError> {
        self.health().await.map(|()| KeyBytes::default())
    }

    fn describe(&self) -> String {
        "silent:1".to_owned()
    }

    async fn health(&self) -> Result<(), KmsError> {
        Err(KmsError::Unavailable("kms.ap-south-1.example: connection refused".to_owned()))
    }
}

#[tokio::test]
async fn atk_074_a_sealed_vault_makes_it_unready_and_health_says_why() {
    let house = House::with(|api| {
        let (clock, chance) = (Arc::clone(&api.clock), Arc::clone(&api.chance));
        let settings = muneem_jobs::vault::Settings::DEFAULT;
        let vault = Arc::new(Vault::new(api.db.clone(), Arc::new(Silent), clock, chance, settings));
        router(Arc::new(Api { vault, ..api }))
    })
    .await;
    let ready = house.get("/health/ready", "").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.body);
    let checks = ready.body["checks"].as_array().expect("a list of checks");
    assert!(checks.contains(&json!({ "name": "vault", "ok": false })), "{checks:?}");
    assert_eq!(ready.body["vault"], json!({ "state": "sealed", "why": "the key service does not answer" }));
    assert_eq!(house.get("/health/live", "").await.status, StatusCode::OK);
    let open = House::new().await.get("/health/ready", "").await;
    assert_eq!((open.status, &open.body["vault"]), (StatusCode::OK, &json!({ "state": "open" })));
}

#[tokio::test]
async fn atk_059_no_route_shows_one_business_the_things_of_another() {
    let house = House::new().await;
    let made = house.post("/v1/queue/jobs", &house.sharma, None, &count_to(3)).await;
    let job = made.body["id"].to_string();
    let sharma: uuid::Uuid =
        sqlx::query_scalar("select business_id from muneem.people_businesses where handle = 'sharma-mobiles'")
            .fetch_one(&house.db.pool())
            .await
            .expect("the business");
    let description = house.get("/openapi.json", "").await.body;
    let mut aimed_at = 0;
    for (path, item) in description["paths"].as_object().expect("paths") {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if item.get(method.as_str().to_lowercase()).is_none() {
                continue;
            }
            for target in [job.as_str(), "sharma-mobiles", &sharma.to_string()] {
                let aimed = path.replace("{id}", target).replace("{name}", target).replace("{handle}", target);
                let body = if method == Method::GET { "" } else { "{}" };
                let answered = house.send(method.clone(), &aimed, &house.verma, None, body).await;
                let (status, text) = (answered.status.as_u16(), answered.body.to_string());
                assert!(status != 403 && status < 500, "{method} {aimed}: {status} {text}");
                let of_sharma = text.contains(&sharma.to_string()) || text.contains(&format!("\"id\":{job}"));
                assert!(!of_sharma, "{method} {aimed}: {text}");
                if path.contains('{') {
                    assert!(matches!(status, 400 | 404 | 422), "{method} {aimed}: {status} {text}");
                    aimed_at += 1;
                }
            }
        }
    }
    assert!(aimed_at >= 3 * 10, "too few routes were tried: {aimed_at}");
    let still: String = sqlx::query_scalar("select coalesce(claimed_by::text, 'waits') from muneem.queue_jobs")
        .fetch_one(&house.db.pool())
        .await
        .expect("the job is there");
    assert_eq!(still, "waits");
}

#[tokio::test]
async fn atk_053_a_token_in_the_query_is_refused_and_marked() {
    let house = House::new().await;
    let path = format!("/v1/queue/jobs?access_token={}", house.sharma);
    is_problem(&house.get(&path, "").await, 400, "people.token_in_query");
    is_problem(&house.get(&path, &house.all).await, 400, "people.token_in_query");
    let public_id = house.sharma.split('_').nth(1).expect("the public id");
    let exposed: Vec<String> =
        sqlx::query_scalar("select public_id from muneem.people_tokens where exposed_at is not null")
            .fetch_all(&house.db.pool())
            .await
            .expect("listed");
    assert_eq!(exposed, [public_id]);
    let forged =
        format!("/v1/queue/jobs?t={}", house.verma.replace(house.verma.split('_').nth(2).expect("a secret"), "x"));
    assert_eq!(house.get(&forged, &house.all).await.body["type"], "/problems/http.bad_query");
}

#[tokio::test]
async fn atk_053_a_token_with_a_list_opens_from_nowhere_else() {
    let house = House::new().await;
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let networks = vec![people::read_network("203.0.113.0/24").expect("a network")];
    let new = NewToken { networks, ..NewToken::bootstrap() };
    let (_, bearer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    let from = |peer: &str, forwarded: &str| {
        let mut request = Request::builder()
            .uri("/v1/queue/jobs")
            .header("authorization", format!("Bearer {}", bearer.expose_secret()))
            .header("x-forwarded-for", forwarded)
            .body(Body::empty())
            .expect("a request");
        let peer: std::net::SocketAddr = peer.parse().expect("an address");
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        house.router.clone().oneshot(request)
    };
    assert_eq!(from("203.0.113.9:4711", "198.51.100.1").await.expect("answered").status(), StatusCode::OK);
    let forged = from("198.51.100.1:4711", "203.0.113.9").await.expect("answered");
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED, "its own word for where it comes from counts nothing");
    is_problem(&house.get("/v1/queue/jobs", bearer.expose_secret()).await, 401, "people.token_elsewhere");
}
