//! What the README says beside what the program has. `UPDATE_README=1 cargo test --test documents` writes the tables anew.

use std::{env, fs, path::PathBuf};

use outrigger::{config, failure::Reason, grpc::status::code, metrics};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// The text between `<!-- name -->` and `<!-- /name -->`.
fn section(readme: &str, name: &str) -> String {
    let begin = format!("<!-- {name} -->\n");
    let end = format!("<!-- /{name} -->");
    let from = readme
        .find(&begin)
        .unwrap_or_else(|| panic!("the README has no {begin}"))
        + begin.len();
    let to = readme
        .find(&end)
        .unwrap_or_else(|| panic!("the README has no {end}"));
    readme[from..to].to_owned()
}

#[track_caller]
fn check(name: &str, expected: &str) {
    let readme = fs::read_to_string(path()).expect("README.md");
    let written = section(&readme, name);
    if written == expected {
        return;
    }
    assert!(
        env::var_os("UPDATE_README").is_some(),
        "the {name} table of the README is not what the program has; write it anew with UPDATE_README=1"
    );
    let begin = format!("<!-- {name} -->\n");
    let updated = readme.replace(&format!("{begin}{written}"), &format!("{begin}{expected}"));
    fs::write(path(), updated).expect("README.md is written");
}

// One test, since all of them may write the same file.
#[test]
fn the_tables_of_the_readme_are_the_programs_own() {
    check("configuration", &config::markdown_table());
    check("metrics", &metrics_table());
    check("errors", &errors_table());
}

fn metrics_table() -> String {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in metrics::table() {
        table += &format!(
            "| `{}` | {:?} | {} | {} |\n",
            metric.name,
            metric.kind,
            metric.labels.join(", "),
            metric.help
        );
    }
    table
}

fn errors_table() -> String {
    let mut table =
        String::from("| reason | gRPC code | the record | what to do |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let (record, advice) = advice(reason);
        table += &format!(
            "| {} | {:?} | {record} | {advice} |\n",
            reason.as_str(),
            code(reason)
        );
    }
    table
}

/// What a user does about it. Without a wildcard, so that a new reason needs its line.
fn advice(reason: Reason) -> (&'static str, &'static str) {
    let not = "not written";
    match reason {
        Reason::InvalidRequest => (
            not,
            "Correct the request; the field paths are in `BadRequest`.",
        ),
        Reason::InvalidRecord => (
            not,
            "Correct the record; the field path says which and what.",
        ),
        Reason::RecordTooLarge => (
            not,
            "Send smaller records, or raise `publish.max_record_bytes` and the topic's `max.message.bytes`.",
        ),
        Reason::SchemaMismatch | Reason::SchemaUnknown => (not, "Not used by this version."),
        Reason::TopicNotFound => (
            not,
            "Create the topic, or correct its name; it is answered in about 5 s.",
        ),
        Reason::PartitionNotFound => (not, "Name a partition that the topic has, or none."),
        Reason::SubscriptionNotFound => {
            ("–", "Subscribe or pull as the group in this sidecar first.")
        }
        Reason::Unauthenticated => (
            not,
            "Send a token of `listen.tokens_file`, or show a certificate.",
        ),
        Reason::NotAllowed => (
            not,
            "Add a rule to `access.rules` for the principal that the message names.",
        ),
        Reason::KafkaNotAuthorized => (
            not,
            "Grant the sidecar's user the ACL on the topic or group.",
        ),
        Reason::KafkaAuthenticationFailed => (
            not,
            "Correct the sidecar's credentials or its authorities (`kafka.sasl`, `kafka.tls`); the message has the cause.",
        ),
        Reason::FeatureNotAvailable => (
            not,
            "Leave out what the message names; this version does not do it.",
        ),
        Reason::SubscriptionConflict => (
            "–",
            "Let all streams of a group ask for the same topics, ordering and start, or use another group.",
        ),
        Reason::PreconditionFailed => (
            not,
            "Look at the failure before it: the stream stops at the first. Of a subscription: its group does not let this sidecar in; the message says why.",
        ),
        Reason::PublishBufferFull => (
            not,
            "Try again after `retry_after`; publish slower, or raise `publish.max_in_flight_*`.",
        ),
        Reason::TooManyStreams => (not, "Close streams, or raise `listen.max_streams`."),
        Reason::TooManySubscriptions => (
            "–",
            "Use fewer groups, or raise `consume.max_subscriptions`.",
        ),
        Reason::WindowExceeded => (
            "unanswered ones: unknown",
            "Read the answers, and keep to the window of the welcome.",
        ),
        Reason::SpoolFull | Reason::SpoolDraining => (not, "Not used by this version."),
        Reason::KafkaUnavailable => (not, "Try again; Kafka is away."),
        Reason::NotEnoughReplicas => (not, "Try again; a replica of the partition is missing."),
        Reason::Draining => (
            not,
            "Try again: the sidecar is stopping, its successor will answer.",
        ),
        Reason::DeliveryTimeout => (
            "as `persistence` says",
            "Kafka did not acknowledge it in time; sending it again without a `message_id` may double it if it is possibly written.",
        ),
        Reason::Deadline => (
            "as `persistence` says",
            "The call's own deadline came first; sending it again without a `message_id` may double it if it is possibly written.",
        ),
        Reason::IdReused => (
            not,
            "Give each record a `message_id` of its own; a retry has the same content.",
        ),
        Reason::ProducerReplaced => (
            "possibly written",
            "The producer failed for good and another took over; sending it again without a `message_id` may double it.",
        ),
        Reason::NotEnoughReplicasAfterAppend => (
            "possibly written",
            "Sending it again without a `message_id` may double it.",
        ),
        Reason::OffsetOutOfRange => ("–", "Seek within the bounds that the message names."),
        Reason::CorruptRecord | Reason::LogTruncated => ("–", "Not used by this version."),
        Reason::Internal => (
            "possibly written, unless known",
            "Read the sidecar's log, and report it.",
        ),
    }
}
