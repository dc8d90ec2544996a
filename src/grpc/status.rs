//! The one table from reasons to what a gRPC caller sees.
//!
//! Pure. Every answer carries one `ErrorInfo` of domain `outrigger`; `RetryInfo` and the `grpc-retry-pushback-ms` trailer where waiting
//! helps, `BadRequest` for bad input, `QuotaFailure` for bounds. A test pins every row.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};

use super::proto;
use crate::failure::{Failure, Persistence, Reason};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "outrigger";

/// Tells well-behaved clients when, and that, to try again (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Longest texts of a status: trailers are headers, and clients bound those to 8 KiB.
const MAX_VIOLATIONS: usize = 16;

/// The code of a reason.
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest
        | Reason::InvalidRecord
        | Reason::RecordTooLarge
        | Reason::SchemaMismatch => Code::InvalidArgument,
        Reason::TopicNotFound
        | Reason::PartitionNotFound
        | Reason::SubscriptionNotFound
        | Reason::SchemaUnknown => Code::NotFound,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::NotAllowed | Reason::KafkaNotAuthorized => Code::PermissionDenied,
        Reason::KafkaAuthenticationFailed
        | Reason::FeatureNotAvailable
        | Reason::SubscriptionConflict
        | Reason::PreconditionFailed => Code::FailedPrecondition,
        Reason::PublishBufferFull
        | Reason::TooManyStreams
        | Reason::TooManySubscriptions
        | Reason::WindowExceeded
        | Reason::SpoolFull => Code::ResourceExhausted,
        Reason::KafkaUnavailable
        | Reason::NotEnoughReplicas
        | Reason::SpoolDraining
        | Reason::Draining => Code::Unavailable,
        Reason::DeliveryTimeout | Reason::Deadline => Code::DeadlineExceeded,
        Reason::IdReused => Code::AlreadyExists,
        Reason::ProducerReplaced | Reason::NotEnoughReplicasAfterAppend => Code::Aborted,
        Reason::OffsetOutOfRange => Code::OutOfRange,
        Reason::CorruptRecord | Reason::LogTruncated => Code::DataLoss,
        Reason::Internal => Code::Internal,
    }
}

/// A code's name as the conventions for RPC write it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether the conventions call a server's span failed that answers so.
pub fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A failure as a gRPC status.
pub fn status(failure: &Failure) -> Status {
    let code = code(failure.reason);
    let mut metadata = metadata(failure);
    if let Some(persistence) = failure.persistence {
        metadata.insert("persistence".to_owned(), persistence.as_str().to_owned());
    }
    let mut details = ErrorDetails::with_error_info(failure.reason.as_str(), DOMAIN, metadata);
    if let Some(after) = failure.retry_after {
        details.set_retry_info(Some(after));
    }
    if code == Code::InvalidArgument {
        for violation in failure.violations.iter().take(MAX_VIOLATIONS) {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
    }
    if code == Code::ResourceExhausted {
        details.add_quota_failure_violation("sidecar", &failure.message);
    }
    let mut trailers = MetadataMap::new();
    if let Some(millis) = pushback(failure, code) {
        trailers.insert(PUSHBACK, millis.into());
    }
    Status::with_error_details_and_metadata(code, failure.message.clone(), details, trailers)
}

/// When a client may try again by itself; -1 forbids it where a second try could double a record.
fn pushback(failure: &Failure, code: Code) -> Option<i64> {
    if failure.persistence == Some(Persistence::PossiblyPersisted)
        && matches!(code, Code::DeadlineExceeded | Code::Aborted)
    {
        return Some(-1);
    }
    failure.retry_after.map(|after| after.as_millis() as i64)
}

/// A failure as one record's error.
pub(super) fn record_error(failure: &Failure) -> proto::RecordError {
    proto::RecordError {
        code: code(failure.reason) as i32,
        reason: reason(failure.reason).into(),
        message: failure.message.clone(),
        metadata: metadata(failure),
        retry_after: failure.retry_after.map(duration),
        persistence: match failure.persistence {
            None => proto::Persistence::Unspecified,
            Some(Persistence::NotPersisted) => proto::Persistence::NotPersisted,
            Some(Persistence::PossiblyPersisted) => proto::Persistence::PossiblyPersisted,
        }
        .into(),
    }
}

fn metadata(failure: &Failure) -> HashMap<String, String> {
    failure
        .metadata
        .iter()
        .map(|(&key, value)| (key.to_owned(), value.clone()))
        .collect()
}

fn duration(duration: Duration) -> prost_types::Duration {
    // Every duration of ours is far below the bound of the message.
    duration.try_into().unwrap_or_default()
}

fn reason(reason: Reason) -> proto::ErrorReason {
    let name = format!("ERROR_REASON_{}", reason.as_str());
    proto::ErrorReason::from_str_name(&name).unwrap_or(proto::ErrorReason::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_contract_has_its_row() {
        use Code::*;
        let rows = [
            ("INVALID_REQUEST", InvalidArgument),
            ("INVALID_RECORD", InvalidArgument),
            ("RECORD_TOO_LARGE", InvalidArgument),
            ("SCHEMA_MISMATCH", InvalidArgument),
            ("TOPIC_NOT_FOUND", NotFound),
            ("PARTITION_NOT_FOUND", NotFound),
            ("SUBSCRIPTION_NOT_FOUND", NotFound),
            ("SCHEMA_UNKNOWN", NotFound),
            ("UNAUTHENTICATED", Unauthenticated),
            ("NOT_ALLOWED", PermissionDenied),
            ("KAFKA_NOT_AUTHORIZED", PermissionDenied),
            ("KAFKA_AUTHENTICATION_FAILED", FailedPrecondition),
            ("FEATURE_NOT_AVAILABLE", FailedPrecondition),
            ("SUBSCRIPTION_CONFLICT", FailedPrecondition),
            ("PRECONDITION_FAILED", FailedPrecondition),
            ("PUBLISH_BUFFER_FULL", ResourceExhausted),
            ("TOO_MANY_STREAMS", ResourceExhausted),
            ("TOO_MANY_SUBSCRIPTIONS", ResourceExhausted),
            ("WINDOW_EXCEEDED", ResourceExhausted),
            ("SPOOL_FULL", ResourceExhausted),
            ("KAFKA_UNAVAILABLE", Unavailable),
            ("NOT_ENOUGH_REPLICAS", Unavailable),
            ("SPOOL_DRAINING", Unavailable),
            ("DRAINING", Unavailable),
            ("DELIVERY_TIMEOUT", DeadlineExceeded),
            ("DEADLINE", DeadlineExceeded),
            ("ID_REUSED", AlreadyExists),
            ("PRODUCER_REPLACED", Aborted),
            ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", Aborted),
            ("OFFSET_OUT_OF_RANGE", OutOfRange),
            ("CORRUPT_RECORD", DataLoss),
            ("LOG_TRUNCATED", DataLoss),
            ("INTERNAL", Internal),
        ];
        assert_eq!(rows.len(), Reason::ALL.len());
        for (row, ours) in rows.iter().zip(Reason::ALL) {
            assert_eq!((ours.as_str(), code(ours)), *row);
            assert_ne!(
                reason(ours),
                proto::ErrorReason::Unspecified,
                "{ours:?} has no value in the proto"
            );
        }
    }

    #[test]
    fn a_status_carries_one_error_info_and_what_else_helps() {
        let failure = Failure::not_persisted(Reason::PublishBufferFull, "full")
            .with_retry_after(Duration::from_secs(2));
        let status = status(&failure);
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("PUBLISH_BUFFER_FULL", "outrigger")
        );
        assert_eq!(info.metadata["persistence"], "NOT_PERSISTED");
        assert_eq!(
            details.retry_info().and_then(|info| info.retry_delay),
            Some(Duration::from_secs(2))
        );
        assert!(details.quota_failure().is_some());
        assert_eq!(status.metadata().get(PUSHBACK).expect("pushback"), "2000");
    }

    #[test]
    fn what_may_be_written_forbids_a_blind_retry() {
        let late = status(&Failure::possibly_persisted(Reason::Deadline, "late"));
        assert_eq!(late.metadata().get(PUSHBACK).expect("pushback"), "-1");
        let never = status(&Failure::not_persisted(Reason::DeliveryTimeout, "late"));
        assert!(never.metadata().get(PUSHBACK).is_none());
    }

    #[test]
    fn bad_input_carries_field_paths() {
        let status = status(&Failure::invalid(
            Reason::InvalidRecord,
            "records[0].topic",
            "must not be empty",
        ));
        let details = status.get_error_details();
        let violations = &details
            .bad_request()
            .expect("a BadRequest")
            .field_violations;
        assert_eq!(violations[0].field, "records[0].topic");
    }
}
