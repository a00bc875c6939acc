//! A house with a worker in it, and rows of sealed values, for tests of keys on their way.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    rotate_keys::SPREAD,
    tests::{House, SHARMA},
    *,
};
use crate::{
    Deps,
    evidence::Actor,
    messaging,
    outbound::{
        Carrier,
        carrier::{Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
        object_store::MemoryObjects,
    },
    queue::{
        self, Done, Job, JobContext, Lane, NewJob, Steps,
        work::{self, Want},
    },
};

/// Nothing is sent in these tests.
struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        panic!("the vault uploads nothing")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        panic!("the vault sends nothing")
    }
}

/// Stops for ever at the step of this number and says so.
struct StopAt {
    step: usize,
    seen: AtomicUsize,
    stopped: Notify,
}

impl Steps for StopAt {
    fn reached<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.seen.fetch_add(1, Ordering::SeqCst) == self.step {
                self.stopped.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A house with a worker in it.
pub(super) struct Floor {
    pub(super) house: House,
    pub(super) deps: Arc<Deps>,
    worker: i64,
}

impl Floor {
    pub(super) async fn open() -> Self {
        let house = House::new().await;
        Self::of(house, |vault| vault).await
    }

    pub(super) async fn of(house: House, vault: impl FnOnce(Vault) -> Vault) -> Self {
        let deps = Arc::new(Deps {
            db: house.db.app_pool(),
            clock: Arc::clone(&house.clock) as _,
            chance: Arc::new(super::tests::Drawn),
            objects: Arc::new(MemoryObjects::default()),
            carrier: Arc::new(NoCarrier),
            mailer: Arc::new(crate::outbound::mailer::KeptMail::default()),
            vault: Arc::new(vault(house.another())),
            messaging: messaging::Settings::DEFAULT,
            webhooks: crate::webhooks::Sending::nowhere(),
        });
        let mut conn = house.db.pool().acquire().await.expect("a connection");
        sqlx::query("insert into muneem.people_businesses values ($1, 'sharma-mobiles', 'Sharma', now())")
            .bind(SHARMA.0)
            .execute(&mut *conn)
            .await
            .expect("a business");
        queue::sync_kinds(&mut conn, &crate::kinds()).await.expect("kinds");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(600), 64).await.expect("a worker");
        Self { house, deps, worker }
    }

    /// Runs a handler in the hand of a job of its own; none when it was killed at that step.
    pub(super) async fn run_until<J: Job>(&self, handler: J, step: usize) -> Option<Result<Done, J::Error>> {
        let mut conn = self.house.db.pool().acquire().await.expect("a connection");
        let holder = NewJob::named("queue.reap_leases", SHARMA, serde_json::json!({})).lane(Lane::Bulk);
        queue::enqueue(&mut conn, &holder).await.expect("a job");
        let want = Want { lane: Lane::Bulk, jobs: 1, after: Uuid::nil() };
        let claimed = work::claim(&mut conn, self.worker, &[want]).await.expect("a claim").pop().expect("a job");
        drop(conn);
        let steps = Arc::new(StopAt { step, seen: AtomicUsize::new(0), stopped: Notify::new() });
        let ctx = JobContext {
            deps: Arc::clone(&self.deps),
            job: claimed.job,
            attempt: claimed.attempt,
            worker: self.worker,
            business: claimed.business,
            cancelled: CancellationToken::new(),
            steps: Arc::clone(&steps) as _,
        };
        tokio::select! {
            outcome = handler.run(&ctx) => Some(outcome),
            () = steps.stopped.notified() => None,
        }
    }

    pub(super) async fn run<J: Job>(&self, handler: J) -> Result<Done, J::Error> {
        self.run_until(handler, usize::MAX).await.expect("nobody kills it")
    }

    /// Runs the walk to its end, as the queue would: what says "later" is run again.
    pub(super) async fn reseal(&self) {
        for _ in 0..5000 {
            match self.run(Reseal {}).await {
                Ok(_) => return,
                Err(Error::Interrupted { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("the walk does not end");
    }

    /// Replaces a key, up to the moment at which its walk begins.
    pub(super) async fn replace(&self, replace: Replace<'_>) -> u32 {
        let mut conn = self.house.conn().await;
        let mut tx = conn.begin().await.expect("begun");
        let key = self.house.vault.prepare_key(&mut tx, SHARMA, replace, Actor::Operator).await.expect("prepared");
        tx.commit().await.expect("committed");
        let key = key.expect("there was a key to replace");
        self.house.clock.forward(SPREAD);
        self.until_active(key).await;
        self.house.clock.forward(SPREAD);
        self.run(RotateKeys {}).await.expect("one step");
        key
    }

    /// Everybody on this server, other tests too, must have ended what was under way.
    pub(super) async fn until_active(&self, key: u32) {
        for _ in 0..5000 {
            self.run(RotateKeys {}).await.expect("one step");
            if self.state(key).await.0 == "active" {
                return;
            }
        }
        panic!("key {key} does not take over");
    }

    pub(super) async fn state(&self, key: u32) -> (String, bool) {
        sqlx::query_as("select state, cleared_at is not null from muneem.vault_keys where key_id = $1")
            .bind(i64::from(key))
            .fetch_one(&self.house.db.pool())
            .await
            .expect("a key")
    }

    pub(super) async fn walk_state(&self) -> String {
        standing(&mut *self.house.conn().await, None).await.expect("asked").walk.expect("a walk").state
    }

    /// Rows of a table of ours with one sealed value each.
    pub(super) async fn fill(&self, rows: usize) -> Vec<Uuid> {
        let mut conn = self.house.db.pool().acquire().await.expect("a connection");
        let ids: Vec<Uuid> = (1..=rows as u128).map(Uuid::from_u128).collect();
        let mut sealed = Vec::new();
        for id in &ids {
            sealed.push(seal(&self.house.vault, &mut conn, *id, 0).await);
        }
        sqlx::query(
            "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
            select n.id, $3, n.sealed, '[]', now()
            from unnest($1::uuid[], $2::bytea[]) n (id, sealed)",
        )
        .bind(&ids)
        .bind(&sealed)
        .bind(SHARMA.0)
        .execute(&mut *conn)
        .await
        .expect("rows");
        ids
    }
}

pub(super) fn text(id: Uuid, edition: usize) -> String {
    format!("{id} edition {edition}")
}

pub(super) async fn seal(vault: &Vault, db: &mut PgConnection, id: Uuid, edition: usize) -> Vec<u8> {
    let row = id.to_string();
    let text = text(id, edition);
    vault.seal(db, Class::Payload, &refusal(&row), text.as_bytes()).await.expect("sealed")
}

pub(super) fn refusal(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "muneem.invoice_refusals", column: "payload_sealed", row }
}

pub(super) async fn read(vault: &Vault, db: &mut PgConnection, id: Uuid) -> (u32, String) {
    let sealed: Vec<u8> =
        sqlx::query_scalar("select payload_sealed from muneem.invoice_refusals where refusal_id = $1")
            .bind(id)
            .fetch_one(&mut *db)
            .await
            .expect("a row");
    let row = id.to_string();
    let plain = vault.open(db, &refusal(&row), &sealed).await.expect("it opens");
    (key_of(&sealed).expect("a number"), String::from_utf8(plain.to_vec()).expect("text"))
}
