//! A broker, the members of a group and their clients, all correct and all in memory: it makes the histories that the checker must find nothing
//! wrong with. Everything happens in random order from a seed, and what is sent arrives some time later, in both directions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Mode, Topic, random::Random};
use crate::history::{Action, Change, Delivery, Event, Key, Level, MemberId, Outcome, StreamId};

const PARTITIONS: i32 = 3;
const RECORDS: i64 = 30;
const KEYS: u64 = 3;
/// Before the group is left in peace.
const STEPS: usize = 900;

enum State {
    Waiting,
    Out { stream: StreamId, token: Bytes },
    Settled,
}

struct Record {
    key: Key,
    state: State,
    attempt: u32,
}

/// One assignment, as its member has it.
struct Ledger {
    epoch: u64,
    records: BTreeMap<i64, Record>,
    revoking: bool,
}

impl Ledger {
    fn out(&self) -> impl Iterator<Item = (i64, StreamId)> + '_ {
        self.records
            .iter()
            .filter_map(|(offset, record)| match record.state {
                State::Out { stream, .. } => Some((*offset, stream)),
                _ => None,
            })
    }

    fn settled(&self) -> BTreeSet<i64> {
        let settled = |(offset, record): (&i64, &Record)| {
            matches!(record.state, State::Settled).then_some(*offset)
        };
        self.records.iter().filter_map(settled).collect()
    }

    fn give_back(&mut self, offset: i64, is_counted: bool) {
        let record = self.records.get_mut(&offset).expect("a record");
        record.state = State::Waiting;
        record.attempt += u32::from(is_counted);
    }
}

#[derive(Default)]
struct Member {
    ledgers: BTreeMap<i32, Ledger>,
    dead: bool,
    stopped: bool,
}

/// DURABLE: a settle that is done and not committed.
struct Unanswered {
    request: u64,
    outcomes: Vec<Outcome>,
    /// Items that wait for a commit, with the epoch of their assignment.
    open: Vec<(usize, u64)>,
}

struct Stream {
    member: MemberId,
    window: usize,
    inbox: VecDeque<(u64, Vec<(Bytes, Action)>)>,
    outbox: VecDeque<Event>,
    unanswered: Vec<Unanswered>,
    /// The client's.
    held: Vec<Bytes>,
    used: Vec<Bytes>,
    requests: u64,
    gone: bool,
    ended: bool,
}

pub struct Simulator {
    random: Random,
    mode: Mode,
    level: Level,
    calm: bool,
    topic: Topic,
    history: Vec<Event>,
    /// By partition: what Kafka has.
    committed: Vec<BTreeSet<i64>>,
    owners: Vec<Option<MemberId>>,
    members: Vec<Member>,
    streams: Vec<Stream>,
    /// What each token is of: partition, offset, epoch.
    tokens: BTreeMap<Bytes, (i32, i64, u64)>,
    epochs: u64,
}

/// A topic, and the history of a group that reads it to its end.
pub fn simulate(seed: u64, mode: Mode, level: Level) -> (Topic, Vec<Event>) {
    let mut random = Random(seed);
    let mut topic = Topic::new();
    for partition in 0..PARTITIONS {
        // Offsets have gaps where transactions ended.
        let offsets = (0..RECORDS).filter(|offset| offset % 13 != 7);
        let key = |random: &mut Random| match random.below(KEYS + 1) {
            KEYS => None,
            key => Some(Bytes::from(format!("key-{key}"))),
        };
        let records = offsets.map(|offset| (offset, key(&mut random))).collect();
        topic.insert(partition, records);
    }
    let mut simulator = Simulator {
        random,
        mode,
        level,
        calm: seed.is_multiple_of(2),
        topic,
        history: Vec::new(),
        committed: vec![BTreeSet::new(); PARTITIONS as usize],
        owners: vec![None; PARTITIONS as usize],
        members: Vec::new(),
        streams: Vec::new(),
        tokens: BTreeMap::new(),
        epochs: 0,
    };
    for _ in 0..2 {
        simulator.join();
    }
    for _ in 0..STEPS {
        simulator.disturb();
        simulator.work();
    }
    simulator.settle_down();
    (simulator.topic, simulator.history)
}

impl Simulator {
    fn disturb(&mut self) {
        match self.random.below(250) {
            // In every second history nobody dies.
            0..4 if !self.calm => self.kill(),
            4..6 if !self.calm => self.stop(),
            6..8 => self.join(),
            8..10 => self.open(),
            10 => self.abandon(),
            11..17 => self.revoke(),
            17..20 => self.resume(),
            20..23 => self.notice(),
            _ => {}
        }
    }

    fn work(&mut self) {
        self.assign();
        self.finish_revoke();
        let streams = self.streams.iter().enumerate();
        let going: Vec<usize> = streams
            .filter(|(_, one)| !one.ended)
            .map(|(id, _)| id)
            .collect();
        let Some(stream) = self.random.pick(&going) else {
            return;
        };
        match self.random.below(12) {
            0..4 => self.read(stream),
            4..6 => self.settle(stream),
            6..8 => self.serve(stream),
            8..10 => self.deliver(stream),
            10 if self.level == Level::Durable || self.random.one_in(5) => {
                self.commit(self.streams[stream].member);
            }
            11 if self.random.one_in(2) => self.look(),
            _ => {}
        }
    }

    /// No more trouble, until everything is settled, committed and told.
    fn settle_down(&mut self) {
        for member in 0..self.members.len() {
            self.members[member].stopped = false;
        }
        self.notice();
        self.join();
        for _ in 0..1_000_000 {
            self.work();
            let is_told = |stream: &Stream| {
                stream.ended
                    || stream.outbox.is_empty()
                        && stream.unanswered.is_empty()
                        && stream.inbox.is_empty()
            };
            let is_done = self
                .committed
                .iter()
                .zip(self.topic.values())
                .all(|(done, all)| done.len() == all.len());
            if is_done && self.streams.iter().all(is_told) {
                return self.look();
            }
        }
        panic!("the group does not come to an end");
    }

    fn running(&self) -> Vec<MemberId> {
        let is_running = |member: &Member| !member.dead && !member.stopped;
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| is_running(member))
            .map(|(id, _)| id as MemberId)
            .collect()
    }

    fn tell(&mut self, member: MemberId, event: impl Fn(StreamId) -> Event) {
        for (id, stream) in self.streams.iter_mut().enumerate() {
            if stream.member == member && !stream.gone {
                stream.outbox.push_back(event(id as StreamId));
            }
        }
    }

    fn tell_partition(&mut self, member: MemberId, partition: i32, change: Change) {
        self.tell(member, |stream| Event::Partition {
            stream,
            partition,
            change,
        });
    }

    fn join(&mut self) {
        self.members.push(Member::default());
        self.open_at(self.members.len() as MemberId - 1);
    }

    fn open(&mut self) {
        if let Some(member) = self.random.pick(&self.running()) {
            self.open_at(member);
        }
    }

    fn open_at(&mut self, member: MemberId) {
        let stream = self.streams.len() as StreamId;
        let window = 4 + self.random.below(8) as usize;
        self.history.push(Event::Opened {
            stream,
            member,
            window,
            level: self.level,
        });
        let ledgers = self.members[member as usize].ledgers.iter();
        let assigned = ledgers
            .filter(|(_, ledger)| !ledger.revoking)
            .map(|(&partition, _)| Event::Partition {
                stream,
                partition,
                change: Change::Assigned,
            });
        self.streams.push(Stream {
            member,
            window,
            inbox: VecDeque::new(),
            outbox: assigned.collect(),
            unanswered: Vec::new(),
            held: Vec::new(),
            used: Vec::new(),
            requests: 0,
            gone: false,
            ended: false,
        });
    }

    /// The client of a stream goes without a word, if it is not its member's last.
    fn abandon(&mut self) {
        let stream = self.random.below(self.streams.len() as u64) as usize;
        let member = self.streams[stream].member;
        let is_open = |one: &&Stream| one.member == member && !one.gone;
        let is_last = self.streams.iter().filter(is_open).count() < 2;
        if self.streams[stream].gone || is_last || self.members[member as usize].stopped {
            return;
        }
        let gone = &mut self.streams[stream];
        (gone.gone, gone.ended) = (true, true);
        gone.outbox.clear();
        self.history.push(Event::Ended {
            stream: stream as StreamId,
            clean: false,
        });
        for ledger in self.members[member as usize].ledgers.values_mut() {
            let held: Vec<_> = ledger
                .out()
                .filter(|(_, holder)| *holder == stream as StreamId)
                .collect();
            for (offset, _) in held {
                ledger.give_back(offset, true);
            }
        }
    }

    fn kill(&mut self) {
        let running = self.running();
        let Some(member) = self.random.pick(&running).filter(|_| running.len() > 1) else {
            return;
        };
        self.history.push(Event::Killed { member });
        let killed = &mut self.members[member as usize];
        killed.dead = true;
        killed.ledgers.clear();
        self.expel(member);
        for stream in self.streams.iter_mut().filter(|one| one.member == member) {
            stream.gone = true;
            stream.inbox.clear();
            // Some of what it said was not yet on its way.
            stream.outbox.truncate(self.random.below(8) as usize);
        }
    }

    fn stop(&mut self) {
        let running = self.running();
        if let Some(member) = self.random.pick(&running).filter(|_| running.len() > 1) {
            self.history.push(Event::Stopped { member });
            self.members[member as usize].stopped = true;
            if !self.random.one_in(3) {
                self.expel(member);
            }
        }
    }

    fn expel(&mut self, member: MemberId) {
        for owner in self
            .owners
            .iter_mut()
            .filter(|owner| **owner == Some(member))
        {
            *owner = None;
        }
    }

    fn resume(&mut self) {
        for member in &mut self.members {
            member.stopped = false;
        }
    }

    /// Those that were expelled learn of it.
    fn notice(&mut self) {
        for member in self.running() {
            let held: Vec<i32> = self.members[member as usize]
                .ledgers
                .keys()
                .copied()
                .collect();
            for partition in held {
                if self.owners[partition as usize] != Some(member) {
                    self.lose(member, partition, Change::Lost);
                }
            }
        }
    }

    /// A partition goes; what waits for a commit of it is answered.
    fn lose(&mut self, member: MemberId, partition: i32, change: Change) {
        let ledger = self.members[member as usize]
            .ledgers
            .remove(&partition)
            .expect("held");
        for stream in self.streams.iter_mut().filter(|one| one.member == member) {
            for one in &mut stream.unanswered {
                for (item, _) in one.open.extract_if(.., |(_, epoch)| *epoch == ledger.epoch) {
                    one.outcomes[item] = Outcome::Moved;
                }
            }
        }
        self.answer(member);
        self.tell_partition(member, partition, change);
    }

    fn answer(&mut self, member: MemberId) {
        for (id, stream) in self.streams.iter_mut().enumerate() {
            if stream.member != member || stream.gone {
                continue;
            }
            for one in stream.unanswered.extract_if(.., |one| one.open.is_empty()) {
                stream.outbox.push_back(Event::Settled {
                    stream: id as StreamId,
                    request: one.request,
                    outcomes: one.outcomes,
                });
            }
        }
    }

    fn revoke(&mut self) {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        let Some(member) = self.owners[partition as usize] else {
            return;
        };
        let one = &mut self.members[member as usize];
        if let Some(ledger) = one.ledgers.get_mut(&partition).filter(|one| !one.revoking)
            && !one.stopped
        {
            ledger.revoking = true;
            self.tell_partition(member, partition, Change::Revoking);
        }
    }

    fn finish_revoke(&mut self) {
        for member in self.running() {
            let overrun = self.random.one_in(40);
            let ledgers = self.members[member as usize].ledgers.iter();
            let is_over =
                |ledger: &Ledger| ledger.revoking && (overrun || ledger.out().next().is_none());
            let over: Vec<i32> = ledgers
                .filter(|(_, one)| is_over(one))
                .map(|(&partition, _)| partition)
                .collect();
            for partition in over {
                self.commit(member);
                self.lose(member, partition, Change::Revoked);
                if self.owners[partition as usize] == Some(member) {
                    self.owners[partition as usize] = None;
                }
            }
        }
    }

    fn assign(&mut self) {
        for partition in 0..PARTITIONS {
            let running = self.running();
            let without = |member: &MemberId| {
                !self.members[*member as usize]
                    .ledgers
                    .contains_key(&partition)
            };
            let candidates: Vec<MemberId> = running.into_iter().filter(without).collect();
            if self.owners[partition as usize].is_some() || !self.random.one_in(8) {
                continue;
            }
            let Some(member) = self.random.pick(&candidates) else {
                continue;
            };
            self.owners[partition as usize] = Some(member);
            self.epochs += 1;
            let records = self.topic[&partition].iter().map(|(offset, key)| {
                let is_settled = self.committed[partition as usize].contains(offset);
                let record = Record {
                    key: key.clone(),
                    state: if is_settled {
                        State::Settled
                    } else {
                        State::Waiting
                    },
                    attempt: 1,
                };
                (*offset, record)
            });
            let ledger = Ledger {
                epoch: self.epochs,
                records: records.collect(),
                revoking: false,
            };
            self.members[member as usize]
                .ledgers
                .insert(partition, ledger);
            self.tell_partition(member, partition, Change::Assigned);
        }
    }

    fn commit(&mut self, member: MemberId) {
        if self.members[member as usize].stopped || self.members[member as usize].dead {
            return;
        }
        let mut covered = BTreeSet::new();
        for (partition, ledger) in &self.members[member as usize].ledgers {
            if self.owners[*partition as usize] == Some(member) {
                self.committed[*partition as usize] = ledger.settled();
                covered.insert(ledger.epoch);
            }
        }
        for stream in self.streams.iter_mut().filter(|one| one.member == member) {
            for one in &mut stream.unanswered {
                one.open.retain(|(_, epoch)| !covered.contains(epoch));
            }
        }
        self.answer(member);
    }

    fn look(&mut self) {
        let committed = self.committed.iter().zip(self.topic.values());
        let offsets = committed.map(|(settled, all)| {
            let first = all.iter().find(|(offset, _)| !settled.contains(offset));
            first.map_or(RECORDS, |(offset, _)| *offset)
        });
        let offsets = offsets.collect();
        self.history.push(Event::Committed { offsets });
    }

    /// The client reads what it was told next.
    fn read(&mut self, id: usize) {
        let stream = &mut self.streams[id];
        let Some(event) = stream.outbox.pop_front() else {
            if stream.gone && !stream.ended {
                stream.ended = true;
                self.history.push(Event::Ended {
                    stream: id as StreamId,
                    clean: false,
                });
            }
            return;
        };
        if let Event::Delivered(delivery) = &event {
            stream.held.push(delivery.token.clone());
        }
        self.history.push(event);
    }

    /// The client settles some of what it holds, and now and then what it should not.
    fn settle(&mut self, id: usize) {
        let random = &mut self.random;
        let stream = &mut self.streams[id];
        if stream.ended {
            return;
        }
        let mut items = Vec::new();
        for _ in 0..=random.below(4) {
            let count = stream.held.len() as u64;
            if count > 0 {
                let token = stream.held.swap_remove(random.below(count) as usize);
                let action = match random.below(12) {
                    0 => Action::Nack,
                    1 => Action::Release,
                    _ => Action::Ack,
                };
                stream.used.push(token.clone());
                items.push((token, action));
            }
        }
        if random.one_in(4) {
            let count = stream.used.len().max(1) as u64;
            let used = stream.used.get(random.below(count) as usize).cloned();
            items.extend(used.map(|token| (token, Action::Ack)));
        }
        // Another client's: one that it has told of.
        if random.one_in(20)
            && let Some(event) = self
                .history
                .get(random.below(self.history.len() as u64) as usize)
            && let Event::Delivered(Delivery { token, .. }) = event
            && !stream.held.contains(token)
        {
            items.push((token.clone(), Action::Ack));
        }
        if items.is_empty() {
            return;
        }
        stream.requests += 1;
        self.history.push(Event::Settle {
            stream: id as StreamId,
            request: stream.requests,
            items: items.clone(),
        });
        if !stream.gone {
            stream.inbox.push_back((stream.requests, items));
        }
    }

    /// The sidecar takes a settle.
    fn serve(&mut self, id: usize) {
        let member = self.streams[id].member;
        if self.members[member as usize].stopped || self.streams[id].gone {
            return;
        }
        let Some((request, items)) = self.streams[id].inbox.pop_front() else {
            return;
        };
        let (mut outcomes, mut open) = (Vec::new(), Vec::new());
        for (index, (token, action)) in items.into_iter().enumerate() {
            let outcome = self.apply(member, &token, action);
            if outcome == Outcome::Done && action == Action::Ack && self.level == Level::Durable {
                open.push((index, self.tokens[&token].2));
            }
            outcomes.push(outcome);
        }
        self.streams[id].unanswered.push(Unanswered {
            request,
            outcomes,
            open,
        });
        self.answer(member);
    }

    fn apply(&mut self, member: MemberId, token: &Bytes, action: Action) -> Outcome {
        let (partition, offset, epoch) = self.tokens[token];
        let ledgers = &mut self.members[member as usize].ledgers;
        let Some(ledger) = ledgers.get_mut(&partition).filter(|one| one.epoch == epoch) else {
            return Outcome::Moved;
        };
        let record = ledger.records.get_mut(&offset).expect("a record");
        match &record.state {
            State::Out { token: newest, .. } if newest == token => {}
            State::Settled => return Outcome::AlreadySettled,
            _ => return Outcome::Redelivered,
        }
        if action == Action::Ack {
            record.state = State::Settled;
            return Outcome::Done;
        }
        ledger.give_back(offset, action == Action::Nack);
        if self.mode == Mode::Partition {
            let later: Vec<_> = ledger.out().filter(|(later, _)| *later > offset).collect();
            for (later, _) in later {
                ledger.give_back(later, false);
            }
        }
        Outcome::Done
    }

    fn deliver(&mut self, id: usize) {
        let Stream {
            member,
            window,
            gone,
            ..
        } = self.streams[id];
        let mut partitions: Vec<i32> = self.members[member as usize]
            .ledgers
            .keys()
            .copied()
            .collect();
        if gone || self.members[member as usize].stopped {
            return;
        }
        for _ in 0..=self.random.below(5) {
            let ledgers = self.members[member as usize].ledgers.values();
            let out = ledgers.flat_map(Ledger::out);
            if out.filter(|(_, stream)| *stream == id as StreamId).count() >= window {
                return;
            }
            let Some(partition) = self.random.pick(&partitions) else {
                return;
            };
            let Some(offset) = self.next(member, partition, id as StreamId) else {
                partitions.retain(|other| *other != partition);
                continue;
            };
            self.give(id, partition, offset);
        }
    }

    /// Which record of a partition a stream may be given now.
    fn next(&self, member: MemberId, partition: i32, stream: StreamId) -> Option<i64> {
        let ledger = &self.members[member as usize].ledgers[&partition];
        let is_open = match self.mode {
            Mode::Partition => ledger.out().all(|(_, holder)| holder == stream),
            Mode::Key | Mode::Unordered => true,
        };
        let is_unsettled = |record: &Record| !matches!(record.state, State::Settled);
        let is_blocked = |offset: i64, key: &Key| {
            let below = || ledger.records.range(..offset).map(|(_, record)| record);
            let is_before = |record: &Record| record.key == *key && is_unsettled(record);
            self.mode == Mode::Key && key.is_some() && below().any(is_before)
        };
        if !is_open || ledger.revoking {
            return None;
        }
        let mut waiting = ledger
            .records
            .iter()
            .filter(|(_, record)| matches!(record.state, State::Waiting));
        waiting
            .find(|(offset, record)| !is_blocked(**offset, &record.key))
            .map(|(offset, _)| *offset)
    }

    fn give(&mut self, id: usize, partition: i32, offset: i64) {
        let stream = &mut self.streams[id];
        let ledgers = &mut self.members[stream.member as usize].ledgers;
        let ledger = ledgers.get_mut(&partition).expect("held");
        let token = Bytes::from((self.tokens.len() as u64).to_be_bytes().to_vec());
        self.tokens
            .insert(token.clone(), (partition, offset, ledger.epoch));
        let record = ledger.records.get_mut(&offset).expect("a record");
        record.state = State::Out {
            stream: id as StreamId,
            token: token.clone(),
        };
        stream.outbox.push_back(Event::Delivered(Delivery {
            stream: id as StreamId,
            partition,
            offset,
            key: record.key.clone(),
            attempt: record.attempt,
            token,
        }));
    }
}
