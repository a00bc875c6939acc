//! What somebody with a token, a table or an unlucky habit may try against keys, and what answers.

use std::time::Duration;

use uuid::Uuid;

use super::{
    floor::{Floor, read},
    indexing::INDEXED_MAX,
    tests::{PHONE, SHARMA, why},
    *,
};
use crate::evidence::Actor;

const VERMA: BusinessId = BusinessId(Uuid::from_u128(0xbad));

fn customer(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "public.customers", column: "phone", row }
}

fn column() -> IndexColumn<'static> {
    IndexColumn { business_id: SHARMA, table: "public.customers", column: "phone" }
}

/// Something that names a key and was never sealed.
fn forged(key: u32) -> Vec<u8> {
    [&[1, 1], &key.to_be_bytes()[..], &[7; 40]].concat()
}

async fn because(floor: &Floor, key: u32) -> Option<String> {
    let mut db = floor.house.conn().await;
    let standing = standing(&mut db, Some(SHARMA)).await.expect("asked");
    let keys = list_keys(&mut db, Some(SHARMA)).await.expect("listed");
    let key = keys.iter().find(|known| known.key_id == i64::from(key)).expect("listed");
    key.waits_for(&standing, floor.house.vault.backup_horizon())
}

#[tokio::test]
async fn values_of_a_column_that_nobody_registered_keep_their_keys() {
    let floor = Floor::open().await;
    let vault = &floor.house.vault;
    let mut db = floor.house.conn().await;
    vault.note_stray(&mut db, &column(), Class::Contact).await.expect("noted");
    vault.note_stray(&mut db, &column(), Class::Contact).await.expect("once");
    // It stands in a table that no walk knows.
    let hers = vault.seal(&mut db, Class::Contact, &customer("7"), PHONE).await.expect("sealed");
    let mark = vault.index(&mut db, &column(), "+919876543210").await.expect("indexed");
    let old = key_of(&hers).expect("a number");
    floor.replace(Replace::Class(Class::Contact)).await;
    floor.reseal().await;
    floor.replace(Replace::Index("public.customers.phone")).await;
    floor.reseal().await;
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), false));
    let told = "public.customers.phone may hold its values and is not registered: `muneem keys columns add`";
    assert_eq!(because(&floor, old).await.as_deref(), Some(told));
    for _ in 0..2 {
        floor.house.clock.forward(floor.house.vault.backup_horizon());
        floor.run(RotateKeys {}).await.expect("one step");
        floor.reseal().await;
    }
    let later = floor.house.another();
    assert_eq!(later.open(&mut db, &customer("7"), &hers).await.expect("it opens for ever").as_slice(), PHONE);
    assert!(later.indexes(&mut db, &column(), "+919876543210").await.expect("asked").contains(&mark));

    // The table is gone, and somebody says so: now nothing keeps the keys.
    vault.remove_column(&mut db, SHARMA, "public.customers.phone", Actor::Operator).await.expect("forgotten");
    floor.house.clock.forward(TimeDelta::days(1));
    floor.run(RotateKeys {}).await.expect("another walk");
    floor.reseal().await;
    assert!(floor.state(old).await.1);
    floor.house.clock.forward(floor.house.vault.backup_horizon());
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await.0, "retired");
    assert_eq!(why(floor.house.another().open(&mut db, &customer("7"), &hers).await), Unreadable::Key);
}

#[tokio::test]
async fn atk_069_nobody_keeps_anothers_key_by_writing_its_number_into_a_value() {
    let floor = Floor::open().await;
    let vault = &floor.house.vault;
    let mut db = floor.house.conn().await;
    let old = key_of(&vault.seal(&mut db, Class::Payload, &customer("7"), PHONE).await.expect("sealed")).expect("one");
    let mut owner = floor.house.db.pool().acquire().await.expect("a connection");
    sqlx::query("insert into muneem.people_businesses values ($1, 'verma-phones', 'Verma', now())")
        .bind(VERMA.0)
        .execute(&mut *owner)
        .await
        .expect("another business");
    sqlx::query(
        "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
        values ($1, $2, $3, '[]', now())",
    )
    .bind(Uuid::from_u128(1))
    .bind(VERMA.0)
    .bind(forged(old))
    .execute(&mut *owner)
    .await
    .expect("a forged value");
    floor.replace(Replace::Class(Class::Payload)).await;
    floor.reseal().await;
    let hers = standing(&mut db, Some(VERMA)).await.expect("asked");
    assert_eq!((hers.quarantined, hers.quarantine[0].why.as_str()), (1, "key"));
    assert_eq!(standing(&mut db, Some(SHARMA)).await.expect("asked").quarantined, 0, "it is not hers");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true), "none of her own values names it");
    floor.house.clock.forward(floor.house.vault.backup_horizon());
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await.0, "retired");
}

#[tokio::test]
async fn atk_070_invented_key_numbers_make_nobody_wait() {
    let floor = Floor::open().await;
    let vault = floor.house.another();
    let mut db = floor.house.conn().await;
    let sealed = vault.seal(&mut db, Class::Contact, &customer("7"), PHONE).await.expect("sealed");
    let other = vault.seal(&mut db, Class::Contact, &Cell { business_id: VERMA, ..customer("7") }, PHONE).await;
    let other = key_of(&other.expect("sealed")).expect("a number");
    // Whoever reads keys of the business would wait here.
    let gate = vault.gate(SHARMA).lock().await;
    for number in [1, u32::MAX, other] {
        let cell = customer("7");
        let value = forged(number);
        let opened = tokio::time::timeout(Duration::from_secs(20), vault.open(&mut db, &cell, &value)).await;
        assert_eq!(why(opened.expect("it waits for nobody")), Unreadable::Key);
    }
    assert_eq!(vault.open(&mut db, &customer("7"), &sealed).await.expect("opened").as_slice(), PHONE);
    drop(gate);
    // One that another process made meanwhile is found.
    let fresh = floor.house.another();
    fresh.rotate(SHARMA, Class::Contact, &Actor::System).await.expect("rotated");
    let new = fresh.seal(&mut db, Class::Contact, &customer("7"), PHONE).await.expect("sealed");
    assert_eq!(vault.open(&mut db, &customer("7"), &new).await.expect("opened").as_slice(), PHONE);
}

#[tokio::test]
async fn index_keys_of_invented_columns_come_to_an_end() {
    let floor = Floor::open().await;
    let vault = &floor.house.vault;
    let mut db = floor.house.conn().await;
    let mut refused = None;
    for number in 0..=INDEXED_MAX {
        let name = format!("phone_{number}");
        let column = IndexColumn { business_id: SHARMA, table: "public.customers", column: &name };
        match vault.index(&mut db, &column, "+919876543210").await {
            Ok(_) => assert!(number < INDEXED_MAX),
            Err(error) => refused = Some(error),
        }
    }
    assert!(matches!(refused, Some(Error::BadColumn { .. })), "{refused:?}");
    let first = IndexColumn { business_id: SHARMA, table: "public.customers", column: "phone_0" };
    vault.index(&mut db, &first, "+919876543211").await.expect("those that are there go on");
    assert!(vault.known_indexes(&mut db, &column(), "+919876543210").await.expect("asked").is_empty());
}

#[tokio::test]
async fn a_frontends_database_that_does_not_answer_keeps_its_own_keys_and_no_others() {
    let house = super::tests::House::new().await;
    let nowhere = sqlx::postgres::PgConnectOptions::new_without_pgpass().socket("/nonexistent").username("nobody");
    let nowhere = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50)).connect_lazy_with(nowhere);
    let floor = Floor::of(house, |vault| vault.reaching(nowhere)).await;
    let mut db = floor.house.conn().await;
    let mut old = Vec::new();
    for business_id in [SHARMA, INSTALLATION] {
        let cell = Cell { business_id, ..customer("7") };
        let sealed = floor.house.vault.seal(&mut db, Class::Contact, &cell, PHONE);
        old.push(key_of(&sealed.await.expect("sealed")).expect("a number"));
        floor.house.vault.rotate(business_id, Class::Contact, &Actor::System).await.expect("rotated");
    }
    floor
        .house
        .execute(
            "insert into muneem.vault_columns (column_id, business_id, table_schema, table_name, column_name, class,
                key_column, key_type, state, added_at, checked_at)
            select gen_random_uuid(), business_id, 'public', 'customers', 'phone', 'contact', 'id', 'bigint', 'sound',
                now(), now()
            from muneem.people_businesses",
        )
        .await;
    let cleared = sqlx::query("update muneem.vault_keys set cleared_at = $1 where state = 'decrypt_only'")
        .bind(floor.house.clock.now() - TimeDelta::days(100))
        .execute(&floor.house.db.pool())
        .await
        .expect("long ago");
    assert_eq!(cleared.rows_affected(), 2);
    floor.run(RotateKeys {}).await.expect("one does not answer, the others go on");
    assert_eq!((floor.state(old[0]).await.0, floor.state(old[1]).await.0), ("decrypt_only".into(), "retired".into()));
    // And what cannot be looked at is closed.
    let closed = floor.deps.vault.check_columns(&mut db, Look::Shape, &Actor::System).await.expect("ours answers");
    let finding = closed[0].finding.as_deref().expect("a finding");
    assert_eq!(finding, "public.customers.phone: it could not be looked at: the database did not answer");
}

#[tokio::test]
async fn atk_075_a_rotation_under_way_goes_on_in_a_cluster_whose_transactions_begin_anew() {
    let floor = Floor::open().await;
    let ids = floor.fill(3).await;
    let mut db = floor.house.conn().await;
    let old = read(&floor.house.vault, &mut db, ids[0]).await.0;
    floor.replace(Replace::Class(Class::Payload)).await;
    // As a dump of another server would have it.
    floor.house.execute("update muneem.vault_reseals set fence = 4000000000000").await;
    floor.house.execute("update muneem.vault_standing set system_identifier = system_identifier + 1").await;
    floor.house.clock.forward(TimeDelta::minutes(1));
    floor.house.another().seal(&mut db, Class::Payload, &customer("7"), PHONE).await.expect("sealed, and noticed");
    let mut late = floor.house.db.app_pool().begin().await.expect("begun");
    sqlx::query("select pg_current_xact_id()").execute(&mut *late).await.expect("a number below the old fence");
    floor.reseal().await;
    late.commit().await.expect("committed");
    assert_eq!(floor.walk_state().await, "done");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
}
