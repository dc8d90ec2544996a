//! An open loop: when each record is due, whatever became of those before it. The same for every path.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Up to so many records a second a thread wakes for each; beyond it those of a millisecond come together.
const EACH: u64 = 1000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) begun: Instant,
    /// Records a second.
    pub(super) rate: u64,
}

impl Schedule {
    /// From now on.
    pub(super) fn begin(rate: u64) -> Self {
        let begun = Instant::now();
        Self { begun, rate }
    }

    /// When a record is due; the first, 0, is at the beginning.
    pub(super) fn due(self, record: u64) -> Instant {
        let after = u128::from(record) * 1_000_000_000 / u128::from(self.rate);
        self.begun + Duration::from_nanos(after as u64)
    }

    /// Blocks the thread until a record is due, and says when that was. tokio's timers know only milliseconds.
    pub(super) fn wait(self, record: u64) -> Instant {
        let due = self.due(record);
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(match self.rate {
                ..=EACH => left,
                _ => Duration::from_millis(1),
            });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_evenly_and_never_given_out_early() {
        let schedule = Schedule::begin(3);
        assert_eq!(schedule.due(0), schedule.begun);
        assert_eq!(schedule.due(3) - schedule.begun, Duration::from_secs(1));
        for rate in [500, 5000] {
            let schedule = Schedule::begin(rate);
            let due = schedule.wait(7);
            assert_eq!(due, schedule.due(7));
            assert!(Instant::now() >= due);
        }
    }
}
