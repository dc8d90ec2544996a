//! The one idempotent producer of the process.
//!
//! Records go in by batch; a batch is completed once, by one call, when every record of it has its delivery report (or could
//! not be handed over). Reports arrive on the producer's polling thread and are written under one short lock.
//! Not here: bounds and waiting (`publish`). What always holds: every registered batch is completed exactly once, and an offset
//! that is told is the record's own.

mod batches;
mod replace;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};
use tokio::sync::Notify;

pub use self::batches::BatchId;
use self::batches::{Batch, Batches, Completion};
use super::{Cluster, connection::Connection, context, error, ffi, statistics::Statistics};
use crate::{
    failure::{Failure, Persistence, Reason},
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
    current: RwLock<Current>,
    /// Set while the old client is being emptied before the new one takes over: order would be lost otherwise.
    closed: AtomicBool,
}

/// The client that records are handed to.
struct Current {
    // Handles hold the client, so the order of the fields does not matter to librdkafka's rule (handles go first).
    topics: HashMap<String, ffi::Topic<Client>>,
    client: Client,
}

impl Producer {
    /// Topic handles that are kept; beyond it they are opened for one batch and closed again.
    const MAX_TOPICS: usize = 10_000;

    /// Creates the client; it connects by itself, now or when Kafka is there. The error is for the operator.
    pub fn new(cluster: Cluster, trust: Trust) -> Result<Self, String> {
        let reports = Arc::new(Reports {
            batches: Mutex::default(),
            room: Notify::new(),
            trust,
            trouble: Notify::new(),
        });
        let client = connect(&cluster, &reports)?;
        Ok(Self {
            cluster,
            reports,
            current: RwLock::new(Current {
                topics: HashMap::new(),
                client,
            }),
            closed: AtomicBool::new(false),
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
            done,
            since: Instant::now(),
        })
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
                let failure = self
                    .failed_for_good()
                    .unwrap_or_else(|| failure(code, &record.topic, Persistence::NotPersisted));
                self.complete(batch, index, Delivery::failed(failure));
                Ok(())
            }
        }
    }

    fn open_and_send(&self, record: &Record, opaque: usize) -> Result<(), Code> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(Code::QueueFull);
        }
        let client = Arc::clone(&current.client);
        let topic = ffi::Topic::open(client.client(), Arc::clone(&client), &record.topic)?;
        let sent = topic.produce(client.client(), record, opaque);
        if current.topics.len() < Self::MAX_TOPICS {
            current.topics.entry(record.topic.clone()).or_insert(topic);
        }
        sent
    }

    /// Completes a record that was not handed over.
    pub fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        self.reports.complete(batch, index, delivery);
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
        ffi::purge(self.client().client());
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
        statistics: Statistics::of_producer(),
        reports: Arc::clone(reports),
        cluster: cluster.clone(),
        connection: Connection::default(),
        fatal: AtomicBool::new(false),
        wanted: AtomicBool::new(false),
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

/// The open batches, whichever client their records were handed to.
struct Reports {
    // A std mutex: sections are a few instructions and nothing awaits inside.
    batches: Mutex<Batches>,
    room: Notify,
    trust: Trust,
    /// A client has failed for good, or is refused by the brokers.
    trouble: Notify,
}

/// One client's context: what librdkafka calls back.
pub(super) struct Callbacks {
    statistics: Statistics,
    reports: Arc<Reports>,
    cluster: Cluster,
    connection: Connection,
    fatal: AtomicBool,
    /// Somebody publishes although the client has failed for good.
    wanted: AtomicBool,
}

impl Reports {
    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        let finished = self.batches().complete(batch, index, delivery);
        if let Some(finished) = finished {
            (finished.done)(finished.deliveries.into_iter().flatten().collect());
        }
    }
}

impl Callbacks {
    /// Why brokers take nothing from this client, if so.
    fn refused(&self) -> Option<Failure> {
        // The cause before what comes of it.
        self.cluster
            .refused()
            .or_else(|| self.connection.explained())
    }

    fn report(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let reports = &*self.reports;
        let (batch, index) = (BatchId((opaque >> 32) as u32), opaque & 0xffff_ffff);
        let delivery = match result {
            Ok(message) => {
                self.connection.works();
                let offset = reports.batches().true_offset(
                    message.topic(),
                    message.partition(),
                    message.offset(),
                );
                let timestamp = match reports.trust {
                    Trust::Everything => message.timestamp().to_millis(),
                    Trust::NotTimestamps => None,
                };
                Delivery::Published {
                    partition: message.partition(),
                    offset,
                    timestamp,
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let persistence = ffi::persistence(message);
                let refused = match (code, persistence) {
                    // It waited for a broker that would take us.
                    (Code::PurgeQueue, Persistence::NotPersisted) => self.refused(),
                    _ => None,
                };
                Delivery::failed(
                    refused.unwrap_or_else(|| failure(code, message.topic(), persistence)),
                )
            }
        };
        reports.complete(batch, index, delivery);
        reports.room.notify_waiters();
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // For a fatal error this callback carries the underlying code; whether it was fatal is asked of the client later.
        self.fatal.store(true, Ordering::Relaxed);
        if self.connection.was_told(reason) {
            return;
        }
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        self.connection.failed(code, reason);
        self.reports.trouble.notify_one();
        context::error("producer", &error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.statistics.take(json);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        // A panic would end the polling thread without a word: no report would ever arrive again.
        if catch_unwind(AssertUnwindSafe(|| self.report(result, opaque))).is_err() {
            tracing::error!("a delivery report could not be handled");
        }
    }
}

fn opaque(batch: BatchId, index: usize) -> usize {
    (batch.0 as usize) << 32 | index
}

fn failure(code: Code, topic: &str, persistence: Persistence) -> Failure {
    let reason = match (error::reason(code), persistence) {
        // Refused by a producer that has failed for good: certainly not written, and its successor may be asked.
        (Reason::ProducerReplaced, Persistence::NotPersisted) => Reason::KafkaUnavailable,
        (reason, _) => reason,
    };
    let message = match reason {
        Reason::TopicNotFound => {
            format!("topic {topic:?} does not exist, and topics are not created by publishing")
        }
        Reason::PartitionNotFound => format!("topic {topic:?} has no such partition"),
        Reason::RecordTooLarge => {
            format!("the record is larger than topic {topic:?} or its broker allows")
        }
        Reason::KafkaNotAuthorized => {
            format!("Kafka does not allow this sidecar to write to topic {topic:?} ({code})")
        }
        Reason::DeliveryTimeout => format!("no broker acknowledged the record in time ({code})"),
        // The text of an internal error is fixed; the cause is in the log.
        Reason::Internal => {
            tracing::error!(topic, error = %code, "a record failed for a reason that is not expected");
            "internal error".to_owned()
        }
        _ => format!("Kafka refused the record: {code}"),
    };
    Failure::new(reason, message)
        .with_persistence(persistence)
        .with_metadata("topic", topic)
}
