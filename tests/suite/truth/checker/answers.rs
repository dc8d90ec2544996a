//! What callers were told, beside what the topic holds.

use std::collections::HashMap;

use super::{
    super::history::{Answer, Calls, Place, Topic},
    Rule, Violation,
    content::Seen,
};

pub(super) fn look(topic: &Topic, callers: &[Calls], seen: &Seen) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (caller, calls) in callers.iter().enumerate() {
        // The first send of each record to each sidecar process.
        let mut first: HashMap<(u32, u16), usize> = HashMap::new();
        let mut stopped = None;
        for (send, sent) in calls.sent.iter().enumerate() {
            if calls.has_ids {
                first.entry((sent.record, sent.life)).or_insert(send);
            }
            let copies = seen.copies[caller][send];
            let is_there = copies.count > 0;
            let mut found = |rule, what: &str| {
                violations.push(Violation::of(rule, caller, send, callers, what));
            };
            // Whether the send is where it is said to be.
            let is_at = |place: Place, send: usize| {
                let Some(offset) = place.offset else {
                    let copies = seen.copies[caller][send];
                    return u16::from(copies.partition) == place.partition;
                };
                let partition = topic.get(place.partition as usize);
                let there = partition.and_then(|records| records.get(offset as usize));
                there.is_some_and(|one| (one.caller as usize, one.send as usize) == (caller, send))
            };
            if is_there && stopped == Some(sent.call) {
                found(Rule::SentAfterStop, "it is in the topic");
            }
            match sent.answer {
                Answer::Nothing => found(Rule::Unanswered, "its stream ended in order"),
                Answer::Unknown | Answer::Possibly => {}
                Answer::NotWritten | Answer::NotSent => {
                    if sent.answer == Answer::NotSent {
                        stopped = Some(sent.call);
                    }
                    if is_there {
                        let what = format!("it is in partition {}", copies.partition);
                        found(Rule::WrittenAfterAll, &what);
                    }
                }
                Answer::Written(_) if !is_there => found(Rule::Lost, "it is nowhere"),
                Answer::Written(place) => {
                    if !is_at(place, send) {
                        let what = format!("it is in partition {}", copies.partition);
                        found(Rule::Misplaced, &what);
                    }
                }
                Answer::Duplicate(place) => {
                    let is_retry = first
                        .get(&(sent.record, sent.life))
                        .is_some_and(|first| *first < send);
                    let by = seen.by_id.get(&(caller as u16, sent.record, sent.life));
                    match by {
                        _ if is_there => found(Rule::FalseDuplicate, "it was written by itself"),
                        _ if !is_retry => found(Rule::FalseDuplicate, "it is the first"),
                        None => found(Rule::Lost, "no send of it is in the topic"),
                        Some(by) if !is_at(place, *by as usize) => {
                            found(Rule::Misplaced, &format!("send {by} wrote it"));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        for send in &calls.answered_again {
            let violation = Violation::of(
                Rule::AnsweredTwice,
                caller,
                *send as usize,
                callers,
                "its last answer",
            );
            violations.push(violation);
        }
    }
    violations
}
