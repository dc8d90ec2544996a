//! Records whose answers are lost, beside one for which librdkafka begins a new epoch: they are in Kafka once.

use std::time::{Duration, Instant};

use outrigger::grpc::proto;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::{
    client::{persistence, publish_request, read_topic, reason, record},
    kafka::Kafka,
    network::{Network, Way},
    sidecar::{PATIENCE, Sidecar},
};

const BROKERS: i32 = 3;

/// Who leads each partition.
fn leaders(kafka: &Kafka, topic: &str) -> Vec<u64> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut leaders: Vec<_> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| (partition.id(), partition.leader() as u64))
        .collect();
    leaders.sort_unstable();
    leaders.into_iter().map(|(_, leader)| leader).collect()
}

fn at(topic: &str, partition: i32, value: &str) -> proto::Record {
    proto::Record {
        partition: Some(partition),
        key: Some("key".into()),
        ..record(topic, value.to_owned())
    }
}

fn written(kafka: &Kafka, topic: &str, value: &str) -> usize {
    let log = read_topic(kafka.bootstrap(), topic);
    let values = log.into_values().flatten().map(|(_, found)| found);
    values
        .filter(|found| found.as_deref() == Some(value.as_bytes()))
        .count()
}

/// When an answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Before the other record is refused.
    Before,
    /// While librdkafka waits for what is under way, to begin the epoch.
    After,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_does_not_double_those_whose_answers_are_lost() {
    let mut network = Network::of(BROKERS as usize);
    let options = [
        "--listener=PROXIED:PLAINTEXT".to_owned(),
        format!("--advertise=PROXIED:{}", network.ports()),
    ];
    let start = move || Kafka::start_with(BROKERS, &options);
    let kafka = tokio::task::spawn_blocking(start).await.unwrap();
    network.lead_to(kafka.listener("PROXIED"));
    let settings = [("cleanup.policy", "compact")];
    let topic = kafka.topic_with("compacted", BROKERS, &settings).await;
    let leaders = tokio::task::block_in_place(|| leaders(&kafka, &topic));
    let deaf = leaders[0];
    let other = leaders.iter().position(|leader| *leader != deaf).unwrap() as i32;
    let bootstrap = network.bootstrap();
    let start = move || Sidecar::start(&bootstrap, &[]);
    let sidecar = tokio::task::spawn_blocking(start).await.unwrap();
    let mut client = sidecar.publisher().await;

    for lost in [Lost::Before, Lost::After] {
        for partition in [0, other] {
            let request = publish_request(vec![at(&topic, partition, &format!("{lost:?}"))]);
            client.publish(request).await.unwrap();
        }
        network.set(deaf, Way::Deaf);
        let value = format!("{lost:?} unanswered");
        let request = publish_request(vec![at(&topic, 0, &value)]);
        let mut waiting = client.clone();
        let unanswered = tokio::spawn(async move { waiting.publish(request).await });
        tokio::task::block_in_place(|| {
            let begun = Instant::now();
            while written(&kafka, &topic, &value) == 0 {
                assert!(begun.elapsed() < PATIENCE, "it is not written in time");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let cut = || network.set(deaf, Way::Cut);
        if lost == Lost::Before {
            cut();
            // The client notices.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let without_key = proto::Record {
            key: None,
            ..at(&topic, other, "refused")
        };
        let refused = client.publish(publish_request(vec![without_key])).await;
        assert_eq!(reason(&refused.unwrap_err()), "INVALID_RECORD");
        cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
        network.set(deaf, Way::Open);

        let answer = tokio::time::timeout(PATIENCE, unanswered).await.unwrap();
        for partition in [0, other] {
            let request = publish_request(vec![at(&topic, partition, &format!("{lost:?}"))]);
            client.publish(request).await.unwrap();
        }
        tokio::task::block_in_place(|| {
            let expected = [
                (value.as_str(), 1),
                ("refused", 0),
                (&format!("{lost:?}"), 4),
            ];
            for (value, times) in expected {
                assert_eq!(written(&kafka, &topic, value), times, "{value}: {answer:?}");
            }
        });
        let status = answer.unwrap().unwrap_err();
        assert_eq!(reason(&status), "PRODUCER_REPLACED", "{lost:?}: {status:?}");
        assert_eq!(persistence(&status), "POSSIBLY_PERSISTED");
    }
}
