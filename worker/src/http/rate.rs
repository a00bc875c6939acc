//! How often one caller may ask: by token, by business over all its tokens, and by address for whoever is not known yet.
//!
//! An address pays for what it guesses, not for what its neighbours behind the same router do: a token or link that
//! opened something a moment ago is never turned away for the address it comes from. Each process counts for itself, so that
//! no request waits for a counter; N machines let through N times as much.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use muneem_jobs::people::{self, BusinessId};

use super::problem::{Problem, ProblemId};
use crate::config;

/// Callers remembered at once of each sort, twice over at most. Ten million invented addresses take no more room.
const REMEMBERED: usize = 16_384;

/// What callers have left.
#[derive(Debug)]
pub struct Rates {
    guesses: Guesses,
    tokens: Kept<String, DefaultDirectRateLimiter>,
    businesses: Kept<BusinessId, DefaultDirectRateLimiter>,
    token_quota: Quota,
    business_quota: Quota,
}

impl Rates {
    /// Counts from nothing, by `[server]`.
    pub fn new(settings: &config::Server) -> Self {
        let burst = |count: NonZeroU32| count.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        let each_second = |count: NonZeroU32| Quota::per_second(count).allow_burst(burst(count));
        Self {
            guesses: Guesses::new(settings.token_guesses_per_minute),
            tokens: Kept::new(REMEMBERED),
            businesses: Kept::new(REMEMBERED),
            token_quota: each_second(settings.requests_per_second_per_token),
            business_quota: each_second(settings.requests_per_second_per_business),
        }
    }

    /// Before a token is looked up: one that is not known costs its address a guess.
    pub(super) fn admit(&self, from: Option<IpAddr>, bearer: &str) -> Result<(), Problem> {
        self.guesses.admit(from, bearer).map_err(too_often)
    }

    /// After it opened: the token and its business pay for the request.
    pub(super) fn charge(&self, bearer: &str, caller: &people::Caller) -> Result<(), Problem> {
        self.guesses.opened(bearer);
        self.tokens.take(caller.token_id.clone(), self.token_quota).map_err(too_often)?;
        let Some(business) = caller.business else { return Ok(()) };
        self.businesses.take(business, self.business_quota).map_err(too_often)
    }

    /// A token that does not open any more is a stranger's again.
    pub(super) fn forget(&self, bearer: &str) {
        self.guesses.forget(bearer);
    }
}

/// What each address may still try of secrets that were perhaps never given to it: tokens, links.
#[derive(Debug)]
pub struct Guesses {
    addresses: Kept<IpAddr, DefaultDirectRateLimiter>,
    /// Secrets that opened something lately, as a hash that means nothing outside this process.
    known: Kept<u64, ()>,
    hasher: RandomState,
    quota: Quota,
}

impl Guesses {
    /// Counts from nothing.
    pub fn new(each_minute: NonZeroU32) -> Self {
        Self {
            addresses: Kept::new(REMEMBERED),
            known: Kept::new(REMEMBERED),
            hasher: RandomState::new(),
            quota: Quota::per_minute(each_minute),
        }
    }

    /// Before a secret is looked up: one that is not known costs its address a guess. How long to wait, where it has
    /// none left.
    pub(crate) fn admit(&self, from: Option<IpAddr>, secret: &str) -> Result<(), Duration> {
        if self.known.with(self.hasher.hash_one(secret), || None, |()| ()).is_some() {
            return Ok(());
        }
        let Some(from) = from.map(block) else { return Ok(()) };
        self.addresses.take(from, self.quota)
    }

    /// It opened something.
    pub(crate) fn opened(&self, secret: &str) {
        self.known.with(self.hasher.hash_one(secret), || Some(()), |()| ());
    }

    /// It opens nothing, or nothing any more.
    pub(crate) fn forget(&self, secret: &str) {
        self.known.remove(&self.hasher.hash_one(secret));
    }
}

/// Who shares a count: an IPv4 address, or the 64 bits of IPv6 that one subscriber is given (RFC 6177).
pub(crate) fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The callers seen last: two generations, the older of which goes when the younger is full.
#[derive(Debug)]
struct Kept<K, V> {
    most: usize,
    generations: Mutex<[HashMap<K, V>; 2]>,
}

impl<K: Eq + Hash, V> Kept<K, V> {
    fn new(most: usize) -> Self {
        Self { most, generations: Mutex::new([HashMap::new(), HashMap::new()]) }
    }

    /// What `then` makes of the value kept under `key`, or of a new one where there is none.
    fn with<T>(&self, key: K, new: impl FnOnce() -> Option<V>, then: impl FnOnce(&V) -> T) -> Option<T> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        if !young.contains_key(&key) {
            let value = old.remove(&key).or_else(new)?;
            if young.len() >= self.most {
                std::mem::swap(young, old);
                young.clear();
            }
            return Some(then(young.entry(key).or_insert(value)));
        }
        young.get(&key).map(then)
    }

    fn remove(&self, key: &K) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for generation in &mut *generations {
            generation.remove(key);
        }
    }
}

impl<K: Eq + Hash> Kept<K, DefaultDirectRateLimiter> {
    /// Takes one from what `key` has left; how long to wait, where there is none.
    fn take(&self, key: K, quota: Quota) -> Result<(), Duration> {
        let clock = DefaultClock::default();
        let taken =
            self.with(key, || Some(RateLimiter::direct_with_clock(quota, clock.clone())), |limiter| limiter.check());
        match taken {
            Some(Err(early)) => Err(early.wait_time_from(clock.now())),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// How often each of many may do one thing.
#[derive(Debug)]
pub(crate) struct ByKey<K> {
    kept: Kept<K, DefaultDirectRateLimiter>,
    quota: Quota,
}

impl<K: Eq + Hash> ByKey<K> {
    /// Remembers at least the last `most` of them.
    pub(crate) fn new(most: usize, quota: Quota) -> Self {
        Self { kept: Kept::new(most), quota }
    }

    /// Counts one time. `Err`: how long to wait.
    pub(crate) fn take(&self, key: K) -> Result<(), Duration> {
        self.kept.take(key, self.quota)
    }
}

fn too_often(wait: Duration) -> Problem {
    Problem::from(ProblemId::TooOften).after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_056_ten_million_addresses_are_remembered_in_little_room() {
        let kept = Kept::new(100);
        for address in 0..10_000_000_u32 {
            kept.with(address, || Some(address), |_| ());
        }
        let generations = kept.generations.lock().expect("nobody panicked");
        assert!(generations.iter().all(|generation| generation.capacity() < 1_000), "memory grew");
        drop(generations);
        assert_eq!(kept.with(9_999_999, || None, |address| *address), Some(9_999_999), "the last one is known");
        assert_eq!(kept.with(0, || None, |address| *address), None, "the first one is forgotten");
    }

    #[test]
    fn a_caller_that_keeps_coming_is_not_forgotten() {
        let kept = Kept::new(10);
        kept.with(0, || Some("first"), |_| ());
        for other in 1..1_000 {
            kept.with(other, || Some("other"), |_| ());
            assert_eq!(kept.with(0, || None, |name| *name), Some("first"), "after {other}");
        }
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_address() {
        let of = |text: &str| block(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.9"), of("203.0.113.9"));
    }
}
