//! The listeners, as far as their keys are tied together: at least one is on, no two share a port, and none lets strangers in.
//!
//! Pure; nobody owns state.

use std::net::SocketAddr;

use super::{ListenTls, check::Checked, problem::Problem, show::Sourced, value::Parsed};

impl Checked {
    pub(super) fn try_listeners(&mut self) {
        let address = |key| match self.values.get(key) {
            Some(Sourced {
                value: Parsed::Address(address),
                source,
            }) => Some((*address, source)),
            _ => None,
        };
        let problem = match (
            address("listen.tcp"),
            address("admin.listen"),
            self.values.get("listen.unix"),
        ) {
            (Some((None, source)), _, Some(unix)) if unix.value == Parsed::Path(None) => {
                let message = "is off, and so is listen.unix: at least one of the two must be on";
                Problem::new("listen.tcp", source, message)
            }
            (Some((Some(grpc), grpc_source)), Some((Some(admin), source)), _)
                if overlap(grpc, admin) =>
            {
                let message =
                    format!("\"{admin}\" takes the port of listen.tcp, \"{grpc}\" ({grpc_source})");
                Problem::new("admin.listen", source, message)
            }
            _ => return,
        };
        self.problems.push(problem);
    }

    /// TLS and authentication of the TCP listener.
    pub(super) fn try_doors(&mut self) {
        const CERTIFICATE: &str = "listen.tls.certificate_file";
        const KEY: &str = "listen.tls.key_file";
        const CLIENTS: &str = "listen.tls.client_ca_file";
        let tls = (self.file(CERTIFICATE).is_some(), self.file(KEY).is_some());
        match tls {
            (true, false) => self.refuse(KEY, &format!("is required with {CERTIFICATE}")),
            (false, true) => self.refuse(CERTIFICATE, &format!("is required with {KEY}")),
            (false, false) => {
                self.refuse_if_set(CLIENTS, &format!("has no effect without {CERTIFICATE}"))
            }
            (true, true) => {}
        }
        let Some(Sourced {
            value: Parsed::Address(Some(address)),
            ..
        }) = self.values.get("listen.tcp")
        else {
            return;
        };
        let is_known = self.file(CLIENTS).is_some() || self.file("listen.tokens_file").is_some();
        let is_guarded = tls.0 && is_known;
        if !is_guarded && !address.ip().to_canonical().is_loopback() {
            let message = format!(
                "\"{address}\" is not a loopback address: others can reach it, so it needs listen.tls.certificate_file and one of \
                 {CLIENTS} and listen.tokens_file"
            );
            self.refuse("listen.tcp", &message);
        }
    }

    pub(super) fn listen_tls(&self) -> Option<ListenTls> {
        Some(ListenTls {
            certificate_file: self.file("listen.tls.certificate_file")?,
            key_file: self.file("listen.tls.key_file")?,
            client_ca_file: self.file("listen.tls.client_ca_file"),
        })
    }
}

/// Whether the second cannot be bound beside the first.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}
