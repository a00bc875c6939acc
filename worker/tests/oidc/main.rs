//! Signing in to the console with a provider that is not ours: the npm package oidc-provider, over real HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use muneem::{
    console::{Console, oidc::Room, oidc_routes},
    outbound::{
        chance::OsChance,
        clock::SystemClock,
        http::{Timeouts, client},
        oidc::Providers,
    },
};
use muneem_jobs::{
    outbound::Clock,
    people::{
        Authority, Decision,
        oidc::{self, NewProvider},
        signin::{self, Level, NewSession, Session},
    },
    queue,
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use reqwest::Url;
use secrecy::ExposeSecret;
use tower::ServiceExt;
use uuid::Uuid;

const PACKAGE: &str = "oidc-provider@9.13.3";
const SCRIPT: &str = include_str!("provider.mjs");
const ORIGIN: &str = "https://console.example.in";
/// Cookies, as they are named over https.
const SESSION_COOKIE: &str = "__Host-muneem";
const FLOW_COOKIE: &str = "__Host-muneem-oidc";
const ASHA: Uuid = Uuid::from_u128(1);
const RAVI: Uuid = Uuid::from_u128(2);

/// The folder with the package; nothing where there is no Node, and then the test says so.
fn package() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE);
    if !folder.exists() {
        // Whole or not at all: another run may look for it at the same time.
        let draft = tempfile::Builder::new().prefix("oidc-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let installed = Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(draft.path())
            .arg(PACKAGE)
            .stdin(Stdio::null())
            .output();
        if !installed.as_ref().is_ok_and(|done| done.status.success()) {
            return skip(&format!("{installed:?}"));
        }
        let draft = draft.keep();
        if std::fs::rename(&draft, &folder).is_err() {
            let _ = std::fs::remove_dir_all(&draft);
        }
    }
    Some(folder)
}

/// Says what is missing, and fails where completeness is asked for.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to see what did not run")]
fn skip(why: &str) -> Option<PathBuf> {
    println!("SKIPPED: needs Node and {PACKAGE} from npm (apt-get install nodejs npm)");
    assert!(std::env::var("MUNEEM_TESTS_COMPLETE").is_err(), "needs Node and {PACKAGE}: {why}");
    None
}

/// The provider; ends with the test.
struct Real {
    issuer: String,
    child: Child,
    http: reqwest::Client,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Real {
    fn start() -> Option<Self> {
        let folder = package()?;
        // Beside the package, where its import finds it; written whole, as another test may read it.
        let script = folder.join("provider.mjs");
        let draft = tempfile::NamedTempFile::new_in(&folder).expect("a file");
        std::fs::write(draft.path(), SCRIPT).expect("written");
        draft.persist(&script).expect("in place");
        let mut child = Command::new("node")
            .arg(&script)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node starts");
        let told = BufReader::new(child.stdout.take().expect("piped"));
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                if let Some(at) = line.strip_prefix("LISTENS ") {
                    let _ = send.send(at.to_owned());
                }
            }
        });
        let issuer = receive.recv_timeout(Duration::from_secs(60)).expect("it says where it listens");
        Some(Self { issuer, child, http: client(Timeouts::DEFAULT).expect("a client") })
    }

    async fn tell(&self, path: &str) {
        let answer = self.http.get(format!("{}{path}", self.issuer)).send().await.expect("it answers");
        assert!(answer.status().is_success());
    }

    /// Follows a browser's way from `address` until it is sent back to us, and answers where.
    async fn walk(&self, address: &str) -> Url {
        let mut crumbs: BTreeMap<String, String> = BTreeMap::new();
        let mut at = Url::parse(address).expect("an address");
        for _ in 0..20 {
            let cookies = crumbs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
            let answer = self.http.get(at.clone()).header("cookie", cookies).send().await.expect("it answers");
            for set in answer.headers().get_all(header::SET_COOKIE) {
                let pair = set.to_str().expect("text").split(';').next().expect("a pair");
                let (name, value) = pair.split_once('=').expect("a pair");
                crumbs.insert(name.to_owned(), value.to_owned());
            }
            let Some(to) = answer.headers().get(header::LOCATION) else {
                panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default());
            };
            at = at.join(to.to_str().expect("text")).expect("an address");
            if at.as_str().starts_with(ORIGIN) {
                return at;
            }
        }
        panic!("no way back from {address}");
    }
}

struct House {
    db: TestDb,
    console: Arc<Console>,
    room: Arc<Room>,
    router: Router,
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
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let console = Arc::new(Console::for_providers(db.app_pool(), Arc::clone(&clock), Arc::new(OsChance), ORIGIN));
        let vault = Arc::new(Vault::with_root(&db.app_pool(), &[7; 32].into(), clock, Arc::new(OsChance)));
        let providers = Providers::new(Arc::new(SystemClock)).expect("a client").with_keys_pause(Duration::ZERO);
        let room = Arc::new(Room { providers, vault });
        let router = oidc_routes(Arc::clone(&console), Arc::clone(&room));
        Self { db, console, room, router }
    }

    async fn add_provider(&self, handle: &str, issuer: &str, client: (&str, Option<&str>)) {
        let new = NewProvider {
            business_id: None,
            handle: handle.to_owned(),
            label: handle.to_owned(),
            issuer: issuer.to_owned(),
            client_id: client.0.to_owned(),
            client_secret: client.1.map(|secret| secret.to_owned().into()),
            trusted_amr: Vec::new(),
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
        Answered { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn get(&self, path: &str, cookies: &str) -> Answered {
        self.send(Request::get(path).header("cookie", cookies).body(Body::empty()).expect("a request")).await
    }

    /// To the provider: the address there, and the cookie.
    async fn begin(&self, handle: &str) -> (String, String) {
        let answered = self.get(&format!("/console/oidc/{handle}/begin"), "").await;
        assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
        let address = answered.headers[header::LOCATION].to_str().expect("text").to_owned();
        (address, format!("{FLOW_COOKIE}={}", answered.cookie(FLOW_COOKIE).expect("bound")))
    }

    async fn sign_in(&self, real: &Real, handle: &str, account: &str) -> Answered {
        real.tell(&format!("/as/{account}")).await;
        let (address, cookies) = self.begin(handle).await;
        let back = real.walk(&address).await;
        self.get(&path_of(&back), &cookies).await
    }

    async fn session(&self, answered: &Answered) -> Option<Session> {
        let token = answered.cookie(SESSION_COOKIE)?;
        let mut db = self.console.db.acquire().await.expect("a connection");
        signin::find_session(&mut db, &token, self.console.clock.now()).await.expect("asked")
    }

    /// Links `staff`, signed in, with who she is at the provider.
    async fn link(&self, real: &Real, handle: &str, staff: Uuid, account: &str) -> Answered {
        let device = signin::new_token(&OsChance);
        let new = NewSession { staff_id: staff, level: Level::Full, device: &device, device_name: "Firefox" };
        let mut db = self.console.db.acquire().await.expect("a connection");
        let opened = signin::open_session(&mut db, &new, self.console.clock.now(), &OsChance).await.expect("opened");
        drop(db);
        real.tell(&format!("/as/{account}")).await;
        let session = format!("{SESSION_COOKIE}={}", opened.token.expose_secret());
        let request = Request::post(format!("/console/oidc/{handle}/link"))
            .header("cookie", &session)
            .header("host", "console.example.in")
            .header("origin", ORIGIN)
            .header("content-type", "application/x-www-form-urlencoded");
        let page = self.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let (_, rest) = page.body.split_once("<a href=\"").expect("a way on");
        let address = rest.split('"').next().expect("an address").replace("&amp;", "&").replace("&#x3D;", "=");
        let back = real.walk(&address).await;
        let kept = page.cookie(FLOW_COOKIE).expect("bound");
        self.get(&path_of(&back), &format!("{FLOW_COOKIE}={kept}; {session}")).await
    }
}

fn path_of(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

#[tokio::test]
async fn atk_057_a_real_provider_signs_in_who_linked_herself_and_nobody_else() {
    let Some(real) = Real::start() else { return };
    let house = House::new().await;
    house.add_provider("real", &real.issuer, ("muneem", Some("a secret & more"))).await;
    house.add_provider("public", &real.issuer, ("muneem-public", None)).await;
    house.room.providers.probe(&real.issuer).await.expect("it answers as a provider");

    for handle in ["real", "public"] {
        let answered = house.sign_in(&real, handle, "asha").await;
        assert_eq!(
            answered.status,
            StatusCode::FORBIDDEN,
            "{handle}: nobody is linked, whatever the mail address says"
        );
        let linked = house.link(&real, handle, ASHA, "asha").await;
        assert_eq!(linked.status, StatusCode::SEE_OTHER, "{handle}: {}", linked.body);
        let answered = house.sign_in(&real, handle, "asha").await;
        let session = house.session(&answered).await.expect("signed in");
        assert_eq!((session.staff_id, session.level), (ASHA, Level::Full), "{handle}");
        assert_eq!(house.sign_in(&real, handle, "ravi").await.status, StatusCode::FORBIDDEN, "{handle}");
        assert_eq!(house.link(&real, handle, RAVI, "asha").await.status, StatusCode::CONFLICT, "{handle}");
    }

    // What came back once does not come back again.
    real.tell("/as/asha").await;
    let (address, cookies) = house.begin("real").await;
    let back = path_of(&real.walk(&address).await);
    assert_eq!(house.get(&back, &cookies).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.get(&back, &cookies).await.status, StatusCode::FORBIDDEN);

    // A code of another sign-in, put into this one: the provider refuses it, for PKCE does not fit.
    let (theirs, _) = house.begin("real").await;
    let stolen = real.walk(&theirs).await;
    let code = stolen.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let (ours, cookies) = house.begin("real").await;
    let ours = Url::parse(&ours).expect("an address");
    let state = ours.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    let iss = Url::parse_with_params("form:x", [("iss", &real.issuer)]).expect("a query");
    let path = format!("/console/oidc/real/callback?state={state}&code={code}&{}", iss.query().expect("a query"));
    assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN);

    // It changes its key: the new one is read.
    real.tell("/rotate").await;
    let answered = house.sign_in(&real, "real", "asha").await;
    assert!(house.session(&answered).await.is_some(), "{} {}", answered.status, answered.body);

    // It does not know us by this secret.
    house.add_provider("mistaken", &real.issuer, ("muneem", Some("another"))).await;
    let secrets = {
        let mut db = house.console.db.acquire().await.expect("a connection");
        let provider = oidc::load_provider(&mut db, "mistaken").await.expect("there");
        let when = (house.console.clock.now(), &OsChance as _);
        oidc::begin(&mut db, &provider, oidc::Purpose::SignIn, &signin::new_token(&OsChance), when)
            .await
            .expect("begun")
    };
    let registration = muneem::outbound::oidc::Registration {
        issuer: real.issuer.clone(),
        client_id: "muneem".to_owned(),
        client_secret: Some("another".to_owned().into()),
        redirect_uri: format!("{ORIGIN}/console/oidc/real/callback"),
    };
    let address = house.room.providers.authorize_url(&registration, &secrets).await.expect("an address");
    let back = real.walk(&address).await;
    let code = back.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let refused = house.room.providers.identify(&registration, &code, &secrets).await.expect_err("a wrong secret");
    assert!(matches!(refused, muneem::outbound::oidc::Error::CodeRefused { .. }), "{refused:?}");
    assert!(!format!("{refused:?}").contains("another"), "{refused:?}");

    // It goes down on the way.
    let (address, cookies) = house.begin("real").await;
    let back = path_of(&real.walk(&address).await);
    drop(real);
    assert_eq!(house.get(&back, &cookies).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let sessions: i64 =
        sqlx::query_scalar("select count(distinct staff_id) from muneem.people_sessions where level = 'full'")
            .fetch_one(&house.db.pool())
            .await
            .expect("counted");
    assert_eq!(sessions, 2, "of Asha, and of Ravi who was signed in to link");
}
