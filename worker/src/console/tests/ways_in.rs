//! The first factor: passwords, codes, links; and that nobody learns from them who has an account.

use muneem_jobs::people::{Role, add_business, signin::Invitee};

use super::{
    house::{Answer, Browser},
    *,
};

/// What a stranger can tell an answer by: everything but chance.
fn seen(answer: &Answer, typed: &str) -> (StatusCode, String, Vec<(String, usize)>) {
    let cookies = answer.headers.get_all("set-cookie").iter().map(|cookie| {
        let text = cookie.to_str().expect("text");
        (text.split('=').next().unwrap_or_default().to_owned(), text.len())
    });
    (answer.status, answer.body.replace(typed, "…"), cookies.collect())
}

#[tokio::test]
async fn atk_052_an_unknown_account_looks_like_a_known_one() {
    let house = House::new().await;
    let (known, unknown, idle) = ("asha@example.in", "nobody@example.in", "ravi@example.in");
    let mut shown = Vec::new();
    for who in [known, unknown, idle] {
        shown.push(seen(&house.browser().sign_in(who, "not the password").await, who));
    }
    assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{shown:#?}");
    assert!(shown[0].1.contains("is not right"));

    let mut codes = Vec::new();
    for who in [known, unknown] {
        let mut browser = house.browser();
        let asked = browser.post("/console/sign-in", &[("who", who), ("way", "code")]).await;
        codes.push(seen(&asked, who));
        let wrong = browser.post("/console/sign-in/code", &[("who", who), ("code", "12345x")]).await;
        codes.push(seen(&wrong, who));
    }
    assert_eq!(codes[0], codes[2], "asked");
    assert_eq!(codes[1], codes[3], "entered");
    // More than five an hour are not sent, and that shows nowhere either.
    for minute in 1..=6 {
        house.later(minute * 120);
        let asked = house.browser().post("/console/sign-in", &[("who", known), ("way", "code")]).await;
        assert_eq!(seen(&asked, known), codes[0]);
    }
    let sent: i64 = sqlx::query_scalar("select count(*) from muneem.people_sign_in_codes")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(sent, 5);
}

#[tokio::test]
async fn a_sent_code_signs_in_once_and_in_its_own_browser_alone() {
    let house = House::new().await;
    let mut browser = house.browser();
    let asked = browser.post("/console/sign-in", &[("who", " Ravi@Example.in "), ("way", "code")]).await;
    assert_eq!(asked.status, StatusCode::OK);
    let code = house.mailed_code().await;
    let fields = [("who", "ravi@example.in"), ("code", code.as_str()), ("next", "/console/sessions")];

    // Read out on the telephone, and typed in elsewhere.
    let mut stranger = house.browser();
    stranger.post("/console/sign-in", &[("who", "nobody@example.in"), ("way", "code")]).await;
    assert_eq!(stranger.post("/console/sign-in/code", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    // Under another name it is nobody's.
    let cookies = browser.cookies.clone();
    let entered = browser.post("/console/sign-in/code", &fields).await;
    assert_eq!(entered.to.as_deref(), Some("/console/sessions"), "{}", entered.body);
    assert_eq!(browser.get("/console/sessions").await.status, StatusCode::OK);
    let again = Browser { house: &house, cookies, from: None }.post("/console/sign-in/code", &fields).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "a code works once");

    let verified: bool = sqlx::query_scalar(
        "select email_verified_at is not null and phone_verified_at is null from muneem.people_staff
         where staff_id = $1",
    )
    .bind(house.ravi.staff_id)
    .fetch_one(&house.db.pool())
    .await
    .expect("a row");
    assert!(verified, "who reads the mail holds the address");
}

#[tokio::test]
async fn a_code_of_one_person_does_not_sign_another_in() {
    let house = House::new().await;
    let mut browser = house.browser();
    browser.post("/console/sign-in", &[("who", "ravi@example.in"), ("way", "code")]).await;
    let code = house.mailed_code().await;
    let forged = browser.post("/console/sign-in/code", &[("who", "asha@example.in"), ("code", &code)]).await;
    assert_eq!((forged.status, browser.session()), (StatusCode::UNPROCESSABLE_ENTITY, None));
}

#[tokio::test]
async fn atk_051_strangers_do_not_lock_the_owner_out() {
    let house = House::new().await;
    let mut home = house.browser();
    home.from = Some("198.51.100.1");
    home.sign_in("asha@example.in", PASSWORD).await;
    home.post("/console/sign-out", &[]).await;

    // From one network: after a few wrong ones none is looked at, the right one neither.
    let mut stranger = house.browser();
    stranger.from = Some("203.0.113.9");
    let mut told = Vec::new();
    for _ in 0..8 {
        told.push(stranger.sign_in("asha@example.in", "wrong").await.status);
    }
    assert_eq!(told[0], StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(told[7], StatusCode::TOO_MANY_REQUESTS);
    let right = stranger.sign_in("asha@example.in", PASSWORD).await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: i64 = right.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=900).contains(&wait), "{wait}");
    // Its own invention of where it comes from changes nothing.
    let mut liar = house.browser();
    liar.from = Some("1.2.3.4, 203.0.113.9");
    assert_eq!(liar.sign_in("asha@example.in", "wrong").await.status, StatusCode::TOO_MANY_REQUESTS);

    // Where she has signed in before she does not wait; nor does anybody else, from the same network.
    assert_eq!(home.sign_in("asha@example.in", PASSWORD).await.status, StatusCode::SEE_OTHER);
    house.give_password(&house.ravi).await;
    assert_eq!(stranger.sign_in("ravi@example.in", PASSWORD).await.status, StatusCode::SEE_OTHER);

    // From everywhere at once she is told, once.
    let mut everywhere = house.browser();
    for (at, from) in ["203.0.113.10", "203.0.113.11", "203.0.113.12", "203.0.113.13"].iter().enumerate() {
        everywhere.from = Some(from);
        house.later(60 * (i64::try_from(at).expect("small") + 1));
        for _ in 0..3 {
            everywhere.sign_in("asha@example.in", "wrong").await;
        }
    }
    let warned = house.warnings().await;
    assert_eq!(warned.iter().filter(|warning| *warning == "wrong_attempts").count(), 1, "{warned:?}");
    assert_eq!(house.recorded("people.sign_in_slowed").await, 1);
}

#[tokio::test]
async fn who_works_in_two_places_chooses_after_the_code() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let kaveri = add_business(&mut db, "kaveri-retail", "Kaveri Retail", &*house.console.clock, &OsChance).await;
    let kaveri = kaveri.expect("a shop").business_id;
    drop(db);
    let there = house.join(Some(kaveri), "Ravi", "ravi@example.in", Role::Owner).await;
    let foreign = house.join(Some(kaveri), "Meena", "meena@example.in", Role::Owner).await;
    let mut browser = house.browser();
    browser.post("/console/sign-in", &[("who", "ravi@example.in"), ("way", "code")]).await;
    let code = house.mailed_code().await;
    let asked = browser.post("/console/sign-in/code", &[("who", "ravi@example.in"), ("code", &code)]).await;
    assert_eq!((asked.status, browser.session()), (StatusCode::OK, None));
    assert!(asked.body.contains("Sharma Mobiles") && asked.body.contains("Kaveri Retail"), "{}", asked.body);
    let proof = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let choose = |staff: String| vec![("who", "ravi@example.in".to_owned()), ("code", proof.clone()), ("staff", staff)];
    let cookies = browser.cookies.clone();

    // Not whoever has another address.
    let mut forger = Browser { house: &house, cookies, from: None };
    let forged = choose(foreign.staff_id.to_string());
    let forged: Vec<_> = forged.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(forger.post("/console/sign-in/code", &forged).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // That proof is spent; the way begins anew.
    let mut browser = house.browser();
    browser.post("/console/sign-in", &[("who", "ravi@example.in"), ("way", "code")]).await;
    let code = house.mailed_code().await;
    let asked = browser.post("/console/sign-in/code", &[("who", "ravi@example.in"), ("code", &code)]).await;
    let proof = house::between(&asked.body, "name=\"code\" value=\"", "\"").to_owned();
    let chosen = there.staff_id.to_string();
    let fields = [("who", "ravi@example.in"), ("code", proof.as_str()), ("staff", chosen.as_str())];
    assert_eq!(browser.post("/console/sign-in/code", &fields).await.to.as_deref(), Some("/console"));
    let home = browser.get("/console").await.body;
    assert!(home.contains("Kaveri Retail") && home.contains("owner") && !home.contains("Sharma"), "{home}");
}

#[tokio::test]
async fn a_link_lets_the_first_owner_in_once_and_looking_at_it_uses_nothing_up() {
    let house = House::new().await;
    let link = house.link(Invitee::Owner(None)).await;
    for _ in 0..3 {
        let shown = house.browser().get(&link).await;
        assert_eq!(shown.status, StatusCode::OK);
        assert!(shown.body.contains("Name of the business"), "{}", shown.body);
    }
    let form = |who: &'static str, password: &'static str| {
        [("business_name", "Verma Phones"), ("name", "Meena Verma"), ("who", who), ("password", password)]
    };
    let mut browser = house.browser();
    // What is wrong is said, what was typed stays, and nothing is used up.
    let weak = browser.post(&link, &form("meena@example.in", "short")).await;
    assert_eq!(weak.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(weak.body.contains("shorter than 12") && weak.body.contains("Meena Verma"), "{}", weak.body);
    let nobody = browser.post(&link, &form("meena", PASSWORD)).await;
    assert!(nobody.body.contains("Write a mail address"), "{}", nobody.body);
    let entered = browser.post(&link, &form("meena@example.in", PASSWORD)).await;
    assert_eq!(entered.to.as_deref(), Some("/console/security"), "{}", entered.body);
    let home = browser.get("/console").await.body;
    assert!(home.contains("Verma Phones") && home.contains("verma-phones") && home.contains("owner"), "{home}");

    assert_eq!(house.browser().get(&link).await.status, StatusCode::NOT_FOUND);
    let again = house.browser().post(&link, &form("thief@example.in", PASSWORD)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND, "used");
    let mut later = house.browser();
    assert_eq!(later.sign_in("meena@example.in", PASSWORD).await.to.as_deref(), Some("/console"));

    assert_eq!((house.recorded("people.invited").await, house.recorded("people.invitation_used").await), (1, 1));

    let late = house.link(Invitee::Owner(None)).await;
    house.later(24 * 3600 + 1);
    assert_eq!(house.browser().post(&late, &form("late@example.in", PASSWORD)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_link_sets_a_password_and_never_stands_in_for_the_second_factor() {
    let house = House::new().await;
    let (secret, _) = house.signed_in().await.set_up_totp().await;
    let link = house.link(Invitee::Staff(house.asha.staff_id)).await;
    let mut browser = house.browser();
    let page = browser.get(&link).await.body;
    assert!(page.contains("Asha &lt;b&gt;Verma") && !page.contains("Your name"), "{page}");
    let entered = browser.post(&link, &[("password", "another four words")]).await;
    assert_eq!(entered.to.as_deref(), Some("/console/second-factor?next=/console/security"));
    assert!(browser.get("/console").await.to.expect("led").starts_with("/console/second-factor"));
    house.later(30);
    let code = browser.code_of(&secret, 0);
    assert_eq!(browser.post("/console/second-factor", &[("code", &code)]).await.to.as_deref(), Some("/console"));
    // Of many at once one comes in.
    let link = house.link(Invitee::Owner(Some(house.sharma))).await;
    let mut browsers: Vec<_> = (0..5).map(|_| house.browser()).collect();
    let all = browsers.iter_mut().enumerate().map(|(at, browser)| {
        let who = format!("owner{at}@example.in");
        let link = &link;
        async move { browser.post(link, &[("name", "One"), ("who", &who), ("password", PASSWORD)]).await.status }
    });
    let told = futures_util::future::join_all(all).await;
    assert_eq!(told.iter().filter(|status| **status == StatusCode::SEE_OTHER).count(), 1, "{told:?}");
}

#[tokio::test]
async fn a_new_browser_and_a_new_country_are_told() {
    let house = House::new().await;
    let mut first = house.browser();
    first.sign_in("asha@example.in", PASSWORD).await;
    assert_eq!(house.warnings().await, Vec::<String>::new(), "the first browser of all is no news");
    house.browser().sign_in("asha@example.in", PASSWORD).await;
    assert_eq!(house.warnings().await, ["new_device"]);

    let login = [("who", "asha@example.in"), ("password", PASSWORD), ("way", "password")];
    for (from, country, told) in [
        (Some("198.51.100.1"), "IN", 1),
        (Some("198.51.100.1"), "IN", 1),
        (Some("198.51.100.1"), "ru", 2),
        // Not named by a proxy of ours: its own invention.
        (None, "BR", 2),
        (Some("198.51.100.1"), "nowhere", 2),
    ] {
        first.from = from;
        let headers = [("origin", ORIGIN), ("cf-ipcountry", country)];
        assert_eq!(first.post_with("/console/sign-in", &login, &headers).await.status, StatusCode::SEE_OTHER);
        assert_eq!(house.warnings().await.len(), told, "{country}");
    }
    assert_eq!(house.warnings().await[1], "new_country");
    assert_eq!(house.recorded("people.signed_in").await, 7);
}

#[tokio::test]
async fn a_full_line_of_passwords_asks_to_come_again() {
    let answer = axum::response::IntoResponse::into_response(guard::Turned::of(
        muneem_jobs::people::signin::Error::Password(muneem_jobs::people::signin::password::Error::Busy),
        chrono::DateTime::UNIX_EPOCH,
    ));
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "5");
}
