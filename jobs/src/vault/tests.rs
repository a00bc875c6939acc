use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use muneem_postgres::testing::TestDb;
use sqlx::{Postgres, pool::PoolConnection};
use uuid::Uuid;

use super::*;

/// A vault on the test's own database, under a root key that every test knows.
pub(crate) fn vault(db: &TestDb) -> Vault {
    Vault::with_root(&db.app_pool(), &ROOT.into(), Arc::new(Hands::default()), Arc::new(Drawn))
}

pub(super) const ROOT: [u8; 32] = [7; 32];
pub(super) const SHARMA: BusinessId = BusinessId(Uuid::from_u128(1));
pub(super) const KAVERI: BusinessId = BusinessId(Uuid::from_u128(2));
pub(super) const PHONE: &[u8] = b"+919876543210";

/// A clock whose hands the test moves.
#[derive(Default)]
pub(super) struct Hands(AtomicI64);

impl Hands {
    pub(super) fn forward(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        let start: DateTime<Utc> = "2026-11-23T06:30:00Z".parse().expect("an instant");
        start + TimeDelta::milliseconds(self.0.load(Ordering::SeqCst))
    }
}

/// Chance of the machine: keys and nonces must differ as they do in a real house.
pub(super) struct Drawn;

impl Chance for Drawn {
    #[expect(clippy::disallowed_methods, reason = "tests of keys want real chance")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    }
}

/// A key service that counts its calls and can be told to fail.
pub(super) struct Service {
    root: RootKey,
    unwraps: AtomicUsize,
    trouble: StdMutex<Option<&'static str>>,
}

impl Service {
    fn fail(&self, trouble: Option<&'static str>) {
        *self.trouble.lock().expect("not poisoned") = trouble;
    }

    fn answer(&self) -> Result<(), KmsError> {
        match *self.trouble.lock().expect("not poisoned") {
            None => Ok(()),
            Some("refused") => Err(KmsError::Refused("key policy".to_owned())),
            Some(trouble) => Err(KmsError::Unavailable(trouble.to_owned())),
        }
    }
}

#[async_trait]
impl KeyManager for Service {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.answer()?;
        self.root.wrap(context, key).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        self.answer()?;
        self.root.unwrap(context, wrapped).await
    }

    fn describe(&self) -> String {
        self.root.describe()
    }

    async fn health(&self) -> Result<(), KmsError> {
        self.answer()
    }
}

pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) vault: Vault,
    pub(super) clock: Arc<Hands>,
    service: Arc<Service>,
}

impl House {
    pub(super) async fn new() -> Self {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let clock = Arc::new(Hands::default());
        let service = Arc::new(Service {
            root: RootKey::new(&ROOT.into(), Arc::new(Drawn)),
            unwraps: AtomicUsize::new(0),
            trouble: StdMutex::new(None),
        });
        let vault = Self::process(&db, &clock, &service);
        Self { db, vault, clock, service }
    }

    /// Another process of the same installation.
    fn process(db: &TestDb, clock: &Arc<Hands>, service: &Arc<Service>) -> Vault {
        let (kms, clock) = (Arc::clone(service), Arc::clone(clock));
        Vault::new(db.app_pool(), kms, clock, Arc::new(Drawn), Settings::DEFAULT)
    }

    pub(super) fn another(&self) -> Vault {
        Self::process(&self.db, &self.clock, &self.service)
    }

    pub(super) async fn conn(&self) -> PoolConnection<Postgres> {
        self.db.app_pool().acquire().await.expect("a connection")
    }

    pub(super) async fn execute(&self, statement: &'static str) -> u64 {
        let done = sqlx::query(statement).execute(&self.db.pool()).await.expect("a change");
        done.rows_affected()
    }

    pub(super) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.db.pool()).await.expect("a count")
    }
}

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: SHARMA, table: "muneem.people_staff", column: "phone", row }
}

pub(super) fn why(outcome: Result<Zeroizing<Vec<u8>>, Error>) -> Unreadable {
    match outcome {
        Err(Error::Unreadable { why, .. }) => why,
        other => panic!("not unreadable: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_sealed_opens_in_another_process_and_never_looks_the_same() {
    let house = House::new().await;
    let mut db = house.conn().await;
    for plain in [PHONE, b"", b"x", &[0; 5000]] {
        let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), plain).await.expect("sealed");
        let again = house.vault.seal(&mut db, Class::Contact, &cell("7"), plain).await.expect("sealed");
        assert_ne!(sealed, again, "a nonce was used twice");
        assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        assert!(plain.len() < 2 || !sealed.windows(plain.len()).any(|window| window == plain));
        let opened = house.another().open(&mut db, &cell("7"), &sealed).await.expect("opened");
        assert_eq!(opened.as_slice(), plain);
    }
    assert_eq!(house.count("select count(*) from muneem.vault_keys").await, 2, "one of the business, one of the class");
}

#[tokio::test]
async fn each_class_and_business_has_a_key_of_its_own() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let mut keys = std::collections::BTreeSet::new();
    for business_id in [SHARMA, KAVERI, INSTALLATION] {
        for class in Class::ALL {
            let cell = Cell { business_id, ..cell("7") };
            let sealed = house.vault.seal(&mut db, class, &cell, PHONE).await.expect("sealed");
            keys.insert(key_of(&sealed).expect("a sealed value"));
        }
    }
    assert_eq!(keys.len(), 3 * Class::ALL.len());
}

#[tokio::test]
async fn processes_that_start_at_once_make_one_key() {
    let house = House::new().await;
    let processes: Vec<_> = (0..4).map(|_| house.another()).collect();
    let sealed = futures_util::future::join_all(processes.iter().map(|vault| async {
        // Not from the pool that keys are made on: five processes would hold all of it.
        let mut db = PgConnection::connect(&house.db.app_url()).await.expect("a connection");
        vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed")
    }))
    .await;
    let keys: std::collections::BTreeSet<_> = sealed.iter().map(|sealed| key_of(sealed)).collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(house.count("select count(*) from muneem.vault_keys where state = 'active'").await, 2);
}

#[tokio::test]
async fn a_caller_who_rolls_back_takes_no_key_back() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let mut tx = db.begin().await.expect("begun");
    let sealed = house.vault.seal(&mut tx, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    tx.rollback().await.expect("rolled back");
    house.another().open(&mut db, &cell("7"), &sealed).await.expect("the key is there");
}

#[tokio::test]
async fn atk_069_a_value_moved_to_another_row_column_table_or_business_does_not_open() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let elsewhere = [
        cell("8"),
        cell("77"),
        cell(""),
        Cell { column: "email", ..cell("7") },
        Cell { table: "muneem.people_principals", ..cell("7") },
        // The same bytes in a row, cut at other places.
        Cell { table: "muneem.people_staffp", column: "hone", ..cell("7") },
        Cell { column: "phone7", ..cell("") },
    ];
    for cell in elsewhere {
        assert_eq!(why(house.vault.open(&mut db, &cell, &sealed).await), Unreadable::Tag, "{cell:?}");
    }
    // Another business has no key of that number, and none of its own is tried.
    let theirs = Cell { business_id: KAVERI, ..cell("7") };
    house.vault.seal(&mut db, Class::Contact, &theirs, PHONE).await.expect("sealed");
    assert_eq!(why(house.vault.open(&mut db, &theirs, &sealed).await), Unreadable::Key);
}

#[tokio::test]
async fn atk_069_a_wrapped_key_moved_to_another_row_opens_nothing() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    house.vault.seal(&mut db, Class::TaxId, &cell("7"), PHONE).await.expect("sealed");
    house
        .execute(
            "update muneem.vault_keys k set wrapped = o.wrapped from muneem.vault_keys o
            where k.class = 'contact' and o.class = 'tax_id'",
        )
        .await;
    assert_eq!(why(house.another().open(&mut db, &cell("7"), &sealed).await), Unreadable::Key);
}

#[tokio::test]
async fn atk_070_any_bit_flipped_or_byte_missing_is_one_error_without_text() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), b"x").await.expect("sealed");
    let mut texts = std::collections::BTreeSet::new();
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = house.vault.open(&mut db, &cell("7"), &changed).await.expect_err("refused");
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
        texts.insert(error.to_string());
    }
    for length in 0..sealed.len() {
        let error = house.vault.open(&mut db, &cell("7"), &sealed[..length]).await.expect_err("refused");
        texts.insert(error.to_string());
    }
    let longer = [&sealed[..], b"x"].concat();
    texts.insert(house.vault.open(&mut db, &cell("7"), &longer).await.expect_err("refused").to_string());
    assert_eq!(texts.len(), 1, "the text tells what was wrong: {texts:?}");
}

#[tokio::test]
async fn atk_071_unknown_versions_and_algorithms_are_refused() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    for byte in (0..=255).filter(|byte| *byte != 1) {
        let mut changed = sealed.clone();
        changed[0] = byte;
        // Version 2 names the key of a Data Principal, and there is none of that number.
        let expected = if byte == 2 { Unreadable::Key } else { Unreadable::Version };
        assert_eq!(why(house.vault.open(&mut db, &cell("7"), &changed).await), expected);
        let mut changed = sealed.clone();
        changed[1] = byte;
        assert_eq!(why(house.vault.open(&mut db, &cell("7"), &changed).await), Unreadable::Algorithm);
    }
}

#[tokio::test]
async fn atk_072_a_key_that_opens_only_seals_no_more_anywhere_within_seconds() {
    let house = House::new().await;
    let late = house.another();
    let mut db = house.conn().await;
    let old = late.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    house.execute("update muneem.vault_keys set state = 'decrypt_only' where class = 'contact'").await;
    house.clock.forward(RECHECK);
    let new = late.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_ne!(key_of(&old), key_of(&new));
    late.open(&mut db, &cell("7"), &old).await.expect("what it sealed opens");
    house.execute("update muneem.vault_keys set state = 'retired' where state = 'decrypt_only'").await;
    assert_eq!(why(house.another().open(&mut db, &cell("7"), &old).await), Unreadable::Key);
}

#[tokio::test]
async fn a_key_is_replaced_after_ninety_days_and_after_its_last_use() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let first = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    house.clock.forward(TimeDelta::days(90) - TimeDelta::seconds(1));
    let same = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_eq!(key_of(&first), key_of(&same));
    house.clock.forward(TimeDelta::seconds(1));
    let second = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_ne!(key_of(&first), key_of(&second));
    // One block before the limit: it is taken, and the next one is not.
    house
        .execute("update muneem.vault_keys set uses = 2147483648 - 1024 where class = 'contact' and state = 'active'")
        .await;
    let late = house.another();
    for _ in 0..1024 {
        let sealed = late.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
        assert_eq!(key_of(&sealed), key_of(&second));
    }
    let third = late.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_ne!(key_of(&third), key_of(&second));
    assert_eq!(house.count("select count(*) from muneem.vault_keys where uses > 2147483648").await, 0);
}

#[tokio::test]
async fn atk_074_without_its_key_service_the_vault_works_four_hours_and_then_is_sealed() {
    for trouble in ["no route", "refused"] {
        let house = House::new().await;
        let mut db = house.conn().await;
        let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
        house.service.fail(Some(trouble));
        for minutes in [5, 20, 200, 14] {
            house.clock.forward(TimeDelta::minutes(minutes));
            house.vault.open(&mut db, &cell("7"), &sealed).await.expect("from memory");
            house.vault.seal(&mut db, Class::Contact, &cell("8"), PHONE).await.expect("from memory");
            let Openness::FromMemory { until, .. } = house.vault.openness().await else { panic!("it is not sealed") };
            assert!(until > house.clock.now());
        }
        house.clock.forward(TimeDelta::minutes(2));
        let now = house.clock.now();
        for outcome in [
            house.vault.open(&mut db, &cell("7"), &sealed).await.map(|_| ()),
            house.vault.seal(&mut db, Class::Contact, &cell("8"), PHONE).await.map(|_| ()),
        ] {
            let error = outcome.expect_err("sealed");
            assert!(matches!(error, Error::Sealed { .. }), "{error:?}");
            let waits = crate::queue::Disposition::Snooze(now + ASK_AGAIN);
            assert_eq!(crate::queue::JobError::disposition(&error), waits, "a job waits, and is not given up");
        }
        assert!(matches!(house.vault.openness().await, Openness::Sealed { .. }));
        assert!(matches!(house.another().openness().await, Openness::Sealed { .. }));
        // At the start of a process there is no memory to live on.
        let error = house.another().open(&mut db, &cell("7"), &sealed).await.expect_err("sealed");
        assert!(matches!(error, Error::Sealed { .. }));
        house.service.fail(None);
        house.vault.open(&mut db, &cell("7"), &sealed).await.expect("the service is back");
        let kept = house.vault.openness().await;
        assert!(matches!(kept, Openness::FromMemory { .. }), "the service is not asked for each who watches");
        house.clock.forward(ASK_AGAIN);
        assert_eq!(house.vault.openness().await, Openness::Open);
    }
}

#[tokio::test]
async fn the_key_service_is_asked_once_in_a_quarter_of_an_hour() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let asked = house.service.unwraps.load(Ordering::SeqCst);
    for _ in 0..100 {
        house.clock.forward(TimeDelta::seconds(8));
        house.vault.open(&mut db, &cell("7"), &sealed).await.expect("opened");
        house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    }
    assert_eq!(house.service.unwraps.load(Ordering::SeqCst), asked, "within 800 seconds");
    house.clock.forward(TimeDelta::seconds(200));
    house.vault.open(&mut db, &cell("7"), &sealed).await.expect("opened");
    assert_eq!(house.service.unwraps.load(Ordering::SeqCst), asked + 1);
}

#[tokio::test]
async fn another_root_key_opens_nothing_and_says_sealed() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let stranger =
        Vault::with_root(&house.db.app_pool(), &[8; 32].into(), Arc::clone(&house.clock) as _, Arc::new(Drawn));
    let error = stranger.open(&mut db, &cell("7"), &sealed).await.expect_err("refused");
    assert!(matches!(error, Error::Sealed { source: KmsError::NotOurs, .. }), "{error:?}");
}

#[tokio::test]
async fn atk_075_after_a_restore_every_key_that_seals_is_replaced() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let before = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let column = IndexColumn { business_id: SHARMA, table: "muneem.people_staff", column: "phone" };
    let index = house.vault.index(&mut db, &column, "+919876543210").await.expect("indexed");
    for moved in [
        "update muneem.vault_standing set system_identifier = system_identifier - 1",
        "update muneem.vault_standing set timeline = timeline - 1",
        "update muneem.vault_standing set database_oid = database_oid - 1",
    ] {
        let process = house.another();
        let earlier = process.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
        house.execute(moved).await;
        house.clock.forward(RECHECK);
        let later = process.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
        assert_ne!(key_of(&earlier), key_of(&later), "{moved}");
        process.open(&mut db, &cell("7"), &before).await.expect("what was sealed opens");
        assert_eq!(process.index(&mut db, &column, "+919876543210").await.expect("indexed"), index);
    }
}

#[tokio::test]
async fn equal_values_have_equal_indexes_within_a_column_of_a_business_alone() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let phone = IndexColumn { business_id: SHARMA, table: "muneem.people_staff", column: "phone" };
    let first = house.vault.index(&mut db, &phone, "+919876543210").await.expect("indexed");
    assert_eq!(house.another().index(&mut db, &phone, "+919876543210").await.expect("indexed"), first);
    assert_eq!(house.vault.indexes(&mut db, &phone, "+919876543210").await.expect("indexed"), [first]);
    for other in [
        house.vault.index(&mut db, &phone, "+919876543211").await,
        house.vault.index(&mut db, &IndexColumn { column: "email", ..phone }, "+919876543210").await,
        house.vault.index(&mut db, &IndexColumn { business_id: KAVERI, ..phone }, "+919876543210").await,
    ] {
        assert_ne!(other.expect("indexed").digest, first.digest);
    }
}

#[tokio::test]
async fn atk_077_debug_output_and_errors_hold_no_key_and_no_value() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let sealed = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let error = house.vault.open(&mut db, &cell("+919876543210"), &sealed).await.expect_err("refused");
    let shown = format!("{:?} {:?} {error:?} {error}", house.vault, house.service.root);
    for secret in ["9876543210", &hex::encode(ROOT), "7, 7, 7", "[7"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_replaced_key_opens_what_it_sealed_and_seals_no_more() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let old = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let other = house.another();
    other.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    let key = house.vault.rotate(SHARMA, Class::Contact, &Actor::Operator).await.expect("replaced");
    let new = house.vault.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_eq!((key_of(&new), key_of(&old) == key_of(&new)), (Some(key), false));
    // The other process has neither heard of it nor made a pause: it opens at once, and seals with it within seconds.
    other.open(&mut db, &cell("7"), &new).await.expect("opened");
    house.clock.forward(RECHECK);
    let theirs = other.seal(&mut db, Class::Contact, &cell("7"), PHONE).await.expect("sealed");
    assert_eq!(key_of(&theirs), Some(key));
    house.vault.open(&mut db, &cell("7"), &old).await.expect("opened");
    let states: Vec<_> =
        list_keys(&mut db, Some(SHARMA)).await.expect("listed").into_iter().map(|key| key.state).collect();
    assert_eq!(states, ["active", "decrypt_only", "active"], "of the business, the old one, the new one");
    let told: i64 = sqlx::query_scalar(
        "select count(*) from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'vault.key_replaced'",
    )
    .fetch_one(&house.db.pool())
    .await
    .expect("counted");
    assert_eq!(told, 1);
}
