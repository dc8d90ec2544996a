//! The refusals of what this build does not do, and the journey of a record.

use super::*;
use crate::{
    consume::{Action, Confirm, Ordering, Retry, StreamOptions, Subscription},
    record::Usage,
};

fn init_with(
    change: impl FnOnce(&mut proto::Init),
) -> Result<(Subscription, StreamOptions), Failure> {
    let mut asked = proto::Init {
        group: "g".into(),
        topics: vec!["b".into(), "a".into(), "b".into()],
        ordering: proto::Ordering::Partition.into(),
        ..proto::Init::default()
    };
    change(&mut asked);
    init(&asked, Usage::default())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut proto::Init), feature: &str) {
    let failure = init_with(change).unwrap_err();
    assert_eq!(failure.reason, Reason::FeatureNotAvailable);
    assert!(failure.message.contains(feature), "{}", failure.message);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    refused(|init| init.ordering = 77, "77");
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn what_is_not_asked_for_has_its_default() {
    let (subscription, options) = init_with(|init| init.ordering = 0).unwrap();
    assert_eq!(subscription.ordering, Ordering::Key);
    assert_eq!(options.confirm, Confirm::Recorded);
    assert_eq!(options.lease, Duration::from_secs(30));
    let Retry {
        min_delay,
        max_delay,
        multiplier,
        max_attempts,
    } = subscription.retry;
    assert_eq!((min_delay, max_delay), (1000, 300_000));
    assert_eq!((multiplier, max_attempts), (2.0, 5));
}

#[test]
fn a_retry_policy_and_a_lease_are_taken_within_their_bounds() {
    let policy = proto::RetryPolicy {
        min_delay: seconds(600),
        max_attempts: 9,
        multiplier: 1.0,
        ..Default::default()
    };
    let (subscription, options) = init_with(|init| {
        init.retry = Some(policy);
        init.lease = seconds(600);
    })
    .unwrap();
    let retry = subscription.retry;
    assert_eq!(
        (retry.min_delay, retry.max_delay),
        (600_000, 600_000),
        "the longest is no shorter"
    );
    assert_eq!((retry.multiplier, retry.max_attempts), (1.0, 9));
    assert_eq!(options.lease, Duration::from_secs(600));
    let with = |retry: proto::RetryPolicy| init_with(|init| init.retry = Some(retry)).unwrap_err();
    for (failure, field) in [
        (
            init_with(|init| init.lease = seconds(4)).unwrap_err(),
            "init.lease",
        ),
        (
            init_with(|init| init.lease = seconds(601)).unwrap_err(),
            "init.lease",
        ),
        (
            init_with(|init| init.lease = seconds(-9)).unwrap_err(),
            "init.lease",
        ),
        (
            with(proto::RetryPolicy {
                min_delay: seconds(-1),
                ..policy
            }),
            "init.retry.min_delay",
        ),
        (
            with(proto::RetryPolicy {
                max_delay: seconds(1),
                ..policy
            }),
            "init.retry.max_delay",
        ),
        (
            with(proto::RetryPolicy {
                multiplier: 0.5,
                ..policy
            }),
            "init.retry.multiplier",
        ),
        (
            with(proto::RetryPolicy {
                multiplier: f64::NAN,
                ..policy
            }),
            "init.retry.multiplier",
        ),
    ] {
        assert_eq!(failure.violations[0].field, field);
    }
}

#[test]
fn dead_letters_go_to_a_topic_of_their_own() {
    let to = |topic: &str| {
        let policy = proto::DeadLetterPolicy {
            topic: topic.to_owned(),
        };
        init_with(|init| init.dead_letter = Some(policy))
    };
    let (subscription, _) = to("").unwrap();
    assert_eq!(subscription.dead_letter_topics(), ["a.g.dlq", "b.g.dlq"]);
    let (subscription, _) = to("dead").unwrap();
    assert_eq!(subscription.dead_letter_topics(), ["dead"]);
    for topic in ["a", "no name", &"x".repeat(250)] {
        let failure = to(topic).unwrap_err();
        assert_eq!(failure.violations[0].field, "init.dead_letter.topic");
    }
    assert!(init_with(|_| {}).unwrap().0.dead_letter_topics().is_empty());
}

#[test]
fn a_subscription_needs_a_group_and_topics() {
    for (change, field) in [
        (
            (|init| init.group.clear()) as fn(&mut proto::Init),
            "init.group",
        ),
        (|init| init.topics.clear(), "init.topics"),
        (|init| init.topics = vec!["a b".into()], "init.topics[0]"),
        (
            |init| init.topics = vec!["a".into(), "^(a".into()],
            "init.topics[1]",
        ),
        (
            |init| {
                init.topics = vec!["^a".into()];
                init.dead_letter = Some(proto::DeadLetterPolicy::default());
            },
            "init.dead_letter.topic",
        ),
        (
            |init| {
                init.topics = vec!["^a".into()];
                let topic = "a-dead".to_owned();
                init.dead_letter = Some(proto::DeadLetterPolicy { topic });
            },
            "init.dead_letter.topic",
        ),
    ] {
        let failure = init_with(change).unwrap_err();
        assert_eq!(failure.violations[0].field, field);
    }
}

#[test]
fn topics_are_a_set() {
    let (subscription, _) = init_with(|_| {}).unwrap();
    assert_eq!(subscription.topics, ["a", "b"]);
}

#[test]
fn settle_items_that_are_not_built_are_refused_by_name() {
    use proto::settle_item::Action as Asked;
    let item = |action| proto::SettleItem {
        token: Default::default(),
        action,
    };
    let nack = |delay| {
        Asked::Nack(proto::Nack {
            delay,
            reason: "why".into(),
        })
    };
    for (delay, expected) in [
        (None, None),
        (seconds(0), None),
        (seconds(1), Some(Duration::from_secs(1))),
    ] {
        let items = settle_items("settle.items", vec![item(Some(nack(delay)))], false).unwrap();
        let nacked = Action::Nack {
            delay: expected,
            reason: "why".into(),
        };
        assert_eq!(items[0].action, nacked);
    }
    for (action, reason) in [
        (Some(nack(seconds(-1))), Reason::InvalidRequest),
        (
            Some(Asked::DeadLetter(Default::default())),
            Reason::FeatureNotAvailable,
        ),
        (None, Reason::InvalidRequest),
    ] {
        assert_eq!(
            settle_items("settle.items", vec![item(action)], false)
                .unwrap_err()
                .reason,
            reason
        );
    }
    let items = settle_items(
        "settle.items",
        vec![item(Some(Asked::Ack(proto::Ack {})))],
        false,
    )
    .unwrap();
    assert!(items[0].token.is_none(), "an empty token is none");
}

#[test]
fn times_keep_their_milliseconds_and_nonsense_is_refused() {
    for at in [1, 999, 1000, 1_700_000_000_123, 253_402_300_799_999] {
        assert_eq!(millis(timestamp(at)), Some(at));
    }
    for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
        assert_eq!(millis(prost_types::Timestamp { seconds, nanos }), None);
    }
    let timestamp = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: -1,
    });
    let bad = proto::Record {
        timestamp,
        ..Default::default()
    };
    let invalid = records(vec![Default::default(), bad]).unwrap_err();
    assert_eq!(invalid[0].1.violations[0].field, "records[1].timestamp");
}

#[test]
fn a_message_id_is_carried_over() {
    let record = proto::Record {
        message_id: "x".into(),
        ..Default::default()
    };
    assert_eq!(records(vec![record]).unwrap()[0].message_id, "x");
}

#[test]
fn a_duplicate_is_told_in_a_call_and_in_a_stream() {
    let delivery = |duplicate| Delivery::Published {
        partition: 3,
        offset: Some(7),
        timestamp: None,
        duplicate,
    };
    let ack = batch_ack(1, &[delivery(false), delivery(true)], &mut 1);
    assert_eq!((ack.partitions, ack.offsets), (vec![3, 3], vec![7, 7]));
    let note = proto::RecordNote {
        index: 1,
        note: Some(proto::record_note::Note::Duplicate(true)),
    };
    assert_eq!(ack.notes, [note]);
    for told in [false, true] {
        let Some(proto::publish_result::Result::Published(published)) =
            publish_result(delivery(told)).result
        else {
            panic!("it is published");
        };
        assert_eq!(published.duplicate, told);
    }
}

#[test]
fn a_batch_ack_notes_only_what_is_not_plain_success() {
    let published = |offset| Delivery::Published {
        partition: 3,
        offset,
        timestamp: None,
        duplicate: false,
    };
    let failed = Delivery::failed(Failure::not_persisted(Reason::TopicNotFound, "no"));
    let ack = batch_ack(9, &[published(Some(7)), failed, published(None)], &mut 1);
    assert_eq!(
        (ack.sequence, ack.partitions, ack.offsets),
        (9, vec![3, -1, 3], vec![7, -1, -1])
    );
    assert_eq!(ack.notes.len(), 1);
    assert_eq!(ack.notes[0].index, 1);
}

#[test]
fn the_answer_to_many_records_that_fail_fits_a_clients_default_limit() {
    let failed = Delivery::failed(
        Failure::not_persisted(Reason::DeliveryTimeout, "x".repeat(200))
            .with_metadata("topic", "t".repeat(100))
            .with_retry_after(Duration::from_millis(1500)),
    );
    // As one batch, and as many.
    for (batches, records) in [(1, 50_000), (20_000, 1)] {
        let answers: Vec<Answer> = (1..=batches)
            .map(|sequence| Answer {
                sequence,
                deliveries: vec![failed.clone(); records],
            })
            .collect();
        let acks = acks(&answers);
        let notes = acks.acks.iter().flat_map(|ack| &ack.notes);
        assert_eq!(notes.count(), batches as usize * records);
        let length = prost::Message::encoded_len(&acks);
        assert!(length < 3 << 20, "{batches} batches: {length} bytes");
    }
}
