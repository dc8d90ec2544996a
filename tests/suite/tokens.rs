//! An OAuth 2 server for tests: one endpoint over TLS that gives tokens for client credentials, and the keys by which brokers check them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    sign::Signer,
    ssl::{SslAcceptor, SslFiletype, SslMethod},
};
use serde_json::json;

use crate::certificates::{self, Identity};

pub const AUDIENCE: &str = "kafka";

/// What signs tokens.
#[derive(Clone)]
pub struct Issuer(PKey<Private>);

impl Issuer {
    pub fn new() -> Self {
        Self(certificates::key())
    }

    /// The public key, as brokers read it (RFC 7517).
    pub fn write_keys(&self, path: &Path) {
        let rsa = self.0.rsa().unwrap();
        let keys = json!({"keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "test",
            "n": URL_SAFE_NO_PAD.encode(rsa.n().to_vec()),
            "e": URL_SAFE_NO_PAD.encode(rsa.e().to_vec()),
        }]});
        std::fs::write(path, keys.to_string()).unwrap();
    }

    /// A signed token for `subject` that lives for some seconds.
    pub fn token(&self, subject: &str, lifetime: u64) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!(
            "{}.{}",
            part(json!({"alg": "RS256", "kid": "test", "typ": "JWT"})),
            part(
                json!({"iss": "test", "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + lifetime})
            ),
        );
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0).unwrap();
        let signature = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The endpoint; it serves as long as the process lives.
pub struct TokenServer {
    pub url: String,
    /// The secret that it takes.
    pub secret: Arc<Mutex<String>>,
    pub given: Arc<AtomicU32>,
}

impl TokenServer {
    /// Gives tokens for `subject`, alive for `lifetime` seconds.
    pub fn start(issuer: Issuer, identity: &Identity, subject: &str, lifetime: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "https://localhost:{}/token",
            listener.local_addr().unwrap().port()
        );
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls()).unwrap();
        acceptor
            .set_certificate_file(&identity.certificate, SslFiletype::PEM)
            .unwrap();
        acceptor
            .set_private_key_file(&identity.key, SslFiletype::PEM)
            .unwrap();
        let acceptor = acceptor.build();
        let server = Self {
            url,
            secret: Arc::new(Mutex::new("open sesame/%+".to_owned())),
            given: Arc::default(),
        };
        let (secret, given, subject) = (
            Arc::clone(&server.secret),
            Arc::clone(&server.given),
            subject.to_owned(),
        );
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let Ok(stream) = acceptor.accept(tcp) else {
                    continue;
                };
                let mut stream = BufReader::new(stream);
                let (mut head, mut length) = (String::new(), 0);
                while !head.ends_with("\r\n\r\n")
                    && stream.read_line(&mut head).is_ok_and(|count| count > 0)
                {}
                for line in head.lines() {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                let _ = stream.read_exact(&mut body);
                // RFC 6749, 2.3.1: both halves are form-encoded; here by hand for the one secret.
                let encoded = secret
                    .lock()
                    .unwrap()
                    .replace('%', "%25")
                    .replace('/', "%2F")
                    .replace('+', "%2B")
                    .replace(' ', "+");
                let basic = format!("Basic {}", STANDARD.encode(format!("outrigger:{encoded}")));
                let is_right =
                    head.contains(&basic) && body.starts_with(b"grant_type=client_credentials");
                let (status, answer) = match is_right {
                    true => {
                        given.fetch_add(1, Ordering::Relaxed);
                        let token = issuer.token(&subject, lifetime);
                        (
                            "200 OK",
                            json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime}),
                        )
                    }
                    false => (
                        "401 Unauthorized",
                        json!({"error": "invalid_client", "error_description": "no such client"}),
                    ),
                };
                let answer = answer.to_string();
                let _ = write!(
                    stream.get_mut(),
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        });
        server
    }
}
