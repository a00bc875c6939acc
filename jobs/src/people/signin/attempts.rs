//! How long the next attempt waits after wrong ones.
//!
//! Counted are the pair of account and place, and the account over all places. The pair's wait doubles up to a quarter
//! of an hour. The account's stays at a minute: a stranger who tries from everywhere makes its owner wait a minute at
//! most, and a million guesses take two years; where she has signed in before ([`Place::Known`]) she does not wait for
//! strangers at all. Each attempt is counted before it is looked at, so that a thousand at once count as a thousand.

use chrono::{DateTime, TimeDelta, Utc};

/// Wrong attempts from one place that cost nothing but the count: people mistype.
const FREE_AT_A_PLACE: i32 = 4;
/// Longest wait at one place.
const LONGEST_AT_A_PLACE: TimeDelta = TimeDelta::minutes(15);
/// Wrong attempts over all places that cost nothing.
const FREE_IN_ALL: i32 = 10;
/// Longest wait over all places.
const LONGEST_IN_ALL: TimeDelta = TimeDelta::minutes(1);
/// Quiet after which nothing is held against anybody.
pub(super) const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(24);

/// An account, by the blind index of what somebody typed: it need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountKey(pub [u8; 16]);

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A browser that this account was signed in with before, by the first half of its mark's digest.
    Known([u8; 16]),
    /// Anywhere else, by the blind index of the network it comes from (IPv4: the address, IPv6: its /64).
    Network([u8; 16]),
}

impl Place {
    pub(super) fn bytes(&self) -> &[u8; 16] {
        match self {
            Self::Known(bytes) | Self::Network(bytes) => bytes,
        }
    }
}

/// When the attempt after `failures` wrong ones is looked at.
pub(super) fn not_before(failures: i32, over_all_places: bool, now: DateTime<Utc>) -> DateTime<Utc> {
    let (free, longest) =
        if over_all_places { (FREE_IN_ALL, LONGEST_IN_ALL) } else { (FREE_AT_A_PLACE, LONGEST_AT_A_PLACE) };
    let beyond = failures - free;
    if beyond <= 0 {
        return now;
    }
    // 2^20 s are longer than any limit here.
    let doubled = TimeDelta::seconds(1 << (beyond - 1).min(20));
    now + doubled.min(longest)
}

/// Whether this wrong attempt is the one to tell the account's owner of: the first that makes it wait.
pub(super) fn is_alarming(failures_in_all: i32) -> bool {
    failures_in_all == FREE_IN_ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_ends() {
        let now = DateTime::UNIX_EPOCH;
        let waits = |all| move |failures| (not_before(failures, all, now) - now).num_seconds();
        let at_a_place: Vec<_> = [0, 4, 5, 6, 7, 14, 15, 1_000_000, i32::MAX].map(waits(false)).to_vec();
        assert_eq!(at_a_place, [0, 0, 1, 2, 4, 512, 900, 900, 900]);
        let in_all: Vec<_> = [0, 10, 11, 12, 16, 17, 18, i32::MAX].map(waits(true)).to_vec();
        assert_eq!(in_all, [0, 0, 1, 2, 32, 60, 60, 60]);
    }

    /// Row 51 of the list of attacks, from everywhere at once: what the waits come to.
    #[test]
    fn atk_051_a_million_guesses_take_years() {
        let now = DateTime::UNIX_EPOCH;
        let total: i64 = (0..1_000_000).map(|failures| (not_before(failures, true, now) - now).num_seconds()).sum();
        assert!(total > 694 * 86_400, "{total} s");
        // Three codes of a million are valid at a time: the chance that a day's guesses hit.
        let a_day = 10.0 + 86_400.0 / 60.0 + 6.0;
        assert!(a_day * 3.0 / 1e6 < 0.005);
    }
}
