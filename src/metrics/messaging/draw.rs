//! The names of what is counted by topic and group, and how it is drawn.

use std::sync::atomic::Ordering;

use super::{COMMITS, READS, SENDS, lock};
use crate::metrics::{
    histogram::Histogram,
    names::OTHER,
    table::{Kind, Metric, row},
    text::{Family, Label, Text},
};

const OPERATION: Metric = row(
    "messaging_client_operation_duration_seconds",
    Kind::Histogram,
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_operation_type",
        "messaging_destination_name",
        "messaging_consumer_group_name",
        "error_type",
    ],
    "`send`: from handing a batch's records of a topic to the producer to the batch's last delivery report. `commit`: from an offset commit to its \
     answer; it has a group and no topic, since one commit is of many.",
);
const SENT: Metric = row(
    "messaging_client_sent_messages_total",
    Kind::Counter,
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_destination_name",
        "error_type",
    ],
    "Records that were handed to the producer and have their delivery report; with `error_type`, the reason of the error table, those that failed.",
);
const CONSUMED: Metric = row(
    "messaging_client_consumed_messages_total",
    Kind::Counter,
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_destination_name",
        "messaging_consumer_group_name",
    ],
    "Records delivered to subscribers, once for each delivery.",
);
const PROCESS: Metric = row(
    "messaging_process_duration_seconds",
    Kind::Histogram,
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_destination_name",
        "messaging_consumer_group_name",
        "error_type",
    ],
    "From the delivery of a record to its ack, or, with `error_type` `nack`, to its nack.",
);
const READ: Metric = row(
    "kafka_consumer_records_consumed_total",
    Kind::Counter,
    &["group", "topic"],
    "Records read from Kafka for delivery, redeliveries not counted.",
);
const DELAY: Metric = row(
    "outrigger_subscribe_delay_seconds",
    Kind::Histogram,
    &["group", "topic"],
    "End-to-end delay: from a record's timestamp to its first delivery.",
);

pub(in crate::metrics) const ROWS: &[Metric] = &[OPERATION, SENT, CONSUMED, PROCESS, READ, DELAY];

const SYSTEM: Label<'static> = ("messaging_system", "kafka");
const SEND: Label<'static> = ("messaging_operation_name", "send");
const COMMIT: Label<'static> = ("messaging_operation_name", "commit");
const PROCESSING: Label<'static> = ("messaging_operation_name", "process");
const TYPE: &str = "messaging_operation_type";
const TOPIC: &str = "messaging_destination_name";
const GROUP: &str = "messaging_consumer_group_name";
const ERROR: &str = "error_type";

/// Writes all of this.
pub(in crate::metrics) fn draw(text: &mut Text) {
    let (sends, reads, commits) = (lock(&SENDS), lock(&READS), lock(&COMMITS));
    text.family(&OPERATION, |family| {
        for (topic, sends) in &*sends {
            for (error, operations) in sends.all() {
                let labels = [SYSTEM, SEND, (TYPE, "send"), (TOPIC, topic)];
                histogram(family, &labels, error, &operations.seconds);
            }
        }
        for (group, commits) in &*commits {
            let labels = [SYSTEM, COMMIT, (TYPE, "settle"), (GROUP, group)];
            histogram(family, &labels, None, &commits.ok);
            histogram(family, &labels, Some(OTHER), &commits.failed);
        }
    });
    text.family(&SENT, |family| {
        for (topic, sends) in &*sends {
            for (error, operations) in sends.all() {
                let messages = operations.messages.load(Ordering::Relaxed);
                let labels = [SYSTEM, SEND, (TOPIC, topic)];
                if messages > 0 {
                    family.sample(&with_error(&labels, error), messages);
                }
            }
        }
    });
    text.family(&CONSUMED, |family| {
        for ((group, topic), reads) in &*reads {
            family.sample(
                &[SYSTEM, PROCESSING, (TOPIC, topic), (GROUP, group)],
                reads.delivered.load(Ordering::Relaxed),
            );
        }
    });
    text.family(&PROCESS, |family| {
        for ((group, topic), reads) in &*reads {
            let labels = [SYSTEM, PROCESSING, (TOPIC, topic), (GROUP, group)];
            histogram(family, &labels, None, &reads.acked);
            histogram(family, &labels, Some("nack"), &reads.nacked);
        }
    });
    text.family(&READ, |family| {
        for ((group, topic), reads) in &*reads {
            let read = reads.read.load(Ordering::Relaxed);
            family.sample(&[("group", group), ("topic", topic)], read);
        }
    });
    text.family(&DELAY, |family| {
        for ((group, topic), reads) in &*reads {
            family.histogram(&[("group", group), ("topic", topic)], &reads.delay);
        }
    });
}

/// One that has counted something.
fn histogram(
    family: &mut Family<'_>,
    labels: &[Label<'_>],
    error: Option<&str>,
    histogram: &Histogram,
) {
    if histogram.count() > 0 {
        family.histogram(&with_error(labels, error), histogram);
    }
}

/// What succeeded has no `error_type`, as the conventions want it.
fn with_error<'a>(labels: &[Label<'a>], error: Option<&'a str>) -> Vec<Label<'a>> {
    let error = error.map(|error| (ERROR, error));
    labels.iter().copied().chain(error).collect()
}
