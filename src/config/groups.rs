//! What the group protocol asks of the other keys.
//!
//! With `classic` the members bring their times along; with `consumer` (KIP-848) those are the brokers', and librdkafka refuses a client
//! that has its own. Pure; nobody owns state.

use std::time::Duration;

use super::{
    GroupProtocol,
    check::{Checked, Relation, relation},
    problem::Problem,
    show::Sourced,
    value::{Parsed, duration_text},
};

/// The longest time without a poll before librdkafka leaves the group, and what brokers of `consumer` are told that a member may take to
/// hand partitions back.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

const DRAIN: &str = "consume.revoke_drain";

/// Keys that only `classic` has.
const CLASSIC: &[(&str, &str)] = &[
    (
        "consume.session_timeout",
        "group.consumer.session.timeout.ms",
    ),
    (
        "consume.heartbeat_interval",
        "group.consumer.heartbeat.interval.ms",
    ),
];

const RELATIONS: &[Relation] = &[
    relation(
        DRAIN,
        "shorter than",
        "consume.session_timeout",
        |drain, session| drain < session,
    ),
    relation(
        "consume.heartbeat_interval",
        "at most a third of",
        "consume.session_timeout",
        |heartbeat, session| match (heartbeat, session) {
            (Parsed::Duration(heartbeat), Parsed::Duration(session)) => *heartbeat * 3 <= *session,
            _ => false,
        },
    ),
];

impl Checked {
    pub(super) fn try_group_protocol(&mut self) {
        let consumer = Parsed::Choice(GroupProtocol::Consumer.as_str());
        let Some(protocol) = self.values.get("consume.group_protocol") else {
            return;
        };
        if protocol.value != consumer {
            for relation in RELATIONS {
                self.try_relation(relation);
            }
            return;
        }
        let by = protocol.source.clone();
        for (key, setting) in CLASSIC {
            if let Some(Sourced { source, .. }) = self.values.get(key)
                && source != "default"
            {
                let message = format!(
                    "has no effect with consume.group_protocol: consumer ({by}), where brokers decide it: leave it out, and set their {setting}"
                );
                self.problems.push(Problem::new(*key, source, message));
            }
        }
        if let Some(Sourced { value, source }) = self.values.get(DRAIN)
            && *value >= Parsed::Duration(MAX_POLL_INTERVAL)
        {
            let message = format!(
                "{value} must be shorter than {}, after which brokers take the partitions away",
                duration_text(MAX_POLL_INTERVAL)
            );
            self.problems.push(Problem::new(DRAIN, source, message));
        }
    }
}
