//! The rules of access as they are written: who may do what with which topics and groups.
//!
//! Not here: what a rule allows ([`crate::access`]). Pure; nobody owns state.
//! What always holds: a rule has principals and operations, every entry is one that can match, and an unknown field is refused.

use super::value::{Raw, quoted, text};

/// What one rule allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd)]
pub struct Rule {
    /// `uid:1000`, `certificate:CN=orders`, `token:orders`, `anonymous`, or `*` for every caller; `*` inside stands for any text.
    pub principals: Vec<String>,
    /// What they may do.
    pub operations: Vec<Operation>,
    /// With which topics.
    pub topics: Vec<String>,
    /// As which groups; only for subscribing.
    pub groups: Vec<String>,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Operation {
    /// Writes to a topic.
    Publish,
    /// Reads a topic as a group.
    Subscribe,
    /// Drains the sidecar, looks at its state or changes its log.
    Admin,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Admin];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }
}

/// The kinds of principals, before the colon.
const KINDS: [&str; 3] = ["uid", "certificate", "token"];

pub(super) fn parse(raw: &Raw) -> Result<Vec<Rule>, String> {
    match raw {
        Raw::List(rules) => rules
            .iter()
            .enumerate()
            .map(|(index, raw)| {
                rule(raw).map_err(|problem| format!("rule {}: {problem}", index + 1))
            })
            .collect(),
        Raw::Text(text) if text.trim() == "[]" => Ok(Vec::new()),
        _ => Err(format!(
            "{} is not a list of rules, such as [{{principals: [\"uid:1000\"], operations: [publish], topics: [\"orders.*\"]}}]",
            raw.sort()
        )),
    }
}

fn rule(raw: &Raw) -> Result<Rule, String> {
    let Raw::Map(fields) = raw else {
        return Err(format!(
            "{} is not a map of principals, operations, topics and groups",
            raw.sort()
        ));
    };
    let mut rule = Rule::default();
    for (name, value) in fields {
        let words = words(value).ok_or_else(|| format!("{name} is not a list of texts"))?;
        match name.as_str() {
            "principals" => rule.principals = words,
            "operations" => rule.operations = operations(&words)?,
            "topics" => rule.topics = words,
            "groups" => rule.groups = words,
            _ => {
                return Err(format!(
                    "{name} is no field; there are principals, operations, topics and groups"
                ));
            }
        }
    }
    if let Some(odd) = rule
        .principals
        .iter()
        .find(|principal| !is_principal(principal))
    {
        return Err(format!(
            "{odd:?} is no principal: uid:1000, certificate:CN=name, token:name, anonymous or *"
        ));
    }
    let allows = |operation| rule.operations.contains(&operation);
    if rule.principals.is_empty() || rule.operations.is_empty() {
        return Err("needs principals and operations".to_owned());
    }
    if (allows(Operation::Publish) || allows(Operation::Subscribe)) && rule.topics.is_empty() {
        return Err("needs topics, such as [\"*\"]".to_owned());
    }
    if allows(Operation::Subscribe) == rule.groups.is_empty() {
        return Err("needs groups exactly when it allows subscribe".to_owned());
    }
    Ok(rule)
}

fn operations(words: &[String]) -> Result<Vec<Operation>, String> {
    words
        .iter()
        .map(|word| {
            let found = Operation::ALL
                .into_iter()
                .find(|operation| operation.as_str() == word);
            found.ok_or_else(|| {
                format!("{word:?} is no operation; there are publish, subscribe and admin")
            })
        })
        .collect()
}

fn is_principal(text: &str) -> bool {
    matches!(text, "*" | "anonymous")
        || text
            .split_once(':')
            .is_some_and(|(kind, name)| KINDS.contains(&kind) && !name.is_empty())
}

pub(super) fn words(raw: &Raw) -> Option<Vec<String>> {
    let Raw::List(entries) = raw else {
        return None;
    };
    let is_word = |word: &String| !word.is_empty() && !word.contains(char::is_control);
    entries
        .iter()
        .map(|entry| text(entry).filter(is_word))
        .collect()
}

/// The rules as YAML on one line.
pub(super) fn text_of(rules: &[Rule]) -> String {
    let list = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        words.join(", ")
    };
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let operations: Vec<&str> = rule
                .operations
                .iter()
                .map(|operation| operation.as_str())
                .collect();
            format!(
                "{{principals: [{}], operations: [{}], topics: [{}], groups: [{}]}}",
                list(&rule.principals),
                operations.join(", "),
                list(&rule.topics),
                list(&rule.groups)
            )
        })
        .collect();
    format!("[{}]", rules.join(", "))
}
