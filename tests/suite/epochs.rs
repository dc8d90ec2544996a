//! Records whose answers are lost, beside one for which librdkafka begins a new epoch or with a broker that is killed: they are in Kafka once.

use std::time::{Duration, Instant, SystemTime};

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

/// In that time a client notices that its connection is cut.
const NOTICES: Duration = Duration::from_millis(300);

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

fn await_written(kafka: &Kafka, topic: &str, value: &str) {
    let begun = Instant::now();
    while written(kafka, topic, value) == 0 {
        assert!(begun.elapsed() < PATIENCE, "it is not written in time");
        std::thread::sleep(Duration::from_millis(50));
    }
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
        tokio::task::block_in_place(|| await_written(&kafka, &topic, &value));
        let cut = || network.set(deaf, Way::Cut);
        if lost == Lost::Before {
            cut();
            tokio::time::sleep(NOTICES).await;
        }
        let without_key = proto::Record {
            key: None,
            ..at(&topic, other, "refused")
        };
        let refused = client.publish(publish_request(vec![without_key])).await;
        assert_eq!(reason(&refused.unwrap_err()), "INVALID_RECORD");
        cut();
        tokio::time::sleep(NOTICES).await;
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

/// Brokers that restart forget the producers of records that are stamped more than a day ago, by whom they are stamped or by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_written_once_though_its_broker_is_killed_before_it_answers() {
    let mut network = Network::of(1);
    let options = [
        "--listener=PROXIED:PLAINTEXT".to_owned(),
        format!("--advertise=PROXIED:{}", network.ports()),
    ];
    let start = move || Kafka::start_with(1, &options);
    let kafka = tokio::task::spawn_blocking(start).await.unwrap();
    network.lead_to(kafka.listener("PROXIED"));
    let own = kafka.topic("stamped", 1).await;
    let settings = [("message.timestamp.type", "LogAppendTime")];
    let brokers = kafka.topic_with("stamped-by-brokers", 1, &settings).await;
    let bootstrap = network.bootstrap();
    let start = move || Sidecar::start(&bootstrap, &[]);
    let sidecar = tokio::task::spawn_blocking(start).await.unwrap();
    let client = sidecar.publisher().await;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let cases = [(&own, now - 20 * 3600), (&brokers, 1)];
    let publish = |topic: &str, seconds, value| {
        let record = proto::Record {
            timestamp: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..at(topic, 0, value)
        };
        let (mut client, request) = (client.clone(), publish_request(vec![record]));
        async move { client.publish(request).await }
    };
    for (topic, seconds) in cases {
        publish(topic, seconds, "before").await.unwrap();
    }
    network.set(1, Way::Deaf);
    let unanswered =
        cases.map(|(topic, seconds)| tokio::spawn(publish(topic, seconds, "unanswered")));
    tokio::task::block_in_place(|| {
        for (topic, _) in cases {
            await_written(&kafka, topic, "unanswered");
        }
        kafka.tell("kill 1");
        network.set(1, Way::Cut);
        std::thread::sleep(NOTICES);
        network.set(1, Way::Open);
        kafka.tell("start 1");
    });
    for (answer, (topic, _)) in unanswered.into_iter().zip(cases) {
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        assert!(answer.unwrap().is_ok());
        let times = tokio::task::block_in_place(|| written(&kafka, topic, "unanswered"));
        assert_eq!(times, 1, "{topic}");
    }
}
