//! What a stream has read and not answered: batches that wait for room, and reports that wait for the caller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::Answer;
use crate::{
    metrics,
    publish::ids::Asked,
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
    #[expect(
        dead_code,
        reason = "held until the batch is admitted, or its stream is over"
    )]
    pub(super) charge: Charge,
}

/// Bytes that are read and not admitted, counted for the whole process as long as they wait.
pub(super) struct Charge {
    queued: Arc<AtomicU64>,
    bytes: u64,
}

impl Charge {
    pub(super) fn new(queued: &Arc<AtomicU64>, bytes: u64) -> Self {
        queued.fetch_add(bytes, Ordering::Relaxed);
        metrics::publish().queued(bytes);
        Self {
            queued: Arc::clone(queued),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
        metrics::publish().unqueued(self.bytes);
    }
}

/// What became of a batch, and what it holds of the window.
pub(super) struct Report {
    pub(super) answer: Answer,
    pub(super) usage: Usage,
}
