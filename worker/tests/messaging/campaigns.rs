//! Campaigns: many messages, each once, held and ended in an instant, whatever dies.

use muneem_jobs::messaging::{
    MessageClass, SignInWarning,
    campaign::{self, CampaignId, CampaignState, NewCampaign, NewPerson},
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
    let says = |wamid: &str, text: &str| {
        json!({ "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages", "value": {
            "metadata": { "phone_number_id": Options::NUMBER },
            "messages": [{ "id": wamid, "from": "919812300003", "type": "text",
                "timestamp": shop.clock.now().timestamp().to_string(), "text": { "body": text } }] } }] }] })
        .to_string()
    };
    // One bill lies in line when she says stop, behind what holds the account, and she is one of a campaign that has not
    // begun.
    let id = shop.campaign(5, None).await;
    shop.fault(json!({ "refuse": { "code": 131_042 } })).await;
    let held = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let bill = shop.request("919812300003", Policy::AtLeastOnce).await;
    let body = says("wamid.STOP", "STOP");
    assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
    shop.run_due_jobs(None).await;
    let message = shop.timeline(bill).await.message;
    assert_eq!((message.state, message.skipped_because.as_deref()), (State::Skipped, Some("stopped")));
    assert_eq!(shop.standing(id).await.1, json!({ "queued": 4, "skipped": 1 }));
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until(held, State::Read).await;
    // What is asked for later is judged when it would go.
    let later = shop.request("919812300003", Policy::AtLeastOnce).await;
    shop.until(later, State::Skipped).await;
    shop.start(id).await.expect("started");
    shop.until_read(id, 4).await;
    assert!(!shop.shown().await.contains_key("919812300003"));
    assert_eq!(shop.evidence("messaging.message_skipped").await, 3);
    // She writes START, and hears again.
    let body = says("wamid.START", "start");
    assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
    shop.run_due_jobs(None).await;
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
