//! What people write and set on WhatsApp, on a real database.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    tests::{Shops, given, mail, noon, phone},
    words::{Extent, Route},
    *,
};
use crate::{outbound::Phone, people::BusinessId};

const MINUTE: TimeDelta = TimeDelta::minutes(1);

fn number(contact: &Contact) -> &Phone {
    let Contact::Phone(phone) = contact else { panic!("a phone") };
    phone
}

impl Shops {
    #[expect(clippy::too_many_arguments, reason = "a message has that many parts")]
    async fn hears(&self, business: BusinessId, key: &str, from: &Contact, said: Said<'_>, at: DateTime<Utc>) -> Heard {
        let mut tx = self.of(business).await;
        let inbound = Inbound { key, phone: Some(number(from)), user_id: None, said, at };
        let heard = hear(&mut tx, &self.vault, &self.by(noon()), business, &inbound).await.expect("heard");
        tx.commit().await.expect("committed");
        heard
    }

    async fn agreed(&self, to: &Contact, at: DateTime<Utc>) {
        let mut tx = self.of(self.sharma).await;
        record(&mut tx, &self.vault, &self.by(noon()), self.sharma, (to, &given(at))).await.expect("recorded");
        tx.commit().await.expect("committed");
    }

    async fn told_code(&self, to: &Contact, code: i64, at: DateTime<Utc>) -> Option<Scope> {
        let mut tx = self.of(self.sharma).await;
        let by = self.by(at.max(noon()));
        let told = carrier_said(&mut tx, &self.vault, &by, self.sharma, (to, CarrierTold { code, at })).await;
        tx.commit().await.expect("committed");
        told.expect("applied")
    }
}

const ALLOWED: Verdict = Verdict::Allowed;
const STOPPED: Verdict = Verdict::Skipped(Reason::Stopped);

#[tokio::test]
async fn a_word_to_stop_is_heard_once_and_start_gives_back_what_it_took() {
    let shops = Shops::open().await;
    let asha = phone(1);
    shops.agreed(&asha, noon() - MINUTE * 60).await;
    let stop = Said::Text("Stop.");
    let first = shops.hears(shops.sharma, "wamid.1", &asha, stop, noon() - MINUTE * 9).await;
    assert_eq!((first.route, first.answer, first.stops), (Route::OptOut(Extent::All), Some(Answer::OptedOut), true));
    assert_eq!(first.language, Some("en"));
    // The same again, and another one: no second answer.
    let again = shops.hears(shops.sharma, "wamid.1", &asha, stop, noon() - MINUTE * 9).await;
    assert!(again.repeated && again.answer.is_none() && !again.stops);
    let other = shops.hears(shops.sharma, "wamid.2", &asha, stop, noon() - MINUTE * 8).await;
    assert!(!other.repeated && other.answer.is_none() && !other.stops);
    for class in [Class::Marketing, Class::Transactional, Class::Statutory] {
        assert_eq!(shops.judged(shops.sharma, &asha, class).await, STOPPED, "{class:?}");
    }
    assert_eq!(
        shops.judged(shops.verma, &asha, Class::Transactional).await,
        ALLOWED,
        "another business's customer too"
    );
    let back = shops.hears(shops.sharma, "wamid.3", &asha, Said::Text("START"), noon() - MINUTE * 5).await;
    assert_eq!(back.answer, Some(Answer::OptedIn));
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, ALLOWED, "as she had agreed before");
    // A word to stop from before, which comes late, is over.
    let late = shops.hears(shops.sharma, "wamid.0", &asha, stop, noon() - MINUTE * 7).await;
    assert!(late.answer.is_none() && !late.stops);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, ALLOWED);
    // Who never agreed has not by writing START.
    let ravi = phone(2);
    shops.hears(shops.sharma, "wamid.4", &ravi, Said::Text("start"), noon()).await;
    assert_eq!(shops.judged(shops.sharma, &ravi, Class::Marketing).await, Verdict::Skipped(Reason::NoConsent));
    assert_eq!(shops.told("messaging.wish_heard").await, 5);
}

#[tokio::test]
async fn buttons_end_one_purpose_and_half_a_no_is_asked_about_once_a_day() {
    let shops = Shops::open().await;
    let asha = phone(1);
    shops.agreed(&asha, noon() - MINUTE * 60).await;
    let half = Said::Text("I will stop by the shop");
    let asked = shops.hears(shops.sharma, "wamid.1", &asha, half, noon()).await;
    assert_eq!((asked.route, asked.answer, asked.stops), (Route::Ask, Some(Answer::Ask), false));
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, ALLOWED, "nobody is unsubscribed by a guess");
    assert_eq!(shops.hears(shops.sharma, "wamid.2", &asha, half, noon()).await.answer, None);
    let button = Said::Payload("OPTOUT:marketing.offers");
    let heard = shops.hears(shops.sharma, "wamid.3", &asha, button, noon()).await;
    assert!(heard.stops && heard.answer == Some(Answer::OptedOut));
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, Verdict::Skipped(Reason::Withdrawn));
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, ALLOWED);
    let all = shops.hears(shops.sharma, "wamid.4", &asha, Said::Payload("OPTOUT:marketing"), noon()).await;
    assert!(all.stops);
    let nothing = shops.hears(shops.sharma, "wamid.5", &asha, Said::Nothing, noon()).await;
    assert_eq!((nothing.route, nothing.answer), (Route::Other, None));
}

#[tokio::test]
async fn atk_005_one_word_delivered_fifty_times_in_parallel_has_one_effect() {
    let shops = Arc::new(Shops::open().await);
    shops.agreed(&phone(1), noon() - MINUTE * 60).await;
    let mut saying = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let shops = Arc::clone(&shops);
        saying.spawn(async move {
            shops.hears(shops.sharma, "wamid.1", &phone(1), Said::Text("stop"), noon() - MINUTE).await
        });
    }
    let heard = saying.join_all().await;
    assert_eq!(heard.iter().filter(|heard| heard.answer.is_some()).count(), 1, "one answer");
    assert_eq!(heard.iter().filter(|heard| heard.repeated).count(), 49);
    assert_eq!(shops.told("messaging.suppression_set").await, 1);
    assert_eq!(shops.told("messaging.consent_withdrawn").await, 1);
}

#[tokio::test]
async fn a_list_that_nobody_has_read_is_turned_on_knowingly() {
    let shops = Shops::open().await;
    let asha = phone(1);
    let stop = Said::Text("बंद करो");
    let asked = shops.hears(shops.sharma, "wamid.1", &asha, stop, noon()).await;
    assert_eq!((asked.answer, asked.stops, asked.language), (Some(Answer::Ask), false, Some("hi")));
    let mut tx = shops.of(shops.sharma).await;
    assert!(matches!(set_words(&mut tx, &shops.by(noon()), shops.sharma, ("xx", true)).await, Err(Error::NoSuchWords)));
    set_words(&mut tx, &shops.by(noon()), shops.sharma, ("hi", true)).await.expect("on");
    assert_eq!(words_of(&mut tx, shops.sharma).await.expect("read"), ["hi"]);
    tx.commit().await.expect("committed");
    assert!(shops.hears(shops.sharma, "wamid.2", &asha, stop, noon()).await.stops);
    // Another business has not.
    assert!(!shops.hears(shops.verma, "wamid.2", &asha, stop, noon()).await.stops);
    let mut tx = shops.of(shops.sharma).await;
    set_words(&mut tx, &shops.by(noon()), shops.sharma, ("hi", false)).await.expect("off");
    assert_eq!(words_of(&mut tx, shops.sharma).await.expect("read"), [""; 0]);
    tx.commit().await.expect("committed");
    assert_eq!(shops.told("messaging.opt_words_set").await, 2);
}

#[tokio::test]
async fn settings_on_whatsapp_count_by_their_own_clock_in_any_order() {
    let shops = Shops::open().await;
    let at = |minutes: i32| noon() - MINUTE * 30 + MINUTE * minutes;
    for (ending, order) in [[(true, 1), (false, 2)], [(false, 2), (true, 1)]].into_iter().enumerate() {
        let asha = phone(u32::try_from(ending).expect("small"));
        shops.agreed(&asha, at(0)).await;
        for (stop, minute) in order {
            for _ in 0..2 {
                let mut tx = shops.of(shops.sharma).await;
                let told = Preference { phone: Some(number(&asha)), user_id: None, stop, at: at(minute) };
                hear_preference(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, &told).await.expect("heard");
                tx.commit().await.expect("committed");
            }
        }
        assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, ALLOWED, "{order:?}");
        // The carrier says that she stopped: her settings alone end it, a typed word does not.
        assert_eq!(shops.told_code(&asha, 131_050, at(3)).await, Some(Scope::Marketing));
        let key = format!("wamid.{ending}");
        shops.hears(shops.sharma, &key, &asha, Said::Text("start"), at(4)).await;
        let stopped = Verdict::Skipped(Reason::MarketingStopped);
        assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, stopped);
        assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, ALLOWED);
    }
}

#[tokio::test]
async fn two_failures_a_week_apart_close_whatsapp_for_thirty_days_and_any_word_opens_it() {
    let shops = Shops::open().await;
    let asha = phone(1);
    let day = |days: i64| noon() - TimeDelta::days(10 - days);
    let closed = Verdict::Skipped(Reason::ChannelClosed);
    let stands = |now| shops.judged_at(shops.sharma, (&asha, &[]), (Class::Transactional, Channel::Whatsapp), now);
    assert_eq!(shops.told_code(&asha, 131_026, day(0)).await, None);
    assert_eq!(shops.told_code(&asha, 131_026, day(6)).await, None);
    assert_eq!(stands(noon()).await, ALLOWED, "once, or twice within a week, is no proof");
    assert_eq!(shops.told_code(&asha, 131_026, day(7)).await, Some(Scope::Channel));
    assert_eq!(stands(noon()).await, closed);
    assert_eq!(stands(day(36)).await, closed);
    assert_eq!(stands(day(38)).await, ALLOWED, "after thirty days it is tried again");
    shops.hears(shops.sharma, "wamid.1", &asha, Said::Nothing, day(9)).await;
    assert_eq!(stands(noon()).await, ALLOWED, "she wrote");
    // What the carrier says of a time before she wrote is no news.
    assert_eq!(shops.told_code(&asha, 131_026, day(8)).await, None);
    assert_eq!(shops.told_code(&asha, 130_403, day(8)).await, None);
    assert_eq!(shops.told_code(&asha, 130_403, day(10)).await, Some(Scope::Channel));
    assert_eq!(shops.told_code(&asha, 131_056, day(10)).await, None, "a limit says nothing about her");
    // A key that changed: until somebody made sure.
    assert_eq!(shops.told_code(&phone(2), 137_000, noon() - MINUTE).await, Some(Scope::Identity));
    let doubtful = Verdict::Skipped(Reason::IdentityChanged);
    assert_eq!(shops.judged(shops.sharma, &phone(2), Class::Otp).await, doubtful);
    let mut tx = shops.of(shops.sharma).await;
    let sure = (&phone(2), "seen_at_counter");
    assert!(verified(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, sure).await.expect("lifted"));
    assert!(
        identity_changed(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, (&phone(3), noon()))
            .await
            .expect("set")
    );
    tx.commit().await.expect("committed");
    assert_eq!(shops.judged(shops.sharma, &phone(2), Class::Otp).await, ALLOWED);
    assert_eq!(shops.judged(shops.sharma, &phone(3), Class::Statutory).await, doubtful);
}

#[tokio::test]
async fn a_changed_number_takes_every_no_along_and_no_yes() {
    let shops = Shops::open().await;
    let (old, new) = (phone(1), phone(2));
    shops.agreed(&old, noon() - MINUTE * 60).await;
    let change = async |old: &Contact, new: &Contact| {
        let mut tx = shops.of(shops.sharma).await;
        let what = (old, new, noon() - MINUTE);
        let changed =
            changed_number(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, what).await.expect("changed");
        tx.commit().await.expect("committed");
        changed
    };
    let changed = change(&old, &new).await;
    assert_eq!((changed.carried, changed.to_ask), (0, 1));
    assert_eq!(change(&old, &new).await.to_ask, 0, "again is no effect");
    let doubtful = Verdict::Skipped(Reason::IdentityChanged);
    for class in [Class::Transactional, Class::Statutory, Class::Otp] {
        assert_eq!(shops.judged(shops.sharma, &old, class).await, doubtful, "{class:?}: a stranger's by tomorrow");
    }
    assert_eq!(shops.judged(shops.sharma, &new, Class::Transactional).await, ALLOWED);
    assert_eq!(shops.judged(shops.sharma, &new, Class::Marketing).await, Verdict::Skipped(Reason::AskAgain));
    // Whoever said no says it under her new number too.
    shops.hears(shops.sharma, "wamid.1", &phone(3), Said::Text("stop"), noon() - MINUTE * 2).await;
    assert_eq!(change(&phone(3), &phone(4)).await.carried, 1);
    assert_eq!(shops.judged(shops.sharma, &phone(4), Class::Transactional).await, STOPPED);
    assert_eq!(
        (shops.told("messaging.number_changed").await, shops.told("messaging.consent_to_be_asked").await),
        (3, 1)
    );
}

#[tokio::test]
async fn atk_044_a_number_and_a_user_id_that_came_together_are_one_person() {
    let shops = Shops::open().await;
    let (asha, id) = (phone(1), UserId::parse("IN.1349120865").expect("an id"));
    let hears = async |key: &str, phone: Option<&Contact>, said: Said<'_>| {
        let mut tx = shops.of(shops.sharma).await;
        let inbound = Inbound { key, phone: phone.map(number), user_id: Some(&id), said, at: noon() };
        let heard = hear(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, &inbound).await.expect("heard");
        tx.commit().await.expect("committed");
        heard
    };
    // Nothing is kept of who writes but has said nothing, and is known by nothing.
    assert_eq!(hears("wamid.0", Some(&asha), Said::Text("hello")).await.contact, None);
    shops.agreed(&asha, noon() - MINUTE).await;
    hears("wamid.1", Some(&asha), Said::Text("hello")).await;
    // Later she shows a user name alone; the number is hers all the same.
    assert!(hears("wamid.2", None, Said::Text("stop")).await.stops);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, STOPPED);
    assert_eq!(shops.judged(shops.sharma, &mail("asha@example.in"), Class::Transactional).await, ALLOWED);
    // Erased, the number is no part of her any more, and her user id still says no.
    shops.erase(&asha).await;
    let of_id = Contact::UserId(id.clone());
    assert_eq!(shops.judged(shops.sharma, &of_id, Class::Transactional).await, STOPPED);
}
