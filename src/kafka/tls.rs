//! A look at a broker's TLS beside librdkafka, to learn why its certificate does not verify.

use std::{
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use openssl::{
    pkey::{PKey, Private},
    ssl::{HandshakeError, Ssl},
};

use super::security;
use crate::{
    config::{Identity, Tls},
    tls,
};

/// The bound of each step of a look at a broker. Callers who wait for it are told what it found, so that a broker which is only slow must not
/// be taken for one that does not answer.
const STEP: Duration = Duration::from_secs(10);

/// Connects to a broker and shakes hands. The error says why not, the cause of a certificate that does not verify included. Blocks, bounded.
pub(super) fn look_at(settings: &Tls, host: &str, port: u16) -> Result<(), String> {
    let ssl = client(settings, host)?;
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        let stream = match TcpStream::connect_timeout(&address, STEP) {
            Ok(stream) => stream,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        stream
            .set_read_timeout(Some(STEP))
            .and_then(|()| stream.set_write_timeout(Some(STEP)))
            .map_err(|error| error.to_string())?;
        return match ssl.connect(stream) {
            Ok(_) => Ok(()),
            Err(HandshakeError::Failure(stream)) => {
                let cause = tls::unverified(stream.ssl().verify_result());
                Err(cause.unwrap_or_else(|| stream.error().to_string()))
            }
            Err(HandshakeError::WouldBlock(_)) => Err("no answer in time".to_owned()),
            Err(HandshakeError::SetupFailure(error)) => Err(error.to_string()),
        };
    }
    Err(last)
}

/// What a handshake with `host` begins with. The error names the key whose file is no good.
pub(super) fn client(settings: &Tls, host: &str) -> Result<Ssl, String> {
    let ca_file = settings.ca_file.as_deref();
    let mut builder = tls::connector(ca_file).map_err(|error| match ca_file {
        Some(file) => format!("kafka.tls.ca_file: {}: {error}", file.display()),
        None => error.to_string(),
    })?;
    if let Some(identity) = &settings.identity {
        builder
            .set_certificate_chain_file(&identity.certificate_file)
            .map_err(|error| {
                let file = identity.certificate_file.display();
                format!("kafka.tls.certificate_file: {file}: {error}")
            })?;
        let key = private_key(identity)?;
        builder.set_private_key(&key).map_err(|error| {
            let file = identity.key_file.display();
            format!("kafka.tls.key_file: {file}: {error}")
        })?;
    }
    let configured = builder.build().configure();
    configured
        .and_then(|connector| connector.into_ssl(host))
        .map_err(|error| error.to_string())
}

/// The key of the client's certificate. The error names the key of the configuration, and repeats no secret.
pub(super) fn private_key(identity: &Identity) -> Result<PKey<Private>, String> {
    let pem = fs::read(&identity.key_file).map_err(|error| {
        format!(
            "kafka.tls.key_file: {}: {error}",
            identity.key_file.display()
        )
    })?;
    let password = match &identity.key_password_file {
        Some(file) => {
            security::read(file).map_err(|error| format!("kafka.tls.key_password_file: {error}"))?
        }
        None => String::new(),
    };
    tls::private_key(&pem, &password).map_err(|_| {
        let file = identity.key_file.display();
        match identity.key_password_file {
            Some(_) => format!("kafka.tls.key_file: {file}: no key that this password opens"),
            None => {
                format!("kafka.tls.key_file: {file}: no private key that opens without a password")
            }
        }
    })
}

/// The host and the port in what librdkafka calls a broker: `sasl_ssl://localhost:9093/bootstrap`.
pub(super) fn broker_in(text: &str) -> Option<(&str, u16)> {
    let (_, rest) = text.split_once("ssl://")?;
    let authority = rest.split(['/', ' ']).next()?;
    let (host, port) = authority.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_found_in_what_librdkafka_says() {
        let said = "sasl_ssl://localhost:9093/bootstrap: SSL handshake failed";
        assert_eq!(broker_in(said), Some(("localhost", 9093)));
        assert_eq!(broker_in("ssl://[::1]:9/1: x"), Some(("::1", 9)));
        assert_eq!(broker_in("1/1 brokers are down"), None);
    }
}
