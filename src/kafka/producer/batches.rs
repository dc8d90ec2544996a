//! The open batches: which record of which batch has its report, and whether a report's offset can be believed.
//!
//! Owned by the producer, under its one short lock. What always holds: a batch is completed once, with the last report of its records.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::Delivery;

/// Names a batch between its registration and its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(pub(super) u32);

/// Called once with what became of each record, in the batch's order. Runs on the producer's thread: it must be quick.
pub(super) type Completion = Box<dyn FnOnce(Vec<Delivery>) + Send>;

/// Hears of a record that has its report, by its index, before its batch does; says which records of others are completed by that, and how.
/// Runs on the producer's thread as well.
pub(super) type Watch = Arc<dyn Fn(usize, &Delivery) -> Vec<Waiting> + Send + Sync>;

/// A record that waits for another one's report: its batch and index, and what it is told.
pub type Waiting = (BatchId, usize, Delivery);

pub(super) struct Batch {
    pub(super) deliveries: Vec<Option<Delivery>>,
    pub(super) open: usize,
    pub(super) failed: Option<Arc<AtomicBool>>,
    pub(super) watch: Option<Watch>,
    pub(super) done: Completion,
    pub(super) since: Instant,
    /// How many were registered before it; set by [`Batches::insert`].
    pub(super) number: u64,
}

/// The open batches by slot, and which partitions are answering with invented offsets.
#[derive(Default)]
pub(super) struct Batches {
    slots: Vec<Option<Batch>>,
    free: Vec<u32>,
    registered: u64,
    invented: HashMap<(String, i32), i64>,
}

impl Batches {
    pub(super) fn insert(&mut self, mut batch: Batch) -> BatchId {
        batch.number = self.registered;
        self.registered += 1;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(batch);
                BatchId(slot)
            }
            None => {
                self.slots.push(Some(batch));
                BatchId((self.slots.len() - 1) as u32)
            }
        }
    }

    pub(super) fn watch(&mut self, id: BatchId, watch: Watch) {
        if let Some(Some(batch)) = self.slots.get_mut(id.0 as usize) {
            batch.watch = Some(watch);
        }
    }

    pub(super) fn watcher(&self, id: BatchId) -> Option<Watch> {
        self.slots.get(id.0 as usize)?.as_ref()?.watch.clone()
    }

    pub(super) fn complete(
        &mut self,
        id: BatchId,
        index: usize,
        delivery: Delivery,
    ) -> Option<Batch> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        let batch = slot.as_mut()?;
        if let (Delivery::Failed(_), Some(failed)) = (&delivery, &batch.failed) {
            failed.store(true, Ordering::Release);
        }
        let entry = &mut batch.deliveries[index];
        debug_assert!(entry.is_none(), "a record has one report");
        *entry = Some(delivery);
        batch.open -= 1;
        if batch.open > 0 {
            return None;
        }
        self.free.push(id.0);
        slot.take()
    }

    /// How many were registered before this one, and when it was.
    pub(super) fn registered(&self, id: BatchId) -> Option<(u64, Instant)> {
        let batch = self.slots.get(id.0 as usize)?.as_ref()?;
        Some((batch.number, batch.since))
    }

    pub(super) fn peek(&self, id: BatchId) -> Vec<Option<Delivery>> {
        match self.slots.get(id.0 as usize) {
            Some(Some(batch)) => batch.deliveries.clone(),
            _ => Vec::new(),
        }
    }

    /// Since when the oldest batch is open. Looks at all of them: for somebody who looks on now and then.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|batch| batch.since).min()
    }

    /// The offset of a report, or `None` when librdkafka made it up. A batch that the broker had already appended
    /// (`DUPLICATE_SEQUENCE_NUMBER`) is reported as delivered with offsets -1, 0, 1, 2 …, in order: from a negative offset on,
    /// the run that counts up from it is not believed.
    pub(super) fn true_offset(&mut self, topic: &str, partition: i32, offset: i64) -> Option<i64> {
        if offset < 0 {
            self.invented
                .insert((topic.to_owned(), partition), offset + 1);
            return None;
        }
        if self.invented.is_empty() {
            return Some(offset);
        }
        let key = (topic.to_owned(), partition);
        match self.invented.get_mut(&key) {
            Some(next) if *next == offset => {
                *next += 1;
                None
            }
            Some(_) => {
                self.invented.remove(&key);
                Some(offset)
            }
            None => Some(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, Reason};

    #[test]
    fn offsets_that_count_up_from_minus_one_are_not_believed() {
        let mut batches = Batches::default();
        let told: Vec<_> = [41, -1, 0, 1, 2, 42, 43]
            .into_iter()
            .map(|offset| batches.true_offset("t", 0, offset))
            .collect();
        assert_eq!(told, [Some(41), None, None, None, None, Some(42), Some(43)]);
        assert_eq!(
            batches.true_offset("t", 1, 0),
            Some(0),
            "another partition is believed"
        );
    }

    #[test]
    fn a_batch_is_completed_once_when_its_last_record_is() {
        let mut batches = Batches::default();
        let failed = Arc::new(AtomicBool::new(false));
        let id = batches.insert(Batch {
            deliveries: vec![None; 2],
            open: 2,
            failed: Some(Arc::clone(&failed)),
            watch: None,
            done: Box::new(|_| {}),
            since: Instant::now(),
            number: 0,
        });
        let failure = Failure::not_persisted(Reason::TopicNotFound, "no");
        assert!(batches.complete(id, 1, Delivery::failed(failure)).is_none());
        assert!(
            failed.load(Ordering::Acquire),
            "the first failure is told at once"
        );
        assert_eq!(batches.peek(id).iter().filter(|d| d.is_some()).count(), 1);
        let published = Delivery::Published {
            partition: 0,
            offset: Some(7),
            timestamp: None,
            duplicate: false,
        };
        assert!(batches.complete(id, 0, published).is_some());
        assert!(batches.peek(id).is_empty());
    }
}
