//! An OTLP collector for tests: it keeps what it is sent, or takes connections and never answers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::sidecar::PATIENCE;

/// What was collected, with the name of the service that sent it.
#[derive(Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attributes
                .iter()
                .find(|attribute| attribute.key == "service.name")
                .and_then(|attribute| text(attribute.value.as_ref()?.value.as_ref()?))
                .unwrap_or_default();
            let mut spans = self.spans.lock().unwrap();
            for scope in resource.scope_spans {
                spans.extend(scope.spans.into_iter().map(|span| (service.clone(), span)));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (collector, address)
    }

    pub fn spans(&self) -> Vec<(String, Span)> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits for a span of that name in that trace.
    pub async fn wait_for(&self, trace: &str, name: &str) -> Span {
        let begun = Instant::now();
        loop {
            let found = self
                .spans()
                .into_iter()
                .find(|(_, span)| span.name == name && hex(&span.trace_id) == trace);
            if let Some((_, span)) = found {
                return span;
            }
            let names: Vec<String> = self
                .spans()
                .into_iter()
                .map(|(service, span)| {
                    format!("{service}: {} of {}", span.name, hex(&span.trace_id))
                })
                .collect();
            assert!(
                begun.elapsed() < PATIENCE,
                "no span {name:?} of {trace} among {names:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The attributes of a span, sorted, as `name=value`.
pub fn attributes(span: &Span) -> Vec<String> {
    let mut all: Vec<String> = span
        .attributes
        .iter()
        .map(|attribute| {
            let value = attribute
                .value
                .as_ref()
                .and_then(|value| text(value.value.as_ref()?));
            format!("{}={}", attribute.key, value.unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}
