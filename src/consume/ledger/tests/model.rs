//! Any schedule of admissions, deliveries, settles, ends of streams and time, beside a model that is too simple to be wrong.
//!
//! The model knows which records there are, what each is at the moment, and who holds it. What the ledger promises is asked of the model
//! after each step: R17 of the specification, as far as one partition goes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{super::*, Of, RETRY};

#[derive(Clone, Debug)]
enum Step {
    /// A gap before the record, and its key.
    Admit(i64, Option<u64>),
    Hand(StreamId),
    /// One of all tokens that were ever given.
    Settle(usize),
    Nack(usize, Option<u64>),
    Release(usize),
    Reject(usize),
    Extend(usize, u64),
    /// The stream dies.
    Die(StreamId),
    Leave(StreamId),
    Spread(Vec<StreamId>),
    Pass(u64),
    /// The copy of a dead letter is there, or not.
    Copied(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    prop_oneof![
        6 => (0_i64..3, prop::option::of(0_u64..4)).prop_map(|(gap, key)| Step::Admit(gap, key)),
        8 => (1_u64..4).prop_map(Step::Hand),
        6 => which.prop_map(Step::Settle),
        3 => (which, prop::option::of(0_u64..2000)).prop_map(|(which, delay)| Step::Nack(which, delay)),
        2 => which.prop_map(Step::Release),
        1 => which.prop_map(Step::Reject),
        2 => (which, 0_u64..3000).prop_map(|(which, by)| Step::Extend(which, by)),
        1 => (1_u64..4).prop_map(Step::Die),
        1 => (1_u64..4).prop_map(Step::Leave),
        1 => prop::collection::btree_set(1_u64..4, 0..3).prop_map(|streams| Step::Spread(streams.into_iter().collect())),
        4 => (0_u64..2500).prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::Copied),
    ]
}

/// How long a delivery may stay unsettled, and how long with all extensions.
const LEASE: u64 = 1500;
const CAP: u64 = 4000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Idle,
    Out {
        stream: StreamId,
        serial: u32,
        since: u64,
        until: u64,
    },
    Moving,
    Blocked,
    Settled,
}

struct Model {
    ordering: Ordering,
    has_dead_letters: bool,
    now: u64,
    is: BTreeMap<i64, Is>,
    key: BTreeMap<i64, Option<u64>>,
    attempts: BTreeMap<i64, u32>,
    first_out: Vec<i64>,
    tokens: Vec<(i64, u32)>,
    held: BTreeMap<StreamId, u64>,
    members: Vec<StreamId>,
    frontier: i64,
    copying: BTreeSet<i64>,
}

impl Model {
    fn out(&self) -> impl Iterator<Item = (i64, StreamId)> + '_ {
        self.is.iter().filter_map(|(&offset, is)| match is {
            Is::Out { stream, .. } => Some((offset, *stream)),
            _ => None,
        })
    }

    fn open_before<'a>(&'a self, offset: i64, key: Option<u64>) -> impl Iterator<Item = i64> + 'a {
        let before = self
            .is
            .range(..offset)
            .filter(|(_, is)| **is != Is::Settled);
        before
            .map(|(&other, _)| other)
            .filter(move |other| key.is_none() || self.key[other] == key)
    }

    fn refund(&mut self, refunds: &[Refund]) {
        for refund in refunds {
            *self
                .held
                .get_mut(&refund.stream)
                .expect("it held something") -= 1;
        }
    }

    /// What a failure makes of a record.
    fn failed(&mut self, offset: i64) {
        let attempt = self.attempts.get_mut(&offset).unwrap();
        let is = match (*attempt < RETRY.max_attempts, self.has_dead_letters) {
            (true, _) => {
                *attempt += 1;
                Is::Idle
            }
            (false, true) => Is::Moving,
            (false, false) => Is::Blocked,
        };
        self.is.insert(offset, is);
    }

    /// Everything out after `offset` is taken back, where the order wants that.
    fn rewound(&mut self, offset: i64) {
        if self.ordering == Ordering::Partition {
            let later: Vec<i64> = self
                .out()
                .map(|(later, _)| later)
                .filter(|later| *later > offset)
                .collect();
            for later in later {
                self.is.insert(later, Is::Idle);
            }
        }
    }
}

fn run(ordering: Ordering, has_dead_letters: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let terms = Terms {
        ordering,
        retry: RETRY,
        has_dead_letters,
    };
    let mut ledger = Ledger::new(terms, 0, Vec::new());
    let mut model = Model {
        ordering,
        has_dead_letters,
        now: 0,
        is: BTreeMap::new(),
        key: BTreeMap::new(),
        attempts: BTreeMap::new(),
        first_out: Vec::new(),
        tokens: Vec::new(),
        held: (1..10).map(|stream| (stream, 0)).collect(),
        members: Vec::new(),
        frontier: 0,
        copying: BTreeSet::new(),
    };
    for step in steps {
        take(&mut ledger, &mut model, step)?;
    }
    // Streams end, time goes on, copies succeed, somebody decides about what is blocked: then nothing may be left.
    for stream in 1..4 {
        take(&mut ledger, &mut model, Step::Leave(stream))?;
    }
    take(&mut ledger, &mut model, Step::Spread(vec![9]))?;
    for _ in 0..200 {
        take(&mut ledger, &mut model, Step::Pass(20_000))?;
        take(&mut ledger, &mut model, Step::Copied(true))?;
        let blocked: Vec<_> = ledger
            .blocked_records()
            .map(|record| (record.offset, record.serial))
            .collect();
        for (offset, serial) in blocked {
            prop_assert_eq!(ledger.settle(offset, serial), Ok(None));
            model.is.insert(offset, Is::Settled);
        }
        take(&mut ledger, &mut model, Step::Hand(9))?;
        let last = model.tokens.len().saturating_sub(1);
        take(&mut ledger, &mut model, Step::Settle(last))?;
    }
    prop_assert_eq!(
        ledger.frontier(),
        ledger.position(),
        "nothing is left behind"
    );
    prop_assert_eq!(
        (ledger.span(), ledger.bytes(), ledger.idle_bytes()),
        (0, 0, 0)
    );
    prop_assert_eq!(
        ledger.due_at().filter(|at| *at > model.now + LEASE),
        None,
        "no timer is left"
    );
    if ordering == Ordering::Partition {
        prop_assert!(
            model.first_out.is_sorted(),
            "first deliveries are in offset order"
        );
    }
    for key in 0..4 {
        let of_key = model
            .first_out
            .iter()
            .filter(|offset| model.key[offset] == Some(key));
        prop_assert!(ordering != Ordering::Key || of_key.is_sorted());
    }
    Ok(())
}

fn take(ledger: &mut Ledger<Of>, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let token = |model: &Model, which: usize| match model.tokens.len() {
        0 => None,
        count => Some(model.tokens[which % count]),
    };
    // Whether a token speaks of what is out now.
    let is_out = |model: &Model, offset: i64, serial: u32| match model.is[&offset] {
        Is::Out { serial: newest, .. } => newest == serial,
        _ => false,
    };
    let stale = |model: &Model, offset: i64| match model.is[&offset] {
        Is::Settled => Stale::AlreadySettled,
        _ => Stale::Redelivered,
    };
    let now = model.now;
    match step {
        Step::Admit(gap, key) => {
            let offset = ledger.position() + gap;
            prop_assert_eq!(ledger.admit(offset, Of(key)), Admitted::Waiting);
            model.is.insert(offset, Is::Idle);
            model.key.insert(offset, key);
            model.attempts.insert(offset, 1);
        }
        Step::Hand(stream) => {
            let next = ledger.next(stream);
            let handed = ledger.give(stream, now, now + LEASE);
            let Some(handed) = handed else {
                prop_assert_eq!(next, None);
                return Ok(());
            };
            let Handed {
                offset,
                serial,
                attempt,
                again,
                is_suspect,
                ..
            } = handed;
            let next = next.expect("it was announced");
            prop_assert_eq!((next.offset, next.is_suspect), (offset, is_suspect));
            prop_assert_eq!(
                model.is[&offset],
                Is::Idle,
                "it is delivered to one stream at a time"
            );
            prop_assert_eq!(attempt, model.attempts[&offset]);
            prop_assert_eq!(again, model.first_out.contains(&offset));
            let key = model.key[&offset];
            match model.ordering {
                Ordering::Partition => {
                    prop_assert!(
                        model
                            .out()
                            .all(|(other, holder)| holder == stream && other < offset)
                    );
                    let idle = model
                        .open_before(offset, None)
                        .filter(|other| !matches!(model.is[other], Is::Out { .. }));
                    prop_assert_eq!(idle.count(), 0, "those before it went out first");
                }
                Ordering::Key if key.is_some() => {
                    prop_assert_eq!(
                        model.open_before(offset, key).count(),
                        0,
                        "those of its key before it are settled"
                    );
                    prop_assert!(
                        model.members.len() != 1 || model.members == [stream],
                        "the key is its stream's"
                    );
                }
                Ordering::Key | Ordering::Unordered => {}
            }
            if !again {
                model.first_out.push(offset);
            }
            model.is.insert(
                offset,
                Is::Out {
                    stream,
                    serial,
                    since: now,
                    until: now + LEASE,
                },
            );
            model.tokens.push((offset, serial));
            *model.held.get_mut(&stream).unwrap() += 1;
        }
        Step::Settle(which) => {
            let Some((offset, serial)) = token(model, which) else {
                return Ok(());
            };
            let is_blocked = model.is[&offset] == Is::Blocked
                && model
                    .tokens
                    .iter()
                    .rev()
                    .find(|(other, _)| *other == offset)
                    == Some(&(offset, serial));
            let expected = is_out(model, offset, serial) || is_blocked;
            match ledger.settle(offset, serial) {
                Ok(refund) => {
                    prop_assert!(expected);
                    model.refund(refund.as_slice());
                    model.is.insert(offset, Is::Settled);
                }
                Err(why) => {
                    prop_assert!(!expected);
                    prop_assert_eq!(why, stale(model, offset));
                }
            }
        }
        Step::Nack(which, delay) => {
            let Some((offset, serial)) = token(model, which) else {
                return Ok(());
            };
            let was_out = is_out(model, offset, serial);
            let was_blocked = model.is[&offset] == Is::Blocked;
            match ledger.nack(offset, serial, delay, "", now) {
                Ok(refunds) if was_blocked => {
                    prop_assert!(refunds.is_empty());
                    *model.attempts.get_mut(&offset).unwrap() += 1;
                    model.is.insert(offset, Is::Idle);
                }
                Ok(refunds) => {
                    prop_assert!(was_out);
                    model.refund(&refunds);
                    model.failed(offset);
                    model.rewound(offset);
                }
                Err(why) => prop_assert!(!was_out && why == stale(model, offset)),
            }
        }
        Step::Release(which) => {
            let Some((offset, serial)) = token(model, which) else {
                return Ok(());
            };
            let was_out = is_out(model, offset, serial);
            match ledger.release(offset, serial) {
                Ok(refunds) => {
                    prop_assert!(was_out);
                    model.refund(&refunds);
                    model.is.insert(offset, Is::Idle);
                    model.rewound(offset);
                }
                Err(why) => prop_assert!(!was_out && why == stale(model, offset)),
            }
        }
        Step::Reject(which) => {
            let Some((offset, serial)) = token(model, which) else {
                return Ok(());
            };
            if !model.has_dead_letters {
                return Ok(());
            }
            let was_out = is_out(model, offset, serial);
            match ledger.reject(offset, serial, "", now) {
                Ok(refunds) => {
                    prop_assert!(was_out);
                    model.refund(&refunds);
                    model.is.insert(offset, Is::Moving);
                }
                Err(why) => prop_assert!(!was_out && why == stale(model, offset)),
            }
        }
        Step::Extend(which, by) => {
            let Some((offset, serial)) = token(model, which) else {
                return Ok(());
            };
            let was_out = is_out(model, offset, serial);
            prop_assert_eq!(
                ledger.extend(offset, serial, now + by, CAP).is_ok(),
                was_out
            );
            if let Some(Is::Out { since, until, .. }) =
                model.is.get_mut(&offset).filter(|_| was_out)
            {
                *until = (now + by).min(*since + CAP);
            }
        }
        Step::Die(stream) => {
            let held: Vec<i64> = model
                .out()
                .filter(|(_, holder)| *holder == stream)
                .map(|(offset, _)| offset)
                .collect();
            let is_alone = held.len() == 1;
            ledger.take_back(stream, is_alone, now);
            for offset in held {
                match is_alone {
                    true => model.failed(offset),
                    false => drop(model.is.insert(offset, Is::Idle)),
                }
            }
            model.held.insert(stream, 0);
        }
        Step::Leave(stream) => {
            ledger.hand_back(stream);
            let held: Vec<i64> = model
                .out()
                .filter(|(_, holder)| *holder == stream)
                .map(|(offset, _)| offset)
                .collect();
            for offset in held {
                model.is.insert(offset, Is::Idle);
            }
            model.held.insert(stream, 0);
        }
        Step::Spread(members) => {
            ledger.spread(&members);
            model.members = members;
        }
        Step::Pass(time) => {
            model.now += time;
            let now = model.now;
            let due = ledger.due(now, |_| false);
            let mut expired = 0;
            let out: Vec<i64> = model.out().map(|(offset, _)| offset).collect();
            for offset in out {
                // One that expired before may have taken it along.
                if let Is::Out { until, .. } = model.is[&offset]
                    && until <= now
                {
                    expired += 1;
                    model.failed(offset);
                    model.rewound(offset);
                }
            }
            prop_assert_eq!(
                due.expired,
                expired,
                "no lease ends early, and none is missed"
            );
            model.refund(&due.refunds);
            prop_assert!(ledger.due_at().is_none_or(|at| at > now));
        }
        Step::Copied(succeeds) => {
            while let Some(dead) = ledger.next_dead() {
                prop_assert_eq!(model.is[&dead.offset], Is::Moving);
                prop_assert!(model.copying.insert(dead.offset), "each is given once");
            }
            if let Some(offset) = model.copying.pop_first() {
                prop_assert_eq!(
                    ledger.moved(offset, (!succeeds).then_some(model.now + 100)),
                    succeeds
                );
                if succeeds {
                    model.is.insert(offset, Is::Settled);
                }
            }
        }
    }
    let open = model.is.iter().find(|(_, is)| **is != Is::Settled);
    let lowest = open.map_or_else(|| ledger.position(), |(offset, _)| *offset);
    prop_assert_eq!(ledger.frontier(), lowest);
    prop_assert!(
        ledger.frontier() >= model.frontier,
        "the frontier moved back"
    );
    model.frontier = ledger.frontier();
    prop_assert_eq!(ledger.delivered(), model.out().count());
    let held: u64 = model.held.values().sum();
    prop_assert_eq!(
        held,
        model.out().count() as u64,
        "windows get back what is no longer held"
    );
    let count = |what: Is| model.is.values().filter(|is| **is == what).count();
    prop_assert_eq!(
        (ledger.blocked(), ledger.moving()),
        (count(Is::Blocked), count(Is::Moving))
    );
    prop_assert_eq!(
        ledger.idle_bytes(),
        10 * (count(Is::Idle) - ledger.parked()) as u64,
        "what waits for another attempt, is copied or blocked does not count"
    );
    let open = model.is.len() - count(Is::Settled);
    prop_assert_eq!(ledger.bytes(), 10 * open as u64);
    Ok(())
}

proptest! {
    #[test]
    fn any_schedule_keeps_the_promises_unordered(dead in any::<bool>(), steps in prop::collection::vec(step(), 0..200)) {
        run(Ordering::Unordered, dead, steps)?;
    }

    #[test]
    fn any_schedule_keeps_the_promises_in_partition_order(dead in any::<bool>(), steps in prop::collection::vec(step(), 0..200)) {
        run(Ordering::Partition, dead, steps)?;
    }

    #[test]
    fn any_schedule_keeps_the_promises_in_key_order(dead in any::<bool>(), steps in prop::collection::vec(step(), 0..200)) {
        run(Ordering::Key, dead, steps)?;
    }
}
