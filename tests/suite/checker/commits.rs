//! What is delivered is the topic's, all of it; and what is committed is settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Rule, Topic, Violation, timeline::Timeline};
use crate::history::{Event, Key};

pub(super) fn content(topic: &Topic, timeline: &Timeline<'_>) -> Vec<Violation> {
    let mut keys: HashMap<(i32, i64), &Key> = HashMap::new();
    for (partition, records) in topic {
        keys.extend(
            records
                .iter()
                .map(|(offset, key)| ((*partition, *offset), key)),
        );
    }
    let mut violations = Vec::new();
    for given in &timeline.given {
        let what = given.what;
        if keys.get(&(what.partition, what.offset)) != Some(&&what.key) {
            violations.push(Violation::new(
                Rule::NotInTopic,
                given.at,
                format!("{}/{} with key {:?}", what.partition, what.offset, what.key),
            ));
        }
    }
    violations
}

pub(super) fn commits(topic: &Topic, history: &[Event], timeline: &Timeline<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // What was delivered and may not be settled yet, by partition.
    let mut open: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for given in &timeline.given {
        let offsets = open.entry(given.what.partition).or_default();
        offsets.insert(given.what.offset);
    }
    let delivered = open.clone();
    let acks = timeline
        .items
        .iter()
        .filter(|item| timeline.may_settle(item));
    let mut acks = acks.peekable();
    let mut last: Vec<i64> = Vec::new();
    let mut highest: Vec<i64> = Vec::new();
    for (at, event) in history.iter().enumerate() {
        let Event::Committed { offsets } = event else {
            continue;
        };
        while let Some(ack) = acks.next_if(|ack| ack.sent < at) {
            let what = timeline.given[ack.given].what;
            open.entry(what.partition).or_default().remove(&what.offset);
        }
        for (partition, offset) in offsets.iter().enumerate() {
            let first = open.get(&(partition as i32)).and_then(BTreeSet::first);
            if let Some(first) = first.filter(|first| *first < offset) {
                violations.push(Violation::new(
                    Rule::CommitPastUnsettled,
                    at,
                    format!(
                        "partition {partition}: {offset} is committed, and nobody has acked {first}"
                    ),
                ));
            }
        }
        last.clone_from(offsets);
        highest.resize(offsets.len(), -1);
        for (highest, offset) in highest.iter_mut().zip(offsets) {
            *highest = (*highest).max(*offset);
        }
    }
    for ack in acks {
        let what = timeline.given[ack.given].what;
        open.entry(what.partition).or_default().remove(&what.offset);
    }
    for (partition, records) in topic {
        let delivered = delivered.get(partition).cloned().unwrap_or_default();
        let missing: Vec<i64> = records
            .iter()
            .map(|(offset, _)| *offset)
            .filter(|offset| !delivered.contains(offset))
            .collect();
        if !missing.is_empty() {
            violations.push(Violation::new(
                Rule::Skipped,
                history.len(),
                format!("partition {partition}: {missing:?} are never delivered"),
            ));
        }
        let committed = last.get(*partition as usize).copied().unwrap_or(-1);
        // A request that timed out may lie in a broker and be carried out when a later one was: nothing numbers commits. So what moves back is
        // no mistake if it is put right.
        let before = highest.get(*partition as usize).copied().unwrap_or(-1);
        if committed < before {
            violations.push(Violation::new(
                Rule::CommitMovedBack,
                history.len(),
                format!("partition {partition}: from {before} to {committed}"),
            ));
            // What is left is left for that.
            continue;
        }
        let mut left = records.iter().map(|(offset, _)| *offset);
        // Of what is not delivered at all the rule above speaks.
        let Some(left) = left.find(|offset| *offset >= committed && delivered.contains(offset))
        else {
            continue;
        };
        let is_open = open.get(partition).is_some_and(|open| open.contains(&left));
        let rule = if is_open {
            Rule::Forgotten
        } else {
            Rule::AckDropped
        };
        violations.push(Violation::new(
            rule,
            history.len(),
            format!(
                "partition {partition}: {committed} is committed at the end, and {left} is left"
            ),
        ));
    }
    violations
}
