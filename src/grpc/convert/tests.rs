//! The refusals of what this build does not do, and the journey of a record.

use super::*;

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
    use proto::start_position::Position;
    refused(
        |init| init.ordering = proto::Ordering::Unspecified.into(),
        "ORDERING_KEY",
    );
    refused(
        |init| init.ordering = proto::Ordering::Key.into(),
        "ORDERING_KEY",
    );
    refused(|init| init.ordering = 77, "77");
    refused(|init| init.lease = Some(Default::default()), "Init.lease");
    refused(|init| init.retry = Some(Default::default()), "Init.retry");
    refused(
        |init| init.dead_letter = Some(Default::default()),
        "Init.dead_letter",
    );
    refused(
        |init| init.topics = vec!["^a.*".into()],
        "regular expression",
    );
    let time = proto::StartPosition {
        position: Some(Position::Time(Default::default())),
    };
    refused(|init| init.start = Some(time), "StartPosition.time");
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
    let delayed = proto::Nack {
        delay: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        reason: String::new(),
    };
    for (action, reason) in [
        (Some(Asked::Nack(delayed)), Reason::FeatureNotAvailable),
        (
            Some(Asked::DeadLetter(Default::default())),
            Reason::FeatureNotAvailable,
        ),
        (None, Reason::InvalidRequest),
    ] {
        assert_eq!(settle_items(vec![item(action)]).unwrap_err().reason, reason);
    }
    let items = settle_items(vec![item(Some(Asked::Ack(proto::Ack {})))]).unwrap();
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
fn a_message_id_is_refused_and_never_ignored() {
    let record = proto::Record {
        message_id: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        records(vec![record]).unwrap_err()[0].1.reason,
        Reason::FeatureNotAvailable
    );
}

#[test]
fn a_batch_ack_notes_only_what_is_not_plain_success() {
    let published = |offset| Delivery::Published {
        partition: 3,
        offset,
        timestamp: None,
    };
    let failed = Delivery::failed(Failure::not_persisted(Reason::TopicNotFound, "no"));
    let ack = batch_ack(9, &[published(Some(7)), failed, published(None)]);
    assert_eq!(
        (ack.sequence, ack.partitions, ack.offsets),
        (9, vec![3, -1, 3], vec![7, -1, -1])
    );
    assert_eq!(ack.notes.len(), 1);
    assert_eq!(ack.notes[0].index, 1);
}

#[test]
fn the_answer_to_a_large_batch_that_fails_fits_a_clients_default_limit() {
    let failed = Delivery::failed(
        Failure::not_persisted(Reason::DeliveryTimeout, "x".repeat(200))
            .with_metadata("topic", "t".repeat(100)),
    );
    let ack = batch_ack(1, &vec![failed; 50_000]);
    assert_eq!(ack.notes.len(), 50_000);
    assert!(prost::Message::encoded_len(&ack) < 3 << 20);
}
