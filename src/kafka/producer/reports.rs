//! What becomes of records: the callbacks of a client, and where they are written.
//!
//! Reports arrive on the client's polling thread. Not here: what a client is and when it is replaced (`replace`). What always holds: a report
//! completes its record, or keeps it for the next client.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{BorrowedMessage, DeliveryResult},
    producer::ProducerContext,
    types::RDKafkaErrorCode as Code,
};
use tokio::sync::Notify;

use super::{
    Delivery, PartitionCounts, Trust,
    again::Kept,
    batches::{Answered, BatchId, Batches, Slot},
    lane::Succession,
    neighbours::{Neighbours, Why},
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::{Cluster, connection::Connection, context, error, ffi, statistics::Statistics},
    metrics,
};

/// The open batches, whichever client their records were handed to.
pub(super) struct Reports {
    // A std mutex: sections are a few instructions and nothing awaits inside.
    pub(super) batches: Mutex<Batches>,
    pub(super) neighbours: Neighbours,
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
        let Some(mut finished) = finished else { return };
        if finished.late > 0 {
            metrics::publish().published(finished.late, 0);
        }
        if let Some(done) = &mut finished.done
            && !finished.deliveries.is_empty()
        {
            let deliveries = finished.deliveries.into_iter().flatten().collect();
            done(deliveries, Answered::Whole);
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

    /// Whether a record that was not written failed with its client, which is replaced.
    fn is_over(&self, code: Code) -> bool {
        match code {
            // So librdkafka does by itself only with what was never sent when it has failed for good.
            Code::PurgeQueue => !self.gives_up.load(Ordering::Acquire),
            code => error::reason(code) == Reason::ProducerReplaced,
        }
    }

    /// Takes a record out of its report, to be sent again.
    fn take(&self, batch: Slot, index: usize, message: &BorrowedMessage<'_>) -> Option<Kept> {
        // The lock is not held while the record is copied.
        let batch = self.reports.batches().id(batch);
        Some(Kept {
            batch: batch?,
            index,
            record: ffi::sent(message),
        })
    }

    fn report(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (batch, index) = ((opaque >> 32) as Slot, opaque & 0xffff_ffff);
        match result {
            Ok(message) => self.written(batch, index, message),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.failed(batch, index, code, message);
            }
        }
        self.reports.made_room();
    }

    fn written(&self, batch: Slot, index: usize, message: &BorrowedMessage<'_>) {
        let reports = &*self.reports;
        self.connection.works();
        if reports.neighbours.any() {
            reports.overtaken(batch, index, message);
        }
        let timestamp = match reports.trust {
            Trust::Everything => message.timestamp().to_millis(),
            Trust::NotTimestamps => None,
        };
        let (partition, offset) = (message.partition(), message.offset());
        let mut batches = reports.batches();
        let delivery = Delivery::Published {
            partition,
            offset: batches.true_offset(|| message.topic(), partition, offset),
            timestamp,
            duplicate: false,
        };
        reports.complete_in(batches, batch, index, delivery);
    }

    fn failed(&self, batch: Slot, index: usize, code: Code, message: &BorrowedMessage<'_>) {
        let persistence = ffi::persistence(message);
        let is_kept = persistence == Persistence::NotPersisted;
        if is_kept && self.is_over(code) {
            if let Some(kept) = self.take(batch, index, message) {
                self.succession.again.keep(kept);
                self.succession.trouble.notify_one();
            }
            return;
        }
        if is_kept
            && !self.gives_up.load(Ordering::Acquire)
            && let Some(why) = Why::of(code)
            && let Some(kept) = self.take(batch, index, message)
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
        let failure = refused.unwrap_or_else(|| failure(code, message.topic(), persistence));
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

pub(super) fn opaque(batch: BatchId, index: usize) -> usize {
    (batch.slot as usize) << 32 | index
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
