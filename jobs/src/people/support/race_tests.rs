//! A grant that ends while a token of it is being opened.

use secrecy::ExposeSecret;
use sqlx::Connection;

use super::*;
use crate::people::{self, Presented, Refusal, Role, testing::House};

#[tokio::test]
async fn a_token_that_is_being_opened_when_its_grant_ends_ends_with_it() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let ravi = house.stranger(2, None, &[Role::Support]).await;
    let grant = house.let_in(&owner, USUAL).await.expect("let in");
    let (operator, by_owner) = (Authority::operator(), Authority::of_staff(&owner));
    let mut opening = house.conn().await;
    let mut tx = opening.begin().await.expect("begun");
    let opened = open_token(&mut tx, grant.grant_id, ravi.staff_id, &house.by(&operator)).await;
    let (_, bearer) = opened.expect("opened, not committed");
    let mut ending = house.conn().await;
    let process = house.process_of(&mut ending).await;
    let decision = house.by(&by_owner);
    let end = end(&mut ending, grant.grant_id, &decision);
    let commit = async {
        house.until_waiting(process).await;
        tx.commit().await
    };
    let (ended, committed) = tokio::join!(end, commit);
    ended.expect("ended");
    committed.expect("committed");
    let presented = Presented::parse(bearer.expose_secret()).expect("well formed");
    let knocked = people::authenticate(&mut *house.conn().await, &presented, None, house.now()).await;
    assert!(matches!(knocked, Err(Refusal::Revoked)), "{knocked:?}");
    let told = house.evidence().await;
    let ended = told.iter().find(|event| event["verb"] == "people.support_ended").expect("on record");
    assert_eq!(ended["details"]["tokens"], 1, "the end knows of the token: {ended}");
}

#[tokio::test]
async fn a_token_of_a_grant_that_is_being_ended_is_not_opened() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let ravi = house.stranger(2, None, &[Role::Support]).await;
    let grant = house.let_in(&owner, USUAL).await.expect("let in");
    let (operator, by_owner) = (Authority::operator(), Authority::of_staff(&owner));
    let mut ending = house.conn().await;
    let mut tx = ending.begin().await.expect("begun");
    end(&mut tx, grant.grant_id, &house.by(&by_owner)).await.expect("ended, not committed");
    let mut opening = house.conn().await;
    let process = house.process_of(&mut opening).await;
    let decision = house.by(&operator);
    let open = open_token(&mut opening, grant.grant_id, ravi.staff_id, &decision);
    let commit = async {
        house.until_waiting(process).await;
        tx.commit().await
    };
    let (opened, committed) = tokio::join!(open, commit);
    committed.expect("committed");
    assert!(matches!(opened, Err(Error::GrantEnded)), "{opened:?}");
    let left: i64 = sqlx::query_scalar("select count(*) from muneem.people_tokens where support_grant_id is not null")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(left, 0);
}
