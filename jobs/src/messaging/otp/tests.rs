//! One-time codes on a real database: asked for, sent, entered, killed on the way.

mod ended;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::{
    Deps,
    messaging::{
        self, Account, Settings,
        wishes::{
            Inbound, Said, hear,
            tests::{Counting, Shops, mail, noon, phone},
        },
    },
    outbound::{
        Carrier, Clock, Mail, MailOutcome, Mailer,
        carrier::{Media, MediaId, NumberId, OutgoingMessage, SendOutcome, Sender, UploadError},
        mailer::MailFailure,
        object_store::MemoryObjects,
    },
    people::BusinessId,
    queue::{
        Done, JobContext, JobFailure, Kind, Lane, Steps,
        work::{self, Claimed, Held, PutBack, Want},
    },
};

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

/// A mail server that keeps what it is given, or refuses it.
#[derive(Default)]
struct Post {
    kept: Mutex<Vec<Mail>>,
    refuses: AtomicBool,
}

#[async_trait]
impl Mailer for Post {
    async fn send(&self, mail: &Mail) -> MailOutcome {
        if self.refuses.load(Ordering::SeqCst) {
            return MailOutcome::Refused(MailFailure::new("RCPT refused"));
        }
        self.kept.lock().expect("not poisoned").push(mail.clone());
        MailOutcome::Accepted
    }
}

struct Hands(Mutex<DateTime<Utc>>);

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().expect("not poisoned")
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

struct Desk {
    shops: Shops,
    deps: Arc<Deps>,
    post: Arc<Post>,
    clock: Arc<Hands>,
    worker: i64,
}

impl Desk {
    async fn open() -> Self {
        let shops = Shops::open().await;
        let (post, clock) = (Arc::new(Post::default()), Arc::new(Hands(Mutex::new(noon()))));
        let deps = Arc::new(Deps {
            db: shops.db.app_pool(),
            clock: Arc::clone(&clock) as _,
            chance: Arc::clone(&shops.chance) as _,
            objects: Arc::new(MemoryObjects::default()),
            carrier: Arc::new(NoCarrier),
            mailer: Arc::clone(&post) as _,
            vault: Arc::clone(&shops.vault),
            messaging: Settings::DEFAULT,
            webhooks: crate::webhooks::Sending::nowhere(),
        });
        let mut conn = shops.db.pool().acquire().await.expect("a connection");
        let worker = work::join(&mut conn, "test", std::time::Duration::from_secs(60), 16).await.expect("a worker");
        drop(conn);
        Self { shops, deps, post, clock, worker }
    }

    async fn add_account(&self) {
        let account = Account {
            business: self.shops.sharma,
            number: NumberId::parse("100200300").expect("a number id"),
            waba_id: "500600".to_owned(),
            display_phone: Phone::parse("+919876500142").expect("a phone"),
        };
        let mut conn = self.shops.db.pool().acquire().await.expect("a connection");
        messaging::set_account(&mut conn, &account, &self.shops.by(noon())).await.expect("an account");
    }

    fn wait(&self, seconds: i64) {
        *self.clock.0.lock().expect("not poisoned") += TimeDelta::seconds(seconds);
    }

    async fn ask_of(&self, business: BusinessId, new: &NewOtp<'_>) -> Result<Issued, Error> {
        let mut tx = self.shops.of(business).await;
        let issued = ask(&mut tx, &self.shops.vault, &self.shops.by(self.clock.now()), business, new).await?;
        tx.commit().await.expect("committed");
        Ok(issued)
    }

    async fn ask(&self, new: &NewOtp<'_>) -> Result<Issued, Error> {
        self.ask_of(self.shops.sharma, new).await
    }

    async fn enter(&self, entry: &Entry<'_>) -> Entered {
        self.enter_of(self.shops.sharma, entry).await
    }

    async fn enter_of(&self, business: BusinessId, entry: &Entry<'_>) -> Entered {
        let mut tx = self.shops.of(business).await;
        let by = self.shops.by(self.clock.now());
        let entered = enter(&mut tx, &self.shops.vault, &by, business, entry).await.expect("entered");
        tx.commit().await.expect("committed");
        entered
    }

    async fn claim(&self, kind: &str) -> Option<Claimed> {
        let wants = [Lane::Otp, Lane::Transactional].map(|lane| Want { lane, jobs: 16, after: Uuid::nil() });
        let mut conn = self.shops.db.pool().acquire().await.expect("a connection");
        let claimed = work::claim(&mut conn, self.worker, &wants).await.expect("a claim");
        let (wanted, others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| claimed.kind == kind);
        drop(conn);
        for other in &others {
            self.put_back(other).await;
        }
        wanted.into_iter().next()
    }

    async fn put_back(&self, claimed: &Claimed) {
        let held = Held { job: claimed.job, attempt: claimed.attempt };
        let back = PutBack { held, run_at: None, counts: true, cause: Some("test.killed"), error: None };
        let mut conn = self.shops.db.pool().acquire().await.expect("a connection");
        work::put_back(&mut conn, self.worker, &[back]).await.expect("put back");
    }

    async fn handle(&self, claimed: &Claimed, steps: Arc<StopAt>) -> Result<Done, JobFailure> {
        let kind = match claimed.kind.as_str() {
            "messaging.send_otp" => Kind::of::<SendOtp>(),
            "messaging.fall_back_otp" => Kind::of::<FallBackOtp>(),
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
        let mut conn = self.shops.db.pool().acquire().await.expect("a connection");
        let payload = claimed.open(&mut conn, &self.deps.vault).await.expect("it opens");
        drop(conn);
        kind.run(&payload, &context).await
    }

    /// Runs a job of this kind, killed at this step, and again to its end.
    async fn run_twice(&self, kind: &str, step: usize) {
        let claimed = self.claim(kind).await.unwrap_or_else(|| panic!("no {kind} is ready"));
        let stop = Arc::new(StopAt { step, seen: AtomicUsize::new(0), stopped: Notify::new() });
        let crashed = tokio::select! {
            done = self.handle(&claimed, Arc::clone(&stop)) => { done.expect("it ends well"); false }
            () = stop.stopped.notified() => true,
        };
        if crashed {
            self.put_back(&claimed).await;
            let again = self.claim(kind).await.expect("it is ready again");
            let never = StopAt { step: usize::MAX, seen: AtomicUsize::new(0), stopped: Notify::new() };
            self.handle(&again, Arc::new(never)).await.expect("the second attempt ends well");
        }
    }

    async fn run(&self, kind: &str) {
        self.run_twice(kind, usize::MAX).await;
    }

    /// How many jobs wait to fall back. The queue lifts an instant that is past by its own clock to now.
    async fn falling_back(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.queue_jobs where kind = 'messaging.fall_back_otp'")
            .fetch_one(&self.shops.db.pool())
            .await
            .expect("counted")
    }

    /// The codes that were mailed, in their order.
    fn mailed(&self) -> Vec<String> {
        let kept = self.post.kept.lock().expect("not poisoned");
        let digits = |mail: &Mail| mail.subject().chars().filter(char::is_ascii_digit).collect();
        kept.iter().map(digits).collect()
    }

    /// The code in the last message that was planned.
    async fn planned(&self) -> String {
        let mut conn = self.shops.db.pool().acquire().await.expect("a connection");
        let (id, sealed): (Uuid, Vec<u8>) = sqlx::query_as(
            "select message_id, params_sealed from muneem.messaging_messages order by created_at desc, message_id desc limit 1",
        )
        .fetch_one(&mut *conn)
        .await
        .expect("a message");
        let row = id.to_string();
        let cell = Cell {
            business_id: self.shops.sharma,
            table: "muneem.messaging_messages",
            column: "params_sealed",
            row: &row,
        };
        let plain = self.shops.vault.open(&mut conn, &cell, &sealed).await.expect("opened");
        let content: serde_json::Value = serde_json::from_slice(&plain).expect("JSON");
        content["sign_in_code"]["code"].as_str().expect("a code").to_owned()
    }

    async fn states(&self) -> Vec<(String, String, Option<String>)> {
        sqlx::query_as("select channel, state, reason from muneem.messaging_otp_codes order by issued_at, hop")
            .fetch_all(&self.shops.db.pool())
            .await
            .expect("codes")
    }

    async fn addresses_kept(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.messaging_otps where to_sealed is not null")
            .fetch_one(&self.shops.db.pool())
            .await
            .expect("counted")
    }
}

fn to_mail(address: &str) -> NewOtp<'static> {
    NewOtp {
        phone: None,
        email: Some(Email::parse(address).expect("an address")),
        purpose: "sign_in",
        language: "en",
        channels: &[],
        digits: 6,
        life: LONGEST_LIFE,
        asker: None,
    }
}

fn to_phone(ending: u32) -> NewOtp<'static> {
    let Contact::Phone(phone) = phone(ending) else { panic!("a phone") };
    NewOtp { phone: Some(phone), email: None, ..to_mail("nobody@example.in") }
}

fn entry(otp_id: OtpId, code: &str) -> Entry<'_> {
    Entry { otp_id, code, to: None, purpose: None }
}

/// Another code than this one.
fn wrong(code: &str) -> String {
    code.chars().map(|digit| if digit == '9' { '0' } else { char::from(digit as u8 + 1) }).collect()
}

#[tokio::test]
async fn a_code_is_right_once_and_five_wrong_ones_lock_it() {
    let desk = Desk::open().await;
    let issued = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    assert_eq!(issued.expires_at, noon() + LONGEST_LIFE);
    desk.run("messaging.send_otp").await;
    let code = desk.mailed().pop().expect("a mail");
    assert_eq!(code.len(), 6);
    assert_eq!(desk.addresses_kept().await, 0, "nothing more is sent");
    let asha = mail("Asha@example.in");
    for (to, purpose, by) in [
        (Some(&mail("ravi@example.in")), None, desk.shops.sharma),
        (None, Some("checkout"), desk.shops.sharma),
        (None, None, desk.shops.verma),
    ] {
        let wrong = Entry { to, purpose, ..entry(issued.otp_id, &code) };
        assert!(!desk.enter_of(by, &wrong).await.verified, "{wrong:?}");
    }
    assert!(!desk.enter(&entry(issued.otp_id, &wrong(&code))).await.verified);
    // In the digits of another script, with blanks, as people type them.
    let typed: String = code.chars().map(|digit| char::from_u32(0x966 + digit as u32 - 48).expect("a digit")).collect();
    let spaced = format!(" {} {}", &typed[..9], &typed[9..]);
    let right = Entry { to: Some(&asha), purpose: Some("sign_in"), ..entry(issued.otp_id, &spaced) };
    assert_eq!(desk.enter(&right).await, Entered { verified: true, channel: Some(Channel::Mail) });
    assert!(!desk.enter(&right).await.verified, "used up");
    assert_eq!(
        (desk.shops.told("messaging.otp_verified").await, desk.shops.told("messaging.otp_failed").await),
        (1, 3)
    );

    desk.wait(3600);
    let issued = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    desk.run("messaging.send_otp").await;
    let code = desk.mailed().pop().expect("a mail");
    for _ in 0..5 {
        assert!(!desk.enter(&entry(issued.otp_id, &wrong(&code))).await.verified);
    }
    assert!(!desk.enter(&entry(issued.otp_id, &code)).await.verified, "locked");
    assert_eq!((desk.shops.told("messaging.otp_issued").await, desk.shops.told("messaging.otp_locked").await), (2, 1));
    // One that never was looks the same.
    assert!(!desk.enter(&entry(OtpId(Uuid::nil()), &code)).await.verified);

    desk.wait(3600);
    let issued = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    desk.run("messaging.send_otp").await;
    let code = desk.mailed().pop().expect("a mail");
    desk.wait(601);
    assert!(!desk.enter(&entry(issued.otp_id, &code)).await.verified, "too late");
}

#[tokio::test]
async fn atk_050_of_twenty_right_entries_at_once_one_wins() {
    let desk = Arc::new(Desk::open().await);
    let issued = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    desk.run("messaging.send_otp").await;
    let code = desk.mailed().pop().expect("a mail");
    let mut entering = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (desk, code) = (Arc::clone(&desk), code.clone());
        entering.spawn(async move { desk.enter(&entry(issued.otp_id, &code)).await.verified });
    }
    let verified = entering.join_all().await;
    assert_eq!(verified.iter().filter(|verified| **verified).count(), 1);
}

#[tokio::test]
async fn atk_051_codes_are_asked_for_so_often_and_no_oftener_by_anyone() {
    let desk = Desk::open().await;
    let wait = async |new: &NewOtp<'_>| match desk.ask(new).await {
        Ok(_) => TimeDelta::zero(),
        Err(Error::TooOften(wait)) => wait,
        Err(other) => panic!("{other}"),
    };
    let asha = to_phone(1);
    assert_eq!(wait(&asha).await, TimeDelta::zero());
    assert_eq!(wait(&asha).await, TimeDelta::seconds(30));
    // One address, an hour: five, then one every twelve minutes.
    for _ in 0..4 {
        desk.wait(30);
        assert_eq!(wait(&asha).await, TimeDelta::zero());
    }
    desk.wait(30);
    assert!(wait(&asha).await > TimeDelta::minutes(9), "the sixth waits");
    // Another business counts for itself.
    assert!(desk.ask_of(desk.shops.verma, &asha).await.is_ok());
    // One asker over many addresses.
    for ending in 0..5 {
        let address = format!("a{ending}@example.in");
        assert_eq!(wait(&NewOtp { asker: Some("session 7"), ..to_mail(&address) }).await, TimeDelta::zero());
    }
    assert!(wait(&NewOtp { asker: Some("session 7"), ..to_mail("a9@example.in") }).await > TimeDelta::zero());
    assert_eq!(wait(&to_mail("a9@example.in")).await, TimeDelta::zero(), "what was refused was not counted");
    // A run through the numbers of one block.
    desk.wait(3600);
    let mut passed = 0;
    for ending in 100..160 {
        passed += u32::from(wait(&to_phone(ending)).await == TimeDelta::zero());
    }
    assert_eq!(passed, 30);
    // Two hundred addresses an instant, none of which is ever proved: the business itself waits.
    desk.wait(3600);
    sqlx::query("update muneem.messaging_otp_limits set arrives_at = $1 where bucket = 'unproved'")
        .bind(desk.clock.now() + TimeDelta::seconds(299))
        .execute(&desk.shops.db.pool())
        .await
        .expect("moved");
    sqlx::query("delete from muneem.queue_jobs").execute(&desk.shops.db.pool()).await.expect("emptied");
    let issued = desk.ask(&to_mail("b@example.in")).await.expect("the last one");
    assert!(wait(&to_mail("c@example.in")).await > TimeDelta::zero());
    desk.run("messaging.send_otp").await;
    let code = desk.mailed().pop().expect("a mail");
    assert!(desk.enter(&entry(issued.otp_id, &code)).await.verified);
    assert_eq!(wait(&to_mail("c@example.in")).await, TimeDelta::zero(), "what was proved is given back");
}

#[tokio::test]
async fn a_later_request_takes_the_place_of_an_earlier_one() {
    let desk = Desk::open().await;
    let first = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    desk.run("messaging.send_otp").await;
    desk.wait(31);
    let other = NewOtp { purpose: "checkout", ..to_mail("asha@example.in") };
    desk.ask(&other).await.expect("for something else");
    desk.run("messaging.send_otp").await;
    desk.wait(31);
    let second = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
    desk.run("messaging.send_otp").await;
    let codes = desk.mailed();
    assert!(!desk.enter(&entry(first.otp_id, &codes[0])).await.verified);
    assert!(!desk.enter(&entry(second.otp_id, &codes[0])).await.verified, "a code is bound to its request");
    assert!(desk.enter(&entry(second.otp_id, &codes[2])).await.verified);
}

#[tokio::test]
async fn a_code_without_a_sign_is_followed_by_a_fresh_one_on_the_next_way() {
    let desk = Desk::open().await;
    desk.add_account().await;
    let both = NewOtp { email: Some(Email::parse("asha@example.in").expect("an address")), ..to_phone(1) };
    for (state, falls, first_is_good) in
        [("queued", true, true), ("accepted", true, true), ("sent", false, true), ("failed", true, false)]
    {
        let issued = desk.ask(&both).await.expect("issued");
        desk.run("messaging.send_otp").await;
        let by_phone = desk.planned().await;
        assert_eq!(desk.falling_back().await, 1, "{state}");
        sqlx::query("update muneem.messaging_messages set state = $1")
            .bind(state)
            .execute(&desk.shops.db.pool())
            .await
            .expect("moved");
        let before = desk.mailed().len();
        desk.wait(20);
        desk.run("messaging.fall_back_otp").await;
        let mailed = desk.mailed();
        assert_eq!(mailed.len(), before + usize::from(falls), "{state}");
        assert_eq!(desk.addresses_kept().await, 0, "{state}: nothing more is sent");
        if falls {
            let by_mail = mailed.last().expect("a mail");
            assert_ne!(*by_mail, by_phone, "never the same one twice");
            if !first_is_good {
                assert!(!desk.enter(&entry(issued.otp_id, &by_phone)).await.verified, "{state}: nobody has it");
                let entered = desk.enter(&entry(issued.otp_id, by_mail)).await;
                assert_eq!(entered, Entered { verified: true, channel: Some(Channel::Mail) });
            }
        }
        if first_is_good {
            let entered = desk.enter(&entry(issued.otp_id, &by_phone)).await;
            assert_eq!(entered, Entered { verified: true, channel: Some(Channel::Whatsapp) }, "{state}");
        }
        desk.wait(3600 * 3);
    }
}

#[tokio::test]
async fn who_cannot_be_reached_one_way_is_reached_the_next_and_the_answer_is_the_same() {
    let desk = Desk::open().await;
    let both = NewOtp { email: Some(Email::parse("asha@example.in").expect("an address")), ..to_phone(1) };
    // The business has no number: straight to mail.
    let first = desk.ask(&both).await.expect("issued");
    desk.run("messaging.send_otp").await;
    assert_eq!(desk.mailed().len(), 1);
    // Nobody knows whose number it is, and the mail server refuses: the answer to whoever asks is the same.
    desk.wait(3600);
    desk.add_account().await;
    desk.post.refuses.store(true, Ordering::SeqCst);
    let mut tx = desk.shops.of(desk.shops.sharma).await;
    let doubtful = (&phone(1), noon());
    crate::messaging::wishes::identity_changed(
        &mut tx,
        &desk.shops.vault,
        &desk.shops.by(noon()),
        desk.shops.sharma,
        doubtful,
    )
    .await
    .expect("set");
    tx.commit().await.expect("committed");
    let second = desk.ask(&both).await.expect("issued");
    assert_eq!(second.expires_at - desk.clock.now(), first.expires_at - noon());
    desk.run("messaging.send_otp").await;
    let told: Vec<_> = desk
        .states()
        .await
        .into_iter()
        .map(|(channel, state, why)| format!("{channel} {state} {}", why.unwrap_or_default()))
        .collect();
    assert_eq!(
        told,
        ["whatsapp skipped no_way", "mail sent ", "whatsapp skipped identity_changed", "mail failed refused"]
    );
    assert_eq!(desk.addresses_kept().await, 0);
}

#[test]
fn a_code_has_its_digits_and_no_favourites() {
    let chance = Counting::default();
    for digits in 4..=8_i16 {
        let code = new_code(&chance, digits);
        assert_eq!(code.expose_secret().len(), usize::try_from(digits).expect("small"));
        assert!(code.expose_secret().bytes().all(|byte| byte.is_ascii_digit()));
    }
    assert_eq!(typed(" 12-3 ४५६ ").as_str(), "123456");
    assert_eq!(typed("12|34").as_str(), "1234");
}

#[test]
fn what_cannot_be_is_named() {
    let good = to_mail("asha@example.in");
    assert_eq!(good.check().expect("good"), [Channel::Mail]);
    let both = NewOtp { ..to_phone(1) };
    assert_eq!(both.check().expect("good"), [Channel::Whatsapp]);
    let long = "x".repeat(257);
    for bad in [
        NewOtp { email: None, ..good.clone() },
        NewOtp { channels: &[Channel::Whatsapp], ..good.clone() },
        NewOtp { channels: &[Channel::Mail, Channel::Mail], ..good.clone() },
        NewOtp { digits: 3, ..good.clone() },
        NewOtp { digits: 9, ..good.clone() },
        NewOtp { life: TimeDelta::seconds(601), ..good.clone() },
        NewOtp { life: TimeDelta::seconds(1), ..good.clone() },
        NewOtp { language: "English", ..good.clone() },
        NewOtp { asker: Some(&long), ..good.clone() },
    ] {
        assert!(matches!(bad.check(), Err(Error::BadField { .. })), "{bad:?}");
    }
    assert!(matches!(NewOtp { purpose: "Sign in", ..good }.check(), Err(Error::Wishes(_))));
}
