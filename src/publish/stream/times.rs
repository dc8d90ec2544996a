//! When a stream is looked at without being woken, and what has come by then: its deadline, the end of its caller's grace, of a drain's quiet.

use std::time::{Duration, Instant};

use super::{
    refusal::exceeded,
    session::{DRAIN_QUIET, Session},
};
use crate::failure::{Failure, Reason};

impl Session<'_> {
    /// When to look next without being woken, if ever. Most streams have no such time, and then no clock is read for their messages.
    /// `idle`: nothing of it is outstanding.
    pub(super) fn timer(&self, idle: bool) -> Option<Instant> {
        if let Some((_, by)) = &self.ending {
            return Some(*by);
        }
        let grace = self.publisher.0.config.stream_grace;
        let next = [
            self.over_since.map(|since| since + grace),
            self.draining
                .filter(|_| idle)
                .map(|heard| heard + DRAIN_QUIET),
            self.deadline,
        ];
        let next = next.into_iter().flatten().min()?;
        // A time that has passed and ends nothing must not make the loop spin.
        Some(next.max(Instant::now() + Duration::from_millis(1)))
    }

    /// The call's deadline has come while nothing else ends the stream.
    pub(super) fn is_late(&self) -> bool {
        self.ending.is_none()
            && self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Looks which time has come; says whether the stream is over at once.
    pub(super) fn expire(&mut self) -> bool {
        let now = Instant::now();
        if let Some((_, by)) = &self.ending {
            return now >= *by;
        }
        let grace = self.publisher.0.config.stream_grace;
        if self.over_since.is_some_and(|since| now >= since + grace) {
            self.end_with(exceeded("more than the window was unanswered for too long"));
            // Its caller had the whole grace to read.
            return true;
        }
        if self.is_late() {
            self.end_with(Failure::possibly_persisted(
                Reason::Deadline,
                "the deadline of the stream came; what is unanswered may still be written",
            ));
            return true;
        }
        false
    }
}

/// Never ends without a time.
pub async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
