//! The jobs of the duty on a real database: what stays in it after each end, crash and repetition.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use muneem_postgres::testing::TestDb;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{HandOver, Issue, Render, find_invoice, list_invoices, samples};
use crate::{
    Deps, MIGRATOR,
    evidence::By,
    files,
    id::JobId,
    messaging,
    outbound::{
        Carrier, Chance, Clock, ObjectStore, Phone,
        carrier::{Media, MediaId, NumberId, OutgoingMessage, SendOutcome, UploadError},
        object_store::MemoryObjects,
    },
    people::BusinessId,
    queue::{
        self, Done, JobContext, JobFailure, Kind, Lane, NewJob, Steps,
        work::{self, Buried, Claimed, Held, PutBack, Want},
    },
    vault::{Cell, Class},
};

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        "2026-11-23T06:30:00Z".parse().expect("an instant")
    }
}

/// Counts, so that ids differ and tests repeat.
#[derive(Default)]
struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (index, byte) in bytes.iter_mut().rev().enumerate() {
            *byte = count.iter().rev().nth(index).copied().unwrap_or(0);
        }
    }
}

/// Nothing is sent in these tests.
struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &NumberId, _: &Media) -> Result<MediaId, UploadError> {
        panic!("invoice jobs upload nothing")
    }

    async fn send(&self, _: &NumberId, _: &OutgoingMessage) -> SendOutcome {
        panic!("invoice jobs send nothing")
    }
}

/// Stops for ever at the step of this number and says so.
struct StopAt {
    step: usize,
    seen: AtomicUsize,
    stopped: Notify,
}

impl StopAt {
    fn step(step: usize) -> Arc<Self> {
        Arc::new(Self { step, seen: AtomicUsize::new(0), stopped: Notify::new() })
    }

    fn never() -> Arc<Self> {
        Self::step(usize::MAX)
    }
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

struct Shop {
    db: TestDb,
    deps: Arc<Deps>,
    objects: Arc<MemoryObjects>,
    business: BusinessId,
    worker: i64,
}

impl Shop {
    fn by(&self) -> By<'_> {
        By::operator(FixedClock.now(), &*self.deps.chance)
    }

    async fn open() -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let business = BusinessId(Uuid::from_u128(1));
        let objects = Arc::new(MemoryObjects::default());
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(FixedClock),
            chance: Arc::new(Counting::default()),
            objects: Arc::clone(&objects) as Arc<dyn ObjectStore>,
            carrier: Arc::new(NoCarrier),
            mailer: Arc::new(crate::outbound::mailer::KeptMail::default()),
            vault: Arc::new(crate::vault::tests::vault(&db)),
            messaging: messaging::Settings::DEFAULT,
        });
        let mut conn = db.pool().acquire().await.expect("a connection");
        for (id, handle) in [(business.0, "sharma-mobiles"), (Uuid::from_u128(2), "kaveri-retail")] {
            sqlx::query("insert into muneem.people_businesses values ($1, $2, $2, now())")
                .bind(id)
                .bind(handle)
                .execute(&mut *conn)
                .await
                .expect("a business");
        }
        queue::sync_kinds(&mut conn, &crate::kinds()).await.expect("kinds");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        let shop = Self { db, deps, objects, business, worker };
        shop.add_account().await;
        shop
    }

    async fn add_account(&self) {
        let account = messaging::Account {
            business: self.business,
            number: NumberId::parse("100200300").expect("a number id"),
            waba_id: "500600".to_owned(),
            display_phone: Phone::parse("+912055500142").or_else(|_| Phone::parse("+919876500142")).expect("a phone"),
        };
        messaging::set_account(&mut *self.conn().await, &account, &self.by()).await.expect("an account");
    }

    /// Changes the JSON that is sealed in the only row of a table, as somebody with the keys would.
    async fn change_sealed(
        &self,
        table: &str,
        (key, column): (&str, &str),
        class: Class,
        change: impl FnOnce(&mut Value),
    ) {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let read = format!("select {key}::text, {column} from muneem.{table}");
        let (row, sealed): (String, Vec<u8>) =
            sqlx::query_as(sqlx::AssertSqlSafe(read)).fetch_one(&mut *conn).await.expect("one row");
        let table = format!("muneem.{table}");
        let cell = Cell { business_id: self.business, table: &table, column, row: &row };
        let plain = self.deps.vault.open(&mut conn, &cell, &sealed).await.expect("it opens");
        let mut value: Value = serde_json::from_slice(&plain).expect("JSON");
        change(&mut value);
        let sealed = self.deps.vault.seal(&mut conn, class, &cell, value.to_string().as_bytes()).await;
        let write = format!("update {table} set {column} = $1");
        sqlx::query(sqlx::AssertSqlSafe(write))
            .bind(sealed.expect("it seals"))
            .execute(&mut *conn)
            .await
            .expect("one row");
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&mut *self.conn().await).await.expect("a change");
    }

    async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.db.pool().acquire().await.expect("a connection")
    }

    async fn enqueue(&self, payload: Value) -> JobId {
        let job = NewJob::named("invoice.issue", self.business, payload);
        queue::enqueue_sealed(&mut *self.conn().await, &self.deps.vault, &job).await.expect("a job")
    }

    /// As a frontend does, which has no key: in clear.
    async fn enqueue_by_sql(&self, payload: Value) {
        sqlx::query("select muneem.enqueue('invoice.issue', $1, 'sharma-mobiles')")
            .bind(payload)
            .execute(&mut *self.conn().await)
            .await
            .expect("a job");
    }

    async fn claim(&self) -> Option<Claimed> {
        let want = Want { lane: Lane::Transactional, jobs: 1, after: Uuid::nil() };
        work::claim(&mut *self.conn().await, self.worker, &[want]).await.expect("a claim").pop()
    }

    fn context(&self, claimed: &Claimed, steps: Arc<StopAt>) -> JobContext {
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

    /// Seals the payload in the table, where it lies in clear, and runs the handler, as the runtime does.
    async fn handle(&self, claimed: &Claimed, steps: Arc<StopAt>) -> Result<Done, JobFailure> {
        let kind = match claimed.kind.as_str() {
            "invoice.issue" => Kind::of::<Issue>(),
            "invoice.render" => Kind::of::<Render>(),
            "invoice.hand_over" => Kind::of::<HandOver>(),
            "messaging.apply_webhook" => Kind::of::<messaging::ApplyWebhook>(),
            other => panic!("no handler here for {other}"),
        };
        if kind.seals
            && let Some(sealed) = claimed.seal(&mut *self.conn().await, &self.deps.vault).await.expect("it seals")
        {
            let held = Held { job: claimed.job, attempt: claimed.attempt };
            let ours = work::seal(&mut *self.conn().await, self.worker, &[(held, sealed)]).await.expect("an update");
            assert_eq!(ours, [claimed.job]);
        }
        let payload = claimed.open(&mut *self.conn().await, &self.deps.vault).await.expect("it opens");
        kind.run(&payload, &self.context(claimed, steps)).await
    }

    /// Runs the next job to its end, as the runtime does.
    async fn run_next(&self) -> Result<Done, JobFailure> {
        let claimed = self.claim().await.expect("a job is ready");
        let held = Held { job: claimed.job, attempt: claimed.attempt };
        let outcome = self.handle(&claimed, StopAt::never()).await;
        match &outcome {
            Ok(Done::Acked) => {}
            Ok(Done::Ack(result)) => {
                let ended = [(held, result.clone())];
                work::finish(&mut *self.conn().await, self.worker, &ended).await.expect("an end");
            }
            Err(failure) => {
                let buried = [Buried { held, cause: failure.cause, error: failure.error.clone() }];
                work::bury(&mut *self.conn().await, self.worker, &buried).await.expect("a burial");
            }
        }
        outcome
    }

    /// Nothing while the document is not issued.
    async fn pdf(&self, recorded: &super::Recorded) -> Option<super::Pdf> {
        let located = super::locate_pdf(&mut *self.conn().await, &self.deps.vault, recorded).await.expect("located")?;
        Some(super::load_pdf(self.objects.as_ref(), recorded, &located).await.expect("files"))
    }

    async fn count(&self, table: &'static str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("select count(*) from muneem.{table}"));
        sqlx::query_scalar(query).fetch_one(&mut *self.conn().await).await.expect("a count")
    }

    /// Every row of every table of ours, as an owner with a SQL prompt reads them.
    async fn all_text(&self) -> String {
        let mut conn = self.db.pool().acquire().await.expect("a connection");
        let tables: Vec<String> = sqlx::query_scalar(
            "select c.relname::text from pg_class c where c.relnamespace = 'muneem'::regnamespace and c.relkind = 'r'",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("tables");
        let mut text = String::new();
        for table in tables {
            let query = format!("select coalesce(string_agg(t::text, ' '), '') from muneem.{table} t");
            text +=
                &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query)).fetch_one(&mut *conn).await.expect("rows");
        }
        text
    }

    /// Everything the queue holds, as text: no clear text may be in it.
    async fn queue_text(&self) -> String {
        let mut text = String::new();
        for table in ["queue_jobs", "queue_history", "queue_dead"] {
            let query =
                sqlx::AssertSqlSafe(format!("select coalesce(string_agg(t::text, ' '), '') from muneem.{table} t"));
            text += &sqlx::query_scalar::<_, String>(query).fetch_one(&mut *self.conn().await).await.expect("rows");
        }
        text
    }
}

fn payload(document: &Value) -> Value {
    json!({ "invoice": document, "deliver": { "whatsapp": { "to": "+919876543210", "language": "hi" } } })
}

#[tokio::test]
async fn invoice_goes_from_payload_to_pdf_and_message_and_leaves_no_clear_text() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));

    let mut conn = shop.conn().await;
    let [recorded] = <[_; 1]>::try_from(list_invoices(&mut conn, Some(shop.business), None, 50).await.expect("a page"))
        .expect("one invoice");
    // The digest changes with every change of the template.
    let mut shown = serde_json::to_value(&recorded).expect("JSON");
    (shown["invoice_id"], shown["pdf_digest"]) = (json!("[id]"), json!("[digest]"));
    insta::assert_json_snapshot!(shown);
    let pdf = shop.pdf(&recorded).await.expect("a PDF");
    assert_eq!(pdf.file_name, "SM-26-27-00042.pdf");
    assert_ne!(Some(files::digest_of(&pdf.bytes)), recorded.pdf_digest, "its name tells nobody what is in it");
    assert_eq!(Some(shop.objects.digests()), recorded.pdf_digest.clone().map(|digest| vec![digest]));
    let message: (String, String, Vec<u8>, String) = sqlx::query_as(
        "select purpose, document_filename, params_sealed, message_id::text from muneem.messaging_messages",
    )
    .fetch_one(&mut *conn)
    .await
    .expect("a message");
    assert_eq!((message.0.as_str(), message.1.as_str()), ("invoice.issued", "SM-26-27-00042.pdf"));
    let cell = Cell {
        business_id: shop.business,
        table: "muneem.messaging_messages",
        column: "params_sealed",
        row: &message.3,
    };
    let params = shop.deps.vault.open(&mut conn, &cell, &message.2).await.expect("it opens");
    let params = String::from_utf8(params.to_vec()).expect("JSON");
    assert!(params.contains("आशा वर्मा") && params.contains("₹14,999.00"), "{params}");

    let text = shop.queue_text().await;
    for personal in ["आशा", "9876543210", "490154203237518", "सोसायटी"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    let delivers: i64 =
        sqlx::query_scalar("select count(*) from muneem.invoice_invoices where deliver_sealed is not null")
            .fetch_one(&mut *conn)
            .await
            .expect("a count");
    assert_eq!(delivers, 0);
}

#[tokio::test]
async fn without_an_account_the_paper_is_made_and_its_message_waits_a_day_and_a_retry() {
    let shop = Shop::open().await;
    shop.execute("delete from muneem.messaging_accounts").await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    let recorded = list_invoices(&mut *shop.conn().await, None, None, 1).await.expect("a page").remove(0);
    assert!(shop.pdf(&recorded).await.is_some());
    assert_eq!(shop.count("messaging_messages").await, 0);

    let claimed = shop.claim().await.expect("the hand-over waits");
    assert_eq!(claimed.kind, "invoice.hand_over");
    let failure = shop.handle(&claimed, StopAt::never()).await.expect_err("no account yet");
    let soon = FixedClock.now() + chrono::TimeDelta::seconds(15);
    assert_eq!((failure.cause, failure.disposition), ("messaging.no_account", queue::Disposition::Snooze(soon)));

    shop.execute("update muneem.invoice_invoices set issued_at = issued_at - interval '24 hours'").await;
    let failure = shop.handle(&claimed, StopAt::never()).await.expect_err("no account for a day");
    assert_eq!((failure.cause, failure.disposition), ("messaging.no_account", queue::Disposition::Fail));
    let held = Held { job: claimed.job, attempt: claimed.attempt };
    let buried = [Buried { held, cause: failure.cause, error: failure.error }];
    work::bury(&mut *shop.conn().await, shop.worker, &buried).await.expect("a burial");
    assert!(!shop.queue_text().await.contains("9876543210"));

    shop.add_account().await;
    assert!(queue::retry(&mut *shop.conn().await, claimed.job, &shop.by()).await.expect("a retry"));
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    assert_eq!(shop.claim().await.expect("a message goes out").kind, "messaging.send");
    assert_eq!(shop.count("messaging_messages").await, 1);
    assert_eq!(shop.count("invoice_invoices where deliver_sealed is not null").await, 0);
}

#[tokio::test]
async fn what_messaging_will_never_take_is_on_paper_too() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.change_sealed("invoice_invoices", ("invoice_id", "deliver_sealed"), Class::Contact, |deliver| {
        deliver["whatsapp"]["to"] = json!("none");
    })
    .await;
    shop.run_next().await.expect("rendered");
    assert_eq!(shop.count("invoice_invoices where state = 'issued'").await, 1);
    let failure = shop.run_next().await.expect_err("nowhere to go");
    assert_eq!((failure.cause, failure.disposition), ("invoice.bad_phone", queue::Disposition::Fail));
}

/// What came in by SQL and by webhook stands in no table once its job has handled it, whether it was taken or refused.
#[tokio::test]
async fn atk_101_canary_no_table_spells_what_a_job_has_handled() {
    let shop = Shop::open().await;
    let canaries = [
        "आशा",
        "सोसायटी",
        "9812345670",
        "490154203237518",
        "27ZZZPZ0000Z1ZA",
        "29ABCDE1234F1ZW",
        "bills@sharma-mobiles.example",
        "sharma.mobiles@okbank",
        "wamid.HBgMOTE5ODc2NTQzMjEw",
        "tok_canary_7Yx",
    ];
    // As text, and as the bytes that bytea columns show.
    let seen = |text: &str| -> Vec<&str> {
        canaries.into_iter().filter(|canary| text.contains(canary) || text.contains(&hex::encode(canary))).collect()
    };
    let to_asha = |document: &Value| {
        let mut whole = payload(document);
        whole["deliver"]["whatsapp"]["to"] = json!("+919812345670");
        whole
    };
    shop.enqueue_by_sql(to_asha(&samples::phone())).await;
    let mut wrong = samples::interstate();
    wrong["total"] = json!("1");
    wrong["buyer"]["name"] = json!("आशा tok_canary_7Yx");
    shop.enqueue_by_sql(to_asha(&wrong)).await;
    let number = messaging::list_accounts(&mut *shop.conn().await, Some(shop.business)).await.expect("an account");
    let webhook = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": number[0].number.as_str() },
        "messages": [{ "id": "wamid.HBgMOTE5ODc2NTQzMjEw", "from": "919812345670", "type": "text",
            "timestamp": "1764000000", "text": { "body": "tok_canary_7Yx" } }] } }] }] });
    let (deps, body) = (&shop.deps, webhook.to_string());
    let kept = messaging::receive_webhook(
        &mut *shop.conn().await,
        &deps.vault,
        deps.clock.as_ref(),
        deps.chance.as_ref(),
        body.as_bytes(),
    )
    .await;
    assert_eq!(kept.expect("kept"), messaging::Received::New(1));
    let before = shop.all_text().await;
    assert!(seen(&before).contains(&"आशा"), "jobs enqueued by SQL stand in line in clear, and the look sees them");
    assert!(!seen(&before).contains(&"wamid.HBgMOTE5ODc2NTQzMjEw"), "a webhook is sealed at the door");

    let (mut ended, mut buried) = (0, 0);
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "messaging.send" {
            continue;
        }
        ended += 1;
        if let Err(failure) = shop.handle(&claimed, StopAt::never()).await {
            buried += 1;
            assert_eq!(seen(&failure.error), Vec::<&str>::new(), "in an error");
            let held = Held { job: claimed.job, attempt: claimed.attempt };
            let given_up = [Buried { held, cause: failure.cause, error: failure.error }];
            work::bury(&mut *shop.conn().await, shop.worker, &given_up).await.expect("a burial");
        }
    }
    assert_eq!((ended, buried), (4, 1), "two documents, a paper, a webhook; one document was refused");
    assert_eq!((shop.count("messaging_messages").await, shop.count("messaging_events").await), (1, 1));
    assert_eq!((shop.count("invoice_refusals").await, shop.count("queue_dead").await), (1, 1));
    assert_eq!(seen(&shop.all_text().await), Vec::<&str>::new());
}

/// Killed after each step and run again, the hand-over ends in one message.
#[tokio::test]
async fn crash_of_the_hand_over_ends_in_one_message() {
    let shop = Shop::open().await;
    shop.execute("delete from muneem.messaging_accounts").await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    shop.add_account().await;
    let claimed = shop.claim().await.expect("the hand-over");
    let stop = StopAt::step(0);
    tokio::select! {
        _ = shop.handle(&claimed, Arc::clone(&stop)) => panic!("it has a step"),
        () = stop.stopped.notified() => {}
    }
    let held = Held { job: claimed.job, attempt: claimed.attempt };
    let back = PutBack { held, run_at: None, counts: true, cause: Some("test.killed"), error: None };
    work::put_back(&mut *shop.conn().await, shop.worker, &[back]).await.expect("put back");
    shop.run_next().await.expect("the second attempt ends well");
    assert_eq!(shop.count("messaging_messages").await, 1);
}

#[tokio::test]
async fn another_business_sees_nothing() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    let mut conn = shop.conn().await;
    let id = list_invoices(&mut conn, Some(shop.business), None, 1).await.expect("a page")[0].invoice_id;
    let other = BusinessId(Uuid::from_u128(2));
    assert!(find_invoice(&mut conn, Some(other), id).await.expect("an answer").is_none());
    assert!(list_invoices(&mut conn, Some(other), None, 50).await.expect("a page").is_empty());
    assert!(find_invoice(&mut conn, None, id).await.expect("an answer").is_some());
}

#[tokio::test]
async fn same_document_again_is_the_same_invoice() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    let mut again = samples::phone();
    again["total"] = json!("14999");
    shop.enqueue(payload(&again)).await;
    for _ in 0..3 {
        shop.run_next().await.expect("success");
    }
    assert!(shop.claim().await.is_some_and(|job| job.kind == "messaging.send"));
    assert_eq!((shop.count("invoice_invoices").await, shop.count("messaging_messages").await), (1, 1));
}

#[tokio::test]
async fn same_document_twice_at_once_is_one_invoice() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        shop.enqueue(payload(&samples::phone())).await;
    }
    let (one, other) = (shop.claim().await.expect("a job"), shop.claim().await.expect("a job"));
    let ends = tokio::join!(shop.handle(&one, StopAt::never()), shop.handle(&other, StopAt::never()));
    assert!(matches!(ends, (Ok(Done::Acked), Ok(Done::Acked))), "{ends:?}");
    shop.run_next().await.expect("rendered");
    assert_eq!((shop.count("invoice_invoices").await, shop.count("messaging_messages").await), (1, 1));
}

#[tokio::test]
async fn another_document_under_its_number_is_refused_also_in_other_case() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    let mut other = samples::phone();
    other["number"] = json!("sm/26-27/00042");
    shop.enqueue(json!({ "invoice": other })).await;
    // The message of the first waits in the same lane.
    let mut failure = None;
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "invoice.issue" {
            failure = shop.handle(&claimed, StopAt::never()).await.err();
        }
    }
    let failure = failure.expect("refused");
    assert_eq!(failure.cause, "invoice.number_taken");
    assert!(!failure.error.contains("आशा"), "{}", failure.error);
    assert_eq!(shop.count("invoice_refusals").await, 1);
    assert!(!shop.queue_text().await.contains("आशा"));
    let mut credit = samples::credit_note();
    credit["number"] = samples::phone()["number"].clone();
    shop.enqueue(json!({ "invoice": credit })).await;
    shop.run_next().await.expect("a credit note has a series of its own");
    let mut branch = samples::phone();
    branch["supplier"]["gstin"] = json!("29ZZZCZ9999Z1ZF");
    branch["supplier"]["address"]["state"] = json!("29");
    branch["total"] = json!("14999");
    shop.enqueue(json!({ "invoice": branch })).await;
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "invoice.issue" {
            shop.handle(&claimed, StopAt::never()).await.expect("a branch in another State has a series of its own");
        }
    }
}

#[tokio::test]
async fn refused_document_leaves_the_job_and_comes_back_on_retry() {
    let shop = Shop::open().await;
    let mut wrong = samples::phone();
    wrong["supplier"]["gstin"] = json!("27ZZZPZ0000Z1ZB");
    wrong["issued_on"] = json!("2026-11-24");
    let job = shop.enqueue(payload(&wrong)).await;
    let failure = shop.run_next().await.expect_err("refused");
    assert_eq!((failure.cause, failure.disposition), ("invoice.refused", queue::Disposition::Fail));
    assert!(failure.error.contains("issued_on") && failure.error.contains("supplier.gstin"), "{}", failure.error);
    assert!(!shop.queue_text().await.contains("आशा"));
    // Somebody mends the document where it is kept, and retries the dead letter.
    shop.change_sealed("invoice_refusals", ("refusal_id", "payload_sealed"), Class::Payload, |payload| {
        payload["invoice"]["supplier"]["gstin"] = json!("27ZZZPZ0000Z1ZA");
        payload["invoice"]["issued_on"] = json!("2026-11-23");
    })
    .await;
    assert!(queue::retry(&mut *shop.conn().await, job, &shop.by()).await.expect("a retry"));
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    assert_eq!((shop.count("invoice_refusals").await, shop.count("messaging_messages").await), (0, 1));
}

/// The rule in Postgres asks for presence and types only, so these get as far as the handler.
#[tokio::test]
async fn a_document_that_does_not_read_leaves_the_job_too() {
    let shop = Shop::open().await;
    let change = |change: fn(&mut Value)| {
        let mut whole = payload(&samples::phone());
        change(&mut whole);
        whole
    };
    for (bad, field) in [
        (change(|whole| whole["invoice"]["lines"][0]["unit_price"] = json!("12,711.02")), "lines[0].unit_price"),
        (change(|whole| whole["invoice"]["buyer"]["nickname"] = json!("आशा")), "buyer.nickname"),
        (change(|whole| whole["invoice"]["आशा वर्मा"] = json!(1)), "?"),
        (change(|whole| whole["invoice"]["issued_on"] = json!("23-11-2026")), "issued_on"),
        (change(|whole| whole["deliver"]["whatsapp"]["Klingon"] = json!(true)), "deliver.whatsapp.?"),
        (change(|whole| whole["refusal_id"] = json!(Uuid::nil())), "refusal_id"),
    ] {
        let job = shop.enqueue(bad).await;
        let failure = shop.run_next().await.expect_err("refused");
        assert_eq!((failure.cause, failure.disposition), ("invoice.refused", queue::Disposition::Fail), "{field}");
        assert!(failure.error.contains(&format!(": {field} is unknown")), "{field}: {}", failure.error);
        for personal in ["आशा", "9876543210", "12,711", "Klingon", "490154203237518"] {
            assert!(!shop.queue_text().await.contains(personal), "{field}: {personal}");
            assert!(!failure.error.contains(personal), "{field}: {}", failure.error);
        }
        // A retry says the same, and keeps one refusal.
        assert!(queue::retry(&mut *shop.conn().await, job, &shop.by()).await.expect("a retry"));
        assert_eq!(shop.run_next().await.expect_err("refused again").cause, "invoice.refused", "{field}");
    }
    assert_eq!((shop.count("invoice_refusals").await, shop.count("invoice_invoices").await), (6, 0));
    let ids: Vec<Uuid> = sqlx::query_scalar("select refusal_id from muneem.invoice_refusals")
        .fetch_all(&mut *shop.conn().await)
        .await
        .expect("ids");
    let found = super::find_refusal(&mut *shop.conn().await, Some(shop.business), super::RefusalId(ids[0])).await;
    assert_eq!(found.expect("an answer").expect("a refusal").0, "SM/26-27/00042");
}

/// Killed after each step and run again, both jobs end in the same state.
#[tokio::test]
async fn crash_at_every_step_ends_in_one_invoice_one_file_one_message() {
    for step in 0..5 {
        let shop = Shop::open().await;
        shop.enqueue(payload(&samples::phone())).await;
        for _ in 0..2 {
            let claimed = shop.claim().await.expect("a job");
            let stop = StopAt::step(step);
            let crashed = tokio::select! {
                _ = shop.handle(&claimed, Arc::clone(&stop)) => false,
                () = stop.stopped.notified() => true,
            };
            if crashed {
                let back = PutBack {
                    held: Held { job: claimed.job, attempt: claimed.attempt },
                    run_at: None,
                    counts: true,
                    cause: Some("test.killed"),
                    error: None,
                };
                // The dropped handler's transaction rolls back when its connection is next used: wait for its row lock.
                let done = work::put_back(&mut *shop.conn().await, shop.worker, &[back]).await.expect("put back");
                assert_eq!(done, [claimed.job]);
                shop.run_next().await.expect("the second attempt ends well");
            }
        }
        assert_eq!(shop.count("invoice_invoices").await, 1, "step {step}");
        assert_eq!(shop.count("messaging_messages").await, 1, "step {step}");
        assert_eq!(shop.count("files_objects").await, 1, "step {step}");
        assert_eq!(shop.objects.digests().len(), 1, "step {step}");
    }
}

#[tokio::test]
async fn enqueue_refuses_a_payload_off_schema() {
    let shop = Shop::open().await;
    let mut amount_as_number = samples::phone();
    amount_as_number["lines"][0]["quantity"] = json!(1);
    let mut no_number = samples::phone();
    no_number.as_object_mut().expect("an object").remove("number");
    for bad in [json!({}), json!({ "invoice": 7 }), payload(&amount_as_number), payload(&no_number)] {
        let job = NewJob::named("invoice.issue", shop.business, bad);
        let error = queue::enqueue_sealed(&mut *shop.conn().await, &shop.deps.vault, &job).await.expect_err("refused");
        let queue::Error::Refused { refusal: queue::Refusal::PayloadOffSchema, mend, .. } = &error else {
            panic!("{error}");
        };
        assert!(!mend.is_empty());
    }
}

#[tokio::test]
async fn late_holder_writes_nothing() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    let claimed = shop.claim().await.expect("a job");
    let late = Claimed { attempt: claimed.attempt - 1, ..claimed };
    let failure = shop.handle(&late, StopAt::never()).await.expect_err("fenced");
    assert_eq!(failure.cause, "invoice.lost_lease");
    assert_eq!(shop.count("invoice_invoices").await, 0);
}

async fn next_number(conn: &mut PgConnection, series: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select muneem.invoice_next_number('sharma-mobiles', $1)").bind(series).fetch_one(conn).await
}

#[tokio::test]
async fn numbers_have_no_gaps_in_parallel_and_after_rollbacks() {
    let shop = Shop::open().await;
    let mut tasks = Vec::new();
    for task in 0..4_u32 {
        let pool = shop.db.pool();
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..15_u32 {
                let mut tx = pool.begin().await.expect("a transaction");
                let number = next_number(&mut tx, "sm").await.expect("a number");
                if (task + round) % 3 == 0 {
                    tx.rollback().await.expect("a rollback");
                } else {
                    tx.commit().await.expect("a commit");
                    kept.push(number);
                }
            }
            kept
        }));
    }
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.expect("a task"));
    }
    numbers.sort();
    let year = super::super::law::FinancialYear::of(
        sqlx::query_scalar("select (muneem.now() at time zone 'Asia/Kolkata')::date")
            .fetch_one(&mut *shop.conn().await)
            .await
            .expect("a day"),
    );
    let short = year.to_string()[2..].to_owned();
    let expected: Vec<_> = (1..=40).map(|n| format!("SM/{short}/{n:05}")).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn an_enqueuer_takes_numbers_and_sees_no_table() {
    let shop = Shop::open().await;
    let mut tx = shop.db.pool().begin().await.expect("a transaction");
    sqlx::query("set local role muneem_enqueuer").execute(&mut *tx).await.expect("a role");
    assert!(next_number(&mut tx, "SM").await.expect("a number").ends_with("/00001"));
    for table in ["invoice_series", "invoice_invoices", "invoice_refusals", "files_objects"] {
        let mut savepoint = sqlx::Acquire::begin(&mut tx).await.expect("a savepoint");
        let query = sqlx::AssertSqlSafe(format!("select count(*) from muneem.{table}"));
        let error = sqlx::query_scalar::<_, i64>(query).fetch_one(&mut *savepoint).await.expect_err("refused");
        assert!(error.to_string().contains("permission denied"), "{table}: {error}");
        savepoint.rollback().await.expect("a rollback");
    }
}

#[tokio::test]
async fn numbers_stay_within_sixteen_characters_or_say_why() {
    let shop = Shop::open().await;
    let mut conn = shop.conn().await;
    for series in ["A", "SM", "DELHI1"] {
        let number = next_number(&mut conn, series).await.expect("a number");
        assert_eq!(super::numbers::check_serial(&number, true), Ok(()), "{number}");
    }
    sqlx::query("update muneem.invoice_series set last_number = 999 where series = 'DELHI1'")
        .execute(&mut *conn)
        .await
        .expect("an update");
    for (series, expected) in [
        ("DELHI1", "no number left"),
        ("DELHI-1", "1 to 6 letters"),
        ("", "1 to 6 letters"),
        ("S/M", "1 to 6 letters"),
        ("0A", "starts with 0"),
    ] {
        let error = next_number(&mut conn, series).await.expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
        let database = error.into_database_error().expect("the database's");
        let hint = database.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default().to_owned();
        assert!(!hint.is_empty());
    }
    let error = sqlx::query_scalar::<_, String>("select muneem.invoice_next_number(null, 'SM')")
        .fetch_one(&mut *conn)
        .await
        .expect_err("two businesses");
    assert!(error.to_string().contains("business"), "{error}");
}

#[tokio::test]
async fn atk_047_a_card_number_enqueued_by_sql_is_in_no_dead_letter() {
    let shop = Shop::open().await;
    let mut document = samples::phone();
    document["note"] = json!("paid with 4111-1111-1111-1111");
    shop.enqueue_by_sql(payload(&document)).await;
    let failure = shop.run_next().await.expect_err("refused");
    assert_eq!(failure.cause, "vault.card_number");
    assert!(failure.error.contains("`invoice.note`") && !failure.error.contains("1111"), "{}", failure.error);
    let kept = shop.queue_text().await;
    assert!(!kept.contains("1111-1111"), "{kept}");
    assert_eq!(shop.count("queue_dead").await, 1);
}
