//! The load of `outrigger bench` with librdkafka linked in: what the sidecar is compared with. Not for anything else.
//!
//! Same properties as the sidecar's own clients, and what the rdkafka crate offers at the lowest price: `ThreadedProducer::send` by name (librdkafka
//! scans its topics for it, which is short as long as they are few) with a delivery callback that only counts, and `BaseConsumer::poll`
//! (`consume`). Everything here blocks; no bound is missing, so that a broker that is away fails the bench.

mod consume;
mod read;
mod topics;

use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::{ClientConfig, RDKafkaLogLevel},
    error::{KafkaError, KafkaResult},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};

pub use self::{
    consume::{Consumption, consume},
    read::read,
    topics::{brokers, create_apart, create_topics, delete_topics},
};
use super::{Cluster, context};
use crate::config::Config;

/// How long nothing may happen before a run is given up.
const STALLED: Duration = Duration::from_secs(60);

/// The bound of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The version of the linked librdkafka.
pub fn version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

fn properties(config: &Config) -> KafkaResult<ClientConfig> {
    Cluster::new(Arc::new(config.clone()))
        .producer_properties()
        .map_err(KafkaError::ClientCreation)
}

/// A producer that is connected: what it costs is the load alone, as with a sidecar that has been running.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Producer {
    client: ThreadedProducer<Reports>,
    topics: Vec<String>,
    /// Of each topic.
    partitions: Vec<i32>,
}

impl Producer {
    /// Creates one for topics that exist and are alike.
    pub fn connect(config: &Config, topics: &[String]) -> KafkaResult<Self> {
        let client: ThreadedProducer<Reports> =
            properties(config)?.create_with_context(Reports::to(thread::current()))?;
        let first = topics.first().map(String::as_str);
        let metadata = client.client().fetch_metadata(first, TIMEOUT)?;
        let partitions = metadata.topics().first().map_or_else(Vec::new, |topic| {
            topic.partitions().iter().map(|one| one.id()).collect()
        });
        Ok(Self {
            client,
            topics: topics.to_vec(),
            partitions,
        })
    }

    /// How many partitions a topic has.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// How many records the topics hold.
    pub fn count(&self) -> KafkaResult<u64> {
        let mut count = 0;
        for (topic, partition) in self.places() {
            let (low, high) = self.watermarks(topic, partition)?;
            count += u64::try_from(high - low).unwrap_or_default();
        }
        Ok(count)
    }

    /// All partitions.
    fn places(&self) -> impl Iterator<Item = (&str, i32)> {
        let topics = self.topics.iter();
        topics.flat_map(|topic| self.partitions.iter().map(|one| (topic.as_str(), *one)))
    }

    /// The topic of a record.
    fn topic(&self, record: u64) -> &str {
        &self.topics[(record % self.topics.len() as u64) as usize]
    }

    /// A broker that was just made the leader of a new topic's partition may not know it yet.
    fn watermarks(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        let begun = Instant::now();
        loop {
            let client = self.client.client();
            match client.fetch_watermarks(topic, partition, TIMEOUT) {
                Err(KafkaError::MetadataFetch(Code::NotLeaderForPartition))
                    if begun.elapsed() < TIMEOUT =>
                {
                    thread::park_timeout(Duration::from_millis(50));
                }
                answer => return answer,
            }
        }
    }

    /// One record to each partition, so that a measured run does not wait for connections and for the producer's id.
    pub fn warm_up(&self, value: &[u8]) -> KafkaResult<()> {
        let mut total = self.client.context().total();
        for (topic, partition) in self.places() {
            let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, 0);
            self.send(record.partition(partition).payload(value))?;
            total += 1;
        }
        self.wait_for(total)
    }

    /// Produces `records` of `value` with at most `window` unanswered, from the thread that connected, over so many keys (none: null keys);
    /// says how long it took from the first to the last report.
    pub fn run(
        &self,
        records: u64,
        value: &[u8],
        window: u64,
        keys: Option<NonZeroU64>,
    ) -> KafkaResult<Duration> {
        let reports = self.client.context();
        let from = reports.total();
        let begun = Instant::now();
        for sent in 0..records {
            if sent >= window && sent - (reports.total() - from) >= window {
                // Not for each single place that comes free.
                self.wait_for(from + sent - window / 2)?;
            }
            let record = BaseRecord::with_opaque_to(self.topic(sent), 0).payload(value);
            match keys {
                None => self.send(record)?,
                Some(keys) => self.send(record.key(&(sent % keys).to_be_bytes()[..]))?,
            }
        }
        self.wait_for(from + records)?;
        Ok(begun.elapsed())
    }

    /// Produces each record when it is due and waits for no report meanwhile. `due` returns at that moment, and tells it; `stamp` writes it into the
    /// value. Returns how long each record took from then to its report.
    pub fn paced(
        &self,
        records: u64,
        due: impl Fn(u64) -> Instant,
        mut value: Vec<u8>,
        keys: Option<NonZeroU64>,
        stamp: impl Fn(Instant, &mut [u8]),
    ) -> KafkaResult<Vec<Duration>> {
        let reports = self.client.context();
        let from = reports.total();
        for sent in 0..records {
            let due = due(sent);
            stamp(due, &mut value);
            let record = BaseRecord::with_opaque_to(self.topic(sent), reports.opaque(due));
            let record = record.payload(&value[..]);
            match keys {
                None => self.send(record)?,
                Some(keys) => self.send(record.key(&(sent % keys).to_be_bytes()[..]))?,
            }
        }
        self.wait_for(from + records)?;
        Ok(std::mem::take(&mut *reports.took()))
    }

    fn send(&self, mut record: BaseRecord<'_, [u8], [u8], usize>) -> KafkaResult<()> {
        while let Err((error, back)) = self.client.send(record) {
            if error.rdkafka_error_code() != Some(Code::QueueFull) {
                return Err(error);
            }
            record = back;
            thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until that many reports are in; fails as soon as one is a failure.
    fn wait_for(&self, total: u64) -> KafkaResult<()> {
        let reports = self.client.context();
        reports.wake_at.store(total, Ordering::SeqCst);
        let mut last = (0, Instant::now());
        loop {
            if let Some(error) = reports.failure().take() {
                return Err(error);
            }
            let now = reports.total();
            if now >= total {
                return Ok(());
            }
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > STALLED {
                return Err(KafkaError::MessageProduction(Code::MessageTimedOut));
            }
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// The producer's context: it counts, times what was due at a moment, and wakes the sender when enough has come.
struct Reports {
    since: Instant,
    took: Mutex<Vec<Duration>>,
    total: AtomicU64,
    wake_at: AtomicU64,
    sender: Thread,
    failure: Mutex<Option<KafkaError>>,
}

impl Reports {
    fn to(sender: Thread) -> Self {
        Self {
            since: Instant::now(),
            took: Mutex::default(),
            total: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            sender,
            failure: Mutex::default(),
        }
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// When a record was due, as what its report brings back; 0 is for one that is not timed.
    fn opaque(&self, due: Instant) -> usize {
        due.saturating_duration_since(self.since).as_nanos() as usize + 1
    }

    fn took(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<KafkaError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::error("direct producer", &error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        if let Some(due) = due.checked_sub(1) {
            let due = Duration::from_nanos(due as u64);
            self.took().push(self.since.elapsed().saturating_sub(due));
        }
        if let Err((error, _)) = result {
            *self.failure() = Some(error.clone());
        }
        let total = self.total.fetch_add(1, Ordering::SeqCst) + 1;
        if total == self.wake_at.load(Ordering::SeqCst) {
            self.sender.unpark();
        }
    }
}
