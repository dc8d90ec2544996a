//! The table of keys: every setting there is, with its kind, bounds, default and meaning.
//!
//! Not here: what ties two keys together (`check`). The table is static.
//! What always holds: names are unique, a section's keys stand together, and every default is a value of its key's kind.
//! Bounds without a reason beside them only keep typing mistakes out.

mod kafka;

use std::{sync::LazyLock, time::Duration};

use super::key::{Key, Kind};

const KIB: u64 = bytesize::KIB;
const MIB: u64 = bytesize::MIB;
const TIB: u64 = bytesize::TIB;

const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        default: Some(default),
        meaning,
    }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

const HOUR: u64 = 3_600_000;
/// librdkafka counts what it prefetches in KiB and to this many.
const MAX_PREFETCH: u64 = 2_097_151 * KIB;
/// librdkafka's bounds of `message.timeout.ms` in milliseconds, in whole seconds.
const MAX_DELIVERY_TIMEOUT: u64 = 2_147_483_000;

/// Every key, a section's together.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| [kafka::KEYS, SIDECAR].concat());

/// All but what is below `kafka`.
const SIDECAR: &[Key] = &[
    key(
        "listen.tcp",
        Kind::Address,
        "127.0.0.1:7420",
        "Where gRPC is served. Port 0 lets the system choose. An address that others can reach needs `listen.tls` and one of `listen.tls.client_ca_file` and `listen.tokens_file`.",
    ),
    key(
        "listen.unix",
        Kind::Path,
        "",
        "The Unix socket on which gRPC is served.",
    ),
    key(
        "listen.unix_mode",
        Kind::Mode,
        "0660",
        "The permissions of that socket, in octal digits.",
    ),
    key(
        "listen.tokens_file",
        Kind::File,
        "",
        "The bearer tokens of callers over TCP, a line each: a name, a blank, the token. A new file is used from the next call on.",
    ),
    key(
        "listen.max_connections",
        count(1, 100_000),
        "1000",
        "How many connections may be open at once.",
    ),
    key(
        "listen.max_streams",
        count(1, 100_000),
        "1000",
        "How many streams may be open at once.",
    ),
    key(
        "listen.max_message_bytes",
        bytes(64 * KIB, 128 * MIB),
        "8MiB",
        "The largest gRPC message that is accepted.",
    ),
    key(
        "listen.tls.certificate_file",
        Kind::File,
        "",
        "PEM: the certificate of the TCP listener, with its chain; it turns TLS on. A new one is used from the next connection on.",
    ),
    key(
        "listen.tls.key_file",
        Kind::File,
        "",
        "PEM: the private key of that certificate.",
    ),
    key(
        "listen.tls.client_ca_file",
        Kind::File,
        "",
        "PEM: the authorities of callers' certificates (mTLS). Callers need a certificate then, or a token if `listen.tokens_file` is set too.",
    ),
    key(
        "admin.listen",
        Kind::Address,
        "0.0.0.0:7421",
        "Where probes and metrics are served, read-only, over HTTP. Port 0 lets the system choose.",
    ),
    key(
        "access.rules",
        Kind::Rules,
        "[]",
        "Who may do what. Without a rule all is allowed; with any, only what a rule allows.",
    ),
    key(
        "metrics.statistics_interval",
        millis(0, HOUR),
        "5s",
        "How often librdkafka's own statistics are taken over: broker connections, queues, round trips, lag. 0s for never.",
    ),
    key(
        "metrics.max_topics",
        count(1, 100_000),
        "200",
        "How many topics have series of their own; further ones share the label `_OTHER`.",
    ),
    key(
        "metrics.max_groups",
        count(1, 100_000),
        "50",
        "The same for consumer groups.",
    ),
    key(
        "metrics.max_partitions",
        count(1, 1_000_000),
        "1000",
        "How many partitions have a lag of their own; further ones share the label `_OTHER`.",
    ),
    key(
        "metrics.partition_label",
        Kind::Bool,
        "true",
        "Whether lag is told by partition, or only by group and topic.",
    ),
    key(
        "metrics.aliases",
        Kind::Bool,
        "false",
        "Whether the series of other exporters that dashboards ask for are told too: `grpc_server_*`, `kafka_consumergroup_*`.",
    ),
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
        "publish.max_in_flight_records",
        count(1, 5_000_000),
        "100000",
        "How many records may be accepted and not yet answered, all callers together.",
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
        "How long Kafka may take to acknowledge a record, retries included; librdkafka's `message.timeout.ms`. \
         More than `publish.linger`.",
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
    key(
        "consume.window_records",
        count(1, 10_000_000),
        "1000",
        "How many records a subscriber that asks for no window may hold unsettled. At most `consume.max_window_records`.",
    ),
    key(
        "consume.window_bytes",
        bytes(KIB, TIB),
        "8MiB",
        "How many bytes those may hold. At most `consume.max_window_bytes`.",
    ),
    key(
        "consume.max_window_records",
        count(1, 10_000_000),
        "100000",
        "The largest window of records that a subscriber is granted.",
    ),
    key(
        "consume.max_window_bytes",
        bytes(KIB, TIB),
        "64MiB",
        "The largest window of bytes that a subscriber is granted.",
    ),
    key(
        "consume.commit_interval",
        millis(10, HOUR),
        "200ms",
        "How often what was settled is committed to Kafka.",
    ),
    key(
        "consume.commit_metadata",
        count(0, 32_767),
        "4096",
        "How many characters a commit may use for what is settled above its offset, so that it is not delivered again after a restart. \
         At most the brokers' `offset.metadata.max.bytes`; 0 for none.",
    ),
    key(
        "consume.max_bytes",
        bytes(64 * KIB, TIB),
        "64MiB",
        "How many bytes of records all subscriptions together may hold, read and not settled; beyond it nothing more is read. What is fetched ahead \
         (`consume.prefetch_bytes`) comes on top.",
    ),
    key(
        "consume.max_span_records",
        count(100, 10_000_000),
        "20000",
        "How many records of a partition are kept at most, from the first that is not settled on, settled ones included: one record that \
         nobody settles holds the partition up when so many have come after it.",
    ),
    key(
        "consume.max_parked_records",
        count(1, 1_000_000),
        "1000",
        "How many records of a partition may wait for another attempt before no more of it are read. They count against no window.",
    ),
    key(
        "consume.look_ahead_bytes",
        bytes(64 * KIB, TIB),
        "2MiB",
        "How much of a partition may be read and not yet delivered, in search of records whose keys are free and whose streams have room.",
    ),
    key(
        "consume.stuck_leave",
        millis(0, 24 * HOUR),
        "120s",
        "How long subscribers may let leases end and settle nothing before the sidecar leaves their group, so that others get its partitions; it \
         joins again at the first sign of life. 0 for never.",
    ),
    key(
        "consume.stall_after",
        millis(1000, 24 * HOUR),
        "30s",
        "How long nothing may be delivered of a partition, although records wait and a subscriber has room, before the log and \
         `outrigger_subscribe_stalled_partitions` say so, and why.",
    ),
    key(
        "consume.read_grace",
        millis(1000, HOUR),
        "60s",
        "How long a subscriber may read nothing of what was sent to it and say nothing, before its stream is ended.",
    ),
    key(
        "consume.max_lease",
        millis(5000, 24 * HOUR),
        "3600s",
        "How long a delivered record may stay unsettled at most, however often its lease is prolonged.",
    ),
    key(
        "consume.revoke_drain",
        millis(1, HOUR),
        "10s",
        "How long a partition that another member shall have is kept while its records are being settled. \
         Less than `consume.session_timeout`.",
    ),
    key(
        "consume.session_timeout",
        millis(1000, HOUR),
        "45s",
        "How long brokers wait for a heartbeat before they give this member's partitions away; librdkafka's `session.timeout.ms`.",
    ),
    key(
        "consume.heartbeat_interval",
        millis(10, HOUR / 3),
        "3s",
        "How often heartbeats are sent; librdkafka's `heartbeat.interval.ms`. At most a third of `consume.session_timeout`.",
    ),
    key(
        "consume.group_protocol",
        Kind::Choice(&["classic", "consumer"]),
        "classic",
        "How the members of a group agree; librdkafka's `group.protocol`. With `consumer` (KIP-848, Kafka 4.0) brokers assign the partitions and set the times: \
         `group.consumer.session.timeout.ms`, `group.consumer.heartbeat.interval.ms`. Then `consume.session_timeout` and `consume.heartbeat_interval` may not be set.",
    ),
    key(
        "consume.instance_id",
        Kind::Id,
        "",
        "Makes this sidecar a static member (KIP-345), so that its partitions wait for it over a restart within the session timeout, also when it stops in order; \
         librdkafka's `group.instance.id`. Its own for each sidecar, and the same after a restart, such as the name of a StatefulSet's pod.",
    ),
    key(
        "consume.idle_leave",
        millis(1, HOUR),
        "10s",
        "How long a subscription without streams stays in its group, so that one who reconnects finds its partitions. With `consume.instance_id` nobody else has them before the session timeout.",
    ),
    key(
        "consume.max_subscriptions",
        count(1, 10_000),
        "64",
        "How many groups may be subscribed at once; each has a consumer and a thread.",
    ),
    key(
        "consume.prefetch_bytes",
        bytes(64 * KIB, MAX_PREFETCH),
        "1MiB",
        "How much is fetched ahead of delivery, for each partition.",
    ),
    key(
        "consume.isolation",
        Kind::Choice(&["read_committed", "read_uncommitted"]),
        "read_committed",
        "Whether records of open and aborted transactions are withheld or delivered; librdkafka's `isolation.level`.",
    ),
    key(
        "drain.deadline",
        millis(1, HOUR),
        "25s",
        "How long stopping may take. Less than the pod's `terminationGracePeriodSeconds`.",
    ),
    key(
        "log.format",
        Kind::Choice(&["json", "text"]),
        "json",
        "The shape of a log line.",
    ),
    key(
        "log.level",
        Kind::Text,
        "info",
        "What is logged: a level, or directives such as `info,outrigger::kafka=debug`.",
    ),
];
