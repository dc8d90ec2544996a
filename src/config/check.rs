//! From raw values to the checked tree, with every problem told at once.
//!
//! Not here: what a single value may be (`value`). Pure; nobody owns state.
//! What always holds: each key is tried on its own, so no mistake masks another; two keys are compared only when both are right, so
//! no mistake is told twice; a tree is built only when there is no problem at all.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Admin, Compression, Config, Consume, Drain, GroupProtocol, Isolation, Kafka, Listen, Log,
    LogFormat, Metrics, Publish, Sasl, Tls,
    key::{self, Kind, PROPERTIES},
    layers::{Layers, Setting},
    problem::{Problem, Problems},
    properties,
    secret::PropertyValue,
    show::{Loaded, Sourced},
    value::{self, Parsed, Raw},
};

/// Two keys whose values are tied.
pub(super) struct Relation {
    key: &'static str,
    /// Completes "`key` must be … `other`".
    must_be: &'static str,
    other: &'static str,
    holds: fn(&Parsed, &Parsed) -> bool,
}

pub(super) const fn relation(
    key: &'static str,
    must_be: &'static str,
    other: &'static str,
    holds: fn(&Parsed, &Parsed) -> bool,
) -> Relation {
    Relation {
        key,
        must_be,
        other,
        holds,
    }
}

const fn at_least(key: &'static str, other: &'static str) -> Relation {
    relation(key, "at least", other, |key, other| key >= other)
}

const fn at_most(key: &'static str, other: &'static str) -> Relation {
    relation(key, "at most", other, |key, other| key <= other)
}

const RELATIONS: &[Relation] = &[
    at_least("publish.max_in_flight_bytes", "publish.max_record_bytes"),
    at_least("publish.max_in_flight_bytes", "listen.max_message_bytes"),
    at_most(
        "publish.stream_window_records",
        "publish.max_in_flight_records",
    ),
    at_least("publish.stream_window_bytes", "publish.max_record_bytes"),
    at_most("publish.stream_window_bytes", "publish.max_in_flight_bytes"),
    relation(
        "publish.delivery_timeout",
        "longer than",
        "publish.linger",
        |timeout, linger| timeout > linger,
    ),
    at_most("consume.window_records", "consume.max_window_records"),
    at_most("consume.window_bytes", "consume.max_window_bytes"),
];

/// The tree that `layers` make, or everything that is wrong with them.
pub(super) fn check(layers: Layers) -> Result<Loaded, Problems> {
    let mut checked = Checked {
        values: BTreeMap::new(),
        properties: BTreeMap::new(),
        problems: layers.problems,
    };
    for key in key::keys() {
        checked.try_key(key, layers.settings.get(key.name), layers.incomplete);
    }
    checked.try_properties(&layers.properties);
    // A value that looks like a default may be another one in a file that could not be read.
    if !layers.incomplete {
        for relation in RELATIONS {
            checked.try_relation(relation);
        }
        checked.try_group_protocol();
        checked.try_listeners();
        checked.try_policies();
    }
    let (tls, sasl) = match layers.incomplete {
        false => (checked.tls(), checked.sasl()),
        true => (None, None),
    };
    if !layers.incomplete {
        checked.try_doors();
    }

    if !checked.problems.is_empty() {
        return Err(Problems::new(checked.problems));
    }
    Ok(Loaded {
        config: checked.config(tls, sasl),
        file: layers.file,
        values: checked.values,
        properties: checked.properties,
    })
}

/// What was found right so far, and what was found wrong.
pub(super) struct Checked {
    pub(super) values: BTreeMap<&'static str, Sourced<Parsed>>,
    properties: BTreeMap<String, Sourced<PropertyValue>>,
    pub(super) problems: Vec<Problem>,
}

impl Checked {
    fn try_key(&mut self, key: &'static key::Key, setting: Option<&Setting>, incomplete: bool) {
        if matches!(key.kind, Kind::Properties) {
            return;
        }
        let (raw, source) = match (setting, key.default) {
            (Some(setting), _) => (setting.raw.clone(), setting.source.clone()),
            (None, Some(default)) => (Raw::Text(default.to_owned()), "default".to_owned()),
            (None, None) if incomplete => return,
            (None, None) => {
                let message = format!(
                    "is required: {}, in the file, by {} or by --set {}=…",
                    key.kind,
                    key.variable(),
                    key.name
                );
                self.problems.push(Problem::new(key.name, "unset", message));
                return;
            }
        };
        match value::parse(&key.kind, &raw) {
            Ok(value) => {
                self.values.insert(key.name, Sourced { value, source });
            }
            Err(message) => self.problems.push(Problem::new(key.name, source, message)),
        }
    }

    fn try_properties(&mut self, properties: &BTreeMap<String, Setting>) {
        for (name, Setting { raw, source }) in properties {
            let tried = value::property(name, raw);
            // What is refused by name is refused whatever it is set to, a list included.
            let text = tried.as_ref().map_or("", PropertyValue::expose);
            let rival =
                properties::alias(name).and_then(|other| Some((other, properties.get(other)?)));
            let message = match (properties::refusal(name, text), tried, rival) {
                (Some(reason), ..) => reason,
                (None, Err(message), _) => message,
                (None, Ok(_), Some((other, rival))) => {
                    format!(
                        "is another name of {other} (set by {}): keep one of the two",
                        rival.source
                    )
                }
                (None, Ok(value), None) => {
                    let source = source.clone();
                    self.properties
                        .insert(name.clone(), Sourced { value, source });
                    continue;
                }
            };
            self.problems.push(Problem::new(
                format!("{PROPERTIES}.{name}"),
                source,
                message,
            ));
        }
    }

    pub(super) fn try_relation(&mut self, relation: &Relation) {
        let (Some(left), Some(right)) = (
            self.values.get(relation.key),
            self.values.get(relation.other),
        ) else {
            return;
        };
        if !(relation.holds)(&left.value, &right.value) {
            let message = format!(
                "{} must be {} {}, which is {} ({})",
                left.value, relation.must_be, relation.other, right.value, right.source
            );
            self.problems
                .push(Problem::new(relation.key, &left.source, message));
        }
    }

    /// The tree. Only called when every key has a value of its kind.
    fn config(&self, tls: Option<Tls>, sasl: Option<Sasl>) -> Config {
        Config {
            kafka: Kafka {
                bootstrap_servers: self.text("kafka.bootstrap_servers"),
                client_id: self.text("kafka.client_id"),
                allow_auto_create_topics: self.bool("kafka.allow_auto_create_topics"),
                tls,
                sasl,
                properties: self
                    .properties
                    .iter()
                    .map(|(name, property)| (name.clone(), property.value.clone()))
                    .collect(),
            },
            listen: Listen {
                tcp: self.address("listen.tcp"),
                unix: self.path("listen.unix"),
                unix_mode: self.value("listen.unix_mode", |value| match value {
                    Parsed::Mode(mode) => Some(*mode),
                    _ => None,
                }),
                tls: self.listen_tls(),
                tokens_file: self.path("listen.tokens_file"),
                max_connections: self.size("listen.max_connections"),
                max_streams: self.size("listen.max_streams"),
                max_message_bytes: self.size("listen.max_message_bytes"),
            },
            admin: Admin {
                listen: self.address("admin.listen"),
            },
            access: self.value("access.rules", |value| match value {
                Parsed::Rules(rules) => Some(rules.clone()),
                _ => None,
            }),
            metrics: Metrics {
                statistics_interval: self.duration("metrics.statistics_interval"),
                max_topics: self.size("metrics.max_topics"),
                max_groups: self.size("metrics.max_groups"),
                max_partitions: self.size("metrics.max_partitions"),
                partition_label: self.bool("metrics.partition_label"),
                aliases: self.bool("metrics.aliases"),
            },
            publish: Publish {
                max_wait: self.duration("publish.max_wait"),
                max_record_bytes: self.size("publish.max_record_bytes"),
                topics: self.value("publish.topics", |value| match value {
                    Parsed::Policies(policies) => Some(policies.clone()),
                    _ => None,
                }),
                max_in_flight_records: self.size("publish.max_in_flight_records"),
                max_in_flight_bytes: self.size("publish.max_in_flight_bytes"),
                stream_window_records: self.size("publish.stream_window_records"),
                stream_window_bytes: self.size("publish.stream_window_bytes"),
                stream_grace: self.duration("publish.stream_grace"),
                linger: self.duration("publish.linger"),
                compression: self.choice(
                    "publish.compression",
                    &Compression::ALL,
                    Compression::as_str,
                ),
                delivery_timeout: self.duration("publish.delivery_timeout"),
                dedup_window: self.duration("publish.dedup_window"),
                dedup_max_ids: self.size("publish.dedup_max_ids"),
            },
            consume: Consume {
                window_records: self.number("consume.window_records"),
                window_bytes: self.number("consume.window_bytes"),
                max_window_records: self.number("consume.max_window_records"),
                max_window_bytes: self.number("consume.max_window_bytes"),
                commit_interval: self.duration("consume.commit_interval"),
                commit_metadata: self.size("consume.commit_metadata"),
                max_bytes: self.number("consume.max_bytes"),
                max_span_records: self.size("consume.max_span_records"),
                max_parked_records: self.size("consume.max_parked_records"),
                look_ahead_bytes: self.number("consume.look_ahead_bytes"),
                stuck_leave: self.duration("consume.stuck_leave"),
                stall_after: self.duration("consume.stall_after"),
                read_grace: self.duration("consume.read_grace"),
                max_lease: self.duration("consume.max_lease"),
                revoke_drain: self.duration("consume.revoke_drain"),
                session_timeout: self.duration("consume.session_timeout"),
                heartbeat_interval: self.duration("consume.heartbeat_interval"),
                idle_leave: self.duration("consume.idle_leave"),
                max_subscriptions: self.size("consume.max_subscriptions"),
                prefetch_bytes: self.size("consume.prefetch_bytes"),
                group_protocol: self.choice(
                    "consume.group_protocol",
                    &GroupProtocol::ALL,
                    GroupProtocol::as_str,
                ),
                instance_id: Some(self.text("consume.instance_id")).filter(|id| !id.is_empty()),
                isolation: self.choice("consume.isolation", &Isolation::ALL, Isolation::as_str),
            },
            drain: Drain {
                deadline: self.duration("drain.deadline"),
            },
            log: Log {
                format: self.choice("log.format", &LogFormat::ALL, LogFormat::as_str),
                level: self.text("log.level"),
            },
        }
    }

    /// The value of `key`, taken out by `of`, which fits the kind that the table gives the key.
    fn value<T>(&self, key: &str, of: impl FnOnce(&Parsed) -> Option<T>) -> T {
        self.values
            .get(key)
            .and_then(|sourced| of(&sourced.value))
            .unwrap_or_else(|| {
                unreachable!("{key} is in the table with the kind that the tree has for it")
            })
    }

    fn bool(&self, key: &str) -> bool {
        self.value(key, |value| match value {
            Parsed::Bool(value) => Some(*value),
            _ => None,
        })
    }

    fn number(&self, key: &str) -> u64 {
        self.value(key, |value| match value {
            Parsed::Count(number) | Parsed::Bytes(number) => Some(*number),
            _ => None,
        })
    }

    fn size(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    fn duration(&self, key: &str) -> Duration {
        self.value(key, |value| match value {
            Parsed::Duration(duration) => Some(*duration),
            _ => None,
        })
    }

    fn text(&self, key: &str) -> String {
        self.value(key, |value| match value {
            Parsed::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        self.value(key, |value| match value {
            Parsed::Address(address) => Some(*address),
            _ => None,
        })
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.value(key, |value| match value {
            Parsed::Path(path) => Some(path.clone()),
            _ => None,
        })
    }

    fn choice<T: Copy>(&self, key: &str, all: &[T], as_str: fn(T) -> &'static str) -> T {
        self.value(key, |value| match value {
            Parsed::Choice(word) => all.iter().copied().find(|choice| as_str(*choice) == *word),
            _ => None,
        })
    }
}
