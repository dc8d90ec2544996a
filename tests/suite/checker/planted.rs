//! The checker is checked: what is right passes, and each thing that is made wrong in it is found by the rule that names it, and by no other.

use std::{collections::HashMap, sync::Mutex};

use bytes::Bytes;

use super::{Mode, Rule, Topic, judge, random::Random, simulator::simulate};
use crate::history::{Action, Change, Delivery, Event, Level, Outcome, StreamId};

const MODES: [Mode; 3] = [Mode::Key, Mode::Partition, Mode::Unordered];
const LEVELS: [Level; 2] = [Level::Recorded, Level::Durable];

/// A history that something is made wrong in.
struct Wrong {
    topic: Topic,
    events: Vec<Event>,
    random: Random,
    mode: Mode,
    /// As it was: the deliveries by token, the settles by partition and offset.
    deliveries: HashMap<Bytes, Delivery>,
    settles: HashMap<(i32, i64), Vec<Settle>>,
}

impl Wrong {
    fn new(seed: u64, mode: Mode, level: Level) -> Self {
        let (topic, events) = simulated(seed, mode, level);
        let mut answers = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            if let Event::Settled {
                stream,
                request,
                outcomes,
            } = event
            {
                answers.insert((*stream, *request), (at, outcomes.clone()));
            }
        }
        let mut deliveries: HashMap<Bytes, Delivery> = HashMap::new();
        let mut settles: HashMap<(i32, i64), Vec<Settle>> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Delivered(one) => {
                    deliveries.insert(one.token.clone(), one.clone());
                }
                Event::Settle {
                    stream,
                    request,
                    items,
                } => {
                    for (item, (token, action)) in items.iter().enumerate() {
                        let Delivery {
                            partition, offset, ..
                        } = deliveries[token];
                        let answer = answers.get(&(*stream, *request));
                        settles
                            .entry((partition, offset))
                            .or_default()
                            .push(Settle {
                                at,
                                item,
                                stream: *stream,
                                token: token.clone(),
                                action: *action,
                                answer: answer
                                    .map(|(answered, outcomes)| (*answered, outcomes[item])),
                            });
                    }
                }
                _ => {}
            }
        }
        Self {
            topic,
            events,
            random: Random(!seed),
            mode,
            deliveries,
            settles,
        }
    }

    /// The number of an event for which `is` holds, the first from a random one on.
    fn one(&mut self, is: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let count = self.events.len();
        let from = self.random.below(count as u64) as usize;
        (from..count).chain(0..from).find(|&at| is(self, at))
    }

    fn delivery(&self, at: usize) -> Option<&Delivery> {
        match &self.events[at] {
            Event::Delivered(delivery) => Some(delivery),
            _ => None,
        }
    }

    fn delivery_mut(&mut self, at: usize) -> &mut Delivery {
        match &mut self.events[at] {
            Event::Delivered(delivery) => delivery,
            other => panic!("{other}"),
        }
    }

    fn delivery_of(&self, token: &Bytes) -> &Delivery {
        &self.deliveries[token]
    }

    /// The settles of a record.
    fn settles(&self, partition: i32, offset: i64) -> &[Settle] {
        self.settles
            .get(&(partition, offset))
            .map_or(&[], Vec::as_slice)
    }

    fn answer(&self, of: StreamId, to: u64) -> Option<(usize, &Vec<Outcome>)> {
        self.events
            .iter()
            .enumerate()
            .find_map(|(at, event)| match event {
                Event::Settled {
                    stream,
                    request,
                    outcomes,
                } if (*stream, *request) == (of, to) => Some((at, outcomes)),
                _ => None,
            })
    }

    /// When a stream was last told something of a partition before `at`, and what.
    fn told(&self, of: StreamId, about: i32, at: usize) -> Option<(usize, Change)> {
        self.events[..at]
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, event)| match event {
                Event::Partition {
                    stream,
                    partition,
                    change,
                } if (*stream, *partition) == (of, about) => Some((at, *change)),
                _ => None,
            })
    }

    /// Whether a stream is told nothing of a partition between two events.
    fn is_one_hold(&self, stream: StreamId, partition: i32, from: usize, to: usize) -> bool {
        self.told(stream, partition, from) == self.told(stream, partition, to)
    }

    fn member(&self, of: StreamId) -> u32 {
        let opened = self.events.iter().find_map(|event| match event {
            Event::Opened { stream, member, .. } if *stream == of => Some(*member),
            _ => None,
        });
        opened.expect("opened")
    }

    /// Whether a member is ever stopped or killed.
    fn is_troubled(&self, member: u32) -> bool {
        let is_its = |event: &Event| match event {
            Event::Killed { member: one } | Event::Stopped { member: one } => *one == member,
            _ => false,
        };
        self.events.iter().any(is_its)
    }

    /// Nobody's window is ever in question.
    fn widen(&mut self) {
        for event in &mut self.events {
            if let Event::Opened { window, .. } = event {
                *window += 100;
            }
        }
    }

    /// From an event on, a token is settled in the place of another.
    fn replace(&mut self, from: usize, old: &Bytes, new: &Bytes) {
        for event in &mut self.events[from..] {
            if let Event::Settle { items, .. } = event {
                for (token, _) in items.iter_mut().filter(|(token, _)| token == old) {
                    *token = new.clone();
                }
            }
        }
    }

    /// Moves an event to before an earlier one.
    fn advance(&mut self, from: usize, to: usize) {
        let event = self.events.remove(from);
        self.events.insert(to, event);
    }

    /// A record is delivered once more to a stream, which acks it with its settle of event `at`.
    fn again(&mut self, at: usize, from: Delivery) {
        let token = fresh();
        let Event::Settle {
            stream,
            request,
            items,
        } = &mut self.events[at]
        else {
            panic!("{}", self.events[at]);
        };
        items.push((token.clone(), Action::Ack));
        let (stream, request) = (*stream, *request);
        for event in &mut self.events {
            if let Event::Settled {
                stream: of,
                request: to,
                outcomes,
            } = event
                && (*of, *to) == (stream, request)
            {
                outcomes.push(Outcome::Done);
            }
        }
        let delivered = Delivery {
            stream,
            token,
            ..from
        };
        self.events.insert(at, Event::Delivered(delivered));
        self.widen();
    }

    /// Whether a stream has sent a settle and read its answer between two events.
    fn has_asked(&self, of: StreamId, from: usize, to: usize) -> bool {
        (from..to).any(|sent| match self.events[sent] {
            Event::Settle {
                stream, request, ..
            } => {
                stream == of
                    && self
                        .answer(stream, request)
                        .is_some_and(|(told, _)| told < to)
            }
            _ => false,
        })
    }

    fn remove_settles(&mut self, partition: i32, offset: i64, which: impl Fn(&Settle) -> bool) {
        let settles = self
            .settles
            .remove(&(partition, offset))
            .unwrap_or_default();
        // From the last item on, so that the numbers of the others stay.
        for settle in settles.iter().rev().filter(|one| which(one)) {
            if let Event::Settle { items, .. } = &mut self.events[settle.at] {
                items.remove(settle.item);
            }
            if let Some((at, _)) = settle.answer
                && let Event::Settled { outcomes, .. } = &mut self.events[at]
            {
                outcomes.remove(settle.item);
            }
        }
    }

    /// No more than this is ever committed.
    fn cap(&mut self, partition: i32, offset: i64) {
        for event in &mut self.events {
            if let Event::Committed { offsets } = event {
                let committed = &mut offsets[partition as usize];
                *committed = offset.min(*committed);
            }
        }
    }

    fn committed(&self, at: usize, partition: usize) -> Option<i64> {
        match &self.events[at] {
            Event::Committed { offsets } => Some(offsets[partition]),
            _ => None,
        }
    }

    fn set_committed(&mut self, at: usize, partition: usize, offset: i64) {
        if let Event::Committed { offsets } = &mut self.events[at] {
            offsets[partition] = offset;
        }
    }

    /// The looks at what is committed before and after one.
    fn neighbours(&self, at: usize) -> Option<(usize, usize)> {
        let is_look = |at: &usize| self.committed(*at, 0).is_some();
        let before = (0..at).rev().find(is_look)?;
        let after = (at + 1..self.events.len()).find(is_look)?;
        is_look(&at).then_some((before, after))
    }
}

struct Settle {
    at: usize,
    item: usize,
    stream: StreamId,
    token: Bytes,
    action: Action,
    answer: Option<(usize, Outcome)>,
}

impl Settle {
    fn is_done(&self) -> bool {
        self.answer
            .is_some_and(|(_, outcome)| outcome == Outcome::Done)
    }
}

/// A token that was never given out.
fn fresh() -> Bytes {
    Bytes::from_static(b"planted")
}

/// In so many histories of each mode and level is a place looked for.
const SEEDS: u64 = 20;

/// The history of a seed, made once.
fn simulated(seed: u64, mode: Mode, level: Level) -> (Topic, Vec<Event>) {
    type Made = Mutex<Vec<((u64, Mode, Level), (Topic, Vec<Event>))>>;
    static MADE: Made = Mutex::new(Vec::new());
    let key = (seed, mode, level);
    let made = MADE.lock().expect("no test fails while it looks");
    if let Some((_, made)) = made.iter().find(|(of, _)| *of == key) {
        return made.clone();
    }
    drop(made);
    let new = simulate(seed, mode, level);
    let mut made = MADE.lock().expect("no test fails while it looks");
    made.push((key, new.clone()));
    new
}

#[test]
fn what_is_right_passes() {
    let is_soak = std::env::var_os("OUTRIGGER_SOAK").is_some();
    let seeds = if is_soak { 500 } else { 10 };
    for mode in MODES {
        for level in LEVELS {
            for seed in 0..seeds {
                let (topic, events) = match is_soak {
                    true => simulate(seed, mode, level),
                    false => simulated(seed, mode, level),
                };
                let violations = judge(&topic, &events, mode);
                assert!(
                    violations.is_empty(),
                    "{mode:?} {level:?} seed {seed}: {}",
                    violations[0]
                );
            }
        }
    }
}

/// Makes `plant` do its work in many histories of each mode; it says whether it found a place for it.
#[track_caller]
fn planted(rule: Rule, modes: &[Mode], levels: &[Level], plant: impl Fn(&mut Wrong) -> Option<()>) {
    for &mode in modes {
        for &level in levels {
            let mut found = 0;
            for seed in 0..SEEDS {
                // Enough of it.
                if found == 5 {
                    break;
                }
                let mut wrong = Wrong::new(seed, mode, level);
                if plant(&mut wrong).is_none() {
                    continue;
                }
                found += 1;
                let violations = judge(&wrong.topic, &wrong.events, mode);
                assert!(
                    !violations.is_empty(),
                    "{mode:?} {level:?} seed {seed}: it is not found"
                );
                for violation in violations {
                    assert_eq!(
                        violation.rule, rule,
                        "{mode:?} {level:?} seed {seed}: {violation}"
                    );
                }
            }
            assert!(
                found > 0,
                "{mode:?} {level:?}: no history has a place for it"
            );
        }
    }
}

#[test]
fn a_commit_past_a_gap_is_found() {
    planted(Rule::CommitPastUnsettled, &MODES, &LEVELS, |wrong| {
        let partition = wrong.random.below(3) as usize;
        let at = wrong.one(|wrong, at| {
            let Some((_, after)) = wrong.neighbours(at) else {
                return false;
            };
            let first = wrong.committed(at, partition).expect("a look");
            let settles = wrong.settles(partition as i32, first);
            let is_acked_before = settles
                .iter()
                .any(|one| one.action == Action::Ack && one.at < at);
            !settles.is_empty()
                && !is_acked_before
                && wrong.committed(after, partition) > Some(first)
        })?;
        let committed = wrong.committed(at, partition)?;
        wrong.set_committed(at, partition, committed + 1);
        Some(())
    });
}

#[test]
fn a_committed_offset_that_moves_back_is_found() {
    planted(Rule::CommitMovedBack, &MODES, &LEVELS, |wrong| {
        let partition = wrong.random.below(3) as usize;
        let looks = (0..wrong.events.len()).rev();
        let mut looks = looks.filter(|at| wrong.committed(*at, partition).is_some());
        // That the highest was seen is what is to be found.
        let (last, before) = (looks.next()?, looks.next()?);
        let committed = wrong.committed(before, partition)?;
        let lower = wrong.random.below(committed.max(0) as u64 + 1) as i64;
        wrong.set_committed(last, partition, lower);
        (lower < committed).then_some(())
    });
}

#[test]
fn a_late_commit_is_no_mistake_if_it_is_put_right() {
    let topic = Topic::from([(0, Vec::new())]);
    let found = |commits: &[i64]| {
        let commits = commits.iter();
        let events = commits.map(|offset| Event::Committed {
            offsets: vec![*offset],
        });
        let found = judge(&topic, &events.collect::<Vec<_>>(), Mode::Key);
        found.iter().map(|one| one.rule).collect::<Vec<_>>()
    };
    assert_eq!(found(&[1, 3, 2, 3]), []);
    assert_eq!(found(&[1, 2, 1]), [Rule::CommitMovedBack]);
}

#[test]
fn an_ack_that_is_dropped_is_found() {
    planted(Rule::AckDropped, &MODES, &LEVELS, |wrong| {
        let partition = wrong.random.below(3) as i32;
        let records = &wrong.topic[&partition];
        let (offset, _) = records[wrong.random.below(records.len() as u64) as usize];
        wrong.cap(partition, offset);
        Some(())
    });
}

#[test]
fn a_record_that_is_skipped_is_found() {
    planted(Rule::Skipped, &MODES, &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| {
            wrong.delivery(at).is_some_and(|one| {
                let settles = wrong.settles(one.partition, one.offset);
                settles.iter().all(|one| one.action == Action::Ack)
            })
        })?;
        let Delivery {
            partition, offset, ..
        } = *wrong.delivery(at)?;
        wrong.remove_settles(partition, offset, |_| true);
        let is_it = |event: &Event| matches!(event, Event::Delivered(one) if (one.partition, one.offset) == (partition, offset));
        wrong.events.retain(|event| !is_it(event));
        Some(())
    });
}

#[test]
fn a_record_that_is_given_back_and_never_comes_again_is_found() {
    planted(Rule::Forgotten, &[Mode::Unordered], &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| wrong.delivery(at).is_some())?;
        let Delivery {
            partition, offset, ..
        } = *wrong.delivery(at)?;
        wrong.remove_settles(partition, offset, |one| one.action == Action::Ack);
        wrong.cap(partition, offset);
        wrong.widen();
        Some(())
    });
}

#[test]
fn a_record_that_is_not_in_the_topic_is_found() {
    planted(Rule::NotInTopic, &[Mode::Unordered], &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| wrong.delivery(at).is_some())?;
        wrong.delivery_mut(at).key = Some(Bytes::from_static(b"another"));
        Some(())
    });
}

/// Moves a delivery to before one with a lower offset of its lane and hold, so that it overtakes it. Of those it comes before, `settled` says
/// whether they had been acked elsewhere.
fn overtake(wrong: &mut Wrong, settled: bool) -> Option<()> {
    // By event: the record below it that it will overtake.
    let below = |wrong: &Wrong, at: usize| {
        let one = wrong.delivery(at)?;
        one.key.as_ref()?;
        let earlier = (0..at).filter(|before| {
            let Some(other) = wrong.delivery(*before) else {
                return false;
            };
            (other.stream, other.partition) == (one.stream, one.partition)
                && (wrong.mode == Mode::Partition || other.key == one.key)
                && wrong.is_one_hold(one.stream, one.partition, *before, at)
        });
        let earlier: Vec<usize> = earlier.collect();
        let last = *earlier.last()?;
        let other = wrong.delivery(last)?;
        let is_first = |of: &Delivery, at: usize| {
            !earlier.iter().any(|before| {
                *before < at
                    && wrong
                        .delivery(*before)
                        .is_some_and(|one| one.offset == of.offset)
            })
        };
        let was_acked = |of: &Delivery| {
            let settles = wrong.settles(of.partition, of.offset);
            let mut acks = settles
                .iter()
                .filter(|one| one.action == Action::Ack && one.at < last);
            if settled {
                acks.any(Settle::is_done)
            } else {
                acks.next().is_some()
            }
        };
        let is_fit = other.offset < one.offset
            && is_first(one, at)
            && is_first(other, last)
            && was_acked(one) == settled
            && was_acked(other) == settled;
        is_fit.then_some(last)
    };
    let at = wrong.one(|wrong, at| below(wrong, at).is_some())?;
    let to = below(wrong, at)?;
    wrong.advance(at, to);
    wrong.widen();
    Some(())
}

#[test]
fn a_record_that_overtakes_one_of_its_key_is_found() {
    planted(Rule::Overtaken, &[Mode::Key], &LEVELS, |wrong| {
        overtake(wrong, false)
    });
}

#[test]
fn a_record_that_overtakes_one_of_its_partition_is_found() {
    planted(Rule::Overtaken, &[Mode::Partition], &LEVELS, |wrong| {
        overtake(wrong, false)
    });
}

#[test]
fn a_record_that_overtakes_when_it_comes_again_is_found() {
    planted(
        Rule::OvertakenAgain,
        &[Mode::Partition],
        &[Level::Recorded],
        |wrong| overtake(wrong, true),
    );
}

/// Two records of one key are acked, and come again after a kill.
#[test]
fn a_record_that_overtakes_one_of_its_key_when_both_come_again_is_found() {
    let key = Some(Bytes::from_static(b"key"));
    let topic = Topic::from([(0, vec![(0, key.clone()), (1, key.clone())])]);
    let opened = |stream| Event::Opened {
        stream,
        member: stream,
        window: 10,
        level: Level::Recorded,
    };
    let assigned = |stream| Event::Partition {
        stream,
        partition: 0,
        change: Change::Assigned,
    };
    let given = |stream: StreamId, offset: i64| {
        let token = Bytes::from(format!("{stream}-{offset}"));
        let delivered = Event::Delivered(Delivery {
            stream,
            partition: 0,
            offset,
            key: key.clone(),
            attempt: 1,
            token: token.clone(),
        });
        let request = offset as u64 + 1;
        let settle = Event::Settle {
            stream,
            request,
            items: vec![(token, Action::Ack)],
        };
        let settled = Event::Settled {
            stream,
            request,
            outcomes: vec![Outcome::Done],
        };
        [delivered, settle, settled]
    };
    let history = |order: [i64; 2]| {
        let mut events = vec![opened(0), assigned(0)];
        events.extend(given(0, 0).into_iter().chain(given(0, 1)));
        events.push(Event::Killed { member: 0 });
        events.push(Event::Ended {
            stream: 0,
            clean: false,
        });
        events.extend([opened(1), assigned(1)]);
        events.extend(order.into_iter().flat_map(|offset| given(1, offset)));
        events.push(Event::Committed { offsets: vec![2] });
        events
    };
    assert_eq!(judge(&topic, &history([0, 1]), Mode::Key), []);
    let found = judge(&topic, &history([1, 0]), Mode::Key);
    assert_eq!(
        found.iter().map(|one| one.rule).collect::<Vec<_>>(),
        [Rule::OvertakenAgain]
    );
}

#[test]
fn two_owners_are_found() {
    planted(Rule::TwoOwners, &MODES, &LEVELS, |wrong| {
        // By the assignment of the second owner: the settle of the first one that it will come before.
        let early = |wrong: &Wrong, at: usize| {
            let Event::Partition {
                stream,
                partition,
                change: Change::Assigned,
            } = wrong.events[at]
            else {
                return None;
            };
            let member = wrong.member(stream);
            let is_open = |at: usize| {
                wrong.events[..at].iter().any(
                    |event| matches!(event, Event::Opened { stream: one, .. } if *one == stream),
                )
            };
            // Surely until after the first one has delivered.
            let end = wrong.events[at + 1..].iter().position(|event| match event {
                Event::Partition {
                    stream: of,
                    partition: one,
                    ..
                } => (*of, *one) == (stream, partition),
                Event::Ended { stream: of, .. } => *of == stream,
                _ => false,
            });
            let is_kept = end.is_none_or(|end| wrong.has_asked(stream, at + 1, at + 1 + end));
            (0..at).rev().find(|&sent| {
                let Event::Settle { stream: first, request, .. } = wrong.events[sent] else {
                    return false;
                };
                let owner = wrong.member(first);
                let Some((answered, _)) = wrong.answer(first, request) else {
                    return false;
                };
                let delivers_on = (answered..at).any(|later| {
                    wrong.delivery(later).is_some_and(|one| {
                        (one.stream, one.partition) == (first, partition)
                            && wrong.is_one_hold(first, partition, sent, later)
                    })
                });
                let is_taken = |event: &Event| matches!(event, Event::Partition { partition: of, change: Change::Assigned, .. } if *of == partition);
                owner != member
                    && !wrong.events[sent..at].iter().any(is_taken)
                    && delivers_on
                    && is_open(sent)
                    && wrong.is_one_hold(stream, partition, sent, at)
                    && is_kept
                    && !wrong.is_troubled(owner)
                    && !wrong.is_troubled(member)
            })
        };
        let at = wrong.one(|wrong, at| early(wrong, at).is_some())?;
        let to = early(wrong, at)?;
        wrong.advance(at, to);
        Some(())
    });
}

#[test]
fn a_delivery_after_revoked_is_found() {
    planted(Rule::NotOwned, &MODES, &LEVELS, |wrong| {
        deliver_after(wrong, Change::Revoked)
    });
}

#[test]
fn a_delivery_after_revoking_is_found() {
    planted(Rule::NotOwned, &MODES, &LEVELS, |wrong| {
        deliver_after(wrong, Change::Revoking)
    });
}

fn deliver_after(wrong: &mut Wrong, change: Change) -> Option<()> {
    let at = wrong.one(|wrong, at| matches!(wrong.events[at], Event::Partition { change: one, .. } if one == change))?;
    let Event::Partition {
        stream, partition, ..
    } = wrong.events[at]
    else {
        unreachable!("just found");
    };
    let last = (0..at).rev().find(|&before| {
        wrong
            .delivery(before)
            .is_some_and(|one| one.partition == partition)
    })?;
    let copy = Delivery {
        stream,
        token: fresh(),
        ..wrong.delivery(last)?.clone()
    };
    wrong.events.insert(at + 1, Event::Delivered(copy));
    Some(())
}

/// The lowest record of a partition comes again in a later hold, or in its own, though its ack was answered.
fn deliver_again(wrong: &mut Wrong, in_its_own: bool) -> Option<()> {
    let partition = wrong.random.below(3) as i32;
    let (lowest, _) = wrong.topic[&partition][0];
    let settles = wrong.settles(partition, lowest);
    let ack = settles
        .iter()
        .find(|one| one.action == Action::Ack && one.is_done())?;
    let (ack_token, ack_stream, (answered, _)) = (ack.token.clone(), ack.stream, ack.answer?);
    let delivery = wrong.delivery_of(&ack_token).clone();
    let given =
        wrong.one(|wrong, at| wrong.delivery(at).is_some_and(|one| one.token == ack_token))?;
    let hand_over = wrong.events[answered..].iter().position(|event| {
        matches!(event, Event::Partition { stream, partition: of, change: Change::Revoked } if *of == partition && *stream == ack_stream)
    });
    let at = wrong.one(|wrong, at| {
        let Event::Settle {
            stream, request, ..
        } = wrong.events[at]
        else {
            return false;
        };
        let assigned = wrong.told(stream, partition, at);
        let Some((since, Change::Assigned)) = assigned else {
            return false;
        };
        // The answer comes while it still has the partition.
        let is_its = wrong
            .answer(stream, request)
            .is_some_and(|(told, _)| wrong.told(stream, partition, told) == assigned);
        if !is_its {
            return false;
        }
        if in_its_own {
            return at > answered
                && stream == ack_stream
                && assigned == wrong.told(stream, partition, given);
        }
        // First of all that comes there.
        let is_begun = (since..at).any(|at| {
            wrong
                .delivery(at)
                .is_some_and(|one| (one.stream, one.partition) == (stream, partition))
        });
        !is_begun
            && hand_over.is_some_and(|hand_over| since > answered + hand_over)
            && wrong.has_asked(stream, answered + 1, at)
            && !wrong.is_troubled(wrong.member(stream))
            && !wrong.is_troubled(wrong.member(ack_stream))
    })?;
    wrong.again(at, delivery);
    Some(())
}

#[test]
fn a_durable_record_that_comes_again_is_found() {
    planted(Rule::DurableAgain, &MODES, &[Level::Durable], |wrong| {
        deliver_again(wrong, false)
    });
}

#[test]
fn a_recorded_record_that_comes_again_after_a_hand_over_is_found() {
    planted(Rule::RecordedAgain, &MODES, &[Level::Recorded], |wrong| {
        deliver_again(wrong, false)
    });
}

#[test]
fn a_settled_record_that_comes_again_at_once_is_found() {
    planted(Rule::RecordedAgain, &MODES, &[Level::Recorded], |wrong| {
        deliver_again(wrong, true)
    });
    planted(Rule::DurableAgain, &MODES, &[Level::Durable], |wrong| {
        deliver_again(wrong, true)
    });
}

#[test]
fn a_record_that_is_held_and_comes_again_is_found() {
    planted(Rule::Unprompted, &MODES, &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| {
            wrong.delivery(at).is_some_and(|one| {
                let gives_back = |event: &Event| matches!(event, Event::Settle { items, .. } if items.iter().any(|(_, action)| *action != Action::Ack));
                let assigned = wrong.told(one.stream, one.partition, at).map_or(0, |(at, _)| at);
                wrong.mode != Mode::Partition || !wrong.events[assigned..at].iter().any(gives_back)
            })
        })?;
        let token = fresh();
        let copy = Delivery {
            token: token.clone(),
            ..wrong.delivery(at)?.clone()
        };
        let old = wrong.delivery(at)?.token.clone();
        wrong.events.insert(at + 1, Event::Delivered(copy));
        wrong.replace(at, &old, &token);
        Some(())
    });
}

#[test]
fn an_attempt_that_is_not_raised_by_a_nack_is_found() {
    planted(Rule::AttemptNotRaised, &MODES, &LEVELS, |wrong| {
        let nacked = |wrong: &Wrong, at: usize| {
            let one = wrong.delivery(at)?;
            let before = (0..at).rev().find(|&before| {
                wrong.delivery(before).is_some_and(|other| {
                    (other.partition, other.offset) == (one.partition, one.offset)
                })
            })?;
            let other = wrong.delivery(before)?;
            let settles = wrong.settles(one.partition, one.offset);
            let is_nacked = settles.iter().any(|settle| {
                settle.token == other.token && settle.action == Action::Nack && settle.is_done()
            });
            let is_same = other.stream == one.stream
                && wrong.is_one_hold(one.stream, one.partition, before, at);
            (is_nacked && is_same).then_some(other.attempt)
        };
        let at = wrong.one(|wrong, at| nacked(wrong, at).is_some())?;
        wrong.delivery_mut(at).attempt = nacked(wrong, at)?;
        Some(())
    });
}

#[test]
fn a_stale_token_that_settles_is_found() {
    for refused in [
        Outcome::Moved,
        Outcome::Redelivered,
        Outcome::AlreadySettled,
    ] {
        planted(Rule::StaleTokenApplied, &MODES, &LEVELS, |wrong| {
            let stale = |wrong: &Wrong, at: usize| {
                let Event::Settled {
                    stream,
                    request,
                    outcomes,
                } = &wrong.events[at]
                else {
                    return None;
                };
                let sent = wrong.events.iter().position(|event| {
                    matches!(event, Event::Settle { stream: by, request: to, .. } if (by, to) == (stream, request))
                })?;
                let Event::Settle { items, .. } = &wrong.events[sent] else {
                    return None;
                };
                items
                    .iter()
                    .zip(outcomes)
                    .position(|((token, action), outcome)| {
                        let given = wrong.delivery_of(token);
                        let is_known = match refused {
                            // It was told so before it asked.
                            Outcome::Moved => {
                                let gone = wrong.told(given.stream, given.partition, sent);
                                gone.is_some_and(|(_, change)| change == Change::Revoked)
                            }
                            Outcome::Redelivered => {
                                (0..sent).rev().find_map(|at| {
                                    let one = wrong.delivery(at)?;
                                    ((one.stream, one.partition, one.offset)
                                        == (given.stream, given.partition, given.offset))
                                        .then_some(one.token != *token)
                                }) == Some(true)
                            }
                            _ => {
                                let settles = wrong.settles(given.partition, given.offset);
                                settles.iter().any(|one| {
                                    one.at < sent && one.token == *token && one.is_done()
                                })
                            }
                        };
                        *outcome == refused && *action == Action::Ack && is_known
                    })
            };
            let at = wrong.one(|wrong, at| stale(wrong, at).is_some())?;
            let item = stale(wrong, at)?;
            if let Event::Settled { outcomes, .. } = &mut wrong.events[at] {
                outcomes[item] = Outcome::Done;
            }
            Some(())
        });
    }
}

#[test]
fn a_token_that_is_given_out_twice_is_found() {
    planted(Rule::TokenReused, &MODES, &LEVELS, |wrong| {
        let is_used = |wrong: &Wrong, token: &Bytes, from: usize| {
            wrong.events[from..].iter().any(|event| matches!(event, Event::Settle { items, .. } if items.iter().any(|(one, _)| one == token)))
        };
        // One that nobody asks for any more: else it would be a question of what for.
        let old = |wrong: &Wrong, at: usize| {
            let earlier = (0..at).filter_map(|old| wrong.delivery(old));
            let mut tokens = earlier.map(|one| one.token.clone());
            tokens.find(|token| !is_used(wrong, token, at))
        };
        let at = wrong.one(|wrong, at| wrong.delivery(at).is_some() && old(wrong, at).is_some())?;
        let (token, new) = (old(wrong, at)?, wrong.delivery(at)?.token.clone());
        wrong.delivery_mut(at).token = token.clone();
        wrong.replace(at, &new, &token);
        wrong.widen();
        Some(())
    });
}

#[test]
fn a_window_that_is_exceeded_is_found() {
    planted(
        Rule::WindowExceeded,
        &[Mode::Key, Mode::Unordered],
        &LEVELS,
        |wrong| {
            let mut held: Vec<(StreamId, i32, i64)> = Vec::new();
            let mut most = (0, 0);
            for at in 0..wrong.events.len() {
                match &wrong.events[at] {
                    Event::Delivered(one) => {
                        held.push((one.stream, one.partition, one.offset));
                        let count = held
                            .iter()
                            .filter(|(stream, ..)| *stream == one.stream)
                            .count();
                        most = most.max((count, one.stream));
                    }
                    Event::Settle { items, .. } => {
                        for (token, _) in items {
                            let one = wrong.delivery_of(token);
                            let it = (one.stream, one.partition, one.offset);
                            held.retain(|other| *other != it);
                        }
                    }
                    Event::Partition {
                        stream,
                        partition,
                        change: Change::Revoked | Change::Lost,
                    } => {
                        held.retain(|(of, in_partition, _)| {
                            (of, in_partition) != (stream, partition)
                        });
                    }
                    _ => {}
                }
            }
            let (count, of) = most;
            for event in &mut wrong.events {
                if let Event::Opened { stream, window, .. } = event
                    && *stream == of
                {
                    *window = count - 1;
                }
            }
            Some(())
        },
    );
}

#[test]
fn an_answer_that_comes_twice_is_found() {
    planted(Rule::Answers, &MODES, &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| matches!(wrong.events[at], Event::Settled { .. }))?;
        let copy = wrong.events[at].clone();
        wrong.events.insert(at + 1, copy);
        Some(())
    });
}

#[test]
fn an_answer_that_never_comes_is_found() {
    planted(Rule::Answers, &MODES, &LEVELS, |wrong| {
        let at = wrong.one(|wrong, at| {
            let Event::Settled { stream, .. } = wrong.events[at] else {
                return false;
            };
            !wrong.events.iter().any(
                |event| matches!(event, Event::Ended { stream: ended, .. } if *ended == stream),
            )
        })?;
        wrong.events.remove(at);
        Some(())
    });
}
