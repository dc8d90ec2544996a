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

use super::{framing::Heads, proto};
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

/// Counts the messages in a stream of bytes.
#[derive(Debug)]
struct Counter {
    messages: Messages,
    heads: Heads,
}

impl Counter {
    fn new(messages: Messages) -> Self {
        Self {
            messages,
            heads: Heads::default(),
        }
    }

    fn count(&mut self, data: &[u8]) {
        let mut begun = 0;
        self.heads.pass(data, |_| begun += 1);
        self.messages.add(begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
