//! Every metric: its name, labels, meaning, and the handle that records it.
//!
//! Handles are resolved once, so that the hot paths only add to an atomic, for a batch at a time. Labels come from enums of the code or are
//! bounded (`names`). Plain counters and gauges are the recorder's; histograms and what goes away again are our own, in a file for each subject:
//! `messaging` (by topic and group), `rpc` (calls), `live` (groups and partitions), `clients` (librdkafka). Not here: the endpoint (`admin`). The
//! README's table is compared with [`table()`], and that with a live `/metrics`, by tests.

#![expect(
    clippy::disallowed_macros,
    reason = "this is the one file that names metrics"
)]

mod clients;
mod exposition;
mod histogram;
mod live;
mod messaging;
mod names;
pub mod rpc;
mod table;
mod text;

use std::{sync::OnceLock, time::Duration};

use ::metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

pub use self::{
    clients::{
        Broker, Client, Connection, Counts, GroupState, GroupStatistics, PartitionStatistics,
        RoundTrips, Statistics,
    },
    exposition::Exposition,
    live::{Figures, Group, Partition, lags_of},
    messaging::{Commits, Outcome, Reading, TopicSends},
    table::{Kind, Metric},
};
use self::{
    histogram::{Histogram, SHORT},
    table::*,
    text::Text,
};
use crate::{config, failure::Reason, record::Usage};

/// Every metric there is, in the order of the documents.
pub fn table() -> impl Iterator<Item = &'static Metric> {
    let rows = [messaging::ROWS, rpc::ROWS, TABLE, live::ROWS, clients::ROWS];
    rows.into_iter().flatten()
}

/// Installs the recorder of the process. It must come before the first handle is resolved; its upkeep is the caller's.
pub fn install(options: &config::Metrics) -> Result<Exposition, BuildError> {
    let recorder = PrometheusBuilder::new().install_recorder()?;
    exposition::choose(options);
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => {}
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Resolved now, so that every series without a failure stands at zero from the start.
    publish();
    subscribe();
    connections();
    for reason in [
        Reason::PublishBufferFull,
        Reason::TooManyStreams,
        Reason::TooManySubscriptions,
        Reason::Draining,
    ] {
        let _ = counter!(REFUSED, "reason" => reason.as_str());
    }
    for reason in ["foreign", "corrupt", "moved"] {
        let _ = counter!(MAPS_IGNORED, "reason" => reason);
    }
    for cause in ["MAX_ATTEMPTS", "EXPIRED", "CRASH_SUSPECT", "REJECTED"] {
        let _ = counter!(DEAD_LETTERS, "cause" => cause);
    }
    for cause in ["certificate", "fatal"] {
        let _ = counter!(PRODUCERS_REPLACED, "cause" => cause);
    }
    for client in ["producer", "consumer"] {
        for reason in [
            Reason::KafkaAuthenticationFailed,
            Reason::KafkaNotAuthorized,
        ] {
            let _ = counter!(KAFKA_REFUSALS, "client" => client, "reason" => reason.as_str());
        }
    }
    process();
    Ok(Exposition::of(recorder))
}

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
        self.offset_unknown.increment(unknown);
    }

    /// A record was refused or failed.
    pub fn failed(&self, reason: Reason, records: u64) {
        counter!(FAILED, "reason" => reason.as_str()).increment(records);
    }

    /// The client was replaced.
    pub fn replaced(&self, cause: &'static str) {
        counter!(PRODUCERS_REPLACED, "cause" => cause).increment(1);
    }

    /// A batch has its last report.
    pub fn completed(&self, after: Duration) {
        self.batch_seconds.record(after.as_secs_f64(), 1);
    }

    /// What may be in flight.
    pub fn limit(&self, limit: Usage) {
        self.limit_records.set(limit.records as f64);
        self.limit_bytes.set(limit.bytes as f64);
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

    /// A batch, or a unary call, was admitted after that time.
    pub fn admitted_after(&self, waited: Duration) {
        self.admission_seconds.record(waited.as_secs_f64(), 1);
    }

    fn draw(&self, text: &mut Text) {
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

    /// Records were admitted.
    pub fn admitted(&self, usage: Usage) {
        self.bytes.increment(usage.bytes);
        self.in_flight_records.increment(usage.records as f64);
        self.in_flight_bytes.increment(usage.bytes as f64);
    }

    /// Admitted records were answered.
    pub fn answered(&self, usage: Usage) {
        self.in_flight_records.decrement(usage.records as f64);
        self.in_flight_bytes.decrement(usage.bytes as f64);
    }

    /// A stream is open as long as the answer lives.
    pub fn stream(&self) -> Open {
        Open::new(self.streams.clone())
    }
}

/// The recorder of the subscribe path.
pub fn subscribe() -> &'static Subscribe {
    static SUBSCRIBE: OnceLock<Subscribe> = OnceLock::new();
    SUBSCRIBE.get_or_init(|| Subscribe {
        subscriptions: gauge!(SUBSCRIPTIONS),
        streams: gauge!(SUBSCRIBE_STREAMS),
        delivered: counter!(DELIVERED),
        delivered_bytes: counter!(DELIVERED_BYTES),
        redelivered: counter!(REDELIVERED),
        restored: counter!(RESTORED),
        ranges_dropped: counter!(RANGES_DROPPED),
        acked: counter!(SETTLED, "action" => "ack"),
        nacked: counter!(SETTLED, "action" => "nack"),
        rejected: counter!(SETTLED, "action" => "dead_letter"),
        released: counter!(SETTLED, "action" => "release"),
        dead_letters_failed: counter!(DEAD_LETTERS_FAILED),
        expired: counter!(EXPIRED),
        left_stuck: counter!(LEFT_STUCK),
        stale: counter!(STALE),
        unsettled: gauge!(UNSETTLED),
        commits_ok: counter!(COMMITS, "result" => "ok"),
        commits_failed: counter!(COMMITS, "result" => "error"),
        assigned: counter!(REBALANCES, "kind" => "assigned"),
        revoked: counter!(REBALANCES, "kind" => "revoked"),
        lost: counter!(REBALANCES, "kind" => "lost"),
        leaked: counter!(LEAKED),
    })
}

/// See [`subscribe`]. A field is named for what it counts.
#[expect(
    missing_debug_implementations,
    missing_docs,
    reason = "handles show nothing; TABLE documents each"
)]
pub struct Subscribe {
    subscriptions: Gauge,
    streams: Gauge,
    pub delivered: Counter,
    pub delivered_bytes: Counter,
    pub redelivered: Counter,
    pub restored: Counter,
    pub ranges_dropped: Counter,
    pub acked: Counter,
    pub nacked: Counter,
    pub rejected: Counter,
    pub released: Counter,
    pub dead_letters_failed: Counter,
    pub expired: Counter,
    pub left_stuck: Counter,
    pub stale: Counter,
    pub unsettled: Gauge,
    pub commits_ok: Counter,
    pub commits_failed: Counter,
    pub assigned: Counter,
    pub revoked: Counter,
    pub lost: Counter,
    pub leaked: Counter,
}

impl Subscribe {
    /// What stood beside a committed offset was not read.
    pub fn map_ignored(&self, reason: &'static str) {
        counter!(MAPS_IGNORED, "reason" => reason).increment(1);
    }

    /// A record is among the dead letters now.
    pub fn dead_letter(&self, cause: &'static str) {
        counter!(DEAD_LETTERS, "cause" => cause).increment(1);
    }

    /// A stream is open as long as the answer lives.
    pub fn stream(&self) -> Open {
        Open::new(self.streams.clone())
    }

    /// A consumer lives as long as the answer does.
    pub fn subscription(&self) -> Open {
        Open::new(self.subscriptions.clone())
    }
}

/// The recorder of the listeners.
pub fn connections() -> &'static Connections {
    static CONNECTIONS_RECORDER: OnceLock<Connections> = OnceLock::new();
    CONNECTIONS_RECORDER.get_or_init(|| Connections {
        open: gauge!(CONNECTIONS),
        rejected: counter!(CONNECTIONS_REJECTED),
    })
}

/// The recorder of the process itself.
pub fn process() -> &'static Process {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    PROCESS.get_or_init(|| Process {
        draining: gauge!(DRAINING),
        drain_left: gauge!(DRAIN_LEFT),
    })
}

/// See [`process`].
#[expect(missing_debug_implementations, reason = "handles show nothing")]
pub struct Process {
    draining: Gauge,
    drain_left: Gauge,
}

impl Process {
    /// How long the drain may still take, if there is one.
    pub fn drain(&self, left: Option<Duration>) {
        self.draining.set(f64::from(u8::from(left.is_some())));
        self.drain_left.set(left.unwrap_or_default());
    }
}

/// See [`connections`].
#[expect(missing_debug_implementations, reason = "handles show nothing")]
pub struct Connections {
    open: Gauge,
    rejected: Counter,
}

impl Connections {
    /// A connection is open as long as the answer lives.
    pub fn open(&self) -> Open {
        Open::new(self.open.clone())
    }

    /// A call was refused for want of room, or because the sidecar stops.
    pub fn refused(&self, reason: Reason) {
        counter!(REFUSED, "reason" => reason.as_str()).increment(1);
    }

    /// A stream ended with a failure.
    pub fn stream_failed(&self, reason: Reason) {
        counter!(STREAMS_FAILED, "reason" => reason.as_str()).increment(1);
    }

    /// A connection was closed for what came in.
    pub fn rejected(&self) {
        self.rejected.increment(1);
    }
}

/// Brokers refuse a client as a whole.
pub fn refused(client: &'static str, reason: Reason) {
    counter!(KAFKA_REFUSALS, "client" => client, "reason" => reason.as_str()).increment(1);
}

/// Counts itself in a gauge as long as it lives, however its owner ends.
#[expect(missing_debug_implementations, reason = "handles show nothing")]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
