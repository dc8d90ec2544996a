//! The callbacks of one consumer: they only report, to a queue that its owner empties. While it closes, and its owner is gone, they answer.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};

use super::{CommitEnd, ConsumerEvent, event};
use crate::{
    kafka::{connection::Connection, context, statistics::Statistics},
    record::TopicPartition,
};

/// The callbacks of one consumer: they only report.
pub(super) struct Context {
    statistics: Statistics,
    // A std mutex: sections are a push or a pop.
    events: Mutex<VecDeque<ConsumerEvent>>,
    /// What librdkafka said of its last error: the error itself has only a code.
    said: Mutex<String>,
    pub(super) connection: Connection,
    closing: AtomicBool,
}

impl Context {
    pub(super) fn new(statistics: Statistics) -> Self {
        Self {
            statistics,
            events: Mutex::default(),
            said: Mutex::default(),
            connection: Connection::default(),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn events(&self) -> MutexGuard<'_, VecDeque<ConsumerEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on rebalances are answered here.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// What librdkafka said of its last error.
    pub(super) fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if event::tells_a_reset(facility, message) {
            let reset = ConsumerEvent::Reset(message.to_owned());
            self.events().push_back(reset);
        }
        if event::tells_a_failed_heartbeat(facility, message) {
            self.events().push_back(ConsumerEvent::HeartbeatFailed);
        }
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        self.connection.failed(code, reason);
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_owned();
        context::error("consumer", &error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.statistics.take(json);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing() {
            // The loop is gone, and librdkafka waits for an answer.
            let answer = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = answer {
                tracing::debug!(error = %error, "a rebalance while closing could not be answered");
            }
            return;
        }
        let partitions = partitions(list);
        self.events().push_back(if assigned {
            ConsumerEvent::Assigned(partitions)
        } else {
            ConsumerEvent::Revoked {
                partitions,
                lost: consumer.assignment_lost(),
            }
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let committed = offsets
            .elements()
            .iter()
            .filter_map(|element| {
                let Offset::Offset(offset) = element.offset() else {
                    return None;
                };
                Some((
                    TopicPartition::new(element.topic(), element.partition()),
                    offset,
                ))
            })
            .collect();
        let partial = offsets
            .elements()
            .iter()
            .find_map(|element| element.error().err());
        let error = result.err().or(partial);
        let code = error.as_ref().and_then(KafkaError::rdkafka_error_code);
        self.events().push_back(ConsumerEvent::Committed(CommitEnd {
            offsets: committed,
            is_too_long: code == Some(Code::OffsetMetadataTooLarge),
            is_final: matches!(
                code,
                Some(
                    Code::UnknownMemberId
                        | Code::FencedInstanceId
                        | Code::FencedMemberEpoch
                        | Code::Fatal
                        | Code::GroupAuthorizationFailed
                        | Code::TopicAuthorizationFailed
                )
            ),
            error: error.map(|error| error.to_string()),
            // Known to who began it.
            after: Duration::ZERO,
        }));
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition::new(element.topic(), element.partition()))
        .collect()
}
