//! Keys on their way in and out, beside readers and writers, over kills and pauses.

use std::{
    collections::HashMap,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use super::{
    floor::{Floor, read, refusal, seal, text},
    rotate_keys::SPREAD,
    tests::{PHONE, SHARMA},
    *,
};
use crate::evidence::Actor;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_073_ten_kills_during_rotation_lose_and_hide_nothing() {
    const ROWS: usize = 6000;
    let floor = Floor::open().await;
    let ids = Arc::new(floor.fill(ROWS).await);
    let old = read(&floor.house.vault, &mut *floor.house.conn().await, ids[0]).await.0;

    let stop = Arc::new(AtomicBool::new(false));
    let written: Arc<StdMutex<HashMap<Uuid, usize>>> = Arc::default();
    let mut traffic = Vec::new();
    for person in 0..3_usize {
        let (ids, stop, written) = (Arc::clone(&ids), Arc::clone(&stop), Arc::clone(&written));
        let vault = floor.house.another();
        let pool = floor.house.db.app_pool();
        traffic.push(tokio::spawn(async move {
            let mut rounds = 0;
            for at in (0..ROWS).map(|at| (at * 7919 + person * 31) % ROWS).cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                rounds += 1;
                let mut db = pool.acquire().await.expect("a connection");
                let (id, edition) = (ids[at], rounds);
                if person == 0 {
                    // One writer, so that what she wrote last is what must stand there.
                    let sealed = seal(&vault, &mut db, id, edition).await;
                    let rows =
                        sqlx::query("update muneem.invoice_refusals set payload_sealed = $2 where refusal_id = $1")
                            .bind(id)
                            .bind(sealed)
                            .execute(&mut *db)
                            .await
                            .expect("written")
                            .rows_affected();
                    assert_eq!(rows, 1);
                    written.lock().expect("not poisoned").insert(id, edition);
                } else {
                    let (_, text) = read(&vault, &mut db, id).await;
                    assert!(text.starts_with(&id.to_string()), "another row's value: {text}");
                }
                drop(db);
                tokio::task::yield_now().await;
            }
            rounds
        }));
    }

    let new = floor.replace(Replace::Class(Class::Payload)).await;
    assert_eq!(floor.state(new).await.0, "active");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), false));
    let mut killed = 0;
    for step in [0, 1, 2, 1, 3, 0, 2, 5, 1, 4] {
        killed += usize::from(floor.run_until(Reseal {}, step).await.is_none());
    }
    assert_eq!(killed, 10, "each of them was under way");
    floor.reseal().await;
    stop.store(true, Ordering::SeqCst);
    for person in traffic {
        assert!(person.await.expect("no read and no write failed") > 0, "somebody did nothing");
    }

    assert_eq!(floor.walk_state().await, "done");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
    let written = written.lock().expect("not poisoned").clone();
    let mut db = floor.house.conn().await;
    for id in ids.iter() {
        let (key, found) = read(&floor.house.vault, &mut db, *id).await;
        assert_eq!((key, found), (new, text(*id, written.get(id).copied().unwrap_or(0))));
    }
    // Every value was sealed anew once, by the walk or by whoever wrote it.
    let walk = standing(&mut db, None).await.expect("asked").walk.expect("a walk");
    let resealed = usize::try_from(walk.resealed).expect("a count");
    assert!(resealed <= ROWS && resealed + written.len() >= ROWS, "{resealed} and {} of {ROWS}", written.len());
}

#[tokio::test]
async fn atk_073_of_two_rotations_at_once_one_wins_and_the_other_is_told() {
    let floor = Floor::open().await;
    floor.fill(1).await;
    let (first, second) = (floor.house.another(), floor.house.another());
    let prepare = |vault: Vault| {
        let pool = floor.house.db.app_pool();
        async move {
            let mut db = pool.acquire().await.expect("a connection");
            vault.prepare_key(&mut db, SHARMA, Replace::Class(Class::Payload), Actor::Operator).await
        }
    };
    let outcomes = futures_util::future::join(prepare(first), prepare(second)).await;
    let outcomes = [outcomes.0, outcomes.1];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Rotating { .. }))).count(), 1);
    // And as long as its values are sealed anew.
    let ([Ok(Some(key)), _] | [_, Ok(Some(key))]) = outcomes else { panic!("neither won") };
    floor.house.clock.forward(SPREAD);
    floor.until_active(key).await;
    floor.house.clock.forward(SPREAD);
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.walk_state().await, "running");
    let third = prepare(floor.house.another()).await;
    assert!(matches!(third, Err(Error::Rotating { .. })), "{third:?}");
    floor.reseal().await;
    prepare(floor.house.another()).await.expect("asked").expect("now there is one to replace");
    // Nothing sealed of that class: nothing to replace.
    let mut db = floor.house.conn().await;
    let none = floor.house.vault.prepare_key(&mut db, SHARMA, Replace::Class(Class::TaxId), Actor::Operator).await;
    assert_eq!(none.expect("asked"), None);
}

#[tokio::test]
async fn atk_072_a_key_takes_over_when_everybody_has_heard_of_it() {
    let floor = Floor::open().await;
    let ids = floor.fill(1).await;
    let mut db = floor.house.conn().await;
    let old = read(&floor.house.vault, &mut db, ids[0]).await.0;
    let mut tx = db.begin().await.expect("begun");
    let prepared = floor.house.vault.prepare_key(&mut tx, SHARMA, Replace::Class(Class::Payload), Actor::Operator);
    let new = prepared.await.expect("prepared").expect("a key");
    tx.commit().await.expect("committed");
    floor.run(RotateKeys {}).await.expect("too early");
    assert_eq!(floor.state(new).await.0, "pending");
    // A transaction that began before everybody had heard of it may still write as if there were none.
    let mut late = floor.house.db.app_pool().begin().await.expect("begun");
    sqlx::query("select pg_current_xact_id()").execute(&mut *late).await.expect("a number");
    floor.house.clock.forward(SPREAD);
    floor.run(RotateKeys {}).await.expect("somebody is under way");
    assert_eq!(floor.state(new).await.0, "pending");
    late.commit().await.expect("committed");
    floor.until_active(new).await;
    assert_eq!((floor.state(new).await.0, floor.state(old).await.0), ("active".to_owned(), "decrypt_only".to_owned()));
    floor.house.clock.forward(RECHECK);
    assert_eq!(key_of(&seal(&floor.house.vault, &mut db, ids[0], 1).await), Some(new));
}

#[tokio::test]
async fn a_paused_walk_rests_and_goes_on_where_it_was() {
    let floor = Floor::open().await;
    floor.fill(2000).await;
    floor.replace(Replace::Class(Class::Payload)).await;
    // Killed after the first batch that found something.
    while standing(&mut *floor.house.conn().await, None).await.expect("asked").walk.expect("a walk").resealed == 0 {
        assert!(floor.run_until(Reseal {}, 1).await.is_none(), "it ended");
    }
    let mut db = floor.house.conn().await;
    let now = floor.house.clock.now();
    assert!(pause_reseal(&mut db, true, now).await.expect("paused"));
    assert!(!pause_reseal(&mut db, true, now).await.expect("asked"), "it rests already");
    let before = standing(&mut db, None).await.expect("asked").walk.expect("a walk");
    floor.run(Reseal {}).await.expect("nothing to do");
    floor.run(RotateKeys {}).await.expect("nothing to do");
    let after = standing(&mut db, None).await.expect("asked").walk.expect("a walk");
    assert_eq!((before.visited, before.resealed, "paused"), (after.visited, after.resealed, after.state.as_str()));
    assert!((1..2000).contains(&before.resealed), "{before:?}");
    assert!(pause_reseal(&mut db, false, now).await.expect("resumed"));
    floor.reseal().await;
    let done = standing(&mut db, None).await.expect("asked").walk.expect("a walk");
    assert_eq!((done.state.as_str(), done.resealed), ("done", 2000), "no value was sealed anew twice");
}

#[tokio::test]
async fn a_walk_that_is_paused_meanwhile_writes_nothing_more() {
    let floor = Floor::open().await;
    floor.fill(2000).await;
    floor.replace(Replace::Class(Class::Payload)).await;
    let pause = async {
        let mut db = floor.house.conn().await;
        while standing(&mut db, None).await.expect("asked").walk.expect("a walk").resealed == 0 {
            tokio::task::yield_now().await;
        }
        assert!(pause_reseal(&mut db, true, floor.house.clock.now()).await.expect("paused"));
        standing(&mut db, None).await.expect("asked").walk.expect("a walk").resealed
    };
    let (outcome, resealed) = futures_util::future::join(floor.run(Reseal {}), pause).await;
    outcome.expect("it rests");
    let walk = standing(&mut *floor.house.conn().await, None).await.expect("asked").walk.expect("a walk");
    assert_eq!((walk.state.as_str(), walk.resealed), ("paused", resealed));
}

#[tokio::test]
async fn what_does_not_open_is_set_aside_and_keeps_its_key() {
    let floor = Floor::open().await;
    let ids = floor.fill(20).await;
    let mut db = floor.house.conn().await;
    let old = read(&floor.house.vault, &mut db, ids[0]).await.0;
    // One bit of the text, another row's value, and something that was never sealed.
    floor
        .house
        .execute(
            "update muneem.invoice_refusals
            set payload_sealed = case refusal_id
                when '00000000-0000-0000-0000-000000000003' then set_byte(payload_sealed, 20, 255 - get_byte(payload_sealed, 20))
                when '00000000-0000-0000-0000-000000000004' then '\\x2b393139383736353433323130'::bytea
                else payload_sealed end",
        )
        .await;
    let new = floor.replace(Replace::Class(Class::Payload)).await;
    floor.reseal().await;
    assert_eq!(floor.walk_state().await, "incomplete");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), false), "what it sealed may yet be mended");
    let now = standing(&mut db, None).await.expect("asked");
    let shown: Vec<_> = now.quarantine.iter().map(|bad| (bad.row_key.as_str(), bad.why.as_str(), bad.key_id)).collect();
    assert_eq!(
        shown,
        [
            ("00000000-0000-0000-0000-000000000003", "tag", Some(i64::from(old))),
            ("00000000-0000-0000-0000-000000000004", "version", None)
        ]
    );
    assert_eq!(now.quarantined, 2);
    let keys = list_keys(&mut db, Some(SHARMA)).await.expect("listed");
    let key = keys.iter().find(|key| key.key_id == i64::from(old)).expect("listed");
    let because = key.waits_for(&now, floor.house.vault.backup_horizon()).expect("a reason");
    assert_eq!(because, "1 values that do not open name it: see `muneem keys status`");
    for id in ids.iter().filter(|id| !shown.iter().any(|(row, ..)| *row == id.to_string())) {
        assert_eq!(read(&floor.house.vault, &mut db, *id).await.0, new);
    }
    // However long nobody mends it.
    floor.house.clock.forward(TimeDelta::days(100));
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await.0, "decrypt_only");
    // Mended, here by deletion: the next walk ends well.
    floor
        .house
        .execute(
            "delete from muneem.invoice_refusals where refusal_id in
            ('00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000004')",
        )
        .await;
    floor.house.clock.forward(TimeDelta::days(1));
    floor.run(RotateKeys {}).await.expect("another walk");
    floor.reseal().await;
    assert_eq!((floor.walk_state().await.as_str(), floor.state(old).await.1), ("done", true));
    assert_eq!(standing(&mut db, None).await.expect("asked").quarantined, 0);
}

#[tokio::test]
async fn a_key_is_retired_when_nothing_and_no_backup_refers_to_it() {
    let floor = Floor::open().await;
    let ids = floor.fill(3).await;
    let mut db = floor.house.conn().await;
    let old = read(&floor.house.vault, &mut db, ids[0]).await.0;
    // Somebody holds a value that she will write much too late.
    let late = seal(&floor.house.vault, &mut db, ids[0], 9).await;
    assert_eq!(key_of(&late), Some(old));
    floor.replace(Replace::Class(Class::Payload)).await;
    floor.reseal().await;
    let horizon = floor.house.vault.backup_horizon();
    floor.house.clock.forward(horizon - TimeDelta::seconds(1));
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
    let keys = list_keys(&mut db, Some(SHARMA)).await.expect("listed");
    let now = standing(&mut db, None).await.expect("asked");
    let because = keys.iter().find(|key| key.key_id == i64::from(old)).expect("listed").waits_for(&now, horizon);
    assert_eq!(because.as_deref(), Some("nothing refers to it; backups may until 2026-12-26"));
    sqlx::query("update muneem.invoice_refusals set payload_sealed = $2 where refusal_id = $1")
        .bind(ids[0])
        .bind(&late)
        .execute(&mut *db)
        .await
        .expect("written");
    floor.house.clock.forward(TimeDelta::seconds(1));
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), false), "it is used");
    floor.house.clock.forward(TimeDelta::days(1));
    floor.run(RotateKeys {}).await.expect("another walk");
    floor.reseal().await;
    floor.house.clock.forward(horizon);
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await, ("retired".to_owned(), true));
    assert_eq!(read(&floor.house.another(), &mut db, ids[0]).await.1, text(ids[0], 9));
    let cell = ids[0].to_string();
    let error = floor.house.another().open(&mut db, &refusal(&cell), &late).await.expect_err("retired");
    assert!(matches!(error, Error::Unreadable { why: Unreadable::Key, .. }));
    let told: Vec<Vec<u8>> = sqlx::query_scalar("select body from muneem.evidence_events")
        .fetch_all(&mut *floor.house.db.pool().acquire().await.expect("a connection"))
        .await
        .expect("events");
    for verb in ["vault.key_made", "vault.key_prepared", "vault.key_activated", "vault.key_retired"] {
        assert!(told.iter().any(|body| String::from_utf8_lossy(body).contains(verb)), "{verb} is not on record");
    }
}

#[tokio::test]
async fn a_businesss_own_key_is_replaced_without_touching_a_value() {
    let floor = Floor::open().await;
    let ids = floor.fill(3).await;
    let mut db = floor.house.conn().await;
    let asha = Uuid::from_u128(0xa54a);
    let row = ids[0].to_string();
    let hers = floor.house.vault.seal_for(&mut db, asha, &refusal(&row), PHONE).await.expect("sealed");
    let own = |state: &'static str| {
        let pool = floor.house.db.pool();
        async move {
            let query =
                "select key_id from muneem.vault_keys where class = 'business' and state = $1 and business_id = $2";
            let key: i64 = sqlx::query_scalar(query).bind(state).bind(SHARMA.0).fetch_one(&pool).await.expect("a key");
            u32::try_from(key).expect("a number")
        }
    };
    let old = own("active").await;
    let new = floor.replace(Replace::Business).await;
    assert_eq!((own("active").await, own("decrypt_only").await), (new, old));
    assert!(floor.state(old).await.1, "nothing is wrapped by it any more");
    for vault in [&floor.house.vault, &floor.house.another()] {
        assert_eq!(read(vault, &mut db, ids[1]).await.1, text(ids[1], 0));
        assert_eq!(vault.open(&mut db, &refusal(&row), &hers).await.expect("opened").as_slice(), PHONE);
    }
    floor.house.clock.forward(floor.house.vault.backup_horizon());
    floor.run(RotateKeys {}).await.expect("one step");
    assert_eq!(floor.state(old).await.0, "retired");
    assert_eq!(read(&floor.house.another(), &mut db, ids[1]).await.1, text(ids[1], 0));
}

#[tokio::test]
async fn atk_079_half_way_through_a_change_of_index_keys_equal_values_are_found_and_refused() {
    use crate::{
        outbound::Phone,
        people::{Authority, Decision, Enrolment, Error as PeopleError, Role, enrol_staff, find_staff_by_phone},
    };
    let floor = Floor::open().await;
    let mut db = floor.house.conn().await;
    let operator = Authority::operator();
    let by = Decision { by: &operator, now: floor.house.clock.now(), chance: &super::tests::Drawn };
    let person = |phone: &str| Enrolment {
        business_id: Some(SHARMA),
        name: "Asha".to_owned(),
        language: "hi".to_owned(),
        phone: Some(Phone::parse(phone).expect("a phone")),
        email: None,
        roles: vec![Role::Owner],
    };
    let (asha, bina) = (person("+919876543210"), person("+919876543211"));
    enrol_staff(&mut db, &floor.house.vault, &asha, &by).await.expect("enrolled under the old key");
    let index = Replace::Index("muneem.people_staff.phone_index");
    let prepared = floor.house.vault.prepare_key(&mut db, INSTALLATION, index, Actor::Operator).await;
    let key = prepared.expect("prepared").expect("there is one");
    floor.house.clock.forward(SPREAD);
    floor.until_active(key).await;
    floor.house.clock.forward(SPREAD);
    enrol_staff(&mut db, &floor.house.vault, &bina, &by).await.expect("enrolled under the new key");
    let versions =
        "select string_agg(phone_index_version::text, ' ' order by phone_index_version) from muneem.people_staff";
    let version = || async {
        sqlx::query_scalar::<_, String>(versions).fetch_one(&floor.house.db.pool()).await.expect("versions")
    };
    assert_eq!(version().await, "1 2", "half-way");
    for _ in 0..2 {
        for known in [&asha, &bina] {
            let phone = known.phone.as_ref().expect("she has one");
            let found = find_staff_by_phone(&mut db, &floor.house.another(), phone).await.expect("asked");
            assert_eq!(found.len(), 1);
            let again = enrol_staff(&mut db, &floor.house.vault, known, &by).await;
            assert!(matches!(again, Err(PeopleError::ContactTaken)), "{again:?}");
            // What was refused is rolled back when the connection is next used; until then the walk waits for it.
            db.ping().await.expect("rolled back");
        }
        floor.run(RotateKeys {}).await.expect("one step");
        floor.reseal().await;
    }
    assert_eq!(version().await, "2 2", "and at its end");
    // While there are two keys, whoever writes an equal value waits for whoever did before her.
    let carol = person("+919876543212");
    let late = floor.house.another();
    let mut first = PgConnection::connect(&floor.house.db.app_url()).await.expect("a connection");
    let mut tx = first.begin().await.expect("begun");
    enrol_staff(&mut tx, &floor.house.vault, &carol, &by).await.expect("enrolled, not committed");
    let second = enrol_staff(&mut db, &late, &carol, &by);
    let (second, ()) = futures_util::future::join(second, async { tx.commit().await.expect("committed") }).await;
    assert!(matches!(second, Err(PeopleError::ContactTaken)), "{second:?}");
}

#[tokio::test]
async fn a_key_that_wears_out_is_replaced_before_its_day() {
    let floor = Floor::open().await;
    let ids = floor.fill(3).await;
    let mut db = floor.house.conn().await;
    let old = read(&floor.house.vault, &mut db, ids[0]).await.0;
    floor.house.clock.forward(TimeDelta::days(89));
    floor.run(RotateKeys {}).await.expect("one step");
    let new: i64 = sqlx::query_scalar("select key_id from muneem.vault_keys where state = 'pending'")
        .fetch_one(&floor.house.db.pool())
        .await
        .expect("it is to be replaced");
    floor.house.clock.forward(SPREAD);
    floor.until_active(u32::try_from(new).expect("a number")).await;
    floor.house.clock.forward(SPREAD);
    floor.run(RotateKeys {}).await.expect("one step");
    floor.reseal().await;
    assert_eq!(floor.state(old).await, ("decrypt_only".to_owned(), true));
    assert_ne!(read(&floor.house.vault, &mut db, ids[0]).await.0, old);
}

#[test]
fn statements_on_tables_of_ours_are_the_ones_under_review() {
    let sealed = crate::sealed_columns();
    let indexed = crate::indexed_columns();
    let mut shown = Vec::new();
    for name in ["muneem.messaging_webhooks", "muneem.invoice_refusals"] {
        let sealed = sealed.iter().find(|sealed| sealed.table == name).expect("listed");
        shown.push(walk::statements(&walk::Place::of_sealed(sealed)));
    }
    for name in ["muneem.people_staff", "muneem.invoice_invoices", "muneem.messaging_attempts"] {
        let indexed = indexed.iter().find(|indexed| indexed.table == name).expect("listed");
        shown.push(walk::statements(&walk::Place::of_indexed(indexed, &sealed)));
    }
    insta::assert_snapshot!(shown.join("\n\n----\n\n"));
}
