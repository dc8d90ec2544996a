//! Who gets room next, of what may be in flight: a fair share for each claimant and each partition.
//!
//! Pure. A claimant is a stream, or who makes unary calls. It, and each partition it writes to, may hold as much as is free at the moment (dynamic
//! thresholds: Choudhury and Hahne, 1998): one alone gets half of the bound, n get n/(n+1) together, and whoever comes next finds room at
//! once, however long the records of a partition without a leader stay. Of those who wait, the one with the least (the greater of its
//! shares of records and bytes) comes first, and a request too large for what is free is not overtaken. A partition that holds too much stops only those who
//! write to it. What always holds: nothing is charged beyond the bound; who holds nothing can be given all that is free; requests of one claimant
//! keep their order.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::{
    kafka::{Keys, PartitionKey},
    record::Usage,
};

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claimant {
    /// A publish stream.
    Stream(u64),
    /// All unary calls of a principal, by a hash of its name.
    Principal(u64),
    /// All unary calls of a connection.
    Connection(u64),
}

/// Names a request that waits. Later ones are greater.
pub(super) type Ticket = u64;

/// What is asked for, and then held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who asks.
    pub claimant: Claimant,
    /// All of it.
    pub usage: Usage,
    /// What of it goes to which partition, as far as that is known.
    pub parts: Vec<(PartitionKey, Usage)>,
    /// The same, of each record.
    pub keys: Keys,
}

/// Where a claimant's oldest request waits: its share, and the request.
type Place = (u64, Ticket, Claimant);

#[derive(Debug, Default)]
struct Account {
    used: Usage,
    waiting: VecDeque<(Ticket, Claim)>,
    /// While something waits.
    place: Option<Place>,
    /// The partition that it waits for; absent: it waits for its turn.
    full: Option<PartitionKey>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shares {
    bound: Usage,
    used: Usage,
    accounts: HashMap<Claimant, Account>,
    partitions: HashMap<PartitionKey, Usage>,
    /// Those who wait for their turn.
    turns: BTreeSet<Place>,
    /// Those who wait for a partition.
    stopped: BTreeMap<PartitionKey, BTreeSet<Place>>,
}

impl Shares {
    /// Nothing is in flight.
    pub(super) fn new(bound: Usage) -> Self {
        Self {
            bound,
            used: Usage::default(),
            accounts: HashMap::new(),
            partitions: HashMap::new(),
            turns: BTreeSet::new(),
            stopped: BTreeMap::new(),
        }
    }

    /// What is charged.
    pub(super) fn used(&self) -> Usage {
        self.used
    }

    /// Takes room at once, if there is some and it is nobody else's turn: what nearly every request does.
    pub(super) fn take(&mut self, claim: &Claim) -> bool {
        let held = self.accounts.get(&claim.claimant);
        let is_first = self.turns.is_empty() && held.is_none_or(|held| held.waiting.is_empty());
        let used = held.map(|held| held.used).unwrap_or_default();
        let has_room = self.used.fits(claim.usage, self.bound) && self.is_fair(used, claim.usage);
        let is_free = is_first && has_room && self.full(claim).is_none();
        if is_free {
            self.book(claim);
        }
        is_free
    }

    /// Asks for room, under a number higher than all before; says who gets some now, which may be this one, or nobody.
    pub(super) fn ask(&mut self, ticket: Ticket, claim: Claim) -> Vec<Ticket> {
        let claimant = claim.claimant;
        let account = self.accounts.entry(claimant).or_default();
        account.waiting.push_back((ticket, claim));
        if account.place.is_none() {
            self.take_turn(claimant);
        }
        self.grant()
    }

    /// Gives back what was granted; says who gets some now.
    pub(super) fn give_back(&mut self, claim: &Claim) -> Vec<Ticket> {
        self.used.sub(claim.usage);
        for (partition, usage) in &claim.parts {
            if let Some(used) = self.partitions.get_mut(partition) {
                used.sub(*usage);
                if *used == Usage::default() {
                    self.partitions.remove(partition);
                }
            }
        }
        if let Some(account) = self.accounts.get_mut(&claim.claimant) {
            account.used.sub(claim.usage);
            let stays = account.waiting.is_empty() && account.used != Usage::default();
            if !stays {
                self.move_up(claim.claimant);
            }
        }
        self.let_all_go();
        self.grant()
    }

    /// Gives up waiting. Absent: it does not wait any more. Else who gets room now.
    pub(super) fn forget(&mut self, claimant: Claimant, ticket: Ticket) -> Option<Vec<Ticket>> {
        let account = self.accounts.get_mut(&claimant)?;
        let at = account.waiting.iter().position(|(one, _)| *one == ticket)?;
        account.waiting.remove(at);
        self.leave_place(claimant);
        self.take_turn(claimant);
        self.let_all_go();
        Some(self.grant())
    }

    /// Grants until the next one's turn has not come.
    fn grant(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        while let Some(&(_, ticket, claimant)) = self.turns.first() {
            let account = &self.accounts[&claimant];
            let (_, claim) = account.waiting.front().expect("it has a place");
            if let Some(full) = self.full(claim) {
                let others = claim.parts.iter().map(|(partition, _)| *partition);
                let others: Vec<_> = others.filter(|one| *one != full).collect();
                self.stop(claimant, full);
                // There it no longer stands before those who wait for them.
                for partition in others {
                    self.let_go(partition);
                }
                continue;
            }
            let fits = self.used.fits(claim.usage, self.bound);
            if !(fits && self.is_fair(account.used, claim.usage)) {
                break;
            }
            self.charge(claimant);
            granted.push(ticket);
        }
        granted
    }

    fn charge(&mut self, claimant: Claimant) {
        self.leave_place(claimant);
        let account = self.accounts.get_mut(&claimant).expect("it waits");
        let (_, claim) = account.waiting.pop_front().expect("it waits");
        self.book(&claim);
        self.take_turn(claimant);
        for (partition, _) in &claim.parts {
            self.let_go(*partition);
        }
    }

    fn book(&mut self, claim: &Claim) {
        let account = self.accounts.entry(claim.claimant).or_default();
        account.used.add(claim.usage);
        self.used.add(claim.usage);
        for (partition, usage) in &claim.parts {
            self.partitions.entry(*partition).or_default().add(*usage);
        }
    }

    /// Whether who holds `used` may have `more`: it holds nothing, or no more than is free then.
    fn is_fair(&self, used: Usage, more: Usage) -> bool {
        used == Usage::default()
            || used.records + more.records <= self.bound.records - self.used.records
                && used.bytes + more.bytes <= self.bound.bytes - self.used.bytes
    }

    /// The first partition of a request that holds too much.
    fn full(&self, claim: &Claim) -> Option<PartitionKey> {
        let is_full = |(partition, more): &&(PartitionKey, Usage)| {
            let used = self.partitions.get(partition).copied().unwrap_or_default();
            !self.is_fair(used, *more)
        };
        claim.parts.iter().find(is_full).map(|(full, _)| *full)
    }

    fn share(&self, used: Usage) -> u64 {
        const WHOLE: u128 = 1 << 32;
        let of =
            |part: u64, whole: u64| (u128::from(part) * WHOLE / u128::from(whole.max(1))) as u64;
        of(used.records, self.bound.records).max(of(used.bytes, self.bound.bytes))
    }

    /// The claimant's oldest request waits for its turn. An account of nothing is closed.
    fn take_turn(&mut self, claimant: Claimant) {
        let account = &self.accounts[&claimant];
        let place = account
            .waiting
            .front()
            .map(|(ticket, _)| (self.share(account.used), *ticket, claimant));
        if place.is_none() && account.used == Usage::default() {
            self.accounts.remove(&claimant);
            return;
        }
        let account = self.accounts.get_mut(&claimant).expect("it is there");
        account.place = place;
        account.full = None;
        self.turns.extend(place);
    }

    fn leave_place(&mut self, claimant: Claimant) {
        let account = self.accounts.get_mut(&claimant).expect("it waits");
        let Some(place) = account.place.take() else {
            return;
        };
        match account.full.take() {
            None => _ = self.turns.remove(&place),
            Some(full) => {
                let there = self.stopped.get_mut(&full).expect("it waits there");
                there.remove(&place);
                if there.is_empty() {
                    self.stopped.remove(&full);
                }
            }
        }
    }

    /// Its share is less than it was; where it waits stays.
    fn move_up(&mut self, claimant: Claimant) {
        let full = self.accounts[&claimant].full;
        self.leave_place(claimant);
        self.take_turn(claimant);
        if let Some(full) = full {
            self.stop(claimant, full);
        }
    }

    /// The claimant waits for a partition.
    fn stop(&mut self, claimant: Claimant, full: PartitionKey) {
        let account = self.accounts.get_mut(&claimant).expect("it waits");
        let place = account.place.expect("it waits");
        account.full = Some(full);
        self.turns.remove(&place);
        self.stopped.entry(full).or_default().insert(place);
    }

    fn let_all_go(&mut self) {
        let stopped: Vec<PartitionKey> = self.stopped.keys().copied().collect();
        for partition in stopped {
            self.let_go(partition);
        }
    }

    /// The first of those who wait for a partition waits for its turn, if the partition has room for it.
    fn let_go(&mut self, partition: PartitionKey) {
        let Some(&(_, _, claimant)) = self.stopped.get(&partition).and_then(BTreeSet::first) else {
            return;
        };
        let (_, claim) = self.accounts[&claimant].waiting.front().expect("it waits");
        if self.full(claim) != Some(partition) {
            self.leave_place(claimant);
            self.take_turn(claimant);
        }
    }
}

#[cfg(test)]
mod tests;
