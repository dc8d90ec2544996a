//! A certificate as a person reads it: whose it is, what it is for, and how long it is good.
//!
//! Not here: whether it verifies. No state.

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    x509::{X509, X509NameRef, X509Ref},
};

const DAY: i64 = 86_400;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its owner, in the form of RFC 4514.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it begins to be good, as OpenSSL writes it.
    pub begins: String,
    /// When it ends.
    pub ends: String,
    /// Seconds until it begins; not positive once it has.
    pub seconds_to_begin: i64,
    /// Seconds until it ends; negative when it has.
    pub seconds_left: i64,
}

impl Certificate {
    /// What there is to say of `certificate`.
    pub fn of(certificate: &X509Ref) -> Self {
        let names = certificate
            .subject_alt_names()
            .into_iter()
            .flatten()
            .filter_map(|name| {
                let dns = name.dnsname().map(str::to_owned);
                dns.or_else(|| name.ipaddress().and_then(address))
            })
            .collect();
        Self {
            subject: distinguished(certificate.subject_name()),
            issuer: distinguished(certificate.issuer_name()),
            names,
            begins: certificate.not_before().to_string(),
            ends: certificate.not_after().to_string(),
            seconds_to_begin: seconds_until(certificate.not_before()),
            seconds_left: seconds_until(certificate.not_after()),
        }
    }

    /// The certificates of a PEM file, in its order; never none.
    pub fn read(pem: &[u8]) -> Result<Vec<Self>, String> {
        let certificates =
            X509::stack_from_pem(pem).map_err(|_| "is damaged, or no PEM".to_owned())?;
        if certificates.is_empty() {
            return Err("holds no certificate in PEM".to_owned());
        }
        Ok(certificates.iter().map(|found| Self::of(found)).collect())
    }

    /// Whole days until it ends; negative when it has.
    pub fn days_left(&self) -> i64 {
        self.seconds_left.div_euclid(DAY)
    }
}

fn seconds_until(time: &Asn1TimeRef) -> i64 {
    // Neither fails but for want of memory.
    let now = Asn1Time::days_from_now(0);
    now.and_then(|now| now.diff(time))
        .map_or(0, |left| i64::from(left.days) * DAY + i64::from(left.secs))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// The name in the order and form of RFC 4514: the most specific part first.
pub fn distinguished(name: &X509NameRef) -> String {
    let parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let kind = entry.object().nid().short_name().unwrap_or("?");
            let value = entry
                .data()
                .to_string()
                .map_or_else(|_| "?".to_owned(), |value| value.to_string());
            format!("{kind}={}", escaped(&value))
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for char in value.chars() {
        if ",+\"\\<>;=*".contains(char) || char.is_control() {
            escaped.push('\\');
        }
        escaped.push(if char.is_control() { '?' } else { char });
    }
    escaped
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Name;

    use super::*;

    #[test]
    fn a_name_is_written_the_most_specific_part_first_and_cannot_pretend_to_have_more() {
        let mut builder = X509Name::builder().unwrap();
        builder.append_entry_by_text("O", "acme").unwrap();
        builder
            .append_entry_by_text("CN", "orders,O=other")
            .unwrap();
        assert_eq!(
            distinguished(&builder.build()),
            "CN=orders\\,O\\=other,O=acme"
        );
    }

    #[test]
    fn what_is_no_certificate_says_so() {
        assert!(Certificate::read(b"").unwrap_err().contains("no cert"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Certificate::read(broken).unwrap_err().contains("damaged"));
    }
}
