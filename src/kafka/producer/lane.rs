//! A client and its successors: records are handed to the one of now.
//!
//! Not here: when a client is replaced (`replace`), which topics go where (`limits`). What always holds: a record is handed to one client,
//! and to none while the lane is closed.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{TopicPartitionList, producer::Producer as _, types::RDKafkaErrorCode as Code};
use tokio::sync::Notify;

use super::{
    BatchId, Delivery, SendFull,
    again::{Again, Kept},
    client::Client,
    limits::Place,
    reports::{Reports, failure, opaque},
};
use crate::{
    config::Publish,
    failure::{Failure, Persistence, Reason},
    kafka::{Cluster, error, ffi, settings},
    record::Record,
};

/// librdkafka's default of `batch.size`.
const BATCH_SIZE: usize = 1_000_000;

pub(super) struct Lane {
    pub(super) cluster: Cluster,
    pub(super) reports: Arc<Reports>,
    pub(super) succession: Arc<Succession>,
    pub(super) current: RwLock<Current>,
    /// Set while a client is being emptied before another takes over: order would be lost otherwise.
    pub(super) closed: AtomicBool,
    /// The client has failed for good, and no other could be made: nothing waits for one.
    pub(super) hopeless: AtomicBool,
    /// Held by who closes it, until it is open again.
    pub(super) change: tokio::sync::Mutex<()>,
}

/// What a client leaves to the next.
pub(super) struct Succession {
    pub(super) again: Again,
    /// A client has failed for good, or is refused by the brokers.
    pub(super) trouble: Notify,
    pub(super) place: Place,
    /// No batch of more than one record is larger; librdkafka's `batch.size`, or `message.max.bytes` where that is less.
    pub(super) batch_bytes: usize,
}

/// The client that records are handed to.
pub(super) struct Current {
    // Handles hold the client, so the order of the fields does not matter to librdkafka's rule (handles go first).
    pub(super) topics: HashMap<String, ffi::Topic<Arc<Client>>>,
    pub(super) client: Arc<Client>,
}

/// Why a client is not given a record.
enum Refusal {
    /// Another is on its way.
    Closed,
    /// Brokers take nothing from it.
    Failed(Failure),
}

impl Current {
    /// Topic handles that are kept; beyond it they are opened for one batch and closed again.
    const MAX_TOPICS: usize = 10_000;

    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            topics: HashMap::new(),
            client,
        }
    }

    /// Sends a record, to a topic whose handle may still have to be opened.
    pub(super) fn send(
        &mut self,
        config: &Publish,
        record: &Record,
        opaque: usize,
    ) -> Result<(), Code> {
        let client = Arc::clone(&self.client);
        if let Some(topic) = self.topics.get(&record.topic) {
            return topic.produce(client.client(), record, opaque);
        }
        let own = settings::topic(config, &record.topic);
        let topic = ffi::Topic::open(client.client(), Arc::clone(&client), &record.topic, &own)?;
        let sent = topic.produce(client.client(), record, opaque);
        if self.topics.len() < Self::MAX_TOPICS {
            self.topics.insert(record.topic.clone(), topic);
        }
        sent
    }
}

impl Lane {
    /// The lane at `place`: its batches are as large as configured, or at most `batch_bytes`.
    pub(super) fn new(
        cluster: Cluster,
        reports: Arc<Reports>,
        place: Place,
        batch_bytes: Option<usize>,
    ) -> Result<Self, String> {
        let properties = cluster.producer_properties()?;
        let number = |name| properties.get(name).and_then(|value| value.parse().ok());
        let configured = number("batch.size").unwrap_or(BATCH_SIZE);
        let longest = number("message.max.bytes").unwrap_or(BATCH_SIZE);
        let succession = Arc::new(Succession {
            again: Again::default(),
            trouble: Notify::new(),
            place,
            batch_bytes: batch_bytes.unwrap_or(configured).min(longest),
        });
        let client = Client::connect(&cluster, &reports, &succession)?;
        Ok(Self {
            cluster,
            reports,
            succession,
            current: RwLock::new(Current::new(client)),
            closed: AtomicBool::new(false),
            hopeless: AtomicBool::new(false),
            change: tokio::sync::Mutex::default(),
        })
    }

    /// Hands over those at the beginning that have one topic, which is open here, and are taken: the path of nearly every record.
    pub(super) fn send_run(&self, batch: BatchId, first: usize, records: &[Record]) -> usize {
        let current = self.current();
        let Some(one) = records.first() else { return 0 };
        let Some(topic) = current.topics.get(&one.topic) else {
            return 0;
        };
        if self.refusal(&current).is_some() {
            return 0;
        }
        let client = current.client.client();
        let run = records.iter().take_while(|next| next.topic == one.topic);
        let opaques = (first..).map(|index| opaque(batch, index));
        run.zip(opaques)
            .take_while(|(record, opaque)| topic.produce(client, record, *opaque).is_ok())
            .count()
    }

    /// Hands a record over if its topic is open here.
    pub(super) fn send_if_open(
        &self,
        batch: BatchId,
        index: usize,
        record: &Record,
    ) -> Option<Result<(), SendFull>> {
        // Held until the record is handed over: a client is emptied only after whoever holds it is done.
        let current = self.current();
        let topic = current.topics.get(&record.topic)?;
        let sent = match self.refusal(&current) {
            None => Ok(topic.produce(current.client.client(), record, opaque(batch, index))),
            Some(refusal) => Err(refusal),
        };
        drop(current);
        Some(self.handed_over(batch, index, record, sent))
    }

    /// Hands a record over, if its topic is this lane's.
    pub(super) fn send(
        &self,
        batch: BatchId,
        index: usize,
        record: &Record,
        is_here: impl FnOnce() -> bool,
    ) -> Result<(), SendFull> {
        if let Some(sent) = self.send_if_open(batch, index, record) {
            return sent;
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let sent = match self.refusal(&current) {
            // It has moved meanwhile: one that is opened here again would have records behind those that went there.
            None if !is_here() => Err(Refusal::Closed),
            None => Ok(current.send(self.config(), record, opaque(batch, index))),
            Some(refusal) => Err(refusal),
        };
        drop(current);
        self.handed_over(batch, index, record, sent)
    }

    /// Why the client is not given a record, if so.
    fn refusal(&self, current: &Current) -> Option<Refusal> {
        if self.closed.load(Ordering::Acquire) {
            return Some(Refusal::Closed);
        }
        current.client.context().refused().map(Refusal::Failed)
    }

    fn handed_over(
        &self,
        batch: BatchId,
        index: usize,
        record: &Record,
        sent: Result<Result<(), Code>, Refusal>,
    ) -> Result<(), SendFull> {
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Code::QueueFull)) | Err(Refusal::Closed) => Err(SendFull),
            Err(Refusal::Failed(failure)) => {
                self.complete(batch, index, Delivery::failed(failure));
                Ok(())
            }
            Ok(Err(code)) => {
                let forbidden = self.failed_for_good();
                // Another client is on its way; one after the other may fail, so that is not waited for longer than for a report.
                let may_wait = forbidden.is_none() && !self.hopeless.load(Ordering::Acquire);
                // What it failed of is the code of all that it is given afterwards.
                let is_over = error::reason(code) == Reason::ProducerReplaced;
                if may_wait && is_over && !self.reports.batches().is_answered(batch) {
                    return Err(SendFull);
                }
                let failure = forbidden
                    .unwrap_or_else(|| failure(code, &record.topic, Persistence::NotPersisted));
                self.complete(batch, index, Delivery::failed(failure));
                Ok(())
            }
        }
    }

    /// Sends what was kept back, before anything that comes later.
    pub(super) fn send_kept(&self, current: &mut Current, kept: Vec<Kept>) {
        for kept in kept {
            let is_late = self.reports.batches().is_answered(kept.batch);
            let sent = match is_late {
                true => Err(Code::MessageTimedOut),
                false => current.send(self.config(), &kept.record, opaque(kept.batch, kept.index)),
            };
            if let Err(code) = sent {
                let failure = failure(code, &kept.record.topic, Persistence::NotPersisted);
                self.complete(kept.batch, kept.index, Delivery::failed(failure));
            }
        }
    }

    /// Sends what another lane kept, before anything that comes later of its topic.
    pub(super) fn send_first(&self, kept: Vec<Kept>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        self.send_kept(&mut current, kept);
    }

    /// Closes a topic, whose records go elsewhere from now on.
    pub(super) fn forget(&self, topic: &str) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.topics.remove(topic);
    }

    /// The client, and those of `partitions` whose topics are open here.
    pub(super) fn open_of(
        &self,
        partitions: &[(String, i32)],
    ) -> (Arc<Client>, TopicPartitionList) {
        let current = self.current();
        let mut open = TopicPartitionList::new();
        for (topic, partition) in partitions {
            if current.topics.contains_key(topic) {
                open.add_partition(topic, *partition);
            }
        }
        (Arc::clone(&current.client), open)
    }

    fn config(&self) -> &Publish {
        &self.cluster.config().publish
    }

    pub(super) fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        self.reports.complete(batch, index, delivery);
    }

    /// From here on no record goes to the current client.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Whoever is handing a record over holds the lock.
        drop(self.current.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Records go to the current client again.
    pub(super) fn reopen(&self) {
        self.closed.store(false, Ordering::Release);
        self.reports.made_room();
    }

    /// Gives up what is queued and in flight; each record gets its true report.
    pub(super) fn purge(&self) {
        let client = self.client();
        client.context().gives_up.store(true, Ordering::Release);
        ffi::purge(client.client());
        self.give_up_kept(|topic| failure(Code::PurgeQueue, topic, Persistence::NotPersisted));
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.current().client)
    }
}
