//! The pages in process, over a real database.

use std::{net::SocketAddr, num::NonZeroU32};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use muneem_jobs::{
    messaging::{self, Content, Language, Named, NewMessage, Policy, wishes},
    outbound::Email,
    people::{
        self, Authority, ContactKind, Decision, Enrolment, Role,
        approval::{self, Ask, Invitation, Kind, Line, Plan, Subject},
        links::Contact,
    },
    queue,
    vault::Cell,
};
use muneem_postgres::testing::TestDb;
use secrecy::ExposeSecret;
use tower::ServiceExt;

use super::*;
use crate::outbound::{chance::OsChance, clock::SystemClock};

struct Answered {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

/// Links that one address may try before it waits.
const TRIES: NonZeroU32 = NonZeroU32::new(5).expect("not zero");

async fn send(router: &Router, method: &str, path: &str, form: &str) -> Answered {
    send_from(router, "203.0.113.9", method, path, form).await
}

async fn send_from(router: &Router, peer: &str, method: &str, path: &str, form: &str) -> Answered {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .expect("a request");
    let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
    request.extensions_mut().insert(ConnectInfo(peer));
    let (parts, body) = router.clone().oneshot(request).await.expect("answered").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answered { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// The value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let from = page.split(&format!("name=\"{name}\" value=\"")).nth(1).expect("the field");
    from.split('"').next().expect("its value").to_owned()
}

#[tokio::test]
async fn atk_068_a_page_does_nothing_before_a_button_and_shows_nothing_before_the_code() {
    let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
    queue::sync_kinds(&mut db.pool().acquire().await.expect("a connection"), &muneem_jobs::kinds())
        .await
        .expect("kinds");
    let (clock, chance) = (SystemClock, OsChance);
    let vault = Arc::new(Vault::with_root(&db.app_pool(), &[7; 32].into(), Arc::new(clock), Arc::new(chance)));
    let mut conn = db.app_pool().acquire().await.expect("a connection");
    let shop = people::add_business(&mut conn, "sharma-mobiles", "Sharma & Sons", &clock, &chance).await.expect("made");
    let operator = Authority::operator();
    let now = Clock::now(&clock);
    let decision = Decision { by: &operator, now, chance: &chance };
    let owner = Enrolment {
        business_id: Some(shop.business_id),
        name: "Asha".to_owned(),
        language: "en".to_owned(),
        phone: None,
        email: Some("asha@example.in".to_owned()),
        roles: vec![Role::Owner],
    };
    let owner = people::enrol_staff(&mut conn, &vault, &owner, &decision).await.expect("enrolled");
    people::mark_verified(&mut conn, owner.staff_id, ContactKind::Email, now).await.expect("noted");
    let by = Authority::of_staff(&owner);
    let decision = Decision { by: &by, ..decision };
    let plan = Plan {
        content: serde_json::json!({ "rows": 7 }),
        summary: vec![Line { label: "Rows".to_owned(), value: "7 <b>of</b> A… V…".to_owned() }],
    };
    let asked = Ask {
        subject: Subject { business_id: Some(shop.business_id), kind: Kind::RightsPlan, id: "R-1" },
        plan: &plan,
        approvers_needed: 1,
        expires_at: now + chrono::TimeDelta::days(1),
    };
    let asked = approval::ask(&mut conn, &vault, &asked, &decision).await.expect("asked");
    let contact = Contact::Email(Email::parse("ravi@example.com").expect("an address"));
    let invitation = Invitation { contact: &contact, carrier: None, language: "en", origin: "http://127.0.0.1:8787" };
    let (link, url) =
        approval::invite(&mut conn, &vault, asked.approval_id, &invitation, &decision).await.expect("invited");
    let path = url.expose_secret().trim_start_matches("http://127.0.0.1:8787").to_owned();
    let router = routes(Arc::new(Portal {
        db: db.app_pool(),
        clock: Arc::new(SystemClock),
        chance: Arc::new(OsChance),
        vault: Arc::clone(&vault),
        guesses: Guesses::new(TRIES),
        trusted_proxies: Vec::new(),
    }));

    // Scanners follow it as often as they like.
    for method in ["GET", "HEAD", "GET"] {
        let page = send(&router, method, &path, "").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(!page.body.contains("Sharma") && !page.body.contains("Rows"), "{}", page.body);
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        assert_eq!(page.headers["cache-control"], "no-store");
        let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    }
    let codes: i16 =
        sqlx::query_scalar("select codes_made from muneem.people_links").fetch_one(&db.pool()).await.expect("a link");
    assert_eq!(codes, 0, "nobody pressed anything");
    // Whoever guesses waits; not who has a link, nor whoever comes from elsewhere.
    let guess = format!("/r/{}", "0".repeat(64));
    let mut tried = 0;
    let last = loop {
        let answered = send(&router, "GET", &guess, "").await;
        if answered.status != StatusCode::NOT_FOUND {
            break answered;
        }
        tried += 1;
        assert!(tried < 1_000, "guessing goes on and on");
    };
    assert!(tried >= 4, "{tried}: the link's own first request was the fifth");
    assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS, "{}", last.body);
    let wait: u64 = last.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(last.headers["cache-control"], "no-store");
    assert_eq!(send_from(&router, "198.51.100.1", "GET", &guess, "").await.status, StatusCode::NOT_FOUND);

    assert_eq!(send(&router, "POST", &format!("{path}/code"), "").await.status, StatusCode::OK);
    let sealed: Vec<u8> =
        sqlx::query_scalar("select code_sealed from muneem.people_links").fetch_one(&db.pool()).await.expect("a code");
    let row = link.link_id.to_string();
    let cell = Cell { business_id: shop.business_id, table: "muneem.people_links", column: "code_sealed", row: &row };
    let code = vault.open(&mut conn, &cell, &sealed).await.expect("opens");
    let code = std::str::from_utf8(&code).expect("digits").to_owned();
    let off = if code == "000000" { "000001" } else { "000000" };
    let refused = send(&router, "POST", &format!("{path}/open"), &format!("code={off}")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!refused.body.contains("Rows"), "{}", refused.body);
    let shown = send(&router, "POST", &format!("{path}/open"), &format!("code={code}")).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    assert!(shown.body.contains("Sharma &amp; Sons") && shown.body.contains("7 &lt;b&gt;of"), "{}", shown.body);
    assert!(!shown.body.contains("<script"), "{}", shown.body);

    let (proof, plan) = (hidden(&shown.body, "proof"), hidden(&shown.body, "plan"));
    let decide = format!("{path}/decide");
    let forged = send(&router, "POST", &decide, &format!("proof=0&plan={plan}&verdict=approve")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let done = send(&router, "POST", &decide, &format!("proof={proof}&plan={plan}&verdict=approve")).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.body);
    let state = approval::load(&mut conn, asked.approval_id, &by).await.expect("there").state;
    assert_eq!(state, approval::State::Approved);
    let again = send(&router, "POST", &decide, &format!("proof={proof}&plan={plan}&verdict=deny")).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND, "used up");
    assert_eq!(send(&router, "GET", "/r/page.css", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_would_have_no_more_mail_leaves_with_one_click_and_no_scanner_leaves_for_her() {
    let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
    let mut conn = db.pool().acquire().await.expect("a connection");
    queue::sync_kinds(&mut conn, &muneem_jobs::kinds()).await.expect("kinds");
    let (clock, chance) = (SystemClock, OsChance);
    let vault = Arc::new(Vault::with_root(&db.app_pool(), &[7; 32].into(), Arc::new(clock), Arc::new(chance)));
    let shop = people::add_business(&mut conn, "sharma-mobiles", "Sharma & Sons", &clock, &chance).await.expect("made");
    let asha = Email::parse("asha@example.in").expect("an address");
    let parameters = messaging::template::library().find("order_ready", Language::Hi).expect("shipped").examples();
    let content = Content::Named(Named { template: "order_ready".to_owned(), parameters });
    let why = (Policy::AtMostOnce, "marketing.offers");
    let new = NewMessage::new(shop.business_id, asha.clone(), (content, Language::Hi), why);
    let id = messaging::request(&mut conn, &vault, &clock, &chance, &new).await.expect("a message");
    let of = messaging::mail::MailRef::Message(id, 1);
    let token = messaging::mail::issue_token(&mut conn, (&clock, &chance), shop.business_id, of, &asha).await;
    let path = format!("/r/leave/{}", token.expect("a token").leaving().expose());
    let router = routes(Arc::new(Portal {
        db: db.app_pool(),
        clock: Arc::new(SystemClock),
        chance: Arc::new(OsChance),
        vault: Arc::clone(&vault),
        guesses: Guesses::new(TRIES),
        trusted_proxies: Vec::new(),
    }));
    let contact = wishes::Contact::Email(asha);
    let stands = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from muneem.messaging_consents where state = 'withdrawn'");
        count.fetch_one(&db.pool()).await.expect("a count")
    };
    for method in ["GET", "HEAD", "GET"] {
        let page = send(&router, method, &path, "").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(!page.body.contains("asha") && !page.body.contains("Sharma"), "{}", page.body);
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
    }
    assert!(send(&router, "GET", &path, "").await.body.contains("lang=\"hi\""), "in the language of the mail");
    assert_eq!(stands().await, 0, "nobody pressed anything");
    // Her mail program asks in her name, as often as it likes.
    for _ in 0..2 {
        let left = send(&router, "POST", &path, "List-Unsubscribe=One-Click").await;
        assert_eq!(left.status, StatusCode::OK, "{}", left.body);
    }
    assert_eq!(stands().await, 1);
    // As RFC 8058 writes it, and as programs do that send nothing.
    for (kind, body) in [
        (
            "multipart/form-data; boundary=B",
            "--B\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--B--\r\n",
        ),
        ("", ""),
    ] {
        let mut request = Request::builder().method("POST").uri(&path);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let mut request = request.body(Body::from(body)).expect("a request");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 7], 4711))));
        let answered = router.clone().oneshot(request).await.expect("answered");
        assert_eq!(answered.status(), StatusCode::OK, "{kind:?}");
    }
    // Many people leave by one address, more than it could guess.
    for _ in 0..20 {
        assert_eq!(send(&router, "POST", &path, "List-Unsubscribe=One-Click").await.status, StatusCode::OK);
    }
    let question = |purpose| wishes::Question {
        class: wishes::Class::Marketing,
        purpose,
        channel: wishes::Channel::Mail,
        last_way: true,
    };
    let item = |purpose| wishes::Item { to: &contact, others: &[], question: question(purpose) };
    let now = Clock::now(&clock);
    let verdict = wishes::judge(&mut conn, &vault, shop.business_id, &item("marketing.offers"), now).await;
    assert_eq!(verdict.expect("judged"), wishes::Verdict::Skipped(wishes::Reason::Withdrawn));
    let left = send(&router, "POST", &path, "extent=all").await;
    assert_eq!(left.status, StatusCode::OK);
    let verdict = wishes::judge(&mut conn, &vault, shop.business_id, &item("marketing.other"), now).await;
    assert_eq!(verdict.expect("judged"), wishes::Verdict::Skipped(wishes::Reason::MarketingStopped));
    // A token that is none of ours leaves nothing.
    for guess in ["a".repeat(26), id.to_string(), "x".to_owned()] {
        let answered = send(&router, "POST", &format!("/r/leave/{guess}"), "").await;
        assert_eq!(answered.status, StatusCode::NOT_FOUND, "{guess}");
    }
}
