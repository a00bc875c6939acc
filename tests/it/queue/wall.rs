//! Handlers stand behind the wall between businesses: whatever one asks for, it gets rows of its job's business alone.

use std::sync::Arc;

use muneem_jobs::{
    people::BusinessId,
    queue::{
        JobContext, Lane, LostLease, NewJob,
        work::{self, Want},
    },
};
use muneem_tests::{
    probe::{Act, Probe, Quick},
    workers::{NoSteps, QueueUnderTest, SHARMA, VERMA},
};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn businesses(db: &mut PgConnection, table: &str) -> Vec<Uuid> {
    let asked = format!("select distinct business_id from muneem.{table} order by 1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(asked)).fetch_all(db).await.unwrap()
}

/// A job of each business, both in hand.
async fn in_hand(system: &QueueUnderTest) -> [JobContext; 2] {
    let (number, _) = Probe::new();
    for business in [SHARMA, VERMA] {
        let payload = Quick { probe: number, n: 1, act: Act::Succeed, group: None };
        system.enqueue_as(NewJob::of(business, &payload).unwrap()).await;
    }
    let mut conn = system.pool.acquire().await.unwrap();
    let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.unwrap();
    let want = Want { lane: Lane::Transactional, jobs: 10, after: Uuid::nil() };
    let claimed = work::claim(&mut conn, worker, &[want]).await.unwrap();
    [SHARMA, VERMA].map(|business: BusinessId| {
        let one = claimed.iter().find(|one| one.business == business).expect("both are claimed");
        JobContext {
            deps: system.deps(),
            job: one.job,
            attempt: one.attempt,
            worker,
            business,
            cancelled: CancellationToken::new(),
            steps: Arc::new(NoSteps),
        }
    })
}

#[tokio::test]
async fn atk_060_a_handler_sees_and_changes_no_row_of_another_business() {
    let system = QueueUnderTest::new().await;
    let contexts = in_hand(&system).await;
    let all = [SHARMA, VERMA].map(|business| business.0).to_vec();
    for (context, other) in contexts.iter().zip([VERMA, SHARMA]) {
        let mut tx = context.begin().await.unwrap();
        for table in ["people_businesses", "queue_jobs"] {
            assert_eq!(businesses(&mut tx, table).await, [context.business.0], "{table}");
        }
        let changed = sqlx::query("update muneem.queue_jobs set priority = 7 where business_id = $1")
            .bind(other.0)
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 0, "a row of another business does not exist");
        let planted = sqlx::query(
            "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
             values (gen_random_uuid(), $1, '\\x00', '[]', now())",
        )
        .bind(other.0)
        .execute(&mut *tx)
        .await;
        let refused = planted.expect_err("nothing is written for another business");
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"));
        drop(tx);

        let mut tx = context.begin_for_all().await.unwrap();
        assert_eq!(businesses(&mut tx, "people_businesses").await, all, "work of the house");
    }
}

#[tokio::test]
async fn behind_the_wall_a_job_enqueues_another_ends_and_leaves_no_business_at_hand() {
    let system = QueueUnderTest::new().await;
    let [sharma, verma] = in_hand(&system).await;
    let (number, _) = Probe::new();
    let mut tx = sharma.begin().await.unwrap();
    let next = Quick { probe: number, n: 2, act: Act::Succeed, group: Some("follow-up".to_owned()) };
    let next = NewJob::of(SHARMA, &next).unwrap().key("follow-up");
    let id = muneem_jobs::queue::enqueue(&mut tx, &next).await.unwrap();
    sharma.complete(&mut tx, None).await.unwrap();
    // Another's job is not ended from here, nor one enqueued for her.
    assert!(matches!(verma.complete(&mut tx, None).await, Err(LostLease::Lost(..))));
    tx.commit().await.unwrap();
    assert_eq!((system.rows("queue_history").await, system.rows("queue_jobs").await), (1, 2));
    assert_eq!(system.job(id).await.business, SHARMA);

    let mut conn = system.pool.acquire().await.unwrap();
    assert!(muneem_jobs::people::is_nobodys(&mut conn).await.unwrap());
    assert!(matches!(sharma.begin().await, Err(LostLease::Lost(..))), "it has ended");
}
