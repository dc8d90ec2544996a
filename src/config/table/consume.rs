//! The keys below `consume`.

use super::{
    super::key::{Key, Kind},
    HOUR, KIB, TIB, bytes, count, key, millis,
};

/// librdkafka counts what it prefetches in KiB and to this many.
const MAX_PREFETCH: u64 = 2_097_151 * KIB;

pub(super) const KEYS: &[Key] = &[
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
];
