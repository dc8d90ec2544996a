//! `SubscriberService`: the wire of a subscription. The work is `consume`'s.
//!
//! One task serves a stream: it forwards what the session sends as the caller takes it, and reads the caller's messages all the while, so
//! that a caller that does not read can still settle. It ends with the call; what the stream held is then delivered again.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{
    answers::Streams,
    convert, identity,
    proto::{
        self, settle_item, subscribe_request, subscribe_response,
        subscriber_service_server::SubscriberService,
    },
    refuse_when_draining,
    status::status,
};
use crate::{
    access::{Access, Caller},
    consume::{self, Outgoing, Pool, StreamHandle},
    failure::{Failure, Reason},
    lifecycle::Lifecycle,
    traces::{self, Processing, Source},
};

/// Messages that may wait for the caller beside those that wait in the session.
const OUTGOING: usize = 2;

/// See the module.
#[derive(Clone)]
pub(super) struct Service {
    pool: Pool,
    access: Access,
    lifecycle: Lifecycle,
    streams: Streams,
}

impl Service {
    pub(super) fn new(pool: Pool, access: Access, lifecycle: Lifecycle, streams: Streams) -> Self {
        Self {
            pool,
            access,
            lifecycle,
            streams,
        }
    }

    fn attach(
        &self,
        first: Option<proto::SubscribeRequest>,
        caller: &Caller,
    ) -> Result<consume::Stream, Failure> {
        let Some(subscribe_request::Message::Init(init)) =
            first.and_then(|message| message.message)
        else {
            return Err(invalid("init", "must be the first message of the stream"));
        };
        let asked = init.window.unwrap_or_default();
        let window = self.pool.window(asked.max_records, asked.max_bytes);
        let (subscription, options) = convert::init(&init, window)?;
        for topic in &subscription.topics {
            self.access.subscribe(caller, &subscription.group, topic)?;
        }
        self.pool.attach(&subscription, options)
    }

    async fn serve(
        self,
        mut incoming: Streaming<proto::SubscribeRequest>,
        output: mpsc::Sender<proto::SubscribeResponse>,
        who: Arc<Caller>,
    ) -> Result<(), Failure> {
        let first = incoming.message().await.map_err(broken)?;
        let mut traced = Traced::of(first.as_ref());
        let mut session = self.attach(first, &who)?;
        let mut caller = Requests {
            pool: &self.pool,
            session: session.handle(),
            last_request: 0,
        };
        let mut waiting = Some(response(subscribe_response::Message::Welcome(
            proto::SubscribeWelcome {
                granted: Some(convert::window(session.granted)),
                lease: None,
                server_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        )));
        let mut pong = None;
        loop {
            tokio::select! {
                biased;
                () = output.closed() => return Ok(()),
                permit = output.reserve(), if waiting.is_some() || pong.is_some() => {
                    let (Ok(permit), Some(message)) = (permit, pong.take().or_else(|| waiting.take())) else {
                        return Ok(());
                    };
                    permit.send(message);
                }
                message = incoming.message() => match message.map_err(broken)? {
                    // Nothing can be settled any more.
                    None => return Ok(()),
                    Some(message) => {
                        traced.settled(&message);
                        if let Some(answer) = caller.serve(message).await? {
                            pong = Some(answer);
                        }
                    }
                },
                message = session.next(), if waiting.is_none() => match message {
                    Some(Outgoing::End(end)) => return end.map_or(Ok(()), Err),
                    None => return Err(Failure::new(Reason::Internal, "internal error")),
                    Some(message) => {
                        let mut message = outgoing(message);
                        traced.delivered(&mut message);
                        waiting = Some(message);
                    }
                },
            }
        }
    }
}

/// The spans of delivered records that are not settled yet, by token. Empty as long as nothing is sampled.
#[derive(Default)]
struct Traced {
    group: String,
    processing: HashMap<Bytes, Processing>,
}

impl Traced {
    fn of(first: Option<&proto::SubscribeRequest>) -> Self {
        let group = match first.and_then(|first| first.message.as_ref()) {
            Some(subscribe_request::Message::Init(init)) => init.group.clone(),
            _ => String::new(),
        };
        Self {
            group,
            processing: HashMap::new(),
        }
    }

    /// Begins the spans of what is about to be delivered, and puts their context in the place of the producer's.
    fn delivered(&mut self, message: &mut proto::SubscribeResponse) {
        let Some(subscribe_response::Message::Deliveries(deliveries)) = &mut message.message else {
            return;
        };
        for delivery in &mut deliveries.deliveries {
            let Some(record) = &mut delivery.record else {
                continue;
            };
            let context = record
                .headers
                .iter_mut()
                .find(|header| traces::is_context(&header.name));
            let Some(value) = context.and_then(|header| header.value.as_mut()) else {
                continue;
            };
            let source = Source {
                group: &self.group,
                topic: &record.topic,
                partition: record.partition.unwrap_or_default(),
                offset: delivery.offset,
                tombstone: record.value.is_none(),
            };
            if let Some((processing, below)) = Processing::begin(value, source) {
                *value = below.into();
                self.processing.insert(delivery.token.clone(), processing);
            }
        }
    }

    fn settled(&mut self, message: &proto::SubscribeRequest) {
        let Some(subscribe_request::Message::Settle(settle)) = &message.message else {
            return;
        };
        if self.processing.is_empty() {
            return;
        }
        for item in &settle.items {
            if let Some(processing) = self.processing.remove(&item.token) {
                processing.end(match item.action {
                    Some(settle_item::Action::Ack(_)) => "ack",
                    Some(settle_item::Action::Nack(_)) => "nack",
                    Some(settle_item::Action::DeadLetter(_)) => "dead_letter",
                    Some(settle_item::Action::Release(_)) => "release",
                    None => "none",
                });
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        for (_, processing) in self.processing.drain() {
            processing.abandon();
        }
    }
}

/// What a caller says after `init`.
struct Requests<'a> {
    pool: &'a Pool,
    session: StreamHandle,
    last_request: u64,
}

impl Requests<'_> {
    async fn serve(
        &mut self,
        message: proto::SubscribeRequest,
    ) -> Result<Option<proto::SubscribeResponse>, Failure> {
        use subscribe_request::Message;
        // A session that is gone ends the stream by itself.
        match message.message {
            Some(Message::Window(window)) => {
                self.session
                    .window(self.pool.window(window.max_records, window.max_bytes))
                    .await;
            }
            Some(Message::Settle(settle)) => {
                if settle.request_id <= self.last_request {
                    return Err(invalid(
                        "settle.request_id",
                        &format!(
                            "{} does not rise above {}",
                            settle.request_id, self.last_request
                        ),
                    ));
                }
                self.last_request = settle.request_id;
                if settle.items.is_empty() {
                    return Err(invalid("settle.items", "must hold at least one item"));
                }
                self.session
                    .settle(settle.request_id, convert::settle_items(settle.items)?)
                    .await;
            }
            Some(Message::Drain(_)) => {
                self.session.drain().await;
            }
            Some(Message::Ping(ping)) => {
                return Ok(Some(response(subscribe_response::Message::Pong(
                    proto::Pong { id: ping.id },
                ))));
            }
            Some(Message::Extend(_)) => {
                return Err(Failure::not_available("SubscribeRequest.extend"));
            }
            Some(Message::Init(_)) => {
                return Err(invalid(
                    "init",
                    "may be sent only once, as the first message",
                ));
            }
            None => return Err(invalid("message", "must be set")),
        }
        Ok(None)
    }
}

fn outgoing(message: Outgoing) -> proto::SubscribeResponse {
    use subscribe_response::Message;
    response(match message {
        Outgoing::Deliveries(deliveries) => Message::Deliveries(proto::Deliveries {
            deliveries: deliveries.into_iter().map(convert::delivery).collect(),
            lease_expiry: None,
        }),
        Outgoing::Settled {
            request_id,
            refused,
        } => Message::Settled(proto::Settled {
            request_id,
            outcomes: refused
                .into_iter()
                .map(|(index, refusal)| proto::ItemOutcome {
                    index,
                    outcome: convert::outcome(refusal).into(),
                })
                .collect(),
        }),
        Outgoing::Partition {
            partition,
            change,
            by,
        } => Message::PartitionEvent(proto::PartitionEvent {
            topic: partition.topic,
            partition: partition.partition,
            kind: convert::partition_event_kind(change).into(),
            by: by.map(convert::moment),
            reason: String::new(),
        }),
        Outgoing::Granted(window) => Message::Progress(proto::Progress {
            granted: Some(convert::window(window)),
            ..proto::Progress::default()
        }),
        Outgoing::Committed {
            partitions,
            durable_through,
        } => Message::Progress(proto::Progress {
            durable_through_request_id: durable_through,
            partitions: partitions
                .into_iter()
                .map(|committed| proto::PartitionProgress {
                    topic: committed.partition.topic,
                    partition: committed.partition.partition,
                    committed_offset: committed.offset,
                    position: committed.position,
                    lag: None,
                })
                .collect(),
            ..proto::Progress::default()
        }),
        Outgoing::Draining(deadline) => Message::Draining(proto::Draining {
            deadline: Some(convert::moment(deadline)),
        }),
        Outgoing::End(_) => unreachable!("the end is not a message"),
    })
}

fn response(message: subscribe_response::Message) -> proto::SubscribeResponse {
    proto::SubscribeResponse {
        message: Some(message),
    }
}

fn invalid(field: &str, what: &str) -> Failure {
    let mut failure = Failure::invalid(Reason::InvalidRequest, field, what);
    failure.persistence = None;
    failure
}

/// The stream itself broke: its caller is gone, or sent what is not a message.
fn broken(error: Status) -> Failure {
    invalid("message", error.message())
}

#[tonic::async_trait]
impl SubscriberService for Service {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<proto::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        refuse_when_draining(&self.lifecycle).map_err(|failure| status(&failure))?;
        let caller = identity::of(&request)?;
        let service = self.clone();
        let answers = self.streams.serve(OUTGOING, |output| {
            service.serve(request.into_inner(), output, caller)
        })?;
        Ok(Response::new(Box::pin(answers)))
    }

    async fn pull(
        &self,
        _: Request<proto::PullRequest>,
    ) -> Result<Response<proto::PullResponse>, Status> {
        Err(not_available("SubscriberService.Pull"))
    }

    async fn acknowledge(
        &self,
        _: Request<proto::AcknowledgeRequest>,
    ) -> Result<Response<proto::AcknowledgeResponse>, Status> {
        Err(not_available("SubscriberService.Acknowledge"))
    }

    async fn seek(
        &self,
        _: Request<proto::SeekRequest>,
    ) -> Result<Response<proto::SeekResponse>, Status> {
        Err(not_available("SubscriberService.Seek"))
    }

    async fn get_subscription(
        &self,
        _: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        Err(not_available("SubscriberService.GetSubscription"))
    }
}

fn not_available(feature: &str) -> Status {
    status(&Failure::not_available(feature))
}
