//! The console in process, over a real database.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
    routing::post,
};
use chrono::{DateTime, TimeDelta, Utc};
use http_body_util::BodyExt;
use muneem_jobs::people::signin::{self, Level, NewSession, Opened};
use muneem_postgres::testing::TestDb;
use secrecy::{ExposeSecret, SecretString};
use tower::ServiceExt;
use uuid::Uuid;

use super::{guard::StepUp, *};
use crate::outbound::{chance::OsChance, clock::MovedClock};

const ORIGIN: &str = "https://console.example.in";
const ASHA: Uuid = Uuid::from_u128(1);
const RAVI: Uuid = Uuid::from_u128(2);

struct House {
    _db: TestDb,
    console: Arc<Console>,
    clock: MovedClock,
    router: Router,
    device: SecretString,
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
        let console = Arc::new(Console {
            db: db.app_pool(),
            clock: Arc::new(clock.clone()),
            chance: Arc::new(OsChance),
            origin: ORIGIN.to_owned(),
        });
        let asks_again = Router::new().route("/console/export", post(async |_: StepUp| "exported"));
        let router = routes(Arc::clone(&console)).merge(guarded(asks_again, &console).with_state(Arc::clone(&console)));
        Self { _db: db, console, clock, router, device: signin::new_token(&OsChance) }
    }

    fn now(&self) -> DateTime<Utc> {
        self.console.clock.now()
    }

    async fn sign_in(&self, staff_id: Uuid, level: Level) -> Opened {
        let new = NewSession { staff_id, level, device: &self.device, device_name: "Firefox <b>on</b> Linux" };
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::open_session(&mut db, &new, self.now(), &OsChance).await.expect("opened")
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("answered");
        let (parts, body) = response.into_parts();
        assert!(parts.headers.contains_key(header::CONTENT_SECURITY_POLICY), "{} has no policy", parts.status);
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, path: &str, token: &SecretString) -> (StatusCode, String) {
        let request = Request::get(path).header("cookie", crumb(token)).body(Body::empty());
        self.send(request.expect("a request")).await
    }

    /// As a form of our own page sends it.
    async fn post(&self, path: &str, token: &SecretString) -> StatusCode {
        self.post_with(path, token, &[("origin", ORIGIN), ("sec-fetch-site", "same-origin")]).await
    }

    async fn post_with(&self, path: &str, token: &SecretString, headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::post(path).header("cookie", crumb(token)).header("host", "console.example.in");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("a request")).await.0
    }
}

fn crumb(token: &SecretString) -> String {
    format!("other=1; {}={}", guard::SESSION_COOKIE, token.expose_secret())
}

#[tokio::test]
async fn sessions_are_listed_and_ended_from_the_page() {
    let house = House::new().await;
    let (here, there) = (house.sign_in(ASHA, Level::Full).await, house.sign_in(ASHA, Level::Full).await);
    let (status, page) = house.get("/console/sessions", &here.token).await;
    assert_eq!(status, StatusCode::OK);
    let end = format!("/console/sessions/{}/end", there.session.session_id);
    assert!(page.contains(&end) && page.contains("Firefox &lt;b&gt;on&lt;/b&gt; Linux"), "{page}");
    assert!(!page.contains("<script"), "{page}");

    // Somebody else's session is not there for him: by its right id, and by no id at all.
    let ravi = house.sign_in(RAVI, Level::Full).await;
    assert_eq!(house.post(&end, &ravi.token).await, StatusCode::NOT_FOUND);
    assert_eq!(house.post("/console/sessions/none/end", &ravi.token).await, StatusCode::NOT_FOUND);
    assert_eq!(house.get("/console/sessions", &there.token).await.0, StatusCode::OK);

    assert_eq!(house.post(&end, &here.token).await, StatusCode::SEE_OTHER);
    assert_eq!(house.get("/console/sessions", &there.token).await.0, StatusCode::UNAUTHORIZED);
    let another = house.sign_in(ASHA, Level::Full).await;
    assert_eq!(house.post("/console/sessions/end-others", &here.token).await, StatusCode::SEE_OTHER);
    assert_eq!(house.get("/console/sessions", &another.token).await.0, StatusCode::UNAUTHORIZED);
    assert!(house.get("/console/sessions", &here.token).await.1.contains("nowhere else"));
    assert_eq!(house.get("/console/sessions", &ravi.token).await.0, StatusCode::OK, "his own stays");
}

#[tokio::test]
async fn atk_054_a_stolen_cookie_is_worth_nothing_after_signing_out_or_leaving() {
    let house = House::new().await;
    let stolen = house.sign_in(ASHA, Level::Full).await.token;
    assert_eq!(house.get("/console/sessions", &stolen).await.0, StatusCode::OK);
    assert_eq!(house.post("/console/sign-out", &stolen).await, StatusCode::OK);
    assert_eq!(house.get("/console/sessions", &stolen).await.0, StatusCode::UNAUTHORIZED);

    // Half way, the cookie opens nothing.
    let half = house.sign_in(ASHA, Level::First).await.token;
    assert_eq!(house.get("/console/sessions", &half).await.0, StatusCode::UNAUTHORIZED);

    // Who she is and what she may do is read with each request: the row is gone, the session itself still there.
    let kept = house.sign_in(RAVI, Level::Full).await.token;
    sqlx::query(
        "update muneem.people_staff
         set removed_at = now(), name_sealed = null, phone_sealed = null, phone_index = null, phone_index_version = null
         where staff_id = $1",
    )
    .bind(RAVI)
    .execute(&house.console.db)
    .await
    .expect("removed");
    assert_eq!(house.get("/console/sessions", &kept).await.0, StatusCode::UNAUTHORIZED);

    // Two cookies of one name: one was planted.
    let token = house.sign_in(ASHA, Level::Full).await.token;
    let twice = format!("{}; {}", crumb(&token), crumb(&token));
    let request = Request::get("/console/sessions").header("cookie", twice).body(Body::empty()).expect("a request");
    assert_eq!(house.send(request).await.0, StatusCode::UNAUTHORIZED);
    for (cookie, lasting) in [(guard::session_cookie(&token), false), (guard::device_cookie(&token), true)] {
        let text = cookie.to_str().expect("text");
        assert!(text.starts_with("__Host-") && cookie.is_sensitive());
        assert!(text.contains("; Path=/; Secure; HttpOnly; SameSite=Lax") && !text.contains("Domain"));
        assert_eq!(text.contains("Max-Age"), lasting);
    }
}

#[tokio::test]
async fn what_asks_for_a_fresh_proof_refuses_after_five_minutes() {
    let house = House::new().await;
    let opened = house.sign_in(ASHA, Level::Full).await;
    assert_eq!(house.post("/console/export", &opened.token).await, StatusCode::OK);
    house.clock.set_offset(TimeDelta::seconds(301));
    assert_eq!(house.post("/console/export", &opened.token).await, StatusCode::FORBIDDEN);
    assert_eq!(house.get("/console/sessions", &opened.token).await.0, StatusCode::OK, "still signed in");
    let mut db = house.console.db.acquire().await.expect("a connection");
    let token = opened.token.expose_secret();
    let renewed = signin::renew_session(&mut db, token, house.now(), &OsChance).await.expect("proved anew");
    assert_eq!(house.post("/console/export", &renewed.token).await, StatusCode::OK);
    assert_eq!(house.post("/console/export", &opened.token).await, StatusCode::UNAUTHORIZED, "the token of before");
}

#[tokio::test]
async fn atk_055_only_our_own_pages_change_anything() {
    let house = House::new().await;
    let token = house.sign_in(ASHA, Level::Full).await.token;
    let path = "/console/sign-out";
    let refused: &[(&str, &[(&str, &str)])] = &[
        ("a form elsewhere", &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]),
        ("a form on a sister site", &[("origin", "https://shop.example.in"), ("sec-fetch-site", "same-site")]),
        ("a subdomain", &[("origin", "https://a.console.example.in"), ("sec-fetch-site", "same-site")]),
        ("a page without an origin", &[("origin", "null"), ("sec-fetch-site", "cross-site")]),
        ("an old browser elsewhere", &[("origin", "https://evil.example")]),
        ("an old browser, no origin", &[("origin", "null")]),
        ("an old browser, plain http", &[("origin", "http://console.example.in")]),
        ("another port", &[("origin", "https://console.example.in:8443")]),
        ("two origins", &[("origin", ORIGIN), ("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")]),
        ("neither header", &[]),
        ("the referer alone", &[("referer", "https://console.example.in/console/sessions")]),
        ("a false word of the fetch header", &[("sec-fetch-site", "Same-Origin")]),
        ("typed into the address bar", &[("sec-fetch-site", "none")]),
        ("fetch in mode no-cors", &[("origin", ORIGIN), ("content-type", "text/plain")]),
        ("a form with files", &[("origin", ORIGIN), ("content-type", "multipart/form-data; boundary=x")]),
    ];
    for (what, headers) in refused {
        assert_eq!(house.post_with(path, &token, headers).await, StatusCode::FORBIDDEN, "{what}");
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let request = Request::builder().method(method).uri(path).header("cookie", crumb(&token));
        let status = house.send(request.body(Body::empty()).expect("a request")).await.0;
        assert!([StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED].contains(&status), "{method}: {status}");
    }
    // GET shows and changes nothing.
    assert_eq!(house.get(path, &token).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(house.get("/console/sessions", &token).await.0, StatusCode::OK, "she is still signed in");
    let json = [("origin", ORIGIN), ("content-type", "application/json; charset=utf-8")];
    assert_eq!(house.post_with("/console/sessions/end-others", &token, &json).await, StatusCode::SEE_OTHER);
    assert_eq!(house.post(path, &token).await, StatusCode::OK);
}
