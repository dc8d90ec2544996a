//! The loop of one subscription: it owns the consumer, the ledgers and the windows, on one thread of its own.
//!
//! One turn: commands (settles before new records, so that memory only falls under load), then what Kafka says (rebalances, commits),
//! then timers, then deliveries. When a turn did nothing the thread parks; commands, a freed channel and librdkafka's queues unpark it,
//! and a tick bounds a wake-up that was missed. Nothing in a turn blocks, except the bounded wait for the last commit before partitions
//! are handed back or the consumer closes.
//! What always holds: records are fetched only when a stream has room for them; only a ledger's frontier is committed; a partition is
//! handed back after what was delivered of it is settled, or its drain time is over, and committed.

mod attach;
mod commit;
mod dead;
mod deliver;
mod durable;
mod explain;
mod liveness;
mod look;
mod memory;
mod pressure;
mod rebalance;
mod rejoin;
mod renew;
mod reset;
mod retry;
mod room;
mod seek;
mod settle;
mod show;
mod stall;
mod start;
mod stream;
mod times;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

pub(super) use self::start::Start;
use self::{
    commit::PACE,
    dead::Copies,
    durable::Covered,
    liveness::Liveness,
    memory::Memory,
    rebalance::{Assigning, Revoking},
    rejoin::Rejoin,
    reset::Reset,
    seek::{Fenced, Seeking},
    stall::Stall,
    stream::Stream,
    times::{Clock, Times},
};
use super::{
    Command, Limits, Outgoing, Pool, StreamId, Subscription,
    ledger::{Ledger, Payload},
    pool::Watch,
    token::Epochs,
};
use crate::{
    failure::Failure,
    kafka::{Cluster, Consumer, ConsumerEvent, Producer},
    metrics::{self, Open},
    record::{Consumed, TopicPartition},
};

/// The longest time without a turn.
const TICK: Duration = Duration::from_millis(100);

/// The same of a session that only waits for records: many may, and what they must not miss wakes them.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// Messages other than deliveries that a stream may leave unread before it is cut; and answers that it may await before it gets no more records.
const UNREAD: usize = 4096;

/// The bound of waiting for the last commit before partitions are handed back.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl Payload for Consumed {
    fn weight(&self) -> u64 {
        self.charged_bytes()
    }

    fn key(&self) -> Option<u64> {
        // Seeded at random, so that nobody can choose keys that get into each other's way.
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Some(KEYS.hash_one(Self::key(self)?))
    }
}

/// An assigned partition.
struct Slot {
    partition: TopicPartition,
    topic: Arc<str>,
    epoch: u64,
    ledger: Ledger<Consumed>,
    /// What is counted of it.
    reading: metrics::Reading,
    /// What is shown of it while it is held.
    shown: Arc<metrics::Partition>,
    times: Times,
    /// What Kafka has.
    committed: i64,
    /// What was last sent to it: the offset, and how many settlements the map beside it knew of.
    committing: (i64, u64),
    /// The map beside the last commit was nearly as long as it may be.
    map_is_full: bool,
    /// How many of its records are blocked, and why dead letters of it cannot be written, as its streams were told.
    told: (usize, Option<String>),
    /// Why dead letters of it cannot be written.
    dead_trouble: Option<String>,
    /// When something of it was last delivered, or it was taken on.
    sent_at: Instant,
    /// Why nothing was for long, when last looked.
    stalled: Option<Stall>,
    /// What a record of it weighs, by the last ones.
    typical: u64,
    reset: Reset,
    /// Not delivered from any more.
    revoking: bool,
    /// Its queue was seen empty since the last look: librdkafka goes on fetching, and knows where the partition ends.
    dry: bool,
}

/// What the loop does with its group.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Delivering,
    /// No deliveries; settles still count.
    Quiet,
    /// As before, and it ends when nothing is held, or when the wait for settles is over.
    Closing {
        settle: Instant,
        end: Instant,
    },
}

struct Session {
    consumer: Consumer,
    subscription: Subscription,
    limits: Limits,
    commands: mpsc::Receiver<Command>,
    watch: Arc<Watch>,
    pool: Pool,
    /// By the index in their tokens.
    slots: BTreeMap<u32, Slot>,
    streams: BTreeMap<StreamId, Stream>,
    /// The streams that keys are spread over.
    members: Vec<StreamId>,
    clock: Clock,
    liveness: Liveness,
    memory: Memory,
    phase: Phase,
    epochs: Epochs,
    next_slot: u32,
    /// Of the newest rebalance; an answer to an older one is dropped.
    generation: u64,
    assigning: Option<Assigning>,
    revoking: Option<Revoking>,
    rejoin: Rejoin,
    seeking: Option<Seeking>,
    fenced: Fenced,
    first_assignment: bool,
    /// Why the consumer cannot go on.
    broken: Option<Failure>,
    commit_at: Instant,
    /// Until then an earlier commit may still undo a later one, and when what is committed is committed again for that.
    doubt_until: Instant,
    repeat_at: Instant,
    /// When ages are looked up again.
    look_at: Instant,
    /// When ends are.
    ends_at: Instant,
    idle_since: Instant,
    turn: u64,
    /// The id of the cluster, once known: maps of what is settled belong to it.
    cluster_id: Option<String>,
    /// How long such a map may be, in characters.
    map_budget: usize,
    /// What each commit that is under way says, by slot; they are answered in turn.
    commits_sent: VecDeque<Vec<(u32, Covered)>>,
    /// How many commits were sent.
    commits_made: u64,
    /// The last one was refused for good.
    is_commit_final: bool,
    shown: Arc<metrics::Group>,
    commits: Arc<metrics::Commits>,
    cluster: Cluster,
    producer: Arc<Producer>,
    copies: Copies,
    /// A new certificate needs a new consumer.
    certificates: watch::Receiver<u64>,
    renew_at: Instant,
    _open: Open,
}

impl Session {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            let mut busy = self.serve_commands();
            match self.serve_kafka(now) {
                Ok(more) => busy |= more,
                Err(failure) => {
                    tracing::warn!(
                        group = self.subscription.group,
                        reason = failure.reason.as_str(),
                        "{failure}"
                    );
                    self.pool.give_up(&self.subscription.group, &failure);
                    return self.finish(Some(failure), now + COMMIT_WAIT);
                }
            }
            self.cut_the_silent(now);
            self.drop_ended_streams(now);
            self.spread();
            self.advance_retries(now);
            busy |= self.advance_dead_letters(now);
            self.leave_if_dead(now);
            self.begin_renewal(now);
            self.advance_rejoin(now);
            self.advance_revoke(now);
            self.commit_if_due(now);
            if self.phase == Phase::Delivering {
                busy |= self.deliver();
            }
            self.follow_resets();
            self.memory
                .holds(self.slots.values().map(|slot| slot.ledger.bytes()).sum());
            self.end_drained_streams();
            self.tell_blocked();
            self.publish_status(now);
            if self.is_over(now) {
                return self.leave(now + COMMIT_WAIT);
            }
            if let Phase::Closing { settle, end } = self.phase
                && (self.is_settled() || now >= settle)
            {
                return self.finish(None, end);
            }
            if !busy {
                let rest = self.rest(now);
                thread::park_timeout(if self.is_hurried() {
                    PACE.min(rest)
                } else {
                    rest
                });
            }
        }
    }

    fn serve_commands(&mut self) -> bool {
        let mut served = false;
        // Bounded, so that a flood of commands does not keep Kafka waiting.
        for _ in 0..256 {
            match self.commands.try_recv() {
                Ok(command) => self.serve(command),
                Err(_) => break,
            }
            served = true;
        }
        served
    }

    fn serve(&mut self, command: Command) {
        if let Command::Attach { .. }
        | Command::Window { .. }
        | Command::Settle { .. }
        | Command::Acknowledge { .. }
        | Command::Extend { .. } = &command
        {
            self.sign_of_life();
        }
        if let Command::Window { stream, .. }
        | Command::Settle { stream, .. }
        | Command::Extend { stream, .. } = &command
            && let Some(stream) = self.streams.get_mut(stream)
        {
            stream.alive_at = Instant::now();
        }
        match command {
            Command::Attach {
                stream,
                options,
                outgoing,
                end,
            } => self.attach(stream, options, outgoing, end),
            Command::Window { stream, window } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.window = window;
                    stream.tell(Outgoing::Granted(window));
                }
            }
            Command::Settle {
                stream,
                request_id,
                items,
            } => self.settle(stream, request_id, &items),
            Command::Extend {
                stream,
                request_id,
                tokens,
                lease,
            } => self.extend(stream, request_id, &tokens, lease),
            Command::Leave { stream } => {
                if self.streams.remove(&stream).is_some() {
                    for slot in self.slots.values_mut() {
                        slot.ledger.hand_back(stream);
                    }
                }
            }
            Command::Acknowledge { items, answer } => {
                let outcomes = self.acknowledge(&items);
                // Its caller may be gone.
                let _ = answer.send(outcomes);
            }
            Command::Look { answer } => {
                // Its caller may be gone.
                let _ = answer.send(self.look());
            }
            Command::Seek { target, answer } => self.seek(target, answer),
            Command::Drain { stream } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.draining = true;
                }
            }
            Command::Quiesce { deadline } => {
                if self.phase == Phase::Delivering {
                    self.phase = Phase::Quiet;
                    self.tell_all(|| Outgoing::Draining(deadline));
                }
            }
            Command::Close { deadline } => {
                if self.phase == Phase::Delivering {
                    self.tell_all(|| Outgoing::Draining(deadline));
                }
                // What is left after the wait for settles is for the commit and the goodbye to the group.
                let reserve =
                    (deadline.saturating_duration_since(Instant::now()) / 4).min(COMMIT_WAIT);
                self.phase = Phase::Closing {
                    settle: deadline - reserve,
                    end: deadline,
                };
            }
        }
    }

    /// Whether nothing is delivered, on its way to the dead letters, or waiting for a commit.
    fn is_settled(&self) -> bool {
        self.held() == 0 && self.copying() == 0 && !self.is_awaited()
    }

    /// Whether the session ends because nobody needs it.
    fn is_over(&mut self, now: Instant) -> bool {
        if !self.streams.is_empty() || self.phase != Phase::Delivering {
            self.idle_since = now;
            return false;
        }
        now.duration_since(self.idle_since) >= self.limits.idle_leave
            && self.pool.release(&self.subscription.group, &self.commands)
    }

    fn tell_all(&mut self, message: impl Fn() -> Outgoing) {
        for stream in self.streams.values_mut() {
            stream.tell(message());
        }
    }

    fn serve_kafka(&mut self, now: Instant) -> Result<bool, Failure> {
        let mut served = false;
        for _ in 0..16 {
            let Some(event) = self.consumer.poll() else {
                break;
            };
            served = true;
            match event {
                ConsumerEvent::Assigned(partitions) => self.assigned(partitions),
                ConsumerEvent::Revoked { partitions, lost } => self.revoked(partitions, lost, now),
                ConsumerEvent::Resolved {
                    generation,
                    resolved,
                } => self.resolved(generation, resolved),
                ConsumerEvent::Sought(found) => self.sought(found),
                ConsumerEvent::HeartbeatFailed => self.heartbeat_failed(now),
                ConsumerEvent::Reset(line) => self.note_reset(&line),
                ConsumerEvent::Committed(ended) => self.commit_ended(ended),
                ConsumerEvent::Failed(failure) => return Err(self.explain(failure)),
            }
        }
        self.broken.take().map_or(Ok(served), Err)
    }
}
