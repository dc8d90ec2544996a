//! The open batches: which record of which batch has its report, and whether a report's offset can be believed.
//!
//! Owned by the producer, under its one short lock. What always holds: a batch is answered once, with the last report of its records or for its age.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    Delivery,
    places::{Keys, PartitionKey},
    rest::Unanswered,
};
use crate::metrics;

/// Names a batch, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId {
    pub(super) slot: Slot,
    /// How many were registered before it.
    pub(super) number: u64,
}

/// Where a batch is while it is open, which is all that its records' reports know of it.
pub(super) type Slot = u32;

/// Called once with what became of each record, in the batch's order; where it runs it must be quick. Dropped when every record has its report.
pub(super) type Completion = Box<dyn FnMut(Vec<Delivery>, Answered) + Send>;

/// When a batch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With its last report.
    Whole,
    /// For its age: reports are yet to come.
    Early,
}

/// Hears of a record that has its report, by its index, before its batch does; says which records of others are completed by that, and how.
/// Runs on the producer's thread as well.
pub(super) type Watch = Arc<dyn Fn(usize, &Delivery) -> Vec<Waiting> + Send + Sync>;

/// A record that waits for another one's report: its batch and index, and what it is told.
pub type Waiting = (BatchId, usize, Delivery);

pub(super) struct Batch {
    /// Empty once it was answered for its age.
    pub(super) deliveries: Vec<Option<Delivery>>,
    pub(super) open: usize,
    pub(super) keys: Keys,
    pub(super) failed: Option<Arc<AtomicBool>>,
    pub(super) watch: Option<Watch>,
    /// Absent only while it is called for the batch's age.
    pub(super) done: Option<Completion>,
    pub(super) since: Instant,
    /// When it is answered though reports are missing.
    pub(super) until: Option<Instant>,
    /// How many records were acknowledged after it was answered.
    pub(super) late: u64,
    /// Set by [`Batches::insert`].
    pub(super) number: u64,
}

/// The answer to a batch whose time is over; its completion goes back with [`Batches::answered`].
pub(super) struct Late {
    pub(super) id: BatchId,
    pub(super) done: Completion,
    pub(super) deliveries: Vec<Delivery>,
}

impl Batch {
    /// Its caller has been answered for its age.
    fn is_answered(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Answers it with its last report.
    pub(super) fn finish(mut self) {
        if self.late > 0 {
            metrics::publish().published(self.late, 0);
        }
        if let Some(done) = &mut self.done
            && !self.deliveries.is_empty()
        {
            let deliveries = self.deliveries.into_iter().flatten().collect();
            done(deliveries, Answered::Whole);
        }
    }
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
        let number = batch.number;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(batch);
                slot
            }
            None => {
                self.slots.push(Some(batch));
                (self.slots.len() - 1) as Slot
            }
        };
        BatchId { slot, number }
    }

    fn open(&self, id: BatchId) -> Option<&Batch> {
        let batch = self.slots.get(id.slot as usize)?.as_ref()?;
        (batch.number == id.number).then_some(batch)
    }

    fn open_mut(&mut self, id: BatchId) -> Option<&mut Batch> {
        let batch = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (batch.number == id.number).then_some(batch)
    }

    /// The batch that is there now.
    pub(super) fn id(&self, slot: Slot) -> Option<BatchId> {
        let number = self.slots.get(slot as usize)?.as_ref()?.number;
        Some(BatchId { slot, number })
    }

    pub(super) fn watch(&mut self, id: BatchId, watch: Watch) {
        if let Some(batch) = self.open_mut(id) {
            batch.watch = Some(watch);
        }
    }

    pub(super) fn watcher(&self, slot: Slot) -> Option<Watch> {
        self.slots.get(slot as usize)?.as_ref()?.watch.clone()
    }

    /// Takes what became of a record; returns the batch if that was the last one's, to be finished without the lock.
    pub(super) fn complete(
        &mut self,
        slot: Slot,
        index: usize,
        delivery: Delivery,
    ) -> Option<Batch> {
        let place = self.slots.get_mut(slot as usize)?;
        let batch = place.as_mut()?;
        if let (Delivery::Failed(_), Some(failed)) = (&delivery, &batch.failed) {
            failed.store(true, Ordering::Release);
        }
        if batch.is_answered() {
            batch.late += u64::from(matches!(delivery, Delivery::Published { .. }));
        } else {
            let entry = &mut batch.deliveries[index];
            debug_assert!(entry.is_none(), "a record has one report");
            *entry = Some(delivery);
        }
        batch.open -= 1;
        if batch.open > 0 {
            return None;
        }
        self.free.push(slot);
        place.take()
    }

    /// Answers the batches whose time is over: of a record without a report `unknown` is told. They stay registered until the last one is in.
    /// Also says when the next one's time is over. Looks at all of them: for somebody who looks on now and then.
    pub(super) fn late(
        &mut self,
        now: Instant,
        unknown: impl Fn() -> Delivery,
    ) -> (Vec<Late>, Option<Instant>) {
        let (mut late, mut next) = (Vec::new(), None);
        for (slot, batch) in (0..).zip(&mut self.slots) {
            let Some(batch) = batch else { continue };
            let Some(until) = batch.until else { continue };
            if until > now {
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
                continue;
            }
            batch.until = None;
            if let Some(failed) = &batch.failed {
                failed.store(true, Ordering::Release);
            }
            let told = std::mem::take(&mut batch.deliveries).into_iter();
            let number = batch.number;
            late.extend(batch.done.take().map(|done| Late {
                id: BatchId { slot, number },
                done,
                deliveries: told.map(|told| told.unwrap_or_else(&unknown)).collect(),
            }));
        }
        (late, next)
    }

    /// Gives back the completion of a batch that was answered for its age; returned if the last report has come meanwhile.
    pub(super) fn answered(&mut self, late: Late) -> Option<Completion> {
        match self.open_mut(late.id) {
            Some(batch) => {
                batch.done = Some(late.done);
                None
            }
            None => Some(late.done),
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_answered(&self, id: BatchId) -> bool {
        self.open(id).is_none_or(Batch::is_answered)
    }

    pub(super) fn peek(&self, id: BatchId) -> Vec<Option<Delivery>> {
        self.open(id)
            .map_or_else(Vec::new, |batch| batch.deliveries.clone())
    }

    /// What of each partition was registered before that time and has no report. Looks at all of them: for somebody who looks on now and then.
    pub(super) fn unanswered(&self, before: Instant) -> HashMap<PartitionKey, Unanswered> {
        let mut all = HashMap::new();
        let mut note = |key, records, first| {
            let unanswered = all.entry(key).or_insert(Unanswered { records: 0, first });
            unanswered.records += records;
            unanswered.first = unanswered.first.min(first);
        };
        let old = self.slots.iter().flatten();
        for batch in old.filter(|batch| batch.since < before) {
            let mut open = (batch.deliveries.iter().enumerate())
                .filter_map(|(index, delivery)| delivery.is_none().then_some(index));
            match &batch.keys {
                Keys::Unknown => {}
                Keys::All(key) => {
                    let first = open.next().unwrap_or_default();
                    note(*key, batch.open, (batch.number, first));
                }
                Keys::Each(keys) => open
                    .filter_map(|index| Some((index, keys[index]?)))
                    .for_each(|(index, key)| note(key, 1, (batch.number, index))),
            }
        }
        all
    }

    /// Since when the oldest batch is open. Looks at all of them: for somebody who looks on now and then.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|batch| batch.since).min()
    }

    /// The offset of a report, or `None` when librdkafka made it up. A batch that the broker had already appended
    /// (`DUPLICATE_SEQUENCE_NUMBER`) is reported as delivered with offsets -1, 0, 1, 2 …, in order: from a negative offset on,
    /// the run that counts up from it is not believed.
    pub(super) fn true_offset<'a>(
        &mut self,
        topic: impl FnOnce() -> &'a str,
        partition: i32,
        offset: i64,
    ) -> Option<i64> {
        if offset >= 0 && self.invented.is_empty() {
            return Some(offset);
        }
        let key = (topic().to_owned(), partition);
        if offset < 0 {
            self.invented.insert(key, offset + 1);
            return None;
        }
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
    use std::time::Duration;

    use super::*;
    use crate::failure::{Failure, Reason};

    #[test]
    fn offsets_that_count_up_from_minus_one_are_not_believed() {
        let mut batches = Batches::default();
        let told: Vec<_> = [41, -1, 0, 1, 2, 42, 43]
            .into_iter()
            .map(|offset| batches.true_offset(|| "t", 0, offset))
            .collect();
        assert_eq!(told, [Some(41), None, None, None, None, Some(42), Some(43)]);
        assert_eq!(
            batches.true_offset(|| "t", 1, 0),
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
            keys: Keys::Unknown,
            failed: Some(Arc::clone(&failed)),
            watch: None,
            done: Some(Box::new(|_, _| {})),
            since: Instant::now(),
            until: None,
            late: 0,
            number: 0,
        });
        let failure = Failure::not_persisted(Reason::TopicNotFound, "no");
        assert!(
            batches
                .complete(id.slot, 1, Delivery::failed(failure))
                .is_none()
        );
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
        assert!(batches.complete(id.slot, 0, published).is_some());
        assert!(batches.peek(id).is_empty());
    }

    #[test]
    fn what_is_unanswered_of_each_partition_is_known_with_its_first() {
        let (begun, hour) = (Instant::now(), Duration::from_secs(3600));
        let mut batches = Batches::default();
        let mut insert = |keys, records, since| {
            batches.insert(Batch {
                deliveries: vec![None; records],
                open: records,
                keys,
                failed: None,
                watch: None,
                done: Some(Box::new(|_, _| {})),
                since,
                until: Some(since),
                late: 0,
                number: 0,
            })
        };
        let seven = insert(Keys::All(7), 2, begun);
        insert(Keys::Each(Box::new([Some(8), None, Some(7)])), 3, begun);
        insert(Keys::Unknown, 1, begun);
        insert(Keys::All(7), 1, begun + hour);
        let published = Delivery::Published {
            partition: 0,
            offset: Some(7),
            timestamp: None,
            duplicate: false,
        };
        batches.complete(seven.slot, 0, published);
        let unanswered = |records, first| Unanswered { records, first };
        let expected = [(7, unanswered(2, (0, 1))), (8, unanswered(1, (1, 0)))];
        assert_eq!(batches.unanswered(begun + hour), expected.into());

        // Of what is answered for its age it is not known which records it is.
        let unknown = Failure::possibly_persisted(Reason::DeliveryTimeout, "?");
        batches.late(begun, || Delivery::failed(unknown.clone()));
        let expected = [(7, unanswered(1, (0, 0)))];
        assert_eq!(batches.unanswered(begun + hour), expected.into());
    }

    #[test]
    fn a_batch_that_is_answered_for_its_age_stays_until_its_last_report() {
        let mut batches = Batches::default();
        let (begun, hour) = (Instant::now(), Duration::from_secs(3600));
        let held = Arc::new(());
        let insert = |batches: &mut Batches, until| {
            let (held, failed) = (Arc::clone(&held), Arc::new(AtomicBool::new(false)));
            let id = batches.insert(Batch {
                deliveries: vec![None; 3],
                open: 3,
                keys: Keys::Unknown,
                failed: Some(Arc::clone(&failed)),
                watch: None,
                done: Some(Box::new(move |_, _| drop(Arc::clone(&held)))),
                since: begun,
                until,
                late: 0,
                number: 0,
            });
            (id, failed)
        };
        let (short, failed) = insert(&mut batches, Some(begun + hour));
        let (_, other) = insert(&mut batches, Some(begun + hour * 2));
        insert(&mut batches, None);
        let published = Delivery::Published {
            partition: 0,
            offset: Some(7),
            timestamp: None,
            duplicate: false,
        };
        let unknown = Delivery::failed(Failure::possibly_persisted(Reason::DeliveryTimeout, "?"));
        assert!(batches.complete(short.slot, 1, published.clone()).is_none());
        let (late, next) = batches.late(begun, || unknown.clone());
        assert!(late.is_empty());
        assert_eq!(next, Some(begun + hour));

        let (mut late, next) = batches.late(begun + hour, || unknown.clone());
        assert_eq!(next, Some(begun + hour * 2));
        let late = late.pop().unwrap();
        assert_eq!(late.id, short);
        let told = [unknown.clone(), published.clone(), unknown.clone()];
        assert_eq!(late.deliveries, told);
        assert!(failed.load(Ordering::Acquire) && !other.load(Ordering::Acquire));
        assert!(batches.is_answered(short));
        assert!(batches.peek(short).is_empty());
        assert!(batches.complete(short.slot, 0, published.clone()).is_none());
        assert!(batches.answered(late).is_none());
        assert_eq!(Arc::strong_count(&held), 4);
        let ended = batches.complete(short.slot, 2, published.clone()).unwrap();
        assert_eq!(ended.late, 2);
        assert!(ended.deliveries.is_empty());
        drop(ended);
        assert_eq!(Arc::strong_count(&held), 3);

        // The last report comes while the caller is told, and the slot has a new batch by then.
        let (mut late, _) = batches.late(begun + hour * 2, || unknown.clone());
        let late = late.pop().unwrap();
        for index in 0..3 {
            batches.complete(late.id.slot, index, published.clone());
        }
        let id = late.id;
        let (next, _) = insert(&mut batches, None);
        assert_eq!(next.slot, id.slot);
        batches.complete(next.slot, 0, published.clone());
        assert!(
            batches.peek(id).is_empty(),
            "another batch is not looked at"
        );
        assert!(batches.answered(late).is_some());
        assert!(batches.is_answered(id) && !batches.is_answered(next));
        assert!(
            batches
                .late(begun + hour * 9, || unknown.clone())
                .0
                .is_empty()
        );
    }
}
