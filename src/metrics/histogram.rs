//! Counts by size: fixed bounds and one atomic a bucket.
//!
//! Not the recorder's own histogram, which keeps every sample until it is folded: at a million records a second that is memory without a bound.
//! Hot paths count into a [`Tally`], which is plain numbers, and add it once for a batch. What always holds: a sample is in one bucket.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bounds that OpenTelemetry's messaging and RPC conventions ask for, in seconds.
pub(super) const CONVENTION: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// For what takes milliseconds when all is well, and half a minute when it is not.
pub(super) const SHORT: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// For what takes milliseconds when all is well, and a day when it is not.
pub(super) const LONG: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0, 86400.0,
];

/// Room for the longest list of bounds, and what is above it.
const BUCKETS: usize = 16;

const _: () = assert!(CONVENTION.len() < BUCKETS && SHORT.len() < BUCKETS && LONG.len() < BUCKETS);

/// Shared; see the module.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    counts: [AtomicU64; BUCKETS],
    /// Of all samples: the bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }

    /// Counts `samples` of one size.
    pub(super) fn record(&self, size: f64, samples: u64) {
        self.count_only(size, samples);
        self.add_sum(size * samples as f64);
    }

    /// Counts samples whose sum is added elsewhere, by [`Histogram::add_sum`].
    pub(super) fn count_only(&self, size: f64, samples: u64) {
        self.counts[bucket(self.bounds, size)].fetch_add(samples, Ordering::Relaxed);
    }

    /// Takes over what was tallied, and empties the tally.
    pub(super) fn add(&self, tally: &mut Tally) {
        for (shared, own) in self.counts.iter().zip(&mut tally.counts) {
            if *own > 0 {
                shared.fetch_add(*own, Ordering::Relaxed);
                *own = 0;
            }
        }
        self.add_sum(tally.sum);
        tally.sum = 0.0;
    }

    pub(super) fn add_sum(&self, more: f64) {
        let add = |bits| Some((f64::from_bits(bits) + more).to_bits());
        // It never gives up: the closure always has an answer.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(super) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// What each bucket holds by itself, with what is above the bounds at the end; and the sum of all samples.
    pub(super) fn read(&self) -> (Vec<u64>, f64) {
        let counts = self.counts[..=self.bounds.len()]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        (counts, f64::from_bits(self.sum.load(Ordering::Relaxed)))
    }

    pub(super) fn count(&self) -> u64 {
        self.read().0.iter().sum()
    }
}

/// Samples that one owner has counted and not yet added to the [`Histogram`] with the same bounds.
#[derive(Debug)]
pub(super) struct Tally {
    bounds: &'static [f64],
    counts: [u64; BUCKETS],
    sum: f64,
}

impl Tally {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: [0; BUCKETS],
            sum: 0.0,
        }
    }

    pub(super) fn record(&mut self, size: f64) {
        self.counts[bucket(self.bounds, size)] += 1;
        self.sum += size;
    }
}

/// A bound is part of its bucket. From the small ones up: most samples are small.
fn bucket(bounds: &[f64], size: f64) -> usize {
    bounds
        .iter()
        .position(|bound| size <= *bound)
        .unwrap_or(bounds.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0];

    #[test]
    fn a_sample_on_a_bound_is_below_it_and_one_above_all_is_not_lost() {
        let histogram = Histogram::new(BOUNDS);
        for size in [0.5, 1.0, 1.5, 7.0] {
            histogram.record(size, 1);
        }
        histogram.record(2.0, 3);
        assert_eq!(histogram.read(), (vec![2, 4, 1], 16.0));
        assert_eq!(histogram.count(), 7);
    }

    #[test]
    fn a_tally_is_added_once() {
        let histogram = Histogram::new(BOUNDS);
        let mut tally = Tally::new(BOUNDS);
        tally.record(0.5);
        tally.record(3.0);
        histogram.add(&mut tally);
        histogram.add(&mut tally);
        assert_eq!(histogram.read(), (vec![1, 0, 1], 3.5));
    }
}
