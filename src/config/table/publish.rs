//! The keys below `publish`.

use super::{
    super::key::{Key, Kind},
    HOUR, KIB, TIB, bytes, count, key, millis,
};

/// As long as librdkafka's own `message.timeout.ms` may be, in whole seconds.
pub(in crate::config) const MAX_DELIVERY_TIMEOUT: u64 = 2_147_483_000;

pub(super) const KEYS: &[Key] = &[
    key(
        "publish.max_wait",
        millis(1, HOUR),
        "30s",
        "How long a unary call, or a batch of a stream, waits for room at most, whatever its deadline.",
    ),
    key(
        "publish.max_record_bytes",
        bytes(1000, 1_000_000_000),
        "1000000",
        "The largest record that is accepted; librdkafka's `message.max.bytes`.",
    ),
    key(
        "publish.topics",
        Kind::Policies,
        "[]",
        "What is different for some topics: whether they may be published to, their largest record, and librdkafka's settings by topic.",
    ),
    key(
        "publish.max_in_flight_records",
        count(1, 5_000_000),
        "100000",
        "How many records may be accepted and not yet reported on by Kafka, all callers together.",
    ),
    key(
        "publish.max_in_flight_bytes",
        bytes(64 * KIB, TIB),
        "64MiB",
        "How many bytes those may hold. At least `publish.max_record_bytes` and `listen.max_message_bytes`.",
    ),
    key(
        "publish.stream_window_records",
        count(1, 5_000_000),
        "50000",
        "How many unanswered records one stream may have. At most `publish.max_in_flight_records`.",
    ),
    key(
        "publish.stream_window_bytes",
        bytes(1000, TIB),
        "32MiB",
        "How many bytes those may hold. At least `publish.max_record_bytes`, at most `publish.max_in_flight_bytes`.",
    ),
    key(
        "publish.stream_grace",
        millis(1, HOUR),
        "30s",
        "How long a stream may stay beyond its window before it is ended.",
    ),
    key(
        "publish.linger",
        millis(0, 900_000),
        "5ms",
        "How long a record waits for others to share its batch; librdkafka's `linger.ms`.",
    ),
    key(
        "publish.compression",
        Kind::Choice(&["none", "gzip", "snappy", "lz4", "zstd"]),
        "none",
        "How batches are compressed; librdkafka's `compression.codec`.",
    ),
    key(
        "publish.delivery_timeout",
        millis(1000, MAX_DELIVERY_TIMEOUT),
        "120s",
        "How long Kafka may take to acknowledge a record, retries included, before its caller is answered `DELIVERY_TIMEOUT`. It is still sent, and \
         keeps its room until Kafka answers. More than `publish.linger`.",
    ),
    key(
        "publish.dedup_window",
        millis(0, 24 * HOUR),
        "10m",
        "How long the answer to a record with a `message_id` is known, from when it was given: a retry is given it again and is not sent. 0s refuses \
         such records.",
    ),
    key(
        "publish.dedup_max_ids",
        count(1, 10_000_000),
        "100000",
        "How many ids are kept, 300 bytes each at most; beyond it the oldest answers are forgotten before their time. Ids in flight are always kept.",
    ),
];
