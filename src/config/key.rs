//! What a key is, and how to find one, the misspelt included.
//!
//! Not here: the keys themselves (`table`) and their values. Nobody owns state.
//! What always holds: layers, checks, `show` and the README all follow [`keys`], so a key exists in all of them or in none.

use std::{fmt, time::Duration};

use super::{
    table::KEYS,
    value::{bytes_text, duration_text},
};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path in the tree, levels separated by dots: `publish.max_wait`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// The value when no layer has one, as one would write it; absent when there must be one.
    pub default: Option<&'static str>,
    /// What it does, in a sentence or two of Markdown.
    pub meaning: &'static str,
}

/// What the values of a key are. Bounds are inclusive. `Display` says it to the person who has to write one.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number of things.
    Count {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A number of bytes, plain or with a unit.
    Bytes {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A duration with its unit.
    Duration {
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// Any text that is not empty.
    Text,
    /// A text, or empty for none.
    OptionalText,
    /// What Kafka takes for an id, or empty for none.
    Id,
    /// A text that is never shown, or empty for none.
    Secret,
    /// Texts: a list, or separated by commas.
    Texts,
    /// One of these words; an empty one is for none.
    Choice(&'static [&'static str]),
    /// Kafka brokers, a list or separated by commas.
    Servers,
    /// A socket address, or empty.
    Address,
    /// The permissions of a file, in octal digits.
    Mode,
    /// A list of rules: who may do what with which topics and groups.
    Rules,
    /// A list of policies: what is different for which topics.
    Policies,
    /// The absolute path of a Unix socket, or empty.
    Path,
    /// The absolute path of a file, or empty.
    File,
    /// A map of librdkafka properties.
    Properties,
}

impl Key {
    /// The environment variable that sets it; the prefix of its entries' variables for a map.
    pub fn variable(&self) -> String {
        let levels = self.name.to_ascii_uppercase().replace('.', "__");
        format!("OUTRIGGER_{levels}")
    }
}

/// `{:#}` leaves out the example.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, example) = match self {
            Self::Bool => ("true or false".to_owned(), ""),
            Self::Count { min, max } => (format!("a whole number from {min} to {max}"), ""),
            Self::Bytes { min, max } => {
                let (min, max) = (bytes_text(*min), bytes_text(*max));
                (
                    format!("a number of bytes from {min} to {max}"),
                    "1048576 or 64MiB",
                )
            }
            Self::Duration { min, max } => {
                let (min, max) = (duration_text(*min), duration_text(*max));
                (format!("a duration from {min} to {max}"), "30s or 100ms")
            }
            Self::Text => ("a text of printable characters".to_owned(), ""),
            Self::OptionalText => (
                "a text of printable characters, or \"\" for none".to_owned(),
                "",
            ),
            Self::Id => (
                "at most 249 letters, digits, `.`, `_` and `-`, or \"\" for none".to_owned(),
                "orders-0",
            ),
            Self::Secret => ("a text, never shown, or \"\" for none".to_owned(), ""),
            Self::Texts => ("a list of texts".to_owned(), ""),
            Self::Choice(["", words @ ..]) => {
                (format!("one of {}, or \"\" for none", words.join(", ")), "")
            }
            Self::Choice(words) => (format!("one of {}", words.join(", ")), ""),
            Self::Servers => (
                "a list of host:port".to_owned(),
                "kafka-0:9092,kafka-1:9092",
            ),
            Self::Address => (
                "an IP address and port, or \"\" for off".to_owned(),
                "127.0.0.1:7420",
            ),
            Self::Mode => ("permissions in octal digits".to_owned(), "0660"),
            Self::Rules => (
                "a list of rules".to_owned(),
                "{principals: [uid:1000], operations: [publish], topics: [orders.*]}",
            ),
            Self::Policies => (
                "a list of policies".to_owned(),
                "{topics: [audit.*], max_record_bytes: 64KiB, compression: zstd}",
            ),
            Self::Path => (
                "an absolute path of at most 107 bytes, or \"\" for off".to_owned(),
                "/run/outrigger/outrigger.sock",
            ),
            Self::File => (
                "the absolute path of a file, or \"\" for none".to_owned(),
                "",
            ),
            Self::Properties => ("a map of librdkafka properties".to_owned(), ""),
        };
        f.write_str(&expected)?;
        if example.is_empty() || f.alternate() {
            return Ok(());
        }
        write!(f, ", such as {example}")
    }
}

/// Every key there is, in the order of the documentation.
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// The map of librdkafka properties, whose entries are not in the table.
pub(super) const PROPERTIES: &str = "kafka.properties";

/// The key `name`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys are below `path`.
pub(super) fn is_section(path: &str) -> bool {
    below(path).next().is_some()
}

/// What stands directly below the section `path`: keys and further sections.
pub(super) fn below(path: &str) -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let rest = key.name.strip_prefix(path)?.strip_prefix('.')?;
        let next = rest.split('.').next()?;
        // A section's keys stand together.
        (next != std::mem::replace(&mut last, next)).then_some(next)
    })
}

/// The key or section that someone who wrote `path` may have meant.
pub(super) fn closest(path: &str) -> Option<&'static str> {
    let leaf = |path: &'static str| path.rsplit_once('.').map_or(path, |(_, leaf)| leaf);
    let sections = KEYS.iter().filter_map(|key| key.name.split('.').next());
    let names = KEYS.iter().map(|key| key.name).chain(sections);
    let written = path.rsplit_once('.').map_or(path, |(_, leaf)| leaf);

    // The right name in the wrong section counts as one mistake.
    names
        .map(|name| {
            (
                distance(path, name).min(distance(written, leaf(name)) + 1),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= 1 + written.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many characters to insert, delete or replace to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
