//! The one idempotent producer of the process.
//!
//! Records go in by batch; a batch is completed once, by one call, when every record of it has its delivery report (or could
//! not be handed over). Not here: bounds and waiting (`publish`), reports (`reports`), the change of clients (`replace`). What always holds: every registered batch is completed exactly once, and an offset
//! that is told is the record's own.

mod again;
mod batches;
mod places;
mod replace;
mod reports;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    producer::{Producer as _, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};
use tokio::sync::Notify;

pub(super) use self::places::PartitionCounts;
use self::{
    again::Again,
    batches::{Batch, Completion, Watch},
    reports::{Callbacks, Reports, failure, opaque},
};
pub use self::{
    batches::{BatchId, Waiting},
    places::Places,
};
use super::{Cluster, connection::Connection, ffi, statistics::Statistics};
use crate::{
    failure::{Failure, Persistence},
    record::Record,
};

/// What became of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// Acknowledged by every in-sync replica.
    Published {
        /// Where it is.
        partition: i32,
        /// Absent: acknowledged, but the offset is not known.
        offset: Option<i64>,
        /// Milliseconds since the epoch, as it stands in the log.
        timestamp: Option<i64>,
        /// It had been sent before under the same message id, and was not sent again.
        duplicate: bool,
    },
    /// Not acknowledged.
    Failed(Box<Failure>),
}

impl Delivery {
    /// A failure as a delivery.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// librdkafka's own queue has no room now; nothing was sent.
#[derive(Debug)]
pub struct SendFull;

type Client = Arc<ThreadedProducer<Callbacks>>;

/// The producer: a cheap handle is `Arc<Producer>`.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Producer {
    cluster: Cluster,
    reports: Arc<Reports>,
    partitioner: Option<ffi::Partitioner>,
    current: RwLock<Current>,
    /// Set while the old client is being emptied before the new one takes over: order would be lost otherwise.
    closed: AtomicBool,
    /// The client has failed for good, and no other could be made: nothing waits for one.
    hopeless: AtomicBool,
}

/// The client that records are handed to.
struct Current {
    // Handles hold the client, so the order of the fields does not matter to librdkafka's rule (handles go first).
    topics: HashMap<String, ffi::Topic<Client>>,
    client: Client,
}

impl Current {
    /// Topic handles that are kept; beyond it they are opened for one batch and closed again.
    const MAX_TOPICS: usize = 10_000;

    /// Sends a record, to a topic whose handle may still have to be opened.
    fn send(&mut self, record: &Record, opaque: usize) -> Result<(), Code> {
        let client = Arc::clone(&self.client);
        if let Some(topic) = self.topics.get(&record.topic) {
            return topic.produce(client.client(), record, opaque);
        }
        let topic = ffi::Topic::open(client.client(), Arc::clone(&client), &record.topic)?;
        let sent = topic.produce(client.client(), record, opaque);
        if self.topics.len() < Self::MAX_TOPICS {
            self.topics.insert(record.topic.clone(), topic);
        }
        sent
    }
}

impl Producer {
    /// Creates the client; it connects by itself, now or when Kafka is there. The error is for the operator.
    pub fn new(cluster: Cluster, trust: Trust) -> Result<Self, String> {
        let reports = Arc::new(Reports {
            batches: Mutex::default(),
            again: Again::default(),
            room: Notify::new(),
            trust,
            trouble: Notify::new(),
            partitions: PartitionCounts::default(),
        });
        let client = connect(&cluster, &reports)?;
        let partitioner = cluster.producer_properties()?;
        let partitioner = partitioner
            .get("partitioner")
            .unwrap_or("consistent_random");
        Ok(Self {
            partitioner: ffi::Partitioner::named(partitioner),
            cluster,
            reports,
            current: RwLock::new(Current {
                topics: HashMap::new(),
                client,
            }),
            closed: AtomicBool::new(false),
            hopeless: AtomicBool::new(false),
        })
    }

    /// Registers a batch of `records` records. `failed` is raised as soon as one of them fails.
    pub fn register(
        &self,
        records: usize,
        failed: Option<Arc<AtomicBool>>,
        done: Completion,
    ) -> BatchId {
        self.reports.batches().insert(Batch {
            deliveries: vec![None; records],
            open: records,
            failed,
            watch: None,
            done,
            since: Instant::now(),
            number: 0,
        })
    }

    /// From now on `watch` hears of every record of the batch that is completed, before it is. To be set before one is sent.
    pub fn watch(&self, batch: BatchId, watch: Watch) {
        self.reports.batches().watch(batch, watch);
    }

    /// Hands a record to librdkafka, as record `index` of its batch. A record that is refused at once is completed as failed.
    pub fn send(&self, batch: BatchId, index: usize, record: &Record) -> Result<(), SendFull> {
        // Held until the record is handed over: a client is emptied only after whoever holds it is done.
        let current = self.current();
        if self.closed.load(Ordering::Acquire) {
            return Err(SendFull);
        }
        if let Some(failure) = current.client.context().refused() {
            drop(current);
            self.complete(batch, index, Delivery::failed(failure));
            return Ok(());
        }
        let opaque = opaque(batch, index);
        let sent = match current.topics.get(&record.topic) {
            Some(topic) => topic.produce(current.client.client(), record, opaque),
            None => {
                drop(current);
                self.open_and_send(record, opaque)
            }
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Code::QueueFull) => Err(SendFull),
            Err(code) => {
                let forbidden = self.failed_for_good();
                // Another client is on its way; one after the other may fail, so that is not waited for longer than for a report.
                let may_wait = forbidden.is_none() && !self.hopeless.load(Ordering::Acquire);
                if may_wait && code == Code::Fatal && !self.is_overdue(batch) {
                    return Err(SendFull);
                }
                let failure = forbidden
                    .unwrap_or_else(|| failure(code, &record.topic, Persistence::NotPersisted));
                self.complete(batch, index, Delivery::failed(failure));
                Ok(())
            }
        }
    }

    /// Whether a batch has been open for as long as a record may wait for its report.
    fn is_overdue(&self, batch: BatchId) -> bool {
        let longest = self.cluster.config().publish.delivery_timeout;
        let registered = self.reports.batches().registered(batch);
        registered.is_none_or(|(_, since)| since.elapsed() >= longest)
    }

    fn open_and_send(&self, record: &Record, opaque: usize) -> Result<(), Code> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(Code::QueueFull);
        }
        current.send(record, opaque)
    }

    /// Completes a record that was not handed over.
    pub fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        self.reports.complete(batch, index, delivery);
    }

    /// Where the records of a topic will go.
    pub fn places(&self, topic: &str) -> Places {
        Places {
            partitions: self.reports.partitions.of(topic),
            partitioner: self.partitioner,
        }
    }

    /// What is known of a batch now: absent entries have no report yet. Empty when the batch is completed already.
    pub fn peek(&self, batch: BatchId) -> Vec<Option<Delivery>> {
        self.reports.batches().peek(batch)
    }

    /// How long the oldest batch has been without its last report.
    pub fn oldest(&self) -> Option<Duration> {
        let oldest = self.reports.batches().oldest();
        oldest.map(|since| since.elapsed())
    }

    /// Waits until a report may have made room in librdkafka's queue.
    pub async fn room(&self) {
        // Reports that came between the refusal and this call wake nobody: hence the bound.
        let _ = tokio::time::timeout(Duration::from_millis(10), self.reports.room.notified()).await;
    }

    /// Gives up what is queued and in flight; each record gets its true report.
    pub fn purge(&self) {
        let client = self.client();
        client.context().gives_up.store(true, Ordering::Release);
        ffi::purge(client.client());
        self.give_up_kept(|topic| failure(Code::PurgeQueue, topic, Persistence::NotPersisted));
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Client {
        Arc::clone(&self.current().client)
    }
}

/// Makes a client of `cluster` that reports to `reports`.
fn connect(cluster: &Cluster, reports: &Arc<Reports>) -> Result<Client, String> {
    let callbacks = Callbacks {
        statistics: Statistics::of_producer(reports.partitions.clone()),
        reports: Arc::clone(reports),
        cluster: cluster.clone(),
        connection: Connection::default(),
        fatal: AtomicBool::new(false),
        wanted: AtomicBool::new(false),
        gives_up: AtomicBool::new(false),
    };
    let client: ThreadedProducer<Callbacks> = cluster
        .producer_properties()?
        .create_with_context(callbacks)
        .map_err(|error| error.to_string())?;
    let client = Arc::new(client);
    cluster.security().register(&client);
    Ok(client)
}

/// What of a broker's answer may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All of it.
    Everything,
    /// Not the timestamps: the in-memory broker invents them.
    NotTimestamps,
}
