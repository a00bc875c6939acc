//! A number is not a person: it may be several people's, and somebody else's by now.

use muneem_jobs::{
    outbound::Phone,
    people::{
        Authority, BusinessId, ContactKind, Decision, Enrolment, Role, Staff, add_business, enrol_staff,
        find_active_staff, mark_verified,
        signin::{Channel, make_code},
    },
};
use secrecy::ExposeSecret;

use super::{
    house::{Answer, Browser},
    *,
};

const NUMBER: &str = "+919812345678";
const MAIL: &str = "counter@example.in";
const DAY: i64 = 24 * 60 * 60;

async fn join(house: &House, business: BusinessId, name: &str, email: Option<&str>) -> Staff {
    let staff = join_unproved(house, business, name, email).await;
    let mut db = house.conn().await;
    mark_verified(&mut db, staff.staff_id, ContactKind::Phone, house.now()).await.expect("noted");
    staff
}

async fn join_unproved(house: &House, business: BusinessId, name: &str, email: Option<&str>) -> Staff {
    let operator = Authority::operator();
    let decision = Decision { by: &operator, now: house.now(), chance: &OsChance };
    let person = Enrolment {
        business_id: Some(business),
        name: name.to_owned(),
        language: "en".to_owned(),
        phone: Some(Phone::parse(NUMBER).expect("a phone")),
        email: email.map(str::to_owned),
        roles: vec![Role::Manager],
    };
    let mut db = house.conn().await;
    enrol_staff(&mut db, &house.console.vault, &person, &decision).await.expect("enrolled")
}

async fn kaveri(house: &House) -> BusinessId {
    let mut db = house.conn().await;
    let made = add_business(&mut db, "kaveri-retail", "Kaveri Retail", &*house.console.clock, &OsChance).await;
    made.expect("a shop").business_id
}

/// Asks for a code in this browser and enters what came to the phone by way of the business of `staff`, with these fields
/// beside it.
async fn enter(browser: &mut Browser<'_>, staff: &Staff, more: &[(&str, &str)]) -> Answer {
    let house = browser.house;
    browser.post("/console/sign-in", &[("who", NUMBER), ("way", "code")]).await;
    let mut db = house.conn().await;
    let code = make_code(&mut db, staff.staff_id.0, Channel::Phone, house.now(), &OsChance).await.expect("made");
    let held = format!("{}.{}", code.code_id, code.binding.expose_secret());
    browser.cookies.insert("__Host-muneem-code".to_owned(), held);
    go_on(browser, code.code.expose_secret(), more).await
}

/// Asks for a code in this browser and enters what came by mail, with these fields beside it.
async fn enter_mailed(browser: &mut Browser<'_>, more: &[(&str, &str)]) -> Answer {
    browser.post("/console/sign-in", &[("who", MAIL), ("way", "code")]).await;
    let code = browser.house.mailed_code().await;
    go_on_mailed(browser, &code, more).await
}

async fn go_on(browser: &mut Browser<'_>, code: &str, more: &[(&str, &str)]) -> Answer {
    go_on_as(browser, NUMBER, code, more).await
}

async fn go_on_mailed(browser: &mut Browser<'_>, code: &str, more: &[(&str, &str)]) -> Answer {
    go_on_as(browser, MAIL, code, more).await
}

async fn go_on_as(browser: &mut Browser<'_>, who: &str, code: &str, more: &[(&str, &str)]) -> Answer {
    let fields: Vec<_> = [("who", who), ("code", code)].into_iter().chain(more.iter().copied()).collect();
    browser.post("/console/sign-in/code", &fields).await
}

/// How many days ago she proved to hold her phone.
async fn proved_days_ago(house: &House, staff: &Staff) -> i64 {
    let staff = find_active_staff(&mut *house.conn().await, staff.staff_id).await.expect("read").expect("here");
    (house.now() - staff.phone_verified_at.expect("verified")).num_days()
}

#[tokio::test]
async fn atk_044_a_number_that_nobody_confirmed_for_ninety_days_lets_nobody_in_by_itself() {
    let house = House::new().await;
    let zoya = join(&house, house.sharma, "Zoya", Some("zoya@example.in")).await;
    house.later(90 * DAY - 60);
    let mut browser = house.browser();
    assert_eq!(enter(&mut browser, &zoya, &[]).await.to.as_deref(), Some("/console"), "a minute before");
    assert_eq!(proved_days_ago(&house, &zoya).await, 0, "and counts anew from then on");

    house.later(180 * DAY + 60);
    let mut browser = house.browser();
    let half = enter(&mut browser, &zoya, &[]).await;
    assert_eq!((half.status, browser.session()), (StatusCode::OK, None), "{}", half.body);
    assert!(half.body.contains("Another code is on its way to your mail address"), "{}", half.body);
    assert!(!half.body.contains("Sharma") && !half.body.contains("zoya@"), "{}", half.body);
    // The mail alone, somewhere else, lets her in, and says nothing of who has the number.
    let mut elsewhere = house.browser();
    elsewhere.post("/console/sign-in", &[("who", "zoya@example.in"), ("way", "code")]).await;
    let mailed = house.mailed_code().await;
    let fields = [("who", "zoya@example.in"), ("code", mailed.as_str())];
    assert_eq!(elsewhere.post("/console/sign-in/code", &fields).await.to.as_deref(), Some("/console"));
    assert_eq!(proved_days_ago(&house, &zoya).await, 90);
    // Both, in one browser: she has the number.
    house.later(180 * DAY + 2 * 60 * 60);
    let mut browser = house.browser();
    assert_eq!(enter(&mut browser, &zoya, &[]).await.status, StatusCode::OK);
    let mailed = house.mailed_code().await;
    assert_eq!(go_on(&mut browser, &mailed, &[]).await.to.as_deref(), Some("/console"));
    assert_eq!(proved_days_ago(&house, &zoya).await, 0);
}

#[tokio::test]
async fn atk_044_a_second_factor_makes_a_stale_number_good() {
    let house = House::new().await;
    let zoya = join(&house, house.sharma, "Zoya", None).await;
    let mut browser = house.browser();
    enter(&mut browser, &zoya, &[]).await;
    let (secret, _) = browser.set_up_totp().await;
    house.later(91 * DAY);
    let mut browser = house.browser();
    let half = enter(&mut browser, &zoya, &[]).await;
    assert_eq!(half.to.as_deref(), Some("/console/second-factor?next=/console"), "{}", half.body);
    assert_eq!(proved_days_ago(&house, &zoya).await, 91, "half a proof is none");
    let code = browser.code_of(&secret, 0);
    assert_eq!(browser.post("/console/second-factor", &[("code", &code)]).await.to.as_deref(), Some("/console"));
    assert_eq!(proved_days_ago(&house, &zoya).await, 0);
}

#[tokio::test]
async fn atk_044_who_has_nothing_but_a_number_that_is_stale_is_told_so_and_stays_out() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let meena = join(&house, kaveri, "Meena", None).await;
    house.later(91 * DAY);
    let mut browser = house.browser();
    let refused = enter(&mut browser, &meena, &[]).await;
    assert_eq!((refused.status, browser.session()), (StatusCode::UNPROCESSABLE_ENTITY, None));
    assert!(refused.body.contains("a code to it alone opens nothing"), "{}", refused.body);
    assert!(!refused.body.contains("Kaveri") && !refused.body.contains("Meena"), "{}", refused.body);
}

#[tokio::test]
async fn atk_044_two_people_who_share_a_number_come_in_as_themselves_and_see_nothing_of_each_other() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let meena = join(&house, house.sharma, "Meena Rao", None).await;
    let ravi = join(&house, kaveri, "Ravi Kumar", None).await;
    let blind = |page: &str| !["Sharma", "Kaveri", "Meena", "Ravi"].iter().any(|word| page.contains(word));
    let next = |page: &Answer| house::between(&page.body, "name=\"code\" value=\"", "\"").to_owned();
    for (hers, name, (own, foreign), other) in [
        (&meena, " meena  RAO ", ("Sharma Mobiles", "Kaveri"), (&ravi, "Ravi Kumar")),
        (&ravi, "Ravi Kumar", ("Kaveri Retail", "Sharma"), (&meena, "Meena Rao")),
    ] {
        // The number may have gone from the one to the other: who holds it says who she is, and only she comes in whose
        // business sent the code.
        let mut browser = house.browser();
        let asked = enter(&mut browser, hers, &[]).await;
        assert_eq!((asked.status, browser.session()), (StatusCode::OK, None));
        assert!(asked.body.contains("Who are you?") && blind(&asked.body), "{}", asked.body);
        let days = proved_days_ago(&house, hers).await;
        let refused = go_on(&mut browser, &next(&asked), &[("name", other.1)]).await;
        assert_eq!((refused.to.as_deref(), browser.session()), (None, None), "{}", refused.body);
        assert!(refused.body.contains("Nobody of this name is reached this way") && blind(&refused.body));
        let other = other.0.staff_id.to_string();
        let come = go_on(&mut browser, &next(&refused), &[("name", name), ("staff", &other)]).await;
        assert_eq!(
            (come.to.as_deref(), proved_days_ago(&house, hers).await),
            (None, days),
            "the other's id leads nowhere"
        );
        house.later(60 * 60);
        let mut browser = house.browser();
        let asked = enter(&mut browser, hers, &[]).await;
        let come = go_on(&mut browser, &next(&asked), &[("name", name)]).await;
        assert_eq!(come.to.as_deref(), Some("/console"), "{}", come.body);
        let home = browser.get("/console").await.body;
        assert!(home.contains(own) && !home.contains(foreign), "{home}");
        house.later(2 * 60 * 60);
    }
}

#[tokio::test]
async fn atk_051_guesses_at_no_place_warn_whose_account_it_is() {
    let house = House::new().await;
    let guess = [("who", "asha@example.in"), ("password", "not this one"), ("place", "zz\0"), ("way", "password")];
    let mut seen = Vec::new();
    for at in 0..40 {
        house.later(at * 20 * 60);
        let mut browser = house.browser();
        seen.push(browser.post("/console/sign-in", &guess).await.status);
        if house.warnings().await == ["wrong_attempts"] {
            break;
        }
    }
    assert_eq!(house.warnings().await, ["wrong_attempts"], "{seen:?}");
    assert!(seen.iter().all(|status| !status.is_server_error()), "{seen:?}");
    assert_eq!(house.recorded("people.sign_in_slowed").await, 1);
}

#[tokio::test]
async fn atk_044_two_people_who_share_a_mail_address_say_who_they_are_and_see_nothing_of_each_other() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    join(&house, house.sharma, "Meena Rao", Some(MAIL)).await;
    let there = join(&house, kaveri, "Ravi Kumar", Some(MAIL)).await;
    let blind = |page: &str| !["Sharma", "Kaveri", "Meena", "Ravi"].iter().any(|word| page.contains(word));
    let mut browser = house.browser();
    let asked = enter_mailed(&mut browser, &[]).await;
    assert_eq!((asked.status, browser.session()), (StatusCode::OK, None));
    assert!(asked.body.contains("Who are you?") && blind(&asked.body), "{}", asked.body);
    let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let come = go_on_mailed(&mut browser, &code, &[("name", " ravi  KUMAR ")]).await;
    assert_eq!(come.to.as_deref(), Some("/console"), "{}", come.body);
    let home = browser.get("/console").await.body;
    assert!(home.contains("Kaveri Retail") && !home.contains("Sharma"), "{home}");

    // The other's id leads no further without a name, and the code is spent.
    let there = there.staff_id.to_string();
    let mut browser = house.browser();
    let asked = enter_mailed(&mut browser, &[]).await;
    let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let cookies = browser.cookies.clone();
    let refused = go_on_mailed(&mut browser, &code, &[("staff", &there)]).await;
    assert_eq!((refused.to.as_deref(), browser.session()), (None, None), "{}", refused.body);
    assert!(blind(&refused.body), "{}", refused.body);
    let mut kept = Browser { house: &house, cookies, from: None };
    let again = go_on_mailed(&mut kept, &code, &[("name", "Ravi Kumar")]).await;
    assert_eq!((again.status, kept.session()), (StatusCode::UNPROCESSABLE_ENTITY, None));
}

#[tokio::test]
async fn atk_044_a_number_is_confirmed_in_each_place_by_itself_and_the_owner_sees_whose_is_stale() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let here = join(&house, house.sharma, "Zoya Khan", None).await;
    let there = join(&house, kaveri, "Zoya Khan", None).await;
    house.later(60 * DAY);
    assert_eq!(enter(&mut house.browser(), &there, &[]).await.to.as_deref(), Some("/console"));
    assert_eq!((proved_days_ago(&house, &here).await, proved_days_ago(&house, &there).await), (60, 0));

    house.later(91 * DAY);
    let mut asha = house.signed_in().await;
    let since = (house.now() - chrono::TimeDelta::days(91)).with_timezone(&chrono_tz::Asia::Kolkata);
    let since = format!("last confirmed, or added, on {}", since.format("%-d %B %Y"));
    let page = asha.get("/console/staff").await.body;
    assert!(page.contains(&since), "{since}: {page}");
    // Where it is stale it stays so, whatever was proved elsewhere.
    assert_eq!(enter(&mut house.browser(), &there, &[]).await.to.as_deref(), Some("/console"));
    let refused = enter(&mut house.browser(), &here, &[]).await;
    assert!(refused.body.contains("a code to it alone opens nothing"), "{}", refused.body);
    assert_eq!((proved_days_ago(&house, &here).await, proved_days_ago(&house, &there).await), (91, 0));
    assert!(asha.get("/console/staff").await.body.contains(&since), "still");
}

/// A business of Mallory's where a row bears somebody's name and number, as if she worked there.
async fn plant(house: &House, name: &str) -> Staff {
    let mut db = house.conn().await;
    let made = add_business(&mut db, "mallory", "Mallory", &*house.console.clock, &OsChance).await.expect("made");
    join_unproved(house, made.business_id, name, None).await
}

#[tokio::test]
async fn atk_044_a_row_that_somebody_invents_makes_no_stale_number_good() {
    let house = House::new().await;
    let zoya = join(&house, house.sharma, "Zoya Khan", Some("zoya@example.in")).await;
    house.later(100 * DAY);
    let planted = plant(&house, "Zoya Khan").await;
    // Whoever has the number now comes into the invention alone.
    let mut mallory = house.browser();
    assert_eq!(enter(&mut mallory, &planted, &[]).await.to.as_deref(), Some("/console"));
    assert!(mallory.get("/console").await.body.contains("Mallory"));
    assert_eq!(proved_days_ago(&house, &zoya).await, 100, "what is proved there freshens nobody here");
    // Not by either's id, and not once the invention has been confirmed.
    let (here, there) = (zoya.staff_id.to_string(), planted.staff_id.to_string());
    let mut browser = house.browser();
    let refused = enter(&mut browser, &zoya, &[("staff", &there)]).await;
    assert_eq!((refused.to.as_deref(), browser.session()), (None, None), "{}", refused.body);
    for (at, more) in (1..).zip([&[][..], &[("staff", here.as_str())][..]]) {
        house.later(100 * DAY + at * 2 * 60 * 60);
        let mut mallory = house.browser();
        let half = enter(&mut mallory, &zoya, more).await;
        assert_eq!((half.to.as_deref(), mallory.session()), (None, None), "{more:?}: {}", half.body);
        assert!(half.body.contains("Another code is on its way to your mail address"), "{}", half.body);
        assert_eq!(proved_days_ago(&house, &zoya).await, 100);
    }
}

#[tokio::test]
async fn atk_044_a_code_by_way_of_an_invented_row_opens_no_other_place() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let before = join(&house, house.sharma, "Zoya Khan", None).await;
    house.later(DAY);
    let planted = plant(&house, "Zoya Khan").await;
    house.later(2 * DAY);
    let after = join(&house, kaveri, "Zoya Khan", None).await;
    // Its business's account carried the code, and its owner may have read it there.
    for zoya in [&before, &after] {
        let mut mallory = house.browser();
        let there = zoya.staff_id.to_string();
        let refused = enter(&mut mallory, &planted, &[("staff", &there)]).await;
        assert_eq!((refused.to.as_deref(), mallory.session()), (None, None), "{}", refused.body);
    }
    let mut mallory = house.browser();
    assert_eq!(enter(&mut mallory, &planted, &[]).await.to.as_deref(), Some("/console"));
    assert!(mallory.get("/console").await.body.contains("Mallory"));
    assert_eq!((proved_days_ago(&house, &before).await, proved_days_ago(&house, &after).await), (2, 0));
}

#[tokio::test]
async fn atk_044_a_right_code_to_a_stale_number_is_on_record_and_told_elsewhere() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let meena = join(&house, kaveri, "Meena", None).await;
    house.later(91 * DAY);
    let refused = enter(&mut house.browser(), &meena, &[]).await;
    assert!(refused.body.contains("a code to it alone opens nothing"), "{}", refused.body);
    assert_eq!(house.recorded("people.stale_phone_proved").await, 1);
    assert_eq!(house.warnings().await, ["stale_phone"]);
    let whose: i64 = sqlx::query_scalar(
        "select count(*) from muneem.evidence_events
         where convert_from(body, 'UTF8') like '%console.stale_phone%' and convert_from(body, 'UTF8') like $1",
    )
    .bind(format!("%{}%", meena.staff_id))
    .fetch_one(&house.db.pool())
    .await
    .expect("counted");
    assert_eq!(whose, 1, "the refusal says whose number it was");
}

#[tokio::test]
async fn who_shares_an_address_and_works_in_two_places_comes_in_three_times_in_an_hour() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    join(&house, house.sharma, "Zoya Khan", Some(MAIL)).await;
    let there = join(&house, kaveri, "Zoya Khan", Some(MAIL)).await;
    let mut db = house.conn().await;
    let third = add_business(&mut db, "third", "Third", &*house.console.clock, &OsChance).await.expect("a shop");
    drop(db);
    join(&house, third.business_id, "Ravi Kumar", Some(MAIL)).await;
    for at in 0..3 {
        house.later(at * 10 * 60);
        let mut browser = house.browser();
        let asked = enter_mailed(&mut browser, &[]).await;
        assert!(asked.body.contains("Who are you?"), "{at}: {}", asked.body);
        let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
        let asked = go_on_mailed(&mut browser, &code, &[("name", "Zoya Khan")]).await;
        assert!(asked.body.contains("Kaveri Retail") && !asked.body.contains("Third"), "{at}: {}", asked.body);
        let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
        let chosen = there.staff_id.to_string();
        let come = go_on_mailed(&mut browser, &code, &[("name", "Zoya Khan"), ("staff", &chosen)]).await;
        assert_eq!(come.to.as_deref(), Some("/console"), "{at}: {}", come.body);
    }
}

#[tokio::test]
async fn a_wrong_name_is_told_and_bears_five_tries_in_the_ten_minutes_of_one_proof() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    join(&house, house.sharma, "Meena Rao", Some(MAIL)).await;
    join(&house, kaveri, "Ravi Kumar", Some(MAIL)).await;
    let mut browser = house.browser();
    let mut page = enter_mailed(&mut browser, &[]).await;
    let next = |page: &Answer| house::between(&page.body, "name=\"code\" value=\"", "\"").to_owned();
    for left in ["4 tries are left", "3 tries are left", "2 tries are left", "one try is left"] {
        page = go_on_mailed(&mut browser, &next(&page), &[("name", "Asha")]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            page.body.contains("Nobody of this name is reached this way") && page.body.contains(left),
            "{}",
            page.body
        );
    }
    let mut kept = Browser { house: &house, cookies: browser.cookies.clone(), from: None };
    let code = next(&page);
    let refused = go_on_mailed(&mut browser, &code, &[("name", "Asha")]).await;
    assert!(refused.body.contains("have a new code sent"), "{}", refused.body);
    assert_eq!(go_on_mailed(&mut kept, &code, &[("name", "Meena Rao")]).await.to, None, "the tries are over");

    // A slip costs nothing but a try; and asking again and again keeps no proof alive.
    house.later(2 * 60 * 60);
    let mut browser = house.browser();
    let page = enter_mailed(&mut browser, &[]).await;
    let page = go_on_mailed(&mut browser, &next(&page), &[("name", "Mena Rao")]).await;
    let cookies = browser.cookies.clone();
    let come = go_on_mailed(&mut browser, &next(&page), &[("name", "Meena Rao")]).await;
    assert_eq!(come.to.as_deref(), Some("/console"), "{}", come.body);
    assert_eq!(
        go_on_mailed(&mut Browser { house: &house, cookies, from: None }, &next(&page), &[]).await.to,
        None,
        "once"
    );
    let mut browser = house.browser();
    let page = enter_mailed(&mut browser, &[]).await;
    house.later(2 * 60 * 60 + 9 * 60);
    let page = go_on_mailed(&mut browser, &next(&page), &[("name", "Mena Rao")]).await;
    house.later(2 * 60 * 60 + 10 * 60 + 1);
    assert_eq!(go_on_mailed(&mut browser, &next(&page), &[("name", "Meena Rao")]).await.to, None, "ten minutes in all");
}

#[tokio::test]
async fn a_code_goes_by_the_first_of_her_places_that_can_send_one() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    // The oldest row has neither a WhatsApp account behind it nor a mail address.
    join(&house, kaveri, "Zoya Khan", None).await;
    house.later(60);
    join(&house, house.sharma, "Zoya Khan", Some("zoya@example.in")).await;
    let mut browser = house.browser();
    browser.post("/console/sign-in", &[("who", NUMBER), ("way", "code")]).await;
    let mailed = house.mailed_code().await;
    assert_eq!(go_on(&mut browser, &mailed, &[]).await.to.as_deref(), Some("/console"));
    assert!(browser.get("/console").await.body.contains("Sharma Mobiles"));
}

#[tokio::test]
async fn who_works_in_two_places_says_which_one_is_to_send_the_code_and_to_read_the_password() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let there = join(&house, kaveri, "Zoya Khan", Some(MAIL)).await;
    house.later(60);
    let here = join(&house, house.sharma, "Zoya Khan", Some(MAIL)).await;
    let places = [(" Sharma-Mobiles ", "Sharma Mobiles"), ("kaveri-retail", "Kaveri Retail"), ("", "Kaveri Retail")];
    for (at, (place, opened)) in (1..).zip(places) {
        house.later(at * 60 * 60);
        let mut browser = house.browser();
        let asked = browser.post("/console/sign-in", &[("who", NUMBER), ("place", place), ("way", "code")]).await;
        assert!(asked.body.contains(&format!("name=\"place\" value=\"{place}\"")), "{}", asked.body);
        let mailed = house.mailed_code().await;
        assert_eq!(go_on(&mut browser, &mailed, &[]).await.to.as_deref(), Some("/console"), "{place}");
        assert!(browser.get("/console").await.body.contains(opened), "{place}");
    }
    // A code by mail opens the place that was written, though it reaches her in both.
    house.later(10 * 60 * 60);
    let mut browser = house.browser();
    let at = [("who", MAIL), ("place", "sharma-mobiles")];
    browser.post("/console/sign-in", &[at[0], at[1], ("way", "code")]).await;
    let mailed = house.mailed_code().await;
    let come = browser.post("/console/sign-in/code", &[at[0], at[1], ("code", &mailed)]).await;
    assert_eq!(come.to.as_deref(), Some("/console"), "{}", come.body);
    assert!(browser.get("/console").await.body.contains("Sharma Mobiles"));
    // A place that is none, and one where she does not work, look like any other.
    let pool = house.db.pool();
    let mailed = async || {
        let count = sqlx::query_scalar("select count(*) from muneem.messaging_mails where template = 'sign_in_code'");
        count.fetch_one(&pool).await.expect("counted")
    };
    let before: i64 = mailed().await;
    for place in ["mallory", "sharma mobiles"] {
        let mut browser = house.browser();
        let asked = browser.post("/console/sign-in", &[("who", NUMBER), ("place", place), ("way", "code")]).await;
        assert!(asked.status == StatusCode::OK && asked.body.contains("Enter your code"), "{}", asked.body);
    }
    assert_eq!(mailed().await, before, "and nothing is sent");

    for staff in [&here, &there] {
        house.give_password(staff).await;
    }
    let mut browser = house.browser();
    let fields = [("who", MAIL), ("place", "sharma-mobiles"), ("way", "password"), ("password", house::PASSWORD)];
    assert_eq!(browser.post("/console/sign-in", &fields).await.to.as_deref(), Some("/console"));
    assert!(browser.get("/console").await.body.contains("Sharma Mobiles"));
}

#[tokio::test]
async fn staff_of_the_installation_say_so_where_others_write_a_business() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    for (business, name) in [(Some(house.sharma), "Olga"), (Some(kaveri), "Olga"), (None, "Olga")] {
        let staff = house.join(business, name, "olga@example.com", Role::Auditor).await;
        house.give_password(&staff).await;
        house.later(60);
    }
    let fields = [("who", "olga@example.com"), ("way", "password"), ("password", PASSWORD)];
    let mut browser = house.browser();
    let asked = browser.post("/console/sign-in", &fields).await;
    assert!(asked.body.contains("Sharma Mobiles") && !asked.body.contains("The platform itself"), "{}", asked.body);
    let mut browser = house.browser();
    let come = browser.post("/console/sign-in", &[fields[0], fields[1], fields[2], ("place", "Platform")]).await;
    assert!(come.to.is_some(), "{}", come.body);
    let led = browser.get("/console/security").await.body;
    assert!(!led.contains("Sharma") && !led.contains("Kaveri"), "{led}");
}

#[tokio::test]
async fn another_password_ends_a_choice_that_waits() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let there = house.join(Some(kaveri), "Asha", "asha@example.in", Role::ReadOnly).await;
    house.give_password(&there).await;
    let mut thief = house.browser();
    let asked = thief.sign_in("asha@example.in", PASSWORD).await;
    let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let hash = house.console.passwords.keep(&"another four words here".to_owned().into()).await;
    let hash = hash.expect("hashed").expect("good");
    // Of the second of the two: the choice began with the first.
    let mut db = house.conn().await;
    muneem_jobs::people::signin::set_password(&mut db, there.staff_id.0, &hash, None, house.now()).await.expect("set");
    drop(db);
    let staff = there.staff_id.to_string();
    let fields = [("who", "asha@example.in"), ("code", code.as_str()), ("staff", staff.as_str())];
    let refused = thief.post("/console/sign-in/code", &fields).await;
    assert_eq!((refused.status, thief.session()), (StatusCode::UNPROCESSABLE_ENTITY, None), "{}", refused.body);
}

#[tokio::test]
async fn who_has_a_password_in_two_places_chooses_and_a_place_that_somebody_invented_opens_no_other() {
    let house = House::new().await;
    let kaveri = kaveri(&house).await;
    let there = house.join(Some(kaveri), "Asha", "asha@example.in", Role::ReadOnly).await;
    house.give_password(&there).await;
    // Where somebody else added her and set a password.
    let mut db = house.conn().await;
    let invented = add_business(&mut db, "mallory", "Mallory", &*house.console.clock, &OsChance).await.expect("made");
    let planted = house.join(Some(invented.business_id), "Asha", "asha@example.in", Role::Owner).await;
    let hash = house.console.passwords.keep(&"another four words here".to_owned().into()).await;
    let hash = hash.expect("hashed").expect("good");
    muneem_jobs::people::signin::set_password(&mut db, planted.staff_id.0, &hash, None, house.now())
        .await
        .expect("set");
    drop(db);

    let mut browser = house.browser();
    let asked = browser.sign_in("asha@example.in", PASSWORD).await;
    assert_eq!((asked.status, browser.session()), (StatusCode::OK, None));
    assert!(asked.body.contains("Sharma Mobiles") && asked.body.contains("Kaveri Retail"), "{}", asked.body);
    assert!(!asked.body.contains("Mallory"), "{}", asked.body);
    let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let choose = async |browser: &mut Browser<'_>, staff: &Staff| {
        let staff = staff.staff_id.to_string();
        let fields = [("who", "asha@example.in"), ("code", code.as_str()), ("staff", staff.as_str())];
        browser.post("/console/sign-in/code", &fields).await
    };
    let cookies = browser.cookies.clone();
    let come = choose(&mut browser, &there).await;
    assert_eq!(come.to.as_deref(), Some("/console"), "{}", come.body);
    assert!(browser.get("/console").await.body.contains("Kaveri Retail"));
    let verified: bool =
        sqlx::query_scalar("select email_verified_at is not null from muneem.people_staff where staff_id = $1")
            .bind(there.staff_id.0)
            .fetch_one(&house.db.pool())
            .await
            .expect("read");
    assert!(!verified, "a password proves no address");
    let mut kept = Browser { house: &house, cookies, from: None };
    assert_eq!(choose(&mut kept, &there).await.status, StatusCode::UNPROCESSABLE_ENTITY, "once");

    // A choice leads nowhere but to what it was made of.
    let mut browser = house.browser();
    let asked = browser.sign_in("asha@example.in", PASSWORD).await;
    let code = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let staff = planted.staff_id.to_string();
    let fields = [("who", "asha@example.in"), ("code", code.as_str()), ("staff", staff.as_str())];
    assert_eq!(browser.post("/console/sign-in/code", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut mallory = house.browser();
    let only = mallory.sign_in("asha@example.in", "another four words here").await;
    assert_ne!(only.status, StatusCode::OK, "no choice");
    assert_eq!(mallory.session(), None, "of a third place the password is not looked at");
}
