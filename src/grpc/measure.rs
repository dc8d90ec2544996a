//! Counts every call, whoever answers it: the outermost layer of a connection.
//!
//! A call begins with its head and ends with its status, which stands in the trailers, or in the head of an answer without a body. A body that is
//! dropped before its trailers is a call that its caller gave up. Messages are counted by their length prefixes, without a look inside, and only
//! where somebody asks for them. Source: "gRPC over HTTP/2".

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use prost_types::FileDescriptorSet;
use tower::Service;

use super::proto;
use crate::metrics::rpc::{self, Call, Messages, MethodName};

/// Says which methods there are, by the descriptors of what is served.
pub(super) fn register() {
    let descriptors = [
        proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    rpc::serve(descriptors.into_iter().flat_map(methods).collect());
}

fn methods(descriptors: &[u8]) -> Vec<MethodName> {
    let files = FileDescriptorSet::decode(descriptors).unwrap_or_default();
    let mut methods = Vec::new();
    for file in files.file {
        for service in &file.service {
            for method in &service.method {
                methods.push(MethodName {
                    service: format!("{}.{}", file.package(), service.name()),
                    method: method.name().to_owned(),
                    kind: match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => "unary",
                        (true, false) => "client_stream",
                        (false, true) => "server_stream",
                        (true, true) => "bidi_stream",
                    },
                });
            }
        }
    }
    methods
}

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct Measured<S>(pub(super) S);

impl<S, B, R> Service<Request<B>> for Measured<S>
where
    S: Service<Request<Requested<B>>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answered<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut call = Call::begin(request.uri().path());
        let received = call.received().map(Counter::new);
        let request = request.map(|body| Requested {
            body,
            counter: received,
        });
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(status) = answer.headers().get(STATUS) {
                call.end(code(status));
            }
            let counter = call.sent().map(Counter::new);
            Ok(answer.map(|body| Answered {
                body,
                call,
                counter,
            }))
        })
    }
}

const STATUS: &str = "grpc-status";

fn code(status: &http::HeaderValue) -> Option<usize> {
    status.to_str().ok()?.parse().ok()
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Requested<B> {
    body: B,
    counter: Option<Counter>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Requested<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        count(&mut self.counter, &frame);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; the call ends with it.
#[derive(Debug)]
pub(super) struct Answered<B> {
    body: B,
    call: Call,
    counter: Option<Counter>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        count(&mut self.counter, &frame);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(|all| all.get(STATUS)) {
                    self.call.end(code(status));
                }
            }
            // Without a status: no gRPC answer at all.
            Some(Err(_)) | None => self.call.end(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn count<E>(counter: &mut Option<Counter>, frame: &Option<Result<Frame<Bytes>, E>>) {
    if let (Some(counter), Some(Ok(frame))) = (counter, frame)
        && let Some(data) = frame.data_ref()
    {
        counter.count(data);
    }
}

/// Finds the messages in a stream of bytes: each has a head of a flag and four bytes of length.
#[derive(Debug)]
struct Counter {
    messages: Messages,
    head: [u8; 5],
    /// Of the head that is being read.
    known: usize,
    /// Of the message that is being passed over.
    left: usize,
}

impl Counter {
    fn new(messages: Messages) -> Self {
        Self {
            messages,
            head: [0; 5],
            known: 0,
            left: 0,
        }
    }

    fn count(&mut self, data: &[u8]) {
        self.messages.add(self.begun(data));
    }

    /// How many messages' heads end in `data`.
    fn begun(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(data.len());
                self.left -= passed;
                data = &data[passed..];
                continue;
            }
            let wanted = (self.head.len() - self.known).min(data.len());
            self.head[self.known..self.known + wanted].copy_from_slice(&data[..wanted]);
            self.known += wanted;
            data = &data[wanted..];
            if let [_, length @ ..] = self.head
                && self.known == self.head.len()
            {
                begun += 1;
                self.known = 0;
                self.left = u32::from_be_bytes(length) as usize;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(5 + length, 7);
        bytes
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let bytes = [message(0), message(3), message(300), message(0)].concat();
        for size in 1..=bytes.len() {
            let call = Box::leak(Box::default());
            let mut counter = Counter::new(Messages::new(call));
            let begun: u64 = bytes.chunks(size).map(|cut| counter.begun(cut)).sum();
            assert_eq!(begun, 4, "cut to {size}");
        }
    }

    #[test]
    fn every_service_is_among_the_methods() {
        let methods = methods(proto::DESCRIPTORS);
        let kind = |service: &str, name: &str| {
            let found = methods.iter().find(|method| {
                method.service == format!("outrigger.v1.{service}") && method.method == name
            });
            found.map(|method| method.kind)
        };
        assert_eq!(kind("PublisherService", "Publish"), Some("unary"));
        assert_eq!(
            kind("PublisherService", "PublishStream"),
            Some("bidi_stream")
        );
        assert_eq!(kind("SubscriberService", "Subscribe"), Some("bidi_stream"));
        assert_eq!(kind("AdminService", "Drain"), Some("unary"));
    }
}
