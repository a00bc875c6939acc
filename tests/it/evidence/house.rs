//! A shop whose log can be broken: one database, no worker but the test's own hand, a carrier that does as it is told.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use muneem::outbound::chance::OsChance;
use muneem_jobs::{
    Deps, MIGRATOR,
    evidence::By,
    files,
    messaging::{self, Content, Document, Language, MessageId, NewMessage, Policy, TaxInvoice},
    outbound::{
        Carrier, Clock, Phone, Wamid,
        carrier::{Accepted, Failure as Fault, Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
    },
    people::{self, BusinessId},
    queue::{
        self, Done, JobContext, JobFailure, Lane, NewJob, Steps,
        work::{self, Claimed, Want},
    },
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use muneem_tests::{
    outside::{MemoryObjects, TestClock},
    workers::NoSteps,
};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What an act failed with.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The WhatsApp number of the shop.
pub(super) const NUMBER: &str = "100200300";

/// How the log can refuse an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Something in the database objects.
    Refused,
    /// Its disk is full: what Postgres says then (SQLSTATE 53100).
    Full,
    /// Somebody holds it.
    Locked,
    /// The app role may not write it.
    Revoked,
}

impl Broken {
    pub(super) const ALL: [Self; 4] = [Self::Refused, Self::Full, Self::Locked, Self::Revoked];
}

/// Keeps what was posted, and answers as it is told.
#[derive(Default)]
pub(super) struct Scripted {
    posts: Mutex<BTreeMap<String, usize>>,
    /// The next answers are lost on the way.
    pub(super) answers_lost: Mutex<bool>,
}

impl Scripted {
    /// How often each reference was posted.
    pub(super) fn posts(&self) -> BTreeMap<String, usize> {
        self.posts.lock().unwrap().clone()
    }
}

#[async_trait]
impl Carrier for Scripted {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        Ok(MediaId("media".to_owned()))
    }

    async fn send(&self, _: &Sender, message: &OutgoingMessage) -> SendOutcome {
        *self.posts.lock().unwrap().entry(message.reference.clone()).or_default() += 1;
        if *self.answers_lost.lock().unwrap() {
            return SendOutcome::Unknown(Fault::new("the answer was lost"));
        }
        let wamid = Wamid::new(&format!("wamid.{}", message.reference)).expect("short");
        SendOutcome::Accepted(Accepted { wamid, held: false, trace: None })
    }
}

pub(super) struct House {
    /// Connections of the app role, which wait for nobody's lock.
    pub(super) app: PgPool,
    /// The owner's, alike.
    pub(super) owner: PgPool,
    pub(super) clock: Arc<TestClock>,
    pub(super) deps: Arc<Deps>,
    pub(super) carrier: Arc<Scripted>,
    pub(super) business: BusinessId,
    /// For a process of its own, as the app role.
    pub(super) app_url: String,
    pub(super) worker: i64,
    held: Mutex<Vec<Claimed>>,
    locker: tokio::sync::Mutex<Option<PgConnection>>,
    owner_options: PgConnectOptions,
    _db: TestDb,
}

impl House {
    pub(super) async fn open() -> Arc<Self> {
        let db = TestDb::new(&MIGRATOR).await;
        let impatient = |options: PgConnectOptions| {
            let options = options.options([("lock_timeout", "100ms")]);
            PgPoolOptions::new().max_connections(6).acquire_timeout(Duration::from_secs(20)).connect_lazy_with(options)
        };
        let app = impatient(db.app_url().parse().unwrap());
        let owner = impatient(db.connect_options());
        let clock = Arc::new(TestClock::default());
        let carrier = Arc::new(Scripted::default());
        let deps = Arc::new(Deps {
            db: app.clone(),
            clock: clock.clone(),
            chance: Arc::new(OsChance),
            objects: Arc::new(MemoryObjects::default()),
            carrier: carrier.clone(),
            mailer: Arc::new(muneem::outbound::mail::NotConfigured),
            vault: Arc::new(Vault::with_root(&app, &[7; 32].into(), clock.clone(), Arc::new(OsChance))),
            messaging: messaging::Settings::DEFAULT,
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
        });
        let mut conn = owner.acquire().await.unwrap();
        queue::sync_kinds(&mut conn, &muneem_jobs::kinds()).await.unwrap();
        let worker = work::join(&mut conn, "test", Duration::from_secs(3600), 16).await.unwrap();
        drop(conn);
        let mut conn = app.acquire().await.unwrap();
        // By hand: adding a business leaves evidence of its own, which these tests would have to count.
        sqlx::query(
            "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
             values (gen_random_uuid(), 'sharma-mobiles', 'Sharma', now())",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        let made = people::load_business(&mut conn, "sharma-mobiles").await.unwrap();
        drop(conn);
        let house = Self {
            app,
            owner,
            clock,
            deps,
            carrier,
            business: made.business_id,
            app_url: format!("{}&options[lock_timeout]=100ms", db.app_url()),
            worker,
            held: Mutex::default(),
            locker: tokio::sync::Mutex::default(),
            owner_options: db.connect_options(),
            _db: db,
        };
        Arc::new(house)
    }

    pub(super) fn by(&self) -> By<'static> {
        By::operator(self.clock.now(), &OsChance)
    }

    /// A message that waits to be sent.
    pub(super) async fn message(&self) -> MessageId {
        let pdf = Bytes::from_static(b"%PDF-1.7");
        let stored = files::put(&self.deps, self.business, "application/pdf", pdf).await.unwrap();
        let content = Content::TaxInvoice(TaxInvoice {
            customer_name: "आशा वर्मा".into(),
            business_name: "Sharma Mobiles".into(),
            invoice_number: "INV-1042".into(),
            amount: "₹1,180.00".into(),
        });
        let (to, why) = (Phone::parse("919812345678").unwrap(), (Policy::AtLeastOnce, "invoice.issued"));
        let new = NewMessage {
            document: Some(Document { digest: stored.digest.clone(), filename: "INV-1042.pdf".into() }),
            ..NewMessage::new(self.business, to, (content, Language::Hi), why)
        };
        let mut tx = self.app.begin().await.unwrap();
        files::record(&mut tx, &self.deps, &stored, None).await.unwrap();
        let id = messaging::request(&mut tx, &self.deps.vault, &*self.clock, &OsChance, &new).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// The job in the test's hand.
    pub(super) async fn hold(&self, job: &NewJob) -> Claimed {
        let mut conn = self.app.acquire().await.unwrap();
        let id = queue::enqueue_sealed(&mut conn, &self.deps.vault, job).await.unwrap();
        drop(conn);
        self.held_job(|claimed| claimed.job == id).await
    }

    /// The job of this kind that was enqueued by another act, in the test's hand.
    pub(super) async fn hold_kind(&self, kind: &'static str) -> Claimed {
        self.held_job(|claimed| claimed.kind == kind).await
    }

    async fn held_job(&self, is_it: impl Fn(&Claimed) -> bool) -> Claimed {
        let wants: Vec<_> = Lane::ALL.iter().map(|lane| Want { lane: *lane, jobs: 100, after: Uuid::nil() }).collect();
        let mut conn = self.owner.acquire().await.unwrap();
        let claimed = work::claim(&mut conn, self.worker, &wants).await.unwrap();
        let mut held = self.held.lock().unwrap();
        held.extend(claimed);
        let place = held.iter().rposition(is_it).expect("the job is in line");
        held.remove(place)
    }

    pub(super) fn context(&self, claimed: &Claimed, steps: Arc<dyn Steps>) -> JobContext {
        JobContext {
            deps: Arc::clone(&self.deps),
            job: claimed.job,
            attempt: claimed.attempt,
            worker: self.worker,
            business: claimed.business,
            cancelled: CancellationToken::new(),
            steps,
        }
    }

    pub(super) async fn run_with(&self, claimed: &Claimed, steps: Arc<dyn Steps>) -> Result<Done, JobFailure> {
        let kind = muneem_jobs::kinds().into_iter().find(|kind| kind.name == claimed.kind).expect("a kind of ours");
        let payload = claimed.open(&mut self.app.acquire().await.unwrap(), &self.deps.vault).await.unwrap();
        kind.run(&payload, &self.context(claimed, steps)).await
    }

    /// Runs a held job; a failure with the cause `fine` is how it is to end.
    pub(super) async fn run(&self, claimed: &Claimed, fine: Option<&str>) -> Result<(), Failure> {
        match self.run_with(claimed, Arc::new(NoSteps)).await {
            Ok(_) => Ok(()),
            Err(failure) if Some(failure.cause) == fine => Ok(()),
            Err(failure) => Err(format!("{}: {}", failure.cause, failure.error).into()),
        }
    }

    /// Runs a held job until `step`, where it dies.
    pub(super) async fn run_until(&self, claimed: &Claimed, step: &'static str) {
        let steps = Arc::new(DieAt { step, died: Notify::new() });
        tokio::select! {
            ended = self.run_with(claimed, steps.clone()) => panic!("{step} was never reached: {:?}", ended.is_ok()),
            () = steps.died.notified() => {}
        }
    }

    pub(super) async fn break_log(&self, how: Broken) {
        let mut locker = self.locker.lock().await;
        match how {
            Broken::Refused | Broken::Full => {
                let code = if how == Broken::Full { "53100" } else { "P0001" };
                self.as_owner(&format!(
                    "create function muneem.break_log() returns trigger language plpgsql as
                     $$ begin raise exception 'broken' using errcode = '{code}'; end $$;
                     create trigger break_log before insert on muneem.evidence_events
                     for each row execute function muneem.break_log()"
                ))
                .await;
            }
            Broken::Revoked => {
                self.as_owner(
                    "revoke insert (event_id, business_id, body) on muneem.evidence_events from muneem_app, muneem_business",
                )
                .await;
            }
            Broken::Locked => {
                let mut other = PgConnection::connect_with(&self.owner_options).await.unwrap();
                other.execute("begin; lock table muneem.evidence_events in exclusive mode").await.unwrap();
                *locker = Some(other);
            }
        }
    }

    pub(super) async fn mend_log(&self, how: Broken) {
        match how {
            Broken::Refused | Broken::Full => {
                self.as_owner("drop trigger break_log on muneem.evidence_events; drop function muneem.break_log()")
                    .await;
            }
            Broken::Revoked => {
                self.as_owner(
                    "grant insert (event_id, business_id, body) on muneem.evidence_events to muneem_app, muneem_business",
                )
                .await;
            }
            Broken::Locked => {
                let other = self.locker.lock().await.take();
                other.expect("it was locked").close().await.unwrap();
            }
        }
    }

    async fn as_owner(&self, sql: &str) {
        let mut owner = PgConnection::connect_with(&self.owner_options).await.unwrap();
        owner.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        owner.close().await.unwrap();
    }

    /// A digest of each table. Left out: the log itself; the vault's keys and counts of use, which are its own ledger;
    /// what the carrier already holds, and turns taken within its limits; leases.
    pub(super) async fn state(&self) -> Vec<(String, String)> {
        let tables: Vec<String> = sqlx::query_scalar(
            "select c.relname::text
             from pg_class c
             where c.relnamespace = 'muneem'::regnamespace
                 and c.relkind = 'r'
                 and c.relname !~ '^(evidence_|vault_|messaging_(media|paces|pairs|reached)$|queue_workers$|_sqlx)'
             order by 1",
        )
        .fetch_all(&self.owner)
        .await
        .unwrap();
        let all: Vec<String> = tables
            .iter()
            .map(|table| {
                format!("select '{table}', coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from muneem.{table} t")
            })
            .collect();
        sqlx::query_as(AssertSqlSafe(all.join(" union all "))).fetch_all(&self.owner).await.unwrap()
    }

    /// How often each word was said; the vault makes keys when it first needs them, and says so.
    pub(super) async fn said(&self) -> BTreeMap<String, i64> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "select convert_from(body, 'UTF8')::json ->> 'verb', count(*) from muneem.evidence_events
             where convert_from(body, 'UTF8')::json ->> 'verb' not like 'vault.%' group by 1",
        )
        .fetch_all(&self.owner)
        .await
        .unwrap();
        rows.into_iter().collect()
    }
}

/// Stops a job for ever at one step, as `kill -9` does.
struct DieAt {
    step: &'static str,
    died: Notify,
}

impl Steps for DieAt {
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.step == step {
                self.died.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}
