//! The root key that an installation makes at its first start.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use muneem_jobs::MIGRATOR;
use muneem_postgres::testing::TestDb;
use muneem_tests::binary;
use serde_json::Value;

/// `muneem keys status` on an installation of one machine, with nothing of this machine's settings.
fn status(db: &TestDb, home: &Path) -> Child {
    Command::new(binary::path())
        .args(["keys", "status", "--json"])
        .env_clear()
        .env("HOME", home)
        .env("DATABASE_URL", db.app_url())
        .env("MUNEEM__SANDBOX__ENABLED", "true")
        .env("MUNEEM__VAULT__KEY_FILE", home.join("keys/root.key"))
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn root_of(process: Child) -> String {
    let ended = process.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(told["open"], true, "{told}");
    told["root"].as_str().unwrap().to_owned()
}

async fn recorded(db: &TestDb) -> Vec<Value> {
    let bodies: Vec<Vec<u8>> =
        sqlx::query_scalar("select body from muneem.evidence_events").fetch_all(&db.pool()).await.unwrap();
    let events = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).unwrap());
    events.filter(|event| event["verb"] == "vault.root_made").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_of_a_first_start_is_made_once_and_is_on_record() {
    let db = TestDb::new(&MIGRATOR).await;
    let home = tempfile::tempdir().unwrap();
    let started: Vec<Child> = (0..3).map(|_| status(&db, home.path())).collect();
    let roots: Vec<String> = started.into_iter().map(root_of).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    let events = recorded(&db).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["object"]["id"], *roots[0]);
    assert!(!events[0].to_string().contains("operator"), "nobody asked for it: {}", events[0]);
    assert_eq!(root_of(status(&db, home.path())), roots[0], "and stays");
    assert_eq!(recorded(&db).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_085_a_root_key_that_cannot_be_recorded_is_not_made() {
    let db = TestDb::new(&MIGRATOR).await;
    for statement in [
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'disk full'; end $$",
        "create trigger refuse before insert on muneem.evidence_events for each row execute function public.refuse()",
    ] {
        sqlx::query(statement).execute(&db.pool()).await.unwrap();
    }
    let home = tempfile::tempdir().unwrap();
    let ended = status(&db, home.path()).wait_with_output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("could not be put on record, so none was made"), "{said}");
    let left: Vec<_> = std::fs::read_dir(home.path().join("keys")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
