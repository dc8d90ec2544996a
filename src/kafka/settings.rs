//! From the checked configuration to librdkafka's properties.
//!
//! Pure. The user's `kafka.properties` come first and ours last; `config` has refused by name those that ours rest on, so neither
//! silently replaces the other. Property names and defaults: librdkafka 2.12.1, CONFIGURATION.md.

use std::{cmp::max, time::Duration};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::config::{Config, Consume, GroupProtocol, Kafka, MAX_POLL_INTERVAL, Metrics, Publish};

/// How long an unknown topic may still turn out to exist (`topic.metadata.propagation.max.ms`): it is answered after this.
/// librdkafka's own 30 s keeps a caller waiting for a typing mistake.
pub(super) const TOPIC_PROPAGATION: Duration = Duration::from_secs(5);

/// What a batch of one record adds to its key, value and headers, at most.
const ENVELOPE: usize = 4096;

/// The longest wait between two attempts to connect: an outage ends at most this late for us.
const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The properties of the producer.
pub fn producer(config: &Config) -> ClientConfig {
    let Publish {
        max_record_bytes,
        max_in_flight_records,
        max_in_flight_bytes,
        linger,
        compression,
        ..
    } = &config.publish;
    let mut client = base(&config.kafka);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        // Where Java's default partitioner puts keys; plain `murmur2` would put every null key on one partition.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", format!("{}", linger.as_secs_f64() * 1000.0))
        .set("compression.codec", compression.as_str())
        // Never: librdkafka would go on under a new epoch, in which brokers do not know again what it sends once more. Callers are answered in
        // time all the same (`producer/late`).
        .set("message.timeout.ms", "0")
        // librdkafka counts the record's own envelope too; brokers allow 1,048,588 bytes by default.
        .set(
            "message.max.bytes",
            (max_record_bytes + ENVELOPE).min(1_000_000_000).to_string(),
        )
        .set(
            "topic.metadata.propagation.max.ms",
            millis(TOPIC_PROPAGATION),
        )
        // Only a backstop, well above our own accounting: a record stays counted inside until its report is freed.
        .set(
            "queue.buffering.max.messages",
            (max_in_flight_records * 2).min(10_000_000).to_string(),
        )
        .set(
            "queue.buffering.max.kbytes",
            (max_in_flight_bytes / 1024 * 2)
                .clamp(1024, 2_147_483_647)
                .to_string(),
        );
    client
}

/// What is different for one topic of a producer: librdkafka's topic properties.
pub fn topic(config: &Publish, name: &str) -> Vec<(&'static str, String)> {
    let Some(policy) = config.topics.of(name) else {
        return Vec::new();
    };
    let own = [
        (
            "compression.codec",
            policy.compression.map(|codec| codec.as_str().to_owned()),
        ),
        (
            "compression.level",
            policy.compression_level.map(|level| level.to_string()),
        ),
        ("request.timeout.ms", policy.request_timeout.map(millis)),
        ("partitioner", policy.partitioner.map(str::to_owned)),
    ];
    let own = own.into_iter();
    own.filter_map(|(property, value)| Some((property, value?)))
        .collect()
}

/// The properties of a group's consumer.
pub fn consumer(config: &Config, group: &str) -> ClientConfig {
    let Consume {
        session_timeout,
        heartbeat_interval,
        group_protocol,
        instance_id,
        prefetch_bytes,
        isolation,
        ..
    } = &config.consume;
    let mut client = base(&config.kafka);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Only reached when a committed offset is no longer in the log: what is still there is not skipped.
        .set("auto.offset.reset", "earliest")
        .set("group.protocol", group_protocol.as_str())
        // A revoke is drained long before.
        .set(
            "max.poll.interval.ms",
            millis(max(MAX_POLL_INTERVAL, *session_timeout)),
        )
        .set("isolation.level", isolation.as_str())
        // Both count per partition, since every partition's queue is split.
        .set(
            "queued.max.messages.kbytes",
            max(1, prefetch_bytes / 1024).to_string(),
        )
        .set("queued.min.messages", "10000");
    if let Some(id) = instance_id {
        client.set("group.instance.id", id);
    }
    // Refused by librdkafka with the other protocol: there the brokers decide.
    if *group_protocol == GroupProtocol::Classic {
        client
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(*session_timeout))
            .set("heartbeat.interval.ms", millis(*heartbeat_interval));
    }
    client
}

/// The properties of a client that asks and changes nothing, and begins at `broker`.
pub fn asking(kafka: &Kafka, broker: &str) -> ClientConfig {
    let mut client = base(kafka);
    client
        .set("bootstrap.servers", broker)
        // Asking for a topic never makes it.
        .set("allow.auto.create.topics", "false");
    client
}

/// Makes a client tell its statistics; its context must take them.
pub fn with_statistics(mut client: ClientConfig, metrics: &Metrics) -> ClientConfig {
    client.set(
        "statistics.interval.ms",
        millis(metrics.statistics_interval),
    );
    client
}

/// What librdkafka says against a value of `kafka.properties`, by name.
pub fn problems(kafka: &Kafka) -> Vec<(String, String)> {
    kafka
        .properties
        .iter()
        .filter_map(|(name, value)| {
            let mut alone = ClientConfig::new();
            alone.set(name, value.expose());
            let error = alone.create_native_config().err()?;
            Some((name.clone(), describe(&error)))
        })
        .collect()
}

fn describe(error: &rdkafka::error::KafkaError) -> String {
    match error {
        // The description quotes the value, which may be a secret.
        rdkafka::error::KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
            ..,
        ) => "librdkafka has no such property".to_owned(),
        _ => "librdkafka does not accept this value".to_owned(),
    }
}

fn base(kafka: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    // First what the user may change. Once a partition's queue is full it is looked at again after the back-off, by default a second. A
    // broker has one fetch at a time: one that only asks for partitions at their end, because the others' queues were full, holds those
    // others up for the whole wait, by default half a second (measured: more than half of the throughput with six partitions).
    // What is logged is the log's own filter to decide; librdkafka writes debug lines only with `debug` set.
    client.set_log_level(RDKafkaLogLevel::Debug);
    client
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", millis(RECONNECT_BACKOFF_MAX));
    for (name, value) in &kafka.properties {
        client.set(name, value.expose());
    }
    client
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", &kafka.client_id)
        .set(
            "allow.auto.create.topics",
            kafka.allow_auto_create_topics.to_string(),
        );
    client
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
