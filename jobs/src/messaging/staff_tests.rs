//! Writing to staff on a real database: what goes out once, whatever dies on the way.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use muneem_postgres::testing::TestDb;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Account, Desk, SendLink, SendMail, Settings, WarnStaff,
    mail::{ApplyMailReport, VerifyMailIdentity},
    send_code, set_account, way_to,
};
use crate::{
    Deps, MIGRATOR,
    evidence::By,
    outbound::{
        Carrier, Chance, Clock, Phone,
        carrier::{Media, MediaId, NumberId, OutgoingMessage, SendOutcome, Sender, UploadError},
        mailer::KeptMail,
        object_store::MemoryObjects,
    },
    people::{
        Authority, BusinessId, Decision, Enrolment, Role, Staff, add_business, enrol_staff,
        links::{self, Contact, NewLink, Purpose},
        open_contact,
        signin::{
            Channel, EndFactor, Warning, approve_reset, ask_reset, begin_totp, confirm_totp, find_standing, make_code,
            warn_about,
        },
    },
    queue::{
        self, Done, JobContext, JobFailure, Kind, Lane, NewJob, Steps,
        work::{self, Claimed, Held, PutBack, Want},
    },
    vault::Cell,
};

pub(super) struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        "2026-11-23T06:30:00Z".parse().expect("an instant")
    }
}

/// Counts, so that ids and codes differ.
#[derive(Default)]
struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (byte, part) in bytes.iter_mut().rev().zip(count.iter().rev().chain(std::iter::repeat(&0))) {
            *byte = *part;
        }
    }
}

/// What is planned for WhatsApp is looked at in the table.
struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        panic!("nothing is uploaded here")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        panic!("nothing is sent here")
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

pub(super) struct Office {
    pub(super) db: TestDb,
    pub(super) deps: Arc<Deps>,
    pub(super) mails: Arc<KeptMail>,
    pub(super) business: BusinessId,
    pub(super) asha: Staff,
    worker: i64,
}

impl Office {
    pub(super) async fn open(language: &str) -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let mails = Arc::new(KeptMail::default());
        let deps = Arc::new(Deps {
            db: db.app_pool(),
            clock: Arc::new(Noon),
            chance: Arc::new(Counting::default()),
            objects: Arc::new(MemoryObjects::default()),
            carrier: Arc::new(NoCarrier),
            mailer: Arc::clone(&mails) as _,
            vault: Arc::new(crate::vault::tests::vault(&db)),
            messaging: Settings::DEFAULT,
            webhooks: crate::webhooks::Sending::nowhere(),
        });
        let mut conn = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut conn, &crate::kinds()).await.expect("kinds");
        let business = add_business(&mut conn, "sharma-mobiles", "Sharma Mobiles", &Noon, &*deps.chance).await;
        let business = business.expect("a shop").business_id;
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: Noon.now(), chance: &*deps.chance };
        let person = Enrolment {
            business_id: Some(business),
            name: "Asha Verma".to_owned(),
            language: language.to_owned(),
            phone: Some(Phone::parse("+919812345678").expect("a phone")),
            email: Some("asha@example.in".to_owned()),
            roles: vec![Role::Owner],
        };
        let asha = enrol_staff(&mut conn, &deps.vault, &person, &decision).await.expect("enrolled");
        drop(conn);
        Self { db, deps, mails, business, asha, worker }
    }

    pub(super) async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.db.pool().acquire().await.expect("a connection")
    }

    fn desk(&self) -> Desk<'_> {
        Desk { vault: &self.deps.vault, clock: &Noon, chance: &*self.deps.chance, mails: true }
    }

    async fn add_account(&self) {
        let account = Account {
            business: self.business,
            number: NumberId::parse("100200300").expect("a number id"),
            waba_id: "500600".to_owned(),
            display_phone: Phone::parse("+919876500142").expect("a phone"),
        };
        let by = By::operator(Noon.now(), &*self.deps.chance);
        set_account(&mut *self.conn().await, &account, &by).await.expect("an account");
    }

    /// Plans a code and answers it.
    pub(super) async fn code(&self, wanted: Channel) -> String {
        let mut conn = self.conn().await;
        let contact = open_contact(&mut conn, &self.deps.vault, self.asha.staff_id).await.expect("opened");
        let contact = contact.expect("she is here");
        let ways = way_to(&mut conn, &contact, true, wanted).await.expect("ways");
        let way = ways.first().expect("one way");
        let made = make_code(&mut conn, self.asha.staff_id.0, way.channel(), Noon.now(), &*self.deps.chance).await;
        let made = made.expect("a code");
        send_code(&mut conn, &self.desk(), (self.asha.staff_id, &contact), way, &made).await.expect("planned");
        secrecy::ExposeSecret::expose_secret(&made.code).to_owned()
    }

    async fn warn(&self, warning: Warning, about: Option<Uuid>) {
        let mut conn = self.conn().await;
        let when = (Noon.now(), about);
        warn_about(&mut conn, self.business, self.asha.staff_id, warning, when).await.expect("planned");
    }

    pub(super) async fn claim(&self, kind: &str) -> Option<Claimed> {
        let wants = [Lane::Otp, Lane::Transactional].map(|lane| Want { lane, jobs: 16, after: Uuid::nil() });
        let claimed = work::claim(&mut *self.conn().await, self.worker, &wants).await.expect("a claim");
        let (wanted, others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| claimed.kind == kind);
        for other in others {
            self.put_back(&other).await;
        }
        wanted.into_iter().next()
    }

    async fn put_back(&self, claimed: &Claimed) {
        let held = Held { job: claimed.job, attempt: claimed.attempt };
        let back = PutBack { held, run_at: None, counts: true, cause: Some("test.killed"), error: None };
        let done = work::put_back(&mut *self.conn().await, self.worker, &[back]).await.expect("put back");
        assert_eq!(done, [claimed.job]);
    }

    async fn handle(&self, claimed: &Claimed, steps: Arc<StopAt>) -> Result<Done, JobFailure> {
        let kind = match claimed.kind.as_str() {
            "messaging.send_mail" => Kind::of::<SendMail>(),
            "messaging.apply_mail_report" => Kind::of::<ApplyMailReport>(),
            "messaging.verify_mail_identity" => Kind::of::<VerifyMailIdentity>(),
            "messaging.send_link" => Kind::of::<SendLink>(),
            "messaging.warn_staff" => Kind::of::<WarnStaff>(),
            "people.end_factor" => Kind::of::<EndFactor>(),
            other => panic!("no handler here for {other}"),
        };
        let context = JobContext {
            deps: Arc::clone(&self.deps),
            job: claimed.job,
            attempt: claimed.attempt,
            worker: self.worker,
            business: claimed.business,
            cancelled: CancellationToken::new(),
            steps,
        };
        // These payloads are ids, which lie in clear.
        let payload = claimed.open(&mut *self.conn().await, &self.deps.vault).await.expect("it opens");
        kind.run(&payload, &context).await
    }

    /// Runs a job of this kind, killed at this step, and again to its end.
    pub(super) async fn run_twice(&self, kind: &str, step: usize) {
        let claimed = self.claim(kind).await.expect("a job is ready");
        let stop = StopAt::step(step);
        let crashed = tokio::select! {
            done = self.handle(&claimed, Arc::clone(&stop)) => { done.expect("it ends well"); false }
            () = stop.stopped.notified() => true,
        };
        if crashed {
            self.put_back(&claimed).await;
            let again = self.claim(kind).await.expect("it is ready again");
            self.handle(&again, StopAt::step(usize::MAX)).await.expect("the second attempt ends well");
        }
    }

    pub(super) async fn run(&self, kind: &str) {
        self.run_twice(kind, usize::MAX).await;
    }

    pub(super) async fn states(&self) -> Vec<(String, String, bool)> {
        sqlx::query_as("select template, state, params_sealed is null from muneem.messaging_mails order by mail_id")
            .fetch_all(&mut *self.conn().await)
            .await
            .expect("mails")
    }

    pub(super) async fn planned(&self, kind: &str) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.queue_jobs where kind = $1")
            .bind(kind)
            .fetch_one(&mut *self.conn().await)
            .await
            .expect("counted")
    }
}

/// Killed before the server has it, it goes out; killed after, nobody can tell, so it does not go out again.
#[tokio::test]
async fn crash_at_every_step_sends_a_code_once_at_most() {
    for (step, state) in [(0, "unknown"), (1, "unknown"), (2, "accepted")] {
        let office = Office::open("en").await;
        let code = office.code(Channel::Email).await;
        office.run_twice("messaging.send_mail", step).await;
        let kept = office.mails.kept();
        assert_eq!(kept.len(), usize::from(step > 0), "step {step}");
        assert!(kept.iter().all(|mail| mail.subject().contains(&code) && mail.text().contains("Sharma Mobiles")));
        assert_eq!(office.states().await, [("sign_in_code".to_owned(), state.to_owned(), true)], "step {step}");
        assert_eq!(office.planned("messaging.send_mail").await, 0, "step {step}");
    }
}

#[tokio::test]
async fn a_code_goes_the_way_that_was_asked_for_and_in_her_language() {
    let office = Office::open("hi-IN").await;
    // Without a number of the business there is mail alone.
    let code = office.code(Channel::Phone).await;
    office.run("messaging.send_mail").await;
    let kept = office.mails.kept();
    assert!(kept[0].subject().contains("कोड") && kept[0].text().contains(&code), "{}", kept[0].subject());
    assert_eq!(kept[0].to().expose(), "asha@example.in");

    office.add_account().await;
    office.code(Channel::Phone).await;
    let (template, lane): (String, String) = sqlx::query_as(
        "select m.template, j.lane::text from muneem.messaging_messages m, muneem.queue_jobs j where j.kind = 'messaging.send'",
    )
    .fetch_one(&mut *office.conn().await)
    .await
    .expect("one message");
    assert_eq!((template.as_str(), lane.as_str()), ("sign_in_code", "otp"));
    assert_eq!(office.states().await.len(), 1, "and no second mail");
}

#[tokio::test]
async fn a_mail_that_waited_too_long_is_not_sent() {
    let office = Office::open("en").await;
    office.code(Channel::Email).await;
    sqlx::query("update muneem.messaging_mails set expires_at = created_at")
        .execute(&mut *office.conn().await)
        .await
        .expect("a change");
    office.run("messaging.send_mail").await;
    assert!(office.mails.kept().is_empty());
    assert_eq!(office.states().await, [("sign_in_code".to_owned(), "expired".to_owned(), true)]);
}

#[tokio::test]
async fn crash_at_every_step_warns_once_and_of_grave_things_on_every_channel() {
    let about = Some(Uuid::from_u128(9));
    for (warning, messages) in [(Warning::NewDevice, 0), (Warning::FactorResetAsked, 1)] {
        for step in 0..2 {
            let office = Office::open("en").await;
            office.add_account().await;
            office.warn(warning, about).await;
            office.warn(warning, about).await;
            assert_eq!(office.planned("messaging.warn_staff").await, 1, "once for each session or reset");
            office.run_twice("messaging.warn_staff", step).await;
            office.run("messaging.send_mail").await;
            let told = office.mails.kept();
            assert_eq!(told.len(), 1, "{warning:?} {step}");
            assert!(told[0].text().contains("23 November 2026, 12:00 (India)"), "{}", told[0].text());
            let sent: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_messages")
                .fetch_one(&mut *office.conn().await)
                .await
                .expect("counted");
            assert_eq!(sent, messages, "{warning:?} {step}");
        }
    }
}

#[tokio::test]
async fn who_may_have_lost_her_phone_is_not_told_so_on_it() {
    for (warning, messages) in [(Warning::NewDevice, 1), (Warning::StalePhone, 0)] {
        let office = Office::open("en").await;
        office.add_account().await;
        sqlx::query(
            "update muneem.people_staff set email_sealed = null, email_index = null, email_index_version = null",
        )
        .execute(&mut *office.conn().await)
        .await
        .expect("she has a phone alone");
        office.warn(warning, None).await;
        office.run("messaging.warn_staff").await;
        let sent: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_messages")
            .fetch_one(&mut *office.conn().await)
            .await
            .expect("counted");
        assert_eq!(sent, messages, "{warning:?}");
    }
}

#[tokio::test]
async fn crash_at_every_step_takes_a_factor_away_once_and_tells() {
    for step in 0..2 {
        let office = Office::open("en").await;
        let (staff, second, chance) = (office.asha.staff_id.0, Uuid::from_u128(5), &*office.deps.chance);
        let yesterday = Noon.now() - TimeDelta::hours(25);
        let mut conn = office.conn().await;
        begin_totp(&mut conn, staff, b"sealed", yesterday).await.expect("begun");
        confirm_totp(&mut conn, staff, b"sealed", 1, yesterday, chance).await.expect("confirmed");
        let reset = ask_reset(&mut conn, staff, staff, yesterday, chance).await.expect("asked");
        approve_reset(&mut conn, reset.reset_id, second, yesterday).await.expect("approved");
        let job = NewJob::of(office.business, &EndFactor { reset_id: reset.reset_id }).expect("a job");
        queue::enqueue(&mut conn, &job).await.expect("planned");
        drop(conn);
        office.run_twice("people.end_factor", step).await;
        let standing = find_standing(&mut *office.conn().await, staff).await.expect("asked").expect("she is here");
        assert!(!standing.has_second_factor(), "step {step}");
        assert_eq!(office.planned("messaging.warn_staff").await, 1, "step {step}");
        let recorded: i64 = sqlx::query_scalar(
            "select count(*) from muneem.evidence_events
             where convert_from(body, 'UTF8') like '%people.factor_reset_done%'",
        )
        .fetch_one(&mut *office.conn().await)
        .await
        .expect("counted");
        assert_eq!(recorded, 1, "step {step}");
    }
}

/// Killed before the message is written, or after: it is written once, from the number that the link was made for, and
/// what was kept for it is gone.
#[tokio::test]
async fn crash_at_every_step_writes_an_invitation_and_its_code_once_and_by_anothers_number() {
    for step in [0, usize::MAX] {
        let office = Office::open("en").await;
        office.add_account().await;
        let mut conn = office.conn().await;
        let made = add_business(&mut conn, "kaveri-retail", "Kaveri Retail", &Noon, &*office.deps.chance).await;
        let asks = made.expect("a shop").business_id;
        let contact = Contact::Phone(Phone::parse("+919800000007").expect("a phone"));
        let new = NewLink {
            business_id: asks,
            purpose: Purpose::Approval,
            subject_id: Uuid::from_u128(7),
            contact: &contact,
            carried_by: Some(office.business),
            language: "hi",
            expires_at: Noon.now() + TimeDelta::days(1),
            uses: 1,
            made_by: "operator",
            origin: "https://muneem.example.in",
        };
        let made = links::make(&mut conn, &office.deps.vault, &new, Noon.now(), &*office.deps.chance).await;
        let (link, url) = made.expect("made");
        let url = secrecy::ExposeSecret::expose_secret(&url).to_owned();
        office.run_twice("messaging.send_link", step).await;
        let secret = url.rsplit('/').next().expect("a secret");
        let at = (secret, Purpose::Approval);
        links::make_code(&mut conn, &office.deps.vault, at, Noon.now(), &*office.deps.chance).await.expect("a code");
        office.run_twice("messaging.send_link", step).await;

        let ends: Vec<DateTime<Utc>> =
            sqlx::query_scalar("select expires_at from muneem.messaging_messages order by message_id")
                .fetch_all(&mut *conn)
                .await
                .expect("messages");
        assert_eq!(ends, [link.expires_at, Noon.now() + TimeDelta::minutes(10)], "a void code is not sent late");
        let said: Vec<(Uuid, BusinessId, String, String, Vec<u8>)> = sqlx::query_as(
            "select message_id, business_id, template, language, params_sealed from muneem.messaging_messages
             order by message_id",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("messages");
        let templates: Vec<_> =
            said.iter().map(|(_, from, template, language, _)| (*from, &**template, &**language)).collect();
        assert_eq!(
            templates,
            [(office.business, "approval_link", "hi"), (office.business, "sign_in_code", "hi")],
            "step {step}"
        );
        let mut plain = Vec::new();
        for (id, _, _, _, sealed) in &said {
            let row = id.to_string();
            let table = "muneem.messaging_messages";
            let cell = Cell { business_id: office.business, table, column: "params_sealed", row: &row };
            let opened = office.deps.vault.open(&mut conn, &cell, sealed).await.expect("it opens");
            plain.push(String::from_utf8(opened.to_vec()).expect("JSON"));
        }
        assert!(plain[0].contains(&url) && plain[0].contains("Kaveri Retail"), "{}", plain[0]);
        let kept: (bool, bool) = sqlx::query_as(
            "select url_sealed is null, code_sealed is null from muneem.people_links where link_id = $1",
        )
        .bind(link.link_id.0)
        .fetch_one(&mut *conn)
        .await
        .expect("the link");
        assert_eq!(kept, (true, true), "step {step}: what was kept for the messages alone is gone");
        assert_eq!(office.planned("messaging.send_link").await, 0, "step {step}");
        let code: String = plain[1].chars().filter(char::is_ascii_digit).collect();
        let entered = links::enter_code(&mut conn, at, &code, Noon.now(), &*office.deps.chance).await.expect("entered");
        assert!(
            matches!(entered, links::Entered::Right(_)),
            "the code that was written is the one that opens: {entered:?}"
        );
    }
}
