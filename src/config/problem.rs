//! What is wrong with a configuration, for the person who has to mend it.
//!
//! Not here: deciding that something is wrong. What always holds: a problem names its key and where the value came from, is one line
//! when printed, and contains no secret, since no room puts the value of a property or of an unknown key into one.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The key, such as `publish.max_wait`; a section where the problem concerns all of it; `configuration file` for the file itself.
    pub key: String,
    /// Where the value came from: `file /etc/x.yaml`, `environment OUTRIGGER_PUBLISH__MAX_WAIT`, `flag --set`, `default` or `unset`.
    pub source: String,
    /// The value, unless it may be a secret, and what is expected in its place.
    pub message: String,
}

impl Problem {
    pub(super) fn new(
        key: impl Into<String>,
        source: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            source: source.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{} ({}): {}", self.key, self.source, self.message);
        f.write_str(&line.replace(char::is_control, " "))
    }
}

/// Everything that is wrong with a configuration, sorted by key; printed one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        // The layers' maps have no order of their own; the same mistakes are told in the same order.
        problems.sort();
        problems.dedup();
        Self(problems)
    }

    /// Each problem, in the order in which they are printed.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are; never none.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
