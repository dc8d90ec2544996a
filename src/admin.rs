//! The admin port: probes and metrics over HTTP/1, read-only.
//!
//! `/livez` says that the process answers; it never depends on a broker. `/startupz` and `/readyz` name what is missing; readiness ends with
//! the first phase of a drain, and stays up through a broker outage. `/metrics` is Prometheus' text format. To loopback peers only: `/` and
//! `/status`, what the sidecar is doing, and `/config`, the effective configuration with secrets hidden. Nothing here changes state.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    lifecycle::{Lifecycle, Phase},
    metrics::Exposition,
    status,
};

/// Connections served at once: a scraper, the kubelet's probes, a person.
const MAX_CONNECTIONS: usize = 64;

/// How long a peer may take to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the port shows.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "the recorder's handle shows nothing"
)]
pub struct Admin {
    /// For the probes.
    pub lifecycle: Lifecycle,
    /// For `/metrics`.
    pub metrics: Exposition,
    /// For `/status` and the status page.
    pub status: status::Source,
    /// For `/config`: secrets hidden.
    pub config: Arc<str>,
}

impl Admin {
    /// Serves until dropped: probes are answered to the end.
    pub async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(self.clone().connection(stream, peer));
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "an admin connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }

    async fn connection(self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let service = service_fn(move |request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path(), peer);
            async move { Ok::<_, Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%peer, error = %error, "an admin connection ended with an error");
        }
    }

    fn answer(&self, method: &Method, path: &str, peer: SocketAddr) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here\n",
            );
        }
        if !may_see(peer, path) {
            let refusal = format!("{path} is shown to callers on this machine\n");
            return text(StatusCode::FORBIDDEN, refusal);
        }
        match path {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/startupz" => self.started(),
            "/readyz" if self.lifecycle.phase() == Phase::Draining => {
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/readyz" => self.started(),
            "/metrics" => text(StatusCode::OK, self.metrics.render()),
            "/" => text(StatusCode::OK, self.status.now().to_string()),
            "/status" => json(&self.status.now()),
            "/config" => text(StatusCode::OK, self.config.to_string()),
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /livez, /readyz, /startupz and /metrics; on loopback also /, /status and /config\n",
            ),
        }
    }

    fn started(&self) -> Response<Full<Bytes>> {
        let missing = self.lifecycle.missing();
        if missing.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for: {}\n", missing.join(", ")),
            )
        }
    }
}

/// What tells more than scrapers and probes need is for this machine.
fn may_see(peer: SocketAddr, path: &str) -> bool {
    !matches!(path, "/" | "/status" | "/config") || peer.ip().to_canonical().is_loopback()
}

/// Binds the port.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn json(body: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(body) {
        Ok(body) => typed(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_sees_more_than_probes_and_metrics() {
        for (peer, is_here) in [
            ("127.0.0.1:9", true),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("10.0.0.1:9", false),
            ("[::ffff:10.0.0.1]:9", false),
        ] {
            let peer = peer.parse().unwrap();
            for path in ["/", "/status", "/config"] {
                assert_eq!(may_see(peer, path), is_here, "{peer} {path}");
            }
            for path in ["/livez", "/readyz", "/startupz", "/metrics", "/none"] {
                assert!(may_see(peer, path), "{peer} {path}");
            }
        }
    }
}
