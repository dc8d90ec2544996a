//! The ledger against its promises: examples, then any schedule against a model.

#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant as it is written"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

impl Weight for u64 {
    fn weight(&self) -> u64 {
        *self
    }
}

fn ledger(ordering: Ordering, offsets: &[i64]) -> Ledger<u64> {
    let mut ledger = Ledger::new(ordering, offsets[0], Vec::new());
    for &offset in offsets {
        assert_eq!(ledger.admit(offset, 10), Admitted::Waiting);
    }
    ledger
}

fn hand(ledger: &mut Ledger<u64>, stream: StreamId) -> Option<(i64, u32, u32)> {
    ledger
        .hand(stream)
        .map(|handed| (handed.offset, handed.serial, handed.attempt))
}

#[test]
fn the_frontier_waits_for_the_first_unsettled_record() {
    let mut ledger = ledger(Ordering::Unordered, &[5, 6, 9]);
    let tokens: Vec<_> = std::iter::from_fn(|| hand(&mut ledger, 1)).collect();
    assert_eq!(ledger.frontier(), 5);
    ledger.settle(9, tokens[2].1).unwrap();
    ledger.settle(6, tokens[1].1).unwrap();
    assert_eq!(ledger.frontier(), 5, "5 is not settled");
    ledger.settle(5, tokens[0].1).unwrap();
    assert_eq!(ledger.frontier(), 10, "all is settled: the position");
}

#[test]
fn a_record_is_settled_once() {
    let mut ledger = ledger(Ordering::Unordered, &[0, 1]);
    let (offset, serial, _) = hand(&mut ledger, 1).unwrap();
    assert_eq!(
        ledger.settle(offset, serial),
        Ok(Refund {
            stream: 1,
            bytes: 10
        })
    );
    assert_eq!(ledger.settle(offset, serial), Err(Stale::AlreadySettled));
}

#[test]
fn a_token_of_an_earlier_delivery_settles_nothing() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    let (_, first, attempt) = hand(&mut ledger, 1).unwrap();
    assert_eq!(attempt, 1);
    ledger.give_back(0, first, Attempt::Counted).unwrap();
    assert_eq!(ledger.settle(0, first), Err(Stale::Redelivered));
    let (_, second, attempt) = hand(&mut ledger, 2).unwrap();
    assert_eq!(attempt, 2);
    assert_eq!(ledger.settle(0, first), Err(Stale::Redelivered));
    assert!(ledger.settle(0, second).is_ok());
}

#[test]
fn a_release_is_not_an_attempt() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    let (_, serial, _) = hand(&mut ledger, 1).unwrap();
    ledger.give_back(0, serial, Attempt::NotCounted).unwrap();
    let handed = ledger.hand(1).unwrap();
    assert_eq!((handed.attempt, handed.again), (1, true));
}

#[test]
fn in_partition_order_a_nack_takes_the_later_deliveries_back() {
    let mut ledger = ledger(Ordering::Partition, &[0, 1, 2, 3]);
    let tokens: Vec<_> = (0..3).map(|_| hand(&mut ledger, 1).unwrap()).collect();
    ledger.settle(0, tokens[0].1).unwrap();
    let refunds = ledger.give_back(1, tokens[1].1, Attempt::Counted).unwrap();
    assert_eq!(refunds.len(), 2);
    assert_eq!(ledger.settle(2, tokens[2].1), Err(Stale::Redelivered));
    let again: Vec<_> = std::iter::from_fn(|| hand(&mut ledger, 1))
        .map(|h| (h.0, h.2))
        .collect();
    assert_eq!(again, [(1, 2), (2, 1), (3, 1)]);
}

#[test]
fn in_partition_order_one_stream_holds_the_partition() {
    let mut ledger = ledger(Ordering::Partition, &[0, 1]);
    let (_, serial, _) = hand(&mut ledger, 1).unwrap();
    assert_eq!(hand(&mut ledger, 2), None);
    ledger.settle(0, serial).unwrap();
    assert_eq!(hand(&mut ledger, 2).map(|h| h.0), Some(1));
    assert_eq!(hand(&mut ledger, 1), None);
}

#[test]
fn what_an_ended_stream_held_waits_again() {
    let mut ledger = ledger(Ordering::Unordered, &[0, 1, 2]);
    hand(&mut ledger, 1);
    hand(&mut ledger, 2);
    hand(&mut ledger, 1);
    assert_eq!(ledger.take_back(1).len(), 2);
    assert_eq!(ledger.delivered(), 1);
    let again: Vec<_> = std::iter::from_fn(|| hand(&mut ledger, 2))
        .map(|h| (h.0, h.2))
        .collect();
    assert_eq!(again, [(0, 2), (2, 2)]);
}

#[test]
fn an_offset_is_admitted_once_and_unknown_ones_settle_nothing() {
    let mut ledger = ledger(Ordering::Unordered, &[3, 7]);
    assert_eq!(ledger.admit(7, 1), Admitted::Passed);
    assert_eq!(ledger.admit(4, 1), Admitted::Passed);
    assert_eq!(ledger.settle(5, 1), Err(Stale::Unknown));
    assert_eq!(
        ledger.settle(7, 1),
        Err(Stale::Unknown),
        "admitted, never delivered"
    );
    assert_eq!(ledger.settle(99, 1), Err(Stale::Unknown));
    assert_eq!(ledger.settle(i64::MIN, 1), Err(Stale::AlreadySettled));
}

#[derive(Clone, Debug)]
enum Step {
    Admit(i64),
    Hand(StreamId),
    Settle(usize),
    GiveBack(usize, bool),
    End(StreamId),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_i64..4).prop_map(Step::Admit),
        4 => (1_u64..4).prop_map(Step::Hand),
        4 => any::<usize>().prop_map(Step::Settle),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, counted)| Step::GiveBack(which, counted)),
        1 => (1_u64..4).prop_map(Step::End),
    ]
}

/// Runs a schedule beside a model that only knows which offsets exist, are settled, and who holds what; then lets one stream finish.
fn run(ordering: Ordering, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::new(ordering, 0, Vec::new());
    let mut unsettled = BTreeSet::new();
    let mut held: BTreeMap<i64, (StreamId, u32)> = BTreeMap::new();
    let mut every_token = Vec::new();
    let mut windows: BTreeMap<StreamId, i64> = BTreeMap::new();
    let mut frontier = 0;
    let mut check = |ledger: &mut Ledger<u64>, step: Step| -> Result<(), TestCaseError> {
        let refund = |windows: &mut BTreeMap<StreamId, i64>, refunds: &[Refund]| {
            for refund in refunds {
                *windows.entry(refund.stream).or_default() -= 1;
            }
        };
        match step {
            Step::Admit(gap) => {
                let offset = ledger.position() + gap;
                prop_assert_eq!(ledger.admit(offset, 1), Admitted::Waiting);
                unsettled.insert(offset);
            }
            Step::Hand(stream) => {
                let first_waiting = unsettled
                    .iter()
                    .copied()
                    .find(|offset| !held.contains_key(offset));
                let others = held.values().any(|(holder, _)| *holder != stream);
                match ledger
                    .hand(stream)
                    .map(|handed| (handed.offset, handed.serial))
                {
                    Some((offset, serial)) => {
                        prop_assert_eq!(Some(offset), first_waiting);
                        if ordering == Ordering::Partition {
                            prop_assert!(!others, "two streams hold one partition");
                            prop_assert!(held.keys().all(|&earlier| earlier < offset));
                        }
                        held.insert(offset, (stream, serial));
                        every_token.push((offset, serial));
                        *windows.entry(stream).or_default() += 1;
                    }
                    None => prop_assert!(
                        first_waiting.is_none() || (ordering == Ordering::Partition && others)
                    ),
                }
            }
            Step::Settle(which) if !every_token.is_empty() => {
                let (offset, serial) = every_token[which % every_token.len()];
                let current = held
                    .get(&offset)
                    .is_some_and(|(_, newest)| *newest == serial);
                match ledger.settle(offset, serial) {
                    Ok(back) => {
                        prop_assert!(current);
                        held.remove(&offset);
                        unsettled.remove(&offset);
                        refund(&mut windows, &[back]);
                    }
                    Err(Stale::AlreadySettled) => prop_assert!(!unsettled.contains(&offset)),
                    Err(Stale::Redelivered) => {
                        prop_assert!(!current && unsettled.contains(&offset))
                    }
                    Err(Stale::Unknown) => prop_assert!(false, "the token was given out"),
                }
            }
            Step::GiveBack(which, counted) if !every_token.is_empty() => {
                let (offset, serial) = every_token[which % every_token.len()];
                let attempt = if counted {
                    Attempt::Counted
                } else {
                    Attempt::NotCounted
                };
                if let Ok(back) = ledger.give_back(offset, serial, attempt) {
                    held.remove(&offset);
                    if ordering == Ordering::Partition {
                        held.retain(|&later, _| later < offset);
                    }
                    refund(&mut windows, &back);
                }
            }
            Step::End(stream) => {
                let back = ledger.take_back(stream);
                held.retain(|_, (holder, _)| *holder != stream);
                refund(&mut windows, &back);
            }
            Step::Settle(_) | Step::GiveBack(..) => {}
        }
        let lowest = unsettled
            .first()
            .copied()
            .unwrap_or_else(|| ledger.position());
        prop_assert_eq!(ledger.frontier(), lowest);
        prop_assert!(ledger.frontier() >= frontier, "the frontier moved back");
        frontier = ledger.frontier();
        prop_assert_eq!(ledger.delivered(), held.len());
        prop_assert_eq!(windows.values().sum::<i64>(), held.len() as i64);
        Ok(())
    };
    for step in steps {
        check(&mut ledger, step)?;
    }
    for stream in 1..4 {
        check(&mut ledger, Step::End(stream))?;
    }
    while let Some((offset, serial)) = ledger.hand(9).map(|handed| (handed.offset, handed.serial)) {
        prop_assert!(ledger.settle(offset, serial).is_ok());
    }
    prop_assert_eq!(
        ledger.frontier(),
        ledger.position(),
        "nothing is left behind"
    );
    Ok(())
}

proptest! {
    #[test]
    fn any_schedule_keeps_the_promises_unordered(steps in prop::collection::vec(step(), 0..200)) {
        run(Ordering::Unordered, steps)?;
    }

    #[test]
    fn any_schedule_keeps_the_promises_in_partition_order(steps in prop::collection::vec(step(), 0..200)) {
        run(Ordering::Partition, steps)?;
    }
}

#[test]
fn what_was_settled_before_is_not_delivered_and_not_waited_for() {
    let mut ledger = Ledger::new(Ordering::Unordered, 10, vec![11..13, 20..30]);
    assert_eq!(ledger.settled_above(), [11..13, 20..30]);
    assert_eq!(ledger.admit(10, 1), Admitted::Waiting);
    assert_eq!(ledger.admit(11, 1), Admitted::Settled);
    assert_eq!(ledger.admit(12, 1), Admitted::Settled);
    assert_eq!(ledger.settled_above(), [11..13, 20..30]);
    let (offset, serial, _) = hand(&mut ledger, 1).unwrap();
    assert_eq!(offset, 10);
    assert!(
        hand(&mut ledger, 1).is_none(),
        "11 and 12 are not delivered"
    );
    ledger.settle(offset, serial).unwrap();
    assert_eq!(ledger.frontier(), 13);
    // The log has a gap up to the middle of what was settled.
    assert_eq!(ledger.admit(25, 1), Admitted::Settled);
    assert_eq!(ledger.frontier(), 26);
    assert_eq!(ledger.settled_above(), [26..30]);
    assert_eq!(ledger.admit(30, 1), Admitted::Waiting);
    assert_eq!(ledger.frontier(), 30);
    assert!(ledger.settled_above().is_empty());
}

/// One life of the partition's owner: how many records it reads, which of those that it gets it settles, and whether it commits at the end.
type Life = (usize, Vec<bool>, bool);

proptest! {
    /// Owners come and go, each killed after its last commit; the log has gaps. A model remembers what was settled and what a commit covered.
    #[test]
    fn lives_end_and_nothing_is_lost_and_nothing_that_a_commit_covers_is_repeated(
        gaps in prop::collection::vec(1_i64..4, 1..120),
        lives in prop::collection::vec((0_usize..60, prop::collection::vec(any::<bool>(), 60), any::<bool>()), 1..12),
        budget in prop_oneof![Just(4_096_usize), 0_usize..60],
    ) {
        let lives: Vec<Life> = lives;
        let log: Vec<i64> = gaps.iter().scan(99, |end, gap| { *end += gap; Some(*end) }).collect();
        let place = |base| crate::consume::map::Place { cluster: "c", topic: "t", partition: 0, base };
        let (mut base, mut text) = (log[0], String::new());
        let (mut settled, mut covered) = (BTreeSet::new(), BTreeSet::new());
        for (reads, settles, commits) in lives {
            // What the last one settled after its last commit died with it.
            settled.clone_from(&covered);
            let restored = crate::consume::map::decode(text.as_bytes(), place(base), i64::MAX).unwrap();
            let mut ledger = Ledger::new(Ordering::Unordered, base, restored);
            for &offset in log.iter().filter(|&&offset| offset >= base).take(reads) {
                match ledger.admit(offset, 1) {
                    Admitted::Waiting => prop_assert!(!covered.contains(&offset), "{} was covered by a commit", offset),
                    Admitted::Settled => prop_assert!(settled.contains(&offset), "{} is lost", offset),
                    Admitted::Passed => prop_assert!(false, "each is read once"),
                }
            }
            let mut settles = settles.into_iter();
            let mut handed = Vec::new();
            while let Some((offset, serial, _)) = hand(&mut ledger, 1) {
                handed.push((offset, serial));
            }
            for (offset, serial) in handed {
                if settles.next().unwrap_or(false) {
                    ledger.settle(offset, serial).unwrap();
                    settled.insert(offset);
                }
            }
            let frontier = ledger.frontier();
            prop_assert!(log.iter().filter(|&&offset| offset >= log[0] && offset < frontier).all(|offset| settled.contains(offset)));
            if commits {
                let map = crate::consume::map::encode(place(frontier), &ledger.settled_above(), budget);
                covered = settled.iter().copied().filter(|&offset| offset < map.through.max(frontier)).collect();
                (base, text) = (frontier, map.text);
            }
        }
    }
}
