//! Every error code of the carrier's table, met twice: in the answer to a real POST, and in a real `failed` status. What
//! must follow is written here by hand, after Meta's list of error codes, and not read from the table: whoever changes one
//! of them has to change the other.
//!
//! All codes of a round go through one shop at once. A code that stops a sender has a business, an account and a number of
//! its own; the others share one number and have a recipient each. Time goes from one job to the next, so that nothing
//! comes too early without being seen.

use chrono::{DateTime, Utc};
use muneem_jobs::{
    messaging::{
        Attempt, AttemptOutcome, SignInWarning, Timeline,
        wishes::{self, Channel, Class as WishClass, Contact, Item, Question, Verdict},
    },
    outbound::carrier::CODES,
};

use super::*;

/// What must follow.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The message has failed, and nothing else is changed.
    Fails,
    /// The same, and this stands against the next bill and the next offer to the recipient.
    Marks(Option<&'static str>, &'static str),
    /// Tried again after so many seconds each; after the last of them it has failed.
    Again(&'static [i64]),
    /// Nothing more from this scope; one message finds out after so many seconds, the last of them repeating.
    Holds(&'static str, &'static [i64]),
    /// The message comes again after so many seconds; what sells is held beyond that, at this scope.
    HoldsOffers(&'static str, &'static [i64]),
    /// Nobody knows whether it was sent; the next attempt not before so many seconds.
    Unknown(i64),
}

use Then::{Again, Fails, Holds, HoldsOffers, Marks, Unknown};

struct Case {
    code: i64,
    /// With which HTTP status the carrier answers, as far as it is published; else 400.
    http: i16,
    /// In the answer to the POST.
    answered: Then,
    /// In a `failed` status.
    told: Then,
}

const fn both(code: i64, http: i16, then: Then) -> Case {
    Case { code, http, answered: then, told: then }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// A person has to mend it.
const BY_HAND: &[i64] = &[5 * MINUTE, 15 * MINUTE, HOUR];
/// A limit of calls that fills up within the hour.
const REFILL: &[i64] = &[5 * MINUTE, 10 * MINUTE, 20 * MINUTE, HOUR];
/// Over which webhooks are waited for before silence counts.
const WINDOW: i64 = 120;

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Authentication, permissions: nothing of the token goes.
    both(0, 401, Holds("credential", BY_HAND)),
    both(3, 500, Holds("credential", BY_HAND)),
    both(10, 403, Holds("credential", BY_HAND)),
    both(102, 400, Holds("credential", BY_HAND)),
    both(104, 400, Holds("credential", BY_HAND)),
    both(190, 401, Holds("credential", BY_HAND)),
    both(200, 403, Holds("credential", BY_HAND)),
    both(299, 403, Holds("credential", BY_HAND)),
    both(131_005, 403, Holds("credential", BY_HAND)),
    // Limits.
    both(4, 429, Holds("app", REFILL)),
    both(17, 429, Again(REFILL)),
    both(32, 429, Again(REFILL)),
    both(613, 429, Again(REFILL)),
    both(80_007, 429, Holds("account", REFILL)),
    both(80_008, 429, Holds("account", REFILL)),
    both(130_429, 400, Again(&[1, 2, 4, 8, 16, 32, 60, 60, 60, 60])),
    both(131_056, 400, Again(&[1, 4, 16, 64, 256])),
    both(131_057, 500, Again(&[60, 120, 300])),
    // Integrity.
    both(131_048, 400, HoldsOffers("number", &[HOUR])),
    both(131_064, 400, Holds("account", BY_HAND)),
    both(368, 403, Holds("account", BY_HAND)),
    both(131_031, 403, Holds("account", BY_HAND)),
    // Maybe sent, where it is the answer; surely not, where it is told afterwards.
    Case { code: 1, http: 400, answered: Unknown(30), told: Again(&[30, 120, 600]) },
    Case { code: 2, http: 503, answered: Unknown(15), told: Again(&[15, 60, 300, 900]) },
    Case { code: 506, http: 400, answered: Unknown(30), told: Fails },
    Case { code: 131_000, http: 500, answered: Unknown(30), told: Again(&[300, 3600]) },
    Case { code: 131_016, http: 500, answered: Unknown(30), told: Again(&[30, 120, 900]) },
    // The request.
    both(100, 400, Fails),
    both(131_008, 400, Fails),
    both(131_009, 400, Fails),
    both(131_021, 400, Fails),
    both(131_030, 400, Fails),
    both(131_043, 400, Fails),
    both(131_047, 400, Fails),
    both(131_051, 400, Fails),
    both(131_052, 400, Fails),
    Case { code: 131_053, http: 400, answered: Fails, told: Again(&[60]) },
    both(131_055, 400, Fails),
    both(131_062, 400, Fails),
    both(134_011, 404, Fails),
    both(135_000, 400, Again(&[60])),
    // The recipient.
    both(130_403, 400, Marks(Some("channel_closed"), "channel_closed")),
    both(130_472, 400, Fails),
    both(130_497, 403, Fails),
    // Once is chance: `undeliverable_twice_a_week_apart_closes_the_channel`.
    both(131_026, 400, Marks(None, "no_consent")),
    both(131_049, 400, Fails),
    both(131_050, 400, Marks(None, "marketing_stopped")),
    both(137_000, 400, Marks(Some("identity_changed"), "identity_changed")),
    // The account and the number.
    both(33, 400, Holds("number", BY_HAND)),
    both(131_037, 400, Holds("number", BY_HAND)),
    both(131_042, 400, Holds("account", BY_HAND)),
    both(131_045, 500, Holds("number", BY_HAND)),
    both(131_063, 400, HoldsOffers("account", &[5 * MINUTE])),
    // The template.
    both(132_000, 400, Fails),
    both(132_001, 404, Holds("template", &[MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR])),
    both(132_005, 400, Fails),
    both(132_007, 400, Holds("template", BY_HAND)),
    both(132_008, 400, Fails),
    both(132_012, 400, Fails),
    both(132_015, 400, Holds("template", &[HOUR, 3 * HOUR])),
    both(132_016, 400, Fails),
    both(132_018, 400, Fails),
    both(132_068, 400, Holds("template", BY_HAND)),
    both(132_069, 400, Again(&[HOUR, HOUR, HOUR])),
    both(134_100, 400, Fails),
    both(134_101, 400, Again(&[600, 600, 600])),
    both(134_102, 500, Holds("template", BY_HAND)),
    both(2_388_019, 400, Holds("template", BY_HAND)),
    both(2_388_023, 400, Fails),
    both(2_388_024, 400, Fails),
    both(2_388_039, 400, Again(&[24 * HOUR])),
    both(2_388_040, 400, Fails),
    both(2_388_047, 400, Fails),
    both(2_388_072, 400, Fails),
    both(2_388_073, 400, Fails),
    both(2_388_293, 400, Fails),
    both(2_388_299, 400, Fails),
    // Registration.
    both(133_000, 500, Again(&[60])),
    both(133_004, 503, Again(&[60, 120, 240, 480, 900])),
    both(133_005, 400, Holds("number", BY_HAND)),
    both(133_006, 400, Holds("number", BY_HAND)),
    both(133_008, 400, Holds("number", BY_HAND)),
    both(133_009, 400, Holds("number", BY_HAND)),
    both(133_010, 400, Holds("number", BY_HAND)),
    both(133_015, 400, Again(&[300, 300])),
    both(133_016, 400, Holds("number", &[72 * HOUR])),
    both(136_024, 400, Fails),
    both(136_025, 400, Fails),
    both(2_388_012, 400, Holds("number", BY_HAND)),
    both(2_388_091, 400, Holds("number", BY_HAND)),
    both(2_388_093, 400, Holds("number", BY_HAND)),
    both(2_388_103, 400, Holds("number", BY_HAND)),
    both(2_494_100, 400, Holds("number", &[5 * MINUTE])),
    both(2_593_107, 400, Fails),
    both(2_593_108, 400, Fails),
];

#[test]
fn every_code_of_the_table_has_a_case_and_every_case_a_code() {
    for row in CODES {
        assert!(CASES.iter().any(|case| row.codes().contains(&case.code)), "{} has no case", row.meaning);
        let ends = [*row.codes().start(), *row.codes().end()];
        assert!(ends.iter().all(|code| CASES.iter().any(|case| case.code == *code)), "{}", row.meaning);
    }
    for (place, case) in CASES.iter().enumerate() {
        assert!(CODES.iter().any(|row| row.codes().contains(&case.code)), "{} is in no list", case.code);
        assert!(!CASES[..place].iter().any(|other| other.code == case.code), "{} stands twice", case.code);
    }
}

/// How a code is met.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    Answered,
    Told,
}

impl Met {
    fn then(self, case: &Case) -> Then {
        match self {
            Self::Answered => case.answered,
            Self::Told => case.told,
        }
    }

    fn what(self, code: i64) -> Value {
        match self {
            Self::Answered => json!({ "refuse": { "code": code } }),
            Self::Told => json!({ "fail_later": { "code": code } }),
        }
    }

    /// What an attempt comes to that meets it.
    const fn outcome(self) -> AttemptOutcome {
        match self {
            Self::Answered => AttemptOutcome::Refused,
            Self::Told => AttemptOutcome::Failed,
        }
    }
}

/// A case under way.
struct Trial {
    case: &'static Case,
    then: Then,
    business: BusinessId,
    number: String,
    waba: String,
    /// The recipient of its first message.
    to: String,
    messages: Vec<MessageId>,
}

/// Whether a code has consequences for others than its message, so that it needs a number of its own.
const fn stands_apart(case: &Case, then: Then) -> bool {
    // What a number's throughput is, is the number's.
    matches!(then, Holds(..) | HoldsOffers(..) | Unknown(_)) || matches!(case.code, 130_429 | 131_057)
}

fn number_of(place: usize) -> Number {
    let phone = Phone::parse(&format!("98000{:05}", place + 2)).expect("a mobile");
    let own = Number::new(&format!("20000{place:05}"), &format!("30000{place:05}"), "One of many", phone);
    Number { messages_per_second: 1000, ..own }
}

impl Shop {
    async fn open_for(met: Met) -> (Self, Vec<Trial>) {
        let apart = |case: &Case| stands_apart(case, met.then(case));
        let numbers = CASES.iter().enumerate().filter(|(_, case)| apart(case)).map(|(place, _)| number_of(place));
        let shop = Self::open_beside(None, numbers.collect()).await;
        let mut conn = shop.deps.db.acquire().await.expect("a connection");
        let mut trials = Vec::new();
        for (place, case) in CASES.iter().enumerate() {
            let then = met.then(case);
            let mut trial = Trial {
                case,
                then,
                business: shop.business,
                number: Options::NUMBER.to_owned(),
                waba: Options::ACCOUNT.to_owned(),
                to: format!("91982{place:07}"),
                messages: Vec::new(),
            };
            if apart(case) {
                let own = number_of(place);
                trial.business = BusinessId(shop.deps.chance.uuid_v7(shop.clock.now()));
                (trial.number, trial.waba) = (own.id, own.waba_id);
                sqlx::query("insert into muneem.people_businesses values ($1, $2, $2, now())")
                    .bind(trial.business.0)
                    .bind(format!("shop-{place}"))
                    .execute(&shop.db.pool())
                    .await
                    .expect("a business");
                let account = messaging::Account {
                    business: trial.business,
                    number: NumberId::parse(&trial.number).expect("digits"),
                    waba_id: trial.waba.clone(),
                    display_phone: own.display_phone,
                };
                let by = By::operator(shop.clock.now(), &OsChance);
                messaging::set_account(&mut conn, &account, &by).await.expect("an account");
            }
            trials.push(trial);
        }
        drop(conn);
        // So many at once take their time at the rate that a number begins with.
        shop.control("numbers", &json!({ "messages_per_second": 1000 })).await;
        sqlx::query("update muneem.messaging_accounts set messages_per_second = 1000")
            .execute(&shop.db.pool())
            .await
            .expect("faster");
        (shop, trials)
    }

    async fn warn(&self, business: BusinessId, to: &str, policy: Policy, language: Language) -> MessageId {
        let content = Content::SignInWarning(SignInWarning {
            name: "Asha".into(),
            business_name: "Sharma Mobiles".into(),
            event: "a new device".into(),
            at: "8 November 2026, 10:00".into(),
        });
        let to = Phone::parse(&format!("+{to}")).expect("a mobile");
        let new = NewMessage {
            // Longer than the longest wait.
            expires_at: Some(self.clock.now() + TimeDelta::days(60)),
            ..NewMessage::new(business, to, (content, language), (policy, "people.sign_in_warning"))
        };
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let id = messaging::request(&mut tx, &self.deps.vault, &self.clock, &OsChance, &new).await.expect("a message");
        tx.commit().await.expect("committed");
        id
    }

    async fn script(&self, faults: Vec<Value>) {
        self.control("faults", &json!({ "faults": faults })).await;
    }

    /// Runs what is due and waits for what webhooks tell of it, until every message waits for time or has ended.
    async fn quiet(&self) {
        for _ in 0..1000 {
            self.run_due_jobs(None).await;
            let moving: i64 = sqlx::query_scalar(
                "select count(*) from muneem.messaging_messages where state in ('posting', 'accepted', 'sent', 'delivered')",
            )
            .fetch_one(&self.db.pool())
            .await
            .expect("a count");
            if moving == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something neither ended nor waits");
    }

    /// Goes to the instant of the next job; false when none is near.
    async fn to_the_next(&self) -> bool {
        let wait: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from min(run_at) - muneem.now())::float8 from muneem.queue_jobs
             where kind in ('messaging.send', 'messaging.reconcile') and run_at < muneem.now() + interval '10 days'",
        )
        .fetch_one(&self.db.pool())
        .await
        .expect("a wait");
        let Some(wait) = wait else { return false };
        let by = TimeDelta::seconds(wait.max(0.0).ceil() as i64);
        self.advance(by).await;
        // The carrier's own limits are kept by real time: the pretended time passes for them too.
        for statement in [
            "update muneem.messaging_paces set next_at = next_at - $1, slowed_at = slowed_at - $1, look_at = look_at - $1",
            "update muneem.messaging_pairs set next_at = next_at - $1",
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(by).execute(&self.db.pool()).await.expect("later");
        }
        true
    }

    async fn holds_of(&self, trial: &Trial) -> Vec<messaging::Hold> {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        messaging::list_health(&mut conn, Some(trial.business), self.clock.now()).await.expect("readable").1
    }

    async fn timeline_of(&self, trial: &Trial, id: MessageId) -> Timeline {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        messaging::find_timeline(&mut conn, Some(trial.business), id).await.expect("readable").expect("there")
    }

    /// What stands against an offer to this person.
    async fn against_offers(&self, to: &str) -> String {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let to = Contact::Phone(Phone::parse(&format!("+{to}")).expect("a mobile"));
        let question = Question {
            class: WishClass::Marketing,
            purpose: "marketing.offers",
            channel: Channel::Whatsapp,
            last_way: false,
        };
        let item = Item { to: &to, others: &[], question };
        let verdicts = wishes::judge_each(&mut conn, &self.deps.vault, self.business, &[item], self.clock.now()).await;
        match verdicts.expect("judged").as_slice() {
            [Verdict::Skipped(reason)] => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// Seconds between the end of an attempt and the beginning of the next.
fn gaps(attempts: &[Attempt]) -> Vec<f64> {
    let millis = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).num_milliseconds() as f64 / 1000.0;
    attempts.windows(2).map(|pair| millis(pair[0].ended_at.expect("it ended"), pair[1].started_at)).collect()
}

fn outcomes(attempts: &[Attempt]) -> Vec<AttemptOutcome> {
    attempts.iter().map(|attempt| attempt.outcome).collect()
}

/// Each wait at least as long as it should be, and not much longer: another's instant may come between.
fn assert_waits(gaps: &[f64], waits: &[i64], what: &str) {
    assert_eq!(gaps.len(), waits.len(), "{what}: {gaps:?}");
    for (gap, wait) in gaps.iter().zip(waits) {
        let wait = *wait as f64;
        assert!(*gap >= wait && *gap < wait * 1.2 + 90.0, "{what}: waited {gaps:?}, not {waits:?}");
    }
}

#[tokio::test]
async fn what_is_answered_with_each_code_follows_its_class() {
    round(Met::Answered).await;
}

#[tokio::test]
async fn what_is_told_afterwards_with_each_code_follows_its_class() {
    round(Met::Told).await;
}

async fn round(met: Met) {
    let (shop, mut trials) = Shop::open_for(met).await;
    begin(&shop, met, &mut trials).await;
    shop.quiet().await;
    for trial in &mut trials {
        follow_up(&shop, trial).await;
    }
    shop.quiet().await;
    for trial in &trials {
        assert_stands_while_it_lasts(&shop, met, trial).await;
    }
    if met == Met::Answered {
        // Whoever finds out whether a hold is over meets it once more.
        let held = trials.iter().filter(|trial| matches!(trial.then, Holds(..)));
        let faults = held.map(|trial| json!({ "from": trial.number, "what": met.what(trial.case.code) }));
        shop.script(faults.collect()).await;
    }
    for _ in 0..400 {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from muneem.messaging_messages
             where state not in ('read', 'failed', 'skipped', 'unknown_final')",
        )
        .fetch_one(&shop.db.pool())
        .await
        .expect("a count");
        if open == 0 || !shop.to_the_next().await {
            break;
        }
        shop.quiet().await;
    }
    for trial in &trials {
        assert_ended(&shop, met, trial).await;
    }
    shop.assert_no_reference_twice().await;
    assert_marked(&shop, &trials).await;
    assert_country_is_shown(&shop).await;
}

/// Asks for the first messages, with what happens to them.
async fn begin(shop: &Shop, met: Met, trials: &mut [Trial]) {
    let mut faults = Vec::new();
    for trial in trials.iter() {
        let what = met.what(trial.case.code);
        let (spent, from) = (format!("91983{}", &trial.to[5..]), &trial.number);
        match trial.then {
            Fails | Marks(..) | Holds(..) | HoldsOffers(..) => faults.push(json!({ "to": trial.to, "what": what })),
            Again(waits) => {
                faults.push(json!({ "to": trial.to, "times": waits.len(), "what": what }));
                faults.push(json!({ "to": spent, "times": waits.len() + 1, "what": what }));
            }
            Unknown(_) => faults.push(json!({ "from": from, "times": 2, "what": what })),
        }
    }
    shop.script(faults).await;
    for trial in trials {
        let mut asked = vec![(trial.to.clone(), Policy::AtLeastOnce)];
        match trial.then {
            Again(_) => asked.push((format!("91983{}", &trial.to[5..]), Policy::AtLeastOnce)),
            Unknown(_) => asked.push((format!("91984{}", &trial.to[5..]), Policy::AtMostOnce)),
            _ => {}
        }
        for (to, policy) in asked {
            trial.messages.push(shop.warn(trial.business, &to, policy, Language::En).await);
        }
    }
}

/// What comes to the same sender while it is held; and that webhooks arrive, for those whose end nobody knows.
async fn follow_up(shop: &Shop, trial: &mut Trial) {
    let other = format!("91985{}", &trial.to[5..]);
    match trial.then {
        Holds(scope, _) => {
            trial.messages.push(shop.warn(trial.business, &other, Policy::AtLeastOnce, Language::En).await);
            if scope == "template" {
                trial.messages.push(shop.warn(trial.business, &other, Policy::AtLeastOnce, Language::Hi).await);
            }
        }
        HoldsOffers(..) => {
            trial.messages.push(shop.warn(trial.business, &other, Policy::AtLeastOnce, Language::En).await);
        }
        Unknown(_) => {
            let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
                "metadata": { "phone_number_id": trial.number },
                "messages": [{ "id": format!("wamid.{}", trial.number), "type": "text",
                    "timestamp": shop.clock.now().timestamp().to_string(), "text": { "body": "hello" } }] } }] }] })
            .to_string();
            assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
        }
        Fails | Marks(..) | Again(_) => {}
    }
}

/// While it lasts: the sender is held for a reason that people can read, and what waits says what it waits for.
async fn assert_stands_while_it_lasts(shop: &Shop, met: Met, trial: &Trial) {
    let code = trial.case.code;
    let holds = shop.holds_of(trial).await;
    let first = shop.timeline_of(trial, trial.messages[0]).await;
    match trial.then {
        Holds(scope, waits) => {
            assert_eq!(holds.len(), 1, "{code}: {holds:?}");
            let hold = &holds[0];
            let key = match scope {
                "credential" | "app" => "installation".to_owned(),
                "account" => trial.waba.clone(),
                "number" => trial.number.clone(),
                _ => format!("{}/sign_in_warning_v1/en", trial.waba),
            };
            assert_eq!((hold.scope.as_str(), &hold.key, hold.covers.as_str()), (scope, &key, "all"), "{code}");
            assert_eq!((hold.code, hold.strikes), (Some(code), 1));
            assert!(hold.meaning.is_some_and(|meaning| meaning.starts_with("Cloud API error ")), "{hold:?}");
            assert_eq!((hold.until - hold.since).num_seconds(), waits[0], "{code}");
            for id in &trial.messages[..2] {
                let message = shop.timeline_of(trial, *id).await.message;
                assert_eq!((message.state, message.error_code), (State::Queued, Some(code)), "{code}");
                assert_eq!(message.held_scope.as_deref(), Some(scope), "{code}");
            }
            assert_eq!(first.attempts.len(), 1, "{code}: one POST found it out");
            assert_eq!(shop.timeline_of(trial, trial.messages[1]).await.attempts.len(), 0, "{code}: no other tried");
            // Another language of the same words is another template.
            if let Some(free) = trial.messages.get(2) {
                assert_eq!(shop.timeline_of(trial, *free).await.message.state, State::Read, "{code}");
            }
        }
        HoldsOffers(scope, _) => {
            let offers = holds.iter().find(|hold| hold.covers == "marketing");
            let offers = offers.unwrap_or_else(|| panic!("{code}: {holds:?}"));
            assert_eq!((offers.scope.as_str(), offers.code), (scope, Some(code)));
            assert_eq!(first.message.state, State::Queued, "{code}");
        }
        Unknown(_) => {
            assert_eq!(first.message.state, State::Unknown, "{code}");
            assert_eq!(outcomes(&first.attempts), [AttemptOutcome::Unknown], "{code}");
            assert!(holds.is_empty(), "{code}");
        }
        // Its first wait may be over by now.
        Again(_) => assert!(holds.is_empty(), "{code}"),
        Fails | Marks(..) => {
            assert_eq!((first.message.state, first.message.error_code), (State::Failed, Some(code)), "{code}");
            assert_eq!(outcomes(&first.attempts), [met.outcome()], "{code}");
            assert!(holds.is_empty(), "{code}");
        }
    }
    if met == Met::Answered {
        let attempt = &first.attempts[0];
        assert_eq!((attempt.error_code, attempt.http_status), (Some(code), Some(trial.case.http)), "{code}");
        assert!(attempt.trace.is_some(), "{code}: its trace is for the carrier's support");
    } else {
        assert!(first.events.iter().any(|event| event.status == "failed" && event.error_code == Some(code)), "{code}");
    }
}

/// In the end: tried as often as it should be, not before the time, and everything that waited has gone out.
async fn assert_ended(shop: &Shop, met: Met, trial: &Trial) {
    let code = trial.case.code;
    let mut ends = Vec::new();
    for id in &trial.messages {
        ends.push(shop.timeline_of(trial, *id).await);
    }
    let said = format!("{code}");
    match trial.then {
        Fails | Marks(..) => assert_eq!(ends[0].attempts.len(), 1, "{code}: never again"),
        Again(waits) => {
            let mut expected = vec![met.outcome(); waits.len()];
            assert_waits(&gaps(&ends[1].attempts), waits, &said);
            assert_eq!((ends[1].message.state, ends[1].message.error_code), (State::Failed, Some(code)), "{code}");
            expected.push(AttemptOutcome::Accepted);
            assert_eq!(outcomes(&ends[0].attempts), expected, "{code}");
            assert_waits(&gaps(&ends[0].attempts), waits, &said);
            assert_eq!(ends[0].message.state, State::Read, "{code}");
        }
        Holds(_, waits) => {
            let mut attempts: Vec<_> = ends[..2].iter().flat_map(|end| end.attempts.clone()).collect();
            attempts.sort_by_key(|attempt| attempt.started_at);
            let met_it = if met == Met::Answered { 2 } else { 1 };
            let mut expected = vec![met.outcome(); met_it];
            expected.extend([AttemptOutcome::Accepted; 2]);
            assert_eq!(outcomes(&attempts), expected, "{code}");
            let waits: Vec<_> = (0..met_it).map(|nth| waits[nth.min(waits.len() - 1)]).collect();
            assert_waits(&gaps(&attempts)[..met_it], &waits, &said);
            assert!(ends.iter().all(|end| end.message.state == State::Read), "{code}");
            assert!(shop.holds_of(trial).await.is_empty(), "{code}: released");
        }
        HoldsOffers(_, waits) => {
            assert_eq!(outcomes(&ends[0].attempts), [met.outcome(), AttemptOutcome::Accepted], "{code}");
            assert_waits(&gaps(&ends[0].attempts), waits, &said);
            assert!(ends.iter().all(|end| end.message.state == State::Read), "{code}");
            let holds = shop.holds_of(trial).await;
            assert_eq!(holds.iter().map(|hold| hold.covers.as_str()).collect::<Vec<_>>(), ["marketing"], "{code}");
        }
        Unknown(wait) => {
            let lost = [AttemptOutcome::PresumedLost, AttemptOutcome::Accepted];
            assert_eq!((outcomes(&ends[0].attempts), ends[0].message.state), (lost.to_vec(), State::Read), "{code}");
            let waited = (ends[0].attempts[1].started_at - ends[0].attempts[0].started_at).num_seconds();
            assert!(waited >= wait.max(WINDOW), "{code}: {waited}");
            assert_eq!(outcomes(&ends[1].attempts), [AttemptOutcome::Unknown], "{code}");
            assert_eq!(ends[1].message.state, State::UnknownFinal, "{code}: better never than twice");
        }
    }
}

/// A country that the account may not write to is shown to people, once for all who live there.
async fn assert_country_is_shown(shop: &Shop) {
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let health = messaging::list_health(&mut conn, Some(shop.business), shop.clock.now()).await.expect("readable");
    let shown: Vec<_> = health.2.iter().map(|alert| (alert.event.as_str(), alert.severity.as_str())).collect();
    assert_eq!(shown, [("COUNTRY_REFUSED", "critical")]);
}

/// What stands against writing to those whom the carrier did not reach, and nothing stands against the others.
async fn assert_marked(shop: &Shop, trials: &[Trial]) {
    let mut bills = Vec::new();
    for trial in trials {
        let (bill, offer) = match trial.then {
            Marks(bill, offer) => (bill, offer),
            Fails => (None, "no_consent"),
            _ => continue,
        };
        assert_eq!(shop.against_offers(&trial.to).await, offer, "{}", trial.case.code);
        if matches!(trial.then, Marks(..)) {
            let id = shop.warn(trial.business, &trial.to, Policy::AtLeastOnce, Language::En).await;
            bills.push((trial, id, bill));
        }
    }
    assert!(bills.len() >= 4, "{}", bills.len());
    shop.quiet().await;
    for (trial, id, bill) in bills {
        let message = shop.timeline_of(trial, id).await.message;
        let end = if bill.is_some() { State::Skipped } else { State::Read };
        assert_eq!((message.state, message.skipped_because.as_deref()), (end, bill), "{}", trial.case.code);
    }
}

#[tokio::test]
async fn a_carrier_that_goes_on_breaking_is_asked_ever_less_often_and_never_left() {
    let shop = Shop::open().await;
    shop.script(vec![json!({ "times": 5, "what": { "refuse": { "code": 131_000 } } })]).await;
    let id = shop.warn(shop.business, ASHA, Policy::AtLeastOnce, Language::En).await;
    for round in 0..40 {
        shop.quiet().await;
        if shop.timeline(id).await.message.state == State::Read || !shop.to_the_next().await {
            break;
        }
        // Others write meanwhile: webhooks arrive.
        shop.hear_something(&format!("wamid.{round}")).await;
    }
    let attempts = shop.timeline(id).await.attempts;
    let lost = [AttemptOutcome::PresumedLost; 5];
    assert_eq!(outcomes(&attempts), [&lost[..], &[AttemptOutcome::Accepted]].concat());
    assert_waits(&gaps(&attempts), &[WINDOW, 5 * MINUTE, 30 * MINUTE, 30 * MINUTE, 30 * MINUTE], "131000");
    assert_eq!(shop.shown().await[ASHA], 1);
}

#[tokio::test]
async fn undeliverable_twice_a_week_apart_closes_the_channel() {
    let shop = Shop::open().await;
    for day in [0, 8] {
        shop.advance(TimeDelta::days(day)).await;
        shop.script(vec![json!({ "to": RAVI, "what": { "fail_later": { "code": 131_026 } } })]).await;
        let id = shop.warn(shop.business, RAVI, Policy::AtLeastOnce, Language::En).await;
        shop.until(id, State::Failed).await;
    }
    let id = shop.warn(shop.business, RAVI, Policy::AtLeastOnce, Language::En).await;
    let message = shop.until(id, State::Skipped).await.message;
    assert_eq!(message.skipped_because.as_deref(), Some("channel_closed"));
    shop.advance(TimeDelta::days(31)).await;
    let id = shop.warn(shop.business, RAVI, Policy::AtLeastOnce, Language::En).await;
    shop.until(id, State::Read).await;
}

#[tokio::test]
async fn the_carriers_own_wait_is_kept_where_it_is_longer_than_ours() {
    let shop = Shop::open().await;
    let refuse = json!({ "refuse": { "code": 80_007, "regain_minutes": 120 } });
    shop.script(vec![json!({ "what": refuse })]).await;
    let id = shop.warn(shop.business, ASHA, Policy::AtLeastOnce, Language::En).await;
    shop.quiet().await;
    for _ in 0..20 {
        if shop.timeline(id).await.message.state == State::Read || !shop.to_the_next().await {
            break;
        }
        shop.quiet().await;
    }
    let timeline = shop.timeline(id).await;
    assert_waits(&gaps(&timeline.attempts), &[2 * HOUR], "80007");
    assert_eq!(timeline.message.state, State::Read);
}

#[tokio::test]
async fn a_code_that_nobody_knows_ends_by_its_status_and_never_goes_round_for_ever() {
    let shop = Shop::open().await;
    let refuse = |status: u16, transient: Option<bool>| json!({ "refuse": { "code": 139_999, "status": status, "transient": transient } });
    let later = [60, 120, 240, 480, 900];
    let mut asked = Vec::new();
    for (place, (what, times)) in [
        (refuse(400, None), 1),
        (refuse(429, None), later.len() + 1),
        (refuse(400, Some(true)), 2),
        (refuse(503, None), 1),
        (json!({ "fail_later": { "code": 139_999 } }), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let to = format!("9198200000{place:02}");
        shop.script(vec![json!({ "to": to, "times": times, "what": what })]).await;
        asked.push(shop.warn(shop.business, &to, Policy::AtMostOnce, Language::En).await);
    }
    shop.quiet().await;
    shop.hear_something("wamid.IN").await;
    for _ in 0..60 {
        if !shop.to_the_next().await {
            break;
        }
        shop.quiet().await;
    }
    let mut ends = Vec::new();
    for id in asked {
        ends.push(shop.timeline(id).await);
    }
    let states: Vec<_> = ends.iter().map(|end| end.message.state).collect();
    assert_eq!(states, [State::Failed, State::Failed, State::Read, State::UnknownFinal, State::Failed]);
    assert_waits(&gaps(&ends[1].attempts), &later, "429");
    assert_waits(&gaps(&ends[2].attempts), &later[..2], "transient");
    let tried: Vec<_> = ends.iter().map(|end| end.attempts.len()).collect();
    assert_eq!(tried, [1, 6, 3, 1, 1]);
}
