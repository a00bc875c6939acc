//! What the tests of the whole system share: a database, a clock that is moved by hand, workers in process, and jobs
//! that do as they are told.

pub mod binary;
pub mod browser;
pub mod outside;
pub mod probe;
pub mod workers;

use std::time::{Duration, Instant};

/// Longest that anything in a test may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever has the machine, as the evidence names her, now.
pub fn operator() -> muneem_jobs::evidence::By<'static> {
    use muneem_jobs::outbound::Clock;
    let now = outside::TestClock::default().now();
    muneem_jobs::evidence::By::operator(now, &muneem::outbound::chance::OsChance)
}

/// Asks again until it is so.
///
/// # Panics
/// When it is not so for [`PATIENCE`]; `what` says what was awaited.
pub async fn until<F, Fut>(what: &str, mut is_so: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
