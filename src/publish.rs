//! The publish path: validate, admit, hand over, answer.
//!
//! [`Publisher`] serves unary requests here and streams in `stream`; `admission` holds the one budget of both, `ids` the message ids of both.
//! Not here: the wire (`grpc`), librdkafka (`kafka`). What always holds: a request is validated whole before anything of it is sent; every admitted record
//! is answered once and gives its budget back once, whether its caller waits or not.

mod admission;
mod dedup;
mod handing;
mod ids;
mod intake;
mod outcome;
mod parts;
mod print;
mod shares;
pub mod stream;
mod validate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{admission::Admitted, dedup::Bounds, handing::Order, ids::Ids};
pub use self::{
    admission::{Admission, Marks},
    dedup::ID_BYTES,
    intake::{Intake, Place},
    shares::{Claim, Claimant},
    validate::{Invalid, merge},
};
use crate::{
    config,
    failure::{Failure, Persistence, Reason},
    kafka::{BatchId, Delivery, Producer},
    metrics,
    record::{Record, Usage, wall_clock},
};

/// What a caller is told to wait after a refusal for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The publish path; a cheap handle.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    producer: Arc<Producer>,
    admission: Admission,
    ids: Arc<Ids>,
    config: config::Publish,
    streams: AtomicU32,
    /// Names the next stream.
    next_stream: AtomicU64,
    /// For what is read, or was read and is not admitted.
    intake: Intake,
}

impl Publisher {
    /// A path to `producer`, bounded as configured.
    pub fn new(producer: Arc<Producer>, config: config::Publish) -> Self {
        let bound = Usage {
            records: config.max_in_flight_records as u64,
            bytes: config.max_in_flight_bytes as u64,
        };
        metrics::publish().limit(bound);
        Self(Arc::new(Shared {
            producer,
            admission: Admission::new(bound),
            ids: Arc::new(Ids::new(Bounds {
                window: config.dedup_window,
                ids: config.dedup_max_ids,
                waiting: config.max_in_flight_records,
            })),
            intake: Intake::new(bound.bytes),
            config,
            streams: AtomicU32::new(0),
            next_stream: AtomicU64::new(0),
        }))
    }

    /// Publishes the records of one request and waits for what became of them, in request order. At `deadline` it answers with what
    /// is known. It has `waited` for room already, to be read. A caller that goes away does not cancel what was handed over.
    pub async fn publish(
        &self,
        claimant: Claimant,
        mut records: Vec<Record>,
        deadline: Option<Instant>,
        waited: Duration,
    ) -> Result<Vec<Delivery>, Failure> {
        let count = records.len();
        let refused = |failure: Failure| {
            metrics::publish().failed(failure.reason, count as u64);
            failure
        };
        let usage =
            validate::request(&records, self.0.admission.bound(), self.rules()).map_err(refused)?;
        let (asked, room) = self.0.ids.look(&records, usage);
        let longest = Instant::now() + self.max_wait().saturating_sub(waited);
        let until = deadline.map_or(longest, |deadline| deadline.min(longest));
        let claim = self.claim(claimant, &records, room);
        let read = self.0.intake.charged(usage.bytes);
        let admitted = tokio::time::timeout_at(until.into(), self.0.admission.admit(claim))
            .await
            .map_err(|_| refused(self.buffer_full()))?;
        drop(read);
        stamp(&mut records, wall_clock());
        let stamps: Vec<_> = records.iter().map(|record| record.timestamp).collect();
        let (told, mut answer) = oneshot::channel();
        let order = Order {
            records,
            asked,
            admitted,
            failed: None,
            done: move |deliveries| {
                // The caller may be gone.
                let _ = told.send(deliveries);
            },
        };
        let mut sending = self.begin(vec![order]).remove(0);
        let batch = sending.batch;
        let answered = async {
            sending.run(None).await;
            (&mut answer).await
        };
        let in_time = match deadline {
            None => Some(answered.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answered)
                .await
                .ok(),
        };
        let mut deliveries = match in_time {
            Some(deliveries) => deliveries.map_err(|_| internal())?,
            None => {
                // What was not handed over by now never is.
                sending.expire();
                match self.known_at_the_deadline(batch) {
                    Some(known) => known,
                    // All have their report: the answer is on its way, or here.
                    None => answer.await.map_err(|_| internal())?,
                }
            }
        };
        for (delivery, stamp) in deliveries.iter_mut().zip(stamps) {
            if let Delivery::Published { timestamp, .. } = delivery {
                *timestamp = timestamp.or(stamp);
            }
        }
        Ok(deliveries)
    }

    /// What is charged now, of what may be charged at most.
    pub fn in_flight(&self) -> (Usage, Usage) {
        (self.0.admission.used(), self.0.admission.bound())
    }

    /// The most and the least that was charged since this was asked last.
    pub fn marks(&self) -> Marks {
        self.0.admission.marks()
    }

    /// Waits until nothing is in flight; at `deadline` it gives the rest up, which is answered as unresolved. Says whether all was
    /// answered by Kafka.
    pub async fn flush(&self, deadline: Instant) -> bool {
        let flushed = tokio::time::timeout_at(deadline.into(), self.0.admission.idle())
            .await
            .is_ok();
        if !flushed {
            self.0.producer.purge();
            // The purge answers at once; this only waits for the reports to be passed on.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.0.admission.idle()).await;
        }
        flushed
    }

    /// How many message ids are kept.
    pub fn message_ids(&self) -> usize {
        self.0.ids.count()
    }

    /// How long the answer to a message id is known; zero: not at all.
    pub fn dedup_window(&self) -> Duration {
        self.0.config.dedup_window
    }

    fn rules(&self) -> validate::Rules<'_> {
        validate::Rules {
            max_record_bytes: self.0.config.max_record_bytes,
            topics: &self.0.config.topics,
            takes_ids: !self.dedup_window().is_zero(),
        }
    }

    /// Where there is room for what is read: as much as may be in flight.
    pub fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// How long a call waits for room at most.
    pub fn max_wait(&self) -> Duration {
        self.0.config.max_wait
    }

    /// What a call is told of whose message not even that much could be read.
    pub fn no_room(&self) -> Failure {
        metrics::publish().failed(Reason::PublishBufferFull, 1);
        self.buffer_full()
    }

    /// How long the oldest batch has been waiting for Kafka.
    pub fn oldest(&self) -> Option<Duration> {
        self.0.producer.oldest()
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> u32 {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// Keeps the producer working: replaces one that has failed for good or has an old certificate. Never ends.
    pub async fn supervise(&self) {
        self.0.producer.supervise().await;
    }

    /// What the records need before they may be handed over.
    fn claim(&self, claimant: Claimant, records: &[Record], usage: Usage) -> Claim {
        let (keys, parts) = parts::of(records, &self.0.producer);
        Claim {
            claimant,
            usage,
            parts,
            keys,
        }
    }

    /// What is known of a batch that has not all its reports; absent if it has.
    fn known_at_the_deadline(&self, batch: BatchId) -> Option<Vec<Delivery>> {
        let known = self.0.producer.peek(batch);
        if known.is_empty() {
            return None;
        }
        let late = Failure::possibly_persisted(
            Reason::Deadline,
            "the deadline came before Kafka's answer; the record may still be written",
        );
        let told = known.into_iter();
        let told = told.map(|told| told.unwrap_or_else(|| Delivery::failed(late.clone())));
        Some(told.collect())
    }

    fn buffer_full(&self) -> Failure {
        let bound = self.0.admission.bound();
        metrics::connections().refused(Reason::PublishBufferFull);
        Failure::not_persisted(
            Reason::PublishBufferFull,
            format!(
                "no room came free in time: {} records or {} bytes may be in flight, and a fair share of them for each stream, caller and partition",
                bound.records, bound.bytes
            ),
        )
        .with_retry_after(RETRY_AFTER)
    }
}

/// Stamps the records that have no timestamp.
fn stamp(records: &mut [Record], now: i64) {
    for record in records {
        record.timestamp.get_or_insert(now);
    }
}

fn internal() -> Failure {
    Failure::new(Reason::Internal, "internal error")
        .with_persistence(Persistence::PossiblyPersisted)
}
