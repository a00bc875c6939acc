use muneem_postgres::testing::TestDb;
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::*;

fn event(number: u32) -> Event<'static> {
    Event {
        event_id: EventId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + u128::from(number))),
        business_id: None,
        actor: Actor::System,
        verb: words::PROBED,
        object: Object { kind: "test", id: "one" },
        details: json!({ "number": number }),
    }
}

async fn count(owner: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from muneem.evidence_events").fetch_one(owner).await.expect("counted")
}

/// SQLSTATE of what the app role is told.
async fn told(db: &mut PgConnection, sql: &'static str) -> String {
    match sqlx::query(sql).execute(db).await {
        Ok(_) => "done".to_owned(),
        Err(error) => error.as_database_error().and_then(|e| e.code()).expect("an SQLSTATE").into_owned(),
    }
}

#[tokio::test]
async fn an_event_lives_and_dies_with_its_transaction() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let mut tx = db.begin().await.expect("begun");
    record(&mut tx, &event(1)).await.expect("recorded");
    tx.rollback().await.expect("rolled back");
    assert_eq!(count(&test.pool()).await, 0);
    let mut tx = db.begin().await.expect("begun");
    record(&mut tx, &event(1)).await.expect("recorded");
    record_many(&mut tx, &[event(2), event(3)]).await.expect("recorded");
    record_many(&mut tx, &[]).await.expect("nothing to record");
    tx.commit().await.expect("committed");
    assert_eq!(count(&test.pool()).await, 3);
    let stored: Vec<u8> = sqlx::query_scalar("select body from muneem.evidence_events order by event_id limit 1")
        .fetch_one(&test.pool())
        .await
        .expect("stored");
    assert_eq!(stored, event(1).body().expect("a body"));
}

#[tokio::test]
async fn atk_080_the_app_role_can_only_append() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    record(&mut db, &event(1)).await.expect("recorded");
    for sql in [
        "update muneem.evidence_events set body = '{}'",
        "delete from muneem.evidence_events",
        "truncate muneem.evidence_events",
        "select body from muneem.evidence_events",
        "drop table muneem.evidence_events",
        "alter table muneem.evidence_events disable trigger all",
        "set session_replication_role = replica",
        "insert into muneem.evidence_events (event_id, body, at) values (gen_random_uuid(), '{}', '2020-01-01')",
        "insert into muneem.evidence_events (event_id, body, xid) values (gen_random_uuid(), '{}', '3')",
        "update muneem.evidence_leaves set leaf = leaf",
        "insert into muneem.evidence_leaves values (0, gen_random_uuid(), null, 1, '', now(), '', '')",
        "delete from muneem.evidence_leaves",
        "update muneem.evidence_head set size = 0",
        "update muneem.evidence_counters set sealed = 0",
        "insert into muneem.evidence_checkpoints (size, root, note) values (1, '', '')",
        "delete from muneem.evidence_checkpoints",
        "delete from muneem.evidence_forks",
        "delete from muneem.evidence_anchors",
        "set role muneem_sealer",
        "set role muneem_evidence_owner",
        "update muneem.law_clock set moved_by = interval '-1 year'",
        "update muneem.law_clock set sandbox = true",
        "create or replace function muneem.law_clock_moved_by() returns interval language sql return interval '-1 year'",
    ] {
        assert_eq!(told(&mut db, sql).await, "42501", "{sql}");
    }
    // A real database's clock does not move, so that nothing is backdated by it.
    assert_eq!(told(&mut db, "select muneem.law_move_clock('-1 year')").await, "MN040");
    // Gives nothing, says so in a warning.
    told(&mut db, "grant update on muneem.evidence_events to muneem_app").await;
    assert_eq!(told(&mut db, "update muneem.evidence_events set body = '{}'").await, "42501");
    let replaced = told(
        &mut db,
        "create or replace function muneem.evidence_refuse_change() returns trigger language plpgsql as 'begin return old; end'",
    );
    assert_eq!(replaced.await, "42501");
    assert_eq!(count(&test.pool()).await, 1);
}

#[tokio::test]
async fn atk_080_even_the_owner_is_stopped_by_triggers() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut app = test.app_pool().acquire().await.expect("a connection");
    record(&mut app, &event(1)).await.expect("recorded");
    let mut owner = test.pool().acquire().await.expect("a connection");
    let partition: String = sqlx::query_scalar("select tableoid::regclass::text from muneem.evidence_events")
        .fetch_one(&mut *owner)
        .await
        .expect("one event");
    let direct = sqlx::query(sqlx::AssertSqlSafe(format!("truncate {partition}"))).execute(&mut *owner).await;
    let direct = direct.expect_err("refused").as_database_error().and_then(|e| e.code()).expect("a code").into_owned();
    assert_eq!(direct, "MN020", "truncate of a month is refused too");
    for sql in [
        "update muneem.evidence_events set body = '{}'",
        "delete from muneem.evidence_events",
        "truncate muneem.evidence_events",
    ] {
        assert_eq!(told(&mut owner, sql).await, "MN020", "{sql}");
    }
    assert_eq!(count(&test.pool()).await, 1);
}

#[tokio::test]
async fn atk_080_a_login_that_may_do_more_does_not_serve_and_is_told_the_mend() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    crate::schema::check(&test.app_pool(), false).await.expect("the app role as it is made");
    for (grant, right) in [
        ("grant update on muneem.evidence_events to muneem_app", "update on muneem.evidence_events"),
        ("grant delete on muneem.evidence_leaves to muneem_app", "delete on muneem.evidence_leaves"),
        ("grant truncate on muneem.evidence_checkpoints to muneem_app", "truncate on muneem.evidence_checkpoints"),
        ("grant insert on muneem.evidence_leaves to muneem_app", "insert on muneem.evidence_leaves"),
        ("grant insert (at) on muneem.evidence_events to muneem_app", "insert of column at on muneem.evidence_events"),
        ("grant update (moved_by) on muneem.law_clock to muneem_app", "update of muneem.law_clock"),
        ("grant select on muneem.evidence_events to public", "select on muneem.evidence_events"),
    ] {
        sqlx::query(grant).execute(&mut *owner).await.expect(grant);
        let error = crate::schema::check(&test.app_pool(), false).await.expect_err(grant);
        let crate::schema::Error::EvidenceOpen { right: told, mend, .. } = error else { panic!("{grant}: {error}") };
        assert!(told.contains(right), "{told}");
        while let Err(crate::schema::Error::EvidenceOpen { mend, .. }) =
            crate::schema::check(&test.app_pool(), false).await
        {
            sqlx::query(sqlx::AssertSqlSafe(mend)).execute(&mut *owner).await.expect("the mend is SQL");
        }
        assert!(mend.starts_with("revoke "), "{mend}");
        crate::schema::check(&test.app_pool(), false).await.expect("mended");
    }
}

#[tokio::test]
async fn only_a_sandboxs_clock_moves_and_only_sandbox_mode_serves_it() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let (mut owner, app) = (test.pool().acquire().await.expect("a connection"), test.app_pool());
    let error = crate::schema::check(&app, true).await.expect_err("a real database");
    assert!(matches!(error, crate::schema::Error::WrongClock { sandbox: false }), "{error}");
    assert!(crate::law::set_sandbox(&mut owner, true).await.expect("made a sandbox's"));
    crate::schema::check(&app, true).await.expect("sandbox mode");
    let mut db = app.acquire().await.expect("a connection");
    let behind = async |db: &mut PgConnection| -> i64 {
        sqlx::query_scalar("select round(extract(epoch from clock_timestamp() - muneem.now()))::bigint")
            .fetch_one(db)
            .await
            .expect("told")
    };
    assert_eq!(behind(&mut db).await, 0);
    let year = chrono::TimeDelta::days(-365);
    crate::law::move_clock(&mut db, year).await.expect("moved");
    // This session's plans held the old constant.
    assert_eq!(behind(&mut db).await, 365 * 86_400);
    assert_eq!(crate::law::load_clock(&app).await.expect("told"), (true, year));
    let error = crate::schema::check(&app, false).await.expect_err("a sandbox's");
    assert!(error.to_string().contains("`sandbox.enabled = false`"), "{error}");
    assert!(crate::law::set_sandbox(&mut owner, false).await.expect("made a real one"));
    assert_eq!(behind(&mut db).await, 0, "and put right");
    crate::law::move_clock(&mut db, year).await.expect_err("no sandbox");
    // Where a business works, one setting does not make it a sandbox's.
    sqlx::query(
        "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
        values (gen_random_uuid(), 'sharma-mobiles', 'Sharma Mobiles', now())",
    )
    .execute(&mut *owner)
    .await
    .expect("added");
    assert!(!crate::law::set_sandbox(&mut owner, true).await.expect("asked"));
    crate::schema::check(&app, false).await.expect("still a real one");
}
