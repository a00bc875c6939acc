//! Posts webhooks to receivers that businesses name, from inside a network that is none of theirs.
//!
//! Where a name leads is asked here and looked at before anything is connected to: one answer that is not public refuses
//! them all, and what is connected to is what was looked at. A name that leads elsewhere a moment later changes nothing.
//! Addresses that stand in the URL itself pass no resolver and are looked at before each call. Nothing is followed, no
//! proxy is used, nothing is repeated, and of an answer the status alone counts.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use muneem_jobs::outbound::webhook::{
    WebhookAnswer, WebhookCall, WebhookFailure, WebhookOutcome, WebhookSender, may_reach,
};
use reqwest::{
    Certificate,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, RETRY_AFTER},
};

use super::http::{self, Timeouts};

/// From the question for the address to the head of the answer: Standard Webhooks recommends 15 to 30 seconds.
const TOTAL: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// So much of an answer's body is read, and for so long, that the connection can be used again; it is looked at by nobody.
const DRAINED_BYTES: usize = 64 * 1024;
const DRAINED_FOR: Duration = Duration::from_millis(500);
/// Longest `Retry-After` that is looked at: a date has 29 characters.
const RETRY_AFTER_MAX: usize = 64;

/// Answers where a name leads.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// How receivers are reached.
#[derive(Clone)]
pub struct Settings {
    /// Receivers on this machine are taken, and plain http to them: in sandbox mode alone.
    pub loopback: bool,
    /// Longest wait for the head of an answer.
    pub total: Duration,
    /// Certificates that are believed beside the machine's own.
    pub roots: Vec<Certificate>,
    /// Who knows names; none: the machine's resolver.
    pub lookup: Option<Lookup>,
}

impl Settings {
    /// As in production: 15 seconds, the machine's certificates and resolver, no loopback.
    pub fn new(loopback: bool) -> Self {
        Self { loopback, total: TOTAL, roots: Vec::new(), lookup: None }
    }
}

/// The real sender.
pub struct Receivers {
    client: reqwest::Client,
}

impl Receivers {
    /// Reaches receivers as `settings` say.
    ///
    /// # Errors
    /// When the machine has no usable certificate store.
    pub fn new(settings: Settings) -> reqwest::Result<Self> {
        let Settings { loopback, total, roots, lookup } = settings;
        let timeouts = Timeouts { connect: CONNECT.min(total), total };
        let guard = Guard { loopback, lookup: lookup.unwrap_or_else(|| Arc::new(|name| Box::pin(ask_machine(name)))) };
        let builder = http::builder(timeouts)
            .dns_resolver(Arc::new(guard))
            .https_only(!loopback)
            .referer(false)
            .pool_max_idle_per_host(8)
            .tls_certs_merge(roots);
        Ok(Self { client: builder.build()? })
    }
}

async fn ask_machine(name: String) -> io::Result<Vec<IpAddr>> {
    // The port is the client's business.
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

/// The resolver that connections are made by.
struct Guard {
    loopback: bool,
    lookup: Lookup,
}

/// A name leads to an address that webhooks do not go to.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to an address that is not public")]
struct NotPublic;

/// A name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the name leads nowhere")]
struct Nowhere;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (loopback, asked) = (self.loopback, (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = asked.await.map_err(|_| Nowhere)?;
            if found.is_empty() {
                return Err(Nowhere.into());
            }
            // One inner address among public ones is an attack or a mistake: neither is called.
            if !found.iter().all(|address| may_reach(*address, loopback)) {
                return Err(NotPublic.into());
            }
            let found: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(found)
        })
    }
}

#[async_trait]
impl WebhookSender for Receivers {
    async fn post(&self, call: &WebhookCall) -> WebhookOutcome {
        let begun = Instant::now();
        let answer = self.ask(call).await;
        let took = begun.elapsed();
        let told = match &answer {
            Ok(answer) if (200..300).contains(&answer.status) => "delivered",
            Ok(_) => "status",
            Err(failure) => failure.as_str(),
        };
        metrics::counter!("muneem_webhooks_attempts_total", "outcome" => told).increment(1);
        metrics::histogram!("muneem_webhooks_attempt_seconds").record(took.as_secs_f64());
        WebhookOutcome { answer, took }
    }
}

impl Receivers {
    async fn ask(&self, call: &WebhookCall) -> Result<WebhookAnswer, WebhookFailure> {
        if call.url.literal().is_some_and(|address| !call.url.may_reach(address)) {
            return Err(WebhookFailure::Address);
        }
        let request = self
            .client
            .post(call.url.expose())
            .header("content-type", "application/json")
            .header("webhook-id", &call.id)
            .header("webhook-timestamp", call.timestamp)
            .header("webhook-signature", &call.signature)
            .body(call.body.clone());
        let mut response = request.send().await.map_err(|error| failure_of(&error))?;
        let answer = WebhookAnswer { status: response.status().as_u16(), retry_after: retry_after(response.headers()) };
        // The outcome is known; what else comes is read for the connection's sake alone.
        let drain = async {
            let mut read = 0;
            while let Ok(Some(chunk)) = response.chunk().await {
                read += chunk.len();
                if read > DRAINED_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DRAINED_FOR, drain).await;
        Ok(answer)
    }
}

fn retry_after(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    (text.len() <= RETRY_AFTER_MAX).then(|| text.to_owned())
}

/// Of an error its kind alone: it may spell the address.
fn failure_of(error: &reqwest::Error) -> WebhookFailure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut is_tls = false;
    while let Some(cause) = source {
        if cause.is::<NotPublic>() {
            return WebhookFailure::Address;
        }
        if cause.is::<Nowhere>() {
            return WebhookFailure::Name;
        }
        is_tls |= holds_tls(cause);
        source = cause.source();
    }
    match (error.is_timeout(), is_tls, error.is_connect()) {
        (true, ..) => WebhookFailure::TimedOut,
        (_, true, _) => WebhookFailure::Tls,
        (.., true) => WebhookFailure::Connect,
        _ => WebhookFailure::Broken,
    }
}

/// I/O errors hide what they are made from, and are made from each other.
fn holds_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    while let Some(held) = inner {
        if held.is::<rustls::Error>() {
            return true;
        }
        inner = held.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    }
    error.is::<rustls::Error>()
}
