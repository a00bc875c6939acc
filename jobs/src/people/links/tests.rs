use secrecy::ExposeSecret;
use sqlx::{Postgres, pool::PoolConnection};

use super::*;
use crate::people::testing::House;

/// A portal link that ends in a day, and its secret.
async fn made(house: &House, uses: i16) -> (Link, String) {
    let contact = Contact::Email(Email::parse("ravi@example.com").expect("an address"));
    let new = NewLink {
        business_id: house.shop,
        purpose: Purpose::Portal,
        subject_id: Uuid::from_u128(7),
        contact: &contact,
        carried_by: None,
        language: "en",
        expires_at: house.now() + TimeDelta::days(1),
        uses,
        made_by: "operator",
        origin: "https://muneem.example.in",
    };
    let mut db = house.conn().await;
    let (link, url) = make(&mut db, &house.vault, &new, house.now(), &*house.chance).await.expect("made");
    (link, url.expose_secret().rsplit('/').next().expect("a secret").to_owned())
}

async fn code(house: &House, db: &mut PoolConnection<Postgres>, secret: &str) -> Result<String, Error> {
    let link = make_code(db, &house.vault, (secret, Purpose::Portal), house.now(), &*house.chance).await?;
    let sealed: Vec<u8> = sqlx::query_scalar("select code_sealed from muneem.people_links where link_id = $1")
        .bind(link.link_id.0)
        .fetch_one(&house.db.pool())
        .await
        .expect("a code");
    let row = link.link_id.to_string();
    let cell = Cell { business_id: link.business_id, table: TABLE, column: "code_sealed", row: &row };
    let plain = house.vault.open(db, &cell, &sealed).await.expect("it opens");
    Ok(String::from_utf8(plain.to_vec()).expect("digits"))
}

/// Another code of the same form.
fn wrong(code: &str) -> String {
    let number: u32 = code.parse().expect("digits");
    format!("{:06}", (number + 1) % 1_000_000)
}

#[tokio::test]
async fn atk_068_a_link_is_not_guessed_nor_good_for_anything_else() {
    let house = House::new().await;
    let (link, secret) = made(&house, 1).await;
    assert_eq!(secret.len(), 64, "256 bits");
    let mut db = house.conn().await;
    assert_eq!(find(&mut db, &secret, Purpose::Portal, house.now()).await.expect("found"), link);
    let last = if secret.ends_with('0') { "1" } else { "0" };
    let near = format!("{}{last}", &secret[..63]);
    for (text, purpose) in [
        (secret.as_str(), Purpose::Approval),
        (near.as_str(), Purpose::Portal),
        (&secret[..63], Purpose::Portal),
        (&secret.replace('0', "A"), Purpose::Portal),
        (&link.link_id.to_string(), Purpose::Portal),
        ("", Purpose::Portal),
    ] {
        let found = find(&mut db, text, purpose, house.now()).await;
        assert!(matches!(found, Err(Error::NoSuchLink)), "{text} {purpose:?}: {found:?}");
    }
    let row: String = sqlx::query_scalar("select l::text from muneem.people_links l")
        .fetch_one(&house.db.pool())
        .await
        .expect("a row");
    for canary in [secret.as_str(), "ravi", "example"] {
        assert!(!row.contains(canary), "{canary} stands in the table: {row}");
    }
    assert!(find(&mut db, &secret, Purpose::Portal, link.expires_at).await.is_err(), "its last instant is past");
    assert!(revoke(&mut db, link.link_id, house.now()).await.expect("revoked"));
    assert!(!revoke(&mut db, link.link_id, house.now()).await.expect("again is no error"));
    assert!(find(&mut db, &secret, Purpose::Portal, house.now()).await.is_err(), "revoked");
}

#[tokio::test]
async fn atk_068_whoever_only_follows_a_link_does_and_sees_nothing() {
    let house = House::new().await;
    let (link, secret) = made(&house, 2).await;
    let at = (secret.as_str(), Purpose::Portal);
    let mut db = house.conn().await;
    // A scanner follows it as often as it likes.
    for _ in 0..20 {
        find(&mut db, &secret, Purpose::Portal, house.now()).await.expect("open still");
    }
    let mut tx = house.pool.begin().await.expect("begun");
    for proof in ["", "0", secret.as_str()] {
        let refused = prove(&mut tx, at, proof, house.now()).await;
        assert!(matches!(refused, Err(Error::NotProved)), "{refused:?}");
    }
    drop(tx);
    let void = enter_code(&mut db, at, "000000", house.now(), &*house.chance).await.expect("entered");
    assert!(matches!(void, Entered::Void), "no code was asked for");
    assert_eq!(load(&mut db, link.link_id).await.expect("there"), link, "nothing has happened");

    // The right code gives a proof, for a while; the code itself is spent.
    let right = code(&house, &mut db, &secret).await.expect("a code");
    let spaced = format!(" {} {} ", &right[..3], &right[3..]);
    let Entered::Right(proof) = enter_code(&mut db, at, &spaced, house.now(), &*house.chance).await.expect("entered")
    else {
        panic!("the right code")
    };
    let again = enter_code(&mut db, at, &right, house.now(), &*house.chance).await.expect("entered");
    assert!(matches!(again, Entered::Void), "a code works once: {again:?}");
    for _ in 0..2 {
        let mut tx = house.pool.begin().await.expect("begun");
        let proved = prove(&mut tx, at, proof.expose_secret(), house.now()).await.expect("proved");
        use_up(&mut tx, &proved, house.now()).await.expect("used");
        tx.commit().await.expect("committed");
    }
    let mut tx = house.pool.begin().await.expect("begun");
    let used = prove(&mut tx, at, proof.expose_secret(), house.now()).await;
    assert!(matches!(used, Err(Error::NoSuchLink)), "twice and no more: {used:?}");
}

#[tokio::test]
async fn atk_068_codes_are_few_short_lived_and_bound_to_their_link() {
    let house = House::new().await;
    let ((_, secret), (_, other)) = (made(&house, 1).await, made(&house, 1).await);
    let (at, at_other) = ((secret.as_str(), Purpose::Portal), (other.as_str(), Purpose::Portal));
    let mut db = house.conn().await;
    let hers = code(&house, &mut db, &secret).await.expect("a code");
    let theirs = code(&house, &mut db, &other).await.expect("a code");
    if hers != theirs {
        let elsewhere = enter_code(&mut db, at_other, &hers, house.now(), &*house.chance).await.expect("entered");
        assert!(matches!(elsewhere, Entered::Wrong { .. }), "a code opens its own link alone");
    }
    for tries in (0..5).rev() {
        let entered = enter_code(&mut db, at, &wrong(&hers), house.now(), &*house.chance).await.expect("entered");
        assert!(matches!(entered, Entered::Wrong { tries_left } if tries_left == tries), "{entered:?}");
    }
    let spent = enter_code(&mut db, at, &hers, house.now(), &*house.chance).await.expect("entered");
    assert!(matches!(spent, Entered::Void), "the sixth try is not looked at, right or wrong");

    let late = code(&house, &mut db, &secret).await.expect("another code");
    house.clock.forward(TimeDelta::minutes(10));
    let entered = enter_code(&mut db, at, &late, house.now(), &*house.chance).await.expect("entered");
    assert!(matches!(entered, Entered::Void), "ten minutes: {entered:?}");
    let fresh = code(&house, &mut db, &secret).await.expect("another code");
    let Entered::Right(proof) = enter_code(&mut db, at, &fresh, house.now(), &*house.chance).await.expect("entered")
    else {
        panic!("the right code")
    };
    house.clock.forward(TimeDelta::minutes(15));
    let mut tx = house.pool.begin().await.expect("begun");
    let refused = prove(&mut tx, at, proof.expose_secret(), house.now()).await;
    assert!(matches!(refused, Err(Error::NotProved)), "a quarter of an hour: {refused:?}");
    drop(tx);
    let mut made = 3;
    let refused = loop {
        match code(&house, &mut db, &secret).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::TooManyCodes) && made == 10, "{made} codes: {refused:?}");
}

#[tokio::test]
async fn of_two_who_use_a_link_at_once_one_does() {
    let house = House::new().await;
    let (_, secret) = made(&house, 1).await;
    let at = (secret.as_str(), Purpose::Portal);
    let right = code(&house, &mut house.conn().await, &secret).await.expect("a code");
    let entered = enter_code(&mut *house.conn().await, at, &right, house.now(), &*house.chance).await;
    let Entered::Right(proof) = entered.expect("entered") else { panic!("the right code") };
    let one = async || {
        let mut tx = house.pool.begin().await.expect("begun");
        let proved = prove(&mut tx, at, proof.expose_secret(), house.now()).await?;
        use_up(&mut tx, &proved, house.now()).await?;
        tx.commit().await.expect("committed");
        Ok::<_, Error>(())
    };
    let (first, second) = tokio::join!(one(), one());
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
}
