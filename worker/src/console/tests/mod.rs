//! The console in process, over a real database, as browsers meet it.

mod access;
mod approvals;
#[path = "../../../../jobs/src/people/signin/authenticator.rs"]
mod authenticator;
mod factors;
mod house;
mod passkeys;
mod phones;
mod staff;
mod support;
mod tokens;
mod ways_in;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use muneem_jobs::people::{StaffId, remove_staff};

use super::*;
use crate::outbound::chance::OsChance;
use house::{Browser, House, ORIGIN, PASSWORD};

const SESSIONS: &str = "/console/sessions";

#[tokio::test]
async fn sessions_are_listed_and_ended_from_the_page() {
    let house = House::new().await;
    let (mut here, mut there) = (house.signed_in().await, house.signed_in().await);
    let page = here.get(SESSIONS).await;
    assert_eq!(page.status, StatusCode::OK);
    let end = format!("/console/sessions/{}/end", house::between(&page.body, "/console/sessions/", "/end"));
    assert!(page.body.contains("Firefox on Linux"), "{}", page.body);

    // Somebody else's session is not there for him: by its right id, and by no id at all.
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    assert_eq!(ravi.post(&end, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ravi.post("/console/sessions/none/end", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(there.get(SESSIONS).await.status, StatusCode::OK);

    assert_eq!(here.post(&end, &[]).await.to.as_deref(), Some(SESSIONS));
    assert!(is_out(&mut there).await);
    let mut another = house.signed_in().await;
    assert_eq!(here.post("/console/sessions/end-others", &[]).await.status, StatusCode::SEE_OTHER);
    assert!(is_out(&mut another).await);
    assert!(here.get(SESSIONS).await.body.contains("nowhere else"));
    assert_eq!(ravi.get(SESSIONS).await.status, StatusCode::OK, "his own stays");
    assert_eq!(house.recorded("people.sessions_ended").await, 2);
}

/// Whether this browser is asked to sign in.
async fn is_out(browser: &mut Browser<'_>) -> bool {
    let answer = browser.get(SESSIONS).await;
    answer.to.as_deref() == Some("/console/sign-in?next=/console/sessions")
}

#[tokio::test]
async fn atk_054_a_stolen_cookie_is_worth_nothing_after_signing_out_or_leaving() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let mut thief = Browser { house: &house, cookies: asha.cookies.clone(), from: None };
    assert_eq!(thief.get(SESSIONS).await.status, StatusCode::OK);
    let out = asha.post("/console/sign-out", &[]).await;
    assert_eq!(out.to.as_deref(), Some("/console/sign-in"));
    assert_eq!(asha.session(), None, "the browser has let go of it");
    assert!(is_out(&mut thief).await);
    assert_eq!(house.recorded("people.signed_out").await, 1);

    // Who she is and what she may do is read with each request.
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    assert_eq!(ravi.get(SESSIONS).await.status, StatusCode::OK);
    let operator = muneem_jobs::people::Authority::operator();
    let decision = muneem_jobs::people::Decision { by: &operator, now: house.now(), chance: &OsChance };
    let mut db = house.conn().await;
    remove_staff(&mut db, StaffId(house.ravi.staff_id.0), &decision).await.expect("removed");
    assert!(is_out(&mut ravi).await);

    // Two cookies of one name: one was planted.
    let asha = house.signed_in().await;
    let session = asha.session().expect("a session");
    let twice = format!("__Host-muneem={session}; __Host-muneem={session}");
    let request = Request::get(SESSIONS).header("cookie", twice).body(Body::empty()).expect("a request");
    assert_eq!(house.browser().send(request).await.status, StatusCode::UNAUTHORIZED);
    // One under the bare name, as any page on a sister host could set it, is none.
    let request = Request::get(SESSIONS).header("cookie", format!("muneem={session}"));
    let answer = house.browser().send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn atk_054_a_session_that_was_planted_is_not_the_one_that_is_signed_in() {
    let house = House::new().await;
    let mut browser = house.browser();
    let planted = "ab".repeat(32);
    browser.cookies.insert("__Host-muneem".to_owned(), planted.clone());
    browser.sign_in("asha@example.in", PASSWORD).await;
    let first = browser.session().expect("a session");
    assert_ne!(first, planted);

    // And another at each step: the one of before opens nothing.
    let (secret, _) = browser.set_up_totp().await;
    browser.post("/console/sign-out", &[]).await;
    browser.sign_in("asha@example.in", PASSWORD).await;
    let half = browser.session().expect("half a session");
    let mut thief = Browser { house: &house, cookies: browser.cookies.clone(), from: None };
    house.later(30);
    let done = browser.post("/console/second-factor", &[("code", &browser.code_of(&secret, 0))]).await;
    assert_eq!(done.to.as_deref(), Some("/console"), "{}", done.body);
    assert_ne!(browser.session().expect("a session"), half);
    assert!(is_out(&mut thief).await);
}

#[tokio::test]
async fn what_asks_for_a_fresh_proof_leads_to_it_after_five_minutes() {
    let house = House::new().await;
    let mut browser = house.signed_in().await;
    assert_eq!(browser.post("/console/export", &[]).await.status, StatusCode::OK);
    let before = browser.session();
    house.later(301);
    let led = browser.post("/console/export", &[]).await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console"));
    assert_eq!(browser.get(SESSIONS).await.status, StatusCode::OK, "still signed in");
    let led = browser.get("/console/security/password").await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console/security/password"));

    let wrong =
        browser.post("/console/confirm", &[("password", "wrong"), ("next", "/console/security/password")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let next = "https://evil.example/console";
    let proved = browser.post("/console/confirm", &[("password", PASSWORD), ("next", next)]).await;
    assert_eq!(proved.to.as_deref(), Some("/console"), "a link leads nobody elsewhere");
    assert_ne!(browser.session(), before);
    assert_eq!(browser.post("/console/export", &[]).await.status, StatusCode::OK);

    // Programs get a status instead of a page to go to.
    let request = Request::post("/console/export").header("origin", ORIGIN).header("host", "console.example.in");
    let request = request.header("content-type", "application/json").body(Body::empty()).expect("a request");
    assert_eq!(house.browser().send(request).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn atk_055_only_our_own_pages_change_anything() {
    let house = House::new().await;
    let mut browser = house.signed_in().await;
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
        assert_eq!(browser.post_with(path, &[], headers).await.status, StatusCode::FORBIDDEN, "{what}");
    }
    // Nor does anybody sign somebody in from elsewhere: her own account would be taken for the visitor's.
    let login = [("who", "asha@example.in"), ("password", PASSWORD), ("way", "password")];
    let mut other = house.browser();
    let forged = other.post_with("/console/sign-in", &login, &[("origin", "https://evil.example")]).await;
    assert_eq!((forged.status, other.session()), (StatusCode::FORBIDDEN, None));
    for method in ["PUT", "DELETE", "PATCH"] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let status = browser.send(request).await.status;
        assert!([StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED].contains(&status), "{method}: {status}");
    }
    // GET shows and changes nothing.
    assert_eq!(browser.get(path).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(browser.get(SESSIONS).await.status, StatusCode::OK, "she is still signed in");
    let json = [("origin", ORIGIN), ("content-type", "application/json; charset=utf-8")];
    let ended = browser.post_with("/console/sessions/end-others", &[], &json).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.post(path, &[]).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn pages_hold_nothing_that_runs_and_names_are_text() {
    let house = House::new().await;
    let mut browser = house.signed_in().await;
    for path in ["/console", "/console/security", SESSIONS, "/console/security/password", "/console/confirm"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.body);
        assert!(!page.body.contains("<b>Verma"), "{path}: {}", page.body);
        let scripts = page.body.matches("<script").count();
        assert_eq!(scripts, page.body.matches("<script src=\"/console/passkey.js\" defer></script>").count(), "{path}");
        for marked in [" style=", " onclick=", "javascript:"] {
            assert!(!page.body.contains(marked), "{path}: {marked}");
        }
        assert!(page.body.len() < 50_000, "{path}: {} bytes", page.body.len());
    }
    let home = browser.get("/console").await.body;
    assert!(home.contains("Asha &lt;b&gt;Verma&lt;/b&gt;") && home.contains("sharma-mobiles"), "{home}");
    // What was typed stays, as text.
    let again = house.browser().sign_in("<script>alert(1)</script>", "x").await;
    assert!(again.body.contains("value=\"&lt;script&gt;alert(1)&lt;/script&gt;\""), "{}", again.body);
}

#[tokio::test]
async fn on_this_machine_the_address_is_turned_into_the_name() {
    let house = House::new().await;
    let local = Arc::new(Console {
        origin: "http://localhost:8787".to_owned(),
        db: house.console.db.clone(),
        clock: Arc::clone(&house.console.clock),
        chance: Arc::clone(&house.console.chance),
        vault: Arc::clone(&house.console.vault),
        passwords: Passwords::new(1, None, Arc::clone(&house.console.chance)).expect("no list"),
        passkeys: None,
        mails: false,
        sends_codes: false,
        installation_business: None,
        trusted_proxies: Vec::new(),
        country_header: None,
        answer_after: Duration::ZERO,
        departures: Departures::new(Departures::A_MINUTE),
        refusals: Arc::clone(&house.console.refusals),
    });
    let ask = async |host: &str| {
        let request = Request::get("/console/sign-in").header("host", host).header("accept", "text/html");
        let request = request.body(Body::empty()).expect("a request");
        let response = tower::ServiceExt::oneshot(routes(Arc::clone(&local)), request).await.expect("answered");
        let to = response.headers().get("location").and_then(|to| to.to_str().ok()).map(str::to_owned);
        (response.status(), to)
    };
    let there = Some("http://localhost:8787/console/sign-in".to_owned());
    assert_eq!(ask("127.0.0.1:8787").await, (StatusCode::SEE_OTHER, there));
    assert_eq!(ask("localhost:8787").await, (StatusCode::OK, None));
    assert_eq!(ask("127.0.0.1:9999").await, (StatusCode::OK, None));
    let cookie = local.keep(cookies::Crumb::Session, &"x".to_owned().into());
    assert_eq!(cookie.to_str().expect("text"), "muneem=x; Path=/; HttpOnly; SameSite=Lax");
}
