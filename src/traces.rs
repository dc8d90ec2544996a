//! Traces: W3C context between callers and Kafka records, and spans by OpenTelemetry's semantic conventions for RPC and messaging (1.44).
//!
//! [`Call`] is a unary call, [`Sends`] a batch on its way to Kafka, [`Processing`] one delivered record until it is settled. Context is carried
//! whether or not spans are exported; `export` says where to. Not here: who calls these (`grpc`), logs and metrics.
//! What always holds: without a sampled context no record costs a span; a record's own context is never replaced on its way to Kafka.

mod context;
mod export;
mod root;

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};

pub use opentelemetry::trace::SpanContext;

pub use self::{
    context::{caller, is_context, is_propagated},
    export::{flush, install},
};
use self::{
    context::{carries, inject, of_header, of_record},
    root::Root,
};
use crate::{failure::Reason, kafka::Delivery, record::Record};

/// Spans of one request, at most: one for each topic.
const MAX_TOPICS: usize = 16;

/// Links of one span, at most: the conventions' SDK default.
const MAX_LINKS: usize = 128;

fn tracer() -> Option<&'static SdkTracer> {
    export::TRACER.get()
}

/// What the spans of a request are below.
#[derive(Clone, Debug)]
pub enum Parent {
    /// Somebody's context, sampled or not.
    Context(SpanContext),
    /// Nobody has one: the request may begin a trace.
    Open,
    /// Nobody has one, and it was decided that no trace begins here.
    Unsampled,
}

impl Parent {
    /// For a call or a stream with this context in its metadata.
    pub fn of(context: SpanContext) -> Self {
        match context.is_valid() {
            true => Self::Context(context),
            false => Self::Open,
        }
    }

    fn context(&self) -> &SpanContext {
        match self {
            Self::Context(context) => context,
            Self::Open | Self::Unsampled => &SpanContext::NONE,
        }
    }
}

/// A unary call, from its arrival to its answer.
#[derive(Debug)]
pub struct Call {
    span: Option<Span>,
    parent: Parent,
}

impl Call {
    /// `method` is the full name, as `outrigger.v1.PublisherService/Publish`.
    pub fn begin(method: &'static str, caller: SpanContext) -> Self {
        let without = |parent| Self { span: None, parent };
        let Some(tracer) = tracer() else {
            return without(Parent::of(caller));
        };
        let root = match caller.is_valid() {
            true => None,
            false => match Root::sampled() {
                Some(root) => Some(root),
                None => return without(Parent::Unsampled),
            },
        };
        let span = tracer
            .span_builder(method)
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
            ])
            .start_with_context(tracer, &parent(&caller));
        drop(root);
        Self {
            parent: Parent::Context(span.span_context().clone()),
            span: Some(span),
        }
    }

    /// What is sent for it is below this.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    /// The same, for the log.
    pub fn context(&self) -> &SpanContext {
        self.parent.context()
    }

    /// The answer, by the name of its gRPC code; `fault` for those codes that the conventions call a server's error.
    pub fn end(mut self, code: &'static str, fault: bool) {
        let Some(mut span) = self.span.take() else {
            return;
        };
        span.set_attribute(KeyValue::new("rpc.response.status_code", code));
        if fault {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// A request on its way to Kafka: a `send` span for each of its topics.
#[derive(Debug, Default)]
pub struct Sends(Vec<Send>);

#[derive(Debug)]
struct Send {
    span: Span,
    /// Which records are its.
    records: Vec<usize>,
}

impl Sends {
    /// Begins to send `records`, below `parent`, and gives each record that carries no context of its own this one; `room` is the largest
    /// record that may be sent.
    pub fn begin(records: &mut [Record], parent: &Parent, room: usize) -> Self {
        let context = parent.context();
        let Some(tracer) = tracer() else {
            if context.is_valid() {
                let context = Context::new().with_remote_span_context(context.clone());
                for record in records {
                    inject(record, &context, room);
                }
            }
            return Self::default();
        };
        let mut sends = Self::default();
        let is_in_none = !context.is_valid() && !records.iter().any(carries);
        let root = match (is_in_none, parent) {
            (false, _) => None,
            (true, Parent::Unsampled) => return sends,
            (true, _) => match Root::sampled() {
                Some(root) => Some(root),
                None => return sends,
            },
        };
        for (topic, indexes) in by_topic(records) {
            if let Some(send) = Send::begin(tracer, &topic, indexes, records, context, room) {
                sends.0.push(send);
            }
        }
        drop(root);
        sends
    }

    /// What became of the records, in their order.
    pub fn end(self, deliveries: &[Delivery]) {
        for Send { mut span, records } in self.0 {
            let failed = records
                .iter()
                .find_map(|&index| match deliveries.get(index) {
                    Some(Delivery::Failed(failure)) => Some(failure.reason),
                    _ => None,
                });
            if let [only] = records[..]
                && let Some(Delivery::Published {
                    partition, offset, ..
                }) = deliveries.get(only)
            {
                span.set_attribute(KeyValue::new(
                    "messaging.destination.partition.id",
                    partition.to_string(),
                ));
                if let Some(offset) = offset {
                    span.set_attribute(KeyValue::new("messaging.kafka.offset", *offset));
                }
            }
            if let Some(reason) = failed {
                fail(&mut span, reason.as_str());
            }
            span.end();
        }
    }

    /// Whether nothing of it is sampled.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// None of it was sent.
    pub fn refuse(self, reason: Reason) {
        for mut send in self.0 {
            fail(&mut send.span, reason.as_str());
        }
    }
}

impl Send {
    fn begin(
        tracer: &SdkTracer,
        topic: &str,
        indexes: Vec<usize>,
        records: &mut [Record],
        parent_context: &SpanContext,
        room: usize,
    ) -> Option<Self> {
        let mut links = Vec::new();
        let mut own = 0;
        for &index in &indexes {
            let context = of_record(&records[index].headers);
            own += usize::from(context.is_valid());
            if context.is_valid() && links.len() < MAX_LINKS {
                links.push(Link::with_context(context));
            }
        }
        // The first of them leads where the call itself has no context: then the whole is one trace.
        let leader = links.first().map(|link| link.span_context.clone());
        let from = match (parent_context.is_valid(), leader) {
            (false, Some(leader)) => leader,
            _ => parent_context.clone(),
        };
        let mut attributes = messaging("send", topic);
        if indexes.len() > 1 {
            attributes.push(KeyValue::new(
                "messaging.batch.message_count",
                indexes.len() as i64,
            ));
        } else if records[indexes[0]].value.is_none() {
            attributes.push(KeyValue::new("messaging.kafka.message.tombstone", true));
        }
        let span = tracer
            .span_builder(format!("send {topic}"))
            // By the conventions: a producer's when its context goes into a record, else a client's.
            .with_kind(if own < indexes.len() {
                SpanKind::Producer
            } else {
                SpanKind::Client
            })
            .with_attributes(attributes)
            .with_links(links)
            .start_with_context(tracer, &parent(&from));
        let context = span.span_context().clone();
        if context.is_sampled() || parent_context.is_valid() {
            let context = Context::new().with_remote_span_context(context.clone());
            for &index in &indexes {
                inject(&mut records[index], &context, room);
            }
        }
        context.is_sampled().then_some(Self {
            span,
            records: indexes,
        })
    }
}

/// A delivered record, from its delivery until it is settled.
#[derive(Debug)]
pub struct Processing(Span);

/// Where a delivered record was read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Whether the record has no value.
    pub tombstone: bool,
}

impl Processing {
    /// Begins when the record carries a sampled context. Returns the context that the subscriber's own spans belong below, as the header
    /// that carries it.
    pub fn begin(traceparent: &[u8], source: Source<'_>) -> Option<(Self, String)> {
        let tracer = tracer()?;
        let creation = of_header(traceparent);
        if !creation.is_sampled() {
            return None;
        }
        let mut attributes = messaging("process", source.topic);
        attributes.extend([
            KeyValue::new("messaging.consumer.group.name", source.group.to_owned()),
            KeyValue::new(
                "messaging.destination.partition.id",
                source.partition.to_string(),
            ),
            KeyValue::new("messaging.kafka.offset", source.offset),
        ]);
        if source.tombstone {
            attributes.push(KeyValue::new("messaging.kafka.message.tombstone", true));
        }
        // One record a span: the creation context may be its parent, so that the whole is one trace, and is linked as the conventions have it.
        let span = tracer
            .span_builder(format!("process {}", source.topic))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(vec![Link::with_context(creation.clone())])
            .start_with_context(tracer, &parent(&creation));
        let context = span.span_context();
        let header = format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags()
        );
        Some((Self(span), header))
    }

    /// The subscriber has settled it, or given it back.
    pub fn end(mut self, action: &'static str) {
        self.0
            .set_attribute(KeyValue::new("outrigger.settlement", action));
        self.0.end();
    }

    /// The subscriber is gone.
    pub fn abandon(mut self) {
        fail(&mut self.0, "abandoned");
    }
}

/// The ids of a context, for the log.
pub fn span_of(context: &SpanContext) -> tracing::Span {
    match context.is_valid() {
        true => {
            tracing::info_span!("call", trace_id = %context.trace_id(), span_id = %context.span_id())
        }
        false => tracing::Span::none(),
    }
}

fn messaging(operation: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

fn fail(span: &mut Span, error: &'static str) {
    span.set_attribute(KeyValue::new("error.type", error));
    span.set_status(Status::error(""));
}

fn parent(context: &SpanContext) -> Context {
    match context.is_valid() {
        true => Context::new().with_remote_span_context(context.clone()),
        false => Context::new(),
    }
}

/// The records of each topic, by index.
fn by_topic(records: &[Record]) -> Vec<(String, Vec<usize>)> {
    let mut topics: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        // Mostly the one before.
        match topics.iter().rposition(|(topic, _)| *topic == record.topic) {
            Some(known) => topics[known].1.push(index),
            None if topics.len() < MAX_TOPICS => topics.push((record.topic.clone(), vec![index])),
            None => {}
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::{context::TRACEPARENT, *};
    use crate::record::Header;

    const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn record(topic: &str, header: Option<&str>) -> Record {
        let headers = header.map(|value| Header {
            name: TRACEPARENT.to_owned(),
            value: Some(value.to_owned().into()),
        });
        Record {
            topic: topic.to_owned(),
            headers: headers.into_iter().collect(),
            ..Record::default()
        }
    }

    fn from(headers: &http::HeaderMap) -> Parent {
        Parent::of(caller(headers, None))
    }

    fn carried(record: &Record) -> Option<String> {
        let header = record
            .headers
            .iter()
            .find(|header| header.name == TRACEPARENT)?;
        Some(String::from_utf8(header.value.as_deref()?.to_vec()).unwrap())
    }

    #[test]
    fn without_export_the_callers_context_goes_into_records_that_have_none() {
        let mut headers = http::HeaderMap::new();
        headers.insert(TRACEPARENT, CONTEXT.parse().unwrap());
        headers.insert("tracestate", "a=b".parse().unwrap());
        let other = CONTEXT.replace("0af7", "ffff");
        let mut records = [record("a", None), record("a", Some(&other))];
        Sends::begin(&mut records, &from(&headers), 1000).end(&[]);
        assert_eq!(carried(&records[0]).unwrap(), CONTEXT);
        assert_eq!(records[0].headers[1].name, "tracestate");
        assert_eq!(carried(&records[1]).unwrap(), other, "its own stays");
    }

    #[test]
    fn nothing_is_added_without_a_context_or_without_room() {
        let mut records = [record("a", None)];
        Sends::begin(&mut records, &from(&http::HeaderMap::new()), 1000).end(&[]);
        let mut headers = http::HeaderMap::new();
        headers.insert(TRACEPARENT, CONTEXT.parse().unwrap());
        Sends::begin(&mut records, &from(&headers), 100).end(&[]);
        for wrong in [
            "00-0-0-01",
            "not a context",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            headers.insert(TRACEPARENT, wrong.parse().unwrap());
            Sends::begin(&mut records, &from(&headers), 1000).end(&[]);
        }
        assert!(records[0].headers.is_empty(), "{:?}", records[0].headers);
    }

    #[test]
    fn records_are_gathered_by_topic_in_their_order_and_topics_are_bounded() {
        let records = ["a", "b", "a"].map(|topic| record(topic, None));
        assert_eq!(
            by_topic(&records),
            [("a".to_owned(), vec![0, 2]), ("b".to_owned(), vec![1])]
        );
        let many: Vec<Record> = (0..100)
            .map(|number| record(&number.to_string(), None))
            .collect();
        assert_eq!(by_topic(&many).len(), MAX_TOPICS);
    }
}
