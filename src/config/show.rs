//! The configuration as text: the effective one for operators, the table of keys for the README.
//!
//! Not here: values and their checks. A [`Loaded`] is a value; its holder owns it.
//! What always holds: what [`Loaded::show`] prints loads to the same configuration again, except for secrets, which are `***`.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Config,
    key::{PROPERTIES, keys},
    secret::PropertyValue,
    value::{Parsed, property_text},
};

/// A checked configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked tree.
    pub config: Config,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    pub(super) values: BTreeMap<&'static str, Sourced<Parsed>>,
    pub(super) properties: BTreeMap<String, Sourced<PropertyValue>>,
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) source: String,
}

impl Loaded {
    /// The effective configuration as YAML: every key with its value and, in a comment, its source. Secrets are `***`.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        for key in keys() {
            let mut sections: Vec<&str> = key.name.split('.').collect();
            let leaf = sections.pop().unwrap_or_default();
            let common = sections
                .iter()
                .zip(&open)
                .take_while(|(a, b)| a == b)
                .count();
            for (depth, section) in sections.iter().enumerate().skip(common) {
                text.push_str(&format!("{}{section}:\n", indent(depth)));
            }
            let depth = sections.len();
            open = sections;
            match self.values.get(key.name) {
                Some(Sourced { value, source }) => {
                    text.push_str(&entry(depth, leaf, &value.to_string(), source))
                }
                None if key.name == PROPERTIES && !self.properties.is_empty() => {
                    text.push_str(&format!("{}{leaf}:\n", indent(depth)));
                    for (name, Sourced { value, source }) in &self.properties {
                        text.push_str(&entry(depth + 1, name, &property_text(value), source));
                    }
                }
                None => text.push_str(&entry(depth, leaf, "{}", "default")),
            }
        }
        text
    }
}

fn entry(depth: usize, name: &str, value: &str, source: &str) -> String {
    let source = source.replace(char::is_control, " ");
    format!("{}{name}: {value} # {source}\n", indent(depth))
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

/// The table of keys as Markdown, for the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| key | default | values | meaning |\n|---|---|---|---|\n");
    for key in keys() {
        let default = match key.default {
            None => "required".to_owned(),
            Some("") => "`\"\"`".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        table.push_str(&format!(
            "| `{}` | {default} | {:#} | {} |\n",
            key.name, key.kind, key.meaning
        ));
    }
    table
}
