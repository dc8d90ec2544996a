//! Records whose batch a broker refused as too large: those that may be innocent are sent again in smaller batches, so that only the guilty
//! one fails.
//!
//! It happens where a topic's limit was not known beforehand, or was lowered since. The topic moves to a lane of smaller batches when the old
//! one has no record left. What always holds: one that was alone in its batch fails; one that a later record of its partition has overtaken
//! by then is not sent, for the order would be lost: it is answered as not written, to be sent again.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{Message as _, message::BorrowedMessage};
use tokio::sync::Notify;

use super::{
    BatchId, Delivery, Producer,
    again::Kept,
    lane::emptied,
    limits::{LAST, Place},
    reports::{Callbacks, Reports},
};
use crate::{
    failure::{Failure, Reason},
    metrics,
    record::Record,
};

/// How long the lane of a topic that moves may take to deliver what it has, while callers wait.
const EMPTYING: Duration = Duration::from_secs(2);

/// The wait before a lane that had not delivered everything is closed again.
const PAUSE: Duration = Duration::from_secs(30);

/// What librdkafka adds to a record's own bytes in a batch, at most, beside its headers.
const OVERHEAD: usize = 100;

/// The same for each header.
const HEADER: usize = 10;

#[derive(Default)]
pub(super) struct Oversized {
    // A std mutex: sections are short, and nothing awaits inside.
    kept: Mutex<Vec<(Place, Kept)>>,
    /// Whether there are any, for the path of every report.
    any: AtomicBool,
    told: Notify,
}

impl Oversized {
    fn kept(&self) -> MutexGuard<'_, Vec<(Place, Kept)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Keeps a record that was sent by the lane at `place`.
    pub(super) fn keep(&self, place: Place, record: Kept) {
        self.kept().push((place, record));
        self.any.store(true, Ordering::Release);
        self.told.notify_one();
    }

    /// Takes those that `which` wants, in the order to send them in.
    fn take(&self, which: impl Fn(Place, &Kept) -> bool) -> Vec<Kept> {
        let mut all = self.kept();
        let taken = all.extract_if(.., |(place, kept)| which(*place, kept));
        let mut taken: Vec<Kept> = taken.map(|(_, kept)| kept).collect();
        self.any.store(!all.is_empty(), Ordering::Release);
        taken.sort_by_key(Kept::order);
        taken
    }

    /// Takes those that a record overtakes which was sent as `order` and is written: they are before it in its partition.
    fn overtaken(&self, order: (u64, usize), topic: &str, partition: i32) -> Vec<Kept> {
        self.take(|_, kept| {
            kept.order() < order
                && kept.record.partition == Some(partition)
                && kept.record.topic == topic
        })
    }

    /// A topic that is to move, and from where.
    fn next(&self) -> Option<(Place, String)> {
        let all = self.kept();
        let (place, kept) = all.first()?;
        Some((*place, kept.record.topic.clone()))
    }
}

impl Callbacks {
    /// Whether a record of a batch that was too large may have been in it with others.
    pub(super) fn may_be_a_neighbour(&self, record: &Record) -> bool {
        let bytes = record.payload_bytes() + OVERHEAD + HEADER * record.headers.len();
        bytes < self.succession.batch_bytes && self.succession.place < LAST
    }
}

impl Reports {
    /// A record is written: those before it in its partition that wait to be sent again cannot be any more.
    pub(super) fn overtaken(&self, batch: BatchId, index: usize, message: &BorrowedMessage<'_>) {
        let Some(number) = self.batches().number(batch) else {
            return;
        };
        let overtaken =
            self.oversized
                .overtaken((number, index), message.topic(), message.partition());
        self.not_sent_again(overtaken);
    }

    /// Answers those that are not sent again after all.
    pub(super) fn give_up_oversized(&self, which: impl Fn(Place, &Kept) -> bool) {
        self.not_sent_again(self.oversized.take(which));
    }

    fn not_sent_again(&self, records: Vec<Kept>) {
        for kept in records {
            let failure = Failure::not_persisted(
                Reason::KafkaUnavailable,
                "not written: it was in a batch that was too large for the topic, and could not be sent again in its order; send it again",
            );
            let failure = failure
                .with_retry_after(Duration::ZERO)
                .with_metadata("topic", kept.record.topic);
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }
}

impl Producer {
    /// Moves topics whose batches were too large; never ends.
    pub(super) async fn make_batches_smaller(&self) {
        let oversized = &self.reports.oversized;
        let mut not_before: HashMap<String, Instant> = HashMap::new();
        loop {
            let Some((from, topic)) = oversized.next() else {
                oversized.told.notified().await;
                continue;
            };
            not_before.retain(|_, time| *time > Instant::now());
            if not_before.contains_key(&topic) || !self.moves(from, &topic).await {
                let again = Instant::now() + PAUSE;
                not_before.entry(topic.clone()).or_insert(again);
                self.reports
                    .give_up_oversized(|place, kept| (place, &kept.record.topic) == (from, &topic));
            }
        }
    }

    /// Moves a topic to smaller batches, and sends first what is kept of it. Says whether it could.
    async fn moves(&self, from: Place, topic: &str) -> bool {
        let limits = self.limits(vec![topic.to_owned()]).await;
        let place = match limits.get(topic) {
            Some(limit) => self.place(*limit, from + 1),
            None => from + 1,
        };
        let (old, new) = match self.make(place) {
            Ok(new) => (self.at(from), new),
            Err(error) => {
                tracing::error!("no producer of smaller batches could be created: {error}");
                return false;
            }
        };
        let _changes = (old.change.lock().await, new.change.lock().await);
        old.close();
        // What a client that failed for good has left to the next one is still to be sent there.
        let is_empty = emptied(&old.client(), EMPTYING).await && old.succession.again.is_empty();
        if is_empty {
            let kept = self
                .reports
                .oversized
                .take(|place, kept| place == from && kept.record.topic == topic);
            metrics::publish().sent_again.increment(kept.len() as u64);
            tracing::info!(
                topic,
                batch_bytes = new.succession.batch_bytes,
                records = kept.len(),
                "the topic's batches were too large: they are smaller from now on, and the records of the last one are sent again"
            );
            new.send_first(kept);
            self.limits.set(topic, place);
            old.forget(topic);
        }
        old.reopen();
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(number: u64, index: usize, topic: &str, partition: i32) -> Kept {
        Kept {
            batch: BatchId(0),
            index,
            number,
            record: Record {
                topic: topic.to_owned(),
                partition: Some(partition),
                ..Record::default()
            },
        }
    }

    #[test]
    fn a_record_overtakes_those_before_it_in_its_partition_and_no_others() {
        let oversized = Oversized::default();
        assert!(!oversized.any());
        for record in [
            kept(8, 0, "t", 0),
            kept(7, 2, "t", 0),
            kept(7, 1, "t", 0),
            kept(6, 0, "t", 1),
            kept(6, 1, "u", 0),
        ] {
            oversized.keep(0, record);
        }
        let orders = |records: Vec<Kept>| records.iter().map(Kept::order).collect::<Vec<_>>();
        assert_eq!(orders(oversized.overtaken((7, 2), "t", 0)), [(7, 1)]);
        assert_eq!(
            orders(oversized.overtaken((9, 0), "t", 0)),
            [(7, 2), (8, 0)]
        );
        assert_eq!(oversized.next(), Some((0, "t".to_owned())));
        assert!(oversized.any());
        assert_eq!(orders(oversized.take(|_, _| true)), [(6, 0), (6, 1)]);
        assert!(!oversized.any());
    }
}
