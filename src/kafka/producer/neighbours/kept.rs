//! What is kept of refused batches, and which of it later records have overtaken.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use crate::kafka::producer::{again::Kept, limits::Place};

/// Why a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka::producer) enum Why {
    /// Its batch was too large.
    TooLarge,
    /// It, or another one of its batch, is invalid.
    Suspect(Code),
    /// Another one of its batch is invalid.
    Innocent,
}

impl Why {
    /// Of a record that was refused.
    pub(in crate::kafka::producer) fn of(code: Code) -> Option<Self> {
        match code {
            Code::MessageSizeTooLarge => Some(Self::TooLarge),
            Code::InvalidRecord | Code::InvalidTimestamp => Some(Self::Suspect(code)),
            // librdkafka's for those that the broker does not name, if it names more than one.
            Code::InvalidDifferentRecord => Some(Self::Innocent),
            _ => None,
        }
    }
}

pub(super) struct Neighbour {
    /// The lane that sent it.
    pub(super) place: Place,
    pub(super) why: Why,
    pub(super) kept: Kept,
}

impl Neighbour {
    pub(super) fn is_of(&self, place: Place, topic: &str) -> bool {
        (self.place, &*self.kept.record.topic) == (place, topic)
    }

    /// A later record of its partition is written.
    fn is_overtaken(&self, written: &Written) -> bool {
        let record = &self.kept.record;
        let written = record
            .partition
            .and_then(|partition| written.get(&record.topic)?.get(&partition));
        written.is_some_and(|written| self.kept.order() < *written)
    }
}

/// The last record that was written, in the order of sending, by topic of which some are kept and partition.
type Written = HashMap<String, HashMap<i32, (u64, usize)>>;

/// What is kept, and what overtakes it.
#[derive(Default)]
pub(super) struct All {
    pub(super) kept: Vec<Neighbour>,
    written: Written,
    /// When it was last known of a topic who is guilty.
    pub(super) known: HashMap<String, Instant>,
}

#[derive(Default)]
pub(in crate::kafka::producer) struct Neighbours {
    // A std mutex: sections are short, and nothing awaits inside.
    all: Mutex<All>,
    /// Whether there are any, for the path of every report.
    pub(super) any: AtomicBool,
    pub(super) told: Notify,
}

impl Neighbours {
    pub(super) fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::kafka::producer) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Keeps a record that was sent by the lane at `place`.
    pub(in crate::kafka::producer) fn keep(&self, place: Place, why: Why, kept: Kept) {
        let mut all = self.all();
        if !all.written.contains_key(&kept.record.topic) {
            all.written
                .insert(kept.record.topic.clone(), HashMap::new());
        }
        all.kept.push(Neighbour { place, why, kept });
        self.any.store(true, Ordering::Release);
        drop(all);
        self.told.notify_one();
    }

    /// Takes those that `which` wants, which is told whether one is overtaken, in the order to send them in.
    pub(super) fn take(&self, which: impl Fn(&Neighbour, bool) -> bool) -> Vec<Kept> {
        let mut all = self.all();
        let All { kept, written, .. } = &mut *all;
        let taken = kept.extract_if(.., |one| which(one, one.is_overtaken(written)));
        let mut taken: Vec<Kept> = taken.map(|one| one.kept).collect();
        if kept.is_empty() {
            written.clear();
        }
        self.any.store(!kept.is_empty(), Ordering::Release);
        drop(all);
        taken.sort_by_key(Kept::order);
        taken
    }

    /// A record that was sent as `order` is written: it overtakes those before it in its partition.
    pub(super) fn overtake(&self, order: (u64, usize), topic: &str, partition: i32) {
        if let Some(written) = self.all().written.get_mut(topic) {
            let last = written.entry(partition).or_insert(order);
            *last = order.max(*last);
        }
    }

    /// A topic of which some are kept, and from where.
    pub(super) fn next(&self) -> Option<(Place, String)> {
        let all = self.all();
        let one = all.kept.first()?;
        Some((one.place, one.kept.record.topic.clone()))
    }

    pub(super) fn has(&self, which: impl Fn(&Neighbour) -> bool) -> bool {
        self.all().kept.iter().any(which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kafka::producer::BatchId, record::Record};

    fn kept(number: u64, index: usize, topic: &str, partition: i32) -> Kept {
        Kept {
            batch: BatchId { slot: 0, number },
            index,
            record: Record {
                topic: topic.to_owned(),
                partition: Some(partition),
                ..Record::default()
            },
        }
    }

    #[test]
    fn a_record_overtakes_those_before_it_in_its_partition_and_no_others() {
        let neighbours = Neighbours::default();
        assert!(!neighbours.any());
        for record in [
            kept(8, 0, "t", 0),
            kept(7, 2, "t", 0),
            kept(7, 1, "t", 0),
            kept(6, 0, "t", 1),
            kept(6, 1, "u", 0),
        ] {
            neighbours.keep(0, Why::TooLarge, record);
        }
        let orders = |records: Vec<Kept>| records.iter().map(Kept::order).collect::<Vec<_>>();
        let overtaken = |neighbours: &Neighbours| {
            let all = neighbours.all();
            let overtaken = all.kept.iter().filter(|one| one.is_overtaken(&all.written));
            overtaken.map(|one| one.kept.order()).collect::<Vec<_>>()
        };
        neighbours.overtake((7, 2), "t", 0);
        neighbours.overtake((9, 9), "v", 0);
        assert_eq!(overtaken(&neighbours), [(7, 1)]);
        neighbours.overtake((9, 0), "t", 0);
        neighbours.overtake((1, 0), "t", 0);
        assert_eq!(overtaken(&neighbours), [(8, 0), (7, 2), (7, 1)]);
        assert_eq!(neighbours.next(), Some((0, "t".to_owned())));
        assert!(neighbours.any());
        let taken = neighbours.take(|one, _| one.is_of(0, "t"));
        assert_eq!(orders(taken), [(6, 0), (7, 1), (7, 2), (8, 0)]);
        assert!(neighbours.any());
        assert_eq!(orders(neighbours.take(|_, _| true)), [(6, 1)]);
        assert!(!neighbours.any());
        neighbours.keep(0, Why::TooLarge, kept(1, 0, "t", 0));
        assert!(
            overtaken(&neighbours).is_empty(),
            "of what was before, nothing is left"
        );
    }
}
