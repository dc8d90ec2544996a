//! TLS of the TCP listener: the handshake, and who the caller's certificate says it is.
//!
//! A new certificate, key or authority in the files is used from the next connection on; what is no good is logged, and the old stays.

use std::{
    fs,
    path::Path,
    pin::Pin,
    sync::{Mutex, PoisonError, RwLock},
};

use openssl::{
    error::ErrorStack,
    ssl::{
        AlpnError, Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode, SslVersion,
        select_next_proto,
    },
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::{config::ListenTls, tls};

/// What handshakes are made with.
pub(super) struct Tls {
    files: ListenTls,
    /// Whether a caller may come without a certificate, since it may have a token.
    optional: bool,
    acceptor: RwLock<SslAcceptor>,
    /// What the files held.
    read: Mutex<Vec<Vec<u8>>>,
}

impl Tls {
    /// Reads the files.
    pub(super) fn open(files: &ListenTls, optional: bool) -> Result<Self, String> {
        let read = contents(files)?;
        Ok(Self {
            files: files.clone(),
            optional,
            acceptor: RwLock::new(acceptor(files, optional).map_err(|error| error.to_string())?),
            read: Mutex::new(read),
        })
    }

    /// Reads the files again.
    pub(super) fn refresh(&self) {
        let fresh = match contents(&self.files) {
            Ok(fresh) => fresh,
            Err(error) => return tracing::warn!("listen.tls: the old certificate stays: {error}"),
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *read == fresh {
            return;
        }
        match acceptor(&self.files, self.optional) {
            Ok(acceptor) => {
                *self
                    .acceptor
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = acceptor;
                *read = fresh;
                tracing::info!("the listener uses a new certificate");
            }
            // Half of a rotation, most likely: looked at again.
            Err(error) => tracing::warn!("listen.tls: the old certificate stays: {error}"),
        }
    }

    /// Shakes hands; the caller bounds the time. The error is for the log.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<SslStream<TcpStream>, String> {
        let acceptor = self
            .acceptor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let ssl = Ssl::new(acceptor.context()).map_err(|error| error.to_string())?;
        let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
        match Pin::new(&mut stream).accept().await {
            Ok(()) => Ok(stream),
            Err(error) => {
                Err(tls::unverified(stream.ssl().verify_result())
                    .unwrap_or_else(|| error.to_string()))
            }
        }
    }
}

/// The name of the caller's certificate, if it showed one.
pub(super) fn name(stream: &SslStream<TcpStream>) -> Option<String> {
    let certificate = stream.ssl().peer_certificate()?;
    Some(format!(
        "certificate:{}",
        tls::distinguished(certificate.subject_name())
    ))
}

fn contents(files: &ListenTls) -> Result<Vec<Vec<u8>>, String> {
    [&files.certificate_file, &files.key_file]
        .into_iter()
        .chain(&files.client_ca_file)
        .map(|file| fs::read(file).map_err(|error| format!("{}: {error}", file.display())))
        .collect()
}

fn acceptor(files: &ListenTls, optional: bool) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_certificate_chain_file(&files.certificate_file)?;
    builder.set_private_key_file(&files.key_file, SslFiletype::PEM)?;
    builder.check_private_key()?;
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(tls::H2, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    if let Some(file) = &files.client_ca_file {
        ask_for_certificates(&mut builder, file, optional)?;
    }
    Ok(builder.build())
}

fn ask_for_certificates(
    builder: &mut openssl::ssl::SslAcceptorBuilder,
    authorities: &Path,
    optional: bool,
) -> Result<(), ErrorStack> {
    builder.set_ca_file(authorities)?;
    let mut verify = SslVerifyMode::PEER;
    if !optional {
        verify |= SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    }
    builder.set_verify(verify);
    // Sessions of one listener are not another's.
    builder.set_session_id_context(b"outrigger")
}
