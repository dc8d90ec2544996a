//! The way to the one Kafka cluster: it knows what a client begins with, and keeps running clients' credentials fresh.
//!
//! A cheap handle. Not here: the clients themselves ([`Producer`](super::Producer), [`Consumer`](super::Consumer)), which are made from it.

use std::{future::Future, sync::Arc};

use rdkafka::config::ClientConfig;
use tokio::sync::watch;

use super::{connection, security::Security, settings, tls};
use crate::{config::Config, failure::Failure};

/// One cluster, and who we are to it.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds secrets")]
pub struct Cluster(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    security: Security,
}

impl Cluster {
    /// The cluster of `config`; nothing is connected yet.
    pub fn new(config: Arc<Config>) -> Self {
        let security = Security::new(&config.kafka);
        Self(Arc::new(Shared { config, security }))
    }

    /// The properties of a producer. The error names the key and the file that cannot be read.
    pub fn producer_properties(&self) -> Result<ClientConfig, String> {
        let mut client =
            settings::with_statistics(settings::producer(&self.0.config), &self.0.config.metrics);
        self.0.security.properties(&mut client)?;
        Ok(client)
    }

    /// The properties of a group's consumer.
    pub fn consumer_properties(&self, group: &str) -> Result<ClientConfig, String> {
        let mut client = settings::with_statistics(
            settings::consumer(&self.0.config, group),
            &self.0.config.metrics,
        );
        self.0.security.properties(&mut client)?;
        Ok(client)
    }

    /// The properties of a client that only asks, at one broker. Not those of a producer: an idempotent one is given an id by the brokers.
    pub(super) fn asking_properties(&self, broker: &str) -> Result<ClientConfig, String> {
        let mut client = settings::asking(&self.0.config.kafka, broker);
        self.0.security.properties(&mut client)?;
        Ok(client)
    }

    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn security(&self) -> &Security {
        &self.0.security
    }

    /// Sees each new certificate: clients must be replaced then.
    pub fn certificates(&self) -> watch::Receiver<u64> {
        self.0.security.certificates()
    }

    /// Why no client can even try to log in, if so.
    pub fn refused(&self) -> Option<Failure> {
        self.0.security.refused()
    }

    /// The same failure, with the cause of a broker's certificate that does not verify: librdkafka keeps it to itself. Blocks for a look at
    /// the broker, bounded.
    pub(super) fn explain(&self, mut failure: Failure) -> Failure {
        let Some(tls) = &self.0.config.kafka.tls else {
            return failure;
        };
        if failure.message.contains(connection::UNVERIFIED)
            && let Some((host, port)) = tls::broker_in(&failure.message)
            && let Err(cause) = tls::look_at(tls, host, port)
        {
            failure.message = format!("{}: {host}:{port}: {cause}", connection::NO_TLS);
        }
        failure
    }

    /// Keeps the credentials of running clients fresh; never ends.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + 'static {
        let cluster = self.clone();
        async move { cluster.0.security.keep_fresh().await }
    }
}
