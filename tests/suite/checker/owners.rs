//! A partition has one owner.

use std::collections::{HashMap, HashSet};

use super::{
    Rule, Violation,
    timeline::{Hold, Timeline},
};

pub(super) fn owners(timeline: &Timeline<'_>, stale: &HashMap<usize, Violation>) -> Vec<Violation> {
    let mut holds: HashMap<i32, Vec<(usize, &Hold)>> = HashMap::new();
    for (index, hold) in timeline.holds.iter().enumerate() {
        holds.entry(hold.partition).or_default().push((index, hold));
    }
    // What a member did with a partition, and between which two events it did so.
    let given = timeline
        .given
        .iter()
        .filter_map(|given| Some((given.hold?, given.since, given.at, "delivers")));
    let settled = timeline
        .items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            // What a stale token settled is said already.
            let hold = timeline.given[item.given]
                .hold
                .filter(|_| !stale.contains_key(&index))?;
            Some((hold, item.sent, item.done_at()?, "settles"))
        });
    let mut seen = HashSet::new();
    let mut violations = Vec::new();
    for (index, from, to, what) in given.chain(settled) {
        let hold = &timeline.holds[index];
        if hold.is_doubtful() {
            continue;
        }
        for (other_index, other) in &holds[&hold.partition] {
            let is_at_once =
                other.member != hold.member && other.at < from && to < other.sure_until();
            if is_at_once && seen.insert((index, *other_index)) {
                violations.push(Violation::new(
                    Rule::TwoOwners,
                    to,
                    format!(
                        "member {} {what} in partition {}, which member {} has since event {}",
                        hold.member, hold.partition, other.member, other.at
                    ),
                ));
            }
        }
    }
    violations
}
