//! From files, environment and flags to one raw value a key, with where it came from.
//!
//! Not here: whether a value is right (`value`, `check`). The process's environment is read by [`Sources::from_process`] alone, the
//! file by `gather`, once. Nobody owns state.
//! What always holds: later layers win key by key, never section by section; a null is as if it were not written; a name that is in no
//! table is a problem, never ignored, and its value, which may be a misplaced secret, is in no message.
//!
//! The `config` crate reads the YAML. Its merging is not used: there, a higher layer's map silently replaces a lower layer's mistake.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use ::config::{ConfigError, FileFormat, Format, Map, Value, ValueKind};

use super::{
    key::{self, Kind, PROPERTIES},
    problem::Problem,
    value::Raw,
};

/// The file that is read, if it exists, when neither the flag nor the environment names one.
pub const DEFAULT_FILE: &str = "/etc/outrigger/outrigger.yaml";

/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "OUTRIGGER_CONFIG";

const PREFIX: &str = "OUTRIGGER_";
const LEVEL: &str = "__";
/// The key under which problems of the file itself are reported.
const FILE: &str = "configuration file";

/// Where a configuration comes from, weakest first: the defaults, the file, the environment, the flags.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that a flag names; else [`FILE_VARIABLE`] names it, else it is [`DEFAULT_FILE`], which need not exist.
    pub file: Option<PathBuf>,
    /// Names and values. Settings start with `OUTRIGGER_` and have `__` between levels; others are ignored, since Kubernetes injects
    /// `OUTRIGGER_PORT` and the like for a Service called outrigger.
    pub environment: Vec<(String, String)>,
    /// Keys and values of `--set`; of two for one key, the later wins.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// What this process was given: `file` and `flags` from its command line, and its environment.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        // A value that is not UTF-8 gets a replacement character here, by which it is refused later.
        let environment = env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let is_ours = name.starts_with(PREFIX);
                is_ours.then(|| (name, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self {
            file,
            environment,
            flags,
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &names(&self.environment))
            .field("flags", &names(&self.flags))
            .finish()
    }
}

/// A raw value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) raw: Raw,
    pub(super) source: String,
}

/// The layers laid over one another.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// By key; the defaults are not among them.
    pub(super) settings: BTreeMap<&'static str, Setting>,
    /// The entries of `kafka.properties`, by librdkafka's name.
    pub(super) properties: BTreeMap<String, Setting>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    /// Whether a file could not be read, so that what seems missing may be in it.
    pub(super) incomplete: bool,
    pub(super) problems: Vec<Problem>,
}

/// Reads the file and lays the layers over one another.
pub(super) fn gather(sources: &Sources, default_file: &Path) -> Layers {
    let mut layers = Layers::default();
    layers.add_file(sources, default_file);
    for (name, value) in &sources.environment {
        layers.add_variable(name, value);
    }
    for (path, value) in &sources.flags {
        layers.add_text(path, value, "flag --set");
    }
    layers
}

impl Layers {
    fn add_file(&mut self, sources: &Sources, default_file: &Path) {
        let variable = sources
            .environment
            .iter()
            .find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        let (path, named_by) = match (&sources.file, variable) {
            (Some(path), _) => (path.clone(), Some("flag --config".to_owned())),
            (None, Some((name, value))) => {
                (PathBuf::from(value), Some(format!("environment {name}")))
            }
            (None, None) => (default_file.to_owned(), None),
        };

        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named_by.is_none() => return,
            Err(error) => {
                let source = named_by.unwrap_or_else(|| "default".to_owned());
                let message = format!("{} cannot be read: {error}", path.display());
                self.problems.push(Problem::new(FILE, source, message));
                self.incomplete = true;
                return;
            }
        };
        let source = format!("file {}", path.display());
        match parse(&text) {
            Ok(root) => self.add_table("", &root, &source),
            Err(message) => {
                self.problems.push(Problem::new(FILE, source, message));
                self.incomplete = true;
            }
        }
        self.file = Some(path);
    }

    fn add_variable(&mut self, name: &str, value: &str) {
        let Some(levels) = name.strip_prefix(PREFIX) else {
            return;
        };
        if !levels.contains(LEVEL) {
            return;
        }
        let path = levels.to_ascii_lowercase().replace(LEVEL, ".");
        let path = match property_of(&path) {
            Some(name) => format!("{PROPERTIES}.{}", name.replace('_', ".")),
            None => path,
        };
        let source = format!("environment {name}");
        if value.contains(char::REPLACEMENT_CHARACTER) {
            self.problem(&path, &source, "the value is not UTF-8");
        } else {
            self.add_text(&path, value, &source);
        }
    }

    /// A key and its value, where nothing nests: a variable or a flag.
    fn add_text(&mut self, path: &str, value: &str, source: &str) {
        let raw = Raw::Text(value.to_owned());
        if let Some(name) = property_of(path) {
            self.set_property(name, raw, source);
        } else if path == PROPERTIES {
            let message = format!("set one property at a time, as {PROPERTIES}.NAME");
            self.problem(path, source, message);
        } else {
            self.set(path, raw, source);
        }
    }

    /// A section of the file; `prefix` is empty for its root and ends with a dot otherwise.
    fn add_table(&mut self, prefix: &str, table: &Map<String, Value>, source: &str) {
        for (name, value) in table {
            let path = format!("{prefix}{name}");
            let is_nested = !name.contains('.');
            match &value.kind {
                _ if !is_nested => {
                    let message = match path.starts_with("kafka.") {
                        true => format!("is no key; librdkafka's properties go below {PROPERTIES}"),
                        false => "is no key; levels nest, as in `publish:` with `linger:` below it"
                            .to_owned(),
                    };
                    self.problem(&path, source, message);
                }
                ValueKind::Nil if key::find(&path).is_some() || key::is_section(&path) => {}
                ValueKind::Table(properties) if path == PROPERTIES => {
                    for (name, value) in properties {
                        if value.kind != ValueKind::Nil {
                            self.set_property(name, raw(value), source);
                        }
                    }
                }
                ValueKind::Table(section) if key::is_section(&path) => {
                    self.add_table(&format!("{path}."), section, source);
                }
                _ => self.set(&path, raw(value), source),
            }
        }
    }

    fn set(&mut self, path: &str, raw: Raw, source: &str) {
        let raw = match (key::find(path).map(|found| &found.kind), raw) {
            // What a variable or a flag cannot say in a word.
            (Some(Kind::Rules | Kind::Policies), Raw::Text(text)) => {
                yaml_value(&text).unwrap_or(Raw::Text(text))
            }
            (_, raw) => raw,
        };
        match key::find(path) {
            Some(found) if matches!(found.kind, Kind::Properties) => {
                self.problem(
                    path,
                    source,
                    format!("{} is not {}", raw.sort(), found.kind),
                );
            }
            Some(found) => {
                let source = source.to_owned();
                self.settings.insert(found.name, Setting { raw, source });
            }
            None if key::is_section(path) => {
                let keys: Vec<&str> = key::below(path).collect();
                let message = format!("{} is not a map of {}", raw.sort(), keys.join(", "));
                self.problem(path, source, message);
            }
            None => {
                let hint = match key::closest(path) {
                    Some(name) => format!("did you mean {name}?"),
                    None => "the README lists those there are".to_owned(),
                };
                self.problem(path, source, format!("is no key; {hint}"));
            }
        }
    }

    fn set_property(&mut self, name: &str, raw: Raw, source: &str) {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let path = format!("{PROPERTIES}.{}", name.escape_debug());
            self.problem(&path, source, "is no name of a librdkafka property");
            return;
        }
        let source = source.to_owned();
        self.properties
            .insert(name.to_owned(), Setting { raw, source });
    }

    fn problem(&mut self, path: &str, source: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, source, message));
    }
}

/// librdkafka's name in the path of a property.
fn property_of(path: &str) -> Option<&str> {
    path.strip_prefix(PROPERTIES)?.strip_prefix('.')
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("is not UTF-8: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    FileFormat::Yaml.parse(None, text).or_else(|error| {
        match error
            .downcast_ref::<Box<ConfigError>>()
            .map(|error| &**error)
        {
            // A document that holds nothing, such as `---` or comments alone.
            Some(ConfigError::Type { unexpected, .. })
                if unexpected.to_string() == "unit value" =>
            {
                Ok(Map::new())
            }
            // The crate's own words quote the value, which may be anything.
            Some(_) => Err("is not a map of sections, such as kafka: and listen:".to_owned()),
            None => Err(format!("is not YAML: {error}")),
        }
    })
}

/// A text as the YAML value that it is.
fn yaml_value(text: &str) -> Option<Raw> {
    // On one line nothing can follow the value.
    let is_line = !text.contains(char::is_control);
    let root = is_line.then(|| parse(format!("value: {text}").as_bytes()))?;
    root.ok()?.get("value").map(raw)
}

fn raw(value: &Value) -> Raw {
    match &value.kind {
        ValueKind::Nil => Raw::Text(String::new()),
        ValueKind::Boolean(value) => Raw::Bool(*value),
        ValueKind::I64(number) => Raw::Integer(i128::from(*number)),
        ValueKind::I128(number) => Raw::Integer(*number),
        ValueKind::U64(number) => Raw::Integer(i128::from(*number)),
        // YAML's integers have 64 bits.
        ValueKind::U128(number) => Raw::Real(*number as f64),
        ValueKind::Float(number) => Raw::Real(*number),
        ValueKind::String(text) => Raw::Text(text.clone()),
        ValueKind::Array(entries) => Raw::List(entries.iter().map(raw).collect()),
        ValueKind::Table(table) => Raw::Map(
            table
                .iter()
                .map(|(name, value)| (name.clone(), raw(value)))
                .collect(),
        ),
    }
}
