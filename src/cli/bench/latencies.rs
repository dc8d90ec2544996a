//! Latencies as a histogram of three digits (HDR), and the shares of them that are told.

use std::{sync::MutexGuard, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The shares of records that are told.
pub(super) const SHARES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// In nanoseconds; what is longer counts as an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// See the module. A quarter of a MiB: one of a run, not one of a stream.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

/// Latencies that several streams add to.
pub(super) type Shared = std::sync::Mutex<Latencies>;

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order"))
    }
}

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// Locks what is shared. A stream that panicked has failed the run already.
    pub(super) fn lock(shared: &Shared) -> MutexGuard<'_, Self> {
        shared
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Each of [`SHARES`], in seconds: so many are not longer.
    pub(super) fn shares(&self) -> [f64; SHARES.len()] {
        SHARES.map(|(_, share)| self.0.value_at_quantile(share) as f64 / 1e9)
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<T: IntoIterator<Item = Duration>>(latencies: T) -> Self {
        let mut all = Self::default();
        latencies.into_iter().for_each(|latency| all.add(latency));
        all
    }
}

/// Seconds by the names of their shares.
pub(super) fn named(shares: [f64; SHARES.len()]) -> Value {
    let named = SHARES.iter().zip(shares);
    named
        .map(|((name, _), seconds)| ((*name).to_owned(), json!(seconds)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_longest_of_its_part() {
        let all: Latencies = (1..=1000).map(Duration::from_millis).collect();
        for (found, millis) in all
            .shares()
            .into_iter()
            .zip([500.0, 900.0, 990.0, 999.0, 1000.0])
        {
            assert!(
                (found * 1e3 / millis - 1.0).abs() < 0.001,
                "{found} {millis}"
            );
        }
        assert_eq!(all.count(), 1000);
        assert_eq!(named(all.shares())["max"], all.shares()[4]);
    }

    #[test]
    fn what_is_longer_than_all_bounds_is_the_longest() {
        let all: Latencies = [Duration::from_secs(86_400)].into_iter().collect();
        assert!((all.shares()[0] / 3600.0 - 1.0).abs() < 0.001);
    }
}
