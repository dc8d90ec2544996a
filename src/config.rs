//! The configuration: what a running Outrigger may rely on.
//!
//! [`load`] lays defaults, the YAML file, the environment and the flags over one another, tries every key of [`keys`] on its own,
//! and answers with the checked tree, or with every [`Problem`] there is.
//! Not here: reading command lines (`cli`), librdkafka's own settings made from the tree (`kafka`), the check of `log.level` (`telemetry`).
//! Nobody owns state: a [`Config`] is a value that the composition root loads once and hands out.
//! What always holds of a loaded [`Config`]: every value is within its key's bounds and fits the keys it is tied to; no property on
//! which a guarantee rests is among `kafka.properties`; no secret is in what `Debug`, [`Loaded::show`] or a [`Problem`] prints.

mod check;
mod doors;
mod groups;
mod key;
mod layers;
mod pattern;
mod policies;
mod problem;
mod properties;
mod rules;
mod secret;
mod security;
mod show;
mod table;
mod value;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    groups::MAX_POLL_INTERVAL,
    key::{Key, Kind, keys},
    layers::{DEFAULT_FILE, FILE_VARIABLE, Sources},
    pattern::{matches, matches_any},
    policies::{TopicPolicies, TopicPolicy},
    problem::{Problem, Problems},
    rules::{Operation, Rule},
    secret::{PropertyValue, Secret},
    security::{Identity, Sasl, Tls, TokenSource, Value as SecretValue},
    show::{Loaded, markdown_table},
};

/// The checked tree. What each field means, with its unit, default and bounds, is in [`keys`] under the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster.
    pub kafka: Kafka,
    /// gRPC.
    pub listen: Listen,
    /// Probes and metrics.
    pub admin: Admin,
    /// Who may do what; empty: everybody everything.
    pub access: Vec<Rule>,
    /// What is told of all this.
    pub metrics: Metrics,
    /// Publishing.
    pub publish: Publish,
    /// Subscribing.
    pub consume: Consume,
    /// Stopping.
    pub drain: Drain,
    /// The log.
    pub log: Log,
}

/// The Kafka cluster and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, separated by commas, without blanks.
    pub bootstrap_servers: String,
    /// What brokers call this client.
    pub client_id: String,
    /// Whether a use may create a topic.
    pub allow_auto_create_topics: bool,
    /// Absent: brokers are reached in the clear.
    pub tls: Option<Tls>,
    /// Absent: this client does not log in.
    pub sasl: Option<Sasl>,
    /// By librdkafka's name of each; none of those that Outrigger sets itself.
    pub properties: BTreeMap<String, PropertyValue>,
}

/// The gRPC listeners; at least one is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Loopback, or with TLS and authentication; port 0 lets the system choose.
    pub tcp: Option<SocketAddr>,
    /// An absolute path.
    pub unix: Option<PathBuf>,
    /// The permissions of that socket.
    pub unix_mode: u32,
    /// For TCP.
    pub tls: Option<ListenTls>,
    /// The bearer tokens of callers over TCP.
    pub tokens_file: Option<PathBuf>,
    /// Connections open at once.
    pub max_connections: usize,
    /// Streams open at once.
    pub max_streams: usize,
    /// The largest gRPC message accepted.
    pub max_message_bytes: usize,
}

/// TLS of the TCP listener, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// The certificate and its chain.
    pub certificate_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// The authorities of callers' certificates.
    pub client_ca_file: Option<PathBuf>,
}

/// The read-only HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
}

/// What the metrics tell, and how many series they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Between librdkafka's statistics; zero for none.
    pub statistics_interval: Duration,
    /// Topics with series of their own.
    pub max_topics: usize,
    /// Groups with series of their own.
    pub max_groups: usize,
    /// Partitions with a lag of their own.
    pub max_partitions: usize,
    /// Whether lag is told by partition.
    pub partition_label: bool,
    /// Whether the series of other exporters are told too.
    pub aliases: bool,
}

/// Publishing: how much may be under way, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The longest wait of a unary call for room.
    pub max_wait: Duration,
    /// The largest record accepted.
    pub max_record_bytes: usize,
    /// What is different for some topics.
    pub topics: TopicPolicies,
    /// Records accepted and not yet answered.
    pub max_in_flight_records: usize,
    /// Bytes of those; at least a record and a message.
    pub max_in_flight_bytes: usize,
    /// Unanswered records of one stream.
    pub stream_window_records: usize,
    /// Bytes of those.
    pub stream_window_bytes: usize,
    /// How long a stream may stay beyond its window.
    pub stream_grace: Duration,
    /// How long a record waits for company; may be zero.
    pub linger: Duration,
    /// Of the batches sent to Kafka.
    pub compression: Compression,
    /// How long Kafka may take to acknowledge a record, retries included; longer than the linger.
    pub delivery_timeout: Duration,
    /// How long the answer to a message id is known; zero: ids are refused.
    pub dedup_window: Duration,
    /// Message ids kept.
    pub dedup_max_ids: usize,
}

impl Publish {
    /// How long Kafka may take to acknowledge a record of `topic`.
    pub fn delivery_timeout_of(&self, topic: &str) -> Duration {
        let own = self.topics.of(topic);
        let own = own.and_then(|policy| policy.delivery_timeout);
        own.unwrap_or(self.delivery_timeout)
    }

    /// The least that any topic's record is given.
    pub fn shortest_delivery_timeout(&self) -> Duration {
        let own = self.topics.shortest_delivery_timeout();
        own.map_or(self.delivery_timeout, |own| own.min(self.delivery_timeout))
    }
}

/// Subscribing: windows, and the part Outrigger plays in consumer groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    /// The window of a subscriber that asks for none.
    pub window_records: u64,
    /// The same, in bytes.
    pub window_bytes: u64,
    /// The largest window granted.
    pub max_window_records: u64,
    /// The same, in bytes.
    pub max_window_bytes: u64,
    /// Between commits of what was settled.
    pub commit_interval: Duration,
    /// How many characters of a commit may say what is settled above its offset.
    pub commit_metadata: usize,
    /// What records that are read and not settled may take, of all subscriptions together.
    pub max_bytes: u64,
    /// How many records of a partition are kept, from the first that is not settled on.
    pub max_span_records: usize,
    /// How many of a partition may wait for another attempt.
    pub max_parked_records: usize,
    /// How much of a partition may be read beyond what can be delivered.
    pub look_ahead_bytes: u64,
    /// How long leases may end and nothing be settled before the group is left; zero for ever.
    pub stuck_leave: Duration,
    /// How long nothing may be delivered of a partition where something waits before it is told.
    pub stall_after: Duration,
    /// How long the caller of a stream may neither read nor say anything.
    pub read_grace: Duration,
    /// The longest lease, with all that prolongs it.
    pub max_lease: Duration,
    /// How long a revoked partition is kept to be settled; shorter than the session timeout.
    pub revoke_drain: Duration,
    /// Without a heartbeat for this long, a member is out of its group.
    pub session_timeout: Duration,
    /// Between heartbeats; at most a third of the session timeout.
    pub heartbeat_interval: Duration,
    /// Who decides in a group; with [`GroupProtocol::Consumer`] the two before are the brokers'.
    pub group_protocol: GroupProtocol,
    /// By which groups know this sidecar again after a restart.
    pub instance_id: Option<String>,
    /// How long a subscription without streams stays in its group.
    pub idle_leave: Duration,
    /// Groups subscribed at once.
    pub max_subscriptions: usize,
    /// Fetched ahead of delivery, for each partition.
    pub prefetch_bytes: usize,
    /// Which records of transactions are delivered.
    pub isolation: Isolation,
}

/// Stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The longest a stop may take.
    pub deadline: Duration,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// Directives of tracing-subscriber's `EnvFilter`, not yet parsed.
    pub level: String,
}

/// How record batches are compressed on their way to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every codec there is.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The value of librdkafka's `compression.codec`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How the members of a group agree on who has which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Among themselves: all meet, and one of them assigns.
    Classic,
    /// The brokers assign, and each member follows by itself (KIP-848).
    Consumer,
}

impl GroupProtocol {
    /// Every protocol there is.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Consumer];

    /// The value of librdkafka's `group.protocol`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// Whether records of open and aborted transactions are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only records of committed transactions, and those outside of any.
    ReadCommitted,
    /// All records, those of aborted transactions too.
    ReadUncommitted,
}

impl Isolation {
    /// Every level there is.
    pub const ALL: [Self; 2] = [Self::ReadCommitted, Self::ReadUncommitted];

    /// The value of librdkafka's `isolation.level`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Text,
}

impl LogFormat {
    /// Every format there is.
    pub const ALL: [Self; 2] = [Self::Json, Self::Text];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// The configuration that `sources` make together.
///
/// # Errors
///
/// Every problem there is, sorted by key. After a file that cannot be read or parsed, only what is certain without it is reported:
/// a value that may be in that file is not called missing.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    load_with_default_file(sources, Path::new(DEFAULT_FILE))
}

fn load_with_default_file(sources: &Sources, default_file: &Path) -> Result<Loaded, Problems> {
    let layers = layers::gather(sources, default_file);
    check::check(layers)
}
