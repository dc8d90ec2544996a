//! The table of keys: every setting there is, with its kind, bounds, default and meaning.
//!
//! Not here: what ties two keys together (`check`). The table is static.
//! What always holds: names are unique, a section's keys stand together, and every default is a value of its key's kind.
//! Bounds without a reason beside them only keep typing mistakes out.

mod consume;
mod kafka;
mod publish;

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

pub(super) use publish::MAX_DELIVERY_TIMEOUT;

/// Every key, a section's together.
pub(super) static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| [kafka::KEYS, DOORS, publish::KEYS, consume::KEYS, LAST].concat());

/// The listeners, who may come in, and what is told of it all.
const DOORS: &[Key] = &[
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
];

/// How it ends, and its log.
const LAST: &[Key] = &[
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
