use std::sync::atomic::{AtomicU8, Ordering};

use chrono::TimeZone;
use muneem_postgres::testing::TestDb;
use secrecy::ExposeSecret;
use sqlx::Connection;

use super::*;

struct At(DateTime<Utc>);

impl Clock for At {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

struct Counting(AtomicU8);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

fn counting() -> Counting {
    Counting(AtomicU8::new(1))
}

fn noon() -> At {
    At(Utc.with_ymd_and_hms(2026, 11, 23, 12, 0, 0).single().expect("a real instant"))
}

fn new_token(business_id: Option<BusinessId>, expires_at: Option<DateTime<Utc>>) -> NewToken {
    NewToken {
        label: "checkout".to_owned(),
        business_id,
        scopes: vec![Scope::QueueWrite],
        expires_at,
        ..NewToken::bootstrap()
    }
}

#[tokio::test]
async fn a_handle_belongs_to_one_business() {
    let db = TestDb::new(&crate::MIGRATOR).await;
    let mut db = db.app_pool().acquire().await.expect("a connection");
    let chance = counting();
    let made = add_business(&mut db, "sharma-mobiles", " Sharma Mobiles ", &noon(), &chance).await.expect("made");
    let found = load_business(&mut db, "sharma-mobiles").await.expect("found");
    assert_eq!((found.business_id, found.legal_name.as_str()), (made.business_id, "Sharma Mobiles"));
    let again = add_business(&mut db, "sharma-mobiles", "Other", &noon(), &chance).await;
    assert!(matches!(again, Err(Error::HandleTaken(_))), "{again:?}");
    assert!(matches!(load_business(&mut db, "verma").await, Err(Error::NoSuchBusiness(_))));
}

#[tokio::test]
async fn a_token_opens_until_it_expires_or_is_revoked_and_its_secret_is_nowhere() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let (clock, chance) = (noon(), counting());
    let tomorrow = clock.0 + Duration::days(1);
    let (token, bearer) = create_token(&mut db, new_token(None, Some(tomorrow)), &clock, &chance).await.expect("made");
    let presented = Presented::parse(bearer.expose_secret()).expect("well formed");

    let caller = authenticate(&mut db, &presented, None, clock.0).await.expect("opens");
    assert_eq!(
        (caller.token_id.as_str(), caller.scopes.as_slice()),
        (token.public_id.as_str(), &[Scope::QueueWrite][..])
    );
    assert_eq!(list_tokens(&mut db).await.expect("listed")[0].last_used_at, Some(clock.0));

    assert!(matches!(authenticate(&mut db, &presented, None, tomorrow).await, Err(Refusal::Expired)));
    let by = |now| By::operator(now, &chance);
    revoke_token(&mut db, &token.public_id, &by(clock.0)).await.expect("revoked");
    revoke_token(&mut db, &token.public_id, &by(tomorrow)).await.expect("again is no error");
    assert!(matches!(authenticate(&mut db, &presented, None, clock.0).await, Err(Refusal::Revoked)));
    assert!(matches!(revoke_token(&mut db, "0000000000000000", &by(clock.0)).await, Err(Error::NoSuchToken(_))));

    let row: String =
        sqlx::query_scalar("select t::text from muneem.people_tokens t").fetch_one(&test.pool()).await.expect("a row");
    let secret = bearer.expose_secret().split('_').nth(2).expect("the secret").to_owned();
    assert!(!row.contains(&secret), "the secret is stored");
}

#[tokio::test]
async fn the_right_id_with_another_secret_is_unknown() {
    let db = TestDb::new(&crate::MIGRATOR).await;
    let mut db = db.app_pool().acquire().await.expect("a connection");
    let (token, _) = create_token(&mut db, new_token(None, None), &noon(), &counting()).await.expect("made");
    let (_, other) =
        create_token(&mut db, new_token(None, None), &noon(), &Counting(AtomicU8::new(9))).await.expect("made");
    let mut forged = Presented::parse(other.expose_secret()).expect("well formed");
    forged.0.public_id = token.public_id;
    assert!(matches!(authenticate(&mut db, &forged, None, noon().0).await, Err(Refusal::Unknown)));
    forged.0.public_id = "0000000000000000".to_owned();
    assert!(matches!(authenticate(&mut db, &forged, None, noon().0).await, Err(Refusal::Unknown)));
}

#[tokio::test]
async fn the_first_token_is_made_once() {
    let db = TestDb::new(&crate::MIGRATOR).await;
    let mut db = db.app_pool().acquire().await.expect("a connection");
    let chance = counting();
    let (first, _) = create_first_token(&mut db, &noon(), &chance).await.expect("works").expect("made");
    assert!(create_first_token(&mut db, &noon(), &chance).await.expect("works").is_none());
    revoke_token(&mut db, &first.public_id, &By::operator(noon().0, &chance)).await.expect("revoked");
    assert!(create_first_token(&mut db, &noon(), &chance).await.expect("works").is_none(), "nobody asked for it");
}

#[tokio::test]
async fn two_processes_that_start_at_once_make_one_first_token() {
    let db = TestDb::new(&crate::MIGRATOR).await;
    let pool = db.app_pool();
    let (mut one, mut two) = (pool.acquire().await.expect("one"), pool.acquire().await.expect("two"));
    let (clock, chance) = (noon(), counting());
    let (first, second) =
        tokio::join!(create_first_token(&mut one, &clock, &chance), create_first_token(&mut two, &clock, &chance));
    assert_eq!(first.expect("works").is_some() as u8 + second.expect("works").is_some() as u8, 1);
}

#[tokio::test]
async fn an_idempotency_key_lives_and_dies_with_its_transaction() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let (mut a, mut b) = (
        test.app_pool().acquire().await.expect("a connection"),
        test.app_pool().acquire().await.expect("a connection"),
    );
    let now = noon().0;
    let (token, _) = create_token(&mut a, new_token(None, None), &noon(), &counting()).await.expect("made");
    let vault = crate::vault::tests::vault(&test);
    let caller =
        Caller { token_id: token.public_id, business: None, staff_id: None, support: None, scopes: Vec::new() };
    let request = Request::new(&caller, "key-1", "POST /v1/queue/jobs", b"{}");
    let other = Request::new(&caller, "key-1", "POST /v1/queue/jobs", b"{\"a\":1}");
    let answer = Answer { status: 201, body: "{\"id\":7}".to_owned() };

    // It dies before the end: nothing is left.
    let mut tx = a.begin().await.expect("begin");
    assert_eq!(claim_key(&mut tx, &vault, &request, now).await.expect("asked"), Claim::Ours);
    keep_answer(&mut tx, &vault, &request, &answer, now).await.expect("kept");
    let mut beside = b.begin().await.expect("begin");
    assert_eq!(claim_key(&mut beside, &vault, &request, now).await.expect("asked"), Claim::InFlight);
    drop(beside);
    tx.rollback().await.expect("rolled back");

    let mut tx = a.begin().await.expect("begin");
    assert_eq!(claim_key(&mut tx, &vault, &request, now).await.expect("asked"), Claim::Ours);
    keep_answer(&mut tx, &vault, &request, &answer, now).await.expect("kept");
    tx.commit().await.expect("committed");

    let mut tx = b.begin().await.expect("begin");
    assert_eq!(claim_key(&mut tx, &vault, &request, now).await.expect("asked"), Claim::Answered(answer));
    let kept: String = sqlx::query_scalar("select k::text from muneem.people_idempotency_keys k")
        .fetch_one(&mut *tx)
        .await
        .expect("one row");
    assert!(!kept.contains("id") && !kept.contains("key-1"), "{kept}");
    assert_eq!(claim_key(&mut tx, &vault, &other, now).await.expect("asked"), Claim::OtherRequest);
    let later = now + ANSWER_KEPT + Duration::seconds(1);
    assert_eq!(claim_key(&mut tx, &vault, &other, later).await.expect("asked"), Claim::Ours);
}
