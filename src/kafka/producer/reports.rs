//! What becomes of records: the callbacks of a client, and where they are written.
//!
//! Reports arrive on the client's thread. Not here: what a client is (`client`) and when it is replaced (`replace`). What always holds: a report
//! completes its record, or keeps it for the next client.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, error::KafkaError, message::DeliveryResult,
    producer::ProducerContext, types::RDKafkaErrorCode as Code,
};
use tokio::sync::Notify;

use super::{
    Delivery, PartitionCounts, Trust,
    again::Kept,
    batches::{Batch, BatchId, Batches, Slot},
    lane::Succession,
    neighbours::{Neighbours, Why},
    rest::Resting,
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::{
        Cluster,
        connection::Connection,
        context, error,
        ffi::{self, DeliveryReport, DeliveryReports},
        statistics::Statistics,
    },
};

/// Reports that are taken under one lock, for which those wait who hand records over.
const AT_ONCE: usize = 128;

/// The open batches, whichever client their records were handed to.
pub(super) struct Reports {
    // A std mutex: sections are a few instructions and nothing awaits inside.
    pub(super) batches: Mutex<Batches>,
    pub(super) neighbours: Neighbours,
    pub(super) resting: Resting,
    pub(super) room: Notify,
    /// Whether somebody waits for that, for the path of every report.
    pub(super) is_room_wanted: AtomicBool,
    pub(super) trust: Trust,
    pub(super) partitions: PartitionCounts,
}

/// One client's context: what librdkafka calls back.
pub(in crate::kafka) struct Callbacks {
    pub(super) statistics: Statistics,
    pub(super) reports: Arc<Reports>,
    pub(super) succession: Arc<Succession>,
    pub(super) cluster: Cluster,
    pub(super) connection: Connection,
    pub(super) fatal: AtomicBool,
    /// Somebody publishes although the client has failed for good.
    pub(super) wanted: AtomicBool,
    /// What it throws away from now on is to be answered: we have told it to.
    pub(super) gives_up: AtomicBool,
}

impl Reports {
    pub(super) fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn complete(&self, batch: BatchId, index: usize, delivery: Delivery) {
        self.complete_in(self.batches(), batch.slot, index, delivery);
    }

    /// The same, with the batches locked already.
    fn complete_in<'a>(
        &'a self,
        mut batches: MutexGuard<'a, Batches>,
        batch: Slot,
        index: usize,
        delivery: Delivery,
    ) {
        if let Some(watch) = batches.watcher(batch) {
            drop(batches);
            for (batch, index, delivery) in watch(index, &delivery) {
                self.complete(batch, index, delivery);
            }
            batches = self.batches();
        }
        let finished = batches.complete(batch, index, delivery);
        drop(batches);
        if let Some(finished) = finished {
            finished.finish();
        }
    }

    fn delivery(&self, batches: &mut Batches, report: &DeliveryReport<'_>) -> Delivery {
        let (partition, offset) = (report.partition(), report.offset());
        Delivery::Published {
            partition,
            offset: batches.true_offset(|| report.topic(), partition, offset),
            timestamp: match self.trust {
                Trust::Everything => report.timestamp(),
                Trust::NotTimestamps => None,
            },
            duplicate: false,
        }
    }

    /// Wakes those who wait for room in librdkafka's queue.
    pub(super) fn made_room(&self) {
        if self.is_room_wanted.swap(false, Ordering::Relaxed) {
            self.room.notify_waiters();
        }
    }
}

impl Callbacks {
    /// Why brokers take nothing from this client, if so.
    pub(super) fn refused(&self) -> Option<Failure> {
        // The cause before what comes of it.
        self.cluster
            .refused()
            .or_else(|| self.connection.explained())
    }

    /// Takes a record out of its report, to be sent again.
    fn take(&self, batch: Slot, index: usize, report: &DeliveryReport<'_>) -> Option<Kept> {
        // The lock is not held while the record is copied.
        let batch = self.reports.batches().id(batch);
        Some(Kept {
            batch: batch?,
            index,
            record: report.record(),
        })
    }

    /// Takes reports that have come together.
    pub(super) fn reported(&self, mut all: DeliveryReports) {
        let (mut finished, mut is_more) = (Vec::new(), true);
        while is_more {
            // One is gone whatever comes of it.
            is_more = guarded(|| self.take_some(&mut all, &mut finished)).unwrap_or(true);
            for batch in finished.drain(..) {
                guarded(|| batch.finish());
            }
            self.reports.made_room();
        }
    }

    /// Takes the next reports, of which there may be more. Those that tell of nothing but success are taken under one lock.
    fn take_some(&self, all: &mut DeliveryReports, finished: &mut Vec<Batch>) -> bool {
        let reports = &*self.reports;
        let mut batches = reports.batches();
        for _ in 0..AT_ONCE {
            let Some(report) = all.next() else {
                return false;
            };
            let (batch, index) = place(report.opaque());
            let is_written = report.error().is_none();
            if reports.resting.is_any() {
                reports.resting.answered(report.topic(), report.partition());
            }
            if is_written {
                self.connection.works();
            }
            if is_written && !reports.neighbours.any() && batches.watcher(batch).is_none() {
                let delivery = reports.delivery(&mut batches, &report);
                finished.extend(batches.complete(batch, index, delivery));
            } else {
                drop(batches);
                match report.error() {
                    None => self.written(batch, index, &report),
                    Some(code) => self.failed(batch, index, code, &report),
                }
                batches = reports.batches();
            }
        }
        true
    }

    fn written(&self, batch: Slot, index: usize, report: &DeliveryReport<'_>) {
        let reports = &*self.reports;
        if reports.neighbours.any() {
            reports.overtaken(batch, index, report);
        }
        let mut batches = reports.batches();
        let delivery = reports.delivery(&mut batches, report);
        reports.complete_in(batches, batch, index, delivery);
    }

    fn failed(&self, batch: Slot, index: usize, code: Code, report: &DeliveryReport<'_>) {
        let gives_up = self.gives_up.load(Ordering::Acquire);
        // So librdkafka does by itself only with what is queued when it has failed for good.
        let code = match code {
            Code::PurgeQueue if !gives_up => Code::Fatal,
            code => code,
        };
        let persistence = report.persistence();
        let is_kept = persistence == Persistence::NotPersisted;
        if is_kept && error::reason(code) == Reason::ProducerReplaced {
            if let Some(kept) = self.take(batch, index, report) {
                self.succession.again.keep(kept);
                self.succession.trouble.notify_one();
            }
            return;
        }
        if is_kept
            && !gives_up
            && let Some(why) = Why::of(code)
            && let Some(kept) = self.take(batch, index, report)
            && self.may_be_a_neighbour(why, &kept.record)
        {
            let place = self.succession.place;
            return self.reports.neighbours.keep(place, why, kept);
        }
        let refused = match (code, persistence) {
            // It waited for a broker that would take us.
            (Code::PurgeQueue, Persistence::NotPersisted) => self.refused(),
            _ => None,
        };
        let failure = refused.unwrap_or_else(|| failure(code, report.topic(), persistence));
        let reports = &*self.reports;
        reports.complete_in(reports.batches(), batch, index, Delivery::failed(failure));
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
        self.succession.trouble.notify_one();
        context::error("producer", &error, ffi::said(reason));
    }

    fn stats_raw(&self, json: &[u8]) {
        self.statistics.take(json);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = ();

    /// Never called: a client's events are taken from its queue.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A panic would end the thread without a word: no report would ever arrive again.
fn guarded<T>(handle: impl FnOnce() -> T) -> Option<T> {
    let handled = catch_unwind(AssertUnwindSafe(handle));
    if handled.is_err() {
        tracing::error!("a delivery report could not be handled");
    }
    handled.ok()
}

pub(super) fn opaque(batch: BatchId, index: usize) -> usize {
    (batch.slot as usize) << 32 | index
}

/// The batch and the index of an opaque.
fn place(opaque: usize) -> (Slot, usize) {
    ((opaque >> 32) as Slot, opaque & 0xffff_ffff)
}

pub(super) fn failure(code: Code, topic: &str, persistence: Persistence) -> Failure {
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
        Reason::ProducerReplaced => format!(
            "the producer was replaced before it knew whether the record was written ({code})"
        ),
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
