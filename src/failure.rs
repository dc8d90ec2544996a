//! What a refusal or a failure says: a reason, what is known of the record, and words for a human.
//!
//! Every room that can refuse a caller answers with a [`Failure`]; `grpc::status` turns it into a code, details and trailers.
//! Not here: gRPC codes. What always holds: a failure that says `NotPersisted` is of a record that is not in Kafka and never will be.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Why a call or a record failed: the reasons of the contract, one for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the contract's own names; the proto documents each"
)]
pub enum Reason {
    InvalidRequest,
    InvalidRecord,
    RecordTooLarge,
    SchemaMismatch,
    TopicNotFound,
    PartitionNotFound,
    SubscriptionNotFound,
    SchemaUnknown,
    Unauthenticated,
    NotAllowed,
    KafkaNotAuthorized,
    KafkaAuthenticationFailed,
    FeatureNotAvailable,
    SubscriptionConflict,
    PreconditionFailed,
    PublishBufferFull,
    TooManyStreams,
    TooManySubscriptions,
    WindowExceeded,
    SpoolFull,
    KafkaUnavailable,
    NotEnoughReplicas,
    SpoolDraining,
    Draining,
    DeliveryTimeout,
    Deadline,
    IdReused,
    ProducerReplaced,
    NotEnoughReplicasAfterAppend,
    OffsetOutOfRange,
    CorruptRecord,
    LogTruncated,
    Internal,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 33] = [
        Self::InvalidRequest,
        Self::InvalidRecord,
        Self::RecordTooLarge,
        Self::SchemaMismatch,
        Self::TopicNotFound,
        Self::PartitionNotFound,
        Self::SubscriptionNotFound,
        Self::SchemaUnknown,
        Self::Unauthenticated,
        Self::NotAllowed,
        Self::KafkaNotAuthorized,
        Self::KafkaAuthenticationFailed,
        Self::FeatureNotAvailable,
        Self::SubscriptionConflict,
        Self::PreconditionFailed,
        Self::PublishBufferFull,
        Self::TooManyStreams,
        Self::TooManySubscriptions,
        Self::WindowExceeded,
        Self::SpoolFull,
        Self::KafkaUnavailable,
        Self::NotEnoughReplicas,
        Self::SpoolDraining,
        Self::Draining,
        Self::DeliveryTimeout,
        Self::Deadline,
        Self::IdReused,
        Self::ProducerReplaced,
        Self::NotEnoughReplicasAfterAppend,
        Self::OffsetOutOfRange,
        Self::CorruptRecord,
        Self::LogTruncated,
        Self::Internal,
    ];

    /// The contract's name of it, without the enum's prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::InvalidRecord => "INVALID_RECORD",
            Self::RecordTooLarge => "RECORD_TOO_LARGE",
            Self::SchemaMismatch => "SCHEMA_MISMATCH",
            Self::TopicNotFound => "TOPIC_NOT_FOUND",
            Self::PartitionNotFound => "PARTITION_NOT_FOUND",
            Self::SubscriptionNotFound => "SUBSCRIPTION_NOT_FOUND",
            Self::SchemaUnknown => "SCHEMA_UNKNOWN",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::KafkaNotAuthorized => "KAFKA_NOT_AUTHORIZED",
            Self::KafkaAuthenticationFailed => "KAFKA_AUTHENTICATION_FAILED",
            Self::FeatureNotAvailable => "FEATURE_NOT_AVAILABLE",
            Self::SubscriptionConflict => "SUBSCRIPTION_CONFLICT",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::PublishBufferFull => "PUBLISH_BUFFER_FULL",
            Self::TooManyStreams => "TOO_MANY_STREAMS",
            Self::TooManySubscriptions => "TOO_MANY_SUBSCRIPTIONS",
            Self::WindowExceeded => "WINDOW_EXCEEDED",
            Self::SpoolFull => "SPOOL_FULL",
            Self::KafkaUnavailable => "KAFKA_UNAVAILABLE",
            Self::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS",
            Self::SpoolDraining => "SPOOL_DRAINING",
            Self::Draining => "DRAINING",
            Self::DeliveryTimeout => "DELIVERY_TIMEOUT",
            Self::Deadline => "DEADLINE",
            Self::IdReused => "ID_REUSED",
            Self::ProducerReplaced => "PRODUCER_REPLACED",
            Self::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            Self::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            Self::CorruptRecord => "CORRUPT_RECORD",
            Self::LogTruncated => "LOG_TRUNCATED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// What is known of a record that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It is not in Kafka and never will be.
    NotPersisted,
    /// It may be in Kafka, or may still get there.
    PossiblyPersisted,
}

impl Persistence {
    /// The value of the metadata key `persistence`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPersisted => "NOT_PERSISTED",
            Self::PossiblyPersisted => "POSSIBLY_PERSISTED",
        }
    }
}

/// A refusal or a failure, complete enough to answer a caller with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which row of the error table.
    pub reason: Reason,
    /// Absent where no record is concerned.
    pub persistence: Option<Persistence>,
    /// For a human: what is wrong and what to do.
    pub message: String,
    /// The field paths of bad input, each with what is wrong.
    pub violations: Vec<Violation>,
    /// When another try may help.
    pub retry_after: Option<Duration>,
    /// Bounded facts for a machine.
    pub metadata: BTreeMap<&'static str, String>,
}

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, e.g. `records[3].topic`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Failure {
    /// A failure that concerns no record.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            persistence: None,
            message: message.into(),
            violations: Vec::new(),
            retry_after: None,
            metadata: BTreeMap::new(),
        }
    }

    /// A failure of a record that is certainly not in Kafka.
    pub fn not_persisted(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(reason, message).with_persistence(Persistence::NotPersisted)
    }

    /// A failure of a record that may be in Kafka.
    pub fn possibly_persisted(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(reason, message).with_persistence(Persistence::PossiblyPersisted)
    }

    /// Bad input: `description` says what is wrong with `field`.
    pub fn invalid(
        reason: Reason,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let violation = Violation {
            field: field.into(),
            description: description.into(),
        };
        let mut failure = Self::not_persisted(reason, violation.to_string());
        failure.violations.push(violation);
        failure
    }

    /// What this build does not do, by name.
    pub fn not_available(feature: &str) -> Self {
        Self::not_persisted(
            Reason::FeatureNotAvailable,
            format!("{feature} is not available in this build"),
        )
        .with_metadata("feature", feature)
    }

    /// Says what is known of the record.
    pub fn with_persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = Some(persistence);
        self
    }

    /// Says when another try may help.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a fact for a machine.
    pub fn with_metadata(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value.into());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}
