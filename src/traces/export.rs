//! Where spans go: over OTLP, by the standard `OTEL_*` variables, on a runtime of their own.
//!
//! Off unless an endpoint or an exporter is named. The queue of spans is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`) and what does not fit is dropped: a
//! collector that hangs costs nothing but its spans.

use std::{
    env,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Config, SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use super::root::{Ids, SAMPLER};
use crate::tls;

/// What makes spans, where they are exported.
pub(super) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What must live as long as the process, and is flushed at its end.
static EXPORT: Mutex<Option<(SdkTracerProvider, Runtime)>> = Mutex::new(None);

/// Begins to export, if the environment says where to; says where to.
pub fn install() -> anyhow::Result<Option<String>> {
    let is_off =
        variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = variable("OTEL_TRACES_EXPORTER");
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let endpoint = match (exporter.as_deref(), endpoint) {
        _ if is_off => return Ok(None),
        (None, None) | (Some("none"), _) => return Ok(None),
        (None | Some("otlp"), endpoint) => {
            endpoint.unwrap_or_else(|| "http://localhost:4317".to_owned())
        }
        (Some(other), _) => {
            return Err(anyhow!(
                "OTEL_TRACES_EXPORTER: {other:?} is not built in; there are otlp and none"
            ));
        }
    };
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
        return Err(anyhow!(
            "OTEL_EXPORTER_OTLP_PROTOCOL: {protocol:?} is not built in; there is grpc, mostly on port 4317"
        ));
    }
    // Not the runtime of the data path: a collector that is slow is not its neighbour.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("traces")
        .enable_all()
        .build()
        .context("the runtime of the traces could not be started")?;
    let entered = runtime.enter();
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel(&endpoint)?)
        .build()
        .context("the exporter of traces could not be made")?;
    drop(entered);
    let mut resource = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none()
        && !variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="))
    {
        resource = resource.with_service_name("outrigger");
    }
    let sampler = Config::default().sampler;
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler.clone())
        .with_id_generator(Ids::default())
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("outrigger");
    if SAMPLER.set(sampler).is_ok() && TRACER.set(tracer).is_ok() {
        *EXPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some((provider, runtime));
    }
    Ok(Some(endpoint))
}

/// Sends what is left, within `bound`.
pub fn flush(bound: Duration) {
    let export = EXPORT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((provider, runtime)) = export {
        if let Err(error) = provider.shutdown_with_timeout(bound) {
            tracing::debug!(error = %error, "the last spans were not exported");
        }
        runtime.shutdown_background();
    }
}

fn channel(endpoint: &str) -> anyhow::Result<Channel> {
    let target = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|error| anyhow!("OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint:?}: {error}"))?;
    if !endpoint.starts_with("https://") {
        return Ok(target.connect_lazy());
    }
    let ca_file = variable("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_CERTIFICATE"));
    let mut connector = tls::connector(ca_file.as_deref().map(AsRef::as_ref))
        .context("OTEL_EXPORTER_OTLP_CERTIFICATE")?;
    connector.set_alpn_protos(tls::H2)?;
    let connector = connector.build();
    let connect = move |uri| tls::connect(connector.clone(), uri);
    Ok(target.connect_with_connector_lazy(tower::service_fn(connect)))
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}
