//! Certificates for tests: an authority, and what it signs, as PEM files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::{
        X509, X509Name,
        extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName},
    },
};

pub fn key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

/// An authority of a test's own.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate with its key, as files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one file, the key first, as Kafka's PEM store wants it.
    pub both: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = key();
        let certificate = build(name, None, (-1, 30), None, &key);
        Self { certificate, key }
    }

    /// Writes the authority's own certificate.
    pub fn write(&self, path: &Path) {
        fs::write(path, self.certificate.to_pem().unwrap()).unwrap();
    }

    /// Signs a certificate for `name`, for the host `host` if there is one, valid between two days counted from now.
    pub fn sign(
        &self,
        directory: &Path,
        name: &str,
        host: Option<&str>,
        days: (i64, i64),
    ) -> Identity {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let key = key();
        let certificate = build(name, host, days, Some(self), &key);
        let stem = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = |kind: &str| directory.join(format!("{stem}.{kind}.pem"));
        let identity = Identity {
            certificate: file("certificate"),
            key: file("key"),
            both: file("both"),
        };
        let (certificate, key) = (
            certificate.to_pem().unwrap(),
            key.private_key_to_pem_pkcs8().unwrap(),
        );
        fs::write(&identity.certificate, &certificate).unwrap();
        fs::write(&identity.key, &key).unwrap();
        fs::write(&identity.both, [key, certificate].concat()).unwrap();
        identity
    }
}

fn build(
    name: &str,
    host: Option<&str>,
    (from, to): (i64, i64),
    signer: Option<&Authority>,
    key: &PKey<Private>,
) -> X509 {
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let day = |days: i64| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        Asn1Time::from_unix(now + days * 86_400).unwrap()
    };
    let mut serial = BigNum::new().unwrap();
    serial
        .rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false)
        .unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&day(from)).unwrap();
    builder.set_not_after(&day(to)).unwrap();
    match signer {
        None => {
            builder.set_issuer_name(&subject).unwrap();
            let authority = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(authority).unwrap();
            let usage = KeyUsage::new()
                .critical()
                .key_cert_sign()
                .crl_sign()
                .build()
                .unwrap();
            builder.append_extension(usage).unwrap();
        }
        Some(signer) => {
            builder
                .set_issuer_name(signer.certificate.subject_name())
                .unwrap();
            let usage = ExtendedKeyUsage::new()
                .server_auth()
                .client_auth()
                .build()
                .unwrap();
            builder.append_extension(usage).unwrap();
        }
    }
    if let Some(host) = host {
        let context = builder.x509v3_context(signer.map(|signer| &*signer.certificate), None);
        let names = SubjectAlternativeName::new()
            .dns(host)
            .build(&context)
            .unwrap();
        builder.append_extension(names).unwrap();
    }
    let signing_key = signer.map_or(key, |signer| &signer.key);
    builder.sign(signing_key, MessageDigest::sha256()).unwrap();
    builder.build()
}
