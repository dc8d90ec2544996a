//! What the topic holds, whatever was told of it: nothing twice, nothing out of order, nothing that was not sent so.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    super::history::{Calls, Topic},
    Rule, Violation,
};

/// How often a send is in the topic, and where first.
#[derive(Clone, Copy, Default)]
pub(super) struct Copies {
    pub(super) count: u8,
    pub(super) partition: u8,
}

pub(super) struct Seen {
    /// By caller and send.
    pub(super) copies: Vec<Vec<Copies>>,
    /// The first send that wrote a record with a message id, by its caller, itself and the sidecar process.
    pub(super) by_id: HashMap<(u16, u32, u16), u32>,
}

pub(super) fn look(topic: &Topic, callers: &[Calls]) -> (Vec<Violation>, Seen) {
    let mut violations = Vec::new();
    let copies = callers
        .iter()
        .map(|calls| vec![Copies::default(); calls.sent.len()]);
    let mut seen = Seen {
        copies: copies.collect(),
        by_id: HashMap::new(),
    };
    let mut partition_of: HashMap<u16, usize> = HashMap::new();
    for (partition, records) in topic.iter().enumerate() {
        let mut last: HashMap<(u16, u32), u32> = HashMap::new();
        for (offset, stored) in records.iter().enumerate() {
            let (caller, send) = (stored.caller as usize, stored.send as usize);
            let Some(sent) = callers.get(caller).and_then(|calls| calls.sent.get(send)) else {
                violations.push(Violation {
                    rule: Rule::Foreign,
                    what: format!("{partition}/{offset}: {stored:?}"),
                });
                continue;
            };
            let mut found = |rule, what: &str| {
                let what = format!("at {partition}/{offset}: {what}");
                violations.push(Violation::of(rule, caller, send, callers, &what));
            };
            if (sent.record, sent.key) != (stored.record, stored.key) {
                found(Rule::Altered, &format!("{stored:?}"));
            } else if *partition_of.entry(sent.key).or_insert(partition) != partition {
                found(Rule::KeyMoved, "its key is in another partition too");
            }
            let copies = &mut seen.copies[caller][send];
            copies.count = copies.count.saturating_add(1);
            if copies.count > 1 {
                found(Rule::Doubled, "it is elsewhere too");
                continue;
            }
            copies.partition = partition as u8;
            if callers[caller].has_ids {
                match seen.by_id.entry((stored.caller, sent.record, sent.life)) {
                    Entry::Occupied(first) => {
                        let what = format!("send {} of it is in the topic too", first.get());
                        found(Rule::IdDoubled, &what);
                    }
                    Entry::Vacant(first) => {
                        first.insert(stored.send);
                    }
                }
            }
            let before = last.insert((stored.caller, sent.call), stored.send);
            if let Some(before) = before.filter(|before| *before > stored.send) {
                found(Rule::OutOfOrder, &format!("it stands after send {before}"));
            }
        }
    }
    (violations, seen)
}
