//! One request for a token by client credentials (RFC 6749, 4.4), over HTTP/1.1.
//!
//! A connection a request: there is one in many minutes. What always holds: over https the certificate and the host name are verified.

use std::{io, path::Path, pin::Pin};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    Method, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use crate::tls;

/// The largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

pub(super) struct Request<'a> {
    pub(super) url: &'a Uri,
    pub(super) client_id: &'a str,
    pub(super) client_secret: &'a str,
    pub(super) scope: Option<&'a str>,
    pub(super) ca_file: Option<&'a Path>,
}

/// RFC 6749, 5.1.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) access_token: String,
    #[serde(default)]
    pub(super) expires_in: Option<f64>,
}

/// RFC 6749, 5.2; the description is left out, since nobody knows what servers put there.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks once. The caller bounds the time.
pub(super) async fn ask(request: &Request<'_>) -> Result<Answer, String> {
    let host = request.url.host().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let is_tls = request.url.scheme_str() == Some("https");
    let port = request
        .url
        .port_u16()
        .unwrap_or(if is_tls { 443 } else { 80 });
    let tcp = TcpStream::connect((bare, port))
        .await
        .map_err(|error| error.to_string())?;
    match is_tls {
        false => exchange(request, tcp).await,
        true => {
            let tls = connect(bare, request.ca_file, tcp).await?;
            exchange(request, tls).await
        }
    }
}

async fn connect(
    host: &str,
    ca_file: Option<&Path>,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let failed = |error| format!("TLS: {error}");
    let ssl = tls::connector(ca_file)
        .and_then(|connector| connector.build().configure()?.into_ssl(host))
        .map_err(failed)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(failed)?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(tls::unverified(stream.ssl().verify_result())
            .unwrap_or_else(|| format!("TLS: {error}"))),
    }
}

async fn exchange<S>(request: &Request<'_>, stream: S) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let authority = request
        .url
        .authority()
        .map_or("", |authority| authority.as_str());
    let path = request
        .url
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut form = "grant_type=client_credentials".to_owned();
    if let Some(scope) = request.scope {
        form.push_str("&scope=");
        form.push_str(&encoded(scope));
    }
    // RFC 6749, 2.3.1: the name and the secret are form-encoded before they become Basic credentials.
    let credentials = STANDARD.encode(format!(
        "{}:{}",
        encoded(request.client_id),
        encoded(request.client_secret)
    ));
    let message = http::Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, format!("Basic {credentials}"))
        .body(Full::new(Bytes::from(form)))
        .map_err(|error| error.to_string())?;
    let answered = async {
        let response = sender
            .send_request(message)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| "the answer holds no access_token".to_owned());
        }
        let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
        let code = refusal.map(|refusal| refusal.error).filter(|code| {
            code.len() <= 64
                && code
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        Err(match code {
            Some(code) => format!("answered {status}: {code}"),
            None => format!("answered {status}"),
        })
    };
    // The connection is driven only while the answer is awaited.
    tokio::select! {
        biased;
        answer = answered => answer,
        Err(error) = connection => Err(io::Error::other(error).to_string()),
    }
}

/// application/x-www-form-urlencoded.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_cannot_hold_is_encoded() {
        assert_eq!(encoded("a b&c=d/é~"), "a+b%26c%3Dd%2F%C3%A9%7E");
    }
}
