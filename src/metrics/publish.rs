//! The publish path: records in flight and what became of them.

#![expect(clippy::disallowed_macros, reason = "metrics are named here")]

use std::{sync::OnceLock, time::Duration};

use ::metrics::{Counter, Gauge, counter, gauge};

use super::{
    Open,
    histogram::{Histogram, SHORT},
    table::*,
    text::Text,
};
use crate::{failure::Reason, record::Usage};

/// The recorder of the publish path.
pub fn publish() -> &'static Publish {
    static PUBLISH: OnceLock<Publish> = OnceLock::new();
    PUBLISH.get_or_init(|| Publish {
        published: counter!(PUBLISHED),
        bytes: counter!(PUBLISHED_BYTES),
        offset_unknown: counter!(OFFSET_UNKNOWN),
        sent_again: counter!(SENT_AGAIN),
        duplicates: counter!(DUPLICATES),
        message_ids: gauge!(MESSAGE_IDS),
        in_flight_records: gauge!(IN_FLIGHT_RECORDS),
        in_flight_bytes: gauge!(IN_FLIGHT_BYTES),
        queued_bytes: gauge!(QUEUED_BYTES),
        waiting: gauge!(WAITING),
        highest_records: gauge!(HIGHEST_RECORDS),
        highest_bytes: gauge!(HIGHEST_BYTES),
        lowest_records: gauge!(LOWEST_RECORDS),
        lowest_bytes: gauge!(LOWEST_BYTES),
        limit_records: gauge!(LIMIT_RECORDS),
        limit_bytes: gauge!(LIMIT_BYTES),
        oldest: gauge!(OLDEST),
        batch_seconds: Histogram::new(SHORT),
        admission_seconds: Histogram::new(SHORT),
        streams: gauge!(PUBLISH_STREAMS),
    })
}

/// See [`publish`].
#[expect(missing_debug_implementations, reason = "handles show nothing")]
pub struct Publish {
    published: Counter,
    bytes: Counter,
    offset_unknown: Counter,
    /// Records that a producer that failed for good had not written, sent by the next one.
    pub sent_again: Counter,
    /// Records that were not sent, because their message id was known.
    pub duplicates: Counter,
    message_ids: Gauge,
    in_flight_records: Gauge,
    in_flight_bytes: Gauge,
    queued_bytes: Gauge,
    waiting: Gauge,
    highest_records: Gauge,
    highest_bytes: Gauge,
    lowest_records: Gauge,
    lowest_bytes: Gauge,
    limit_records: Gauge,
    limit_bytes: Gauge,
    oldest: Gauge,
    batch_seconds: Histogram,
    admission_seconds: Histogram,
    streams: Gauge,
}

impl Publish {
    /// Records were acknowledged, `unknown` of them without a known offset.
    pub fn published(&self, records: u64, unknown: u64) {
        self.published.increment(records);
        // Nearly never, and the path is every batch's.
        if unknown > 0 {
            self.offset_unknown.increment(unknown);
        }
    }

    /// A record was refused or failed.
    pub fn failed(&self, reason: Reason, records: u64) {
        counter!(FAILED, "reason" => reason.as_str()).increment(records);
    }

    /// The client was replaced.
    pub fn replaced(&self, cause: &'static str) {
        counter!(PRODUCERS_REPLACED, "cause" => cause).increment(1);
    }

    /// A batch is answered.
    pub fn completed(&self, after: Duration) {
        self.batch_seconds.record(after.as_secs_f64(), 1);
    }

    /// What may be in flight.
    pub fn limit(&self, limit: Usage) {
        self.limit_records.set(limit.records as f64);
        self.limit_bytes.set(limit.bytes as f64);
    }

    /// What is in flight now, and the most and the least lately.
    pub fn in_flight(&self, now: Usage, highest: Usage, lowest: Usage) {
        self.in_flight_records.set(now.records as f64);
        self.in_flight_bytes.set(now.bytes as f64);
        self.highest_records.set(highest.records as f64);
        self.highest_bytes.set(highest.bytes as f64);
        self.lowest_records.set(lowest.records as f64);
        self.lowest_bytes.set(lowest.bytes as f64);
    }

    /// How long the oldest batch in flight has been there.
    pub fn oldest(&self, age: Duration) {
        self.oldest.set(age);
    }

    /// How many message ids are kept.
    pub fn message_ids(&self, count: usize) {
        self.message_ids.set(count as f64);
    }

    /// A batch, or a unary call, waits for room as long as the answer lives.
    pub fn waiting(&self) -> Open {
        Open::new(self.waiting.clone())
    }

    /// So many batches, or unary calls, of that usage together were admitted, each after that time.
    pub fn admitted(&self, batches: u64, usage: Usage, waited: Duration) {
        self.admission_seconds.record(waited.as_secs_f64(), batches);
        self.bytes.increment(usage.bytes);
    }

    pub(super) fn draw(&self, text: &mut Text) {
        for (name, histogram) in [
            (BATCH_SECONDS, &self.batch_seconds),
            (ADMISSION_SECONDS, &self.admission_seconds),
        ] {
            let metric = TABLE.iter().find(|metric| metric.name == name);
            text.family(metric.expect("it is in the table"), |family| {
                family.histogram(&[], histogram);
            });
        }
    }

    /// A batch begins to wait for room.
    pub fn queued(&self, bytes: u64) {
        self.queued_bytes.increment(bytes as f64);
    }

    /// A batch waits no more.
    pub fn unqueued(&self, bytes: u64) {
        self.queued_bytes.decrement(bytes as f64);
    }

    /// A stream is open as long as the answer lives.
    pub fn stream(&self) -> Open {
        Open::new(self.streams.clone())
    }
}
