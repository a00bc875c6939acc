//! Signing in on a real database: what a code, a session, a count and a reset are worth under attack.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use muneem_postgres::testing::TestDb;
use sqlx::{PgPool, pool::PoolConnection, postgres::Postgres};

use super::*;

/// Counts, so that no two are alike and tests repeat.
#[derive(Default)]
struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        for (byte, value) in bytes.iter_mut().zip(count.iter().cycle()) {
            *byte = *value;
        }
    }
}

const ASHA: Uuid = Uuid::from_u128(1);
const RAVI: Uuid = Uuid::from_u128(2);
const MEENA: Uuid = Uuid::from_u128(3);
const SECRET: &[u8] = b"12345678901234567890";
/// Stands for what the vault makes of it.
const SEALED: &[u8] = b"sealed";
const ACCOUNT: AccountKey = AccountKey([1; 16]);

/// Rows of staff with nothing legible in them.
pub(super) async fn add_staff(db: &TestDb, people: &[Uuid]) {
    sqlx::query(
        "insert into muneem.people_staff
             (staff_id, name_sealed, phone_sealed, phone_index, phone_index_version, created_at)
         select id, '\\x00', '\\x00', decode(replace(id::text, '-', ''), 'hex'), 1, now() from unnest($1::uuid[]) id",
    )
    .bind(people)
    .execute(&db.pool())
    .await
    .expect("staff");
}

struct Desk {
    _db: TestDb,
    pool: PgPool,
    chance: Counting,
    now: DateTime<Utc>,
}

impl Desk {
    async fn open() -> Self {
        let db = TestDb::new(&crate::MIGRATOR).await;
        add_staff(&db, &[ASHA, RAVI, MEENA]).await;
        let now = "2009-02-13T23:31:30Z".parse().expect("an instant of RFC 6238's vectors");
        Self { pool: db.app_pool(), _db: db, chance: Counting::default(), now }
    }

    async fn conn(&self) -> PoolConnection<Postgres> {
        self.pool.acquire().await.expect("a connection")
    }

    fn after(&self, seconds: i64) -> DateTime<Utc> {
        self.now + TimeDelta::seconds(seconds)
    }

    /// Sets the authenticator up with the code of this moment.
    async fn enrol(&self, staff: Uuid) -> Vec<SecretString> {
        let mut db = self.conn().await;
        begin_totp(&mut db, staff, SEALED, self.now).await.expect("begun");
        let step = totp::check(SECRET, "005924", self.now).expect("a secret").expect("the code of this moment");
        confirm_totp(&mut db, staff, SEALED, step, self.now, &self.chance).await.expect("confirmed")
    }

    /// As the console does it: which step, and is it unused.
    async fn enter_totp(&self, code: &str, now: DateTime<Utc>) -> bool {
        match totp::check(SECRET, code, now).expect("a secret") {
            Some(step) => use_totp_step(&mut *self.conn().await, ASHA, step).await.expect("asked"),
            None => false,
        }
    }

    fn device(&self) -> SecretString {
        new_token(&self.chance)
    }

    async fn sign_in(&self, level: Level, device: &SecretString, now: DateTime<Utc>) -> Opened {
        let new = NewSession { staff_id: ASHA, level, device, device_name: "Firefox on Linux\n\u{1b}[31m" };
        open_session(&mut *self.conn().await, &new, now, &self.chance).await.expect("opened")
    }

    async fn find(&self, token: &SecretString, now: DateTime<Utc>) -> Option<Session> {
        find_session(&mut *self.conn().await, token.expose_secret(), now).await.expect("asked")
    }
}

/// Codes of the RFC's secret around the test's moment, by step.
fn code_of(step: i64) -> String {
    let at = DateTime::from_timestamp(step * 30, 0).expect("an instant");
    let found = (0..1_000_000)
        .map(|code| format!("{code:06}"))
        .find(|code| totp::check(SECRET, code, at).expect("a secret") == Some(step));
    found.expect("one of a million")
}

#[tokio::test]
async fn atk_050_totp_code_works_once() {
    let desk = Desk::open().await;
    desk.enrol(ASHA).await;
    let step = totp::step_at(desk.now);

    // The setup code is spent, although its step is still valid.
    assert!(!desk.enter_totp("005924", desk.now).await, "the setup code signs in");

    // Thirty at once: one gets in.
    let next = code_of(step + 1);
    let outcomes = join_all((0..30).map(|_| desk.enter_totp(&next, desk.after(30)))).await;
    assert_eq!(outcomes.iter().filter(|entered| **entered).count(), 1);
    assert!(!desk.enter_totp(&next, desk.after(31)).await, "it works again");

    // A newer step is used first; the older one, still inside the tolerance, does not follow.
    let newest = code_of(step + 3);
    assert!(desk.enter_totp(&newest, desk.after(60)).await);
    assert!(!desk.enter_totp(&code_of(step + 2), desk.after(60)).await, "an older step after a newer");
}

#[tokio::test]
async fn a_recovery_code_works_once_and_burns_the_codes_that_were_on_the_screen() {
    let desk = Desk::open().await;
    let codes = desk.enrol(ASHA).await;
    let mut db = desk.conn().await;
    let (first, now) = (codes[0].expose_secret(), desk.after(60));
    assert!(!use_recovery_code(&mut db, RAVI, first, now).await.expect("asked"), "somebody else's");

    let spray = join_all(
        (0..20).map(async |_| use_recovery_code(&mut *desk.conn().await, ASHA, first, now).await.expect("asked")),
    );
    assert_eq!(spray.await.into_iter().filter(|used| *used).count(), 1);
    let step = totp::step_at(now);
    for burnt in [step, step + 1] {
        assert!(!use_totp_step(&mut db, ASHA, burnt).await.expect("asked"), "step {burnt}");
    }
    assert!(use_totp_step(&mut db, ASHA, step + 2).await.expect("asked"));
    assert_eq!(load_credentials(&mut db, ASHA).await.expect("loaded").recovery_codes_left, 9);

    // A new set ends the old one.
    let fresh = replace_recovery_codes(&mut db, ASHA, now, &desk.chance).await.expect("replaced");
    assert!(!use_recovery_code(&mut db, ASHA, codes[1].expose_secret(), now).await.expect("asked"));
    assert!(use_recovery_code(&mut db, ASHA, fresh[1].expose_secret(), now).await.expect("asked"));
    assert!(!use_recovery_code(&mut db, ASHA, "no code at all", now).await.expect("asked"));
}

#[tokio::test]
async fn an_authenticator_counts_only_after_its_first_code_and_under_the_secret_it_was_checked_with() {
    let desk = Desk::open().await;
    let mut db = desk.conn().await;
    begin_totp(&mut db, ASHA, SEALED, desk.now).await.expect("begun");
    let before = load_credentials(&mut db, ASHA).await.expect("loaded");
    assert_eq!((before.totp_sealed, before.totp_pending_sealed.as_deref()), (None, Some(SEALED)));
    assert!(!use_totp_step(&mut db, ASHA, 5).await.expect("asked"), "nothing is set up");

    // Another tab began anew: what the first one shows is not confirmed.
    begin_totp(&mut db, ASHA, b"another", desk.now).await.expect("begun");
    let late = confirm_totp(&mut db, ASHA, SEALED, 5, desk.now, &desk.chance).await;
    assert!(matches!(late, Err(Error::NotConfirmed)), "{late:?}");
    let codes = confirm_totp(&mut db, ASHA, b"another", 5, desk.now, &desk.chance).await.expect("confirmed");
    assert_eq!(codes.len(), 10);
    let nobody = confirm_totp(&mut db, RAVI, SEALED, 5, desk.now, &desk.chance).await;
    assert!(matches!(nobody, Err(Error::NotConfirmed)), "{nobody:?}");
    assert!(!format!("{:?}", load_credentials(&mut db, ASHA).await.expect("loaded")).contains("another"));
}

#[tokio::test]
async fn atk_051_guesses_at_once_are_counted_each_and_strangers_do_not_lock_the_owner_out() {
    let desk = Desk::open().await;
    let network = |number: u8| Place::Network([number; 16]);
    let attempt = async |place, now| begin_attempt(&mut *desk.conn().await, ACCOUNT, place, now).await;

    // Forty at once from one place: four are free, one more is counted and makes the rest wait.
    let outcomes = join_all((0..40).map(|_| attempt(network(1), desk.now))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::TooSoon { .. }))));

    // From everywhere: each new place gets in until the account's own limit, which alarms once.
    let mut alarms = 0;
    let mut looked_at = 0;
    for number in 2..=100 {
        match attempt(network(number), desk.after(10)).await {
            Ok(alarming) => {
                looked_at += 1;
                alarms += i32::from(alarming);
            }
            Err(Error::TooSoon { until }) => assert!(until <= desk.after(10 + 60), "a stranger may cost a minute"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((looked_at, alarms), (6, 1));

    // Where she has signed in before, the owner does not wait for strangers, and is counted all the same.
    let own = Place::Known([9; 16]);
    let outcomes = join_all((0..40).map(|_| attempt(own, desk.after(10)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    clear_attempts(&mut *desk.conn().await, ACCOUNT, own).await.expect("cleared");
    assert!(attempt(own, desk.after(11)).await.is_ok());

    // Another account is not concerned, and a day of quiet forgets.
    let other = begin_attempt(&mut *desk.conn().await, AccountKey([2; 16]), network(1), desk.after(10)).await;
    assert!(other.is_ok());
    assert!(attempt(network(1), desk.after(10 + 86_401 + 60)).await.is_ok());
}

#[tokio::test]
async fn a_right_attempt_clears_the_count_of_its_place_and_not_that_of_strangers() {
    let desk = Desk::open().await;
    let mut db = desk.conn().await;
    let (home, elsewhere) = (Place::Network([1; 16]), Place::Network([2; 16]));
    // The second of two that come at once has read the clock before the first.
    for now in [desk.after(1), desk.now, desk.now] {
        begin_attempt(&mut db, ACCOUNT, elsewhere, now).await.expect("looked at");
    }
    for _ in 0..20 {
        begin_attempt(&mut db, ACCOUNT, home, desk.now).await.expect("looked at");
        clear_attempts(&mut db, ACCOUNT, home).await.expect("cleared");
    }
    let rows: Vec<(Vec<u8>, i32)> =
        sqlx::query_as("select place, failures from muneem.people_sign_in_failures order by place")
            .fetch_all(&mut *db)
            .await
            .expect("rows");
    assert_eq!(rows, [(vec![], 3), (vec![2; 16], 3)]);
}

#[tokio::test]
async fn a_sent_code_works_once_for_ten_minutes_in_its_own_browser() {
    let desk = Desk::open().await;
    let mut db = desk.conn().await;
    let sent = make_code(&mut db, ASHA, Channel::Phone, desk.now, &desk.chance).await.expect("made");
    let (binding, code) = (sent.binding.expose_secret(), sent.code.expose_secret());
    let enter = async |binding: &str, code: &str, now| {
        enter_code(&mut *desk.conn().await, sent.code_id, binding, code, now).await.expect("asked")
    };
    // Read out on the telephone and typed into somebody else's browser.
    assert_eq!(enter("another browser", code, desk.now).await, Entered::Wrong { tries_left: 4 });
    let outcomes = join_all((0..4).map(|_| enter(binding, code, desk.after(599)))).await;
    assert_eq!(
        outcomes.iter().filter(|entered| **entered == Entered::Right { staff: ASHA, channel: Channel::Phone }).count(),
        1
    );
    assert_eq!(outcomes.iter().filter(|entered| **entered == Entered::Void).count(), 3);

    let late = make_code(&mut db, ASHA, Channel::Email, desk.now, &desk.chance).await.expect("made");
    let (binding, code) = (late.binding.expose_secret(), late.code.expose_secret());
    assert_eq!(enter_code(&mut db, late.code_id, binding, code, desk.after(600)).await.expect("asked"), Entered::Void);
    let row: String = sqlx::query_scalar("select c::text from muneem.people_sign_in_codes c where code_id = $1")
        .bind(late.code_id)
        .fetch_one(&mut *db)
        .await
        .expect("a row");
    assert!(!row.contains(code) && !row.contains(binding), "{row}");
}

#[tokio::test]
async fn a_sent_code_bears_five_tries_and_a_person_five_codes_an_hour() {
    let desk = Desk::open().await;
    let mut db = desk.conn().await;
    let first = make_code(&mut db, ASHA, Channel::Phone, desk.now, &desk.chance).await.expect("made");
    let wrong = if first.code.expose_secret() == "000000" { "000001" } else { "000000" };
    let guesses = join_all((0..20).map(async |_| {
        let mut db = desk.conn().await;
        enter_code(&mut db, first.code_id, first.binding.expose_secret(), wrong, desk.now).await.expect("asked")
    }));
    assert_eq!(guesses.await.iter().filter(|entered| matches!(entered, Entered::Wrong { .. })).count(), 5);
    let right = (first.binding.expose_secret(), first.code.expose_secret());
    let late = enter_code(&mut db, first.code_id, right.0, right.1, desk.now).await.expect("asked");
    assert_eq!(late, Entered::Void, "after five guesses");

    // Each new code ends the one before; ten at once are still five in all.
    let made =
        join_all((0..10).map(async |_| {
            make_code(&mut *desk.conn().await, ASHA, Channel::Phone, desk.after(1), &desk.chance).await
        }));
    let made = made.await;
    let good: Vec<_> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
    assert_eq!(good.len(), 4);
    let mut work = 0;
    for sent in good {
        let (binding, code) = (sent.binding.expose_secret(), sent.code.expose_secret());
        let entered = enter_code(&mut db, sent.code_id, binding, code, desk.after(2)).await.expect("asked");
        work += i32::from(entered == Entered::Right { staff: ASHA, channel: Channel::Phone });
    }
    assert_eq!(work, 1, "the last one alone");
    let again = make_code(&mut db, ASHA, Channel::Phone, desk.after(3600), &desk.chance).await;
    assert!(again.is_ok(), "an hour later");
    assert!(make_code(&mut db, RAVI, Channel::Phone, desk.after(1), &desk.chance).await.is_ok(), "somebody else");
}

#[tokio::test]
async fn atk_054_a_session_gets_a_new_token_at_each_step_and_an_ended_one_stays_ended() {
    let desk = Desk::open().await;
    let device = desk.device();
    let half = desk.sign_in(Level::First, &device, desk.now).await;
    assert!(!half.session.is_stepped_up(desk.now), "half way is no proof");

    // Fixation: the token from before the second factor opens nothing after it. Of two that race one wins.
    let renewed = join_all((0..5).map(async |_| {
        renew_session(&mut *desk.conn().await, half.token.expose_secret(), desk.after(5), &desk.chance).await
    }));
    let mut won: Vec<_> = renewed.await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    let full = won.remove(0);
    assert_eq!((full.session.level, full.session.device_name.as_str()), (Level::Full, "Firefox on Linux[31m"));
    assert!(desk.find(&half.token, desk.after(6)).await.is_none(), "the old token still opens");
    assert!(desk.find(&full.token, desk.after(6)).await.is_some());

    // Step-up: another token again, and the absolute end stays where it was.
    let stepped = renew_session(&mut *desk.conn().await, full.token.expose_secret(), desk.after(900), &desk.chance)
        .await
        .expect("renewed");
    assert!(desk.find(&full.token, desk.after(901)).await.is_none());
    assert_eq!(stepped.session.expires_at, full.session.expires_at);

    // A cookie stolen before signing out, changing the password, or being removed, is worth nothing after.
    let mut db = desk.conn().await;
    assert!(end_session(&mut db, ASHA, stepped.session.session_id, desk.after(902)).await.expect("ended"));
    assert!(desk.find(&stepped.token, desk.after(903)).await.is_none());
    let (one, two) =
        (desk.sign_in(Level::Full, &device, desk.now).await, desk.sign_in(Level::Full, &device, desk.now).await);
    set_password(&mut db, ASHA, "$argon2id$new", Some(two.session.session_id), desk.after(1)).await.expect("set");
    assert!(desk.find(&one.token, desk.after(2)).await.is_none(), "the password changed");
    assert!(desk.find(&two.token, desk.after(2)).await.is_some(), "she changed it here");
    forget_staff(&mut db, ASHA, desk.after(3)).await.expect("removed");
    assert!(desk.find(&two.token, desk.after(4)).await.is_none());
    assert!(renew_session(&mut db, two.token.expose_secret(), desk.after(4), &desk.chance).await.is_err());
}

#[tokio::test]
async fn a_session_idles_half_an_hour_lives_twelve_and_is_known_by_its_digest_alone() {
    let desk = Desk::open().await;
    let device = desk.device();
    let opened = desk.sign_in(Level::Full, &device, desk.now).await;
    let row: String = sqlx::query_scalar("select s::text from muneem.people_sessions s")
        .fetch_one(&mut *desk.conn().await)
        .await
        .expect("a row");
    assert!(!row.contains(opened.token.expose_secret()) && !row.contains(device.expose_secret()), "{row}");

    // Used every 29 minutes it lives, until twelve hours have passed.
    let mut at = 0;
    while at + 29 * 60 < 12 * 3600 {
        at += 29 * 60;
        assert!(desk.find(&opened.token, desk.after(at)).await.is_some(), "{at}");
    }
    assert!(desk.find(&opened.token, desk.after(12 * 3600)).await.is_none(), "twelve hours are the end");
    let idle = desk.sign_in(Level::Full, &device, desk.now).await;
    assert!(desk.find(&idle.token, desk.after(1799)).await.is_some());
    assert!(desk.find(&idle.token, desk.after(1799 + 1800)).await.is_none(), "idle for half an hour");
    let half = desk.sign_in(Level::First, &device, desk.now).await;
    assert!(desk.find(&half.token, desk.after(600)).await.is_none(), "the second factor did not come");

    let stepped = desk.sign_in(Level::Full, &device, desk.now).await.session;
    for (seconds, counts) in [(0, true), (300, true), (301, false), (-1, false)] {
        assert_eq!(stepped.is_stepped_up(desk.after(seconds)), counts, "{seconds}");
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner_alone_and_a_new_browser_is_noticed() {
    let desk = Desk::open().await;
    let mut db = desk.conn().await;
    let (laptop, phone) = (desk.device(), desk.device());
    let first = desk.sign_in(Level::Full, &laptop, desk.now).await;
    assert!(!first.new_device, "the first browser of all is no news");
    assert!(known_place(&mut db, ASHA, &laptop).await.expect("asked").is_some());
    assert_eq!(known_place(&mut db, ASHA, &phone).await.expect("asked"), None);
    assert_eq!(known_place(&mut db, RAVI, &laptop).await.expect("asked"), None);
    let second = desk.sign_in(Level::Full, &phone, desk.after(1)).await;
    assert!(second.new_device);
    assert!(!desk.sign_in(Level::Full, &phone, desk.after(2)).await.new_device, "now it is known");
    // Half way is not signed in: a stranger with the password alone does not make her browser known.
    let stranger = desk.device();
    desk.sign_in(Level::First, &stranger, desk.after(2)).await;
    assert_eq!(known_place(&mut db, ASHA, &stranger).await.expect("asked"), None);

    assert_eq!(list_sessions(&mut db, ASHA, desk.after(3)).await.expect("listed").len(), 4);
    assert_eq!(list_sessions(&mut db, RAVI, desk.after(3)).await.expect("listed").len(), 0);
    let id = first.session.session_id;
    assert!(!end_session(&mut db, RAVI, id, desk.after(3)).await.expect("asked"), "not his");
    assert_eq!(end_all_sessions(&mut db, ASHA, Some(id), desk.after(3)).await.expect("ended"), 3);
    assert_eq!(list_sessions(&mut db, ASHA, desk.after(4)).await.expect("listed")[0].session_id, id);

    forget_old_sessions(&mut db, desk.after(86_400 * 40)).await.expect("forgotten");
    let left: i64 =
        sqlx::query_scalar("select count(*) from muneem.people_sessions").fetch_one(&mut *db).await.expect("counted");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn atk_062_a_second_factor_goes_by_a_second_person_and_after_a_day() {
    let desk = Desk::open().await;
    desk.enrol(ASHA).await;
    let session = desk.sign_in(Level::Full, &desk.device(), desk.now).await;
    let mut db = desk.conn().await;
    let reset = ask_reset(&mut db, ASHA, RAVI, desk.now, &desk.chance).await.expect("asked");
    let twice = ask_reset(&mut db, ASHA, MEENA, desk.now, &desk.chance).await;
    assert!(matches!(twice, Err(Error::ResetUnderWay)), "{twice:?}");

    // Neither who asked nor whose it is, in the program or past it.
    for same in [RAVI, ASHA] {
        let alone = approve_reset(&mut db, reset.reset_id, same, desk.now).await;
        assert!(matches!(alone, Err(Error::SecondPersonNeeded)), "{alone:?}");
        let past = sqlx::query(
            "update muneem.people_factor_resets set approved_by = $1, due_at = asked_at + interval '2 days'",
        )
        .bind(same)
        .execute(&mut *db)
        .await
        .expect_err("the database refuses it too");
        let constraint = past.as_database_error().and_then(|error| error.constraint().map(str::to_owned));
        assert_eq!(constraint.as_deref(), Some("people_factor_resets_second_person"));
    }
    let early = carry_out_reset(&mut db, reset.reset_id, desk.after(86_400 * 2)).await;
    assert!(matches!(early, Err(Error::SecondPersonNeeded)), "{early:?}");

    let approved = approve_reset(&mut db, reset.reset_id, MEENA, desk.after(60)).await.expect("approved");
    assert_eq!(approved.due_at, Some(desk.after(60 + 86_400)));
    // Approving again does not bring the day nearer.
    assert_eq!(approve_reset(&mut db, reset.reset_id, MEENA, desk.now).await.expect("again"), approved);
    let early = carry_out_reset(&mut db, reset.reset_id, desk.after(86_400 + 59)).await;
    assert!(matches!(early, Err(Error::ResetNotDue { .. })), "{early:?}");
    assert!(load_credentials(&mut db, ASHA).await.expect("loaded").totp_sealed.is_some());

    // She says no: it is over, and begins from the start.
    cancel_reset(&mut db, reset.reset_id, desk.after(100)).await.expect("cancelled");
    let over = carry_out_reset(&mut db, reset.reset_id, desk.after(86_400 * 2)).await;
    assert!(matches!(over, Err(Error::NoSuchReset)), "{over:?}");

    let reset = ask_reset(&mut db, ASHA, ASHA, desk.after(200), &desk.chance).await.expect("she may ask herself");
    approve_reset(&mut db, reset.reset_id, RAVI, desk.after(300)).await.expect("approved");
    carry_out_reset(&mut db, reset.reset_id, desk.after(300 + 86_400)).await.expect("carried out");
    let left = load_credentials(&mut db, ASHA).await.expect("loaded");
    assert_eq!((left.totp_sealed, left.recovery_codes_left), (None, 0));
    assert!(desk.find(&session.token, desk.after(300 + 86_400)).await.is_none());
    assert_eq!(find_open_reset(&mut db, ASHA).await.expect("asked"), None);
}

#[tokio::test]
async fn removing_somebody_ends_what_she_signs_in_with_in_the_same_transaction() {
    use crate::people::{Authority, Decision, StaffId, remove_staff};
    let operator = Authority::operator();
    let desk = Desk::open().await;
    desk.enrol(ASHA).await;
    let session = desk.sign_in(Level::Full, &desk.device(), desk.now).await;
    let mut db = desk.conn().await;
    set_password(&mut db, ASHA, "$argon2id$kept", Some(session.session.session_id), desk.now).await.expect("set");

    let decision = Decision { by: &operator, now: desk.after(1), chance: &desk.chance };
    let mut tx = db.begin().await.expect("begun");
    remove_staff(&mut tx, StaffId(ASHA), &decision).await.expect("removed");
    tx.rollback().await.expect("taken back");
    assert!(desk.find(&session.token, desk.after(2)).await.is_some(), "nothing happened");

    remove_staff(&mut db, StaffId(ASHA), &decision).await.expect("removed");
    assert!(desk.find(&session.token, desk.after(2)).await.is_none());
    let left = load_credentials(&mut db, ASHA).await.expect("loaded");
    assert_eq!((left.password_hash, left.totp_sealed, left.recovery_codes_left), (None, None, 0));
}

#[tokio::test]
async fn the_first_owners_link_is_made_once_a_day_and_not_once_anybody_is_here() {
    let db = TestDb::new(&crate::MIGRATOR).await;
    let (pool, chance) = (db.app_pool(), Counting::default());
    let now: DateTime<Utc> = "2026-11-23T06:30:00Z".parse().expect("an instant");
    let ask = async |now| {
        let mut db = pool.acquire().await.expect("a connection");
        invite_first(&mut db, None, now, &chance).await.expect("asked")
    };
    // Of processes that start at once one makes it.
    let made: Vec<_> = join_all((0..5).map(|_| ask(now))).await.into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    assert!(ask(now + INVITATION_LIFE - TimeDelta::seconds(1)).await.is_none(), "it still works");
    assert!(ask(now + INVITATION_LIFE).await.is_some(), "it ran out, unused");
    add_staff(&db, &[ASHA]).await;
    assert!(ask(now + INVITATION_LIFE * 3).await.is_none(), "somebody is here");
}
