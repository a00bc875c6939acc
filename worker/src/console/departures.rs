//! How often one network may set out to an identity provider: each time writes a row, and may ask the provider
//! something. Each process counts for itself, in little room however many addresses there are.

use std::{net::IpAddr, num::NonZeroU32};

use governor::Quota;

use super::guard::Turned;
use crate::http::rate::{ByKey, block};

/// Networks remembered at once, twice over at most.
const REMEMBERED: usize = 4096;

/// What networks have left.
#[derive(Debug)]
pub struct Departures(ByKey<IpAddr>);

impl Departures {
    /// Ways begun by one network in a minute, and at once, unless told otherwise.
    pub const A_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("thirty is not zero");

    /// So many a minute from each network.
    pub fn new(a_minute: NonZeroU32) -> Self {
        Self(ByKey::new(REMEMBERED, Quota::per_minute(a_minute)))
    }

    /// Counts one way begun from this address.
    pub(super) fn take(&self, from: IpAddr) -> Result<(), Turned> {
        self.0.take(block(from)).map_err(|wait| Turned::TooSoon {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX).saturating_add(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_sets_out_thirty_times_and_its_neighbour_does_not_pay() {
        let (departures, one) = (Departures::new(Departures::A_MINUTE), "2001:db8:1:2::1".parse().expect("an address"));
        for _ in 0..30 {
            departures.take(one).expect("within the thirty");
        }
        let same_network = "2001:db8:1:2:ffff::9".parse().expect("an address");
        for from in [one, same_network] {
            let told = departures.take(from).expect_err("the thirty-first");
            assert!(matches!(told, Turned::TooSoon { seconds: 1..=61 }), "{told:?}");
        }
        departures.take("2001:db8:1:3::1".parse().expect("an address")).expect("another network");
    }
}
