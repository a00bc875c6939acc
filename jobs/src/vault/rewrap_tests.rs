use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use muneem_postgres::testing::TestDb;
use uuid::Uuid;

use super::*;
use crate::{
    outbound::{
        Chance, Clock, KeyManager,
        kms::{KeyBytes, RootKey},
    },
    vault::{Cell, Class, Settings},
};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        "2026-11-23T06:30:00Z".parse().expect("an instant")
    }
}

struct Drawn;

impl Chance for Drawn {
    #[expect(clippy::disallowed_methods, reason = "tests of keys want real chance")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    }
}

fn root(byte: u8) -> RootKey {
    RootKey::new(&[byte; 32].into(), Arc::new(Drawn))
}

/// A new root key and the old one, for so many questions.
struct Both {
    new: RootKey,
    old: RootKey,
    left: AtomicI64,
    /// Wraps into something that does not open again.
    forgets: bool,
}

impl Both {
    fn for_questions(left: i64) -> Self {
        Self { new: root(2), old: root(1), left: AtomicI64::new(left), forgets: false }
    }

    fn ask(&self) -> Result<(), KmsError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            Ok(())
        } else {
            Err(KmsError::Throttled("enough".to_owned()))
        }
    }
}

#[async_trait]
impl KeyManager for Both {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.ask()?;
        let other = KeyBytes::new([0; 32]);
        self.new.wrap(context, if self.forgets { &other } else { key }).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        self.ask()?;
        match self.new.unwrap(context, wrapped).await {
            Err(KmsError::NotOurs) => self.old.unwrap(context, wrapped).await,
            outcome => outcome,
        }
    }

    fn describe(&self) -> String {
        self.new.describe()
    }

    async fn health(&self) -> Result<(), KmsError> {
        Ok(())
    }
}

struct House {
    db: TestDb,
    sealed: Vec<Vec<u8>>,
}

const BUSINESSES: u128 = 7;

fn cell(at: u128) -> Cell<'static> {
    Cell {
        business_id: BusinessId(Uuid::from_u128(at)),
        table: "muneem.people_staff",
        column: "phone_sealed",
        row: "7",
    }
}

impl House {
    /// Seven businesses, and the installation, with values sealed under the old root key.
    async fn new() -> Self {
        let mut house = Self { db: TestDb::new(&crate::MIGRATOR).await, sealed: Vec::new() };
        let old = house.vault(Arc::new(root(1)));
        let mut db = house.db.app_pool().acquire().await.expect("a connection");
        for at in 0..=BUSINESSES {
            house.sealed.push(old.seal(&mut db, Class::Contact, &cell(at), b"+919876543210").await.expect("sealed"));
        }
        house
    }

    fn vault(&self, kms: Arc<dyn KeyManager>) -> Vault {
        Vault::new(self.db.app_pool(), kms, Arc::new(Noon), Arc::new(Drawn), Settings::DEFAULT)
    }

    /// How many of the values open.
    async fn readable(&self, vault: &Vault) -> usize {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        let mut count = 0;
        for (at, sealed) in (0..).zip(&self.sealed) {
            count += usize::from(vault.open(&mut db, &cell(at), sealed).await.is_ok());
        }
        count
    }

    async fn events(&self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from muneem.evidence_events
             where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'vault.key_rewrapped'",
        )
        .fetch_one(&self.db.pool())
        .await
        .expect("the owner reads")
    }
}

#[tokio::test]
async fn stopped_anywhere_it_goes_on_and_nothing_is_unreadable_in_between() {
    let house = House::new().await;
    let all = house.sealed.len();
    let mut handed = 0;
    // Three questions hand one key over: every count of questions below a whole key stops at another place.
    for questions in [0, 1, 2, 3, 4, 5, 7, 8, 9] {
        let stopped = house.vault(Arc::new(Both::for_questions(questions))).rewrap(&Actor::Operator).await;
        handed += questions / 3;
        if handed < i64::try_from(all).expect("few") {
            assert!(matches!(stopped, Err(Error::Sealed { source: KmsError::Throttled(_), .. })), "{stopped:?}");
        }
        assert_eq!(house.readable(&house.vault(Arc::new(Both::for_questions(1000)))).await, all);
        assert_eq!(house.events().await, handed.min(i64::try_from(all).expect("few")), "an event for each, no more");
    }
    let rest = house.vault(Arc::new(Both::for_questions(1000))).rewrap(&Actor::Operator).await.expect("done");
    assert_eq!(rest.unopened, Vec::<i64>::new());
    assert_eq!(house.readable(&house.vault(Arc::new(root(2)))).await, all, "by the new root key alone");
    assert_eq!(house.readable(&house.vault(Arc::new(root(1)))).await, 0);
    assert_eq!(house.events().await, i64::try_from(all).expect("few"));
}

#[tokio::test]
async fn two_at_once_hand_each_key_over_once() {
    let house = House::new().await;
    let vaults: Vec<Vault> = (0..4).map(|_| house.vault(Arc::new(Both::for_questions(1000)))).collect();
    let outcomes = futures_util::future::join_all(vaults.iter().map(|vault| vault.rewrap(&Actor::Operator))).await;
    let done: u64 = outcomes.into_iter().map(|outcome| outcome.expect("done").done).sum();
    assert_eq!(done, u64::try_from(house.sealed.len()).expect("few"));
    assert_eq!(house.events().await, i64::try_from(house.sealed.len()).expect("few"));
    assert_eq!(house.readable(&house.vault(Arc::new(root(2)))).await, house.sealed.len());
}

#[tokio::test]
async fn the_old_wrapping_stays_until_the_new_one_was_seen_to_open() {
    let house = House::new().await;
    let forgetful = Both { forgets: true, ..Both::for_questions(1000) };
    let error = house.vault(Arc::new(forgetful)).rewrap(&Actor::Operator).await.expect_err("refused");
    assert!(matches!(error, Error::Sealed { source: KmsError::Refused(_), .. }), "{error:?}");
    assert_eq!(house.readable(&house.vault(Arc::new(root(1)))).await, house.sealed.len(), "nothing was replaced");
    assert_eq!(house.events().await, 0);
}

#[tokio::test]
async fn a_key_that_neither_root_opens_is_told_and_stops_no_other() {
    let house = House::new().await;
    let strange = root(9).wrap(&KeyContext::PROBE, &KeyBytes::new([1; 32])).await.expect("wrapped");
    let key: i64 = sqlx::query_scalar(
        "update muneem.vault_keys set wrapped = $1 where class = 'business' and business_id = $2 returning key_id",
    )
    .bind(&strange)
    .bind(Uuid::from_u128(3))
    .fetch_one(&house.db.pool())
    .await
    .expect("planted");
    let outcome = house.vault(Arc::new(Both::for_questions(1000))).rewrap(&Actor::Operator).await.expect("done");
    assert_eq!(outcome.unopened, [key]);
    assert_eq!(outcome.done, u64::try_from(house.sealed.len()).expect("few") - 1);
}
