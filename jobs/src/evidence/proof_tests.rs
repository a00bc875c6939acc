//! Starts, proofs, failing anchors and retirement, over a real database.

use std::{future::Future, pin::Pin, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use muneem_postgres::testing::TestDb;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    sealer_tests::{lay_down, seal_up_to, write},
    *,
};
use crate::{
    Deps, messaging,
    outbound::{
        Anchor, Carrier, Chance, Clock, MemoryAnchor,
        carrier::{Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
        mailer::KeptMail,
        object_store::MemoryObjects,
    },
    queue::{
        self, Done, Job, JobContext, Named, Steps,
        work::{self, Want},
    },
    vault::Vault,
};

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_764_000_000, 0).expect("an instant")
}

fn sealer(anchors: &[&Arc<MemoryAnchor>], name: &str) -> Sealer {
    let anchors = anchors.iter().map(|anchor| Arc::clone(anchor) as Arc<dyn Anchor>).collect();
    Sealer::new(note::Signer25519::new(&[9; 32]), anchors, name.to_owned())
}

/// A superuser at work: no trigger stops it.
async fn bend(test: &TestDb, sql: &str) {
    let mut owner = test.pool().acquire().await.expect("a connection");
    for statement in ["set session_replication_role = replica", sql, "set session_replication_role = origin"] {
        owner.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Writes and seals a log of `size`, and signs it.
async fn log_of(test: &TestDb, size: u32) -> Sealer {
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let business = BusinessId(Uuid::from_u128(7));
    for from in (0..size).step_by(500) {
        write(&mut db, (from / 500 % 2 == 0).then_some(business), from..size.min(from + 500)).await;
    }
    let mut sealer = sealer(&[], "one");
    seal_up_to(&mut sealer, &mut db, size.into(), noon()).await;
    sealer.turn(&mut db, noon() + Duration::seconds(11)).await.expect("signed");
    sealer
}

#[tokio::test]
async fn single_events_are_proven_from_a_few_stored_roots() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    log_of(&test, 1300).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let head = list_heads(&mut db, None, 1).await.expect("listed").remove(0);
    assert_eq!(head.size, 1300);
    let all = list_sealed(&mut db, None, 0, 2000).await.expect("listed");
    for seq in [0, 255, 256, 700, 1023, 1024, 1299] {
        let sealed = &all[seq];
        let id = EventId(sealed.leaf.event_id);
        let found = find_sealed(&mut db, None, id).await.expect("asked").expect("there");
        assert_eq!(&found, sealed);
        let proof = prove_inclusion(&mut db, sealed).await.expect("proven").expect("covered");
        assert_eq!(proof.head, head);
        let index = u64::try_from(seq).expect("small");
        assert!(tree::verify_inclusion(sealed.leaf.hash(), index, 1300, &proof.path, &head.root));
        let other = BusinessId(Uuid::from_u128(8));
        assert_eq!(find_sealed(&mut db, Some(other), id).await.expect("asked"), None, "another business");
    }
    let business = Some(BusinessId(Uuid::from_u128(7)));
    let newest = list_newest(&mut db, business, None, 3).await.expect("listed");
    let numbers: Vec<_> = newest.iter().map(|sealed| sealed.leaf.business_seq).collect();
    assert_eq!(numbers, [800, 799, 798]);
    let before = list_newest(&mut db, business, Some(798), 1).await.expect("listed");
    assert_eq!(before[0].leaf.business_seq, 797);
    // A leaf beside the path was bent, and a stored root: what comes out no longer leads to the signed head.
    for sql in [
        "update muneem.evidence_leaves set leaf = sha256(leaf) where seq = 701",
        "update muneem.evidence_nodes set hash = sha256(hash) where place = 1",
    ] {
        bend(&test, sql).await;
        let error = prove_inclusion(&mut db, &all[700]).await.expect_err(sql);
        assert!(matches!(error, Error::Unproven(_)), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_log_is_proven_to_have_only_grown_between_two_heads() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut sealer = log_of(&test, 300).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    write(&mut db, None, 300..900).await;
    seal_up_to(&mut sealer, &mut db, 900, noon() + Duration::seconds(12)).await;
    sealer.turn(&mut db, noon() + Duration::seconds(40)).await.expect("signed");
    let heads = list_heads(&mut db, None, 10).await.expect("listed");
    let root = |size| heads.iter().find(|head| head.size == size).expect("signed").root;
    let path = prove_growth(&mut db, 300, 900).await.expect("proven").expect("two heads");
    assert!(tree::verify_consistency(300, &root(300), 900, &root(900), &path));
    assert_eq!(prove_growth(&mut db, 900, 900).await.expect("proven"), Some(vec![]));
    for (old, new) in [(0, 900), (900, 300), (299, 900), (300, 901)] {
        assert_eq!(prove_growth(&mut db, old, new).await.expect("asked"), None, "{old} to {new}");
    }
}

#[tokio::test]
async fn a_start_goes_on_from_stored_roots_and_notices_bent_ones() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    log_of(&test, 1300).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(&test.pool()).await.expect("out");
    // Another process: it reads five stored roots and twenty leaves, and signs the same log.
    let mut second = sealer(&[], "two");
    let turn = second.turn(&mut db, noon() + Duration::hours(2)).await.expect("signed");
    let Turn::Sealed { signed: Some(head), .. } = turn else { panic!("{turn:?}") };
    let hashes: Vec<_> =
        list_sealed(&mut db, None, 0, 2000).await.expect("listed").iter().map(|sealed| sealed.hash).collect();
    assert_eq!((head.size, head.root), (1300, tree::root(&hashes)));
    let nodes: i64 =
        sqlx::query_scalar("select count(*) from muneem.evidence_nodes").fetch_one(&mut *db).await.expect("ok");
    assert_eq!(nodes, 5);
    // A stored root that is gone is computed anew; one that was bent leads nowhere.
    bend(&test, "delete from muneem.evidence_nodes where place = 2").await;
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(&test.pool()).await.expect("out");
    let turn = sealer(&[], "three").turn(&mut db, noon() + Duration::hours(4)).await.expect("signed");
    assert!(matches!(turn, Turn::Sealed { signed: Some(_), .. }), "{turn:?}");
    bend(&test, "update muneem.evidence_nodes set hash = sha256(hash) where place = 2").await;
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(&test.pool()).await.expect("out");
    let error = sealer(&[], "four").turn(&mut db, noon() + Duration::hours(6)).await.expect_err("bent");
    assert!(matches!(error, Error::Forked(_)), "{error}");
}

#[tokio::test]
async fn a_failing_anchor_is_told_of_and_stops_neither_numbering_nor_signing() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let anchor = Arc::new(MemoryAnchor::default());
    let mut one = sealer(&[&anchor], "one");
    write(&mut db, None, 0..3).await;
    let mut at = lay_down(&mut one, &mut db, 3, noon()).await;
    anchor.fail(true);
    write(&mut db, None, 3..5).await;
    // Events get their numbers and heads are signed all the same.
    while list_heads(&mut db, None, 1).await.expect("listed")[0].size < 5 {
        one.turn(&mut db, at).await.expect("a failing anchor is no error");
        at += Duration::seconds(11);
    }
    one.turn(&mut db, at).await.expect("asked");
    one.settle().await;
    let turn = one.turn(&mut db, at).await.expect("ok");
    let Turn::Sealed { failing, .. } = turn else { panic!("{turn:?}") };
    assert_eq!(failing, ["anchor `memory`: the memory is closed: by the test"]);
    let first = one.anchor_states().remove(0);
    assert!(first.failing_since.is_some() && first.failures > 0 && first.laid_size == Some(3), "{first:?}");
    let written = list_anchor_states(&mut db).await.expect("listed");
    assert_eq!(written, std::slice::from_ref(&first), "it is written down");
    // It is not asked again before its time, and the pause doubles.
    let again = first.retry_at.expect("an instant");
    for (now, failures) in [(again - Duration::seconds(1), first.failures), (again, first.failures + 1)] {
        one.turn(&mut db, now).await.expect("ok");
        one.settle().await;
        one.turn(&mut db, now).await.expect("ok");
        assert_eq!(one.anchor_states()[0].failures, failures, "at {now}");
    }
    let second = one.anchor_states()[0].retry_at.expect("an instant");
    assert_eq!(second - again, Duration::seconds(10 * (1 << first.failures)));
    // It mends: the head that waited goes there.
    anchor.fail(false);
    lay_down(&mut one, &mut db, 5, second).await;
    let mended = one.anchor_states().remove(0);
    assert_eq!((mended.failing_since, mended.failures, mended.problem), (None, 0, None));
    // A start while it is silent: events get their numbers, and nobody vouches for what nobody remembers.
    anchor.fail(true);
    sqlx::query("update muneem.evidence_head set leased_until = '-infinity'").execute(&test.pool()).await.expect("out");
    let mut two = sealer(&[&anchor], "two");
    write(&mut db, None, 5..7).await;
    seal_up_to(&mut two, &mut db, 7, noon() + Duration::hours(3)).await;
    two.settle().await;
    let turn = two.turn(&mut db, noon() + Duration::hours(3)).await.expect("ok");
    assert!(matches!(turn, Turn::Sealed { signed: None, .. }), "{turn:?}");
}

/// Nobody listens to the steps.
struct Unheard;

impl Steps for Unheard {
    fn reached<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

struct NoCarrier;

#[async_trait::async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        unreachable!("nothing is sent here")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        unreachable!("nothing is sent here")
    }
}

struct Fixed(DateTime<Utc>);

impl Clock for Fixed {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

struct Counting(std::sync::atomic::AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes();
        bytes.iter_mut().zip(count.iter().rev().cycle()).for_each(|(byte, drawn)| *byte = *drawn);
    }
}

/// Runs a job of the house at `now`: claims it as a worker does, so that its lease counts.
async fn run<J: Job>(test: &TestDb, job: &J, now: DateTime<Utc>) -> Result<Option<serde_json::Value>, J::Error> {
    let mut owner = test.pool().acquire().await.expect("a connection");
    queue::sync_kinds(&mut owner, &crate::kinds()).await.expect("kinds");
    let clock: Arc<dyn Clock> = Arc::new(Fixed(now));
    let chance: Arc<dyn Chance> = Arc::new(Counting(7.into()));
    let business = match crate::people::load_business(&mut owner, "sharma-mobiles").await {
        Ok(business) => business,
        Err(_) => {
            // By hand: adding a business leaves evidence of its own, which these tests would have to count.
            sqlx::query(
                "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
                 values (gen_random_uuid(), 'sharma-mobiles', 'Sharma', $1)",
            )
            .bind(now)
            .execute(&mut *owner)
            .await
            .expect("made");
            crate::people::load_business(&mut owner, "sharma-mobiles").await.expect("there")
        }
    };
    let payload = serde_json::to_value(job).expect("a payload");
    let named = Named {
        kind: J::KIND,
        payload: &payload,
        business: Some("sharma-mobiles"),
        key: None,
        run_at: None,
        lane: None,
        priority: None,
    };
    let vault = Vault::with_root(&test.app_pool(), &[7; 32].into(), Arc::clone(&clock), Arc::clone(&chance));
    let id = queue::enqueue_own(&mut owner, &vault, &named).await.expect("enqueued");
    let worker = work::join(&mut owner, "test", std::time::Duration::from_secs(600), 1).await.expect("a worker");
    let want = Want { lane: J::LANE, jobs: 1, after: Uuid::nil() };
    let claimed = work::claim(&mut owner, worker, &[want]).await.expect("a claim").pop().expect("the job");
    assert_eq!(claimed.job, id);
    let deps = Deps {
        db: test.app_pool(),
        clock,
        chance,
        objects: Arc::new(MemoryObjects::default()),
        carrier: Arc::new(NoCarrier),
        mailer: Arc::new(KeptMail::default()),
        vault: Arc::new(vault),
        messaging: messaging::Settings::DEFAULT,
        webhooks: crate::webhooks::Sending::nowhere(),
    };
    let context = JobContext {
        deps: Arc::new(deps),
        job: claimed.job,
        attempt: claimed.attempt,
        worker,
        business: business.business_id,
        cancelled: CancellationToken::new(),
        steps: Arc::new(Unheard),
    };
    let payload = claimed.open(&mut owner, &context.deps.vault).await.expect("it opens");
    let job: J = serde_json::from_str(&payload).expect("its own payload");
    let done = job.run(&context).await?;
    Ok(match done {
        Done::Ack(result) => result,
        Done::Acked => None,
    })
}

/// Moves the clock of the database.
async fn move_clock(db: &mut PgConnection, by: &str) {
    sqlx::query("update muneem.law_clock set moved_by = $1::text::interval").bind(by).execute(db).await.expect("moved");
}

#[tokio::test]
async fn bodies_go_month_by_month_after_the_time_of_every_law_and_proofs_stay() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut sealer = log_of(&test, 20).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let bodies = async |db: &mut PgConnection| {
        let all = list_sealed(db, None, 0, 100).await.expect("listed");
        all.iter().filter(|sealed| sealed.body.is_some()).count()
    };
    // Not a day early.
    move_clock(&mut owner, "11 months").await;
    run(&test, &MakeMonths {}, noon()).await.expect("made");
    run(&test, &RetireBodies {}, noon()).await.expect("nothing to retire");
    assert_eq!(bodies(&mut db).await, 20);
    move_clock(&mut owner, "14 months").await;
    run(&test, &MakeMonths {}, noon()).await.expect("made");
    run(&test, &RetireBodies {}, noon()).await.expect("retired");
    assert_eq!(bodies(&mut db).await, 0);
    // What was let go is on record, and the rest still proves itself.
    seal_up_to(&mut sealer, &mut db, 22, noon() + Duration::seconds(20)).await;
    sealer.turn(&mut db, noon() + Duration::seconds(40)).await.expect("signed");
    let all = list_sealed(&mut db, None, 0, 100).await.expect("listed");
    let verb = words::BODIES_RETIRED.as_str();
    assert!(String::from_utf8_lossy(all[20].body.as_deref().expect("kept")).contains(verb));
    let said = bundle::retired_before(all[20].body.as_deref().expect("the record is kept")).expect("says until when");
    assert!(all[..20].iter().all(|sealed| sealed.leaf.at < said));
    // A business has it on its own record as well.
    let sharma = crate::people::load_business(&mut db, "sharma-mobiles").await.expect("made").business_id;
    let own = list_newest(&mut db, Some(sharma), None, 1).await.expect("listed").remove(0);
    assert_eq!(bundle::retired_before(own.body.as_deref().expect("kept")), Some(said));
    prove_inclusion(&mut db, &all[3]).await.expect("proven").expect("covered");
    let checked = run(&test, &CheckLog {}, noon()).await.expect("the log holds").expect("a result");
    assert_eq!((&checked["checked"], &checked["retired"]), (&json!(22), &json!(20)));
}

#[tokio::test]
async fn atk_081_the_nightly_check_finds_what_a_superuser_bent() {
    let ways = [
        (
            "update muneem.evidence_events set body = '{}' where event_id = (select event_id from muneem.evidence_leaves where seq = 3)",
            "event 3 has a body that was changed",
        ),
        (
            "delete from muneem.evidence_events where event_id = (select event_id from muneem.evidence_leaves where seq = 4)",
            "event 4 has no body",
        ),
        (
            "update muneem.evidence_leaves set at = at - interval '1 day' where seq = 5",
            "event 5 is not what was sealed",
        ),
        ("delete from muneem.evidence_leaves where seq = 6", "event 6 is missing"),
        ("update muneem.evidence_nodes set hash = sha256(hash)", "stored root"),
    ];
    for (sql, wrong) in ways {
        let test = TestDb::new(&crate::MIGRATOR).await;
        let mut sealer = log_of(&test, 300).await;
        let sound = run(&test, &CheckLog {}, noon()).await.expect("sound").expect("a result");
        assert_eq!(sound["checked"], 300);
        bend(&test, sql).await;
        let error = run(&test, &CheckLog {}, noon()).await.expect_err(sql);
        assert!(error.to_string().contains(wrong), "{sql}: {error}");
        let mut db = test.app_pool().acquire().await.expect("a connection");
        assert!(load_standing(&mut db).await.expect("asked").forked.is_some_and(|found| found.contains(wrong)));
        let refused = sealer.turn(&mut db, noon() + Duration::hours(5)).await;
        assert!(matches!(refused, Err(Error::Forked(_))), "{refused:?}");
    }
}
