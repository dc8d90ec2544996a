//! The ledger against its promises: examples. Any schedule against a model: `model`.

#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant as it is written"
)]

mod model;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A record of ten bytes, of this key.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Of(Option<u64>);

impl Payload for Of {
    fn weight(&self) -> u64 {
        10
    }

    fn key(&self) -> Option<u64> {
        self.0
    }
}

const RETRY: Retry = Retry {
    min_delay: 1000,
    max_delay: 8000,
    multiplier: 2.0,
    max_attempts: 3,
};

/// A lease that does not end in these tests.
const LONG: Moment = 1 << 40;

fn terms(ordering: Ordering) -> Terms {
    Terms {
        ordering,
        retry: RETRY,
        has_dead_letters: false,
    }
}

fn ledger(ordering: Ordering, offsets: &[i64]) -> Ledger<Of> {
    let mut ledger = Ledger::new(terms(ordering), offsets[0], Vec::new());
    for &offset in offsets {
        assert_eq!(ledger.admit(offset, Of(None)), Admitted::Waiting);
    }
    ledger
}

fn keyed(keys: &[Option<u64>]) -> Ledger<Of> {
    let mut ledger = Ledger::new(terms(Ordering::Key), 0, Vec::new());
    for (offset, key) in keys.iter().enumerate() {
        ledger.admit(offset as i64, Of(*key));
    }
    ledger
}

impl<T: Payload> Ledger<T> {
    /// Delivers what is next to `stream`, if there is anything.
    fn give(&mut self, stream: StreamId, now: Moment, until: Moment) -> Option<Handed<'_, T>> {
        let next = self.next(stream)?;
        Some(self.hand(stream, next, now, until))
    }
}

/// Offset, serial and attempt of what the stream is given.
fn hand(ledger: &mut Ledger<Of>, stream: StreamId) -> Option<(i64, u32, u32)> {
    let handed = ledger.give(stream, 0, LONG)?;
    Some((handed.offset, handed.serial, handed.attempt))
}

fn all(ledger: &mut Ledger<Of>, stream: StreamId) -> Vec<(i64, u32, u32)> {
    std::iter::from_fn(|| hand(ledger, stream)).collect()
}

fn offsets(handed: &[(i64, u32, u32)]) -> Vec<i64> {
    handed.iter().map(|(offset, ..)| *offset).collect()
}

const NOBODY: fn(StreamId) -> bool = |_| false;

#[test]
fn the_frontier_waits_for_the_first_unsettled_record() {
    let mut ledger = ledger(Ordering::Unordered, &[5, 6, 9]);
    let tokens = all(&mut ledger, 1);
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
    let refund = Refund {
        stream: 1,
        bytes: 10,
    };
    assert_eq!(ledger.settle(offset, serial), Ok(Some(refund)));
    assert_eq!(ledger.settle(offset, serial), Err(Stale::AlreadySettled));
}

#[test]
fn a_token_of_an_earlier_delivery_settles_nothing() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    let (_, first, attempt) = hand(&mut ledger, 1).unwrap();
    assert_eq!(attempt, 1);
    ledger.nack(0, first, Some(0), "", 0).unwrap();
    assert_eq!(ledger.settle(0, first), Err(Stale::Redelivered));
    ledger.due(0, NOBODY);
    let (_, second, attempt) = hand(&mut ledger, 2).unwrap();
    assert_eq!(attempt, 2);
    assert_eq!(ledger.settle(0, first), Err(Stale::Redelivered));
    assert_eq!(ledger.extend(0, first, LONG, LONG), Err(Stale::Redelivered));
    assert!(ledger.settle(0, second).is_ok());
}

#[test]
fn a_release_is_not_an_attempt() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    let (_, serial, _) = hand(&mut ledger, 1).unwrap();
    ledger.release(0, serial).unwrap();
    let handed = ledger.give(1, 0, LONG).unwrap();
    assert_eq!((handed.attempt, handed.again), (1, true));
}

#[test]
fn a_nack_waits_longer_each_time_and_a_delay_of_its_own_wins() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    let (_, serial, _) = hand(&mut ledger, 1).unwrap();
    ledger.nack(0, serial, None, "", 0).unwrap();
    let first = ledger.due_at().unwrap();
    assert!((800..=1200).contains(&first), "{first}");
    ledger.due(first - 1, NOBODY);
    assert_eq!((ledger.parked(), hand(&mut ledger, 1)), (1, None));
    ledger.due(first, NOBODY);
    let (_, serial, attempt) = hand(&mut ledger, 1).unwrap();
    assert_eq!((ledger.parked(), attempt), (0, 2));
    ledger.nack(0, serial, Some(7), "", 5000).unwrap();
    assert_eq!(ledger.due_at(), Some(5007));
    let waits: Vec<u64> = (1..9).map(|attempt| RETRY.wait(attempt, 3)).collect();
    assert!(
        (1600..=2400).contains(&waits[1]) && (3200..=4800).contains(&waits[2]),
        "{waits:?}"
    );
    assert!(
        waits[4..].iter().all(|wait| (6400..=9600).contains(wait)),
        "{waits:?}"
    );
    assert_ne!(
        RETRY.wait(1, 3),
        RETRY.wait(1, 4),
        "they do not come back together"
    );
}

#[test]
fn a_lease_ends_counts_and_can_be_prolonged_up_to_a_cap() {
    let mut ledger = ledger(Ordering::Unordered, &[0, 1, 2]);
    let serials: Vec<u32> = (0..3)
        .map(|_| ledger.give(7, 100, 130).unwrap().serial)
        .collect();
    assert_eq!(ledger.due_at(), Some(130));
    assert_eq!(ledger.due(129, NOBODY), Due::default());
    ledger.extend(1, serials[1], 160, 1000).unwrap();
    ledger.extend(2, serials[2], 10_000, 50).unwrap();
    let due = ledger.due(130, NOBODY);
    assert_eq!((due.expired, due.refunds.len()), (1, 1));
    assert_eq!(ledger.settle(0, serials[0]), Err(Stale::Redelivered));
    assert_eq!(
        ledger.due_at(),
        Some(150),
        "the cap counts from the delivery"
    );
    assert_eq!(ledger.due(150, NOBODY).expired, 1);
    assert_eq!(ledger.due(159, NOBODY).expired, 0);
    ledger.settle(1, serials[1]).unwrap();
    assert_eq!(ledger.due(500, NOBODY).expired, 0, "it is settled");
    let wakes = ledger.due_at().unwrap();
    assert!(wakes > 900, "nothing but the two that wait: {wakes}");
    ledger.due(5000, NOBODY);
    assert_eq!(
        all(&mut ledger, 7)
            .iter()
            .map(|h| (h.0, h.2))
            .collect::<Vec<_>>(),
        [(0, 2), (2, 2)]
    );
}

#[test]
fn a_lease_goes_on_while_its_record_is_unread() {
    let mut ledger = ledger(Ordering::Unordered, &[0]);
    ledger.give(7, 0, 100).unwrap();
    assert_eq!(ledger.due(100, |stream| stream == 7).expired, 0);
    assert_eq!(ledger.delivered(), 1);
    let later = ledger.due_at().unwrap();
    assert!(later > 100, "{later}");
    assert_eq!(ledger.due(later, NOBODY).expired, 1);
}

#[test]
fn attempts_that_run_out_block_a_record_until_somebody_decides() {
    let mut ledger = ledger(Ordering::Unordered, &[0, 1]);
    let mut serial = 0;
    for attempt in 1..=3 {
        let handed = hand(&mut ledger, 1).unwrap();
        assert_eq!((handed.0, handed.2), (0, attempt));
        serial = handed.1;
        ledger
            .nack(0, serial, Some(0), "no luck", attempt.into())
            .unwrap();
        ledger.due(attempt.into(), NOBODY);
    }
    assert_eq!(
        offsets(&all(&mut ledger, 1)),
        [1],
        "0 is not delivered any more"
    );
    let blocked: Vec<_> = ledger.blocked_records().collect();
    assert_eq!(
        (blocked.len(), blocked[0].offset, blocked[0].attempts),
        (1, 0, 3)
    );
    let trouble = blocked[0].trouble;
    assert_eq!(
        (&*trouble.reason, trouble.first, trouble.last),
        ("no luck", 1, 3)
    );
    assert_eq!(ledger.frontier(), 0, "it is not dropped");
    assert_eq!(ledger.extend(0, serial, 9, 9), Err(Stale::Redelivered));
    // Tried again by whoever decides so; once.
    assert_eq!(ledger.nack(0, serial, None, "", 4), Ok(Vec::new()));
    let (_, serial, attempt) = hand(&mut ledger, 1).unwrap();
    assert_eq!(attempt, 4);
    ledger.nack(0, serial, None, "", 5).unwrap();
    assert_eq!(ledger.blocked(), 1);
    assert_eq!(ledger.settle(0, serial), Ok(None), "skipped on purpose");
    assert_eq!((ledger.blocked(), ledger.frontier()), (0, 1));
}

#[test]
fn a_record_leaves_for_the_dead_letters_and_is_settled_when_its_copy_is_there() {
    let terms = Terms {
        has_dead_letters: true,
        ..terms(Ordering::Key)
    };
    let mut ledger = Ledger::new(terms, 0, Vec::new());
    ledger.admit(0, Of(Some(1)));
    ledger.admit(1, Of(Some(1)));
    let (_, serial, _) = hand(&mut ledger, 1).unwrap();
    ledger.reject(0, serial, "bad", 5).unwrap();
    assert_eq!(ledger.settle(0, serial), Err(Stale::Redelivered));
    assert_eq!(hand(&mut ledger, 1), None, "its key waits for the copy");
    let dead = ledger.next_dead().unwrap();
    assert_eq!(
        (dead.offset, dead.attempts, dead.trouble.cause),
        (0, 1, Cause::Rejected)
    );
    assert!(ledger.next_dead().is_none(), "each is given once");
    assert!(!ledger.moved(0, Some(100)), "the copy failed");
    assert_eq!((ledger.frontier(), ledger.due_at()), (0, Some(100)));
    ledger.due(100, NOBODY);
    assert_eq!(ledger.next_dead().map(|dead| dead.offset), Some(0));
    assert!(ledger.moved(0, None));
    assert_eq!((ledger.frontier(), ledger.moving()), (1, 0));
    assert!(!ledger.moved(0, None), "once");
    assert_eq!(offsets(&all(&mut ledger, 1)), [1]);
}

#[test]
fn one_record_of_a_key_is_out_at_a_time_and_the_others_do_not_wait() {
    let mut ledger = keyed(&[Some(1), Some(1), Some(2), None, None, Some(1)]);
    let first = all(&mut ledger, 1);
    assert_eq!(offsets(&first), [0, 2, 3, 4]);
    ledger.settle(0, first[0].1).unwrap();
    let second = all(&mut ledger, 1);
    assert_eq!(offsets(&second), [1]);
    ledger.nack(1, second[0].1, Some(10), "", 0).unwrap();
    assert_eq!(hand(&mut ledger, 1), None, "5 waits for 1");
    ledger.due(10, NOBODY);
    assert_eq!(offsets(&all(&mut ledger, 1)), [1]);
    ledger.take_back(1, false, 10);
    assert_eq!(offsets(&all(&mut ledger, 1)), [1, 2, 3, 4]);
}

#[test]
fn a_key_belongs_to_one_stream_and_moves_when_nothing_of_it_is_out() {
    let keys: Vec<Option<u64>> = (0..200).map(|n| Some(n % 50)).collect();
    let mut ledger = keyed(&keys);
    ledger.spread(&[1, 2]);
    let (one, two) = (all(&mut ledger, 1), all(&mut ledger, 2));
    assert_eq!(one.len() + two.len(), 50);
    assert!(
        one.len() > 10 && two.len() > 10,
        "{} and {}",
        one.len(),
        two.len()
    );
    let of =
        |handed: &[(i64, u32, u32)]| -> BTreeSet<i64> { handed.iter().map(|h| h.0 % 50).collect() };
    for (offset, serial, _) in one.iter().chain(&two) {
        ledger.settle(*offset, *serial).unwrap();
    }
    let again = all(&mut ledger, 1);
    assert_eq!(of(&again), of(&one), "the same keys to the same stream");
    // A third stream takes some keys of each; those that are out follow once they are settled.
    ledger.spread(&[1, 2, 3]);
    let third = all(&mut ledger, 3);
    let moved = of(&third);
    assert!(moved.is_disjoint(&of(&again)), "what is out stays");
    for (offset, serial, _) in &again {
        ledger.settle(*offset, *serial).unwrap();
    }
    let stayed = of(&all(&mut ledger, 1));
    assert!(stayed.len() < again.len() && stayed.is_subset(&of(&again)));
    let rest = of(&all(&mut ledger, 3));
    assert_eq!(stayed.union(&rest).count(), again.len());
}

#[test]
fn in_partition_order_a_nack_takes_the_later_deliveries_back() {
    let mut ledger = ledger(Ordering::Partition, &[0, 1, 2, 3]);
    let tokens: Vec<_> = (0..3).map(|_| hand(&mut ledger, 1).unwrap()).collect();
    ledger.settle(0, tokens[0].1).unwrap();
    let refunds = ledger.nack(1, tokens[1].1, Some(5), "", 0).unwrap();
    assert_eq!(refunds.len(), 2);
    assert_eq!(ledger.settle(2, tokens[2].1), Err(Stale::Redelivered));
    assert_eq!(hand(&mut ledger, 1), None, "all wait for 1");
    ledger.due(5, NOBODY);
    let again: Vec<_> = all(&mut ledger, 1).iter().map(|h| (h.0, h.2)).collect();
    assert_eq!(again, [(1, 2), (2, 1), (3, 1)]);
}

#[test]
fn in_partition_order_a_lease_that_ends_takes_the_later_deliveries_back() {
    let mut ledger = ledger(Ordering::Partition, &[0, 1, 2]);
    ledger.give(1, 0, 100).unwrap();
    ledger.give(1, 0, 50).unwrap();
    ledger.give(1, 0, 50).unwrap();
    let due = ledger.due(50, NOBODY);
    assert_eq!(
        (due.expired, due.refunds.len()),
        (1, 2),
        "the last was overtaken"
    );
    ledger.due(5000, NOBODY);
    let again: Vec<_> = all(&mut ledger, 1).iter().map(|h| (h.0, h.2)).collect();
    assert_eq!(again, [], "0 has expired too by now, and waits before them");
    ledger.due(50_000, NOBODY);
    let again: Vec<_> = all(&mut ledger, 1).iter().map(|h| (h.0, h.2)).collect();
    assert_eq!(again, [(0, 2), (1, 2), (2, 1)]);
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
fn what_a_dead_stream_held_is_suspect_and_what_was_alone_with_it_has_failed() {
    let mut ledger = ledger(Ordering::Unordered, &[0, 1, 2]);
    hand(&mut ledger, 1);
    hand(&mut ledger, 2);
    hand(&mut ledger, 1);
    ledger.take_back(1, false, 0);
    assert_eq!(ledger.delivered(), 1);
    assert!(ledger.has_suspect(2));
    let next = ledger.next(2).unwrap();
    assert!(next.is_suspect && next.offset == 0);
    let (_, serial, attempt) = hand(&mut ledger, 2).unwrap();
    assert_eq!(attempt, 1, "nobody knows whether it was tried");
    ledger.settle(0, serial).unwrap();
    let handed = ledger.give(3, 0, LONG).unwrap();
    assert!(handed.is_suspect && handed.offset == 2);
    ledger.take_back(3, true, 0);
    assert!(!ledger.has_suspect(2), "it waits for its next attempt");
    ledger.due(5000, NOBODY);
    let handed = ledger.give(2, 0, LONG).unwrap();
    assert_eq!(
        (handed.offset, handed.attempt, handed.is_suspect),
        (2, 2, true)
    );
    let serial = handed.serial;
    ledger.nack(2, serial, Some(0), "", 0).unwrap();
    ledger.due(0, NOBODY);
    assert!(!ledger.has_suspect(2), "a client that gives it back lives");
}

#[test]
fn what_a_stream_leaves_in_order_was_not_tried() {
    for ordering in [Ordering::Unordered, Ordering::Partition, Ordering::Key] {
        let mut ledger = ledger(ordering, &[0, 1]);
        all(&mut ledger, 1);
        ledger.hand_back(1);
        let again = all(&mut ledger, 2);
        assert_eq!(
            again.iter().map(|h| (h.0, h.2)).collect::<Vec<_>>(),
            [(0, 1), (1, 1)]
        );
        assert!(!ledger.has_suspect(2));
    }
}

#[test]
fn an_offset_is_admitted_once_and_unknown_ones_settle_nothing() {
    let mut ledger = ledger(Ordering::Unordered, &[3, 7]);
    assert_eq!(ledger.admit(7, Of(None)), Admitted::Passed);
    assert_eq!(ledger.admit(4, Of(None)), Admitted::Passed);
    assert_eq!(ledger.settle(5, 1), Err(Stale::Unknown));
    assert_eq!(
        ledger.settle(7, 1),
        Err(Stale::Unknown),
        "admitted, never delivered"
    );
    assert_eq!(ledger.settle(99, 1), Err(Stale::Unknown));
    assert_eq!(ledger.settle(i64::MIN, 1), Err(Stale::AlreadySettled));
}

#[test]
fn what_was_settled_before_is_not_delivered_and_not_waited_for() {
    let mut ledger = Ledger::new(terms(Ordering::Unordered), 10, vec![11..13, 20..30]);
    assert_eq!(ledger.settled_above(), [11..13, 20..30]);
    assert_eq!(ledger.admit(10, Of(None)), Admitted::Waiting);
    assert_eq!(ledger.admit(11, Of(None)), Admitted::Settled);
    assert_eq!(ledger.admit(12, Of(None)), Admitted::Settled);
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
    assert_eq!(ledger.admit(25, Of(None)), Admitted::Settled);
    assert_eq!(ledger.frontier(), 26);
    assert_eq!(ledger.settled_above(), [26..30]);
    assert_eq!(ledger.admit(30, Of(None)), Admitted::Waiting);
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
            let mut ledger = Ledger::new(terms(Ordering::Unordered), base, restored);
            for &offset in log.iter().filter(|&&offset| offset >= base).take(reads) {
                match ledger.admit(offset, Of(None)) {
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
