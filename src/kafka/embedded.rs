//! The in-memory broker of `outrigger dev`: librdkafka's mock cluster, inside this process.
//!
//! Not a judge of semantics; [`EmbeddedBroker::LIMITS`] says what it is not. It ends with the process and keeps nothing.

use rdkafka::{
    config::ClientConfig,
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, Producer as _},
};

use super::ffi;

/// A mock cluster of one broker on a free loopback port, owned by a client that is used for nothing else.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handle shows nothing"
)]
pub struct EmbeddedBroker {
    owner: BaseProducer,
}

impl EmbeddedBroker {
    /// What a user must know, printed at the start.
    pub const LIMITS: &'static [&'static str] = &[
        "in memory: records are gone when this process ends",
        "5 MiB or 100,000 batches a partition are kept, older records vanish silently",
        "topics are created by their first use, with 4 partitions",
        "no transactions, no compaction, no TLS, SASL or ACLs, no admin requests",
        "only clients built on librdkafka can connect to it directly",
    ];

    /// Starts it.
    pub fn start() -> KafkaResult<Self> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1");
        let owner: BaseProducer = config.create()?;
        ffi::form_groups_at_once(owner.client());
        Ok(Self { owner })
    }

    /// Its address, for `kafka.bootstrap_servers`.
    pub fn bootstrap_servers(&self) -> KafkaResult<String> {
        let cluster = self.owner.client().mock_cluster();
        cluster
            .map(|cluster| cluster.bootstrap_servers())
            .ok_or_else(|| KafkaError::ClientCreation("there is no mock cluster".to_owned()))
    }
}
