//! Judges what happened to a group by the promises of a subscription: each rule has a name, and says what must never be seen.
//!
//! Pure: it takes a topic's true content and a history, and gives what is wrong with it. A rule is broken only by what cannot have been right,
//! wherever between a request and its answer the sidecar did its part (see `timeline`); so a slow client is no violation. A member that was
//! stopped, or had to be told that its partitions were lost, may for a while not know that it is out: what it delivers then counts only
//! against what it could know.

mod again;
mod commits;
mod order;
mod owners;
mod planted;
pub mod random;
mod simulator;
mod timeline;
mod tokens;
mod windows;

use std::{collections::BTreeMap, fmt};

use self::timeline::Timeline;
use crate::history::{Event, Key};

/// By partition: every record's offset and key.
pub type Topic = BTreeMap<i32, Vec<(i64, Key)>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Key,
    Partition,
    Unordered,
}

/// What must never be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// At the end a record was never delivered.
    Skipped,
    /// At the end a record was delivered, and acked by nobody.
    Forgotten,
    /// At the end a record that was acked is above the committed offset, with none before it that was not.
    AckDropped,
    /// Something is delivered that is not in the topic.
    NotInTopic,
    /// An offset is committed beyond a record that nobody has acked.
    CommitPastUnsettled,
    /// At the end a committed offset is lower than it was.
    CommitMovedBack,
    /// KEY: a record comes before one of its key with a lower offset was acked, by anybody.
    /// PARTITION: a record comes on a stream that does not hold every one with a lower offset that was not acked by anybody.
    Overtaken,
    /// The same among records that come again: one that its member delivers in this assignment is unsettled until it is acked there, whatever
    /// became of it before.
    OvertakenAgain,
    /// A member delivers from, or settles in, a partition while another one has it.
    TwoOwners,
    /// A stream is given a record of a partition that it was not told of, or that is being revoked, or is gone.
    NotOwned,
    /// A record is delivered after its ack was answered DURABLE.
    DurableAgain,
    /// A record is delivered after its ack was answered RECORDED, and its member neither died nor lost the partition: it handed it over.
    RecordedAgain,
    /// A record that a stream holds comes to it again, though neither it nor, with PARTITION, one before it was given back.
    Unprompted,
    /// A record comes again after a nack, and its attempt is not higher.
    AttemptNotRaised,
    /// A settle is answered with success for a token that was no longer good: its partition was gone, its record was delivered again, it was
    /// settled already, or it was another member's.
    StaleTokenApplied,
    /// A token is given out twice.
    TokenReused,
    /// A stream is given more than its window holds.
    WindowExceeded,
    /// A settle is answered twice, or never on a stream that goes on or ended in order.
    Answers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// By which event.
    pub at: usize,
    pub what: String,
}

impl Violation {
    fn new(rule: Rule, at: usize, what: String) -> Self {
        Self { rule, at, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at event {}: {}", self.rule, self.at, self.what)
    }
}

/// What is wrong with a history whose end is that all is settled and committed.
pub fn judge(topic: &Topic, history: &[Event], mode: Mode) -> Vec<Violation> {
    let mut timeline = Timeline::of(history);
    let mut violations = std::mem::take(&mut timeline.violations);
    let stale = tokens::stale(&timeline);
    violations.extend(stale.values().cloned());
    violations.extend(tokens::attempts(&timeline));
    violations.extend(commits::content(topic, &timeline));
    violations.extend(commits::commits(topic, history, &timeline));
    violations.extend(order::order(history, &timeline, mode));
    violations.extend(owners::owners(&timeline, &stale));
    violations.extend(again::settled(&timeline, &stale));
    violations.extend(again::unprompted(&timeline, mode));
    violations.extend(windows::windows(history, &timeline, mode));
    violations.sort_by_key(|violation| (violation.at, violation.rule));
    violations
}
