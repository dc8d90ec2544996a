//! What a group member cannot recover from by itself, so that its subscribers must hear of it.
//!
//! librdkafka tries again whatever the cause. A member that has never been served is given up at once; one that was is given time.

use std::time::{Duration, Instant};

use rdkafka::{consumer::Consumer as _, types::RDKafkaErrorCode as Code};

use super::Consumer;
use crate::{
    failure::{Failure, Reason},
    kafka::{connection::GRACE, error, ffi},
};

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
