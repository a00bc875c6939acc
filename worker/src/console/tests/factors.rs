//! The second factor: set up, proved, demanded, lost.

use muneem_jobs::people::Role;

use super::{house::Browser, *};

const SECOND: &str = "/console/second-factor";

/// With the first factor alone.
async fn half_way(house: &House) -> Browser<'_> {
    let mut browser = house.browser();
    let answer = browser.sign_in("asha@example.in", PASSWORD).await;
    assert_eq!(answer.to.as_deref(), Some("/console/second-factor?next=/console"));
    browser
}

#[tokio::test]
async fn atk_050_totp_code_works_once_at_the_door_too() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let (secret, _, set_up_with) = asha.set_up_totp_with().await;
    // The code that set it up is spent.
    let mut browser = half_way(&house).await;
    assert_eq!(browser.post(SECOND, &[("code", &set_up_with)]).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // Of two browsers that enter one code at once, one comes in.
    house.later(30);
    let code = browser.code_of(&secret, 0);
    let mut other = half_way(&house).await;
    let fields = [("code", code.as_str())];
    let (one, two) = futures_util::join!(browser.post(SECOND, &fields), other.post(SECOND, &fields));
    let mut told = [one.status, two.status];
    told.sort_unstable();
    assert_eq!(told, [StatusCode::SEE_OTHER, StatusCode::UNPROCESSABLE_ENTITY]);
    // An older step after a newer one is none.
    let mut late = half_way(&house).await;
    let older = late.code_of(&secret, -1);
    assert_eq!(late.post(SECOND, &[("code", &older)]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn half_way_nothing_but_the_second_factor_is_open() {
    let house = House::new().await;
    house.signed_in().await.set_up_totp().await;
    let mut browser = half_way(&house).await;
    for path in ["/console", "/console/sessions", "/console/security", "/console/security/password", "/console/confirm"]
    {
        let led = browser.get(path).await.to.unwrap_or_else(|| panic!("{path} is open"));
        assert!(led.starts_with("/console/second-factor?next="), "{path}: {led}");
    }
    for path in
        ["/console/security/totp/begin", "/console/security/recovery", "/console/export", "/console/confirm/passkey"]
    {
        let status = browser.post(path, &[]).await.status;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
    }
    assert_eq!(browser.get(SECOND).await.status, StatusCode::OK);
    // And whoever is through has no use for it.
    let mut ravi = house.browser();
    house.give_password(&house.ravi).await;
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    assert_eq!(ravi.post(SECOND, &[("code", "123456")]).await.to.as_deref(), Some("/console/sign-in?next=/console"));
}

#[tokio::test]
async fn atk_051_guesses_at_the_second_factor_wait() {
    let house = House::new().await;
    let (secret, _) = house.signed_in().await.set_up_totp().await;
    let mut thief = house.browser();
    thief.from = Some("203.0.113.9");
    thief.sign_in("asha@example.in", PASSWORD).await;
    let mut told = Vec::new();
    for guess in 0..7 {
        let guess = format!("{guess:06}");
        told.push(thief.post(SECOND, &[("code", &guess)]).await.status);
    }
    assert_eq!(told.last(), Some(&StatusCode::TOO_MANY_REQUESTS), "{told:?}");
    // Recovery codes are counted with them, and a new half session begins no new count.
    thief.sign_in("asha@example.in", PASSWORD).await;
    let spray = thief.post(SECOND, &[("code", "0000-0000-0000-0000")]).await;
    assert_eq!(spray.status, StatusCode::TOO_MANY_REQUESTS);
    house.later(30);
    let right = thief.code_of(&secret, 0);
    assert_eq!(thief.post(SECOND, &[("code", &right)]).await.status, StatusCode::SEE_OTHER, "half a minute later");
}

#[tokio::test]
async fn a_recovery_code_lets_in_once_and_is_told() {
    let house = House::new().await;
    let (_, codes) = house.signed_in().await.set_up_totp().await;
    assert_eq!(codes.len(), 10);
    let mut browser = half_way(&house).await;
    assert!(browser.get(SECOND).await.body.contains("A recovery code"));
    let typed = codes[3].to_uppercase().replace('-', " ");
    assert_eq!(browser.post(SECOND, &[("code", &typed)]).await.to.as_deref(), Some("/console"));
    assert!(browser.get("/console/security").await.body.contains("9 left of ten"));
    let mut again = half_way(&house).await;
    assert_eq!(again.post(SECOND, &[("code", &codes[3])]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(house.warnings().await.contains(&"recovery_code_used".to_owned()));
    assert_eq!(house.recorded("people.recovery_code_used").await, 1);

    // New ones end the old.
    let page = browser.post("/console/security/recovery", &[]).await;
    assert_eq!(page.body.matches("<li><code>").count(), 10, "{}", page.body);
    assert_eq!((house.recorded("people.totp_set").await, house.recorded("people.recovery_codes_made").await), (1, 1));
    let mut old = half_way(&house).await;
    assert_eq!(old.post(SECOND, &[("code", &codes[4])]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn where_a_second_factor_is_demanded_nothing_else_is_open_until_it_is_set_up() {
    let house = House::new().await;
    house.give_password(&house.ravi).await;
    let mut asha = house.signed_in().await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    assert_eq!(ravi.get("/console").await.status, StatusCode::OK);
    let refused = ravi.post("/console/second-factor-for-all", &[("demanded", "true")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "a manager does not decide it");
    let done = asha.post("/console/second-factor-for-all", &[("demanded", "true")]).await;
    assert_eq!(done.to.as_deref(), Some("/console"), "{}", done.body);
    assert_eq!(house.recorded("people.second_factor_demanded").await, 1);

    // At the next request of everybody, those who are signed in already too.
    for browser in [&mut asha, &mut ravi] {
        for path in ["/console", "/console/sessions"] {
            assert_eq!(browser.get(path).await.to.as_deref(), Some("/console/security"), "{path}");
        }
        assert_eq!(browser.post("/console/export", &[]).await.to.as_deref(), Some("/console/security"));
        assert!(browser.get("/console/security").await.body.contains("has to have a second factor"));
    }
    ravi.set_up_totp().await;
    assert_eq!(ravi.get("/console").await.status, StatusCode::OK);

    // Staff of the platform need one without anybody's saying so.
    let kiran = house.join(None, "Kiran", "kiran@example.in", Role::Operator).await;
    house.give_password(&kiran).await;
    let mut browser = house.browser();
    browser.sign_in("kiran@example.in", PASSWORD).await;
    assert_eq!(browser.get("/console").await.to.as_deref(), Some("/console/security"));
    browser.set_up_totp().await;
    let home = browser.get("/console").await;
    assert_eq!(home.status, StatusCode::OK);
    assert!(home.body.contains("This installation") && home.body.contains("operator"), "{}", home.body);
}

#[tokio::test]
async fn a_password_is_set_by_whoever_has_proved_a_factor_and_ends_other_sessions() {
    let house = House::new().await;
    let (mut here, mut there) = (house.signed_in().await, house.signed_in().await);
    let path = "/console/security/password";
    for (password, again, words) in [
        ("a new pass phrase", "another one", "not the same"),
        ("short", "short", "shorter than 12"),
        ("password1234", "password1234", "list of breached or common"),
    ] {
        let refused = here.post(path, &[("password", password), ("again", again)]).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.body.contains(words), "{}", refused.body);
        assert!(!refused.body.contains(&format!("value=\"{password}\"")), "passwords are not shown again");
    }
    let set = here.post(path, &[("password", "a new pass phrase"), ("again", "a new pass phrase")]).await;
    assert_eq!(set.to.as_deref(), Some("/console/security"));
    assert_eq!(here.get("/console").await.status, StatusCode::OK);
    assert_eq!(there.get("/console").await.to.as_deref(), Some("/console/sign-in?next=/console"));
    assert_eq!(house.browser().sign_in("asha@example.in", PASSWORD).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let new = house.browser().sign_in("asha@example.in", "a new pass phrase").await;
    assert_eq!(new.status, StatusCode::SEE_OTHER);
    assert!(house.warnings().await.contains(&"password_changed".to_owned()));
    assert_eq!(house.recorded("people.password_set").await, 1);
}

#[tokio::test]
async fn atk_062_a_lost_factor_goes_by_a_second_person_who_may_and_its_owner_can_stop_it() {
    let house = House::new().await;
    let (secret, _) = house.signed_in().await.set_up_totp().await;
    let mut lost = half_way(&house).await;
    assert_eq!(lost.post("/console/second-factor/lost", &[]).await.status, StatusCode::SEE_OTHER);
    let twice = lost.post("/console/second-factor/lost", &[]).await;
    assert_eq!(twice.status, StatusCode::SEE_OTHER, "asking again is no error");
    assert!(lost.get("/console/second-factor/lost").await.body.contains("You have asked"));
    assert_eq!(house.recorded("people.factor_reset_asked").await, 1);

    // A manager sees it, and may not help into the account of an owner; another owner may.
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    let page = ravi.get("/console").await.body;
    let approve = format!("/console/resets/{}/approve", house::between(&page, "/console/resets/", "/approve"));
    let refused = ravi.post(&approve, &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    // Of another business it does not exist.
    let meena = house.join(Some(house.sharma), "Meena", "meena@example.in", Role::Owner).await;
    house.give_password(&meena).await;
    let mut meena = house.browser();
    meena.sign_in("meena@example.in", PASSWORD).await;
    assert_eq!(meena.post(&approve, &[]).await.to.as_deref(), Some("/console"));
    assert_eq!(meena.post(&approve, &[]).await.to.as_deref(), Some("/console"), "again is no second job");
    let planned: i64 = sqlx::query_scalar("select count(*) from muneem.queue_jobs where kind = 'people.end_factor'")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(planned, 1);
    assert!(house.warnings().await.contains(&"factor_reset_approved".to_owned()));

    // She has found it after all, and says no.
    house.later(30);
    let code = lost.code_of(&secret, 0);
    assert_eq!(lost.post(SECOND, &[("code", &code)]).await.status, StatusCode::SEE_OTHER);
    assert!(lost.get("/console").await.body.contains("wants your second factor taken away"));
    let stop = approve.replace("/approve", "/cancel");
    assert_eq!(lost.post(&stop, &[]).await.to.as_deref(), Some("/console"));
    assert!(!lost.get("/console").await.body.contains("wants your second factor taken away"));
    assert_eq!(meena.post(&approve, &[]).await.status, StatusCode::NOT_FOUND, "it is over");
    for verb in ["people.factor_reset_approved", "people.factor_reset_cancelled"] {
        assert_eq!(house.recorded(verb).await, 1, "{verb}");
    }

    // Nobody approves what she asked for herself.
    let mut again = half_way(&house).await;
    again.post("/console/second-factor/lost", &[]).await;
    let own = meena.get("/console").await.body;
    let approve = format!("/console/resets/{}/approve", house::between(&own, "/console/resets/", "/approve"));
    let alone = lost.post(&approve, &[]).await;
    assert_eq!(alone.status, StatusCode::FORBIDDEN, "{}", alone.body);
}

#[tokio::test]
async fn passkeys_are_asked_for_and_a_wrong_answer_is_no_proof() {
    let house = House::new().await;
    let mut browser = house.signed_in().await;
    let json = [("origin", ORIGIN), ("content-type", "application/json")];
    let begun = browser.post_with("/console/security/passkeys/begin", &[], &json).await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.body);
    let begun: serde_json::Value = serde_json::from_str(&begun.body).expect("JSON");
    assert_eq!(begun["options"]["publicKey"]["rp"]["id"], "console.example.in");
    let challenge = begun["challenge"].as_str().expect("an id");
    for answer in ["{}", "nonsense"] {
        let fields = [("challenge", challenge), ("answer", answer), ("label", "laptop")];
        let refused = browser.post("/console/security/passkeys", &fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.body.contains("The passkey was not taken"), "{}", refused.body);
    }
    // Who has none is not asked for one.
    let none = browser.post_with("/console/confirm/passkey", &[], &json).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.post("/console/security/passkeys/AAAA/remove", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_is_half_way_in_can_leave() {
    let house = House::new().await;
    house.signed_in().await.set_up_totp().await;
    let mut browser = half_way(&house).await;
    let page = browser.get(SECOND).await;
    assert!(page.body.contains("action=\"/console/sign-out\""), "{}", page.body);
    let before = browser.cookies.clone();
    let left = browser.post("/console/sign-out", &[]).await;
    assert_eq!((left.to.as_deref(), browser.session()), (Some("/console/sign-in"), None));
    assert_eq!(house.recorded("people.signed_out").await, 1);
    // Whoever kept the cookie has nothing of it.
    let mut kept = Browser { house: &house, cookies: before, from: None };
    let to = kept.get(SECOND).await.to.expect("led away");
    assert!(to.starts_with("/console/sign-in"), "{to}");
}
