//! One value on its own: from what a layer holds to what its key's kind allows.
//!
//! Not here: where a value came from (`layers`) and what ties it to other values (`check`). Pure functions; nobody owns state.
//! What always holds: what [`Parsed`] prints is YAML that parses to the same value again, and a secret prints as `***`.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;

use super::{
    key::Kind,
    policies::{self, TopicPolicies},
    rules::{self, Rule},
    secret::{MASK, PropertyValue, Secret},
};

/// The longest path that fits `sockaddr_un` on Linux, without its closing NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A value as a layer holds it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Bool(bool),
    Integer(i128),
    Real(f64),
    Text(String),
    List(Vec<Raw>),
    Map(BTreeMap<String, Raw>),
}

/// A value that is what its key's kind says.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(super) enum Parsed {
    Bool(bool),
    Count(u64),
    Bytes(u64),
    Duration(Duration),
    Text(String),
    Secret(Secret),
    Texts(Vec<String>),
    Choice(&'static str),
    Address(Option<SocketAddr>),
    Path(Option<PathBuf>),
    Mode(u32),
    Rules(Vec<Rule>),
    Policies(TopicPolicies),
}

/// `raw` as a value of `kind`, or what is wrong with it and what is expected.
pub(super) fn parse(kind: &Kind, raw: &Raw) -> Result<Parsed, String> {
    let unexpected = || format!("{raw} is not {kind}");
    match kind {
        Kind::Bool => match raw {
            Raw::Bool(value) => Ok(Parsed::Bool(*value)),
            Raw::Text(text) => text.trim().to_ascii_lowercase().parse().map(Parsed::Bool),
            _ => return Err(unexpected()),
        }
        .map_err(|_| unexpected()),
        Kind::Count { min, max } => count(raw)
            .filter(|count| (min..=max).contains(&count))
            .map(Parsed::Count)
            .ok_or_else(unexpected),
        Kind::Bytes { min, max } => bytes(raw)
            .filter(|bytes| (min..=max).contains(&bytes))
            .map(Parsed::Bytes)
            .ok_or_else(unexpected),
        Kind::Duration { min, max } => duration(raw)
            .filter(|duration| (min..=max).contains(&duration))
            .map(Parsed::Duration)
            .ok_or_else(|| match count(raw) {
                Some(bare @ 1..) => {
                    format!("{raw} has no unit, as {bare}s and {bare}ms have; expected {kind}")
                }
                _ => unexpected(),
            }),
        Kind::Text => text(raw)
            .filter(|text| !text.trim().is_empty() && !text.contains(char::is_control))
            .map(Parsed::Text)
            .ok_or_else(unexpected),
        Kind::OptionalText => text(raw)
            .filter(|text| !text.contains(char::is_control))
            .map(Parsed::Text)
            .ok_or_else(unexpected),
        Kind::Id => text(raw)
            .filter(|text| is_id(text))
            .map(Parsed::Text)
            .ok_or_else(unexpected),
        // What is wrong with a secret is said without it.
        Kind::Secret => match raw {
            Raw::Text(text) if text.contains('\0') => Err("contains a NUL byte".to_owned()),
            Raw::Text(text) => Ok(Parsed::Secret(Secret::new(text))),
            _ => Err(format!(
                "{} is not a text: put a secret in quotes",
                raw.sort()
            )),
        },
        Kind::Texts => texts(raw).map(Parsed::Texts).ok_or_else(unexpected),
        Kind::Choice(words) => text(raw)
            .and_then(|text| words.iter().find(|word| **word == text.trim()))
            .map(|word| Parsed::Choice(word))
            .ok_or_else(unexpected),
        Kind::Servers => servers(raw, kind).map(Parsed::Text),
        Kind::Address => match text(raw).as_deref().map(str::trim) {
            Some("") => Ok(Parsed::Address(None)),
            Some(text) => text
                .parse()
                .map(|address| Parsed::Address(Some(address)))
                .map_err(|_| unexpected()),
            None => Err(unexpected()),
        },
        Kind::Mode => mode(raw).map(Parsed::Mode).ok_or_else(unexpected),
        Kind::Rules => rules::parse(raw).map(Parsed::Rules),
        Kind::Policies => policies::parse(raw).map(Parsed::Policies),
        Kind::Path => match text(raw).as_deref() {
            Some("") => Ok(Parsed::Path(None)),
            Some(text) if is_socket_path(text) => Ok(Parsed::Path(Some(PathBuf::from(text)))),
            _ => Err(unexpected()),
        },
        Kind::File => match text(raw).as_deref() {
            Some("") => Ok(Parsed::Path(None)),
            Some(text) if is_file_path(text) => Ok(Parsed::Path(Some(PathBuf::from(text)))),
            _ => Err(unexpected()),
        },
        // A section of its own: its entries are values, it is not.
        Kind::Properties => Err(unexpected()),
    }
}

/// The value of the librdkafka property `name`. What is wrong with one is said without the value.
pub(super) fn property(name: &str, raw: &Raw) -> Result<PropertyValue, String> {
    match raw {
        Raw::Text(text) if text.contains('\0') => Err("contains a NUL byte".to_owned()),
        Raw::Text(text) => Ok(PropertyValue::new(name, text)),
        // YAML has already thrown away leading zeros, signs and precision.
        Raw::Integer(_) | Raw::Real(_) | Raw::Bool(_) if super::properties::is_sensitive(name) => {
            Err("a secret is a text: put it in quotes".to_owned())
        }
        Raw::Integer(number) => Ok(PropertyValue::new(name, number.to_string())),
        Raw::Bool(value) => Ok(PropertyValue::new(name, value.to_string())),
        Raw::Real(_) => Err("is a number with a fraction: put it in quotes".to_owned()),
        Raw::List(_) | Raw::Map(_) => Err(format!(
            "{} is not a text, a whole number, true or false",
            raw.sort()
        )),
    }
}

/// Always read as octal: YAML itself takes `0660` for one number and `660` for another.
fn mode(raw: &Raw) -> Option<u32> {
    match raw {
        Raw::Text(text) => u32::from_str_radix(text.trim(), 8)
            .ok()
            .filter(|mode| (1..=0o777).contains(mode)),
        _ => None,
    }
}

pub(super) fn text(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Text(text) => Some(text.clone()),
        Raw::Integer(number) => Some(number.to_string()),
        Raw::Bool(_) | Raw::Real(_) | Raw::List(_) | Raw::Map(_) => None,
    }
}

fn texts(raw: &Raw) -> Option<Vec<String>> {
    let texts: Vec<String> = match raw {
        Raw::List(entries) => entries.iter().map(text).collect::<Option<_>>()?,
        _ => text(raw)?
            .split(',')
            .map(|entry| entry.trim().to_owned())
            .collect(),
    };
    let texts = match texts.as_slice() {
        [only] if only.is_empty() => Vec::new(),
        _ => texts,
    };
    let is_text = |text: &String| !text.is_empty() && !text.contains(char::is_control);
    texts.iter().all(is_text).then_some(texts)
}

fn count(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn bytes(raw: &Raw) -> Option<u64> {
    count(raw).or_else(|| match raw {
        Raw::Text(text) => text
            .trim()
            .parse::<ByteSize>()
            .ok()
            .map(|size| size.as_u64()),
        _ => None,
    })
}

fn duration(raw: &Raw) -> Option<Duration> {
    match raw {
        Raw::Integer(0) => Some(Duration::ZERO),
        Raw::Text(text) => humantime::parse_duration(text.trim()).ok(),
        _ => None,
    }
}

fn servers(raw: &Raw, kind: &Kind) -> Result<String, String> {
    let entries: Option<Vec<String>> = match raw {
        Raw::List(entries) => entries.iter().map(text).collect(),
        _ => text(raw).map(|text| text.split(',').map(str::to_owned).collect()),
    };
    let entries = entries.ok_or_else(|| format!("{raw} is not {kind}"))?;
    let entries: Vec<&str> = entries.iter().map(|entry| entry.trim()).collect();

    // An address with a password in it is not shown.
    if entries.iter().any(|entry| entry.contains('@')) {
        return Err(format!(
            "credentials have no place here, use kafka.sasl; expected {kind}"
        ));
    }
    let bad: Vec<String> = entries
        .iter()
        .filter(|entry| !is_server(entry))
        .map(|entry| format!("{entry:?}"))
        .collect();
    match bad.is_empty() && !entries.is_empty() {
        true => Ok(entries.join(",")),
        false if entries.is_empty() => Err(format!("an empty list is not {kind}")),
        false => Err(format!("{} is not {kind}", bad.join(", "))),
    }
}

fn is_server(entry: &str) -> bool {
    let Some((host, port)) = entry.rsplit_once(':') else {
        return false;
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    is_host
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Java's client allows the same. It keeps a `$(POD_NAME)` out that nobody has replaced, and that all pods would share.
fn is_id(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= 249 && text.bytes().all(is_legal)
}

fn is_socket_path(text: &str) -> bool {
    Path::new(text).is_absolute()
        && !text.ends_with('/')
        && !text.contains(char::is_control)
        && text.len() <= MAX_SOCKET_PATH_BYTES
}

fn is_file_path(text: &str) -> bool {
    Path::new(text).is_absolute() && !text.ends_with('/') && !text.contains(char::is_control)
}

impl Raw {
    /// What sort of value it is, for where the value itself may be a misplaced secret.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Real(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) if text.chars().count() > SHOWN => {
                write!(f, "{:?}…", text.chars().take(SHOWN).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) | Self::Map(_) => f.write_str(self.sort()),
        }
    }
}

impl fmt::Display for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Count(number) => write!(f, "{number}"),
            Self::Bytes(bytes) => f.write_str(&bytes_text(*bytes)),
            Self::Duration(duration) => f.write_str(&duration_text(*duration)),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Secret(secret) if secret.expose().is_empty() => f.write_str("\"\""),
            Self::Secret(_) => f.write_str(&quoted(MASK)),
            Self::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Mode(mode) => f.write_str(&quoted(&format!("{mode:04o}"))),
            Self::Rules(rules) => f.write_str(&rules::text_of(rules)),
            Self::Policies(policies) => f.write_str(&policies::text_of(policies)),
            Self::Choice("") => f.write_str("\"\""),
            Self::Choice(word) => f.write_str(word),
            Self::Address(None) | Self::Path(None) => f.write_str("\"\""),
            Self::Address(Some(address)) => f.write_str(&quoted(&address.to_string())),
            Self::Path(Some(path)) => f.write_str(&quoted(&path.to_string_lossy())),
        }
    }
}

/// A property's value as YAML.
pub(super) fn property_text(value: &PropertyValue) -> String {
    match value {
        PropertyValue::Plain(text) => quoted(text),
        PropertyValue::Sensitive(_) => quoted(MASK),
    }
}

/// The shortest text of a byte count that is exact: 64MiB, 1000000.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (bytesize::TIB, "TiB"),
        (bytesize::GIB, "GiB"),
        (bytesize::MIB, "MiB"),
        (bytesize::KIB, "KiB"),
    ];
    match UNITS
        .iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// The shortest text of a duration that is exact: 120s, 5ms, 0s.
pub(super) fn duration_text(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos if nanos.is_multiple_of(1_000_000) => format!("{}ms", duration.as_millis()),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// `text` as a YAML scalar in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            _ if char.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}
