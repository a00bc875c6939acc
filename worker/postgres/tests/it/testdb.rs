//! Databases for tests: separate, migrated, dropped.

use muneem_postgres::testing::{TestDb, TestServer};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, SqlSafeStr};

fn migrator() -> Migrator {
    let sql = "
        do $$
        begin
            create role muneem_app nologin;
        exception when duplicate_object or unique_violation then
            null;
        end
        $$;
        grant usage on schema muneem to muneem_app;
        create table muneem.visible (id int primary key);
        create table muneem.hidden (id int primary key);
        grant select, insert on muneem.visible to muneem_app;
    ";
    let migration = Migration::new(1, "first".into(), MigrationType::Simple, sql.into_sql_str(), false);
    let mut migrator = Migrator::with_migrations(vec![migration]);
    migrator.create_schema("muneem");
    migrator.dangerous_set_table_name("muneem._sqlx_migrations");
    migrator
}

#[tokio::test]
async fn databases_are_migrated_and_separate() {
    let migrator = migrator();
    let (one, other) = tokio::join!(TestDb::new(&migrator), TestDb::new(&migrator));
    assert_ne!(one.name(), other.name());
    sqlx::query("insert into muneem.visible values (1)").execute(&one.pool()).await.unwrap();
    let count: i64 = sqlx::query_scalar("select count(*) from muneem.visible").fetch_one(&other.pool()).await.unwrap();
    assert_eq!(count, 0);
    let applied: i64 =
        sqlx::query_scalar("select count(*) from muneem._sqlx_migrations").fetch_one(&one.pool()).await.unwrap();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn the_app_login_may_only_what_its_role_may() {
    let db = TestDb::new(&migrator()).await;
    sqlx::query("insert into muneem.visible values (1)").execute(&db.app_pool()).await.unwrap();
    let refused = sqlx::query("select from muneem.hidden").execute(&db.app_pool()).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    let mut by_url = PgConnection::connect(&db.app_url()).await.unwrap();
    let who: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut by_url).await.unwrap();
    assert_eq!(who, "muneem_test_app");
}

#[tokio::test]
async fn a_database_goes_with_its_value_even_while_it_is_used() {
    let db = TestDb::empty().await;
    let (name, server_url) = (db.name().to_owned(), db.server_url());
    let mut busy = PgConnection::connect(&db.url()).await.unwrap();
    sqlx::query("create table kept_open (id int)").execute(&mut busy).await.unwrap();
    drop(db);
    let mut admin = PgConnection::connect(&server_url).await.unwrap();
    let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(!there);
}

#[tokio::test]
async fn a_dedicated_server_keeps_its_data_over_a_kill() {
    let mut server = TestServer::dedicated();
    server.create_database("app", Some(&migrator())).await;
    let pool = server.pool("app");
    sqlx::query("insert into muneem.visible values (7)").execute(&pool).await.unwrap();
    server.kill();
    assert!(PgConnection::connect(&server.url("app")).await.is_err());
    server.start();
    let pool = server.pool("app");
    let kept: i32 = sqlx::query_scalar("select id from muneem.visible").fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 7);
    server.stop();
    server.start();
    let pool = server.pool("app");
    let kept: i32 = sqlx::query_scalar("select id from muneem.visible").fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 7);
}
