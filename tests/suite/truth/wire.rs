//! Between the history and the wire: how a send looks as a record, what an answer says, and what a record of the topic is.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use outrigger::grpc::proto;
use rdkafka::{Message, message::BorrowedMessage};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::history::{Answer, Calls, Place, Stored};

/// The time of the first send, in milliseconds: of today. Brokers forget a producer whose last record is stamped longer ago than
/// `producer.id.expiration.ms`, a day: with older times one that was killed would take for new what is sent again.
static FIRST: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    (now - Duration::from_secs(3600)).as_millis() as i64
});

/// A send as a record. Its number is told by its timestamp.
pub fn record(topic: &str, caller: u16, calls: &Calls, send: u32) -> proto::Record {
    let sent = calls.sent[send as usize];
    let millis = *FIRST + i64::from(send);
    let id = calls.has_ids.then(|| format!("{caller}-{}", sent.record));
    let value = [&caller.to_be_bytes()[..], &sent.record.to_be_bytes()].concat();
    proto::Record {
        topic: topic.to_owned(),
        key: Some(sent.key.to_be_bytes().to_vec().into()),
        value: Some(value.into()),
        timestamp: Some(prost_types::Timestamp {
            seconds: millis / 1000,
            nanos: (millis % 1000) as i32 * 1_000_000,
        }),
        message_id: id.unwrap_or_default(),
        ..Default::default()
    }
}

/// What stands in the topic; a record that is not of the test's making has no caller.
pub fn stored(message: &BorrowedMessage<'_>) -> Stored {
    let read = || {
        let (caller, record) = message.payload()?.split_at_checked(2)?;
        Some(Stored {
            send: (message.timestamp().to_millis()? - *FIRST)
                .try_into()
                .ok()?,
            record: u32::from_be_bytes(record.try_into().ok()?),
            caller: u16::from_be_bytes(caller.try_into().ok()?),
            key: u16::from_be_bytes(message.key()?.try_into().ok()?),
        })
    };
    read().unwrap_or(Stored {
        send: u32::MAX,
        record: u32::MAX,
        caller: u16::MAX,
        key: u16::MAX,
    })
}

/// A partition and an offset, of which a negative one was not told.
pub fn place(partition: i32, offset: i64) -> Place {
    Place {
        partition: partition.try_into().expect("a partition"),
        offset: offset.try_into().ok(),
    }
}

/// A failure, and its reason.
pub struct Failed {
    pub answer: Answer,
    pub reason: String,
}

impl Failed {
    /// With these codes a client may retry, so they say that nothing was written.
    fn new(code: Code, reason: String, is_not_persisted: bool) -> Self {
        let answer = match code {
            _ if reason == "PRECONDITION_FAILED" => Answer::NotSent,
            Code::Unavailable | Code::ResourceExhausted => Answer::NotWritten,
            _ if is_not_persisted => Answer::NotWritten,
            _ => Answer::Possibly,
        };
        Self { answer, reason }
    }

    /// A record's own.
    pub fn of(error: &proto::RecordError) -> Self {
        let name = error.reason().as_str_name();
        let reason = name.trim_start_matches("ERROR_REASON_").to_owned();
        let is_not_persisted = error.persistence() == proto::Persistence::NotPersisted;
        Self::new(Code::from_i32(error.code), reason, is_not_persisted)
    }

    /// A call's. One that is not the sidecar's says nothing.
    pub fn of_status(status: &Status) -> Self {
        match status.get_details_error_info() {
            Some(info) => {
                let persistence = info.metadata.get("persistence");
                let is_not_persisted = persistence.is_some_and(|known| known == "NOT_PERSISTED");
                Self::new(status.code(), info.reason, is_not_persisted)
            }
            None => Self {
                answer: Answer::Unknown,
                reason: format!("without a reason: {:?}", status.code()),
            },
        }
    }
}
