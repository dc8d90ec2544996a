//! The order of deliveries: of records of one key (KEY), or of one partition (PARTITION).
//!
//! A record is open for a delivery if it must not be overtaken by it: nobody had sent an ack for it (`Overtaken`), or it is delivered in the
//! same hold and its member's clients had not acked it since (`OvertakenAgain`: a member that delivers a record has not settled it in this
//! assignment, so after a rebalance or a kill the order begins anew at the first record that comes again; what was settled and is known to be
//! does not come again and holds up nothing). With KEY no record comes while one of its key below it is open. With PARTITION all open ones
//! below it must be with the same stream: delivered, and not given back by a settle that was answered.
//! Null keys have no order. Of records that are never delivered another rule speaks.

use std::collections::{BTreeSet, HashMap};

use super::{
    Mode, Rule, Violation,
    timeline::{Given, Item, Timeline},
};
use crate::history::{Action, Event, Key, MemberId};

/// What has an order of its own: a key in a partition, or, with no key, the partition.
type Lane = (i32, Key);

#[derive(Default)]
struct Order {
    mode: Option<Mode>,
    /// Nobody has sent an ack.
    open: HashMap<Lane, BTreeSet<i64>>,
    /// By hold: delivered in it at some time, and not acked since.
    open_in: HashMap<(usize, Lane), BTreeSet<i64>>,
    /// When each record came first in a hold.
    first: HashMap<(usize, i64), usize>,
    /// PARTITION: what a hold's stream has, since when.
    out: HashMap<usize, HashMap<i64, usize>>,
    holds: HashMap<(MemberId, i32), Vec<usize>>,
}

pub(super) fn order(history: &[Event], timeline: &Timeline<'_>, mode: Mode) -> Vec<Violation> {
    let mut violations = Vec::new();
    if mode == Mode::Unordered {
        return violations;
    }
    let mut order = Order::of(timeline, mode);
    let mut answered: Vec<&Item> = timeline
        .items
        .iter()
        .filter(|item| item.is_done())
        .collect();
    answered.sort_by_key(|item| item.done_at());
    let (mut given, mut sent) = (timeline.given.iter(), timeline.items.iter().peekable());
    let mut answered = answered.into_iter().peekable();
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Delivered(_) => violations.extend(given.next().and_then(|one| order.given(one))),
            Event::Settle { .. } => {
                while let Some(item) = sent.next_if(|item| item.sent == at) {
                    if timeline.may_settle(item) {
                        order.acked(timeline, item);
                    }
                }
            }
            Event::Settled { .. } => {
                while let Some(item) = answered.next_if(|item| item.done_at() == Some(at)) {
                    if item.action != Action::Ack {
                        order.given_back(timeline, item);
                    }
                }
            }
            _ => {}
        }
    }
    violations
}

impl Order {
    fn of(timeline: &Timeline<'_>, mode: Mode) -> Self {
        let mut order = Self {
            mode: Some(mode),
            ..Self::default()
        };
        for (index, hold) in timeline.holds.iter().enumerate() {
            let place = (hold.member, hold.partition);
            order.holds.entry(place).or_default().push(index);
        }
        for given in &timeline.given {
            let offset = given.what.offset;
            let Some((lane, hold)) = order.lane(given).zip(given.hold) else {
                continue;
            };
            order.open.entry(lane.clone()).or_default().insert(offset);
            order
                .open_in
                .entry((hold, lane))
                .or_default()
                .insert(offset);
            order.first.entry((hold, offset)).or_insert(given.at);
        }
        order
    }

    fn lane(&self, given: &Given<'_>) -> Option<Lane> {
        let what = given.what;
        match self.mode {
            Some(Mode::Key) => what
                .key
                .is_some()
                .then(|| (what.partition, what.key.clone())),
            _ => Some((what.partition, None)),
        }
    }

    fn given(&mut self, given: &Given<'_>) -> Option<Violation> {
        let (lane, hold) = (self.lane(given)?, given.hold?);
        let offset = given.what.offset;
        let out = self.out.entry(hold).or_default();
        let is_overtaken = |open: Option<&BTreeSet<i64>>| {
            let mut below = open?.range(..offset);
            below
                .find(|below| self.mode == Some(Mode::Key) || !out.contains_key(below))
                .copied()
        };
        let first = is_overtaken(self.open.get(&lane));
        let again = is_overtaken(self.open_in.get(&(hold, lane)));
        out.insert(offset, given.at);
        let rule = if first.is_some() {
            Rule::Overtaken
        } else {
            Rule::OvertakenAgain
        };
        let below = first.or(again)?;
        Some(Violation::new(
            rule,
            given.at,
            format!(
                "partition {}: {offset} comes before {below} is settled",
                given.what.partition
            ),
        ))
    }

    fn acked(&mut self, timeline: &Timeline<'_>, item: &Item) {
        let (given, hold) = timeline.given_of(item);
        let Some(lane) = self.lane(given) else { return };
        let offset = given.what.offset;
        if let Some(open) = self.open.get_mut(&lane) {
            open.remove(&offset);
        }
        let Some(hold) = hold else { return };
        // A record may have moved to another stream of its member.
        for index in &self.holds[&(hold.member, hold.partition)] {
            let first = self.first.get(&(*index, offset));
            if first.is_some_and(|first| *first < item.sent)
                && let Some(open) = self.open_in.get_mut(&(*index, lane.clone()))
            {
                open.remove(&offset);
            }
        }
    }

    fn given_back(&mut self, timeline: &Timeline<'_>, item: &Item) {
        let given = &timeline.given[item.given];
        // Of what another stream was answered the order is not known.
        if item.stream != given.what.stream {
            return;
        }
        if let Some(out) = given.hold.and_then(|hold| self.out.get_mut(&hold)) {
            // What came after it was sent has come again.
            out.retain(|offset, since| *offset < given.what.offset || *since > item.sent);
        }
    }
}
