//! One session for each subscribed group, shared by the local streams of that group.
//!
//! Owns the map of sessions and their threads; the number of sessions is bounded. What always holds: a stream is attached to a live
//! session or refused, because attaching and a session's own end both happen under the map's lock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Handle, Limits, Stream, StreamOptions, Subscription, session,
    unary::{Live, not_live},
};
use crate::{
    config::Config,
    failure::{Failure, Reason},
    kafka::{Cluster, Producer},
    metrics,
    record::Usage,
};

/// Commands that may wait for a session.
const COMMANDS: usize = 1024;

/// Messages that may wait for a stream; its window bounds the records among them.
const OUTGOING: usize = 8;

/// The sessions of the process; a cheap handle.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Pool(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    cluster: Cluster,
    /// What all sessions together hold, in bytes.
    memory: Arc<AtomicU64>,
    /// For dead letters.
    producer: Arc<Producer>,
    // A std mutex: sections are short and nothing awaits inside.
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<String, Entry>,
    /// Threads of sessions that were taken out and may still be on their way out of the group.
    leaving: HashMap<String, JoinHandle<()>>,
    /// Groups that are not tried again before some time: why not, and until when.
    barred: HashMap<String, (Failure, Instant)>,
    /// Set once: no stream is attached any more.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    handle: Handle,
    thread: JoinHandle<()>,
    watch: Arc<Watch>,
}

/// What a session lets others see.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Streams attached.
    pub(super) streams: AtomicUsize,
    /// Records delivered and not settled.
    pub(super) unsettled: AtomicUsize,
    /// Nothing is delivered any more.
    pub(super) quiet: AtomicBool,
    /// It ended without the answer to its last commit, or without leaving the group.
    pub(super) unfinished: AtomicBool,
}

/// A session as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The consumer group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Local streams.
    pub streams: usize,
    /// Records delivered and not settled.
    pub unsettled: usize,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: Arc<Config>, cluster: Cluster, producer: Arc<Producer>) -> Self {
        Self(Arc::new(Shared {
            config,
            cluster,
            memory: Arc::default(),
            producer,
            state: Mutex::default(),
            next: AtomicU64::new(1),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a stream to the session of its group, which is started if there is none.
    pub fn attach(
        &self,
        subscription: &Subscription,
        options: StreamOptions,
    ) -> Result<Stream, Failure> {
        let mut state = self.state();
        if state.closed {
            return Err(Failure::new(Reason::Draining, "the sidecar is stopping")
                .with_retry_after(Duration::from_secs(1)));
        }
        // A session that failed removes itself; one whose thread died does not.
        state
            .sessions
            .retain(|_, entry| !entry.thread.is_finished());
        let now = Instant::now();
        state.barred.retain(|_, (_, until)| *until > now);
        if let Some((failure, until)) = state.barred.get(&subscription.group) {
            return Err(failure.clone().with_retry_after(*until - now));
        }
        if !state.sessions.contains_key(&subscription.group) {
            let most = self.0.config.consume.max_subscriptions;
            if state.sessions.len() >= most {
                metrics::connections().refused(Reason::TooManySubscriptions);
                return Err(Failure::new(
                    Reason::TooManySubscriptions,
                    format!("{most} groups are subscribed already (consume.max_subscriptions)"),
                )
                .with_retry_after(Duration::from_secs(1)));
            }
            let predecessor = state.leaving.remove(&subscription.group);
            let entry = self.start(subscription, predecessor)?;
            state.sessions.insert(subscription.group.clone(), entry);
        }
        let entry = &state.sessions[&subscription.group];
        if let Some(field) = entry.subscription.conflict(subscription) {
            return Err(Failure::new(
                Reason::SubscriptionConflict,
                format!(
                    "group {:?} is subscribed here with another `{field}`; all of its streams must agree",
                    subscription.group
                ),
            )
            .with_metadata("field", field));
        }
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (outgoing, incoming) = mpsc::channel(OUTGOING);
        let (told, end) = oneshot::channel();
        let command = Command::Attach {
            stream: id,
            options,
            outgoing,
            end: told,
        };
        if entry.handle.commands.try_send(command).is_err() {
            return Err(Failure::new(
                Reason::TooManyStreams,
                "the subscription is too busy to take another stream",
            )
            .with_retry_after(Duration::from_secs(1)));
        }
        entry.handle.wake.unpark();
        Ok(Stream {
            id,
            handle: entry.handle.clone(),
            incoming,
            end: Some(end),
            granted: options.window,
            lease: options.lease,
            has_dead_letters: subscription.dead_letter.is_some(),
        })
    }

    fn start(
        &self,
        subscription: &Subscription,
        predecessor: Option<JoinHandle<()>>,
    ) -> Result<Entry, Failure> {
        let consume = &self.0.config.consume;
        let limits = Limits {
            commit_interval: consume.commit_interval,
            commit_metadata: consume.commit_metadata,
            revoke_drain: consume.revoke_drain,
            max_lease: consume.max_lease,
            read_grace: consume.read_grace,
            stuck_leave: consume.stuck_leave,
            stall_after: consume.stall_after,
            max_bytes: consume.max_bytes,
            max_span: consume.max_span_records,
            max_parked: consume.max_parked_records,
            look_ahead: consume.look_ahead_bytes,
            idle_leave: consume.idle_leave,
            is_static: consume.instance_id.is_some(),
            ends_interval: self.0.config.metrics.statistics_interval,
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let watch = Arc::new(Watch::default());
        let run = session::Start {
            cluster: self.0.cluster.clone(),
            producer: Arc::clone(&self.0.producer),
            memory: Arc::clone(&self.0.memory),
            subscription: subscription.clone(),
            limits,
            commands: receiver,
            watch: Arc::clone(&watch),
            pool: self.clone(),
            predecessor: predecessor.filter(|_| limits.is_static),
        };
        let thread = thread::Builder::new()
            .name(format!("group-{}", subscription.group))
            .spawn(move || run.run())
            .map_err(|error| {
                tracing::error!(error = %error, "no thread could be started for a subscription");
                Failure::new(
                    Reason::TooManySubscriptions,
                    "no thread could be started for the subscription",
                )
                .with_retry_after(Duration::from_secs(1))
            })?;
        let handle = Handle {
            commands,
            wake: thread.thread().clone(),
        };
        Ok(Entry {
            subscription: subscription.clone(),
            handle,
            thread,
            watch,
        })
    }

    /// A session without streams asks to end. Refused when a stream is on its way to it.
    pub(super) fn release(&self, group: &str, commands: &mpsc::Receiver<Command>) -> bool {
        let mut state = self.state();
        if !commands.is_empty() {
            return false;
        }
        state.take_out(group);
        true
    }

    /// A session that cannot be takes itself out; later streams start a new one.
    pub(super) fn remove(&self, group: &str) {
        self.state().take_out(group);
    }

    /// The same for one that cannot go on; where its failure says when another try may help, later streams are told the same until then.
    pub(super) fn give_up(&self, group: &str, failure: &Failure) {
        let mut state = self.state();
        state.take_out(group);
        if let Some(after) = failure.retry_after {
            let until = Instant::now() + after;
            state
                .barred
                .insert(group.to_owned(), (failure.clone(), until));
        }
    }

    /// The session of a group, to ask it something.
    pub fn live(&self, group: &str) -> Result<Live, Failure> {
        let state = self.state();
        let entry = state.sessions.get(group).ok_or_else(|| not_live(group))?;
        Ok(Live {
            subscription: entry.subscription.clone(),
            handle: entry.handle.clone(),
        })
    }

    /// Every session, by group.
    pub fn status(&self) -> Vec<SubscriptionStatus> {
        let mut status: Vec<_> = self
            .state()
            .sessions
            .values()
            .map(|entry| SubscriptionStatus {
                group: entry.subscription.group.clone(),
                topics: entry.subscription.topics.clone(),
                streams: entry.watch.streams.load(Ordering::Relaxed),
                unsettled: entry.watch.unsettled.load(Ordering::Relaxed),
            })
            .collect();
        status.sort_by(|a, b| a.group.cmp(&b.group));
        status
    }

    /// Stops deliveries and waits until everything delivered is settled, or the deadline. Says how many records are not.
    pub async fn quiesce(&self, deadline: Instant) -> usize {
        let handles = self.stop_attaching();
        for handle in &handles {
            handle.send(Command::Quiesce { deadline }).await;
        }
        loop {
            let quiet = self
                .state()
                .sessions
                .values()
                .all(|entry| entry.watch.quiet.load(Ordering::Acquire));
            let unsettled: usize = self.status().iter().map(|session| session.unsettled).sum();
            if (quiet && unsettled == 0) || Instant::now() >= deadline {
                return unsettled;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends every session: settle, commit, leave the group. Says whether all were closed with nothing unsettled by the deadline.
    pub async fn close(&self, deadline: Instant) -> bool {
        let handles = self.stop_attaching();
        let watches: Vec<Arc<Watch>> = self
            .state()
            .sessions
            .values()
            .map(|entry| Arc::clone(&entry.watch))
            .collect();
        for handle in &handles {
            handle.send(Command::Close { deadline }).await;
        }
        loop {
            let unfinished = {
                let mut state = self.state();
                state
                    .sessions
                    .retain(|_, entry| !entry.thread.is_finished());
                state.sessions.len()
            };
            if unfinished == 0 {
                return watches.iter().all(|watch| {
                    watch.unsettled.load(Ordering::Relaxed) == 0
                        && !watch.unfinished.load(Ordering::Relaxed)
                });
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn stop_attaching(&self) -> Vec<Handle> {
        let mut state = self.state();
        state.closed = true;
        state
            .sessions
            .values()
            .map(|entry| entry.handle.clone())
            .collect()
    }

    /// The window that a stream gets when it asks for `records` and `bytes`.
    pub fn window(&self, records: Option<u64>, bytes: Option<u64>) -> Usage {
        let consume = &self.0.config.consume;
        Usage {
            records: records
                .unwrap_or(consume.window_records)
                .min(consume.max_window_records),
            bytes: bytes
                .unwrap_or(consume.window_bytes)
                .min(consume.max_window_bytes),
        }
    }
}

impl State {
    fn take_out(&mut self, group: &str) {
        self.leaving.retain(|_, thread| !thread.is_finished());
        if let Some(entry) = self.sessions.remove(group) {
            self.leaving.insert(group.to_owned(), entry.thread);
        }
    }
}
