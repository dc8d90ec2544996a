//! What librdkafka's clients have in common when they call back: their log lines and their errors.
//!
//! No state. Callbacks run on librdkafka's threads or where a client is polled, and must neither block nor panic.

use rdkafka::{
    config::RDKafkaLogLevel as Level, error::KafkaError, types::RDKafkaErrorCode as Code,
};

use super::{connection, error};
use crate::{failure::Reason, metrics};

/// Passes a line of librdkafka's log on, under the target `librdkafka`.
pub(super) fn log(level: Level, facility: &str, message: &str) {
    // `kafka.properties` go to producer and consumers alike, and each warns of the other's: nothing that a user could mend.
    let of_the_other_kind = facility == "CONFWARN" && message.contains("will be ignored by this");
    match level {
        _ if of_the_other_kind => tracing::debug!(target: "librdkafka", facility, "{message}"),
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        Level::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        Level::Notice | Level::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        Level::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// An error of a whole client, as opposed to one record's: librdkafka goes on trying, so it is a warning.
pub(super) fn error(client: &'static str, error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    let refusal = connection::refusal(code, reason).map(|failure| failure.reason);
    let forbidden =
        Some(error::reason(code)).filter(|reason| *reason == Reason::KafkaNotAuthorized);
    if let Some(reason) = refusal.or(forbidden) {
        metrics::refused(client, reason);
    }
    tracing::warn!(client, error = %error, "{reason}");
}
