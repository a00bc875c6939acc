//! A console over a real database, people who work there, and a browser that keeps its cookies.

use std::{collections::BTreeMap, path::Path};

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
    routing::post,
};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use muneem_jobs::{
    evidence::Actor,
    outbound::Phone,
    people::{
        Authority, BusinessId, Decision, Enrolment, Role, Staff, add_business, enrol_staff,
        signin::{Invitee, invite, set_password, totp},
    },
    queue,
    vault::Cell,
};
use muneem_postgres::testing::TestDb;
use secrecy::ExposeSecret;
use sha1::Sha1;
use tower::ServiceExt;
use uuid::Uuid;

use super::super::{guard::StepUp, *};
use crate::outbound::{chance::OsChance, clock::MovedClock, kms_file::NoKey};

pub(super) const ORIGIN: &str = "https://console.example.in";
pub(super) const PASSWORD: &str = "four words in a row";

pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) console: Arc<Console>,
    pub(super) clock: MovedClock,
    pub(super) router: Router,
    pub(super) sharma: BusinessId,
    /// Owns Sharma Mobiles, and has a password.
    pub(super) asha: Staff,
    /// Manages it, and has nothing to sign in with.
    pub(super) ravi: Staff,
}

impl House {
    pub(super) async fn new() -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let mut owner = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut owner, &muneem_jobs::kinds()).await.expect("kinds");
        let clock = MovedClock::default();
        let (its_clock, chance): (Arc<dyn Clock>, Arc<dyn Chance>) = (Arc::new(clock.clone()), Arc::new(OsChance));
        let vault = Vault::with_root(&db.app_pool(), &[7; 32].into(), Arc::clone(&its_clock), chance);
        let (console, router) = open(&db, &its_clock, vault);
        let sharma = add_business(&mut owner, "sharma-mobiles", "Sharma Mobiles", &*console.clock, &OsChance).await;
        let sharma = sharma.expect("a shop").business_id;
        let asha = join(&console, Some(sharma), "Asha <b>Verma</b>", "asha@example.in", Role::Owner).await;
        let ravi = join(&console, Some(sharma), "Ravi", "ravi@example.in", Role::Manager).await;
        let house = Self { db, console, clock, router, sharma, asha, ravi };
        house.give_password(&house.asha).await;
        house
    }

    /// The same after its process began anew without the root key.
    pub(super) fn with_its_vault_sealed(mut self) -> Self {
        let kms = Arc::new(NoKey::at(Path::new("/gone"), true));
        let clock = Arc::clone(&self.console.clock);
        let settings = muneem_jobs::vault::Settings::DEFAULT;
        let vault = Vault::new(self.db.app_pool(), kms, Arc::clone(&clock), Arc::new(OsChance), settings);
        (self.console, self.router) = open(&self.db, &clock, vault);
        self
    }

    pub(super) async fn join(&self, business: Option<BusinessId>, name: &str, email: &str, role: Role) -> Staff {
        join(&self.console, business, name, email, role).await
    }

    pub(super) async fn give_password(&self, staff: &Staff) {
        let hash = self.console.passwords.keep(&PASSWORD.to_owned().into()).await.expect("hashed").expect("good");
        let mut db = self.conn().await;
        set_password(&mut db, staff.staff_id.0, &hash, None, self.now()).await.expect("set");
    }

    pub(super) async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.console.db.acquire().await.expect("a connection")
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.console.clock.now()
    }

    pub(super) fn later(&self, seconds: i64) {
        self.clock.set_offset(TimeDelta::seconds(seconds));
    }

    pub(super) fn browser(&self) -> Browser<'_> {
        Browser { house: self, cookies: BTreeMap::new(), from: None }
    }

    /// Signed in with the password, where no second factor is set up.
    pub(super) async fn signed_in(&self) -> Browser<'_> {
        let mut browser = self.browser();
        let answer = browser.sign_in("asha@example.in", PASSWORD).await;
        assert_eq!((answer.status, answer.to.as_deref()), (StatusCode::SEE_OTHER, Some("/console")));
        browser
    }

    pub(super) async fn link(&self, invitee: Invitee) -> String {
        let mut db = self.conn().await;
        let (_, token) = invite(&mut db, invitee, &Actor::Operator, self.now(), &OsChance).await.expect("invited");
        format!("/console/invitation/{}", token.expose_secret())
    }

    /// The code in the last mail that was planned.
    pub(super) async fn mailed_code(&self) -> String {
        let (id, business_id, sealed): (Uuid, BusinessId, Vec<u8>) = sqlx::query_as(
            "select mail_id, business_id, params_sealed from muneem.messaging_mails
             where template = 'sign_in_code' order by created_at desc, mail_id desc limit 1",
        )
        .fetch_one(&self.console.db)
        .await
        .expect("a mail");
        let row = id.to_string();
        let table = "muneem.messaging_mails";
        let cell = Cell { business_id, table, column: "params_sealed", row: &row };
        let plain = self.console.vault.open(&mut *self.conn().await, &cell, &sealed).await.expect("it opens");
        let params: BTreeMap<String, String> = serde_json::from_slice(&plain).expect("JSON");
        params["code"].clone()
    }

    /// What staff was told, and is planned to be told, of their access, in order.
    pub(super) async fn warnings(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select payload ->> 'warning' from muneem.queue_jobs where kind = 'messaging.warn_staff' order by job_id",
        )
        .fetch_all(&self.db.pool())
        .await
        .expect("jobs")
    }

    /// How often something stands in the evidence.
    pub(super) async fn recorded(&self, verb: &str) -> i64 {
        let part = format!("%\"verb\":\"{verb}\"%");
        sqlx::query_scalar("select count(*) from muneem.evidence_events where convert_from(body, 'UTF8') like $1")
            .bind(part)
            .fetch_one(&self.db.pool())
            .await
            .expect("counted")
    }
}

fn open(db: &TestDb, clock: &Arc<dyn Clock>, vault: Vault) -> (Arc<Console>, Router) {
    let chance: Arc<dyn Chance> = Arc::new(OsChance);
    let console = Arc::new(Console {
        refusals: Refusals::new(db.app_pool(), Arc::clone(clock), Arc::clone(&chance)),
        db: db.app_pool(),
        clock: Arc::clone(clock),
        passwords: Passwords::new(2, None, Arc::clone(&chance)).expect("no list"),
        chance,
        passkeys: Passkeys::new(ORIGIN).ok(),
        origin: ORIGIN.to_owned(),
        vault: Arc::new(vault),
        mails: true,
        sends_codes: true,
        installation_business: Some("muneem-desk".to_owned()),
        trusted_proxies: vec!["10.0.0.7".parse().expect("an address")],
        country_header: Some(HeaderName::from_static("cf-ipcountry")),
        answer_after: Duration::ZERO,
        departures: Departures::new(Departures::A_MINUTE),
    });
    let asks_again = Router::new().route("/console/export", post(async |_: StepUp| "exported"));
    let router = routes(Arc::clone(&console)).merge(guarded(asks_again, &console).with_state(Arc::clone(&console)));
    (console, router)
}

async fn join(console: &Console, business: Option<BusinessId>, name: &str, email: &str, role: Role) -> Staff {
    let operator = Authority::operator();
    let decision = Decision { by: &operator, now: console.clock.now(), chance: &OsChance };
    let person = Enrolment {
        business_id: business,
        name: name.to_owned(),
        language: "en".to_owned(),
        phone: None::<Phone>,
        email: Some(email.to_owned()),
        roles: vec![role],
    };
    let mut db = console.db.acquire().await.expect("a connection");
    enrol_staff(&mut db, &console.vault, &person, &decision).await.expect("enrolled")
}

/// What a page answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Where it leads.
    pub(super) to: Option<String>,
    pub(super) body: String,
    pub(super) headers: HeaderMap,
}

pub(super) struct Browser<'a> {
    pub(super) house: &'a House,
    pub(super) cookies: BTreeMap<String, String>,
    /// The address it comes from, as our proxy tells it.
    pub(super) from: Option<&'static str>,
}

impl Browser<'_> {
    pub(super) fn session(&self) -> Option<String> {
        self.cookies.get("__Host-muneem").cloned()
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "console.example.in")
            .header("accept", "text/html,application/xhtml+xml")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if let Some(from) = self.from {
            let proxy: std::net::SocketAddr = "10.0.0.7:4711".parse().expect("an address");
            request = request.header("x-forwarded-for", from).extension(axum::extract::ConnectInfo(proxy));
        }
        request
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Answer {
        let response = self.house.router.clone().oneshot(request).await.expect("answered");
        let (parts, body) = response.into_parts();
        let policy = parts.headers.get(header::CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok());
        assert!(policy.is_some_and(|policy| !policy.contains("unsafe")), "{}: {policy:?}", parts.status);
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let text = cookie.to_str().expect("text");
            let (pair, attributes) = text.split_once(';').expect("attributes");
            assert!(text.starts_with("__Host-muneem"), "{text}");
            assert!(attributes.contains(" Path=/; Secure; HttpOnly; SameSite=Lax") && !text.contains("Domain"));
            let (name, value) = pair.split_once('=').expect("a pair");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let to = parts.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, to, body, headers: parts.headers }
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(Body::empty()).expect("a request");
        self.send(request).await
    }

    /// As a form of our own page sends it.
    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let headers = [("origin", ORIGIN), ("sec-fetch-site", "same-origin")];
        self.post_with(path, fields, &headers).await
    }

    pub(super) async fn post_with(&mut self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request("POST", path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let form: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.send(request.body(Body::from(form.join("&"))).expect("a request")).await
    }

    pub(super) async fn sign_in(&mut self, who: &str, password: &str) -> Answer {
        self.post("/console/sign-in", &[("who", who), ("password", password), ("way", "password")]).await
    }

    /// Sets an authenticator up and answers its secret and the recovery codes.
    pub(super) async fn set_up_totp(&mut self) -> (Vec<u8>, Vec<String>) {
        let (secret, codes, _) = self.set_up_totp_with().await;
        (secret, codes)
    }

    /// As [`Self::set_up_totp`], and the code that it was confirmed with.
    pub(super) async fn set_up_totp_with(&mut self) -> (Vec<u8>, Vec<String>, String) {
        let begun = self.post("/console/security/totp/begin", &[]).await;
        assert_eq!(begun.to.as_deref(), Some("/console/security/totp"), "{begun:?}");
        let page = self.get("/console/security/totp").await;
        assert_eq!(page.status, StatusCode::OK);
        let letters = between(&page.body, "<code class=\"secret\">", "</code>").replace(' ', "");
        let secret = from_base32(&letters);
        let first = self.code_of(&secret, 0);
        let confirmed = self.post("/console/security/totp", &[("code", &first)]).await;
        assert_eq!(confirmed.status, StatusCode::OK, "{}", confirmed.body);
        let codes = confirmed.body.split("<li><code>").skip(1);
        let codes = codes.map(|rest| rest.split("</code>").next().unwrap_or_default().to_owned()).collect();
        (secret, codes, first)
    }

    /// The authenticator's code so many steps from now.
    pub(super) fn code_of(&self, secret: &[u8], steps: i64) -> String {
        let step = totp::step_at(self.house.now()) + steps;
        let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("any length");
        mac.update(&step.to_be_bytes());
        let digest = mac.finalize().into_bytes();
        // RFC 4226 section 5.3
        let at = usize::from(digest[19] & 0xf);
        let four: [u8; 4] = digest[at..at + 4].try_into().expect("four bytes");
        format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
    }
}

pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).expect("an end").0
}

fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

fn from_base32(letters: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in letters.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter).expect("base 32");
        bits = (bits << 5) | u32::try_from(value).expect("five bits");
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("a byte"));
        }
        bits &= (1 << held) - 1;
    }
    bytes
}
