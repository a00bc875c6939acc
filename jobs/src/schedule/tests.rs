//! Schedules on a real Postgres: one job per slot, whoever runs and whatever dies.

use std::sync::atomic::{AtomicU8, Ordering};

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Asia::Kolkata;
use muneem_postgres::testing::TestDb;
use serde_json::json;
use sqlx::PgPool;

use super::*;
use crate::outbound::Chance;

fn india(day: u32, hour: u32, minute: u32) -> DateTime<Utc> {
    Kolkata.with_ymd_and_hms(2026, 11, day, hour, minute, 0).unwrap().to_utc()
}

struct Counting(AtomicU8);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

static CHANCE: Counting = Counting(AtomicU8::new(1));

fn by() -> By<'static> {
    By::operator(india(1, 0, 0), &CHANCE)
}

fn nightly(name: &str) -> Declaration {
    Declaration {
        name: name.to_owned(),
        kind: "test.sweep".to_owned(),
        payload: json!({}),
        scope: Scope::House,
        lane: None,
        expression: "@daily".parse().unwrap(),
        missed: Missed::RunOnce,
        catch_up_max: 100,
    }
}

/// A database with the kind `test.sweep` and the businesses of these handles, the first the oldest.
async fn database(handles: &[&str]) -> TestDb {
    let db = TestDb::new(&crate::MIGRATOR).await;
    sqlx::query("insert into muneem.queue_kinds (kind, lane, schema, rule, max_attempts) values ('test.sweep', 'maintenance', '{}', '$.type() == \"object\"', 3)")
        .execute(&db.pool())
        .await
        .unwrap();
    for (age, handle) in (0i64..).zip(handles) {
        sqlx::query("insert into muneem.people_businesses (business_id, handle, legal_name, created_at) values (gen_random_uuid(), $1, 'A shop', $2)")
            .bind(handle)
            .bind(india(1, 0, 0) + TimeDelta::seconds(age))
            .execute(&db.pool())
            .await
            .unwrap();
    }
    db
}

/// Keys of all jobs with their businesses, in order.
async fn jobs(db: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as(
        "select b.handle, j.key from muneem.queue_jobs j join muneem.people_businesses b using (business_id) order by j.key, b.handle",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

async fn declare(db: &PgPool, declared: Vec<Declaration>) {
    sync(&mut db.acquire().await.unwrap(), declared).await.unwrap();
}

async fn entry(db: &PgPool, name: &str) -> Entry {
    show(&mut db.acquire().await.unwrap(), name, india(1, 0, 0)).await.unwrap().entry
}

#[tokio::test]
async fn a_new_entry_starts_from_now_and_each_slot_becomes_one_job() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    declare(&db, vec![nightly("house.sweep")]).await;

    let first = tick(&db, india(23, 10, 0)).await.unwrap();
    assert_eq!(first, Ticked { jobs: vec![], faults: vec![], next_at: Some(india(24, 0, 0)) });
    assert_eq!(tick(&db, india(23, 23, 59)).await.unwrap().jobs, []);
    assert_eq!(tick(&db, india(24, 0, 0)).await.unwrap().jobs.len(), 1);
    assert_eq!(tick(&db, india(24, 0, 0)).await.unwrap().jobs.len(), 0);
    assert_eq!(tick(&db, india(25, 0, 1)).await.unwrap().next_at, Some(india(26, 0, 0)));

    let keys = jobs(&test.pool()).await.into_iter().map(|(_, key)| key).collect::<Vec<_>>();
    assert_eq!(keys, ["schedule:house.sweep:2026-11-23T18:30:00Z", "schedule:house.sweep:2026-11-24T18:30:00Z"]);
}

#[tokio::test]
async fn many_schedulers_make_one_job_of_a_slot() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    declare(&db, (0..5).map(|n| nightly(&format!("house.sweep-{n}"))).collect()).await;
    tick(&db, india(20, 10, 0)).await.unwrap();

    for day in 21..24 {
        let ticks = (0..4).map(|_| {
            let db = db.clone();
            tokio::spawn(async move { tick(&db, india(day, 0, 0)).await.unwrap() })
        });
        for handle in ticks.collect::<Vec<_>>() {
            handle.await.unwrap();
        }
    }
    assert_eq!(jobs(&test.pool()).await.len(), 15);
}

#[tokio::test]
async fn killed_between_enqueue_and_commit_the_slot_is_still_one_job() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    declare(&db, vec![nightly("house.sweep")]).await;
    tick(&db, india(23, 10, 0)).await.unwrap();

    // What a tick does up to its commit, and then the process is gone.
    let mut dying = db.begin().await.unwrap();
    let held = store::lock_due(&mut dying, "house.sweep", india(24, 0, 0)).await.unwrap().unwrap();
    assert_eq!(settle(&mut dying, &held, india(24, 0, 0)).await.unwrap().len(), 1);
    // While it lives, the entry is its own.
    assert_eq!(tick(&db, india(24, 0, 0)).await.unwrap().jobs, []);
    // The server does the same when the process's connection breaks.
    dying.rollback().await.unwrap();

    assert_eq!(tick(&db, india(24, 0, 1)).await.unwrap().jobs.len(), 1);
    assert_eq!(jobs(&test.pool()).await.len(), 1);
}

#[tokio::test]
async fn a_clock_set_back_repeats_nothing() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    declare(&db, vec![nightly("house.sweep")]).await;
    tick(&db, india(22, 10, 0)).await.unwrap();
    tick(&db, india(24, 10, 0)).await.unwrap();
    let before = entry(&db, "house.sweep").await;
    assert_eq!((before.last_slot, before.next_slot), (Some(india(24, 0, 0)), Some(india(25, 0, 0))));

    for day in 20..25 {
        assert_eq!(tick(&db, india(day, 23, 59)).await.unwrap().jobs, []);
    }
    assert_eq!(entry(&db, "house.sweep").await, before);
    assert_eq!(tick(&db, india(25, 0, 0)).await.unwrap().jobs.len(), 1);
    assert_eq!(jobs(&test.pool()).await.len(), 2);
}

#[tokio::test]
async fn each_business_gets_its_job_and_the_house_files_its_own_under_the_oldest() {
    let test = database(&["asha-medicals", "sharma-mobiles", "zaveri-jewels"]).await;
    let db = test.app_pool();
    let named = Declaration { scope: Scope::Named("zaveri-jewels".to_owned()), ..nightly("named") };
    declare(&db, vec![nightly("house"), nightly("each").for_each_business(), named]).await;
    tick(&db, india(23, 10, 0)).await.unwrap();
    tick(&db, india(24, 0, 0)).await.unwrap();

    let made = jobs(&test.pool()).await;
    let of = |name: &str| {
        let prefix = format!("schedule:{name}:");
        made.iter().filter(|(_, key)| key.starts_with(&prefix)).map(|(handle, _)| handle.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("each"), ["asha-medicals", "sharma-mobiles", "zaveri-jewels"]);
    assert_eq!(of("house"), ["asha-medicals"]);
    assert_eq!(of("named"), ["zaveri-jewels"]);
}

#[tokio::test]
async fn an_entry_that_makes_no_job_keeps_its_slot_and_hinders_no_other() {
    let test = database(&["asha-medicals", "sharma-mobiles"]).await;
    let db = test.app_pool();
    let unknown = Declaration { kind: "test.unknown".to_owned(), ..nightly("a-unknown-kind") };
    let several = Declaration { scope: Scope::Only, ..nightly("b-which-business") };
    declare(&db, vec![unknown, several, nightly("z-good")]).await;
    sqlx::query(
        "insert into muneem.schedule_entries (name, kind, expression) values ('c-bad', 'test.sweep', '0 9 L * *')",
    )
    .execute(&test.pool())
    .await
    .unwrap();
    tick(&db, india(23, 10, 0)).await.unwrap();

    let ticked = tick(&db, india(24, 0, 0)).await.unwrap();
    assert_eq!(ticked.jobs.len(), 1);
    assert_eq!(ticked.faults, ["c-bad", "a-unknown-kind", "b-which-business"]);
    let fault = async |name: &str| entry(&db, name).await.fault.unwrap();
    assert!(fault("c-bad").await.contains("day-of-month"));
    assert!(fault("a-unknown-kind").await.contains("test.unknown"));
    assert!(fault("b-which-business").await.contains("several"));

    // Mended, the slot that waited becomes its job.
    sqlx::query("insert into muneem.queue_kinds (kind, lane, schema, rule, max_attempts) values ('test.unknown', 'bulk', '{}', '$.type() == \"object\"', 3)")
        .execute(&test.pool())
        .await
        .unwrap();
    assert_eq!(tick(&db, india(24, 0, 1)).await.unwrap().jobs.len(), 1);
    assert_eq!(entry(&db, "a-unknown-kind").await.fault, None);
}

#[tokio::test]
async fn declaring_again_keeps_the_operators_pause_and_the_slots() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    let mut conn = db.acquire().await.unwrap();
    sync(&mut conn, vec![nightly("house.sweep"), nightly("house.gone")]).await.unwrap();
    tick(&db, india(23, 10, 0)).await.unwrap();
    pause(&mut conn, "house.sweep", &by()).await.unwrap();

    sync(&mut conn, vec![nightly("house.sweep")]).await.unwrap();
    let kept = entry(&db, "house.sweep").await;
    assert_eq!((kept.paused, kept.next_slot), (true, Some(india(24, 0, 0))));
    assert!(matches!(show(&mut conn, "house.gone", india(23, 0, 0)).await, Err(Error::NotFound(_))));

    // Three nights pass in the pause; none is made up.
    assert_eq!(tick(&db, india(26, 10, 0)).await.unwrap(), Ticked::default());
    resume(&mut conn, "house.sweep", &by()).await.unwrap();
    assert_eq!(tick(&db, india(26, 10, 0)).await.unwrap().jobs, []);
    assert_eq!(tick(&db, india(27, 0, 0)).await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn another_expression_starts_from_now() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    let mut conn = db.acquire().await.unwrap();
    put(&mut conn, &nightly("night"), &by()).await.unwrap();
    tick(&db, india(23, 10, 0)).await.unwrap();
    let hourly = Declaration { expression: "@hourly".parse().unwrap(), missed: Missed::RunAll, ..nightly("night") };
    put(&mut conn, &hourly, &by()).await.unwrap();
    assert_eq!(
        tick(&db, india(25, 9, 30)).await.unwrap(),
        Ticked { next_at: Some(india(25, 10, 0)), ..Ticked::default() }
    );
}

#[tokio::test]
async fn code_and_operator_keep_out_of_each_others_entries() {
    let test = database(&["sharma-mobiles"]).await;
    let mut conn = test.app_pool().acquire().await.unwrap();
    sync(&mut conn, vec![nightly("code")]).await.unwrap();
    put(&mut conn, &nightly("mine"), &by()).await.unwrap();

    assert!(matches!(put(&mut conn, &nightly("code"), &by()).await, Err(Error::DeclaredInCode(_))));
    assert!(matches!(remove(&mut conn, "code", &by()).await, Err(Error::DeclaredInCode(_))));
    assert!(matches!(remove(&mut conn, "none", &by()).await, Err(Error::NotFound(_))));
    let taken = sync(&mut conn, vec![nightly("code"), nightly("mine")]).await;
    assert!(matches!(taken, Err(Error::NameTaken(name)) if name == "mine"));
    remove(&mut conn, "mine", &by()).await.unwrap();

    let stranger = Declaration { scope: Scope::Named("nobody".to_owned()), ..nightly("x") };
    let refused = put(&mut conn, &stranger, &by()).await.unwrap_err().to_string();
    assert_eq!(refused, "schedule `x`: business `nobody` is not a business here");
    let refused = put(&mut conn, &nightly("Über"), &by()).await.unwrap_err().to_string();
    assert!(refused.contains("name is 1 to 63 of"), "{refused}");
}

#[tokio::test]
async fn triggering_makes_one_job_for_one_request_beside_the_slots() {
    let test = database(&["sharma-mobiles"]).await;
    let db = test.app_pool();
    let mut conn = db.acquire().await.unwrap();
    declare(&db, vec![nightly("house.sweep")]).await;
    pause(&mut conn, "house.sweep", &by()).await.unwrap();

    let now = india(23, 10, 0);
    let first = trigger(&mut conn, "house.sweep", "request-1", &By { now, ..by() }).await.unwrap();
    assert_eq!(trigger(&mut conn, "house.sweep", "request-1", &By { now, ..by() }).await.unwrap(), first);
    assert_ne!(trigger(&mut conn, "house.sweep", "request-2", &By { now, ..by() }).await.unwrap(), first);
    assert_eq!(jobs(&test.pool()).await.len(), 2);
    assert_eq!(entry(&db, "house.sweep").await.last_slot, None);
    assert!(matches!(trigger(&mut conn, "none", "r", &By { now, ..by() }).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn the_list_shows_the_next_five_slots() {
    let test = database(&["sharma-mobiles"]).await;
    let mut conn = test.app_pool().acquire().await.unwrap();
    sync(&mut conn, vec![nightly("a"), nightly("b")]).await.unwrap();
    pause(&mut conn, "b", &by()).await.unwrap();
    let listed = list(&mut conn, None, "", 10, india(23, 10, 0)).await.unwrap();
    assert_eq!(listed[0].upcoming, [24, 25, 26, 27, 28].map(|day| india(day, 0, 0)));
    assert_eq!((listed[1].entry.name.as_str(), listed[1].upcoming.len()), ("b", 0));
    assert_eq!(list(&mut conn, None, "a", 10, india(23, 10, 0)).await.unwrap().len(), 1);
    assert_eq!(list(&mut conn, Some("sharma-mobiles"), "", 10, india(23, 10, 0)).await.unwrap().len(), 0);
}
