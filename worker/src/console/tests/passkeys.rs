//! What becomes of a passkey is in the evidence.

use serde_json::Value;

use super::{authenticator::Token, house::Browser, *};

const PASSKEYS: &str = "/console/security/passkeys";
const SECOND: &str = "/console/second-factor";
const JSON: [(&str, &str); 2] = [("origin", ORIGIN), ("content-type", "application/json")];

/// The challenge behind this address, and what the browser is asked.
async fn begun(browser: &mut Browser<'_>, path: &str) -> (String, Value) {
    let begun = browser.post_with(path, &[], &JSON).await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.body);
    let begun: Value = serde_json::from_str(&begun.body).expect("JSON");
    (begun["challenge"].as_str().expect("an id").to_owned(), begun["options"].clone())
}

async fn enrol(browser: &mut Browser<'_>, token: &Token) {
    let (challenge, options) = begun(browser, &format!("{PASSKEYS}/begin")).await;
    let answer = token.create(&options).to_string();
    let made = browser.post(PASSKEYS, &[("challenge", &challenge), ("answer", &answer), ("label", "laptop")]).await;
    assert!(made.status == StatusCode::OK || made.to.as_deref() == Some("/console/security"), "{}", made.body);
}

/// Where she is led after the password and this passkey.
async fn come_in(house: &House, token: &Token) -> Option<String> {
    let mut browser = house.browser();
    browser.sign_in("asha@example.in", PASSWORD).await;
    let (challenge, options) = begun(&mut browser, &format!("{SECOND}/passkey")).await;
    let answer = token.get(&options).to_string();
    browser.post(SECOND, &[("challenge", &challenge), ("answer", &answer)]).await.to
}

#[tokio::test]
async fn a_passkey_is_on_record_when_it_comes_and_when_it_goes() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    enrol(&mut asha, &Token::new(1)).await;
    assert_eq!((house.recorded("people.passkey_added").await, house.recorded("people.passkey_removed").await), (1, 0));
    assert_eq!(come_in(&house, &Token { counter: 1, ..Token::new(1) }).await.as_deref(), Some("/console"));

    let page = asha.get("/console/security").await.body;
    let id = house::between(&page, "/console/security/passkeys/", "/remove").to_owned();
    let other = asha.post(&format!("{PASSKEYS}/AAAA/remove"), &[]).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(house.recorded("people.passkey_removed").await, 0, "what was not hers did not go");
    let gone = asha.post(&format!("{PASSKEYS}/{id}/remove"), &[]).await;
    assert_eq!(gone.to.as_deref(), Some("/console/security"), "{}", gone.body);
    assert_eq!((house.recorded("people.passkey_added").await, house.recorded("people.passkey_removed").await), (1, 1));
}

#[tokio::test]
async fn atk_058_a_passkey_whose_counter_goes_back_is_put_out_of_use_and_on_record() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    enrol(&mut asha, &Token::new(1)).await;
    enrol(&mut asha, &Token::new(2)).await;
    assert_eq!(come_in(&house, &Token { counter: 5, ..Token::new(1) }).await.as_deref(), Some("/console"));
    assert_eq!(house.recorded("people.passkey_copied").await, 0);
    assert_eq!(come_in(&house, &Token { counter: 4, ..Token::new(1) }).await, None, "a copy opens nothing");
    assert_eq!(house.recorded("people.passkey_copied").await, 1);
    assert!(house.warnings().await.contains(&"passkey_copied".to_owned()));
    assert_eq!(come_in(&house, &Token { counter: 6, ..Token::new(1) }).await, None, "nor does the original now");
    assert_eq!(house.recorded("people.passkey_copied").await, 1, "it is out of use, and told once");
    assert_eq!(come_in(&house, &Token { counter: 1, ..Token::new(2) }).await.as_deref(), Some("/console"));
}
