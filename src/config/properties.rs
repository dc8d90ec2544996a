//! Which librdkafka properties `kafka.properties` may set, and which of them are secrets.
//!
//! Not here: whether librdkafka knows a property or takes its value (`kafka` asks librdkafka itself). The tables are static and own nothing.
//! What always holds: a property that a guarantee of Outrigger rests on, or that a key of our own sets, is refused by name with the
//! reason, in every spelling that would reach it: librdkafka's aliases, its `topic.` prefix, and the environment's dots for underscores.
//! Names and aliases: librdkafka 2.12.1, CONFIGURATION.md and `rdkafka_conf.c`.

/// Set by a key of our own.
const OURS: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "kafka.allow_auto_create_topics"),
    ("bootstrap.servers", "kafka.bootstrap_servers"),
    ("client.id", "kafka.client_id"),
    ("compression.codec", "publish.compression"),
    ("compression.type", "publish.compression"),
    ("delivery.timeout.ms", "publish.delivery_timeout"),
    ("group.instance.id", "consume.instance_id"),
    ("group.protocol", "consume.group_protocol"),
    ("heartbeat.interval.ms", "consume.heartbeat_interval"),
    ("isolation.level", "consume.isolation"),
    ("linger.ms", "publish.linger"),
    ("log_level", "log.level"),
    ("message.max.bytes", "publish.max_record_bytes"),
    ("message.timeout.ms", "publish.delivery_timeout"),
    ("metadata.broker.list", "kafka.bootstrap_servers"),
    ("queue.buffering.max.kbytes", "publish.max_in_flight_bytes"),
    (
        "queue.buffering.max.messages",
        "publish.max_in_flight_records",
    ),
    ("queue.buffering.max.ms", "publish.linger"),
    ("queued.max.messages.kbytes", "consume.prefetch_bytes"),
    ("sasl.mechanism", "kafka.sasl.mechanism"),
    ("sasl.mechanisms", "kafka.sasl.mechanism"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "kafka.sasl.oauth.client_id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "kafka.sasl.oauth.client_secret_file",
    ),
    ("sasl.oauthbearer.client.id", "kafka.sasl.oauth.client_id"),
    (
        "sasl.oauthbearer.client.secret",
        "kafka.sasl.oauth.client_secret_file",
    ),
    ("sasl.oauthbearer.config", "kafka.sasl.oauth.token_endpoint"),
    ("sasl.oauthbearer.extensions", "kafka.sasl.oauth.extensions"),
    ("sasl.oauthbearer.method", "kafka.sasl.oauth.token_endpoint"),
    ("sasl.oauthbearer.scope", "kafka.sasl.oauth.scope"),
    (
        "sasl.oauthbearer.token.endpoint.url",
        "kafka.sasl.oauth.token_endpoint",
    ),
    ("sasl.password", "kafka.sasl.password_file"),
    ("sasl.username", "kafka.sasl.username"),
    ("security.protocol", "kafka.tls.enabled"),
    ("session.timeout.ms", "consume.session_timeout"),
    ("ssl.ca.location", "kafka.tls.ca_file"),
    ("ssl.certificate.location", "kafka.tls.certificate_file"),
    ("ssl.key.location", "kafka.tls.key_file"),
    ("ssl.key.password", "kafka.tls.key_password_file"),
    ("ssl.keystore.location", "kafka.tls.certificate_file"),
    ("ssl.keystore.password", "kafka.tls.key_password_file"),
    ("statistics.interval.ms", "metrics.statistics_interval"),
];

const IDEMPOTENCE: &str = "publishing is always idempotent and waits for all in-sync replicas: that is what keeps order and avoids duplicates";
const PARTITIONS: &str = "keys go to the partitions where Java's default partitioner puts them";
const GROUPS: &str = "Outrigger manages group membership and hands partitions back itself";
const COMMITS: &str = "Outrigger commits what was settled, and nothing else may";
const START: &str =
    "a subscriber says where to start, and what is still in the log is never skipped";
const REPORTS: &str = "Outrigger needs a report for every record";
const EVENTS: &str = "Outrigger follows its partitions by itself and would take the event for data";
const PREFETCH: &str = "consume.prefetch_bytes bounds what is fetched ahead";
const UNKNOWN_TOPIC: &str =
    "Outrigger sets it, so that an unknown topic is answered in about 5 seconds";
const LOADS_CODE: &str = "it loads code into the sidecar or runs a command in it";
const MOCK: &str = "an embedded broker is what `outrigger dev` is for";
const VERIFICATION: &str = "a broker's certificate and host name are always verified; give your own CA in kafka.tls.ca_file";
const VERIFIED_TOKENS: &str = "a token that anyone could make proves nothing";
const LOGGING: &str = "Outrigger takes librdkafka's log into its own; use log.level";
const TRANSACTIONS: &str = "this release does not publish in transactions";
const CODE_ONLY: &str = "it is set from code, not from text";

/// Refused, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("acks", IDEMPOTENCE),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("auto.offset.reset", START),
    ("default_topic_conf", CODE_ONLY),
    ("delivery.report.only.error", REPORTS),
    ("enable.auto.commit", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("enable.gapless.guarantee", IDEMPOTENCE),
    ("enable.idempotence", IDEMPOTENCE),
    ("enable.partition.eof", EVENTS),
    ("enable.sasl.oauthbearer.unsecure.jwt", VERIFIED_TOKENS),
    ("enable.ssl.certificate.verification", VERIFICATION),
    ("enabled_events", CODE_ONLY),
    ("group.id", "a subscriber names its group"),
    ("group.protocol.type", GROUPS),
    ("group.remote.assignor", GROUPS),
    ("interceptors", CODE_ONLY),
    ("log.queue", LOGGING),
    ("max.in.flight", IDEMPOTENCE),
    ("max.in.flight.requests.per.connection", IDEMPOTENCE),
    ("max.poll.interval.ms", GROUPS),
    ("message.send.max.retries", IDEMPOTENCE),
    ("msg_order_cmp", CODE_ONLY),
    ("offset.store.method", COMMITS),
    ("offset.store.path", COMMITS),
    ("offset.store.sync.interval.ms", COMMITS),
    ("opaque", CODE_ONLY),
    ("partition.assignment.strategy", GROUPS),
    ("partitioner", PARTITIONS),
    ("plugin.library.paths", LOADS_CODE),
    ("queued.min.messages", PREFETCH),
    ("queuing.strategy", IDEMPOTENCE),
    ("request.required.acks", IDEMPOTENCE),
    ("retries", IDEMPOTENCE),
    ("sasl.kerberos.kinit.cmd", LOADS_CODE),
    ("ssl.engine.location", LOADS_CODE),
    ("ssl_ca", CODE_ONLY),
    ("ssl_certificate", CODE_ONLY),
    ("ssl_engine_callback_data", CODE_ONLY),
    ("ssl_key", CODE_ONLY),
    ("test.mock.broker.rtt", MOCK),
    ("test.mock.num.brokers", MOCK),
    ("topic.metadata.propagation.max.ms", UNKNOWN_TOPIC),
    ("transactional.id", TRANSACTIONS),
    ("ut_handle_ProduceResponse", CODE_ONLY),
];

/// The properties with a second name of which both may pass. librdkafka takes whichever is set last, which would not be ours to say.
const ALIASES: &[(&str, &str)] = &[("max.partition.fetch.bytes", "fetch.message.max.bytes")];

/// What may be shown of `sasl.*`: the rest, misspelt names included, is hidden.
const PUBLIC_SASL: &[&str] = &[
    "sasl.kerberos.",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.username",
];

/// Why `kafka.properties` may not set `name` to `value`, if it may not: the end of a sentence that begins with the name.
pub(super) fn refusal(name: &str, value: &str) -> Option<String> {
    let spelt = normal(name);
    // librdkafka drops this prefix from a topic property's name.
    let short = spelt.strip_prefix("topic.").unwrap_or(&spelt);
    let is = |refused: &str| {
        let refused = normal(refused);
        refused == spelt || refused == short
    };

    if let Some((_, key)) = OURS.iter().find(|(refused, _)| is(refused)) {
        return Some(format!("is not set here: use {key}"));
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| is(refused)) {
        return Some(format!("is not for you to set: {reason}"));
    }
    if short.ends_with(".cb") {
        return Some(format!("is not for you to set: {CODE_ONLY}"));
    }
    if is("ssl.endpoint.identification.algorithm") && !value.trim().eq_ignore_ascii_case("https") {
        return Some(format!("can only be https: {VERIFICATION}"));
    }
    None
}

/// Every name that is refused whatever its value.
#[cfg(test)]
pub(super) fn refused() -> impl Iterator<Item = &'static str> {
    OURS.iter().chain(REFUSED).map(|(name, _)| *name)
}

/// The other name of the same property.
pub(super) fn alias(name: &str) -> Option<&'static str> {
    let (_, other) = ALIASES.iter().find(|(alias, _)| *alias == name)?;
    Some(other)
}

/// Whether the value of `name` is a secret. In doubt it is: a name that is not known may be a misspelt one.
pub(super) fn is_sensitive(name: &str) -> bool {
    let name = normal(name);
    let names_a_file = name.ends_with(".location") || name.ends_with(".file");
    let is_public_sasl = PUBLIC_SASL
        .iter()
        .any(|public| *public == name || public.ends_with('.') && name.starts_with(public));

    ["pass", "secret", "jaas"]
        .iter()
        .any(|word| name.contains(word))
        || name.contains("key") && !names_a_file
        || name.starts_with("sasl") && !is_public_sasl
}

/// The spelling under which names are compared.
fn normal(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', ".")
}
