//! How much a number may send, and to whom: its throughput, the pace towards one person, the people that a portfolio
//! may begin to write to in a day, and the marketing that one person gets. All of it bounded, and none of it walks
//! through what it knows.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// A second, in microseconds.
const SECOND: i64 = 1_000_000;
/// Arrivals that come in a little out of order are still counted in their window.
const SLACK: i64 = 2 * SECOND;
/// Messages to one person at once.
const BURST: f64 = 45.0;
/// One more after so many seconds.
const REPAID: f64 = 6.0;
/// After so long without a message a pair is as if it had never been.
const FORGOTTEN: TimeDelta = TimeDelta::seconds(270);
/// The moving window of portfolios and of marketing.
const DAY: TimeDelta = TimeDelta::hours(24);
/// People whose marketing is counted; beyond, counting begins anew.
const COUNTED: usize = 200_000;

/// Instants in order, and the most that ever lay within one second.
#[derive(Debug, Default)]
pub(super) struct Window {
    instants: VecDeque<i64>,
    pub(super) highest: usize,
    pub(super) total: u64,
}

impl Window {
    /// Instants within the second that ends with `at`: later than a second before it, and not after it.
    fn within(&self, at: i64) -> usize {
        let until = self.instants.partition_point(|instant| *instant <= at);
        until - self.instants.partition_point(|instant| *instant <= at - SECOND)
    }

    /// Counts one more. Usually it is the newest, and only the window that ends with it is new.
    pub(super) fn add(&mut self, at: i64) {
        self.total += 1;
        let place = self.instants.partition_point(|instant| *instant <= at);
        self.instants.insert(place, at);
        self.highest = self.highest.max(self.within(at));
        for later in place + 1..self.instants.len() {
            let end = self.instants[later];
            if end >= at + SECOND {
                break;
            }
            self.highest = self.highest.max(self.within(end));
        }
        let newest = self.instants.back().copied().unwrap_or(at);
        while self.instants.front().is_some_and(|oldest| *oldest <= newest - SECOND - SLACK) {
            self.instants.pop_front();
        }
    }
}

/// What one number was asked to send, and what it took.
#[derive(Debug, Default)]
pub(super) struct Rate {
    pub(super) offered: Window,
    pub(super) accepted: Window,
    pub(super) inbound: Window,
    pub(super) refused: HashMap<i64, u64>,
    /// Shortest time between two accepted messages to one person, in microseconds.
    pub(super) closest: Option<i64>,
    /// Most that were sent to one person ahead of her pace.
    pub(super) deepest: f64,
}

/// A pair's bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    filled_at: DateTime<Utc>,
}

/// Marketing that a person got.
#[derive(Debug, Default)]
struct Got {
    at: VecDeque<DateTime<Utc>>,
    refused: u32,
    locked_until: Option<DateTime<Utc>>,
}

/// People that a portfolio began to write to within a day.
#[derive(Debug, Default)]
struct Portfolio {
    last: HashMap<u64, DateTime<Utc>>,
    order: BTreeSet<(DateTime<Utc>, u64)>,
}

/// The limits of all numbers.
#[derive(Debug, Default)]
pub(super) struct Limits {
    rates: Vec<Rate>,
    /// Pairs of this period and of the one before: what neither holds is full again.
    pairs: [HashMap<u64, Bucket>; 2],
    period_began: Option<DateTime<Utc>>,
    portfolios: HashMap<usize, Portfolio>,
    marketing: HashMap<u64, Got>,
    hasher: RandomState,
}

fn seconds(span: TimeDelta) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a bucket is not that exact")]
    let seconds = span.num_microseconds().unwrap_or(0).max(0) as f64 / 1e6;
    seconds
}

impl Limits {
    pub(super) fn rate(&mut self, number: usize) -> &mut Rate {
        while self.rates.len() <= number {
            self.rates.push(Rate::default());
        }
        &mut self.rates[number]
    }

    /// The number's throughput and then the pair's pace. `at` is when the request arrived, in microseconds.
    pub(super) fn admit(
        &mut self,
        number: usize,
        to: &str,
        per_second: u32,
        (at, now): (i64, DateTime<Utc>),
    ) -> Result<(), i64> {
        let rate = self.rate(number);
        rate.offered.add(at);
        let taken = rate.accepted.within(at) + rate.inbound.within(at);
        let full = taken >= usize::try_from(per_second).unwrap_or(usize::MAX);
        let verdict = if full { Err(130_429) } else { self.pair(number, to, now) };
        let rate = self.rate(number);
        match verdict {
            Ok(()) => rate.accepted.add(at),
            Err(code) => *rate.refused.entry(code).or_default() += 1,
        }
        verdict
    }

    fn pair(&mut self, number: usize, to: &str, now: DateTime<Utc>) -> Result<(), i64> {
        let began = *self.period_began.get_or_insert(now);
        if now - began > FORGOTTEN {
            let [new, old] = &mut self.pairs;
            *old = std::mem::take(new);
            if now - began > FORGOTTEN * 2 {
                old.clear();
            }
            self.period_began = Some(now);
        }
        let key = self.hasher.hash_one((number, to));
        let known = self.pairs[0].get(&key).or_else(|| self.pairs[1].get(&key)).copied();
        let mut bucket = known.unwrap_or(Bucket { left: BURST, filled_at: now });
        let passed = now - bucket.filled_at;
        bucket.left = (bucket.left + seconds(passed) / REPAID).min(BURST);
        bucket.filled_at = now;
        let enough = bucket.left >= 1.0;
        if enough {
            bucket.left -= 1.0;
            let rate = self.rate(number);
            rate.deepest = rate.deepest.max(BURST - bucket.left);
            if known.is_some() {
                let gap = passed.num_microseconds().unwrap_or(i64::MAX).max(0);
                rate.closest = Some(rate.closest.map_or(gap, |closest| closest.min(gap)));
            }
        }
        self.pairs[0].insert(key, bucket);
        if enough { Ok(()) } else { Err(131_056) }
    }

    /// Counts one more that a person sent: both directions share a number's throughput.
    pub(super) fn inbound(&mut self, number: usize, at: i64) {
        self.rate(number).inbound.add(at);
    }

    /// Whether a portfolio may begin to write to one more person within 24 hours.
    pub(super) fn begin(&mut self, portfolio: usize, to: &str, most: usize, now: DateTime<Utc>) -> bool {
        let user = self.hasher.hash_one(to);
        let portfolio = self.portfolios.entry(portfolio).or_default();
        while let Some((at, oldest)) = portfolio.order.first().copied() {
            if now - at < DAY {
                break;
            }
            portfolio.order.pop_first();
            portfolio.last.remove(&oldest);
        }
        match portfolio.last.get(&user).copied() {
            Some(before) => {
                portfolio.order.remove(&(before, user));
            }
            None if portfolio.last.len() >= most => return false,
            None => {}
        }
        portfolio.last.insert(user, now);
        portfolio.order.insert((now, user));
        true
    }

    /// Whether a person gets one more marketing message today: `cap` a day from everybody, and after `lock` in vain
    /// none from anybody for a day.
    pub(super) fn market(&mut self, to: &str, cap: u32, lock: u32, now: DateTime<Utc>) -> bool {
        if self.marketing.len() > COUNTED {
            self.marketing.clear();
        }
        let got = self.marketing.entry(self.hasher.hash_one(to)).or_default();
        while got.at.front().is_some_and(|at| now - *at >= DAY) {
            got.at.pop_front();
        }
        let locked = got.locked_until.is_some_and(|until| now < until);
        if !locked && got.at.len() < usize::try_from(cap).unwrap_or(usize::MAX) {
            got.at.push_back(now);
            got.refused = 0;
            got.locked_until = None;
            return true;
        }
        got.refused += 1;
        if got.refused >= lock {
            got.locked_until = Some(now + DAY);
        }
        false
    }

    /// What the oracle tells of a number.
    pub(super) fn told(&self, number: usize) -> Value {
        let Some(rate) = self.rates.get(number) else { return Value::Null };
        let refused: serde_json::Map<_, _> =
            rate.refused.iter().map(|(code, n)| (code.to_string(), json!(n))).collect();
        json!({
            "accepted": rate.accepted.total,
            "accepted_most_in_a_second": rate.accepted.highest,
            "offered": rate.offered.total,
            "offered_most_in_a_second": rate.offered.highest,
            "inbound": rate.inbound.total,
            "refused": refused,
            "pair_closest_millis": rate.closest.map(|micros| micros / 1000),
            "pair_burst_most": rate.deepest.ceil(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most in any second, counted the plain way.
    fn plainly(instants: &[i64]) -> usize {
        let within = |end: i64| instants.iter().filter(|at| **at <= end && **at > end - SECOND).count();
        instants.iter().map(|end| within(*end)).max().unwrap_or(0)
    }

    #[test]
    fn the_highest_count_in_a_second_is_exact_also_out_of_order() {
        let mut random = 1_u64;
        for round in 0..50_i64 {
            let (mut window, mut all, mut clock) = (Window::default(), Vec::new(), 0_i64);
            for _ in 0..400 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let step = i64::try_from(random >> 44).unwrap_or(0) % (5_000 * (round + 1));
                clock += step;
                // Some arrive late, by less than the slack.
                let at = clock - if random.is_multiple_of(7) { step * 3 % SLACK } else { 0 };
                window.add(at);
                all.push(at);
            }
            assert_eq!((window.highest, window.total), (plainly(&all), 400), "round {round}");
        }
    }

    #[test]
    fn a_second_is_a_whole_one_and_not_a_microsecond_more() {
        let mut limits = Limits::default();
        let now = DateTime::UNIX_EPOCH;
        let at = |limits: &mut Limits, micros: i64, to: &str| limits.admit(0, to, 2, (micros, now));
        assert_eq!(at(&mut limits, 0, "1"), Ok(()));
        assert_eq!(at(&mut limits, 10, "2"), Ok(()));
        assert_eq!(at(&mut limits, 999_999, "3"), Err(130_429));
        assert_eq!(at(&mut limits, 1_000_000, "4"), Ok(()));
        assert_eq!(at(&mut limits, 1_000_009, "5"), Err(130_429));
        assert_eq!(limits.rate(0).accepted.highest, 2);
        assert_eq!(limits.rate(0).offered.highest, 4);
    }

    #[test]
    fn a_pair_has_a_burst_of_45_and_repays_it_at_six_seconds_each() {
        let mut limits = Limits::default();
        let now = DateTime::UNIX_EPOCH;
        let mut sent = |secs: i64, micros: i64| limits.admit(0, "9", 1000, (micros, now + TimeDelta::seconds(secs)));
        assert_eq!((0..45).filter(|n| sent(0, *n * 2_000).is_ok()).count(), 45);
        assert_eq!(sent(0, 100_000), Err(131_056));
        assert_eq!(sent(5, 5_000_000), Err(131_056));
        assert_eq!(sent(6, 6_000_000), Ok(()));
        assert_eq!(sent(6, 6_000_001), Err(131_056));
        // A period later the debt is still known, two later it is repaid.
        assert_eq!(sent(6 + 271, 300_000_000), Ok(()));
        assert_eq!((0..46).filter(|n| sent(2_000, 2_000_000_000 + n * 2_000).is_ok()).count(), 45);
    }

    #[test]
    fn a_portfolio_begins_with_so_many_people_a_day_and_a_person_gets_so_much_marketing() {
        let mut limits = Limits::default();
        let now = DateTime::UNIX_EPOCH;
        assert!(limits.begin(0, "a", 2, now) && limits.begin(0, "b", 2, now));
        assert!(!limits.begin(0, "c", 2, now) && limits.begin(1, "c", 2, now));
        // Again to one of them is nobody new, and she is counted from now.
        assert!(limits.begin(0, "a", 2, now + TimeDelta::hours(23)));
        assert!(limits.begin(0, "c", 2, now + DAY));
        assert!(!limits.begin(0, "b", 2, now + DAY));

        assert!(limits.market("a", 1, 2, now));
        assert!(!limits.market("a", 1, 2, now) && !limits.market("a", 1, 2, now + TimeDelta::hours(20)));
        assert!(!limits.market("a", 1, 2, now + TimeDelta::hours(30)), "locked for a day");
        assert!(limits.market("a", 1, 2, now + TimeDelta::hours(69)));
    }
}
