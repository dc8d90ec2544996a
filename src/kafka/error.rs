//! The map from librdkafka's error codes to the reasons of the contract.
//!
//! Pure. What always holds: a code that is not known here is `Internal`, never a guess.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::failure::Reason;

/// The reason that stands for a librdkafka error code.
pub(super) fn reason(code: Code) -> Reason {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => {
            Reason::TopicNotFound
        }
        Code::UnknownPartition => Reason::PartitionNotFound,
        Code::MessageSizeTooLarge => Reason::RecordTooLarge,
        Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidMessage => {
            Reason::InvalidRecord
        }
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Reason::KafkaNotAuthorized,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            Reason::KafkaAuthenticationFailed
        }
        Code::NotEnoughReplicas => Reason::NotEnoughReplicas,
        Code::NotEnoughReplicasAfterAppend => Reason::NotEnoughReplicasAfterAppend,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => {
            Reason::DeliveryTimeout
        }
        // What is still queued or in flight when the drain deadline comes is purged, and said to be unresolved.
        Code::PurgeQueue | Code::PurgeInflight => Reason::DeliveryTimeout,
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::ProducerFenced => Reason::ProducerReplaced,
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::NetworkException
        | Code::KafkaStorageError => Reason::KafkaUnavailable,
        Code::OffsetOutOfRange => Reason::OffsetOutOfRange,
        Code::BadMessage => Reason::CorruptRecord,
        Code::LogTruncation => Reason::LogTruncated,
        _ => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_callers_meet_have_their_own_reason() {
        let rows = [
            (Code::UnknownTopic, Reason::TopicNotFound),
            (Code::UnknownTopicOrPartition, Reason::TopicNotFound),
            (Code::UnknownPartition, Reason::PartitionNotFound),
            (Code::MessageSizeTooLarge, Reason::RecordTooLarge),
            (Code::InvalidRecord, Reason::InvalidRecord),
            (Code::TopicAuthorizationFailed, Reason::KafkaNotAuthorized),
            (
                Code::SaslAuthenticationFailed,
                Reason::KafkaAuthenticationFailed,
            ),
            (Code::NotEnoughReplicas, Reason::NotEnoughReplicas),
            (
                Code::NotEnoughReplicasAfterAppend,
                Reason::NotEnoughReplicasAfterAppend,
            ),
            (Code::MessageTimedOut, Reason::DeliveryTimeout),
            (Code::PurgeInflight, Reason::DeliveryTimeout),
            (Code::OutOfOrderSequenceNumber, Reason::ProducerReplaced),
            (Code::BrokerTransportFailure, Reason::KafkaUnavailable),
            (Code::OffsetOutOfRange, Reason::OffsetOutOfRange),
            (Code::PolicyViolation, Reason::Internal),
        ];
        for (code, expected) in rows {
            assert_eq!(reason(code), expected, "{code:?}");
        }
    }
}
