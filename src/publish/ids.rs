//! Message ids at the publish path: which records of a request are known already, and who is told what becomes of one.
//!
//! Owns the table (`dedup`) behind one short lock, and the clock of it. A record's own report settles its id, on the producer's thread, before
//! its caller has the answer; the producer then completes those that wait for it, in whichever batch they stand. So no answer waits for
//! the rest of another one's batch, and no two batches for each other. What always holds: an id that is claimed is settled, since its batch is
//! completed; what is known takes no room and keeps none of its bytes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    RETRY_AFTER,
    dedup::{Answer, Bounds, Claim, Dedup},
    print::{Key, Print},
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::{BatchId, Delivery, Producer, Waiting},
    metrics,
    record::{Record, Usage},
};

/// See the module.
pub(super) struct Ids {
    key: Key,
    since: Instant,
    table: Mutex<Dedup<(BatchId, usize)>>,
}

/// The records of a request that have an id, by rising index; empty for most requests.
#[derive(Default)]
pub(super) struct Asked(Vec<Ask>);

struct Ask {
    index: usize,
    print: Print,
    /// It was not known when room was asked for.
    has_room: bool,
}

/// A record that has claimed its id.
struct First {
    index: usize,
    id: u128,
    timestamp: Option<i64>,
}

impl Ids {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            key: Key::random(),
            since: Instant::now(),
            table: Mutex::new(Dedup::new(bounds)),
        }
    }

    fn table(&self) -> MutexGuard<'_, Dedup<(BatchId, usize)>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table's time. Asked with the table locked, so that it does not go back.
    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// How many ids are kept.
    pub(super) fn count(&self) -> usize {
        let mut table = self.table();
        table.len(self.now())
    }

    /// What of a request needs room, of `usage`: all but what is known.
    pub(super) fn look(&self, records: &[Record], mut usage: Usage) -> (Asked, Usage) {
        let mut asked = Vec::new();
        for (index, record) in records.iter().enumerate() {
            if record.message_id.is_empty() {
                continue;
            }
            let print = self.key.print(record);
            let mut table = self.table();
            let is_known = table.knows(print, self.now());
            drop(table);
            if is_known {
                usage.sub(Usage {
                    records: 1,
                    bytes: record.charged_bytes() as u64,
                });
            }
            asked.push(Ask {
                index,
                print,
                has_room: !is_known,
            });
        }
        (Asked(asked), usage)
    }

    /// Claims the ids of a registered batch, before the first of it is sent. Answers what is known, and says by rising index what is not to
    /// be sent.
    pub(super) fn claim(
        self: &Arc<Self>,
        producer: &Producer,
        batch: BatchId,
        records: &mut [Record],
        asked: Asked,
    ) -> Vec<usize> {
        let (mut firsts, mut known, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        let mut repeated = 0;
        for Ask {
            index,
            print,
            has_room,
        } in asked.0
        {
            let mut table = self.table();
            let claim = table.claim(print, has_room, (batch, index), self.now());
            drop(table);
            if claim == Claim::First {
                firsts.push(First {
                    index,
                    id: print.id,
                    timestamp: records[index].timestamp,
                });
                continue;
            }
            let record = std::mem::take(&mut records[index]);
            repeated += u64::from(matches!(claim, Claim::Joined | Claim::Answered(_)));
            answers.extend(answer(claim, record).map(|delivery| (index, delivery)));
            known.push(index);
        }
        metrics::publish().duplicates.increment(repeated);
        if !firsts.is_empty() {
            let ids = Arc::clone(self);
            let settle = move |index, delivery: &Delivery| ids.settle(&firsts, index, delivery);
            producer.watch(batch, Arc::new(settle));
        }
        for (index, delivery) in answers {
            producer.complete(batch, index, delivery);
        }
        known
    }

    /// A record has its report; those that wait for it are told.
    fn settle(&self, firsts: &[First], index: usize, delivery: &Delivery) -> Vec<Waiting> {
        let Ok(at) = firsts.binary_search_by_key(&index, |first| first.index) else {
            return Vec::new();
        };
        let First { id, timestamp, .. } = firsts[at];
        let (answer, told) = match delivery {
            Delivery::Published {
                partition,
                offset,
                timestamp: told,
                ..
            } => {
                let answer = Answer::Published {
                    partition: *partition,
                    offset: *offset,
                    timestamp: told.or(timestamp),
                };
                (Some(answer), repeated(answer))
            }
            Delivery::Failed(failure) if failure.persistence == Some(Persistence::NotPersisted) => {
                let told = match failure.reason {
                    // Its own caller gave it up, which says nothing about the record.
                    Reason::PreconditionFailed | Reason::Deadline => Delivery::failed(gone()),
                    _ => delivery.clone(),
                };
                (None, told)
            }
            Delivery::Failed(failure) => (Some(Answer::Unknown(failure.reason)), delivery.clone()),
        };
        let mut table = self.table();
        let waiting = table.settle(id, answer, self.now());
        drop(table);
        let waiting = waiting.into_iter();
        waiting
            .map(|(batch, index)| (batch, index, told.clone()))
            .collect()
    }
}

/// What a record that is not sent is told at once, if anything.
fn answer(claim: Claim, record: Record) -> Option<Delivery> {
    let id = &record.message_id;
    let failure = match claim {
        Claim::First | Claim::Joined => return None,
        Claim::Answered(answer) => return Some(repeated(answer)),
        Claim::Reused => Failure::not_persisted(
            Reason::IdReused,
            format!(
                "message_id {id:?} was used for a record with another key, value, headers or partition"
            ),
        ),
        Claim::Crowded => Failure::not_persisted(
            Reason::PublishBufferFull,
            "as many records as may be in flight wait for the answers to others with their message_id",
        )
        .with_retry_after(RETRY_AFTER),
        Claim::Gone => gone(),
    };
    Some(Delivery::failed(
        failure.with_metadata("topic", record.topic),
    ))
}

fn repeated(answer: Answer) -> Delivery {
    match answer {
        Answer::Published {
            partition,
            offset,
            timestamp,
        } => Delivery::Published {
            partition,
            offset,
            timestamp,
            duplicate: true,
        },
        Answer::Unknown(reason) => Delivery::failed(Failure::possibly_persisted(
            reason,
            "what became of the first record with this message_id is not known; it is not sent again",
        )),
    }
}

/// The record that this one counted on is not in Kafka.
fn gone() -> Failure {
    Failure::not_persisted(
        Reason::KafkaUnavailable,
        "not sent: the first record with this message_id was given up meanwhile; try again",
    )
}
