//! Between the protobuf messages and the words of `record` and `consume`.
//!
//! Pure. Byte fields are moved, not copied. What a message asks for and this build does not do is refused here, by name.

mod subscribe;

use std::time::{Duration, Instant, SystemTime};

pub(super) use self::subscribe::{
    acknowledged, init, lease, outcomes, partition_event_kind, positive, received_items,
    settle_items, window,
};
use super::{proto, status::record_error};
use crate::{
    failure::{Failure, Reason},
    kafka::Delivery,
    publish::stream::Answer,
    record::{Header, Record},
};

/// The records of a request; what is wrong with their form, by index.
pub fn records(records: Vec<proto::Record>) -> Result<Vec<Record>, Vec<(usize, Failure)>> {
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
        message_id: record.message_id,
    })
}

pub(super) fn millis(timestamp: prost_types::Timestamp) -> Option<i64> {
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
            duplicate,
        } => Answer::Published(proto::Published {
            partition,
            offset,
            timestamp: millis.map(timestamp),
            duplicate,
        }),
        Delivery::Failed(failure) => Answer::Error(record_error(&failure)),
    };
    proto::PublishResult {
        result: Some(result),
    }
}

/// Failures of a message that are told with words; the rest have their code, reason and persistence, or an answer to many records that fail
/// would not fit the 4 MiB that clients take by default.
const TEXTS: usize = 100;

/// What became of batches of a stream, in one message.
pub(super) fn acks(answers: &[Answer]) -> proto::PublishAcks {
    let mut texts = TEXTS;
    let ack = |answer: &Answer| batch_ack(answer.sequence, &answer.deliveries, &mut texts);
    proto::PublishAcks {
        acks: answers.iter().map(ack).collect(),
    }
}

/// Uses up the `texts` that may still be told.
fn batch_ack(sequence: u64, deliveries: &[Delivery], texts: &mut usize) -> proto::BatchAck {
    let mut ack = proto::BatchAck {
        sequence,
        partitions: Vec::with_capacity(deliveries.len()),
        offsets: Vec::with_capacity(deliveries.len()),
        notes: Vec::new(),
    };
    for (index, delivery) in deliveries.iter().enumerate() {
        match delivery {
            Delivery::Published {
                partition,
                offset,
                duplicate,
                ..
            } => {
                ack.partitions.push(*partition);
                ack.offsets.push(offset.unwrap_or(-1));
                if *duplicate {
                    ack.notes.push(proto::RecordNote {
                        index: index as u32,
                        note: Some(proto::record_note::Note::Duplicate(true)),
                    });
                }
            }
            Delivery::Failed(failure) => {
                ack.partitions.push(-1);
                ack.offsets.push(-1);
                let mut error = record_error(failure);
                match texts.checked_sub(1) {
                    Some(left) => *texts = left,
                    None => {
                        error.message.clear();
                        error.metadata.clear();
                    }
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

fn unknown(field: &str, value: i32) -> Failure {
    Failure::not_available(&format!(
        "{field} = {value} (a value that this build does not know)"
    ))
}

#[cfg(test)]
mod tests;
