//! A stream holds no more than its window.
//!
//! What a stream holds is what it was given and has not begun to settle, in partitions that it still has. With PARTITION, giving one back gives
//! back what comes after it, and until that is answered nobody knows how much that is: it is not counted.

use std::collections::{HashMap, HashSet};

use super::{Mode, Rule, Violation, timeline::Timeline};
use crate::history::{Action, Change, Event, StreamId};

/// What was given back and has no answer yet.
struct Rewind {
    /// Who asked for it, by which request.
    by: (StreamId, u64),
    /// Whose.
    stream: StreamId,
    partition: i32,
    offset: i64,
}

pub(super) fn windows(history: &[Event], timeline: &Timeline<'_>, mode: Mode) -> Vec<Violation> {
    let mut holding: HashMap<StreamId, HashSet<(i32, i64)>> = HashMap::new();
    let mut rewinds: Vec<Rewind> = Vec::new();
    let mut given = timeline.given.iter();
    let mut violations = Vec::new();
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Delivered(what) => {
                let is_owned = given.next().is_some_and(|given| given.hold.is_some());
                let is_rewound = rewinds.iter().any(|rewind| {
                    (rewind.stream, rewind.partition) == (what.stream, what.partition)
                        && rewind.offset < what.offset
                });
                if !is_owned || is_rewound {
                    continue;
                }
                let held = holding.entry(what.stream).or_default();
                held.insert((what.partition, what.offset));
                let window = timeline.streams[&what.stream].window;
                if held.len() > window {
                    violations.push(Violation::new(
                        Rule::WindowExceeded,
                        at,
                        format!("stream {} holds {} of {window}", what.stream, held.len()),
                    ));
                }
            }
            Event::Settle {
                stream,
                request,
                items,
            } => {
                for (token, action) in items {
                    let Some(given) = timeline.by_token.get(token) else {
                        continue;
                    };
                    let what = timeline.given[*given].what;
                    let held = holding.entry(what.stream).or_default();
                    held.remove(&(what.partition, what.offset));
                    if mode == Mode::Partition && *action != Action::Ack {
                        held.retain(|(partition, offset)| {
                            *partition != what.partition || *offset < what.offset
                        });
                        rewinds.push(Rewind {
                            by: (*stream, *request),
                            stream: what.stream,
                            partition: what.partition,
                            offset: what.offset,
                        });
                    }
                }
            }
            Event::Settled {
                stream, request, ..
            } => rewinds.retain(|rewind| {
                // The order of another stream's answers is not known.
                rewind.by != (*stream, *request) || rewind.stream != *stream
            }),
            Event::Partition {
                stream,
                partition,
                change: Change::Revoked | Change::Lost,
            } => {
                let held = holding.entry(*stream).or_default();
                held.retain(|(of, _)| of != partition);
                rewinds.retain(|rewind| (rewind.stream, rewind.partition) != (*stream, *partition));
            }
            _ => {}
        }
    }
    violations
}
