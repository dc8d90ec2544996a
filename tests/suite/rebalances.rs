//! Rebalances under load, judged by the checker: a group of sidecars beside three real brokers, whose members join, leave in order, are killed and
//! are stopped for longer than the group waits, and whose brokers are killed and are stopped, while records come, and clients settle them out of
//! order, give some back, hold some for long, and settle with tokens that are no longer good.
//!
//! `make soak` makes a hundred troubles for each order, and for the order of keys with the consumer protocol too. `OUTRIGGER_SEED` makes those
//! of an earlier run again, as far as chance lets it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use outrigger::grpc::proto::{
    self, settle_item, subscribe_request, subscribe_response::Message as Told,
};
use rdkafka::{
    ClientConfig, Message,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt;

use crate::{
    checker::{
        Mode, Topic, judge,
        random::{Random, seed},
    },
    client::{Subscription, init, read_each, window},
    commit_log::{Commit, CommitLog},
    history::{Action, Change, Delivery, Event, History, Level, MemberId, Outcome, StreamId},
    kafka::{Kafka, fresh},
    protocol::{Protocol, Settings},
    sidecar::{PATIENCE, Sidecar},
};

/// The orders that the sidecar serves: `Mode::Key` joins them with the build that does.
const MODES: &[Mode] = &[Mode::Key, Mode::Partition, Mode::Unordered];

const PARTITIONS: i32 = 6;
const KEYS: u64 = 300;
const WINDOW: usize = 60;

/// A member that dies is given up soon, and partitions are handed over soon.
fn settings(protocol: Protocol, kafka: &Kafka, group: &str) -> Settings {
    let mut settings = protocol.given_up_after(kafka, group, "300ms", "3000ms");
    settings.extend([
        ("consume.revoke_drain", "1s"),
        ("consume.commit_interval", "200ms"),
    ]);
    settings
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Join,
    /// Its clients end in order, then it.
    Leave,
    /// It ends in order while its clients hold records.
    Term,
    Kill,
    /// For so long that the group gives its partitions away.
    Stop,
    /// A broker is killed, and comes back.
    KillBroker,
    /// A broker stands still for a while.
    StopBroker,
}

/// In a test run; a soak draws its own.
const FEW: [Trouble; 9] = [
    Trouble::Kill,
    Trouble::Join,
    Trouble::KillBroker,
    Trouble::Stop,
    Trouble::Leave,
    Trouble::Join,
    Trouble::Term,
    Trouble::Join,
    Trouble::Kill,
];

const MANY: usize = 100;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all who have to do with a group share.
struct Group {
    bootstrap: String,
    /// Whoever has it may make trouble for a broker: with two of three away, Kafka takes nothing.
    kafka: Arc<tokio::sync::Mutex<Kafka>>,
    topic: String,
    name: String,
    settings: Settings,
    mode: Mode,
    history: History,
    next: AtomicU32,
    /// The partitions of each member, as its streams were told.
    owned: Mutex<BTreeMap<MemberId, BTreeMap<StreamId, BTreeSet<i32>>>>,
    /// Tokens of whomsoever.
    tokens: Mutex<Vec<Bytes>>,
    committed: Mutex<Vec<i64>>,
    logs: Mutex<BTreeMap<MemberId, Vec<Value>>>,
    /// Nothing is published any more.
    full: AtomicBool,
    over: AtomicBool,
}

impl Group {
    fn id(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A broker is away, and then in step with the others again.
    async fn break_broker(&self, [away, back]: [&'static str; 2], random: &mut Random) {
        let broker = 1 + random.below(3);
        // Leaders move after 4.5 s.
        let outage = Duration::from_millis(500 + random.below(7000));
        let kafka = Arc::clone(&self.kafka).lock_owned().await;
        let trouble = move || {
            kafka.tell(&format!("{away} {broker}"));
            thread::sleep(outage);
            kafka.tell(&format!("{back} {broker}"));
            kafka.tell("healthy");
        };
        tokio::task::spawn_blocking(trouble).await.unwrap();
    }

    /// All brokers are there as long as this is held, and all members in the group: nobody ends in order whose coordinator is away, or who is
    /// expelled and does not know it yet.
    async fn whole(&self, members: &[Member]) -> tokio::sync::OwnedMutexGuard<Kafka> {
        let kafka = Arc::clone(&self.kafka).lock_owned().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.wait_for_shares(&ids(members)).await;
        kafka
    }

    /// Waits until the members have all partitions, each one some, and no two the same.
    async fn wait_for_shares(&self, members: &[MemberId]) {
        let begun = Instant::now();
        loop {
            let shares: Vec<BTreeSet<i32>> = {
                let owned = lock(&self.owned);
                let of = |member| {
                    owned
                        .get(member)
                        .into_iter()
                        .flat_map(BTreeMap::values)
                        .flatten()
                        .copied()
                        .collect()
                };
                members.iter().map(of).collect()
            };
            let all: BTreeSet<i32> = shares.iter().flatten().copied().collect();
            let count: usize = shares.iter().map(BTreeSet::len).sum();
            if all.len() == PARTITIONS as usize
                && count == all.len()
                && shares.iter().all(|one| !one.is_empty())
            {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let (events, times) = self.history.take();
                let told = tell(&events, &times, &lock(&self.logs));
                panic!(
                    "{:?}: members {members:?} have {shares:?}; the history is in {told}",
                    self.mode
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A sidecar and its clients.
struct Member {
    id: MemberId,
    sidecar: Arc<Sidecar>,
    clients: Vec<Client>,
}

struct Client {
    drain: CancellationToken,
    abandon: CancellationToken,
    task: JoinHandle<()>,
}

impl Member {
    async fn join(group: &Arc<Group>, random: &mut Random) -> Self {
        let (bootstrap, settings) = (group.bootstrap.clone(), group.settings.clone());
        let start = move || Sidecar::start(&bootstrap, &settings);
        let sidecar = tokio::task::spawn_blocking(start).await.unwrap();
        let mut member = Self {
            id: group.id(),
            sidecar: Arc::new(sidecar),
            clients: Vec::new(),
        };
        member.open(group, random).await;
        member
    }

    async fn open(&mut self, group: &Arc<Group>, random: &mut Random) {
        let stream = group.id();
        let level = if random.one_in(2) {
            Level::Recorded
        } else {
            Level::Durable
        };
        group.history.note(Event::Opened {
            stream,
            member: self.id,
            window: WINDOW,
            level,
        });
        let order = match group.mode {
            Mode::Key => proto::Ordering::Key,
            Mode::Partition => proto::Ordering::Partition,
            Mode::Unordered => proto::Ordering::Unordered,
        };
        let mut asked = init(&group.name, &[&group.topic], order);
        asked.window = window(WINDOW as u64);
        asked.confirm = match level {
            Level::Recorded => proto::Confirm::Recorded.into(),
            Level::Durable => proto::Confirm::Durable.into(),
        };
        let worker = Worker {
            group: Arc::clone(group),
            member: self.id,
            stream,
            subscription: Subscription::open(&self.sidecar, asked).await,
            random: Random(random.below(u64::MAX)),
            requests: 0,
            awaited: HashMap::new(),
            held: Vec::new(),
            used: Vec::new(),
            hurried: false,
        };
        let (drain, abandon) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(worker.run(drain.clone(), abandon.clone()));
        self.clients.push(Client {
            drain,
            abandon,
            task,
        });
    }

    /// A second stream comes, or one of two goes: in order, or without a word.
    async fn change_streams(&mut self, group: &Arc<Group>, random: &mut Random) {
        if self.clients.len() < 2 {
            return self.open(group, random).await;
        }
        let client = self.clients.swap_remove(random.below(2) as usize);
        match random.one_in(2) {
            true => client.drain.cancel(),
            false => client.abandon.cancel(),
        }
        client.task.await.unwrap();
    }

    async fn end_clients(&mut self) {
        for client in self.clients.drain(..) {
            client.task.await.expect("a client ends");
        }
    }

    /// Its clients leave first.
    async fn drain(&mut self) {
        for client in &self.clients {
            client.drain.cancel();
        }
        self.end_clients().await;
    }

    async fn term(mut self, group: &Group) {
        self.sidecar.signal("TERM");
        self.end_clients().await;
        let id = self.id;
        let mut sidecar = Arc::into_inner(self.sidecar).expect("nobody else has it");
        let wait = move || (sidecar.wait(PATIENCE), sidecar.log());
        let (status, log) = tokio::task::spawn_blocking(wait).await.unwrap();
        assert!(status.success(), "member {id} ends in order: {log:#?}");
        lock(&group.logs).insert(id, log);
        lock(&group.owned).remove(&id);
    }

    async fn kill(mut self, group: &Group) {
        group.history.note(Event::Killed { member: self.id });
        self.sidecar.signal("KILL");
        self.end_clients().await;
        lock(&group.logs).insert(self.id, self.sidecar.log());
        lock(&group.owned).remove(&self.id);
    }
}

struct Held {
    token: Bytes,
    attempt: u32,
    /// Not before this is it settled.
    due: Instant,
}

/// The client of a stream.
struct Worker {
    group: Arc<Group>,
    member: MemberId,
    stream: StreamId,
    subscription: Subscription,
    random: Random,
    requests: u64,
    /// How many items each request has.
    awaited: HashMap<u64, usize>,
    held: Vec<Held>,
    /// Tokens that it has settled with.
    used: Vec<Bytes>,
    /// It settles what it holds, and that is all.
    hurried: bool,
}

impl Worker {
    async fn run(mut self, drain: CancellationToken, abandon: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_draining = false;
        let clean = loop {
            tokio::select! {
                () = abandon.cancelled() => break false,
                () = drain.cancelled(), if !is_draining => {
                    (is_draining, self.hurried) = (true, true);
                    let drain = subscribe_request::Message::Drain(proto::Drain {});
                    self.subscription.send(drain).await;
                }
                message = self.subscription.responses.message() => match message {
                    Ok(Some(message)) => self.told(message.message.expect("a message")),
                    Ok(None) => break true,
                    Err(status) => {
                        // It stops, or is gone; all else would be news.
                        let reason = status.get_details_error_info().map(|info| info.reason);
                        assert!(reason.is_none_or(|reason| reason == "DRAINING"), "{status:?}");
                        break false;
                    }
                },
                _ = tick.tick() => self.settle().await,
            }
        };
        assert!(clean || !is_draining, "a drained stream ends in order");
        self.group.history.note(Event::Ended {
            stream: self.stream,
            clean,
        });
        self.own(|streams, stream| {
            streams.remove(&stream);
        });
    }

    fn own(&self, change: impl FnOnce(&mut BTreeMap<StreamId, BTreeSet<i32>>, StreamId)) {
        change(
            lock(&self.group.owned).entry(self.member).or_default(),
            self.stream,
        );
    }

    fn told(&mut self, message: Told) {
        let stream = self.stream;
        match message {
            Told::Deliveries(deliveries) => {
                for delivery in deliveries.deliveries {
                    self.delivered(delivery);
                }
            }
            Told::Settled(settled) => {
                let request = settled.request_id;
                let count = self.awaited.remove(&request).unwrap_or_default();
                let mut outcomes = vec![Outcome::Done; count];
                for item in settled.outcomes {
                    outcomes[item.index as usize] = match item.outcome() {
                        proto::Outcome::AlreadySettled => Outcome::AlreadySettled,
                        proto::Outcome::ExpiredRedelivered => Outcome::Redelivered,
                        proto::Outcome::FencedPartitionMoved => Outcome::Moved,
                        _ => Outcome::Unknown,
                    };
                }
                self.group.history.note(Event::Settled {
                    stream,
                    request,
                    outcomes,
                });
            }
            Told::PartitionEvent(event) => {
                let partition = event.partition;
                let change = match event.kind() {
                    proto::PartitionEventKind::Assigned => Change::Assigned,
                    proto::PartitionEventKind::Revoking => Change::Revoking,
                    proto::PartitionEventKind::Revoked => Change::Revoked,
                    proto::PartitionEventKind::Lost => Change::Lost,
                    _ => return,
                };
                self.group.history.note(Event::Partition {
                    stream,
                    partition,
                    change,
                });
                self.own(|streams, stream| {
                    let owned = streams.entry(stream).or_default();
                    match change {
                        Change::Assigned => owned.insert(partition),
                        Change::Revoking => false,
                        Change::Revoked | Change::Lost => owned.remove(&partition),
                    };
                });
            }
            Told::Draining(_) => self.hurried = true,
            _ => {}
        }
    }

    fn delivered(&mut self, delivery: proto::Delivery) {
        let record = delivery.record.expect("a record");
        let event = Delivery {
            stream: self.stream,
            partition: record.partition.expect("a partition"),
            offset: delivery.offset,
            key: record.key,
            attempt: delivery.attempt,
            token: delivery.token.clone(),
        };
        self.group.history.note(Event::Delivered(event));
        if self.random.one_in(50) {
            let mut tokens = lock(&self.group.tokens);
            tokens.push(delivery.token.clone());
            if tokens.len() > 200 {
                tokens.remove(0);
            }
        }
        // Some are held for longer than a partition is drained.
        let wait = match self.random.below(400) {
            0 => 200 + self.random.below(1400),
            _ => self.random.below(60),
        };
        self.held.push(Held {
            token: delivery.token,
            attempt: delivery.attempt,
            due: Instant::now() + Duration::from_millis(wait),
        });
    }

    async fn settle(&mut self) {
        let mut items = self.items();
        if items.is_empty() {
            return;
        }
        for index in (1..items.len()).rev() {
            items.swap(index, self.random.below(index as u64 + 1) as usize);
        }
        self.requests += 1;
        self.awaited.insert(self.requests, items.len());
        let sent = items.iter().map(|(token, action)| proto::SettleItem {
            token: token.clone(),
            action: Some(match action {
                Action::Ack => settle_item::Action::Ack(proto::Ack {}),
                Action::Nack => settle_item::Action::Nack(proto::Nack::default()),
                Action::Release => settle_item::Action::Release(proto::Release {}),
            }),
        });
        let settle = proto::Settle::new(self.requests, sent.collect());
        self.group.history.note(Event::Settle {
            stream: self.stream,
            request: self.requests,
            items,
        });
        self.subscription
            .send(subscribe_request::Message::Settle(settle))
            .await;
    }

    fn items(&mut self) -> Vec<(Bytes, Action)> {
        let now = Instant::now();
        let mut items = Vec::new();
        for held in self
            .held
            .extract_if(.., |held| self.hurried || held.due <= now)
        {
            let action = match self.random.below(300) {
                0 if held.attempt < 3 && !self.hurried => Action::Nack,
                1 if !self.hurried => Action::Release,
                _ => Action::Ack,
            };
            self.used.push(held.token.clone());
            items.push((held.token, action));
        }
        let kept = self.used.len().saturating_sub(100);
        self.used.drain(..kept);
        if !self.hurried {
            let count = self.used.len() as u64;
            if count > 0 && self.random.one_in(20) {
                let token = self.used[self.random.below(count) as usize].clone();
                items.push((token, Action::Ack));
            }
            let tokens = lock(&self.group.tokens);
            let count = tokens.len() as u64;
            if count > 0 && self.random.one_in(20) {
                let token = &tokens[self.random.below(count) as usize];
                // Its own are still to be settled.
                if !self.held.iter().any(|held| held.token == *token) {
                    items.push((token.clone(), Action::Ack));
                }
            }
        }
        items
    }
}

/// Publishes until told to stop: a few hundred keys, and some records without.
fn publish(group: &Group, mut random: Random) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &group.bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create()
        .unwrap();
    let mut number = 0_u64;
    while !group.full.load(Ordering::Relaxed) {
        for _ in 0..8 {
            number += 1;
            let key = format!("key-{}", random.below(KEYS));
            let value = number.to_string();
            let record = BaseRecord::<str, str>::to(&group.topic).payload(&value);
            let record = if random.one_in(8) {
                record
            } else {
                record.key(&key)
            };
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.poll(Duration::from_millis(20));
        thread::sleep(Duration::from_millis(10));
    }
    producer.flush(PATIENCE).unwrap();
}

/// Notes each commit until told to stop, and those that are in Kafka then.
fn look(group: &Group) {
    let mut log = CommitLog::open(&group.bootstrap, &group.name, &group.topic);
    let note = |(partition, offset): Commit| {
        let mut committed = lock(&group.committed);
        committed[partition as usize] = offset;
        let offsets = committed.clone();
        group.history.note(Event::Committed { offsets });
    };
    while !group.over.load(Ordering::Acquire) {
        log.next(Duration::from_millis(100))
            .into_iter()
            .for_each(note);
    }
    log.rest().into_iter().for_each(note);
}

/// Ends who works for a group on a thread, whatever becomes of the test.
struct Ends(Arc<Group>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.full.store(true, Ordering::Relaxed);
        self.0.over.store(true, Ordering::Release);
    }
}

async fn trouble(
    trouble: Trouble,
    members: &mut Vec<Member>,
    group: &Arc<Group>,
    random: &mut Random,
) {
    let which = random.below(members.len() as u64) as usize;
    let whole = match trouble {
        Trouble::Leave | Trouble::Term => Some(group.whole(members).await),
        _ => None,
    };
    match trouble {
        Trouble::Join => members.push(Member::join(group, random).await),
        Trouble::Leave => {
            let mut member = members.remove(which);
            member.drain().await;
            member.term(group).await;
        }
        Trouble::Term => members.remove(which).term(group).await,
        Trouble::Kill => members.remove(which).kill(group).await,
        Trouble::Stop => {
            let stopped = &members[which];
            group.history.note(Event::Stopped { member: stopped.id });
            stopped.sidecar.signal("STOP");
            let others = members.iter().map(|member| member.id);
            let others: Vec<MemberId> = others.filter(|id| *id != stopped.id).collect();
            group.wait_for_shares(&others).await;
            stopped.sidecar.signal("CONT");
        }
        Trouble::KillBroker => group.break_broker(["kill", "start"], random).await,
        Trouble::StopBroker => group.break_broker(["pause", "resume"], random).await,
    }
    drop(whole);
    group.wait_for_shares(&ids(members)).await;
}

fn ids(members: &[Member]) -> Vec<MemberId> {
    members.iter().map(|member| member.id).collect()
}

/// A group of three that troubles come over, to the end of its topic.
async fn run(group: Group, troubles: Vec<Trouble>, seed: u64) {
    let mut random = Random(seed);
    let mode = group.mode;
    let group = Arc::new(group);
    let ends = Ends(Arc::clone(&group));
    let publishing = tokio::task::spawn_blocking({
        let (group, random) = (Arc::clone(&group), Random(random.below(u64::MAX)));
        move || publish(&group, random)
    });
    let looking = tokio::task::spawn_blocking({
        let group = Arc::clone(&group);
        move || look(&group)
    });
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(&group, &mut random).await);
    }
    group.wait_for_shares(&ids(&members)).await;
    for next in troubles {
        tokio::time::sleep(Duration::from_millis(300 + random.below(400))).await;
        let which = random.below(members.len() as u64) as usize;
        members[which].change_streams(&group, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        trouble(next, &mut members, &group, &mut random).await;
    }
    group.full.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    let (bootstrap, topic) = (group.bootstrap.clone(), group.topic.clone());
    let read = move || -> Topic {
        read_each(&bootstrap, &topic, |message| {
            (message.offset(), message.key().map(Bytes::copy_from_slice))
        })
    };
    // Other groups' troubles for brokers wait meanwhile.
    let kafka = group.kafka.lock().await;
    let topic = tokio::task::spawn_blocking(read).await.unwrap();
    drop(kafka);
    let is_done = || {
        let committed = lock(&group.committed);
        topic.iter().all(|(partition, records)| {
            let last = records.last().map_or(-1, |(offset, _)| *offset);
            last < 0
                || committed
                    .get(*partition as usize)
                    .is_some_and(|offset| *offset > last)
        })
    };
    // What is not done by then is for the checker to name.
    let begun = Instant::now();
    while !is_done() && begun.elapsed() < PATIENCE / 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let whole = group.whole(&members).await;
    for mut member in members {
        member.drain().await;
        member.term(&group).await;
    }
    drop(whole);
    drop(ends);
    looking.await.unwrap();
    let (events, times) = group.history.take();
    let judged = tokio::task::spawn_blocking(move || {
        let violations = judge(&topic, &events, mode);
        (violations, topic, events)
    });
    let (violations, topic, events) = judged.await.unwrap();
    let published: usize = topic.values().map(Vec::len).sum();
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    eprintln!(
        "{mode:?}, seed {seed}: {published} records, {} deliveries, {} assignments, {} revocations, {} losses",
        count(|event| matches!(event, Event::Delivered(_))),
        count(|event| matches!(
            event,
            Event::Partition {
                change: Change::Assigned,
                ..
            }
        )),
        count(|event| matches!(
            event,
            Event::Partition {
                change: Change::Revoked,
                ..
            }
        )),
        count(|event| matches!(
            event,
            Event::Partition {
                change: Change::Lost,
                ..
            }
        )),
    );
    let is_refused = |event: &&Event| matches!(event, Event::Settled { outcomes, .. } if outcomes.contains(&Outcome::Moved));
    assert!(
        events.iter().any(|event| is_refused(&event)),
        "no token was ever stale"
    );
    if !violations.is_empty() {
        let told = tell(&events, &times, &lock(&group.logs));
        let listed: Vec<String> = violations
            .iter()
            .take(20)
            .map(ToString::to_string)
            .collect();
        panic!(
            "{mode:?}, seed {seed}: {} violations; the history is in {told}\n{}",
            violations.len(),
            listed.join("\n")
        );
    }
}

/// Writes a history and the sidecars' logs to a file, for who looks for the cause.
fn tell(events: &[Event], times: &[SystemTime], logs: &BTreeMap<MemberId, Vec<Value>>) -> String {
    let mut text = String::new();
    for (number, (event, time)) in events.iter().zip(times).enumerate() {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since);
        writeln!(text, "{number} {time} {event}").unwrap();
    }
    for (member, lines) in logs {
        for line in lines {
            writeln!(text, "member {member}: {line}").unwrap();
        }
    }
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), fresh("history"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Draws troubles that leave two to four members.
fn draw(count: usize, random: &mut Random) -> Vec<Trouble> {
    let mut members = 3;
    let mut drawn = Vec::new();
    while drawn.len() < count {
        let next = match random.below(6) {
            0..2 if members < 4 => Trouble::Join,
            2 if members > 2 => match random.one_in(2) {
                true => Trouble::Leave,
                false => Trouble::Term,
            },
            3 if members > 2 => Trouble::Kill,
            4 => Trouble::Stop,
            5 => match random.one_in(2) {
                true => Trouble::KillBroker,
                false => Trouble::StopBroker,
            },
            _ => continue,
        };
        match next {
            Trouble::Join => members += 1,
            Trouble::Stop | Trouble::KillBroker | Trouble::StopBroker => {}
            _ => members -= 1,
        }
        drawn.push(next);
    }
    drawn
}

/// A group for each mode, all beside the same brokers and at the same time.
async fn rebalance(protocol: Protocol, modes: &[Mode]) {
    let kafka = tokio::task::block_in_place(|| Kafka::start(3, &[]));
    let bootstrap = kafka.bootstrap().to_owned();
    let kafka = Arc::new(tokio::sync::Mutex::new(kafka));
    let is_soak = std::env::var_os("OUTRIGGER_SOAK").is_some();
    let seed = seed();
    let mut runs = Vec::new();
    for mode in modes {
        let (topic, name) = (fresh("rebalances"), fresh("g"));
        let settings = {
            let kafka = kafka.lock().await;
            // Every broker knows it then: one that does not says that there is no such topic, and the subscription ends.
            tokio::task::block_in_place(|| {
                kafka.tell(&format!("topic {topic} {PARTITIONS}"));
                settings(protocol, &kafka, &name)
            })
        };
        let group = Group {
            bootstrap: bootstrap.clone(),
            kafka: Arc::clone(&kafka),
            topic,
            name,
            settings,
            mode: *mode,
            history: History::default(),
            next: AtomicU32::new(0),
            owned: Mutex::default(),
            tokens: Mutex::default(),
            committed: Mutex::new(vec![-1; PARTITIONS as usize]),
            logs: Mutex::default(),
            full: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        let mut troubles = match is_soak {
            true => draw(MANY, &mut Random(seed)),
            false => FEW.to_vec(),
        };
        // All groups have the same brokers: in a test run one of them breaks one.
        let breaks = is_soak || runs.is_empty();
        troubles.retain(|one| breaks || !matches!(one, Trouble::KillBroker | Trouble::StopBroker));
        runs.push(tokio::spawn(run(group, troubles, seed)));
    }
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_after_rebalance_keeps_every_promise_to_subscribers() {
    rebalance(Protocol::Classic, MODES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_after_rebalance_keeps_every_promise_with_the_consumer_protocol() {
    rebalance(Protocol::Consumer, &[Mode::Key]).await;
}
