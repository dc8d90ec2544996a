//! What librdkafka leaves out when it says why a consumer cannot go on.

use super::Session;
use crate::{
    consume::Subscription,
    failure::{Failure, Reason},
    kafka::patterns,
};

impl Session {
    /// librdkafka does not say which topic it misses: it is one of those that have no partition here.
    pub(super) fn explain(&self, mut failure: Failure) -> Failure {
        if failure.reason == Reason::KafkaNotAuthorized {
            let Subscription { group, topics, .. } = &self.subscription;
            failure.message = format!(
                "{} (group {group}, topics {})",
                failure.message,
                topics.join(", ")
            );
            return failure.with_metadata("group", group);
        }
        if failure.reason == Reason::TopicNotFound && failure.metadata.is_empty() {
            let mut missing = self.subscription.topics.clone();
            let is_here = |topic: &String| self.slots.values().any(|slot| *slot.topic == **topic);
            missing.retain(|topic| !patterns::is_pattern(topic) && !is_here(topic));
            // It was deleted, and its partitions are not taken away yet.
            if missing.is_empty() {
                missing.clone_from(&self.subscription.topics);
            }
            failure.message = format!("{}: {}", failure.message, missing.join(", "));
        }
        failure
    }
}
