use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use muneem_postgres::testing::TestDb;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::*;
use crate::outbound::{Anchor, MemoryAnchor};

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_764_000_000, 0).expect("an instant")
}

fn sealer(anchor: &Arc<MemoryAnchor>, name: &str) -> Sealer {
    let anchors: Vec<Arc<dyn Anchor>> = vec![Arc::clone(anchor) as Arc<dyn Anchor>];
    Sealer::new(note::Signer25519::new(&[9; 32]), anchors, name.to_owned())
}

pub(super) async fn write(db: &mut PgConnection, business: Option<BusinessId>, numbers: std::ops::Range<u32>) {
    let events: Vec<_> = numbers
        .map(|number| Event {
            event_id: EventId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + u128::from(number))),
            business_id: business,
            actor: Actor::System,
            verb: words::PROBED,
            object: Object { kind: "test", id: "one" },
            details: json!({ "number": number }),
        })
        .collect();
    record_many(db, &events).await.expect("recorded");
}

/// Turns until the log has `size`: other tests of the same server hold transactions open, and the line waits for them.
pub(super) async fn seal_up_to(sealer: &mut Sealer, db: &mut PgConnection, size: u64, now: DateTime<Utc>) {
    let patience = std::time::Instant::now();
    while load_standing(db).await.expect("asked").size < size {
        sealer.turn(db, now).await.expect("sealed");
        assert!(patience.elapsed().as_secs() < 60, "nothing is sealed");
        tokio::task::yield_now().await;
    }
}

/// Turns until every anchor has a head over `size`; the instant by then.
pub(super) async fn lay_down(
    sealer: &mut Sealer,
    db: &mut PgConnection,
    size: u64,
    from: DateTime<Utc>,
) -> DateTime<Utc> {
    let (patience, mut at) = (std::time::Instant::now(), from);
    loop {
        sealer.turn(db, at).await.expect("sealed");
        sealer.settle().await;
        if sealer.anchor_states().iter().all(|state| state.laid_size == Some(size)) {
            return at;
        }
        at += Duration::seconds(11);
        assert!(patience.elapsed().as_secs() < 60, "{:#?}", sealer.anchor_states());
    }
}

#[tokio::test]
async fn events_are_numbered_chained_signed_and_anchored() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let business = BusinessId(Uuid::from_u128(7));
    write(&mut db, None, 0..3).await;
    write(&mut db, Some(business), 3..8).await;
    let anchor = Arc::new(MemoryAnchor::default());
    let mut sealer = sealer(&anchor, "one");
    let at = lay_down(&mut sealer, &mut db, 8, noon()).await;
    write(&mut db, Some(business), 8..10).await;
    let at = lay_down(&mut sealer, &mut db, 10, at).await;
    let head = list_heads(&mut db, None, 1).await.expect("listed").remove(0);
    assert_eq!(head.size, 10);
    let all = list_sealed(&mut db, None, 0, 100).await.expect("listed");
    let hashes: Vec<_> = all.iter().map(|sealed| sealed.leaf.hash()).collect();
    for (sealed, hash) in all.iter().zip(&hashes) {
        assert_eq!(sealed.hash, *hash, "the database and this side hash alike");
        let body = sealed.body.as_deref().expect("kept");
        assert_eq!(sealed.leaf.body_sha256, <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(body)));
    }
    assert_eq!(tree::root(&hashes), head.root);
    let own: Vec<_> = list_sealed(&mut db, Some(business), 0, 100).await.expect("listed");
    assert_eq!(own.iter().map(|sealed| sealed.leaf.business_seq).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    let mut previous = [0; 32];
    for sealed in &own {
        assert_eq!(sealed.leaf.previous, previous);
        previous = sealed.hash;
    }
    let (size, note) = anchor.notes().pop().expect("anchored");
    assert_eq!((size, &note), (10, &head.note));
    let opened = note::Signer25519::new(&[9; 32]).verifier().open(&note).expect("signed");
    assert_eq!((opened.size, opened.root), (10, head.root));
    // Nothing new: an hour later it says that it lives.
    let quiet = sealer.turn(&mut db, at + Duration::seconds(40)).await.expect("ok");
    assert_eq!(quiet, Turn::Sealed { events: 0, signed: None, failing: vec![] });
    let hourly = sealer.turn(&mut db, at + Duration::hours(2)).await.expect("ok");
    assert!(matches!(hourly, Turn::Sealed { signed: Some(_), .. }));
}

#[tokio::test]
async fn atk_082_of_two_sealers_one_leads_and_a_late_one_writes_nothing() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let anchor = Arc::new(MemoryAnchor::default());
    let (mut one, mut two) = (sealer(&anchor, "one"), sealer(&anchor, "two"));
    write(&mut db, None, 0..5).await;
    seal_up_to(&mut one, &mut db, 5, noon()).await;
    assert_eq!(two.turn(&mut db, noon()).await.expect("ok"), Turn::Following);
    // The first one is killed between numbering and signing; its lease runs out.
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(&test.pool()).await.expect("out");
    write(&mut db, None, 5..7).await;
    seal_up_to(&mut two, &mut db, 7, noon() + Duration::seconds(11)).await;
    // It was only slow: it still believes to lead, and its number is refused.
    let late = one.turn(&mut db, noon() + Duration::seconds(5)).await;
    assert!(matches!(late, Err(Error::LostLead)), "{late:?}");
    // A clock an hour back changes neither order nor head.
    two.turn(&mut db, noon() - Duration::hours(1)).await.expect("ok");
    let all = list_sealed(&mut db, None, 0, 100).await.expect("listed");
    assert_eq!(all.iter().map(|sealed| sealed.seq).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    let hashes: Vec<_> = all.iter().map(|sealed| sealed.leaf.hash()).collect();
    let signer = note::Signer25519::new(&[9; 32]);
    for (size, note) in anchor.notes() {
        let head = signer.verifier().open(&note).expect("signed");
        assert_eq!(head.root, tree::root(&hashes[..usize::try_from(size).expect("small")]), "no fork");
    }
}

#[tokio::test]
async fn no_event_can_appear_behind_the_seal_line() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let (mut slow, mut db) =
        (test.app_pool().begin().await.expect("begun"), test.app_pool().acquire().await.expect("a connection"));
    write(&mut slow, None, 0..1).await;
    write(&mut db, None, 1..2).await;
    let anchor = Arc::new(MemoryAnchor::default());
    let mut sealer = sealer(&anchor, "one");
    for _ in 0..5 {
        sealer.turn(&mut db, noon()).await.expect("ok");
    }
    let waiting = load_standing(&mut db).await.expect("asked");
    assert_eq!(waiting.size, 0, "an older writer may still commit");
    assert!(waiting.unsealed_since.is_some());
    slow.commit().await.expect("committed");
    seal_up_to(&mut sealer, &mut db, 2, noon()).await;
    let first = list_sealed(&mut db, None, 0, 1).await.expect("listed").remove(0);
    assert_eq!(first.leaf.event_id.as_u128() & 0xff, 0, "in the order of transactions");
}

#[tokio::test]
async fn atk_075_a_restored_log_is_not_forked() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let anchor = Arc::new(MemoryAnchor::default());
    write(&mut db, None, 0..4).await;
    let mut before = sealer(&anchor, "before");
    lay_down(&mut before, &mut db, 4, noon()).await;
    // Another database with the same beginning and another end: what a restore of yesterday looks like.
    let restored = TestDb::new(&crate::MIGRATOR).await;
    let mut db = restored.app_pool().acquire().await.expect("a connection");
    write(&mut db, None, 100..102).await;
    let mut after = sealer(&anchor, "after");
    let patience = std::time::Instant::now();
    let found = loop {
        match after.turn(&mut db, noon() + Duration::hours(3)).await {
            Err(error) => break error,
            Ok(_) => assert!(patience.elapsed().as_secs() < 60, "a fork was not noticed"),
        }
    };
    assert!(matches!(found, Error::Forked(_)), "{found:?}");
    let signed: i64 = sqlx::query_scalar("select count(*) from muneem.evidence_checkpoints")
        .fetch_one(&restored.pool())
        .await
        .expect("counted");
    assert_eq!(signed, 0, "nothing was signed");
    assert!(load_standing(&mut db).await.expect("asked").forked.is_some());
    // It does not heal: neither with time nor in another process, nor when the log has outgrown the anchored one.
    write(&mut db, None, 102..120).await;
    let mut another = sealer(&anchor, "another");
    assert!(matches!(another.turn(&mut db, noon() + Duration::days(1)).await, Err(Error::Forked(_))));
    assert_eq!(anchor.notes().iter().map(|(size, _)| *size).max(), Some(4));
}

#[tokio::test]
async fn a_batch_costs_what_it_holds_though_nobody_analyzed_the_log() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let anchor = Arc::new(MemoryAnchor::default());
    let mut sealer = sealer(&anchor, "one");
    let mut db = test.pool().acquire().await.expect("a connection");
    write(&mut db, None, 0..1000).await;
    seal_up_to(&mut sealer, &mut db, 1000, noon()).await;
    for thousand in 1..30 {
        write(&mut db, None, thousand * 1000..thousand * 1000 + 1000).await;
    }
    let fence: i64 =
        sqlx::query_scalar("select fence from muneem.evidence_head").fetch_one(&mut *db).await.expect("one");
    // What this session read of the events so far, whole and by an index.
    let read = async |db: &mut PgConnection| -> (i64, i64) {
        sqlx::query_as(
            "select sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint
             from pg_stat_xact_all_tables
             where schemaname = 'muneem' and relname like 'evidence\\_events%'",
        )
        .fetch_one(db)
        .await
        .expect("counted")
    };
    let mut tx = sqlx::Connection::begin(&mut *db).await.expect("begun");
    let patience = std::time::Instant::now();
    let (whole, by_index) = loop {
        let before = read(&mut tx).await;
        let sealed: i32 = sqlx::query_scalar("select muneem.evidence_seal($1, 4096)")
            .bind(fence)
            .fetch_one(&mut *tx)
            .await
            .expect("sealed");
        let after = read(&mut tx).await;
        if sealed == 4096 {
            break (after.0 - before.0, after.1 - before.1);
        }
        assert!(patience.elapsed().as_secs() < 60, "other tests of this server hold the line");
        tokio::task::yield_now().await;
    };
    assert_eq!(whole, 0, "no table is read whole");
    assert!(by_index <= 8192, "{by_index} rows for a batch of 4096");
}
