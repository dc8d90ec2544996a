//! The shares against a model that looks at everything, and the rules one by one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NOBODY: [Ticket; 0] = [];

fn usage(records: u64, bytes: u64) -> Usage {
    Usage { records, bytes }
}

fn claim(claimant: u64, bytes: u64) -> Claim {
    Claim {
        claimant: Claimant::Stream(claimant),
        usage: usage(1, bytes),
        parts: Vec::new(),
        keys: Keys::Unknown,
    }
}

fn of_partition(claimant: u64, partition: PartitionKey, bytes: u64) -> Claim {
    Claim {
        parts: vec![(partition, usage(1, bytes))],
        ..claim(claimant, bytes)
    }
}

/// Asks for the same again and again until something waits; says how much was granted.
fn fill(shares: &mut Shares, next: &mut Ticket, claim: &Claim) -> u64 {
    let mut granted = 0;
    loop {
        *next += 1;
        if shares.ask(*next, claim.clone()).is_empty() {
            shares.forget(claim.claimant, *next);
            return granted;
        }
        granted += claim.usage.bytes;
    }
}

#[test]
fn one_alone_gets_half_and_everybody_else_finds_room() {
    let (mut shares, mut next) = (Shares::new(usage(1000, 1200)), 0);
    assert_eq!(fill(&mut shares, &mut next, &claim(1, 10)), 600);
    assert_eq!(fill(&mut shares, &mut next, &claim(2, 10)), 300);
    assert_eq!(fill(&mut shares, &mut next, &claim(3, 10)), 150);
    assert_eq!(fill(&mut shares, &mut next, &claim(4, 1)), 75);
}

#[test]
fn who_holds_nothing_may_have_all_of_it() {
    let mut shares = Shares::new(usage(10, 100));
    assert_eq!(shares.ask(1, claim(1, 100)), [1]);
    assert_eq!(shares.used(), usage(1, 100));
}

#[test]
fn a_partition_that_keeps_its_records_stops_only_those_who_write_to_it() {
    let (mut shares, mut next) = (Shares::new(usage(9999, 1200)), 0);
    let mut stuck = 0;
    for claimant in 0..100 {
        stuck += fill(&mut shares, &mut next, &of_partition(claimant, 7, 1));
    }
    assert_eq!(stuck, 600);
    // Those who wait for it are in nobody's way.
    for claimant in 0..100 {
        assert_eq!(shares.ask(next + 1, of_partition(claimant, 7, 1)), NOBODY);
        next += 1;
    }
    assert_eq!(fill(&mut shares, &mut next, &of_partition(500, 8, 1)), 300);
}

#[test]
fn who_finds_another_partition_full_is_in_nobodys_way_at_the_first() {
    let mut shares = Shares::new(usage(9999, 100));
    let (eight, seven) = (of_partition(1, 8, 60), of_partition(2, 7, 20));
    assert_eq!(shares.ask(1, eight), [1]);
    assert_eq!(shares.ask(2, seven.clone()), [2]);
    let both = Claim {
        parts: vec![(7, usage(1, 5)), (8, usage(1, 5))],
        ..claim(3, 10)
    };
    assert_eq!(shares.ask(3, both), NOBODY, "it waits for 7");
    assert_eq!(shares.ask(4, of_partition(4, 7, 5)), NOBODY);
    assert_eq!(
        shares.give_back(&seven),
        [4],
        "the one before waits for 8 now"
    );
}

#[test]
fn who_holds_the_least_comes_first() {
    let mut shares = Shares::new(usage(100, 100));
    for (ticket, held) in [(1, 10), (2, 30), (3, 50)] {
        assert_eq!(shares.ask(ticket, claim(ticket, held)), [ticket]);
    }
    assert_eq!(shares.ask(4, claim(2, 11)), NOBODY);
    assert_eq!(shares.ask(5, claim(1, 11)), NOBODY, "10 are free");
    assert_eq!(shares.give_back(&claim(3, 50)), [5, 4]);
}

#[test]
fn a_request_that_is_too_large_for_now_is_not_overtaken() {
    let mut shares = Shares::new(usage(10, 100));
    let held = claim(1, 90);
    assert_eq!(shares.ask(1, held.clone()), [1]);
    assert_eq!(shares.ask(2, claim(2, 80)), NOBODY);
    assert_eq!(
        shares.ask(3, claim(3, 5)),
        NOBODY,
        "5 would fit, but 80 wait first"
    );
    assert_eq!(shares.give_back(&held), [2, 3]);
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Ask(u64, Option<u64>, u64, u64),
    GiveBack(prop::sample::Index),
    Forget(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0..5_u64, prop::option::of(0..3_u64), 1..8_u64, 1..60_u64);
    prop_oneof![
        3 => ask.prop_map(|(who, part, records, bytes)| Step::Ask(who, part, records, bytes)),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        1 => any::<prop::sample::Index>().prop_map(Step::Forget),
    ]
}

/// The same by looking at everything.
struct Model {
    held: Vec<(Ticket, Claim)>,
    waiting: Vec<(Ticket, Claim)>,
}

impl Model {
    fn sum<'a>(claims: impl Iterator<Item = &'a Usage>) -> Usage {
        let mut sum = Usage::default();
        claims.for_each(|one| sum.add(*one));
        sum
    }

    fn used(&self) -> Usage {
        Self::sum(self.held.iter().map(|(_, claim)| &claim.usage))
    }

    fn of(&self, claimant: Claimant) -> Usage {
        let held = self.held.iter().map(|(_, claim)| claim);
        Self::sum(
            held.filter(|one| one.claimant == claimant)
                .map(|one| &one.usage),
        )
    }

    fn to(&self, partition: PartitionKey) -> Usage {
        let parts = self.held.iter().flat_map(|(_, claim)| &claim.parts);
        Self::sum(
            parts
                .filter(|(one, _)| *one == partition)
                .map(|(_, usage)| usage),
        )
    }

    /// Whether nothing but the turn of others keeps a request from room.
    fn may_have(&self, claim: &Claim, bound: Usage) -> bool {
        let used = self.used();
        let is_fair = |mut held: Usage, more: Usage| {
            let is_nothing = held == Usage::default();
            held.add(more);
            is_nothing || used.fits(held, bound)
        };
        let parts = || claim.parts.iter();
        used.fits(claim.usage, bound)
            && is_fair(self.of(claim.claimant), claim.usage)
            && parts().all(|(partition, more)| is_fair(self.to(*partition), *more))
    }

    fn granted(&mut self, tickets: &[Ticket], bound: Usage) {
        for ticket in tickets {
            let at = self
                .waiting
                .iter()
                .position(|(one, _)| one == ticket)
                .expect("it waits");
            let (_, claim) = self.waiting.remove(at);
            let earlier = self.waiting[..at].iter();
            assert!(
                earlier
                    .clone()
                    .all(|(_, one)| one.claimant != claim.claimant),
                "requests of one claimant keep their order"
            );
            assert!(self.may_have(&claim, bound), "{claim:?} is more than fair");
            self.held.push((*ticket, claim));
        }
    }

    /// Somebody waits whom nothing stops, although it is nobody else's turn.
    fn is_starved(&self, bound: Usage) -> bool {
        let mut heads: HashMap<Claimant, &Claim> = HashMap::new();
        for (_, claim) in &self.waiting {
            heads.entry(claim.claimant).or_insert(claim);
        }
        !heads.is_empty() && heads.values().all(|claim| self.may_have(claim, bound))
    }
}

proptest! {
    #[test]
    fn room_is_given_by_the_rules_and_to_somebody_whenever_there_is_some(steps in prop::collection::vec(step(), 1..200)) {
        let bound = usage(20, 100);
        let mut shares = Shares::new(bound);
        let mut model = Model { held: Vec::new(), waiting: Vec::new() };
        for (number, step) in steps.into_iter().enumerate() {
            let ticket = number as Ticket;
            match step {
                Step::Ask(who, part, records, bytes) => {
                    let usage = usage(records, bytes);
                    let parts = part.map(|partition| (partition, usage));
                    let claim = Claim { claimant: Claimant::Stream(who), usage, parts: parts.into_iter().collect(), keys: Keys::Unknown };
                    model.waiting.push((ticket, claim.clone()));
                    let granted = match shares.take(&claim) {
                        true => vec![ticket],
                        false => shares.ask(ticket, claim),
                    };
                    model.granted(&granted, bound);
                }
                Step::GiveBack(which) if !model.held.is_empty() => {
                    let (_, claim) = model.held.remove(which.index(model.held.len()));
                    let granted = shares.give_back(&claim);
                    model.granted(&granted, bound);
                }
                Step::Forget(which) if !model.waiting.is_empty() => {
                    let (ticket, claim) = model.waiting.remove(which.index(model.waiting.len()));
                    let granted = shares.forget(claim.claimant, ticket).expect("it waits");
                    model.granted(&granted, bound);
                    prop_assert_eq!(shares.forget(claim.claimant, ticket), None);
                }
                Step::GiveBack(_) | Step::Forget(_) => {}
            }
            prop_assert_eq!(shares.used(), model.used());
            prop_assert!(bound.records >= model.used().records && bound.bytes >= model.used().bytes);
            prop_assert!(!model.is_starved(bound), "{:?}", model.waiting);
        }
        // Everything that is asked for comes, once all is given back.
        while let Some((_, claim)) = model.held.pop() {
            let granted = shares.give_back(&claim);
            model.granted(&granted, bound);
        }
        prop_assert!(model.waiting.is_empty());
        prop_assert!(shares.accounts.is_empty() && shares.partitions.is_empty());
        prop_assert!(shares.turns.is_empty() && shares.stopped.is_empty());
    }
}
