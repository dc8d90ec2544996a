//! Records that a client gave up because it had failed for good, and that are certainly not written: its successor sends them.
//!
//! They are copied out of their reports, so that nothing is held twice as long as all goes well. What always holds: they go out before any
//! record that comes later, those of one batch and of batches that were registered one after the other in their order; a record is either
//! kept here or has its report.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::BatchId;
use crate::record::Record;

/// A record that is to be sent again.
pub(super) struct Kept {
    pub(super) batch: BatchId,
    pub(super) index: usize,
    pub(super) record: Record,
}

impl Kept {
    /// Where it stands among all records.
    pub(super) fn order(&self) -> (u64, usize) {
        (self.batch.number, self.index)
    }
}

#[derive(Default)]
pub(super) struct Again(Mutex<Vec<Kept>>);

impl Again {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, kept: Kept) {
        self.kept().push(kept);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    /// All of them, in the order to send them in: reports come by partition.
    pub(super) fn take(&self) -> Vec<Kept> {
        let mut all = std::mem::take(&mut *self.kept());
        all.sort_by_key(Kept::order);
        all
    }
}
