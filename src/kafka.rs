//! The Kafka edge: the only room that knows librdkafka.
//!
//! [`Cluster`] is the way to it, with the credentials; [`Producer`] sends and reports, [`Consumer`] reads and commits; both speak the words of `record` and `failure` to the rest.
//! `settings` turns the configuration into librdkafka properties, `embedded` is the in-memory broker of `outrigger dev`,
//! `inspect` finds out what can be found without changing anything, `patterns` decides about topics by regular expression,
//! and `ffi` holds every line of unsafe code of the crate.

mod cluster;
mod connection;
mod consumer;
mod context;
pub mod direct;
mod embedded;
mod error;
mod ffi;
pub mod inspect;
pub mod patterns;
mod producer;
mod security;
pub mod settings;
mod statistics;
mod tls;
mod token;

pub use cluster::Cluster;
pub use consumer::{
    Commit, CommitEnd, Consumer, ConsumerEvent, Offsets, Position, Resolved, Sought, Start, Target,
    is_reset,
};
pub use embedded::EmbeddedBroker;
pub use ffi::leave;
pub use producer::{
    Answered, BatchId, Delivery, Keys, PartitionKey, Places, Producer, Registration, SendFull,
    Trust, Waiting,
};
pub use rdkafka::config::ClientConfig as Properties;
