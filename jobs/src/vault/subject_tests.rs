//! The key of one Data Principal, destroyed.

use uuid::Uuid;

use super::{
    tests::{House, KAVERI, PHONE, SHARMA, why},
    *,
};
use crate::evidence::Actor;

const ASHA: Uuid = Uuid::from_u128(0xa54a);
const BINA: Uuid = Uuid::from_u128(0xb14a);

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "muneem.people_principals", column: "phone_sealed", row }
}

#[tokio::test]
async fn atk_076_what_a_shredded_person_had_never_opens_again_and_she_may_come_back() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let old = house.vault.seal_for(&mut db, ASHA, &cell("7"), PHONE).await.expect("sealed");
    let hers = house.vault.seal_for(&mut db, BINA, &cell("8"), PHONE).await.expect("sealed");
    let other = house.another();
    assert_eq!(other.open(&mut db, &cell("7"), &old).await.expect("opened").as_slice(), PHONE);
    let backup: Vec<(i64, Uuid, Uuid, i64, Vec<u8>)> = sqlx::query_as(
        "select key_id, business_id, subject_id, wrapped_by, wrapped from muneem.vault_subject_keys where subject_id = $1",
    )
    .bind(ASHA)
    .fetch_all(&house.db.pool())
    .await
    .expect("rows");

    let mut tx = db.begin().await.expect("begun");
    let shredded = house.vault.shred_subject(&mut tx, SHARMA, ASHA, Actor::Operator).await.expect("shredded");
    assert_eq!(shredded, Some(Shredded { key_id: key_of(&old).expect("a number"), proved: true }));
    tx.commit().await.expect("committed");
    // In every process, from now on: the very row, or an older copy of it put back.
    for vault in [&house.vault, &other, &house.another()] {
        assert_eq!(why(vault.open(&mut db, &cell("7"), &old).await), Unreadable::Shredded);
        assert_eq!(vault.open(&mut db, &cell("8"), &hers).await.expect("opened").as_slice(), PHONE);
    }
    let error = other.open(&mut db, &cell("7"), &old).await.expect_err("gone");
    assert_eq!(crate::queue::JobError::disposition(&error), crate::queue::Disposition::Fail);
    assert_eq!(crate::queue::JobError::cause(&error), "vault.shredded");

    // The key's row out of a backup is refused, and where somebody forces it in, the tombstone outweighs it.
    let restore =
        "insert into muneem.vault_subject_keys (key_id, business_id, subject_id, wrapped_by, wrapped, created_at)
        values ($1, $2, $3, $4, $5, now())";
    let (key_id, business, subject, by, wrapped) = backup[0].clone();
    let query = || sqlx::query(restore).bind(key_id).bind(business).bind(subject).bind(by).bind(wrapped.clone());
    let refused = query().execute(&house.db.pool()).await.expect_err("refused");
    assert!(refused.to_string().contains("was shredded"), "{refused}");
    house.execute("alter table muneem.vault_subject_keys disable trigger vault_subject_keys_not_shredded").await;
    query().execute(&house.db.pool()).await.expect("forced in");
    assert_eq!(why(house.another().open(&mut db, &cell("7"), &old).await), Unreadable::Shredded);
    house
        .execute("delete from muneem.vault_subject_keys where subject_id = '00000000-0000-0000-0000-00000000a54a'")
        .await;
    house.execute("alter table muneem.vault_subject_keys enable trigger vault_subject_keys_not_shredded").await;

    // She comes back: another key, and the stone stays.
    let new = house.vault.seal_for(&mut db, ASHA, &cell("7"), PHONE).await.expect("sealed");
    assert_ne!(key_of(&new), key_of(&old));
    assert_eq!(other.open(&mut db, &cell("7"), &new).await.expect("opened").as_slice(), PHONE);
    assert_eq!(why(other.open(&mut db, &cell("7"), &old).await), Unreadable::Shredded);
    assert_eq!(house.count("select count(*) from muneem.vault_shreds").await, 1);
    for forbidden in ["delete from muneem.vault_shreds", "update muneem.vault_shreds set key_id = 1"] {
        let refused = sqlx::query(forbidden).execute(&mut *db).await.expect_err("refused");
        assert!(refused.to_string().contains("permission denied"), "{refused}");
    }
    let told: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events")
        .fetch_all(&house.db.pool())
        .await
        .expect("events");
    assert_eq!(told.iter().filter(|body| String::from_utf8_lossy(body).contains("vault.subject_shredded")).count(), 1);
}

#[tokio::test]
async fn a_persons_key_is_her_businesss_alone_and_shredding_nobody_is_no_error() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal_for(&mut db, ASHA, &cell("7"), PHONE).await.expect("sealed");
    let theirs = Cell { business_id: KAVERI, ..cell("7") };
    assert_eq!(why(house.vault.open(&mut db, &theirs, &sealed).await), Unreadable::Key);
    assert_eq!(why(house.vault.open(&mut db, &cell("8"), &sealed).await), Unreadable::Tag);
    let elsewhere = house.vault.seal_for(&mut db, ASHA, &theirs, PHONE).await.expect("sealed");
    assert_ne!(key_of(&sealed), key_of(&elsewhere), "one person, two businesses, two keys");
    let nobody = house.vault.shred_subject(&mut db, KAVERI, BINA, Actor::Operator).await.expect("asked");
    assert_eq!(nobody, None);
    house.vault.shred_subject(&mut db, KAVERI, ASHA, Actor::Operator).await.expect("shredded").expect("hers");
    house.vault.open(&mut db, &cell("7"), &sealed).await.expect("with the other business all is as it was");
}

#[tokio::test]
async fn a_shredding_that_is_rolled_back_destroys_nothing() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal_for(&mut db, ASHA, &cell("7"), PHONE).await.expect("sealed");
    let mut tx = db.begin().await.expect("begun");
    house.vault.shred_subject(&mut tx, SHARMA, ASHA, Actor::Operator).await.expect("shredded");
    tx.rollback().await.expect("rolled back");
    house.another().open(&mut db, &cell("7"), &sealed).await.expect("opened");
    assert_eq!(house.count("select count(*) from muneem.vault_shreds").await, 0);
}
