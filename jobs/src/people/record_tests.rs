//! What is done about businesses and tokens is in the evidence, or it is not done.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::Connection;

use super::{
    Authority, Error, NewToken, Presented, Refusal, Role, Scope, add_business_by, authenticate, create_token_by,
    hold_token, list_handles, list_tokens, note_exposed, remove_staff, revoke_token, revoke_token_by, staff_store,
    testing::House,
};
use crate::evidence::{By, words};

fn till() -> NewToken {
    NewToken { label: "till".to_owned(), scopes: vec![Scope::QueueWrite], ..NewToken::bootstrap() }
}

#[tokio::test]
async fn businesses_and_tokens_are_on_record_or_are_not_made() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let (operator, hers) = (Authority::operator(), Authority::of_staff(&owner));
    let mut db = house.conn().await;
    let made = add_business_by(&mut db, "gupta-stores", "Gupta", &house.by(&operator)).await.expect("made");
    assert_eq!(house.told_of(made.business_id).await, [words::BUSINESS_ADDED.as_str()]);
    let refused = add_business_by(&mut db, "mine-too", "Mine", &house.by(&hers)).await;
    assert!(matches!(refused, Err(Error::PlanNotYours)), "{refused:?}");

    let new = NewToken { business_id: Some(house.shop), ..till() };
    let (token, bearer) =
        create_token_by(&mut db, new.clone(), &hers, &*house.clock, &*house.chance).await.expect("made");
    let presented = Presented::parse(bearer.expose_secret()).expect("well formed");
    let seen = By::system(house.now(), &*house.chance);
    assert!(note_exposed(&mut db, &presented, &seen).await.expect("noted"));
    assert!(!note_exposed(&mut db, &presented, &seen).await.expect("again is no change"));
    for _ in 0..2 {
        revoke_token_by(&mut db, &token.public_id, &house.by(&hers)).await.expect("revoked");
    }
    let told = [words::TOKEN_MADE, words::TOKEN_EXPOSED, words::TOKEN_REVOKED].map(|word| word.as_str().to_owned());
    assert_eq!(house.told_of(&token.public_id).await, told, "each once");
    let events = house.evidence().await;
    let made = events.iter().find(|event| event["object"]["id"] == token.public_id.as_str()).expect("on record");
    assert_eq!(
        (&made["actor"], &made["business"], &made["details"]["scopes"]),
        (&json!({ "kind": "staff", "id": owner.staff_id }), &json!(house.shop), &json!(["queue:write"]))
    );
    let secret = bearer.expose_secret().split('_').nth(2).expect("the secret").to_owned();
    assert!(!Value::from(events).to_string().contains(&secret), "the secret is in no event");

    // Where nothing can be put on record, nothing is done.
    let (stays, bearer) =
        create_token_by(&mut db, new.clone(), &hers, &*house.clock, &*house.chance).await.expect("made");
    let presented = Presented::parse(bearer.expose_secret()).expect("well formed");
    for right in ["insert", "insert (event_id, business_id, body)"] {
        let statement = format!("revoke {right} on muneem.evidence_events from muneem_app, muneem_business");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&house.db.pool()).await.expect("revoked");
    }
    add_business_by(&mut db, "unseen", "Unseen", &house.by(&operator)).await.expect_err("not on record");
    create_token_by(&mut db, new, &hers, &*house.clock, &*house.chance).await.expect_err("not on record");
    note_exposed(&mut db, &presented, &seen).await.expect_err("not on record");
    revoke_token_by(&mut db, &stays.public_id, &house.by(&hers)).await.expect_err("not on record");
    assert!(!list_handles(&mut db).await.expect("listed").contains(&"unseen".to_owned()));
    let tokens = list_tokens(&mut db).await.expect("listed");
    assert_eq!(tokens.len(), 2);
    let stays = tokens.iter().find(|token| token.public_id == stays.public_id).expect("there");
    assert_eq!((stays.revoked_at, stays.exposed_at), (None, None));
}

/// Of a token that is made for somebody and her removal at the same moment, no token of hers is left.
#[tokio::test]
async fn atk_054_a_token_made_while_its_holder_leaves_does_not_outlive_her() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    for round in 0..6 {
        let leaver = house.staff(100 + round, &[Role::Manager]).await;
        let new = NewToken { business_id: Some(house.shop), staff_id: Some(leaver.staff_id), ..till() };
        let make =
            async { create_token_by(&mut *house.conn().await, new, &owner, &*house.clock, &*house.chance).await };
        let leave = async { remove_staff(&mut *house.conn().await, leaver.staff_id, &house.by(&owner)).await };
        let (made, left) = tokio::join!(make, leave);
        left.expect("removed");
        assert!(matches!(made, Ok(_) | Err(Error::NoSuchStaff(_))), "{made:?}");
        let alive = list_tokens(&mut *house.conn().await).await.expect("listed");
        let alive = alive.iter().filter(|one| one.staff_id == Some(leaver.staff_id) && one.revoked_at.is_none());
        assert_eq!(alive.count(), 0, "round {round}: {made:?}");
    }
}

#[tokio::test]
async fn atk_054_a_token_that_acts_and_is_ended_at_the_same_moment_does_one_after_the_other() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let by_owner = Authority::of_staff(&owner);
    // What ends a token: somebody, and the leaving of the person it was made for.
    for leaves in [false, true] {
        let person = house.staff(if leaves { 3 } else { 2 }, &[Role::Manager]).await;
        let new = NewToken { business_id: Some(house.shop), staff_id: Some(person.staff_id), ..till() };
        let mut db = house.conn().await;
        let (token, bearer) =
            create_token_by(&mut db, new, &by_owner, &*house.clock, &*house.chance).await.expect("made");
        let presented = Presented::parse(bearer.expose_secret()).expect("well formed");
        let caller = authenticate(&mut db, &presented, None, house.now()).await.expect("opens");
        let mut ending = house.conn().await;
        let process = house.process_of(&mut ending).await;
        let end = async {
            if leaves {
                remove_staff(&mut ending, person.staff_id, &house.by(&by_owner)).await.map(drop)
            } else {
                let by = By::operator(house.now(), &*house.chance);
                revoke_token(&mut ending, &token.public_id, &by).await
            }
        };
        // It acts first: its end waits until that is done.
        let mut tx = db.begin().await.expect("begun");
        hold_token(&mut tx, &caller, house.now()).await.expect("it opens still");
        let act = async {
            house.until_waiting(process).await;
            let mut beside = house.conn().await;
            assert!(authenticate(&mut beside, &presented, None, house.now()).await.is_ok(), "not ended yet");
            // What it does next wants rows that its end wants too.
            assert!(staff_store::share_staff(&mut tx, person.staff_id).await.expect("nobody waits in a circle"));
            tx.commit().await
        };
        let (ended, acted) = tokio::join!(end, act);
        ended.expect("ended");
        acted.expect("committed");
        // From then on it does nothing, whoever was let in before.
        let mut tx = db.begin().await.expect("begun");
        let late = hold_token(&mut tx, &caller, house.now()).await;
        assert!(matches!(late, Err(Refusal::Revoked)), "{late:?}");
    }
}

#[tokio::test]
async fn atk_054_who_acts_while_a_token_is_being_ended_waits_and_is_refused() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let mut db = house.conn().await;
    let new = NewToken { business_id: Some(house.shop), ..till() };
    let (token, bearer) = create_token_by(&mut db, new, &owner, &*house.clock, &*house.chance).await.expect("made");
    let presented = Presented::parse(bearer.expose_secret()).expect("well formed");
    let caller = authenticate(&mut db, &presented, None, house.now()).await.expect("opens");
    let mut ending = db.begin().await.expect("begun");
    let by = By::operator(house.now(), &*house.chance);
    revoke_token(&mut ending, &token.public_id, &by).await.expect("ended, not committed");
    let mut acting = house.conn().await;
    let process = house.process_of(&mut acting).await;
    let mut tx = acting.begin().await.expect("begun");
    let act = hold_token(&mut tx, &caller, house.now());
    let end = async {
        house.until_waiting(process).await;
        ending.commit().await.expect("ended");
    };
    let (acted, ()) = tokio::join!(act, end);
    assert!(matches!(acted, Err(Refusal::Revoked)), "{acted:?}");
}
