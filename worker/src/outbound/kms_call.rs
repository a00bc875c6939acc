//! One question to a key service over HTTP: bounded in time and in size, repeated where the service is busy, and not
//! asked at all while it has just shown that it does not answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext},
};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::http::{Timeouts, client};

/// Attempts at one question. Wrapping and unwrapping change nothing at the service, so a repeat does no harm.
const TRIES: u32 = 3;
/// Longest pause before the second attempt; each later one is twice as long. The pause itself is drawn by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest answer that is read. A wrapped key is far shorter.
const MOST_BYTES: usize = 64 * 1024;
/// Longest part of a service's own words that is passed on.
const MOST_WORDS: usize = 300;

/// What a service answered.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Its beginning, up to 64 KiB. It may hold a key in clear.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The body of an answer that says yes.
    ///
    /// # Errors
    /// It is something else, as a proxy or a sign-in page of a network would send.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, KmsError> {
        // What was read is not repeated: it may hold a key.
        serde_json::from_slice(&self.body)
            .map_err(|_| KmsError::Unavailable(format!("HTTP {} with a body that is not the service's", self.status)))
    }
}

/// A service's words in a message of ours: one line, not too long.
pub(super) fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_WORDS).collect::<String>().trim().to_owned()
}

/// Asks a service.
pub(super) struct Caller {
    client: reqwest::Client,
    chance: Arc<dyn Chance>,
    patience: Duration,
}

impl Caller {
    /// Waits `patience` for an answer, repeats included.
    ///
    /// # Errors
    /// When the machine has no usable certificate store.
    pub(super) fn new(patience: Duration, chance: Arc<dyn Chance>) -> reqwest::Result<Self> {
        Ok(Self { client: client(Timeouts { connect: patience, total: patience })?, chance, patience })
    }

    /// For requests.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(super) fn chance(&self) -> &dyn Chance {
        &*self.chance
    }

    /// Makes attempts until one is not merely put off.
    pub(super) async fn patiently<'a, T: Send>(
        &self,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        let attempts = async {
            let mut longest = FIRST_PAUSE;
            for _ in 1..TRIES {
                match attempt().await {
                    Err(error) if error.is_passing() => {}
                    outcome => return outcome,
                }
                tokio::time::sleep(longest.mul_f64(self.chance.unit())).await;
                longest *= 2;
            }
            attempt().await
        };
        let in_vain = || KmsError::Unavailable(format!("nothing within {} s", self.patience.as_secs_f64()));
        tokio::time::timeout(self.patience, attempts).await.unwrap_or_else(|_| Err(in_vain()))
    }

    /// Sends one request and reads the answer, whatever its status.
    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, KmsError> {
        // The address is the operator's own and holds no secret; what stands in a request does not show in an error.
        let unreachable = |error: reqwest::Error| {
            let why = if error.is_timeout() {
                "it took too long"
            } else if error.is_connect() {
                "no connection"
            } else {
                "the connection broke"
            };
            let host = error.url().and_then(|url| url.host_str()).unwrap_or("its address").to_owned();
            KmsError::Unavailable(format!("{why} ({host})"))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(KmsError::Unavailable(format!("HTTP {status} with more than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }
}

/// How long a service that did not answer is left in peace.
const REST: Duration = Duration::from_secs(5);

/// A service behind a fuse: after a question without an answer the next ones fail at once for a moment, so that what
/// lives on cached keys is not held up by each of them, and a service that comes back is not trampled.
pub struct Fused {
    inner: Arc<dyn KeyManager>,
    blown: Mutex<Option<(Instant, KmsError)>>,
}

impl Fused {
    /// `inner` behind a fuse.
    pub fn new(inner: Arc<dyn KeyManager>) -> Self {
        Self { inner, blown: Mutex::new(None) }
    }

    fn rest(&self) -> Result<(), KmsError> {
        match &*self.blown.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, error)) if at.elapsed() < REST => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn note<T>(&self, question: &'static str, begun: Instant, outcome: Result<T, KmsError>) -> Result<T, KmsError> {
        let told = match &outcome {
            Ok(_) => "answered",
            Err(KmsError::Unavailable(_)) => "unavailable",
            Err(KmsError::Throttled(_)) => "throttled",
            Err(KmsError::Refused(_)) => "refused",
            Err(KmsError::KeyGone(_)) => "key_gone",
            Err(KmsError::NotOurs) => "not_ours",
        };
        metrics::counter!("muneem_vault_kms_questions_total", "question" => question, "outcome" => told).increment(1);
        metrics::histogram!("muneem_vault_kms_seconds", "question" => question).record(begun.elapsed().as_secs_f64());
        let mut blown = self.blown.lock().unwrap_or_else(PoisonError::into_inner);
        *blown = match &outcome {
            Err(error) if error.is_passing() => Some((Instant::now(), error.clone())),
            _ => None,
        };
        outcome
    }
}

#[async_trait]
impl KeyManager for Fused {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.rest()?;
        let begun = Instant::now();
        self.note("wrap", begun, self.inner.wrap(context, key).await)
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        self.rest()?;
        let begun = Instant::now();
        self.note("unwrap", begun, self.inner.unwrap(context, wrapped).await)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    /// Always asks: an operator wants to know how it stands now.
    async fn health(&self) -> Result<(), KmsError> {
        let begun = Instant::now();
        self.note("health", begun, self.inner.health().await)
    }
}

/// Two root keys while one replaces the other: the present one wraps, both unwrap.
pub struct Succession {
    present: Arc<dyn KeyManager>,
    previous: Arc<dyn KeyManager>,
}

impl Succession {
    /// `previous` wraps nothing any more.
    pub fn new(present: Arc<dyn KeyManager>, previous: Arc<dyn KeyManager>) -> Self {
        Self { present, previous }
    }
}

#[async_trait]
impl KeyManager for Succession {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        self.present.wrap(context, key).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        let first = match self.present.unwrap(context, wrapped).await {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        match self.previous.unwrap(context, wrapped).await {
            // Whose blob it is only the one knows that has it: where the present one did not look, its word counts.
            Err(second) if first == KmsError::NotOurs => Err(second),
            Err(_) => Err(first),
            key => key,
        }
    }

    fn describe(&self) -> String {
        self.present.describe()
    }

    async fn health(&self) -> Result<(), KmsError> {
        self.present.health().await
    }
}
