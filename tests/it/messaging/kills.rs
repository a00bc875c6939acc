//! Messages under fire: processes of `muneem serve` that send, and the one that takes the carrier's webhooks in, are
//! killed while a faulty carrier times out, cuts connections and fails after it took the message. In the end every
//! message is accounted for, and what a phone showed twice was known to be in doubt beforehand.
//!
//! 300 messages and 3 kills with every `cargo test`. 50,000 and 20:
//! `MUNEEM_LONG=1 cargo test --test it -- kills --nocapture`; `MUNEEM_BINARY` names a build of `muneem` to do it with,
//! `MUNEEM_SEED` repeats a round's chances, `MUNEEM_MESSAGES` and `MUNEEM_KILLS` change its size.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use muneem::outbound::{
    chance::OsChance,
    clock::MovedClock,
    http::{Timeouts, client},
};
use muneem_jobs::{
    MIGRATOR,
    evidence::By,
    law,
    messaging::{
        self, Account, Content, Language, MessageClass, NewMessage, Policy, SignInWarning,
        campaign::{self, NewCampaign, NewPerson},
    },
    outbound::{Chance, Clock, Phone, carrier::NumberId},
    people::BusinessId,
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use muneem_tests::{PATIENCE, binary::Running, until};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::serve::free_address;

const SHARMA: BusinessId = BusinessId(Uuid::from_u128(1));
/// Those of the stand-in's first number.
const NUMBER: &str = "106540352242922";
const ACCOUNT: &str = "102290129340398";
/// Processes that send.
const SENDERS: usize = 3;
/// Requested in one transaction.
const TOGETHER: usize = 100;

/// How much fire.
struct Round {
    messages: usize,
    kills: usize,
    seed: u64,
    at_most: Duration,
}

impl Round {
    fn chosen() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let size =
            |name: &str, otherwise: usize| number(name).map_or(otherwise, |n| usize::try_from(n).expect("small"));
        let (messages, kills, at_most) = match std::env::var_os("MUNEEM_LONG") {
            Some(_) => (50_000, 20, Duration::from_secs(2400)),
            None => (300, 3, Duration::from_secs(240)),
        };
        let mut drawn = [0; 8];
        OsChance.fill(&mut drawn);
        let seed = number("MUNEEM_SEED").unwrap_or(u64::from_le_bytes(drawn) % 1_000_000);
        Self { messages: size("MUNEEM_MESSAGES", messages), kills: size("MUNEEM_KILLS", kills), seed, at_most }
    }
}

/// Chances that come again with their seed (SplitMix64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a bound")
    }
}

/// What a process of the round does.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Receives,
    Sends,
}

/// The installation: a database, a carrier, and processes that come and go.
struct House {
    owner: PgPool,
    pool: PgPool,
    clock: MovedClock,
    vault: Arc<Vault>,
    http: reqwest::Client,
    carrier: SocketAddr,
    receiver: SocketAddr,
    environment: Vec<(&'static str, String)>,
    home: tempfile::TempDir,
    started: usize,
    running: Vec<(Part, Running)>,
    _carrier: Running,
    /// Dropped last.
    _db: TestDb,
}

impl House {
    async fn open(seed: u64) -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let (pool, owner) = (db.app_pool(), db.pool());
        let mut conn = owner.acquire().await.unwrap();
        muneem_jobs::schema::migrate(&mut conn).await.unwrap();
        assert!(law::set_sandbox(&mut conn, true).await.unwrap());
        sqlx::query(
            "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
            values ($1, 'sharma-mobiles', 'Sharma Mobiles', now())",
        )
        .bind(SHARMA.0)
        .execute(&mut *conn)
        .await
        .unwrap();
        let clock = MovedClock::default();
        let account = Account {
            business: SHARMA,
            number: NumberId::parse(NUMBER).unwrap(),
            waba_id: ACCOUNT.to_owned(),
            display_phone: Phone::parse("9800000001").unwrap(),
        };
        messaging::set_account(&mut conn, &account, &By::operator(clock.now(), &OsChance)).await.unwrap();
        sqlx::query("update muneem.messaging_accounts set messages_per_second = 1000")
            .execute(&mut *conn)
            .await
            .unwrap();
        drop(conn);

        let (carrier, receiver) = (free_address(), free_address());
        let home = tempfile::tempdir().unwrap();
        let environment = vec![
            ("DATABASE_URL", db.app_url()),
            ("MUNEEM__DATABASE__POOL_SIZE", "10".to_owned()),
            ("MUNEEM__SANDBOX__ENABLED", "true".to_owned()),
            ("MUNEEM__SERVER__LISTEN", receiver.to_string()),
            // Whose process was killed is missed soon.
            ("MUNEEM__QUEUE__LEASE_SECS", "5".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", format!("http://{carrier}")),
            ("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "sandbox-access-token".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS", "sandbox-app-secret".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__VERIFY_TOKEN", "sandbox-verify-token".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__REQUEST_TIMEOUT_SECS", "1".to_owned()),
        ];
        let arguments = [
            "sandbox".to_owned(),
            format!("--listen={carrier}"),
            format!("--mail={}", free_address()),
            format!("--seed={seed}"),
            format!("--callback=http://{receiver}/webhooks/whatsapp"),
            "--rate=1000".to_owned(),
            "--instant".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let standing = Running::start_writing(&arguments, home.path(), &[], &home.path().join("carrier.log"));
        let vault = Vault::with_root(&pool, &[7; 32].into(), Arc::new(clock.clone()), Arc::new(OsChance));
        let house = Self {
            owner,
            pool,
            clock,
            vault: Arc::new(vault),
            http: client(Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(60) }).unwrap(),
            carrier,
            receiver,
            environment,
            home,
            started: 0,
            running: Vec::new(),
            _carrier: standing,
            _db: db,
        };
        until("the carrier is there", || async { house.asked().await.is_some() }).await;
        house
    }

    fn start(&mut self, part: Part) {
        self.started += 1;
        let only = if part == Part::Receives { "api" } else { "workers" };
        let log = self.home.path().join(format!("{only}-{}.log", self.started));
        let running = Running::start_writing(&["serve", "--only", only], self.home.path(), &self.environment, &log);
        self.running.push((part, running));
    }

    /// Kills one of them with SIGKILL, and starts another in its place.
    fn kill(&mut self, which: usize) -> Part {
        let (part, running) = self.running.swap_remove(which);
        // Dropped, it is killed and waited for.
        drop(running);
        self.start(part);
        part
    }

    async fn is_up(&self) -> bool {
        let url = format!("http://{}/health/live", self.receiver);
        self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    async fn asked(&self) -> Option<Value> {
        let url = format!("http://{}/sandbox/oracle?summary=true", self.carrier);
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    /// Figures of the carrier.
    async fn summary(&self) -> Value {
        self.asked().await.expect("the carrier answers")
    }

    async fn control(&self, what: &str, body: &Value) {
        let url = format!("http://{}/sandbox/{what}", self.carrier);
        let answer = self.http.post(url).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{what}: {}", answer.status());
    }

    /// Everything that may go wrong goes wrong with some, as long as the round lasts. A share counts from the last one's.
    async fn play_faults(&self) {
        let answer = |status: u16, body: &str| json!({ "accept_then_answer": { "status": status, "body": body } });
        let refuse = |code: i64| json!({ "refuse": { "code": code } });
        let what = [
            (0.002, json!("accept_then_silence")),
            (0.004, json!("silence")),
            (0.005, json!({ "answer_late": { "millis": 1500 } })),
            (0.010, json!("accept_then_cut")),
            (0.015, answer(500, "html")),
            (0.020, answer(502, "empty")),
            (0.025, answer(200, "half_json")),
            (0.030, refuse(131_000)),
            (0.035, refuse(131_016)),
            (0.040, refuse(2)),
            (0.045, json!("report_first")),
        ];
        let mut faults = vec![json!({ "chance": 0.005, "times": 1_000_000, "what": "cut" })];
        faults.extend(what.map(|(chance, what)| json!({ "chance": chance, "times": 1_000_000, "what": what })));
        let callbacks = json!({ "batch": 20, "gather_millis": 20, "shuffled": true, "repeated": 0.05 });
        self.control("faults", &json!({ "faults": faults, "callbacks": callbacks })).await;
    }

    /// Somebody writes, so that webhooks of the number are seen to arrive, and the clock goes on past every window.
    async fn forward(&self, by: TimeDelta) {
        self.control("inbound", &json!({ "from": "919999999999", "text": "hello" })).await;
        let moved_by = law::clock_offset(&self.pool).await.unwrap() + by;
        self.clock.set_offset(moved_by);
        law::move_clock(&mut self.pool.acquire().await.unwrap(), moved_by).await.unwrap();
        self.control("inbound", &json!({ "from": "919999999999", "text": "hello" })).await;
    }

    /// Messages by state.
    async fn states(&self) -> BTreeMap<String, i64> {
        sqlx::query_as::<_, (String, i64)>("select state, count(*) from muneem.messaging_messages group by state")
            .fetch_all(&self.owner)
            .await
            .unwrap()
            .into_iter()
            .collect()
    }
}

fn content() -> Content {
    Content::SignInWarning(SignInWarning {
        name: "Asha".to_owned(),
        business_name: "Sharma Mobiles".to_owned(),
        event: "the shop is open".to_owned(),
        at: "8 November 2026, 10:00".to_owned(),
    })
}

/// Everybody is another person, so that a phone that shows two things shows one message twice.
fn phone(nth: usize) -> Phone {
    Phone::parse(&format!("+9197{nth:08}")).unwrap()
}

/// What a business asks for while everything burns: a third of a campaign, the rest one by one under both policies.
async fn ask(pool: PgPool, vault: Arc<Vault>, clock: MovedClock, messages: usize) {
    let of_campaign = messages / 3;
    let by = || By::operator(clock.now(), &OsChance);
    let mut conn = pool.acquire().await.unwrap();
    let new = NewCampaign {
        business: SHARMA,
        name: "Diwali hours".to_owned(),
        purpose: "service.opening_hours".to_owned(),
        class: MessageClass::Transactional,
        template: "sign_in_warning".to_owned(),
        rests_after: None,
        expires_at: clock.now() + TimeDelta::days(2),
    };
    let id = campaign::create(&mut conn, &new, &by()).await.unwrap();
    let people: Vec<_> = (0..of_campaign)
        .map(|nth| NewPerson { to: phone(nth), mail: None, content: content(), language: Language::En })
        .collect();
    for people in people.chunks(campaign::PEOPLE_AT_ONCE) {
        campaign::add_people(&mut conn, &vault, (SHARMA, id), people, &by()).await.unwrap();
    }
    campaign::start(&mut conn, (SHARMA, id), &by()).await.unwrap();
    let rest: Vec<_> = (of_campaign..messages).collect();
    for together in rest.chunks(TOGETHER) {
        let mut tx = pool.begin().await.unwrap();
        for nth in together {
            let policy = if nth % 2 == 0 { Policy::AtLeastOnce } else { Policy::AtMostOnce };
            let (words, why) = ((content(), Language::En), (policy, "people.sign_in_warning"));
            let new = NewMessage {
                expires_at: Some(clock.now() + TimeDelta::days(2)),
                ..NewMessage::new(SHARMA, phone(*nth), words, why)
            };
            messaging::request(&mut tx, &vault, &clock, &OsChance, &new).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_090_kills_while_a_faulty_carrier_takes_messages_lose_none_and_double_none_unknown() {
    let round = Round::chosen();
    let mut chance = Seeded(round.seed);
    println!("seed {}: {} messages, {} kills", round.seed, round.messages, round.kills);
    let begun = Instant::now();
    let mut house = House::open(round.seed).await;
    house.play_faults().await;
    house.start(Part::Receives);
    for _ in 0..SENDERS {
        house.start(Part::Sends);
    }
    until("webhooks are taken in", || house.is_up()).await;
    // Servers of tests have no autovacuum; after some thousand rows it is missed.
    let owner = house.owner.clone();
    let tidying = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(15)).await;
            for table in ["messages", "attempts", "events", "webhooks", "pairs", "paces"] {
                let statement = format!("vacuum (analyze) muneem.messaging_{table}");
                sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&owner).await.unwrap();
            }
            sqlx::query("vacuum (analyze) muneem.queue_jobs").execute(&owner).await.unwrap();
        }
    });
    let asking = tokio::spawn(ask(house.pool.clone(), Arc::clone(&house.vault), house.clock.clone(), round.messages));

    // A kill whenever so much was posted; the last one while there is still something to lose.
    let mut kills: Vec<_> = (0..round.kills).map(|_| chance.below(round.messages * 9 / 10)).collect();
    kills.sort_unstable();
    let mut killed = BTreeMap::from([("senders", 0), ("receivers", 0)]);
    for at in kills {
        loop {
            let posts = house.summary().await["posts"]["messages"].as_u64().unwrap();
            if usize::try_from(posts).unwrap() >= at {
                break;
            }
            assert!(begun.elapsed() < round.at_most, "only {posts} were posted: {:?}", house.states().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let which = chance.below(house.running.len());
        let part = house.kill(which);
        *killed.get_mut(if part == Part::Sends { "senders" } else { "receivers" }).unwrap() += 1;
    }
    asking.await.unwrap();
    settle(&house, &round, begun).await;
    tidying.abort();
    let oracle = format!("http://{}/sandbox/oracle", house.carrier);
    let oracle: Value = house.http.get(oracle).send().await.unwrap().json().await.unwrap();
    let told = check(&house, &round, &oracle).await;
    println!("killed {killed:?} in {:?}: {told}", begun.elapsed());
}

/// Lets time pass until nothing moves any more: leases run out, windows pass, what is presumed lost goes again.
async fn settle(house: &House, round: &Round, begun: Instant) {
    let (mut before, mut since) = (BTreeMap::new(), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let states = house.states().await;
        // Of those that are reported before they are answered nobody hears that they were read.
        let ends = ["delivered", "read", "unknown_final", "failed", "skipped"];
        let ended: i64 = ends.iter().filter_map(|end| states.get(*end)).sum();
        if usize::try_from(ended).unwrap() == round.messages {
            let summary = house.summary().await;
            // A late word may still find a message read twice.
            if summary["webhooks"]["waiting"] == 0 && summary["agenda"] == 0 && applied(house).await {
                return;
            }
        }
        assert!(begun.elapsed() < round.at_most, "{states:?} after {:?}", begun.elapsed());
        if states != before {
            (before, since) = (states, Instant::now());
        } else if since.elapsed() > Duration::from_secs(1) {
            house.forward(TimeDelta::seconds(130)).await;
            since = Instant::now();
        }
        assert!(since.elapsed() < PATIENCE, "nothing moves: {before:?}");
    }
}

/// Whether every webhook that was kept has been applied.
async fn applied(house: &House) -> bool {
    let left: i64 = sqlx::query_scalar("select count(*) from muneem.queue_jobs where kind = 'messaging.apply_webhook'")
        .fetch_one(&house.owner)
        .await
        .unwrap();
    left == 0
}

/// One message, as the database has it at the end.
#[derive(sqlx::FromRow)]
struct End {
    message_id: Uuid,
    policy: String,
    state: String,
    doubled: bool,
    /// How often it is on record that nobody knew whether it was sent, and that silence was taken for loss.
    unknown: i64,
    presumed_lost: i64,
}

async fn check(house: &House, round: &Round, oracle: &Value) -> String {
    let ends: Vec<End> = sqlx::query_as(
        "with said as (
            select body ->> 'verb' as verb, body -> 'object' ->> 'id' as id, body -> 'details' ->> 'verdict' as verdict
            from (select convert_from(body, 'UTF8')::json as body from muneem.evidence_events
                  where position('\"messaging.outcome_' in convert_from(body, 'UTF8')) > 0) as bodies
        ), counted as (
            select id, count(*) filter (where verb = 'messaging.outcome_unknown') as unknown,
                count(*) filter (where verdict = 'presumed_lost') as presumed_lost
            from said
            group by id
        )
        select m.message_id, m.policy, m.state, m.duplicate_delivered_at is not null as doubled,
            coalesce(c.unknown, 0) as unknown, coalesce(c.presumed_lost, 0) as presumed_lost
        from muneem.messaging_messages m
        left join counted c on c.id = m.message_id::text",
    )
    .fetch_all(&house.owner)
    .await
    .unwrap();
    assert_eq!(ends.len(), round.messages);

    // What the phones showed, by the message that our reference names: w1.MESSAGE.ATTEMPT.TAG.
    let mut shown: BTreeMap<Uuid, i64> = BTreeMap::new();
    for one in oracle["recipients"].as_object().unwrap().values().flat_map(|chat| chat.as_array().unwrap()) {
        let reference = one["ref"].as_str().unwrap();
        let message: Uuid = reference.split('.').nth(1).unwrap().parse().unwrap();
        assert!(!one["displayed_at"].is_null(), "{reference} was taken and never shown");
        *shown.entry(message).or_default() += 1;
    }
    let known: Vec<String> =
        sqlx::query_scalar("select ref from muneem.messaging_attempts").fetch_all(&house.owner).await.unwrap();
    let known: std::collections::BTreeSet<_> = known.iter().map(String::as_str).collect();
    for (reference, posts) in oracle["posts"]["by_ref"].as_object().unwrap() {
        assert_eq!(posts, 1, "{reference} was posted again");
        assert!(known.contains(reference.as_str()), "{reference} was posted without its attempt on record");
    }

    let (mut read, mut in_doubt, mut twice, mut unknown) = (0, 0, 0, 0);
    for end in &ends {
        let times = shown.remove(&end.message_id).unwrap_or(0);
        let what = format!("{}: {} {}, shown {times} times", end.message_id, end.policy, end.state);
        unknown += end.unknown;
        match end.state.as_str() {
            "read" | "delivered" => read += 1,
            // Nobody could know, and that stands in the log; nor did anybody see it.
            "unknown_final" => {
                in_doubt += 1;
                assert!(end.unknown > 0 && end.policy == "at_most_once", "{what}");
            }
            _ => panic!("{what}"),
        }
        assert_eq!(times > 0, end.state != "unknown_final", "{what}");
        if times > 1 {
            twice += 1;
            assert_eq!(end.policy, "at_least_once", "{what}");
            assert!(end.unknown >= times - 1 && end.presumed_lost >= times - 1, "{what}");
        }
        assert_eq!(end.doubled, times > 1, "{what}");
    }
    assert!(shown.is_empty(), "messages that nobody asked for were sent: {shown:?}");
    let dead: i64 = sqlx::query_scalar("select count(*) from muneem.queue_dead").fetch_one(&house.owner).await.unwrap();
    assert!(unknown > 0, "nothing was ever in doubt: that is no fire");
    format!(
        "{} posts, {unknown} times unknown, {read} on their phones, {in_doubt} left in doubt as their policy says, {twice} shown \
         twice as their policy says, none lost, {dead} jobs set aside",
        oracle["posts"]["messages"]
    )
}
