//! Tokens, as owners make and end them.

use muneem_jobs::{
    evidence::By,
    people::{
        Authority, Decision, NewToken, Presented, Refusal, Role, Scope, add_business, authenticate, create_token,
        create_token_by, list_tokens, note_exposed, revoke_token_by,
    },
};

use super::*;

pub(super) const TOKENS: &str = "/console/tokens";

/// A form that is right.
pub(super) fn form(name: &str) -> Vec<(&str, &str)> {
    vec![("name", name), ("life", "30"), ("networks", ""), ("scope", "queue:read"), ("scope", "invoice:read")]
}

/// The token on the page that shows one.
fn token_on(page: &str) -> String {
    house::between(page, "<code class=\"secret\">", "</code>").to_owned()
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_revoked() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    assert!(asha.get(TOKENS).await.body.contains("No token opens anything"));
    let page = asha.get("/console/tokens/new").await.body;
    assert!(page.contains("value=\"queue:write\"") && page.contains("See jobs, their states and causes"), "{page}");
    assert!(!page.contains("value=\"rights:approve\""), "what only a person may do is not offered: {page}");

    let networks = [("name", "Till <b>1</b>"), ("life", "30"), ("networks", "10.0.0.300"), ("scope", "queue:read")];
    let nothing = [("name", "Till"), ("life", "30"), ("networks", "")];
    let nameless = [("name", "  "), ("life", "30"), ("scope", "queue:read")];
    let endless = [("name", "Till"), ("life", "for ever"), ("scope", "queue:read")];
    for (fields, problem) in [
        (&networks[..], "is no network"),
        (&nothing[..], "has no scopes"),
        (&nameless[..], "label is empty"),
        (&endless[..], "Choose when"),
    ] {
        let again = asha.post(TOKENS, fields).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}: {}", again.body);
        assert!(again.body.contains(problem), "{problem}: {}", again.body);
    }
    let again = asha.post(TOKENS, &networks).await.body;
    assert!(again.contains("Till &lt;b&gt;1&lt;/b&gt;") && again.contains("value=\"queue:read\" checked"), "{again}");
    assert_eq!(house.recorded("people.token_made").await, 0);

    let networks = "203.0.113.0/24\r\n198.51.100.7";
    let fields = [("name", "Till <b>1</b>"), ("life", "30"), ("networks", networks), ("scope", "queue:read")];
    let made = asha.post(TOKENS, &fields).await;
    assert_eq!(made.to.as_deref(), Some("/console/tokens/made"), "{}", made.body);
    let shown = asha.get("/console/tokens/made").await;
    assert_eq!((shown.status, shown.headers["cache-control"].as_bytes()), (StatusCode::OK, &b"no-store"[..]));
    let token = token_on(&shown.body);
    let again = asha.get("/console/tokens/made").await;
    assert_eq!(again.to.as_deref(), Some(TOKENS), "a reload shows it no more");
    assert!(!asha.get(TOKENS).await.body.contains(&token));

    let presented = Presented::parse(&token).expect("well formed");
    let mut db = house.conn().await;
    let from = |address: &str| address.parse().ok();
    let caller = authenticate(&mut db, &presented, from("203.0.113.9"), house.now()).await.expect("it opens");
    assert_eq!((caller.business, caller.staff_id), (Some(house.sharma), None));
    let elsewhere = authenticate(&mut db, &presented, from("203.0.114.9"), house.now()).await;
    assert!(matches!(elsewhere, Err(Refusal::Elsewhere)), "{elsewhere:?}");
    let page = asha.get(TOKENS).await.body;
    for part in ["Till &lt;b&gt;1&lt;/b&gt;", "203.0.113.0/24", "198.51.100.7/32", &caller.token_id, "A program"] {
        assert!(page.contains(part), "{part}: {page}");
    }

    let seen = By::system(house.now(), &OsChance);
    assert!(note_exposed(&mut db, &presented, &seen).await.expect("noted"));
    assert!(asha.get(TOKENS).await.body.contains("seen in the address of a request"));

    let revoke = format!("{TOKENS}/{}/revoke", caller.token_id);
    let asked = asha.get(&revoke).await;
    assert_eq!(asked.status, StatusCode::OK);
    authenticate(&mut db, &presented, from("203.0.113.9"), house.now()).await.expect("asking ends nothing");
    assert_eq!(asha.post(&revoke, &[]).await.to.as_deref(), Some(TOKENS));
    let refused = authenticate(&mut db, &presented, from("203.0.113.9"), house.now()).await;
    assert!(matches!(refused, Err(Refusal::Revoked)), "{refused:?}");
    assert_eq!(asha.get(&revoke).await.to.as_deref(), Some(TOKENS), "there is nothing left to ask");
    assert!(asha.get(TOKENS).await.body.contains(">revoked<"));
    assert_eq!((house.recorded("people.token_made").await, house.recorded("people.token_revoked").await), (1, 1));
}

#[tokio::test]
async fn a_new_token_is_shown_to_its_own_session_alone_and_its_secret_stands_in_no_cookie() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    asha.post(TOKENS, &form("Till")).await;
    let held = asha.cookies.get("__Host-muneem-made").expect("on its way").clone();
    assert!(!held.contains("mnm_") && held.len() < 400, "{held}");

    // Another session of hers, with the cookie of this one; and what was never sealed here.
    let mut other = house.signed_in().await;
    for stolen in [held.as_str(), "bm90IHNlYWxlZA", "!"] {
        other.cookies.insert("__Host-muneem-made".to_owned(), stolen.to_owned());
        let answer = other.get("/console/tokens/made").await;
        assert_eq!(answer.to.as_deref(), Some(TOKENS), "{}", answer.body);
    }
    let token = token_on(&asha.get("/console/tokens/made").await.body);
    let secret = token.split('_').nth(2).expect("a secret");
    let row: String = sqlx::query_scalar("select t::text from muneem.people_tokens t")
        .fetch_one(&house.db.pool())
        .await
        .expect("one row");
    assert!(!row.contains(secret), "{row}");
}

#[tokio::test]
async fn a_new_token_is_shown_within_two_minutes_or_not_at_all() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    asha.post(TOKENS, &form("Till")).await;
    let held = asha.cookies.get("__Host-muneem-made").expect("on its way").clone();
    house.later(119);
    assert_eq!(asha.get("/console/tokens/made").await.status, StatusCode::OK);
    // Whoever kept the cookie, against its own end.
    house.later(122);
    asha.cookies.insert("__Host-muneem-made".to_owned(), held);
    let late = asha.get("/console/tokens/made").await;
    assert_eq!(late.to.as_deref(), Some(TOKENS), "{}", late.body);
    assert!(!asha.cookies.contains_key("__Host-muneem-made"));
}

#[tokio::test]
async fn where_the_secret_cannot_be_sealed_for_its_page_no_token_is_made() {
    let house = House::new().await;
    let cookies = house.signed_in().await.cookies;
    let house = house.with_its_vault_sealed();
    let mut asha = house.browser();
    asha.cookies = cookies;
    let failed = asha.post(TOKENS, &form("Till")).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{}", failed.body);
    assert!(failed.body.contains("nothing was changed"), "{}", failed.body);
    assert!(list_tokens(&mut *house.conn().await).await.expect("listed").is_empty());
    assert_eq!(house.recorded("people.token_made").await, 0);
}

#[tokio::test]
async fn tokens_are_leafed_through_and_those_that_opened_once_stand_apart() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let by = Authority::of_staff(&house.asha);
    let mut made = Vec::new();
    let mut db = house.conn().await;
    for at in 0..45 {
        house.later(at);
        let new = NewToken {
            label: format!("Till {at:02}."),
            business_id: Some(house.sharma),
            staff_id: None,
            scopes: vec![Scope::QueueRead],
            networks: Vec::new(),
            expires_at: None,
        };
        let console = &house.console;
        let (token, _) = create_token_by(&mut db, new, &by, &*console.clock, &OsChance).await.expect("made");
        made.push(token.public_id);
    }
    // Of forty-five, those with even numbers open nothing any more.
    for id in made.iter().step_by(2) {
        let decision = Decision { by: &by, now: house.now(), chance: &OsChance };
        revoke_token_by(&mut db, id, &decision).await.expect("revoked");
    }
    let named =
        |page: &str| -> Vec<usize> { (0..45).rev().filter(|at| page.contains(&format!("Till {at:02}."))).collect() };
    let odd: Vec<usize> = (0..45).rev().filter(|at| at % 2 == 1).collect();
    let even: Vec<usize> = (0..45).rev().filter(|at| at % 2 == 0).collect();
    let first = asha.get(TOKENS).await.body;
    let (usable, ended) = first.split_once("Tokens that ended").expect("both kinds");
    assert_eq!((named(usable), named(ended)), (odd[..20].to_vec(), even[..20].to_vec()));
    let older = |kind: &str, at: usize| format!("{TOKENS}?{kind}={}", made[at]);
    for (kind, last, rest) in [("usable", odd[19], &odd[20..]), ("ended", even[19], &even[20..])] {
        let there = older(kind, last);
        assert!(first.contains(&format!("href=\"{there}\"")), "{first}");
        let page = asha.get(&there).await.body;
        assert_eq!(named(&page), rest, "{page}");
        assert!(!page.contains("Older ones") && !page.contains("No token opens anything"), "{page}");
    }
    assert!(named(&asha.get(&format!("{TOKENS}?ended=none")).await.body).is_empty());
    // Where another business's token stands among hers is nobody's to learn.
    let (clock, chance) = (&*house.console.clock, &OsChance);
    let other = add_business(&mut db, "kaveri-retail", "Kaveri Retail", clock, chance).await.expect("made");
    let new = NewToken { business_id: Some(other.business_id), label: "Theirs".to_owned(), ..NewToken::bootstrap() };
    let (theirs, _) = create_token(&mut db, new, clock, chance).await.expect("made");
    let page = asha.get(&format!("{TOKENS}?usable={}", theirs.public_id)).await.body;
    assert!(named(&page).is_empty(), "{page}");
}

#[tokio::test]
async fn atk_062_who_may_not_end_a_token_is_not_offered_to() {
    let house = House::new().await;
    let olga = house.join(None, "Olga", "olga@example.com", Role::Operator).await;
    house.give_password(&olga).await;
    let mut asha = house.signed_in().await;
    let mut olgas = house.browser();
    olgas.sign_in("olga@example.com", PASSWORD).await;
    olgas.set_up_totp().await;
    for (scope, may) in [("invoice:open", false), ("queue:read", true)] {
        asha.post(TOKENS, &[("name", scope), ("life", "30"), ("scope", scope)]).await;
        let tokens = list_tokens(&mut *house.conn().await).await.expect("listed");
        let token = tokens.iter().find(|token| token.label == scope).expect("made");
        let page = olgas.get(&format!("{TOKENS}/{}/revoke", token.public_id)).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert_eq!(page.body.contains("Revoke it"), may, "{}", page.body);
        assert_eq!(page.body.contains("It may do more than you may"), !may, "{}", page.body);
    }
}

#[tokio::test]
async fn atk_062_nobody_makes_or_ends_a_token_beyond_her_own_on_the_page_either() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    for beyond in ["rights:approve", "support:grant"] {
        let refused = asha.post(TOKENS, &[("name", "x"), ("life", "30"), ("scope", beyond)]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{beyond}: {}", refused.body);
    }
    let beyond = asha.post(TOKENS, &[("name", "x"), ("life", "30"), ("scope", "keys:write")]).await;
    assert_eq!(beyond.status, StatusCode::FORBIDDEN, "an owner turns no keys: {}", beyond.body);
    // One for a person may no more than the person.
    let ravi = house.ravi.staff_id.to_string();
    let fields = [("name", "x"), ("life", "30"), ("holder", ravi.as_str()), ("scope", "vault:open")];
    let more = asha.post(TOKENS, &fields).await;
    assert_eq!(more.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", more.body);
    assert!(more.body.contains("vault:open") && more.body.contains("herself"), "{}", more.body);
    let strange = [("name", "x"), ("life", "30"), ("scope", "queue:read"), ("business_id", "1")];
    assert_eq!(asha.post(TOKENS, &strange).await.status, StatusCode::FORBIDDEN, "a field that is not on the form");
    // Five minutes later a fresh proof comes first.
    house.later(301);
    assert_eq!(asha.post(TOKENS, &form("Till")).await.to.as_deref(), Some("/console/confirm?next=/console"));
    let led = asha.get("/console/tokens/new").await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console/tokens/new"));
    assert!(list_tokens(&mut *house.conn().await).await.expect("listed").is_empty());
}
