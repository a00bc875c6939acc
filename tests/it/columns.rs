//! Columns of a frontend's own: what changed while nobody looked is closed at the next start, and `doctor` says so.

use std::{path::Path, process::Command};

use muneem_jobs::MIGRATOR;
use muneem_postgres::testing::TestDb;
use muneem_tests::{
    binary::{self, Running},
    until,
};

fn muneem(db: &TestDb, home: &Path, arguments: &[&str]) -> (bool, String) {
    let ended = Command::new(binary::path())
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("DATABASE_URL", db.app_url())
        .env("MUNEEM__SANDBOX__ENABLED", "true")
        .current_dir(home)
        .output()
        .unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_100_a_column_that_was_renamed_is_closed_at_the_next_start_and_doctor_says_so() {
    let db = TestDb::new(&MIGRATOR).await;
    let mut owner = db.pool().acquire().await.unwrap();
    muneem_jobs::schema::migrate(&mut owner).await.unwrap();
    assert!(muneem_jobs::law::set_sandbox(&mut owner, true).await.unwrap());
    for statement in [
        "create table public.customers (id bigint primary key, phone bytea)",
        "grant select (id, phone), update (phone) on public.customers to muneem_app",
        "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
            values ('00000000-0000-0000-0000-000000000001', 'sharma-mobiles', 'Sharma Mobiles', now())",
    ] {
        sqlx::query(statement).execute(&db.pool()).await.unwrap();
    }
    let home = tempfile::tempdir().unwrap();
    let register =
        ["keys", "columns", "add", "public.customers.phone", "--business", "sharma-mobiles", "--class", "contact"];
    let (added, said) = muneem(&db, home.path(), &register);
    assert!(added, "{said}");
    let (_, said) = muneem(&db, home.path(), &["doctor"]);
    assert!(said.contains("columns") && said.contains("1 registered, as they were"), "{said}");

    sqlx::query("alter table public.customers rename column phone to mobile").execute(&db.pool()).await.unwrap();
    let state = || async {
        let query = "select state from muneem.vault_columns";
        sqlx::query_scalar::<_, String>(query).fetch_one(&db.pool()).await.unwrap()
    };
    let (sound, said) = muneem(&db, home.path(), &["doctor"]);
    assert!(!sound && said.contains("column phone is gone or renamed: rename it back"), "{said}");
    assert_eq!(state().await, "sound", "doctor only looks");
    let environment = [("DATABASE_URL", db.app_url()), ("MUNEEM__SANDBOX__ENABLED", "true".to_owned())];
    let _running = Running::start(&["serve", "--only", "workers"], home.path(), &environment);
    until("it is closed", || async { state().await == "drifted" }).await;
}
