//! `publish.topics`: how policies are written, which one is a topic's, and what is no policy.

use super::{super::*, *};

const ALL: &str = "{topics: ['audit.*', bills], allow: false, max_record_bytes: 64KiB, compression: zstd, compression_level: 3, \
                   delivery_timeout: 30s, request_timeout: 5s, partitioner: consistent_random}";

#[test]
fn policies_are_written_in_the_file_or_on_one_line() {
    let file = format!("publish:\n  topics:\n    - {ALL}\n    - {{topics: ['*'], allow: true}}\n");
    let line = format!("[{ALL}, {{topics: ['*']}}]");
    let environment = [BROKERS, ("OUTRIGGER_PUBLISH__TOPICS", line.as_str())];
    for loaded in [
        from_file(&file),
        load_layers(None, &environment, &[]).0.unwrap(),
        load_layers(None, &[BROKERS], &[("publish.topics", &line)])
            .0
            .unwrap(),
    ] {
        let policies = &loaded.config.publish.topics;
        let expected = TopicPolicy {
            topics: vec!["audit.*".to_owned(), "bills".to_owned()],
            allow: false,
            max_record_bytes: Some(65_536),
            compression: Some(Compression::Zstd),
            compression_level: Some(3),
            delivery_timeout: Some(Duration::from_secs(30)),
            request_timeout: Some(Duration::from_secs(5)),
            partitioner: Some("consistent_random"),
        };
        for topic in ["audit.", "audit.log", "bills"] {
            assert_eq!(policies.of(topic), Some(&expected), "{topic}");
        }
        for topic in ["audit", "bills.", "other"] {
            assert!(policies.of(topic).unwrap().allow, "{topic}");
        }
        let again = from_file(&loaded.show());
        assert_eq!(&again.config.publish.topics, policies);
    }
    assert_eq!(from_file("").config.publish.topics.of("t"), None);
}

#[test]
fn what_is_no_policy_is_told_with_its_number() {
    for (policies, said) in [
        ("[{compression: zstd}]", "policy 1: needs topics"),
        ("[{topics: []}]", "topics is not a list of names"),
        (
            "[{topics: [a]}, zstd]",
            "policy 2: a text is not a map of topics, allow",
        ),
        (
            "[{topics: [a], codec: zstd}]",
            "codec is no field; there are topics, allow",
        ),
        (
            "[{topics: [a], compression: brotli}]",
            "compression: \"brotli\" is not one of none",
        ),
        (
            "[{topics: [a], partitioner: sticky}]",
            "partitioner: \"sticky\" is not one of",
        ),
        (
            "[{topics: [a], delivery_timeout: 5}]",
            "delivery_timeout: 5 has no unit",
        ),
        (
            "[{topics: [a], linger: 5ms}]",
            "linger is the same for all topics: set publish.linger",
        ),
        (
            "[{topics: [a], acks: 1}]",
            "acks is the same for all topics: it is always all",
        ),
        (
            "[{topics: [a], max_record_bytes: 2MiB}]",
            "policy 1: max_record_bytes must be at most publish.max_record_bytes, which is 1000000",
        ),
        ("audit", "is not a list of policies, such as"),
    ] {
        let problems = problems_of_flags(&[("publish.topics", policies)]);
        assert_eq!(problems.len(), 1, "{policies}: {problems:?}");
        assert!(problems[0].contains(said), "{policies}: {problems:?}");
    }
    let timeout = "[{topics: [a], delivery_timeout: 2s}]";
    let problems = problems_of_flags(&[("publish.topics", timeout), ("publish.linger", "3s")]);
    assert!(
        problems[0].contains("longer than publish.linger, which is 3s"),
        "{problems:?}"
    );
}
