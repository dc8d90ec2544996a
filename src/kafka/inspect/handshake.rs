//! TLS with a broker, by our own OpenSSL: librdkafka keeps to itself why a certificate does not verify.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use openssl::{
    ssl::{Ssl, SslVerifyMode},
    x509::{X509StoreContextRef, X509VerifyResult},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_openssl::SslStream;

use super::{STEP, tls};
use crate::{config::Tls, tls::Certificate};

/// A handshake that was good.
#[derive(Debug)]
pub struct Handshake {
    /// The broker's own certificate.
    pub certificate: Option<Certificate>,
    /// Such as `TLSv1.3`.
    pub version: &'static str,
}

/// Why there was none.
#[derive(Debug)]
pub enum TlsProblem {
    /// A certificate of the broker's chain is no longer good.
    Expired(Certificate),
    /// Or not yet.
    NotYetValid(Certificate),
    /// The broker's certificate is for other hosts.
    WrongName(Certificate),
    /// Nobody whom we trust has signed it.
    UnknownAuthority(Certificate),
    /// Something else about it, in OpenSSL's words.
    Unverified(String),
    /// The broker says no, in its alert's words.
    Refused(String),
    /// What answers there does not speak TLS.
    NoTls,
    /// Nothing came back.
    TimedOut,
    /// One of our own files is no good: which and why.
    Ours(String),
    /// In OpenSSL's words.
    Other(String),
}

/// What did not verify.
type Found = Arc<Mutex<Option<(X509VerifyResult, Option<Certificate>)>>>;

/// A connection turned into one over TLS.
pub(super) async fn shake_hands(
    settings: &Tls,
    host: &str,
    stream: TcpStream,
) -> Result<(SslStream<TcpStream>, Handshake), TlsProblem> {
    let mut ssl = tls::client(settings, host).map_err(TlsProblem::Ours)?;
    let found = Found::default();
    take_down(&mut ssl, Arc::clone(&found));
    let mut stream =
        SslStream::new(ssl, stream).map_err(|error| TlsProblem::Ours(error.to_string()))?;
    match timeout(STEP, Pin::new(&mut stream).connect()).await {
        Err(_) => Err(TlsProblem::TimedOut),
        Ok(Ok(())) => {
            let certificate = stream.ssl().peer_certificate();
            let handshake = Handshake {
                certificate: certificate.map(|certificate| Certificate::of(&certificate)),
                version: stream.ssl().version_str(),
            };
            Ok((stream, handshake))
        }
        Ok(Err(error)) => {
            let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(match found {
                Some((result, certificate)) => unverified(result, certificate),
                None => failed(&error.to_string(), error.ssl_error().is_none()),
            })
        }
    }
}

/// Keeps what does not verify, and changes nothing about it.
fn take_down(ssl: &mut Ssl, found: Found) {
    let verify = move |is_good: bool, context: &mut X509StoreContextRef| {
        if !is_good {
            let certificate = context.current_cert().map(Certificate::of);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.get_or_insert((context.error(), certificate));
        }
        is_good
    };
    ssl.set_verify_callback(SslVerifyMode::PEER, verify);
}

fn unverified(result: X509VerifyResult, certificate: Option<Certificate>) -> TlsProblem {
    // The numbers are X509_V_ERR_* of OpenSSL's x509_vfy.h.
    match (result.as_raw(), certificate) {
        (9, Some(certificate)) => TlsProblem::NotYetValid(certificate),
        (10, Some(certificate)) => TlsProblem::Expired(certificate),
        (2 | 18 | 19 | 20 | 21, Some(certificate)) => TlsProblem::UnknownAuthority(certificate),
        (62 | 64, Some(certificate)) => TlsProblem::WrongName(certificate),
        _ => TlsProblem::Unverified(result.error_string().to_owned()),
    }
}

/// The meaning of OpenSSL's words; `is_cut` when the connection ended below TLS.
fn failed(words: &str, is_cut: bool) -> TlsProblem {
    let said = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if said(&[
        "wrong version number",
        "packet length too long",
        "http request",
    ]) || is_cut
    {
        return TlsProblem::NoTls;
    }
    match alert(words) {
        Some(alert) => TlsProblem::Refused(alert),
        None => TlsProblem::Other(words.to_owned()),
    }
}

/// The alert in OpenSSL's words, which have it as `…:tlsv13 alert certificate required:…`.
pub(super) fn alert(words: &str) -> Option<String> {
    let (_, alert) = words.split_once("alert ")?;
    let end = alert.find(':').unwrap_or(alert.len());
    Some(alert[..end].trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssl_says_is_sorted_by_what_can_be_done_about_it() {
        let wrong = "error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:ssl/record/x.c:77:";
        assert!(matches!(failed(wrong, false), TlsProblem::NoTls));
        assert!(matches!(failed("unexpected EOF", true), TlsProblem::NoTls));
        let required = "error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:ssl/record/x.c:8:SSL alert number 116";
        assert_eq!(alert(required).as_deref(), Some("certificate required"));
        assert!(matches!(failed(required, false), TlsProblem::Refused(_)));
        assert!(matches!(failed("else", false), TlsProblem::Other(_)));
    }
}
