//! What a group member cannot recover from by itself, so that its subscribers must hear of it.
//!
//! librdkafka tries again whatever the cause. A member that has never been served is given up at once; one that was is given time.

use std::time::{Duration, Instant};

use rdkafka::{consumer::Consumer as _, types::RDKafkaErrorCode as Code};

use super::Consumer;
use crate::{
    config::GroupProtocol,
    failure::{Failure, Reason},
    kafka::{connection::GRACE, error, ffi},
};

/// After how long a member that was refused because of another one may be tried again.
const UNRELEASED: Duration = Duration::from_secs(5);

/// The bound of asking whether a broker serves it after all.
const PROBE: Duration = Duration::from_secs(1);

impl Consumer {
    /// Why brokers do not take this member, once that is certain.
    pub(super) fn refusal(&mut self) -> Option<Failure> {
        let connection = &self.client.context().connection;
        let Some(failure) = self.cluster.refused().or_else(|| connection.refused()) else {
            self.refused_since = None;
            return None;
        };
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if connection.has_worked() && since.elapsed() < GRACE {
            return None;
        }
        // Nothing tells of a broker that came back while there was nothing to read.
        if connection.has_worked() && ffi::reachable(self.client.client(), PROBE) {
            connection.works();
            self.refused_since = None;
            return None;
        }
        Some(without_record(self.cluster.explain(failure)))
    }

    /// Why this member is out for good, if so: librdkafka does nothing more for it, and does not say so again.
    pub(super) fn fatal(&self) -> Option<Failure> {
        let (code, said) = self.client.client().fatal_error()?;
        if let Some(failure) = serious(code, &said) {
            return Some(failure);
        }
        let consume = &self.cluster.config().consume;
        let id = consume.instance_id.as_deref().unwrap_or_default();
        let group = &self.group;
        let refused = |text: String| {
            Failure::new(Reason::PreconditionFailed, text).with_metadata("group", group)
        };
        Some(match code {
            // Not at once again: that would drive the other one out in turn.
            Code::FencedInstanceId => refused(format!(
                "another member of group {group} has come with the instance id {id} (FENCED_INSTANCE_ID): \
                 give each sidecar a consume.instance_id of its own, such as the name of its pod"
            ))
            .with_metadata("instance_id", id)
            .with_retry_after(consume.session_timeout),
            Code::UnreleasedInstanceId => refused(format!(
                "group {group} still has a member with the instance id {id} (UNRELEASED_INSTANCE_ID): \
                 give each sidecar a consume.instance_id of its own; after one that was killed, subscribe again \
                 when the brokers' group.consumer.session.timeout.ms is over"
            ))
            .with_metadata("instance_id", id)
            .with_retry_after(UNRELEASED),
            Code::UnsupportedVersion | Code::UnsupportedFeature
                if consume.group_protocol == GroupProtocol::Consumer =>
            {
                refused(
                    "the brokers do not know consume.group_protocol: consumer (KIP-848, Kafka 4.0); use classic"
                        .to_owned(),
                )
            }
            _ => refused(format!("Kafka refuses this member of group {group}: {said}")),
        })
    }

    /// Whether a broker answers within `timeout`; blocks the caller for it.
    pub fn is_served(&self, timeout: Duration) -> bool {
        ffi::reachable(self.client.client(), timeout)
    }
}

/// The errors that its subscribers must hear of; librdkafka recovers from all others by itself. `said` is librdkafka's text.
pub(super) fn serious(code: Code, said: &str) -> Option<Failure> {
    let (reason, text) = match (error::reason(code), code) {
        (Reason::TopicNotFound, _) => (Reason::TopicNotFound, "a subscribed topic does not exist"),
        (Reason::KafkaNotAuthorized, Code::GroupAuthorizationFailed) => (
            Reason::KafkaNotAuthorized,
            "Kafka does not allow the sidecar to read as this group",
        ),
        (Reason::KafkaNotAuthorized, _) => (
            Reason::KafkaNotAuthorized,
            "Kafka does not allow the sidecar to read a subscribed topic",
        ),
        _ => return None,
    };
    let text = match said.is_empty() || reason == Reason::TopicNotFound {
        true => text.to_owned(),
        false => format!("{text}: {said}"),
    };
    Some(Failure::new(reason, text))
}

/// No record is concerned when a subscription ends.
fn without_record(mut failure: Failure) -> Failure {
    failure.persistence = None;
    failure
}
