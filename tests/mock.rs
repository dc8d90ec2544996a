//! What real brokers cannot be made to do: errors injected by librdkafka's in-process mock cluster, at the edge of the Kafka room.

#![expect(
    clippy::disallowed_methods,
    reason = "a test without a runtime waits as it likes"
)]

use std::{
    pin::pin,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use outrigger::{
    config::{self, Config, Sources},
    failure::{Persistence, Reason},
    kafka::{Cluster, Delivery, Keys, Producer, Registration, Trust},
    publish::{Claimant, Publisher},
    record::{Header, Record},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr as Error},
};

/// Whose share of the room it is.
const CALLER: Claimant = Claimant::Connection(0);

const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: Arc<Producer>,
    config: config::Publish,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        cluster
            .create_topic("t", 1, 1)
            .expect("the topic is created");
        let flag = |key: &str, value: String| (key.to_owned(), value);
        let mut flags = vec![flag("kafka.bootstrap_servers", cluster.bootstrap_servers())];
        let own = settings.iter();
        flags.extend(own.map(|(key, value)| flag(key, (*value).to_owned())));
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        let config: Config = config::load(&sources)
            .expect("a valid configuration")
            .config;
        let publish = config.publish.clone();
        let producer = Producer::new(Cluster::new(Arc::new(config)), Trust::NotTimestamps)
            .expect("the producer is made");
        let bench = Self {
            cluster,
            producer: Arc::new(producer),
            config: publish,
        };
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
        let record = Record {
            topic: "t".into(),
            value: Some("x".into()),
            ..Record::default()
        };
        ended(self.begin(&vec![record; count]))
    }

    /// Hands a batch over.
    fn begin(&self, records: &[Record]) -> Receiver<Vec<Delivery>> {
        let longest = Some(self.config.delivery_timeout);
        let (done, answer) = mpsc::sync_channel(1);
        let told = Box::new(move |deliveries, _| {
            // Who does not ask for the end does not wait for it.
            let _ = done.send(deliveries);
        });
        let registration = Registration {
            records: records.len(),
            keys: Keys::Unknown,
            failed: None,
            longest,
            done: told,
        };
        let batch = self.producer.register(Instant::now(), vec![registration])[0];
        for (index, record) in records.iter().enumerate() {
            let begun = Instant::now();
            while self.producer.send(batch, index, record).is_err() {
                assert!(begun.elapsed() < PATIENCE, "there is no room");
                thread::sleep(Duration::from_millis(10));
            }
        }
        answer
    }

    /// Does something while clients that have failed for good are replaced.
    fn supervised<T>(&self, what: impl FnOnce() -> T) -> T {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let producer = &self.producer;
        thread::scope(|scope| {
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = producer.supervise() => unreachable!("it never ends"),
                        _ = stopped => {}
                    }
                });
            });
            let done = what();
            drop(stop);
            done
        })
    }

    /// What is in the log from the second record on: the first was published by `new`.
    fn log(&self, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "g")
            .create()
            .expect("a consumer");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset("t", 0, Offset::Offset(1))
            .expect("an offset");
        consumer.assign(&from).expect("an assignment");
        let mut found = Vec::new();
        // One that is too many comes, if it does, soon after.
        while let Some(message) = consumer.poll(match found.len() < count {
            true => PATIENCE,
            false => Duration::from_millis(500),
        }) {
            found.push(message.expect("a record").detach());
        }
        found
    }
}

fn ended(batch: Receiver<Vec<Delivery>>) -> Vec<Delivery> {
    batch
        .recv_timeout(PATIENCE)
        .expect("every batch is completed")
}

#[track_caller]
fn failure(delivery: Delivery) -> (Reason, Option<Persistence>) {
    match delivery {
        Delivery::Failed(failure) => (failure.reason, failure.persistence),
        Delivery::Published { .. } => panic!("{delivery:?}"),
    }
}

/// A record with everything that one may have, or without.
fn numbered(batch: &str, number: usize) -> Record {
    let header = |value: Option<&'static str>| Header {
        name: "h".to_owned(),
        value: value.map(Bytes::from),
    };
    Record {
        topic: "t".to_owned(),
        key: Some(format!("{batch}{number}").into()),
        value: number.is_multiple_of(2).then(Bytes::new),
        headers: vec![header(None), header(Some("1"))],
        timestamp: Some(1_000 + number as i64),
        ..Record::default()
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

/// A bench with five batches on their way to an error that is fatal, as many as may be, and two that wait behind them.
fn failing() -> (Bench, Vec<Receiver<Vec<Delivery>>>) {
    let bench = Bench::new();
    let slow = bench
        .cluster
        .broker_round_trip_time(1, Duration::from_secs(1));
    slow.expect("the broker is slow");
    bench.inject(&[Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let batches = BATCHES.map(|name| {
        let records: Vec<Record> = (0..10).map(|number| numbered(name, number)).collect();
        let batch = bench.begin(&records);
        // A request for each.
        thread::sleep(Duration::from_millis(50));
        batch
    });
    (bench, batches.into())
}

const BATCHES: [&str; 7] = ["a", "b", "c", "d", "e", "waits", "waits too"];

#[test]
fn after_a_fatal_error_another_producer_sends_what_was_certainly_not_written_in_order() {
    let (bench, mut batches) = failing();
    let deliveries = bench.supervised(|| {
        // What comes meanwhile waits for its turn.
        thread::sleep(Duration::from_secs(1));
        batches.push(bench.begin(&[numbered("later", 0)]));
        batches.into_iter().map(ended).collect::<Vec<_>>()
    });
    let possibly = Some(Persistence::PossiblyPersisted);
    let names = BATCHES.into_iter().chain(["later"]);
    let (mut expected, mut unknown) = (Vec::new(), Vec::new());
    for (name, deliveries) in names.zip(deliveries) {
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let record = numbered(name, number);
            match delivery {
                Delivery::Published { .. } => expected.push(record),
                failed => {
                    assert_eq!(failure(failed), (Reason::ProducerReplaced, possibly));
                    unknown.push(record);
                }
            }
        }
    }
    let key = |record: &Record| record.key.as_deref().map(<[u8]>::to_vec);
    let [unknown, wanted] =
        [&unknown, &expected].map(|some| some.iter().map(key).collect::<Vec<_>>());
    // The batch that met the error is unknown; what was never sent is published.
    assert!(
        unknown.len() >= 10 && wanted.len() >= 21,
        "{unknown:?} {wanted:?}"
    );
    let mut log = bench.log(wanted.len());
    log.retain(|message| !unknown.contains(&message.key().map(<[u8]>::to_vec)));
    let keys: Vec<_> = log
        .iter()
        .map(|message| message.key().map(<[u8]>::to_vec))
        .collect();
    assert_eq!(keys, wanted);
    for (message, record) in log.iter().zip(expected) {
        assert_eq!(message.payload(), record.value.as_deref());
        assert_eq!(message.timestamp().to_millis(), record.timestamp);
        let headers = message.headers().expect("headers");
        assert_eq!(headers.count(), record.headers.len());
        for (found, header) in headers.iter().zip(&record.headers) {
            assert_eq!((found.key, found.value), ("h", header.value.as_deref()));
        }
    }
}

#[test]
fn what_waits_for_another_producer_is_given_up_with_the_rest() {
    let (bench, batches) = failing();
    let mut batches = batches.into_iter();
    batches
        .by_ref()
        .take(1)
        .for_each(|batch| drop(ended(batch)));
    // Nobody makes another one.
    thread::sleep(Duration::from_millis(500));
    bench.producer.purge();
    let not = Some(Persistence::NotPersisted);
    for delivery in batches.skip(4).flat_map(ended) {
        assert_eq!(failure(delivery), (Reason::DeliveryTimeout, not));
    }
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
fn a_batch_that_the_broker_finds_too_large_is_sent_again_in_smaller_ones_until_there_are_none() {
    let bench = Bench::new();
    let too_large = Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    bench.inject(&[too_large]);
    let deliveries = bench.supervised(|| bench.publish(3));
    let offsets: Vec<_> = deliveries
        .into_iter()
        .map(|delivery| match delivery {
            Delivery::Published { offset, .. } => offset,
            Delivery::Failed(failure) => panic!("{failure}"),
        })
        .collect();
    assert_eq!(offsets, [Some(1), Some(2), Some(3)]);
    // At each size in turn, down to the smallest.
    bench.inject(&[too_large; 6]);
    for delivery in bench.supervised(|| bench.publish(3)) {
        let Delivery::Failed(failure) = delivery else {
            panic!("{delivery:?}");
        };
        assert_eq!(failure.reason, Reason::RecordTooLarge);
        assert_eq!(failure.persistence, Some(Persistence::NotPersisted));
    }
}

/// Polls a future once, and says whether it waits for something.
async fn waits<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

fn with_id(id: &str, timestamp: i64) -> Record {
    Record {
        message_id: id.to_owned(),
        timestamp: Some(timestamp),
        ..numbered("ids", 1)
    }
}

#[tokio::test]
async fn who_joined_a_record_that_its_caller_gave_up_is_told_to_try_again() {
    let bench = Bench::new();
    let publisher = Publisher::new(Arc::clone(&bench.producer), bench.config.clone());
    // So many that others have a turn before the last one is handed over.
    let mut records: Vec<_> = (0..600).map(|number| numbered("many", number)).collect();
    records.push(with_id("a", 1));
    let mut joined = pin!(publisher.publish(CALLER, vec![with_id("a", 1)], None, Duration::ZERO));
    {
        let mut first = pin!(publisher.publish(CALLER, records, None, Duration::ZERO));
        assert!(waits(first.as_mut()).await);
        assert!(waits(joined.as_mut()).await, "for the other one's report");
    }
    let told = joined.await.expect("an answer for each").remove(0);
    let not = Some(Persistence::NotPersisted);
    assert_eq!(failure(told), (Reason::KafkaUnavailable, not));
    let again = publisher
        .publish(CALLER, vec![with_id("a", 1)], None, Duration::ZERO)
        .await;
    let again = again.expect("an answer for each").remove(0);
    assert!(
        matches!(
            again,
            Delivery::Published {
                duplicate: false,
                ..
            }
        ),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_duplicate_has_the_first_ones_time_also_where_the_broker_tells_none() {
    let bench = Bench::new();
    let publisher = Publisher::new(Arc::clone(&bench.producer), bench.config.clone());
    for (timestamp, is_duplicate) in [(1000, false), (2000, true)] {
        let told = publisher
            .publish(CALLER, vec![with_id("a", timestamp)], None, Duration::ZERO)
            .await;
        let told = told.expect("an answer for each").remove(0);
        let Delivery::Published {
            timestamp,
            duplicate,
            ..
        } = told
        else {
            panic!("{told:?}");
        };
        assert_eq!((timestamp, duplicate), (Some(1000), is_duplicate));
    }
}

/// What a record with an id is told.
async fn told(publisher: &Publisher) -> Delivery {
    let told = publisher
        .publish(CALLER, vec![with_id("a", 1)], None, Duration::ZERO)
        .await;
    told.expect("an answer for each").remove(0)
}

#[tokio::test]
async fn an_answer_that_is_not_known_is_repeated_and_nothing_is_sent_again() {
    let bench = Bench::new();
    let publisher = Publisher::new(Arc::clone(&bench.producer), bench.config.clone());
    bench.inject(&[Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let possibly = Some(Persistence::PossiblyPersisted);
    for _ in 0..2 {
        let told = failure(told(&publisher).await);
        assert_eq!(told, (Reason::ProducerReplaced, possibly));
    }
}

#[test]
fn a_batch_is_answered_in_time_and_keeps_its_room_until_kafka_answers() {
    let bench = Bench::with(&[("publish.delivery_timeout", "1s")]);
    let publisher = Publisher::new(Arc::clone(&bench.producer), bench.config.clone());
    let slow = bench
        .cluster
        .broker_round_trip_time(1, Duration::from_secs(4));
    slow.expect("the broker is slow");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begun = Instant::now();
    bench.supervised(|| {
        runtime.block_on(async {
            let possibly = Some(Persistence::PossiblyPersisted);
            let late = failure(told(&publisher).await);
            assert_eq!(late, (Reason::DeliveryTimeout, possibly));
            assert!(begun.elapsed() < Duration::from_secs(3), "in time");
            assert_eq!(publisher.in_flight().0.records, 1);
            let late = failure(told(&publisher).await);
            assert_eq!(late, (Reason::DeliveryTimeout, possibly), "it has joined");
            assert!(publisher.flush(Instant::now() + PATIENCE).await);
            assert!(begun.elapsed() >= Duration::from_secs(4));
            let published = told(&publisher).await;
            assert!(
                matches!(
                    published,
                    Delivery::Published {
                        offset: Some(1),
                        duplicate: true,
                        ..
                    }
                ),
                "{published:?}"
            );
        });
    });
}
