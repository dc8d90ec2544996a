//! Between the protobuf messages and the words of `record` and `consume`.
//!
//! Pure. Byte fields are moved, not copied. What a message asks for and this build does not do is refused here, by name.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use super::{proto, status::record_error};
use crate::{
    consume::{
        Action, Confirm, Delivered, Ordering, PartitionChange, Refusal, SettleItem, StreamOptions,
        Subscription, Token,
    },
    failure::{Failure, Reason},
    kafka::{Delivery, Start},
    record::{Header, Record, TimestampKind, Usage, topic_problem},
};

/// The records of a request; what is wrong with their form, by index.
pub(super) fn records(records: Vec<proto::Record>) -> Result<Vec<Record>, Vec<(usize, Failure)>> {
    let mut invalid = Vec::new();
    let converted = records
        .into_iter()
        .enumerate()
        .map(|(index, from)| {
            record(index, from).unwrap_or_else(|failure| {
                invalid.push((index, failure));
                Record::default()
            })
        })
        .collect();
    if invalid.is_empty() {
        Ok(converted)
    } else {
        Err(invalid)
    }
}

fn record(index: usize, record: proto::Record) -> Result<Record, Failure> {
    if !record.message_id.is_empty() {
        return Err(Failure::not_available("Record.message_id"));
    }
    let timestamp = match record.timestamp {
        None => None,
        Some(timestamp) => Some(millis(timestamp).ok_or_else(|| {
            Failure::invalid(
                Reason::InvalidRecord,
                format!("records[{index}].timestamp"),
                "is not a valid time",
            )
        })?),
    };
    Ok(Record {
        topic: record.topic,
        partition: record.partition,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| Header {
                name: header.name,
                value: header.value,
            })
            .collect(),
        timestamp,
    })
}

fn millis(timestamp: prost_types::Timestamp) -> Option<i64> {
    if !(0..1_000_000_000).contains(&timestamp.nanos) {
        return None;
    }
    timestamp
        .seconds
        .checked_mul(1000)?
        .checked_add(i64::from(timestamp.nanos) / 1_000_000)
}

/// A point in time as a message.
pub(super) fn timestamp(millis: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: (millis.rem_euclid(1000) * 1_000_000) as i32,
    }
}

/// A moment of this process's clock as a message.
pub(super) fn moment(at: Instant) -> prost_types::Timestamp {
    (SystemTime::now() + at.saturating_duration_since(Instant::now())).into()
}

/// A duration as a message.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}

/// Refuses what a level of acknowledgement asks for beyond Kafka's.
pub(super) fn ack_level(level: i32) -> Result<(), Failure> {
    match proto::AckLevel::try_from(level) {
        Ok(proto::AckLevel::Unspecified | proto::AckLevel::Kafka) => Ok(()),
        Ok(proto::AckLevel::SpoolAllowed) => Err(Failure::not_available("ACK_LEVEL_SPOOL_ALLOWED")),
        Err(_) => Err(unknown("ack_level", level)),
    }
}

/// What became of a record of a unary request.
pub(super) fn publish_result(delivery: Delivery) -> proto::PublishResult {
    use proto::publish_result::Result as Answer;
    let result = match delivery {
        Delivery::Published {
            partition,
            offset,
            timestamp: millis,
        } => Answer::Published(proto::Published {
            partition,
            offset,
            timestamp: millis.map(timestamp),
            duplicate: false,
        }),
        Delivery::Failed(failure) => Answer::Error(record_error(&failure)),
    };
    proto::PublishResult {
        result: Some(result),
    }
}

/// Failures of a batch that are told with words; the rest have their code, reason and persistence, or a large batch that fails would not
/// fit the 4 MiB that clients take by default.
const TEXTS: usize = 100;

/// What became of a batch of a stream.
pub(super) fn batch_ack(sequence: u64, deliveries: &[Delivery]) -> proto::BatchAck {
    let mut ack = proto::BatchAck {
        sequence,
        partitions: Vec::with_capacity(deliveries.len()),
        offsets: Vec::with_capacity(deliveries.len()),
        notes: Vec::new(),
    };
    for (index, delivery) in deliveries.iter().enumerate() {
        match delivery {
            Delivery::Published {
                partition, offset, ..
            } => {
                ack.partitions.push(*partition);
                ack.offsets.push(offset.unwrap_or(-1));
            }
            Delivery::Failed(failure) => {
                ack.partitions.push(-1);
                ack.offsets.push(-1);
                let mut error = record_error(failure);
                if ack.notes.len() >= TEXTS {
                    error.message.clear();
                    error.metadata.clear();
                }
                ack.notes.push(proto::RecordNote {
                    index: index as u32,
                    note: Some(proto::record_note::Note::Error(error)),
                });
            }
        }
    }
    ack
}

/// What a first message of a subscription asks for.
pub(super) fn init(
    init: &proto::Init,
    window: Usage,
) -> Result<(Subscription, StreamOptions), Failure> {
    let invalid = |field: &str, text: &str| {
        Failure::invalid(Reason::InvalidRequest, format!("init.{field}"), text)
    };
    if init.group.is_empty() {
        return Err(invalid("group", "must not be empty"));
    }
    if init.group.len() > 249 {
        return Err(invalid("group", "must not be longer than 249 bytes"));
    }
    if init.topics.is_empty() {
        return Err(invalid("topics", "must name at least one topic"));
    }
    if init.topics.iter().any(|topic| topic.starts_with('^')) {
        return Err(Failure::not_available(
            "a regular expression in Init.topics",
        ));
    }
    for (index, topic) in init.topics.iter().enumerate() {
        if let Some(problem) = topic_problem(topic) {
            return Err(invalid(&format!("topics[{index}]"), problem));
        }
    }
    let not_yet = [
        (init.lease.is_some(), "Init.lease"),
        (init.retry.is_some(), "Init.retry"),
        (init.dead_letter.is_some(), "Init.dead_letter"),
    ];
    if let Some((_, feature)) = not_yet.iter().find(|(asked, _)| *asked) {
        return Err(Failure::not_available(feature));
    }
    let ordering = match proto::Ordering::try_from(init.ordering) {
        Ok(proto::Ordering::Partition) => Ordering::Partition,
        Ok(proto::Ordering::Unordered) => Ordering::Unordered,
        Ok(proto::Ordering::Key) => return Err(Failure::not_available("ORDERING_KEY")),
        Ok(proto::Ordering::Unspecified) => {
            return Err(Failure::not_available(
                "ORDERING_KEY (the default; set ordering to ORDERING_PARTITION or ORDERING_UNORDERED)",
            ));
        }
        Err(_) => return Err(unknown("init.ordering", init.ordering)),
    };
    let confirm = match proto::Confirm::try_from(init.confirm) {
        Ok(proto::Confirm::Unspecified | proto::Confirm::Recorded) => Confirm::Recorded,
        Ok(proto::Confirm::None) => Confirm::None,
        Ok(proto::Confirm::Durable) => Confirm::Durable,
        Err(_) => return Err(unknown("init.confirm", init.confirm)),
    };
    use proto::start_position::Position;
    let start = match init
        .start
        .as_ref()
        .and_then(|start| start.position.as_ref())
    {
        None => Start::Earliest,
        Some(Position::Time(_)) => return Err(Failure::not_available("StartPosition.time")),
        Some(Position::Kind(kind)) => match proto::StartKind::try_from(*kind) {
            Ok(proto::StartKind::Unspecified | proto::StartKind::Earliest) => Start::Earliest,
            Ok(proto::StartKind::Latest) => Start::Latest,
            Err(_) => return Err(unknown("init.start.kind", *kind)),
        },
    };
    let topics: BTreeSet<String> = init.topics.iter().cloned().collect();
    let subscription = Subscription {
        group: init.group.clone(),
        topics: topics.into_iter().collect(),
        ordering,
        start,
    };
    let options = StreamOptions {
        window,
        confirm,
        max_message_bytes: match init.max_message_bytes {
            0 => DEFAULT_MESSAGE_BYTES,
            bytes => bytes,
        },
    };
    Ok((subscription, options))
}

/// What a client's gRPC library accepts unless told otherwise.
const DEFAULT_MESSAGE_BYTES: u64 = 4 * 1024 * 1024;

fn unknown(field: &str, value: i32) -> Failure {
    Failure::not_available(&format!(
        "{field} = {value} (a value that this build does not know)"
    ))
}

/// The items of a settle.
pub(super) fn settle_items(items: Vec<proto::SettleItem>) -> Result<Vec<SettleItem>, Failure> {
    use proto::settle_item::Action as Asked;
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            let action = match item.action {
                Some(Asked::Ack(_)) => Action::Ack,
                Some(Asked::Release(_)) => Action::Release,
                Some(Asked::Nack(nack))
                    if nack
                        .delay
                        .is_some_and(|delay| delay.seconds != 0 || delay.nanos != 0) =>
                {
                    return Err(Failure::not_available("Nack.delay"));
                }
                Some(Asked::Nack(_)) => Action::Nack,
                Some(Asked::DeadLetter(_)) => {
                    return Err(Failure::not_available("SettleItem.dead_letter"));
                }
                None => {
                    return Err(Failure::invalid(
                        Reason::InvalidRequest,
                        format!("settle.items[{index}].action"),
                        "must be set",
                    ));
                }
            };
            Ok(SettleItem {
                token: Token::decode(&item.token),
                action,
            })
        })
        .collect()
}

/// A record on its way to a subscriber.
pub(super) fn delivery(delivered: Delivered) -> proto::Delivery {
    let Delivered {
        token,
        topic,
        partition,
        attempt,
        record,
    } = delivered;
    let timestamp_type = match record.timestamp {
        None => proto::TimestampType::Unspecified,
        Some((_, TimestampKind::Create)) => proto::TimestampType::CreateTime,
        Some((_, TimestampKind::LogAppend)) => proto::TimestampType::LogAppendTime,
    };
    proto::Delivery {
        token: token.encode().to_vec().into(),
        record: Some(proto::Record {
            topic: topic.to_string(),
            partition: Some(partition),
            key: record.key,
            value: record.value,
            headers: record
                .headers
                .into_iter()
                .map(|header| proto::Header {
                    name: header.name,
                    value: header.value,
                })
                .collect(),
            timestamp: record.timestamp.map(|(millis, _)| timestamp(millis)),
            message_id: String::new(),
        }),
        offset: record.offset,
        timestamp_type: timestamp_type.into(),
        attempt,
        suspect: false,
    }
}

/// Why an item changed nothing.
pub(super) fn outcome(refusal: Refusal) -> proto::Outcome {
    match refusal {
        Refusal::AlreadySettled => proto::Outcome::AlreadySettled,
        Refusal::Redelivered => proto::Outcome::ExpiredRedelivered,
        Refusal::PartitionMoved => proto::Outcome::FencedPartitionMoved,
        Refusal::UnknownToken => proto::Outcome::UnknownToken,
        Refusal::BadToken => proto::Outcome::BadToken,
    }
}

/// What happened to a partition.
pub(super) fn partition_event_kind(change: PartitionChange) -> proto::PartitionEventKind {
    match change {
        PartitionChange::Assigned => proto::PartitionEventKind::Assigned,
        PartitionChange::Revoking => proto::PartitionEventKind::Revoking,
        PartitionChange::Revoked => proto::PartitionEventKind::Revoked,
        PartitionChange::Lost => proto::PartitionEventKind::Lost,
    }
}

/// A window as a message.
pub(super) fn window(window: Usage) -> proto::Window {
    proto::Window {
        max_records: Some(window.records),
        max_bytes: Some(window.bytes),
    }
}

#[cfg(test)]
mod tests;
