//! Topics that take smaller batches than others (`max.message.bytes`): a record that is too large fails alone.

use outrigger::grpc::proto::{self, ErrorReason, publish_result};

use crate::{
    client::{publish_request, record},
    kafka::{Kafka, fresh},
    neighbours::{only_the_guilty_fails, publish_among_others, under_load},
    secured::{LIMITED, PASSWORD, Secured, allow_to, settings},
    sidecar::Sidecar,
};

const LIMIT: usize = 20_000;
const SENT_AGAIN: &str = "outrigger_publish_sent_again_records_total";

fn too_large(topic: &str) -> proto::Record {
    record(topic, "x".repeat(LIMIT * 3 / 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_for_its_topic_fails_alone() {
    let kafka = Kafka::shared();
    let limit = LIMIT.to_string();
    let topic = kafka
        .topic_with("limited", 1, &[("max.message.bytes", &limit)])
        .await;
    // All are in one batch as far as the topic lets them.
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let refused = publish_among_others(&sidecar, too_large(&topic)).await;
    only_the_guilty_fails(kafka, &topic, &refused, "RECORD_TOO_LARGE");
    assert_eq!(sidecar.metric(SENT_AGAIN), 0.0, "the limit was known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_is_noticed_and_neighbours_are_sent_again() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lowered", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("publish.linger", "300ms")]);
    let before = publish_request(vec![record(&topic, "before")]);
    sidecar.publisher().await.publish(before).await.unwrap();
    kafka.configure_topic(&topic, &format!("max.message.bytes={LIMIT}"));
    let refused = publish_among_others(&sidecar, too_large(&topic)).await;
    only_the_guilty_fails(kafka, &topic, &refused, "RECORD_TOO_LARGE");
    assert!(sidecar.metric(SENT_AGAIN) > 0.0);
    // Now it is known.
    let again = sidecar.metric(SENT_AGAIN);
    let request = publish_request(vec![record(&topic, "after"), too_large(&topic)]);
    let answer = sidecar.publisher().await.publish(request).await.unwrap();
    let results = answer.into_inner().results;
    assert!(
        matches!(
            results[0].result,
            Some(publish_result::Result::Published(_))
        ),
        "{results:?}"
    );
    assert_eq!(sidecar.metric(SENT_AGAIN), again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_may_not_be_asked_for_is_found_out() {
    let secured = Secured::shared();
    let limit = LIMIT.to_string();
    let topic = fresh("unasked");
    secured
        .kafka
        .create(&topic, 1, &[("max.message.bytes", &limit)])
        .await;
    let operations = ["Write", "Describe"];
    allow_to(&secured.kafka, LIMITED, &operations, &["--topic", &topic]);
    let mut pairs = secured.password("PLAIN", LIMITED, PASSWORD);
    pairs.extend(settings(&[("publish.linger", "300ms")]));
    let sidecar = secured.sidecar("SASL", &pairs);
    let refused = publish_among_others(&sidecar, too_large(&topic)).await;
    only_the_guilty_fails(&secured.kafka, &topic, &refused, "RECORD_TOO_LARGE");
    assert!(sidecar.metric(SENT_AGAIN) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_neighbour_overtakes_and_every_answer_is_true() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lowered-under-load", 2).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let before = publish_request(vec![record(&topic, "0 before")]);
    sidecar.publisher().await.publish(before).await.unwrap();
    kafka.configure_topic(&topic, &format!("max.message.bytes={LIMIT}"));
    let large = |record: &mut proto::Record| {
        let value = record.value.take().unwrap();
        let padded = [&*value, &*"x".repeat(LIMIT * 3 / 2).into_bytes()].concat();
        record.value = Some(padded.into());
    };
    under_load(kafka, &sidecar, &topic, large, ErrorReason::RecordTooLarge).await;
}
