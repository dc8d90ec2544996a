//! TLS as we speak it to others: what a connector trusts, and what is wrong with a certificate.
//!
//! The library is the OpenSSL that librdkafka is linked with. What always holds: the certificate and the host name are verified.

mod certificate;

use std::{io, path::Path, pin::Pin};

use http::Uri;
use hyper_util::rt::TokioIo;
use openssl::{
    error::ErrorStack,
    pkey::{PKey, PKeyRef, Private},
    ssl::{SslConnector, SslConnectorBuilder, SslMethod},
    x509::{X509, X509VerifyResult},
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

pub use self::certificate::{Certificate, distinguished};

/// HTTP/2 by TLS (RFC 9113, 3.3), in the form of ALPN's list.
pub const H2: &[u8] = b"\x02h2";

/// A connector that trusts the authorities in `ca_file`, or the system's.
pub fn connector(ca_file: Option<&Path>) -> Result<SslConnectorBuilder, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    // The library is linked in, and knows nothing of where this system keeps its authorities.
    let system = openssl_probe::probe().cert_file;
    if let Some(file) = ca_file.or(system.as_deref()) {
        builder.set_ca_file(file)?;
    }
    Ok(builder)
}

/// Connects to the host and port of `uri` and shakes hands, as tonic's channels want it.
pub async fn connect(
    connector: SslConnector,
    uri: Uri,
) -> io::Result<TokioIo<SslStream<TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    let ssl = connector.configure()?.into_ssl(host)?;
    let mut stream = SslStream::new(ssl, tcp)?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(TokioIo::new(stream)),
        Err(error) => Err(io::Error::other(
            unverified(stream.ssl().verify_result()).unwrap_or_else(|| error.to_string()),
        )),
    }
}

/// The private key of a PEM file, opened by `password`, which may be empty: nobody is asked for one.
pub fn private_key(pem: &[u8], password: &str) -> Result<PKey<Private>, ErrorStack> {
    PKey::private_key_from_pem_passphrase(pem, password.as_bytes())
}

/// Whether the first certificate of a PEM file is that of `key`.
pub fn belongs(pem: &[u8], key: &PKeyRef<Private>) -> bool {
    X509::from_pem(pem)
        .and_then(|certificate| certificate.public_key())
        .is_ok_and(|public| public.public_eq(key))
}

/// What is wrong with a certificate, in a person's words; `None` when nothing is.
pub fn unverified(result: X509VerifyResult) -> Option<String> {
    (result != X509VerifyResult::OK).then(|| format!("the certificate does not verify: {result}"))
}
