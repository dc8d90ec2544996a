//! The history with its facts tied together: which hold a delivery belongs to, which delivery a settle is of, and what is known of when.
//!
//! A hold is what one stream saw of one assignment of a partition, from its `Assigned` to its `Revoked`, `Lost` or the stream's end.
//! Everything a stream is told happened at its sidecar before `at`, where it was noted, and after `since`, where the newest request was sent
//! whose answer came before it. Between the two nobody knows; a rule may say only what holds wherever it was.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{Rule, Violation};
use crate::history::{Action, Change, Delivery, Event, Level, MemberId, Outcome, StreamId};

pub struct Hold {
    pub stream: StreamId,
    pub member: MemberId,
    pub partition: i32,
    pub at: usize,
    pub since: usize,
    pub end: Option<HoldEnd>,
    /// The first that the stream was told of the partition: its member may have had it for long.
    pub is_first: bool,
    /// Its member was stopped while it had the partition, or may have been.
    pub stopped: Option<usize>,
    /// Its member was told that it is lost.
    pub is_lost: bool,
    pub killed: Option<usize>,
}

#[derive(Clone, Copy)]
pub struct HoldEnd {
    pub at: usize,
    pub since: usize,
    pub how: Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Revoked,
    Lost,
    /// The stream is gone; its member may hold the partition on.
    Stream,
}

impl Hold {
    /// The group may have given the partition away without its knowing.
    pub fn is_doubtful(&self) -> bool {
        self.stopped.is_some() || self.is_lost
    }

    pub fn ending(&self) -> Option<Ending> {
        self.end.map(|end| end.how)
    }

    /// Up to here the partition was surely its member's.
    pub fn sure_until(&self) -> usize {
        if self.is_lost {
            return 0;
        }
        let ends = [self.end.map(|end| end.since), self.stopped, self.killed];
        ends.into_iter().flatten().min().unwrap_or(usize::MAX)
    }
}

pub struct Given<'a> {
    pub at: usize,
    pub since: usize,
    pub what: &'a Delivery,
    /// Absent: the partition was not the stream's.
    pub hold: Option<usize>,
}

/// An item of a settle, for a token that was given out.
pub struct Item {
    pub sent: usize,
    pub stream: StreamId,
    pub action: Action,
    /// Of which delivery.
    pub given: usize,
    pub answer: Option<(usize, Outcome)>,
}

impl Item {
    pub fn is_done(&self) -> bool {
        self.done_at().is_some()
    }

    pub fn done_at(&self) -> Option<usize> {
        self.answer
            .filter(|(_, outcome)| *outcome == Outcome::Done)
            .map(|(at, _)| at)
    }
}

pub struct Stream {
    pub member: MemberId,
    pub window: usize,
    pub level: Level,
    since: usize,
    /// By request: when it was sent, its items, whether it was answered.
    requests: HashMap<u64, (usize, Vec<Option<usize>>, bool)>,
    pub ended: Option<usize>,
    clean: bool,
    open: HashMap<i32, usize>,
    told: HashSet<i32>,
    revoking: HashMap<i32, usize>,
}

#[derive(Default)]
pub struct Timeline<'a> {
    pub given: Vec<Given<'a>>,
    pub holds: Vec<Hold>,
    pub items: Vec<Item>,
    pub streams: HashMap<StreamId, Stream>,
    pub by_token: HashMap<&'a Bytes, usize>,
    killed: HashMap<MemberId, usize>,
    stopped: HashMap<MemberId, Vec<usize>>,
    /// Of what is wrong by itself.
    pub violations: Vec<Violation>,
}

impl<'a> Timeline<'a> {
    pub fn of(history: &'a [Event]) -> Self {
        let mut timeline = Self::default();
        for (at, event) in history.iter().enumerate() {
            timeline.take(at, event);
        }
        let is_over = |stream: &Stream| stream.ended.is_none() || stream.clean;
        for (id, stream) in timeline.streams.iter().filter(|(_, one)| is_over(one)) {
            for (request, (sent, _, _)) in stream.requests.iter().filter(|(_, one)| !one.2) {
                timeline.violations.push(Violation::new(
                    Rule::Answers,
                    *sent,
                    format!("request {request} of stream {id} is never answered"),
                ));
            }
        }
        for index in 0..timeline.holds.len() {
            let (stopped, is_lost) = (timeline.stop_of(index), timeline.was_lost(index));
            let hold = &mut timeline.holds[index];
            let killed = timeline.killed.get(&hold.member).copied();
            hold.killed = killed.filter(|at| hold.end.is_none_or(|end| *at < end.at));
            (hold.stopped, hold.is_lost) = (stopped, is_lost);
        }
        timeline
    }

    /// The other holds of the member of one, of its partition.
    fn beside(&self, index: usize) -> impl Iterator<Item = &Hold> {
        let hold = &self.holds[index];
        let is_beside =
            move |other: &&Hold| (other.member, other.partition) == (hold.member, hold.partition);
        self.holds.iter().filter(is_beside)
    }

    /// When its member was stopped in the assignment that a hold is of.
    fn stop_of(&self, index: usize) -> Option<usize> {
        let hold = &self.holds[index];
        // One that came to an assignment that was there already: it began after the end of the last one that is known of.
        let ends = self.beside(index).filter_map(|other| other.end);
        let ends = ends.filter(|end| end.how != Ending::Stream && end.at < hold.since);
        let since = match hold.is_first {
            true => ends.map(|end| end.since).max().unwrap_or(0),
            false => hold.since,
        };
        let mut stops = self
            .stopped
            .get(&hold.member)
            .into_iter()
            .flatten()
            .copied();
        stops.find(|at| *at > since && hold.end.is_none_or(|end| *at < end.at))
    }

    /// Whether its member lost the assignment that a hold is of, whatever its own stream was told.
    fn was_lost(&self, index: usize) -> bool {
        let hold = &self.holds[index];
        let is_meanwhile = |other: &Hold| {
            let began = hold.end.is_none_or(|end| other.at < end.at);
            began
                && other
                    .end
                    .is_some_and(|end| end.how == Ending::Lost && end.at > hold.at)
        };
        hold.ending() != Some(Ending::Revoked) && self.beside(index).any(is_meanwhile)
    }

    fn wrong(&mut self, rule: Rule, at: usize, what: String) {
        self.violations.push(Violation::new(rule, at, what));
    }

    fn take(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Opened {
                stream,
                member,
                window,
                level,
            } => {
                let opened = Stream {
                    member: *member,
                    window: *window,
                    level: *level,
                    since: at,
                    requests: HashMap::new(),
                    ended: None,
                    clean: false,
                    open: HashMap::new(),
                    told: HashSet::new(),
                    revoking: HashMap::new(),
                };
                self.streams.insert(*stream, opened);
            }
            Event::Ended { stream, clean } => {
                let facts = self.streams.get_mut(stream).expect("opened");
                (facts.ended, facts.clean) = (Some(at), *clean);
                let end = HoldEnd {
                    at,
                    since: facts.since,
                    how: Ending::Stream,
                };
                for hold in facts.open.drain().map(|(_, hold)| hold) {
                    self.holds[hold].end = Some(end);
                }
            }
            Event::Partition {
                stream,
                partition,
                change,
            } => self.partition(at, *stream, *partition, *change),
            Event::Delivered(what) => self.delivered(at, what),
            Event::Settle {
                stream,
                request,
                items,
            } => {
                let mut known = Vec::new();
                for (token, action) in items {
                    let given = self.by_token.get(token).copied();
                    known.push(given.map(|given| {
                        self.items.push(Item {
                            sent: at,
                            stream: *stream,
                            action: *action,
                            given,
                            answer: None,
                        });
                        self.items.len() - 1
                    }));
                }
                let facts = self.streams.get_mut(stream).expect("opened");
                facts.requests.insert(*request, (at, known, false));
            }
            Event::Settled {
                stream,
                request,
                outcomes,
            } => {
                let facts = self.streams.get_mut(stream).expect("opened");
                match facts.requests.get_mut(request) {
                    Some((sent, items, answered @ false)) => {
                        *answered = true;
                        facts.since = facts.since.max(*sent);
                        for (item, outcome) in items.iter().zip(outcomes) {
                            if let Some(item) = item {
                                self.items[*item].answer = Some((at, *outcome));
                            }
                        }
                    }
                    _ => self.wrong(
                        Rule::Answers,
                        at,
                        format!("request {request} of stream {stream} is answered again"),
                    ),
                }
            }
            Event::Killed { member } => {
                self.killed.insert(*member, at);
            }
            Event::Stopped { member } => self.stopped.entry(*member).or_default().push(at),
            Event::Committed { .. } => {}
        }
    }

    fn partition(&mut self, at: usize, stream: StreamId, partition: i32, change: Change) {
        let facts = self.streams.get_mut(&stream).expect("opened");
        let end = |how| HoldEnd {
            at,
            since: facts.since,
            how,
        };
        let is_first = facts.told.insert(partition);
        match change {
            Change::Assigned => {
                facts.revoking.remove(&partition);
                facts.open.entry(partition).or_insert_with(|| {
                    self.holds.push(Hold {
                        stream,
                        member: facts.member,
                        partition,
                        at,
                        since: facts.since,
                        end: None,
                        is_first,
                        stopped: None,
                        is_lost: false,
                        killed: None,
                    });
                    self.holds.len() - 1
                });
            }
            Change::Revoking => {
                facts.revoking.insert(partition, at);
            }
            // A stream that came while the partition was being revoked was not told that it is there.
            Change::Revoked | Change::Lost => {
                let how = match change {
                    Change::Lost => Ending::Lost,
                    _ => Ending::Revoked,
                };
                facts.revoking.remove(&partition);
                if let Some(hold) = facts.open.remove(&partition) {
                    self.holds[hold].end = Some(end(how));
                }
            }
        }
    }

    fn delivered(&mut self, at: usize, what: &'a Delivery) {
        let facts = &self.streams[&what.stream];
        let place = format!("{}/{}", what.partition, what.offset);
        let is_revoking = facts.revoking.contains_key(&what.partition);
        let open = facts.open.get(&what.partition).copied();
        let hold = open.filter(|_| !is_revoking);
        let since = facts.since;
        if hold.is_none() {
            let stream = what.stream;
            self.wrong(
                Rule::NotOwned,
                at,
                format!("{place} is delivered on stream {stream}, which does not have its partition (being revoked: {is_revoking})"),
            );
        }
        self.given.push(Given {
            at,
            since,
            what,
            hold,
        });
        let given = self.given.len() - 1;
        if self.by_token.insert(&what.token, given).is_some() {
            self.wrong(
                Rule::TokenReused,
                at,
                format!("{place} comes with a token that was given out before"),
            );
        }
    }

    /// The delivery that a settle is of, with its hold.
    pub fn given_of(&self, item: &Item) -> (&Given<'a>, Option<&Hold>) {
        let given = &self.given[item.given];
        (given, given.hold.map(|hold| &self.holds[hold]))
    }

    /// Whether this is an ack that may have settled its record.
    pub fn may_settle(&self, item: &Item) -> bool {
        item.action == Action::Ack
            && match item.answer.map(|(_, outcome)| outcome) {
                None | Some(Outcome::Done) => true,
                // DURABLE: it may have been recorded; whether the last commit got through, nobody could say.
                Some(Outcome::Moved) => {
                    let Stream { level, member, .. } = self.streams[&item.stream];
                    let (_, hold) = self.given_of(item);
                    level == Level::Durable
                        && hold.is_some_and(|hold| {
                            let is_there = hold.end.is_none_or(|end| end.at > item.sent);
                            hold.member == member && is_there
                        })
                }
                Some(_) => false,
            }
    }

    /// Whether the member of `hold` may have forgotten what it had recorded there by `sent`, before `until`.
    pub fn may_forget(&self, hold: &Hold, sent: usize, until: usize) -> bool {
        if hold.is_doubtful() || hold.ending() == Some(Ending::Revoked) {
            return hold.is_doubtful();
        }
        let is_between = |at: &usize| *at > sent && *at < until;
        let killed = self.killed.get(&hold.member);
        let stopped = self.stopped.get(&hold.member).into_iter().flatten();
        let lost = self.holds.iter().filter(|other| {
            let is_same = (other.member, other.partition) == (hold.member, hold.partition);
            is_same && other.ending() == Some(Ending::Lost)
        });
        // It may be killed a while before what it recorded last is noted.
        killed.is_some_and(|at| *at < until)
            || stopped.copied().any(|at| is_between(&at))
            || lost.filter_map(|other| other.end).any(|end| end.at > sent)
    }

    /// Whether `given` left its sidecar after `item` had been done there.
    pub fn is_after(&self, given: &Given<'_>, item: &Item) -> bool {
        let hold = given.hold.map(|hold| &self.holds[hold]);
        let (_, of) = self.given_of(item);
        let Some(((hold, of), done)) = hold.zip(of).zip(item.done_at()) else {
            return false;
        };
        if done > given.at {
            return false;
        }
        // What one stream is told has its order; and who began after that knew.
        if hold.stream == item.stream || hold.since > done && !hold.is_first {
            return true;
        }
        // Two members have a partition one after the other: who gave after the other one had it gave after all that the other one did.
        let is_successor = hold.member != of.member && !of.is_doubtful() && given.since > of.at;
        !hold.is_doubtful() && (given.since > done || is_successor)
    }
}
