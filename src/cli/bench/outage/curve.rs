//! How many records were acknowledged by when, read every now and then, and what that says of rates.

use std::time::{Duration, Instant};

/// How often it is read.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// One interval alone says little: so many are looked at.
const SMOOTH: usize = 5;

/// As fast as before: at least so much of that rate.
const FULL: f64 = 0.9;

/// From one moment to another, since the beginning.
type Span = (Duration, Duration);

/// See the module.
pub(super) struct Curve {
    begun: Instant,
    /// Readings: when, and how many until then.
    read: Vec<(Duration, u64)>,
}

impl Curve {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            read: vec![(Duration::ZERO, 0)],
        }
    }

    /// The time since it began.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn add(&mut self, count: u64) {
        self.read.push((self.now(), count));
    }

    /// The readings of a span.
    fn part(&self, (from, to): Span) -> &[(Duration, u64)] {
        let first = self.read.partition_point(|(at, _)| *at < from);
        let last = self.read.partition_point(|(at, _)| *at <= to);
        &self.read[first..last.max(first)]
    }

    /// Records between the first and the last reading of a span.
    pub(super) fn count(&self, span: Span) -> u64 {
        let part = self.part(span);
        part.first()
            .zip(part.last())
            .map_or(0, |(first, last)| last.1 - first.1)
    }

    /// Records a second.
    pub(super) fn rate(&self, span: Span) -> f64 {
        rate(self.part(span))
    }

    /// Seconds after `from` until more were acknowledged.
    pub(super) fn first_after(&self, from: Duration) -> Option<f64> {
        let part = self.part((from, Duration::MAX));
        let before = self.read.iter().rfind(|(at, _)| *at < from)?.1;
        let first = part.iter().find(|(_, count)| *count > before)?;
        Some((first.0 - from).as_secs_f64())
    }

    /// Seconds after `from` from which on it was as fast as `before`: in the interval that begins there, and in most of the next few. What was held up comes at once, and that alone is no rate.
    pub(super) fn as_fast_after(&self, from: Duration, before: f64) -> Option<f64> {
        let part = self.part((from, Duration::MAX));
        let is_fast = |pair: &[(Duration, u64)]| rate(pair) >= FULL * before;
        let fast = part.windows(SMOOTH + 1).find(|readings| {
            let fast = readings.windows(2).filter(|pair| is_fast(pair)).count();
            is_fast(&readings[..2]) && fast > SMOOTH / 2
        })?;
        Some((fast[0].0 - from).as_secs_f64())
    }

    /// Records of each interval.
    pub(super) fn intervals(self) -> Vec<u64> {
        let pairs = self.read.windows(2);
        pairs.map(|pair| pair[1].1 - pair[0].1).collect()
    }
}

fn rate(readings: &[(Duration, u64)]) -> f64 {
    let ends = readings.first().zip(readings.last());
    ends.filter(|(first, last)| last.0 > first.0)
        .map_or(0.0, |(first, last)| {
            (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many records in each interval.
    fn curve(intervals: &[u64]) -> Curve {
        let mut curve = Curve::new();
        let mut count = 0;
        for (number, records) in (1..).zip(intervals) {
            count += records;
            curve.read.push((INTERVAL * number, count));
        }
        curve
    }

    #[test]
    fn a_rate_is_of_its_span_alone() {
        let curve = curve(&[10, 10, 0, 0, 0, 30, 30]);
        let rate = |from, to| curve.rate((INTERVAL * from, INTERVAL * to));
        assert!((rate(0, 2) - 100.0).abs() < 1e-6);
        assert!((rate(5, 7) - 300.0).abs() < 1e-6);
        assert_eq!(curve.count((INTERVAL * 2, INTERVAL * 5)), 0);
        assert_eq!(rate(7, 7), 0.0);
        assert_eq!(curve.intervals(), [10, 10, 0, 0, 0, 30, 30]);
    }

    #[test]
    fn it_is_as_fast_as_before_from_when_it_stays_so_for_a_while() {
        // One interval that makes up for those before it is not enough.
        let curve = curve(&[10, 10, 0, 0, 0, 0, 30, 5, 9, 9, 9, 9, 9]);
        let from = INTERVAL * 3;
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-6;
        assert!(close(curve.first_after(from), 0.4));
        assert!(close(curve.as_fast_after(from, 100.0), 0.3));
        assert!(close(curve.as_fast_after(INTERVAL * 7, 100.0), 0.1));
        assert_eq!(curve.as_fast_after(from, 1000.0), None);
    }
}
