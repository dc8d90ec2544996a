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
    let mut steps = Steps::default();
    for (at, event) in history.iter().enumerate() {
        let Event::Committed { offsets } = event else {
            continue;
        };
        while let Some(ack) = acks.next_if(|ack| ack.sent < at) {
            let what = timeline.given[ack.given].what;
            open.entry(what.partition).or_default().remove(&what.offset);
        }
        for (partition, offset) in offsets.iter().enumerate() {
            steps.commit(at, partition, *offset, &mut violations);
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
    }
    steps.end(history.len(), &mut violations);
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

/// What was committed of each partition, to find what moves back.
///
/// A request that timed out may lie in a broker and be carried out when a later one was: nothing numbers commits. So a copy of an earlier one is
/// no mistake if what it undid is committed again.
#[derive(Default)]
struct Steps(BTreeMap<usize, Step>);

struct Step {
    highest: i64,
    last: i64,
    all: BTreeSet<i64>,
}

impl Steps {
    fn commit(&mut self, at: usize, partition: usize, offset: i64, found: &mut Vec<Violation>) {
        let step = self.0.entry(partition).or_insert(Step {
            highest: -1,
            last: -1,
            all: BTreeSet::new(),
        });
        let highest = step.highest;
        if step.all.insert(offset) && offset < highest {
            let text = format!("partition {partition}: from {highest} to {offset}");
            found.push(Violation::new(Rule::CommitMovedBack, at, text));
        }
        step.highest = offset.max(highest);
        step.last = offset;
    }

    fn end(&self, at: usize, found: &mut Vec<Violation>) {
        for (partition, Step { highest, last, .. }) in &self.0 {
            if last < highest {
                let text = format!("partition {partition}: from {highest} to {last}, to the end");
                found.push(Violation::new(Rule::CommitMovedBack, at, text));
            }
        }
    }
}
