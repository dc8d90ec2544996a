//! Dead letters: a record's copy goes out with why it is there, and the record is settled when Kafka has the copy.
//!
//! What always holds: a record that is on its way is neither delivered nor settled; a copy that failed is tried again for as long as the
//! partition is held, and the partition says so. A copy whose partition was handed over meanwhile may be written twice.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use bytes::Bytes;

use super::Session;
use crate::{
    consume::ledger::{Cause, Dead, Moment},
    failure::{Failure, Reason},
    kafka::{Delivery, Keys, Registration},
    metrics,
    record::{Consumed, Header, Record, TopicPartition},
};

/// Copies of one session that may be under way at once.
const AT_ONCE: usize = 100;

/// How long a copy that failed waits for another attempt.
const AGAIN: Moment = 1000;

/// What has become of copies; the producer's thread writes, the session reads.
#[derive(Debug, Default)]
pub(super) struct Copies {
    under_way: usize,
    ended: Arc<Mutex<Vec<Ended>>>,
}

#[derive(Debug)]
struct Ended {
    slot: u32,
    epoch: u64,
    offset: i64,
    cause: Cause,
    failure: Option<Failure>,
}

impl Session {
    /// Whether anything has happened.
    pub(super) fn advance_dead_letters(&mut self, now: Instant) -> bool {
        let ended = std::mem::take(
            &mut *self
                .copies
                .ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let has_ended = !ended.is_empty();
        let moment = self.clock.moment(now);
        for copy in ended {
            self.copies.under_way -= 1;
            self.copied(copy, moment);
        }
        let indexes: Vec<u32> = self.slots.keys().copied().collect();
        for index in indexes {
            self.send_dead(index);
        }
        has_ended
    }

    /// How many copies are under way.
    pub(super) fn copying(&self) -> usize {
        self.copies.under_way
    }

    fn copied(&mut self, copy: Ended, now: Moment) {
        // Whoever has the partition now delivers the record again.
        let slot = self.slots.get_mut(&copy.slot);
        let Some(slot) = slot.filter(|slot| slot.epoch == copy.epoch) else {
            return;
        };
        match copy.failure {
            None => {
                metrics::subscribe().dead_letter(copy.cause.as_str());
                slot.dead_trouble = None;
                slot.ledger.moved(copy.offset, None);
                let settlements = slot.ledger.settlements();
                for stream in self.streams.values_mut() {
                    stream
                        .unconfirmed
                        .moved(copy.slot, copy.offset, settlements);
                }
            }
            Some(failure) => {
                metrics::subscribe().dead_letters_failed.increment(1);
                let text = format!(
                    "the dead letter of offset {} cannot be written: {failure}",
                    copy.offset
                );
                tracing::warn!(group = self.subscription.group, partition = %slot.partition, reason = failure.reason.as_str(), "{text}");
                slot.dead_trouble = Some(text);
                slot.ledger.moved(copy.offset, Some(now + AGAIN));
            }
        }
    }

    fn send_dead(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(&index).filter(|slot| !slot.revoking) else {
            return;
        };
        while self.copies.under_way < AT_ONCE {
            let Some(dead) = slot.ledger.next_dead() else {
                return;
            };
            let topic = self
                .subscription
                .dead_letter_topic(&slot.partition.topic)
                .unwrap_or_default();
            let record = copy(topic, &slot.partition, &self.subscription.group, &dead);
            let (epoch, offset, cause) = (slot.epoch, dead.offset, dead.trouble.cause);
            let (ended, wake) = (Arc::clone(&self.copies.ended), thread::current());
            let done = move |deliveries: Vec<Delivery>, _| {
                let failure = deliveries.into_iter().find_map(|delivery| match delivery {
                    Delivery::Published { .. } => None,
                    Delivery::Failed(failure) => Some(Arc::unwrap_or_clone(failure)),
                });
                let copy = Ended {
                    slot: index,
                    epoch,
                    offset,
                    cause,
                    failure,
                };
                ended
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(copy);
                wake.unpark();
            };
            self.copies.under_way += 1;
            let registration = Registration {
                records: 1,
                keys: Keys::Unknown,
                failed: None,
                // However long it takes: another copy would be one too many.
                longest: None,
                done: Box::new(done),
            };
            let registered = self.producer.register(Instant::now(), vec![registration]);
            let batch = registered[0];
            if self.producer.send(batch, 0, &record).is_err() {
                let full =
                    Failure::not_persisted(Reason::PublishBufferFull, "librdkafka's queue is full");
                self.producer.complete(batch, 0, Delivery::failed(full));
            }
        }
    }
}

/// The record itself, and after its own headers why it is here. The names are those of KIP-1191, as far as it has them.
fn copy(topic: String, from: &TopicPartition, group: &str, dead: &Dead<'_, Consumed>) -> Record {
    let record = dead.payload;
    let mut headers = record.headers().to_vec();
    let trouble = dead.trouble;
    for (name, value) in [
        ("topic", from.topic.clone()),
        ("partition", from.partition.to_string()),
        ("offset", dead.offset.to_string()),
        ("group", group.to_owned()),
        ("delivery.count", dead.attempts.to_string()),
        ("cause", trouble.cause.as_str().to_owned()),
        ("message", trouble.reason.clone()),
        ("first.failure", trouble.first.to_string()),
        ("last.failure", trouble.last.to_string()),
    ] {
        headers.push(Header {
            name: format!("__dlq.errors.{name}"),
            value: Some(Bytes::from(value)),
        });
    }
    Record {
        topic,
        partition: None,
        key: record.key().map(Bytes::copy_from_slice),
        value: record.value().map(Bytes::copy_from_slice),
        headers,
        timestamp: record.timestamp.map(|(at, _)| at),
        message_id: String::new(),
    }
}

impl Cause {
    /// As headers and metrics name it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Nacked => "MAX_ATTEMPTS",
            Self::Expired => "EXPIRED",
            Self::Crashed => "CRASH_SUSPECT",
            Self::Rejected => "REJECTED",
        }
    }
}
