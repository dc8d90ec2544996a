//! Small clients of the sidecar's API, and direct looks into Kafka.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger::grpc::proto::{
    self, PublishBatch, PublishOpen, PublishStreamRequest, PublishStreamResponse, SubscribeRequest,
    SubscribeResponse, publish_stream_request, publish_stream_response,
    publisher_service_client::PublisherServiceClient, settle_item, subscribe_request,
    subscribe_response, subscriber_service_client::SubscriberServiceClient,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{self, StdError},
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::sidecar::{PATIENCE, Sidecar};

pub fn record(topic: &str, value: impl Into<Bytes>) -> proto::Record {
    proto::Record {
        topic: topic.to_owned(),
        value: Some(value.into()),
        ..Default::default()
    }
}

pub fn publish_request(records: Vec<proto::Record>) -> proto::PublishRequest {
    proto::PublishRequest {
        records,
        ack_level: 0,
    }
}

/// A client that passes a deadline on without keeping it itself, as tonic's own would: so the answer is the sidecar's, however busy the machine.
pub async fn patient(
    sidecar: &Sidecar,
) -> PublisherServiceClient<impl GrpcService<Body, ResponseBody = Incoming> + use<>> {
    let tcp = tokio::net::TcpStream::connect(sidecar.grpc).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .unwrap();
    tokio::spawn(connection);
    let send = tower::service_fn(move |request| sender.clone().send_request(request));
    let origin = format!("http://{}", sidecar.grpc).parse().unwrap();
    PublisherServiceClient::with_origin(send, origin)
}

/// The reason of a refusal.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"))
        .reason
}

pub fn persistence(status: &Status) -> String {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    info.metadata
        .get("persistence")
        .cloned()
        .unwrap_or_default()
}

/// An open publish stream.
pub struct PublishStream {
    pub requests: mpsc::Sender<PublishStreamRequest>,
    pub responses: Streaming<PublishStreamResponse>,
    pub sequence: u64,
}

impl PublishStream {
    pub async fn open(sidecar: &Sidecar, mode: proto::FailureMode) -> Self {
        let mut stream = Self::raw(sidecar).await;
        stream
            .send(publish_stream_request::Message::Open(PublishOpen {
                failure_mode: mode.into(),
                client_id: String::new(),
            }))
            .await;
        let welcome = stream.next().await.expect("a welcome").expect("a welcome");
        assert!(
            matches!(welcome, publish_stream_response::Message::Welcome(_)),
            "{welcome:?}"
        );
        stream
    }

    /// One with a deadline (`grpc-timeout`), of a client that waits for longer.
    pub async fn within(sidecar: &Sidecar, timeout: &'static str) -> Self {
        let mut stream = Self::called(patient(sidecar).await, Some(timeout)).await;
        stream
            .send(publish_stream_request::Message::Open(PublishOpen {
                failure_mode: proto::FailureMode::Continue.into(),
                client_id: String::new(),
            }))
            .await;
        stream.next().await.expect("a welcome").expect("a welcome");
        stream
    }

    /// Without the first message.
    pub async fn raw(sidecar: &Sidecar) -> Self {
        Self::called(sidecar.publisher().await, None).await
    }

    async fn called<T>(mut client: PublisherServiceClient<T>, timeout: Option<&'static str>) -> Self
    where
        T: GrpcService<Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: codegen::Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as codegen::Body>::Error: Into<StdError> + Send,
    {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(timeout) = timeout {
            let timeout = MetadataValue::from_static(timeout);
            request.metadata_mut().insert("grpc-timeout", timeout);
        }
        let responses = client.publish_stream(request).await.unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
            sequence: 0,
        }
    }

    pub async fn send(&mut self, message: publish_stream_request::Message) {
        // A stream that has ended takes no more; its status tells.
        let _ = self
            .requests
            .send(PublishStreamRequest {
                message: Some(message),
            })
            .await;
    }

    pub async fn batch(&mut self, records: Vec<proto::Record>) -> u64 {
        self.sequence += 1;
        self.send(publish_stream_request::Message::Batch(PublishBatch {
            sequence: self.sequence,
            records,
            ack_level: 0,
        }))
        .await;
        self.sequence
    }

    /// The next message; `None` at a clean end.
    pub async fn next(&mut self) -> Option<Result<publish_stream_response::Message, Status>> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("an answer in time");
        message
            .transpose()
            .map(|message| message.map(|message| message.message.expect("a message")))
    }

    /// The next answers.
    pub async fn acks(&mut self) -> Result<Vec<proto::BatchAck>, Status> {
        loop {
            match self.next().await {
                Some(Ok(publish_stream_response::Message::Acks(acks))) => return Ok(acks.acks),
                Some(Ok(_)) => {}
                Some(Err(status)) => return Err(status),
                None => return Ok(Vec::new()),
            }
        }
    }
}

/// An open subscription.
pub struct Subscription {
    /// Its own connection, to break.
    socket: std::net::TcpStream,
    pub requests: Option<mpsc::Sender<SubscribeRequest>>,
    pub responses: Streaming<SubscribeResponse>,
    request_id: u64,
    /// The last settle that an answer has come to.
    pub answered: u64,
}

/// A channel over a connection that is made already, and over no other.
pub async fn channel_over(
    socket: &std::net::TcpStream,
) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.try_clone().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut once = Some(TokioIo::new(TcpStream::from_std(socket).unwrap()));
    let connector = tower::service_fn(move |_| {
        let taken = once
            .take()
            .ok_or_else(|| std::io::Error::other("the connection is broken"));
        async { taken }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await
}

pub fn init(group: &str, topics: &[&str], ordering: proto::Ordering) -> proto::Init {
    proto::Init {
        group: group.to_owned(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        ordering: ordering.into(),
        ..Default::default()
    }
}

pub fn window(records: u64) -> Option<proto::Window> {
    Some(proto::Window {
        max_records: Some(records),
        max_bytes: None,
    })
}

impl Subscription {
    pub async fn open(sidecar: &Sidecar, init: proto::Init) -> Self {
        let mut subscription = Self::raw(sidecar).await;
        subscription
            .send(subscribe_request::Message::Init(init))
            .await;
        subscription
    }

    pub async fn raw(sidecar: &Sidecar) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let socket = std::net::TcpStream::connect(sidecar.grpc).unwrap();
        let mut client = SubscriberServiceClient::new(channel_over(&socket).await.unwrap());
        let responses = client
            .subscribe(ReceiverStream::new(receiver))
            .await
            .unwrap();
        Self {
            socket,
            requests: Some(requests),
            responses: responses.into_inner(),
            request_id: 0,
            answered: 0,
        }
    }

    pub async fn send(&mut self, message: subscribe_request::Message) {
        let requests = self.requests.as_ref().expect("still open");
        let _ = requests
            .send(SubscribeRequest {
                message: Some(message),
            })
            .await;
    }

    pub async fn next_within(
        &mut self,
        within: Duration,
    ) -> Option<Result<subscribe_response::Message, Status>> {
        let message = tokio::time::timeout(within, self.responses.message())
            .await
            .ok()?;
        let message = message.transpose()?;
        let message = message.map(|message| message.message.expect("a message"));
        if let Ok(subscribe_response::Message::Settled(settled)) = &message {
            self.answered = settled.request_id;
        }
        Some(message)
    }

    pub async fn next(&mut self) -> Result<subscribe_response::Message, Status> {
        self.next_within(PATIENCE).await.expect("a message in time")
    }

    /// The next deliveries; other messages are passed over.
    pub async fn deliveries(&mut self) -> Result<Vec<proto::Delivery>, Status> {
        in_time(async {
            loop {
                if let subscribe_response::Message::Deliveries(deliveries) = self.next().await? {
                    return Ok(deliveries.deliveries);
                }
            }
        })
        .await
    }

    /// Deliveries that come within a while, if any.
    pub async fn deliveries_within(&mut self, within: Duration) -> Vec<proto::Delivery> {
        let deadline = Instant::now() + within;
        let mut all = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next_within(left).await {
                Some(Ok(subscribe_response::Message::Deliveries(deliveries))) => {
                    all.extend(deliveries.deliveries)
                }
                Some(Ok(_)) => {}
                Some(Err(status)) => panic!("{status:?}"),
                None => break,
            }
        }
        all
    }

    /// At least `count` deliveries.
    pub async fn take(&mut self, count: usize) -> Vec<proto::Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.deliveries().await.expect("deliveries"));
        }
        all
    }

    pub async fn settle(
        &mut self,
        deliveries: &[proto::Delivery],
        action: settle_item::Action,
    ) -> u64 {
        let items = deliveries
            .iter()
            .map(|delivery| proto::SettleItem {
                token: delivery.token.clone(),
                action: Some(action.clone()),
            })
            .collect();
        self.request_id += 1;
        let settle = proto::Settle::new(self.request_id, items);
        self.send(subscribe_request::Message::Settle(settle)).await;
        self.request_id
    }

    pub async fn ack(&mut self, deliveries: &[proto::Delivery]) -> u64 {
        self.settle(deliveries, settle_item::Action::Ack(proto::Ack {}))
            .await
    }

    /// Ends the stream in order; what it holds was not tried.
    pub async fn leave(mut self) {
        self.requests = None;
        while let Ok(Some(_)) = self.responses.message().await {}
    }

    /// Ends the stream as a client does that dies: without a word.
    pub fn die(self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    pub async fn extend(&mut self, deliveries: &[proto::Delivery], seconds: i64) -> u64 {
        self.request_id += 1;
        let extend = proto::Extend {
            request_id: self.request_id,
            tokens: deliveries
                .iter()
                .map(|delivery| delivery.token.clone())
                .collect(),
            lease: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        self.send(subscribe_request::Message::Extend(extend)).await;
        self.request_id
    }

    /// The next message that `wanted` takes; others are passed over.
    pub async fn find<T>(
        &mut self,
        wanted: impl Fn(subscribe_response::Message) -> Option<T>,
    ) -> T {
        in_time(async {
            loop {
                if let Some(found) = wanted(self.next().await.expect("a message")) {
                    return found;
                }
            }
        })
        .await
    }

    /// The answer to a settle; deliveries on the way are passed over.
    pub async fn settled(&mut self, request_id: u64) -> Vec<proto::ItemOutcome> {
        in_time(async {
            loop {
                if let subscribe_response::Message::Settled(settled) =
                    self.next().await.expect("a settled")
                    && settled.request_id == request_id
                {
                    return settled.outcomes;
                }
            }
        })
        .await
    }
}

/// A stream that is told something else again and again would keep a wait for a message going.
async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    let found = tokio::time::timeout(2 * PATIENCE, wait).await;
    found.expect("what is waited for comes in time")
}

/// By partition: offsets and values.
pub type Log = BTreeMap<i32, Vec<(i64, Option<Vec<u8>>)>>;

/// Where a partition begins and ends. A broker that was just made its leader may not know it yet, and one that was away may not know of a leader.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(watermarks) => return watermarks,
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownPartition,
            )) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{topic}[{partition}]: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every record of a topic, by partition, read directly.
pub fn read_topic(bootstrap: &str, topic: &str) -> Log {
    read_each(bootstrap, topic, |message| {
        (message.offset(), message.payload().map(<[u8]>::to_vec))
    })
}

/// What `of` says of every record of a topic, by partition, read directly.
pub fn read_each<T>(
    bootstrap: &str,
    topic: &str,
    of: impl Fn(&BorrowedMessage<'_>) -> T,
) -> BTreeMap<i32, Vec<T>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "direct-reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut left = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    let mut records = BTreeMap::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = watermarks(&consumer, topic, partition.id());
        records.insert(partition.id(), Vec::new());
        if high > low {
            left.insert(partition.id(), high);
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
    }
    consumer.assign(&list).unwrap();
    let mut read = Instant::now();
    while !left.is_empty() {
        assert!(read.elapsed() < PATIENCE, "the topic is not read in time");
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message.unwrap();
        read = Instant::now();
        let entry = of(&message);
        records.get_mut(&message.partition()).unwrap().push(entry);
        if left
            .get(&message.partition())
            .is_some_and(|high| message.offset() + 1 >= *high)
        {
            left.remove(&message.partition());
        }
    }
    records
}

/// Publishes values directly, round robin over partitions.
pub fn fill_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    values: impl Iterator<Item = String>,
) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for (index, value) in values.enumerate() {
        let mut record = BaseRecord::<(), str>::to(topic)
            .payload(&value)
            .partition(index as i32 % partitions);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(10));
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).unwrap();
}

/// The committed offset of each partition of a topic; -1: none.
pub fn committed(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    // A broker that has just become the group's coordinator may not know it yet.
    let begun = Instant::now();
    let committed = loop {
        match consumer.committed_offsets(list.clone(), PATIENCE) {
            Ok(committed) => break committed,
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::NotCoordinator))
                if begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{group}: {error}"),
        }
    };
    committed
        .elements()
        .iter()
        .map(|element| match element.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        })
        .collect()
}

/// Commits an offset with metadata, as a program that is not ours.
pub fn commit_as_another(bootstrap: &str, group: &str, topic: &str, offset: i64, metadata: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, 0);
    element.set_offset(Offset::Offset(offset)).unwrap();
    element.set_metadata(metadata);
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

pub fn text(delivery: &proto::Delivery) -> String {
    let record = delivery.record.as_ref().expect("a record");
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).expect("text")
}
