//! Campaigns: many messages, each once, held and ended in an instant, whatever dies.

use std::io::Read;

use futures_util::future::join_all;
use muneem_jobs::messaging::{
    MessageClass, SignInWarning,
    campaign::{self, Added, CampaignId, CampaignState, Loaded, NewCampaign, NewPerson, TEST_PURPOSE, Test},
};

use super::*;

impl Shop {
    /// A campaign to so many people, nobody twice.
    async fn campaign(&self, people: u64, rests_after: Option<i64>) -> CampaignId {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let by = By::operator(self.clock.now(), &OsChance);
        let new = NewCampaign {
            business: self.business,
            name: "Diwali hours".to_owned(),
            purpose: "service.opening_hours".to_owned(),
            class: MessageClass::Transactional,
            template: "sign_in_warning".to_owned(),
            rests_after,
            expires_at: self.clock.now() + TimeDelta::hours(6),
        };
        let id = campaign::create(&mut conn, &new, &by).await.expect("a campaign");
        let people: Vec<_> = (0..people)
            .map(|person| NewPerson {
                mail: None,
                to: Phone::parse(&format!("98123{person:05}")).expect("a mobile"),
                content: Content::SignInWarning(SignInWarning {
                    name: format!("Customer {person}"),
                    business_name: "Sharma Mobiles".into(),
                    event: "the shop is open".into(),
                    at: "8 November 2026, 10:00".into(),
                }),
                language: Language::En,
            })
            .collect();
        let of = (self.business, id);
        campaign::add_people(&mut conn, &self.deps.vault, of, &people, &by).await.expect("people");
        id
    }

    async fn start(&self, id: CampaignId) -> Result<(), messaging::Error> {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        campaign::start(&mut conn, (self.business, id), &By::operator(self.clock.now(), &OsChance)).await
    }

    async fn halt(&self, id: CampaignId, for_good: bool) -> Result<(), messaging::Error> {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        campaign::halt(&mut conn, (self.business, id), for_good, &By::operator(self.clock.now(), &OsChance)).await
    }

    async fn standing(&self, id: CampaignId) -> (CampaignState, Value) {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let (campaign, counts) =
            campaign::find(&mut conn, Some(self.business), id).await.expect("readable").expect("there");
        (campaign.state, counts)
    }

    /// Runs jobs as webhooks bring them, until so many messages of the campaign are read.
    async fn until_read(&self, id: CampaignId, wanted: u64) {
        for _ in 0..400 {
            self.run_due_jobs(None).await;
            if self.standing(id).await.1["read"] == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not all were read: {:?}", self.standing(id).await);
    }
}

#[tokio::test]
async fn a_campaign_goes_out_rests_goes_on_and_ends() {
    let shop = Shop::open().await;
    let id = shop.campaign(30, Some(10)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.standing(id).await, (CampaignState::Draft, json!({ "queued": 30 })));

    shop.start(id).await.expect("started");
    shop.run_due_jobs(None).await;
    let (state, counts) = shop.standing(id).await;
    assert_eq!(state, CampaignState::Paused);
    let waiting = counts["queued"].as_u64().expect("some wait");
    assert!((1..=20).contains(&waiting), "{counts}");
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let by = By::operator(shop.clock.now(), &OsChance);
    let late = campaign::add_people(&mut conn, &shop.deps.vault, (shop.business, id), &[], &by).await;
    assert!(matches!(late, Err(messaging::Error::CampaignBegun)));
    let elsewhere = campaign::start(&mut conn, (BusinessId(Uuid::nil()), id), &by).await;
    assert!(matches!(elsewhere, Err(messaging::Error::NoSuchCampaign)));

    shop.start(id).await.expect("goes on");
    shop.until_read(id, 30).await;
    assert_eq!(shop.standing(id).await, (CampaignState::Done, json!({ "read": 30 })));
    assert!(matches!(shop.halt(id, true).await, Err(messaging::Error::CampaignOver)));
    shop.assert_no_reference_twice().await;
    assert_eq!(shop.shown().await.len(), 30);

    // Held, then ended: what waits stays unsent.
    let other = shop.campaign(5, None).await;
    shop.start(other).await.expect("started");
    shop.halt(other, false).await.expect("held");
    shop.run_due_jobs(None).await;
    assert_eq!(shop.standing(other).await, (CampaignState::Paused, json!({ "queued": 5 })));
    shop.halt(other, true).await.expect("ended");
    shop.run_due_jobs(None).await;
    assert_eq!(shop.standing(other).await, (CampaignState::Stopped, json!({ "queued": 5 })));
    assert!(matches!(shop.start(other).await, Err(messaging::Error::CampaignOver)));
    assert_eq!(shop.oracle().await["posts"]["messages"], 30);
    for (word, times) in [
        ("messaging.campaign_created", 2),
        ("messaging.campaign_filled", 2),
        ("messaging.campaign_started", 3),
        ("messaging.campaign_paused", 2),
        ("messaging.campaign_stopped", 1),
        ("messaging.campaign_done", 1),
    ] {
        assert_eq!(shop.evidence(word).await, times, "{word}");
    }
}

#[tokio::test]
async fn atk_090_a_campaign_whose_worker_is_killed_at_any_step_loses_and_doubles_nothing() {
    for step in ["messaging.wave_begun", "messaging.wave_posted", "messaging.waves_reconciled"] {
        let shop = Shop::open().await;
        let id = shop.campaign(8, None).await;
        shop.start(id).await.expect("started");
        shop.run_due_jobs(Some(step)).await;
        // Those that were begun and never posted are found out by silence; webhooks of the others arrive.
        for _ in 0..4 {
            shop.advance(TimeDelta::seconds(170)).await;
            shop.run_due_jobs(Some(step)).await;
        }
        shop.until_settled(id).await;
        let (state, counts) = shop.standing(id).await;
        assert_eq!(state, CampaignState::Done, "{step}: {counts}");
        let known = ["read", "unknown_final"].iter().filter_map(|end| counts[end].as_i64()).sum::<i64>();
        assert_eq!(known, 8, "{step}: {counts}");
        shop.assert_no_reference_twice().await;
        assert!(shop.shown().await.values().all(|times| *times == 1), "{step}");
    }
}

impl Shop {
    async fn until_settled(&self, id: CampaignId) {
        for _ in 0..400 {
            self.run_due_jobs(None).await;
            let (state, counts) = self.standing(id).await;
            let open = ["queued", "posting", "unknown", "accepted", "sent", "delivered"];
            if state == CampaignState::Done && open.iter().all(|state| counts.get(state).is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_dead_token_holds_a_campaign_with_one_post_and_releasing_it_wakes_it() {
    let shop = Shop::open().await;
    shop.fault(json!({ "refuse": { "code": 190 } })).await;
    let id = shop.campaign(6, None).await;
    shop.start(id).await.expect("started");
    shop.run_due_jobs(None).await;
    let posted = shop.oracle().await["posts"]["messages"].as_u64().expect("a number");
    let (state, counts) = shop.standing(id).await;
    assert_eq!(state, CampaignState::Running);
    assert!(counts["queued"].as_u64().is_some_and(|queued| queued >= 1), "{counts}");
    shop.run_due_jobs(None).await;
    assert_eq!(shop.oracle().await["posts"]["messages"], posted, "nothing more is tried while it holds");
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until_read(id, 6).await;
}

#[tokio::test]
async fn stop_stops_what_is_queued_and_what_comes() {
    let shop = Shop::open().await;
    // One bill lies in line when she says stop, behind what holds the account, and she is one of a campaign that has not
    // begun.
    let id = shop.campaign(5, None).await;
    shop.fault(json!({ "refuse": { "code": 131_042 } })).await;
    let held = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let bill = shop.request("919812300003", Policy::AtLeastOnce).await;
    shop.write("919812300003", "STOP").await;
    let message = shop.until(bill, State::Skipped).await.message;
    assert_eq!((message.state, message.skipped_because.as_deref()), (State::Skipped, Some("stopped")));
    assert_eq!(shop.standing(id).await.1, json!({ "queued": 4, "skipped": 1 }));
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until(held, State::Read).await;
    // What is asked for later is judged when it would go.
    let later = shop.request("919812300003", Policy::AtLeastOnce).await;
    shop.until(later, State::Skipped).await;
    shop.start(id).await.expect("started");
    shop.until_read(id, 4).await;
    assert_eq!(shop.shown().await["919812300003"], 1, "that she was heard, and nothing else");
    assert_eq!(shop.evidence("messaging.message_skipped").await, 3);
    // She writes START a while later, and hears again.
    shop.move_carriers_clock(TimeDelta::minutes(6)).await;
    shop.write("919812300003", "start").await;
    shop.until_shown("919812300003", 2).await;
    let again = shop.request("919812300003", Policy::AtLeastOnce).await;
    shop.until(again, State::Read).await;
}

#[tokio::test]
async fn atk_096_a_campaign_that_is_stopped_in_the_middle_posts_no_more_within_two_seconds() {
    let shop = Shop::open().await;
    let id = shop.campaign(400, None).await;
    shop.start(id).await.expect("started");
    let posts = async || shop.oracle().await["posts"]["messages"].as_i64().expect("a number");
    let stopping = async {
        while posts().await < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shop.halt(id, false).await.expect("held");
        tokio::time::sleep(Duration::from_secs(2)).await;
        posts().await
    };
    // Its streams end by themselves, and what they write down afterwards is no post.
    let (_, after_two_seconds) = tokio::join!(shop.run_due_jobs(None), stopping);
    assert_eq!(posts().await, after_two_seconds);
    let (state, counts) = shop.standing(id).await;
    let waiting = counts["queued"].as_i64().expect("some wait");
    assert_eq!((state, posts().await + waiting), (CampaignState::Paused, 400), "{counts}");
    assert!(waiting > 100, "{counts}");
    shop.run_due_jobs(None).await;
    assert_eq!(shop.standing(id).await.1["queued"], waiting);
    // Whoever lets it go on lets exactly the others go.
    shop.start(id).await.expect("goes on");
    shop.until_read(id, 400).await;
    shop.assert_no_reference_twice().await;
    assert!(shop.shown().await.values().all(|times| *times == 1));
}

impl Shop {
    /// Runs the streams of a campaign side by side, as workers do, to their ends; each holds up at `step`.
    async fn run_streams(&self, steps: &Arc<dyn Steps>) {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        work::tick(&mut conn).await.expect("a tick");
        let want = work::Want { lane: Lane::Bulk, jobs: 8, after: Uuid::nil() };
        let claimed = work::claim(&mut conn, self.worker, &[want]).await.expect("a claim");
        let mut streams = Vec::new();
        for job in &claimed {
            assert_eq!(job.kind, "messaging.send_wave");
            let payload = job.open(&mut conn, &self.deps.vault).await.expect("it opens");
            let ctx = self.context(job, Arc::clone(steps));
            streams.push(async move { Kind::of::<campaign::SendWave>().run(&payload, &ctx).await });
        }
        assert!(!streams.is_empty(), "nothing goes out");
        for ended in join_all(streams).await {
            assert!(matches!(ended, Ok(Done::Acked)), "{ended:?}");
        }
    }
}

/// Holds up every stream that has committed its attempts, until all may go on.
struct HeldUp {
    reached: Notify,
    go_on: CancellationToken,
}

impl Steps for HeldUp {
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if step == "messaging.wave_begun" {
                self.reached.notify_one();
                self.go_on.cancelled().await;
            }
        })
    }
}

#[tokio::test]
async fn what_is_halted_between_its_commit_and_its_post_is_not_posted() {
    let shop = Shop::open().await;
    let id = shop.campaign(6, None).await;
    for for_good in [false, true] {
        shop.start(id).await.expect("started");
        let held = Arc::new(HeldUp { reached: Notify::new(), go_on: CancellationToken::new() });
        let steps = Arc::clone(&held) as Arc<dyn Steps>;
        tokio::join!(shop.run_streams(&steps), async {
            held.reached.notified().await;
            shop.halt(id, for_good).await.expect("halted");
            held.go_on.cancel();
        });
        assert_eq!(shop.posts().await, 0);
        let (state, counts) = shop.standing(id).await;
        assert_eq!(state, if for_good { CampaignState::Stopped } else { CampaignState::Paused });
        assert_eq!(counts, json!({ "queued": 6 }), "what was not posted waits as before");
        shop.advance(TimeDelta::minutes(1)).await;
    }
    shop.run_due_jobs(None).await;
    assert_eq!(shop.posts().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_seconds_after_a_stop_is_answered_no_post_arrives() {
    let shop = Shop::open().await;
    let id = shop.campaign(900, None).await;
    shop.start(id).await.expect("started");
    let steps = Arc::new(KillAt { step: None, died: Notify::new() }) as Arc<dyn Steps>;
    let ((), answered) = tokio::join!(shop.run_streams(&steps), async {
        while shop.posts().await < 60 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shop.halt(id, true).await.expect("stopped");
        shop.oracle().await["now"].as_str().expect("an instant").parse::<chrono::DateTime<chrono::Utc>>().expect("one")
    });
    let oracle = shop.oracle().await;
    let chats = oracle["recipients"].as_object().expect("a map").values();
    let accepted: Vec<chrono::DateTime<chrono::Utc>> = chats
        .flat_map(|chat| chat.as_array().expect("a list"))
        .map(|one| one["accepted_at"].as_str().expect("an instant").parse().expect("one"))
        .collect();
    let last = accepted.iter().max().expect("some went out");
    assert!(*last <= answered + TimeDelta::seconds(2), "{last} is later than {answered} and two seconds");
    let posted = oracle["posts"]["messages"].as_u64().expect("a number");
    assert_eq!(u64::try_from(accepted.len()), Ok(posted), "each POST is among those that were looked at");
    assert!(posted < 400, "{posted} of 900 went out: it was not stopped in the middle");
    let (state, counts) = shop.standing(id).await;
    assert_eq!(state, CampaignState::Stopped);
    assert!(counts["queued"].as_u64().is_some_and(|queued| queued > 500), "{counts}");
    // Nothing that is due later brings it back.
    shop.advance(TimeDelta::minutes(10)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.posts().await, posted);
}

#[tokio::test]
async fn a_campaign_that_went_on_rests_again_when_it_was_told_to() {
    let shop = Shop::open().await;
    let id = shop.campaign(40, Some(4)).await;
    shop.start(id).await.expect("started");
    shop.run_due_jobs(None).await;
    let (state, first) = shop.standing(id).await;
    assert_eq!(state, CampaignState::Paused);
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let by = By::operator(shop.clock.now(), &OsChance);
    campaign::resume(&mut conn, (shop.business, id), Some(8), &by).await.expect("goes on");
    drop(conn);
    shop.run_due_jobs(None).await;
    let (state, second) = shop.standing(id).await;
    assert_eq!(state, CampaignState::Paused, "{second}");
    let waiting = |counts: &Value| counts["queued"].as_u64().expect("some wait");
    assert!(waiting(&first) - waiting(&second) >= 8, "{first} {second}");
}

/// A list that is torn off after so many bytes.
struct Torn<'a>(&'a [u8]);

impl Read for Torn<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::Error::other("torn off"));
        }
        self.0.read(into)
    }
}

#[tokio::test]
async fn a_load_that_was_broken_off_is_run_again_and_doubles_nobody() {
    let shop = Shop::open().await;
    let id = shop.campaign(0, None).await;
    let mut list = "at,phone,event,language,name,business_name\n".to_owned();
    for person in 0..1_300 {
        // Everybody's number in another spelling on every third row.
        let phone = if person % 3 == 0 { format!("+91 98123 {person:05}") } else { format!("098123{person:05}") };
        list += &format!("\"8 November 2026, 10:00\",{phone},the shop is open,en,Customer,Sharma Mobiles\n");
    }
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let by = By::operator(shop.clock.now(), &OsChance);
    let of = (shop.business, id);
    let mut parts = Vec::new();
    let mut tell = |bad: &campaign::BadRow| panic!("{bad:?}");
    let torn = list.len() - 1_000;
    let broken = campaign::load_list(
        &mut conn,
        &shop.deps.vault,
        of,
        (Torn(&list.as_bytes()[..torn]), false),
        &by,
        &mut tell,
        &mut |done| parts.push(done.added),
    )
    .await;
    assert!(matches!(broken, Err(messaging::Error::BadList(_))), "{broken:?}");
    assert_eq!(parts, [1_000], "a thousand people are held at a time, and added together");
    let done =
        campaign::load_list(&mut conn, &shop.deps.vault, of, (list.as_bytes(), false), &by, &mut tell, &mut |_| {})
            .await
            .expect("loaded");
    assert_eq!((done.rows, done.added, done.doubles), (1_300, 300, 1_000));
    assert_eq!(shop.standing(id).await.1, json!({ "queued": 1_300 }));
    // Two who add the same person at the same time add her once.
    let person =
        campaign::read_person("sign_in_warning", ("9876500001", None), "hi-IN", parameters()).expect("a person");
    let people = [person];
    let mut other = shop.deps.db.acquire().await.expect("a connection");
    let (one, two) = tokio::join!(
        campaign::add_people(&mut conn, &shop.deps.vault, of, &people, &by),
        campaign::add_people(&mut other, &shop.deps.vault, of, &people, &by),
    );
    let both = [one.expect("added"), two.expect("added")];
    assert!(
        both.contains(&Added { added: 1, doubles: 0 }) && both.contains(&Added { added: 0, doubles: 1 }),
        "{both:?}"
    );
    // Each of the house's doubles is refused by the database too.
    let again = sqlx::query(
        "update muneem.messaging_messages set to_mark = (select to_mark from muneem.messaging_messages limit 1)
         where campaign_id = $1",
    )
    .bind(id.0)
    .execute(&shop.db.pool())
    .await;
    assert!(again.expect_err("a double").to_string().contains("messaging_messages_campaign_once"));
    let checked =
        campaign::check_list("sign_in_warning", list.as_bytes(), &mut |bad| panic!("{bad:?}")).expect("a list");
    assert_eq!(checked, Loaded { rows: 1_300, sha256: done.sha256, ..Loaded::default() });
}

fn parameters() -> BTreeMap<String, String> {
    let values = [
        ("name", "Asha"),
        ("business_name", "Sharma Mobiles"),
        ("event", "the shop is open"),
        ("at", "8 November 2026, 10:00"),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn a_test_arrives_and_its_campaign_does_not_count_it() {
    let shop = Shop::open().await;
    let id = shop.campaign(2, None).await;
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let by = By::operator(shop.clock.now(), &OsChance);
    let test = Test {
        to: Phone::parse(ASHA).expect("a mobile"),
        language: None,
        parameters: Some(parameters()),
        agreed: false,
    };
    let message = campaign::send_test(&mut tx, (&shop.deps.vault, &shop.clock), (shop.business, id), test, &by)
        .await
        .expect("asked for");
    tx.commit().await.expect("committed");
    let timeline = shop.until(message, State::Read).await;
    assert_eq!(timeline.message.purpose, TEST_PURPOSE);
    assert_eq!(shop.standing(id).await, (CampaignState::Draft, json!({ "queued": 2 })));
    assert_eq!(shop.shown().await, BTreeMap::from([(ASHA.to_owned(), 1)]));
}
