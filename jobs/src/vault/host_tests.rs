//! Columns of the frontend's own: sealed anew with ours, and closed when they are not what they were.

use super::{
    floor::Floor,
    tests::{House, SHARMA},
    *,
};
use crate::evidence::Actor;

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "public.customers", column: "phone", row }
}

fn column() -> IndexColumn<'static> {
    IndexColumn { business_id: SHARMA, table: "public.customers", column: "phone" }
}

fn registration() -> NewColumn {
    NewColumn {
        business: SHARMA,
        table: "public.customers".to_owned(),
        column: "phone".to_owned(),
        class: Class::Contact,
        key: "id".to_owned(),
        index: Some(HostIndex {
            column: "phone_index".to_owned(),
            version_column: "phone_version".to_owned(),
            form: Form::Phone,
        }),
    }
}

/// A frontend's table with three customers.
async fn shop() -> Floor {
    let house = House::new().await;
    for statement in [
        "create table public.customers (
            id bigint primary key, name text, phone bytea, phone_index bytea, phone_version integer)",
        "create unique index on public.customers (phone_index)",
        "grant select (id, phone, phone_index, phone_version), update (phone, phone_index, phone_version)
            on public.customers to muneem_app",
    ] {
        house.execute(statement).await;
    }
    let floor = Floor::of(house, |vault| vault).await;
    let mut db = floor.house.db.pool().acquire().await.expect("a connection");
    for id in 1..=3 {
        let row = id.to_string();
        let phone = format!("+91987654321{id}");
        // As its owner writes it; the index goes by the canonical form.
        let written = format!("98765 4321{id}");
        let sealed =
            floor.house.vault.seal(&mut db, Class::Contact, &cell(&row), written.as_bytes()).await.expect("sealed");
        let index = floor.house.vault.index(&mut db, &column(), &phone).await.expect("indexed");
        sqlx::query("insert into public.customers values ($1, 'customer', $2, $3, $4)")
            .bind(i64::from(id))
            .bind(sealed)
            .bind(&index.digest[..])
            .bind(i32::from(index.version))
            .execute(&mut *db)
            .await
            .expect("a customer");
    }
    floor
}

async fn customer(floor: &Floor, phone: &str) -> Option<i64> {
    let mut db = floor.house.conn().await;
    let mut found = None;
    for index in floor.house.another().indexes(&mut db, &column(), phone).await.expect("indexed") {
        let query = "select id from public.customers where phone_index = $1 and phone_version = $2";
        let id: Option<i64> = sqlx::query_scalar(query)
            .bind(&index.digest[..])
            .bind(i32::from(index.version))
            .fetch_optional(&mut *db)
            .await
            .expect("asked");
        found = found.or(id);
    }
    found
}

async fn stored(floor: &Floor, id: i64) -> (Vec<u8>, i32) {
    sqlx::query_as("select phone, phone_version from public.customers where id = $1")
        .bind(id)
        .fetch_one(&floor.house.db.pool())
        .await
        .expect("a customer")
}

#[tokio::test]
async fn a_registered_column_is_sealed_and_indexed_anew() {
    let floor = shop().await;
    let mut db = floor.house.conn().await;
    let vault = &floor.house.vault;
    let added = vault.add_column(&mut db, &registration(), Actor::Operator).await.expect("registered");
    assert_eq!((added.name().as_str(), added.key_type.as_str()), ("public.customers.phone", "bigint"));
    let again = vault.add_column(&mut db, &registration(), Actor::Operator).await.expect_err("there already");
    assert!(matches!(again, Error::Registered { .. }), "{again:?}");

    let old = key_of(&stored(&floor, 1).await.0).expect("a number");
    let new = floor.replace(Replace::Class(Class::Contact)).await;
    floor.reseal().await;
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
    for id in 1..=3 {
        let (sealed, _) = stored(&floor, id).await;
        assert_eq!(key_of(&sealed), Some(new));
        let plain = floor.house.another().open(&mut db, &cell(&id.to_string()), &sealed).await.expect("opened");
        assert_eq!(plain.as_slice(), format!("98765 4321{id}").as_bytes());
    }

    floor.replace(Replace::Index("public.customers.phone")).await;
    // Half-way both keys are asked, so everybody is found before, meanwhile and after.
    assert_eq!((stored(&floor, 2).await.1, customer(&floor, "+919876543212").await), (1, Some(2)));
    floor.reseal().await;
    for id in 1..=3 {
        assert_eq!(stored(&floor, id).await.1, 2);
        assert_eq!(customer(&floor, &format!("+91987654321{id}")).await, Some(id));
    }
    assert_eq!(
        floor
            .house
            .count("select count(*) from muneem.vault_keys where class = 'index' and cleared_at is not null")
            .await,
        1
    );
}

#[tokio::test]
async fn atk_100_a_column_that_is_not_what_it_was_is_closed_and_says_what_to_do() {
    let drifts = [
        (
            "alter table public.customers rename column phone to mobile",
            "alter table public.customers rename column mobile to phone",
            "column phone is gone or renamed: rename it back",
        ),
        (
            "alter table public.customers rename to clients",
            "alter table public.clients rename to customers",
            "the table is gone or renamed: rename it back",
        ),
        (
            "alter table public.customers alter column phone type text using encode(phone, 'hex')",
            "alter table public.customers alter column phone type bytea using decode(phone, 'hex')",
            "column phone is text and was bytea: change it back",
        ),
        (
            "alter table public.customers drop constraint customers_pkey",
            "alter table public.customers add primary key (id)",
            "column id is not unique and not null: make it the primary key",
        ),
        (
            "insert into public.customers values (9, 'new', '+919876543219'::bytea, null, null)",
            "delete from public.customers where id = 9",
            "1 values are not sealed: seal them",
        ),
        (
            "update public.customers set phone_index = null where id = 1",
            "delete from public.customers where id = 1",
            "1 rows have no blind index",
        ),
        (
            "revoke update on public.customers from muneem_app; revoke update (phone, phone_index, phone_version) on public.customers from muneem_app",
            "grant update (phone, phone_index, phone_version) on public.customers to muneem_app",
            "it may not be read and written: grant select (\"id\", \"phone\", \"phone_index\", \"phone_version\"), update (\"phone\", \"phone_index\", \"phone_version\") on \"public\".\"customers\"",
        ),
    ];
    let floor = shop().await;
    let mut db = floor.house.conn().await;
    let vault = &floor.house.vault;
    vault.add_column(&mut db, &registration(), Actor::Operator).await.expect("registered");
    for (bend, mend, finding) in drifts {
        sqlx::raw_sql(bend).execute(&floor.house.db.pool()).await.expect("bent");
        floor.run(CheckColumns { values: true }).await.expect("looked at");
        let refused = require_sound(&mut db, SHARMA, "public.customers", "phone").await.expect_err("closed");
        assert!(refused.to_string().contains(finding), "{bend}: {refused}");
        assert!(!refused.to_string().contains("98765"), "{refused}");
        let closed = standing(&mut db, None).await.expect("asked").closed;
        assert_eq!(closed.len(), 1);
        sqlx::raw_sql(mend).execute(&floor.house.db.pool()).await.expect("mended");
        assert!(
            vault.check_columns(&mut db, Look::Values, &Actor::Operator).await.expect("looked at").is_empty(),
            "{mend}"
        );
        require_sound(&mut db, SHARMA, "public.customers", "phone").await.expect("open again");
    }
    // Others of the same table were never closed.
    require_sound(&mut db, SHARMA, "public.customers", "email").await.expect("nobody registered it");
}

#[tokio::test]
async fn atk_100_a_look_at_a_columns_shape_closes_it_and_opens_only_what_is_sealed() {
    let floor = shop().await;
    let mut db = floor.house.conn().await;
    let vault = &floor.house.vault;
    vault.add_column(&mut db, &registration(), Actor::Operator).await.expect("registered");
    let now = floor.house.clock.now();
    floor.house.execute("alter table public.customers rename column phone to mobile").await;
    let seen = look_at_columns(&mut db, &floor.house.db.app_pool(), Look::Shape, now).await.expect("looked at");
    assert!(!seen[0].sound, "{seen:?}");
    require_sound(&mut db, SHARMA, "public.customers", "phone").await.expect("who only looks closes nothing");
    let states = |closed: usize| {
        let pool = floor.house.db.app_pool();
        async move {
            let mut db = pool.acquire().await.expect("a connection");
            let found = vault.check_columns(&mut db, Look::Shape, &Actor::System).await.expect("looked at");
            assert_eq!(found.len(), closed, "{found:?}");
            let sound = require_sound(&mut db, SHARMA, "public.customers", "phone").await;
            assert_eq!(sound.is_err(), closed == 1, "{sound:?}");
        }
    };
    states(1).await;
    floor.house.execute("alter table public.customers rename column mobile to phone").await;
    states(0).await;
    // A value that was never sealed is found by who reads all; a look at the shape then does not open the column.
    floor.house.execute("insert into public.customers values (9, 'new', '+919876543219'::bytea, null, null)").await;
    states(0).await;
    assert_eq!(vault.check_columns(&mut db, Look::Values, &Actor::System).await.expect("looked at").len(), 1);
    states(1).await;
    floor.house.execute("delete from public.customers where id = 9").await;
    states(0).await;
    let told: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events")
        .fetch_all(&floor.house.db.pool())
        .await
        .expect("events");
    let told = |verb: &str| told.iter().filter(|body| String::from_utf8_lossy(body).contains(verb)).count();
    assert_eq!((told("vault.column_drifted"), told("vault.column_sound")), (2, 2), "each change once");
}

#[tokio::test]
async fn atk_100_a_walk_passes_a_closed_column_by_and_keeps_the_keys() {
    let floor = shop().await;
    let mut db = floor.house.conn().await;
    floor.house.vault.add_column(&mut db, &registration(), Actor::Operator).await.expect("registered");
    let old = key_of(&stored(&floor, 1).await.0).expect("a number");
    floor.replace(Replace::Class(Class::Contact)).await;
    floor.house.execute("alter table public.customers rename column phone to mobile").await;
    floor.reseal().await;
    let now = standing(&mut db, None).await.expect("asked").walk.expect("a walk");
    assert_eq!(now.state, "incomplete");
    let trouble: Vec<_> = now.columns.iter().filter_map(|column| column.trouble.as_deref()).collect();
    assert_eq!(trouble, ["it could not be read: SQLSTATE 42703"]);
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), false));
    floor.house.execute("alter table public.customers rename column mobile to phone").await;
    floor.house.clock.forward(TimeDelta::days(1));
    floor.run(RotateKeys {}).await.expect("another walk");
    floor.reseal().await;
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
}

#[tokio::test]
async fn what_cannot_be_walked_is_not_registered() {
    let floor = shop().await;
    let mut db = floor.house.conn().await;
    let vault = &floor.house.vault;
    floor.house.execute("alter table public.customers add column code text unique").await;
    let refused = [
        (NewColumn { table: "customers".to_owned(), ..registration() }, "the table has no schema"),
        (NewColumn { table: "muneem.people_staff".to_owned(), ..registration() }, "is one of muneem's"),
        (NewColumn { key: "code".to_owned(), ..registration() }, "key column code is text"),
        (NewColumn { column: "name".to_owned(), index: None, ..registration() }, "column name is text and was bytea"),
        (NewColumn { table: "public.nobody".to_owned(), ..registration() }, "the table is gone or renamed"),
        (NewColumn { table: "public.cust\"omers".to_owned(), ..registration() }, "the table is gone or renamed"),
    ];
    for (new, told) in refused {
        let error = vault.add_column(&mut db, &new, Actor::Operator).await.expect_err(told);
        assert!(error.to_string().contains(told), "{error}");
    }
    assert_eq!(floor.house.count("select count(*) from muneem.vault_columns").await, 0);
    let gone = vault.remove_column(&mut db, SHARMA, "public.customers.phone", Actor::Operator).await;
    assert!(matches!(gone, Err(Error::NotRegistered { .. })), "{gone:?}");
    vault.add_column(&mut db, &registration(), Actor::Operator).await.expect("registered");
    vault.remove_column(&mut db, SHARMA, "public.customers.phone", Actor::Operator).await.expect("removed");
    assert_eq!(floor.house.count("select count(*) from muneem.vault_columns").await, 0);
    let told: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events")
        .fetch_all(&floor.house.db.pool())
        .await
        .expect("events");
    for verb in ["vault.column_added", "vault.column_removed"] {
        let told = told.iter().filter(|body| String::from_utf8_lossy(body).contains(verb));
        assert_eq!(told.count(), 1, "{verb}");
    }
}
