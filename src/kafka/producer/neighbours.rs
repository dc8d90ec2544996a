//! Records whose batch a broker refused for the sake of others: those that may be innocent are sent again, so that only the guilty ones fail.
//!
//! A batch is too large where a topic's limit was not known beforehand, or was lowered since: the topic moves to a lane of smaller batches. Or
//! a record in it is invalid to the broker: the topic's settings say which (`guilt`). Either way the others are sent when their lane has no
//! record left. What always holds: one that was alone in its batch fails; one that a later record of its partition has overtaken by then is
//! not sent, for the order would be lost: it is answered as not written, to be sent again.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{Message as _, message::BorrowedMessage, types::RDKafkaErrorCode as Code};
use tokio::sync::Notify;

use super::{
    Delivery, Producer,
    again::Kept,
    batches::Slot,
    guilt,
    lane::emptied,
    limits::{self, LAST, Place, Settings},
    reports::{Callbacks, Reports, failure},
};
use crate::{
    failure::{Failure, Persistence, Reason},
    metrics,
    record::{Record, wall_clock},
};

/// How long the lane of a topic that moves may take to deliver what it has, while callers wait.
const EMPTYING: Duration = Duration::from_secs(2);

/// How long the reports of a batch may take, one after the other.
const REPORTS: Duration = Duration::from_millis(50);

/// The wait before a lane that had not delivered everything is closed again.
const PAUSE: Duration = Duration::from_secs(30);

/// A lane is closed for invalid records' neighbours, of which there is no end, for no more than one part in so many of the time.
const SELDOM: u32 = 20;

/// What librdkafka adds to a record's own bytes in a batch, at most, beside its headers.
const OVERHEAD: usize = 100;

/// The same for each header.
const HEADER: usize = 10;

/// Why a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its batch was too large.
    TooLarge,
    /// It, or another one of its batch, is invalid.
    Suspect(Code),
    /// Another one of its batch is invalid.
    Innocent,
}

impl Why {
    /// Of a record that was refused.
    pub(super) fn of(code: Code) -> Option<Self> {
        match code {
            Code::MessageSizeTooLarge => Some(Self::TooLarge),
            Code::InvalidRecord | Code::InvalidTimestamp => Some(Self::Suspect(code)),
            // librdkafka's for those that the broker does not name, if it names more than one.
            Code::InvalidDifferentRecord => Some(Self::Innocent),
            _ => None,
        }
    }
}

struct Neighbour {
    /// The lane that sent it.
    place: Place,
    why: Why,
    kept: Kept,
    /// A later record of its partition is written.
    is_overtaken: bool,
}

impl Neighbour {
    fn is_of(&self, place: Place, topic: &str) -> bool {
        (self.place, &*self.kept.record.topic) == (place, topic)
    }
}

#[derive(Default)]
pub(super) struct Neighbours {
    // A std mutex: sections are short, and nothing awaits inside.
    kept: Mutex<Vec<Neighbour>>,
    /// Whether there are any, for the path of every report.
    any: AtomicBool,
    told: Notify,
}

impl Neighbours {
    fn kept(&self) -> MutexGuard<'_, Vec<Neighbour>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Keeps a record that was sent by the lane at `place`.
    pub(super) fn keep(&self, place: Place, why: Why, kept: Kept) {
        self.kept().push(Neighbour {
            place,
            why,
            kept,
            is_overtaken: false,
        });
        self.any.store(true, Ordering::Release);
        self.told.notify_one();
    }

    /// Takes those that `which` wants, in the order to send them in.
    fn take(&self, which: impl Fn(&Neighbour) -> bool) -> Vec<Kept> {
        let mut all = self.kept();
        let taken = all.extract_if(.., |one| which(one));
        let mut taken: Vec<Kept> = taken.map(|one| one.kept).collect();
        self.any.store(!all.is_empty(), Ordering::Release);
        taken.sort_by_key(Kept::order);
        taken
    }

    /// A record that was sent as `order` is written: it overtakes those before it in its partition.
    fn overtake(&self, order: (u64, usize), topic: &str, partition: i32) {
        for one in &mut *self.kept() {
            let record = &one.kept.record;
            one.is_overtaken |= one.kept.order() < order
                && record.partition == Some(partition)
                && record.topic == topic;
        }
    }

    /// A topic of which some are kept, and from where.
    fn next(&self) -> Option<(Place, String)> {
        let all = self.kept();
        let one = all.first()?;
        Some((one.place, one.kept.record.topic.clone()))
    }

    fn has(&self, which: impl Fn(&Neighbour) -> bool) -> bool {
        self.kept().iter().any(which)
    }
}

impl Callbacks {
    /// Whether a record of a batch that was refused may be innocent.
    pub(super) fn may_be_a_neighbour(&self, why: Why, record: &Record) -> bool {
        if why != Why::TooLarge {
            return true;
        }
        // It may have been in it with others.
        let bytes = record.payload_bytes() + OVERHEAD + HEADER * record.headers.len();
        bytes < self.succession.batch_bytes && self.succession.place < LAST
    }
}

impl Reports {
    /// A record is written: those before it in its partition that wait to be sent again cannot be any more.
    pub(super) fn overtaken(&self, batch: Slot, index: usize, message: &BorrowedMessage<'_>) {
        if let Some(batch) = self.batches().id(batch) {
            let order = (batch.number, index);
            self.neighbours
                .overtake(order, message.topic(), message.partition());
        }
    }

    /// Answers those that wait to be sent again: nothing is sent any more.
    pub(super) fn give_up_neighbours(&self) {
        self.not_sent_again(self.neighbours.take(|_| true));
    }

    fn not_sent_again(&self, records: Vec<Kept>) {
        for kept in records {
            let failure = Failure::not_persisted(
                Reason::KafkaUnavailable,
                "not written: Kafka refused its batch for another record or for its size, and it could not be sent again in its order; send it again",
            );
            let failure = failure
                .with_retry_after(Duration::ZERO)
                .with_metadata("topic", kept.record.topic);
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }
}

impl Producer {
    /// Sends again what is kept; never ends.
    pub(super) async fn send_neighbours(&self) {
        let neighbours = &self.reports.neighbours;
        let mut not_before: HashMap<String, Instant> = HashMap::new();
        let mut invalid_not_before = Instant::now();
        loop {
            let Some((place, topic)) = neighbours.next() else {
                neighbours.told.notified().await;
                continue;
            };
            // The rest of its batch is being reported.
            tokio::time::sleep(REPORTS).await;
            let settings = self.settings(vec![topic.clone()]).await;
            let settings = settings.into_iter().next().flatten().unwrap_or_default();
            let of_topic = |one: &Neighbour| one.is_of(place, &topic);
            let is_too_large = neighbours.has(|one| of_topic(one) && one.why == Why::TooLarge);
            let begun = Instant::now();
            not_before.retain(|_, time| *time > begun);
            if !not_before.contains_key(&topic) && (is_too_large || begun >= invalid_not_before) {
                let to = match is_too_large {
                    true => self.smaller(place, &settings),
                    false => place,
                };
                if !self.sends_again(place, to, &topic, &settings).await {
                    not_before.insert(topic.clone(), Instant::now() + PAUSE);
                }
                if !is_too_large {
                    invalid_not_before = Instant::now() + begun.elapsed() * SELDOM;
                }
            }
            self.accuse(place, &topic, &settings);
            self.reports.not_sent_again(neighbours.take(of_topic));
        }
    }

    /// The lane of smaller batches that takes the topic's.
    fn smaller(&self, place: Place, settings: &Settings) -> Place {
        let limit = limits::of(settings);
        limit.map_or(place + 1, |limit| self.place(limit, place + 1))
    }

    /// Sends what is kept of a topic before anything that comes later of it, and moves it if that is another lane. Says whether it could.
    async fn sends_again(&self, from: Place, to: Place, topic: &str, settings: &Settings) -> bool {
        let (old, new) = match self.make(to) {
            Ok(new) => (self.at(from), new),
            Err(error) => {
                tracing::error!("no producer of smaller batches could be created: {error}");
                return false;
            }
        };
        let _old = old.change.lock().await;
        let _new = match from == to {
            true => None,
            false => Some(new.change.lock().await),
        };
        old.close();
        // What a client that failed for good has left to the next one is still to be sent there.
        let is_empty = emptied(&old.client(), EMPTYING).await && old.succession.again.is_empty();
        if is_empty {
            self.accuse(from, topic, settings);
            let neighbours = &self.reports.neighbours;
            let kept = neighbours.take(|one| one.is_of(from, topic) && !one.is_overtaken);
            metrics::publish().sent_again.increment(kept.len() as u64);
            tracing::info!(
                topic,
                batch_bytes = new.succession.batch_bytes,
                records = kept.len(),
                "Kafka refused a batch of the topic for its size or for records in it that are invalid: the others are sent again"
            );
            new.send_first(kept);
            if from != to {
                self.limits.set(topic, to);
                old.forget(topic);
            }
        }
        old.reopen();
        is_empty
    }

    /// Answers the suspects that are guilty, or all of them if none is known to be; the others are innocent.
    fn accuse(&self, place: Place, topic: &str, settings: &Settings) {
        let neighbours = &self.reports.neighbours;
        let now = wall_clock();
        let mut kept = neighbours.kept();
        let suspects = kept.extract_if(.., |one| {
            matches!(one.why, Why::Suspect(_)) && one.is_of(place, topic)
        });
        let judged = suspects.map(|one| (guilt::of(settings, &one.kept.record, now), one));
        let judged: Vec<_> = judged.collect();
        let is_known = judged.iter().any(|(guilt, _)| guilt.is_some());
        let mut guilty = Vec::new();
        for (guilt, mut one) in judged {
            match (guilt, one.why) {
                (Some(failure), _) => guilty.push((one.kept, failure)),
                (None, Why::Suspect(code)) if !is_known => {
                    let failure = failure(code, topic, Persistence::NotPersisted);
                    guilty.push((one.kept, failure));
                }
                _ => {
                    one.why = Why::Innocent;
                    kept.push(one);
                }
            }
        }
        neighbours.any.store(!kept.is_empty(), Ordering::Release);
        drop(kept);
        for (kept, failure) in guilty {
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::producer::BatchId;

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
        let overtaken = |neighbours: &Neighbours| {
            let kept = neighbours.kept();
            let overtaken = kept.iter().filter(|one| one.is_overtaken);
            overtaken.map(|one| one.kept.order()).collect::<Vec<_>>()
        };
        neighbours.overtake((7, 2), "t", 0);
        assert_eq!(overtaken(&neighbours), [(7, 1)]);
        neighbours.overtake((9, 0), "t", 0);
        assert_eq!(overtaken(&neighbours), [(8, 0), (7, 2), (7, 1)]);
        assert_eq!(neighbours.next(), Some((0, "t".to_owned())));
        assert!(neighbours.any());
        let orders = |records: Vec<Kept>| records.iter().map(Kept::order).collect::<Vec<_>>();
        let taken = neighbours.take(|one| one.is_of(0, "t"));
        assert_eq!(orders(taken), [(6, 0), (7, 1), (7, 2), (8, 0)]);
        assert!(neighbours.any());
        assert_eq!(orders(neighbours.take(|_| true)), [(6, 1)]);
        assert!(!neighbours.any());
    }
}
