//! W3C Trace Context in the metadata of calls and the headers of records.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::record::{Header, Record};

/// The header of the context itself (W3C Trace Context, 3.2), in records as in calls.
pub(super) const TRACEPARENT: &str = "traceparent";

/// The header beside it that is the vendors' own (W3C Trace Context, 3.3).
const TRACESTATE: &str = "tracestate";

/// The bytes that a context adds to a record.
const CONTEXT_BYTES: usize = 256;

/// The context of a caller: from the metadata of its call, else from the header of its first record, if there is one.
pub fn caller(headers: &http::HeaderMap, record: Option<&[u8]>) -> SpanContext {
    match (headers.contains_key(TRACEPARENT), record) {
        (true, _) => extract(&Metadata(headers)),
        (false, Some(header)) => of_header(header),
        (false, None) => SpanContext::NONE,
    }
}

pub(super) fn of_header(traceparent: &[u8]) -> SpanContext {
    of_record(&[Header {
        name: TRACEPARENT.to_owned(),
        value: Some(bytes::Bytes::copy_from_slice(traceparent)),
    }])
}

/// The context that a record carries.
pub(super) fn of_record(headers: &[Header]) -> SpanContext {
    match headers.iter().any(|header| header.name == TRACEPARENT) {
        true => extract(&Carried(headers)),
        false => SpanContext::NONE,
    }
}

fn extract(from: &dyn Extractor) -> SpanContext {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), from);
    context.span().span_context().clone()
}

/// Whether a header carries the context.
pub fn is_context(name: &str) -> bool {
    name == TRACEPARENT
}

/// Whether a header is a part of the context, which every attempt to send a record may have of its own.
pub fn is_propagated(name: &str) -> bool {
    is_context(name) || name == TRACESTATE
}

/// Whether a record carries a context of its own.
pub(super) fn carries(record: &Record) -> bool {
    record.headers.iter().any(|header| is_context(&header.name))
}

/// Gives a record the context, unless it carries one of its own or would become too large by it.
pub(super) fn inject(record: &mut Record, context: &Context, room: usize) {
    if !carries(record) && record.payload_bytes() + CONTEXT_BYTES <= room {
        TraceContextPropagator::new().inject_context(context, &mut Added(&mut record.headers));
    }
}

struct Metadata<'a>(&'a http::HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Carried<'a>(&'a [Header]);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let header = self.0.iter().find(|header| header.name == key)?;
        std::str::from_utf8(header.value.as_deref()?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|header| header.name.as_str()).collect()
    }
}

struct Added<'a>(&'a mut Vec<Header>);

impl Injector for Added<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate says nothing.
        if !value.is_empty() {
            self.0.push(Header {
                name: key.to_owned(),
                value: Some(value.into()),
            });
        }
    }
}
