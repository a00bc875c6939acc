//! The one place where HTTP clients are built.

use std::{sync::Once, time::Duration};

/// Waits of a client.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, name lookup and TLS included.
    pub connect: Duration,
    /// For a whole call, from the first byte out to the last byte in.
    pub total: Duration,
}

impl Timeouts {
    /// 5 s to connect, 30 s in all.
    pub const DEFAULT: Self = Self { connect: Duration::from_secs(5), total: Duration::from_secs(30) };
}

/// Status and beginning of what `url` answers to a GET.
///
/// # Errors
/// Nobody answers within `patience`.
pub async fn probe(url: &str, patience: Duration) -> reqwest::Result<(u16, String)> {
    let answer = client(Timeouts { connect: patience, total: patience })?.get(url).send().await?;
    let status = answer.status().as_u16();
    // Only what a health check says is of interest; an endless page ends with the patience.
    let text: String = answer.text().await.unwrap_or_default().chars().take(1000).collect();
    Ok((status, text))
}

/// A client that does what it is told once: no redirects, no retries, no proxy from the environment, bounded pool.
/// Retrying is the queue's business; a POST repeated here could say something twice.
///
/// # Errors
/// When the machine has no usable certificate store.
pub fn client(timeouts: Timeouts) -> reqwest::Result<reqwest::Client> {
    builder(timeouts).build()
}

/// The same before it is built, for whoever is stricter still.
#[expect(clippy::disallowed_methods, reason = "the one home of HTTP clients")]
pub(super) fn builder(timeouts: Timeouts) -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Somebody else's provider is as good; there is only one per process.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.total)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .pool_max_idle_per_host(32)
        .pool_idle_timeout(Duration::from_secs(20))
        .tcp_nodelay(true)
        .user_agent(concat!("muneem/", env!("CARGO_PKG_VERSION")))
}
