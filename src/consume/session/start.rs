//! How a session begins: its consumer is made and joins the group, or its streams are told why not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
    thread::JoinHandle,
    time::Instant,
};

use tokio::sync::mpsc;

use super::{
    Phase, Session, dead::Copies, liveness::Liveness, memory::Memory, rejoin::Rejoin, seek::Fenced,
    times::Clock,
};
use crate::{
    consume::{Command, Limits, Pool, Subscription, pool::Watch, token::Epochs},
    failure::{Failure, Reason},
    kafka::{Cluster, Consumer, Producer},
    metrics,
};

/// What a session begins with; `run` is its thread.
pub(in crate::consume) struct Start {
    pub(in crate::consume) cluster: Cluster,
    pub(in crate::consume) producer: Arc<Producer>,
    pub(in crate::consume) subscription: Subscription,
    pub(in crate::consume) limits: Limits,
    pub(in crate::consume) commands: mpsc::Receiver<Command>,
    /// What all sessions together hold.
    pub(in crate::consume) memory: Arc<AtomicU64>,
    pub(in crate::consume) watch: Arc<Watch>,
    pub(in crate::consume) pool: Pool,
    /// The thread of the session before, which holds the same instance id until its end: bounded, as a session's goodbye is.
    pub(in crate::consume) predecessor: Option<JoinHandle<()>>,
}

impl Start {
    pub(in crate::consume) fn run(mut self) {
        let group = self.subscription.group.clone();
        if let Some(Err(_)) = self.predecessor.take().map(JoinHandle::join) {
            tracing::error!(group, "the session before has panicked");
        }
        let topics = &self.subscription.topics;
        let subscribed = Consumer::new(&self.cluster, &group, topics).and_then(|consumer| {
            consumer
                .subscribe(topics)
                .map_err(|error| error.to_string())?;
            consumer.look_around(topics);
            Ok(consumer)
        });
        let consumer = match subscribed {
            Ok(consumer) => consumer,
            Err(error) => return self.give_up(&error),
        };
        tracing::info!(group, topics = ?self.subscription.topics, "subscribed");
        let now = Instant::now();
        let session = Session {
            consumer,
            subscription: self.subscription,
            limits: self.limits,
            commands: self.commands,
            watch: self.watch,
            pool: self.pool,
            slots: BTreeMap::new(),
            streams: BTreeMap::new(),
            members: Vec::new(),
            clock: Clock::new(),
            liveness: Liveness::new(now),
            memory: Memory::new(self.memory, self.limits.max_bytes),
            phase: Phase::Delivering,
            epochs: Epochs::new(),
            next_slot: 0,
            generation: 0,
            assigning: None,
            revoking: None,
            rejoin: Rejoin::default(),
            seeking: None,
            fenced: Fenced::default(),
            first_assignment: true,
            broken: None,
            commit_at: now,
            doubt_until: now,
            repeat_at: now,
            look_at: now,
            ends_at: now + self.limits.ends_interval,
            idle_since: now,
            turn: 0,
            cluster_id: None,
            map_budget: self.limits.commit_metadata,
            commits_sent: VecDeque::new(),
            commits_made: 0,
            is_commit_final: false,
            shown: metrics::Group::new(&group),
            commits: metrics::Commits::new(&group),
            certificates: self.cluster.certificates(),
            renew_at: now,
            cluster: self.cluster,
            producer: self.producer,
            copies: Copies::default(),
            _open: metrics::subscribe().subscription(),
        };
        session.run();
        tracing::info!(group, "unsubscribed");
    }

    /// Answers the streams that wait: there is no consumer.
    fn give_up(mut self, error: &str) {
        let group = &self.subscription.group;
        tracing::error!(group, "the consumer could not be created: {error}");
        self.pool.remove(group);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Attach { end, .. } = command {
                let text = format!("the Kafka consumer could not be created: {error}");
                // The stream may be gone.
                let _ = end.send(Some(Failure::new(Reason::KafkaAuthenticationFailed, text)));
            }
        }
    }
}
