//! What the client commands share: the way to a sidecar, and how its refusals read.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use http::Uri;
use openssl::ssl::{SslConnector, SslFiletype};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::Settings;
use crate::tls;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a sidecar is when nobody says otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:7420";

/// Where the sidecar is, and who we are to it.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Sidecar {
    /// The sidecar's gRPC address: HOST:PORT, https://HOST:PORT, or unix:/path of its socket. Default: 127.0.0.1:7420.
    #[arg(long, env = "OUTRIGGER_ADDRESS", value_name = "ADDRESS")]
    pub(super) address: Option<String>,
    /// PEM: the authorities that may have signed the sidecar's certificate; it makes the connection one over TLS.
    #[arg(long, env = "OUTRIGGER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// PEM: a certificate of our own, with its chain (mTLS).
    #[arg(
        long,
        env = "OUTRIGGER_CERTIFICATE_FILE",
        value_name = "FILE",
        requires = "key_file"
    )]
    certificate_file: Option<PathBuf>,
    /// PEM: the private key of that certificate.
    #[arg(
        long,
        env = "OUTRIGGER_KEY_FILE",
        value_name = "FILE",
        requires = "certificate_file"
    )]
    key_file: Option<PathBuf>,
    /// A file with a bearer token.
    #[arg(long, env = "OUTRIGGER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A connection that says who we are with each call.
pub(super) type Connection = InterceptedService<Channel, Bearer>;

/// Adds the token, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Sidecar {
    /// The one at an address.
    pub(super) fn at(address: String) -> Self {
        Self {
            address: Some(address),
            ..Self::default()
        }
    }

    /// Beside the sidecar, its own configuration says where it is: the socket needs no token.
    pub(super) fn beside(&self) -> Self {
        let mut sidecar = self.clone();
        if sidecar.address.is_none()
            && let Ok(loaded) = Settings::default().load()
        {
            let listen = loaded.config.listen;
            sidecar.address = listen
                .unix
                .map(|path| format!("unix:{}", path.display()))
                .or_else(|| Some(listen.tcp?.to_string()));
        }
        sidecar
    }

    /// Connects, or says what to do.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let address = self.address.as_deref().unwrap_or(DEFAULT_ADDRESS);
        let is_tls = address.starts_with("https://")
            || self.ca_file.is_some()
            || self.certificate_file.is_some();
        let uri = match address.contains("://") || address.starts_with("unix:") {
            true => address.to_owned(),
            false if is_tls => format!("https://{address}"),
            false => format!("http://{address}"),
        };
        let endpoint = Endpoint::from_shared(uri)
            .with_context(|| format!("{address:?} is not an address"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_connection_window_size(64 * 1024 * 1024)
            .initial_stream_window_size(4 * 1024 * 1024);
        let connected = match is_tls {
            false => endpoint.connect().await,
            true => {
                let connector = self.connector()?;
                let connect = move |uri: Uri| tls::connect(connector.clone(), uri);
                endpoint
                    .connect_with_connector(tower::service_fn(connect))
                    .await
            }
        };
        let channel = connected.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            anyhow!("no sidecar answers at {address} ({cause}); start one with `outrigger dev`")
        })?;
        Ok(InterceptedService::new(channel, self.bearer()?))
    }

    fn bearer(&self) -> anyhow::Result<Bearer> {
        let Some(file) = &self.token_file else {
            return Ok(Bearer::default());
        };
        let token = fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| anyhow!("{} holds no token", file.display()))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    fn connector(&self) -> anyhow::Result<SslConnector> {
        let mut builder =
            tls::connector(self.ca_file.as_deref()).context("the authorities cannot be used")?;
        builder.set_alpn_protos(tls::H2)?;
        if let (Some(certificate), Some(key)) = (&self.certificate_file, &self.key_file) {
            builder
                .set_certificate_chain_file(certificate)
                .context("the certificate cannot be used")?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .context("the key cannot be used")?;
        }
        Ok(builder.build())
    }
}

/// A refusal as one line: the reason, then the words.
pub(super) fn refusal(status: &Status) -> anyhow::Error {
    match status.get_details_error_info() {
        Some(info) => anyhow!("{}: {}", info.reason, status.message()),
        None => anyhow!("{}: {}", status.code(), status.message()),
    }
}

/// A runtime for a client command.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime could not be started")
}
