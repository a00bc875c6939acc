//! What lies outside, as tests want it.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::outbound::{
    Carrier, Chance, Clock, KeyManager, KmsError, ObjectError, ObjectStore,
    carrier::{Media, MediaId, OutgoingMessage, SendOutcome, Sender, UploadError},
    kms::{KeyBytes, KeyContext, RootKey},
};

/// The machine's time, moved by hand.
#[derive(Debug, Default)]
pub struct TestClock {
    moved_ms: AtomicI64,
}

impl TestClock {
    /// Moves it, forward or back.
    pub fn advance(&self, by: TimeDelta) {
        self.moved_ms.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    #[expect(clippy::disallowed_methods, reason = "a test's clock has to start somewhere")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.moved_ms.load(Ordering::SeqCst))
    }
}

/// Chance that is the same in every run.
#[derive(Debug)]
pub struct TestChance(Mutex<u64>);

impl TestChance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Chance for TestChance {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().expect("no test panics while it draws");
        for byte in bytes {
            // SplitMix64 (Steele, Lea, Flood 2014).
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed ^ (mixed >> 31)).to_le_bytes()[0];
        }
    }
}

/// A key service that is away, or does not answer, for as long as it is told.
pub struct KeyService {
    root: RootKey,
    /// It says that it is away.
    pub down: AtomicBool,
    /// It never answers.
    pub hangs: AtomicBool,
}

impl KeyService {
    /// With the root key of every test.
    pub fn new() -> Self {
        let root = RootKey::new(&[7; 32].into(), std::sync::Arc::new(TestChance::new(13)));
        Self { root, down: AtomicBool::new(false), hangs: AtomicBool::new(false) }
    }

    async fn answer(&self) -> Result<(), KmsError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(Ordering::SeqCst) { Err(KmsError::Unavailable("told so".to_owned())) } else { Ok(()) }
    }
}

impl Default for KeyService {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl KeyManager for KeyService {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.answer().await?;
        self.root.wrap(context, key).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        self.answer().await?;
        self.root.unwrap(context, wrapped).await
    }

    fn describe(&self) -> String {
        self.root.describe()
    }

    async fn health(&self) -> Result<(), KmsError> {
        self.answer().await
    }
}

/// An object store in memory.
#[derive(Debug, Default)]
pub struct MemoryObjects(Mutex<HashMap<String, Bytes>>);

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn put_if_absent(&self, digest: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.lock().expect("no test panics here").entry(digest.to_owned()).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, digest: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.0.lock().expect("no test panics here").get(digest).cloned())
    }

    async fn exists(&self, digest: &str) -> Result<bool, ObjectError> {
        Ok(self.0.lock().expect("no test panics here").contains_key(digest))
    }
}

/// No carrier at all: whoever sends, fails before a byte leaves.
#[derive(Debug)]
pub struct NoCarrier;

#[async_trait]
impl Carrier for NoCarrier {
    async fn upload_media(&self, _: &Sender, _: &Media) -> Result<MediaId, UploadError> {
        unreachable!("the queue's tests send nothing")
    }

    async fn send(&self, _: &Sender, _: &OutgoingMessage) -> SendOutcome {
        unreachable!("the queue's tests send nothing")
    }
}
