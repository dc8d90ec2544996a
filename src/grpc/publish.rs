//! `PublisherService`: unary requests and streams. The work is `publish`'s; here is the wire.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::{
    answers::Streams,
    convert, identity,
    intake::Reading,
    proto::{
        self, publish_stream_request, publish_stream_response,
        publisher_service_server::PublisherService,
    },
    refuse_when_stopping,
    status::{code, code_name, is_fault, status},
};
use crate::{
    access::{Access, Caller},
    failure::{Failure, Reason},
    kafka::Delivery,
    lifecycle::Lifecycle,
    publish::{
        Claimant, Invalid, Publisher, merge,
        stream::{Answer, Batch, Options, Outgoing, Refused, until},
    },
    record::Record,
    traces::{self, Call, Parent, Sends},
};

/// Messages that may wait for the caller, beside what its window has.
const OUTGOING: usize = 4;

/// The full name of the unary call, as the conventions for RPC have it.
const PUBLISH: &str = "outrigger.v1.PublisherService/Publish";

/// See the module.
#[derive(Clone)]
pub(super) struct Service {
    publisher: Publisher,
    access: Access,
    lifecycle: Lifecycle,
    streams: Streams,
    max_message_bytes: usize,
}

impl Service {
    pub(super) fn new(
        publisher: Publisher,
        access: Access,
        lifecycle: Lifecycle,
        streams: Streams,
        max_message_bytes: usize,
    ) -> Self {
        Self {
            publisher,
            access,
            lifecycle,
            streams,
            max_message_bytes,
        }
    }

    async fn unary(
        &self,
        request: proto::PublishRequest,
        reading: &Reading,
        caller: &Caller,
        parent: &Parent,
    ) -> Result<Vec<Delivery>, Failure> {
        refuse_when_stopping(&self.lifecycle)?;
        convert::ack_level(request.ack_level)?;
        let mut records = convert::records(request.records).map_err(|invalid| {
            merge(invalid).unwrap_or_else(|| Failure::new(Reason::Internal, "internal error"))
        })?;
        if let Some((_, failure)) = forbidden(&self.access, caller, &records).into_iter().next() {
            return Err(failure);
        }
        let room = self.publisher.max_record_bytes();
        let sends = Sends::begin(&mut records, parent, room);
        let mut deliveries = match self
            .publisher
            .publish(
                claimant(caller),
                records,
                reading.answer_by(),
                reading.waited(),
            )
            .await
        {
            Ok(deliveries) => deliveries,
            Err(failure) => {
                sends.refuse(failure.reason);
                return Err(failure);
            }
        };
        sends.end(&deliveries);
        // A single record that fails answers as the call itself, so that stock tools see it.
        if let [Delivery::Failed(_)] = deliveries[..]
            && let Some(Delivery::Failed(failure)) = deliveries.pop()
        {
            return Err(Arc::unwrap_or_clone(failure));
        }
        Ok(deliveries)
    }
}

#[tonic::async_trait]
impl PublisherService for Service {
    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let caller = identity::of(&request)?;
        let reading = Reading::of(request.extensions());
        let (metadata, _, request) = request.into_parts();
        let request = reading
            .message(request)
            .map_err(|failure| status(&failure))?;
        let headers = request.records.first().map(|record| &*record.headers);
        // A caller that speaks of its trace in the record alone is in that trace all the same.
        let own = headers
            .unwrap_or_default()
            .iter()
            .find(|header| traces::is_context(&header.name));
        let own = own.and_then(|header| header.value.as_deref());
        let call = Call::begin(PUBLISH, traces::caller(metadata.as_ref(), own));
        let span = traces::span_of(call.context());
        let answering = async {
            let answered = self.unary(request, &reading, &caller, call.parent()).await;
            if let Err(failure) = &answered {
                tracing::debug!(reason = failure.reason.as_str(), "a call failed: {failure}");
            }
            answered
        };
        let answered = answering.instrument(span).await;
        let code = answered
            .as_ref()
            .err()
            .map_or(Code::Ok, |failure| code(failure.reason));
        call.end(code_name(code), is_fault(code));
        match answered {
            Ok(deliveries) => Ok(Response::new(proto::PublishResponse {
                results: deliveries
                    .into_iter()
                    .map(convert::publish_result)
                    .collect(),
            })),
            Err(failure) => Err(status(&failure)),
        }
    }

    type PublishStreamStream =
        Pin<Box<dyn Stream<Item = Result<proto::PublishStreamResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<proto::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        refuse_when_stopping(&self.lifecycle).map_err(|failure| status(&failure))?;
        let caller = identity::of(&request)?;
        let service = self.clone();
        let context = traces::caller(request.metadata().as_ref(), None);
        let sends = Arc::new(Spans::default());
        let reading = Reading::of(request.extensions());
        let answer_by = reading.answer_by();
        let incoming = Incoming {
            reading,
            messages: request.into_inner(),
        };
        let (begun, span) = (Arc::clone(&sends), traces::span_of(&context));
        let answers = self.streams.serve(OUTGOING, |output| {
            service
                .serve(
                    incoming,
                    output,
                    answer_by,
                    caller,
                    Parent::of(context),
                    begun,
                )
                .instrument(span)
        })?;
        let welcome = self.welcome();
        let answers =
            answers.map(move |message| message.map(|message| outgoing(message, &welcome, &sends)));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// What a stream's caller sends.
struct Incoming {
    messages: Streaming<proto::PublishStreamRequest>,
    reading: Reading,
}

impl Service {
    async fn serve(
        self,
        mut incoming: Incoming,
        output: mpsc::Sender<Outgoing>,
        deadline: Option<Instant>,
        caller: Arc<Caller>,
        parent: Parent,
        spans: Arc<Spans>,
    ) -> Result<(), Failure> {
        let stop_on_failure = tokio::select! {
            biased;
            open = open(&mut incoming.messages) => open?,
            () = self.lifecycle.stopping() => return refuse_when_stopping(&self.lifecycle),
            () = until(deadline) => return Err(Failure::not_persisted(
                Reason::Deadline,
                "the deadline came before the message that opens the stream",
            )),
        };
        let options = Options {
            stop_on_failure,
            deadline,
        };
        let access = self.access;
        let room = self.publisher.max_record_bytes();
        let Incoming { messages, reading } = incoming;
        let batches = messages.map(move |message| {
            let message = message.map_err(broken)?;
            let message = reading.message(message)?;
            let mut batch = batch(message, |records| forbidden(&access, &caller, records))?;
            batch.waited = reading.waited();
            if let Ok(records) = &mut batch.records {
                spans.begin(batch.sequence, Sends::begin(records, &parent, room));
            }
            Ok(batch)
        });
        self.publisher
            .serve(Box::pin(batches), output, options, self.lifecycle)
            .await
    }

    fn welcome(&self) -> proto::PublishWelcome {
        let window = self.publisher.stream_window();
        proto::PublishWelcome {
            window_records: window.records,
            window_bytes: window.bytes,
            max_record_bytes: self.publisher.max_record_bytes() as u64,
            max_message_bytes: self.max_message_bytes as u64,
            dedup_window: Some(self.publisher.dedup_window())
                .filter(|window| !window.is_zero())
                .map(convert::duration),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Whose share the room for a unary call is of.
fn claimant(caller: &Caller) -> Claimant {
    static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    match caller.names.last() {
        Some(name) => Claimant::Principal(NAMES.hash_one(name)),
        None => Claimant::Connection(caller.connection),
    }
}

/// The stream itself broke: its caller is gone, or sent what is not a message.
fn broken(error: Status) -> Failure {
    Failure::invalid(Reason::InvalidRequest, "message", error.message())
}

/// Reads the first message; says whether the stream stops on a failure.
async fn open(incoming: &mut Streaming<proto::PublishStreamRequest>) -> Result<bool, Failure> {
    let first = incoming.message().await.map_err(broken)?;
    match first.and_then(|message| message.message) {
        Some(publish_stream_request::Message::Open(open)) => {
            match proto::FailureMode::try_from(open.failure_mode) {
                Ok(proto::FailureMode::Unspecified | proto::FailureMode::Continue) => Ok(false),
                Ok(proto::FailureMode::StopOnFailure) => Ok(true),
                Err(_) => Err(Failure::not_available(
                    "a failure_mode that this build does not know",
                )),
            }
        }
        _ => Err(Failure::invalid(
            Reason::InvalidRequest,
            "open",
            "must be the first message of the stream",
        )),
    }
}

/// The records that the caller may not publish, by index.
fn forbidden(access: &Access, caller: &Caller, records: &[Record]) -> Invalid {
    let mut invalid = Invalid::new();
    if access.is_open() {
        return invalid;
    }
    let mut allowed = None;
    for (index, record) in records.iter().enumerate() {
        // Records of a request mostly share their topic.
        if allowed == Some(&record.topic) {
            continue;
        }
        match access.publish(caller, &record.topic) {
            Ok(()) => allowed = Some(&record.topic),
            Err(failure) => invalid.push((index, failure)),
        }
    }
    invalid
}

fn batch(
    message: proto::PublishStreamRequest,
    forbidden: impl Fn(&[Record]) -> Invalid,
) -> Result<Batch, Failure> {
    match message.message {
        Some(publish_stream_request::Message::Batch(batch)) => {
            let count = batch.records.len();
            let records = match convert::ack_level(batch.ack_level) {
                Ok(()) => convert::records(batch.records).and_then(|records| {
                    let forbidden = forbidden(&records);
                    match forbidden.is_empty() {
                        true => Ok(records),
                        false => Err(forbidden),
                    }
                }),
                Err(failure) => Err((0..count).map(|index| (index, failure.clone())).collect()),
            };
            Ok(Batch {
                sequence: batch.sequence,
                records: records.map_err(|invalid| Refused { count, invalid }),
                waited: Duration::ZERO,
            })
        }
        Some(publish_stream_request::Message::Open(_)) => Err(Failure::invalid(
            Reason::InvalidRequest,
            "open",
            "may be sent only once, as the first message",
        )),
        None => Err(Failure::invalid(
            Reason::InvalidRequest,
            "message",
            "must be set: open or batch",
        )),
    }
}

/// The spans of a stream's batches that are on their way, by sequence: few of the batches. Empty as long as nothing is sampled.
#[derive(Default)]
struct Spans(Mutex<BTreeMap<u64, Sends>>);

impl Spans {
    fn batches(&self) -> MutexGuard<'_, BTreeMap<u64, Sends>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, sequence: u64, sends: Sends) {
        if !sends.is_empty() {
            self.batches().insert(sequence, sends);
        }
    }

    fn end(&self, answers: &[Answer]) {
        let mut batches = self.batches();
        if batches.is_empty() {
            return;
        }
        for answer in answers {
            if let Some(sends) = batches.remove(&answer.sequence) {
                sends.end(&answer.deliveries);
            }
        }
    }
}

fn outgoing(
    message: Outgoing,
    welcome: &proto::PublishWelcome,
    spans: &Spans,
) -> proto::PublishStreamResponse {
    use publish_stream_response::Message;
    let message = match message {
        Outgoing::Welcome => Message::Welcome(welcome.clone()),
        Outgoing::Answers(answers) => {
            spans.end(&answers);
            Message::Acks(convert::acks(&answers))
        }
        Outgoing::Draining(deadline) => Message::Draining(proto::Draining {
            deadline: Some(convert::moment(deadline)),
        }),
    };
    proto::PublishStreamResponse {
        message: Some(message),
    }
}
