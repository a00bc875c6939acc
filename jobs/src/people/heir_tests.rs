//! Somebody who is put out while she gives something away: it is refused, or ends with her.

use sqlx::Connection;

use super::{
    Authority, Error, NewToken, Role, Scope, create_token_by, list_tokens, remove_staff, support, testing::House,
    withdraw_role,
};

fn heir(house: &House) -> NewToken {
    NewToken {
        label: "heir".to_owned(),
        business_id: Some(house.shop),
        scopes: vec![Scope::QueueWrite],
        ..NewToken::bootstrap()
    }
}

#[tokio::test]
async fn atk_054_whoever_is_put_out_while_she_makes_a_token_leaves_no_heir() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    for leaves in [true, false] {
        let second = house.staff(if leaves { 2 } else { 3 }, &[Role::Owner]).await;
        // As a page read her a moment ago.
        let hers = Authority::of_staff(&second);
        let mut ending = house.conn().await;
        let mut tx = ending.begin().await.expect("begun");
        if leaves {
            remove_staff(&mut tx, second.staff_id, &house.by(&owner)).await.expect("removed, not committed");
        } else {
            let decision = house.by(&owner);
            withdraw_role(&mut tx, second.staff_id, Role::Owner, &decision).await.expect("withdrawn, not committed");
        }
        let mut making = house.conn().await;
        let process = house.process_of(&mut making).await;
        let make = create_token_by(&mut making, heir(&house), &hers, &*house.clock, &*house.chance);
        let commit = async {
            house.until_waiting(process).await;
            tx.commit().await
        };
        let (made, committed) = tokio::join!(make, commit);
        committed.expect("committed");
        assert!(matches!(made, Err(Error::MissingScope(_))), "leaves: {leaves}, {made:?}");
        let made = create_token_by(&mut making, heir(&house), &hers, &*house.clock, &*house.chance).await;
        assert!(matches!(made, Err(Error::MissingScope(_))), "afterwards as well: {made:?}");
    }
    let left = list_tokens(&mut *house.conn().await).await.expect("listed");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn atk_054_whoever_is_put_out_while_she_lets_support_in_lets_nobody_in() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let second = house.staff(2, &[Role::Owner]).await;
    let hers = Authority::of_staff(&second);
    let mut ending = house.conn().await;
    let mut tx = ending.begin().await.expect("begun");
    remove_staff(&mut tx, second.staff_id, &house.by(&owner)).await.expect("removed, not committed");
    let mut letting = house.conn().await;
    let process = house.process_of(&mut letting).await;
    let wish = support::Wish { reason: "Bills do not go out", lasting: support::USUAL, only: None };
    let decision = house.by(&hers);
    let let_in = support::grant(&mut letting, &house.vault, &wish, &decision);
    let commit = async {
        house.until_waiting(process).await;
        tx.commit().await
    };
    let (let_in, committed) = tokio::join!(let_in, commit);
    committed.expect("committed");
    assert!(matches!(let_in, Err(Error::MissingScope(_))), "{let_in:?}");
    let live = support::list_live(&mut letting, Some(house.shop), house.now()).await.expect("listed");
    assert_eq!(live, []);
}
