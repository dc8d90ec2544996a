//! A token is good for one settle, in one hold, at one member; and a nack counts.

use std::collections::HashMap;

use super::{
    Rule, Violation,
    timeline::{Ending, Timeline},
};
use crate::history::Action;

/// Settles that succeeded and should not have, by item.
pub(super) fn stale(timeline: &Timeline<'_>) -> HashMap<usize, Violation> {
    // By hold and offset: when each delivery came.
    let mut deliveries: HashMap<(usize, i64), Vec<usize>> = HashMap::new();
    for given in &timeline.given {
        if let Some(hold) = given.hold {
            let place = (hold, given.what.offset);
            deliveries.entry(place).or_default().push(given.at);
        }
    }
    let mut settled: HashMap<usize, usize> = HashMap::new();
    let mut stale = HashMap::new();
    for (index, item) in timeline.items.iter().enumerate() {
        let Some(done) = item.done_at() else { continue };
        let (given, hold) = timeline.given_of(item);
        let Some((hold, number)) = hold.zip(given.hold) else {
            continue;
        };
        let gone = hold
            .end
            .filter(|end| end.how != Ending::Stream && end.at < item.sent);
        let newer = deliveries[&(number, given.what.offset)]
            .iter()
            .find(|at| **at > given.at && **at < item.sent);
        let why = if let Some(end) = gone {
            format!("its partition was gone at event {}", end.at)
        } else if let Some(newer) = newer {
            format!("its record was delivered again at event {newer}")
        } else if let Some(first) = settled.insert(item.given, item.sent) {
            format!("the settle of event {first} had used it")
        } else if timeline.streams[&item.stream].member != hold.member {
            format!("it is member {}'s", hold.member)
        } else {
            continue;
        };
        let what = given.what;
        let violation = Violation::new(
            Rule::StaleTokenApplied,
            done,
            format!(
                "the token of event {} for {}/{} settles at event {}: {why}",
                given.at, what.partition, what.offset, item.sent
            ),
        );
        stale.insert(index, violation);
    }
    stale
}

pub(super) fn attempts(timeline: &Timeline<'_>) -> Vec<Violation> {
    let mut nacked: HashMap<usize, usize> = HashMap::new();
    for item in &timeline.items {
        if item.action == Action::Nack && item.is_done() {
            nacked.insert(item.given, item.sent);
        }
    }
    let mut last: HashMap<(usize, i64), usize> = HashMap::new();
    let mut violations = Vec::new();
    for (index, given) in timeline.given.iter().enumerate() {
        let Some(hold) = given.hold else { continue };
        let Some(before) = last.insert((hold, given.what.offset), index) else {
            continue;
        };
        let Some(sent) = nacked.get(&before).filter(|sent| **sent < given.at) else {
            continue;
        };
        let attempt = timeline.given[before].what.attempt;
        if given.what.attempt <= attempt {
            violations.push(Violation::new(
                Rule::AttemptNotRaised,
                given.at,
                format!(
                    "{}/{} was nacked at event {sent} with attempt {attempt} and comes with attempt {}",
                    given.what.partition, given.what.offset, given.what.attempt
                ),
            ));
        }
    }
    violations
}
