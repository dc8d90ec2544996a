//! What is delivered again, and why.

use std::collections::HashMap;

use super::{
    Mode, Rule, Violation,
    timeline::{Given, Item, Timeline},
};
use crate::history::{Action, Level};

/// Of records whose ack was answered.
pub(super) fn settled(
    timeline: &Timeline<'_>,
    stale: &HashMap<usize, Violation>,
) -> Vec<Violation> {
    let mut acks: HashMap<(i32, i64), Vec<&Item>> = HashMap::new();
    for (index, item) in timeline.items.iter().enumerate() {
        // What a stale token settled is said already.
        if item.action == Action::Ack && item.is_done() && !stale.contains_key(&index) {
            let what = timeline.given[item.given].what;
            let place = (what.partition, what.offset);
            acks.entry(place).or_default().push(item);
        }
    }
    let mut violations = Vec::new();
    for given in &timeline.given {
        let place = (given.what.partition, given.what.offset);
        let acks = acks.get(&place).into_iter().flatten();
        let broken = acks.filter_map(|ack| broken(timeline, given, ack)).min();
        if let Some((rule, sent)) = broken {
            let (partition, offset) = place;
            violations.push(Violation::new(
                rule,
                given.at,
                format!("{partition}/{offset} is delivered again after its ack of event {sent}"),
            ));
        }
    }
    violations
}

/// Which rule a delivery breaks, after an ack.
fn broken(timeline: &Timeline<'_>, given: &Given<'_>, ack: &Item) -> Option<(Rule, usize)> {
    let (_, hold) = timeline.given_of(ack);
    let hold = hold?;
    if !timeline.is_after(given, ack) {
        return None;
    }
    let is_same_hold = given.hold == timeline.given[ack.given].hold;
    match timeline.streams[&ack.stream].level {
        Level::Durable => Some((Rule::DurableAgain, ack.sent)),
        Level::Recorded if is_same_hold || !timeline.may_forget(hold, ack.sent, given.at) => {
            Some((Rule::RecordedAgain, ack.sent))
        }
        Level::Recorded => None,
    }
}

/// Of records that a stream holds.
pub(super) fn unprompted(timeline: &Timeline<'_>, mode: Mode) -> Vec<Violation> {
    let mut own: HashMap<usize, Vec<&Item>> = HashMap::new();
    // By hold: what was given back in it.
    let mut given_back: HashMap<usize, Vec<&Item>> = HashMap::new();
    for item in &timeline.items {
        own.entry(item.given).or_default().push(item);
        if let Some(hold) = timeline.given[item.given].hold
            && item.action != Action::Ack
            && mode == Mode::Partition
        {
            given_back.entry(hold).or_default().push(item);
        }
    }
    let mut last: HashMap<(usize, i64), usize> = HashMap::new();
    let mut violations = Vec::new();
    for (index, given) in timeline.given.iter().enumerate() {
        let Some(hold) = given.hold else { continue };
        let offset = given.what.offset;
        let Some(before) = last.insert((hold, offset), index) else {
            continue;
        };
        let at = timeline.given[before].at;
        let is_given_back = own
            .get(&before)
            .into_iter()
            .flatten()
            .any(|item| match item.action {
                // The rules above speak of it.
                Action::Ack => item.done_at().is_some_and(|done| done < given.at),
                Action::Nack | Action::Release => item.sent < given.at,
            });
        // One that was answered before the record came did not take it along.
        let given_back = given_back.get(&hold).map_or(&[][..], Vec::as_slice);
        let sent = given_back.partition_point(|item| item.sent < given.at);
        let is_rewound = given_back[..sent].iter().rev().any(|item| {
            let is_below = timeline.given[item.given].what.offset < offset;
            // The order of another stream's answers is not known.
            let is_elsewhere = item.stream != given.what.stream;
            is_below && (is_elsewhere || item.answer.is_none_or(|(answered, _)| answered > at))
        });
        if !is_given_back && !is_rewound {
            violations.push(Violation::new(
                Rule::Unprompted,
                given.at,
                format!(
                    "{}/{offset} came at event {at} and comes again",
                    given.what.partition
                ),
            ));
        }
    }
    violations
}
