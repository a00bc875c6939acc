//! How much a number may send, and to whom.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

/// A bucket that refills.
#[derive(Debug)]
struct Bucket {
    left: f64,
    filled_at: DateTime<Utc>,
}

impl Bucket {
    fn take(&mut self, now: DateTime<Utc>, size: f64, per_second: f64) -> bool {
        let passed = (now - self.filled_at).num_microseconds().unwrap_or(0).max(0);
        #[expect(clippy::cast_precision_loss, reason = "a bucket is not that exact")]
        let refill = passed as f64 / 1e6 * per_second;
        self.left = (self.left + refill).min(size);
        self.filled_at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[derive(Debug, Default)]
pub(super) struct Limits {
    buckets: HashMap<String, Bucket>,
}

impl Limits {
    /// The number's limit, then the pair's: 45 at once, one in six seconds.
    pub(super) fn admit(&mut self, number: &str, to: &str, per_second: u32, now: DateTime<Utc>) -> Result<(), i64> {
        if self.buckets.len() > 100_000 {
            self.buckets.clear();
        }
        let rate = f64::from(per_second);
        let full = |left| move || Bucket { left, filled_at: now };
        if !self.buckets.entry(number.to_owned()).or_insert_with(full(rate)).take(now, rate, rate) {
            return Err(130_429);
        }
        let pair = format!("{number}>{to}");
        if !self.buckets.entry(pair).or_insert_with(full(45.0)).take(now, 45.0, 1.0 / 6.0) {
            return Err(131_056);
        }
        Ok(())
    }
}
