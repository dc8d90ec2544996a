//! What time it is for a ledger, and when the deliveries of a partition were made.
//!
//! The ledger knows no clock. Serials rise with time, so one stamp for each message to a stream is enough to tell the age of any delivery.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::consume::ledger::Moment;

/// The ledgers' clock: the time of day when the session began, and from then on never back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    begun: Instant,
    epoch: Moment,
}

impl Clock {
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            begun: Instant::now(),
            epoch: since.map_or(0, millis),
        }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        self.epoch + millis(at.saturating_duration_since(self.begun))
    }

    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.begun + Duration::from_millis(moment.saturating_sub(self.epoch))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Messages that follow each other faster share a stamp: that bounds how many there are.
const SAME: Duration = Duration::from_micros(100);

/// The first serial of each message, and when it was made. As old as the oldest delivery that is not settled, when last looked.
#[derive(Debug, Default)]
pub(super) struct Times(VecDeque<(u32, Instant)>);

/// Deliveries that were made at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) serials: Range<u32>,
    pub(super) at: Instant,
}

impl Times {
    /// Deliveries from `serial` on are made at `now`.
    pub(super) fn stamp(&mut self, serial: u32, now: Instant) {
        let is_same = |(_, at): &(u32, Instant)| now.saturating_duration_since(*at) < SAME;
        if !self.0.back().is_some_and(is_same) {
            self.0.push_back((serial, now));
        }
    }

    /// When the delivery of `serial` was made, and which others with it.
    pub(super) fn of(&self, serial: u32) -> Option<Made> {
        let after = self.0.partition_point(|(first, _)| *first <= serial);
        let (first, at) = *self.0.get(after.checked_sub(1)?)?;
        let next = self.0.get(after).map_or(u32::MAX, |(next, _)| *next);
        Some(Made {
            serials: first..next,
            at,
        })
    }

    /// Forgets what is older than the delivery of `oldest`; all, if there is none.
    pub(super) fn forget(&mut self, oldest: Option<u32>) {
        let Some(oldest) = oldest else {
            return self.0.clear();
        };
        let after = self.0.partition_point(|(first, _)| *first <= oldest);
        self.0.drain(..after.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_as_old_as_the_message_it_came_in() {
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        let mut times = Times::default();
        assert_eq!(times.of(1), None);
        times.stamp(1, at(0));
        times.stamp(5, at(1));
        times.stamp(6, at(2));
        times.stamp(7, at(2) + SAME / 2);
        for (serial, serials, second) in [
            (1, 1..5, 0),
            (4, 1..5, 0),
            (5, 5..6, 1),
            (6, 6..u32::MAX, 2),
            (7, 6..u32::MAX, 2),
        ] {
            let at = at(second);
            assert_eq!(times.of(serial), Some(Made { serials, at }), "{serial}");
        }
        times.forget(Some(5));
        assert_eq!(times.of(4), None);
        assert_eq!(times.of(5).map(|made| made.at), Some(at(1)));
        times.forget(None);
        assert_eq!(times.of(6), None);
    }
}
