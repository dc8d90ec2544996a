//! Batches on their way into librdkafka: registered, then sent record by record.
//!
//! What always holds: the budget of a batch is given back when its last report is in, its outcome counted when it is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{Admitted, Publisher, ids::Asked, outcome::Runs};
use crate::{
    failure::{Failure, Reason},
    kafka::{Answered, BatchId, Delivery, Producer, Registration},
    record::Record,
};

/// Records that are handed over without a look at anything else.
const AT_ONCE: usize = 256;

/// A batch that has its room.
pub(super) struct Order<F> {
    pub(super) records: Vec<Record>,
    /// What was known of its message ids when it asked for room.
    pub(super) asked: Asked,
    pub(super) admitted: Admitted,
    /// Raised by the first record that fails.
    pub(super) failed: Option<Arc<AtomicBool>>,
    /// Told once what became of the records.
    pub(super) done: F,
}

impl Publisher {
    /// Registers batches, which are then to be sent in this order. What is known of them by message ids is not sent.
    pub(super) fn begin<F>(&self, orders: Vec<Order<F>>) -> Vec<Sending<'_>>
    where
        F: FnOnce(Vec<Delivery>) + Send + 'static,
    {
        let (producer, since) = (&*self.0.producer, Instant::now());
        let mut batches = Vec::with_capacity(orders.len());
        let mut registrations = Vec::with_capacity(orders.len());
        for order in orders {
            let Order {
                records,
                asked,
                mut admitted,
                failed,
                done,
            } = order;
            let topics = records.chunk_by(|one, next| one.topic == next.topic);
            let longest = topics
                .map(|run| self.0.config.delivery_timeout_of(&run[0].topic))
                .max();
            let runs = Runs::of(&records);
            let keys = admitted.keys();
            let (mut done, mut admitted) = (Some(done), Some(admitted));
            registrations.push(Registration {
                records: records.len(),
                keys,
                failed,
                longest,
                done: Box::new(move |deliveries: Vec<Delivery>, answered| {
                    runs.count(&deliveries, since.elapsed());
                    // What is still sent keeps its room.
                    if answered == Answered::Whole {
                        drop(admitted.take());
                    }
                    if let Some(done) = done.take() {
                        done(deliveries);
                    }
                }),
            });
            batches.push((records, asked));
        }
        let registered = producer.register(since, registrations).into_iter();
        let sendings = registered.zip(batches);
        sendings
            .map(|(batch, (mut records, asked))| {
                let mut known = self.0.ids.claim(producer, batch, &mut records, asked);
                known.reverse();
                Sending {
                    batch,
                    producer,
                    records,
                    known,
                    next: 0,
                    why_not: None,
                }
            })
            .collect()
    }
}

/// A registered batch while its records go into librdkafka. Dropped early, it answers the rest as not sent.
pub(super) struct Sending<'a> {
    producer: &'a Producer,
    pub(super) batch: BatchId,
    records: Vec<Record>,
    /// Those that are not sent, the last first.
    known: Vec<usize>,
    next: usize,
    /// What the rest is answered if it is not sent.
    why_not: Option<Failure>,
}

impl Sending<'_> {
    /// Whether a record is not sent; asked of each once, in order.
    fn is_known(&mut self, index: usize) -> bool {
        self.known.pop_if(|known| *known == index).is_some()
    }

    /// Hands all records over, in order, until `stop` is raised.
    pub(super) async fn run(&mut self, stop: Option<&AtomicBool>) {
        while self.next < self.records.len() {
            if stop.is_some_and(|stop| stop.load(Ordering::Acquire)) {
                return;
            }
            if self.is_known(self.next) {
                self.next += 1;
                continue;
            }
            // Up to the next that is known. Who stops at a failure looks before each.
            let end = match (stop, self.known.last()) {
                (Some(_), _) => self.next + 1,
                (None, Some(known)) => *known,
                (None, None) => self.records.len(),
            };
            let run = &self.records[self.next..end.min(self.next + AT_ONCE)];
            let mut sent = self.producer.send_run(self.batch, self.next, run);
            if sent == 0 {
                match self.producer.send(self.batch, self.next, &run[0]) {
                    Ok(()) => sent = 1,
                    // Our own bound is lower than librdkafka's, so this is rare; the order is kept by waiting here.
                    Err(_) => {
                        self.producer.room().await;
                        continue;
                    }
                }
            }
            let before = self.next / AT_ONCE;
            self.next += sent;
            // A large batch does not hold up what else this thread serves.
            if self.next / AT_ONCE > before {
                tokio::task::yield_now().await;
            }
        }
        // librdkafka has its copies, and the answer may be long in coming.
        self.records = Vec::new();
    }

    /// Sends nothing more: its caller's deadline has come.
    pub(super) fn expire(mut self) {
        self.why_not = Some(Failure::not_persisted(
            Reason::Deadline,
            "not sent: the deadline came before the record could be handed over",
        ));
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        for index in self.next..self.records.len() {
            if self.is_known(index) {
                continue;
            }
            let failure = self.why_not.clone().unwrap_or_else(|| {
                Failure::not_persisted(
                    Reason::PreconditionFailed,
                    "not sent: an earlier record of this stream failed, or its caller went away",
                )
            });
            self.producer
                .complete(self.batch, index, Delivery::failed(failure));
        }
    }
}
