//! Judges answers to publishes by what the topic holds: each rule has a name, and says what must never be seen.
//!
//! Pure: it takes what callers sent and were told, and the topic's content, read when nothing was under way any more.

mod answered;
mod answers;
mod content;
mod planted;

use std::fmt;

use super::history::{Calls, Topic};

/// What must never be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A record was answered as written, or as a duplicate of one that was, and is not in the topic.
    Lost,
    /// A record is not at the partition and offset of its answer.
    Misplaced,
    /// A record was answered as not written, and is in the topic.
    WrittenAfterAll,
    /// One send is in the topic more than once.
    Doubled,
    /// Two sends with one message id, to one sidecar process, are in the topic.
    IdDoubled,
    /// A record was answered as a duplicate, and is no retry, or was written by itself.
    FalseDuplicate,
    /// In a partition, records of one stream or one request stand in another order than they were sent in.
    OutOfOrder,
    /// A record is in the topic, though one before it in its stream or request was answered as not sent.
    SentAfterStop,
    /// Records of one key are in two partitions.
    KeyMoved,
    /// A record in the topic has another key or value than it was sent with.
    Altered,
    /// A record is in the topic that nobody has sent.
    Foreign,
    AnsweredTwice,
    /// A record was never answered on a stream that ended in order.
    Unanswered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    what: String,
}

impl Violation {
    /// Of a send.
    fn of(rule: Rule, caller: usize, send: usize, callers: &[Calls], what: &str) -> Self {
        let sent = callers[caller].sent[send];
        let what = format!("caller {caller}, send {send}: {sent:?}: {what}");
        Self { rule, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What is wrong with the answers that callers were given.
pub fn judge(topic: &Topic, callers: &[Calls]) -> Vec<Violation> {
    let (mut violations, seen) = content::look(topic, callers);
    violations.extend(answers::look(topic, callers, &seen));
    violations
}
