//! The one idempotent producer of the process.
//!
//! Records go in by batch; a batch is completed once, by one call, when every record of it has its delivery report (or could
//! not be handed over), or its time is over (`late`). A topic that takes no batches as large as librdkafka makes them has a client of smaller ones (`limits`); each client
//! and its successors are a `lane`. Not here: bounds and waiting (`publish`), reports (`reports`), the change of clients (`replace`). What
//! always holds: every registered batch is completed exactly once, and an offset that is told is the record's own.

mod again;
mod batches;
mod client;
mod guilt;
mod lane;
mod late;
mod limits;
mod neighbours;
mod places;
mod replace;
mod reports;
mod rest;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinSet};

pub(super) use self::places::PartitionCounts;
pub use self::{
    batches::{Answered, BatchId, Waiting},
    places::{Keys, PartitionKey, Places},
};
use self::{
    batches::{Batch, Completion, Watch},
    lane::Lane,
    limits::Limits,
    reports::Reports,
};
use super::{Cluster, ffi};
use crate::{failure::Failure, record::Record};

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
    /// Not acknowledged. Records that fail alike share it.
    Failed(Arc<Failure>),
}

impl Delivery {
    /// A failure as a delivery.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed(Arc::new(failure))
    }
}

/// A batch that is to be handed over.
#[expect(missing_debug_implementations, reason = "a closure shows nothing")]
pub struct Registration {
    /// How many it has, at least one.
    pub records: usize,
    /// Where they go.
    pub keys: Keys,
    /// Raised as soon as one of them fails.
    pub failed: Option<Arc<AtomicBool>>,
    /// If reports are missing after that time, it is answered without them.
    pub longest: Option<Duration>,
    /// Told once what became of its records.
    pub done: Completion,
}

/// librdkafka's own queue has no room now; nothing was sent.
#[derive(Debug)]
pub struct SendFull;

/// The producer: a cheap handle is `Arc<Producer>`.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Producer {
    reports: Arc<Reports>,
    partitioner: Option<ffi::Partitioner>,
    /// Takes every topic that needs no smaller batches.
    first: Arc<Lane>,
    limits: Limits,
}

impl Producer {
    /// Creates the client; it connects by itself, now or when Kafka is there. The error is for the operator.
    pub fn new(cluster: Cluster, trust: Trust) -> Result<Self, String> {
        let reports = Arc::new(Reports {
            batches: Mutex::default(),
            neighbours: Default::default(),
            room: Notify::new(),
            is_room_wanted: AtomicBool::new(false),
            resting: Default::default(),
            trust,
            partitions: PartitionCounts::default(),
        });
        let partitioner = cluster.producer_properties()?;
        let partitioner = partitioner
            .get("partitioner")
            .unwrap_or("consistent_random");
        let first = Lane::new(cluster, Arc::clone(&reports), 0, None)?;
        Ok(Self {
            partitioner: ffi::Partitioner::named(partitioner),
            reports,
            first: Arc::new(first),
            limits: Limits::default(),
        })
    }

    /// Registers batches that are handed over from `since` on, which is now.
    pub fn register(&self, since: Instant, registrations: Vec<Registration>) -> Vec<BatchId> {
        let batches = registrations.into_iter().map(|registration| Batch {
            deliveries: vec![None; registration.records],
            open: registration.records,
            keys: registration.keys,
            failed: registration.failed,
            watch: None,
            done: Some(registration.done),
            since,
            until: registration
                .longest
                .and_then(|longest| since.checked_add(longest)),
            late: 0,
            number: 0,
        });
        // Allocated before the lock is taken.
        let batches: Vec<Batch> = batches.collect();
        let mut registered = self.reports.batches();
        let ids = batches.into_iter().map(|batch| registered.insert(batch));
        ids.collect()
    }

    /// From now on `watch` hears of every record of the batch that is completed, before it is. To be set before one is sent.
    pub fn watch(&self, batch: BatchId, watch: Watch) {
        self.reports.batches().watch(batch, watch);
    }

    /// Hands records to librdkafka, the first as record `first` of its batch: as many of them as go without further ado, which may be none. The
    /// next one is for [`Self::send`].
    pub fn send_run(&self, batch: BatchId, first: usize, records: &[Record]) -> usize {
        self.first.send_run(batch, first, records)
    }

    /// Hands a record to librdkafka, as record `index` of its batch. A record that is refused at once is completed as failed.
    pub fn send(&self, batch: BatchId, index: usize, record: &Record) -> Result<(), SendFull> {
        // A topic that is open there goes there.
        if let Some(sent) = self.first.send_if_open(batch, index, record) {
            return sent;
        }
        match self.limits.lane(&record.topic) {
            None => Err(SendFull),
            Some(place) => self.at(place).send(batch, index, record, || {
                self.limits.lane(&record.topic) == Some(place)
            }),
        }
    }

    /// Learns what there is to know of a topic before its first record, which would wait for it.
    pub fn prepare(&self, topic: &str) {
        self.limits.lane(topic);
    }

    /// Completes a record that was not handed over.
    pub fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        self.reports.complete(batch, index, delivery);
    }

    /// Where the records of a topic will go.
    pub fn places(&self, topic: &str) -> Places {
        let own = self.first.cluster.config().publish.topics.of(topic);
        let own = own.and_then(|policy| policy.partitioner);
        Places {
            topic: places::hash(topic),
            partitions: self.reports.partitions.of(topic),
            partitioner: own.map_or(self.partitioner, ffi::Partitioner::named),
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
        self.reports.is_room_wanted.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(Duration::from_millis(10), self.reports.room.notified()).await;
    }

    /// Gives up what is queued and in flight; each record gets its true report.
    pub fn purge(&self) {
        for lane in self.lanes() {
            lane.purge();
        }
        self.reports.give_up_neighbours();
    }

    /// Keeps every client working, and learns what batches topics take; never ends.
    pub async fn supervise(&self) {
        let clients = async {
            let (mut tasks, mut supervised) = (JoinSet::new(), BTreeSet::new());
            loop {
                for lane in self.lanes() {
                    if supervised.insert(lane.succession.place) {
                        let lane = Arc::clone(lane);
                        tasks.spawn(async move { lane.supervise().await });
                    }
                }
                tokio::select! {
                    () = self.limits.grown.notified() => {}
                    // None ends but by a panic, which is the supervisor's own.
                    Some(Err(ended)) = tasks.join_next() => if ended.is_panic() {
                        std::panic::resume_unwind(ended.into_panic());
                    },
                }
            }
        };
        tokio::join!(
            clients,
            self.look_up_limits(),
            self.send_neighbours(),
            self.let_rest(),
            self.answer_the_late()
        );
    }
}

/// What of a broker's answer may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All of it.
    Everything,
    /// Not the timestamps: the in-memory broker invents them.
    NotTimestamps,
}
