//! What real brokers cannot be made to do: errors injected by librdkafka's in-process mock cluster, at the edge of the Kafka room.

use std::{sync::mpsc, time::Duration};

use outrigger::{
    config::{self, Config, Sources},
    failure::{Persistence, Reason},
    kafka::{Cluster, Delivery, Producer, Trust},
    record::Record,
};
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr as Error},
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: Producer,
}

impl Bench {
    fn new() -> Self {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        cluster
            .create_topic("t", 1, 1)
            .expect("the topic is created");
        let flag = |key: &str, value: String| (key.to_owned(), value);
        let sources = Sources {
            flags: vec![flag("kafka.bootstrap_servers", cluster.bootstrap_servers())],
            ..Sources::default()
        };
        let config: Config = config::load(&sources)
            .expect("a valid configuration")
            .config;
        let producer = Producer::new(
            Cluster::new(std::sync::Arc::new(config)),
            Trust::NotTimestamps,
        )
        .expect("the producer is made");
        let bench = Self { cluster, producer };
        // Connected, and with a producer id, before anything is injected.
        assert!(matches!(
            bench.publish(1)[..],
            [Delivery::Published {
                offset: Some(0),
                ..
            }]
        ));
        bench
    }

    fn inject(&self, errors: &[Error]) {
        self.cluster.request_errors(RDKafkaApiKey::Produce, errors);
    }

    /// Publishes a batch and waits for its completion.
    fn publish(&self, count: usize) -> Vec<Delivery> {
        let (done, answer) = mpsc::sync_channel(1);
        let told = Box::new(move |deliveries| done.send(deliveries).expect("the test waits"));
        let batch = self.producer.register(count, None, told);
        let record = Record {
            topic: "t".into(),
            value: Some("x".into()),
            ..Record::default()
        };
        for index in 0..count {
            self.producer
                .send(batch, index, &record)
                .expect("there is room");
        }
        answer
            .recv_timeout(PATIENCE)
            .expect("every batch is completed")
    }
}

#[test]
fn offsets_that_librdkafka_makes_up_for_a_duplicate_batch_are_unknown() {
    let bench = Bench::new();
    bench.inject(&[Error::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER]);
    for delivery in bench.publish(10) {
        assert!(
            matches!(delivery, Delivery::Published { offset: None, .. }),
            "{delivery:?}"
        );
    }
    for delivery in bench.publish(2) {
        assert!(
            matches!(
                delivery,
                Delivery::Published {
                    offset: Some(_),
                    ..
                }
            ),
            "{delivery:?}"
        );
    }
}

#[test]
fn a_fatal_error_is_told_with_what_is_known_of_each_record_and_another_producer_takes_over() {
    let bench = Bench::new();
    bench.inject(&[Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let failure = |delivery: Delivery| match delivery {
        Delivery::Failed(failure) => (failure.reason, failure.persistence),
        Delivery::Published { .. } => panic!("{delivery:?}"),
    };
    let possibly = Some(Persistence::PossiblyPersisted);
    for delivery in bench.publish(10) {
        assert_eq!(failure(delivery), (Reason::ProducerReplaced, possibly));
    }
    let not = Some(Persistence::NotPersisted);
    for delivery in bench.publish(2) {
        assert_eq!(
            failure(delivery),
            (Reason::KafkaUnavailable, not),
            "refused at once"
        );
    }
    // Its successor takes over, in the same process.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let succeeded = async {
        tokio::select! {
            () = bench.producer.supervise() => unreachable!("it never ends"),
            () = async {
                while !matches!(bench.publish(1)[..], [Delivery::Published { .. }]) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } => {}
        }
    };
    let succeeded = runtime.block_on(async { tokio::time::timeout(PATIENCE, succeeded).await });
    assert!(succeeded.is_ok(), "no producer takes over");
}

#[test]
fn errors_that_pass_are_not_noticed() {
    let bench = Bench::new();
    bench.inject(&[
        Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        // Cuts the connection.
        Error::RD_KAFKA_RESP_ERR__TRANSPORT,
    ]);
    for delivery in bench.publish(5) {
        assert!(
            matches!(delivery, Delivery::Published { .. }),
            "{delivery:?}"
        );
    }
}

#[test]
fn a_batch_that_the_broker_finds_too_large_is_not_written_and_says_so() {
    let bench = Bench::new();
    bench.inject(&[Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    for delivery in bench.publish(3) {
        let Delivery::Failed(failure) = delivery else {
            panic!("{delivery:?}");
        };
        assert_eq!(failure.reason, Reason::RecordTooLarge);
        assert_eq!(failure.persistence, Some(Persistence::NotPersisted));
    }
}
