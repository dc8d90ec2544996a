//! One member of a consumer group: a librdkafka consumer driven by one thread.
//!
//! Nothing here blocks that thread: [`Consumer::poll`] returns what has happened, [`Consumer::fetch`] what a partition has waiting,
//! and look-ups of offsets run on a thread of their own. Not here: what may be committed or delivered (`consume`).
//! What always holds: offsets are committed only by [`Consumer::commit`]; a partition's queue is split before it is assigned, and
//! a rebalance is answered only by [`Consumer::assign`] and [`Consumer::unassign`] (while closing, by the callback itself).

mod callbacks;
mod event;
mod joining;
mod offsets;
mod refusal;
mod seek;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    TopicPartitionList,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use self::{
    callbacks::Context,
    offsets::{LookUp, list, positions},
};
pub use self::{
    event::{Commit, CommitEnd, ConsumerEvent, Offsets, Position, Resolved, Start, is_reset},
    seek::{Sought, Target},
};
use super::{
    Cluster, ffi,
    patterns::{INTERNAL, is_pattern},
    statistics::Statistics,
};
use crate::record::{Consumed, TopicPartition};

/// A group member. It must live on one thread, whose handle it unparks when there is something to do.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Consumer {
    // Before `client`: queues must be dropped first.
    events: ffi::EventQueue,
    queues: HashMap<TopicPartition, ffi::PartitionQueue>,
    client: Arc<BaseConsumer<Context>>,
    wake: Thread,
    /// The newest generation that was asked to be resolved; an older look-up gives up.
    generation: Arc<AtomicU64>,
    /// When each commit without an answer was begun; they are answered in turn.
    commits_pending: VecDeque<Instant>,
    late: VecDeque<ConsumerEvent>,
    /// Whether ends are being looked up.
    looking: Arc<AtomicBool>,
    cluster: Cluster,
    group: String,
    /// Since when brokers refuse it.
    refused_since: Option<Instant>,
}

impl Consumer {
    /// Creates the client of a member that will subscribe to `topics`; it connects by itself. The calling thread becomes its owner. The error
    /// is for the operator.
    pub fn new(cluster: &Cluster, group: &str, topics: &[String]) -> Result<Self, String> {
        let mut config = cluster.consumer_properties(group)?;
        if topics.iter().any(|topic| is_pattern(topic)) {
            let own = config.get("topic.blacklist").map(str::to_owned);
            let internal = INTERNAL.map(|name| format!("^{name}$"));
            let hidden: Vec<String> = own.into_iter().chain(internal).collect();
            config.set("topic.blacklist", hidden.join(","));
        }
        Self::create(cluster, group, &config).map_err(|error| error.to_string())
    }

    fn create(cluster: &Cluster, group: &str, config: &ClientConfig) -> KafkaResult<Self> {
        let wake = thread::current();
        let context = Context::new(Statistics::of_consumer(config));
        let mut client: BaseConsumer<Context> = config.create_with_context(context)?;
        let unpark = wake.clone();
        client.set_nonempty_callback(move || unpark.unpark());
        let events = ffi::EventQueue::of(client.client())
            .ok_or_else(|| KafkaError::Subscription("the consumer has no group".to_owned()))?;
        let client = Arc::new(client);
        cluster.security().register(&client);
        Ok(Self {
            events,
            queues: HashMap::new(),
            client,
            wake,
            generation: Arc::default(),
            commits_pending: VecDeque::new(),
            late: VecDeque::new(),
            looking: Arc::default(),
            cluster: cluster.clone(),
            group: group.to_owned(),
            refused_since: None,
        })
    }

    /// Joins the group.
    pub fn subscribe(&self, topics: &[String]) -> KafkaResult<()> {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.client.subscribe(&topics)
    }

    /// Leaves the group, after a revoke of everything; [`Consumer::subscribe`] joins it again.
    pub fn unsubscribe(&self) {
        self.client.unsubscribe();
    }

    /// Whether anything of a partition is fetched and not taken yet.
    pub fn has_waiting(&self, partition: &TopicPartition) -> bool {
        self.queues
            .get(partition)
            .is_some_and(|queue| !queue.is_empty())
    }

    /// Serves librdkafka's callbacks and returns the next thing that has happened, if any.
    pub fn poll(&mut self) -> Option<ConsumerEvent> {
        if let Some(event) = self.late.pop_front() {
            return Some(event);
        }
        loop {
            let event = self.poll_for(Duration::ZERO);
            if event.is_some() {
                return event;
            }
            // A poll may serve something that is no event for us, such as a line of the log.
            if self.events.is_empty() {
                return self.refusal().map(ConsumerEvent::Failed);
            }
        }
    }

    fn poll_for(&mut self, timeout: Duration) -> Option<ConsumerEvent> {
        match self.client.poll(timeout) {
            Some(Err(
                KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code),
            )) => {
                if let Some(failure) = self.fatal() {
                    return Some(ConsumerEvent::Failed(failure));
                }
                let said = self.client.context().said();
                if let Some(failure) = refusal::serious(code, &said) {
                    return Some(ConsumerEvent::Failed(failure));
                }
                tracing::debug!(error = %code, "the consumer goes on after: {said}");
            }
            Some(Err(error)) => {
                tracing::warn!(error = %error, "the consumer reports a problem and goes on")
            }
            // Queues are split before they are assigned, so no record ever comes this way.
            Some(Ok(_)) => tracing::error!("a record arrived outside of its partition's queue"),
            None => {}
        }
        let mut event = self.client.context().events().pop_front();
        match &mut event {
            Some(ConsumerEvent::Committed(ended)) => {
                if let Some(begun) = self.commits_pending.pop_front() {
                    ended.after = begun.elapsed();
                }
            }
            // A coordinator has spoken.
            Some(ConsumerEvent::Assigned(_)) => self.client.context().connection.works(),
            _ => {}
        }
        event
    }

    /// Takes up to `max` waiting records of a partition (at most 256 at once); never blocks. Returns how many there were.
    pub fn fetch(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        mut take: impl FnMut(Consumed),
    ) -> usize {
        let Some(queue) = self.queues.get(partition) else {
            return 0;
        };
        let context = self.client.context();
        let count = queue.take(max, |result| match result {
            Ok(record) => take(record),
            Err((code, text)) => {
                tracing::warn!(%partition, error = %code, "reading a partition meets a problem: {text}");
                if let Some(failure) = refusal::serious(code, &format!("{partition}: {text}")) {
                    context.events().push_back(ConsumerEvent::Failed(failure));
                }
            }
        });
        if count > 0 {
            context.connection.works();
        }
        count
    }

    /// Looks up, on another thread, where each partition begins: its committed offset, else by `start`. The topics in `needed` must exist.
    pub fn resolve(
        &mut self,
        generation: u64,
        partitions: Vec<TopicPartition>,
        start: Start,
        needed: Vec<String>,
    ) {
        self.generation.store(generation, Ordering::Release);
        let client = Arc::clone(&self.client);
        let current = Arc::clone(&self.generation);
        let wake = self.wake.clone();
        let look_up = move || {
            while current.load(Ordering::Acquire) == generation {
                let found = offsets::require(&client, &needed)
                    .and_then(|()| Ok(positions(&client, &partitions, start)?));
                match found {
                    Ok(resolved) => {
                        client
                            .context()
                            .events()
                            .push_back(ConsumerEvent::Resolved {
                                generation,
                                resolved,
                            });
                        break;
                    }
                    Err(LookUp::Missing(failure)) => {
                        let failed = ConsumerEvent::Failed(failure);
                        client.context().events().push_back(failed);
                        break;
                    }
                    Err(LookUp::Kafka(error)) => {
                        tracing::warn!(error = %error, "committed offsets could not be read yet");
                        let code = error.rdkafka_error_code();
                        if let Some(failure) = code.and_then(|code| refusal::serious(code, "")) {
                            let failed = ConsumerEvent::Failed(failure);
                            client.context().events().push_back(failed);
                            break;
                        }
                        if matches!(
                            code,
                            Some(Code::UnknownPartition | Code::LeaderNotAvailable)
                        ) {
                            offsets::look_again(&client, &partitions);
                        }
                        thread::park_timeout(Duration::from_millis(200));
                    }
                }
            }
            wake.unpark();
        };
        // It ends within the bound of one look-up after the generation has moved on or the consumer is closed.
        let spawned = thread::Builder::new()
            .name("kafka-offsets".into())
            .spawn(look_up);
        if let Err(error) = spawned {
            tracing::error!(error = %error, "no thread could be started to look up offsets");
        }
    }

    /// Forgets what is being resolved.
    pub fn forget(&mut self) {
        self.generation.store(u64::MAX, Ordering::Release);
    }

    /// Answers `Assigned`: begins to fetch at the given positions.
    pub fn assign(&mut self, positions: &[Position]) -> KafkaResult<()> {
        for Position { partition, .. } in positions {
            let queue = ffi::PartitionQueue::split(
                self.client.client(),
                &partition.topic,
                partition.partition,
                self.wake.clone(),
            );
            if let Some(queue) = queue {
                self.queues.insert(partition.clone(), queue);
            }
        }
        let positions = positions.iter().map(|at| (&at.partition, at.offset, ""));
        self.client.incremental_assign(&list(positions)?)
    }

    /// Answers `Revoked`.
    pub fn unassign(&mut self, partitions: &[TopicPartition]) -> KafkaResult<()> {
        for partition in partitions {
            self.queues.remove(partition);
        }
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&partition.topic, partition.partition);
        }
        self.client.incremental_unassign(&list)
    }

    /// Begins to commit; a `Committed` event says how it ended.
    pub fn commit(&mut self, commits: &[Commit]) -> KafkaResult<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let commits = commits
            .iter()
            .map(|commit| (&commit.partition, commit.offset, &*commit.metadata));
        self.events
            .commit(self.client.client(), &list(commits)?)
            .map_err(KafkaError::ConsumerCommit)?;
        self.commits_pending.push_back(Instant::now());
        Ok(())
    }

    /// Waits for the commits that were begun, until `deadline`; says whether all of them have ended. Other events are kept.
    pub fn wait_for_commits(&mut self, deadline: Instant) -> bool {
        while !self.commits_pending.is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            if let Some(event) = self.poll_for(Duration::from_millis(5)) {
                self.late.push_back(event);
            }
        }
        true
    }

    /// Takes the commits out of the events that were kept.
    pub fn ended_commits(&mut self) -> Vec<CommitEnd> {
        let kept = std::mem::take(&mut self.late);
        let mut ended = Vec::new();
        for event in kept {
            match event {
                ConsumerEvent::Committed(commit) => ended.push(commit),
                other => self.late.push_back(other),
            }
        }
        ended
    }

    /// Leaves the group and closes, on this thread, until `deadline`; a static member does not leave, its partitions wait for it (KIP-345).
    /// Past the deadline the client is left to a thread that nobody waits for: librdkafka may block for a whole session timeout when the
    /// cluster is away. Says whether it was closed in time.
    pub fn close(mut self, deadline: Instant) -> bool {
        self.forget();
        self.client.context().close();
        self.finish_joining(deadline);
        // A rebalance that is still unanswered is answered first, or the close would wait for it.
        let unanswered: Vec<ConsumerEvent> = self
            .client
            .context()
            .events()
            .drain(..)
            .chain(self.late.drain(..))
            .collect();
        for event in unanswered {
            if let ConsumerEvent::Assigned(partitions) | ConsumerEvent::Revoked { partitions, .. } =
                event
                && let Err(error) = self.unassign(&partitions)
            {
                tracing::debug!(error = %error, "a rebalance was overtaken by the close");
            }
        }
        self.queues.clear();
        drop(self.events);
        // After a fatal error it is no member any more, and librdkafka refuses to close it.
        let is_dead = self.client.client().fatal_error().is_some();
        let closing = match is_dead {
            true => Ok(()),
            false => self.client.close_queue(),
        };
        if let Err(error) = &closing {
            tracing::warn!(error = %error, "the consumer could not begin to close");
        }
        while closing.is_ok() && !is_dead && !self.client.closed() && Instant::now() < deadline {
            let _ = self.client.poll(Duration::from_millis(10));
        }
        let closed = is_dead || self.client.closed();
        let client = self.client;
        // Destroying joins librdkafka's threads, and goes on closing where this stopped.
        let spawned = thread::Builder::new()
            .name("kafka-reaper".into())
            .spawn(move || drop(client));
        if let Err(error) = spawned {
            tracing::error!(error = %error, "no thread could be started to destroy a consumer");
        }
        closed
    }
}
