//! Writes what is inserted: as lines of block style, or as JSON, which is flow style too.

use yaml_rust2::Yaml;

/// How the lines around are indented.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// How much deeper a map is than the key it belongs to.
    pub(super) map: usize,
    /// How much deeper the dashes of a list are than its key.
    pub(super) list: usize,
}

/// The entries of a list whose dashes stand in this column.
pub(super) fn items(entries: &[Yaml], column: usize, style: Style) -> Vec<String> {
    entries
        .iter()
        .flat_map(|entry| {
            let mut lines = match entry.as_hash().filter(|map| !map.is_empty()) {
                Some(_) => pairs(entry, column + 2, style),
                None => vec![format!("{:1$}{2}", "", column + 2, leaf(entry))],
            };
            lines[0].replace_range(column..=column, "-");
            lines
        })
        .collect()
}

/// A key in this column, with its list.
pub(super) fn list(key: &str, entries: &[Yaml], column: usize, style: Style) -> Vec<String> {
    let mut lines = vec![format!("{:column$}{key}:", "")];
    lines.extend(items(entries, column + style.list, style));
    lines
}

fn pairs(map: &Yaml, column: usize, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in map.as_hash().into_iter().flatten() {
        let key = leaf(key);
        match value {
            Yaml::Array(entries) if !entries.is_empty() => {
                lines.extend(list(&key, entries, column, style));
            }
            Yaml::Hash(map) if !map.is_empty() => {
                lines.push(format!("{:column$}{key}:", ""));
                lines.extend(pairs(value, column + style.map, style));
            }
            _ => lines.push(format!("{:column$}{key}: {}", "", leaf(value))),
        }
    }
    lines
}

/// What fits behind a key, or in JSON.
fn leaf(value: &Yaml) -> String {
    match value {
        Yaml::String(text) if is_plain(text) => text.clone(),
        _ => json(value),
    }
}

/// Whether a text can stand without quotes in block style, and every YAML there is reads it as a text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !text.ends_with(':')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=,$()@".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// On one line.
pub(super) fn json(value: &Yaml) -> String {
    match value {
        Yaml::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Real(number) => number.clone(),
        Yaml::Boolean(value) => value.to_string(),
        Yaml::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(json).collect();
            format!("[{}]", entries.join(", "))
        }
        Yaml::Hash(map) => {
            let pair = |(key, value)| format!("{}: {}", json(key), json(value));
            let pairs: Vec<String> = map.iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Yaml::Null | Yaml::Alias(_) | Yaml::BadValue => "null".to_owned(),
    }
}
