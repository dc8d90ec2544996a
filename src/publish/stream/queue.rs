//! What a stream has read and not answered: batches that wait for room, and reports that wait for the caller.

use std::time::Instant;

use super::Answer;
use crate::{
    metrics,
    publish::{Intake, Place, ids::Asked},
    record::{Record, Usage},
};

/// A batch that waits for room.
pub(super) struct Queued {
    pub(super) sequence: u64,
    pub(super) records: Vec<Record>,
    pub(super) usage: Usage,
    /// When it is given up if it still waits.
    pub(super) until: Instant,
    /// What was known of its message ids when it asked for room.
    pub(super) asked: Asked,
    /// Held until the batch is admitted, or its stream is over. Absent for a small one that may be admitted in this turn of the loop.
    pub(super) charge: Option<Charge>,
}

/// A batch of more bytes is charged as soon as it is read.
pub(super) const SMALL: u64 = 16 * 1024;

/// Bytes that are read and not admitted, counted for the whole process as long as they wait.
pub(super) struct Charge {
    bytes: u64,
    #[expect(dead_code, reason = "held as long as they wait")]
    place: Place,
}

impl Charge {
    pub(super) fn new(intake: &Intake, bytes: u64) -> Self {
        metrics::publish().queued(bytes);
        Self {
            bytes,
            place: intake.charged(bytes),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        metrics::publish().unqueued(self.bytes);
    }
}

/// What became of a batch, and what it holds of the window.
pub(super) struct Report {
    pub(super) answer: Answer,
    pub(super) usage: Usage,
}
