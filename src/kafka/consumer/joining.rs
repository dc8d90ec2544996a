//! What librdkafka leaves to be done for a member that joins with `group.protocol=consumer`: to say why it gets nothing, and not to go too early.
//!
//! Its subscriber would wait without a word. The broker is told topics and waits for those that do not exist. A group that still has members of the classic protocol takes this one
//! only if it can take over what they have, which it cannot after rebalances by librdkafka's cooperative-sticky: the refusal
//! (GROUP_ID_NOT_FOUND) is tried again for ever. Both are asked when the member subscribes, and whenever partitions are taken from it, as
//! they are when a topic is deleted. It blocks, so another thread does it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    types::RDKafkaErrorCode as Code,
};

use super::{Consumer, ConsumerEvent, callbacks::Context, refusal};
use crate::{
    config::GroupProtocol,
    failure::{Failure, Reason},
    kafka::{ffi, patterns::is_pattern, settings::TOPIC_PROPAGATION},
};

/// The bound of one question.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at what is not as it must be.
const AGAIN: Duration = Duration::from_millis(500);

/// The bound of waiting for the answer to a request to join. It is a round trip, where there is a broker.
const JOINED: Duration = Duration::from_secs(1);

/// How long a group may still take to change its protocol: brokers put it off while it rebalances.
const CONVERSION: Duration = Duration::from_secs(15);

impl Consumer {
    /// Before it closes: waits for the answer to a request to join that may be under way. Without it librdkafka does not leave, and the member
    /// that nobody is would keep partitions for a whole session timeout.
    pub(super) fn finish_joining(&self, deadline: Instant) {
        let end = deadline.min(Instant::now() + JOINED);
        let is_joining = || {
            self.cluster.config().consume.group_protocol == GroupProtocol::Consumer
                && self.client.client().fatal_error().is_none()
                && self
                    .client
                    .subscription()
                    .is_ok_and(|list| list.count() > 0)
                && !ffi::describe::is_member(self.client.client())
        };
        while is_joining() && Instant::now() < end {
            let _ = self.client.poll(Duration::from_millis(10));
        }
    }

    /// Looks, on another thread, whether this member can get partitions; a `Failed` event says why it cannot.
    pub fn look_around(&self, topics: &[String]) {
        if self.cluster.config().consume.group_protocol != GroupProtocol::Consumer {
            return;
        }
        let (client, wake) = (Arc::clone(&self.client), self.wake.clone());
        let (group, topics) = (self.group.clone(), topics.to_vec());
        let look = move || {
            let failure = missing(&client, &topics).or_else(|| closed(&client, &group));
            if let Some(failure) = failure {
                let failed = ConsumerEvent::Failed(failure);
                client.context().events().push_back(failed);
                wake.unpark();
            }
        };
        let spawned = thread::Builder::new()
            .name("kafka-joining".into())
            .spawn(look);
        if let Err(error) = spawned {
            tracing::error!(error = %error, "no thread could be started to look around a group");
        }
    }
}

/// Whether it stays so for `patience`. Nobody asks any more once the consumer closes.
fn stays(client: &BaseConsumer<Context>, patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !client.context().is_closing() && is_so() {
        if Instant::now() >= end {
            return true;
        }
        thread::park_timeout(AGAIN);
    }
    false
}

/// A topic that does not exist. What cannot be asked now is not said to be missing.
fn missing(client: &BaseConsumer<Context>, topics: &[String]) -> Option<Failure> {
    let is_missing = |topic: &String| {
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT);
        metadata.is_ok_and(|metadata| {
            let error = metadata.topics().first().and_then(|topic| topic.error());
            error.is_some_and(|error| Code::from(error) == Code::UnknownTopicOrPartition)
        })
    };
    // A pattern may mean none yet.
    let is_one_missing = || {
        let mut named = topics.iter().filter(|topic| !is_pattern(topic));
        named.any(is_missing)
    };
    stays(client, TOPIC_PROPAGATION, is_one_missing)
        .then(|| refusal::serious(Code::UnknownTopicOrPartition, ""))
        .flatten()
}

/// Members of the other protocol that do not let this one in: with it, the group would be of its own protocol. Asked by the old request, which
/// knows groups of the classic protocol alone: with those that go to a group's coordinator by way of the admin API, librdkafka 2.12.1 may
/// abort the process when the coordinator goes away meanwhile (its issue 4605).
fn closed(client: &BaseConsumer<Context>, group: &str) -> Option<Failure> {
    let is_classic = || {
        let found = client.fetch_group_list(Some(group), TIMEOUT);
        found.is_ok_and(|found| {
            let mut groups = found.groups().iter();
            groups.any(|one| one.name() == group && !one.members().is_empty())
        })
    };
    stays(client, CONVERSION, is_classic).then(|| {
        let text = format!(
            "group {group} has members of the classic protocol, and the brokers do not convert it for one with \
             consume.group_protocol: consumer: stop those members first"
        );
        Failure::new(Reason::PreconditionFailed, text).with_metadata("group", group)
    })
}
