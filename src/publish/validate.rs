//! What a record must be before anything of its request is sent.
//!
//! Pure. Field paths are relative to the request (`records[3].topic`).

use crate::{
    config::{TopicPolicies, TopicPolicy},
    failure::{Failure, Reason},
    record::{Record, Usage, topic_problem},
};

/// The longest message id, in bytes.
const MAX_ID_BYTES: usize = 256;

/// What the configuration allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) max_record_bytes: usize,
    pub(super) topics: &'a TopicPolicies,
    /// Whether message ids are kept.
    pub(super) takes_ids: bool,
}

/// The records of a batch that are wrong, by index.
pub type Invalid = Vec<(usize, Failure)>;

/// Checks a unary request; all that is wrong is told at once, under the first reason.
pub(super) fn request(
    records: &[Record],
    bound: Usage,
    rules: Rules<'_>,
) -> Result<Usage, Failure> {
    let usage = size(records, bound)?;
    let invalid = invalid(records, rules);
    match merge(invalid) {
        Some(failure) => Err(failure),
        None => Ok(usage),
    }
}

/// Folds what is wrong with several records into one failure.
pub fn merge(invalid: Invalid) -> Option<Failure> {
    let mut failures = invalid.into_iter().map(|(_, failure)| failure);
    let mut first = failures.next()?;
    let more: Vec<_> = failures.flat_map(|failure| failure.violations).collect();
    if !more.is_empty() {
        first.message = format!("{} (and {} more)", first.message, more.len());
        first.violations.extend(more);
    }
    Some(first)
}

/// What a batch is charged; refused when it is empty or could never be admitted.
pub(super) fn size(records: &[Record], bound: Usage) -> Result<Usage, Failure> {
    if records.is_empty() {
        return Err(Failure::invalid(
            Reason::InvalidRequest,
            "records",
            "must hold at least one record",
        ));
    }
    let usage = Usage {
        records: records.len() as u64,
        bytes: records
            .iter()
            .map(|record| record.charged_bytes() as u64)
            .sum(),
    };
    if !Usage::default().fits(usage, bound) {
        return Err(Failure::invalid(
            Reason::InvalidRequest,
            "records",
            format!(
                "{} records of {} bytes (overhead included) never fit the {} records and {} bytes that may be in flight; send fewer at once",
                usage.records, usage.bytes, bound.records, bound.bytes
            ),
        ));
    }
    Ok(usage)
}

/// The records that may not be sent, each with the reason.
pub(super) fn invalid(records: &[Record], rules: Rules<'_>) -> Invalid {
    let mut invalid = Vec::new();
    let mut index = 0;
    for run in records.chunk_by(|one, next| one.topic == next.topic) {
        let topic = &run[0].topic;
        let (misnamed, policy) = (topic_problem(topic), rules.topics.of(topic));
        for record in run {
            let problem = problem(index, record, rules, misnamed, policy);
            invalid.extend(problem.map(|failure| (index, failure)));
            index += 1;
        }
    }
    invalid
}

fn problem(
    index: usize,
    record: &Record,
    rules: Rules<'_>,
    misnamed: Option<&str>,
    policy: Option<&TopicPolicy>,
) -> Option<Failure> {
    let wrong = |reason, field: &str, text: String| {
        Some(Failure::invalid(
            reason,
            format!("records[{index}]{field}"),
            text,
        ))
    };
    if let Some(problem) = misnamed {
        return wrong(Reason::InvalidRecord, ".topic", problem.to_owned());
    }
    if record.partition.is_some_and(|partition| partition < 0) {
        return wrong(
            Reason::InvalidRecord,
            ".partition",
            "must not be negative".to_owned(),
        );
    }
    if let Some(header) = record
        .headers
        .iter()
        .position(|header| header.name.is_empty())
    {
        let field = format!(".headers[{header}].name");
        return wrong(
            Reason::InvalidRecord,
            &field,
            "must not be empty".to_owned(),
        );
    }
    if record.timestamp.is_some_and(|timestamp| timestamp <= 0) {
        return wrong(
            Reason::InvalidRecord,
            ".timestamp",
            "must be after 1970-01-01T00:00:00Z".to_owned(),
        );
    }
    if !record.message_id.is_empty() && !rules.takes_ids {
        const FEATURE: &str = "Record.message_id";
        let text = "is not available: publish.dedup_window is 0s";
        return wrong(Reason::FeatureNotAvailable, ".message_id", text.to_owned())
            .map(|failure| failure.with_metadata("feature", FEATURE));
    }
    if record.message_id.len() > MAX_ID_BYTES {
        let text = format!("must not be longer than {MAX_ID_BYTES} bytes");
        return wrong(Reason::InvalidRecord, ".message_id", text);
    }
    if policy.is_some_and(|policy| !policy.allow) {
        let text = format!(
            "topic {:?} is not published to through this sidecar (publish.topics)",
            record.topic
        );
        return wrong(Reason::NotAllowed, ".topic", text);
    }
    let (limit, key) = match policy.and_then(|policy| policy.max_record_bytes) {
        Some(limit) => (limit, "publish.topics"),
        None => (rules.max_record_bytes, "publish.max_record_bytes"),
    };
    let bytes = record.payload_bytes();
    if bytes > limit {
        let text =
            format!("key, value and headers are {bytes} bytes, the limit is {limit} ({key})");
        return wrong(Reason::RecordTooLarge, "", text);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use bytes::Bytes;

    use super::*;
    use crate::record::Header;

    const BOUND: Usage = Usage {
        records: 10,
        bytes: 10_000,
    };

    static NO_POLICIES: LazyLock<TopicPolicies> = LazyLock::new(TopicPolicies::default);

    fn rules() -> Rules<'static> {
        Rules {
            max_record_bytes: 100,
            topics: &NO_POLICIES,
            takes_ids: true,
        }
    }

    fn good() -> Record {
        Record {
            topic: "t".into(),
            ..Record::default()
        }
    }

    fn check(record: Record, reason: Reason, field: &str) {
        let failure = request(&[good(), record], BOUND, rules()).unwrap_err();
        assert_eq!(
            (failure.reason, failure.violations[0].field.as_str()),
            (reason, field)
        );
    }

    #[test]
    fn each_mistake_is_told_with_its_path() {
        check(
            Record {
                topic: String::new(),
                ..good()
            },
            Reason::InvalidRecord,
            "records[1].topic",
        );
        check(
            Record {
                partition: Some(-1),
                ..good()
            },
            Reason::InvalidRecord,
            "records[1].partition",
        );
        check(
            Record {
                headers: vec![Header::default()],
                ..good()
            },
            Reason::InvalidRecord,
            "records[1].headers[0].name",
        );
        check(
            Record {
                timestamp: Some(0),
                ..good()
            },
            Reason::InvalidRecord,
            "records[1].timestamp",
        );
        let value = Some(Bytes::from(vec![0; 101]));
        check(
            Record { value, ..good() },
            Reason::RecordTooLarge,
            "records[1]",
        );
    }

    #[test]
    fn a_message_id_has_a_length_and_is_refused_by_name_where_none_is_kept() {
        let with_id = |length| Record {
            message_id: "x".repeat(length),
            ..good()
        };
        assert!(request(&[with_id(MAX_ID_BYTES)], BOUND, rules()).is_ok());
        check(
            with_id(MAX_ID_BYTES + 1),
            Reason::InvalidRecord,
            "records[1].message_id",
        );
        let off = Rules {
            takes_ids: false,
            ..rules()
        };
        assert!(request(&[good()], BOUND, off).is_ok());
        let failure = request(&[with_id(1)], BOUND, off).unwrap_err();
        assert_eq!(failure.reason, Reason::FeatureNotAvailable);
        assert!(failure.message.contains("publish.dedup_window"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let bad = Record {
            topic: "a b".into(),
            ..good()
        };
        let failure = request(&[bad.clone(), good(), bad], BOUND, rules()).unwrap_err();
        let fields: Vec<_> = failure
            .violations
            .iter()
            .map(|v| v.field.as_str())
            .collect();
        assert_eq!(fields, ["records[0].topic", "records[2].topic"]);
    }

    #[test]
    fn an_empty_request_and_one_that_never_fits_are_refused() {
        assert_eq!(
            request(&[], BOUND, rules()).unwrap_err().reason,
            Reason::InvalidRequest
        );
        assert_eq!(
            request(&vec![good(); 11], BOUND, rules())
                .unwrap_err()
                .reason,
            Reason::InvalidRequest
        );
        assert_eq!(
            request(&vec![good(); 10], BOUND, rules()).map(|usage| usage.records),
            Ok(10)
        );
    }
}
