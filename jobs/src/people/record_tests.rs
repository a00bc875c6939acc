//! What is done about businesses and tokens is in the evidence, or it is not done.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    Authority, Error, NewToken, Presented, Role, Scope, add_business_by, create_token_by, list_handles, list_tokens,
    note_exposed, remove_staff, revoke_token_by, testing::House,
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
