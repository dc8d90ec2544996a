//! What of a stream's settles Kafka's commits cover: the answers of DURABLE, and for every stream the request up to which all is covered.
//!
//! A request is remembered by what it touched: for each partition, how often its ledger had settled by then, and the highest offset among its
//! acks. A commit covers it when the map beside it knew of as many settlements, and reaches as far. Pure: no clock, no I/O.
//! What always holds: nothing is told to be covered before Kafka has taken a commit that covers it; a request of DURABLE is answered once.

use std::collections::VecDeque;

use crate::consume::{Confirm, Refusal};

/// What a commit says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    /// How often the ledger had settled.
    pub(super) settlements: u64,
    /// Of what was settled, offsets below this are in it.
    pub(super) below: i64,
}

/// The acks of a request in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which slot.
    pub(super) slot: u32,
    /// How often its ledger had settled, these included.
    pub(super) settlements: u64,
    /// The highest of their offsets.
    pub(super) highest: i64,
    /// Which items of the request they are; empty where nobody will ask.
    pub(super) items: Vec<u32>,
}

/// The settlements of a part that is not settled yet: a record on its way to the dead letters.
pub(super) const PENDING: u64 = u64::MAX;

impl Part {
    /// Whether the same commits cover both.
    pub(super) fn joins(&self, other: &Self) -> bool {
        self.slot == other.slot && self.settlements != PENDING && other.settlements != PENDING
    }
}

#[derive(Debug)]
struct Request {
    id: u64,
    /// Not covered yet.
    open: Vec<Part>,
    refused: Vec<(u32, Refusal)>,
    is_answered: bool,
    /// Something of it went away uncovered, and its stream was told that it was recorded.
    is_lost: bool,
    /// Which commit could cover it first.
    since: u64,
}

/// The requests of a stream that are not covered yet.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    confirm: Confirm,
    requests: VecDeque<Request>,
    /// Those that are not answered yet.
    awaited: usize,
    through: u64,
}

impl Unconfirmed {
    pub(super) fn new(confirm: Confirm) -> Self {
        Self {
            confirm,
            requests: VecDeque::new(),
            awaited: 0,
            through: 0,
        }
    }

    /// A request was settled as far as it could be; `commits` counts the commits that were sent before it.
    pub(super) fn add(
        &mut self,
        id: u64,
        parts: Vec<Part>,
        refused: Vec<(u32, Refusal)>,
        commits: u64,
    ) {
        let is_durable = self.confirm == Confirm::Durable;
        // What the same commit will cover is one, where no answer is awaited: so the list grows with commits, not with settles.
        if let Some(last) = self.requests.back_mut()
            && !is_durable
            && last.since == commits
        {
            last.id = id;
            for part in parts {
                match last.open.iter_mut().find(|open| open.joins(&part)) {
                    Some(open) => {
                        open.settlements = open.settlements.max(part.settlements);
                        open.highest = open.highest.max(part.highest);
                    }
                    None => last.open.push(part),
                }
            }
            return;
        }
        self.awaited += usize::from(is_durable);
        self.requests.push_back(Request {
            id,
            open: parts,
            refused,
            is_answered: !is_durable,
            is_lost: false,
            since: commits,
        });
    }

    /// Kafka has taken a commit.
    pub(super) fn covered(&mut self, slot: u32, by: Covered) {
        for request in &mut self.requests {
            request.open.retain(|part| {
                part.slot != slot || part.settlements > by.settlements || part.highest >= by.below
            });
        }
    }

    /// The copy of a dead letter is written, and its record is settled.
    pub(super) fn moved(&mut self, slot: u32, offset: i64, settlements: u64) {
        let parts = self
            .requests
            .iter_mut()
            .flat_map(|request| &mut request.open);
        for part in parts {
            if part.slot == slot && part.highest == offset && part.settlements == PENDING {
                part.settlements = settlements;
            }
        }
    }

    /// The partition is gone; what is not covered may be delivered again elsewhere.
    pub(super) fn gone(&mut self, slot: u32, why: Refusal) {
        for request in &mut self.requests {
            for part in request.open.extract_if(.., |part| part.slot == slot) {
                match self.confirm {
                    Confirm::Durable => {
                        let moved = part.items.into_iter().map(|item| (item, why));
                        request.refused.extend(moved);
                    }
                    Confirm::None | Confirm::Recorded => request.is_lost = true,
                }
            }
        }
    }

    /// The requests of DURABLE that can be answered now, each with the items that failed, in their order.
    pub(super) fn answers(&mut self) -> Vec<(u64, Vec<(u32, Refusal)>)> {
        let mut answers = Vec::new();
        for request in &mut self.requests {
            if request.open.is_empty() && !request.is_answered {
                request.is_answered = true;
                self.awaited -= 1;
                let mut refused = std::mem::take(&mut request.refused);
                refused.sort_unstable_by_key(|(item, _)| *item);
                answers.push((request.id, refused));
            }
        }
        let is_over = |request: &mut Request| request.open.is_empty() && !request.is_lost;
        while let Some(request) = self.requests.pop_front_if(is_over) {
            self.through = request.id;
        }
        answers
    }

    /// All requests up to this one are covered, or were answered as failed; 0 for none.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// How many answers are awaited.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(slot: u32, settlements: u64, highest: i64, items: &[u32]) -> Part {
        Part {
            slot,
            settlements,
            highest,
            items: items.to_vec(),
        }
    }

    fn by(settlements: u64, below: i64) -> Covered {
        Covered { settlements, below }
    }

    #[test]
    fn a_request_is_answered_when_all_its_partitions_are_covered_and_only_once() {
        let mut unconfirmed = Unconfirmed::new(Confirm::Durable);
        unconfirmed.add(
            1,
            vec![part(0, 3, 10, &[0]), part(1, 5, 7, &[1])],
            Vec::new(),
            0,
        );
        unconfirmed.covered(0, by(3, 11));
        assert_eq!((unconfirmed.answers(), unconfirmed.awaited()), (vec![], 1));
        unconfirmed.covered(1, by(4, 100));
        assert!(
            unconfirmed.answers().is_empty(),
            "the commit did not know of it"
        );
        unconfirmed.covered(1, by(9, 7));
        assert!(
            unconfirmed.answers().is_empty(),
            "it was left out of the map"
        );
        unconfirmed.covered(1, by(9, 8));
        assert_eq!(unconfirmed.answers(), [(1, vec![])]);
        assert_eq!((unconfirmed.answers(), unconfirmed.through()), (vec![], 1));
    }

    #[test]
    fn a_later_request_may_be_answered_first_but_the_cumulative_form_waits() {
        let mut unconfirmed = Unconfirmed::new(Confirm::Durable);
        unconfirmed.add(1, vec![part(0, 1, 0, &[0])], Vec::new(), 0);
        unconfirmed.add(2, vec![part(1, 1, 0, &[0])], Vec::new(), 0);
        unconfirmed.add(3, Vec::new(), vec![(0, Refusal::BadToken)], 0);
        unconfirmed.covered(1, by(1, 1));
        assert_eq!(
            unconfirmed.answers(),
            [(2, vec![]), (3, vec![(0, Refusal::BadToken)])]
        );
        assert_eq!(unconfirmed.through(), 0);
        unconfirmed.covered(0, by(1, 1));
        assert_eq!(unconfirmed.answers(), [(1, vec![])]);
        assert_eq!(unconfirmed.through(), 3);
    }

    #[test]
    fn a_dead_letter_is_covered_after_its_copy_is_written_and_not_before() {
        for confirm in [Confirm::Durable, Confirm::Recorded] {
            let mut unconfirmed = Unconfirmed::new(confirm);
            unconfirmed.add(1, vec![part(0, PENDING, 5, &[0])], Vec::new(), 0);
            unconfirmed.add(2, vec![part(0, 9, 7, &[0])], Vec::new(), 0);
            unconfirmed.covered(0, by(1000, 100));
            unconfirmed.answers();
            assert_eq!(unconfirmed.through(), 0);
            unconfirmed.moved(0, 4, 1001);
            unconfirmed.moved(1, 5, 1001);
            unconfirmed.covered(0, by(1001, 100));
            unconfirmed.answers();
            assert_eq!(unconfirmed.through(), 0, "another record's copy");
            unconfirmed.moved(0, 5, 1002);
            unconfirmed.covered(0, by(1001, 100));
            unconfirmed.answers();
            assert_eq!(unconfirmed.through(), 0, "the commit did not know of it");
            unconfirmed.covered(0, by(1002, 100));
            unconfirmed.answers();
            assert_eq!((unconfirmed.through(), unconfirmed.awaited()), (2, 0));
        }
    }

    #[test]
    fn what_leaves_uncovered_is_answered_as_moved_or_never_passed() {
        let mut unconfirmed = Unconfirmed::new(Confirm::Durable);
        unconfirmed.add(
            1,
            vec![part(0, 2, 1, &[0, 2])],
            vec![(1, Refusal::AlreadySettled)],
            0,
        );
        unconfirmed.gone(0, Refusal::PartitionMoved);
        let moved = Refusal::PartitionMoved;
        assert_eq!(
            unconfirmed.answers(),
            [(
                1,
                vec![(0, moved), (1, Refusal::AlreadySettled), (2, moved)]
            )]
        );
        assert_eq!(unconfirmed.through(), 1);
        let mut unconfirmed = Unconfirmed::new(Confirm::Recorded);
        unconfirmed.add(1, vec![part(0, 2, 1, &[])], Vec::new(), 0);
        unconfirmed.gone(0, Refusal::PartitionMoved);
        unconfirmed.add(2, Vec::new(), Vec::new(), 1);
        assert!(unconfirmed.answers().is_empty());
        assert_eq!((unconfirmed.through(), unconfirmed.awaited()), (0, 0));
    }

    #[test]
    fn without_answers_the_list_grows_with_commits_and_not_with_settles() {
        let mut unconfirmed = Unconfirmed::new(Confirm::Recorded);
        for id in 1..=1000_u32 {
            let commits = u64::from(id / 100);
            unconfirmed.add(
                u64::from(id),
                vec![part(id % 3, u64::from(id), i64::from(id), &[])],
                Vec::new(),
                commits,
            );
        }
        assert_eq!(unconfirmed.requests.len(), 11);
        for slot in 0..3 {
            unconfirmed.covered(slot, by(250, 251));
        }
        unconfirmed.answers();
        assert_eq!(
            unconfirmed.through(),
            199,
            "those of 200 to 299 are covered together"
        );
    }
}
