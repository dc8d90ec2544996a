//! What is different for some topics (`publish.topics`): how policies are written, and which one is a topic's.
//!
//! Not here: what comes of one (`publish/validate`, `kafka/settings`). Pure; nobody owns state.
//! What always holds: the first policy that names a topic is its only one, an unknown field is refused, and a setting that librdkafka has for
//! all topics alone is refused with the key that sets it.

use std::time::Duration;

use super::{
    Compression,
    check::Checked,
    key::Kind,
    pattern::matches_any,
    problem::Problem,
    rules::words,
    table::MAX_DELIVERY_TIMEOUT,
    value::{self, Parsed, Raw, bytes_text, duration_text, quoted},
};

/// What is different for the topics that it names. What is absent is as for all topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct TopicPolicy {
    /// Which; `*` stands for any text.
    pub topics: Vec<String>,
    /// Whether callers may publish to them.
    pub allow: bool,
    /// The largest record accepted; at most `publish.max_record_bytes`.
    pub max_record_bytes: Option<usize>,
    /// Of their batches.
    pub compression: Option<Compression>,
    /// As the codec counts.
    pub compression_level: Option<u64>,
    /// How long Kafka may take to acknowledge a record, retries included; longer than `publish.linger`.
    pub delivery_timeout: Option<Duration>,
    /// How long a broker may wait for its in-sync replicas.
    pub request_timeout: Option<Duration>,
    /// Where keys go, by librdkafka's name.
    pub partitioner: Option<&'static str>,
}

/// All policies, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd)]
pub struct TopicPolicies(Vec<TopicPolicy>);

impl TopicPolicies {
    /// The policy of a topic: the first that names it.
    pub fn of(&self, topic: &str) -> Option<&TopicPolicy> {
        let names = |policy: &&TopicPolicy| matches_any(&policy.topics, topic);
        self.0.iter().find(names)
    }

    /// The shortest delivery timeout that some topic has of its own.
    pub(super) fn shortest_delivery_timeout(&self) -> Option<Duration> {
        let own = self.0.iter();
        own.filter_map(|policy| policy.delivery_timeout).min()
    }
}

const ALLOW: &str = "allow";
const MAX_RECORD_BYTES: &str = "max_record_bytes";
const COMPRESSION: &str = "compression";
const COMPRESSION_LEVEL: &str = "compression_level";
const DELIVERY_TIMEOUT: &str = "delivery_timeout";
const REQUEST_TIMEOUT: &str = "request_timeout";
const PARTITIONER: &str = "partitioner";

/// The fields beside `topics`, with what their values are.
const FIELDS: [(&str, Kind); 7] = [
    (ALLOW, Kind::Bool),
    (
        MAX_RECORD_BYTES,
        Kind::Bytes {
            min: 1,
            max: 1_000_000_000,
        },
    ),
    (
        COMPRESSION,
        Kind::Choice(&["none", "gzip", "snappy", "lz4", "zstd"]),
    ),
    (COMPRESSION_LEVEL, Kind::Count { min: 0, max: 12 }),
    (
        DELIVERY_TIMEOUT,
        Kind::Duration {
            min: Duration::from_secs(1),
            max: Duration::from_millis(MAX_DELIVERY_TIMEOUT),
        },
    ),
    (
        REQUEST_TIMEOUT,
        Kind::Duration {
            min: Duration::from_millis(1),
            max: Duration::from_secs(900),
        },
    ),
    (
        PARTITIONER,
        Kind::Choice(&[
            "murmur2_random",
            "consistent_random",
            "fnv1a_random",
            "random",
        ]),
    ),
];

/// What librdkafka has once for a producer, whatever the topic, and what sets it.
const OF_ALL_TOPICS: [(&str, &str); 5] = [
    ("acks", "it is always all"),
    ("batch_size", "set kafka.properties.batch.size"),
    ("linger", "set publish.linger"),
    ("max_in_flight_bytes", "set publish.max_in_flight_bytes"),
    ("max_in_flight_records", "set publish.max_in_flight_records"),
];

pub(super) fn parse(raw: &Raw) -> Result<TopicPolicies, String> {
    let policies = match raw {
        Raw::List(policies) => policies.iter().enumerate().map(|(index, raw)| {
            policy(raw).map_err(|problem| format!("policy {}: {problem}", index + 1))
        }),
        Raw::Text(text) if text.trim() == "[]" => return Ok(TopicPolicies::default()),
        _ => {
            return Err(format!(
                "{} is not a list of policies, such as [{{topics: [\"audit.*\"], compression: zstd}}]",
                raw.sort()
            ));
        }
    };
    policies.collect::<Result<_, _>>().map(TopicPolicies)
}

fn policy(raw: &Raw) -> Result<TopicPolicy, String> {
    let names = || FIELDS.map(|(name, _)| name).join(", ");
    let Raw::Map(fields) = raw else {
        return Err(format!(
            "{} is not a map of topics, {}",
            raw.sort(),
            names()
        ));
    };
    let mut policy = TopicPolicy {
        topics: Vec::new(),
        allow: true,
        max_record_bytes: None,
        compression: None,
        compression_level: None,
        delivery_timeout: None,
        request_timeout: None,
        partitioner: None,
    };
    for (name, raw) in fields {
        if name == "topics" {
            let topics = words(raw).filter(|topics| !topics.is_empty());
            policy.topics = topics.ok_or("topics is not a list of names")?;
            continue;
        }
        let Some((_, kind)) = FIELDS.iter().find(|(field, _)| field == name) else {
            let global = OF_ALL_TOPICS.iter().find(|(field, _)| field == name);
            return Err(match global {
                Some((_, how)) => format!("{name} is the same for all topics: {how}"),
                None => format!("{name} is no field; there are topics, {}", names()),
            });
        };
        let value = value::parse(kind, raw).map_err(|problem| format!("{name}: {problem}"))?;
        match (name.as_str(), value) {
            (ALLOW, Parsed::Bool(allow)) => policy.allow = allow,
            (MAX_RECORD_BYTES, Parsed::Bytes(bytes)) => {
                policy.max_record_bytes = usize::try_from(bytes).ok();
            }
            (COMPRESSION, Parsed::Choice(word)) => policy.compression = codec(word),
            (COMPRESSION_LEVEL, Parsed::Count(level)) => policy.compression_level = Some(level),
            (DELIVERY_TIMEOUT, Parsed::Duration(time)) => policy.delivery_timeout = Some(time),
            (REQUEST_TIMEOUT, Parsed::Duration(time)) => policy.request_timeout = Some(time),
            (PARTITIONER, Parsed::Choice(word)) => policy.partitioner = Some(word),
            _ => unreachable!("each field has the kind that is taken out of it"),
        }
    }
    if policy.topics.is_empty() {
        return Err("needs topics, such as [\"audit.*\"]".to_owned());
    }
    Ok(policy)
}

fn codec(word: &str) -> Option<Compression> {
    let all = Compression::ALL.into_iter();
    all.into_iter().find(|codec| codec.as_str() == word)
}

/// The policies as YAML on one line.
pub(super) fn text_of(policies: &TopicPolicies) -> String {
    let policies: Vec<String> = policies.0.iter().map(text).collect();
    format!("[{}]", policies.join(", "))
}

fn text(policy: &TopicPolicy) -> String {
    let topics: Vec<String> = policy.topics.iter().map(|topic| quoted(topic)).collect();
    let mut fields = vec![format!("topics: [{}]", topics.join(", "))];
    let mut add = |name: &str, value: Option<String>| {
        fields.extend(value.map(|value| format!("{name}: {value}")));
    };
    let time = |time: Option<Duration>| time.map(duration_text);
    add(ALLOW, (!policy.allow).then(|| "false".to_owned()));
    add(
        MAX_RECORD_BYTES,
        policy
            .max_record_bytes
            .map(|bytes| bytes_text(bytes as u64)),
    );
    add(
        COMPRESSION,
        policy.compression.map(|codec| codec.as_str().to_owned()),
    );
    add(
        COMPRESSION_LEVEL,
        policy.compression_level.map(|level| level.to_string()),
    );
    add(DELIVERY_TIMEOUT, time(policy.delivery_timeout));
    add(REQUEST_TIMEOUT, time(policy.request_timeout));
    add(PARTITIONER, policy.partitioner.map(str::to_owned));
    format!("{{{}}}", fields.join(", "))
}

impl Checked {
    /// Policies beside the keys whose place they take.
    pub(super) fn try_policies(&mut self) {
        const KEY: &str = "publish.topics";
        let (largest, linger) = (
            self.values
                .get("publish.max_record_bytes")
                .map(|sourced| &sourced.value),
            self.values
                .get("publish.linger")
                .map(|sourced| &sourced.value),
        );
        let (Some(Parsed::Bytes(largest)), Some(Parsed::Duration(linger)), Some(policies)) =
            (largest, linger, self.values.get(KEY))
        else {
            return;
        };
        let Parsed::Policies(TopicPolicies(all)) = &policies.value else {
            return;
        };
        let mut problems = Vec::new();
        for (index, policy) in all.iter().enumerate() {
            let mut problem = |text: String| {
                let text = format!("policy {}: {text}", index + 1);
                problems.push(Problem::new(KEY, &policies.source, text));
            };
            if policy
                .max_record_bytes
                .is_some_and(|bytes| bytes as u64 > *largest)
            {
                problem(format!(
                    "{MAX_RECORD_BYTES} must be at most publish.max_record_bytes, which is {}",
                    bytes_text(*largest)
                ));
            }
            if policy.delivery_timeout.is_some_and(|time| time <= *linger) {
                problem(format!(
                    "{DELIVERY_TIMEOUT} must be longer than publish.linger, which is {}",
                    duration_text(*linger)
                ));
            }
        }
        self.problems.extend(problems);
    }
}
