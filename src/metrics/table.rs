//! The names of all metrics, with what they mean: the README's table is made of it.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One row of the metrics table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts, in which unit.
    pub help: &'static str,
}

pub(super) const BUILD_INFO: &str = "outrigger_build_info";
pub(super) const DRAINING: &str = "outrigger_draining";
pub(super) const DRAIN_LEFT: &str = "outrigger_drain_left_seconds";
pub(super) const CONNECTIONS: &str = "outrigger_grpc_connections";
pub(super) const CONNECTIONS_REJECTED: &str = "outrigger_grpc_connections_rejected_total";
pub(super) const STREAMS_FAILED: &str = "outrigger_grpc_streams_failed_total";
pub(super) const REFUSED: &str = "outrigger_grpc_refused_total";
pub(super) const PUBLISHED: &str = "outrigger_publish_records_total";
pub(super) const PUBLISHED_BYTES: &str = "outrigger_publish_bytes_total";
pub(super) const FAILED: &str = "outrigger_publish_failures_total";
pub(super) const OFFSET_UNKNOWN: &str = "outrigger_publish_unknown_offsets_total";
pub(super) const IN_FLIGHT_RECORDS: &str = "outrigger_publish_in_flight_records";
pub(super) const IN_FLIGHT_BYTES: &str = "outrigger_publish_in_flight_bytes";
pub(super) const QUEUED_BYTES: &str = "outrigger_publish_queued_bytes";
pub(super) const WAITING: &str = "outrigger_publish_waiting_batches";
pub(super) const LIMIT_RECORDS: &str = "outrigger_publish_in_flight_limit_records";
pub(super) const LIMIT_BYTES: &str = "outrigger_publish_in_flight_limit_bytes";
pub(super) const HIGHEST_RECORDS: &str = "outrigger_publish_in_flight_highest_records";
pub(super) const HIGHEST_BYTES: &str = "outrigger_publish_in_flight_highest_bytes";
pub(super) const LOWEST_RECORDS: &str = "outrigger_publish_in_flight_lowest_records";
pub(super) const LOWEST_BYTES: &str = "outrigger_publish_in_flight_lowest_bytes";
pub(super) const OLDEST: &str = "outrigger_publish_oldest_in_flight_seconds";
pub(super) const ADMISSION_SECONDS: &str = "outrigger_publish_admission_seconds";
pub(super) const SENT_AGAIN: &str = "outrigger_publish_sent_again_records_total";
pub(super) const DUPLICATES: &str = "outrigger_publish_duplicates_total";
pub(super) const MESSAGE_IDS: &str = "outrigger_publish_message_ids";
pub(super) const PRODUCERS_REPLACED: &str = "outrigger_publish_producers_replaced_total";
pub(super) const KAFKA_REFUSALS: &str = "outrigger_kafka_refusals_total";
pub(super) const BATCH_SECONDS: &str = "outrigger_publish_batch_seconds";
pub(super) const PUBLISH_STREAMS: &str = "outrigger_publish_streams";
pub(super) const SUBSCRIPTIONS: &str = "outrigger_subscriptions";
pub(super) const SUBSCRIBE_STREAMS: &str = "outrigger_subscribe_streams";
pub(super) const DELIVERED: &str = "outrigger_subscribe_delivered_records_total";
pub(super) const DELIVERED_BYTES: &str = "outrigger_subscribe_delivered_bytes_total";
pub(super) const RESTORED: &str = "outrigger_subscribe_restored_records_total";
pub(super) const MAPS_IGNORED: &str = "outrigger_subscribe_maps_ignored_total";
pub(super) const RANGES_DROPPED: &str = "outrigger_subscribe_map_ranges_dropped_total";
pub(super) const REDELIVERED: &str = "outrigger_subscribe_redelivered_records_total";
pub(super) const SETTLED: &str = "outrigger_subscribe_settled_records_total";
pub(super) const EXPIRED: &str = "outrigger_subscribe_expired_leases_total";
pub(super) const DEAD_LETTERS: &str = "outrigger_subscribe_dead_letters_total";
pub(super) const DEAD_LETTERS_FAILED: &str = "outrigger_subscribe_dead_letters_failed_total";
pub(super) const LEFT_STUCK: &str = "outrigger_subscribe_groups_left_total";
pub(super) const REJOINED: &str = "outrigger_subscribe_groups_rejoined_total";
pub(super) const STALE: &str = "outrigger_subscribe_stale_settles_total";
pub(super) const UNSETTLED: &str = "outrigger_subscribe_unsettled_records";
pub(super) const COMMITS: &str = "outrigger_subscribe_commits_total";
pub(super) const REBALANCES: &str = "outrigger_subscribe_rebalances_total";
pub(super) const LEAKED: &str = "outrigger_subscribe_leaked_consumers_total";

/// The plain counters and gauges, and the histograms without labels; other metrics stand in the file that counts them.
pub(super) const TABLE: &[Metric] = &[
    row(
        BUILD_INFO,
        Kind::Gauge,
        &["version"],
        "Always 1; the label says which build this is.",
    ),
    row(
        DRAINING,
        Kind::Gauge,
        &[],
        "1 while the sidecar drains or stops, else 0.",
    ),
    row(
        DRAIN_LEFT,
        Kind::Gauge,
        &[],
        "Time until the deadline of the drain; 0 when there is none.",
    ),
    row(CONNECTIONS, Kind::Gauge, &[], "Open gRPC connections."),
    row(
        CONNECTIONS_REJECTED,
        Kind::Counter,
        &[],
        "Connections closed because what came in was not HTTP/2.",
    ),
    row(
        STREAMS_FAILED,
        Kind::Counter,
        &["reason"],
        "Streams that ended with a failure, by the reason of the error table.",
    ),
    row(
        REFUSED,
        Kind::Counter,
        &["reason"],
        "Calls refused for want of room or because the sidecar stops, by the reason of the error table; none of their records was sent.",
    ),
    row(
        KAFKA_REFUSALS,
        Kind::Counter,
        &["client", "reason"],
        "Refusals of a whole client by a broker: credentials, certificates or rights, by the reason of the error table.",
    ),
    row(
        PRODUCERS_REPLACED,
        Kind::Counter,
        &["cause"],
        "Producers replaced by a new one: `certificate` for a rotated certificate, `fatal` after a fatal error of librdkafka.",
    ),
    row(
        SENT_AGAIN,
        Kind::Counter,
        &[],
        "Records that were certainly not written and were sent again: by the producer that replaced one that failed for good, or after their batch was refused for its size or for another record of it.",
    ),
    row(
        DUPLICATES,
        Kind::Counter,
        &[],
        "Records that were not sent because their `message_id` was known: they have the answer to the first one, or wait for it.",
    ),
    row(
        MESSAGE_IDS,
        Kind::Gauge,
        &[],
        "Message ids that are kept, in flight or answered.",
    ),
    row(
        PUBLISHED,
        Kind::Counter,
        &[],
        "Records acknowledged by Kafka, those included that had been answered `DELIVERY_TIMEOUT` by then.",
    ),
    row(
        PUBLISHED_BYTES,
        Kind::Counter,
        &[],
        "Bytes charged for admitted records: key, value, headers and overhead.",
    ),
    row(
        FAILED,
        Kind::Counter,
        &["reason"],
        "Records that were refused or failed, by the reason of the error table.",
    ),
    row(
        OFFSET_UNKNOWN,
        Kind::Counter,
        &[],
        "Records acknowledged without a known offset.",
    ),
    row(
        IN_FLIGHT_RECORDS,
        Kind::Gauge,
        &[],
        "Records admitted and not yet reported on by Kafka, whether or not their callers were answered `DELIVERY_TIMEOUT` meanwhile.",
    ),
    row(
        IN_FLIGHT_BYTES,
        Kind::Gauge,
        &[],
        "Bytes charged for the records in flight.",
    ),
    row(
        QUEUED_BYTES,
        Kind::Gauge,
        &[],
        "Bytes that streams have read and that wait to be admitted; bounded as those in flight are.",
    ),
    row(
        WAITING,
        Kind::Gauge,
        &[],
        "Batches of streams and unary calls that wait for room: the depth of the queue before the producer.",
    ),
    row(
        LIMIT_RECORDS,
        Kind::Gauge,
        &[],
        "How many records may be in flight.",
    ),
    row(
        LIMIT_BYTES,
        Kind::Gauge,
        &[],
        "How many bytes may be charged for them.",
    ),
    row(
        HIGHEST_RECORDS,
        Kind::Gauge,
        &[],
        "The most records in flight since the metrics were read last, by anybody.",
    ),
    row(
        HIGHEST_BYTES,
        Kind::Gauge,
        &[],
        "The most bytes charged for them, likewise.",
    ),
    row(
        LOWEST_RECORDS,
        Kind::Gauge,
        &[],
        "The fewest records in flight since the metrics were read last, by anybody: above 0 there was no pause.",
    ),
    row(
        LOWEST_BYTES,
        Kind::Gauge,
        &[],
        "The fewest bytes charged for them, likewise.",
    ),
    row(
        OLDEST,
        Kind::Gauge,
        &[],
        "Age of the oldest batch that was handed to the producer and has not all of its delivery reports; 0 when there is none.",
    ),
    row(
        ADMISSION_SECONDS,
        Kind::Histogram,
        &[],
        "Time that batches of streams and unary calls waited for room, those that did not wait included.",
    ),
    row(
        BATCH_SECONDS,
        Kind::Histogram,
        &[],
        "Delivery latency: time from handing a batch to the producer to its last delivery report, in seconds.",
    ),
    row(
        PUBLISH_STREAMS,
        Kind::Gauge,
        &[],
        "Open PublishStream calls.",
    ),
    row(
        SUBSCRIPTIONS,
        Kind::Gauge,
        &[],
        "Consumers, one for each subscribed group.",
    ),
    row(SUBSCRIBE_STREAMS, Kind::Gauge, &[], "Open Subscribe calls."),
    row(
        DELIVERED,
        Kind::Counter,
        &[],
        "Records delivered to subscribers, redeliveries included.",
    ),
    row(
        DELIVERED_BYTES,
        Kind::Counter,
        &[],
        "Key, value and header bytes of delivered records.",
    ),
    row(
        REDELIVERED,
        Kind::Counter,
        &[],
        "Records delivered again after a nack, a release or the end of a stream.",
    ),
    row(
        RESTORED,
        Kind::Counter,
        &[],
        "Records that were read and not delivered, since an earlier owner of the partition had settled them.",
    ),
    row(
        MAPS_IGNORED,
        Kind::Counter,
        &["reason"],
        "Metadata of committed offsets that were not read: foreign, corrupt or moved.",
    ),
    row(
        RANGES_DROPPED,
        Kind::Counter,
        &[],
        "Ranges of settled records that did not fit beside a committed offset: delivered again by whoever takes over now.",
    ),
    row(
        SETTLED,
        Kind::Counter,
        &["action"],
        "Records settled or given back by subscribers: ack, nack or release.",
    ),
    row(
        EXPIRED,
        Kind::Counter,
        &[],
        "Leases that ended before their records were settled.",
    ),
    row(
        DEAD_LETTERS,
        Kind::Counter,
        &["cause"],
        "Records copied to the dead letters, by what the copy's `__dlq.errors.cause` says.",
    ),
    row(
        DEAD_LETTERS_FAILED,
        Kind::Counter,
        &[],
        "Copies that could not be written; each is tried again.",
    ),
    row(
        LEFT_STUCK,
        Kind::Counter,
        &[],
        "Times that a group was left because leases ended and nothing was settled.",
    ),
    row(
        REJOINED,
        Kind::Counter,
        &[],
        "Times that a group was left and joined again because a heartbeat had no answer in time (`consume.group_protocol: consumer`).",
    ),
    row(
        STALE,
        Kind::Counter,
        &[],
        "Settle items whose token was no longer current.",
    ),
    row(
        UNSETTLED,
        Kind::Gauge,
        &[],
        "Records delivered and not yet settled.",
    ),
    row(
        COMMITS,
        Kind::Counter,
        &["result"],
        "Offset commits that ended: ok or error.",
    ),
    row(
        REBALANCES,
        Kind::Counter,
        &["kind"],
        "Rebalance events: assigned, revoked or lost.",
    ),
    row(
        LEAKED,
        Kind::Counter,
        &[],
        "Consumers that did not close in time and were left to themselves.",
    ),
];

pub(super) const fn row(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}
