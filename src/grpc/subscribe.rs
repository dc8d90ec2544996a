//! `SubscriberService`: the wire of a subscription. The work is `consume`'s; calls of one answer are in `unary`.
//!
//! One task serves a stream: it forwards what the session sends as the caller takes it, and reads the caller's messages all the while, so
//! that a caller that does not read can still settle. It ends with the call; what the stream held is then delivered again.

mod traced;
mod unary;

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use self::traced::Traced;
use super::{
    answers::Streams,
    convert,
    deliveries::Deliveries,
    identity,
    proto::{
        self, subscribe_request, subscribe_response, subscriber_service_server::SubscriberService,
    },
    refuse_when_draining,
    status::status,
};
use crate::{
    access::{Access, Caller},
    consume::{self, Outgoing, Pool, StreamHandle, StreamOptions, Subscription, Token},
    failure::{Failure, Reason},
    lifecycle::Lifecycle,
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
        let (subscription, options) = self.agree(&init, caller)?;
        self.pool.attach(&subscription, options)
    }

    /// What a first message asks for, if its caller may have it.
    fn agree(
        &self,
        init: &proto::Init,
        caller: &Caller,
    ) -> Result<(Subscription, StreamOptions), Failure> {
        let asked = init.window.unwrap_or_default();
        let window = self.pool.window(asked.max_records, asked.max_bytes);
        let (subscription, options) = convert::init(init, window)?;
        for topic in &subscription.topics {
            self.access.subscribe(caller, &subscription.group, topic)?;
        }
        for topic in subscription.dead_letter_topics() {
            self.access.publish(caller, &topic)?;
        }
        Ok((subscription, options))
    }

    async fn serve(
        self,
        mut incoming: Streaming<proto::SubscribeRequest>,
        output: mpsc::Sender<proto::SubscribeResponse>,
        who: Arc<Caller>,
    ) -> Result<(), Failure> {
        let first = tokio::select! {
            biased;
            first = incoming.message() => first.map_err(broken)?,
            () = self.lifecycle.quieting() => return refuse_when_draining(&self.lifecycle),
        };
        let mut traced = Traced::of(first.as_ref());
        let mut session = self.attach(first, &who)?;
        let mut caller = Requests {
            pool: &self.pool,
            session: session.handle(),
            has_dead_letters: session.has_dead_letters,
            last_request: 0,
        };
        let mut waiting = Some(response(subscribe_response::Message::Welcome(
            proto::SubscribeWelcome {
                granted: Some(convert::window(session.granted)),
                lease: Some(convert::duration(session.lease)),
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
                    None => {
                        caller.session.leave().await;
                        return Ok(());
                    }
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
                    Some(mut message) => {
                        if let Outgoing::Deliveries { batches, .. } = &mut message {
                            traced.delivered(batches);
                        }
                        waiting = Some(outgoing(message));
                    }
                },
            }
        }
    }
}

/// What a caller says after `init`.
struct Requests<'a> {
    pool: &'a Pool,
    session: StreamHandle,
    has_dead_letters: bool,
    last_request: u64,
}

impl Requests<'_> {
    /// Holds a request's id against the last one.
    fn rises(&mut self, field: &str, id: u64) -> Result<(), Failure> {
        if id <= self.last_request {
            let text = format!("{id} does not rise above {}", self.last_request);
            return Err(invalid(field, &text));
        }
        self.last_request = id;
        Ok(())
    }

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
                self.rises("settle.request_id", settle.request_id)?;
                if settle.received.is_empty() {
                    return Err(invalid("settle.items", "must hold at least one item"));
                }
                let items = convert::received_items(
                    "settle.items",
                    settle.received,
                    self.has_dead_letters,
                )?;
                self.session.settle(settle.request_id, items).await;
            }
            Some(Message::Drain(_)) => {
                self.session.drain().await;
            }
            Some(Message::Ping(ping)) => {
                return Ok(Some(response(subscribe_response::Message::Pong(
                    proto::Pong { id: ping.id },
                ))));
            }
            Some(Message::Extend(extend)) => {
                self.rises("extend.request_id", extend.request_id)?;
                if extend.tokens.is_empty() {
                    return Err(invalid("extend.tokens", "must hold at least one token"));
                }
                let lease = convert::lease("extend.lease", extend.lease)?;
                let tokens = extend.tokens.iter().map(|token| Token::decode(token));
                self.session
                    .extend(extend.request_id, tokens.collect(), lease)
                    .await;
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
        Outgoing::Deliveries { batches, until } => {
            Message::Deliveries(Deliveries::of(&batches, until))
        }
        Outgoing::Settled {
            request_id,
            refused,
        } => Message::Settled(proto::Settled {
            request_id,
            outcomes: convert::outcomes(refused),
        }),
        Outgoing::Extended {
            request_id,
            refused,
        } => Message::Extended(proto::Extended {
            request_id,
            outcomes: convert::outcomes(refused),
        }),
        Outgoing::Partition {
            partition,
            change,
            by,
            reason,
        } => Message::PartitionEvent(proto::PartitionEvent {
            topic: partition.topic,
            partition: partition.partition,
            kind: convert::partition_event_kind(change).into(),
            by: by.map(convert::moment),
            reason,
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
        request: Request<proto::PullRequest>,
    ) -> Result<Response<proto::PullResponse>, Status> {
        let place = self.streams.place()?;
        let caller = identity::of(&request)?;
        let answer = unary::answer(self.pulled(&caller, request).await);
        drop(place);
        answer
    }

    async fn acknowledge(
        &self,
        request: Request<proto::AcknowledgeRequest>,
    ) -> Result<Response<proto::AcknowledgeResponse>, Status> {
        let caller = identity::of(&request)?;
        unary::answer(self.acknowledged(&caller, request).await)
    }

    async fn seek(
        &self,
        request: Request<proto::SeekRequest>,
    ) -> Result<Response<proto::SeekResponse>, Status> {
        let caller = identity::of(&request)?;
        unary::answer(self.sought(&caller, request).await)
    }

    async fn get_subscription(
        &self,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<Response<proto::GetSubscriptionResponse>, Status> {
        let caller = identity::of(&request)?;
        unary::answer(self.look(&caller, request).await)
    }
}
